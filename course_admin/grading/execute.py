"""Execute one submission: bytes in, JSON bytes out, nothing remembered. Runs in a worker, outside of the sandbox.

A cell that is stopped, or that takes the kernel with it, costs what it would have earned and no more: the others are
run in a fresh kernel without it. A submission that touches the machinery of grading is run a second time: the released
notebook with nothing but the definitions of its solution cells, and that is what counts.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

from course_admin.grading import tamper
from course_admin.grading.bubblewrap import Limits
from course_admin.grading.kernel import Kernel, Run
from course_admin.grading.kit import Kit
from course_admin.grading.repair import Cell, Repaired, Unreadable, repair
from course_admin.grading.sandbox import Zygote
from course_admin.paths import CourseError

MOST_KERNELS = 6  # for one notebook; so many cells may take a kernel with them
CELLS_OF_OUTPUT = 4  # a notebook may show so many times what one cell may
SEVERITY = ("output too large", "crashed", "timed out", "out of memory", "tampered")
MEASURE = "from course_utils.checks.sealed import measure_all\n"
WORDS = {
    "crashed": "ended the kernel",
    "timed out": "ran longer than {seconds:g} s and was stopped",
    "out of memory": "used more than {memory:.1f} GiB of memory and was stopped",
    "too many processes": "started more than {processes} processes and was stopped",
    "output too large": "wrote more than {output:.0f} MiB of output, which was cut",
    "tampered": "wrote outside of its folder and was stopped",
}


@dataclass
class Step:
    """One code cell to run. check: (name, kind) of its checks where it is a graded cell."""

    title: str
    source: str
    cell: Cell | None = None
    check: list[list[str]] | None = None
    name: str = ""
    run: Run | None = None


@dataclass
class Pass:
    """One way through a notebook."""

    steps: list[Step]
    outcome: str = "graded"
    reasons: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: {"start": 0.0, "import": 0.0, "cells": 0.0})
    n_bytes: int = 0  # of output so far

    def worsen(self, outcome: str, reason: str) -> None:
        """Note a reason; of several outcomes the gravest stays."""
        self.reasons.append(reason)
        rank = SEVERITY.index
        if self.outcome == "graded" or rank(outcome) > rank(self.outcome):
            self.outcome = outcome


def execute_safely(submission: bytes, kit: Kit, zygote: Zygote) -> bytes:
    """The same, but what goes wrong is tried twice and then reported: no submission may end the worker that runs it."""
    for _ in range(2):
        try:
            return execute(submission, kit, zygote)
        except Exception as error:  # RecursionError in a parser, for example
            problem = str(error) if isinstance(error, (CourseError, OSError)) else f"{type(error).__name__}: {error}"
            zygote.close()
    return _answer(outcome="crashed", reason=f"the grader could not run it: {problem}"[:1000], try_again=True)


def execute(submission: bytes, kit: Kit, zygote: Zygote) -> bytes:
    """Repair and run one submission.

    Args:
        submission: the file that was handed in.
        kit: the lab.
        zygote: where kernels come from.

    Returns:
        JSON: outcome, reason, repairs, flags, notebook (executed), records by graded cell, seconds by cell and stage.
    """
    start = time.monotonic()
    try:
        found = repair(submission, kit)
    except Unreadable as error:
        return _answer(outcome="unreadable", reason=str(error))
    repaired = time.monotonic() - start
    steps = _steps(found, kit)
    first = run_steps(steps, zygote, kit.environment)
    first.flags[:0] = [
        f"{step.title} {problem}" for step in steps if step.check is None for problem in tamper.in_source(step.source)
    ]
    for step in steps:
        step.cell.outputs = step.run.outputs if step.run and step.check is None else []
    counted = first
    if first.flags:
        counted = run_steps(_steps_of_definitions(found, kit), zygote, kit.environment)
        _distrust(counted)
        first.worsen(
            "tampered", "the notebook interferes with its grading; only the functions that it defines were graded"
        )
    measure(counted, kit, zygote)
    private = [step.title for step in steps if step.check is None and tamper.looks_around(step.source)]
    return _answer(
        outcome=first.outcome,
        reason="; ".join(dict.fromkeys([*first.reasons, *(counted.reasons if counted is not first else [])]))[:1000],
        repairs=found.repairs,
        flags=list(dict.fromkeys(first.flags))[:20],
        notebook=found.as_json(),
        cells={step.name: _graded(step) for step in counted.steps if step.check is not None},
        cell_seconds=[[step.title, round(step.run.seconds, 4)] for step in steps if step.run],
        withhold_outputs=bool(private) or first.outcome == "tampered",
        seconds={**first.seconds, "conversion": repaired},
    )


def _answer(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def _graded(step: Step) -> dict:
    """What verification needs of a graded cell."""
    run = step.run
    if run is None:
        return {"state": "not run", "record": None, "seconds": 0.0}
    state = run.ended or ("raised" if run.raised else "ran")
    record = run.records[0] if len(run.records) == 1 and not run.ended else None
    return {"state": state, "raised": run.raised, "record": record, "seconds": run.seconds}


def _steps(found: Repaired, kit: Kit) -> list[Step]:
    """The code cells of a submission that hold anything; of a graded cell the sealed source."""
    names = {id(cell): name for name, cell in found.named.items()}
    steps = []
    for number, cell in enumerate(found.cells, 1):
        name = names.get(id(cell), "")
        if cell.cell_type != "code" or (name not in kit.sealed and tamper.does_nothing(cell.source)):
            continue
        if name in kit.sealed:
            steps.append(Step(f"the graded cell {name}", kit.sealed[name], cell, kit.checks.get(name, []), name))
        else:
            title = f"the cell {name}" if name else f"cell {number}"
            steps.append(Step(title, cell.source, cell, None, name))
    return steps


def _steps_of_definitions(found: Repaired, kit: Kit) -> list[Step]:
    """The released notebook with the definitions of the submission's solution cells in place of the stubs."""
    steps = []
    for planned in (cell for cell in kit.cells if cell.cell_type == "code"):
        if planned.is_check:
            source, check = kit.sealed[planned.name], kit.checks.get(planned.name, [])
        elif planned.solution:
            mine = found.named.get(planned.name)
            source, check = tamper.only_definitions(mine.source) if mine is not None else "", None
        else:
            source, check = planned.source, None
        steps.append(Step(planned.name or planned.id, source, None, check, planned.name))
    return steps


