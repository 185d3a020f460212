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
# # Lab 4: Structured versus unstructured pruning
#
# In Lab 2 a network lost 80 % of its weights, and not a millisecond. "So does it get faster?" is the question that everybody
# asks, and this lab answers it. The answer is about *which* weights go: scattered ones leave a matrix of the same size with holes
# in it, whole filters leave a smaller matrix. You will train a small ConvNet, prune it both ways while it trains, cut the pruned
# filters out for real, and hold a stopwatch to the result.
#
# **What you will be able to do**
#
# - find a learning rate by sweep and by range test, and recognise a cosine schedule with a wrong length;
# - mask weights inside a layer, so that the chain rule masks the gradient;
# - prune filters by their L1 norm, by the group Lasso and by batch-norm scales, and explain what each criterion believes;
# - build 2:4 masks along the axis that hardware skips;
# - cut pruned filters out of a network with everything that belongs to them, and say where this is impossible;
# - explain with a table of costs and a roofline which of seven forms of a network is faster, and by how much.
#
# **What you need**: Labs 1 and 2, PyTorch's `nn.Module`.
#
# **Time and memory**: about 4 hours. Running every cell takes some minutes on two recent cores and less than 2 GB of memory.
# Cells that take more than a few seconds say so.
#
# **How the checks work**: as in Labs 1 and 2. Checks use tiny networks and run at once; when your work is graded, the same
# properties are checked on other networks and other fractions too.
#
# **60 points**: 41 by checks, 19 for five written answers. Replace each `raise NotImplementedError(...)` by your code, keep the
# lines above it, and do not change the check cells.

# %%
import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from course_utils import plots, profiles, runtime, schedules
from course_utils.accounting import count_macs, n_parameters
from course_utils.checks import Checks
from course_utils.pruning import magnitude_mask, structured_plots as pictures
from course_utils.pruning.channels import FilterMasks, channel_links, prunable_convolutions, silence_filters
from course_utils.pruning.given import Masks, parameters_after
from course_utils.pruning.roofline import layer_points, measure_machine
from course_utils.pruning.structured_costs import Form, measure_costs, needed_macs, print_costs, promise_kept, with_layout
from course_utils.pruning.structured_given import (
    check_convolutions, check_filters, check_groups, check_removable, convolutions, effective_weight, folded_copy,
    keeps_parameters, match_sizes, remaining_filters, set_masks, small_masks, take, tensors_of, toy_chain, toy_emptied, toy_images,
    toy_lengths, toy_residual,
)
from course_utils.pruning.structured_plan import structured_plan_for
from course_utils.pruning.structured_runs import (
    Trainer, batch_norm_penalty, batch_norm_scales, filter_lengths, finetuned, prune_by_batch_norm, range_test, without_empty,
)
from course_utils.training import evaluate, predict
from course_utils.validate import check_count, check_fraction, check_nonnegative, check_vector

plots.use_course_style()
runtime.keep_freed_memory();

# %% [markdown]
# ## Where this lab ends
#
# Below are the 16 filters of one convolution of a trained ResNet-20 (each averaged over its input channels, on its own grey
# scale), and what is left when half of them go: those of smallest norm. Nothing stays behind of a filter that goes. The layer
# is then a convolution to 8 channels, and the next one reads 8 channels. By the end of the lab you will have cut a network like
# this, it will compute the same function as before the cut, and you will know how much faster it is, and why not more.

# %%
profile = profiles.current()
plan = structured_plan_for(profile)
resnet = profile.load_resnet20()
print("running on", runtime.detect().describe())
first_weight = resnet.stage1[0].conv1.weight.detach()
magnitudes = first_weight.abs().flatten(1).sum(1)
pictures.filters_before_and_after(first_weight, magnitudes > magnitudes.median(), "stage1.0.conv1");

# %% [markdown]
# ## 1. A small ConvNet
#
# Three stages: a 3 x 3 convolution, batch normalisation, ReLU, and a 2 x 2 maximum that halves height and width. Then all
# positions of the last channels are flattened into one vector that a linear layer classifies. It is a plain chain, which is
# what makes it a good first patient. (`course_utils.convnet` explains the details. `evaluate(model, train_set)` below uses the
# *test* images in that set.)

# %%
data = profile.load_dataset()
train_set = data.subset(n_train=plan.n_train, n_test=min(plan.n_scan, len(data.test_labels)))
trainer = Trainer(train_set, profile)
input_shape = tuple(data.train_images.shape[1:])
convnet = trainer.fresh_model()
print(convnet)
print(f"{n_parameters(convnet)} parameters, {count_macs(convnet, input_shape)} multiply-accumulates (MACs) an image;",
      f"{len(train_set.train_labels)} training images an epoch, accuracies on {len(train_set.test_labels)} test images")

# %% [markdown]
# ## 2. The craft of training it
#
# Before anything is pruned, the network has to be trained well, or we would measure how pruning repairs bad training. Two
# questions decide most of it: how large is the learning rate, and how does it fall?
#
# ### Exercise: `moving_average` (3 points)
#
# The loss of single batches jumps so much that two curves on top of each other show nothing. The mean of the last $w$ values
# shows the trend:
#
# $$s_t = \frac1w \sum_{i=0}^{w-1} x_{t+i}, \qquad t = 0, \ldots, n - w .$$
#
# Only windows that lie within the values: $n$ numbers give $n - w + 1$. Padding with zeros would invent losses of 0.

# %% exercise
from course_utils.pruning import moving_average

# %% check points=3
check = Checks("moving_average")
# 1e-12: a few roundings of float64
check.close("windows of two", lambda: moving_average(np.array([1.0, 3.0, 5.0, 4.0]), 2), [2.0, 4.0, 4.5], atol=1e-12,
            hint="(1 + 3) / 2, (3 + 5) / 2, (5 + 4) / 2")
check.close("windows of one change nothing", lambda: moving_average(np.array([2.0, -1.0, 7.0]), 1), [2.0, -1.0, 7.0],
            atol=1e-12, hint="n - 1 + 1 values")
check.close("windows of three, whole numbers", lambda: moving_average(np.array([1, 2, 4, 9]), 3), [7 / 3, 5.0], atol=1e-12,
            hint="all three values of a window count, each one third; fractions stay")
check.raises("a window longer than the values", lambda: moving_average(np.array([1.0, 2.0]), 3), ValueError,
             hint="keep the check_ lines")
### BEGIN HIDDEN TESTS
toy_series = np.random.default_rng(401).normal(size=50) + 3
for toy_width in (3, 8, 49):
    check.close(f"as numpy.convolve, window {toy_width}", lambda toy_width=toy_width: moving_average(toy_series.copy(), toy_width),
                lambda toy_width=toy_width: np.convolve(toy_series, np.ones(toy_width), mode="valid") / toy_width, atol=1e-9,
                hint="one mean for each window that lies within the values")
check.close("one window for everything", lambda: moving_average(toy_series, 50), [float(toy_series.mean())], atol=1e-9,
            hint="window = n gives one number, the mean")
check.close("whole numbers are averaged as fractions", lambda: moving_average(np.array([1, 2, 4, 8]), 2), [1.5, 3.0, 6.0],
            atol=1e-12, hint="divide, do not floor")
### END HIDDEN TESTS
check.score(points=3)

# %% [markdown]
# ### Three learning rates
#
# The published assignment trains its ConvNet for 5 epochs at 0.0001, 0.1 and 1.0 and reaches 0.3652, 0.6221 and 0.3992 (on
# CIFAR-10). The same three here, from the same initial weights, with a constant rate (about 20 seconds):

# %%
sweep = {}
for rate in plan.rates:
    sweep[f"{rate:g}"] = trainer(f"learning rate {rate:g}", epochs=plan.rate_epochs, lr=rate, schedule="constant")

# %%
curves = {}
for title, run in sweep.items():
    loss, batch_accuracy = run.steps.loss, run.steps.accuracy
    curves[title] = (loss, batch_accuracy, moving_average(loss, 20), moving_average(batch_accuracy, 20))
pictures.step_curves(curves, 20);

# %% [markdown]
# **Bonus: a range test.** A sweep needs one run for each rate. Smith (2017) needs one short run: raise the rate at every step and
# watch how training goes (he raises it linearly and plots the accuracy; raising it by a constant factor and plotting the loss is
# a common variant). Read the curve, not one number: the loss falls, may go through a hump where the rate is already rough, and
# finally explodes. Rates from somewhat below the first minimum are safe; the explosion is the upper limit. The runs below take
# `plan.lr`: where on your curve does it lie?

# %%
record = range_test(trainer, plan.range_steps)
pictures.range_test(record.rates, record.loss, moving_average(record.loss, 10))
print(f"plan.lr = {plan.lr}")

# %% [markdown]
# ### How the rate falls
#
# In the published report **MultiStep** (a tenth every 25 of 100 epochs) ends at 0.9183 and **cosine annealing** at 0.8599. Six
# points less, by a schedule that is one of the best known? PyTorch's `CosineAnnealingLR` computes
#
# $$\mu_t = \tfrac12\, \mu_0 \bigl(1 + \cos(\pi\, t / T_{\max})\bigr),$$
#
# where $t$ counts calls of `scheduler.step()`. The rate falls once and ends at zero if $T_{\max}$ is the number of calls in the
# whole training; the cosine does not know that it was meant to stop there. `schedules.cosine(progress, t_max)` is the same
# formula with both as fractions of the training. **Before you run the cell, sketch** the rate for a $T_{\max}$ half as long and
# for one four times too long. (In the quick profile MultiStep falls twice, at half and at three quarters.) Four runs, about 40
# seconds:

# %%
falls = {
    "MultiStep": lambda progress: schedules.multi_step(progress, plan.milestones, 0.1),
    "cosine, T_max right": schedules.cosine,
    "cosine, T_max half": lambda progress: schedules.cosine(progress, t_max=0.5),
    "cosine, T_max fourfold": lambda progress: schedules.cosine(progress, t_max=4.0),
}
fallen = {title: trainer(title, epochs=plan.train_epochs, lr=plan.lr, schedule=fall) for title, fall in falls.items()}

# %%
pictures.schedule_runs({title: run.steps.rates for title, run in fallen.items()},
                       {title: run.accuracy for title, run in fallen.items()});

# %% [markdown]
# ### Written question: the cosine that ended at 0.8599 (4 points)
#
# 1. Look at the sweep: how do the three rates fail or succeed, and how does each curve show it?
# 2. Compare the two wrong cosines with the right one: when is their accuracy lost, and what do the weights do then? Why does a
#    rate near zero at the end help the *test* accuracy so much?
# 3. Which mistakes with $T_{\max}$ or with `scheduler.step()` are consistent with a last epoch of 0.8599? Name at least two, one
#    of them none of the runs above, and one setting that is not consistent with it. (The report does not show its code.)

