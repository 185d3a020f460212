"""Pictures of Lab 1: how loss and weights move from step to step, where they end, and why.

Every weight keeps its colour and line style through the whole lab, so that it can be followed from picture to picture,
also in grey. Functions take paths (one row per step) and a function `loss(w)`, and return the figure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_utils import plots
from course_utils.sparse_linear.given import lasso_on_support

Loss = Callable[[np.ndarray], float]
Elementwise = Callable[[np.ndarray], np.ndarray]


def draw_loss(axes: Axes, path: np.ndarray, loss: Loss) -> None:
    """Draw log10-scaled loss against step; a loss of exactly zero cannot be drawn and leaves a gap."""
    losses = np.array([loss(w) for w in path])
    axes.semilogy(np.where(losses > 0, losses, np.nan), color=plots.COLORS["dense"], linestyle="-")


def draw_weights(axes: Axes, path: np.ndarray, gap: float = 0.09) -> None:
    """Draw every weight against step, labelled w1, w2, ... at the right end; lines that end together share a label."""
    axes.axhline(0, color=plots.COLORS["reference"], linewidth=0.8, linestyle="-", label="_zero")
    path = np.asarray(path)
    for j, values in enumerate(path.T):
        axes.plot(values, label=f"_w{j + 1}", **line_of_weight(j))
    axes.set_xlim(0, len(path) - 1)
    closeness = 0.02 * float(np.ptp(axes.get_ylim()))
    for group in _groups_of_close_values(path[-1], closeness):
        name = f"$w_{{{','.join(str(j + 1) for j in group)}}}$"
        color = line_of_weight(group[0])["color"] if len(group) == 1 else "#404040"
        axes.plot([len(path) - 1], [path[-1, group].mean()], color=color, alpha=0, label=name)
    plots.label_lines(axes, gap=gap)


def _groups_of_close_values(values: np.ndarray, closeness: float) -> list[list[int]]:
    """Indices of values, grouped where sorted neighbours differ by less than closeness; each group in index order."""
    groups: list[list[int]] = []
    for j in np.argsort(values, kind="stable"):
        if groups and values[j] - values[groups[-1][-1]] < closeness:
            groups[-1].append(int(j))
        else:
            groups.append([int(j)])
    return [sorted(group) for group in groups]


def line_of_weight(j: int) -> dict:
    """Colour and line style of weight j (counted from 0), the same in every picture."""
    n_styles = len(plots.SEQUENCE)
    return {"color": plots.SEQUENCE[j % n_styles], "linestyle": plots.LINE_STYLES[j % n_styles]}


def descent(path: np.ndarray, loss: Loss, title: str = "") -> Figure:
    """Two panels for one path: loss (log scale) against step, and every weight against step."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    draw_loss(left, path, loss)
    left.set(xlabel="step", ylabel="loss $L(w)$ (log scale)", title=title, xlim=(0, len(path) - 1))
    draw_weights(right, path, gap=0.08)
    right.set(xlabel="step", ylabel="weight", title="weights")
    return figure


def descent_grid(paths: Mapping[str, np.ndarray], loss: Loss, last_step: int | None = None) -> Figure:
    """One column for each named path: loss (log scale) above, weights below, with shared axes.

    Args:
        paths: title of the column -> path (n_steps + 1, d).
        loss: the loss of one weight vector.
        last_step: draw only the steps 0 ... last_step; None draws all.

    Returns:
        The figure.
    """
    size = (2.6 * len(paths) + 0.4, 4.8)
    figure, axes = plt.subplots(
        2, len(paths), figsize=size, sharex=True, sharey="row", squeeze=False, layout="constrained"
    )
    for (title, path), (upper, lower) in zip(paths.items(), axes.T, strict=True):
        shown = path if last_step is None else path[: last_step + 1]
        draw_loss(upper, shown, loss)
        upper.set_title(title)
        lower.set_xlabel("step")
        lower.plot(shown, alpha=0)  # fixes the shared limits before labels are placed
    for path, lower in zip(paths.values(), axes[1], strict=True):
        draw_weights(lower, path if last_step is None else path[: last_step + 1], gap=0.1)
    axes[0, 0].set_ylabel("loss $L(w)$ (log scale)")
    axes[1, 0].set_ylabel("weight")
    return figure


