"""Statistics measured anew: those of the augmented images, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from course_utils import augment, training
from course_utils.batch_norm import remeasure_batch_norm
from course_utils.pruning import prune_by_percentage
from course_utils.training import evaluate
from tests.course_utils.tiny import tiny_dataset, tiny_model


def test_statistics_are_plain_averages_over_augmented_batches():
    model, dataset = tiny_model(), tiny_dataset()
    model.bn1.running_mean.fill_(7.0)
    remeasure_batch_norm(model, dataset, padding=1, n_images=96, batch_size=32, seed=5)
    generator, means, variances = torch.Generator().manual_seed(5), [], []
    for images in dataset.train_images[:96].split(32):
        pixels = augment.normalise(augment.pad_crop_flip(images, generator, 1), dataset.mean, dataset.std)
        outputs = model.conv1(pixels).transpose(0, 1).flatten(1)
        means.append(outputs.mean(1))
        variances.append(outputs.var(1))
    torch.testing.assert_close(model.bn1.running_mean, torch.stack(means).mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.bn1.running_var, torch.stack(variances).mean(0), rtol=1e-4, atol=1e-5)


def test_no_weight_changes_and_training_goes_on_as_before():
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    assert remeasure_batch_norm(model, tiny_dataset(), padding=0, n_images=64) is model
    assert not model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.named_parameters())
    assert {norm.momentum for norm in model.modules() if isinstance(norm, nn.BatchNorm2d)} == {0.1}


def test_it_repairs_part_of_what_pruning_has_broken():
    model, dataset = tiny_model(), tiny_dataset()
    training.fit(model, dataset, epochs=12, batch_size=16, lr=0.05, padding=0, flip=False, progress=False)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.running_mean.add_(3 * norm.running_var.sqrt())  # what pruning does to them, exaggerated
    broken = evaluate(model, dataset)
    repaired = evaluate(remeasure_batch_norm(model, dataset, padding=0, batch_size=32), dataset)
    assert repaired > broken + 0.2
    prune_by_percentage(model, 0.5)
    assert remeasure_batch_norm(model, dataset, padding=0).conv1.weight.eq(0).any()


def test_bad_numbers_are_refused():
    with pytest.raises(ValueError, match="n_images"):
        remeasure_batch_norm(tiny_model(), tiny_dataset(), padding=0, n_images=0)