# %% [markdown] answer name=wrong_cosine points=4
# **Model answer.** 1. At 0.0001 the loss falls steadily but slowly: the curve is smooth and still falling,
# so the rate is too small, not wrong. At 1.0 the steps are too long: the loss jumps up at the start (from 2.6 to 174 in one step)
# and comes back only to that of guessing, 2.3; the accuracy of the batches hardly leaves chance. At 0.1 it jumps too (to 24),
# recovers and then falls fastest. Accuracies after two epochs in one run of the quick profile: 0.65, 0.74 and 0.11 (other
# processors give other numbers; the order stays).
#
# 2. With $T_{\max}$ at half time the accuracy stays near that of the right cosine up to the middle, where the rate is near
# zero. While the rate rises again it gains hardly anything and may fall at the end: the steps get longer than the details of
# the minimum, and the weights leave it (0.803 after four epochs and 0.793 after five in one run of the quick profile). With a
# fourfold $T_{\max}$ the rate stays near its peak: the accuracy is noisy or still rising at the end, and never makes the last
# gain. In that run: right cosine 0.834, MultiStep 0.832, fourfold 0.816, half 0.793. Gradients are those of small batches, so
# with a constant rate the weights do not come to rest; they wander around the minimum at a distance that grows with the rate.
# Lowering the rate averages this noise out, and the network ends near the bottom.
#
# 3. Consistent, any two: $T_{\max}$ half as long as the training, or any $T_{\max} = T/(2k)$, so that the last epoch is at the
# peak rate (for example $T_{\max} = 50$, 10 or 5 of 100 epochs); a $T_{\max}$ much longer than the training, such as 200 copied
# from a recipe with 200 epochs (at epoch 100 the rate is still half of its peak); `scheduler.step()` after every *batch* with
# $T_{\max}$ in epochs, so that the rate swings up and down every $T_{\max}$ batches. (With $B$ batches an epoch it ends at
# $t/T_{\max} = B$: at its peak for an even $B$, at zero, after a fall of only 100 batches, for an odd one such as the 391 of
# CIFAR-10 in batches of 128. Full marks with or without this remark.) Not consistent: $T_{\max} = 100$ with one `step()` an
# epoch, since that ends at zero, where MultiStep's accuracies are reached; nor a $T_{\max}$ of $T/3$ or $T/5$, which also ends
# at zero. Which one it was, the report does not tell; "cosine annealing is worse than MultiStep" does not follow from it.
#
# **Mark scheme (4).** All three rates read off the curves 1. Rising rate stops or undoes the progress, high rate never makes
# the last gain, with own numbers 1. Noise of batches, small rate settles 1. Two consistent mistakes, one of them not run
# above, and one inconsistent setting 1.

# %% [markdown]
# ## 3. A mask inside the layer
#
# Lab 2 kept weights at zero by repairing them after each step. Here is the other way: the layer itself computes with the masked
# weight,
#
# $$y = \operatorname{conv}(x,\; m \odot w) + b, \qquad \frac{\partial L}{\partial w} = m \odot \frac{\partial L}{\partial (m
# \odot w)} .$$
#
# The second formula is nothing to implement: it is the chain rule, if the product $m \odot w$ is part of what PyTorch
# differentiates. The mask is no parameter (it is not trained) but belongs to the layer: it has to be saved with it and to move
# with it to a GPU. PyTorch calls such a tensor a **buffer**: `self.register_buffer("mask", tensor)`.
#
# ### Exercise: `SparseConv2d` (4 points)
#
# `F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)` convolves with any weight. (It knows nothing
# of `padding_mode`, which stays at its default of zeros in this lab.) The mask has the shape of the weight, whatever the groups.

# %% exercise
from course_utils.pruning import SparseConv2d

# %% check points=4
check = Checks("SparseConv2d")


def toy_sparse(toy_seed, **toy_settings):
    """A layer with random weights and a random mask, in float64."""
    toy_layer = SparseConv2d(4, 6, 3, **toy_settings).double()
    toy_generator = torch.Generator().manual_seed(toy_seed)
    with torch.no_grad():
        for toy_parameter in (toy_layer.weight, toy_layer.bias):
            if toy_parameter is not None:
                toy_parameter.copy_(torch.randn(toy_parameter.shape, generator=toy_generator, dtype=torch.float64))
        toy_layer.mask.copy_(torch.rand(toy_layer.weight.shape, generator=toy_generator) < 0.5)
    return toy_layer


def toy_gradient(toy_layer, toy_seed):
    """Gradient of a sum of squares with respect to the weight."""
    toy_layer(toy_images(toy_seed, 4, 7)).square().sum().backward()
    return toy_layer.weight.grad


check.equal("the mask is a buffer of ones", lambda: {buffer_name: toy_t.float() for buffer_name, toy_t in
                                                     SparseConv2d(4, 6, 3).named_buffers()},
            {"mask": np.ones((6, 4, 3, 3))}, hint="register_buffer in __init__, after super().__init__(...)")
# 1e-10: float64 sums of 36 products in another order
def toy_expected(toy_seed, toy_shape=(6, 4, 3, 3), toy_bias=True, **toy_settings):
    """What the layer with this seed should compute from images of seed 2, with nothing of yours."""
    toy_generator = torch.Generator().manual_seed(toy_seed)
    toy_w = torch.randn(toy_shape, generator=toy_generator, dtype=torch.float64)
    b = torch.randn(6, generator=toy_generator, dtype=torch.float64) if toy_bias else None
    return F.conv2d(toy_images(2, 4, 7), toy_w * (torch.rand(toy_shape, generator=toy_generator) < 0.5), b, **toy_settings)


check.close("a convolution with the masked weight", lambda: toy_sparse(1)(toy_images(2, 4, 7)), lambda: toy_expected(1), atol=1e-10,
            hint="multiply weight and mask, do not forget the bias")
check.close("with stride, padding and groups, without bias",
            lambda: toy_sparse(1, stride=2, padding=1, groups=2, bias=False)(toy_images(2, 4, 7)),
            lambda: toy_expected(1, (6, 2, 3, 3), False, stride=2, padding=1, groups=2), atol=1e-10,
            hint="pass all arguments on to nn.Conv2d, and self.stride, self.padding, self.dilation and self.groups to F.conv2d")
check.equal("what is saved, and left alone by a forward pass", lambda: (lambda toy_layer, toy_before: [
    toy_layer(toy_images(2, 4, 7)).shape[1], sorted(toy_layer.state_dict()), torch.equal(toy_layer.weight.detach(), toy_before)])(
        *(lambda toy_layer: (toy_layer, toy_layer.weight.detach().clone()))(toy_sparse(4))),
            [6, ["bias", "mask", "weight"], True], hint="a buffer is saved with the layer; compute m * w, leave self.weight alone")
check.equal("masked weights receive no gradient", lambda: (lambda toy_layer: int((
    toy_gradient(toy_layer, 3)[toy_layer.mask == 0] != 0).sum()))(toy_sparse(1)), 0,
            hint="the product with the mask must be part of the forward computation")
### BEGIN HIDDEN TESTS
class ToyOracle(nn.Conv2d):
    """Masks by a parametrisation-free formula: an ordinary convolution whose weight is a function of another tensor."""

    def of(self, toy_seed, toy_batch, **toy_settings):
        """Output and gradient of the unmasked weight."""
        toy_generator = torch.Generator().manual_seed(toy_seed)
        toy_w = torch.randn(6, 4, 3, 3, generator=toy_generator, dtype=torch.float64).requires_grad_()
        with_bias = toy_settings.pop("bias", True)
        b = torch.randn(6, generator=toy_generator, dtype=torch.float64) if with_bias else None
        m = (torch.rand(6, 4, 3, 3, generator=toy_generator) < 0.5).double()
        y = F.conv2d(toy_batch, toy_w * m, b, **toy_settings)
        y.square().sum().backward()
        return {"y": y.detach(), "gradient": toy_w.grad, "zeros": int((toy_w.grad == 0).sum())}


def toy_outcome(toy_seed, **toy_settings):
    """The same with the student's layer."""
    toy_layer = toy_sparse(toy_seed, **toy_settings)
    y = toy_layer(toy_images(toy_seed, 4, 7))
    y.square().sum().backward()
    return {"y": y, "gradient": toy_layer.weight.grad, "zeros": int((toy_layer.weight.grad == 0).sum())}


for toy_options in ({}, {"stride": 2, "padding": 1}, {"bias": False, "padding": 2}, {"dilation": 2, "padding": 1}):
    check.close(f"output and gradient, {toy_options}", lambda toy_options=toy_options: toy_outcome(411, **toy_options),
                lambda toy_options=toy_options: ToyOracle(1, 1, 1).of(411, toy_images(411, 4, 7), **toy_options), atol=1e-8,
                hint="pass stride, padding, dilation and bias on; the gradient is m times the gradient of the masked weight")
check.equal("only weight and bias are trained", lambda: [parameter_name for parameter_name, _ in
                                                         SparseConv2d(4, 6, 3).named_parameters()],
            ["weight", "bias"], hint="a buffer, not a Parameter")
check.equal("the mask is saved with the layer", lambda: sorted(SparseConv2d(4, 6, 3).state_dict()), ["bias", "mask", "weight"],
            hint="a plain attribute is not saved")


def toy_weight_change():
    """Largest change of the stored weight by a forward pass."""
    toy_layer = toy_sparse(412)
    toy_before = toy_layer.weight.detach().clone()
    toy_layer(toy_images(1, 4, 7))
    return float((toy_layer.weight.detach() - toy_before).abs().max())


check.equal("a forward pass changes no weight", toy_weight_change, 0.0, hint="compute m * w, leave self.weight alone")
### END HIDDEN TESTS
check.score(points=4)

# %% [markdown]
# > **Stuck here?** The experiments below need a `SparseConv2d`, but the other exercises do not. Do them first.

# %% [markdown]
# ## 4. Whole filters, or single weights
#
# A **filter** is everything that one output channel is computed with: $w_f$, of shape $(C_{\text{in}}, k, k)$. Li et al. (2017)
# rank the filters of a layer by their L1 norm,
#
# $$\lVert w_f \rVert_1 = \sum_{c,i,j} |w_{f,c,i,j}| ,$$
#
# and remove the smallest. Within one layer all filters have the same number of weights, so that the *mean* of the magnitudes
# would rank them the same way. The sum of the signed weights would not: an edge detector has positive and negative weights that
# cancel.
#
# ### Exercise: `filter_l1_mask` (4 points)
#
# One boolean for each filter, `True` where it stays. The count and the ties are as in Lab 2: `round(fraction * C_out)` filters
# go, and of equal norms the smaller index is kept.

# %% exercise
from course_utils.pruning import filter_l1_mask

# %% check points=4
check = Checks("filter_l1_mask")
toy_filters = torch.tensor([[[3.0, -3.0]], [[1.0, 1.0]], [[-0.5, 0.5]], [[0.0, 2.5]]])
check.equal("the two smallest filters go", lambda: filter_l1_mask(toy_filters, 0.5), torch.tensor([True, False, False, True]),
            dtype=True, hint="norms 6, 2, 1 and 2.5; one boolean for each output channel")
check.equal("sums of magnitudes, not lengths", lambda: filter_l1_mask(torch.tensor([[0.0, 0, 0, 3], [1, 1, 1, 1]]), 0.5),
            [False, True], hint="the L1 norms are 3 and 4, the L2 norms 3 and 2")
check.equal("of equal norms the smaller index is kept", lambda: filter_l1_mask(torch.ones(4, 2, 3, 3), 0.5),
            [True, True, False, False], hint="a stable sort")
check.equal("halves round to even", lambda: [int(filter_l1_mask(torch.ones(n, 2), 0.5).sum()) for n in (5, 7)], [3, 3],
            hint="round(2.5) is 2 and round(3.5) is 4, so 3 of 5 and 3 of 7 filters stay")
