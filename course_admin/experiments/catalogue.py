"""What an experiment is, and the list of all of them.

An experiment is one row of a published table. `prepare` makes a `Job` from a setting: the network it starts from and
what training does to it. Training, resuming, packing and recording are the same for all and live in `runner`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from course_utils import checkpoints, data_files
from course_utils.profiles import Profile
from course_utils.resnet import ResNet
from course_utils.schedules import Schedule

WEIGHT_DECAY = 5e-4


@dataclass(frozen=True)
class Setting:
    """Where and how large an experiment runs.

    Attributes:
        profile: Data set, batch size, padding.
        epochs: Epochs of training.
        seed: Seed of shuffling and augmentation, and of initial weights; a starting checkpoint is the same for all.
        folder: Where earlier experiments have left their networks.
        restarted: Whether the checkpoint is the one that was trained on with more weight decay.
    """

    profile: Profile
    epochs: int
    seed: int
    folder: Path
    restarted: bool = False

    def load_resnet20(self) -> ResNet:
        """Load the trained network that the experiment starts from."""
        if self.restarted:
            return checkpoints.load_resnet20(f"{self.profile.dataset}_restarted")
        return self.profile.load_resnet20()


@dataclass
class Job:
    """A prepared experiment.

    Attributes:
        model: The network to train, already compressed where the method does so before training.
        lr: Peak learning rate.
        epochs: Epochs of training; 0 for none.
        hooks: Arguments of `training.fit` that make the method: `before_epoch`, `after_step`, `optimizer`, ...
        layout: How `course_utils.packing` writes the result: `"bitmap"`, `"csr"` or `"codebook"`.
        finish: Makes the ordinary network that is packed from the trained one; None where it is one already.
        schedule: Factor of the rate as a function of progress, or its name.
        weight_decay: L2 penalty on the weights.
        pruned_by: Epoch, from 1, that begins with the last pruning: earlier ones are no candidates for the best epoch.
    """

    model: nn.Module
    lr: float = 0.02
    epochs: int = 0
    hooks: Mapping[str, Any] = field(default_factory=dict)
    layout: str = "bitmap"
    finish: Callable[[nn.Module], nn.Module] | None = None
    schedule: str | Schedule = "cosine"
    weight_decay: float = WEIGHT_DECAY
    pruned_by: int = 1


@dataclass(frozen=True)
class Experiment:
    """One row of a published table.

    Attributes:
        name: What `course experiment` is asked for, and the stem of the record's file.
        table: The table it belongs to, for example "Pruning ResNet-20".
        title: The row in words.
        prepare: Makes the job from a setting.
        published: The published test accuracy; None where nobody published one.
        target: The accuracy this course aims at; None where there is no aim.
        aim: What the target is for, in words; rows that try the same in several ways share it. "": the title.
        seeds: Seeds that make the row; more than one where mean and range are reported.
        network: `"resnet20"`, which starts from the profile's checkpoint, or `"convnet"`, which starts untrained.
        epochs: Epochs in the full profile.
        curve: The method it is one sparsity of, in the picture of accuracy against sparsity; "" where it is none.
        restarted: Whether it starts from the checkpoint that was trained on with more weight decay.
        follows: The experiment whose packed network it starts from; "" where it starts from a checkpoint.
    """

    name: str
    table: str
    title: str
    prepare: Callable[[Setting], Job]
    published: float | None = None
    target: float | None = None
    seeds: tuple[int, ...] = (0,)
    network: str = "resnet20"
    epochs: int = 20
    curve: str = ""
    restarted: bool = False
    follows: str = ""
    aim: str = ""

    def starts_from(self, profile: Profile) -> str:
        """Return the checkpoint or the experiment that it starts from in a profile, or "random weights"."""
        if self.follows:
            return self.follows
        if self.network != "resnet20":
            return "random weights"
        return f"resnet20_{profile.dataset}" + "_restarted" * self.restarted


def record_name(name: str, seed: int = 0, profile: str = "full") -> str:
    """Return the stem of an experiment's files; a trial in another profile never takes the place of a result."""
    return ".".join([name] + [profile] * (profile != "full") + [f"seed{seed}"] * (seed != 0))


def command(name: str, *, profile: str = "full", seed: int = 0, folder: Path | None = None, force: bool = False) -> str:
    """Return the command that runs one seed of an experiment, with the options that differ from the default.

    Args:
        name: The experiment.
        profile: `"full"` or `"quick"`.
        seed: The seed; 0 is every experiment's first.
        folder: Where its record is to lie; None for the course's own folder.
        force: Whether a record that is there already is replaced.

    Returns:
        The command.
    """
    options = [f"--profile {profile}"] * (profile != "full") + [f"--seed {seed}"] * (seed != 0)
    own = folder is None or folder.resolve() == data_files.COURSE_FOLDER / "results"
    options += [] if own else [f"--out {folder}"]
    return " ".join(["course experiment", name, *options, *["--force"] * force])


def catalogue() -> dict[str, Experiment]:
    """Return all experiments by name, in the order of the tables."""
    from course_admin.experiments import convnet, pruning, quantization

    return {row.name: row for row in (*pruning.EXPERIMENTS, *quantization.EXPERIMENTS, *convnet.EXPERIMENTS)}


def find(name: str) -> Experiment:
    """Return the experiment of that name.

    Args:
        name: Its name.

    Returns:
        The experiment.

    Raises:
        ValueError: If there is none; the message lists the names.
    """
    known = catalogue()
    if name not in known:
        raise ValueError(f"no experiment is called {name!r}; there are: {', '.join(known)}")
    return known[name]
