"""The builder, on a tiny lab and on small deliberately broken sources."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import nbformat
import pytest

from course_admin.build.expand import unsuitable, with_solution_markers
from course_admin.build.lab import Targets, build_lab, expand_lab
from course_admin.build.markers import BEGIN_SOLUTION, END_SOLUTION, looks_like_marker, regions
from course_admin.build.problems import BuildError
from course_admin.build.verify import check_lab, orphans, secret_lines
from course_admin.paths import CourseError, Repository
from tests.course_admin.conftest import TINY_LAB


def tiny_lab(repository: Repository, old: str = "", new: str = ""):
    """The tiny lab, after replacing a piece of its source."""
    lab = repository.lab("lab1")
    assert old in TINY_LAB
    lab.source.write_text(TINY_LAB.replace(old, new, 1), encoding="utf-8")
    return lab


def line_of(text: str, source: str) -> int:
    """Number of the first line of source that contains text."""
    return next(number for number, line in enumerate(source.splitlines(), 1) if text in line)


def sources(path: Path) -> dict[str, str]:
    return {cell.id: cell.source for cell in nbformat.read(path, as_version=4).cells}


def test_build_makes_both_notebooks(tiny):
    lab, targets = tiny.lab("1"), Targets.of(tiny)
    assert build_lab(lab, tiny) == "executed"
    instructor, student = sources(targets.instructor(lab)), sources(targets.student(lab))
    assert list(instructor) == list(student)
    assert "### BEGIN SOLUTION" in instructor["keep_largest"]
    assert (
        'raise NotImplementedError("Lab 1, keep_largest: replace this line with your code")' in student["keep_largest"]
    )
    assert student["keep_largest"].startswith("def keep_largest(")
    assert '"""Project w onto' in student["keep_largest"]
    assert "check_count(" in student["keep_largest"], "argument checks stay"
    assert student["concept_1"] == "concept_1 = None  # your answer: True or False"
    assert student["answer_why"] == "*Lab 1, why (2 points): replace this line with your answer.*"
    assert "hidden inputs" in instructor["check_keep_largest"]
    assert "hidden inputs" not in student["check_keep_largest"]
    assert check_lab(lab, tiny) == []


def test_released_notebook_is_valid_and_carries_no_outputs(built):
    lab = built.lab("1")
    notebook = nbformat.read(Targets.of(built).student(lab), as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.get("outputs") for cell in notebook.cells)
    graded = {
        c.metadata.nbgrader.grade_id: c.metadata.nbgrader.points
        for c in notebook.cells
        if c.metadata.get("nbgrader", {}).get("grade")
    }
    assert graded == {"check_concepts": 1, "check_keep_largest": 3, "answer_why": 2}


def test_state_of_the_instructors_widgets_is_not_released(built):
    lab, targets = built.lab("1"), Targets.of(built)
    notebook = nbformat.read(targets.instructor(lab), as_version=4)
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}, "version_major": 2}}
    nbformat.write(notebook, targets.instructor(lab))
    assert build_lab(lab, built) == "up to date", "widget state is output"
    assert "widgets" not in nbformat.read(targets.student(lab), as_version=4).metadata


def test_rebuilding_changes_no_byte_and_executes_nothing(built):
    lab, targets = built.lab("1"), Targets.of(built)
    before = [path.read_bytes() for path in (targets.instructor(lab), targets.student(lab))]
    assert build_lab(lab, built) == "up to date"
    assert [path.read_bytes() for path in (targets.instructor(lab), targets.student(lab))] == before


def test_changed_text_keeps_the_outputs_and_changed_code_does_not(built):
    lab = tiny_lab(built, "# # Tiny lab", "# # Tiny lab, with another title")
    path, student = Targets.of(built).instructor(lab), Targets.of(built).student(lab)
    before = nbformat.read(path, as_version=4)
    before.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    nbformat.write(before, path)
    assert build_lab(lab, built) == "text replaced"
    after = nbformat.read(path, as_version=4)
    assert [cell.get("outputs") for cell in after.cells] == [cell.get("outputs") for cell in before.cells]
    assert any(cell.get("outputs") for cell in after.cells)
    assert after.metadata.widgets == before.metadata.widgets
    assert "with another title" in path.read_text()
    assert "with another title" in student.read_text()
    assert check_lab(lab, built) == []
    assert build_lab(tiny_lab(built, "# because the secret", "# because a secret"), built) == "executed"


def test_a_forced_rebuild_differs_in_outputs_alone(built):
    lab, targets = built.lab("1"), Targets.of(built)
    first, student = targets.instructor(lab).read_text(), targets.student(lab).read_bytes()
    assert build_lab(lab, built, force=True) == "executed"
    second = targets.instructor(lab).read_text()

    def without_outputs(text: str) -> list:
        cells = json.loads(text)["cells"]
        return [{key: cell[key] for key in cell if key not in ("outputs", "execution_count")} for cell in cells]

    assert without_outputs(first) == without_outputs(second)
    assert targets.student(lab).read_bytes() == student


