"""What Lab 5 gives to its readers: a base class, argument checks, batch normalisation that can be fixed.

Nothing here is an exercise, and nothing here uses one: adapted layers are found by their base class `LoRALayer`, so
that everything works with the classes that a reader has written.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from course_utils.resnet import weighted_layers


class LoRALayer(nn.Module):
    """What `LoRALinear` and `LoRAConv2d` have in common: the names of their parts.

    Attributes:
        base: The frozen layer.
        lora_a: The factor A.
        lora_b: The factor B.
        scaling: alpha / rank.
        merged: Whether the adapter is in base.weight now.
    """

    base: nn.Module
    lora_a: nn.Parameter
    lora_b: nn.Parameter
    scaling: float
    merged: bool = False


def lora_layers(model: nn.Module) -> list[tuple[str, LoRALayer]]:
    """List the adapted layers of a model.

    Args:
        model: Any module.

    Returns:
        (name, layer) pairs in the order of `named_modules`.
    """
    return [(name, module) for name, module in model.named_modules() if isinstance(module, LoRALayer)]


def convolutions(model: nn.Module) -> list[str]:
    """List the names of all convolutions of a model, from the input to the output.

    Args:
        model: Any module.

    Returns:
        Names as in `named_modules`.
    """
    return [name for name, layer in weighted_layers(model) if isinstance(layer, nn.Conv2d)]


def base_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Collect the weights that lie below the adapters.

    Args:
        model: A network with adapted layers.

    Returns:
        Name of the adapted layer -> weight of its base, the tensor itself.
    """
    return {name: layer.base.weight for name, layer in lora_layers(model)}


def trained_names(model: nn.Module) -> list[str]:
    """List the names of the parameters that train.

    Args:
        model: Any module.

    Returns:
        Names as in `named_parameters`, of those with requires_grad.
    """
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def check_model(name: str, value: nn.Module) -> None:
    """Refuse anything but a torch module.

    Args:
        name: Name of the argument, for the message.
        value: What was given.

    Raises:
        TypeError: If it is no torch module.
    """
    if not isinstance(value, nn.Module):
        raise TypeError(f"{name} must be a torch module, got a {type(value).__name__}")


def check_linear(name: str, value: nn.Linear) -> None:
    """Refuse anything but a linear layer.

    Args:
        name: Name of the argument, for the message.
        value: What was given.

    Raises:
        TypeError: If it is no `nn.Linear`.
    """
    if not isinstance(value, nn.Linear):
        raise TypeError(f"{name} must be an nn.Linear, got a {type(value).__name__}")


def check_convolution(name: str, value: nn.Conv2d) -> None:
    """Refuse anything but a convolution with one group and zero padding.

    Args:
        name: Name of the argument, for the message.
        value: What was given.

    Raises:
        TypeError: If it is no `nn.Conv2d`.
        ValueError: If it has several groups, or pads with something other than zeros.
    """
    if not isinstance(value, nn.Conv2d):
        raise TypeError(f"{name} must be an nn.Conv2d, got a {type(value).__name__}")
    if value.groups != 1 or value.padding_mode != "zeros":
        raise ValueError(f"{name} must have 1 group and zero padding, got {value.groups} and {value.padding_mode!r}")


def check_layer_name(name: str, value: str, model: nn.Module) -> None:
    """Refuse a name that no module with parameters has.

    Args:
        name: Name of the argument, for the message.
        value: What was given.
        model: The model whose modules count.

    Raises:
        ValueError: If the model has no such module, or it holds no parameter.
    """
    holders = [key for key, module in model.named_modules() if key and any(True for _ in module.parameters())]
    if value not in holders:
        raise ValueError(f"{name} must be one of the modules {holders}, got {value!r}")


def check_targets(name: str, value: Sequence[str], model: nn.Module) -> None:
    """Refuse targets that cannot be adapted.

    Args:
        name: Name of the argument, for the message.
        value: What was given.
        model: The model whose layers count.

    Raises:
        TypeError: If it is a single string, or a target is neither linear nor a convolution.
        ValueError: If a target is no module of the model, or is named twice.
    """
    if isinstance(value, str):
        raise TypeError(f"{name} must be a sequence of names, got a string; for one layer write [{value!r}]")
    modules = dict(model.named_modules())
    layers = [key for key, module in modules.items() if isinstance(module, nn.Linear | nn.Conv2d)]
    unknown = [target for target in value if target not in modules]
    if unknown:
        raise ValueError(f"{name} must be names of layers {layers}, got {unknown}")
    if len(set(value)) < len(value):
        raise ValueError(f"{name} must name each layer once, got {list(value)}")
    wrong = {target: type(modules[target]).__name__ for target in value if target not in layers}
    if wrong:
        raise TypeError(f"{name} must be linear or convolution layers, got {wrong}")


class FixedBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that stays in evaluation mode: it uses its running statistics and never updates them."""

    def train(self, mode: bool = True) -> FixedBatchNorm2d:
        """Stay in evaluation mode, whatever the mode."""
        return super().train(False)


def fix_batch_norm(model: nn.Module) -> None:
    """Fix the running statistics of every batch normalisation and freeze its scale and shift, in place.

    Freezing parameters is not enough to keep a network as it is: in training mode every forward pass moves the running
    means and variances, which are buffers and need no gradient.

    Args:
        model: Any module.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = FixedBatchNorm2d
            module.eval().requires_grad_(False)


def release_batch_norm(model: nn.Module) -> None:
    """Let every batch normalisation train: statistics, scale and shift; the inverse of `fix_batch_norm`, in place.

    Args:
        model: Any module.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.__class__ = nn.BatchNorm2d
            module.train(model.training).requires_grad_(True)
