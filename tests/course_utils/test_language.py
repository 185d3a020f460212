"""Training by steps, judging and sampling, reversal, counting, pictures and the head picker: on tiny models."""

from __future__ import annotations

import copy
import json
import math

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from course_utils import checkpoints, runtime
from course_utils.data_files import file_sha256
from course_utils.step_training import fit_steps
from course_utils.text import ALPHABET, encode, load_text
from course_utils.transformer import (
    TinyGPT,
    Transformer,
    fit_language_model,
    generate,
    greedy_decode,
    matrix_products,
    nats_per_character,
    pretrained,
)
from course_utils.transformer import plots as pictures
from course_utils.transformer.counting import costs_by_part, count_products
from course_utils.transformer.given import PAD, draw_token
from course_utils.transformer.language import nats_of_characters
from course_utils.transformer.ngrams import NgramModel
from course_utils.transformer.plan import PLANS, plan_for
from course_utils.transformer.reversal import (
    END,
    N_TOKENS,
    START,
    exact_match,
    fit_reversal,
    letters,
    reversal_batch,
    spell,
)
from course_utils.transformer.widgets import AttentionExplorer, attention_explorer, attention_maps

FP32 = runtime.Runtime(torch.device("cpu"), "fp32", torch.get_num_threads())
QUIET = {"progress": False, "on": FP32}


def tiny_gpt(seed: int = 0, max_length: int = 32) -> TinyGPT:
    torch.manual_seed(seed)
    return TinyGPT(len(ALPHABET), 16, 2, 1, 32, max_length).eval()


RHYME = encode("one two three four five six seven, all good children go to heaven. " * 20)


def test_a_language_model_learns_a_rhyme():
    model = tiny_gpt()
    before = nats_per_character(model, RHYME, 16, FP32)
    history = fit_language_model(model, RHYME, steps=150, batch_size=8, context=16, lr=1e-2, row_steps=50, **QUIET)
    after, bigram = nats_per_character(model, RHYME, 16, FP32), NgramModel(RHYME, 2).nats_per_character(RHYME)
    assert history.step == [50, 100, 150]
    assert history.loss == sorted(history.loss, reverse=True)
    assert after < 0.75 * bigram < bigram < before  # 0.58, 1.16 and 4.68 measured
    assert not model.training


def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(tmp_path):
    options = {"steps": 12, "batch_size": 2, "context": 8, "row_steps": 4, **QUIET}
    whole, pieces, file = tiny_gpt(), tiny_gpt(), tmp_path / "state.pt"
    history = fit_language_model(whole, RHYME, **options)

    class Interrupted(Exception):
        pass

    calls = []

    def stop_at_nine(_model):
        calls.append(1)
        if len(calls) == 9:
            raise Interrupted

    with pytest.raises(Interrupted):
        fit_language_model(pieces, RHYME, resume_file=file, after_step=stop_at_nine, **options)
    resumed = fit_language_model(pieces, RHYME, resume_file=file, **options)
    assert resumed.loss == history.loss
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, pieces.state_dict()[name]), name
    with pytest.raises(ValueError, match="belongs to a run with other settings"):
        fit_language_model(pieces, RHYME, resume_file=file, **{**options, "steps": 16})


