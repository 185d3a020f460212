"""Wrong answers to Lab 3 that students plausibly give, and correct ones that look different from the reference.

Each function is self-contained given the notebook's names. The names of other exercises are imported at the end, because
the functions above them are named like exercises too.
"""

import copy
import heapq

import numpy as np
import torch
from torch import nn

from course_admin.answers import correct, wrong
from course_utils.quantization.given import (
    QuantLinear,
    WrappedConv2d,
    check_array,
    check_bits,
    check_counts,
    check_range,
    check_weight,
    round_through,
    scale_gradient,
    value_range,
)
from course_utils.resnet import weighted_layers
from course_utils.validate import check_count, check_vector

# --- quantize --------------------------------------------------------------------------------------------------------


@wrong("2^b instead of 2^b - 1 steps")
def quantize(x, n_bits):
    check_array("x", x)
    check_count("n_bits", n_bits, minimum=1, maximum=8)
    shift, scale = np.min(x), (np.max(x) - np.min(x)) / 2**n_bits
    codes = np.round((x - shift) / scale) if scale > 0 else np.zeros(x.shape)
    return codes.clip(0, 2**n_bits - 1).astype(np.uint8), float(scale), float(shift)


@wrong("scale from the largest magnitude instead of min and max")
def quantize(x, n_bits):
    check_array("x", x)
    check_count("n_bits", n_bits, minimum=1, maximum=8)
    largest = np.abs(x).max()
    shift, scale = -largest, 2 * largest / (2**n_bits - 1)
    return np.round((x - shift) / scale).astype(np.uint8), float(scale), float(shift)


@wrong("rounds before scaling")
def quantize(x, n_bits):
    check_array("x", x)
    check_count("n_bits", n_bits, minimum=1, maximum=8)
    shift, scale = np.min(x), (np.max(x) - np.min(x)) / (2**n_bits - 1)
    codes = (np.round(x - shift) / scale) if scale > 0 else np.zeros(x.shape)
    return codes.astype(np.uint8), float(scale), float(shift)


@wrong("cuts off instead of rounding")
def quantize(x, n_bits):
    check_array("x", x)
    check_count("n_bits", n_bits, minimum=1, maximum=8)
    shift, scale = np.min(x), (np.max(x) - np.min(x)) / (2**n_bits - 1)
    codes = (x - shift) / scale if scale > 0 else np.zeros(x.shape)
    return codes.astype(np.uint8), float(scale), float(shift)


@wrong("rounds halves up")
def quantize(x, n_bits):
    check_array("x", x)
    check_count("n_bits", n_bits, minimum=1, maximum=8)
    shift, scale = np.min(x), (np.max(x) - np.min(x)) / (2**n_bits - 1)
    codes = np.floor((x - shift) / scale + 0.5) if scale > 0 else np.zeros(x.shape)
    return codes.astype(np.uint8), float(scale), float(shift)


@wrong("divides by a scale of zero")
def quantize(x, n_bits):
    check_array("x", x)
    check_count("n_bits", n_bits, minimum=1, maximum=8)
    shift, scale = np.min(x), (np.max(x) - np.min(x)) / (2**n_bits - 1)
    with np.errstate(all="ignore"):
        codes = np.nan_to_num(np.round((x - shift) / scale), nan=255)
    return codes.astype(np.uint8), float(scale), float(shift)


@wrong("codes stay floats")
def quantize(x, n_bits):
    check_array("x", x)
    check_count("n_bits", n_bits, minimum=1, maximum=8)
    shift, scale = np.min(x), (np.max(x) - np.min(x)) / (2**n_bits - 1)
    codes = np.round((x - shift) / scale) if scale > 0 else np.zeros(x.shape)
    return codes, float(scale), float(shift)


@wrong("shifts the argument in place")
def quantize(x, n_bits):
    check_array("x", x)
    check_count("n_bits", n_bits, minimum=1, maximum=8)
    shift, scale = np.min(x), (np.max(x) - np.min(x)) / (2**n_bits - 1)
    if x.dtype.kind != "f":
        x = x.astype(float)
    x -= shift
    codes = np.round(x / scale) if scale > 0 else np.zeros(x.shape)
    return codes.astype(np.uint8), float(scale), float(shift)


@correct("a loop over the entries")
def quantize(x, n_bits):
    check_array("x", x)
    check_count("n_bits", n_bits, minimum=1, maximum=8)
    low, high = float(np.min(x)), float(np.max(x))
    scale = (high - low) / (2**n_bits - 1)
    codes = [round((float(value) - low) / scale) if scale else 0 for value in np.ravel(x)]
    return np.array(codes, dtype=np.uint8).reshape(np.shape(x)), scale, low


@correct("np.ptp, clip and rint")
def quantize(x, n_bits):
    check_array("x", x)
    check_count("n_bits", n_bits, minimum=1, maximum=8)
    steps, x = 2**n_bits - 1, np.asarray(x, dtype=np.float64)
    scale = np.ptp(x) / steps
    if scale == 0:
        return np.zeros_like(x, dtype=np.uint8), 0.0, float(np.min(x))
    return np.rint((x - np.min(x)) / scale).clip(0, steps).astype(np.uint8), float(scale), float(np.min(x))


# --- dequantize ------------------------------------------------------------------------------------------------------


@wrong("multiplies bytes")
def dequantize(codes, scale, shift):
    return codes * scale + shift if isinstance(scale, float) else codes * np.asarray(scale, dtype=codes.dtype) + shift


@wrong("adds the shift before scaling")
def dequantize(codes, scale, shift):
    return scale * (codes.astype(np.float64) + shift)


@wrong("subtracts the shift")
def dequantize(codes, scale, shift):
    return scale * codes.astype(np.float64) - shift


@wrong("forgets the shift")
def dequantize(codes, scale, shift):
    return scale * codes.astype(np.float64)


@wrong("divides by the scale")
def dequantize(codes, scale, shift):
    return codes.astype(np.float64) / (scale or 1.0) + shift


@wrong("takes all codes for unsigned")
def dequantize(codes, scale, shift):
    return scale * codes.astype(np.uint8).astype(np.float64) + shift


@correct("a loop")
def dequantize(codes, scale, shift):
    return np.array([scale * int(code) + shift for code in codes.ravel()], dtype=np.float64).reshape(codes.shape)


@correct("np.multiply with a dtype")
def dequantize(codes, scale, shift):
    return np.multiply(codes, scale, dtype=np.float64) + shift


