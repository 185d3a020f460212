"""Wrong answers to Lab 2 that students plausibly give, and correct ones that look different from the reference.

Each function is self-contained given the notebook's names. The names of other exercises are imported at the end, because
the functions above them are named like exercises too.
"""

import torch

from course_admin.answers import correct, wrong
from course_utils import profiles
from course_utils.pruning.given import WrappedOptimizer, apply_masks, check_weight
from course_utils.pruning.sweeps import Finetuner
from course_utils.resnet import weighted_layers
from course_utils.validate import check_count, check_fraction

# --- magnitude_mask --------------------------------------------------------------------------------------------------


@wrong("rounds down instead of to the nearest")
def magnitude_mask(weight, sparsity):
    check_weight("weight", weight)
    check_fraction("sparsity", sparsity)
    n_kept = weight.numel() - int(sparsity * weight.numel())
    order = weight.detach().abs().flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(weight.numel(), dtype=torch.bool)
    mask[order[:n_kept]] = True
    return mask.view(weight.shape)


@wrong("rounds up instead of to the nearest")
def magnitude_mask(weight, sparsity):
    check_weight("weight", weight)
    check_fraction("sparsity", sparsity)
    n_kept = weight.numel() - -int(-sparsity * weight.numel() // 1)
    order = weight.detach().abs().flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(weight.numel(), dtype=torch.bool)
    mask[order[:n_kept]] = True
    return mask.view(weight.shape)


@wrong("rounds halves up")
def magnitude_mask(weight, sparsity):
    check_weight("weight", weight)
    check_fraction("sparsity", sparsity)
    n_kept = weight.numel() - int(sparsity * weight.numel() + 0.5)
    order = weight.detach().abs().flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(weight.numel(), dtype=torch.bool)
    mask[order[:n_kept]] = True
    return mask.view(weight.shape)


@wrong("a threshold that removes every weight equal to it")
def magnitude_mask(weight, sparsity):
    check_weight("weight", weight)
    check_fraction("sparsity", sparsity)
    n_pruned = round(sparsity * weight.numel())
    if n_pruned == 0:
        return torch.ones_like(weight, dtype=torch.bool)
    threshold = weight.detach().abs().flatten().sort().values[n_pruned - 1]
    return ~(weight.detach().abs() <= threshold)


@wrong("an interpolated quantile as threshold, as in np.percentile")
def magnitude_mask(weight, sparsity):
    check_weight("weight", weight)
    check_fraction("sparsity", sparsity)
    magnitude = weight.detach().abs()
    return magnitude >= torch.quantile(magnitude.flatten(), sparsity)


@wrong("mask of the complement: True where removed")
def magnitude_mask(weight, sparsity):
    check_weight("weight", weight)
    check_fraction("sparsity", sparsity)
    order = weight.detach().abs().flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(weight.numel(), dtype=torch.bool)
    mask[order[weight.numel() - round(sparsity * weight.numel()) :]] = True
    return mask.view(weight.shape)


@wrong("ranks the signed values: removes the most negative weights")
def magnitude_mask(weight, sparsity):
    check_weight("weight", weight)
    check_fraction("sparsity", sparsity)
    n_kept = weight.numel() - round(sparsity * weight.numel())
    order = weight.detach().flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(weight.numel(), dtype=torch.bool)
    mask[order[:n_kept]] = True
    return mask.view(weight.shape)


@wrong("takes percentages from 0 to 100")
def magnitude_mask(weight, sparsity):
    check_weight("weight", weight)
    n_kept = weight.numel() - round(sparsity / 100 * weight.numel())
    order = weight.detach().abs().flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(weight.numel(), dtype=torch.bool)
    mask[order[:n_kept]] = True
    return mask.view(weight.shape)


@wrong("of equal magnitudes the larger index is kept")
def magnitude_mask(weight, sparsity):
    check_weight("weight", weight)
    check_fraction("sparsity", sparsity)
    order = weight.detach().abs().flatten().argsort(stable=True)
    mask = torch.ones(weight.numel(), dtype=torch.bool)
    mask[order[: round(sparsity * weight.numel())]] = False
    return mask.view(weight.shape)


@wrong("a flat mask")
def magnitude_mask(weight, sparsity):
    check_weight("weight", weight)
    check_fraction("sparsity", sparsity)
    n_kept = weight.numel() - round(sparsity * weight.numel())
    order = weight.detach().abs().flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(weight.numel(), dtype=torch.bool)
    mask[order[:n_kept]] = True
    return mask


@wrong("zeros the argument itself")
def magnitude_mask(weight, sparsity):
    check_weight("weight", weight)
    check_fraction("sparsity", sparsity)
    n_kept = weight.numel() - round(sparsity * weight.numel())
    order = weight.detach().abs().flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(weight.numel(), dtype=torch.bool)
    mask[order[:n_kept]] = True
    weight.data.view(-1)[order[n_kept:]] = 0.0
    return mask.view(weight.shape)


@wrong("loses every n_kept = 0 and n_pruned = 0: a negative slice")
def magnitude_mask(weight, sparsity):
    check_weight("weight", weight)
    check_fraction("sparsity", sparsity)
    n_kept = weight.numel() - round(sparsity * weight.numel())
    order = weight.detach().abs().flatten().flip(0).argsort(stable=True)
    mask = torch.zeros(weight.numel(), dtype=torch.bool)
    mask[weight.numel() - 1 - order[-n_kept:]] = True
    return mask.view(weight.shape)


@wrong("zeros and ones instead of booleans")
def magnitude_mask(weight, sparsity):
    check_weight("weight", weight)
    check_fraction("sparsity", sparsity)
    n_pruned = round(sparsity * weight.numel())
    order = weight.detach().abs().flatten().argsort(descending=True, stable=True)
    mask = torch.ones(weight.numel())
    mask[order[weight.numel() - n_pruned :]] = 0.0
    return mask.view(weight.shape)


@wrong("takes magnitudes in place")
def magnitude_mask(weight, sparsity):
    check_weight("weight", weight)
    check_fraction("sparsity", sparsity)
    order = weight.detach().abs_().flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(weight.numel(), dtype=torch.bool)
    mask[order[: weight.numel() - round(sparsity * weight.numel())]] = True
    return mask.view(weight.shape)


@correct("a loop over sorted indices")
def magnitude_mask(weight, sparsity):
    check_weight("weight", weight)
    check_fraction("sparsity", sparsity)
    magnitudes = weight.detach().abs().flatten().tolist()
    n_pruned = round(sparsity * len(magnitudes))
    removed = sorted(range(len(magnitudes)), key=lambda i: (magnitudes[i], -i))[:n_pruned]
    mask = torch.ones(len(magnitudes), dtype=torch.bool)
    for i in removed:
        mask[i] = False
    return mask.reshape(weight.shape)


@correct("a stable sort of the reversed magnitudes")
def magnitude_mask(weight, sparsity):
    check_weight("weight", weight)
    check_fraction("sparsity", sparsity)
    n = weight.numel()
    order = n - 1 - weight.detach().abs().reshape(-1).flip(0).argsort(stable=True)
    mask = torch.ones_like(weight, dtype=torch.bool)
    mask.view(-1)[order[: round(n * sparsity)]] = False
    return mask


@correct("squares instead of magnitudes")
def magnitude_mask(weight, sparsity):
    check_weight("weight", weight)
    check_fraction("sparsity", sparsity)
    n_kept = weight.numel() - round(sparsity * weight.numel())
    order = (-(weight.detach().flatten() ** 2)).argsort(stable=True)
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order))
    return (ranks < n_kept).view(weight.shape)


