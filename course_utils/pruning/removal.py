"""Making the network really smaller: filters that are zero, and everything that belongs to their channels, are cut out.

Part of Lab 4's reference implementations. What belongs to a channel is in `channels`.
"""

from __future__ import annotations

from torch import nn

from course_utils.pruning.channels import channel_links
from course_utils.pruning.structured_given import (
    check_convolutions,
    check_removable,
    effective_weight,
    folded_copy,
    match_sizes,
    take,
)


def remove_pruned_filters(model: nn.Module) -> nn.Module:
    """Build a smaller dense network that computes the same outputs: f_small(x) = f(x) for every x, in evaluation mode.

    For every filter whose weights are all zero, these go: the filter, its bias, its entries in the batch norm
    (scale, shift, running mean and variance), and in each layer that reads its channel the weights that multiply it,
    for every position that is read.

    Args:
        model: A module that torch.fx can trace, with silenced filters; it is not changed. Masked convolutions
            become plain ones.

    Returns:
        The smaller network, in the same mode.

    Raises:
        ValueError: If a zero filter feeds a residual addition, is not silent, or is the last one of its layer; or if
            the model has no convolution.
        TypeError: If the model is no module.

    Source:
        Li et al. (2017), section 3 and figure 1 (a filter, its feature map, and the next layer's kernels).
    """
    check_convolutions("model", model)
    small = folded_copy(model)
    for link in channel_links(model):
        kept = (effective_weight(model.get_submodule(link.conv)) != 0).flatten(1).any(1)
        check_removable(model, link, kept)
        if kept.all():
            continue
        conv = small.get_submodule(link.conv)
        take(conv, "weight", kept)
        take(conv, "bias", kept)
        for norm in link.norms:
            for name in ("weight", "bias", "running_mean", "running_var"):
                take(small.get_submodule(norm), name, kept)
        for reader, positions in link.readers.items():
            take(small.get_submodule(reader), "weight", kept.repeat_interleave(positions), dim=1)
    match_sizes(small)
    return small