def test_only_parameters_that_require_gradients_change():
    model = tiny_gpt()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match="parameters that require gradients"):
        fit_steps(model, lambda m, g: m.head.bias.sum(), steps=1, **QUIET)
    model.head.bias.requires_grad_(True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fit_language_model(model, RHYME, steps=2, batch_size=2, context=8, **QUIET)
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed == ["head.bias"]


class Uniform(nn.Module):
    """Gives the same probability to everything, and knows its longest window."""

    def __init__(self):
        super().__init__()
        self.zero, self.max_length, self.longest = nn.Parameter(torch.zeros(())), 12, 0

    def forward(self, tokens):
        self.longest = max(self.longest, tokens.shape[1])
        return self.zero * torch.ones(*tokens.shape, 96)


def test_a_uniform_model_has_log_96_nats():
    assert nats_per_character(Uniform(), RHYME, 8, FP32) == pytest.approx(math.log(96), abs=1e-5)  # float32


@pytest.mark.parametrize("length", [21, 24, 40])
def test_every_character_after_the_first_half_window_counts_once(length):
    model, tokens = tiny_gpt(), RHYME[:length]
    n_windows = (length - 9) // 4 + 1
    losses = []
    for start in range(0, 4 * n_windows, 4):
        logits = model(tokens[None, start : start + 8])
        losses += F.cross_entropy(logits[0, 4:], tokens[start + 5 : start + 9], reduction="none").tolist()
    assert nats_per_character(model, tokens, 8, FP32) == pytest.approx(sum(losses) / len(losses), abs=1e-5)


def test_surprise_of_characters_is_the_models_own():
    model = tiny_gpt()
    nats = nats_of_characters(model, "one two")
    logits = model(encode("one two")[None, :-1])[0].log_softmax(-1)
    assert nats == pytest.approx([-logits[i, token].item() for i, token in enumerate(encode("ne two"))], abs=1e-5)


@pytest.mark.parametrize("prompt", ["o", "one two three four five si"])
def test_generation_with_and_without_a_cache_is_the_same_beyond_max_length(prompt):
    model = tiny_gpt(max_length=24)
    texts = [generate(model, prompt[:24], 60, 1.0, seed=5, use_cache=use) for use in (True, False)]
    assert texts[0] == texts[1]
    assert texts[0].startswith(prompt[:24])
    assert len(texts[0]) == len(prompt[:24]) + 60


def test_generation_works_without_a_cache_to_use_and_never_sees_too_much():
    model = Uniform()
    assert len(generate(model, "a", 30)) == 31
    assert model.longest <= model.max_length
    with pytest.raises(ValueError, match="prompt must have from 1 to 12 characters"):
        generate(model, "", 3)


def test_temperature_sharpens_and_flattens():
    logits, generator = torch.log(torch.tensor([[0.1, 0.2, 0.7]])), torch.Generator().manual_seed(0)
    assert draw_token(logits, 0, generator).tolist() == [[2]]
    share = {
        t: sum(draw_token(logits, t, generator).item() == 2 for _ in range(2000)) / 2000 for t in (0.5, 1.0, 2.0)
    }
    expected = {t: 0.7 ** (1 / t) / sum(p ** (1 / t) for p in (0.1, 0.2, 0.7)) for t in share}
    for temperature, found in share.items():  # standard error 0.011
        assert found == pytest.approx(expected[temperature], abs=0.045)


def test_reversal_batches_are_reversals():
    source, target = reversal_batch(200, 7, torch.Generator().manual_seed(3))
    lengths = (source != PAD).sum(1)
    assert set(lengths.tolist()) == set(range(1, 8))
    for row, answer, n in zip(source.tolist(), target.tolist(), lengths.tolist(), strict=True):
        assert answer == [START, *row[:n][::-1], END] + [PAD] * (7 - n)
    assert spell(letters("ABC")[0]) == "ABC"
    with pytest.raises(ValueError, match="capital letters"):
        letters("abc")


@pytest.mark.notebook
def test_the_encoder_decoder_learns_to_reverse_at_the_quick_plan():
    plan = PLANS["quick"]
    torch.manual_seed(0)
    model = Transformer(N_TOKENS, N_TOKENS, 64, 4, 2, 128, plan.reversal_length + 2)
    fit_reversal(model, steps=plan.reversal_steps, max_length=plan.reversal_length, lr=2e-3, progress=False)
    assert exact_match(greedy_decode, model, 1000, plan.reversal_length) >= 0.99


@pytest.mark.parametrize(("n_layers", "n_heads"), [(1, 1), (1, 4), (2, 2), (3, 8)])
@pytest.mark.parametrize("n_sequences", [1, 3])
def test_counted_products_equal_the_formula(n_layers, n_heads, n_sequences):
    model = Transformer(N_TOKENS, N_TOKENS, 16, n_heads, n_layers, 24, 10)
    source, target = reversal_batch(n_sequences, 6, torch.Generator().manual_seed(0))
    counted = count_products(model, n_heads, source, target)
    assert counted.per_head == matrix_products(n_layers, n_heads) == n_layers * (15 * n_heads + 7) + 1
    assert counted.executed == 22 * n_layers + 1
    assert counted.by_part["head"] == 1
    assert count_products(model, n_heads, source, target) == counted  # hooks are gone


def test_costs_by_part_add_up():
    model = Transformer(N_TOKENS, N_TOKENS, 16, 2, 2, 24, 10)
    source, target = reversal_batch(2, 6, torch.Generator().manual_seed(0))
    rows = {row["part"]: row for row in costs_by_part(model, source, target)}
    with FlopCounterMode(display=False) as counter:
        model(source, target)
    assert rows["total"]["flops"] == counter.get_total_flops()
    assert rows["total"]["parameter_bytes"] == 4 * sum(parameter.numel() for parameter in model.parameters())
    positions = 2 * 6 * 2 + 2 * 8 * 2  # sequences times positions times layers, encoder and decoder
    assert rows["feed_forward"]["flops"] == positions * 2 * 2 * 16 * 24
    assert rows["head"]["flops"] == 2 * 8 * 2 * 16 * N_TOKENS
    assert rows["embedding"]["flops"] == rows["norm"]["flops"] == 0
    assert "attention" in {row["part"] for row in costs_by_part(tiny_gpt(), RHYME[None, :8])}


def test_the_head_picker_shows_every_map():
    model = tiny_gpt()
    maps = attention_maps(model, encode("one two")[None])
    assert list(maps) == ["blocks.0.attention"]
    assert maps["blocks.0.attention"].shape == (2, 7, 7)
    explorer = AttentionExplorer(maps, {"blocks.0.attention": ("one two", "one two")})
    first = explorer.image.value
    explorer.head.value = 2
    assert explorer.image.value != first
    assert "keys on average" in explorer.status.value
    with pytest.raises(ValueError, match="one character for each"):
        attention_explorer(maps, {"blocks.0.attention": ("one", "one two")})
    with pytest.raises(ValueError, match="at least one attention"):
        attention_explorer({}, {})


def test_pictures_are_drawn():
    rows = [
        {"sparsity": s, "n_bits": b, "finetuned": s > 0, "bits_per_character": 2 + s / b, "bytes": int(1e6 * b * (1 - s))}
        for s in (0.0, 0.5)
        for b in (32, 4)
    ]
    figures = [
        pictures.learning([1, 2], [3.0, 2.0], {"level": 1.0}),
        pictures.heads(torch.rand(2, 3, 4), "abc", "abcd", "title"),
        pictures.compression(rows, {"5-gram": 2.2}),
        pictures.surprise("ab", [0.5, 3.0]),
        pictures.positions(torch.rand(10, 4)),
    ]
    for figure in figures:
        figure.canvas.draw()
        assert all(ax.get_xlabel() or ax.get_ylabel() or not ax.lines for ax in figure.axes)
    plt.close("all")


def test_plans_cover_the_profiles():
    from course_utils import profiles

    assert PLANS.keys() == profiles.PROFILES.keys()
    assert plan_for(profiles.PROFILES["quick"]).reversal_length == 12


def test_pretraining_writes_weights_with_their_record(tmp_path, monkeypatch):
    from course_admin import pretrain, pretrain_language

    recipe = pretrain_language.LANGUAGE_RECIPES["tinygpt_austen"] | {"steps": 4, "batch_size": 2, "context": 16}
    monkeypatch.setitem(pretrain_language.LANGUAGE_RECIPES, "tinygpt_austen", recipe)
    small = {"n_tokens": 96, "d_model": 8, "n_heads": 2, "n_layers": 1, "d_hidden": 8, "max_length": 64}
    monkeypatch.setitem(pretrained.SHAPES, "tinygpt_austen", small)
    folders = {"out_folder": tmp_path, "state_folder": tmp_path / "state", "precision": "fp32", "progress": False}
    path = pretrain.pretrain("tinygpt_austen", **folders)
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["sha256"] == file_sha256(path)
    assert record["held_out_perplexity"] == pytest.approx(2 ** record["held_out_bits"])
    assert record["history"]["step"] == [4]
    assert list((tmp_path / "state").iterdir()) == []  # the run is through


def test_the_checkpoint_is_the_recorded_one_and_beats_the_ngrams():
    record, model = checkpoints.read_record("tinygpt_austen"), pretrained.load_tiny_gpt()
    nats = nats_per_character(model, load_text("austen").held_out, record["recipe"]["context"], FP32)
    assert nats == pytest.approx(record["held_out_nats"], abs=1e-3)  # another processor, another order of sums
    assert nats / math.log(2) < min(record["held_out_bits_of_witten_bell_ngrams"].values())
    assert sum(parameter.numel() for parameter in model.parameters()) == record["parameters"]


def linear_loss(model: nn.Module, generator: torch.Generator) -> torch.Tensor:
    """Squared error of random inputs, drawn with the generator; in training dropout adds noise of its own."""
    inputs = torch.randn(8, 3, generator=generator)
    return (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()


def test_four_steps_are_the_textbook_loop():
    """AdamW with these constants, the schedule at the middle of each step, a clipped gradient, a batch for each step."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    peer = copy.deepcopy(model)
    options = {"lr": 0.05, "weight_decay": 0.2, "betas": (0.8, 0.95), "schedule": "cosine", "clip": 0.5, "seed": 3}
    history = fit_steps(model, linear_loss, steps=4, row_steps=3, **options, **QUIET)
    optimizer = torch.optim.AdamW(peer.parameters(), 0.05, (0.8, 0.95), weight_decay=0.2)
    norms = []
    for step in range(4):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 + math.cos(math.pi * (step + 0.5) / 4)) / 2
        loss = linear_loss(peer, torch.Generator().manual_seed(3 * 1_000_003 + step))
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.cat([p.grad.flatten() for p in peer.parameters()]).norm()))
        for parameter in peer.parameters():
            parameter.grad *= min(1.0, 0.5 / (norms[-1] + 1e-6))
        optimizer.step()
    assert max(norms) > 0.5  # so that clipping has had something to do
    for mine, theirs in zip(model.parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)
    assert history.step == [3, 4]
    assert history.learning_rate[-1] == optimizer.param_groups[0]["lr"]


def test_dropout_follows_from_the_seed_also_in_a_resumed_run(tmp_path):
    def network(seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 16), nn.Dropout(0.5), nn.Linear(16, 1))

    options = {"steps": 6, "row_steps": 2, "lr": 0.1, **QUIET}
    models = [network(), network(), network()]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        torch.manual_seed(11)
        fit_steps(model, linear_loss, seed=seed, **options)
        after = torch.rand(())
        torch.manual_seed(11)
        assert after == torch.rand(())  # the global generator is left alone
    weights = [[parameter.clone() for parameter in model.parameters()] for model in models]
    assert all(map(torch.equal, weights[0], weights[1]))
    assert not any(map(torch.equal, weights[0], weights[2]))

    def stop(_model):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt

    calls, file = [], tmp_path / "state.pt"
    with pytest.raises(KeyboardInterrupt):
        fit_steps(network(), linear_loss, resume_file=file, after_step=stop, **options)
    resumed = network(seed=5)
    fit_steps(resumed, linear_loss, resume_file=file, **options)
    assert all(map(torch.equal, weights[0], resumed.parameters()))
