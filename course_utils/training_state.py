"""What a training run knows about itself: its settings, where it is, what happened so far.

These three are kept apart from the loop so that they can be written to a file after each epoch and read back. A resume
file holds the settings too: a run goes on only with the settings it was started with. What hooks do is not among them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn

from course_utils import checkpoints
from course_utils.ema import WeightAverage

NOT_COMPARED = ("params", "initial_lr", "foreach", "fused", "capturable", "differentiable")  # how, not what


@dataclass
class History:
    """What happened in each epoch; lists of equal length, one entry an epoch.

    Attributes:
        learning_rate: Rate at the epoch's last step.
        train_loss: Mean loss over the epoch's training batches (with penalty and label smoothing).
        train_accuracy: Accuracy over the same (augmented) batches, in [0, 1].
        test_accuracy: Accuracy on the test images after the epoch, in [0, 1]; NaN where it was not evaluated.
        seconds: Wall time of the epoch's training, in seconds.
        runtime: Device, precision and threads, as one line; of a run that went on elsewhere, first there, then here.
    """

    learning_rate: list[float] = field(default_factory=list)
    train_loss: list[float] = field(default_factory=list)
    train_accuracy: list[float] = field(default_factory=list)
    test_accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    runtime: str = ""

    def __len__(self) -> int:
        """Return the number of epochs."""
        return len(self.train_loss)

    def append(self, **row: float) -> None:
        """Append one epoch's values, given by name."""
        for name in ("learning_rate", "train_loss", "train_accuracy", "test_accuracy", "seconds"):
            getattr(self, name).append(float(row[name]))


@dataclass
class TrainingState:
    """A running fit, as its hooks see it.

    Attributes:
        model: The model being trained (never a compiled wrapper).
        optimizer: Its optimiser.
        epochs: Number of epochs in all.
        steps_per_epoch: Optimiser steps an epoch.
        history: One row for each finished epoch.
        epoch: Number of the current epoch, from 0.
        step: Number of optimiser steps done since the start.
        loss: Loss of the step just taken, a scalar tensor on the training device; None before the first.
        accuracy: Accuracy on the batch of the step just taken, likewise.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    epochs: int
    steps_per_epoch: int
    history: History
    epoch: int = 0
    step: int = 0
    loss: torch.Tensor | None = None
    accuracy: torch.Tensor | None = None

    @property
    def progress(self) -> float:
        """Fraction of training done in the middle of the next step, in (0, 1): no step is taken at rate 0."""
        return (self.step + 0.5) / (self.epochs * self.steps_per_epoch)


@dataclass(frozen=True)
class Settings:
    """The numbers that determine a fit; see `course_utils.training.fit` for their meaning."""

    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    schedule: str
    label_smoothing: float
    padding: int
    flip: bool
    ema_decay: float | None
    optimizer: str
    seed: int
    precision: str
    dataset: str
    n_train: int

    def __post_init__(self):
        minimum = {"epochs": 0, "batch_size": 1, "padding": 0, "momentum": 0, "weight_decay": 0, "n_train": 1}
        for name, bound in minimum.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} must be at least {bound}, got {getattr(self, name)}")
        if self.lr <= 0:
            raise ValueError(f"lr must be above 0, got {self.lr}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be at least 0 and below 1, got {self.label_smoothing}")


def derived_seed(seed: int, number: int) -> int:
    """Return the seed of everything random in one epoch (or step): a function of (seed, number of the epoch) alone."""
    return seed * 1_000_003 + number


def save(path: str | Path, settings: Settings, state: TrainingState, average: WeightAverage | None) -> None:
    """Write a run's state after an epoch; the file is always that of a complete epoch.

    Args:
        path: The resume file.
        settings: The run's settings.
        state: Where it is.
        average: Its averaged weights, if any.
    """
    content = {
        "settings": asdict(settings),
        "step": state.step,
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "average": average.state_dict() if average is not None else None,
        "history": asdict(state.history),
    }
    checkpoints.save_state(path, content)


def resume(path: str | Path, settings: Settings, state: TrainingState, average: WeightAverage | None) -> None:
    """Load the state after the last complete epoch into `state` and `average`; do nothing without a file.

    Args:
        path: The resume file.
        settings: The settings of the run that wants to go on.
        state: Filled in place.
        average: Filled in place.

    Raises:
        ValueError: If the file belongs to a run with other settings; the message names them.
        DamagedData: If the file cannot be read.
    """
    if not Path(path).exists():
        return
    content = checkpoints.load_state(path, map_location=next(state.model.parameters()).device)
    check_settings(path, content["settings"], asdict(settings))
    state.model.load_state_dict(content["model"])
    state.optimizer.load_state_dict(content["optimizer"])
    before, now = content["history"]["runtime"], state.history.runtime
    described = before if now in before.split("; then ") else f"{before}; then {now}"
    state.history = History(**{**content["history"], "runtime": described})
    state.step = content["step"]
    if average is not None:
        average.load_state_dict(content["average"])


def describe_optimizer(optimizer: torch.optim.Optimizer | None) -> str:
    """Return an optimiser in words: its class, and the numbers of each of its groups of parameters.

    Args:
        optimizer: The optimiser before its first step, or a wrapper around one; None for `fit`'s own.

    Returns:
        For example `"SGD(lr=0.1, momentum=0.9, ...)"`; `"default"` for None.
    """
    if optimizer is None:
        return "default"
    groups = [
        ", ".join(f"{name}={value!r}" for name, value in sorted(group.items()) if name not in NOT_COMPARED)
        for group in optimizer.param_groups
    ]
    return f"{type(optimizer).__name__}({'; '.join(groups)})"


def check_settings(path: str | Path, then: dict, now: dict) -> None:
    """Refuse to go on with a resume file that was written under other settings.

    Args:
        path: The resume file, for the message.
        then: The settings in it.
        now: The settings of the run that wants to go on.

    Raises:
        ValueError: If they differ; the message names those that do.
    """
    if now != then:
        changed = {name: (then.get(name), now.get(name)) for name in now | then if now.get(name) != then.get(name)}
        raise ValueError(
            f"{path} belongs to a run with other settings, name: (there, here): {changed}. "
            "Delete it to start anew, or give another resume_file"
        )
