"""nbgrader's gradebook: one submission, one transaction.

nbgrader's own preprocessors commit after every cell. Here a submission's scores, comments, time and penalty are written
together or not at all, in the same tables, so that formgrader, manual grading, `nbgrader export` and
`nbgrader generate_feedback` see what they expect.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import logging
from dataclasses import dataclass, field
from pathlib import Path

import nbgrader
from alembic.script import ScriptDirectory
from nbgrader.api import Base, Comment, Grade, Gradebook, Student, SubmittedAssignment, SubmittedNotebook
from nbgrader.preprocessors import AssignLatePenalties
from nbgrader.utils import parse_utc
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import ArgumentError, DBAPIError
from traitlets.config import Config

from course_admin.grading.results import CellResult, Result
from course_admin.paths import CourseError

NO_RESPONSE = "No response."


def create_gradebook(db_url: str) -> None:
    """Make an empty gradebook unless it is there; as nbgrader does, which starts a program for its schema's version."""
    try:
        engine = create_engine(db_url, future=True)
    except (ImportError, ArgumentError) as error:
        raise CourseError(f"the gradebook {db_url!r} cannot be used: {error}") from None
    try:
        if "alembic_version" in (present := inspect(engine).get_table_names()):
            return
        if present:
            raise CourseError(
                f"{engine.url.render_as_string(hide_password=True)} is no complete nbgrader gradebook (it has no table "
                "alembic_version); move it away, or give another with --gradebook"
            )
        scripts = ScriptDirectory(str(Path(nbgrader.__file__).with_name("alembic")))
        with engine.begin() as connection:
            Base.metadata.create_all(connection)
            connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)"))
            connection.execute(
                text("INSERT INTO alembic_version (version_num) VALUES (:head)"), {"head": scripts.get_current_head()}
            )
    except DBAPIError as error:
        where = engine.url.render_as_string(hide_password=True)
        raise CourseError(f"the gradebook's database {where} does not answer: {error.orig}") from None
    finally:
        engine.dispose()


