"""Lab 5's task, its training loop and its files, at tiny sizes; and what happens when ImageNet weights cannot be had."""

from __future__ import annotations

import copy
import dataclasses
import math
import urllib.error

import matplotlib
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from course_utils import data, lora, profiles
from course_utils.data import DamagedData, MissingData
from course_utils.lora import plots, transfer, updates, widgets
from course_utils.lora.given import convolutions, fix_batch_norm, release_batch_norm
from course_utils.lora.plan import PLANS, plan_for
from course_utils.lora.toys import toy_network
from course_utils.resnet import ResNet
from tests.course_utils.tiny import tiny_dataset

matplotlib.use("Agg")

TINY = dataclasses.replace(PLANS["quick"], n_train=64, n_test=32, epochs=2, batch_size=16)


@pytest.fixture
def tiny():
    """A narrow residual network and a grey data set made colourful."""
    torch.manual_seed(0)
    network = ResNet(n_blocks=1, in_channels=3, num_classes=10, width=4).eval()
    dataset = transfer.as_colour(data.load_fashion_mnist(64, 32), 32)
    return network, dataset


def test_quick_task_is_the_cifar10_network_with_a_new_classifier():
    network, dataset = transfer.load_task(TINY)
    assert dataset.train_images.shape == (64, 3, 32, 32)
    assert dataset.train_images.dtype == torch.uint8
    pretrained = transfer.load_source("resnet20_cifar10", 32)
    for name, tensor in pretrained.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name]) != name.startswith("fc")
    again, _ = transfer.load_task(TINY)
    assert torch.equal(network.fc.weight, again.fc.weight)


def test_grey_images_are_padded_repeated_and_normalised_by_their_own_statistics():
    grey = data.load_fashion_mnist()
    colour = transfer.as_colour(grey, 32)
    assert torch.equal(colour.test_images[:5, 1], F.pad(grey.test_images[:5, 0], (2, 2, 2, 2)))
    pixels = F.pad(grey.train_images, (2, 2, 2, 2)).float() / 255
    assert colour.mean == pytest.approx([float(pixels.mean())] * 3, abs=1e-4)
    assert colour.std == pytest.approx([float(pixels.std())] * 3, abs=1e-4)
    assert transfer.as_colour(colour, 32) is colour


def test_new_classifier_leaves_the_global_generator_alone(tiny):
    network, _ = tiny
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    transfer.new_classifier(network, 7, seed=1)
    assert torch.equal(torch.rand(1), expected)
    assert network.fc.out_features == 7


@pytest.mark.parametrize("kind", ["full", "frozen", "lora"])
def test_outcome_counts_what_trained_and_the_file_is_the_task(tiny, tmp_path, kind):
    network, dataset = tiny
    prepared = copy.deepcopy(network)
    if kind == "frozen":
        fix_batch_norm(prepared)
        lora.freeze_until(prepared, "fc")
    elif kind == "lora":
        lora.inject_lora(prepared, convolutions(prepared), 2, 4.0)
        prepared.fc.requires_grad_(True)
        release_batch_norm(prepared)
    fresh, n_trained = copy.deepcopy(prepared), lora.trainable_parameters(prepared)[0]
    frozen = {name: p.clone() for name, p in prepared.named_parameters() if not p.requires_grad}
    outcome = transfer.TaskTrainer(dataset, TINY, padding=2)(prepared, kind, lr=0.05)
    assert outcome.trained == n_trained
    assert not any(module.training for module in outcome.network.modules())
    assert outcome.statistics == (0 if kind == "frozen" else 2 * 4 * (3 + 2 * 2 + 2 * 4))
    assert 0 <= outcome.accuracy <= 1
    assert outcome.seconds > 0
    for name, parameter in outcome.network.named_parameters():
        assert name not in frozen or torch.equal(parameter.cpu(), frozen[name]), name
    path = tmp_path / "task.safetensors"
    assert transfer.save_adapter(path, transfer.task_tensors(outcome.network)) == outcome.size_bytes
    assert path.stat().st_size == outcome.size_bytes
    transfer.load_adapter(fresh, path)
    images = torch.randn(4, 3, 32, 32)
    trained = outcome.network.cpu().eval()
    assert torch.equal(fresh.eval()(images), trained(images))
    assert kind in str(outcome)


