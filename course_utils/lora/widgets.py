"""Lab 5's slider: move the rank and see one layer's finetuning update, its best approximation, and what is left.

The accuracies come from a sweep that the notebook has computed; the slider only visits its points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import ipywidgets
import torch

from course_utils import plots
from course_utils.explorer import Explorer


class RankExplorer(Explorer):
    """The updates of full finetuning, a rank, and what the best approximation of that rank keeps of them.

    Args:
        updates: Name of a layer -> update, of the shape of its weight.
        approximate: Function of an update and a rank that returns the approximation, like `lora.best_low_rank`.
        accuracies: Rank -> accuracy with all updates cut to that rank, for the ranks that the slider visits.

    Attributes:
        view: The widget to show.
        slider, layer, image, status: Its parts.
    """

    def __init__(
        self,
        updates: Mapping[str, torch.Tensor],
        approximate: Callable[[torch.Tensor, int], torch.Tensor],
        accuracies: Mapping[int, float],
    ):
        if not accuracies:
            raise ValueError("accuracies must hold at least one rank, got none")
        self.updates, self.approximate, self.accuracies = dict(updates), approximate, dict(sorted(accuracies.items()))
        ranks = list(self.accuracies)
        self.slider = ipywidgets.SelectionSlider(
            options=ranks, value=ranks[len(ranks) // 2], description="rank", layout={"width": "55%"}
        )
        self.layer = ipywidgets.Dropdown(options=list(self.updates), value=list(self.updates)[-1], description="layer")
        super().__init__([self.slider, self.layer])

    def redraw(self) -> None:
        """Approximate the chosen layer's update at the chosen rank and show it beside the original."""
        rank, update = self.slider.value, self.updates[self.layer.value]
        best = self.approximate(update, rank)
        left = float((update - best).norm() / update.norm())
        n_out, n_in = update.flatten(1).shape
        figure = self.new_figure(10, 3.4)
        pictures, curve = figure.subfigures(1, 2, width_ratios=[2, 1])
        limit = float(update.abs().max()) / 2
        titles = ("update of full finetuning", f"its best rank-{rank} part", "what is left")
        rows = zip(pictures.subplots(3, 1), (update, best, update - best), titles, strict=True)
        for ax, tensor, title in rows:
            matrix = tensor.detach().flatten(1).numpy()
            ax.imshow(matrix, cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
            ax.set(title=title, xticks=[], yticks=[])
            ax.grid(False)
        axes = curve.subplots()
        axes.plot(list(self.accuracies), list(self.accuracies.values()), ".-", color=plots.COLORS["masked"])
        axes.plot(rank, self.accuracies[rank], "o", markersize=10, color=plots.COLORS["highlight"])
        axes.set(xlabel="rank of all updates", ylabel="accuracy")
        self.show(
            figure,
            f"{self.layer.value}: {min(rank, n_out, n_in) * (n_out + n_in)} numbers instead of {n_out * n_in}; "
            f"relative error left {left:.3f}; accuracy with all updates at rank {rank}: {self.accuracies[rank]:.3f}",
        )


def rank_explorer(
    updates: Mapping[str, torch.Tensor],
    approximate: Callable[[torch.Tensor, int], torch.Tensor],
    accuracies: Mapping[int, float],
) -> ipywidgets.VBox:
    """Return the slider, the choice of layer and the picture of a RankExplorer as one widget."""
    return RankExplorer(updates, approximate, accuracies).view
