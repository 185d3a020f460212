"""The answers of a class: the cells that students fill, out of submitted/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat

from course_admin.build.lab import Targets
from course_admin.paths import CourseError, Lab, Repository
from course_admin.similarity.fingerprints import Answers, fingerprint, template_of

MAX_BYTES = 20 * 2**20  # of a notebook; a larger one is full of outputs or worse
MAX_SOURCE = 100_000  # characters of an answer


def answers_of(lab: Lab, repository: Repository, folder: Path) -> tuple[list[Answers], list[tuple[str, str]]]:
    """The fingerprints of every submission of a lab.

    Args:
        lab: the lab; its released notebook is what all students were given.
        repository: where that is.
        folder: the course folder with submitted/.

    Returns:
        (answers by student, the submissions that cannot be read with the reason).

    Raises:
        CourseError: if nothing was handed in.
    """
    template = template_of(_cells(nbformat.read(Targets.of(repository).student(lab), as_version=4)))
    found, unreadable = [], []
    paths = sorted((folder / "submitted").glob(f"*/{lab.name}/{lab.name}.ipynb"))
    if not paths:
        raise CourseError(f"no submissions of {lab.name} in {folder / 'submitted'}")
    for path in paths:
        student = path.parents[1].name
        try:
            found.append(fingerprint(student, _read(path), template))
        except Exception as error:  # whatever nbformat makes of a file that is no notebook
            unreadable.append((student, f"{type(error).__name__}: {str(error)[:120]}"))
    return found, unreadable


def _read(path: Path) -> dict[str, tuple[str, str]]:
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"the notebook is larger than {MAX_BYTES // 2**20} MB")
    text = path.read_bytes().decode("utf-8-sig", errors="replace")
    return _cells(nbformat.reads(text, as_version=4))


def _cells(notebook: Any) -> dict[str, tuple[str, str]]:
    """(cell type, source) of the cells that students fill, by grade id; of a cell pasted twice, both together."""
    cells: dict[str, tuple[str, str]] = {}
    for cell in notebook.cells:
        marks = cell.metadata.get("nbgrader", {})
        if marks.get("solution") and isinstance(marks.get("grade_id"), str):
            name, source = marks["grade_id"], cell.source[:MAX_SOURCE]
            before = f"{cells[name][1]}\n" if name in cells else ""
            cells[name] = (cell.cell_type, before + source)
    return cells
