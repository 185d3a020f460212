"""Language models that count: what a transformer has to beat.

An n-gram model predicts a character from the n - 1 before it by how often it followed them in the training text. Most
long contexts are rare or never seen, so a shorter context has to help out. **Witten-Bell smoothing** asks how often a
context was followed by something new: with c(h) occurrences of the context h, t(h) different characters after it, and
h' the context h without its first character,

    q(x | h) = (c(h x) + t(h) q(x | h')) / (c(h) + t(h)),

and q(x) = 1 / V where no context is left. Every probability is above 0, and they sum to 1.
"""

from __future__ import annotations

import numpy as np
import torch

from course_utils.text import ALPHABET
from course_utils.validate import check_count


class NgramModel:
    """An n-gram model of characters with Witten-Bell smoothing.

    Args:
        tokens: The training text, shape (N,), int64.
        order: n, from 1 to 9: contexts of n - 1 characters.
        n_tokens: Size V of the vocabulary.

    Source:
        Witten and Bell, "The zero-frequency problem" (1991), method C; interpolated as in Chen and Goodman, "An
        empirical study of smoothing techniques for language modeling" (1998), section 2.5.
    """

    def __init__(self, tokens: torch.Tensor, order: int, n_tokens: int = len(ALPHABET)):
        check_count("order", order, minimum=1, maximum=9)
        self.order, self.n_tokens = order, n_tokens
        text = tokens.numpy()
        self.tables = [self._count(text, length) for length in range(1, order + 1)]

    def _count(self, text: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """Count all sequences of one length, and for each of their contexts its occurrences and followers."""
        grams, counts = np.unique(self._codes(text, length), return_counts=True)
        contexts, first = np.unique(grams // self.n_tokens, return_index=True)
        return {
            "grams": grams,
            "counts": counts,
            "contexts": contexts,
            "totals": np.add.reduceat(counts, first),
            "kinds": np.diff(np.append(first, len(grams))),
        }

    def _codes(self, text: np.ndarray, length: int) -> np.ndarray:
        """Number every window of some length: its characters are the digits in base V."""
        codes = np.zeros(len(text) - length + 1, dtype=np.int64)
        for offset in range(length):
            codes = codes * self.n_tokens + text[offset : len(text) - length + 1 + offset]
        return codes

    def probabilities(self, tokens: torch.Tensor) -> np.ndarray:
        """Compute q of every character given the order - 1 before it.

        Args:
            tokens: A text, shape (M,), int64, at least `order` characters.

        Returns:
            Shape (M - order + 1,), float64: of the characters that have enough before them.
        """
        text = tokens.numpy()
        estimate = np.full(len(text) - self.order + 1, 1 / self.n_tokens)
        for length, table in enumerate(self.tables, start=1):
            codes = self._codes(text[self.order - length :], length)
            count = _look_up(table["grams"], table["counts"], codes)
            total = _look_up(table["contexts"], table["totals"], codes // self.n_tokens)
            kinds = _look_up(table["contexts"], table["kinds"], codes // self.n_tokens)
            seen = total > 0  # an unseen context says nothing: the shorter one's estimate stays
            estimate[seen] = (count[seen] + kinds[seen] * estimate[seen]) / (total[seen] + kinds[seen])
        return estimate

    def nats_per_character(self, tokens: torch.Tensor) -> float:
        """Compute the mean of -ln q over a text.

        Args:
            tokens: A text, shape (M,), int64.

        Returns:
            Nats a character.
        """
        return float(-np.log(self.probabilities(tokens)).mean())


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the value of each wanted key, 0 where it is not among the (sorted) keys."""
    index = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[index] == wanted, values[index], 0)
