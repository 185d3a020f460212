"""One nbgrader course, driven in process: its configuration, its gradebook and the calls that `course` needs."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nbgrader.converters import GenerateAssignment
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import SaveCells
from sqlalchemy.exc import SAWarning
from traitlets.config import Config, PyFileConfigLoader

from course_admin.paths import CourseError, Repository


class NbgraderCourse:
    """The nbgrader course in a folder, with the repository's nbgrader_config.py.

    Args:
        repository: where nbgrader_config.py is.
        folder: the course's own folder (submitted/, autograded/, feedback/, gradebook.db); default: the repository.
        source: the instructor's notebooks; default: the repository's solutions/.
        db_url: SQLAlchemy address of the gradebook; default: nbgrader_config.py's, else gradebook.db in the folder.
    """

    def __init__(
        self,
        repository: Repository,
        folder: Path | None = None,
        source: Path | None = None,
        db_url: str | None = None,
    ):
        _put_tools_on_path()
        self.repository = repository
        self.folder = (folder or repository.root).resolve()
        self.config = PyFileConfigLoader("nbgrader_config.py", path=str(repository.root)).load_config()
        self.config.CourseDirectory.root = str(self.folder)
        configured = self.config.CourseDirectory.get("db_url")
        self.config.CourseDirectory.db_url = db_url or configured or f"sqlite:///{self.folder / 'gradebook.db'}"
        self.config.CourseDirectory.source_directory = str(source or repository.solutions)
        self.config.CourseDirectory.release_directory = str(repository.labs)

    @property
    def source(self) -> Path:
        return Path(self.config.CourseDirectory.source_directory)

    @property
    def db_url(self) -> str:
        return str(self.config.CourseDirectory.db_url)

    def generate_assignment(self, assignment: str, *, database: bool, release: Path | None = None) -> None:
        """nbgrader's generate_assignment. Raises CourseError with nbgrader's log when it refuses.

        Args:
            assignment: name of the assignment.
            database: record it in the gradebook, or leave the gradebook alone.
            release: where to write the students' notebook instead of the course's release folder.
        """
        config = Config(self.config)
        config.GenerateAssignment.force = True
        if release is not None:
            config.CourseDirectory.release_directory = str(release)
        if not database:
            config.GenerateAssignment.no_database = True
            steps = config.GenerateAssignment.preprocessors
            config.GenerateAssignment.preprocessors = [step for step in steps if step is not SaveCells]
        reason = self._convert(GenerateAssignment, config, assignment, "*")
        if reason:
            advice = "; if graded cells were renamed, added or removed, grade into a fresh --folder" if database else ""
            raise CourseError(f"nbgrader could not release {assignment}: {reason}{advice}")

    @staticmethod
    def _convert(converter: type, config: Config, assignment: str, student: str) -> str:
        """Run one of nbgrader's converters. Returns '' or the last errors that it logged."""
        config.CourseDirectory.assignment_id = assignment
        if student != "*":
            config.CourseDirectory.student_id = student
        with captured_log() as lines:
            try:
                converter(coursedir=CourseDirectory(config=config), config=config).start()
            except (Exception, SystemExit) as error:
                return _reason(lines, error)
        return ""


def _reason(lines: list[str], error: BaseException) -> str:
    """One line that says why nbgrader failed: the last line of the first traceback that it logged."""
    logged = [line.strip() for line in (lines[0] if lines else "").splitlines() if line.strip()]
    return (logged[-1] if logged else f"{type(error).__name__}: {error}")[:300]


def _put_tools_on_path() -> None:
    """Let nbgrader find `alembic`, which it starts as a command, when the environment is not activated."""
    tools = str(Path(sys.executable).parent)
    if tools not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([tools, os.environ.get("PATH", "")])


@contextmanager
def captured_log() -> Iterator[list[str]]:
    """Collect the errors that nbgrader and traitlets log, and print nothing of their log."""
    lines: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("traitlets")
    kept = logger.handlers[:], logger.propagate, logger.level
    logger.handlers, logger.propagate = [handler], False
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=SAWarning)  # nbgrader's own queries
            yield lines
    finally:
        logger.handlers, logger.propagate, logger.level = kept
