"""Trained weights on disk.

A checkpoint is two files: `NAME.safetensors` with the weights and `NAME.json` with how they came about (recipe, seed,
versions, precision, measured accuracy, sha256 of the weights). The safetensors format holds a table of names, shapes
and raw numbers and nothing else: loading it cannot run code, unlike a pickle.

    model = load_resnet20("fashion_mnist")
    read_record("resnet20_fashion_mnist")["test_accuracy"]
"""

from __future__ import annotations

import json
from pathlib import Path

import safetensors.torch
import torch
from torch import nn

from course_utils import data_files
from course_utils.data_files import DamagedData, MissingData
from course_utils.files import replacing
from course_utils.resnet import ResNet, resnet20

RESNET20_CHANNELS = {"fashion_mnist": 1, "cifar10": 3, "cifar10_restarted": 3}
NAMES = (*(f"resnet20_{name}" for name in RESNET20_CHANNELS), "tinygpt_austen")
"""All checkpoints that come with the course."""


def checkpoint_folder() -> Path:
    """Return the folder of the checkpoints that come with the course."""
    return data_files.DATA_FOLDER / "checkpoints"


def save_weights(model: nn.Module, path: str | Path) -> int:
    """Write a model's parameters and buffers to a safetensors file.

    Args:
        model: Any module; its tensors are written as they are, from whichever device.
        path: The file to write; it is replaced as a whole.

    Returns:
        Size of the file in bytes.
    """
    path = Path(path)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    content = safetensors.torch.save(tensors)  # bytes: a file written by us has the usual permissions
    with replacing(path) as part:
        part.write_bytes(content)
    return path.stat().st_size


def load_weights(model: nn.Module, path: str | Path) -> nn.Module:
    """Load a safetensors file into a model of the same shape, in place.

    Args:
        model: The model to fill.
        path: The file.

    Returns:
        The same model.

    Raises:
        MissingData: If the file is not there.
        DamagedData: If it is no safetensors file (cut short, altered).
        ValueError: If its tensors do not fit the model; the message names them.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingData(f"checkpoint {path} is missing")
    try:
        tensors = safetensors.torch.load_file(path)
    except Exception as error:  # safetensors raises its own type for a bad header and OSError for a short file
        raise DamagedData(f"{path} cannot be read as safetensors: {error}") from error
    check_fit(path, tensors, model.state_dict(), f"this {type(model).__name__}")
    model.load_state_dict(tensors)
    return model


def check_fit(path: str | Path, found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], what: str) -> None:
    """Refuse a file whose tensors are not those that they are to replace, by name and shape.

    Args:
        path: The file, for the message.
        found: Its tensors by name.
        wanted: The tensors that they would replace.
        what: What the tensors are to be loaded into, for the message.

    Raises:
        ValueError: If they differ; the message names the first four that do.
    """
    there = {name: tuple(tensor.shape) for name, tensor in found.items()}
    here = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
    if there != here:
        differing = (name for name in there | here if there.get(name) != here.get(name))
        names = sorted(differing, key=lambda name: (name not in there, name))
        first = "; ".join(f"{name} is {there.get(name)} there and {here.get(name)} here" for name in names[:4])
        raise ValueError(f"{path} does not fit {what}; {len(names)} tensors differ: {first}")


def read_record(name: str) -> dict:
    """Read how a checkpoint came about.

    Args:
        name: For example `"resnet20_cifar10"`.

    Returns:
        The content of its JSON file: recipe, seed, versions, precision, `test_accuracy`, sha256 and more.

    Raises:
        MissingData: If there is no such checkpoint; the message says how to make it.
        DamagedData: If the file is no record.
    """
    path = checkpoint_folder() / f"{name}.json"
    if not path.is_file():
        raise MissingData(f"checkpoint record {path} is missing. {_repair(name)}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if "sha256" in record.keys():  # noqa: SIM118 - a list or a number has no keys and is refused below
            return record
        reason = f"it has the keys {sorted(record)}"
    except (ValueError, AttributeError) as error:
        reason = str(error)
    raise DamagedData(f"checkpoint record {path} is damaged ({reason}). {_repair(name)}")


def _repair(name: str) -> str:
    return data_files.how_to_restore("data/checkpoints", f"course pretrain {name}")


def load_resnet20(dataset_name: str) -> ResNet:
    """Load the ResNet-20 that this course trained on a data set.

    Args:
        dataset_name: `"fashion_mnist"` (1 input channel) or `"cifar10"` (3); `"cifar10_restarted"` is the latter after
            a warm restart with more weight decay, less accurate and less hurt by one-shot pruning.

    Returns:
        The model, on the CPU, in float32, in evaluation mode.

    Raises:
        ValueError: If there is no checkpoint for that data set.
        MissingData: If its files are missing.
        DamagedData: If the weights are not the recorded ones.
    """
    if dataset_name not in RESNET20_CHANNELS:
        raise ValueError(f"dataset_name must be one of {sorted(RESNET20_CHANNELS)}, got {dataset_name!r}")
    path = check_checkpoint(f"resnet20_{dataset_name}")
    return load_weights(resnet20(in_channels=RESNET20_CHANNELS[dataset_name]), path).eval()


def check_checkpoint(name: str) -> Path:
    """Check that a checkpoint's two files are there and that the weights are the recorded ones.

    Args:
        name: For example `"resnet20_cifar10"`.

    Returns:
        The path of the weights.

    Raises:
        MissingData: If a file is missing; the message says what to run.
        DamagedData: If the record is none, or the weights have another sha256 than it says.
    """
    path = checkpoint_folder() / f"{name}.safetensors"
    if not path.is_file():
        raise MissingData(f"checkpoint {path} is missing. {_repair(name)}")
    expected, found = read_record(name)["sha256"], data_files.file_sha256(path)
    if found != expected:
        raise DamagedData(f"{path} is damaged: its sha256 is {found}, it should be {expected}. {_repair(name)}")
    return path


def save_state(path: str | Path, content: dict) -> None:
    """Write the state of an unfinished training run (tensors, numbers, strings, lists, dicts) to a file.

    Args:
        path: The file; it is replaced as a whole, so an interruption leaves the old or the new one.
        content: The state.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        torch.save(content, part)


def load_state(path: str | Path, map_location: torch.device | str = "cpu") -> dict:
    """Read a state that `save_state` wrote; only tensors and plain data are accepted.

    Args:
        path: The file.
        map_location: Device for the tensors.

    Returns:
        The state.

    Raises:
        DamagedData: If the file cannot be read.
    """
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        raise DamagedData(f"{path} cannot be read as a training state: {error}. Delete it to start anew") from error
