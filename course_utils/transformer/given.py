"""What Lab 6 gives to its readers: masks, argument checks, tiny models with known weights, and drawing a token.

**The mask convention.** A mask is a boolean tensor that can be broadcast to (..., queries, keys): **True means that the
query may look at the key.** That is the convention of `torch.nn.functional.scaled_dot_product_attention`. It is the
opposite of `torch.nn.MultiheadAttention`, whose boolean masks are True where looking is *forbidden*.
"""

from __future__ import annotations

import torch
from torch import nn

from course_utils.validate import check_count

PAD = 0
"""The token that fills sequences up to a common length; it is never looked at."""


def causal_mask(n_queries: int, n_keys: int | None = None) -> torch.Tensor:
    """Build the mask under which no query sees a later key: m_ij = (j <= i + n_keys - n_queries).

    The last query belongs to the last key, so that with more keys than queries (those in a cache) every query still
    sees all keys up to its own position.

    Args:
        n_queries: Number of queries, at least 1.
        n_keys: Number of keys, at least n_queries; as many as queries when None.

    Returns:
        Shape (n_queries, n_keys), bool, True where the query may look.

    Raises:
        ValueError: If a number is out of range.
    """
    check_count("n_queries", n_queries, minimum=1)
    n_keys = n_queries if n_keys is None else n_keys
    check_count("n_keys", n_keys, minimum=n_queries)
    return torch.ones(n_queries, n_keys, dtype=torch.bool).tril(n_keys - n_queries)


def padding_mask(tokens: torch.Tensor) -> torch.Tensor:
    """Build the mask that hides padding: m_bj = (tokens_bj != PAD).

    Args:
        tokens: Shape (B, T), integers.

    Returns:
        Shape (B, 1, 1, T), bool: broadcasts to (B, heads, queries, T), True where the key may be looked at.
    """
    return (tokens != PAD)[:, None, None, :]


def check_heads(d_model: int, n_heads: int) -> None:
    """Refuse a width that cannot be divided among the heads.

    Args:
        d_model: Width of the model, at least 1.
        n_heads: Number of heads, a divisor of d_model.

    Raises:
        ValueError: If d_model is not a multiple of n_heads, or a number is below 1.
        TypeError: If a number is no int.
    """
    check_count("d_model", d_model, minimum=1)
    check_count("n_heads", n_heads, minimum=1)
    if d_model % n_heads:
        raise ValueError(f"d_model must be a multiple of n_heads, got d_model {d_model} and n_heads {n_heads}")


def check_even(name: str, value: int) -> None:
    """Refuse anything but an even whole number of at least 2.

    Args:
        name: Name of the argument, for the message.
        value: What was given.

    Raises:
        ValueError: If it is odd or below 2.
        TypeError: If it is no int.
    """
    check_count(name, value, minimum=2)
    if value % 2:
        raise ValueError(f"{name} must be even (sine and cosine come in pairs), got {value}")


def check_tokens(name: str, value: torch.Tensor, maximum_length: int | None = None) -> None:
    """Refuse anything but a batch of token sequences.

    Args:
        name: Name of the argument, for the message.
        value: What was given.
        maximum_length: Largest allowed length T; None for no limit.

    Raises:
        TypeError: If it is no tensor of integers.
        ValueError: If its shape is not (B, T) with B, T >= 1, or T is too large.
    """
    if not isinstance(value, torch.Tensor) or value.is_floating_point() or value.dtype == torch.bool:
        kind = f"a tensor of dtype {value.dtype}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
        raise TypeError(f"{name} must be a tensor of integer tokens, got {kind}")
    if value.ndim != 2 or value.numel() == 0:
        raise ValueError(f"{name} must have shape (batch, length), both at least 1, got {tuple(value.shape)}")
    if maximum_length is not None and value.shape[1] > maximum_length:
        raise ValueError(f"{name} must have at most {maximum_length} tokens a sequence, got {value.shape[1]}")


def check_mask(name: str, value: torch.Tensor | None) -> None:
    """Refuse a mask that is not boolean: numbers could be meant either way.

    Args:
        name: Name of the argument, for the message.
        value: What was given; None (no mask) is allowed.

    Raises:
        TypeError: If it is neither None nor a boolean tensor.
    """
    if value is not None and (not isinstance(value, torch.Tensor) or value.dtype != torch.bool):
        kind = f"a tensor of dtype {value.dtype}" if isinstance(value, torch.Tensor) else f"a {type(value).__name__}"
        raise TypeError(f"{name} must be None or a boolean tensor, True where looking is allowed, got {kind}")


def filled(model: nn.Module, seed: int) -> nn.Module:
    """Give a model known random parameters in float64, whatever the order in which it made them.

    Args:
        model: Any module; changed in place.
        seed: Seed of its own generator. Parameters are filled in the alphabetical order of their names.

    Returns:
        The same model, in evaluation mode.
    """
    generator = torch.Generator().manual_seed(seed)
    model = model.double().eval()
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def draw_token(logits: torch.Tensor, temperature: float, generator: torch.Generator) -> torch.Tensor:
    """Draw the next token from softmax(logits / temperature).

    Args:
        logits: Shape (B, V).
        temperature: Above 0: below 1 sharpens the distribution, above 1 flattens it; 0 takes the most likely token.
        generator: Source of randomness, on the CPU.

    Returns:
        Shape (B, 1), int64, on the CPU.
    """
    logits = logits.detach().float().cpu()
    if temperature == 0:
        return logits.argmax(-1, keepdim=True)
    return torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator)


class ScriptedModel(nn.Module):
    """A stand-in for a trained encoder-decoder, whose next token follows a rule: for checks of decoding.

    The token after target position t (0 is the start token) is the source's token at t plus the target token at t, from
    3 to n_tokens - 1; where the source is over (padding, or its end), it is the end token, 2.

    Args:
        n_tokens: Size of both vocabularies.

    Attributes:
        n_encoded: How often `encode` was called.
    """

    def __init__(self, n_tokens: int = 11):
        super().__init__()
        self.n_tokens, self.n_encoded = n_tokens, 0

    def encode(self, source: torch.Tensor) -> torch.Tensor:
        """Return the source as the memory, (B, S, 1); where it is padding, a letter that nobody should look at."""
        self.n_encoded += 1
        return source.masked_fill(source == PAD, 5)[:, :, None].double()

    def decode(self, target: torch.Tensor, memory: torch.Tensor, memory_mask: torch.Tensor) -> torch.Tensor:
        """Return logits, (B, T, n_tokens), that are largest at the next token of the rule."""
        source = torch.where(memory_mask[:, 0, 0], memory[:, :, 0], PAD).long()
        source = nn.functional.pad(source, (0, target.shape[1]))[:, : target.shape[1]]
        following = torch.where(source == PAD, 2, 3 + (source + target) % (self.n_tokens - 3))
        return nn.functional.one_hot(following, self.n_tokens).double() - 5.0
