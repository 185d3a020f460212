"""Sealed mode: what a graded cell observed, as JSON in the cell's output, and the judge that reads it elsewhere.

The student's kernel only writes down actual values. The judge runs where no student code runs: it compares them with
the values that the instructor's own notebook wrote down under the same names, with the tolerances and bounds of the
instructor's record. Nothing is unpickled or evaluated.
"""

from __future__ import annotations

from typing import Any

from course_utils.checks.compare import Problem, Tolerance
from course_utils.checks.core import Checks
from course_utils.checks.judging import Artefact, Observation, Outcome, Raised, judge_all
from course_utils.checks.values import from_json, to_json

MIME_TYPE = "application/x-course-checks+json"
LONGEST_KIND, LONGEST_TEXT, MOST_TYPES = 200, 2000, 50  # characters, and classes of an exception, in a record


def record(name: str, points: float, observations: list[Observation]) -> dict:
    """The observations of one graded cell as JSON data."""
    return {"name": name, "points": points, "checks": [_observation_to_json(item) for item in observations]}


def emit(name: str, points: float, observations: list[Observation]) -> None:
    """Put the record into the cell's output (printed as JSON outside Jupyter)."""
    from IPython.display import display

    text = f"{name}: {len(observations)} checks recorded"
    display({MIME_TYPE: record(name, points, observations), "text/plain": text}, raw=True)


def judge(student: dict, instructor: dict) -> list[Outcome]:
    """Compare a student's record of a cell with the instructor's record of the same cell.

    Args:
        student: JSON data that the student's kernel emitted; anything at all may be in it.
        instructor: JSON data that the instructor's notebook emitted in sealed mode; trusted.

    Returns:
        One Outcome for every check of the instructor's record, in its order. A check that the student's record lacks,
        or that is malformed there, failed. Checks that only the student's record has are ignored.
    """
    found: dict[str, Any] = {}
    checks = student.get("checks") if isinstance(student, dict) else None
    for item in checks if isinstance(checks, list) else []:
        if isinstance(item, dict) and isinstance(item.get("name"), str):
            found.setdefault(item["name"], item.get("actual"))
    return judge_all([_observation(item, found) for item in instructor["checks"]])


def _observation(item: dict, found: dict[str, Any]) -> Observation:
    """One check of the instructor's record with what the student's record has under its name."""
    expected = item["bound"] if item["kind"] in ("at_least", "at_most") else _actual_from_json(item["actual"])
    if item["kind"] == "raises":
        expected = item["exception"]
    actual: Any = Problem("not recorded", "the check was not reached")
    if item["name"] in found:
        try:
            actual = _actual_from_json(found[item["name"]])
        except Exception as error:  # whatever stands there was written by a student's process
            actual = Problem("malformed record", str(error))
    tolerance = Tolerance(**item["tolerance"])
    return Observation(item["name"], item["kind"], actual, expected, tolerance, item["hint"])


def _observation_to_json(item: Observation) -> dict:
    data = {"name": item.name, "kind": item.kind, "hint": item.hint, "tolerance": vars(item.tolerance)}
    data["actual"] = _actual_to_json(item.actual)
    if item.kind in ("at_least", "at_most"):
        data["bound"] = item.expected
    if item.kind == "raises":
        data["exception"] = item.expected
    if item.measure is not None:
        data["measure"] = f"{item.measure.__module__}:{item.measure.__name__}"
    return data


def measure_all(artefacts: dict[str, dict], measures: dict[str, str]) -> None:
    """Measure recorded artefacts and put the numbers into the cell's output. For graders, in a kernel of their own.

    Args:
        artefacts: what a record has as "actual" of each check that is to be measured, by name of the check; data from a
            student's kernel.
        measures: "module:function" of each, from the instructor's record.
    """
    from importlib import import_module

    from IPython.display import display

    checks, found = Checks("measured"), {}
    for name, data in artefacts.items():
        module, _, function = measures[name].partition(":")
        measure = getattr(import_module(module), function)
        made = from_json(data["artefact"]["value"])
        found[name] = _actual_to_json(checks.observe(lambda measure=measure, made=made: measure(made)))
    display({MIME_TYPE: found, "text/plain": f"{len(found)} measured"}, raw=True)


def _actual_to_json(actual: Any) -> dict:
    if isinstance(actual, Artefact):
        return {"artefact": _actual_to_json(actual.made)}
    if isinstance(actual, Raised):
        return {"raised": list(actual.types), "message": actual.message, "where": actual.where}
    if isinstance(actual, Problem):
        return {"problem": [actual.kind, actual.text]}
    return {"value": to_json(actual)}


def _actual_from_json(data: dict) -> Any:
    if "artefact" in data:  # nobody has measured it, because there was nothing to measure
        made = _actual_from_json(data["artefact"])
        return made if isinstance(made, (Raised, Problem)) else Problem("not measured", "the result was not measured")
    if "raised" in data:
        types = tuple(str(name)[:LONGEST_KIND] for name in data["raised"][:MOST_TYPES])
        return Raised(types or ("Exception",), str(data["message"])[:LONGEST_TEXT], str(data["where"])[:LONGEST_TEXT])
    if "problem" in data:
        kind, text = data["problem"]
        return Problem(str(kind)[:LONGEST_KIND], str(text)[:LONGEST_TEXT])
    return from_json(data["value"])
