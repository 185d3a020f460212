"""Feedback goes back under the names that the learning management system itself gave the submissions."""

from __future__ import annotations

import io
import zipfile

import pytest

from course_admin.lms.collect import collect
from course_admin.lms.handback import hand_back
from course_admin.lms.names import CANVAS_NAME, MOODLE
from course_admin.paths import CourseError
from tests.course_admin.test_lms_import import BOOK, LAB, archive


def graded(folder, *students: str) -> None:
    for student in students:
        page = folder / "feedback" / student / LAB.name / f"{LAB.name}.html"
        page.parent.mkdir(parents=True)
        page.write_text(f"page of {student}")


def packed(content: bytes) -> dict[str, str]:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return {name: file.read(name).decode() for name in file.namelist()}


def test_moodle_finds_every_page_by_its_own_number(tmp_path):
    names = (f"Jane Doe_11_assignsubmission_file_/{BOOK}", f"Bo Li_12_assignsubmission_file_{BOOK}")
    collect(LAB, archive(tmp_path, *((name, "{}") for name in names)), tmp_path)
    graded(tmp_path, "11", "12")
    pages = packed(hand_back(LAB, tmp_path).content)
    assert pages == {name.replace(".ipynb", ".html"): f"page of {n}" for name, n in zip(names, ("11", "12"), strict=True)}
    assert {MOODLE.match(name)["student"]: text for name, text in pages.items()} == {"11": "page of 11", "12": "page of 12"}


def test_canvas_finds_every_page_by_user_and_file_number_and_the_latest_upload_counts(tmp_path):
    collect(LAB, archive(tmp_path, (f"doejane_1234_5_{BOOK}", "{}"), name="first.zip"), tmp_path)
    collect(LAB, archive(tmp_path, (f"doejane_LATE_1234_6_{LAB.name}-1.ipynb", "{} "), name="second.zip"), tmp_path)
    graded(tmp_path, "1234")
    (name,) = packed(hand_back(LAB, tmp_path).content)
    assert name == f"doejane_LATE_1234_6_{LAB.name}-1.html"
    assert CANVAS_NAME.fullmatch(name)["student"] == "1234"


def test_without_an_import_pages_lie_in_the_students_folders_and_missing_ones_are_named(tmp_path):
    graded(tmp_path, "ada", "=cmd")
    for student in ("ada", "eve"):
        (tmp_path / "submitted" / student / LAB.name).mkdir(parents=True)
    done = hand_back(LAB, tmp_path)
    assert packed(done.content) == {f"ada/{LAB.name}.html": "page of ada", f"=cmd/{LAB.name}.html": "page of =cmd"}
    assert done.missing == ["eve"]


def test_names_that_a_spreadsheet_would_run_come_back_as_they_were(tmp_path):
    collect(LAB, archive(tmp_path, (f"=Jane_11_assignsubmission_file_/{BOOK}", "{}")), tmp_path)
    graded(tmp_path, "11")
    assert list(packed(hand_back(LAB, tmp_path).content)) == [f"=Jane_11_assignsubmission_file_/{LAB.name}.html"]


def test_without_any_page_the_message_says_what_to_run(tmp_path):
    with pytest.raises(CourseError, match="run course grade"):
        hand_back(LAB, tmp_path)
