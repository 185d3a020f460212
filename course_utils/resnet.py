"""ResNet-20, the small residual network of He et al. (2015), section 4.2.

A stack of 6n + 2 weighted layers for small images; n = 3 gives 20:

    one 3 x 3 convolution to 16 channels
    stage 1: 3 blocks, 16 channels, full resolution
    stage 2: 3 blocks, 32 channels, half resolution
    stage 3: 3 blocks, 64 channels, quarter resolution
    mean over all positions, then one linear layer

A block computes relu(x + F(x)) with F = two 3 x 3 convolutions, each followed by batch normalisation. Where a stage
halves the resolution, the shortcut takes every second pixel and pads the new channels with zeros (option A of the
paper), so it has no parameters. All in all 0.27 million parameters, of which 99 % are convolution weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """Build a 3 x 3 convolution without bias (batch normalisation follows and has one)."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """relu(shortcut(x) + bn(conv(relu(bn(conv(x)))))), the residual block with two weighted layers.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, at least in_channels.
        stride: 2 halves the resolution, 1 keeps it.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.new_channels = out_channels - in_channels

    def shortcut(self, x: torch.Tensor) -> torch.Tensor:
        """Return x, subsampled and padded with zero channels where the block changes its shape (no parameters)."""
        if self.stride == 1 and self.new_channels == 0:
            return x
        before = self.new_channels // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.new_channels - before))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """Residual network for small images with 6n + 2 weighted layers.

    Args:
        n_blocks: Blocks a stage (n); 3 gives ResNet-20.
        in_channels: Channels of the images, 1 or 3.
        num_classes: Number of outputs.
        width: Channels of the first stage; the others have 2 and 4 times as many.
    """

    def __init__(self, n_blocks: int, in_channels: int = 3, num_classes: int = 10, width: int = 16):
        super().__init__()
        self.conv1 = conv3x3(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.stage1 = _stage(n_blocks, width, width, stride=1)
        self.stage2 = _stage(n_blocks, width, 2 * width, stride=2)
        self.stage3 = _stage(n_blocks, 2 * width, 4 * width, stride=2)
        self.fc = nn.Linear(4 * width, num_classes)
        initialise(self)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (N, C, H, W), float, to feature vectors (N, 4 * width): everything but the classifier."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        return x.mean(dim=(2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (N, C, H, W), float, to logits (N, num_classes)."""
        return self.fc(self.features(x))


def _stage(n_blocks: int, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels) for _ in range(n_blocks - 1)))


def initialise(model: nn.Module) -> None:
    """Draw convolution and linear weights from N(0, 2 / fan_in), in place; biases become zero.

    Args:
        model: Any module; torch's global generator is used (see `runtime.seed_everything`).

    Source:
        He et al., "Delving deep into rectifiers" (2015), equation 10.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def resnet20(in_channels: int = 3, num_classes: int = 10) -> ResNet:
    """Build ResNet-20: 20 weighted layers, about 0.27 million parameters, freshly initialised.

    Args:
        in_channels: 3 for CIFAR-10, 1 for Fashion-MNIST.
        num_classes: Number of outputs.

    Returns:
        The model, on the CPU, in float32, in training mode.

    Source:
        He et al., "Deep residual learning for image recognition", arXiv:1512.03385 (2015), section 4.2.
    """
    return ResNet(n_blocks=3, in_channels=in_channels, num_classes=num_classes)


def weighted_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """List the convolution and linear layers of a model, from the input to the output.

    For ResNet-20 these are the 20 layers that the paper counts, in its order: `conv1`, `stage1.0.conv1`,
    `stage1.0.conv2`, ..., `stage3.2.conv2`, `fc`.

    Args:
        model: Any module whose layers are defined in the order in which they are used.

    Returns:
        (name, module) pairs; `module.weight` is the tensor that pruning and quantization work on.
    """
    return [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def check_weights_are_parameters(model: nn.Module) -> None:
    """Refuse a model in which a layer's weight is computed from something else at each forward pass.

    `torch.nn.utils.prune` leaves layers like that: what is set to zero in such a weight comes back.

    Args:
        model: Any module.

    Raises:
        ValueError: If there is such a layer; the message names all of them.
    """
    computed = [f"{name}.weight" for name, layer in weighted_layers(model) if "weight" not in layer._parameters]
    if computed:
        raise ValueError(
            f"weights must be parameters of the model; {computed} are computed at each forward pass. After "
            'torch.nn.utils.prune call its remove(layer, "weight") first'
        )
