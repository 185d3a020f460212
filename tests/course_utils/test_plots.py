"""The pictures' common style: labels at the ends of lines do not overlap."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pytest

from course_utils import plots


def test_labels_keep_their_order_and_a_distance():
    assert plots._spread([0.5, 0.52, 0.1, 0.53], 0.07) == pytest.approx([0.5, 0.57, 0.1, 0.64])
    assert plots._spread([0.9, 0.1], 0.07) == [0.9, 0.1]


def test_each_line_has_its_label_in_its_colour_beside_its_end():
    figure, axes = plt.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    for label, end in (("low", 0.2), ("high", 0.8), ("_hidden", 0.5)):
        axes.plot([0, 1], [0, end], label=label)
    plots.label_lines(axes)
    labels = {text.get_text(): text for text in axes.texts}
    assert {name: text.xy[1] for name, text in labels.items()} == pytest.approx({"low": 0.2, "high": 0.8})
    assert [labels[line.get_label()].get_color() for line in axes.lines[:2]] == [line.get_color() for line in axes.lines[:2]]
