"""Grading throughput: `course grade` beside `nbgrader autograde`, on the same submissions, in one run.

    python benchmarks/grading.py                        # everything; about 15 minutes on two cores
    python benchmarks/grading.py --only lab1 torch      # lab1, torch, dask, memory
    python benchmarks/grading.py --students 10

* **lab1**: honest submissions to Lab 1 (NumPy and Matplotlib, one exercise wrong in most of them), isolation on.
* **torch**: a small lab whose notebook imports torch and torchvision and whose cells do next to nothing.
* **dask**: Lab 1 again on a Dask scheduler with two worker processes on this machine, beside the local pool.
* **memory**: peak memory of the driver for a class of 400 with a small lab.

nbgrader grades the first half of the class before `course grade` and the second half after it, so that a disturbance of
the machine meets both. Both are the whole command as an instructor types it, from start to prompt. Releasing the lab
(nbgrader's generate_assignment) and the instructor's own run, which `course grade` does once for each version of a lab,
come before.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat

from course_admin.answers import answers_to
from course_admin.build.lab import Targets, build_lab, write_notebook
from course_admin.grading.results import load_results
from course_admin.paths import Repository
from course_admin.submissions import filled, reference_answers

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("start", "import", "cells", "conversion", "verify", "record")
TORCH_LAB = """\
# %%
import numpy as np
import torch
import torchvision
from torch import nn

from course_utils.checks import Checks
from course_utils.pruning.given import check_weight
from course_utils.validate import check_fraction

# %% exercise
from course_utils.pruning import magnitude_mask

# %% check points=2
check = Checks("magnitude_mask")
check.equal("two go", lambda: magnitude_mask(torch.tensor([0.5, -3.0, 0.1, -0.2]), 0.5), [True, True, False, False])
### BEGIN HIDDEN TESTS
toy = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
check.equal("count", lambda: int(magnitude_mask(toy, 0.25).sum()), 18)
### END HIDDEN TESTS
check.score(points=2)

# %%
print(nn.Linear(3, 2)(torch.zeros(1, 3)).shape, torchvision.__version__)
"""
TINY_LAB = """\
# %%
import numpy as np

from course_utils.checks import Checks
from course_utils.validate import check_count, check_vector

# %% exercise
from course_utils.sparse_linear import keep_largest

# %% check points=3
check = Checks("keep_largest")
check.equal("two stay", lambda: keep_largest(np.array([1.0, -3.0, 2.0]), 2), [0, -3, 2])
### BEGIN HIDDEN TESTS
check.equal("one stays", lambda: keep_largest(np.array([1.0, -3.0, 7.0]), 1), [0, 0, 7])
### END HIDDEN TESTS
check.score(points=3)
"""
COURSE = """\
import sys
from course_admin.cli import main
try:
    main()
