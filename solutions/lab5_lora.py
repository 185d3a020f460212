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
# # Lab 5: LoRA, adapting a network by low-rank updates
#
# A network that has been trained for weeks on one task is to do another. Finetune all its weights, and you have a second
# network of the same size; with a hundred tasks, a hundred. **LoRA** (low-rank adaptation; Hu et al., 2021) leaves the weights
# alone and trains, beside those that are chosen, a product of two thin matrices. What has to be trained and stored for a task shrinks to
# a few percent or less in a large network (to a seventh in this lab's small one), and in the end the product can be added to
# the weights, so that the adapted network is as fast as the original.
#
# **What you will be able to do**
#
# - write LoRA for linear layers and convolutions, put it into any network, and say why one factor starts at zero;
# - decide what is frozen and what trains, batch normalisation included, and count both;
# - merge an adapter into the weights and take it out again, and store a task in a sixth of the network's bytes, or far less in
#    a large network;
# - say what rank $r$ can express at best (Eckart and Young), and find out how far training stays below it;
# - put LoRA on top of a 4-bit network, and on a language model.
#
# **What you need**: PyTorch's `nn.Module`, matrix rank and the singular value decomposition; Lab 2's network, Lab 3's quantizer
# and Lab 6's language model appear, but are given.
#
# **Time and memory**: about 4 hours. Running every cell takes about 5 minutes on two recent cores and less than 2 GB of memory.
# Cells that take more than a few seconds say so before.
#
# **How the checks work**: as in the labs before. Checks use tiny networks and run at once; when your work is graded, the same
# properties are checked on other networks and other ranks too.
#
# **54 points**: 34 by checks, 20 for five written answers. Replace each `raise NotImplementedError(...)` by your
# code, keep the lines above it, and do not change the check cells.

# %%
import copy
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from course_utils import plots, profiles, runtime
from course_utils.checks import Checks
from course_utils.lora import plots as pictures
from course_utils.lora.given import (
    LoRALayer, base_weights, check_convolution, check_layer_name, check_linear, check_model, check_targets, convolutions,
    fix_batch_norm, lora_layers, release_batch_norm, trained_names,
)
from course_utils.lora.plan import plan_for
from course_utils.lora.toys import (
    after_calls, fill_factors, normal, random_factor, toy_convolution, toy_images, toy_linear, toy_network, toy_steps, toy_updates,
)
from course_utils.lora.transfer import HEADER, TaskTrainer, load_task, recovered
from course_utils.pruning.given import check_weight
from course_utils.validate import check_count, check_positive

plots.use_course_style()
runtime.keep_freed_memory();

# %% [markdown]
# ## Where this lab ends
#
# Below is one convolution of a trained network as a matrix, with a row for each output channel. Finetuning would change all of
# its entries. LoRA adds a product $BA$ of the same shape, whose factors are the thin strips beside and above it, drawn to
# scale; only the strips are trained and stored. By the end of the lab you will know how much of full finetuning fits into them,
# and what does not.

# %%
profile = profiles.current()
plan = plan_for(profile)
source, data = load_task(plan)
print("running on", runtime.detect().describe())
pictures.anatomy(source.get_submodule(plan.explained_layers[-1]).weight, plan.rank);

# %% [markdown]
# ## 1. A network and another task
#
# In the quick profile the network is the course's ResNet-20, which was trained on CIFAR-10: 32 x 32 colour photographs of
# animals and vehicles. The new task is Fashion-MNIST: grey pictures of clothes. To make them fit they get a black border of two
# pixels (28 + 4 = 32) and the same grey value in all three channels. They are normalised by *their own* mean and deviation,
# border included, so that the network's input has mean 0 and variance 1 as in its first training. (We tried the mean and
# deviation of CIFAR-10 as well: with a frozen network the accuracy is about seven points lower.) The new task has its own ten
# classes, so the network gets a **new classifier** `fc` with random weights.
#
# In the full profile it is torchvision's ResNet-18, trained on ImageNet, and CIFAR-10, as in the published experiment.

# %%
pictures.examples(data)
print(f"{plan.source} to {data.name}: {len(data.train_labels)} training images, {len(data.test_labels)} test images,",
      f"{plan.epochs} epochs")
print(f"{len(convolutions(source))} convolutions, {sum(tensor.numel() for tensor in source.parameters())} parameters; new classifier: {source.fc}")

# %% [markdown]
# ## 2. A low-rank update
#
# Let $W_0 \in \mathbb{R}^{m \times n}$ be a pretrained weight. Finetuning ends at $W_0 + \Delta W$. LoRA constrains the update
# to a product of two factors and trains only these:
#
# $$y = W_0 x + \frac{\alpha}{r}\, B A\, x, \qquad B \in \mathbb{R}^{m \times r},\quad A \in \mathbb{R}^{r \times n},\quad r \ll \min(m, n).$$
#
# $BA$ has rank at most $r$, and the factors have $r(m + n)$ entries instead of $mn$. **At the start $A$ is random and $B$ is
# zero**, so that $BA = 0$ and the network computes exactly what it was trained to compute. $\alpha$ is a constant; the division
# by $r$ is meant to reduce the need to tune the learning rate anew for every rank (Hu et al., section 4.1, with Adam).
#
# ### Exercise: `LoRALinear` (6 points)
#
# A module that wraps an `nn.Linear`. Its base class `LoRALayer` (given) only fixes the names of the parts: `base`, `lora_a`,
# `lora_b`, `scaling`, and `merged`, which says whether the product has been added to the weight; you will set it in section 6.
#
# Compute $B(Ax)$, not $(BA)x$: the first takes $r(m+n)$ multiplications a sample, the second needs the $m \times n$ matrix $BA$
# first.

# %% exercise
from course_utils.lora import LoRALinear

# %% check points=6
check = Checks("LoRALinear")


def set_factors(layer, a, b):
    """The same layer with the given factors."""
    with torch.no_grad():
        layer.lora_a.copy_(a)
        layer.lora_b.copy_(b)
    return layer


def operations_of(layer, inputs):
    """Multiplications and additions of the matrix products in one call."""
    with FlopCounterMode(display=False) as counter:
        layer(inputs)
    return counter.get_total_flops()


check.equal("starts as exactly the layer that it adapts", lambda: LoRALinear(toy_linear(1), 2, 8.0)(normal(2, 4, 5)),
            toy_linear(1)(normal(2, 4, 5)), hint="B is zero at the start; bias and weight are the base's")
check.equal("shapes of the factors", lambda: {factor: list(getattr(LoRALinear(toy_linear(1), 2, 8.0), factor).shape)
                                              for factor in ("lora_a", "lora_b")},
            {"lora_a": [2, 5], "lora_b": [3, 2]}, hint="A is (rank, in_features), B is (out_features, rank)")
check.equal("what trains", lambda: sorted(name for name, p in LoRALinear(toy_linear(1), 2, 8.0).named_parameters() if p.requires_grad),
            ["lora_a", "lora_b"], hint="freeze weight and bias of the base; the factors are nn.Parameter")
# (6 / 1) B (A x) with A = [1, 2], B = [3, 0], x = [1, 1]: 6 * [3, 0] * 3
check.close("the adapter's part, by hand", lambda: set_factors(
    LoRALinear(toy_linear(3, 2, 2), 1, 6.0), torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [0.0]])
)(torch.ones(1, 2).double()) - toy_linear(3, 2, 2)(torch.ones(1, 2).double()),
            [[54.0, 0.0]], atol=1e-12, hint="(alpha / rank) B A x = 6 * [3, 0] * 3")  # 1e-12: float64 rounding
# with 64 inputs and outputs and 4 samples, the base takes 32 768 operations and B (A x) at rank 2 another 2048; B A alone takes
# 16 384
check.at_most("B (A x), not (B A) x", lambda: operations_of(LoRALinear(toy_linear(1, 64, 64), 2, 1.0), normal(2, 4, 64)), 40_000,
              hint="first A x, then B; the (out, in) matrix B A is never needed")
check.close("at rank 4: output and delta_weight", lambda: (lambda layer: [layer(normal(4, 2, 3, 5)) - layer.base(normal(4, 2, 3, 5)), layer.delta_weight()])(
    fill_factors(LoRALinear(toy_linear(1), 4, 6.0), 3)),
            lambda: [1.5 * normal(4, 2, 3, 5) @ (random_factor(4, 3, 4) @ random_factor(3, 4, 5)).T, 1.5 * random_factor(4, 3, 4) @ random_factor(3, 4, 5)],
            atol=1e-12, hint="scaling = alpha / rank = 1.5, a float; any leading dimensions")
# 0.58 for U(-1/sqrt(n), 1/sqrt(n)), 1 for N(0, 1/n), 1.42 for kaiming_normal_
check.close("A is random: mean, scale and rank", lambda: (lambda a: [a.mean().item(), a.std().item() * 20, float(torch.linalg.matrix_rank(a)) / 8])(
    LoRALinear(toy_linear(1, 400, 8), 8, 1.0).lora_a.detach()), [0.0, 1.0, 1.0], atol=0.6,
            hint="mean 0, standard deviation about 1 / sqrt(in_features), every row of its own")
check.raises("a rank of 0 is refused", lambda: LoRALinear(toy_linear(1), 0, 8.0), ValueError, hint="keep the check_ lines")
### BEGIN HIDDEN TESTS
for toy_rank, toy_alpha in ((1, 3.0), (4, 2.0), (3, 3.0)):  # 1e-12: float64 rounding
    check.close(f"output at rank {toy_rank}, alpha {toy_alpha}",
                lambda toy_rank=toy_rank, toy_alpha=toy_alpha:
                    fill_factors(LoRALinear(toy_linear(11, 7, 6), toy_rank, toy_alpha), 12)(normal(13, 2, 3, 7)),
                lambda toy_rank=toy_rank, toy_alpha=toy_alpha: toy_linear(11, 7, 6)(normal(13, 2, 3, 7)) + toy_alpha / toy_rank
                * normal(13, 2, 3, 7) @ (random_factor(13, 6, toy_rank) @ random_factor(12, toy_rank, 7)).T,
                atol=1e-12, hint="base(x) + (alpha / rank) B (A x)")
check.close("delta_weight is what the adapter adds to the weight",
            lambda: fill_factors(LoRALinear(toy_linear(14, 7, 6), 2, 5.0), 15).delta_weight(),
            lambda: 2.5 * random_factor(16, 6, 2) @ random_factor(15, 2, 7), atol=1e-12, hint="(alpha / rank) B A")


