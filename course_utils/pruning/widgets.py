"""Lab 2's slider: move the sparsity and watch the histogram, one layer's mask and the accuracy.

The accuracies come from a sweep that the notebook has computed; the slider only visits its points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import ipywidgets
import numpy as np
import torch
from torch import nn

from course_utils import plots
from course_utils.explorer import Explorer
from course_utils.pruning.plots import as_matrix, mark_level
from course_utils.resnet import weighted_layers


class PruningExplorer(Explorer):
    """One network, a sparsity, and what a global threshold leaves of it.

    Args:
        model: The dense network; not changed.
        mask_of: Function of a weight and a sparsity that returns the mask, True where the weight is kept.
        points: (sparsity, accuracy) of a sweep over global thresholds, rising in sparsity.

    Attributes:
        view: The widget to show.
        slider, layer, image, status: Its parts.
    """

    def __init__(
        self,
        model: nn.Module,
        mask_of: Callable[[torch.Tensor, float], torch.Tensor],
        points: Sequence[tuple[float, float]],
    ):
        if not points:
            raise ValueError("points must hold at least one (sparsity, accuracy) pair, got none")
        self.layers = dict(weighted_layers(model))
        self.weights = torch.cat([layer.weight.detach().cpu().flatten() for layer in self.layers.values()])
        self.mask_of, self.points = mask_of, list(points)
        options = [(f"{100 * sparsity:.3g} %", index) for index, (sparsity, _) in enumerate(self.points)]
        self.slider = ipywidgets.SelectionSlider(
            options=options, value=len(options) // 2, description="sparsity", layout={"width": "55%"}
        )
        self.layer = ipywidgets.Dropdown(options=list(self.layers), value=list(self.layers)[-2], description="layer")
        super().__init__([self.slider, self.layer])

    def redraw(self) -> None:
        """Prune a copy of the weights at the chosen sparsity and show histogram, mask and accuracy."""
        sparsity, accuracy = self.points[self.slider.value]
        mask = self.mask_of(self.weights, sparsity)
        figure = self.new_figure(10, 3.2)
        left, middle, right = figure.subplots(1, 3)
        self._draw_histogram(left, mask)
        kept = self._draw_mask(middle, mask)
        right.plot([100 * s for s, _ in self.points], [a for _, a in self.points], ".-", color=plots.COLORS["masked"])
        mark_level(right, sparsity, accuracy)
        right.set(xlabel="sparsity (%)", ylabel="accuracy, no retraining", ylim=(0, 1))
        self.show(
            figure,
            f"{int((~mask).sum())} of {mask.numel()} weights are zero; {self.layer.value} keeps {100 * kept:.1f} %; "
            f"accuracy {accuracy:.3f}",
        )

    def _draw_histogram(self, axes, mask: torch.Tensor) -> None:
        limit = float(self.weights.abs().quantile(0.995))
        bins = np.linspace(-limit, limit, 101)
        parts = [self.weights[~mask].numpy(), self.weights[mask].numpy()]
        colors = [plots.COLORS["reference"], plots.COLORS["masked"]]
        axes.hist(parts, bins=bins, stacked=True, color=colors, label=["removed", "kept"])
        axes.set(xlabel="weight", ylabel="number of weights")
        axes.legend(fontsize=8, frameon=False)

    def _draw_mask(self, axes, mask: torch.Tensor) -> float:
        """Draw the mask of the chosen layer; return the fraction of its weights that is kept."""
        sizes = [layer.weight.numel() for layer in self.layers.values()]
        part = dict(zip(self.layers, mask.split(sizes), strict=True))[self.layer.value]
        matrix = as_matrix(part.view(self.layers[self.layer.value].weight.shape))
        axes.imshow(matrix, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes.set(xlabel="input and position", ylabel="output channel", title=f"{self.layer.value}: kept is black")
        return float(matrix.mean())


def pruning_explorer(
    model: nn.Module,
    mask_of: Callable[[torch.Tensor, float], torch.Tensor],
    points: Sequence[tuple[float, float]],
) -> ipywidgets.VBox:
    """Return the slider, the choice of layer and the picture of a PruningExplorer as one widget."""
    return PruningExplorer(model, mask_of, points).view
