"""Loops around quantization that a lab needs: finetuning, the small network, every parameter on a grid, live accuracy.

How weights are quantized is always an argument, so that the loops run with whatever functions a reader has written.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from bitarray import bitarray
from bitarray.util import int2ba
from torch import nn
from tqdm import tqdm

from course_utils import augment, data, schedules
from course_utils.data import Dataset
from course_utils.profiles import Profile
from course_utils.pruning import MaskedOptimizer
from course_utils.pruning.given import Masks
from course_utils.quantization import binary
from course_utils.quantization.given import small_network
from course_utils.quantization.plan import QuantizationPlan
from course_utils.resnet import weighted_layers
from course_utils.training import evaluate, fit, sgd

Quantize = Callable[[np.ndarray, int], tuple[np.ndarray, float, float]]
Dequantize = Callable[[np.ndarray, float, float], np.ndarray]


def finetune(
    model: nn.Module, dataset: Dataset, profile: Profile, plan: QuantizationPlan, masks: Masks | None = None
) -> nn.Module:
    """Train a copy of a network for the plan's epochs; the learning rate falls along a cosine.

    Steps of learned grids train without weight decay, which would narrow them for no reason of accuracy.

    Args:
        model: The network, quantized or not; it is not changed.
        dataset: Training images.
        profile: Batch size, padding and seed.
        plan: Epochs and learning rate.
        masks: Layer name -> mask of weights that are kept; None if all are.

    Returns:
        The trained copy, in evaluation mode.
    """
    trained = copy.deepcopy(model)
    optimizer = sgd_without_decay_on_steps(trained, plan.lr)
    fit(
        trained, dataset, epochs=plan.finetune_epochs, batch_size=profile.batch_size, padding=profile.padding,
        optimizer=optimizer if masks is None else MaskedOptimizer(optimizer, trained, masks),
        schedule=schedules.cosine, evaluate_every=0, seed=profile.seed, progress=False,
    )  # fmt: skip
    return trained.eval()


def sgd_without_decay_on_steps(model: nn.Module, lr: float, weight_decay: float = 5e-4) -> torch.optim.SGD:
    """Build the course's SGD, with weight decay on everything but parameters named step_size.

    Args:
        model: The model to train.
        lr: Peak learning rate.
        weight_decay: L2 penalty on all other parameters.

    Returns:
        The optimiser.
    """
    optimizer = sgd(model, lr, weight_decay=weight_decay)
    steps = [parameter for name, parameter in model.named_parameters() if name.endswith("step_size")]
    if steps:
        group = optimizer.param_groups[0]
        known = {id(parameter) for parameter in steps}
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in known]
        optimizer.add_param_group({"params": steps, "weight_decay": 0.0})
    return optimizer


def with_progress(tasks: Iterable, label: str) -> tqdm:
    """Return the tasks with a progress bar that says how many are done."""
    return tqdm(list(tasks), desc=label, file=sys.stdout, mininterval=1.0, ncols=100)


def train_small_network(
    plan: QuantizationPlan, binarize: binary.Binarize | None = None, stochastic: bool = False
) -> tuple[nn.Module, Dataset]:
    """Train the small network on Fashion-MNIST, with float weights or with binary ones.

    Args:
        plan: Images and epochs.
        binarize: Function of weight and uniform numbers (or None) for BinaryConnect; None for float weights.
        stochastic: Whether binary weights are drawn at random in training.

    Returns:
        The network, in evaluation mode, and its data set.
    """
    dataset = data.load_fashion_mnist(n_train=plan.n_small_train)
    model = small_network()
    after_step = None
    if binarize is not None:
        binary.make_binary(model, binarize, stochastic)
        after_step = lambda state: binary.clip_weights(state.model)  # noqa: E731 - a hook
    lr = 3e-3 if binarize is None else 0.1  # on the way from -1 to 1 a weight needs large steps
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    fit(
        model, dataset, epochs=plan.small_epochs, optimizer=optimizer, schedule=schedules.cosine, padding=0, flip=False,
        after_step=after_step, evaluate_every=0, progress=False,
    )  # fmt: skip
    return model.eval(), dataset


def quantized_copy(model: nn.Module, n_bits: int, quantize: Quantize, dequantize: Dequantize) -> nn.Module:
    """Copy a network and send every parameter (weights, biases, batch norm) through quantize and dequantize.

    Args:
        model: The network; it is not changed.
        n_bits: Bits a number.
        quantize: Function of an array and n_bits that returns codes, scale and shift.
        dequantize: Function of these three.

    Returns:
        The copy.
    """
    result = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in result.parameters():
            values = dequantize(*quantize(parameter.detach().numpy(), n_bits))
            parameter.copy_(torch.from_numpy(np.asarray(values)))
    return result


def save_codes(model: nn.Module, path: str | Path, n_bits: int | None, quantize: Quantize) -> dict[str, int]:
    """Write every parameter as packed codes with scale and shift, or as float32, and count the bytes.

    Args:
        model: The network.
        path: The safetensors file to write. Buffers (running statistics) are left out: they are the same in all files.
        n_bits: Bits a code, from 1 to 8; None for float32.
        quantize: Function of an array and n_bits that returns codes, scale and shift.

    Returns:
        Bytes by part: "numbers", "scale and shift", "headers"; their sum is the size of the file.
    """
    tensors, n_overhead = {}, 0
    for name, parameter in model.named_parameters():
        values = parameter.detach().numpy()
        if n_bits is None:
            tensors[name] = values
            continue
        codes, scale, shift = quantize(values, n_bits)
        tensors[name] = pack_codes(codes, n_bits)
        tensors[f"{name}:grid"] = np.array([scale, shift], dtype=np.float32)
        n_overhead += 8
    size_bytes = Path(path).write_bytes(safetensors.numpy.save(tensors))
    numbers = sum(array.nbytes for array in tensors.values()) - n_overhead
    return {"numbers": numbers, "scale and shift": n_overhead, "headers": size_bytes - numbers - n_overhead}


def pack_codes(codes: np.ndarray, n_bits: int) -> np.ndarray:
    """Write codes one after the other, n_bits each; the last byte is filled up with zeros.

    Args:
        codes: Whole numbers from 0 to 2^n_bits - 1.
        n_bits: From 1 to 8.

    Returns:
        Shape (ceil(n n_bits / 8),), uint8.
    """
    words = {code: int2ba(code, n_bits) for code in range(2**n_bits)}
    bits = bitarray()
    bits.encode(words, codes.ravel().tolist())
    return np.frombuffer(bits.tobytes(), dtype=np.uint8)


class LiveAccuracy:
    """The accuracy of a network on one batch after rounding its inner weights: fast enough for a slider.

    Args:
        model: The network; a copy is changed.
        dataset: The first n test images are the batch.
        quantize: Function of a weight that returns a weight, given bits and options, like `linear_quantize`.
        n: Images of the batch.
    """

    def __init__(self, model: nn.Module, dataset: Dataset, quantize: Callable[..., torch.Tensor], n: int = 200):
        self.model, self.quantize, self.dataset = copy.deepcopy(model).eval(), quantize, dataset.subset(n_test=n)
        self.weights = {name: layer.weight.detach().clone() for name, layer in weighted_layers(model)[1:-1]}

    def __call__(self, n_bits: int | None, **options: bool) -> float:
        """Round all weights but those of the first and the last layer and evaluate the batch."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                self.model.get_submodule(name).weight.copy_(self.quantize(weight, n_bits, **options))
        return evaluate(self.model, self.dataset)


def step_time_ms(model: nn.Module, dataset: Dataset, batch_size: int = 64, repeats: int = 20) -> float:
    """Measure a network's median time for one batch in evaluation mode and float32, in milliseconds.

    Args:
        model: The network.
        dataset: Images.
        batch_size: Images a call.
        repeats: Calls measured.

    Returns:
        Milliseconds.
    """
    from course_utils.latency import measure_latency

    images = augment.normalise(dataset.test_images[:batch_size], dataset.mean, dataset.std)
    model.eval()
    return measure_latency(lambda: model(images), warmup=3, repeats=repeats).median_ms
