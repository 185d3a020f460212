"""Pictures of Lab 5: what an adapter is, what it costs, and what a rank can express.

All functions take plain results (weights, outcomes, singular values) and return the figure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from course_utils import plots
from course_utils.data import Dataset
from course_utils.lora.transfer import Outcome

FULL, FROZEN = plots.COLORS["dense"], plots.COLORS["reference"]
LORA, BEST = plots.COLORS["lora"], plots.COLORS["masked"]


def anatomy(weight: torch.Tensor, rank: int) -> Figure:
    """One frozen weight as a matrix, and the two factors of an adapter at the start of training, all to scale.

    Args:
        weight: (out, in, k, k) or (out, in); not changed.
        rank: Rank of the adapter.

    Returns:
        The figure.
    """
    matrix = weight.detach().cpu().flatten(1).numpy()
    n_out, n_in = matrix.shape
    bound = 1 / np.sqrt(n_in)
    a = np.random.default_rng(0).uniform(-bound, bound, (rank, n_in))
    figure, axes = plt.subplots(
        2, 2, figsize=(9.6, 2.7), layout="constrained",
        width_ratios=[rank, n_in], height_ratios=[max(rank, 0.06 * n_out), n_out],
    )  # fmt: skip
    parts = {(0, 1): (a, bound), (1, 0): (np.zeros((n_out, rank)), bound), (1, 1): (matrix, np.abs(matrix).max() / 2)}
    for place, (values, limit) in parts.items():
        colors = "Greys" if place == (1, 1) else "PuRd"
        axes[place].imshow(np.abs(values), cmap=colors, vmin=0, vmax=limit, aspect="auto", interpolation="nearest")
    axes[0, 0].axis("off")
    for ax in (axes[0, 1], axes[1, 0], axes[1, 1]):
        ax.set(xticks=[], yticks=[])
        ax.grid(False)
        for spine in ax.spines.values():
            spine.set(visible=True, color=FULL if ax is axes[1, 1] else LORA)
    axes[0, 1].set_title(f"A: {rank} x {n_in}, random, trained", color=LORA)
    axes[1, 0].set_ylabel(f"B: {n_out} x {rank}, zero, trained", color=LORA)
    axes[1, 1].set_xlabel(
        f"W: {n_out} x {n_in} = {n_out * n_in} weights, frozen; A and B together: {rank * (n_out + n_in)}", color=FULL
    )
    return figure


def examples(dataset: Dataset, n: int = 10) -> Figure:
    """The first image of each class, as the network receives it.

    Args:
        dataset: Colour images.
        n: How many classes.

    Returns:
        The figure.
    """
    figure, axes = plt.subplots(1, n, figsize=(9.6, 1.35), layout="constrained")
    for label, ax in enumerate(axes):
        index = int((dataset.train_labels == label).nonzero()[0])
        ax.imshow(dataset.train_images[index].permute(1, 2, 0).cpu().numpy())
        ax.set_title(dataset.class_names[label], fontsize=8, loc="center")
        ax.axis("off")
    return figure


LABEL_RISES = {"LoRA in every convolution": -6, "frozen body, LoRA classifier": 20, "statistics alone": -8}
"""Points by which labels stand above their dots where they would cover each other."""


def methods(outcomes: Sequence[Outcome]) -> Figure:
    """Accuracy against trained parameters, and the bytes of each task's file.

    Args:
        outcomes: One outcome a method.

    Returns:
        The figure.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 3.4), layout="constrained", width_ratios=[3, 2])
    colors = [LORA if "LoRA" in outcome.label else FULL if "full" in outcome.label else FROZEN for outcome in outcomes]
    for outcome, color in zip(outcomes, colors, strict=True):
        left.plot(outcome.trained, outcome.accuracy, "o", color=color, markersize=8)
        right_half, rise = outcome.trained > 2e4, LABEL_RISES.get(outcome.label, 6)
        left.annotate(
            outcome.label, (outcome.trained, outcome.accuracy), xytext=(-8 if right_half else 8, rise),
            textcoords="offset points", ha="right" if right_half else "left", va="center", fontsize=8, color=color,
        )  # fmt: skip
    left.set(xscale="log", xlabel="trained parameters", ylabel="test accuracy")
    left.margins(x=0.12, y=0.15)
    names = [outcome.label for outcome in outcomes]
    right.barh(names, [outcome.size_bytes / 1000 for outcome in outcomes], color=colors)
    for row, outcome in enumerate(outcomes):
        right.annotate(f" {outcome.size_bytes / 1000:.1f}", (outcome.size_bytes / 1000, row), va="center", fontsize=8)
    right.invert_yaxis()
    right.margins(x=0.18)
    right.set(xlabel="file of the task (kB)")
    right.tick_params(axis="y", labelsize=8)
    right.grid(False, axis="y")
    return figure


