"""Building one lab: text source -> executed instructor's notebook -> students' notebook.

A lab whose text and reference implementations have not changed is not executed again, so that a second build is quick
and leaves every byte as it was. Where only text cells changed, the outputs of the code cells are kept.
"""

from __future__ import annotations

import operator
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import nbformat
from nbclient.exceptions import CellExecutionError

from course_admin.build.execute import execute, failed_cell, scores
from course_admin.build.expand import instructor_notebook
from course_admin.build.problems import BuildError
from course_admin.build.source import Cell, read_source
from course_admin.nbgrader_course import NbgraderCourse
from course_admin.paths import Lab, Repository
from course_utils.files import replacing


@dataclass(frozen=True)
class Targets:
    """Where a build writes: solutions/ and labs/ of the repository, or two folders elsewhere."""

    source: Path
    release: Path

    @classmethod
    def of(cls, repository: Repository) -> Targets:
        return cls(repository.solutions, repository.labs)

    def instructor(self, lab: Lab) -> Path:
        return self.source / lab.name / f"{lab.name}.ipynb"

    def student(self, lab: Lab) -> Path:
        return self.release / lab.name / f"{lab.name}.ipynb"


def read_lab(lab: Lab, repository: Repository) -> list[Cell]:
    """The cells of the lab's text source; problems name the file relative to the repository."""
    path = lab.source
    shown = path.relative_to(repository.root) if path.is_relative_to(repository.root) else path
    return read_source(path, str(shown))


def expand_lab(lab: Lab, repository: Repository) -> nbformat.NotebookNode:
    """The lab's instructor's notebook without outputs."""
    return instructor_notebook(read_lab(lab, repository), lab)


Built = Literal["executed", "text replaced", "up to date"]


def build_lab(lab: Lab, repository: Repository, targets: Targets | None = None, *, force: bool = False) -> Built:
    """Build both notebooks of a lab.

    Args:
        lab: the lab.
        repository: where its source is.
        targets: where to write; default: solutions/ and labs/ of the repository.
        force: execute even if the notebook is up to date.

    Returns:
        What was done: everything executed; text cells replaced around the outputs that were there; or nothing.

    Raises:
        BuildError: if the source has mistakes, a cell raises, or a check does not give the full solution full points.
    """
    targets = targets or Targets.of(repository)
    cells = read_lab(lab, repository)
    notebook = instructor_notebook(cells, lab)
    path = targets.instructor(lab)
    done: Built = "up to date"
    if force or not is_current(path, notebook):
        done = "executed" if force or not take_outputs(path, notebook) else "text replaced"
        if done == "executed":
            _execute(notebook, cells, repository.root)
        write_notebook(path, notebook)
    release_lab(lab, repository, targets)
    return done


def release_lab(lab: Lab, repository: Repository, targets: Targets) -> None:
    """Write the students' notebook from the instructor's with nbgrader's generate_assignment (no gradebook)."""
    with tempfile.TemporaryDirectory() as scratch:
        release = Path(scratch) / "release"
        NbgraderCourse(repository, Path(scratch), targets.source).generate_assignment(
            lab.name, database=False, release=release
        )
        released = Targets(targets.source, release).student(lab)
        notebook = nbformat.read(released, as_version=4)
    write_notebook(targets.student(lab), notebook)


def without_outputs(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy without outputs, execution counts and widget state: what a rebuild must reproduce byte by byte."""
    copy = nbformat.from_dict(notebook)
    copy = nbformat.reads(nbformat.writes(copy), as_version=4)
    copy.metadata.pop("widgets", None)
    for cell in copy.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return copy


def is_current(path: Path, notebook: nbformat.NotebookNode) -> bool:
    """True when the notebook at path equals the given one apart from outputs."""
    present = _read(path)
    if present is None:
        return False
    return nbformat.writes(without_outputs(present)) == nbformat.writes(without_outputs(notebook))


def take_outputs(path: Path, notebook: nbformat.NotebookNode) -> bool:
    """Give the notebook the outputs of the one at path if their code cells are the same, metadata included.

    Args:
        path: a notebook that was executed, if it is there.
        notebook: changed in place.

    Returns:
        False, and the notebook as it was, if some code differs: then it must be executed.
    """
    present = _read(path)
    if present is None:
        return False
    old, new = ([cell for cell in book.cells if cell.cell_type == "code"] for book in (present, notebook))
    identity = operator.attrgetter("id", "source", "metadata")
    if list(map(identity, old)) != list(map(identity, new)):
        return False
    for before, cell in zip(old, new, strict=True):
        cell.outputs, cell.execution_count = before.outputs, before.execution_count
    if "widgets" in present.metadata:
        notebook.metadata["widgets"] = present.metadata["widgets"]
    return True


def _read(path: Path) -> nbformat.NotebookNode | None:
    """The notebook at path; None if there is none, or none any more, for example after a merge conflict."""
    if not path.is_file():
        return None
    try:
        return nbformat.read(path, as_version=4)
    except (ValueError, KeyError, AttributeError):
        return None


def write_notebook(path: Path, notebook: nbformat.NotebookNode) -> None:
    """Write a notebook whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        nbformat.write(notebook, part)


def _execute(notebook: nbformat.NotebookNode, cells: list[Cell], folder: Path) -> None:
    try:
        execute(notebook, folder)
    except CellExecutionError as error:
        cell = cells[failed_cell(notebook)]
        raise BuildError([cell.problem(f"the cell raised {error.ename}: {error.evalue}")]) from None
    by_id = {
        built.metadata.nbgrader.grade_id: cell for built, cell in zip(notebook.cells, cells, strict=True) if cell.tag
    }
    problems = []
    for name, (points, maximum) in scores(notebook).items():
        if points != maximum:
            problems.append(by_id[name].problem(f"{name}: the reference gets {points:g} of {maximum:g} points"))
    if problems:
        raise BuildError(problems)
