"""Hostile and unlucky submissions to the tiny lab, made from its released notebook.

Each case says what a fair grader makes of it: the outcome, and the points that its honest code earns of 4 (1 for concept_1,
3 for keep_largest; a right concept_1 alone is 1).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field

NAME = "lab1_tiny.ipynb"
WRONG = "def keep_largest(w, n_nonzero):\n    return w\n"
Cells = dict[str, str]  # sources by grade id


@dataclass(frozen=True)
class Case:
    """One submission.

    Attributes:
        name: The student's name in the tests.
        outcome: What the grader must report.
        points: What it must award.
        answers: Sources of solution cells on top of the right ones.
        change: Changes the notebook's JSON data.
        encode: Makes the file of the data.
        file: Name of the file.
        says: Words that must stand in the record's reason, repairs or flags.
    """

    name: str
    outcome: str = "graded"
    points: float = 4.0
    answers: Cells = field(default_factory=dict)
    change: Callable[[dict], dict] = lambda data: data
    encode: Callable[[dict], bytes] = lambda data: json.dumps(data).encode()
    file: str = NAME
    says: str = ""

    def content(self, released: dict, right: Cells) -> bytes:
        """The file that is handed in."""
        data = copy.deepcopy(released)
        fill(data, {**right, **self.answers})
        return self.encode(self.change(data))


def fill(data: dict, answers: Cells) -> None:
    """Put answers into the solution cells of a notebook's JSON data."""
    for cell in data["cells"]:
        name = cell["metadata"].get("nbgrader", {}).get("grade_id")
        if name in answers and cell["metadata"]["nbgrader"]["solution"]:
            cell["source"] = answers[name]


def cell_named(data: dict, name: str) -> dict:
    """The cell with the grade id."""
    return next(cell for cell in data["cells"] if cell["metadata"].get("nbgrader", {}).get("grade_id") == name)


def code_cell(source: str) -> dict:
    """An ordinary cell."""
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": source}


def first(*sources: str) -> Callable[[dict], dict]:
    """Put ordinary cells before all others."""
    return lambda data: {**data, "cells": [*map(code_cell, sources), *data["cells"]]}


def duplicated(data: dict) -> dict:
    """A graded cell pasted twice."""
    place = data["cells"].index(cell_named(data, "check_keep_largest"))
    data["cells"].insert(place, copy.deepcopy(data["cells"][place]))
    return data


def without(name: str) -> Callable[[dict], dict]:
    """One named cell deleted."""
    return lambda data: {**data, "cells": [cell for cell in data["cells"] if cell is not cell_named(data, name)]}


def edited(data: dict) -> dict:
    """A graded cell that its student made easier."""
    cell_named(data, "check_keep_largest")["source"] = "3.0"
    return data


def other_kernel(data: dict) -> dict:
    """The kernel of somebody's own environment."""
    data["metadata"]["kernelspec"] = {"name": "my_conda_env", "display_name": "mine", "language": "python"}
    return data


def old_format(data: dict) -> dict:
    """The notebook in version 3 of the format, as old tools write it."""
    cells = []
    for cell in data["cells"]:
        cell = {key: value for key, value in cell.items() if key not in ("id", "execution_count")}
        if cell["cell_type"] == "code":
            cell |= {"input": cell.pop("source"), "language": "python", "collapsed": False, "prompt_number": 1}
        cells.append(cell)
    return {
        "metadata": {"name": ""},
        "nbformat": 3,
        "nbformat_minor": 0,
        "worksheets": [{"cells": cells, "metadata": {}}],
    }


def stripped(data: dict) -> dict:
    """All metadata of cells lost, as some web editors do it."""
    for cell in data["cells"]:
        cell["metadata"] = {}
    return data


def cheat(code: str, keep: str = WRONG) -> Cells:
    """A wrong keep_largest behind code that should make it pass."""
    return {"keep_largest": code + "\n" + keep}


