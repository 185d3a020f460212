"""The sandbox that submissions run in: the process that waits inside it, the kernels it forks, and their end.

What a kernel sees and may use is in bubblewrap.py; what runs inside is in inside/.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from course_admin.grading.bubblewrap import FOLDER, INSIDE, Limits, command_line, environment_of
from course_admin.paths import CourseError

START_TIMEOUT_S = 180.0  # importing torch from a cold disk
KERNEL_TIMEOUT_S = 60.0
KILL_TIMEOUT_S = 20.0  # on a machine that a fork bomb keeps busy
LONGEST_REPLY = 10_000  # bytes without the end of a line
UID_BASE = 900_000_000  # as root: kernels run as this number plus the worker's process id, a user that owns nothing


@dataclass
class Zygote:
    """The process that waits inside the sandbox, and the kernel forked from it.

    Args:
        kit: the lab's kit.
        isolation: "bubblewrap" or "none".
        limits: what one submission may use.
        threads: of a kernel's numerical libraries.
        preload: modules to import before the first fork.
        nested: whether kernels are forked into namespaces of their own; False: a fresh sandbox for each kernel.
        user_namespace: what happens to people who are not root; also to a root who cannot become another user.
    """

    kit: Path
    isolation: str
    limits: Limits
    threads: int
    preload: list[str]
    nested: bool = True
    user_namespace: bool = False
    import_seconds: float = 0.0
    _process: subprocess.Popen | None = None
    _run: Path | None = None
    _base: set[int] = field(default_factory=set)
    _work: Path | None = None
    _n_started: int = 0
    _ready: bool = False
    _running: bool = False  # whether a forked kernel is there
    _heard: bytes = b""  # the beginning of a reply whose end has not come yet

    def __post_init__(self) -> None:
        self._run = Path(tempfile.mkdtemp(prefix="course-", dir="/tmp" if Path("/tmp").is_dir() else None))
        self._run.chmod(0o711)
        self.user_namespace = self.user_namespace or (os.geteuid() == 0 and not _is_mapped(self.uid))

    @property
    def forks(self) -> bool:
        """Whether one waiting process serves many kernels."""
        return sys.platform.startswith("linux") and (self.nested or self.isolation == "none")

    def launch(self) -> None:
        """Start the waiting process; it is not ready yet."""
        namespaces = self.isolation == "bubblewrap" and self.nested
        options = {"preload": self.preload, "fork": self.forks, "namespaces": namespaces, "threads": self.threads}
        options |= {"disk_bytes": self.limits.disk_bytes, "isolation": self.isolation}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the process)
        if self.isolation == "bubblewrap":
            plain_root = os.geteuid() == 0 and not self.nested  # bubblewrap alone must take root's rights away
            inside = self.user_namespace or plain_root
            words = command_line(self.kit, self._run, self.limits, options, inside)
            env = {"PATH": os.environ.get("PATH", os.defpath)}  # bubblewrap's own: it shows in /proc/1/environ inside
        else:
            show_data(self.kit)
            self._work = Path(tempfile.mkdtemp(prefix="work-", dir=self._run))
            words = [sys.executable, str(INSIDE / "zygote.py"), json.dumps(options)]
            env = {**environment_of(self.threads, str(self.kit / "course"), str(self._work)), "TMPDIR": str(self._work)}
            env |= {"MPLCONFIGDIR": str(self._run / "mpl"), "IPYTHONDIR": str(self._run / "ipython")}
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=env,
            cwd=self._work or "/",
            bufsize=0,
        )
        self._ready, self._heard = False, b""

    def start(self) -> None:
        """Have the waiting process ready. Raises CourseError with its last words if it does not come up."""
        if self._process is None or self._process.poll() is not None and self._ready:
            self.launch()
        if self._ready:
            return
        ready = self._reply(START_TIMEOUT_S)
        if not ready.get("ready"):
            self._errors.seek(0)
            words = self._errors.read()[-600:].decode(errors="replace").strip()
            self.close()
            raise CourseError(f"the sandbox did not start: {words or ready}")
        self.import_seconds, self._ready = ready["seconds"], True
        self._base = set(self._descendants())

    def fork(self, connection: dict, environment: dict[str, str]) -> None:
        """Start a kernel on the connection. Raises CourseError if it does not come up.

        Where namespaces cannot be nested, each kernel gets a fresh sandbox from here on, and waits for its imports.
        """
        problem = self._try_to_fork(connection, environment)
        if problem and self.nested and self.isolation == "bubblewrap" and self._n_started == 1:
            self.nested = False
            os.chown(self._run / "1", os.geteuid(), os.getegid())
            problem = self._try_to_fork(connection, environment)
        if problem:
            raise CourseError(f"the kernel did not start: {problem}")

    def _try_to_fork(self, connection: dict, environment: dict[str, str]) -> str:
        """Start a kernel. Returns why it did not come up, or ''."""
        self.start()
        limits = {
            "RLIMIT_NPROC": self.limits.processes + 16 + 4 * self.threads, "RLIMIT_CORE": 0, "RLIMIT_NOFILE": 1024,
            "RLIMIT_FSIZE": self.limits.disk_bytes,
        }  # fmt: skip
        if self.isolation == "none" or (os.geteuid() != 0 and not self.nested):
            limits.pop("RLIMIT_NPROC")  # it would count the processes of the person who grades
        request = {"connection": connection, "environment": environment, "limits": limits, "threads": self.threads}
        request |= {"folder": self.folder, "uid": self.uid}
        self._say({"start": request})
        reply = self._reply(KERNEL_TIMEOUT_S)
        if not reply.get("started"):
            self.close()
            return str(reply.get("failed", "it gave no reason"))
        self._running = True
        return ""

    @property
    def uid(self) -> int:
        return UID_BASE + os.getpid()

    @property
    def folder(self) -> str:
        """The kernel's working folder, as it sees it."""
        return FOLDER if self.isolation == "bubblewrap" else str(self._work)

    def socket_folder(self) -> tuple[Path, str]:
        """(folder on this side, the same as the kernel sees it) for the sockets of the next kernel."""
        self.start()
        self._n_started += 1
        path = self._run / str(self._n_started)
        path.mkdir(mode=0o700)
        if self.isolation == "bubblewrap" and os.geteuid() == 0 and not self.user_namespace and self.nested:
            os.chown(path, self.uid, self.uid)
        inside = f"/run/kernel/{path.name}" if self.isolation == "bubblewrap" else str(path)
        return path, inside

    def processes(self) -> list[psutil.Process]:
        """The kernel's processes and everything that they started."""
        found = self._descendants()
        return [process for pid, process in found.items() if pid not in self._base or not self.forks]

    def ended(self) -> bool:
        """Whether the kernel's process has ended. Reads what the waiting process has said."""
        if self._process is None or self._process.poll() is not None:
            return True
        if self.forks and "ended" in self._reply(0.0):
            self._running = False
        return not self._running

    def kill(self) -> None:
        """End the kernel and everything it started; the waiting process stays if it serves many."""
        if self.ended() and self._process is not None and self._process.poll() is None and self.forks:
            return
        if self._process is None or self._process.poll() is not None:
            self.close()
            return
        if self.forks and self.isolation == "bubblewrap":
            with contextlib.suppress(OSError):
                self._say({"kill": True})
            deadline = time.monotonic() + KILL_TIMEOUT_S
            while time.monotonic() < deadline:
                reply = self._reply(deadline - time.monotonic())
                if "ended" in reply or not reply:
                    break
            if "ended" in reply:
                self._running = False
                return
        elif self.forks:
            for process in self.processes():
                with contextlib.suppress(psutil.Error):
                    process.kill()
            if "ended" in self._reply(10):
                self._running = False
                return
        self.close()

    def strays(self) -> bool:
        """Whether a kernel has written anything but its sockets into the one folder that it shares with this side."""
        folders = [path for path in self._run.iterdir() if path.name.isdigit()]
        if self.isolation == "bubblewrap" and len(folders) != len(list(self._run.iterdir())):
            return True
        found = (path for folder in folders if folder.is_dir() for path in folder.iterdir())
        return any(not path.is_socket() and os.path.lexists(path) for path in found)  # a socket may just have gone

    def tidy(self) -> None:
        """Remove the sockets and what the last kernel left where there is no sandbox."""
        for path in self._run.iterdir():
            if self.isolation == "bubblewrap" or path.name.isdigit():
                _remove(path)
        if self._work is not None:
            for path in self._work.iterdir():
                _remove(path)

    def close(self) -> None:
        """End everything."""
        if self._process is not None:
            for process in self._descendants().values() if self.isolation == "none" else ():
                with contextlib.suppress(psutil.Error):
                    process.kill()
            self._process.kill()
            self._process.wait()
            self._process.stdin.close()
            self._process.stdout.close()
            self._process, self._running, self._ready = None, False, False

    def remove(self) -> None:
        """End everything and remove the folder of the sockets."""
        self.close()
        shutil.rmtree(self._run, ignore_errors=True)

    def _descendants(self) -> dict[int, psutil.Process]:
        try:
            return {child.pid: child for child in psutil.Process(self._process.pid).children(recursive=True)}
        except psutil.Error:
            return {}

    def _say(self, message: dict) -> None:
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def _reply(self, timeout: float) -> dict:
        """The next reply; {} when there is no whole one in time, or nobody to give it. Never waits for a line's end."""
        deadline = time.monotonic() + max(timeout, 0.0)
        while b"\n" not in self._heard:
            if not select.select([self._process.stdout], [], [], max(deadline - time.monotonic(), 0.0))[0]:
                return {}
            piece = os.read(self._process.stdout.fileno(), 65536)
            if not piece or len(self._heard) > LONGEST_REPLY:
                return {}
            self._heard += piece
        line, _, self._heard = self._heard.partition(b"\n")
        try:
            reply = json.loads(line)
        except ValueError:
            return {}
        return reply if isinstance(reply, dict) else {}


def _is_mapped(uid: int) -> bool:
    """Whether this process's user namespace knows the user: root of a container without many users cannot become it."""
    try:
        lines = Path("/proc/self/uid_map").read_text().splitlines()
    except OSError:  # not Linux
        return True
    ranges = (tuple(map(int, line.split())) for line in lines)
    return any(first <= uid < first + n for first, _, n in ranges)


def show_data(kit: Path) -> None:
    """Link the folders of data into a kit, where no sandbox shows them in their place; workers may do so at once."""
    for outside, inside in json.loads((kit / "kit.json").read_text(encoding="utf-8"))["data"].items():
        place = kit / inside.lstrip("/")
        with contextlib.suppress(OSError):  # another worker has been here
            place.rmdir()
            place.symlink_to(outside, target_is_directory=True)


def _remove(path: Path) -> None:
    """Remove a file, a link or a whole folder; links are not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()
