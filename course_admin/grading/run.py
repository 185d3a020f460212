"""One grading run of a lab: collect, execute what is not done yet, verify, record, write feedback.

Killed at any moment and started again, it goes on: the execution is stored before anything else, the gradebook is
written in one transaction, and the record that says 'done' comes last.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

from course_admin.grading.autograded import autograded_notebook, write_autograded
from course_admin.grading.bubblewrap import Limits, require
from course_admin.grading.cluster import DaskCluster, require_cluster
from course_admin.grading.collect import Submission, collect
from course_admin.grading.feedback import Feedback, digest_in, write_page
from course_admin.grading.gradebook import Book, Marks, create_gradebook, merge
from course_admin.grading.kit import Kit
from course_admin.grading.pool import Executor, LocalPool, Settings, Task, usable_cores
from course_admin.grading.prepare import make_kit
from course_admin.grading.progress import Watch, log_cell_times
from course_admin.grading.reference import Records, check_names, measures, reference_records
from course_admin.grading.repair import same_text
from course_admin.grading.results import Result, load_result, printable, result_file, save_result
from course_admin.grading.store import Store, execution_digest
from course_admin.grading.verify import outcomes_of, verify
from course_admin.nbgrader_course import NbgraderCourse
from course_admin.paths import CourseError, Lab

NOT_EXECUTED = ("missing", "unreadable")
VERIFY_FORMAT = 1  # raise it when the same execution would be judged differently


@dataclass(frozen=True)
class Options:
    """How to grade.

    Attributes:
        force: Grade again what has been graded already.
        workers: Processes on this machine; None: one for each core.
        scheduler: Address of a Dask scheduler; its cluster is used instead.
        isolation: "bubblewrap" or "none".
        limits: What one submission may use.
        retry: Execute again what did not end as graded, for example with higher limits.
    """

    force: bool = False
    workers: int | None = None
    scheduler: str | None = None
    isolation: str = "bubblewrap"
    limits: Limits = field(default_factory=Limits)
    retry: bool = False


def grade_lab(
    lab: Lab, course: NbgraderCourse, options: Options | None = None, watch: Watch | None = None
) -> list[Result]:
    """Grade every submission of a lab.

    Args:
        lab: the lab; its instructor's notebook must have been built.
        course: the folders; submissions are in <course>/submitted/<student>/<lab>/.
        options: how.
        watch: told of every step.

    Returns:
        One result a student, by name; students of the gradebook without a submission are missing.

    Raises:
        CourseError: if there is no submission at all, no isolation, no cluster where one is asked for, or the lab
            itself cannot be graded.
    """
    options, watch = options or Options(), watch or Watch()
    submissions = collect(course.folder, lab.name)
    if not submissions:
        folder = course.folder / "submitted"
        raise CourseError(
            f"no submissions: put each one at {folder}/<student>/{lab.name}/{lab.name}.ipynb and try again"
        )
    require(options.isolation)
    if options.scheduler:
        require_cluster(options.scheduler)
    with prepared(lab, course, options, watch) as run:
        return run.grade(submissions)


@contextlib.contextmanager
def prepared(lab: Lab, course: NbgraderCourse, options: Options, watch: Watch) -> Iterator[Run]:
    """Everything that one lab's submissions need: released notebook, kit, expected values, gradebook."""
    path = course.source / lab.name / f"{lab.name}.ipynb"
    if not path.is_file():
        raise CourseError(f"{path} is missing; run: course build {lab.name}")
    instructor = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory(prefix="course-grade-") as scratch:
        create_gradebook(course.db_url)
        release = Path(scratch) / "release"
        course.generate_assignment(lab.name, database=True, release=release)
        released = nbformat.read(release / lab.name / f"{lab.name}.ipynb", as_version=4)
        parts = (lab, course.repository)
        notebooks = {"instructor": instructor, "released": released}
        whole = make_kit(_new(scratch, "whole"), *parts, **notebooks, stub=False)
        cache = course.folder / "grades" / lab.name / ".expected"
        threads = usable_cores()
        expected = reference_records(
            instructor, whole, cache, isolation=options.isolation, threads=threads, say=watch.say
        )
        kit = make_kit(_new(scratch, "kit"), *parts, **notebooks)
        kit = dataclasses.replace(kit, checks=check_names(expected), measures=measures(expected))
        kit.save()
        with Book(course.db_url, course.config, lab.name) as book:
            yield Run(lab, course, options, watch, kit, expected, book, instructor)


