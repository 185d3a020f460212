"""Reading code cells without running them."""

from __future__ import annotations

import ast

LONGEST = 200_000  # characters; a tree takes some five hundred times as many bytes


def is_magic(line: str) -> bool:
    """Whether a line is IPython's and not Python: a magic, a shell command, a question."""
    return line.lstrip()[:1] in ("%", "!", "?")


def tree_of(source: str) -> ast.Module | None:
    """The syntax tree of a cell, its magics left out; None for what is no Python, or too long to be read as such."""
    if len(source) > LONGEST:
        return None
    lines = ["" if is_magic(line) else line for line in source.splitlines()]
    try:
        return ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
