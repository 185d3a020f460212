"""PyTorch's own layers with known weights, and the same weights under this course's names: what ours must equal."""

from __future__ import annotations

import torch
from torch import nn

from course_utils.transformer.given import PAD, causal_mask, filled

State = dict[str, torch.Tensor]


def torch_attention(d_model: int, n_heads: int, seed: int) -> nn.MultiheadAttention:
    """Build torch.nn.MultiheadAttention (batch first, float64) with random weights and biases from a seed."""
    return filled(nn.MultiheadAttention(d_model, n_heads, batch_first=True), seed)


def torch_encoder_layer(
    d_model: int, n_heads: int, d_hidden: int, seed: int, norm_first: bool = False
) -> nn.TransformerEncoderLayer:
    """Build torch.nn.TransformerEncoderLayer (no dropout, ReLU, batch first, float64) with random parameters."""
    layer = nn.TransformerEncoderLayer(d_model, n_heads, d_hidden, 0.0, batch_first=True, norm_first=norm_first)
    return filled(layer, seed)


def torch_decoder_layer(d_model: int, n_heads: int, d_hidden: int, seed: int) -> nn.TransformerDecoderLayer:
    """Build torch.nn.TransformerDecoderLayer (no dropout, ReLU, batch first, float64) with random parameters."""
    return filled(nn.TransformerDecoderLayer(d_model, n_heads, d_hidden, 0.0, batch_first=True), seed)


class TorchTransformer(nn.Module):
    """An encoder-decoder made of PyTorch's own layers, which computes what ours should; float64, from a seed.

    Args:
        n_source: Size of the source vocabulary.
        n_target: Size of the target vocabulary.
        d_model: Width.
        n_heads: Number of heads.
        n_layers: Layers of the encoder, and of the decoder.
        d_hidden: Width of the feed-forward parts.
        seed: Seed of all parameters.
    """

    def __init__(
        self, n_source: int, n_target: int, d_model: int, n_heads: int, n_layers: int, d_hidden: int, seed: int
    ):
        super().__init__()
        self.source_embedding = nn.Embedding(n_source, d_model)
        self.target_embedding = nn.Embedding(n_target, d_model)
        layers = range(n_layers)
        self.encoder = nn.ModuleList(torch_encoder_layer(d_model, n_heads, d_hidden, seed + i) for i in layers)
        self.decoder = nn.ModuleList(torch_decoder_layer(d_model, n_heads, d_hidden, seed + i) for i in layers)
        self.head = nn.Linear(d_model, n_target)
        filled(self, seed)

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Compute the logits, shape (B, T, n_target), of sources (B, S) and targets (B, T)."""
        hidden = source == PAD  # PyTorch's convention: True where looking is forbidden
        memory = _embedded(self.source_embedding, source)
        for layer in self.encoder:
            memory = layer(memory, src_key_padding_mask=hidden)
        x, later = _embedded(self.target_embedding, target), ~causal_mask(target.shape[1])
        for layer in self.decoder:
            x = layer(x, memory, tgt_mask=later, memory_key_padding_mask=hidden)
        return self.head(x)


class TorchGPT(nn.Module):
    """A decoder-only model made of PyTorch's own layers, which computes what ours should; float64, from a seed.

    Args:
        n_tokens: Size of the vocabulary.
        d_model: Width.
        n_heads: Number of heads.
        n_layers: Number of blocks.
        d_hidden: Width of the feed-forward parts.
        seed: Seed of all parameters.
    """

    def __init__(self, n_tokens: int, d_model: int, n_heads: int, n_layers: int, d_hidden: int, seed: int):
        super().__init__()
        self.embedding = nn.Embedding(n_tokens, d_model)
        self.blocks = nn.ModuleList(
            torch_encoder_layer(d_model, n_heads, d_hidden, seed + i, norm_first=True) for i in range(n_layers)
        )
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, n_tokens)
        filled(self, seed)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Compute the logits, shape (B, T, n_tokens), of tokens (B, T)."""
        x, later = _embedded(self.embedding, tokens), ~causal_mask(tokens.shape[1])
        for block in self.blocks:
            x = block(x, src_mask=later)
        return self.head(self.norm(x))