@dataclass
class Marks:
    """What the gradebook knows of one submission beyond its automatic scores."""

    comments: dict[str, str] = field(default_factory=dict)
    penalty: float = 0.0
    seconds_late: float = 0.0
    submitted_at: str = ""
    scores: dict[str, float | None] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Changes when a person has marked something."""
        return hashlib.sha256(repr(dataclasses.astuple(self)).encode()).hexdigest()[:16]


class Book:
    """The gradebook during one grading run.

    Args:
        db_url: SQLAlchemy address of the gradebook.
        config: the course's nbgrader configuration.
        lab: name of the lab; the gradebook knows it already.
    """

    def __init__(self, db_url: str, config: Config, lab: str):
        self._gradebook = Gradebook(db_url, config.CourseDirectory.get("course_id", "default_course"))
        self.db = self._gradebook.db
        self._lab = lab
        late = AssignLatePenalties(parent=None, config=config)
        late.log = logging.getLogger("course.late")
        late.init_plugin()
        self._late = late

    def __enter__(self) -> Book:
        return self

    def __exit__(self, *_: object) -> None:
        self._gradebook.close()

    def record(self, result: Result, unanswered: set[str], timestamp: str | None) -> Result:
        """Write a result; returns it with what people have marked, and with its lateness.

        Args:
            result: cells with automatic points.
            unanswered: names of the solution cells that were left as released.
            timestamp: when it was handed in, in any form that nbgrader reads; None if that is not known.

        Returns:
            The result as the gradebook now has it.
        """
        try:
            submission = self._find(result.student) or self._create(result.student)
            submission.timestamp = parse_utc(timestamp) if timestamp else None
            points = {cell.name: cell.points for cell in result.cells}
            for notebook in submission.notebooks:
                self._fill(notebook, points, unanswered)
                self._penalise(submission, notebook)
            marked = merge(result, self._marks(submission))
            self.db.commit()
        except BaseException:
            self.db.rollback()
            raise
        return marked

    def remove(self, student: str) -> None:
        """Remove a submission, so that nobody takes the points of an earlier one for those of one that failed."""
        submission = self._find(student)
        if submission is None:
            return
        try:
            for notebook in submission.notebooks:
                for item in (*notebook.grades, *notebook.comments):
                    self.db.delete(item)
                self.db.delete(notebook)
            self.db.delete(submission)
            self.db.commit()
        except BaseException:
            self.db.rollback()
            raise

    def marks(self, student: str) -> Marks | None:
        """What the gradebook has of a submission, or None if it has none."""
        submission = self._find(student)
        return None if submission is None else self._marks(submission)

    def students(self) -> set[str]:
        """Everybody whom the gradebook knows."""
        return {student for (student,) in self.db.query(Student.id)}

    def forget_read(self) -> None:
        """Let go of what was read, so that a large class does not stay in memory."""
        self.db.expunge_all()

    def _find(self, student: str) -> SubmittedAssignment | None:
        query = self.db.query(SubmittedAssignment).filter(SubmittedAssignment.student_id == student)
        assignment = self._gradebook.find_assignment(self._lab)
        return query.filter(SubmittedAssignment.assignment_id == assignment.id).one_or_none()

    def _create(self, student: str) -> SubmittedAssignment:
        """As Gradebook.add_submission, without its commits."""
        assignment = self._gradebook.find_assignment(self._lab)
        if self.db.get(Student, student) is None:
            self.db.add(Student(id=student))
        submission = SubmittedAssignment(assignment_id=assignment.id, student_id=student)
        self.db.add(submission)
        for notebook in assignment.notebooks:
            self.db.add(SubmittedNotebook(notebook=notebook, assignment=submission))
        self.db.flush()
        return submission

    def _fill(self, notebook: SubmittedNotebook, points: dict[str, float | None], unanswered: set[str]) -> None:
        grades = {grade.cell_id: grade for grade in notebook.grades}
        for cell in notebook.notebook.grade_cells:
            grade = grades.get(cell.id) or Grade(cell=cell, notebook=notebook)
            self.db.add(grade)
            grade.auto_score = points.get(cell.name)
            grade.needs_manual_grade = grade.manual_score is not None or grade.auto_score is None
        comments = {comment.cell_id: comment for comment in notebook.comments}
        for cell in notebook.notebook.solution_cells:
            comment = comments.get(cell.id) or Comment(cell=cell, notebook=notebook)
            self.db.add(comment)
            comment.auto_comment = NO_RESPONSE if cell.name in unanswered else None
        self.db.flush()

    def _penalise(self, submission: SubmittedAssignment, notebook: SubmittedNotebook) -> None:
        notebook.late_submission_penalty = None
        late = submission.total_seconds_late
        if late > 0:
            score = sum(_score(grade) or 0.0 for grade in notebook.grades)
            penalty = self._late.plugin_inst.late_submission_penalty(submission.student_id, score, late)
            if penalty is not None:
                notebook.late_submission_penalty = min(max(float(penalty), 0.0), score)

    def _marks(self, submission: SubmittedAssignment) -> Marks:
        marks = Marks(seconds_late=float(submission.total_seconds_late))
        if submission.timestamp is not None:
            marks.submitted_at = submission.timestamp.replace(tzinfo=datetime.UTC).isoformat()
        for notebook in submission.notebooks:
            marks.penalty += float(notebook.late_submission_penalty or 0.0)
            for grade in notebook.grades:
                marks.scores[grade.cell.name] = _score(grade)
            for comment in notebook.comments:
                text = comment.manual_comment or comment.auto_comment
                if text:
                    marks.comments[comment.cell.name] = text
        return marks


def _score(grade: Grade) -> float | None:
    """Points of a graded cell as nbgrader counts them; None while nobody knows."""
    known = grade.manual_score if grade.manual_score is not None else grade.auto_score
    return None if known is None else float(known) + float(grade.extra_credit or 0.0)


def merge(result: Result, marks: Marks) -> Result:
    """A result with the scores that the gradebook has: manual ones replace automatic ones."""
    cells = tuple(_marked(cell, marks.scores) for cell in result.cells)
    return dataclasses.replace(
        result, cells=cells, penalty=marks.penalty, seconds_late=marks.seconds_late, submitted_at=marks.submitted_at
    )


def _marked(cell: CellResult, scores: dict[str, float | None]) -> CellResult:
    return dataclasses.replace(cell, points=scores.get(cell.name, cell.points))


def timestamp_of(folder: Path) -> str | None:
    """The time in a submission's timestamp.txt, as nbgrader's collecting writes it, if it holds one."""
    path = folder / "timestamp.txt"
    if not path.is_file() or path.is_symlink():
        return None
    with path.open("rb") as file:
        text = file.read(200).decode("utf-8", errors="replace").strip()[:100]
    try:
        parse_utc(text)
    except Exception:  # a student may have written it, and the parser raises what it likes (decimal.InvalidOperation)
        return None
    return text or None
