"""Grading the submissions of one lab with nbgrader, one student after another, and reading the results back.

One student's broken submission never stops the class: its failure is reported with nbgrader's reason and the next one
is graded. Submissions are executed without isolation here, with the rights of whoever runs the command.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nbgrader.api import Gradebook, MissingEntry

from course_admin.nbgrader_course import NbgraderCourse
from course_admin.paths import CourseError, Lab

STAMP = "graded.sha256"  # beside an autograded notebook: what submission and lab it was graded from


@dataclass(frozen=True)
class Item:
    """One graded cell of one submission. points is None while a person still has to mark it."""

    name: str
    points: float | None
    maximum: float


@dataclass(frozen=True)
class Result:
    """One student's result. reason is empty when grading went through; without items the submission was not graded."""

    student: str
    items: tuple[Item, ...] = ()
    reason: str = ""

    @property
    def points(self) -> float:
        return sum(item.points or 0.0 for item in self.items)

    @property
    def maximum(self) -> float:
        return sum(item.maximum for item in self.items)

    @property
    def waiting(self) -> float:
        """Points that wait for a person: written answers that are not marked yet."""
        return sum(item.maximum for item in self.items if item.points is None)


def grade_lab(
    lab: Lab,
    course: NbgraderCourse,
    *,
    force: bool = False,
    progress: Callable[[str, int, int], None] = lambda student, done, total: None,
) -> list[Result]:
    """Autograde every submission of a lab, record it in the gradebook and write feedback.

    Args:
        lab: the lab; its instructor's notebook must have been built.
        course: the folders; submissions are in <course>/submitted/<student>/<lab>/<lab>.ipynb.
        force: grade again what has been graded already. A submission that has changed since then, or whose lab has
            changed, is graded again in any case.
        progress: called before each student with the name, how many are done and how many there are.

    Returns:
        One result a student, by name.

    Raises:
        CourseError: if there is no submission at all, or nbgrader refuses the instructor's notebook.
    """
    students = course.submitted(lab.name)
    if not students:
        folder = course.folder / "submitted"
        raise CourseError(
            f"no submissions: put each one at {folder}/<student>/{lab.name}/{lab.name}.ipynb and try again"
        )
    with tempfile.TemporaryDirectory() as scratch:  # records the checks in the gradebook, leaves labs/ alone
        course.generate_assignment(lab.name, database=True, release=Path(scratch))
    results = []
    for done, student in enumerate(students):
        progress(student, done, len(students))
        results.append(_grade_student(lab, course, student, force))
    return results


def _grade_student(lab: Lab, course: NbgraderCourse, student: str, force: bool) -> Result:
    submission = course.folder / "submitted" / student / lab.name / f"{lab.name}.ipynb"
    autograded = course.folder / "autograded" / student / lab.name
    stamp, digest = autograded / STAMP, _digest(submission, course.source / lab.name / f"{lab.name}.ipynb")
    changed = not stamp.is_file() or stamp.read_text() != digest
    reason = f"no notebook {lab.name}.ipynb was handed in" if not submission.is_file() else ""
    reason = reason or course.autograde(lab.name, student, force=force or changed)
    if reason:
        _forget(lab, course, student)
        return Result(student, reason=reason)
    stamp.write_text(digest)
    feedback = course.feedback(lab.name, student, force=True)
    return Result(student, tuple(_items(lab, course, student)), reason=feedback)


def _digest(*paths: Path) -> str:
    """One hash of the contents of the files (of those that exist)."""
    content = [path.read_bytes() if path.is_file() else b"" for path in paths]
    return hashlib.sha256(b"|".join(hashlib.sha256(part).digest() for part in content)).hexdigest()


def _forget(lab: Lab, course: NbgraderCourse, student: str) -> None:
    """Remove what an earlier submission left, so that nobody takes its points for those of one that failed."""
    for stage in ("autograded", "feedback"):
        shutil.rmtree(course.folder / stage / student / lab.name, ignore_errors=True)
    with Gradebook(course.db_url) as gradebook, contextlib.suppress(MissingEntry):
        gradebook.remove_submission(lab.name, student)


def _items(lab: Lab, course: NbgraderCourse, student: str) -> list[Item]:
    """The graded cells of a submission as the gradebook has them, in the order of the notebook."""
    with Gradebook(course.db_url) as gradebook:
        try:
            submission = gradebook.find_submission(lab.name, student)
        except MissingEntry:
            return []
        grades = {grade.name: grade for notebook in submission.notebooks for grade in notebook.grades}
        names = [cell.name for nb in gradebook.find_assignment(lab.name).notebooks for cell in nb.source_cells]
        return [_item(grades[name]) for name in names if name in grades]


def _item(grade: object) -> Item:
    # A written answer that was left as released needs no person: nbgrader scores it 0 itself.
    known = grade.manual_score if grade.manual_score is not None else grade.auto_score
    return Item(grade.name, None if known is None else float(grade.score), float(grade.max_score))


def write_csv(results: list[Result], path: Path) -> None:
    """One row a student: points of each cell, total, maximum, points still to mark, reason. Blank is not zero."""
    names = list(dict.fromkeys(item.name for result in results for item in result.items))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["student", *names, "total", "maximum", "waiting_for_marks", "reason"])
        for result in results:
            points = {item.name: "" if item.points is None else f"{item.points:g}" for item in result.items}
            totals = [f"{value:g}" if result.items else "" for value in (result.points, result.maximum, result.waiting)]
            writer.writerow([result.student, *(points.get(name, "") for name in names), *totals, result.reason])
