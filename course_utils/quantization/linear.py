"""Quantized weights as real numbers: what a network computes with while it is being trained for few bits.

`linear_quantize` returns floating-point numbers that take at most 2^b different values. Nothing is smaller or faster by
this ("fake" quantization); it shows what the rounding does to the network, and lets training adapt to it.
"""

from __future__ import annotations

import torch

from course_utils.quantization.given import check_bits, check_weight, value_range


def linear_quantize(
    weight: torch.Tensor,
    n_bits: int | None,
    *,
    per_channel: bool = False,
    symmetric: bool = False,
    keep_zeros: bool = False,
) -> torch.Tensor:
    """Round weights to a grid of b bits: round((w - shift) / scale) * scale + shift.

    Asymmetric: from min to max in 2^b - 1 steps, shift = min and scale = (max - min) / (2^b - 1). Symmetric: shift = 0
    and scale = max|w| / (2^(b-1) - 1), so the codes are -(2^(b-1) - 1), ..., 0, ..., 2^(b-1) - 1, one level fewer, and
    0 is one of them. Halves round to even. Where all weights are equal (max = min, or all zero) they are returned as
    they are.

    Args:
        weight: Shape (output channels, ...), floating point; it is not changed.
        n_bits: b, from 1 to 16, at least 2 if symmetric; None returns an unchanged copy.
        per_channel: One grid for each output channel (each weight[i]) instead of one for the tensor.
        symmetric: Whether the grid is symmetric around 0.
        keep_zeros: Entries that are 0 stay exactly 0, and the grid is made for the others alone: minimum and maximum
            are taken over the entries that are not 0. For pruned weights.

    Returns:
        Tensor of the shape and dtype of weight.

    Raises:
        ValueError: If weight is empty or not finite, or n_bits is out of range.
        TypeError: If weight is no floating-point tensor, or n_bits neither int nor None.

    Source:
        Duke University, ECE 661 (2022), homework 4 (asymmetric, per tensor, zeros kept); Krishnamoorthi, "Quantizing
        deep convolutional networks for efficient inference" (2018), sections 2.1, 2.2 and 2.6 (symmetric, per channel).
    """
    check_weight("weight", weight)
    check_bits("n_bits", n_bits, minimum=2 if symmetric else 1)
    if n_bits is None:
        return weight.clone()
    counted = weight != 0 if keep_zeros else None
    low, high = value_range(weight, per_channel, counted)
    if symmetric:
        scale, shift = torch.maximum(-low, high) / (2 ** (n_bits - 1) - 1), 0.0
    else:
        scale, shift = (high - low) / (2**n_bits - 1), low
    rounded = torch.round((weight - shift) / scale) * scale + shift
    quantized = torch.where(scale > 0, rounded, weight)
    return torch.where(weight == 0, 0.0, quantized) if keep_zeros else quantized
