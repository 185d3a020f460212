"""Training, judging and sampling a language model.

A language model gives the next character a probability q. On a held-out text it is judged by the mean of -ln q, in nats
a character; divided by ln 2 that is **bits a character** (what an ideal compressor would need with this model), and
exp of it is the **perplexity a character** (among how many equally likely characters the model hesitates).

Everything here takes any model that maps tokens (B, T) to logits (B, T, V); `generate` uses a key-value cache where the
model has `new_caches`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from course_utils import runtime
from course_utils.step_training import StepHistory, fit_steps
from course_utils.text import decode, encode
from course_utils.transformer.given import draw_token
from course_utils.validate import check_count, check_nonnegative


def fit_language_model(
    model: nn.Module, tokens: torch.Tensor, *, steps: int, batch_size: int = 32, context: int = 128, **options
) -> StepHistory:
    """Minimise the mean of -ln q(next character) over random windows of a text, in place.

    Args:
        model: Maps tokens (B, T) to logits (B, T, V). Only parameters that require gradients change.
        tokens: The text, shape (N,), int64, more than context + 1 tokens.
        steps: Optimiser steps.
        batch_size: Windows a step.
        context: Length of a window in characters. Positions beyond it stay untrained: max_length should not be larger.
        **options: Passed on to `course_utils.step_training.fit_steps`: lr, weight_decay, seed, after_step...

    Returns:
        The history of the loss, in nats a character.

    Raises:
        ValueError: If a number is out of range, or the text is shorter than a window.
    """
    check_count("batch_size", batch_size, minimum=1)
    check_count("context", context, minimum=1, maximum=len(tokens) - 1)
    offsets = torch.arange(context + 1)

    def batch_loss(network: nn.Module, generator: torch.Generator) -> torch.Tensor:
        starts = torch.randint(len(tokens) - context, (batch_size, 1), generator=generator)
        windows = tokens[starts + offsets].to(next(network.parameters()).device)  # (B, context + 1)
        return next_token_loss(network, windows)

    return fit_steps(model, batch_loss, steps=steps, **options)


def next_token_loss(model: nn.Module, windows: torch.Tensor) -> torch.Tensor:
    """Compute the mean cross-entropy of every token of each window given those before it.

    Args:
        model: Maps tokens (B, T) to logits (B, T, V).
        windows: Shape (B, T + 1), int64.

    Returns:
        Scalar, in nats a token.
    """
    logits = model(windows[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1).float(), windows[:, 1:].flatten())


@torch.no_grad()
def nats_per_character(
    model: nn.Module, tokens: torch.Tensor, context: int = 128, on: runtime.Runtime | None = None
) -> float:
    """Compute the mean of -ln q over a text, every character predicted from at least context / 2 before it.

    Windows of context + 1 characters overlap by half; of each window only the second half counts, so that no character
    is judged with next to nothing before it. (The first context / 2 characters of the text are not judged.)

    Args:
        model: Maps tokens (B, T) to logits (B, T, V).
        tokens: The text, shape (N,), int64, more than context tokens.
        context: Length of a window, even.
        on: Precision; `runtime.detect()` for the model's device when None.

    Returns:
        Nats a character; divide by ln 2 for bits, take exp for perplexity.
    """
    check_count("context", context, minimum=2, maximum=len(tokens) - 1)
    device, was_training, half = next(model.parameters()).device, model.training, context // 2
    on = runtime.detect(device) if on is None else on
    model.eval()
    windows = tokens.unfold(0, 2 * half + 1, half)  # (windows, context + 1)
    total, count = 0.0, 0
    for batch in windows.split(64):
        with on.autocast():
            logits = model(batch[:, :-1].to(device))[:, half:]
        targets = batch[:, half + 1 :].flatten().to(device)
        total += F.cross_entropy(logits.flatten(0, 1).float(), targets, reduction="sum").item()
        count += len(targets)
    model.train(was_training)
    return total / count


@torch.no_grad()
def nats_of_characters(model: nn.Module, text: str) -> list[float]:
    """Compute -ln q of every character of a short text but the first, each given all those before it.

    Args:
        model: Maps tokens (1, T) to logits (1, T, V).
        text: At least two characters, at most one more than the model's max_length.

    Returns:
        len(text) - 1 numbers, in nats.
    """
    tokens = encode(text)[None].to(next(model.parameters()).device)
    logits = model(tokens[:, :-1])
    return F.cross_entropy(logits[0].float(), tokens[0, 1:], reduction="none").tolist()


@torch.no_grad()
def generate(
    model: nn.Module, prompt: str, n_characters: int, temperature: float = 0.8, seed: int = 0, use_cache: bool = True
) -> str:
    """Continue a text, character by character, each drawn from softmax(logits / temperature).

    When the model's max_length is reached, it goes on from the second half of what it sees.

    Args:
        model: Maps tokens (1, T) to logits (1, T, V), with an attribute max_length.
        prompt: At least one character.
        n_characters: How many to add.
        temperature: At least 0; 0 always takes the most likely character.
        seed: Seed of the draws.
        use_cache: Whether to use the model's key-value cache, when it has one.

    Returns:
        The prompt and what follows.

    Raises:
        ValueError: If the prompt is empty or too long, or a number is out of range.
    """
    check_count("n_characters", n_characters)
    check_nonnegative("temperature", temperature)
    tokens, generator = encode(prompt)[None], torch.Generator().manual_seed(seed)
    if not 1 <= tokens.shape[1] <= model.max_length:
        raise ValueError(f"prompt must have from 1 to {model.max_length} characters, got {tokens.shape[1]}")
    device, cached = next(model.parameters()).device, use_cache and hasattr(model, "new_caches")
    window, caches, n_seen = tokens, None, 0  # what the model sees; how much of it is in the caches
    for _ in range(n_characters):
        if window.shape[1] > model.max_length:
            window, caches = window[:, -(model.max_length // 2) :], None
        if cached and caches is None:
            caches, n_seen = model.new_caches(), 0
        new = window[:, n_seen:] if cached else window
        logits = model(new.to(device), caches) if cached else model(new.to(device))
        n_seen = window.shape[1]
        drawn = draw_token(logits[:, -1], temperature, generator)
        window, tokens = torch.cat([window, drawn], 1), torch.cat([tokens, drawn], 1)
    return decode(tokens[0])
