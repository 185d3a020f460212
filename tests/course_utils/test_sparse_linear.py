"""The reference solvers of Lab 1 against closed forms, scikit-learn, finite differences and numerical minimisation."""

import inspect

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize_scalar
from sklearn.linear_model import Lasso

from course_utils import sparse_linear
from course_utils.sparse_linear import (
    gradient,
    gradient_descent,
    keep_largest,
    l1_subgradient_descent,
    objective,
    projected_gradient_descent,
    proximal_gradient_descent,
    soft_threshold,
    trimmed_proximal_gradient_descent,
    trimmed_soft_threshold,
)
from course_utils.sparse_linear.given import lasso_on_support, numerical_gradient, sparse_problem, three_measurements

X, Y = three_measurements()
SPARSE = np.array([0.0, -3.0, 0.0, 0.0, 1.0])
SIGNS = [0, -1, 0, 0, 1]
weights = arrays(np.float64, st.integers(1, 12), elements=st.floats(-5, 5).map(lambda x: round(x, 1)))
random_problem = st.integers(0, 10_000).map(lambda seed: sparse_problem(5, 7, 3, 0.2, seed))


def safe_step(A):
    return 0.4 / np.linalg.norm(A, 2) ** 2


def lasso(A, b, penalty):
    """scikit-learn minimises ||Aw - b||^2 / (2n) + alpha ||w||_1, so that alpha = penalty / (2n)."""
    model = Lasso(alpha=penalty / (2 * len(b)), fit_intercept=False, tol=1e-15, max_iter=1_000_000)
    return model.fit(A, b).coef_


# --- the results that the lab tabulates ------------------------------------------------------------------------------------------------


def test_gradient_descent_reproduces_the_published_weights():
    published = [0.74759615, -2.38942308, 0.12259615, -0.03125, 1.56490385]
    np.testing.assert_allclose(gradient_descent(X, Y, 0.02, 200)[-1], published, rtol=0, atol=5e-9)  # 8 decimals


def test_projection_reproduces_the_published_weights():
    np.testing.assert_allclose(projected_gradient_descent(X, Y, 2, 0.02, 200)[-1], SPARSE, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("penalty", "expected"), [(0.2, "0.00685"), (0.5, "0.02425"), (1, "0.1063"), (2, "0.3669")])
def test_losses_of_subgradient_descent_after_200_steps(penalty, expected):
    path = l1_subgradient_descent(X, Y, penalty, 0.02, 200)
    assert f"{objective(X, Y, path[-1]):.{len(expected) - 2}f}" == expected
    assert np.count_nonzero(path[1:] == 0) == 0


@pytest.mark.parametrize(
    ("threshold", "expected"), [(0.004, "0.00665"), (0.01, "0.02292"), (0.02, "0.09167"), (0.04, "0.36667")]
)
def test_losses_of_proximal_descent_after_200_steps(threshold, expected):
    path = proximal_gradient_descent(X, Y, threshold / 0.02, 0.02, 200)
    assert f"{objective(X, Y, path[-1]):.5f}" == expected


@pytest.mark.parametrize("threshold", [0.02, 0.04, 0.1, 0.2])
def test_trimmed_descent_has_no_bias_after_200_steps(threshold):
    end = trimmed_proximal_gradient_descent(X, Y, threshold / 0.02, 2, 0.02, 200)[-1]
    np.testing.assert_allclose(end, SPARSE, rtol=0, atol=1e-12)
    assert objective(X, Y, end) < 1e-26


# --- objective and gradient -------------------------------------------------------------------------------------------


def test_objective_of_a_tiny_case_by_hand():
    assert objective(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([0.0, 1.0]), np.array([1.0, -1.0])) == 5.0
    assert isinstance(objective(X, Y, SPARSE), float)


@given(random_problem, st.integers(0, 1000))
def test_gradient_is_that_of_small_differences(problem, seed):
    A, b, _ = problem
    w = np.random.default_rng(seed).normal(size=7)
    slopes = [(objective(A, b, w + 1e-5 * e) - objective(A, b, w - 1e-5 * e)) / 2e-5 for e in np.eye(7)]
    # rounding of the loss (up to about 1e3) divided by 2e-5
    np.testing.assert_allclose(gradient(A, b, w), slopes, rtol=1e-7, atol=1e-7)


