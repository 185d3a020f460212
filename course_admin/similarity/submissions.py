"""The answers of a class: the cells that students fill, out of submitted/, found as grading finds them."""

from __future__ import annotations

from pathlib import Path

import nbformat

from course_admin.build.lab import Targets
from course_admin.grading.collect import collect
from course_admin.grading.kit import Kit
from course_admin.grading.prepare import plan_cell
from course_admin.grading.repair import Unreadable, repair
from course_admin.paths import CourseError, Lab, Repository
from course_admin.similarity.fingerprints import Answers, fingerprint, template_of

MAX_SOURCE = 100_000  # characters of an answer


def answers_of(lab: Lab, repository: Repository, folder: Path) -> tuple[list[Answers], list[tuple[str, str]]]:
    """The fingerprints of every submission of a lab.

    A file with another name, and cells that have lost nbgrader's marks, are found as they are when it is graded.

    Args:
        lab: the lab; its released notebook is what all students were given.
        repository: where that is.
        folder: the course folder with submitted/.

    Returns:
        (answers by student, the submissions that cannot be compared with the reason).

    Raises:
        CourseError: if nothing was handed in.
    """
    released = nbformat.read(Targets.of(repository).student(lab), as_version=4)
    kit = Kit.of_cells(lab.name, tuple(map(plan_cell, released.cells)))
    template = template_of({cell.name: (cell.cell_type, cell.source) for cell in kit.cells if cell.solution})
    submissions = collect(folder, lab.name)
    if not submissions:
        raise CourseError(f"no submissions of {lab.name} in {folder / 'submitted'}")
    found, left_out = [], []
    for submission in submissions:
        try:
            if submission.path is None:
                raise Unreadable(submission.problem)
            found.append(fingerprint(submission.student, _answers(submission.read(), kit), template))
        except Unreadable as error:
            left_out.append((submission.student, str(error)))
    return found, left_out


def _answers(content: bytes, kit: Kit) -> dict[str, tuple[str, str]]:
    """(cell type, source) of the cells that students fill, by name; of a cell pasted twice, both together."""
    handed_in = repair(content, kit).handed_in
    cells = [cell for cell in kit.cells if cell.solution and cell.name in handed_in]
    if not cells:
        raise Unreadable("none of the lab's cells was found in it")
    return {cell.name: (cell.cell_type, handed_in[cell.name][:MAX_SOURCE]) for cell in cells}