# --- prune_by_percentage ---------------------------------------------------------------------------------------------


@wrong("computes the masks but leaves the weights")
def prune_by_percentage(model, sparsity):
    check_fraction("sparsity", sparsity)
    return {name: magnitude_mask(layer.weight, sparsity) for name, layer in weighted_layers(model)}


@wrong("prunes the biases too")
def prune_by_percentage(model, sparsity):
    check_fraction("sparsity", sparsity)
    masks = {name: magnitude_mask(layer.weight, sparsity) for name, layer in weighted_layers(model)}
    apply_masks(model, masks)
    for _, layer in weighted_layers(model):
        if layer.bias is not None:
            layer.bias.data *= magnitude_mask(layer.bias, sparsity)
    return masks


@wrong("prunes every parameter, batch norm included")
def prune_by_percentage(model, sparsity):
    check_fraction("sparsity", sparsity)
    for parameter in model.parameters():
        parameter.data *= magnitude_mask(parameter, sparsity)
    return {name: layer.weight.detach() != 0 for name, layer in weighted_layers(model)}


@wrong("keeps the small weights: inverted mask")
def prune_by_percentage(model, sparsity):
    check_fraction("sparsity", sparsity)
    masks = {name: ~magnitude_mask(layer.weight, 1 - sparsity) for name, layer in weighted_layers(model)}
    apply_masks(model, masks)
    return masks


