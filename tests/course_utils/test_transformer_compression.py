"""Pruning and quantizing a language model: zeros stay, few values remain, bytes are those of the formula."""

from __future__ import annotations

import math

import pytest
import torch

from course_utils import runtime
from course_utils.accounting import total_sparsity
from course_utils.resnet import weighted_layers
from course_utils.text import ALPHABET, encode
from course_utils.transformer import TinyGPT
from course_utils.transformer.compression import (
    compression_table,
    counted_bytes,
    finetune,
    pruned_copy,
    quantized_copy,
)

TEXT = encode("the more one knows, the more one knows one does not know. " * 10)
FP32 = runtime.Runtime(torch.device("cpu"), "fp32", torch.get_num_threads())


@pytest.fixture
def model() -> TinyGPT:
    torch.manual_seed(0)
    return TinyGPT(len(ALPHABET), 16, 2, 1, 32, 128).eval()


def test_quantized_weights_take_few_values_and_keep_zeros(model):
    sparse, masks = pruned_copy(model, 0.6)
    small = quantized_copy(sparse, 3)
    for name, layer in weighted_layers(small):
        assert torch.equal(layer.weight != 0, masks[name] & (layer.weight != 0))
        for row in layer.weight.detach():
            assert len(row[row != 0].unique()) <= 2**3
    assert torch.equal(small.embedding.weight, model.embedding.weight)
    assert total_sparsity(model) == 0  # the model itself is left alone


def test_finetuning_keeps_the_zeros(model):
    sparse, masks = pruned_copy(model, 0.7)
    before = sparse.head.bias.detach().clone()
    finetune(sparse, masks, TEXT, 4, batch_size=4, context=32, progress=False, on=FP32)
    for name, layer in weighted_layers(sparse):
        assert (layer.weight[~masks[name]] == 0).all()
    assert not torch.equal(sparse.head.bias, before)


def test_bytes_are_those_of_the_formula(model):
    n_weights = 4 * 16 * 16 + 2 * 16 * 32 + 96 * 16
    rest = sum(parameter.numel() for parameter in model.parameters()) - n_weights
    channels = 4 * 16 + 32 + 16 + 96
    assert counted_bytes(model) == 4 * (n_weights + rest)
    assert counted_bytes(model, 4) == n_weights / 2 + 8 * channels + 4 * rest
    sparse, _ = pruned_copy(model, 0.5)
    assert counted_bytes(sparse) == 4 * n_weights / 2 + n_weights / 8 + 4 * rest


def test_the_table_has_a_row_for_every_model(model):
    judged, biases = [], []

    def judge(network, tokens):
        judged.append((total_sparsity(network), len(tokens)))
        biases.append(network.head.bias.detach().clone())  # neither pruned nor quantized: only finetuning moves it
        return math.log(2) * len(judged)

    rows = compression_table(model, TEXT.repeat(2), TEXT, (0.0, 0.5), (32, 4), 1, judge)
    assert [(row["sparsity"], row["n_bits"], row["finetuned"]) for row in rows] == [
        (0.0, 32, False), (0.0, 4, False), (0.0, 32, True), (0.0, 4, True), (0.5, 32, False), (0.5, 32, True), (0.5, 4, True),
    ]  # fmt: skip
    assert [row["bits_per_character"] for row in rows] == pytest.approx([1, 2, 3, 4, 5, 6, 7])
    assert all(sparsity >= row["sparsity"] - 1e-3 for (sparsity, _), row in zip(judged, rows, strict=True))
    moved = [not torch.equal(bias, model.head.bias) for bias in biases]
    assert moved == [row["finetuned"] for row in rows]
    assert rows[-1]["bytes"] < rows[1]["bytes"] < rows[0]["bytes"]
