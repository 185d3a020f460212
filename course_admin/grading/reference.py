"""What the instructor's own notebook gives: the expected value of every check, computed once for each version of a lab.

Each graded cell is run twice there. First in the sealed form that students' kernels get, then whole, with the expected
values evaluated. The sealed observations must pass the checks made of the expected values: so a lab whose reference
would lose points in grading is refused before any submission is run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import nbformat

from course_admin.grading.bubblewrap import Limits
from course_admin.grading.kernel import Kernel, Run
from course_admin.grading.kit import Kit
from course_admin.grading.sandbox import Zygote
from course_admin.paths import CourseError
from course_utils.checks import judge
from course_utils.files import replacing

LIMITS = Limits(cell_s=3600.0, notebook_s=4 * 3600.0, memory_bytes=16 * 2**30, output_bytes=50 * 2**20)
Records = dict[str, dict]


def reference_digest(instructor: nbformat.NotebookNode, kit: Kit) -> str:
    """A hash of everything that the expected values depend on."""
    code = [cell.source for cell in instructor.cells if cell.cell_type == "code"]
    parts = json.dumps([code, kit.digest, *map(_version, ("numpy", "torch", "scikit-learn"))])
    return hashlib.sha256(parts.encode()).hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def reference_records(
    instructor: nbformat.NotebookNode,
    kit: Kit,
    cache: Path,
    *,
    isolation: str,
    threads: int,
    say: Callable[[str], None] = lambda line: None,
) -> Records:
    """The record of every graded code cell with the expected values in place of observed ones.

    Args:
        instructor: the instructor's notebook.
        kit: a kit whose exercises still have their bodies.
        cache: folder that keeps records by content.
        isolation: as for submissions.
        threads: for numerical libraries.
        say: told when the notebook has to be run.

    Returns:
        Records by grade id.

    Raises:
        CourseError: if a cell raises, or the reference does not pass its own checks in sealed form.
    """
    path = cache / f"{reference_digest(instructor, kit)}.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    say(f"running the instructor's notebook of {kit.lab} once, for the expected values ...")
    zygote = Zygote(kit.folder, isolation, LIMITS, threads, kit.preload)
    try:
        records = _run(instructor, kit, zygote)
    finally:
        zygote.remove()
    cache.mkdir(parents=True, exist_ok=True)
    cache.chmod(0o700)
    with replacing(path) as part:
        part.write_text(json.dumps(records), encoding="utf-8")
    for old in cache.glob("*.json"):
        if old != path:
            old.unlink()
    return records


def _run(instructor: nbformat.NotebookNode, kit: Kit, zygote: Zygote) -> Records:
    kernel, records = Kernel(zygote, kit.environment), {}
    try:
        for cell in (cell for cell in instructor.cells if cell.cell_type == "code"):
            name = cell.metadata.get("nbgrader", {}).get("grade_id", "")
            if name not in kit.sealed:
                _checked(kernel.run(cell.source, timeout=LIMITS.cell_s), cell.id)
                continue
            sealed = _record(kernel, kit.sealed[name], name)
            _switch(kernel, "expected")
            records[name] = _record(kernel, cell.source, name)
            _switch(kernel, "sealed")
            _compare(name, sealed, records[name])
    finally:
        kernel.close()
    return records


def _switch(kernel: Kernel, mode: str) -> None:
    _checked(
        kernel.run(f"__import__('os').environ['COURSE_CHECKS'] = {mode!r}", timeout=60, quiet=True),
        "the mode of checks",
    )


def _record(kernel: Kernel, source: str, name: str) -> dict:
    run = _checked(kernel.run(source, timeout=LIMITS.cell_s), name)
    if len(run.records) != 1:
        raise CourseError(f"the instructor's cell {name} left {len(run.records)} records of its checks instead of one")
    return run.records[0]


def _checked(run: Run, name: str) -> Run:
    if run.ended or run.raised:
        text = next((o["evalue"] for o in run.outputs if o["output_type"] == "error"), "")
        raise CourseError(
            f"the instructor's notebook does not run: cell {name}: {run.ended or run.raised} {text}"[:500]
        )
    return run


def _compare(name: str, sealed: dict, expected: dict) -> None:
    measured = {item["name"]: item["actual"] for item in expected["checks"] if "measure" in item}
    checks = [{**item, "actual": measured.get(item["name"], item["actual"])} for item in sealed["checks"]]
    failed = [outcome for outcome in judge({"checks": checks}, expected) if not outcome.passed]
    if failed:
        raise CourseError(
            f"{name}: the reference fails its own check {failed[0].name!r} in sealed form ({failed[0].problem.text}); "
            "an expected value must not change what the check looks at"
        )


def measures(records: Records) -> dict[str, dict[str, str]]:
    """How the checks are measured that need it, by name of cell and of check."""
    found = {
        name: {item["name"]: item["measure"] for item in record["checks"] if "measure" in item}
        for name, record in records.items()
    }
    return {name: checks for name, checks in found.items() if checks}


def check_names(records: Records) -> dict[str, list[list[str]]]:
    """(name, kind) of the checks of every graded cell, as a sealed record has them."""
    return {
        name: [[item["name"], "measured" if "measure" in item else item["kind"]] for item in record["checks"]]
        for name, record in records.items()
    }