finally:  # not getrusage, which counts what the parent had when it started this process
    peak = next((line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")), 0)
    print("PEAK", int(peak) // 1024, file=sys.stderr)
"""


class Class:
    """A course folder with one built lab and its submissions.

    Args:
        folder: where to make it.
        source: the lab's text source.
        name: of the lab.
    """

    def __init__(self, folder: Path, source: str, name: str):
        self.root, self.name = folder, name
        (folder / "solutions").mkdir(parents=True)
        (folder / "labs").mkdir()
        (folder / "solutions" / f"{name}.py").write_text(source, encoding="utf-8")
        shutil.copy(ROOT / "nbgrader_config.py", folder)
        (folder / "data").symlink_to(ROOT / "data")
        self.lab = Repository(folder).lab(name)
        print(f"building {name} ...", flush=True)
        build_lab(self.lab, Repository(folder))

    def hand_in(self, n: int, wrong: list[tuple[str, str]]) -> list[str]:
        """Submissions of n students; each has one of the wrong answers (exercise, source), every fifth has none."""
        targets = Targets.of(Repository(self.root))
        right = reference_answers(nbformat.read(targets.instructor(self.lab), as_version=4))
        released = nbformat.read(targets.student(self.lab), as_version=4)
        for number in range(n):
            own = dict([wrong[number % len(wrong)]]) if wrong and number % 5 else {}
            path = self.root / "submitted" / f"student{number:03d}" / self.name / f"{self.name}.ipynb"
            write_notebook(path, filled(released, {**right, **own}))
        return [f"student{number:03d}" for number in range(n)]

    def nbgrader(self, *words: str) -> float:
        """Seconds that an nbgrader command takes."""
        env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "nbgrader", *words], cwd=self.root, env=env, check=True, capture_output=True
        )
        return time.perf_counter() - start

    def course(self, *words: str) -> tuple[float, int]:
        """(seconds, peak memory in MiB) of `course grade`."""
        command = [sys.executable, "-c", COURSE, "grade", self.name, *words]
        start = time.perf_counter()
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=self.root, env=env, check=True, capture_output=True, text=True)
        return time.perf_counter() - start, int(done.stderr.split("PEAK")[1])

    def forget(self) -> None:
        """Remove what grading wrote, but for the instructor's expected values."""
        for name in ("autograded", "feedback"):
            shutil.rmtree(self.root / name, ignore_errors=True)
        for path in (self.root / "grades").glob("*/*"):
            if path.name != ".expected":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        (self.root / "gradebook.db").unlink(missing_ok=True)

    def gradebook(self, name: str) -> dict[tuple[str, str], float | None]:
        """Automatic points by student and cell, as a gradebook has them."""
        query = (
            "select s.student_id, b.name, g.auto_score from grade g join base_cell b on g.cell_id = b.id "
            "join submitted_notebook n on g.notebook_id = n.id join submitted_assignment s on n.assignment_id = s.id"
        )
        with sqlite3.connect(self.root / name) as base:
            return {(student, cell): score for student, cell, score in base.execute(query)}

    def stages(self) -> dict[str, float]:
        """Mean seconds that a submission spent in each stage."""
        results = load_results(self.root, self.name)
        return {name: sum(r.stage_seconds.get(name, 0.0) for r in results) / len(results) for name in STAGES}


def lab1(folder: Path, n: int) -> Class:
    """Lab 1 with n submissions."""
    repository = Repository(ROOT)
    lab = repository.lab("lab1")
    made = Class(folder, lab.source.read_text(encoding="utf-8"), lab.name)
    wrong = [(answer.exercise, answer.source) for answer in answers_to(lab, repository) if not answer.is_correct]
    made.hand_in(n, wrong)
    return made


def warmed(made: Class) -> Class:
    """After the instructor's own run, with nothing graded."""
    aside = made.root / "aside"
    (made.root / "submitted").rename(aside)
    first = sorted(aside.iterdir())[0]
    shutil.copytree(first, made.root / "submitted" / first.name)
    made.course()
    shutil.rmtree(made.root / "submitted")
    aside.rename(made.root / "submitted")
    made.forget()
    return made


def beside_nbgrader(made: Class, n: int) -> float:
    """Print and return the ratio of submissions per minute."""
    warmed(made)
    made.nbgrader("generate_assignment", made.name, "--force")
    half = [f"student{number:03d}" for number in range(n // 2)]
    rest = [f"student{number:03d}" for number in range(n // 2, n)]
    theirs = made.nbgrader("autograde", made.name, "--CourseDirectory.student_id=" + _glob(half))
    kept = made.root / "gradebook.db"
    kept.rename(made.root / "nbgrader.db")
    shutil.rmtree(made.root / "autograded")
    ours, peak = made.course()
    stages, points = made.stages(), made.gradebook("gradebook.db")
    made.forget()
    (made.root / "nbgrader.db").rename(kept)
    theirs += made.nbgrader("autograde", made.name, "--CourseDirectory.student_id=" + _glob(rest))
    different = [name for name, score in made.gradebook("gradebook.db").items() if score != points[name]]
    shares = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in stages.items())
    print(f"{made.name}, {n} submissions on {os.cpu_count()} cores")
    print(f"  nbgrader autograde   {60 * n / theirs:6.1f} a minute   ({theirs / n:.2f} s each)")
    print(f"  course grade         {60 * n / ours:6.1f} a minute   ({ours / n:.2f} s each), driver {peak} MiB")
    print(f"  ratio                {theirs / ours:6.2f}")
    print(f"  a submission's time: {shares}")
    print(f"  cells with different points: {len(different)} of {len(points)} {different[:5]}", flush=True)
    return theirs / ours


def _glob(students: list[str]) -> str:
    """nbgrader takes one pattern; a class of characters for the numbers."""
    return "{" + ",".join(students) + "}" if len(students) == 1 else _range_pattern(students)


def _range_pattern(students: list[str]) -> str:
    """A pattern for students whose numbers have the same hundreds: student0[01]? or student0[23]?."""
    tens = sorted({name[-2] for name in students})
    assert len(students) == 10 * len(tens), "halves of the class must be whole tens"
    return f"student{students[0][-3]}[{''.join(tens)}]?"


@contextmanager
def dask_cluster() -> Iterator[str]:
    """Address of a scheduler with two workers of one thread each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env, null = {**os.environ, "PYTHONPATH": str(ROOT)}, subprocess.DEVNULL
    address = f"tcp://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder:
        scheduler = ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
        worker = ["distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        processes = [
            subprocess.Popen([sys.executable, "-m", *words], cwd=folder, env=env, stdout=null, stderr=null)
            for words in (scheduler, worker, worker)
        ]
        try:
            time.sleep(8)
            yield address
        finally:
            for process in processes:
                process.kill()
                process.wait()


def local_and_dask(made: Class, n: int) -> float:
    """Print and return seconds on two Dask workers / seconds in the local pool."""
    warmed(made)
    seconds = {"local": [], "dask": []}
    for _ in range(2):
        seconds["local"].append(made.course("--workers", "2")[0])
        made.forget()
        with dask_cluster() as address:
            seconds["dask"].append(made.course("--scheduler", address)[0])
        made.forget()
    local, dask = min(seconds["local"]), min(seconds["dask"])
    print(f"{made.name}, {n} submissions, two workers: local pool {local:.1f} s, Dask {dask:.1f} s,")
    print(f"  ratio                {dask / local:6.2f}", flush=True)
    return dask / local


def driver_memory(folder: Path, n: int = 400) -> int:
    """Print and return the driver's peak memory for a large class, in MiB."""
    made = Class(folder, TINY_LAB, "lab1_tiny")
    made.hand_in(n, [])
    seconds, peak = made.course()
    print(f"{n} submissions of a small lab: {seconds:.0f} s, peak memory of the driver {peak} MiB")
    return peak


def main() -> None:
    """Run what was asked for; print the bars that are missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("lab1", "torch", "dask", "memory")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--students", type=int, default=40, help="of Lab 1; a multiple of 20")
    options = parser.parse_args()
    measured = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if "lab1" in options.only:
            measured["lab1: ratio, at least 1.8"] = (
                beside_nbgrader(lab1(folder / "lab1", options.students), options.students) >= 1.8
            )
        if "torch" in options.only:
            made = Class(folder / "torch", TORCH_LAB, "lab2_torch")
            made.hand_in(20, [])
            measured["torch: ratio, at least 2.5"] = beside_nbgrader(made, 20) >= 2.5
        if "dask" in options.only:
            ratio = local_and_dask(lab1(folder / "dask", options.students), options.students)
            measured["dask: at most 1.15 times the local pool"] = ratio <= 1.15
        if "memory" in options.only:
            measured["memory: under 300 MiB"] = driver_memory(folder / "memory") < 300
    print(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