def test_nbgrader_itself_releases_the_same_notebook(built):
    lab, targets = built.lab("1"), Targets.of(built)
    ours = json.loads(targets.student(lab).read_text())
    command = [sys.executable, "-m", "nbgrader", "generate_assignment", lab.name, "--force"]
    subprocess.run(command, cwd=built.root, check=True, capture_output=True, env=_environment())
    assert json.loads(targets.student(lab).read_text()) == ours


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


HIDDEN, END = "### BEGIN HIDDEN TESTS", "### END HIDDEN TESTS"
BROKEN = {
    "misspelt begin": (HIDDEN, "### BEGIN HIDEN TESTS", "BEGIN HIDEN TESTS", "shaped like a marker"),
    "lower case": (HIDDEN, "### begin hidden tests", "begin hidden tests", "shaped like a marker"),
    "underscores": (HIDDEN, "### BEGIN_HIDDEN_TESTS", "BEGIN_HIDDEN_TESTS", "shaped like a marker"),
    "one hash": (HIDDEN, "# BEGIN HIDDEN TESTS", "# BEGIN HIDDEN TESTS", "shaped like a marker"),
    "singular": (HIDDEN, "### BEGIN HIDDEN TEST", "### BEGIN HIDDEN TEST", "shaped like a marker"),
    "no end": (END + "\n", "", HIDDEN, "without '### END HIDDEN TESTS'"),
    "no begin": (HIDDEN + "\n", "", END, "without '### BEGIN HIDDEN TESTS'"),
    "nested": (HIDDEN, f"{HIDDEN}\n{HIDDEN}", HIDDEN, "inside the region"),
    "other words": (HIDDEN, "### BEGIN TESTS", END, "without '### BEGIN HIDDEN TESTS'"),
    "no hidden tests": (f'{HIDDEN}\ncheck.equal("question 1", lambda: concept_1, True)\n{END}\n', "", "# %% check points=1", "no hidden tests"),
    "marker in prose": ("# Why do we", "# ### BEGIN SOLUTION\n# Why do we", "### BEGIN SOLUTION", "no marker may stand"),
    "marker in code": ("import numpy as np", "### BEGIN SOLUTION\nimport numpy as np", "### BEGIN SOLUTION", "no marker may"),
    "unknown word": ("# %% exercise", "# %% exercize", "# %% exercize", "unknown word 'exercize'"),
    "no points": ("# %% check points=1", "# %% check", "# %% check\n", "'check' takes points=..."),
    "zero points": ("# %% check points=1", "# %% check points=0", "points=0", "points must be a number > 0"),
    "wrong points": ("score(points=1)", "score(points=2)", "score(points=2)", "disagrees with points=1"),
    "no score": ("check.score(points=1)", "print(check)", "print(check)", "last line of a check cell"),
    "hidden score": (f"{END}\ncheck.score(points=1)", f"check.score(points=1)\n{END}", "score(points=1)", "inside the hidden"),
    "no name": ('Checks("concepts")', "Checks(name)", "# %% check points=1", 'Checks("name")'),
    "repeated id": ('Checks("concepts")', 'Checks("keep_largest")', "# %% check points=3", "is used by cell 4 (line 16)"),
    "syntax error": ("concept_1 = True", "concept_1 = = True", "concept_1 = =", "syntax error"),
    "two imports": ("import keep_largest", "import keep_largest, objective", "# %% exercise", "exactly one name"),
    "no such function": ("import keep_largest", "import keep_biggest", "# %% exercise", "cannot take the source"),
    "computed answer": ("concept_1 = True", "concept_1 = bool(1)", "# %% exercise", "assignments of literals"),
    "answer as code": ("# %% [markdown] answer", "# %% answer", "# %% answer", "marks a markdown cell"),
    "empty answer": ("# Because the projection onto the sparse vectors does. Mark scheme: one point for each half.\n", "", "answer name=why", "missing"),
    "bad answer name": ("name=why", "name=Why!", "name=Why!", "lower case"),
    "text before the first cell": ("# %% [markdown]\n# # Tiny", "x = 1\n# %% [markdown]\n# # Tiny", "x = 1", "start the file"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_sources_are_refused_with_file_cell_and_line(tiny, name):
    old, new, at, words = BROKEN[name]
    lab = tiny_lab(tiny, old, new)
    with pytest.raises(BuildError, match=r"solutions/lab1_tiny.py, cell \d+, line \d+: ") as caught:
        expand_lab(lab, tiny)
    source = lab.source.read_text()
    lines = {number for number, line in enumerate(source.splitlines(), 1) if at.strip() in line}
    matching = [problem for problem in caught.value.problems if words in problem.message]
    assert matching, f"expected {words!r} in {caught.value}"
    assert matching[0].line in lines


def test_every_mistake_is_reported_at_once(tiny):
    lab = tiny_lab(tiny, HIDDEN, "### BEGIN HIDEN TESTS")
    lab.source.write_text(lab.source.read_text().replace("points=2", "points=-2"))
    with pytest.raises(BuildError) as caught:
        expand_lab(lab, tiny)
    assert {problem.cell for problem in caught.value.problems} == {4, 8}


def test_a_reference_that_fails_its_own_checks_is_refused(tiny):
    lab = tiny_lab(tiny, "[0, 0, 7]", "[0, 0, 8]")
    with pytest.raises(BuildError, match="cell 6, .* the reference gets 1.5 of 3 points"):
        build_lab(lab, tiny)


def test_a_cell_that_raises_is_named(tiny):
    lab = tiny_lab(tiny, "import numpy as np\n", "import numpy as np\n1 / 0\n")
    with pytest.raises(BuildError, match="cell 2, line 6: the cell raised ZeroDivisionError"):
        build_lab(lab, tiny)


def changed(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# # Tiny lab", "# # Tiny lab, changed"),
        ("points=2", "points=4"),
        ("# because the secret", "# because a secret"),
    ],
)
def test_check_finds_stale_notebooks(built, old, new):
    lab = tiny_lab(built, old, new)
    problems = [str(problem) for problem in check_lab(lab, built)]
    assert 1 <= len(problems) <= 2
    assert all("out of date" in problem and "course build lab1_tiny" in problem for problem in problems)


@pytest.mark.parametrize("missing", ["instructor", "student"])
def test_check_finds_missing_notebooks(built, missing):
    lab = built.lab("1")
    getattr(Targets.of(built), missing)(lab).unlink()
    assert [problem.message.split(";")[0] for problem in check_lab(lab, built)] == ["is missing"]


LEAKS = {
    "solution line": ("replace this line with your code", "order = np.argsort(-np.abs(w), kind='stable')", "solution"),
    "hidden test": ("# Tiny lab", 'check.equal("hidden inputs", lambda: keep_largest(np.array([1.0, -3.0, 7.0]), 1), [0, 0, 7])', "hidden test"),
    "model answer": ("# Tiny lab", "Because the projection onto the sparse vectors does. Mark scheme: one point for each half.", "model answer"),
    "explanation": ("# Tiny lab", "# because the secret explanation says so", "solution"),
    "marker": ("# Tiny lab", "### BEGIN HIDDEN TESTS", "instructor's marker"),
    "odd marker": ("# Tiny lab", "<!-- Begin Mark-Scheme -->", "instructor's marker"),
    "misspelt marker": ("# Tiny lab", "### BEGN SOLUTION", "instructor's marker"),
}  # fmt: skip


@pytest.mark.parametrize("name", LEAKS)
def test_check_finds_leaks_in_the_released_notebook(built, name):
    old, new, words = LEAKS[name]
    lab = built.lab("1")
    if name == "solution line":  # whatever the reference's first line is
        new = min(secret_lines(expand_lab(lab, built)) & _body_of(expand_lab(lab, built), "keep_largest"))
    path = Targets.of(built).student(lab)
    changed(path, old, json.dumps(new)[1:-1])
    problems = [problem for problem in check_lab(lab, built) if words in problem.message]
    assert problems
    assert problems[0].file == "labs/lab1_tiny/lab1_tiny.ipynb"
    assert problems[0].cell > 0


def _body_of(notebook, name: str) -> set[str]:
    return {line.strip() for cell in notebook.cells if cell.id == name for line in cell.source.splitlines()}


def test_check_finds_leaks_in_outputs_and_other_files(built):
    lab = built.lab("1")
    path = Targets.of(built).student(lab)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="# because the secret explanation says so")]
    nbformat.write(notebook, path)
    (path.parent / "notes.txt").write_text("see\n### END SOLUTION\n")
    files = {
        problem.file for problem in check_lab(lab, built) if "shows" in problem.message or "shaped" in problem.message
    }
    assert files == {"labs/lab1_tiny/lab1_tiny.ipynb", "labs/lab1_tiny/notes.txt"}


