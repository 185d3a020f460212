"""Tiny layers, networks and inputs with seeded float64 numbers, for Lab 5's checks, which take milliseconds.

Nothing here uses an exercise: adapted layers are whatever a reader's functions make.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch
from torch import nn

from course_utils.lora.given import lora_layers


def normal(seed: int, *shape: int) -> torch.Tensor:
    """Draw standard normal numbers.

    Args:
        seed: Seed of its own generator.
        *shape: Shape of the result.

    Returns:
        Float64.
    """
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def toy_linear(seed: int, n_in: int = 5, n_out: int = 3) -> nn.Linear:
    """Build a linear layer with random weights and bias.

    Args:
        seed: Seed of its own generator.
        n_in: Inputs.
        n_out: Outputs.

    Returns:
        The layer, float64.
    """
    return randomised(nn.Linear(n_in, n_out), seed)


def toy_convolution(seed: int, n_in: int = 2, n_out: int = 4, kernel: int | tuple = 3, **settings) -> nn.Conv2d:
    """Build a convolution with random weights.

    Args:
        seed: Seed of its own generator.
        n_in: Input channels.
        n_out: Output channels.
        kernel: Size of the kernel.
        **settings: stride, padding, dilation, groups, bias.

    Returns:
        The layer, float64.
    """
    return randomised(nn.Conv2d(n_in, n_out, kernel, **settings), seed)


def toy_network(seed: int) -> nn.Module:
    """Build a network with three convolutions and two linear layers, all random, for checks that take milliseconds.

    Args:
        seed: Seed of its own generator; the same seed gives the same network.

    Returns:
        conv1 (4, 2, 3, 3), a batch norm, conv20 (6, 4, 3, 3) with stride 2, conv2 (6, 6, 1, 1), mean over positions,
        a head with fc1 (8, 6) and fc2 (5, 8); 443 parameters; for images (N, 2, 9, 9); float64, evaluation mode.
    """
    layers = OrderedDict(
        conv1=nn.Conv2d(2, 4, 3, padding=1), bn1=nn.BatchNorm2d(4), relu1=nn.ReLU(),
        conv20=nn.Conv2d(4, 6, 3, stride=2, bias=False), conv2=nn.Conv2d(6, 6, 1), relu2=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(),
        head=nn.Sequential(OrderedDict(fc1=nn.Linear(6, 8), relu=nn.ReLU(), fc2=nn.Linear(8, 5))),
    )  # fmt: skip
    return randomised(nn.Sequential(layers), seed)


def randomised(module: nn.Module, seed: int) -> nn.Module:
    """Turn a module to float64 and evaluation mode and fill all its parameters with seeded random numbers, in place.

    Args:
        module: Any module.
        seed: Seed of its own generator.

    Returns:
        The same module.
    """
    generator = torch.Generator().manual_seed(seed)
    module.double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def toy_images(seed: int, n: int = 6) -> torch.Tensor:
    """Draw images for `toy_network`.

    Args:
        seed: Seed of its own generator.
        n: How many.

    Returns:
        (n, 2, 9, 9), float64.
    """
    return normal(seed, n, 2, 9, 9)


def random_factor(seed: int, *shape: int) -> torch.Tensor:
    """Draw a factor for checks.

    Args:
        seed: Seed of its own generator.
        *shape: Its shape.

    Returns:
        Float64, normal with mean 0 and standard deviation 1/2.
    """
    return 0.5 * normal(seed, *shape)


def fill_factors(model: nn.Module, seed: int) -> nn.Module:
    """Fill the factors of every adapted layer with seeded numbers, B included, in place.

    Args:
        model: A network with adapted layers, or one adapted layer.
        seed: Of the layer number i = 0, 1, ... A is `random_factor(seed + 2 i, ...)` and B has the next seed.

    Returns:
        The same model.
    """
    with torch.no_grad():
        for number, (_, layer) in enumerate(lora_layers(model)):
            for part, factor in enumerate((layer.lora_a, layer.lora_b)):
                factor.copy_(random_factor(seed + 2 * number + part, *factor.shape))
    return model


def toy_steps(model: nn.Module, n_steps: int, seed: int, lr: float = 0.05) -> nn.Module:
    """Take gradient steps with momentum and weight decay on whatever trains, on random images and a made-up loss.

    Args:
        model: A `toy_network`, adapted or not.
        n_steps: Number of steps.
        seed: Seed of images and targets.
        lr: Learning rate.

    Returns:
        The same model, changed in place.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=1e-3)
    for step in range(n_steps):
        targets = torch.randn(6, 5, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        (model(toy_images(1000 * seed + step)) - targets).square().mean().backward()
        optimizer.step()
    return model


def toy_updates(seed: int, targets: Sequence[str], rank: int) -> dict[str, torch.Tensor]:
    """Compute B A of layers of a `toy_network`, for the factors that `fill_factors(..., seed)` sets.

    Args:
        seed: Seed of the factors.
        targets: Names of the adapted layers, in their order.
        rank: Rank of the adapters.

    Returns:
        Name -> B A, of the shape of the layer's weight.
    """
    products, toy = {}, toy_network(0)
    for number, name in enumerate(targets):
        shape = toy.get_submodule(name).weight.shape
        a, b = random_factor(seed + 2 * number, rank, *shape[1:]), random_factor(seed + 2 * number + 1, shape[0], rank)
        products[name] = (b @ a.flatten(1)).view(shape)
    return products


def after_calls(model: nn.Module, *functions: Callable[[nn.Module], object]) -> nn.Module:
    """Call functions with a model, one after the other, and return the model.

    Args:
        model: Any module.
        *functions: Functions of a module that work in place.

    Returns:
        The same model.
    """
    for function in functions:
        function(model)
    return model
