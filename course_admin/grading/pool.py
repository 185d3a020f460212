"""Worker processes on this machine. A task is bytes, an answer is bytes; a worker that dies costs one attempt.

Workers are processes of their own, started afresh (not forked), so that nothing of the driver is in them. What comes
back is read as bytes and never unpickled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Protocol

from course_admin.grading.bubblewrap import Limits

MOST_DEATHS = 2
PACKAGES = Path(__file__).resolve().parents[2]  # where course_admin and course_utils are
MORE = b"+"  # before every submission; an empty message ends a worker


@dataclass(frozen=True)
class Task:
    """One submission to execute."""

    student: str
    content: bytes


@dataclass(frozen=True)
class Settings:
    """What every worker needs to know."""

    kit: Path
    isolation: str
    limits: Limits
    threads: int

    def as_json(self) -> str:
        """For a worker's command line."""
        return json.dumps({**dataclasses.asdict(self), "kit": str(self.kit)})

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """The inverse of as_json."""
        data = json.loads(text)
        return cls(**{**data, "kit": Path(data["kit"]), "limits": Limits(**data["limits"])})


def usable_cores() -> int:
    """Cores that this process may use: on a shared machine fewer than there are."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


class Executor(Protocol):
    """Something that executes tasks; answers come in any order, None for a task whose workers died."""

    def run(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, bytes | None]]:
        """Execute the tasks."""


@dataclass
class Worker:
    """One process and the task that it works on."""

    process: subprocess.Popen
    connection: Connection
    task: Task | None = None


@dataclass
class Queue:
    """Tasks that wait, those first that have been tried already."""

    waiting: Iterator[Task]
    again: deque[Task] = field(default_factory=deque)
    deaths: Counter = field(default_factory=Counter)

    def next(self) -> Task | None:
        """The next task, or None when all have been given out."""
        return self.again.popleft() if self.again else next(self.waiting, None)

    def give_up(self, task: Task) -> bool:
        """A worker has died over the task: whether it is not tried again."""
        self.deaths[task.student] += 1
        if self.deaths[task.student] < MOST_DEATHS:
            self.again.append(task)
            return False
        return True


class LocalPool:
    """Executes tasks in worker processes on this machine.

    Args:
        settings: for the workers.
        n_workers: how many.
    """

    def __init__(self, settings: Settings, n_workers: int):
        self.settings, self.n_workers = settings, n_workers

    def run(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, bytes | None]]:
        """Execute the tasks. See Executor."""
        queue = Queue(iter(tasks))
        busy: list[Worker] = []
        retired: list[Worker] = []
        try:
            while True:
                while len(busy) < self.n_workers and (task := queue.next()):
                    busy.append(self._start(task))
                if not busy:
                    return
                for connection in wait([worker.connection for worker in busy]):
                    worker = next(worker for worker in busy if worker.connection is connection)
                    task, answer = worker.task, self._answer(worker)
                    worker.task = None if answer is None else queue.next()
                    if answer is not None:
                        self._tell(worker)
                    if worker.task is None:
                        busy.remove(worker)
                        retired.append(worker)
                    if answer is not None or queue.give_up(task):
                        yield task, answer
        finally:
            for worker in retired:
                self._bury(worker, patience=10.0)
            for worker in busy:
                self._bury(worker)

    @staticmethod
    def _answer(worker: Worker) -> bytes | None:
        """What a worker has to say; None if it has died."""
        try:
            return worker.connection.recv_bytes()
        except (EOFError, OSError):
            return None

    @staticmethod
    def _tell(worker: Worker) -> None:
        """Send a worker its task, or home if it has none. If it has just died, the next wait finds out."""
        with contextlib.suppress(OSError):
            worker.connection.send_bytes(MORE + worker.task.content if worker.task else b"")

    def _start(self, task: Task) -> Worker:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "course_admin.grading.worker", str(theirs.fileno()), self.settings.as_json()]
        path = os.pathsep.join(filter(None, [str(PACKAGES), os.environ.get("PYTHONPATH", "")]))
        process = subprocess.Popen(
            command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path}
        )
        theirs.close()
        worker = Worker(process, Connection(ours.detach()), task)
        self._tell(worker)
        return worker

    @staticmethod
    def _bury(worker: Worker, patience: float = 0.0) -> None:
        """See a worker's end; hasten it when it takes longer than the patience."""
        worker.connection.close()
        for hasten, seconds in (
            (lambda: None, patience),
            (worker.process.terminate, 10.0),
            (worker.process.kill, None),
        ):
            hasten()
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(seconds)
                return
