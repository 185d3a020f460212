"""The sandbox in each of its forms: what a kernel can see, reach and use up."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from course_admin.grading import bubblewrap
from course_admin.grading import run as grading
from course_admin.grading.bubblewrap import BubblewrapMissing, Limits, bubblewrap_problem
from course_admin.grading.kernel import Kernel
from course_admin.grading.sandbox import Zygote
from course_admin.paths import CourseError, Repository
from course_admin.stubs import write_package

ROOT = Path(__file__).parents[2]
LIMITS = Limits(cell_s=10.0, memory_bytes=2**30, processes=30, disk_bytes=16 * 2**20, output_bytes=10**5)
NEEDS_BUBBLEWRAP = pytest.mark.skipif(bool(bubblewrap_problem()), reason=bubblewrap_problem() or "-")
FORMS = {
    "forked": {"isolation": "bubblewrap"},
    "forked, not root": {"isolation": "bubblewrap", "user_namespace": True},
    "fresh for each": {"isolation": "bubblewrap", "nested": False},
}


@pytest.fixture(scope="module")
def kit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kit")
    (folder / "course" / "data").mkdir(parents=True)
    write_package(Repository(ROOT), [Repository(ROOT).lab("lab1")], folder / "course")
    (folder / "kit.json").write_text(json.dumps({"data": {str(ROOT / "data"): "/course/data"}}))
    for path in (folder, folder.parent):
        path.chmod(0o755)
    return folder


@pytest.fixture(params=FORMS)
def zygote(request, kit):
    made = Zygote(kit, limits=LIMITS, threads=1, preload=["numpy", "course_utils.checks"], **FORMS[request.param])
    yield made
    made.remove()


def say(kernel: Kernel, source: str, timeout: float = 10.0) -> str:
    """What a cell prints."""
    run = kernel.run(source, timeout=timeout)
    return "".join(output.get("text", output.get("evalue", "")) for output in run.outputs)


@pytest.mark.parametrize("isolation", ["none", pytest.param("bubblewrap", marks=NEEDS_BUBBLEWRAP)])
def test_the_courses_data_can_be_read_with_and_without_a_sandbox(kit, isolation, tmp_path):
    own = shutil.copytree(kit, tmp_path / "kit")  # a kit serves one kind of isolation
    made = Zygote(own, isolation=isolation, limits=LIMITS, threads=1, preload=["numpy"])
    try:
        source = "from course_utils import data; print(len(data.load('fashion_mnist', 10, 20).test_labels))"
        assert say(Kernel(made, {}), source, timeout=60.0).strip() == "20"
    finally:
        made.remove()


@NEEDS_BUBBLEWRAP
def test_no_process_of_the_sandbox_carries_this_machines_environment(zygote, monkeypatch):
    """Bubblewrap is process 1 inside, and /proc/1/environ is what it was started with."""
    monkeypatch.setenv("COURSE_SECRET", "secret")
    kernel = Kernel(zygote, {})
    try:
        assert say(kernel, "print(1)") == "1\n"
        outermost = psutil.Process(zygote._process.pid)
        processes = [outermost, *outermost.children(recursive=True)]
        assert len(processes) > 2
        assert [process.name() for process in processes if "COURSE_SECRET" in process.environ()] == []
    finally:
        kernel.close()


@NEEDS_BUBBLEWRAP
def test_a_kernel_sees_only_what_students_were_given(zygote):
    os.environ["COURSE_SECRET"] = "secret"
    kernel = Kernel(zygote, {"COURSE_CHECKS": "sealed"})
    try:
        assert (
            say(kernel, "import os; print(os.environ.get('COURSE_SECRET'), os.environ['COURSE_CHECKS'])")
            == "None sealed\n"
        )
        assert (
            say(
                kernel,
                f"print(os.path.exists({str(ROOT / 'solutions')!r}), os.path.exists({str(ROOT / 'README.md')!r}))",
            )
            == "False False\n"
        )
        assert say(kernel, "print(os.getuid() == 0, os.path.exists('/etc/shadow'))") == "False False\n"
        assert say(kernel, "print(sorted(os.listdir('/course')))") == "['course_utils', 'data']\n"
        assert "NotImplementedError" in say(
            kernel, "print(open('/course/course_utils/sparse_linear/solvers.py').read())"
        )
        assert say(kernel, "import course_utils; print(course_utils.__file__)") == "/course/course_utils/__init__.py\n"
        assert "Read-only" in say(kernel, "open('/course/x', 'w')")
        for place in ("/usr/x", "/inside/x", "/x", "/dev/x", "/etc/x"):
            assert "denied" in say(kernel, f"open({place!r}, 'w')") or "Read-only" in say(
                kernel, f"open({place!r}, 'w')"
            )
        assert say(kernel, "print(open('/course/data/README.md').read(1))") == "#\n"
        caps = say(
            kernel,
            "print(*[l.split()[1] for l in open('/proc/self/status') if l.startswith(('CapEff', 'CapPrm', 'NoNewPrivs'))])",
        )
        assert caps.split() == ["0" * 16, "0" * 16, "1"]
    finally:
        del os.environ["COURSE_SECRET"]
        kernel.close()


@NEEDS_BUBBLEWRAP
def test_a_kernel_reaches_nobody(zygote):
    kernel = Kernel(zygote, {})
    try:
        found = say(
            kernel,
            "import os; print([p for p in os.listdir('/proc') if p.isdigit() and os.path.exists(f'/proc/{p}/cwd')])",
        )
        assert found.count("'") <= 6, found  # itself, process 1 of its namespace, and no other that it may look into
        assert "unreachable" in say(kernel, "import socket; socket.create_connection(('1.1.1.1', 53), 1)")
        say(kernel, "for number in (9, 15, 19):\n    try:\n        os.kill(1, number)\n    except OSError: pass")
        assert say(kernel, "print('alive')") == "alive\n"
        say(kernel, "open('left behind', 'w').write('x'); open('/tmp/left behind', 'w').write('x')")
    finally:
        kernel.close()
    kernel = Kernel(zygote, {})
    try:
        assert say(kernel, "import os; print(os.listdir('.'), os.path.exists('/tmp/left behind'))") == "[] False\n"
    finally:
        kernel.close()


@NEEDS_BUBBLEWRAP
def test_disk_and_time_are_limited(zygote):
    kernel = Kernel(zygote, {})
    try:
        full = say(kernel, "for n in range(99):\n    with open(f'f{n}', 'wb') as f: f.write(b'x' * 10**6)")
        assert "No space" in full
        run = kernel.run("while True: pass", timeout=0.5)
        assert (run.ended, run.raised, run.kernel_lost) == ("timed out", "KeyboardInterrupt", False)
        assert say(kernel, "print(1 + 1)") == "2\n"
    finally:
        kernel.close()


FLOOD = """
kernel, shell = get_ipython().kernel, get_ipython()
for _ in range(60):
    kernel.session.send(kernel.iopub_socket, "no_such_kind", {"text": "x" * 50_000}, parent=shell.parent_header)
