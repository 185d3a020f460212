"""Texts as token tensors: one character is one token.

Both texts of the course are plain ASCII, and they share one fixed alphabet of 96 characters (newline and the printable
ones), whichever of them occur. A model trained on one text can therefore read, and be adapted to, the other.

    text = load_text("austen")
    text.train                      # (616006,) int64, values from 0 to 95
    decode(text.train[:19])         # 'PRIDE AND PREJUDICE'

The last tenth of each text is held out. It is contiguous: random sentences from everywhere would be easier to predict,
because their neighbours (names, places, phrases) would be in the training part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from course_utils import data_files

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
"""The character of each token, 0 to 95."""

TITLES = {
    "austen": "Jane Austen, Pride and Prejudice (1813)",
    "bierce": "Ambrose Bierce, The Devil's Dictionary (1911)",
}
_TOKEN_OF = {character: token for token, character in enumerate(ALPHABET)}


@dataclass(frozen=True)
class Text:
    """A text split into a training part and a held-out part.

    Attributes:
        name: `"austen"` or `"bierce"`.
        title: Author, title and year.
        train: Shape (N,), int64: the first nine tenths.
        held_out: Shape (M,), int64: the last tenth.
    """

    name: str
    title: str
    train: torch.Tensor
    held_out: torch.Tensor


def load_text(name: str) -> Text:
    """Load a text of the course from the files embedded in `data/texts/`.

    Args:
        name: `"austen"` (684 kB of a novel) or `"bierce"` (a satirical dictionary of 1911, about half as long).

    Returns:
        The text, as tokens.

    Raises:
        ValueError: If there is no text of that name.
        MissingData: If the file is missing.
        DamagedData: If its sha256 is wrong.
    """
    if name not in TITLES:
        raise ValueError(f"text must be one of {sorted(TITLES)}, got {name!r}")
    path = data_files.texts_folder() / f"{name}.txt"
    data_files.check_embedded(path, data_files.TEXTS_SHA256[path.name])
    tokens = encode(path.read_text(encoding="ascii"))
    n_train = len(tokens) * 9 // 10
    return Text(name, TITLES[name], tokens[:n_train], tokens[n_train:])


def encode(text: str) -> torch.Tensor:
    """Turn a string into tokens.

    Args:
        text: Characters of `ALPHABET` only.

    Returns:
        Shape (len(text),), int64.

    Raises:
        ValueError: If a character is not in the alphabet.
    """
    unknown = sorted(set(text) - _TOKEN_OF.keys())
    if unknown:
        raise ValueError(f"text must hold printable ASCII characters and newlines only, got {unknown[:5]}")
    return torch.tensor([_TOKEN_OF[character] for character in text], dtype=torch.long)


def decode(tokens: torch.Tensor) -> str:
    """Turn tokens back into a string.

    Args:
        tokens: Shape (N,), integers from 0 to 95.

    Returns:
        The N characters.
    """
    return "".join(ALPHABET[token] for token in tokens.tolist())
