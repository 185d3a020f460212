"""Grades into rosters of Canvas, Moodle and Gradescope: the right field changes, every other byte stays."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from course_admin.lms.export import Export, export_grades
from course_admin.lms.table import Table, harmless
from course_admin.paths import CourseError, Lab
from tests.course_admin.records import cell, result

LAB = Lab(Path("lab1_tiny.py"))
BOM = b"\xef\xbb\xbf"

CANVAS = (
    "Student,ID,SIS User ID,SIS Login ID,Section,Lab 1 (901),Lab 10 (902),Lab 1 Final Score\r\n"
    ",,,,,Manual Posting,,\r\n"
    "    Points Possible,,,,,10,20,(read only)\r\n"
    '"Doe, Jr",11,s11,doe@uni.edu,"A ""first"", B",,7,x\r\n'
    '"O\'Hara, =SUM(1)",12,s12,ohara@uni.edu,=A1,3,,\r\n'
    '"Émile, Zoë",13,s13,emile@uni.edu,B,EX,,\r\n'
    '"Left, Alone",14,s14,left@uni.edu,B,5,6,\r\n'
    '"Student, Test",15,,test,B,,,\r\n'
)
MOODLE = (
    "Identifier,Full name,Email address,Status,Grade,Maximum Grade,Grade can be changed,"
    "Last modified (grade),Feedback comments\n"
    'Participant 11,"Doe, Jr",doe@uni.edu,Submitted,,10.00,Yes,-,\n'
    "Participant 12,O'Hara,ohara@uni.edu,Submitted,3.00,10.00,Yes,-,\n"
    "Participant 13,Émile,emile@uni.edu,Submitted,4.00,10.00,No,-,\n"
)
GRADESCOPE = (
    "First Name,Last Name,SID,Email,Sections\n"
    'Jane,"Doe, Jr",11,doe@uni.edu,A\n'
    "Pat,O'Hara,12,ohara@uni.edu,\n"
    "Zoë,Émile,13,emile@uni.edu,B\n"
)


def grade(student: str, points: float | None = 7.5, outcome: str = "graded", reason: str = ""):
    return result(student, cell("check_a", points, 10.0, True), outcome=outcome, reason=reason)


def export(folder: Path, text: str | bytes, results: list, format: str, **options) -> Export:
    roster = folder / "roster.csv"
    roster.write_bytes(text if isinstance(text, bytes) else text.encode())
    return export_grades(results, LAB, roster, format, **options)


def rows(done: Export, delimiter: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(done.content.decode("utf-8-sig"), newline=""), delimiter=delimiter))


def records(done: Export, key: str) -> dict[str, dict[str, str]]:
    return {row[key]: row for row in csv.DictReader(io.StringIO(done.content.decode("utf-8-sig"), newline=""))}


def test_canvas_changes_one_field_and_no_other_byte(tmp_path):
    done = export(tmp_path, CANVAS, [grade("11")], "canvas")
    assert done.content.decode() == CANVAS.replace('"A ""first"", B",,7', '"A ""first"", B",7.5,7')
    assert done.written == ["11"]
    assert done.without_record == ["O'Hara, =SUM(1)", "Émile, Zoë", "Left, Alone", "Student, Test"]


@pytest.mark.parametrize(
    "outcome", ["missing", "unreadable", "crashed", "timed out", "out of memory", "output too large"]
)
def test_outcomes_without_a_grade_are_blank_with_their_reason_never_zero(tmp_path, outcome):
    done = export(tmp_path, CANVAS, [grade("11", 3.0, outcome, "the kernel died")], "canvas")
    assert records(done, "ID")["11"]["Lab 1 (901)"] == ""
    assert (done.blank, done.written) == ([("11", "the kernel died")], [])


@pytest.mark.parametrize(("format", "roster"), [("canvas", CANVAS), ("moodle", MOODLE)])
def test_only_a_grade_replaces_a_grade_of_the_roster(tmp_path, format, roster):
    done = export(tmp_path, roster, [grade("12", 4.0, "crashed", "the kernel died")], format)
    assert done.content.decode() == roster
    ((student, why),) = done.kept
    assert (student, done.blank) == ("12", [])
    assert "it says 3" in why
    assert "the kernel died" in why
    assert export(tmp_path, roster, [grade("12", 4.0)], format).written == ["12"]


def test_a_flagged_submission_keeps_its_honest_points_and_real_zeros_are_zeros(tmp_path):
    done = export(tmp_path, CANVAS, [grade("11", 0.0), grade("12", 4.0, "tampered")], "canvas")
    assert [records(done, "ID")[student]["Lab 1 (901)"] for student in ("11", "12")] == ["0", "4"]


def test_unmarked_answers_leave_a_blank_unless_partial(tmp_path):
    waiting = result("11", cell("check_a", 6.0, 8.0, True), cell("answer_b", None, 2.0))
    done = export(tmp_path, CANVAS, [waiting], "canvas")
    assert done.blank == [("11", "2 of 10 points are still to be marked by hand")]
    assert records(export(tmp_path, CANVAS, [waiting], "canvas", partial=True), "ID")["11"]["Lab 1 (901)"] == "6"


def test_excused_students_stay_excused(tmp_path):
    done = export(tmp_path, CANVAS, [grade("13")], "canvas")
    assert done.content.decode() == CANVAS
    assert done.kept == [("13", "it says EX")]


def test_students_are_found_by_any_identifier_but_never_by_name(tmp_path):
    done = export(
        tmp_path, CANVAS, [grade("S11"), grade("ohara"), grade("left@uni.edu"), grade("Émile, Zoë")], "canvas"
    )
    assert done.written == ["S11", "ohara", "left@uni.edu"]
    assert done.unmatched == [("Émile, Zoë", "no rows of the roster fit")]


def test_who_fits_several_rows_or_shares_one_gets_nothing(tmp_path):
    twice = CANVAS.replace("14,s14", "14,s11")
    done = export(tmp_path, twice, [grade("s11"), grade("12"), grade("ohara")], "canvas")
    assert done.content.decode() == twice
    assert done.written == []
    assert dict(done.unmatched)["s11"] == "2 rows of the roster fit"
    assert {student for student, why in done.unmatched if "same row" in why} == {"12", "ohara"}


def test_the_column_is_the_labs_alone_or_asked_for(tmp_path):
    done = export(tmp_path, CANVAS, [result("11", cell("c", 5.0, 20.0, True))], "canvas", column="Lab 10")
    assert records(done, "ID")["11"]["Lab 10 (902)"] == "5"
    with pytest.raises(CourseError, match=r"0 columns for Lab 1.*'Homework'"):
        export(tmp_path, CANVAS.replace("Lab 1 (901)", "Homework (901)"), [grade("11")], "canvas")
    with pytest.raises(CourseError, match="2 columns"):
        export(tmp_path, CANVAS.replace("Lab 10 (902)", "Lab 1 (902)"), [grade("11")], "canvas")
    with pytest.raises(CourseError, match="read only"):
        export(tmp_path, CANVAS.replace(",10,20,", ",(read only),20,"), [grade("11")], "canvas")


def test_other_points_in_the_roster_are_an_error_or_a_scale(tmp_path):
    roster = CANVAS.replace(",10,20,", ",100,20,")
    with pytest.raises(CourseError, match="expects 100 points, lab1_tiny has 10"):
        export(tmp_path, roster, [grade("11")], "canvas")
    assert records(export(tmp_path, roster, [grade("11")], "canvas", scale=True), "ID")["11"]["Lab 1 (901)"] == "75"


@pytest.mark.parametrize("mark", [b"", BOM], ids=["no mark", "mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_marks_line_ends_and_separators_stay(tmp_path, mark, end, delimiter):
    lines = [
        ["Student", "ID", "Section", "Lab 1 (9)"],
        ["    Points Possible", "", "", "10"],
        ['"Doe, Jr; x"', "11", "", ""],
    ]
    text = end.join(delimiter.join(line) for line in lines)  # no line end after the last line
    done = export(tmp_path, mark + text.encode(), [grade("11")], "canvas")
    assert done.content == mark + f"{text}7.5".encode()


def test_a_decimal_comma_is_written_where_the_roster_has_one(tmp_path):
    text = "Student;ID;Section;Lab 1 (9)\r\n    Points Possible;;;10,00\r\nDoe;11;;3,00\r\n"
    assert export(tmp_path, text, [grade("11")], "canvas").content.decode() == text.replace("3,00", "7,5")
    text = MOODLE.replace("10.00", '"10,00"').replace("3.00", '"3,00"').replace("4.00", '"4,00"')
    assert records(export(tmp_path, text, [grade("11")], "moodle"), "Identifier")["Participant 11"]["Grade"] == "7,5"


@pytest.mark.parametrize("encoding", ["utf-16", "windows-1252"])
def test_other_encodings_come_back_as_they_were(tmp_path, encoding):
    done = export(tmp_path, CANVAS.encode(encoding), [grade("11")], "canvas")
    assert done.content.decode(encoding) == CANVAS.replace('"A ""first"", B",,7', '"A ""first"", B",7.5,7')


def test_moodle_gets_grade_or_reason(tmp_path):
    results = [grade("11"), grade("12", 0.0, "crashed", '=HYPERLINK("http://evil","click, here")'), grade("13")]
    done = export(tmp_path, MOODLE.replace("3.00", ""), results, "moodle")
    found = records(done, "Identifier")
    assert found["Participant 11"]["Grade"] == "7.5"
    assert found["Participant 11"]["Feedback comments"] == ""
    assert found["Participant 12"]["Grade"] == ""
    assert "click, here" in found["Participant 12"]["Feedback comments"]
    assert not found["Participant 12"]["Feedback comments"].startswith("=")
    assert found["Participant 13"]["Grade"] == "4.00"
    assert "cannot be changed" in done.kept[0][1]
    assert done.content.decode().splitlines()[0] == MOODLE.splitlines()[0]
    assert done.content.decode().splitlines()[3] == MOODLE.splitlines()[3]


def test_a_reason_goes_once_the_grade_is_there_and_a_teachers_comment_stays(tmp_path):
    failed = [grade("11", 0.0, "crashed", "the kernel died"), grade("12", 0.0, "crashed", "the kernel died")]
    roster = MOODLE.replace("3.00,10.00,Yes,-,", "3.00,10.00,Yes,-,see me")
    first = export(tmp_path, roster, failed, "moodle")
    found = records(first, "Identifier")
    assert "the kernel died" in found["Participant 11"]["Feedback comments"]
    assert found["Participant 12"]["Feedback comments"] == "see me"
    second = records(export(tmp_path, first.content, [grade("11"), grade("12")], "moodle"), "Identifier")
    assert [second[f"Participant {k}"]["Feedback comments"] for k in (11, 12)] == ["", "see me"]


def test_gradescope_gets_scores_and_reasons_in_columns_of_its_own(tmp_path):
    done = export(tmp_path, GRADESCOPE, [grade("11"), grade("OHARA", 0.0, "missing", "@late, no file")], "gradescope")
    found = records(done, "SID")
    assert [found["11"][name] for name in ("Total Score", "Max Points", "Status", "Reason")] == [
        "7.5",
        "10",
        "Graded",
        "",
    ]
    assert found["12"]["Total Score"] == ""
    assert found["12"]["Status"] == "Missing"
    assert "late, no file" in found["12"]["Reason"]
    assert not found["12"]["Reason"].startswith("@")
    assert {len(row) for row in rows(done)} == {9}
    old = [line.split(",Total", 1)[0] for line in done.content.decode().splitlines()]
    assert all(new.startswith(before) for new, before in zip(old, GRADESCOPE.splitlines(), strict=True))


@pytest.mark.parametrize("value", ["=1+1", "+cmd", "-x", "@SUM(A1)", "\t=1", "  =1", "\r=1", "＝1"])
def test_formulas_are_neutralised(value):
    assert harmless(value) == "'" + value


@pytest.mark.parametrize("value", ["", "-1.5", "+3", "a=b", "O'Hara", "1e-3"])
def test_what_is_no_formula_stays(value):
    assert harmless(value) == value


def test_files_that_are_no_roster_are_errors_in_words(tmp_path):
    for format, word in (
        ("canvas", "Export Entire Gradebook"),
        ("moodle", "grading worksheet"),
        ("gradescope", "Email"),
    ):
        with pytest.raises(CourseError, match=word):
            export(tmp_path, "a,b\n1,2\n", [grade("11")], format)
    for text, word in ((b"", "empty"), (b"PK\0\0", "not a CSV"), (b'a,b\n"open,2\n', "quoted field")):
        with pytest.raises(CourseError, match=word):
            export(tmp_path, text, [grade("11")], "canvas")
    with pytest.raises(CourseError, match="cannot be opened"):
        Table.read(tmp_path / "none.csv")


def test_an_unchanged_table_keeps_every_byte(tmp_path):
    path = tmp_path / "odd.csv"
    for content in (b'a,"b\r\nc",\n"",x"y,\r\nlast,', BOM + b'"a";b\n\n;"c""d"', b"only\n"):
        path.write_bytes(content)
        assert bytes(Table.read(path)) == content
