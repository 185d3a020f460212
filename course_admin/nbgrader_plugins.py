"""Three small preprocessors and a filter that nbgrader_config.py adds to nbgrader's own.

NamedStubs lets every released stub name its lab and task. HideHiddenTests keeps the source of hidden tests out of the
feedback that students read (nbgrader's own feedback shows it). FairOutputs makes the score decide and nothing else.
safe_markdown keeps scripts in written answers away from the browser of whoever marks them.
"""

from __future__ import annotations

import re
from typing import Any

import bleach
from jinja2 import pass_context
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat.v4 import new_output
from nbgrader import utils
from nbgrader.preprocessors import ClearSolutions, NbGraderPreprocessor

from course_admin.build.markers import BEGIN_HIDDEN, END_HIDDEN

HIDDEN_REGION = re.compile(rf"{BEGIN_HIDDEN}.*?({END_HIDDEN}|\Z)", re.DOTALL)


MORE_TAGS = "p pre h1 h2 h3 h4 h5 h6 img table thead tbody tr th td br hr div span del sup sub"
TAGS = bleach.ALLOWED_TAGS | set(MORE_TAGS.split())
LINK = re.compile(r"(https?://|mailto:|#)\S*")
PICTURE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=\s]*")


@pass_context
def safe_markdown(context: Any, source: str) -> str:
    """Render a text cell without anything that runs or loads: a student's answer, in the instructor's browser.

    Formgrader shows pages from the address of the instructor's own Jupyter server; a script in one could start kernels.

    Args:
        context: the page's; its `cell` holds pasted pictures.
        source: Markdown, with HTML and formulas in it.

    Returns:
        HTML with plain formatting, links to http, https and mailto, and PNG and JPEG pictures that are in the cell.
    """
    attachments = context.get("cell", {}).get("attachments", {})
    html = MarkdownWithMath(renderer=IPythonRenderer(escape=False, attachments=attachments)).render(source)
    return bleach.clean(html, tags=TAGS, attributes=_harmless, protocols={"http", "https", "mailto", "data"})


def _harmless(tag: str, name: str, value: str) -> bool:
    if tag == "img":
        return name == "alt" or (name == "src" and PICTURE.fullmatch(value) is not None)
    if tag == "a":
        return name == "title" or (name == "href" and LINK.fullmatch(value) is not None)
    return name == "class" and tag in ("div", "span", "pre", "code")


class NamedStubs(ClearSolutions):
    """ClearSolutions with the stub that `course build` wrote into the cell's metadata, where there is one.

    Also drops the saved state of widgets, which nbgrader would release together with the pictures in it.
    """

    def preprocess(self, nb: Any, resources: Any) -> tuple[Any, Any]:
        nb.metadata.pop("widgets", None)  # the state of the instructor's widgets, pictures included
        return super().preprocess(nb, resources)

    def preprocess_cell(self, cell: Any, resources: Any, cell_index: int) -> tuple[Any, Any]:
        stub = cell.metadata.pop("course", {}).get("stub")
        if stub is None:
            return super().preprocess_cell(cell, resources, cell_index)
        kept = self.code_stub, self.text_stub
        self.code_stub, self.text_stub = {**self.code_stub, "python": stub}, stub
        try:
            return super().preprocess_cell(cell, resources, cell_index)
        finally:
            self.code_stub, self.text_stub = kept


class HideHiddenTests(NbGraderPreprocessor):
    """Cut the hidden regions out of graded cells, keeping one line that says so. Never fails on a student's text."""

    def preprocess_cell(self, cell: Any, resources: Any, cell_index: int) -> tuple[Any, Any]:
        if utils.is_grade(cell):
            cell.source = HIDDEN_REGION.sub("# more checks ran here when this was graded", cell.source)
            for output in cell.get("outputs", []):
                if output.output_type == "error":  # a traceback quotes the lines of the cell
                    output.traceback = [f"{output.ename}: {output.evalue}"]
        return cell, resources


class FairOutputs(NbGraderPreprocessor):
    """After execution: a warning on stderr takes no points, a graded cell that shows no score gets none.

    nbgrader gives 0 points to a graded cell with output on stderr, and full points to one without any result.
    """

    def preprocess_cell(self, cell: Any, resources: Any, cell_index: int) -> tuple[Any, Any]:
        if cell.cell_type != "code" or not utils.is_grade(cell):
            return cell, resources
        for output in cell.outputs:
            if output.output_type == "stream":
                output.name = "stdout"
        if not any(output.output_type in ("execute_result", "error") for output in cell.outputs):
            cell.outputs.append(new_output("error", ename="NoScore", evalue="the cell showed no score", traceback=[]))
        return cell, resources
