"""Quick and full: how much work a lab does.

The same notebook serves a 2-core laptop without a network and a machine that repeats the published experiment. What
differs is numbers. Those that all labs share are here (data set, images, batch size, seed); a lab's own (epochs,
levels) are in its plan, for example `course_utils.pruning.plan`. A notebook asks `plan.finetune_epochs` and never which
profile it runs in.

The environment variable `COURSE_PROFILE` chooses: `quick` (the default; embedded data, minutes) or `full` (CIFAR-10 and
the published numbers of epochs; a GPU, or hours of a CPU).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # a profile can be read without waiting for torch
    from course_utils.data import Dataset
    from course_utils.resnet import ResNet

Plan = TypeVar("Plan")


@dataclass(frozen=True)
class Profile:
    """The numbers that a lab asks for.

    Attributes:
        name: `"quick"` or `"full"`; for display.
        dataset: Name of the image data set, and of the ResNet-20 checkpoint trained on it.
        n_train: Training images used; None for all.
        n_test: Test images used for final accuracies; None for all.
        batch_size: Images an optimiser step.
        padding: Pixels of padding before the random crop.
        seed: Seed of everything random.
    """

    name: str
    dataset: str
    n_train: int | None
    n_test: int | None
    batch_size: int
    padding: int
    seed: int = 0

    def load_dataset(self) -> Dataset:
        """Load the profile's data set, cut to its number of images.

        Returns:
            The data set.

        Raises:
            MissingData: If its files are not there; the message says what to run.
        """
        from course_utils import data

        return data.load(self.dataset, self.n_train, self.n_test)

    def load_resnet20(self) -> ResNet:
        """Load the ResNet-20 checkpoint trained on the profile's data set.

        Returns:
            The model, on the CPU, in evaluation mode.

        Raises:
            MissingData: If its files are not there; the message says what to run.
        """
        from course_utils import checkpoints

        return checkpoints.load_resnet20(self.dataset)


PROFILES = {
    "quick": Profile(
        name="quick",
        dataset="fashion_mnist",
        n_train=10_000,
        n_test=5_000,
        batch_size=128,
        padding=2,
    ),
    "full": Profile(
        name="full",
        dataset="cifar10",
        n_train=None,
        n_test=None,
        batch_size=128,
        padding=4,
    ),
}


def current() -> Profile:
    """Return the profile that the environment variable COURSE_PROFILE names; `quick` when it is unset or empty.

    Returns:
        The profile.

    Raises:
        ValueError: If the variable holds another name.
    """
    name = os.environ.get("COURSE_PROFILE", "").strip() or "quick"
    if name not in PROFILES:
        raise ValueError(f"COURSE_PROFILE must be one of {sorted(PROFILES)} (or unset for 'quick'), got {name!r}")
    return PROFILES[name]


def plan_of(plans: dict[str, Plan], profile: Profile) -> Plan:
    """Return a lab's numbers for a profile.

    Args:
        plans: Profile name -> the lab's numbers.
        profile: For example `current()`.

    Returns:
        The numbers.

    Raises:
        ValueError: If the profile is not one of those in `PROFILES`.
    """
    if profile.name not in plans:
        raise ValueError(f"profile must be one of {sorted(PROFILES)}, got {profile.name!r}")
    return plans[profile.name]