NOISY = """\
import logging, sys, warnings
from tqdm import tqdm
logging.basicConfig()
def keep_largest(w, n_nonzero):
    warnings.warn("careful")
    logging.warning("noise")
    for _ in tqdm(range(3)):
        pass
    order = np.argsort(-np.abs(w), kind="stable")
    kept = np.zeros_like(w)
    kept[order[:n_nonzero]] = w[order[:n_nonzero]]
    return kept
"""
AST_TRANSFORMER = """\
import ast
class NoAsserts(ast.NodeTransformer):
    def visit_Assert(self, node):
        return None
    def visit_Expr(self, node):
        if isinstance(node.value, ast.Call) and getattr(node.value.func, "attr", "") in ("equal", "close"):
            return None
        return node
get_ipython().ast_transformers.append(NoAsserts())
"""
INPUT_TRANSFORMER = "get_ipython().input_transformer_manager.cleanup_transforms.insert(0, lambda lines: ['5\\n'])"
GRADEBOOK = """\
import glob, os, sqlite3
for pattern in ("gradebook.db", "../gradebook.db", "../../../gradebook.db", "/tmp/**/gradebook.db", "/run/**/gradebook.db"):
    for path in glob.glob(pattern, recursive=True)[:5]:
        base = sqlite3.connect(path)
        print(base.execute("select source from source_cell").fetchall())
        base.execute("update grade set auto_score = 3")
        base.commit()
"""
INSTRUCTOR = """\
import glob
for pattern in ("../../../solutions/**", "../solutions/**", "/course/**/*.ipynb", "/tmp/**/*.ipynb", "/run/**", "/course/**/.expected/*"):
    for path in glob.glob(pattern, recursive=True)[:20]:
        print(path, open(path, errors="replace").read()[:2000])
"""
REFERENCE = """\
from course_utils import sparse_linear
def keep_largest(w, n_nonzero):
    return sparse_linear.keep_largest(w, n_nonzero)
"""
ALWAYS_EQUAL = """\
class Equal:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __len__(self): return 3
def keep_largest(w, n_nonzero):
    return Equal()
"""
ALWAYS_EQUAL_ARRAY = """\
class Equal(np.ndarray):
    def __eq__(self, other): return True
    def __array_ufunc__(self, *a, **k): return True
def keep_largest(w, n_nonzero):
    return np.asarray(w).view(Equal)
"""
PATCHED_CHECKS = """\
from course_utils import checks
def equal(self, name, actual, expected, **options):
    self._observations.append(None)
checks.Checks.equal = equal
checks.Checks.score = lambda self, points: points
"""
PATCHED_SEALED = """\
import course_utils.checks.sealed as sealed
kept = sealed.record
sealed.record = lambda name, points, observations: {"name": name, "points": points, "checks": []}
"""
FORGED_RECORD = """\
from IPython.display import display
class Score:
    pass
import course_utils.checks.core as core
def score(self, points):
    display({"application/x-course-checks+json": {"name": self.name, "points": points, "checks": [
        {"name": item.name, "kind": item.kind, "actual": {"value": [0, -3, 2]}} for item in self._observations]}}, raw=True)
core.Checks.score = score
"""
PATCHED_TESTING = """\
import builtins, numpy.testing
numpy.testing.assert_allclose = lambda *a, **k: None
builtins.all = lambda *a: True
builtins.abs = lambda *a: 0
np.allclose = lambda *a, **k: True
"""
THREAD = """\
import threading, time
def spy():
    for _ in range(100):
        print([text for text in get_ipython().user_ns.get("In", [])][-1:], flush=True)
        print(open("/proc/self/environ").read()[:100])
        time.sleep(0.02)
threading.Thread(target=spy, daemon=True).start()
"""
SNOOP = """\
import sys, linecache
def keep_largest(w, n_nonzero):
    frame = sys._getframe(1)
    while frame:
        print("".join(linecache.getlines(frame.f_code.co_filename))[:2000])
        print({name: str(value)[:200] for name, value in frame.f_locals.items()}.get("expected"))
        frame = frame.f_back
    return w
keep = keep_largest
"""
SHOW = "print(SEEN)"
SIGNALS = """\
import os, signal
for target in (os.getppid(), 1, -1):
    try:
        os.kill(target, signal.SIGTERM if target == -1 else signal.SIGKILL)
    except OSError as error:
        print(error)
"""
NETWORK = """\
import socket, urllib.request
for address in (("127.0.0.1", 8888), ("1.1.1.1", 53)):
    try:
        print("CONNECTED", socket.create_connection(address, 0.5))
    except OSError as error:
        print(error)
"""
ENVIRONMENT = "import os\nprint(dict(os.environ))\nprint(open('/proc/1/environ', 'rb').read() if os.access('/proc/1/environ', os.R_OK) else '')"
DISK = """\
try:
    for number in range(10_000):
        with open(f"file{number}", "wb") as file:
            file.write(b"x" * 10**7)
except OSError as error:
    print(error)
"""
DEEP_OUTPUT = """\
from IPython.display import display
deep = []
for _ in range(970):
    deep = [deep]
display({"application/json": deep, "text/plain": "deep"}, raw=True)
"""
DEEP_RECORD = DEEP_OUTPUT.replace("application/json", "application/x-course-checks+json")
MANY_KINDS = """\
socket, session = get_ipython().kernel.iopub_socket, get_ipython().kernel.session
for _ in range(400):
    session.send(socket, "no_such_kind", {"text": "x" * 200_000}, parent=get_ipython().parent_header)
"""
WIDGET = """\
import ipywidgets
from IPython.display import display
display(ipywidgets.Text())
name = input("your name: ")
"""

