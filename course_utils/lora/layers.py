"""A layer with a low-rank adapter: y = W x + (alpha / r) B (A x), W frozen, A and B trained.

W has out x in entries, the pair (A, B) has r (in + out): for r much smaller than in and out that is little to train,
to keep optimiser states for, and to store. A starts at random and B at zero, so that the adapted layer starts as
exactly the layer it adapts, and so that the first gradient step moves B (A x is not zero) and the second one A as well.
Were both zero, neither would ever move: the gradient of each contains the other as a factor.

The product B A is a matrix of the shape of W. Added to W it leaves an ordinary layer: adapted, and as fast as before.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from course_utils.lora.given import LoRALayer, check_convolution, check_linear
from course_utils.validate import check_count, check_positive


class LoRALinear(LoRALayer):
    """A linear layer with a low-rank adapter: y = base(x) + (alpha / rank) B (A x).

    Attributes:
        base: The layer that is adapted; its weight and bias are frozen.
        lora_a: A, a parameter of shape (rank, in_features), random at the start.
        lora_b: B, a parameter of shape (out_features, rank), zero at the start.
        scaling: alpha / rank, a float.
        merged: Whether the adapter has been added to base.weight (see `merge`); False at the start.

    Source:
        Hu et al., "LoRA: Low-rank adaptation of large language models", arXiv:2106.09685 (2021), section 4.1,
        equation 3.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float):
        """Freeze the base and create the factors, in the dtype and on the device of base.weight.

        Args:
            base: The layer to adapt; it is kept and not copied.
            rank: r, at least 1.
            alpha: Scale of the adapter, above 0.

        The entries of A are independent, with mean 0 and a standard deviation of about 1 / sqrt(in_features):
        nn.init.kaiming_uniform_(A, a=math.sqrt(5)) draws them from U(-1 / sqrt(in_features), 1 / sqrt(in_features)).
        """
        check_linear("base", base)
        check_count("rank", rank, minimum=1)
        check_positive("alpha", alpha)
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_b = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        self.scaling = alpha / rank

    def delta_weight(self) -> torch.Tensor:
        """Return (alpha / rank) B A, of the shape of base.weight: what `merge` adds to it."""
        return self.scaling * self.lora_b @ self.lora_a

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., in_features) to (..., out_features). Once merged, base(x) is all: it contains the adapter."""
        y = self.base(x)
        if self.merged:
            return y
        return y + self.scaling * F.linear(F.linear(x, self.lora_a), self.lora_b)


class LoRAConv2d(LoRALayer):
    """A convolution with a low-rank adapter: y = base(x) + (alpha / rank) conv_1x1(conv_kxk(x, A), B).

    A is a k x k convolution to rank channels with the base's stride, padding and dilation, B a 1 x 1 convolution from
    there to the output channels. Reshaped to matrices, (alpha / rank) B A is an update of rank `rank` of the
    (out_channels, in_channels k k) matrix of the base's weight; the adapter has rank (in_channels k k + out_channels)
    parameters.

    Attributes:
        base: The convolution that is adapted; its weight and bias are frozen.
        lora_a: A, a parameter of shape (rank, in_channels, k_h, k_w), random at the start.
        lora_b: B, a parameter of shape (out_channels, rank, 1, 1), zero at the start.
        scaling: alpha / rank, a float.
        merged: Whether the adapter has been added to base.weight (see `merge`); False at the start.

    Source:
        Hu et al. (2021), section 4.1, for matrices. For convolutions the factorisation of the PEFT library.
    """

    def __init__(self, base: nn.Conv2d, rank: int, alpha: float):
        """Freeze the base and create the factors, in the dtype and on the device of base.weight.

        Args:
            base: The convolution to adapt (groups 1, zero padding); it is kept and not copied.
            rank: r, at least 1.
            alpha: Scale of the adapter, above 0.

        The entries of A are drawn as in LoRALinear; an output of A has in_channels k_h k_w inputs.
        """
        check_convolution("base", base)
        check_count("rank", rank, minimum=1)
        check_positive("alpha", alpha)
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = nn.Parameter(base.weight.new_empty(rank, *base.weight.shape[1:]))
        self.lora_b = nn.Parameter(base.weight.new_zeros(base.out_channels, rank, 1, 1))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        self.scaling = alpha / rank

    def delta_weight(self) -> torch.Tensor:
        """Return (alpha / rank) sum_r B[o, r] A[r, i, h, w], of the shape of base.weight: what `merge` adds to it."""
        product = self.lora_b.flatten(1) @ self.lora_a.flatten(1)  # (out, r) @ (r, in k k)
        return self.scaling * product.view_as(self.base.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H', W'). Once merged, base(x) is all."""
        y = self.base(x)
        if self.merged:
            return y
        down = F.conv2d(x, self.lora_a, None, self.base.stride, self.base.padding, self.base.dilation)
        return y + self.scaling * F.conv2d(down, self.lora_b)