check.equal("none and all", lambda: [int(filter_l1_mask(torch.ones(7, 2), fraction).sum()) for fraction in (0.0, 1.0)], [7, 0],
            hint="t[-0:] is all of t, not nothing")
check.raises("30 is refused as a fraction", lambda: filter_l1_mask(toy_filters, 30), ValueError, hint="keep the check_ lines")
### BEGIN HIDDEN TESTS
from torch.nn.utils import prune as torch_prune

from course_utils import pruning as reference


def toy_oracle_filters(toy_t, toy_share):
    """The filters that PyTorch's own structured pruning keeps."""
    holder = nn.Linear(1, 1)
    holder.weight = nn.Parameter(toy_t.clone())
    toy_kept_filters = torch_prune.ln_structured(holder, "weight", amount=toy_share, n=1, dim=0).weight_mask
    return toy_kept_filters.flatten(1).all(1)


toy_square = torch.randn(12, 12, 3, 3, generator=torch.Generator().manual_seed(421), dtype=torch.float64)
toy_wide = torch.randn(9, 5, 3, 3, generator=torch.Generator().manual_seed(422), dtype=torch.float64) ** 3
for toy_fraction in (0.13, 0.3, 0.55, 0.9):
    for toy_title, toy_tensor in (("square", toy_square), ("wide", toy_wide)):
        check.equal(f"as torch.nn.utils.prune.ln_structured, {toy_title}, {toy_fraction}",
                    lambda toy_tensor=toy_tensor, toy_fraction=toy_fraction: filter_l1_mask(toy_tensor, toy_fraction),
                    lambda toy_tensor=toy_tensor, toy_fraction=toy_fraction: toy_oracle_filters(toy_tensor, toy_fraction),
                    hint="L1 norms over all axes but the first; round(fraction * C_out) of them go")
toy_tied_filters = torch.randint(0, 2, (14, 2), generator=torch.Generator().manual_seed(423)).float()
check.equal("many ties", lambda: filter_l1_mask(toy_tied_filters, 0.4), lambda: reference.filter_l1_mask(toy_tied_filters, 0.4),
            hint="of equal norms the smaller index stays")
check.equal("none and all of nine", lambda: [int(filter_l1_mask(toy_wide, 0.0).sum()), int(filter_l1_mask(toy_wide, 1.0).sum())],
            [9, 0], hint="0 and 1 are allowed")
check.equal("counts", lambda: [int(filter_l1_mask(toy_wide, k / 20).sum()) for k in range(21)],
            [9 - round(k / 20 * 9) for k in range(21)], hint="round, neither down nor up")
### END HIDDEN TESTS
check.score(points=4)

# %% [markdown]
# ### A pruned filter that still speaks
#
# Set all weights of filter $f$ to zero. Is channel $f$ now zero? Its convolution is, but then comes batch normalisation,
#
# $$y_f = \gamma_f\, \frac{0 - \mu_f}{\sqrt{\sigma_f^2 + \varepsilon}} + \beta_f \;\neq\; 0 .$$
#
# In evaluation mode this is some constant; in training, where $\mu_f$ becomes 0 too, it is $\beta_f$. A constant channel does
# something: it works like a bias for the next layer. So there are two honest ways to remove a filter: carry the constant over
# into the next layer's bias, or **silence** the channel, so that there is no constant. The first is not always exact (why, is
# the question below). We take the second.
# A filter is removed by setting to zero its weights, its bias, *and* $\gamma_f$ and $\beta_f$. Then its channel is zero for
# every input, ReLU, pooling and flattening leave it at zero, and the next layer multiplies it by something without effect. In
# evaluation mode and in training, the masked network and the one without the filter compute the same.
#
# ### Written question: silence (3 points)
#
# 1. Someone sets only the weights of half of the filters to zero, measures the accuracy, and then cuts the filters out, together
#    with their batch-norm entries. The accuracy changes although "those filters were zero". Explain.
# 2. Why is carrying the constant into the next layer's bias exact for a linear layer that reads flattened channels, and not for
#    a 3 x 3 convolution with padding 1? What is added at an inner position, and what in a corner?
# 3. During finetuning a silent filter has to stay silent. Which of the quantities that were set to zero would gradient steps
# revive if nobody repaired them? Consider the gradients of $w_f$, $\gamma_f$ and $\beta_f$ when all three are zero and a ReLU
# follows (PyTorch's ReLU has slope 0 at 0), then the case where $\beta_f$ alone was forgotten; and the optimiser's momentum from
# before the pruning.

# %% [markdown] answer name=silence points=3
# **Model answer.** 1. Zero weights make the convolution's output zero, not the channel: batch norm turns it into the constant
# $c_f = \beta_f - \gamma_f \mu_f / \sqrt{\sigma_f^2 + \varepsilon}$, and if $c_f > 0$ it passes the ReLU. The accuracy was
# measured with these constants as additional inputs of the next layer; cutting takes them away, so that another function is
# computed.
#
# 2. Behind the ReLU the constant is $c_f^+ = \max(0, c_f)$. The linear layer adds $\sum_p W_{o,(f,p)}\, c_f^+$ for every image,
# the same number always: a bias. A 3 x 3 convolution with zero padding adds $c_f^+ \sum_{i,j} w_{o,f,i,j}$ at an inner
# position, all nine weights. In a corner five of the nine weights lie on the padding, where there is 0 and not $c_f^+$: only
# four of them are added. One bias cannot be both.
#
# 3. With $w_f = 0$, $\gamma_f = 0$, $\beta_f = 0$ and a ReLU whose slope at 0 is 0, the channel is exactly 0 and no gradient
# passes: all three gradients are zero, and weight decay leaves zeros at zero. Only *momentum* from before the pruning moves them
# (and a network without ReLU there, or one with another slope at 0, would move $\beta_f$ at once). If $\beta_f$ was forgotten and
# is positive, the ReLU is open: $\beta_f$ trains. Since $\gamma_f = 0$, nothing reaches $w_f$ ($\partial L/\partial w_f$ has the
# factor $\gamma_f$); $\gamma_f$'s own gradient has the factor of the normalised input, which is 0 for $w_f = 0$. So $\beta_f$
# alone keeps speaking, as a learned constant. Repairing after each step (`keep_silent`) is right in every case.
#
# **Mark scheme (3).** The constant, and that cutting removes it 1. Nine weights inside, four in a corner 1. Momentum; $\beta_f$
# alone trains when it is positive 1.

# %% [markdown]
# ### Exercise: `filter_l1_pruning` (4 points)
#
# Prune every convolution whose filters can be removed: `prunable_convolutions(model)` lists them (what it leaves out, and why, is
# the subject of section 6). `effective_weight(conv)` is the weight that a layer computes with, $m \odot w$ where it has a mask.
# Given `silence_filters(model, masks)` silences what your masks leave out.

# %% exercise
from course_utils.pruning import filter_l1_pruning

# %% check points=4
check = Checks("filter_l1_pruning")
check.equal("filters that stay", lambda: {toy_name: toy_kept.long() for toy_name, toy_kept in
                                          filter_l1_pruning(toy_chain(1), 0.5).items()},
            {"conv1": [1, 0, 1, 0, 0, 1], "conv2": [0, 1, 0, 0, 0, 1, 1, 1]},
            hint="one filter_l1_mask for each prunable convolution, under its name")
check.equal("what is zero afterwards", lambda: {tensor_name: int((toy_t == 0).sum()) for tensor_name, toy_t in
                                                parameters_after(filter_l1_pruning, toy_chain(1), 0.5).items()},
            {"conv1.weight": 108, "conv1.bias": 3, "bn1.weight": 3, "bn1.bias": 3, "conv2.weight": 216, "conv2.bias": 4,
             "fc.weight": 0, "fc.bias": 0}, hint="3 of 6 and 4 of 8 filters, with their biases and batch-norm entries")
check.equal("only filters that can be removed", lambda: sorted(filter_l1_pruning(toy_residual(1), 0.5)),
            ["stage1.0.conv1", "stage2.0.conv1", "stage3.0.conv1"], hint="loop over prunable_convolutions(model)")
check.equal("filters that a mask has emptied go first", lambda: filter_l1_pruning(toy_emptied(1), 0.33)["conv1"][[0, 2]],
            [False, False], hint="rank effective_weight(conv), not conv.weight")
check.equal("in place", lambda: keeps_parameters(filter_l1_pruning, toy_chain(1)), True, hint="silence_filters sets entries to zero")
### BEGIN HIDDEN TESTS
from course_utils import pruning as reference

for toy_seed, toy_fraction in ((431, 0.3), (432, 0.7)):
    for toy_title, toy_build in (("chain", toy_chain), ("residual", toy_residual)):
        check.equal(f"parameters, {toy_title}, {toy_fraction}",
                    lambda toy_seed=toy_seed, toy_fraction=toy_fraction, toy_build=toy_build:
                        parameters_after(filter_l1_pruning, toy_build(toy_seed), toy_fraction),
                    lambda toy_seed=toy_seed, toy_fraction=toy_fraction, toy_build=toy_build:
                        parameters_after(reference.filter_l1_pruning, toy_build(toy_seed), toy_fraction),
                    hint="silent filters in place; everything else unchanged")
        check.equal(f"masks, {toy_title}, {toy_fraction}",
                    lambda toy_seed=toy_seed, toy_fraction=toy_fraction, toy_build=toy_build:
                        filter_l1_pruning(toy_build(toy_seed), toy_fraction),
                    lambda toy_seed=toy_seed, toy_fraction=toy_fraction, toy_build=toy_build:
                        reference.filter_l1_pruning(toy_build(toy_seed), toy_fraction),
                    hint="only convolutions whose filters can be removed, True where the filter stays")


def toy_masked_chain(toy_seed):
    """A chain whose first convolution has a mask that has emptied its two largest filters; the weights behind it are left."""
    toy = toy_chain(toy_seed)
    toy_kept = torch.ones_like(toy.conv1.weight)
    toy_kept[toy.conv1.weight.detach().abs().flatten(1).sum(1).argsort()[-2:]] = 0
    toy.conv1.register_buffer("mask", toy_kept)
    return toy


check.equal("emptied filters go first", lambda: filter_l1_pruning(toy_masked_chain(433), 0.34)["conv1"],
            lambda: reference.filter_l1_pruning(toy_masked_chain(433), 0.34)["conv1"],
            hint="rank effective_weight(conv), not conv.weight")
### END HIDDEN TESTS
check.score(points=4)

# %% [markdown]
# ### Exercise: `unstructured_pruning` (3 points)
#
# The opponent: the same fraction of *single weights* of every convolution that `convolutions(model)` lists, wherever they are, by
# your `magnitude_mask` of Lab 2 (given here as `magnitude_mask(weight, fraction)`). Given `set_masks(model, masks)` writes masks
# into the layers that have one and sets the weights outside to zero.

# %% exercise
from course_utils.pruning import unstructured_pruning

# %% check points=3
check = Checks("unstructured_pruning")
check.equal("weights that stay", lambda: {toy_name: int(toy_kept.sum()) for toy_name, toy_kept in
                                          unstructured_pruning(toy_chain(1), 0.6).items()},
            {"conv1": 86, "conv2": 173}, hint="216 - round(129.6) and 432 - round(259.2); convolutions only")
check.equal("what has zeros afterwards", lambda: [tensor_name for tensor_name, toy_t in parameters_after(
    unstructured_pruning, toy_chain(1), 0.6).items() if (toy_t == 0).any()],
            ["conv1.weight", "conv2.weight"], hint="biases, batch norms and the classifier stay")
