"""Talking to a kernel that may be hostile: run one cell, collect its outputs, watch its time, memory and processes.

A small synchronous client of the Jupyter protocol. Everything that a kernel sends is data of unknown intent: messages
that cannot be read are dropped, outputs are cut by bytes, and nothing is evaluated.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import zmq

from course_admin.grading.outputs import Outputs
from course_admin.grading.sandbox import Zygote
from course_admin.grading.wire import Wire

POLL_MS = 50
WATCH_S = 0.15
IDLE_S = 5.0  # the outputs of a cell come before its idle status; after the reply, do not wait for ever
GRACE_S = 3.0  # after an interrupt, before the kernel is killed
LARGEST_MESSAGE = 64 * 2**20  # of one frame; what a worker takes in all is limited by its own memory limit
MOST_WAITING = 200  # frames that wait to be read
CHANNELS = ("shell", "iopub", "stdin", "control", "hb")


@dataclass
class Run:
    """What one cell did. ended: '' when it ran to its end, else the reason why it was stopped."""

    outputs: list[dict] = field(default_factory=list)
    records: list[Any] = field(default_factory=list)
    ended: str = ""
    kernel_lost: bool = False
    raised: str = ""  # name of the exception that ended the cell
    probe: str | None = None  # answer of the integrity probe, None if the cell raised before it
    n_bytes: int = 0
    cut: bool = False
    seconds: float = 0.0


class Kernel:
    """One kernel in the sandbox.

    Args:
        zygote: the waiting process to fork it from.
        environment: variables beside the sandbox's own.
    """

    def __init__(self, zygote: Zygote, environment: dict[str, str]):
        self.zygote, self.limits = zygote, zygote.limits
        self.wire = Wire(b"course")
        outside, inside = zygote.socket_folder()
        connection = {"transport": "ipc", "ip": f"{inside}/k", "key": "course", "signature_scheme": "hmac-sha256"}
        connection |= {f"{name}_port": number for number, name in enumerate(CHANNELS, 1)} | {"kernel_name": "python3"}
        start = time.perf_counter()
        zygote.fork(connection, environment)
        self.context = zmq.Context()
        self.sockets = {
            name: self._connect(kind, f"ipc://{outside}/k-{CHANNELS.index(name) + 1}")
            for name, kind in (("shell", zmq.DEALER), ("iopub", zmq.SUB), ("control", zmq.DEALER))
        }
        self._wait_until_it_answers()
        self.start_seconds = time.perf_counter() - start

    def _connect(self, kind: int, address: str) -> zmq.Socket:
        socket = self.context.socket(kind)
        socket.linger = 0
        socket.maxmsgsize, socket.rcvhwm = LARGEST_MESSAGE, MOST_WAITING
        if kind == zmq.SUB:
            socket.subscribe(b"")
        socket.connect(address)
        return socket

    def _wait_until_it_answers(self) -> None:
        """Until both channels are heard: a kernel is sent requests only when its outputs cannot be missed."""
        deadline = time.monotonic() + 30
        heard: set[str] = set()
        while heard != {"shell", "iopub"}:
            self.wire.send(self.sockets["shell"], "kernel_info_request", {})
            for name in ("shell", "iopub"):
                if self.sockets[name].poll(40) and self.wire.receive(self.sockets[name]):
                    heard.add(name)
            if time.monotonic() > deadline or self.zygote.ended():
                raise OSError("the kernel does not answer")
        while any(self.sockets[name].poll(5) and self.wire.receive(self.sockets[name]) for name in ("shell", "iopub")):
            pass

    def run(
        self, source: str, *, timeout: float, probe: str = "", quiet: bool = False, most_bytes: int | None = None
    ) -> Run:
        """Run one cell and wait for its end, for a limit, or for the end of the kernel.

        Args:
            source: the cell.
            timeout: seconds until it is interrupted.
            probe: an expression that is evaluated in the kernel after a cell that did not raise.
            quiet: whether the cell counts as none: no execution count, no history.
            most_bytes: output that is kept, if that is less than the limit of one cell.

        Returns:
            What happened.
        """
        content = {
            "code": source, "silent": False, "store_history": not quiet, "allow_stdin": False, "stop_on_error": False,
            "user_expressions": {"probe": probe} if probe else {},
        }  # fmt: skip
        start = time.monotonic()
        message = self.wire.send(self.sockets["shell"], "execute_request", content)
        most = self.limits.output_bytes if most_bytes is None else min(most_bytes, self.limits.output_bytes)
        run, outputs = Run(), Outputs(max(most, 1))
        self._collect(message, run, outputs, start + timeout, bool(probe))
        run.outputs, run.records, run.cut = outputs.as_notebook(), outputs.records, outputs.cut
        run.n_bytes, run.seconds = outputs.n_bytes, time.monotonic() - start
        return run

    def _collect(self, message: str, run: Run, outputs: Outputs, deadline: float, probed: bool) -> None:
        """Read messages until the reply and the idle status have come, or something ends the cell."""
        waiting, watched, replied = {"reply", "idle"}, time.monotonic() + WATCH_S, 0.0
        poller = zmq.Poller()
        for name in ("shell", "iopub"):
            poller.register(self.sockets[name], zmq.POLLIN)
        while waiting:
            ready = dict(poller.poll(POLL_MS))
            for name in (name for name in ("iopub", "shell") if self.sockets[name] in ready):
                found, size = self.wire.receive(self.sockets[name])
                waiting -= self._take(name, found, size, message, run, outputs, probed)
            now = time.monotonic()
            if waiting == {"idle"}:
                replied = replied or now
            over = not waiting or bool(replied and now > replied + IDLE_S)
            if over or outputs.flooded or now > watched:
                watched = now + WATCH_S
                lost = "output too large" if over and waiting else ""  # so much that some of it was dropped on the way
                run.ended = self._broken(outputs) or lost or run.ended
                run.kernel_lost = run.ended not in ("", "timed out")
            if over:
                return
            if now > deadline:
                self._time_is_up(run, outputs, now - deadline)
            if run.kernel_lost:
                return

    def _time_is_up(self, run: Run, outputs: Outputs, overdue: float) -> None:
        """First interrupt the cell; when that does not help, give the kernel up."""
        if run.ended != "timed out":
            run.ended = "timed out"
            self.wire.send(self.sockets["control"], "interrupt_request", {})
        run.kernel_lost = run.kernel_lost or outputs.flooded or overdue > GRACE_S

    @staticmethod
    def _take(channel: str, found: dict, size: int, message: str, run: Run, outputs: Outputs, probed: bool) -> set[str]:
        """Take one message in. Returns what need not be waited for any more."""
        if found["parent"] != message:
            outputs.count(size)
            return set()
        kind, content = found["kind"], found["content"]
        if channel == "shell" and kind == "execute_reply":
            run.raised = str(content.get("ename", "Error"))[:200] if content.get("status") != "ok" else ""
            answer = content.get("user_expressions")
            answer = answer.get("probe") if isinstance(answer, dict) else None
            data = answer.get("data") if isinstance(answer, dict) else None
            if probed and not run.raised:
                run.probe = str(data.get("text/plain", ""))[:2000] if isinstance(data, dict) else ""
            return {"reply"}
        if channel == "iopub" and kind == "status":
            return {"idle"} if content.get("execution_state") == "idle" else set()
        if channel == "iopub":
            outputs.add(kind, content, size)
        return set()

    def _broken(self, outputs: Outputs) -> str:
        """Why the kernel must be ended now, or has ended; '' if all is well."""
        if self.zygote.ended():
            return "crashed"
        if outputs.flooded:
            return "output too large"
        processes = self.zygote.processes()
        if len(processes) > self.limits.processes:
            return "too many processes"
        most = self.limits.memory_bytes
        if resident_bytes(processes) > most and _shared_fairly(processes) > most:
            return "out of memory"
        return "tampered" if self.zygote.strays() else ""

    def close(self) -> None:
        """End the kernel and everything it started."""
        for socket in self.sockets.values():
            socket.close()
        self.context.term()
        self.zygote.kill()
        self.zygote.tidy()


def resident_bytes(processes: list[psutil.Process]) -> int:
    """Resident memory, pages shared between processes counted once for each."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def _shared_fairly(processes: list[psutil.Process]) -> int:
    """Proportional set size: pages that n processes share count 1/n for each; resident size where it is not known."""
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            try:
                rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
                total += next(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
            except (OSError, StopIteration):
                total += process.memory_info().rss
    return total
