"""What the records of a class say about its checks.

For a check i with outcome x_i (1 passed, 0 failed) of each student:

* difficulty p_i = mean of x_i, the fraction that passed (so a large p is easy, as the field calls it);
* discrimination r_i = correlation of x_i with R_i, the points of the same student in all *other* graded code cells:

      r_i = (mean(R | passed) - mean(R | failed)) / s_R * sqrt(p_i (1 - p_i)),

  the point-biserial correlation, s_R with divisor n. Leaving out the check's own cell corrects it: otherwise the check
  would be correlated with itself and with its neighbours, which fail together. Near 0: whether a student passes says
  nothing about the rest; negative: good students fail it, so look at the check first. Undefined when all pass or fail.

Small classes get no numbers that mean nothing: percentages from MIN_FOR_PERCENT students on, quartiles and pictures of
distributions from MIN_FOR_SPREAD, r from MIN_FOR_DISCRIMINATION; with 20 students and r = 0 its 95 % interval
(Fisher's transformation, tanh(1.96 / sqrt(n - 3))) reaches from -0.44 to 0.44 already.

Source: Lord and Novick, Statistical Theories of Mental Test Scores (1968), chapter 15; Henrysson (1963) for the
correction.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from course_admin.grading.results import CellResult, CheckResult, Result, short

MIN_FOR_PERCENT = 5
MIN_FOR_SPREAD = 8
MIN_FOR_DISCRIMINATION = 20


@dataclass(frozen=True)
class CheckStatistics:
    """One check over the class. r is None where it is undefined or the class is too small."""

    cell: str
    name: str
    visible: bool
    n: int
    n_passed: int
    n_unfinished: int
    r: float | None
    problems: tuple[tuple[str, int], ...]  # what was wrong with what was written, most frequent first
    hint: str = ""

    @property
    def fraction(self) -> float:
        return self.n_passed / self.n if self.n else math.nan

    @property
    def n_wrong(self) -> int:
        """Failed although something was written."""
        return self.n - self.n_passed - self.n_unfinished


@dataclass(frozen=True)
class CellStatistics:
    """One graded cell over the class; points and times of the students whose cell has some."""

    name: str
    maximum: float
    points: tuple[float, ...]
    n_waiting: int
    seconds: tuple[float, ...]
    written: bool

    @property
    def fraction(self) -> float:
        """Mean fraction of the points; NaN without any."""
        return statistics.fmean(self.points) / self.maximum if self.points and self.maximum else math.nan


@dataclass(frozen=True)
class ClassStatistics:
    """All numbers of a report."""

    lab: str
    results: tuple[Result, ...]
    cells: tuple[CellStatistics, ...]
    checks: tuple[CheckStatistics, ...]

    @property
    def counted(self) -> list[Result]:
        """The results whose total is a number."""
        return [result for result in self.results if result.counts]

    @property
    def uncounted(self) -> list[Result]:
        """The results that are not exported as a number."""
        return [result for result in self.results if not result.counts]

    @property
    def points(self) -> list[float]:
        """Points reached so far by each counted student."""
        return [result.points for result in self.counted]

    @property
    def maximum(self) -> float:
        return max((result.maximum for result in self.results), default=0.0)

    @property
    def outcomes(self) -> dict[str, int]:
        """Outcome -> number of students, most frequent first."""
        return dict(Counter(result.outcome for result in self.results).most_common())

    @property
    def late(self) -> list[Result]:
        """Late submissions, the latest first."""
        found = (result for result in self.results if result.seconds_late > 0)
        return sorted(found, key=lambda result: -result.seconds_late)


def class_statistics(results: Iterable[Result], lab: str) -> ClassStatistics:
    """Every number of the report.

    Args:
        results: the records of the class, of one lab; there may be none.
        lab: the lab's name.

    Returns:
        The statistics; cells and checks in the order in which they first appear.
    """
    results = tuple(sorted(results, key=lambda result: result.student))
    counted = [result for result in results if result.counts]
    names = list(dict.fromkeys(cell.name for result in results for cell in result.cells))
    cells = tuple(_cell(name, counted, results) for name in names)
    checks = tuple(check for name in names for check in _checks(name, counted))
    return ClassStatistics(lab, results, cells, checks)


def _cells(results: Iterable[Result], name: str) -> list[tuple[Result, CellResult]]:
    return [(result, cell) for result in results for cell in result.cells if cell.name == name]


def _cell(name: str, counted: Sequence[Result], results: Sequence[Result]) -> CellStatistics:
    mine = [cell for _, cell in _cells(counted, name)]
    points = tuple(cell.points for cell in mine if cell.points is not None)
    everywhere = [cell for _, cell in _cells(results, name)]
    return CellStatistics(
        name,
        max(cell.maximum for cell in everywhere),
        points,
        sum(cell.points is None for cell in mine),
        tuple(cell.seconds for cell in everywhere if cell.seconds > 0),
        written=not any(cell.checks for cell in everywhere),
    )


def _checks(name: str, counted: Sequence[Result]) -> list[CheckStatistics]:
    observed: dict[str, list[tuple[CheckResult, float]]] = {}
    for result, cell in _cells(counted, name):
        rest = sum(other.points or 0.0 for other in result.cells if other.checks and other.name != name)
        for check in cell.checks:
            observed.setdefault(check.name, []).append((check, rest))
    return [_check(name, items) for items in observed.values()]


def _check(cell: str, items: list[tuple[CheckResult, float]]) -> CheckStatistics:
    first = items[0][0]
    failed = [check for check, _ in items if not check.passed]
    unfinished = [check for check in failed if check.unfinished]
    problems = Counter(check.problem for check in failed if check.problem and check not in unfinished)
    return CheckStatistics(
        cell,
        first.name,
        first.visible,
        len(items),
        len(items) - len(failed),
        len(unfinished),
        point_biserial([check.passed for check, _ in items], [rest for _, rest in items]),
        tuple(problems.most_common(3)),
        first.hint,
    )


def point_biserial(passed: Sequence[bool], rest: Sequence[float]) -> float | None:
    """r = (mean(R | passed) - mean(R | failed)) / s_R * sqrt(p (1 - p)), with s_R of divisor n.

    Args:
        passed: whether each student passed.
        rest: R, each student's points in the other cells.

    Returns:
        r, or None for fewer than MIN_FOR_DISCRIMINATION students, when all passed or failed, or when R is constant.
    """
    n, n_passed = len(passed), sum(passed)
    spread = statistics.pstdev(rest) if rest else 0.0
    if n < MIN_FOR_DISCRIMINATION or n_passed in (0, n) or spread < 1e-9 * max(1.0, max(map(abs, rest))):
        return None
    mean_passed = statistics.fmean(r for r, ok in zip(rest, passed, strict=True) if ok)
    mean_failed = statistics.fmean(r for r, ok in zip(rest, passed, strict=True) if not ok)
    p = n_passed / n
    return (mean_passed - mean_failed) / spread * math.sqrt(p * (1 - p))


def quartiles(values: Sequence[float]) -> tuple[float, float, float] | None:
    """(lower quartile, median, upper quartile), interpolated; None for fewer than MIN_FOR_SPREAD values."""
    if len(values) < MIN_FOR_SPREAD:
        return None
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def seconds_of(result: Result) -> float:
    """Wall time of grading one submission: the sum of its stages, or of its cells where stages are not known."""
    return sum(result.stage_seconds.values()) or sum(cell.seconds for cell in result.cells)


def share(count: int, n: int) -> str:
    """'17 of 40 (42 %)'; without the percentage for fewer than MIN_FOR_PERCENT students."""
    return f"{count} of {n}" + (f" ({100 * count / n:.0f} %)" if n >= MIN_FOR_PERCENT else "")


def remarks(found: ClassStatistics) -> list[str]:
    """What an instructor should look at first, in words, most urgent first; empty when there is nothing."""
    lines = []
    if found.uncounted:
        lines.append(f"No grade yet for {share(len(found.uncounted), len(found.results))} submissions; see Outcomes.")
    flagged = [result.student for result in found.results if result.flags]
    if flagged:
        more = f" and {len(flagged) - 8} more" if len(flagged) > 8 else ""
        lines.append(f"Looks tampered with: {', '.join(flagged[:8])}{more}; see Flags.")
    waiting = [result for result in found.counted if result.waiting]
    if waiting:
        lines.append(f"Written answers wait for marks: {share(len(waiting), len(found.counted))} submissions.")
    return lines + _remarks_on_checks(found)


def _remarks_on_checks(found: ClassStatistics) -> list[str]:
    lines = []
    enough = [check for check in found.checks if check.n >= MIN_FOR_PERCENT]
    if hard := [check for check in enough if check.n_wrong / check.n > 0.5]:
        lines.append(f"More than half of the class got these checks wrong: {_names(hard)}.")
    if skipped := [check for check in enough if check.n_unfinished / check.n > 0.5]:
        cells = list(dict.fromkeys(short(check.cell) for check in skipped))
        lines.append(f"More than half of the class did not write: {', '.join(cells)}.")
    if odd := [check for check in found.checks if check.r is not None and check.r < 0]:
        lines.append(f"Better students fail these checks more often; are the checks right? {_names(odd)}.")
    if enough and all(check.n_passed == check.n for check in enough):
        lines.append("Every check was passed by everybody, so the checks tell the students of this class not apart.")
    return lines


def _names(checks: list[CheckStatistics]) -> str:
    shown = [f"{short(check.cell)}: {check.name}" for check in checks[:6]]
    return "; ".join(shown) + (f" and {len(checks) - 6} more" if len(checks) > 6 else "")
