# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lab 6: A transformer from scratch
#
# "Attention is all you need" (Vaswani et al., 2017) describes a network in six pages, and nearly every language model since is
# made of its parts. In this lab you write all of them: positions, attention, heads, layers, encoder and decoder. Your first
# transformer learns to write words backwards. Your second one is a small GPT; it loads weights that were trained on a novel,
# and continues the novel. Then you do to it what this course does to networks: you count it, prune it and quantize it.
#
# **What you will be able to do**
#
# - say how a transformer knows where a token is, and why sine and cosine come in pairs;
# - write attention with masks that are right, and recognise the ways in which masks go wrong;
# - build encoder, decoder and a decoder-only model whose numbers equal those of PyTorch's own layers;
# - count matrix products, operations and bytes, on paper and in the machine;
# - make generation fast with a key-value cache, and test that the cache changes nothing;
# - judge a language model in bits a character, against models that only count, and compress it.
#
# **What you need**: PyTorch's `nn.Module`; Lab 2 for masks and pruning; Lab 3 for the quantizer of section 9.
#
# **Time and memory**: about 5 hours. Running every cell takes about a minute and a half on two recent cores and less than 2 GB
# of memory. Cells that take more than a few seconds show a progress bar.
#
# **How the checks work**: as in the labs before. Checks use tiny models with known weights and run at once; when your work is
# graded, the same properties are checked on other sizes and other inputs too.
#
# **72 points**: 52 by checks, 20 for five written answers. Replace each `raise NotImplementedError(...)` by your code, keep the
# lines above it, and do not change the check cells.
#
# **The rule of the game**: from `torch.nn` take `Linear`, `Embedding`, `LayerNorm`, `Module`, `ModuleList` and `init`;
# functions of `torch` (`softmax`, `relu`, `cat`) are free, except its own `scaled_dot_product_attention`. What is inside
# `nn.MultiheadAttention` and `nn.Transformer` you write yourself; the checks compare your layers with those.

# %%
import copy
import math
import time

import torch
from torch import nn

from course_utils import checkpoints, plots, profiles, runtime
from course_utils.checks import Checks
from course_utils.text import decode, encode, load_text
from course_utils.transformer import plots as pictures
from course_utils.transformer.counting import costs_by_part, count_products
from course_utils.transformer.given import (
    PAD, ScriptedModel, causal_mask, check_even, check_heads, check_mask, check_tokens, filled, padding_mask,
)
from course_utils.transformer.language import fit_language_model, generate, nats_of_characters, nats_per_character
from course_utils.transformer.ngrams import NgramModel
from course_utils.transformer.oracles import (
    TorchGPT, TorchTransformer, loaded, our_state, shapes, torch_attention, torch_decoder_layer, torch_encoder_layer, toy_input,
    toy_tokens,
)
from course_utils.transformer.plan import plan_for
from course_utils.transformer.pretrained import load_tiny_gpt
from course_utils.transformer.reversal import END, N_TOKENS, START, exact_match, fit_reversal, letters, reversal_batch, spell
from course_utils.transformer.widgets import attention_explorer, attention_maps
from course_utils.validate import check_count

plots.use_course_style()
runtime.keep_freed_memory();

# %% [markdown]
# ## Where this lab ends
#
# A model of 0.6 million parameters was trained for this course on nine tenths of *Pride and Prejudice*; the black line is its
# loss. The grey lines are results on the last tenth, which it has never seen: its own, and those of models that only count how
# often a character follows the 1, 4 or 5 before it. Above the picture the model goes on writing after "It is a truth". By the
# end of the lab this model will be *your* code with these weights, and you will know what every one of its numbers does.

# %%
plan = plan_for(profiles.current())
record = checkpoints.read_record("tinygpt_austen")
print("running on", runtime.detect().describe())
print(record["sample"])
counting = {f"{title}, held out: {math.log(2) * entropy:.2f}": math.log(2) * entropy
            for title, entropy in record["held_out_bits_of_witten_bell_ngrams"].items()}
counting[f"this model, held out: {record['held_out_nats']:.2f}"] = record["held_out_nats"]
pictures.learning(record["history"]["step"], record["history"]["loss"], counting);

# %% [markdown]
# ## 1. Where am I?
#
# Attention without a mask is a weighted mean over a *set* of vectors: shuffle the tokens, and every token gets the same output
# as before, only in its new place. So the order must be written into the vectors themselves. (A causal mask, section 7, gives
# some of it away; language models still add positions.) Vaswani et al. add to the vector of the token at position $p = 0, 1, 2,
# \dots$ the vector
#
# $$P_{p,\,2i} = \sin(p\,\omega_i), \qquad P_{p,\,2i+1} = \cos(p\,\omega_i), \qquad \omega_i = 10000^{-2i/d},
# \qquad i = 0, \dots, \tfrac d2 - 1,$$
#
# where $d$ is the width of the model. Each pair of components is a clock hand: the first turns by one radian a position, the
# last by about $10^{-4}$, so that neighbouring positions and far ones can both be told apart. Sines and cosines *alternate*, at
# even and odd components.
#
# ### Exercise: `positional_encoding` (4 points)

# %% exercise
from course_utils.transformer import positional_encoding

# %% check points=4
check = Checks("positional_encoding")
# atol 1e-5: the encoding is float32, and a sine computed in float32 at p < 100 is off by less than that.
check.close("position 0: all hands at the start", lambda: positional_encoding(1, 6)[0], [0.0, 1.0, 0.0, 1.0, 0.0, 1.0], atol=1e-5,
            hint="sin(0) = 0 at even components, cos(0) = 1 at odd ones")
check.close("position 3 of width 4", lambda: positional_encoding(4, 4)[3],
            [math.sin(3), math.cos(3), math.sin(0.03), math.cos(0.03)], atol=1e-5, hint="10000^(2/4) = 100: the second hand is 100 times slower")
check.equal("shape and dtype", lambda: [list(positional_encoding(7, 10).shape), str(positional_encoding(7, 10).dtype)],
            [[7, 10], "torch.float32"], hint="one row a position")
check.close("position 2 of width 8", lambda: positional_encoding(3, 8)[2, 4:], [math.sin(0.02), math.cos(0.02), math.sin(0.002), math.cos(0.002)],
            atol=1e-5, hint="each hand of width 8 is 10000^(1/4) = 10 times slower than the one before")
check.raises("an odd width is refused", lambda: positional_encoding(5, 7), ValueError, hint="keep the check_ lines")
### BEGIN HIDDEN TESTS


