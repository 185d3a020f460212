"""The pictures of the report, as SVG text that stands inside the page."""

from __future__ import annotations

import io
import math
import statistics
from collections.abc import Sequence
from typing import Any

from course_admin.class_report.statistics import (
    MIN_FOR_SPREAD,
    CellStatistics,
    CheckStatistics,
    ClassStatistics,
    quartiles,
)
from course_admin.grading.results import short
from course_utils import plots

PASSED, WRONG, UNFINISHED = plots.COLORS["quantized"], plots.COLORS["highlight"], "#d9d9d9"
MAX_BINS = 20
SUSPICIOUS = 0.1  # a check whose r is smaller says next to nothing about a student


def _svg(figure: Any, name: str) -> str:
    """The figure as an <svg> element; the same figure gives the same text."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    plt.close(figure)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _figure(height: float) -> tuple[Any, Any]:
    import matplotlib as mpl

    mpl.use("agg", force=False)
    import matplotlib.pyplot as plt

    with mpl.rc_context():
        plots.use_course_style()
        return plt.subplots(figsize=(8.0, height))


def score_distribution(found: ClassStatistics) -> str:
    """Histogram of the points, with the median; '' for a class too small for one."""
    if len(found.points) < MIN_FOR_SPREAD or not found.maximum:
        return ""
    figure, ax = _figure(2.8)
    width = max(1.0, math.ceil(found.maximum / MAX_BINS))
    edges = [width * k for k in range(int(found.maximum / width) + 2)]
    ax.hist(found.points, bins=edges, color=plots.COLORS["masked"], edgecolor="white", linewidth=0.8)
    _, median, _ = quartiles(found.points)
    ax.axvline(median, color=plots.COLORS["highlight"], linewidth=1.6)
    ax.set_ylim(0, ax.get_ylim()[1] * 1.12)
    left = median > 0.8 * found.maximum
    place = {"xytext": (-5, -3) if left else (5, -3), "ha": "right" if left else "left"}
    ax.annotate(
        f"median {median:g}",
        (median, ax.get_ylim()[1]),
        textcoords="offset points",
        va="top",
        color=plots.COLORS["highlight"],
        **place,
    )
    ax.set_xlim(0, edges[-1] if found.maximum % width else found.maximum + width)
    ax.set_xlabel(f"points of {found.maximum:g}, bars {width:g} wide" if width > 1 else f"points of {found.maximum:g}")
    ax.set_ylabel("submissions")
    ax.yaxis.get_major_locator().set_params(integer=True)
    ax.grid(axis="x", visible=False)
    return _svg(figure, "scores")


def points_by_cell(cells: Sequence[CellStatistics]) -> str:
    """Mean share of the points of each graded cell, in the order of the lab."""
    known = [cell for cell in cells if cell.points]
    if not known:
        return ""
    figure, ax = _figure(0.9 + 0.27 * len(known))
    rows = list(range(len(known)))[::-1]
    colors = [plots.COLORS["structured"] if cell.written else plots.COLORS["masked"] for cell in known]
    ax.barh(rows, [100 * cell.fraction for cell in known], color=colors, height=0.72)
    for row, cell in zip(rows, known, strict=True):
        ax.annotate(
            f"{100 * cell.fraction:.0f}",
            (100 * cell.fraction, row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    ax.set_yticks(rows, [f"{short(cell.name)} ({cell.maximum:g})" for cell in known])
    ax.set_xlim(0, 108)
    ax.set_xlabel("mean share of the points, %   (blue: by checks, orange: marked by hand)")
    ax.grid(axis="y", visible=False)
    return _svg(figure, "cells")


def check_bar(check: CheckStatistics) -> str:
    """A small bar: passed, wrong, not written. Plain HTML, so that a table may hold a hundred of them."""
    parts = [(check.n_passed, PASSED, "passed"), (check.n_wrong, WRONG, "wrong")]
    parts.append((check.n_unfinished, UNFINISHED, "not written"))
    spans = "".join(
        f'<i style="width:{100 * count / check.n:.2f}%;background:{color}" title="{count} {word}"></i>'
        for count, color, word in parts
        if count
    )
    return f'<span class="bar">{spans}</span>'


def difficulty_and_discrimination(checks: Sequence[CheckStatistics]) -> str:
    """One point a check: the fraction that passed, and r; checks with r below SUSPICIOUS carry their names."""
    known = sorted((check for check in checks if check.r is not None), key=lambda check: check.r)
    if not known:
        return ""
    figure, ax = _figure(3.4)
    for visible, marker, color in ((True, "o", plots.COLORS["masked"]), (False, "s", plots.COLORS["structured"])):
        mine = [check for check in known if check.visible == visible]
        options = {"marker": marker, "color": color, "alpha": 0.8, "s": 26, "linewidths": 0}
        label = "visible check" if visible else "hidden check"
        ax.scatter([100 * check.fraction for check in mine], [check.r for check in mine], label=label, **options)
    for check in [check for check in known if check.r < SUSPICIOUS][:4]:
        place = {"xytext": (-6, 0), "ha": "right"} if check.fraction > 0.5 else {"xytext": (6, 0), "ha": "left"}
        text = f"{short(check.cell)}: {check.name}"
        text = text if len(text) < 46 else text[:45] + "…"
        point = (100 * check.fraction, check.r)
        ax.annotate(text, point, textcoords="offset points", va="center", fontsize=8, parse_math=False, **place)
    ax.axhline(0, color=plots.COLORS["reference"], linewidth=0.8)
    ax.set_xlim(0, 100)
    ax.set_ylim(min(-0.15, known[0].r - 0.08), 1.0)
    ax.set_xlabel("passed by, %")
    ax.set_ylabel("r with the points of the other cells")
    ax.legend(loc="upper left", fontsize=9)
    return _svg(figure, "discrimination")


def seconds_by_cell(cells: Sequence[CellStatistics]) -> str:
    """Wall time of each graded cell: every submission a dot, the median a line; logarithmic."""
    known = [cell for cell in cells if len(cell.seconds) >= MIN_FOR_SPREAD]
    if not known:
        return ""
    figure, ax = _figure(0.9 + 0.25 * len(known))
    for row, cell in zip(range(len(known))[::-1], known, strict=True):
        seconds = sorted(cell.seconds)
        ax.plot(seconds, [row] * len(seconds), ".", color=plots.COLORS["masked"], alpha=0.35, markersize=6)
        median = statistics.median(seconds)
        ax.plot([median, median], [row - 0.32, row + 0.32], "-", color=plots.COLORS["highlight"], linewidth=2)
    ax.set_yticks(list(range(len(known)))[::-1], [short(cell.name) for cell in known])
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_xlabel("seconds of wall time, logarithmic (each dot a submission, the line their median)")
    ax.grid(axis="y", visible=False)
    return _svg(figure, "seconds")
