"""A decoder-only transformer: the next token from all tokens before it.

Without an encoder there is nothing to cross-attend to, and a "decoder" layer is an encoder layer under a causal mask.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from course_utils.transformer.attention import KeyValueCache, positional_encoding
from course_utils.transformer.given import causal_mask, check_heads, check_tokens
from course_utils.transformer.layers import EncoderLayer


class TinyGPT(nn.Module):
    """logits = head(norm(block_N(... block_1(sqrt(d_model) E[tokens] + P)))), every block causal and pre-norm.

    Attributes:
        embedding: Embedding E of n_tokens vectors; its entries start as N(0, 1 / d_model), so that
            sqrt(d_model) E[tokens] is of similar size to the positional encoding P.
        blocks: ModuleList of n_layers EncoderLayer with norm_first.
        norm: LayerNorm after the last block.
        head: Linear, d_model to n_tokens, with bias.
        positions: Buffer with P for max_length positions; it is not part of the state dict.

    Source:
        Radford et al., "Language models are unsupervised multitask learners" (2019), section 2.3; positions as in
        Vaswani et al. (2017).
    """

    def __init__(self, n_tokens: int, d_model: int, n_heads: int, n_layers: int, d_hidden: int, max_length: int):
        """Make the parts.

        Args:
            n_tokens: Size of the vocabulary.
            d_model: Width of the model, even.
            n_heads: Number of heads, a divisor of d_model.
            n_layers: Number of blocks.
            d_hidden: Width inside the feed-forward parts.
            max_length: Largest number of positions.
        """
        check_heads(d_model, n_heads)
        super().__init__()
        self.d_model, self.max_length = d_model, max_length
        self.embedding = nn.Embedding(n_tokens, d_model)
        nn.init.normal_(self.embedding.weight, std=d_model**-0.5)
        self.blocks = nn.ModuleList(
            EncoderLayer(d_model, n_heads, d_hidden, norm_first=True) for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_tokens)
        self.register_buffer("positions", positional_encoding(max_length, d_model), persistent=False)

    def new_caches(self) -> list[KeyValueCache]:
        """Return one empty cache for each block."""
        return [KeyValueCache() for _ in self.blocks]

    def forward(self, tokens: torch.Tensor, caches: list[KeyValueCache] | None = None) -> torch.Tensor:
        """Compute the logits of the token that follows each position.

        Args:
            tokens: Shape (B, T), integers; with caches only the new tokens.
            caches: One for each block, as `new_caches` returns and earlier calls have filled; T counts from where they
                end, and they are extended by the new tokens. None computes everything anew.

        Returns:
            Shape (B, T, n_tokens). With or without caches the logits of a position are the same.

        Raises:
            ValueError: If past and new tokens together are more than max_length.
        """
        check_tokens("tokens", tokens, self.max_length)
        n_past = len(caches[0]) if caches else 0
        end = n_past + tokens.shape[1]
        if end > self.max_length:
            raise ValueError(f"tokens must end within {self.max_length} positions, got {n_past} before, {end} in all")
        mask = causal_mask(tokens.shape[1], end).to(tokens.device)
        x = math.sqrt(self.d_model) * self.embedding(tokens) + self.positions[n_past:end]
        for block, cache in zip(self.blocks, caches or [None] * len(self.blocks), strict=True):
            x = block(x, mask, cache)
        return self.head(self.norm(x))
