"""Making a lab's kit from its two notebooks. Hidden tests are read here; what is sealed of them goes further."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import nbformat

from course_admin.grading.kit import Kit, PlanCell
from course_admin.grading.sealing import modules_imported, seal
from course_admin.paths import Lab, Repository
from course_admin.release.needs import hidden_from
from course_admin.stubs import write_package
from course_utils import data_files, profiles

FORMAT = 1  # raise it when the same kit would be executed differently


def make_kit(
    folder: Path,
    lab: Lab,
    repository: Repository,
    *,
    instructor: nbformat.NotebookNode,
    released: nbformat.NotebookNode,
    stub: bool = True,
) -> Kit:
    """Make the kit of a lab in an empty folder.

    Args:
        folder: where to write.
        lab: the lab.
        repository: where course_utils, the data and the lab's text source are.
        instructor: its notebook with hidden tests; they are read here and go no further.
        released: the students' notebook.
        stub: whether exercises lose their bodies, those of other labs too where this lab's given code does not use
            them; False for the instructor's own run.

    Returns:
        The kit, saved.
    """
    cells = tuple(map(plan_cell, released.cells))
    code = {cell.id: cell.source for cell in instructor.cells if cell.cell_type == "code"}
    checks = {cell.name: code[cell.id] for cell in cells if cell.is_check}
    sealed = seal(checks, [source for id, source in code.items() if id not in {c.id for c in cells if c.is_check}])
    write_package(repository, hidden_from(lab, repository, sealed.values()) if stub else [], folder / "course")
    (folder / "course" / "data").mkdir()
    (folder / "course" / "cache").mkdir()
    seen = [cell.source for cell in cells if cell.cell_type == "code" and not cell.is_check]
    data = repository.root / "data"
    folders = {str(data.resolve()): "/course/data"} if data.is_dir() else {}
    if os.environ.get("COURSE_DATA", "").strip() or profiles.current().dataset == "cifar10":
        folders[str(data_files.cache_folder().resolve())] = "/course/cache"
    environment = {"COURSE_PROFILE": os.environ.get("COURSE_PROFILE", ""), "COURSE_CHECKS": "sealed"}
    preload = modules_imported([*seen, *sealed.values()])
    kit = Kit(lab.name, cells, sealed, {}, {}, preload, folders, environment, dict(released.metadata), "", folder)
    kit = dataclasses.replace(kit, digest=_digest(kit))
    kit.save()
    return kit


def plan_cell(cell: nbformat.NotebookNode) -> PlanCell:
    """A cell of the released notebook."""
    data = dict(cell.metadata.get("nbgrader", {}))
    name = data.get("grade_id", "") if data.get("grade") or data.get("solution") else ""
    flags = bool(data.get("grade")), bool(data.get("solution")), float(data.get("points", 0.0))
    return PlanCell(cell.get("id", ""), cell.cell_type, cell.source, dict(cell.metadata), name, *flags)


def digest_of_files(paths: Iterable[Path], root: Path) -> str:
    """One hash of names and contents."""
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(f"{path.relative_to(root)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _digest(kit: Kit) -> str:
    course = kit.folder / "course"
    parts = [FORMAT, kit.lab, kit.sealed, [asdict(cell) for cell in kit.cells], kit.environment]
    parts.append(digest_of_files((path for path in course.rglob("*.py") if path.is_file()), course))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
