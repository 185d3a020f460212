"""The report as one HTML file: no script, no network, nothing from a submission unescaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape

from course_admin.class_report import plots
from course_admin.class_report.statistics import (
    MIN_FOR_DISCRIMINATION,
    MIN_FOR_PERCENT,
    MIN_FOR_SPREAD,
    CheckStatistics,
    ClassStatistics,
    quartiles,
    remarks,
    seconds_of,
    share,
)
from course_admin.grading.results import Result, short

STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 62rem; margin: 2rem auto; padding: 0 1.2rem }
h1 { font-size: 1.7rem; margin-bottom: 0 } h2 { font-size: 1.25rem; margin: 2.4rem 0 .4rem }
.faint { color: #666; font-size: .9rem } p { max-width: 48rem }
.tiles { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.2rem 0 }
.tile { border: 1px solid #ddd; border-radius: 6px; padding: .5rem 1rem; min-width: 7rem }
.tile b { display: block; font-size: 1.5rem; font-weight: 600 }
ul.first { border-left: 4px solid #D55E00; background: #fff6f0; padding: .7rem 1.2rem .7rem 2.2rem; max-width: 48rem }
table { border-collapse: collapse; font-size: .9rem; margin: .6rem 0 } svg { max-width: 100%; height: auto }
th, td { text-align: left; padding: .22rem .9rem .22rem 0; vertical-align: top; border-bottom: 1px solid #eee }
th { font-weight: 600; border-bottom: 1px solid #999 } td.n, th.n { text-align: right; white-space: nowrap }
.bar { display: inline-flex; width: 9rem; height: .8rem; background: #f4f4f4; vertical-align: middle }
.bar i { display: block; height: 100% } .bad { color: #a33b00; font-weight: 600 }
th { vertical-align: bottom } th span[title] { writing-mode: vertical-rl; transform: rotate(180deg) }
details td:first-child { width: 23rem } details td:nth-child(3) { width: 9rem }
summary { cursor: pointer; padding: .2rem 0 } details { margin: .15rem 0 } .wide { overflow-x: auto }
nav a { margin-right: 1rem } @media print { nav { display: none } details > * { display: block } }
"""


