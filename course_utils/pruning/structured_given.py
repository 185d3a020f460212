"""What Lab 4 gives to its readers: masks on layers, cutting tensors, argument checks, tiny networks.

Nothing here is an exercise. Masks of *weights* have the weight's shape, masks of *filters* have one entry a filter,
(C_out,); both are boolean and True where something is kept.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping

import torch
from torch import nn

from course_utils.pruning.channels import FilterMasks, Link, prunable_convolutions
from course_utils.pruning.given import check_weight
from course_utils.resnet import ResNet
from course_utils.validate import check_count


def check_filters(name: str, value: torch.Tensor) -> None:
    """Refuse anything but the weight of a layer: floating point, finite, not empty, at least two dimensions.

    Args:
        name: Name of the argument, for the message.
        value: What was given.

    Raises:
        TypeError: If it is no floating-point torch tensor.
        ValueError: If it is empty, not finite, or has fewer than two dimensions.
    """
    check_weight(name, value)
    if value.ndim < 2:
        raise ValueError(f"{name} must have at least two dimensions (C_out, C_in, ...), got shape {tuple(value.shape)}")


def check_groups(weight: torch.Tensor, n: int, m: int) -> None:
    """Refuse n and m that do not fit the weight's input channels.

    Args:
        weight: (C_out, C_in, ...).
        n: How many of each group are kept.
        m: Size of a group.

    Raises:
        TypeError: If n or m is no int.
        ValueError: If not 1 <= n <= m, or C_in is no multiple of m.
    """
    check_count("m", m, minimum=1)
    check_count("n", n, minimum=1, maximum=m)
    if weight.shape[1] % m:
        raise ValueError(f"weight must have a multiple of m = {m} input channels, got {weight.shape[1]}")


def check_convolutions(name: str, model: nn.Module) -> None:
    """Refuse a model without a convolution.

    Args:
        name: Name of the argument, for the message.
        model: What was given.

    Raises:
        TypeError: If it is no torch module.
        ValueError: If there is no convolution in it.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name} must be a torch module, got a {type(model).__name__}")
    if not convolutions(model):
        raise ValueError(f"{name} must have a convolution, got a {type(model).__name__} without any")


def convolutions(model: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    """List the convolutions of a model with their names, from the input to the output."""
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d)]


def effective_weight(layer: nn.Module) -> torch.Tensor:
    """Return the weight that a layer computes with, detached: m * w where it has a mask, else w."""
    weight = layer.weight.detach()
    return weight * layer.mask if hasattr(layer, "mask") else weight


