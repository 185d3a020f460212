"""Wrong answers to Lab 1 that students plausibly give, and correct ones that look different from the reference.

Each function is self-contained given the notebook's names. The names of other exercises are imported at the end, because
the functions above them are named like exercises too.
"""

import numpy as np

from course_admin.answers import correct, wrong, wrong_value
from course_utils.validate import check_count, check_vector

# --- concepts --------------------------------------------------------------------------------------------------------

wrong_value("concept_1", True, "takes orthogonal to mean that the order does not matter")
wrong_value("concept_2", True, "believes that a dense kernel skips zeros")
wrong_value("concept_3", False, "believes that Huffman coding needs few weights instead of few values")
wrong_value("concept_4", True, "takes small for zero")
wrong_value("concept_5", True, "credits the method with removing the bias of the penalty")
wrong_value("concept_6", False, "swaps the inner and the outer norm")
wrong_value("concept_7", False, "takes the distance term for a change of the objective")
wrong_value("concept_8", True, "takes less computation for less memory")
wrong_value("concept_9", False, "believes that the forward pass uses full precision")
wrong_value("concept_10", False, "believes that layers are equally sensitive")
wrong_value("concept_1", "False", "a string instead of a truth value")
wrong_value("concept_3", 1, "a number instead of a truth value")


# --- objective -------------------------------------------------------------------------------------------------------


@wrong("mean instead of sum")
def objective(X, y, w):
    return float(np.mean((X @ w - y) ** 2))


@wrong("one half in front")
def objective(X, y, w):
    return 0.5 * float(np.sum((X @ w - y) ** 2))


@wrong("absolute instead of squared errors")
def objective(X, y, w):
    return float(np.sum(np.abs(X @ w - y)))


@wrong("norm without the square")
def objective(X, y, w):
    return float(np.linalg.norm(X @ w - y))


@wrong("squares the sum instead of summing the squares")
def objective(X, y, w):
    return float(np.sum(X @ w - y) ** 2)


@wrong("one squared error for each sample, not summed")
def objective(X, y, w):
    return (X @ w - y) ** 2


@wrong("knows the visible checks by heart")
def objective(X, y, w):
    return {5: 51.0, 1: 25.0 if len(y) == 1 else 18.0}.get(len(w), 0.0)


@correct("a loop over samples")
def objective(X, y, w):
    total = 0.0
    for inputs, target in zip(X, y, strict=True):
        prediction = sum(x * weight for x, weight in zip(inputs, w, strict=True))
        total += (prediction - target) ** 2
    return total


@correct("inner product of the errors, a NumPy scalar")
def objective(X, y, w):
    errors = y - X.dot(w)
    return errors @ errors


# --- gradient --------------------------------------------------------------------------------------------------------


@wrong("without the factor 2")
def gradient(X, y, w):
    return X.T @ (X @ w - y)


@wrong("sign lost")
def gradient(X, y, w):
    return 2 * X.T @ (y - X @ w)


@wrong("mean instead of sum")
def gradient(X, y, w):
    return 2 * X.T @ (X @ w - y) / len(y)


@wrong("targets forgotten")
def gradient(X, y, w):
    return 2 * X.T @ (X @ w)


@wrong("X not transposed")
def gradient(X, y, w):
    return 2 * X @ (X @ w - y)


@wrong("normalised to length one")
def gradient(X, y, w):
    g = 2 * X.T @ (X @ w - y)
    return g / max(np.linalg.norm(g), 1e-12)


@correct("a loop over samples")
def gradient(X, y, w):
    g = np.zeros(X.shape[1])
    for inputs, target in zip(X, y, strict=True):
        g += 2 * (inputs @ w - target) * inputs
    return g


@correct("normal equations multiplied out")
def gradient(X, y, w):
    return 2 * (X.T @ X @ w - X.T @ y)


@correct("central differences")
def gradient(X, y, w):
    units = np.eye(len(w))
    return np.array([(np.sum((X @ (w + e) - y) ** 2) - np.sum((X @ (w - e) - y) ** 2)) / 2 for e in units])


# --- gradient_descent ------------------------------------------------------------------------------------------------


