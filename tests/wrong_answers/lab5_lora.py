"""Wrong answers to Lab 5 that students plausibly give, and correct ones that look different from the reference.

Each function is self-contained given the notebook's names, and so is the first answer to each of the two classes; the
other classes differ from a common base in one thing each. The names of other exercises are imported at the end, because
the functions above them are named like exercises too.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from course_admin.answers import correct, wrong
from course_utils.lora.given import (
    LoRALayer,
    check_convolution,
    check_layer_name,
    check_linear,
    check_model,
    check_targets,
    lora_layers,
)
from course_utils.pruning.given import check_weight
from course_utils.validate import check_count, check_positive


class _Linear(LoRALayer):
    """What most answers to LoRALinear share; each answer changes one thing."""

    def __init__(self, base, rank, alpha):
        check_linear("base", base)
        check_count("rank", rank, minimum=1)
        check_positive("alpha", alpha)
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_b = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        self.scaling = alpha / rank

    def delta_weight(self):
        return self.scaling * self.lora_b @ self.lora_a

    def forward(self, x):
        y = self.base(x)
        return y if self.merged else y + self.scaling * F.linear(F.linear(x, self.lora_a), self.lora_b)


class _Conv(LoRALayer):
    """The same for LoRAConv2d."""

    def __init__(self, base, rank, alpha):
        check_convolution("base", base)
        check_count("rank", rank, minimum=1)
        check_positive("alpha", alpha)
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = nn.Parameter(base.weight.new_empty(rank, *base.weight.shape[1:]))
        self.lora_b = nn.Parameter(base.weight.new_zeros(base.out_channels, rank, 1, 1))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        self.scaling = alpha / rank

    def delta_weight(self):
        return self.scaling * (self.lora_b.flatten(1) @ self.lora_a.flatten(1)).view_as(self.base.weight)

    def down(self, x):
        return F.conv2d(x, self.lora_a, None, self.base.stride, self.base.padding, self.base.dilation)

    def forward(self, x):
        y = self.base(x)
        return y if self.merged else y + self.scaling * F.conv2d(self.down(x), self.lora_b)


# --- LoRALinear ------------------------------------------------------------------------------------------------------


@wrong("no alpha / rank")
class LoRALinear(LoRALayer):
    def __init__(self, base, rank, alpha):
        check_linear("base", base)
        check_count("rank", rank, minimum=1)
        check_positive("alpha", alpha)
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = nn.Parameter(base.weight.new_empty(rank, base.in_features))
        self.lora_b = nn.Parameter(base.weight.new_zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        self.scaling = 1.0

    def delta_weight(self):
        return self.lora_b @ self.lora_a

    def forward(self, x):
        y = self.base(x)
        return y if self.merged else y + F.linear(F.linear(x, self.lora_a), self.lora_b)


@wrong("multiplies by alpha and forgets the rank")
class LoRALinear(_Linear):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        self.scaling = alpha


@wrong("rank / alpha")
class LoRALinear(_Linear):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        self.scaling = rank / alpha


@wrong("alpha / sqrt(rank)")
class LoRALinear(_Linear):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        self.scaling = alpha / math.sqrt(rank)


@wrong("both factors random")
class LoRALinear(_Linear):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        nn.init.kaiming_uniform_(self.lora_b, a=math.sqrt(5))


@wrong("both factors zero: nothing would ever train")
class LoRALinear(_Linear):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        nn.init.zeros_(self.lora_a)


@wrong("A zero and B random")
class LoRALinear(_Linear):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        nn.init.zeros_(self.lora_a)
        nn.init.normal_(self.lora_b)


@wrong("A with standard deviation 0.02, whatever the size of the layer")
class LoRALinear(_Linear):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        nn.init.normal_(self.lora_a, std=0.02)


@wrong("freezes a bias that may not be there")
class LoRALinear(_Linear):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        base.bias.requires_grad_(False)


@correct("A drawn as He et al. draw weights")
class LoRALinear(_Linear):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        nn.init.kaiming_normal_(self.lora_a)


@wrong("A with standard deviation 1")
class LoRALinear(_Linear):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        nn.init.normal_(self.lora_a)


@wrong("A is constant")
class LoRALinear(_Linear):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        nn.init.constant_(self.lora_a, 1 / math.sqrt(base.in_features))


@wrong("the base is not frozen")
class LoRALinear(_Linear):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        base.requires_grad_(True)


@wrong("freezes the weight but not the bias")
class LoRALinear(_Linear):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        if base.bias is not None:
            base.bias.requires_grad_(True)


@wrong("the factors are plain tensors: nothing trains")
class LoRALinear(LoRALayer):
    def __init__(self, base, rank, alpha):
        check_linear("base", base)
        check_count("rank", rank, minimum=1)
        check_positive("alpha", alpha)
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = torch.randn(rank, base.in_features).to(base.weight) / math.sqrt(base.in_features)
        self.lora_b = torch.zeros(base.out_features, rank).to(base.weight)
        self.scaling = alpha / rank

    def delta_weight(self):
        return self.scaling * self.lora_b @ self.lora_a

    def forward(self, x):
        return self.base(x) + (0 if self.merged else x @ self.delta_weight().T)


@wrong("the factors transposed")
class LoRALinear(_Linear):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        self.lora_a = nn.Parameter(torch.randn(base.in_features, rank).to(base.weight) / math.sqrt(base.in_features))
        self.lora_b = nn.Parameter(torch.zeros(rank, base.out_features).to(base.weight))

    def delta_weight(self):
        return self.scaling * (self.lora_a @ self.lora_b).T

    def forward(self, x):
        y = self.base(x)
        return y if self.merged else y + self.scaling * (x @ self.lora_a @ self.lora_b)


@wrong("the base's bias counted twice")
class LoRALinear(_Linear):
    def forward(self, x):
        if self.merged:
            return self.base(x)
        return self.base(x) + F.linear(x, self.delta_weight(), self.base.bias)


@wrong("adds the adapter when it is merged, too")
class LoRALinear(_Linear):
    def forward(self, x):
        return self.base(x) + self.scaling * F.linear(F.linear(x, self.lora_a), self.lora_b)


@wrong("delta_weight without the scale")
class LoRALinear(_Linear):
    def delta_weight(self):
        return self.lora_b @ self.lora_a


@wrong("a nonlinearity between the factors, as in an adapter layer")
class LoRALinear(_Linear):
    def forward(self, x):
        y = self.base(x)
        return y if self.merged else y + self.scaling * F.linear(F.relu(F.linear(x, self.lora_a)), self.lora_b)


@wrong("always float32")
class LoRALinear(_Linear):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        self.lora_a = nn.Parameter(self.lora_a.detach().float())
        self.lora_b = nn.Parameter(self.lora_b.detach().float())

    def forward(self, x):
        y = self.base(x)
        return y if self.merged else y + F.linear(x, self.delta_weight().to(x))


@wrong("replaces the weight instead of adding to it")
class LoRALinear(_Linear):
    def forward(self, x):
        return self.base(x) if self.merged else F.linear(x, self.delta_weight(), self.base.bias)


@correct("matrix products, and a Gaussian A")
class LoRALinear(LoRALayer):
    def __init__(self, base, rank, alpha):
        check_linear("base", base)
        check_count("rank", rank, minimum=1)
        check_positive("alpha", alpha)
        super().__init__()
        self.base = base
        for parameter in self.base.parameters():
            parameter.requires_grad = False
        dtype, device = base.weight.dtype, base.weight.device
        self.lora_a = nn.Parameter(
            torch.randn(rank, base.in_features, dtype=dtype, device=device) / math.sqrt(base.in_features)
        )
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank, dtype=dtype, device=device))
        self.scaling = alpha / rank

    def delta_weight(self):
        return (self.lora_b @ self.lora_a) * self.scaling

    def forward(self, x):
        result = self.base(x)
        if not self.merged:
            result = result + (x @ self.lora_a.T) @ self.lora_b.T * self.scaling
        return result


@wrong("one product with the updated weight: the whole B A for every call")
class LoRALinear(_Linear):
    def forward(self, x):
        if self.merged:
            return self.base(x)
        return F.linear(x, self.base.weight + self.delta_weight(), self.base.bias)


# --- LoRAConv2d ------------------------------------------------------------------------------------------------------


@wrong("no alpha / rank")
class LoRAConv2d(LoRALayer):
    def __init__(self, base, rank, alpha):
        check_convolution("base", base)
        check_count("rank", rank, minimum=1)
        check_positive("alpha", alpha)
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = nn.Parameter(base.weight.new_empty(rank, *base.weight.shape[1:]))
        self.lora_b = nn.Parameter(base.weight.new_zeros(base.out_channels, rank, 1, 1))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        self.scaling = 1.0

    def delta_weight(self):
        return (self.lora_b.flatten(1) @ self.lora_a.flatten(1)).view_as(self.base.weight)

    def forward(self, x):
        y = self.base(x)
        if self.merged:
            return y
        down = F.conv2d(x, self.lora_a, None, self.base.stride, self.base.padding, self.base.dilation)
        return y + F.conv2d(down, self.lora_b)


@wrong("multiplies by alpha and forgets the rank")
class LoRAConv2d(_Conv):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        self.scaling = alpha


@wrong("both factors random")
class LoRAConv2d(_Conv):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        nn.init.kaiming_uniform_(self.lora_b, a=math.sqrt(5))


@wrong("both factors zero")
class LoRAConv2d(_Conv):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        nn.init.zeros_(self.lora_a)


@wrong("the base is not frozen")
class LoRAConv2d(_Conv):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        base.requires_grad_(True)


@wrong("A ignores the stride")
class LoRAConv2d(_Conv):
    def down(self, x):
        return F.conv2d(x, self.lora_a, None, 1, self.base.padding, self.base.dilation)


@wrong("A ignores the padding")
class LoRAConv2d(_Conv):
    def down(self, x):
        return F.conv2d(x, self.lora_a, None, self.base.stride, 0, self.base.dilation)


@wrong("A ignores the dilation")
class LoRAConv2d(_Conv):
    def down(self, x):
        return F.conv2d(x, self.lora_a, None, self.base.stride, self.base.padding)


@wrong("the stride in A and again in B")
class LoRAConv2d(_Conv):
    def forward(self, x):
        y = self.base(x)
        return y if self.merged else y + self.scaling * F.conv2d(self.down(x), self.lora_b, None, self.base.stride)


@wrong("the k x k kernel in B and a 1 x 1 convolution in A")
class LoRAConv2d(_Conv):
    def __init__(self, base, rank, alpha):
        super().__init__(base, rank, alpha)
        self.lora_a = nn.Parameter(torch.randn(rank, base.in_channels, 1, 1).to(base.weight))
        self.lora_b = nn.Parameter(torch.zeros(base.out_channels, rank, *base.kernel_size).to(base.weight))

    def delta_weight(self):
        return self.scaling * torch.einsum("orhw,ri->oihw", self.lora_b, self.lora_a[..., 0, 0])

    def forward(self, x):
        if self.merged:
            return self.base(x)
        weight = self.base.weight + self.delta_weight()
        return F.conv2d(x, weight, self.base.bias, self.base.stride, self.base.padding, self.base.dilation)


@wrong("adds the adapter when it is merged, too")
class LoRAConv2d(_Conv):
    def forward(self, x):
        return self.base(x) + self.scaling * F.conv2d(self.down(x), self.lora_b)


@wrong("delta_weight without the scale")
class LoRAConv2d(_Conv):
    def delta_weight(self):
        return (self.lora_b.flatten(1) @ self.lora_a.flatten(1)).view_as(self.base.weight)


@wrong("delta_weight as a matrix")
class LoRAConv2d(_Conv):
    def delta_weight(self):
        return self.scaling * self.lora_b.flatten(1) @ self.lora_a.flatten(1)


@wrong("adds the base's bias again")
class LoRAConv2d(_Conv):
    def forward(self, x):
        y = self.base(x)
        return y if self.merged else y + self.scaling * F.conv2d(self.down(x), self.lora_b, self.base.bias)


@correct("the stride in B: more work, the same numbers")
class LoRAConv2d(_Conv):
    def forward(self, x):
        y = self.base(x)
        if self.merged:
            return y
        inner = F.conv2d(x, self.lora_a, None, 1, self.base.padding, self.base.dilation)
        return y + self.scaling * F.conv2d(inner, self.lora_b, None, self.base.stride)


@correct("one convolution with the updated weight")
class LoRAConv2d(_Conv):
    def forward(self, x):
        if self.merged:
            return self.base(x)
        weight = self.base.weight + self.delta_weight()
        return F.conv2d(x, weight, self.base.bias, self.base.stride, self.base.padding, self.base.dilation)


@correct("einsum at every pixel")
class LoRAConv2d(_Conv):
    def delta_weight(self):
        return torch.einsum("or,rihw->oihw", self.lora_b[:, :, 0, 0], self.lora_a).mul(self.scaling)

    def forward(self, x):
        y = self.base(x)
        if not self.merged:
            y = y + torch.einsum("or,nrhw->nohw", self.scaling * self.lora_b[:, :, 0, 0], self.down(x))
        return y


# --- freeze_until ----------------------------------------------------------------------------------------------------


@wrong("compares only the beginning of the names")
def freeze_until(model, layer):
    check_model("model", model)
    check_layer_name("layer", layer, model)
    reached = False
    for name, parameter in model.named_parameters():
        reached = reached or name.startswith(layer)
        parameter.requires_grad_(reached)


@wrong("freezes the layer as well")
def freeze_until(model, layer):
    check_model("model", model)
    check_layer_name("layer", layer, model)
    reached = False
    for name, parameter in model.named_parameters():
        inside = name.startswith(f"{layer}.")
        parameter.requires_grad_(reached and not inside)
        reached = reached or inside


@wrong("only freezes: what was frozen before stays frozen")
def freeze_until(model, layer):
    check_model("model", model)
    check_layer_name("layer", layer, model)
    for name, parameter in model.named_parameters():
        if name.startswith(f"{layer}."):
            break
        parameter.requires_grad_(False)


@wrong("the other way round")
def freeze_until(model, layer):
    check_model("model", model)
    check_layer_name("layer", layer, model)
    reached = False
    for name, parameter in model.named_parameters():
        reached = reached or name.startswith(f"{layer}.")
        parameter.requires_grad_(not reached)


@wrong("trains the layer alone, not what comes after it")
def freeze_until(model, layer):
    check_model("model", model)
    check_layer_name("layer", layer, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(f"{layer}."))


@wrong("the name anywhere")
def freeze_until(model, layer):
    check_model("model", model)
    check_layer_name("layer", layer, model)
    reached = False
    for name, parameter in model.named_parameters():
        reached = reached or layer in name
        parameter.requires_grad_(reached)


@wrong("weights only, no biases")
def freeze_until(model, layer):
    check_model("model", model)
    check_layer_name("layer", layer, model)
    reached = False
    for name, parameter in model.named_parameters():
        reached = reached or name.startswith(f"{layer}.")
        if name.endswith("weight"):
            parameter.requires_grad_(reached)


@wrong("sets requires_grad of the modules, which does nothing")
def freeze_until(model, layer):
    check_model("model", model)
    check_layer_name("layer", layer, model)
    reached = False
    for name, module in model.named_modules():
        reached = reached or name == layer
        module.requires_grad = reached


@correct("finds the first parameter, then slices")
def freeze_until(model, layer):
    check_model("model", model)
    check_layer_name("layer", layer, model)
    names = [name for name, _ in model.named_parameters()]
    first = next(i for i, name in enumerate(names) if name.startswith(layer + "."))
    for i, parameter in enumerate(model.parameters()):
        parameter.requires_grad = i >= first


@correct("freezes everything, then releases")
def freeze_until(model, layer):
    check_model("model", model)
    check_layer_name("layer", layer, model)
    model.requires_grad_(False)
    n_dots = layer.count(".") + 1
    reached = False
    for name, parameter in model.named_parameters():
        if ".".join(name.split(".")[:n_dots]) == layer:
            reached = True
        if reached:
            parameter.requires_grad_()


# --- trainable_parameters --------------------------------------------------------------------------------------------


@wrong("counts tensors")
def trainable_parameters(model):
    check_model("model", model)
    parameters = list(model.parameters())
    return sum(parameter.requires_grad for parameter in parameters), len(parameters)


@wrong("counts everything as trained")
def trainable_parameters(model):
    check_model("model", model)
    total = sum(parameter.numel() for parameter in model.parameters())
    return total, total


@wrong("counts buffers too")
def trainable_parameters(model):
    check_model("model", model)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return trained, sum(tensor.numel() for tensor in model.state_dict().values())


@wrong("a shared weight counts twice")
def trainable_parameters(model):
    check_model("model", model)
    parameters = [p for module in model.modules() for p in module._parameters.values() if p is not None]
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)


@wrong("the frozen ones in second place")
def trainable_parameters(model):
    check_model("model", model)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return trained, sum(parameter.numel() for parameter in model.parameters()) - trained


@wrong("total first")
def trainable_parameters(model):
    check_model("model", model)
    total = sum(parameter.numel() for parameter in model.parameters())
    return total, sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


@wrong("matrices only")
def trainable_parameters(model):
    check_model("model", model)
    parameters = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    return sum(p.numel() for p in parameters if p.requires_grad), sum(p.numel() for p in parameters)


@correct("a loop")
def trainable_parameters(model):
    check_model("model", model)
    trained = total = 0
    for parameter in model.parameters():
        total += parameter.numel()
        if parameter.requires_grad:
            trained += parameter.numel()
    return trained, total


@correct("products of shapes, in a list")
def trainable_parameters(model):
    check_model("model", model)
    sizes = [(math.prod(p.shape), p.requires_grad) for _, p in model.named_parameters()]
    return [sum(n * flag for n, flag in sizes), sum(n for n, _ in sizes)]


# --- inject_lora -----------------------------------------------------------------------------------------------------


@wrong("freezes only the adapted layers")
def inject_lora(model, targets, rank, alpha):
    check_model("model", model)
    check_targets("targets", targets, model)
    check_count("rank", rank, minimum=1)
    check_positive("alpha", alpha)
    for name in targets:
        layer = model.get_submodule(name)
        adapted = LoRALinear if isinstance(layer, nn.Linear) else LoRAConv2d
        model.set_submodule(name, adapted(layer, rank, alpha))
    return model


@wrong("freezes afterwards: the factors too")
def inject_lora(model, targets, rank, alpha):
    check_model("model", model)
    check_targets("targets", targets, model)
    check_count("rank", rank, minimum=1)
    check_positive("alpha", alpha)
    for name in targets:
        layer = model.get_submodule(name)
        adapted = LoRALinear if isinstance(layer, nn.Linear) else LoRAConv2d
        model.set_submodule(name, adapted(layer, rank, alpha))
    return model.requires_grad_(False)


@wrong("works on a copy")
def inject_lora(model, targets, rank, alpha):
    check_model("model", model)
    check_targets("targets", targets, model)
    check_count("rank", rank, minimum=1)
    check_positive("alpha", alpha)
    import copy

    model = copy.deepcopy(model).requires_grad_(False)
    for name in targets:
        layer = model.get_submodule(name)
        adapted = LoRALinear if isinstance(layer, nn.Linear) else LoRAConv2d
        model.set_submodule(name, adapted(layer, rank, alpha))
    return model


@wrong("every layer whose name begins like a target")
def inject_lora(model, targets, rank, alpha):
    check_model("model", model)
    check_targets("targets", targets, model)
    check_count("rank", rank, minimum=1)
    check_positive("alpha", alpha)
    model.requires_grad_(False)
    for name, layer in list(model.named_modules()):
        if any(name.startswith(target) for target in targets) and isinstance(layer, nn.Linear | nn.Conv2d):
            adapted = LoRALinear if isinstance(layer, nn.Linear) else LoRAConv2d
            model.set_submodule(name, adapted(layer, rank, alpha))
    return model


@wrong("swaps rank and alpha")
def inject_lora(model, targets, rank, alpha):
    check_model("model", model)
    check_targets("targets", targets, model)
    check_count("rank", rank, minimum=1)
    check_positive("alpha", alpha)
    model.requires_grad_(False)
    for name in targets:
        layer = model.get_submodule(name)
        adapted = LoRALinear if isinstance(layer, nn.Linear) else LoRAConv2d
        model.set_submodule(name, adapted(layer, int(alpha), float(rank)))
    return model


@wrong("alpha equal to the rank, whatever was asked for")
def inject_lora(model, targets, rank, alpha):
    check_model("model", model)
    check_targets("targets", targets, model)
    check_count("rank", rank, minimum=1)
    check_positive("alpha", alpha)
    model.requires_grad_(False)
    for name in targets:
        layer = model.get_submodule(name)
        adapted = LoRALinear if isinstance(layer, nn.Linear) else LoRAConv2d
        model.set_submodule(name, adapted(layer, rank, rank))
    return model


@wrong("fresh layers instead of the pretrained ones")
def inject_lora(model, targets, rank, alpha):
    check_model("model", model)
    check_targets("targets", targets, model)
    check_count("rank", rank, minimum=1)
    check_positive("alpha", alpha)
    model.requires_grad_(False)
    for name in targets:
        layer = model.get_submodule(name)
        layer.reset_parameters()
        adapted = LoRALinear if isinstance(layer, nn.Linear) else LoRAConv2d
        model.set_submodule(name, adapted(layer, rank, alpha))
    return model


@wrong("returns nothing")
def inject_lora(model, targets, rank, alpha):
    check_model("model", model)
    check_targets("targets", targets, model)
    check_count("rank", rank, minimum=1)
    check_positive("alpha", alpha)
    model.requires_grad_(False)
    for name in targets:
        layer = model.get_submodule(name)
        adapted = LoRALinear if isinstance(layer, nn.Linear) else LoRAConv2d
        model.set_submodule(name, adapted(layer, rank, alpha))


@wrong("leaves biases and batch norm trainable")
def inject_lora(model, targets, rank, alpha):
    check_model("model", model)
    check_targets("targets", targets, model)
    check_count("rank", rank, minimum=1)
    check_positive("alpha", alpha)
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            layer.weight.requires_grad_(False)
    for name in targets:
        layer = model.get_submodule(name)
        adapted = LoRALinear if isinstance(layer, nn.Linear) else LoRAConv2d
        model.set_submodule(name, adapted(layer, rank, alpha))
    return model


@correct("setattr on the parent")
def inject_lora(model, targets, rank, alpha):
    check_model("model", model)
    check_targets("targets", targets, model)
    check_count("rank", rank, minimum=1)
    check_positive("alpha", alpha)
    for parameter in model.parameters():
        parameter.requires_grad = False
    for target in targets:
        parent_name, _, child_name = target.rpartition(".")
        parent = model.get_submodule(parent_name) if parent_name else model
        child = getattr(parent, child_name)
        if isinstance(child, nn.Linear):
            setattr(parent, child_name, LoRALinear(child, rank, alpha))
        else:
            setattr(parent, child_name, LoRAConv2d(child, rank, alpha))
    return model


@correct("adapts first, then freezes all but the factors")
def inject_lora(model, targets, rank, alpha):
    check_model("model", model)
    check_targets("targets", targets, model)
    check_count("rank", rank, minimum=1)
    check_positive("alpha", alpha)
    kinds = {nn.Linear: LoRALinear, nn.Conv2d: LoRAConv2d}
    for name, layer in list(model.named_modules()):
        if name in targets:
            model.set_submodule(name, kinds[type(layer)](layer, rank, alpha))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith(("lora_a", "lora_b")))
    return model


# --- merge -----------------------------------------------------------------------------------------------------------


@wrong("applied twice, it adds twice")
def merge(model):
    check_model("model", model)
    for _, layer in lora_layers(model):
        with torch.no_grad():
            layer.base.weight += layer.delta_weight()
        layer.merged = True


@wrong("does not say that it has merged")
def merge(model):
    check_model("model", model)
    for _, layer in lora_layers(model):
        if not layer.merged:
            with torch.no_grad():
                layer.base.weight += layer.delta_weight()


@wrong("subtracts")
def merge(model):
    check_model("model", model)
    for _, layer in lora_layers(model):
        if not layer.merged:
            with torch.no_grad():
                layer.base.weight -= layer.delta_weight()
            layer.merged = True


@wrong("assigns a sum, which torch refuses as a parameter")
def merge(model):
    check_model("model", model)
    for _, layer in lora_layers(model):
        if not layer.merged:
            layer.base.weight = layer.base.weight + layer.delta_weight()
            layer.merged = True


@wrong("scales a second time")
def merge(model):
    check_model("model", model)
    for _, layer in lora_layers(model):
        if not layer.merged:
            with torch.no_grad():
                layer.base.weight += layer.scaling * layer.delta_weight()
            layer.merged = True


@wrong("forgets the scale")
def merge(model):
    check_model("model", model)
    for _, layer in lora_layers(model):
        if not layer.merged:
            with torch.no_grad():
                layer.base.weight += layer.delta_weight() / layer.scaling
            layer.merged = True


@wrong("only says that it has merged")
def merge(model):
    check_model("model", model)
    for _, layer in lora_layers(model):
        layer.merged = True


@wrong("zeroes the factors, so that it cannot be undone")
def merge(model):
    check_model("model", model)
    for _, layer in lora_layers(model):
        if not layer.merged:
            with torch.no_grad():
                layer.base.weight += layer.delta_weight()
                layer.lora_b.zero_()
            layer.merged = True


@wrong("the merged weight trains")
def merge(model):
    check_model("model", model)
    for _, layer in lora_layers(model):
        if not layer.merged:
            layer.base.weight = nn.Parameter((layer.base.weight + layer.delta_weight()).detach())
            layer.merged = True


@wrong("looks at the first layer only to see whether it has merged")
def merge(model):
    check_model("model", model)
    layers = lora_layers(model)
    if layers and not layers[0][1].merged:
        for _, layer in layers:
            with torch.no_grad():
                layer.base.weight += layer.delta_weight()
            layer.merged = True


@correct("through data")
def merge(model):
    check_model("model", model)
    for module in model.modules():
        if isinstance(module, LoRALayer) and not module.merged:
            module.base.weight.data = module.base.weight.data + module.delta_weight().detach()
            module.merged = True


@correct("copy_ under no_grad, skipping with continue")
@torch.no_grad()
def merge(model):
    check_model("model", model)
    for _, layer in lora_layers(model):
        if layer.merged:
            continue
        layer.base.weight.copy_(layer.base.weight + layer.delta_weight())
        layer.merged = True


# --- unmerge ---------------------------------------------------------------------------------------------------------


@wrong("applied twice, it subtracts twice")
def unmerge(model):
    check_model("model", model)
    for _, layer in lora_layers(model):
        with torch.no_grad():
            layer.base.weight -= layer.delta_weight()
        layer.merged = False


@wrong("adds")
def unmerge(model):
    check_model("model", model)
    for _, layer in lora_layers(model):
        if layer.merged:
            with torch.no_grad():
                layer.base.weight += layer.delta_weight()
            layer.merged = False


@wrong("only says that it has unmerged")
def unmerge(model):
    check_model("model", model)
    for _, layer in lora_layers(model):
        layer.merged = False


@wrong("does not say that it has unmerged")
def unmerge(model):
    check_model("model", model)
    for _, layer in lora_layers(model):
        if layer.merged:
            with torch.no_grad():
                layer.base.weight -= layer.delta_weight()


@wrong("forgets the scale")
def unmerge(model):
    check_model("model", model)
    for _, layer in lora_layers(model):
        if layer.merged:
            with torch.no_grad():
                layer.base.weight -= layer.delta_weight() / layer.scaling
            layer.merged = False


@wrong("zeroes the factors instead")
def unmerge(model):
    check_model("model", model)
    for _, layer in lora_layers(model):
        if layer.merged:
            with torch.no_grad():
                layer.base.weight -= layer.delta_weight()
                layer.lora_b.zero_()
            layer.merged = False


@wrong("the condition the wrong way round")
def unmerge(model):
    check_model("model", model)
    for _, layer in lora_layers(model):
        if not layer.merged:
            with torch.no_grad():
                layer.base.weight -= layer.delta_weight()
            layer.merged = False


@correct("through data")
def unmerge(model):
    check_model("model", model)
    for module in model.modules():
        if isinstance(module, LoRALayer) and module.merged:
            module.base.weight.data = module.base.weight.data - module.delta_weight().detach()
            module.merged = False


@correct("sub_ with the flag as a factor")
@torch.no_grad()
def unmerge(model):
    check_model("model", model)
    for _, layer in lora_layers(model):
        layer.base.weight.sub_(layer.delta_weight() * float(layer.merged))
        layer.merged = False


# --- lora_state_dict -------------------------------------------------------------------------------------------------


@wrong("the whole state dict")
def lora_state_dict(model):
    check_model("model", model)
    return {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}


@wrong("everything that trains")
def lora_state_dict(model):
    check_model("model", model)
    return {name: p.detach().cpu().clone() for name, p in model.named_parameters() if p.requires_grad}


@wrong("not copied: training changes it")
def lora_state_dict(model):
    check_model("model", model)
    return {name: p.detach() for name, p in model.named_parameters() if name.endswith(("lora_a", "lora_b"))}


@wrong("the parameters themselves, with gradients")
def lora_state_dict(model):
    check_model("model", model)
    return {name: p for name, p in model.named_parameters() if name.endswith(("lora_a", "lora_b"))}


@wrong("clones that still carry the gradient's history")
def lora_state_dict(model):
    check_model("model", model)
    return {name: p.clone() for name, p in model.named_parameters() if name.endswith(("lora_a", "lora_b"))}


@wrong("the products instead of the factors")
def lora_state_dict(model):
    check_model("model", model)
    return {name: layer.delta_weight().detach().clone() for name, layer in lora_layers(model)}


@wrong("names without the layer: later layers overwrite earlier ones")
def lora_state_dict(model):
    check_model("model", model)
    factors = {}
    for _, layer in lora_layers(model):
        factors |= {"lora_a": layer.lora_a.detach().clone(), "lora_b": layer.lora_b.detach().clone()}
    return factors


@wrong("only B")
def lora_state_dict(model):
    check_model("model", model)
    return {f"{name}.lora_b": layer.lora_b.detach().cpu().clone() for name, layer in lora_layers(model)}


@wrong("the base of each adapted layer as well")
def lora_state_dict(model):
    check_model("model", model)
    names = tuple(name for name, _ in lora_layers(model))
    return {key: tensor.detach().clone() for key, tensor in model.state_dict().items() if key.startswith(names)}


@correct("by name, from the state dict")
def lora_state_dict(model):
    check_model("model", model)
    state = model.state_dict()
    return {name: state[name].detach().clone().cpu() for name in state if name.rpartition(".")[2] in ("lora_a", "lora_b")}


@correct("layer by layer, joined with a dot")
def lora_state_dict(model):
    check_model("model", model)
    collected = {}
    for name, module in model.named_modules():
        if isinstance(module, LoRALayer):
            prefix = f"{name}." if name else ""
            collected[prefix + "lora_a"] = torch.tensor(module.lora_a.detach().cpu().numpy().copy())
            collected[prefix + "lora_b"] = torch.tensor(module.lora_b.detach().cpu().numpy().copy())
    return collected


# --- best_low_rank ---------------------------------------------------------------------------------------------------


@wrong("the smallest singular values")
def best_low_rank(update, rank):
    check_weight("update", update)
    check_count("rank", rank, minimum=0)
    u, s, vh = torch.linalg.svd(update.detach().flatten(1), full_matrices=False)
    first = max(len(s) - rank, 0)
    return (u[:, first:] * s[first:] @ vh[first:]).view(update.shape)


@wrong("forgets the singular values")
def best_low_rank(update, rank):
    check_weight("update", update)
    check_count("rank", rank, minimum=0)
    u, s, vh = torch.linalg.svd(update.detach().flatten(1), full_matrices=False)
    return (u[:, :rank] @ vh[:rank]).view(update.shape)


@wrong("one term too many")
def best_low_rank(update, rank):
    check_weight("update", update)
    check_count("rank", rank, minimum=0)
    u, s, vh = torch.linalg.svd(update.detach().flatten(1), full_matrices=False)
    return (u[:, : rank + 1] * s[: rank + 1] @ vh[: rank + 1]).view(update.shape)


@wrong("the transposed right vectors")
def best_low_rank(update, rank):
    check_weight("update", update)
    check_count("rank", rank, minimum=0)
    matrix = update.detach().flatten(1)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    v = vh.T
    return (u[:, :rank] * s[:rank] @ v[:rank, : matrix.shape[1]]).view(update.shape)


@wrong("keeps the first rows and columns")
def best_low_rank(update, rank):
    check_weight("update", update)
    check_count("rank", rank, minimum=0)
    matrix = torch.zeros_like(update.detach().flatten(1))
    matrix[:rank] = update.detach().flatten(1)[:rank]
    return matrix.view(update.shape)


@wrong("keeps the rows with the largest norm")
def best_low_rank(update, rank):
    check_weight("update", update)
    check_count("rank", rank, minimum=0)
    matrix = update.detach().flatten(1)
    kept = torch.zeros_like(matrix)
    chosen = matrix.norm(dim=1).argsort(descending=True)[:rank]
    kept[chosen] = matrix[chosen]
    return kept.view(update.shape)


@wrong("each kernel position for itself")
def best_low_rank(update, rank):
    check_weight("update", update)
    check_count("rank", rank, minimum=0)
    matrices = update.detach()[..., None, None] if update.dim() == 2 else update.detach()
    u, s, vh = torch.linalg.svd(matrices.permute(2, 3, 0, 1), full_matrices=False)
    return (u[..., :rank] * s[..., None, :rank] @ vh[..., :rank, :]).permute(2, 3, 0, 1).reshape(update.shape)


@wrong("the matrix (out in, k k)")
def best_low_rank(update, rank):
    check_weight("update", update)
    check_count("rank", rank, minimum=0)
    matrix = update.detach() if update.dim() == 2 else update.detach().flatten(2).flatten(0, 1)
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * s[:rank] @ vh[:rank]).view(update.shape)


@wrong("squared singular values")
def best_low_rank(update, rank):
    check_weight("update", update)
    check_count("rank", rank, minimum=0)
    u, s, vh = torch.linalg.svd(update.detach().flatten(1), full_matrices=False)
    return (u[:, :rank] * s[:rank] ** 2 @ vh[:rank]).view(update.shape)


@wrong("what is left instead of the approximation")
def best_low_rank(update, rank):
    check_weight("update", update)
    check_count("rank", rank, minimum=0)
    u, s, vh = torch.linalg.svd(update.detach().flatten(1), full_matrices=False)
    return update - (u[:, :rank] * s[:rank] @ vh[:rank]).view(update.shape)


@wrong("returns a matrix")
def best_low_rank(update, rank):
    check_weight("update", update)
    check_count("rank", rank, minimum=0)
    u, s, vh = torch.linalg.svd(update.detach().flatten(1), full_matrices=False)
    return u[:, :rank] * s[:rank] @ vh[:rank]


@correct("sets the small singular values to zero")
def best_low_rank(update, rank):
    check_weight("update", update)
    check_count("rank", rank, minimum=0)
    u, s, vh = torch.linalg.svd(update.detach().reshape(len(update), -1), full_matrices=False)
    s = torch.where(torch.arange(len(s)) < rank, s, torch.zeros_like(s))
    return (u @ torch.diag(s) @ vh).reshape(update.shape)


@correct("projects onto the leading eigenvectors of M M^T")
def best_low_rank(update, rank):
    check_weight("update", update)
    check_count("rank", rank, minimum=0)
    matrix = update.detach().flatten(1)
    _, vectors = torch.linalg.eigh(matrix.double() @ matrix.double().T)
    leading = vectors.flip(1)[:, :rank].to(matrix.dtype)
    return (leading @ (leading.T @ matrix)).view(update.shape)


from course_utils.lora import LoRAConv2d, LoRALinear  # noqa: E402
