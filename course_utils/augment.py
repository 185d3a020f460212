"""Augmentation and normalisation of whole batches.

Pad-crop and mirror are the standard augmentation for small images (He et al. 2015, section 4.2): pad each side by a few
black pixels, cut a window of the original size at a random place, mirror it with probability one half. Done image by
image this costs more time than the network; done for the whole batch it is three tensor operations on bytes, on
whichever device the images are on.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F


def normalise(images: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """Compute (images / 255 - mean) / std, channel by channel.

    Args:
        images: Shape (N, C, H, W), uint8.
        mean: C means of pixels in [0, 1].
        std: C standard deviations of pixels in [0, 1].

    Returns:
        Shape (N, C, H, W), float32, laid out channels-last in memory (the layout in which convolutions are fastest).

    Raises:
        TypeError: If the images are not uint8 (normalising twice is a common mistake).
        ValueError: If the number of means or deviations is not the number of channels.
    """
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be uint8 (values 0 to 255), got {images.dtype}; were they normalised already?")
    if not len(mean) == len(std) == images.shape[1]:
        raise ValueError(f"images have {images.shape[1]} channels, got {len(mean)} means and {len(std)} deviations")
    scale, shift = _scale_and_shift(tuple(mean), tuple(std), images.device)
    pixels = images.contiguous(memory_format=torch.channels_last).float()
    return pixels.mul_(scale).add_(shift)


@functools.lru_cache(maxsize=32)
def _scale_and_shift(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """1 / (255 std) and -mean / std, shape (1, C, 1, 1), kept on the device: copying them there would wait for it."""
    deviations = torch.tensor(std, dtype=torch.float32)
    scale, shift = 1 / (255 * deviations), -torch.tensor(mean, dtype=torch.float32) / deviations
    return scale.view(1, -1, 1, 1).to(device), shift.view(1, -1, 1, 1).to(device)


def draw_offsets(n: int, padding: int, generator: torch.Generator) -> torch.Tensor:
    """Draw where the window of each image begins in the padded image.

    Args:
        n: Number of images.
        padding: Largest shift in pixels.
        generator: Source of randomness, on the CPU, so that every device sees the same offsets.

    Returns:
        Rows and columns, shape (2, n), int64, from 0 to 2 padding; padding itself is no shift.
    """
    return torch.randint(0, 2 * padding + 1, (2, n), generator=generator)


def draw_mirrors(n: int, generator: torch.Generator) -> torch.Tensor:
    """Draw which images are mirrored.

    Args:
        n: Number of images.
        generator: Source of randomness, on the CPU.

    Returns:
        Shape (n, 1, 1, 1), bool, True with probability 1/2.
    """
    return torch.randint(0, 2, (n, 1, 1, 1), generator=generator).bool()


def crop(images: torch.Tensor, padding: int, offsets: torch.Tensor) -> torch.Tensor:
    """Pad each image with black and cut a window of its size out.

    Args:
        images: Shape (N, C, H, W), any dtype.
        padding: Pixels added to every side.
        offsets: Shape (2, N), int64, on the images' device: row and column of each window's first pixel.

    Returns:
        Shape (N, C, H, W), same dtype.
    """
    n, _, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)  # (N, C, H + 2p, W + 2p)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (N, C, 2p + 1, 2p + 1, H, W), a view
    return windows[torch.arange(n, device=images.device), :, offsets[0], offsets[1]]


def mirror(images: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
    """Mirror some images left to right.

    Args:
        images: Shape (N, C, H, W), any dtype.
        mirrored: Shape (N, 1, 1, 1), bool, on the images' device.

    Returns:
        Shape (N, C, H, W), same dtype.
    """
    return torch.where(mirrored, images.flip(-1), images)


def random_crop(images: torch.Tensor, padding: int, generator: torch.Generator) -> torch.Tensor:
    """Shift every image by its own random offset in {-padding, ..., padding}^2, filling with black.

    Args:
        images: Shape (N, C, H, W), any dtype.
        padding: Largest shift in pixels; 0 returns the images as they are.
        generator: Source of the offsets, on the CPU.

    Returns:
        Shape (N, C, H, W), same dtype.
    """
    if padding == 0:
        return images
    return crop(images, padding, draw_offsets(len(images), padding, generator).to(images.device))


def random_flip(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mirror each image left to right with probability 1/2.

    Args:
        images: Shape (N, C, H, W), any dtype.
        generator: Source of the coin flips, on the CPU.

    Returns:
        Shape (N, C, H, W), same dtype.
    """
    return mirror(images, draw_mirrors(len(images), generator).to(images.device))


def pad_crop_flip(images: torch.Tensor, generator: torch.Generator, padding: int = 4) -> torch.Tensor:
    """Apply a random crop after padding, then a random mirror, each drawn per image.

    Args:
        images: Shape (N, C, H, W), uint8.
        generator: Source of randomness, on the CPU.
        padding: Pixels added to every side before the crop.

    Returns:
        Shape (N, C, H, W), uint8.

    Source:
        He et al., "Deep residual learning for image recognition" (2015), section 4.2: padding 4 for 32 x 32 images.
    """
    return random_flip(random_crop(images, padding, generator), generator)
