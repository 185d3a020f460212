"""The results of a class as a table for the terminal and as CSV."""

from __future__ import annotations

import csv
from pathlib import Path

from rich.table import Table

from course_admin.grading.results import CellResult, Result, short
from course_admin.lms.table import harmless
from course_utils.files import replacing

FEW_STUDENTS = 6  # up to so many students get a column each


def results_table(results: list[Result], title: str) -> Table:
    """Points of every graded cell and in total: a column a student in a small class, else a row a student."""
    few = len(results) <= FEW_STUDENTS
    return _by_exercise(results, title) if few else _by_student(results, title)


def _by_exercise(results: list[Result], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("graded cell")
    table.add_column("max", justify="right")
    for result in results:
        table.add_column(result.student, justify="right")
    maxima = _maxima(results)
    for name, maximum in maxima.items():
        table.add_row(short(name), f"{maximum:g}", *(_points(result, name) for result in results))
    table.add_section()
    table.add_row("total", f"{sum(maxima.values()):g}", *(_total(result) for result in results), style="bold")
    if any(result.waiting for result in results):
        table.add_row("still to mark by hand", "", *(_waiting(result) for result in results))
    return table


def _by_student(results: list[Result], title: str) -> Table:
    maxima = _maxima(results)
    caption = ", ".join(
        f"{number}: {short(name)} ({maximum:g})" for number, (name, maximum) in enumerate(maxima.items(), 1)
    )
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    table.add_column("student")
    for number in range(1, len(maxima) + 1):
        table.add_column(str(number), justify="right")
    table.add_column(f"total of {sum(maxima.values()):g}", justify="right")
    table.add_column("to mark", justify="right")
    for result in results:
        table.add_row(result.student, *(_points(result, name) for name in maxima), _total(result), _waiting(result))
    return table


def _maxima(results: list[Result]) -> dict[str, float]:
    return {item.name: item.maximum for result in results for item in result.cells}


def _points(result: Result, name: str) -> str:
    item = next((item for item in result.cells if item.name == name), CellResult(name, None, 0.0))
    if not result.cells:
        return "-"
    return ("to mark" if _is_written(item) else "-") if item.points is None else f"{item.points:g}"


def _is_written(item: CellResult) -> bool:
    return not item.checks


def _total(result: Result) -> str:
    return f"{result.points:g}" if result.outcome == "graded" else _outcome(result)


def _outcome(result: Result) -> str:
    """'missing', or with the points that were earned all the same: '3.5 (timed out)'."""
    shown = {"unreadable": "not graded"}.get(result.outcome, result.outcome)
    return f"{result.points:g} ({shown})" if result.cells else shown


def _waiting(result: Result) -> str:
    return f"{result.waiting:g}" if result.waiting else ""


def write_csv(results: list[Result], path: Path) -> None:
    """One row a student: points of each cell, total, maximum, points to mark, outcome, reason. Blank is not zero."""
    names = list(dict.fromkeys(item.name for result in results for item in result.cells))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["student", *names, "total", "maximum", "waiting_for_marks", "outcome", "reason"])
        for result in results:
            points = {item.name: "" if item.points is None else f"{item.points:g}" for item in result.cells}
            known = [
                result.points if result.counts else None,
                result.maximum or None,
                result.waiting if result.cells else None,
            ]
            totals = ["" if value is None else f"{value:g}" for value in known]
            words = [harmless(result.student), result.outcome, harmless(result.reason)]
            writer.writerow([words[0], *(points.get(name, "") for name in names), *totals, *words[1:]])
