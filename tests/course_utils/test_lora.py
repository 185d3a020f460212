"""LoRA: equal to the PEFT library, exact where it is said to be exact, and frozen where it is said to be frozen."""

from __future__ import annotations

import copy
import math

import numpy as np
import peft
import pytest
import torch
from torch import nn

from course_utils import lora
from course_utils.lora.given import (
    FixedBatchNorm2d,
    base_weights,
    convolutions,
    fix_batch_norm,
    lora_layers,
    release_batch_norm,
    trained_names,
)
from course_utils.lora.toys import (
    fill_factors,
    normal,
    random_factor,
    toy_convolution,
    toy_images,
    toy_linear,
    toy_network,
    toy_steps,
    toy_updates,
)
from course_utils.resnet import resnet20

EVERY_LAYER = ["conv1", "conv20", "conv2", "head.fc1", "head.fc2"]


def adapted(seed: int, targets=EVERY_LAYER, rank: int = 2, alpha: float = 3.0) -> nn.Module:
    return fill_factors(lora.inject_lora(toy_network(seed), targets, rank, alpha), seed)


# --- the same as PEFT ------------------------------------------------------------------------------------------------


def peft_of(network: nn.Module, targets: list[str], rank: int, alpha: float) -> nn.Module:
    """The network adapted by PEFT, which computes in float32 or what it is given."""
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, lora_dropout=0.0, bias="none")
    return peft.get_peft_model(network, config).base_model.model


def copy_factors(ours: nn.Module, theirs: nn.Module) -> None:
    with torch.no_grad():
        for name, layer in lora_layers(ours):
            other = theirs.get_submodule(name)
            other.lora_A["default"].weight.copy_(layer.lora_a)
            other.lora_B["default"].weight.copy_(layer.lora_b)


@pytest.mark.parametrize(("rank", "alpha"), [(1, 1.0), (2, 3.0), (5, 16.0)])
@pytest.mark.parametrize("targets", [EVERY_LAYER, ["conv20"], ["head.fc1"]])
def test_outputs_equal_pefts(rank, alpha, targets):
    ours = fill_factors(lora.inject_lora(toy_network(1).float(), targets, rank, alpha), 3)
    theirs = peft_of(toy_network(1).float(), targets, rank, alpha)
    copy_factors(ours, theirs)
    images = toy_images(5).float()
    difference = (ours(images) - theirs(images)).abs().max()
    assert difference <= 1e-5 * ours(images).abs().max()
    assert (ours(images) - toy_network(1).float()(images)).abs().max() > 1e-2  # the adapters do something


@pytest.mark.parametrize("layer", [nn.Linear(7, 5), nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(3, 6, 1, bias=False)])
def test_updates_and_counts_equal_pefts(layer):
    network = nn.Sequential(layer)
    theirs = peft_of(copy.deepcopy(network), ["0"], 2, 8.0)
    ours = fill_factors(lora.inject_lora(network, ["0"], 2, 8.0), 1)
    copy_factors(ours, theirs)
    delta = theirs[0].get_delta_weight("default")
    torch.testing.assert_close(ours[0].delta_weight(), delta, rtol=0, atol=1e-5)
    assert lora.trainable_parameters(ours)[0] == sum(p.numel() for p in theirs.parameters() if p.requires_grad)


def test_factors_start_like_pefts():
    ours = lora.inject_lora(nn.Sequential(nn.Linear(300, 40)), ["0"], 64, 1.0)[0]
    theirs = peft_of(nn.Sequential(nn.Linear(300, 40)), ["0"], 64, 1.0)[0]
    a = theirs.lora_A["default"].weight
    assert ours.lora_a.abs().max() <= 1 / math.sqrt(300)
    assert ours.lora_a.std().item() == pytest.approx(a.std().item(), rel=0.05)  # 19200 samples: 0.4 % standard error
    assert not ours.lora_b.any()
    assert not theirs.lora_B["default"].weight.any()


def test_gradients_equal_pefts():
    ours = fill_factors(lora.inject_lora(toy_network(2).float(), EVERY_LAYER, 2, 3.0), 4)
    theirs = peft_of(toy_network(2).float(), EVERY_LAYER, 2, 3.0)
    copy_factors(ours, theirs)
    for network in (ours, theirs):
        network(toy_images(6).float()).square().mean().backward()
    for name, layer in lora_layers(ours):
        other = theirs.get_submodule(name)
        for mine, their in ((layer.lora_a, other.lora_A), (layer.lora_b, other.lora_B)):
            torch.testing.assert_close(mine.grad, their["default"].weight.grad, rtol=1e-4, atol=1e-5)


# --- exactness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_b_is_exactly_the_base(dtype):
    network, images = toy_network(1).to(dtype), toy_images(2).to(dtype)
    before = network(images)
    assert torch.equal(lora.inject_lora(network, EVERY_LAYER, 3, 5.0)(images), before)


