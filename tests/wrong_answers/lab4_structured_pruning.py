"""Wrong answers to Lab 4 that students plausibly give, and correct ones that look different from the reference.

Each function is self-contained given the notebook's names. The names of other exercises are imported at the end, because
the functions above them are named like exercises too.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from course_admin.answers import correct, wrong, wrong_value
from course_utils.pruning import magnitude_mask
from course_utils.pruning.channels import channel_links, prunable_convolutions, silence_filters
from course_utils.pruning.structured_given import (
    check_convolutions,
    check_filters,
    check_groups,
    check_removable,
    convolutions,
    effective_weight,
    folded_copy,
    match_sizes,
    set_masks,
    take,
)
from course_utils.validate import check_count, check_fraction, check_nonnegative, check_vector

NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")

# --- concepts --------------------------------------------------------------------------------------------------------

wrong_value("concept_1", False, "believes that a filter of small norm has only small weights")
wrong_value("concept_2", True, "believes that the finer pattern always removes less")
wrong_value("concept_3", True, "confuses the group Lasso with the Lasso")
wrong_value("concept_4", False, "believes that every layer keeps a quarter")

# --- moving_average --------------------------------------------------------------------------------------------------


@wrong("pads with zeros, so that the ends are too small")
def moving_average(values, window):
    check_vector("values", values)
    check_count("window", window, 1, len(values))
    return np.convolve(values, np.ones(window) / window, mode="same")


@wrong("all windows that touch the values, mode full")
def moving_average(values, window):
    check_vector("values", values)
    check_count("window", window, 1, len(values))
    return np.convolve(values, np.ones(window) / window)


@wrong("a running sum that loses the first window")
def moving_average(values, window):
    check_vector("values", values)
    check_count("window", window, 1, len(values))
    total = np.cumsum(np.asarray(values, dtype=float))
    return (total[window:] - total[:-window]) / window


@wrong("an exponential average")
def moving_average(values, window):
    check_vector("values", values)
    check_count("window", window, 1, len(values))
    smooth = [float(values[0])]
    for value in values[1:]:
        smooth.append(smooth[-1] + (value - smooth[-1]) * 2 / (window + 1))
    return np.array(smooth)


@wrong("sums instead of means")
def moving_average(values, window):
    check_vector("values", values)
    check_count("window", window, 1, len(values))
    return np.convolve(values, np.ones(window), mode="valid")


@wrong("blocks next to each other instead of a sliding window")
def moving_average(values, window):
    check_vector("values", values)
    check_count("window", window, 1, len(values))
    n = len(values) // window
    return np.asarray(values, dtype=float)[: n * window].reshape(n, window).mean(axis=1)


@wrong("floors whole numbers")
def moving_average(values, window):
    check_vector("values", values)
    check_count("window", window, 1, len(values))
    sums = np.convolve(values, np.ones(window, dtype=np.asarray(values).dtype), mode="valid")
    return sums // window if np.asarray(values).dtype.kind == "i" else sums / window


@wrong("one window too few")
def moving_average(values, window):
    check_vector("values", values)
    check_count("window", window, 1, len(values))
    return np.array([np.mean(values[i : i + window]) for i in range(len(values) - window)])


@correct("a convolution with mode valid")
def moving_average(values, window):
    check_vector("values", values)
    check_count("window", window, 1, len(values))
    return np.convolve(values, np.ones(window), mode="valid") / window


@correct("a loop that returns a list")
def moving_average(values, window):
    check_vector("values", values)
    check_count("window", window, 1, len(values))
    return [float(np.mean(values[i : i + window])) for i in range(len(values) - window + 1)]


@correct("differences of a running sum that starts with 0")
def moving_average(values, window):
    check_vector("values", values)
    check_count("window", window, 1, len(values))
    total = np.concatenate([[0.0], np.cumsum(np.asarray(values, dtype=float))])
    return (total[window:] - total[:-window]) / window


# --- SparseConv2d ----------------------------------------------------------------------------------------------------


@wrong("the mask is not applied to the gradient: straight through")
class SparseConv2d(nn.Conv2d):
    def __init__(self, in_channels, out_channels, kernel_size, **options):
        super().__init__(in_channels, out_channels, kernel_size, **options)
        self.register_buffer("mask", torch.ones_like(self.weight.detach()))

    def forward(self, x):
        weight = self.weight + (self.weight * self.mask - self.weight).detach()
        return self._conv_forward(x, weight, self.bias)


@wrong("zeros the stored weight and then convolves with it")
class SparseConv2d(nn.Conv2d):
    def __init__(self, in_channels, out_channels, kernel_size, **options):
        super().__init__(in_channels, out_channels, kernel_size, **options)
        self.register_buffer("mask", torch.ones_like(self.weight.detach()))

    def forward(self, x):
        self.weight.data *= self.mask
        return self._conv_forward(x, self.weight, self.bias)


@wrong("the mask is trained")
class SparseConv2d(nn.Conv2d):
    def __init__(self, in_channels, out_channels, kernel_size, **options):
        super().__init__(in_channels, out_channels, kernel_size, **options)
        self.mask = nn.Parameter(torch.ones_like(self.weight.detach()))

    def forward(self, x):
        return self._conv_forward(x, self.weight * self.mask, self.bias)


@wrong("the mask is a plain attribute, which is neither saved nor moved")
class SparseConv2d(nn.Conv2d):
    def __init__(self, in_channels, out_channels, kernel_size, **options):
        super().__init__(in_channels, out_channels, kernel_size, **options)
        self.mask = torch.ones_like(self.weight.detach())

    def forward(self, x):
        return self._conv_forward(x, self.weight * self.mask, self.bias)


@wrong("forgets stride and padding")
class SparseConv2d(nn.Conv2d):
    def __init__(self, in_channels, out_channels, kernel_size, **options):
        super().__init__(in_channels, out_channels, kernel_size, **options)
        self.register_buffer("mask", torch.ones_like(self.weight.detach()))

    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, self.bias)


@wrong("forgets dilation and groups")
class SparseConv2d(nn.Conv2d):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.register_buffer("mask", torch.ones_like(self.weight.detach()))

    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, self.bias, self.stride, self.padding)


@wrong("forgets the bias")
class SparseConv2d(nn.Conv2d):
    def __init__(self, in_channels, out_channels, kernel_size, **options):
        super().__init__(in_channels, out_channels, kernel_size, **options)
        self.register_buffer("mask", torch.ones_like(self.weight.detach()))

    def forward(self, x):
        return F.conv2d(x, self.weight * self.mask, None, self.stride, self.padding, self.dilation, self.groups)


@wrong("masks the gradient twice over: detaches the masked weight")
class SparseConv2d(nn.Conv2d):
    def __init__(self, in_channels, out_channels, kernel_size, **options):
        super().__init__(in_channels, out_channels, kernel_size, **options)
        self.register_buffer("mask", torch.ones_like(self.weight.detach()))

    def forward(self, x):
        return self._conv_forward(x, (self.weight * self.mask).detach(), self.bias)


@wrong("a buffer that is not saved")
class SparseConv2d(nn.Conv2d):
    def __init__(self, in_channels, out_channels, kernel_size, **options):
        super().__init__(in_channels, out_channels, kernel_size, **options)
        self.register_buffer("mask", torch.ones_like(self.weight.detach()), persistent=False)

    def forward(self, x):
        return self._conv_forward(x, self.weight * self.mask, self.bias)


@correct("F.conv2d with all its arguments")
class SparseConv2d(nn.Conv2d):
    def __init__(self, in_channels, out_channels, kernel_size, **options):
        super().__init__(in_channels, out_channels, kernel_size, **options)
        self.register_buffer("mask", torch.ones(self.weight.shape))

    def forward(self, x):
        w = self.weight * self.mask
        return F.conv2d(x, w, self.bias, self.stride, self.padding, self.dilation, self.groups)


@correct("a boolean mask and torch.where")
class SparseConv2d(nn.Conv2d):
    def __init__(self, in_channels, out_channels, kernel_size, **options):
        super().__init__(in_channels, out_channels, kernel_size, **options)
        self.register_buffer("mask", torch.ones(self.weight.shape, dtype=torch.bool))

    def forward(self, x):
        weight = torch.where(self.mask, self.weight, torch.zeros_like(self.weight))
        return self._conv_forward(x, weight, self.bias)


# --- filter_l1_mask --------------------------------------------------------------------------------------------------


@wrong("mean of the signed weights instead of the sum of magnitudes")
def filter_l1_mask(weight, fraction):
    check_filters("weight", weight)
    check_fraction("fraction", fraction)
    norms = weight.detach().flatten(1).mean(1).abs()
    mask = torch.zeros(len(norms), dtype=torch.bool)
    mask[norms.argsort(descending=True, stable=True)[: len(norms) - round(fraction * len(norms))]] = True
    return mask


@wrong("norms of the input channels: the wrong axis")
def filter_l1_mask(weight, fraction):
    check_filters("weight", weight)
    check_fraction("fraction", fraction)
    norms = weight.detach().abs().transpose(0, 1).flatten(1).sum(1)
    mask = torch.zeros(len(norms), dtype=torch.bool)
    mask[norms.argsort(descending=True, stable=True)[: len(norms) - round(fraction * len(norms))]] = True
    return mask


@wrong("L2 norms")
def filter_l1_mask(weight, fraction):
    check_filters("weight", weight)
    check_fraction("fraction", fraction)
    norms = weight.detach().flatten(1).norm(dim=1)
    mask = torch.zeros(len(norms), dtype=torch.bool)
    mask[norms.argsort(descending=True, stable=True)[: len(norms) - round(fraction * len(norms))]] = True
    return mask


@wrong("rounds up")
def filter_l1_mask(weight, fraction):
    check_filters("weight", weight)
    check_fraction("fraction", fraction)
    norms = weight.detach().abs().flatten(1).sum(1)
    mask = torch.zeros(len(norms), dtype=torch.bool)
    n_removed = int(np.ceil(fraction * len(norms) - 1e-9))
    mask[norms.argsort(descending=True, stable=True)[: len(norms) - n_removed]] = True
    return mask


@wrong("rounds down")
def filter_l1_mask(weight, fraction):
    check_filters("weight", weight)
    check_fraction("fraction", fraction)
    norms = weight.detach().abs().flatten(1).sum(1)
    mask = torch.zeros(len(norms), dtype=torch.bool)
    mask[norms.argsort(descending=True, stable=True)[: len(norms) - int(fraction * len(norms))]] = True
    return mask


@wrong("keeps the small filters")
def filter_l1_mask(weight, fraction):
    check_filters("weight", weight)
    check_fraction("fraction", fraction)
    norms = weight.detach().abs().flatten(1).sum(1)
    mask = torch.zeros(len(norms), dtype=torch.bool)
    mask[norms.argsort(stable=True)[: len(norms) - round(fraction * len(norms))]] = True
    return mask


@wrong("a threshold, which removes all filters that equal it")
def filter_l1_mask(weight, fraction):
    check_filters("weight", weight)
    check_fraction("fraction", fraction)
    norms = weight.detach().abs().flatten(1).sum(1)
    n_removed = round(fraction * len(norms))
    return norms > norms.sort().values[n_removed - 1] if n_removed else torch.ones(len(norms), dtype=torch.bool)


@wrong("of equal norms the larger index is kept")
def filter_l1_mask(weight, fraction):
    check_filters("weight", weight)
    check_fraction("fraction", fraction)
    norms = weight.detach().abs().flatten(1).sum(1)
    mask = torch.ones(len(norms), dtype=torch.bool)
    mask[norms.argsort(stable=True)[: round(fraction * len(norms))]] = False
    return mask


@wrong("a mask of the weight's shape")
def filter_l1_mask(weight, fraction):
    check_filters("weight", weight)
    check_fraction("fraction", fraction)
    norms = weight.detach().abs().flatten(1).sum(1)
    mask = torch.zeros(weight.shape, dtype=torch.bool)
    mask[norms.argsort(descending=True, stable=True)[: len(norms) - round(fraction * len(norms))]] = True
    return mask


@correct("means of magnitudes: within a layer all filters have the same size")
def filter_l1_mask(weight, fraction):
    check_filters("weight", weight)
    check_fraction("fraction", fraction)
    means = weight.detach().abs().flatten(1).mean(1)
    mask = torch.zeros(len(means), dtype=torch.bool)
    mask[means.argsort(descending=True, stable=True)[: len(means) - round(fraction * len(means))]] = True
    return mask


@correct("a loop over filters")
def filter_l1_mask(weight, fraction):
    check_filters("weight", weight)
    check_fraction("fraction", fraction)
    norms = [float(one.abs().sum()) for one in weight.detach()]
    removed = sorted(range(len(norms)), key=lambda i: (norms[i], -i))[: round(fraction * len(norms))]
    return torch.tensor([i not in removed for i in range(len(norms))])


# --- filter_l1_pruning -----------------------------------------------------------------------------------------------


@wrong("batch norm left behind")
def filter_l1_pruning(model, fraction):
    check_convolutions("model", model)
    check_fraction("fraction", fraction)
    masks = {}
    for name, conv in prunable_convolutions(model):
        masks[name] = filter_l1_mask(effective_weight(conv), fraction)
        conv.weight.data[~masks[name]] = 0.0
        if conv.bias is not None:
            conv.bias.data[~masks[name]] = 0.0
    return masks


@wrong("the bias is left behind")
def filter_l1_pruning(model, fraction):
    check_convolutions("model", model)
    check_fraction("fraction", fraction)
    masks = {name: filter_l1_mask(effective_weight(conv), fraction) for name, conv in prunable_convolutions(model)}
    biases = {name: conv.bias.detach().clone() for name, conv in prunable_convolutions(model) if conv.bias is not None}
    silence_filters(model, masks)
    for name, bias in biases.items():
        model.get_submodule(name).bias.data = bias
    return masks


@wrong("prunes every convolution, those before a residual addition too")
def filter_l1_pruning(model, fraction):
    check_convolutions("model", model)
    check_fraction("fraction", fraction)
    masks = {}
    for name, conv in convolutions(model):
        masks[name] = filter_l1_mask(effective_weight(conv), fraction)
        conv.weight.data[~masks[name]] = 0.0
    silence_filters(model, {name: masks[name] for name, _ in prunable_convolutions(model)})
    return masks


@wrong("only computes the masks")
def filter_l1_pruning(model, fraction):
    check_convolutions("model", model)
    check_fraction("fraction", fraction)
    return {name: filter_l1_mask(effective_weight(conv), fraction) for name, conv in prunable_convolutions(model)}


@wrong("ranks the weights behind the mask")
def filter_l1_pruning(model, fraction):
    check_convolutions("model", model)
    check_fraction("fraction", fraction)
    masks = {name: filter_l1_mask(conv.weight, fraction) for name, conv in prunable_convolutions(model)}
    silence_filters(model, masks)
    return masks


@wrong("silences the filters that should stay")
def filter_l1_pruning(model, fraction):
    check_convolutions("model", model)
    check_fraction("fraction", fraction)
    masks = {name: ~filter_l1_mask(effective_weight(conv), fraction) for name, conv in prunable_convolutions(model)}
    silence_filters(model, masks)
    return masks


@wrong("forgets the last convolution")
def filter_l1_pruning(model, fraction):
    check_convolutions("model", model)
    check_fraction("fraction", fraction)
    masks = {name: filter_l1_mask(effective_weight(conv), fraction) for name, conv in prunable_convolutions(model)[:-1]}
    silence_filters(model, masks)
    return masks


@correct("one layer after the other")
def filter_l1_pruning(model, fraction):
    check_convolutions("model", model)
    check_fraction("fraction", fraction)
    masks = {}
    for name, conv in prunable_convolutions(model):
        masks[name] = filter_l1_mask(effective_weight(conv), fraction)
        silence_filters(model, {name: masks[name]})
    return masks


@correct("silences by hand along the links")
def filter_l1_pruning(model, fraction):
    check_convolutions("model", model)
    check_fraction("fraction", fraction)
    masks = {}
    for link in channel_links(model):
        if link.obstacle:
            continue
        conv = model.get_submodule(link.conv)
        masks[link.conv] = kept = filter_l1_mask(effective_weight(conv), fraction)
        for layer in [conv] + [model.get_submodule(norm) for norm in link.norms]:
            for tensor in (layer.weight, layer.bias):
                if tensor is not None:
                    tensor.data[~kept] = 0.0
    return masks


# --- unstructured_pruning --------------------------------------------------------------------------------------------


@wrong("prunes the classifier too")
def unstructured_pruning(model, fraction):
    check_convolutions("model", model)
    check_fraction("fraction", fraction)
    masks = {name: magnitude_mask(effective_weight(conv), fraction) for name, conv in convolutions(model)}
    set_masks(model, masks)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data *= magnitude_mask(layer.weight, fraction)
    return masks


@wrong("ranks the weights behind the mask")
def unstructured_pruning(model, fraction):
    check_convolutions("model", model)
    check_fraction("fraction", fraction)
    masks = {name: magnitude_mask(conv.weight, fraction) for name, conv in convolutions(model)}
    set_masks(model, masks)
    return masks


@wrong("sets weights to zero and forgets the layers' masks")
def unstructured_pruning(model, fraction):
    check_convolutions("model", model)
    check_fraction("fraction", fraction)
    masks = {name: magnitude_mask(effective_weight(conv), fraction) for name, conv in convolutions(model)}
    for name, conv in convolutions(model):
        conv.weight.data *= masks[name]
    return masks


@wrong("prunes only what whole filters could be removed from")
def unstructured_pruning(model, fraction):
    check_convolutions("model", model)
    check_fraction("fraction", fraction)
    masks = {name: magnitude_mask(effective_weight(conv), fraction) for name, conv in prunable_convolutions(model)}
    set_masks(model, masks)
    return masks


@wrong("one threshold for all convolutions")
def unstructured_pruning(model, fraction):
    check_convolutions("model", model)
    check_fraction("fraction", fraction)
    layers = convolutions(model)
    every = torch.cat([effective_weight(conv).flatten() for _, conv in layers])
    parts = magnitude_mask(every, fraction).split([conv.weight.numel() for _, conv in layers])
    masks = {name: part.view(conv.weight.shape) for (name, conv), part in zip(layers, parts, strict=True)}
    set_masks(model, masks)
    return masks


@wrong("removes whole filters")
def unstructured_pruning(model, fraction):
    check_convolutions("model", model)
    check_fraction("fraction", fraction)
    masks = {}
    for name, conv in convolutions(model):
        kept = filter_l1_mask(effective_weight(conv), fraction)
        masks[name] = kept.view(-1, 1, 1, 1).expand_as(conv.weight).clone()
    set_masks(model, masks)
    return masks


@wrong("returns nothing")
def unstructured_pruning(model, fraction):
    check_convolutions("model", model)
    check_fraction("fraction", fraction)
    set_masks(model, {name: magnitude_mask(effective_weight(conv), fraction) for name, conv in convolutions(model)})


@correct("one layer after the other")
def unstructured_pruning(model, fraction):
    check_convolutions("model", model)
    check_fraction("fraction", fraction)
    masks = {}
    for name, conv in convolutions(model):
        masks[name] = magnitude_mask(effective_weight(conv), fraction)
        set_masks(model, {name: masks[name]})
    return masks


@correct("writes weight and mask by hand")
def unstructured_pruning(model, fraction):
    check_convolutions("model", model)
    check_fraction("fraction", fraction)
    masks = {}
    with torch.no_grad():
        for name, conv in convolutions(model):
            masks[name] = magnitude_mask(effective_weight(conv), fraction)
            conv.weight[~masks[name]] = 0.0
            if hasattr(conv, "mask"):
                conv.mask = masks[name].to(conv.mask.dtype)
    return masks


# --- remove_pruned_filters -------------------------------------------------------------------------------------------


def _cut(model, norm_tensors=NORM_TENSORS, refuse=True, interleave=True, readers=True, bias=True, judge_copy=False):
    """The reference with single steps left out."""
    small = folded_copy(model)
    for link in channel_links(model):
        judged = small if judge_copy else model
        kept = (effective_weight(judged.get_submodule(link.conv)) != 0).flatten(1).any(1)
        if refuse:
            check_removable(model, link, kept)
        if kept.all():
            continue
        conv = small.get_submodule(link.conv)
        take(conv, "weight", kept)
        if bias:
            take(conv, "bias", kept)
        for norm in link.norms:
            for name in norm_tensors:
                take(small.get_submodule(norm), name, kept)
        for reader, positions in link.readers.items() if readers else ():
            wide = kept.repeat_interleave(positions) if interleave else kept.repeat(positions)
            take(small.get_submodule(reader), "weight", wide, dim=1)
    match_sizes(small)
    return small


@wrong("batch norm left behind")
def remove_pruned_filters(model):
    check_convolutions("model", model)
    return _cut(model, norm_tensors=())


@wrong("the running statistics are left behind")
def remove_pruned_filters(model):
    check_convolutions("model", model)
    return _cut(model, norm_tensors=("weight", "bias"))


@wrong("the next layer is left behind")
def remove_pruned_filters(model):
    check_convolutions("model", model)
    return _cut(model, readers=False)


@wrong("the bias is left behind")
def remove_pruned_filters(model):
    check_convolutions("model", model)
    return _cut(model, bias=False)


@wrong("flattened positions as if Flatten wrote position by position")
def remove_pruned_filters(model):
    check_convolutions("model", model)
    return _cut(model, interleave=False)


@wrong("refuses nothing")
def remove_pruned_filters(model):
    check_convolutions("model", model)
    return _cut(model, refuse=False)


@wrong("judges the copy that it is cutting")
def remove_pruned_filters(model):
    check_convolutions("model", model)
    return _cut(model, judge_copy=True, refuse=False)


@wrong("returns the masked network")
def remove_pruned_filters(model):
    check_convolutions("model", model)
    for link in channel_links(model):
        check_removable(model, link, (effective_weight(model.get_submodule(link.conv)) != 0).flatten(1).any(1))
    return folded_copy(model)


@wrong("cuts the model that was given")
def remove_pruned_filters(model):
    check_convolutions("model", model)
    small = _cut(model)
    for name, layer in small.named_children():
        setattr(model, name, layer)
    return small


@wrong("running mean and variance in the wrong place")
def remove_pruned_filters(model):
    check_convolutions("model", model)
    small = _cut(model)
    for layer in small.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean, layer.running_var = layer.running_mean.clone().flip(0), layer.running_var
    return small


@correct("indices instead of masks, all layers by hand")
def remove_pruned_filters(model):
    check_convolutions("model", model)
    small = folded_copy(model)
    for link in channel_links(model):
        weight = effective_weight(model.get_submodule(link.conv))
        kept = weight.abs().sum(dim=(1, 2, 3)) > 0
        check_removable(model, link, kept)
        index = kept.nonzero().flatten()
        conv = small.get_submodule(link.conv)
        conv.weight = nn.Parameter(conv.weight.data[index])
        if conv.bias is not None:
            conv.bias = nn.Parameter(conv.bias.data[index])
        for name in link.norms:
            norm = small.get_submodule(name)
            norm.weight, norm.bias = nn.Parameter(norm.weight.data[index]), nn.Parameter(norm.bias.data[index])
            norm.running_mean, norm.running_var = norm.running_mean[index], norm.running_var[index]
        for name, positions in link.readers.items():
            reader = small.get_submodule(name)
            columns = (index[:, None] * positions + torch.arange(positions)).flatten()
            reader.weight = nn.Parameter(reader.weight.data[:, columns])
    match_sizes(small)
    return small


@correct("checks first, then cuts")
def remove_pruned_filters(model):
    check_convolutions("model", model)
    links = channel_links(model)
    masks = {link.conv: effective_weight(model.get_submodule(link.conv)).ne(0).flatten(1).any(1) for link in links}
    for link in links:
        check_removable(model, link, masks[link.conv])
    small = folded_copy(model)
    for link in links:
        if link.obstacle:
            continue
        kept = masks[link.conv]
        for name in [link.conv, *link.norms]:
            for tensor in NORM_TENSORS:
                if hasattr(small.get_submodule(name), tensor):
                    take(small.get_submodule(name), tensor, kept)
        for reader, positions in link.readers.items():
            take(small.get_submodule(reader), "weight", kept.repeat_interleave(positions), 1)
    match_sizes(small)
    return small


# --- n_m_mask --------------------------------------------------------------------------------------------------------


@wrong("groups along the output axis")
def n_m_mask(weight, n=2, m=4):
    check_filters("weight", weight)
    check_groups(weight, n, m)
    if weight.shape[0] % m:
        return torch.ones_like(weight, dtype=torch.bool)
    groups = weight.detach().abs().movedim(0, -1).unflatten(-1, (-1, m))
    largest = groups.argsort(dim=-1, descending=True, stable=True)[..., :n]
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, largest, True)
    return mask.flatten(-2).movedim(-1, 0)


@wrong("groups of neighbours in memory: kernel positions of one channel")
def n_m_mask(weight, n=2, m=4):
    check_filters("weight", weight)
    check_groups(weight, n, m)
    groups = weight.detach().abs().reshape(-1, m)
    largest = groups.argsort(dim=-1, descending=True, stable=True)[:, :n]
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, largest, True)
    return mask.view(weight.shape)


@wrong("removes n of m instead of keeping them")
def n_m_mask(weight, n=2, m=4):
    check_filters("weight", weight)
    check_groups(weight, n, m)
    groups = weight.detach().abs().movedim(1, -1).unflatten(-1, (-1, m))
    smallest = groups.argsort(dim=-1, stable=True)[..., :n]
    mask = torch.ones_like(groups, dtype=torch.bool).scatter_(-1, smallest, False)
    return mask.flatten(-2).movedim(-1, 1)


@wrong("ranks signed values")
def n_m_mask(weight, n=2, m=4):
    check_filters("weight", weight)
    check_groups(weight, n, m)
    groups = weight.detach().movedim(1, -1).unflatten(-1, (-1, m))
    largest = groups.argsort(dim=-1, descending=True, stable=True)[..., :n]
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, largest, True)
    return mask.flatten(-2).movedim(-1, 1)


@wrong("a threshold: ties keep more than n")
def n_m_mask(weight, n=2, m=4):
    check_filters("weight", weight)
    check_groups(weight, n, m)
    groups = weight.detach().abs().movedim(1, -1).unflatten(-1, (-1, m))
    threshold = groups.sort(dim=-1, descending=True).values[..., n - 1 : n]
    return (groups >= threshold).flatten(-2).movedim(-1, 1)


@wrong("the largest half of each filter, not of each group")
def n_m_mask(weight, n=2, m=4):
    check_filters("weight", weight)
    check_groups(weight, n, m)
    flat = weight.detach().abs().flatten(1)
    largest = flat.argsort(dim=1, descending=True, stable=True)[:, : flat.shape[1] * n // m]
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, largest, True).view(weight.shape)


@wrong("groups are channels that lie C_in / m apart")
def n_m_mask(weight, n=2, m=4):
    check_filters("weight", weight)
    check_groups(weight, n, m)
    groups = weight.detach().abs().movedim(1, -1).unflatten(-1, (m, -1))
    largest = groups.argsort(dim=-2, descending=True, stable=True)[..., :n, :]
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-2, largest, True)
    return mask.flatten(-2).movedim(-1, 1)


@wrong("of equal magnitudes the larger index is kept")
def n_m_mask(weight, n=2, m=4):
    check_filters("weight", weight)
    check_groups(weight, n, m)
    groups = weight.detach().abs().movedim(1, -1).unflatten(-1, (-1, m))
    smallest = groups.argsort(dim=-1, stable=True)[..., : m - n]
    mask = torch.ones_like(groups, dtype=torch.bool).scatter_(-1, smallest, False)
    return mask.flatten(-2).movedim(-1, 1)


@correct("a loop over groups of channels")
def n_m_mask(weight, n=2, m=4):
    check_filters("weight", weight)
    check_groups(weight, n, m)
    mask = torch.zeros_like(weight, dtype=torch.bool)
    for start in range(0, weight.shape[1], m):
        block = weight.detach()[:, start : start + m].abs()
        largest = block.argsort(dim=1, descending=True, stable=True)[:, :n]
        mask[:, start : start + m].scatter_(1, largest, True)
    return mask


@correct("ranks by counting, in plain Python")
def n_m_mask(weight, n=2, m=4):
    check_filters("weight", weight)
    check_groups(weight, n, m)
    rows = weight.detach().movedim(1, -1)
    flat = rows.reshape(-1, m).tolist()
    kept = []
    for group in flat:
        order = sorted(range(m), key=lambda i: (-abs(group[i]), i))[:n]
        kept.append([i in order for i in range(m)])
    return torch.tensor(kept).view(rows.shape).movedim(-1, 1)


# --- group_lasso -----------------------------------------------------------------------------------------------------


@wrong("mean instead of sum over the filters")
def group_lasso(model):
    check_convolutions("model", model)
    return sum(conv.weight.flatten(1).norm(dim=1).mean() for _, conv in prunable_convolutions(model))


@wrong("squared norms: no corner at zero")
def group_lasso(model):
    check_convolutions("model", model)
    return sum(conv.weight.square().sum() for _, conv in prunable_convolutions(model))


@wrong("the root of the sum of squares, whose gradient at 0 is NaN")
def group_lasso(model):
    check_convolutions("model", model)
    return sum(conv.weight.square().sum(dim=(1, 2, 3)).sqrt().sum() for _, conv in prunable_convolutions(model))


@wrong("L1 norms: the ordinary Lasso")
def group_lasso(model):
    check_convolutions("model", model)
    return sum(conv.weight.abs().sum() for _, conv in prunable_convolutions(model))


@wrong("groups are input channels: the wrong axis")
def group_lasso(model):
    check_convolutions("model", model)
    return sum(conv.weight.transpose(0, 1).flatten(1).norm(dim=1).sum() for _, conv in prunable_convolutions(model))


@wrong("one norm for a whole layer")
def group_lasso(model):
    check_convolutions("model", model)
    return sum(conv.weight.norm() for _, conv in prunable_convolutions(model))


@wrong("detached: no gradient")
def group_lasso(model):
    check_convolutions("model", model)
    return sum(effective_weight(conv).flatten(1).norm(dim=1).sum() for _, conv in prunable_convolutions(model))


@wrong("every convolution, those before a residual addition too")
def group_lasso(model):
    check_convolutions("model", model)
    return sum(conv.weight.flatten(1).norm(dim=1).sum() for _, conv in convolutions(model))


@correct("square roots of sums of squares, filter by filter")
def group_lasso(model):
    check_convolutions("model", model)
    total = 0.0
    for _, conv in prunable_convolutions(model):
        for one in conv.weight:
            total = total + torch.linalg.vector_norm(one)
    return total


@correct("all norms in one vector")
def group_lasso(model):
    check_convolutions("model", model)
    return torch.cat([conv.weight.flatten(1).norm(p=2, dim=1) for _, conv in prunable_convolutions(model)]).sum()


# --- group_lasso_step ------------------------------------------------------------------------------------------------


@wrong("no maximum with zero: short filters turn round")
def group_lasso_step(model, threshold):
    check_convolutions("model", model)
    check_nonnegative("threshold", threshold)
    with torch.no_grad():
        for _, conv in prunable_convolutions(model):
            lengths = conv.weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1).clamp(min=1e-12)
            conv.weight.mul_(1 - threshold / lengths)


@wrong("soft thresholding of single weights")
def group_lasso_step(model, threshold):
    check_convolutions("model", model)
    check_nonnegative("threshold", threshold)
    with torch.no_grad():
        for _, conv in prunable_convolutions(model):
            conv.weight.copy_(conv.weight.sign() * (conv.weight.abs() - threshold).clamp(min=0))


@wrong("hard thresholding: long filters are not shortened")
def group_lasso_step(model, threshold):
    check_convolutions("model", model)
    check_nonnegative("threshold", threshold)
    with torch.no_grad():
        for _, conv in prunable_convolutions(model):
            conv.weight[conv.weight.flatten(1).norm(dim=1) <= threshold] = 0.0


@wrong("NaN for a filter of length 0")
def group_lasso_step(model, threshold):
    check_convolutions("model", model)
    check_nonnegative("threshold", threshold)
    with torch.no_grad():
        for _, conv in prunable_convolutions(model):
            lengths = conv.weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            conv.weight.mul_((lengths - threshold).clamp(min=0) / lengths)


@wrong("divides by the squared length")
def group_lasso_step(model, threshold):
    check_convolutions("model", model)
    check_nonnegative("threshold", threshold)
    with torch.no_grad():
        for _, conv in prunable_convolutions(model):
            squares = conv.weight.flatten(1).square().sum(1).view(-1, 1, 1, 1).clamp(min=1e-12)
            conv.weight.mul_((1 - threshold / squares).clamp(min=0))


@wrong("lengths along the wrong axis")
def group_lasso_step(model, threshold):
    check_convolutions("model", model)
    check_nonnegative("threshold", threshold)
    with torch.no_grad():
        for _, conv in prunable_convolutions(model):
            lengths = conv.weight.transpose(0, 1).flatten(1).norm(dim=1).view(1, -1, 1, 1).clamp(min=1e-12)
            conv.weight.mul_((1 - threshold / lengths).clamp(min=0))


@wrong("every convolution, those before a residual addition too")
def group_lasso_step(model, threshold):
    check_convolutions("model", model)
    check_nonnegative("threshold", threshold)
    with torch.no_grad():
        for _, conv in convolutions(model):
            lengths = conv.weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1).clamp(min=1e-12)
            conv.weight.mul_((1 - threshold / lengths).clamp(min=0))


@correct("a loop over filters")
def group_lasso_step(model, threshold):
    check_convolutions("model", model)
    check_nonnegative("threshold", threshold)
    for _, conv in prunable_convolutions(model):
        for one in conv.weight.data:
            length = float(one.norm())
            if length <= threshold:
                one.zero_()
            else:
                one.mul_(1 - threshold / length)


@correct("a tiny floor below the lengths")
def group_lasso_step(model, threshold):
    check_convolutions("model", model)
    check_nonnegative("threshold", threshold)
    with torch.no_grad():
        for _, conv in prunable_convolutions(model):
            lengths = torch.linalg.vector_norm(conv.weight, dim=(1, 2, 3), keepdim=True).clamp(min=1e-300)
            conv.weight.copy_(conv.weight * (1 - threshold / lengths).clamp(min=0.0))


# The name of another exercise that the answers above call.
from course_utils.pruning import filter_l1_mask  # noqa: E402
