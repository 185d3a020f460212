"""From the records in results/ to docs/results.md and its pictures, and checking the packed networks again.

The page is built from the JSON files alone. A row whose experiment has not been run says so; nothing is filled in.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.progress import track

from course_admin.experiments.catalogue import Experiment, catalogue, record_name
from course_admin.experiments.pruning import METHODS_TABLE
from course_admin.experiments.runner import accuracy_of_file
from course_utils import checkpoints, plots
from course_utils.profiles import PROFILES

PUBLISHED_BASELINE = 0.9151  # Duke University, ECE 661 (2022), homework 4
TOLERANCE = 5e-4  # another processor's rounding may move a few images that lie on the border


@dataclass(frozen=True)
class Row:
    """An experiment with the records of its seeds, those that there are."""

    experiment: Experiment
    records: tuple[dict, ...]

    @property
    def accuracies(self) -> list[float]:
        """Final accuracy of each seed."""
        return [record["test_accuracy"] for record in self.records]


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
        if {"experiment", "profile", "test_accuracy", "history"} <= record.keys():
            return record
        reason = f"it has the keys {sorted(record)[:5]}"
    except (ValueError, AttributeError) as error:
        reason = str(error)
    raise ValueError(f"{path} is not a record of an experiment ({reason}); delete it and run the experiment again")


def build_page(folder: Path, page: Path) -> int:
    """Write docs/results.md and the pictures beside it.

    Args:
        folder: Where the records lie.
        page: The page to write; pictures go to a folder of its name.

    Returns:
        Number of experiments that have a record.
    """
    rows = read_rows(folder)
    pictures = page.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    start = f"resnet20_{PROFILES['full'].dataset}"
    machines = _machines(rows)
    text = [
        "# Published and measured\n",
        f"Every ResNet-20 starts from the checkpoint `{start}`: {checkpoints.read_record(start)['test_accuracy']:.4f}",
        f"(published baseline {PUBLISHED_BASELINE}).",
        "Test accuracy on CIFAR-10, of the packed file, after the last epoch; mean and range where several seeds ran.",
        "`published`: Duke University, ECE 661 (2022), homework 4; for the ConvNet a programming assignment of a",
        "course on machine-learning systems. `target`: what this course set out to reach. `difference`: measured minus",
        "published. LSQ: learned step sizes (Lab 3). The published quantizer of the sparse network erased the wrong",
        "weights; ours is repaired.",
        "The best epoch is chosen on the test images, as the published reports do; it is shown for comparison only, in",
        "the precision of training (from the last pruning on, where a network is pruned step by step).",
        "`minutes`: training alone, on a machine that was shared with other work.",
        "Built by `course results` from the records in `results/`; `course results --verify` evaluates the files.\n",
        *_verdict(rows),
        "Machines:\n",
        *(f"- {name}: {machine}" for machine, name in machines.items()),
        "",
    ]
    for table in dict.fromkeys(row.experiment.table for row in rows):
        members = [row for row in rows if row.experiment.table == table]
        text += [f"## {table}\n", *_table(members, machines), ""]
        trained = [row for row in members if row.records and row.records[0]["epochs"]]
        if trained:
            name = table.lower().replace(" ", "_").replace("%", "")
            _draw_histories(trained, pictures / f"{name}.png")
            text += [f"![Accuracy after each epoch: {table}]({pictures.name}/{name}.png)\n"]
        if table == METHODS_TABLE and any(row.records for row in members):
            _draw_curves(rows, pictures / "accuracy_against_sparsity.png")
            text += [f"![Accuracy against sparsity, by method]({pictures.name}/accuracy_against_sparsity.png)\n"]
    page.write_text("\n".join(text) + "\n", encoding="utf-8")
    return sum(bool(row.records) for row in rows)


def _machines(rows: list[Row]) -> dict[str, str]:
    """Give every machine and number format in the records a short name."""
    used = dict.fromkeys(_machine(record) for row in rows for record in row.records)
    return {machine: f"M{number}" for number, machine in enumerate(used, start=1)}


def _machine(record: dict) -> str:
    return record["ran_on"].split(", torch")[0]


def _verdict(rows: list[Row]) -> list[str]:
    """Say how many targets are reached, and name those that are missed or not tried yet."""
    aimed = [row for row in rows if row.experiment.target is not None]
    ran = [row for row in aimed if row.records]
    short = {row.experiment.name: row.experiment.target - statistics.mean(row.accuracies) for row in ran}
    missed = [f"- `{name}`: {by:.4f} below its target" for name, by in short.items() if by > 0]
    waiting = [f"`{row.experiment.name}`" for row in aimed if not row.records]
    lines = [f"**Of {len(aimed)} rows with a target {len(ran)} have run; {len(ran) - len(missed)} of them reach it.**"]
    lines += ["", "Missed:\n", *missed] if missed else []
    lines += ["", f"Not run yet: {', '.join(waiting)}."] if waiting else []
    return [*lines, ""]


def _table(rows: list[Row], machines: dict[str, str]) -> list[str]:
    lines = [
        "| experiment | published | target | measured | difference | best epoch | sparsity | bytes (dense / packed) "
        "| minutes | machine |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    return lines + [_line(row, machines) for row in rows]


def _line(row: Row, machines: dict[str, str]) -> str:
    experiment, records = row.experiment, row.records
    published = "-" if experiment.published is None else f"{experiment.published:.4f}"
    target = "-" if experiment.target is None else f"{experiment.target:.3f}"
    start = f"| {experiment.title} (`{experiment.name}`) | {published} | {target} |"
    if not records:
        return f"{start} not run yet | | | | | | |"
    mean = statistics.mean(row.accuracies)
    measured = f"{mean:.4f}"
    if len(records) > 1:
        measured += f" ({min(row.accuracies):.4f} to {max(row.accuracies):.4f}, {len(records)} seeds)"
    difference = "-" if experiment.published is None else f"{mean - experiment.published:+.4f}"
    first, best = records[0], statistics.mean(record["best_epoch_test_accuracy"] for record in records)
    size = f"{first['packed_bytes']} ({first['dense_bytes'] / first['packed_bytes']:.1f})"
    minutes = f"{first['training_seconds'] / 60:.0f}" if first["epochs"] else "-"
    return (
        f"{start} {measured} | {difference} | {best:.4f} | {first['sparsity']:.3f} | "
        f"{size} | {minutes} | {machines[_machine(first)]} |"
    )


def _draw_histories(rows: list[Row], path: Path) -> None:
    """Draw test accuracy after each epoch, one line an experiment, the published number as a mark at the end."""
    figure, axes = _canvas()
    n_styles = len(rcParams["axes.prop_cycle"])
    for number, row in enumerate(rows):
        record = row.records[0]
        marker = "" if number < n_styles else "o"  # the styles of lines start again
        epochs = range(1, len(record["history"]["test_accuracy"]) + 1)
        (line,) = axes.plot(epochs, record["history"]["test_accuracy"], marker=marker, ms=4, label=row.experiment.name)
        if row.experiment.published is not None:
            axes.plot(len(epochs), row.experiment.published, "x", color=line.get_color())
    axes.locator_params(axis="x", integer=True)
    axes.set(xlabel="epoch", title="Accuracy after each epoch; crosses are the published final numbers")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)


def _draw_curves(rows: list[Row], path: Path) -> None:
    """Draw accuracy against sparsity, one line a method, and the accuracy that all of them started from."""
    figure, axes = _canvas()
    measured = [row for row in rows if row.experiment.curve and row.records]
    for curve in dict.fromkeys(row.experiment.curve for row in measured):
        members = [row for row in measured if row.experiment.curve == curve]
        points = sorted((row.records[0]["sparsity"], statistics.mean(row.accuracies)) for row in members)
        axes.plot(*zip(*points, strict=True), "o-", label=curve)
    dense = checkpoints.read_record(measured[0].records[0]["starts_from"])["test_accuracy"]
    axes.axhline(dense, color="gray", linestyle=":", label=f"dense, {dense:.4f}")
    axes.set(xlabel="sparsity", title="Accuracy against sparsity, by method")
    axes.legend(fontsize="small", loc="lower left")
    figure.savefig(path, dpi=110)


def _canvas() -> tuple[Figure, Axes]:
    """Make an empty picture of test accuracy in the course's style, outside pyplot, which would want a screen."""
    plots.use_course_style()
    figure = Figure(figsize=(8, 4.5))
    axes = figure.subplots()
    axes.set(ylabel="test accuracy")
    return figure, axes


def verify(folder: Path, *, progress: bool = False) -> list[str]:
    """Evaluate every packed network again and compare with its record.

    Args:
        folder: Where records and networks lie.
        progress: Whether to show a progress bar.

    Returns:
        One sentence for each file that is missing or whose accuracy differs by more than 0.0005; empty when all agree.

    Raises:
        MissingData: If the data set is not there.
    """
    problems = []
    for path in track(sorted(folder.glob("*.json")), "evaluating packed networks", disable=not progress):
        record = read_record(path)
        profile, packed = PROFILES[record["profile"]], path.with_suffix(".safetensors")
        if not packed.is_file():
            problems.append(f"{packed} is missing; run: course experiment {record['experiment']}")
            continue
        accuracy = accuracy_of_file(packed, profile, profile.load_dataset(), record.get("network", "resnet20"))
        if abs(accuracy - record["test_accuracy"]) > TOLERANCE:
            problems.append(f"{packed}: accuracy {accuracy:.4f}, its record says {record['test_accuracy']:.4f}")
    return problems
