"""Counting what a transformer computes: matrix products, as on paper and as they really happen.

**On paper** (`matrix_products`) every head has matrix products of its own: Q W_Q, K W_K, V W_V, Q K^T and A V. Their
concatenation is multiplied by W_O once, and a feed-forward part is two products.

**In the machine** heads are batched: one product projects the queries of all heads (W_Q is the h small matrices side by
side), and one batched product does Q K^T for all of them. `count_products` watches every matrix product that PyTorch
executes and reports both numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from course_utils.validate import check_count


def matrix_products(n_layers: int, n_heads: int) -> int:
    """Compute how many matrix products one forward pass of an encoder-decoder takes, every head counted by itself.

    Args:
        n_layers: N, the number of encoder layers, and of decoder layers; at least 1.
        n_heads: h, at least 1.

    Returns:
        The number of products.

    Raises:
        ValueError: If a number is below 1.
        TypeError: If a number is no int.

    Source:
        Vaswani et al. (2017), section 3: the layers' equations.
    """
    check_count("n_layers", n_layers, minimum=1)
    check_count("n_heads", n_heads, minimum=1)
    attention = 5 * n_heads + 1  # three projections, scores and mean of each head; one output projection
    feed_forward = 2
    encoder_layer = attention + feed_forward
    decoder_layer = 2 * attention + feed_forward
    return n_layers * (encoder_layer + decoder_layer) + 1  # and the projection to the vocabulary


@dataclass(frozen=True)
class ProductCount:
    """What `count_products` saw.

    Attributes:
        executed: Matrix products that PyTorch executed; a batched product is one.
        per_head: The same with every head counted by itself.
        by_part: Products per head for each part: the last component of the names of the model's submodules.
    """

    executed: int
    per_head: int
    by_part: dict[str, int]


SINGLE = {torch.ops.aten.mm.default, torch.ops.aten.addmm.default}
BATCHED = {torch.ops.aten.bmm.default, torch.ops.aten.baddbmm.default}


class _Watch(TorchDispatchMode):
    """Notes every matrix product that is executed, with the submodule it happens in."""

    def __init__(self, n_heads: int, batch_size: int):
        super().__init__()
        self.n_heads, self.batch_size = n_heads, batch_size
        self.path: list[str] = []
        self.seen: list[tuple[str, int]] = []  # (part, products per head)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        part = self.path[-1] if self.path else ""
        if function in SINGLE:
            self.seen.append((part, self.n_heads if part in ("query", "key", "value") else 1))
        elif function in BATCHED:
            n_matrices = args[-2].shape[0]  # batch times heads where heads are batched, else the batch
            self.seen.append((part, max(1, n_matrices // self.batch_size)))
        return function(*args, **(kwargs or {}))


def count_products(model: nn.Module, n_heads: int, *inputs: torch.Tensor) -> ProductCount:
    """Run a model once and count its matrix products.

    The accounting: a product inside a linear layer named query, key or value counts h times, because its weight is the
    h heads' matrices side by side; a batched product of B * h matrices (one for each sequence and head) counts h times;
    every other product counts once.

    Args:
        model: The model, for example a `Transformer`.
        n_heads: h, its number of heads.
        *inputs: What it is called with; the first has shape (B, ...).

    Returns:
        The numbers.
    """
    watch = _Watch(n_heads, inputs[0].shape[0])
    handles = []
    for name, module in model.named_modules():
        part = name.rpartition(".")[2]
        handles.append(module.register_forward_pre_hook(lambda *_, part=part: watch.path.append(part)))
        handles.append(module.register_forward_hook(lambda *_: watch.path.pop() and None))
    try:
        with torch.no_grad(), watch:
            model(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    by_part: dict[str, int] = {}
    for part, times in watch.seen:
        by_part[part] = by_part.get(part, 0) + times
    return ProductCount(len(watch.seen), sum(times for _, times in watch.seen), by_part)


def costs_by_part(model: nn.Module, *inputs: torch.Tensor) -> list[dict[str, int | str]]:
    """Count multiplications-and-additions and parameter bytes of each kind of part of a model.

    Args:
        model: A `Transformer` or a `TinyGPT`.
        *inputs: What it is called with.

    Returns:
        One row a kind of part (embedding, attention, feed_forward, norm, head): its name, `flops` of one forward pass
        (an addition and a multiplication are 2) and `parameter_bytes`; the last row is the total.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*inputs)
    root, rows = type(model).__name__, {}
    flops = {name.removeprefix(f"{root}."): sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    for name, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if not own:
            continue
        row = rows.setdefault(_kind(name), {"flops": 0, "parameter_bytes": 0})
        row["flops"] += flops.get(name, 0)
        row["parameter_bytes"] += sum(parameter.numel() * parameter.element_size() for parameter in own)
    if "attention" in rows:  # Q K^T and A V happen in the attention itself, in none of its linear layers
        rows["attention"]["flops"] += flops[root] - sum(row["flops"] for row in rows.values())
    rows["total"] = {key: sum(row[key] for row in rows.values()) for key in ("flops", "parameter_bytes")}
    return [{"part": name} | row for name, row in rows.items()]


def _kind(name: str) -> str:
    """Return the kind of part that a submodule's name belongs to."""
    for kind in ("embedding", "attention", "feed_forward", "norm", "head"):
        if kind in name:
            return kind
    return "other"