@torch.no_grad()
def set_masks(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Set every weight outside its mask to 0.0, and write the mask into the layer where it has a buffer for one.

    Args:
        model: The model; layers without a mask are left alone.
        masks: Layer name -> boolean tensor of the shape of that layer's weight, True where the weight is kept.

    Raises:
        ValueError: If a name is no convolution of the model, or a mask's shape is not that of the weight.
    """
    layers = dict(convolutions(model))
    for name, mask in masks.items():
        if name not in layers or mask.shape != layers[name].weight.shape:
            raise ValueError(f"masks must have the names and shapes of the convolutions {sorted(layers)}, got {name!r}")
        layers[name].weight.masked_fill_(~mask.to(layers[name].weight.device, torch.bool), 0.0)
        if hasattr(layers[name], "mask"):
            layers[name].mask.copy_(mask)


def folded_copy(model: nn.Module) -> nn.Module:
    """Copy a model with every masked convolution replaced by a plain nn.Conv2d that holds m * w.

    Args:
        model: Any module; it is not changed.

    Returns:
        The copy, in the same mode, on the same device, which computes the same outputs.
    """
    model = copy.deepcopy(model)
    for name, layer in convolutions(model):
        if not hasattr(layer, "mask"):
            continue
        plain = nn.Conv2d(
            layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
            layer.groups, layer.bias is not None, layer.padding_mode, layer.weight.device, layer.weight.dtype,
        )  # fmt: skip
        plain.weight.data, plain.training = effective_weight(layer), layer.training
        plain.bias = layer.bias
        model.set_submodule(name, plain)
    return model


def check_removable(model: nn.Module, link: Link, kept: torch.Tensor) -> None:
    """Refuse to remove filters that are needed: the last ones of a layer, those behind an obstacle, those not silent.

    Args:
        model: The model.
        link: Where the convolution's channels go.
        kept: (C_out,) boolean, True where the filter stays.

    Raises:
        ValueError: If not all filters stay and one of those that go cannot; the message says which, and why.
    """
    gone = [int(index) for index in (~kept).nonzero()]
    if gone and link.obstacle:
        raise ValueError(f"filters {gone} of {link.conv} are zero but cannot be removed: {link.obstacle}")
    if not kept.any():
        raise ValueError(f"{link.conv} has no filter left; keep at least one")
    last = [model.get_submodule(name) for name in link.norms] or [model.get_submodule(link.conv)]
    constants = [layer.bias for layer in last] + [layer.weight for layer in last if link.norms]
    loud = [index for index in gone if any(tensor is not None and tensor[index] != 0 for tensor in constants)]
    if loud:
        raise ValueError(
            f"filters {loud} of {link.conv} have zero weights but still write a constant, from a bias or a batch norm "
            "that is not zero; silence_filters sets those to zero"
        )


def take(layer: nn.Module, name: str, kept: torch.Tensor, dim: int = 0) -> None:
    """Replace a parameter or buffer of a layer by its slices where kept is True, in place; None stays None.

    Args:
        layer: The layer.
        name: For example `"weight"`, `"bias"` or `"running_mean"`.
        kept: Boolean, one entry for each slice along dim.
        dim: The dimension that is cut.
    """
    tensor = getattr(layer, name)
    if tensor is None:
        return
    part = tensor.detach()[(slice(None),) * dim + (kept.to(tensor.device),)].clone()
    setattr(layer, name, nn.Parameter(part) if isinstance(tensor, nn.Parameter) else part)


def match_sizes(model: nn.Module) -> None:
    """Let every layer's size attributes (in_channels, out_features, ...) say what its tensors are, in place."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.out_channels, layer.in_channels = layer.weight.shape[0], layer.weight.shape[1] * layer.groups
        elif isinstance(layer, nn.Linear):
            layer.out_features, layer.in_features = layer.weight.shape
        elif isinstance(layer, nn.BatchNorm2d):
            layer.num_features = len(layer.weight) if layer.affine else layer.num_features


def remaining_filters(model: nn.Module) -> dict[str, int]:
    """Count the filters of every convolution that have a weight other than zero."""
    return {name: int((effective_weight(conv) != 0).flatten(1).any(1).sum()) for name, conv in convolutions(model)}


def _randomise(model: nn.Module, seed: int) -> nn.Module:
    """Draw all parameters and batch-norm statistics at random, in float64, so that nothing is 0 or 1 by accident."""
    generator = torch.Generator().manual_seed(seed)
    model = model.double()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point() and not name.endswith("mask"):
                values = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
                tensor.copy_(0.5 + values.abs() if name.endswith("running_var") else 0.3 * values)
    return model.eval()


def toy_chain(seed: int, conv: type[nn.Conv2d] = nn.Conv2d) -> nn.Module:
    """Build a chain with everything that a removed filter concerns: biases, a batch norm, pooling, flattened positions.

    Args:
        seed: Seed of its own generator.
        conv: Class of the convolutions.

    Returns:
        conv1 (6, 4, 3, 3) with batch norm and pool, conv2 (8, 6, 3, 3) with a bias and no batch norm, and a classifier
        (5, 8 * 9) that reads 3 x 3 positions of each channel; for images (4, 6, 6); float64, evaluation mode.
    """
    layers = OrderedDict(
        conv1=conv(4, 6, 3, padding=1, bias=True), bn1=nn.BatchNorm2d(6), relu1=nn.ReLU(), pool=nn.MaxPool2d(2),
        conv2=conv(6, 8, 3, padding=1, bias=True), relu2=nn.ReLU(), flatten=nn.Flatten(), fc=nn.Linear(72, 5),
    )  # fmt: skip
    return _randomise(nn.Sequential(layers), seed)


def toy_emptied(seed: int) -> nn.Module:
    """Build a `toy_chain` whose first convolution has a mask without filters 0 and 2; the weights behind it stay."""
    toy = toy_chain(seed)
    mask = torch.ones_like(toy.conv1.weight.detach())
    mask[[0, 2]] = 0
    toy.conv1.register_buffer("mask", mask)
    return toy


def keeps_parameters(prune: Callable[[nn.Module, float], object], model: nn.Module) -> bool:
    """Say whether a model has the same parameter objects after pruning: an optimiser knows these and no others.

    Args:
        prune: Function of a model and a fraction that works in place.
        model: The model; half of it is pruned.

    Returns:
        True if no parameter was replaced by another one.
    """
    before = list(model.parameters())
    prune(model, 0.5)
    return all(new is old for new, old in zip(model.parameters(), before, strict=True))


def toy_residual(seed: int) -> ResNet:
    """Build a residual network with 8 weighted layers and 4, 8 and 16 channels, random everywhere, for 1 x 8 x 8."""
    return _randomise(ResNet(n_blocks=1, in_channels=1, num_classes=4, width=4), seed)


def toy_lengths() -> nn.Module:
    """Build a chain of two 1 x 1 convolutions whose five filters have the L2 norms 5, 13, 0, 1 and 2, in float64."""
    layers = [nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(2, 2)]
    toy = nn.Sequential(*layers).double()
    toy[0].weight.data = torch.tensor([[3.0, 4.0], [-5.0, 12.0], [0.0, 0.0]], dtype=torch.float64)[:, :, None, None]
    toy[2].weight.data = torch.tensor([[0.0, -1.0, 0.0], [0.0, 0.0, 2.0]], dtype=torch.float64)[:, :, None, None]
    return toy


def toy_images(seed: int, n_channels: int, size: int, n_images: int = 3) -> torch.Tensor:
    """Draw images (n_images, n_channels, size, size), standard normal, float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n_images, n_channels, size, size, generator=generator, dtype=torch.float64)


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copy all parameters and floating-point buffers of a model, by name."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


def small_masks(model: nn.Module, seed: int) -> FilterMasks:
    """Draw masks that keep about half of each prunable convolution's filters, at least one."""
    generator = torch.Generator().manual_seed(seed)
    masks = {}
    for name, conv in prunable_convolutions(model):
        masks[name] = torch.rand(conv.out_channels, generator=generator) < 0.5
        masks[name][int(torch.randint(conv.out_channels, (1,), generator=generator))] = True
    return masks
