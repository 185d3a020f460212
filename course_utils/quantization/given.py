"""What Lab 3 gives to its readers: argument checks, ranges, layers to build on, a small network, the published mistake.

Nothing here is an exercise. A *quantizer* is a function (or module) that takes a weight and returns the weight that the
layer computes with, of the same shape; gradients flow through it back to the weight, which stays a float.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.pruning.given import apply_masks, check_prunable, check_weight, masks_of, toy_network, toy_steps
from course_utils.validate import check_count

__all__ = [
    "PublishedSTE", "QuantLinear", "Quantizer", "WrappedConv2d", "apply_masks", "check_array", "check_bits",
    "check_counts", "check_prunable", "check_range", "check_weight", "gradients_of", "masks_of", "round_through",
    "scale_gradient", "small_network", "toy_deep_network", "toy_network", "toy_steps",
    "toy_tensor", "value_range",
]  # fmt: skip

Quantizer = Callable[[torch.Tensor], torch.Tensor]


def check_array(name: str, value: Any) -> None:
    """Raise unless value is a non-empty array (any shape) of finite real numbers."""
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be an array of real numbers, got dtype {array.dtype}")
    if array.size == 0:
        raise ValueError(f"{name} must have at least one entry, got shape {array.shape}")
    n_bad = int((~np.isfinite(array)).sum())
    if n_bad:
        raise ValueError(f"{name} must hold finite numbers only, got {n_bad} entries that are NaN or infinite")


def check_bits(name: str, value: Any, minimum: int = 1) -> None:
    """Raise unless value is None or a whole number of bits from minimum to 16."""
    if value is not None:
        check_count(name, value, minimum=minimum, maximum=16)


def check_range(low: Any, high: Any) -> None:
    """Raise unless low and high are finite numbers with low <= 0 <= high and low < high."""
    for name, value in (("low", low), ("high", high)):
        if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
            raise TypeError(f"{name} must be a finite number, got {value!r}")
    if not (math.isfinite(low) and math.isfinite(high) and low <= 0 <= high and low < high):
        raise ValueError(f"need low <= 0 <= high and low < high, so that 0 is on the grid; got low={low}, high={high}")


def check_counts(name: str, value: Any) -> None:
    """Raise unless value is a non-empty dict from symbol to a whole number of at least 1."""
    if not isinstance(value, dict):
        raise TypeError(f"{name} must be a dict from symbol to count, got a {type(value).__name__}")
    if not value:
        raise ValueError(f"{name} must have at least one symbol, got an empty dict")
    for symbol, count in value.items():
        check_count(f"{name}[{symbol!r}]", count, minimum=1)


def value_range(
    weight: torch.Tensor, per_channel: bool = False, counted: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the smallest and the largest of the entries that count, in the tensor or in each output channel.

    Args:
        weight: Shape (output channels, ...), floating point.
        per_channel: One minimum and maximum for each weight[i] instead of one for all.
        counted: Boolean tensor of the shape of weight, True where an entry counts; None counts all.

    Returns:
        Minimum and maximum, shaped to broadcast against weight: (channels, 1, ...) per channel, else (1, 1, ...). Both
        are 0 where no entry counts.
    """
    counted = torch.ones_like(weight, dtype=torch.bool) if counted is None else counted
    dims = tuple(range(1, weight.ndim)) if per_channel else tuple(range(weight.ndim))
    with torch.no_grad():
        if not dims:  # a vector, channel by channel: each entry is its own range
            low = high = weight.clone()
        else:
            low = weight.masked_fill(~counted, math.inf).amin(dims, keepdim=True)
            high = weight.masked_fill(~counted, -math.inf).amax(dims, keepdim=True)
        some = low <= high
        return torch.where(some, low, 0.0), torch.where(some, high, 0.0)


def round_through(x: torch.Tensor) -> torch.Tensor:
    """Round to the nearest whole number, halves to even; the gradient passes as if nothing had happened."""
    return torch.round(x).detach() + (x - x.detach())


def scale_gradient(x: torch.Tensor, factor: float) -> torch.Tensor:
    """Return x itself; its gradient is multiplied by factor."""
    return x.detach() + factor * (x - x.detach())


class WrappedConv2d(nn.Conv2d):
    """A convolution made from another one, with a quantizer beside it; weight and bias are the other one's own.

    Attributes:
        quantizer: Function of a weight that returns the weight to compute with.
    """

    def __init__(self, layer: nn.Conv2d, quantizer: Quantizer):
        """Take over weight, bias and settings.

        Args:
            layer: The convolution.
            quantizer: Function of a weight that returns the weight to compute with.
        """
        settings = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups", "padding_mode")}
        super().__init__(
            layer.in_channels, layer.out_channels, layer.kernel_size, bias=layer.bias is not None, device="meta",
            **settings,
        )
        self.weight, self.bias, self.quantizer = layer.weight, layer.bias, quantizer
        self.train(layer.training)


