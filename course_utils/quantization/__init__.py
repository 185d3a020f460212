"""Quantization. Lab 3's reference implementations: `affine` (NumPy), `linear` (weights), `ste` (training through a
rounding), `lsq` (learned steps), `binary` (one bit), `deep_compression` (codebooks and Huffman codes).

`given` holds what Lab 3 gives to students, `plan` its numbers for both profiles, `training` its loops, `codec` the file
of a Deep Compression pipeline, `int8` the way through ONNX to integer inference, `plots` its pictures, `widgets` its
sliders.
"""

from course_utils.quantization.affine import dequantize, quantize, quantize_int8
from course_utils.quantization.binary import binarize
from course_utils.quantization.deep_compression import huffman_code, share_weights
from course_utils.quantization.given import QuantLinear
from course_utils.quantization.linear import linear_quantize
from course_utils.quantization.lsq import LSQ, lsq_quantize
from course_utils.quantization.ste import (
    ClippedSTE,
    QuantConv2d,
    SparseSTEQuantize,
    STEQuantize,
    quantize_model,
    straight_through,
)

__all__ = [
    "LSQ",
    "ClippedSTE",
    "QuantConv2d",
    "QuantLinear",
    "STEQuantize",
    "SparseSTEQuantize",
    "binarize",
    "dequantize",
    "huffman_code",
    "linear_quantize",
    "lsq_quantize",
    "quantize",
    "quantize_int8",
    "quantize_model",
    "share_weights",
    "straight_through",
]
