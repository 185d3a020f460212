"""Wrong answers to Lab 6 that students plausibly give, and correct ones that look different from the reference.

Each function or class is self-contained given the notebook's names. The names of other exercises are imported at the end,
because what is above is named like exercises too.
"""

import math

import torch
from torch import nn

from course_admin.answers import correct, wrong
from course_utils.transformer.given import (
    PAD,
    causal_mask,
    check_even,
    check_heads,
    check_mask,
    check_tokens,
    padding_mask,
)
from course_utils.validate import check_count

# --- positional_encoding ---------------------------------------------------------------------------------------------


@wrong("sin and cos swapped")
def positional_encoding(n_positions, d_model):
    check_count("n_positions", n_positions, minimum=1)
    check_even("d_model", d_model)
    angles = torch.arange(n_positions)[:, None] / 10000 ** (torch.arange(0, d_model, 2) / d_model)
    return torch.stack([angles.cos(), angles.sin()], -1).flatten(1)


@wrong("first all sines, then all cosines")
def positional_encoding(n_positions, d_model):
    check_count("n_positions", n_positions, minimum=1)
    check_even("d_model", d_model)
    angles = torch.arange(n_positions)[:, None] / 10000 ** (torch.arange(0, d_model, 2) / d_model)
    return torch.cat([angles.sin(), angles.cos()], -1)


