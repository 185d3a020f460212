"""How much do two submissions share that is rare in the class?

A fingerprint that df of N submissions hold weighs

    w = log(N / df) / log(N / 2)    for 2 <= df <= N / 4,    w = 1 for df = 1,    w = 0 for more,

so that what two people share counts fully, what a few share counts less, and what a quarter of the class has (the
obvious solution of a short exercise) is no evidence at all. Of a pair

    evidence   E = sum of w over shared fingerprints,
    similarity S = E / min over the two of (sum of w over all of its own fingerprints).

Pairs are found through the fingerprints that they share, so the work grows with what is shared, not with N^2.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from course_admin.similarity.fingerprints import Answers, Key

COMMON = 0.25  # share of the class from which on a fragment is no evidence
THRESHOLD = 0.4  # similarity of a pair that is shown
MIN_EVIDENCE = 6.0  # about six rare statements; less can be chance
MIN_CLASS = 8  # in a smaller class nothing is rare


@dataclass(frozen=True)
class Pair:
    """Two submissions, what they share and how unusual that is."""

    first: Answers
    second: Answers
    evidence: float
    similarity: float
    shared: tuple[Key, ...]

    @property
    def cells(self) -> dict[str, int]:
        """Cell -> number of shared rare fingerprints, most first."""
        counts: dict[str, int] = defaultdict(int)
        for name, _ in self.shared:
            counts[name] += 1
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def similar_pairs(
    answers: Sequence[Answers], threshold: float = THRESHOLD, min_evidence: float = MIN_EVIDENCE
) -> list[Pair]:
    """The pairs of a class above both thresholds, the most evidence first.

    Args:
        answers: the class.
        threshold: smallest similarity.
        min_evidence: smallest evidence.

    Returns:
        The pairs.
    """
    holders: dict[Key, list[int]] = defaultdict(list)
    for number, item in enumerate(answers):
        for key in item.fingerprints:
            holders[key].append(number)
    weights = {key: weight(len(who), len(answers)) for key, who in holders.items()}
    totals = [sum(weights[key] for key in item.fingerprints) for item in answers]
    shared: dict[tuple[int, int], list[Key]] = defaultdict(list)
    for key, who in holders.items():
        if len(who) > 1 and weights[key] > 0:
            for pair in combinations(who, 2):
                shared[pair].append(key)
    pairs = [_pair(answers, a, b, keys, weights, min(totals[a], totals[b])) for (a, b), keys in shared.items()]
    found = [pair for pair in pairs if pair.similarity >= threshold and pair.evidence >= min_evidence]
    return sorted(found, key=lambda pair: (-pair.evidence, pair.first.student, pair.second.student))


def weight(df: int, n: int) -> float:
    """w of a fingerprint that df of n submissions hold."""
    if df <= 2:
        return 1.0
    return math.log(n / df) / math.log(n / 2) if df <= COMMON * n else 0.0


def _pair(answers: Sequence[Answers], a: int, b: int, keys: list[Key], weights: dict[Key, float], total: float) -> Pair:
    evidence = sum(weights[key] for key in keys)
    return Pair(answers[a], answers[b], evidence, evidence / total, tuple(keys))
