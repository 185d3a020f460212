"""The layers of a transformer: attention and a small network at every position, each with a residual and a norm.

A layer adds to what it gets, x + f(x), and normalises: after the sum as in the paper (post-norm), or before f
(pre-norm), which trains without a careful warm-up and is what today's language models do.
"""

from __future__ import annotations

import torch
from torch import nn

from course_utils.transformer.attention import KeyValueCache, MultiHeadAttention
from course_utils.validate import check_count


class FeedForward(nn.Module):
    """FFN(x) = max(0, x W_1 + b_1) W_2 + b_2, at every position alike.

    Attributes:
        expand: Linear, d_model to d_hidden, with bias.
        contract: Linear, d_hidden to d_model, with bias.

    Source:
        Vaswani et al. (2017), equation 2.
    """

    def __init__(self, d_model: int, d_hidden: int):
        """Make the two layers.

        Args:
            d_model: Width of the model, at least 1.
            d_hidden: Width in between, at least 1 (four times d_model in the paper).

        Raises:
            ValueError: If a number is below 1.
        """
        check_count("d_model", d_model, minimum=1)
        check_count("d_hidden", d_hidden, minimum=1)
        super().__init__()
        self.expand = nn.Linear(d_model, d_hidden)
        self.contract = nn.Linear(d_hidden, d_model)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it.

        Args:
            x: Shape (..., d_model).

        Returns:
            The same shape.
        """
        return self.contract(torch.relu(self.expand(x)))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each with a residual connection and a layer norm.

    Post-norm (the paper): x <- norm1(x + attention(x, x, x)), then x <- norm2(x + feed_forward(x)).
    Pre-norm (norm_first): with y = norm1(x), x <- x + attention(y, y, y), then x <- x + feed_forward(norm2(x)).

    Attributes:
        attention: MultiHeadAttention.
        feed_forward: FeedForward.
        norm1: LayerNorm over d_model, at the attention.
        norm2: LayerNorm over d_model, at the feed-forward.

    Source:
        Vaswani et al. (2017), section 3.1; pre-norm: Xiong et al., "On layer normalization in the transformer
        architecture" (2020), section 3.
    """

    def __init__(self, d_model: int, n_heads: int, d_hidden: int, norm_first: bool = False):
        """Make the four parts.

        Args:
            d_model: Width of the model.
            n_heads: Number of heads, a divisor of d_model.
            d_hidden: Width inside the feed-forward part.
            norm_first: Whether to normalise before each part instead of after each sum.
        """
        super().__init__()
        self.norm_first = norm_first
        self.attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_hidden)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None = None, cache: KeyValueCache | None = None
    ) -> torch.Tensor:
        """Apply it.

        Args:
            x: Shape (B, T, d_model).
            mask: Passed on to the attention.
            cache: Passed on to the attention.

        Returns:
            Shape (B, T, d_model).
        """
        if self.norm_first:
            y = self.norm1(x)
            x = x + self.attention(y, y, y, mask, cache)
            return x + self.feed_forward(self.norm2(x))
        x = self.norm1(x + self.attention(x, x, x, mask, cache))
        return self.norm2(x + self.feed_forward(x))


class DecoderLayer(nn.Module):
    """Masked self-attention, attention to the encoder's output, and feed-forward; post-norm.

    x <- norm1(x + self_attention(x, x, x)), x <- norm2(x + cross_attention(x, memory, memory)),
    x <- norm3(x + feed_forward(x)).

    Attributes:
        self_attention: MultiHeadAttention among the target positions.
        cross_attention: MultiHeadAttention, queries from the target, keys and values from the memory.
        feed_forward: FeedForward.
        norm1: LayerNorm over d_model, at the self-attention.
        norm2: LayerNorm over d_model, at the cross-attention.
        norm3: LayerNorm over d_model, at the feed-forward.

    Source:
        Vaswani et al. (2017), section 3.1 and figure 1.
    """

    def __init__(self, d_model: int, n_heads: int, d_hidden: int):
        """Make the six parts.

        Args:
            d_model: Width of the model.
            n_heads: Number of heads, a divisor of d_model.
            d_hidden: Width inside the feed-forward part.
        """
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_hidden)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.norm3 = nn.LayerNorm(d_model)

    def forward(
        self,
        x: torch.Tensor,
        memory: torch.Tensor,
        self_mask: torch.Tensor | None = None,
        memory_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Apply it.

        Args:
            x: Target positions, shape (B, T, d_model).
            memory: The encoder's output, shape (B, S, d_model).
            self_mask: Bool, broadcasts to (B, h, T, T): which target positions may look at which.
            memory_mask: Bool, broadcasts to (B, h, T, S): which may look at which source positions.

        Returns:
            Shape (B, T, d_model).
        """
        x = self.norm1(x + self.self_attention(x, x, x, self_mask))
        x = self.norm2(x + self.cross_attention(x, memory, memory, memory_mask))
        return self.norm3(x + self.feed_forward(x))
