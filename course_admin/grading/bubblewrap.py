"""bubblewrap's part of the sandbox: whether it works here, its command line, and what a kernel sees inside.

The kernel sees a read-only system, the installed Python packages, a copy of course_utils without the answers, the
course's data, and an empty working folder in memory. It has no network, sees no other process, and finds nothing of
the repository, of other submissions or of this machine's environment.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from course_admin.paths import CourseError

ISOLATIONS = ("bubblewrap", "none")
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
ETC = ("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "alternatives", "fonts", "localtime", "mime.types")
INSIDE = Path(__file__).with_name("inside")
FOLDER = "/submission"  # the working folder, as a kernel sees it


@dataclass(frozen=True)
class Limits:
    """What one submission may use."""

    cell_s: float = 600.0  # wall time of a cell
    notebook_s: float = 1800.0  # wall time of all cells together
    memory_bytes: int = 4 * 2**30  # resident memory of all processes together
    processes: int = 64  # processes; where the system counts them, threads too, but more of these
    disk_bytes: int = 512 * 2**20  # of each folder that can be written to
    output_bytes: int = 10 * 2**20  # of one cell; what is more is cut


class BubblewrapMissing(CourseError):
    """There is no working bubblewrap on this machine."""


@functools.cache
def bubblewrap_problem() -> str:
    """Why bubblewrap cannot be used here; '' if it can."""
    if not sys.platform.startswith("linux"):
        return "bubblewrap needs Linux"
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed (Debian, Ubuntu: sudo apt install bubblewrap)"
    command = ["bwrap", "--ro-bind", "/", "/", "--unshare-pid", "--unshare-net", "--proc", "/proc"]
    command += ["--size", "1000000", "--perms", "0755", "--tmpfs", "/tmp", "true"]  # old ones have no --size
    done = subprocess.run(command, capture_output=True, text=True)
    reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
    if not done.returncode:
        return ""
    if "Unknown option" in reason:
        return f"bubblewrap is too old, 0.7 or newer is needed: {reason}"
    return f"bubblewrap does not work on this machine, which may have to allow it user namespaces: {reason}"


def require(isolation: str) -> None:
    """Raise BubblewrapMissing when the isolation that was asked for cannot be had."""
    if isolation not in ISOLATIONS:
        raise CourseError(f"isolation must be one of {', '.join(ISOLATIONS)}; got {isolation!r}")
    if sys.platform == "win32":
        raise CourseError("grading runs on Linux and macOS; on Windows, use the Windows Subsystem for Linux")
    if isolation == "bubblewrap" and (problem := bubblewrap_problem()):
        raise BubblewrapMissing(
            f"{problem}. Submissions are programs by people you may not trust; to run them with your own rights "
            "all the same, give --isolation none"
        )


def python_folders() -> list[Path]:
    """Where this Python and its installed packages are, without the repository itself."""
    found = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.exec_prefix), *map(Path, site.getsitepackages())}
    found |= {Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages")}
    found |= {Path(sys.executable).resolve().parents[1]}
    kept = sorted(path for path in found if path.is_dir())
    inside = lambda path: any(path != other and path.is_relative_to(other) for other in (*kept, *map(Path, SYSTEM)))  # noqa: E731
    return [path for path in kept if not inside(path) and str(path) not in SYSTEM]


def command_line(kit: Path, run: Path, limits: Limits, options: dict, user_namespace: bool = False) -> list[str]:
    """bubblewrap's command line for the waiting process.

    Args:
        kit: the lab's kit, see kit.py.
        run: folder on this side that holds the sockets.
        limits: sizes of the writable folders.
        options: for zygote.py.
        user_namespace: enter a user namespace even as root (bubblewrap does it by itself for everybody else).

    Returns:
        The words of the command.
    """
    words = ["bwrap", "--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
    words += ["--unshare-user", "--uid", "1000", "--gid", "1000"] if user_namespace else []
    words += ["--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox"]
    size = str(limits.disk_bytes)
    for folder in (FOLDER, "/tmp"):
        words += ["--size", size, "--tmpfs", folder]
    words += [*_system(), *_installed(), "--dev", "/dev", "--size", size, "--tmpfs", "/dev/shm", "--proc", "/proc"]
    words += ["--ro-bind", str(kit / "course"), "/course", "--bind", str(run), "/run/kernel"]
    for outside, inside in json.loads((kit / "kit.json").read_text(encoding="utf-8"))["data"].items():
        words += ["--ro-bind-try", outside, inside]
    words += ["--ro-bind", str(INSIDE), "/inside", "--chdir", FOLDER, "--remount-ro", "/dev", "--remount-ro", "/"]
    for name, value in environment_of(options["threads"], "/course", FOLDER).items():
        words += ["--setenv", name, value]
    return [*words, sys.executable, "/inside/zygote.py", json.dumps(options)]


def _system() -> Iterator[str]:
    """The operating system's programs and libraries, and the few files of /etc that they need."""
    for folder in ("/etc", "/run"):
        yield from _open_folder(folder)
    for path in SYSTEM:
        if os.path.islink(path):
            yield from ("--symlink", os.readlink(path), path)
        elif os.path.isdir(path):
            yield from ("--ro-bind", path, path)
    for name in ETC:
        yield from ("--ro-bind-try", f"/etc/{name}", f"/etc/{name}")


def _installed() -> Iterator[str]:
    """Python and its packages; an installed copy of this course among them is covered, because it holds the answers."""
    for path in python_folders():
        for parent in reversed(path.parents[:-1]):
            yield from _open_folder(str(parent))
        yield from ("--ro-bind", str(path), str(path))
    for entry in map(Path, sys.path):
        for name in ("course_utils", "course_admin"):
            if entry.name in ("site-packages", "dist-packages") and (entry / name).is_dir():
                yield from ("--tmpfs", str(entry / name))


def _open_folder(path: str) -> tuple[str, ...]:
    """A folder that everybody may enter; left to itself, bubblewrap makes folders that only root may."""
    return ("--perms", "0755", "--dir", path)


def environment_of(threads: int, course: str, folder: str) -> dict[str, str]:
    """All environment variables of a kernel."""
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TZ") if name in os.environ}
    number = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return {
        "LANG": "C.UTF-8", **kept, **number, "PATH": "/usr/bin:/bin", "HOME": folder, "USER": "student",
        "PYTHONPATH": course, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline", "MPLCONFIGDIR": "/tmp/matplotlib",
        "IPYTHONDIR": "/tmp/ipython", "JUPYTER_PLATFORM_DIRS": "1", "COURSE_DATA": f"{course}/cache",
        "COURSE_PROFILE": os.environ.get("COURSE_PROFILE", ""), "TMPDIR": "/tmp",
    }  # fmt: skip
