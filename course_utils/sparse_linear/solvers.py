"""Sparse solutions of a linear model: five ways to walk downhill, and which of them end at exact zeros.

A model with more weights than measurements fits its data in infinitely many ways. Which one we get is decided by how we
search. With the loss L(w) = ||X w - y||^2 and steps of size mu from w = 0:

- gradient descent       w <- w - mu grad L(w)                          the shortest solution; no weight is zero
- projected descent      w <- keep_largest(w - mu grad L(w))            prune after every step (iterative pruning)
- L1 by subgradient      w <- w - mu (grad L(w) + penalty sign(w))      small weights hover around zero, never on it
- proximal descent       w <- soft_threshold(w - mu grad L(w))          exact zeros, but large weights are shrunk too
- trimmed L1             the same, with the largest weights left alone  exact zeros and no shrinkage

All functions take and return float64 arrays. A solver returns its whole path, one row per step, ready to be drawn.
"""

from __future__ import annotations

import numpy as np

from course_utils.validate import check_count, check_matrix, check_nonnegative, check_positive, check_vector


def objective(X: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    """Compute the loss L(w) = ||X w - y||^2: the sum (not the mean) of the squared errors.

    Args:
        X: inputs, shape (n, d), float64; one sample per row.
        y: targets, shape (n,), float64.
        w: weights, shape (d,), float64.

    Returns:
        The loss, a Python float.

    Raises:
        ValueError: when a shape does not fit or an entry is not finite.
        TypeError: when an argument does not hold real numbers.

    Source:
        Hastie, Tibshirani and Friedman, The Elements of Statistical Learning (2nd ed., 2009), equation (3.2).
    """
    check_matrix("X", X)
    check_vector("y", y, length=len(X))
    check_vector("w", w, length=len(X[0]))
    return float(np.sum((X @ w - y) ** 2))


def gradient(X: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Compute the gradient of the loss, grad L(w) = 2 X^T (X w - y).

    Args:
        X: inputs, shape (n, d), float64; one sample per row.
        y: targets, shape (n,), float64.
        w: weights, shape (d,), float64.

    Returns:
        The gradient, shape (d,), float64; entry j is the derivative of the loss with respect to w_j.

    Raises:
        ValueError: when a shape does not fit or an entry is not finite.
        TypeError: when an argument does not hold real numbers.

    Source:
        Hastie, Tibshirani and Friedman, The Elements of Statistical Learning (2nd ed., 2009), equation (3.4).
    """
    check_matrix("X", X)
    check_vector("y", y, length=len(X))
    check_vector("w", w, length=len(X[0]))
    return 2 * X.T @ (X @ w - y)


def gradient_descent(X: np.ndarray, y: np.ndarray, step_size: float, n_steps: int) -> np.ndarray:
    """Walk downhill from zero: w_{k+1} = w_k - step_size grad L(w_k), for k = 0 ... n_steps - 1.

    Args:
        X: inputs, shape (n, d), float64.
        y: targets, shape (n,), float64.
        step_size: mu > 0.
        n_steps: number of steps, an int >= 0.

    Returns:
        The path, shape (n_steps + 1, d), float64: row k holds the weights after k steps, so path[0] is all zeros.

    Raises:
        ValueError: when a shape does not fit, a number is out of range or an entry is not finite (or becomes so on the
            way because the step size is far too large).
        TypeError: when an argument has the wrong type.

    Source:
        Boyd and Vandenberghe, Convex Optimization (2004), section 9.3.
    """
    check_matrix("X", X)
    check_vector("y", y, length=len(X))
    check_positive("step_size", step_size)
    check_count("n_steps", n_steps, minimum=0)
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        path[k + 1] = path[k] - step_size * gradient(X, y, path[k])
    return path


def keep_largest(w: np.ndarray, n_nonzero: int) -> np.ndarray:
    """Project w onto the vectors with at most n_nonzero nonzeros: keep the entries of largest |w_j|, zero the others.

    Of entries with the same magnitude those with the smaller index are kept. The argument w is not changed.

    Args:
        w: weights, shape (d,).
        n_nonzero: how many entries to keep, an int from 0 to d.

    Returns:
        A new array of shape (d,).

    Raises:
        ValueError: when n_nonzero is negative or larger than d, or w is no vector of finite numbers.
        TypeError: when n_nonzero is not an int.

    Source:
        Blumensath and Davies, Iterative Hard Thresholding for Compressed Sensing (2009), section 2 (the operator H_s).
    """
    check_vector("w", w)
    check_count("n_nonzero", n_nonzero, minimum=0, maximum=len(w))
    kept = np.argsort(-np.abs(w), kind="stable")[:n_nonzero]
    projected = np.zeros_like(w)
    projected[kept] = w[kept]
    return projected


def projected_gradient_descent(
    X: np.ndarray, y: np.ndarray, n_nonzero: int, step_size: float, n_steps: int
) -> np.ndarray:
    """Prune after every step: w_{k+1} = keep_largest(w_k - step_size grad L(w_k), n_nonzero), from w_0 = 0.

    Args:
        X: inputs, shape (n, d), float64.
        y: targets, shape (n,), float64.
        n_nonzero: how many weights may be nonzero, an int from 0 to d.
        step_size: mu > 0.
        n_steps: number of steps, an int >= 0.

    Returns:
        The path, shape (n_steps + 1, d), float64: row k holds the weights after k steps, so path[0] is all zeros.

    Raises:
        ValueError: when a shape does not fit, a number is out of range or an entry is not finite.
        TypeError: when an argument has the wrong type.

    Source:
        Blumensath and Davies, Iterative Hard Thresholding for Compressed Sensing (2009), section 2.
    """
    check_matrix("X", X)
    check_vector("y", y, length=len(X))
    check_count("n_nonzero", n_nonzero, minimum=0, maximum=len(X[0]))
    check_positive("step_size", step_size)
    check_count("n_steps", n_steps, minimum=0)
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        path[k + 1] = keep_largest(path[k] - step_size * gradient(X, y, path[k]), n_nonzero)
    return path


def l1_subgradient_descent(X: np.ndarray, y: np.ndarray, penalty: float, step_size: float, n_steps: int) -> np.ndarray:
    """Step against a subgradient: w_{k+1} = w_k - step_size (grad L(w_k) + penalty sign(w_k)).

    The objective is L(w) + penalty ||w||_1. The path starts at w_0 = 0, and sign(0) = 0.

    Args:
        X: inputs, shape (n, d), float64.
        y: targets, shape (n,), float64.
        penalty: lambda >= 0, the weight of the L1 norm.
        step_size: mu > 0.
        n_steps: number of steps, an int >= 0.

    Returns:
        The path, shape (n_steps + 1, d), float64: row k holds the weights after k steps, so path[0] is all zeros.

    Raises:
        ValueError: when a shape does not fit, a number is out of range or an entry is not finite.
        TypeError: when an argument has the wrong type.

    Source:
        Shor, Minimization Methods for Non-Differentiable Functions (1985), chapter 2.
    """
    check_matrix("X", X)
    check_vector("y", y, length=len(X))
    check_nonnegative("penalty", penalty)
    check_positive("step_size", step_size)
    check_count("n_steps", n_steps, minimum=0)
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        subgradient = gradient(X, y, path[k]) + penalty * np.sign(path[k])
        path[k + 1] = path[k] - step_size * subgradient
    return path


def soft_threshold(w: np.ndarray, threshold: float) -> np.ndarray:
    """Shrink every entry towards zero: sign(w_j) max(|w_j| - threshold, 0), the proximal map of threshold ||.||_1.

    The argument w is not changed.

    Args:
        w: weights, shape (d,).
        threshold: how far to shrink, >= 0.

    Returns:
        A new array of shape (d,), float64.

    Raises:
        ValueError: when threshold is negative, or w is no vector of finite numbers.
        TypeError: when an argument does not hold real numbers.

    Source:
        Parikh and Boyd, Proximal Algorithms (2014), section 6.5.2.
    """
    check_vector("w", w)
    check_nonnegative("threshold", threshold)
    return np.sign(w) * np.maximum(np.abs(w) - threshold, 0.0)


def proximal_gradient_descent(
    X: np.ndarray, y: np.ndarray, penalty: float, step_size: float, n_steps: int
) -> np.ndarray:
    """Step, then shrink (ISTA): w_{k+1} = soft_threshold(w_k - step_size grad L(w_k), step_size * penalty).

    The path starts at w_0 = 0.

    Args:
        X: inputs, shape (n, d), float64.
        y: targets, shape (n,), float64.
        penalty: lambda >= 0, the weight of the L1 norm in L(w) + penalty ||w||_1.
        step_size: mu > 0.
        n_steps: number of steps, an int >= 0.

    Returns:
        The path, shape (n_steps + 1, d), float64: row k holds the weights after k steps, so path[0] is all zeros.

    Raises:
        ValueError: when a shape does not fit, a number is out of range or an entry is not finite.
        TypeError: when an argument has the wrong type.

    Source:
        Beck and Teboulle, A Fast Iterative Shrinkage-Thresholding Algorithm (2009), equation (1.4) and section 3.
    """
    check_matrix("X", X)
    check_vector("y", y, length=len(X))
    check_nonnegative("penalty", penalty)
    check_positive("step_size", step_size)
    check_count("n_steps", n_steps, minimum=0)
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        path[k + 1] = soft_threshold(path[k] - step_size * gradient(X, y, path[k]), step_size * penalty)
    return path


def trimmed_soft_threshold(w: np.ndarray, threshold: float, n_free: int) -> np.ndarray:
    """Leave the n_free entries of largest |w_j| as they are and soft-threshold the others.

    Of entries with the same magnitude those with the smaller index are free. The argument w is not changed.

    Args:
        w: weights, shape (d,).
        threshold: how far to shrink the entries that are not free, >= 0.
        n_free: how many entries are free, an int from 0 to d; 0 gives soft_threshold, d gives w itself.

    Returns:
        A new array of shape (d,), float64.

    Raises:
        ValueError: when threshold is negative, n_free is out of range, or w is no vector of finite numbers.
        TypeError: when an argument has the wrong type.

    Source:
        Yun, Zheng, Yang, Lozano and Aravkin, Trimming the l1 Regularizer (ICML 2019): the trimmed penalty.
    """
    check_vector("w", w)
    check_nonnegative("threshold", threshold)
    check_count("n_free", n_free, minimum=0, maximum=len(w))
    free = np.argsort(-np.abs(w), kind="stable")[:n_free]
    shrunk = soft_threshold(w, threshold)
    shrunk[free] = w[free]
    return shrunk


def trimmed_proximal_gradient_descent(
    X: np.ndarray, y: np.ndarray, penalty: float, n_free: int, step_size: float, n_steps: int
) -> np.ndarray:
    """Step, then shrink all but the n_free largest weights by step_size * penalty; from w_0 = 0.

    In symbols w_{k+1} = trimmed_soft_threshold(w_k - step_size grad L(w_k), step_size * penalty, n_free): which weights
    are free is decided anew in every step, after the gradient step.

    Args:
        X: inputs, shape (n, d), float64.
        y: targets, shape (n,), float64.
        penalty: lambda >= 0, the weight of the L1 norm of the d - n_free smallest weights.
        n_free: how many weights are free of the penalty, an int from 0 to d.
        step_size: mu > 0.
        n_steps: number of steps, an int >= 0.

    Returns:
        The path, shape (n_steps + 1, d), float64: row k holds the weights after k steps, so path[0] is all zeros.

    Raises:
        ValueError: when a shape does not fit, a number is out of range or an entry is not finite.
        TypeError: when an argument has the wrong type.

    Source:
        Yun, Zheng, Yang, Lozano and Aravkin, Trimming the l1 Regularizer (ICML 2019).
    """
    check_matrix("X", X)
    check_vector("y", y, length=len(X))
    check_nonnegative("penalty", penalty)
    check_count("n_free", n_free, minimum=0, maximum=len(X[0]))
    check_positive("step_size", step_size)
    check_count("n_steps", n_steps, minimum=0)
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        stepped = path[k] - step_size * gradient(X, y, path[k])
        path[k + 1] = trimmed_soft_threshold(stepped, step_size * penalty, n_free)
    return path
