"""A worker process of the local pool: takes a submission's bytes, executes it, answers with bytes; see pool.py."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import sys
from multiprocessing.connection import Connection

from course_admin.grading.pool import MORE, Settings
from course_admin.grading.sandbox import Zygote

LARGEST_MEMORY = 6 * 2**30  # bytes of address space, of which the libraries take one to two


def limit_memory() -> None:
    """Bound the memory of this process: what kernels send ends up in it, outside of any sandbox. At the bound it fails,
    or ends, and the submission is reported. The sandbox has a limit of its own, see inside/zygote.py.
    """
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = LARGEST_MEMORY if hard == resource.RLIM_INFINITY else min(LARGEST_MEMORY, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses
        resource.setrlimit(resource.RLIMIT_AS, (most, hard))


def main(file_number: int, settings: Settings) -> None:
    """Work until the driver says that nothing is left, or is gone.

    Args:
        file_number: of the connection to the driver.
        settings: what to work on and how.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver ends its workers itself
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    limit_memory()
    connection = Connection(file_number)
    preload = json.loads((settings.kit / "kit.json").read_text(encoding="utf-8"))["preload"]
    zygote = Zygote(settings.kit, settings.isolation, settings.limits, settings.threads, preload)
    try:
        zygote.launch()  # it imports what the lab needs while this process imports what executing needs
        from course_admin.grading.execute import execute_safely
        from course_admin.grading.kit import Kit

        kit = Kit.load(settings.kit)
        while content := connection.recv_bytes():
            connection.send_bytes(execute_safely(content[len(MORE) :], kit, zygote))
    except (EOFError, OSError):
        pass  # the driver is gone
    finally:
        zygote.remove()


if __name__ == "__main__":
    main(int(sys.argv[1]), Settings.from_json(sys.argv[2]))
