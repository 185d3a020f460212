"""One look for every picture of the course: colours with fixed meanings, labels on the lines, readable in grey.

The colours are those of Okabe and Ito (2008), chosen to stay distinct for colour-blind readers; they also differ in
lightness, so that a grey print keeps them apart. A method keeps its colour through all labs.
"""

from __future__ import annotations

from typing import Any

COLORS = {
    "dense": "#000000",
    "masked": "#0072B2",
    "structured": "#E69F00",
    "quantized": "#009E73",
    "lora": "#CC79A7",
    "highlight": "#D55E00",
    "reference": "#7F7F7F",
}
"""Colour of each kind of model: dense, masked (unstructured), structured, quantized, lora; reference is grey."""

SEQUENCE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000"]
"""Colours for lines that stand for no method in particular (weight 1, weight 2, ...)."""

LINE_STYLES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))]
"""Line styles that go with SEQUENCE, so that the lines stay apart without colour."""


def use_course_style() -> None:
    """Set matplotlib's defaults for a notebook: size, resolution, fonts, light grid, the course's colour cycle."""
    import matplotlib.pyplot as plt
    from cycler import cycler

    plt.rcParams.update(
        {
            "figure.figsize": (8.0, 3.6),
            "figure.dpi": 96,
            "savefig.dpi": 96,
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.titlesize": 11,
            "axes.titlelocation": "left",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "grid.linewidth": 0.6,
            "lines.linewidth": 1.8,
            "legend.frameon": False,
            "axes.prop_cycle": cycler(color=SEQUENCE) + cycler(linestyle=LINE_STYLES),
        }
    )


def _spread(positions: list[float], gap: float) -> list[float]:
    """The positions moved upwards as little as needed to keep at least gap between neighbours, order kept."""
    order = sorted(range(len(positions)), key=positions.__getitem__)
    moved = list(positions)
    for below, above in zip(order, order[1:], strict=False):
        moved[above] = max(moved[above], moved[below] + gap)
    return moved


def label_lines(ax: Any, gap: float = 0.07, **text_options: Any) -> None:
    """Write each line's label at its right end instead of a legend, moved apart where they would overlap.

    Args:
        ax: matplotlib Axes whose lines carry labels; lines without a label (or with a leading '_') are left alone.
        gap: smallest vertical distance between two labels, as a fraction of the height of the axes.
        **text_options: passed on to ax.annotate.
    """
    lines = [line for line in ax.get_lines() if not line.get_label().startswith("_") and len(line.get_xdata())]
    ends = [ax.transData.transform((line.get_xdata()[-1], line.get_ydata()[-1])) for line in lines]
    heights = [float(ax.transAxes.inverted().transform(end)[1]) for end in ends]
    heights = [min(max(height, 0.0), 1.0) for height in heights]
    for line, height in zip(lines, _spread(heights, gap), strict=True):
        ax.annotate(
            line.get_label(),
            xy=(1.01, height),
            xycoords="axes fraction",
            color=line.get_color(),
            va="center",
            annotation_clip=False,
            **text_options,
        )
