"""From an archive of submissions to submitted/<student>/<lab>/<lab>.ipynb.

Of each student the latest notebook that is called like the lab is taken, or the only notebook there is. Everything else
is listed with a reason. A submission that is there already stays as it is when it is the same or newer; an older one
moves aside, to submitted/<student>/<lab>.earlier-<its time>/. Nothing is overwritten.
"""

from __future__ import annotations

import csv
import shutil
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from course_admin.lms.archive import Archive, Limits, Member
from course_admin.lms.names import Upload, common_root, detect, is_labs, other_lab, upload_of
from course_admin.lms.table import as_written, harmless
from course_admin.paths import Lab

TIMESTAMP = "timestamp.txt"  # nbgrader's: when the submission was handed in; it decides about late penalties
TIME_FORMAT = "%Y-%m-%d %H:%M:%S UTC"
JUNK = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini", ".ipynb_checkpoints")


@dataclass(frozen=True)
class Taken:
    """One notebook that was put into submitted/. late is what the system says in the file's name."""

    student: str
    path: str
    time: datetime | None
    late: bool
    note: str


@dataclass
class Collection:
    """What became of every file of an archive. refused holds (path in the archive, reason)."""

    format: str
    taken: list[Taken] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)

    @property
    def incomplete(self) -> list[tuple[str, str]]:
        """The refused files that a person should look at: notebooks, and whatever tried to leave the archive."""
        return [(path, reason) for path, reason in self.refused if reason not in HARMLESS]

    @property
    def holds_nothing(self) -> bool:
        """Whether there was no notebook of the lab at all, neither a new one nor one that was taken before."""
        return not self.taken and all(reason != UNCHANGED for _, reason in self.refused)


NOT_A_NOTEBOOK = "is not a notebook"
SYSTEM_FILE = "is a file of some operating system"
EARLIER = "is an earlier upload of the same student"
UNCHANGED = "is in submitted/ already"
HARMLESS = {NOT_A_NOTEBOOK, SYSTEM_FILE, EARLIER, UNCHANGED}


def collect(
    lab: Lab, archive: Path, folder: Path, format: str | None = None, limits: Limits | None = None
) -> Collection:
    """Take the submissions of one lab out of an archive.

    Args:
        lab: the lab.
        archive: zip file that Canvas or Moodle made, or with a folder for each student.
        folder: the course folder; everything is written below its submitted/.
        format: one of names.FORMATS; default: found out from the names in the archive.
        limits: what the archive may hold.

    Returns:
        What became of every file. The same is appended to submitted/<lab>.import.csv.

    Raises:
        CourseError: if the archive cannot be read at all, or its only folder may be a student or surround several.
    """
    with Archive(archive, limits) as opened:
        members = list(opened.members())
        collection = Collection(format or detect(members))
        by_student = _by_student(lab, members, archive.stem, collection)
        spellings = _spellings(folder / "submitted")
        for student, uploads in by_student.items():
            first = spellings.setdefault(student.casefold(), student)
            if first != student:
                why = f"the student {student!r} differs from {first!r} only in case; rename one of them"
                collection.refused += [(member.path, why) for member, _ in uploads]
            elif chosen := _choose(lab, uploads, collection):
                _take(lab, opened, *chosen, folder / "submitted", collection)
    _log(lab, archive, folder / "submitted", collection)
    return collection


def _by_student(
    lab: Lab, members: list[Member], stem: str, collection: Collection
) -> dict[str, list[tuple[Member, Upload]]]:
    """The notebooks of each student; everything else is refused."""
    reasons = {id(member): member.refused or _not_a_notebook(member) for member in members}
    notebooks = [member for member in members if not reasons[id(member)]]
    root = common_root(notebooks, lab, stem) if collection.format == "plain" else ""
    found: dict[str, list[tuple[Member, Upload]]] = {}
    for member in members:
        upload = reasons[id(member)] or upload_of(member, collection.format, root)
        if isinstance(upload, str):
            collection.refused.append((member.path, upload))
        else:
            found.setdefault(upload.student, []).append((member, upload))
    return found


def _not_a_notebook(member: Member) -> str:
    if any(part in JUNK or part.startswith("._") for part in member.parts):
        return SYSTEM_FILE
    if member.path.lower().endswith((".zip", ".tar", ".gz", ".7z", ".rar")):
        return "is an archive inside the archive; these are not opened"
    return "" if member.path.lower().endswith(".ipynb") else NOT_A_NOTEBOOK


def _spellings(submitted: Path) -> dict[str, str]:
    """The students who have a folder already, by the name without regard to case."""
    return {path.name.casefold(): path.name for path in submitted.glob("*") if path.is_dir()}


