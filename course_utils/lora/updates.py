"""What finetuning added to the weights, and networks with other updates in its place."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from course_utils.lora.given import convolutions


def full_updates(before: nn.Module, after: nn.Module) -> dict[str, torch.Tensor]:
    """Subtract weights: what finetuning added to every convolution, W_after - W_before.

    Args:
        before: The pretrained network.
        after: The same network after full finetuning.

    Returns:
        Name of the convolution -> update, of the shape of its weight, on the CPU.
    """
    old, new = dict(before.named_modules()), dict(after.named_modules())
    return {
        name: new[name].weight.detach().cpu() - old[name].weight.detach().cpu() for name in convolutions(before)
    }


def with_updates(before: nn.Module, after: nn.Module, updates: Mapping[str, torch.Tensor]) -> nn.Module:
    """Build the finetuned network with other updates of its convolutions: W_before + update.

    Args:
        before: The pretrained network.
        after: The finetuned network; everything but the convolutions (batch norm, classifier) is taken from it.
        updates: Name of the convolution -> update.

    Returns:
        A new network.
    """
    network, old = copy.deepcopy(after), dict(before.named_modules())
    modules = dict(network.named_modules())
    with torch.no_grad():
        for name, update in updates.items():
            modules[name].weight.copy_(old[name].weight.cpu() + update.cpu())
    return network


def relative_errors(
    updates: Mapping[str, torch.Tensor],
    approximate: Callable[[torch.Tensor, int], torch.Tensor],
    ranks: Sequence[int],
) -> dict[str, list[float]]:
    """Compute ||update - approximation|| / ||update|| of every layer for every rank.

    Args:
        updates: Name of a layer -> update.
        approximate: Function of an update and a rank, like `lora.best_low_rank`.
        ranks: The ranks.

    Returns:
        Name of the layer -> one relative error (Frobenius norm) a rank.
    """
    return {
        name: [float((update - approximate(update, rank)).norm() / update.norm()) for rank in ranks]
        for name, update in updates.items()
    }


def with_rounded_convolutions(network: nn.Module, round_weight: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    """Copy a network and round the weights of its convolutions; adapters and everything else stay as they are.

    Args:
        network: Any network, adapted or not.
        round_weight: Function of a weight that returns the rounded weight, of the same shape.

    Returns:
        The copy.
    """
    copied = copy.deepcopy(network)
    with torch.no_grad():
        for name in convolutions(copied):
            weight = copied.get_submodule(name).weight
            weight.copy_(round_weight(weight))
    return copied
