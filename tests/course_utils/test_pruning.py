"""Magnitude pruning against torch.nn.utils.prune, closed forms, and the promise that zeros stay zero."""

from __future__ import annotations

import copy
import dataclasses
import math

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune as torch_prune

from course_utils import checkpoints, data, profiles, runtime
from course_utils.data import load_cifar10
from course_utils.pruning import (
    MaskedOptimizer,
    challenge,
    cubic_schedule,
    global_prune_by_percentage,
    iterative_pruning,
    linear_schedule,
    magnitude_mask,
    prune_by_percentage,
    sparsity_report,
    sweeps,
)
from course_utils.pruning import plots as pictures
from course_utils.pruning.challenge import challenge_score, enter_challenge, last_test_images
from course_utils.pruning.given import apply_masks, masks_of, parameters_after, toy_network, toy_steps
from course_utils.pruning.plan import plan_for
from course_utils.pruning.widgets import PruningExplorer
from course_utils.resnet import resnet20, weighted_layers
from course_utils.training import evaluate, fit
from tests.course_utils.tiny import needs_cifar10, tiny_dataset, tiny_model

CIFAR10_CHECKPOINT = checkpoints.checkpoint_folder() / "resnet20_cifar10.safetensors"
SPARSITIES = [0.1, 0.25, 0.4, 0.6, 0.8, 0.95, 0.999]


def distinct(shape, seed):
    """Weights without ties, where every correct method removes the same ones."""
    n = int(torch.tensor(shape).prod())
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (n,), generator=generator) * 2 - 1
    return ((torch.randperm(n, generator=generator) + 1) * signs).double().view(shape)


# --- magnitude_mask --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("shape", [(7,), (16, 9), (8, 4, 3, 3)])
def test_mask_agrees_with_l1_unstructured(shape, sparsity):
    layer = nn.Linear(2, 2)
    layer.weight = nn.Parameter(distinct(shape, seed=len(shape)))
    oracle = torch_prune.l1_unstructured(layer, "weight", sparsity).weight_mask.bool()
    assert torch.equal(magnitude_mask(distinct(shape, seed=len(shape)), sparsity), oracle)


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.integers(-3, 3), min_size=1, max_size=40),
    sparsity=st.floats(0, 1, allow_nan=False),
)
def test_mask_removes_exactly_the_rounded_count_of_the_smallest(values, sparsity):
    weight = torch.tensor(values, dtype=torch.float64)
    mask = magnitude_mask(weight, sparsity)
    assert mask.dtype == torch.bool
    assert int((~mask).sum()) == round(sparsity * len(values))
    if mask.any() and not mask.all():
        assert weight.abs()[~mask].max() <= weight.abs()[mask].min()


def test_of_equal_magnitudes_the_smaller_index_is_kept():
    assert magnitude_mask(torch.tensor([1.0, -1.0, 1.0, -1.0]), 0.5).tolist() == [True, True, False, False]
    assert magnitude_mask(torch.tensor([2.0, 1.0, 1.0, 1.0]), 0.25).tolist() == [True, True, True, False]


def test_halves_round_to_even_like_torch():
    for n in (5, 7, 9, 11):
        assert int((~magnitude_mask(distinct((n,), n), 0.5)).sum()) == round(n / 2)


def test_mask_leaves_the_weight_alone_and_needs_no_gradient():
    weight = nn.Parameter(distinct((4, 5), 0))
    before = weight.detach().clone()
    mask = magnitude_mask(weight, 0.5)
    assert torch.equal(weight, before)
    assert not mask.requires_grad


@pytest.mark.parametrize(
    ("weight", "sparsity", "error", "message"),
    [
        (torch.ones(3), 1.5, ValueError, "sparsity"),
        (torch.ones(3), 80, ValueError, "write 0.8"),
        (torch.ones(3), -0.1, ValueError, "sparsity"),
        (torch.ones(3), "half", TypeError, "sparsity"),
        (torch.ones(3, dtype=torch.int64), 0.5, TypeError, "weight"),
        ([1.0, 2.0], 0.5, TypeError, "weight"),
        (torch.ones(0), 0.5, ValueError, "weight"),
        (torch.tensor([1.0, float("nan")]), 0.5, ValueError, "weight"),
    ],
)
def test_bad_arguments_are_named(weight, sparsity, error, message):
    with pytest.raises(error, match=message):
        magnitude_mask(weight, sparsity)


