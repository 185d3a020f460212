"""Magnitude pruning: which weights of a network may go, when, and how they stay gone.

A pruned network is the same network with a mask on every weight: w -> m * w with m in {0, 1}. Three questions make a
method out of this:

* **Which?** The smallest magnitudes |w|, in each layer alone (`prune_by_percentage`) or in the whole network at once
  (`global_prune_by_percentage`). Optimal Brain Damage would rank by h w^2 / 2, the second-order estimate of how much
  the loss grows; magnitude is what remains of it when nothing is known about the curvatures h.
* **How much, when?** All at once, or in steps that follow a schedule (`linear_schedule`, `cubic_schedule`), with
  training in between, in which weights may come back (`iterative_pruning`).
* **How do zeros stay zero?** The gradient moves pruned weights, and momentum does so even where the gradient is masked.
  `MaskedOptimizer` sets them back after every step.

Convolution and linear weights are pruned, biases and batch normalisation are not. A mask is a boolean tensor, True
where the weight is kept; masks are dicts from layer name to mask.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from course_utils import profiles
from course_utils.data import Dataset
from course_utils.pruning.given import Masks, WrappedOptimizer, apply_masks, check_prunable, check_weight
from course_utils.pruning.sweeps import Finetuner
from course_utils.resnet import weighted_layers
from course_utils.validate import check_count, check_fraction


def magnitude_mask(weight: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Choose which weights to keep: all but the round(sparsity * n) weights of smallest |w|.

    The rounding is Python's round (half to even), so that exactly as many weights go as in torch.nn.utils.prune. Of
    equal magnitudes those with the smaller index (in row-major order) are kept.

    Args:
        weight: Any shape, n entries, floating point; it is not changed.
        sparsity: Fraction of the weights to remove, from 0 to 1.

    Returns:
        Boolean tensor of the shape of weight, True where the weight is kept.

    Raises:
        ValueError: If sparsity is not in [0, 1], or weight is empty or not finite.
        TypeError: If weight is no floating-point tensor, or sparsity no number.

    Source:
        Han, Pool, Tran and Dally, "Learning both weights and connections for efficient neural networks" (2015),
        section 3.
    """
    check_weight("weight", weight)
    check_fraction("sparsity", sparsity)
    n_kept = weight.numel() - round(sparsity * weight.numel())
    order = weight.detach().abs().flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(weight.numel(), dtype=torch.bool, device=weight.device)
    mask[order[:n_kept]] = True
    return mask.view(weight.shape)


def prune_by_percentage(model: nn.Module, sparsity: float) -> Masks:
    """Set round(sparsity * n_l) weights of smallest magnitude to zero in every layer l, in place.

    Args:
        model: Any module; its convolution and linear weights are pruned, and nothing else.
        sparsity: Fraction to remove in each layer, from 0 to 1.

    Returns:
        Layer name -> boolean mask, True where the weight is kept.

    Raises:
        ValueError: If sparsity is not in [0, 1], or the model has no such layer.
        TypeError: If the model is no module, or sparsity no number.

    Source:
        Duke University, ECE 661 (2022), homework 4 (pruning by percentage, layer by layer).
    """
    check_prunable("model", model)
    check_fraction("sparsity", sparsity)
    masks = {name: magnitude_mask(layer.weight, sparsity) for name, layer in weighted_layers(model)}
    apply_masks(model, masks)
    return masks


def sparsity_report(model: nn.Module) -> dict[str, dict[str, float]]:
    """Count weights and zeros of every layer and of all layers together: sparsity = zeros / weights.

    Args:
        model: Any module; its convolution and linear weights count, without biases.

    Returns:
        Layer name -> {"weights": int, "zeros": int, "sparsity": float}, in the order of the layers, and the same for
        all of them together under the name "total".

    Raises:
        ValueError: If the model has no such layer.
        TypeError: If the model is no module.

    Source:
        Duke University, ECE 661 (2022), homework 4 (table of layer sparsities).
    """
    check_prunable("model", model)
    report = {}
    for name, layer in weighted_layers(model):
        report[name] = {"weights": layer.weight.numel(), "zeros": int((layer.weight == 0).sum())}
    report["total"] = {key: sum(row[key] for row in report.values()) for key in ("weights", "zeros")}
    for row in report.values():
        row["sparsity"] = row["zeros"] / row["weights"]
    return report


def global_prune_by_percentage(model: nn.Module, sparsity: float) -> Masks:
    """Set round(sparsity * n) weights to zero, the smallest of all n = sum_l n_l weights of the network, in place.

    Args:
        model: Any module; its convolution and linear weights are pruned, and nothing else.
        sparsity: Fraction of all these weights to remove, from 0 to 1; layers differ in how many they lose.

    Returns:
        Layer name -> boolean mask, True where the weight is kept. Of equal magnitudes the one in the earlier layer,
        then the one with the smaller index, is kept.

    Raises:
        ValueError: If sparsity is not in [0, 1], or the model has no such layer.
        TypeError: If the model is no module, or sparsity no number.

    Source:
        Duke University, ECE 661 (2022), homework 4 (global threshold).
    """
    check_prunable("model", model)
    check_fraction("sparsity", sparsity)
    layers = weighted_layers(model)
    all_weights = torch.cat([layer.weight.detach().flatten() for _, layer in layers])
    parts = magnitude_mask(all_weights, sparsity).split([layer.weight.numel() for _, layer in layers])
    masks = {name: part.view(layer.weight.shape) for (name, layer), part in zip(layers, parts, strict=True)}
    apply_masks(model, masks)
    return masks


