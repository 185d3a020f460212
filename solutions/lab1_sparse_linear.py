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
# # Lab 1: Sparse solutions of a linear model
#
# Compressing a network means deciding which of its weights it can do without. You will meet that decision here in the
# smallest model in which it is interesting: **three measurements and five weights**. Everything can be checked by hand,
# every method fits in two lines, and nothing can hide.
#
# **What you will be able to do**
#
# - derive and implement gradient descent for a linear model, and say which of its many solutions it finds and why;
# - implement four ways to obtain zeros: pruning after every step, an L1 penalty by subgradients, an L1 penalty by proximal
#   steps, and a trimmed L1 penalty;
# - tell small weights from weights that are exactly zero, and say which method gives which;
# - measure the bias of the L1 penalty, predict it in closed form, and remove it.
#
# **What you need**: NumPy, the chain rule, matrices and eigenvalues, row space and null space. No deep learning and no GPU.
#
# **Where the numbers come from**: the data and the tasks (a) to (f) are those of homework 4 of ECE 661 at Duke University (2022), and
# "the published report" is a student's solution of it: (a) is in section 3, (b) in 4, (c) in 5, (d) in 6, (e) in 7, (f) in 8.
#
# **Time and memory**: about 3 hours. Running every cell takes well under 30 seconds and less than 500 MB of memory.
#
# **How the checks work**: after each exercise there is a cell that calls your function and shows a table of named checks:
# what was expected, what came out, and a hint. Run it as often as you like. When your work is graded, the same properties
# are checked on other inputs too, so a function that only knows the answers shown here will not pass. Each check counts the
# same within its cell, so partly right is worth something.
#
# **65 points**: 46 by checks, 19 for four written answers. Replace each `raise NotImplementedError(...)` by your code, keep
# the lines above it, and do not change the check cells.

# %%
import numpy as np

from course_utils import plots
from course_utils.sparse_linear import plots as pictures
from course_utils.checks import Checks
from course_utils.sparse_linear.given import (
    comparison_table, firm_threshold, fista, lasso_on_support, numerical_gradient, repeat_update,
    sparse_problem, three_measurements,
)
from course_utils.validate import (
    check_count, check_matrix, check_nonnegative, check_positive, check_vector,
)

plots.use_course_style()

# %% [markdown]
# ## Where this lab ends
#
# Here are three answers to one question, drawn from exact formulas. The question: which five weights explain three
# measurements? Gradient descent explains them perfectly with all five weights. An L1 penalty needs only two weights, but
# they come out too small and the measurements are no longer met. The third answer also needs only two and is exact.
#
# The formulas behind this picture have to be *told* which weights are zero. Your methods will find that out themselves.

# %%
pictures.three_answers(*three_measurements());

# %% [markdown]
# ## 1. Ten statements to begin with (11 points)
#
# Decide for each statement whether it is true or false. Some are about topics that later labs take up; numbers 4, 5 and 7
# you will have tested yourself by the end of this one, so come back to them. For the others, look things up: Han et al., *Deep
# Compression* (2016), is a start for 1 and 3, Wen et al., *Learning Structured Sparsity* (2016), for 2 and 6, BranchyNet (2016) for
# 8, BinaryConnect (2015) for 9 and HAWQ (2019) for 10. Set each variable to `True` or `False`.

# %% [markdown]
# **Statement 1, pruning and quantization.** Magnitude pruning and rounding to a grid commute: for every weight vector,
# pruning first and rounding second gives the same vector as rounding first and pruning second.

# %% exercise
# False. Take the weights (0.9, 1.1), keep the larger one, round to whole numbers. Prune, then round: (0, 1). Round, then
# prune: rounding gives (1, 1), and the tie is no longer decided by the sizes that the weights had; by index it gives (1, 0).
#
# Arguable is the usual slogan that pruning and quantization "are orthogonal". It holds in the weak sense that both can be
# applied to one network and that their savings in storage compound: Han, Mao and Dally, Deep Compression (ICLR 2016),
# sections 2 to 4. It fails in the strict sense that their errors do not interact: Harma et al., Effective Interplay
# between Sparsity and Quantization (ICLR 2025), prove that they do, and that pruning first is the better order.
concept_1 = False

# %% [markdown]
# **Statement 2, unstructured sparsity.** Set 80 % of a layer's weights, at scattered positions, to zero and keep the weight
# matrix stored as an ordinary dense matrix. The layer's matrix product then takes about a fifth of the time on a GPU.

# %% exercise
# False. A dense kernel multiplies the zeros too; the number of operations and of bytes read is unchanged. Wen et al.,
# Learning Structured Sparsity in Deep Neural Networks (NIPS 2016), figure 1, measured little or no speedup for scattered
# zeros even with sparse formats. Sparse kernels win only at high sparsity or with special code (Gale et al., Sparse GPU
# Kernels for Deep Learning, SC 2020), or for patterns that the hardware knows, such as 2 zeros in every 4 weights (Mishra
# et al., Accelerating Sparse Deep Neural Networks, 2021).
concept_2 = False

# %% [markdown]
# **Statement 3, Huffman coding.** The weights that survive pruning are float32 numbers of which hardly any two are equal.
# A Huffman code whose symbols are whole float32 values therefore saves nothing, once its code table is counted, unless the
# weights are quantized first.

# %% exercise
# True. A Huffman code gives short words to frequent symbols; when all n symbols are different, each needs about log2(n)
# bits and the code book has to store every value once more. Deep Compression codes quantized weights (few shared values,
# unevenly used) and index differences: Han, Mao and Dally (ICLR 2016), section 4.
# Arguable without the words "whole float32 values": coding only the exponent bits of trained weights does save bytes,
# because exponents repeat (Hershcovitch et al., ZipNN, 2024).
concept_3 = True

# %% [markdown]
# **Statement 4, SGD with an L1 term.** Minimise loss plus an L1 penalty by (sub)gradient steps of fixed size. The weights
# that are not needed become exactly 0.0, so no threshold has to be applied afterwards.

# %% exercise
# False. Near zero each step moves the weight by about step size times penalty, whatever its size, so that it jumps over
# zero and back. Section 6 of this lab counts: not one exact zero in 200 steps. See Duchi and Singer, Efficient Online and
# Batch Learning Using Forward Backward Splitting (JMLR 2009), section 1, and Shalev-Shwartz and Tewari, Stochastic Methods
# for l1-regularized Loss Minimization (JMLR 2011), section 1.
concept_4 = False

# %% [markdown]
# **Statement 5, soft thresholding.** Replace the subgradient steps for an L1 penalty by gradient steps followed by soft
# thresholding. In the limit of many steps the large weights are then no longer shrunk by the penalty.

# %% exercise
# False. Both methods minimise the same objective, so that they share its minimiser and its bias; soft thresholding makes
# the zeros exact and the path smooth. The bias belongs to the penalty: Fan and Li, Variable Selection via Nonconcave
# Penalized Likelihood (JASA 2001), section 2; section 7 of this lab measures it. Trimming the penalty or making it concave
# (sections 8 and 10) removes it.
concept_5 = False

# %% [markdown]
# **Statement 6, group Lasso.** With the same factor in front of every group's term, the group Lasso penalty is the L1 norm of the vector of
# the groups' (unsquared) L2 norms, and it can set all weights of a group to zero together.

# %% exercise
# True. Yuan and Lin, Model Selection and Estimation in Regression with Grouped Variables (JRSS B 2006), section 2; applied
# to filters and channels by Wen et al. (NIPS 2016), section 3.2. Usually each group's norm is weighted by the square root
# of its size. The other way round, an L2 norm of the groups' L1 norms, is a different penalty: it leaves the groups in and
# makes each of them sparse inside (the exclusive Lasso).
concept_6 = True

# %% [markdown]
# **Statement 7, proximal steps.** One step of proximal gradient descent takes a gradient step on the loss and then moves to
# the point that minimises the penalty plus a multiple of the squared distance from where that step ended.

# %% exercise
# True. Parikh and Boyd, Proximal Algorithms (2014), sections 1.1 and 4.2; Beck and Teboulle (2009), equation (1.4).
# Arguable is the usual addition that this term "makes the objective smoother" or is added to it: the squared distance
# belongs to a single step and vanishes at its fixed points, which are exactly the minimisers of loss plus penalty.
concept_7 = True

# %% [markdown]
# **Statement 8, early exit.** Adding early exits to a trained network (small classifiers after some of its inner layers)
# reduces the memory that is needed to store the network.

# %% exercise
# False. All layers stay and classifiers are added. What falls is the average computation, because easy inputs leave early:
# Teerapittayanon, McDanel and Kung, BranchyNet (ICPR 2016), section III. Kaya, Hong and Dumitras, Shallow-Deep Networks
# (ICML 2019), show that exits can also help against "overthinking" (an early right answer that later layers spoil). That
# exits cure overfitting, as is often said together with it, is a different claim and not shown by it.
concept_8 = False

# %% [markdown]
# **Statement 9, straight-through estimator.** A layer trained with a straight-through estimator computes its output with
# the quantized weights, while the optimizer updates a full-precision copy of the weights.

# %% exercise
# True. Courbariaux, Bengio and David, BinaryConnect (NIPS 2015), algorithm 1: binarize for the forward and backward pass,
# update the real-valued weights. The estimator is named in Bengio, Leonard and Courville, Estimating or Propagating
# Gradients Through Stochastic Neurons (2013): backward, the rounding is treated as the identity. The gradients
# themselves are not quantized.
concept_9 = True

# %% [markdown]
# **Statement 10, mixed precision.** With the same average number of bits per weight, giving more bits to layers that are
# sensitive to rounding and fewer to the others can reach a higher accuracy than giving all layers the same number of bits.

