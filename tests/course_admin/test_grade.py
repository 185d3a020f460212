"""Grading the tiny lab from submissions to gradebook, feedback and CSV, and what nbgrader makes of the result."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbgrader.utils import determine_grade, is_grade
from typer.testing import CliRunner

from course_admin.build.lab import Targets, build_lab, write_notebook
from course_admin.cli import app
from course_admin.demo import run_demo
from course_admin.grading.bubblewrap import bubblewrap_problem
from course_admin.grading.pool import usable_cores
from course_admin.grading.progress import Watch
from course_admin.grading.results import CellResult, CheckResult, Result
from course_admin.grading.run import Options, Run, grade_lab
from course_admin.nbgrader_course import NbgraderCourse
from course_admin.paths import CourseError
from course_admin.report import results_table, write_csv
from course_admin.submissions import filled, reference_answers

BIN = Path(sys.executable).parent
OPTIONS = Options(isolation="none" if bubblewrap_problem() else "bubblewrap")


def nbgrader(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run nbgrader's own command in a folder."""
    env = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [sys.executable, "-m", "nbgrader", *arguments], cwd=cwd, env=env, capture_output=True, text=True
    )


def hand_in(repository, student: str, notebook=None, text: str | None = None) -> None:
    path = repository.root / "submitted" / student / "lab1_tiny" / "lab1_tiny.ipynb"
    path.parent.mkdir(parents=True)
    if text is None:
        write_notebook(path, notebook)
    else:
        path.write_text(text)


@pytest.fixture
def notebooks(built):
    """(released notebook, all reference answers)."""
    lab, targets = built.lab("1"), Targets.of(built)
    right = reference_answers(nbformat.read(targets.instructor(lab), as_version=4))
    return nbformat.read(targets.student(lab), as_version=4), right


def test_a_class_is_graded_and_a_broken_submission_stops_nobody(built, notebooks):
    released, right = notebooks
    noisy = "import sys\nprint('warning', file=sys.stderr)\n" + right["concept_1"]
    hand_in(built, "ada", filled(released, {**right, "concept_1": noisy}))
    hand_in(built, "ben", text="{ this is no notebook")
    hand_in(built, "cleo", released)
    hand_in(built, "dan, jr", filled(released, {"concept_1": "concept_1 = False", "answer_why": "Because."}))
    watch = Watch()
    results = grade_lab(built.lab("1"), NbgraderCourse(built), OPTIONS, watch)
    ada, ben, cleo, dan = results
    assert (watch.done, watch.total, watch.summary()) == (4, 4, "3 graded, 1 unreadable")
    assert [(item.name, item.points, item.maximum) for item in ada.cells] == [
        ("check_concepts", 1.0, 1.0),
        ("check_keep_largest", 3.0, 3.0),
        ("answer_why", None, 2.0),
    ]
    assert (ada.points, ada.maximum, ada.waiting, ada.reason) == (4.0, 6.0, 2.0, "")
    assert (ben.cells, ben.outcome, bool(ben.reason)) == ((), "unreadable", True)
    assert (cleo.points, cleo.waiting) == (0.0, 0.0)
    assert (dan.points, dan.waiting) == (0.5, 2.0)

    results[2] = dataclasses.replace(cleo, reason="=HYPERLINK(1)")  # a spreadsheet must not take it for a formula
    write_csv(results, built.root / "grades" / "lab.csv")
    rows = list(csv.DictReader((built.root / "grades" / "lab.csv").open()))
    assert [row["total"] for row in rows] == ["4", "", "0", "0.5"]
    assert rows[3]["student"] == "dan, jr"
    assert rows[1]["reason"]
    assert rows[2]["reason"] == "'=HYPERLINK(1)"

    feedback = (built.root / "feedback" / "ada" / "lab1_tiny" / "lab1_tiny.html").read_text()
    assert "question 1" in feedback, "the names of hidden checks are shown"
    assert "np.array([1.0, -3.0, 7.0])" not in feedback, "the source of hidden checks is not"


