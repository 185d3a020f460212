"""Lab 4's training loops: recorded steps, a learning-rate range test, pruning while training, training with a penalty.

What is pruned and how is always an argument, so that the loops run with whatever functions a reader has written.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from course_utils import runtime, schedules
from course_utils.data import Dataset
from course_utils.profiles import Profile
from course_utils.pruning.channels import (
    FilterMasks,
    channel_links,
    keep_silent,
    prunable_convolutions,
    silence_filters,
)
from course_utils.pruning.structured_given import effective_weight
from course_utils.pruning.structured_plan import structured_plan_for
from course_utils.training import TrainingState, evaluate, fit, sgd

Prune = Callable[[nn.Module, float], object]
WEIGHT_DECAY = 5e-4


@dataclass
class StepRecord:
    """Loss, accuracy and learning rate of every step: an `after_step` hook.

    Attributes:
        losses: Mean cross-entropy of the step's batch, as scalar tensors.
        accuracies: Accuracy on the step's batch, likewise.
        rates: Learning rate of the step.
    """

    losses: list[torch.Tensor] = field(default_factory=list)
    accuracies: list[torch.Tensor] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def __call__(self, state: TrainingState) -> None:
        """Keep what the step has left in the state."""
        self.losses.append(state.loss)
        self.accuracies.append(state.accuracy)
        self.rates.append(state.optimizer.param_groups[0]["lr"])

    @property
    def loss(self) -> np.ndarray:
        """Loss of every step, float64; values that are not finite become the largest finite one."""
        values = torch.stack(self.losses).double().cpu().numpy()
        return np.nan_to_num(values, nan=np.inf).clip(max=values[np.isfinite(values)].max(initial=0.0))

    @property
    def accuracy(self) -> np.ndarray:
        """Accuracy of every step's batch, float64."""
        return torch.stack(self.accuracies).double().cpu().numpy()


@dataclass
class Run:
    """One training run.

    Attributes:
        model: The trained network.
        accuracy: Accuracy on the scan images after each epoch.
        before: Accuracy when the epoch began, right after any pruning; NaN where nothing was pruned.
        fraction: Fraction removed in each epoch.
        steps: The record of every step.
    """

    model: nn.Module
    accuracy: list[float]
    before: list[float]
    fraction: list[float]
    steps: StepRecord


class Trainer:
    """Trains ConvNets of one plan on one data set, always from the same initial weights.

    Args:
        dataset: Training images of an epoch; its test images are those of all accuracies.
        profile: Padding and seed, and which plan gives the batch size.
        conv: Class of the convolutions, for example `SparseConv2d`.
    """

    def __init__(self, dataset: Dataset, profile: Profile, conv: type[nn.Conv2d] = nn.Conv2d):
        self.dataset, self.profile, self.conv, self.plan = dataset, profile, conv, structured_plan_for(profile)

    def fresh_model(self) -> nn.Module:
        """Build the ConvNet with the profile's seed."""
        runtime.seed_everything(self.profile.seed)
        return self.plan.convnet(self.dataset, self.conv).to(memory_format=torch.channels_last)

    def __call__(
        self,
        label: str,
        *,
        epochs: int,
        lr: float,
        schedule: str | schedules.Schedule,
        model: nn.Module | None = None,
        prune: Prune | None = None,
        after_step: Callable[[TrainingState], object] | None = None,
        penalty: Callable[[nn.Module], torch.Tensor] | None = None,
        evaluate_every: int = 1,
    ) -> Run:
        """Train for some epochs, pruning more before those for which the plan says so.

        Args:
            label: Printed with the result.
            epochs: Number of epochs.
            lr: Peak learning rate.
            schedule: Factor of the rate as a function of progress.
            model: The model to train, in place; a fresh one when None.
            prune: `prune(model, fraction)` is called with the plan's fractions; filters that are silent afterwards are
                kept silent, and masks keep what they mask.
            after_step: Called after every step.
            penalty: Added to the loss.
            evaluate_every: Epochs between evaluations.

        Returns:
            The run.
        """
        model = self.fresh_model() if model is None else model
        run = Run(model, [], [], [], StepRecord())
        keep: list[Callable] = []

        def before_epoch(state: TrainingState) -> None:
            fraction = self.plan.pruned_fraction(state.epoch) if prune else 0.0
            changed = fraction != (run.fraction[-1] if run.fraction else 0.0)
            if changed:
                masks = prune(model, fraction)
                keep[:] = [keep_silent(model, masks)] if _are_filter_masks(masks) else []
            run.fraction.append(fraction)
            run.before.append(evaluate(model, self.dataset) if changed else float("nan"))

        def each_step(state: TrainingState) -> None:
            run.steps(state)
            for hook in (*keep, *([after_step] if after_step else [])):
                hook(state)

        history = fit(
            model, self.dataset, epochs=epochs, lr=lr, weight_decay=WEIGHT_DECAY, schedule=schedule, penalty=penalty,
            batch_size=self.plan.batch_size, padding=self.profile.padding, seed=self.profile.seed,
            before_epoch=before_epoch, after_step=each_step, evaluate_every=evaluate_every, progress=False,
        )  # fmt: skip
        run.accuracy = history.test_accuracy
        print(f"{label:34s} accuracy {run.accuracy[-1]:.4f}, {sum(history.seconds):5.1f} s")
        return run


def _are_filter_masks(masks: object) -> bool:
    return isinstance(masks, dict) and all(isinstance(mask, torch.Tensor) and mask.ndim == 1 for mask in masks.values())


