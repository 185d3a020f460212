"""The report's numbers as CSV: checks.csv, cells.csv, students.csv. Blank is not zero; formulas are made harmless."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from course_admin.class_report.statistics import ClassStatistics, seconds_of
from course_admin.lms.table import harmless


def report_tables(found: ClassStatistics) -> dict[str, str]:
    """File name -> CSV text, UTF-8 with a byte-order mark when written (Excel needs it), RFC 4180 quoting."""
    return {"checks.csv": _checks(found), "cells.csv": _cells(found), "students.csv": _students(found)}


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV. Numbers are written plainly, None and NaN as blank, texts so that no spreadsheet evaluates them."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerows([_text(value) for value in row] for row in [header, *rows])
    return buffer.getvalue()


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else harmless(str(value))


def _checks(found: ClassStatistics) -> str:
    header = ["cell", "check", "visible", "students", "passed", "not_written", "wrong", "fraction_passed"]
    rows = [
        [c.cell, c.name, int(c.visible), c.n, c.n_passed, c.n_unfinished, c.n_wrong, c.fraction, c.r, _most(c.problems)]
        for c in found.checks
    ]
    return csv_text([*header, "discrimination_r", "commonest_problem"], rows)


def _most(problems: tuple[tuple[str, int], ...]) -> str:
    return problems[0][0] if problems else ""


def _cells(found: ClassStatistics) -> str:
    header = ["cell", "maximum", "students_with_points", "to_mark", "mean_fraction", "median_seconds", "max_seconds"]
    rows = [
        [c.name, c.maximum, len(c.points), c.n_waiting, c.fraction, _median(c.seconds), max(c.seconds, default=None)]
        for c in found.cells
    ]
    return csv_text(header, rows)


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _students(found: ClassStatistics) -> str:
    names = [cell.name for cell in found.cells]
    header = ["student", "outcome", "points", "maximum", "to_mark", *names, "submitted_at", "seconds_late", "seconds"]
    rows = []
    for result in found.results:
        points = {cell.name: cell.points for cell in result.cells}
        maximum = result.maximum if result.cells else None
        total = [result.points, maximum, result.waiting] if result.counts else [None, maximum, None]
        texts = [" ".join(result.flags), " ".join(result.repairs), result.reason]
        known = [result.submitted_at, result.seconds_late, seconds_of(result) or None, *texts]
        rows.append([result.student, result.outcome, *total, *(points.get(name) for name in names), *known])
    return csv_text([*header, "flags", "repairs", "reason"], rows)
