"""A data set and a network small enough to train in a second, and real enough to learn something."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from course_utils import data_files, runtime
from course_utils.data import Dataset
from course_utils.resnet import ResNet

needs_cifar10 = pytest.mark.skipif(
    not data_files.cifar10_path().is_file(),
    reason=f"CIFAR-10 is not at {data_files.cifar10_path()} (course data fetch cifar10, or set COURSE_DATA)",
)


def tiny_dataset(n_train: int = 192, n_test: int = 64, n_channels: int = 1) -> Dataset:
    """Four classes of 8 x 8 images: a bright quadrant in noise."""
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(n_train + n_test) % 4
    images = torch.randint(0, 120, (len(labels), n_channels, 8, 8), generator=generator)
    for image, label in zip(images, labels, strict=True):
        row, column = divmod(int(label), 2)
        image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 100
    images = images.to(torch.uint8)
    return Dataset(
        name="tiny",
        train_images=images[:n_train],
        train_labels=labels[:n_train],
        test_images=images[n_train:],
        test_labels=labels[n_train:],
        mean=(0.33,) * n_channels,
        std=(0.2,) * n_channels,
        class_names=("a", "b", "c", "d"),
    )


def tiny_model(seed: int = 0) -> ResNet:
    """A residual network with 8 weighted layers and 4 channels."""
    runtime.seed_everything(seed)
    return ResNet(n_blocks=1, in_channels=1, num_classes=4, width=4)


FP32 = runtime.Runtime(torch.device("cpu"), "fp32", torch.get_num_threads())


def state_equal(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    """Whether two models have the same bits in every parameter and buffer."""
    one, two = first.state_dict(), second.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def move_course_to(folder: Path, monkeypatch) -> None:
    """Make a folder count as the course's git checkout: data below it is read, its repair commands are named."""
    for name in (".git", "course_admin"):
        (folder / name).mkdir()
    monkeypatch.setattr(data_files, "COURSE_FOLDER", folder)
    monkeypatch.setattr(data_files, "DATA_FOLDER", folder / "data")


def cut_short(path: Path, n_bytes: int) -> None:
    """Take the last n_bytes off a file."""
    os.truncate(path, path.stat().st_size - n_bytes)