LUCKY = [
    Case("honest"),
    Case("half_right", points=1.0, answers={"keep_largest": WRONG}),
    Case("nothing_right", points=0.5, answers={"concept_1": "concept_1 = False", "keep_largest": WRONG}),
    Case("visible_only", points=2.5, answers={
        "keep_largest": "def keep_largest(w, n_nonzero):\n    return [0, -3, 2]\n"}),
    Case("untouched", points=0.0, change=lambda data: data, answers={
        "concept_1": "concept_1 = None", "keep_largest": "def keep_largest(w, n):\n    raise NotImplementedError"}),
]  # fmt: skip

UNLUCKY = [
    Case("duplicated_cell", change=duplicated, says="check_keep_largest was there 2 times"),
    Case("noise_on_stderr", answers={"keep_largest": NOISY}),
    Case("exit_call", answers={"concept_1": "concept_1 = True\nimport sys\nsys.exit(0)"}),
    Case("other_kernel", change=other_kernel, says="'my_conda_env'"),
    Case("edited_test", points=1.0, change=edited, answers={"keep_largest": WRONG}, says="had been edited"),
    Case("byte_order_mark", encode=lambda data: b"\xef\xbb\xbf" + json.dumps(data).encode(), says="byte-order mark"),
    Case("latin_1", change=first("# caf\xe9"), encode=lambda data: json.dumps(data, ensure_ascii=False).encode("latin-1"),
         says="Latin-1"),
    Case("renamed", file="lab1_tiny (1).ipynb", says="'lab1_tiny (1).ipynb'"),
    Case("deleted_check", change=without("check_keep_largest"), says="check_keep_largest had been deleted"),
    Case("deleted_answer", change=without("answer_why"), says="answer_why had been deleted"),
    Case("Doe, Jr"),
    Case("lost_metadata", change=stripped, says="had lost its grading metadata"),
    Case("format_3", change=old_format, says="old format"),
    Case("invalid_json", "unreadable", 0.0, encode=lambda data: json.dumps(data).encode()[:-40], says="not JSON"),
    Case("empty_file", "unreadable", 0.0, encode=lambda data: b"", says="empty"),
    Case("deep_json", "unreadable", 0.0, encode=lambda data: b"[" * 100_000, says="nested"),
    Case("no_notebook", "missing", 0.0, file="essay.pdf", says="no notebook"),
    Case("long_line", "output too large", change=first("print('x' * 50_000_000)"), says="cut"),
    Case("waits_for_input", change=first(WIDGET)),
    Case("many_cells", change=first(*["pass"] * 10_000)),
]  # fmt: skip

