"""docs/results.md: what was aimed at and what was measured, from the records of the experiments.

The measured numbers come from the records alone. Titles, published numbers and targets are the catalogue's; a record
keeps copies of them.
"""

from __future__ import annotations

import re
import statistics
from dataclasses import dataclass
from pathlib import Path

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_admin.experiments import convnet, pruning, quantization
from course_admin.experiments.results import Row, read_rows
from course_utils import checkpoints, plots
from course_utils.profiles import PROFILES

PUBLISHED_BASELINE = 0.9151  # Duke University, ECE 661 (2022), homework 4
INTRODUCTION = """\
Test accuracy on the 10 000 test images of CIFAR-10, after the last epoch, of the **packed** file: the network as it
was written without its zeros, or with few bits, and read back. Every ResNet-20 starts from the checkpoint
`{start}` ({accuracy:.4f}) unless its table says otherwise. What is published about ResNet-20 comes
from Duke University, ECE 661 (2022), homework 4, with a baseline of {baseline}; about the ConvNet, from a programming
assignment of a course on machine-learning systems. Left out: that assignment's small network for digits (8 and 4
bits; another data set) and its LoRA runs (Lab 5; no numbers are published).

There is no validation set: variants of a method were compared on the test images, so the best of several is a little
lucky. Rows with three seeds show how much.

`course experiment NAME` runs a row, `course results` builds this page from the records in `results/`, and `course
results --verify` evaluates the packed files again.
"""
COLUMNS = """\
*Difference*: measured minus published. *Before*: accuracy before the first epoch, of the network already pruned or
rounded where that comes first. *Best epoch*: chosen on the test images, as the published reports do, in the precision
of training, from the last pruning on; for comparison only. *Sparsity*: of all weights, and of the layers that lost
least and most. *Bytes*: of the packed file, and how many times smaller it is than the dense one. *Minutes*: of
training, on a machine that was shared with other work. All but the accuracies are those of the first seed.
"""
NOTES = {
    pruning.TABLE: """\
*One shot*: all at once. *Statistics measured anew*: batch norm's means and variances belong to the pruned network; no
weight is trained, and the published number beside it is of pruning without this. *Restarted*: the checkpoint was
trained on with twice the weight decay ({restarted}), with these rows in view, on the same test images. With one
threshold, step by step, the published layers have sparsities from 0.16 (classifier) to 0.98 (last convolution).
""",
    pruning.METHODS_TABLE: """\
After the mini project of CMU 10-605, which has another network, other data and about 300 epochs of retraining, so that
no number stands beside these: its dense network has 0.7671, its best sparse one about 0.74 at more than 96 %. Two of
the four methods, per layer and global without retraining, are shown with old and with new statistics.
""",
    quantization.TABLE: """\
First convolution and classifier stay float. The published quantizer has one grid for each *layer*, between its
smallest and its largest weight; rows with a grid for each *channel* stand beside the same published numbers. LSQ:
learned step sizes (Lab 3).
""",
    quantization.SPARSE_TABLE: """\
These start from `iterative_global_80` and keep its zeros. The published quantizer erased the surviving weights instead
of the pruned ones, hence its accuracies before training (0.1000, 0.1015 and 0.1090 with 4, 3 and 2 bits) and what came
after; ours is repaired.
""",
    convnet.TABLE: """\
Six convolutions, Lab 4's in the full profile. Convolutions lose half of their weights, the classifier none, so that the
sparsity of all weights is 0.483. Filters are set to zero, not cut out: cut, the file would be smaller still (Lab 4).
""",
}


