"""The group Lasso: a penalty under which whole filters become exactly zero. Part of Lab 4's reference implementations.

The Lasso adds sum_j |w_j| to the loss and drives single weights to zero. The group Lasso adds the *L2 norms of groups*.
Within a group it is as smooth as any L2 norm; between groups it is an L1 norm, with its corner at zero, so that groups
vanish as a whole. As with the Lasso (Lab 1), gradient steps only come close to the corner; a proximal step lands on it.
"""

from __future__ import annotations

import torch
from torch import nn

from course_utils.pruning.channels import prunable_convolutions
from course_utils.pruning.structured_given import check_convolutions
from course_utils.validate import check_nonnegative


def group_lasso(model: nn.Module) -> torch.Tensor:
    """Compute R = sum_l sum_f ||w_{l,f}||_2 over all filters f of all convolutions l whose filters can be removed.

    The gradient is w_{l,f} / ||w_{l,f}||_2, and is taken as 0 for a filter of length 0.

    Args:
        model: A module that torch.fx can trace.

    Returns:
        A scalar tensor that gradients flow through, >= 0.

    Raises:
        ValueError: If the model has no convolution.
        TypeError: If the model is no module.

    Source:
        Yuan and Lin, "Model selection and estimation in regression with grouped variables" (2006), section 2 (groups of
        different sizes p get weights sqrt(p) there); Wen et al., "Learning structured sparsity in deep neural networks"
        (2016), section 3 (filters as groups, without weights).
    """
    check_convolutions("model", model)
    return sum(conv.weight.flatten(1).norm(dim=1).sum() for _, conv in prunable_convolutions(model))


def group_lasso_step(model: nn.Module, threshold: float) -> None:
    """Take the proximal step of threshold * R, in place: w_f <- max(0, 1 - threshold / ||w_f||_2) w_f.

    Every filter keeps its direction and loses `threshold` of its length; filters shorter than that become exactly 0.0.

    Args:
        model: A module that torch.fx can trace; the filters are those of `group_lasso`.
        threshold: Step size times strength of the penalty, >= 0.

    Raises:
        ValueError: If threshold is negative, or the model has no convolution.
        TypeError: If the model is no module, or threshold no number.

    Source:
        Parikh and Boyd, "Proximal algorithms" (2014), section 6.5 (block soft thresholding).
    """
    check_convolutions("model", model)
    check_nonnegative("threshold", threshold)
    with torch.no_grad():
        for _, conv in prunable_convolutions(model):
            lengths = conv.weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            shorter = (lengths - threshold).clamp(min=0)
            conv.weight.mul_(torch.where(lengths > 0, shorter / lengths, 0.0))
