"""From the cells of a text source to the instructor's notebook (not yet executed).

An exercise's import becomes the function's own source with the body between nbgrader's solution markers; tags become
nbgrader's metadata; ids come from names, and for untagged cells from their content, so that an unchanged source always
gives the same notebook.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import textwrap
from collections.abc import Iterator

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from course_admin.build.markers import BEGIN_SOLUTION, END_SOLUTION, problems_in
from course_admin.build.problems import BuildError
from course_admin.build.source import Cell, check_name, parse
from course_admin.paths import Lab

KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
LANGUAGE = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}
SCHEMA_VERSION = 3  # of nbgrader's cell metadata


def instructor_notebook(cells: list[Cell], lab: Lab) -> nbformat.NotebookNode:
    """The notebook with solutions, hidden tests and nbgrader metadata. Raises BuildError, e.g. for a repeated id."""
    built, problems, ids = [], [], {}
    for cell in cells:
        try:
            notebook_cell = _expand(cell, lab)
        except BuildError as error:
            problems += error.problems
            continue
        if cell.tag and notebook_cell.id in ids:
            first = ids[notebook_cell.id]
            problems.append(
                cell.problem(f"the id {notebook_cell.id!r} is used by cell {first.number} (line {first.line}) too")
            )
        while notebook_cell.id in ids:  # the same untagged text twice is allowed
            notebook_cell.id += "x"
        ids[notebook_cell.id] = cell
        built.append(notebook_cell)
    if problems:
        raise BuildError(problems)
    return new_notebook(cells=built, metadata={"kernelspec": KERNEL, "language_info": LANGUAGE})


def _expand(cell: Cell, lab: Lab) -> nbformat.NotebookNode:
    if cell.tag == "exercise":
        return _exercise(cell, lab)
    if cell.tag == "check":
        return _tagged(cell, f"check_{check_name(cell)}", cell.text, grade=True, solution=False)
    if cell.tag == "answer":
        name = cell.options["name"]
        stub = f"*{lab.title}, {name} ({cell.points:g} points): replace this line with your answer.*"
        return _tagged(cell, f"answer_{name}", cell.text, grade=True, solution=True, stub=stub)
    digest = hashlib.sha256(f"{cell.cell_type}\n{cell.text}".encode()).hexdigest()[:12]
    new_cell = new_markdown_cell if cell.cell_type == "markdown" else new_code_cell
    return new_cell(source=cell.text, id=f"{cell.cell_type}-{digest}")


def _tagged(
    cell: Cell, name: str, source: str, *, grade: bool, solution: bool, stub: str = ""
) -> nbformat.NotebookNode:
    """A cell with nbgrader's metadata; the stub is what course_admin.nbgrader_plugins.NamedStubs releases."""
    metadata = {
        "nbgrader": {
            "cell_type": cell.cell_type,
            "grade": grade,
            "grade_id": name,
            "locked": grade and not solution,
            "schema_version": SCHEMA_VERSION,
            "solution": solution,
            "task": False,
        }
    }
    if grade:
        metadata["nbgrader"]["points"] = cell.points
    if stub:
        metadata["course"] = {"stub": stub}
    new_cell = new_markdown_cell if cell.cell_type == "markdown" else new_code_cell
    return new_cell(source=source, id=name[:64], metadata=metadata)


def _exercise(cell: Cell, lab: Lab) -> nbformat.NotebookNode:
    body = parse(cell).body
    if len(body) == 1 and isinstance(body[0], ast.ImportFrom):
        name, source = _imported_source(cell, body[0])
        stub = f'raise NotImplementedError("{lab.title}, {name}: replace this line with your code")'
        return _tagged(cell, name, with_solution_markers(source), grade=False, solution=True, stub=stub)
    if body and all(_is_literal_assignment(node) for node in body):
        names = [node.targets[0].id for node in body]
        stub = "\n".join(
            f"{name} = None  # your answer: {_kind(node.value)}" for name, node in zip(names, body, strict=True)
        )
        source = f"{BEGIN_SOLUTION}\n{cell.text}\n{END_SOLUTION}"
        return _tagged(cell, names[0], source, grade=False, solution=True, stub=stub)
    message = (
        "an exercise is one import (from course_utils.module import name) or assignments of literals (name = True)"
    )
    raise BuildError([cell.problem(message)])


