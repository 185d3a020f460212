"""Wrong answers and correct variants of a lab's exercises.

The file tests/wrong_answers/<lab>.py holds functions that answer an exercise, each named like the exercise and marked
@wrong("what is wrong") or @correct("what is different"), and wrong_value(...) for questions answered by a value. The
hidden checks must reject the first kind and accept the second; the demo's students hand some of them in.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course_admin.paths import CourseError, Lab, Repository


@dataclass(frozen=True)
class Answer:
    """One answer to an exercise: the object that a check meets, and the source that a notebook cell would hold."""

    exercise: str
    label: str
    is_correct: bool
    value: Any
    source: str

    def __str__(self) -> str:
        return f"{self.exercise}-{self.label}".replace(" ", "_")


ANSWERS: list[Answer] = []


def _source_without_decorator(function: Callable) -> str:
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(("def ", "class ")))
    return "\n".join(lines[first:])


def _register(label: str, is_correct: bool) -> Callable[[Any], Any]:
    def keep(function: Any) -> Any:
        source = _source_without_decorator(function)
        ANSWERS.append(Answer(function.__name__, label, is_correct, function, source))
        return function

    return keep


def wrong(label: str) -> Callable[[Any], Any]:
    """Mark a function or class as a wrong answer to the exercise of the same name; label says what is wrong."""
    return _register(label, is_correct=False)


def correct(label: str) -> Callable[[Any], Any]:
    """Mark a function or class as a correct answer that differs from the reference; label says how."""
    return _register(label, is_correct=True)


def wrong_value(exercise: str, value: Any, label: str = "wrong value") -> None:
    """Register a wrong literal answer."""
    ANSWERS.append(Answer(exercise, label, False, value, f"{exercise} = {value!r}"))


def answers_to(lab: Lab, repository: Repository) -> list[Answer]:
    """All answers in tests/wrong_answers/<lab>.py, in the order of the file."""
    return _load(repository.root / "tests" / "wrong_answers" / f"{lab.name}.py")


@functools.cache
def _load(path: Path) -> list[Answer]:
    if not path.is_file():
        raise CourseError(f"{path} is missing; every lab needs its wrong answers")
    spec = importlib.util.spec_from_file_location(f"wrong_answers_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # inspect finds the source of classes through it
    before = len(ANSWERS)
    spec.loader.exec_module(module)
    found = ANSWERS[before:]
    del ANSWERS[before:]
    return found
