"""A copy of course_utils in which the exercises under grading have no answer."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

from course_admin.build.expand import with_solution_markers
from course_admin.build.markers import BEGIN_SOLUTION, END_SOLUTION, regions

MESSAGE = 'raise NotImplementedError("the reference is not here while it is graded")'
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


def copy_course_utils(package: Path, target: Path, exercises: set[str]) -> None:
    """Copy the package.

    Args:
        package: the folder course_utils.
        target: the folder to make.
        exercises: names of functions and classes whose bodies are replaced, wherever in the package they are defined at
            the top level of a module, with the private functions that only they use. Empty: nothing is replaced.
    """
    shutil.copytree(package, target, ignore=IGNORED)
    for path in target.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        stubbed = without_answers(source, exercises)
        if stubbed != source:
            path.write_text(stubbed, encoding="utf-8")


def without_answers(source: str, exercises: set[str]) -> str:
    """The source of a module with the bodies of the exercises (and of their private helpers) replaced by stubs."""
    tree = ast.parse(source)
    found = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in exercises]
    if not found:
        return source
    found += _helpers(tree, {node.name for node in found})
    lines = source.split("\n")
    for node in sorted(found, key=lambda node: node.lineno, reverse=True):
        first = min([node.lineno, *(item.lineno for item in node.decorator_list)]) - 1
        lines[first : node.end_lineno] = _stub("\n".join(lines[first : node.end_lineno])).split("\n")
    return "\n".join(lines)


def _helpers(tree: ast.Module, exercises: set[str]) -> list[ast.FunctionDef]:
    """Private functions of the module that nothing but the exercises (or other such helpers) reads."""
    private = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("_")}
    hidden = set(exercises)
    while True:
        read = {
            name.id
            for node in tree.body
            if getattr(node, "name", None) not in hidden
            for name in ast.walk(node)
            if isinstance(name, ast.Name) and name.id != getattr(node, "name", None)
        }
        more = private.keys() - hidden - read
        if not more:
            return [private[name] for name in hidden - exercises]
        hidden |= more


def _stub(source: str) -> str:
    lines = with_solution_markers(source).split("\n")
    for start, end in reversed(list(regions(lines, BEGIN_SOLUTION, END_SOLUTION))):
        indent = lines[start][: len(lines[start]) - len(lines[start].lstrip())]
        lines[start : end + 1] = [indent + MESSAGE]
    return "\n".join(lines)
