"""The encoder-decoder transformer: a source sequence is read once, a target sequence is written token by token."""

from __future__ import annotations

import math

import torch
from torch import nn

from course_utils.transformer.attention import positional_encoding
from course_utils.transformer.given import PAD, causal_mask, check_heads, check_tokens, padding_mask
from course_utils.transformer.layers import DecoderLayer, EncoderLayer
from course_utils.validate import check_count


class Transformer(nn.Module):
    """logits = head(decoder(target, encoder(source))), N layers each, post-norm, positions added to the embeddings.

    Both embeddings are multiplied by sqrt(d_model), and the positional encoding is added. No query sees padding (PAD)
    in the source, and no target position sees a later one.

    Attributes:
        source_embedding: Embedding of n_source vectors, entries N(0, 1 / d_model) at the start.
        target_embedding: Embedding of n_target vectors, likewise.
        encoder: ModuleList of n_layers EncoderLayer.
        decoder: ModuleList of n_layers DecoderLayer.
        head: Linear, d_model to n_target, with bias.
        positions: Buffer with the positional encoding of max_length positions; it is not part of the state dict.

    Source:
        Vaswani et al. (2017), section 3 and figure 1.
    """

    def __init__(
        self, n_source: int, n_target: int, d_model: int, n_heads: int, n_layers: int, d_hidden: int, max_length: int
    ):
        """Make the parts.

        Args:
            n_source: Size of the source vocabulary.
            n_target: Size of the target vocabulary.
            d_model: Width of the model, even.
            n_heads: Number of heads, a divisor of d_model.
            n_layers: Number N of layers of the encoder, and of the decoder.
            d_hidden: Width inside the feed-forward parts.
            max_length: Largest length of a sequence.
        """
        check_heads(d_model, n_heads)
        super().__init__()
        self.d_model, self.max_length = d_model, max_length
        self.source_embedding = nn.Embedding(n_source, d_model)
        self.target_embedding = nn.Embedding(n_target, d_model)
        for embedding in (self.source_embedding, self.target_embedding):
            nn.init.normal_(embedding.weight, std=d_model**-0.5)
        self.encoder = nn.ModuleList(EncoderLayer(d_model, n_heads, d_hidden) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(d_model, n_heads, d_hidden) for _ in range(n_layers))
        self.head = nn.Linear(d_model, n_target)
        self.register_buffer("positions", positional_encoding(max_length, d_model), persistent=False)

    def encode(self, source: torch.Tensor) -> torch.Tensor:
        """Read the source.

        Args:
            source: Tokens, shape (B, S), PAD where a sequence is shorter.

        Returns:
            The memory, shape (B, S, d_model).
        """
        check_tokens("source", source, self.max_length)
        x = math.sqrt(self.d_model) * self.source_embedding(source) + self.positions[: source.shape[1]]
        for layer in self.encoder:
            x = layer(x, padding_mask(source))
        return x

    def decode(self, target: torch.Tensor, memory: torch.Tensor, memory_mask: torch.Tensor) -> torch.Tensor:
        """Compute the logits of the token that follows each target position.

        Args:
            target: Tokens, shape (B, T), beginning with the start token.
            memory: What `encode` returned, shape (B, S, d_model).
            memory_mask: `padding_mask` of the source, shape (B, 1, 1, S).

        Returns:
            Shape (B, T, n_target).
        """
        check_tokens("target", target, self.max_length)
        x = math.sqrt(self.d_model) * self.target_embedding(target) + self.positions[: target.shape[1]]
        self_mask = causal_mask(target.shape[1]).to(target.device)
        for layer in self.decoder:
            x = layer(x, memory, self_mask, memory_mask)
        return self.head(x)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Encode the source, then decode the target.

        Args:
            source: Shape (B, S), integers.
            target: Shape (B, T), integers.

        Returns:
            Shape (B, T, n_target).
        """
        return self.decode(target, self.encode(source), padding_mask(source))


def greedy_decode(model: nn.Module, source: torch.Tensor, start: int, end: int, max_new: int) -> torch.Tensor:
    """Write the target token by token: y_t = argmax of the logits after (start, y_1, ..., y_{t-1}).

    The source is encoded once. A sequence that has written the end token goes on with PAD; when all sequences have
    ended, decoding stops. At most max_new tokens are written, the end token among them.

    Args:
        model: Has `encode(source)` and `decode(target, memory, memory_mask)`, like `Transformer`.
        source: Shape (B, S), integers.
        start: The token that every target begins with.
        end: The token that ends a target.
        max_new: Largest number of tokens to write, at least 1.

    Returns:
        What was written, without the start token: shape (B, T), int64, T <= max_new; PAD after the end token.

    Raises:
        ValueError: If max_new is below 1, or source is no batch of tokens.

    Source:
        Sutskever, Vinyals and Le, "Sequence to sequence learning with neural networks" (2014), section 3.2
        (a beam of 1).
    """
    check_tokens("source", source)
    check_count("max_new", max_new, minimum=1)
    with torch.no_grad():
        memory, memory_mask = model.encode(source), padding_mask(source)
        target = torch.full((len(source), 1), start, dtype=torch.long, device=source.device)
        ended = torch.zeros(len(source), dtype=torch.bool, device=source.device)
        for _ in range(max_new):
            token = model.decode(target, memory, memory_mask)[:, -1].argmax(-1)
            token = token.masked_fill(ended, PAD)
            target = torch.cat([target, token[:, None]], 1)
            ended |= token == end
            if ended.all():
                break
    return target[:, 1:]
