"""Archives of submissions that nobody can trust: what is taken, what is refused and why, and that nothing is lost."""

from __future__ import annotations

import csv
import io
import stat
import struct
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from course_admin.grading.collect import collect as graders_collect
from course_admin.lms.archive import Archive, Limits
from course_admin.lms.collect import EARLIER, SYSTEM_FILE, UNCHANGED, Collection, collect
from course_admin.paths import CourseError, Lab

LAB = Lab(Path("lab1_tiny.py"))
BOOK = f"{LAB.name}.ipynb"
NOON = (2026, 11, 20, 12, 0, 0)
UTF8 = 0x800


def archive(folder: Path, *members: tuple, name: str = "class.zip") -> Path:
    """A zip file of (name, content) or (name, content, (year, ..., second)); bytes as name are written as they are."""
    path = folder / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for member, content, *time in members:
            info = zipfile.ZipInfo(member, time[0] if time else NOON)
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, content)
    return path


def taken(folder: Path) -> dict[str, str]:
    """Student -> content of what lies in submitted/."""
    found = (folder / "submitted").glob(f"*/{LAB.name}/{BOOK}")
    return {path.parents[1].name: path.read_text(encoding="utf-8") for path in found}


def reason_for(found: Collection, path: str) -> str:
    return dict(found.refused)[path]


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


# ---------------------------------------------------------------------------------------------- hostile names and sizes
@pytest.mark.parametrize(
    ("name", "word"),
    [
        (f"../../evil/{BOOK}", "'..'"),
        (f"eve/../../{BOOK}", "'..'"),
        (f"eve\\..\\..\\{BOOK}", "'..'"),
        (f"/etc/eve/{BOOK}", "absolute"),
        (f"C:\\eve\\{BOOK}", "absolute"),
        (f"\\\\server\\eve\\{BOOK}", "absolute"),
        (f"eve\x1b[2J/{BOOK}", "control"),
        (f"eve\u202e/{BOOK}", "control"),
        (f".eve/{BOOK}", "cannot be a folder"),
        (f"-rf/{BOOK}", "cannot be a folder"),
        (f"con/{BOOK}", "cannot be a folder"),
        (f"eve./{BOOK}", "cannot be a folder"),
        (f"{'e' * 200}/{BOOK}", "cannot be a folder"),
    ],
)
def test_names_that_leave_the_folder_or_cannot_be_one_are_refused(tmp_path, name, word):
    course = tmp_path / "deep" / "course"
    course.mkdir(parents=True)
    path = archive(tmp_path, (name, "evil"), (f"ada/{BOOK}", "good"))
    before = files(tmp_path)
    found = collect(LAB, path, course)
    assert word in "".join(reason for _, reason in found.refused)
    assert len(found.refused) == 1
    assert taken(course) == {"ada": "good"}
    assert all(name.startswith("deep/course/submitted/") for name in files(tmp_path) - before)


@pytest.mark.parametrize(
    ("kind", "word"), [(stat.S_IFLNK, "link"), (stat.S_IFIFO, "ordinary"), (stat.S_IFCHR, "ordinary")]
)
def test_links_and_devices_are_refused(tmp_path, kind, word):
    path = tmp_path / "class.zip"
    with zipfile.ZipFile(path, "w") as file:
        info = zipfile.ZipInfo(f"eve/{BOOK}", NOON)
        info.external_attr = (kind | 0o777) << 16
        file.writestr(info, "/etc/passwd")
        file.writestr(f"ada/{BOOK}", "good")
    found = collect(LAB, path, tmp_path)
    assert word in reason_for(found, f"eve/{BOOK}")
    assert taken(tmp_path) == {"ada": "good"}


