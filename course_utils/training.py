"""Training of image classifiers.

`fit` is an ordinary training loop: shuffle, augment, forward, loss, backward, step. Three things deserve a look:

* **Resident data.** The images are uint8 tensors on the training device; a batch is an indexing operation followed by
  batched augmentation (`course_utils.augment`).
* **Hooks.** Compression methods need to act inside training: pruning sets weights back to zero after every optimiser
  step, an iterative schedule prunes before an epoch, an L1 penalty is added to the loss. `fit` calls `before_epoch`,
  `after_step`, `after_epoch`, `loss` and `penalty` at these places and knows nothing about what they do.
* **Resuming.** All randomness of an epoch comes from (seed, epoch), and the state after each epoch (model, optimiser,
  averaged weights, history) is written to one file. A run that was interrupted and started again computes bit for bit
  what an uninterrupted one computes.
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from course_utils import augment, runtime, schedules, training_state
from course_utils.data import Dataset
from course_utils.ema import WeightAverage
from course_utils.evaluation import evaluate, predict
from course_utils.training_state import History, Settings, TrainingState

__all__ = ["History", "TrainingState", "evaluate", "fit", "predict"]

Hook = Callable[[TrainingState], None]
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]  # of images, logits and labels


def fit(
    model: nn.Module,
    dataset: Dataset,
    *,
    epochs: int,
    batch_size: int = 128,
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    schedule: str | schedules.Schedule = "warmup_cosine",
    label_smoothing: float = 0.0,
    padding: int = 4,
    flip: bool = True,
    ema_decay: float | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    loss: Loss | None = None,
    penalty: Callable[[nn.Module], torch.Tensor] | None = None,
    before_epoch: Hook | None = None,
    after_step: Hook | None = None,
    after_epoch: Hook | None = None,
    evaluate_every: int = 1,
    resume_file: str | Path | None = None,
    seed: int = 0,
    on: runtime.Runtime | None = None,
    progress: bool = True,
) -> History:
    """Minimise the mean cross-entropy over the training images by stochastic gradient descent, in place.

    Args:
        model: Maps (N, C, H, W) float to logits (N, classes). It is changed in place and left in training mode; it is
            moved to the device for the time of the training, and back to where it was.
        dataset: Images and labels.
        epochs: Passes over the training images in all (those in the resume file count), at least 0.
        batch_size: Images a step; what is left over at an epoch's end is dropped.
        lr: Peak learning rate, which the schedule's factor multiplies.
        momentum: Nesterov momentum.
        weight_decay: L2 penalty on all parameters: each step adds weight_decay * w to the gradient.
        schedule: Name or function of the progress in [0, 1]; see `course_utils.schedules`.
        label_smoothing: In [0, 1): how much of the target goes to all classes equally.
        padding: Pixels of padding before the random crop; 0 for no crop.
        flip: Whether images are mirrored at random.
        ema_decay: Decay of a moving average of the weights. The averaged weights are those evaluated, and those
            that the model holds in the end. None for no average.
        optimizer: Used instead of Nesterov SGD; its own rates are the peak rates. Make a new one for each fit.
        loss: `loss(images, logits, labels)` is the scalar tensor to minimise in place of the mean cross-entropy; the
            images (B, C, H, W) are normalised and augmented. See `course_utils.distillation`.
        penalty: `penalty(model)` is a scalar tensor added to the loss (L1, group Lasso, ...).
        before_epoch: Called with the `TrainingState` before each epoch.
        after_step: Called with it after each optimiser step.
        after_epoch: Called with it after each epoch, when the history has the epoch's row.
        evaluate_every: Test accuracy is computed every so many epochs and after the last one; 0 for never.
        resume_file: The state is written there after each epoch, and read from there if the file exists. What hooks
            keep outside the model and the optimiser is not in it, and hooks, loss and penalty are not compared.
        seed: Shuffling, augmentation and the model's own randomness (dropout) follow from it.
        on: Device, precision and threads; `runtime.detect()` when None.
        progress: Whether to show a progress bar.

    Returns:
        The history, one entry an epoch.

    Raises:
        ValueError: If a number is out of range, label_smoothing is given beside a loss, the resume file belongs to
            other settings, or the schedule of a run with a resume file is a lambda, which cannot be told from another.
    """
    on = runtime.detect() if on is None else on
    if loss is not None and label_smoothing:
        raise ValueError(f"label_smoothing belongs to the cross-entropy, which loss replaces: got {label_smoothing}")
    described = schedules.describe(schedule)
    if resume_file is not None and "<lambda>" in described:
        raise ValueError(f"schedule must have a name where there is a resume_file, got {described}: use def")
    settings = Settings(
        epochs, batch_size, lr, momentum, weight_decay, described, label_smoothing, padding, flip, ema_decay,
        training_state.describe_optimizer(optimizer), seed, on.precision, dataset.name, len(dataset.train_labels),
    )  # fmt: skip
    runtime.keep_freed_memory()
    with runtime.on_device(model, on.device):
        if optimizer is None:
            optimizer = sgd(model, lr, momentum, weight_decay)
        hooks = _Hooks(loss, penalty, before_epoch, after_step, after_epoch)
        loop = _Loop(model, dataset.to(on.device), on, settings, schedules.resolve(schedule), optimizer, hooks)
        return loop.run(evaluate_every, resume_file, progress)


def sgd(model: nn.Module, lr: float, momentum: float = 0.9, weight_decay: float = 5e-4) -> torch.optim.SGD:
    """Build stochastic gradient descent with Nesterov momentum, fused into one kernel where torch can.

    Args:
        model: The model to train.
        lr: Peak learning rate.
        momentum: Momentum in [0, 1); 0 for plain gradient descent.
        weight_decay: L2 penalty on all parameters.

    Returns:
        The optimiser.
    """
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    return torch.optim.SGD(
        model.parameters(), lr, momentum, weight_decay=weight_decay, nesterov=momentum > 0, fused=fused
    )


@dataclass(frozen=True)
class _Hooks:
    loss: Loss | None
    penalty: Callable[[nn.Module], torch.Tensor] | None
    before_epoch: Hook | None
    after_step: Hook | None
    after_epoch: Hook | None

    def call(self, name: str, state: TrainingState) -> None:
        hook = getattr(self, name)
        if hook is not None:
            hook(state)


class _Loop:
    """The training loop of one `fit`."""

    def __init__(self, model, dataset, on, settings, schedule, optimizer, hooks):
        self.dataset, self.on, self.settings, self.schedule, self.hooks = dataset, on, settings, schedule, hooks
        self.forward = torch.compile(model) if on.compile else model
        self.peak_rates = [group["lr"] for group in optimizer.param_groups]
        self.average = None if settings.ema_decay is None else WeightAverage(model, settings.ema_decay)
        steps = max(1, settings.n_train // settings.batch_size)
        self.state = TrainingState(model, optimizer, settings.epochs, steps, History(runtime=on.describe()))

    def run(self, evaluate_every: int, resume_file: str | Path | None, progress: bool) -> History:
        """Train from the first epoch that is not in the resume file to the last."""
        state = self.state
        if resume_file is not None:
            training_state.resume(resume_file, self.settings, state, self.average)
        with self.progress_bar(progress) as bar:
            for epoch in range(len(state.history), state.epochs):
                state.epoch = epoch
                self.hooks.call("before_epoch", state)
                row = self.train_epoch(bar)
                state.history.append(**row, test_accuracy=self.test_accuracy(evaluate_every))
                bar.set_postfix_str(_summary(state.history))
                self.hooks.call("after_epoch", state)
                if resume_file is not None:
                    training_state.save(resume_file, self.settings, state, self.average)
        if self.average is not None:
            self.average.copy_to(state.model)
        return state.history

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the current epoch's batches: images (B, C, H, W) float32, augmented, and labels (B,)."""
        images, labels = self.dataset.split("train")
        settings, generator = self.settings, torch.Generator().manual_seed(self.seed())
        order = torch.randperm(len(labels), generator=generator)
        chosen = torch.stack(order.split(settings.batch_size)[: self.state.steps_per_epoch])
        offsets, mirrored = self.draw(*chosen.shape, generator)
        for index, offset, mirror in zip(*(t.to(images.device) for t in (chosen, offsets, mirrored)), strict=True):
            batch = augment.crop(images[index], settings.padding, offset) if settings.padding else images[index]
            batch = augment.mirror(batch, mirror) if settings.flip else batch
            yield augment.normalise(batch, self.dataset.mean, self.dataset.std), labels[index]

    def draw(self, n_batches: int, n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw an epoch's augmentation at once: offsets (batches, 2, n), mirrored (batches, n, 1, 1, 1).

        Each step's numbers would otherwise be copied to the device one by one, and each copy waits for the device.
        """
        offsets, mirrored = torch.zeros(n_batches, 2, n, dtype=torch.int64), torch.zeros(n_batches, n, 1, 1, 1).bool()
        for batch in range(n_batches):
            if self.settings.padding:
                offsets[batch] = augment.draw_offsets(n, self.settings.padding, generator)
            if self.settings.flip:
                mirrored[batch] = augment.draw_mirrors(n, generator)
        return offsets, mirrored

    def train_epoch(self, bar: tqdm) -> dict[str, float]:
        """Train for one epoch; return its row of the history, without the test accuracy."""
        state, start = self.state, time.perf_counter()
        loss_sum, accuracy_sum = torch.zeros(2, device=self.on.device)
        state.model.train()
        with torch.random.fork_rng():
            torch.manual_seed(self.seed())
            for images, labels in self.batches():
                self.step(images, labels)
                loss_sum += state.loss  # tensors on the device: no waiting for them at every step
                accuracy_sum += state.accuracy
                if bar.update(1):  # the bar has just been drawn: the next time it will show these
                    seen = state.step - state.epoch * state.steps_per_epoch
                    running = f"loss {loss_sum.item() / seen:.3f}, training accuracy {accuracy_sum.item() / seen:.4f}"
                    bar.set_postfix_str(running, refresh=False)
        return {
            "learning_rate": state.optimizer.param_groups[0]["lr"],
            "train_loss": loss_sum.item() / state.steps_per_epoch,
            "train_accuracy": accuracy_sum.item() / state.steps_per_epoch,
            "seconds": time.perf_counter() - start,
        }

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Take one optimiser step on a batch; `state` holds its loss and accuracy afterwards."""
        state, factor = self.state, self.schedule(self.state.progress)
        for group, peak in zip(state.optimizer.param_groups, self.peak_rates, strict=True):
            group["lr"] = peak * factor
        with self.on.autocast():
            logits = self.forward(images)
        loss = self.loss(images, logits.float(), labels)
        if self.hooks.penalty is not None:
            loss = loss + self.hooks.penalty(state.model)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        state.optimizer.step()
        state.step += 1
        state.loss, state.accuracy = loss.detach(), (logits.detach().argmax(1) == labels).float().mean()
        self.hooks.call("after_step", state)
        if self.average is not None:
            self.average.update(state.model)

    def loss(self, images: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """What is minimised, but for the penalty."""
        if self.hooks.loss is not None:
            return self.hooks.loss(images, logits, labels)
        return F.cross_entropy(logits, labels, label_smoothing=self.settings.label_smoothing)

    def test_accuracy(self, evaluate_every: int) -> float:
        """Evaluate on the test images if this epoch is one of those evaluated, else return NaN."""
        done = self.state.epoch + 1
        if not evaluate_every or (done % evaluate_every and done < self.state.epochs):
            return float("nan")
        averaged = contextlib.nullcontext() if self.average is None else self.average.applied(self.state.model)
        with averaged:
            return evaluate(self.state.model, self.dataset, on=self.on)

    def seed(self) -> int:
        return training_state.derived_seed(self.settings.seed, self.state.epoch)

    def progress_bar(self, shown: bool) -> tqdm:
        total = self.state.epochs * self.state.steps_per_epoch
        options = {"file": sys.stdout, "unit": "step", "mininterval": 0.5, "dynamic_ncols": True}
        return tqdm(total=total, initial=self.state.step, disable=not shown, **options)


def _summary(history: History) -> str:
    shown = f"loss {history.train_loss[-1]:.3f}, training accuracy {history.train_accuracy[-1]:.4f}"
    evaluated = not math.isnan(history.test_accuracy[-1])
    return f"{shown}, test accuracy {history.test_accuracy[-1]:.4f}" if evaluated else shown
