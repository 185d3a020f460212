"""Structured pruning against torch.nn.utils.prune, torch-pruning, closed forms, and the masked network's outputs."""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
import torch_pruning  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn.utils import prune as torch_prune  # noqa: E402

from course_utils import checkpoints, profiles, runtime  # noqa: E402
from course_utils.accounting import count_macs, n_parameters  # noqa: E402
from course_utils.convnet import ConvNet  # noqa: E402
from course_utils.pruning import (  # noqa: E402
    SparseConv2d,
    filter_l1_mask,
    filter_l1_pruning,
    group_lasso,
    group_lasso_step,
    moving_average,
    n_m_mask,
    remove_pruned_filters,
    structured_runs,
    unstructured_pruning,
)
from course_utils.pruning import structured_costs as costs  # noqa: E402
from course_utils.pruning import structured_plots as pictures  # noqa: E402
from course_utils.pruning.channels import channel_links, prunable_convolutions, silence_filters  # noqa: E402
from course_utils.pruning.roofline import layer_points, measure_machine  # noqa: E402
from course_utils.pruning.structured_given import (  # noqa: E402
    convolutions,
    effective_weight,
    folded_copy,
    remaining_filters,
    set_masks,
    small_masks,
    toy_chain,
    toy_images,
    toy_lengths,
    toy_residual,
)
from course_utils.pruning.structured_plan import structured_plan_for  # noqa: E402
from course_utils.pruning.structured_widgets import FilterExplorer, FractionPoint  # noqa: E402
from course_utils.resnet import resnet20  # noqa: E402
from tests.course_utils.tiny import tiny_dataset  # noqa: E402

FRACTIONS = [0.1, 0.25, 0.5, 0.7]


def trained_like(model: nn.Module, seed: int = 0) -> nn.Module:
    """A float32 model in evaluation mode with batch-norm numbers that are neither 0 nor 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean):
                    tensor.copy_(0.5 * torch.randn(tensor.shape, generator=generator))
                module.running_var.copy_(torch.rand(module.running_var.shape, generator=generator) + 0.5)
    return model.eval()


def largest_difference(one: nn.Module, two: nn.Module, images: torch.Tensor) -> float:
    with torch.inference_mode():
        return float((one(images) - two(images)).abs().max())


# --- moving_average --------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30), data=st.data())
def test_moving_average_is_the_valid_convolution(values, data):
    window = data.draw(st.integers(1, len(values)))
    expected = np.convolve(values, np.ones(window) / window, mode="valid")
    np.testing.assert_allclose(moving_average(np.array(values), window), expected, atol=1e-9)


@pytest.mark.parametrize(("window", "error"), [(0, ValueError), (4, ValueError), (1.5, TypeError)])
def test_moving_average_refuses_windows_that_do_not_fit(window, error):
    with pytest.raises(error, match="window"):
        moving_average(np.ones(3), window)


# --- SparseConv2d ----------------------------------------------------------------------------------------------------


def test_sparse_convolution_with_ones_is_the_ordinary_one():
    torch.manual_seed(0)
    sparse = SparseConv2d(3, 5, 3, stride=2, padding=1)
    plain = nn.Conv2d(3, 5, 3, stride=2, padding=1)
    plain.load_state_dict({name: tensor for name, tensor in sparse.state_dict().items() if name != "mask"})
    images = torch.randn(2, 3, 9, 9)
    assert torch.equal(sparse(images), plain(images))


def test_masked_weights_get_no_gradient_and_the_others_the_usual_one():
    torch.manual_seed(1)
    sparse, images = SparseConv2d(3, 5, 3), torch.randn(2, 3, 9, 9)
    sparse.mask.copy_(torch.rand(sparse.mask.shape) < 0.5)
    masked = (sparse.weight.detach() * sparse.mask).requires_grad_()
    nn.functional.conv2d(images, masked, sparse.bias.detach()).square().sum().backward()
    sparse(images).square().sum().backward()
    torch.testing.assert_close(sparse.weight.grad, masked.grad * sparse.mask)
    assert (sparse.weight.grad[sparse.mask == 0] == 0).all()


def test_folding_gives_plain_convolutions_with_the_same_outputs():
    model = toy_chain(1, SparseConv2d)
    unstructured_pruning(model, 0.5)
    folded = folded_copy(model)
    assert not any(isinstance(conv, SparseConv2d) for _, conv in convolutions(folded))
    assert largest_difference(model, folded, toy_images(1, 4, 6)) == 0


# --- masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.7, 0.95])
@pytest.mark.parametrize("shape", [(16, 3, 3, 3), (12, 12, 3, 3), (10, 7)])
def test_filter_masks_agree_with_ln_structured(shape, fraction):
    torch.manual_seed(len(shape))
    layer = nn.Linear(1, 1)
    layer.weight = nn.Parameter(torch.randn(shape))
    ours = filter_l1_mask(layer.weight, fraction)
    theirs = torch_prune.ln_structured(layer, "weight", amount=fraction, n=1, dim=0).weight_mask.flatten(1)
    assert torch.equal(ours, theirs.all(1))
    assert int((~ours).sum()) == round(fraction * shape[0])


def test_two_of_four_agrees_with_torch_ao():
    """torch.ao.pruning's sparsifier makes 2:4 masks of matrices, along the same axis."""
    from torch.ao import pruning as sparsifier_module

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 8))
    sparsifier = sparsifier_module.WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2)
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
    sparsifier.step()
    theirs = model[0].parametrizations.weight[0].mask.bool()
    assert torch.equal(n_m_mask(model[0].parametrizations.weight.original, 2, 4), theirs)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 99), m=st.sampled_from([1, 2, 4, 8]), data=st.data())