def test_a_member_that_unpacks_to_much_more_than_its_size_is_a_bomb(tmp_path):
    path = archive(tmp_path, (f"eve/{BOOK}", bytes(8 * 2**20)), (f"ada/{BOOK}", "good"))
    found = collect(LAB, path, tmp_path)
    assert "zip bomb" in reason_for(found, f"eve/{BOOK}")
    assert taken(tmp_path) == {"ada": "good"}


def test_sizes_are_limited_a_file_and_a_whole_archive(tmp_path):
    path = archive(tmp_path, *((f"s{k}/{BOOK}", f"{k}" * 1000) for k in range(3)), (f"big/{BOOK}", "x" * 5000))
    found = collect(LAB, path, tmp_path, limits=Limits(member_bytes=4000, total_bytes=2500))
    assert "larger than" in reason_for(found, f"big/{BOOK}")
    assert "whole archive" in reason_for(found, f"s2/{BOOK}")
    assert set(taken(tmp_path)) == {"s0", "s1"}


def test_a_size_that_the_archive_lies_about_is_counted_while_reading(tmp_path):
    path = archive(tmp_path, (f"eve/{BOOK}", "x" * 5000))
    content = path.read_bytes().replace(struct.pack("<I", 5000), struct.pack("<I", 10))
    path.write_bytes(content)
    found = collect(LAB, path, tmp_path, limits=Limits(member_bytes=100))
    assert len(found.refused) == 1
    assert not taken(tmp_path)


def test_too_many_members_refuse_the_archive(tmp_path):
    path = archive(tmp_path, *((f"s{k}/{BOOK}", "") for k in range(5)))
    with pytest.raises(CourseError, match="5 files, more than the 4"):
        collect(LAB, path, tmp_path, limits=Limits(members=4))
    assert taken(tmp_path) == {}


def test_archives_inside_the_archive_stay_closed(tmp_path):
    inner = archive(tmp_path, (f"eve/{BOOK}", "x"), name="inner.zip").read_bytes()
    found = collect(LAB, archive(tmp_path, ("eve/work.zip", inner), (f"ada/{BOOK}", "good")), tmp_path)
    assert "not opened" in reason_for(found, "eve/work.zip")
    assert ("eve/work.zip", reason_for(found, "eve/work.zip")) in found.incomplete
    assert taken(tmp_path) == {"ada": "good"}


def test_encrypted_members_are_named(tmp_path):
    path = archive(tmp_path, (f"eve/{BOOK}", "secret"))
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(content)
    assert reason_for(collect(LAB, path, tmp_path), f"eve/{BOOK}") == "is encrypted"


def test_damaged_files_cost_only_themselves(tmp_path):
    path = archive(tmp_path, (f"eve/{BOOK}", "abc" * 500), (f"ada/{BOOK}", "good"))
    content = bytearray(path.read_bytes())
    start = content.index(BOOK.encode()) + len(BOOK)
    content[start : start + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    assert "damaged" in reason_for(collect(LAB, path, tmp_path), f"eve/{BOOK}")
    assert taken(tmp_path) == {"ada": "good"}


@pytest.mark.parametrize("content", [b"", b"no zip file", b"PK\x03\x04 cut off"])
def test_what_is_no_archive_is_an_error_in_words(tmp_path, content):
    path = tmp_path / "class.zip"
    path.write_bytes(content)
    with pytest.raises(CourseError, match="not a zip file"):
        Archive(path)
    with pytest.raises(CourseError, match="does not exist"):
        Archive(tmp_path / "other.zip")


# ------------------------------------------------------------------------------------------------------ names of people
def raw_name(folder: Path, name: bytes, utf8: bool) -> Path:
    """An archive whose only member has these bytes as its name, with or without the flag that says UTF-8."""
    placeholder = "x" * len(name)
    path = archive(folder, (placeholder, "content"))
    content = bytearray(path.read_bytes().replace(placeholder.encode(), name))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.index(signature) + offset
        flags = struct.unpack_from("<H", content, place)[0] & ~UTF8
        struct.pack_into("<H", content, place, flags | UTF8 * utf8)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("encoding", "utf8"), [("utf-8", True), ("utf-8", False), ("cp437", False)], ids=["flag", "no flag", "cp437"]
)
def test_names_in_utf8_and_in_code_page_437(tmp_path, encoding, utf8):
    path = raw_name(tmp_path, f"émile/{BOOK}".encode(encoding), utf8)
    assert collect(LAB, path, tmp_path).refused == []
    assert taken(tmp_path) == {"émile": "content"}


