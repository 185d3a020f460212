"""Where and how computations run: seed, threads, device and number format, decided in one place.

bfloat16 keeps float32's 8 exponent bits and 8 of its 24 significant bits. Half the bytes means half the memory traffic,
and processors with matrix units multiply bf16 numbers several times faster than fp32. On a processor *without* them
the same bf16 program is slower than fp32, because every number is converted back and forth. So the format is never
assumed: `detect` asks the processor, and `Runtime.describe()` says what was chosen, so that a result can be reported
together with the machine and precision it was computed on.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

DEVICES = ("cuda", "mps", "cpu")


@dataclass(frozen=True)
class Runtime:
    """The device, number format and number of threads that a computation uses.

    Attributes:
        device: Where tensors live.
        precision: `"bf16"` (autocast: convolutions and products in bf16, weights and sums in fp32) or `"fp32"`.
        threads: Threads of a CPU computation.
        compile: Whether training fuses operations with `torch.compile` (needs a C++ compiler on a CPU).
    """

    device: torch.device
    precision: str
    threads: int
    compile: bool = False

    def autocast(self) -> contextlib.AbstractContextManager:
        """Return the context in which a forward pass runs: bf16 autocast, or nothing for fp32."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def describe(self) -> str:
        """Return one line that says device, precision, a CPU's threads and torch version."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else processor_name()
        compiled = ", compiled" if self.compile else ""
        threads = f", {self.threads} threads" if self.device.type == "cpu" else ""
        return f"{self.device} ({name}), {self.precision}{compiled}{threads}, torch {torch.__version__}"


def detect(
    device: str | torch.device | None = None, precision: str = "auto", threads: int | None = None, compile: bool = False
) -> Runtime:
    """Choose device, precision and threads, asking the hardware for what is not given.

    Args:
        device: `"cuda"`, `"mps"`, `"cpu"`; None takes the one that the environment variable COURSE_DEVICE names, and
            where it is unset the first of these that is there.
        precision: `"fp32"`, `"bf16"`, or `"auto"`: bf16 exactly where the processor is fast at it.
        threads: CPU threads; None keeps torch's number. A number is set for the whole process.
        compile: Whether training uses `torch.compile`.

    Returns:
        The choice.

    Raises:
        ValueError: If the precision, the number of threads or COURSE_DEVICE is not allowed.
    """
    if precision not in ("auto", "fp32", "bf16"):
        raise ValueError(f"precision must be 'auto', 'fp32' or 'bf16', got {precision!r}")
    chosen = torch.device(device) if device is not None else best_device()
    if precision == "auto":
        precision = "bf16" if bf16_is_fast(chosen) else "fp32"
    if threads is not None:
        if not isinstance(threads, int) or threads < 1:
            raise ValueError(f"threads must be an integer of at least 1, got {threads!r}")
        torch.set_num_threads(threads)
    return Runtime(chosen, precision, torch.get_num_threads(), compile)


def best_device() -> torch.device:
    """Return the device that COURSE_DEVICE names; where it is unset cuda if there is one, else mps, else cpu.

    Returns:
        The device.

    Raises:
        ValueError: If COURSE_DEVICE names no device, or one that is not there.
    """
    is_there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    here = [name for name in DEVICES if is_there[name]]
    chosen = os.environ.get("COURSE_DEVICE", "").strip() or here[0]
    if chosen not in here:
        raise ValueError(f"COURSE_DEVICE must be one of the devices of this machine, {here}, or unset, got {chosen!r}")
    return torch.device(chosen)


@contextlib.contextmanager
def on_device(model: nn.Module, device: torch.device) -> Iterator[nn.Module]:
    """Move a model to a device for the time of a block, and back to where it was afterwards.

    What was made of it before, such as masks or copies of its weights, then still lies on the same device as the model.

    Args:
        model: A model whose parameters lie on one device; it is moved in place.
        device: Where it is to be within the block.

    Yields:
        The model.
    """
    home = next((parameter.device for parameter in model.parameters()), device)
    model.to(device)
    try:
        yield model
    finally:
        model.to(home)


def bf16_is_fast(device: torch.device) -> bool:
    """Say whether the device multiplies bf16 matrices faster than fp32 ones.

    Args:
        device: A cuda device counts from compute capability 8.0 (Ampere); a CPU when it reports AMX_BF16 (x86) or Arm's
            BF16 instructions, and an AMD one when it reports AVX512_BF16; anything else does not. Intel's AVX512_BF16
            alone does not count: there a bf16 dot product makes two multiply-adds at half the rate of fp32's, and what
            converts the numbers comes on top (ResNet-20 trains at 0.83 of fp32's speed, benchmarks/training.py).

    Returns:
        True or False; a capability that torch cannot tell counts as absent.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    fast = ["amx_bf16", "bf16", "sve_bf16"] + ["avx512_bf16"] * (processor_maker() == "AuthenticAMD")
    return any(cpu_capabilities().get(name, False) for name in fast)


@functools.cache
def cpu_capabilities() -> dict[str, bool]:
    """Return what torch reports about this processor's instruction sets, by name."""
    if hasattr(torch.cpu, "get_capabilities"):
        return {name: value for name, value in torch.cpu.get_capabilities().items() if isinstance(value, bool)}
    probes = {"avx512_bf16": "_is_avx512_bf16_supported", "amx_bf16": "_is_amx_tile_supported"}
    return {name: bool(getattr(torch.cpu, probe, lambda: False)()) for name, probe in probes.items()}


def processor_name() -> str:
    """Return the processor's name as the operating system tells it."""
    return cpuinfo("model name") or platform.processor() or platform.machine()


def processor_maker() -> str:
    """Return the processor's maker as the processor tells it, for example "GenuineIntel"; "" where nobody says."""
    maker = cpuinfo("vendor_id") or platform.processor()  # on Windows "AMD64 Family 25 Model 97, AuthenticAMD"
    return maker.rpartition(", ")[2]


@functools.cache
def cpuinfo(entry: str) -> str:
    """The first value of an entry of Linux's /proc/cpuinfo; "" if there is none."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as stream:
        for line in stream:
            if line.startswith(entry):
                return line.partition(":")[2].strip()
    return ""


def seed_everything(seed: int) -> None:
    """Seed the global generators of Python, NumPy and torch (all devices).

    Args:
        seed: From 0 to 2^32 - 1.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global generator is what is seeded here
    torch.manual_seed(seed)


@functools.cache
def keep_freed_memory() -> bool:
    """Tell glibc's allocator to keep freed blocks of up to 32 MB instead of giving them back to the system.

    Training allocates and frees the same activations at every step. By default each block of some megabytes is
    returned to the system and comes back page by page, zeroed; keeping it makes a training step on a CPU noticeably
    faster. Does nothing, and returns False, where the C library is not glibc or MALLOC_ variables are set already.
    """
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD of malloc.h
        return bool(mallopt(mmap_threshold, 32 * 2**20) and mallopt(trim_threshold, 2**31 - 1))
    return False
