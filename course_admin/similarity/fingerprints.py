"""Winnowing: of every w neighbouring k-grams of tokens, keep the one with the smallest hash.

Any stretch of at least w + k - 1 tokens that two answers share is found, and nothing shorter than k tokens counts as
shared; about 2 / (w + 1) of the k-grams are kept.

Source: Schleimer, Wilkerson and Aiken, "Winnowing: local algorithms for document fingerprinting" (SIGMOD 2003),
sections 3 and 4; the method of MOSS. The package copydetect has it too, but compares whole files, each with each, and
does not ask how rare a fragment is, which decides everything in exercises of five lines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from course_admin.similarity.tokens import Token, code_tokens, text_tokens

K = 8  # tokens of a k-gram: shorter ones are shared by chance
WINDOW = 5  # so that every shared stretch of K + WINDOW - 1 = 12 tokens is found: about one statement

Key = tuple[str, int]  # (cell, hash): only answers to the same exercise are compared


@dataclass
class Answers:
    """One student's answers: source by cell, and where in it each fingerprint stands (cell, first line, last line)."""

    student: str
    sources: dict[str, str]
    fingerprints: dict[Key, set[int]] = field(default_factory=dict)  # lines


def fingerprint(student: str, cells: dict[str, tuple[str, str]], template: dict[str, set[int]]) -> Answers:
    """The fingerprints of a submission that the released notebook does not have.

    Args:
        student: whose they are.
        cells: by name, (cell type "code" or "markdown", source) of each cell that students fill.
        template: what template_of made of the released notebook.

    Returns:
        The answers with their fingerprints.
    """
    answers = Answers(student, {name: source for name, (_, source) in cells.items()})
    for name, (cell_type, source) in cells.items():
        tokens = _tokens(cell_type, source)
        given = template.get(name, set())
        for value, start in winnow(k_grams(tokens)):
            if value not in given:
                lines = {item.line for item in tokens[start : start + K]}
                answers.fingerprints.setdefault((name, value), set()).update(lines)
    return answers


def template_of(cells: dict[str, tuple[str, str]]) -> dict[str, set[int]]:
    """The hashes of all k-grams of the released notebook's cells, by cell: what every student was given."""
    return {name: {value for value, _ in k_grams(_tokens(*cell))} for name, cell in cells.items()}


def _tokens(cell_type: str, source: str) -> list[Token]:
    return code_tokens(source) if cell_type == "code" else text_tokens(source)


def k_grams(tokens: Sequence[Token]) -> list[tuple[int, int]]:
    """(hash, place of its first token) of every k-gram; none for fewer than K tokens."""
    texts = [item.text for item in tokens]
    return [(_hash(texts[i : i + K]), i) for i in range(len(texts) - K + 1)]


def _hash(texts: Sequence[str]) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(texts).encode(), digest_size=8).digest(), "big")


def winnow(grams: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The k-grams kept: in every window the smallest hash, of equal ones the last."""
    if len(grams) <= WINDOW:
        windows = [grams] if grams else []
    else:
        windows = [grams[i : i + WINDOW] for i in range(len(grams) - WINDOW + 1)]
    kept = {min(window, key=lambda gram: (gram[0], -gram[1])) for window in windows}
    return sorted(kept, key=lambda gram: gram[1])