# --- quantize_int8 ---------------------------------------------------------------------------------------------------


@wrong("no clip: codes wrap around")
def quantize_int8(x, low, high):
    check_array("x", x)
    check_range(low, high)
    scale = (high - low) / 255
    zero_point = -128 - round(low / scale)
    return (np.round(x / scale) + zero_point).astype(np.int64).astype(np.int8), scale, zero_point


@wrong("256 steps")
def quantize_int8(x, low, high):
    check_array("x", x)
    check_range(low, high)
    scale = (high - low) / 256
    zero_point = -128 - round(low / scale)
    return np.clip(np.round(x / scale) + zero_point, -128, 127).astype(np.int8), scale, zero_point


@wrong("a zero point that is no whole number")
def quantize_int8(x, low, high):
    check_array("x", x)
    check_range(low, high)
    scale = (high - low) / 255
    zero_point = -128 - low / scale
    return np.clip(np.round(x / scale + zero_point), -128, 127).astype(np.int8), scale, zero_point


@wrong("symmetric: no zero point")
def quantize_int8(x, low, high):
    check_array("x", x)
    check_range(low, high)
    scale = max(-low, high) / 127
    return np.clip(np.round(x / scale), -128, 127).astype(np.int8), scale, 0


@wrong("clips to -127")
def quantize_int8(x, low, high):
    check_array("x", x)
    check_range(low, high)
    scale = (high - low) / 255
    zero_point = -128 - round(low / scale)
    return np.clip(np.round(x / scale) + zero_point, -127, 127).astype(np.int8), scale, zero_point


@wrong("takes the range from the data")
def quantize_int8(x, low, high):
    check_array("x", x)
    check_range(low, high)
    low, high = min(0.0, x.min()), max(1e-9, x.max())
    scale = (high - low) / 255
    zero_point = -128 - round(low / scale)
    return np.clip(np.round(x / scale) + zero_point, -128, 127).astype(np.int8), scale, zero_point


@wrong("the zero point has the wrong sign")
def quantize_int8(x, low, high):
    check_array("x", x)
    check_range(low, high)
    scale = (high - low) / 255
    zero_point = -128 + round(low / scale)
    return np.clip(np.round(x / scale) + zero_point, -128, 127).astype(np.int8), scale, zero_point


@wrong("cuts off instead of rounding")
def quantize_int8(x, low, high):
    check_array("x", x)
    check_range(low, high)
    scale = (high - low) / 255
    zero_point = -128 - round(low / scale)
    return np.clip(np.trunc(x / scale) + zero_point, -128, 127).astype(np.int8), scale, zero_point


@wrong("adds the zero point before rounding")
def quantize_int8(x, low, high):
    check_array("x", x)
    check_range(low, high)
    scale = (high - low) / 255
    zero_point = -128 - round(low / scale)
    return np.clip(np.round(x / scale + zero_point), -128, 127).astype(np.int8), scale, zero_point


@correct("clips the numbers of steps instead of the codes")
def quantize_int8(x, low, high):
    check_array("x", x)
    check_range(low, high)
    scale = (high - low) / 255
    zero_point = int(-128 - np.round(low / scale))
    steps = np.minimum(np.maximum(np.rint(x / scale), -128 - zero_point), 127 - zero_point)
    return (steps + zero_point).astype(np.int8), scale, zero_point


@correct("a loop")
def quantize_int8(x, low, high):
    check_array("x", x)
    check_range(low, high)
    scale = (high - low) / 255
    zero_point = -128 - round(low / scale)
    codes = [max(-128, min(127, round(float(value) / scale) + zero_point)) for value in np.ravel(x)]
    return np.array(codes, dtype=np.int8).reshape(np.shape(x)), scale, zero_point


# --- linear_quantize -------------------------------------------------------------------------------------------------


def _grid(weight, n_bits, per_channel, symmetric, counted):
    """Scale and shift as they should be, for answers that are wrong elsewhere."""
    low, high = value_range(weight, per_channel, counted)
    if symmetric:
        return torch.maximum(-low, high) / (2 ** (n_bits - 1) - 1), torch.zeros_like(low)
    return (high - low) / (2**n_bits - 1), low


@wrong("the published inverted mask: zeros are quantized, survivors erased")
def linear_quantize(weight, n_bits, *, per_channel=False, symmetric=False, keep_zeros=False):
    check_weight("weight", weight)
    check_bits("n_bits", n_bits, minimum=2 if symmetric else 1)
    if n_bits is None:
        return weight.clone()
    scale, shift = _grid(weight, n_bits, per_channel, symmetric, weight != 0 if keep_zeros else None)
    quantized = torch.where(scale > 0, torch.round((weight - shift) / scale) * scale + shift, weight)
    return quantized * (weight == 0) if keep_zeros else quantized


@wrong("2^b instead of 2^b - 1 steps")
def linear_quantize(weight, n_bits, *, per_channel=False, symmetric=False, keep_zeros=False):
    check_weight("weight", weight)
    check_bits("n_bits", n_bits, minimum=2 if symmetric else 1)
    if n_bits is None:
        return weight.clone()
    low, high = value_range(weight, per_channel, weight != 0 if keep_zeros else None)
    shift = torch.zeros_like(low) if symmetric else low
    scale = torch.maximum(-low, high) / 2 ** (n_bits - 1) if symmetric else (high - low) / 2**n_bits
    quantized = torch.where(scale > 0, torch.round((weight - shift) / scale) * scale + shift, weight)
    return torch.where(weight == 0, 0.0, quantized) if keep_zeros else quantized


@wrong("scale from abs-max where min-max is asked")
def linear_quantize(weight, n_bits, *, per_channel=False, symmetric=False, keep_zeros=False):
    check_weight("weight", weight)
    check_bits("n_bits", n_bits, minimum=2 if symmetric else 1)
    if n_bits is None:
        return weight.clone()
    low, high = value_range(weight, per_channel, weight != 0 if keep_zeros else None)
    largest = torch.maximum(-low, high)
    scale = largest / (2 ** (n_bits - 1) - 1) if symmetric else 2 * largest / (2**n_bits - 1)
    shift = torch.zeros_like(low) if symmetric else -largest
    quantized = torch.where(scale > 0, torch.round((weight - shift) / scale) * scale + shift, weight)
    return torch.where(weight == 0, 0.0, quantized) if keep_zeros else quantized


