"""Which layers read the channels that a convolution writes, and what may therefore be cut.

Filter f of a convolution writes channel f. To remove the filter, everything that is indexed by this channel must go
with it: its bias, its four numbers in the batch norm that follows, and in every layer that reads the channel the
weights that multiply it. `channel_links` traces the network (torch.fx) and follows each convolution's output through
layers that treat channels one by one *and leave a channel of zeros at zero* (ReLU, pooling, dropout, flattening, means
over positions) to the convolution or linear layers that read it. Where it meets anything else, the channel cannot be
cut without more work, and the link says why: most of all a residual addition, where channel f of the shortcut is added
to it.

A pruned filter is **silent** if its channel is zero for every input. Zero weights alone do not make it so: the bias is
left, and a batch norm turns any constant into another one (in training, into its shift beta). `silence_filters` sets
all of these to zero.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import fx, nn

FilterMasks = dict[str, torch.Tensor]
"""Name of a convolution -> boolean tensor (C_out,), True where the filter is kept."""

CHANNELWISE_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Tanh, nn.Identity, nn.Dropout, nn.Dropout2d, nn.MaxPool2d,
    nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
CHANNELWISE_FUNCTIONS = (
    F.relu, torch.relu, F.relu6, F.leaky_relu, F.gelu, F.silu, torch.tanh, F.dropout, F.max_pool2d, F.avg_pool2d,
    F.adaptive_avg_pool2d, F.adaptive_max_pool2d,
)  # fmt: skip
CHANNELWISE_METHODS = ("relu", "tanh", "contiguous")
ADDITIONS = (operator.add, operator.iadd, torch.add, "add", "add_")


@dataclass
class Link:
    """Where the channels of one convolution go.

    Attributes:
        conv: Name of the convolution.
        norms: Names of the batch norms on the way.
        readers: Name of each layer that reads the channels -> how many consecutive inputs of it belong to one channel:
            1, or the number of positions where the images are flattened first.
        obstacle: Why no filter can be removed; empty where filters can.
    """

    conv: str
    norms: list[str] = field(default_factory=list)
    readers: dict[str, int] = field(default_factory=dict)
    obstacle: str = ""


class _Tracer(fx.Tracer):
    """Traces into the model's own modules, but takes weighted layers as one piece even where they are subclasses."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d) or super().is_leaf_module(module, name)


def channel_links(model: nn.Module) -> list[Link]:
    """Follow the channels of every convolution to the layers that read them.

    Args:
        model: A module that torch.fx can trace (no data-dependent control flow).

    Returns:
        One link a convolution, in the order in which they are used.

    Raises:
        ValueError: If the model cannot be traced, or has no convolution.
    """
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # tracing runs the model's own code, which may fail in any way
        raise ValueError(f"model must be traceable by torch.fx, but {type(error).__name__}: {error}") from error
    modules = dict(model.named_modules())
    calls: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.op == "call_module" and isinstance(modules[node.target], nn.Conv2d):
            calls.setdefault(node.target, []).append(node)
    if not calls:
        raise ValueError(f"model must have a convolution, got a {type(model).__name__} without any")
    return [_follow(Link(name), nodes, modules) for name, nodes in calls.items()]