def test_composed_and_decomposed_names_are_one_student(tmp_path):
    path = archive(
        tmp_path, (f"e\u0301mile/{BOOK}", "first", NOON), (f"\u00e9mile/{BOOK}", "second", (2026, 11, 21, 0, 0, 0))
    )
    collect(LAB, path, tmp_path)
    assert taken(tmp_path) == {"\u00e9mile": "second"}


def test_students_that_differ_in_case_alone_are_not_mixed(tmp_path):
    found = collect(LAB, archive(tmp_path, (f"Ada/{BOOK}", "A"), (f"ada/{BOOK}", "a")), tmp_path)
    assert taken(tmp_path) == {"Ada": "A"}
    assert "only in case" in reason_for(found, f"ada/{BOOK}")
    assert found.incomplete
    again = collect(LAB, archive(tmp_path, (f"ADA/{BOOK}", "other")), tmp_path)
    assert taken(tmp_path) == {"Ada": "A"}
    assert "only in case" in reason_for(again, f"ADA/{BOOK}")


# ----------------------------------------------------------------------------------------------------------- the formats
def test_canvas(tmp_path):
    path = archive(
        tmp_path,
        (f"doejane_1234_900_{LAB.name}.ipynb", "first"),
        (f"doejane_LATE_1234_1200_{LAB.name}-1.ipynb", "second, late"),
        (f"roejohn_55_1000_{LAB.name}.ipynb", "john"),
        ("roejohn_55_1001_notes.pdf", "pdf"),
        (f"müllerjörg_56_1002_{LAB.name}.ipynb", "jörg"),
        (f"anon_Ab1cD_1003_{LAB.name}.ipynb", "anonymous"),
        (f"zed_57_1004_my_57_8_{LAB.name}.ipynb", "underscores"),
    )
    found = collect(LAB, path, tmp_path)
    assert found.format == "canvas"
    assert taken(tmp_path) == {
        "1234": "second, late", "55": "john", "56": "jörg", "anon_Ab1cD": "anonymous", "57": "underscores"
    }  # fmt: skip
    assert [item.student for item in found.taken if item.late] == ["1234"]
    assert reason_for(found, f"doejane_1234_900_{LAB.name}.ipynb") == EARLIER
    assert "not a notebook" in reason_for(found, "roejohn_55_1001_notes.pdf")
    assert not (tmp_path / "submitted/1234" / LAB.name / "timestamp.txt").exists()  # Canvas gives download times


def test_moodle_with_folders_and_without(tmp_path):
    path = archive(
        tmp_path,
        (f"Jane Doe_123456_assignsubmission_file_/{LAB.name}.ipynb", "jane"),
        ("Jane Doe_123456_assignsubmission_onlinetext_/onlinetext.html", "hello"),
        (f"José de la Cruz_7_assignsubmission_file_{LAB.name}.ipynb", "josé"),
        (f"Jane Doe_8_assignsubmission_file_/sub/{LAB.name}.ipynb", "another Jane Doe"),
        ("readme.ipynb", "?"),
    )
    found = collect(LAB, path, tmp_path)
    assert found.format == "moodle"
    assert taken(tmp_path) == {"123456": "jane", "7": "josé", "8": "another Jane Doe"}
    assert "not one that Moodle gives" in reason_for(found, "readme.ipynb")