def test_every_group_keeps_exactly_its_n_largest(seed, m, data):
    n = data.draw(st.integers(1, m))
    weight = torch.randint(-3, 4, (3, 8, 2, 2), generator=torch.Generator().manual_seed(seed)).float()
    mask = n_m_mask(weight, n, m).unflatten(1, (-1, m))
    assert (mask.sum(2) == n).all()
    magnitudes = weight.abs().unflatten(1, (-1, m))
    assert (magnitudes.masked_fill(~mask, -1).amax(2) >= magnitudes.masked_fill(mask, -1).amax(2)).all()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: filter_l1_mask(torch.ones(3), 0.5), ValueError, "weight"),
        (lambda: filter_l1_mask(torch.ones(3, 2), 50), ValueError, "write 0.5"),
        (lambda: filter_l1_mask([[1.0]], 0.5), TypeError, "weight"),
        (lambda: n_m_mask(torch.ones(2, 6), 2, 4), ValueError, "multiple of m = 4"),
        (lambda: n_m_mask(torch.ones(2, 8), 5, 4), ValueError, "n must"),
        (lambda: n_m_mask(torch.ones(2, 8), 2.0, 4), TypeError, "n must"),
        (lambda: filter_l1_pruning(nn.Linear(2, 2), 0.5), ValueError, "convolution"),
        (lambda: unstructured_pruning(torch.ones(2), 0.5), TypeError, "model"),
        (lambda: group_lasso_step(toy_chain(1), -1.0), ValueError, "threshold"),
        (lambda: silence_filters(toy_residual(1), {"conv1": torch.ones(4, dtype=torch.bool)}), ValueError, "addition"),
        (lambda: silence_filters(toy_chain(1), {"conv9": torch.ones(4, dtype=torch.bool)}), ValueError, "conv9"),
        (lambda: silence_filters(toy_chain(1), {"conv1": torch.ones(4, dtype=torch.bool)}), ValueError, "shape"),
        (lambda: set_masks(toy_chain(1), {"conv1": torch.ones(4)}), ValueError, "conv1"),
        (lambda: ConvNet(image_size=4), ValueError, "image_size"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


# --- channels --------------------------------------------------------------------------------------------------------


def test_links_of_the_convnet_and_of_resnet20():
    links = channel_links(ConvNet((4, 8), image_size=12, convs_per_stage=2))
    assert [(link.conv, link.norms, link.readers) for link in links] == [
        ("conv1", ["bn1"], {"conv2": 1}), ("conv2", ["bn2"], {"conv3": 1}), ("conv3", ["bn3"], {"conv4": 1}),
        ("conv4", ["bn4"], {"fc": 9}),
    ]  # fmt: skip
    free = [name for name, _ in prunable_convolutions(resnet20())]
    assert free == [f"stage{stage}.{block}.conv1" for stage in (1, 2, 3) for block in range(3)]


class Odd(nn.Module):
    """Two convolutions with something in between."""

    def __init__(self, between, groups=1):
        super().__init__()
        self.one, self.two, self.between = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 2, 1, groups=groups), between

    def forward(self, x):
        return self.two(self.between(self.one(x)))