def rank_curve(
    trained: Mapping[int, float],
    truncated: Mapping[int, float],
    full: float,
    frozen: float,
    retrained: Mapping[int, float] | None = None,
) -> Figure:
    """Accuracy against rank: adapters that were trained, and the finetuning update cut to its best rank-r part.

    Args:
        trained: Rank -> accuracy of LoRA in every convolution; rank 0 is no adapter.
        truncated: Rank -> accuracy with the finetuning update cut to that rank.
        full: Accuracy of full finetuning.
        frozen: Accuracy of the frozen body with a new classifier.
        retrained: Rank -> accuracy with the update cut to that rank, after batch norm and classifier were trained on.

    Returns:
        The figure.
    """
    figure, ax = plt.subplots(figsize=(8.0, 3.4))
    place = {rank: number for number, rank in enumerate(sorted(trained.keys() | truncated.keys()))}
    for values, label, style in (
        (truncated, "update of full finetuning,\ncut to rank r", {"color": BEST, "linestyle": "--", "marker": "s"}),
        (trained, "LoRA trained at rank r", {"color": LORA, "linestyle": "-", "marker": "o"}),
    ):
        ranks = sorted(values)
        ax.plot([place[rank] for rank in ranks], [values[rank] for rank in ranks], label=label, **style)
    for rank, accuracy in (retrained or {}).items():
        ax.plot(place[rank], accuracy, "*", color=BEST, markersize=12)
        ax.annotate("cut, then batch norm and\nclassifier trained as well", (place[rank], accuracy), xytext=(6, -52),
                    textcoords="offset points", fontsize=8, color=BEST, arrowprops={"arrowstyle": "-", "color": BEST})
    for value, label, color in ((full, "full finetuning", FULL), (frozen, "frozen body", FROZEN)):
        ax.axhline(value, color=color, linestyle=":", linewidth=1.2)
        ax.annotate(label, (0, value), xytext=(0, 3), textcoords="offset points", fontsize=8, color=color)
    ax.set_xticks(list(place.values()), [str(rank) for rank in place])
    ax.set(xlabel="rank r (not to scale)", ylabel="test accuracy")
    plots.label_lines(ax, gap=0.16, fontsize=9)
    return figure


def alpha_curve(accuracies: Mapping[float, float], full: float, rank: int) -> Figure:
    """Accuracy against alpha at one rank.

    Args:
        accuracies: alpha -> accuracy, rising in alpha.
        full: Accuracy of full finetuning.
        rank: The rank, for the title.

    Returns:
        The figure.
    """
    figure, ax = plt.subplots(figsize=(8.0, 2.8))
    ax.plot(list(accuracies), list(accuracies.values()), "o-", color=LORA)
    ax.axhline(full, color=FULL, linestyle=":", linewidth=1.2)
    place = (min(accuracies), full)
    ax.annotate("full finetuning", place, xytext=(0, 3), textcoords="offset points", fontsize=8, color=FULL)
    ax.set_xscale("log", base=2)
    ax.set_xticks(list(accuracies), [f"{alpha:g}" for alpha in accuracies])
    ax.set(xlabel="alpha", ylabel="test accuracy", title=f"LoRA in every convolution, rank {rank}")
    ax.margins(y=0.15)
    return figure


def spectra(updates: Mapping[str, torch.Tensor], adapters: Mapping[str, torch.Tensor]) -> Figure:
    """Singular values of what full finetuning added to some layers, and of what the adapters added.

    Args:
        updates: Name of a layer -> update of full finetuning, of the shape of the weight.
        adapters: Name of the same layer -> (alpha / r) B A.

    Returns:
        The figure.
    """
    figure, axes = plt.subplots(1, len(updates), figsize=(9.6, 3.0), layout="constrained")
    for ax, (name, update) in zip(np.atleast_1d(axes), updates.items(), strict=True):
        for tensor, label, color, marker in ((update, "full", FULL, "."), (adapters[name], "LoRA", LORA, "o")):
            values = torch.linalg.svdvals(tensor.detach().cpu().float().flatten(1)).numpy()
            values = values[values > 1e-5 * values[0]]
            numbers, place = np.arange(1, len(values) + 1), (len(values), values[-1])
            ax.plot(numbers, values, marker=marker, markersize=4, color=color, linestyle="-", label=label)
            style = {"color": color, "fontsize": 9, "va": "center", "annotation_clip": False}
            ax.annotate(label, place, xytext=(4, 0), textcoords="offset points", **style)
        ax.set(title=name, xlabel="number i", yscale="log")
        ax.margins(x=0.15)
    np.atleast_1d(axes)[0].set_ylabel("singular value")
    return figure


def remaining(errors: Mapping[str, Sequence[float]], ranks: Sequence[int]) -> Figure:
    """Relative error of the best rank-r approximation of each layer's update.

    Args:
        errors: Name of a layer -> ||update - best|| / ||update|| for each rank.
        ranks: The ranks, rising.

    Returns:
        The figure; layers from the input (light) to the output (dark), each up to the rank that leaves nothing.
    """
    figure, ax = plt.subplots(figsize=(8.0, 3.2))
    shades = plt.get_cmap("cividis_r")(np.linspace(0.1, 1.0, len(errors)))
    for values, shade in zip(errors.values(), shades, strict=True):
        n_shown = next((i + 1 for i, value in enumerate(values) if value < 1e-4), len(values))
        ax.plot(ranks[:n_shown], values[:n_shown], "-", color=shade, linewidth=1.2, marker=".")
    curves = list(errors.values())
    for label, number, height in (("first layer", 0, 0.15), ("last layer", -1, 0.5)):
        near = int(np.argmin(np.abs(np.array(curves[number]) - height)))
        style = {"color": shades[number], "fontsize": 9, "va": "center", "textcoords": "offset points"}
        style["bbox"] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
        ax.annotate(label, (ranks[near], curves[number][near]), xytext=(8, 0), **style)
    ax.set(xlabel="rank r; a curve ends at its layer's number of output channels")
    ax.set(ylabel="relative error left", ylim=(0, 1.02))
    return figure
