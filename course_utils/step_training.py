"""Training by steps instead of epochs, with AdamW: for sequence models, whose batches are drawn at random.

`fit_steps` is told how to draw a batch and compute its loss, and nothing else about the task, so that the same loop
trains an encoder-decoder on made-up sequences, a language model on a text, and adapters inside a frozen model. As in
`course_utils.training`, all randomness comes from (seed, step): a run that was interrupted and started again with its
resume file computes what an uninterrupted one computes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from course_utils import checkpoints, runtime, schedules, training_state
from course_utils.validate import check_count, check_nonnegative, check_positive

BatchLoss = Callable[[nn.Module, torch.Generator], torch.Tensor]


@dataclass
class StepHistory:
    """What happened, in rows of some steps each; lists of equal length.

    Attributes:
        step: Number of steps done at the end of the row.
        loss: Mean training loss over the row's steps.
        learning_rate: Rate at the row's last step.
        seconds: Wall time of the row's steps, in seconds.
        runtime: Device, precision and threads, as one line.
    """

    step: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    runtime: str = ""


def fit_steps(
    model: nn.Module,
    batch_loss: BatchLoss,
    *,
    steps: int,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    betas: tuple[float, float] = (0.9, 0.98),
    schedule: str | schedules.Schedule = "warmup_cosine",
    clip: float = 1.0,
    after_step: Callable[[nn.Module], object] | None = None,
    row_steps: int = 50,
    resume_file: str | Path | None = None,
    seed: int = 0,
    on: runtime.Runtime | None = None,
    progress: bool = True,
    label: str = "training",
) -> StepHistory:
    """Minimise a loss over random batches with AdamW, in place; only parameters that require gradients change.

    Args:
        model: Any module. It is moved to the device and changed in place; it ends in evaluation mode.
        batch_loss: `batch_loss(model, generator)` draws a batch with the generator and returns its mean loss, a scalar.
        steps: Optimiser steps in all (those in the resume file count), at least 0.
        lr: Peak learning rate, which the schedule's factor multiplies.
        weight_decay: Decoupled weight decay of all parameters that are trained.
        betas: AdamW's averaging constants.
        schedule: Name or function of the progress in [0, 1]; see `course_utils.schedules`.
        clip: Largest allowed norm of the gradient; 0 for no limit.
        after_step: Called with the model after each step, for example to set pruned weights back to zero.
        row_steps: Steps in a row of the history.
        resume_file: The state is written there after each row, and read from there if the file exists.
        seed: The batches and the model's own randomness (dropout) follow from it.
        on: Device, precision and threads; `runtime.detect()` when None.
        progress: Whether to show a progress bar.
        label: Its title.

    Returns:
        The history.

    Raises:
        ValueError: If a number is out of range, no parameter requires a gradient, or the resume file belongs to another
            run.
    """
    check_count("steps", steps)
    check_count("row_steps", row_steps, minimum=1)
    check_positive("lr", lr)
    check_nonnegative("weight_decay", weight_decay)
    check_nonnegative("clip", clip)
    on = runtime.detect() if on is None else on
    runtime.keep_freed_memory()
    parameters = [parameter for parameter in model.to(on.device).parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError(f"model must have parameters that require gradients, got a {type(model).__name__} without any")
    optimizer = torch.optim.AdamW(parameters, lr, betas, weight_decay=weight_decay)
    settings = {
        "steps": steps, "lr": lr, "weight_decay": weight_decay, "betas": betas, "clip": clip, "row_steps": row_steps,
        "schedule": schedules.describe(schedule), "seed": seed, "precision": on.precision,
    }  # fmt: skip
    loop = _StepLoop(model, batch_loss, optimizer, on, settings, schedules.resolve(schedule))
    return loop.run(resume_file, after_step, progress, label)


class _StepLoop:
    """The loop of one `fit_steps`."""

    def __init__(self, model, batch_loss, optimizer, on, settings, schedule):
        self.model, self.batch_loss, self.optimizer, self.on = model, batch_loss, optimizer, on
        self.settings, self.schedule = settings, schedule
        self.history = StepHistory(runtime=on.describe())
        self.done = 0

    def run(self, resume_file, after_step, progress: bool, label: str) -> StepHistory:
        """Go from the first step that is not in the resume file to the last, row by row."""
        if resume_file is not None and Path(resume_file).exists():
            self.resume(resume_file)
        options = {"file": sys.stdout, "unit": "step", "mininterval": 0.5, "dynamic_ncols": True, "desc": label}
        self.model.train()
        with tqdm(total=self.settings["steps"], initial=self.done, disable=not progress, **options) as bar:
            while self.done < self.settings["steps"]:
                self.row(after_step, bar)
                bar.set_postfix_str(f"loss {self.history.loss[-1]:.3f}")
                if resume_file is not None:
                    self.save(resume_file)
        self.model.eval()
        return self.history

    def row(self, after_step, bar: tqdm) -> None:
        """Take the steps of one row and append it to the history."""
        start, n_steps = time.perf_counter(), min(self.settings["row_steps"], self.settings["steps"] - self.done)
        total = torch.zeros((), device=self.on.device)
        with torch.random.fork_rng():
            for _ in range(n_steps):
                total += self.step()
                if after_step is not None:
                    after_step(self.model)
                bar.update(1)
        self.history.step.append(self.done)
        self.history.loss.append(total.item() / n_steps)
        self.history.learning_rate.append(self.optimizer.param_groups[0]["lr"])
        self.history.seconds.append(time.perf_counter() - start)

    def step(self) -> torch.Tensor:
        """Take one optimiser step; return its loss, detached."""
        settings = self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = settings["lr"] * self.schedule((self.done + 0.5) / settings["steps"])
        seed = training_state.derived_seed(settings["seed"], self.done)
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # for the model's own randomness (dropout)
        with self.on.autocast():
            loss = self.batch_loss(self.model, generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if settings["clip"]:
            nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], settings["clip"])
        self.optimizer.step()
        self.done += 1
        return loss.detach()

    def save(self, path: str | Path) -> None:
        content = {"settings": self.settings, "done": self.done, "history": asdict(self.history)}
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        checkpoints.save_state(path, content | state)

    def resume(self, path: str | Path) -> None:
        content = checkpoints.load_state(path, map_location=self.on.device)
        training_state.check_settings(path, content["settings"], self.settings)
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.history = StepHistory(**{**content["history"], "runtime": self.history.runtime})
        self.done = content["done"]
