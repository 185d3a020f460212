"""BinaryConnect: one bit a weight, +1 or -1, while the float weights behind them keep learning.

Forward and backward use binary weights, the update goes to the float ones, and these are clipped to [-1, 1], since
beyond that a weight has no influence on its sign's probability any more. Deterministic: the sign. Stochastic: +1 with
probability (w + 1) / 2, so that the binary weight is right on average, E[w_b] = w.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils import parametrize

from course_utils.quantization.given import check_weight
from course_utils.resnet import weighted_layers

Binarize = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


def binarize(weight: torch.Tensor, uniform: torch.Tensor | None = None) -> torch.Tensor:
    """Make every weight +1 or -1: its sign, or at random with P(+1) = p = clip((w + 1) / 2, 0, 1).

    Args:
        weight: Any shape, floating point; it is not changed.
        uniform: None for the deterministic rule, +1 where w >= 0. Else numbers drawn uniformly from [0, 1), of the
            shape of weight, and the rule is +1 where uniform < p.

    Returns:
        Tensor of -1.0 and +1.0, of the shape and dtype of weight.

    Raises:
        ValueError: If weight is empty or not finite.
        TypeError: If weight is no floating-point tensor.

    Source:
        Courbariaux, Bengio and David, "BinaryConnect" (2015), section 2.2, equations 1 to 3.
    """
    check_weight("weight", weight)
    if uniform is None:
        is_plus = weight >= 0
    else:
        is_plus = uniform < ((weight + 1) / 2).clamp(0, 1)
    return 2 * is_plus.to(weight.dtype) - 1


class Binarized(nn.Module):
    """A parametrization: the layer's weight is binarize(w), with gradients passed straight through to w.

    Attributes:
        stochastic: Whether weights are drawn at random in training; in evaluation they are the float ones then.
        binarize: The function that makes weights binary.
    """

    def __init__(self, binarize: Binarize, stochastic: bool):
        """Keep the settings.

        Args:
            binarize: Function of weight and uniform numbers (or None), like `binarize` above.
            stochastic: Whether weights are drawn at random in training.
        """
        super().__init__()
        self.binarize, self.stochastic = binarize, stochastic

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weight to compute with."""
        if self.stochastic and not self.training:
            return weight
        uniform = torch.rand_like(weight) if self.stochastic else None
        return self.binarize(weight.detach(), uniform) + (weight - weight.detach())


def make_binary(model: nn.Module, binarize: Binarize, stochastic: bool, seed: int = 0) -> nn.Module:
    """Let every convolution and linear layer compute with binary weights, in place; call `clip_weights` after each
    step.

    Args:
        model: Any module with batch normalisation (binary weights have a scale of their own).
        binarize: Function of weight and uniform numbers (or None).
        stochastic: Whether weights are drawn at random in training.
        seed: Seed of the new float weights, uniform in [-1, 1]: small ones would draw both signs nearly equally often.

    Returns:
        The same model.
    """
    generator = torch.Generator().manual_seed(seed)
    for _, layer in weighted_layers(model):
        with torch.no_grad():
            layer.weight.copy_(2 * torch.rand(layer.weight.shape, generator=generator) - 1)
        parametrize.register_parametrization(layer, "weight", Binarized(binarize, stochastic))
    return model


def clip_weights(model: nn.Module) -> None:
    """Clip the float weights behind the binary ones to [-1, 1], in place.

    Args:
        model: What `make_binary` returned.

    Source:
        Courbariaux, Bengio and David (2015), section 2.4.
    """
    with torch.no_grad():
        for _, layer in weighted_layers(model):
            layer.parametrizations.weight.original.clamp_(-1, 1)
