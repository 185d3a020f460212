"""Lab 4's numbers for both profiles: widths, images, epochs and fractions of its experiments.

`quick` trains a narrow ConvNet for a few short epochs at a time. `full` is the published setting: all images, 100
epochs, 10 % more of the filters every 10 epochs from epoch 10 to 50, learning rates 0.0001, 0.1 and 1.0 for 5 epochs.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from course_utils import profiles
from course_utils.convnet import ConvNet
from course_utils.data import Dataset
from course_utils.profiles import Profile


@dataclass(frozen=True)
class StructuredPlan:
    """The numbers that Lab 4 asks for.

    Attributes:
        widths: Channels of the ConvNet's stages.
        convs_per_stage: Convolutions in each stage.
        n_train: Training images of an epoch; None for all.
        batch_size: Images a step; small in short runs, which need the steps.
        n_scan: Test images of all accuracies.
        rates: Learning rates of the sweep.
        rate_epochs: Epochs of each run of the sweep.
        range_steps: Steps of the learning-rate range test.
        lr: Peak learning rate of the ConvNet's runs.
        train_epochs: Epochs of a run that compares schedules of the learning rate.
        milestones: Fractions of such a run at which the MultiStep schedule divides the rate by 10.
        prune_epochs: Epochs of a run that prunes while it trains.
        prune_every: A pruning step comes before epochs prune_every, 2 prune_every, ..., five in all.
        criteria_epochs: Epochs of training with a penalty, in the comparison of criteria.
        finetune_epochs: Epochs of finetuning after one-shot pruning.
        finetune_lr: Learning rate at the start of finetuning.
        n_resnet_train: Training images of an epoch of ResNet-20's finetuning; None for all.
        fractions: Fractions of the slider.
        repeats: Calls in each round of a latency measurement.
    """

    widths: tuple[int, ...]
    convs_per_stage: int
    n_train: int | None
    batch_size: int
    n_scan: int
    rates: tuple[float, ...]
    rate_epochs: int
    range_steps: int
    lr: float
    train_epochs: int
    milestones: tuple[float, ...]
    prune_epochs: int
    prune_every: int
    criteria_epochs: int
    finetune_epochs: int
    finetune_lr: float
    n_resnet_train: int | None
    fractions: tuple[float, ...]
    repeats: int

    def convnet(self, dataset: Dataset, conv: type[nn.Conv2d]) -> ConvNet:
        """Build the plan's ConvNet for a data set from convolutions of the given class, freshly initialised."""
        size = dataset.train_images.shape[-1]
        return ConvNet(self.widths, dataset.n_channels, dataset.n_classes, size, self.convs_per_stage, conv)

    def pruned_fraction(self, epoch: int) -> float:
        """Return the fraction that is removed from epoch on: 0.1 more every prune_every epochs, up to 0.5.

        Args:
            epoch: Number of the epoch, from 0.

        Returns:
            0.0 before epoch prune_every, 0.5 from epoch 5 prune_every on.
        """
        return min(epoch // self.prune_every, 5) / 10

    @property
    def pruned_by(self) -> int:
        """The epoch, counted from 1, that is the first with half of everything gone."""
        return 5 * self.prune_every + 1


PLANS = {
    "quick": StructuredPlan(
        widths=(32, 64, 128),
        convs_per_stage=1,
        n_train=3200,
        batch_size=32,
        n_scan=2000,
        rates=(0.0001, 0.1, 1.0),
        rate_epochs=2,
        range_steps=100,
        lr=0.05,
        train_epochs=5,
        milestones=(0.5, 0.75),
        prune_epochs=8,
        prune_every=1,
        criteria_epochs=3,
        finetune_epochs=1,
        finetune_lr=0.02,
        n_resnet_train=1280,
        fractions=(0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        repeats=7,
    ),
    "full": StructuredPlan(
        widths=(64, 128, 256),
        convs_per_stage=2,
        n_train=None,
        batch_size=128,
        n_scan=10_000,
        rates=(0.0001, 0.1, 1.0),
        rate_epochs=5,
        range_steps=300,
        lr=0.1,
        train_epochs=100,
        milestones=(0.25, 0.5, 0.75),
        prune_epochs=100,
        prune_every=10,
        criteria_epochs=60,
        finetune_epochs=20,
        finetune_lr=0.02,
        n_resnet_train=None,
        fractions=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        repeats=15,
    ),
}


def structured_plan_for(profile: Profile) -> StructuredPlan:
    """Return Lab 4's numbers for a profile.

    Args:
        profile: For example `profiles.current()`.

    Returns:
        The numbers.

    Raises:
        ValueError: If the profile is not one of those in `profiles.PROFILES`.
    """
    return profiles.plan_of(PLANS, profile)
