"""What Lab 1 gives to its readers: closed forms, FISTA, firm thresholds, pictures and the slider."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import minimize_scalar
from sklearn.linear_model import Lasso

from course_utils.sparse_linear import gradient, objective, proximal_gradient_descent, soft_threshold
from course_utils.sparse_linear import plots as pictures
from course_utils.sparse_linear.given import (
    comparison_table,
    firm_threshold,
    fista,
    lasso_on_support,
    repeat_update,
    sparse_problem,
    three_measurements,
)

X, Y = three_measurements()
SIGNS = [0, -1, 0, 0, 1]


def loss(w):
    return objective(X, Y, w)


def path(penalty=1.0):
    return proximal_gradient_descent(X, Y, penalty, 0.02, 60)


@pytest.fixture(autouse=True)
def _close_figures():
    mpl.use("agg")
    yield
    plt.close("all")


# --- methods ----------------------------------------------------------------------------------------------------------


def test_closed_form_without_penalty_is_least_squares_on_the_support():
    weights = lasso_on_support(X, Y, 0.0, SIGNS)
    np.testing.assert_allclose(weights[[1, 4]], np.linalg.lstsq(X[:, [1, 4]], Y, rcond=None)[0], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(weights[[0, 2, 3]], 0)


def test_closed_form_satisfies_the_optimality_conditions():
    weights = lasso_on_support(X, Y, 2.0, SIGNS)
    slopes = gradient(X, Y, weights)
    np.testing.assert_allclose(slopes[[1, 4]], -2.0 * np.array([-1, 1]), rtol=0, atol=1e-12)
    assert np.all(np.abs(slopes) <= 2.0 + 1e-12)


def test_closed_form_refuses_a_dependent_support():
    with pytest.raises(ValueError, match=r"signs must select linearly independent columns"):
        lasso_on_support(X, Y, 1.0, [1, 1, 1, 1, 0])


def test_fista_agrees_with_scikit_learn_and_stays_below_its_bound():
    A, b, _ = sparse_problem(40, 80, 6, 0.1, seed=3)
    penalty, step = 4.0, 0.5 / np.linalg.norm(A, 2) ** 2
    found = fista(lambda w: gradient(A, b, w), lambda v: soft_threshold(v, step * penalty), np.zeros(80), step, 1500)
    exact = Lasso(alpha=penalty / (2 * 40), fit_intercept=False, tol=1e-15, max_iter=10**6).fit(A, b).coef_
    np.testing.assert_allclose(found[-1], exact, rtol=0, atol=1e-7)
    values = np.array([objective(A, b, w) + penalty * np.abs(w).sum() for w in found])
    optimum = objective(A, b, exact) + penalty * np.abs(exact).sum()
    steps = np.arange(1, 1501)
    assert np.all(values[1:] - optimum <= 2 * exact @ exact / (step * (steps + 1) ** 2) + 1e-9)


def test_first_two_fista_steps_are_plain_proximal_steps():
    step, penalty = 0.02, 1.0
    found = fista(lambda w: gradient(X, Y, w), lambda v: soft_threshold(v, step * penalty), np.zeros(5), step, 2)
    np.testing.assert_array_equal(found, proximal_gradient_descent(X, Y, penalty, step, 2))  # momentum starts at 0


@given(st.floats(-4, 4), st.floats(0.1, 2), st.floats(0.2, 3))
def test_firm_threshold_minimises_the_mcp_proximal_objective(weight, penalty, cutoff):
    step = 0.5 * cutoff / penalty  # threshold step * penalty is half the cutoff

    def mcp(u):
        return quad(lambda x: penalty * max(0.0, 1 - x / cutoff), 0, min(abs(u), cutoff))[0]

    def proximal_objective(u):
        return step * mcp(u) + (u - weight) ** 2 / 2

    found = firm_threshold(np.array([weight]), step * penalty, cutoff)[0]
    best = minimize_scalar(proximal_objective, bounds=(-5, 5), method="bounded", options={"xatol": 1e-9})
    assert proximal_objective(found) <= best.fun + 1e-9


def test_firm_threshold_lies_between_soft_and_hard():
    w = np.linspace(-3, 3, 61)
    np.testing.assert_allclose(firm_threshold(w, 0.5, 1e9), soft_threshold(w, 0.5), rtol=0, atol=1e-8)
    np.testing.assert_array_equal(firm_threshold(w, 0.0, 1.0), w)
    with pytest.raises(ValueError, match=r"cutoff must be larger than threshold"):
        firm_threshold(w, 1.0, 1.0)


def test_repeat_update_records_the_start_and_every_step():
    np.testing.assert_array_equal(repeat_update(lambda w: 2 * w, np.array([1.0]), 3), [[1], [2], [4], [8]])


def test_sparse_problem_is_what_it_says_and_repeats():
    A, b, truth = sparse_problem(20, 30, 4, 0.0, seed=5)
    assert (A.shape, b.shape, np.count_nonzero(truth)) == ((20, 30), (20,), 4)
    np.testing.assert_allclose(A @ truth, b, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(sparse_problem(20, 30, 4, 0.0, seed=5)[0], A)
    with pytest.raises(ValueError, match=r"n_nonzero must be a whole number from 0 to 3, got 4"):
        sparse_problem(5, 3, 4, 0.0, seed=0)


def test_comparison_table_aligns_its_columns():
    lines = comparison_table([("loss", "0.1", "0.10"), ("a longer name", "1", "1.00")]).splitlines()
    assert [line.index(word) for line, word in zip(lines, ("ours", "----", "0.10", "1.00"), strict=True)][2:] == [
        28,
        28,
    ]
    assert lines[0].index("ours") == 28


# --- pictures ---------------------------------------------------------------------------------------------------------

FIGURES = {
    "three_answers": lambda: pictures.three_answers(X, Y),
    "descent": lambda: pictures.descent(path(), loss),
    "descent_grid": lambda: pictures.descent_grid({"a": path(0.5), "b": path(2.0)}, loss, last_step=20),
    "near_zero": lambda: pictures.near_zero({"a": path()}),
    "nearest_solution 1": lambda: pictures.nearest_solution(1),
    "nearest_solution 2": lambda: pictures.nearest_solution(2),
    "loss_curves": lambda: pictures.loss_curves({"a": path(), "b": path(2.0)}, loss),
    "bias": lambda: pictures.bias([1, 2], np.ones((2, 5)), np.ones((2, 5)), np.array([0, -3.0, 0, 0, 1])),
    "threshold_functions": lambda: pictures.threshold_functions({"soft": lambda v: soft_threshold(v, 1.0)}, {"t": 1.0}),
    "suboptimality": lambda: pictures.suboptimality({"a": np.ones(9)}, {"a": np.full(9, 2.0)}),
}


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)
def test_every_picture_names_its_axes_and_can_be_drawn(draw):
    figure = draw()
    figure.canvas.draw()
    left_column = [panel for panel in figure.axes if panel.get_subplotspec().is_first_col()]
    bottom_row = [panel for panel in figure.axes if panel.get_subplotspec().is_last_row()]
    assert all(panel.get_ylabel() for panel in left_column)
    assert all(panel.get_xlabel() or len(panel.get_xticklabels()) == 5 for panel in bottom_row)  # or named w_1 ... w_5


def test_weights_that_end_together_share_one_label():
    figure = pictures.descent(proximal_gradient_descent(X, Y, 2.0, 0.02, 200), loss)
    labels = {text.get_text() for text in figure.axes[1].texts}
    assert labels == {"$w_{1,3,4}$", "$w_{2}$", "$w_{5}$"}


def test_a_norm_without_a_picture_is_refused():
    with pytest.raises(ValueError, match=r"norm must be 1 or 2, got 3"):
        pictures.nearest_solution(3)


# --- slider -----------------------------------------------------------------------------------------------------------


def test_moving_the_slider_redraws_the_picture_and_the_numbers():
    from course_utils.sparse_linear.widgets import PenaltyExplorer

    explorer = PenaltyExplorer({"soft": path, "fixed": lambda _: path(2.0)}, loss, penalty=1.0)
    before, said = bytes(explorer.image.value), explorer.status.value
    assert before.startswith(b"\x89PNG")
    explorer.slider.value = 3.0
    assert bytes(explorer.image.value) != before
    assert explorer.status.value != said
    explorer.method.value = "fixed"
    assert f"loss {loss(path(2.0)[-1]):.3g}" in explorer.status.value


def test_an_error_behind_the_slider_is_shown_not_swallowed():
    from course_utils.sparse_linear.widgets import PenaltyExplorer

    def broken(penalty):
        if penalty > 2:
            raise ValueError("step <too> large")
        return path(penalty)

    explorer = PenaltyExplorer({"broken": broken}, loss)
    explorer.slider.value = 5.0
    assert "ValueError" in explorer.status.value
    assert "step &lt;too&gt; large" in explorer.status.value


def test_an_explorer_without_methods_is_refused():
    from course_utils.sparse_linear.widgets import PenaltyExplorer

    with pytest.raises(ValueError, match=r"solvers must name at least one method"):
        PenaltyExplorer({}, loss)
