"""What a student gets back: feedback/<student>/<lab>/<lab>.html, one page that needs nothing else.

It is made of the grading record, which knows no expected value and no hidden source, and of the student's own notebook.
Every text is escaped, pictures are PNG and JPEG only. An output that quotes a line of the instructor's notebook that
students do not have is left out, and so are all outputs of a notebook whose code could have read such lines.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from html import escape
from pathlib import Path

import nbformat

from course_admin.build.verify import secret_lines
from course_admin.grading.results import CellResult, CheckResult, Result, short
from course_utils.files import replacing

MOST_TEXT = 20_000  # characters of one output
MOST_PICTURE_BYTES = 3 * 2**20
ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
WITHHELD = "[This output is left out: it quotes text of the grading that is not handed out.]"
NO_OUTPUTS = "Outputs of your cells are left out, because your code looks at how or where cells are run."
POLICY = (  # no script, nothing from elsewhere, whatever should slip through
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
)
DIGEST = '<meta name="course-digest" content="{}">'

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c }
h1 { font-size: 1.6rem } h2 { font-size: 1.15rem; margin: 2rem 0 .4rem } table { border-collapse: collapse }
td, th { text-align: left; vertical-align: top; padding: .2rem 1rem .2rem 0 } td.points, th.points { text-align: right }
pre { background: #f5f5f3; padding: .6rem .8rem; overflow-x: auto; border-radius: 4px; white-space: pre-wrap }
pre.output { background: none; border-left: 3px solid #ccc } img { max-width: 100% } .pass { color: #00694d }
.pass, .fail { white-space: nowrap }
.fail { color: #b04a00; font-weight: 600 } .note { background: #fff6df; padding: .6rem .8rem; border-radius: 4px }
.hint { font-style: italic }
"""