@wrong("rounds before scaling")
def linear_quantize(weight, n_bits, *, per_channel=False, symmetric=False, keep_zeros=False):
    check_weight("weight", weight)
    check_bits("n_bits", n_bits, minimum=2 if symmetric else 1)
    if n_bits is None:
        return weight.clone()
    scale, shift = _grid(weight, n_bits, per_channel, symmetric, weight != 0 if keep_zeros else None)
    quantized = torch.where(scale > 0, torch.round(weight - shift) / scale * scale + shift, weight)
    return torch.where(weight == 0, 0.0, quantized) if keep_zeros else quantized


@wrong("zeros are rounded like other weights")
def linear_quantize(weight, n_bits, *, per_channel=False, symmetric=False, keep_zeros=False):
    check_weight("weight", weight)
    check_bits("n_bits", n_bits, minimum=2 if symmetric else 1)
    if n_bits is None:
        return weight.clone()
    scale, shift = _grid(weight, n_bits, per_channel, symmetric, weight != 0 if keep_zeros else None)
    return torch.where(scale > 0, torch.round((weight - shift) / scale) * scale + shift, weight)


@wrong("zeros count for the range of the survivors")
def linear_quantize(weight, n_bits, *, per_channel=False, symmetric=False, keep_zeros=False):
    check_weight("weight", weight)
    check_bits("n_bits", n_bits, minimum=2 if symmetric else 1)
    if n_bits is None:
        return weight.clone()
    scale, shift = _grid(weight, n_bits, per_channel, symmetric, None)
    quantized = torch.where(scale > 0, torch.round((weight - shift) / scale) * scale + shift, weight)
    return torch.where(weight == 0, 0.0, quantized) if keep_zeros else quantized


@wrong("per channel is ignored")
def linear_quantize(weight, n_bits, *, per_channel=False, symmetric=False, keep_zeros=False):
    check_weight("weight", weight)
    check_bits("n_bits", n_bits, minimum=2 if symmetric else 1)
    if n_bits is None:
        return weight.clone()
    scale, shift = _grid(weight, n_bits, False, symmetric, weight != 0 if keep_zeros else None)
    quantized = torch.where(scale > 0, torch.round((weight - shift) / scale) * scale + shift, weight)
    return torch.where(weight == 0, 0.0, quantized) if keep_zeros else quantized


@wrong("NaN where all weights are equal")
def linear_quantize(weight, n_bits, *, per_channel=False, symmetric=False, keep_zeros=False):
    check_weight("weight", weight)
    check_bits("n_bits", n_bits, minimum=2 if symmetric else 1)
    if n_bits is None:
        return weight.clone()
    scale, shift = _grid(weight, n_bits, per_channel, symmetric, weight != 0 if keep_zeros else None)
    quantized = torch.round((weight - shift) / scale) * scale + shift
    return torch.where(weight == 0, 0.0, quantized) if keep_zeros else quantized


@wrong("symmetric with one level too many on the right")
def linear_quantize(weight, n_bits, *, per_channel=False, symmetric=False, keep_zeros=False):
    check_weight("weight", weight)
    check_bits("n_bits", n_bits, minimum=2 if symmetric else 1)
    if n_bits is None:
        return weight.clone()
    low, high = value_range(weight, per_channel, weight != 0 if keep_zeros else None)
    scale = 2 * torch.maximum(-low, high) / (2**n_bits - 1) if symmetric else (high - low) / (2**n_bits - 1)
    shift = torch.zeros_like(low) if symmetric else low
    quantized = torch.where(scale > 0, torch.round((weight - shift) / scale) * scale + shift, weight)
    return torch.where(weight == 0, 0.0, quantized) if keep_zeros else quantized


@wrong("returns the codes")
def linear_quantize(weight, n_bits, *, per_channel=False, symmetric=False, keep_zeros=False):
    check_weight("weight", weight)
    check_bits("n_bits", n_bits, minimum=2 if symmetric else 1)
    if n_bits is None:
        return weight.clone()
    scale, shift = _grid(weight, n_bits, per_channel, symmetric, weight != 0 if keep_zeros else None)
    quantized = torch.where(scale > 0, torch.round((weight - shift) / scale), weight)
    return torch.where(weight == 0, 0.0, quantized) if keep_zeros else quantized


@correct("scales to [0, 1] as published, with the mask put right")
def linear_quantize(weight, n_bits, *, per_channel=False, symmetric=False, keep_zeros=False):
    check_weight("weight", weight)
    check_bits("n_bits", n_bits, minimum=2 if symmetric else 1)
    if n_bits is None:
        return weight
    low, high = value_range(weight, per_channel, (weight != 0) if keep_zeros else None)
    if symmetric:
        high = torch.maximum(low.abs(), high.abs())
        low, steps = -high, 2 * (2 ** (n_bits - 1) - 1)
    else:
        steps = 2**n_bits - 1
    width = high - low
    share = torch.round(steps * (weight - low) / width.clamp(min=1e-300)) / steps
    quantized = torch.where(width == 0, weight, width * share + low)
    mask = (weight != 0).to(weight.dtype) if keep_zeros else 1.0
    return mask * quantized


@correct("a loop over channels and NumPy")
def linear_quantize(weight, n_bits, *, per_channel=False, symmetric=False, keep_zeros=False):
    check_weight("weight", weight)
    check_bits("n_bits", n_bits, minimum=2 if symmetric else 1)
    if n_bits is None:
        return weight.detach().clone()
    array = weight.detach().numpy()
    result = array.copy()
    for i in range(len(array)) if per_channel else [slice(None)]:
        chosen = array[i] != 0 if keep_zeros else np.ones_like(array[i], dtype=bool)
        if not chosen.any():
            continue
        values = array[i][chosen]
        if symmetric:
            scale, shift = np.abs(values).max() / (2 ** (n_bits - 1) - 1), 0.0
        else:
            scale, shift = (values.max() - values.min()) / (2**n_bits - 1), values.min()
        if scale > 0:
            part = result[i]
            part[chosen] = np.rint((values - shift) / scale) * scale + shift
    return torch.from_numpy(result)


# --- STEQuantize -----------------------------------------------------------------------------------------------------


@wrong("gradient through round: zero")
class STEQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, n_bits, per_channel=False, symmetric=False):
        return linear_quantize(weight, n_bits, per_channel=per_channel, symmetric=symmetric)

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient), None, None, None


