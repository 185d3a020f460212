"""What Lab 1 gives to its readers: the data, exact answers to compare with, and two methods beyond the exercises.

Nothing here is an exercise. The exact answers are closed forms (a small linear system) where the support and the signs
of the solution are known; the two further methods are FISTA, which is proximal descent with momentum, and the firm
threshold of the minimax concave penalty (MCP), which shrinks small weights and leaves large ones alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from course_utils.validate import check_count, check_matrix, check_nonnegative, check_positive, check_vector


def three_measurements() -> tuple[np.ndarray, np.ndarray]:
    """Three samples of five inputs and their targets: X of shape (3, 5) and y of shape (3,), whole numbers in float64.

    Source:
        Duke University, ECE 661 (2022), homework 4, the sparse linear model.
    """
    X = np.array([[1, -2, -1, -1, 1], [2, -1, 2, 0, -2], [-1, 0, 2, 2, 1]], dtype=np.float64)
    y = np.array([7, 1, 1], dtype=np.float64)
    return X, y


def sparse_problem(
    n_samples: int, n_weights: int, n_nonzero: int, noise: float, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a random problem y = X w_true + noise whose true weights are mostly zero.

    Args:
        n_samples: number of rows of X.
        n_weights: number of columns of X.
        n_nonzero: how many true weights are nonzero; each of them is +1 or -1.
        noise: standard deviation of the normal noise on y.
        seed: seed of the generator; the same seed gives the same problem.

    Returns:
        X (n_samples, n_weights) with independent standard normal entries, y (n_samples,), w_true (n_weights,).

    Raises:
        ValueError: when a number is out of range.
    """
    check_count("n_samples", n_samples, minimum=1)
    check_count("n_weights", n_weights, minimum=1)
    check_count("n_nonzero", n_nonzero, minimum=0, maximum=n_weights)
    check_nonnegative("noise", noise)
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_samples, n_weights))
    w_true = np.zeros(n_weights)
    w_true[rng.choice(n_weights, size=n_nonzero, replace=False)] = rng.choice([-1.0, 1.0], size=n_nonzero)
    return X, X @ w_true + noise * rng.normal(size=n_samples), w_true


def numerical_gradient(function: Callable[[np.ndarray], float], w: np.ndarray) -> np.ndarray:
    """Compute the gradient by central differences, (f(w + e_j) - f(w - e_j)) / 2 for every unit vector e_j.

    For a quadratic function the second-order terms cancel, so that the result is exact up to rounding for a step of any
    length; the step is 1 here. For other functions this is a poor approximation.

    Args:
        function: a quadratic function of a vector.
        w: where to differentiate, shape (d,).

    Returns:
        The gradient, shape (d,), float64.
    """
    check_vector("w", w)
    return np.array([(function(w + unit) - function(w - unit)) / 2 for unit in np.eye(len(w))])


def lasso_on_support(X: np.ndarray, y: np.ndarray, penalty: float, signs: Sequence[float]) -> np.ndarray:
    """Solve min ||X w - y||^2 + penalty ||w||_1 in closed form when the signs s of the solution are known.

    On the support S = {j: s_j != 0}: w_S = (X_S^T X_S)^{-1} (X_S^T y - penalty / 2 s_S), and zero elsewhere. With
    penalty = 0 this is least squares on S.

    Args:
        X: inputs, shape (n, d).
        y: targets, shape (n,).
        penalty: lambda >= 0.
        signs: d numbers: -1, 0 or 1.

    Returns:
        The weights, shape (d,), float64.

    Raises:
        ValueError: when an argument does not fit, or the columns of X on the support are linearly dependent.

    Source:
        Tibshirani, The lasso problem and uniqueness (2013), section 2 (with loss 1/2 ||.||^2: lambda, not lambda / 2).
    """
    check_matrix("X", X)
    check_vector("y", y, length=len(X))
    check_nonnegative("penalty", penalty)
    check_vector("signs", signs, length=len(X[0]))
    signs = np.asarray(signs, dtype=np.float64)
    support = np.flatnonzero(signs)
    columns = X[:, support]
    if np.linalg.matrix_rank(columns) < len(support):
        raise ValueError(f"signs must select linearly independent columns of X, got the support {support.tolist()}")
    weights = np.zeros(len(signs))
    weights[support] = np.linalg.solve(columns.T @ columns, columns.T @ y - penalty / 2 * signs[support])
    return weights