def near_zero(paths: Mapping[str, np.ndarray], last_steps: int = 40) -> Figure:
    """The weights that end closer than 0.1 to zero, magnified, over the last steps; one panel for each named path."""
    figure, panels = plt.subplots(1, len(paths), figsize=(9, 2.9), sharey=True, squeeze=False, layout="constrained")
    for panel, (title, path) in zip(panels[0], paths.items(), strict=True):
        path, steps = np.asarray(path), np.arange(len(path))[-last_steps:]
        small = [j for j in range(path.shape[1]) if np.all(np.abs(path[steps, j]) < 0.1)]
        for j in small:
            options = {"marker": ".", "markersize": 5, "linewidth": 1, "label": f"$w_{{{j + 1}}}$"}
            panel.plot(steps, path[steps, j], **options, **line_of_weight(j))
        panel.set(xlabel="step", title=title, ylim=(-0.08, 0.08))
        names = ", ".join(f"$w_{{{j + 1}}}$" for j in small)
        n_zeros = int(np.sum(path[steps][:, small] == 0))
        panel.annotate(
            f"{names}: {n_zeros} of {len(small) * len(steps)} values are exactly 0",
            (0.02, 0.94),
            xycoords="axes fraction",
            va="top",
            fontsize=9,
        )
    panels[0, 0].set_ylabel("weight")
    panels[0, 0].legend(ncols=3, loc="lower left", fontsize=9)
    return figure


def three_answers(X: np.ndarray, y: np.ndarray, penalty: float = 2.0) -> Figure:
    """Where Lab 1 ends: the weights found by descent, by an L1 penalty, and by a penalty that spares the large weights.

    All three are computed here from closed forms, which need to be told the support that the methods of the lab find.
    """
    signs = np.array([0, -1, 0, 0, 1])
    answers = {
        "gradient descent": np.linalg.pinv(X) @ y,
        "L1 penalty": lasso_on_support(X, y, penalty, signs),
        "pruned, or trimmed L1": lasso_on_support(X, y, 0.0, signs),
    }
    comments = ["no weight is zero", "three zeros, the rest shrunk", "three zeros, nothing shrunk"]
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.7), sharey=True, layout="constrained")
    for panel, (title, w), comment in zip(axes, answers.items(), comments, strict=True):
        _bars_of_weights(panel, w)
        residual = float(np.sum((X @ w - y) ** 2))
        loss = "0 (up to rounding)" if residual < 1e-20 else f"{residual:.3g}"
        panel.set_title(f"{title}\n{comment}\nloss {loss}", fontsize=10)
    axes[0].set_ylabel("weight")
    return figure


def _bars_of_weights(panel: Axes, w: np.ndarray) -> None:
    """One bar for each weight with its value; exact zeros are marked with an open circle."""
    names = [f"$w_{{{j + 1}}}$" for j in range(len(w))]
    panel.bar(names, w, color=[plots.SEQUENCE[j] for j in range(len(w))], width=0.6)
    for j, value in enumerate(w):
        if value == 0:
            panel.plot(j, 0, "o", color="black", markerfacecolor="white", markersize=6)
        above = value >= 0
        panel.annotate(
            f"{value:.3g}",
            (j, value),
            (0, 6 if above else -6),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            fontsize=9,
        )
    panel.axhline(0, color="black", linewidth=0.8)
    panel.margins(y=0.18)


def nearest_solution(norm: int) -> Figure:
    """One equation 2 w1 + w2 = 2 in two unknowns: the solution of smallest L2 norm (norm=2) or of smallest L1 norm (1).

    The growing ball around zero first touches the line of solutions at the solution of smallest norm.
    """
    if norm not in (1, 2):
        raise ValueError(f"norm must be 1 or 2, got {norm}")
    touch, radius = ((0.8, 0.4), np.hypot(0.8, 0.4)) if norm == 2 else ((1.0, 0.0), 1.0)
    figure, axes = plt.subplots(figsize=(4.4, 3.9), layout="constrained")
    w1 = np.array([-0.3, 1.35])
    axes.plot(w1, 2 - 2 * w1, color=plots.COLORS["dense"], linestyle="-")
    axes.annotate("all solutions:\n$2 w_1 + w_2 = 2$", (0.42, 1.16), (0.62, 1.25), fontsize=9)
    for scale in (0.35, 0.7, 1.0):
        axes.plot(*_ball(norm, scale * radius), color=plots.COLORS["reference"], linewidth=1, linestyle="-")
    if norm == 2:
        axes.plot([0, touch[0]], [0, touch[1]], color=plots.COLORS["masked"], linestyle="-")
        axes.annotate(
            "descent from 0: straight\nalong $(2, 1)$",
            (0.36, 0.18),
            (-1.02, 1.2),
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": plots.COLORS["reference"]},
        )
    axes.plot(*touch, "o", color=plots.COLORS["highlight"], markersize=8, clip_on=False, zorder=3)
    axes.annotate(
        f"smallest L{norm} norm\n({touch[0]:g}, {touch[1]:g})",
        touch,
        (8, 6),
        textcoords="offset points",
        color=plots.COLORS["highlight"],
        fontsize=9,
    )
    axes.set(xlabel="weight $w_1$", ylabel="weight $w_2$", aspect="equal", xlim=(-1.1, 1.95), ylim=(-1.1, 1.5))
    return figure


