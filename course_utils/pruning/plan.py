"""Lab 2's numbers for both profiles: how many images, epochs and sparsities its experiments use.

`quick` keeps epochs short (a few thousand images), so that schedules with several pruning steps fit into minutes.
`full` is the published setting: all images, 20 epochs, 8 % more sparsity before each of the first 10. The notebook asks
for numbers and never which profile it runs in.
"""

from __future__ import annotations

from dataclasses import dataclass

from course_utils import profiles
from course_utils.profiles import Profile


@dataclass(frozen=True)
class PruningPlan:
    """The numbers that Lab 2 asks for.

    Attributes:
        n_train: Training images of an epoch of finetuning; None for all.
        n_scan: Test images where accuracy is computed very many times (scans, sweeps, after each epoch).
        finetune_epochs: Epochs of finetuning after one-shot pruning.
        prune_epochs: Epochs of an iterative run that begin with more pruning.
        iterative_epochs: Epochs of an iterative run in all.
        n_sweep_train: Training images of an epoch in the comparison of methods over all sparsities; None for all.
        sweep_epochs: Epochs of retraining for each point of that comparison.
        challenge_epochs: Epochs that an entry of the closing challenge may train.
        lr: Learning rate at the start of every finetuning run.
        levels: Sparsities of the comparison.
        scan_levels: Sparsities of the sensitivity scan; the first is 0.
    """

    n_train: int | None
    n_scan: int
    finetune_epochs: int
    prune_epochs: int
    iterative_epochs: int
    n_sweep_train: int | None
    sweep_epochs: int
    challenge_epochs: int
    lr: float
    levels: tuple[float, ...]
    scan_levels: tuple[float, ...]


PLANS = {
    "quick": PruningPlan(
        n_train=2000,
        n_scan=500,
        finetune_epochs=4,
        prune_epochs=4,
        iterative_epochs=6,
        n_sweep_train=1200,
        sweep_epochs=2,
        challenge_epochs=8,
        lr=0.02,
        levels=(0.0, 0.5, 0.8, 0.9, 0.95),
        scan_levels=(0.0, 0.4, 0.6, 0.8, 0.9, 0.95),
    ),
    "full": PruningPlan(
        n_train=None,
        n_scan=10_000,
        finetune_epochs=20,
        prune_epochs=10,
        iterative_epochs=20,
        n_sweep_train=None,
        sweep_epochs=20,
        challenge_epochs=60,
        lr=0.02,
        levels=(0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95),
        scan_levels=(0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95),
    ),
}


def plan_for(profile: Profile) -> PruningPlan:
    """Return Lab 2's numbers for a profile.

    Args:
        profile: For example `profiles.current()`.

    Returns:
        The numbers.

    Raises:
        ValueError: If the profile is not one of those in `profiles.PROFILES`.
    """
    return profiles.plan_of(PLANS, profile)