# %% exercise
# True. Dong et al., HAWQ (ICCV 2019), section 3, order the blocks by the top eigenvalue of their Hessian divided by their
# number of weights; Wang et al., HAQ (CVPR 2019), section 3, let reinforcement learning choose the bits. The word "can"
# matters: a badly chosen allocation is worse than a uniform one.
concept_10 = True

# %% [markdown]
# The check below sees only whether every statement has an answer, and then shows 11 of 11 points whatever the answers are. When
# your work is graded, having answered counts 1 point and each right answer 1 point.

# %% check points=11
check = Checks("concepts")
check.equal("all ten are answered (whether correctly is decided when graded)",
    lambda: [type(answer).__name__ for answer in (
        concept_1, concept_2, concept_3, concept_4, concept_5,
        concept_6, concept_7, concept_8, concept_9, concept_10)],
    ["bool"] * 10, hint="write True or False, without quotes")
### BEGIN HIDDEN TESTS
check.equal("statement 1: pruning and quantization", lambda: concept_1, False,
    hint="try the weights (0.9, 1.1)")
check.equal("statement 2: unstructured sparsity", lambda: concept_2, False,
    hint="what does a dense kernel do with a zero?")
check.equal("statement 3: Huffman coding", lambda: concept_3, True,
    hint="how often does each symbol occur?")
check.equal("statement 4: SGD with an L1 term", lambda: concept_4, False,
    hint="look at the magnified weights in section 6")
check.equal("statement 5: soft thresholding", lambda: concept_5, False,
    hint="look at the final weights in section 7")
check.equal("statement 6: group Lasso", lambda: concept_6, True,
    hint="which norm is inside, which outside?")
check.equal("statement 7: proximal steps", lambda: concept_7, True,
    hint="see the derivation in section 7")
check.equal("statement 8: early exit", lambda: concept_8, False,
    hint="which parts of the network can be thrown away?")
check.equal("statement 9: straight-through estimator", lambda: concept_9, True,
    hint="which weights must the training feel?")
check.equal("statement 10: mixed precision", lambda: concept_10, True,
    hint="are all layers equally sensitive?")
### END HIDDEN TESTS
check.score(points=11)

# %% [markdown]
# ## 2. Three measurements, five weights
#
# The whole data set:
#
# $$X = \begin{pmatrix} 1 & -2 & -1 & -1 & 1 \\ 2 & -1 & 2 & 0 & -2 \\ -1 & 0 & 2 & 2 & 1 \end{pmatrix}, \qquad
# y = \begin{pmatrix} 7 \\ 1 \\ 1 \end{pmatrix}.$$
#
# Row $x_i$ holds the five inputs of sample $i$; the model predicts $x_i w = \sum_j X_{ij} w_j$. Its **loss** is the sum of
# the squared errors (a sum, not a mean: every factor below depends on this choice),
#
# $$L(w) = \sum_{i=1}^{3} (x_i w - y_i)^2 = \lVert Xw - y \rVert^2 .$$
#
# (Text counts from 1, Python from 0: $w_2$ is `w[1]`.)
#
# Three equations for five unknowns leave a whole plane of weight vectors with zero loss. All methods of this lab search
# with the same loss; they differ in *which* zero-loss (or low-loss) vector they end at.

# %%
X, y = three_measurements()
print("X has shape", X.shape, "and rank", np.linalg.matrix_rank(X))

# %% [markdown]
# ### Exercise: `objective` (2 points)
#
# The lines that begin with `check_` refuse impossible input with a readable message; they are given everywhere in this lab.

# %% exercise
from course_utils.sparse_linear import objective

# %% check points=2
check = Checks("objective")
check.close("at w = 0 the loss is 7² + 1² + 1²", lambda: objective(X, y, np.zeros(5)), 51.0,
    atol=1e-12, hint="with w = 0 every prediction is 0")
check.close("one sample, one weight",
    lambda: objective(np.array([[2.0]]), np.array([1.0]), np.array([3.0])), 25.0, atol=1e-12,
    hint="(2 · 3 - 1)² = 25")
check.close("two equal samples count twice",
    lambda: objective(np.ones((2, 1)), np.zeros(2), np.array([3.0])), 18.0, atol=1e-12,
    hint="sum the squared errors, do not average them")
kept_y = y.copy()
check.close("weights of both signs, and the targets stay as they were",
    lambda: [float(objective(X, kept_y, np.array([1.0, -1, 0, 2, 0]))), *kept_y], [44.0, *y], atol=1e-12,
    hint="no -= on y: it belongs to the caller")
### BEGIN HIDDEN TESTS
from course_utils import sparse_linear as reference

A, b, _ = sparse_problem(7, 4, 3, 0.5, seed=101)
v = np.random.default_rng(102).normal(size=4)
check.close("random problem", lambda: objective(A, b, v), lambda: reference.objective(A, b, v),
    rtol=1e-12, hint="sum over samples of (prediction - target)²")
check.close("more weights than samples", lambda: objective(A[:2], b[:2], 10 * v),
    lambda: reference.objective(A[:2], b[:2], 10 * v), rtol=1e-12, hint="X may have any shape")
check.close("errors of both signs add up",
    lambda: objective(np.eye(2), np.array([1.0, -1.0]), np.zeros(2)), 2.0, atol=1e-12,
    hint="square each error before summing")
### END HIDDEN TESTS
check.score(points=2)

# %% [markdown]
# ## 3. The gradient, and which way is down
#
# The gradient collects the derivatives of the loss with respect to the five weights. In matrix form it is
#
# $$\nabla L(w) = 2\, X^\top (Xw - y) .$$
#
# Gradient descent with **step size** $\mu > 0$ walks against it.
#
# ### Written question: the update rule (6 points)
#
# 1. Start from $L(w) = \sum_i \bigl(\sum_j X_{ij} w_j - y_i\bigr)^2$. Differentiate with respect to *one* weight $w_k$, then
#    gather the five derivatives into the matrix form above.
# 2. Write down the update rule $w \leftarrow \ldots$ of gradient descent.
# 3. A published report of this exercise has the sign wrong, so that its rule amounts to
#    $w \leftarrow w + 2\mu X^\top (Xw - y)$. Show, with a first-order expansion of $L$, what this rule does to the loss for
#    small $\mu$.

# %% [markdown] answer name=update_rule points=6
# **Model answer**
#
# 1. Only the term $X_{ik} w_k$ of the inner sum depends on $w_k$, so by the chain rule
#
# $$\frac{\partial L}{\partial w_k} = \sum_i 2\Bigl(\sum_j X_{ij} w_j - y_i\Bigr) X_{ik} = 2 \sum_i (X^\top)_{ki}\,(Xw - y)_i .$$
#
# This is entry $k$ of $2X^\top (Xw - y)$; all entries together give $\nabla L(w) = 2X^\top (Xw - y)$.
#
# 2. Against the gradient: $w \leftarrow w - \mu \nabla L(w) = w - 2\mu X^\top (Xw - y)$, or equally
# $w \leftarrow w + 2\mu X^\top (y - Xw)$.
#
# 3. First order: $L(w + \Delta) = L(w) + \nabla L(w)^\top \Delta + O(\lVert\Delta\rVert^2)$. With
# $\Delta = +\mu\nabla L(w)$ the loss changes by $+\mu \lVert \nabla L(w) \rVert^2 + O(\mu^2)$: it grows. With the minus sign it
# falls by the same amount. (At $w = 0$: $\lVert\nabla L\rVert^2 = 1436$.) Either the sign of the step or the order of
# $Xw - y$ is the wrong way round. Since $L$ is convex, this rule never lowers the loss, for any step size.
#
# **Mark scheme**
#
# - 2 points: derivative with respect to one weight by the chain rule (1 if only the factor 2 is missing)
# - 1 point: matrix form with $X^\top$ in front
# - 1 point: update with the minus sign (or with $y - Xw$)
# - 1 point: first-order expansion with $\Delta = \pm\mu\nabla L(w)$
# - 1 point: conclusion that the wrong rule increases the loss

# %% [markdown]
# ### Exercise: `gradient` (3 points)
#
# Matrices instead of loops: `A.T` is the transpose and `A @ B` the matrix product.

# %% exercise
from course_utils.sparse_linear import gradient

# %% check points=3
check = Checks("gradient")
check.close("at w = 0", lambda: gradient(X, y, np.zeros(5)), [-16.0, 30.0, 6.0, 10.0, -12.0],
    atol=1e-12, hint="-2 X^T y; watch the factor 2 and the sign")
check.close("zero where the loss is zero", lambda: gradient(X, y, np.array([0.0, -3, 0, 0, 1])),
    np.zeros(5), atol=1e-12, hint="the error Xw - y must appear in the gradient")
check.close("one sample, one weight",
    lambda: gradient(np.array([[2.0]]), np.array([1.0]), np.array([3.0])), [20.0], atol=1e-12,
    hint="the derivative of (2w - 1)² at w = 3")
check.close("a negative target",
    lambda: gradient(np.array([[2.0]]), np.array([-1.0]), np.array([3.0])), [28.0], atol=1e-12,
    hint="the derivative of (2w + 1)² at w = 3")
kept_y = y.copy()
check.equal("a float64 array, and the targets stay as they were",
    lambda: [type(gradient(X, kept_y, np.zeros(5))).__name__, str(gradient(X, kept_y, np.zeros(5)).dtype), kept_y],
    ["ndarray", "float64", y], hint="no list, and no -= on y")
### BEGIN HIDDEN TESTS
from course_utils import sparse_linear as reference

A, b, _ = sparse_problem(6, 4, 2, 0.5, seed=201)
v = np.random.default_rng(202).normal(size=4)
check.close("random problem", lambda: gradient(A, b, v), lambda: reference.gradient(A, b, v),
    atol=1e-9, hint="2 X^T (Xw - y)")
