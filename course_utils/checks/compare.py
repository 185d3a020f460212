"""Comparisons of plain data (see values.py), each returning None when equal or a Problem that says what differs.

The message names the first thing a person should look at: a missing return, the type, the shape, NaN, and only then the
values with the largest difference and where it is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from course_utils.checks.values import describe


@dataclass(frozen=True)
class Problem:
    """Why a check failed: kind is safe to show to anybody, text may quote expected values."""

    kind: str
    text: str


@dataclass(frozen=True)
class Tolerance:
    """|actual - expected| <= atol + rtol |expected|; both zero means exact equality."""

    rtol: float = 0.0
    atol: float = 0.0
    dtype: bool = False


def _type_name(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    names = {bool: "True or False", int: "a number", float: "a number", str: "a string", list: "a list", dict: "a dict"}
    return "None" if value is None else names[type(value)]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _unwrapped(value: Any) -> Any:
    """A truth value that came as an array without dimensions (as `(a == b).all()` gives it) as True or False."""
    return bool(value) if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind == "b" else value


def _as_array(value: Any) -> np.ndarray | None:
    """The value as an array if it is an array, a number or a rectangular nested list of numbers, else None."""
    if isinstance(value, np.ndarray):
        return value
    if _is_number(value):
        array = np.asarray(value)
        return array if array.dtype.kind in "biufc" else np.asarray(float(value))  # beyond 64 bits
    if isinstance(value, list):
        try:
            array = np.array(value)
        except ValueError:  # ragged
            return None
        return array if array.dtype.kind in "biufc" else None
    return None


def compare(actual: Any, expected: Any, tolerance: Tolerance = Tolerance(), where: str = "") -> Problem | None:
    """None when the plain data agree within the tolerance, else the first Problem found.

    Arrays, numbers and rectangular lists of numbers compare by shape and value, whatever their dtype (unless
    tolerance.dtype); True and False equal only True and False; everything else must have the same type and value.
    """
    actual, expected = _unwrapped(actual), _unwrapped(expected)
    if actual is None and expected is not None:
        return Problem("None was returned", f"{where}got None; does the function end with `return`?")
    if isinstance(expected, dict) and isinstance(actual, dict):
        return _compare_dicts(actual, expected, tolerance, where)
    if isinstance(actual, int) and isinstance(expected, int) and type(actual) is type(expected) and _exact(tolerance):
        if actual == expected:
            return None
        return Problem("wrong value", f"{where}got {describe(actual)}, expected {describe(expected)}")
    left, right = _as_array(actual), _as_array(expected)
    if left is not None and right is not None:
        return _compare_arrays(left, right, tolerance, where)
    if isinstance(expected, list) and isinstance(actual, list):
        return _compare_lists(actual, expected, tolerance, where)
    if isinstance(expected, np.ndarray) and isinstance(actual, list):
        return Problem("wrong shape", f"{where}a list that is no rectangular array; expected {_type_name(expected)}")
    if type(actual) is not type(expected):
        return Problem(
            "wrong type", f"{where}got {_type_name(actual)} ({describe(actual)}), expected {_type_name(expected)}"
        )
    if actual != expected:
        return Problem("wrong value", f"{where}got {describe(actual)}, expected {describe(expected)}")
    return None


def _compare_dicts(actual: dict, expected: dict, tolerance: Tolerance, where: str) -> Problem | None:
    missing, extra = sorted(expected.keys() - actual.keys()), sorted(actual.keys() - expected.keys())
    if missing or extra:
        parts = [f"missing {missing[:5]}"] * bool(missing) + [f"unexpected {extra[:5]}"] * bool(extra)
        return Problem("wrong keys", f"{where}keys: {', '.join(parts)}")
    problems = (compare(actual[key], item, tolerance, f"{where}[{key!r}]: ") for key, item in expected.items())
    return next((problem for problem in problems if problem), None)


def _compare_lists(actual: list, expected: list, tolerance: Tolerance, where: str) -> Problem | None:
    if len(actual) != len(expected):
        return Problem("wrong length", f"{where}{len(actual)} items, expected {len(expected)}")
    pairs = enumerate(zip(actual, expected, strict=True))
    problems = (compare(left, right, tolerance, f"{where}[{i}]: ") for i, (left, right) in pairs)
    return next((problem for problem in problems if problem), None)


def _compare_arrays(actual: np.ndarray, expected: np.ndarray, tolerance: Tolerance, where: str) -> Problem | None:
    if actual.shape != expected.shape:
        return Problem("wrong shape", f"{where}shape {actual.shape}, expected {expected.shape}")
    if tolerance.dtype and actual.dtype != expected.dtype:
        return Problem("wrong dtype", f"{where}dtype {actual.dtype}, expected {expected.dtype}")
    if (actual.dtype.kind == "b") != (expected.dtype.kind == "b") and not np.isin(actual, (0, 1)).all():
        return Problem("wrong type", f"{where}dtype {actual.dtype}, expected {expected.dtype} (or zeros and ones)")
    common = np.result_type(actual, expected)
    left, right = actual.astype(common), expected.astype(common)
    if common.kind in "biu" and _exact(tolerance):
        return _compare_exact(left, right, where)
    if common.kind in "biu":
        left, right = left.astype(np.float64), right.astype(np.float64)
    return _compare_floats(left, right, tolerance, where)


def _exact(tolerance: Tolerance) -> bool:
    return tolerance.rtol == 0 and tolerance.atol == 0


def _compare_exact(actual: np.ndarray, expected: np.ndarray, where: str) -> Problem | None:
    wrong = np.argwhere(actual != expected)
    return _differ(actual, expected, wrong, wrong[0], "", where) if len(wrong) else None


def _compare_floats(actual: np.ndarray, expected: np.ndarray, tolerance: Tolerance, where: str) -> Problem | None:
    for name, test in (("NaN", np.isnan), ("infinity", np.isinf)):
        unexpected = np.argwhere(test(actual) & ~test(expected))
        if len(unexpected):
            index = tuple(int(i) for i in unexpected[0])
            return Problem(f"{name} in the result", f"{where}{name} at index {index} ({len(unexpected)} in all)")
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        error = np.abs(actual - expected)
        bad = ~(error <= tolerance.atol + tolerance.rtol * np.abs(expected))
    bad |= np.isinf(expected) & (actual != expected)
    bad &= ~((np.isnan(actual) & np.isnan(expected)) | (actual == expected))
    if not bad.any():
        return None
    finite_error = np.where(bad, np.nan_to_num(error, nan=np.inf, posinf=np.inf), -1.0)
    worst = np.unravel_index(int(np.argmax(finite_error)), error.shape)
    limits = f"; allowed {tolerance.atol:g} + {tolerance.rtol:g} |expected|" if not _exact(tolerance) else ""
    return _differ(actual, expected, np.argwhere(bad), worst, limits, where)


def _differ(actual: Any, expected: Any, wrong: np.ndarray, worst: Any, limits: str, where: str) -> Problem:
    index = tuple(int(i) for i in worst)
    left, right = actual[index], expected[index]
    count = f"{len(wrong)} of {actual.size} values differ, most at index {index}: " if actual.ndim else ""
    form = "" if actual.dtype.kind == "b" else ".10g"
    shown, wanted = f"{left:{form}}", f"{right:{form}}"
    if shown == wanted:  # they differ in a later digit
        shown, wanted = f"{left:.17g}", f"{right:.17g}"
    return Problem("wrong value", f"{where}{count}got {shown}, expected {wanted}{limits}")


def at_least(actual: Any, bound: float) -> Problem | None:
    """None when actual is one number >= bound."""
    return _bounded(actual, bound, "at least", lambda number: number >= bound)


def at_most(actual: Any, bound: float) -> Problem | None:
    """None when actual is one number <= bound."""
    return _bounded(actual, bound, "at most", lambda number: number <= bound)


def _bounded(actual: Any, bound: float, relation: str, holds: Callable[[float], bool]) -> Problem | None:
    if isinstance(actual, np.ndarray) and actual.size == 1 and actual.dtype.kind in "iuf":
        actual = actual.item()
    if actual is None:
        return compare(None, 0)
    if not _is_number(actual):
        return Problem("wrong type", f"got {_type_name(actual)} ({describe(actual)}), expected one number")
    if actual != actual:
        return Problem("NaN in the result", "got NaN, expected one number")
    return None if holds(actual) else Problem("out of bounds", f"got {actual:.6g}, expected {relation} {bound:g}")
