"""A network trained for one task, the images of another, and the loop that adapts the one to the other.

What is frozen and where adapters go is decided by whoever prepares the network; the loop trains what may be trained and
measures what it cost: accuracy, trained parameters, seconds an epoch, bytes of the file that has to be stored for the
task.
"""

from __future__ import annotations

import dataclasses
import pickle
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn

from course_utils import checkpoints, data, runtime
from course_utils.data import DamagedData, Dataset, MissingData
from course_utils.lora.given import FixedBatchNorm2d
from course_utils.lora.plan import LoRAPlan
from course_utils.training import evaluate, fit


def load_task(plan: LoRAPlan, seed: int = 0) -> tuple[nn.Module, Dataset]:
    """Load the pretrained network, with a fresh classifier, and the images that it is to learn.

    Args:
        plan: Which network, which data set, how many images.
        seed: Seed of the new classifier.

    Returns:
        The network on the CPU, and the data set: colour images that fit it.

    Raises:
        MissingData: If weights or images are missing; the message says what to do.
    """
    network = load_source(plan.source, plan.image_size)
    dataset = as_colour(data.load(plan.target, plan.n_train, plan.n_test), plan.image_size)
    new_classifier(network, dataset.n_classes, seed)
    return network, dataset


def load_source(source: str, image_size: int) -> nn.Module:
    """Load a pretrained network; its classifier is called `fc`.

    Args:
        source: "resnet20_cifar10" (this course's checkpoint) or "resnet18_imagenet" (torchvision's).
        image_size: Height and width to which ImageNet's network enlarges its images; the other takes them as they are.

    Returns:
        The network, on the CPU, in evaluation mode.

    Raises:
        ValueError: If there is no such network.
        MissingData: If its weights are not there; the message says what to do.
        DamagedData: If the file of weights cannot be read.
    """
    if source == "resnet20_cifar10":
        return checkpoints.load_resnet20("cifar10")
    if source != "resnet18_imagenet":
        raise ValueError(f"source must be 'resnet20_cifar10' or 'resnet18_imagenet', got {source!r}")
    network = _imagenet_resnet18()
    network.register_forward_pre_hook(Enlarge(image_size))
    return network.eval()


def _imagenet_resnet18() -> nn.Module:
    """Build torchvision's ResNet-18 with its ImageNet weights, from torch's cache or downloaded into it."""
    from torchvision.models import ResNet18_Weights, resnet18

    weights = ResNet18_Weights.IMAGENET1K_V1
    path = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[-1]
    try:
        return resnet18(weights=weights)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:  # a file that was cut short, a wrong checksum
        raise DamagedData(
            f"the ImageNet weights of ResNet-18 in {path} cannot be read ({type(error).__name__}). Delete the file and "
            "run this again where there is a network"
        ) from error
    except OSError as error:  # URLError and its like: no network, no space
        raise MissingData(
            f"the ImageNet weights of ResNet-18 could not be downloaded ({type(error).__name__}: {error}). Fetch "
            f"{weights.url} where there is a network and put the file at {path} (the environment variable TORCH_HOME "
            "names another cache folder). The quick profile needs no download: unset COURSE_PROFILE"
        ) from error