class MaskedOptimizer(WrappedOptimizer):
    """An optimiser under which pruned weights stay exactly 0.0: w <- m * (w + update).

    Source:
        Han, Pool, Tran and Dally (2015), section 3: the surviving connections are retrained, the others stay removed.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, model: nn.Module, masks: Masks):
        """Keep what `step` needs.

        Args:
            optimizer: The optimiser that computes the update, with whatever momentum and weight decay it has.
            model: The model whose parameters it updates.
            masks: Layer name -> boolean mask, True where the weight is kept; layers without a mask train freely.
        """
        super().__init__(optimizer)
        self.model = model
        self.masks = masks

    def step(self) -> None:
        """Take a step of the wrapped optimiser, `self.optimizer`; afterwards every masked weight is exactly 0.0."""
        self.optimizer.step()
        apply_masks(self.model, self.masks)


def linear_schedule(step: int, n_steps: int, final_sparsity: float) -> float:
    """Compute the sparsity after a step: s_t = s_f * min(t / n, 1), a straight line from 0 to s_f.

    Args:
        step: t, an int of at least 0; step 0 is the dense network.
        n_steps: n, the step at which the final sparsity is reached, at least 1; it is kept from then on.
        final_sparsity: s_f, from 0 to 1.

    Returns:
        Sparsity, from 0 to s_f.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If a step is no int, or the sparsity no number.

    Source:
        Duke University, ECE 661 (2022), homework 4 (8 % more before each of 10 epochs).
    """
    check_count("step", step, minimum=0)
    check_count("n_steps", n_steps, minimum=1)
    check_fraction("final_sparsity", final_sparsity)
    return final_sparsity * min(step / n_steps, 1.0)


def iterative_pruning(
    model: nn.Module,
    n_epochs: int,
    schedule: Callable[[int], float],
    prune: Callable[[nn.Module, float], Masks],
    train_epoch: Callable[[nn.Module, Masks | None], object],
) -> Masks:
    """In every epoch e = 1, ..., n_epochs: prune at sparsity schedule(e), then train for one epoch, in place.

    While schedule(e) is below its final value, schedule(n_epochs), training is free: pruned weights may recover, and
    the next pruning chooses anew. Once the final value is reached, training keeps the masks.

    Args:
        model: The model to prune.
        n_epochs: Number of epochs, at least 1.
        schedule: Sparsity as a function of the epoch, counted from 1; it never falls.
        prune: `prune(model, sparsity)` prunes in place and returns the masks, like `global_prune_by_percentage`.
        train_epoch: `train_epoch(model, masks)` trains for one epoch and keeps masked weights at zero;
            `train_epoch(model, None)` trains all weights.

    Returns:
        The masks of the last pruning.

    Raises:
        ValueError: If n_epochs is below 1, or the model has no prunable layer.
        TypeError: If n_epochs is no int, or the model no module.

    Source:
        Duke University, ECE 661 (2022), homework 4 (iterative pruning with recovery). In Zhu and Gupta (2017),
        section 3, the sparsity rises in the same way, but weights that are masked get no updates.
    """
    check_prunable("model", model)
    check_count("n_epochs", n_epochs, minimum=1)
    masks = {}
    for epoch in range(1, n_epochs + 1):
        sparsity = schedule(epoch)
        masks = prune(model, sparsity)
        train_epoch(model, None if sparsity < schedule(n_epochs) else masks)
    return masks


def cubic_schedule(
    step: int, n_steps: int, final_sparsity: float, initial_sparsity: float = 0.0, first_step: int = 0
) -> float:
    """Compute the sparsity after a step: s_t = s_f + (s_i - s_f) (1 - (t - t_0) / n)^3, for t_0 <= t <= t_0 + n.

    Args:
        step: t, an int of at least 0.
        n_steps: n, how many steps the rise takes, at least 1.
        final_sparsity: s_f, from 0 to 1; it is kept after step t_0 + n.
        initial_sparsity: s_i, from 0 to 1; it holds up to step t_0.
        first_step: t_0, an int of at least 0.

    Returns:
        Sparsity, between s_i and s_f.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If a step is no int, or a sparsity no number.

    Source:
        Zhu and Gupta, "To prune, or not to prune" (2017), equation 1 (t counted in units of their Delta t).
    """
    check_count("step", step, minimum=0)
    check_count("n_steps", n_steps, minimum=1)
    check_fraction("final_sparsity", final_sparsity)
    check_fraction("initial_sparsity", initial_sparsity)
    check_count("first_step", first_step, minimum=0)
    progress = min(max((step - first_step) / n_steps, 0.0), 1.0)
    return final_sparsity + (initial_sparsity - final_sparsity) * (1 - progress) ** 3


def compress(model: nn.Module, train_set: Dataset, n_epochs: int) -> nn.Module:
    """Trade accuracy for bytes: maximise accuracy + 0.02 log2(dense bytes / packed bytes) with n_epochs of training.

    Args:
        model: A trained network; it may be changed in place.
        train_set: Training images.
        n_epochs: Number of epochs that may be trained, at least 2.

    Returns:
        The compressed network, of the same shape; its zeros take no room in the packed file.

    Raises:
        ValueError: If n_epochs is below 2, or the model has no prunable layer.
        TypeError: If n_epochs is no int, or the model no module.

    Source:
        Inspired by the class competition of CMU 10-605, which scores accuracy and sparsity together.
    """
    check_prunable("model", model)
    check_count("n_epochs", n_epochs, minimum=2)
    settings = {"epochs": n_epochs, "lr": 0.03, "masked_optimizer": MaskedOptimizer, "label": "challenge"}
    train_epoch = Finetuner(train_set, profiles.current(), **settings)

    def schedule(epoch):
        return cubic_schedule(epoch, (n_epochs + 1) // 2, 0.9)

    iterative_pruning(model, n_epochs, schedule, global_prune_by_percentage, train_epoch)
    return model