check.equal("a layer without bias", lambda: list(LoRALinear(nn.Linear(5, 3, bias=False).double(), 2, 1.0)(normal(2, 4, 5)).shape), [4, 3],
            hint="base.bias may be None; freeze what base.parameters() lists")


def merged_output(seed):
    """Output of a layer whose adapter is said to be merged: that of its base."""
    layer = fill_factors(LoRALinear(toy_linear(seed), 2, 4.0), seed)
    layer.merged = True
    return layer(normal(seed, 4, 5))


def training_on_one_layer(seed, n_steps, weight_decay=0.0):
    """Weight, bias and factors after some steps of gradient descent."""
    layer = LoRALinear(toy_linear(seed), 2, 4.0)
    set_factors(layer, random_factor(seed, 2, 5), torch.zeros(3, 2))
    optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9, weight_decay=weight_decay)
    for step in range(n_steps):
        optimizer.zero_grad()
        layer(normal(seed + step, 8, 5)).square().mean().backward()
        optimizer.step()
    return {"weight": layer.base.weight, "bias": layer.base.bias, "a": layer.lora_a, "b": layer.lora_b}


check.close("merged: the base's output is all", lambda: merged_output(17), lambda: toy_linear(17)(normal(17, 4, 5)), atol=1e-12,
            hint="once merged, the weight contains the adapter; do not add it again")
check.equal("training leaves weight and bias", lambda: {part: training_on_one_layer(18, 5, 0.01)[part] for part in ("weight", "bias")},
            lambda: {"weight": toy_linear(18).weight, "bias": toy_linear(18).bias}, hint="freeze both")
check.equal("the first step moves B, the second one A too",
            lambda: [[int((training_on_one_layer(19, n)[part] != training_on_one_layer(19, 0)[part]).sum()) for part in "ba"]
                     for n in (1, 2)], [[6, 0], [6, 10]],
            hint="both factors are nn.Parameter and take part in the forward pass")
check.equal("zeros at the start", lambda: {factor: int((getattr(LoRALinear(toy_linear(20, 9, 8), 4, 4.0), factor) == 0).sum())
                                           for factor in ("lora_a", "lora_b")}, {"lora_a": 0, "lora_b": 32},
            hint="A random, B zero")
