"""Checks that are measured where the submission's code has never run."""

from __future__ import annotations

import nbformat
import numpy as np
import pytest

from course_admin.build.lab import Targets, build_lab, write_notebook
from course_admin.grading.run import grade_lab
from course_admin.nbgrader_course import NbgraderCourse
from course_admin.submissions import filled, reference_answers
from course_utils.checks import Checks
from tests.course_admin.test_grade import OPTIONS

LAB = '''\
# %%
import numpy as np

from course_utils.checks import Checks
from course_utils.validate import check_count, check_vector

# %% exercise
from course_utils.sparse_linear import keep_largest

# %% check points=2
check = Checks("keep_largest")
check.measured("large", lambda: keep_largest(np.array([1.0, -3.0, 2.0]), 2), np.linalg.norm, at_least=3.5, hint="larger")
### BEGIN HIDDEN TESTS
check.measured("small", lambda: keep_largest(np.array([1.0, -3.0, 7.0]), 1), np.linalg.norm, at_most=7.0)
### END HIDDEN TESTS
check.score(points=2)
'''
LIAR = """\
np.linalg.norm = lambda w: 5.0
def keep_largest(w, n_nonzero):
    return 0 * w
"""
FORGER = """\
import course_utils.checks.sealed
kept = course_utils.checks.sealed._actual_to_json
course_utils.checks.sealed._actual_to_json = lambda actual: {"value": {"float": (5.0).hex()}}
def keep_largest(w, n_nonzero):
    return 0 * w
"""
CASES = {
    "ada": (None, "graded", 2.0, ["", ""]),
    "ben": ("def keep_largest(w, n_nonzero):\n    return w\n", "graded", 1.0, ["", "out of bounds"]),
    "cleo": ("def keep_largest(w, n):\n    raise NotImplementedError", "graded", 0.0, ["not implemented yet"] * 2),
    "dan": (LIAR, "graded", 1.0, ["out of bounds", ""]),
    "eve": (FORGER, "tampered", 1.0, ["out of bounds", ""]),
    "finn": ("def keep_largest(w, n):\n    return 'text'\n", "graded", 0.0, None),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    from tests.course_admin.conftest import _write_tiny

    repository = _write_tiny(tmp_path_factory.mktemp("measured") / "repository")
    lab = repository.lab("1")
    lab.source.write_text(LAB)
    build_lab(lab, repository)
    targets = Targets.of(repository)
    right = reference_answers(nbformat.read(targets.instructor(lab), as_version=4))
    released = nbformat.read(targets.student(lab), as_version=4)
    for student, (answer, *_) in CASES.items():
        answers = {"keep_largest": answer} if answer else right
        write_notebook(repository.root / "submitted" / student / lab.name / f"{lab.name}.ipynb", filled(released, answers))
    return {result.student: result for result in grade_lab(lab, NbgraderCourse(repository), OPTIONS)}


@pytest.mark.parametrize("student", CASES)
def test_what_counts_is_the_artefact(results, student):
    _, outcome, points, problems = CASES[student]
    result = results[student]
    found = [check.problem for check in result.cells[0].checks]
    assert (result.outcome, result.points) == (outcome, points), (result.flags, found)
    assert problems is None or found == problems


def test_in_open_mode_it_is_measured_at_once():
    check = Checks("f")
    check.measured("enough", lambda: np.ones(4), np.sum, at_least=4)
    check.measured("too much", np.ones(4), np.sum, at_most=3, hint="less")
    check.measured("broken", lambda: 1 / 0, np.sum, at_least=1)
    check.measured("no number", lambda: np.ones(4), str, at_least=1)
    problems = [outcome.problem.kind if outcome.problem else "" for outcome in check.score(points=4).outcomes]
    assert problems == ["", "out of bounds", "ZeroDivisionError was raised", "wrong type"]
