"""What looks like tampering, and what is left of a submission without it."""

from __future__ import annotations

import ast
from typing import Any

from course_admin.grading.cells import LONGEST, is_magic, tree_of
from course_admin.grading.kernel import Run
from course_utils.checks.sealed import MIME_TYPE

PROBE = '__import__("probe").problems()'
OF_IPYTHON = {
    "ast_transformers", "input_transformer_manager", "input_transformers_post", "input_transformers_cleanup",
    "cleanup_transforms", "line_transforms", "token_transformers", "display_pub",
}  # fmt: skip
CHECKS = "course_utils.checks"
OF_GRADING = (
    "Checks", "builtins", "__builtins__", "np.testing", "numpy.testing", "torch.testing", "IPython.display",
)  # fmt: skip
INSIDE_GRADING = tuple(f"{name}." for name in OF_GRADING)
# In a submission that has been flagged already, a definition that mentions one of these does not count.
REACHING_OUT = {
    "_getframe", "currentframe", "stack", "f_back", "f_locals", "f_globals", "settrace", "setprofile", "gc", "ctypes",
    "exec", "eval", "compile", "__import__", "import_module", "setattr", "delattr", "globals", "vars", "get_ipython",
    "builtins", "__builtins__", "__globals__", "__code__", "__subclasses__", "modules", "_observations", "inspect",
    "checks", "Checks", "sealed", "display", "publish", "user_ns", "_ih", "In", "history_manager", "linecache",
    "environ", "__dict__",
}  # fmt: skip
# Whoever looks at other cells' text could write hidden checks into an output: those outputs are not handed back.
LOOKING_AROUND = {
    "_getframe", "currentframe", "f_back", "settrace", "setprofile", "gc", "_ih", "In", "_i", "_ii", "_iii",
    "history_manager", "linecache", "getsource", "getsourcelines", "co_consts", "co_code", "user_ns", "_observations",
    "input_transformers_cleanup", "ast_transformers", "input_transformer_manager", "input_transformers_post", "events",
    "stack", "_current_frames", "extract_stack", "format_stack", "print_stack", "history", "parent_header",
    "get_parent", "dis",
}  # fmt: skip


def in_run(name: str, run: Run, expected: list[list[str]] | None) -> list[str]:
    """What is wrong with how a cell ran.

    Args:
        name: what people call the cell.
        run: what it did.
        expected: (name, kind) of the checks that its record must hold; None for a cell that is no check.

    Returns:
        Sentences.
    """
    found = []
    if run.probe not in (None, "'ok'"):
        answer = run.probe.strip("'\"") or "the integrity probe gave no answer"
        found.append(f"after {name}: {answer[:300]}")
    if run.records and expected is None:
        found.append(f"{name} showed a record of checks, but is no graded cell")
    if expected is not None and not run.raised and not run.ended:
        found += [f"{name} {problem}" for problem in _in_records(run.records, expected)]
    return found


def _in_records(records: list[Any], expected: list[list[str]]) -> list[str]:
    if not records:
        return ["ran to its end but left no record of its checks"]
    if len(records) > 1:
        return ["left more than one record of its checks"]
    checks = records[0].get("checks") if isinstance(records[0], dict) else None
    items = checks if isinstance(checks, list) else []
    names = [[item.get("name"), item.get("kind")] for item in items if isinstance(item, dict)]
    return [] if names == expected else ["left a record with other checks than its own"]


def in_source(source: str) -> list[str]:
    """What a student's cell does to the machinery of grading, in plain sight."""
    if MIME_TYPE in source:
        return ["writes the type of the grader's own records"]
    tree = tree_of(source)
    if tree is None:
        return []
    words = _words(tree)
    found = ["reaches for what the checks have observed"] if "_observations" in words else []
    found += ["reaches for the integrity probe"] if {"probe", "modules"} <= words else []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in OF_IPYTHON:
            found.append(f"reaches into IPython's {node.attr}")
        if replaced := _replaced(node):
            found.append(f"replaces {replaced[:100]}")
        if isinstance(node, ast.Import) and any(alias.name == "probe" for alias in node.names):
            found.append("imports the integrity probe")
        if _imports_checks(node):
            found.append("imports the inside of the checks")
    return list(dict.fromkeys(found))


def _replaced(node: ast.AST) -> str:
    """What a node replaces of the machinery of grading, by assignment or by setattr; '' for anything else."""
    if isinstance(node, (ast.Attribute, ast.Name)) and isinstance(node.ctx, (ast.Store, ast.Del)):
        target = _text(node)
        return target if target.startswith(INSIDE_GRADING) else ""
    if isinstance(node, ast.Call) and node.args and getattr(node.func, "id", "") in ("setattr", "delattr"):
        target = _text(node.args[0])
        return f"a part of {target}" if target in OF_GRADING or target.startswith(INSIDE_GRADING) else ""
    return ""


def _text(node: ast.AST) -> str:
    """The node as source; "" where it is nested too deeply to be written."""
    try:
        return ast.unparse(node)
    except RecursionError:
        return ""


def _imports_checks(node: ast.AST) -> bool:
    """Whether an import brings in more of the checks than `Checks`, which the lab itself imports."""
    if isinstance(node, ast.Import):
        return any(alias.name.startswith(CHECKS) for alias in node.names)
    if not isinstance(node, ast.ImportFrom) or node.module is None:
        return False
    names = {alias.name for alias in node.names}
    whole = node.module == "course_utils" and "checks" in names
    return whole or node.module.startswith(CHECKS + ".") or (node.module == CHECKS and names != {"Checks"})


def looks_around(source: str) -> bool:
    """Whether a cell may read the text of other cells: by inspection, history or hooks."""
    tree = tree_of(source)
    if tree is None:
        return len(source) > LONGEST or any(
            word in source for word in ("%history", "%hist", "%recall", "%rerun", "%macro", "%save", "%notebook")
        )
    return bool(_words(tree) & LOOKING_AROUND)


def _words(tree: ast.AST) -> set[str]:
    """Every name, attribute, imported module and string in the code."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {part for alias in node.names for part in alias.name.split(".")}
            found |= set((getattr(node, "module", None) or "").split("."))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


def does_nothing(source: str) -> bool:
    """Whether a cell is empty but for comments and `pass`: thousands of those should not cost minutes."""
    if any(map(is_magic, source.splitlines())):
        return False
    tree = tree_of(source)
    return tree is not None and all(isinstance(node, ast.Pass) for node in tree.body)


def only_definitions(source: str) -> str:
    """Functions, classes, imports and literal assignments of a cell; nothing that acts, nothing that reaches out."""
    tree = tree_of(source)
    if tree is None:
        return ""
    kept = [node for node in tree.body if _is_definition(node) and not _words(node) & REACHING_OUT]
    return _text(ast.Module(kept, []))


def _is_definition(node: ast.stmt) -> bool:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return not node.decorator_list
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return True
    if isinstance(node, ast.Assign) and all(isinstance(target, ast.Name) for target in node.targets):
        try:
            ast.literal_eval(node.value)
        except (ValueError, TypeError, RecursionError, MemoryError):
            return False
        return True
    return False
