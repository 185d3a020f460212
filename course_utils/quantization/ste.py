"""Training through a rounding: the straight-through estimator, and a network whose layers compute with rounded weights.

The derivative of round is 0 almost everywhere, so that gradient descent on rounded weights stands still. The
straight-through estimator (STE) keeps a float weight behind each rounded one, computes forward with the rounded one and
backward *as if* rounding were the identity:

    forward  w_q = Q(w)          backward  dL/dw := dL/dw_q

Small steps add up in the float weight until it crosses into the next cell of the grid.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from course_utils.quantization.given import Quantizer, QuantLinear, WrappedConv2d, check_bits, check_prunable
from course_utils.quantization.linear import linear_quantize
from course_utils.resnet import weighted_layers


class STEQuantize(torch.autograd.Function):
    """Forward: the weight, linearly quantized. Backward: the gradient, unchanged.

    `STEQuantize.apply(weight, n_bits)` calls it, with `per_channel` and `symmetric` as third and fourth argument if
    wanted.

    Source:
        Bengio, Leonard and Courville, "Estimating or propagating gradients through stochastic neurons" (2013), section
        4; Duke University, ECE 661 (2022), homework 4.
    """

    @staticmethod
    def forward(ctx, weight, n_bits, per_channel=False, symmetric=False):
        """Return linear_quantize(weight, n_bits) with the given options."""
        return linear_quantize(weight, n_bits, per_channel=per_channel, symmetric=symmetric)

    @staticmethod
    def backward(ctx, gradient):
        """Return one gradient for each argument of forward: that of the weight, and None for the others."""
        return gradient, None, None, None


class ClippedSTE(torch.autograd.Function):
    """Forward: clip to [low, high], round to 2^b levels. Backward: the gradient where low <= x <= high, 0 elsewhere.

    `ClippedSTE.apply(x, low, high, n_bits)` calls it. The levels are low + k * scale, k = 0, ..., 2^b - 1, with
    scale = (high - low) / (2^b - 1).

    Source:
        Jacob et al. (2018), section 3; Hubara et al., "Binarized neural networks" (2016), section 1.3 (the clipped
        STE).
    """

    @staticmethod
    def forward(ctx, x, low, high, n_bits):
        """Return the clipped and rounded values; keep for backward what it needs (ctx.save_for_backward)."""
        ctx.save_for_backward((x >= low) & (x <= high))
        scale = (high - low) / (2**n_bits - 1)
        return torch.round((x.clamp(low, high) - low) / scale) * scale + low

    @staticmethod
    def backward(ctx, gradient):
        """Return one gradient for each argument of forward: that of x, and None for the others."""
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None, None


class QuantConv2d(WrappedConv2d):
    """A convolution that computes with quantizer(weight) instead of weight: y = Q(W) * x + b.

    Made by `QuantConv2d(layer, quantizer)`; it has the layer's own weight and bias as parameters, its stride, padding,
    dilation and groups, and the function `self.quantizer`.

    Source:
        Duke University, ECE 661 (2022), homework 4 (fixed-point convolution layer).
    """

    def forward(self, images):
        """Map (N, C_in, H, W) to (N, C_out, H', W')."""
        return self._conv_forward(images, self.quantizer(self.weight), self.bias)


def straight_through(weight: torch.Tensor, n_bits: int | None) -> Quantizer:
    """Make a layer's quantizer: w -> STEQuantize.apply(w, n_bits).

    Args:
        weight: The layer's weight; not needed here, but other quantizers learn from it where to start.
        n_bits: b; None leaves weights as they are.

    Returns:
        Function of a weight.
    """
    return lambda w: STEQuantize.apply(w, n_bits)


def quantize_model(
    model: nn.Module,
    n_bits: int | None,
    make_quantizer: Callable[[torch.Tensor, int | None], Quantizer] = straight_through,
) -> nn.Module:
    """Copy a network and let all its convolution and linear layers but the first and the last compute with rounded
    weights.

    The first layer and the classifier stay in float, as published: they hold few weights and are sensitive. Biases and
    batch normalisation are not quantized.

    Args:
        model: Any module; it is not changed.
        n_bits: b, handed on to make_quantizer.
        make_quantizer: `make_quantizer(weight, n_bits)` returns the quantizer of one layer.

    Returns:
        The copy, with each inner layer replaced by a `QuantConv2d` or `QuantLinear` of the same name.

    Raises:
        ValueError: If the model has no convolution or linear layer, or n_bits is out of range.
        TypeError: If the model is no module, or n_bits neither int nor None.

    Source:
        Duke University, ECE 661 (2022), homework 4 (the residual blocks' weights; first convolution and classifier
        float).
    """
    check_prunable("model", model)
    check_bits("n_bits", n_bits)
    quantized = copy.deepcopy(model)
    for name, layer in weighted_layers(quantized)[1:-1]:
        kind = QuantConv2d if isinstance(layer, nn.Conv2d) else QuantLinear
        quantized.set_submodule(name, kind(layer, make_quantizer(layer.weight, n_bits)))
    return quantized


class SparseSTEQuantize(torch.autograd.Function):
    """Forward: w_q = m * Q(w). Backward: m * gradient. m is 1 where w is not 0, and Q's grid is that of these weights.

    `SparseSTEQuantize.apply(weight, n_bits)` calls it. Pruned weights are exactly 0 in the forward pass and receive no
    gradient; survivors are quantized and receive theirs unchanged.

    Source:
        Duke University, ECE 661 (2022), homework 4, with its mask put right.
    """

    @staticmethod
    def forward(ctx, weight, n_bits):
        """Return the quantized survivors with zeros in between; keep for backward what it needs."""
        ctx.save_for_backward(weight != 0)
        return linear_quantize(weight, n_bits, keep_zeros=True)

    @staticmethod
    def backward(ctx, gradient):
        """Return the gradients of weight and n_bits."""
        (survives,) = ctx.saved_tensors
        return gradient * survives, None
