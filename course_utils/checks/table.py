"""The table of passed and failed checks: HTML for Jupyter, text for terminals."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from course_utils.checks.judging import Outcome

PASSED, FAILED = "#00694d", "#b04a00"  # green and vermilion of the course palette, darkened for text on white
CELL = "text-align:left; padding:0.15em 0.8em 0.15em 0; vertical-align:top"


def headline(name: str, outcomes: tuple[Outcome, ...], value: float, points: float) -> str:
    """'soft_threshold: 4 of 6 checks passed, 2 of 3 points'."""
    passed = sum(outcome.passed for outcome in outcomes)
    return f"{name}: {passed} of {len(outcomes)} checks passed, {value:g} of {points:g} points"


def hint_helps(outcome: Outcome) -> bool:
    """A hint is about a wrong result; nobody needs it while the function is missing or not written yet."""
    return bool(outcome.hint) and outcome.problem.kind not in ("not implemented yet", "missing")


def as_text(name: str, outcomes: tuple[Outcome, ...], value: float, points: float, reveal: bool = True) -> str:
    """The table as lines of text. With reveal=False no line quotes an expected value."""
    lines = [headline(name, outcomes, value, points)]
    for outcome in outcomes:
        lines.append(f"  [{'pass' if outcome.passed else 'FAIL'}] {outcome.name}")
        if outcome.problem is not None:
            lines.append(f"         {outcome.problem.text if reveal else outcome.problem.kind}")
            lines += [f"         hint: {outcome.hint}"] * hint_helps(outcome)
    return "\n".join(lines)


def as_html(name: str, outcomes: tuple[Outcome, ...], value: float, points: float, reveal: bool = True) -> str:
    """The table as self-contained HTML; every text from outside is escaped. With reveal=False: no expected values."""
    color = PASSED if all(outcome.passed for outcome in outcomes) else FAILED
    title = escape(headline(name, outcomes, value, points))
    rows = "".join(_row(outcome, reveal) for outcome in outcomes)
    columns = ["", "check", "what happened"] if not reveal else ["", "check", "yours", "expected", "what happened"]
    head = "".join(f'<th style="{CELL}">{column}</th>' for column in columns)
    return (
        f'<div class="course-checks"><strong style="color:{color}">{title}</strong>'
        f'<table style="margin:0.3em 0"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _row(outcome: Outcome, reveal: bool) -> str:
    mark = f'<span style="color:{PASSED}; white-space:nowrap">&#10003; pass</span>'
    message = ""
    if outcome.problem is not None:
        mark = f'<strong style="color:{FAILED}; white-space:nowrap">&#10007; fail</strong>'
        message = escape(outcome.problem.text if reveal else outcome.problem.kind)
        message += f"<br><em>Hint: {escape(outcome.hint)}</em>" if hint_helps(outcome) else ""
    cells = [mark, escape(outcome.name)]
    cells += [_code(outcome.actual), _code(outcome.expected)] if reveal else []
    return "<tr>" + "".join(f'<td style="{CELL}">{cell}</td>' for cell in [*cells, message]) + "</tr>"


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"
