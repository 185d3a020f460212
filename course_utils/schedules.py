"""Learning-rate schedules: the factor by which the peak rate is multiplied, as a function of progress in [0, 1].

A schedule is a plain function of the fraction of training that is done. It does not know about epochs or steps, so the
same schedule serves a run of 3 epochs and one of 300, and a resumed run needs no state but its step number.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

Schedule = Callable[[float], float]


def constant(progress: float) -> float:
    """Return 1, whatever the progress."""
    return 1.0


def cosine(progress: float, t_max: float = 1.0) -> float:
    """Return (1 + cos(pi * progress / t_max)) / 2: from 1 down to 0 at t_max, and up again after it.

    Args:
        progress: Fraction of the steps done, from 0 to 1.
        t_max: Fraction of the steps at which the factor is 0, above 0: torch's `CosineAnnealingLR` has it as T_max, in
            calls of its step method. 1 is what one wants; with less the rate rises again before the end, with more it
            is still high when training stops.

    Returns:
        The factor, from 0 to 1.

    Source:
        Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts" (2017), equation 5.
    """
    return 0.5 * (1 + math.cos(math.pi * progress / t_max))


def warmup_cosine(progress: float, warmup: float = 0.05) -> float:
    """Return progress / warmup up to the fraction warmup, then a cosine from 1 to 0 over the rest.

    Args:
        progress: Fraction of the steps done, from 0 to 1.
        warmup: Fraction of the steps in which the rate rises, above 0 and below 1.

    Returns:
        The factor, from 0 to 1.
    """
    if progress < warmup:
        return progress / warmup
    return cosine((progress - warmup) / (1 - warmup))


def one_cycle(progress: float, warmup: float = 0.25) -> float:
    """Return a straight line up to 1 at the fraction warmup, then a straight line down to 0.

    Args:
        progress: Fraction of the steps done, from 0 to 1.
        warmup: Fraction of the steps in which the rate rises, above 0 and below 1.

    Returns:
        The factor, from 0 to 1.

    Source:
        Smith and Topin, "Super-convergence" (2018), section 3.
    """
    return progress / warmup if progress < warmup else (1 - progress) / (1 - warmup)


def multi_step(progress: float, milestones: tuple[float, ...] = (0.5, 0.75), gamma: float = 0.1) -> float:
    """Return gamma to the number of milestones passed.

    Args:
        progress: Fraction of the steps done, from 0 to 1.
        milestones: Fractions at which the rate falls.
        gamma: Factor of each fall.

    Returns:
        The factor.

    Source:
        He et al. (2015), section 4.2: milestones at 32 000 and 48 000 of 64 000 steps, gamma 0.1.
    """
    return gamma ** sum(progress >= milestone for milestone in milestones)


def exponential_rise(progress: float, start: float = 1e-5) -> float:
    """Return start ** (1 - progress): from start up to 1, by the same factor at every step.

    Args:
        progress: Fraction of the steps done, from 0 to 1.
        start: The factor at the beginning, above 0 and below 1.

    Returns:
        The factor, from start to 1.

    Source:
        The ramp of a learning-rate range test: Smith, "Cyclical learning rates for training neural networks" (2017),
        section 3.3 (there a straight line).
    """
    return start ** (1 - progress)


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "cosine": cosine,
    "warmup_cosine": warmup_cosine,
    "one_cycle": one_cycle,
    "multi_step": multi_step,
}


def resolve(schedule: str | Schedule) -> Schedule:
    """Return the schedule of that name, or the function itself.

    Args:
        schedule: A name (`"constant"`, `"cosine"`, `"warmup_cosine"`, `"one_cycle"`, `"multi_step"`) or a function of
            the progress in [0, 1].

    Returns:
        The function.

    Raises:
        ValueError: If there is no schedule of that name.
    """
    if callable(schedule):
        return schedule
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {sorted(SCHEDULES)} or a function of progress, got {schedule!r}")
    return SCHEDULES[schedule]


def describe(schedule: str | Schedule) -> str:
    """Return a schedule in words, as records and training states keep it.

    Args:
        schedule: A name, a function, or a function with some of its arguments fixed by `functools.partial`.

    Returns:
        The name, with the fixed arguments where there are some: `"multi_step(milestones=(0.5,))"`.
    """
    if isinstance(schedule, functools.partial):
        fixed = [*map(repr, schedule.args), *(f"{name}={value!r}" for name, value in schedule.keywords.items())]
        return f"{describe(schedule.func)}({', '.join(fixed)})"
    return schedule if isinstance(schedule, str) else getattr(schedule, "__name__", type(schedule).__name__)
