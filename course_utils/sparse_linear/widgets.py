"""Lab 1's slider: move the penalty and watch loss and weights of a method change.

The picture is one figure that lives outside pyplot. Axes, ticks and legend are drawn once; a move draws only the lines
on top of them and sends the result as a PNG to an Image widget. With 200 steps of a method a move takes about 20 ms; it
works in JupyterLab and Notebook 7 with every matplotlib backend, without flicker.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import ipywidgets
import numpy as np
from matplotlib.image import imsave

from course_utils import plots
from course_utils.explorer import Explorer
from course_utils.sparse_linear.plots import line_of_weight

Solver = Callable[[float], np.ndarray]
LOSS_FLOOR = 1e-16  # losses below are drawn here: from 1e-16 on they are rounding errors


class PenaltyExplorer(Explorer):
    """A method, a penalty, and the loss and weights of every step that follow from them.

    Args:
        solvers: name of the method -> function of the penalty that returns the path (n_steps + 1, d).
        loss: the loss of one weight vector.
        penalty: penalty at the start; the slider covers 0.01 to 20 on a log scale.

    Attributes:
        view: the widget to show.
        slider, method, image, status: its parts.
    """

    def __init__(self, solvers: Mapping[str, Solver], loss: Callable[[np.ndarray], float], penalty: float = 1.0):
        if not solvers:
            raise ValueError("solvers must name at least one method, got none")
        self.solvers, self.loss = dict(solvers), loss
        label = {"description_width": "initial"}
        self.slider = ipywidgets.FloatLogSlider(
            value=penalty,
            base=10,
            min=-2,
            max=np.log10(20),
            step=0.02,
            description="penalty λ",
            readout_format=".3g",
            style=label,
            layout={"width": "55%"},
        )
        self.method = ipywidgets.ToggleButtons(
            options=list(self.solvers), description="", style={"button_width": "auto"}
        )
        self._prepare(self.solvers[self.method.value](penalty))
        super().__init__(self.method, self.slider, width="720px")

    def _prepare(self, path: np.ndarray) -> None:
        """Make the figure, its two panels and one line for the loss and each weight."""
        self.figure = self.new_figure(9, 3.2)
        left, right = self.figure.subplots(1, 2)
        steps, n_weights = np.arange(len(path)), path.shape[1]
        (self.loss_line,) = left.semilogy(steps, np.ones(len(path)), color=plots.COLORS["dense"], linestyle="-")
        left.set(xlabel="step", ylabel="loss $L(w)$ (log scale)", ylim=(LOSS_FLOOR / 2, 200))
        right.axhline(0, color=plots.COLORS["reference"], linewidth=0.8)
        self.weight_lines = [
            right.plot(steps, path[:, j], label=f"$w_{{{j + 1}}}$", **line_of_weight(j))[0] for j in range(n_weights)
        ]
        right.set(xlabel="step", ylabel="weight", ylim=(-3.4, 2))
        right.legend(ncols=n_weights, loc="upper center", fontsize=9, handlelength=1.6, columnspacing=0.9)
        for panel in (left, right):
            panel.set_xlim(0, len(path) - 1)
            panel.grid(alpha=0.25)
        for line in [self.loss_line, *self.weight_lines]:
            line.set_animated(True)  # left out by draw(), so that everything else can be kept
        self.figure.canvas.draw()
        self.background = self.figure.canvas.copy_from_bbox(self.figure.bbox)

    def redraw(self) -> None:
        """Run the chosen method with the chosen penalty and show its path."""
        path = np.asarray(self.solvers[self.method.value](self.slider.value))
        losses = np.array([self.loss(w) for w in path])
        self.loss_line.set_ydata(np.maximum(losses, LOSS_FLOOR))
        for line, values in zip(self.weight_lines, path.T, strict=True):
            line.set_ydata(values)
        self.image.value = self._png()
        final = ", ".join(f"{value:.4g}" for value in path[-1] + 0.0)
        zeros = int(np.sum(path[-1] == 0))
        self.status.value = f"after {len(path) - 1} steps: loss {losses[-1]:.3g}, {zeros} exact zeros, w = ({final})"

    def _png(self) -> bytes:
        """The kept background with the lines drawn on it."""
        canvas = self.figure.canvas
        canvas.restore_region(self.background)
        for line in [self.loss_line, *self.weight_lines]:
            line.axes.draw_artist(line)
        buffer = io.BytesIO()
        imsave(buffer, np.asarray(canvas.buffer_rgba()), format="png", pil_kwargs={"compress_level": 1})
        return buffer.getvalue()


def penalty_explorer(
    solvers: Mapping[str, Solver], loss: Callable[[np.ndarray], float], penalty: float = 1.0
) -> ipywidgets.VBox:
    """The slider, buttons and picture of a PenaltyExplorer as one widget, ready to be a cell's last line."""
    return PenaltyExplorer(solvers, loss, penalty).view