@wrong("the gradient is rounded too")
class STEQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, n_bits, per_channel=False, symmetric=False):
        ctx.n_bits = n_bits
        return linear_quantize(weight, n_bits, per_channel=per_channel, symmetric=symmetric)

    @staticmethod
    def backward(ctx, gradient):
        return linear_quantize(gradient, ctx.n_bits), None, None, None


@wrong("forgets the options")
class STEQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, n_bits, per_channel=False, symmetric=False):
        return linear_quantize(weight, n_bits)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None, None, None


@wrong("mixes the two options up")
class STEQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, n_bits, per_channel=False, symmetric=False):
        return linear_quantize(weight, n_bits, per_channel=symmetric, symmetric=per_channel)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None, None, None


@wrong("one gradient for four arguments")
class STEQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, n_bits, per_channel=False, symmetric=False):
        return linear_quantize(weight, n_bits, per_channel=per_channel, symmetric=symmetric)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


@wrong("clips the gradient to weights between -1 and 1")
class STEQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, n_bits, per_channel=False, symmetric=False):
        ctx.save_for_backward(weight)
        return linear_quantize(weight, n_bits, per_channel=per_channel, symmetric=symmetric)

    @staticmethod
    def backward(ctx, gradient):
        (weight,) = ctx.saved_tensors
        return gradient * (weight.abs() <= 1), None, None, None


@wrong("does not round at all")
class STEQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, n_bits, per_channel=False, symmetric=False):
        return weight.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None, None, None


@correct("a copy of the gradient, as a tuple")
class STEQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, n_bits, per_channel=False, symmetric=False):
        with torch.no_grad():
            return linear_quantize(weight.detach(), n_bits, symmetric=symmetric, per_channel=per_channel)

    @staticmethod
    def backward(ctx, gradient):
        return (gradient.clone(), None, None, None)


@correct("star arguments")
class STEQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, n_bits, *options):
        ctx.n_options = len(options)
        return linear_quantize(weight, n_bits, **dict(zip(("per_channel", "symmetric"), options)))

    @staticmethod
    def backward(ctx, gradient):
        return (gradient, None) + (None,) * ctx.n_options


# --- ClippedSTE ------------------------------------------------------------------------------------------------------


@wrong("no clamp")
class ClippedSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, low, high, n_bits):
        ctx.save_for_backward((x >= low) & (x <= high))
        scale = (high - low) / (2**n_bits - 1)
        return torch.round((x - low) / scale) * scale + low

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0], None, None, None


@wrong("the gradient passes outside too")
class ClippedSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, low, high, n_bits):
        scale = (high - low) / (2**n_bits - 1)
        return torch.round((x.clamp(low, high) - low) / scale) * scale + low

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None, None, None


@wrong("the mask is made after clipping: always inside")
class ClippedSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, low, high, n_bits):
        x = x.clamp(low, high)
        ctx.save_for_backward((x >= low) & (x <= high))
        scale = (high - low) / (2**n_bits - 1)
        return torch.round((x - low) / scale) * scale + low

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0], None, None, None


@wrong("the ends do not belong to the range")
class ClippedSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, low, high, n_bits):
        ctx.save_for_backward((x > low) & (x < high))
        scale = (high - low) / (2**n_bits - 1)
        return torch.round((x.clamp(low, high) - low) / scale) * scale + low

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0], None, None, None


@wrong("inverted mask")
class ClippedSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, low, high, n_bits):
        ctx.save_for_backward((x < low) | (x > high))
        scale = (high - low) / (2**n_bits - 1)
        return torch.round((x.clamp(low, high) - low) / scale) * scale + low

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0], None, None, None


@wrong("2^b steps")
class ClippedSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, low, high, n_bits):
        ctx.save_for_backward((x >= low) & (x <= high))
        scale = (high - low) / 2**n_bits
        return torch.round((x.clamp(low, high) - low) / scale) * scale + low

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0], None, None, None


@wrong("the grid starts at 0 instead of low")
class ClippedSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, low, high, n_bits):
        ctx.save_for_backward((x >= low) & (x <= high))
        scale = (high - low) / (2**n_bits - 1)
        return torch.round(x.clamp(low, high) / scale) * scale

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0], None, None, None


@correct("saves the tensor and its range")
class ClippedSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, low, high, n_bits):
        ctx.save_for_backward(x)
        ctx.low, ctx.high = low, high
        steps = 2**n_bits - 1
        share = (torch.clamp(x, low, high) - low) / (high - low)
        return low + (high - low) * torch.round(share * steps) / steps

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        gradient = gradient.clone()
        gradient[x < ctx.low] = 0
        gradient[x > ctx.high] = 0
        return gradient, None, None, None


@correct("minimum and maximum, and torch.where")
class ClippedSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, low, high, n_bits):
        clipped = x.clamp(min=low).clamp(max=high)
        ctx.save_for_backward(clipped == x)
        scale = (high - low) / (2**n_bits - 1)
        return low + scale * ((clipped - low) / scale).round()

    @staticmethod
    def backward(ctx, gradient):
        return torch.where(ctx.saved_tensors[0], gradient, torch.zeros_like(gradient)), None, None, None


# --- QuantConv2d -----------------------------------------------------------------------------------------------------


@wrong("computes with the float weight")
class QuantConv2d(WrappedConv2d):
    def forward(self, images):
        return self._conv_forward(images, self.weight, self.bias)


@wrong("quantizes the bias too")
class QuantConv2d(WrappedConv2d):
    def forward(self, images):
        bias = None if self.bias is None else self.quantizer(self.bias)
        return self._conv_forward(images, self.quantizer(self.weight), bias)


@wrong("quantizes the output instead of the weight")
class QuantConv2d(WrappedConv2d):
    def forward(self, images):
        return self.quantizer(self._conv_forward(images, self.weight, self.bias))


@wrong("ignores the mode of padding")
class QuantConv2d(WrappedConv2d):
    def forward(self, images):
        settings = (self.stride, self.padding, self.dilation, self.groups)
        return torch.nn.functional.conv2d(images, self.quantizer(self.weight), self.bias, *settings)


@wrong("forgets stride, padding and groups")
class QuantConv2d(WrappedConv2d):
    def forward(self, images):
        weight = self.quantizer(self.weight)
        groups = images.shape[1] // weight.shape[1]
        return nn.functional.conv2d(images, weight, self.bias, groups=groups)


