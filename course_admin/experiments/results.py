"""The records of experiments: read, checked for what they should hold, and their packed networks evaluated again."""

from __future__ import annotations

import functools
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.progress import track

from course_admin.experiments.catalogue import Experiment, catalogue, command, record_name
from course_admin.experiments.runner import accuracy_of_file
from course_utils.data import Dataset
from course_utils.data_files import DamagedData
from course_utils.profiles import PROFILES

TOLERANCE = 5e-4  # another processor's rounding may move a few images that lie on the border
KEYS = {
    "experiment", "profile", "seed", "epochs", "ran_on", "starts_from", "accuracy_before_training", "test_accuracy",
    "best_epoch_test_accuracy", "sparsity", "layer_sparsity", "packed_bytes", "dense_bytes", "training_seconds",
    "history",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """An experiment with the records of its seeds, those that there are."""

    experiment: Experiment
    records: tuple[dict, ...]

    @property
    def accuracies(self) -> list[float]:
        """Final accuracy of each seed."""
        return [record["test_accuracy"] for record in self.records]

    @property
    def accuracy(self) -> float:
        """Mean over the seeds."""
        return statistics.mean(self.accuracies)

    @property
    def surplus(self) -> float:
        """How far the mean lies above the target; what is too small for the four decimals that are shown is nothing."""
        return round(self.accuracy - self.experiment.target, 6)

    @property
    def reaches(self) -> bool:
        """Whether it has run and has the accuracy that it is to have."""
        return bool(self.records) and self.surplus >= 0


def read_rows(folder: Path) -> list[Row]:
    """Read the records of all experiments in the full profile.

    Args:
        folder: Where they lie.

    Returns:
        One row an experiment, in the catalogue's order.

    Raises:
        ValueError: If a file is not a record.
    """
    rows = []
    for experiment in catalogue().values():
        paths = [folder / f"{record_name(experiment.name, seed)}.json" for seed in experiment.seeds]
        records = [read_record(path) for path in paths if path.is_file()]
        rows.append(Row(experiment, tuple(record for record in records if record["profile"] == "full")))
    return rows


def read_record(path: Path) -> dict:
    """Read one record.

    Args:
        path: Its file.

    Returns:
        Its content.

    Raises:
        ValueError: If the file is not one; the message names it.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        missing = sorted(KEYS - record.keys())
        reason = f"it has no {', '.join(missing)}"
        if not missing and record["profile"] in PROFILES:
            return record
        if not missing:
            reason = f"its profile must be one of {sorted(PROFILES)}, got {record['profile']!r}"
    except (ValueError, AttributeError) as error:
        reason = str(error)
    raise ValueError(f"{path} is not a record of an experiment ({reason}); delete it and run the experiment again")


def verify(folder: Path, *, progress: bool = False) -> list[str]:
    """Evaluate every packed network again and compare with its record.

    Args:
        folder: Where records and networks lie.
        progress: Whether to show a progress bar.

    Returns:
        One sentence for each file that is missing, damaged, or whose accuracy differs by more than 0.0005, with the
        command that makes it anew; empty when all agree.

    Raises:
        MissingData: If the data set is not there.
        ValueError: If a file is not a record.
    """
    problems = []
    load = functools.cache(lambda profile: PROFILES[profile].load_dataset())  # once for all its networks
    for path in track(sorted(folder.glob("*.json")), "evaluating packed networks", disable=not progress):
        record = read_record(path)
        problem = _problem(record, path.with_suffix(".safetensors"), load)
        if problem:
            options = {"profile": record["profile"], "seed": record["seed"], "folder": folder, "force": True}
            problems.append(f"{problem}; to make it anew: {command(record['experiment'], **options)}")
    return problems


def _problem(record: dict, packed: Path, load: Callable[[str], Dataset]) -> str:
    """What is wrong with a packed network; "" if it is what its record says."""
    if not packed.is_file():
        return f"{packed} is missing"
    profile, dataset = PROFILES[record["profile"]], load(record["profile"])
    try:
        accuracy = accuracy_of_file(packed, profile, dataset, record.get("network", "resnet20"))
    except (DamagedData, RuntimeError, KeyError) as error:
        return f"{packed} cannot be read ({error})"
    if abs(accuracy - record["test_accuracy"]) > TOLERANCE:
        return f"{packed} has an accuracy of {accuracy:.4f}, its record says {record['test_accuracy']:.4f}"
    return ""
