"""Which weights go together: single ones, whole filters, or n of every m. Lab 4's reference implementations.

A filter is the weight of one output channel of a convolution, (C_in, k, k). Removing single weights leaves a tensor of
the same shape with holes, which a dense kernel multiplies as before. Removing a filter makes the tensor *smaller*, and
the next one too, since it has one channel fewer to read. Two of every four is a compromise that special hardware can
use.

The exercises on the group Lasso are in `group_lasso`, the one that makes the network really smaller is in `removal`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from course_utils.pruning.channels import FilterMasks, prunable_convolutions, silence_filters
from course_utils.pruning.given import Masks
from course_utils.pruning.magnitude import magnitude_mask
from course_utils.pruning.structured_given import (
    check_convolutions,
    check_filters,
    check_groups,
    convolutions,
    effective_weight,
    set_masks,
)
from course_utils.validate import check_count, check_fraction, check_vector


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Compute s_t = (x_t + x_{t+1} + ... + x_{t+w-1}) / w wherever the window lies within the values.

    Args:
        values: x, vector of n numbers, for example the loss of each training step.
        window: w, from 1 to n.

    Returns:
        Vector of n - w + 1 numbers, float64. Nothing is padded: every entry is the mean of w values that were there.

    Raises:
        ValueError: If window is not from 1 to n, or values is no vector of finite numbers.
        TypeError: If window is no int, or values holds no numbers.

    Source:
        The simple moving average; as `numpy.convolve` with mode "valid".
    """
    check_vector("values", values)
    check_count("window", window, 1, len(values))
    return np.lib.stride_tricks.sliding_window_view(np.asarray(values, dtype=np.float64), window).mean(axis=1)


class SparseConv2d(nn.Conv2d):
    """A convolution with a masked weight: y = conv(x, m * w) + b, with m of zeros and ones that is not trained.

    The mask is the buffer `mask`: it is saved and moved with the model, and no optimiser sees it. The chain rule masks
    the gradient: dL/dw = m * dL/d(m * w), so that masked weights receive exactly zero.

    Source:
        Han, Pool, Tran and Dally, "Learning both weights and connections for efficient neural networks" (2015), section
        3.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, **options):
        """Make the convolution that `nn.Conv2d` makes, and a mask of ones of its weight's shape.

        Args:
            in_channels: C_in.
            out_channels: C_out.
            kernel_size: k.
            **options: As for `nn.Conv2d`: stride, padding, dilation, groups, bias, ...
        """
        super().__init__(in_channels, out_channels, kernel_size, **options)
        self.register_buffer("mask", torch.ones_like(self.weight.detach()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (N, C_in, H, W) to (N, C_out, H', W') with the weight m * w; `self.weight` is not changed."""
        return self._conv_forward(x, self.weight * self.mask, self.bias)


def filter_l1_mask(weight: torch.Tensor, fraction: float) -> torch.Tensor:
    """Keep all but the round(fraction * C_out) filters of smallest L1 norm, sum_{c,i,j} |w_{f,c,i,j}|.

    The rounding is Python's round (half to even). Of equal norms the filter with the smaller index is kept.

    Args:
        weight: (C_out, C_in, ...), floating point; it is not changed.
        fraction: Fraction of the filters to remove, from 0 to 1.

    Returns:
        Boolean tensor (C_out,), True where the filter is kept.

    Raises:
        ValueError: If fraction is not in [0, 1], or weight is empty, not finite or a vector.
        TypeError: If weight is no floating-point tensor, or fraction no number.

    Source:
        Li, Kadav, Durdanovic, Samet and Graf, "Pruning filters for efficient ConvNets" (2017), section 3.1.
    """
    check_filters("weight", weight)
    check_fraction("fraction", fraction)
    norms = weight.detach().abs().flatten(1).sum(1)
    n_kept = len(norms) - round(fraction * len(norms))
    mask = torch.zeros(len(norms), dtype=torch.bool, device=weight.device)
    mask[norms.argsort(descending=True, stable=True)[:n_kept]] = True
    return mask


def filter_l1_pruning(model: nn.Module, fraction: float) -> FilterMasks:
    """Silence round(fraction * C_out) filters of smallest L1 norm in every convolution whose filters can be removed.

    Silent means that the channel is zero for every input: the filter's weights, its bias, and scale and shift of the
    batch norm that follows become 0.0, in place. A filter that a mask has removed already has norm 0, so it goes first.

    Args:
        model: A module that torch.fx can trace; convolutions that feed a residual addition are left alone.
        fraction: Fraction of each convolution's filters to remove, from 0 to 1.

    Returns:
        Name of the convolution -> boolean mask (C_out,), True where the filter is kept.

    Raises:
        ValueError: If fraction is not in [0, 1], or the model has no convolution.
        TypeError: If the model is no module, or fraction no number.

    Source:
        Li et al. (2017), section 3.1 and figure 4 (in a residual block, the first convolution's filters).
    """
    check_convolutions("model", model)
    check_fraction("fraction", fraction)
    masks = {}
    for name, conv in prunable_convolutions(model):
        masks[name] = filter_l1_mask(effective_weight(conv), fraction)
    silence_filters(model, masks)
    return masks


def unstructured_pruning(model: nn.Module, fraction: float) -> Masks:
    """Mask round(fraction * n) weights of smallest |m * w| in every convolution, in place.

    Args:
        model: Any module with convolutions; linear layers, biases and batch norms are left alone.
        fraction: Fraction of each convolution's weights to remove, from 0 to 1.

    Returns:
        Name of the convolution -> boolean mask of the weight's shape, True where the weight is kept.

    Raises:
        ValueError: If fraction is not in [0, 1], or the model has no convolution.
        TypeError: If the model is no module, or fraction no number.

    Source:
        Han et al. (2015), section 3.
    """
    check_convolutions("model", model)
    check_fraction("fraction", fraction)
    masks = {name: magnitude_mask(effective_weight(conv), fraction) for name, conv in convolutions(model)}
    set_masks(model, masks)
    return masks


def n_m_mask(weight: torch.Tensor, n: int = 2, m: int = 4) -> torch.Tensor:
    """Keep the n largest |w| of every m consecutive input channels (2:4 by default).

    A group is w_{f, c..c+m-1, i, j} with c a multiple of m: one filter, one kernel position, m neighbouring input
    channels. These are the products that are added up, which is where the hardware skips. Of equal magnitudes the one
    with the smaller index is kept.

    Args:
        weight: (C_out, C_in, ...), floating point, C_in a multiple of m; it is not changed.
        n: How many of each group are kept, from 1 to m.
        m: Size of a group.

    Returns:
        Boolean tensor of the shape of weight, True where the weight is kept.

    Raises:
        ValueError: If n or m is out of range, C_in is no multiple of m, or weight is empty, not finite or a vector.
        TypeError: If weight is no floating-point tensor, or n or m no int.

    Source:
        Mishra et al., "Accelerating sparse deep neural networks" (2021): Sparse Tensor Cores and their 2:4 pattern.
    """
    check_filters("weight", weight)
    check_groups(weight, n, m)
    groups = weight.detach().abs().movedim(1, -1).unflatten(-1, (-1, m))  # (C_out, ..., C_in / m, m)
    largest = groups.argsort(dim=-1, descending=True, stable=True)[..., :n]
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, largest, True)
    return mask.flatten(-2).movedim(-1, 1).contiguous()