# --- whole networks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_per_layer_agrees_with_torch_on_resnet20(sparsity):
    torch.manual_seed(0)
    model = resnet20(in_channels=1)
    oracle = copy.deepcopy(model)
    masks = prune_by_percentage(model, sparsity)
    for name, layer in weighted_layers(oracle):
        torch_prune.l1_unstructured(layer, "weight", sparsity)
        assert torch.equal(masks[name], layer.weight_mask.bool()), name
    for (_, ours), (_, theirs) in zip(weighted_layers(model), weighted_layers(oracle), strict=True):
        assert torch.equal(ours.weight, theirs.weight)


@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_global_agrees_with_torch_on_resnet20(sparsity):
    torch.manual_seed(1)
    model = resnet20(in_channels=3)
    oracle = copy.deepcopy(model)
    masks = global_prune_by_percentage(model, sparsity)
    pairs = [(layer, "weight") for _, layer in weighted_layers(oracle)]
    torch_prune.global_unstructured(pairs, torch_prune.L1Unstructured, amount=sparsity)
    for name, layer in weighted_layers(oracle):
        assert torch.equal(masks[name], layer.weight_mask.bool()), name


@pytest.mark.parametrize("prune", [prune_by_percentage, global_prune_by_percentage])
def test_only_weights_of_convolutions_and_linear_layers_are_pruned(prune):
    before = {name: value.detach().clone() for name, value in toy_network(2).named_parameters()}
    after = parameters_after(prune, toy_network(2), 0.9)
    pruned = {name for name in before if not torch.equal(before[name], after[name])}
    assert pruned == {"conv1.weight", "conv2.weight", "fc.weight"}
    for name in pruned:  # what is kept is kept bit for bit
        kept = after[name] != 0
        assert torch.equal(after[name][kept], before[name][kept])


@pytest.mark.parametrize("prune", [prune_by_percentage, global_prune_by_percentage])
def test_pruning_again_changes_nothing_and_everything_can_go(prune):
    model = toy_network(3)
    first = prune(model, 0.6)
    again = prune(model, 0.6)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(mask.any() for mask in prune(model, 1.0).values())


def test_global_ties_go_to_the_earlier_layer():
    model = nn.Sequential(nn.Linear(2, 1), nn.Linear(2, 1))
    for layer in model:
        nn.init.ones_(layer.weight)
    masks = global_prune_by_percentage(model, 0.5)
    assert masks["0"].all()
    assert not masks["1"].any()


def test_report_counts_zeros_layer_by_layer():
    model = toy_network(4)
    prune_by_percentage(model, 0.5)
    report = sparsity_report(model)
    assert report["conv1"] == {"weights": 54, "zeros": 27, "sparsity": 0.5}
    assert report["conv2"] == {"weights": 135, "zeros": 68, "sparsity": 68 / 135}
    assert report["total"] == {"weights": 224, "zeros": 27 + 68 + 18, "sparsity": 113 / 224}
    assert list(report) == ["conv1", "conv2", "fc", "total"]


@pytest.mark.parametrize("function", [prune_by_percentage, global_prune_by_percentage])
def test_models_without_weights_are_refused(function):
    with pytest.raises(ValueError, match="model"):
        function(nn.ReLU(), 0.5)
    with pytest.raises(TypeError, match="model"):
        function(torch.ones(3), 0.5)


def test_apply_masks_names_what_does_not_fit():
    model = toy_network(5)
    with pytest.raises(ValueError, match="conv9"):
        apply_masks(model, {"conv9": torch.ones(3)})
    with pytest.raises(ValueError, match="conv1"):
        apply_masks(model, {"conv1": torch.ones(3, dtype=torch.bool)})


def test_masked_weights_become_zero_even_when_they_are_not_finite():
    model = toy_network(5)
    masks = prune_by_percentage(model, 0.5)
    with torch.no_grad():
        model.fc.weight.fill_(float("inf"))
    apply_masks(model, masks)
    assert (model.fc.weight[~masks["fc"]] == 0).all()


# --- schedules -------------------------------------------------------------------------------------------------------


