"""Loops around pruning that a lab needs: finetuning epoch by epoch, scans over layers, sweeps over sparsities.

What is pruned and how is always an argument: the loops here prune nothing by themselves, so that they run with whatever
functions a reader has written. They work on copies of the network they are given, except where they say otherwise.
"""

from __future__ import annotations

import contextlib
import copy
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from tqdm import tqdm

from course_utils import runtime, schedules
from course_utils.accounting import total_sparsity
from course_utils.data import Dataset
from course_utils.latency import Latency, measure_latency
from course_utils.profiles import Profile
from course_utils.pruning.given import Masks, WrappedOptimizer
from course_utils.pruning.plan import plan_for
from course_utils.resnet import weighted_layers
from course_utils.training import evaluate, fit, sgd

Prune = Callable[[nn.Module, float], object]
Accuracy = Callable[[nn.Module], float]


@dataclass(frozen=True)
class Epoch:
    """What one epoch of finetuning started from and reached.

    Attributes:
        sparsity: Fraction of weights at zero when the epoch began.
        accuracy_before: Accuracy on the scan images when the epoch began, in [0, 1]; NaN where it was not evaluated.
        accuracy: The same when it ended.
        masked: Whether zeros were kept.
    """

    sparsity: float
    accuracy_before: float
    accuracy: float
    masked: bool


