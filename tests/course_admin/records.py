"""Made-up grading records: a class with better and worse students, for tests of everything that reads records."""

from __future__ import annotations

import random

from course_admin.grading.results import CellResult, CheckResult, Result

LAB = "lab1_tiny"
EXERCISES = {"objective": 2, "gradient": 3, "gradient_descent": 4, "soft_threshold": 4, "proximal_gradient_descent": 5}
PROBLEMS = ("wrong value", "wrong shape", "ValueError was raised", "not implemented yet")


def cell(name: str, points: float | None, maximum: float, *passed: bool, seconds: float = 0.1) -> CellResult:
    """A graded cell with checks called 'check 0', 'check 1', ...: the later half is hidden."""
    checks = tuple(
        CheckResult(f"check {k}", ok, "" if ok else "wrong value", "look again", visible=2 * k < len(passed))
        for k, ok in enumerate(passed)
    )
    return CellResult(name, points, maximum, checks, seconds)


def result(student: str, *cells: CellResult, outcome: str = "graded", **options) -> Result:
    """One record of the made-up lab."""
    return Result(student, LAB, outcome, cells=cells, **options)


def student_result(student: str, ability: float, rng: random.Random, lab: str = LAB, marked: bool = True) -> Result:
    """A record in which a student of ability 0 (nothing) to 1 (everything) passes checks of growing difficulty."""
    cells = []
    for place, (name, maximum) in enumerate(EXERCISES.items()):
        written = rng.random() < ability + 0.45
        checks = []
        for k in range(5):
            passed = written and rng.random() < min(0.98, max(0.02, ability + 0.35 - 0.09 * place - 0.05 * k))
            problem = "" if passed else rng.choice(PROBLEMS[:3]) if written else PROBLEMS[3]
            checks.append(CheckResult(f"{name} property {k}", passed, problem, f"hint {k} <about> {name}", k < 3))
        points = round(maximum * sum(check.passed for check in checks) / len(checks), 2)
        cells.append(
            CellResult(f"check_{name}", points, maximum, tuple(checks), rng.lognormvariate(-2 + place / 2, 0.5))
        )
    answer = round(4 * ability) if marked else None
    cells.append(CellResult("answer_bias", answer, 4))
    return Result(
        student, lab, "graded", cells=tuple(cells), stage_seconds={"start": 0.3, "cells": rng.lognormvariate(1, 0.4)}
    )


def made_up_class(n: int, seed: int = 1, lab: str = LAB) -> list[Result]:
    """n honest students, named s00, s01, ..."""
    rng = random.Random(seed)
    return [student_result(f"s{k:02}", rng.betavariate(3, 2), rng, lab) for k in range(n)]


def unlucky(lab: str = LAB) -> list[Result]:
    """Submissions with every other outcome, hostile names, flags, repairs and late work."""
    rng = random.Random(99)
    named = '=cmd("calc"),<script>alert(1)</script>'
    return [
        Result("doe, jr", lab, "missing", reason="no notebook was handed in"),
        Result("émile", lab, "unreadable", reason="the file is not a notebook: <b>not JSON</b>"),
        Result(
            "kernel", lab, "crashed", reason="the kernel died in cell 12", cells=(cell("check_objective", 2, 2, True),)
        ),
        Result(
            "slow",
            lab,
            "timed out",
            reason="cell 9 took longer than 60 s",
            cells=(cell("check_objective", 1, 2, True),),
        ),
        Result(
            "mallory",
            lab,
            "tampered",
            cells=student_result("x", 0.2, rng).cells,
            flags=("replaced the checks module", named),
            repairs=("a deleted graded cell was put back",),
        ),
        Result(
            "late one",
            lab,
            "graded",
            cells=student_result("x", 0.7, rng).cells,
            seconds_late=93784.0,
            submitted_at="2026-11-21T02:03:04+00:00",
            repairs=("the file began with a byte-order mark", "@SUM(A1:A9)"),
        ),
    ]
