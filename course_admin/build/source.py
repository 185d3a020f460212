"""Reading a lab's text source: py:percent text with three extra words after the cell marker.

# %% exercise                                  one import from course_utils, or assignments of literals
# %% check points=3                            a graded cell: Checks("name") ... check.score(points=3)
# %% [markdown] answer name=why points=4       model answer and mark scheme of a written question
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import jupytext

from course_admin.build import markers
from course_admin.build.problems import BuildError, Problem

HEADER = re.compile(r"^# %%(?P<rest>.*)$")
OPTIONS = {"exercise": set(), "check": {"points"}, "answer": {"name", "points"}}
CELL_TYPE = {"exercise": "code", "check": "code", "answer": "markdown"}


@dataclass(frozen=True)
class Cell:
    """One cell of a text source. line is that of its `# %%` header; number counts cells from 1."""

    file: str
    number: int
    line: int
    cell_type: str
    tag: str | None
    options: dict[str, str]
    text: str

    def problem(self, message: str, line_in_cell: int = -1) -> Problem:
        """A Problem at the header, or at the given line of the cell's text (counted from 0)."""
        return Problem(self.file, self.number, self.line + 1 + line_in_cell, message)

    @property
    def points(self) -> float:
        return float(self.options["points"])


def read_source(path: Path, shown_as: str | None = None) -> list[Cell]:
    """The cells of a text source. Raises BuildError with every mistake found in headers, tags and markers."""
    text = path.read_text(encoding="utf-8")
    name = shown_as or str(path)
    headers = [(number, match) for number, line in enumerate(text.splitlines(), 1) if (match := HEADER.match(line))]
    parsed = jupytext.reads(text, fmt="py:percent").cells
    if len(parsed) != len(headers):
        message = f"{len(parsed)} cells but {len(headers)} '# %%' lines; start the file with a '# %%' line"
        raise BuildError([Problem(name, 0, 1, message)])
    cells, problems = [], []
    for number, ((line, match), cell) in enumerate(zip(headers, parsed, strict=True), 1):
        tag, options, wrong = _parse_header(match["rest"])
        found = Cell(name, number, line, cell.cell_type, tag, options, cell.source)
        cells.append(found)
        problems += [found.problem(message) for message in wrong] or list(_problems_of(found))
    if problems:
        raise BuildError(problems)
    return cells


def _parse_header(rest: str) -> tuple[str | None, dict[str, str], list[str]]:
    """(tag, options, messages) of what follows '# %%'."""
    words = rest.replace("[markdown]", " ").split()
    if not words:
        return None, {}, []
    tag, options = words[0], dict(word.partition("=")[::2] for word in words[1:])
    if tag not in OPTIONS:
        return None, {}, [f"unknown word {tag!r} after '# %%'; allowed: {', '.join(OPTIONS)}"]
    messages = []
    if options.keys() != OPTIONS[tag]:
        wanted = " ".join(f"{name}=..." for name in sorted(OPTIONS[tag])) or "no options"
        messages.append(f"'{tag}' takes {wanted}; got {' '.join(words[1:]) or 'none'}")
    points = options.get("points", "1")
    if not re.fullmatch(r"\d+(\.\d+)?", points) or float(points) <= 0:
        messages.append(f"points must be a number > 0, got {points!r}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", options.get("name", "name")):
        messages.append(f"name must be lower case with underscores, got {options['name']!r}")
    return tag, options, messages


def _problems_of(cell: Cell) -> list[Problem]:
    if cell.tag and CELL_TYPE[cell.tag] != cell.cell_type:
        return [cell.problem(f"'{cell.tag}' marks a {CELL_TYPE[cell.tag]} cell, but this is a {cell.cell_type} cell")]
    allowed = (markers.BEGIN_HIDDEN, markers.END_HIDDEN) if cell.tag == "check" else None
    found = [cell.problem(text, index) for index, text in markers.problems_in(cell.text.splitlines(), allowed)]
    if cell.tag == "check" and not found:
        found = check_problems(cell)
    if cell.tag == "answer" and not cell.text.strip():
        found.append(cell.problem("the model answer and mark scheme are missing"))
    return found


def parse(cell: Cell) -> ast.Module:
    """The syntax tree of a code cell. Raises BuildError at the line of a syntax error."""
    try:
        return ast.parse(cell.text)
    except SyntaxError as error:
        raise BuildError([cell.problem(f"syntax error: {error.msg}", (error.lineno or 1) - 1)]) from None


def check_name(cell: Cell) -> str | None:
    """The name in the cell's Checks("name"), or None."""
    for node in ast.walk(parse(cell)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Checks" and node.args:
            return getattr(node.args[0], "value", None)
    return None


def check_problems(cell: Cell) -> list[Problem]:
    """What is wrong with a graded cell: no name, no score at the end, or points that disagree with the header."""
    name = check_name(cell)
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        return [
            cell.problem('a check cell needs check = Checks("name") with a name of letters, digits and underscores')
        ]
    body = parse(cell).body
    last = body[-1].value if isinstance(body[-1], ast.Expr) else None
    is_score = isinstance(last, ast.Call) and isinstance(last.func, ast.Attribute) and last.func.attr == "score"
    if not is_score:
        return [cell.problem("the last line of a check cell must be check.score(points=...)", body[-1].lineno - 1)]
    given = [keyword.value for keyword in last.keywords if keyword.arg == "points"] + list(last.args)
    value = getattr(given[0], "value", None) if given else None
    if value != cell.points:
        return [
            cell.problem(f"score(points={value}) disagrees with points={cell.points:g} in the header", last.lineno - 1)
        ]
    lines = cell.text.splitlines()
    if not any(markers.regions(lines, markers.BEGIN_HIDDEN, markers.END_HIDDEN)):
        return [cell.problem(f"no hidden tests; put some between {markers.BEGIN_HIDDEN!r} and {markers.END_HIDDEN!r}")]
    if any(
        start < last.lineno - 1 < end for start, end in markers.regions(lines, markers.BEGIN_HIDDEN, markers.END_HIDDEN)
    ):
        return [cell.problem("check.score(...) stands inside the hidden region; students need it", last.lineno - 1)]
    return []