def build_page(folder: Path, page: Path) -> int:
    """Write docs/results.md and the pictures beside it.

    Args:
        folder: Where the records lie.
        page: The page to write; pictures go to a folder of its name.

    Returns:
        Number of experiments that have a record.

    Raises:
        ValueError: If a file is not a record.
    """
    rows = read_rows(folder)
    pictures = page.with_suffix("")
    pictures.mkdir(parents=True, exist_ok=True)
    machines = _machines(rows)
    text = ["# Published and measured\n", _introduction(), *_verdict(rows), "## All rows\n", COLUMNS]
    text += ["Machines:\n", *(f"- {name}: {machine}" for machine, name in machines.items()), ""]
    for table in dict.fromkeys(row.experiment.table for row in rows):
        members = [row for row in rows if row.experiment.table == table]
        text += [f"### {table}\n", *_notes(table), *_table(members, machines), ""]
        trained = [row for row in members if row.records and row.records[0]["epochs"]]
        if trained:
            name = table.lower().replace(",", "").replace(" ", "_").replace("%", "")
            _draw_histories(trained, pictures / f"{name}.png")
            text += [f"![Accuracy after each epoch: {table}]({pictures.name}/{name}.png)\n"]
        if table == pruning.METHODS_TABLE and any(row.records for row in members):
            _draw_curves(rows, pictures / "accuracy_against_sparsity.png")
            text += [f"![Accuracy against sparsity, by method]({pictures.name}/accuracy_against_sparsity.png)\n"]
    page.write_text("\n".join(text) + "\n", encoding="utf-8")
    return sum(bool(row.records) for row in rows)


def _start(suffix: str = "") -> tuple[str, float]:
    """Name and accuracy of the checkpoint that rows start from."""
    name = f"resnet20_{PROFILES['full'].dataset}{suffix}"
    return name, checkpoints.read_record(name)["test_accuracy"]


def _introduction() -> str:
    name, accuracy = _start()
    return INTRODUCTION.format(start=name, accuracy=accuracy, baseline=PUBLISHED_BASELINE)


def _notes(table: str) -> list[str]:
    return [NOTES[table].format(restarted=f"{_start('_restarted')[1]:.4f}")] if table in NOTES else []


def _machines(rows: list[Row]) -> dict[str, str]:
    """Give every machine and number format in the records a short name."""
    used = dict.fromkeys(_machine(record) for row in rows for record in row.records)
    return {machine: f"M{number}" for number, machine in enumerate(used, start=1)}


def _machine(record: dict) -> str:
    """A record's machine, format and torch; how many threads feed a GPU says nothing."""
    ran_on = record["ran_on"].replace(" 1 threads", " 1 thread")
    return re.sub(r", \d+ threads?", "", ran_on) if ran_on.startswith("cuda") else ran_on


@dataclass(frozen=True)
class Aim:
    """What one or several rows try to reach; those with a published number of their own come first."""

    words: str
    rows: tuple[Row, ...]

    @property
    def reached(self) -> bool:
        return any(row.reaches for row in self.rows)

    @property
    def best(self) -> Row | None:
        """The first row that reaches its target, else the one that comes nearest; None if none has run."""
        reaching = [row for row in self.rows if row.reaches]
        return reaching[0] if reaching else max(self.ran, key=lambda row: row.surplus, default=None)

    @property
    def ran(self) -> list[Row]:
        return [row for row in self.rows if row.records]


def _aims(rows: list[Row]) -> list[Aim]:
    by_words: dict[str, list[Row]] = {}
    for row in rows:
        if row.experiment.target is not None:
            by_words.setdefault(row.experiment.aim or row.experiment.title, []).append(row)
    return [
        Aim(words, tuple(sorted(members, key=lambda row: row.experiment.published is None)))
        for words, members in by_words.items()
    ]


def _verdict(rows: list[Row]) -> list[str]:
    """Say which aims are reached and by which row, and of the missed ones what was tried."""
    aims = _aims(rows)
    n_reached = sum(aim.reached for aim in aims)
    lines = [f"**Of {len(aims)} aims {n_reached} are reached,** each by the row that is named.\n"]
    lines += ["| aim | published | target | measured | row | |", "|---|---|---|---|---|---|"]
    lines += [f"| {' | '.join(_aim_cells(aim))} |" for aim in aims]
    missed = [f"- {aim.words}: {'; '.join(map(_attempt, aim.rows))}." for aim in aims if aim.ran and not aim.reached]
    return [*lines, "", *(["Missed, with all that was tried:\n", *missed, ""] if missed else [])]


