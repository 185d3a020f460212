"""Lab 5's numbers for both profiles: which network is adapted to which images, for how long, at which ranks.

`quick` adapts this course's ResNet-20, trained on CIFAR-10, to Fashion-MNIST with a few short epochs. `full` is the
published setting: torchvision's ResNet-18, trained on ImageNet, adapted to CIFAR-10 for 8 epochs. The notebook asks for
numbers and never which profile it runs in.
"""

from __future__ import annotations

from dataclasses import dataclass

from course_utils import profiles
from course_utils.profiles import Profile


@dataclass(frozen=True)
class LoRAPlan:
    """The numbers that Lab 5 asks for.

    Attributes:
        source: Which pretrained network: "resnet20_cifar10" or "resnet18_imagenet".
        target: Name of the data set it is adapted to.
        image_size: Height and width of the images that the network sees.
        n_train: Training images an epoch; None for all.
        n_test: Test images; None for all.
        epochs: Epochs of every adaptation.
        batch_size: Images an optimiser step.
        lr_full: Peak learning rate of full finetuning.
        lr_frozen: Peak learning rate where only the classifier trains, on fixed features.
        lr_statistics: The same, where batch-norm statistics move.
        lr_classifier: Peak learning rate where the classifier and batch norm train.
        lr_adapter: Peak learning rate where factors train.
        rank: Rank of the adapters in the comparison.
        alpha: Their alpha.
        ranks: Further ranks at which LoRA is trained, with the same alpha / rank.
        alphas: Further values of alpha, at the rank of the comparison.
        cut_ranks: Ranks to which the update of full finetuning is cut.
        shown_ranks: Ranks of the picture of relative errors.
        explained_layers: Layers whose singular values are drawn.
        n_bits: Bits of a weight under QLoRA's adapters.
        text_steps: Training steps of the language model on its second text.
        text_rank: Rank of its adapters; alpha is 2 x rank.
        text_lr_adapter: Peak learning rate of its adapters.
        text_lr_full: Peak learning rate of its full finetuning.
        n_judged: Characters of each held-out text on which it is judged.
        n_generated: Characters of a sample.
    """

    source: str
    target: str
    image_size: int
    n_train: int | None
    n_test: int | None
    epochs: int
    batch_size: int
    lr_full: float
    lr_frozen: float
    lr_statistics: float
    lr_classifier: float
    lr_adapter: float
    rank: int
    alpha: float
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    cut_ranks: tuple[int, ...]
    shown_ranks: tuple[int, ...]
    explained_layers: tuple[str, ...]
    n_bits: int
    text_steps: int
    text_rank: int
    text_lr_adapter: float
    text_lr_full: float
    n_judged: int
    n_generated: int


PLANS = {
    "quick": LoRAPlan(
        source="resnet20_cifar10",
        target="fashion_mnist",
        image_size=32,
        n_train=1500,
        n_test=2000,
        epochs=6,
        batch_size=64,
        lr_full=0.05,
        lr_frozen=3.0,
        lr_statistics=1.0,
        lr_classifier=0.3,
        lr_adapter=0.1,
        rank=6,
        alpha=16.0,
        ranks=(1, 12),
        alphas=(4.0, 64.0),
        cut_ranks=(0, 1, 2, 4, 6, 8, 12, 16, 32),
        shown_ranks=(0, 1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64),
        explained_layers=("stage1.0.conv1", "stage2.1.conv2", "stage3.1.conv1"),
        n_bits=4,
        text_steps=100,
        text_rank=8,
        text_lr_adapter=5e-3,
        text_lr_full=1e-3,
        n_judged=10_000,
        n_generated=250,
    ),
    "full": LoRAPlan(
        source="resnet18_imagenet",
        target="cifar10",
        image_size=128,
        n_train=None,
        n_test=None,
        epochs=8,
        batch_size=128,
        lr_full=0.01,
        lr_frozen=0.05,
        lr_statistics=0.05,
        lr_classifier=0.05,
        lr_adapter=0.05,
        rank=8,
        alpha=16.0,
        ranks=(1, 2, 4, 16, 32),
        alphas=(1.0, 4.0, 64.0),
        cut_ranks=(0, 1, 2, 4, 8, 16, 32, 64, 128),
        shown_ranks=(0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512),
        explained_layers=("layer1.0.conv1", "layer2.1.conv2", "layer4.1.conv1"),
        n_bits=4,
        text_steps=3000,
        text_rank=8,
        text_lr_adapter=5e-3,
        text_lr_full=1e-3,
        n_judged=30_000,
        n_generated=600,
    ),
}


def plan_for(profile: Profile) -> LoRAPlan:
    """Return Lab 5's numbers for a profile.

    Args:
        profile: For example `profiles.current()`.

    Returns:
        The numbers.

    Raises:
        ValueError: If the profile is not one of those in `profiles.PROFILES`.
    """
    return profiles.plan_of(PLANS, profile)
