"""Every notebook of every lab: the instructor's reproduces itself, the students' one fails only at its stubs."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from course_admin.build.execute import execute, scores
from course_admin.build.lab import Targets
from course_admin.build.verify import check_lab
from course_admin.paths import Repository
from tests.lab_runner import bound_names

REPOSITORY = Repository.find()
TARGETS = Targets.of(REPOSITORY)
LABS = REPOSITORY.all_labs()
EACH_LAB = pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.name)

# Values printed in the tables of checks may differ in the last digit between processors; names and verdicts may not.
SANITIZE = "[values in tables]\nregex: <code>.*?</code>\nreplace: <code/>\n"


@EACH_LAB
def test_notebooks_are_up_to_date_and_leak_nothing(lab):
    assert [str(problem) for problem in check_lab(lab, REPOSITORY)] == []


def _is_deterministic(cell: nbformat.NotebookNode) -> bool:
    """A graded cell, or one that only prints text and says that its numbers do not depend on the machine."""
    if cell.cell_type != "code":
        return False
    graded = cell.metadata.get("nbgrader", {}).get("grade", False)
    prints = any(output.output_type == "stream" for output in cell.outputs)  # a progress bar, with its times
    return (graded and not prints) or "NBVAL_CHECK_OUTPUT" in cell.source


@pytest.mark.notebook
@pytest.mark.timeout(2400)
@EACH_LAB
def test_nbval_reproduces_the_instructors_notebook(lab, tmp_path):
    notebook = nbformat.read(TARGETS.instructor(lab), as_version=4)
    checked = [cell for cell in notebook.cells if _is_deterministic(cell)]
    for cell in checked:
        cell.metadata.setdefault("tags", []).append("nbval-check-output")
    copy, sanitize = tmp_path / f"{lab.name}.ipynb", tmp_path / "sanitize.cfg"
    nbformat.write(notebook, copy)
    sanitize.write_text(SANITIZE)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval-lax",
        f"--nbval-sanitize-with={sanitize}",
        "-p",
        "no:cacheprovider",
    ]
    options = ["--nbval-cell-timeout=900", "--nbval-current-env", "--timeout=2400", "--rootdir", str(tmp_path), "-q"]
    done = subprocess.run([*command, *options, str(copy)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-5000:]
    n_code = sum(cell.cell_type == "code" for cell in notebook.cells)
    assert f"{n_code} passed" in done.stdout
    assert len(checked) >= 3


@pytest.mark.notebook
@pytest.mark.timeout(2400)
@EACH_LAB
def test_released_notebook_fails_only_at_its_stubs_and_scores_nothing(lab):
    notebook = nbformat.read(TARGETS.student(lab), as_version=4)
    execute(notebook, REPOSITORY.labs, allow_errors=True)
    failed_names: set[str] = set()  # what cells before would have defined, had a stub not stopped them
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        for error in (output for output in cell.outputs if output.output_type == "error"):
            is_stub = error.ename == "NotImplementedError" and error.evalue.startswith(f"{lab.title}, ")
            missing = re.fullmatch(r"name '(\w+)' is not defined", error.evalue)
            assert is_stub or (missing and missing[1] in failed_names), f"{cell.id}: {error.ename}: {error.evalue}"
            failed_names |= bound_names(cell.source)
    visible = scores(notebook)
    assert visible, "no graded cell"
    assert {name: points for name, (points, _) in visible.items() if points > 0} == {}


@EACH_LAB
def test_executed_notebook_is_committed_without_errors_and_with_full_points(lab):
    notebook = nbformat.read(TARGETS.instructor(lab), as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code), "run: course build --force"
    assert not [cell.id for cell in code for output in cell.outputs if output.output_type == "error"]
    assert {name: s for name, s in scores(notebook).items() if s[0] != s[1]} == {}


@EACH_LAB
def test_reference_and_notebook_show_the_same_names_in_the_same_order(lab):
    source = lab.source.read_text(encoding="utf-8")
    imported = re.findall(r"# %% exercise\nfrom course_utils\.([\w.]+) import (\w+)", source)
    files: dict[str, list[str]] = {}
    for module, name in imported:
        origin = getattr(importlib.import_module(f"course_utils.{module}"), name).__module__
        files.setdefault(importlib.import_module(origin).__file__, []).append(name)
    for file, names in files.items():
        text = Path(file).read_text(encoding="utf-8")
        defined = re.findall(r"^(?:def|class) (\w+)", text, re.MULTILINE)
        assert [name for name in defined if name in names] == names
    released = nbformat.read(TARGETS.student(lab), as_version=4)
    stubs = [
        cell.metadata.nbgrader.grade_id
        for cell in released.cells
        if cell.cell_type == "code" and "raise Not" in cell.source
    ]
    assert stubs == [name for _, name in imported]
