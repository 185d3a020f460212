"""Pictures of Lab 4: learning rates, filters, accuracies of pruned networks, and where the time goes.

All functions take plain results and return the figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from course_utils import plots
from course_utils.pruning.roofline import LayerPoint, Machine
from course_utils.pruning.structured_costs import Cost

RUN_STYLES = {
    "dense": {"color": plots.COLORS["dense"], "linestyle": "-", "marker": "D"},
    "unstructured": {"color": plots.COLORS["masked"], "linestyle": "--", "marker": "o"},
    "filters": {"color": plots.COLORS["structured"], "linestyle": "-.", "marker": "s"},
}
"""Line styles of the three kinds of networks, the same in every picture."""


def _style(name: str, number: int) -> dict:
    if name in RUN_STYLES:
        return RUN_STYLES[name]
    look = {"color": plots.SEQUENCE[number % 7], "linestyle": plots.LINE_STYLES[number % 7]}
    return look | {"marker": "os^Dv"[number % 5]}


def filter_tiles(weight: torch.Tensor, kept: torch.Tensor | None = None, columns: int = 8) -> np.ndarray:
    """Arrange filters as tiles of one image, for `imshow`: the mean over input channels of each, on its own scale.

    Args:
        weight: (C_out, C_in, k, k).
        kept: (C_out,) boolean; filters outside are left blank (NaN). All are shown when None.
        columns: Tiles a row.

    Returns:
        A matrix with values from -1 to 1, NaN between tiles and where nothing is shown.
    """
    tiles = weight.detach().float().cpu().mean(1)
    tiles = tiles / tiles.abs().amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    if kept is not None:
        tiles[~kept.cpu()] = float("nan")
    size, rows = tiles.shape[-1] + 1, -(-len(tiles) // columns)
    picture = np.full((rows * size + 1, columns * size + 1), np.nan)
    for index, tile in enumerate(tiles.numpy()):
        top, left = index // columns * size + 1, index % columns * size + 1
        picture[top : top + size - 1, left : left + size - 1] = tile
    return picture


def draw_filters(axes: Axes, weight: torch.Tensor, kept: torch.Tensor | None = None) -> None:
    """Draw `filter_tiles` in grey, with a thin cross where a filter is gone."""
    columns = 4 if len(weight) <= 16 else 8 if len(weight) <= 64 else 16
    size = weight.shape[-1] + 1
    picture = filter_tiles(weight, kept, columns)
    axes.imshow(np.ma.masked_invalid(picture), cmap="Greys", vmin=-1.3, vmax=1.3, interpolation="nearest")
    gone = [] if kept is None else np.flatnonzero(~kept.cpu().numpy())
    for index in gone:
        middle = (index % columns * size + size / 2, index // columns * size + size / 2)
        axes.plot(*middle, "x", color=plots.COLORS["highlight"], markersize=7, markeredgewidth=1.5)
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    for side in axes.spines.values():
        side.set_visible(False)


def filters_before_and_after(weight: torch.Tensor, kept: torch.Tensor, name: str) -> Figure:
    """All filters of a layer as little images, and the same with those that pruning removes crossed out.

    Args:
        weight: (C_out, C_in, k, k) before pruning.
        kept: (C_out,) boolean, True where the filter stays.
        name: Name of the layer.

    Returns:
        The figure.
    """
    norms = weight.detach().abs().flatten(1).sum(1).cpu().numpy()
    order = np.argsort(-norms)
    options = {"figsize": (10, 3.2), "layout": "constrained", "width_ratios": [1, 1, 1.2]}
    figure, (left, middle, right) = plt.subplots(1, 3, **options)
    draw_filters(left, weight)
    left.set_title(f"{name}: {len(weight)} filters")
    draw_filters(middle, weight, kept)
    middle.set_title(f"{int(kept.sum())} of them stay")
    colors = [plots.COLORS["structured"] if kept[i] else plots.COLORS["reference"] for i in order]
    right.bar(np.arange(len(norms)), norms[order], color=colors)
    right.set(xlabel="filter, sorted by its norm", ylabel="L1 norm", title="orange stays, grey goes")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.grid(axis="x", visible=False)
    return figure


def step_curves(curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]], window: int) -> Figure:
    """Loss and accuracy of every step, thin, with their moving averages, thick.

    Args:
        curves: Name -> (loss, accuracy, averaged loss, averaged accuracy) of the steps.
        window: Width of the average; an average is drawn at the last step of its window.

    Returns:
        The figure.
    """
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    for number, (label, (loss, accuracy, mean_loss, mean_accuracy)) in enumerate(curves.items()):
        color, line = plots.SEQUENCE[number], plots.LINE_STYLES[number]
        for axes, raw, mean in ((panels[0], loss, mean_loss), (panels[1], accuracy, mean_accuracy)):
            axes.plot(np.arange(1, len(raw) + 1), raw, color=color, linestyle="-", linewidth=0.7, alpha=0.35)
            steps = np.arange(window, window + len(mean))
            axes.plot(steps, mean, color=color, linestyle=line, linewidth=2.2, label=label)
    panels[0].set(xlabel="step", ylabel="loss (log scale)", yscale="log")
    panels[1].set(xlabel="step", ylabel="accuracy on the batch", ylim=(0, 1))
    panels[0].legend(title="learning rate", loc="best")
    return figure


def range_test(rates: Sequence[float], losses: np.ndarray, smooth: np.ndarray) -> Figure:
    """Loss against a rising learning rate, with its moving average and the rate where the average is lowest."""
    figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
    axes.plot(rates, losses, color=plots.COLORS["reference"], linewidth=0.8, linestyle="-", label="each step")
    middle = (len(losses) - len(smooth)) // 2
    at = np.asarray(rates)[middle : middle + len(smooth)]
    axes.plot(at, smooth, color=plots.COLORS["dense"], linestyle="-", label="moving average")
    best = at[int(np.argmin(smooth))]
    axes.axvline(best, color=plots.COLORS["highlight"], linestyle="--")
    top = {"xy": (best, 1), "xycoords": axes.get_xaxis_transform(), "xytext": (5, -12), "textcoords": "offset points"}
    axes.annotate(f"lowest at {best:.2g}", color=plots.COLORS["highlight"], **top)
    axes.set(xscale="log", xlabel="learning rate (log scale), rising at every step", ylabel="loss of the step")
    axes.set_ylim(0, min(float(np.max(losses)), 3 * float(losses[0])) * 1.05)
    axes.legend(loc="lower left")
    return figure


def schedule_runs(rates: Mapping[str, Sequence[float]], accuracies: Mapping[str, Sequence[float]]) -> Figure:
    """Learning rate of every step, and test accuracy of every epoch, of several schedules.

    Args:
        rates: Name -> learning rate of each step.
        accuracies: Name -> test accuracy after each epoch.

    Returns:
        The figure.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
    for number, label in enumerate(rates):
        options = {"color": plots.SEQUENCE[number], "linestyle": plots.LINE_STYLES[number], "label": label}
        epochs = np.arange(1, len(rates[label]) + 1) / len(rates[label]) * len(accuracies[label])
        left.plot(epochs, rates[label], **options)
        right.plot(np.arange(1, len(accuracies[label]) + 1), accuracies[label], marker="o", markersize=4, **options)
    left.set(xlabel="epoch", ylabel="learning rate", ylim=(0, None))
    right.set(xlabel="epoch", ylabel="test accuracy")
    right.xaxis.set_major_locator(MaxNLocator(integer=True))
    right.legend(loc="lower right")
    return figure


