"""Making submissions from a released notebook: what a student would hand in after filling some cells."""

from __future__ import annotations

from collections.abc import Iterable

import nbformat

from course_admin.answers import answers_to
from course_admin.build.markers import BEGIN_SOLUTION, END_SOLUTION
from course_admin.paths import CourseError, Lab, Repository


def solution_cells(notebook: nbformat.NotebookNode) -> dict[str, nbformat.NotebookNode]:
    """The cells that students fill, by grade id."""
    found = (cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("solution"))
    return {cell.metadata.nbgrader.grade_id: cell for cell in found}


def filled(released: nbformat.NotebookNode, answers: dict[str, str]) -> nbformat.NotebookNode:
    """A copy of the released notebook with the given cells' sources replaced.

    Args:
        released: the students' notebook.
        answers: source text by grade id; a grade id that is not a solution cell raises CourseError.

    Returns:
        The copy.
    """
    notebook = nbformat.reads(nbformat.writes(released), as_version=4)
    cells = solution_cells(notebook)
    unknown = sorted(answers.keys() - cells.keys())
    if unknown:
        raise CourseError(f"the notebook has no solution cells called {unknown}; it has {sorted(cells)}")
    for name, source in answers.items():
        cells[name].source = source
    return notebook


def reference_answers(instructor: nbformat.NotebookNode) -> dict[str, str]:
    """The solution and model answer of every cell that students fill, by grade id."""
    markers = (BEGIN_SOLUTION, END_SOLUTION)
    return {
        name: "\n".join(line for line in cell.source.splitlines() if line.strip() not in markers)
        for name, cell in solution_cells(instructor).items()
    }


def wrong_answers(lab: Lab, repository: Repository, exercises: Iterable[str]) -> dict[str, str]:
    """Source text of the first wrong answer to each of the exercises, by exercise."""
    found: dict[str, str] = {}
    wanted = set(exercises)
    for answer in answers_to(lab, repository):
        if answer.exercise in wanted and not answer.is_correct:
            found.setdefault(answer.exercise, answer.source)
    return found
