"""Deep Compression's two ideas beyond pruning: few different values, and short names for frequent ones.

**Weight sharing.** The weights of a layer are sorted into n clusters by k-means in one dimension; the file holds the n
means (the codebook) and for each weight the number of its cluster, log2(n) bits. Unlike a linear grid, the codebook
goes where the weights are.

**Huffman coding.** Symbols that occur often get few bits and rare ones many, so that the average length comes within
one bit of the entropy, -sum p log2 p. Nothing is lost: it is an encoding, not an approximation.

`course_utils.quantization.codec` writes both into a file and reads it back.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable

import numpy as np

from course_utils.quantization.given import check_counts
from course_utils.validate import check_count, check_vector


def share_weights(values: np.ndarray, n_codes: int, n_iterations: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Cluster numbers by k-means (Lloyd): minimise sum_i (v_i - c[k_i])^2 over codebook c and codes k.

    The codebook starts evenly spaced from min to max. Each iteration assigns every value to the nearest entry (the
    first of equally near ones), then moves every entry to the mean of its values; an entry without values stays. At the
    end values are assigned once more.

    Args:
        values: Shape (n,), finite; it is not changed.
        n_codes: Number of codebook entries, from 1 to 256.
        n_iterations: Number of iterations, at least 0.

    Returns:
        Codebook, shape (n_codes,), float64, and codes, shape (n,), whole numbers from 0 to n_codes - 1.

    Raises:
        ValueError: If values is empty, no vector or not finite, or a number is out of range.
        TypeError: If values holds no real numbers, or a count is no int.

    Source:
        Han, Mao and Dally, "Deep compression" (2016), section 3; linear initialisation: section 3.2.
    """
    check_vector("values", values)
    check_count("n_codes", n_codes, minimum=1, maximum=256)
    check_count("n_iterations", n_iterations, minimum=0)
    codebook = np.linspace(values.min(), values.max(), n_codes)
    for _ in range(n_iterations):
        codes = np.abs(values[:, None] - codebook).argmin(1)  # (n, n_codes) -> (n,)
        for k in np.unique(codes):
            codebook[k] = values[codes == k].mean()
    return codebook, np.abs(values[:, None] - codebook).argmin(1)


def huffman_code(counts: dict[Hashable, int]) -> dict[Hashable, str]:
    """Build a prefix code that minimises sum_s counts[s] len(code[s]).

    Start with one tree for each symbol, weighted by its count. Join the two lightest trees again and again: all codes
    in the one get a 0 in front, all in the other a 1. A single symbol gets the code "0".

    Args:
        counts: Symbol -> how often it occurs, at least 1.

    Returns:
        Symbol -> its code, a string of "0" and "1"; no code is the beginning of another.

    Raises:
        ValueError: If there is no symbol, or a count is below 1.
        TypeError: If counts is no dict, or a count no int.

    Source:
        Huffman, "A method for the construction of minimum-redundancy codes" (1952); Han, Mao and Dally (2016), section
        4.
    """
    check_counts("counts", counts)
    if len(counts) == 1:
        return dict.fromkeys(counts, "0")
    codes = dict.fromkeys(counts, "")
    heap = [(count, order, [symbol]) for order, (symbol, count) in enumerate(counts.items())]  # order decides ties
    heapq.heapify(heap)
    for order in range(len(counts), 2 * len(counts) - 1):
        light, second = heapq.heappop(heap), heapq.heappop(heap)
        for digit, tree in zip("01", (light, second), strict=True):
            for symbol in tree[2]:
                codes[symbol] = digit + codes[symbol]
        heapq.heappush(heap, (light[0] + second[0], order, light[2] + second[2]))
    return codes