def test_linear_schedule_is_the_published_one():
    assert [round(linear_schedule(epoch, 10, 0.8), 12) for epoch in (0, 1, 5, 10, 15)] == [0.0, 0.08, 0.4, 0.8, 0.8]


def test_cubic_schedule_closed_form_and_ends():
    assert cubic_schedule(0, 4, 0.8) == 0.0
    assert cubic_schedule(2, 4, 0.8) == pytest.approx(0.8 * (1 - 1 / 8), abs=1e-15)
    assert cubic_schedule(4, 4, 0.8) == cubic_schedule(99, 4, 0.8) == 0.8
    assert cubic_schedule(3, 4, 0.9, initial_sparsity=0.5, first_step=3) == 0.5
    assert cubic_schedule(1, 4, 0.9, initial_sparsity=0.5, first_step=3) == 0.5
    assert cubic_schedule(5, 4, 0.9, initial_sparsity=0.5, first_step=3) == pytest.approx(0.9 - 0.4 / 8, abs=1e-15)


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 30), final=st.floats(0, 1), initial=st.floats(0, 1))
def test_cubic_schedule_prunes_fast_first(n, final, initial):
    initial, final = sorted((initial, final))
    values = [cubic_schedule(step, n, final, initial) for step in range(n + 1)]
    rises = [after - before for before, after in zip(values, values[1:], strict=False)]
    assert all(rise >= -1e-12 for rise in rises)
    assert rises == sorted(rises, reverse=True) or max(rises) - min(rises) < 1e-12


@pytest.mark.parametrize("schedule", [linear_schedule, cubic_schedule])
def test_schedules_refuse_bad_arguments(schedule):
    with pytest.raises(ValueError, match="n_steps"):
        schedule(1, 0, 0.5)
    with pytest.raises(ValueError, match="final_sparsity"):
        schedule(1, 2, 80)
    with pytest.raises(TypeError, match="step"):
        schedule(0.5, 2, 0.8)


# --- MaskedOptimizer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.SGD(parameters, 0.02, momentum=0.9, weight_decay=0.1),
        lambda parameters: torch.optim.SGD(parameters, 0.02, momentum=0.9, weight_decay=0.1, nesterov=True),
        lambda parameters: torch.optim.Adam(parameters, 0.05, weight_decay=0.1),
        lambda parameters: torch.optim.AdamW(parameters, 0.05, weight_decay=0.1),
    ],
    ids=["momentum", "nesterov", "adam", "adamw"],
)
@pytest.mark.parametrize("n_steps", [1, 2, 25])
def test_pruned_weights_stay_exactly_zero_through_momentum_and_weight_decay(make, n_steps):
    model = toy_network(6)
    optimizer = make(model.parameters())
    toy_steps(optimizer, model, 5, seed=0)  # momentum is in full swing when weights are pruned
    masks = global_prune_by_percentage(model, 0.7)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    toy_steps(MaskedOptimizer(optimizer, model, masks), model, n_steps, seed=1)
    for name, layer in weighted_layers(model):
        assert (layer.weight[~masks[name]] == 0.0).all()
        assert not torch.signbit(layer.weight[~masks[name]]).any()
        assert (layer.weight[masks[name]] != before[f"{name}.weight"][masks[name]]).any()
    assert not torch.equal(model.conv1.bias, before["conv1.bias"])


def test_without_the_masks_momentum_revives_weights():
    """The property tested above is not empty: the plain optimiser breaks it in one step."""
    model = toy_network(6)
    optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9)
    toy_steps(optimizer, model, 5, seed=0)
    masks = global_prune_by_percentage(model, 0.7)
    toy_steps(optimizer, model, 1, seed=1)
    assert any((layer.weight[~masks[name]] != 0).any() for name, layer in weighted_layers(model))


def test_masked_optimizer_works_in_fit():
    model, data = tiny_model(), tiny_dataset()
    masks = prune_by_percentage(model, 0.8)
    optimizer = MaskedOptimizer(torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=5e-4), model, masks)
    history = fit(model, data, epochs=2, optimizer=optimizer, batch_size=32, padding=0, flip=False, progress=False)
    assert len(history) == 2
    assert history.learning_rate[-1] < 0.05
    assert all((layer.weight[~masks[name]] == 0.0).all() for name, layer in weighted_layers(model))


# --- iterative_pruning -----------------------------------------------------------------------------------------------


