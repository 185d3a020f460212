"""Learned step size quantization (LSQ): the width of the grid is a parameter like any other.

Min-max lets the two most extreme weights decide how coarse the grid is for all the others. LSQ learns the step s by
gradient descent instead: a smaller step rounds the many small weights more finely and clips the few large ones.

    v = clip(w / s, -Q_N, Q_P),   w_q = round(v) s,   Q_N = 2^(b-1),  Q_P = 2^(b-1) - 1

    dw_q/ds = round(w/s) - w/s  inside,  -Q_N below,  Q_P above

The gradient with respect to s is a sum over all N weights, and would make steps far larger than those of a weight; it
is multiplied by 1 / sqrt(N Q_P).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from course_utils.quantization.given import check_bits, check_weight, round_through, scale_gradient


def lsq_quantize(weight: torch.Tensor, step_size: torch.Tensor, n_bits: int) -> torch.Tensor:
    """Compute round(clip(w / s, -Q_N, Q_P)) s with Q_N = 2^(b-1), Q_P = 2^(b-1) - 1, differentiable in w and in s.

    Gradients: with respect to w, 1 where -Q_N < w / s < Q_P, else 0; with respect to s, round(w/s) - w/s there, -Q_N
    below, Q_P above, summed over all N weights and multiplied by 1 / sqrt(N Q_P). (Whether clamp counts its
    two ends as inside depends on the version of torch.)

    Args:
        weight: Any shape, N entries, floating point.
        step_size: s, a tensor with one positive entry and no dimension.
        n_bits: b, from 2 to 16.

    Returns:
        Tensor of the shape of weight.

    Raises:
        ValueError: If weight is empty or not finite, or n_bits is out of range.
        TypeError: If weight is no floating-point tensor, or n_bits is no int.

    Source:
        Esser et al., "Learned step size quantization" (2020), equations 1 to 3 and section 2.2.
    """
    check_weight("weight", weight)
    check_bits("n_bits", n_bits, minimum=2)
    largest = 2 ** (n_bits - 1) - 1
    step = scale_gradient(step_size, (weight.numel() * largest) ** -0.5)
    return round_through((weight / step).clamp(-largest - 1, largest)) * step


class LSQ(nn.Module):
    """A quantizer with a learned step: w -> lsq_quantize(w, s, n_bits), starting from s = 2 mean|w| / sqrt(Q_P).

    Attributes:
        step_size: The parameter s; a scalar that is kept positive by taking its magnitude.
        n_bits: b.
        quantize: The function that does it.

    Source:
        Esser et al. (2020), section 2.1 (start value).
    """

    def __init__(self, weight: torch.Tensor, n_bits: int, quantize: Callable[..., torch.Tensor] = lsq_quantize):
        """Set the step from the weight.

        Args:
            weight: The weight as trained in float.
            n_bits: b, from 2 to 16.
            quantize: Function of weight, step size and bits, for example a reader's own `lsq_quantize`.
        """
        super().__init__()
        start = 2 * weight.detach().abs().mean() / (2 ** (n_bits - 1) - 1) ** 0.5
        self.step_size = nn.Parameter(start.clamp(min=1e-8))
        self.n_bits, self.quantize = n_bits, quantize

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the quantized weight."""
        return self.quantize(weight, self.step_size.abs().clamp(min=1e-8), self.n_bits)
