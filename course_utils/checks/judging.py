"""What a check saw, and the comparison with what is expected: the same for open, sealed and graded notebooks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from course_utils.checks import compare
from course_utils.checks.compare import Problem, Tolerance
from course_utils.checks.values import describe, plain


@dataclass(frozen=True)
class Raised:
    """An exception that the observed code raised: names of its type and base types, message, last line in a cell."""

    types: tuple[str, ...]
    message: str
    where: str = ""

    def problem(self) -> Problem:
        """The failed check that this exception means, with advice for the two that everybody meets first."""
        if self.types[0] == "NotImplementedError":
            return Problem("not implemented yet", f"not implemented yet ({self.message or 'the stub is still there'})")
        if self.types[0] == "NameError":
            return Problem(
                "missing", f"{self.message}; run the cell that defines it (or Run All Above) and check the spelling"
            )
        return Problem(f"{self.types[0]} was raised", f"{self.types[0]}: {self.message}{self.where}")


@dataclass(frozen=True)
class Observation:
    """What one check saw, and how it is to be judged. actual is plain data, Raised, or Problem when it was no data."""

    name: str
    kind: str
    actual: Any
    expected: Any
    tolerance: Tolerance
    hint: str
    measure: Callable[[Any], float] | None = None


@dataclass(frozen=True)
class Artefact:
    """What a check will be measured on, elsewhere. made is plain data, Raised or Problem."""

    made: Any


@dataclass(frozen=True)
class Outcome:
    """One row of the table: problem is None when the check passed."""

    name: str
    problem: Problem | None
    actual: str
    expected: str
    hint: str

    @property
    def passed(self) -> bool:
        return self.problem is None

    @property
    def unfinished(self) -> bool:
        return self.problem is not None and self.problem.kind == "not implemented yet"


def judge_all(observations: list[Observation]) -> list[Outcome]:
    """Judge every check of a cell. While a stub is still there, refusing bad input earns nothing: that was given."""
    outcomes = [judge_one(observation) for observation in observations]
    stub = next((outcome.problem for outcome in outcomes if outcome.unfinished), None)
    if stub is None:
        return outcomes
    pairs = zip(observations, outcomes, strict=True)
    return [replace(outcome, problem=stub) if item.kind == "raises" else outcome for item, outcome in pairs]


def judge_one(observation: Observation) -> Outcome:
    """Compare what was observed with what is expected."""
    expected = observation.expected
    expected = expected if isinstance(expected, (Raised, Problem)) else plain(expected)
    try:
        problem = _problem(observation, expected)
    except Exception as error:
        problem = Problem("wrong value", f"cannot be compared with what is expected ({type(error).__name__})")
    return Outcome(observation.name, problem, shown(observation.actual), shown(expected), observation.hint)


def _problem(observation: Observation, expected: Any) -> Problem | None:
    actual = observation.actual
    if observation.kind == "raises":
        return _raises_problem(actual, expected)
    if isinstance(actual, (Raised, Problem)):
        return actual.problem() if isinstance(actual, Raised) else actual
    if isinstance(expected, (Raised, Problem)):
        reason = expected.problem() if isinstance(expected, Raised) else expected
        return Problem("no comparison", f"what it is compared with could not be computed: {reason.text}")
    if observation.kind in ("at_least", "at_most"):
        return getattr(compare, observation.kind)(actual, expected)
    return compare.compare(actual, expected, observation.tolerance)


def _raises_problem(actual: Any, expected: str) -> Problem | None:
    if not isinstance(actual, Raised):
        return Problem("nothing was raised", f"expected {expected}, but the call returned")
    unfinished = actual.types[0] == "NotImplementedError" or (
        actual.types[0] == "NameError" and expected != "NameError"
    )
    if unfinished or expected not in actual.types:
        return actual.problem()
    return None


def fraction_of_points(outcomes: tuple[Outcome, ...], points: float) -> float:
    """points times passed / all, rounded down to hundredths unless everything passed."""
    passed = sum(outcome.passed for outcome in outcomes)
    if passed == len(outcomes):
        return float(points)
    return math.floor(100 * points * passed / len(outcomes)) / 100


def shown(value: Any) -> str:
    """What the table of checks says of a value."""
    if isinstance(value, Raised):
        return f"{value.types[0]} raised"
    return value.text if isinstance(value, Problem) else describe(value)
