"""A worker process of the local pool: takes a submission's bytes, executes it, answers with bytes; see pool.py."""

from __future__ import annotations

import json
import signal
import sys
from multiprocessing.connection import Connection

from course_admin.grading.pool import MORE, Settings
from course_admin.grading.sandbox import Zygote


def main(file_number: int, settings: Settings) -> None:
    """Work until the driver says that nothing is left, or is gone.

    Args:
        file_number: of the connection to the driver.
        settings: what to work on and how.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver ends its workers itself
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
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
