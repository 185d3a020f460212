"""Attention, layers, models and decoding equal PyTorch's own to 1e-5, and far beyond it in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_utils.transformer import (
    DecoderLayer,
    EncoderLayer,
    FeedForward,
    KeyValueCache,
    MultiHeadAttention,
    TinyGPT,
    Transformer,
    greedy_decode,
    positional_encoding,
    scaled_dot_product_attention,
    shift_matrix,
)
from course_utils.transformer.given import PAD, ScriptedModel, causal_mask, filled, padding_mask
from course_utils.transformer.oracles import (
    TorchGPT,
    TorchTransformer,
    loaded,
    our_state,
    shapes,
    torch_attention,
    torch_decoder_layer,
    torch_encoder_layer,
    toy_input,
    toy_tokens,
)

EXACT = {"rtol": 0, "atol": 1e-10}  # float64; both sides do the same sums in another order


def test_positional_encoding_is_the_formula():
    encoding = positional_encoding(40, 6)
    for position in (0, 1, 39):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            assert encoding[position, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-7)
            assert encoding[position, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-7)


@pytest.mark.parametrize("offset", [0, 1, 7, -3])
def test_shift_matrix_moves_every_position(offset):
    encoding = positional_encoding(30, 16).double()
    moved = encoding[5:20] @ shift_matrix(offset, 16).T
    torch.testing.assert_close(moved, encoding[5 + offset : 20 + offset], rtol=0, atol=1e-6)  # encoding is float32


def test_shift_matrices_are_rotations_in_float64():
    matrix = shift_matrix(7, 10)
    assert matrix.dtype == torch.float64
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(10, dtype=torch.float64), rtol=0, atol=1e-14)
    torch.testing.assert_close(shift_matrix(3, 10) @ shift_matrix(4, 10), matrix, rtol=0, atol=1e-14)


def test_gram_matrix_depends_on_the_distance_alone():
    encoding = positional_encoding(50, 32).double()
    gram = encoding @ encoding.T
    frequency = 10000.0 ** (-torch.arange(16, dtype=torch.float64) / 16)
    for distance in (0, 1, 10):
        expected = torch.cos(distance * frequency).sum().expand(50 - distance)
        torch.testing.assert_close(gram.diagonal(distance), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mask", [None, "causal", "random", "padding"])
def test_attention_equals_torch(mask):
    query, key, value = toy_input(2, 3, 5, 8, seed=1), toy_input(2, 3, 5, 8, seed=2), toy_input(2, 3, 5, 4, seed=3)
    masks = {
        None: None,
        "causal": causal_mask(5),
        "random": torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(4)) > 0.5,
        "padding": padding_mask(torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])),
    }
    output, weights = scaled_dot_product_attention(query, key, value, masks[mask])
    expected = F.scaled_dot_product_attention(query, key, value, masks[mask])
    torch.testing.assert_close(output, expected, **EXACT)
    torch.testing.assert_close(weights @ value, output, **EXACT)


def test_attention_equals_torch_in_float32_to_1e_5():
    query, key, value = (toy_input(2, 4, 16, 32, seed=seed).float() for seed in (1, 2, 3))
    output, _ = scaled_dot_product_attention(query, key, value, causal_mask(16))
    torch.testing.assert_close(output, F.scaled_dot_product_attention(query, key, value, is_causal=True), rtol=0, atol=1e-5)


def test_fully_masked_queries_get_zeros_and_finite_gradients():
    query, key = toy_input(1, 3, 4, seed=1).requires_grad_(), toy_input(1, 3, 4, seed=2)
    mask = torch.tensor([[True, True, False], [False, False, False], [True, False, False]])
    output, weights = scaled_dot_product_attention(query, key, key, mask)
    assert (weights[0, 1] == 0).all()
    assert (output[0, 1] == 0).all()
    output.sum().backward()
    assert torch.isfinite(query.grad).all()


def test_a_mask_of_numbers_is_refused():
    with pytest.raises(TypeError, match="True where looking is allowed"):
        scaled_dot_product_attention(torch.ones(2, 2), torch.ones(2, 2), torch.ones(2, 2), torch.ones(2, 2))


@pytest.mark.parametrize(("n_queries", "n_keys"), [(1, 1), (4, 4), (2, 6), (1, 6)])
def test_causal_mask_lets_the_last_query_see_everything(n_queries, n_keys):
    mask = causal_mask(n_queries, n_keys)
    assert mask[-1].all()
    assert mask.sum(1).tolist() == list(range(n_keys - n_queries + 1, n_keys + 1))


@pytest.mark.parametrize(("d_model", "n_heads"), [(8, 1), (12, 3), (12, 12)])
def test_multi_head_attention_equals_torch(d_model, n_heads):
    theirs = torch_attention(d_model, n_heads, seed=5)
    ours = loaded(MultiHeadAttention(d_model, n_heads), our_state(theirs))
    query, memory = toy_input(2, 4, d_model, seed=1), toy_input(2, 7, d_model, seed=2)
    expected, weights = theirs(query, memory, memory, average_attn_weights=False)
    torch.testing.assert_close(ours(query, memory, memory), expected, **EXACT)
    torch.testing.assert_close(ours.weights, weights, **EXACT)
    expected, _ = theirs(query, query, query, attn_mask=~causal_mask(4))
    torch.testing.assert_close(ours(query, query, query, causal_mask(4)), expected, **EXACT)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="d_model must be a multiple of n_heads, got d_model 10 and n_heads 4"):
        MultiHeadAttention(10, 4)


@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_layer_equals_torch(norm_first):
    theirs = torch_encoder_layer(12, 3, 20, seed=6, norm_first=norm_first)
    ours = loaded(EncoderLayer(12, 3, 20, norm_first), our_state(theirs))
    x, tokens = toy_input(2, 5, 12, seed=1), torch.tensor([[1, 2, 3, 0, 0], [1, 1, 1, 1, 0]])
    torch.testing.assert_close(ours(x), theirs(x), **EXACT)
    torch.testing.assert_close(ours(x, causal_mask(5)), theirs(x, src_mask=~causal_mask(5)), **EXACT)
    torch.testing.assert_close(ours(x, padding_mask(tokens)), theirs(x, src_key_padding_mask=tokens == PAD), **EXACT)


def test_decoder_layer_equals_torch():
    theirs = torch_decoder_layer(12, 3, 20, seed=7)
    ours = loaded(DecoderLayer(12, 3, 20), our_state(theirs))
    x, memory = toy_input(2, 5, 12, seed=1), toy_input(2, 4, 12, seed=2)
    tokens = torch.tensor([[1, 2, 3, 0], [1, 1, 1, 1]])
    expected = theirs(x, memory, tgt_mask=~causal_mask(5), memory_key_padding_mask=tokens == PAD)
    torch.testing.assert_close(ours(x, memory, causal_mask(5), padding_mask(tokens)), expected, **EXACT)


def test_feed_forward_is_two_linear_layers_and_a_relu():
    ours = filled(FeedForward(6, 10), 8)
    x = toy_input(3, 6, seed=1)
    expected = F.linear(F.relu(F.linear(x, ours.expand.weight, ours.expand.bias)), ours.contract.weight, ours.contract.bias)
    torch.testing.assert_close(ours(x), expected, **EXACT)


def toy_transformer(seed: int = 9) -> tuple[TorchTransformer, Transformer]:
    theirs = TorchTransformer(11, 9, 12, 3, 2, 20, seed)
    return theirs, loaded(Transformer(11, 9, 12, 3, 2, 20, 16), our_state(theirs))


def test_transformer_equals_one_of_torch_layers():
    theirs, ours = toy_transformer()
    source, target = toy_tokens(3, 6, n_tokens=11, seed=1), toy_tokens(3, 5, n_tokens=9, seed=2)
    source[0, 3:] = PAD
    torch.testing.assert_close(ours(source, target), theirs(source, target), **EXACT)


def test_padding_changes_nothing_and_the_future_is_not_seen():
    _, ours = toy_transformer()
    source, target = toy_tokens(2, 6, n_tokens=11, seed=1), toy_tokens(2, 5, n_tokens=9, seed=2)
    logits = ours(source, target)
    torch.testing.assert_close(ours(F.pad(source, (0, 4), value=PAD), target), logits, **EXACT)
    torch.testing.assert_close(ours(source, target[:, :3]), logits[:, :3], **EXACT)


def test_state_of_a_transformer_has_parameters_only():
    model = Transformer(5, 5, 4, 2, 1, 8, 10)
    assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}
    assert shapes(model)["encoder.0.attention.query.weight"] == [4, 4]


def test_too_long_sequences_are_refused_by_name():
    _, ours = toy_transformer()
    with pytest.raises(ValueError, match="target must have at most 16 tokens a sequence, got 17"):
        ours(torch.ones(1, 3, dtype=torch.long), torch.ones(1, 17, dtype=torch.long))
    with pytest.raises(TypeError, match="source must be a tensor of integer tokens"):
        ours(torch.ones(1, 3), torch.ones(1, 3, dtype=torch.long))


def toy_gpt(seed: int = 10) -> tuple[TorchGPT, TinyGPT]:
    theirs = TorchGPT(9, 12, 3, 2, 20, seed)
    return theirs, loaded(TinyGPT(9, 12, 3, 2, 20, 16), our_state(theirs))


def test_tiny_gpt_equals_one_of_torch_layers():
    theirs, ours = toy_gpt()
    tokens = toy_tokens(3, 7, n_tokens=9, seed=1)
    torch.testing.assert_close(ours(tokens), theirs(tokens), **EXACT)


@pytest.mark.parametrize("pieces", [[7], [1] * 7, [3, 1, 3], [1, 6], [4, 2, 1]])
def test_cached_logits_equal_those_without_a_cache(pieces):
    _, ours = toy_gpt()
    tokens, caches = toy_tokens(2, 7, n_tokens=9, seed=1), ours.new_caches()
    parts = [ours(piece, caches) for piece in tokens.split(pieces, 1)]
    torch.testing.assert_close(torch.cat(parts, 1), ours(tokens), **EXACT)
    assert [len(cache) for cache in caches] == [7, 7]


def test_a_full_cache_is_refused():
    _, ours = toy_gpt()
    caches = ours.new_caches()
    ours(torch.ones(1, 14, dtype=torch.long), caches)
    with pytest.raises(ValueError, match="must end within 16 positions, got 14 before, 17 in all"):
        ours(torch.ones(1, 3, dtype=torch.long), caches)


def test_key_value_cache_keeps_everything_in_order():
    cache, parts = KeyValueCache(), [toy_input(2, 3, n, 4, seed=n) for n in (2, 1, 3)]
    for part in parts:
        keys, values = cache.append(part, -part)
    assert torch.equal(keys, torch.cat(parts, 2))
    assert torch.equal(values, -keys)
    assert len(cache) == 6
    assert len(KeyValueCache()) == 0


def test_greedy_decoding_follows_the_rule_and_stops():
    model, source = ScriptedModel(), torch.tensor([[4, 5, 6, 2, 0], [7, 0, 0, 0, 0], [3, 3, 0, 0, 0]])
    written = greedy_decode(model, source, start=1, end=2, max_new=9)
    expected = []
    for row in source.tolist():
        last, out = 1, []
        for token in [*row, 0]:
            last = 2 if token == 0 else 3 + (token + last) % 8
            out.append(last)
            if last == 2:
                break
        expected.append(out)
    longest = max(map(len, expected))
    assert written.tolist() == [out + [PAD] * (longest - len(out)) for out in expected]
    assert model.n_encoded == 1
    assert greedy_decode(model, source, 1, 2, max_new=2).shape == (3, 2)


def test_initial_embeddings_have_the_size_of_the_positions():
    torch.manual_seed(0)
    model = TinyGPT(500, 64, 4, 1, 64, 8)
    assert (model.embedding.weight.std() * 8).item() == pytest.approx(1, abs=0.02)  # standard error 0.004
    assert isinstance(model.head, nn.Linear)
