"""Grades into the roster that a learning management system exported; nothing else in that file changes.

A student of ours is the folder in submitted/. It is compared with every column that identifies a student in the roster
(Canvas: ID, SIS User ID, SIS Login ID; Moodle: the number in Identifier, ID number, user name, e-mail address;
Gradescope: SID, e-mail address), without regard to case; the part of an e-mail address before the @ counts when nothing
else fits. Names are never compared: two people may share one. Whoever fits no row or several is listed and left out.

A grade is written when the outcome counts and every point is decided. Otherwise an empty field stays empty, never 0,
and the reason stands where the format has a place for it and nobody has written there; a grade that is in the roster
already (an earlier one, or one that a person entered) stays and is listed: only a grade replaces a grade.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from course_admin.grading.results import Result
from course_admin.lms.rosters import Layout, layout_of, number
from course_admin.lms.table import Table, harmless
from course_admin.paths import CourseError, Lab

FORMATS = ("canvas", "moodle", "gradescope")
NOT_GRADED = "Not graded: "  # begins every reason in a roster, so that the next export knows it again


@dataclass
class Export:
    """The new file's bytes, and what became of whom. Pairs are (student, why)."""

    content: bytes = b""
    written: list[str] = field(default_factory=list)
    blank: list[tuple[str, str]] = field(default_factory=list)
    kept: list[tuple[str, str]] = field(default_factory=list)  # what stood in the roster was left there
    unmatched: list[tuple[str, str]] = field(default_factory=list)
    without_record: list[str] = field(default_factory=list)  # rows of the roster that no record belongs to


def export_grades(
    results: list[Result],
    lab: Lab,
    roster: Path,
    format: str,
    *,
    column: str | None = None,
    partial: bool = False,
    scale: bool = False,
) -> Export:
    """Fill the lab's grades into a roster.

    Args:
        results: the records of the class.
        lab: the lab.
        roster: the file that the system exported.
        format: one of FORMATS.
        column: name of the grade's column, when it is not the obvious one.
        partial: export the points reached so far where written answers are not marked yet.
        scale: convert to the points that the system expects, when these differ from the lab's.

    Returns:
        The new file and what became of whom.

    Raises:
        CourseError: if the roster is not of that format, or expects other points and scale is not set.
    """
    table = Table.read(roster)
    layout = layout_of(format, table, lab, column)
    matches, unmatched = match_students([result.student for result in results], table, layout)
    export = Export(unmatched=unmatched)
    for result in results:
        if result.student in matches:
            _fill(table, layout, matches[result.student], result, export, partial=partial, scale=scale)
    taken = set(matches.values())
    export.without_record = [_label(table, layout, record) for record in layout.students if record not in taken]
    export.content = bytes(table)
    return export


def match_students(students: list[str], table: Table, layout: Layout) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """(record of each student that fits exactly one row, the others with the reason)."""
    sure, local = _keys(table, layout)
    found, unmatched = {}, []
    for student in students:
        records = sure.get(student.casefold()) or local.get(student.casefold()) or set()
        if len(records) == 1:
            found[student] = next(iter(records))
        else:
            unmatched.append((student, f"{len(records) or 'no'} rows of the roster fit"))
    for record in set(found.values()):
        rivals = [student for student in found if found[student] == record]
        if len(rivals) > 1:
            unmatched += [(s, f"{' and '.join(rivals)} fit the same row of the roster") for s in rivals]
            found = {student: place for student, place in found.items() if student not in rivals}
    return found, unmatched


def _keys(table: Table, layout: Layout) -> tuple[dict[str, set[int]], dict[str, set[int]]]:
    """(records by identifying value, records by the local part of an e-mail address)."""
    sure, local = defaultdict(set), defaultdict(set)
    for record in layout.students:
        for column in layout.keys:
            value = table.value(record, column).strip().casefold()
            value = value.removeprefix("participant ").strip()
            if value:
                sure[value].add(record)
                if "@" in value:
                    local[value.partition("@")[0]].add(record)
    return sure, local


def _fill(
    table: Table, layout: Layout, record: int, result: Result, export: Export, *, partial: bool, scale: bool
) -> None:
    """Write one student's grade, or leave it blank."""
    present, reason = table.value(record, layout.grade).strip(), blank_reason(result, partial)
    why = ""
    if present in layout.kept:
        why = f"it says {present}"
    elif layout.locked(record):
        why = "the system says that it cannot be changed"
    elif reason and number(present) is not None:
        why = f"it says {present}, and there is no new grade: {reason}"
    if why:
        export.kept.append((result.student, why))
        return
    if reason:
        export.blank.append((result.student, reason))
    else:
        export.written.append(result.student)
    points = "" if reason else _points(table, layout, record, result, scale)
    table.set(record, layout.grade, points)
    if layout.reason is not None:
        _set_reason(table, record, layout.reason, reason)
    if layout.status is not None:
        status = "Missing" if result.outcome == "missing" else "Ungraded" if reason else "Graded"
        table.set(record, layout.status, status)
        table.set(record, table.values(0).index("Max Points"), _shown(_maximum(table, layout, record, result)))


def _set_reason(table: Table, record: int, column: int, reason: str) -> None:
    """Write why there is no grade, or take an earlier reason of ours away; what a person wrote there stays."""
    present = table.value(record, column).strip()
    if not present or present.startswith(NOT_GRADED):
        table.set(record, column, harmless(f"{NOT_GRADED}{reason}") if reason else "")


def blank_reason(result: Result, partial: bool) -> str:
    """Why a result is not exported as a number; '' when it is."""
    if not result.counts:
        return result.reason or result.outcome
    if result.waiting and not partial:
        return f"{result.waiting:g} of {result.maximum:g} points are still to be marked by hand"
    return ""


def _maximum(table: Table, layout: Layout, record: int, result: Result) -> float:
    known = layout.maximum(record)
    return result.maximum if known is None else known


def _points(table: Table, layout: Layout, record: int, result: Result, scale: bool) -> str:
    """The grade as text, in the roster's decimal notation."""
    expected = _maximum(table, layout, record, result)
    if expected != result.maximum and not scale:
        raise CourseError(
            f"the roster expects {expected:g} points, {result.lab} has {result.maximum:g}; change it there, or convert "
            "with --scale"
        )
    points = result.points * (expected / result.maximum if scale and result.maximum else 1.0)
    return _shown(points).replace(".", "," if _decimal_comma(table, layout) else ".")


def _shown(points: float) -> str:
    return f"{points:.2f}".rstrip("0").rstrip(".")


def _decimal_comma(table: Table, layout: Layout) -> bool:
    """Whether numbers in the grade's column, or the expected points anywhere, are written like 65,00."""
    values = [table.value(record, layout.grade) for record in range(1, len(table.raw))]
    values += [value for record in range(1, len(table.raw))[:3] for value in table.values(record)]
    return any("," in value and number(value) is not None for value in values)


def _label(table: Table, layout: Layout, record: int) -> str:
    names = [table.value(record, column) for column in layout.names]
    keys = [table.value(record, column) for column in layout.keys]
    return " ".join(filter(None, names)).strip() or next(filter(None, keys), f"row {record + 1}")
