"""course import and course export from the command line: exit codes, and files that are not overwritten."""

from __future__ import annotations

import zipfile

import pytest
from typer.testing import CliRunner

from course_admin.cli import app
from course_admin.grading.results import save_result
from course_admin.paths import CourseError
from tests.course_admin.records import LAB, cell, result

PAGE = f"feedback/11/{LAB}/{LAB}.html"
ROSTER = "Student,ID,Section,Lab 1 (9)\n    Points Possible,,,10\nDoe,11,A,\n"


@pytest.fixture
def course(tiny, monkeypatch):
    monkeypatch.chdir(tiny.root)
    return tiny.root


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


def test_import_fails_when_something_was_left_out_that_a_person_should_see(course):
    with zipfile.ZipFile(course / "class.zip", "w") as file:
        file.writestr(f"ada/{LAB}.ipynb", "{}")
        file.writestr("ada/notes.txt", "")
    done = run("import", "lab1", "class.zip")
    assert done.exit_code == 0, done.output
    assert (course / "submitted/ada" / LAB / f"{LAB}.ipynb").read_text() == "{}"
    assert "1 submissions taken, 1 files not" in done.output
    with zipfile.ZipFile(course / "class.zip", "a") as file:
        file.writestr(f"../{LAB}.ipynb", "{}")
    done = run("import", "lab1", "class.zip")
    assert done.exit_code == 1
    assert "'..'" in done.output


def test_import_fails_when_there_is_no_notebook_and_not_when_all_is_there_already(course):
    with zipfile.ZipFile(course / "class.zip", "w") as file:
        file.writestr("ada/essay.pdf", "")
    done = run("import", "lab1", "class.zip")
    assert done.exit_code == 1
    assert f"class.zip holds no notebook of {LAB}" in done.output
    with zipfile.ZipFile(course / "again.zip", "w") as file:
        file.writestr(f"ada/{LAB}.ipynb", "{}")
        file.writestr("bob/essay.pdf", "")
    assert [run("import", "lab1", "again.zip").exit_code for _ in range(2)] == [0, 0]


def test_export_writes_a_new_file_and_fails_when_somebody_fits_no_row(course):
    (course / "roster.csv").write_text(ROSTER)
    arguments = ("export", "lab1", "--format", "canvas", "--roster", "roster.csv", "--out", "grades.csv")
    assert isinstance(run(*arguments).exception, CourseError)  # nothing is graded yet
    save_result(result("11", cell("check_a", 7.5, 10, True)), course)
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    assert (course / "grades.csv").read_text() == ROSTER.replace("Doe,11,A,", "Doe,11,A,7.5")
    again = run(*arguments)
    assert isinstance(again.exception, CourseError)
    assert "--force" in str(again.exception)
    save_result(result("nobody", cell("check_a", 1, 10, True)), course)
    done = run(*arguments, "--force")
    assert done.exit_code == 1
    assert "not exported: nobody" in done.output
    assert isinstance(run(*arguments[:3], "excel", *arguments[4:]).exception, CourseError)


def test_handback_writes_a_new_archive_and_fails_when_a_page_is_missing(course):
    assert isinstance(run("handback", "lab1", "--out", "pages.zip").exception, CourseError)
    (course / PAGE).parent.mkdir(parents=True)
    (course / PAGE).write_text("page")
    done = run("handback", "lab1", "--out", "pages.zip")
    assert done.exit_code == 0, done.output
    assert zipfile.ZipFile(course / "pages.zip").namelist() == [f"11/{LAB}.html"]
    assert "--force" in str(run("handback", "lab1", "--out", "pages.zip").exception)
    (course / "submitted/12" / LAB).mkdir(parents=True)
    done = run("handback", "lab1", "--out", "pages.zip", "--force")
    assert done.exit_code == 1
    assert "no page: 12" in done.output


def test_the_report_shows_who_was_late_by_the_systems_own_mark(course):
    with zipfile.ZipFile(course / "class.zip", "w") as file:
        file.writestr(f"doejane_LATE_11_5_{LAB}.ipynb", "{}")
        file.writestr(f"roebo_12_6_{LAB}.ipynb", "{}")
    assert run("import", "lab1", "class.zip").exit_code == 0
    for student in ("11", "12"):
        save_result(result(student, cell("check_a", 7.5, 10, True)), course)
    assert run("report", "lab1").exit_code == 0
    page = (course / "reports" / LAB / "report.html").read_text()
    late = page.partition('<h2 id="late-work">')[2].partition("<h2")[0]
    assert "<td>11</td><td>no time known</td>" in late
    assert "12" not in late