@pytest.mark.parametrize(
    ("between", "groups", "reason"),
    [
        (nn.Sigmoid(), 1, "leave zeros at zero"),
        (nn.Softmax(dim=1), 1, "one by one"),
        (nn.BatchNorm2d(4, affine=False), 1, "no scale"),
        (nn.ReLU(), 2, "2 groups"),
    ],
)
def test_what_cannot_be_followed_is_an_obstacle(between, groups, reason):
    model = Odd(between, groups)
    assert reason in channel_links(model)[0].obstacle
    model.one.weight.data[0] = 0
    with pytest.raises(ValueError, match=reason):
        remove_pruned_filters(model)


def test_dense_network_output_and_shared_convolutions_are_obstacles():
    assert "network's" in channel_links(nn.Sequential(nn.Conv2d(1, 2, 1)))[0].obstacle
    shared = nn.Conv2d(2, 2, 1)
    assert "more than once" in channel_links(nn.Sequential(shared, nn.ReLU(), shared))[0].obstacle


def test_silent_channels_are_zero_for_every_input():
    model = toy_chain(3)
    masks = filter_l1_pruning(model, 0.5)
    seen = {}
    model.relu1.register_forward_hook(lambda *parts: seen.update(relu1=parts[2]))
    model.relu2.register_forward_hook(lambda *parts: seen.update(relu2=parts[2]))
    model.train()(toy_images(3, 4, 6))
    for number in (1, 2):
        active = (seen[f"relu{number}"] != 0).any(dim=3).any(dim=2).any(dim=0)
        assert not active[~masks[f"conv{number}"]].any()


def test_without_silence_a_pruned_filter_speaks_through_its_batch_norm():
    """The property tested above is not empty: zero weights alone leave a constant."""
    model = toy_chain(3)
    model.conv1.weight.data[0] = 0
    channel = model.bn1(model.conv1(toy_images(3, 4, 6)))[:, 0]
    assert channel.abs().min() > 0
    assert channel.max() == channel.min()


# --- removal ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_smaller_convnet_computes_the_same(fraction):
    torch.manual_seed(0)
    model = trained_like(ConvNet((16, 32), convs_per_stage=2, conv=SparseConv2d))
    filter_l1_pruning(model, fraction)
    small = remove_pruned_filters(model)
    kept = [count - round(fraction * count) for count in (16, 16, 32, 32)]
    assert list(remaining_filters(small).values()) == kept
    assert [conv.out_channels for _, conv in convolutions(small)] == kept
    assert small.fc.in_features == kept[-1] * 49
    images = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    assert largest_difference(model, small, images) < 1e-5  # float32: sums of the same products in another order


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_smaller_resnet20_computes_the_same(fraction):
    model = checkpoints.load_resnet20("fashion_mnist")
    filter_l1_pruning(model, fraction)
    small = remove_pruned_filters(model)
    images = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    assert largest_difference(model, small, images) < 1e-5  # float32, as above
    assert n_parameters(small) < n_parameters(model)
    for stage, width in (("stage1", 16), ("stage2", 32), ("stage3", 64)):
        for block in getattr(small, stage):
            assert block.conv1.out_channels == block.conv2.in_channels == width - round(fraction * width)
            assert block.conv2.out_channels == width


