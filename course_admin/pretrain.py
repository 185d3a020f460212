"""Make the checkpoints that come with the course: `course pretrain NAME`.

Each recipe is written down here in full; the language model's is in `course_admin.pretrain_language`. A run can be
interrupted at any time and started again with the same command; it goes on after its last complete epoch. When it is
through, it writes `NAME.safetensors` and, beside it, `NAME.json` with the recipe, the seed, the versions, the machine
and the accuracy after the last epoch (no epoch is chosen by its test accuracy).

A recipe with `starts_from` goes on from another checkpoint. `resnet20_cifar10_restarted` is a warm restart (Loshchilov
and Hutter, SGDR, 2017) of `resnet20_cifar10` with twice the weight decay: four thousandths less accurate, and at 60 %
per layer, without finetuning, far less hurt by pruning. Accuracy and tolerance of pruning are two properties.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import torch

from course_admin.pretrain_language import LANGUAGE_RECIPES, pretrain_language
from course_admin.provenance import provenance
from course_utils import checkpoints, data, data_files, runtime, training
from course_utils.resnet import resnet20

RECIPES: dict[str, dict] = {
    "resnet20_fashion_mnist": {
        "epochs": 24,
        "batch_size": 128,
        "lr": 0.15,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "schedule": "one_cycle",
        "label_smoothing": 0.0,
        "padding": 2,
        "flip": True,
        "seed": 0,
    },
    "resnet20_cifar10": {
        "epochs": 80,
        "batch_size": 128,
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "schedule": "warmup_cosine",
        "label_smoothing": 0.0,
        "padding": 4,
        "flip": True,
        "seed": 0,
    },
    "resnet20_cifar10_restarted": {
        "starts_from": "resnet20_cifar10",
        "epochs": 15,
        "batch_size": 128,
        "lr": 0.05,
        "momentum": 0.9,
        "weight_decay": 1e-3,
        "schedule": "cosine",
        "label_smoothing": 0.0,
        "padding": 4,
        "flip": True,
        "seed": 1,
    },
}
NAMES = sorted(RECIPES | LANGUAGE_RECIPES)


def pretrain(
    name: str,
    *,
    out_folder: str | Path | None = None,
    state_folder: str | Path | None = None,
    precision: str = "auto",
    compile: bool = False,
    progress: bool = True,
) -> Path:
    """Train the checkpoint of that name, resuming where an earlier run stopped, and write it with its record.

    Args:
        name: One of `NAMES`.
        out_folder: Where the two files go; the course's checkpoint folder when None.
        state_folder: Where the unfinished run's state and log lie; `pretrain/` in the cache folder when None.
        precision: `"auto"`, `"bf16"` or `"fp32"`.
        compile: Whether to fuse operations with `torch.compile` (needs a C++ compiler on a CPU).
        progress: Whether to show a progress bar; the log is written in any case.

    Returns:
        The path of the weights.

    Raises:
        ValueError: If there is no recipe of that name.
    """
    if name not in NAMES:
        raise ValueError(f"name must be one of {NAMES}, got {name!r}")
    out_folder = Path(out_folder or checkpoints.checkpoint_folder())
    state_folder = Path(state_folder or data_files.cache_folder() / "pretrain")
    state_folder.mkdir(parents=True, exist_ok=True)
    out_folder.mkdir(parents=True, exist_ok=True)
    if name in LANGUAGE_RECIPES:
        return pretrain_language(name, out_folder, state_folder, precision, progress)
    recipe = dict(RECIPES[name])
    start = recipe.pop("starts_from", None)
    dataset_name = name.removeprefix("resnet20_").removesuffix("_restarted")
    on = runtime.detect(precision=precision, compile=compile)
    dataset = data.load(dataset_name)
    runtime.seed_everything(recipe["seed"])
    model = resnet20(in_channels=dataset.n_channels, num_classes=dataset.n_classes)
    if start is not None:
        checkpoints.load_weights(model, checkpoints.checkpoint_folder() / f"{start}.safetensors")
    model.to(memory_format=torch.channels_last)  # same numbers, faster convolutions
    state_file = state_folder / f"{name}.pt"
    log = _logger(state_folder / f"{name}.log")
    history = training.fit(model, dataset, on=on, after_epoch=log, resume_file=state_file, progress=progress, **recipe)
    path = out_folder / f"{name}.safetensors"
    checkpoints.save_weights(model, path)
    record = _record(name, path, dataset, on, history)
    path.with_suffix(".json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    state_file.unlink(missing_ok=True)  # the run is through; the same command would start a new one
    return path


def _logger(path: Path):
    """Return a hook that appends one line an epoch to a log file."""

    def log(state: training.TrainingState) -> None:
        h = state.history
        line = (
            f"{datetime.now(UTC):%H:%M:%S} epoch {len(h):3d}/{state.epochs} lr {h.learning_rate[-1]:.4f} "
            f"loss {h.train_loss[-1]:.4f} train {h.train_accuracy[-1]:.4f} test {h.test_accuracy[-1]:.4f} "
            f"{h.seconds[-1]:.1f} s\n"
        )
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(line)

    return log


def _record(name: str, path: Path, dataset: data.Dataset, on: runtime.Runtime, history: training.History) -> dict:
    """Measure the model as it was written (on the CPU, in fp32) and describe how it was made."""
    saved = checkpoints.load_weights(resnet20(dataset.n_channels, dataset.n_classes), path)
    fp32 = runtime.detect(device="cpu", precision="fp32")
    return {
        "name": name,
        "model": "course_utils.resnet.resnet20",
        "command": f"course pretrain {name}" + (" --compile" if on.compile else ""),
        "dataset": dataset.name,
        "n_train": len(dataset.train_labels),
        "n_test": len(dataset.test_labels),
        "recipe": RECIPES[name],
        "test_accuracy": training.evaluate(saved, dataset, on=fp32),
        "test_accuracy_is": "after the last epoch, all test images, fp32; no epoch was chosen by it",
        **provenance(path, history),
    }
