"""Which labs run code of an exercise that is a stub in the bundle?

A lab's notebook, and what it imports from course_utils, may use the reference implementation of an exercise: the
masks of an earlier lab, say. In a bundle without that solution the lab would stop there, so the release says so first.
Found by reading imports; nothing is executed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass

from course_admin.build.lab import read_lab
from course_admin.build.source import Cell
from course_admin.paths import Lab, Repository
from course_admin.stubs import (
    PACKAGE,
    Exercise,
    absolute,
    defining_file,
    exercises_of,
    package_sources,
    stubbed_package,
    syntax_tree,
)


@dataclass(frozen=True)
class Need:
    """A lab whose given code uses an exercise: where the name is used, and which exercise it is."""

    lab: Lab
    where: str
    exercise: Exercise

    def __str__(self) -> str:
        owner = "its own" if self.exercise.lab == self.lab else f"{self.exercise.lab.title}'s"
        return f"{self.lab.title} uses {owner} solution {self.exercise.name} in {self.where}"


def needs_of(
    labs: Iterable[Lab], hidden: Iterable[Lab], repository: Repository, executed: Iterable[str] = ()
) -> list[Need]:
    """Every use of a hidden lab's exercise by what some labs give to students.

    Args:
        labs: the labs of the bundle.
        hidden: labs whose exercises are stubs in the bundle.
        repository: where course_utils and the text sources are.
        executed: sources that run in every one of the labs beside what students are given: sealed checks, for example.

    Returns:
        One Need for each lab, place and exercise.
    """
    hidden = list(hidden)
    sources = package_sources(repository)
    bundled = stubbed_package(repository, hidden)  # what a stub's body would have used does not count
    stubs = [exercise for lab in hidden for exercise in exercises_of(lab, sources)]
    names = {exercise: {exercise.name} | _callers(exercise, stubs, sources) for exercise in stubs}
    found = []
    for lab in labs:
        code = [_given_code(read_lab(lab, repository)), *executed]
        given = {f"solutions/{lab.name}.py": "\n\n".join(code)}
        for file in _reachable(given, bundled):
            given[file] = bundled[file]
        for where, text in given.items():
            found += [Need(lab, where, exercise) for exercise in stubs if _uses(text, where, exercise, names, sources)]
    return found


def hidden_from(lab: Lab, repository: Repository, executed: Iterable[str] = ()) -> list[Lab]:
    """The labs whose solutions are not needed when one lab is executed with its students' own.

    Args:
        lab: the lab; its own exercises are always hidden.
        repository: where course_utils and the text sources are.
        executed: see `needs_of`.

    Returns:
        All labs of the repository but those whose exercises the lab's given code uses, directly or through one of them.
    """
    hidden, executed = repository.all_labs(), list(executed)
    while used := {need.exercise.lab for need in needs_of([lab], hidden, repository, executed)} - {lab}:
        hidden = [other for other in hidden if other not in used]
    return hidden


def _given_code(cells: list[Cell]) -> str:
    """What students run as it is: ordinary cells. Checks are graded with the references, exercises are theirs."""
    code = (cell.text for cell in cells if cell.cell_type == "code" and cell.tag is None)
    return "\n\n".join(code)


def _reachable(given: dict[str, str], sources: dict[str, str]) -> set[str]:
    """The files of course_utils that the code imports, directly or through other files."""
    found: set[str] = set()
    waiting = list(given.items())
    while waiting:
        where, text = waiting.pop()
        new = _imported_files(text, where, sources) - found
        found |= new
        waiting += [(file, sources[file]) for file in new]
    return found


def _imported_files(text: str, where: str, sources: dict[str, str]) -> set[str]:
    """Files of course_utils that the code takes something from: of `from a import b` the file that defines b.

    A package's `__init__` imports all of its modules; what nobody takes from there is never called.
    """
    found: set[str] = set()
    for node in ast.walk(syntax_tree(text)):
        if isinstance(node, ast.Import):
            found |= {file for alias in node.names for file in _files(alias.name, sources)}
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, where)
            for alias in node.names if base.split(".")[0] == PACKAGE else ():
                defined = defining_file(base, alias.name, sources)
                found |= _files(f"{base}.{alias.name}", sources) or ({defined} if defined else set())
    return found


def _files(module: str, sources: dict[str, str]) -> set[str]:
    path = module.replace(".", "/")
    return {file for file in (f"{path}.py", f"{path}/__init__.py") if file in sources}


def _uses(text: str, where: str, exercise: Exercise, names: dict[Exercise, set[str]], sources: dict[str, str]) -> bool:
    """True when the code, in another file, reads the exercise's name or that of a function beside it that calls it.

    A notebook that only imports the name uses it too: the import is for the students' own code.
    """
    mentioned = {name for name in names[exercise] if name in text}
    if where == exercise.file or not mentioned:
        return False
    tree = syntax_tree(text)
    for name in mentioned:
        bound, modules = _bindings(tree, where, Exercise(exercise.lab, name, exercise.file), sources)
        if bound and where.startswith("solutions/"):
            return True
        if any(_reads(node, name, bound, modules) for node in ast.walk(tree)):
            return True
    return False


def _callers(exercise: Exercise, stubs: list[Exercise], sources: dict[str, str]) -> set[str]:
    """Functions and classes in the exercise's file, other than exercises, that come to call it."""
    exercises = {item.name for item in stubs if item.file == exercise.file}
    found, new = set(), {exercise.name}
    definitions = [node for node in syntax_tree(sources[exercise.file]).body if hasattr(node, "name")]
    while new:
        callers = {node.name for node in definitions for part in ast.walk(node) if _reads(part, "", new, set())}
        new = callers - exercises - found
        found |= new
    return found


def _reads(node: ast.AST, name: str, names: set[str], modules: set[str]) -> bool:
    if isinstance(node, ast.Name):
        return isinstance(node.ctx, ast.Load) and node.id in names
    return isinstance(node, ast.Attribute) and node.attr == name and ast.unparse(node.value) in modules


def _bindings(tree: ast.Module, where: str, exercise: Exercise, sources: dict[str, str]) -> tuple[set[str], set[str]]:
    """(names bound to the exercise, names of modules through which it can be reached) in a file."""
    names, modules = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname or alias.name for alias in node.names if _offers(alias.name, exercise, sources)}
        if not isinstance(node, ast.ImportFrom):
            continue
        base = absolute(node, where)
        for alias in node.names:
            if alias.name == exercise.name and defining_file(base, alias.name, sources) == exercise.file:
                names.add(alias.asname or alias.name)
            elif _offers(f"{base}.{alias.name}", exercise, sources):
                modules.add(alias.asname or alias.name)
    return names, modules


def _offers(module: str, exercise: Exercise, sources: dict[str, str]) -> bool:
    """True when module.name is the exercise."""
    return module.startswith(PACKAGE) and defining_file(module, exercise.name, sources) == exercise.file