check.close("more weights than samples", lambda: gradient(A[:2], b[:2], v),
    lambda: reference.gradient(A[:2], b[:2], v), atol=1e-9,
    hint="the gradient has one entry for each weight")
check.close("number of samples does not divide it",
    lambda: gradient(np.ones((3, 1)), np.zeros(3), np.ones(1)), [6.0], atol=1e-9,
    hint="the loss is a sum, so its gradient is one too")
### END HIDDEN TESTS
check.score(points=3)

# %% [markdown]
# **How you can check a gradient yourself.** Move one weight a little to both sides and compare the losses: the central
# difference $\bigl(L(w + h e_j) - L(w - h e_j)\bigr) / 2h$. Our loss is quadratic, so this is exact (up to rounding) for every $h$, not only
# for small ones. `numerical_gradient` does it with $h = 1$ for every weight.

# %%
def loss(w):
    """The loss of the weights w on our three measurements."""
    return objective(X, y, w)


w_test = np.array([0.5, -1.0, 0.0, 2.0, 1.0])
print("yours    ", gradient(X, y, w_test))
print("numerical", numerical_gradient(loss, w_test))

# %% [markdown]
# > **Stuck here?** Do not let one function cost you the rest of the lab. Later exercises call your `gradient`; until it
# > works, write `numerical_gradient(lambda v: objective(X, y, v), w)` in its place: slower, equally right, and every later
# > check accepts it. The same goes for the rest: `keep_largest`, `soft_threshold` and `trimmed_soft_threshold` need nothing
# > that comes before them, so you can continue with those. Pictures that compare methods raise NotImplementedError until every
# > method in them works: go on to the next cell. And leave the first part of section 10 (FISTA) until your own `gradient` works:
# > with 400 weights the replacement takes many minutes.

# %% [markdown]
# ## 4. Gradient descent
#
# From $w_0 = 0$, repeat
#
# $$w_{k+1} = w_k - \mu\, \nabla L(w_k), \qquad k = 0, \ldots, n-1 .$$
#
# Call your `gradient` in it: its first lines also notice weights that have become infinite.
#
# Your function returns the whole **path**: row $k$ of an array of shape $(n+1, d)$ holds $w_k$. So row 0 is the start and the
# last row the result; with the path in hand we can draw what happened on the way. You may write the loop yourself or use
# `repeat_update(update, start, n_steps)`, already imported, which applies your `update(w)` again and again and returns the path.
#
# ### Exercise: `gradient_descent` (4 points)

# %% exercise
from course_utils.sparse_linear import gradient_descent

# %% check points=4
check = Checks("gradient_descent")
check.equal("shape of the path", lambda: list(np.shape(gradient_descent(X, y, 0.02, 200))),
    [201, 5], hint="one row more than steps: the start counts")
check.close("starts at zero", lambda: gradient_descent(X, y, 0.02, 3)[0], np.zeros(5), atol=1e-12,
    hint="path[0] = 0")
check.close("first step", lambda: gradient_descent(X, y, 0.02, 3)[1],
    [0.32, -0.6, -0.12, -0.2, 0.24], atol=1e-9, hint="-0.02 times the gradient at zero")
# published with 8 decimals
check.close("published weights after 200 steps", lambda: gradient_descent(X, y, 0.02, 200)[-1],
    [0.74759615, -2.38942308, 0.12259615, -0.03125, 1.56490385], atol=5e-9,
    hint="use the current weights in every step; first make every check of gradient pass")
check.close("two steps on other data",
    lambda: gradient_descent(np.array([[1.0, 2], [0, 1]]), np.array([1.0, -1]), 0.1, 2),
    [[0, 0], [0.2, 0.2], [0.28, 0.12]], atol=1e-9, hint="the arguments decide, not our X; the same rule in every step")
### BEGIN HIDDEN TESTS
from course_utils import sparse_linear as reference

A, b, _ = sparse_problem(6, 4, 2, 0.5, seed=301)
mu = 0.3 / np.linalg.norm(A, 2) ** 2
check.close("random problem, whole path", lambda: gradient_descent(A, b, mu, 12),
    lambda: reference.gradient_descent(A, b, mu, 12), atol=1e-8,
    hint="row k is the weights after k steps")
check.close("more weights than samples", lambda: gradient_descent(A[:2], b[:2], mu, 9),
    lambda: reference.gradient_descent(A[:2], b[:2], mu, 9), atol=1e-8,
    hint="nothing may depend on our X")
check.close("no steps: the start alone", lambda: gradient_descent(A, b, mu, 0), np.zeros((1, 4)),
    atol=1e-12, hint="n_steps = 0 gives one row")
check.close("least squares in the end", lambda: gradient_descent(A, b, mu, 5000)[-1],
    lambda: np.linalg.lstsq(A, b, rcond=None)[0], atol=1e-8,
    hint="the step must not shrink from step to step")
### END HIDDEN TESTS
check.score(points=4)

# %%
def descent_path(step_size=0.02):
    """200 steps of gradient descent on our three measurements."""
    return gradient_descent(X, y, step_size, n_steps=200)


pictures.descent(descent_path(), loss, title="gradient descent, step size 0.02");

# %% [markdown]
# After the first steps the loss falls along a straight line (on its log scale) down to rounding errors: three measurements met to
# 15 digits. And none of the five weights is zero; the one closest to it is -0.03.
#
# ### Why these weights?
#
# Any vector with $Xw = y$ has zero loss. Let us compare three of them: the end of your path, the sparse one from the opening
# picture, and the **pseudoinverse** solution $X^+ y$, which is the shortest of all solutions.

# %%
w_sparse = np.array([0.0, -3.0, 0.0, 0.0, 1.0])
three = {"descent": descent_path()[-1], "pinv(X) y": np.linalg.pinv(X) @ y, "sparse": w_sparse}
for name, w in three.items():
    print(f"{name:10s} loss below 1e-20: {loss(w) < 1e-20}   length {np.linalg.norm(w):.4f}   "
          f"weights {w.round(8) + 0.0}")

# %% [markdown]
# Out of infinitely many, gradient descent found the shortest. One equation in two unknowns shows how that comes about:

# %%
pictures.nearest_solution(norm=2);

# %% [markdown]
# ### Written question: the shortest solution (4 points)
#
# 1. Look at the update rule. Which directions can a single step have? So which vectors can gradient descent from $w_0 = 0$
#    reach at all?
# 2. Conclude that if it converges to a solution of $Xw = y$ it converges to the shortest one.
# 3. Where would it end if it started from some other $w_0$?

# %% [markdown] answer name=minimum_norm points=4
# **Model answer**
#
# 1. Every step is $X^\top$ times a vector, namely $-2\mu X^\top(Xw_k - y)$: a combination of the rows of $X$.
# Starting from zero, every $w_k$ is of the form $X^\top c$, i.e. lies in the row space of $X$, and so does the limit.
#
# 2. Let $\hat w = X^\top c$ be the limit, with $X\hat w = y$, and $w$ any other solution. Then $n = w - \hat w$ satisfies
# $Xn = 0$ and is orthogonal to $\hat w$: $\hat w^\top n = c^\top X n = 0$. By Pythagoras
# $\lVert w\rVert^2 = \lVert \hat w\rVert^2 + \lVert n\rVert^2 > \lVert \hat w\rVert^2$. So $\hat w$ is the one shortest
# solution, which is $X^+y = X^\top (XX^\top)^{-1} y$ (here $X$ has rank 3).
#
# 3. Steps never change the part of $w_0$ that is orthogonal to the rows of $X$. The limit is
# $X^+ y + (I - X^+X)\, w_0$: the solution nearest to $w_0$.
#
# **Mark scheme**
#
# - 1 point: all steps, hence all weights reached, lie in the row space
# - 1 point: other solutions differ from the limit by a vector orthogonal to it
# - 1 point: Pythagoras, hence the shortest
# - 1 point: from another start the null-space part of $w_0$ stays, or "the solution nearest to $w_0$"

# %% [markdown]
# ### How large may the step be?
#
# Subtract a solution $w^*$ from both sides of the update. The distance to it, $e_k = w_k - w^*$, obeys
#
# $$e_{k+1} = (I - 2\mu X^\top X)\, e_k .$$
#
# Along an eigenvector of $X^\top X$ with eigenvalue $\sigma$, each step multiplies the distance by $1 - 2\mu\sigma$. That
# shrinks it exactly when $|1 - 2\mu\sigma| < 1$, so for every $\sigma > 0$ we need
#
# $$\mu < \frac{1}{\sigma_{\max}(X^\top X)} .$$
#
# (The gradient's Lipschitz constant is $\ell = 2\sigma_{\max}$; the condition is the familiar $\mu < 2/\ell$.) Close to the
# limit convergence is slow, beyond it the loss grows without bound. The factor of the *worst* eigenvalue is smallest for
# $\mu = 1/(\sigma_{\min} + \sigma_{\max})$, where $\sigma_{\min}$ is the smallest positive eigenvalue.

# %%
eigenvalues = np.linalg.eigvalsh(X.T @ X)[-3:]  # X^T X has rank 3: the other two are zero
limit = 1 / eigenvalues[-1]
best = 1 / (eigenvalues[0] + eigenvalues[-1])
print("positive eigenvalues of X^T X:", eigenvalues.round(4))
print(f"largest stable step {limit:.4f}, fastest step {best:.4f}, step of this lab 0.02")

steps = {"step 0.02": 0.02, "fastest": best}
steps |= {f"{factor} × limit": factor * limit for factor in (0.99, 1.01, 1.05)}
pictures.loss_curves({name: descent_path(step)[:101] for name, step in steps.items()}, loss);

