"""Adapting a whole network: what is frozen, where adapters go, what is trained, merged and saved.

A network that is adapted with LoRA consists of frozen weights, which all its tasks share, and of a few kilobytes for
each task. The functions here keep the two apart: `freeze_until` and `inject_lora` decide what trains,
`trainable_parameters` counts it, `lora_state_dict` takes it out, `merge` and `unmerge` move it into the weights and out
of them again.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from course_utils.lora.given import check_layer_name, check_model, check_targets, lora_layers
from course_utils.lora.layers import LoRAConv2d, LoRALinear
from course_utils.validate import check_count, check_positive


def freeze_until(model: nn.Module, layer: str) -> None:
    """Freeze every parameter that comes before a layer, and make that layer and all after it trainable, in place.

    Args:
        model: Any module whose layers are defined in the order in which they are used.
        layer: Name of a module as `model.named_modules()` has it, for example "fc", "stage3" or "stage3.1.conv2".
            Names are compared whole: "conv1" is neither "conv10" nor "stage1.0.conv1".

    Raises:
        ValueError: If no parameter belongs to a module of that name.
        TypeError: If the model is no module.
    """
    check_model("model", model)
    check_layer_name("layer", layer, model)
    reached = False
    for name, parameter in model.named_parameters():
        reached = reached or name.startswith(f"{layer}.")
        parameter.requires_grad_(reached)


def trainable_parameters(model: nn.Module) -> tuple[int, int]:
    """Count the entries of all parameters that train (requires_grad), and of all parameters.

    Args:
        model: Any module. Buffers, such as the running statistics of batch normalisation, are no parameters; a
            parameter that is used in two places counts once.

    Returns:
        (trained, all), two ints.

    Raises:
        TypeError: If the model is no module.
    """
    check_model("model", model)
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)


def inject_lora(model: nn.Module, targets: Sequence[str], rank: int, alpha: float) -> nn.Module:
    """Freeze the whole model, then replace each target W by W + (alpha / rank) B A, in place.

    Args:
        model: Any module.
        targets: Names of linear and convolution layers as `model.named_modules()` has them, each once.
        rank: r of every adapter, at least 1.
        alpha: Scale of every adapter, above 0.

    Returns:
        The same model. Of its parameters only the factors A and B train; it computes what it computed before.

    Raises:
        ValueError: If a target is no layer of the model, is named twice, or rank or alpha is out of range.
        TypeError: If a target is neither linear nor a convolution, or targets is a single string.

    Source:
        Hu et al. (2021), section 4.2 (which layers of a transformer are adapted).
    """
    check_model("model", model)
    check_targets("targets", targets, model)
    check_count("rank", rank, minimum=1)
    check_positive("alpha", alpha)
    model.requires_grad_(False)
    for name in targets:
        layer = model.get_submodule(name)
        adapted = LoRALinear if isinstance(layer, nn.Linear) else LoRAConv2d
        model.set_submodule(name, adapted(layer, rank, alpha))
    return model


def merge(model: nn.Module) -> None:
    """Add every adapter to the weight it adapts, W <- W + (alpha / r) B A, in place; the outputs stay the same.

    Args:
        model: Any module; its adapted layers are those of `lora_layers(model)`. A layer that is merged already is left
            alone, so that merging twice is merging once. The factors are kept.

    Raises:
        TypeError: If the model is no module.

    Source:
        Hu et al. (2021), section 4.1, "No additional inference latency".
    """
    check_model("model", model)
    for _, layer in lora_layers(model):
        if not layer.merged:
            with torch.no_grad():
                layer.base.weight += layer.delta_weight()
            layer.merged = True


def unmerge(model: nn.Module) -> None:
    """Take every merged adapter out of the weight again, W <- W - (alpha / r) B A, in place: the inverse of `merge`.

    Args:
        model: Any module; layers that are not merged are left alone. Weights return to their values up to rounding.

    Raises:
        TypeError: If the model is no module.

    Source:
        Hu et al. (2021), section 4.1: subtract B A to recover W_0, then add another B' A' for another task.
    """
    check_model("model", model)
    for _, layer in lora_layers(model):
        if layer.merged:
            with torch.no_grad():
                layer.base.weight -= layer.delta_weight()
            layer.merged = False


def lora_state_dict(model: nn.Module) -> dict[str, torch.Tensor]:
    """Collect the factors of all adapters and nothing else: what a task has to store.

    Args:
        model: Any module with adapted layers.

    Returns:
        Name -> tensor as in `model.state_dict()`, for example "stage1.0.conv1.lora_a": copies without gradient, on the
        CPU, which later training steps do not change.

    Raises:
        TypeError: If the model is no module.
    """
    check_model("model", model)
    factors = {}
    for name, layer in lora_layers(model):
        for part in ("lora_a", "lora_b"):
            factors[f"{name}.{part}" if name else part] = getattr(layer, part).detach().cpu().clone()
    return factors
