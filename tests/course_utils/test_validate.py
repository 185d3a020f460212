"""Argument checks name the argument, what was given and what is allowed."""

from __future__ import annotations

import numpy as np
import pytest

from course_utils import validate


@pytest.mark.parametrize(
    ("check", "value", "options"),
    [
        ("check_vector", [1, 2], {}),
        ("check_vector", np.zeros(3, dtype=np.float32), {"length": 3}),
        ("check_matrix", [[1.0]], {"n_rows": 1, "n_columns": 1}),
        ("check_nonnegative", 0, {}),
        ("check_nonnegative", np.float32(2), {}),
        ("check_positive", np.array(0.5), {}),
        ("check_fraction", 1.0, {}),
        ("check_count", np.int64(3), {"maximum": 3}),
    ],
)
def test_accepts(check, value, options):
    assert getattr(validate, check)("x", value, **options) is None


@pytest.mark.parametrize(
    ("check", "value", "options", "error", "words"),
    [
        ("check_vector", [[1.0]], {}, ValueError, r"penalty must be a vector .* got shape \(1, 1\)"),
        ("check_vector", [], {}, ValueError, "at least one entry"),
        ("check_vector", [1.0, np.nan], {}, ValueError, r"got nan at index \(1,\)"),
        ("check_vector", [1.0, 2.0], {"length": 3}, ValueError, "must have 3 entries, got 2"),
        ("check_vector", ["a"], {}, TypeError, "real numbers"),
        ("check_vector", None, {}, TypeError, "got None"),
        ("check_matrix", [[1.0], [2.0, 3.0]], {}, ValueError, "penalty must be a matrix"),
        ("check_matrix", [[np.inf]], {}, ValueError, "got inf"),
        ("check_matrix", np.ones((2, 3)), {"n_columns": 2}, ValueError, "must have 2 columns, got 3"),
        ("check_nonnegative", -0.1, {}, ValueError, "penalty must be a finite number >= 0, got -0.1"),
        ("check_nonnegative", "1", {}, TypeError, "got '1'"),
        ("check_nonnegative", np.array([1.0]), {}, TypeError, r"an array of shape \(1,\)"),
        ("check_positive", 0, {}, ValueError, "> 0, got 0"),
        ("check_positive", float("nan"), {}, ValueError, "got nan"),
        ("check_positive", True, {}, TypeError, "got True"),
        ("check_fraction", 40, {}, ValueError, "for 40 % write 0.4"),
        ("check_count", 2.0, {}, TypeError, r"\(an int\), got 2.0"),
        ("check_count", True, {}, TypeError, "got True"),
        ("check_count", 6, {"maximum": 5}, ValueError, "from 0 to 5, got 6"),
        ("check_count", -1, {}, ValueError, ">= 0, got -1"),
    ],
)
def test_rejects_with_a_clear_message(check, value, options, error, words):
    with pytest.raises(error, match=words):
        getattr(validate, check)("penalty", value, **options)
