"""What counts as tampering in a cell's source and in how it ran, and what is left of a flagged submission."""

from __future__ import annotations

import ast

import pytest

from course_admin.grading import tamper
from course_admin.grading.kernel import Run
from course_admin.grading.outputs import Outputs
from course_utils.checks.sealed import MIME_TYPE

HARMLESS = [
    "import os, sys, gc, inspect",
    "from course_utils.checks import Checks\ncheck = Checks('mine')",
    "model.eval()\nmodel.modules()",
    "%matplotlib inline\n!ls\nx = 1",
    "def f(:",
    "setattr(layer, 'weight', w)",
    "np.testing.assert_allclose(a, b)",
]
HOSTILE = [
    "get_ipython().ast_transformers.append(T())",
    "ip.input_transformer_manager.cleanup_transforms = []",
    "from course_utils import checks",
    "import course_utils.checks.sealed as s",
    "from course_utils.checks import sealed",
    "def f(x):\n    vars(sys._getframe(2).f_locals['self'])['_observations'].clear()",
    "Checks.score = lambda *a: 1",
    "import builtins\nbuiltins.abs = max",
    "np.testing.assert_allclose = print",
    f"display({{'{MIME_TYPE}': 1}}, raw=True)",
]


@pytest.mark.parametrize("source", HARMLESS)
def test_ordinary_code_is_not_flagged(source):
    assert tamper.in_source(source) == []


@pytest.mark.parametrize("source", HOSTILE)
def test_reaching_into_the_machinery_is_flagged(source):
    assert tamper.in_source(source)


RECORD = {"name": "f", "checks": [{"name": "a", "kind": "equal"}, {"name": "b", "kind": "raises"}]}
EXPECTED = [["a", "equal"], ["b", "raises"]]


@pytest.mark.parametrize(
    ("run", "flagged"),
    [
        (Run(records=[RECORD], probe="'ok'"), False),
        (Run(raised="ValueError"), False),
        (Run(ended="timed out"), False),
        (Run(probe="'ok'"), True),
        (Run(records=[RECORD, RECORD], probe="'ok'"), True),
        (Run(records=[{"checks": RECORD["checks"][:1]}], probe="'ok'"), True),
        (Run(records=["nonsense"], probe="'ok'"), True),
        (Run(records=[{"checks": [1, None]}], probe="'ok'"), True),
        (Run(records=[RECORD], probe="'abs was replaced'"), True),
        (Run(records=[RECORD], probe=""), True),
    ],
)
def test_how_a_graded_cell_ran(run, flagged):
    assert bool(tamper.in_run("check_f", run, EXPECTED)) == flagged


def test_an_ordinary_cell_leaves_no_record():
    assert tamper.in_run("cell 1", Run(), None) == []
    assert tamper.in_run("cell 1", Run(records=[RECORD]), None)


def test_only_definitions_are_left():
    source = """
%magic
import numpy as np
LIMIT = 3
WEIGHTS = [1, -2.5]
print("acts")
x = np.ones(3)
for i in range(3):
    pass
@decorated
def g(): pass
def f(x):
    return LIMIT * x
def spy(x):
    return sys._getframe(1)
def trick(x):
    return __builtins__["eval"]("1")
class A:
    pass
"""
    kept = ast.parse(tamper.only_definitions(source))
    names = [getattr(node, "name", None) or ast.unparse(node) for node in kept.body]
    assert names == ["import numpy as np", "LIMIT = 3", "WEIGHTS = [1, -2.5]", "f", "A"]
    assert tamper.only_definitions("def f(:") == ""


def test_cells_that_do_nothing_are_not_run():
    assert all(map(tamper.does_nothing, ["", "# a comment", "pass", "\n\npass\n# and\n"]))
    assert not any(map(tamper.does_nothing, ["x = 1", "%matplotlib inline", "def f(:", "f()", "!ls"]))


def test_looking_around_withholds_outputs():
    assert tamper.looks_around("import sys\nsys._getframe()")
    assert tamper.looks_around("print(In[3])")
    assert tamper.looks_around("getattr(shell, 'user_ns')")
    assert not tamper.looks_around("print(w, f(w))\nplt.plot(x)")


def test_outputs_are_cut_and_a_progress_bar_keeps_its_last_state():
    outputs = Outputs(limit=1000)
    outputs.add("stream", {"name": "stderr", "text": "10%\r50%\r100%\n"}, 20)
    outputs.add("stream", {"name": "stdout", "text": "x" * 5000}, 5000)
    outputs.add("stream", {"name": "stdout", "text": "more"}, 4)
    outputs.add("display_data", {"data": "no dict"}, 10)
    first, second = outputs.as_notebook()
    assert first["text"] == "100%\n"
    assert len(second["text"]) < 1200
    assert "the output was cut here" in second["text"]
    assert (outputs.cut, outputs.flooded) == (True, False)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("stream", {}),
        ("stream", {"name": 3, "text": None}),
        ("display_data", {}),
        ("display_data", {"data": {"text/plain": 5, 3: "x", "application/javascript": "alert(1)"}, "transient": 4}),
        ("error", {"traceback": "no list"}),
        ("execute_result", {"data": {MIME_TYPE: [1, 2]}}),
        ("update_display_data", {"data": {}, "transient": {"display_id": []}}),
        ("nonsense", {"x": 1}),
    ],
)
def test_any_message_is_survived(kind, content):
    outputs = Outputs(limit=1000)
    outputs.add(kind, content, 10)
    for output in outputs.as_notebook():
        assert all(key.startswith(("text/", "image/")) for key in output.get("data", {}))
