"""Running the graded cells of an instructor's notebook in this process, with one exercise answered differently.

Only the cells that the graded cells depend on are run: imports, data, earlier exercises; no training, no plots.
"""

from __future__ import annotations

import ast
import contextlib
import io
import symtable
from pathlib import Path
from typing import Any

import nbformat

from course_utils.checks import Score


def bound_names(source: str) -> set[str]:
    """Names that running the code defines at the top level (functions, classes, imports, assignments)."""
    symbols = symtable.symtable(source, "<cell>", "exec").get_symbols()
    return {symbol.get_name() for symbol in symbols if symbol.is_assigned() or symbol.is_imported()}


def used_names(source: str) -> set[str]:
    """Names that the code reads at the top level, or as globals within functions and comprehensions."""
    waiting = [symtable.symtable(source, "<cell>", "exec")]
    found = {symbol.get_name() for symbol in waiting[0].get_symbols() if symbol.is_referenced()}
    while waiting:
        waiting += (children := waiting.pop().get_children())
        found |= {symbol.get_name() for child in children for symbol in child.get_symbols() if symbol.is_global()}
    return found


def run_with_score(source: str, namespace: dict[str, Any]) -> Score:
    """Run a check cell and return the value of its last line."""
    tree = ast.parse(source)
    last = ast.Expression(tree.body.pop().value)
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(tree, "<check cell>", "exec"), namespace)
        return eval(compile(last, "<check cell>", "eval"), namespace)


class LabRunner:
    """The code cells of one built lab.

    Args:
        path: the instructor's notebook.
    """

    def __init__(self, path: Path):
        cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        self.checks = {cell.id: cell.source for cell in cells if cell.id.startswith("check_")}
        self.exercises = [cell.metadata.nbgrader.grade_id for cell in cells if self._is_exercise(cell)]
        self.namespace: dict[str, Any] = {"__name__": "__main__"}
        for cell in self._needed(cells):
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(cell.source, f"<cell {cell.id}>", "exec"), self.namespace)

    @staticmethod
    def _is_exercise(cell: nbformat.NotebookNode) -> bool:
        return cell.metadata.get("nbgrader", {}).get("solution", False)

    def _needed(self, cells: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
        """Exercise cells, and the ordinary cells that define a name which a check or a needed cell reads, in order."""
        wanted = set().union(*map(used_names, self.checks.values()))
        needed = []
        for cell in reversed([cell for cell in cells if cell.id not in self.checks]):
            if self._is_exercise(cell) or bound_names(cell.source) & wanted:
                needed.insert(0, cell)
                wanted |= used_names(cell.source)
        return needed

    def checks_of(self, exercise: str) -> list[str]:
        """Ids of the check cells that grade the exercise: its own, or else those that read its name."""
        if f"check_{exercise}" in self.checks:
            return [f"check_{exercise}"]
        return [name for name, source in self.checks.items() if exercise in used_names(source)]

    def scores(self, exercise: str, value: Any) -> dict[str, Score]:
        """Score of each check cell of the exercise when it is answered by value (a function, a class or a literal)."""
        namespace = {**self.namespace, exercise: value}
        return {name: run_with_score(self.checks[name], namespace) for name in self.checks_of(exercise)}
