"""What the labs' sliders have in common: controls, a picture below them, and a line of text that also tells errors.

The picture is a figure outside pyplot that is drawn into a PNG for an Image widget: that works in every notebook front
end and with every matplotlib backend, without flicker.
"""

from __future__ import annotations

import io
from html import escape

import ipywidgets
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


class Explorer:
    """Controls with a picture that follows them. Subclasses say in `redraw` what the picture shows.

    Args:
        *rows: What stands above the picture, from the top: a control, or a list of controls side by side.
        width: CSS width of the picture; None for its own.

    Attributes:
        view: The widget to show.
        image, status: The picture and the line of text.
    """

    def __init__(self, *rows: ipywidgets.Widget | list[ipywidgets.Widget], width: str | None = None):
        self.image = ipywidgets.Image(format="png", layout={"width": width, "max_width": "100%"})
        self.status = ipywidgets.HTML()
        self.first_picture()
        for row in rows:
            for control in row if isinstance(row, list) else [row]:
                control.observe(self._on_change, names="value")
        boxes = [ipywidgets.HBox(row) if isinstance(row, list) else row for row in rows]
        self.view = ipywidgets.VBox([*boxes, self.image, self.status])

    def first_picture(self) -> None:
        """Draw for the first time; an error goes to whoever makes the widget."""
        self.redraw()

    def redraw(self) -> None:
        """Show what follows from the controls' present values."""
        raise NotImplementedError(f"{type(self).__name__} must say what it shows")

    def _on_change(self, _change: object) -> None:
        try:
            self.redraw()
        except Exception as error:  # shown to the person at the slider, who would not see a traceback here
            self.status.value = f"<b>{escape(type(error).__name__)}</b>: {escape(str(error))}"

    @staticmethod
    def new_figure(width: float, height: float, dpi: int = 80) -> Figure:
        """Make an empty figure outside pyplot, width x height in inches."""
        figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
        FigureCanvasAgg(figure)
        return figure

    def show(self, figure: Figure, text: str) -> None:
        """Put a figure into the picture and a text below it."""
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", pil_kwargs={"compress_level": 1})  # fast rather than small
        self.image.value, self.status.value = buffer.getvalue(), text
