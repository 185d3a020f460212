"""Quantizers against torch's observers and fake-quantize operators, closed forms, and bounds that were proved."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn
from torch.ao.quantization import MinMaxObserver, PerChannelMinMaxObserver

from course_utils.quantization import (
    LSQ,
    ClippedSTE,
    QuantConv2d,
    QuantLinear,
    SparseSTEQuantize,
    STEQuantize,
    binarize,
    dequantize,
    linear_quantize,
    lsq_quantize,
    quantize,
    quantize_int8,
    quantize_model,
)
from course_utils.quantization.binary import clip_weights, make_binary
from course_utils.quantization.given import (
    PublishedSTE,
    gradients_of,
    round_through,
    scale_gradient,
    small_network,
    toy_deep_network,
    toy_tensor,
    value_range,
)
from course_utils.resnet import resnet20, weighted_layers

BITS = [1, 2, 3, 4, 6, 8]
arrays = hnp.arrays(
    np.float64, hnp.array_shapes(max_dims=3, max_side=8), elements=st.floats(-1e3, 1e3, allow_nan=False, width=32)
)
weights = arrays.map(lambda array: torch.from_numpy(array.reshape(len(array), -1)))


def far_from_ties(values: torch.Tensor) -> torch.Tensor:
    """Where a rounding does not depend on the last digits of a division: at least 1e-3 from a half."""
    return ((values - values.floor()) - 0.5).abs() > 1e-3


# --- NumPy -----------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(x=arrays, n_bits=st.sampled_from(BITS))
def test_no_number_moves_by_more_than_half_a_step(x, n_bits):
    codes, scale, shift = quantize(x, n_bits)
    assert codes.dtype == np.uint8
    assert codes.shape == x.shape
    assert codes.max() <= 2**n_bits - 1
    error = np.abs(dequantize(codes, scale, shift) - x)
    # 1e-12 of the largest value: roundings of float64 in (x - shift) / scale * scale + shift
    assert error.max() <= scale / 2 + 1e-12 * max(1.0, np.abs(x).max())


@settings(max_examples=50, deadline=None)
@given(x=arrays, n_bits=st.sampled_from(BITS))
def test_both_ends_of_the_range_are_levels_and_twice_is_as_good_as_once(x, n_bits):
    codes, scale, shift = quantize(x, n_bits)
    once = dequantize(codes, scale, shift)
    assert once.min() == pytest.approx(x.min(), abs=1e-9)
    assert once.max() == pytest.approx(x.max(), abs=1e-9)
    again = dequantize(*quantize(once, n_bits))
    np.testing.assert_allclose(again, once, atol=1e-9)


@pytest.mark.parametrize("n_bits", BITS)
def test_a_constant_array_comes_back_exactly(n_bits):
    codes, scale, shift = quantize(np.full((3, 2), -0.7), n_bits)
    assert (codes == 0).all()
    assert scale == 0.0
    assert (dequantize(codes, scale, shift) == -0.7).all()


@settings(max_examples=100, deadline=None)
@given(x=arrays)
def test_int8_agrees_with_torchs_observer_and_fake_quantize(x):
    tensor = torch.from_numpy(x).float()
    observer = MinMaxObserver(dtype=torch.qint8, qscheme=torch.per_tensor_affine, eps=1e-12)
    observer(tensor)
    theirs, zero_point = (item.item() for item in observer.calculate_qparams())
    low, high = min(0.0, float(tensor.min())), max(0.0, float(tensor.max()))
    if high - low < 1e-3:
        return
    codes, scale, ours = quantize_int8(tensor.double().numpy(), low, high)
    assert scale == pytest.approx(theirs, rel=1e-6)  # the observer computes in float32
    assert ours == zero_point or not far_from_ties(torch.tensor([low / scale]))[0]
    if ours == zero_point:
        expected = torch.fake_quantize_per_tensor_affine(tensor, scale, zero_point, -128, 127)
        clear = far_from_ties(tensor.double() / scale)
        error = torch.from_numpy(scale * (codes.astype(np.float64) - zero_point)) - expected
        assert (error.abs()[clear] <= 1e-5 * (high - low)).all()  # float32


def test_int8_clips_instead_of_wrapping_around():
    codes, _, zero_point = quantize_int8(np.array([-50.0, 0.0, 50.0]), -1.0, 3.0)
    assert codes.tolist() == [-128, zero_point, 127]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: quantize(np.ones(3), 9), ValueError, "n_bits"),
        (lambda: quantize(np.ones(3), 4.0), TypeError, "n_bits"),
        (lambda: quantize(np.array([1.0, np.nan]), 4), ValueError, "x must hold finite"),
        (lambda: quantize(np.array([]), 4), ValueError, "at least one entry"),
        (lambda: quantize(np.array(["a"]), 4), TypeError, "real numbers"),
        (lambda: quantize_int8(np.ones(2), 1.0, 2.0), ValueError, "low <= 0 <= high"),
        (lambda: quantize_int8(np.ones(2), 0.0, 0.0), ValueError, "low < high"),
        (lambda: quantize_int8(np.ones(2), "a", 0.0), TypeError, "low"),
        (lambda: linear_quantize(torch.ones(2, 2), 0), ValueError, "n_bits"),
        (lambda: linear_quantize(torch.ones(2, 2), 17), ValueError, "n_bits"),
        (lambda: linear_quantize(torch.ones(2, 2), 1, symmetric=True), ValueError, "n_bits"),
        (lambda: linear_quantize(torch.ones(2, 2, dtype=torch.int64), 4), TypeError, "weight"),
        (lambda: linear_quantize(torch.tensor([[np.inf]]), 4), ValueError, "weight"),
        (lambda: lsq_quantize(torch.ones(2), torch.tensor(1.0), 1), ValueError, "n_bits"),
        (lambda: binarize([1.0]), TypeError, "weight"),
        (lambda: quantize_model(nn.ReLU(), 4), ValueError, "model"),
        (lambda: quantize_model(small_network(), 99), ValueError, "n_bits"),
    ],
)
def test_bad_arguments_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


# --- linear_quantize -------------------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None)
@given(weight=weights, n_bits=st.sampled_from(BITS[1:]), per_channel=st.booleans())
def test_symmetric_agrees_with_torchs_observer_and_fake_quantize(weight, n_bits, per_channel):
    weight = weight.float()
    largest = 2 ** (n_bits - 1) - 1
    settings_of_observer = {"dtype": torch.qint8, "quant_min": -largest, "quant_max": largest, "eps": 1e-12}
    if per_channel:
        observer = PerChannelMinMaxObserver(qscheme=torch.per_channel_symmetric, **settings_of_observer)
    else:
        observer = MinMaxObserver(qscheme=torch.per_tensor_symmetric, **settings_of_observer)
    observer(weight)
    scale, zero_point = observer.calculate_qparams()
    ours = linear_quantize(weight, n_bits, per_channel=per_channel, symmetric=True)
    if per_channel:
        theirs = torch.fake_quantize_per_channel_affine(weight, scale, zero_point.int(), 0, -largest, largest)
        scale = scale.view(-1, 1)
    else:
        theirs = torch.fake_quantize_per_tensor_affine(weight, scale.item(), 0, -largest, largest)
    clear = far_from_ties(weight / scale) & (scale > 1e-9)
    error = (ours - theirs).abs()
    assert (error[clear] <= 1e-5 * weight.abs().max()).all()  # scales differ in their last float32 digit
    assert (error <= 1.001 * scale + 1e-5 * weight.abs().max()).all()


@settings(max_examples=80, deadline=None)
@given(weight=weights, n_bits=st.sampled_from(BITS), per_channel=st.booleans())
def test_asymmetric_has_the_observers_scale_where_the_range_holds_zero(weight, n_bits, per_channel):
    low, high = value_range(weight, per_channel)
    levels = linear_quantize(weight, n_bits, per_channel=per_channel)
    scale = (high - low) / (2**n_bits - 1)
    assert ((levels - weight).abs() <= scale / 2 + 1e-9 * (1 + weight.abs().max())).all()
    settings_of_observer = {"dtype": torch.quint8, "quant_min": 0, "quant_max": 2**n_bits - 1, "eps": 1e-12}
    if per_channel:
        observer = PerChannelMinMaxObserver(qscheme=torch.per_channel_affine, **settings_of_observer)
    else:
        observer = MinMaxObserver(qscheme=torch.per_tensor_affine, **settings_of_observer)
    observer(weight.float())
    holds_zero = ((low <= 0) & (high >= 0) & (high > low)).flatten()
    theirs = observer.calculate_qparams()[0].double().flatten()
    torch.testing.assert_close(scale.flatten()[holds_zero], theirs[holds_zero], rtol=1e-5, atol=1e-9)


def test_a_grid_with_zero_on_it_agrees_with_fake_quantize_affine():
    weight = torch.tensor([[-1.0, -0.33, 0.07, 0.31, 0.52, 1.49, 2.0]], dtype=torch.float32)  # 15 steps of 0.2, -1 = -5 steps
    theirs = torch.fake_quantize_per_tensor_affine(weight, 0.2, 5, 0, 15)
    torch.testing.assert_close(linear_quantize(weight, 4), theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("n_bits", BITS)
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_grid_has_at_most_two_to_the_b_levels(n_bits, per_channel):
    weight = toy_tensor(4, 50, seed=1)
    quantized = linear_quantize(weight, n_bits, per_channel=per_channel)
    for row in quantized if per_channel else [quantized]:
        assert len(row.unique()) <= 2**n_bits
    if n_bits > 1:
        symmetric = linear_quantize(weight, n_bits, symmetric=True)
        assert len(symmetric.unique()) <= 2**n_bits - 1


@settings(max_examples=60, deadline=None)
@given(weight=weights, n_bits=st.sampled_from(BITS), per_channel=st.booleans(), seed=st.integers(0, 99))
def test_zeros_stay_zero_and_survivors_are_those_of_a_grid_of_their_own(weight, n_bits, per_channel, seed):
    kept = torch.rand(weight.shape, generator=torch.Generator().manual_seed(seed)) > 0.6
    sparse = weight * kept
    quantized = linear_quantize(sparse, n_bits, per_channel=per_channel, keep_zeros=True)
    assert torch.isfinite(quantized).all()
    assert (quantized[sparse == 0] == 0).all()
    for row, result in zip(sparse, quantized, strict=True) if per_channel else [(sparse, quantized)]:
        if (row != 0).any():
            alone = linear_quantize(row[row != 0].view(1, -1), n_bits)
            torch.testing.assert_close(result[row != 0], alone[0], rtol=1e-12, atol=1e-12)


def test_special_cases_of_linear_quantize():
    weight = toy_tensor(3, 4, seed=2)
    assert torch.equal(linear_quantize(weight, None), weight)
    assert linear_quantize(weight, None) is not weight
    assert torch.equal(linear_quantize(torch.full((2, 2), 0.3), 3), torch.full((2, 2), 0.3))
    for symmetric in (False, True):
        assert torch.equal(linear_quantize(torch.zeros(2, 2), 3, symmetric=symmetric, keep_zeros=True), torch.zeros(2, 2))
    assert linear_quantize(weight.float(), 3).dtype == torch.float32
    assert torch.equal(linear_quantize(weight[0], 2, per_channel=True), weight[0])  # of a vector each entry is a channel


def test_a_published_quantizer_erases_every_survivor():
    weight = toy_tensor(5, 7, seed=3) * (toy_tensor(5, 7, seed=4) > 0)
    for n_bits in (2, 4, 8):
        quantized = PublishedSTE.apply(weight, n_bits)
        assert (quantized[weight != 0] == 0).all()
        step = (weight.max() - weight.min()) / (2**n_bits - 1)
        assert quantized[weight == 0].unique().abs().item() <= step / 2


# --- gradients -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(3,), (4, True), (4, False, True), (None,)])
def test_ste_passes_gradients_unchanged(arguments):
    weight = toy_tensor(4, 5, seed=5)
    (gradient,) = gradients_of(lambda w: STEQuantize.apply(w, *arguments), weight)
    torch.testing.assert_close(gradient, 1 + torch.arange(20, dtype=torch.float64).view(4, 5) / 10)


def test_clipped_ste_agrees_with_torchs_fake_quantize_where_the_definitions_coincide():
    """Torch lets gradients pass up to half a step beyond the ends; elsewhere values and gradients are the same."""
    scale, zero_point, steps = 0.25, 5, 15
    low, high = -zero_point * scale, (steps - zero_point) * scale
    x = 3 * toy_tensor(400, seed=6).float()
    between = ((x < low) & (x > low - scale / 2)) | ((x > high) & (x < high + scale / 2))
    chosen = x[~between & far_from_ties(x / scale)]
    assert len(chosen) > 300
    torch.testing.assert_close(
        ClippedSTE.apply(chosen, low, high, 4),
        torch.fake_quantize_per_tensor_affine(chosen, scale, zero_point, 0, steps),
        atol=1e-6,
        rtol=0,
    )
    (ours,) = gradients_of(lambda v: ClippedSTE.apply(v, low, high, 4), chosen)
    (theirs,) = gradients_of(lambda v: torch.fake_quantize_per_tensor_affine(v, scale, zero_point, 0, steps), chosen)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("n_bits", "step"), [(2, 0.6), (3, 0.3), (4, 0.11), (8, 0.02)])
def test_lsq_agrees_with_torchs_learnable_fake_quantize(n_bits, step):
    low, high = -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1
    weight = toy_tensor(40, 20, seed=7).float().flatten()
    scaled = weight / step
    ends = ((scaled < low) & (scaled > low - 0.51)) | ((scaled > high) & (scaled < high + 0.51))  # torch clips after rounding
    weight = weight[far_from_ties(scaled) & ~ends]
    factor = (weight.numel() * high) ** -0.5

    def learnable(w, s):
        zero = torch.zeros(1)
        return torch._fake_quantize_learnable_per_tensor_affine(w, s.view(1), zero, low, high, factor)

    arguments = (weight, torch.tensor(step))
    torch.testing.assert_close(lsq_quantize(*arguments, n_bits), learnable(*arguments), atol=1e-6, rtol=0)
    ours = gradients_of(lambda w, s: lsq_quantize(w, s, n_bits), *arguments)
    theirs = gradients_of(learnable, *arguments)
    torch.testing.assert_close(ours[0], theirs[0], atol=1e-5, rtol=0)
    # float32 sums of several hundred terms in two orders
    torch.testing.assert_close(ours[1], theirs[1], atol=0, rtol=1e-4)


def test_lsq_starts_from_the_papers_step_and_stays_positive():
    weight = toy_tensor(6, 5, seed=8)
    quantizer = LSQ(weight, 3)
    assert quantizer.step_size.item() == pytest.approx(2 * weight.abs().mean().item() / 3**0.5)
    with torch.no_grad():
        quantizer.step_size.fill_(-0.5)
    assert torch.equal(quantizer(weight), lsq_quantize(weight, torch.tensor(0.5, dtype=torch.float64), 3))


def test_sparse_ste_keeps_zeros_under_momentum_and_weight_decay():
    weight = nn.Parameter(toy_tensor(6, 5, seed=9) * (toy_tensor(6, 5, seed=10) > 0))
    zeros = weight.detach() == 0
    optimizer = torch.optim.SGD([weight], 0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        (SparseSTEQuantize.apply(weight, 3) - 1).square().sum().backward()
        optimizer.step()
    assert (weight[zeros] == 0).all()
    assert (weight[~zeros] != 0).all()


def test_helpers_with_gradients_of_their_own():
    x = torch.tensor([0.4, 1.5, 2.5, -0.6], dtype=torch.float64)
    assert round_through(x).tolist() == [0.0, 2.0, 2.0, -1.0]
    assert gradients_of(round_through, x)[0].tolist() == pytest.approx([1.0, 1.1, 1.2, 1.3])
    assert torch.equal(scale_gradient(x, 0.25), x)
    assert gradients_of(lambda v: scale_gradient(v, 0.25), x)[0].tolist() == pytest.approx([0.25, 0.275, 0.3, 0.325])


# --- networks --------------------------------------------------------------------------------------------------------


def test_quantized_layers_keep_every_setting():
    layer = nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2, padding_mode="reflect").double()
    images = toy_tensor(2, 4, 11, 11, seed=11)
    torch.testing.assert_close(QuantConv2d(layer, lambda w: w)(images), layer(images))
    linear = nn.Linear(5, 3).double()
    inputs = toy_tensor(7, 5, seed=12)
    expected = nn.functional.linear(inputs, 2 * linear.weight, linear.bias)
    torch.testing.assert_close(QuantLinear(linear, lambda w: 2 * w)(inputs), expected)


def test_quantize_model_rounds_inner_layers_only():
    model = toy_deep_network(0)
    before = copy.deepcopy(model.state_dict())
    quantized = quantize_model(model, 2)
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for _, layer in weighted_layers(rounded)[1:-1]:
            layer.weight.copy_(linear_quantize(layer.weight, 2))
    images = toy_tensor(3, 2, 9, 9, seed=13)
    torch.testing.assert_close(quantized(images), rounded(images))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert quantized.state_dict().keys() == before.keys()


def test_resnet20_has_eighteen_quantized_layers_and_none_without_bits():
    model = resnet20(in_channels=1).eval()
    quantized = quantize_model(model, None)
    assert sum(isinstance(layer, QuantConv2d) for _, layer in weighted_layers(quantized)) == 18
    images = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(quantized(images), model(images))
    lsq = quantize_model(model, 4, LSQ)
    assert sum(name.endswith("step_size") for name, _ in lsq.named_parameters()) == 18


# --- BinaryConnect ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make_quantizer",
    [
        LSQ,
        lambda weight, n_bits: lambda w: STEQuantize.apply(w, n_bits, True),
        lambda weight, n_bits: lambda w: SparseSTEQuantize.apply(w, n_bits),
    ],
    ids=["LSQ", "STE, per channel", "STE, zeros kept"],
)
def test_a_quantized_network_compiles_into_one_graph_and_computes_and_learns_the_same(make_quantizer):
    """A value read back in the forward pass would cut it at every layer: training ran at 0.4 of the speed."""
    images, results = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)), []
    for compiled in (False, True):
        torch.manual_seed(1)
        model = quantize_model(resnet20(), 2, make_quantizer)
        outputs = (torch.compile(model, fullgraph=True, backend="aot_eager") if compiled else model)(images)
        outputs.square().sum().backward()
        results.append([outputs.detach(), *(parameter.grad for parameter in model.parameters())])
    torch.testing.assert_close(results[1], results[0])


def test_binary_weights_are_right_on_average():
    levels = torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)
    uniform = torch.rand(100_000, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mean = binarize(levels.expand(100_000, 7), uniform).mean(0)
    # standard error of 100000 draws of +-1 is at most 0.0032
    torch.testing.assert_close(mean, levels.clamp(-1, 1), atol=0.015, rtol=0)


def test_binary_networks_compute_with_two_values_and_learn_float_ones():
    for stochastic in (False, True):
        model = make_binary(small_network(), binarize, stochastic)
        images = torch.randn(8, 1, 28, 28, generator=torch.Generator().manual_seed(1))
        model.train()(images).square().mean().backward()
        for _, layer in weighted_layers(model):
            assert layer.weight.abs().unique().tolist() == [1.0]
            original = layer.parametrizations.weight.original
            assert original.grad.abs().max() > 0
            original.data.mul_(100)
        clip_weights(model)
        model.eval()
        for _, layer in weighted_layers(model):
            original = layer.parametrizations.weight.original
            assert original.abs().max() <= 1
            assert torch.equal(layer.weight, original) == stochastic
