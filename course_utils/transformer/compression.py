"""Lab 2's pruning and Lab 3's quantizer on a language model: what they cost in bits a character, and what they save.

Bytes are **counted, not written**: for each weight matrix n_bits a weight, or n_bits a weight that is not zero and one
bit a weight for a bitmap, whichever is less; 8 bytes an output channel for its scale and shift (if quantized);
everything else (embeddings, biases, norms) as float32. Labs 2 and 3 write real files.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import nn

from course_utils import pruning
from course_utils.pruning.given import apply_masks
from course_utils.quantization import linear_quantize
from course_utils.resnet import weighted_layers
from course_utils.transformer.language import fit_language_model, nats_per_character


def quantized_copy(model: nn.Module, n_bits: int) -> nn.Module:
    """Return a copy whose weight matrices take 2^n_bits values in each output channel; zeros stay exactly zero.

    Args:
        model: The model; it is not changed.
        n_bits: Bits a weight.

    Returns:
        The copy. Embeddings, biases and norms are those of the model.
    """
    small = copy.deepcopy(model)
    with torch.no_grad():
        for _, layer in weighted_layers(small):
            layer.weight.copy_(linear_quantize(layer.weight, n_bits, per_channel=True, keep_zeros=True))
    return small


def pruned_copy(model: nn.Module, sparsity: float) -> tuple[nn.Module, pruning.magnitude.Masks]:
    """Return a copy with one magnitude threshold for all weight matrices, and its masks.

    Args:
        model: The model; it is not changed.
        sparsity: Fraction of the weights to set to zero.

    Returns:
        The copy, and layer name -> mask.
    """
    small = copy.deepcopy(model)
    return small, pruning.global_prune_by_percentage(small, sparsity)


def finetune(model: nn.Module, masks: pruning.magnitude.Masks, tokens: torch.Tensor, steps: int, **options) -> None:
    """Train a pruned language model in place; its zeros stay exactly zero.

    Args:
        model: The pruned model.
        masks: Layer name -> mask, True where the weight is kept.
        tokens: The training text.
        steps: Optimiser steps.
        **options: Passed on to `fit_language_model`.
    """
    settings = {"lr": 3e-3, "batch_size": 16, "schedule": "cosine", "label": "finetuning"} | options
    fit_language_model(model, tokens, steps=steps, after_step=lambda network: apply_masks(network, masks), **settings)


def counted_bytes(model: nn.Module, n_bits: int = 32) -> int:
    """Count the bytes of a compressed model by the rules in this module's text.

    Args:
        model: The model.
        n_bits: Bits a weight; 32 for floating point.

    Returns:
        The number of bytes, rounded up.
    """
    layers = weighted_layers(model)
    n_weights = sum(layer.weight.numel() for _, layer in layers)
    rest = sum(parameter.numel() for parameter in model.parameters()) - n_weights
    total = 4.0 * rest
    for _, layer in layers:
        kept, size = int((layer.weight != 0).sum()), layer.weight.numel()
        total += min(size * n_bits, kept * n_bits + size) / 8
        total += 8 * len(layer.weight) if n_bits < 32 else 0
    return math.ceil(total)


def compression_table(
    model: nn.Module,
    train: torch.Tensor,
    held_out: torch.Tensor,
    sparsities: tuple[float, ...],
    bits: tuple[int, ...],
    steps: int,
    judge: Callable[[nn.Module, torch.Tensor], float] = nats_per_character,
) -> list[dict]:
    """Prune, finetune and quantize copies of a language model and judge every one.

    Args:
        model: The trained model; it is not changed.
        train: Training text for finetuning.
        held_out: Text to judge on.
        sparsities: Fractions of zeros. 0 is the dense model; its last rows are the control, finetuned alike.
        bits: Bits a weight; 32 leaves the weights as they are.
        steps: Steps of finetuning for each pruned model.
        judge: Function of model and text that returns nats a character.

    Returns:
        One row a model: `sparsity`, `n_bits`, `finetuned`, `bits_per_character`, `bytes`.
    """
    rows = []

    def add(network: nn.Module, sparsity: float, finetuned: bool, n_bits: int) -> None:
        small = network if n_bits == 32 else quantized_copy(network, n_bits)
        nats = judge(small, held_out)
        rows.append(
            {
                "sparsity": sparsity,
                "n_bits": n_bits,
                "finetuned": finetuned,
                "bits_per_character": nats / math.log(2),
                "bytes": counted_bytes(small, n_bits),
            }
        )

    for sparsity in sparsities:
        small, masks = pruned_copy(model, sparsity)
        if sparsity:
            add(small, sparsity, False, 32)
            finetune(small, masks, train, steps)
        for n_bits in bits:
            add(small, sparsity, sparsity > 0, n_bits)
        if not sparsity:  # the control: what the same finetuning does to a model that does not need it
            finetune(small, masks, train, steps)
            for n_bits in bits:
                add(small, 0.0, True, n_bits)
    return rows
