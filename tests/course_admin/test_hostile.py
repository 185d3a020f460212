"""A class with hostile and unlucky submissions in it: everybody gets exactly what their code is worth."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from course_admin.build.lab import Targets
from course_admin.grading.bubblewrap import Limits, bubblewrap_problem
from course_admin.grading.results import load_results
from course_admin.grading.run import Options, grade_lab
from course_admin.nbgrader_course import NbgraderCourse
from course_admin.paths import Repository
from course_admin.submissions import reference_answers
from tests.submissions.hostile import ALL, HOSTILE, LUCKY, Case

pytestmark = pytest.mark.skipif(bool(bubblewrap_problem()), reason=bubblewrap_problem() or "-")

LIMITS = Limits(
    cell_s=6.0, notebook_s=120.0, memory_bytes=800 * 2**20, processes=40, disk_bytes=64 * 2**20, output_bytes=2**20
)
SECRET = "a-secret-of-the-grading-machine"


def hand_in(root: Path, case: Case, released: dict, right: dict) -> None:
    folder = root / "submitted" / case.name / "lab1_tiny"
    folder.mkdir(parents=True)
    (folder / case.file).write_bytes(case.content(released, right))


def read_class(repository: Repository) -> tuple[dict, dict]:
    """(released notebook as JSON data, right answers)."""
    import nbformat

    lab, targets = repository.lab("1"), Targets.of(repository)
    right = reference_answers(nbformat.read(targets.instructor(lab), as_version=4)) | {"concept_1": "concept_1 = True"}
    released = json.loads(targets.student(lab).read_text())
    for cell in released["cells"]:
        cell["source"] = "".join(cell["source"])
    return released, right


@pytest.fixture(scope="module")
def graded(built_once, tmp_path_factory):
    """The class after grading with two workers: (folder, results by student)."""
    import shutil

    root = Path(shutil.copytree(built_once, tmp_path_factory.mktemp("hostile") / "course"))
    repository = Repository(root)
    released, right = read_class(repository)
    for case in ALL:
        hand_in(root, case, released, right)
    (root / "submitted" / "linked" / "lab1_tiny").mkdir(parents=True)
    (root / "submitted" / "linked" / "lab1_tiny" / "lab1_tiny.ipynb").symlink_to("/etc/passwd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_SECRET", SECRET)
        results = grade_lab(repository.lab("1"), NbgraderCourse(repository), Options(workers=2, limits=LIMITS))
    return root, {result.student: result for result in results}


def test_the_class_is_large_and_everybody_has_a_result(graded):
    _, results = graded
    assert len(results) >= 40
    assert results.keys() == {case.name for case in ALL} | {"linked"}


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_outcome_and_points_are_those_of_the_code(graded, case):
    result = graded[1][case.name]
    told = [(cell.name, cell.points, [check.problem for check in cell.checks]) for cell in result.cells]
    assert (result.outcome, result.points) == (case.outcome, case.points), f"{result.reason} {result.flags} {told}"
    words = " ".join((result.reason, *result.repairs, *result.flags))
    assert case.says in words, words
    assert bool(result.flags) == (case.outcome == "tampered")


def test_a_link_is_not_followed(graded):
    result = graded[1]["linked"]
    assert (result.outcome, result.cells) == ("unreadable", ())
    assert "symbolic link" in result.reason


def test_honest_students_get_what_they_get_alone(graded, built):
    released, right = read_class(built)
    for case in LUCKY:
        hand_in(built.root, case, released, right)
    alone = grade_lab(built.lab("1"), NbgraderCourse(built), Options(workers=1, limits=LIMITS))
    for result in alone:
        together = graded[1][result.student]
        assert [(c.name, c.points, c.checks) for c in result.cells] == [
            (c.name, c.points, c.checks) for c in together.cells
        ]


def hidden_lines(root: Path) -> list[str]:
    return ["np.array([1.0, -3.0, 7.0]), 1)", "[0, 0, 7]", "lambda: concept_1, True", "because the secret explanation"]


def test_no_feedback_shows_hidden_source_or_expected_values(graded):
    root, results = graded
    pages = list((root / "feedback").glob("*/lab1_tiny/lab1_tiny.html"))
    assert len(pages) == len(results)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        shown = [line for line in hidden_lines(root) if line in text or line.replace("[", "&#91;") in text]
        assert not shown, f"{page}: {shown}"


def test_nothing_secret_was_read(graded):
    root, _ = graded
    for case in HOSTILE:
        notebook = json.loads((root / "autograded" / case.name / "lab1_tiny" / "lab1_tiny.ipynb").read_text())
        own = [cell for cell in notebook["cells"] if not cell["metadata"].get("nbgrader", {}).get("grade")]
        text = json.dumps([cell.get("outputs", []) for cell in own])
        for secret in (SECRET, str(root), "BEGIN HIDDEN", "BEGIN SOLUTION", "CONNECTED", "expected ", "root:x:"):
            assert secret not in text, f"{case.name} read {secret!r}"


def test_no_submission_wrote_to_the_gradebook(graded):
    root, results = graded
    base = sqlite3.connect(root / "gradebook.db")
    rows = base.execute(
        "select s.student_id, sum(g.auto_score) from grade g join submitted_notebook n on g.notebook_id = n.id "
        "join submitted_assignment s on n.assignment_id = s.id group by s.student_id"
    ).fetchall()
    expected = {name: result.points for name, result in results.items() if result.cells}
    assert {name: points or 0.0 for name, points in rows} == expected


def test_the_records_on_disk_are_the_results(graded):
    root, results = graded
    assert {result.student: result for result in load_results(root, "lab1_tiny")} == results