def _ball(norm: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Points on the circle (norm 2) or diamond (norm 1) of the given radius."""
    if norm == 1:
        return radius * np.array([1, 0, -1, 0, 1]), radius * np.array([0, 1, 0, -1, 0])
    angle = np.linspace(0, 2 * np.pi, 181)
    return radius * np.cos(angle), radius * np.sin(angle)


def loss_curves(paths: Mapping[str, np.ndarray], loss: Loss) -> Figure:
    """The loss (log scale) against step of several named paths in one panel; losses below 1e-32 are drawn there."""
    figure, axes = plt.subplots(figsize=(7.5, 3.4), layout="constrained")
    for name, path in paths.items():
        axes.semilogy([max(loss(w), 1e-32) for w in path], label=name)
    axes.set(xlabel="step", ylabel="loss $L(w)$ (log scale)", xlim=(0, max(map(len, paths.values())) - 1))
    plots.label_lines(axes)
    return figure


def bias(penalties: Sequence[float], found: np.ndarray, predicted: np.ndarray, unbiased: np.ndarray) -> Figure:
    """The weights of the support against the penalty: found (dots), closed form (lines), unbiased (dotted).

    Args:
        penalties: the values of lambda, m of them.
        found: final weights of the solver, shape (m, d).
        predicted: weights of the closed form, shape (m, d).
        unbiased: least-squares weights on the same support, shape (d,).

    Returns:
        The figure.
    """
    support = np.flatnonzero(unbiased)
    figure, panels = plt.subplots(
        1, len(support), figsize=(4.2 * len(support), 3.2), layout="constrained", squeeze=False
    )
    for panel, j in zip(panels[0], support, strict=True):
        panel.axhline(unbiased[j], color=plots.COLORS["reference"], linestyle=":")
        panel.annotate(
            "without penalty",
            (max(penalties), unbiased[j]),
            (0, 3),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=9,
            color="#505050",
        )
        panel.plot(penalties, predicted[:, j], color=line_of_weight(j)["color"], linestyle="-")
        panel.plot(penalties, found[:, j], "o", color=line_of_weight(j)["color"], markerfacecolor="white")
        panel.set(xlabel="penalty $\\lambda$", ylabel=f"final weight $w_{{{j + 1}}}$")
        panel.set_title("dots: 200 steps; line: closed form", fontsize=10)
        panel.margins(y=0.15)
    return figure


def threshold_functions(functions: Mapping[str, Elementwise], marks: Mapping[str, float]) -> Figure:
    """Output against input of several threshold functions, with the identity in grey and marks on the input axis.

    Args:
        functions: name -> function of a vector.
        marks: label -> position of a vertical line.

    Returns:
        The figure.
    """
    inputs = np.linspace(-3, 3, 601)
    figure, panels = plt.subplots(
        1, len(functions), figsize=(3.1 * len(functions), 3.1), sharey=True, layout="constrained", squeeze=False
    )
    for panel, (name, function) in zip(panels[0], functions.items(), strict=True):
        panel.plot(inputs, inputs, color=plots.COLORS["reference"], linewidth=1, linestyle="--")
        panel.plot(inputs, function(inputs), color=plots.COLORS["masked"], linestyle="-")
        for label, position in marks.items():
            panel.axvline(position, color=plots.COLORS["reference"], linewidth=0.8, linestyle=":")
            panel.annotate(label, (position, -2.9), (3, 0), textcoords="offset points", fontsize=9)
        panel.set(xlabel="weight before", title=name, aspect="equal")
    panels[0, 0].set_ylabel("weight after")
    return figure


def suboptimality(gaps: Mapping[str, np.ndarray], bounds: Mapping[str, np.ndarray]) -> Figure:
    """Objective minus optimum against step on two log scales; the theorems' bounds are dotted.

    Args:
        gaps: method -> F(w_k) - F(w*) for k = 1, 2, ...
        bounds: the same methods -> the guaranteed bound for k = 1, 2, ...

    Returns:
        The figure.
    """
    figure, axes = plt.subplots(figsize=(7.5, 4), layout="constrained")
    for i, (name, gap) in enumerate(gaps.items()):
        steps, color = np.arange(1, len(gap) + 1), plots.SEQUENCE[i]
        axes.loglog(steps, np.maximum(gap, 1e-13), color=color, linestyle="-", label=name)
        axes.loglog(steps, bounds[name], color=color, linestyle=":", label=f"bound for {name}")
    axes.set(xlabel="step $k$ (log scale)", ylabel="$F(w_k) - F(w^*)$ (log scale)")
    axes.set_xlim(1, len(gap))
    axes.set_ylim(bottom=1e-9)
    plots.label_lines(axes)
    return figure