check.equal("all convolutions of a residual network", lambda: len(unstructured_pruning(toy_residual(1), 0.5)),
            lambda: len(list(convolutions(toy_residual(1)))), hint="single weights can go anywhere: loop over convolutions(model)")
check.equal("masks are written, and what is masked stays masked", lambda: (lambda toy: [
    int(unstructured_pruning(toy, 0.5)["conv1"][[0, 2]].sum()), int(toy.conv1.mask.sum())])(toy_emptied(1)), [0, 108],
            hint="rank effective_weight(conv), not conv.weight; then set_masks")
check.equal("in place", lambda: keeps_parameters(unstructured_pruning, toy_chain(1)), True, hint="set_masks sets entries to zero")
### BEGIN HIDDEN TESTS
from course_utils import pruning as reference


def toy_with_masks(toy_seed):
    """A chain whose convolutions have mask buffers of ones."""
    toy = toy_chain(toy_seed)
    for _, toy_conv in convolutions(toy):
        toy_conv.register_buffer("mask", torch.ones_like(toy_conv.weight.detach()))
    return toy


def toy_pruned_tensors(toy_prune, toy_seed, *toy_shares):
    """All tensors, masks included, after pruning with rising fractions; masked weights are overwritten in between."""
    toy = toy_with_masks(toy_seed)
    for toy_share in toy_shares:
        toy_prune(toy, toy_share)
        for _, toy_conv in convolutions(toy):
            toy_conv.weight.data[toy_conv.mask == 0] = 9.0  # what momentum may leave behind a mask
    return tensors_of(toy)


for toy_seed, toy_fraction in ((441, 0.27), (442, 0.85)):
    check.equal(f"masks at {toy_fraction}", lambda toy_seed=toy_seed, toy_fraction=toy_fraction:
                    unstructured_pruning(toy_residual(toy_seed), toy_fraction),
                lambda toy_seed=toy_seed, toy_fraction=toy_fraction:
                    reference.unstructured_pruning(toy_residual(toy_seed), toy_fraction),
                hint="every convolution, the same fraction of each")
    check.equal(f"masks are written into the layers at {toy_fraction}", lambda toy_seed=toy_seed, toy_fraction=toy_fraction:
                    toy_pruned_tensors(unstructured_pruning, toy_seed, toy_fraction),
                lambda toy_seed=toy_seed, toy_fraction=toy_fraction:
                    toy_pruned_tensors(reference.unstructured_pruning, toy_seed, toy_fraction),
                hint="use set_masks")
check.equal("masked weights stay masked", lambda: toy_pruned_tensors(unstructured_pruning, 443, 0.3, 0.6),
            lambda: toy_pruned_tensors(reference.unstructured_pruning, 443, 0.3, 0.6),
            hint="rank effective_weight(conv), not conv.weight")
### END HIDDEN TESTS
check.score(points=3)

# %% [markdown]
# ## 5. Pruning while training
#
# The published experiment: 100 epochs, and 10 % more of the filters go every 10 epochs from epoch 10 to epoch 50. In the quick
# profile 8 short epochs stand for the 100, and something goes before each of the epochs 1 to 5. Three runs from the same initial weights: dense, filters, single weights (about 60
# seconds).

# %%
sparse_trainer = Trainer(train_set, profile, SparseConv2d)
options = {"epochs": plan.prune_epochs, "lr": plan.lr, "schedule": "cosine"}
runs = {
    "dense": trainer("dense", **options),
    "filters": sparse_trainer("filters, 10 % more every step", prune=filter_l1_pruning, **options),
    "unstructured": sparse_trainer("single weights, the same", prune=unstructured_pruning, **options),
}

# %%
pictures.pruning_runs(runs)
for title, run in runs.items():
    weights = {layer_name: effective_weight(layer) for layer_name, layer in convolutions(run.model)}
    zeros = sum(int((w == 0).sum()) for w in weights.values()) / sum(w.numel() for w in weights.values())
    drops = [f"{a:.3f} -> {b:.3f}" for a, b in zip(run.accuracy[:-1], run.before[1:], strict=True) if np.isfinite(b)]
    print(f"{title:14s} accuracy {run.accuracy[-1]:.4f}; {100 * zeros:.1f} % of the convolution weights are zero;",
          f"filters left {list(remaining_filters(run.model).values())}")
    print(f"{'':14s} before and right after each pruning: {', '.join(drops) or 'nothing was pruned'}")

# %% [markdown]
# ### Written question: three curves (4 points)
#
# 1. Describe the drops right after pruning: how do the two kinds of pruning differ, and how does the drop change from step to
#    step? (The learning rate falls at the same time: what of the change could it explain?)
# 2. Why does removing a tenth of the *filters* hurt more than removing a tenth of the *weights*? Argue with what the criterion
# may choose from, and with the number of products that are lost.
# 3. Both end with half removed. Why is that not the same number of multiplications? Compute for a layer with
#    $C_{\text{in}}$ and $C_{\text{out}}$ channels in the middle of the network.
# 4. The published result: sharp drops for filters that end near the baseline, small dips for single weights that end at or
#    above it. What do your curves confirm, and what can 2000 test images and one run of each not decide? (Standard error of one
#    accuracy: $\sqrt{p(1-p)/n}$.)

# %% [markdown] answer name=three_curves points=4
# **Model answer.** 1. In one run of the quick profile single weights make hardly any drop: at most 0.1 points in the first two
# steps, 0.3, 2.0 and 2.3 in the others. Filters make sharp ones: 4.7, 4.9, 3.5, 6.6 and 23 points (0.828 to 0.596 in the last
# step). The later steps remove the same *number* but a larger share of what is left, and what is left is needed more. (The falling
# rate can explain what happens in the epoch *after* a pruning, less time to adapt at a lower rate, but the drop itself is measured
# before any step.)
#
# 2. The unstructured criterion may choose the smallest tenth of all weights, wherever they are; the structured one must take
# whole filters, and every filter has large weights among its small ones. (Sum of magnitudes removed: the smallest possible one,
# against some larger one.) And a filter takes a *channel* with it: the weights of the next layer that read it lose their input
# as well, so that more products are lost: with a tenth of the filters everywhere, a middle layer loses $1 - 0.9^2 = 19$ % of
# its products, against 10 %. Third, the layers behind still normalise with running means and variances of inputs that are gone.
# Part of the drop right after pruning is only that: with the statistics estimated anew and no weight trained, ResNet-20 with 30
# % of its inner filters removed goes from 0.68 back to 0.94. That is also why a few training steps repair so much.
#
# 3. Unstructured, half: $\tfrac12 C_{\text{in}} C_{\text{out}} k^2$ products for each position have a weight that is not zero.
# Half of the filters: $\tfrac12 C_{\text{in}} \cdot \tfrac12 C_{\text{out}} k^2$, a quarter. Equal fractions are not equal MACs,
# so of the two networks that end at "50 %", the one that lost whole filters needs, once they are cut out, half of the useful
# MACs of the other.
#
# 4. Confirmed: sharp drops for filters, small dips for single weights, and recovery after each. In that run all three end
# together: dense 0.854, filters 0.855, single weights 0.850. With an accuracy near 0.85 on 2000 images the standard error of
# one accuracy is $\sqrt{0.85 \cdot 0.15/2000} = 0.0080$. For two independent test sets a difference would have 0.011. Here both
# networks see the same images, so that only those on which just one of them is right count: for $d$ of $n$ the standard error
# is about $\sqrt d / n$, for example 0.004 for 70 of 2000. But another seed of the training moves accuracies by about a point
# as well, and one run of each cannot separate that: whether unstructured pruning ends at or above the dense network cannot be
# decided; a gap of several points can.
#
# **Mark scheme (4).** Drops of both kinds with own numbers 1. Freedom of choice, and channels lost in the next layer or stale
# batch-norm statistics 1. A half against a quarter 1. What is confirmed, and a standard error (of either kind) 1.

# %% [markdown]
# ## 6. Cutting filters out
#
# So far nothing is smaller. A filter that is silent can go, and these go with it:
#
# - row $f$ of the convolution's weight, and its bias;
# - entry $f$ of the batch norm's $\gamma$, $\beta$, running mean and running variance;
# - in the layer that reads the channels, the weights that multiply channel $f$: column $f$ of a convolution's weight; in a linear
#   layer behind a `Flatten`, a *block* of columns, one for each position. `Flatten` writes channel by channel, so channel $f$ of
#   $h \times w$ positions is inputs $f h w$ to $(f+1) h w - 1$.
#
# Who reads what is found by tracing the network. `channel_links(model)` is given. `readers` says for each layer that reads the
# channels how many consecutive inputs belong to one of them: 1 for a convolution, the number of positions behind a `Flatten`.
# `obstacle` says why no filter can go; it is empty where filters can.

# %%
for entry in channel_links(convnet):
    print(entry)

# %% [markdown]
# In a residual network the output of a block is $x + F(x)$. Channel $f$ of the last convolution in $F$ is *added* to channel $f$
# of the shortcut. To remove it, channel $f$ would have to go from every block of the stage at once. The filters of the block's
# first convolution are free: only the second one reads them.

# %%
for entry in channel_links(resnet)[:4]:
    print(f"{entry.conv:16s} read by {list(entry.readers)}" if not entry.obstacle else f"{entry.conv:16s} no: {entry.obstacle}")

# %% [markdown]
# ### Exercise: `remove_pruned_filters` (8 points)
#
# Given are `folded_copy(model)`, a copy with plain convolutions that hold $m \odot w$; `check_removable(model, link, kept)`,
# which refuses what cannot be cut; `take(layer, "weight", kept, dim)`, which replaces a tensor of a layer by its slices where
# `kept` is `True`; and `match_sizes(model)`, which lets the layers' size attributes say what their tensors are.
# `model.get_submodule(name)` finds a layer, `t.repeat_interleave(n)` repeats every entry $n$ times.
#
# One trap: decide which filters stay from the *given* model, not from the copy that you are cutting.

# %% exercise
from course_utils.pruning import remove_pruned_filters

# %% check points=8
check = Checks("remove_pruned_filters")


def toy_silenced(toy_build, toy_seed):
    """A network in which about half of the filters of each prunable convolution are silent."""
    toy = toy_build(toy_seed)
    silence_filters(toy, small_masks(toy, toy_seed))
    return toy


def toy_without(toy, toy_name):
    """The network with the first filter of a convolution at zero, without anything else."""
    toy.get_submodule(toy_name).weight.data[0] = 0.0
    return toy


def toy_shapes(toy):
    """Shape of every tensor, and the size attributes of the layers."""
    found = {tensor_name: list(toy_t.shape) for tensor_name, toy_t in tensors_of(toy).items()}
    for part_name, part in toy.named_modules():
        for attribute in ("in_channels", "out_channels", "in_features", "num_features"):
            if hasattr(part, attribute):
                found[f"{part_name}.{attribute}"] = getattr(part, attribute)
    return found


check.equal("sizes of the chain's weights", lambda: {tensor_name: list(toy_t.shape) for tensor_name, toy_t in
                                                     tensors_of(remove_pruned_filters(toy_silenced(toy_chain, 2))).items()
                                                     if tensor_name.endswith("weight")},
            {"conv1.weight": [3, 4, 3, 3], "bn1.weight": [3], "conv2.weight": [4, 3, 3, 3], "fc.weight": [5, 36]},
            hint="the next layer reads only the channels that are left; the classifier 9 positions of each")
