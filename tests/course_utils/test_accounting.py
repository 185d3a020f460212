"""Accounting: counts against hand calculations, files against their content, times against the clock."""

from __future__ import annotations

import time

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import nn
from torch.nn.utils import prune as torch_prune

from course_utils import accounting, latency, packing
from course_utils.data_files import DamagedData, MissingData
from course_utils.pruning import prune_by_percentage
from course_utils.resnet import resnet20, weighted_layers
from tests.course_utils.tiny import cut_short, state_equal, tiny_model


@torch.no_grad()
def prune(model: nn.Module, sparsity: float) -> nn.Module:
    """Set the given fraction of every layer's weights to zero, at random places."""
    generator = torch.Generator().manual_seed(0)
    for _, layer in weighted_layers(model):
        n = layer.weight.numel()
        layer.weight.view(-1)[torch.randperm(n, generator=generator)[: round(sparsity * n)]] = 0
    return model


def test_parameters_are_counted_whether_zero_or_not():
    assert accounting.n_parameters(resnet20()) == 269_722
    assert accounting.n_parameters(prune(resnet20(), 0.9)) == 269_722


def test_sparsity_per_layer_and_in_total():
    model = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.0, 0.0, -2.0], [0.0, 0.0, 3.0, 1e-30]]))
        model[2].weight.copy_(torch.tensor([[-0.0, 5.0]]))
        model[0].bias.zero_()  # biases do not count
    assert accounting.layer_sparsity(model) == {"0": 4 / 8, "2": 1 / 2}
    assert accounting.total_sparsity(model) == 5 / 10


def test_total_sparsity_of_a_model_without_weights_is_refused():
    with pytest.raises(ValueError, match="ReLU"):
        accounting.total_sparsity(nn.ReLU())


def test_macs_of_resnet20_by_hand():
    """Output pixels times output channels times 9 times input channels, layer by layer."""
    expected = {"conv1": 32 * 32 * 16 * 9 * 3}
    for stage, channels, size in ((1, 16, 32), (2, 32, 16), (3, 64, 8)):
        for block in range(3):
            first = channels // 2 if stage > 1 and block == 0 else channels
            expected[f"stage{stage}.{block}.conv1"] = size * size * channels * 9 * first
            expected[f"stage{stage}.{block}.conv2"] = size * size * channels * 9 * channels
    expected["fc"] = 640
    model = resnet20().train()
    assert accounting.count_macs_by_layer(model, (3, 32, 32)) == expected
    assert accounting.count_macs(model, (3, 32, 32)) == sum(expected.values()) == 40_551_040
    assert model.training
    assert model.bn1.num_batches_tracked == 0  # counting leaves no trace


def test_zeros_do_not_change_the_macs_of_a_dense_kernel():
    assert accounting.count_macs(prune(tiny_model(), 0.9), (1, 8, 8)) == accounting.count_macs(tiny_model(), (1, 8, 8))


def test_products_outside_layers_are_reported_as_other():
    class Gram(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 5)

        def forward(self, x):
            y = self.layer(x.flatten(1))
            return y @ torch.ones(5, 3)

    assert accounting.count_macs_by_layer(Gram(), (1, 2, 3)) == {"layer": 30, "other": 15}


@pytest.mark.parametrize("shape", [(32, 32), (1, 3, 32, 32), (3, 0, 32)])
def test_macs_refuse_another_shape(shape):
    with pytest.raises(ValueError, match="input_shape"):
        accounting.count_macs(resnet20(), shape)


@pytest.mark.parametrize("layout", ["bitmap", "csr", "codebook"])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.95, 1.0])
def test_what_is_packed_is_read_back_bit_for_bit(tmp_path, layout, sparsity):
    model, path = prune(tiny_model(), sparsity), tmp_path / "packed"
    model.bn1.running_mean += 0.25
    size_bytes = accounting.save_packed(model, path, layout)
    assert size_bytes == path.stat().st_size
    assert state_equal(accounting.load_packed(tiny_model(seed=1), path), model)
    assert accounting.size_on_disk(model, layout) == size_bytes


def test_a_codebook_stores_few_values_in_few_bits(tmp_path):
    """2 bits for every weight that is not zero, 1 bit for all where some are zero, 4 values of 4 bytes a channel."""
    values = torch.tensor([-0.3, 0.1, 0.2, 0.7])
    for sparsity in (0.0, 0.5):
        model = prune(resnet20(), sparsity)
        layers = [layer for _, layer in weighted_layers(model)][1:-1]
        generator = torch.Generator().manual_seed(0)
        for layer in layers:
            drawn = values[torch.randint(0, 4, layer.weight.shape, generator=generator)]
            layer.weight.data = torch.where(layer.weight == 0, 0.0, drawn * torch.rand(len(drawn), generator=generator)[:, None, None, None])
        n, rows = sum(layer.weight.numel() for layer in layers), sum(len(layer.weight) for layer in layers)
        k = sum(int((layer.weight != 0).sum()) for layer in layers)
        path = tmp_path / "packed"
        size_bytes = accounting.save_packed(model, path, "codebook")
        assert state_equal(accounting.load_packed(resnet20(), path), model)
        expected = 2 * k / 8 + (n / 8 if sparsity else 0) + 16 * rows
        rest = accounting.size_on_disk(model, "dense") - 4 * n  # headers, batch norm, the two layers left in float
        assert expected < size_bytes < expected + rest + 6_000


