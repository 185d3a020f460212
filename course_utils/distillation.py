"""Knowledge distillation: a compressed network learns from what the network that it was made from answers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from course_utils.validate import check_fraction, check_positive


class Distillation:
    r"""The loss of Hinton, Vinyals and Dean (2015), "Distilling the Knowledge in a Neural Network", section 2.

    $$L = (1 - \alpha) \, \mathrm{CE}(y, \sigma(z)) + \alpha \, T^2 \, \mathrm{KL}(\sigma(t / T) \,\|\, \sigma(z / T))$$

    with the student's logits z, the teacher's t, the labels y and the softmax $\sigma$, averaged over the batch. The
    factor T^2 keeps the second term's gradient, which shrinks with 1 / T^2, as large as the first one's. Pass it to
    `course_utils.training.fit(..., loss=Distillation(teacher))`.

    Args:
        teacher: Maps the student's images (B, C, H, W) to logits (B, classes). It is put into evaluation mode and moved
            to where the images are; nothing of it is trained.
        temperature: T > 0. A high one shows the teacher's small probabilities.
        weight: alpha in [0, 1]: how much the teacher's answers count beside the labels.

    Raises:
        TypeError: If temperature or weight is no number.
        ValueError: If temperature or weight is out of range.
    """

    def __init__(self, teacher: nn.Module, temperature: float = 4.0, weight: float = 0.9):
        check_positive("temperature", temperature)
        check_fraction("weight", weight)
        self.teacher, self.temperature, self.weight = teacher.eval(), temperature, weight

    def __call__(self, images: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of one batch.

        Args:
            images: (B, C, H, W) float, as the student has seen them.
            logits: (B, classes), the student's.
            labels: (B,) int64.

        Returns:
            The loss, a scalar tensor.
        """
        with torch.no_grad():
            taught = self.teacher.to(images.device)(images).float() / self.temperature
        soft = F.kl_div(
            F.log_softmax(logits / self.temperature, 1),
            F.log_softmax(taught, 1),
            reduction="batchmean",
            log_target=True,
        )
        return (1 - self.weight) * F.cross_entropy(logits, labels) + self.weight * self.temperature**2 * soft
