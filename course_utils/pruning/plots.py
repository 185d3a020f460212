"""Pictures of Lab 2: which weights go, where in the network they were, what it costs, and what it saves.

All functions take plain results (masks, lists of accuracies, rows of measurements) and return the figure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from torch import nn

from course_utils import plots
from course_utils.resnet import weighted_layers

METHOD_STYLES = {
    "per layer": {"color": "#56B4E9", "linestyle": "--", "marker": "s"},
    "global": {"color": plots.COLORS["masked"], "linestyle": "-", "marker": "o"},
    "freeze and retrain": {"color": plots.COLORS["highlight"], "linestyle": "-.", "marker": "^"},
    "masked retraining": {"color": plots.COLORS["dense"], "linestyle": "-", "marker": "D"},
    "per layer, linear": {"color": "#56B4E9", "linestyle": "--", "marker": "s"},
    "global, linear": {"color": plots.COLORS["masked"], "linestyle": "-", "marker": "o"},
    "global, cubic": {"color": plots.COLORS["highlight"], "linestyle": "-.", "marker": "^"},
}
"""Line styles of the methods, the same in every picture."""
METHOD_STYLES |= {schedule: METHOD_STYLES[f"global, {schedule}"] for schedule in ("linear", "cubic")}


def style_of(name: str, number: int = 0) -> dict:
    """Return the line style of a method; names that are not in METHOD_STYLES go through the course's colours."""
    index = number % len(plots.SEQUENCE)
    style = {"color": plots.SEQUENCE[index], "linestyle": plots.LINE_STYLES[index], "marker": "o"}
    return METHOD_STYLES.get(name, style)


def as_matrix(tensor: torch.Tensor) -> np.ndarray:
    """Return a weight or mask as a matrix: one row an output channel, one column an input (and kernel position)."""
    return tensor.detach().cpu().reshape(len(tensor), -1).numpy()


def before_and_after(model: nn.Module, layer_name: str, sparsity: float) -> Figure:
    """One layer's magnitudes, and which of them are among the largest of the whole network.

    Args:
        model: The network; not changed.
        layer_name: The layer to show.
        sparsity: Fraction of the network's weights that the lower panel leaves out.

    Returns:
        The figure.
    """
    layers = dict(weighted_layers(model))
    every = np.concatenate([as_matrix(layer.weight).ravel() for layer in layers.values()])
    magnitudes = np.abs(as_matrix(layers[layer_name].weight))
    kept = magnitudes > np.quantile(np.abs(every), sparsity)
    figure, (left, right) = plt.subplots(2, 1, figsize=(9, 4.0), sharex=True, layout="constrained")
    picture = left.imshow(magnitudes, cmap="Greys", aspect="auto", interpolation="nearest")
    left.set(title=f"{layer_name}: {magnitudes.size} weights, magnitude", ylabel="output channel")
    figure.colorbar(picture, ax=left, label="|w|", pad=0.01)
    shown = right.imshow(kept, cmap="Greys", aspect="auto", interpolation="nearest", vmin=0, vmax=1)
    figure.colorbar(shown, ax=right, ticks=[0, 1], pad=0.01).ax.set_yticklabels(["zero", "kept"])
    right.set(title=f"what is left of it when the network loses {100 * sparsity:g} %: {100 * kept.mean():.1f} %")
    right.set(xlabel="input channel and kernel position", ylabel="output channel")
    for axes in (left, right):
        axes.grid(False)
    return figure


def magnitudes_by_layer(model: nn.Module, sparsity: float) -> Figure:
    """Where each layer's magnitudes lie (5th to 95th percentile, median), with the network's own quantile as a line."""
    layers = weighted_layers(model)
    values = [np.abs(as_matrix(layer.weight).ravel()) for _, layer in layers]
    threshold = np.quantile(np.concatenate(values), sparsity)
    figure, axes = plt.subplots(figsize=(8, 4.6), layout="constrained")
    rows = np.arange(len(layers))
    quantiles = np.array([np.quantile(v, (0.05, 0.25, 0.5, 0.75, 0.95)) for v in values])
    low, quarter, median, three, high = quantiles.T
    axes.hlines(rows, low, high, color=plots.COLORS["reference"], linewidth=1.2)
    axes.hlines(rows, quarter, three, color=plots.COLORS["masked"], linewidth=6)
    axes.plot(median, rows, "|", color="white", markersize=8, markeredgewidth=2)
    axes.axvline(threshold, color=plots.COLORS["highlight"], linestyle="--")
    text = f"one threshold for {100 * sparsity:g} % of the network"
    axes.annotate(text, (threshold, -1.1), ha="left", va="bottom", color=plots.COLORS["highlight"],
                  xytext=(4, 0), textcoords="offset points")  # fmt: skip
    axes.set_yticks(rows, [name for name, _ in layers], fontsize=8)
    axes.set(xscale="log", xlabel="|w| (log scale): thin line 5 to 95 %, bar 25 to 75 %, white tick median")
    axes.set_ylim(len(layers) - 0.3, -1.9)
    return figure