@wrong("works on a copy")
def prune_by_percentage(model, sparsity):
    check_fraction("sparsity", sparsity)
    import copy

    pruned = copy.deepcopy(model)
    masks = {name: magnitude_mask(layer.weight, sparsity) for name, layer in weighted_layers(pruned)}
    apply_masks(pruned, masks)
    return masks


@wrong("skips the classifier")
def prune_by_percentage(model, sparsity):
    check_fraction("sparsity", sparsity)
    masks = {name: magnitude_mask(layer.weight, sparsity) for name, layer in weighted_layers(model)[:-1]}
    apply_masks(model, masks)
    return masks


@wrong("returns nothing")
def prune_by_percentage(model, sparsity):
    check_fraction("sparsity", sparsity)
    apply_masks(model, {name: magnitude_mask(layer.weight, sparsity) for name, layer in weighted_layers(model)})


@wrong("one threshold per layer with <, from the standard deviation")
def prune_by_percentage(model, sparsity):
    check_fraction("sparsity", sparsity)
    masks = {}
    for name, layer in weighted_layers(model):
        weight = layer.weight.detach()
        masks[name] = weight.abs() > weight.std() * sparsity
    apply_masks(model, masks)
    return masks


@wrong("a new parameter instead of the old one with zeros")
def prune_by_percentage(model, sparsity):
    check_fraction("sparsity", sparsity)
    masks = {name: magnitude_mask(layer.weight, sparsity) for name, layer in weighted_layers(model)}
    for name, layer in weighted_layers(model):
        layer.weight = torch.nn.Parameter(layer.weight.detach() * masks[name])
    return masks


@wrong("random weights of each layer")
def prune_by_percentage(model, sparsity):
    check_fraction("sparsity", sparsity)
    masks = {name: magnitude_mask(torch.rand(layer.weight.shape), sparsity) for name, layer in weighted_layers(model)}
    apply_masks(model, masks)
    return masks


@correct("a loop that multiplies")
def prune_by_percentage(model, sparsity):
    check_fraction("sparsity", sparsity)
    masks = {}
    for name, layer in weighted_layers(model):
        mask = magnitude_mask(layer.weight.detach(), sparsity)
        layer.weight.data = layer.weight.data * mask
        masks[name] = mask
    return masks


@correct("assigns zeros by index")
def prune_by_percentage(model, sparsity):
    check_fraction("sparsity", sparsity)
    masks = {}
    with torch.no_grad():
        for name, layer in weighted_layers(model):
            masks[name] = magnitude_mask(layer.weight, sparsity)
            layer.weight[~masks[name]] = 0.0
    return masks


# --- sparsity_report -------------------------------------------------------------------------------------------------


@wrong("the total is the mean of the layers")
def sparsity_report(model):
    report = {}
    for name, layer in weighted_layers(model):
        zeros = int((layer.weight == 0).sum())
        report[name] = {"weights": layer.weight.numel(), "zeros": zeros, "sparsity": zeros / layer.weight.numel()}
    rows = list(report.values())
    report["total"] = {
        "weights": sum(row["weights"] for row in rows),
        "zeros": sum(row["zeros"] for row in rows),
        "sparsity": sum(row["sparsity"] for row in rows) / len(rows),
    }
    return report


@wrong("counts the weights that are kept")
def sparsity_report(model):
    report = {}
    for name, layer in weighted_layers(model):
        kept = int((layer.weight != 0).sum())
        report[name] = {"weights": layer.weight.numel(), "zeros": kept, "sparsity": kept / layer.weight.numel()}
    total, kept = sum(row["weights"] for row in report.values()), sum(row["zeros"] for row in report.values())
    report["total"] = {"weights": total, "zeros": kept, "sparsity": kept / total}
    return report


@wrong("counts biases too")
def sparsity_report(model):
    report = {}
    for name, layer in weighted_layers(model):
        values = torch.cat([parameter.detach().flatten() for parameter in layer.parameters()])
        report[name] = {"weights": values.numel(), "zeros": int((values == 0).sum())}
    report["total"] = {key: sum(row[key] for row in report.values()) for key in ("weights", "zeros")}
    for row in report.values():
        row["sparsity"] = row["zeros"] / row["weights"]
    return report


