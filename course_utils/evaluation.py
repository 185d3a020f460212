"""Predictions and accuracy over a whole split, in large batches and without gradients."""

from __future__ import annotations

import torch
from torch import nn

from course_utils import augment, runtime
from course_utils.data import Dataset


@torch.no_grad()
def predict(
    model: nn.Module,
    dataset: Dataset,
    split: str = "test",
    *,
    batch_size: int = 500,
    on: runtime.Runtime | None = None,
) -> torch.Tensor:
    """Compute the logits of all images of a split, in evaluation mode, without augmentation.

    Args:
        model: Maps (N, C, H, W) float to logits (N, classes). It stays where it is and in the mode it is in.
        dataset: Images, means and deviations.
        split: `"test"` or `"train"`.
        batch_size: Images a forward pass, at least 1.
        on: Precision; `runtime.detect()` for the model's device when None.

    Returns:
        Logits, shape (number of images, classes), float32, on the model's device.

    Raises:
        ValueError: If there is no such split.
    """
    device = next(model.parameters()).device
    on = runtime.detect(device) if on is None else on
    images, _ = dataset.split(split)
    was_training = model.training
    model.eval()
    logits = []
    for batch in images.split(batch_size):
        pixels = augment.normalise(batch.to(device), dataset.mean, dataset.std)
        with on.autocast():
            logits.append(model(pixels).float())
    model.train(was_training)
    return torch.cat(logits)


def evaluate(
    model: nn.Module,
    dataset: Dataset,
    split: str = "test",
    *,
    batch_size: int = 500,
    on: runtime.Runtime | None = None,
) -> float:
    """Compute the accuracy: the fraction of a split's images whose largest logit is that of the right class.

    Args:
        model: Maps (N, C, H, W) float to logits (N, classes). It stays where it is and in the mode it is in.
        dataset: Images and labels; `dataset.subset(n_test=2000)` is evaluated faster.
        split: `"test"` or `"train"`.
        batch_size: Images a forward pass, at least 1.
        on: Precision; `runtime.detect()` for the model's device when None.

    Returns:
        Accuracy in [0, 1].

    Raises:
        ValueError: If there is no such split.
    """
    logits = predict(model, dataset, split, batch_size=batch_size, on=on)
    labels = dataset.split(split)[1].to(logits.device)
    return (logits.argmax(1) == labels).sum().item() / len(labels)