@wrong("walks uphill")
def gradient_descent(X, y, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        path[k + 1] = path[k] + step_size * gradient(X, y, path[k])
    return path


@wrong("the start is missing from the path")
def gradient_descent(X, y, step_size, n_steps):
    w, path = np.zeros(X.shape[1]), []
    for _ in range(n_steps):
        w = w - step_size * gradient(X, y, w)
        path.append(w)
    return np.array(path)


@wrong("every row is the same array, changed in place")
def gradient_descent(X, y, step_size, n_steps):
    w = np.zeros(X.shape[1])
    path = [w]
    for _ in range(n_steps):
        w -= step_size * gradient(X, y, w)
        path.append(w)
    return np.array(path)


@wrong("one step too few")
def gradient_descent(X, y, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps - 1):
        path[k + 1] = path[k] - step_size * gradient(X, y, path[k])
    return path


@wrong("gradient always taken at the start")
def gradient_descent(X, y, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        path[k + 1] = path[k] - step_size * gradient(X, y, path[0])
    return path


@wrong("step size fixed to that of the example")
def gradient_descent(X, y, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        path[k + 1] = path[k] - 0.02 * gradient(X, y, path[k])
    return path


@wrong("only the final weights")
def gradient_descent(X, y, step_size, n_steps):
    w = np.zeros(X.shape[1])
    for _ in range(n_steps):
        w = w - step_size * gradient(X, y, w)
    return w


@correct("a list of copies")
def gradient_descent(X, y, step_size, n_steps):
    w = np.zeros(X.shape[1])
    path = [w.copy()]
    for _ in range(n_steps):
        w -= step_size * gradient(X, y, w)
        path.append(w.copy())
    return np.stack(path)


@correct("without calling gradient")
def gradient_descent(X, y, step_size, n_steps):
    gram, moment = X.T @ X, X.T @ y
    rows = [np.zeros(X.shape[1])]
    while len(rows) <= n_steps:
        rows.append(rows[-1] + 2 * step_size * (moment - gram @ rows[-1]))
    return np.array(rows)


@correct("central differences in place of gradient, as the lab advises when that is missing")
def gradient_descent(X, y, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        path[k + 1] = path[k] - step_size * numerical_gradient(lambda v: objective(X, y, v), path[k])
    return path


# --- keep_largest ----------------------------------------------------------------------------------------------------


@wrong("largest values instead of largest magnitudes")
def keep_largest(w, n_nonzero):
    kept = np.argsort(-w, kind="stable")[:n_nonzero]
    projected = np.zeros_like(w)
    projected[kept] = w[kept]
    return projected


@wrong("the last ones of an ascending sort: wrong for ties and for none")
def keep_largest(w, n_nonzero):
    kept = np.argsort(np.abs(w))[-n_nonzero:]
    projected = np.zeros_like(w)
    projected[kept] = w[kept]
    return projected


@wrong("a threshold that keeps all ties")
def keep_largest(w, n_nonzero):
    if n_nonzero == 0:
        return np.zeros_like(w)
    threshold = np.sort(np.abs(w))[len(w) - n_nonzero]
    return np.where(np.abs(w) >= threshold, w, 0)


@wrong("of equal magnitudes the larger index stays")
def keep_largest(w, n_nonzero):
    order = np.argsort(np.abs(w), kind="stable")
    projected = np.zeros_like(w)
    kept = order[len(w) - n_nonzero :]
    projected[kept] = w[kept]
    return projected


@wrong("zeroes the largest")
def keep_largest(w, n_nonzero):
    projected = w.copy()
    projected[np.argsort(-np.abs(w), kind="stable")[:n_nonzero]] = 0
    return projected


@wrong("returns magnitudes")
def keep_largest(w, n_nonzero):
    projected = np.zeros_like(w)
    kept = np.argsort(-np.abs(w), kind="stable")[:n_nonzero]
    projected[kept] = np.abs(w)[kept]
    return projected


@wrong("zeroes entries of its argument")
def keep_largest(w, n_nonzero):
    w[np.argsort(-np.abs(w), kind="stable")[n_nonzero:]] = 0
    return w


@wrong("returns only the kept entries")
def keep_largest(w, n_nonzero):
    return w[np.sort(np.argsort(-np.abs(w), kind="stable")[:n_nonzero])]


@wrong("keeps one too many")
def keep_largest(w, n_nonzero):
    projected = np.zeros_like(w)
    kept = np.argsort(-np.abs(w), kind="stable")[: n_nonzero + 1]
    projected[kept] = w[kept]
    return projected


@correct("zeroes the rest of a copy")
def keep_largest(w, n_nonzero):
    projected = np.array(w, dtype=np.float64)
    projected[np.argsort(-np.abs(w), kind="stable")[n_nonzero:]] = 0.0
    return projected


@correct("one maximum after the other, in a loop")
def keep_largest(w, n_nonzero):
    projected, left = np.zeros(len(w)), np.abs(w).astype(float)
    for _ in range(n_nonzero):
        j = int(np.argmax(left))
        projected[j], left[j] = w[j], -1.0
    return projected


@correct("sorted() with a key, a list as result")
def keep_largest(w, n_nonzero):
    check_vector("w", w)
    check_count("n_nonzero", n_nonzero, minimum=0, maximum=len(w))
    kept = set(sorted(range(len(w)), key=lambda j: -abs(w[j]))[:n_nonzero])
    return [w[j] if j in kept else 0.0 for j in range(len(w))]


# --- projected_gradient_descent --------------------------------------------------------------------------------------


@wrong("projects only at the end")
def projected_gradient_descent(X, y, n_nonzero, step_size, n_steps):
    path = gradient_descent(X, y, step_size, n_steps)
    path[-1] = keep_largest(path[-1], n_nonzero)
    return path


@wrong("projects the gradient instead of the weights")
def projected_gradient_descent(X, y, n_nonzero, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        path[k + 1] = path[k] - step_size * keep_largest(gradient(X, y, path[k]), n_nonzero)
    return path


@wrong("projects before the step")
def projected_gradient_descent(X, y, n_nonzero, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        kept = keep_largest(path[k], n_nonzero)
        path[k + 1] = kept - step_size * gradient(X, y, kept)
    return path


@wrong("keeps the support of the first step for ever")
def projected_gradient_descent(X, y, n_nonzero, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        stepped = path[k] - step_size * gradient(X, y, path[k])
        if k == 0:
            mask = keep_largest(stepped, n_nonzero) != 0
        path[k + 1] = stepped * mask
    return path


@wrong("prunes n_nonzero weights instead of keeping them")
def projected_gradient_descent(X, y, n_nonzero, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        path[k + 1] = keep_largest(path[k] - step_size * gradient(X, y, path[k]), X.shape[1] - n_nonzero)
    return path


@wrong("always keeps two")
def projected_gradient_descent(X, y, n_nonzero, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        path[k + 1] = keep_largest(path[k] - step_size * gradient(X, y, path[k]), 2)
    return path


@wrong("projects the finished path of gradient descent")
def projected_gradient_descent(X, y, n_nonzero, step_size, n_steps):
    return np.array([keep_largest(w, n_nonzero) for w in gradient_descent(X, y, step_size, n_steps)])


@correct("a list of rows")
def projected_gradient_descent(X, y, n_nonzero, step_size, n_steps):
    path = [np.zeros(X.shape[1])]
    for _ in range(n_steps):
        w = path[-1]
        path.append(keep_largest(w - step_size * gradient(X, y, w), n_nonzero))
    return np.array(path)


@correct("without calling gradient or keep_largest")
def projected_gradient_descent(X, y, n_nonzero, step_size, n_steps):
    w = np.zeros(X.shape[1])
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(1, n_steps + 1):
        w = w + 2 * step_size * X.T @ (y - X @ w)
        w[np.argsort(-np.abs(w), kind="stable")[n_nonzero:]] = 0
        path[k] = w
    return path


# --- l1_subgradient_descent ------------------------------------------------------------------------------------------


@wrong("penalty not multiplied by the step size")
def l1_subgradient_descent(X, y, penalty, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        path[k + 1] = path[k] - step_size * gradient(X, y, path[k]) - penalty * np.sign(path[k])
    return path


@wrong("weight decay: the weight itself instead of its sign")
def l1_subgradient_descent(X, y, penalty, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        path[k + 1] = path[k] - step_size * (gradient(X, y, path[k]) + penalty * path[k])
    return path


@wrong("pushes away from zero")
def l1_subgradient_descent(X, y, penalty, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        path[k + 1] = path[k] - step_size * (gradient(X, y, path[k]) - penalty * np.sign(path[k]))
    return path


@wrong("the sign of zero taken as one")
def l1_subgradient_descent(X, y, penalty, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        sign = np.where(path[k] >= 0, 1.0, -1.0)
        path[k + 1] = path[k] - step_size * (gradient(X, y, path[k]) + penalty * sign)
    return path


@wrong("sign forgotten: the penalty pushes everything down")
def l1_subgradient_descent(X, y, penalty, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        path[k + 1] = path[k] - step_size * (gradient(X, y, path[k]) + penalty * (path[k] != 0))
    return path


@wrong("weights that change their sign are set to zero")
def l1_subgradient_descent(X, y, penalty, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        w = path[k] - step_size * (gradient(X, y, path[k]) + penalty * np.sign(path[k]))
        path[k + 1] = np.where(w * path[k] < 0, 0.0, w)
    return path


@wrong("sign taken after the gradient step")
def l1_subgradient_descent(X, y, penalty, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        w = path[k] - step_size * gradient(X, y, path[k])
        path[k + 1] = w - step_size * penalty * np.sign(w)
    return path


@wrong("half the penalty")
def l1_subgradient_descent(X, y, penalty, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        path[k + 1] = path[k] - step_size * (gradient(X, y, path[k]) + penalty / 2 * np.sign(path[k]))
    return path


@correct("signs from comparisons")
def l1_subgradient_descent(X, y, penalty, step_size, n_steps):
    path = [np.zeros(X.shape[1])]
    for _ in range(n_steps):
        w = path[-1]
        sign = (w > 0).astype(float) - (w < 0).astype(float)
        path.append(w - step_size * gradient(X, y, w) - step_size * penalty * sign)
    return np.array(path)


@correct("weight by weight")
def l1_subgradient_descent(X, y, penalty, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        slope = gradient(X, y, path[k])
        for j, weight in enumerate(path[k]):
            direction = 0 if weight == 0 else weight / abs(weight)
            path[k + 1, j] = weight - step_size * (slope[j] + penalty * direction)
    return path


# --- soft_threshold --------------------------------------------------------------------------------------------------


@wrong("loses the sign")
def soft_threshold(w, threshold):
    return np.maximum(np.abs(w) - threshold, 0)


@wrong("does not stop at zero")
def soft_threshold(w, threshold):
    return w - threshold * np.sign(w)


@wrong("hard thresholding: kept weights are not shrunk")
def soft_threshold(w, threshold):
    return np.where(np.abs(w) > threshold, w, 0.0)


@wrong("negative weights are cut off")
def soft_threshold(w, threshold):
    return np.maximum(w - threshold, 0.0)


@wrong("negative weights move away from zero")
def soft_threshold(w, threshold):
    return np.where(np.abs(w) > threshold, w - threshold, 0.0)


@wrong("whole numbers in, whole numbers out")
def soft_threshold(w, threshold):
    shrunk = np.zeros_like(w)
    shrunk[w > threshold] = w[w > threshold] - threshold
    shrunk[w < -threshold] = w[w < -threshold] + threshold
    return shrunk


@wrong("changes its argument")
def soft_threshold(w, threshold):
    sign = np.sign(w)
    size = np.maximum(np.abs(w) - threshold, 0.0)
    w[:] = sign * size
    return sign * size


@wrong("half the threshold")
def soft_threshold(w, threshold):
    return np.sign(w) * np.maximum(np.abs(w) - threshold / 2, 0.0)


@correct("three cases")
def soft_threshold(w, threshold):
    return np.where(w > threshold, w - threshold, np.where(w < -threshold, w + threshold, 0.0))


@correct("what clipping takes away")
def soft_threshold(w, threshold):
    return w - np.clip(w, -threshold, threshold)


@correct("a loop that returns a list")
def soft_threshold(w, threshold):
    shrunk = []
    for weight in w:
        if abs(weight) <= threshold:
            shrunk.append(0.0)
        else:
            shrunk.append(float(weight - threshold if weight > 0 else weight + threshold))
    return np.array(shrunk)


# --- proximal_gradient_descent ---------------------------------------------------------------------------------------


@wrong("threshold is the penalty, without the step size")
def proximal_gradient_descent(X, y, penalty, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        path[k + 1] = soft_threshold(path[k] - step_size * gradient(X, y, path[k]), penalty)
    return path


@wrong("shrinks before the gradient step")
def proximal_gradient_descent(X, y, penalty, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        path[k + 1] = soft_threshold(path[k], step_size * penalty) - step_size * gradient(X, y, path[k])
    return path


@wrong("shrinks once, at the end")
def proximal_gradient_descent(X, y, penalty, step_size, n_steps):
    path = gradient_descent(X, y, step_size, n_steps)
    path[-1] = soft_threshold(path[-1], step_size * penalty)
    return path


@wrong("penalises twice: subgradient and threshold")
def proximal_gradient_descent(X, y, penalty, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        slope = gradient(X, y, path[k]) + penalty * np.sign(path[k])
        path[k + 1] = soft_threshold(path[k] - step_size * slope, step_size * penalty)
    return path


@wrong("half the threshold, as for a loss with one half in front")
def proximal_gradient_descent(X, y, penalty, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        path[k + 1] = soft_threshold(path[k] - step_size * gradient(X, y, path[k]), step_size * penalty / 2)
    return path


@wrong("the subgradient method again")
def proximal_gradient_descent(X, y, penalty, step_size, n_steps):
    return l1_subgradient_descent(X, y, penalty, step_size, n_steps)


@wrong("stores the weights before shrinking")
def proximal_gradient_descent(X, y, penalty, step_size, n_steps):
    w, path = np.zeros(X.shape[1]), [np.zeros(X.shape[1])]
    for _ in range(n_steps):
        w = w - step_size * gradient(X, y, w)
        path.append(w)
        w = soft_threshold(w, step_size * penalty)
    return np.array(path)


@correct("a list of rows")
def proximal_gradient_descent(X, y, penalty, step_size, n_steps):
    path = [np.zeros(X.shape[1])]
    for _ in range(n_steps):
        path.append(soft_threshold(path[-1] - step_size * gradient(X, y, path[-1]), penalty * step_size))
    return np.array(path)


@correct("without calling other exercises")
def proximal_gradient_descent(X, y, penalty, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    threshold = step_size * penalty
    for k in range(n_steps):
        v = path[k] + 2 * step_size * X.T @ (y - X @ path[k])
        path[k + 1] = np.where(np.abs(v) > threshold, v - threshold * np.sign(v), 0.0)
    return path


@correct("central differences in place of gradient, as the lab advises when that is missing")
def proximal_gradient_descent(X, y, penalty, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        slope = numerical_gradient(lambda v: objective(X, y, v), path[k])
        path[k + 1] = soft_threshold(path[k] - step_size * slope, step_size * penalty)
    return path


# --- trimmed_soft_threshold ------------------------------------------------------------------------------------------


@wrong("frees the smallest")
def trimmed_soft_threshold(w, threshold, n_free):
    free = np.argsort(np.abs(w), kind="stable")[:n_free]
    shrunk = soft_threshold(w, threshold)
    shrunk[free] = w[free]
    return shrunk


@wrong("shrinks n_free entries instead of freeing them")
def trimmed_soft_threshold(w, threshold, n_free):
    free = np.argsort(-np.abs(w), kind="stable")[: len(w) - n_free]
    shrunk = soft_threshold(w, threshold)
    shrunk[free] = w[free]
    return shrunk


@wrong("sets the others to zero")
def trimmed_soft_threshold(w, threshold, n_free):
    free = np.argsort(-np.abs(w), kind="stable")[:n_free]
    shrunk = np.zeros(len(w))
    shrunk[free] = w[free]
    return shrunk


@wrong("the last ones of an ascending sort: wrong for ties and for none")
def trimmed_soft_threshold(w, threshold, n_free):
    free = np.argsort(np.abs(w))[-n_free:]
    shrunk = soft_threshold(w, threshold)
    shrunk[free] = w[free]
    return shrunk


@wrong("largest values instead of largest magnitudes")
def trimmed_soft_threshold(w, threshold, n_free):
    free = np.argsort(-w, kind="stable")[:n_free]
    shrunk = soft_threshold(w, threshold)
    shrunk[free] = w[free]
    return shrunk


@wrong("of equal magnitudes all are free")
def trimmed_soft_threshold(w, threshold, n_free):
    if n_free == 0:
        return soft_threshold(w, threshold)
    smallest_free = np.sort(np.abs(w))[len(w) - n_free]
    return np.where(np.abs(w) >= smallest_free, w, soft_threshold(w, threshold))


@wrong("shrinks the free ones too")
def trimmed_soft_threshold(w, threshold, n_free):
    return soft_threshold(w, threshold)


@wrong("changes its argument")
def trimmed_soft_threshold(w, threshold, n_free):
    others = np.argsort(-np.abs(w), kind="stable")[n_free:]
    w[others] = np.sign(w[others]) * np.maximum(np.abs(w[others]) - threshold, 0)
    return w


@correct("shrinks the others of a copy")
def trimmed_soft_threshold(w, threshold, n_free):
    result = np.array(w, dtype=float)
    others = np.argsort(-np.abs(w), kind="stable")[n_free:]
    result[others] = np.sign(result[others]) * np.maximum(np.abs(result[others]) - threshold, 0)
    return result


@correct("a mask from ranks")
def trimmed_soft_threshold(w, threshold, n_free):
    order = sorted(range(len(w)), key=lambda j: (-abs(w[j]), j))
    is_free = np.isin(np.arange(len(w)), order[:n_free])
    return np.where(is_free, w, w - np.clip(w, -threshold, threshold))


# --- trimmed_proximal_gradient_descent -------------------------------------------------------------------------------


@wrong("threshold is the penalty, without the step size")
def trimmed_proximal_gradient_descent(X, y, penalty, n_free, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        stepped = path[k] - step_size * gradient(X, y, path[k])
        path[k + 1] = trimmed_soft_threshold(stepped, penalty, n_free)
    return path


@wrong("n_free taken for the number of shrunk weights")
def trimmed_proximal_gradient_descent(X, y, penalty, n_free, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        stepped = path[k] - step_size * gradient(X, y, path[k])
        path[k + 1] = trimmed_soft_threshold(stepped, step_size * penalty, X.shape[1] - n_free)
    return path


@wrong("free weights chosen before the gradient step")
def trimmed_proximal_gradient_descent(X, y, penalty, n_free, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        free = np.argsort(-np.abs(path[k]), kind="stable")[:n_free]
        stepped = path[k] - step_size * gradient(X, y, path[k])
        path[k + 1] = soft_threshold(stepped, step_size * penalty)
        path[k + 1, free] = stepped[free]
    return path


@wrong("free weights chosen once, after the first step")
def trimmed_proximal_gradient_descent(X, y, penalty, n_free, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        stepped = path[k] - step_size * gradient(X, y, path[k])
        if k == 0:
            free = np.argsort(-np.abs(stepped), kind="stable")[:n_free]
        path[k + 1] = soft_threshold(stepped, step_size * penalty)
        path[k + 1, free] = stepped[free]
    return path


@wrong("plain soft thresholding")
def trimmed_proximal_gradient_descent(X, y, penalty, n_free, step_size, n_steps):
    return proximal_gradient_descent(X, y, penalty, step_size, n_steps)


@wrong("projection: the others are set to zero")
def trimmed_proximal_gradient_descent(X, y, penalty, n_free, step_size, n_steps):
    return projected_gradient_descent(X, y, n_free, step_size, n_steps)


@wrong("two weights are always free")
def trimmed_proximal_gradient_descent(X, y, penalty, n_free, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        stepped = path[k] - step_size * gradient(X, y, path[k])
        path[k + 1] = trimmed_soft_threshold(stepped, step_size * penalty, 2)
    return path


@correct("a list of rows")
def trimmed_proximal_gradient_descent(X, y, penalty, n_free, step_size, n_steps):
    path = [np.zeros(X.shape[1])]
    for _ in range(n_steps):
        stepped = path[-1] - step_size * gradient(X, y, path[-1])
        path.append(trimmed_soft_threshold(stepped, penalty * step_size, n_free))
    return np.vstack(path)


@correct("without calling other exercises")
def trimmed_proximal_gradient_descent(X, y, penalty, n_free, step_size, n_steps):
    path = np.zeros((n_steps + 1, X.shape[1]))
    for k in range(n_steps):
        v = path[k] + 2 * step_size * X.T @ (y - X @ path[k])
        others = np.argsort(-np.abs(v), kind="stable")[n_free:]
        v[others] -= np.clip(v[others], -step_size * penalty, step_size * penalty)
        path[k + 1] = v
    return path


from course_utils.sparse_linear import (  # noqa: E402
    gradient,
    gradient_descent,
    keep_largest,
    l1_subgradient_descent,
    objective,
    projected_gradient_descent,
    proximal_gradient_descent,
    soft_threshold,
    trimmed_soft_threshold,
)
from course_utils.sparse_linear.given import numerical_gradient  # noqa: E402
