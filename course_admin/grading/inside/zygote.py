"""Runs inside the sandbox: imports the heavy packages once, then forks one Jupyter kernel for each submission.

Importing torch takes longer than most notebooks. This process does it once and waits; every kernel is a fork of it, so
it starts in a tenth of a second. A fork first goes into namespaces of its own (processes, network, IPC, mounts) with an
empty working folder in memory, gives up its rights and every file that this process has open, and only then becomes a
kernel: it can reach neither this process nor a kernel before or after it. There is nothing secret in here either.

The file stands alone: the sandbox holds the standard library, the installed packages and what students were given, but
nothing of course_admin. It speaks JSON lines: requests on standard input, replies on standard output.

    {"start": {...}}   fork a kernel (connection, uid, limits)  ->  {"started": true}, later {"ended": status}
    {"kill": true}     kill the kernel and everything it started
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import platform
import resource
import select
import signal
import struct
import sys
import time
import traceback
from pathlib import Path

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    0x00020000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1, 2, 4, 8, 32, 4096, 16384, 1 << 18,
)  # fmt: skip
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SECCOMP_MODE_FILTER = 2
LOAD, EQUAL, AT_LEAST, HAS_BITS, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # instructions of a seccomp filter
ALLOW, REFUSE = 0x7FFF0000, 0x00050000  # what it returns; REFUSE plus the error's number
EPERM, ENOSYS = 1, 38
X32 = 0x40000000  # bit of the numbers of calls in x86's third convention
# By processor: its number for seccomp, and the numbers of the calls that a kernel may not make.
CALLS = {
    "x86_64": (0xC000003E, {"memfd_create": 319, "memfd_secret": 447, "shmget": 29, "unshare": 272, "setns": 308,
                            "clone": 56, "clone3": 435}),
    "aarch64": (0xC00000B7, {"memfd_create": 279, "memfd_secret": 447, "shmget": 194, "unshare": 97, "setns": 268,
                             "clone": 220, "clone3": 435}),
}  # fmt: skip
NICE = 10  # a kernel that multiplies must leave the grader a share of the processors
MAPPED_UID = 4242  # the kernel's user inside a user namespace; any number that is not root's

LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Import what the lab imports, then serve requests until standard input ends."""
    options = json.loads(sys.argv[1])
    with contextlib.suppress(ValueError, OSError):  # the worker's limit is not for the kernels
        resource.setrlimit(resource.RLIMIT_AS, (resource.getrlimit(resource.RLIMIT_AS)[1],) * 2)
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what an import prints must not look like a reply
    start = time.perf_counter()
    preload(options["preload"])
    say(replies, {"ready": True, "seconds": time.perf_counter() - start})
    if options["fork"]:
        serve(replies, options)
    else:
        request = json.loads(sys.stdin.readline() or "{}")
        if "start" in request:
            serve_once(request["start"], options, replies)


def preload(names: list[str]) -> None:
    """Import modules; one that is missing is the notebook's problem, not ours."""
    for name in ["ipykernel.kernelapp", "ipykernel.ipkernel", "probe", *names]:
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def say(replies: object, message: dict) -> None:
    """Write one reply."""
    replies.write(json.dumps(message) + "\n")


def serve_once(request: dict, options: dict, replies: object) -> None:
    """Be the one kernel of a sandbox of its own: say that it listens, and let go of what it could say more through."""
    forget_streams()

    def listening() -> None:
        say(replies, {"started": True})
        replies.close()

    try:
        if options["isolation"] == "bubblewrap":
            refuse_calls()
        run_kernel(request, options, listening)
    except Exception:
        with contextlib.suppress(ValueError, OSError):
            say(replies, {"failed": traceback.format_exc()[-180:]})


def forget_streams() -> None:
    """Standard input, output and errors lead nowhere from here on."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.close(nothing)


def serve(replies: object, options: dict) -> None:
    """Fork kernels one after the other as asked."""
    child, alive = 0, None  # alive: a pipe whose other end only the kernel's processes hold
    buffer = b""
    while True:
        ready, _, _ = select.select([0] + [alive] * (alive is not None), [], [])
        if alive in ready:
            line = os.read(alive, 200)
            if line:
                say(replies, {"started": line == b"+"} if line == b"+" else {"failed": line.decode(errors="replace")})
            else:
                os.close(alive)
                _, status = os.waitpid(child, 0)
                say(replies, {"ended": status})
                child, alive = 0, None
        if 0 in ready:
            piece = os.read(0, 65536)
            if not piece:
                return
            *lines, buffer = (buffer + piece).split(b"\n")
            for request in map(json.loads, lines):
                if "start" in request and not child:
                    child, alive = fork_kernel(request["start"], options, replies)
                elif "kill" in request and child:
                    os.kill(child, signal.SIGTERM)


def fork_kernel(request: dict, options: dict, replies: object) -> tuple[int, int]:
    """Fork a kernel. Returns (process id, end of a pipe that says '+' when it listens and ends when it died)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    try:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.close(reading)
        replies.close()  # whoever holds it speaks to the grader in this process's name
        forget_streams()  # the errors go to a file that the next kernel would inherit too
        if options["namespaces"]:
            writing = enter_namespaces(request, options, writing)
        run_kernel(request, options, lambda: tell(writing, options))
    except BaseException:
        with contextlib.suppress(OSError):
            os.write(writing, traceback.format_exc()[-180:].encode())
    finally:
        os._exit(0)


def tell(writing: int, options: dict) -> None:
    """Say that the kernel listens, for the last time: what runs in it from now on is not ours."""
    os.write(writing, b"+")
    if options["namespaces"]:  # process 1 holds the other pipe open; its end is the kernel's
        os.close(writing)


