"""How long each lab's notebook takes and how much memory: the instructor's notebook, executed from top to bottom.

    python benchmarks/notebooks.py                  # every lab in its quick profile
    python benchmarks/notebooks.py lab2 lab3        # some of them
    python benchmarks/notebooks.py lab3 --slowest 5 # and the cells that took longest

Wall time includes the start of the kernel. Memory is the largest sum of resident memory over the kernel and its child
processes, looked at ten times a second. Nothing is written to the notebooks.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from dataclasses import dataclass, field

import nbformat
import psutil

from course_admin.build.execute import execute
from course_admin.build.lab import Targets
from course_admin.grading.kernel import resident_bytes
from course_admin.paths import Lab, Repository


@dataclass
class Run:
    """What one execution took: seconds in all, peak memory in MiB, and (seconds, first line) of each code cell."""

    seconds: float = 0.0
    peak_mib: float = 0.0
    cells: list[tuple[float, str]] = field(default_factory=list)


class Watch(threading.Thread):
    """Follows the resident memory of all children of this process until it is stopped.

    Args:
        run: where to write the peak.
    """

    def __init__(self, run: Run):
        super().__init__(daemon=True)
        self.run_, self.stop = run, threading.Event()

    def run(self) -> None:
        """Look ten times a second."""
        while not self.stop.wait(0.1):
            resident = resident_bytes(psutil.Process().children(recursive=True))
            self.run_.peak_mib = max(self.run_.peak_mib, resident / 2**20)


def measure(lab: Lab, repository: Repository) -> Run:
    """Execute the instructor's notebook of a lab in its own folder."""
    path = Targets.of(repository).instructor(lab)
    notebook = nbformat.read(path, as_version=4)
    run, started = Run(), {}

    def on_start(cell, cell_index):
        started[cell_index] = time.perf_counter()

    def on_end(cell, cell_index, execute_reply):
        first = next(iter(cell.source.splitlines()), "")
        run.cells.append((time.perf_counter() - started[cell_index], first))

    watch = Watch(run)
    watch.start()
    start = time.perf_counter()
    execute(notebook, path.parent, on_cell_execute=on_start, on_cell_executed=on_end)
    run.seconds = time.perf_counter() - start
    watch.stop.set()
    watch.join()
    return run


def main() -> None:
    """Execute the labs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labs", nargs="*", help="for example lab2; default: all")
    parser.add_argument("--slowest", type=int, default=0, metavar="N", help="also the N slowest cells of each lab")
    arguments = parser.parse_args()
    repository = Repository.find()
    labs = [repository.lab(name) for name in arguments.labs] or repository.all_labs()
    profile = os.environ.get("COURSE_PROFILE") or "quick"
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start, profile {profile}")
    print(f"{'lab':28s} {'seconds':>8s} {'peak MiB':>9s}")
    for lab in labs:
        run = measure(lab, repository)
        print(f"{lab.name:28s} {run.seconds:8.0f} {run.peak_mib:9.0f}", flush=True)
        for seconds, first in sorted(run.cells, reverse=True)[: arguments.slowest]:
            print(f"    {seconds:6.1f} s  {first[:90]}", flush=True)


if __name__ == "__main__":
    main()