class Finetuner:
    """Training of a pruned network, one epoch a call: `finetuner(model, masks)`; with None as masks all weights train.

    The learning rate falls along a cosine from lr to 0 over all epochs; momentum starts anew with each call. The
    network is moved to the training device for the time of a call, and back.

    Args:
        dataset: Training images; the first n_scan test images (of the plan) are evaluated around each epoch.
        profile: Batch size, padding and seed.
        epochs: Number of calls that are planned; the learning rate is 0 at the end of the last one.
        lr: Learning rate at the start.
        masked_optimizer: Class or function that makes an optimiser which keeps zeros from (optimizer, model, masks).
        label: Shown in front of the progress bar; with None there is no bar, and nothing is evaluated.

    Attributes:
        epochs_done: One `Epoch` for each call.
    """

    def __init__(
        self,
        dataset: Dataset,
        profile: Profile,
        *,
        epochs: int,
        lr: float,
        masked_optimizer: Callable[[torch.optim.Optimizer, nn.Module, Masks], WrappedOptimizer],
        label: str | None = "finetuning",
    ):
        self.dataset = dataset.subset(n_test=min(plan_for(profile).n_scan, len(dataset.test_labels)))
        self.profile, self.epochs, self.lr, self.masked_optimizer = profile, epochs, lr, masked_optimizer
        self.epochs_done: list[Epoch] = []
        steps = epochs * max(1, len(dataset.train_labels) // profile.batch_size)
        options = {"file": sys.stdout, "unit": "step", "mininterval": 5.0, "desc": label, "ncols": 110}
        self.bar = tqdm(total=steps, disable=label is None, **options)

    def __call__(self, model: nn.Module, masks: Masks | None = None) -> Epoch:
        """Train for one epoch, in place; weights outside the masks stay at zero.

        Args:
            model: The network.
            masks: Layer name -> True where the weight is kept; None trains all weights.

        Returns:
            What the epoch started from and reached.

        Raises:
            ValueError: If all planned epochs are done: the learning rate is 0, and nothing would be trained.
        """
        if len(self.epochs_done) >= self.epochs:
            raise ValueError(
                f"this Finetuner was planned for {self.epochs} epochs and has done them: its learning rate is 0 now. "
                "Make one with more epochs, or a new one"
            )
        device = runtime.detect().device
        with runtime.on_device(model, device):
            return self._train(model, masks and {name: mask.to(device) for name, mask in masks.items()})

    def _train(self, model: nn.Module, masks: Masks | None) -> Epoch:
        """Train for one epoch where model and masks lie."""
        sparsity, done = total_sparsity(model), len(self.epochs_done)
        before = float("nan") if self.bar.disable else evaluate(model, self.dataset)
        optimizer = sgd(model, self.lr, momentum=0.9, weight_decay=5e-4)
        if masks is not None:
            optimizer = self.masked_optimizer(optimizer, model, masks)
        history = fit(
            model, self.dataset, epochs=1, optimizer=optimizer, batch_size=self.profile.batch_size,
            padding=self.profile.padding, seed=self.profile.seed + done, progress=False,
            schedule=lambda progress: schedules.cosine(min((done + progress) / self.epochs, 1.0)),
            after_step=lambda state: self.bar.update(1), evaluate_every=0 if self.bar.disable else 1,
        )  # fmt: skip
        self.epochs_done.append(Epoch(sparsity, before, history.test_accuracy[-1], masks is not None))
        status = f"sparsity {sparsity:.2f}, accuracy {before:.3f} -> {history.test_accuracy[-1]:.3f}"
        self.bar.set_postfix_str(status, refresh=False)
        if len(self.epochs_done) >= self.epochs:
            self.bar.close()
        return self.epochs_done[-1]


class RecordedPruning:
    """A pruning function that remembers its masks: `recorded(model, sparsity)` prunes like the function it wraps.

    Args:
        prune: Function of model and sparsity that prunes in place and returns masks.

    Attributes:
        masks: The masks of each call.
    """

    def __init__(self, prune: Callable[[nn.Module, float], Masks]):
        self.prune = prune
        self.masks: list[Masks] = []

    def __call__(self, model: nn.Module, sparsity: float) -> Masks:
        """Prune, remember, return the masks."""
        masks = self.prune(model, sparsity)
        self.masks.append({name: mask.detach().clone().cpu() for name, mask in masks.items()})
        return masks

    def came_back(self) -> list[dict[str, float]]:
        """Count, for each call but the first, how many weights are zero and how many zeros of the call before are kept.

        Returns:
            Rows with "before" (removed by the call before), "zeros" (removed now), "came_back" (removed before, kept
            now) and "share" (came_back in per cent of before).
        """
        rows = []
        for old, new in zip(self.masks, self.masks[1:], strict=False):
            removed = sum(int((~mask).sum()) for mask in old.values())
            back = sum(int((~old[name] & new[name]).sum()) for name in old)
            zeros = sum(int((~mask).sum()) for mask in new.values())
            rows.append({"before": removed, "zeros": zeros, "came_back": back, "share": 100 * back / max(removed, 1)})
        return rows


def sweep(
    model: nn.Module, levels: Sequence[float], methods: Mapping[str, Prune], accuracy: Accuracy, label: str = "sweep"
) -> dict[str, list[tuple[float, float]]]:
    """Apply each method at each sparsity to a fresh copy of the model and measure what comes out.

    Args:
        model: The network to start from every time; it is not changed.
        levels: Sparsities that are asked for.
        methods: Name -> function of a model and a sparsity that prunes (and retrains) the model in place.
        accuracy: Function of a model.
        label: Shown in front of the progress bar.

    Returns:
        Name of the method -> (sparsity measured on the result, accuracy) for each level.
    """
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    with tqdm(total=len(levels) * len(methods), desc=label, file=sys.stdout, mininterval=5.0, ncols=110) as bar:
        for level in levels:
            for name, method in methods.items():
                trial = copy.deepcopy(model)
                method(trial, level)
                results[name].append((total_sparsity(trial), accuracy(trial)))
                bar.update(1)
    return results


def sensitivity_scan(
    model: nn.Module,
    levels: Sequence[float],
    mask_of: Callable[[torch.Tensor, float], torch.Tensor],
    accuracy: Accuracy,
) -> dict[str, list[float]]:
    """Prune one layer at a time, all others dense, and measure the accuracy at each level.

    Args:
        model: The network; its weights are changed on the way and restored.
        levels: Sparsities of the one layer; 0, which prunes nothing, is measured once for all layers.
        mask_of: Function of a weight and a sparsity that returns the mask, like `pruning.magnitude_mask`.
        accuracy: Function of a model.

    Returns:
        Layer name -> accuracy at each level.

    Source:
        Han, Pool, Tran and Dally (2015), section 5 and figure 6 (sensitivity of each layer to pruning).
    """
    layers = weighted_layers(model)
    unpruned = accuracy(model) if 0 in levels else None
    curves = {}
    for name, layer in tqdm(layers, desc="sensitivity scan", unit="layer", file=sys.stdout, mininterval=5.0, ncols=110):
        dense = layer.weight.detach().clone()
        curves[name] = []
        for level in levels:
            if level == 0:
                curves[name].append(unpruned)
                continue
            with torch.no_grad():
                layer.weight.masked_fill_(~mask_of(dense, level), 0.0)
            curves[name].append(accuracy(model))
            with torch.no_grad():
                layer.weight.copy_(dense)
    return curves


@contextlib.contextmanager
def frozen_convolutions(model: nn.Module) -> Iterator[None]:
    """Freeze all convolution weights within the block; batch norms and the classifier stay trainable.

    Args:
        model: The model; which of its parameters are trainable is restored at the end.
    """
    weights = [layer.weight for _, layer in weighted_layers(model) if isinstance(layer, nn.Conv2d)]
    before = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_(False)
        yield
    finally:
        for weight, trainable in zip(weights, before, strict=True):
            weight.requires_grad_(trainable)


def tolerated_sparsity(
    curves: Mapping[str, Sequence[float]], levels: Sequence[float], lowest: float
) -> dict[str, float]:
    """Read off a scan how far each layer alone can be pruned before accuracy falls below a bound.

    Args:
        curves: Layer name -> accuracy at each level, as `sensitivity_scan` returns it.
        levels: The levels, rising.
        lowest: The lowest accuracy that is accepted.

    Returns:
        Layer name -> the highest level up to which no level fell below the bound; 0.0 if the first one did.
    """
    tolerated = {}
    for name, values in curves.items():
        good = [value >= lowest for value in values] + [False]
        tolerated[name] = (0.0, *levels)[good.index(False)]
    return tolerated


def convolution_latencies(
    weight: torch.Tensor,
    images: torch.Tensor,
    mask_of: Callable[[torch.Tensor, float], torch.Tensor],
    levels: Sequence[float],
) -> list[dict[str, float]]:
    """Measure one 3 x 3 convolution in four ways: dense, masked, as a dense and as a CSR matrix product.

    As a matrix product the convolution reads W U with W (C_out, 9 C_in), and U (9 C_in, N H W) the unfolded images;
    unfolding is not counted, in favour of the sparse product.

    Args:
        weight: (C_out, C_in, 3, 3), float32, dense.
        images: (N, C_in, H, W), float32: what the layer receives.
        mask_of: Function of a weight and a sparsity that returns the mask.
        levels: Sparsities.

    Returns:
        For each level: "sparsity" and the median milliseconds of "dense conv2d", "masked conv2d", "dense matmul",
        "CSR matmul".
    """
    unfolded = nn.functional.unfold(images, 3, padding=1)  # (N, 9 C_in, H W)
    unfolded = unfolded.transpose(0, 1).reshape(unfolded.shape[1], -1).contiguous()
    return [{"sparsity": level} | _latencies(weight, mask_of(weight, level), images, unfolded) for level in levels]


def _latencies(
    weight: torch.Tensor, mask: torch.Tensor, images: torch.Tensor, unfolded: torch.Tensor
) -> dict[str, float]:
    masked = weight * mask
    matrix = masked.reshape(len(weight), -1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        csr = matrix.to_sparse_csr()
    if not torch.allclose(csr @ unfolded, matrix @ unfolded, rtol=1e-4, atol=1e-4):  # float32 sums of 9 C_in products
        raise RuntimeError("the CSR product differs from the dense one")
    calls: dict[str, Callable[[], object]] = {
        "dense conv2d": lambda: nn.functional.conv2d(images, weight, padding=1),
        "masked conv2d": lambda: nn.functional.conv2d(images, masked, padding=1),
        "dense matmul": lambda: matrix @ unfolded,
        "CSR matmul": lambda: csr @ unfolded,
    }
    timed: dict[str, Latency] = {name: measure_latency(call) for name, call in calls.items()}
    return {name: latency.median_ms for name, latency in timed.items()}