def enter_namespaces(request: dict, options: dict, writing: int) -> int:
    """Go into fresh namespaces; returns in the process that shall be the kernel, a child of the new process 1.

    Process 1 keeps the pipe to the waiting process. What is returned is a pipe to process 1, which hears once whether
    the kernel listens: then no file can be made beside its sockets any more, and the waiting process is told.
    """
    is_root = os.geteuid() == 0
    flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC
    uid, gid = os.geteuid(), os.getegid()
    libc(LIBC.unshare, flags if is_root else flags | CLONE_NEWUSER)
    if not is_root:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{MAPPED_UID} {uid} 1"),
            ("gid_map", f"{MAPPED_UID} {gid} 1"),
        ):
            Path(f"/proc/self/{name}").write_text(text)
    first = os.fork()
    if first:
        become_guardian(first)
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    private_mounts(options, must_hide_processes=is_root)
    hearing, saying = os.pipe()
    second = os.fork()
    if second:  # process 1 of the namespace: when it ends, everything in the namespace is killed
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.close(saying)
        words = os.read(hearing, 200)
        if words == b"+":
            mount("none", "/run/kernel", "", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)
        os.write(writing, words)
        while True:
            pid, status = os.wait()
            if pid == second:
                os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    if is_root:
        os.setgroups([])
        os.setresgid(request["uid"], request["uid"], request["uid"])
        os.setresuid(request["uid"], request["uid"], request["uid"])
    drop_capabilities()
    refuse_calls()
    os.close(writing)
    os.close(hearing)
    return saying


def become_guardian(first: int) -> None:
    """Outside the namespace: pass a kill on to its process 1, end when it ends."""
    signal.signal(signal.SIGTERM, lambda *_: os.kill(first, signal.SIGKILL))
    while True:
        with contextlib.suppress(InterruptedError):
            _, status = os.waitpid(first, 0)
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def private_mounts(options: dict, must_hide_processes: bool) -> None:
    """Empty folders in memory, of limited size, where the kernel may write; a /proc with its own processes only."""
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    size = f"size={options['disk_bytes']},nr_inodes=20000,mode=1777"
    for folder in ("/submission", "/tmp", "/dev/shm"):
        mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, size)
    try:
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except OSError:
        # Without root, a fresh /proc may be refused. The old one lists the waiting process, but a kernel in a user
        # namespace of its own can neither read its memory nor signal it.
        if must_hide_processes:
            raise


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    """mount(2)."""
    libc(
        LIBC.mount,
        source.encode(),
        target.encode(),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        data.encode() or None,
    )


def libc(function: object, *arguments: object) -> None:
    """Call a function of the C library; OSError when it fails."""
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function.__name__}: {os.strerror(number)}")


def drop_capabilities() -> None:
    """Give up every right that entering the namespaces gave, for good."""
    libc(LIBC.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    libc(LIBC.capset, header, (ctypes.c_uint32 * 6)())


def refuse_calls() -> None:
    """Refuse, for good, memory that no process's resident size shows, and namespaces with rights of their own.

    Source: Linux, Documentation/userspace-api/seccomp_filter.rst; struct sock_filter of linux/filter.h.
    """
    if platform.machine() not in CALLS:
        return
    architecture, number = CALLS[platform.machine()]
    code = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, REFUSE | ENOSYS), (LOAD, 0, 0, 0)]
    if platform.machine() == "x86_64":
        code += [(AT_LEAST, 0, 1, X32), (RETURN, 0, 0, REFUSE | ENOSYS)]
    for name in ("memfd_create", "memfd_secret", "shmget", "unshare", "setns"):
        code += [(EQUAL, 0, 1, number[name]), (RETURN, 0, 0, REFUSE | EPERM)]
    code += [(EQUAL, 0, 1, number["clone3"]), (RETURN, 0, 0, REFUSE | ENOSYS)]  # no telling its flags
    code += [(EQUAL, 0, 3, number["clone"]), (LOAD, 0, 0, 16), (HAS_BITS, 0, 1, CLONE_NEWUSER)]
    code += [(RETURN, 0, 0, REFUSE | EPERM), (RETURN, 0, 0, ALLOW)]
    words = b"".join(struct.pack("HBBI", *instruction) for instruction in code)
    program = ctypes.create_string_buffer(words, len(words))
    header = ctypes.create_string_buffer(struct.pack("HP", len(code), ctypes.addressof(program)))
    libc(LIBC.prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0)


def run_kernel(request: dict, options: dict, listening: object) -> None:
    """Become a Jupyter kernel; returns when it is shut down."""
    os.setsid() if options["fork"] else None
    for limit, value in request["limits"].items():
        number = getattr(resource, limit, None)
        if number is not None:
            _, hard = resource.getrlimit(number)
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(number, (value, value))
    os.nice(NICE)
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(request["threads"])
    sys.argv = ["kernel"]
    sys.path[:] = ["", *[entry for entry in sys.path if entry and entry != os.path.dirname(__file__)]]
    file = os.path.join(request["folder"], ".connection.json")
    with open(file, "w") as stream:
        json.dump(request["connection"], stream)
    start_application(file, listening)


def start_application(file: str, listening: object) -> None:
    """Start ipykernel on the connection file."""
    from ipykernel.kernelapp import IPKernelApp

    os.environ.pop("JPY_PARENT_PID", None)  # its poller would end a kernel whose parent is out of sight
    app = IPKernelApp.instance()
    app.initialize(["-f", file, "--IPKernelApp.log_level=50", "--HistoryManager.enabled=False"])
    with contextlib.suppress(OSError):
        os.remove(file)
    probe = importlib.import_module("probe")
    probe.install()
    listening()
    app.start()


if __name__ == "__main__":
    main()