def clock_hand(position, component, width):
    """One entry of the encoding, from the formula."""
    angle = position / 10000 ** (2 * (component // 2) / width)
    return math.cos(angle) if component % 2 else math.sin(angle)


for toy_length, toy_width in ((20, 12), (90, 2), (33, 34)):
    check.close(f"{toy_length} positions of width {toy_width}",
                lambda toy_length=toy_length, toy_width=toy_width: positional_encoding(toy_length, toy_width),
                [[clock_hand(p, c, toy_width) for c in range(toy_width)] for p in range(toy_length)], atol=2e-5,
                hint="the exponent is 2i / d_model for both components of pair i")
check.raises("no positions are refused", lambda: positional_encoding(0, 4), ValueError, hint="keep the check_ lines")
### END HIDDEN TESTS
check.score(points=4)

# %%
pictures.positions(positional_encoding(96, 64));

# %% [markdown]
# In the Gram matrix $P P^\top$ all diagonals are constant: how similar two positions are depends on their distance and on nothing
# else. That is no accident:
#
# $$P_p \cdot P_q = \sum_i \sin(p\omega_i)\sin(q\omega_i) + \cos(p\omega_i)\cos(q\omega_i) = \sum_i \cos\big((p-q)\,\omega_i\big).$$
#
# And there is more to it. Vaswani et al. chose this encoding because "for any fixed offset $k$, $PE_{pos+k}$ can be represented
# as a linear function of $PE_{pos}$": one matrix $M_k$, the same for all positions, moves the encoding $k$ places on. They
# *hypothesised* that this makes it easy to attend by relative position: a head's linear layers could, in principle, contain $M_k$
# and look "three tokens back" wherever it is. (Positions that were learned did nearly as well in their table 3, row E.)
#
# ### Exercise: `shift_matrix` (3 points)
#
# Derive the matrix from $\sin(a + b) = \sin a \cos b + \cos a \sin b$ and $\cos(a + b) = \cos a \cos b - \sin a \sin b$. Mind the
# signs: our pairs are (sine, cosine), not (cosine, sine).

# %% exercise
from course_utils.transformer import shift_matrix

# %% check points=3
check = Checks("shift_matrix")


def clock_hands(position, width):
    """The encoding of one position, in float64, from the formula."""
    angles = position / 10000 ** (torch.arange(width // 2, dtype=torch.float64) * 2 / width)
    return torch.stack([angles.sin(), angles.cos()], -1).flatten()


# atol 1e-9: float64, angles below 100
check.close("no shift is the identity", lambda: shift_matrix(0, 4), torch.eye(4, dtype=torch.float64), atol=1e-9,
            hint="cos(0) = 1 on the diagonal, sin(0) = 0 beside it")
check.close("from position 5 to 6", lambda: shift_matrix(1, 6) @ clock_hands(5, 6), clock_hands(6, 6), atol=1e-9,
            hint="sin((p + k) w) = cos(k w) sin(p w) + sin(k w) cos(p w) is the first row of a block; compute in float64")
check.close("the same matrix from position 40 to 41", lambda: shift_matrix(1, 6) @ clock_hands(40, 6), clock_hands(41, 6), atol=1e-9,
            hint="the matrix must not depend on the position; torch.arange(..., dtype=torch.float64), or math.sin and math.cos")
check.close("three positions back, from 5 to 2", lambda: shift_matrix(-3, 6) @ clock_hands(5, 6), clock_hands(2, 6), atol=1e-9,
            hint="rotate by k w: a negative k turns back")
check.raises("an odd width is refused", lambda: shift_matrix(1, 3), ValueError, hint="keep the check_ lines")
### BEGIN HIDDEN TESTS
for toy_offset, toy_width in ((7, 12), (-4, 8), (31, 2)):
    check.close(f"offset {toy_offset}, width {toy_width}, from position 11",
                lambda toy_offset=toy_offset, toy_width=toy_width: shift_matrix(toy_offset, toy_width) @ clock_hands(11, toy_width),
                clock_hands(11 + toy_offset, toy_width), atol=1e-9, hint="one rotation by k w_i for each pair; a negative k turns back")
check.close("shifts can be undone", lambda: shift_matrix(9, 10) @ shift_matrix(-9, 10), torch.eye(10, dtype=torch.float64), atol=1e-9,
            hint="rotations: M_k M_-k = 1")
check.equal("it is float64", lambda: str(shift_matrix(1, 4).dtype), "torch.float64", hint="dtype=torch.float64")
### END HIDDEN TESTS
check.score(points=3)

# %%
# NBVAL_CHECK_OUTPUT
encoding = positional_encoding(40, 64).double()
moved = encoding[:35] @ shift_matrix(5, 64).T  # rows are positions, so the matrix acts from the right, transposed
print("P shifted by a matrix equals P five positions on:", torch.allclose(moved, encoding[5:], rtol=0, atol=1e-5))

# %% [markdown]
# ### Written question: positions (4 points)
#
# 1. Derive the $2 \times 2$ block of $M_k$ for the pair $(\sin p\omega, \cos p\omega)$, and show that $M_k$ is orthogonal. What
#    does that say about $\lVert P_p \rVert$?
# 2. Suppose the encoding had only the sines. Is there still a matrix that moves every position one place on? Give a reason.
# 3. Compute $\lVert P_p - P_q\rVert^2$. Can two different positions have the same encoding, if $d \ge 2$?

# %% [markdown] answer name=positions points=4
# **Model answer.** 1. With $s = \sin p\omega$, $c = \cos p\omega$: $\sin((p+k)\omega) = s\cos k\omega + c \sin k\omega$ and
# $\cos((p+k)\omega) = -s \sin k\omega + c\cos k\omega$, so the block is
# $\begin{pmatrix}\cos k\omega & \sin k\omega\\ -\sin k\omega & \cos k\omega\end{pmatrix}$. Its columns have length
# $\cos^2 + \sin^2 = 1$ and their product is $\cos k\omega\sin k\omega - \sin k\omega\cos k\omega = 0$: a rotation. $M_k$ is block
# diagonal with such blocks, hence orthogonal, and lengths stay the same: $\lVert P_p\rVert^2 = d/2$ for every $p$ (each pair
# contributes $\sin^2 + \cos^2 = 1$).
#
# 2. No. $P_0$ would be the zero vector; a matrix maps it to zero, but $P_1 = (\sin \omega_i)_i \neq 0$. (Or:
# $\sin((p+1)\omega)$ needs $\cos p\omega$, and the sine alone leaves its sign open.) A constant to add does not help either: as
# functions of $p$, the sines and cosines of different frequencies and the constant 1 are linearly independent.
#
# 3. $\lVert P_p - P_q\rVert^2 = \lVert P_p\rVert^2 + \lVert P_q\rVert^2 - 2 P_p\cdot P_q = d - 2\sum_i \cos((p-q)\omega_i) =
# 2\sum_i \big(1 - \cos((p-q)\omega_i)\big)$. It is zero only if $(p-q)\omega_i$ is a multiple of $2\pi$ for every $i$. Already
# for $\omega_0 = 1$ that would make $p - q$ a multiple of $2\pi$, and no whole number but 0 is one ($\pi$ is irrational). So
# no.
#
# **Mark scheme (4).** Block derived with the right signs 1. Orthogonal, and $\lVert P_p\rVert^2 = d/2$ 1. Sines alone fail,
# with a reason (zero vector, or missing cosine) 1. Distance computed and uniqueness argued 1.

# %% [markdown]
# ## 2. Attention
#
# Every position asks a question (its **query** $q$), every position offers a **key** $k$ by which it can be found and a
# **value** $v$ that it gives away. The answer to a query is a mean of the values, weighted by how well the keys match:
#
# $$\operatorname{Attention}(Q, K, V) = \operatorname{softmax}\!\Big(\frac{Q K^\top}{\sqrt{d_{\text{head}}}}\Big) V .$$
#
# The softmax runs over the **keys**: each query's weights sum to 1.
#
# **Masks.** Some keys must not be looked at: padding, or the future. In this course a mask is **boolean, `True` where the query
# may look**. That is the convention of `torch.nn.functional.scaled_dot_product_attention`; `torch.nn.MultiheadAttention` has
# the opposite one. Mixing them up makes a model that looks exactly where it must not, and often still trains, even better: the
# language model of section 7, trained for 400 steps with its mask the wrong way round, reached a loss of 0.04 nats (it reads what
# it should predict) where the right one reached 2.0, and wrote "truthin wofanderers shenss". Forbidden scores become $-\infty$ *before* the softmax, so that the weights of the others sum to 1.
#
# And if a query may look nowhere? Its softmax would be $0/0$. We want zeros: no weights, no output, and no NaN that creeps into
# everything else.
#
# ### Exercise: `scaled_dot_product_attention` (6 points)
#
# Leading dimensions can be anything: `key.transpose(-2, -1)` and `@` leave them alone.

# %% exercise
from course_utils.transformer import scaled_dot_product_attention

# %% check points=6
check = Checks("scaled_dot_product_attention")
toy_query, toy_key = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 5.0], [-1.0, 1.0]])
toy_value = torch.tensor([[1.0], [10.0], [100.0]])
toy_mask = torch.tensor([[True, True, False], [True, False, True]])
# atol 1e-5: float32
check.close("equal scores give the mean of the values", lambda: scaled_dot_product_attention(toy_query, toy_key, toy_value)[0][1], [37.0],
            atol=1e-5, hint="the second query is zero, so all its weights are 1/3")
check.close("scores are divided by sqrt(2)", lambda: scaled_dot_product_attention(toy_query, toy_key, toy_value)[1][0],
            torch.softmax(torch.tensor([2.0, 0.0, -2.0]) / math.sqrt(2), 0), atol=1e-5, hint="d_head = 2 is the last dimension of the query")
check.close("True means may look", lambda: scaled_dot_product_attention(toy_query, toy_key, toy_value, toy_mask)[1][1], [0.5, 0.0, 0.5],
            atol=1e-5, hint="masked_fill(~mask, -inf) before the softmax")
check.close("weights of a masked query sum to 1", lambda: scaled_dot_product_attention(toy_query, toy_key, toy_value, toy_mask)[1].sum(-1),
            [1.0, 1.0], atol=1e-5, hint="a mask after the softmax leaves less than 1")
check.close("a query that may look nowhere gets zeros",
            lambda: scaled_dot_product_attention(toy_query, toy_key, toy_value, torch.tensor([[False], [True]])), [[[0.0], [37.0]],
            [[0.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]]], atol=1e-5, hint="set the weights of forbidden keys to 0 after the softmax too")
import torch.nn.functional as F


def attention_of(*leading):
    """Output for 5 queries and 6 keys of width 4, with leading dimensions."""
    return scaled_dot_product_attention(*[toy_input(*leading, n, 4, seed=n) for n in (5, 6)], toy_input(*leading, 6, 3, seed=8))[0]


def masked_in_place():
    """The mask after a call: it belongs to the caller."""
    mask = toy_mask.clone()
    scaled_dot_product_attention(toy_query, toy_key, toy_value, mask)
    return mask


check.close("a batch of two, three heads: as torch's own", lambda: attention_of(2, 3),
            lambda: F.scaled_dot_product_attention(toy_input(2, 3, 5, 4, seed=5), toy_input(2, 3, 6, 4, seed=6), toy_input(2, 3, 6, 3, seed=8)),
            atol=1e-9, hint="softmax over the last dimension; divide by the root of the query's last dimension")
check.close("large scores are no problem", lambda: scaled_dot_product_attention(1000 * toy_query, toy_key, toy_value)[1][0], [1.0, 0.0, 0.0],
            atol=1e-5, hint="torch.softmax subtracts the largest score before it takes the exponential")
check.equal("the caller's mask stays as it was", masked_in_place, toy_mask, hint="~mask makes a new tensor")
check.raises("a mask of numbers is refused", lambda: scaled_dot_product_attention(toy_query, toy_key, toy_value, toy_mask.float()), TypeError,
             hint="keep the check_ lines")
### BEGIN HIDDEN TESTS
toy_parts = [toy_input(2, 3, 5, 8, seed=601), toy_input(2, 3, 6, 8, seed=602), toy_input(2, 3, 6, 4, seed=603)]
toy_masks = {
    "no mask": None,
    "causal": causal_mask(5, 6),
    "padding": padding_mask(torch.tensor([[3, 4, 5, PAD, PAD, PAD], [1, 1, 1, 1, 1, PAD]])),
    "random": torch.rand(2, 3, 5, 6, generator=torch.Generator().manual_seed(604)) > 0.4,
}
for toy_name, toy_mask_ in toy_masks.items():
    # atol 1e-9: float64, only the order of sums differs
    check.close(f"as torch's own: {toy_name}", lambda toy_mask_=toy_mask_: scaled_dot_product_attention(*toy_parts, toy_mask_)[0],
                lambda toy_mask_=toy_mask_: F.scaled_dot_product_attention(*toy_parts, toy_mask_), atol=1e-9,
                hint="softmax over the keys, the last dimension; scale by the last dimension of the query")
check.close("two leading dimensions or none", lambda: scaled_dot_product_attention(*(part[1, 2] for part in toy_parts))[0],
            lambda: F.scaled_dot_product_attention(*toy_parts)[1, 2], atol=1e-9, hint="use negative dimensions")
check.close("half of the queries may look nowhere",
            lambda: scaled_dot_product_attention(*toy_parts, (torch.arange(5) % 2 == 0)[:, None].expand(5, 6)),
            lambda: [F.scaled_dot_product_attention(*toy_parts) * (torch.arange(5) % 2 == 0)[:, None],
                     (toy_parts[0] @ toy_parts[1].mT / 8**0.5).softmax(-1) * (torch.arange(5) % 2 == 0)[:, None]],
            atol=1e-9, hint="zeros, not NaN and not the mean of all values")
### END HIDDEN TESTS
check.score(points=6)

# %% [markdown]
# ### Written question: scaling and masking (4 points)
#
# 1. Let the $d_{\text{head}}$ components of a query and a key be independent with mean 0 and variance 1. What are mean and
#    variance of their product $q \cdot k$? And after division by $\sqrt{d_{\text{head}}}$?
# 2. The softmax $a = \operatorname{softmax}(s)$ has the derivatives $\partial a_i / \partial s_j = a_i(\delta_{ij} - a_j)$.
#    What happens to them if one score is much larger than the others? So what goes wrong in training without the factor
#    $1/\sqrt{d_{\text{head}}}$?
# 3. Someone masks like this: `weights = scores.softmax(-1) * mask`. Somebody else adds the mask to the scores as a number, 0 for
#    forbidden and 1 for allowed. What does each of them compute?

# %% [markdown] answer name=scaling_and_masking points=4
# **Model answer.** 1. Each term $q_i k_i$ has mean $0$ and variance $E[q_i^2]E[k_i^2] = 1$; the terms are independent, so
# $q\cdot k$ has mean 0 and variance $d_{\text{head}}$ (standard deviation $\sqrt{d_{\text{head}}}$). After division by
# $\sqrt{d_{\text{head}}}$ the variance is 1, whatever $d_{\text{head}}$ is.
#
# 2. If one score is much larger, $a$ is nearly a unit vector: $a_i \approx 1$ for that $i$, $\approx 0$ else. Then $a_i(1 -
# a_i) \approx 0$ and $a_i a_j \approx 0$: all derivatives vanish. Without the factor the scores have standard deviation
# $\sqrt{d_{\text{head}}}$ (8 for 64) under these assumptions: with 16 keys the largest weight is 0.84 on average instead of
# 0.25, the derivatives are several times smaller, and which key wins is decided by the random initial weights. (PyTorch's
# `nn.Linear` starts with smaller weights, which softens this.)
#
# 3. The first normalises over all keys, then sets some weights to zero: the rest sums to less than 1, the output shrinks, and
# forbidden keys still matter through the denominator (a causal model would see the future in it). The second adds 1 to the
# allowed scores and 0 to the others: forbidden keys are merely $e$ times less likely than before, so they are still looked at.
# (Adding is fine with 0 for allowed and $-\infty$ for forbidden.)
#
# **Mark scheme (4).** Variance $d_{\text{head}}$, then 1, with the reason 1. Derivatives vanish and the consequence for
# training 1. Mask after the softmax: less than 1, forbidden keys matter in the denominator 1. Additive 0/1: factor $e$ only 1.

# %% [markdown]
# ## 3. Several heads, and a memory
#
# One attention has one set of weights for each query: whatever it looks for, it gets one mean. So the paper runs $h$ of them side
# by side, each on projections of its own into $d_{\text{head}} = d / h$ dimensions, and mixes their outputs by one more matrix:
#
# $$\operatorname{MultiHead}(Q, K, V) = \operatorname{Concat}(\text{head}_1, \dots, \text{head}_h)\, W_O, \qquad
# \text{head}_i = \operatorname{Attention}(Q W_Q^i,\; K W_K^i,\; V W_V^i) .$$
#
# The matrices $W_Q^1, \dots, W_Q^h$ side by side are one $d \times d$ matrix, so one linear layer projects for all heads. Its
# output is cut up: **the first $d_{\text{head}}$ components belong to head 1**, the next to head 2, and so on. The shape goes
# $(B, T, d) \to (B, T, h, d_{\text{head}}) \to (B, h, T, d_{\text{head}})$: first split, then *transpose*. (To ask for $(B, h,
# T, d_{\text{head}})$ by one `view` gives a tensor of the right shape and wrong content.)
#
# **A memory.** Section 8 generates text token by token. The keys and values of past tokens do not change, so an attention can
# keep them in a cache and project only the new token. Write the cache first; it is four lines.
#
# ### Exercise: `KeyValueCache` (3 points)

# %% exercise
from course_utils.transformer import KeyValueCache

# %% check points=3
check = Checks("KeyValueCache")


def cache_story(sizes, seed):
    """Append parts of the given lengths; return the lengths in between, and all keys and values at the end."""
    cache, lengths = KeyValueCache(), []
    lengths.append(len(cache))
    for number, size in enumerate(sizes):
        kept = cache.append(toy_input(2, 3, size, 4, seed=seed + number), toy_input(2, 3, size, 5, seed=seed + 50 + number))
        lengths.append(len(cache))
    return lengths, kept[0], kept[1]


check.equal("it starts empty and counts positions", lambda: cache_story([2, 1, 3], 1)[0], [0, 2, 3, 6], hint="positions are dimension -2")
check.equal("the first keys come back", lambda: cache_story([3], 2)[1], toy_input(2, 3, 3, 4, seed=2), hint="nothing to put them behind yet")
check.equal("new keys go behind the old ones", lambda: cache_story([2, 1], 3)[1],
            torch.cat([toy_input(2, 3, 2, 4, seed=3), toy_input(2, 3, 1, 4, seed=4)], 2), hint="torch.cat([old, new], -2)")
check.equal("new values go behind the old ones", lambda: cache_story([2, 1], 3)[2],
            torch.cat([toy_input(2, 3, 2, 5, seed=53), toy_input(2, 3, 1, 5, seed=54)], 2), hint="values are kept like keys; return (keys, values)")
check.equal("three times: all positions come back", lambda: [list(part.shape) for part in cache_story([2, 1, 3], 4)[1:]], [[2, 3, 6, 4], [2, 3, 6, 5]],
            hint="keep what is returned: all positions so far")
### BEGIN HIDDEN TESTS
check.equal("many keys", lambda: cache_story([1, 4, 2, 1], 620)[1],
            torch.cat([toy_input(2, 3, size, 4, seed=620 + number) for number, size in enumerate([1, 4, 2, 1])], 2),
            hint="what is returned has all positions so far, the new ones included")
check.equal("many values", lambda: cache_story([1, 4, 2, 1], 620)[2],
            torch.cat([toy_input(2, 3, size, 5, seed=670 + number) for number, size in enumerate([1, 4, 2, 1])], 2),
            hint="values are kept like keys; return (keys, values)")
check.equal("lengths", lambda: cache_story([5, 1, 1, 3], 630)[0], [0, 5, 6, 7, 10], hint="count positions, not calls")
check.equal("two caches do not share anything", lambda: [cache_story([2, 2], 640)[0], cache_story([1], 641)[0]], [[0, 2, 4], [0, 1]],
            hint="keep the tensors in self")
### END HIDDEN TESTS
check.score(points=3)

# %% [markdown]
# ### Exercise: `MultiHeadAttention` (7 points)
#
# The names in the docstring are part of the exercise: trained weights are loaded by name. `self.weights` is kept for the
# pictures. `x.unflatten(-1, (h, -1))` splits the last dimension, `x.flatten(2)` joins the last ones. Ask `cache is not None`,
# not `if cache`: an empty cache has length 0 and counts as false.

# %% exercise
from course_utils.transformer import MultiHeadAttention

# %% check points=7
check = Checks("MultiHeadAttention")


def attend(width, n_heads, seed, mask=None, n_keys=None):
    """Output and weights of the student's layer with torch's weights, on 4 queries and as many keys (or n_keys)."""
    layer = loaded(MultiHeadAttention(width, n_heads), our_state(torch_attention(width, n_heads, seed)))
    queries = toy_input(2, 4, width, seed=seed + 1)
    memory = queries if n_keys is None else toy_input(2, n_keys, width, seed=seed + 2)
    return layer(queries, memory, memory, mask), layer.weights


def attend_torch(width, n_heads, seed, mask=None, n_keys=None):
    """The same from torch.nn.MultiheadAttention."""
    queries = toy_input(2, 4, width, seed=seed + 1)
    memory = queries if n_keys is None else toy_input(2, n_keys, width, seed=seed + 2)
    hidden = None if mask is None else ~mask
    return torch_attention(width, n_heads, seed)(queries, memory, memory, attn_mask=hidden, average_attn_weights=False)


class PlainCache:
    """A cache that needs nobody's answer to another exercise."""

    def __init__(self):
        self.kept, self.length = [], 0

    def __len__(self):
        return self.length

    def append(self, keys, values):
        self.kept.append((keys, values))
        self.length += keys.shape[2]
        return tuple(torch.cat(parts, 2) for parts in zip(*self.kept, strict=True))
def attend_in_pieces(sizes, seed):
    """Causal self-attention of 6 positions, the keys and values of each piece kept in a cache for the next."""
    layer = loaded(MultiHeadAttention(12, 3), our_state(torch_attention(12, 3, seed)))
    cache, outputs = PlainCache(), []
    for piece in toy_input(2, 6, 12, seed=seed + 1).split(sizes, 1):
        outputs.append(layer(piece, piece, piece, causal_mask(piece.shape[1], cache.length + piece.shape[1]), cache))
    return torch.cat(outputs, 1)


# atol 1e-5 for everything that is compared with PyTorch's layers: the bar of this lab; in float64 the difference is about 1e-15
check.equal("names and shapes of the parameters", lambda: shapes(MultiHeadAttention(6, 2)),
            {f"{part}.{kind}": [6, 6] if kind == "weight" else [6] for part in ("key", "out", "query", "value") for kind in ("bias", "weight")},
            hint="self.query, self.key, self.value and self.out are nn.Linear(d_model, d_model)")
check.close("one head, as torch.nn.MultiheadAttention", lambda: attend(6, 1, 10)[0], lambda: attend_torch(6, 1, 10)[0], atol=1e-5,
            hint="project, attend, then self.out")
check.close("three heads", lambda: attend(12, 3, 20)[0], lambda: attend_torch(12, 3, 20)[0], atol=1e-5,
            hint="split first, then transpose; and back: transpose, then flatten")
check.close("weights of the three heads", lambda: attend(12, 3, 20)[1], lambda: attend_torch(12, 3, 20)[1], atol=1e-5,
            hint="self.weights has shape (B, h, queries, keys)")
check.close("keys and values from elsewhere, under a mask", lambda: attend(12, 3, 30, causal_mask(4, 6), 6)[0],
            lambda: attend_torch(12, 3, 30, causal_mask(4, 6), 6)[0], atol=1e-5, hint="project key and value, not query; pass the mask on")
check.close("in two pieces with a cache", lambda: attend_in_pieces([4, 2], 40),
            lambda: torch_attention(12, 3, 40)(*[toy_input(2, 6, 12, seed=41)] * 3, attn_mask=~causal_mask(6))[0], atol=1e-5,
            hint="if cache is not None: keys, values = cache.append(keys, values), after splitting into heads")


def attend_apart(seed):
    """Queries, keys and values all different: the student's layer and torch's."""
    parts = [toy_input(2, n, 12, seed=seed + i) for i, n in enumerate((4, 6, 6), start=1)]
    peer = torch_attention(12, 3, seed)
    return loaded(MultiHeadAttention(12, 3), our_state(peer))(*parts), peer(*parts)[0]


def attend_with_gradient():
    """Whether the loss reaches each projection, and whether the weights kept for pictures hold on to the graph."""
    layer = filled(MultiHeadAttention(6, 2), 3)
    before = layer.weights
    layer(*[toy_input(1, 3, 6, seed=4)] * 3).square().sum().backward()
    reached = [bool(part.weight.grad.abs().sum() > 0) for part in (layer.query, layer.key, layer.value, layer.out)]
    return [before, reached, layer.weights.requires_grad]


check.close("values from elsewhere than the keys", lambda: attend_apart(45)[0], lambda: attend_apart(45)[1], atol=1e-5,
            hint="self.key(key), self.value(value)")
check.close("a mask for each sequence", lambda: attend(12, 3, 46, torch.tensor([[True, True, False, False], [True] * 4])[:, None, None])[0],
            lambda: attend_torch(12, 3, 46, torch.tensor([[True, True, False, False], [True] * 4])[:, None, None].expand(2, 3, 4, 4).flatten(0, 1))[0],
            atol=1e-5, hint="pass the mask on as it is: it broadcasts to (B, h, queries, keys)")
check.equal("gradients reach all four layers; the weights are kept without", attend_with_gradient, [None, [True] * 4, False],
            hint="self.weights = None at first, then weights.detach(); the output comes from the weights themselves")
check.raises("10 is not a multiple of 4", lambda: MultiHeadAttention(10, 4), ValueError, hint="keep the check_ lines")
### BEGIN HIDDEN TESTS
for toy_width, toy_heads, toy_seed in ((8, 2, 650), (12, 4, 660), (10, 10, 670)):
    check.close(f"width {toy_width}, {toy_heads} heads, other keys",
                lambda toy_width=toy_width, toy_heads=toy_heads, toy_seed=toy_seed: attend(toy_width, toy_heads, toy_seed, n_keys=7)[0],
                lambda toy_width=toy_width, toy_heads=toy_heads, toy_seed=toy_seed: attend_torch(toy_width, toy_heads, toy_seed, n_keys=7)[0],
                atol=1e-5, hint="head 1 has the first d_head components, head 2 the next; scale by sqrt(d_head), not by sqrt(d_model)")
check.close("a causal mask", lambda: attend(12, 3, 680, causal_mask(4)), lambda: attend_torch(12, 3, 680, causal_mask(4)), atol=1e-5,
            hint="pass the mask on to scaled_dot_product_attention")


for toy_sizes in ([6], [1, 1, 1, 1, 1, 1], [3, 1, 2]):
    check.close(f"with a cache, in pieces of {toy_sizes}", lambda toy_sizes=toy_sizes: attend_in_pieces(toy_sizes, 690),
                lambda: torch_attention(12, 3, 690)(*[toy_input(2, 6, 12, seed=691)] * 3, attn_mask=~causal_mask(6))[0], atol=1e-5,
                hint="if cache is not None: keys, values = cache.append(keys, values), after splitting into heads")
### END HIDDEN TESTS
check.score(points=7)

# %% [markdown]
# ## 4. Layers
#
# After the attention every position is processed for itself, by one small network that is the same for all positions (every
# layer has its own):
#
# $$\operatorname{FFN}(x) = \max(0,\, x W_1 + b_1)\, W_2 + b_2 .$$
#
# ### Exercise: `FeedForward` (2 points)

# %% exercise
from course_utils.transformer import FeedForward

# %% check points=2
check = Checks("FeedForward")
check.equal("names and shapes of the parameters", lambda: shapes(FeedForward(4, 10)),
            {"contract.bias": [4], "contract.weight": [4, 10], "expand.bias": [10], "expand.weight": [10, 4]},
            hint="self.expand goes from d_model to d_hidden, self.contract back")
toy_state = {"expand.weight": torch.tensor([[1.0], [-1.0]]), "expand.bias": torch.tensor([0.0, 1.0]),
             "contract.weight": torch.tensor([[2.0, 3.0]]), "contract.bias": torch.tensor([-10.0])}
check.close("by hand", lambda: loaded(FeedForward(1, 2), toy_state)(torch.tensor([[2.0], [-2.0], [0.5]]).double()), [[-6.0], [-1.0], [-7.5]],
            atol=1e-9, hint="2 * max(0, x) + 3 * max(0, 1 - x) - 10")
### BEGIN HIDDEN TESTS
for toy_width, toy_hidden, toy_seed in ((5, 7, 700), (8, 3, 701)):
    toy_layer = torch_encoder_layer(toy_width, 1, toy_hidden, toy_seed)
    toy_state_ = {key.removeprefix("feed_forward."): tensor for key, tensor in our_state(toy_layer).items() if "feed" in key}
    check.close(f"as in torch's layer, {toy_width} to {toy_hidden}",
                lambda toy_width=toy_width, toy_hidden=toy_hidden, toy_seed=toy_seed, toy_state_=toy_state_:
                    loaded(FeedForward(toy_width, toy_hidden), toy_state_)(toy_input(2, 3, toy_width, seed=toy_seed)),
                lambda toy_layer=toy_layer, toy_width=toy_width, toy_seed=toy_seed:
                    toy_layer.linear2(torch.relu(toy_layer.linear1(toy_input(2, 3, toy_width, seed=toy_seed)))), atol=1e-5,
                hint="one ReLU, between the two layers; no residual here")
check.raises("a width of 0 is refused", lambda: FeedForward(4, 0), ValueError, hint="keep the check_ lines")
### END HIDDEN TESTS
check.score(points=2)

# %% [markdown]
# Around both parts go a **residual connection** and a **layer norm**. The paper normalises after the sum (**post-norm**):
#
# $$x \leftarrow \operatorname{norm}_1\big(x + \operatorname{attention}(x, x, x)\big), \qquad
# x \leftarrow \operatorname{norm}_2\big(x + \operatorname{FFN}(x)\big) .$$
#
# Most language models since GPT-2 normalise what goes *into* a part (**pre-norm**), with one more norm after the last layer, since
# the sum itself is never normalised. This leaves a clear path from the input to the output, and lets *deep* models train without a
# careful warm-up (Xiong et al., 2020; with our two or three layers there is nothing to see of it, post-norm trains as well):
#
# $$y = \operatorname{norm}_1(x), \quad x \leftarrow x + \operatorname{attention}(y, y, y), \qquad
# x \leftarrow x + \operatorname{FFN}\big(\operatorname{norm}_2(x)\big) .$$
#
# ### Exercise: `EncoderLayer` (5 points)

# %% exercise
from course_utils.transformer import EncoderLayer

# %% check points=5
check = Checks("EncoderLayer")


def encoder_layer(seed, norm_first, mask=None, width=12, n_heads=3):
    """The student's layer with torch's weights, applied to 5 positions."""
    layer = loaded(EncoderLayer(width, n_heads, 20, norm_first), our_state(torch_encoder_layer(width, n_heads, 20, seed)))
    return layer(toy_input(2, 5, width, seed=seed + 1), mask)


def encoder_layer_torch(seed, norm_first, mask=None, width=12, n_heads=3):
    """The same from torch.nn.TransformerEncoderLayer."""
    layer = torch_encoder_layer(width, n_heads, 20, seed, norm_first)
    return layer(toy_input(2, 5, width, seed=seed + 1), src_mask=None if mask is None else ~mask)


class CountingCache:
    """A cache that only notes how many positions it was given."""

    def __init__(self):
        self.seen = []

    def append(self, keys, values):
        self.seen.append(keys.shape[-2])
        return keys, values


def cache_is_used(norm_first):
    """How many positions the layer gives to its cache in two calls."""
    cache, layer = CountingCache(), filled(EncoderLayer(6, 2, 8, norm_first), 1)
    layer(toy_input(1, 3, 6, seed=1), None, cache)
    layer(toy_input(1, 1, 6, seed=2), None, cache)
    return cache.seen


check.equal("names of the parts", lambda: sorted(layer_name for layer_name, _ in EncoderLayer(6, 2, 8).named_children()),
            ["attention", "feed_forward", "norm1", "norm2"], hint="the names of the docstring")
check.close("post-norm, as torch.nn.TransformerEncoderLayer", lambda: encoder_layer(30, False), lambda: encoder_layer_torch(30, False), atol=1e-5,
            hint="norm1(x + attention(x, x, x)), then norm2(x + feed_forward(x)) of the new x")
check.close("pre-norm", lambda: encoder_layer(30, True), lambda: encoder_layer_torch(30, True), atol=1e-5,
            hint="the residual goes around the norm: x + attention(y, y, y)")
check.close("a causal mask", lambda: encoder_layer(35, True, causal_mask(5)), lambda: encoder_layer_torch(35, True, causal_mask(5)), atol=1e-5,
            hint="pass the mask on to the attention")


def input_after(layer):
    """The input of a layer after a call: it belongs to the caller."""
    x = toy_input(1, 3, 6, seed=1)
    filled(layer, 1)(x)
    return x


check.close("a causal mask, post-norm", lambda: encoder_layer(35, False, causal_mask(5)), lambda: encoder_layer_torch(35, False, causal_mask(5)),
            atol=1e-5, hint="the mask in both branches")
check.equal("a cache", lambda: [cache_is_used(True), cache_is_used(False)], [[3, 1], [3, 1]], hint="attention(y, y, y, mask, cache), in both branches")
check.equal("the input stays as it was", lambda: [input_after(EncoderLayer(6, 2, 8, first)) for first in (True, False)],
            [toy_input(1, 3, 6, seed=1)] * 2, hint="x = x + ..., not x += ...")
### BEGIN HIDDEN TESTS
for toy_first, toy_seed in ((False, 710), (True, 720)):
    toy_kind = "pre-norm" if toy_first else "post-norm"
    check.close(f"{toy_kind}, other size", lambda toy_first=toy_first, toy_seed=toy_seed: encoder_layer(toy_seed, toy_first, None, 8, 4),
                lambda toy_first=toy_first, toy_seed=toy_seed: encoder_layer_torch(toy_seed, toy_first, None, 8, 4), atol=1e-5,
                hint="each norm is used once, in its place")
    check.close(f"{toy_kind}, causal mask", lambda toy_first=toy_first, toy_seed=toy_seed: encoder_layer(toy_seed, toy_first, causal_mask(5)),
                lambda toy_first=toy_first, toy_seed=toy_seed: encoder_layer_torch(toy_seed, toy_first, causal_mask(5)), atol=1e-5,
                hint="pass the mask on to the attention")
### END HIDDEN TESTS
check.score(points=5)

# %% [markdown]
# A decoder layer has one attention more: the target looks at the **memory**, what the encoder made of the source. Queries come
# from the target, keys and values from the memory. Two masks: one for the target among itself (causal), one for the memory
# (padding).
#
# ### Exercise: `DecoderLayer` (4 points)

# %% exercise
from course_utils.transformer import DecoderLayer

# %% check points=4
check = Checks("DecoderLayer")


def decoder_layer(seed, tokens=None, causal=False):
    """The student's layer with torch's weights: 5 target positions, 4 source positions (padding where tokens say so)."""
    layer = loaded(DecoderLayer(12, 3, 20), our_state(torch_decoder_layer(12, 3, 20, seed)))
    masks = (causal_mask(5) if causal else None, None if tokens is None else padding_mask(tokens))
    return layer(toy_input(2, 5, 12, seed=seed + 1), toy_input(2, 4, 12, seed=seed + 2), *masks)


def decoder_layer_torch(seed, tokens=None, causal=False):
    """The same from torch.nn.TransformerDecoderLayer."""
    layer = torch_decoder_layer(12, 3, 20, seed)
    return layer(toy_input(2, 5, 12, seed=seed + 1), toy_input(2, 4, 12, seed=seed + 2), tgt_mask=~causal_mask(5) if causal else None,
                 memory_key_padding_mask=None if tokens is None else tokens == PAD)


toy_words = torch.tensor([[5, 3, PAD, PAD], [4, 4, 4, 4]])
check.equal("names of the parts", lambda: sorted(layer_name for layer_name, _ in DecoderLayer(6, 2, 8).named_children()),
            ["cross_attention", "feed_forward", "norm1", "norm2", "norm3", "self_attention"], hint="the names of the docstring")
check.close("as torch.nn.TransformerDecoderLayer", lambda: decoder_layer(40), lambda: decoder_layer_torch(40), atol=1e-5,
            hint="cross_attention(x, memory, memory)")
check.close("with both masks", lambda: decoder_layer(40, toy_words, True), lambda: decoder_layer_torch(40, toy_words, True), atol=1e-5,
            hint="self_mask for the first attention, memory_mask for the second")
check.close("with the memory's mask alone", lambda: decoder_layer(40, toy_words), lambda: decoder_layer_torch(40, toy_words), atol=1e-5,
            hint="each mask goes to its own attention, whether the other is there or not")
### BEGIN HIDDEN TESTS
toy_other = torch.tensor([[2, PAD, PAD, PAD], [6, 7, 8, PAD]])
for toy_causal, toy_given in ((True, None), (False, toy_other), (True, toy_other)):
    check.close(f"causal {toy_causal}, padding {toy_given is not None}",
                lambda toy_causal=toy_causal, toy_given=toy_given: decoder_layer(730, toy_given, toy_causal),
                lambda toy_causal=toy_causal, toy_given=toy_given: decoder_layer_torch(730, toy_given, toy_causal), atol=1e-5,
                hint="three residuals, each with its own norm after the sum; each mask at its own attention")
### END HIDDEN TESTS
check.score(points=4)

# %% [markdown]
# ## 5. The transformer
#
# $N$ encoder layers read the source, $N$ decoder layers write the target:
#
# - **embeddings**: $\sqrt d\, E[\text{token}] + P[\text{position}]$, with one embedding for the source and one for the target.
#   The entries of $E$ start with variance $1/d$, so that both terms are of similar size. (PyTorch's `nn.Embedding` starts with
#   variance 1; `nn.init.normal_(weight, std=...)` changes that.)
# - **masks**: nobody looks at padding in the source; a target position sees itself and what is before it.
# - **training** shows the decoder the right target up to each position, and asks for the next token, at all positions at once.
#
# `self.register_buffer("positions", ..., persistent=False)` keeps the table of positions with the model, but not in its state
# dict. Keep `self.max_length` as well: the given lines read it.
#
# ### Exercise: `Transformer` (6 points)

# %% exercise
from course_utils.transformer import Transformer

# %% check points=6
check = Checks("Transformer")


def toy_pair(n_source, n_target, seed):
    """A batch of sources, the first one padded, and of targets."""
    source, target = toy_tokens(3, n_source, n_tokens=11, seed=seed), toy_tokens(3, n_target, n_tokens=9, seed=seed + 1)
    source[0, n_source // 2 :] = PAD
    return source, target


def transformer_logits(seed, n_layers, n_source, n_target, extra=0):
    """Logits of the student's model with known weights; extra columns of padding behind the source."""
    model = loaded(Transformer(11, 9, 12, 3, n_layers, 20, 16), our_state(TorchTransformer(11, 9, 12, 3, n_layers, 20, seed)))
    source, target = toy_pair(n_source, n_target, seed + 2)
    return model(nn.functional.pad(source, (0, extra), value=PAD), target)


def initial_spread():
    """Standard deviation of both initial embeddings, times sqrt(d)."""
    torch.manual_seed(0)
    model = Transformer(900, 800, 64, 4, 1, 8, 8)
    return [float(model.source_embedding.weight.detach().std()) * 8, float(model.target_embedding.weight.detach().std()) * 8]


check.equal("names and shapes of the embeddings and the head",
            lambda: {key: size for key, size in shapes(Transformer(11, 9, 12, 3, 1, 20, 16)).items() if "coder" not in key},
            {"head.bias": [9], "head.weight": [9, 12], "source_embedding.weight": [11, 12], "target_embedding.weight": [9, 12]},
            hint="the names of the docstring; positions is a buffer, no parameter")
check.close("one layer, as a model of torch's layers", lambda: transformer_logits(50, 1, 6, 5),
            lambda: TorchTransformer(11, 9, 12, 3, 1, 20, 50)(*toy_pair(6, 5, 52)), atol=1e-5,
            hint="sqrt(d_model) * embedding + positions; both masks; memory_mask = padding_mask(source)")
check.close("two layers", lambda: transformer_logits(50, 2, 6, 5), lambda: TorchTransformer(11, 9, 12, 3, 2, 20, 50)(*toy_pair(6, 5, 52)), atol=1e-5,
            hint="a new layer each time, [Layer(...) for _ in range(n)], not [Layer(...)] * n; each reads what the one before has written")
check.equal("positions are a buffer and not in the state dict",
            lambda: [key in toy_names for toy_names in [dict(Transformer(5, 5, 4, 2, 1, 8, 6).named_buffers()), Transformer(5, 5, 4, 2, 1, 8, 6).state_dict()]
                     for key in ["positions"]], [True, False], hint="self.register_buffer(..., persistent=False): it moves with the model to a GPU")
check.close("more padding changes nothing", lambda: transformer_logits(50, 1, 6, 5, extra=4),
            lambda: TorchTransformer(11, 9, 12, 3, 1, 20, 50)(*toy_pair(6, 5, 52)), atol=1e-5, hint="the encoder's layers need the padding mask too")
# rtol 0.05: the standard error with 50 000 entries is 0.003
check.close("embeddings start with variance 1 / d_model", initial_spread, [1.0, 1.0], rtol=0.05, hint="nn.init.normal_(weight, std=d_model**-0.5)")
check.raises("a source that is too long is refused", lambda: Transformer(5, 5, 4, 2, 1, 8, 6).encode(torch.ones(1, 7, dtype=torch.long)),
             ValueError, hint="keep the check_ lines")
### BEGIN HIDDEN TESTS
for toy_layers, toy_seed, toy_sizes_ in ((2, 740, (7, 4)), (3, 750, (3, 8))):
    check.close(f"{toy_layers} layers", lambda toy_layers=toy_layers, toy_seed=toy_seed, toy_sizes_=toy_sizes_:
                    transformer_logits(toy_seed, toy_layers, *toy_sizes_),
                lambda toy_layers=toy_layers, toy_seed=toy_seed, toy_sizes_=toy_sizes_:
                    TorchTransformer(11, 9, 12, 3, toy_layers, 20, toy_seed)(*toy_pair(*toy_sizes_, toy_seed + 2)), atol=1e-5,
                hint="every layer in turn; all decoder layers see the same memory")


### END HIDDEN TESTS
check.score(points=6)

# %% [markdown]
# ### Exercise: `greedy_decode` (4 points)
#
# At work there is no right target to show. The model writes one token, reads what it has written, writes the next. *Greedy*:
# always the most likely token. Encode once; PAD for whoever has ended; stop when all have.

# %% exercise
from course_utils.transformer import greedy_decode

# %% check points=4
check = Checks("greedy_decode")


def scripted(sources, max_new=9):
    """Decode with a stand-in model that follows a rule; return what was written and how often it encoded."""
    model = ScriptedModel()
    written = greedy_decode(model, torch.tensor(sources), start=1, end=2, max_new=max_new)
    return [written, model.n_encoded]


check.equal("one sequence", lambda: scripted([[4, 5, 6]])[0], [[8, 8, 9, 2]], hint="without the start token, with the end token")
check.equal("who has ended writes PAD", lambda: scripted([[4, 5, 6], [7, PAD, PAD]])[0], [[8, 8, 9, 2], [3, 2, PAD, PAD]],
            hint="the batch goes on until all have ended")
check.equal("the first one may end first", lambda: scripted([[7, PAD, PAD], [4, 5, 6]])[0], [[3, 2, PAD, PAD], [8, 8, 9, 2]],
            hint="stop when all have ended, not when the first one has; padding_mask(source) hides the padding")
check.equal("other start and end tokens", lambda: greedy_decode(ScriptedModel(), torch.tensor([[4, 5, 4]]), 3, 9, 5), [[10, 10, 9]],
            hint="use the arguments start and end")
check.equal("the source is encoded once", lambda: scripted([[4, 5, 6]])[1], 1, hint="call model.encode before the loop")
check.equal("at most two tokens", lambda: scripted([[4, 5, 6]], max_new=2)[0], [[8, 8]], hint="the end token counts too")
check.raises("0 new tokens are refused", lambda: scripted([[4, 5]], max_new=0), ValueError, hint="keep the check_ lines")
### BEGIN HIDDEN TESTS


def by_the_rule(sources, max_new):
    """What a right decoder writes with ScriptedModel."""
    rows = []
    for tokens in sources:
        last, row = 1, []
        for token in [*tokens, PAD]:
            last = 2 if token == PAD else 3 + (token + last) % 8
            row.append(last)
            if last == 2:
                break
        rows.append(row[:max_new])
    longest = max(map(len, rows))
    return [row + [PAD] * (longest - len(row)) for row in rows]


toy_sources = {"long and short": [[3, 9, 10, 4, 4, 8], [5, PAD, PAD, PAD, PAD, PAD], [6, 7, 10, PAD, PAD, PAD]], "all short": [[9, PAD, PAD], [4, PAD, PAD]],
               "equal": [[3, 4], [5, 6], [7, 8], [9, 10]]}
for toy_name, toy_source in toy_sources.items():
    for toy_max in (2, 12):
        check.equal(f"{toy_name}, at most {toy_max} tokens", lambda toy_source=toy_source, toy_max=toy_max: scripted(toy_source, toy_max)[0],
                    by_the_rule(toy_source, toy_max), hint="argmax of the last position's logits, given all that was written")
### END HIDDEN TESTS
check.score(points=4)

# %% [markdown]
# ### Writing backwards
#
# Now train it. The task: read up to 12 random letters (in the quick profile), write them in reverse order. No statistics of
# letters help; the model has to look at the right place, and a single slip makes the word wrong. Two layers, four heads, about
# 20 seconds:

# %%
torch.manual_seed(0)
reverser = Transformer(N_TOKENS, N_TOKENS, d_model=64, n_heads=4, n_layers=2, d_hidden=128, max_length=plan.reversal_length + 2)
history = fit_reversal(reverser, steps=plan.reversal_steps, max_length=plan.reversal_length, lr=2e-3, label="reversal")
p_end = 2 / (plan.reversal_length + 3)  # one END for (L + 1) / 2 letters on average
guessing = -p_end * math.log(p_end) - (1 - p_end) * math.log((1 - p_end) / 26)
pictures.learning(history.step, history.loss, {"best constant guess": guessing}, unit="nats a token");

# %%
share = exact_match(greedy_decode, reverser, n_sequences=1000, max_length=plan.reversal_length)
print(f"of 1000 words drawn afresh {1000 * share:.0f} are reversed without a mistake: exact match {share:.3f}")
for word in ("STRESSED", "TRANSFORMER", "NOON"):
    print(word, "->", spell(greedy_decode(reverser, letters(word), START, END, plan.reversal_length + 1)[0]))

# %% [markdown]
# (Nearly one word in five, the very short ones, also occurred in training. No mistake in the 810 others means fewer than 0.4 %
# mistakes on new words, at 95 % confidence.)
#
# Where do its heads look? Choose a layer and a head. The rows of `decoder.1.cross_attention` are what is being written (it
# starts with `>`), the columns what is being read. A reversal is a diagonal from the right to the left. (The row shows where
# the model looks while *writing the next* letter.)

# %%
word, reversed_word = "TRANSFORMER", "REMROFSNART"
maps = attention_maps(reverser, letters(word), letters(">" + reversed_word))
signs = {}
for title in maps:
    looking = word if "encoder" in title else ">" + reversed_word
    signs[title] = (looking, looking if "self" in title else word)
attention_explorer(maps, signs)

# %%
pictures.heads(maps["decoder.1.cross_attention"], ">" + reversed_word, word, "decoder.1.cross_attention: where it looks");

# %% [markdown]
# A picture of weights shows where a head *looks*, not what the model needs: the keys have been through two encoder layers, and
# are no longer single letters. To find out what is needed, take it away. Silencing a head is structured pruning (Lab 4): the
# columns of the output projection that read it become zero. **Which head of which layer do you expect to matter most?**

# %%
def share_right(network):
    """Exact match on 300 words."""
    return exact_match(greedy_decode, network, n_sequences=300, max_length=plan.reversal_length)


for part in ("decoder.0.cross_attention", "decoder.1.cross_attention"):
    shares = []
    for heads in ([0], [1], [2], [3], [0, 1, 2, 3]):
        silenced = copy.deepcopy(reverser)
        with torch.no_grad():
            for head in heads:
                silenced.get_submodule(part).out.weight[:, 16 * head : 16 * (head + 1)] = 0  # d_head = 64 / 4
        shares.append(share_right(silenced))
    print(f"{part} without head 1, 2, 3, 4: {', '.join(f'{one:.2f}' for one in shares[:4])}; without all four: {shares[4]:.2f}")
nowhere = copy.deepcopy(reverser)
nowhere.positions.zero_()
print(f"without the positions: {share_right(nowhere):.2f}; everything in place: {share_right(reverser):.2f}")

# %% [markdown]
# In our run the layer with the less tidy picture matters more: without one head of `decoder.0` 0.31 to 0.93 of the words are
# right, without one of `decoder.1` 0.71 to 0.93. And positions are needed, as section 1 says: a model *trained* without them
# gets 0.13. Several heads are not: the same model with `n_heads=1`, trained for as many steps, reverses all words. A picture of
# attention is a place to start asking.

# %% [markdown]
# ## 6. Count it
#
# How much work is one pass through this model? Let us count matrix products, *per head*: each head has products of its own.
# Here is one encoder layer with $h$ heads:
#
# | part | products |
# |---|---|
# | projections $Q W_Q^i$, $K W_K^i$, $V W_V^i$ of each head | $3h$ |
# | scores $Q K^\top$ and mean $A V$ of each head | $2h$ |
# | output projection $W_O$, of all heads together | ... |
# | feed-forward part | ... |
#
# ### Exercise: `matrix_products` (3 points)
#
# Finish the table, do the same for a decoder layer, add the final projection to the vocabulary, and write down the formula for
# $N$ layers of each kind. (Embeddings are look-ups, no products.)

# %% exercise
from course_utils.transformer import matrix_products

# %% check points=3
check = Checks("matrix_products")
check.equal("one layer each, one head", lambda: matrix_products(1, 1), 23, hint="finish the table; count the vocabulary too")
check.equal("a second head adds 15 products", lambda: matrix_products(1, 2) - matrix_products(1, 1), 15,
            hint="which products does a second head need, in each of the three attentions?")
check.equal("two layers, three heads", lambda: matrix_products(2, 3), 105, hint="the vocabulary is projected to once, not in every layer")
check.raises("no layers are refused", lambda: matrix_products(0, 1), ValueError, hint="keep the check_ lines")
### BEGIN HIDDEN TESTS
check.equal("a table", lambda: [[matrix_products(n, h) for h in (1, 2, 3, 5, 8)] for n in (1, 2, 4, 6)],
            [[n * (15 * h + 7) + 1 for h in (1, 2, 3, 5, 8)] for n in (1, 2, 4, 6)], hint="the vocabulary projection happens once")
check.equal("the paper's base model", lambda: matrix_products(6, 8), 763, hint="N = 6, h = 8")
check.equal("it is a whole number", lambda: type(matrix_products(2, 2)).__name__, "int", hint="no division is needed")
### END HIDDEN TESTS
check.score(points=3)

# %% [markdown]
# Now the machine's view. `count_products` runs a model and watches every matrix product that PyTorch executes (through
# `TorchDispatchMode`, beneath your code). Heads are batched there: *one* product projects for all heads, and one batched
# product computes the scores of all heads. So the counter reports two numbers: products **executed**, and products **per
# head**, by this convention: inside a layer called `query`, `key` or `value`, one product counts $h$ times; a batched product
# of $B \cdot h$ matrices ($B$ sequences) counts $h$ times; everything else counts once.

# %%
# NBVAL_CHECK_OUTPUT
print("N   h   on paper   counted per head   executed")
for depth, heads in ((1, 1), (1, 4), (2, 2), (2, 4), (3, 8), (6, 8)):
    counted = count_products(Transformer(11, 9, 16, heads, depth, 32, 8), heads, *toy_pair(5, 4, 1))
    print(f"{depth}   {heads}   {matrix_products(depth, heads):8d}   {counted.per_head:16d}   {counted.executed:8d}")

# %% [markdown]
# And operations: a multiplication and an addition are two. Only matrix products are counted; softmax, norms, ReLU and residuals
# are left out, which is why a norm shows 0. One random word, padded to the longest length, and its target (in the quick profile 12
# and 14 tokens):

# %%
# NBVAL_CHECK_OUTPUT
for entry in costs_by_part(reverser, *reversal_batch(1, plan.reversal_length, torch.Generator().manual_seed(0))):
    print(f"{entry['part']:13s} {entry['flops']:9d} operations   {entry['parameter_bytes']:7d} bytes of parameters")

# %% [markdown]
# ### Written question: counting (4 points)
#
# 1. Derive the number of products per head of one encoder layer, of one decoder layer, and of the whole model. (It should agree
#    with your `matrix_products`.)
# 2. The column "executed" does not depend on $h$. Derive it too. Does the number of *operations* (multiplications and
#    additions) depend on $h$, at a fixed width $d$? And the number of parameters?
# 3. A sequence has $T$ tokens. For which $T$, roughly, do $QK^\top$ and $AV$ cost more operations than the four projections of
#    the same attention?

# %% [markdown] answer name=counting points=4
# **Model answer.** 1. An attention: three projections, scores and mean for each head, and one output projection: $5h + 1$.
# Feed-forward: 2. Encoder layer: $5h + 1 + 2 = 5h + 3$. Decoder layer: two attentions, $2(5h + 1) + 2 = 10h + 4$. Together
# $15h + 7$; $N$ of each, and the vocabulary once: $N(15h + 7) + 1$.
#
# 2. Executed: an attention is $4$ projections and $2$ batched products, so 6; encoder layer $6 + 2 = 8$, decoder layer $12 + 2
# = 14$, model $22N + 1$. (This is the formula with $h = 1$.) Operations do not depend on $h$: a head's products are $h$ times
# smaller ($d_{\text{head}} = d/h$), and there are $h$ of them; per attention $8Td^2 + 4T^2d$. Parameters do not depend on it
# either: $4d^2 + 4d$ for every $h$. (The softmax does: it works on $hT^2$ scores.)
#
# 3. Projections: $4 \cdot 2Td^2 = 8Td^2$. Scores and mean: $h \cdot 2 \cdot 2T^2 d/h = 4T^2 d$. The latter is larger when
# $4T^2d > 8Td^2$, so $T > 2d$.
#
# **Mark scheme (4).** $5h + 1$ per attention and the layers 1. Whole formula, vocabulary once 1. $22N + 1$, and operations and
# parameters independent of $h$ 1. $T > 2d$ with derivation 1.

# %% [markdown]
# ## 7. A small GPT
#
# A language model needs no source: it continues what it has written. Without an encoder there is no cross-attention, and a
# decoder layer becomes an encoder layer under a causal mask. `TinyGPT` is a stack of pre-norm encoder layers:
#
# $$x = \sqrt d\,E[\text{tokens}] + P, \qquad x \leftarrow \text{block}_n(x), \quad n = 1, \dots, N, \qquad
# \text{logits} = \operatorname{head}(\operatorname{norm}(x)) .$$
#
# (GPT-2 differs in details: learned positions, no factor $\sqrt d$, GELU for ReLU, $E$ again as its head and no bias there,
# dropout, and initial weights that are smaller where a residual is added.)
#
# **With a cache** it is given only the *new* tokens. Three things must then be right: their positions (they go on where the
# past ends), the mask (a new token sees the whole past, and of the new ones those up to itself; `causal_mask(n_queries,
# n_keys)` does that), and one cache for each block. Past and new tokens together must fit into `max_length`; raise a
# `ValueError` if they do not, since `check_tokens` sees only the new ones.
#
# ### Exercise: `TinyGPT` (5 points)
#
# Keep `self.max_length`: the given lines and `generate` read it.

# %% exercise
from course_utils.transformer import TinyGPT

# %% check points=5
check = Checks("TinyGPT")


def gpt(seed, n_layers=2):
    """The student's model with known weights."""
    return loaded(TinyGPT(9, 12, 3, n_layers, 20, 16), our_state(TorchGPT(9, 12, 3, n_layers, 20, seed)))


def in_pieces(seed, sizes, n_layers=2):
    """Logits of 8 tokens given in pieces, with caches."""
    model = gpt(seed, n_layers)
    caches = model.new_caches()
    return torch.cat([model(piece, caches) for piece in toy_tokens(2, 8, n_tokens=9, seed=seed + 1).split(sizes, 1)], 1)


def overfull():
    """14 tokens, then 3 more, of at most 16."""
    model = gpt(780)
    caches = model.new_caches()
    model(toy_tokens(1, 14, n_tokens=9, seed=1), caches)
    return model(toy_tokens(1, 3, n_tokens=9, seed=1), caches)


def embedding_spread():
    """Standard deviation of the initial embedding, times sqrt(d)."""
    torch.manual_seed(0)
    return float(TinyGPT(900, 64, 4, 1, 8, 8).embedding.weight.detach().std()) * 8


check.equal("names and shapes outside the blocks",
            lambda: {key: size for key, size in shapes(TinyGPT(9, 12, 3, 1, 20, 16)).items() if "blocks" not in key},
            {"embedding.weight": [9, 12], "head.bias": [9], "head.weight": [9, 12], "norm.bias": [12], "norm.weight": [12]},
            hint="the names of the docstring; positions is a buffer with persistent=False")
check.close("as a model of torch's layers", lambda: gpt(60)(toy_tokens(3, 7, n_tokens=9, seed=61)),
            lambda: TorchGPT(9, 12, 3, 2, 20, 60)(toy_tokens(3, 7, n_tokens=9, seed=61)), atol=1e-5,
            hint="scale, positions, causal mask, norm_first=True, a norm before the head")
check.close("token by token with caches: the same", lambda: in_pieces(60, 1), lambda: TorchGPT(9, 12, 3, 2, 20, 60)(toy_tokens(2, 8, n_tokens=9, seed=61)),
            atol=1e-5, hint="positions[n_past : n_past + T] and causal_mask(T, n_past + T)")
check.close("in pieces of 3 and 5: the same", lambda: in_pieces(60, [3, 5]), lambda: TorchGPT(9, 12, 3, 2, 20, 60)(toy_tokens(2, 8, n_tokens=9, seed=61)),
            atol=1e-5, hint="several new tokens at once may not see one another's future either")
check.equal("max_length tokens are allowed", lambda: list(gpt(60)(toy_tokens(1, 16, n_tokens=9, seed=1)).shape), [1, 16, 9],
            hint="refuse more than max_length, not max_length itself")
check.raises("too many tokens are refused", lambda: gpt(60)(toy_tokens(1, 17, n_tokens=9, seed=1)), ValueError, hint="keep the check_ lines")
check.raises("a cache cannot hold more than max_length", overfull, ValueError, hint="past and new tokens count together")
check.close("the embedding starts with variance 1 / d_model", embedding_spread, 1.0, rtol=0.05, hint="nn.init.normal_(weight, std=d_model**-0.5)")
### BEGIN HIDDEN TESTS
check.close("three blocks", lambda: gpt(760, 3)(toy_tokens(2, 16, n_tokens=9, seed=762)),
            lambda: TorchGPT(9, 12, 3, 3, 20, 760)(toy_tokens(2, 16, n_tokens=9, seed=762)), atol=1e-5, hint="up to max_length tokens are fine")
for toy_sizes in ([8], [5, 3], [1, 6, 1]):
    check.close(f"caches, pieces of {toy_sizes}", lambda toy_sizes=toy_sizes: in_pieces(770, toy_sizes, 3),
                lambda: TorchGPT(9, 12, 3, 3, 20, 770)(toy_tokens(2, 8, n_tokens=9, seed=771)), atol=1e-5,
                hint="several new tokens at once still may not see one another's future")


def cache_lengths():
    """Lengths of all caches after 5 + 1 tokens."""
    model = gpt(780, 3)
    caches = model.new_caches()
    for size in (5, 1):
        model(toy_tokens(1, size, n_tokens=9, seed=size), caches)
    return [len(cache) for cache in caches]


check.equal("one cache a block, all positions in each", cache_lengths, [6, 6, 6], hint="new_caches returns a cache for each block")
### END HIDDEN TESTS
check.score(points=5)

# %% [markdown]
# ### A novel, character by character
#
# The text is *Pride and Prejudice*: 684 thousand characters, 96 different ones possible, the last tenth held out. A token is a
# character. A model $q$ is judged by its mean surprise on the held-out text, in **bits a character**:
#
# $$H = -\frac1M \sum_{t} \log_2 q(x_t \mid x_{<t}), \qquad \text{perplexity} = 2^{H} .$$
#
# Of $x_{<t}$ a model sees what it can: an $n$-gram $n-1$ characters, a transformer the last half to whole of its window (in the
# quick profile 65 to 128 characters for the checkpoint, 33 to 64 for the one trained here).
#
# With $H = 2$ whoever has the model could store the text in 2 bits a character instead of 8, and the model hesitates as if between
# 4 equally likely characters. (The model is not free: the checkpoint takes 2.5 MB, the novel 0.7 MB.) The yardsticks only count: $n$-gram models with $n - 1$ characters of context, above all the **bigram** ($n = 2$)
# and the **5-gram**, all with Witten-Bell smoothing: a context $c$ seen $n(c)$ times with $t(c)$ different followers predicts
#
# $$q(x \mid c) = \frac{n(cx) + t(c)\; q(x \mid c')}{n(c) + t(c)}, \qquad c' = c \text{ without its first character},$$
#
# and $q(x) = 1/96$ below the empty context.

# %%
# NBVAL_CHECK_OUTPUT
text = load_text("austen")
judged = text.held_out if plan.n_judged is None else text.held_out[: plan.n_judged]
bits = {}
for order in (1, 2, 3, 5, 6):
    bits[f"{order}-gram"] = NgramModel(text.train, order).nats_per_character(judged) / math.log(2)
    print(f"{order}-gram: {bits[f'{order}-gram']:.3f} bits a character, perplexity {2 ** bits[f'{order}-gram']:.2f}")

# %% [markdown]
# Train a small one yourself (in the quick profile 0.24 million parameters, about 15 seconds). Watch whom it passes (black: loss
# on training windows; grey: held out; its own held-out result follows):

# %%
torch.manual_seed(0)
small = TinyGPT(**plan.live_shape)
history = fit_language_model(small, text.train, steps=plan.live_steps, context=small.max_length, lr=3e-3, weight_decay=0.1, label="small GPT")
levels = {f"{title}, held out": math.log(2) * bits[title] for title in ("2-gram", "3-gram", "5-gram")}
pictures.learning(history.step, history.loss, levels);

# %%
bits["trained here"] = nats_per_character(small, judged, small.max_length) / math.log(2)
print(f"trained here: {bits['trained here']:.3f} bits a character, perplexity {2 ** bits['trained here']:.2f}")
print(generate(small, "It is a truth", plan.n_generated, temperature=0.7))

# %% [markdown]
# In the quick profile that is not enough to beat somebody who has counted all 5-grams. The checkpoint of this course has 2.6
# times as many parameters, three layers for two, and was trained for 4.8 times as many steps on windows twice as long. (Judged
# with the shorter window, too, it has 1.666 instead of 1.664 bits: it is the training that counts.) Its weights go into **your**
# class, by name:

# %%
austen = load_tiny_gpt("tinygpt_austen", TinyGPT)
bits["checkpoint"] = nats_per_character(austen, judged, austen.max_length) / math.log(2)
for title, entropy in bits.items():
    print(f"{title:13s} {entropy:.3f} bits a character, perplexity {2 ** entropy:5.2f}")

# %% [markdown]
# What surprises it? Bits for each character of a sentence that it has not seen (orange: more than 3 bits). Over 60 000 characters
# the first letter of a word costs 3.9 bits on average, punctuation 3.5, the second and third letter 1.7 and 1.5, the sixth and
# later 0.7, a space 0.5: the choice of a word and the end of a clause are hard, spelling is easy.

# %%
before, sentence = decode(judged[:400]).split("\n\n")[:2]
nats = nats_of_characters(austen, before[-36:] + "\n\n" + sentence[:90])
pictures.surprise(sentence[:90], nats[-90:]);

# %% [markdown]
# **Temperature.** Dividing the logits by $\tau$ before the softmax sharpens ($\tau < 1$) or flattens ($\tau > 1$) the
# distribution. Near 0 the model repeats itself, at 1 it draws from what it believes, above 1 from what it does not believe.

# %%
for temperature in (0.0, 0.5, 1.0, 1.5):
    print(f"--- temperature {temperature}\n{generate(austen, 'Elizabeth', plan.n_generated, temperature)}\n")

# %% [markdown]
# **Its heads.** The upper right half is empty: that is the causal mask. Three heads of the first layer give a third or more of
# their weight to the character just before; at the "r" of the second "Mr.", heads 3 and 4 of the second layer give half of
# theirs to the first. Because it is the same word, or because it stands at position 0, where nothing else is to look at? Put "In
# the evening " in front and look again. (In our model head 4 still gives 0.54, head 3 only 0.19.) Does any head look mainly at the
# last space, where the word began?

# %%
sentence = "Mr. Darcy and Mr. Bingley danced."
maps = attention_maps(austen, encode(sentence)[None])
attention_explorer(maps, dict.fromkeys(maps, (sentence, sentence)))

# %% [markdown]
# ## 8. Fast generation: the cache pays
#
# To write character $t + 1$ without a cache, all $t$ characters go through the model again. With the cache only the last one
# does; it looks at $t$ kept keys. Both must write the same text (up to rounding, where two characters are equally likely), and one
# must be faster. (When the window of 128 is full,
# `generate` starts a new cache with the last 64 characters, because with absolute positions all kept keys and values would be
# at wrong places. Here prompt and text fit into one window.)

# %%
timings = {}
for use_cache in (False, True):
    start = time.perf_counter()
    timings[use_cache] = (generate(austen, "Elizabeth", 115, seed=1, use_cache=use_cache), time.perf_counter() - start)
print("the same text:", timings[False][0] == timings[True][0])
print(f"without cache {1000 * timings[False][1] / 115:.1f} ms a character, with cache {1000 * timings[True][1] / 115:.1f} ms")

# %% [markdown]
# ### Written question: the cache (4 points)
#
# 1. Without a cache, how does the number of operations for *one* more token grow with the length $t$ (count the projections and
#    the attention separately)? And with a cache? What does a whole text of $T$ tokens cost, in either case?
# 2. A cache holds keys and values of $N$ layers. How many bytes are that for the checkpoint's model ($N = 3$, $d = 128$, 128
#    positions, float32)? And for a model with $N = 32$, $d = 4096$, 4096 positions, in 2-byte numbers? Compare with its weights
#    (about 7 billion).
# 3. Why can keys and values be kept in a causal model, but not in an encoder?
# 4. On your machine, how large is the gain at 115 characters, and why is it smaller than the ratio of operations?

# %% [markdown] answer name=cache points=4
# **Model answer.** 1. Without: all $t$ tokens again: projections and feed-forward $O(t\,d^2)$, attention $O(t^2 d)$ for one new
# token. With: $O(d^2)$ and $O(t\,d)$. A whole text: $O(T^2 d^2 + T^3 d)$ against $O(T d^2 + T^2 d)$.
#
# 2. $2 \cdot N \cdot T \cdot d \cdot$ bytes: $2\cdot 3\cdot 128\cdot 128\cdot 4 = 393\,216$ bytes (a sixth of the weights' 2.5
# MB). The large one: $2\cdot 32\cdot 4096\cdot 4096\cdot 2 = 2\,147\,483\,648$ bytes, 2 GiB for *each* text, beside 14 GB of
# weights: with a handful of texts the caches take more than the model. (Hence multi-query attention, and quantized caches.)
#
# 3. In a causal model the vectors at position $p$ depend on tokens up to $p$ only, in every layer, so a new token changes
# nothing about the past. In an encoder every position sees the new token, and all keys and values change from the second layer
# on.
#
# 4. The gain is read off the student's own output; a few times at this size. It is smaller than the ratio of operations (about
# $t$ to 1, on average 60) because at this size each step is dominated by fixed costs: Python and the launch of nearly two
# hundred small operations (more than half of them only views) cost the same for 1 token as for 100, and products with one row
# do not use the arithmetic units well.
#
# **Mark scheme (4).** Growth with and without, and totals 1. Both sizes of the cache 1. Causality as the reason 1. Own number
# and fixed costs 1.

# %% [markdown]
# ## 9. Compress it
#
# Everything from Labs 2 and 3 applies to a transformer: its weights are matrices. We prune with one magnitude threshold for all
# weight matrices (Lab 2), finetune briefly under the masks, and round to $2^b$ values for each output channel, zeros kept (Lab
# 3's `linear_quantize`, asymmetric). Embeddings, biases and norms stay as they are. The bytes are *counted* from the formulas
# (bitmap, values, a scale and a shift for each channel), not measured; Labs 2 and 3 write the files. The table has a control:
# the dense model, finetuned in the same way and then rounded. (The checkpoint is stored in half precision: against *that*, every
# "smaller by" is half as large.) Everything is judged on the first 20 000 held-out characters (in the quick
# profile), which are a little easier than the rest: the dense model has 1.634 bits here, 1.664 on the whole tenth. About half a
# minute:

# %%
from course_utils.transformer.compression import compression_table

table = compression_table(austen, text.train, judged[: plan.n_judged_often], plan.sparsities, plan.bits, plan.finetune_steps)
print("zeros   bits   finetuned   bits a character   counted bytes   smaller by")
for entry in table:
    print(f"{100 * entry['sparsity']:4.0f} %   {entry['n_bits']:4d}   {str(entry['finetuned']):9s}   {entry['bits_per_character']:16.3f}",
          f"  {entry['bytes']:13d}   {table[0]['bytes'] / entry['bytes']:9.1f}x")

# %%
few = judged[: plan.n_judged_often]  # the same part of the text for everybody
levels = {f"{order}-gram": NgramModel(text.train, order).nats_per_character(few) / math.log(2) for order in (3, 4, 5)}
print({title: round(entropy, 3) for title, entropy in levels.items()})
print("different n-grams that the 5-gram model counts:", [len(counts["grams"]) for counts in NgramModel(text.train, 5).tables])
pictures.compression(table, levels);

# %% [markdown]
# ### Written question: what compression costs (4 points)
#
# Use your own table and picture.
#
# 1. Which bit width costs (nearly) nothing, and where does it begin to hurt? All weights at 3 bits and half of the weights at 4
#    bits take exactly the same number of bytes: show it with $n$ weights, and say which of the two is better.
# 2. What did finetuning repair at 80 %, and what did it not? How long was it, compared with the training of the checkpoint?
#    What does the control say?
# 3. The 5-gram model above is a table of counts. Is the compressed transformer worth its bytes against it? What else than bits
#    a character would you have to know?
# 4. Embeddings, biases and norms were left alone. What share of the bytes do they have at 80 % zeros and 4 bits, and what share the
#    bitmap? What would you do next?

# %% [markdown] answer name=compressing_a_transformer points=4
# **Model answer.** Numbers from the instructor's run; a student's own count.
#
# 1. 8 bits cost nothing that can be seen (1.634 bits a character, as before), 4 bits cost 0.03 (1.664), 3 bits 0.14 (1.778). On
# 20 000 characters one number has a standard error of 0.02, but differences between models on the same characters are far more
# exact: 0.031 ± 0.002 for 4 bits. 3 bits and the 5-gram (1.778 and 1.767) cannot be told apart: 0.011 ± 0.010. All $n$ weights
# at 3 bits: $3n/8$ bytes. Half of them at 4 bits and a bitmap: $(0.5 \cdot 4\,n + n)/8 = 3n/8$. With the rest of the file 324
# 736 bytes each. The pruned and finetuned one is better: 1.725 against 1.778. The finetuning is no advantage: the dense model,
# finetuned in the same way, has 1.842 at 3 bits (control). It gets worse, 1.634 to 1.711 before rounding, because the learning
# rate starts again at its peak. So nearly all of the 0.075 bits between 1.634 and 1.709 are the price of the recipe, and pruning
# is not free: with a rate of 1e-3 instead of 3e-3 it is 1.656 dense and 1.695 at 50 %, with 3e-4 1.635 and 1.715.
#
# 2. Right after pruning 80 % the model has 4.17 bits a character, worse than a model that knows nothing but the previous
# character. The finetuning of the quick profile (120 steps, five per cent of the checkpoint's training) brings it to 2.15, but
# the dense model has 1.63: four fifths of the damage are repaired, one fifth (0.5 bits) stays. About 0.08 of it is what this
# finetuning does to any model (control: 1.711). Longer finetuning, or a gradual schedule (Lab 2), would bring it closer.
#
# 3. The 5-gram model stores counts of 63 040 different 5-grams; the 33 136 shorter ones are sums of them. Packed as a tree
# (last characters, one flag each, counts, then lzma) that is about 90 000 bytes for 1.767 bits a character; a 6-gram takes 185
# 000 bytes for 1.725. So the transformer with 80 % zeros is beaten by a smaller table, the one with 50 % zeros and 4 bits is
# equalled by one of 57 % of its bytes, and only the dense models at 4 and 8 bits (1.664 and 1.634) predict better than either,
# with two to four times the bytes of the 6-gram. (A student's own estimate, with its assumption stated, is enough.) What else
# one has to know, any two of: how it generalises to other text (a 5-gram knows nothing beyond four characters of context), time
# for each character, the cost of training, whether it can be finetuned.
#
# 4. 17 632 parameters ($96\cdot128$ embedding, 3552 biases, 1792 of the norms) are float32: 70 528 bytes, 30 % of the 234 419
# at 80 % and 4 bits. Scales and shifts take another 28 416 (12 %), the bitmap 75 264 (32 %), the weights themselves only 60 211
# (26 %). Next: the embedding to 8 bits, scales in half precision or one for several channels, a cheaper code for the positions
# of the zeros (Lab 3's Huffman coding).
#
# **Mark scheme (4).** Own widths with numbers, comparison of the two 1. Finetuning: before and after, its length, the control
# 1. A considered comparison with the 5-gram 1. Share of the rest computed and a next step 1.

# %% [markdown]
# ## 10. Your results beside the published ones

# %%
published = {
    "matrix products, N = 6, h = 8": (763, matrix_products(6, 8)),
    "the same, counted in a run": (763, count_products(Transformer(11, 9, 16, 8, 6, 32, 8), 8, *toy_pair(5, 4, 1)).per_head),
}
for title, (theirs, ours) in published.items():
    print(f"{title:32s} published {theirs}   ours {ours}")
print(f"{'sequence reversal, exact match':32s} ours {share:.3f}")
for title in ("2-gram", "5-gram", "trained here", "checkpoint"):
    print(f"{'bits a character, ' + title:32s} ours {bits[title]:.3f}")

# %% [markdown]
# The published course assignment that this lab follows builds the encoder-decoder, draws the positional encoding and its Gram
# matrix, and states a formula for the products, 763 at $N = 6$, $h = 8$; it reports no language model, so there is nothing to
# compare the other rows with. Its formula is right under the convention that every head counts by itself. (The counter of section 6
# is told $h$ and multiplies by it; what it found by itself is the number of products executed, 133.) (Vaswani et al.
# report BLEU for translation, at 65 million parameters and 12 hours on eight GPUs, which is another world.)
#
# **What to take along**
#
# - Attention is a weighted mean over a set. The order of the tokens is added to the vectors; a shift of it is a rotation.
# - A mask has a convention. Write it down, test a query that may look nowhere, and test that the future is not seen.
# - Equality with a well-kept library, on random weights, finds most mistakes in minutes, if it looks at enough cases: two layers,
#   keys that are not the values, a cache that is filled in pieces. A loss that falls finds almost none: a transformer with one layer
#   used twice learns to reverse as well as a right one.
# - Counting needs a convention too: per head or executed, operations or products.
# - Judge a language model against models that only count. They are better than one thinks.
# - A causal model can keep its keys and values; the memory for that is the price of fast generation.
#
# ## What to read next
#
# - A. Vaswani et al., *Attention Is All You Need*, NeurIPS 2017, sections 3 and 5: everything in this lab up to section 6.
# - R. Xiong et al., *On Layer Normalization in the Transformer Architecture*, ICML 2020: why pre-norm needs no warm-up.
# - A. Radford et al., *Language Models are Unsupervised Multitask Learners*, 2019, section 2: GPT-2.
# - N. Shazeer, *Fast Transformer Decoding: One Write-Head is All You Need*, 2019: what the cache costs, and multi-query
#   attention.
# - J. Su et al., *RoFormer: Enhanced Transformer with Rotary Position Embedding*, 2021: the rotations of section 1, put where
#   they are used.
# - S. Chen and J. Goodman, *An Empirical Study of Smoothing Techniques for Language Modeling*, 1998, section 2: n-grams done
#   well.
# - E. Frantar et al., *GPTQ*, ICLR 2023; E. Frantar and D. Alistarh, *SparseGPT*, ICML 2023: compression at the size of today's
#   models.
#
# The exercises on the encoder-decoder, the positional encoding and the count of products extend programming assignment 2 of a
# course on machine-learning systems.