"""
EATEN = "import numpy as np; kept = np.ones(150_000_000)"  # 1.2 GB
CROWD = "import subprocess; crowd = [subprocess.Popen(['sleep', '60']) for _ in range(40)]"


@NEEDS_BUBBLEWRAP
@pytest.mark.parametrize(
    ("source", "ended"),
    [(FLOOD, "output too large"), (EATEN, "out of memory"), (CROWD, "too many processes")],
    ids=["output", "memory", "processes"],
)
def test_a_cell_that_ends_before_anybody_looks_is_stopped_all_the_same(zygote, monkeypatch, source, ended):
    """Else it depends on the machine's speed whether it is noticed, and the next cell is blamed for it."""
    monkeypatch.setattr("course_admin.grading.kernel.WATCH_S", 1000.0)
    kernel = Kernel(zygote, {})
    try:
        assert kernel.run("pass", timeout=9).ended == ""
        run = kernel.run(source, timeout=9)
        assert (run.ended, run.kernel_lost) == (ended, True), run.raised
    finally:
        kernel.close()


@NEEDS_BUBBLEWRAP
def test_writing_into_the_folder_of_the_sockets_fails_or_ends_a_kernel(zygote):
    kernel = Kernel(zygote, {})
    try:
        write = "open('/run/kernel/1/x', 'wb').write(b'x' * 10**5)"
        run = kernel.run(f"import time\nfor n in range(100):\n    {write}\n    time.sleep(0.1)", timeout=9)
        if zygote.nested:  # nothing can be made there, hidden files and sockets neither
            assert (run.raised, run.ended) == ("OSError", "")
            tries = (
                "os.open('/run/kernel/1', os.O_TMPFILE | os.O_RDWR)",
                "socket.socket(socket.AF_UNIX).bind('/run/kernel/1/s')",
            )
            for attempt in tries:
                assert kernel.run(f"import os, socket\n{attempt}", timeout=9).raised == "OSError"
        else:
            assert (run.ended, run.kernel_lost) == ("tampered", True)
    finally:
        kernel.close()
    assert list(zygote._run.iterdir()) == []


