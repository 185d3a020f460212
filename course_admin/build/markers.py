"""nbgrader's region markers: the exact spellings, and everything that looks like one but is not.

nbgrader finds a region by its words and ignores what it does not recognise, so a BEGIN marker with a typo would release
the hidden tests behind it without a word. Here anything shaped like a marker must be a marker.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import SequenceMatcher

BEGIN_SOLUTION, END_SOLUTION = "### BEGIN SOLUTION", "### END SOLUTION"
BEGIN_HIDDEN, END_HIDDEN = "### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS"

_REGIONS = ("solution", "hidden tests", "mark scheme")
_SHAPES = [f"{edge}{region}".replace(" ", "") for edge in ("begin", "end") for region in _REGIONS]
_SHAPES += ["autotest", "hashedautotest"]
_WORDS = re.compile(r"\b(begin|end)[\s_-]*(solutions?|hidden[\s_-]*tests?|mark(ing)?[\s_-]*scheme)\b", re.IGNORECASE)
_COMMENT = re.compile(r"^\s*(#+|//+|<!--|%+|--|/\*)")
_SIMILAR = 0.78  # 'beginhidentest' scores 0.93 against 'beginhiddentests'; ordinary comments stay below 0.7


def looks_like_marker(line: str) -> bool:
    """True for a line that is a marker, or that a person may have meant as one, in whatever spelling."""
    if _WORDS.search(line):
        return True
    if not _COMMENT.match(line):
        return False
    letters = re.sub(r"[^a-z]", "", line.lower())
    if not 6 <= len(letters) <= 20:
        return False
    return max(SequenceMatcher(None, letters, shape).ratio() for shape in _SHAPES) >= _SIMILAR


def regions(lines: list[str], begin: str, end: str) -> Iterator[tuple[int, int]]:
    """(index of the begin line, index of the end line) of each region. Assumes that the markers pair."""
    start = None
    for index, line in enumerate(lines):
        if line.strip() == begin:
            start = index
        elif line.strip() == end and start is not None:
            yield start, index
            start = None


def problems_in(lines: list[str], allowed: tuple[str, str] | None) -> Iterator[tuple[int, str]]:
    """Lines that are shaped like a marker and wrong.

    Args:
        lines: the text.
        allowed: the (begin, end) pair that may stand here, properly paired; None when no marker may.

    Yields:
        (line index, message) of each.
    """
    open_since = None
    for index, line in enumerate(lines):
        if not looks_like_marker(line):
            continue
        text = line.strip()
        if allowed is None or text not in allowed:
            may = f"allowed here: {allowed[0]!r} and {allowed[1]!r}" if allowed else "no marker may stand in this cell"
            yield index, f"{text!r} is shaped like a marker; {may}"
        elif text == allowed[0]:
            if open_since is not None:
                yield index, f"{text!r} inside the region that begins at line {open_since + 1} of the cell"
            open_since = index
        elif open_since is None:
            yield index, f"{text!r} without {allowed[0]!r} before it"
        else:
            open_since = None
    if open_since is not None:
        yield open_since, f"{allowed[0]!r} without {allowed[1]!r} after it"