def _imported_source(cell: Cell, node: ast.ImportFrom) -> tuple[str, str]:
    """(name, source text) of the one object that the exercise imports."""
    if len(node.names) != 1 or node.names[0].asname or not (node.module or "").startswith("course_utils"):
        raise BuildError([cell.problem("an exercise imports exactly one name from course_utils, without 'as'")])
    name = node.names[0].name
    where = f"{node.module}.{name}"
    try:
        source = textwrap.dedent(inspect.getsource(getattr(importlib.import_module(node.module), name)))
    except (ImportError, AttributeError, TypeError, OSError) as error:
        raise BuildError([cell.problem(f"cannot take the source of {where}: {error}")]) from None
    wrong = [message for _, message in problems_in(source.splitlines(), None)] or list(unsuitable(source))
    if wrong:
        raise BuildError([cell.problem(f"{where}: {message}") for message in wrong])
    return name, source


def unsuitable(source: str) -> Iterator[str]:
    """What in a function or class cannot be split into what students see and what they write."""
    tree = ast.parse(source).body[0]
    if not isinstance(tree, (ast.FunctionDef, ast.ClassDef)):
        yield "an exercise is a function or a class"
        return
    members = tree.body if isinstance(tree, ast.ClassDef) else [tree]
    for member in members:
        if isinstance(member, ast.FunctionDef):
            rest = member.body[_n_given(member.body) :]
            before = member.body[_n_given(member.body) - 1].end_lineno if _n_given(member.body) else member.lineno
            if not rest or rest[0].lineno <= before:
                yield f"line {member.lineno}: the body of {member.name} must begin on a line of its own"
        elif not isinstance(member, (ast.Assign, ast.AnnAssign, ast.Pass)) and not _is_docstring(member):
            yield f"line {member.lineno}: a class for students has a docstring, attributes and plain methods only"


def with_solution_markers(source: str) -> str:
    """The source of a function, or of a class, with the body of every function between solution markers.

    Signature, docstring and leading calls of argument checks (`check_...(...)`) stay outside, for students to keep.
    """
    lines = source.rstrip("\n").split("\n")
    for function in reversed(functions_of(ast.parse(source).body[0])):  # from the end: line numbers above stay true
        start, end, indent = region_to_write(function, lines)
        lines[start:end] = [indent + BEGIN_SOLUTION, *lines[start:end], indent + END_SOLUTION]
    return "\n".join(lines)


def functions_of(exercise: ast.FunctionDef | ast.ClassDef) -> list[ast.FunctionDef]:
    """The functions whose bodies students write: the exercise itself, or every method of a class."""
    members = [exercise] if isinstance(exercise, ast.FunctionDef) else exercise.body
    return [node for node in members if isinstance(node, ast.FunctionDef)]


def region_to_write(function: ast.FunctionDef, lines: list[str]) -> tuple[int, int, str]:
    """(first line, line after the last, indentation) of what students write, comments around it included."""
    n_given = _n_given(function.body)
    rest = function.body[n_given:]
    indent = " " * rest[0].col_offset
    first = min([rest[0].lineno, *(item.lineno for item in getattr(rest[0], "decorator_list", []))]) - 1
    start = function.body[n_given - 1].end_lineno if n_given else first
    while not n_given and lines[start - 1].startswith(indent + "#"):
        start -= 1
    while not lines[start].strip():
        start += 1
    end = rest[-1].end_lineno
    while end < len(lines) and lines[end].startswith(indent) and lines[end].lstrip().startswith("#"):
        end += 1
    return start, end, indent


def _n_given(body: list[ast.stmt]) -> int:
    """How many leading statements students see: the docstring and argument checks; never the last statement."""
    return sum(_is_given(body, index) for index in range(len(body)))


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_given(body: list[ast.stmt], index: int) -> bool:

    def opening(i: int, node: ast.stmt) -> bool:
        value = node.value if isinstance(node, ast.Expr) else None
        if i == 0 and _is_docstring(node):
            return True
        return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id.startswith("check_")

    return index < len(body) - 1 and all(opening(i, node) for i, node in enumerate(body[: index + 1]))


def _is_literal_assignment(node: ast.stmt) -> bool:
    if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
        return False
    try:
        ast.literal_eval(node.value)
    except ValueError:
        return False
    return True


def _kind(node: ast.expr) -> str:
    """What a student is asked for, judged by the type of the right answer."""
    value = ast.literal_eval(node)
    kinds = {bool: "True or False", int: "a whole number", float: "a number", str: "a string in quotes", list: "a list"}
    return kinds.get(type(value), f"a {type(value).__name__}")
