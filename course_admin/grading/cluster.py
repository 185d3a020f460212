"""The same tasks on a Dask cluster: no shared folder, no gradebook, nothing but bytes goes to a worker or comes back.

dask-jobqueue and dask-kubernetes start clusters; `course grade LAB --scheduler tcp://host:8786` uses one. Workers need
this course's package and bubblewrap. The lab's kit travels once to each of them.
"""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from course_admin.grading.bubblewrap import Limits
from course_admin.grading.kit import Kit, pack, unpack
from course_admin.grading.pool import MOST_DEATHS, Task, usable_cores
from course_admin.grading.sandbox import Zygote
from course_admin.paths import CourseError

MOST_KITS = 5  # times that the kit is sent again because nobody has it any more
AHEAD = 2  # tasks for each thread of the cluster that are sent ahead of time


class DaskCluster:
    """Executes tasks on a Dask cluster.

    Args:
        address: of the scheduler.
        kit: the lab.
        isolation: as for local workers.
        limits: what one submission may use.

    Raises:
        CourseError: if there is no scheduler at the address, or no worker joins it.
    """

    def __init__(self, address: str, kit: Kit, isolation: str, limits: Limits):
        self.address, self.kit, self.isolation, self.limits = address, kit, isolation, limits

    def run(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, bytes | None]]:
        """Execute the tasks. See pool.Executor."""
        from distributed import Client, as_completed

        with _client(Client, self.address) as client:
            client.run_on_scheduler(_allow_deaths, MOST_DEATHS - 1)
            shares = _tasks_by_host(client)
            content = pack(self.kit)
            digest = hashlib.sha256(content).hexdigest()
            kit = client.scatter(content, broadcast=True, hash=False)
            waiting, given, kits_lost = iter(tasks), {}, 0
            running = as_completed(loop=client.loop)

            def send(tasks: Iterable[Task]) -> None:
                for task in tasks:
                    future = client.submit(
                        run_task, task.content, kit, digest, self.isolation, self.limits, shares, pure=False, retries=0
                    )
                    given[future.key] = task, kit
                    running.add(future)

            send(islice(waiting, AHEAD * sum(shares.values())))
            for future in running:
                task, its_kit = given.pop(future.key)
                answer = _result(future)
                future.release()
                if answer is None and its_kit.status != "finished" and kits_lost < MOST_KITS:
                    if kit is its_kit:  # every worker that held it has died: those that came later never had it
                        kit, kits_lost = client.scatter(content, broadcast=True, hash=False), kits_lost + 1
                    send([task])
                    continue
                send(islice(waiting, 1))
                yield task, answer


def require_cluster(address: str) -> None:
    """Raise a CourseError if no cluster with a worker answers: before anything is computed, not after."""
    from distributed import Client

    _client(Client, address).close()


def _client(make: type, address: str) -> object:
    client = None
    try:
        client = make(address, timeout=10, set_as_default=False)
        client.wait_for_workers(1, timeout=60)
    except (OSError, TimeoutError, ValueError) as error:
        if client is not None:
            client.close()
        raise CourseError(f"no Dask cluster with a worker answers at {address}: {error}") from None
    return client


def _result(future: object) -> bytes | None:
    """The answer, or None when the workers that had the task died, or it ended with anything but an answer."""
    try:
        answer = future.result()
    except Exception:  # KilledWorker, or what the task raised: neither may end the run of all others
        return None
    return answer if isinstance(answer, bytes) else None


def _allow_deaths(n: int, dask_scheduler: object = None) -> None:
    """So many workers may die over a task before it is given up."""
    dask_scheduler.allowed_failures = n


_local = threading.local()
_kits: dict[str, Kit] = {}
_lock = threading.Lock()


def run_task(
    submission: bytes, packed: bytes, digest: str, isolation: str, limits: Limits, shares: dict[str, int]
) -> bytes:
    """Execute one submission in a worker of the cluster. Kits and waiting processes are kept between tasks."""
    from course_admin.grading.execute import execute_safely

    with _lock:
        if digest not in _kits:
            folder = Path(tempfile.mkdtemp(prefix="course-kit-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            _kits[digest] = unpack(packed, folder)
    kit = _kits[digest]
    if getattr(_local, "key", None) != (digest, isolation, limits):
        if hasattr(_local, "zygote"):
            _local.zygote.remove()
        threads = _threads_of_one_task(shares)
        _local.zygote = Zygote(kit.folder, isolation, limits, threads, kit.preload)
        _local.key = (digest, isolation, limits)
    return execute_safely(submission, kit, _local.zygote)


def _threads_of_one_task(shares: dict[str, int]) -> int:
    """This machine's cores, divided among the tasks that run on it at the same time."""
    from distributed import get_worker

    return max(1, usable_cores() // max(shares.get(_host(get_worker().address), 1), 1))


def _tasks_by_host(client: object) -> dict[str, int]:
    """How many tasks run at the same time on each machine of the cluster."""
    shares: dict[str, int] = {}
    for address, n_threads in client.nthreads().items():
        shares[_host(address)] = shares.get(_host(address), 0) + n_threads
    return shares


def _host(address: str) -> str:
    return address.split("://")[-1].rsplit(":", 1)[0]
