"""The whole way of a lab in one go: build, release, submit, grade, report, in a folder of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat

from course_admin.build.lab import Targets, build_lab, write_notebook
from course_admin.grading.bubblewrap import bubblewrap_problem
from course_admin.grading.progress import Watch
from course_admin.grading.results import Result
from course_admin.grading.run import Options, grade_lab
from course_admin.nbgrader_course import NbgraderCourse
from course_admin.paths import CourseError, Lab, Repository
from course_admin.report import write_csv
from course_admin.submissions import filled, reference_answers, solution_cells, wrong_answers

Say = Callable[[str], None]
OWN_ENTRIES = {"source", "release", "submitted", "autograded", "feedback", "grades", "gradebook.db"}


def run_demo(lab: Lab, repository: Repository, folder: Path, say: Say) -> list[Result]:
    """Build and release a lab, hand in three submissions, grade them, write feedback and grades.

    Args:
        lab: the lab.
        repository: where its source is.
        folder: everything is written below this folder; what an earlier demo left there is replaced.
        say: called with one line for each step.

    Returns:
        One result for each of the three students.

    Raises:
        CourseError: if the folder holds anything that is not an earlier demo's.
    """
    _clear(folder)
    targets = Targets(folder / "source", folder / "release")
    say(f"1/5  build    {lab.source.name}: executing every cell of the instructor's notebook ...")
    build_lab(lab, repository, targets, force=True)
    say(f"2/5  release  {targets.student(lab)}")
    submissions = make_submissions(lab, repository, targets)
    for student, notebook in submissions.items():
        write_notebook(folder / "submitted" / student / lab.name / f"{lab.name}.ipynb", notebook)
    say(f"3/5  submit   {', '.join(submissions)}")
    course = NbgraderCourse(repository, folder, targets.source)
    results = grade_lab(lab, course, _options(say), SayingWatch(say))
    write_csv(results, folder / "grades" / f"{lab.name}.csv")
    say(f"5/5  report   {folder / 'grades' / lab.name}.csv")
    return results


class SayingWatch(Watch):
    """Says one line for each student."""

    def __init__(self, say: Say):
        super().__init__()
        self.say = lambda line: say(f"4/5  grade    {line}")

    def finished(self, student: str, outcome: str) -> None:
        """One more submission has its result."""
        super().finished(student, outcome)
        self.say(f"{student}: {outcome} ({self.done} of {self.total})")


def _options(say: Say) -> Options:
    """In a sandbox where there is one; the demo's submissions are this project's own, so it can go on without."""
    problem = bubblewrap_problem()
    if problem:
        say(f"4/5  grade    {problem}; these three submissions are our own, so they are run without a sandbox")
    return Options(isolation="none" if problem else "bubblewrap")


def make_submissions(lab: Lab, repository: Repository, targets: Targets) -> dict[str, nbformat.NotebookNode]:
    """Three students: ada solved everything, ben got every fifth exercise wrong, cleo changed nothing."""
    released = nbformat.read(targets.student(lab), as_version=4)
    right = reference_answers(nbformat.read(targets.instructor(lab), as_version=4))
    code = [name for name, cell in solution_cells(released).items() if cell.cell_type == "code"]
    wrong = wrong_answers(lab, repository, code[-2::-5])
    return {"ada": filled(released, right), "ben": filled(released, {**right, **wrong}), "cleo": released}


def _clear(folder: Path) -> None:
    if not folder.exists():
        return
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in OWN_ENTRIES)
    if foreign:
        raise CourseError(
            f"{folder} holds files that no demo wrote ({', '.join(foreign[:5])}); choose another --folder"
        )
    shutil.rmtree(folder)