def test_the_smaller_network_trains_like_the_masked_one():
    """Gradients of what is left agree too: silence holds in training mode, where batch norm uses the batch."""
    model = toy_chain(5).train()
    masks = small_masks(model, 5)
    silence_filters(model, masks)
    small, images = remove_pruned_filters(model), toy_images(5, 4, 6)
    for network in (model, small):
        network(images).square().sum().backward()
    torch.testing.assert_close(small.conv1.weight.grad, model.conv1.weight.grad[masks["conv1"]])
    torch.testing.assert_close(small.fc.bias.grad, model.fc.bias.grad)


@pytest.mark.parametrize("build", [lambda: ConvNet((8, 16), image_size=12), resnet20], ids=["convnet", "resnet20"])
def test_sizes_agree_with_torch_pruning(build):
    torch.manual_seed(2)
    model = trained_like(build())
    images = torch.randn(1, model.get_submodule("conv1").in_channels, 12, 12)
    masks = small_masks(model, 2)
    silence_filters(model, masks)
    ours, theirs = remove_pruned_filters(model), copy.deepcopy(model)
    graph = torch_pruning.DependencyGraph().build_dependency(theirs, example_inputs=images)
    for name, mask in masks.items():
        removed = (~mask).nonzero().flatten().tolist()
        if removed:
            conv = theirs.get_submodule(name)
            graph.get_pruning_group(conv, torch_pruning.prune_conv_out_channels, idxs=removed).prune()
    shapes = {name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()}
    assert {name: tuple(tensor.shape) for name, tensor in ours.state_dict().items()} == shapes
    assert count_macs(ours, tuple(images.shape[1:])) == count_macs(theirs, tuple(images.shape[1:]))
    assert largest_difference(ours, theirs, images) < 1e-5  # float32, as above


def test_half_of_the_filters_is_a_quarter_of_a_middle_layer():
    model = trained_like(ConvNet((16, 32), image_size=8))
    filter_l1_pruning(model, 0.5)
    small = remove_pruned_filters(model)
    assert 4 * small.conv2.weight.numel() == model.conv2.weight.numel()
    assert count_macs(small, (1, 8, 8)) == 8 * 64 * 9 + 16 * 16 * 8 * 9 + 10 * 16 * 4


def test_removal_says_what_it_cannot_remove():
    model = trained_like(resnet20(1))
    model.stage2[1].conv2.weight.data[5] = 0
    with pytest.raises(ValueError, match=r"\[5\] of stage2.1.conv2 .*residual addition"):
        remove_pruned_filters(model)
    chain = toy_chain(1)
    chain.conv1.weight.data[2] = 0
    with pytest.raises(ValueError, match=r"\[2\] of conv1 .*silence_filters"):
        remove_pruned_filters(chain)
    filter_l1_pruning(chain, 1.0)
    with pytest.raises(ValueError, match="no filter left"):
        remove_pruned_filters(chain)


# --- group Lasso -----------------------------------------------------------------------------------------------------


def test_group_lasso_and_its_step_on_known_lengths():
    model = toy_lengths()
    assert float(group_lasso(model).detach()) == 21.0
    group_lasso_step(model, 1.5)
    lengths = [round(float(row.norm()), 12) for layer in (model[0], model[2]) for row in layer.weight.detach()]
    assert lengths == [3.5, 11.5, 0.0, 0.0, 0.5]


def test_the_step_minimises_the_proximal_objective():
    """prox(v) minimises ||w - v||^2 / 2 + t R(w): no small change of any filter is better."""
    model, threshold = toy_chain(7), 0.8
    before = copy.deepcopy(model)

    def objective() -> float:
        pairs = zip(prunable_convolutions(model), prunable_convolutions(before), strict=True)
        distance = sum((new.weight - old.weight).square().sum() / 2 for (_, new), (_, old) in pairs)
        return float((distance + threshold * group_lasso(model)).detach())

    group_lasso_step(model, threshold)
    best, generator = objective(), torch.Generator().manual_seed(0)
    for _ in range(50):
        changed = [0.01 * torch.randn(conv.weight.shape, generator=generator) for _, conv in prunable_convolutions(model)]
        for sign in (1, -1):
            for (_, conv), change in zip(prunable_convolutions(model), changed, strict=True):
                conv.weight.data += sign * change
            assert objective() >= best
            for (_, conv), change in zip(prunable_convolutions(model), changed, strict=True):
                conv.weight.data -= sign * change


