"""What grading one submission ends in, and the file that keeps it: grades/<lab>/<student>.json in the course folder.

Everything that looks at results (tables, feedback, reports, exports) reads these records, so that it needs neither the
submission nor the gradebook. A record holds no expected value and no hidden source; what it says of a hidden check is
its name, its hint and whether it passed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, get_args

from course_utils.files import replacing

Outcome = Literal[
    "graded", "missing", "unreadable", "crashed", "timed out", "out of memory", "output too large", "tampered"
]
OUTCOMES: tuple[str, ...] = get_args(Outcome)
UNFINISHED = ("not implemented yet", "missing")  # how a check says that there was nothing to check


def printable(text: object, most: int) -> str:
    """Text that may come from a student's process, for records, pages and terminals.

    Args:
        text: anything; control characters, surrogates and invisible marks become a replacement character.
        most: characters that are kept.

    Returns:
        At most so many printable characters; line ends and tabs are spaces.
    """
    spaced = str(text)[:most].translate({ord(char): " " for char in "\n\r\t"})
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in spaced)


def short(name: str) -> str:
    """What people call a cell: 'soft_threshold' of 'check_soft_threshold', 'bias (written)' of 'answer_bias'."""
    kind, _, rest = name.partition("_")
    return rest if kind == "check" else f"{rest} (written)" if kind == "answer" else name


@dataclass(frozen=True)
class CheckResult:
    """One named check of one graded cell."""

    name: str
    passed: bool
    problem: str = ""  # what was wrong, in words that reveal no expected value; empty when passed
    hint: str = ""
    visible: bool = True  # False: a hidden check

    @property
    def unfinished(self) -> bool:
        """Whether there was nothing to check: the exercise is missing or still its stub."""
        return self.problem.startswith(UNFINISHED)


@dataclass(frozen=True)
class CellResult:
    """One graded cell: a code cell with checks, or a written answer (checks empty).

    points is None while a person still has to mark it, or where the cell could not be graded.
    """

    name: str
    points: float | None
    maximum: float
    checks: tuple[CheckResult, ...] = ()
    seconds: float = 0.0  # wall time of the cell


@dataclass(frozen=True)
class Result:
    """One student's result for one lab.

    A result with an outcome other than "graded" and "tampered" exports as blank plus its reason; the cells keep the
    points that were earned before things went wrong.
    """

    student: str
    lab: str
    outcome: Outcome
    reason: str = ""  # one sentence for people; empty for "graded"
    cells: tuple[CellResult, ...] = ()
    repairs: tuple[str, ...] = ()  # what was repaired before execution, one sentence each
    flags: tuple[str, ...] = ()  # what looked like tampering, one sentence each
    submitted_at: str = ""  # ISO 8601 with time zone, empty if not known
    graded_at: str = ""
    seconds_late: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)  # start, import, cells, conversion, verify, record
    digest: str = ""  # of everything the result depends on
    penalty: float = 0.0  # points that the policy for late work takes

    @property
    def points(self) -> float:
        """Points reached so far, less the penalty for late work."""
        return max(sum(cell.points or 0.0 for cell in self.cells) - self.penalty, 0.0)

    @property
    def maximum(self) -> float:
        """Points of the lab."""
        return sum(cell.maximum for cell in self.cells)

    @property
    def waiting(self) -> float:
        """Points of the cells that have none yet: written answers that nobody has marked."""
        return sum(cell.maximum for cell in self.cells if cell.points is None)

    @property
    def counts(self) -> bool:
        """Whether the total may be exported as a number."""
        return self.outcome in ("graded", "tampered")


def result_file(course_folder: Path, lab: str, student: str) -> Path:
    """Where a student's record lies."""
    return course_folder / "grades" / lab / f"{student}.json"


def save_result(result: Result, course_folder: Path) -> Path:
    """Write the record; whoever reads it at the same moment sees the old one or the new one, never half of it."""
    path = result_file(course_folder, result.lab, result.student)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
    return path


def load_result(path: Path) -> Result:
    """Read a record that save_result wrote.

    Args:
        path: the file.

    Returns:
        The result.

    Raises:
        ValueError: if the file does not hold one.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        data["cells"] = tuple(
            CellResult(**{**cell, "checks": tuple(CheckResult(**check) for check in cell["checks"])})
            for cell in data["cells"]
        )
        data["repairs"], data["flags"] = tuple(data["repairs"]), tuple(data["flags"])
        return Result(**data)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is not a grading record ({error}); grade it again with --force") from None


def load_results(course_folder: Path, lab: str) -> list[Result]:
    """All records of a lab, by student."""
    return [load_result(path) for path in sorted((course_folder / "grades" / lab).glob("[!.]*.json"))]