# %% [markdown]
# ## 5. Prune after every step
#
# The direct way to two nonzero weights: never have more. After each gradient step keep the two weights of largest magnitude
# and set the others to zero. This is a **projection**: of all vectors with at most $s$ nonzero entries, the nearest to $v$
# keeps the $s$ largest $|v_j|$ (each entry set to zero costs $v_j^2$ of squared distance, so give up the smallest ones). The
# method is called projected gradient descent, or *iterative hard thresholding*; with a network in place of $X$, it is
# iterative magnitude pruning with one step between prunings, except that here weights may come back; the usual form keeps them at
# zero.
#
# $$w_{k+1} = \operatorname{keep}_s\bigl( w_k - \mu \nabla L(w_k) \bigr).$$
#
# ### Exercise: `keep_largest` (3 points)
#
# Ties need a rule, or your result depends on the sorting routine: **of equal magnitudes, the smaller index is kept**.
# `np.argsort(..., kind="stable")` leaves equal entries in their order.

# %% exercise
from course_utils.sparse_linear import keep_largest

# %% check points=3
check = Checks("keep_largest")
check.equal("keeps the two largest magnitudes",
    lambda: keep_largest(np.array([0.5, -3.0, 1.0, 2.0]), 2), [0.0, -3.0, 0.0, 2.0],
    hint="compare |w|, keep the signs")
check.equal("of equal magnitudes the smaller index stays",
    lambda: keep_largest(np.array([1.0, -1.0, 1.0]), 1), [1.0, 0.0, 0.0],
    hint="a stable sort of -|w| puts the smaller index first")
check.equal("keeping none", lambda: keep_largest(np.array([1.0, 2.0]), 0), [0.0, 0.0],
    hint="w[-0:] is all of w, not nothing")
own_weights = np.array([0.0, 2.5, 0.0, -0.5])
check.equal("zeros that are there already, and no change of the argument",
    lambda: [keep_largest(own_weights, 1), keep_largest(own_weights, 2), own_weights],
    [[0.0, 2.5, 0.0, 0.0], [0.0, 2.5, 0.0, -0.5], [0.0, 2.5, 0.0, -0.5]], hint="work on a copy; keep the numbers as they are")
### BEGIN HIDDEN TESTS
from course_utils import sparse_linear as reference

v = np.random.default_rng(401).normal(size=30)
tied = np.random.default_rng(402).integers(-2, 3, size=40).astype(float)
check.equal("random weights", lambda: keep_largest(v.copy(), 7),
    lambda: reference.keep_largest(v, 7), hint="compare magnitudes")
check.equal("many ties", lambda: keep_largest(tied.copy(), 11),
    lambda: reference.keep_largest(tied, 11),
    hint="exactly n_nonzero entries stay, the first ones among equals")
check.equal("keeping all", lambda: keep_largest(v.copy(), 30), v,
    hint="n_nonzero = len(w) changes nothing")
check.equal("how many are kept",
    lambda: [int(np.count_nonzero(keep_largest(v.copy(), n))) for n in range(31)],
    list(range(31)), hint="count again for n_nonzero = 0 and 1")
own = tied.copy()
check.equal("the argument is not changed", lambda: [keep_largest(own, 3), own][1], tied,
    hint="work on a copy")
### END HIDDEN TESTS
check.score(points=3)

# %% [markdown]
# ### Exercise: `projected_gradient_descent` (3 points)

# %% exercise
from course_utils.sparse_linear import projected_gradient_descent

# %% check points=3
check = Checks("projected_gradient_descent")
check.close("first step", lambda: projected_gradient_descent(X, y, 2, 0.02, 1),
    [[0, 0, 0, 0, 0], [0.32, -0.6, 0, 0, 0]], atol=1e-9,
    hint="gradient step first, then keep the two largest")
check.close("published weights", lambda: projected_gradient_descent(X, y, 2, 0.02, 200)[-1],
    [0, -3, 0, 0, 1], atol=1e-9, hint="decide anew in every step which weights stay; gradient must be right first")
check.equal("never more than two nonzero weights",
    lambda: int(np.count_nonzero(projected_gradient_descent(X, y, 2, 0.02, 200), axis=1).max()),
    2, hint="store the weights after the projection")
check.close("steps 6 and 7: the two change places", lambda: projected_gradient_descent(X, y, 2, 0.02, 7)[[6, 7]],
    [[0.36551080, -1.96887427, 0, 0, 0], [0, -2.11661769, 0, 0, 0.29848173]], atol=5e-9,  # rounded to 8 decimals
    hint="every weight takes the gradient step, also one that was zero")
check.close("one kept, another step size", lambda: projected_gradient_descent(X, y, 1, 0.05, 2)[2],
    [0, -2.25, 0, 0, 0], atol=1e-9, hint="use the arguments n_nonzero and step_size")
### BEGIN HIDDEN TESTS
from course_utils import sparse_linear as reference

A, b, _ = sparse_problem(6, 10, 3, 0.3, seed=503)
mu = 0.1 / np.linalg.norm(A, 2) ** 2
for kept in (3, 4, 10):
    check.close(f"random problem, {kept} kept",
        lambda kept=kept: projected_gradient_descent(A, b, kept, mu, 60),
        lambda kept=kept: reference.projected_gradient_descent(A, b, kept, mu, 60), atol=1e-8,
        hint="project the weights, not the gradient, after every step; decide anew each time")
check.close("more samples than weights",
    lambda: projected_gradient_descent(A[:, :4], b, 1, mu, 30),
    lambda: reference.projected_gradient_descent(A[:, :4], b, 1, mu, 30), atol=1e-8,
    hint="n_nonzero weights stay")
check.close("nothing kept, nothing moves", lambda: projected_gradient_descent(A, b, 0, mu, 2),
    np.zeros((3, 10)), atol=1e-12, hint="n_nonzero = 0")
### END HIDDEN TESTS
check.score(points=3)

# %%
def projected_path(n_nonzero=2):
    """200 steps of size 0.02, with n_nonzero weights kept."""
    return projected_gradient_descent(X, y, n_nonzero, step_size=0.02, n_steps=200)


print("final weights:", projected_path()[-1].round(8) + 0.0)
pictures.descent(projected_path(), loss, title="projected, 2 weights kept");

# %% [markdown]
# Two weights, zero loss: $w = (0, -3, 0, 0, 1)$. But look at the first steps. Weight $w_5$ was thrown away six times in a row,
# while $w_1$, which is not needed, was kept; the loss fell more and more slowly until the two changed places. You will come back to this
# at the end of section 8.

# %% [markdown]
# ## 6. Ask instead of force: an L1 penalty
#
# Instead of prescribing how many weights may remain, charge each weight a price in proportion to its size. With a **penalty** $\lambda \ge 0$ minimise
#
# $$F(w) = L(w) + \lambda \lVert w \rVert_1, \qquad \lVert w \rVert_1 = \sum_j |w_j| .$$
#
# Why should that give zeros? The ball of the L1 norm has corners, and the corners lie on the axes, where weights are zero. In
# the picture of section 4 with diamonds for circles, the smallest diamond that reaches the line touches it with a corner:

# %%
pictures.nearest_solution(norm=1);

# %% [markdown]
# The absolute value has no derivative at 0. A **subgradient** takes its place: $\operatorname{sign}(w_j)$, with
# $\operatorname{sign}(0) = 0$ (any number in $[-1, 1]$ would do at zero). The step becomes
#
# $$w_{k+1} = w_k - \mu \bigl( \nabla L(w_k) + \lambda \operatorname{sign}(w_k) \bigr).$$
#
# ### Exercise: `l1_subgradient_descent` (4 points)

# %% exercise
from course_utils.sparse_linear import l1_subgradient_descent

# %% check points=4
check = Checks("l1_subgradient_descent")
check.close("first step: the penalty is silent at zero",
    lambda: l1_subgradient_descent(X, y, 2.0, 0.02, 1)[1], [0.32, -0.6, -0.12, -0.2, 0.24],
    atol=1e-9, hint="sign(0) = 0, as np.sign has it")
check.close("one weight, two steps",
    lambda: l1_subgradient_descent(np.eye(1), np.ones(1), 1.0, 0.1, 2), [[0], [0.2], [0.26]],
    atol=1e-9, hint="second step: 0.2 - 0.1 (2 (0.2 - 1) + 1)")
check.close("the same with penalty 3",
    lambda: l1_subgradient_descent(np.eye(1), np.ones(1), 3.0, 0.1, 2), [[0], [0.2], [0.06]],
    atol=1e-9, hint="second step: 0.2 - 0.1 (2 (0.2 - 1) + 3)")
# 4 decimals
check.close("loss for penalty 1 after 200 steps",
    lambda: float(np.sum((y - X @ l1_subgradient_descent(X, y, 1.0, 0.02, 200)[-1]) ** 2)),
    0.1063, atol=5e-5, hint="the penalty's part is multiplied by the step size too")
### BEGIN HIDDEN TESTS
from course_utils import sparse_linear as reference

A, b, _ = sparse_problem(10, 6, 2, 0.3, seed=601)
mu = 0.2 / np.linalg.norm(A, 2) ** 2
for price in (0.7, 5.0):
    check.close(f"random problem, penalty {price}",
        lambda price=price: l1_subgradient_descent(A, b, price, mu, 15),
        lambda price=price: reference.l1_subgradient_descent(A, b, price, mu, 15), atol=1e-8,
        hint="gradient and sign are both taken at the current weights")
check.close("no penalty: gradient descent", lambda: l1_subgradient_descent(A, b, 0.0, mu, 15),
    lambda: reference.gradient_descent(A, b, mu, 15), atol=1e-8,
    hint="penalty = 0 must change nothing")
check.close("jumps over zero",
    lambda: l1_subgradient_descent(np.eye(1), np.array([0.1]), 1.0, 0.1, 3),
    [[0], [0.02], [-0.064], [0.0688]], atol=1e-9,
    hint="no weight is set to zero: it may change its sign")
### END HIDDEN TESTS
check.score(points=4)