# 1e-10: float64 sums of up to 72 products in another order
check.close("the chain computes the same", lambda: remove_pruned_filters(toy_silenced(toy_chain, 1))(toy_images(1, 4, 6)),
            lambda: toy_silenced(toy_chain, 1)(toy_images(1, 4, 6)), atol=1e-10,
            hint="batch norm: scale, shift, running mean and running variance belong to the channel")
check.close("a residual network computes the same", lambda: remove_pruned_filters(toy_silenced(toy_residual, 1))(toy_images(1, 1, 8)),
            lambda: toy_silenced(toy_residual, 1)(toy_images(1, 1, 8)), atol=1e-10,
            hint="only links without an obstacle are cut; their readers are convolutions")
check.raises("a filter that feeds a residual addition is refused",
             lambda: remove_pruned_filters(toy_without(toy_residual(1), "conv1")), ValueError,
             hint="call check_removable for every link")
check.raises("a filter that still speaks is refused", lambda: remove_pruned_filters(toy_without(toy_chain(1), "conv1")), ValueError,
             hint="call check_removable before you cut")


def toy_deaf(toy_seed):
    """A chain with conv1 half silent and a filter of conv2 that reads only silent channels; it has a bias and stays."""
    toy = toy_silenced(toy_chain, toy_seed)
    toy_gone = (toy.conv1.weight == 0).flatten(1).all(1)
    toy.conv2.weight.data[(toy.conv2.weight != 0).flatten(1).any(1).nonzero()[0], ~toy_gone] = 0.0
    return toy


check.equal("filters are judged on the given model, which stays as it is", lambda: (lambda toy: [
    list(remove_pruned_filters(toy).conv2.weight.shape), list(toy.conv2.weight.shape)])(toy_deaf(2)), [[4, 3, 3, 3], [8, 6, 3, 3]],
            hint="decide from the given model, cut the copy: a filter that is zero only because its inputs were cut has a bias")
check.equal("layers say what their tensors are, and the mode stays", lambda: (lambda toy: [
    toy.conv2.in_channels, toy.conv2.out_channels, toy.bn1.num_features, toy.fc.in_features, toy.training])(
        remove_pruned_filters(toy_silenced(toy_chain, 2).train())), [3, 4, 3, 36, True], hint="match_sizes at the end; no eval()")
### BEGIN HIDDEN TESTS
from course_utils import pruning as reference
from course_utils.convnet import ConvNet


def toy_two_convolutions(toy_seed):
    """A ConvNet with two convolutions a stage and masks, in float64, random everywhere."""
    toy = ConvNet((4, 6), 4, 5, 8, convs_per_stage=2).double()
    toy_generator = torch.Generator().manual_seed(toy_seed)
    with torch.no_grad():
        for tensor_name, toy_t in toy.state_dict().items():
            if toy_t.is_floating_point():
                toy_values = torch.randn(toy_t.shape, generator=toy_generator, dtype=torch.float64)
                toy_t.copy_(toy_values.abs() + 0.5 if tensor_name.endswith("var") else 0.4 * toy_values)
    for _, toy_conv in convolutions(toy):
        toy_conv.register_buffer("mask", (torch.rand(toy_conv.weight.shape, generator=toy_generator) < 0.8).double())
    return toy.eval()


for toy_seed, toy_title, toy_build, toy_size in ((451, "chain", toy_chain, (4, 6)), (452, "chain again", toy_chain, (4, 6)),
                                                 (453, "residual", toy_residual, (1, 8)),
                                                 (454, "two convolutions a stage, masked", toy_two_convolutions, (4, 8))):
    check.equal(f"sizes, {toy_title}", lambda toy_seed=toy_seed, toy_build=toy_build:
                    toy_shapes(remove_pruned_filters(toy_silenced(toy_build, toy_seed))),
                lambda toy_seed=toy_seed, toy_build=toy_build:
                    toy_shapes(reference.remove_pruned_filters(toy_silenced(toy_build, toy_seed))),
                hint="filter, bias, batch norm, and the weights of the readers; then match_sizes")
    check.close(f"outputs, {toy_title}", lambda toy_seed=toy_seed, toy_build=toy_build, toy_size=toy_size:
                    remove_pruned_filters(toy_silenced(toy_build, toy_seed))(toy_images(toy_seed, *toy_size)),
                lambda toy_seed=toy_seed, toy_build=toy_build, toy_size=toy_size:
                    folded_copy(toy_silenced(toy_build, toy_seed))(toy_images(toy_seed, *toy_size)), atol=1e-10,
                hint="the smaller network computes what the masked one computes")
check.equal("the model that was given is not changed", lambda: (lambda toy: [remove_pruned_filters(toy), toy_shapes(toy)][1])(
    toy_silenced(toy_chain, 455)), lambda: toy_shapes(toy_silenced(toy_chain, 455)), hint="cut the copy")
check.equal("a dense network stays as it is", lambda: toy_shapes(remove_pruned_filters(toy_chain(456))),
            lambda: toy_shapes(toy_chain(456)), hint="nothing is zero, nothing goes")


def toy_dead_end(toy_seed):
    """A chain in which conv2's filter 1 has weights for channel 0 of conv1 only, which is silent."""
    toy = toy_chain(toy_seed)
    silence_filters(toy, {"conv1": torch.arange(6) > 0})
    toy.conv2.weight.data[1, 1:] = 0.0
    return toy


check.equal("judged on the given model", lambda: toy_shapes(remove_pruned_filters(toy_dead_end(458))),
            lambda: toy_shapes(reference.remove_pruned_filters(toy_dead_end(458))),
            hint="a filter that is zero only because its inputs were cut is not silent: it has a bias; it stays")
### END HIDDEN TESTS
check.score(points=8)

# %% [markdown]
# Now the network of section 5. The differences below are float32 rounding: the same products are added up in another order.

# %%
pruned = folded_copy(runs["filters"].model).eval().cpu()
small = remove_pruned_filters(pruned).eval()
images = torch.randn(16, *input_shape, generator=torch.Generator().manual_seed(0))
with torch.inference_mode():
    difference = (pruned(images) - small(images)).abs().max()
print(f"largest difference of an output: {difference:.1e};",
      f"accuracy {evaluate(pruned, train_set):.4f} and {evaluate(small, train_set):.4f}")
for title, network in (("dense", convnet), ("cut", small)):
    print(f"{title:6s} filters {list(remaining_filters(network).values())}, {n_parameters(network)} parameters,",
          f"{count_macs(network, input_shape)} MACs")

# %% [markdown]
# ## 7. Two of every four
#
# Between single weights and filters lies a third pattern. Since 2020 NVIDIA's GPUs have tensor cores that skip zeros if **at
# most two of every four** neighbouring weights are not zero (in half precision, bfloat16 or int8; for TF32 it is one of every
# two): for each four, two values and two 2-bit positions are stored, and half of the products are done. Neighbouring *where*?
# Along the axis that is summed over, so that each skipped product is one term of a sum: for a convolution the input channels
# (as 2:4 formats store them: input channels innermost, one filter and one kernel position at a time).
#
# ### Exercise: `n_m_mask` (4 points)
#
# `t.movedim(1, -1)` moves axis 1 to the end, `t.unflatten(-1, (-1, m))` splits the last axis into groups of $m$.

# %% exercise
from course_utils.pruning import n_m_mask

# %% check points=4
check = Checks("n_m_mask")
check.equal("two of every four", lambda: n_m_mask(torch.tensor([[1.0, -4.0, 2.0, 3.0, 0.5, 0.1, -5.0, 0.2]])),
            [[False, True, False, True, True, False, True, False]], hint="largest |w|: -4 and 3, then 0.5 and -5")
check.equal("groups are input channels of one filter and one kernel position",
            lambda: n_m_mask(torch.arange(1.0, 33.0).view(2, 4, 2, 2)).sum(dim=1), [[[2, 2], [2, 2]], [[2, 2], [2, 2]]],
            hint="move axis 1 to the end before you split into groups")
check.equal("each kernel position by itself", lambda: n_m_mask(torch.tensor([[[[4.0, 1.0]], [[3.0, 2.0]], [[2.0, 3.0]], [[1.0, 4.0]]]])),
            torch.tensor([[[[True, False]], [[True, False]], [[False, True]], [[False, True]]]]), dtype=True,
            hint="move the axis back to where it was: movedim(-1, 1)")
check.equal("one of every two", lambda: n_m_mask(torch.tensor([[1.0, 3.0, 2.0, -4.0]]), 1, 2), [[False, True, False, True]],
            hint="groups of m, whatever m is")
check.equal("of equal magnitudes the smaller index is kept", lambda: n_m_mask(torch.ones(1, 4), 1, 4), [[True, False, False, False]],
            hint="a stable sort; n = 1 of m = 4 stays")
check.raises("6 channels are no groups of 4", lambda: n_m_mask(torch.ones(2, 6, 3, 3)), ValueError, hint="keep the check_ lines")
### BEGIN HIDDEN TESTS
from course_utils import pruning as reference

toy_weight = torch.randn(8, 8, 3, 3, generator=torch.Generator().manual_seed(461), dtype=torch.float64)
toy_tied = torch.randint(-2, 3, (6, 16), generator=torch.Generator().manual_seed(462)).float()
for toy_n, toy_m in ((2, 4), (1, 4), (3, 4), (2, 8), (1, 2)):
    check.equal(f"{toy_n}:{toy_m} of a convolution", lambda toy_n=toy_n, toy_m=toy_m: n_m_mask(toy_weight, toy_n, toy_m),
                lambda toy_n=toy_n, toy_m=toy_m: reference.n_m_mask(toy_weight, toy_n, toy_m),
                hint="keep the n largest magnitudes of each group of m input channels")
    check.equal(f"{toy_n}:{toy_m} with ties", lambda toy_n=toy_n, toy_m=toy_m: n_m_mask(toy_tied, toy_n, toy_m),
                lambda toy_n=toy_n, toy_m=toy_m: reference.n_m_mask(toy_tied, toy_n, toy_m),
                hint="exactly n of each group, zeros or not; the smaller index first")
check.equal("n = m keeps everything", lambda: int(n_m_mask(toy_weight, 4, 4).sum()), 576, hint="nothing to remove")
check.raises("five of four", lambda: n_m_mask(toy_weight, 5, 4), ValueError, hint="keep the check_ lines")
### END HIDDEN TESTS
check.score(points=4)

# %% [markdown]
# ## 8. Does it get faster?
#
# Our ConvNet in seven forms. *Dense, unfolded* does not call a convolution: the images are unfolded into a matrix (each pixel
# written once for every kernel position that reads it), and the layer is one product of dense matrices. *90 % zeros* has single
# weights removed; it is timed as it is, and with every convolution unfolded like that and its weights as a CSR matrix. *2:4* is
# the pattern of section 7 in the layers whose number of input channels is a multiple of four: a processor runs it with its
# dense kernels, since only a GPU has the hardware. The last two are the network that section 5 pruned to half of its filters,
# masked and cut out. In the table, MACs are those that the weights other than zero need, bytes are those of a file in the
# form's own layout (dense, bitmap, CSR or 2:4), and each ratio is "dense divided by this". (The masked form still counts the
# weights that read a silent channel: twice the MACs of the cut one, which computes the same.) Only cost is compared here; what
# was pruned in one shot is not finetuned. **Before you run the cells, write down an order of the forms by time.** (About 20
# seconds.)