def _aim_cells(aim: Aim) -> list[str]:
    row = aim.best or aim.rows[0]
    start = [aim.words, _number(aim.rows[0].experiment.published), _number(row.experiment.target)]
    if aim.best is None:
        return [*start, "not run yet", "", ""]
    return [*start, _measured(row), f"`{row.experiment.name}`", "reached" if aim.reached else "**missed**"]


def _attempt(row: Row) -> str:
    if not row.records:
        return f"`{row.experiment.name}` has not run yet"
    return f"`{row.experiment.name}` {_measured(row)}, {-row.surplus:.4f} below {row.experiment.target:.4f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _measured(row: Row) -> str:
    """Mean over the seeds, with the range where there are several."""
    spread = f" ({min(row.accuracies):.4f} to {max(row.accuracies):.4f}, {len(row.records)} seeds)"
    return f"{row.accuracy:.4f}" + spread * (len(row.records) > 1)


def _table(rows: list[Row], machines: dict[str, str]) -> list[str]:
    columns = (
        "experiment", "published", "target", "measured", "difference", "before", "best epoch", "sparsity", "bytes",
        "minutes", "machine",
    )  # fmt: skip
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *(_line(row, machines) for row in rows)]


def _line(row: Row, machines: dict[str, str]) -> str:
    experiment, records = row.experiment, row.records
    name = f"{experiment.title} (`{experiment.name}`)"
    start = [name, _number(experiment.published), _number(experiment.target)]
    if not records:
        return f"| {' | '.join([*start, 'not run yet'])} |" + " |" * 7
    first, best = records[0], [record["best_epoch_test_accuracy"] for record in records]
    had_learned = first["epochs"] and first["starts_from"] != "random weights"
    layers, ratio = first["layer_sparsity"].values(), first["dense_bytes"] / first["packed_bytes"]
    cells = [
        *start,
        _measured(row),
        "-" if experiment.published is None else f"{row.accuracy - experiment.published:+.4f}",
        f"{first['accuracy_before_training']:.4f}" if had_learned else "-",
        "-" if None in best else f"{statistics.mean(best):.4f}",
        f"{first['sparsity']:.3f}" + f" ({min(layers):.2f} to {max(layers):.2f})" * bool(first["sparsity"]),
        f"{first['packed_bytes']} ({ratio:.{1 if ratio > 1 else 2}f})",
        f"{first['training_seconds'] / 60:.0f}" if first["epochs"] else "-",
        ", ".join(dict.fromkeys(machines[_machine(record)] for record in records)),
    ]
    return f"| {' | '.join(cells)} |"


def _canvas() -> tuple[Figure, Axes]:
    """Make an empty picture of test accuracy in the course's style, outside pyplot, which would want a screen."""
    plots.use_course_style()
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.set(ylabel="test accuracy")
    return figure, axes


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
    crosses = any(row.experiment.published is not None for row in rows)
    axes.set(xlabel="epoch", title="Accuracy after each epoch" + "; crosses: published, at the end" * crosses)
    figure.legend(*axes.get_legend_handles_labels(), fontsize="x-small", loc="outside right upper")
    figure.savefig(path, dpi=110)


def _draw_curves(rows: list[Row], path: Path) -> None:
    """Draw accuracy against sparsity, one line a method, and the accuracy that all of them started from."""
    figure, axes = _canvas()
    measured = [row for row in rows if row.experiment.curve and row.records]
    for curve in dict.fromkeys(row.experiment.curve for row in measured):
        members = [row for row in measured if row.experiment.curve == curve]
        points = sorted((row.records[0]["sparsity"], row.accuracy) for row in members)
        axes.plot(*zip(*points, strict=True), "o-", label=curve)
    dense = checkpoints.read_record(measured[0].records[0]["starts_from"])["test_accuracy"]
    axes.axhline(dense, color="gray", linestyle=":", label=f"dense, {dense:.4f}")
    axes.set(xlabel="sparsity", title="Accuracy against sparsity, by method")
    axes.legend(fontsize="small", loc="lower left")
    figure.savefig(path, dpi=110)
