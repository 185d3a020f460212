"""course_utils without the answers: the same package with the reference body of every exercise taken out.

The students' bundle and the sandbox that grades them hold this copy. Signature, docstring and leading argument checks
stay, as in the released cell; the body becomes a NotImplementedError that names lab and exercise. Nothing is imported
or executed: exercises are found in the labs' text sources and followed through the package's own imports.
"""

from __future__ import annotations

import ast
import functools
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import course_utils
from course_admin.build.expand import functions_of, region_to_write
from course_admin.build.source import Cell, parse, read_source
from course_admin.paths import CourseError, Lab, Repository

PACKAGE = "course_utils"
SKIPPED = ("__pycache__", ".ipynb_checkpoints", "cache", "*.pyc", "*.partial", ".*")  # never copied


@dataclass(frozen=True)
class Exercise:
    """One exercise of a lab: the name that students define, and the file that holds its reference implementation.

    file is relative to the folder that holds course_utils, with slashes: "course_utils/pruning/magnitude.py".
    """

    lab: Lab
    name: str
    file: str


def stubbed_package(repository: Repository, labs: Iterable[Lab]) -> dict[str, str]:
    """The source of course_utils with the reference bodies of some labs' exercises replaced by stubs.

    Args:
        repository: where course_utils and the labs' text sources are.
        labs: whose exercises lose their bodies; the others keep theirs.

    Returns:
        Path relative to the folder that holds course_utils ("course_utils/pruning/magnitude.py") -> source text, for
        every Python file of the package.

    Raises:
        CourseError: if an exercise cannot be found in course_utils, or a lab's text source has mistakes.
    """
    sources = package_sources(repository)
    by_file: dict[str, list[Exercise]] = {}
    for lab in labs:
        for exercise in exercises_of(lab, sources):
            by_file.setdefault(exercise.file, []).append(exercise)
    return {**sources, **{file: stub_out(sources[file], found) for file, found in by_file.items()}}


def write_package(repository: Repository, labs: Iterable[Lab], folder: Path) -> None:
    """Write folder/course_utils: its Python files without the bodies of some labs' exercises, other files as they are.

    Args:
        repository: where course_utils and the labs' text sources are.
        labs: whose exercises lose their bodies.
        folder: where to write; it has no course_utils yet.

    Raises:
        CourseError: as `stubbed_package`.
    """
    texts = stubbed_package(repository, labs)
    shutil.copytree(package_folder(repository), folder / PACKAGE, ignore=shutil.ignore_patterns(*SKIPPED, "*.py"))
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def package_folder(repository: Repository) -> Path:
    """The repository's course_utils; the installed one for a repository that has only labs."""
    own = repository.root / PACKAGE
    return own if own.is_dir() else Path(course_utils.__file__).parent


def package_sources(repository: Repository) -> dict[str, str]:
    """Path -> source text of every Python file of course_utils, as it is."""
    folder = package_folder(repository)
    paths = sorted(folder.rglob("*.py"))
    return {f"{PACKAGE}/{path.relative_to(folder).as_posix()}": path.read_text(encoding="utf-8") for path in paths}


def exercises_of(lab: Lab, sources: dict[str, str]) -> list[Exercise]:
    """The exercises of a lab that have a reference implementation in course_utils, in the order of the lab."""
    imports = [(cell, imported(cell)) for cell in read_source(lab.source) if cell.tag == "exercise"]
    found = []
    for cell, node in imports:
        if node is not None:  # otherwise the exercise is answered by values in the notebook itself
            name = node.names[0].name
            file = defining_file(node.module, name, sources)
            if file is None:
                raise CourseError(str(cell.problem(f"{node.module} defines no {name}")))
            found.append(Exercise(lab, name, file))
    return found


def imported(cell: Cell) -> ast.ImportFrom | None:
    """The import from course_utils that an exercise cell consists of, if it does."""
    body = parse(cell).body
    is_import = len(body) == 1 and isinstance(body[0], ast.ImportFrom) and (body[0].module or "").startswith(PACKAGE)
    return body[0] if is_import else None


def defining_file(module: str, name: str, sources: dict[str, str]) -> str | None:
    """The file in which a function or class that can be imported from a module is defined; None if there is none."""
    path = module.replace(".", "/")
    file = next((file for file in (f"{path}.py", f"{path}/__init__.py") if file in sources), None)
    if file is None:
        return None
    for node in syntax_tree(sources[file]).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            return file
        if isinstance(node, ast.ImportFrom):
            original = next((alias.name for alias in node.names if (alias.asname or alias.name) == name), None)
            if original:
                return defining_file(absolute(node, file), original, sources)
    return None


@functools.lru_cache(maxsize=1024)
def syntax_tree(source: str) -> ast.Module:
    """The syntax tree of a source text; nobody may change it."""
    return ast.parse(source)


def absolute(node: ast.ImportFrom, file: str) -> str:
    """The module that an import names, whether it is written absolutely or relative to the file."""
    if not node.level:
        return node.module or ""
    package = file.split("/")[: -node.level]
    return ".".join([*package, *filter(None, [node.module])])


def stub_out(source: str, exercises: list[Exercise]) -> str:
    """One module's source without the bodies of the exercises, and of private functions that only these used."""
    names = {exercise.name: exercise.lab.title for exercise in exercises}
    text = _without_bodies(source, names)
    while helpers := _unused_private(text, source) - names.keys():
        names |= dict.fromkeys(helpers, exercises[0].lab.title)
        text = _without_bodies(source, names)
    return text


def _without_bodies(source: str, titles: dict[str, str]) -> str:
    """The source with the bodies of the named functions and classes replaced; titles are the labs' by name."""
    lines = source.split("\n")
    nodes = [node for node in syntax_tree(source).body if getattr(node, "name", None) in titles]
    for node in reversed(nodes):  # from the end, so that line numbers above stay true
        for function in reversed(functions_of(node)):
            start, end, indent = region_to_write(function, lines)
            message = f"{titles[node.name]}, {node.name}: its solution is not part of this copy of the course"
            lines[start:end] = [f'{indent}raise NotImplementedError("{message}")']
    return "\n".join(lines)


def _unused_private(text: str, source: str) -> set[str]:
    """Private functions and classes that are used in the source and no longer in the text."""
    defined = {node.name for node in syntax_tree(text).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    private = {name for name in defined if name.startswith("_")}
    return (private & _names(source)) - _names(text)


def _names(source: str) -> set[str]:
    """The names that a module reads; what a definition says of itself (recursion) does not count."""
    return {
        name.id
        for node in syntax_tree(source).body
        for name in ast.walk(node)
        if isinstance(name, ast.Name) and name.id != getattr(node, "name", None)
    }