def test_resnet20_packed_sizes_follow_the_formulas():
    """bitmap: n / 8 + 4 k; csr: (4 + 2) k, or (4 + 1) k with at most 256 columns; plus headers and batch norm."""
    model = prune(resnet20(), 0.9)
    weights = [layer.weight for _, layer in weighted_layers(model)]
    n, k = sum(w.numel() for w in weights), sum(int((w != 0).sum()) for w in weights)
    overhead = accounting.size_on_disk(model, "dense") - 4 * n
    bitmap, csr = accounting.size_on_disk(model, "bitmap"), accounting.size_on_disk(model, "csr")
    assert n / 8 + 4 * k < bitmap < n / 8 + 4 * k + overhead + 4_000
    assert 5 * k < csr < 6 * k + overhead + 10_000
    assert bitmap < csr < 4 * n


def test_columns_agree_with_scipys_csr():
    weight = prune(nn.Sequential(nn.Conv2d(40, 6, 3)), 0.8)[0].weight.detach()
    parts = packing.pack_csr(weight)
    peer = scipy.sparse.csr_array(weight.reshape(6, -1).numpy())
    assert parts["row_starts"].tolist() == peer.indptr.tolist()
    assert parts["columns"].long().tolist() == peer.indices.tolist()
    assert np.array_equal(parts["values"].numpy(), peer.data)
    assert parts["columns"].dtype == torch.uint16  # 360 columns


@pytest.mark.parametrize(("n_columns", "dtype"), [(256, torch.uint8), (257, torch.uint16), (2**16 + 1, torch.int32)])
def test_columns_take_the_narrowest_type_that_holds_the_last_one(n_columns, dtype):
    weight = torch.zeros(2, n_columns)
    weight[1, -1] = 3.0
    parts = packing.pack_csr(weight)
    assert parts["columns"].dtype == dtype
    assert torch.equal(packing.unpack(parts, weight.shape), weight)


def test_a_damaged_or_foreign_file_is_refused(tmp_path):
    path = tmp_path / "packed"
    with pytest.raises(MissingData, match="packed"):
        accounting.load_packed(tiny_model(), path)
    accounting.save_dense(tiny_model(), path)
    with pytest.raises(DamagedData, match="not a packed model"):
        accounting.load_packed(tiny_model(), path)
    accounting.save_packed(tiny_model(), path)
    cut_short(path, 3)
    with pytest.raises(DamagedData, match="not a packed model"):
        accounting.load_packed(tiny_model(), path)


def test_an_unknown_layout_is_refused():
    with pytest.raises(ValueError, match=r"\['bitmap', 'codebook', 'csr'\], got 'coo'"):
        accounting.size_on_disk(tiny_model(), "coo")


def test_latency_is_the_median_of_the_repeats_after_the_warm_up(monkeypatch):
    """A clock that moves only inside the calls: two slow warm-up calls, then 1, 2, 3, 4 and 90 seconds."""
    now, seconds, threads_seen = [0.0], iter([50.0, 50.0, 4.0, 1.0, 90.0, 2.0, 3.0]), []

    def call():
        threads_seen.append(torch.get_num_threads())
        now[0] += next(seconds)

    monkeypatch.setattr(latency.time, "perf_counter", lambda: now[0])
    before = torch.get_num_threads()
    measured = accounting.measure_latency(call, warmup=2, repeats=5, threads=before + 1)
    assert measured.median_ms == 3_000
    assert (measured.p10_ms, measured.p90_ms) == pytest.approx((1_400, 55_600))  # linear interpolation by hand
    assert (measured.repeats, measured.threads, set(threads_seen)) == (5, before + 1, {before + 1})
    assert torch.get_num_threads() == before
    assert f"5 calls, {before + 1} threads" in str(measured)


def test_latency_of_a_real_call_is_at_least_what_it_sleeps():
    assert accounting.measure_latency(lambda: time.sleep(0.002), warmup=0, repeats=3).median_ms >= 2


@pytest.mark.parametrize("options", [{"repeats": 0}, {"warmup": -1}, {"threads": 0}])
def test_latency_refuses_senseless_numbers(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        accounting.measure_latency(lambda: None, **options)


def pruned_by_torch() -> nn.Module:
    model = tiny_model()
    torch_prune.l1_unstructured(model.conv1, "weight", 0.5)
    return model


def test_weights_that_are_computed_anew_are_refused_with_advice(tmp_path):
    for refused in (lambda m: packing.save_packed(m, tmp_path / "m"), lambda m: prune_by_percentage(m, 0.9)):
        with pytest.raises(ValueError, match=r"conv1.*After torch.nn.utils.prune call its remove"):
            refused(pruned_by_torch())
    model = pruned_by_torch()
    torch_prune.remove(model.conv1, "weight")
    assert packing.save_packed(model, tmp_path / "m") > 0


@pytest.mark.parametrize("convert", [nn.Module.half, nn.Module.double, nn.Module.bfloat16])
def test_a_file_is_never_smaller_because_of_the_number_format(tmp_path, convert):
    with pytest.raises(TypeError, match=r"must be float32 to be packed, got torch\..*model.float"):
        packing.save_packed(convert(tiny_model()), tmp_path / "m")


def test_a_packed_file_of_another_model_is_refused_by_name(tmp_path):
    packing.save_packed(tiny_model(), tmp_path / "m")
    with pytest.raises(ValueError, match=r"does not fit this ResNet; .*bn1\.bias is \(4,\) there and \(16,\) here"):
        packing.load_packed(resnet20(), tmp_path / "m")
