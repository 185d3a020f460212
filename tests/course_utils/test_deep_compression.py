"""Codebooks against scikit-learn, Huffman codes against bitarray, and files that give back what was written."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from bitarray import bitarray
from bitarray.util import huffman_code as bitarray_huffman
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from course_utils.data_files import DamagedData, MissingData
from course_utils.pruning import global_prune_by_percentage
from course_utils.quantization import huffman_code, share_weights
from course_utils.quantization.codec import (
    canonical_code,
    entropy_bits,
    fixed_length_code,
    read_compressed,
    restore,
    share_network,
    stage_sizes,
    write_compressed,
)
from course_utils.resnet import resnet20, weighted_layers
from tests.course_utils.tiny import cut_short, tiny_model

counters = st.dictionaries(st.integers(0, 10_000), st.integers(1, 10**6), min_size=1, max_size=60)


@pytest.mark.parametrize("n_codes", [1, 2, 5, 16])
def test_codebooks_agree_with_scikit_learn(n_codes):
    values = np.random.default_rng(n_codes).uniform(size=400)  # no entry loses all its values: scikit-learn would move it
    start = np.linspace(values.min(), values.max(), n_codes)[:, None]
    oracle = KMeans(n_codes, init=start, n_init=1, max_iter=1000, tol=0, algorithm="lloyd").fit(values[:, None])
    codebook, codes = share_weights(values, n_codes, n_iterations=1000)
    np.testing.assert_allclose(codebook, oracle.cluster_centers_[:, 0], atol=1e-9)
    assert (codes == oracle.labels_).all()


def test_more_iterations_never_raise_the_error():
    values = np.random.default_rng(1).normal(size=300)
    errors = []
    for n_iterations in range(8):
        codebook, codes = share_weights(values, 6, n_iterations)
        errors.append(np.square(codebook[codes] - values).sum())
    assert all(later <= earlier + 1e-12 for earlier, later in zip(errors, errors[1:], strict=False))
    assert errors[-1] < 0.9 * errors[0]


@settings(max_examples=100, deadline=None)
@given(counts=counters)
def test_huffman_codes_are_as_short_as_bitarrays_and_can_be_decoded(counts):
    words = huffman_code(counts)
    oracle = bitarray_huffman(counts)
    assert sum(counts[s] * len(words[s]) for s in counts) == sum(counts[s] * len(oracle[s]) for s in counts)
    text = list(counts)[::-1] * 2
    bits = bitarray()
    bits.encode({symbol: bitarray(word) for symbol, word in words.items()}, text)
    assert list(bits.decode({symbol: bitarray(word) for symbol, word in words.items()})) == text


@settings(max_examples=60, deadline=None)
@given(counts=counters)
def test_average_length_is_within_one_bit_of_the_entropy(counts):
    total = sum(counts.values())
    p = np.array(list(counts.values())) / total
    entropy = float(-(p * np.log2(p)).sum())
    words = huffman_code(counts)
    average = sum(counts[s] * len(words[s]) for s in counts) / total
    assert entropy - 1e-9 <= average
    assert average <= entropy + 1 or len(counts) == 1


@settings(max_examples=60, deadline=None)
@given(counts=counters)
def test_canonical_words_have_the_given_lengths_and_are_a_prefix_code(counts):
    for code in (huffman_code, fixed_length_code):
        lengths = {symbol: len(word) for symbol, word in code(counts).items()}
        words = {symbol: word.to01() for symbol, word in canonical_code(lengths).items()}
        assert {symbol: len(word) for symbol, word in words.items()} == lengths
        ordered = sorted(words.values())
        assert not any(later.startswith(earlier) for earlier, later in zip(ordered, ordered[1:], strict=False))


def test_entropy_of_fair_coins_and_of_certainty():
    assert entropy_bits(np.array([0, 1, 2, 3] * 5)) == pytest.approx(2.0)
    assert entropy_bits(np.array([7, 7, 7])) == 0.0


@pytest.mark.parametrize("sparsity", [0.0, 0.6, 0.95])
def test_a_file_gives_back_the_network_with_shared_weights(tmp_path, sparsity):
    model = tiny_model()
    global_prune_by_percentage(model, sparsity)
    shared = share_network(model, 8, share_weights)
    expected = restore(tiny_model(1), shared)
    parts = write_compressed(shared, tmp_path / "model", huffman_code)
    assert sum(parts.values()) == (tmp_path / "model").stat().st_size
    found = read_compressed(tiny_model(2), tmp_path / "model")
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    for (_, before), (_, after) in zip(weighted_layers(model), weighted_layers(found), strict=True):
        assert torch.equal(before.weight == 0, after.weight == 0)
        assert len(after.weight[after.weight != 0].unique()) <= 8


def test_a_layer_without_weights_left_can_be_written(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.stage2[0].conv1.weight.zero_()
    shared = share_network(model, 4, share_weights)
    write_compressed(shared, tmp_path / "model", huffman_code)
    assert (read_compressed(tiny_model(1), tmp_path / "model").stage2[0].conv1.weight == 0).all()


def test_every_stage_is_smaller_than_the_one_before(tmp_path):
    model = tiny_model()
    global_prune_by_percentage(model, 0.8)
    sizes = stage_sizes(model, share_network(model, 16, share_weights), tmp_path, huffman_code)
    totals = [sum(parts.values()) for parts in sizes.values()]
    assert list(sizes) == ["dense", "pruned", "shared weights", "Huffman codes"]
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] == (tmp_path / "compressed.safetensors").stat().st_size


def test_damaged_and_missing_files_are_named(tmp_path):
    model = tiny_model()
    path = tmp_path / "model"
    with pytest.raises(MissingData, match="missing"):
        read_compressed(model, path)
    write_compressed(share_network(model, 4, share_weights), path, huffman_code)
    with pytest.raises(ValueError, match="does not fit"):
        read_compressed(resnet20(), path)
    cut_short(path, 100)
    with pytest.raises(DamagedData, match="not a compressed model"):
        read_compressed(model, path)
    path.write_bytes(b"nonsense")
    with pytest.raises(DamagedData):
        read_compressed(model, path)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: share_weights(np.ones((2, 2)), 4), ValueError, "values"),
        (lambda: share_weights(np.ones(4), 0), ValueError, "n_codes"),
        (lambda: share_weights(np.ones(4), 300), ValueError, "n_codes"),
        (lambda: huffman_code({}), ValueError, "counts"),
        (lambda: huffman_code({"a": 0}), ValueError, "counts"),
        (lambda: huffman_code([1, 2]), TypeError, "counts"),
        (lambda: huffman_code({"a": 1.5}), TypeError, "counts"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_single_symbols_and_counters_are_fine():
    assert huffman_code(Counter("aaaa")) == {"a": "0"}
    assert fixed_length_code({"a": 3}) == {"a": "0"}
