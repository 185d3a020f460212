"""Augmentation: batched tensor code does what the image-by-image recipe does."""

from __future__ import annotations

import pytest
import torch
import torchvision.transforms.v2.functional as peer

from course_utils import augment


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int = 40, n_channels: int = 3, height: int = 6, width: int = 5) -> torch.Tensor:
    return torch.randint(1, 256, (n, n_channels, height, width), generator=generator(9)).to(torch.uint8)


def test_normalise_agrees_with_torchvision():
    images, mean, std = pictures(), (0.1, 0.5, 0.4), (0.2, 0.3, 0.25)
    expected = peer.normalize(peer.to_dtype(images, torch.float32, scale=True), list(mean), list(std))
    torch.testing.assert_close(augment.normalise(images, mean, std), expected, rtol=0, atol=2e-6)  # float32 rounding


def test_normalise_leaves_the_bytes_alone_and_is_channels_last():
    images = pictures()
    before = images.clone()
    out = augment.normalise(images, (0.5,) * 3, (0.5,) * 3)
    assert torch.equal(images, before)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_normalising_twice_is_refused():
    once = augment.normalise(pictures(), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(TypeError, match="uint8"):
        augment.normalise(once, (0.5,) * 3, (0.5,) * 3)


def test_normalise_refuses_statistics_of_another_number_of_channels():
    with pytest.raises(ValueError, match="3 channels, got 1 means"):
        augment.normalise(pictures(), (0.5,), (0.5,))


def test_random_crop_is_a_shift_of_each_image_by_its_own_offset():
    images, padding = pictures(), 2
    out = augment.random_crop(images, padding, generator())
    offsets = torch.randint(0, 2 * padding + 1, (2, len(images)), generator=generator())
    for image, cropped, top, left in zip(images, out, *offsets.tolist(), strict=True):
        expected = peer.crop(peer.pad(image, [padding]), top, left, *image.shape[1:])
        assert torch.equal(cropped, expected)
    assert len(set(zip(*offsets.tolist(), strict=True))) > 10  # the images do not share one offset


def test_every_shift_occurs_and_none_is_larger():
    images = torch.zeros(4000, 1, 5, 5, dtype=torch.uint8)
    images[:, :, 2, 2] = 1
    out = augment.random_crop(images, 1, generator())
    counts = out.sum(0)[0]
    assert counts.sum() == 4000  # the bright pixel never leaves the image
    assert counts[1:4, 1:4].min() > 350  # 9 shifts, 444 each on average, standard deviation 20
    assert counts[1:4, 1:4].sum() == 4000


def test_padding_zero_changes_nothing():
    images = pictures()
    assert torch.equal(augment.random_crop(images, 0, generator()), images)


def test_random_flip_mirrors_about_half_left_to_right():
    images = pictures(n=1000)
    out = augment.random_flip(images, generator())
    mirrored = (out == images.flip(-1)).flatten(1).all(1)
    kept = (out == images).flatten(1).all(1)
    assert (mirrored | kept).all()
    assert 430 < mirrored.sum() < 570  # mean 500, standard deviation 16


def test_the_generator_alone_decides():
    images = pictures()
    torch.manual_seed(1)
    first = augment.pad_crop_flip(images, generator(5), padding=2)
    torch.manual_seed(2)
    assert torch.equal(first, augment.pad_crop_flip(images, generator(5), padding=2))
    assert not torch.equal(first, augment.pad_crop_flip(images, generator(6), padding=2))
