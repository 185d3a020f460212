"""Sequence reversal: the task on which Lab 6's encoder-decoder is trained.

Source: some letters, padded to a common length. Target: the same letters backwards, then END. A model that looks at
the wrong place by one gets everything wrong, so the task shows whether positions and masks are right.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from course_utils.step_training import StepHistory, fit_steps
from course_utils.transformer.given import PAD
from course_utils.validate import check_count

START, END, FIRST_LETTER = 1, 2, 3
"""Tokens: PAD is 0, then START and END, then the letters."""
N_LETTERS = 26
N_TOKENS = FIRST_LETTER + N_LETTERS
SIGNS = "_>.ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""How each token is written: PAD, START, END, then the letters."""


def reversal_batch(
    n_sequences: int, max_length: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw sources of random letters and lengths, and their targets.

    Args:
        n_sequences: B, at least 1.
        max_length: Largest number L of letters; lengths are uniform from 1 to L.
        generator: Source of randomness.

    Returns:
        Sources (B, L), letters and then PAD, and targets (B, L + 2): START, the letters backwards, END, then PAD.
    """
    check_count("n_sequences", n_sequences, minimum=1)
    check_count("max_length", max_length, minimum=1)
    lengths = torch.randint(1, max_length + 1, (n_sequences, 1), generator=generator)
    letters = torch.randint(FIRST_LETTER, N_TOKENS, (n_sequences, max_length), generator=generator)
    position = torch.arange(max_length)[None]
    source = torch.where(position < lengths, letters, PAD)
    target = torch.full((n_sequences, max_length + 2), PAD)
    target[:, 0] = START
    backwards = (lengths - 1 - position).clamp(min=0)
    target[:, 1:-1] = torch.where(position < lengths, source.gather(1, backwards), PAD)
    target.scatter_(1, lengths + 1, END)
    return source, target


def fit_reversal(
    model: nn.Module, *, steps: int, batch_size: int = 64, max_length: int = 12, **options
) -> StepHistory:
    """Minimise the mean cross-entropy of the target tokens (PAD does not count) over fresh random sequences, in place.

    Args:
        model: Maps sources (B, S) and targets (B, T) to logits (B, T, V).
        steps: Optimiser steps.
        batch_size: Sequences a step.
        max_length: Largest number of letters.
        **options: Passed on to `course_utils.step_training.fit_steps`.

    Returns:
        The history of the loss, in nats a token.
    """

    def batch_loss(network: nn.Module, generator: torch.Generator) -> torch.Tensor:
        device = next(network.parameters()).device
        source, target = (part.to(device) for part in reversal_batch(batch_size, max_length, generator))
        logits = network(source, target[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1).float(), target[:, 1:].flatten(), ignore_index=PAD)

    return fit_steps(model, batch_loss, steps=steps, **options)


def exact_match(
    decode_all: Callable[..., torch.Tensor],
    model: nn.Module,
    n_sequences: int = 500,
    max_length: int = 12,
    seed: int = 1_000_000,
) -> float:
    """Compute the fraction of fresh sequences that are reversed without any mistake, END included.

    Args:
        decode_all: Function of (model, source, start, end, max_new) like `greedy_decode`; returns what was written.
        model: The trained model.
        n_sequences: How many sequences.
        max_length: Largest number of letters.
        seed: Seed of the sequences; training uses other ones.

    Returns:
        A fraction in [0, 1].
    """
    source, target = reversal_batch(n_sequences, max_length, torch.Generator().manual_seed(seed))
    device = next(model.parameters()).device
    written = decode_all(model, source.to(device), START, END, max_length + 1).cpu()
    written = F.pad(written, (0, max_length + 1 - written.shape[1]), value=PAD)
    return (written == target[:, 1:]).all(1).double().mean().item()


def letters(text: str) -> torch.Tensor:
    """Turn capital letters (and '>' for START) into a batch of one sequence.

    Args:
        text: Letters A to Z, '>' where the start token is meant.

    Returns:
        Shape (1, len(text)), int64.

    Raises:
        ValueError: If there is another character, or none.
    """
    if not text or not set(text) <= set(SIGNS) - set("_."):
        raise ValueError(f"text must consist of capital letters A to Z, got {text!r}")
    return torch.tensor([[SIGNS.index(sign) for sign in text]])


def spell(tokens: torch.Tensor) -> str:
    """Write one sequence of tokens with letters: A to Z, END as a full stop, START as '>', PAD as '_'.

    Args:
        tokens: Shape (T,), integers.

    Returns:
        One character a token.
    """
    return "".join(SIGNS[token] for token in tokens.tolist())