def test_a_moodle_name_with_another_ones_number_in_it_takes_nobodys_place(tmp_path):
    path = archive(
        tmp_path,
        (f"Jane Doe_777_assignsubmission_file_/{LAB.name}.ipynb", "jane"),
        (f"Eve_777_assignsubmission_file_ Smith_123456_assignsubmission_file_/{LAB.name}.ipynb", "eve"),
    )
    found = collect(LAB, path, tmp_path)
    assert taken(tmp_path) == {"777": "jane"}
    assert [("holds two participants' numbers" in reason, name.startswith("Eve")) for name, reason in found.incomplete] == [
        (True, True)
    ]


def test_plain_folders(tmp_path):
    path = archive(
        tmp_path,
        (f"class/ada/{BOOK}", "ada"),
        (f"class/bob/{LAB.name}/{LAB.name} (2).ipynb", "bob"),
        ("class/cyd/my work.ipynb", "cyd"),
        ("class/dan/a.ipynb", "?"),
        ("class/dan/b.ipynb", "?"),
        ("class/.DS_Store", "x"),
        ("class/readme.txt", "x"),
        (f"__MACOSX/class/ada/._{BOOK}", "x"),
        (f"class/ada/.ipynb_checkpoints/{LAB.name}-checkpoint.ipynb", "old"),
    )
    found = collect(LAB, path, tmp_path)
    assert taken(tmp_path) == {"ada": "ada", "bob": "bob", "cyd": "cyd"}
    assert {item.student: item.note for item in found.taken}["cyd"] == "handed in as my work.ipynb"
    assert "one of 2 notebooks" in reason_for(found, "class/dan/a.ipynb")
    assert reason_for(found, f"__MACOSX/class/ada/._{BOOK}") == SYSTEM_FILE
    assert {path for path, _ in found.incomplete} == {"class/dan/a.ipynb", "class/dan/b.ipynb"}


def test_a_browsers_number_in_the_archives_name_does_not_hide_the_folder_around_all(tmp_path):
    path = archive(tmp_path, (f"class/ada/{BOOK}", "ada"), (f"class/bob/{BOOK}", "bob"), name="class (1).zip")
    collect(LAB, path, tmp_path)
    assert taken(tmp_path) == {"ada": "ada", "bob": "bob"}


def test_one_folder_that_may_be_a_student_or_surround_several_is_asked_about(tmp_path):
    path = archive(tmp_path, (f"spring/ada/{BOOK}", "ada"), (f"spring/bob/{BOOK}", "bob"))
    with pytest.raises(CourseError, match="spring.zip"):
        collect(LAB, path, tmp_path)
    assert taken(tmp_path) == {}
    collect(LAB, path.rename(tmp_path / "spring.zip"), tmp_path)
    assert taken(tmp_path) == {"ada": "ada", "bob": "bob"}


def test_a_notebook_in_no_students_folder_is_nobodys(tmp_path):
    found = collect(LAB, archive(tmp_path, (BOOK, "?"), (f"ada/{BOOK}", "ada")), tmp_path)
    assert "no student's folder" in reason_for(found, BOOK)
    assert taken(tmp_path) == {"ada": "ada"}


# ---------------------------------------------------------------------------------------------- attempts and what is kept
def test_the_latest_attempt_wins_whatever_the_order(tmp_path):
    early, late = (2026, 11, 20, 9, 0, 0), (2026, 11, 20, 10, 0, 0)
    path = archive(
        tmp_path,
        (f"ada/b/{BOOK}", "late", late),
        (f"ada/z/{BOOK}", "early", early),
        ("ada/other.ipynb", "?", late),
        (f"bob/{BOOK}", "bob"),
    )
    found = collect(LAB, path, tmp_path)
    assert taken(tmp_path) == {"ada": "late", "bob": "bob"}
    assert reason_for(found, f"ada/z/{BOOK}") == EARLIER
    assert "another notebook" in reason_for(found, "ada/other.ipynb")


