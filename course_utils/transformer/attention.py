"""Attention: how every position of a sequence looks at every other.

A query q_i is compared with all keys k_j; a softmax turns the comparisons into weights, and the answer is the weighted
mean of the values v_j. Nothing in this depends on where in the sequence j is, so positions must be written into the
vectors (`positional_encoding`). Several attentions side by side, each on its own projections, are `MultiHeadAttention`.

Masks are boolean, True where a query may look at a key. See `course_utils.transformer.given`.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from course_utils.transformer.given import check_even, check_heads, check_mask
from course_utils.validate import check_count


def positional_encoding(n_positions: int, d_model: int) -> torch.Tensor:
    """Compute P[p, 2i] = sin(p / 10000^(2i / d_model)) and P[p, 2i + 1] = cos(p / 10000^(2i / d_model)).

    Args:
        n_positions: Number of positions, p = 0, 1, ..., n_positions - 1; at least 1.
        d_model: Width of the encoding, even; i = 0, 1, ..., d_model / 2 - 1.

    Returns:
        Shape (n_positions, d_model), float32.

    Raises:
        ValueError: If a number is out of range, or d_model is odd.
        TypeError: If a number is no int.

    Source:
        Vaswani et al., "Attention is all you need" (2017), section 3.5.
    """
    check_count("n_positions", n_positions, minimum=1)
    check_even("d_model", d_model)
    position = torch.arange(n_positions, dtype=torch.float64)[:, None]
    frequency = 10000.0 ** (-torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    encoding = torch.empty(n_positions, d_model, dtype=torch.float64)
    encoding[:, 0::2] = torch.sin(position * frequency)
    encoding[:, 1::2] = torch.cos(position * frequency)
    return encoding.float()


def shift_matrix(offset: int, d_model: int) -> torch.Tensor:
    """Compute the matrix M_k with P[p + k] = M_k P[p] for every position p.

    M_k is block diagonal. With w_i = 10000^(-2i / d_model), the block of the pair (2i, 2i + 1) is a 2 x 2
    rotation by the angle k w_i; which way it turns follows from the order (sine, cosine).

    Args:
        offset: k, an int; negative offsets go back.
        d_model: Width of the encoding, even.

    Returns:
        Shape (d_model, d_model), float64.

    Raises:
        ValueError: If d_model is odd or below 2.
        TypeError: If d_model is no int.

    Source:
        Vaswani et al. (2017), section 3.5: "PE(pos + k) can be represented as a linear function of PE(pos)".
    """
    check_even("d_model", d_model)
    matrix = torch.zeros(d_model, d_model, dtype=torch.float64)
    for column in range(0, d_model, 2):
        angle = offset * 10000.0 ** (-column / d_model)
        sine, cosine = math.sin(angle), math.cos(angle)
        matrix[column : column + 2, column : column + 2] = torch.tensor(
            [[cosine, sine], [-sine, cosine]], dtype=torch.float64
        )
    return matrix


def scaled_dot_product_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute softmax(Q K^T / sqrt(d_head)) V, the softmax over the keys that each query may look at.

    A query that may look at no key at all gets zeros: all its weights are 0, and so is its output.

    Args:
        query: Q, shape (..., n_queries, d_head).
        key: K, shape (..., n_keys, d_head).
        value: V, shape (..., n_keys, d_value).
        mask: Bool, broadcasts to (..., n_queries, n_keys), True where the query may look; None for everywhere.

    Returns:
        The output, shape (..., n_queries, d_value), and the attention weights, shape (..., n_queries, n_keys).

    Raises:
        TypeError: If mask is not boolean.

    Source:
        Vaswani et al. (2017), equation 1.
    """
    check_mask("mask", mask)
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if mask is None:
        weights = scores.softmax(-1)
    else:
        weights = scores.masked_fill(~mask, -math.inf).softmax(-1)
        weights = weights.masked_fill(~mask, 0.0)  # a softmax over nothing but -inf is 0/0
    return weights @ value, weights


class KeyValueCache:
    """The keys and values of the positions that one attention layer has seen so far, along dimension -2."""

    def __init__(self):
        """Start empty."""
        self.keys = None
        self.values = None

    def __len__(self) -> int:
        """Return the number of positions held, 0 at the start."""
        return 0 if self.keys is None else self.keys.shape[-2]

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the keys and values of new positions behind those held, and return all of them.

        Args:
            keys: Shape (B, n_heads, T, d_head).
            values: Shape (B, n_heads, T, d_head).

        Returns:
            Keys and values of all positions so far, each of shape (B, n_heads, length, d_head).
        """
        if self.keys is not None:
            keys = torch.cat([self.keys, keys], -2)
            values = torch.cat([self.values, values], -2)
        self.keys, self.values = keys, values
        return keys, values


class MultiHeadAttention(nn.Module):
    """MultiHead(Q, K, V) = Concat(head_1, ..., head_h) W_O, with head_i = Attention(Q W_Q^i, K W_K^i, V W_V^i).

    The h projections of the queries are one linear layer of d_model outputs: head i = 1, ..., h has those
    from (i - 1) * d_head up to, not including, i * d_head, with d_head = d_model / h; likewise for keys and values.

    Attributes:
        query: Linear, d_model to d_model, with bias: W_Q of all heads.
        key: Likewise, W_K.
        value: Likewise, W_V.
        out: Likewise, W_O.
        weights: Attention weights of the last call, (B, h, n_queries, n_keys), detached; None before the first.

    Source:
        Vaswani et al. (2017), section 3.2.2.
    """

    def __init__(self, d_model: int, n_heads: int):
        """Make the four layers.

        Args:
            d_model: Width of the model.
            n_heads: Number of heads h, a divisor of d_model.

        Raises:
            ValueError: If d_model is not a multiple of n_heads.
        """
        check_heads(d_model, n_heads)
        super().__init__()
        self.n_heads = n_heads
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)
        self.weights = None

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> torch.Tensor:
        """Let every query look at all keys, h times.

        Args:
            query: Shape (B, n_queries, d_model).
            key: Shape (B, n_keys, d_model).
            value: Shape (B, n_keys, d_model).
            mask: Bool, broadcasts to (B, h, n_queries, number of keys), True where the query may look.
            cache: When given, the projected keys and values are appended to it, and queries look at all it then holds.

        Returns:
            Shape (B, n_queries, d_model).
        """

        def split(x):  # (B, T, d_model) -> (B, h, T, d_head)
            return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)

        q, k, v = split(self.query(query)), split(self.key(key)), split(self.value(value))
        if cache is not None:
            k, v = cache.append(k, v)
        heads, weights = scaled_dot_product_attention(q, k, v, mask)
        self.weights = weights.detach()
        return self.out(heads.transpose(1, 2).flatten(2))  # (B, h, T, d_head) -> (B, T, d_model)