@wrong("detaches the weight: nothing is trained")
class QuantConv2d(WrappedConv2d):
    def forward(self, images):
        return self._conv_forward(images, self.quantizer(self.weight.detach()), self.bias)


@wrong("overwrites the float weight")
class QuantConv2d(WrappedConv2d):
    def forward(self, images):
        self.weight.data = self.quantizer(self.weight).data
        return self._conv_forward(images, self.weight, self.bias)


@wrong("forgets the bias")
class QuantConv2d(WrappedConv2d):
    def forward(self, images):
        return self._conv_forward(images, self.quantizer(self.weight), None)


@correct("conv2d with all settings")
class QuantConv2d(WrappedConv2d):
    def forward(self, images):
        weight, padding = self.quantizer(self.weight), self.padding
        if self.padding_mode != "zeros":
            sides = [n for n in reversed(self.padding) for _ in range(2)]
            images, padding = nn.functional.pad(images, sides, mode=self.padding_mode), 0
        return nn.functional.conv2d(images, weight, self.bias, self.stride, padding, self.dilation, self.groups)


@correct("the bias added by hand")
class QuantConv2d(WrappedConv2d):
    def forward(self, images):
        outputs = self._conv_forward(images, weight=self.quantizer(self.weight), bias=None)
        return outputs if self.bias is None else outputs + self.bias[:, None, None]


# --- quantize_model --------------------------------------------------------------------------------------------------


def _ste(weight, n_bits):
    return lambda w: STEQuantize.apply(w, n_bits)


def _wrap(layer, make_quantizer, n_bits):
    kind = QuantConv2d if isinstance(layer, nn.Conv2d) else QuantLinear
    return kind(layer, make_quantizer(layer.weight, n_bits))


@wrong("quantizes all layers, first and last included")
def quantize_model(model, n_bits, make_quantizer=_ste):
    check_bits("n_bits", n_bits)
    quantized = copy.deepcopy(model)
    for name, layer in weighted_layers(quantized):
        quantized.set_submodule(name, _wrap(layer, make_quantizer, n_bits))
    return quantized


@wrong("changes the model itself")
def quantize_model(model, n_bits, make_quantizer=_ste):
    check_bits("n_bits", n_bits)
    for name, layer in weighted_layers(model)[1:-1]:
        model.set_submodule(name, _wrap(layer, make_quantizer, n_bits))
    return model


@wrong("quantizes batch norm and biases as well")
def quantize_model(model, n_bits, make_quantizer=_ste):
    check_bits("n_bits", n_bits)
    quantized = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in quantized.named_parameters():
            if parameter.ndim == 1:
                parameter.copy_(linear_quantize(parameter, n_bits))
    for name, layer in weighted_layers(quantized)[1:-1]:
        quantized.set_submodule(name, _wrap(layer, make_quantizer, n_bits))
    return quantized


@wrong("skips the linear layers")
def quantize_model(model, n_bits, make_quantizer=_ste):
    check_bits("n_bits", n_bits)
    quantized = copy.deepcopy(model)
    for name, layer in weighted_layers(quantized)[1:-1]:
        if isinstance(layer, nn.Conv2d):
            quantized.set_submodule(name, _wrap(layer, make_quantizer, n_bits))
    return quantized


@wrong("rounds the weights once instead of replacing the layers")
def quantize_model(model, n_bits, make_quantizer=_ste):
    check_bits("n_bits", n_bits)
    quantized = copy.deepcopy(model)
    with torch.no_grad():
        for _, layer in weighted_layers(quantized)[1:-1]:
            layer.weight.copy_(make_quantizer(layer.weight, n_bits)(layer.weight))
    return quantized


@wrong("one quantizer for all layers")
def quantize_model(model, n_bits, make_quantizer=_ste):
    check_bits("n_bits", n_bits)
    quantized = copy.deepcopy(model)
    quantizer = make_quantizer(weighted_layers(quantized)[1][1].weight, n_bits)
    for name, layer in weighted_layers(quantized)[1:-1]:
        kind = QuantConv2d if isinstance(layer, nn.Conv2d) else QuantLinear
        quantized.set_submodule(name, kind(layer, quantizer))
    return quantized


@wrong("ignores make_quantizer")
def quantize_model(model, n_bits, make_quantizer=_ste):
    check_bits("n_bits", n_bits)
    quantized = copy.deepcopy(model)
    for name, layer in weighted_layers(quantized)[1:-1]:
        quantized.set_submodule(name, _wrap(layer, _ste, n_bits))
    return quantized


@wrong("returns nothing")
def quantize_model(model, n_bits, make_quantizer=_ste):
    check_bits("n_bits", n_bits)
    quantized = copy.deepcopy(model)
    for name, layer in weighted_layers(quantized)[1:-1]:
        quantized.set_submodule(name, _wrap(layer, make_quantizer, n_bits))


@correct("setattr on the parent")
def quantize_model(model, n_bits, make_quantizer=_ste):
    check_bits("n_bits", n_bits)
    result = copy.deepcopy(model)
    for name, layer in weighted_layers(result)[1:-1]:
        parent, _, last = name.rpartition(".")
        quantizer = make_quantizer(layer.weight, n_bits)
        new = QuantConv2d(layer, quantizer) if isinstance(layer, nn.Conv2d) else QuantLinear(layer, quantizer)
        setattr(result.get_submodule(parent), last, new)
    return result


@correct("a list of layers first, then a loop over names")
def quantize_model(model, n_bits, make_quantizer=_ste):
    check_bits("n_bits", n_bits)
    result = copy.deepcopy(model)
    inner = dict(weighted_layers(result)[1:-1])
    for name in inner:
        if isinstance(inner[name], nn.Linear):
            result.set_submodule(name, QuantLinear(inner[name], make_quantizer(inner[name].weight, n_bits)))
        else:
            result.set_submodule(name, QuantConv2d(inner[name], make_quantizer(inner[name].weight, n_bits)))
    return result


# --- lsq_quantize ----------------------------------------------------------------------------------------------------


@wrong("gradient through round: zero")
def lsq_quantize(weight, step_size, n_bits):
    check_weight("weight", weight)
    check_bits("n_bits", n_bits, minimum=2)
    largest = 2 ** (n_bits - 1) - 1
    step = scale_gradient(step_size, (weight.numel() * largest) ** -0.5)
    return torch.round((weight / step).clamp(-largest - 1, largest)) * step