# --- costs -----------------------------------------------------------------------------------------------------------


def test_needed_macs_leave_zeros_out():
    model = ConvNet((4, 8), image_size=8)
    dense = costs.needed_macs(model, (1, 8, 8))
    assert dense == count_macs(model, (1, 8, 8))
    model.conv2.weight.data[:, :2] = 0
    assert costs.needed_macs(model, (1, 8, 8)) == dense - 16 * 8 * 2 * 9


@pytest.mark.parametrize("layout", ["dense", "csr"])
def test_matrix_products_compute_the_convolution(layout):
    model = trained_like(ConvNet((4, 8), image_size=8))
    unstructured_pruning(model, 0.7)
    images = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert largest_difference(model, costs.with_layout(model, layout), images) < 1e-5  # float32, another order
    conv = nn.Conv2d(3, 5, (3, 5), stride=2, padding=(1, 2))
    images = torch.randn(2, 3, 9, 11)
    torch.testing.assert_close(costs.MatmulConv2d(conv, layout)(images), conv(images), atol=1e-5, rtol=0)


def test_two_four_packing_is_lossless_and_counts_its_bytes():
    torch.manual_seed(0)
    model = ConvNet((8, 12), image_size=8)
    set_masks(model, {"conv2": n_m_mask(model.conv2.weight)})
    assert costs.two_four_layers(model) == ["conv2"]
    weight = model.conv2.weight.detach()
    parts = costs.pack_two_four(weight)
    assert torch.equal(costs.unpack_two_four(parts, tuple(weight.shape)), weight)
    n = weight.numel()
    assert sum(part.nbytes for part in parts.values()) == 4 * n // 2 + n // 8
    form = costs.Form(model, model, "2:4")
    assert costs.file_bytes(costs.Form(model, model)) - costs.file_bytes(form) == 4 * n - 2 * n - n // 8


