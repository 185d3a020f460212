"""Image data sets as plain tensors.

The usual recipe decodes, crops and normalises images one at a time in worker processes. Small images do not need that:
CIFAR-10 is 184 MB of bytes, so the whole data set stays in memory as one uint8 tensor of shape (N, C, H, W), and a
batch is one indexing operation. Bytes become floats only when a batch is used (see `course_utils.augment`): as float32
the same data set would take four times the memory and four times the traffic.

    dataset = load_fashion_mnist(n_train=10_000)
    dataset.train_images          # (10000, 1, 28, 28) uint8
    dataset.train_labels          # (10000,) int64
"""

from __future__ import annotations

import dataclasses
import gzip
import math
from dataclasses import dataclass

import numpy as np
import torch

from course_utils import checkpoints, data_files
from course_utils.data_files import DamagedData, MissingData, fetch_cifar10

__all__ = [
    "DamagedData",
    "Dataset",
    "MissingData",
    "fetch_cifar10",
    "load",
    "load_cifar10",
    "load_fashion_mnist",
    "verify",
]

FASHION_MNIST_CLASSES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Dataset:
    """A labelled image data set held in memory.

    Attributes:
        name: `"fashion_mnist"`, `"cifar10"` or a name of your own.
        train_images: Shape (N, C, H, W), uint8.
        train_labels: Shape (N,), int64, values from 0 to number of classes - 1.
        test_images: Shape (M, C, H, W), uint8.
        test_labels: Shape (M,), int64.
        mean: One mean a channel over the whole training set, of pixels scaled to [0, 1].
        std: One standard deviation a channel, likewise.
        class_names: One name a class.
    """

    name: str
    train_images: torch.Tensor
    train_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]

    @property
    def n_channels(self) -> int:
        """Number of channels C: 1 for grey images, 3 for colour."""
        return self.train_images.shape[1]

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    def split(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (images, labels) of the split `"train"` or `"test"`.

        Args:
            name: `"train"` or `"test"`.

        Returns:
            Images (N, C, H, W) uint8 and labels (N,) int64.

        Raises:
            ValueError: If name is neither.
        """
        if name not in ("train", "test"):
            raise ValueError(f"split must be 'train' or 'test', got {name!r}")
        return getattr(self, f"{name}_images"), getattr(self, f"{name}_labels")

    def subset(self, n_train: int | None = None, n_test: int | None = None) -> Dataset:
        """Return the data set cut down to its first n_train training and n_test test images (None keeps all).

        Mean and standard deviation stay those of the whole training set, so that a trained model still fits.

        Args:
            n_train: Number of training images, from 1 to all of them.
            n_test: Number of test images, from 1 to all of them.

        Returns:
            A data set that shares memory with this one.

        Raises:
            ValueError: If a number is out of range.
        """
        n_train = _count("n_train", n_train, len(self.train_labels))
        n_test = _count("n_test", n_test, len(self.test_labels))
        return dataclasses.replace(
            self,
            train_images=self.train_images[:n_train],
            train_labels=self.train_labels[:n_train],
            test_images=self.test_images[:n_test],
            test_labels=self.test_labels[:n_test],
        )

    def to(self, device: torch.device | str) -> Dataset:
        """Return the data set with its four tensors on a device."""
        names = ("train_images", "train_labels", "test_images", "test_labels")
        return dataclasses.replace(self, **{name: getattr(self, name).to(device) for name in names})


def _count(argument: str, value: int | None, available: int) -> int:
    if value is None:
        return available
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{argument} must be an integer or None, got {value!r}")
    if not 1 <= value <= available:
        raise ValueError(f"{argument} must be from 1 to {available} (what the data set holds), got {value}")
    return value


def load_fashion_mnist(n_train: int | None = None, n_test: int | None = None) -> Dataset:
    """Load Fashion-MNIST (60000 + 10000 grey images, 28 x 28, 10 classes) from the files embedded in `data/`.

    Args:
        n_train: How many training images to keep, the first ones of the file; None keeps 60000.
        n_test: How many test images to keep, likewise; None keeps 10000.

    Returns:
        The data set; images (N, 1, 28, 28) uint8.

    Raises:
        MissingData: If a file is missing.
        DamagedData: If a file's sha256 is wrong.
        ValueError: If a count is out of range.

    Source:
        Xiao, Rasul and Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms",
        arXiv:1708.07747 (2017). File format: the IDX format of the MNIST files.
    """
    arrays = {}
    for file_name, sha256 in data_files.FASHION_MNIST_SHA256.items():
        path = data_files.fashion_mnist_folder() / file_name
        data_files.check_embedded(path, sha256)
        arrays[file_name.split("-idx")[0]] = _read_idx(gzip.decompress(path.read_bytes()))
    dataset = Dataset(
        name="fashion_mnist",
        train_images=arrays["train-images"].unsqueeze(1),  # (N, 28, 28) -> (N, 1, 28, 28)
        train_labels=arrays["train-labels"].long(),
        test_images=arrays["t10k-images"].unsqueeze(1),
        test_labels=arrays["t10k-labels"].long(),
        mean=(0.28604,),
        std=(0.35302,),
        class_names=FASHION_MNIST_CLASSES,
    )
    return dataset.subset(n_train, n_test)


def _read_idx(content: bytes) -> torch.Tensor:
    """Decode the IDX format: two zero bytes, a type byte (8 = uint8), the rank, the sizes (big-endian), the values."""
    rank = content[3]
    header = 4 + 4 * rank
    sizes = tuple(int(size) for size in np.frombuffer(content, dtype=">u4", count=rank, offset=4))
    if content[:3] != b"\0\0\x08" or len(content) != header + math.prod(sizes):
        raise DamagedData("this is not a file of unsigned bytes in the IDX format")
    return torch.frombuffer(bytearray(content[header:]), dtype=torch.uint8).reshape(sizes)


def load_cifar10(n_train: int | None = None, n_test: int | None = None) -> Dataset:
    """Load CIFAR-10 (50000 + 10000 colour images, 32 x 32, 10 classes) from `cifar10.npz` in the cache folder.

    The images come in a fixed, well-mixed order that does not depend on how the file was made.

    Args:
        n_train: How many training images to keep; None keeps 50000.
        n_test: How many test images to keep; None keeps 10000.

    Returns:
        The data set; images (N, 3, 32, 32) uint8.

    Raises:
        MissingData: If the file is not in the cache folder; `course data fetch cifar10` brings it.
        DamagedData: If its content is wrong; the same command repairs it.
        ValueError: If a count is out of range.

    Source:
        Krizhevsky, "Learning multiple layers of features from tiny images" (2009), chapter 3.
    """
    arrays = data_files.read_cifar10()
    tensors = {}
    for split in ("train", "test"):
        channels_last = torch.from_numpy(arrays[f"{split}_images"])  # (N, H, W, C)
        tensors[f"{split}_images"] = channels_last.permute(0, 3, 1, 2).contiguous()  # (N, C, H, W)
        tensors[f"{split}_labels"] = torch.from_numpy(arrays[f"{split}_labels"]).long()
    dataset = Dataset(
        name="cifar10",
        mean=(0.49140, 0.48216, 0.44653),
        std=(0.24703, 0.24349, 0.26159),
        class_names=CIFAR10_CLASSES,
        **tensors,
    )
    return dataset.subset(n_train, n_test)


def load(name: str, n_train: int | None = None, n_test: int | None = None) -> Dataset:
    """Load the data set of that name: `"fashion_mnist"` or `"cifar10"`.

    Args:
        name: Which data set.
        n_train: How many training images to keep; None keeps all.
        n_test: How many test images to keep; None keeps all.

    Returns:
        The data set.

    Raises:
        ValueError: If there is no data set of that name, or a count is out of range.
    """
    loaders = {"fashion_mnist": load_fashion_mnist, "cifar10": load_cifar10}
    if name not in loaders:
        raise ValueError(f"data set must be one of {sorted(loaders)}, got {name!r}")
    return loaders[name](n_train, n_test)


def verify() -> dict[str, str]:
    """Check every data file and checkpoint of the course and say how each one is.

    Returns:
        For each file its path as text and `"ok"`, or the message that says what is wrong and what repairs it. CIFAR-10
        is optional: where it has not been fetched, its message says so.
    """
    outcome = {}
    for file_name, sha256 in data_files.FASHION_MNIST_SHA256.items():
        path = data_files.fashion_mnist_folder() / file_name
        outcome[str(path)] = _outcome(data_files.check_embedded, path, sha256)
    for file_name, sha256 in data_files.TEXTS_SHA256.items():
        path = data_files.texts_folder() / file_name
        outcome[str(path)] = _outcome(data_files.check_embedded, path, sha256)
    for name in checkpoints.NAMES:
        path = checkpoints.checkpoint_folder() / f"{name}.safetensors"
        outcome[str(path)] = _outcome(checkpoints.check_checkpoint, path.stem)
    outcome[str(data_files.cifar10_path())] = _outcome(data_files.read_cifar10)
    return outcome


def _outcome(check, *arguments) -> str:
    try:
        check(*arguments)
    except (MissingData, DamagedData) as error:
        return str(error)
    return "ok"
