"""The closing challenge of Lab 2: one score for accuracy and bytes, measured on a file.

    score = accuracy + 0.02 log2(dense bytes / packed bytes)

Each halving of the file is worth two points of accuracy, no more and no less. The dense network scores its accuracy; a
file of zeros cannot win, because accuracy at chance costs more than any packing earns. The entry is judged by what was
written to disk: its file is read back into a fresh network, which is then evaluated on the last test images, an end of
the data set that the lab's other cells do not touch in the quick profile.

The exchange rate is a choice. A class competition that scores accuracy and sparsity together (CMU 10-605) inspired it;
bytes instead of sparsity make the format part of the game.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from course_utils import data, profiles
from course_utils.accounting import load_packed, save_dense, save_packed, total_sparsity
from course_utils.data import Dataset
from course_utils.profiles import Profile
from course_utils.pruning.plan import plan_for
from course_utils.training import evaluate

ACCURACY_PER_HALVING = 0.02
N_JUDGED = 5000


@dataclass(frozen=True)
class Entry:
    """A judged file.

    Attributes:
        accuracy: Of the network read from the file, in [0, 1].
        size_bytes: Size of the packed file.
        dense_accuracy: Of the dense checkpoint on the same images.
        dense_bytes: Size of the dense checkpoint's file.
        sparsity: Fraction of convolution and linear weights that are zero.
    """

    accuracy: float
    size_bytes: int
    dense_accuracy: float
    dense_bytes: int
    sparsity: float

    @property
    def score(self) -> float:
        """Accuracy + 0.02 for each halving of the file."""
        return challenge_score(self.accuracy, self.size_bytes, self.dense_bytes)

    def __str__(self) -> str:
        """Return the entry as one line."""
        ratio = self.dense_bytes / self.size_bytes
        return (
            f"accuracy {self.accuracy:.4f}, {self.size_bytes} bytes ({ratio:.1f} x smaller), "
            f"sparsity {self.sparsity:.3f}: score {self.score:.4f}"
        )


def challenge_score(accuracy: float, size_bytes: int, dense_bytes: int) -> float:
    """Compute the score, accuracy + 0.02 log2(dense_bytes / size_bytes).

    Args:
        accuracy: In [0, 1].
        size_bytes: Size of the packed file, above 0.
        dense_bytes: Size of the dense checkpoint's file, above 0.

    Returns:
        The score; the dense network's is its accuracy.
    """
    return accuracy + ACCURACY_PER_HALVING * math.log2(dense_bytes / size_bytes)


def enter_challenge(
    compress: Callable[[nn.Module, Dataset, int], nn.Module], profile: Profile | None = None
) -> Entry:
    """Let a function compress the profile's checkpoint, write the result packed, and judge the file.

    The entry of a function is computed once; defining the function anew makes a new entry.

    Args:
        compress: `compress(model, train_set, n_epochs)` returns the compressed network; it may change model in place.
            The test images of train_set are not those that are judged.
        profile: Which network and data; `profiles.current()` when None.

    Returns:
        The judged file.

    Raises:
        TypeError: If the function returns no network, or one whose numbers are not float32.
    """
    return judge_file(packed_file(compress, profile), profile)


def packed_file(
    compress: Callable[[nn.Module, Dataset, int], nn.Module], profile: Profile | None = None
) -> np.ndarray:
    """Let a function compress the profile's checkpoint, and write the result packed; done once for a function.

    Args:
        compress: See `enter_challenge`.
        profile: Which network and data; `profiles.current()` when None.

    Returns:
        The bytes of the file, uint8. Of the layouts "bitmap" and "csr" the one with the smaller file is taken.

    Raises:
        TypeError: If the function returns no network, or one whose numbers are not float32.
    """
    return _packed(compress, profiles.current() if profile is None else profile)


@functools.cache
def _packed(compress: Callable[[nn.Module, Dataset, int], nn.Module], profile: Profile) -> np.ndarray:
    plan = plan_for(profile)
    dataset = data.load(profile.dataset)
    given = dataset.subset(n_train=plan.n_train, n_test=len(dataset.test_labels) - N_JUDGED)  # none that are judged
    compressed = compress(profile.load_resnet20(), given, plan.challenge_epochs)
    if not isinstance(compressed, nn.Module):
        raise TypeError(f"compress must return the network, got a {type(compressed).__name__}")
    with tempfile.TemporaryDirectory() as folder:
        paths = {layout: Path(folder) / f"{layout}.safetensors" for layout in ("bitmap", "csr")}
        sizes = {layout: save_packed(compressed, path, layout) for layout, path in paths.items()}
        return np.frombuffer(paths[min(sizes, key=sizes.__getitem__)].read_bytes(), dtype=np.uint8)


def judge_file(content: np.ndarray, profile: Profile | None = None) -> Entry:
    """Read a packed file back into a fresh network, and count and evaluate that. The same bytes are judged once.

    Args:
        content: The bytes of the file, uint8.
        profile: Which network and data; `profiles.current()` when None.

    Returns:
        The judged file.
    """
    return _judge(content.tobytes(), profiles.current() if profile is None else profile)


@functools.cache
def _judge(content: bytes, profile: Profile) -> Entry:
    dense = profile.load_resnet20()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "entry.safetensors"
        path.write_bytes(content)
        judged = load_packed(profile.load_resnet20(), path).eval()
        dense_bytes = save_dense(dense, Path(folder) / "dense.safetensors")
    images = last_test_images(data.load(profile.dataset))
    return Entry(evaluate(judged, images), len(content), evaluate(dense, images), dense_bytes, total_sparsity(judged))


def times_smaller(content: np.ndarray) -> float:
    """Compute (bytes of the dense file) / (bytes of this file), for the current profile.

    Args:
        content: The bytes of the file, uint8.

    Returns:
        The ratio; 1 for the dense file itself.
    """
    entry = judge_file(content)
    return entry.dense_bytes / entry.size_bytes


def accuracy_of_file(content: np.ndarray) -> float:
    """Evaluate the network in a packed file, for the current profile.

    Args:
        content: The bytes of the file, uint8.

    Returns:
        Accuracy on the last test images, in [0, 1].
    """
    return judge_file(content).accuracy


def gain_of_file(content: np.ndarray) -> float:
    """Compute (score of the file) - (score of the dense network), for the current profile.

    Args:
        content: The bytes of the file, uint8.

    Returns:
        The gain; the dense network's score is its accuracy.
    """
    entry = judge_file(content)
    return entry.score - entry.dense_accuracy


def sparsity_of_file(content: np.ndarray) -> float:
    """Compute the sparsity of the network in a packed file, for the current profile.

    Args:
        content: The bytes of the file, uint8.

    Returns:
        Fraction of convolution and linear weights that are zero.
    """
    return judge_file(content).sparsity


def last_test_images(dataset: Dataset, n: int = N_JUDGED) -> Dataset:
    """Return the data set with only the last n test images.

    Args:
        dataset: Any data set with at least n test images.
        n: How many.

    Returns:
        A data set that shares memory with this one.
    """
    return dataclasses.replace(
        dataset, test_images=dataset.test_images[-n:], test_labels=dataset.test_labels[-n:]
    )