def _embedded(embedding: nn.Embedding, tokens: torch.Tensor) -> torch.Tensor:
    """Return sqrt(d) E[tokens] + P, the positional encoding written out once more, rounded to float32 as ours is."""
    d_model, angles = embedding.embedding_dim, torch.arange(tokens.shape[1], dtype=torch.float64)[:, None]
    angles = angles / 10000 ** (torch.arange(d_model // 2, dtype=torch.float64) * 2 / d_model)
    encoding = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
    return d_model**0.5 * embedding(tokens) + encoding.float().double()


def our_state(module: nn.Module) -> State:
    """Return the parameters of one of the modules above under this course's names.

    PyTorch keeps W_Q, W_K and W_V in one matrix, `in_proj_weight`, one below the other.

    Args:
        module: A MultiheadAttention, TransformerEncoderLayer or TransformerDecoderLayer of torch.nn, or one of the two
            models above.

    Returns:
        Parameter name -> tensor, for `load_state_dict` of our layer of the same kind.

    Raises:
        TypeError: If it is none of these.
    """
    if isinstance(module, (TorchTransformer, TorchGPT)):
        return _model_state(module)
    if isinstance(module, nn.MultiheadAttention):
        return _attention_state(module)
    if isinstance(module, nn.TransformerEncoderLayer):
        attentions = {"attention": module.self_attn}
    elif isinstance(module, nn.TransformerDecoderLayer):
        attentions = {"self_attention": module.self_attn, "cross_attention": module.multihead_attn}
    else:
        raise TypeError(f"module must be one of torch.nn's three attention layers, got a {type(module).__name__}")
    state = {}
    for name, attention in attentions.items():
        state |= {f"{name}.{key}": tensor for key, tensor in _attention_state(attention).items()}
    for ours, theirs in (("feed_forward.expand", "linear1"), ("feed_forward.contract", "linear2")):
        state |= _prefixed(ours, getattr(module, theirs))
    for number in range(1, len(attentions) + 2):
        state |= _prefixed(f"norm{number}", getattr(module, f"norm{number}"))
    return state


def _model_state(model: nn.Module) -> State:
    state = {}
    for name, part in model.named_children():
        if isinstance(part, nn.ModuleList):
            for number, layer in enumerate(part):
                state |= {f"{name}.{number}.{key}": tensor for key, tensor in our_state(layer).items()}
        else:
            state |= _prefixed(name, part)
    return state


def _attention_state(attention: nn.MultiheadAttention) -> State:
    state = _prefixed("out", attention.out_proj)
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
        state |= {f"{name}.weight": weight.detach(), f"{name}.bias": bias.detach()}
    return state


def _prefixed(name: str, module: nn.Module) -> State:
    return {f"{name}.{key}": tensor for key, tensor in module.state_dict().items()}


def loaded(model: nn.Module, state: State) -> nn.Module:
    """Load parameters into a model by name, in float64, and return it in evaluation mode.

    Args:
        model: For example one's own `MultiHeadAttention`; names and shapes must be those of the state.
        state: Parameter name -> tensor.

    Returns:
        The same model.

    Raises:
        ValueError: If names or shapes differ; the message says which.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in state.items()}
    found = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if wanted != found:
        names = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
        first = "; ".join(
            f"{name} should be {wanted.get(name, 'left out')}, is {found.get(name, 'missing')}" for name in names[:3]
        )
        raise ValueError(f"parameters must have the names and shapes of the docstring; {len(names)} differ: {first}")
    model.double().load_state_dict(state)
    return model.eval()


def shapes(model: nn.Module) -> dict[str, list[int]]:
    """Return name and shape of every parameter, in alphabetical order."""
    return {name: list(parameter.shape) for name, parameter in sorted(model.named_parameters())}


def toy_input(*shape: int, seed: int) -> torch.Tensor:
    """Return standard normal numbers, float64, from a generator of their own."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def toy_tokens(*shape: int, n_tokens: int, seed: int) -> torch.Tensor:
    """Return tokens from 1 to n_tokens - 1 (no padding), int64, from a generator of their own."""
    return torch.randint(1, n_tokens, shape, generator=torch.Generator().manual_seed(seed))
