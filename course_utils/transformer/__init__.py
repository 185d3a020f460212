"""Transformers. Lab 6's reference implementations are in `attention`, `layers`, `seq2seq`, `gpt` and `counting`.

`given` holds what Lab 6 gives to students (masks and their convention among it), `reversal` its first task, `language`
trains, judges and samples language models, `ngrams` has the models they must beat, `pretrained` the checkpoint,
`compression` prunes and quantizes, `plan` has the lab's numbers for both profiles, `plots` its pictures, `widgets` its
head picker.
"""

from course_utils.transformer.attention import (
    KeyValueCache,
    MultiHeadAttention,
    positional_encoding,
    scaled_dot_product_attention,
    shift_matrix,
)
from course_utils.transformer.counting import matrix_products
from course_utils.transformer.gpt import TinyGPT
from course_utils.transformer.language import fit_language_model, generate, nats_per_character
from course_utils.transformer.layers import DecoderLayer, EncoderLayer, FeedForward
from course_utils.transformer.pretrained import load_tiny_gpt
from course_utils.transformer.seq2seq import Transformer, greedy_decode

__all__ = [
    "DecoderLayer",
    "EncoderLayer",
    "FeedForward",
    "KeyValueCache",
    "MultiHeadAttention",
    "TinyGPT",
    "Transformer",
    "fit_language_model",
    "generate",
    "greedy_decode",
    "load_tiny_gpt",
    "matrix_products",
    "nats_per_character",
    "positional_encoding",
    "scaled_dot_product_attention",
    "shift_matrix",
]