@wrong("calls small weights zero")
def sparsity_report(model):
    report = {}
    for name, layer in weighted_layers(model):
        report[name] = {"weights": layer.weight.numel(), "zeros": int((layer.weight.abs() < 1e-1).sum())}
    report["total"] = {key: sum(row[key] for row in report.values()) for key in ("weights", "zeros")}
    for row in report.values():
        row["sparsity"] = row["zeros"] / row["weights"]
    return report


@wrong("percent instead of a fraction")
def sparsity_report(model):
    report = {}
    for name, layer in weighted_layers(model):
        report[name] = {"weights": layer.weight.numel(), "zeros": int((layer.weight == 0).sum())}
    report["total"] = {key: sum(row[key] for row in report.values()) for key in ("weights", "zeros")}
    for row in report.values():
        row["sparsity"] = 100 * row["zeros"] / row["weights"]
    return report


@wrong("no total")
def sparsity_report(model):
    report = {}
    for name, layer in weighted_layers(model):
        zeros = int((layer.weight == 0).sum())
        report[name] = {"weights": layer.weight.numel(), "zeros": zeros, "sparsity": zeros / layer.weight.numel()}
    return report


@correct("tensors of zeros and ones")
def sparsity_report(model):
    report, n_all, zeros_all = {}, 0, 0
    for name, layer in weighted_layers(model):
        n, zeros = layer.weight.numel(), layer.weight.numel() - int(torch.count_nonzero(layer.weight))
        report[name] = {"weights": n, "zeros": zeros, "sparsity": zeros / n}
        n_all, zeros_all = n_all + n, zeros_all + zeros
    return {**report, "total": {"weights": n_all, "zeros": zeros_all, "sparsity": zeros_all / n_all}}


@correct("all layers joined for the total")
def sparsity_report(model):
    weights = {name: layer.weight.detach().flatten() for name, layer in weighted_layers(model)}
    weights["total"] = torch.cat(list(weights.values()))
    return {
        name: {"weights": len(w), "zeros": (w == 0).sum().item(), "sparsity": (w == 0).sum().item() / len(w)}
        for name, w in weights.items()
    }


# --- global_prune_by_percentage --------------------------------------------------------------------------------------


@wrong("layer by layer after all")
def global_prune_by_percentage(model, sparsity):
    check_fraction("sparsity", sparsity)
    masks = {name: magnitude_mask(layer.weight, sparsity) for name, layer in weighted_layers(model)}
    apply_masks(model, masks)
    return masks


@wrong("the mean of the layers' thresholds")
def global_prune_by_percentage(model, sparsity):
    check_fraction("sparsity", sparsity)
    layers = weighted_layers(model)
    threshold = sum(torch.quantile(layer.weight.detach().abs(), sparsity) for _, layer in layers) / len(layers)
    masks = {name: layer.weight.detach().abs() > threshold for name, layer in layers}
    apply_masks(model, masks)
    return masks


@wrong("ranks biases and batch norm with the weights")
def global_prune_by_percentage(model, sparsity):
    check_fraction("sparsity", sparsity)
    everything = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    n_pruned = round(sparsity * everything.numel())
    threshold = everything.abs().sort().values[n_pruned - 1]
    masks = {name: layer.weight.detach().abs() > threshold for name, layer in weighted_layers(model)}
    apply_masks(model, masks)
    return masks


@wrong("computes the masks but leaves the weights")
def global_prune_by_percentage(model, sparsity):
    check_fraction("sparsity", sparsity)
    layers = weighted_layers(model)
    flat = magnitude_mask(torch.cat([layer.weight.detach().flatten() for _, layer in layers]), sparsity)
    parts = flat.split([layer.weight.numel() for _, layer in layers])
    return {name: part.view(layer.weight.shape) for (name, layer), part in zip(layers, parts, strict=True)}


@wrong("cuts the mask in the wrong order")
def global_prune_by_percentage(model, sparsity):
    check_fraction("sparsity", sparsity)
    layers = weighted_layers(model)
    flat = magnitude_mask(torch.cat([layer.weight.detach().flatten() for _, layer in reversed(layers)]), sparsity)
    parts = flat.split([layer.weight.numel() for _, layer in layers])
    masks = {name: part.view(layer.weight.shape) for (name, layer), part in zip(layers, parts, strict=True)}
    apply_masks(model, masks)
    return masks