OPEN_FILES = """
import os, json
found = {}
for number in range(200):
    try:
        found[number] = [os.fstat(number).st_dev, os.fstat(number).st_ino]
    except OSError:
        pass
print(json.dumps(found))
"""


@NEEDS_BUBBLEWRAP
def test_a_kernel_holds_no_file_of_the_process_that_it_was_forked_from(zygote):
    """Whoever holds the pipe of its replies speaks to the grader in its name, and to the next student's kernel."""
    kernel = Kernel(zygote, {})
    try:
        waiting = [psutil.Process(zygote._process.pid), *psutil.Process(zygote._process.pid).children(recursive=True)]
        kernels = {process.pid for process in zygote.processes()} if zygote.forks else set()
        links = set()
        for process in waiting:
            if process.pid not in kernels:
                links |= {os.readlink(path) for path in Path(f"/proc/{process.pid}/fd").iterdir()}
        held = {tuple(pair) for pair in json.loads(say(kernel, OPEN_FILES)).values()}
        pipes = {int(link.partition("[")[2][:-1]) for link in links if link.startswith("pipe:")}
        if zygote.forks:
            assert not {inode for _, inode in held} & pipes
        for ours in (zygote._process.stdout, zygote._process.stdin, zygote._errors):
            status = os.fstat(ours.fileno())
            assert (status.st_dev, status.st_ino) not in held
    finally:
        kernel.close()


FORGED = """
import os
for number in range(3, 100):
    try:
        if os.readlink(f"/proc/self/fd/{number}").startswith("pipe:"):
            os.write(number, %r)
    except OSError:
        pass
"""


@NEEDS_BUBBLEWRAP
@pytest.mark.parametrize("words", [b'{"ended": 0}\n{"started": true}\n', b"x", b"y" * 4000])
def test_nobody_but_the_waiting_process_can_answer_for_it(zygote, words):
    kernel = Kernel(zygote, {})
    try:
        kernel.run(FORGED % words, timeout=5)  # a kernel may break itself by it
    finally:
        kernel.close()
    kernel = Kernel(zygote, {})
    try:
        assert say(kernel, "print('the next one')") == "the next one\n"
    finally:
        kernel.close()


@NEEDS_BUBBLEWRAP
@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"), reason="the filter knows the calls of these processors"
)
@pytest.mark.parametrize(
    "call",
    [
        "os.memfd_create('hoard')",
        "libc('unshare', 0x10000000)",
        "libc('unshare', 0x20000)",
        "libc('shmget', 0, 4096, 0o1600)",
    ],
)
def test_memory_that_no_process_shows_and_namespaces_are_refused(zygote, call):
    kernel = Kernel(zygote, {})
    source = """
import ctypes, os
def libc(name, *arguments):
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
%s
"""
    try:
        assert kernel.run(source % call, timeout=9).raised == "PermissionError"
        work = "import threading, subprocess\nthreading.Thread(target=print, args=('thread',)).start()\n"
        assert "thread" in say(kernel, f"{work}print(subprocess.run(['echo', 'process'], capture_output=True).stdout)")
    finally:
        kernel.close()


@NEEDS_BUBBLEWRAP
def test_whatever_a_kernel_starts_ends_with_it(zygote):
    kernel = Kernel(zygote, {})
    say(kernel, "import subprocess, os\nfor _ in range(3): subprocess.Popen(['sleep', '1000'], start_new_session=True)")
    started = [process for process in zygote.processes() if process.name() == "sleep"]
    assert len(started) == 3
    kernel.close()
    gone, alive = psutil.wait_procs(started, timeout=10)
    assert not alive


