"""How long a call takes, measured so that the number means something.

The first calls are slow (caches are cold, memory is allocated, kernels are chosen), so some are made and thrown away.
Single calls are disturbed by whatever else the machine does, and always upwards, so the *median* of many is reported,
with the 10th and 90th percentile to show the spread. A latency without its number of threads says little, so that is
part of the result.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Latency:
    """Time of one call.

    Attributes:
        median_ms: Median, in milliseconds.
        p10_ms: 10th percentile, in milliseconds.
        p90_ms: 90th percentile, in milliseconds.
        repeats: Number of calls measured.
        threads: torch's number of CPU threads during the measurement.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    repeats: int
    threads: int

    def __str__(self) -> str:
        """Return the result as one line."""
        spread = f"{self.p10_ms:.3f} to {self.p90_ms:.3f}"
        return f"{self.median_ms:.3f} ms ({spread}; {self.repeats} calls, {self.threads} threads)"


def measure_latency(
    function: Callable[[], object], *, warmup: int = 10, repeats: int = 50, threads: int | None = None
) -> Latency:
    """Measure the median wall time of function() in milliseconds, without gradients.

    Args:
        function: Called without arguments; a CUDA device is waited for before the clock is read.
        warmup: Calls made first and not measured, at least 0.
        repeats: Calls measured, at least 1.
        threads: torch's number of CPU threads during the measurement; None keeps the present one.

    Returns:
        Median, percentiles, repeats and threads.

    Raises:
        ValueError: If a number is out of range.
    """
    if warmup < 0 or repeats < 1 or (threads is not None and threads < 1):
        raise ValueError(f"need warmup >= 0, repeats >= 1 and threads >= 1, got {warmup}, {repeats} and {threads}")
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads or threads_before)
    try:
        with torch.inference_mode():
            for _ in range(warmup):
                function()
            times_ms = [_time_ms(function) for _ in range(repeats)]
        used = torch.get_num_threads()
    finally:
        torch.set_num_threads(threads_before)
    p10, median, p90 = np.percentile(times_ms, [10, 50, 90])
    return Latency(float(median), float(p10), float(p90), repeats, used)


def _time_ms(function: Callable[[], object]) -> float:
    _synchronise()
    start = time.perf_counter()
    function()
    _synchronise()
    return 1000 * (time.perf_counter() - start)


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()
