"""The object that a graded cell talks to.

    check = Checks("soft_threshold")
    check.close("shrinks towards zero", lambda: soft_threshold(w, 0.5), [-1.5, 0.0, 1.0], atol=1e-12)
    check.score(points=3)

What a check looks at is data or a function without arguments that returns data. The function is called once, inside the
check, so that code that is missing, unfinished or broken becomes a failed check with advice instead of a traceback.

Open mode (the default) compares at once; `score` shows a table and returns the points, which nbgrader reads as partial
credit. Sealed mode (COURSE_CHECKS=sealed) evaluates no expected value and compares nothing: `score` emits what was
observed as JSON for `course_utils.checks.judge`, which compares it elsewhere with what the instructor's notebook
expects: mode "expected", in which that notebook emits the expected values in place of the observed ones.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from course_utils.checks import table
from course_utils.checks.compare import Problem, Tolerance
from course_utils.checks.judging import Artefact, Observation, Outcome, Raised, fraction_of_points, judge_all
from course_utils.checks.values import NotPlain, plain

MODES = ("open", "sealed", "expected")


class Score(float):
    """Points reached. Prints as a bare number, which is what nbgrader reads; Jupyter shows the table of checks."""

    outcomes: tuple[Outcome, ...]
    _html: str

    def __new__(cls, value: float, outcomes: tuple[Outcome, ...] = (), html: str = "") -> Score:
        score = super().__new__(cls, value)
        score.outcomes = outcomes
        score._html = html
        return score

    def _repr_html_(self) -> str:
        return self._html

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(float.__repr__(self))  # whatever %precision says


class Checks:
    """Named checks of one graded cell.

    Args:
        name: name of the exercise or question; the cell's id is derived from it.

    Raises:
        ValueError: if the name is empty, or COURSE_CHECKS is neither 'open' nor 'sealed'.
    """

    def __init__(self, name: str):
        if not name or not isinstance(name, str):
            raise ValueError(f"Checks needs the name of the exercise as a non-empty string, got {name!r}")
        self.name = name
        self.mode = os.environ.get("COURSE_CHECKS", "open")
        if self.mode not in MODES:
            raise ValueError(f"COURSE_CHECKS must be one of {', '.join(MODES)}; got {self.mode!r}")
        if self.mode != "open" and _nbgrader_grades():
            raise ValueError(
                f"COURSE_CHECKS={self.mode} shows no points, so nbgrader's autograde cannot use it; unset it"
            )
        self._observations: list[Observation] = []

    def close(
        self, name: str, actual: Any, expected: Any, *, rtol: float = 0.0, atol: float = 0.0, hint: str = ""
    ) -> None:
        """Check |actual - expected| <= atol + rtol |expected| for every entry; shapes must agree.

        Args:
            name: what the check shows, unique within the cell.
            actual: data, or a function without arguments that returns data.
            expected: data, or a function without arguments that is called in open mode only.
            rtol: relative tolerance; rtol or atol is > 0.
            atol: absolute tolerance.
            hint: advice shown when the check fails.
        """
        if rtol < 0 or atol < 0 or rtol + atol == 0:
            raise ValueError(
                f"{name!r}: close needs rtol > 0 or atol > 0, got rtol={rtol}, atol={atol}; exact values: equal"
            )
        self._add(name, "close", self.observe(actual), expected, Tolerance(rtol, atol), hint)

    def equal(self, name: str, actual: Any, expected: Any, *, dtype: bool = False, hint: str = "") -> None:
        """Check exact equality: masks, counts, strings, truth values, lists or dicts of them. See close for Args."""
        self._add(name, "equal", self.observe(actual), expected, Tolerance(dtype=dtype), hint)

    def at_least(self, name: str, actual: Any, bound: float, *, hint: str = "") -> None:
        """Check that actual is one number >= bound."""
        self._add(name, "at_least", self.observe(actual), bound, Tolerance(), hint)

    def at_most(self, name: str, actual: Any, bound: float, *, hint: str = "") -> None:
        """Check that actual is one number <= bound."""
        self._add(name, "at_most", self.observe(actual), bound, Tolerance(), hint)

    def measured(
        self,
        name: str,
        artefact: Any,
        measure: Callable[[Any], float],
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        hint: str = "",
    ) -> None:
        """Check a number that is measured on an artefact: measure(artefact) >= at_least, or <= at_most.

        For results that code could otherwise report about itself, such as an accuracy. In sealed mode only the
        artefact is recorded; whoever grades measures it, where the code that made it has never run.

        Args:
            name: what the check shows, unique within the cell.
            artefact: data (bytes of a file as an array, for example), or a function without arguments that returns it.
            measure: a function at the top level of a module of the course, from the artefact to one number.
            at_least: lower bound.
            at_most: upper bound; a check has one bound, not both.
            hint: advice shown when the check fails.

        Raises:
            ValueError: If there is not exactly one bound (in sealed mode there may be none: whoever grades has it).
        """
        n_bounds = (at_least is not None) + (at_most is not None)
        if n_bounds != 1 and not (n_bounds == 0 and self.mode == "sealed"):
            raise ValueError(f"{name}: give at_least or at_most, one of them; got {at_least} and {at_most}")
        made = self.observe(artefact)
        kind, bound = ("at_most", at_most) if at_least is None else ("at_least", at_least)
        if self.mode == "sealed":
            self._add(name, "measured", Artefact(made), None, Tolerance(), hint)
            return
        known = isinstance(made, (Raised, Problem))
        self._add(name, kind, made if known else self.observe(lambda: measure(made)), bound, Tolerance(), hint, measure)

    def raises(self, name: str, function: Callable[[], Any], exception: type[Exception], *, hint: str = "") -> None:
        """Check that calling the function raises the exception (or a subclass; an unfinished stub does not count)."""
        self._add(name, "raises", self.observe(function), exception.__name__, Tolerance(), hint)

    def score(self, points: float) -> Score | None:
        """The cell's last line: points times the fraction of passed checks, shown with a table.

        Args:
            points: what the cell is worth when every check passes, > 0.

        Returns:
            The points reached, rounded down to hundredths, so that only a cell with every check passed reaches the full
            points; None in the other modes, where nothing is compared.

        Raises:
            ValueError: if there is no check, or points is not a number > 0.
        """
        if not self._observations:
            raise ValueError(f"{self.name}: score() was called before any check was made")
        if isinstance(points, bool) or not isinstance(points, (int, float)) or not points > 0:
            raise ValueError(f"{self.name}: points must be a number > 0, got {points!r}")
        if self.mode != "open":
            from course_utils.checks import sealed

            sealed.emit(self.name, points, self._observations)
            return None
        outcomes = tuple(judge_all(self._observations))
        value = fraction_of_points(outcomes, points)
        # While nbgrader grades, what was expected stays out of the table: the notebook becomes the student's feedback.
        reveal = not _nbgrader_grades()
        if not _in_jupyter():
            print(table.as_text(self.name, outcomes, value, points, reveal))
        return Score(value, outcomes, table.as_html(self.name, outcomes, value, points, reveal))

    def _add(
        self,
        name: str,
        kind: str,
        actual: Any,
        expected: Any,
        tolerance: Tolerance,
        hint: str,
        measure: Callable[[Any], float] | None = None,
    ) -> None:
        if any(observation.name == name for observation in self._observations):
            raise ValueError(f"{self.name}: two checks are named {name!r}; names must be unique within a cell")
        if self.mode == "expected" and kind in ("close", "equal"):
            actual = self.observe(expected)
        if kind in ("close", "equal"):  # what is expected may be computed by the student's code too, and fail
            expected = self.observe(expected) if self.mode == "open" else None
        self._observations.append(Observation(name, kind, actual, expected, tolerance, hint, measure))

    def observe(self, actual: Any) -> Any:
        """The actual value as plain data, or Raised, or the Problem that it is not data."""
        try:
            # What code writes to stderr (warnings, progress bars) is shown, but must not decide a grade: nbgrader
            # gives 0 points to a graded cell with output on stderr.
            with contextlib.redirect_stderr(sys.stdout):
                value = actual() if callable(actual) else actual
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also SystemExit and its like: one check fails, the cell goes on
            types = tuple(cls.__name__ for cls in type(error).__mro__[:-2])
            return Raised(types, _message(error), _last_line_in_cell(error))
        try:
            return plain(value)
        except NotPlain as error:
            return Problem("wrong type", f"got {error}")
        except Exception as error:  # an object that breaks when it is looked at
            return Problem("wrong type", f"got an object that cannot be read ({type(error).__name__})")


def _message(error: BaseException) -> str:
    """The exception's message, also when its own __str__ is broken."""
    try:
        return str(error)[:500]
    except Exception:
        return "(the exception has no readable message)"


def _nbgrader_grades() -> bool:
    return os.environ.get("NBGRADER_EXECUTION") == "autograde"


def _last_line_in_cell(error: BaseException) -> str:
    """Where in the person's own code the error arose: the last frame that lies in a notebook cell."""
    frames = traceback.extract_tb(error.__traceback__)
    cells = [frame for frame in frames if "ipykernel" in frame.filename or frame.filename.startswith("<ipython")]
    return f" (in {cells[-1].name}, line {cells[-1].lineno}: {cells[-1].line})" if cells else ""


def _in_jupyter() -> bool:
    """True in a notebook kernel, where the returned Score displays itself."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None
