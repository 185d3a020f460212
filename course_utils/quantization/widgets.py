"""Lab 3's sliders: bits against staircase, histogram and error of one layer, and against a batch's accuracy, live."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import ipywidgets
import numpy as np
import torch
from torch import nn

from course_utils import plots
from course_utils.explorer import Explorer
from course_utils.quantization.plots import draw_levels, values_of
from course_utils.resnet import weighted_layers


class GridExplorer(Explorer):
    """One layer's weights, a number of bits, and what rounding does to them.

    Args:
        model: The network; not changed.
        quantize: Function of a weight, bits and the options per_channel and symmetric, like `linear_quantize`.
        accuracy: Function of bits and the same options that returns the accuracy of a batch when all inner layers are
            rounded like this; None shows no accuracy.
        switches: Whether the person may choose the options; False for a quantize that takes a weight and bits only.

    Attributes:
        view: The widget to show.
        bits, layer, per_channel, symmetric, image, status: Its parts.
    """

    def __init__(
        self,
        model: nn.Module,
        quantize: Callable[..., torch.Tensor],
        accuracy: Callable[..., float] | None = None,
        switches: bool = True,
    ):
        self.weights = {name: layer.weight.detach().clone() for name, layer in weighted_layers(model)}
        self.quantize, self.accuracy = quantize, accuracy
        self.visited: dict[tuple[bool, bool], dict[int, float]] = {}
        self.bits = ipywidgets.IntSlider(value=4, min=2, max=8, description="bits", continuous_update=False)
        self.layer = ipywidgets.Dropdown(options=list(self.weights), value=list(self.weights)[1], description="layer")
        self.per_channel = ipywidgets.Checkbox(value=False, description="per channel", indent=False)
        self.symmetric = ipywidgets.Checkbox(value=False, description="symmetric", indent=False)
        self.switches = [self.per_channel, self.symmetric] if switches else []
        super().__init__([self.bits, self.layer, *self.switches])

    def first_picture(self) -> None:
        """Draw for the first time; a function that is not written yet is said below the picture."""
        self._on_change(None)

    @property
    def options(self) -> Mapping[str, bool]:
        """The two switches, where there are any."""
        if not self.switches:
            return {}
        return {"per_channel": self.per_channel.value, "symmetric": self.symmetric.value}

    def redraw(self) -> None:
        """Round the layer's weights and show staircase, values and errors, and the accuracies visited so far."""
        weight = self.weights[self.layer.value]
        quantized = self.quantize(weight, self.bits.value, **self.options)
        figure = self.new_figure(11, 3.0)
        panels = figure.subplots(1, 3 if self.accuracy is None else 4)
        self._draw_staircase(panels[0], weight, quantized)
        draw_levels(panels[1], quantized)
        panels[1].set(xlabel="quantized weight", ylabel="number of weights")
        errors = values_of(quantized) - values_of(weight)
        panels[2].hist(errors, bins=60, color=plots.COLORS["highlight"])
        panels[2].set(xlabel="rounding error", ylabel="number of weights")
        share = np.square(errors).sum() / np.square(values_of(weight)).sum()
        text = f"largest error {np.abs(errors).max():.4f}, squared error {100 * share:.3g} % of the squared weights"
        if self.accuracy is not None:
            text += f"; accuracy of the batch {self._draw_accuracy(panels[3]):.3f}"
        self.show(figure, text)

    def _draw_staircase(self, axes, weight: torch.Tensor, quantized: torch.Tensor) -> None:
        """Draw Q(w) against w; per channel that of the first channel."""
        one = slice(0, 1) if self.per_channel.value else slice(None)
        x, y = values_of(weight[one]), values_of(quantized[one])
        order = np.argsort(x)
        axes.plot(x[order], x[order], color=plots.COLORS["reference"], linewidth=1, linestyle=":")
        axes.step(x[order], y[order], color=plots.COLORS["quantized"], where="mid", linestyle="-")
        axes.set(xlabel="weight" + (", channel 0" if self.per_channel.value else ""), ylabel="quantized weight")

    def _draw_accuracy(self, axes) -> float:
        """Evaluate the batch and draw every accuracy that these options have shown so far."""
        curve = self.visited.setdefault((self.per_channel.value, self.symmetric.value), {})
        if self.bits.value not in curve:
            curve[self.bits.value] = self.accuracy(self.bits.value, **self.options)
        for (per_channel, symmetric), points in self.visited.items():
            color = plots.COLORS["masked" if per_channel else "quantized"]
            bits = sorted(points)
            marker = "s" if symmetric else "o"
            axes.plot(bits, [points[b] for b in bits], marker, color=color, linestyle="-", linewidth=1)
        axes.axvline(self.bits.value, color=plots.COLORS["highlight"], linestyle="--", linewidth=1)
        axes.set(xlabel="bits of all inner layers", ylabel="accuracy of the batch", xlim=(1.5, 8.5), ylim=(0, 1.02))
        return curve[self.bits.value]


def grid_explorer(
    model: nn.Module,
    quantize: Callable[..., torch.Tensor],
    accuracy: Callable[..., float] | None = None,
    switches: bool = True,
) -> ipywidgets.VBox:
    """Return the slider, the switches and the picture of a GridExplorer as one widget."""
    return GridExplorer(model, quantize, accuracy, switches).view
