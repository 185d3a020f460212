"""Running one experiment: train, resume after any epoch, pack the result, measure what was packed, write the record.

results/NAME.json           seed 0; other seeds are NAME.seed1.json, ...; the quick profile's are NAME.quick.json
results/NAME.safetensors    the network as it was packed: zeros take (almost) no room
results/.state/             unfinished runs; each goes on after its last complete epoch (not tracked by git)

The final accuracy is that of the packed file, read back into a fresh network, in fp32, on all test images, after the
last epoch. The best epoch's accuracy stands beside it, because published reports give it; it is chosen on the test
images and is no estimate of anything. Where a network is pruned step by step, epochs before the last step do not count.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from course_admin.experiments import convnet
from course_admin.experiments.catalogue import Experiment, Job, Setting, record_name
from course_utils import packing, runtime, schedules, training
from course_utils.accounting import layer_sparsity, total_sparsity
from course_utils.data import Dataset
from course_utils.files import replacing
from course_utils.profiles import Profile

EPOCHS = {"quick": 2}  # in the full profile the experiment says how many
MOMENTUM = 0.9


def run(
    experiment: Experiment,
    profile: Profile,
    folder: Path,
    *,
    seed: int = 0,
    precision: str = "auto",
    compile: bool = False,
    progress: bool = True,
) -> Path:
    """Run an experiment, or what is left of it, and write its record.

    Args:
        experiment: One of the catalogue.
        profile: `full` is the published setting; `quick` only tries the machinery out, and its record says so.
        folder: Where records lie, for example results/.
        seed: Seed of shuffling and augmentation.
        precision: `"auto"`, `"bf16"` or `"fp32"`.
        compile: Whether to fuse operations with torch.compile.
        progress: Whether to show a progress bar.

    Returns:
        The record's path.
    """
    stem = record_name(experiment.name, seed, profile.name)
    state_file = folder / ".state" / f"{stem}.pt"
    state_file.parent.mkdir(parents=True, exist_ok=True)
    dataset = profile.load_dataset()
    on = runtime.detect(precision=precision, compile=compile)
    epochs = EPOCHS.get(profile.name, experiment.epochs)
    job = experiment.prepare(Setting(profile, epochs, seed, folder, experiment.restarted))
    before = training.evaluate(job.model, dataset, on=on)
    job.model.to(memory_format=torch.channels_last)
    history = training.fit(
        job.model, dataset, epochs=job.epochs, lr=job.lr, schedule=job.schedule, batch_size=profile.batch_size,
        padding=profile.padding, seed=seed, on=on, resume_file=state_file if job.epochs else None, progress=progress,
        momentum=MOMENTUM, weight_decay=job.weight_decay, **job.hooks,
    )  # fmt: skip
    packed = folder / f"{stem}.safetensors"
    result = job.finish(job.model) if job.finish is not None else job.model.cpu()
    size_bytes = packing.save_packed(result, packed, job.layout)
    record = {
        **_configuration(experiment, job, profile, seed, history.runtime),
        "accuracy_before_training": before,
        **_final_numbers(
            result, accuracy_of_file(packed, profile, dataset, experiment.network), history, job.pruned_by
        ),
        "packed_bytes": size_bytes,
        "dense_bytes": packing.size_on_disk(result),
        "training_seconds": round(sum(history.seconds), 1),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "history": {key: value for key, value in asdict(history).items() if key != "runtime"},
    }
    path = folder / f"{stem}.json"
    with replacing(path) as part:
        part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    state_file.unlink(missing_ok=True)
    return path


def _configuration(experiment: Experiment, job: Job, profile: Profile, seed: int, ran_on: str) -> dict:
    return {
        "experiment": experiment.name,
        "table": experiment.table,
        "title": experiment.title,
        "published": experiment.published,
        "target": experiment.target,
        "profile": profile.name,
        "dataset": profile.dataset,
        "network": experiment.network,
        "starts_from": experiment.starts_from(profile),
        "method": describe_method(experiment.prepare),
        "epochs": job.epochs,
        **(_recipe(job, profile) if job.epochs else {}),
        "seed": seed,
        "layout": job.layout,
        "ran_on": ran_on,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def describe_method(prepare: Callable[[Setting], Job]) -> dict[str, Any]:
    """Say what an experiment does to its network: the function that prepares it, with its arguments.

    Args:
        prepare: Of an experiment of the catalogue.

    Returns:
        `{"function": "one_shot", "prune": "prune_by_percentage", "sparsity": 0.8, ...}`, for a record.
    """
    arguments = prepare.keywords if isinstance(prepare, partial) else {}
    function = prepare.func if isinstance(prepare, partial) else prepare
    plain = {name: schedules.describe(value) if callable(value) else value for name, value in arguments.items()}
    return {"function": function.__name__, **plain}


def _recipe(job: Job, profile: Profile) -> dict:
    """How a network was trained."""
    return {
        "lr": job.lr,
        "schedule": schedules.describe(job.schedule),
        "momentum": MOMENTUM,
        "weight_decay": job.weight_decay,
        "batch_size": profile.batch_size,
        "padding": profile.padding,
        "flip": True,
    }


def _final_numbers(result: nn.Module, accuracy: float, history: training.History, pruned_by: int) -> dict:
    """The file's accuracy, and the best epoch's of those in which the network was already pruned as far as the file."""
    epochs = [value for value in history.test_accuracy[pruned_by - 1 :] if not math.isnan(value)]
    return {
        "test_accuracy": accuracy,
        "test_accuracy_is": "of the packed file, after the last epoch, all test images of the profile, fp32",
        "best_epoch_test_accuracy": max(epochs, default=None),
        "sparsity": total_sparsity(result),
        "layer_sparsity": {name: round(value, 4) for name, value in layer_sparsity(result).items()},
    }


def accuracy_of_file(packed: Path, profile: Profile, dataset: Dataset, network: str = "resnet20") -> float:
    """Read a packed network into a fresh one and evaluate it in fp32 on the CPU.

    Args:
        packed: A file that `packing.save_packed` wrote.
        profile: The profile that it was trained in.
        dataset: The profile's data.
        network: Which network it is: `"resnet20"` or `"convnet"`.

    Returns:
        Test accuracy, in [0, 1].
    """
    fresh = convnet.network(dataset, profile) if network == "convnet" else profile.load_resnet20()
    model = packing.load_packed(fresh, packed).eval()
    return training.evaluate(model, dataset, on=runtime.detect("cpu", precision="fp32"))
