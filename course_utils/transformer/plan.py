"""Lab 6's numbers for both profiles: lengths, steps and how much text is used for judging.

`quick` fits into minutes on two cores: short words, a small language model for half a minute. `full` trains longer.
The notebook asks for numbers and never which profile it runs in.
"""

from __future__ import annotations

from dataclasses import dataclass

from course_utils import profiles
from course_utils.profiles import Profile


@dataclass(frozen=True)
class TransformerPlan:
    """The numbers that Lab 6 asks for.

    Attributes:
        reversal_length: Largest number of letters of a sequence to reverse.
        reversal_steps: Training steps of the encoder-decoder.
        live_shape: Arguments of the language model that is trained in the notebook; windows are max_length long, so
            that every position is trained.
        live_steps: Its training steps.
        n_judged: Characters of the held-out text on which language models are judged; None for all.
        n_judged_often: The same where many models are judged (compression).
        n_generated: Characters of a sample.
        sparsities: Sparsities of the compressed models.
        bits: Bits a weight of the compressed models; 32 is no quantization.
        finetune_steps: Training steps after pruning.
    """

    reversal_length: int
    reversal_steps: int
    live_shape: dict[str, int]
    live_steps: int
    n_judged: int | None
    n_judged_often: int
    n_generated: int
    sparsities: tuple[float, ...]
    bits: tuple[int, ...]
    finetune_steps: int


PLANS = {
    "quick": TransformerPlan(
        reversal_length=12,
        reversal_steps=1000,
        live_shape={"n_tokens": 96, "d_model": 96, "n_heads": 4, "n_layers": 2, "d_hidden": 384, "max_length": 64},
        live_steps=500,
        n_judged=None,
        n_judged_often=20_000,
        n_generated=300,
        sparsities=(0.0, 0.5, 0.8),
        bits=(32, 8, 4, 3),
        finetune_steps=120,
    ),
    "full": TransformerPlan(
        reversal_length=24,
        reversal_steps=6000,
        live_shape={"n_tokens": 96, "d_model": 256, "n_heads": 8, "n_layers": 4, "d_hidden": 1024, "max_length": 128},
        live_steps=8000,
        n_judged=None,
        n_judged_often=68_000,
        n_generated=600,
        sparsities=(0.0, 0.5, 0.7, 0.8, 0.9),
        bits=(32, 8, 6, 5, 4, 3, 2),
        finetune_steps=1000,
    ),
}


def plan_for(profile: Profile) -> TransformerPlan:
    """Return Lab 6's numbers for a profile.

    Args:
        profile: For example `profiles.current()`.

    Returns:
        The numbers.

    Raises:
        ValueError: If the profile is not one of those in `profiles.PROFILES`.
    """
    return profiles.plan_of(PLANS, profile)