def test_a_file_for_another_network_is_refused(tiny, tmp_path):
    network, _ = tiny
    path = tmp_path / "task.safetensors"
    transfer.save_adapter(path, {"conv1.lora_a": torch.zeros(2)})
    with pytest.raises(ValueError, match="conv1.lora_a"):
        transfer.load_adapter(network, path)


def test_recovered_share_of_the_gap():
    assert transfer.recovered(0.8, 0.6, 0.9) == pytest.approx(2 / 3)
    assert math.isnan(transfer.recovered(0.8, 0.6, 0.6))


# --- updates ---------------------------------------------------------------------------------------------------------


def test_full_updates_put_back_give_the_finetuned_network(tiny):
    before, _ = tiny
    after = copy.deepcopy(before)
    with torch.no_grad():
        for parameter in after.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    changes = updates.full_updates(before, after)
    assert list(changes) == convolutions(before)
    images = torch.randn(2, 3, 32, 32)
    rebuilt = updates.with_updates(before, after, changes)
    torch.testing.assert_close(rebuilt(images), after(images), rtol=1e-4, atol=1e-5)
    nothing = updates.with_updates(before, after, {name: lora.best_low_rank(change, 0) for name, change in changes.items()})
    assert torch.equal(nothing.conv1.weight, before.conv1.weight)
    assert torch.equal(nothing.fc.weight, after.fc.weight)
    errors = updates.relative_errors(changes, lora.best_low_rank, (0, 1, 100))
    assert all(values[0] == 1 and 0 < values[1] < 1 and values[2] < 1e-5 for values in errors.values())


def test_rounding_reaches_the_weights_below_adapters_and_nothing_else():
    network = lora.inject_lora(toy_network(1), ["conv1", "head.fc1"], 2, 4.0)
    rounded = updates.with_rounded_convolutions(network, torch.round)
    for name, parameter in rounded.named_parameters():
        original = dict(network.named_parameters())[name]
        is_kernel = name in ("conv1.base.weight", "conv20.weight", "conv2.weight")
        assert torch.equal(parameter, original.round() if is_kernel else original), name


# --- the full profile ------------------------------------------------------------------------------------------------


def no_network(*arguments, **options):
    raise urllib.error.URLError("Temporary failure in name resolution")


