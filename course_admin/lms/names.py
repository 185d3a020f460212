"""Whose file is it? Students in the names that learning management systems give to submitted files.

**Canvas** (assignment > Download Submissions): one flat folder of `doejane_1234_56789_lab1.ipynb`, or
`doejane_LATE_1234_56789_lab1.ipynb` for late work: the sortable name without spaces and punctuation, the user's id, the
file's id (a later upload has a larger one), the name that the student gave it; from the second upload on Canvas adds
`-1`, `-2`, ... to that. The student is the user's id, which is the column `ID` of the gradebook. Anonymous assignments
have `anon_Ab1cD` instead of name and id. Times in the archive are those of the download.

**Moodle** (assignment > Download all submissions): `Jane Doe_123456_assignsubmission_file_/lab1.ipynb`, or with folders
switched off `Jane Doe_123456_assignsubmission_file_lab1.ipynb`; 123456 is the number of `Participant 123456` in the
grading worksheet, and the student. `..._assignsubmission_onlinetext_...` is text typed into Moodle. Times in the
archive are those of the upload, in the server's local time.

**Plain**: `student/lab1.ipynb` or `student/anything/lab1.ipynb`; a folder around all of it that is called like the
archive or `submitted` is left out, and any other that might be one is asked about. Times are those of the files.

Sources: instructure/canvas-lms, lib/content_zipper.rb; moodle/moodle, mod/assign; archives from both systems.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from course_admin.lms.archive import Member
from course_admin.paths import CourseError, Lab

FORMATS = ("canvas", "moodle", "plain")
CANVAS_NAME = re.compile(r"(?P<name>\w+?)_(?P<late>LATE_)?(?P<student>\d+)_(?P<file>\d+)_(?P<given>[^/]+)")
CANVAS_ANONYMOUS = re.compile(r"(?P<late>LATE_)?(?P<student>anon_[A-Za-z0-9]+)_(?P<file>\d+)_(?P<given>[^/]+)")
MOODLE = re.compile(r"(?P<name>.+?)_(?P<student>\d+)_assignsubmission_(?P<kind>[a-z]+)(_(?P<given>.*))?")
SAFE_STUDENT = re.compile(r"\w[\w.@+ -]{0,99}(?<![. ])")
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # names that Windows keeps for itself
REPEATED = re.compile(r"([ _-]*\(\d+\)|-\d+|[ _-]*copy\d*)+$", re.IGNORECASE)  # lab1 (1), lab1-2, lab1-Copy1


@dataclass(frozen=True)
class Upload:
    """One file of one student. attempt orders the uploads of a student; time is None where the archive tells none."""

    student: str
    given: str  # the name that the student gave it
    attempt: tuple[int, ...]
    late: bool
    time: datetime | None


def detect(members: list[Member]) -> str:
    """The format of an archive, judged by its names."""
    if any("_assignsubmission_" in member.path for member in members):
        return "moodle"
    notebooks = [member for member in members if member.path.lower().endswith(".ipynb")]
    n_canvas = sum(_canvas_match(member.parts[-1]) is not None for member in notebooks if member.parts)
    return "canvas" if notebooks and 2 * n_canvas > len(notebooks) else "plain"


def upload_of(member: Member, format: str, root: str) -> Upload | str:
    """Whose upload a member is, or why it is nobody's.

    Args:
        member: a member that may be read.
        format: one of FORMATS.
        root: the folder around everything that is left out, or "".

    Returns:
        An Upload, or one sentence.
    """
    found = {"canvas": _canvas, "moodle": _moodle, "plain": _plain}[format](member, root)
    if isinstance(found, str):
        return found
    if not SAFE_STUDENT.fullmatch(found.student) or RESERVED.fullmatch(found.student):
        return f"the student's name {found.student!r} cannot be a folder"
    return found


def common_root(notebooks: list[Member], lab: Lab, archive_stem: str) -> str:
    """The folder that surrounds all notebooks of a plain archive, when it is no student: called like the archive.

    Args:
        notebooks: the notebooks of the archive.
        lab: the lab that they are of.
        archive_stem: the archive's name without .zip.

    Returns:
        The folder's name; "" when the topmost folders are the students'.

    Raises:
        CourseError: if nobody can tell whether the only folder is a student or surrounds several.
    """
    tops = {member.parts[0] for member in notebooks}
    top = tops.pop() if len(tops) == 1 else ""
    deep = all(len(member.parts) > 2 for member in notebooks)
    if deep and top in ("submitted", archive_stem, REPEATED.sub("", archive_stem)):
        return top
    below = {member.parts[1] for member in notebooks if len(member.parts) > 2 and is_labs(member.parts[-1], lab)}
    if top and len(below) > 1:
        raise CourseError(
            f"everything lies in the folder {top!r}: is it one student, or does it surround the students' folders? "
            f"Call the archive {top}.zip if it surrounds them; put it into a folder 'submitted' if it is a student"
        )
    return ""


def is_labs(given: str, lab: Lab) -> bool:
    """Whether a file's name is the lab's, apart from case and from what browsers and systems add to copies."""
    return _plain_stem(given) == lab.name


def other_lab(given: str, lab: Lab) -> str:
    """The name of the other lab of the course that a file is called like; "" when there is none."""
    stem = _plain_stem(given)
    others = {path.stem for path in lab.source.parent.glob("*.py")} - {lab.name}
    return stem if stem in others else ""


def _plain_stem(given: str) -> str:
    return REPEATED.sub("", given.rpartition(".")[0]).casefold().replace(" ", "_").strip("_")


def copy_number(given: str) -> int:
    """2 of 'lab1-2.ipynb' and of 'lab1 (2).ipynb'; 0 of 'lab1.ipynb'."""
    found = re.search(r"(?:-(\d+)|\((\d+)\))$", given.rpartition(".")[0])
    return int(found[1] or found[2]) if found else 0


def _canvas_match(name: str) -> re.Match | None:
    return CANVAS_ANONYMOUS.fullmatch(name) or CANVAS_NAME.fullmatch(name)


def _canvas(member: Member, root: str) -> Upload | str:
    found = _canvas_match(member.parts[-1])
    if found is None:
        return "its name is not one that Canvas gives: name_userid_fileid_file.ipynb"
    attempt = (int(found["file"]), copy_number(found["given"]))
    return Upload(found["student"], found["given"], attempt, bool(found["late"]), None)


def _moodle(member: Member, root: str) -> Upload | str:
    places = [(place, MOODLE.fullmatch(part)) for place, part in enumerate(member.parts)]
    place, found = next(((place, found) for place, found in places if found), (0, None))
    if found is None:
        return "its name is not one that Moodle gives: Full Name_123456_assignsubmission_file_/file.ipynb"
    if len(re.findall(r"_\d+_assignsubmission_", member.parts[place])) > 1:
        return "its name holds two participants' numbers; somebody may have put one into a name. Look who it is from"
    if found["kind"] != "file":
        return f"is not a file that was handed in, but Moodle's {found['kind']!r}"
    given = member.parts[-1] if place + 1 < len(member.parts) else found["given"] or ""
    return Upload(found["student"], given, _by_time(member, given), False, member.time)


def _plain(member: Member, root: str) -> Upload | str:
    parts = member.parts[1:] if root and member.parts[0] == root else member.parts
    if len(parts) < 2:
        return "lies in no student's folder: student/lab.ipynb is expected"
    return Upload(parts[0], parts[-1], _by_time(member, parts[-1]), False, member.time)


def _by_time(member: Member, given: str) -> tuple[int, ...]:
    seconds = int((member.time - datetime(1980, 1, 1)).total_seconds()) if member.time else -1
    return (seconds, copy_number(given))