class Enlarge:
    """A forward pre-hook that enlarges the images to size x size by bilinear interpolation.

    Args:
        size: Height and width of what the network sees.
    """

    def __init__(self, size: int):
        self.size = size

    def __call__(self, module: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        """Return the enlarged images (N, C, size, size)."""
        return (F.interpolate(inputs[0], size=(self.size, self.size), mode="bilinear", align_corners=False),)


def as_colour(dataset: Dataset, image_size: int) -> Dataset:
    """Turn grey images into colour images of a fitting size: black borders, the grey value in all three channels.

    The normalisation becomes that of the padded images, so that the network's input has mean 0 and variance 1, as it
    had in its first training. Colour images are returned as they are.

    Args:
        dataset: Images (N, 1, H, W) uint8, H = W at most image_size and even differences; or with 3 channels.
        image_size: Height and width afterwards.

    Returns:
        The data set with images (N, 3, image_size, image_size), uint8.
    """
    if dataset.n_channels == 3:
        return dataset
    side = dataset.train_images.shape[-1]
    border = (image_size - side) // 2
    grey = {
        name: F.pad(images, (border,) * 4).expand(-1, 3, -1, -1).contiguous()
        for name, images in (("train_images", dataset.train_images), ("test_images", dataset.test_images))
    }
    inside = (side / image_size) ** 2  # share of the pixels that are not border; of E[x] and E[x^2] the border adds 0
    (mean,), (std,) = dataset.mean, dataset.std
    padded_mean = inside * mean
    padded_std = (inside * (std**2 + mean**2) - padded_mean**2) ** 0.5
    return dataclasses.replace(dataset, mean=(padded_mean,) * 3, std=(padded_std,) * 3, **grey)


def new_classifier(network: nn.Module, n_classes: int, seed: int = 0) -> None:
    """Replace the classifier `fc` by a fresh one, in place: the new task has its own classes.

    Args:
        network: A network whose last layer is called fc.
        n_classes: Number of outputs.
        seed: Seed of its weights, which are torch's default, U(-1/sqrt(in), 1/sqrt(in)).
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network.fc = nn.Linear(network.fc.in_features, n_classes)


@dataclass(frozen=True)
class Outcome:
    """What an adaptation reached, and what it cost.

    Attributes:
        label: Name of the method.
        accuracy: On the test images, in [0, 1].
        trained: Number of trained parameters.
        total: Number of parameters of the network, adapters included.
        statistics: Number of batch-norm statistics that moved (buffers: no gradient, but part of the result).
        seconds: Median seconds an epoch of training took.
        size_bytes: Size of the file that has to be stored for the task.
        network: The adapted network.
    """

    label: str
    accuracy: float
    trained: int
    total: int
    statistics: int
    seconds: float
    size_bytes: int
    network: nn.Module

    def __str__(self) -> str:
        """Return the outcome as one row of a table."""
        return (
            f"{self.label:34s} {self.accuracy:8.4f} {self.trained:9d} {self.statistics:8d} "
            f"{self.seconds:8.1f} {self.size_bytes:10d}"
        )


HEADER = f"{'':34s} accuracy   trained  moved    s/epoch      bytes\n{'':34s}          parameters statistics"


class TaskTrainer:
    """Trains prepared networks on one data set, always in the same way.

    Args:
        dataset: The new task.
        plan: Epochs, batch size.
        padding: Pixels of padding before the random crop.
        seed: Seed of shuffling and augmentation.
    """

    def __init__(self, dataset: Dataset, plan: LoRAPlan, padding: int, seed: int = 0):
        self.dataset, self.plan, self.padding, self.seed = dataset, plan, padding, seed

    def __call__(self, network: nn.Module, label: str, lr: float) -> Outcome:
        """Train what may be trained in a network, in place, and measure.

        Args:
            network: The prepared network; it ends in evaluation mode.
            label: Name of the method.
            lr: Peak learning rate.

        Returns:
            The outcome.
        """
        parameters = list(network.parameters())
        network.to(runtime.detect().device)
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        history = fit(
            network, self.dataset, epochs=self.plan.epochs, lr=lr, batch_size=self.plan.batch_size,
            padding=self.padding, evaluate_every=0, seed=self.seed, progress=False,
        )  # fmt: skip
        network.eval()
        tensors = task_tensors(network)
        return Outcome(
            label,
            evaluate(network, self.dataset),
            sum(parameter.numel() for parameter in trained),
            sum(parameter.numel() for parameter in parameters),
            sum(tensor.numel() for name, tensor in tensors.items() if name.endswith(("running_mean", "running_var"))),
            statistics.median(history.seconds),
            written_bytes(tensors),
            network,
        )


def task_tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    """Collect everything that training on the task could change: trained parameters and moving batch-norm statistics.

    Args:
        network: An adapted network.

    Returns:
        Name -> tensor, as in its `state_dict()`; together with the frozen rest it is the whole network.
    """
    names = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d) and not isinstance(module, FixedBatchNorm2d):
            names |= {f"{name}.{buffer}" for buffer, _ in module.named_buffers()}
    state = network.state_dict()
    return {name: state[name].detach().cpu().contiguous() for name in state if name in names}


def save_adapter(path: str | Path, tensors: Mapping[str, torch.Tensor]) -> int:
    """Write a task's tensors to a safetensors file.

    Args:
        path: The file to write.
        tensors: Name -> tensor.

    Returns:
        Size of the file in bytes.
    """
    return Path(path).write_bytes(safetensors.torch.save(dict(tensors)))


def load_adapter(network: nn.Module, path: str | Path) -> None:
    """Load a task's tensors into a network that has the same adapters, in place; the frozen rest stays.

    Args:
        network: A network prepared like the one whose tensors were written, and not merged.
        path: The file.

    Raises:
        ValueError: If the file's tensors are not those that a task of this network has, by name and shape; nothing is
            loaded then.
    """
    tensors = safetensors.torch.load_file(path)
    checkpoints.check_fit(path, tensors, task_tensors(network), "this network (its adapters, their rank, batch norms)")
    network.load_state_dict(tensors, strict=False)


def written_bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    """Measure how many bytes a task's file has: write it, and delete it.

    Args:
        tensors: Name -> tensor.

    Returns:
        Size of the file in bytes, header included.
    """
    with tempfile.TemporaryDirectory() as folder:
        return save_adapter(Path(folder) / "task.safetensors", tensors)


def recovered(accuracy: float, frozen: float, full: float) -> float:
    """Compute which share of the gap between frozen body and full finetuning is closed: (a - frozen) / (full - frozen).

    Args:
        accuracy: Of the method, in [0, 1].
        frozen: Of the frozen body with a new classifier.
        full: Of full finetuning.

    Returns:
        0 for no better than the frozen body, 1 for as good as full finetuning; NaN where there is no gap.
    """
    return (accuracy - frozen) / (full - frozen) if full != frozen else float("nan")
