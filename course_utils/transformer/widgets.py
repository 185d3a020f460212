"""Lab 6's head picker: choose a layer and a head, and see who looks at whom.

The attention maps are computed once, before; the picker only shows them.
"""

from __future__ import annotations

from collections.abc import Mapping

import ipywidgets
import torch
from torch import nn

from course_utils.explorer import Explorer
from course_utils.transformer.plots import draw_attention


@torch.no_grad()
def attention_maps(model: nn.Module, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """Run a model on one sequence and collect the weights of all its attentions.

    Args:
        model: A model whose attentions keep their last `weights`, like `MultiHeadAttention`.
        *inputs: What it is called with; a batch of one.

    Returns:
        Name of the attention -> weights, shape (heads, queries, keys), in the order of the layers.
    """
    model(*inputs)
    attentions = [(name, getattr(part, "weights", None)) for name, part in model.named_modules()]
    return {name: weights[0].float().cpu() for name, weights in attentions if isinstance(weights, torch.Tensor)}


class AttentionExplorer(Explorer):
    """The attention maps of one run.

    Args:
        maps: Name of the attention -> weights (heads, queries, keys).
        labels: Name of the attention -> (characters of its queries, characters of its keys).

    Attributes:
        view: The widget to show.
        layer, head, image, status: Its parts.

    Raises:
        ValueError: If there is no map, or labels do not fit the maps.
    """

    def __init__(self, maps: Mapping[str, torch.Tensor], labels: Mapping[str, tuple[str, str]]):
        if not maps:
            raise ValueError("maps must hold at least one attention, got none")
        for name, weights in maps.items():
            if name not in labels or tuple(map(len, labels[name])) != tuple(weights.shape[1:]):
                raise ValueError(f"labels[{name!r}] must have one character for each of {tuple(weights.shape[1:])}")
        self.maps, self.labels = dict(maps), dict(labels)
        self.layer = ipywidgets.Dropdown(options=list(maps), value=list(maps)[-1], description="layer")
        n_heads = len(next(iter(maps.values())))
        self.head = ipywidgets.IntSlider(value=1, min=1, max=n_heads, description="head")
        super().__init__([self.layer, self.head])

    def redraw(self) -> None:
        """Draw the chosen head's weights and say how spread out they are."""
        weights = self.maps[self.layer.value][self.head.value - 1]
        queries, keys = self.labels[self.layer.value]
        figure = self.new_figure(*((6.4, 4.6) if len(keys) > 20 else (4.8, 4.0)), dpi=90)
        ax = figure.subplots()
        draw_attention(ax, weights.numpy(), queries, keys)
        ax.set_title(f"{self.layer.value}, head {self.head.value}", loc="left", fontsize=10)
        effective = torch.special.entr(weights).sum(-1).exp().mean()  # exp of the entropy: keys that share the weight
        self.show(figure, f"a query spreads its weight over {effective:.1f} keys on average (exp of the entropy)")


def attention_explorer(maps: Mapping[str, torch.Tensor], labels: Mapping[str, tuple[str, str]]) -> ipywidgets.VBox:
    """Return the choice of layer and head and the picture of an AttentionExplorer as one widget."""
    return AttentionExplorer(maps, labels).view
