"""What a student's kernel is given of a graded cell: everything that observes, nothing that knows the answer.

Of `check.close("name", lambda: f(x), lambda: reference(x), atol=1e-9, hint="...")` the kernel gets `check.close("name",
lambda: f(x), None, atol=1e-9)`. Expected values, bounds, kinds of exceptions and hints are dropped from the syntax
tree, literal ones too; then everything in hidden regions that served only to compute them is dropped: oracles, imports,
data. What is left is executed for the instructor's notebook in the same form, so that both see the same inputs.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable

from course_admin.build.markers import BEGIN_HIDDEN, END_HIDDEN, regions
from course_admin.grading.cells import tree_of

METHODS = {"close": "expected", "equal": "expected", "at_least": "bound", "at_most": "bound", "raises": "exception"}
BOUNDS = ("at_least", "at_most")  # of `measured`, whose third argument says how to measure
POSITION = 2  # of what is expected, after the name and the actual value


def seal(sources: dict[str, str], others: Iterable[str]) -> dict[str, str]:
    """The graded code cells of a notebook without anything that is expected.

    Args:
        sources: source of each graded code cell, by grade id, in the order of the notebook.
        others: sources of all other code cells, whose names must stay.

    Returns:
        Source by grade id. Comments are gone, too.
    """
    others = list(others)
    modules = set().union(*(_imported(tree) for tree in map(_parse, [*others, *sources.values()])))
    trees, hidden = {}, {}
    for name, source in sources.items():
        hidden[name] = [
            range(start + 1, end + 2) for start, end in regions(source.splitlines(), BEGIN_HIDDEN, END_HIDDEN)
        ]
        trees[name] = _DropExpected(modules).visit(ast.parse(source))
    used_elsewhere = set().union(*map(_read, map(_parse, others))) if others else set()
    while _drop_unused(trees, hidden, used_elsewhere):
        pass
    return {name: ast.unparse(ast.fix_missing_locations(tree)) for name, tree in trees.items()}


class _DropExpected(ast.NodeTransformer):
    """Replaces what a check expects by None (an exception's type by Exception) and drops its hint."""

    def __init__(self, modules: set[str]):
        self.modules = modules

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        method = node.func.attr if isinstance(node.func, ast.Attribute) else None
        base = node.func.value if isinstance(node.func, ast.Attribute) else None
        if method not in (*METHODS, "measured") or not isinstance(base, ast.Name) or base.id in self.modules:
            return node
        nothing = ast.Name("Exception", ast.Load()) if method == "raises" else ast.Constant(None)
        if len(node.args) > POSITION and method != "measured":
            node.args[POSITION] = nothing
        kept = [keyword for keyword in node.keywords if keyword.arg != "hint"]
        dropped = BOUNDS if method == "measured" else (METHODS[method],)
        node.keywords = [ast.keyword(word.arg, nothing) if word.arg in dropped else word for word in kept]
        return node


def _drop_unused(trees: dict[str, ast.Module], hidden: dict[str, list[range]], used_elsewhere: set[str]) -> bool:
    """Drop the statements of hidden regions that bind only names which nobody reads. Returns whether there were any."""
    read = {name: _read(tree) for name, tree in trees.items()}
    dropped = False
    for name, tree in trees.items():
        for statement in [node for node in tree.body if any(node.lineno in lines for lines in hidden[name])]:
            bound = _bound(statement)
            if not bound:
                continue
            rest = ast.Module([node for node in tree.body if node is not statement], [])
            readers = (
                _read(rest) | used_elsewhere | set().union(*(names for other, names in read.items() if other != name))
            )
            if not bound & readers:
                tree.body.remove(statement)
                dropped = True
    return dropped


def _bound(statement: ast.stmt) -> set[str]:
    """Names that a definition, import or plain assignment binds; nothing for any other statement."""
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        return {statement.name}
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
    if isinstance(statement, (ast.Assign, ast.AnnAssign)):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        flat = [part for target in targets for part in (target.elts if isinstance(target, ast.Tuple) else [target])]
        return {part.id for part in flat} if all(isinstance(part, ast.Name) for part in flat) else set()
    return set()


def _read(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}


def _imported(tree: ast.AST) -> set[str]:
    imports = (node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom)))
    return {(alias.asname or alias.name).split(".")[0] for node in imports for alias in node.names}


def _parse(source: str) -> ast.Module:
    return tree_of(source) or ast.Module([], [])


def modules_imported(sources: Iterable[str]) -> list[str]:
    """Modules that code cells import at the top level, in order: what is worth importing beforehand."""
    found: dict[str, None] = {}
    for tree in map(_parse, sources):
        for node in tree.body:
            if isinstance(node, ast.Import):
                found.update((alias.name, None) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                found[node.module] = None
                found.update((f"{node.module}.{alias.name}", None) for alias in node.names)
    return [name for name in found if name.split(".")[0] not in dir(builtins)]
