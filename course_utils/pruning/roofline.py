"""The roofline: a layer is limited either by arithmetic or by memory traffic, whichever takes longer.

    attainable MAC/s = min(peak MAC/s, bytes/s of the memory * MACs per byte)

MACs per byte, the *arithmetic intensity*, is how often a layer uses what it reads. Left of the ridge, peak / bandwidth,
time is the time of moving bytes, and fewer multiplications save nothing that is not moved less as well. Both limits are
measured here, not taken from a data sheet; a layer whose data stay in the caches may lie above the slope.

Source: Williams, Waterman and Patterson, "Roofline: an insightful visual performance model for multicore architectures"
(2009).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from course_utils.latency import measure_latency
from course_utils.pruning.structured_costs import MatmulConv2d


@dataclass(frozen=True)
class Machine:
    """The two limits of a machine.

    Attributes:
        gmacs: Billions of float32 multiply-accumulates a second, in a product of large matrices.
        gbytes: Billions of bytes a second, read and written, in a copy of a large array.
    """

    gmacs: float
    gbytes: float

    @property
    def ridge(self) -> float:
        """MACs per byte at which the two limits meet."""
        return self.gmacs / self.gbytes


@dataclass(frozen=True)
class LayerPoint:
    """One convolution in the roofline.

    Attributes:
        layer: Its name.
        intensity: MACs that weights other than zero need, per byte that is read or written at least once.
        gmacs: Billions of these MACs a second, measured.
        latency_ms: Median milliseconds of the layer alone.
    """

    layer: str
    intensity: float
    gmacs: float
    latency_ms: float


def measure_machine(size: int = 1024, megabytes: int = 128) -> Machine:
    """Measure a product of two (size, size) matrices and a copy of an array, on this processor, in float32.

    Args:
        size: Rows and columns of the matrices.
        megabytes: Size of the array that is copied; larger than the caches.

    Returns:
        The two limits.
    """
    matrix, source = torch.randn(size, size), torch.zeros(megabytes * 2**18)
    target = torch.empty_like(source)
    # a limit is what the machine can do at its best, so the fast tenth of the calls counts here, not the median
    product_ms = measure_latency(lambda: matrix @ matrix, warmup=3, repeats=25).p10_ms
    copy_ms = measure_latency(lambda: target.copy_(source), warmup=2, repeats=15).p10_ms
    return Machine(size**3 / product_ms / 1e6, 2 * source.nbytes / copy_ms / 1e6)


def layer_points(model: nn.Module, images: torch.Tensor, repeats: int = 9) -> list[LayerPoint]:
    """Time every convolution of a model alone, on the input that it receives, and count its MACs and bytes.

    Args:
        model: A model with `nn.Conv2d` or `MatmulConv2d` layers, in evaluation mode.
        images: (N, C, H, W), the model's input.
        repeats: Calls measured for each layer.

    Returns:
        One point a convolution, in order.
    """
    seen: dict[str, torch.Tensor] = {}
    model.to(memory_format=torch.channels_last)
    layers = {name: part for name, part in model.named_modules() if isinstance(part, nn.Conv2d | MatmulConv2d)}
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: seen.__setitem__(name, inputs[0]))
        for name, layer in layers.items()
    ]
    with torch.inference_mode():
        model(images.contiguous(memory_format=torch.channels_last))
    for hook in hooks:
        hook.remove()
    return [_point(name, layer, seen[name], repeats) for name, layer in layers.items()]


def _point(name: str, layer: nn.Module, x: torch.Tensor, repeats: int) -> LayerPoint:
    with torch.inference_mode():
        y = layer(x)
    weight = layer.weight if isinstance(layer, nn.Conv2d) else layer.matrix
    sparse = weight.layout == torch.sparse_csr
    n_used = weight.values().numel() if sparse else int((weight != 0).sum())
    positions = y.numel() // y.shape[1]
    moved = x.nbytes + y.nbytes + (12 * n_used if sparse else weight.nbytes)  # CSR: a value and an 8-byte column each
    if isinstance(layer, MatmulConv2d):
        moved += 2 * 4 * positions * weight.shape[1]  # the unfolded images, written and read
    latency_ms = measure_latency(lambda: layer(x), warmup=3, repeats=repeats).median_ms
    return LayerPoint(name, n_used * positions / moved, n_used * positions / latency_ms / 1e6, latency_ms)
