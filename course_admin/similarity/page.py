"""The pairs as one HTML file: a table, and for each pair the answers side by side. No script, no network."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape

from course_admin.class_report.page import STYLE
from course_admin.grading.results import short
from course_admin.similarity.fingerprints import WINDOW, Answers, K
from course_admin.similarity.pairs import COMMON, MIN_CLASS, Pair

MAX_PAIRS = 200
MORE_STYLE = """
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem } .sides > div { overflow-x: auto; min-width: 0 }
pre { font: .8rem/1.45 ui-monospace, monospace; background: #fafafa; border: 1px solid #eee; padding: .5rem; margin: 0 }
pre span { display: block; white-space: pre-wrap } pre span.hit { background: #ffe1bf } h3 { margin: 1.6rem 0 .3rem }
h4 { margin: .9rem 0 .2rem; font-weight: 600 }
"""


def similarity_page(
    title: str, pairs: Sequence[Pair], n: int, unreadable: Sequence[tuple[str, str]], now: datetime
) -> str:
    """The whole page.

    Args:
        title: the lab's title and name.
        pairs: the pairs to show, the most evidence first; only the first MAX_PAIRS are.
        n: number of submissions compared.
        unreadable: the submissions that could not be read, with the reason.
        now: when it is made; shown.

    Returns:
        HTML text that needs nothing else.
    """
    shown = pairs[:MAX_PAIRS]
    style = f"{STYLE}{MORE_STYLE}body {{ max-width: 80rem }}"
    details = "".join(_pair(number, pair) for number, pair in enumerate(shown, 1))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}: similarity</title>'
        f"<style>{style}</style></head><body><h1>{escape(title)}: similarity</h1>"
        f'<p class="faint">{now:%d %B %Y, %H:%M}. For instructors only.</p>{_words(n)}{_unreadable(unreadable)}'
        f"{_overview(shown, len(pairs))}{details}</body></html>\n"
    )


def _words(n: int) -> str:
    small = f" With only {n} submissions nothing is really rare; read this page with care." if n < MIN_CLASS else ""
    return (
        f"<p>{n} submissions compared, exercise by exercise. Names, comments, docstrings and layout do not count; a "
        f"shared stretch of {K + WINDOW - 1} tokens is found wherever it stands. What the released notebook holds, and "
        f"what more than {100 * COMMON:.0f} % of the class wrote, is no evidence. <b>Evidence</b> is the number of "
        "shared fragments, each weighed by its rarity; <b>similarity</b> is that share of the shorter one's rare "
        "fragments. People who worked together, or had the same help, look like people who copied: these are pairs "
        f"to look at, and nothing more.{small}</p>"
    )


def _unreadable(unreadable: Sequence[tuple[str, str]]) -> str:
    items = "".join(f"<li>{escape(student)}: {escape(reason)}</li>" for student, reason in unreadable)
    return f"<p>Could not be read, and were not compared:</p><ul>{items}</ul>" if items else ""


def _overview(pairs: Sequence[Pair], n_all: int) -> str:
    if not pairs:
        return "<p><b>No two submissions share more than chance would explain.</b></p>"
    rows = "".join(
        f'<tr><td><a href="#pair{number}">{escape(pair.first.student)} and {escape(pair.second.student)}</a></td>'
        f'<td class="n">{pair.evidence:.1f}</td><td class="n">{100 * pair.similarity:.0f} %</td>'
        f"<td>{escape(', '.join(short(name) for name in pair.cells))}</td></tr>"
        for number, pair in enumerate(pairs, 1)
    )
    head = '<tr><th>pair</th><th class="n">evidence</th><th class="n">similarity</th><th>in</th></tr>'
    more = f"<p>The first {len(pairs)} of {n_all} pairs.</p>" if n_all > len(pairs) else ""
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>{more}"


def _pair(number: int, pair: Pair) -> str:
    cells = "".join(
        f"<h4>{escape(short(name))}: {count} shared fragment{'s' * (count > 1)}</h4>"
        f'<div class="sides">{_side(pair.first, name, pair)}{_side(pair.second, name, pair)}</div>'
        for name, count in pair.cells.items()
    )
    names = f"{escape(pair.first.student)} and {escape(pair.second.student)}"
    return f'<h3 id="pair{number}">{names}: {100 * pair.similarity:.0f} %</h3>{cells}'


def _side(answers: Answers, name: str, pair: Pair) -> str:
    """One student's answer, the lines of shared fragments marked."""
    hit = {line for key in pair.shared if key[0] == name for line in answers.fingerprints[key]}
    lines = answers.sources[name].splitlines()
    marked = (f"<span{' class=hit' * (n in hit)}>{escape(line) or '&nbsp;'}</span>" for n, line in enumerate(lines))
    return f'<div><p class="faint">{escape(answers.student)}</p><pre>{"".join(marked)}</pre></div>'
