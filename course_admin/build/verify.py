"""`course build --check`: are the notebooks those of the sources, and do the students' ones keep every secret?"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat

from course_admin.build import markers
from course_admin.build.lab import Targets, expand_lab, is_current, release_lab, write_notebook
from course_admin.build.problems import BuildError, Problem
from course_admin.paths import CourseError, Lab, Repository

SHORTEST_SECRET = 12  # characters; shorter lines (`return w`) say nothing and occur by chance
PHRASES = {"super().__init__()", "raise NotImplementedError"}  # every program has these
REGIONS = ((markers.BEGIN_SOLUTION, markers.END_SOLUTION), (markers.BEGIN_HIDDEN, markers.END_HIDDEN))


def check_lab(lab: Lab, repository: Repository, targets: Targets | None = None) -> list[Problem]:
    """Every Problem of a lab: mistakes in its source, stale notebooks, leaks. Executes nothing, changes nothing."""
    targets = targets or Targets.of(repository)
    try:
        notebook = expand_lab(lab, repository)
    except BuildError as error:
        return error.problems
    problems = list(_stale(lab, repository, targets, notebook))
    for path in sorted((targets.release / lab.name).rglob("*")):
        if path.is_file():
            problems += leaks_in(path, notebook, _shown(path, repository))
    return problems


def orphans(repository: Repository) -> list[Problem]:
    """What lies in labs/ and belongs to no lab: nothing else is searched for secrets, so nothing else may be there."""
    known = {lab.name for lab in repository.all_labs()}
    extra = sorted(path for path in repository.labs.glob("*") if path.name not in known and path.name[0] != ".")
    return [Problem(_shown(path, repository), 0, 1, "belongs to no lab in solutions/; remove it") for path in extra]


def _stale(lab: Lab, repository: Repository, targets: Targets, notebook: nbformat.NotebookNode) -> Iterator[Problem]:
    instructor, student = targets.instructor(lab), targets.student(lab)
    rebuild = f"; run: course build {lab.name}"
    if not is_current(instructor, notebook):
        state = "is out of date" if instructor.is_file() else "is missing"
        yield Problem(_shown(instructor, repository), 0, 1, state + rebuild)
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Targets(Path(scratch) / "source", Path(scratch) / "release")
        write_notebook(fresh.instructor(lab), notebook)
        try:
            release_lab(lab, repository, fresh)
        except CourseError as error:
            yield Problem(_shown(lab.source, repository), 0, 1, str(error))
            return
        if not student.is_file():
            yield Problem(_shown(student, repository), 0, 1, "is missing" + rebuild)
        elif student.read_bytes() != fresh.student(lab).read_bytes():
            yield Problem(_shown(student, repository), 0, 1, "is out of date or was edited by hand" + rebuild)


def secret_lines(notebook: nbformat.NotebookNode) -> set[str]:
    """Lines of solutions, hidden tests and model answers that stand nowhere in the visible part of the notebook."""
    secret, visible = set(), set()
    for cell in notebook.cells:
        lines = cell.source.splitlines()
        hidden = {i for pair in REGIONS for start, end in markers.regions(lines, *pair) for i in range(start, end + 1)}
        if _is_model_answer(cell):
            hidden = set(range(len(lines)))
        for index, line in enumerate(lines):
            (secret if index in hidden else visible).add(line.strip())
    text = "\n".join(visible)
    return {line for line in secret - PHRASES if len(line) >= SHORTEST_SECRET and line not in text}


def _is_model_answer(cell: nbformat.NotebookNode) -> bool:
    return cell.cell_type == "markdown" and cell.metadata.get("nbgrader", {}).get("solution", False)


def leaks_in(path: Path, instructor: nbformat.NotebookNode, shown_as: str) -> list[Problem]:
    """Lines of a released file that are shaped like a marker or hold a secret of the instructor's notebook."""
    secrets, problems = secret_lines(instructor), []
    try:
        texts = list(_texts_of(path))
    except (ValueError, KeyError, TypeError) as error:
        return [Problem(shown_as, 0, 1, f"cannot be searched for secrets ({type(error).__name__}); remove it")]
    for cell, line, text in texts:
        if markers.looks_like_marker(text):
            problems.append(Problem(shown_as, cell, line, f"shaped like an instructor's marker: {text.strip()!r}"))
        found = next((secret for secret in secrets if secret in text), None)
        if found:
            problems.append(Problem(shown_as, cell, line, f"shows a solution, hidden test or model answer: {found!r}"))
    return problems


def _texts_of(path: Path) -> Iterator[tuple[int, int, str]]:
    """(cell, line, text) of every line of a file; of a notebook, first its sources, then all its other strings."""
    content = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        yield from ((0, number, line) for number, line in enumerate(content.splitlines(), 1))
        return
    notebook = json.loads(content)
    for number, cell in enumerate(notebook["cells"], 1):
        source = "".join(cell.pop("source"))
        yield from ((number, line, text) for line, text in enumerate(source.splitlines(), 1))
        yield from ((number, 1, text) for text in _strings(cell))
    yield from ((0, 1, text) for text in _strings(notebook["metadata"]))


def _strings(data: object) -> Iterator[str]:
    if isinstance(data, str):
        yield from data.splitlines()
    elif isinstance(data, dict):
        yield from (text for item in data.values() for text in _strings(item))
    elif isinstance(data, list):
        yield from (text for item in data for text in _strings(item))


def _shown(path: Path, repository: Repository) -> str:
    return str(path.relative_to(repository.root)) if path.is_relative_to(repository.root) else str(path)
