"""Exponential moving average of weights.

SGD's last iterate is noisy. The average a <- d a + (1 - d) w over the steps is smoother and often a little more
accurate while the learning rate is still high; after a schedule that ends at zero the two nearly agree. The decay is
warmed up, d_t = min(d, (1 + t) / (10 + t)), so that the random start is forgotten quickly.

A weight that is exactly zero has been pruned; an average over steps from before would bring it back. So wherever the
model is zero when the average is taken over, the average is zero too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


class WeightAverage:
    """a <- d a + (1 - d) w for every parameter and floating-point buffer w of a model.

    Args:
        model: The model whose weights are averaged; its present weights are the first average.
        decay: d, above 0 and below 1.

    Raises:
        ValueError: If the decay is out of range.
    """

    def __init__(self, model: nn.Module, decay: float):
        if not 0 < decay < 1:
            raise ValueError(f"ema_decay must be above 0 and below 1, got {decay}")
        self.decay = decay
        self.n_updates = 0
        self.average = {name: tensor.detach().clone() for name, tensor in _averaged(model)}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's present weights."""
        decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        current = dict(_averaged(model))
        torch._foreach_lerp_(list(self.average.values()), [current[name] for name in self.average], 1 - decay)
        self.n_updates += 1

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Set the model's weights to the average, and leave those that are exactly zero."""
        for name, tensor in _averaged(model):
            tensor.copy_(self.average[name].masked_fill(tensor == 0, 0.0))

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within the context the model holds the averaged weights; afterwards its own again."""
        own = {name: tensor.detach().clone() for name, tensor in _averaged(model)}
        self.copy_to(model)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in _averaged(model):
                    tensor.copy_(own[name])

    def state_dict(self) -> dict:
        """Return everything needed to go on: the average and the number of updates."""
        return {"average": self.average, "n_updates": self.n_updates}

    def load_state_dict(self, state: dict) -> None:
        """Take over a state that `state_dict` returned."""
        self.average = {name: tensor.clone() for name, tensor in state["average"].items()}
        self.n_updates = state["n_updates"]


def _averaged(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [(name, tensor) for name, tensor in model.state_dict().items() if tensor.is_floating_point()]