def prunable_convolutions(model: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    """List the convolutions whose filters can be removed, with their names, in the order in which they are used."""
    return [(link.conv, model.get_submodule(link.conv)) for link in channel_links(model) if not link.obstacle]


def _follow(link: Link, nodes: list[fx.Node], modules: dict[str, nn.Module]) -> Link:
    conv = modules[link.conv]
    if len(nodes) > 1:
        link.obstacle = "it is used more than once"
    if conv.groups != 1:
        link.obstacle = f"it has {conv.groups} groups"
    todo = [(user, False) for user in nodes[0].users]
    while todo and not link.obstacle:
        node, flat = todo.pop()
        module = modules.get(node.target) if node.op == "call_module" else None
        if isinstance(module, nn.Conv2d | nn.Linear):
            _add_reader(link, node.target, module, conv.out_channels, flat)
        elif isinstance(module, nn.BatchNorm2d):
            link.norms.append(node.target)
            link.obstacle = "" if module.affine else f"batch norm {node.target} has no scale and shift to set to zero"
            todo += [(user, flat) for user in node.users]
        elif _is_channelwise(node, module) or _is_flatten(node, module):
            todo += [(user, flat or _is_flatten(node, module)) for user in node.users]
        else:
            link.obstacle = _obstacle(node)
    return link


def _add_reader(link: Link, name: str, layer: nn.Module, channels: int, flat: bool) -> None:
    n_inputs = layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features
    if isinstance(layer, nn.Conv2d) and layer.groups != 1:
        link.obstacle = f"{name}, which reads it, has {layer.groups} groups"
    elif n_inputs % channels or (n_inputs != channels and not flat):
        link.obstacle = f"{name}, which reads it, has {n_inputs} inputs for {channels} channels"
    link.readers[name] = n_inputs // channels


def _is_channelwise(node: fx.Node, module: nn.Module | None) -> bool:
    if node.op == "call_module":
        return isinstance(module, CHANNELWISE_MODULES)
    if node.target in ("mean", torch.mean):
        dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        return dims is not None and set(dims if isinstance(dims, tuple | list) else [dims]) <= {2, 3, -1, -2}
    return node.target in CHANNELWISE_FUNCTIONS or node.target in CHANNELWISE_METHODS


def _is_flatten(node: fx.Node, module: nn.Module | None) -> bool:
    if node.op == "call_module":
        return isinstance(module, nn.Flatten) and module.start_dim == 1
    first = node.kwargs.get("start_dim", node.args[1] if len(node.args) > 1 else 0)
    return node.target in (torch.flatten, "flatten") and first == 1


def _obstacle(node: fx.Node) -> str:
    if node.target in ADDITIONS:
        return "its output feeds a residual addition, where every channel is added to the same channel of the shortcut"
    if node.op == "output":
        return "its output is the network's"
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return f"its output goes into {name}, which is not known to treat channels one by one and to leave zeros at zero"


def silence_filters(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> None:
    """Make every filter outside the masks silent, in place: weights, bias, batch-norm scale and shift become 0.0.

    Args:
        model: The model.
        masks: Name of a convolution -> boolean tensor (C_out,), True where the filter is kept.

    Raises:
        ValueError: If a name is no convolution whose filters can be removed, or a mask has the wrong shape.
    """
    keep_silent(model, masks)()


def keep_silent(model: nn.Module, masks: Mapping[str, torch.Tensor]) -> Callable[..., None]:
    """Prepare `silence_filters` for use after every optimiser step: tracing and checking are done once.

    Args:
        model: The model.
        masks: Name of a convolution -> boolean tensor (C_out,), True where the filter is kept.

    Returns:
        A function that silences the filters; it ignores its arguments.

    Raises:
        ValueError: If a name is no convolution whose filters can be removed, or a mask has the wrong shape.
    """
    links = {link.conv: link for link in channel_links(model)}
    silenced: list[tuple[torch.Tensor, torch.Tensor]] = []
    for name, mask in masks.items():
        if name not in links or links[name].obstacle:
            reason = links[name].obstacle if name in links else "there is no such convolution"
            raise ValueError(f"masks must belong to convolutions whose filters can be removed, got {name!r}: {reason}")
        conv, norms = model.get_submodule(name), [model.get_submodule(norm) for norm in links[name].norms]
        if mask.shape != (conv.out_channels,):
            raise ValueError(f"masks[{name!r}] must have shape {(conv.out_channels,)}, got {tuple(mask.shape)}")
        tensors = [conv.weight, conv.bias, getattr(conv, "mask", None)]
        tensors += [tensor for norm in norms for tensor in (norm.weight, norm.bias)]
        silenced += [(tensor, ~mask.to(tensor.device, torch.bool)) for tensor in tensors if tensor is not None]

    @torch.no_grad()
    def silence(*_ignored: object) -> None:
        for tensor, removed in silenced:
            tensor.masked_fill_(removed.view(-1, *[1] * (tensor.ndim - 1)), 0)

    return silence
