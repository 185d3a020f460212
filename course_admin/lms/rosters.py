"""The three files into which grades go, as the learning management systems themselves write them.

**Canvas** (Grades > Export > Export Entire Gradebook; read back by Grades > Import): one header row `Student` (or
`LastName`, `FirstName`), `ID`, `SIS User ID`, `SIS Login ID`, `Integration ID`, `Root Account` (some of them may be
missing), `Section`, then one column an assignment, called `Title (id)`, then totals. Below it there may be a row of
'Manual Posting' notes, then the row `    Points Possible`, in which read-only columns say so. `EX` is excused, `N/A`
not assigned. An unknown column would become a new assignment, so there is no place for a reason.

**Moodle** (assignment > Download grading worksheet; read back by Upload grading worksheet): `Identifier` ('Participant
123'), `Full name`, fields of the user's identity such as `Email address` and `ID number` (all of these missing with
anonymous submissions), `Status`, `Grade`, `Maximum Grade` (or `Maximum grade`), `Grade can be changed`,
`Last modified (submission)`, `Last modified (grade)`, `Feedback comments`. Moodle finds columns by their names in the
teacher's language; here they are read in English. It leaves a student's grade alone where `Grade` is blank and still
reads the feedback, which is where a reason goes.

**Gradescope** exports a table (Review Grades > Download Grades) of `First Name`, `Last Name` (or `Name`), `SID`,
`Email`, `Sections`, `Total Score`, `Max Points`, `Status`, `Submission ID`, `Submission Time`, ... and a roster without
the scores. We know of no way to read scores back from a file, so the filled table is for people and for the system it
is passed on to; a column `Reason` is added at its end.

Sources: instructure/canvas-lms, lib/gradebook_exporter.rb and lib/gradebook_importer.rb; moodle/moodle,
mod/assign/gradingtable.php and mod/assign/feedback/offline/importgradeslib.php; files that Gradescope has exported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from course_admin.lms.table import Table
from course_admin.paths import CourseError, Lab

CANVAS_KEYS = ("ID", "SIS User ID", "SIS Login ID", "Integration ID")
CANVAS_TOTAL = re.compile(r"(Current|Final|Override) (Score|Points|Grade|Status)")
CANVAS_ID = re.compile(r" \(\d+\)$")
MOODLE_KEYS = ("identifier", "id number", "username", "email address")
GRADESCOPE_KEYS = ("SID", "Email")


@dataclass(frozen=True)
class Layout:
    """Where things are in a roster's table.

    students are record numbers; keys are columns that identify a student, from the surest to the least sure; maximum
    gives the points that the system expects for a record, None where it does not say; words in kept stay as they are.
    """

    students: list[int]
    keys: list[int]
    names: list[int]
    grade: int
    maximum: Callable[[int], float | None]
    reason: int | None = None
    status: int | None = None
    locked: Callable[[int], bool] = lambda record: False
    kept: frozenset[str] = field(default_factory=frozenset)


def layout_of(format: str, table: Table, lab: Lab, column: str | None) -> Layout:
    """The layout of a roster.

    Args:
        format: "canvas", "moodle" or "gradescope".
        table: the file; Gradescope's may get new columns at its end.
        lab: the lab whose column is wanted.
        column: name of the grade's column, when it is not the obvious one.

    Returns:
        Where things are in the table.

    Raises:
        CourseError: if the file is not one of that format, or the column cannot be told.
    """
    return {"canvas": _canvas, "moodle": _moodle, "gradescope": _gradescope}[format](table, lab, column)


def number(text: str) -> float | None:
    """'65', '65.00' or '65,00' as a number; None for anything else."""
    return float(text.strip().replace(",", ".")) if re.fullmatch(r"\s*\d+([.,]\d+)?\s*", text) else None


def _require(header: list[str], names: Iterable[str], system: str, advice: str) -> None:
    missing = [name for name in names if name not in header]
    if missing:
        raise CourseError(f"this is not a file of {system}: no column {', '.join(map(repr, missing))}; {advice}")


def _canvas(table: Table, lab: Lab, column: str | None) -> Layout:
    header = table.values(0)
    _require(header, ["ID", "Section"], "Canvas", "use Grades > Export > Export Entire Gradebook")
    records = range(1, len(table.raw))
    points = next((r for r in records if "Points Possible" in table.value(r, 0)), None)
    students = [r for r in records if r != points and not _is_note(table.values(r))]
    assignments = [j for j in range(header.index("Section") + 1, len(header)) if not CANVAS_TOTAL.search(header[j])]
    grade = _column(header, assignments, lab, column)
    if points is not None and "read only" in table.value(points, grade):
        raise CourseError(f"Canvas marks the column {header[grade]!r} as read only; name another one with --column")
    return Layout(
        students,
        keys=[header.index(name) for name in CANVAS_KEYS if name in header],
        names=[header.index(name) for name in ("Student", "LastName", "FirstName") if name in header],
        grade=grade,
        maximum=lambda record: None if points is None else number(table.value(points, grade)),
        kept=frozenset({"EX", "N/A"}),
    )


def _is_note(values: list[str]) -> bool:
    """A row without a student: empty, or the notes on posting that Canvas writes under the header."""
    return all(re.fullmatch(r"\s*(muted|manual posting.*)?\s*", value, re.IGNORECASE) for value in values)


def _column(header: list[str], candidates: list[int], lab: Lab, column: str | None) -> int:
    """The lab's column: the one that was named, or the only one with the lab's title or name."""
    titles = {j: CANVAS_ID.sub("", header[j]).strip() for j in candidates}
    if column is not None:
        found = [j for j in candidates if column in (header[j], titles[j])]
    else:
        title = re.compile(rf"{re.escape(lab.title)}(?!\d)|{re.escape(lab.name)}$", re.IGNORECASE)
        found = [j for j in candidates if title.match(titles[j])]
    if len(found) == 1:
        return found[0]
    known = ", ".join(repr(titles[j]) for j in candidates) or "none"
    what = f"called {column!r}" if column else f"for {lab.title}"
    raise CourseError(f"{len(found)} columns {what}; name one with --column. Assignments in the file: {known}")


def _moodle(table: Table, lab: Lab, column: str | None) -> Layout:
    header = [value.strip().casefold() for value in table.values(0)]
    advice = "use 'Download grading worksheet' of the assignment, with Moodle in English"
    _require(header, ["identifier", (column or "Grade").casefold()], "Moodle", advice)
    place = {name: j for j, name in enumerate(header)}
    maximum, changeable = place.get("maximum grade"), place.get("grade can be changed")
    return Layout(
        students=[r for r in range(1, len(table.raw)) if any(table.values(r))],
        keys=[place[name] for name in MOODLE_KEYS if name in place],
        names=[place[name] for name in ("full name", "identifier") if name in place][:1],
        grade=place[(column or "Grade").casefold()],
        maximum=lambda record: None if maximum is None else number(table.value(record, maximum)),
        reason=place.get("feedback comments"),
        locked=lambda record: changeable is not None and table.value(record, changeable).strip() == "No",
    )


def _gradescope(table: Table, lab: Lab, column: str | None) -> Layout:
    header = table.values(0)
    _require(header, ["Email"], "Gradescope", "use Review Grades > Download Grades, or the roster's download")
    if column is not None and column not in header:
        raise CourseError(f"no column is called {column!r}; columns in the file: {', '.join(map(repr, header))}")
    students = [r for r in range(1, len(table.raw)) if any(table.values(r))]
    for name in ("Total Score", "Max Points", "Status", "Reason"):
        if name not in header:
            table.set(0, len(header), name)
            header.append(name)
            for record in students:
                table.set(record, len(header) - 1, "")
    most = header.index("Max Points")
    return Layout(
        students=students,
        keys=[header.index(name) for name in GRADESCOPE_KEYS if name in header],
        names=[header.index(name) for name in ("First Name", "Last Name", "Name") if name in header],
        grade=header.index(column or "Total Score"),
        maximum=lambda record: number(table.value(record, most)),
        reason=header.index("Reason"),
        status=header.index("Status"),
    )