# --- gradient descent -------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=15)
@given(random_problem)
def test_descent_ends_at_the_shortest_solution(problem):
    A, b, _ = problem
    assume(np.linalg.cond(A) < 15)  # the error shrinks by at least 1 - 0.8 / cond^2 in each step
    end = gradient_descent(A, b, safe_step(A), 6000)[-1]
    np.testing.assert_allclose(end, np.linalg.pinv(A) @ b, rtol=0, atol=1e-8)


def test_another_start_would_keep_its_part_in_the_null_space():
    start = np.array([1.0, 2.0, -1.0, 0.5, 3.0])
    end = start + gradient_descent(X, Y - X @ start, 0.02, 400)[-1]  # the same iteration, shifted by the start
    nearest = np.linalg.pinv(X) @ Y + start - np.linalg.pinv(X) @ (X @ start)
    np.testing.assert_allclose(end, nearest, rtol=0, atol=1e-12)


def test_the_largest_eigenvalue_limits_the_step():
    limit = 1 / np.linalg.eigvalsh(X.T @ X)[-1]
    below = [objective(X, Y, w) for w in gradient_descent(X, Y, 0.99 * limit, 400)]
    above = [objective(X, Y, w) for w in gradient_descent(X, Y, 1.01 * limit, 400)]
    assert below[-1] < 1e-4 * below[0]
    assert above[-1] > 1e4 * above[0]


def test_a_step_far_too_large_is_refused_before_it_turns_into_nan():
    with pytest.raises(ValueError, match=r"finite"), np.errstate(over="ignore", invalid="ignore"):
        gradient_descent(X, Y, 10.0, 1000)


# --- projection -------------------------------------------------------------------------------------------------------


@given(weights, st.data())
def test_keep_largest_is_a_nearest_point_with_so_many_nonzeros(w, data):
    n = data.draw(st.integers(0, len(w)))
    kept = keep_largest(w, n)
    assert np.count_nonzero(kept) <= n
    best = np.sort(w**2)[: len(w) - n].sum()  # giving up the smallest squares is the least that any such point can do
    assert np.sum((w - kept) ** 2) == pytest.approx(best, abs=1e-12)
    np.testing.assert_array_equal(keep_largest(kept, n), kept)


def test_keep_largest_breaks_ties_by_index_and_leaves_its_argument_alone():
    w = np.array([1.0, -2.0, 2.0, -1.0, 1.0])
    np.testing.assert_array_equal(keep_largest(w, 3), [1.0, -2.0, 2.0, 0.0, 0.0])
    np.testing.assert_array_equal(keep_largest(w, 1), [0.0, -2.0, 0.0, 0.0, 0.0])
    np.testing.assert_array_equal(w, [1.0, -2.0, 2.0, -1.0, 1.0])


def test_projecting_onto_all_weights_is_gradient_descent():
    np.testing.assert_array_equal(projected_gradient_descent(X, Y, 5, 0.02, 50), gradient_descent(X, Y, 0.02, 50))


# --- L1 ---------------------------------------------------------------------------------------------------------------


@given(weights, st.floats(0, 3))
def test_soft_threshold_minimises_the_proximal_objective(w, threshold):
    for weight, shrunk in zip(w, soft_threshold(w, threshold), strict=True):

        def proximal_objective(u, weight=weight):
            return threshold * abs(u) + (u - weight) ** 2 / 2

        best = minimize_scalar(proximal_objective, bounds=(-6, 6), method="bounded", options={"xatol": 1e-9})
        assert proximal_objective(shrunk) <= best.fun + 1e-12


@given(weights, st.floats(0, 2), st.floats(0, 2))
def test_soft_thresholds_add_up(w, first, second):
    twice = soft_threshold(soft_threshold(w, first), second)
    np.testing.assert_allclose(twice, soft_threshold(w, first + second), rtol=0, atol=1e-12)


@given(weights, st.floats(0, 2))
def test_soft_threshold_brings_points_no_further_apart(w, threshold):
    other = w[::-1].copy()
    distance = np.linalg.norm(soft_threshold(w, threshold) - soft_threshold(other, threshold))
    assert distance <= np.linalg.norm(w - other) + 1e-12