@wrong("no gradient scale")
def lsq_quantize(weight, step_size, n_bits):
    check_weight("weight", weight)
    check_bits("n_bits", n_bits, minimum=2)
    largest = 2 ** (n_bits - 1) - 1
    return round_through((weight / step_size).clamp(-largest - 1, largest)) * step_size


@wrong("no clamp")
def lsq_quantize(weight, step_size, n_bits):
    check_weight("weight", weight)
    check_bits("n_bits", n_bits, minimum=2)
    step = scale_gradient(step_size, (weight.numel() * (2 ** (n_bits - 1) - 1)) ** -0.5)
    return round_through(weight / step) * step


@wrong("symmetric codes: -Q_P instead of -Q_N")
def lsq_quantize(weight, step_size, n_bits):
    check_weight("weight", weight)
    check_bits("n_bits", n_bits, minimum=2)
    largest = 2 ** (n_bits - 1) - 1
    step = scale_gradient(step_size, (weight.numel() * largest) ** -0.5)
    return round_through((weight / step).clamp(-largest, largest)) * step


@wrong("unsigned codes")
def lsq_quantize(weight, step_size, n_bits):
    check_weight("weight", weight)
    check_bits("n_bits", n_bits, minimum=2)
    largest = 2**n_bits - 1
    step = scale_gradient(step_size, (weight.numel() * largest) ** -0.5)
    return round_through((weight / step).clamp(0, largest)) * step


@wrong("the whole result straight through: the step learns nothing")
def lsq_quantize(weight, step_size, n_bits):
    check_weight("weight", weight)
    check_bits("n_bits", n_bits, minimum=2)
    largest = 2 ** (n_bits - 1) - 1
    quantized = torch.round((weight / step_size).clamp(-largest - 1, largest)) * step_size
    return weight + (quantized - weight).detach() + 0 * step_size


@wrong("scales the gradient by 1 / (N Q_P)")
def lsq_quantize(weight, step_size, n_bits):
    check_weight("weight", weight)
    check_bits("n_bits", n_bits, minimum=2)
    largest = 2 ** (n_bits - 1) - 1
    step = scale_gradient(step_size, 1 / (weight.numel() * largest))
    return round_through((weight / step).clamp(-largest - 1, largest)) * step


@wrong("forgets to multiply by the step")
def lsq_quantize(weight, step_size, n_bits):
    check_weight("weight", weight)
    check_bits("n_bits", n_bits, minimum=2)
    largest = 2 ** (n_bits - 1) - 1
    step = scale_gradient(step_size, (weight.numel() * largest) ** -0.5)
    return round_through((weight / step).clamp(-largest - 1, largest))


class _LSQFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, step, n_bits):
        ctx.save_for_backward(weight, step)
        ctx.n_bits = n_bits
        low, high = -(2 ** (n_bits - 1)), 2 ** (n_bits - 1) - 1
        return torch.round((weight / step).clamp(low, high)) * step

    @staticmethod
    def backward(ctx, gradient):
        weight, step = ctx.saved_tensors
        low, high = -(2 ** (ctx.n_bits - 1)), 2 ** (ctx.n_bits - 1) - 1
        v = weight / step
        inside = (v >= low) & (v <= high)
        slope = torch.where(v < low, float(low), torch.where(v > high, float(high), torch.round(v) - v))
        factor = 1 / (weight.numel() * high) ** 0.5
        return gradient * inside, (gradient * slope).sum() * factor, None


@correct("an autograd.Function with both gradients by hand")
def lsq_quantize(weight, step_size, n_bits):
    check_weight("weight", weight)
    check_bits("n_bits", n_bits, minimum=2)
    return _LSQFunction.apply(weight, step_size, n_bits)


@correct("detach by hand")
def lsq_quantize(weight, step_size, n_bits):
    check_weight("weight", weight)
    check_bits("n_bits", n_bits, minimum=2)
    q_n, q_p = 2 ** (n_bits - 1), 2 ** (n_bits - 1) - 1
    g = 1.0 / (weight.numel() * q_p) ** 0.5
    s = (step_size - step_size * g).detach() + step_size * g
    v = torch.clamp(weight / s, -q_n, q_p)
    return ((v.round() - v).detach() + v) * s


# --- SparseSTEQuantize -----------------------------------------------------------------------------------------------


@wrong("the published inverted mask")
class SparseSTEQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, n_bits):
        mask = (weight == 0).to(weight.dtype)
        ctx.save_for_backward(weight != 0)
        return linear_quantize(weight, n_bits) * mask

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0], None


@wrong("zeros receive gradients")
class SparseSTEQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, n_bits):
        return linear_quantize(weight, n_bits, keep_zeros=True)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


@wrong("zeros are rounded to the nearest level")
class SparseSTEQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, n_bits):
        ctx.save_for_backward(weight != 0)
        return linear_quantize(weight, n_bits)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0], None


@wrong("zeros count for the range")
class SparseSTEQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, n_bits):
        ctx.save_for_backward(weight != 0)
        return linear_quantize(weight, n_bits) * (weight != 0)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0], None


@wrong("inverted mask in the backward pass")
class SparseSTEQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, n_bits):
        ctx.save_for_backward(weight == 0)
        return linear_quantize(weight, n_bits, keep_zeros=True)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0], None


@wrong("the mask of the rounded weight: a survivor that rounds to 0 never comes back")
class SparseSTEQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, n_bits):
        rounded = linear_quantize(weight, n_bits, keep_zeros=True)
        ctx.save_for_backward(rounded != 0)
        return rounded

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0], None


@wrong("gradient through round: zero")
class SparseSTEQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, n_bits):
        return linear_quantize(weight, n_bits, keep_zeros=True)

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient), None


@wrong("multiplies the gradient by the weight instead of its mask")
class SparseSTEQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, n_bits):
        ctx.save_for_backward(weight)
        return linear_quantize(weight, n_bits, keep_zeros=True)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0], None


@correct("torch.where")
class SparseSTEQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, n_bits):
        ctx.save_for_backward(weight)
        return linear_quantize(weight, n_bits, keep_zeros=True)

    @staticmethod
    def backward(ctx, gradient):
        (weight,) = ctx.saved_tensors
        return torch.where(weight == 0, torch.zeros_like(gradient), gradient), None