def test_costs_promise_and_table(capsys):
    model = trained_like(ConvNet((4, 8), image_size=8))
    filter_l1_pruning(model, 0.5)
    small = remove_pruned_filters(model)
    forms = {"dense": costs.Form(model, model), "cut": costs.Form(small, small)}
    measured = costs.measure_costs(forms, (1, 8, 8), batch_sizes=(1, 4), rounds=1, repeats=2)
    costs.print_costs(measured, "dense")
    assert "cut" in capsys.readouterr().out
    halved = costs.Cost(measured["dense"].macs // 4, 1, {1: measured["dense"].latency_ms[1] / 2})
    assert costs.promise_kept(measured["dense"], halved, 1) == pytest.approx(0.5 / 0.75, rel=1e-3)  # macs // 4 rounds
    figure = pictures.promise_and_time({"dense": costs.Cost(800, 400, {1: 6.0}), "cut": costs.Cost(200, 50, {1: 4.0})}, "dense")
    assert [bar.get_height() for bar in figure.axes[0].patches] == [4.0, 8.0, 1.5]  # MACs, bytes, time
    plt.close(figure)


def test_roofline_counts_useful_products_and_bytes():
    model = trained_like(ConvNet((4, 8), image_size=8))
    unstructured_pruning(model, 0.5)
    points = layer_points(model, torch.randn(2, 1, 8, 8), repeats=1)
    assert [point.layer for point in points] == ["conv1", "conv2"]
    moved = 4 * (2 * 4 * 16 + 2 * 8 * 16 + 8 * 4 * 9)  # conv2: input, output, weight
    assert points[1].intensity == pytest.approx(144 * 2 * 16 / moved)
    machine = measure_machine(size=64, megabytes=1)
    assert machine.ridge == machine.gmacs / machine.gbytes > 0
    plt.close(pictures.roofline(machine, {"dense": points}))


def test_benchmark_prints_every_form_and_the_share_of_the_promise(capsys):
    path = Path(__file__).parents[2] / "benchmarks" / "structured.py"
    spec = importlib.util.spec_from_file_location("benchmark_structured", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    forms = benchmark.forms_of(trained_like(ConvNet((4, 8))), sparsity=0.9)
    images = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    for form in forms.values():
        assert largest_difference(form.plain, form.runs, images) < 1e-5  # float32, another order
    assert largest_difference(*(forms[f"half of the filters {how}"].runs for how in ("masked", "cut")), images) < 1e-5
    benchmark.report("4-8", forms, rounds=1, repeats=1)
    printed = capsys.readouterr().out
    assert all(name in printed for name in forms)
    assert "time falls by this share" in printed


# --- runs, pictures, slider ------------------------------------------------------------------------------------------


@pytest.fixture
def tiny_trainer(monkeypatch):
    """A trainer of a tiny ConvNet on tiny images, pruning 10 % more before every epoch."""
    plan = dataclasses.replace(structured_plan_for(profiles.PROFILES["quick"]), widths=(8, 12), batch_size=16)
    monkeypatch.setattr(structured_runs, "structured_plan_for", lambda profile: plan)
    return structured_runs.Trainer(tiny_dataset(), profiles.PROFILES["quick"], SparseConv2d)


def test_filters_stay_silent_while_training(tiny_trainer, capsys):
    run = tiny_trainer("filters", epochs=7, lr=0.05, schedule="cosine", prune=filter_l1_pruning)
    assert run.fraction == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5]
    assert [np.isfinite(value) for value in run.before] == [False, True, True, True, True, True, False]
    assert remaining_filters(run.model) == {"conv1": 4, "conv2": 6}
    assert len(run.steps.loss) == len(run.steps.rates) == 7 * 12
    images = torch.randn(4, 1, 8, 8)
    run.model.eval()
    assert largest_difference(run.model, remove_pruned_filters(run.model), images) < 1e-5  # float32, another order
    plt.close(pictures.pruning_runs({"filters": run}))
    assert "filters" in capsys.readouterr().out


def test_masks_keep_weights_out_while_training(tiny_trainer):
    run = tiny_trainer("weights", epochs=7, lr=0.05, schedule="cosine", prune=unstructured_pruning)
    for _, conv in convolutions(run.model):
        assert int((effective_weight(conv) == 0).sum()) == round(0.5 * conv.weight.numel())


def test_every_run_starts_from_the_same_weights(tiny_trainer):
    one, two = tiny_trainer.fresh_model(), tiny_trainer.fresh_model()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_range_test_raises_the_rate_to_its_end(tiny_trainer):
    record = structured_runs.range_test(tiny_trainer, 20, highest=1.0, lowest=1e-3)
    assert len(record.rates) == 20
    ratios = np.diff(np.log(record.rates))
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-9)
    assert 1e-3 < record.rates[0] < 2e-3
    assert 0.5 < record.rates[-1] < 1.0
    plt.close(pictures.range_test(record.rates, record.loss, moving_average(record.loss, 4)))


def test_finetuning_keeps_filters_silent(tiny_trainer):
    model = tiny_trainer.fresh_model()
    masks = structured_runs.prune_by_batch_norm(model, 0.5, filter_l1_mask)
    before = copy.deepcopy(model.state_dict())
    after = structured_runs.finetuned(model, masks, tiny_dataset(), profiles.PROFILES["quick"], epochs=1, lr=0.05)
    assert remaining_filters(after) == {"conv1": 4, "conv2": 6}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    remove_pruned_filters(after)


def test_batch_norm_penalty_and_criterion_look_at_scales():
    model = toy_chain(1)
    with torch.no_grad():
        model.bn1.weight.copy_(torch.tensor([3.0, -0.1, 0.2, -4.0, 5.0, 0.3]))
    assert float(structured_runs.batch_norm_penalty(model).detach()) == pytest.approx(12.6)
    masks = structured_runs.prune_by_batch_norm(model, 0.5, filter_l1_mask)
    assert masks["conv1"].tolist() == [True, False, False, True, True, False]
    assert list(masks) == ["conv1"]  # conv2 has no batch norm


def test_losses_that_are_not_finite_are_clipped_for_the_picture():
    record = structured_runs.StepRecord([torch.tensor(2.0), torch.tensor(float("nan")), torch.tensor(float("inf"))])
    assert record.loss.tolist() == [2.0, 2.0, 2.0]


