"""What Lab 2 gives to its readers: argument checks, setting weights to zero, an optimiser to build on, tiny networks.

Nothing here is an exercise. A *mask* is a boolean tensor of the shape of a weight, True where the weight is kept;
*masks* is a dict from layer name to mask. Names are those of `course_utils.resnet.weighted_layers`: all convolution and
linear layers, from input to output. Biases and batch normalisation have no mask and are never pruned.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import nn

from course_utils.resnet import check_weights_are_parameters, weighted_layers

Masks = dict[str, torch.Tensor]


def check_weight(name: str, value: torch.Tensor) -> None:
    """Refuse anything but a non-empty floating-point tensor with finite entries.

    Args:
        name: Name of the argument, for the message.
        value: What was given.

    Raises:
        TypeError: If it is no floating-point torch tensor.
        ValueError: If it is empty or holds NaN or infinity. Whether it does is not asked inside torch.compile: the
            answer, a Python number, would cut the network into one small graph for each layer (2.5 times slower).
    """
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        kind = f"a tensor of dtype {value.dtype}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
        raise TypeError(f"{name} must be a tensor of floating-point numbers, got {kind}")
    if value.numel() == 0:
        raise ValueError(f"{name} must have at least one entry, got shape {tuple(value.shape)}")
    n_bad = 0 if torch.compiler.is_compiling() else int((~torch.isfinite(value)).sum())
    if n_bad:
        raise ValueError(f"{name} must hold finite numbers only, got {n_bad} entries that are NaN or infinite")


def check_prunable(name: str, model: nn.Module) -> None:
    """Refuse a model without a convolution or linear layer.

    Args:
        name: Name of the argument, for the message.
        model: What was given.

    Raises:
        TypeError: If it is no torch module.
        ValueError: If there is nothing in it to prune, or a layer's weight is computed from something else at each
            forward pass, as `torch.nn.utils.prune` leaves it: what is set to zero in it would come back.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name} must be a torch module, got a {type(model).__name__}")
    if not weighted_layers(model):
        raise ValueError(f"{name} must have a convolution or linear layer, got a {type(model).__name__} without any")
    check_weights_are_parameters(model)


def apply_masks(model: nn.Module, masks: Masks) -> None:
    """Set every weight whose mask entry is False to exactly 0.0, in place: w <- m * w, also where w is not finite.

    Args:
        model: The model; layers without a mask are left alone.
        masks: Layer name -> boolean tensor of the shape of that layer's weight, True where the weight is kept.

    Raises:
        ValueError: If a name is no layer of the model, or a mask's shape is not that of the weight.
    """
    layers = dict(weighted_layers(model))
    unknown = sorted(masks.keys() - layers.keys())
    if unknown:
        raise ValueError(f"masks must be named like the model's layers {sorted(layers)}, got {unknown}")
    for name, mask in masks.items():
        weight = layers[name].weight
        if mask.shape != weight.shape:
            raise ValueError(f"masks[{name!r}] must have shape {tuple(weight.shape)}, got {tuple(mask.shape)}")
        with torch.no_grad():
            weight.masked_fill_(~mask.to(weight.device, torch.bool), 0.0)


def masks_of(model: nn.Module) -> Masks:
    """Read off which weights of a model are not zero.

    Args:
        model: Any module.

    Returns:
        Layer name -> boolean tensor, True where the weight is not zero.
    """
    return {name: layer.weight.detach() != 0 for name, layer in weighted_layers(model)}


class WrappedOptimizer:
    """An optimiser inside another object, which passes on everything that a training loop asks for.

    Subclasses change `step` and leave the rest: learning rates are read and written through `param_groups`, as ever.

    Args:
        optimizer: The optimiser that does the work, for example `torch.optim.SGD`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.optimizer = optimizer

    @property
    def param_groups(self) -> list[dict]:
        """The wrapped optimiser's groups of parameters with their learning rates."""
        return self.optimizer.param_groups

    @property
    def state(self) -> dict:
        """The wrapped optimiser's state, for example its momentum."""
        return self.optimizer.state

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        """Take one step of the wrapped optimiser."""
        self.optimizer.step()

    def state_dict(self) -> dict:
        """Return the wrapped optimiser's state for a resume file."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Restore the wrapped optimiser's state from a resume file."""
        self.optimizer.load_state_dict(state)


def toy_network(seed: int) -> nn.Module:
    """Build a network with 224 prunable weights and random parameters everywhere, for checks that take milliseconds.

    Args:
        seed: Seed of its own generator; the same seed gives the same network.

    Returns:
        conv1 (3, 2, 3, 3), a batch norm, conv2 (5, 3, 3, 3), mean over positions, fc (7, 5); all in float64, with
        non-zero biases, so that a bias or a batch-norm scale that gets pruned is noticed.
    """
    layers = OrderedDict(
        conv1=nn.Conv2d(2, 3, 3), bn1=nn.BatchNorm2d(3), conv2=nn.Conv2d(3, 5, 3), relu=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(5, 7),
    )  # fmt: skip
    model = nn.Sequential(layers).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.2 * (1 + number % 3) * values)  # layers of different scales, as in a trained network
    return model


def parameters_after(prune: Callable[[nn.Module, float], object], model: nn.Module, sparsity: float) -> Masks:
    """Prune a model in place and return all its parameters, weights, biases and batch norm, by name.

    Args:
        prune: Function of model and sparsity that sets weights to zero in place.
        model: The model.
        sparsity: Passed on to prune.

    Returns:
        Parameter name -> tensor.
    """
    prune(model, sparsity)
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def toy_steps(optimizer: torch.optim.Optimizer | WrappedOptimizer, model: nn.Module, n_steps: int, seed: int) -> None:
    """Take optimiser steps on random inputs and a made-up loss, in place.

    Args:
        optimizer: Anything with zero_grad and step.
        model: A `toy_network`.
        n_steps: Number of steps.
        seed: Seed of the inputs.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n_steps):
        inputs = torch.randn(8, 2, 7, 7, generator=generator, dtype=torch.float64)
        targets = torch.randn(8, 7, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        (model(inputs) - targets).square().mean().backward()
        optimizer.step()