def test_soft_threshold_of_whole_numbers_is_float64():
    shrunk = soft_threshold(np.array([3, -2, 0]), 0.5)
    assert shrunk.dtype == np.float64
    np.testing.assert_array_equal(shrunk, [2.5, -1.5, 0.0])


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.floats(0.5, 20))
def test_proximal_descent_agrees_with_scikit_learn(seed, penalty):
    A, b, _ = sparse_problem(12, 6, 3, 0.3, seed)
    end = proximal_gradient_descent(A, b, penalty, safe_step(A), 6000)[-1]
    exact = lasso(A, b, penalty)
    np.testing.assert_allclose(end, exact, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(end == 0, np.abs(exact) < 1e-9)


@pytest.mark.parametrize("penalty", [0.2, 0.5, 1.0, 2.0, 5.0])
def test_proximal_descent_converges_to_the_closed_form(penalty):
    end = proximal_gradient_descent(X, Y, penalty, 0.02, 1000)[-1]
    np.testing.assert_allclose(end, lasso_on_support(X, Y, penalty, SIGNS), rtol=0, atol=1e-12)
    np.testing.assert_allclose(end, [0, -3 + penalty / 10, 0, 0, 1 - penalty / 12], rtol=0, atol=1e-12)
    assert objective(X, Y, end) == pytest.approx(11 / 120 * penalty**2, rel=1e-9)


@settings(deadline=None, max_examples=15)
@given(random_problem, st.floats(0.5, 20))
def test_proximal_descent_never_increases_the_objective(problem, penalty):
    A, b, _ = problem
    path = proximal_gradient_descent(A, b, penalty, safe_step(A), 60)
    values = [objective(A, b, w) + penalty * np.abs(w).sum() for w in path]
    assert np.all(np.diff(values) <= 1e-9)


def test_without_penalty_both_l1_methods_are_gradient_descent():
    plain = gradient_descent(X, Y, 0.02, 50)
    np.testing.assert_array_equal(l1_subgradient_descent(X, Y, 0.0, 0.02, 50), plain)
    np.testing.assert_array_equal(proximal_gradient_descent(X, Y, 0.0, 0.02, 50), plain)


# --- trimmed L1 -------------------------------------------------------------------------------------------------------


@given(weights, st.floats(0, 3), st.data())
def test_trimmed_threshold_minimises_its_proximal_objective(w, threshold, data):
    n_free = data.draw(st.integers(0, len(w)))

    def proximal_objective(u):
        return threshold * np.sort(np.abs(u))[: len(u) - n_free].sum() + np.sum((u - w) ** 2) / 2

    best = proximal_objective(trimmed_soft_threshold(w, threshold, n_free))
    rng = np.random.default_rng(0)
    for rival in [w, soft_threshold(w, threshold), keep_largest(w, n_free), *(w + rng.normal(size=(30, len(w))))]:
        assert best <= proximal_objective(rival) + 1e-9


@given(weights, st.floats(0, 3))
def test_trimmed_threshold_at_both_ends(w, threshold):
    np.testing.assert_array_equal(trimmed_soft_threshold(w, threshold, 0), soft_threshold(w, threshold))
    np.testing.assert_array_equal(trimmed_soft_threshold(w, threshold, len(w)), w)


@given(weights, st.data())
def test_trimmed_threshold_larger_than_every_weight_is_a_projection(w, data):
    n = data.draw(st.integers(0, len(w)))
    np.testing.assert_array_equal(trimmed_soft_threshold(w, 10.0, n), keep_largest(w, n))


def test_trimmed_threshold_breaks_ties_by_index():
    np.testing.assert_array_equal(trimmed_soft_threshold(np.array([1.0, -1.0, 1.0]), 0.25, 2), [1.0, -1.0, 0.75])


def test_trimmed_descent_between_its_relatives():
    np.testing.assert_array_equal(
        trimmed_proximal_gradient_descent(X, Y, 2.0, 0, 0.02, 50), proximal_gradient_descent(X, Y, 2.0, 0.02, 50)
    )
    np.testing.assert_array_equal(
        trimmed_proximal_gradient_descent(X, Y, 1e6, 2, 0.02, 50), projected_gradient_descent(X, Y, 2, 0.02, 50)
    )


# --- statements that the lab's text and model answers make ------------------------------------------------------------


def test_numbers_of_the_bias_answer():
    def first_zero(penalty):
        return int(np.flatnonzero(proximal_gradient_descent(X, Y, penalty, 0.02, 1000)[:, 0])[-1]) + 1

    assert (first_zero(2.0), first_zero(0.2)) == (43, 396)
    late = proximal_gradient_descent(X, Y, 0.2, 0.02, 500)
    assert f"{objective(X, Y, late[-1]):.7f}" == "0.0036667"
    assert np.count_nonzero(late[200] == 0) == 1


def test_numbers_of_the_early_steps_answer():
    paths = {
        "projected": projected_gradient_descent(X, Y, 2, 0.02, 200),
        "soft": proximal_gradient_descent(X, Y, 2.0, 0.02, 200),
        **{lam: trimmed_proximal_gradient_descent(X, Y, lam, 2, 0.02, 200) for lam in (1, 2, 10)},
    }
    overtaken = {name: int(np.argmax(np.abs(path[:, 4]) > np.abs(path[:, 0]))) for name, path in paths.items()}
    assert [overtaken[name] for name in ("projected", 2, 10)] == [7, 3, 5]
    at_six = {name: f"{objective(X, Y, path[6]):.2f}" for name, path in paths.items()}
    assert [at_six[name] for name in ("projected", "soft", 2, 10)] == ["12.03", "4.32", "2.77", "4.95"]
    vanished = {name: int(np.flatnonzero(paths[name][:, 0])[-1]) + 1 for name in (1, 2, 10)}
    assert vanished == {1: 76, 2: 39, 10: 8}
    assert np.sum(gradient(X, Y, np.zeros(5)) ** 2) == 1436


# --- bad input --------------------------------------------------------------------------------------------------------

GOOD = {
    "X": X,
    "y": Y,
    "w": SPARSE,
    "step_size": 0.02,
    "n_steps": 3,
    "n_nonzero": 2,
    "penalty": 1.0,
    "threshold": 0.1,
    "n_free": 2,
}
BAD = {
    "X": [(np.ones(5), ValueError), (np.full((3, 5), np.nan), ValueError), (np.array([["a"] * 5] * 3), TypeError)],
    "y": [(np.ones(4), ValueError), (np.array([1.0, np.inf, 0.0]), ValueError), (np.ones((3, 1)), ValueError)],
    "w": [(np.ones((2, 2)), ValueError), (np.array([1.0, np.nan, 0, 0, 0]), ValueError), (np.array([]), ValueError)],
    "step_size": [(0.0, ValueError), (-0.1, ValueError), (np.nan, ValueError), ("fast", TypeError)],
    "n_steps": [(-1, ValueError), (2.0, TypeError), (True, TypeError)],
    "n_nonzero": [(-1, ValueError), (6, ValueError), (1.5, TypeError)],
    "penalty": [(-1.0, ValueError), (np.inf, ValueError), (None, TypeError)],
    "threshold": [(-0.5, ValueError), (np.nan, ValueError), ([1], TypeError)],
    "n_free": [(-1, ValueError), (6, ValueError), ("2", TypeError)],
}
EXERCISES = [
    function
    for _, function in inspect.getmembers(sparse_linear, inspect.isfunction)
    if function.__module__ == f"{sparse_linear.__name__}.solvers"
]
CASES = [
    pytest.param(function, name, value, error, id=f"{function.__name__}-{name}-{i}")
    for function in EXERCISES
    for name in inspect.signature(function).parameters
    for i, (value, error) in enumerate(BAD[name])
]


@pytest.mark.parametrize(("function", "name", "value", "error"), CASES)
def test_bad_input_is_refused_with_the_name_of_the_argument(function, name, value, error):
    arguments = {key: GOOD[key] for key in inspect.signature(function).parameters} | {name: value}
    with pytest.raises(error, match=rf"^{name} must .*got"):
        function(**arguments)


def test_weights_of_the_wrong_length_are_refused():
    for function in (objective, gradient):
        with pytest.raises(ValueError, match=r"w must have 5 entries, got 4"):
            function(X, Y, np.ones(4))


@pytest.mark.parametrize("function", EXERCISES, ids=lambda function: function.__name__)
def test_good_input_is_accepted_and_left_unchanged(function):
    arguments = {
        key: np.copy(GOOD[key]) if isinstance(GOOD[key], np.ndarray) else GOOD[key]
        for key in inspect.signature(function).parameters
    }
    function(**arguments)
    for key, value in arguments.items():
        np.testing.assert_array_equal(value, GOOD[key])


def test_there_are_ten_exercises():
    assert len(EXERCISES) == 10


def test_central_differences_of_a_quadratic_are_exact():
    w = np.array([0.5, -1.0, 0.0, 2.0, 1.0])
    numerical = numerical_gradient(lambda v: objective(X, Y, v), w)
    np.testing.assert_allclose(numerical, gradient(X, Y, w), rtol=0, atol=1e-12)