def pruning_runs(runs: Mapping[str, object]) -> Figure:
    """Accuracy over the epochs of runs that prune while they train, with the drops right after each pruning.

    Args:
        runs: Name -> `structured_runs.Run`.

    Returns:
        The figure.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained", width_ratios=[1, 2.2])
    for number, (label, run) in enumerate(runs.items()):
        style = _style(label, number)
        epochs = np.arange(len(run.accuracy))
        plain = {key: value for key, value in style.items() if key != "marker"}
        removed = [100 * fraction for fraction in run.fraction]
        left.step(np.arange(len(removed) + 1), [*removed, *removed[-1:]], where="post", **plain)
        times = np.ravel(np.column_stack([epochs, epochs + 1]))
        values = np.ravel(np.column_stack([run.before, run.accuracy]))
        shown = np.isfinite(values)
        right.plot(times[shown], values[shown], label=label, markersize=4, **style)
    left.set(xlabel="epoch", ylabel="removed (%)", ylim=(-2, 60))
    right.set(xlabel="epoch (two points at one epoch: before and right after pruning)", ylabel="test accuracy")
    right.legend(loc="lower right")
    return figure


def filter_sizes(sizes: Mapping[str, np.ndarray], measures: Mapping[str, str]) -> Figure:
    """Histograms of the sizes of filters, each relative to the mean of its layer, one panel a way of training.

    Args:
        sizes: Title of the panel -> one number for each filter.
        measures: Title -> what was measured, where that is not the L2 norm.

    Returns:
        The figure.
    """
    figure, panels = plt.subplots(1, len(sizes), figsize=(10, 2.8), layout="constrained", sharex=True, sharey=True)
    bins = np.linspace(0, max(float(values.max()) for values in sizes.values()), 41)
    for axes, (label, values) in zip(np.atleast_1d(panels), sizes.items(), strict=True):
        axes.hist(values, bins=bins, color=plots.COLORS["structured"])
        axes.set(title=label, xlabel=f"{measures.get(label, 'L2 norm')} / mean of the layer")
    np.atleast_1d(panels)[0].set_ylabel("number of filters")
    return figure


def criteria(results: Mapping[str, Sequence[tuple[float, float, float]]]) -> Figure:
    """Accuracy of several criteria at equal fractions, right after pruning (left) and finetuned (right).

    Args:
        results: Name -> (fraction, accuracy right after pruning, accuracy after finetuning).

    Returns:
        The figure.
    """
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    for number, (label, rows) in enumerate(results.items()):
        fractions, before, after = zip(*rows, strict=True)
        for axes, values in zip(panels, (before, after), strict=True):
            axes.plot([100 * f for f in fractions], values, label=label, markersize=5, **_style(label, number))
    panels[0].set(title="right after pruning", ylabel="test accuracy", ylim=(0, 1))
    panels[1].set(title="finetuned (another scale)")
    for axes in panels:
        axes.set_xlabel("filters removed in every layer, at least (%)")
    panels[0].legend(loc="upper right")
    return figure


def roofline(machine: Machine, points: Mapping[str, Sequence[LayerPoint]]) -> Figure:
    """Measured MAC/s of layers against MACs per byte, under the machine's two limits.

    Args:
        machine: The limits.
        points: Name of the form -> its layers.

    Returns:
        The figure.
    """
    figure, axes = plt.subplots(figsize=(9, 4.4), layout="constrained")
    every = [point for layers in points.values() for point in layers]
    low, high = min(p.intensity for p in every) / 2, max(max(p.intensity for p in every), machine.ridge) * 3
    x = np.geomspace(low, high, 200)
    axes.plot(x, np.minimum(machine.gmacs, machine.gbytes * x), color=plots.COLORS["reference"], linestyle="-")
    axes.annotate("memory", (2 * low, 2.6 * machine.gbytes * low), color=plots.COLORS["reference"], ha="right")
    axes.annotate("arithmetic", (high, machine.gmacs), xytext=(0, 4), textcoords="offset points", ha="right",
                  color=plots.COLORS["reference"])  # fmt: skip
    colors = [plots.COLORS[name] for name in ("dense", "reference", "structured", "lora", "masked", "highlight")]
    for number, (label, layers) in enumerate(points.items()):
        where = [p.intensity for p in layers], [p.gmacs for p in layers]
        axes.plot(*where, linestyle="none", marker="Do^Psv"[number % 6], color=colors[number % 6], label=label)
        for point in layers:
            options = {"xytext": (5, -3), "textcoords": "offset points", "fontsize": 7}
            axes.annotate(point.layer, (point.intensity, point.gmacs), **options)
    axes.set(xscale="log", yscale="log", xlabel="useful MACs per byte moved (log scale)")
    axes.set(ylabel="useful GMAC/s, measured (log scale)")
    axes.legend(loc="lower right")
    return figure


def promise_and_time(costs: Mapping[str, Cost], baseline: str) -> Figure:
    """For every form: how many times fewer MACs and bytes it has than the baseline, and how many times faster it is.

    Args:
        costs: Name of the form -> its cost.
        baseline: Name of the form that ratios refer to.

    Returns:
        The figure.
    """
    names = [name for name in costs if name != baseline]
    dense = costs[baseline]
    columns = {
        "MACs": [dense.macs / costs[name].macs for name in names],
        "bytes": [dense.size_bytes / costs[name].size_bytes for name in names],
    }
    for batch in dense.latency_ms:
        columns[f"time, batch {batch}"] = [dense.latency_ms[batch] / costs[name].latency_ms[batch] for name in names]
    figure, axes = plt.subplots(figsize=(10, 3.8), layout="constrained")
    width = 0.8 / len(columns)
    colors = [plots.COLORS[name] for name in ("reference", "masked", "structured", "highlight")]
    for number, (label, values) in enumerate(columns.items()):
        positions = np.arange(len(names)) + (number - (len(columns) - 1) / 2) * width
        look = {"color": colors[number % 4], "hatch": ["", "..", "//", "\\\\"][number % 4], "edgecolor": "white"}
        bars = axes.bar(positions, values, width, label=label, **look)
        axes.bar_label(bars, [f"{value:.1f}" for value in values], fontsize=8, padding=1)
    axes.axhline(1, color=plots.COLORS["dense"], linewidth=1, linestyle=":")
    axes.set_xticks(np.arange(len(names)), [name.replace(", ", ",\n") for name in names])
    axes.set(yscale="log", ylabel=f"{baseline} divided by this form\n(log scale; above 1 is a gain)")
    axes.grid(axis="x", visible=False)
    axes.set_ylim(axes.get_ylim()[0], axes.get_ylim()[1] * 2.2)
    axes.legend(ncols=len(columns), loc="upper left")
    return figure
