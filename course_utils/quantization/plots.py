"""Pictures of Lab 3: weights on a grid, accuracy against bits, grids that adapt, bytes by part, milliseconds.

All functions take plain results and return the figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_utils import plots

METHOD_STYLES = {
    "per tensor, asymmetric": {"color": plots.COLORS["quantized"], "linestyle": "-", "marker": "o"},
    "per tensor, symmetric": {"color": plots.COLORS["quantized"], "linestyle": ":", "marker": "o", "mfc": "white"},
    "per channel, asymmetric": {"color": plots.COLORS["masked"], "linestyle": "-", "marker": "s"},
    "per channel, symmetric": {"color": plots.COLORS["masked"], "linestyle": ":", "marker": "s", "mfc": "white"},
}
"""Line styles of the four kinds of grid, the same in every picture."""


def values_of(weight: torch.Tensor) -> np.ndarray:
    """Return a weight's entries as a vector."""
    return weight.detach().cpu().double().numpy().ravel()


def before_and_after(weight: torch.Tensor, quantized: torch.Tensor, title: str) -> Figure:
    """Histogram of a layer's weights, and the few values that are left of them with how often each occurs."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.0), layout="constrained", sharex=True)
    values = values_of(weight)
    left.hist(values, bins=120, color=plots.COLORS["dense"])
    left.set(xlabel="weight", ylabel="number of weights", title=f"{title}: {len(np.unique(values))} different values")
    draw_levels(right, quantized)
    right.set(xlabel="weight", title=f"the same layer with {len(np.unique(values_of(quantized)))} values")
    return figure


def draw_levels(axes: Axes, quantized: torch.Tensor) -> None:
    """Draw how often each value occurs, as one vertical line a value."""
    levels, counts = np.unique(values_of(quantized), return_counts=True)
    axes.vlines(levels, 0, counts, color=plots.COLORS["quantized"], linewidth=3)
    axes.set(ylabel="number of weights", ylim=(0, None))


def bits_and_accuracy(curves: Mapping[str, Mapping[int, float]], dense_accuracy: float) -> Figure:
    """Accuracy against the number of bits, one line for each kind of grid, without finetuning.

    Args:
        curves: Name -> {bits: accuracy}.
        dense_accuracy: Accuracy of the float network.

    Returns:
        The figure.
    """
    figure, axes = plt.subplots(figsize=(8.5, 3.8), layout="constrained")
    bits = sorted({b for curve in curves.values() for b in curve}, reverse=True)
    places = {b: place for place, b in enumerate(bits)}
    axes.axhline(dense_accuracy, color=plots.COLORS["dense"], linewidth=1, linestyle="--")
    axes.annotate("float", (len(bits) - 0.9, dense_accuracy), xytext=(0, 4), textcoords="offset points", ha="right")
    for number, (label, curve) in enumerate(curves.items()):
        style = METHOD_STYLES.get(label, {"color": plots.SEQUENCE[number % 7], "marker": "o"})
        axes.plot([places[b] for b in curve], list(curve.values()), label=label, markersize=6, **style)
    axes.set_xticks(range(len(bits)), bits)
    axes.set(xlabel="bits a weight", ylabel="accuracy, no finetuning", ylim=(0, 1.02))
    axes.legend(loc="lower left")
    return figure


def finetuned(rows: Sequence[Mapping[str, float]], dense_accuracy: float) -> Figure:
    """Accuracy of each run in three states: rounded (hollow), with statistics of its own (bar), trained (full dot).

    Args:
        rows: With "name", "bits", "before", "own" and "after".
        dense_accuracy: Accuracy of the float network.

    Returns:
        The figure.
    """
    figure, axes = plt.subplots(figsize=(8.5, 0.9 + 0.3 * len(rows)), layout="constrained")
    axes.axvline(dense_accuracy, color=plots.COLORS["dense"], linewidth=1, linestyle="--")
    for place, row in enumerate(rows):
        color = plots.COLORS["highlight"] if "LSQ" in row["name"] else plots.COLORS["quantized"]
        axes.plot([row["before"], row["after"]], [place, place], color=color, linewidth=1.2, linestyle="-")
        axes.plot([row["before"]], [place], "o", color=color, mfc="white")
        axes.plot([row["own"]], [place], "|", color=color, markersize=12, markeredgewidth=2)
        axes.plot([row["after"]], [place], "o", color=color)
    axes.set_yticks(range(len(rows)), [f"{row['name']}, {row['bits']} bits" for row in rows])
    axes.set(xlabel="accuracy: circle rounded, bar own statistics, dot trained; dashed: float network", xlim=(0, 1))
    axes.invert_yaxis()
    return figure


def two_grids(weight: torch.Tensor, grids: Mapping[str, torch.Tensor]) -> Figure:
    """Histogram of a weight with the levels of several grids above each other.

    Args:
        weight: The weight that is rounded.
        grids: Name -> the quantized weight.

    Returns:
        The figure.
    """
    figure, axes = plt.subplots(len(grids), 1, figsize=(8.5, 1.7 * len(grids) + 0.4), sharex=True, layout="constrained")
    values = values_of(weight)
    for row, (label, quantized) in zip(np.atleast_1d(axes), grids.items(), strict=True):
        row.hist(values, bins=120, color=plots.COLORS["reference"], alpha=0.5)
        for level in np.unique(values_of(quantized)):
            row.axvline(level, color=plots.COLORS["quantized"], linewidth=1.4)
        error = np.square(values_of(quantized) - values).mean() / np.square(values).mean()
        row.set(ylabel="number of weights", title=f"{label}: squared error {100 * error:.1f} % of the squared weights")
    np.atleast_1d(axes)[-1].set(xlabel="weight (grey histogram), levels of the grid (vertical lines)")
    return figure


def stages(sizes: Mapping[str, Mapping[str, int]]) -> Figure:
    """Bytes of a file after each stage of a pipeline, by part: all stages, and all but the first on a scale of their
    own.

    Args:
        sizes: Name of the stage -> {part: bytes}.

    Returns:
        The figure.
    """
    size = (10, 1.4 + 0.42 * len(sizes))
    figure, (left, right) = plt.subplots(1, 2, figsize=size, layout="constrained")
    whole = sum(next(iter(sizes.values())).values())
    _stacked(left, sizes, whole)
    _stacked(right, dict(list(sizes.items())[1:]), whole)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=9)
    return figure


def _stacked(axes: Axes, sizes: Mapping[str, Mapping[str, int]], whole: int) -> None:
    """Draw one stacked bar a stage, with its size and how many times smaller than the whole it is."""
    start = np.zeros(len(sizes))
    for number, part in enumerate(next(iter(sizes.values()))):
        widths = np.array([stage[part] for stage in sizes.values()]) / 1000
        look = {"color": plots.SEQUENCE[number % 7], "hatch": ("", "//", "..", "xx")[number % 4], "edgecolor": "white"}
        axes.barh(list(sizes), widths, left=start, label=part, **look)
        start += widths
    for place, total in enumerate(start):
        axes.annotate(f" {total:.0f} kB, {whole / 1000 / total:.1f}x", (total, place), va="center", fontsize=9)
    axes.set(xlabel="size of the file (kB)", xlim=(0, 1.35 * start.max()))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)


def inference(rows: Sequence) -> Figure:
    """Latency of a batch of each size, and file size, of several ways to run one network.

    Args:
        rows: `int8.InferenceRow`s; the first is what the others are compared with.

    Returns:
        The figure.
    """
    batches = list(rows[0].latencies)
    size = (10, 1.0 + 0.42 * len(rows))
    figure, panels = plt.subplots(1, len(batches) + 1, figsize=size, sharey=True, layout="constrained")
    columns = {}
    for batch in batches:
        columns[f"time of a batch of {batch} (ms)"] = [row.latencies[batch].median_ms for row in rows]
    columns["size of the file (kB)"] = [row.size_bytes / 1000 for row in rows]
    for axes, (label, values) in zip(panels, columns.items(), strict=True):
        colors = [plots.COLORS["dense"]] + [plots.COLORS["quantized"]] * (len(rows) - 1)
        axes.barh([row.name for row in rows], values, color=colors)
        for place, value in enumerate(values):
            axes.annotate(f" {values[0] / value:.2f}x", (value, place), va="center", fontsize=9)
        axes.set(xlabel=label, xlim=(0, 1.3 * max(values)))
        axes.grid(axis="y", visible=False)
    panels[0].invert_yaxis()
    return figure
