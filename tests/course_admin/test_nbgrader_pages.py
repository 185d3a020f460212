"""nbgrader's own pages with our filter: what a student writes runs nowhere, and formatting stays."""

from __future__ import annotations

import pytest
from nbconvert import HTMLExporter
from nbformat.v4 import new_markdown_cell, new_notebook
from traitlets.config import PyFileConfigLoader

from tests.course_admin.conftest import ROOT

CONFIG = PyFileConfigLoader("nbgrader_config.py", path=str(ROOT)).load_config()
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def shown(source: str, **cell: dict) -> str:
    """The written answer's part of the page."""
    notebook = new_notebook(cells=[new_markdown_cell(f"begin-of-answer {source}", **cell)])
    page, _ = HTMLExporter(config=CONFIG).from_notebook_node(notebook)
    return page[page.index("begin-of-answer") :].partition("</main>")[0]


@pytest.mark.parametrize(
    ("source", "forbidden"),
    [
        ("<script>alert(1)</script>", "<script"),
        ("<SCRIPT SRC=//evil.example/x.js></SCRIPT>", "<SCRIPT"),
        ('<img src="x" onerror="alert(1)">', "onerror"),
        ('<img src="https://evil.example/pixel.png">', "evil.example"),
        ("![picture](https://evil.example/pixel.png)", 'src="https'),
        ("[click](javascript:alert(1))", "javascript:"),
        ('<a href="java&#9;script:alert(1)">click</a>', "href"),
        ('<a href="data:text/html,<script>1</script>">click</a>', "href"),
        ('<iframe src="https://evil.example"></iframe>', "<iframe"),
        ("<svg onload=alert(1)>", "<svg"),
        ('<form action="/api/kernels"><button>go</button></form>', "<form"),
        ("<style>body{background:url(//evil.example)}</style>", "<style"),
        ('<div style="background:url(//evil.example)">x</div>', "style="),
        ("$x$ <script>alert(1)</script> $$y$$", "<script"),
        ("$<script>alert(1)</script>$", "<script"),
        ("```html\n<script>alert(1)</script>\n```", "<script"),
    ],
)
def test_an_answer_runs_and_loads_nothing(source, forbidden):
    assert forbidden not in shown(source)


def test_an_answer_keeps_its_formatting_formulas_and_pasted_pictures():
    page = shown("**bold** [text](https://a.example/b)\n\n| a | b |\n|---|---|\n| 1 | $x^2 < y_1$ |\n\n- one\n")
    for part in ("<strong>bold</strong>", 'href="https://a.example/b"', "<table>", "$x^2 &lt; y_1$", "<li>one</li>"):
        assert part in page
    pasted = shown("![picture](attachment:p.png)", attachments={"p.png": {"image/png": PIXEL}})
    assert f'src="data:image/png;base64,{PIXEL}"' in pasted
