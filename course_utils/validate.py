"""Argument checks with messages that say what was given, what is allowed and which argument is meant.

Exercises start with calls to these functions, so that a student's function refuses bad input from the first line and
the exercise itself can be about the mathematics. NumPy only: nothing here imports torch.
"""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np


def _describe(value: Any) -> str:
    """Short description of a value for an error message: shape and dtype of arrays, repr of everything else."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _finite_array(name: str, value: Any, n_dims: int) -> np.ndarray:
    """The value as an array, after checking that it has n_dims dimensions and only finite real numbers."""
    kind = {1: "a vector (one-dimensional array)", 2: "a matrix (two-dimensional array)"}[n_dims]
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be {kind} of finite numbers, got {_describe(value)}: {error}") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be {kind} of real numbers, got {_describe(value)}")
    if array.ndim != n_dims or array.size == 0:
        raise ValueError(f"{name} must be {kind} with at least one entry, got shape {array.shape}")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        index = tuple(int(i) for i in bad[0])
        raise ValueError(f"{name} must hold finite numbers only, got {array[index]} at index {index}")
    return array


def _check_length(name: str, size: int, expected: int | None, what: str) -> None:
    if expected is not None and size != expected:
        raise ValueError(f"{name} must have {expected} {what}, got {size}")


def check_vector(name: str, value: Any, length: int | None = None) -> None:
    """Raise unless value is a non-empty one-dimensional array of finite real numbers (of the given length)."""
    _check_length(name, _finite_array(name, value, 1).size, length, "entries")


def check_matrix(name: str, value: Any, n_rows: int | None = None, n_columns: int | None = None) -> None:
    """Raise unless value is a non-empty two-dimensional array of finite real numbers (of the given shape)."""
    array = _finite_array(name, value, 2)
    _check_length(name, array.shape[0], n_rows, "rows")
    _check_length(name, array.shape[1], n_columns, "columns")


def _real_number(name: str, value: Any, allowed: str) -> float:
    """The value as a float, after checking that it is one finite real number and no truth value."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be {allowed}, got {_describe(value)}")
    if not np.isfinite(value):
        raise ValueError(f"{name} must be {allowed}, got {value}")
    return float(value)


def check_nonnegative(name: str, value: Any) -> None:
    """Raise unless value is one finite number >= 0."""
    if _real_number(name, value, "a finite number >= 0") < 0:
        raise ValueError(f"{name} must be a finite number >= 0, got {value}")


def check_positive(name: str, value: Any) -> None:
    """Raise unless value is one finite number > 0."""
    if _real_number(name, value, "a finite number > 0") <= 0:
        raise ValueError(f"{name} must be a finite number > 0, got {value}")


def check_fraction(name: str, value: Any) -> None:
    """Raise unless 0 <= value <= 1. Percentages are refused, with advice."""
    allowed = "a fraction with 0 <= value <= 1"
    number = _real_number(name, value, allowed)
    if 0 <= number <= 1:
        return
    advice = f"; for {value} % write {number / 100:g}" if 1 < number <= 100 else ""
    raise ValueError(f"{name} must be {allowed}, got {value}{advice}")


def check_count(name: str, value: Any, minimum: int = 0, maximum: int | None = None) -> None:
    """Raise unless value is a whole number (an int, not 3.0) with minimum <= value <= maximum."""
    allowed = f"a whole number >= {minimum}" if maximum is None else f"a whole number from {minimum} to {maximum}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be {allowed} (an int), got {_describe(value)}")
    if value < minimum or (maximum is not None and value > maximum):
        raise ValueError(f"{name} must be {allowed}, got {value}")