@correct("quantizes the vector of survivors")
class SparseSTEQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, n_bits):
        ctx.mask = weight != 0
        quantized = torch.zeros_like(weight)
        if ctx.mask.any():
            quantized[ctx.mask] = linear_quantize(weight[ctx.mask], n_bits)
        return quantized

    @staticmethod
    def backward(ctx, gradient):
        return gradient.masked_fill(~ctx.mask, 0.0), None


# --- binarize --------------------------------------------------------------------------------------------------------


@wrong("torch.sign: three values")
def binarize(weight, uniform=None):
    check_weight("weight", weight)
    if uniform is None:
        return torch.sign(weight)
    return torch.where(uniform < ((weight + 1) / 2).clamp(0, 1), 1.0, -1.0).to(weight.dtype)


@wrong("inverted probability")
def binarize(weight, uniform=None):
    check_weight("weight", weight)
    plus = weight >= 0 if uniform is None else uniform > ((weight + 1) / 2).clamp(0, 1)
    return 2 * plus.to(weight.dtype) - 1


@wrong("the logistic function instead of the hard sigmoid")
def binarize(weight, uniform=None):
    check_weight("weight", weight)
    plus = weight >= 0 if uniform is None else uniform < torch.sigmoid(weight)
    return 2 * plus.to(weight.dtype) - 1


@wrong("zeros and ones")
def binarize(weight, uniform=None):
    check_weight("weight", weight)
    plus = weight >= 0 if uniform is None else uniform < ((weight + 1) / 2).clamp(0, 1)
    return plus.to(weight.dtype)


@wrong("ignores the random numbers")
def binarize(weight, uniform=None):
    check_weight("weight", weight)
    return 2 * (weight >= 0).to(weight.dtype) - 1


@wrong("probability w instead of (w + 1) / 2")
def binarize(weight, uniform=None):
    check_weight("weight", weight)
    plus = weight >= 0 if uniform is None else uniform < weight.clamp(0, 1)
    return 2 * plus.to(weight.dtype) - 1


@wrong("random also where the sign is asked")
def binarize(weight, uniform=None):
    check_weight("weight", weight)
    uniform = torch.rand_like(weight) if uniform is None else uniform
    return 2 * (uniform < ((weight + 1) / 2).clamp(0, 1)).to(weight.dtype) - 1


@correct("torch.where and a threshold of one half")
def binarize(weight, uniform=None):
    check_weight("weight", weight)
    one = torch.ones_like(weight)
    if uniform is None:
        return torch.where(weight < 0, -one, one)
    return torch.where(uniform < 0.5 * (weight.clamp(-1, 1) + 1), one, -one)


@correct("compares 2u - 1 with the weight")
def binarize(weight, uniform=None):
    check_weight("weight", weight)
    result = torch.full_like(weight, -1.0)
    result[weight >= 0 if uniform is None else (weight + 1) / 2 > uniform] = 1.0
    return result


# --- share_weights ---------------------------------------------------------------------------------------------------


def _nearest(values, codebook):
    return np.abs(values[:, None] - codebook).argmin(1)


@wrong("an evenly spaced codebook: no k-means")
def share_weights(values, n_codes, n_iterations=20):
    check_vector("values", values)
    check_count("n_codes", n_codes, minimum=1, maximum=256)
    codebook = np.linspace(values.min(), values.max(), n_codes)
    return codebook, _nearest(values, codebook)


@wrong("codes of the last but one codebook")
def share_weights(values, n_codes, n_iterations=20):
    check_vector("values", values)
    check_count("n_codes", n_codes, minimum=1, maximum=256)
    codebook = np.linspace(values.min(), values.max(), n_codes)
    codes = _nearest(values, codebook)
    for _ in range(n_iterations):
        codes = _nearest(values, codebook)
        for k in np.unique(codes):
            codebook[k] = values[codes == k].mean()
    return codebook, codes


@wrong("one iteration too many")
def share_weights(values, n_codes, n_iterations=20):
    check_vector("values", values)
    check_count("n_codes", n_codes, minimum=1, maximum=256)
    codebook = np.linspace(values.min(), values.max(), n_codes)
    for _ in range(n_iterations + 1):
        codes = _nearest(values, codebook)
        for k in np.unique(codes):
            codebook[k] = values[codes == k].mean()
    return codebook, _nearest(values, codebook)


@wrong("the mean of nothing")
def share_weights(values, n_codes, n_iterations=20):
    check_vector("values", values)
    check_count("n_codes", n_codes, minimum=1, maximum=256)
    codebook = np.linspace(values.min(), values.max(), n_codes)
    for _ in range(n_iterations):
        codes = _nearest(values, codebook)
        sums, counts = np.bincount(codes, values, n_codes), np.bincount(codes, minlength=n_codes)
        with np.errstate(invalid="ignore"):
            codebook = np.nan_to_num(sums / counts)
    return codebook, _nearest(values, codebook)


@wrong("starts from quantiles")
def share_weights(values, n_codes, n_iterations=20):
    check_vector("values", values)
    check_count("n_codes", n_codes, minimum=1, maximum=256)
    codebook = np.quantile(values, np.linspace(0, 1, n_codes))
    for _ in range(n_iterations):
        codes = _nearest(values, codebook)
        for k in np.unique(codes):
            codebook[k] = values[codes == k].mean()
    return codebook, _nearest(values, codebook)


@wrong("medians instead of means")
def share_weights(values, n_codes, n_iterations=20):
    check_vector("values", values)
    check_count("n_codes", n_codes, minimum=1, maximum=256)
    codebook = np.linspace(values.min(), values.max(), n_codes)
    for _ in range(n_iterations):
        codes = _nearest(values, codebook)
        for k in np.unique(codes):
            codebook[k] = np.median(values[codes == k])
    return codebook, _nearest(values, codebook)


@wrong("returns the shared values instead of the codes")
def share_weights(values, n_codes, n_iterations=20):
    check_vector("values", values)
    check_count("n_codes", n_codes, minimum=1, maximum=256)
    codebook = np.linspace(values.min(), values.max(), n_codes)
    for _ in range(n_iterations):
        codes = _nearest(values, codebook)
        for k in np.unique(codes):
            codebook[k] = values[codes == k].mean()
    return codebook, codebook[_nearest(values, codebook)]