# %%
PENALTIES = [0.2, 0.5, 1.0, 2.0]


def subgradient_path(penalty):
    """200 subgradient steps of size 0.02."""
    return l1_subgradient_descent(X, y, penalty, step_size=0.02, n_steps=200)


pictures.descent_grid({f"penalty {lam:g}": subgradient_path(lam) for lam in PENALTIES}, loss);

# %% [markdown]
# A larger penalty gives a larger loss and a rougher curve. For the three larger penalties $w_1$, $w_3$ and $w_4$ seem to vanish. Do
# they?

# %%
def print_ends(paths):
    """One line for the end of each path: loss, number of exact zeros, weights."""
    for lam, path in paths.items():
        end = "  ".join(f"{weight + 0.0:8.4f}" for weight in path[-1])
        print(f"penalty {lam:<4g} loss {loss(path[-1]):.5f}   "
              f"exact zeros: {np.sum(path[-1] == 0)}   weights {end}")


print_ends({lam: subgradient_path(lam) for lam in PENALTIES})
print("exact zeros after the start, in all 200 steps:", np.sum(subgradient_path(2.0)[1:] == 0))
halved = l1_subgradient_descent(X, y, 2.0, step_size=0.01, n_steps=400)
print("the same with half the step, twice as many: ", np.sum(halved[1:] == 0))
end = subgradient_path(2.0)[-1]
cut = np.where(np.abs(end) > 2 * 0.02 * 2.0, end, 0.0)
print(f"loss {loss(end):.4f}; with everything up to 0.08 set to zero {loss(cut):.4f}, weights {cut.round(3) + 0.0}")
pictures.near_zero({"subgradient steps, penalty 2": subgradient_path(2.0)});

# %% [markdown]
# They hover. Close to zero the penalty moves a weight by $\mu\lambda = 0.04$ per step no matter how small it is: the weight
# jumps over zero, is sent back, and jumps again. In 200 steps, **not one** weight was ever exactly zero after the start. Smaller
# steps make smaller jumps, not zeros. Whoever wants to leave something out when storing the model must choose a threshold: with
# $2\mu\lambda$, twice the jump, the three weights go, and the loss rises by 0.02.

# %% [markdown]
# ## 7. Exact zeros: the proximal step
#
# The cure is to treat the two parts of $F$ differently: a gradient step for the smooth loss, and for the penalty a step that
# is solved *exactly*. Given the point $v = w_k - \mu\nabla L(w_k)$, go to the point that has a low penalty yet stays near $v$:
#
# $$w_{k+1} = \operatorname*{argmin}_w \; \lambda \lVert w \rVert_1 + \frac{1}{2\mu} \lVert w - v \rVert^2 .$$
#
# This is the **proximal map** of $\mu\lambda\lVert\cdot\rVert_1$. Both terms are sums with one summand for each weight, so
# every weight can be found by itself:
#
# - if $w_j > 0$: $\lambda + (w_j - v_j)/\mu = 0$ gives $w_j = v_j - \mu\lambda$, which is positive only if $v_j > \mu\lambda$;
# - if $w_j < 0$: likewise $w_j = v_j + \mu\lambda$, only if $v_j < -\mu\lambda$;
# - in between, $|v_j| \le \mu\lambda$, neither is possible and the minimum sits in the kink, at $w_j = 0$ exactly.
#
# Together: shrink by $t = \mu\lambda$ towards zero and stop there. This is **soft thresholding** with threshold $t$.
#
# ### Exercise: `soft_threshold` (4 points)

# %% exercise
from course_utils.sparse_linear import soft_threshold

# %% check points=4
check = Checks("soft_threshold")
check.close("shrinks towards zero", lambda: soft_threshold(np.array([-2.0, 0.3, 1.5]), 0.5),
    [-1.5, 0.0, 1.0], atol=1e-12, hint="the sign stays, the magnitude falls by the threshold")
check.equal("exactly zero up to the threshold",
    lambda: soft_threshold(np.array([-0.5, 0.0, 0.25, 0.5]), 0.5), np.zeros(4),
    hint="a magnitude cannot become negative")
check.close("threshold 0 changes nothing",
    lambda: soft_threshold(np.array([-2.0, 0.0, 1.5]), 0.0), [-2.0, 0.0, 1.5], atol=1e-12,
    hint="shrink by nothing")
own_weights = np.array([-2.0, 0.3, 1.5])
check.close("another threshold, and no change of the argument",
    lambda: [soft_threshold(own_weights, 0.25), own_weights], [[-1.75, 0.05, 1.25], [-2.0, 0.3, 1.5]], atol=1e-12,
    hint="use the argument threshold; return a new array")
### BEGIN HIDDEN TESTS
from course_utils import sparse_linear as reference

v = np.random.default_rng(701).normal(size=60)
check.close("random weights", lambda: soft_threshold(v.copy(), 0.6),
    lambda: reference.soft_threshold(v, 0.6), atol=1e-12,
    hint="negative weights move up, positive ones down")
check.equal("which weights become zero", lambda: soft_threshold(v.copy(), 0.6) == 0,
    lambda: np.abs(v) <= 0.6, hint="exactly those with magnitude up to the threshold")
check.close("whole numbers are no problem", lambda: soft_threshold(np.array([3, -2, 0, 1]), 0.5),
    [2.5, -1.5, 0.0, 0.5], atol=1e-12, hint="the result is float64 even if w holds whole numbers")
check.close("twice is once with the sum",
    lambda: soft_threshold(soft_threshold(v.copy(), 0.3), 0.4),
    lambda: reference.soft_threshold(v, 0.7), atol=1e-12,
    hint="shrinking by 0.3 and by 0.4 is shrinking by 0.7")
own = v.copy()
check.equal("the argument is not changed", lambda: [soft_threshold(own, 0.6), own][1], v,
    hint="return a new array")
### END HIDDEN TESTS
check.score(points=4)

# %% [markdown]
# ### Exercise: `proximal_gradient_descent` (4 points)
#
# Gradient step, then soft thresholding, in every step; known as ISTA. **Mind the threshold: it is the step size times the
# penalty**, because the proximal map above belongs to $\mu\lambda\lVert\cdot\rVert_1$. The homework that this lab follows
# states the thresholds 0.004, 0.01, 0.02 and 0.04 themselves: with $\mu = 0.02$ these are the penalties
# $\lambda =$ 0.2, 0.5, 1 and 2 of section 6, and the two methods minimise the same $F$.

# %% exercise
from course_utils.sparse_linear import proximal_gradient_descent

# %% check points=4
check = Checks("proximal_gradient_descent")
check.close("first step", lambda: proximal_gradient_descent(X, y, 2.0, 0.02, 1)[1],
    [0.28, -0.56, -0.08, -0.16, 0.2], atol=1e-9,
    hint="gradient step, then shrink by 0.02 · 2 = 0.04")
# 5 decimals
check.close("loss for penalty 1 after 200 steps",
    lambda: float(np.sum((y - X @ proximal_gradient_descent(X, y, 1.0, 0.02, 200)[-1]) ** 2)),
    0.09167, atol=5e-6, hint="the threshold is step_size * penalty")
check.equal("three exact zeros for penalty 2",
    lambda: proximal_gradient_descent(X, y, 2.0, 0.02, 200)[-1] == 0,
    [True, False, True, True, False],
    hint="shrink after the gradient step, so that the zeros remain")
check.close("one weight, three steps: the whole path",
    lambda: proximal_gradient_descent(np.eye(1), np.ones(1), 0.5, 0.1, 3), [[0], [0.15], [0.27], [0.366]], atol=1e-9,
    hint="n_steps + 1 rows from zero; threshold 0.1 · 0.5; the same rule in every step, no momentum yet")
### BEGIN HIDDEN TESTS
from course_utils import sparse_linear as reference

A, b, _ = sparse_problem(12, 8, 3, 0.3, seed=801)
mu = 0.2 / np.linalg.norm(A, 2) ** 2
for price in (0.8, 6.0):
    check.close(f"random problem, penalty {price}",
        lambda price=price: proximal_gradient_descent(A, b, price, mu, 20),
        lambda price=price: reference.proximal_gradient_descent(A, b, price, mu, 20), atol=1e-8,
        hint="gradient step, then soft threshold step_size * penalty")
check.close("no penalty: gradient descent", lambda: proximal_gradient_descent(A, b, 0.0, mu, 15),
    lambda: reference.gradient_descent(A, b, mu, 15), atol=1e-8,
    hint="penalty = 0 must change nothing")
check.close("the limit does not depend on the step size",
    lambda: proximal_gradient_descent(A, b, 6.0, mu / 2, 4000)[-1],
    lambda: reference.proximal_gradient_descent(A, b, 6.0, mu, 4000)[-1], atol=1e-8,
    hint="with threshold = penalty alone it would")
check.close("a large penalty keeps everything at zero",
    lambda: proximal_gradient_descent(A, b, 1000.0, mu, 5), np.zeros((6, 8)), atol=1e-12,
    hint="the threshold exceeds every gradient step")
### END HIDDEN TESTS
check.score(points=4)

# %%
def proximal_path(penalty):
    """200 proximal steps of size 0.02."""
    return proximal_gradient_descent(X, y, penalty, step_size=0.02, n_steps=200)


pictures.descent_grid({f"penalty {lam:g}": proximal_path(lam) for lam in PENALTIES}, loss);

# %%
print_ends({lam: proximal_path(lam) for lam in PENALTIES})
pictures.near_zero({"subgradient steps, penalty 2": subgradient_path(2.0),
                    "proximal steps, penalty 2": proximal_path(2.0)});