@NEEDS_BUBBLEWRAP
def test_where_namespaces_do_not_nest_each_kernel_gets_a_fresh_sandbox(kit, monkeypatch, tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    for path in bubblewrap.INSIDE.glob("*.py"):
        text = path.read_text().replace("libc(LIBC.unshare,", "raise OSError(1, 'unshare') or libc(LIBC.unshare,")
        (inside / path.name).write_text(text)
    monkeypatch.setattr(bubblewrap, "INSIDE", inside)
    zygote = Zygote(kit, "bubblewrap", LIMITS, 1, ["numpy"])
    try:
        kernel = Kernel(zygote, {})
        assert say(kernel, "import os; print(os.getuid() == 0, os.getcwd())") == "False /submission\n"
        assert not zygote.nested
        kernel.close()
    finally:
        zygote.remove()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks on Linux only")
def test_without_a_sandbox_kernels_still_start_and_end(kit, tmp_path):
    own = shutil.copytree(kit, tmp_path / "kit")  # a kit serves one kind of isolation
    zygote = Zygote(own, "none", LIMITS, 1, ["numpy"])
    try:
        for _ in range(2):
            kernel = Kernel(zygote, {"COURSE_CHECKS": "sealed"})
            assert say(kernel, "import os; print(os.listdir('.'), os.environ['COURSE_CHECKS'])") == "[] sealed\n"
            say(kernel, "open('left behind', 'w').write('x')")
            assert kernel.run("os._exit(3)", timeout=10).ended == "crashed"
            kernel.close()
    finally:
        zygote.remove()


def test_without_bubblewrap_grading_refuses(monkeypatch):
    monkeypatch.setattr(bubblewrap, "bubblewrap_problem", lambda: "bubblewrap is not installed")
    with pytest.raises(BubblewrapMissing, match="--isolation none"):
        bubblewrap.require("bubblewrap")
    bubblewrap.require("none")
    with pytest.raises(CourseError, match="bubblewrap, none"):
        bubblewrap.require("docker")
    assert grading.Options().isolation == "bubblewrap"


@NEEDS_BUBBLEWRAP
def test_root_of_a_container_that_can_become_nobody_else_has_a_sandbox_all_the_same(kit):
    """Rootless containers: root inside, one user of the machine outside."""
    code = (
        "from pathlib import Path\nfrom course_admin.grading.bubblewrap import Limits\n"
        "from course_admin.grading.kernel import Kernel\nfrom course_admin.grading.sandbox import Zygote\n"
        f"made = Zygote(Path({str(kit)!r}), 'bubblewrap', Limits(), 1, ['numpy'])\n"
        "try:\n    run = Kernel(made, {}).run('import os; print(os.getuid())', timeout=60)\n"
        "    print(made.user_namespace, run.outputs[0]['text'])\nfinally:\n    made.remove()\n"
    )
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-Ur", "true"], capture_output=True).returncode:
        pytest.skip("this machine lets nobody make a user namespace with unshare")
    done = subprocess.run([unshare, "-Ur", sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.stdout.split() or ["-"])[0] == "True", done.stderr[-2000:]
    assert done.stdout.split()[1] != "0"


def test_a_cell_whose_last_messages_never_come_has_said_too_much(kit, monkeypatch, tmp_path):
    """A publisher drops what a slow reader does not take; then neither record nor idle status may come."""
    monkeypatch.setattr("course_admin.grading.kernel.IDLE_S", 0.3)
    made = Zygote(shutil.copytree(kit, tmp_path / "kit"), "none", LIMITS, 1, [])
    try:
        kernel = Kernel(made, {})
        receive = kernel.wire.receive

        def without_idle(socket):
            found, size = receive(socket)
            return ({**found, "kind": "lost"} if found["content"].get("execution_state") == "idle" else found), size

        monkeypatch.setattr(kernel.wire, "receive", without_idle)
        run = kernel.run("1 + 1", timeout=20)
        assert (run.ended, run.kernel_lost) == ("output too large", True)
        kernel.close()
    finally:
        made.remove()
