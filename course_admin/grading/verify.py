"""From what a submission's kernel wrote down to points. Runs in the driver, where no student's code runs."""

from __future__ import annotations

import ast
import re
from typing import Any

from course_admin.grading.kit import Kit, PlanCell
from course_admin.grading.reference import Records
from course_admin.grading.repair import same_text
from course_admin.grading.results import CellResult, CheckResult, printable
from course_utils.checks import judge
from course_utils.checks.compare import Problem
from course_utils.checks.judging import Outcome, fraction_of_points

LONGEST = 200  # characters of a problem; part of it may come from the student's process
STOPPED = {
    "timed out": "stopped: it ran too long",
    "crashed": "the kernel ended here",
    "out of memory": "stopped: too much memory",
    "too many processes": "stopped: too many processes",
    "output too large": "stopped: too much output",
    "tampered": "stopped",
    "not run": "not reached",
}


def verify(execution: dict, expected: Records, kit: Kit) -> tuple[CellResult, ...]:
    """The result of every graded cell.

    Args:
        execution: what a worker answered.
        expected: the instructor's records.
        kit: the lab.

    Returns:
        Results in the order of the released notebook. Points are None for written answers that wait for a person and
        for cells that could not be graded.
    """
    answers = _answers(execution)
    return tuple(
        _checked(cell, execution.get("cells", {}).get(cell.name) or {}, expected[cell.name])
        if cell.is_check
        else _written(cell, answers.get(cell.name))
        for cell in kit.cells
        if cell.grade
    )


def outcomes_of(execution: dict, name: str, expected: Records) -> list[Outcome]:
    """The judged checks of one graded cell; every one failed where there is no record."""
    return _outcomes(execution.get("cells", {}).get(name) or {}, expected[name])


def _outcomes(found: dict, expected: dict) -> list[Outcome]:
    record, state = found.get("record"), found.get("state", "not run")
    if isinstance(record, dict):
        return judge(record, expected)
    raised = str(found.get("raised", ""))[:60]
    kind = STOPPED.get(state) or (f"the cell raised {raised}" if raised else "no result was recorded")
    problem = Problem(kind, kind)
    return [Outcome(item["name"], problem, "", "", item["hint"]) for item in expected["checks"]]


def _checked(cell: PlanCell, found: dict, expected: dict) -> CellResult:
    outcomes = _outcomes(found, expected)
    stopped = found.get("state", "not run") in STOPPED
    points = None if stopped else fraction_of_points(tuple(outcomes), cell.points)
    visible = _is_visible(cell.source)
    checks = tuple(
        CheckResult(
            outcome.name,
            outcome.passed,
            printable(outcome.problem.kind, LONGEST) if outcome.problem else "",
            outcome.hint,
            visible(outcome.name),
        )
        for outcome in outcomes
    )
    return CellResult(cell.name, points, cell.points, checks, round(float(found.get("seconds", 0.0)), 4))


def _is_visible(released: str) -> Any:
    """A function that says whether a check of this name stands in the released cell."""
    tree = ast.parse(released)
    exact = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    patterns = [_pattern(node) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    return lambda name: name in exact or any(pattern.fullmatch(name) for pattern in patterns)


def _pattern(node: ast.JoinedStr) -> re.Pattern:
    parts = (re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".*" for part in node.values)
    return re.compile("".join(parts), re.DOTALL)


def _answers(execution: dict) -> dict[str, str]:
    """The text of every named cell of the repaired notebook."""
    cells = execution["notebook"]["cells"]
    return {cell["metadata"].get("nbgrader", {}).get("grade_id", ""): cell["source"] for cell in cells}


def _written(cell: PlanCell, answer: str | None) -> CellResult:
    """A written answer that was left as released is worth nothing, as nbgrader has it; any other waits for a person."""
    untouched = answer is None or same_text(answer, cell.source)
    return CellResult(cell.name, 0.0 if untouched else None, cell.points)