def test_a_notebook_that_is_called_like_another_lab_is_not_taken(tmp_path):
    (tmp_path / "solutions").mkdir()
    for name in (LAB.name, "lab2_other"):
        (tmp_path / "solutions" / f"{name}.py").touch()
    lab = Lab(tmp_path / "solutions" / f"{LAB.name}.py")
    path = archive(tmp_path, ("ada/Lab2 other (1).ipynb", "2"), ("bob/mine.ipynb", "1"))
    found = collect(lab, path, tmp_path)
    assert taken(tmp_path) == {"bob": "1"}
    assert reason_for(found, "ada/Lab2 other (1).ipynb") == f"is called like lab2_other, not {LAB.name}"
    assert found.incomplete


def test_the_timestamp_is_the_one_that_grading_reads(tmp_path):
    collect(LAB, archive(tmp_path, (f"ada/{BOOK}", "x")), tmp_path)
    text = (tmp_path / "submitted/ada" / LAB.name / "timestamp.txt").read_text().strip()
    handed_in = datetime.strptime(text, "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
    assert handed_in == datetime(*NOON).astimezone(UTC)
    submission = graders_collect(tmp_path, LAB.name)[0]
    assert submission.student == "ada"
    assert submission.path is not None
    assert submission.timestamp
    assert str(submission.timestamp).startswith(f"{handed_in:%Y-%m-%d}")


def test_nothing_is_overwritten(tmp_path):
    def class_of(content: str, hour: int) -> Path:
        return archive(tmp_path, (f"ada/{BOOK}", content, (2026, 11, 20, hour, 0, 0)))

    collect(LAB, class_of("one", 10), tmp_path)
    assert reason_for(collect(LAB, class_of("one", 10), tmp_path), f"ada/{BOOK}") == UNCHANGED
    assert "older" in reason_for(collect(LAB, class_of("zero", 9), tmp_path), f"ada/{BOOK}")
    assert taken(tmp_path) == {"ada": "one"}
    newer = collect(LAB, class_of("two", 11), tmp_path)
    assert taken(tmp_path) == {"ada": "two"}
    assert "the earlier submission is in" in newer.taken[0].note
    kept = {path.read_text() for path in (tmp_path / "submitted/ada").glob(f"*.earlier-*/{BOOK}")}
    assert kept == {"one"}
    assert not list((tmp_path / "submitted/ada").glob(".import-*"))


def test_work_that_was_put_there_by_hand_moves_aside(tmp_path):
    by_hand = tmp_path / "submitted/ada" / LAB.name
    by_hand.mkdir(parents=True)
    (by_hand / BOOK).write_text("by hand")
    (by_hand / "data.csv").write_text("1,2")
    for content in ("one", "two"):
        collect(LAB, archive(tmp_path, (f"x_9_1_{BOOK}", "x"), (f"ada/{BOOK}", content)), tmp_path, format="plain")
    assert taken(tmp_path) == {"ada": "two"}
    aside = sorted(
        path.read_text() for path in (tmp_path / "submitted/ada").glob("*.earlier-*/*") if path.name != "timestamp.txt"
    )
    assert aside == ["1,2", "by hand", "one"]


def test_everything_is_listed_and_the_list_cannot_run(tmp_path):
    path = archive(tmp_path, (f"ada/{BOOK}", "x"), ('=cmd|"/c calc".txt', "x"), (f"../{BOOK}", "x"))
    found = collect(LAB, path, tmp_path)
    rows = list(csv.reader(io.StringIO((tmp_path / f"submitted/{LAB.name}.import.csv").read_text("utf-8-sig"))))
    assert len(found.taken) + len(found.refused) == 3
    listed = " ".join(value for row in rows for value in row)
    assert all(name in listed for name in (f"ada/{BOOK}", "calc", f"../{BOOK}"))
    assert not any(value.startswith(("=", "@", "+", "-")) for row in rows for value in row)