def test_iterative_pruning_frees_weights_until_the_final_sparsity():
    calls = []
    model = toy_network(7)

    def train_epoch(model, masks):
        calls.append((sparsity_report(model)["total"]["zeros"], masks is not None))
        optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9, weight_decay=0.1)
        optimizer = optimizer if masks is None else MaskedOptimizer(optimizer, model, masks)
        toy_steps(optimizer, model, 3, seed=len(calls))

    masks = iterative_pruning(model, 5, lambda e: linear_schedule(e, 3, 0.6), global_prune_by_percentage, train_epoch)
    zeros = [round(s * 224) for s in (0.2, 0.4, 0.6, 0.6, 0.6)]
    assert calls == list(zip(zeros, [False, False, True, True, True], strict=True))
    assert all(torch.equal(masks[name], kept) for name, kept in masks_of(model).items())


# --- sweeps ----------------------------------------------------------------------------------------------------------


def test_sensitivity_scan_prunes_one_layer_at_a_time_and_restores_it():
    model, seen = toy_network(8), []
    before = copy.deepcopy(model.state_dict())

    def accuracy(model):
        seen.append({name: row["zeros"] for name, row in sparsity_report(model).items() if row["zeros"]})
        return 0.5

    curves = sweeps.sensitivity_scan(model, [0.0, 0.5], magnitude_mask, accuracy)
    assert list(curves) == ["conv1", "conv2", "fc"]
    assert seen == [{}, {"conv1": 27, "total": 27}, {"conv2": 68, "total": 68}, {"fc": 18, "total": 18}]
    assert curves["fc"] == [0.5, 0.5]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_tolerated_sparsity_stops_at_the_first_bad_level():
    curves = {"a": [0.89, 0.5, 0.9], "b": [0.9, 0.9, 0.9], "c": [0.2, 0.9, 0.9]}
    assert sweeps.tolerated_sparsity(curves, [0.3, 0.6, 0.9], 0.88) == {"a": 0.3, "b": 0.9, "c": 0.0}


def test_recorded_pruning_counts_what_came_back():
    model = nn.Sequential(nn.Linear(4, 1))
    recorded = sweeps.RecordedPruning(prune_by_percentage)
    for values in ([1.0, 2.0, 3.0, 4.0], [9.0, 2.0, 3.0, 4.0]):
        model[0].weight.data = torch.tensor([values])
        recorded(model, 0.5)
    assert recorded.came_back() == [{"before": 2, "zeros": 2, "came_back": 1, "share": 50.0}]


def test_convolution_latencies_measure_all_four_ways():
    rows = sweeps.convolution_latencies(torch.randn(4, 3, 3, 3), torch.randn(2, 3, 6, 6), magnitude_mask, [0.5, 0.9])
    assert [row["sparsity"] for row in rows] == [0.5, 0.9]
    assert all(len(row) == 5 and min(list(row.values())[1:]) > 0 for row in rows)


# --- the challenge, the plan, the pictures and the slider ------------------------------------------------------------


def test_challenge_score_pays_two_points_for_each_halving():
    assert challenge_score(0.9, 1000, 1000) == 0.9
    assert challenge_score(0.9, 250, 1000) == pytest.approx(0.94)


def test_challenge_refuses_bytes_saved_by_another_number_format():
    def halved(model, train_set, n_epochs):
        return model.half()

    with pytest.raises(TypeError, match=r"conv1.weight must be float32 to be packed, got torch.float16"):
        enter_challenge(halved, profiles.PROFILES["quick"])


def test_challenge_gives_no_judged_image_away():
    given = []

    def compress(model, train_set, n_epochs):
        given.append(train_set)
        return model

    enter_challenge(compress, profiles.PROFILES["quick"])
    whole = data.load("fashion_mnist")
    judged = last_test_images(whole)
    assert len(given[0].test_labels) == len(whole.test_labels) - len(judged.test_labels)
    assert torch.equal(given[0].test_images, whole.test_images[: -len(judged.test_labels)])
    assert len(given[0].train_labels) == plan_for(profiles.PROFILES["quick"]).n_train


def test_challenge_names_what_is_no_network():
    with pytest.raises(TypeError, match="dict"):
        enter_challenge(lambda model, train_set, n_epochs: {}, profiles.PROFILES["quick"])


