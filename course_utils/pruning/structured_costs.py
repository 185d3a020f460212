"""What removing weights saves: multiply-accumulates, bytes and milliseconds of the same network in several forms.

The forms are dense, masked (zeros in a dense kernel), unfolded (convolution as a product with a dense matrix), CSR (the
same with a sparse one), 2:4, and physically smaller. A form *promises* the multiply-accumulates (MACs) that its
remaining weights need; what is measured is the time. Forms take turns round by round, so that a disturbance of the
machine meets all of them.
"""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from course_utils.accounting import count_macs_by_layer, layer_sparsity
from course_utils.latency import measure_latency
from course_utils.packing import size_on_disk
from course_utils.pruning.structured_given import convolutions, folded_copy


@dataclass(frozen=True)
class Form:
    """One form of a network.

    Attributes:
        plain: The network with ordinary layers, zeros included; bytes and MACs are counted on it.
        runs: The network that is timed; the same one, or one with other kernels.
        file: Layout of its file: `"dense"`, `"bitmap"`, `"csr"` or `"2:4"`.
    """

    plain: nn.Module
    runs: nn.Module
    file: str = "dense"


@dataclass(frozen=True)
class Cost:
    """What a form of a network costs.

    Attributes:
        macs: Multiply-accumulates of one image that the weights other than zero need.
        size_bytes: Size of its file.
        latency_ms: Batch size -> median milliseconds of a forward pass.
    """

    macs: int
    size_bytes: int
    latency_ms: dict[int, float]