# 0.58 for U(-1/sqrt(n), 1/sqrt(n)), 1 for N(0, 1/n), 1.42 for kaiming_normal_: all right; a constant deviation fails for one n
check.close("scale of A", lambda: [LoRALinear(toy_linear(21, n, 3), 40_000 // n, 4.0).lora_a.std().item() * math.sqrt(n) for n in (25, 2500)],
            [1.0, 1.0], atol=0.6, hint="the standard deviation of A is about 1 / sqrt(in_features)")
check.equal("A is drawn anew for each layer", lambda: int((LoRALinear(toy_linear(22), 2, 1.0).lora_a
                                                           == LoRALinear(toy_linear(22), 2, 1.0).lora_a).sum()), 0,
            hint="random, not a constant pattern")
check.equal("float64 stays float64", lambda: fill_factors(LoRALinear(toy_linear(23), 2, 1.0), 23).delta_weight(),
            lambda: 0.5 * random_factor(24, 3, 2) @ random_factor(23, 2, 5), dtype=True, hint="take dtype and device from base.weight")
### END HIDDEN TESTS
check.score(points=6)

# %% [markdown]
# ### Written question: why one factor starts at zero (4 points)
#
# Let $G = \partial L / \partial y$ be the gradient at the layer's output for one sample $x$, and $s = \alpha / r$.
#
# 1. Derive $\partial L/\partial B$ and $\partial L/\partial A$. What are they at the start, if $A$ is random and $B = 0$? If
#    both are zero? And what is wrong if both are random?
# 2. Let the entries of $A$ be independent with mean 0 and variance $1/n$. Take one step of plain gradient descent at rate
#    $\eta$. Show that the expected update of the weight is $-\eta\, (\alpha^2 / (n r))\; \partial L / \partial W$: in
#    expectation a small step of full finetuning. (Hu et al. draw a Gaussian $A$. Uniform numbers from $-1/\sqrt n$ to $1/\sqrt
#    n$, as in the class above, have variance $1/(3n)$; the step is a third of this.)
# 3. So what happens to this *expected* first step (the part of the step along $-\partial L/\partial W$) when you double $r$ and
#    keep $\alpha$? When you keep $\alpha / r$? What would you have to divide by, instead of $r$, so that it does not depend on
#    $r$ at a fixed $\alpha$? (The expected step is not everything. $A^\top A$ has $r$ eigenvalues near 1, so along those directions
#    the step is $\eta s^2$ whatever $r$ is, and that is what decides whether training stays stable. In a trial with the network of
#    section 5, rank 1 at an $\alpha$ that keeps the *expected* step of rank 6 ended at 0.49, and at the same $\alpha / r$ at 0.84.)

# %% [markdown] answer name=why_b_is_zero points=4
# **Model answer.** 1. $y = W_0 x + s B A x$, so $\partial L/\partial B = s\, G\, (Ax)^\top$ and $\partial L/\partial A = s\,
# B^\top G\, x^\top$. With $B = 0$: the gradient of $B$ is not zero, that of $A$ is; after the first step $B \neq 0$ and both
# move. With both zero, both gradients are zero for every sample: nothing ever trains (a saddle point). With both random $s B A
# \neq 0$ is a random disturbance of every layer: training starts from a damaged network, and the disturbance has to be
# unlearned. ($A = 0$ and $B$ random would work too.)
#
# 2. The step gives $B = -\eta s\, G\, (A x)^\top = -\eta s\, (G x^\top) A^\top$, and $A$ stays. The weight changes by $s B A =
# -\eta s^2\, (G x^\top)\, A^\top A$. Here $G x^\top = \partial L/\partial W$, and $\mathbb{E}[(A^\top A)_{jk}] = \sum_{i=1}^{r}
# \mathbb{E}[a_{ij} a_{ik}] = (r/n)\, \delta_{jk}$. So the expectation is $-\eta\, (\alpha^2/r^2)(r/n)\; \partial L/\partial W =
# -\eta\, \frac{\alpha^2}{n r}\, \partial L/\partial W$. (A gradient averaged over a batch works the same way: $A$ is
# independent of it.)
#
# 3. At fixed $\alpha$ it halves; at fixed $\alpha/r$ it doubles. With $s = \alpha/\sqrt{r}$ it would be $\eta \alpha^2 / n$
# whatever the rank: that is rsLoRA (Kalajdzievski, 2023). So "divide by $r$" makes larger ranks learn more slowly, at least
# with gradient descent. (The step itself is the gradient projected on $r$ random directions; its norm goes like $s^2
# \sqrt{r/n}$. Full marks also for a factor of $2^{-3/2}$, a factor of $\sqrt 2$, and $r^{1/4}$, if the norm is meant.)
#
# **Mark scheme (4).** Both gradients, and that $A$'s vanishes at the start 1. Both zero: stuck, both random: damaged start 1.
# Expectation with $\mathbb{E}[A^\top A] = (r/n) I$ 1. Halves, doubles, $\sqrt r$ 1.

# %% [markdown]
# ## 3. Convolutions
#
# A convolution's weight of shape (out, in, $k$, $k$) is a matrix with `out` rows and `in * k * k` columns: each output pixel is
# that matrix times a patch of the input. A low-rank update of *this* matrix can be computed without unfolding anything:
#
# $$y = \operatorname{conv}_{k \times k}(x;\, W_0) + \frac{\alpha}{r}\, \operatorname{conv}_{1 \times 1}\bigl(\operatorname{conv}_{k \times k}(x;\, A);\, B\bigr),$$
#
# with $A$ of shape $(r, \text{in}, k, k)$, a convolution to $r$ channels with the same stride, padding and dilation, and $B$ of
# shape $(\text{out}, r, 1, 1)$, which mixes the $r$ channels at every pixel. The adapter has $r\,(\text{in}\,k^2 + \text{out})$
# parameters. (There are other ways to factorise four dimensions. This is the one of the PEFT library.)
#
# ### Exercise: `LoRAConv2d` (6 points)
#
# `F.conv2d(x, weight, bias, stride, padding, dilation)` convolves; `base.stride` and so on hold the base's settings.

# %% exercise
from course_utils.lora import LoRAConv2d

# %% check points=6
check = Checks("LoRAConv2d")


check.equal("starts as exactly the convolution that it adapts",
            lambda: LoRAConv2d(toy_convolution(1, stride=2, padding=1), 2, 8.0)(normal(2, 3, 2, 8, 8)),
            toy_convolution(1, stride=2, padding=1)(normal(2, 3, 2, 8, 8)), hint="B is zero at the start")
check.equal("shapes of the factors", lambda: {factor: list(getattr(LoRAConv2d(toy_convolution(1), 3, 8.0), factor).shape)
                                              for factor in ("lora_a", "lora_b")},
            {"lora_a": [3, 2, 3, 3], "lora_b": [4, 3, 1, 1]}, hint="A: (rank, in, k, k), B: (out, rank, 1, 1)")
check.equal("what trains", lambda: sorted(name for name, p in LoRAConv2d(toy_convolution(1), 2, 8.0).named_parameters() if p.requires_grad),
            ["lora_a", "lora_b"], hint="freeze weight and bias of the base")
check.equal("size of the output with stride 2",
            lambda: list(fill_factors(LoRAConv2d(toy_convolution(1, stride=2, padding=1), 2, 8.0), 3)(normal(2, 3, 2, 8, 8)).shape),
            [3, 4, 4, 4], hint="A has the base's stride and padding, B is a 1 x 1 convolution with stride 1 and no padding")


def odd_convolution():
    """A 3 x 1 convolution with stride and dilation, adapted at rank 4 with alpha 6: what the adapter adds to output and weight."""
    base = toy_convolution(1, kernel=(3, 1), stride=2, padding=(2, 1), dilation=(2, 1))
    layer = fill_factors(LoRAConv2d(base, 4, 6.0), 3)
    return [layer(normal(5, 3, 2, 8, 8)) - base(normal(5, 3, 2, 8, 8)), layer.delta_weight()]


def odd_convolution_by_hand():
    """The same from the product of the factors."""
    update = 1.5 * torch.einsum("or,rihw->oihw", random_factor(4, 4, 4, 1, 1)[..., 0, 0], random_factor(3, 4, 2, 3, 1))
    return [F.conv2d(normal(5, 3, 2, 8, 8), update, None, 2, (2, 1), (2, 1)), update]


check.close("3 x 1, stride 2, dilation 2: what is added to output and weight", odd_convolution, odd_convolution_by_hand, atol=1e-11,
            hint="A takes kernel, stride, padding and dilation of the base; B A reshaped to (out, in, k, k); alpha / rank")
check.raises("several groups are refused", lambda: LoRAConv2d(toy_convolution(1, 4, 4, groups=2), 2, 8.0), ValueError,
             hint="keep the check_ lines")
### BEGIN HIDDEN TESTS
def product(seed, rank, n_out, *inputs):
    """B A of a convolution's factors as `fill_factors` sets them, of the shape of the weight."""
    return torch.einsum("or,rihw->oihw", random_factor(seed + 1, n_out, rank, 1, 1)[..., 0, 0], random_factor(seed, rank, *inputs))


def updated_output(base, update, pictures):
    """Output of a convolution with an update added to its weight."""
    return F.conv2d(pictures, base.weight + update, base.bias, base.stride, base.padding, base.dilation)


toy_settings = {
    "3 x 3, padding 1": {"padding": 1}, "stride 2": {"stride": 2, "padding": 1}, "dilation 2": {"dilation": 2, "padding": 2},
    "no padding, no bias": {"bias": False}, "padding same": {"padding": "same"}, "stride (2, 1)": {"stride": (2, 1), "padding": (0, 1)},
}
for toy_number, (toy_title, toy_setting) in enumerate(toy_settings.items()):  # 1e-11: float64 rounding of sums of 27 products
    check.close(f"output: {toy_title}",
                lambda toy_number=toy_number, toy_setting=toy_setting: fill_factors(
                    LoRAConv2d(toy_convolution(31 + toy_number, 3, 5, **toy_setting), 2, 3.0), 41)(normal(51, 3, 3, 8, 8)),
                lambda toy_number=toy_number, toy_setting=toy_setting: updated_output(
                    toy_convolution(31 + toy_number, 3, 5, **toy_setting), 1.5 * product(41, 2, 5, 3, 3, 3), normal(51, 3, 3, 8, 8)),
                atol=1e-11, hint="stride, padding and dilation of the base belong to A; the scale is alpha / rank")
check.close("a 1 x 1 convolution", lambda: fill_factors(LoRAConv2d(toy_convolution(38, 3, 5, 1), 4, 2.0), 42)(normal(52, 3, 3, 8, 8)),
            lambda: updated_output(toy_convolution(38, 3, 5, 1), 0.5 * product(42, 4, 5, 3, 1, 1), normal(52, 3, 3, 8, 8)), atol=1e-11,
            hint="nothing special")
check.close("delta_weight has the shape of the weight",
            lambda: fill_factors(LoRAConv2d(toy_convolution(39, 3, 5, (1, 3)), 2, 5.0), 43).delta_weight(),
            lambda: 2.5 * product(43, 2, 5, 3, 1, 3), atol=1e-12, hint="sum over the rank: (out, r) @ (r, in k k), then reshape")


def merged_convolution(seed):
    """Output of a convolution whose adapter is said to be merged: that of its base."""
    layer = fill_factors(LoRAConv2d(toy_convolution(seed), 2, 4.0), seed)
    layer.merged = True
    return layer(normal(seed, 3, 2, 8, 8))


check.close("merged: the base's output is all", lambda: merged_convolution(44), lambda: toy_convolution(44)(normal(44, 3, 2, 8, 8)),
            atol=1e-12, hint="once merged, the weight contains the adapter")
check.equal("zeros at the start", lambda: {factor: int((getattr(LoRAConv2d(toy_convolution(45, 3, 5), 4, 4.0), factor) == 0).sum())
                                           for factor in ("lora_a", "lora_b")}, {"lora_a": 0, "lora_b": 20}, hint="A random, B zero")
# as for LoRALinear; an output of A has 9 n inputs
check.close("scale of A", lambda: [LoRAConv2d(toy_convolution(46, n, 3), 4000 // n, 4.0).lora_a.std().item() * math.sqrt(9 * n) for n in (2, 200)],
            [1.0, 1.0], atol=0.6, hint="the standard deviation of A is about 1 / sqrt(in * k * k)")
### END HIDDEN TESTS
check.score(points=6)

# %% [markdown]
# ## 4. A whole network
#
# What is frozen, what trains, and where do adapters go? Three small functions decide and count.
#
# ### Exercise: `freeze_until` (3 points)
#
# The classical way to transfer: freeze everything before a layer, train that layer and what follows.

# %% exercise
from course_utils.lora import freeze_until

# %% check points=3
check = Checks("freeze_until")


def trains_after(layer, frozen_before=False):
    """What trains in a toy network after freeze_until, by name."""
    network = toy_network(1).requires_grad_(not frozen_before)
    freeze_until(network, layer)
    return trained_names(network)


check.equal("only the last layer", lambda: trains_after("head.fc2"), ["head.fc2.weight", "head.fc2.bias"],
            hint="the layer itself trains, everything before it is frozen")
check.equal("a module with several layers", lambda: trains_after("head"),
            ["head.fc1.weight", "head.fc1.bias", "head.fc2.weight", "head.fc2.bias"], hint="parameters of head are named head.fc1.weight, ...")
check.equal("what was frozen trains again; conv2 is not conv20", lambda: [len(trains_after("conv2", frozen_before=True)), trains_after("head.fc1", True)[:2]],
            [6, ["head.fc1.weight", "head.fc1.bias"]], hint="set requires_grad of every parameter; compare names with 'conv2.', not with 'conv2'")
check.raises("a layer that is not there", lambda: freeze_until(toy_network(1), "fc"), ValueError, hint="keep the check_ lines")
### BEGIN HIDDEN TESTS
check.equal("conv2 is not conv20", lambda: trains_after("conv2"),
            lambda: [name for name, _ in toy_network(1).named_parameters()][5:], hint="compare with the layer's name and a dot")
check.equal("from the first layer on, everything trains", lambda: trains_after("conv1"),
            lambda: [name for name, _ in toy_network(1).named_parameters()], hint="nothing comes before it")
check.equal("a batch norm", lambda: trains_after("bn1"), lambda: [name for name, _ in toy_network(1).named_parameters()][2:],
            hint="a batch norm has parameters too")
check.equal("what was frozen before trains again", lambda: trains_after("head.fc1", frozen_before=True),
            ["head.fc1.weight", "head.fc1.bias", "head.fc2.weight", "head.fc2.bias"], hint="set requires_grad of all parameters")
check.equal("a second call", lambda: (lambda network: [freeze_until(network, "head.fc2"), freeze_until(network, "conv20"),
                                                       trained_names(network)][-1])(toy_network(1)),
            lambda: [name for name, _ in toy_network(1).named_parameters()][4:], hint="set requires_grad of all parameters")
check.equal("no value changes", lambda: (lambda network: [freeze_until(network, "head"), dict(network.named_parameters())][-1])(
    toy_network(2)), lambda: dict(toy_network(2).named_parameters()), hint="only requires_grad changes")
### END HIDDEN TESTS
check.score(points=3)

# %% [markdown]
# ### Exercise: `trainable_parameters` (2 points)

# %% exercise
from course_utils.lora import trainable_parameters

# %% check points=2
check = Checks("trainable_parameters")
check.equal("a network that trains as a whole", lambda: trainable_parameters(toy_network(1)), [443, 443],
            hint="entries of the parameters, not their number; running statistics do not count")
check.equal("frozen up to the last layer", lambda: trainable_parameters(
    (lambda network: [network.requires_grad_(False), network.head.fc2.requires_grad_(True), network][-1])(toy_network(1))), [45, 443],
            hint="5 * 8 weights and 5 biases train")
### BEGIN HIDDEN TESTS
def tied_network():
    """Two linear layers that share their weight; one bias is frozen."""
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network[1].weight = network[0].weight
    network[0].bias.requires_grad_(False)
    return network


check.equal("a shared weight counts once", lambda: trainable_parameters(tied_network()), [20, 24],
            hint="model.parameters() names each parameter once")
check.equal("everything frozen", lambda: trainable_parameters(toy_network(3).requires_grad_(False)), [0, 443],
            hint="the second number counts all parameters, frozen or not")
check.equal("weights only", lambda: trainable_parameters(
    (lambda network: [[p.requires_grad_(p.dim() > 1) for p in network.parameters()], network][-1])(toy_network(4))),
            lambda: [sum(p.numel() for p in toy_network(4).parameters() if p.dim() > 1), 443], hint="look at each parameter's requires_grad")
check.equal("no parameters at all", lambda: trainable_parameters(nn.Sequential(nn.ReLU())), [0, 0], hint="0 and 0")
### END HIDDEN TESTS
check.score(points=2)

# %% [markdown]
# ### Exercise: `inject_lora` (5 points)
#
# Freeze the whole model, then put an adapted layer in the place of each target: a `LoRALinear` for an `nn.Linear`, a
# `LoRAConv2d` for an `nn.Conv2d`. `model.get_submodule("stage1.0.conv1")` finds a layer by its name, `model.set_submodule(name,
# layer)` replaces it.

# %% exercise
from course_utils.lora import inject_lora

# %% check points=5
check = Checks("inject_lora")
check.equal("the network computes what it computed", lambda: inject_lora(toy_network(1), ["conv1", "head.fc1"], 2, 4.0)(toy_images(2)),
            toy_network(1)(toy_images(2)), hint="adapted layers start as the layers that they adapt")
check.equal("what trains", lambda: sorted(trained_names(inject_lora(toy_network(1), ["conv1", "head.fc1"], 2, 4.0))),
            ["conv1.lora_a", "conv1.lora_b", "head.fc1.lora_a", "head.fc1.lora_b"],
            hint="the factors and nothing else: freeze the other layers and batch norms as well")
check.equal("shapes of the factors", lambda: {name: list(p.shape) for name, p in
                                              inject_lora(toy_network(1), ["conv20"], 3, 4.0).named_parameters() if "lora" in name},
            {"conv20.lora_a": [3, 4, 3, 3], "conv20.lora_b": [6, 3, 1, 1]}, hint="pass the rank on")
check.equal("scale, and only the targets", lambda: [(name, layer.scaling) for name, layer in lora_layers(inject_lora(toy_network(1), ["conv2"], 2, 6.0))],
            [("conv2", 3.0)], hint="pass alpha on as it is; conv20 is no target")
check.equal("in place: the model that was given is returned", lambda: (lambda network: inject_lora(network, ["conv1"], 1, 1.0) is network)(toy_network(1)), True,
            hint="model.set_submodule, then return model")
check.raises("a layer that is not there", lambda: inject_lora(toy_network(1), ["fc"], 2, 4.0), ValueError, hint="keep the check_ lines")
### BEGIN HIDDEN TESTS
EVERY_LAYER = ["conv1", "conv20", "conv2", "head.fc1", "head.fc2"]


def injected(seed, targets, rank, alpha):
    """A toy network that was adapted in place, whatever the call returns."""
    network = toy_network(seed)
    inject_lora(network, targets, rank, alpha)
    return network


def frozen_after_training(seed, targets, n_steps):
    """All parameters that are not factors, under their names in the network without adapters, after training."""
    network = toy_steps(injected(seed, targets, 2, 4.0), n_steps, seed)
    return {name.replace(".base", ""): p for name, p in network.named_parameters() if "lora_" not in name}


def with_updated_weights(seed, targets, scaling):
    """Outputs of a toy network with the products of the factors that fill_factors sets added to the weights."""
    network = toy_network(seed)
    for target, update in toy_updates(61, targets, 2).items():
        network.get_submodule(target).weight.data += scaling * update
    return network(toy_images(3))


check.equal("in place", lambda: sorted(trained_names(injected(51, ["head.fc2"], 1, 1.0))), ["head.fc2.lora_a", "head.fc2.lora_b"],
            hint="replace the layers of the model that was given")
check.equal("returns the model", lambda: trainable_parameters(inject_lora(toy_network(52), EVERY_LAYER, 1, 1.0))[1],
            lambda: 443 + sum(weight.shape[0] + weight[0].numel() for weight in
                              (toy_network(52).get_submodule(name).weight for name in EVERY_LAYER)), hint="return model")
check.equal("only the targets are replaced", lambda: [name for name, _ in lora_layers(injected(53, ["conv2", "head.fc2"], 2, 1.0))],
            ["conv2", "head.fc2"], hint="conv2 is not conv20; head.fc1 is no target")
check.equal("the scale of each adapter", lambda: [layer.scaling for _, layer in lora_layers(injected(54, EVERY_LAYER, 4, 6.0))],
            [1.5] * 5, hint="pass alpha on")
check.close("outputs with adapters that do something", lambda: fill_factors(injected(55, EVERY_LAYER, 2, 3.0), 61)(toy_images(3)),
            lambda: with_updated_weights(55, EVERY_LAYER, 1.5), atol=1e-9, hint="keep each layer's weight, bias, stride and padding")
check.equal("frozen parameters never change", lambda: frozen_after_training(56, ["conv1", "head.fc1"], 5),
            lambda: dict(toy_network(56).named_parameters()), hint="freeze every parameter of the model, batch norms and biases too")
check.equal("no targets: everything is frozen", lambda: trained_names(injected(57, [], 2, 1.0)), [], hint="freeze first")
### END HIDDEN TESTS
check.score(points=5)

# %% [markdown]
# ## 5. Ways to adapt a network
#
# Batch normalisation deserves a thought before anything is compared. It has **parameters** (scale and shift, which gradients
# train) and **statistics** (running mean and variance, which every forward pass in training mode moves, frozen parameters or
# not). "The body is frozen" can therefore mean two things. Here it means that *nothing* of the body changes: the given
# `fix_batch_norm(network)` also fixes the statistics. `release_batch_norm(network)` lets statistics, scale and shift train.
#
# | method | convolutions | batch norm | classifier |
# |---|---|---|---|
# | full finetuning | train | trains | trains |
# | frozen body | frozen | fixed | trains |
# | frozen body, LoRA classifier | frozen | fixed | random and frozen, plus an adapter |
# | statistics alone | frozen | scale and shift fixed, statistics move | trains |
# | batch norm alone | frozen | trains | trains |
# | LoRA, statistics | frozen, plus adapters | scale and shift fixed, statistics move | trains |
# | LoRA in every convolution | frozen, plus adapters | trains | trains |
#
# "Batch norm alone" is a **control**. Without it one could not tell what the adapters of the last row contribute and what its batch
# normalisation would have done alone. "Statistics alone" tells new statistics from new scales and shifts, and "LoRA, statistics"
# asks the question the other way round: what is left for scales and shifts to do, where there are adapters?

# %%
def full_finetuning(network):
    """Everything trains."""


def frozen_body(network):
    """Only the new classifier trains."""
    fix_batch_norm(network)
    freeze_until(network, "fc")


def lora_classifier(network):
    """Only the adapter of the classifier trains; the classifier itself stays as random as it is."""
    fix_batch_norm(network)
    inject_lora(network, ["fc"], plan.rank, plan.alpha)


def statistics_alone(network):
    """The new classifier trains; running means and variances move, scales and shifts do not."""
    freeze_until(network, "fc")


def batch_norm_alone(network):
    """Batch norm and the new classifier train."""
    freeze_until(network, "fc")
    release_batch_norm(network)


def lora_and_statistics(network):
    """An adapter in every convolution; running means and variances move, the new classifier trains."""
    inject_lora(network, convolutions(network), plan.rank, plan.alpha)
    network.fc.requires_grad_(True)


def lora_everywhere(network, rank=plan.rank, alpha=plan.alpha):
    """An adapter in every convolution; batch norm and the new classifier train."""
    inject_lora(network, convolutions(network), rank, alpha)
    network.fc.requires_grad_(True)
    release_batch_norm(network)


# %%
for prepare in (full_finetuning, frozen_body, lora_classifier, statistics_alone, batch_norm_alone, lora_and_statistics, lora_everywhere):
    candidate = copy.deepcopy(source)
    prepare(candidate)
    trained, total = trainable_parameters(candidate)
    print(f"{prepare.__name__:19s} trains {trained:7d} of {total:7d} parameters,",
          f"{100 * trained / trainable_parameters(source)[1]:6.2f} % of the network's own")

# %% [markdown]
# The given `TaskTrainer` trains whatever a prepared network lets it train, always with the same images in the same order: SGD with
# Nesterov momentum 0.9 and weight decay $5 \cdot 10^{-4}$, a short warm-up and a cosine. Methods that train different things
# need different learning rates; ours come from a few short trials for each method, judged on the same test images, so that all
# accuracies are a little optimistic and the comparison is as fair as these trials. (They differ more than one would think: in six
# short epochs a classifier on frozen features reaches 0.58 at a rate of 0.1, 0.62 at 0.3 and 0.67 at 3; one with an adapter goes
# astray at 0.3 already.) Somewhat more than a minute for the seven runs.

# %%
from course_utils.evaluation import evaluate

adapt = TaskTrainer(data, plan, profile.padding, profile.seed)


def accuracy(network):
    """Fraction of the test images that the network classifies correctly."""
    return evaluate(network.to(runtime.detect().device), data)


def run(prepare, label, lr, start=source):
    """Prepare and train a copy of a pretrained network; every run draws its random numbers anew from the same seed."""
    runtime.seed_everything(profile.seed)
    candidate = copy.deepcopy(start)
    prepare(candidate)
    return adapt(candidate, label, lr)


results = {
    "full": run(full_finetuning, "full finetuning", plan.lr_full),
    "frozen": run(frozen_body, "frozen body", plan.lr_frozen),
    "lora classifier": run(lora_classifier, "frozen body, LoRA classifier", plan.lr_adapter),
    "statistics": run(statistics_alone, "statistics alone", plan.lr_statistics),
    "batch norm": run(batch_norm_alone, "batch norm alone", plan.lr_classifier),
    "lora, statistics": run(lora_and_statistics, "LoRA, statistics", plan.lr_adapter),
    "lora": run(lora_everywhere, "LoRA in every convolution", plan.lr_adapter),
}
print(HEADER, *results.values(), sep="\n")

# %%
pictures.methods(list(results.values()))
a_frozen, a_full = results["frozen"].accuracy, results["full"].accuracy
for outcome in (results["batch norm"], results["lora"]):
    print(f"{outcome.label}: {100 * recovered(outcome.accuracy, a_frozen, a_full):.1f} % of the gap between frozen body",
          f"and full finetuning, {100 * outcome.trained / results['full'].trained:.2f} % of its parameters")

# %% [markdown]
# ### Written question: what closed the gap (5 points)
#
# 1. Which share of the gap does the control close, and which share do the adapters close on top of it? And in the other order:
#    adapters first, scales and shifts on top? Why can scale, shift and statistics of batch normalisation do so much here? Compare
#    with the statistics alone, and think of what changed between the two tasks. Which of your differences are larger than their
#    error? (A difference of two accuracies on the same 2000 images has a standard error of 0.6 to 1.1 points; another random $A$
#    moves it by about 0.2.)
# 2. The classifier is *new*: its weights are random. What does "frozen, plus an adapter of rank $r$" mean for such a layer? How
#    many parameters does the adapter have, how many the layer? For which ranks is it a saving at all? Explain its accuracy.
# 3. LoRA trains only a small part of the parameters, but an epoch is *longer* than with full finetuning. Where does the time go? What *is* saved, and
#    why is that what counts for a model with billions of weights? (Adam keeps two numbers for each trained parameter.)

# %% [markdown] answer name=what_closed_the_gap points=5
# **Model answer.** (Numbers of the quick profile; use your own.) 1. The frozen body reaches 0.67, full finetuning 0.88, batch
# norm alone 0.82: the control closes 70 % of the gap with 1376 trained scales and shifts (and as many statistics), the adapters
# bring it to 86 %. In the other order the adapters, with statistics that move, are at 0.85 already, and scales and shifts add
# nothing: "batch norm does most of it" is true of one order only. Each can do most of what the other does. The gap is some 22
# points wide: that the adapters add three to five points to batch norm is safe, the percentages are not. The old statistics
# describe activations of colour photographs; on grey clothes on black the activations of every layer have other means and
# variances. But new statistics alone do not help: 0.64, no better than the frozen body. Scales and shifts alone, on the old
# statistics, reached 0.69 in a trial with a small learning rate and diverged with a larger one. Together 0.82: the statistics
# keep the activations normalised, so that scale and shift can be trained, and these choose which of the old features count. They
# cannot change a kernel: all they do is re-weight, shift and silence its outputs, which goes surprisingly far (Frankle, Schwab
# and Morcos, 2021, reach 82 % on CIFAR-10 with *random* frozen kernels). The adapters change the kernels themselves.
#
# 2. $W_0$ is random, so nothing is worth keeping in it. The adapter must cancel what disturbs and learn the classifier, with a
# matrix of rank $r$: ten classes told apart by $r = 6$ directions in feature space plus a fixed random part, and with the
# random bias. It has $r\,(64 + 10) = 444$ parameters, the layer 650: above rank 8 the adapter is no saving ($9 \cdot 74 =
# 666$; and 9 is enough for every classifier, since the softmax does not see what is added to all logits alike). As a restriction
# of the same classifier it cannot fit better. Its 0.62 against 0.67 says little about the rank, though: after six short epochs
# neither has converged, and the adapter goes astray at rates at which the plain classifier learns fastest; at its own rate of 0.1
# the plain one has 0.58. (And its random base must be stored too, or the seed.)
#
# 3. The forward pass still goes through every frozen convolution, and through two more for each adapter. The gradient with
# respect to the activations must still be carried back through all layers, since every layer has an adapter to train. (Here 3.2
# seconds an epoch against 2.3 of full finetuning, and twice the time of a forward pass until the adapters are merged.) Only the
# products for the frozen weights' own gradients are saved: half of the backward pass, a third of a layer's multiplications in
# training, and the small convolutions of the adapters cost more than their multiplications: they read and write whole
# activations. Saved are the *gradients, momentum and update* of 85 % of the parameters, and the file of the task. For a model
# with $7 \cdot 10^9$ weights Adam's two float32 numbers alone are 56 GB; for 0.1 % of trained parameters they are 56 MB.
#
# **Mark scheme (5).** Both shares from own numbers 1. Scale and shift re-weight old features, or statistics belong to the old
# task's activations, argued with the statistics alone 1. Random, frozen base plus rank $r$; 444 against 650, saving only up to
# rank 8, accuracy no different within the error 1. Forward and backward through everything remain 1. Optimiser states and
# gradients are what is saved, with a number 1.

# %% [markdown]
# ## 6. Merge, and take out again
#
# Because $W_0 x + s B A x = (W_0 + sBA)\,x$, the adapter can be added to the weight. The adapted network then costs exactly
# what the original costs. Subtract $sBA$, and the original weights are back (up to rounding); add another task's product, and
# exchange whatever else was trained (here batch norm and classifier; in section 10 nothing), and the network does that task.
#
# ### Exercise: `merge` (3 points)
#
# `lora_layers(model)` lists the adapted layers. Use their `delta_weight()`, and set `merged`, which your `forward` looks at.
# Merging a second time must change nothing.

# %%
def adapted(seed, targets=("conv1", "conv20", "head.fc2"), rank=2, alpha=3.0):
    """A toy network with adapters that do something, for the checks that follow."""
    return fill_factors(inject_lora(toy_network(seed), list(targets), rank, alpha), seed)


# %% exercise
from course_utils.lora import merge

# %% check points=3
check = Checks("merge")
# 1e-9: float64 rounding, in another order
check.close("outputs stay the same", lambda: after_calls(adapted(1), merge)(toy_images(2)), lambda: adapted(1)(toy_images(2)), atol=1e-9,
            hint="add delta_weight() to base.weight, and set merged, so that forward does not add it again")
check.close("twice is once", lambda: base_weights(after_calls(adapted(1), merge, merge)),
            lambda: base_weights(after_calls(adapted(1), merge)), atol=1e-12, hint="leave a layer alone that is merged already")
check.close("the weight itself changes", lambda: base_weights(after_calls(adapted(1), merge))["conv1"],
            lambda: toy_network(1).conv1.weight + 1.5 * toy_updates(1, ["conv1", "conv20", "head.fc2"], 2)["conv1"], atol=1e-12, hint="base.weight += delta_weight()")
check.equal("nothing new trains", lambda: trained_names(after_calls(adapted(1), merge)), lambda: trained_names(adapted(1)),
            hint="under torch.no_grad(), in place: base.weight stays the frozen parameter that it was")
check.equal("merged is set", lambda: [layer.merged for _, layer in lora_layers(after_calls(adapted(1), merge))], [True, True, True],
            hint="layer.merged = True")
### BEGIN HIDDEN TESTS
def merged_weights(seed):
    """W + 1.5 B A of the toy network's adapted layers."""
    products = toy_updates(seed, ("conv1", "conv20", "head.fc2"), 2)
    return {name: toy_network(seed).get_submodule(name).weight + 1.5 * update for name, update in products.items()}


def with_one_more(seed):
    """Which layers are merged, when another one was adapted after merging and everything is merged again."""
    network = after_calls(adapted(seed), merge)
    network.head.set_submodule("fc1", fill_factors(LoRALinear(network.head.fc1, 2, 3.0), 90))
    return [layer.merged for _, layer in lora_layers(after_calls(network, merge))]


check.close("weights afterwards", lambda: base_weights(after_calls(adapted(71), merge)), lambda: merged_weights(71), atol=1e-12,
            hint="W + (alpha / r) B A")
check.close("three times is once", lambda: base_weights(after_calls(adapted(72), merge, merge, merge)),
            lambda: merged_weights(72), atol=1e-12, hint="look at merged first")
check.close("outputs of a merged network", lambda: after_calls(adapted(73), merge, merge)(toy_images(74)),
            lambda: adapted(73)(toy_images(74)), atol=1e-9, hint="the outputs stay the same")
check.equal("factors and other parameters are kept",
            lambda: {name: p for name, p in after_calls(adapted(75), merge).named_parameters() if not name.endswith("base.weight")},
            lambda: {name: p for name, p in adapted(75).named_parameters() if not name.endswith("base.weight")},
            hint="only base.weight and merged change")
check.equal("weights stay frozen", lambda: [weight.requires_grad for weight in base_weights(after_calls(adapted(76), merge)).values()],
            [False, False, False], hint="work under torch.no_grad(); no gradient flows into the merged weight")
check.equal("each layer for itself", lambda: with_one_more(77), [True] * 4, hint="look at merged of every layer, not of the first one only")
### END HIDDEN TESTS
check.score(points=3)

# %% [markdown]
# ### Exercise: `unmerge` (2 points)

# %% exercise
from course_utils.lora import unmerge

# %% check points=2
check = Checks("unmerge")
# 1e-12: adding and subtracting in float64 leaves a few units in the last place
check.close("merge, then unmerge", lambda: base_weights(after_calls(adapted(1), merge, unmerge)), lambda: base_weights(adapted(1)),
            atol=1e-12, hint="subtract what merge added")
check.close("the adapter works again", lambda: after_calls(adapted(1), merge, unmerge)(toy_images(2)), lambda: adapted(1)(toy_images(2)), atol=1e-9,
            hint="layer.merged = False; the factors stay")
check.close("nothing to take out", lambda: base_weights(after_calls(adapted(1), unmerge)), lambda: base_weights(adapted(1)), atol=1e-12,
            hint="leave a layer alone that is not merged")
### BEGIN HIDDEN TESTS
check.close("outputs after merge and unmerge", lambda: after_calls(adapted(81), merge, unmerge)(toy_images(81)),
            lambda: adapted(81)(toy_images(81)), atol=1e-9, hint="set merged to False, so that forward adds the adapter again")
check.close("unmerge twice", lambda: base_weights(after_calls(adapted(82), merge, unmerge, unmerge)),
            lambda: base_weights(adapted(82)), atol=1e-12, hint="look at merged first")
check.close("merge, unmerge, merge", lambda: base_weights(after_calls(adapted(83), merge, unmerge, merge)),
            lambda: base_weights(after_calls(adapted(83), merge)), atol=1e-12, hint="the adapter must still be there")
check.equal("merged is unset", lambda: [layer.merged for _, layer in lora_layers(after_calls(adapted(84), merge, unmerge))],
            [False, False, False], hint="layer.merged = False")
check.close("the adapter is what merge added, also after a change of the weight",
            lambda: base_weights(after_calls(adapted(85), merge, lambda network: network.conv1.base.weight.data.add_(1.0), unmerge))["conv1"],
            lambda: base_weights(adapted(85))["conv1"] + 1.0, atol=1e-12, hint="subtract the product; do not restore a copy")
### END HIDDEN TESTS
check.score(points=2)

# %% [markdown]
# On the network that you have just trained: are outputs and accuracy the same, does the base come back, and what about the time?
# (Weights are float32 here: relative rounding errors of about $10^{-7}$.)

# %%
from course_utils.accounting import measure_latency

adapted_network = copy.deepcopy(results["lora"].network).cpu()
photos = torch.randn(64, 3, plan.image_size, plan.image_size)
original = base_weights(copy.deepcopy(adapted_network))
plain_network = copy.deepcopy(source).eval()
latencies = {"the original": measure_latency(lambda: plain_network(photos)), "with adapters": measure_latency(lambda: adapted_network(photos))}
logits = adapted_network(photos).detach()
merge(adapted_network)
latencies["merged"] = measure_latency(lambda: adapted_network(photos))
print(f"largest change of a logit by merging: {(adapted_network(photos) - logits).abs().max():.1e} (logits up to {logits.abs().max():.1f})")
print(f"accuracy: {results['lora'].accuracy:.4f} with adapters, {accuracy(copy.deepcopy(adapted_network)):.4f} merged")
unmerge(adapted_network)
changes = [(kernel - original[title]).abs().max().item() for title, kernel in base_weights(adapted_network).items()]
print(f"largest change of a weight by merge and unmerge: {max(changes):.1e}")
for title, latency in latencies.items():
    print(f"{title:14s} {latency.median_ms:7.1f} ms for 64 images")

# %% [markdown]
# ## 7. What a task has to store
#
# ### Exercise: `lora_state_dict` (3 points)
#
# The factors of all adapters, under the names that `model.state_dict()` gives them, and nothing else.

# %% exercise
from course_utils.lora import lora_state_dict

# %% check points=3
check = Checks("lora_state_dict")
check.equal("names", lambda: sorted(lora_state_dict(adapted(1))),
            ["conv1.lora_a", "conv1.lora_b", "conv20.lora_a", "conv20.lora_b", "head.fc2.lora_a", "head.fc2.lora_b"],
            hint="the factors of every adapted layer; no base, no batch norm")
check.equal("values", lambda: lora_state_dict(adapted(1))["head.fc2.lora_b"], lambda: random_factor(6, 5, 2),
            hint="the tensor itself")


def collected_before_steps():
    """One factor, collected before three steps of training."""
    network = adapted(1)
    collected = lora_state_dict(network)
    toy_steps(network, 3, 1)
    return collected["conv1.lora_b"]


check.equal("later training changes nothing in it", collected_before_steps, lambda: random_factor(2, 4, 2, 1, 1), hint="a detached copy of each tensor")
### BEGIN HIDDEN TESTS
def copied_to_another(seed):
    """Outputs of a network into whose fresh adapters the factors of another one were loaded."""
    fresh = inject_lora(toy_network(seed), ["conv1", "conv20", "head.fc2"], 2, 3.0)
    fresh.load_state_dict(lora_state_dict(adapted(seed)), strict=False)
    return fresh(toy_images(seed))


def saved_before_training(seed):
    """Factors that were collected before the network was trained on."""
    network = adapted(seed)
    collected = lora_state_dict(network)
    toy_steps(network, 3, seed)
    return collected


check.equal("all values", lambda: lora_state_dict(adapted(91)),
            lambda: {name: p for name, p in adapted(91).named_parameters() if "lora_" in name}, dtype=True, hint="every factor, unchanged")
check.close("loaded into fresh adapters, they do the same", lambda: copied_to_another(92), lambda: adapted(92)(toy_images(92)), atol=1e-9,
            hint="names as in model.state_dict()")
check.equal("copies, which training does not change", lambda: saved_before_training(93),
            lambda: {name: p for name, p in adapted(93).named_parameters() if "lora_" in name}, hint="clone the tensors")
check.equal("no gradients", lambda: [saved.requires_grad for saved in lora_state_dict(adapted(94)).values()], [False] * 6,
            hint="detach the tensors")
check.equal("other trained parameters are not factors", lambda: sorted(lora_state_dict(
    (lambda network: [network.head.fc1.requires_grad_(True), network][-1])(adapted(95, ["conv2"])))), ["conv2.lora_a", "conv2.lora_b"],
            hint="collect by lora_layers, not by requires_grad")
check.equal("a single layer", lambda: sorted(lora_state_dict(fill_factors(LoRALinear(toy_linear(96), 2, 1.0), 1))), ["lora_a", "lora_b"],
            hint="a model may be an adapted layer itself: its name is empty")
check.equal("without adapters there is nothing", lambda: lora_state_dict(toy_network(97)), {}, hint="an empty dict")
### END HIDDEN TESTS
check.score(points=3)

# %% [markdown]
# A task's file also needs whatever else was trained: the new classifier and batch norm. The given `task_tensors` collects all
# of it; here is what is in the file, and the proof that the frozen base and this file are the whole network. (Batch norm: 1376
# scales and shifts, 1376 statistics, and 19 counters of batches.)

# %%
import tempfile
from pathlib import Path

from course_utils.lora.transfer import load_adapter, save_adapter, task_tensors, written_bytes

whole_task = task_tensors(results["lora"].network)
factors = lora_state_dict(results["lora"].network)
print(f"whole network: {results['full'].size_bytes} bytes; task: {written_bytes(whole_task)} bytes; factors alone: {written_bytes(factors)} bytes")
print(f"in the task's file: {sum(tensor.numel() for tensor in factors.values())} numbers in factors, {results['frozen'].trained} in the",
      f"classifier, {sum(whole_task[title].numel() for title in whole_task if '.bn' in f'.{title}' or 'downsample.1' in title)} in batch norm")

again = copy.deepcopy(source)  # the network as it was before
lora_everywhere(again)
with tempfile.TemporaryDirectory() as folder:
    save_adapter(Path(folder) / "task.safetensors", whole_task)
    load_adapter(again, Path(folder) / "task.safetensors")
print(f"base and file, read back: accuracy {accuracy(again):.4f}")

# %% [markdown]
# ## 8. What a rank can express
#
# Is a low rank enough? Full finetuning has no constraint, so look at what *it* did: the update $\Delta W = W_{\text{after}} -
# W_{\text{before}}$ of each convolution. Its singular value decomposition $\Delta W = \sum_i \sigma_i u_i v_i^\top$ (with
# $\sigma_1 \ge \sigma_2 \ge \dots$) gives the yardstick. Of all matrices of rank at most $r$ the first $r$ terms are nearest
# (Eckart and Young, 1936; Mirsky, 1960):
#
# $$\min_{\operatorname{rank} X \le r} \lVert \Delta W - X \rVert_F = \Bigl\lVert \Delta W - \sum_{i \le r} \sigma_i u_i v_i^\top \Bigr\rVert_F = \sqrt{\textstyle\sum_{i > r} \sigma_i^2}.$$
#
# ### Exercise: `best_low_rank` (4 points)
#
# `U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)`. Treat a convolution's update as LoRA does: as the matrix (out, in
# k k).

# %% exercise
from course_utils.lora import best_low_rank

# %% check points=4
check = Checks("best_low_rank")
# 1e-12: float64 rounding of a singular value decomposition of entries of size 1
check.close("a diagonal matrix keeps its largest entries", lambda: best_low_rank(torch.diag(torch.tensor([1.0, -3.0, 2.0]).double()), 2),
            [[0.0, 0.0, 0.0], [0.0, -3.0, 0.0], [0.0, 0.0, 2.0]], atol=1e-12, hint="the singular values are 3, 2, 1")
check.equal("the shape stays", lambda: list(best_low_rank(toy_convolution(1).weight, 1).shape), [4, 2, 3, 3],
            hint="flatten to (out, in k k), approximate, restore the shape")
check.close("a rank that is large enough gives the update itself", lambda: best_low_rank(toy_convolution(1).weight, 4),
            lambda: toy_convolution(1).weight, atol=1e-12, hint="a 4 x 18 matrix has rank 4 at most")
check.close("what is left of a convolution at rank 2", lambda: (toy_convolution(1).weight - best_low_rank(toy_convolution(1).weight, 2)).norm(),
            lambda: torch.linalg.svdvals(toy_convolution(1).weight.flatten(1))[2:].norm(), atol=1e-12,
            hint="one decomposition of the (out, in k k) matrix; Eckart and Young")
check.close("rank 0 leaves nothing", lambda: best_low_rank(torch.ones(2, 3), 0), torch.zeros(2, 3), atol=1e-12, hint="no terms: zeros")
check.raises("a negative rank is refused", lambda: best_low_rank(torch.ones(3, 3), -1), ValueError, hint="keep the check_ lines")
### BEGIN HIDDEN TESTS
import numpy as np


def numpy_best(update, rank):
    """The same with NumPy: the first terms of the decomposition, added up one by one."""
    matrix = update.detach().flatten(1).numpy()
    u, s, vh = np.linalg.svd(matrix, full_matrices=False)
    return sum((s[i] * np.outer(u[:, i], vh[i]) for i in range(min(rank, len(s)))), np.zeros_like(matrix)).reshape(update.shape)


for toy_rank in (1, 2, 5):
    check.close(f"a 7 x 9 matrix at rank {toy_rank}", lambda toy_rank=toy_rank: best_low_rank(normal(101, 7, 9), toy_rank),
                lambda toy_rank=toy_rank: numpy_best(normal(101, 7, 9), toy_rank), atol=1e-11, hint="the r largest singular values with their vectors")
check.close("a convolution", lambda: best_low_rank(normal(102, 6, 3, 3, 3), 3), lambda: numpy_best(normal(102, 6, 3, 3, 3), 3), atol=1e-11,
            hint="one row for each output channel")
check.close("a tall matrix", lambda: best_low_rank(normal(103, 9, 4), 2), lambda: numpy_best(normal(103, 9, 4), 2), atol=1e-11,
            hint="it need not have more columns than rows")
check.close("error that is left", lambda: [float((normal(104, 6, 8) - best_low_rank(normal(104, 6, 8), k)).norm()) for k in range(7)],
            lambda: [float(np.sqrt((np.linalg.svd(normal(104, 6, 8).numpy())[1][k:] ** 2).sum())) for k in range(7)], atol=1e-11,
            hint="Eckart and Young: the root of the sum of the squared singular values that were dropped")
check.close("rank 0", lambda: best_low_rank(normal(105, 5, 3), 0), np.zeros((5, 3)), atol=1e-12, hint="no terms: zeros")
check.equal("the argument is not changed", lambda: (lambda update: [best_low_rank(update, 1), update][1])(normal(106, 4, 4)),
            lambda: normal(106, 4, 4), hint="do not work in place")
check.close("float32 stays float32", lambda: best_low_rank(normal(107, 4, 6).float(), 2), lambda: numpy_best(normal(107, 4, 6), 2).astype(np.float32),
            atol=1e-5, hint="the dtype of the update")  # 1e-5: float32 rounding
### END HIDDEN TESTS
check.score(points=4)

# %% [markdown]
# ### What full finetuning added, and what LoRA added
#
# Singular values of the two updates of three layers, and what would be left of every layer's update after the best
# approximation of each rank. **Before you run the cell, write down** what you expect: are the updates of full finetuning of low
# rank?

# %%
from course_utils.batch_norm import remeasure_batch_norm
from course_utils.lora.updates import full_updates, relative_errors, with_updates

updates = full_updates(source, results["full"].network)
added = {title: adapter.delta_weight().cpu() for title, adapter in lora_layers(results["lora"].network)}
pictures.spectra({title: updates[title] for title in plan.explained_layers}, added)
pictures.remaining(relative_errors(updates, best_low_rank, plan.shown_ranks), plan.shown_ranks);

# %% [markdown]
# ### Accuracy against rank
#
# Two curves. For the first, the update of full finetuning is cut to its best rank-$r$ part in every convolution, without any
# training: what rank $r$ can *express* of that update. The batch-norm statistics are measured anew on training images, because
# the old ones belong to the uncut weights. (The given `remeasure_batch_norm` does it; leave it out once and look at rank 6.) For the
# second, LoRA is *trained* at rank $r$ (with the same $\alpha / r$), and batch norm and classifier with it. To compare like with
# like, the cut network's batch norm and classifier are then trained as well, at one rank (the star). At rank 0 there is no adapter at all: that is the control
# of section 5 for the second curve, and full finetuning without its convolutions' part for the first. With $\alpha / r$ and
# $\eta$ fixed the expected first step grows with $r$ (section 2, part 3), so that a larger rank also learns faster, and rank 0
# has the learning rate of the control: read the curve as "rank at these settings". (About a minute.)

# %%
def accuracy_at(r):
    """Accuracy with the update of full finetuning cut to its best rank-r part in every convolution."""
    smaller = {title: best_low_rank(change, r) for title, change in updates.items()}
    return accuracy(remeasure_batch_norm(with_updates(source, results["full"].network, smaller), data, padding=profile.padding))


cut = {r: accuracy_at(r) for r in plan.cut_ranks}
print("update of full finetuning, cut:", ", ".join(f"rank {r}: {value:.4f}" for r, value in cut.items()))
smaller = with_updates(source, results["full"].network, {title: best_low_rank(change, plan.rank) for title, change in updates.items()})
start = remeasure_batch_norm(smaller, data, padding=profile.padding).requires_grad_(True)
retrained = {plan.rank: run(batch_norm_alone, f"cut to rank {plan.rank}, then batch norm", plan.lr_full, start=start).accuracy}
print(f"cut to rank {plan.rank}, then batch norm and classifier trained: {retrained[plan.rank]:.4f}")
by_rank = {0: results["batch norm"], plan.rank: results["lora"]}
for r in plan.ranks:
    by_rank[r] = run(lambda network, r=r: lora_everywhere(network, r, r * plan.alpha / plan.rank), f"LoRA, rank {r}", plan.lr_adapter)
for r, outcome in sorted(by_rank.items()):
    print(f"rank {r:2d}: accuracy {outcome.accuracy:.4f}, {outcome.trained:6d} parameters trained",
          f"({100 * outcome.trained / results['full'].trained:4.1f} %), {outcome.size_bytes / 1000:6.1f} kB,",
          f"{100 * recovered(outcome.accuracy, a_frozen, a_full):3.0f} % of the gap")

# %%
pictures.rank_curve({r: outcome.accuracy for r, outcome in by_rank.items()}, cut, a_full, a_frozen, retrained);

# %%
from course_utils.lora.widgets import rank_explorer

rank_explorer(updates, best_low_rank, cut)

# %% [markdown]
# ### Accuracy against $\alpha$
#
# $\alpha$ scales the adapter and, because of it, its gradients: by your derivation in section 2 the expected first step is
# proportional to $\eta\, \alpha^2 / r$. So is $\alpha$ only another learning rate? Not quite. Write $\tilde B = sB$, so that
# the update is $\tilde B A$. Under gradient descent $\tilde B$ moves at the rate $\eta s^2$, but $A$ at the rate $\eta$ (its
# gradient is $\tilde B^\top G x^\top$). A larger $\alpha$ lets $\tilde B$ learn faster *relative to* $A$. More values of
# $\alpha$ at the same learning rate (the first step is proportional to $\alpha^2$; the picture cannot tell this from another
# learning rate. To separate the two, train the factors at $\eta\,(16/\alpha)^2$ and everything else at $\eta$. In our trial
# $\alpha = 64$ then ends at 0.857, so that its fall in the picture is the learning rate; but $\alpha = 4$ trains $A$ at a rate of
# 1.6 and falls to 0.59, so that $A$'s own rate matters as well):

# %%
by_alpha = {plan.alpha: results["lora"].accuracy}
for chosen in plan.alphas:
    by_alpha[chosen] = run(lambda network, chosen=chosen: lora_everywhere(network, plan.rank, chosen), "", plan.lr_adapter).accuracy
pictures.alpha_curve(dict(sorted(by_alpha.items())), a_full, plan.rank);

# %% [markdown]
# ### Written question: where a low rank falls short (5 points)
#
# 1. From the pictures: are the updates of full finetuning of low rank? Which rank leaves less than a tenth of the error in a
#    layer of stage 3? How do the singular values of the LoRA update differ, in number and in size?
# 2. Which rank does the *cut* update need to come within two points of full finetuning, and which of the ranks that you trained
#    does (if any; mind the error)? What does the star say about the distance between the two curves? Need the best approximation
#    of a good update be the best update of that rank?
# 3. For a convolution with 64 input and 64 output channels and a 3 x 3 kernel: from which rank on has the adapter as many
#    parameters as the weight? What does this say about convolutions of small networks, compared with a 4096 x 4096 matrix?
# 4. Describe a task on which you would expect LoRA to stay clearly behind full finetuning, and say why.

# %% [markdown] answer name=where_it_falls_short points=5
# **Model answer.** (Quick profile.) 1. No: the singular values fall slowly, without a gap, and none of them vanishes. To leave
# less than a tenth of the error (Frobenius norm) takes more than 48 of 64 in most layers of stage 3 (the curves that end at
# rank 64); its last one (between 32 and 48) is an exception. (So is, outside stage 3, the network's first convolution: about 6
# of 16.) LoRA's update has exactly $r = 6$ singular values; the first is about two to three times full finetuning's, in stage 1
# the last ones are smaller. A few strong directions have to do what full finetuning does with many weak ones.
#
# 2. Cut: rank 12 (0.874; rank 8 misses it by less than the error), with statistics of its own (without them rank 6 has 0.76
# instead of 0.85: much of a cut's damage is not the rank's); at ranks 0 and 1 it is worse than the frozen body, whose classifier
# was trained on the features it reads. Of the trained ones rank 12 (0.869) does. Trained LoRA is 3.1 points below full finetuning
# at rank 6 and 1.6 at rank 12, where it trains 29 % of the parameters. (Rank 6 and rank 12 differ by 1.5 points, barely more than
# the error of a difference; with other random factors $A$ we found between 0.854 and 0.867 at rank 6.) But the curves compare two
# things at once, because LoRA's runs train batch norm and classifier as well. With that, the cut at rank 6 has 0.864, a point
# *above* LoRA's 0.854 (within the error); at rank 1, where the curves are 30 points apart (0.54 and 0.84), it has 0.832: 29 of the
# 30 points are batch norm's and the classifier's. So here imitation is as good as training. It need not be: the best
# approximation is nearest in the Frobenius norm, in which every entry counts alike; the loss does not look at that norm, and what
# is kept was made to work together with what is cut. Trained LoRA looks for the smallest loss among all updates of rank $r$; it
# need not resemble the update of full finetuning at all, nor find the best.
#
# 3. $r\,(64 \cdot 9 + 64) = 640\, r$ against $36\,864$: from $r = 58$ on (57.6) the adapter is larger than the weight. At rank
# 6 it is 10 % of it. A $4096 \times 4096$ matrix has 16.8 million entries and an adapter of rank 6 has 49 152, that is 0.3 %.
# The adapter's share is about $2r/n$: it falls with the width, so the saving grows with it, and in small networks it is modest.
#
# 4. One for which the layers must learn much that is new: a task far from the pretraining (other sensors, another language or
# programming language) with *much* data. There the update that is needed has a high rank, and the data can determine it. With
# little data or a near task the restriction costs less, and it forgets less of the old task (Biderman et al., 2024; they also
# find that full finetuning's updates have 10 to 100 times the usual LoRA rank).
#
# **Mark scheme (5).** Slow decay, with the rank read off 1. Number and size of LoRA's singular values 1. Both ranks read off,
# what the star separates, and norm against loss 1. 58, and the saving grows with width 1. Far task with much data, with the reason 1.

# %% [markdown]
# ## 9. QLoRA in miniature: an adapter on a 4-bit network
#
# With LoRA the frozen weights are only read. So they can be stored with fewer bits: QLoRA (Dettmers et al., 2023) keeps them in
# 4 bits, computes with the rounded values, and trains adapters of 16 bits on top (ours have 32). What trains beside them can
# make up for the rounding as well; the control says how much of that needs adapters. Here the quantizer is Lab 3's, uniform and
# with one grid for each output channel. (QLoRA's grid is not uniform, and its scales are quantized too.)

# %%
from course_utils.lora.updates import with_rounded_convolutions
from course_utils.quantization import linear_quantize


def rounded(network):
    """A copy whose convolution weights are rounded, one grid an output channel; adapters and the rest stay as they are."""
    return with_rounded_convolutions(network, lambda kernel: linear_quantize(kernel, plan.n_bits, per_channel=True))


# %%
results["qlora"] = run(lora_everywhere, f"LoRA on {plan.n_bits} bits", plan.lr_adapter, start=rounded(source))
results["4 bits, batch norm"] = run(batch_norm_alone, f"batch norm alone, {plan.n_bits} bits", plan.lr_classifier, start=rounded(source))
merged = copy.deepcopy(results["qlora"].network)
merge(merged)
print(f"adapters trained on the float network:                       {results['lora'].accuracy:.4f}")
print(f"the same adapters on the network rounded to {plan.n_bits} bits afterwards: {accuracy(rounded(results['lora'].network)):.4f}")
print(f"adapters trained on the rounded network:                     {results['qlora'].accuracy:.4f}")
print(f"these merged, and the sum rounded again:                     {accuracy(rounded(merged)):.4f}")
for title, network in {"float adapters, rounded below": rounded(results["lora"].network), "merged, rounded again": rounded(merged),
                       "batch norm alone, rounded afterwards": rounded(results["batch norm"].network)}.items():
    before = accuracy(network)
    print(f"{title:37s} {before:.4f}, with statistics measured anew {accuracy(remeasure_batch_norm(network, data, padding=profile.padding)):.4f}")
print(f"batch norm alone on the float network, on the rounded one:   {results['batch norm'].accuracy:.4f}, {results['4 bits, batch norm'].accuracy:.4f}")

# %% [markdown]
# ### Written question: bits and ranks (3 points)
#
# 1. Lab 3 needed a straight-through estimator to train with rounded weights (it rounds in the forward pass and lets the
#    gradient pass as if it had not rounded). Why is none needed here?
# 2. Compare the accuracies, also those with statistics measured anew. What repairs the rounding? What happens to the *weights* when
#    an adapter is merged into a 4-bit weight, and how much of the loss of accuracy is due to it? What would you do when the network
#    is served, and what with a language model, which has layer norms?
# 3. Count the bytes of the frozen convolutions at 32 and at 4 bits (with two float32 numbers for each output channel), and
#    those of the adapters. What does this say about the largest network that can be *finetuned* on a given device?

# %% [markdown] answer name=bits_and_ranks points=3
# **Model answer.** 1. The straight-through estimator replaces the derivative of rounding, which is zero almost everywhere, so
# that the gradient can reach the float weights behind the rounded ones. Here the weights below the adapters are constants: no
# gradient with respect to them is needed. The gradient with respect to the activations goes through the rounded weights as
# through any others.
#
# 2. The adapters trained on the float network lose about three points when the network below them is rounded (0.854 to 0.822);
# with statistics measured anew all but half a point is back (0.850), without any training. Trained on the rounded network they
# reach 0.866, within the scatter of the 0.854 on the float one: no loss, and no gain. Batch norm and classifier alone reach 0.81 on
# the 4-bit network, 0.82 on the float one. So what repairs the rounding is, for the most part, that means and variances fit
# again. When an adapter is merged, the sum of a weight on a grid and a small update is not on the grid: rounding it again adds an
# error of up to half a step to every weight, and a change that is smaller than that is lost or exaggerated. Merged and rounded
# again, 2.4 points are lost (0.842); with statistics measured anew 0.3 (0.863), less than the error. So for this network, which
# has batch norms, merge, round and measure the statistics anew, and check; or serve the rounded weight and the adapter side by
# side, or merge into a weight of more bits. A language model has layer norms, which keep no statistics: there is nothing to
# measure anew, and the adapter stays apart.
#
# 3. 267 696 weights are 1 070 784 bytes at 32 bits. At 4 bits they are 133 848, and 5504 for the scales and shifts of 688
# channels: 139 352, that is 7.7 times less. The adapters have 37 986 numbers, 151 944 bytes: at rank 6 more than the rounded
# network itself, because the network is small; in a large one they are a few percent of it. The frozen weights are then an
# eighth, and gradients and optimiser states exist for the adapters only: what limits finetuning is no longer 16 bytes a weight
# (weight, gradient and Adam's two numbers in float32) but about half a byte. QLoRA finetunes a 65-billion-weight model on one
# device of 48 GB.
#
# **Mark scheme (3).** Frozen: no gradient of the weights, rounding is not differentiated 1. Update smaller than the grid's
# step, statistics as the larger part of the loss, numbers compared 1. Bytes counted, and what it means for finetuning 1.

# %% [markdown]
# ## 10. A language model learns another style
#
# LoRA was made for language models. Lab 6's character-level `TinyGPT` was trained on *Pride and Prejudice* (1813); here it is
# to learn the style of *The Devil's Dictionary* (1911). Nothing of your code has to change: its layers are `nn.Linear`.
#
# Hu et al. (sections 4.2 and 5.1) adapt in most experiments the projections of queries and values only. We compare that with
# adapters in every linear layer of the blocks, and with full finetuning. (AdamW, not SGD; peak learning rates of 5e-3 for
# adapters and 1e-3 for all weights in the quick profile; $\alpha = 2r$. Steps and batches are the same, so that "full
# finetuning's gain" is its gain after these steps, not its limit.) They are judged by bits a character on the held-out parts of
# both texts. (About half a minute.)

# %%
from course_utils.text import load_text
from course_utils.transformer import fit_language_model, generate, nats_per_character
from course_utils.transformer.pretrained import load_tiny_gpt

novel, dictionary, gpt = load_text("austen"), load_text("bierce"), load_tiny_gpt()
in_blocks = [title for title, child in gpt.named_modules() if title.startswith("blocks.") and isinstance(child, nn.Linear)]
queries_and_values = [title for title in in_blocks if title.endswith((".query", ".value"))]
print(f"{len(in_blocks)} linear layers in {len(gpt.blocks)} blocks:", *in_blocks[:6], "...")


def bits(model, text):
    """Bits a character on the held-out part of a text."""
    return nats_per_character(model, text.held_out[: plan.n_judged]) / math.log(2)


def learn_style(model, label, lr):
    """Train on the dictionary; print what it cost and what it changed."""
    n_trained = trainable_parameters(model)[0]
    history = fit_language_model(model, dictionary.train, steps=plan.text_steps, batch_size=16, lr=lr, progress=False)
    print(f"{label:28s} {n_trained:7d} parameters, {sum(history.seconds):4.0f} s, dictionary {bits(model, dictionary):.3f} bits,",
          f"novel {bits(model, novel):.3f} bits")
    return model


# %%
runtime.seed_everything(profile.seed)
print(f"{'before':28s} {0:7d} parameters,    0 s, dictionary {bits(gpt, dictionary):.3f} bits, novel {bits(gpt, novel):.3f} bits")
styled = {
    "LoRA, queries and values": learn_style(
        inject_lora(copy.deepcopy(gpt), queries_and_values, plan.text_rank, 2 * plan.text_rank), "LoRA, queries and values", plan.text_lr_adapter),
    "LoRA, every linear layer": learn_style(
        inject_lora(copy.deepcopy(gpt), in_blocks, plan.text_rank, 2 * plan.text_rank), "LoRA, every linear layer", plan.text_lr_adapter),
    "full finetuning": learn_style(copy.deepcopy(gpt), "full finetuning", plan.text_lr_full),
}

# %% [markdown]
# ### The same prompt, before and after
#
# Both samples are drawn with the same random numbers. The adapter is merged for the second one, so that sampling is as fast as
# before, and taken out again: the novel's model is back. After full finetuning it would be gone.

# %%
prompt = "HAPPINESS, n. "
print("--- before\n" + generate(gpt, prompt, plan.n_generated, temperature=0.6, seed=1))
speaker = styled["LoRA, every linear layer"].cpu()
merge(speaker)
print("\n--- after, merged\n" + generate(speaker, prompt, plan.n_generated, temperature=0.6, seed=1))
unmerge(speaker)
differences = [(kept - gpt.get_submodule(title).weight.detach()).abs().max().item() for title, kept in base_weights(speaker).items()]
print(f"\nadapter file: {written_bytes(lora_state_dict(speaker))} bytes; whole model: {written_bytes(gpt.state_dict())} bytes;",
      f"largest change of a weight after unmerging: {max(differences):.1e}")

# %% [markdown]
# ### Written question: what to adapt (3 points)
#
# 1. Compare the three adaptations by the dictionary's bits for each parameter that was trained. How much of full finetuning's
# gain do they reach?
# 2. What happens to the novel in the three cases, and what is different about the two kinds of forgetting? Is it the method that
#    forgets, or the learning rate?
# 3. A service runs one base model for a thousand customers, each with an adapter. Merge or not? Argue with memory, time, and
#    batches that mix customers.

# %% [markdown] answer name=what_to_adapt points=3
# **Model answer.** (Quick profile.) 1. From 3.17 bits a character to 2.69 with 12 288 parameters, 2.53 with 55 296 and 2.46
# with all 619 744: the adapters of queries and values reach 68 % of full finetuning's gain with 2 % of the parameters, those in
# every linear layer 90 % with 9 %. Bits gained for each parameter: 40, 12 and 1 millionths.
#
# 2. All three forget: on the novel they need 0.25, 0.29 and 0.33 bits more than before (1.65). With LoRA the forgetting is in
# the adapter: the base is untouched, and without the adapter the novel's model is back exactly, after `unmerge` up to rounding.
# After full finetuning it is gone unless a copy was kept. How much is forgotten depends on the learning rate as much as on the
# method: full finetuning at three times the rate, in a trial, gained nothing on the dictionary (2.451) and forgot 0.55 bits. (Nor
# is the number of parameters all that counts: queries and values at rank 36, with as many parameters as all layers at rank 8,
# reached 2.61 instead of 2.53.)
#
# 3. Not merged: one copy of the base in memory and a thousand small adapters; a batch may mix customers, because the product
# with $W_0$ is shared and only $B(Ax)$ differs from row to row. The price is the adapters' extra time at every layer. Merged:
# no extra time, but a copy of the base for each customer, or merging and unmerging at every change (cheap for one customer at a
# time, impossible within a mixed batch). So merge for one customer with much traffic, and keep the adapters apart for many with
# little.
#
# **Mark scheme (3).** Gains and parameters from own numbers 1. Both forget, but LoRA's can be taken out 1. Memory, time and
# mixed batches, with a sound decision 1.

# %% [markdown]
# ## 11. Your results beside the published ones
#
# The published experiment (a programming assignment of a machine-learning systems course) adapts a ResNet-18 pretrained on
# ImageNet to CIFAR-10 for 8 epochs, in three ways: a baseline, frozen layers, and frozen layers with a LoRA classifier; it
# prints no table that we could quote. What can be checked is its logic, and two things about it deserve correction.
#
# - **A LoRA classifier on frozen layers can express nothing that a trained classifier on frozen layers cannot**: $W_0 + sBA$ is
#   one of the matrices that the classifier could have become by training it, and with $r \ge 10$ it can be any matrix (the bias
#   stays as random as it was). What is compared there is a restriction with its unrestricted form. LoRA belongs where a *pretrained* weight is worth keeping.
# - **"Frozen" must say what happens to batch norm.** With statistics left in training mode the two frozen models are not frozen.
#
# `COURSE_PROFILE=full` runs the same cells with that network and those images (it needs ImageNet weights: 45 MB, downloaded by
# torchvision; and a GPU).

# %%
print(HEADER)
print(*results.values(), sep="\n")

# %% [markdown]
# **What to take along**
#
# - One factor at zero: the adapted network starts as the pretrained one. Both at zero: it never starts at all.
# - Count what trains, and count batch norm's statistics too. Run the control without adapters before you credit the adapters.
# - LoRA saves what must be stored and what an optimiser must hold. It does not save the forward pass, to which it adds two small
#   products a layer until it is merged, nor the half of the backward pass that carries the gradient to earlier layers.
# - Merged, an adapter costs nothing; unmerged, it can be exchanged. Merging into a rounded base changes the weights; measure the
#   batch-norm statistics anew before you judge what that costs.
# - Eckart and Young tell how well a rank can imitate a given update. Compare it with training only when batch norm and classifier
#   are trained on both sides.
#
# ## What to read next
#
# - E. Hu, Y. Shen, P. Wallis, Z. Allen-Zhu, Y. Li, S. Wang, L. Wang and W. Chen, *LoRA: Low-Rank Adaptation of Large Language
#   Models*, 2021, sections 4 and 7.
# - A. Aghajanyan, L. Zettlemoyer and S. Gupta, *Intrinsic Dimensionality Explains the Effectiveness of Language Model
#   Fine-Tuning*, 2020: why so few numbers are enough.
# - D. Kalajdzievski, *A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA*, 2023: divide by $\sqrt r$.
# - S. Hayou, N. Ghosh and B. Yu, *LoRA+: Efficient Low Rank Adaptation of Large Models*, 2024: $A$ and $B$ want different
#   learning rates.
# - T. Dettmers, A. Pagnoni, A. Holtzman and L. Zettlemoyer, *QLoRA: Efficient Finetuning of Quantized LLMs*, 2023, section 3.
# - D. Biderman et al., *LoRA Learns Less and Forgets Less*, 2024; R. Shuttleworth, J. Andreas, A. Torralba and P. Sharma, *LoRA
#   vs Full Fine-tuning: An Illusion of Equivalence*, 2024: where the two differ.
# - J. Frankle, D. Schwab and A. Morcos, *Training BatchNorm and Only BatchNorm: On the Expressive Power of Random Features in
#   CNNs*, ICLR 2021.
# - C. Eckart and G. Young, *The Approximation of One Matrix by Another of Lower Rank*, Psychometrika 1, 1936.
# - S.-A. Rebuffi, H. Bilen and A. Vedaldi, *Learning Multiple Visual Domains with Residual Adapters*, 2017: adapters for
#   convolutions, batch norm for each task.