class QuantLinear(nn.Linear):
    """A linear layer that computes with quantizer(weight): y = x Q(W)^T + b.

    Attributes:
        quantizer: Function of a weight that returns the weight to compute with.
    """

    def __init__(self, layer: nn.Linear, quantizer: Quantizer):
        """Take over weight and bias.

        Args:
            layer: The linear layer.
            quantizer: Function of a weight that returns the weight to compute with.
        """
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        self.weight, self.bias, self.quantizer = layer.weight, layer.bias, quantizer
        self.train(layer.training)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Map (N, inputs) to (N, outputs)."""
        return F.linear(inputs, self.quantizer(self.weight), self.bias)


class PublishedSTE(torch.autograd.Function):
    """The quantizer of the published homework report, with its mistake: w_q = m * (alpha R + beta), m = 1 where w = 0.

    R = round((2^b - 1) (w - beta) / alpha) / (2^b - 1), alpha = max w - min w, beta = min w. Do not use it for anything
    but Lab 3's section on finding the mistake.
    """

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, n_bits: int) -> torch.Tensor:
        """Return what the published formula gives."""
        mask = (weight == 0).to(weight.dtype)
        alpha, beta = weight.max() - weight.min(), weight.min()
        rounded = torch.round((2**n_bits - 1) * (weight - beta) / alpha) / (2**n_bits - 1)
        return mask * (alpha * rounded + beta)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Pass the gradient on."""
        return gradient, None


def small_network(seed: int = 0) -> nn.Module:
    """Build a network of the size that MNIST exercises use: two convolutions, two linear layers, 105 978 parameters.

    Args:
        seed: Seed of the initial weights.

    Returns:
        The network for (N, 1, 28, 28) images and 10 classes, in training mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = OrderedDict(
            conv1=nn.Conv2d(1, 16, 3, padding=1, bias=False), bn1=nn.BatchNorm2d(16), relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(16, 32, 3, padding=1, bias=False), bn2=nn.BatchNorm2d(32), relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(), fc1=nn.Linear(32 * 7 * 7, 64, bias=False), bn3=nn.BatchNorm1d(64), relu3=nn.ReLU(),
            fc2=nn.Linear(64, 10),
        )  # fmt: skip
        return nn.Sequential(layers)


def toy_tensor(*shape: int, seed: int) -> torch.Tensor:
    """Draw a float64 tensor of normal numbers with a small positive mean, for checks.

    Args:
        *shape: Its sizes.
        seed: Seed of its own generator.

    Returns:
        The tensor.
    """
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1


def toy_deep_network(seed: int) -> nn.Module:
    """Build a network with three inner layers to quantize (two convolutions, one linear), for checks in milliseconds.

    Args:
        seed: Seed of its own generator; the same seed gives the same network.

    Returns:
        conv1, bn1, conv2 (stride 2, with bias), relu, conv3 (two groups, padding), pool, flatten, fc1, fc2, for images
        (N, 2, 9, 9); in float64 and evaluation mode, with random parameters everywhere.
    """
    layers = OrderedDict(
        conv1=nn.Conv2d(2, 4, 3), bn1=nn.BatchNorm2d(4), conv2=nn.Conv2d(4, 6, 3, stride=2), relu=nn.ReLU(),
        conv3=nn.Conv2d(6, 4, 3, padding=1, groups=2, bias=False), pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(),
        fc1=nn.Linear(4, 8), fc2=nn.Linear(8, 5),
    )  # fmt: skip
    model = nn.Sequential(layers).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64) + 0.1)
    return model


def gradients_of(function: Callable[..., torch.Tensor], *arguments: torch.Tensor) -> list[torch.Tensor | None]:
    """Compute the gradients of sum_i c_i f_i with c_i = 1 + i / 10, so that every entry's gradient is another number.

    Args:
        function: Function of tensors that returns a tensor.
        *arguments: Its arguments, floating point.

    Returns:
        One gradient for each argument; None where there is none.
    """
    leaves = [argument.detach().clone().requires_grad_() for argument in arguments]
    result = function(*leaves)
    weights = 1 + torch.arange(result.numel(), dtype=result.dtype).view(result.shape) / 10
    return list(torch.autograd.grad((weights * result).sum(), leaves, allow_unused=True))