# %%
dense_net = folded_copy(runs["dense"].model).eval().cpu()


def pruned_by(prune, *arguments):
    """A copy of the dense network, pruned in place by a function."""
    network = copy.deepcopy(dense_net)
    prune(network, *arguments)
    return network


def two_four(network):
    """Set a 2:4 pattern in every convolution whose number of input channels is a multiple of four."""
    fitting = {layer_name: layer.weight for layer_name, layer in convolutions(network) if layer.in_channels % 4 == 0}
    set_masks(network, {layer_name: n_m_mask(weight) for layer_name, weight in fitting.items()})


sparse_net, patterned_net = pruned_by(unstructured_pruning, 0.9), pruned_by(two_four)
forms = {
    "dense": Form(dense_net, dense_net),
    "dense, unfolded": Form(dense_net, with_layout(dense_net, "dense")),
    "90 % zeros": Form(sparse_net, sparse_net, "bitmap"),
    "90 % zeros, CSR": Form(sparse_net, with_layout(sparse_net, "csr"), "csr"),
    "2:4, dense kernel": Form(patterned_net, patterned_net, "2:4"),
    "half the filters, masked": Form(pruned, pruned, "bitmap"),
    "half the filters, cut": Form(small, small),
}

# %%
costs = measure_costs(forms, input_shape, repeats=plan.repeats)
print_costs(costs, "dense")
pictures.promise_and_time(costs, "dense");

# %%
kept_promise = promise_kept(costs["dense"], costs["half the filters, cut"], 128)
print(f"half the filters cut, batch 128: MACs fall by {100 * (1 - costs['half the filters, cut'].macs / costs['dense'].macs):.0f} %,",
      f"time by {kept_promise:.2f} of that; threads: {torch.get_num_threads()}")

# %% [markdown]
# ### The roofline
#
# Why is one form faster and another not? A layer has to do multiplications, and it has to move bytes. Whichever takes longer
# decides:
#
# $$\text{attainable MAC/s} = \min(\text{peak MAC/s},\; \text{bytes/s} \cdot I), \qquad
# I = \frac{\text{MACs}}{\text{bytes moved}} .$$
#
# $I$ is the **arithmetic intensity** (counted with the bytes that go to and from memory, Williams et al. call it *operational*
# intensity). A layer far to the right is limited by arithmetic: do less of it and time falls. A layer on
# the left is limited by memory traffic. The two limits are measured on this machine, with a product of large matrices and with
# a copy; each point is a convolution, timed alone. (Points may lie somewhat above the lines: a convolution's kernel may be
# better than that product's, or its data may be in the caches.) Only *useful* MACs count, those with a weight that is not zero.

# %%
machine = measure_machine()
batch, single = torch.randn(128, *input_shape), torch.randn(1, *input_shape)
points = {
    "dense, batch 128": layer_points(dense_net, batch), "dense, batch 1": layer_points(dense_net, single),
    "filters cut, batch 128": layer_points(small, batch), "filters cut, batch 1": layer_points(small, single),
    "90 % zeros, batch 128": layer_points(sparse_net, batch), "CSR, batch 128": layer_points(forms["90 % zeros, CSR"].runs, batch),
}
print(f"{machine.gmacs:.0f} GMAC/s, {machine.gbytes:.0f} GB/s: limited by memory below {machine.ridge:.1f} MACs a byte")
pictures.roofline(machine, points);

# %% [markdown]
# ### Written question: so does it get faster? (5 points)
#
# Use your table and your roofline.
#
# 1. Masked, 2:4 and CSR: for each, why is its time what it is? Name for each what would have to be different to be faster.
# 2. Half of the filters cut out: which layers' MACs fall by four, which by less? At batch 128 the time falls by less than the
# MACs: what part of the time has no MACs, and where do the cut layers lie in the roofline?
# 3. At batch 1 the saving is smaller than at batch 128. Does the roofline explain it? What else does?
# 4. A colleague reports "90 % sparse, so ten times faster". Another one reports "half of the filters, so twice as fast". Correct
# both in one sentence each.

# %% [markdown] answer name=does_it_get_faster points=5
# **Model answer.** (Numbers of the quick profile on two cores; use your own.) 1. *Masked*: the time of the dense network,
# because the dense kernel multiplies by zeros like by anything else and moves the same bytes. It would take a smaller tensor.
# *2:4*: the same on this processor; its dense kernels do not know the pattern. It would take hardware that reads two values and
# their positions, such as the sparse tensor cores of NVIDIA GPUs since 2020, where the limit is a factor of two in those
# layers. *CSR*: slower than dense, for two reasons. The images must be unfolded first: every pixel is written up to nine times,
# reordered and read again. On one core that alone took 26 of 42 ms for conv2 and conv3, where the dense convolutions need 12 ms
# in all, so that no sparsity would make this form faster (*dense, unfolded* shows it without any zeros). And the CSR product
# itself takes about as long as the dense product of the same matrices (15 against 13 ms), with ten times fewer MACs: each
# remaining weight multiplies a whole row of the unfolded images, which is fetched anew for every filter, while the dense
# product works on blocks that stay in registers and caches. It would take a kernel that does not unfold and keeps blocks in the
# caches, for example one generated for the pattern.
#
# 2. A middle layer has half of the outputs *and* half of the inputs: a quarter. The first convolution has the same input
# channels as before (the image's), so it only halves, as does the classifier (its inputs halve, its outputs do not). In all 7.46
# million become 1.92 million, a factor of 3.88. (Masked, the table counts a factor of 2.00 only: the weights that read a silent
# channel are not zero, although what they multiply is.) The time falls by about 2.5 to 2.7: batch norm, ReLU and pooling have
# no MACs, are about a third of the dense time and only halve; conv1 is limited by memory and halves; conv2 and conv3 do fewer
# MACs for each byte than before and lie further to the left.
#
# 3. At batch 1 the weights are read for a single image, so that conv2 falls from 48 to 24 and conv3 from 90 to 11 MACs a byte
# (conv1 stays at 2.2). On our machine both are still right of the ridge (about 6): the roofline allows full speed, yet the points
# lie at a third of it. So what is missing in the roofline decides: calling every layer from Python, starting threads,
# allocating outputs, and too little work for all vector lanes and threads. These costs hardly shrink with the filters. (Where
# your ridge lies right of your points, memory traffic is a reason, too.) At batch 128 they are small beside the work, and what
# has no MACs is at least proportional to the channels.
#
# 4. "Ten times fewer multiplications that matter; no faster in dense kernels, and slower in CSR, on this machine." "Half of the
# filters is about a quarter of the multiplications, and at a large batch two to four times as fast; at batch 1 less."
#
# **Mark scheme (5).** Masked and 2:4: dense kernels, with what would change it 1. CSR: unfolding, and no reuse of
# what is fetched (or indices), with own numbers 1. A quarter, first layer or classifier halve, and parts without MACs 1. Batch 1:
# intensity against the own ridge, and fixed costs 1. Both corrections 1.

# %% [markdown]
# ### Try it
#
# The dense network, pruned in one shot to several fractions (0 % included), finetuned for one epoch each and cut (about 30
# seconds). Then move the slider: where is the knee of the accuracy, and does the time follow the multiplications? (Kernels work
# on 8 or 16 channels at a time: 13 channels may cost what 16 cost. That is why one prunes to multiples of them.)

# %%
from course_utils.pruning.structured_widgets import FractionPoint, filter_explorer


def point_at(fraction):
    """Prune the dense network, finetune, cut, and measure."""
    network = copy.deepcopy(dense_net)
    kept = filter_l1_pruning(network, fraction)
    before = evaluate(network, train_set)
    network = finetuned(network, kept, train_set, profile, epochs=1, lr=plan.finetune_lr)
    cut = remove_pruned_filters(network.eval().cpu())
    cost = measure_costs({"cut": Form(cut, cut)}, input_shape, batch_sizes=(128,), rounds=1, repeats=15)["cut"]
    return FractionPoint(fraction, kept["conv2"], before, evaluate(cut, train_set), cost.macs, cost.latency_ms[128])


explorer_points = [point_at(fraction) for fraction in plan.fractions]
for point in explorer_points:
    print(f"{100 * point.fraction:3.0f} % removed: accuracy {point.accuracy_before:.3f} -> {point.accuracy:.3f},",
          f"{point.macs:9d} MACs, {point.latency_ms:6.2f} ms")

# %%
filter_explorer(dense_net.conv2.weight, explorer_points)

# %% [markdown]
# ## 9. Teaching filters to be small
#
# The L1 norm takes a network as training has left it. One can also *train* it so that some filters become superfluous. The
# **group Lasso** (Yuan and Lin, 2006; for filters Wen et al., 2016) adds the L2 norms of the filters,
#
# $$R(w) = \sum_l \sum_f \lVert w_{l,f} \rVert_2 ,$$
#
# an L1 norm of L2 norms. Outside is the L1 norm of Lab 1 with its corner at zero, so that whole filters vanish; inside, no
# direction is preferred. (Where groups differ in size, Yuan and Lin weight each by the square root of its size; Wen et al. do
# not, and nor do we.)
#
# ### Exercise: `group_lasso` (3 points)
#
# Sum over the convolutions whose filters can be removed, as `prunable_convolutions(model)` lists them, and over `conv.weight`
# itself: `effective_weight` is detached. A filter of length 0 is in the corner; its gradient is taken as 0, as PyTorch's `norm`
# takes it.

# %% exercise
from course_utils.pruning import group_lasso

# %% check points=3
check = Checks("group_lasso")
check.close("5 + 13 + 0 + 1 + 2", lambda: group_lasso(toy_lengths()), 21.0, atol=1e-12,
            hint="the L2 norm of each filter, not squared, summed; biases and linear layers do not count")
check.close("the gradient of a filter has length 1, or 0", lambda: (lambda toy: [group_lasso(toy).backward(), toy[0].weight.grad][1])(
    toy_lengths()).flatten(1), [[0.6, 0.8], [-5 / 13, 12 / 13], [0.0, 0.0]], atol=1e-12,
            hint="no detach, no .data, no .item(); sqrt has no slope at 0, torch's norm takes 0 there, and no epsilon is needed")
check.close("only filters that can be removed", lambda: float(group_lasso(toy_residual(1)).detach()),
            lambda: sum(float(layer.weight.detach().flatten(1).norm(dim=1).sum()) for _, layer in prunable_convolutions(toy_residual(1))),
            atol=1e-9, hint="loop over prunable_convolutions(model)")
### BEGIN HIDDEN TESTS
from course_utils import pruning as reference


def toy_penalty(penalty, toy):
    """Value and gradients of a penalty."""
    value = penalty(toy)
    value.backward()
    return {"value": value.detach()} | {parameter_name: parameter.grad for parameter_name, parameter in toy.named_parameters()
                                        if parameter.grad is not None}


for toy_seed, toy_title, toy_build in ((471, "chain", toy_chain), (472, "residual", toy_residual)):
    check.close(f"value and gradients, {toy_title}",
                lambda toy_seed=toy_seed, toy_build=toy_build: toy_penalty(group_lasso, toy_build(toy_seed)),
                lambda toy_seed=toy_seed, toy_build=toy_build: toy_penalty(reference.group_lasso, toy_build(toy_seed)), atol=1e-10,
                hint="only filters that can be removed; gradient w_f / ||w_f||")
