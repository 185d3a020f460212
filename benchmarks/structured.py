"""What structured and unstructured sparsity cost: MACs, bytes and latency of one ConvNet in six forms, against the
dense one.

    python benchmarks/structured.py                     # two sizes of ConvNet, batch 1 and 128
    python benchmarks/structured.py --threads 1 --rounds 9
    python benchmarks/structured.py --sparsity 0.95     # of the forms with scattered zeros

Every form computes on the same architecture, randomly initialised (time does not depend on the values):

* **dense**: the peer that all ratios refer to, "dense divided by this"; above 1 is a gain.
* **masked**: scattered zeros, smallest magnitudes of each convolution, run by the dense kernels.
* **CSR**: the same network, each convolution as a product of a CSR matrix and the unfolded images.
* **2:4**: two of every four input channels at zero. On a processor the dense kernels run it; on a CUDA device, in half
  precision, it is a product with torch's semi-structured tensors, beside the same product with a dense matrix.
* **filters masked**: half of the filters of each convolution silent, run by the dense kernels.
* **filters cut**: the same half removed for real, an ordinary smaller network.

MACs are those that weights other than zero need; bytes are those of the smallest file. The last line of each table says
how much of the saving that the MACs of "filters cut" promise is measured: (1 - time ratio) / (1 - MAC ratio). Forms
take turns, round by round; the median over the rounds' medians is reported.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable

import torch
from torch import nn

from course_utils import runtime
from course_utils.convnet import ConvNet
from course_utils.pruning import filter_l1_pruning, n_m_mask, remove_pruned_filters, unstructured_pruning
from course_utils.pruning.structured_costs import (
    Form,
    measure_costs,
    print_costs,
    promise_kept,
    two_four_layers,
    with_layout,
)
from course_utils.pruning.structured_given import convolutions, set_masks

INPUT_SHAPE = (1, 28, 28)
SIZES = {
    "32-64-128": ((32, 64, 128), 1),
    "64-128-256": ((64, 128, 256), 1),
    "32-64-128, twice each": ((32, 64, 128), 2),
}


def pruned(model: nn.Module, prune: Callable[[nn.Module], object]) -> nn.Module:
    """Return a copy of the model that `prune` has pruned in place."""
    model = copy.deepcopy(model)
    prune(model)
    return model


def two_four(model: nn.Module) -> None:
    """Set a 2:4 pattern in every convolution whose input channels come in fours, in place."""
    set_masks(model, {name: n_m_mask(conv.weight) for name, conv in convolutions(model) if conv.in_channels % 4 == 0})


def forms_of(model: nn.Module, sparsity: float) -> dict[str, Form]:
    """Build the six forms on a processor, in float32."""
    scattered = pruned(model, lambda copied: unstructured_pruning(copied, sparsity))
    patterned = pruned(model, two_four)
    silent = pruned(model, lambda copied: filter_l1_pruning(copied, 0.5))
    cut = remove_pruned_filters(silent)
    return {
        "dense": Form(model, model),
        f"masked, {100 * sparsity:g} % zeros": Form(scattered, scattered, "bitmap"),
        f"CSR, {100 * sparsity:g} % zeros": Form(scattered, with_layout(scattered, "csr"), "csr"),
        "2:4, dense kernels": Form(patterned, patterned, "2:4"),
        "half of the filters masked": Form(silent, silent, "bitmap"),
        "half of the filters cut": Form(cut, cut),
    }


def gpu_forms_of(model: nn.Module) -> dict[str, Form]:
    """Build the forms on a CUDA device, in half precision; the others are as on the processor."""
    patterned = pruned(model, two_four)
    silent = pruned(model, lambda copied: filter_l1_pruning(copied, 0.5))
    cut = remove_pruned_filters(silent)
    # torch's semi-structured half-precision products take multiples of 32 rows and 64 columns
    names = [name for name in two_four_layers(patterned) if _fits(patterned.get_submodule(name))]
    on_gpu = {id(network): copy.deepcopy(network).half().cuda() for network in (model, patterned, silent, cut)}
    return {
        "dense": Form(model, on_gpu[id(model)]),
        "dense matrix products": Form(model, with_layout(on_gpu[id(model)], "dense", names)),
        f"2:4 in {', '.join(names)}": Form(patterned, with_layout(on_gpu[id(patterned)], "2:4", names), "2:4"),
        "half of the filters masked": Form(silent, on_gpu[id(silent)], "bitmap"),
        "half of the filters cut": Form(cut, on_gpu[id(cut)]),
    }


def _fits(conv: nn.Conv2d) -> bool:
    return conv.out_channels % 32 == 0 and conv.weight[0].numel() % 64 == 0


def report(title: str, forms: dict[str, Form], rounds: int, repeats: int) -> None:
    """Measure and print one table, with how much of the promise of the cut network is kept."""
    costs = measure_costs(forms, INPUT_SHAPE, rounds=rounds, repeats=repeats)
    print(f"\nConvNet {title}")
    print_costs(costs, "dense")
    dense, cut = costs["dense"], costs["half of the filters cut"]
    kept = ", ".join(f"{promise_kept(dense, cut, batch):.2f} at batch {batch}" for batch in dense.latency_ms)
    fall = 100 * (1 - cut.macs / dense.macs)
    print(f"half of the filters cut: MACs fall by {fall:.1f} %; time falls by this share of it: {kept}")


def main() -> None:
    """Print a table for each size on the processor, and on a CUDA device where there is one."""
    parser = argparse.ArgumentParser(description="MACs, bytes and latency of sparse networks against the dense one")
    parser.add_argument("--sparsity", type=float, default=0.9, help="of the forms with scattered zeros")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=7, help="calls a turn; ten times as many at batch 1")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--sizes", nargs="+", choices=tuple(SIZES), default=tuple(SIZES))
    options = parser.parse_args()
    on = runtime.detect("cpu", "fp32", options.threads)
    runtime.keep_freed_memory()
    print(f"{on.describe()}; median of {options.rounds} rounds of {options.repeats} calls (times ten at batch 1)")
    for size in options.sizes:
        widths, convs_per_stage = SIZES[size]
        runtime.seed_everything(0)
        model = ConvNet(widths, convs_per_stage=convs_per_stage).eval()
        report(f"{size}, processor, float32", forms_of(model, options.sparsity), options.rounds, options.repeats)
        if torch.cuda.is_available():
            title = f"{size}, {torch.cuda.get_device_name()}, half precision"
            report(title, gpu_forms_of(model), options.rounds, options.repeats)


if __name__ == "__main__":
    main()
