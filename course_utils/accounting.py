"""What a network costs: parameters, zeros, multiplications, bytes and time.

A compression method promises less of something; this module and the two that it draws on measure each promise by
itself, because they do not follow from one another. A network with 80 % of its weights at zero has as many parameters
in memory as before, does as many multiplications in a dense kernel, and is smaller on disk only in a format that leaves
the zeros out:

* here: how many parameters, how many are zero, how many multiply-accumulates an image takes;
* `course_utils.packing`: how many bytes a file really has, dense or packed;
* `course_utils.latency`: how many milliseconds a call really takes.

The names of all three can be imported from here.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from course_utils.latency import Latency, measure_latency
from course_utils.packing import load_packed, save_dense, save_packed, size_on_disk
from course_utils.resnet import weighted_layers

__all__ = [
    "Latency", "count_macs", "count_macs_by_layer", "layer_sparsity", "load_packed", "measure_latency", "n_parameters",
    "save_dense", "save_packed", "size_on_disk", "total_sparsity",
]  # fmt: skip


def n_parameters(model: nn.Module) -> int:
    """Count the entries of all parameters: weights, biases and batch-norm scales, whether or not they are zero.

    Args:
        model: Any module. Batch-norm running statistics are buffers, not parameters.

    Returns:
        The number; 269 722 for ResNet-20 with 3 input channels and 10 classes.
    """
    return sum(parameter.numel() for parameter in model.parameters())


def layer_sparsity(model: nn.Module) -> dict[str, float]:
    """Compute, layer by layer, (number of weights equal to 0) / (number of weights).

    Args:
        model: Any module; its convolution and linear layers count, without their biases.

    Returns:
        Name of the layer -> sparsity in [0, 1], in published order.
    """
    return {name: _n_zeros(layer) / layer.weight.numel() for name, layer in weighted_layers(model)}


def total_sparsity(model: nn.Module) -> float:
    """Compute (weights equal to 0) / (weights) over all convolution and linear layers together, without biases.

    Args:
        model: A module with at least one such layer.

    Returns:
        Sparsity in [0, 1].

    Raises:
        ValueError: If the model has no convolution or linear layer.
    """
    layers = [layer for _, layer in weighted_layers(model)]
    if not layers:
        raise ValueError(f"model must have a convolution or linear layer, got a {type(model).__name__} without any")
    return sum(map(_n_zeros, layers)) / sum(layer.weight.numel() for layer in layers)


def _n_zeros(layer: nn.Module) -> int:
    return int((layer.weight == 0).sum())


def count_macs(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Count the multiply-accumulates of a forward pass: floating-point operations / 2.

    A product of an (m, k) and a (k, n) matrix takes m k n multiplications and as many additions. torch's counter adds
    them up as 2 m k n operations; one multiply-accumulate (MAC) is one of each, so MACs = operations / 2. Convolutions
    count as the matrix products they are, padding included; additions, ReLU and batch normalisation do not count.
    Zeros in the weights make no difference: a dense kernel multiplies by them too.

    Args:
        model: Any module; it is run once in evaluation mode and left in its own.
        input_shape: Shape of one image (C, H, W).

    Returns:
        MACs for one image; 40 551 040 for ResNet-20 on 3 x 32 x 32.

    Raises:
        ValueError: If input_shape has not three positive entries.
    """
    return sum(count_macs_by_layer(model, input_shape).values())


def count_macs_by_layer(model: nn.Module, input_shape: tuple[int, ...]) -> dict[str, int]:
    """Count each weighted layer's multiply-accumulates in a forward pass of one image (see `count_macs`).

    Args:
        model: Any module; it is run once in evaluation mode and left in its own.
        input_shape: Shape of one image (C, H, W).

    Returns:
        Name of the layer -> MACs, in published order. Products outside these layers are reported under `"other"`.

    Raises:
        ValueError: If input_shape has not three positive entries.
    """
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise ValueError(f"input_shape must be (channels, height, width), all at least 1, got {tuple(input_shape)}")
    counter = FlopCounterMode(display=False)
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    with torch.no_grad(), counter:
        model(torch.zeros(1, *input_shape, device=device))
    model.train(was_training)
    flops, root = counter.get_flop_counts(), type(model).__name__
    macs = {}
    for name, _ in weighted_layers(model):
        key = f"{root}.{name}" if name else root
        macs[name] = sum(flops.get(key, {}).values()) // 2
    other = counter.get_total_flops() // 2 - sum(macs.values())
    return macs | ({"other": other} if other else {})
