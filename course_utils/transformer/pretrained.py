"""The small language model that comes with the course, trained on a text with `course pretrain tinygpt_austen`."""

from __future__ import annotations

from course_utils import checkpoints
from course_utils.text import ALPHABET
from course_utils.transformer.gpt import TinyGPT

SHAPES = {
    "tinygpt_austen": {
        "n_tokens": len(ALPHABET),
        "d_model": 128,
        "n_heads": 4,
        "n_layers": 3,
        "d_hidden": 512,
        "max_length": 128,
    },
}


def new_tiny_gpt(name: str = "tinygpt_austen", make: type = TinyGPT) -> TinyGPT:
    """Build a model of a checkpoint's shape, untrained.

    Args:
        name: The checkpoint.
        make: The class to build; a class of your own with TinyGPT's arguments and names.

    Returns:
        The model, with random weights.

    Raises:
        ValueError: If there is no such checkpoint.
    """
    if name not in SHAPES:
        raise ValueError(f"name must be one of {sorted(SHAPES)}, got {name!r}")
    return make(**SHAPES[name])


def load_tiny_gpt(name: str = "tinygpt_austen", make: type = TinyGPT) -> TinyGPT:
    """Load a language model that this course trained.

    Args:
        name: The checkpoint.
        make: The class to build; a class of your own with TinyGPT's arguments and names.

    Returns:
        The model, on the CPU, in float32, in evaluation mode.

    Raises:
        ValueError: If there is no such checkpoint, or its tensors do not fit the class.
        MissingData: If its files are missing.
        DamagedData: If the weights are not the recorded ones.
    """
    model = new_tiny_gpt(name, make)
    return checkpoints.load_weights(model, checkpoints.check_checkpoint(name)).eval()