check.close("a filter that is zero already has gradient 0", lambda: toy_penalty(group_lasso, toy_lengths())["0.weight"].flatten(1),
            [[0.6, 0.8], [-5 / 13, 12 / 13], [0.0, 0.0]], atol=1e-10, hint="sqrt has no slope at 0: torch's norm takes 0 there")
check.close("twice the weights, twice the penalty", lambda: float(group_lasso(toy_chain(473)).detach()) / 2,
            lambda: float(reference.group_lasso(toy_chain(473)).detach()) / 2, atol=1e-10, hint="norms, not squares")
### END HIDDEN TESTS
check.score(points=3)

# %% [markdown]
# ### Exercise: `group_lasso_step` (3 points)
#
# As in Lab 1, gradient steps never reach zero exactly: near zero the gradient $w_f / \lVert w_f \rVert$ still has length 1. The
# proximal step of $\tau R$ does; it is soft thresholding of *lengths*:
#
# $$w_f \;\leftarrow\; \max\!\Bigl(0,\; 1 - \frac{\tau}{\lVert w_f \rVert_2}\Bigr)\, w_f .$$
#
# Each filter keeps its direction and becomes $\tau$ shorter; those shorter than $\tau$ become zero. (What about a filter of
# length 0?)

# %% exercise
from course_utils.pruning import group_lasso_step

# %% check points=3
check = Checks("group_lasso_step")


def toy_stepped(step, toy, threshold, times=1):
    """All parameters after some steps."""
    for _ in range(times):
        step(toy, threshold)
    return {parameter_name: parameter.detach() for parameter_name, parameter in toy.named_parameters()}


check.close("every filter becomes 1 shorter", lambda: toy_stepped(group_lasso_step, toy_lengths(), 1.0)["0.weight"].flatten(1),
            [[2.4, 3.2], [-60 / 13, 144 / 13], [0.0, 0.0]], atol=1e-12, hint="lengths 5 -> 4, 13 -> 12, 0 -> 0")
check.close("short filters become exactly zero", lambda: toy_stepped(group_lasso_step, toy_lengths(), 1.5)["2.weight"].flatten(1),
            [[0.0, 0.0, 0.0], [0.0, 0.0, 0.5]], atol=1e-12, hint="length 1 is below 1.5; length 2 becomes 0.5")
check.close("threshold 0 changes nothing", lambda: toy_stepped(group_lasso_step, toy_lengths(), 0.0)["0.weight"].flatten(1),
            [[3.0, 4.0], [-5.0, 12.0], [0.0, 0.0]], atol=1e-12,
            hint="0 / 0 is NaN: treat length 0 by itself; an epsilon in the denominator changes the others")
check.equal("in place", lambda: keeps_parameters(lambda toy, fraction: group_lasso_step(toy, 1.0), toy_lengths()), True,
            hint="the optimiser knows the old parameters: change their entries, under torch.no_grad()")
### BEGIN HIDDEN TESTS
from course_utils import pruning as reference

for toy_seed, toy_title, toy_build, toy_threshold in ((481, "chain", toy_chain, 0.9), (482, "chain, larger", toy_chain, 1.9),
                                                      (483, "residual", toy_residual, 0.8)):
    check.close(f"all parameters, {toy_title}", lambda toy_seed=toy_seed, toy_build=toy_build, toy_threshold=toy_threshold:
                    toy_stepped(group_lasso_step, toy_build(toy_seed), toy_threshold, times=2),
                lambda toy_seed=toy_seed, toy_build=toy_build, toy_threshold=toy_threshold:
                    toy_stepped(reference.group_lasso_step, toy_build(toy_seed), toy_threshold, times=2), atol=1e-10,
                hint="only filters that can be removed; a second step must find the zeros of the first")
check.equal("exact zeros", lambda: int((toy_stepped(group_lasso_step, toy_chain(484), 100.0)["conv1.weight"] == 0).sum()), 216,
            hint="0.0, not 1e-17, and not NaN")
check.raises("a negative threshold", lambda: group_lasso_step(toy_chain(485), -0.1), ValueError, hint="keep the check_ lines")
### END HIDDEN TESTS
check.score(points=3)

# %% [markdown]
# ### Three criteria at equal MACs
#
# The third criterion, **network slimming** (Liu et al., 2017), uses that batch norm multiplies each channel by $\gamma_f$ anyway:
# train with $\lambda \sum |\gamma_f|$ added to the loss, then remove the channels with the smallest $|\gamma_f|$. To compare
# criteria and not sizes, each removes the same fraction of every layer, so that all networks have the same shape and the same
# MACs: what differs is which filters go, and how the network was trained before. (Liu et al. use one threshold for all layers.)
# One exception: filters that the group Lasso has emptied altogether go in any case, `without_empty` sees to that; where they are
# more than the fraction, its network is smaller than the others. All three start from the dense network and train equally long
# (about 40 seconds).

# %%
def shrink_filters(state, strength=0.25):
    """After each step, the proximal step of the group Lasso with the step's own learning rate.

    It stands outside the momentum of 0.9, and so is ten times weaker than the same strength in the loss.
    """
    group_lasso_step(state.model, state.optimizer.param_groups[0]["lr"] * strength)


def train_on(label, **hooks):
    """Train a copy of the dense network for some more epochs."""
    more = {"epochs": plan.criteria_epochs, "lr": plan.lr, "schedule": "cosine", "evaluate_every": plan.criteria_epochs}
    return trainer(label, model=copy.deepcopy(dense_net), **more, **hooks).model


trained = {
    "no penalty": train_on("no penalty"),
    "group Lasso": train_on("group Lasso", after_step=shrink_filters),
    "L1 on scales": train_on("L1 on batch-norm scales", penalty=lambda network: 2e-3 * batch_norm_penalty(network)),
}

# %%
pictures.filter_sizes({title: batch_norm_scales(network) if title == "L1 on scales" else filter_lengths(network)
                       for title, network in trained.items()}, {"L1 on scales": "batch-norm scale"})
for title, network in trained.items():
    n_filters = sum(layer.out_channels for _, layer in convolutions(network))
    n_small = sum(int((layer.weight.detach().abs() < 0.01).sum()) for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))
    print(f"{title:18s} {n_filters - sum(remaining_filters(network).values())} of {n_filters} filters are exactly zero,",
          f"{n_small} batch-norm scales are below 0.01")

# %% [markdown]
# Two comparisons keep the causes apart. The batch-norm scale also ranks the filters of the network *without* a penalty: there the
# L1 norm, the scale and filters drawn **at random** choose from the same weights. And random filters also go from the network
# that the group Lasso has trained. Whoever claims that a criterion is good has to be better than random ones from the same
# network. (About 40 seconds.)

# %%
def prune_at_random(network, fraction):
    """Silence the same fraction of every layer's filters, drawn at random."""
    generator = torch.Generator().manual_seed(0)
    kept = {layer_name: filter_l1_mask(torch.rand(layer.out_channels, 1, generator=generator), fraction)
            for layer_name, layer in prunable_convolutions(network)}
    silence_filters(network, kept)
    return kept


def prune_by_scale(network, fraction):
    """Silence the filters with the smallest batch-norm scales."""
    return prune_by_batch_norm(network, fraction, filter_l1_mask)


ways = {
    "L1 norm": ("no penalty", filter_l1_pruning), "batch-norm scale": ("no penalty", prune_by_scale),
    "random": ("no penalty", prune_at_random),
    "group Lasso": ("group Lasso", filter_l1_pruning), "group Lasso, random": ("group Lasso", prune_at_random),
    "network slimming": ("L1 on scales", prune_by_scale),
}
criteria, right = {title: [] for title in ways}, {}
for fraction in (0.25, 0.5, 0.75):
    for title, (start, prune) in ways.items():
        network = copy.deepcopy(trained[start])
        kept = without_empty(network, prune(network, fraction))
        before = evaluate(network, train_set)
        network = finetuned(network, kept, train_set, profile, epochs=plan.finetune_epochs, lr=plan.finetune_lr)
        cut = remove_pruned_filters(network.eval())
        right[title, fraction] = predict(cut, train_set).argmax(1).cpu() == train_set.test_labels
        criteria[title].append((fraction, before, right[title, fraction].double().mean().item()))
        print(f"{title:20s} {100 * fraction:.0f} % of the filters removed, {count_macs(cut, input_shape)} MACs:",
              f"accuracy {before:.4f} right after, {criteria[title][-1][2]:.4f} finetuned")
pictures.criteria(criteria)
print("accuracy above that of random filters of the same network, and its standard error on these images, sqrt(d) / n:")
for title, chance in (("L1 norm", "random"), ("batch-norm scale", "random"), ("group Lasso", "group Lasso, random")):
    for fraction in (0.25, 0.5, 0.75):
        one, other = right[title, fraction], right[chance, fraction]
        gap, d = (one.double().mean() - other.double().mean()).item(), int((one != other).sum())
        print(f"{title:18s} {100 * fraction:.0f} % removed: {gap:+.4f}, standard error {d**0.5 / len(one):.4f} (d = {d})")

# %% [markdown]
# ### The same for ResNet-20
#
# Here only inner channels may go, the first convolution of every block, so that half of "the filters" means half of the
# multiplications at most. The checkpoint has been trained without a penalty, so the criteria are the L1 norm and the batch-norm
# scale as they are. As a control, the dense network is finetuned like the others (0 %). (About 35 seconds.)

# %%
resnet_train = data.subset(n_train=plan.n_resnet_train, n_test=min(plan.n_scan, len(data.test_labels)))
dense_resnet_accuracy = evaluate(resnet, resnet_train)
resnet_results = {}
for fraction in (0.0, 0.3, 0.5):
    for title in ("L1 norm", "batch-norm scale") if fraction else ("L1 norm",):
        network = copy.deepcopy(resnet)
        kept = filter_l1_pruning(network, fraction) if title == "L1 norm" else prune_by_batch_norm(network, fraction, filter_l1_mask)
        before = evaluate(network, resnet_train)
        network = finetuned(network, kept, resnet_train, profile, epochs=1, lr=plan.finetune_lr).eval().cpu()
        small_resnet = remove_pruned_filters(network)
        resnet_results[title, fraction] = evaluate(small_resnet, resnet_train)
        share = count_macs(small_resnet, input_shape) / count_macs(resnet, input_shape)
        print(f"{title:18s} {100 * fraction:.0f} % of the inner filters removed, {100 * share:.0f} % of the MACs left: accuracy",
              f"{before:.4f} right after, {resnet_results[title, fraction]:.4f} finetuned (dense {dense_resnet_accuracy:.4f})")

# %% [markdown]
# The row with 0 % is the control: one epoch on 1280 images costs the untouched network about a point by itself, so that a pruned
# one is to be compared with *that*, not with the checkpoint.

# %%
with torch.inference_mode():
    masked_outputs, small_outputs = network(images), small_resnet(images)
print(f"largest difference between the masked and the smaller ResNet-20: {(masked_outputs - small_outputs).abs().max():.1e}")
broken = copy.deepcopy(resnet)
broken.stage1[0].conv2.weight.data[3] = 0.0
try:
    remove_pruned_filters(broken)
except ValueError as error:
    print("ValueError:", error)

