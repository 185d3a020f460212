"""Feedback pages: what a student sees, what nobody sees, and that a page is only text and pictures."""

from __future__ import annotations

import base64
import html.parser

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from course_admin.grading.feedback import NO_OUTPUTS, WITHHELD, Feedback, digest_in, write_page
from course_admin.grading.results import CellResult, CheckResult, Result

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 40).decode()
SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(1)>"
HIDDEN = 'check.equal("hidden", lambda: f(np.array([7.0, 8.0])), [77, 88])'
INSTRUCTOR = new_notebook(
    cells=[
        new_code_cell(f"check = Checks('f')\n### BEGIN HIDDEN TESTS\n{HIDDEN}\n### END HIDDEN TESTS\ncheck.score(points=2)"),
        new_code_cell("def f(x):\n    ### BEGIN SOLUTION\n    return 11 * x + secret_constant\n    ### END SOLUTION"),
    ]
)  # fmt: skip
RESULT = Result(
    "ada", "lab1", "graded",
    cells=(
        CellResult("check_f", 1.0, 2.0, (
            CheckResult("visible", True), CheckResult("hidden", False, "wrong value", "mind the sign", False))),
        CellResult("answer_why", None, 3.0),
    ),
    repairs=("the file had a byte-order mark",),
)  # fmt: skip


def notebook(*outputs: dict, source: str = "f(1)") -> dict:
    cell = {"cell_type": "code", "metadata": {}, "source": source, "outputs": list(outputs)}
    return {"cells": [cell]}


def stream(text: str) -> dict:
    return {"output_type": "stream", "name": "stdout", "text": text}


def page(*outputs: dict, result: Result = RESULT, withhold: bool = False, **options: str) -> str:
    comments = {"answer_why": "good <i>point</i>"}
    return Feedback("Lab 1", INSTRUCTOR).page(result, notebook(*outputs, **options), comments, withhold, "abc123")


def test_a_page_shows_checks_points_hints_comments_and_own_output():
    text = page(stream("my own output"))
    for part in (
        "1 of 5 points", "3 still to be marked", "visible", "wrong value", "mind the sign", "my own output",
        "good &lt;i&gt;point&lt;/i&gt;", "byte-order mark", "f(1)", "not marked yet",
    ):  # fmt: skip
        assert part in text, part


class Tags(html.parser.HTMLParser):
    """Collects tags and attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.attributes = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attributes}


@pytest.mark.parametrize(
    "output",
    [
        stream(SCRIPT),
        stream("\x1b[31m" + SCRIPT + "\x1b[0m\x00"),
        {"output_type": "error", "ename": SCRIPT, "evalue": SCRIPT, "traceback": []},
        {"output_type": "display_data", "data": {"text/html": SCRIPT, "text/plain": SCRIPT}, "metadata": {}},
        {"output_type": "display_data", "data": {"image/png": '"><script>'}, "metadata": {}},
        {"output_type": "display_data", "data": {"image/png": base64.b64encode(b"<svg/>").decode()}, "metadata": {}},
        {"output_type": "display_data", "data": {"image/svg+xml": "<svg onload=alert(1)>"}, "metadata": {}},
    ],
)
def test_no_output_becomes_markup(output):
    evil = Result(
        SCRIPT, "lab1", "crashed", SCRIPT, (CellResult("check_" + SCRIPT, 0.0, 1.0, (CheckResult("c", False, SCRIPT),)),)
    )
    for text in (page(output, source=SCRIPT), page(output, result=evil)):
        found = Tags(text)
        assert not found.tags & {"script", "svg", "iframe", "object", "embed", "link", "form"}
        assert not [name for name in found.attributes if name.startswith("on")]
        assert "img" not in found.tags


def test_pictures_are_shown():
    picture = {"output_type": "display_data", "data": {"image/png": PNG, "text/plain": "<Figure>"}, "metadata": {}}
    assert f'src="data:image/png;base64,{PNG}"' in page(picture)


@pytest.mark.parametrize(
    "text",
    [
        HIDDEN,
        repr([HIDDEN]),
        HIDDEN.replace(" ", "\n  "),
        "return 11 * x + secret_constant",
        repr({"source": f"x\n{HIDDEN}\ny"}),
    ],
)
def test_an_output_that_quotes_hidden_lines_is_left_out(text):
    made = page(stream(text))
    assert WITHHELD in made
    for secret in ("77, 88", "secret_constant"):
        assert secret not in made


def test_outputs_can_be_left_out_altogether():
    made = page(stream("anything"), withhold=True)
    assert NO_OUTPUTS in made
    assert "anything" not in made


def test_the_digest_is_found_again(tmp_path):
    path = tmp_path / "a" / "page.html"
    assert digest_in(path) == ""
    write_page(page(), path)
    assert digest_in(path) == "abc123"


def test_the_instructors_notebook_is_a_valid_one():
    nbformat.validate(INSTRUCTOR)
