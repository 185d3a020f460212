"""Grading that is interrupted, repeated, spread over machines or over databases ends in the same results."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
from distributed import Client

from course_admin.build.lab import build_lab
from course_admin.grading.bubblewrap import Limits, bubblewrap_problem
from course_admin.grading.progress import Watch
from course_admin.grading.results import load_results
from course_admin.grading.run import grade_lab
from course_admin.nbgrader_course import NbgraderCourse
from course_admin.paths import CourseError
from tests.course_admin.test_grade import OPTIONS
from tests.course_admin.test_hostile import hand_in, read_class
from tests.submissions.hostile import LUCKY, Case

ROOT = Path(__file__).parents[2]
NAME = "lab1_tiny"
DRIVER = """\
import sys
from course_admin.grading.run import Options, grade_lab
from course_admin.nbgrader_course import NbgraderCourse
from course_admin.paths import Repository
repository = Repository(__import__("pathlib").Path(sys.argv[1]))
grade_lab(repository.lab("1"), NbgraderCourse(repository), Options(isolation=sys.argv[2], workers=2))
"""


def a_class(repository, copies: int, slow: float = 0.0) -> None:
    """So many students of each honest kind."""
    released, right = read_class(repository)
    for number in range(copies):
        for case in LUCKY:
            hand_in(
                repository.root, _slowed(dataclasses.replace(case, name=f"{case.name}{number}"), slow), released, right
            )


def _slowed(case: Case, seconds: float) -> Case:
    if not seconds:
        return case
    cell = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    cell["source"] = f"import time; time.sleep({seconds})"
    return dataclasses.replace(case, change=lambda data: {**data, "cells": [cell, *data["cells"]]})


def essence(results) -> dict:
    """What must not depend on how grading went."""
    return {r.student: (r.outcome, r.reason, [(c.name, c.points, c.checks) for c in r.cells]) for r in results}


def gradebook(root: Path) -> dict:
    query = (
        "select s.student_id, b.name, g.auto_score from grade g join base_cell b on g.cell_id = b.id "
        "join submitted_notebook n on g.notebook_id = n.id join submitted_assignment s on n.assignment_id = s.id"
    )
    with sqlite3.connect(root / "gradebook.db") as base:
        return {(student, cell): score for student, cell, score in base.execute(query)}


def executed_times(root: Path) -> dict[str, int]:
    """How often each student's notebook was executed."""
    with (root / "grades" / NAME / "cell_times.csv").open() as file:
        rows = [row["student"] for row in csv.DictReader(file) if row["cell"] == "the graded cell check_concepts"]
    return {student: rows.count(student) for student in rows}


@pytest.fixture(scope="module")
def reference(built_once, tmp_path_factory):
    """(results, gradebook) of an undisturbed run of the class with one worker."""
    from course_admin.paths import Repository

    repository = Repository(Path(shutil.copytree(built_once, tmp_path_factory.mktemp("undisturbed") / "course")))
    a_class(repository, copies=3)
    results = grade_lab(repository.lab("1"), NbgraderCourse(repository), dataclasses.replace(OPTIONS, workers=1))
    return essence(results), gradebook(repository.root)


def test_a_killed_driver_goes_on_where_it_was(built, reference):
    a_class(built, copies=3, slow=0.3)
    command = [sys.executable, "-c", DRIVER, str(built.root), OPTIONS.isolation]
    driver = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    done = built.root / "grades" / NAME
    _wait_until(lambda: len(list(done.glob("[!.]*.json"))) >= 4)
    workers = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = {path.name for path in done.glob("[!.]*.json")}
    assert 4 <= len(before) < 15, "the driver was killed in the middle"
    psutil.wait_procs(workers, timeout=20)
    left = [p for p in workers if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]  # whoever reaps: no business of ours
    assert not left, "nothing is left behind"
    results = grade_lab(built.lab("1"), NbgraderCourse(built), OPTIONS)
    assert (essence(results), gradebook(built.root)) == reference
    assert essence(load_results(built.root, NAME)) == reference[0]
    times = executed_times(built.root)
    assert all(times[name.removesuffix(".json")] == 1 for name in before), "what had its record was not run again"


