"""Tokens of an answer that stay the same when it is renamed, commented, reformatted or given another docstring.

Code: names become N, except keywords, built-ins and attributes (np.sign and np.abs stay apart); numbers stay, strings
become S; comments, docstrings, annotations of layout and line breaks go. Text: words without case and punctuation.
"""

from __future__ import annotations

import builtins
import io
import keyword
import re
import token
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass

KEPT = set(keyword.kwlist) | {name for name in dir(builtins) if not name.startswith("_")}
LAYOUT = {token.NEWLINE, token.NL, token.INDENT, token.DEDENT, token.COMMENT, token.ENDMARKER, token.ENCODING}
BEGINS_STATEMENT = {token.NEWLINE, token.INDENT, token.DEDENT, token.ENCODING}


@dataclass(frozen=True)
class Token:
    """One token: its normalised text, and the line of the answer in which it stands (counted from 0)."""

    text: str
    line: int


def code_tokens(source: str) -> list[Token]:
    """The tokens of Python code. Of code that is no Python: tokens up to the mistake, words after it."""
    found: list[Token] = []
    try:
        for item in _normalised(tokenize.generate_tokens(io.StringIO(source).readline)):
            found.append(item)
    except (tokenize.TokenError, SyntaxError):
        last = found[-1].line if found else -1
        found += [item for item in text_tokens(source) if item.line > last]
    return found


def text_tokens(text: str) -> list[Token]:
    """The words of a text."""
    lines = enumerate(text.splitlines())
    return [Token(word, number) for number, line in lines for word in re.findall(r"\w+", line.casefold())]


def _normalised(items: Iterator[tokenize.TokenInfo]) -> Iterator[Token]:
    before, before_text = token.ENCODING, ""
    for item in items:
        is_docstring = item.type == token.STRING and before in BEGINS_STATEMENT
        if item.type not in (token.NL, token.COMMENT):
            before = item.type
        if item.type in LAYOUT or is_docstring:
            continue
        yield Token(_text(item, before_text), item.start[0] - 1)
        before_text = item.string


def _text(item: tokenize.TokenInfo, before: str) -> str:
    if item.type == token.NAME:
        return item.string if item.string in KEPT or before == "." else "N"
    return "S" if item.type == token.STRING else item.string