def needed_macs(model: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Count the multiply-accumulates of one image with weights other than zero: sum_l macs_l (1 - sparsity_l).

    Args:
        model: Any module with ordinary layers.
        input_shape: Shape of one image (C, H, W).

    Returns:
        The number; that of `count_macs` where no weight is zero.
    """
    sparsity = layer_sparsity(model)
    by_layer = count_macs_by_layer(model, input_shape)
    return round(sum(macs * (1 - sparsity.get(name, 0.0)) for name, macs in by_layer.items()))


class MatmulConv2d(nn.Module):
    """A convolution as a product W U: its weight matrix (C_out, k k C_in) times the unfolded images (k k C_in, N H W).

    Args:
        conv: The convolution, without groups and dilation.
        layout: How W is stored: `"dense"`, `"csr"`, or `"2:4"` (torch's semi-structured tensors, on a CUDA device
            only).

    Raises:
        ValueError: If there is no such layout, or the convolution has groups or dilation.
    """

    def __init__(self, conv: nn.Conv2d, layout: str):
        super().__init__()
        if layout not in ("dense", "csr", "2:4"):
            raise ValueError(f"layout must be 'dense', 'csr' or '2:4', got {layout!r}")
        if conv.groups != 1 or conv.dilation != (1, 1) or isinstance(conv.padding, str):
            raise ValueError(f"conv must have one group, no dilation and a padding in pixels, got {conv}")
        self.kernel_size, self.stride, self.padding = conv.kernel_size, conv.stride, conv.padding
        self.bias = conv.bias
        # input channels innermost, as 2:4 groups them
        matrix = conv.weight.detach().permute(0, 2, 3, 1).reshape(conv.out_channels, -1).contiguous()
        self.matrix = _in_layout(matrix, layout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (N, C_in, H, W) to (N, C_out, H', W')."""
        (n, channels, *size), k = x.shape, self.kernel_size[0] * self.kernel_size[1]
        columns = F.unfold(x, self.kernel_size, padding=self.padding, stride=self.stride)  # (N, C k k, L)
        columns = columns.view(n, channels, k, -1).permute(2, 1, 0, 3).reshape(k * channels, -1)  # (k k C, N L)
        height = (size[0] + 2 * self.padding[0] - self.kernel_size[0]) // self.stride[0] + 1
        outputs = (self.matrix @ columns).view(self.matrix.shape[0], n, height, -1).transpose(0, 1)
        return outputs if self.bias is None else outputs + self.bias[:, None, None]


def _in_layout(matrix: torch.Tensor, layout: str) -> torch.Tensor:
    if layout == "csr":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
            return matrix.to_sparse_csr()
    return torch.sparse.to_sparse_semi_structured(matrix) if layout == "2:4" else matrix


def with_layout(model: nn.Module, layout: str, names: list[str] | None = None) -> nn.Module:
    """Copy a model with convolutions replaced by matrix products in a layout (see `MatmulConv2d`).

    Args:
        model: Any module; it is not changed.
        layout: `"dense"`, `"csr"` or `"2:4"`.
        names: The convolutions to replace; all of them when None.

    Returns:
        The copy, in evaluation mode, which computes the same outputs up to rounding.
    """
    model = folded_copy(model).eval()
    for name, conv in convolutions(model):
        if names is None or name in names:
            model.set_submodule(name, MatmulConv2d(conv, layout))
    return model


def two_four_layers(model: nn.Module) -> list[str]:
    """List the convolutions whose weights have at most two of every four input channels other than zero."""
    names = []
    for name, conv in convolutions(model):
        weight = conv.weight.detach()
        if weight.shape[1] % 4 == 0 and int((weight.unflatten(1, (-1, 4)) != 0).sum(2).max()) <= 2:
            names.append(name)
    return names


def pack_two_four(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """Split a 2:4 weight into two values and two 2-bit positions for every four input channels.

    Args:
        weight: (C_out, C_in, ...), float32, at most two of every four neighbouring input channels other than zero.

    Returns:
        `values` (2, n / 4) float32 and `positions` (ceil(n / 8),) uint8, four positions a byte; n weights in all.
    """
    groups = weight.movedim(1, -1).reshape(-1, 4)
    positions = (groups != 0).int().argsort(dim=1, descending=True, stable=True)[:, :2].sort(dim=1).values  # (n / 4, 2)
    values = groups.gather(1, positions)
    flat = F.pad(positions.flatten(), (0, -positions.numel() % 4)).view(-1, 4)
    return {"values": values.T.contiguous(), "positions": (flat << torch.tensor([0, 2, 4, 6])).sum(1).to(torch.uint8)}


def unpack_two_four(parts: Mapping[str, torch.Tensor], shape: tuple[int, ...]) -> torch.Tensor:
    """Rebuild the weight of that shape from the arrays of `pack_two_four`."""
    values = parts["values"].T
    flat = (parts["positions"].long()[:, None] >> torch.tensor([0, 2, 4, 6])) & 3
    positions = flat.flatten()[: values.numel()].view(-1, 2)
    groups = torch.zeros(len(values), 4, dtype=values.dtype).scatter_(1, positions, values)
    return groups.view(shape[0], *shape[2:], shape[1]).movedim(-1, 1)


def two_four_size(model: nn.Module) -> int:
    """Compute the bytes of a model whose 2:4 weights are packed: what `size_on_disk` measures, less what packing saves.

    Args:
        model: Any module with ordinary layers, float32.

    Returns:
        Bytes, for a file with the dense one's header.

    Raises:
        RuntimeError: If a packed weight differs from the one that was packed.
    """
    size_bytes = size_on_disk(model)
    for name in two_four_layers(model):
        weight = model.get_submodule(name).weight.detach().cpu()
        parts = pack_two_four(weight)
        if not torch.equal(unpack_two_four(parts, tuple(weight.shape)), weight):
            raise RuntimeError(f"{name} differs after packing and unpacking")
        size_bytes += sum(part.nbytes for part in parts.values()) - weight.nbytes
    return size_bytes


def file_bytes(form: Form) -> int:
    """Measure how many bytes a form's file has."""
    return two_four_size(form.plain) if form.file == "2:4" else size_on_disk(form.plain, form.file)


def measure_costs(
    forms: Mapping[str, Form],
    input_shape: tuple[int, ...],
    *,
    batch_sizes: tuple[int, ...] = (1, 128),
    rounds: int = 3,
    repeats: int = 7,
) -> dict[str, Cost]:
    """Count MACs and bytes of every form and measure its latency; the forms take turns, round by round.

    Args:
        forms: Name -> form. All live on one device, in evaluation mode, in one number format.
        input_shape: Shape of one image (C, H, W).
        batch_sizes: Batch sizes at which the latency is measured.
        rounds: How many turns each form has.
        repeats: Calls in each turn; ten times as many at batch 1.

    Returns:
        Name -> cost, with the median over the turns' medians.
    """
    times: dict[tuple[str, int], list[float]] = {}
    for form in forms.values():
        form.runs.to(memory_format=torch.channels_last)  # the order of the images, for all forms alike
    for _ in range(rounds):
        for batch_size in batch_sizes:
            for name, form in forms.items():
                call = _forward(form.runs, (batch_size, *input_shape))
                calls = repeats * 10 if batch_size == 1 else repeats
                median_ms = measure_latency(call, warmup=3, repeats=calls).median_ms
                times.setdefault((name, batch_size), []).append(median_ms)
    return {
        name: Cost(
            needed_macs(form.plain, input_shape),
            file_bytes(form),
            {batch_size: statistics.median(times[name, batch_size]) for batch_size in batch_sizes},
        )
        for name, form in forms.items()
    }


def _forward(model: nn.Module, shape: tuple[int, ...]) -> Callable[[], torch.Tensor]:
    """Return a call of the model on random images, in channels-last order, which torch's convolutions prefer."""
    like = next(model.parameters())
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(like.device, like.dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    return lambda: model(images)


def promise_kept(dense: Cost, cost: Cost, batch_size: int) -> float:
    """Compute (1 - latency / dense latency) / (1 - MACs / dense MACs): how much of the promised saving is measured.

    Args:
        dense: Cost of the dense network.
        cost: Cost of a form that needs fewer MACs.
        batch_size: The batch size of the latencies.

    Returns:
        1 where time falls like the MACs, 0 where it does not fall, negative where it rises.
    """
    return (1 - cost.latency_ms[batch_size] / dense.latency_ms[batch_size]) / (1 - cost.macs / dense.macs)


def print_costs(costs: Mapping[str, Cost], baseline: str) -> None:
    """Print one row a form: MACs, bytes and milliseconds, each followed by the baseline's number divided by it.

    Args:
        costs: What `measure_costs` returned.
        baseline: Name of the form that ratios refer to.
    """
    dense = costs[baseline]
    batches = list(dense.latency_ms)
    heads = "".join(f"{f'ms, batch {batch}':>16s}{'ratio':>7s}" for batch in batches)
    print(f"{'':30s}{'MACs':>12s}{'ratio':>7s}{'bytes':>11s}{'ratio':>7s}{heads}")
    for name, cost in costs.items():
        columns = f"{cost.macs:12d}{dense.macs / cost.macs:6.2f}x"
        columns += f"{cost.size_bytes:11d}{dense.size_bytes / cost.size_bytes:6.2f}x"
        for batch in batches:
            columns += f"{cost.latency_ms[batch]:16.3f}{dense.latency_ms[batch] / cost.latency_ms[batch]:6.2f}x"
        print(f"{name:30s}{columns}")
