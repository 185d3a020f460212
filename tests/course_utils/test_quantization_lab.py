"""What Lab 3 stands on besides its exercises: plans, training loops, files of codes, pictures, sliders, ONNX."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np
import pytest
import torch
from bitarray import bitarray

from course_utils import checkpoints, profiles
from course_utils.data import load_cifar10
from course_utils.pruning import global_prune_by_percentage, prune_by_percentage
from course_utils.pruning.given import masks_of
from course_utils.quantization import (
    LSQ,
    SparseSTEQuantize,
    binarize,
    dequantize,
    huffman_code,
    int8,
    linear_quantize,
    quantize,
    quantize_model,
    share_weights,
    training,
)
from course_utils.quantization import plots as pictures
from course_utils.quantization.codec import share_network, stage_sizes
from course_utils.quantization.given import small_network
from course_utils.quantization.plan import PLANS, plan_for
from course_utils.quantization.widgets import GridExplorer
from course_utils.resnet import weighted_layers
from course_utils.training import evaluate
from tests.course_utils.tiny import FP32, needs_cifar10, state_equal, tiny_dataset, tiny_model

TINY_PROFILE = dataclasses.replace(profiles.PROFILES["quick"], batch_size=32, padding=1)
TINY_PLAN = dataclasses.replace(PLANS["quick"], finetune_epochs=1, small_epochs=1, n_small_train=256)


def test_plans_of_both_profiles_and_no_other():
    assert plan_for(profiles.PROFILES["full"]).finetune_epochs == 20
    assert plan_for(profiles.PROFILES["quick"]).finetuned_bits == (4, 3, 2)
    with pytest.raises(ValueError, match="profile"):
        plan_for(dataclasses.replace(profiles.PROFILES["quick"], name="huge"))


@pytest.mark.parametrize("profile", sorted(PLANS))
def test_every_plan_finetunes_a_quantized_network(profile):
    """The full profile's numbers with tiny images: the published setting runs, if not at its size."""
    plan = dataclasses.replace(PLANS[profile], n_train=64)
    model, dataset = tiny_model(), tiny_dataset(n_train=64, n_test=16)
    for n_bits in plan.finetuned_bits:
        trained = training.finetune(quantize_model(model, n_bits), dataset, TINY_PROFILE, plan)
        assert np.isfinite(evaluate(trained, dataset, on=FP32))


# --- training --------------------------------------------------------------------------------------------------------


def test_finetuning_changes_a_copy_and_learns_the_steps():
    model = quantize_model(tiny_model(), 3, LSQ)
    before = copy.deepcopy(model)
    trained = training.finetune(model, tiny_dataset(), TINY_PROFILE, TINY_PLAN)
    assert state_equal(model, before)
    steps = {name: value for name, value in trained.named_parameters() if name.endswith("step_size")}
    assert len(steps) == 6
    assert all(value != dict(before.named_parameters())[name] for name, value in steps.items())


def test_steps_of_the_grid_have_no_weight_decay():
    optimizer = training.sgd_without_decay_on_steps(quantize_model(tiny_model(), 3, LSQ), 0.1)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [5e-4, 0.0]
    assert len(optimizer.param_groups[1]["params"]) == 6
    n_parameters = sum(len(group["params"]) for group in optimizer.param_groups)
    assert n_parameters == len(list(quantize_model(tiny_model(), 3, LSQ).parameters()))


def test_finetuning_with_masks_keeps_zeros_everywhere():
    model = tiny_model()
    masks = prune_by_percentage(model, 0.8)
    quantized = quantize_model(model, 4, lambda weight, n_bits: lambda w: SparseSTEQuantize.apply(w, n_bits))
    trained = training.finetune(quantized, tiny_dataset(), TINY_PROFILE, TINY_PLAN, masks)
    for name, mask in masks_of(trained).items():
        assert not (mask & ~masks[name]).any(), name


def test_a_small_network_learns_in_float_and_in_single_bits():
    plan = dataclasses.replace(TINY_PLAN, n_small_train=2560, small_epochs=2)
    for options in ({}, {"binarize": binarize}, {"binarize": binarize, "stochastic": True}):
        model, dataset = training.train_small_network(plan, **options)
        assert evaluate(model, dataset.subset(n_test=500), on=FP32) > 0.3  # chance is 0.1


def test_small_network_has_the_stated_size():
    assert sum(parameter.numel() for parameter in small_network().parameters()) == 105_978
    assert state_equal(small_network(3), small_network(3))