def test_missing_imagenet_weights_say_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(MissingData) as caught:
        transfer.load_task(PLANS["full"])
    message = str(caught.value)
    assert str(tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth") in message
    assert "https://" in message
    assert "COURSE_PROFILE" in message
    assert "Temporary failure" in message


def test_damaged_imagenet_weights_say_what_to_do(monkeypatch, tmp_path):
    """A download that was cut short lies in the cache: torch reads it and fails."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "resnet18-f37072fd.pth").write_bytes(b"half a file")
    with pytest.raises(DamagedData, match="resnet18-f37072fd.pth cannot be read .* Delete the file"):
        transfer.load_source("resnet18_imagenet", 64)


def test_imagenet_network_in_the_cache_is_adapted_to_small_images(monkeypatch, tmp_path):
    """With a file of the right name (random weights here) the full profile's path runs from end to end."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18().state_dict(), folder / "resnet18-f37072fd.pth")
    network, dataset = transfer.load_source("resnet18_imagenet", 64), tiny_dataset(n_train=16, n_test=8, n_channels=3)
    transfer.new_classifier(network, dataset.n_classes)
    sizes = []
    network.conv1.register_forward_pre_hook(lambda module, inputs: sizes.append(tuple(inputs[0].shape)))
    lora.inject_lora(network, convolutions(network), 2, 4.0)
    network.fc.requires_grad_(True)
    release_batch_norm(network)
    plan = dataclasses.replace(PLANS["full"], epochs=1, batch_size=8)
    outcome = transfer.TaskTrainer(dataset, plan, padding=4)(copy.deepcopy(network), "lora", 0.01)
    assert set(sizes) == {(8, 3, 64, 64)}
    assert outcome.trained < 0.15 * outcome.total


def test_unknown_source_is_refused():
    with pytest.raises(ValueError, match="resnet18_imagenet"):
        transfer.load_source("resnet50", 32)


def test_every_profile_has_a_plan():
    assert PLANS.keys() == profiles.PROFILES.keys()
    assert PLANS["full"].epochs == 8
    assert PLANS["full"].source == "resnet18_imagenet"
    with pytest.raises(ValueError, match="profile"):
        plan_for(dataclasses.replace(profiles.PROFILES["quick"], name="other"))


# --- pictures --------------------------------------------------------------------------------------------------------


def outcome(label: str, trained: int) -> transfer.Outcome:
    return transfer.Outcome(label, 0.5, trained, 1000, 8, 1.0, 4 * trained, nn.Identity())


def test_pictures_show_what_they_are_given(tiny):
    network, dataset = tiny
    figure = plots.anatomy(network.stage3[0].conv2.weight, 2)
    assert any("2 x 144" in ax.get_title() for ax in figure.axes)
    assert len(plots.examples(dataset, n=3).axes) == 3
    figure = plots.methods([outcome("full finetuning", 900), outcome("LoRA", 90)])
    assert sorted(line.get_xdata()[0] for line in figure.axes[0].get_lines()) == [90, 900]
    figure = plots.rank_curve({0: 0.5, 2: 0.7}, {0: 0.1, 2: 0.6, 8: 0.8}, full=0.8, frozen=0.4)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["0", "2", "8"]
    figure = plots.alpha_curve({1.0: 0.5, 4.0: 0.6}, full=0.7, rank=2)
    assert list(figure.axes[0].get_lines()[0].get_ydata()) == [0.5, 0.6]
    change = torch.randn(4, 4, 3, 3)
    figure = plots.spectra({"layer": change}, {"layer": lora.best_low_rank(change, 2)})
    full, low = figure.axes[0].get_lines()
    assert len(full.get_xdata()) == 4
    assert len(low.get_xdata()) == 2
    plots.remaining({"first": [1.0, 0.5], "last": [1.0, 0.2]}, [0, 1])
    matplotlib.pyplot.close("all")


def test_slider_visits_ranks_and_reports_errors():
    changes = {"first": torch.randn(4, 6), "last": torch.randn(4, 2, 3, 3)}
    explorer = widgets.RankExplorer(changes, lora.best_low_rank, {0: 0.1, 2: 0.5, 4: 0.8})
    before = explorer.image.value
    explorer.slider.value = 4
    assert explorer.image.value != before
    assert "error left 0.000" in explorer.status.value
    explorer.layer.value = "first"
    assert "4 x" not in explorer.status.value
    assert "40 numbers instead of 24" in explorer.status.value
    explorer.approximate = lambda update, rank: 1 / 0
    explorer.slider.value = 2
    assert "ZeroDivisionError" in explorer.status.value
    with pytest.raises(ValueError, match="accuracies"):
        widgets.RankExplorer(changes, lora.best_low_rank, {})


def test_half_a_file_and_another_rank_are_refused_and_nothing_is_loaded(tmp_path):
    def adapted(rank):
        torch.manual_seed(rank)
        network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        return torch.nn.Sequential(*(lora.LoRALinear(layer, rank, 1.0) for layer in network))

    path, network = tmp_path / "task.safetensors", adapted(2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    tensors = transfer.task_tensors(adapted(2))
    transfer.save_adapter(path, dict(list(tensors.items())[1:]))
    with pytest.raises(ValueError, match=r"does not fit this network .*; 1 tensors differ: .* is None there"):
        transfer.load_adapter(network, path)
    transfer.save_adapter(path, transfer.task_tensors(adapted(3)))
    with pytest.raises(ValueError, match=r"4 tensors differ: .*3.* there and .*2.* here"):
        transfer.load_adapter(network, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