# %% [markdown]
# Smooth curves and exact zeros. The final losses are those around which the subgradient steps swing: over the last 50 of these
# steps with penalty 1 the loss runs between 0.092 and 0.106, and with penalty 2 between 0.367 and 0.425.
#
# ### Where it converges, in closed form
#
# A point $w$ minimises $F$ exactly when moving any single weight does not pay (true for convex functions whose kinks lie along
# single weights, as here):
#
# $$\nabla L(w)_j = -\lambda \operatorname{sign}(w_j) \ \text{ where } w_j \ne 0, \qquad
# |\nabla L(w)_j| \le \lambda \ \text{ where } w_j = 0 .$$
#
# These are also exactly the fixed points of your proximal step. Let $S$ be the **support** (the indices of the nonzero
# weights), $X_S$ the columns of $X$ on it and $s$ the signs of $w_S$. The first condition reads
# $2X_S^\top (X_S w_S - y) = -\lambda s$, a linear system. If the columns of $X_S$ are independent, its solution is
#
# $$w_S = (X_S^\top X_S)^{-1} \Bigl( X_S^\top y - \frac{\lambda}{2}\, s \Bigr).$$
#
# Without $\lambda$ this is least squares on the support. The rest, $-\frac{\lambda}{2}(X_S^\top X_S)^{-1}s$, is the **bias** of
# the L1 penalty. As long as support and signs stay the same, it is there however much the data want a weight, and it grows with
# $\lambda$. (Here $X_S^\top X_S$ is diagonal and every weight shrinks; with correlated columns the bias of one weight can also push
# another one up.)

# %%
signs = np.array([0, -1, 0, 0, 1])
many = np.linspace(0.5, 2, 7)
found = np.array([proximal_path(lam)[-1] for lam in many])
predicted = np.array([lasso_on_support(X, y, lam, signs) for lam in many])
print(f"largest difference to the closed form: {np.abs(found - predicted).max():.0e}")
pictures.bias(many, found, predicted, unbiased=lasso_on_support(X, y, 0.0, signs));

# %% [markdown]
# ### Written question: the bias (4 points)
#
# 1. For our $S = \{2, 5\}$, compute $X_S^\top X_S$ and $X_S^\top y$ by hand and, from the closed form, $w_2$, $w_5$ and the loss as
#    formulas in $\lambda$. Put in $\lambda = 2$ and compare with your run.
# 2. For $\lambda = 0.2$ your formula gives a loss of 0.00367; your run of 200 steps, the length that the homework asks for, ends
#    at 0.00665. What is wrong? Look at $w_1$ in the picture of the proximal paths for penalty 0.2, and try out what you
#    suspect before you decide.

# %% [markdown] answer name=bias points=4
# **Model answer**
#
# 1. $X_S = \begin{pmatrix} -2 & 1 \\ -1 & -2 \\ 0 & 1 \end{pmatrix}$, so
# $X_S^\top X_S = \begin{pmatrix} 5 & 0 \\ 0 & 6 \end{pmatrix}$, $X_S^\top y = (-15, 6)$ and $s = (-1, 1)$. Hence
# $w_2 = (-15 + \lambda/2)/5 = -3 + \lambda/10$ and $w_5 = (6 - \lambda/2)/6 = 1 - \lambda/12$. The errors are
# $X_S(\lambda/10, -\lambda/12)$, so the loss is $5(\lambda/10)^2 + 6(\lambda/12)^2 = \frac{11}{120}\lambda^2$. For $\lambda = 2$:
# $w_2 = -2.8$, $w_5 = 0.8333$, loss $0.36667$, as in the run.
#
# 2. Nothing is wrong with the formula: 200 steps are too few. After about 30 steps the loss is small and only the penalty still
# moves the weights, along directions that $X$ does not see, at a speed proportional to $\mu\lambda$ (the straight lines in the
# picture). For $\lambda = 2$ weight $w_1$ reaches zero after 43 steps, for $\lambda = 0.2$ only after 396. With 500 steps or
# more the loss is 0.0036667. The 0.00665 is a property of stopping at 200 steps, not of the minimiser, and so is the number of
# zeros for this penalty (one instead of three).
#
# **Mark scheme**
#
# - 1 point: the two weights as functions of $\lambda$
# - 1 point: the loss, and the numbers for $\lambda = 2$
# - 1 point: not converged, shown by a longer run or by $w_1 \ne 0$
# - 1 point: the reason: only the penalty still moves the weights, at a speed proportional to $\mu\lambda$

# %% [markdown]
# ## 8. Zeros without bias: trimmed L1
#
# The bias comes from charging the large weights too. So do not: let the $h$ largest magnitudes go free and penalise only the
# rest,
#
# $$F_h(w) = L(w) + \lambda \sum_{j \,\notin\, \text{the } h \text{ largest}} |w_j| .$$
#
# The proximal map changes as you would guess: leave the $h$ largest entries of $v$ as they are and soft-threshold the others.
# (Charging an entry costs the more the larger it is, so the free places go to the $h$ largest.)
#
# ### Exercise: `trimmed_soft_threshold` (4 points)
#
# `n_free` is $h$. Ties are broken as before: of equal magnitudes, the smaller index is free.

# %% exercise
from course_utils.sparse_linear import trimmed_soft_threshold

# %% check points=4
check = Checks("trimmed_soft_threshold")
check.close("one free, three shrunk",
    lambda: trimmed_soft_threshold(np.array([0.3, -2.0, 1.0, -0.75]), 0.5, 1),
    [0.0, -2.0, 0.5, -0.25], atol=1e-12, hint="the largest magnitude stays as it is")
check.close("none free: soft thresholding",
    lambda: trimmed_soft_threshold(np.array([-2.0, 0.3, 1.5]), 0.5, 0), [-1.5, 0.0, 1.0],
    atol=1e-12, hint="w[-0:] is all of w, not nothing")
check.close("of equal magnitudes the smaller index is free",
    lambda: trimmed_soft_threshold(np.array([1.0, -1.0, 1.0]), 0.25, 1), [1.0, -0.75, 0.75],
    atol=1e-12, hint="a stable sort of -|w|")
own_weights = np.array([0.1, -0.4, 0.3, -0.75])
check.close("two free, all free, and no change of the argument",
    lambda: [trimmed_soft_threshold(own_weights, 0.5, 2), trimmed_soft_threshold(own_weights, 0.5, 4), own_weights],
    [[0, -0.4, 0, -0.75], [0.1, -0.4, 0.3, -0.75], [0.1, -0.4, 0.3, -0.75]], atol=1e-12,
    hint="rank the magnitudes before anything is shrunk; return a new array")
### BEGIN HIDDEN TESTS
from course_utils import sparse_linear as reference

v = np.random.default_rng(901).normal(size=25)
tied = np.random.default_rng(902).integers(-3, 4, size=40).astype(float)
for free in (1, 8, 25):
    check.close(f"random weights, {free} free",
        lambda free=free: trimmed_soft_threshold(v.copy(), 0.5, free),
        lambda free=free: reference.trimmed_soft_threshold(v, 0.5, free), atol=1e-12,
        hint="the n_free largest magnitudes are left alone, the others shrunk")
check.close("many ties", lambda: trimmed_soft_threshold(tied.copy(), 0.75, 9),
    lambda: reference.trimmed_soft_threshold(tied, 0.75, 9), atol=1e-12,
    hint="exactly n_free entries are free, the first ones among equals")
own = tied.copy()
check.equal("the argument is not changed", lambda: [trimmed_soft_threshold(own, 0.75, 9), own][1],
    tied, hint="return a new array")
### END HIDDEN TESTS
check.score(points=4)

# %% [markdown]
# ### Exercise: `trimmed_proximal_gradient_descent` (4 points)
#
# In every step: a gradient step, then your trimmed threshold with $t = \mu\lambda$. Which weights are free is decided anew each
# time, **after** the gradient step. The homework states the thresholds 0.02, 0.04, 0.1 and 0.2 on "the three smallest" of five
# weights: that is $\lambda =$ 1, 2, 5 and 10 with step 0.02, and `n_free = 2`.

# %% exercise
from course_utils.sparse_linear import trimmed_proximal_gradient_descent

# %% check points=4
check = Checks("trimmed_proximal_gradient_descent")
check.close("first step", lambda: trimmed_proximal_gradient_descent(X, y, 1.0, 2, 0.02, 1)[1],
    [0.32, -0.6, -0.1, -0.18, 0.22], atol=1e-9,
    hint="after the gradient step w_1 and w_2 are the largest, so they are free")
check.close("fifth step, penalty 10", lambda: trimmed_proximal_gradient_descent(X, y, 10.0, 2, 0.02, 5)[5],
    [0.32422738, -1.78672712, 0, 0, 0.54275092], atol=5e-9,  # rounded to 8 decimals
    hint="rank the weights after the gradient step, not before it")
check.close("weights for penalty 5 after 200 steps",
    lambda: trimmed_proximal_gradient_descent(X, y, 5.0, 2, 0.02, 200)[-1], [0, -3, 0, 0, 1],
    atol=1e-9, hint="choose the free weights anew in every step")
check.close("all free: gradient descent",
    lambda: trimmed_proximal_gradient_descent(X, y, 5.0, 5, 0.02, 200)[-1],
    [0.74759615, -2.38942308, 0.12259615, -0.03125, 1.56490385], atol=5e-9,
    hint="n_free = 5 leaves nothing to shrink")
check.close("another step size: the whole path", lambda: trimmed_proximal_gradient_descent(X, y, 3.0, 1, 0.05, 2),
    [[0] * 5, [0.65, -1.5, -0.15, -0.35, 0.45], [0.4, -1.92, 0, 0, 0.88]], atol=1e-9,
    hint="n_steps + 1 rows from zero; the threshold is step_size * penalty")
### BEGIN HIDDEN TESTS
from course_utils import sparse_linear as reference