def _new(scratch: str, name: str) -> Path:
    path = Path(scratch) / name
    path.mkdir()
    path.chmod(0o755)  # for the sandbox's user; the folder around it stays closed to everybody else
    return path


@dataclass
class Run:
    """One lab's submissions on their way to results."""

    lab: Lab
    course: NbgraderCourse
    options: Options
    watch: Watch
    kit: Kit
    expected: Records
    book: Book
    instructor: nbformat.NotebookNode
    results: dict[str, Result] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = Store(self.folder)
        self.feedback = Feedback(f"{self.lab.title} ({self.lab.name})", self.instructor)
        judged = json.dumps([VERIFY_FORMAT, self.expected], sort_keys=True)
        self._expected_digest = hashlib.sha256(judged.encode()).hexdigest()

    @property
    def folder(self) -> Path:
        return self.course.folder / "grades" / self.lab.name

    def grade(self, submissions: list[Submission]) -> list[Result]:
        """Grade submissions. Returns their results, and those of students without one, by student."""
        self.watch.begin(len(submissions))
        pending = {}
        for submission in submissions:
            with self._surviving(submission):
                if not self._done_before(submission):
                    pending[submission.student] = submission
        for task, answer in self._executor(len(pending)).run(self._tasks(pending)):
            with self._surviving(pending[task.student]):
                self._take(pending[task.student], task, _read(answer))
        for student in self.book.students() - self.results.keys():
            self.results[student] = self._save(Result(student, self.lab.name, "missing", "nothing was handed in"))
        return [self.results[student] for student in sorted(self.results)]

    def _take(self, submission: Submission, task: Task, execution: dict) -> None:
        """Store what a worker has answered, and make it a result."""
        digest = execution_digest(self.kit, task.content)
        if execution.pop("try_again", False):
            digest = ""  # the next run finds no current record and tries again
        else:
            self.store.save(task.student, digest, execution)
        log_cell_times(self.folder / "cell_times.csv", task.student, execution.get("cell_seconds", []))
        self._finish(submission, execution, digest)

    @contextlib.contextmanager
    def _surviving(self, submission: Submission) -> Iterator[None]:
        """Whatever a submission makes this program stumble over is that student's result, not the end of the run."""
        try:
            yield
        except (CourseError, OSError):
            raise  # the course or this machine, not the submission
        except Exception as error:
            reason = f"the grader stumbled over it ({type(error).__name__}: {error}); please report this"
            self._finish(submission, {"outcome": "crashed", "reason": reason}, "")

    def _executor(self, n_tasks: int) -> Executor:
        if self.options.scheduler and n_tasks:
            return DaskCluster(self.options.scheduler, self.kit, self.options.isolation, self.options.limits)
        n_workers = max(1, min(self.options.workers or usable_cores(), n_tasks))
        threads = max(1, usable_cores() // n_workers)
        return LocalPool(Settings(self.kit.folder, self.options.isolation, self.options.limits, threads), n_workers)

    @staticmethod
    def _tasks(pending: dict[str, Submission]) -> Iterator[Task]:
        """Files are read when their turn comes."""
        return (Task(student, submission.read()) for student, submission in pending.items())

    def _done_before(self, submission: Submission) -> bool:
        """Whether nothing needs to be executed: no file, a current record, or a stored execution to judge again."""
        if submission.path is None:
            self._finish(submission, {"outcome": submission.outcome, "reason": submission.problem}, "")
            return True
        if self.options.force or (self.options.retry and self._failed_before(submission)):
            return False
        digest = execution_digest(self.kit, submission.read())
        if self._is_current(submission, digest):
            return True
        execution = self.store.load(submission.student, digest)
        if execution is None:
            return False
        self._finish(submission, execution, digest)
        return True

    def _failed_before(self, submission: Submission) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return not load_result(result_file(self.course.folder, self.lab.name, submission.student)).counts
        return False

    def _is_current(self, submission: Submission, digest: str) -> bool:
        """Whether the record is up to date; then only what people have marked since is taken over."""
        try:
            result = load_result(result_file(self.course.folder, self.lab.name, submission.student))
        except (OSError, ValueError):
            return False
        if result.digest != self._digest(submission, digest):
            return False
        marks = self.book.marks(submission.student)
        self.book.forget_read()
        if marks is None and result.outcome not in NOT_EXECUTED:
            return False
        merged = merge(result, marks) if marks else result
        self._keep(merged if merged == result else self._save(merged))
        self._write_feedback(merged, marks or Marks(), lambda: self.store.load(submission.student, digest))
        return True

    def _digest(self, submission: Submission, execution: str) -> str:
        parts = [execution, self._expected_digest, str(submission.timestamp), *submission.repairs]
        return hashlib.sha256("|".join(parts).encode()).hexdigest()

    def _finish(self, submission: Submission, execution: dict, digest: str) -> None:
        """Verify, record, write feedback; the record that says that all this is done comes last."""
        student, outcome = submission.student, execution["outcome"]
        start = time.monotonic()
        executed = outcome not in NOT_EXECUTED and execution.get("notebook") is not None
        cells = verify(execution, self.expected, self.kit) if executed else ()
        result = Result(
            student, self.lab.name, outcome, printable(execution.get("reason", ""), 1000), cells,
            tuple(printable(text, 300) for text in (*submission.repairs, *execution.get("repairs", ()))),
            tuple(printable(text, 300) for text in execution.get("flags", ())),
            graded_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            digest=self._digest(submission, digest),
        )  # fmt: skip
        verified = time.monotonic()
        notebook, marks = None, Marks()
        if executed:
            notebook = self._write_autograded(submission, execution, result)
            unanswered = self._unanswered(notebook)
            result = self.book.record(result, unanswered, submission.timestamp)
            marks = self.book.marks(student) or marks
            self.book.forget_read()
        else:
            self._forget(student)
        seconds = {**execution.get("seconds", {}), "verify": verified - start, "record": time.monotonic() - verified}
        result = dataclasses.replace(result, stage_seconds={name: round(value, 4) for name, value in seconds.items()})
        self._write_feedback(result, marks, lambda: {**execution, "notebook": notebook})
        self._keep(self._save(result))

    def _keep(self, result: Result) -> None:
        self.results[result.student] = result
        self.watch.finished(result.student, result.outcome)

    def _save(self, result: Result) -> Result:
        save_result(result, self.course.folder)
        return result

    def _forget(self, student: str) -> None:
        """Remove what an earlier submission left."""
        self.book.remove(student)
        shutil.rmtree(self.course.folder / "autograded" / student / self.lab.name, ignore_errors=True)

    def _write_autograded(self, submission: Submission, execution: dict, result: Result) -> dict:
        cells = {cell.name: cell for cell in result.cells}
        outcomes = {name: outcomes_of(execution, name, self.expected) for name in self.expected}
        notebook = autograded_notebook(execution["notebook"], self.instructor, cells, outcomes)
        folder = self.course.folder / "autograded" / submission.student / self.lab.name
        write_autograded(notebook, folder, self.lab.name, submission.folder)
        return notebook

    def _unanswered(self, notebook: dict) -> set[str]:
        """Names of the solution cells that were left as released."""
        sources = {c["metadata"].get("nbgrader", {}).get("grade_id"): c["source"] for c in notebook["cells"]}
        planned = (cell for cell in self.kit.cells if cell.solution)
        return {cell.name for cell in planned if same_text(sources.get(cell.name, cell.source), cell.source)}

    def _write_feedback(self, result: Result, marks: Marks, execution: object) -> None:
        """Write the page unless it is there and current; `execution` is called only when it is needed."""
        path = self.course.folder / "feedback" / result.student / self.lab.name / f"{self.lab.name}.html"
        digest = hashlib.sha256(f"{result.digest}|{result.outcome}|{result.cells}|{marks.digest}".encode()).hexdigest()
        if digest_in(path) == digest and not self.options.force:
            return
        found = execution() or {}
        notebook = found.get("notebook")
        page = self.feedback.page(result, notebook, marks.comments, found.get("withhold_outputs", True), digest)
        write_page(page, path)


def _read(answer: bytes | None) -> dict:
    if answer is None:
        return {"outcome": "crashed", "reason": "the worker that ran it died, twice", "try_again": True}
    return json.loads(answer)