class Feedback:
    """Writes the pages of one lab.

    Args:
        title: what the lab is called.
        instructor: the notebook whose hidden lines no page may show.
    """

    def __init__(self, title: str, instructor: nbformat.NotebookNode):
        self.title = title
        self._secrets = {_squeezed(line) for line in secret_lines(instructor)}

    def page(self, result: Result, notebook: dict | None, comments: dict[str, str], withhold: bool, digest: str) -> str:
        """The page of one student.

        Args:
            result: the record.
            notebook: the executed notebook as JSON data; None if there is none.
            comments: what people wrote, by cell.
            withhold: whether outputs are left out altogether.
            digest: of everything that the page depends on; stands in it.

        Returns:
            HTML.
        """
        title = f"{escape(self.title)}: feedback for {escape(result.student)}"
        parts = [
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">{DIGEST.format(digest)}{POLICY}',
            f"<title>{title}</title><style>{STYLE}</style></head><body><h1>{title}</h1>",
            *self._summary(result),
        ]
        for cell in result.cells:
            parts += self._cell(cell, comments.get(cell.name, ""))
        if notebook is not None:
            parts += self._notebook(notebook, comments, {cell.name for cell in result.cells if cell.checks}, withhold)
        return "\n".join([*parts, "</body></html>\n"])

    def _summary(self, result: Result) -> Iterator[str]:
        waiting = f", {result.waiting:g} still to be marked" if result.waiting else ""
        if result.cells:
            yield f"<p><strong>{result.points:g} of {result.maximum:g} points</strong>{waiting}</p>"
        if result.outcome != "graded":
            yield f'<p class="note">{escape(result.outcome.capitalize())}: {escape(result.reason)}</p>'
        if result.penalty:
            yield f'<p class="note">Handed in late: {result.penalty:g} points less.</p>'
        for repair in result.repairs:
            yield f'<p class="note">Repaired before grading: {escape(repair)}</p>'
        if result.cells:
            yield '<table><tr><th>part</th><th class="points">points</th><th class="points">of</th></tr>'
            for cell in result.cells:
                points = "&ndash;" if cell.points is None else f"{cell.points:g}"
                name = f'<a href="#{escape(cell.name, quote=True)}">{escape(short(cell.name))}</a>'
                numbers = f'<td class="points">{points}</td><td class="points">{cell.maximum:g}</td>'
                yield f"<tr><td>{name}</td>{numbers}</tr>"
            yield "</table>"

    def _cell(self, cell: CellResult, comment: str) -> Iterator[str]:
        points = "not marked yet" if cell.points is None else f"{cell.points:g} of {cell.maximum:g} points"
        yield f'<h2 id="{escape(cell.name, quote=True)}">{escape(short(cell.name))}: {points}</h2>'
        if comment:
            yield f'<p class="note">{escape(comment)}</p>'
        if cell.checks:
            yield "<table><tr><th></th><th>check</th><th>what happened</th></tr>"
            yield from map(_check, cell.checks)
            yield "</table>"

    def _notebook(self, notebook: dict, comments: dict[str, str], graded: set[str], withhold: bool) -> Iterator[str]:
        yield "<h2>Your notebook</h2>"
        if withhold:
            yield f'<p class="note">{NO_OUTPUTS}</p>'
        for cell in notebook["cells"]:
            name = cell["metadata"].get("nbgrader", {}).get("grade_id", "")
            if name in graded or (cell["cell_type"] != "code" and not name) or not cell["source"].strip():
                continue
            yield f"<h3>{escape(short(name))}</h3>" if name else ""
            yield f"<pre>{_text(cell['source'])}</pre>"
            if name and comments.get(name) and cell["cell_type"] == "code":
                yield f'<p class="note">{escape(comments[name])}</p>'
            if cell["cell_type"] == "code" and not withhold:
                yield from map(self._output, cell["outputs"])

    def _output(self, output: dict) -> str:
        if output["output_type"] == "stream":
            return self._shown(output["text"])
        if output["output_type"] == "error":
            return self._shown("\n".join(output["traceback"]) or f"{output['ename']}: {output['evalue']}")
        data = output["data"]
        for mime in ("image/png", "image/jpeg"):
            if picture := _picture(data.get(mime)):
                return f'<img alt="output of the cell" src="data:{mime};base64,{picture}">'
        return self._shown(data.get("text/plain", ""))

    def _shown(self, text: object) -> str:
        text = CONTROL.sub("", ANSI.sub("", str(text)))
        if not text.strip():
            return ""
        squeezed = _squeezed(text)
        if any(secret in squeezed for secret in self._secrets):
            return f'<pre class="output">{WITHHELD}</pre>'
        return f'<pre class="output">{_text(text)}</pre>'


def _check(check: CheckResult) -> str:
    if check.passed:
        return f'<tr><td class="pass">&#10003; pass</td><td>{escape(check.name)}</td><td></td></tr>'
    helps = check.hint and not check.unfinished
    hint = f'<br><span class="hint">Hint: {escape(check.hint)}</span>' if helps else ""
    problem = escape(CONTROL.sub("", check.problem))
    return f'<tr><td class="fail">&#10007; fail</td><td>{escape(check.name)}</td><td>{problem}{hint}</td></tr>'


def _text(text: str) -> str:
    cut = text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}\n[... {len(text) - MOST_TEXT} more characters]"
    return escape(CONTROL.sub("", cut))


def _picture(value: object) -> str:
    """Base64 text that really is a picture's, or ''."""
    if not isinstance(value, str) or len(value) > MOST_PICTURE_BYTES * 4 // 3:
        return ""
    try:
        content = base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError):
        return ""
    real = content.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"))
    return base64.b64encode(content).decode() if real else ""


def _squeezed(text: str) -> str:
    """Without white space, quotes and backslashes, so that neither line breaks nor repr() hide a quotation."""
    return re.sub(r"[\s\"'\\]", "", text)


def write_page(page: str, path: Path) -> None:
    """Write a page whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(page, encoding="utf-8", errors="replace")


def digest_in(path: Path) -> str:
    """The digest in a page that was written before; '' if there is none."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            found = re.search(r'name="course-digest" content="(\w+)"', file.read(500))
    except OSError:
        return ""
    return found[1] if found else ""