A, b, _ = sparse_problem(12, 8, 3, 0.3, seed=1020)
mu = 0.2 / np.linalg.norm(A, 2) ** 2
for price, free in ((2.0, 1), (6.0, 3), (20.0, 5)):
    options = (A, b, price, free, mu, 25)
    check.close(f"random problem, penalty {price}, {free} free",
        lambda options=options: trimmed_proximal_gradient_descent(*options),
        lambda options=options: reference.trimmed_proximal_gradient_descent(*options),
        atol=1e-8, hint="gradient step, then trimmed threshold step_size * penalty")
check.close("more weights than samples",
    lambda: trimmed_proximal_gradient_descent(A[:4], b[:4], 3.0, 2, mu, 40),
    lambda: reference.trimmed_proximal_gradient_descent(A[:4], b[:4], 3.0, 2, mu, 40), atol=1e-8,
    hint="the free weights may change on the way")
check.close("none free: proximal gradient descent",
    lambda: trimmed_proximal_gradient_descent(A, b, 4.0, 0, mu, 15),
    lambda: reference.proximal_gradient_descent(A, b, 4.0, mu, 15), atol=1e-8,
    hint="n_free = 0 is the plain L1 penalty")
### END HIDDEN TESTS
check.score(points=4)

# %%
TRIMMED_PENALTIES = [1.0, 2.0, 5.0, 10.0]


def trimmed_path(penalty):
    """200 proximal steps of size 0.02, with the two largest weights free."""
    return trimmed_proximal_gradient_descent(X, y, penalty, n_free=2, step_size=0.02, n_steps=200)


print_ends({lam: trimmed_path(lam) for lam in TRIMMED_PENALTIES})
final_losses = [loss(trimmed_path(lam)[-1]) for lam in TRIMMED_PENALTIES]
print("every loss below 1e-26:", max(final_losses) < 1e-26)
pictures.descent_grid({f"penalty {lam:g}": trimmed_path(lam) for lam in TRIMMED_PENALTIES}, loss);

# %% [markdown]
# Three exact zeros, the other two weights unshrunk, and a loss below $10^{-26}$ for each of these four penalties: from zero, on
# data without noise for which two weights are enough, the penalty only decides how fast the others disappear. (For a small one,
# 0.2, 200 steps are too few.) The objective is not convex, though, and with other starts the penalty also decides *where* the run
# ends: of 60 random starts 24 ended at another pair of weights with $\lambda = 2$, 45 with $\lambda = 50$, and 46 of the projected
# runs.
#
# ### The first twenty steps

# %%
early = {
    "keep 2": projected_path(),
    "soft threshold, λ = 2": proximal_path(2.0),
    "trimmed, λ = 2": trimmed_path(2.0),
    "trimmed, λ = 10": trimmed_path(10.0),
}
pictures.descent_grid(early, loss, last_step=20)
for name, path in early.items():
    print(f"{name:22s}", "   ".join(f"step {k}: loss {loss(path[k]):7.3f}, {np.count_nonzero(path[k])} weights" for k in (3, 6, 12, 20)))

# %% [markdown]
# ### Written question: early steps (5 points)
#
# Compare the four methods of the picture over the first 20 steps. Print rows of the paths when you want numbers; what the projected
# run decided about is the vector before pruning, `w - 0.02 * gradient(X, y, w)`. About ten lines will do.
#
# 1. Both trimmed runs and the projected run start by treating the wrong pair, $w_1$ and $w_2$, as important. How does each of
#    them find out about $w_5$, and in which step does $|w_5|$ overtake $|w_1|$ (before pruning or thresholding)?
# 2. Compare the losses at steps 6 and 20, and the numbers of weights that they are reached with. Why does the projected run lag
#    behind, and does it stay behind?
# 3. How do plain soft thresholding and the trimmed run with the same $\lambda$ differ early, and how late?
# 4. What does a large $\lambda$ turn trimmed L1 into? Name one thing to consider when choosing $\lambda$ for a network.

# %% [markdown] answer name=early_steps points=5
# **Model answer**
#
# 1. After the first gradient step the magnitudes are 0.32, 0.6, 0.12, 0.2 and 0.24, so $w_1$ and $w_2$ come out
# on top. Projection sets $w_5$ to zero, and again in each of the following steps: what a single gradient step adds is all that
# $w_5$ can show, and that must beat everything $w_1$ has accumulated. It does so only in step 7 (0.298), once $w_2$ has changed
# the errors enough and $w_1$ has started to fall. Trimmed L1 only *shrinks* $w_5$ (by 0.04 per step for $\lambda = 2$), so that it
# accumulates: 0.2, 0.4, 0.62; it overtakes $w_1$ in step 3, becomes free and $w_1$ is penalised instead. For $\lambda = 10$ the
# shrinkage of 0.2 per step slows this down to step 5.
#
# 2. At step 6: projected 12.03, soft threshold 4.32, trimmed $\lambda = 2$ 2.77, trimmed $\lambda = 10$ 4.95. A part of this is not
# the method's but the number of weights: two for the projected run, four, four and three for the others. With only $w_1$ and
# $w_2$ to move, the projected run is slow: their columns nearly oppose each other ($X_S^\top X_S$ has the eigenvalues 9.5 and
# 1.5), so the loss soon falls by only 12 % a step on the way to the best fit of this pair, $(-1.43, -4.14)$ with loss 0.286,
# which is far away. $w_5$, which would lower the loss quickly, starts from zero in every step. It does not stay behind: at step 20
# it is at 0.014, trimmed $\lambda = 10$ at 0.011 and $\lambda = 2$, which still carries weights that it does not need, at 0.076.
#
# 3. Early the weights are almost alike: the largest difference is 0.04 after the first step, 0.13 after six, 0.20 after twenty. Late, soft thresholding stops at loss 0.367 since its
# penalty keeps pulling at $w_2$ and $w_5$, while the trimmed run goes on to zero loss once $w_1$ has vanished (step 39).
#
# 4. As $\lambda$ grows, everything but the $h$ largest is set to zero in each step: trimmed L1 becomes projection, with its early,
# hard to revise decisions. A small $\lambda$ lets weights compete for longer but removes the losers slowly, at a speed
# proportional to $\mu\lambda$ (step 76 for $\lambda = 1$, step 8 for $\lambda = 10$). In a network: small enough that pruned
# weights can come back early on, large enough (or growing) that the zeros are reached within the training time; and $h$ must be
# chosen, as the sparsity level of pruning must.
#
# **Mark scheme**
#
# - 1 point: projection resets $w_5$ in every step, trimming only shrinks it
# - 1 point: the steps of the overtaking (7; 3; 5)
# - 1 point: the losses at step 6; only the wrong pair may move, and it moves slowly; caught up by step 20
# - 1 point: soft thresholding is alike early and biased in the end
# - 1 point: a large $\lambda$ approaches projection, with a sensible consideration for choosing it

# %% [markdown]
# ## 9. Move the penalty yourself
#
# Choose a method, drag the slider. Try to find: the penalty at which soft thresholding gives up $w_5$ (does the closed form
# agree?); the smallest penalty for which 200 trimmed steps reach a loss of $10^{-12}$; and what subgradient steps do at 10.

# %%
from course_utils.sparse_linear.widgets import penalty_explorer

methods = {"soft threshold": proximal_path, "trimmed, 2 free": trimmed_path,
           "subgradient": subgradient_path}
penalty_explorer(methods, loss, penalty=1.0)

# %% [markdown]
# ## 10. Beyond the homework
#
# ### Momentum: FISTA
#
# A hundred samples, four hundred weights, fifteen of which generated the data. Your `proximal_gradient_descent` handles this too,
# but slowly: theory promises an error that falls like $1/k$. **FISTA** looks ahead before each proximal step
# $w_{k+1} = \operatorname{soft}_{\mu\lambda}(v_k - \mu\nabla L(v_k))$, with $v_0 = w_0$ and $t_0 = 1$:
#
# $$v_k = w_k + \frac{t_{k-1} - 1}{t_k}\,(w_k - w_{k-1}), \qquad t_{k+1} = \tfrac12\bigl(1 + \sqrt{1 + 4t_k^2}\bigr),$$
#
# and earns $1/k^2$ for the price of one vector addition. With step $\mu = 1/\ell$ and from $w_0 = 0$ the guarantees are
#
# $$F(w_k) - F(w^*) \le \frac{\lVert w^*\rVert^2}{2\mu k} \ \text{(ISTA)}, \qquad
# F(w_k) - F(w^*) \le \frac{2\lVert w^*\rVert^2}{\mu (k+1)^2} \ \text{(FISTA)}.$$
#
# For the optimum $w^*$ we ask scikit-learn, which solves the same problem by coordinate descent. It minimises
# $\frac{1}{2n}\lVert Xw - y\rVert^2 + \alpha\lVert w\rVert_1$, so its $\alpha$ is $\lambda/(2n)$.

# %%
from sklearn.linear_model import Lasso

X_big, y_big, w_true = sparse_problem(n_samples=100, n_weights=400, n_nonzero=15, noise=0.1, seed=1)
penalty = 5.0
step = 1 / (2 * np.linalg.norm(X_big, 2) ** 2)  # 1 / (Lipschitz constant of the gradient)
oracle = Lasso(alpha=penalty / (2 * len(y_big)), fit_intercept=False, tol=1e-14, max_iter=100_000)
exact = oracle.fit(X_big, y_big).coef_
print("nonzero weights in the exact solution:", np.count_nonzero(exact),
      " all 15 true ones among them:", bool(np.all(exact[w_true != 0])))

# %%
def big_paths(n_steps=1000):
    """The paths of ISTA (your function) and of FISTA on the large problem."""
    ista = proximal_gradient_descent(X_big, y_big, penalty, step, n_steps)
    momentum = fista(gradient=lambda w: gradient(X_big, y_big, w),
                     prox=lambda v: soft_threshold(v, step * penalty),
                     start=np.zeros(400), step_size=step, n_steps=n_steps)
    return {"ISTA": ista, "FISTA": momentum}


