"""python -m course_utils.check: what students run before they hand in."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from course_utils.check import FAILED, NOT_RUN, PASSED, check_notebook

MARKS = {"grade": True, "grade_id": "check_double", "points": 2.0, "solution": False, "schema_version": 3, "locked": True}
CHECK = """\
check = Checks("double")
check.equal("two", lambda: double(1), 2, hint="add it to itself")
check.equal("four", lambda: double(2), 4)
check.score(points=2)"""


def notebook(tmp_path: Path, *sources: str, check: str = CHECK) -> Path:
    """A small lab: imports, the given cells, one check."""
    cells = [new_markdown_cell("# A lab"), new_code_cell("from course_utils.checks import Checks")]
    cells += [new_code_cell(source) for source in sources]
    cells.append(new_code_cell(check, metadata={"nbgrader": MARKS}))
    path = tmp_path / "lab.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_all_checks_pass(tmp_path):
    path = notebook(tmp_path, "def double(x):\n    return x + x")
    before = path.read_bytes()
    report = check_notebook(path)
    assert report.exit_code == PASSED
    assert "double: 2 of 2 checks passed, 2 of 2 points" in str(report)
    assert "1 of 1 exercises pass all of their checks." in str(report)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_check_is_shown_with_its_hint(tmp_path):
    report = check_notebook(notebook(tmp_path, "def double(x):\n    return 2"))
    assert report.exit_code == FAILED
    text = str(report)
    assert "double: 1 of 2 checks passed, 1 of 2 points" in text
    assert "[pass] two" in text
    assert "[FAIL] four" in text
    assert "expected 4" in text


def test_unfinished_exercises_fail_and_cells_that_wait_for_them_are_counted(tmp_path):
    stub = 'def double(x):\n    raise NotImplementedError("Lab 1, double: replace this line with your code")'
    report = check_notebook(notebook(tmp_path, stub, "double(1)", "1 / 0"))
    assert report.exit_code == FAILED
    assert "not implemented yet (Lab 1, double" in str(report)
    assert report.n_waiting == 1
    assert report.errors == ("cell 5: ZeroDivisionError: division by zero",)


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        ("check = Checks('double')\n1 / 0", "[FAIL] ZeroDivisionError: division by zero"),
        ("print('all good')", "[FAIL] the cell showed no score"),
        ("2.0", "[FAIL] the cell showed no score"),
    ],
)
def test_a_check_cell_without_a_score_fails(tmp_path, check, reason):
    report = check_notebook(notebook(tmp_path, "check = 2.0", "check", check=check))
    assert report.exit_code == FAILED
    assert reason in str(report)


@pytest.mark.parametrize(
    ("source", "timeout_s", "words"),
    [("import os\nos._exit(3)", 60, "its kernel died"), ("while True:\n    pass", 5, "took longer than 5 seconds")],
)
def test_a_notebook_that_does_not_reach_its_end_cannot_be_run(tmp_path, source, timeout_s, words):
    report = check_notebook(notebook(tmp_path, source), timeout_s=timeout_s)
    assert report.exit_code == NOT_RUN
    assert words in str(report)
    assert "the cell was not reached" in str(report)


@pytest.mark.parametrize("content", ["", "not JSON", "[]", '{"cells": [{}], "nbformat": 4}', '{"nbformat": "x"}'])
def test_a_file_that_is_no_notebook_cannot_be_run(tmp_path, content):
    path = tmp_path / "x.ipynb"
    path.write_text(content)
    report = check_notebook(path)
    assert report.exit_code == NOT_RUN
    assert "is not a notebook" in str(report)


def test_missing_files_and_notebooks_without_checks_cannot_be_run(tmp_path):
    assert "cannot be opened" in str(check_notebook(tmp_path / "none.ipynb"))
    path = tmp_path / "x.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), path)
    report = check_notebook(path)
    assert (report.exit_code, "no cell with checks" in str(report)) == (NOT_RUN, True)


def test_the_module_is_a_command_with_the_same_exit_codes(tmp_path):
    for source, code in (("def double(x):\n    return 2 * x", 0), ("", 1)):
        command = [sys.executable, "-m", "course_utils.check", str(notebook(tmp_path, source))]
        assert subprocess.run(command, capture_output=True, text=True).returncode == code
    command = [sys.executable, "-m", "course_utils.check", str(tmp_path / "none.ipynb")]
    assert subprocess.run(command, capture_output=True, text=True).returncode == 2