def range_test(trainer: Trainer, n_steps: int, highest: float = 10.0, lowest: float = 1e-4) -> StepRecord:
    """Train a fresh model for n_steps while the learning rate rises from lowest to highest by the same factor each
    step.

    Args:
        trainer: Whose models and images.
        n_steps: Number of steps; as many epochs as that takes.
        highest: Last learning rate.
        lowest: First learning rate.

    Returns:
        The record, cut after n_steps.

    Source:
        Smith, "Cyclical learning rates for training neural networks" (2017), section 3.3.
    """
    steps_per_epoch = max(1, len(trainer.dataset.train_labels) // trainer.plan.batch_size)
    epochs, record = -(-n_steps // steps_per_epoch), StepRecord()
    fit(
        trainer.fresh_model(), trainer.dataset, epochs=epochs, lr=highest, weight_decay=WEIGHT_DECAY,
        schedule=lambda progress: schedules.exponential_rise(
            min(progress * epochs * steps_per_epoch / n_steps, 1.0), lowest / highest
        ),
        batch_size=trainer.plan.batch_size, padding=trainer.profile.padding, seed=trainer.profile.seed,
        after_step=record, evaluate_every=0, progress=False,
    )  # fmt: skip
    return StepRecord(record.losses[:n_steps], record.accuracies[:n_steps], record.rates[:n_steps])


def finetuned(
    model: nn.Module, masks: FilterMasks, dataset: Dataset, profile: Profile, *, epochs: int, lr: float
) -> nn.Module:
    """Train a copy of a model while the filters outside the masks stay silent; the rate falls along a cosine.

    Args:
        model: The model, pruned; it is not changed.
        masks: Name of a convolution -> boolean tensor (C_out,), True where the filter is kept.
        dataset: Training images.
        profile: Padding and seed, and which plan gives the batch size.
        epochs: Number of epochs.
        lr: Learning rate at the start.

    Returns:
        The trained copy.
    """
    model = copy.deepcopy(model)
    fit(
        model, dataset, epochs=epochs, optimizer=sgd(model, lr, 0.9, WEIGHT_DECAY), schedule="cosine",
        batch_size=structured_plan_for(profile).batch_size, padding=profile.padding, seed=profile.seed,
        after_step=keep_silent(model, masks), evaluate_every=0, progress=False,
    )  # fmt: skip
    return model


def without_empty(model: nn.Module, masks: FilterMasks) -> FilterMasks:
    """Take filters that training has emptied out of the masks, and silence them: all their weights are zero already.

    Args:
        model: The model; changed in place.
        masks: Name of a convolution -> boolean tensor (C_out,), True where the filter is kept.

    Returns:
        The masks without the empty filters. A layer that would lose its last filter keeps its masks.
    """
    alive = {}
    for name, kept in masks.items():
        weight = effective_weight(model.get_submodule(name)).detach()
        left = kept & (weight != 0).flatten(1).any(1)
        alive[name] = left if left.any() else kept
    silence_filters(model, alive)
    return alive


def batch_norm_penalty(model: nn.Module) -> torch.Tensor:
    """Compute sum_l sum_f |gamma_{l,f}| over the batch norms of all convolutions whose filters can be removed.

    Args:
        model: A module that torch.fx can trace.

    Returns:
        A scalar tensor that gradients flow through.

    Source:
        Liu et al., "Learning efficient convolutional networks through network slimming" (2017), equation 1.
    """
    return sum(model.get_submodule(norm).weight.abs().sum() for _, norm in norms_of_filters(model))


def norms_of_filters(model: nn.Module) -> list[tuple[str, str]]:
    """List (convolution, batch norm behind it) for all convolutions whose filters can be removed."""
    return [(link.conv, link.norms[0]) for link in channel_links(model) if link.norms and not link.obstacle]


def prune_by_batch_norm(model: nn.Module, fraction: float, mask_of: Callable) -> FilterMasks:
    """Silence the filters with the smallest batch-norm scales |gamma|, the same fraction of each convolution's.

    Args:
        model: A module that torch.fx can trace; changed in place.
        fraction: Fraction of each convolution's filters that go.
        mask_of: `mask_of(weight, fraction)` keeps the rows of a matrix with the largest sums of magnitudes, like
            `filter_l1_mask`.

    Returns:
        The masks of filters.

    Source:
        Liu et al. (2017), section 3 (there with one threshold for all layers).
    """
    pairs = norms_of_filters(model)
    masks = {conv: mask_of(model.get_submodule(norm).weight.detach()[:, None], fraction) for conv, norm in pairs}
    silence_filters(model, masks)
    return masks


def batch_norm_scales(model: nn.Module) -> np.ndarray:
    """Return |gamma| of all filters that can be removed, each divided by the mean of its layer."""
    return _relative(model.get_submodule(norm).weight.detach().abs() for _, norm in norms_of_filters(model))


def filter_lengths(model: nn.Module) -> np.ndarray:
    """Return the L2 norms of all filters that can be removed, each divided by the mean of its layer."""
    return _relative(effective_weight(conv).flatten(1).norm(dim=1) for _, conv in prunable_convolutions(model))


def _relative(layers: Iterable[torch.Tensor]) -> np.ndarray:
    """The filters' numbers of all layers, each divided by the mean of its layer."""
    return torch.cat([layer / layer.mean() for layer in layers]).double().cpu().numpy()