@correct("bincount")
def share_weights(values, n_codes, n_iterations=20):
    check_vector("values", values)
    check_count("n_codes", n_codes, minimum=1, maximum=256)
    codebook = np.linspace(values.min(), values.max(), n_codes)
    for _ in range(n_iterations):
        codes = _nearest(values, codebook)
        counts = np.bincount(codes, minlength=n_codes)
        codebook = np.where(counts > 0, np.bincount(codes, values, n_codes) / np.maximum(counts, 1), codebook)
    return codebook, _nearest(values, codebook).astype(np.uint8)


@correct("loops over all codes, squared distances")
def share_weights(values, n_codes, n_iterations=20):
    check_vector("values", values)
    check_count("n_codes", n_codes, minimum=1, maximum=256)
    step = (values.max() - values.min()) / max(n_codes - 1, 1)
    codebook = np.array([values.min() + k * step for k in range(n_codes)])
    for _ in range(n_iterations):
        codes = ((values[None, :] - codebook[:, None]) ** 2).argmin(0)
        for k in range(n_codes):
            if (codes == k).any():
                codebook[k] = values[codes == k].sum() / (codes == k).sum()
    return codebook, ((values[None, :] - codebook[:, None]) ** 2).argmin(0)


# --- huffman_code ----------------------------------------------------------------------------------------------------


@wrong("fixed length")
def huffman_code(counts):
    check_counts("counts", counts)
    length = max(1, (len(counts) - 1).bit_length())
    return {symbol: f"{number:0{length}b}" for number, symbol in enumerate(counts)}


@wrong("unary words by rank: a prefix code, but not the best")
def huffman_code(counts):
    check_counts("counts", counts)
    ranked = sorted(counts, key=counts.get, reverse=True)
    words = {symbol: "1" * rank + "0" for rank, symbol in enumerate(ranked)}
    if len(ranked) > 1:
        words[ranked[-1]] = "1" * (len(ranked) - 1)
    return words


@wrong("appends digits at the end: no prefix code")
def huffman_code(counts):
    check_counts("counts", counts)
    if len(counts) == 1:
        return dict.fromkeys(counts, "0")
    codes = dict.fromkeys(counts, "")
    heap = [(count, order, [symbol]) for order, (symbol, count) in enumerate(counts.items())]
    heapq.heapify(heap)
    for order in range(len(counts), 2 * len(counts) - 1):
        light, second = heapq.heappop(heap), heapq.heappop(heap)
        for digit, tree in zip("01", (light, second)):
            for symbol in tree[2]:
                codes[symbol] += digit
        heapq.heappush(heap, (light[0] + second[0], order, light[2] + second[2]))
    return codes


@wrong("joins the heaviest trees")
def huffman_code(counts):
    check_counts("counts", counts)
    if len(counts) == 1:
        return dict.fromkeys(counts, "0")
    codes = dict.fromkeys(counts, "")
    trees = [(count, [symbol]) for symbol, count in counts.items()]
    while len(trees) > 1:
        trees.sort(key=lambda tree: -tree[0])
        first, second, *trees = trees
        for digit, tree in zip("01", (first, second)):
            for symbol in tree[1]:
                codes[symbol] = digit + codes[symbol]
        trees.append((first[0] + second[0], first[1] + second[1]))
    return codes


@wrong("a joined tree weighs as much as its lighter part")
def huffman_code(counts):
    check_counts("counts", counts)
    if len(counts) == 1:
        return dict.fromkeys(counts, "0")
    codes = dict.fromkeys(counts, "")
    heap = [(count, order, [symbol]) for order, (symbol, count) in enumerate(counts.items())]
    heapq.heapify(heap)
    for order in range(len(counts), 2 * len(counts) - 1):
        light, second = heapq.heappop(heap), heapq.heappop(heap)
        for digit, tree in zip("01", (light, second)):
            for symbol in tree[2]:
                codes[symbol] = digit + codes[symbol]
        heapq.heappush(heap, (light[0], order, light[2] + second[2]))
    return codes


@wrong("a single symbol gets the empty word")
def huffman_code(counts):
    check_counts("counts", counts)
    codes = dict.fromkeys(counts, "")
    heap = [(count, order, [symbol]) for order, (symbol, count) in enumerate(counts.items())]
    heapq.heapify(heap)
    for order in range(len(counts), 2 * len(counts) - 1):
        light, second = heapq.heappop(heap), heapq.heappop(heap)
        for digit, tree in zip("01", (light, second)):
            for symbol in tree[2]:
                codes[symbol] = digit + codes[symbol]
        heapq.heappush(heap, (light[0] + second[0], order, light[2] + second[2]))
    return codes


@wrong("Shannon lengths, not Huffman's")
def huffman_code(counts):
    check_counts("counts", counts)
    if len(counts) == 1:
        return dict.fromkeys(counts, "0")
    total = sum(counts.values())
    ranked = sorted(counts, key=counts.get, reverse=True)
    words, start = {}, 0.0
    for symbol in ranked:
        length = max(1, int(np.ceil(np.log2(total / counts[symbol]))))
        words[symbol] = f"{int(start * 2**length):0{length}b}"
        start += counts[symbol] / total
    return words


@correct("a sorted list and a tree of pairs")
def huffman_code(counts):
    check_counts("counts", counts)
    if len(counts) == 1:
        return dict.fromkeys(counts, "0")
    trees = [(count, [(symbol, "")]) for symbol, count in counts.items()]
    while len(trees) > 1:
        trees.sort(key=lambda tree: tree[0])
        (a, left), (b, right) = trees[:2]
        joined = [(symbol, "1" + word) for symbol, word in left] + [(symbol, "0" + word) for symbol, word in right]
        trees = trees[2:] + [(a + b, joined)]
    return dict(trees[0][1])


@correct("lengths first, then canonical words")
def huffman_code(counts):
    check_counts("counts", counts)
    lengths = dict.fromkeys(counts, 0 if len(counts) > 1 else 1)
    heap = [(count, number, [symbol]) for number, (symbol, count) in enumerate(counts.items())]
    heapq.heapify(heap)
    number = len(heap)
    while len(heap) > 1:
        a, b = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in a[2] + b[2]:
            lengths[symbol] += 1
        heapq.heappush(heap, (a[0] + b[0], number, a[2] + b[2]))
        number += 1
    words, word, before = {}, -1, 0
    for symbol in sorted(lengths, key=lengths.get):
        word = (word + 1) << (lengths[symbol] - before)
        before = lengths[symbol]
        words[symbol] = f"{word:0{before}b}"
    return words


from course_utils.quantization import QuantConv2d, STEQuantize, linear_quantize  # noqa: E402