def test_challenge_judges_the_last_test_images():
    judged = last_test_images(tiny_dataset(n_test=64), 10)
    assert len(judged.test_images) == len(judged.test_labels) == 10
    assert torch.equal(judged.test_images[-1], tiny_dataset(n_test=64).test_images[-1])


def test_a_challenge_file_is_measured_after_it_has_been_read_back():
    calls = []

    def compress(model, train_set, n_epochs):
        calls.append(n_epochs)
        global_prune_by_percentage(model, 0.6)
        model.accuracy = 1.0  # whatever a network says about itself is not in its file
        return model

    entry, content = enter_challenge(compress), challenge.packed_file(compress)
    assert len(calls) == 1  # training is what takes time: a function is called once
    assert (content.dtype, len(content)) == ("uint8", entry.size_bytes)
    assert challenge.times_smaller(content) == entry.dense_bytes / entry.size_bytes > 2
    assert challenge.sparsity_of_file(content) == entry.sparsity == pytest.approx(0.6, abs=1e-5)
    assert 0.5 < challenge.accuracy_of_file(content) == entry.accuracy < entry.dense_accuracy
    assert challenge.gain_of_file(content) == entry.score - entry.dense_accuracy


def test_every_profile_has_a_plan_whose_pruning_fits():
    for profile in profiles.PROFILES.values():
        plan = plan_for(profile)
        assert 1 <= plan.prune_epochs <= plan.iterative_epochs
        assert list(plan.levels) == sorted(plan.levels)
    with pytest.raises(ValueError, match="profile"):
        plan_for(dataclasses.replace(profiles.PROFILES["quick"], name="slow"))


def test_slider_shows_every_point_of_the_sweep():
    explorer = PruningExplorer(toy_network(1), magnitude_mask, [(0.0, 0.9), (0.5, 0.8), (0.9, 0.2)])
    pictures_seen = set()
    for position in range(3):
        explorer.slider.value = position
        pictures_seen.add(explorer.image.value)
    explorer.layer.value = "conv1"
    pictures_seen.add(explorer.image.value)
    assert len(pictures_seen) == 4
    assert "202 of 224" in explorer.status.value  # round(0.9 * 224) = round(201.6)
    with pytest.raises(ValueError, match="points"):
        PruningExplorer(toy_network(1), magnitude_mask, [])


def test_pictures_of_the_toy_network():
    model = toy_network(2)
    report = sparsity_report(model)
    epochs = [sweeps.Epoch(0.2, 0.8, 0.9, False), sweeps.Epoch(0.4, 0.7, 0.9, True)]
    rows = [{"sparsity": 0.0, "dense": 2.0, "bitmap": 3.0}, {"sparsity": 0.5, "dense": 2.0, "bitmap": 1.5}]
    figures = [
        pictures.before_and_after(model, "conv2", 0.8),
        pictures.magnitudes_by_layer(model, 0.8),
        pictures.layer_sparsities({"per layer": report, "global": report}),
        pictures.sensitivity({"conv1": [0.9, 0.5], "fc": [0.9, 0.8]}, [0.5, 0.9]),
        pictures.two_scans({"conv1": 0.5, "fc": 0.8}, {"fc": 0.8, "conv1": 0.9}, 0.9),
        pictures.schedules({"linear": lambda step: linear_schedule(step, 3, 0.6)}, 4),
        pictures.iterative_runs({"global, linear": epochs}),
        pictures.pareto({"global": [(0.0, 0.9), (0.5, 0.8)]}, 0.9),
        pictures.bytes_and_latency(rows, rows),
    ]
    for figure in figures:
        assert figure.axes[0].get_ylabel() or figure.axes[0].get_xlabel()
        plt.close(figure)


def test_pictures_show_the_numbers_that_they_name():
    figure = pictures.two_scans({"conv1": 0.5, "fc": 0.8}, {"fc": 0.7, "conv1": 0.9}, 0.9)
    points = {line.get_label(): list(line.get_xdata()) for line in figure.axes[0].lines}
    assert points["statistics of the dense network"] == [0.5, 0.8]
    assert points["statistics of its own"] == [0.9, 0.7]
    figure = pictures.schedules({"linear": lambda step: linear_schedule(step, 2, 0.8)}, 2)
    assert list(figure.axes[1].lines[0].get_ydata()) == pytest.approx([0.4, 0.4 / 0.6])  # of all; of the 60 % left
    plt.close("all")