def test_expected_values_of_hidden_checks_are_not_in_the_feedback(built, notebooks):
    released, right = notebooks
    wrong = "def keep_largest(w, n_nonzero):\n    return w * 0 + 555\n"
    hand_in(built, "eve", filled(released, {**right, "keep_largest": wrong}))
    grade_lab(built.lab("1"), NbgraderCourse(built), OPTIONS)
    feedback = (built.root / "feedback" / "eve" / "lab1_tiny" / "lab1_tiny.html").read_text()
    assert "hidden inputs" in feedback
    assert "[0, 0, 7]" not in feedback
    assert "expected 7" not in feedback


def test_nothing_that_is_handed_in_ends_the_run(built, notebooks, monkeypatch):
    released, right = notebooks
    for student in ("ada", "ben", "cleo"):
        hand_in(built, student, filled(released, right))
    stamp = built.root / "submitted" / "ada" / "lab1_tiny" / "timestamp.txt"
    stamp.write_text("9999999999999999999992026999999999999999999999h")  # a parser of dates raises decimal's error
    odd = os.fsencode(built.root / "submitted") + b"/m\xfcller/lab1_tiny"
    try:
        os.makedirs(odd)
    except OSError:
        odd = b""  # macOS has no such names
    grade_lab(built.lab("1"), NbgraderCourse(built), OPTIONS)
    write = Run._write_autograded

    def stumble(self, submission, execution, result):
        if submission.student == "ben":
            raise RecursionError("too \x1b[2Jdeep \ud800")
        return write(self, submission, execution, result)

    monkeypatch.setattr(Run, "_write_autograded", stumble)
    again = dataclasses.replace(OPTIONS, force=True)
    results = {result.student: result for result in grade_lab(built.lab("1"), NbgraderCourse(built), again)}
    assert not (built.root / "autograded" / "ben" / "lab1_tiny").exists()  # what the run before has left
    assert [results[name].points for name in ("ada", "cleo")] == [4.0, 4.0]
    assert results["ben"].outcome == "crashed"
    assert "stumbled over it (RecursionError: too \N{REPLACEMENT CHARACTER}[2Jdeep" in results["ben"].reason
    if odd:
        assert (results["m\\xfcller"].outcome, "not UTF-8" in results["m\\xfcller"].reason) == ("unreadable", True)
    write_csv(list(results.values()), built.root / "grades" / "lab.csv")  # text that can be encoded
    monkeypatch.undo()
    assert {r.student: r.points for r in grade_lab(built.lab("1"), NbgraderCourse(built), OPTIONS)}["ben"] == 4.0


def test_pictures_in_written_answers_reach_who_marks_them(built, notebooks):
    released, right = notebooks
    notebook = filled(released, {**right, "answer_why": "See ![sketch](attachment:sketch.png)"})
    pasted = {"sketch.png": {"image/png": "iVBORw0KGgo="}, "page": {"text/html": "<script>"}, "odd": {"image/png": "<b>"}}
    next(cell for cell in notebook.cells if "attachment:" in cell.source)["attachments"] = pasted
    hand_in(built, "ada", notebook)
    grade_lab(built.lab("1"), NbgraderCourse(built), OPTIONS)
    marked = nbformat.read(built.root / "autograded" / "ada" / "lab1_tiny" / "lab1_tiny.ipynb", as_version=4)
    found = [cell.attachments for cell in marked.cells if "attachments" in cell]
    assert found == [{"sketch.png": {"image/png": "iVBORw0KGgo="}}]


def test_grading_again_changes_nothing_until_forced(built, notebooks):
    released, right = notebooks
    hand_in(built, "ada", filled(released, right))
    course, lab = NbgraderCourse(built), built.lab("1")
    first = grade_lab(lab, course, OPTIONS)
    assert grade_lab(lab, course, OPTIONS) == first
    forced = grade_lab(lab, course, dataclasses.replace(OPTIONS, force=True))
    assert [(result.points, result.cells[0].checks) for result in forced] == [(4.0, first[0].cells[0].checks)]
    assert forced[0].graded_at >= first[0].graded_at