def test_every_profile_has_a_plan():
    for profile in profiles.PROFILES.values():
        plan = structured_plan_for(profile)
        assert plan.pruned_fraction(plan.prune_every - 1) == 0.0
        assert plan.pruned_fraction(plan.prune_every) == 0.1
        assert plan.pruned_fraction(plan.prune_epochs - 1) == 0.5
        assert plan.fractions[0] == 0.0
    with pytest.raises(ValueError, match="profile"):
        structured_plan_for(dataclasses.replace(profiles.PROFILES["quick"], name="slow"))


def test_slider_shows_every_point():
    weight = toy_chain(1).conv1.weight
    keep = [torch.arange(6) < n for n in (6, 4, 1)]
    points = [FractionPoint(f, kept, 0.8 - f, 0.9 - f, 1000 - int(900 * f), 3.0 - f)
              for f, kept in zip((0.0, 0.3, 0.8), keep, strict=True)]  # fmt: skip
    explorer, seen = FilterExplorer(weight, points), set()
    for position in range(3):
        explorer.slider.value = position
        seen.add(explorer.image.value)
    assert len(seen) == 3
    assert "3.6 times fewer MACs" in explorer.status.value  # 1000 / 280
    with pytest.raises(ValueError, match="points"):
        FilterExplorer(weight, [])


def test_pictures():
    weight = toy_chain(1).conv1.weight
    kept = filter_l1_mask(weight, 0.5)
    tiles = pictures.filter_tiles(weight, kept)
    assert np.isfinite(tiles).sum() == 3 * 9
    loss = np.array([2.0, 1.0, 0.5, 0.4])
    figures = [
        pictures.filters_before_and_after(weight, kept, "conv1"),
        pictures.step_curves({"0.1": (loss, loss / 2, moving_average(loss, 2), moving_average(loss / 2, 2))}, 2),
        pictures.schedule_runs({"cosine": [0.1, 0.05]}, {"cosine": [0.5, 0.6]}),
        pictures.filter_sizes({"no penalty": loss, "L1 on scales": loss}, {"L1 on scales": "batch-norm scale"}),
        pictures.criteria({"L1 norm": [(0.5, 0.3, 0.8), (0.75, 0.1, 0.7)]}),
    ]
    for figure in figures:
        assert any(axes.get_xlabel() for axes in figure.axes)
        plt.close(figure)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch's semi-structured tensors need a CUDA device")
def test_semi_structured_products_on_a_gpu():
    conv = nn.Conv2d(64, 64, 3, padding=1).half().cuda()
    conv.weight.data *= n_m_mask(conv.weight.data)
    images = torch.randn(8, 64, 8, 8, dtype=torch.float16, device="cuda")
    with torch.inference_mode():
        torch.testing.assert_close(costs.MatmulConv2d(conv, "2:4")(images), conv(images), atol=2e-2, rtol=2e-2)  # half


def test_convnet_has_the_layers_that_its_text_promises():
    model = ConvNet()
    with torch.inference_mode():
        assert model.eval()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert [conv.out_channels for _, conv in convolutions(model)] == [32, 64, 128]
    assert model.fc.in_features == 128 * 9
    runtime.seed_everything(0)
    assert isinstance(ConvNet(conv=SparseConv2d).conv2, SparseConv2d)


def test_filters_that_training_has_emptied_are_silenced_and_leave_the_masks():
    model = toy_chain(31)
    with torch.no_grad():
        model.conv1.weight[[1, 4]] = 0.0
        model.conv2.weight[:] = 0.0
    masks = {"conv1": torch.tensor([True, True, True, False, True, True]), "conv2": torch.arange(8) < 4}
    alive = structured_runs.without_empty(model, masks)
    assert alive["conv1"].tolist() == [True, False, True, False, False, True]
    assert torch.equal(alive["conv2"], masks["conv2"])  # nobody takes a layer's last filters
    assert not model.bn1.bias.detach()[[1, 3, 4]].any()
    assert model.bn1.bias.detach()[[0, 2, 5]].all()
