"""The experiments of the ConvNet table: schedules of the learning rate, and pruning while training, from scratch.

Published setting (exercises on a small ConvNet, CIFAR-10): 100 epochs; MultiStep divides the rate by 10 every 25
epochs; pruning removes 10 % more before epochs 10, 20, ..., 50, whole filters of smallest L1 norm or single weights.
The published network is not given in detail; ours is Lab 4's in its full profile: three stages of two convolutions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from course_admin.experiments.catalogue import WEIGHT_DECAY, Experiment, Job, Setting
from course_utils import runtime, schedules
from course_utils.convnet import ConvNet
from course_utils.data import Dataset
from course_utils.profiles import Profile
from course_utils.pruning.channels import keep_silent
from course_utils.pruning.structured import SparseConv2d, filter_l1_pruning, unstructured_pruning
from course_utils.pruning.structured_given import folded_copy
from course_utils.pruning.structured_plan import PLANS, StructuredPlan, structured_plan_for
from course_utils.schedules import Schedule
from course_utils.training import TrainingState

TABLE = "A ConvNet on CIFAR-10, trained from scratch"
MEASURED = {"multi_step": 0.9166, "cosine": 0.9246}  # of the networks that are not pruned: results/convnet_*.json
AIMS = {
    "multi_step": "ConvNet, 100 epochs, the rate divided by 10 every 25 epochs",
    "cosine": "ConvNet, 100 epochs, cosine",
    "filters": "ConvNet without half of its filters, within 1 point of the same without pruning",
    "weights": "ConvNet without half of its weights, as good as the same without pruning",
}
PUBLISHED_RATES = (0.3652, 0.6221, 0.3992)  # of the plan's rates, after 5 epochs
FULL = PLANS["full"]
MULTI_STEP = partial(schedules.multi_step, milestones=FULL.milestones)
Prune = Callable[[nn.Module, float], object]


def network(dataset: Dataset, profile: Profile, seed: int = 0, conv: type[nn.Conv2d] = nn.Conv2d) -> ConvNet:
    """Build the profile's ConvNet for a data set, freshly initialised.

    Args:
        dataset: Says image size, channels and classes.
        profile: Says widths and depth.
        seed: Of the initial weights.
        conv: Class of the convolutions.

    Returns:
        The network.
    """
    runtime.seed_everything(seed)
    return structured_plan_for(profile).convnet(dataset, conv)


class PruneWhileTraining:
    """Remove more of every convolution in the plan's epochs, up to a half: hooks of `fit`.

    The masks are made anew at the start of every epoch. What is gone has magnitude 0 and is chosen again, so an
    interrupted run finds the masks that it had.

    Args:
        prune: `filter_l1_pruning` or `unstructured_pruning`.
        plan: Says from which epoch on how much is removed.
    """

    def __init__(self, prune: Prune, plan: StructuredPlan):
        self.prune, self.plan = prune, plan
        self.keep: Callable[..., None] | None = None

    def before_epoch(self, state: TrainingState) -> None:
        """Prune as far as the epoch says; whole filters stay silent, single weights are behind the layers' masks."""
        fraction = self.plan.pruned_fraction(state.epoch)
        if fraction:
            masks = self.prune(state.model, fraction)
            self.keep = keep_silent(state.model, masks) if self.prune is filter_l1_pruning else None

    def after_step(self, state: TrainingState) -> None:
        """Silence again what momentum and weight decay have moved."""
        if self.keep is not None:
            self.keep(state)


def trained(
    setting: Setting, *, schedule: str | Schedule, lr: float = FULL.lr, weight_decay: float = WEIGHT_DECAY
) -> Job:
    """Train the ConvNet and prune nothing."""
    model = network(setting.profile.load_dataset(), setting.profile, setting.seed)
    return Job(model, lr, setting.epochs, schedule=schedule, weight_decay=weight_decay)


def pruned(setting: Setting, *, prune: Prune, schedule: str | Schedule = MULTI_STEP) -> Job:
    """Train the ConvNet and remove half of it on the way."""
    conv = SparseConv2d if prune is unstructured_pruning else nn.Conv2d
    model = network(setting.profile.load_dataset(), setting.profile, setting.seed, conv)
    plan = structured_plan_for(setting.profile)
    steps = PruneWhileTraining(prune, plan)
    hooks = {"before_epoch": steps.before_epoch, "after_step": steps.after_step}
    return Job(model, FULL.lr, setting.epochs, hooks, finish=folded_copy, schedule=schedule, pruned_by=plan.pruned_by)


def _row(
    name: str, title: str, prepare: Callable[[Setting], Job], epochs: int = FULL.train_epochs, **options: Any
) -> Experiment:
    return Experiment(name, TABLE, title, prepare, network="convnet", epochs=epochs, **options)


EXPERIMENTS = [
    *(
        _row(f"convnet_rate_{rate:g}", f"{FULL.rate_epochs} epochs at a constant rate of {rate:g}",
             partial(trained, schedule="constant", lr=rate), FULL.rate_epochs, published=known)
        for rate, known in zip(FULL.rates, PUBLISHED_RATES, strict=True)
    ),
    _row("convnet_multistep", "100 epochs, rate divided by 10 every 25 epochs", partial(trained, schedule=MULTI_STEP),
         published=0.9183, target=0.92, aim=AIMS["multi_step"]),
    _row("convnet_cosine", "100 epochs, cosine", partial(trained, schedule="cosine"), published=0.8599, target=0.92,
         aim=AIMS["cosine"]),
    _row("convnet_filters_50", "half of the filters gone by epoch 50; published near the unpruned network",
         partial(pruned, prune=filter_l1_pruning), target=MEASURED["multi_step"] - 0.01,
         aim=AIMS["filters"]),
    _row("convnet_weights_50", "half of the weights gone by epoch 50; published at or above the unpruned network",
         partial(pruned, prune=unstructured_pruning), target=MEASURED["multi_step"], aim=AIMS["weights"]),
    _row("convnet_multistep_decay", "100 epochs, rate divided by 10 every 25 epochs, weight decay 0.001",
         partial(trained, schedule=MULTI_STEP, weight_decay=2 * WEIGHT_DECAY), published=0.9183, target=0.92,
         aim=AIMS["multi_step"]),
    _row("convnet_filters_50_cosine", "half of the filters gone by epoch 50, cosine after a warm-up",
         partial(pruned, prune=filter_l1_pruning, schedule="warmup_cosine"), target=MEASURED["cosine"] - 0.01,
         aim=AIMS["filters"]),
    _row("convnet_weights_50_cosine", "half of the weights gone by epoch 50, cosine after a warm-up",
         partial(pruned, prune=unstructured_pruning, schedule="warmup_cosine"), target=MEASURED["cosine"],
         aim=AIMS["weights"]),
]  # fmt: skip