def test_a_newer_submission_and_a_changed_lab_are_graded_again(built, notebooks):
    released, right = notebooks
    hand_in(built, "ada", filled(released, right))
    course, lab = NbgraderCourse(built), built.lab("1")
    assert grade_lab(lab, course, OPTIONS)[0].points == 4.0
    path = built.root / "submitted" / "ada" / "lab1_tiny" / "lab1_tiny.ipynb"
    write_notebook(path, filled(released, {**right, "concept_1": "concept_1 = False"}))
    assert grade_lab(lab, course, OPTIONS)[0].points == 3.5
    lab.source.write_text(lab.source.read_text().replace("points=3", "points=5"))
    build_lab(lab, built)
    result = grade_lab(lab, course, OPTIONS)[0]
    assert (result.points, result.maximum) == (5.5, 8.0)


def test_points_of_an_earlier_submission_do_not_survive_a_broken_one(built, notebooks):
    released, right = notebooks
    hand_in(built, "ada", filled(released, right))
    course, lab = NbgraderCourse(built), built.lab("1")
    grade_lab(lab, course, OPTIONS)
    path = built.root / "submitted" / "ada" / "lab1_tiny" / "lab1_tiny.ipynb"
    path.write_text("{")
    result = grade_lab(lab, course, OPTIONS)[0]
    assert result.cells == ()
    assert "\n" not in result.reason
    assert not (built.root / "autograded" / "ada" / "lab1_tiny").exists()
    path.rename(path.with_name("essay.pdf"))
    assert grade_lab(lab, course, OPTIONS)[0].reason == "no notebook lab1_tiny.ipynb was handed in"


def test_warnings_and_logs_take_no_points_and_tracebacks_show_no_hidden_line(built, notebooks):
    released, right = notebooks
    noisy = "import logging\nlogging.basicConfig()\n" + right["keep_largest"].replace(
        "check_vector(", "logging.warning('noise')\n    check_vector(", 1
    )
    hand_in(built, "ada", filled(released, {**right, "keep_largest": noisy}))
    interrupt = "def keep_largest(w, n_nonzero):\n    raise KeyboardInterrupt\n"
    hand_in(built, "ben", filled(released, {**right, "keep_largest": interrupt}))
    ada, ben = grade_lab(built.lab("1"), NbgraderCourse(built), OPTIONS)
    assert (ada.points, ben.points) == (4.0, 1.0)
    feedback = (built.root / "feedback" / "ben" / "lab1_tiny" / "lab1_tiny.html").read_text()
    assert "KeyboardInterrupt" in feedback
    assert "np.array([1.0, -3.0, 7.0])" not in feedback


