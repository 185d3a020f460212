"""A small ConvNet: stages of 3 x 3 convolutions, each stage half as large and twice as wide as the one before.

    stage 1: convolution, batch normalisation, ReLU; 2 x 2 max pooling      28 x 28 -> 14 x 14
    stage 2: the same, 64 channels                                          14 x 14 ->  7 x 7
    stage 3: the same, 128 channels                                          7 x 7  ->  3 x 3
    flatten, then one linear layer

It is a plain chain: every layer reads exactly what the layer before it has written, and nothing else does. That makes
it the network to learn structured pruning on: a filter that goes takes one channel with it, and exactly one layer has
to know about it. (In a residual network a channel is added to other channels; see `course_utils.resnet`.) The
classifier reads *all positions* of the last channels, 3 x 3 of each, so one filter of the last convolution is nine of
its inputs.

Convolutions have no bias: batch normalisation follows and has one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from course_utils.resnet import initialise
from course_utils.validate import check_count


class ConvNet(nn.Sequential):
    """A chain of convolutions with batch normalisation, ReLU and pooling, and a linear classifier.

    The layers are called conv1, bn1, relu1, pool1, conv2, ..., flatten, fc; with several convolutions a stage only the
    last one of a stage is followed by a pool.

    Args:
        widths: Channels of each stage.
        in_channels: Channels of the images.
        num_classes: Number of outputs.
        image_size: Height and width of the images, at least 2 ** len(widths).
        convs_per_stage: Convolutions in each stage.
        conv: Makes a convolution from (in_channels, out_channels, kernel_size, padding=..., bias=...); a subclass of
            `nn.Conv2d`.

    Raises:
        ValueError: If a number is out of range.
        TypeError: If a number is no int.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (32, 64, 128),
        in_channels: int = 1,
        num_classes: int = 10,
        image_size: int = 28,
        convs_per_stage: int = 1,
        conv: Callable[..., nn.Conv2d] = nn.Conv2d,
    ):
        check_count("number of widths", len(widths), minimum=1)
        for width in (*widths, in_channels, num_classes, convs_per_stage):
            check_count("widths, in_channels, num_classes and convs_per_stage", width, minimum=1)
        check_count("image_size", image_size, minimum=2 ** len(widths))
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        number, channels = 0, in_channels
        for width in widths:
            for _ in range(convs_per_stage):
                number += 1
                layers[f"conv{number}"] = conv(channels, width, 3, padding=1, bias=False)
                layers[f"bn{number}"] = nn.BatchNorm2d(width)
                layers[f"relu{number}"] = nn.ReLU()
                channels = width
            layers[f"pool{number}"] = nn.MaxPool2d(2)
        side = image_size // 2 ** len(widths)
        layers["flatten"] = nn.Flatten()
        layers["fc"] = nn.Linear(channels * side * side, num_classes)
        super().__init__(layers)
        initialise(self)