def test_sweep_starts_from_the_same_network_every_time():
    model = toy_network(9)
    results = sweeps.sweep(model, [0.5, 0.0], {"per layer": prune_by_percentage}, lambda m: m.fc.weight.abs().sum().item())
    assert results["per layer"][0][0] == pytest.approx(113 / 224)
    assert results["per layer"][1] == (0.0, model.fc.weight.abs().sum().item())


def test_frozen_convolutions_do_not_move():
    model = toy_network(10)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    with sweeps.frozen_convolutions(model):
        toy_steps(torch.optim.SGD(model.parameters(), 0.02, momentum=0.9, weight_decay=0.1), model, 3, seed=0)
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"conv1.bias", "bn1.weight", "bn1.bias", "conv2.bias", "fc.weight", "fc.bias"}
    assert all(value.requires_grad for value in model.parameters())


def test_finetuner_follows_one_cosine_over_all_epochs_and_shuffles_each_anew():
    model, images = tiny_model(), tiny_dataset(n_train=512)
    rates, first_images = [], []

    class Recorded(MaskedOptimizer):
        def step(self):
            rates.append(self.param_groups[0]["lr"])
            super().step()

    model.register_forward_pre_hook(lambda module, inputs: first_images.append(inputs[0][0]) if module.training else None)
    masks = global_prune_by_percentage(model, 0.5)
    finetune = sweeps.Finetuner(images, profiles.PROFILES["quick"], epochs=3, lr=0.05, masked_optimizer=Recorded)
    done = [finetune(model, masks) for _ in range(3)]
    expected = [0.05 * (1 + math.cos(math.pi * (step + 0.5) / 12)) / 2 for step in range(12)]
    assert rates == pytest.approx(expected)
    assert not any(torch.equal(first_images[0], first_images[4 * epoch]) for epoch in (1, 2))
    assert [epoch.accuracy_before for epoch in done[1:]] == [epoch.accuracy for epoch in done[:-1]]


def test_finetuner_keeps_zeros():
    model, data = tiny_model(), tiny_dataset()
    profile = profiles.PROFILES["quick"]
    masks = global_prune_by_percentage(model, 0.5)
    finetune = sweeps.Finetuner(data, profile, epochs=2, lr=0.05, masked_optimizer=MaskedOptimizer, label=None)
    first, second = finetune(model, masks), finetune(model, masks)
    assert first.masked
    assert math.isnan(first.accuracy)  # without a label nothing is evaluated
    assert first.sparsity == second.sparsity == sparsity_report(model)["total"]["sparsity"]
    assert finetune.epochs_done == [first, second]
    with pytest.raises(ValueError, match="planned for 2 epochs and has done them"):
        finetune(model, masks)
    assert all((layer.weight[~masks[name]] == 0.0).all() for name, layer in weighted_layers(model))


# --- the published numbers -------------------------------------------------------------------------------------------


@needs_cifar10
@pytest.mark.skipif(not CIFAR10_CHECKPOINT.is_file(), reason=f"no checkpoint {CIFAR10_CHECKPOINT} (course pretrain)")
@pytest.mark.parametrize(
    ("checkpoint", "prune", "sparsity", "published"),
    [
        ("cifar10", prune_by_percentage, 0.4, 0.8874),
        ("cifar10", global_prune_by_percentage, 0.4, 0.8874),
        ("cifar10", global_prune_by_percentage, 0.6, 0.7223),
        ("cifar10_restarted", prune_by_percentage, 0.4, 0.8874),
        ("cifar10_restarted", prune_by_percentage, 0.6, 0.7223),
    ],
)
def test_one_shot_pruning_on_cifar10_reaches_the_published_accuracy(checkpoint, prune, sparsity, published):
    """The published numbers are per layer, from a network of accuracy 0.9151.

    Per layer at 0.6 the more accurate of our checkpoints (0.9262) stays below (Lab 2, section 12, says so); the one that
    was restarted with more weight decay (0.9223) does not.
    """
    model = checkpoints.load_resnet20(checkpoint)
    prune(model, sparsity)
    assert evaluate(model, load_cifar10(), on=runtime.detect("cpu", precision="fp32")) >= published
