"""Affine quantization in NumPy: real numbers on an evenly spaced grid, stored as small whole numbers.

    x  ~  scale * code + shift

`quantize` puts the grid's ends on the smallest and the largest value, so nothing is ever clipped, and no value moves by
more than half a step, scale / 2. `quantize_int8` is what inference engines do with activations: the range was chosen
before (calibration), what lies outside is clipped, and the grid is moved so that 0.0 lies on it exactly, because
padding and ReLU make zeros by the thousand.

Rounding is to the nearest code, halves to the even neighbour (`np.round`, `torch.round`, and IEEE 754's default).
"""

from __future__ import annotations

import numpy as np

from course_utils.quantization.given import check_array, check_range
from course_utils.validate import check_count


def quantize(x: np.ndarray, n_bits: int) -> tuple[np.ndarray, float, float]:
    """Put numbers on a grid of 2^b levels from min to max: code = round((x - shift) / scale).

    shift = min(x) and scale = (max(x) - min(x)) / (2^b - 1): 2^b levels have 2^b - 1 steps between them. Halves
    round to the even code. If all entries are equal, scale is 0.0 and every code is 0.

    Args:
        x: Any shape, real numbers; it is not changed.
        n_bits: b, from 1 to 8.

    Returns:
        Codes (uint8, the shape of x, from 0 to 2^b - 1), scale and shift (floats).

    Raises:
        ValueError: If x is empty or not finite, or n_bits is out of range.
        TypeError: If x holds no real numbers, or n_bits is no int.

    Source:
        Programming assignment on quantization of a CNN (8 and 4 bits with scale and shift); Jacob et al.,
        "Quantization and training of neural networks" (2018), section 2.1.
    """
    check_array("x", x)
    check_count("n_bits", n_bits, minimum=1, maximum=8)
    values = np.asarray(x, dtype=np.float64)
    shift = values.min()
    scale = (values.max() - shift) / (2**n_bits - 1)
    codes = np.round((values - shift) / scale) if scale > 0 else np.zeros(values.shape)
    return codes.astype(np.uint8), float(scale), float(shift)


def dequantize(codes: np.ndarray, scale: float, shift: float) -> np.ndarray:
    """Compute what the codes stand for: scale * code + shift.

    Args:
        codes: Whole numbers of any integer dtype and shape.
        scale: Step between neighbouring levels.
        shift: Value of code 0.

    Returns:
        Array of the shape of codes, float64.

    Source:
        Jacob et al. (2018), section 2.1, equation 1 (with shift = -scale * zero_point).
    """
    return scale * codes.astype(np.float64) + shift


def quantize_int8(x: np.ndarray, low: float, high: float) -> tuple[np.ndarray, float, int]:
    """Quantize to int8 over a given range: code = clip(round(x / scale) + zero_point, -128, 127).

    scale = (high - low) / 255 and zero_point = -128 - round(low / scale), so that 0.0 has a code of its own
    (zero_point), and low and high lie at the ends -128 and 127 up to half a step. Halves round to even.

    Args:
        x: Any shape, real numbers; entries outside the range are clipped to its ends.
        low: Lower end of the range, at most 0.
        high: Upper end of the range, at least 0 and above low.

    Returns:
        Codes (int8, the shape of x), scale (float) and zero_point (int, from -128 to 127).

    Raises:
        ValueError: If x is empty or not finite, or not low <= 0 <= high and low < high.
        TypeError: If something is no real number.

    Source:
        Jacob et al. (2018), section 2.1; "Neural networks compression", lecture slides (2025), affine int8
        quantization.
    """
    check_array("x", x)
    check_range(low, high)
    scale = (high - low) / 255
    zero_point = -128 - round(low / scale)
    codes = np.clip(np.round(np.asarray(x) / scale) + zero_point, -128, 127)
    return codes.astype(np.int8), scale, zero_point