@pytest.mark.parametrize(
    "line",
    ["### BEGIN SOLUTION", "#begin solution", "### END HIDDEN TEST", "## Begin hiden tests", "### BEGINN SOLUTION",
     "<!-- END MARK SCHEME -->", "### EDN SOLUTION", "x = 1  ### BEGIN SOLUTION", "### AUTOTEST", "### BEGIN MARKING SCHEME"],
)  # fmt: skip
def test_marker_shapes(line):
    assert looks_like_marker(line)


@pytest.mark.parametrize(
    "line",
    ["# The solution is sparse.", "# begin with the largest weight", "x = solution", "# ## Solution paths", "# in the end",
     "# hidden layers", "We begin the solution path at zero.", "# test the solution", "# ### Questions", ""],
)  # fmt: skip
def test_ordinary_lines_are_no_markers(line):
    assert not looks_like_marker(line)


def test_every_method_of_a_class_gets_its_own_region():
    source = (
        'class Scale:\n    """Doc."""\n\n    factor = 2\n\n    def __init__(self, x):\n        """Init."""\n        check_vector("x", x)\n'
        "        # keep it\n        self.x = x\n\n    def double(self):\n        return self.factor * self.x\n"
    )
    marked = with_solution_markers(source).splitlines()
    assert marked.count("        ### BEGIN SOLUTION") == marked.count("        ### END SOLUTION") == 2
    first = marked.index("        ### BEGIN SOLUTION")
    assert marked[first - 1 : first + 4] == [
        '        check_vector("x", x)',
        "        ### BEGIN SOLUTION",
        "        # keep it",
        "        self.x = x",
        "        ### END SOLUTION",
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(x): return x\n", "must begin on a line of its own"),
        ('def f(x):\n    """Doc."""; return x\n', "must begin on a line of its own"),
        ("async def f(x):\n    return x\n", "a function or a class"),
        ("class A:\n    class B:\n        secret = 1\n", "plain methods only"),
        ("class A:\n    async def f(self):\n        return 1\n", "plain methods only"),
        ("class A:\n    if True:\n        def f(self):\n            return 1\n", "plain methods only"),
    ],
)
def test_shapes_that_cannot_be_split_are_refused(source, message):
    assert [text for text in unsuitable(source) if message in text]