def report_page(found: ClassStatistics, title: str, now: datetime, marked_late: Iterable[str] = ()) -> str:
    """The whole page.

    Args:
        found: the numbers of the class.
        title: the lab's title and name.
        now: when the report is made; shown.
        marked_late: students whose submission the learning management system called late, without saying when it came.

    Returns:
        HTML text that needs nothing else.
    """
    only_marked = sorted(set(marked_late) - {result.student for result in found.late})
    sections = {
        "Scores": _scores(found),
        "Exercises": _exercises(found),
        "Checks": _checks(found),
        "Failed most": _failed_most(found),
        "Outcomes": _outcomes(found),
        "Late work": _late(found, only_marked),
        "Flags": _remarks_table(found, "flags", "Nothing looked like tampering."),
        "Repairs": _remarks_table(found, "repairs", "Every submission could be graded as it was handed in."),
        "Time": _time(found),
        "Students": _students(found),
    }
    tiles = _tiles(found, len(found.late) + len(only_marked))
    links = "".join(f'<a href="#{_anchor(name)}">{name}</a>' for name in sections)
    body = "".join(f'<h2 id="{_anchor(name)}">{name}</h2>{text}' for name, text in sections.items())
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}: report</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>'
        f'<h1>{escape(title)}</h1><p class="faint">Report of {now:%d %B %Y, %H:%M}. For instructors only: it names '
        f"hidden checks.</p>{tiles}<nav>{links}</nav>{_first(found)}{body}</body></html>\n"
    )


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], numeric: Iterable[int] = ()) -> str:
    """A table; cells are HTML already. numeric are the columns that are set to the right."""
    right = set(numeric)
    cell = [' class="n"' if j in right else "" for j in range(len(header))]
    head = "".join(f"<th{cell[j]}>{name}</th>" for j, name in enumerate(header))
    lines = ["".join(f"<td{cell[j]}>{text}</td>" for j, text in enumerate(row)) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _tiles(found: ClassStatistics, n_late: int) -> str:
    points, middle = found.points, quartiles(found.points)
    shown = [(str(len(found.results)), "submissions"), (str(len(points)), "with a grade")]
    if middle:
        shown.append((f"{middle[1]:g}", f"median of {found.maximum:g}"))
        shown.append((f"{middle[0]:g} to {middle[2]:g}", "middle half"))
    shown += [(str(n_late), "late"), (str(sum(bool(result.flags) for result in found.results)), "flagged")]
    return '<div class="tiles">' + "".join(f'<div class="tile"><b>{n}</b>{word}</div>' for n, word in shown) + "</div>"


def _first(found: ClassStatistics) -> str:
    if not found.results:
        return "<p>There is no record of this lab yet. Run <code>course grade</code> first.</p>"
    lines = remarks(found)
    if not lines:
        return "<p>Nothing needs your attention first.</p>"
    return '<h2 id="first">Look at this first</h2><ul class="first">' + "".join(map(_item, lines)) + "</ul>"


def _item(text: str) -> str:
    return f"<li>{escape(text)}</li>"


def _scores(found: ClassStatistics) -> str:
    if not found.points:
        return "<p>No submission has a grade.</p>"
    n_waiting = sum(bool(result.waiting) for result in found.counted)
    note = f" Written answers of {n_waiting} of them are not marked yet, and count nothing so far." if n_waiting else ""
    if picture := plots.score_distribution(found):
        return f"<p>{len(found.points)} graded submissions.{note}</p>{picture}"
    points = ", ".join(f"{value:g}" for value in sorted(found.points))
    few = f"Fewer than {MIN_FOR_SPREAD} graded submissions: no distribution. Points of {found.maximum:g}: {points}."
    return f"<p>{few}{note}</p>"


def _exercises(found: ClassStatistics) -> str:
    if len(found.counted) < MIN_FOR_PERCENT:
        return f"<p>Shown from {MIN_FOR_PERCENT} graded submissions on.</p>"
    return plots.points_by_cell(found.cells)


def _checks(found: ClassStatistics) -> str:
    if not found.checks:
        return "<p>No check was made.</p>"
    text = (
        "<p>Green passed, vermilion wrong, grey not written. <b>r</b> is the point-biserial correlation of passing the "
        "check with the student's points in all <em>other</em> exercises, "
        "r = (mean of those who passed &minus; mean of those who failed) / s &middot; &radic;(p(1 &minus; p)): "
        "near 0 the check says little about a student, below 0 look at the check itself. It is shown from "
        f"{MIN_FOR_DISCRIMINATION} students on (with so many its 95 % interval still reaches &plusmn;0.44), and a dash "
        "stands where everybody passed or failed.</p>"
    )
    cells = dict.fromkeys(check.cell for check in found.checks)
    parts = [_checks_of(cell, [check for check in found.checks if check.cell == cell]) for cell in cells]
    return text + plots.difficulty_and_discrimination(found.checks) + "".join(parts)


def _checks_of(cell: str, checks: list[CheckStatistics]) -> str:
    rows = [
        [
            escape(check.name) + ("" if check.visible else ' <span class="faint">(hidden)</span>'),
            plots.check_bar(check),
            share(check.n_passed, check.n),
            str(check.n_unfinished or ""),
            _r(check),
        ]
        for check in checks
    ]
    table = _table(["check", "", "passed", "not written", "r"], rows, numeric=(2, 3, 4))
    worst = min(check.n_passed / check.n for check in checks)
    is_open = " open" if worst < 0.5 else ""
    title = f"<b>{escape(short(cell))}</b>, {len(checks)} check{'s' * (len(checks) > 1)}"
    return f"<details{is_open}><summary>{title}</summary>{table}</details>"


def _r(check: CheckStatistics) -> str:
    if check.r is None:
        return "&ndash;"
    shown = f"{check.r:.2f}".replace("-", "&minus;")
    return f'<span class="bad">{shown}</span>' if check.r < 0 else shown


def _failed_most(found: ClassStatistics) -> str:
    wrong = sorted((check for check in found.checks if check.n_wrong), key=lambda c: (-c.n_wrong / c.n, c.cell, c.name))
    if not wrong:
        return "<p>Nobody who wrote something got a check wrong.</p>"
    rows = [
        [
            f"<b>{escape(short(check.cell))}</b>: {escape(check.name)}",
            share(check.n_wrong, check.n),
            "<br>".join(f"{count} &times; {escape(problem[:160])}" for problem, count in check.problems),
            escape(check.hint),
        ]
        for check in wrong[:12]
    ]
    return "<p>Wrong answers, without those that were not written.</p>" + _table(
        ["check", "wrong", "what happened", "hint"], rows, numeric=(1,)
    )


def _outcomes(found: ClassStatistics) -> str:
    if not found.results:
        return "<p>None.</p>"
    n = len(found.results)
    rows = [[escape(outcome), share(count, n)] for outcome, count in found.outcomes.items()]
    text = _table(["outcome", "submissions"], rows, numeric=(1,))
    if found.uncounted:
        lost = [[escape(r.student), escape(r.outcome), escape(r.reason), _earned(r)] for r in found.uncounted]
        text += "<p>Exported as blank, with the reason; points earned before things went wrong are kept.</p>"
        text += _table(["student", "outcome", "reason", "points earned"], lost, numeric=(3,))
    return text


def _earned(result: Result) -> str:
    return f"{result.points:g} of {result.maximum:g}" if result.cells else ""


def _late(found: ClassStatistics, only_marked: list[str]) -> str:
    if not found.late and not only_marked:
        return "<p>Nothing came late, as far as submission times are known.</p>"
    rows = [[escape(r.student), escape(_moment(r.submitted_at)), duration(r.seconds_late)] for r in found.late]
    rows += [[escape(student), "no time known", "marked late"] for student in only_marked]
    return _table(["student", "handed in", "late by"], rows, numeric=(2,))


def _moment(text: str) -> str:
    """'21 November 2026, 02:03 UTC' of an ISO 8601 time; any other text as it is."""
    try:
        return f"{datetime.fromisoformat(text):%d %B %Y, %H:%M %Z}".rstrip()
    except ValueError:
        return text


def duration(seconds: float) -> str:
    """'2 d 3 h', '45 min', '12 s'."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} d {hours % 24} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"


def _remarks_table(found: ClassStatistics, field: str, nothing: str) -> str:
    rows = [[escape(result.student), "<br>".join(map(escape, getattr(result, field)))] for result in found.results]
    rows = [row for row in rows if row[1]]
    return _table(["student", field], rows) if rows else f"<p>{nothing}</p>"


def _time(found: ClassStatistics) -> str:
    timed = sorted(((seconds_of(result), result.student) for result in found.results), reverse=True)
    timed = [(seconds, student) for seconds, student in timed if seconds > 0]
    if not timed:
        return "<p>No times were recorded.</p>"
    middle = quartiles([seconds for seconds, _ in timed])
    text = f"median {middle[1]:.1f} s, half of them between {middle[0]:.1f} s and {middle[2]:.1f} s; " if middle else ""
    slowest = ", ".join(f"{escape(student)} {seconds:.1f} s" for seconds, student in timed[:3])
    total = duration(sum(seconds for seconds, _ in timed))
    summary = f"<p>A submission: {text}slowest: {slowest}. All together {total}, on however many workers.</p>"
    return summary + plots.seconds_by_cell(found.cells)


def _students(found: ClassStatistics) -> str:
    if not found.results:
        return "<p>None.</p>"
    head = [f'<span title="{escape(cell.name)}">{escape(short(cell.name))}</span>' for cell in found.cells]
    rows = []
    for result in found.results:
        points = {cell.name: cell.points for cell in result.cells}
        shown = [_points(points, cell.name) for cell in found.cells]
        total = f"<b>{result.points:g}</b>" if result.counts else "&ndash;"
        to_mark = f"{result.waiting:g}" if result.counts and result.waiting else ""
        rows.append([escape(result.student), total, to_mark, escape(result.outcome), *shown])
    numeric = (1, 2, *range(4, 4 + len(head)))
    return _table(["student", "points", "to mark", "outcome", *head], rows, numeric)


def _points(points: dict[str, float | None], name: str) -> str:
    if name not in points:
        return ""
    return "&middot;" if points[name] is None else f"{points[name]:g}"