def test_the_command_exits_with_0_only_when_everybody_was_graded(built, notebooks, monkeypatch):
    released, right = notebooks
    hand_in(built, "ada", filled(released, right))
    monkeypatch.chdir(built.root)
    command = ["grade", "lab1", "--isolation", OPTIONS.isolation, "--workers", "1"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "1 of 1: ada: graded" in done.output
    hand_in(built, "ben", text="{")
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    assert "1 graded, 1 unreadable" in done.output
    rows = list(csv.DictReader((built.root / "grades" / "lab1_tiny.csv").open()))
    assert [(row["student"], row["total"], row["outcome"]) for row in rows] == [
        ("ada", "4", "graded"),
        ("ben", "", "unreadable"),
    ]


def test_without_submissions_the_message_says_where_they_belong(built):
    with pytest.raises(CourseError, match=r"submitted/<student>/lab1_tiny/lab1_tiny.ipynb"):
        grade_lab(built.lab("1"), NbgraderCourse(built), OPTIONS)


def test_nbgraders_own_commands_work_unmodified(built, notebooks):
    released, right = notebooks
    hand_in(built, "ada", filled(released, right))
    root, name = built.root, "lab1_tiny"
    for command in ("generate_assignment", "autograde", "generate_feedback"):
        done = nbgrader(command, name, "--force", cwd=root)
        assert done.returncode == 0, done.stderr
    assert nbgrader("export", "--to", "all.csv", cwd=root).returncode == 0
    row = next(csv.DictReader((root / "all.csv").open()))
    assert (row["student_id"], float(row["raw_score"])) == ("ada", 4.0)


def test_nbgrader_goes_on_from_what_was_graded_here(built, notebooks):
    released, right = notebooks
    hand_in(built, "ada", filled(released, right))
    hand_in(built, "ben", filled(released, {"concept_1": "concept_1 = False", "answer_why": "Because."}))
    results = grade_lab(built.lab("1"), NbgraderCourse(built), OPTIONS)
    root = built.root
    assert nbgrader("export", "--to", "all.csv", cwd=root).returncode == 0
    rows = {row["student_id"]: float(row["raw_score"]) for row in csv.DictReader((root / "all.csv").open())}
    assert rows == {result.student: result.points for result in results}
    notebook = nbformat.read(root / "autograded" / "ben" / "lab1_tiny" / "lab1_tiny.ipynb", as_version=4)
    nbformat.validate(notebook)
    scores = {cell.metadata.nbgrader.grade_id: determine_grade(cell) for cell in notebook.cells if is_grade(cell)}
    assert scores == {"check_concepts": (0.5, 1.0), "check_keep_largest": (0.0, 3.0), "answer_why": (None, 2.0)}
    done = nbgrader("generate_feedback", "lab1_tiny", "--force", cwd=root)
    assert done.returncode == 0, done.stderr
    feedback = (root / "feedback" / "ben" / "lab1_tiny" / "lab1_tiny.html").read_text()
    assert "question 1" in feedback
    assert "np.array([1.0, -3.0, 7.0])" not in feedback


def test_nbgrader_validate_says_what_fails_and_what_passes(built, notebooks):
    released, right = notebooks
    notebook = built.root / "mine.ipynb"
    write_notebook(notebook, filled(released, right))
    assert "Success" in nbgrader("validate", "mine.ipynb", cwd=built.root).stdout
    write_notebook(notebook, released)
    done = nbgrader("validate", "mine.ipynb", cwd=built.root)
    assert "VALIDATION FAILED ON 3 CELL(S)" in done.stdout, done.stdout + done.stderr


def test_demo_runs_the_whole_way_and_can_be_run_again(built):
    folder, said = built.root / "demo", []
    for _ in range(2):
        ada, ben, cleo = run_demo(built.lab("1"), built, folder, said.append)
        assert (ada.points, ben.points, cleo.points) == (4.0, 3.5, 0.0)  # ben: one statement wrong
    assert [line[:3] for line in said[: len(said) // 2]] == ["1/5", "2/5", "3/5", *["4/5"] * 4, "5/5"]
    assert {path.name for path in folder.iterdir()} >= {"feedback", "gradebook.db", "grades", "release"}


def test_demo_refuses_a_folder_with_other_things_in_it(built, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(CourseError, match="thesis.tex"):
        run_demo(built.lab("1"), built, tmp_path, print)
    assert (tmp_path / "thesis.tex").exists()


def test_filling_an_unknown_cell_is_an_error(notebooks):
    with pytest.raises(CourseError, match=r"\['keep_largets'\]"):
        filled(notebooks[0], {"keep_largets": ""})


@pytest.mark.parametrize("n_students", [3, 30])
def test_tables_show_every_student(n_students):
    from rich.console import Console

    cells = (CellResult("check_a", 1.5, 2.0, (CheckResult("one", True),)), CellResult("answer_b", None, 3.0))
    results = [Result(f"student{i}", "lab", "graded", cells=cells) for i in range(n_students - 1)]
    results.append(Result("absent", "lab", "unreadable", "no JSON"))
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(results_table(results, "title"))
    text = console.export_text()
    assert all(f"student{i}" in text for i in range(n_students - 1))
    assert "to mark" in text
    assert "a (2)" in text or " a " in text
    assert "not graded" in text


def test_cores_are_those_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {3, 5}, raising=False)
    assert usable_cores() == 2
    monkeypatch.delattr("os.sched_getaffinity")
    assert usable_cores() == 64