def test_zero_b_is_exactly_the_base_for_resnet20():
    network, images = resnet20().eval(), torch.randn(2, 3, 32, 32)
    before = network(images)
    assert torch.equal(lora.inject_lora(network, [*convolutions(network), "fc"], 4, 8.0)(images), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_merge_keeps_outputs_and_unmerge_restores_weights(dtype):
    network, images = adapted(3).to(dtype), toy_images(4).to(dtype)
    weights = {name: weight.clone() for name, weight in base_weights(network).items()}
    before = network(images)
    lora.merge(network)
    # float32: layers of up to 36 products of size 1, relative rounding 6e-8
    torch.testing.assert_close(network(images), before, rtol=1e-4 if dtype == torch.float32 else 1e-10, atol=1e-5)
    assert all(not torch.equal(weight, weights[name]) for name, weight in base_weights(network).items())
    lora.unmerge(network)
    for name, weight in base_weights(network).items():
        assert (weight - weights[name]).abs().max() <= 1e-6, name
    torch.testing.assert_close(network(images), before, rtol=1e-4, atol=1e-5)


def test_merge_and_unmerge_are_idempotent():
    network = adapted(5)
    lora.unmerge(network)
    weights = {name: weight.clone() for name, weight in base_weights(network).items()}
    lora.merge(network)
    lora.merge(network)
    for name, product in toy_updates(5, EVERY_LAYER, 2).items():
        torch.testing.assert_close(base_weights(network)[name], weights[name] + 1.5 * product, rtol=0, atol=1e-12)
    lora.unmerge(network)
    lora.unmerge(network)
    for name, weight in base_weights(network).items():
        torch.testing.assert_close(weight, weights[name], rtol=0, atol=1e-12)


def test_two_tasks_share_one_base():
    first, second = adapted(7), fill_factors(lora.inject_lora(toy_network(7), EVERY_LAYER, 2, 3.0), 50)
    expected = {1: first(toy_images(1)), 2: second(toy_images(1))}
    tasks = {1: lora.lora_state_dict(first), 2: lora.lora_state_dict(second)}
    network = lora.inject_lora(toy_network(7), EVERY_LAYER, 2, 3.0)
    for task in (1, 2, 1):
        lora.unmerge(network)
        network.load_state_dict(tasks[task], strict=False)
        lora.merge(network)
        torch.testing.assert_close(network(toy_images(1)), expected[task], rtol=0, atol=1e-9)


# --- what trains -----------------------------------------------------------------------------------------------------


def test_frozen_parameters_never_change():
    network = lora.inject_lora(toy_network(8), ["conv1", "head.fc1"], 2, 4.0)
    toy_steps(network, 20, seed=1)
    original = dict(toy_network(8).named_parameters())
    for name, parameter in network.named_parameters():
        if "lora_" in name:
            assert parameter.any(), name
        else:
            assert torch.equal(parameter, original[name.replace(".base", "")]), name


def test_first_step_moves_b_alone():
    layer = lora.LoRALinear(toy_linear(1), 2, 4.0)
    a = layer.lora_a.detach().clone()
    layer(normal(2, 8, 5)).square().mean().backward()
    assert not layer.lora_a.grad.any()
    assert layer.lora_b.grad.all()
    assert torch.equal(layer.lora_a, a)


def test_first_step_is_a_scaled_step_of_full_finetuning():
    """E[update] = -lr alpha^2 / (n r) dL/dW when the entries of A have variance 1 / n."""
    n, rank, alpha, rate = 6, 3, 2.0, 0.1
    x, target = normal(1, 32, n), normal(2, 32, 4)
    base = toy_linear(3, n, 4)
    weight = base.weight.detach().clone().requires_grad_()
    (x @ weight.T + base.bias.detach() - target).square().mean().backward()
    mean, repeats = torch.zeros_like(weight), 4000
    for seed in range(repeats):
        layer = lora.LoRALinear(copy.deepcopy(base), rank, alpha)
        with torch.no_grad():
            layer.lora_a.copy_(normal(100 + seed, rank, n) / math.sqrt(n))
        (layer(x) - target).square().mean().backward()
        with torch.no_grad():
            layer.lora_b -= rate * layer.lora_b.grad
            mean += layer.delta_weight() / repeats
    expected = -rate * alpha**2 / (n * rank) * weight.grad
    # entries of A^T A have a standard deviation of at most sqrt(2 r) / n: relative standard error about 0.02
    assert (mean - expected).norm() <= 0.08 * expected.norm()


@pytest.mark.parametrize("base", [toy_linear(1), toy_convolution(1)])
def test_parameters_of_an_adapter(base):
    cls = lora.LoRALinear if isinstance(base, nn.Linear) else lora.LoRAConv2d
    layer = cls(base, 3, 1.0)
    n_out, n_in = base.weight.flatten(1).shape
    assert lora.trainable_parameters(layer)[0] == 3 * (n_in + n_out)
    assert torch.linalg.matrix_rank(fill_factors(layer, 1).delta_weight().flatten(1)) == min(3, n_out, n_in)


def test_freeze_until_compares_whole_names():
    network = toy_network(1)
    lora.freeze_until(network, "conv2")
    assert trained_names(network)[0] == "conv2.weight"
    assert "conv20.weight" not in trained_names(network)


def test_trainable_parameters_of_resnet20():
    network = resnet20()
    assert lora.trainable_parameters(network) == (269_722, 269_722)
    lora.freeze_until(network, "fc")
    assert lora.trainable_parameters(network) == (650, 269_722)


def test_rank_6_in_every_convolution_of_resnet20_trains_at_most_15_percent():
    network = lora.inject_lora(resnet20(), convolutions(resnet20()), 6, 16.0)
    network.fc.requires_grad_(True)
    release_batch_norm(network)
    assert lora.trainable_parameters(network)[0] == 6 * 6331 + 1376 + 650 <= 0.15 * 269_722


def test_fixed_batch_norm_stays_as_it_is():
    network, images = resnet20(), torch.randn(4, 3, 16, 16)
    fix_batch_norm(network)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.train()
    outputs = network(images)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert torch.equal(outputs, network.eval()(images))
    assert not any("bn" in name for name in trained_names(network))
    release_batch_norm(network.train())
    network(images)
    assert not torch.equal(network.bn1.running_mean, before["bn1.running_mean"])
    assert not any(isinstance(module, FixedBatchNorm2d) for module in network.modules())
    assert "bn1.weight" in trained_names(network)


# --- the yardstick ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (6, 2, 3, 3)])
def test_best_low_rank_reaches_the_bound_of_eckart_and_young(shape):
    update = normal(1, *shape)
    values = np.linalg.svd(update.flatten(1).numpy())[1]
    for rank in range(min(update.flatten(1).shape) + 2):
        best = lora.best_low_rank(update, rank)
        assert best.shape == update.shape
        assert float((update - best).norm()) == pytest.approx(float(np.sqrt((values[rank:] ** 2).sum())), abs=1e-12)
        assert torch.linalg.matrix_rank(best.flatten(1)) == min(rank, len(values))


def test_no_trained_factorisation_beats_best_low_rank():
    update = normal(2, 6, 9)
    best = (update - lora.best_low_rank(update, 2)).norm()
    a, b = random_factor(3, 2, 9).requires_grad_(), random_factor(4, 6, 2).requires_grad_()
    optimizer = torch.optim.LBFGS([a, b], max_iter=500)

    def loss():
        optimizer.zero_grad()
        value = (update - b @ a).square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    left = (update - b @ a).norm()
    assert best - 1e-9 <= left <= 1.01 * best


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: lora.LoRALinear(nn.Conv2d(1, 1, 1), 2, 1.0), TypeError, "base must be an nn.Linear, got a Conv2d"),
        (lambda: lora.LoRALinear(nn.Linear(2, 2), 0, 1.0), ValueError, "rank"),
        (lambda: lora.LoRALinear(nn.Linear(2, 2), 2, 0.0), ValueError, "alpha"),
        (lambda: lora.LoRAConv2d(nn.Conv2d(4, 4, 3, groups=2), 2, 1.0), ValueError, "1 group"),
        (lambda: lora.LoRAConv2d(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), 2, 1.0), ValueError, "reflect"),
        (lambda: lora.LoRAConv2d(nn.Linear(4, 4), 2, 1.0), TypeError, "nn.Conv2d"),
        (lambda: lora.inject_lora(toy_network(1), ["fc"], 2, 1.0), ValueError, "fc"),
        (lambda: lora.inject_lora(toy_network(1), "conv1", 2, 1.0), TypeError, "single|sequence"),
        (lambda: lora.inject_lora(toy_network(1), ["bn1"], 2, 1.0), TypeError, "BatchNorm2d"),
        (lambda: lora.inject_lora(toy_network(1), ["conv1", "conv1"], 2, 1.0), ValueError, "once"),
        (lambda: lora.inject_lora(toy_network(1), ["conv1"], 2.0, 1.0), TypeError, "rank"),
        (lambda: lora.freeze_until(toy_network(1), "fc"), ValueError, "layer must be one of"),
        (lambda: lora.freeze_until(toy_network(1), "relu1"), ValueError, "relu1"),
        (lambda: lora.trainable_parameters([1]), TypeError, "model must be a torch module, got a list"),
        (lambda: lora.merge(None), TypeError, "model"),
        (lambda: lora.unmerge(None), TypeError, "model"),
        (lambda: lora.lora_state_dict(None), TypeError, "model"),
        (lambda: lora.best_low_rank(torch.ones(2, 2), -1), ValueError, "rank"),
        (lambda: lora.best_low_rank(torch.full((2, 2), float("nan")), 1), ValueError, "update"),
    ],
)
def test_bad_input_is_refused_by_name(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_refused_target_leaves_the_model_alone():
    network = toy_network(1)
    with pytest.raises(ValueError, match="nothing"):
        lora.inject_lora(network, ["conv1", "nothing"], 2, 1.0)
    assert not lora_layers(network)
    assert len(trained_names(network)) == len(list(network.parameters()))
