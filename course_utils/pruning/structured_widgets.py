"""Lab 4's slider: move the fraction of filters; the filters go, and accuracy, multiplications and time with them.

All points were computed before; the slider only visits them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ipywidgets
import torch

from course_utils import plots
from course_utils.explorer import Explorer
from course_utils.pruning.structured_plots import draw_filters


@dataclass(frozen=True)
class FractionPoint:
    """What removing one fraction of the filters gives.

    Attributes:
        fraction: Fraction of each convolution's filters that went.
        kept: (C_out,) boolean mask of the layer that is shown.
        accuracy_before: Accuracy right after pruning.
        accuracy: Accuracy after finetuning.
        macs: Multiply-accumulates of one image, in the smaller network.
        latency_ms: Milliseconds of a batch, in the smaller network.
    """

    fraction: float
    kept: torch.Tensor
    accuracy_before: float
    accuracy: float
    macs: int
    latency_ms: float


class FilterExplorer(Explorer):
    """A layer's filters, a fraction, and what the network without them is worth.

    Args:
        weight: (C_out, C_in, k, k) of the layer that is shown, before pruning.
        points: Measured points, rising in the fraction; the first one is the dense network.

    Attributes:
        view: The widget to show.
        slider, image, status: Its parts.
    """

    def __init__(self, weight: torch.Tensor, points: Sequence[FractionPoint]):
        if not points:
            raise ValueError("points must hold at least one point, got none")
        self.weight, self.points = weight.detach().cpu(), list(points)
        options = [(f"{100 * point.fraction:.3g} %", index) for index, point in enumerate(self.points)]
        self.slider = ipywidgets.SelectionSlider(
            options=options, value=len(options) // 2, description="filters removed", layout={"width": "60%"},
            style={"description_width": "initial"},
        )  # fmt: skip
        super().__init__(self.slider)

    def redraw(self) -> None:
        """Show the filters that are left, accuracy, and MACs and latency relative to the dense network."""
        point, dense = self.points[self.slider.value], self.points[0]
        figure = self.new_figure(10, 3.2)
        left, middle, right = figure.subplots(1, 3)
        draw_filters(left, self.weight, point.kept)
        left.set_title(f"{int(point.kept.sum())} of {len(self.weight)} filters of this layer", fontsize=10)
        x = [100 * p.fraction for p in self.points]
        self._curve(middle, x, [p.accuracy for p in self.points], "structured", "finetuned")
        self._curve(middle, x, [p.accuracy_before for p in self.points], "reference", "right after pruning")
        self._curve(right, x, [p.macs / dense.macs for p in self.points], "dense", "MACs")
        self._curve(right, x, [p.latency_ms / dense.latency_ms for p in self.points], "highlight", "latency")
        middle.set(xlabel="filters removed (%)", ylabel="test accuracy", ylim=(0, 1))
        right.set(xlabel="filters removed (%)", ylabel="share of the dense network's", ylim=(0, 1.1))
        for axes in (middle, right):
            axes.axvline(100 * point.fraction, color=plots.COLORS["reference"], linewidth=1, linestyle=":")
            axes.legend(fontsize=8, frameon=False)
        self.show(
            figure,
            f"accuracy {point.accuracy_before:.3f} right after pruning, {point.accuracy:.3f} finetuned; "
            f"{dense.macs / point.macs:.1f} times fewer MACs, {dense.latency_ms / point.latency_ms:.1f} times faster",
        )

    def _curve(self, axes, x: list[float], y: list[float], color: str, label: str) -> None:
        line = "--" if color in ("reference", "highlight") else "-"
        axes.plot(x, y, color=plots.COLORS[color], linestyle=line, marker=".", label=label)
        axes.plot(x[self.slider.value], y[self.slider.value], "o", color=plots.COLORS[color], markersize=8)


def filter_explorer(weight: torch.Tensor, points: Sequence[FractionPoint]) -> ipywidgets.VBox:
    """Return the slider and the picture of a FilterExplorer as one widget."""
    return FilterExplorer(weight, points).view