def _wait_until(condition, timeout: float = 120.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def test_a_worker_that_dies_costs_nobody_anything(built, reference):
    a_class(built, copies=3)

    class Killer(Watch):
        killed = 0

        def finished(self, student, outcome):
            super().finished(student, outcome)
            if self.done == 3:
                alive = [process for process in psutil.Process().children() if process.status() != psutil.STATUS_ZOMBIE]
                next(p for p in alive if "course_admin.grading.worker" in p.cmdline()).kill()
                Killer.killed += 1

    results = grade_lab(built.lab("1"), NbgraderCourse(built), dataclasses.replace(OPTIONS, workers=2), Killer())
    assert Killer.killed == 1
    assert (essence(results), gradebook(built.root)) == reference


@pytest.mark.skipif(bool(bubblewrap_problem()), reason=bubblewrap_problem() or "-")
def test_a_submission_whose_workers_die_twice_is_reported_and_stops_nobody(built, monkeypatch):
    from course_admin.grading.pool import LocalPool

    a_class(built, copies=1)
    tell = LocalPool._tell

    def deadly(worker):
        tell(worker)
        if worker.task and worker.task.student == "half_right0":
            worker.process.kill()

    monkeypatch.setattr(LocalPool, "_tell", staticmethod(deadly))
    results = {r.student: r for r in grade_lab(built.lab("1"), NbgraderCourse(built), OPTIONS)}
    assert (results["half_right0"].outcome, results["half_right0"].counts) == ("crashed", False)
    assert results["half_right0"].reason == "the worker that ran it died, twice"
    assert {r.outcome for name, r in results.items() if name != "half_right0"} == {"graded"}


def test_changed_expected_values_are_judged_without_running_anybody_again(built):
    a_class(built, copies=1)
    lab, course = built.lab("1"), NbgraderCourse(built)
    before = {r.student: r.points for r in grade_lab(lab, course, OPTIONS)}
    text = lab.source.read_text()
    lab.source.write_text(text.replace('keep_largest(np.array([1.0, -3.0, 7.0]), 1), [0, 0, 7])',
                                       'keep_largest(np.array([1.0, -3.0, 7.0]), 1), [0, 0, 7], hint="think of |w|")'))  # fmt: skip
    build_lab(lab, built)
    results = {r.student: r for r in grade_lab(lab, course, OPTIONS)}
    assert {name: r.points for name, r in results.items()} == before
    assert results["half_right0"].cells[1].checks[1].hint == "think of |w|"
    assert set(executed_times(built.root).values()) == {1}
    lab.source.write_text(text.replace("[1.0, -3.0, 7.0]), 1), [0, 0, 7]", "[1.0, -3.0, 7.0]), 3), [1, -3, 7]"))
    build_lab(lab, built)
    results = {r.student: r for r in grade_lab(lab, course, OPTIONS)}
    assert results["half_right0"].points == 2.5, "a wrong answer is right for the new input"
    assert results["honest0"].points == 4.0
    assert set(executed_times(built.root).values()) == {2}


def test_what_met_a_limit_is_run_again_when_asked_for_and_nothing_else(built):
    released, right = read_class(built)
    hand_in(built.root, Case("quick"), released, right)
    hand_in(built.root, _slowed(Case("slow"), 6.0), released, right)
    lab, course = built.lab("1"), NbgraderCourse(built)
    short = dataclasses.replace(OPTIONS, limits=Limits(cell_s=4.0))
    outcomes = [{r.student: r.outcome for r in grade_lab(lab, course, short)}]
    outcomes.append({r.student: r.outcome for r in grade_lab(lab, course, OPTIONS)})
    outcomes.append({r.student: r.outcome for r in grade_lab(lab, course, dataclasses.replace(OPTIONS, retry=True))})
    assert outcomes == [{"quick": "graded", "slow": "timed out"}] * 2 + [{"quick": "graded", "slow": "graded"}]
    assert executed_times(built.root) == {"quick": 1, "slow": 2}


def test_points_given_by_hand_survive_and_show(built):
    a_class(built, copies=1)
    lab, course = built.lab("1"), NbgraderCourse(built)
    grade_lab(lab, course, OPTIONS)
    with sqlite3.connect(built.root / "gradebook.db") as base:
        base.execute(
            "update grade set manual_score = 1.5, needs_manual_grade = 0 where cell_id in "
            "(select id from base_cell where name = 'answer_why')"
        )
        base.execute("update comment set manual_comment = 'well <b>said</b>'")
    for options in (OPTIONS, dataclasses.replace(OPTIONS, force=True)):
        results = {r.student: r for r in grade_lab(lab, course, options)}
        assert (results["honest0"].points, results["honest0"].waiting) == (5.5, 0.0)
        assert load_results(built.root, NAME)[1].points == results["honest0"].points
    page = (built.root / "feedback" / "honest0" / NAME / f"{NAME}.html").read_text()
    assert "well &lt;b&gt;said&lt;/b&gt;" in page


def test_late_work_loses_points_by_nbgraders_plugin(built):
    a_class(built, copies=1)
    (built.root / "late_policy.py").write_text(
        "from nbgrader.plugins import BasePlugin\n\n\nclass OnePoint(BasePlugin):\n"
        "    def late_submission_penalty(self, student_id, score, total_seconds_late):\n        return 1.0\n"
    )
    config = built.root / "nbgrader_config.py"
    config.write_text(
        config.read_text() + "\nimport sys\nsys.path.insert(0, " + repr(str(built.root)) + ")\n"
        "from late_policy import OnePoint\nc.AssignLatePenalties.plugin_class = OnePoint\n"
    )
    lab, course = built.lab("1"), NbgraderCourse(built)
    grade_lab(lab, course, OPTIONS)
    with sqlite3.connect(built.root / "gradebook.db") as base:
        base.execute("update assignment set duedate = '2026-01-01 00:00:00'")
    for student, stamp in (("honest0", "2026-01-01 01:00:00 UTC"), ("half_right0", "2025-12-31 23:00:00 UTC")):
        (built.root / "submitted" / student / NAME / "timestamp.txt").write_text(stamp)
    results = {r.student: r for r in grade_lab(lab, course, OPTIONS)}
    assert (results["honest0"].seconds_late, results["honest0"].penalty, results["honest0"].points) == (
        3600.0,
        1.0,
        3.0,
    )
    assert results["honest0"].submitted_at == "2026-01-01T01:00:00+00:00"
    assert (results["half_right0"].seconds_late, results["half_right0"].points) == (0.0, 1.0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def cluster(tmp_path):
    """(address, function that starts a worker) of a Dask scheduler on this machine."""
    address = f"tcp://127.0.0.1:{_free_port()}"
    host, port = address.removeprefix("tcp://").split(":")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = lambda *words: subprocess.Popen(  # noqa: E731
        [sys.executable, "-m", "distributed.cli." + words[0], *words[1:]], cwd=tmp_path, env=env,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    processes = [start("dask_scheduler", "--host", host, "--port", port, "--no-dashboard")]
    options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(tmp_path))

    def start_worker() -> subprocess.Popen:
        processes.append(start("dask_worker", address, "--name", f"w{len(processes)}", *options))
        with Client(address, timeout=60, set_as_default=False) as client:
            client.wait_for_workers(sum(process.poll() is None for process in processes[1:]), timeout=60)
        return processes[-1]

    try:
        yield address, start_worker
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_cluster_that_loses_a_worker_gives_the_same_results(built, reference, cluster):
    address, start_worker = cluster
    workers = [start_worker(), start_worker()]
    a_class(built, copies=3)

    class Killer(Watch):
        def finished(self, student, outcome):
            super().finished(student, outcome)
            if self.done == 3:
                workers[0].kill()

    options = dataclasses.replace(OPTIONS, scheduler=address)
    results = grade_lab(built.lab("1"), NbgraderCourse(built), options, Killer())
    assert workers[0].poll() is not None
    assert (essence(results), gradebook(built.root)) == reference


def test_a_cluster_that_loses_every_worker_that_has_the_kit_sends_it_again(built, reference, cluster):
    address, start_worker = cluster
    first = start_worker()
    a_class(built, copies=3)

    class Replacer(Watch):
        def finished(self, student, outcome):
            super().finished(student, outcome)
            if self.done == 3:
                start_worker()
                first.kill()

    options = dataclasses.replace(OPTIONS, scheduler=address)
    results = grade_lab(built.lab("1"), NbgraderCourse(built), options, Replacer())
    assert first.poll() is not None
    assert (essence(results), gradebook(built.root)) == reference


def test_without_a_cluster_the_message_names_the_address_before_anything_runs(built):
    a_class(built, copies=1)
    address = f"tcp://127.0.0.1:{_free_port()}"
    with pytest.raises(CourseError, match=f"no Dask cluster .*{address}"):
        grade_lab(built.lab("1"), NbgraderCourse(built), dataclasses.replace(OPTIONS, scheduler=address))
    assert not (built.root / "grades").exists()


def _postgres() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@pytest.fixture
def postgres(tmp_path):
    """Address of a fresh PostgreSQL database."""
    pytest.importorskip("psycopg2", reason="psycopg2 is not installed")
    programs = _postgres()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed (Debian: apt install postgresql)")
    folder, port = Path(tempfile.mkdtemp(prefix="course-postgres-", dir="/tmp")), _free_port()  # a short path: sockets
    user = {"user": "postgres"} if os.geteuid() == 0 else {}
    if user:
        shutil.chown(folder, "postgres")
    run = lambda *words: subprocess.run(words, cwd=folder, check=True, capture_output=True, **user)  # noqa: E731
    run(str(programs / "initdb"), "-D", str(folder / "db"), "-A", "trust", "-U", "course", "--locale=C",
        "--encoding=UTF8")
    options = f"-p {port} -k {folder} -h 127.0.0.1"
    run(str(programs / "pg_ctl"), "-D", str(folder / "db"), "-o", options, "-w", "-l", str(folder / "log"), "start")
    try:
        yield f"postgresql+psycopg2://course@127.0.0.1:{port}/postgres"
    finally:
        run(str(programs / "pg_ctl"), "-D", str(folder / "db"), "-m", "immediate", "stop")
        shutil.rmtree(folder)


def test_postgresql_as_gradebook(built, reference, postgres):
    from sqlalchemy import create_engine, text

    a_class(built, copies=3)
    results = grade_lab(built.lab("1"), NbgraderCourse(built, db_url=postgres), OPTIONS)
    assert essence(results) == reference[0]
    query = (
        "select s.student_id, b.name, g.auto_score from grade g join base_cell b on g.cell_id = b.id "
        "join submitted_notebook n on g.notebook_id = n.id join submitted_assignment s on n.assignment_id = s.id"
    )
    with create_engine(postgres).connect() as connection:
        assert {(student, cell): score for student, cell, score in connection.execute(text(query))} == reference[1]
    assert not (built.root / "gradebook.db").exists()


def test_records_are_json_that_other_programs_read(built):
    a_class(built, copies=1)
    grade_lab(built.lab("1"), NbgraderCourse(built), OPTIONS)
    data = json.loads((built.root / "grades" / NAME / "honest0.json").read_text())
    assert {"start", "import", "cells", "conversion", "verify", "record"} <= data["stage_seconds"].keys()
    assert data["cells"][0]["seconds"] > 0