# %% [markdown]
# ### Written question: what a criterion believes (3 points)
#
# 1. What does each of the three criteria take for unimportant? Give for the L1 norm and for the batch-norm scale a change of the
# network that leaves its function as it is and changes the ranking.
# 2. Compare after finetuning: criteria that choose from the same network with each other and with random filters, then networks
#    that were trained differently. Is there a winner, by more than two standard errors of a difference? What does that say about
#    the choice of the filters, and about the training before and afterwards? What does one random draw and one seed leave out?
# 3. In ResNet-20 only inner channels were removed. How would you remove a channel of the *stage*, and why does it take one joint
# score for several convolutions?

# %% [markdown] answer name=criteria points=3
# **Model answer.** 1. The L1 norm believes that a filter with small weights has a small effect. The batch-norm scale believes
# that a channel with a small $\gamma_f$ has (the normalised channel has variance 1, so $|\gamma_f|$ is its standard deviation
# before the ReLU). The group Lasso believes what the L1 norm does, but makes filters small on purpose. Changes without effect:
# multiply a filter by $c > 0$ (and, in evaluation mode, its running mean by $c$ and its running variance by $c^2$); batch norm
# divides by it again (up to $\varepsilon$), so that the L1 norm is as arbitrary as weight initialisation and decay have made
# it. Multiply $\gamma_f$ and $\beta_f$ by $c > 0$ and divide the next layer's weights for this channel by $c$: ReLU and maximum
# pass the factor on, so the function is the same and $|\gamma_f|$ another. In a network with batch norm the group Lasso is
# exposed to the first of these, too: the loss does not resist when *any* filter shrinks, needed or not, until $\varepsilon$ is
# felt. What balances it are the gradient steps: they are perpendicular to $w_f$, so that they lengthen it, and the shorter it
# is the more. (Weight decay shrinks it further.)
#
# 2. From the network without a penalty, one run of the quick profile, 50 %: L1 norm 0.41 right after and 0.858 finetuned,
# batch-norm scale 0.60 and 0.855, random 0.20 and 0.827. Right after pruning they differ a lot (partly because the batch norms
# behind still hold the old statistics); finetuning brings them together. The two criteria differ by 0.2, 0.3 and 1.1 points at
# 25, 50 and 75 %, with standard errors of 0.5 to 0.8: no winner. Random filters end 1.4, 3.1 and 2.6 points below the L1 norm,
# which is 2.6, 4.7 and 3.6 standard errors: the choice matters, but less than the finetuning. Networks trained differently: the
# penalty on the scales changes nothing beyond noise (0.863, 0.847 and 0.831 against 0.862, 0.855 and 0.832 for the same ranking
# without it), so that at this strength the ranking does the work and not the penalty. The group Lasso has cost accuracy before
# anything was cut (0.832 against 0.859 without a penalty), and cutting half of its filters adds nothing to that (0.839; random
# ones from the same network, and the emptied ones with them, 0.800). So it has done what it promises, and its price was paid
# before. One random draw and one seed leave out that another draw, or another training, moves accuracies by about a point as
# well. Liu et al. (2019) find that after *long* training the shape of the smaller network matters more than which weights it
# inherits; one epoch cannot show that.
#
# 3. Channel $f$ of a stage is written by the last convolution of every block of the stage (and by the layer before the stage),
# and read by the first convolution of every block and by the next stage. It can only go from all of them at once, so the score
# must be joint, for example the sum of the norms of filter $f$ over all convolutions that write to it; with zero-padded shortcuts
# the stages' channels depend on each other, too. (Dependency graphs find these groups: Fang et al., 2023.)
#
# **Mark scheme (3).** Beliefs of all three, with a rescaling for L1 and for $\gamma$ 1. Comparison within one network with a
# standard error and with random filters; training before kept apart from the choice 1. All writers of the channel together, a
# joint score 1.

# %% [markdown]
# ## 10. True or false?
#
# Four statements; write `True` or `False`. Your reasons are not graded here, but have one.
#
# **Statement 1.** In one layer, at equal numbers of zeros, structured pruning removes weights with a larger sum of magnitudes
# than unstructured magnitude pruning, or an equal one.

# %% exercise
# True. Unstructured magnitude pruning removes the k smallest |w| of a layer by definition, so no other set of k weights has a
# smaller sum of magnitudes. Removing whole filters is one particular other choice of k weights.
concept_1 = True

# %% [markdown]
# **Statement 2.** When half of a layer's weights go, a 2:4 mask never removes a larger sum of magnitudes than removing the half
# of the filters with the smallest norms.

# %% exercise
# False. If half of the filters are almost zero, removing them costs almost nothing, while a 2:4 mask must remove two of every
# four weights of the other filters as well.
concept_2 = False

# %% [markdown]
# **Statement 3.** In a filter that the proximal steps of the group Lasso have not removed, usually some single weights are
# exactly zero.

# %% exercise
# False. The step multiplies the whole filter by one number, so that its weights vanish together or not at all: Yuan and Lin
# (2006).
concept_3 = False

# %% [markdown]
# **Statement 4.** When half of the filters of every convolution are cut, the first convolution and the classifier keep half of
# their multiplications.

# %% exercise
# True. The first convolution still reads all channels of the image, the classifier still writes all classes; the layers between
# keep a quarter: Li et al., Pruning filters for efficient ConvNets (2017), section 3.
concept_4 = True

# %% [markdown]
# The check below sees only whether every statement has an answer. Whether the answers are right is decided when your work is
# graded.

# %% check points=5
check = Checks("concepts")
check.equal("all four are answered (whether correctly is decided when graded)",
            lambda: [type(answer).__name__ for answer in (concept_1, concept_2, concept_3, concept_4)], ["bool"] * 4,
            hint="write True or False, without quotes")
### BEGIN HIDDEN TESTS
check.equal("statement 1: sum of magnitudes", lambda: concept_1, True, hint="which set of k weights has the smallest sum?")
check.equal("statement 2: 2:4 masks", lambda: concept_2, False, hint="what if half of the filters are almost zero?")
check.equal("statement 3: group Lasso", lambda: concept_3, False, hint="what does the step multiply a filter by?")
check.equal("statement 4: half of the filters", lambda: concept_4, True, hint="what do the image and the classes lose?")
### END HIDDEN TESTS
check.score(points=5)

# %% [markdown]
# ## 11. Your results beside the published ones
#
# The published column is another ConvNet on **CIFAR-10**; in the quick profile ours is a smaller one on **Fashion-MNIST** with a
# few short epochs. Compare each column with itself: rates with rates, schedules with schedules, pruned with dense.
#
# **The same on CIFAR-10.** The full profile's ConvNet (six convolutions, 1.2 million parameters), all images, last epoch, one
# run each; 5 epochs at a constant rate, 100 epochs else:
#
# | | published | ours |
# |---|---|---|
# | a constant rate of 0.0001 | 0.3652 | 0.5047 |
# | a constant rate of 0.1 | 0.6221 | 0.5326 |
# | MultiStep, divided by 10 every 25 epochs | 0.9183 | 0.9166 |
# | cosine | 0.8599 | 0.9246 |
# | MultiStep, half of the weights gone by epoch 50 | "at or above" | 0.9113, 0.5 points below |
# | MultiStep, half of the filters gone by epoch 50 | "near" | 0.9014, 1.5 points below |
#
# At 0.0001 ours is well above the published number and at 0.1 well below it: its first epoch at 0.1 ends at 0.22. Ours has
# momentum 0.9, which makes a rate act like one ten times as large; with what the published network was trained we do not know.
# Rates can be compared within one recipe, hardly between two.
#
# With $T_{\max}$ right, the cosine is not six points worse than MultiStep but 0.8 better: the published comparison measured a
# setting (section 1), not a schedule. With MultiStep ours ends 0.2 points below the published network, about what another seed
# may do; we have not tried another recipe for it. And both ways of pruning end below the unpruned network. Their last two steps,
# at epochs 40 and 50, come when MultiStep has divided the rate by 10 and by 100: look at what the training accuracy says about
# the two. Half of the weights still fit the training images (0.989, unpruned 0.990), half of the filters no longer do (0.965).
# What would you change, the schedule of the rate or the epochs of the pruning steps?

# %%
published = {
    "learning rate 0.0001": 0.3652, "learning rate 0.1": 0.6221, "learning rate 1": 0.3992,
    "MultiStep": 0.9183, "cosine": 0.8599,
}
ours = {f"learning rate {title}": run.accuracy[-1] for title, run in sweep.items()}
ours |= {"MultiStep": fallen["MultiStep"].accuracy[-1], "cosine": fallen["cosine, T_max right"].accuracy[-1]}
ours |= {title: run.accuracy[-1] for title, run in fallen.items() if title.startswith("cosine, T") and "right" not in title}
ours |= {f"pruned while training: {title}": run.accuracy[-1] for title, run in runs.items()}
print(f"{'':40s} published (cifar10)   ours ({data.name}, {profile.name} profile)")
for title, result in ours.items():
    print(f"{title:40s} {published.get(title, '-'):>19}   {result:.4f}")
print("published for pruning, in words: filters 'near the baseline' at 50 %, single weights 'at or above' it")

# %% [markdown]
# **What to take along**
#
# - Zeros save bytes, but no time by themselves. What saves time is a smaller tensor, or a pattern that the hardware reads.
# - Removing a filter means removing a channel, with everything that belongs to it: bias, four batch-norm entries, the readers'
#   weights.
# - Half of the filters is a quarter of a middle layer's multiplications, and at a large batch time follows part of the way (on
#    our two cores 2.4 to 3 times less time for 3.9 times fewer multiplications).
# - At the same number of zeros, filters lose far more right after pruning; trained on, half of the filters and half of the
#   weights ended together here, in the quick profile; on CIFAR-10 the filters stay a point behind. But only the filters bought
#   time. Compare at equal time, or bytes, or MACs, and say which.
# - A schedule is part of the result. Plot the learning rate before you believe a comparison.
#
# ## What to read next
#
# - H. Li, A. Kadav, I. Durdanovic, H. Samet and H. P. Graf, *Pruning Filters for Efficient ConvNets*, ICLR 2017, section 3.
# - W. Wen, C. Wu, Y. Wang, Y. Chen and H. Li, *Learning Structured Sparsity in Deep Neural Networks*, NIPS 2016, section 3.
# - M. Yuan and Y. Lin, *Model Selection and Estimation in Regression with Grouped Variables*, J. R. Statist. Soc. B 68, 2006,
#   section 2.
# - Z. Liu, J. Li, Z. Shen, G. Huang, S. Yan and C. Zhang, *Learning Efficient Convolutional Networks through Network Slimming*,
#   ICCV 2017.
# - A. Mishra et al., *Accelerating Sparse Deep Neural Networks*, 2021: 2:4 in hardware.
# - Z. Liu, M. Sun, T. Zhou, G. Huang and T. Darrell, *Rethinking the Value of Network Pruning*, ICLR 2019: is it the weights that
#   are kept, or the shape?
# - G. Fang, X. Ma, M. Song, M. Bi Mi and X. Wang, *DepGraph: Towards Any Structural Pruning*, CVPR 2023: dependencies in any
#   network.
# - L. N. Smith, *Cyclical Learning Rates for Training Neural Networks*, WACV 2017, section 3.3; I. Loshchilov and F. Hutter,
#   *SGDR*, ICLR 2017.
# - S. Williams, A. Waterman and D. Patterson, *Roofline*, Communications of the ACM 52, 2009.
#
# Sections 1, 2, 4 and 5 follow programming assignment 2 of a course on machine-learning systems.
