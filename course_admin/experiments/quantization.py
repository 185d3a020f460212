"""The experiments of the quantization table: ResNet-20 with few bits a weight, dense and 80 % sparse.

Published setting (Duke University, ECE 661, 2022, homework 4): the weights of the residual blocks are quantized, first
convolution and classifier stay in float; 20 epochs of training through the rounding. The published numbers have one
grid for each layer; here each output channel has its own, unless the row says otherwise. The published numbers on the
sparse model suffer from a mask put the wrong way round (Lab 3); the rows here keep zeros and quantize the others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from course_admin.experiments.catalogue import WEIGHT_DECAY, Experiment, Job, Setting, command, record_name
from course_admin.experiments.pruning import LR, KeepZeros, with_own_statistics
from course_utils import packing
from course_utils.data_files import MissingData
from course_utils.profiles import Profile
from course_utils.pruning import global_prune_by_percentage, linear_schedule
from course_utils.quantization import LSQ, SparseSTEQuantize, STEQuantize, linear_quantize, lsq_quantize, quantize_model
from course_utils.quantization.given import Quantizer, scale_gradient
from course_utils.quantization.training import sgd_without_decay_on_steps
from course_utils.resnet import weighted_layers

TABLE = "Quantizing ResNet-20 on CIFAR-10"
SPARSE_TABLE = "Quantizing an 80 % sparse ResNet-20"
SPARSE_START = "iterative_global_80"
MakeQuantizer = Callable[[torch.Tensor, int], Quantizer]


def per_channel(weight: torch.Tensor, n_bits: int) -> Quantizer:
    """The published min-max quantizer with one grid for each output channel, straight through backwards."""
    return lambda w: STEQuantize.apply(w, n_bits, True)


def per_layer_sparse(weight: torch.Tensor, n_bits: int) -> Quantizer:
    """The published quantizer for sparse weights with its mask put right: zeros stay, the others get a grid."""
    return lambda w: SparseSTEQuantize.apply(w, n_bits)


class ChannelLSQ(LSQ):
    """LSQ with a learned step for each output channel; each starts and learns as the step of a layer of its own would.

    Source:
        Esser et al., "Learned step size quantization" (2020), equations 1 to 3, with N the weights of one channel.
    """

    def __init__(self, weight: torch.Tensor, n_bits: int):
        """Set the steps from the channels of the weight.

        Args:
            weight: The weight as trained in float, shape (output channels, ...).
            n_bits: From 2 on.
        """
        super().__init__(weight, n_bits, _with_channel_steps)
        starts = torch.stack([LSQ(channel, n_bits).step_size.detach() for channel in weight])
        self.step_size = nn.Parameter(starts.view(-1, *[1] * (weight.ndim - 1)))


def _with_channel_steps(weight: torch.Tensor, step_sizes: torch.Tensor, n_bits: int) -> torch.Tensor:
    """`lsq_quantize`, whose factor 1 / sqrt(N Q_P) counts all N weights, for C steps that have N / C weights each."""
    return lsq_quantize(weight, scale_gradient(step_sizes, len(step_sizes) ** 0.5), n_bits)


def plain(model: nn.Module, profile: Profile) -> nn.Module:
    """Return an ordinary network whose weights are those that the layers of a quantized one compute with."""
    result = profile.load_resnet20()
    own = result.state_dict()
    tensors = {name: tensor.cpu() for name, tensor in model.state_dict().items() if name in own}
    for name, layer in weighted_layers(model):
        if hasattr(layer, "quantizer"):
            tensors[f"{name}.weight"] = layer.quantizer(layer.weight).detach().cpu()
    result.load_state_dict(tensors)
    return result.eval()


def after_training(setting: Setting, *, n_bits: int, by_channel: bool, remeasure: bool = False) -> Job:
    """Round the trained weights and train nothing; batch-norm statistics may be measured anew."""
    model = setting.load_resnet20()
    with torch.no_grad():
        for _, layer in weighted_layers(model)[1:-1]:
            layer.weight.copy_(linear_quantize(layer.weight, n_bits, per_channel=by_channel))
    return Job(with_own_statistics(model, setting) if remeasure else model, layout="codebook")


def lsq_start(setting: Setting, *, n_bits: int) -> Job:
    """Round the trained weights with the steps that LSQ starts from, measure statistics anew, and train nothing."""
    model = plain(quantize_model(setting.load_resnet20(), n_bits, LSQ), setting.profile)
    return Job(with_own_statistics(model, setting), layout="codebook")


def aware(
    setting: Setting,
    *,
    n_bits: int,
    make_quantizer: MakeQuantizer,
    sparse: bool = False,
    lr: float = LR,
    weight_decay: float = WEIGHT_DECAY,
) -> Job:
    """Train through the rounding, from the trained network or from the 80 % sparse one (whose zeros stay)."""
    model = sparse_start(setting) if sparse else setting.load_resnet20()
    model = quantize_model(model, n_bits, make_quantizer)
    hooks = {"optimizer": sgd_without_decay_on_steps(model, lr, weight_decay)}
    if sparse:
        hooks |= KeepZeros().as_hooks()
    finish = functools.partial(plain, profile=setting.profile)
    return Job(model, lr, setting.epochs, hooks, "codebook", finish, weight_decay=weight_decay)


def aware_while_pruning(setting: Setting, *, n_bits: int, sparsity: float) -> Job:
    """Train through the rounding while 8 % more of all weights go before each epoch of the first half."""
    model = quantize_model(setting.load_resnet20(), n_bits, per_layer_sparse)
    n_steps = max(1, setting.epochs // 2)
    zeros = KeepZeros(global_prune_by_percentage, lambda epoch: linear_schedule(epoch, n_steps, sparsity), n_steps)
    hooks = {"optimizer": sgd_without_decay_on_steps(model, LR)} | zeros.as_hooks()
    finish = functools.partial(plain, profile=setting.profile)
    return Job(model, LR, setting.epochs, hooks, "codebook", finish, pruned_by=n_steps)


def sparse_start(setting: Setting) -> nn.Module:
    """Load the 80 % sparse network that the experiment `iterative_global_80` has left.

    Args:
        setting: Says where it lies.

    Returns:
        The network, in evaluation mode.

    Raises:
        MissingData: If it has not been run.
    """
    path = setting.folder / f"{record_name(SPARSE_START, profile=setting.profile.name)}.safetensors"
    if not path.is_file():
        raise MissingData(
            f"{path} is missing: this experiment starts from it; "
            f"run: {command(SPARSE_START, profile=setting.profile.name, folder=setting.folder)}"
        )
    return packing.load_packed(setting.load_resnet20(), path).eval()


def _dense_rows() -> list[Experiment]:
    rows = [
        Experiment(f"round_layer_{bits}bit", TABLE, f"{bits} bits after training, one grid for each layer",
                   partial(after_training, n_bits=bits, by_channel=False), published)
        for bits, published in ((6, 0.9145), (5, 0.9112), (4, 0.8972), (3, 0.7662), (2, 0.0899))
    ]  # fmt: skip
    rows += [
        Experiment(f"round_channel_{bits}bit", TABLE, f"{bits} bits after training, one grid for each channel",
                   partial(after_training, n_bits=bits, by_channel=True), published, target)
        for bits, published, target in ((4, 0.8972, 0.905), (3, 0.7662, 0.85), (2, 0.0899, None))
    ]  # fmt: skip
    for scope, grid, prepare in (
        ("layer", "one grid for each layer", partial(after_training, by_channel=False, remeasure=True)),
        ("channel", "one grid for each channel", partial(after_training, by_channel=True, remeasure=True)),
        ("lsq", "the steps that LSQ starts from", lsq_start),
    ):
        title = f"bits after training, {grid}, batch-norm statistics measured anew"
        rows += [
            Experiment(f"round_{scope}_{n}bit_statistics", TABLE, f"{n} {title}", partial(prepare, n_bits=n))
            for n in (4, 3, 2)
        ]
    for bits, published, ste_target, lsq_target in (
        (4, 0.9135, 0.920, 0.922), (3, 0.9074, 0.917, 0.921), (2, 0.8600, 0.911, 0.918)
    ):  # fmt: skip
        rows += [
            Experiment(f"qat_minmax_{bits}bit", TABLE, f"{bits} bits, 20 epochs, published quantizer per channel",
                       partial(aware, n_bits=bits, make_quantizer=per_channel), published, ste_target,
                       seeds=(0, 1, 2) if bits == 2 else (0,)),
            Experiment(f"qat_lsq_{bits}bit", TABLE, f"{bits} bits, 20 epochs, learned steps (LSQ)",
                       partial(aware, n_bits=bits, make_quantizer=LSQ), None, lsq_target,
                       seeds=(0, 1, 2) if bits == 2 else (0,), aim=_lsq_aim(bits)),
            Experiment(f"qat_lsq_{bits}bit_channel", TABLE, f"{bits} bits, 20 epochs, a learned step for each channel",
                       partial(aware, n_bits=bits, make_quantizer=ChannelLSQ), None, lsq_target,
                       seeds=(0, 1, 2) if bits == 2 else (0,), aim=_lsq_aim(bits)),
        ]  # fmt: skip
    rows += [
        Experiment(f"qat_lsq_2bit_{suffix}", TABLE, f"2 bits, 20 epochs, learned steps (LSQ), {what}",
                   partial(aware, n_bits=2, make_quantizer=LSQ, **options), None, 0.918, seeds, aim=_lsq_aim(2))
        for suffix, what, options, seeds in (
            ("decay", "a quarter of the weight decay", {"weight_decay": WEIGHT_DECAY / 4}, (0, 1)),
            ("rate", "peak rate 0.05", {"lr": 0.05}, (0,)),
        )
    ]  # fmt: skip
    return rows


def _lsq_aim(n_bits: int) -> str:
    return f"{n_bits} bits, 20 epochs, learned steps"


def _sparse_rows() -> list[Experiment]:
    rows = []
    for bits, published, target in ((4, 0.8974, 0.914), (3, 0.8752, 0.912), (2, 0.3092, 0.908)):
        both = {"follows": SPARSE_START, "aim": f"80 % sparse and {bits} bits, 20 epochs"}
        rows += [
            Experiment(f"sparse80_minmax_{bits}bit", SPARSE_TABLE, f"{bits} bits, 20 epochs, quantizer repaired",
                       partial(aware, n_bits=bits, make_quantizer=per_layer_sparse, sparse=True), published, target,
                       **both),
            Experiment(f"sparse80_lsq_{bits}bit", SPARSE_TABLE, f"{bits} bits, 20 epochs, learned steps (LSQ)",
                       partial(aware, n_bits=bits, make_quantizer=LSQ, sparse=True), published, target,
                       **both),
        ]  # fmt: skip
    return [
        *rows,
        Experiment("prune80_qat_4bit", SPARSE_TABLE, "4 bits while pruning to 80 % step by step, 20 epochs",
                   partial(aware_while_pruning, n_bits=4, sparsity=0.8), 0.4125, 0.905),
    ]  # fmt: skip


EXPERIMENTS = [*_dense_rows(), *_sparse_rows()]