for name, path in big_paths().items():
    print(f"{name:5s} after 1000 steps: {np.count_nonzero(path[-1])} nonzero weights, "
          f"largest difference to scikit-learn's {np.abs(path[-1] - exact).max():.0e}")

# %%
def penalised(w):
    """The objective F on the large problem."""
    return objective(X_big, y_big, w) + penalty * np.abs(w).sum()


k = np.arange(1, 1001)
gaps = {name: np.array([penalised(w) for w in path[1:]]) - penalised(exact)
        for name, path in big_paths().items()}
distance = exact @ exact  # squared, from the start at zero
bounds = {"ISTA": distance / (2 * step * k), "FISTA": 2 * distance / (step * (k + 1) ** 2)}
pictures.suboptimality(gaps, bounds);

# %% [markdown]
# FISTA is ahead by orders of magnitude from about step 70 on, and its error is not monotone: momentum overshoots. Both stay below
# their guarantees. Notice two more things. The answer has twice as many nonzero weights as generated the data: L1 finds the
# right ones and adds small false ones. And the end of ISTA is much faster than $1/k$: as the support shrinks to some thirty weights,
# the problem becomes a well-conditioned one, and from about step 715, when the support is final, the gap falls at a fixed rate.
#
# ### Which method finds the weights?
#
# On three measurements pruning once at the end would have done: the two largest weights of gradient descent are the right ones from
# step 3 on. Here is the question again where it is hard: fifteen weights of four hundred, on five data sets. *Prune once*: gradient
# descent, keep the fifteen largest, least squares on them. **Which method do you expect to find most of them?**

# %%
def compared(seed):
    """Final weights of five methods on one large problem, and the true ones."""
    A, b, truth = sparse_problem(n_samples=100, n_weights=400, n_nonzero=15, noise=0.1, seed=seed)
    mu = 1 / (2 * np.linalg.norm(A, 2) ** 2)
    largest = np.flatnonzero(keep_largest(gradient_descent(A, b, mu, 1000)[-1], 15))
    pruned = np.zeros(400)
    pruned[largest] = np.linalg.lstsq(A[:, largest], b, rcond=None)[0]
    return {
        "prune once, refit": pruned,
        "keep 15 in every step": projected_gradient_descent(A, b, 15, mu, 1000)[-1],
        "L1, λ = 5": proximal_gradient_descent(A, b, 5.0, mu, 1000)[-1],
        "trimmed, λ = 20": trimmed_proximal_gradient_descent(A, b, 20.0, 15, mu, 1000)[-1],
        "trimmed, λ = 1000": trimmed_proximal_gradient_descent(A, b, 1000.0, 15, mu, 1000)[-1],
    }, truth


ends = [compared(seed) for seed in range(1, 6)]
print("of the 15 true weights found, in five data sets       nonzero weights       largest distance to the truth")
for name in ends[0][0]:
    paths = [(methods[name], truth) for methods, truth in ends]
    found = [int(np.sum((w != 0) & (truth != 0))) for w, truth in paths]
    counts = [int(np.count_nonzero(w)) for w, _ in paths]
    print(f"{name:22s} {str(found):30s} {str(counts):24s} {max(np.linalg.norm(w - truth) for w, truth in paths):.3f}")

# %% [markdown]
# Now it matters. Pruning once, and pruning hard in every step, decide with little information: with weights that are small because
# nothing has been fitted yet. Methods that shrink instead of reset let weights come back; trimming finds all fifteen and nothing
# else, if it knows how many they are and does not shrink too fast (at $\lambda = 1000$ it *is* hard pruning).
#
# ### Another cure of the bias: MCP
#
# Trimming has to be told how many weights are free. The **minimax concave penalty** decides by size instead: its slope is
# $\lambda$ at zero, falls linearly and reaches zero at a cutoff $c$; beyond it, weights cost nothing more,
#
# $$P'(w) = \operatorname{sign}(w)\,\lambda \max\bigl(0,\, 1 - |w|/c\bigr).$$
#
# Its proximal map is the **firm threshold**: zero up to $t = \mu\lambda$, the identity from $c$ on, a straight line in between
# (for $c > t$).

# %%
pictures.threshold_functions(
    {
        "hard (pruning)": lambda v: np.where(np.abs(v) > 1, v, 0),
        "soft (L1)": lambda v: soft_threshold(v, 1.0),
        "firm (MCP)": lambda v: firm_threshold(v, threshold=1.0, cutoff=2.0),
    },
    marks={"t": 1.0, "c": 2.0},
);

# %% [markdown]
# On our data, with $\lambda = 2$. A cutoff of 1 is not larger than the magnitude of either weight of the solution, so none of them is shrunk:

# %%
def mcp_path(cutoff):
    """200 steps of size 0.02 with penalty 2, each followed by the firm threshold."""

    def update(w):
        return firm_threshold(w - 0.02 * gradient(X, y, w), threshold=0.02 * 2.0, cutoff=cutoff)

    return repeat_update(update, np.zeros(5), n_steps=200)


for cutoff in (0.2, 1.0, 3.0):
    end = mcp_path(cutoff)[-1]
    shown = "below 1e-26" if loss(end) < 1e-26 else f"{loss(end):.5f}"
    print(f"cutoff {cutoff:<4g} loss {shown:12s} weights {end.round(4) + 0.0}")

# %% [markdown]
# There is no free lunch. With a small cutoff the unneeded $w_1$ soon passes it and is not penalised at all; only the loss pulls it
# back, slowly (still 0.48 after 200 steps, exactly zero after 1000). With a large cutoff the penalty charges $w_5$ for good: that
# bias does not go away. And neither MCP nor trimmed L1 is convex, so in general where you end may depend on where you start.

# %% [markdown]
# ## 11. Your results beside the published ones

# %%
# NBVAL_CHECK_OUTPUT: this table must come out the same on every machine
def decimals(values, n):
    """Numbers with n decimals, separated by slashes."""
    return " / ".join(f"{value + 0.0:.{n}f}" for value in values)


subgradient_losses = [loss(subgradient_path(lam)[-1]) for lam in PENALTIES]
proximal_losses = [loss(proximal_path(lam)[-1]) for lam in PENALTIES]
trimmed_loss = max(loss(trimmed_path(lam)[-1]) for lam in TRIMMED_PENALTIES)
rows = [
    ("(b) descent, w1 to w3", "0.74759615 / -2.38942308 / 0.12259615",
     decimals(descent_path()[-1, :3], 8)),
    ("    descent, w4 and w5", "-0.03125000 / 1.56490385", decimals(descent_path()[-1, 3:], 8)),
    ("(c) projected, w", "0 / -3 / 0 / 0 / 1", decimals(projected_path()[-1].round(8), 0)),
    ("(d) subgradient, loss", "grows with the penalty", decimals(subgradient_losses[:2], 5)),
    ("    for larger penalties", "and is less smooth", decimals(subgradient_losses[2:], 4)),
    ("(e) proximal, loss", "as in (d), smooth", decimals(proximal_losses, 5)),
    ("(f) trimmed, w", "", decimals(trimmed_path(1.0)[-1].round(8), 0)),
    ("    largest of four losses", "much lower",
     "below 1e-26" if trimmed_loss < 1e-26 else f"{trimmed_loss:.0e}"),
]
print(comparison_table(rows))

# %% [markdown]
# The published report gives numbers for (b) and (c) and describes the rest in words. Three remarks on it. Its update rule (a) has
# the wrong sign (section 3), although its numbers were obtained with the right one. The losses of (e) are close to those of (d)
# but not the same: with penalty 1 the hovering weights of (d) cost 0.1063 after 200 steps against 0.0917, and this number is an
# accident of stopping at step 200 (section 7). And the first loss of (e) is not what
# the closed form gives: see your answer in section 7.
#
# **What to take along**
#
# - The method chooses among equally good solutions. Gradient descent from zero chooses the shortest; nothing makes that sparse.
# - Small is not zero. Subgradient steps make weights small; projection and proximal steps make them zero.
# - L1 buys zeros with a bias that you can compute. Trimming and MCP can remove it, if their own numbers ($h$, the cutoff) fit.
# - Early pruning decisions are made with little information. Where many weights compete, methods that shrink instead of reset find
#   the right ones; on an easy problem anything does.
#
# ## What to read next
#
# - S. Boyd and L. Vandenberghe, *Convex Optimization* (2004), section 9.3: gradient descent and its rate.
# - T. Hastie, R. Tibshirani and J. Friedman, *The Elements of Statistical Learning* (2nd ed., 2009), section 3.4: L1 and its path.
# - R. Tibshirani, *Regression Shrinkage and Selection via the Lasso*, JRSS B 58 (1996), section 2: why diamonds have corners.
# - T. Blumensath and M. Davies, *Iterative Hard Thresholding for Compressed Sensing*, ACHA 27 (2009), section 2.
# - N. Parikh and S. Boyd, *Proximal Algorithms* (2014), sections 1.1, 4.2 and 6.5.
# - A. Beck and M. Teboulle, *A Fast Iterative Shrinkage-Thresholding Algorithm for Linear Inverse Problems*, SIAM J. Imaging Sci. 2
#   (2009), sections 3 and 4: both rates, with proofs.
# - J. Fan and R. Li, *Variable Selection via Nonconcave Penalized Likelihood*, JASA 96 (2001), section 2: the bias, and SCAD.
# - C.-H. Zhang, *Nearly Unbiased Variable Selection under Minimax Concave Penalty*, Ann. Stat. 38 (2010), section 2.
# - J. Yun, P. Zheng, E. Yang, A. Lozano and A. Aravkin, *Trimming the L1 Regularizer*, ICML 2019, with deep networks as examples.
#
# Data and tasks (a) to (f) follow homework 4 of ECE 661, Duke University (2022).
