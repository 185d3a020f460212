"""course_utils without the answers."""

from __future__ import annotations

import ast
import inspect

import pytest

from course_admin.build.expand import functions_of
from course_admin.paths import CourseError, Lab, Repository
from course_admin.stubs import Exercise, exercises_of, package_sources, stub_out, stubbed_package

REPOSITORY = Repository.find()
LABS = REPOSITORY.all_labs()
EACH_LAB = pytest.mark.parametrize("lab", LABS, ids=lambda lab: lab.name)

MODULE = '''\
"""A module."""

import math


def _half(x):
    return x / 2


def _quarter(x):
    return _half(_half(x)) if x else _quarter(x)


def _shared(x):
    return -x


def given(x):
    return _shared(x)


def task(x):
    """Do it."""
    check_it("x", x)
    # the idea
    return _quarter(_shared(x))
    # the end


class Counter:
    """Count."""

    start = 0

    @property
    def value(self):
        """The count."""
        return self._value + math.pi

    def add(self, n):
        self._value += n
'''


def _lab(tmp_path, text=""):
    source = tmp_path / "lab9_tiny.py"
    source.write_text(text, encoding="utf-8")
    return Lab(source)


def _define(source: str) -> dict:
    namespace = {"check_it": lambda name, value: None}
    exec(compile(source, "<stubbed>", "exec"), namespace)
    return namespace


def test_a_function_keeps_signature_docstring_and_argument_checks_only(tmp_path):
    text = stub_out(MODULE, [Exercise(_lab(tmp_path), "task", "course_utils/m.py")])
    task = next(node for node in ast.parse(text).body if getattr(node, "name", "") == "task")
    assert [ast.unparse(node).split("(")[0] for node in task.body] == ["'Do it.'", "check_it", "raise NotImplementedError"]
    assert "the idea" not in text
    assert "the end" not in text
    with pytest.raises(NotImplementedError, match="Lab 9, task: its solution is not part of this copy"):
        _define(text)["task"](1)


def test_private_functions_go_with_the_only_exercise_that_used_them_and_others_stay(tmp_path):
    stubbed = _define(stub_out(MODULE, [Exercise(_lab(tmp_path), "task", "course_utils/m.py")]))
    for name in ("_quarter", "_half"):
        with pytest.raises(NotImplementedError, match=f"Lab 9, {name}"):
            stubbed[name](1.0)
    assert stubbed["given"](3) == -3


def test_every_method_of_a_class_loses_its_body_and_attributes_stay(tmp_path):
    counter = _define(stub_out(MODULE, [Exercise(_lab(tmp_path), "Counter", "course_utils/m.py")]))["Counter"]
    assert counter.start == 0
    with pytest.raises(NotImplementedError, match="Lab 9, Counter"):
        counter().add(1)
    with pytest.raises(NotImplementedError, match="Lab 9, Counter"):
        _ = counter().value


@EACH_LAB
def test_every_exercise_of_a_lab_is_a_stub_and_nothing_else_changes(lab):
    original, stubbed = package_sources(REPOSITORY), stubbed_package(REPOSITORY, [lab])
    exercises = exercises_of(lab, original)
    assert exercises
    assert original.keys() == stubbed.keys()
    changed = {file for file in original if original[file] != stubbed[file]}
    assert changed == {exercise.file for exercise in exercises}
    for exercise in exercises:
        node = next(n for n in ast.parse(stubbed[exercise.file]).body if getattr(n, "name", "") == exercise.name)
        for function in functions_of(node):
            last = ast.unparse(function.body[-1])
            assert last.startswith(f"raise NotImplementedError('{lab.title}, {exercise.name}: ")
            assert all(isinstance(statement, ast.Expr) for statement in function.body[:-1])
    for file in changed:
        names = {exercise.name for exercise in exercises}
        assert _signatures(original[file]) == _signatures(stubbed[file])
        assert _others(original[file], names) == _others(stubbed[file], names)


def _signatures(source: str) -> list[tuple]:
    functions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    top = [f for f in functions if ast.get_docstring(f)]
    return [(f.name, ast.unparse(f.args), inspect.cleandoc(ast.get_docstring(f))) for f in top]


def _others(source: str, names: set[str]) -> list[str]:
    """The public rest of a module; private helpers may have gone with the exercises."""
    rest = [node for node in ast.parse(source).body if getattr(node, "name", "") not in names]
    return [ast.unparse(node) for node in rest if not getattr(node, "name", "").startswith("_")]


def test_an_exercise_that_course_utils_does_not_define_is_named(tmp_path):
    lab = _lab(tmp_path, "# %% exercise\nfrom course_utils.pruning import no_such_thing\n")
    with pytest.raises(CourseError, match="course_utils.pruning defines no no_such_thing"):
        stubbed_package(REPOSITORY, [lab])
