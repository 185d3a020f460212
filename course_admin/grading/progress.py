"""How far grading is: done of total, time left, outcomes so far; and a log of how long each cell took."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from course_admin.lms.table import harmless


@dataclass
class Watch:
    """What happens during grading, step by step. The base class watches and says nothing."""

    total: int = 0
    done: int = 0
    outcomes: Counter = field(default_factory=Counter)

    def begin(self, total: int) -> None:
        """There are so many submissions."""
        self.total = total

    def say(self, line: str) -> None:
        """A step that is no submission."""

    def finished(self, student: str, outcome: str) -> None:
        """One more submission has its result."""
        self.done += 1
        self.outcomes[outcome] += 1

    def summary(self) -> str:
        """'38 graded, 1 timed out'."""
        return ", ".join(f"{number} {outcome}" for outcome, number in self.outcomes.most_common())


class ConsoleWatch(Watch):
    """Shows a progress bar in a terminal, lines elsewhere."""

    def __init__(self, console: Console):
        super().__init__()
        self._console = console
        self._bar = Progress(
            TextColumn("grading"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left:"),
            TimeRemainingColumn(), TextColumn("{task.fields[outcomes]}"), console=console, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("grading", total=None, outcomes="")

    @contextmanager
    def shown(self) -> Iterator[ConsoleWatch]:
        """While grading."""
        with self._bar:
            yield self

    def begin(self, total: int) -> None:
        """There are so many submissions."""
        super().begin(total)
        self._bar.update(self._task, total=total)

    def say(self, line: str) -> None:
        """A step that is no submission."""
        self._console.print(line, markup=False)

    def finished(self, student: str, outcome: str) -> None:
        """One more submission has its result."""
        super().finished(student, outcome)
        if not self._console.is_terminal:
            self.say(f"{self.done} of {self.total}: {student}: {outcome}")
        self._bar.update(self._task, completed=self.done, outcomes=self.summary())


def log_cell_times(path: Path, student: str, cell_seconds: list) -> None:
    """Add the wall time of every cell to a CSV file with the columns student, cell, seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(["student", "cell", "seconds"])
        writer.writerows([harmless(student), harmless(title), f"{seconds:.4f}"] for title, seconds in cell_seconds)