def repeat_update(update: Callable[[np.ndarray], np.ndarray], start: np.ndarray, n_steps: int) -> np.ndarray:
    """Apply an update again and again: row k of the result, shape (n_steps + 1, d), is the start after k updates."""
    check_vector("start", start)
    check_count("n_steps", n_steps, minimum=0)
    path = np.empty((n_steps + 1, len(start)))
    path[0] = start
    for k in range(n_steps):
        path[k + 1] = update(path[k])
    return path


def fista(
    gradient: Callable[[np.ndarray], np.ndarray],
    prox: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    step_size: float,
    n_steps: int,
) -> np.ndarray:
    """Proximal descent with momentum: w_{k+1} = prox(v_k - step_size gradient(v_k)), v_k ahead of w_k.

    v_{k+1} = w_{k+1} + (t_k - 1) / t_{k+1} (w_{k+1} - w_k) with t_0 = 1 and t_{k+1} = (1 + sqrt(1 + 4 t_k^2)) / 2.

    Args:
        gradient: gradient of the smooth part.
        prox: proximal map of step_size times the penalty.
        start: w_0, shape (d,).
        step_size: mu > 0, at most 1 / (Lipschitz constant of the gradient).
        n_steps: number of steps, an int >= 0.

    Returns:
        The path, shape (n_steps + 1, d), float64.

    Source:
        Beck and Teboulle, A Fast Iterative Shrinkage-Thresholding Algorithm (2009), section 4.
    """
    check_vector("start", start)
    check_positive("step_size", step_size)
    check_count("n_steps", n_steps, minimum=0)
    path = np.empty((n_steps + 1, len(start)))
    path[0], ahead, t = start, np.array(start, dtype=np.float64), 1.0
    for k in range(n_steps):
        path[k + 1] = prox(ahead - step_size * gradient(ahead))
        t_next = (1 + np.sqrt(1 + 4 * t**2)) / 2
        ahead = path[k + 1] + (t - 1) / t_next * (path[k + 1] - path[k])
        t = t_next
    return path


def firm_threshold(w: np.ndarray, threshold: float, cutoff: float) -> np.ndarray:
    """Zero up to the threshold, the identity from the cutoff on, a straight line in between: the proximal map of MCP.

    With threshold = step_size * penalty and cutoff > threshold this is the proximal map of step_size times the penalty
    whose slope falls linearly from `penalty` at zero to 0 at the cutoff: penalty max(0, 1 - |w| / cutoff).

    Args:
        w: weights, shape (d,).
        threshold: magnitudes up to here become zero, >= 0.
        cutoff: magnitudes from here on are left alone, > threshold.

    Returns:
        A new array of shape (d,), float64.

    Raises:
        ValueError: when cutoff <= threshold, a number is negative, or w is no vector of finite numbers.

    Source:
        Gao and Bruce, WaveShrink with firm shrinkage (1997); Zhang, Nearly unbiased variable selection under minimax
        concave penalty (2010), section 2.
    """
    check_vector("w", w)
    check_nonnegative("threshold", threshold)
    if not cutoff > threshold:
        raise ValueError(f"cutoff must be larger than threshold = {threshold}, got {cutoff}")
    slope = cutoff / (cutoff - threshold)
    between = np.where(w > 0, slope * (w - threshold), slope * (w + threshold))
    return np.where(np.abs(w) <= threshold, 0.0, np.where(np.abs(w) < cutoff, between, w))


def comparison_table(rows: Sequence[tuple[str, str, str]]) -> str:
    """Lay out rows (quantity, published, ours) as text in three columns, with a header line."""
    header = ("quantity", "published", "ours")
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(3)]
    lines = ["   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *rows]]
    return "\n".join([lines[0].rstrip(), "   ".join("-" * width for width in widths), *[s.rstrip() for s in lines[1:]]])
