"""Lab 3's numbers for both profiles: how many images, epochs and bits its experiments use.

`quick` keeps finetuning to a few short epochs; `full` is the published setting: all images, 20 epochs. The notebook
asks for numbers and never which profile it runs in.
"""

from __future__ import annotations

from dataclasses import dataclass

from course_utils import profiles
from course_utils.profiles import Profile


@dataclass(frozen=True)
class QuantizationPlan:
    """The numbers that Lab 3 asks for.

    Attributes:
        n_train: Training images of an epoch of finetuning; None for all.
        n_test: Test images of every accuracy of the ResNet-20; None for all.
        finetune_epochs: Epochs of finetuning, with or without quantization.
        prune_epochs: Epochs of the iterative run that begin with more pruning.
        iterative_epochs: Epochs of the iterative run in all.
        lr: Learning rate at the start of every finetuning run.
        scan_bits: Bits of the scan without finetuning.
        finetuned_bits: Bits of the finetuning runs.
        n_small_train: Training images of an epoch of the small network (Fashion-MNIST).
        small_epochs: Epochs of the small network.
        n_calibration: Training images that onnxruntime calibrates with.
    """

    n_train: int | None
    n_test: int | None
    finetune_epochs: int
    prune_epochs: int
    iterative_epochs: int
    lr: float
    scan_bits: tuple[int, ...]
    finetuned_bits: tuple[int, ...]
    n_small_train: int
    small_epochs: int
    n_calibration: int


PLANS = {
    "quick": QuantizationPlan(
        n_train=2000,
        n_test=2000,
        finetune_epochs=2,
        prune_epochs=2,
        iterative_epochs=4,
        lr=0.02,
        scan_bits=(8, 6, 5, 4, 3, 2),
        finetuned_bits=(4, 3, 2),
        n_small_train=10_000,
        small_epochs=3,
        n_calibration=256,
    ),
    "full": QuantizationPlan(
        n_train=None,
        n_test=None,
        finetune_epochs=20,
        prune_epochs=10,
        iterative_epochs=20,
        lr=0.02,
        scan_bits=(8, 6, 5, 4, 3, 2),
        finetuned_bits=(4, 3, 2),
        n_small_train=60_000,
        small_epochs=20,
        n_calibration=1000,
    ),
}


def plan_for(profile: Profile) -> QuantizationPlan:
    """Return Lab 3's numbers for a profile.

    Args:
        profile: For example `profiles.current()`.

    Returns:
        The numbers.

    Raises:
        ValueError: If the profile is not one of those in `profiles.PROFILES`.
    """
    return profiles.plan_of(PLANS, profile)