def _choose(
    lab: Lab, uploads: list[tuple[Member, Upload]], collection: Collection
) -> tuple[Member, Upload, str] | None:
    """The one notebook to grade, and what is to be said about it."""
    named = [item for item in uploads if is_labs(item[1].given, lab)]
    if not named and len(uploads) > 1:
        why = f"is one of {len(uploads)} notebooks of {uploads[0][1].student}, none of which is called {lab.name}.ipynb"
        collection.refused += [(member.path, why) for member, _ in uploads]
        return None
    if not named and (other := other_lab(uploads[0][1].given, lab)):
        collection.refused += [(member.path, f"is called like {other}, not {lab.name}") for member, _ in uploads]
        return None
    candidates = sorted(named or uploads, key=lambda item: (item[1].attempt, item[0].path))
    member, upload = candidates[-1]
    collection.refused += [(other.path, EARLIER) for other, _ in candidates[:-1]]
    others = [other for other, other_upload in uploads if (other, other_upload) not in candidates]
    collection.refused += [(other.path, f"is another notebook than {lab.name}.ipynb") for other in others]
    note = "" if upload.given == f"{lab.name}.ipynb" else f"handed in as {upload.given}"
    if len(candidates) > 1 and candidates[-2][1].attempt == upload.attempt:
        note = f"{note}; another upload has the same time".strip("; ")
    return member, upload, note


def _take(
    lab: Lab, opened: Archive, member: Member, upload: Upload, note: str, submitted: Path, collection: Collection
) -> None:
    try:
        content = opened.read(member)
        earlier = place(lab, submitted / upload.student, content, upload.time)
    except ValueError as error:
        collection.refused.append((member.path, str(error)))
        return
    note = f"{note}; {earlier}".strip("; ")
    collection.taken.append(Taken(upload.student, member.path, upload.time, upload.late, note))


def place(lab: Lab, folder: Path, content: bytes, time: datetime | None) -> str:
    """Write one submission into a student's folder, whole or not at all.

    Args:
        lab: the lab.
        folder: submitted/<student>.
        content: the notebook's bytes.
        time: when it was handed in, in local time; None when nobody knows.

    Returns:
        What happened to an earlier submission; "" when there was none.

    Raises:
        ValueError: if the submission there is the same or a newer one.
    """
    target, note = folder / lab.name, ""
    handed_in = time.astimezone(UTC) if time else None
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".import-") as scratch:
        new = Path(scratch) / lab.name
        new.mkdir()
        (new / f"{lab.name}.ipynb").write_bytes(content)
        if handed_in:
            (new / TIMESTAMP).write_text(handed_in.strftime(TIME_FORMAT) + "\n", encoding="utf-8")
        if target.exists():
            note = _move_aside(lab, target, content, handed_in)
        new.rename(target)
    return note


def _move_aside(lab: Lab, target: Path, content: bytes, handed_in: datetime | None) -> str:
    present = target / f"{lab.name}.ipynb"
    if present.is_file() and present.read_bytes() == content:
        raise ValueError(UNCHANGED)
    known = _time_of(target)
    if known and handed_in and known > handed_in:
        raise ValueError(f"is older than the submission in {target.parent.name}/{target.name}, which stays")
    when = known or datetime.fromtimestamp(present.stat().st_mtime if present.exists() else 0, UTC)
    aside = target.with_name(f"{target.name}.earlier-{when:%Y%m%dT%H%M%SZ}")
    number = 1
    while aside.exists():
        number += 1
        aside = target.with_name(f"{target.name}.earlier-{when:%Y%m%dT%H%M%SZ}-{number}")
    shutil.move(target, aside)
    return f"the earlier submission is in {aside.name}"


def _time_of(target: Path) -> datetime | None:
    """When the submission that lies there was handed in, if its timestamp.txt is one of ours."""
    try:
        text = (target / TIMESTAMP).read_text(encoding="utf-8").strip()
        return datetime.strptime(text, TIME_FORMAT).replace(tzinfo=UTC)
    except (OSError, ValueError):
        return None


def taken_last(lab: Lab, folder: Path) -> dict[str, dict[str, str]]:
    """What submitted/<lab>.import.csv says of each student's submission that was taken last; empty if nothing was."""
    log = folder / "submitted" / f"{lab.name}.import.csv"
    if not log.is_file():
        return {}
    with log.open(newline="", encoding="utf-8") as file:
        rows = [{key: as_written(value) for key, value in row.items()} for row in csv.DictReader(file)]
    return {row["student"]: row for row in rows if row["what"] == "taken"}


def _log(lab: Lab, archive: Path, submitted: Path, collection: Collection) -> None:
    """Append what was taken and refused to submitted/<lab>.import.csv."""
    submitted.mkdir(parents=True, exist_ok=True)
    path, now = submitted / f"{lab.name}.import.csv", datetime.now(UTC).strftime(TIME_FORMAT)
    is_new = not path.exists()
    rows = [[t.student, t.path, "taken", "late" if t.late else "", t.note] for t in collection.taken]
    rows += [["", path, "refused", "", reason] for path, reason in collection.refused]
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(["imported_at", "archive", "student", "file", "what", "late", "remark"])
        writer.writerows([now, *map(harmless, [archive.name, *row])] for row in rows)