# --- files of codes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_bits", [1, 2, 3, 5, 8])
def test_packed_codes_have_their_bits_one_after_the_other(n_bits):
    codes = np.random.default_rng(n_bits).integers(0, 2**n_bits, size=(5, 7)).astype(np.uint8)
    packed = training.pack_codes(codes, n_bits)
    assert len(packed) == -(-35 * n_bits // 8)
    bits = bitarray()
    bits.frombytes(packed.tobytes())
    found = [int(bits[i : i + n_bits].to01(), 2) for i in range(0, 35 * n_bits, n_bits)]
    assert found == codes.ravel().tolist()


def test_bytes_of_a_file_of_codes_add_up(tmp_path):
    model = small_network()
    path = tmp_path / "codes"
    whole = sum(training.save_codes(model, path, None, quantize).values())
    assert whole == path.stat().st_size
    parts = training.save_codes(model, path, 4, quantize)
    assert sum(parts.values()) == path.stat().st_size
    assert parts["scale and shift"] == 8 * len(list(model.parameters()))
    assert 7 < whole / sum(parts.values()) < 8


def test_every_parameter_is_sent_through_the_grid():
    model = small_network()
    rounded = training.quantized_copy(model, 2, quantize, dequantize)
    for (name, before), after in zip(model.named_parameters(), rounded.parameters(), strict=True):
        assert len(after.unique()) <= 4, name
        assert (after - before).abs().max() <= (before.max() - before.min()) / 6 + 1e-6, name


def test_live_accuracy_rounds_inner_layers_and_leaves_the_model():
    model, dataset = tiny_model().eval(), tiny_dataset()
    before = copy.deepcopy(model)
    live = training.LiveAccuracy(model, dataset, linear_quantize, n=32)
    assert live(None) == evaluate(model, dataset.subset(n_test=32))
    live(2, per_channel=True, symmetric=False)
    layers = weighted_layers(live.model)
    assert all(len(channel.unique()) <= 4 for _, layer in layers[1:-1] for channel in layer.weight)
    assert torch.equal(layers[0][1].weight, model.conv1.weight)
    assert state_equal(model, before)


# --- pictures and sliders --------------------------------------------------------------------------------------------


def test_pictures_are_drawn(tmp_path):
    weight = tiny_model().stage1[0].conv1.weight.detach()
    pictures.before_and_after(weight, linear_quantize(weight, 3), "a layer")
    pictures.bits_and_accuracy({"per tensor, asymmetric": {8: 0.9, 2: 0.1}, "another": {8: 0.9, 2: 0.3}}, 0.92)
    pictures.finetuned([{"name": "LSQ", "bits": 2, "before": 0.1, "own": 0.6, "after": 0.8}], 0.9)
    pictures.two_grids(weight, {"one": linear_quantize(weight, 2), "two": linear_quantize(weight, 4)})
    model = tiny_model()
    global_prune_by_percentage(model, 0.5)
    pictures.stages(stage_sizes(model, share_network(model, 4, share_weights), tmp_path, huffman_code))
    assert len(plt.get_fignums()) == 5
    plt.close("all")


def test_the_slider_redraws_and_shows_errors():
    calls = []

    def accuracy(n_bits, **options):
        calls.append((n_bits, options))
        return 0.5

    explorer = GridExplorer(tiny_model(), linear_quantize, accuracy)
    first = bytes(explorer.image.value)
    assert first.startswith(b"\x89PNG")
    assert "accuracy of the batch 0.500" in explorer.status.value
    explorer.bits.value = 2
    assert bytes(explorer.image.value) != first
    explorer.symmetric.value = True
    explorer.per_channel.value = True
    explorer.layer.value = "fc"
    assert calls[0] == (4, {"per_channel": False, "symmetric": False})
    assert calls[-1] == (2, {"per_channel": True, "symmetric": True})
    n_calls = len(calls)
    explorer.bits.value, explorer.bits.value = 3, 2
    assert len(calls) == n_calls + 1  # what was visited is not computed again
    explorer.quantize = lambda *arguments, **options: 1 / 0
    explorer.bits.value = 5
    assert "ZeroDivisionError" in explorer.status.value


def test_the_slider_without_switches_asks_for_weight_and_bits_only():
    explorer = GridExplorer(tiny_model(), lambda weight, bits: linear_quantize(weight, bits), switches=False)
    assert "largest error" in explorer.status.value
    assert explorer.per_channel not in explorer.view.children[0].children

    def unfinished(weight, bits):
        raise NotImplementedError("not written yet")

    assert "not written yet" in GridExplorer(tiny_model(), unfinished, switches=False).status.value


# --- ONNX ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    model = training.finetune(tiny_model(), tiny_dataset(), TINY_PROFILE, dataclasses.replace(TINY_PLAN, finetune_epochs=6))
    size_bytes = int8.export_onnx(model, folder / "float.onnx", (1, 8, 8))
    assert size_bytes == (folder / "float.onnx").stat().st_size
    return model, folder


def test_the_exported_graph_computes_what_torch_computes_for_any_batch(exported):
    model, folder = exported
    network = int8.OnnxNetwork(folder / "float.onnx", threads=1)
    dataset = tiny_dataset()
    for n in (1, 5, 64):
        images = int8.normalised(dataset, dataset.test_images[:n])
        with torch.no_grad():
            expected = model(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(network(images), expected, atol=1e-4, rtol=1e-4)  # float32 in another order
    assert network.accuracy(dataset) == evaluate(model, dataset, on=FP32)


@pytest.mark.parametrize("options", [{}, {"calibration": "entropy"}, {"calibration": "percentile"},
                                     {"signed_activations": True}, {"per_channel": False}])  # fmt: skip
def test_int8_graphs_are_smaller_and_nearly_as_accurate(exported, options):
    model, folder = exported
    dataset = tiny_dataset()
    images = int8.normalised(dataset, dataset.train_images)
    size_bytes = int8.quantize_onnx(folder / "float.onnx", folder / "int8.onnx", images, **options)
    assert size_bytes == (folder / "int8.onnx").stat().st_size
    rows = int8.measure_networks({"float": folder / "float.onnx", "int8": folder / "int8.onnx"}, dataset, (1, 16), rounds=1)
    assert rows[1].accuracy >= rows[0].accuracy - 0.1  # 64 images, a network of 4 channels
    assert set(rows[1].latencies) == {1, 16}
    pictures.inference(rows)
    plt.close("all")
    assert sorted(path.name for path in folder.iterdir()) == ["float.onnx", "int8.onnx"]


def test_unknown_calibrations_are_named(exported):
    with pytest.raises(ValueError, match="calibration must be one of"):
        int8.quantize_onnx("a", "b", np.zeros((1, 1, 8, 8), np.float32), "guess")


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="the processor's flags are read from Linux's /proc/cpuinfo")
def test_int8_instructions_are_those_of_the_processor():
    words = set(Path("/proc/cpuinfo").read_text().split())
    assert set(int8.int8_instructions()) == words & set(int8.INT8_FLAGS)


# --- the published setting -------------------------------------------------------------------------------------------


@needs_cifar10
def test_rounding_the_cifar10_checkpoint_has_the_published_shape():
    """Published for another ResNet-20 (0.9151): 0.9145 at 6 bits, 0.8972 at 4, 0.7662 at 3, 0.0899 at 2."""
    dataset = load_cifar10(n_test=2000)
    model = checkpoints.load_resnet20("cifar10")
    dense = evaluate(model, dataset)

    def rounded(n_bits, per_channel=False):
        result = copy.deepcopy(model)
        with torch.no_grad():
            for _, layer in weighted_layers(result)[1:-1]:
                layer.weight.copy_(linear_quantize(layer.weight, n_bits, per_channel=per_channel))
        return evaluate(result, dataset)

    # the standard error of an accuracy of 0.92 on 2000 images is 0.006; the same images are used throughout
    assert rounded(6) > dense - 0.015
    assert rounded(4) > dense - 0.08
    assert rounded(2) < 0.3
    assert rounded(3, per_channel=True) > rounded(3)


@pytest.mark.parametrize(
    ("machine", "flags", "saturate"),
    [("x86_64", ["avx512_vnni"], False), ("x86_64", [], True), ("AMD64", [], True), ("arm64", [], False)],
)
def test_products_saturate_on_x86_without_vnni(monkeypatch, machine, flags, saturate):
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr(int8, "int8_instructions", lambda: flags)
    assert int8.products_saturate() == saturate


def test_where_products_saturate_weights_have_seven_bits(tmp_path, monkeypatch, exported):
    import onnx
    from onnx import numpy_helper

    dataset, float_path = tiny_dataset(), exported[1] / "float.onnx"
    images = int8.normalised(dataset, dataset.train_images)
    largest = {}
    for saturate in (False, True):
        monkeypatch.setattr(int8, "products_saturate", lambda saturate=saturate: saturate)
        int8.quantize_onnx(float_path, tmp_path / "q.onnx", images)
        weights = [numpy_helper.to_array(t) for t in onnx.load(tmp_path / "q.onnx").graph.initializer]
        largest[saturate] = max(int(abs(w.astype(int)).max()) for w in weights if w.dtype == np.int8 and w.ndim > 1)
    assert largest == {False: 127, True: 64}