DEADLY = [
    Case("quits", "crashed", 1.0, cheat("import os\nos._exit(0)"), says="ended the kernel"),
    Case("killed", "crashed", 1.0, cheat("import os\nos.kill(os.getpid(), 9)"), says="ended the kernel"),
    Case("endless", "timed out", 1.0, cheat("while True:\n    pass"), says="ran longer"),
    Case("endless_check", "timed out", 1.0, {"keep_largest": "def keep_largest(w, n):\n    while True:\n        pass"},
         says="check_keep_largest ran longer"),
    Case("endless_stubborn", "timed out", 1.0, cheat(
        "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass"), says="ran longer"),
    Case("endless_output", "output too large", 1.0, cheat(
        "while True:\n    print('x' * 500_000, flush=True)"), says="wrote more"),
    Case("memory_bomb", "out of memory", 1.0, cheat("hoard = []\nwhile True:\n    hoard.append(bytearray(b'x' * 10**7))"),
         says="memory"),
    Case("fork_bomb", "crashed", 1.0, cheat("import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass"),
         says="processes"),
]  # fmt: skip

HOSTILE = [
    Case("ast_transformer", "tampered", 1.0, cheat(AST_TRANSFORMER)),
    Case("input_transformer", "tampered", 1.0, cheat(INPUT_TRANSFORMER)),
    Case("patched_checks", "tampered", 1.0, cheat(PATCHED_CHECKS)),
    Case("patched_sealed", "tampered", 1.0, cheat(PATCHED_SEALED)),
    Case("forged_record", "tampered", 2.5, cheat(
        FORGED_RECORD, "def keep_largest(w, n):\n    return [0, -3, 2]\n")),
    Case("patched_testing", "tampered", 1.0, cheat(PATCHED_TESTING)),
    Case("open_mode", "tampered", 1.0, cheat("import os\nos.environ['COURSE_CHECKS'] = 'open'")),
    Case("opens_gradebook", "graded", 1.0, cheat(GRADEBOOK)),
    Case("opens_solutions", "graded", 1.0, cheat(INSTRUCTOR)),
    Case("calls_reference", "graded", 1.0, {"keep_largest": REFERENCE}),
    Case("always_equal", "graded", 1.0, {"keep_largest": ALWAYS_EQUAL}),
    Case("always_equal_array", "graded", 1.0, {"keep_largest": ALWAYS_EQUAL_ARRAY}),
    Case("no_results_shown", "graded", 1.0, cheat("get_ipython().ast_node_interactivity = 'none'")),
    Case("rounded_up", "graded", 1.0, cheat("%precision 0")),
    Case("thread", "graded", 1.0, cheat(THREAD)),
    Case("snoop", "graded", 1.0, {"keep_largest": SNOOP}),
    Case("signals", "graded", 1.0, cheat(SIGNALS)),
    Case("network", "graded", 1.0, cheat(NETWORK)),
    Case("environment", "graded", 1.0, cheat(ENVIRONMENT)),
    Case("disk_filler", "graded", 1.0, cheat(DISK)),
    Case("deep_output", "graded", 1.0, cheat(DEEP_OUTPUT)),
    Case("deep_record", "tampered", 1.0, cheat(DEEP_RECORD)),
    Case("deep_source", "graded", 1.0, cheat("if False:\n    a" + ".b" * 400 + " = 1")),
    Case("many_kinds", "output too large", 1.0, cheat(MANY_KINDS), says="wrote more"),
    Case("replaced_display", "tampered", 1.0, cheat("import IPython.display as shown\nsetattr(shown, 'disp' + 'lay', print)")),
    Case("replaced_probe", "tampered", 1.0, cheat("import sys\nsys.modules['probe'].problems = lambda: 'ok'")),
    Case("control_characters", "tampered", 1.0, cheat(
        "import sys\nsys.modules['pro' + 'be'].problems = lambda: '\\x1b[2J\\ud800 all is well'"), says="all is well"),
]  # fmt: skip

ALL = [*LUCKY, *UNLUCKY, *DEADLY, *HOSTILE]