def layer_sparsities(reports: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    """Sparsity of every layer under several ways of pruning.

    Args:
        reports: Name of the way -> what `sparsity_report` returned.

    Returns:
        The figure.
    """
    names = [name for name in next(iter(reports.values())) if name != "total"]
    figure, axes = plt.subplots(figsize=(8.5, 3.8), layout="constrained")
    width = 0.8 / len(reports)
    for number, (label, report) in enumerate(reports.items()):
        positions = np.arange(len(names)) + (number - (len(reports) - 1) / 2) * width
        values = [report[name]["sparsity"] for name in names]
        look = {"color": style_of(label, number)["color"], "hatch": ["", "//", ".."][number % 3], "edgecolor": "white"}
        axes.bar(positions, values, width, label=label, **look)
    sizes = [next(iter(reports.values()))[name]["weights"] for name in names]
    labels = [f"{name}  ({size})" for name, size in zip(names, sizes, strict=True)]
    axes.set_xticks(np.arange(len(names)), labels, rotation=60, ha="right", fontsize=8)
    axes.set(ylabel="sparsity", ylim=(0, 1.12), xlabel="layer (number of weights)")
    axes.grid(axis="x", visible=False)
    axes.legend(ncols=len(reports), loc="upper left")
    return figure


def sensitivity(curves: Mapping[str, Sequence[float]], levels: Sequence[float]) -> Figure:
    """Accuracy when one layer alone is pruned: a table in grey, rows are layers, columns are sparsities."""
    values = np.array(list(curves.values()))
    figure, axes = plt.subplots(figsize=(7.5, 5.4), layout="constrained")
    picture = axes.imshow(values, cmap="Greys_r", vmin=max(0.0, values.min() - 0.05), vmax=values.max(), aspect="auto")
    middle = (values.max() + values.min()) / 2
    for (row, column), value in np.ndenumerate(values):
        color = "black" if value > middle else "white"
        axes.text(column, row, f"{value:.3f}", ha="center", va="center", fontsize=8, color=color)
    axes.set_yticks(range(len(curves)), list(curves), fontsize=8)
    axes.set_xticks(range(len(levels)), [f"{100 * level:g} %" for level in levels])
    axes.set(xlabel="sparsity of this one layer, all others dense")
    axes.grid(False)
    figure.colorbar(picture, ax=axes, label="accuracy on the scan images", pad=0.02)
    return figure


def two_scans(before: Mapping[str, float], after: Mapping[str, float], level: float) -> Figure:
    """Accuracy when one layer alone is pruned to a level, with the dense network's statistics and its own."""
    figure, axes = plt.subplots(figsize=(7.5, 4.8), layout="constrained")
    rows = range(len(before))[::-1]
    for row, name in zip(rows, before, strict=True):
        axes.plot([before[name], after[name]], [row, row], color=plots.COLORS["masked"], linewidth=1, linestyle="-")
    colors = plots.COLORS
    axes.plot(list(before.values()), rows, "o", color=colors["masked"], label="statistics of the dense network")
    axes.plot([after[name] for name in before], rows, "o", color=colors["highlight"], label="statistics of its own")
    axes.set_yticks(rows, list(before), fontsize=8)
    axes.set(xlabel="accuracy on the scan images", title=f"one layer pruned to {100 * level:g} %, all others dense")
    axes.legend(loc="lower left", fontsize=8)
    return figure


def schedules(curves: Mapping[str, Callable[[int], float]], n_steps: int) -> Figure:
    """Sparsity, and how much of what is left each step removes, under several schedules, from step 0 to n_steps."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    steps = np.arange(n_steps + 1)
    for number, (label, schedule) in enumerate(curves.items()):
        values = np.array([schedule(int(step)) for step in steps])
        removed = (values[1:] - values[:-1]) / (1 - values[:-1])
        options = style_of(label, number)
        left.plot(steps, values, label=label, **options)
        right.plot(steps[1:], removed, label=label, **options)
    left.set(xlabel="step", ylabel="sparsity", ylim=(0, 1))
    right.set(xlabel="step", ylabel="share of the remaining weights\nthat this step removes", ylim=(0, None))
    left.legend(loc="lower right")
    return figure


def iterative_runs(runs: Mapping[str, Sequence]) -> Figure:
    """Sparsity and accuracy of iterative runs: the accuracy falls at each pruning and rises in the epoch that follows.

    Args:
        runs: Name -> list of `sweeps.Epoch`.

    Returns:
        The figure.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained", width_ratios=[1, 2])
    lowest = 1.0
    for number, (label, epochs) in enumerate(runs.items()):
        options = {key: value for key, value in style_of(label, number).items() if key != "marker"}
        steps = np.arange(1, len(epochs) + 1)
        sparsities = [epoch.sparsity for epoch in (*epochs, epochs[-1])]
        width = 3.0 - 0.8 * number  # runs with the same schedule lie on top of each other: both remain visible
        left.step(np.arange(1, len(epochs) + 2), sparsities, where="post", linewidth=width, **options)
        times = np.repeat(steps, 2) + np.tile([0.0, 0.9], len(steps))
        accuracies = [value for epoch in epochs for value in (epoch.accuracy_before, epoch.accuracy)]
        right.plot(times, accuracies, label=label, marker=".", **options)
        lowest = min(lowest, *accuracies)
    left.set(xlabel="epoch", ylabel="sparsity after pruning", ylim=(0, 1))
    right.set(xlabel="epoch (first dot: pruned, second dot: trained)", ylabel="accuracy on the scan images")
    right.set(ylim=(max(0.0, lowest - 0.05), 1.0))
    right.legend(loc="lower right")
    return figure


def pareto(results: Mapping[str, Sequence[tuple[float, float]]], dense_accuracy: float) -> Figure:
    """Accuracy against sparsity of several methods, with the dense network's accuracy as a grey line."""
    figure, axes = plt.subplots(figsize=(8.5, 4.0), layout="constrained")
    axes.axhline(dense_accuracy, color=plots.COLORS["reference"], linewidth=1, linestyle=":")
    grey = plots.COLORS["reference"]
    axes.annotate("dense", (100, dense_accuracy), xytext=(0, 3), textcoords="offset points", color=grey, ha="right")
    for number, (label, points) in enumerate(results.items()):
        sparsities, accuracies = zip(*points, strict=True)
        axes.plot([100 * s for s in sparsities], accuracies, label=label, markersize=5, **style_of(label, number))
    axes.set(xlabel="sparsity of convolution and linear weights (%)", ylabel="accuracy on the scan images")
    axes.set(xlim=(-2, 100), ylim=(0, 1.02))
    axes.legend(loc="lower left")
    return figure


def bytes_and_latency(sizes: Sequence[Mapping[str, float]], latencies: Sequence[Mapping[str, float]]) -> Figure:
    """Left: bytes on disk of three layouts. Right: milliseconds of one convolution in four ways. Both against sparsity.

    Args:
        sizes: Rows with "sparsity" and bytes by layout.
        latencies: Rows with "sparsity" and milliseconds by kind.

    Returns:
        The figure.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    for axes, rows, scale in ((left, sizes, 1 / 1000), (right, latencies, 1.0)):
        for number, key in enumerate(key for key in rows[0] if key != "sparsity"):
            color = "highlight" if key.lower().startswith("csr") else ("dense", "masked", "reference")[number % 3]
            style = plots.LINE_STYLES[number % len(plots.LINE_STYLES)]
            options = {"color": plots.COLORS[color], "linestyle": style, "marker": "o", "markersize": 4}
            axes.plot([100 * row["sparsity"] for row in rows], [scale * row[key] for row in rows], label=key, **options)
        axes.legend(fontsize=9)
        axes.set(xlabel="sparsity (%)")
    left.set(ylabel="size of the file (kB)", ylim=(0, None), title="the whole network, on disk")
    right.set(ylabel="median time (ms, log scale)", yscale="log", title="one layer, in time")
    right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.yaxis.set_major_formatter("{x:g}")
    right.yaxis.set_minor_formatter(NullFormatter())
    return figure


def mark_level(axes: Axes, level: float, accuracy: float) -> list:
    """Draw a vertical line and a dot at one point of an accuracy curve; returns the artists."""
    line = axes.axvline(100 * level, color=plots.COLORS["highlight"], linestyle="--", linewidth=1.2)
    (dot,) = axes.plot([100 * level], [accuracy], "o", color=plots.COLORS["highlight"], markersize=8)
    return [line, dot]