@wrong("one weight too many: threshold with <=")
def global_prune_by_percentage(model, sparsity):
    check_fraction("sparsity", sparsity)
    layers = weighted_layers(model)
    magnitudes = torch.cat([layer.weight.detach().abs().flatten() for _, layer in layers]).sort().values
    threshold = magnitudes[min(round(sparsity * len(magnitudes)), len(magnitudes) - 1)]
    masks = {name: ~(layer.weight.detach().abs() <= threshold) for name, layer in layers}
    apply_masks(model, masks)
    return masks


@wrong("rounds down")
def global_prune_by_percentage(model, sparsity):
    check_fraction("sparsity", sparsity)
    layers = weighted_layers(model)
    everything = torch.cat([layer.weight.detach().flatten() for _, layer in layers])
    flat = magnitude_mask(everything, int(sparsity * everything.numel()) / everything.numel())
    parts = flat.split([layer.weight.numel() for _, layer in layers])
    masks = {name: part.view(layer.weight.shape) for (name, layer), part in zip(layers, parts, strict=True)}
    apply_masks(model, masks)
    return masks


@wrong("normalises every layer by its largest weight first")
def global_prune_by_percentage(model, sparsity):
    check_fraction("sparsity", sparsity)
    layers = weighted_layers(model)
    scaled = [layer.weight.detach().flatten() / layer.weight.detach().abs().max() for _, layer in layers]
    parts = magnitude_mask(torch.cat(scaled), sparsity).split([len(part) for part in scaled])
    masks = {name: part.view(layer.weight.shape) for (name, layer), part in zip(layers, parts, strict=True)}
    apply_masks(model, masks)
    return masks


@correct("cuts with a running position")
def global_prune_by_percentage(model, sparsity):
    check_fraction("sparsity", sparsity)
    layers = weighted_layers(model)
    flat = magnitude_mask(torch.cat([layer.weight.data.reshape(-1) for _, layer in layers]), sparsity)
    masks, start = {}, 0
    for name, layer in layers:
        masks[name] = flat[start : start + layer.weight.numel()].reshape(layer.weight.shape)
        layer.weight.data *= masks[name]
        start += layer.weight.numel()
    return masks


@correct("a loop over sorted (magnitude, position) pairs")
def global_prune_by_percentage(model, sparsity):
    check_fraction("sparsity", sparsity)
    places = [
        (abs(value), -number, -index)
        for number, (_, layer) in enumerate(weighted_layers(model))
        for index, value in enumerate(layer.weight.detach().flatten().tolist())
    ]
    masks = {name: torch.ones_like(layer.weight, dtype=torch.bool) for name, layer in weighted_layers(model)}
    names = list(masks)
    for _, number, index in sorted(places)[: round(sparsity * len(places))]:
        masks[names[-number]].view(-1)[-index] = False
    apply_masks(model, masks)
    return masks


# --- linear_schedule -------------------------------------------------------------------------------------------------


@wrong("goes on rising past the end")
def linear_schedule(step, n_steps, final_sparsity):
    check_count("n_steps", n_steps, minimum=1)
    return final_sparsity * step / n_steps


@wrong("one step ahead")
def linear_schedule(step, n_steps, final_sparsity):
    check_count("n_steps", n_steps, minimum=1)
    return final_sparsity * min((step + 1) / n_steps, 1.0)


@wrong("clips to 1 instead of the final sparsity")
def linear_schedule(step, n_steps, final_sparsity):
    check_count("n_steps", n_steps, minimum=1)
    return min(final_sparsity * step / n_steps, 1.0)


