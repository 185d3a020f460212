"""Pictures of Lab 6: positions, who looks at whom, learning, and what compression costs.

All functions take plain results (matrices, histories, rows of numbers) and return the figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from course_utils import plots

VISIBLE = {"\n": "\u21b5", " ": "\u2423"}
"""How a newline and a space are written at an axis."""


def positions(encoding: torch.Tensor) -> Figure:
    """The positional encoding, its Gram matrix, and one row of that: similarity as a function of the distance.

    Args:
        encoding: Shape (n_positions, d_model).

    Returns:
        The figure.
    """
    gram, middle = (encoding @ encoding.T).numpy(), len(encoding) // 2
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.4), width_ratios=(1.25, 1, 1), layout="constrained")
    shown = axes[0].imshow(encoding.numpy(), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
    axes[0].set(title="$P$: positional encoding", xlabel="component", ylabel="position $p$")
    figure.colorbar(shown, ax=axes[0], pad=0.02)
    shown = axes[1].imshow(gram, cmap="viridis", interpolation="nearest")
    axes[1].set(title="$P P^\\top$: Gram matrix", xlabel="position $q$", ylabel="position $p$")
    figure.colorbar(shown, ax=axes[1], pad=0.02, shrink=0.85)
    distance = np.arange(len(encoding)) - middle
    axes[2].plot(distance, gram[middle], color=plots.COLORS["masked"], linestyle="-")
    axes[2].axhline(encoding.shape[1] / 2, color=plots.COLORS["reference"], linestyle=":", linewidth=1)
    axes[2].set(title=f"one row: $p = {middle}$", xlabel="distance $q - p$", ylabel="$P_p \\cdot P_q$")
    for ax in axes[:2]:
        ax.grid(False)
    return figure


def draw_attention(ax: Axes, weights: np.ndarray, queries: str, keys: str) -> None:
    """Draw one head's weights: a row a query, a column a key, darker is more.

    Args:
        ax: Where to draw.
        weights: Shape (number of queries, number of keys), from 0 to 1.
        queries: One character a query.
        keys: One character a key.
    """
    ax.imshow(weights, cmap="Blues", vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    size = 9 if len(keys) <= 20 else 6
    ax.set_xticks(range(len(keys)), [VISIBLE.get(sign, sign) for sign in keys], fontsize=size)
    ax.set_yticks(range(len(queries)), [VISIBLE.get(sign, sign) for sign in queries], fontsize=size)
    ax.grid(False)
    ax.set(xlabel="key: looked at", ylabel="query: looks")


def heads(weights: torch.Tensor, queries: str, keys: str, title: str = "") -> Figure:
    """All heads of one layer beside one another.

    Args:
        weights: Shape (heads, queries, keys).
        queries: One character a query.
        keys: One character a key.
        title: Title of the whole picture.

    Returns:
        The figure.
    """
    figure, axes = plt.subplots(1, len(weights), figsize=(2.6 * len(weights), 2.9), layout="constrained", squeeze=False)
    for number, ax in enumerate(axes[0]):
        draw_attention(ax, weights[number].cpu().float().numpy(), queries, keys)
        ax.set_title(f"head {number + 1}")
        if number:
            ax.set_ylabel("")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def learning(
    steps: Sequence[int], losses: Sequence[float], levels: Mapping[str, float], *, unit: str = "nats a character"
) -> Figure:
    """The training loss over the steps, with levels to compare it with.

    Args:
        steps: Number of steps done.
        losses: Mean training loss up to there.
        levels: Name -> level, drawn as horizontal lines.
        unit: Unit of losses and levels.

    Returns:
        The figure.
    """
    figure, ax = plt.subplots(figsize=(8, 3.4), layout="constrained")
    for number, (name, level) in enumerate(levels.items()):
        style = {"color": plots.COLORS["reference"], "linestyle": plots.LINE_STYLES[1 + number % 3]}
        ax.plot([steps[0], steps[-1]], [level, level], label=name, **style)
    ax.plot(steps, losses, color=plots.COLORS["dense"], linestyle="-", label="training loss")
    ax.set(xlabel="optimiser step", ylabel=unit, ylim=(0, None))
    plots.label_lines(ax, gap=0.08, fontsize=9)
    return figure


def compression(rows: Sequence[Mapping], levels: Mapping[str, float]) -> Figure:
    """Bits a character against bytes, one line for each sparsity after finetuning, and a dotted one for the control.

    Args:
        rows: As `compression_table` returns them.
        levels: Name -> bits a character, drawn as horizontal lines (the n-gram models).

    Returns:
        The figure.
    """
    figure, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
    colors = [plots.COLORS["quantized"], plots.COLORS["masked"], plots.COLORS["highlight"], "#56B4E9", "#CC79A7"]
    sparsities = sorted({row["sparsity"] for row in rows})
    for number, sparsity in enumerate(sparsities):
        line = [row for row in rows if row["sparsity"] == sparsity and row["finetuned"] == (sparsity > 0)]
        kilobytes = [row["bytes"] / 1000 for row in line]
        marker, color = "osD^v"[number % 5], colors[number % len(colors)]
        ax.plot(kilobytes, [row["bits_per_character"] for row in line], marker=marker, color=color, linestyle="-",
                label="dense" if not sparsity else f"{100 * sparsity:g} % zeros, finetuned")  # fmt: skip
        for x, row in zip(kilobytes, line, strict=True):
            ax.annotate(str(row["n_bits"]), (x, row["bits_per_character"]), textcoords="offset points", xytext=(4, 5),
                        fontsize=8, color=color)  # fmt: skip
    control = [row for row in rows if not row["sparsity"] and row["finetuned"]]
    if control:
        points = [(row["bytes"] / 1000, row["bits_per_character"]) for row in control]
        ax.plot(*zip(*points, strict=True), ".:", color=colors[0], label="dense, finetuned (control)")
    best = min(row["bits_per_character"] for row in rows)
    top = max([*levels.values(), best]) + 0.35
    for name, level in levels.items():
        ax.axhline(level, color=plots.COLORS["reference"], linestyle=":", linewidth=1)
        ax.annotate(name, (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8,
                    color=plots.COLORS["reference"])  # fmt: skip
    ax.set(xscale="log", xlabel="counted bytes (thousands); numbers at the points: bits a weight")
    ax.set(ylabel="bits a character", ylim=(best - 0.1, top))
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.legend(fontsize=9)
    return figure


def surprise(text: str, nats: Sequence[float]) -> Figure:
    """How surprised a model was by each character of a text: -log2 q, as bars under the letters.

    Args:
        text: The characters.
        nats: -ln q of each.

    Returns:
        The figure.
    """
    figure, ax = plt.subplots(figsize=(10.5, 2.4), layout="constrained")
    bits = [value / math.log(2) for value in nats]
    colors = [plots.COLORS["highlight"] if value > 3 else plots.COLORS["masked"] for value in bits]
    ax.bar(range(len(text)), bits, color=colors, width=0.85)
    ax.set_xticks(range(len(text)), [VISIBLE.get(sign, sign) for sign in text], fontsize=8)
    ax.set(ylabel="bits: $-\\log_2 q$", xlim=(-0.7, len(text) - 0.3))
    ax.grid(False, axis="x")
    return figure