@wrong("the exponent is i / d instead of 2 i / d")
def positional_encoding(n_positions, d_model):
    check_count("n_positions", n_positions, minimum=1)
    check_even("d_model", d_model)
    angles = torch.arange(n_positions)[:, None] / 10000 ** (torch.arange(d_model // 2) / d_model)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


@wrong("another exponent for the cosine of a pair")
def positional_encoding(n_positions, d_model):
    check_count("n_positions", n_positions, minimum=1)
    check_even("d_model", d_model)
    angles = torch.arange(n_positions)[:, None] / 10000 ** (torch.arange(d_model) / d_model)
    return torch.where(torch.arange(d_model) % 2 == 0, angles.sin(), angles.cos())


@wrong("positions start at 1")
def positional_encoding(n_positions, d_model):
    check_count("n_positions", n_positions, minimum=1)
    check_even("d_model", d_model)
    angles = torch.arange(1, n_positions + 1)[:, None] / 10000 ** (torch.arange(0, d_model, 2) / d_model)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


@wrong("multiplies by 10000^(2i/d) instead of dividing")
def positional_encoding(n_positions, d_model):
    check_count("n_positions", n_positions, minimum=1)
    check_even("d_model", d_model)
    angles = torch.arange(n_positions)[:, None] * 10000 ** (torch.arange(0, d_model, 2) / d_model)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)


@correct("one entry at a time")
def positional_encoding(n_positions, d_model):
    check_count("n_positions", n_positions, minimum=1)
    check_even("d_model", d_model)
    table = torch.zeros(n_positions, d_model)
    for p in range(n_positions):
        for i in range(d_model // 2):
            table[p, 2 * i] = math.sin(p / 10000 ** (2 * i / d_model))
            table[p, 2 * i + 1] = math.cos(p / 10000 ** (2 * i / d_model))
    return table


@correct("float32, with exp and log")
def positional_encoding(n_positions, d_model):
    check_count("n_positions", n_positions, minimum=1)
    check_even("d_model", d_model)
    position = torch.arange(n_positions).unsqueeze(1)
    factor = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
    table = torch.zeros(n_positions, d_model)
    table[:, 0::2] = torch.sin(position * factor)
    table[:, 1::2] = torch.cos(position * factor)
    return table


# --- shift_matrix ----------------------------------------------------------------------------------------------------


@wrong("transposed: turns the wrong way")
def shift_matrix(offset, d_model):
    check_even("d_model", d_model)
    angles = offset * 10000.0 ** (-torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    return torch.block_diag(*[torch.tensor([[a.cos(), -a.sin()], [a.sin(), a.cos()]]).double() for a in angles])


@wrong("one angle for all pairs")
def shift_matrix(offset, d_model):
    check_even("d_model", d_model)
    block = [[math.cos(offset), math.sin(offset)], [-math.sin(offset), math.cos(offset)]]
    return torch.block_diag(*[torch.tensor(block, dtype=torch.float64)] * (d_model // 2))


@wrong("the exponent is i / d instead of 2 i / d")
def shift_matrix(offset, d_model):
    check_even("d_model", d_model)
    matrix = torch.zeros(d_model, d_model, dtype=torch.float64)
    for i in range(d_model // 2):
        angle = offset / 10000 ** (i / d_model)
        matrix[2 * i, 2 * i] = matrix[2 * i + 1, 2 * i + 1] = math.cos(angle)
        matrix[2 * i, 2 * i + 1], matrix[2 * i + 1, 2 * i] = math.sin(angle), -math.sin(angle)
    return matrix


@wrong("for halves: first all sines, then all cosines")
def shift_matrix(offset, d_model):
    check_even("d_model", d_model)
    angles = offset * 10000.0 ** (-torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    c, s = torch.diag(angles.cos()), torch.diag(angles.sin())
    return torch.cat([torch.cat([c, s], 1), torch.cat([-s, c], 1)], 0)


@wrong("the sign of the offset is lost")
def shift_matrix(offset, d_model):
    check_even("d_model", d_model)
    matrix = torch.zeros(d_model, d_model, dtype=torch.float64)
    for i in range(d_model // 2):
        angle = abs(offset) / 10000 ** (2 * i / d_model)
        matrix[2 * i, 2 * i] = matrix[2 * i + 1, 2 * i + 1] = math.cos(angle)
        matrix[2 * i, 2 * i + 1], matrix[2 * i + 1, 2 * i] = math.sin(angle), -math.sin(angle)
    return matrix


@wrong("symmetric blocks: a reflection")
def shift_matrix(offset, d_model):
    check_even("d_model", d_model)
    angles = offset * 10000.0 ** (-torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    return torch.block_diag(*[torch.tensor([[a.cos(), a.sin()], [a.sin(), a.cos()]]).double() for a in angles])


@correct("blocks from torch.block_diag")
def shift_matrix(offset, d_model):
    check_even("d_model", d_model)
    angles = offset * 10000.0 ** (-torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    return torch.block_diag(*[torch.stack([torch.stack([a.cos(), a.sin()]), torch.stack([-a.sin(), a.cos()])]) for a in angles])


@correct("the matrix exponential of the generator")
def shift_matrix(offset, d_model):
    check_even("d_model", d_model)
    generator = torch.zeros(d_model, d_model, dtype=torch.float64)
    for i in range(0, d_model, 2):
        generator[i, i + 1] = 10000.0 ** (-i / d_model)
        generator[i + 1, i] = -generator[i, i + 1]
    return torch.linalg.matrix_exp(offset * generator)


@wrong("only whether there is an offset counts")
def shift_matrix(offset, d_model):
    check_even("d_model", d_model)
    angles = bool(offset) / 10000 ** (torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    blocks = [torch.tensor([[a.cos(), a.sin()], [-a.sin(), a.cos()]], dtype=torch.float64) for a in angles]
    return torch.block_diag(*blocks)


# --- scaled_dot_product_attention ------------------------------------------------------------------------------------


def _attention(query, key, value, mask, scale=None, dim=-1):
    scale = math.sqrt(query.shape[-1]) if scale is None else scale
    scores = query @ key.transpose(-2, -1) / scale
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    weights = scores.softmax(dim)
    if mask is not None:
        weights = weights.masked_fill(~mask, 0.0)
    return weights @ value, weights


@wrong("no scaling")
def scaled_dot_product_attention(query, key, value, mask=None):
    check_mask("mask", mask)
    return _attention(query, key, value, mask, scale=1.0)


@wrong("divides by d_head instead of its square root")
def scaled_dot_product_attention(query, key, value, mask=None):
    check_mask("mask", mask)
    return _attention(query, key, value, mask, scale=query.shape[-1])


@wrong("scales by d_model instead of d_head")
def scaled_dot_product_attention(query, key, value, mask=None):
    check_mask("mask", mask)
    n_heads = query.shape[-3] if query.ndim > 3 else 1
    return _attention(query, key, value, mask, scale=math.sqrt(query.shape[-1] * n_heads))


@wrong("scales by the number of keys")
def scaled_dot_product_attention(query, key, value, mask=None):
    check_mask("mask", mask)
    return _attention(query, key, value, mask, scale=math.sqrt(key.shape[-2]))


@wrong("softmax over the queries")
def scaled_dot_product_attention(query, key, value, mask=None):
    check_mask("mask", mask)
    output, weights = _attention(query, key, value, mask, dim=-2)
    return output.nan_to_num(), weights.nan_to_num()


@wrong("mask after the softmax")
def scaled_dot_product_attention(query, key, value, mask=None):
    check_mask("mask", mask)
    weights = (query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])).softmax(-1)
    weights = weights if mask is None else weights * mask
    return weights @ value, weights


@wrong("additive mask with 0 for blocked and 1 for allowed")
def scaled_dot_product_attention(query, key, value, mask=None):
    check_mask("mask", mask)
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    weights = (scores if mask is None else scores + mask).softmax(-1)
    return weights @ value, weights


@wrong("blocked scores become 0")
def scaled_dot_product_attention(query, key, value, mask=None):
    check_mask("mask", mask)
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    weights = (scores if mask is None else scores * mask).softmax(-1)
    return weights @ value, weights


@wrong("the opposite convention: True is blocked")
def scaled_dot_product_attention(query, key, value, mask=None):
    check_mask("mask", mask)
    return _attention(query, key, value, None if mask is None else ~mask)


@wrong("NaN where a query may look nowhere")
def scaled_dot_product_attention(query, key, value, mask=None):
    check_mask("mask", mask)
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    weights = (scores if mask is None else scores.masked_fill(~mask, -math.inf)).softmax(-1)
    return weights @ value, weights


@wrong("a large negative number: a query that may look nowhere takes the mean of everything")
def scaled_dot_product_attention(query, key, value, mask=None):
    check_mask("mask", mask)
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    weights = (scores if mask is None else scores.masked_fill(~mask, -1e9)).softmax(-1)
    return weights @ value, weights


@correct("einsum and nan_to_num")
def scaled_dot_product_attention(query, key, value, mask=None):
    check_mask("mask", mask)
    scores = torch.einsum("...qd,...kd->...qk", query, key) * query.shape[-1] ** -0.5
    if mask is not None:
        scores = torch.where(mask, scores, float("-inf"))
    weights = torch.softmax(scores, dim=-1).nan_to_num(0.0)
    return torch.einsum("...qk,...kv->...qv", weights, value), weights


@correct("the softmax by hand")
def scaled_dot_product_attention(query, key, value, mask=None):
    check_mask("mask", mask)
    scores = (query / math.sqrt(query.size(-1))) @ key.mT
    allowed = torch.ones_like(scores, dtype=torch.bool) if mask is None else mask.expand(scores.shape)
    exponentials = torch.exp(scores - scores.amax(-1, keepdim=True)) * allowed
    weights = exponentials / exponentials.sum(-1, keepdim=True).clamp(min=1e-30)
    return weights @ value, weights


@wrong("scales by the number of queries")
def scaled_dot_product_attention(query, key, value, mask=None):
    check_mask("mask", mask)
    scores = query @ key.transpose(-2, -1) / query.shape[-2] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    weights = scores.softmax(-1).nan_to_num(0.0)
    return weights @ value, weights


@wrong("the exponential of large scores overflows")
def scaled_dot_product_attention(query, key, value, mask=None):
    check_mask("mask", mask)
    scores = (query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5).exp()
    if mask is not None:
        scores = scores * mask
    weights = scores / (scores.sum(-1, keepdim=True) + 1e-12)
    return weights @ value, weights


@wrong("inverts the caller's mask in place")
def scaled_dot_product_attention(query, key, value, mask=None):
    check_mask("mask", mask)
    scores = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(mask.logical_not_(), -math.inf)
    weights = scores.softmax(-1).nan_to_num(0.0)
    return weights @ value, weights


# --- KeyValueCache ---------------------------------------------------------------------------------------------------


@wrong("drops the last token: returns what was there before")
class KeyValueCache:
    def __init__(self):
        self.keys = self.values = None

    def __len__(self):
        return 0 if self.keys is None else self.keys.shape[-2]

    def append(self, keys, values):
        before = (keys, values) if self.keys is None else (self.keys, self.values)
        self.keys = keys if self.keys is None else torch.cat([self.keys, keys], -2)
        self.values = values if self.values is None else torch.cat([self.values, values], -2)
        return before


@wrong("keeps all but the last position")
class KeyValueCache:
    def __init__(self):
        self.keys = self.values = None

    def __len__(self):
        return 0 if self.keys is None else self.keys.shape[-2]

    def append(self, keys, values):
        if self.keys is not None:
            keys, values = torch.cat([self.keys[..., :-1, :], keys], -2), torch.cat([self.values[..., :-1, :], values], -2)
        self.keys, self.values = keys, values
        return keys, values


@wrong("joins along the heads")
class KeyValueCache:
    def __init__(self):
        self.keys = self.values = None

    def __len__(self):
        return 0 if self.keys is None else self.keys.shape[1]

    def append(self, keys, values):
        if self.keys is not None:
            keys, values = torch.cat([self.keys, keys], 1), torch.cat([self.values, values], 1)
        self.keys, self.values = keys, values
        return keys, values


@wrong("forgets what was there")
class KeyValueCache:
    def __init__(self):
        self.keys = self.values = None

    def __len__(self):
        return 0 if self.keys is None else self.keys.shape[-2]

    def append(self, keys, values):
        self.keys, self.values = keys, values
        return keys, values


@wrong("new positions in front of the old ones")
class KeyValueCache:
    def __init__(self):
        self.keys = self.values = None

    def __len__(self):
        return 0 if self.keys is None else self.keys.shape[-2]

    def append(self, keys, values):
        if self.keys is not None:
            keys, values = torch.cat([keys, self.keys], -2), torch.cat([values, self.values], -2)
        self.keys, self.values = keys, values
        return keys, values


@wrong("counts calls instead of positions")
class KeyValueCache:
    def __init__(self):
        self.parts = []

    def __len__(self):
        return len(self.parts)

    def append(self, keys, values):
        self.parts.append((keys, values))
        return tuple(torch.cat(part, -2) for part in zip(*self.parts, strict=True))


@wrong("one memory for all caches")
class KeyValueCache:
    parts = []  # noqa: RUF012

    def __init__(self):
        pass

    def __len__(self):
        return sum(keys.shape[-2] for keys, _ in self.parts)

    def append(self, keys, values):
        self.parts.append((keys, values))
        return tuple(torch.cat(part, -2) for part in zip(*self.parts, strict=True))


@correct("a list of parts")
class KeyValueCache:
    def __init__(self):
        self.parts = []

    def __len__(self):
        return sum(keys.shape[2] for keys, _ in self.parts)

    def append(self, keys, values):
        self.parts.append((keys, values))
        return torch.cat([k for k, _ in self.parts], dim=2), torch.cat([v for _, v in self.parts], dim=2)


@correct("a counter beside empty tensors")
class KeyValueCache:
    def __init__(self):
        self.length, self.held = 0, None

    def __len__(self):
        return self.length

    def append(self, keys, values):
        if self.held is None:
            self.held = (keys[:, :, :0], values[:, :, :0])
        self.held = (torch.cat((self.held[0], keys), 2), torch.cat((self.held[1], values), 2))
        self.length = self.length + keys.size(2)
        return self.held


# --- MultiHeadAttention ----------------------------------------------------------------------------------------------


class _Heads(nn.Module):
    """What most answers to MultiHeadAttention share: the layers, and forward with two places to go wrong."""

    def __init__(self, d_model, n_heads):
        check_heads(d_model, n_heads)
        super().__init__()
        self.n_heads = n_heads
        self.query, self.key = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)
        self.value, self.out = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)
        self.weights = None

    def split(self, x):
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)

    def join(self, heads):
        return heads.transpose(1, 2).flatten(2)

    def forward(self, query, key, value, mask=None, cache=None):
        q, k, v = self.split(self.query(query)), self.split(self.key(key)), self.split(self.value(value))
        if cache is not None:
            k, v = cache.append(k, v)
        heads, weights = scaled_dot_product_attention(q, k, v, mask)
        self.weights = weights.detach()
        return self.out(self.join(heads))


@wrong("heads split on the wrong axis: one view and no transpose")
class MultiHeadAttention(_Heads):
    def split(self, x):
        return x.reshape(x.shape[0], self.n_heads, x.shape[1], -1)

    def join(self, heads):
        return heads.reshape(heads.shape[0], heads.shape[2], -1)


@wrong("interleaved heads: head i has every h-th component")
class MultiHeadAttention(_Heads):
    def split(self, x):
        return x.unflatten(-1, (-1, self.n_heads)).permute(0, 3, 1, 2)

    def join(self, heads):
        return heads.permute(0, 2, 3, 1).flatten(2)


@wrong("joined without transposing back")
class MultiHeadAttention(_Heads):
    def join(self, heads):
        return heads.reshape(heads.shape[0], heads.shape[2], -1)


@wrong("no output projection")
class MultiHeadAttention(_Heads):
    def forward(self, query, key, value, mask=None, cache=None):
        q, k, v = self.split(self.query(query)), self.split(self.key(key)), self.split(self.value(value))
        if cache is not None:
            k, v = cache.append(k, v)
        heads, self.weights = scaled_dot_product_attention(q, k, v, mask)
        return self.join(heads)


@wrong("scales by d_model instead of d_head")
class MultiHeadAttention(_Heads):
    def forward(self, query, key, value, mask=None, cache=None):
        q, k, v = self.split(self.query(query)), self.split(self.key(key)), self.split(self.value(value))
        if cache is not None:
            k, v = cache.append(k, v)
        heads, self.weights = scaled_dot_product_attention(q / math.sqrt(self.n_heads), k, v, mask)
        return self.out(self.join(heads))


@wrong("the mask is not passed on")
class MultiHeadAttention(_Heads):
    def forward(self, query, key, value, mask=None, cache=None):
        return super().forward(query, key, value, None, cache)


@wrong("the cache is not used")
class MultiHeadAttention(_Heads):
    def forward(self, query, key, value, mask=None, cache=None):
        return super().forward(query, key, value, None if cache is not None and query.shape[1] == 1 else mask, None)


@wrong("the values are made from the keys' layer")
class MultiHeadAttention(_Heads):
    def forward(self, query, key, value, mask=None, cache=None):
        q, k, v = self.split(self.query(query)), self.split(self.key(key)), self.split(self.key(value))
        if cache is not None:
            k, v = cache.append(k, v)
        heads, self.weights = scaled_dot_product_attention(q, k, v, mask)
        return self.out(self.join(heads))


@wrong("no bias in the projections")
class MultiHeadAttention(_Heads):
    def __init__(self, d_model, n_heads):
        super().__init__(d_model, n_heads)
        for name in ("query", "key", "value"):
            setattr(self, name, nn.Linear(d_model, d_model, bias=False))


@correct("a loop over the heads")
class MultiHeadAttention(_Heads):
    def forward(self, query, key, value, mask=None, cache=None):
        q, k, v = self.query(query), self.key(key), self.value(value)
        size = q.shape[-1] // self.n_heads
        q, k, v = (torch.stack(x.split(size, -1), 1) for x in (q, k, v))
        if cache is not None:
            k, v = cache.append(k, v)
        outputs, weights = [], []
        for head in range(self.n_heads):
            allowed = mask
            if mask is not None and mask.ndim == 4:
                allowed = mask[:, min(head, mask.shape[1] - 1)]
            output, weight = scaled_dot_product_attention(q[:, head], k[:, head], v[:, head], allowed)
            outputs.append(output)
            weights.append(weight)
        self.weights = torch.stack(weights, 1).detach()
        return self.out(torch.cat(outputs, -1))


@correct("view and permute, layers made in another order")
class MultiHeadAttention(nn.Module):
    def __init__(self, d_model, n_heads):
        check_heads(d_model, n_heads)
        super().__init__()
        self.out = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.query = nn.Linear(d_model, d_model)
        self.h, self.d_head, self.weights = n_heads, d_model // n_heads, None

    def forward(self, query, key, value, mask=None, cache=None):
        batch = query.shape[0]
        q = self.query(query).view(batch, -1, self.h, self.d_head).permute(0, 2, 1, 3)
        k = self.key(key).view(batch, -1, self.h, self.d_head).permute(0, 2, 1, 3)
        v = self.value(value).view(batch, -1, self.h, self.d_head).permute(0, 2, 1, 3)
        if cache is not None:
            k, v = cache.append(k, v)
        y, w = scaled_dot_product_attention(q, k, v, mask)
        self.weights = w.detach()
        return self.out(y.permute(0, 2, 1, 3).contiguous().view(batch, -1, self.h * self.d_head))


@wrong("the values are made from the keys' input")
class MultiHeadAttention(_Heads):
    def forward(self, query, key, value, mask=None, cache=None):
        return super().forward(query, key, key, mask, cache)


@wrong("the weights are cut off from the gradient before they are used")
class MultiHeadAttention(_Heads):
    def forward(self, query, key, value, mask=None, cache=None):
        q, k, v = self.split(self.query(query)), self.split(self.key(key)), self.split(self.value(value))
        if cache is not None:
            k, v = cache.append(k, v)
        self.weights = scaled_dot_product_attention(q, k, v, mask)[1].detach()
        return self.out(self.join(self.weights @ v))


@wrong("a batch dimension of its own for the mask")
class MultiHeadAttention(_Heads):
    def forward(self, query, key, value, mask=None, cache=None):
        return super().forward(query, key, value, None if mask is None else mask[None, None], cache)


# --- FeedForward -----------------------------------------------------------------------------------------------------


class _Two(nn.Module):
    def __init__(self, d_model, d_hidden):
        check_count("d_model", d_model, minimum=1)
        check_count("d_hidden", d_hidden, minimum=1)
        super().__init__()
        self.expand, self.contract = nn.Linear(d_model, d_hidden), nn.Linear(d_hidden, d_model)


@wrong("no activation")
class FeedForward(_Two):
    def forward(self, x):
        return self.contract(self.expand(x))


@wrong("ReLU after the second layer too")
class FeedForward(_Two):
    def forward(self, x):
        return torch.relu(self.contract(torch.relu(self.expand(x))))


@wrong("GELU instead of ReLU")
class FeedForward(_Two):
    def forward(self, x):
        return self.contract(nn.functional.gelu(self.expand(x)))


@wrong("the residual is inside")
class FeedForward(_Two):
    def forward(self, x):
        return x + self.contract(torch.relu(self.expand(x)))


@wrong("no biases")
class FeedForward(_Two):
    def __init__(self, d_model, d_hidden):
        super().__init__(d_model, d_hidden)
        self.expand = nn.Linear(d_model, d_hidden, bias=False)
        self.contract = nn.Linear(d_hidden, d_model, bias=False)

    def forward(self, x):
        return self.contract(torch.relu(self.expand(x)))


@wrong("the ReLU before the first layer")
class FeedForward(_Two):
    def forward(self, x):
        return self.contract(self.expand(torch.relu(x)))


@correct("clamp")
class FeedForward(_Two):
    def forward(self, x):
        return self.contract(self.expand(x).clamp(min=0))


@correct("matrices written out")
class FeedForward(_Two):
    def forward(self, x):
        hidden = torch.maximum(x @ self.expand.weight.T + self.expand.bias, torch.zeros((), dtype=x.dtype))
        return hidden @ self.contract.weight.T + self.contract.bias


# --- EncoderLayer ----------------------------------------------------------------------------------------------------


class _Encoder(nn.Module):
    def __init__(self, d_model, n_heads, d_hidden, norm_first=False):
        super().__init__()
        self.norm_first = norm_first
        self.attention, self.feed_forward = MultiHeadAttention(d_model, n_heads), FeedForward(d_model, d_hidden)
        self.norm1, self.norm2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)


@wrong("always post-norm")
class EncoderLayer(_Encoder):
    def forward(self, x, mask=None, cache=None):
        x = self.norm1(x + self.attention(x, x, x, mask, cache))
        return self.norm2(x + self.feed_forward(x))


@wrong("always pre-norm")
class EncoderLayer(_Encoder):
    def forward(self, x, mask=None, cache=None):
        y = self.norm1(x)
        x = x + self.attention(y, y, y, mask, cache)
        return x + self.feed_forward(self.norm2(x))


@wrong("pre-norm with the residual from the normalised x")
class EncoderLayer(_Encoder):
    def forward(self, x, mask=None, cache=None):
        if self.norm_first:
            y = self.norm1(x)
            x = y + self.attention(y, y, y, mask, cache)
            y = self.norm2(x)
            return y + self.feed_forward(y)
        x = self.norm1(x + self.attention(x, x, x, mask, cache))
        return self.norm2(x + self.feed_forward(x))


@wrong("no residual around the attention")
class EncoderLayer(_Encoder):
    def forward(self, x, mask=None, cache=None):
        if self.norm_first:
            y = self.norm1(x)
            x = self.attention(y, y, y, mask, cache)
            return x + self.feed_forward(self.norm2(x))
        x = self.norm1(self.attention(x, x, x, mask, cache))
        return self.norm2(x + self.feed_forward(x))


@wrong("the norm before the sum")
class EncoderLayer(_Encoder):
    def forward(self, x, mask=None, cache=None):
        if self.norm_first:
            y = self.norm1(x)
            x = x + self.attention(y, y, y, mask, cache)
            return x + self.feed_forward(self.norm2(x))
        x = x + self.norm1(self.attention(x, x, x, mask, cache))
        return x + self.norm2(self.feed_forward(x))


@wrong("the first norm is used twice")
class EncoderLayer(_Encoder):
    def forward(self, x, mask=None, cache=None):
        if self.norm_first:
            y = self.norm1(x)
            x = x + self.attention(y, y, y, mask, cache)
            return x + self.feed_forward(self.norm1(x))
        x = self.norm1(x + self.attention(x, x, x, mask, cache))
        return self.norm1(x + self.feed_forward(x))


@wrong("the mask is not passed on")
class EncoderLayer(_Encoder):
    def forward(self, x, mask=None, cache=None):
        if self.norm_first:
            y = self.norm1(x)
            x = x + self.attention(y, y, y, None, cache)
            return x + self.feed_forward(self.norm2(x))
        x = self.norm1(x + self.attention(x, x, x, None, cache))
        return self.norm2(x + self.feed_forward(x))


@wrong("the cache is not passed on")
class EncoderLayer(_Encoder):
    def forward(self, x, mask=None, cache=None):
        if self.norm_first:
            y = self.norm1(x)
            x = x + self.attention(y, y, y, mask)
            return x + self.feed_forward(self.norm2(x))
        x = self.norm1(x + self.attention(x, x, x, mask))
        return self.norm2(x + self.feed_forward(x))


@wrong("pre-norm normalises the queries only")
class EncoderLayer(_Encoder):
    def forward(self, x, mask=None, cache=None):
        if self.norm_first:
            x = x + self.attention(self.norm1(x), x, x, mask, cache)
            return x + self.feed_forward(self.norm2(x))
        x = self.norm1(x + self.attention(x, x, x, mask, cache))
        return self.norm2(x + self.feed_forward(x))


@correct("two private steps")
class EncoderLayer(_Encoder):
    def forward(self, x, mask=None, cache=None):
        def look(y):
            return self.attention(y, y, y, mask=mask, cache=cache)

        for norm, part in ((self.norm1, look), (self.norm2, self.feed_forward)):
            x = x + part(norm(x)) if self.norm_first else norm(x + part(x))
        return x


@correct("parts made in another order")
class EncoderLayer(nn.Module):
    def __init__(self, d_model, n_heads, d_hidden, norm_first=False):
        super().__init__()
        self.norm2, self.norm1 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.feed_forward = FeedForward(d_model, d_hidden)
        self.attention = MultiHeadAttention(d_model, n_heads)
        self.pre = norm_first

    def forward(self, x, mask=None, cache=None):
        y = self.norm1(x) if self.pre else x
        x = x + self.attention(y, y, y, mask, cache)
        if not self.pre:
            x = self.norm1(x)
        x = x + self.feed_forward(self.norm2(x) if self.pre else x)
        return x if self.pre else self.norm2(x)


# --- DecoderLayer ----------------------------------------------------------------------------------------------------


class _Decoder(nn.Module):
    def __init__(self, d_model, n_heads, d_hidden):
        super().__init__()
        self.self_attention = MultiHeadAttention(d_model, n_heads)
        self.cross_attention = MultiHeadAttention(d_model, n_heads)
        self.feed_forward = FeedForward(d_model, d_hidden)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(d_model), nn.LayerNorm(d_model), nn.LayerNorm(d_model)


@wrong("the cross-attention looks at the target")
class DecoderLayer(_Decoder):
    def forward(self, x, memory, self_mask=None, memory_mask=None):
        x = self.norm1(x + self.self_attention(x, x, x, self_mask))
        x = self.norm2(x + self.cross_attention(x, x, x, self_mask))
        return self.norm3(x + self.feed_forward(x))


@wrong("the memory's mask is forgotten")
class DecoderLayer(_Decoder):
    def forward(self, x, memory, self_mask=None, memory_mask=None):
        x = self.norm1(x + self.self_attention(x, x, x, self_mask))
        x = self.norm2(x + self.cross_attention(x, memory, memory))
        return self.norm3(x + self.feed_forward(x))


@wrong("the target sees its future")
class DecoderLayer(_Decoder):
    def forward(self, x, memory, self_mask=None, memory_mask=None):
        x = self.norm1(x + self.self_attention(x, x, x))
        x = self.norm2(x + self.cross_attention(x, memory, memory, memory_mask))
        return self.norm3(x + self.feed_forward(x))


@wrong("no residual around the cross-attention")
class DecoderLayer(_Decoder):
    def forward(self, x, memory, self_mask=None, memory_mask=None):
        x = self.norm1(x + self.self_attention(x, x, x, self_mask))
        x = self.norm2(self.cross_attention(x, memory, memory, memory_mask))
        return self.norm3(x + self.feed_forward(x))


@wrong("the cross-attention comes first")
class DecoderLayer(_Decoder):
    def forward(self, x, memory, self_mask=None, memory_mask=None):
        x = self.norm2(x + self.cross_attention(x, memory, memory, memory_mask))
        x = self.norm1(x + self.self_attention(x, x, x, self_mask))
        return self.norm3(x + self.feed_forward(x))


@wrong("one attention for both purposes")
class DecoderLayer(_Decoder):
    def forward(self, x, memory, self_mask=None, memory_mask=None):
        x = self.norm1(x + self.self_attention(x, x, x, self_mask))
        x = self.norm2(x + self.self_attention(x, memory, memory, memory_mask))
        return self.norm3(x + self.feed_forward(x))


@wrong("pre-norm")
class DecoderLayer(_Decoder):
    def forward(self, x, memory, self_mask=None, memory_mask=None):
        y = self.norm1(x)
        x = x + self.self_attention(y, y, y, self_mask)
        x = x + self.cross_attention(self.norm2(x), memory, memory, memory_mask)
        return x + self.feed_forward(self.norm3(x))


@correct("named arguments and intermediate names")
class DecoderLayer(_Decoder):
    def forward(self, x, memory, self_mask=None, memory_mask=None):
        own = self.norm1(x + self.self_attention(query=x, key=x, value=x, mask=self_mask))
        read = self.norm2(own + self.cross_attention(query=own, key=memory, value=memory, mask=memory_mask))
        return self.norm3(read + self.feed_forward(read))


@correct("a loop over the parts")
class DecoderLayer(_Decoder):
    def forward(self, x, memory, self_mask=None, memory_mask=None):
        parts = [
            lambda y: self.self_attention(y, y, y, self_mask),
            lambda y: self.cross_attention(y, memory, memory, memory_mask),
            self.feed_forward,
        ]
        for part, norm in zip(parts, [self.norm1, self.norm2, self.norm3], strict=True):
            x = norm(part(x) + x)
        return x


# --- Transformer -----------------------------------------------------------------------------------------------------


class _Seq2Seq(nn.Module):
    """What most answers to Transformer share; each changes one piece."""

    def __init__(self, n_source, n_target, d_model, n_heads, n_layers, d_hidden, max_length):
        check_heads(d_model, n_heads)
        super().__init__()
        self.d_model, self.max_length = d_model, max_length
        self.source_embedding, self.target_embedding = nn.Embedding(n_source, d_model), nn.Embedding(n_target, d_model)
        nn.init.normal_(self.source_embedding.weight, std=d_model**-0.5)
        nn.init.normal_(self.target_embedding.weight, std=d_model**-0.5)
        self.encoder = nn.ModuleList(EncoderLayer(d_model, n_heads, d_hidden) for _ in range(n_layers))
        self.decoder = nn.ModuleList(DecoderLayer(d_model, n_heads, d_hidden) for _ in range(n_layers))
        self.head = nn.Linear(d_model, n_target)
        self.register_buffer("positions", positional_encoding(max_length, d_model), persistent=False)

    def embed(self, embedding, tokens):
        return math.sqrt(self.d_model) * embedding(tokens) + self.positions[: tokens.shape[1]]

    def encode(self, source):
        check_tokens("source", source, self.max_length)
        x = self.embed(self.source_embedding, source)
        for layer in self.encoder:
            x = layer(x, padding_mask(source))
        return x

    def decode(self, target, memory, memory_mask):
        check_tokens("target", target, self.max_length)
        x = self.embed(self.target_embedding, target)
        for layer in self.decoder:
            x = layer(x, memory, causal_mask(target.shape[1]), memory_mask)
        return self.head(x)

    def forward(self, source, target):
        return self.decode(target, self.encode(source), padding_mask(source))


@wrong("embeddings are not scaled")
class Transformer(_Seq2Seq):
    def embed(self, embedding, tokens):
        return embedding(tokens) + self.positions[: tokens.shape[1]]


@wrong("no positions")
class Transformer(_Seq2Seq):
    def embed(self, embedding, tokens):
        return math.sqrt(self.d_model) * embedding(tokens)


@wrong("the sum of embedding and position is scaled")
class Transformer(_Seq2Seq):
    def embed(self, embedding, tokens):
        return math.sqrt(self.d_model) * (embedding(tokens) + self.positions[: tokens.shape[1]])


@wrong("the encoder looks at padding")
class Transformer(_Seq2Seq):
    def encode(self, source):
        check_tokens("source", source, self.max_length)
        x = self.embed(self.source_embedding, source)
        for layer in self.encoder:
            x = layer(x)
        return x


@wrong("the decoder looks at the source's padding")
class Transformer(_Seq2Seq):
    def forward(self, source, target):
        return self.decode(target, self.encode(source), None)


@wrong("the target sees its future")
class Transformer(_Seq2Seq):
    def decode(self, target, memory, memory_mask):
        check_tokens("target", target, self.max_length)
        x = self.embed(self.target_embedding, target)
        for layer in self.decoder:
            x = layer(x, memory, None, memory_mask)
        return self.head(x)


@wrong("a strict causal mask: a position does not see itself")
class Transformer(_Seq2Seq):
    def decode(self, target, memory, memory_mask):
        check_tokens("target", target, self.max_length)
        x, size = self.embed(self.target_embedding, target), target.shape[1]
        for layer in self.decoder:
            x = layer(x, memory, torch.ones(size, size, dtype=torch.bool).tril(-1), memory_mask)
        return self.head(x)


@wrong("only the first encoder layer is used")
class Transformer(_Seq2Seq):
    def encode(self, source):
        check_tokens("source", source, self.max_length)
        return self.encoder[0](self.embed(self.source_embedding, source), padding_mask(source))


@wrong("embeddings start with variance 1")
class Transformer(_Seq2Seq):
    def __init__(self, n_source, n_target, d_model, n_heads, n_layers, d_hidden, max_length):
        super().__init__(n_source, n_target, d_model, n_heads, n_layers, d_hidden, max_length)
        nn.init.normal_(self.source_embedding.weight)
        nn.init.normal_(self.target_embedding.weight)


@correct("one method for both embeddings, masks made first")
class Transformer(_Seq2Seq):
    def forward(self, source, target):
        mask = (source != PAD).unsqueeze(1).unsqueeze(2)
        return self.decode(target, self.encode(source), mask)


@correct("parts made in another order, positions added in place")
class Transformer(_Seq2Seq):
    def __init__(self, n_source, n_target, d_model, n_heads, n_layers, d_hidden, max_length):
        check_heads(d_model, n_heads)
        nn.Module.__init__(self)
        self.d_model, self.max_length = d_model, max_length
        self.register_buffer("positions", positional_encoding(max_length, d_model), persistent=False)
        self.head = nn.Linear(d_model, n_target)
        self.decoder = nn.ModuleList([DecoderLayer(d_model, n_heads, d_hidden) for _ in range(n_layers)])
        self.encoder = nn.ModuleList([EncoderLayer(d_model, n_heads, d_hidden) for _ in range(n_layers)])
        self.target_embedding = nn.Embedding(n_target, d_model)
        self.source_embedding = nn.Embedding(n_source, d_model)
        with torch.no_grad():
            self.target_embedding.weight.div_(d_model**0.5)
            self.source_embedding.weight.div_(d_model**0.5)


@wrong("the same layer again and again")
class Transformer(_Seq2Seq):
    def __init__(self, n_source, n_target, d_model, n_heads, n_layers, d_hidden, max_length):
        super().__init__(n_source, n_target, d_model, n_heads, n_layers, d_hidden, max_length)
        self.encoder = nn.ModuleList([EncoderLayer(d_model, n_heads, d_hidden)] * n_layers)
        self.decoder = nn.ModuleList([DecoderLayer(d_model, n_heads, d_hidden)] * n_layers)


@wrong("positions are no buffer: they stay on the CPU")
class Transformer(_Seq2Seq):
    def __init__(self, n_source, n_target, d_model, n_heads, n_layers, d_hidden, max_length):
        super().__init__(n_source, n_target, d_model, n_heads, n_layers, d_hidden, max_length)
        del self.positions
        self.positions = positional_encoding(max_length, d_model)


# --- greedy_decode ---------------------------------------------------------------------------------------------------


@wrong("the start token is returned too")
def greedy_decode(model, source, start, end, max_new):
    check_tokens("source", source)
    check_count("max_new", max_new, minimum=1)
    memory, mask = model.encode(source), padding_mask(source)
    target = torch.full((len(source), 1), start)
    ended = torch.zeros(len(source), dtype=torch.bool)
    while target.shape[1] <= max_new and not ended.all():
        token = model.decode(target, memory, mask)[:, -1].argmax(-1).masked_fill(ended, PAD)
        target = torch.cat([target, token[:, None]], 1)
        ended |= token == end
    return target


@wrong("encodes the source at every step")
def greedy_decode(model, source, start, end, max_new):
    check_tokens("source", source)
    check_count("max_new", max_new, minimum=1)
    target = torch.full((len(source), 1), start)
    ended = torch.zeros(len(source), dtype=torch.bool)
    while target.shape[1] <= max_new and not ended.all():
        logits = model.decode(target, model.encode(source), padding_mask(source))
        token = logits[:, -1].argmax(-1).masked_fill(ended, PAD)
        target = torch.cat([target, token[:, None]], 1)
        ended |= token == end
    return target[:, 1:]


@wrong("goes on writing after the end token")
def greedy_decode(model, source, start, end, max_new):
    check_tokens("source", source)
    check_count("max_new", max_new, minimum=1)
    memory, mask = model.encode(source), padding_mask(source)
    target = torch.full((len(source), 1), start)
    ended = torch.zeros(len(source), dtype=torch.bool)
    while target.shape[1] <= max_new and not ended.all():
        token = model.decode(target, memory, mask)[:, -1].argmax(-1)
        target = torch.cat([target, token[:, None]], 1)
        ended |= token == end
    return target[:, 1:]


@wrong("stops when the first sequence has ended")
def greedy_decode(model, source, start, end, max_new):
    check_tokens("source", source)
    check_count("max_new", max_new, minimum=1)
    memory, mask = model.encode(source), padding_mask(source)
    target = torch.full((len(source), 1), start)
    ended = torch.zeros(len(source), dtype=torch.bool)
    while target.shape[1] <= max_new and not ended.any():
        token = model.decode(target, memory, mask)[:, -1].argmax(-1).masked_fill(ended, PAD)
        target = torch.cat([target, token[:, None]], 1)
        ended |= token == end
    return target[:, 1:]


@wrong("never stops before max_new")
def greedy_decode(model, source, start, end, max_new):
    check_tokens("source", source)
    check_count("max_new", max_new, minimum=1)
    memory, mask = model.encode(source), padding_mask(source)
    target = torch.full((len(source), 1), start)
    ended = torch.zeros(len(source), dtype=torch.bool)
    for _ in range(max_new):
        token = model.decode(target, memory, mask)[:, -1].argmax(-1).masked_fill(ended, PAD)
        target = torch.cat([target, token[:, None]], 1)
        ended |= token == end
    return target[:, 1:]


@wrong("shows the model only the last token")
def greedy_decode(model, source, start, end, max_new):
    check_tokens("source", source)
    check_count("max_new", max_new, minimum=1)
    memory, mask = model.encode(source), padding_mask(source)
    target = torch.full((len(source), 1), start)
    ended = torch.zeros(len(source), dtype=torch.bool)
    while target.shape[1] <= max_new and not ended.all():
        token = model.decode(target[:, -1:], memory, mask)[:, -1].argmax(-1).masked_fill(ended, PAD)
        target = torch.cat([target, token[:, None]], 1)
        ended |= token == end
    return target[:, 1:]


@wrong("the end token is left out")
def greedy_decode(model, source, start, end, max_new):
    check_tokens("source", source)
    check_count("max_new", max_new, minimum=1)
    memory, mask = model.encode(source), padding_mask(source)
    target = torch.full((len(source), 1), start)
    ended = torch.zeros(len(source), dtype=torch.bool)
    while target.shape[1] <= max_new:
        token = model.decode(target, memory, mask)[:, -1].argmax(-1)
        ended |= token == end
        if ended.all():
            break
        target = torch.cat([target, token.masked_fill(ended, PAD)[:, None]], 1)
    return target[:, 1:]


@wrong("one token too many")
def greedy_decode(model, source, start, end, max_new):
    check_tokens("source", source)
    check_count("max_new", max_new, minimum=1)
    memory, mask = model.encode(source), padding_mask(source)
    target = torch.full((len(source), 1), start)
    ended = torch.zeros(len(source), dtype=torch.bool)
    while target.shape[1] <= max_new + 1 and not ended.all():
        token = model.decode(target, memory, mask)[:, -1].argmax(-1).masked_fill(ended, PAD)
        target = torch.cat([target, token[:, None]], 1)
        ended |= token == end
    return target[:, 1:]


@correct("a while loop, torch.where")
def greedy_decode(model, source, start, end, max_new):
    check_tokens("source", source)
    check_count("max_new", max_new, minimum=1)
    with torch.no_grad():
        memory = model.encode(source)
        written = torch.zeros(len(source), 0, dtype=torch.long)
        first = torch.full((len(source), 1), start)
        while written.shape[1] < max_new and not (written == end).any(1).all():
            logits = model.decode(torch.cat([first, written], 1), memory, padding_mask(source))
            done = (written == end).any(1)
            token = torch.where(done, PAD, logits[:, -1, :].argmax(dim=-1))
            written = torch.cat([written, token[:, None]], 1)
    return written


@correct("filled into a tensor made beforehand")
def greedy_decode(model, source, start, end, max_new):
    check_tokens("source", source)
    check_count("max_new", max_new, minimum=1)
    target = torch.full((len(source), max_new + 1), PAD)
    target[:, 0] = start
    memory, mask, running = model.encode(source), padding_mask(source), torch.ones(len(source), dtype=torch.bool)
    length = 0
    while length < max_new and running.any():
        token = model.decode(target[:, : length + 1], memory, mask)[:, -1].max(-1).indices
        length += 1
        target[running, length] = token[running]
        running = running & (token != end)
    return target[:, 1 : length + 1]


def _decoded(model, source, mask, start, end, max_new):
    """What both answers below share: a right loop."""
    check_tokens("source", source)
    check_count("max_new", max_new, minimum=1)
    memory, target = model.encode(source), torch.full((len(source), 1), start)
    ended = torch.zeros(len(source), dtype=torch.bool)
    while target.shape[1] <= max_new and not ended.all():
        token = model.decode(target, memory, mask)[:, -1].argmax(-1).masked_fill(ended, PAD)
        target = torch.cat([target, token[:, None]], 1)
        ended |= token == end
    return target[:, 1:]


@wrong("looks at the source's padding")
def greedy_decode(model, source, start, end, max_new):
    return _decoded(model, source, torch.ones_like(padding_mask(source)), start, end, max_new)


@wrong("the course's own start and end tokens instead of the arguments")
def greedy_decode(model, source, start, end, max_new):
    return _decoded(model, source, padding_mask(source), 1, 2, max_new)


# --- matrix_products -------------------------------------------------------------------------------------------------


@wrong("an output projection for each head")
def matrix_products(n_layers, n_heads):
    check_count("n_layers", n_layers, minimum=1)
    check_count("n_heads", n_heads, minimum=1)
    return n_layers * (18 * n_heads + 4) + 1


@wrong("the vocabulary is forgotten")
def matrix_products(n_layers, n_heads):
    check_count("n_layers", n_layers, minimum=1)
    check_count("n_heads", n_heads, minimum=1)
    return n_layers * (15 * n_heads + 7)


@wrong("a projection to the vocabulary in every layer")
def matrix_products(n_layers, n_heads):
    check_count("n_layers", n_layers, minimum=1)
    check_count("n_heads", n_heads, minimum=1)
    return n_layers * (15 * n_heads + 8)


@wrong("one attention in the decoder layer")
def matrix_products(n_layers, n_heads):
    check_count("n_layers", n_layers, minimum=1)
    check_count("n_heads", n_heads, minimum=1)
    return n_layers * (10 * n_heads + 6) + 1


@wrong("projections are shared by the heads")
def matrix_products(n_layers, n_heads):
    check_count("n_layers", n_layers, minimum=1)
    check_count("n_heads", n_heads, minimum=1)
    return n_layers * (6 * n_heads + 16) + 1


@wrong("no output projections")
def matrix_products(n_layers, n_heads):
    check_count("n_layers", n_layers, minimum=1)
    check_count("n_heads", n_heads, minimum=1)
    return n_layers * (15 * n_heads + 4) + 1


@correct("the formula")
def matrix_products(n_layers, n_heads):
    check_count("n_layers", n_layers, minimum=1)
    check_count("n_heads", n_heads, minimum=1)
    return n_layers * (15 * n_heads + 7) + 1


@correct("a loop that adds up")
def matrix_products(n_layers, n_heads):
    check_count("n_layers", n_layers, minimum=1)
    check_count("n_heads", n_heads, minimum=1)
    total = 0
    for _ in range(n_layers):
        for attentions in (1, 2):
            total += 2
            for _ in range(attentions):
                total += sum(3 + 2 for _ in range(n_heads)) + 1
    return total + 1


# --- TinyGPT ---------------------------------------------------------------------------------------------------------


class _GPT(nn.Module):
    """What most answers to TinyGPT share; each changes one piece."""

    def __init__(self, n_tokens, d_model, n_heads, n_layers, d_hidden, max_length):
        check_heads(d_model, n_heads)
        super().__init__()
        self.d_model, self.max_length = d_model, max_length
        self.embedding = nn.Embedding(n_tokens, d_model)
        nn.init.normal_(self.embedding.weight, std=d_model**-0.5)
        self.blocks = nn.ModuleList(EncoderLayer(d_model, n_heads, d_hidden, norm_first=True) for _ in range(n_layers))
        self.norm, self.head = nn.LayerNorm(d_model), nn.Linear(d_model, n_tokens)
        self.register_buffer("positions", positional_encoding(max_length, d_model), persistent=False)

    def new_caches(self):
        return [KeyValueCache() for _ in self.blocks]

    def past(self, caches):
        return len(caches[0]) if caches else 0

    def mask(self, n_new, n_all):
        return causal_mask(n_new, n_all)

    def embed(self, tokens, n_past):
        return math.sqrt(self.d_model) * self.embedding(tokens) + self.positions[n_past : n_past + tokens.shape[1]]

    def forward(self, tokens, caches=None):
        check_tokens("tokens", tokens, self.max_length)
        n_past = self.past(caches)
        end = n_past + tokens.shape[1]
        if end > self.max_length:
            raise ValueError("too long")
        x = self.embed(tokens, n_past)
        for number, block in enumerate(self.blocks):
            x = block(x, self.mask(tokens.shape[1], end), caches[number] if caches else None)
        return self.head(self.norm(x))


@wrong("positions start at 0 again with a cache")
class TinyGPT(_GPT):
    def embed(self, tokens, n_past):
        return super().embed(tokens, 0)


@wrong("not causal")
class TinyGPT(_GPT):
    def mask(self, n_new, n_all):
        return torch.ones(n_new, n_all, dtype=torch.bool)


@wrong("the mask forgets the past in the cache")
class TinyGPT(_GPT):
    def mask(self, n_new, n_all):
        return torch.ones(n_new, n_all, dtype=torch.bool).tril()


@wrong("with a cache new tokens see one another's future")
class TinyGPT(_GPT):
    def mask(self, n_new, n_all):
        return causal_mask(n_new) if n_new == n_all else torch.ones(n_new, n_all, dtype=torch.bool)


@wrong("no norm before the head")
class TinyGPT(_GPT):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.norm.forward = lambda x: x


@wrong("embeddings are not scaled")
class TinyGPT(_GPT):
    def embed(self, tokens, n_past):
        return self.embedding(tokens) + self.positions[n_past : n_past + tokens.shape[1]]


@wrong("post-norm blocks")
class TinyGPT(_GPT):
    def __init__(self, n_tokens, d_model, n_heads, n_layers, d_hidden, max_length):
        super().__init__(n_tokens, d_model, n_heads, n_layers, d_hidden, max_length)
        self.blocks = nn.ModuleList(EncoderLayer(d_model, n_heads, d_hidden) for _ in range(n_layers))


@wrong("one cache for all blocks")
class TinyGPT(_GPT):
    def new_caches(self):
        return [KeyValueCache()] * len(self.blocks)


@wrong("the last position of the past is dropped")
class TinyGPT(_GPT):
    def past(self, caches):
        return max(0, super().past(caches) - 1)


@wrong("a full cache is not noticed")
class TinyGPT(_GPT):
    def forward(self, tokens, caches=None):
        check_tokens("tokens", tokens, self.max_length)
        n_past = self.past(caches)
        x = math.sqrt(self.d_model) * self.embedding(tokens)
        x = x + self.positions[torch.arange(n_past, n_past + tokens.shape[1]).clamp(max=self.max_length - 1)]
        for number, block in enumerate(self.blocks):
            x = block(x, causal_mask(tokens.shape[1], n_past + tokens.shape[1]), caches[number] if caches else None)
        return self.head(self.norm(x))


@wrong("the embedding starts with variance 1")
class TinyGPT(_GPT):
    def __init__(self, *sizes):
        super().__init__(*sizes)
        nn.init.normal_(self.embedding.weight)


@correct("a mask written out, zip over the blocks")
class TinyGPT(_GPT):
    def mask(self, n_new, n_all):
        return torch.arange(n_all)[None, :] <= torch.arange(n_all - n_new, n_all)[:, None]

    def forward(self, tokens, caches=None):
        check_tokens("tokens", tokens, self.max_length)
        n_new = tokens.shape[1]
        n_past = 0 if caches is None else len(caches[-1])
        if n_past + n_new > self.max_length:
            raise ValueError("no room")
        x = self.embedding(tokens) * self.d_model**0.5 + self.positions[n_past:][:n_new]
        for block, cache in zip(self.blocks, caches if caches is not None else [None] * len(self.blocks), strict=True):
            x = block(x, mask=self.mask(n_new, n_past + n_new), cache=cache)
        return self.head(self.norm(x))


@correct("no mask where there is one new token")
class TinyGPT(_GPT):
    def __init__(self, n_tokens, d_model, n_heads, n_layers, d_hidden, max_length):
        super().__init__(n_tokens, d_model, n_heads, n_layers, d_hidden, max_length)
        nn.init.trunc_normal_(self.embedding.weight, std=d_model**-0.5, a=-10, b=10)

    def mask(self, n_new, n_all):
        return None if n_new == 1 else causal_mask(n_new, n_all)


from course_utils.transformer import (  # noqa: E402
    DecoderLayer,
    EncoderLayer,
    FeedForward,
    KeyValueCache,
    MultiHeadAttention,
    positional_encoding,
    scaled_dot_product_attention,
)