def _distrust(counted: Pass) -> None:
    """Where even the definitions interfere, graded cells from there on have no record."""
    spoilt = False
    for step in counted.steps:
        if step.run is None:
            continue
        spoilt = spoilt or bool(tamper.in_run(step.title, step.run, step.check))
        if spoilt and step.check is not None:
            step.run.records = []


def measure(counted: Pass, kit: Kit, zygote: Zygote) -> None:
    """Measure what is to be measured, in a kernel in which no student's code has run."""
    found = {
        step.name: _artefacts(step.run.records[0], kit.measures[step.name])
        for step in counted.steps
        if step.name in kit.measures and step.run is not None and len(step.run.records) == 1
    }
    found = {name: artefacts for name, artefacts in found.items() if artefacts}
    if not found:
        return
    kernel = Kernel(zygote, kit.environment)
    try:
        for name, artefacts in found.items():
            source = f"{MEASURE}measure_all({artefacts!r}, {kit.measures[name]!r})"
            run = kernel.run(source, timeout=zygote.limits.cell_s)
            numbers = run.records[0] if len(run.records) == 1 else {}
            step = next(step for step in counted.steps if step.name == name)
            for item in step.run.records[0]["checks"]:
                if item["name"] in artefacts and item["name"] in numbers:
                    item["actual"] = numbers[item["name"]]
            if run.kernel_lost:
                return
    finally:
        kernel.close()


def _artefacts(record: Any, measures: dict[str, str]) -> dict[str, dict]:
    """The checks of a record that hold something to measure; numbers that a kernel claims for them do not count."""
    found = {}
    checks = record.get("checks") if isinstance(record, dict) else None
    for item in checks if isinstance(checks, list) else ():
        if isinstance(item, dict) and item.get("name") in measures:
            actual = item.get("actual")
            made = actual.get("artefact") if isinstance(actual, dict) else None
            if isinstance(made, dict) and "value" in made:
                found[item["name"]] = {"artefact": made}
            if not isinstance(made, dict):
                item["actual"] = {"problem": ["not measured", "the record holds nothing to measure"]}
    return found


def run_steps(steps: list[Step], zygote: Zygote, environment: dict[str, str]) -> Pass:
    """Run cells in a fresh kernel, and without those that end it in another one, until all have had their turn."""
    way, skipped = Pass(steps), set()
    deadline = time.monotonic() + zygote.limits.notebook_s
    for _ in range(MOST_KERNELS):
        if not _run_once(way, skipped, zygote, environment, deadline):
            break
        if not any(step.run is None for step in steps):
            break
    return way


def _run_once(way: Pass, skipped: set[int], zygote: Zygote, environment: dict[str, str], deadline: float) -> bool:
    """One kernel's way through the cells. Returns whether it was lost, so that another one has to go on."""
    warm = zygote.import_seconds
    kernel = Kernel(zygote, environment)
    imports = zygote.import_seconds if zygote.import_seconds != warm else 0.0
    way.seconds["import"] += imports
    way.seconds["start"] += max(kernel.start_seconds - imports, 0.0)
    try:
        for number, step in enumerate(way.steps):
            if number in skipped or (step.run is not None and not _may_matter_later(way.steps, number)):
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                way.worsen("timed out", f"the notebook ran longer than {zygote.limits.notebook_s:g} s and was stopped")
                return False
            probe = tamper.PROBE if _is_watched(way.steps, number) else ""
            most = CELLS_OF_OUTPUT * zygote.limits.output_bytes - way.n_bytes
            run = kernel.run(step.source, timeout=min(zygote.limits.cell_s, left), probe=probe, most_bytes=most)
            way.seconds["cells"] += run.seconds
            way.n_bytes += min(run.n_bytes, zygote.limits.output_bytes)
            if step.run is None:
                step.run = run
                _judge_run(way, step, zygote.limits)
            if run.kernel_lost:
                skipped.add(number)
                return True
    finally:
        kernel.close()
    return False


def _is_watched(steps: list[Step], number: int) -> bool:
    """Whether to look at the machinery after a cell: after every graded one, and after the last one before it."""
    return any(step.check is not None for step in steps[number : number + 2])


def _may_matter_later(steps: list[Step], number: int) -> bool:
    """Whether a cell that has been run must be run again in a fresh kernel: while one after it waits for its turn."""
    return any(step.run is None for step in steps[number + 1 :])


def _judge_run(way: Pass, step: Step, limits: Limits) -> None:
    run = step.run
    way.flags += tamper.in_run(step.title, run, step.check)
    problem = run.ended or ("output too large" if run.cut else "")
    if problem:
        numbers = {"seconds": limits.cell_s, "memory": limits.memory_bytes / 2**30, "processes": limits.processes}
        sentence = WORDS[problem].format(**numbers, output=limits.output_bytes / 2**20)
        way.worsen("crashed" if problem == "too many processes" else problem, f"{step.title} {sentence}")
    if problem == "tampered":
        way.flags.append(f"{step.title} wrote into the folder of the grader's sockets")
