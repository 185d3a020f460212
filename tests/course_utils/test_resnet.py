"""ResNet-20: the network of the paper, layer by layer."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from course_utils import runtime
from course_utils.resnet import BasicBlock, resnet20, weighted_layers


def test_it_has_the_published_number_of_parameters():
    """By hand: convolutions 9 (3*16 + 6*16^2 + 16*32 + 5*32^2 + 32*64 + 5*64^2), batch norm 2 per channel, classifier."""
    convolutions = 9 * (3 * 16 + 6 * 16**2 + 16 * 32 + 5 * 32**2 + 32 * 64 + 5 * 64**2)
    batch_norm = 2 * (7 * 16 + 6 * 32 + 6 * 64)
    total = convolutions + batch_norm + 64 * 10 + 10
    assert total == 269_722
    assert sum(parameter.numel() for parameter in resnet20().parameters()) == total


def test_it_has_twenty_weighted_layers_in_published_order():
    layers = weighted_layers(resnet20())
    names = [f"stage{s}.{b}.conv{c}" for s in (1, 2, 3) for b in (0, 1, 2) for c in (1, 2)]
    assert [name for name, _ in layers] == ["conv1", *names, "fc"]
    shapes = [tuple(layer.weight.shape) for _, layer in layers]
    assert shapes[0] == (16, 3, 3, 3)
    assert shapes[6:9] == [(16, 16, 3, 3), (32, 16, 3, 3), (32, 32, 3, 3)]
    assert shapes[-2:] == [(64, 64, 3, 3), (10, 64)]


def test_weighted_layers_are_in_the_order_in_which_they_run():
    model, order = resnet20().eval(), []
    for name, layer in weighted_layers(model):
        layer.register_forward_hook(lambda *_, name=name: order.append(name))
    model(torch.zeros(1, 3, 32, 32))
    assert order == [name for name, _ in weighted_layers(model)]


@pytest.mark.parametrize(("n_channels", "size"), [(3, 32), (1, 28)])
def test_it_takes_both_data_sets(n_channels, size):
    model, shapes = resnet20(in_channels=n_channels), []
    for stage in (model.stage1, model.stage2, model.stage3):
        stage.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    assert model(torch.zeros(2, n_channels, size, size)).shape == (2, 10)
    assert shapes == [(16, size, size), (32, size // 2, size // 2), (64, size // 4, size // 4)]


def test_a_block_is_its_formula():
    runtime.seed_everything(0)
    block = BasicBlock(4, 8, stride=2).eval()
    x = torch.randn(2, 4, 6, 6)
    y = F.conv2d(F.relu(F.conv2d(x, block.conv1.weight, stride=2, padding=1)), block.conv2.weight, padding=1)
    shortcut = torch.zeros(2, 8, 3, 3)
    shortcut[:, 2:6] = x[:, :, ::2, ::2]
    # a fresh batch norm in evaluation mode divides by sqrt(1 + eps), eps = 1e-5: twice that in relative terms
    torch.testing.assert_close(block(x), F.relu(y + shortcut), rtol=1e-4, atol=1e-4)


def test_the_shortcut_has_no_parameters_and_carries_the_input_when_the_branch_is_zero():
    block = BasicBlock(4, 4).eval()
    torch.nn.init.zeros_(block.bn2.weight)
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(block(x), F.relu(x))
    assert len(list(BasicBlock(4, 8, stride=2).parameters())) == 6  # two convolutions, two batch norms


def test_weights_are_drawn_with_variance_two_over_fan_in():
    runtime.seed_everything(0)
    weight = resnet20().stage3[1].conv1.weight
    fan_in = 64 * 9
    assert weight.var().item() == pytest.approx(2 / fan_in, rel=0.03)  # 36864 draws: relative deviation 0.7 %
    assert weight.mean().item() == pytest.approx(0, abs=4 * (2 / fan_in / weight.numel()) ** 0.5)


def test_the_seed_decides_the_weights():
    runtime.seed_everything(1)
    first = resnet20().fc.weight
    runtime.seed_everything(1)
    assert torch.equal(first, resnet20().fc.weight)