@wrong("whole steps only: integer division")
def linear_schedule(step, n_steps, final_sparsity):
    check_count("n_steps", n_steps, minimum=1)
    return final_sparsity * min(step // n_steps, 1)


@wrong("the share that is left")
def linear_schedule(step, n_steps, final_sparsity):
    check_count("n_steps", n_steps, minimum=1)
    return 1 - final_sparsity * min(step / n_steps, 1.0)


@wrong("the published 8 % built in")
def linear_schedule(step, n_steps, final_sparsity):
    check_count("n_steps", n_steps, minimum=1)
    return min(0.08 * step, final_sparsity)


@wrong("reaches the end one step early")
def linear_schedule(step, n_steps, final_sparsity):
    check_count("n_steps", n_steps, minimum=1)
    return final_sparsity * min(step / max(n_steps - 1, 1), 1.0)


@correct("with an if")
def linear_schedule(step, n_steps, final_sparsity):
    check_count("n_steps", n_steps, minimum=1)
    if step >= n_steps:
        return final_sparsity
    return final_sparsity / n_steps * step


@correct("clips the step")
def linear_schedule(step, n_steps, final_sparsity):
    check_count("n_steps", n_steps, minimum=1)
    return min(step, n_steps) / n_steps * final_sparsity


# --- cubic_schedule --------------------------------------------------------------------------------------------------


@wrong("squares instead of cubes")
def cubic_schedule(step, n_steps, final_sparsity, initial_sparsity=0.0, first_step=0):
    check_fraction("final_sparsity", final_sparsity)
    progress = min(max((step - first_step) / n_steps, 0.0), 1.0)
    return final_sparsity + (initial_sparsity - final_sparsity) * (1 - progress) ** 2


@wrong("slow first: the cube of the progress")
def cubic_schedule(step, n_steps, final_sparsity, initial_sparsity=0.0, first_step=0):
    check_fraction("final_sparsity", final_sparsity)
    progress = min(max((step - first_step) / n_steps, 0.0), 1.0)
    return initial_sparsity + (final_sparsity - initial_sparsity) * progress**3


@wrong("goes on past the end")
def cubic_schedule(step, n_steps, final_sparsity, initial_sparsity=0.0, first_step=0):
    check_fraction("final_sparsity", final_sparsity)
    progress = (step - first_step) / n_steps
    return final_sparsity + (initial_sparsity - final_sparsity) * (1 - progress) ** 3


@wrong("clips at the end but not before the start")
def cubic_schedule(step, n_steps, final_sparsity, initial_sparsity=0.0, first_step=0):
    check_fraction("final_sparsity", final_sparsity)
    progress = min((step - first_step) / n_steps, 1.0)
    return final_sparsity + (initial_sparsity - final_sparsity) * (1 - progress) ** 3


@wrong("initial and final swapped")
def cubic_schedule(step, n_steps, final_sparsity, initial_sparsity=0.0, first_step=0):
    check_fraction("final_sparsity", final_sparsity)
    progress = min(max((step - first_step) / n_steps, 0.0), 1.0)
    return initial_sparsity + (final_sparsity - initial_sparsity) * (1 - progress) ** 3


@wrong("ignores the initial sparsity")
def cubic_schedule(step, n_steps, final_sparsity, initial_sparsity=0.0, first_step=0):
    check_fraction("final_sparsity", final_sparsity)
    progress = min(max((step - first_step) / n_steps, 0.0), 1.0)
    return final_sparsity * (1 - (1 - progress) ** 3)


@wrong("takes n_steps for the last step")
def cubic_schedule(step, n_steps, final_sparsity, initial_sparsity=0.0, first_step=0):
    check_fraction("final_sparsity", final_sparsity)
    progress = min(max((step - first_step) / max(n_steps - first_step, 1), 0.0), 1.0)
    return final_sparsity + (initial_sparsity - final_sparsity) * (1 - progress) ** 3


@correct("three cases")
def cubic_schedule(step, n_steps, final_sparsity, initial_sparsity=0.0, first_step=0):
    check_fraction("final_sparsity", final_sparsity)
    if step <= first_step:
        return initial_sparsity
    if step >= first_step + n_steps:
        return final_sparsity
    left = 1 - (step - first_step) / n_steps
    return final_sparsity - (final_sparsity - initial_sparsity) * left * left * left


@correct("counts the steps that are left")
def cubic_schedule(step, n_steps, final_sparsity, initial_sparsity=0.0, first_step=0):
    check_fraction("final_sparsity", final_sparsity)
    steps_left = min(max(first_step + n_steps - step, 0), n_steps)
    return final_sparsity + (initial_sparsity - final_sparsity) * (steps_left / n_steps) ** 3


# --- MaskedOptimizer -------------------------------------------------------------------------------------------------


@wrong("masks the gradients only: momentum revives zeros")
class MaskedOptimizer(WrappedOptimizer):
    def __init__(self, optimizer, model, masks):
        super().__init__(optimizer)
        self.model, self.masks = model, masks

    def step(self):
        for name, layer in weighted_layers(self.model):
            if name in self.masks:
                layer.weight.grad *= self.masks[name]
        self.optimizer.step()


@wrong("masks before the step instead of after it")
class MaskedOptimizer(WrappedOptimizer):
    def __init__(self, optimizer, model, masks):
        super().__init__(optimizer)
        self.model, self.masks = model, masks

    def step(self):
        apply_masks(self.model, self.masks)
        self.optimizer.step()


@wrong("inverted mask")
class MaskedOptimizer(WrappedOptimizer):
    def __init__(self, optimizer, model, masks):
        super().__init__(optimizer)
        self.model, self.masks = model, masks

    def step(self):
        self.optimizer.step()
        apply_masks(self.model, {name: ~mask for name, mask in self.masks.items()})


@wrong("forgets the wrapped step")
class MaskedOptimizer(WrappedOptimizer):
    def __init__(self, optimizer, model, masks):
        super().__init__(optimizer)
        self.model, self.masks = model, masks

    def step(self):
        apply_masks(self.model, self.masks)


@wrong("masks once, when it is made")
class MaskedOptimizer(WrappedOptimizer):
    def __init__(self, optimizer, model, masks):
        super().__init__(optimizer)
        apply_masks(model, masks)

    def step(self):
        self.optimizer.step()


@wrong("nearly zero: shrinks masked weights")
class MaskedOptimizer(WrappedOptimizer):
    def __init__(self, optimizer, model, masks):
        super().__init__(optimizer)
        self.model, self.masks = model, masks

    def step(self):
        self.optimizer.step()
        with torch.no_grad():
            for name, layer in weighted_layers(self.model):
                layer.weight.mul_(self.masks.get(name, torch.ones(1)).double().clamp(min=1e-9))


@wrong("forgets the momentum of every weight at each step")
class MaskedOptimizer(WrappedOptimizer):
    def __init__(self, optimizer, model, masks):
        super().__init__(optimizer)
        self.model, self.masks = model, masks

    def step(self):
        self.optimizer.state.clear()
        self.optimizer.step()
        apply_masks(self.model, self.masks)


@wrong("needs a mask for every layer")
class MaskedOptimizer(WrappedOptimizer):
    def __init__(self, optimizer, model, masks):
        super().__init__(optimizer)
        self.pairs = [(layer.weight, masks[name]) for name, layer in weighted_layers(model)]

    def step(self):
        self.optimizer.step()
        with torch.no_grad():
            for weight, mask in self.pairs:
                weight.mul_(mask)


@wrong("two steps of the wrapped optimiser at a time")
class MaskedOptimizer(WrappedOptimizer):
    def __init__(self, optimizer, model, masks):
        super().__init__(optimizer)
        self.model, self.masks = model, masks

    def step(self):
        self.optimizer.step()
        self.optimizer.step()
        apply_masks(self.model, self.masks)


@correct("multiplies by the mask")
class MaskedOptimizer(WrappedOptimizer):
    def __init__(self, optimizer, model, masks):
        super().__init__(optimizer)
        self.pairs = [(layer.weight, masks[name]) for name, layer in weighted_layers(model) if name in masks]

    def step(self):
        self.optimizer.step()
        with torch.no_grad():
            for weight, mask in self.pairs:
                weight *= mask


@correct("assigns through data, and masks gradients and result")
class MaskedOptimizer(WrappedOptimizer):
    def __init__(self, optimizer, model, masks):
        super().__init__(optimizer)
        self.layers, self.masks = dict(weighted_layers(model)), masks

    def step(self):
        self.optimizer.step()
        for name, mask in self.masks.items():
            weight = self.layers[name].weight
            weight.data = torch.where(mask, weight.data, torch.zeros_like(weight.data))


# --- iterative_pruning -----------------------------------------------------------------------------------------------


@wrong("trains before it prunes")
def iterative_pruning(model, n_epochs, schedule, prune, train_epoch):
    masks = None
    for epoch in range(1, n_epochs + 1):
        train_epoch(model, masks if schedule(epoch) >= schedule(n_epochs) else None)
        masks = prune(model, schedule(epoch))
    return masks


@wrong("keeps the masks from the start: nothing recovers")
def iterative_pruning(model, n_epochs, schedule, prune, train_epoch):
    for epoch in range(1, n_epochs + 1):
        masks = prune(model, schedule(epoch))
        train_epoch(model, masks)
    return masks


@wrong("never keeps the masks: the result is not sparse")
def iterative_pruning(model, n_epochs, schedule, prune, train_epoch):
    for epoch in range(1, n_epochs + 1):
        masks = prune(model, schedule(epoch))
        train_epoch(model, None)
    return masks


@wrong("epochs count from 0")
def iterative_pruning(model, n_epochs, schedule, prune, train_epoch):
    for epoch in range(n_epochs):
        sparsity = schedule(epoch)
        masks = prune(model, sparsity)
        train_epoch(model, None if sparsity < schedule(n_epochs) else masks)
    return masks


@wrong("masks only in the last epoch")
def iterative_pruning(model, n_epochs, schedule, prune, train_epoch):
    for epoch in range(1, n_epochs + 1):
        masks = prune(model, schedule(epoch))
        train_epoch(model, masks if epoch == n_epochs else None)
    return masks


@wrong("stops once the final sparsity is reached")
def iterative_pruning(model, n_epochs, schedule, prune, train_epoch):
    for epoch in range(1, n_epochs + 1):
        masks = prune(model, schedule(epoch))
        if schedule(epoch) == schedule(n_epochs):
            train_epoch(model, masks)
            break
        train_epoch(model, None)
    return masks


@wrong("returns nothing")
def iterative_pruning(model, n_epochs, schedule, prune, train_epoch):
    for epoch in range(1, n_epochs + 1):
        masks = prune(model, schedule(epoch))
        train_epoch(model, None if schedule(epoch) < schedule(n_epochs) else masks)


@wrong("returns the first masks")
def iterative_pruning(model, n_epochs, schedule, prune, train_epoch):
    first = None
    for epoch in range(1, n_epochs + 1):
        masks = prune(model, schedule(epoch))
        first = masks if first is None else first
        train_epoch(model, None if schedule(epoch) < schedule(n_epochs) else masks)
    return first


@wrong("the final sparsity of an example built in")
def iterative_pruning(model, n_epochs, schedule, prune, train_epoch):
    for epoch in range(1, n_epochs + 1):
        masks = prune(model, schedule(epoch))
        train_epoch(model, masks if schedule(epoch) >= 0.4 else None)
    return masks


@correct("the final sparsity computed once")
def iterative_pruning(model, n_epochs, schedule, prune, train_epoch):
    final = schedule(n_epochs)
    masks = None
    for epoch in range(n_epochs):
        now = schedule(epoch + 1)
        masks = prune(model, now)
        if now >= final:
            train_epoch(model, masks)
        else:
            train_epoch(model, None)
    return masks


@correct("a while loop over a list of sparsities")
def iterative_pruning(model, n_epochs, schedule, prune, train_epoch):
    sparsities = [schedule(epoch) for epoch in range(1, n_epochs + 1)]
    final = sparsities[-1]
    while sparsities:
        level = sparsities.pop(0)
        masks = prune(model, level)
        train_epoch(model, masks if level == final else None)
    return masks


# --- compress --------------------------------------------------------------------------------------------------------


@wrong("returns the dense network")
def compress(model, train_set, n_epochs):
    return model


@wrong("one shot without retraining")
def compress(model, train_set, n_epochs):
    global_prune_by_percentage(model, 0.9)
    return model


@wrong("one shot per layer, without retraining")
def compress(model, train_set, n_epochs):
    prune_by_percentage(model, 0.6)
    return model


@wrong("so sparse that it guesses")
def compress(model, train_set, n_epochs):
    prune_by_percentage(model, 0.99)
    return model


@wrong("returns the masks instead of the network")
def compress(model, train_set, n_epochs):
    return global_prune_by_percentage(model, 0.9)


@wrong("trains without masks after pruning: the zeros are gone")
def compress(model, train_set, n_epochs):
    global_prune_by_percentage(model, 0.9)
    train = Finetuner(train_set, profiles.current(), epochs=1, lr=0.02, masked_optimizer=MaskedOptimizer, label=None)
    train(model, None)
    return model


@wrong("half the bytes of every number instead of half the numbers")
def compress(model, train_set, n_epochs):
    global_prune_by_percentage(model, 0.6)
    return model.half()


@correct("one shot, then finetuning under the masks")
def compress(model, train_set, n_epochs):
    masks = global_prune_by_percentage(model, 0.85)
    train = Finetuner(train_set, profiles.current(), epochs=n_epochs, lr=0.02, masked_optimizer=MaskedOptimizer, label=None)
    for _ in range(n_epochs):
        train(model, masks)
    return model


@correct("a loop written by hand, linear steps")
def compress(model, train_set, n_epochs):
    train = Finetuner(train_set, profiles.current(), epochs=n_epochs, lr=0.03, masked_optimizer=MaskedOptimizer, label=None)
    for epoch in range(n_epochs):
        masks = global_prune_by_percentage(model, (0.6, 0.75, 0.88)[min(epoch, 2)])
        train(model, masks)
    return model


from course_utils.pruning import (  # noqa: E402
    MaskedOptimizer,
    global_prune_by_percentage,
    magnitude_mask,
    prune_by_percentage,
)