@pytest.mark.parametrize(
    "source",
    [
        "def f(x):\n    # secret before\n    return x\n    # secret after\n",
        'def f(x):\n    """Doc."""\n    # secret before\n    return x\n',
        "def f(x):\n    @secret\n    def g(y):\n        return y\n    return g(x)\n",
        "class A:\n    def f(self):\n        return 1\n        # secret after\n\n    def g(self):\n        return 2\n",
    ],
)
def test_comments_and_decorators_of_the_solution_are_inside_its_region(source):
    marked = with_solution_markers(source).splitlines()
    inside = {i for start, end in regions(marked, BEGIN_SOLUTION, END_SOLUTION) for i in range(start, end)}
    assert [i for i, line in enumerate(marked) if "secret" in line and i not in inside] == []


def test_markers_in_a_reference_implementation_are_refused(tiny, monkeypatch, tmp_path):
    module = types.ModuleType("course_utils.odd")
    path = tmp_path / "odd.py"
    path.write_text('def keep_largest(w):\n    """Doc."""\n    x = """\n### END SOLUTION\n"""\n    return x\n')
    exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, "course_utils.odd", module)
    lab = tiny_lab(tiny, "course_utils.sparse_linear", "course_utils.odd")
    with pytest.raises(BuildError, match="course_utils.odd.keep_largest: '### END SOLUTION' is shaped like a marker"):
        expand_lab(lab, tiny)


def test_a_notebook_with_merge_conflicts_is_rebuilt(built):
    lab = built.lab("1")
    path = Targets.of(built).instructor(lab)
    path.write_text("<<<<<<< ours\n" + path.read_text())
    assert "out of date" in str(check_lab(lab, built)[0])
    assert build_lab(lab, built) == "executed"
    assert check_lab(lab, built) == []


def test_what_belongs_to_no_lab_may_not_lie_in_labs(built):
    shutil.copytree(built.labs / "lab1_tiny", built.labs / "lab9_old")
    (built.labs / "copy.ipynb").write_text("{}")
    assert [problem.file for problem in orphans(built)] == ["labs/copy.ipynb", "labs/lab9_old"]
    (built.labs / "lab1_tiny" / "old.txt").write_bytes("café".encode("utf-16"))
    assert "cannot be searched" in str(check_lab(built.lab("1"), built))


def test_labs_are_found_by_name_and_number(tiny):
    assert tiny.lab("lab1_tiny") == tiny.lab("lab1") == tiny.lab("1")
    with pytest.raises(CourseError, match="no lab is called 'lab9'.*lab1_tiny"):
        tiny.lab("lab9")


def test_outside_a_repository_the_message_says_what_to_do(tmp_path):
    with pytest.raises(CourseError, match="not inside a course repository"):
        Repository.find(tmp_path)
