"""Checkpoints: they load, they reach their recorded accuracy, damage is noticed; and the command that makes them."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from course_admin import pretrain
from course_utils import checkpoints, data, data_files
from course_utils.data_files import DamagedData, MissingData
from course_utils.files import replacing
from course_utils.resnet import resnet20
from course_utils.training import evaluate
from tests.course_utils.tiny import (
    FP32,
    cut_short,
    move_course_to,
    needs_cifar10,
    state_equal,
    tiny_dataset,
    tiny_model,
)

REQUIRED_ACCURACY = {"fashion_mnist": 0.935, "cifar10": 0.922, "cifar10_restarted": 0.922}


@pytest.mark.parametrize("dataset_name", REQUIRED_ACCURACY)
def test_the_record_is_complete_and_reaches_the_bar(dataset_name):
    record = checkpoints.read_record(f"resnet20_{dataset_name}")
    assert record["test_accuracy"] >= REQUIRED_ACCURACY[dataset_name]
    for key in ("recipe", "torch", "trained_on", "command", "sha256", "history"):
        assert record[key], key
    assert record["recipe"] == pretrain.RECIPES[record["name"]]
    assert len(record["history"]["test_accuracy"]) == record["recipe"]["epochs"]


def test_the_fashion_mnist_checkpoint_has_the_recorded_accuracy():
    """All test images in fp32; another processor's rounding may move a few images that lie on the border."""
    record = checkpoints.read_record("resnet20_fashion_mnist")
    accuracy = evaluate(checkpoints.load_resnet20("fashion_mnist"), data.load_fashion_mnist(), on=FP32)
    assert accuracy == pytest.approx(record["test_accuracy"], abs=5e-4)


@needs_cifar10
@pytest.mark.parametrize("name", ["cifar10", "cifar10_restarted"])
def test_the_cifar10_checkpoints_have_the_recorded_accuracy(name):
    record = checkpoints.read_record(f"resnet20_{name}")
    accuracy = evaluate(checkpoints.load_resnet20(name), data.load_cifar10(), on=FP32)
    assert accuracy == pytest.approx(record["test_accuracy"], abs=5e-4)


def test_a_loaded_model_is_ready_for_evaluation_and_contiguous():
    model = checkpoints.load_resnet20("fashion_mnist")
    assert not model.training
    assert model.conv1.in_channels == 1
    assert all(parameter.is_contiguous() and parameter.dtype == torch.float32 for parameter in model.parameters())


def test_there_is_no_checkpoint_for_another_name():
    with pytest.raises(ValueError, match=r"\['cifar10', 'cifar10_restarted', 'fashion_mnist'\], got 'mnist'"):
        checkpoints.load_resnet20("mnist")


@pytest.fixture
def copied_checkpoints(tmp_path, monkeypatch):
    """A private copy of the checkpoints that a test may damage."""
    copy = shutil.copytree(checkpoints.checkpoint_folder(), tmp_path / "data" / "checkpoints")
    move_course_to(tmp_path, monkeypatch)
    return copy


def test_a_missing_checkpoint_says_what_to_run(copied_checkpoints):
    (copied_checkpoints / "resnet20_fashion_mnist.safetensors").unlink()
    with pytest.raises(MissingData, match="course pretrain resnet20_fashion_mnist"):
        checkpoints.load_resnet20("fashion_mnist")


def test_a_damaged_checkpoint_is_refused(copied_checkpoints):
    cut_short(copied_checkpoints / "resnet20_fashion_mnist.safetensors", 1)
    with pytest.raises(DamagedData, match=r"resnet20_fashion_mnist\.safetensors is damaged"):
        checkpoints.load_resnet20("fashion_mnist")


@pytest.mark.parametrize("content", ["", '{"name": "resnet', "{}", "[1]", "3"])
def test_a_damaged_record_is_named_and_does_not_stop_the_others(copied_checkpoints, content):
    (copied_checkpoints / "resnet20_cifar10.json").write_text(content)
    with pytest.raises(DamagedData, match=r"record .*resnet20_cifar10\.json is damaged .*course pretrain resnet20_cifar10"):
        checkpoints.load_resnet20("cifar10")
    outcome = {path.rsplit("/", 1)[-1]: text for path, text in data.verify().items()}
    assert "is damaged" in outcome["resnet20_cifar10.safetensors"]
    assert outcome["resnet20_fashion_mnist.safetensors"] == "ok"


def test_weights_are_read_back_bit_for_bit(tmp_path):
    model = tiny_model()
    model.to(memory_format=torch.channels_last)
    size_bytes = checkpoints.save_weights(model, tmp_path / "tiny.safetensors")
    assert size_bytes == (tmp_path / "tiny.safetensors").stat().st_size
    assert state_equal(checkpoints.load_weights(tiny_model(seed=1), tmp_path / "tiny.safetensors"), model)


def test_weights_of_another_model_are_refused_by_name(tmp_path):
    checkpoints.save_weights(tiny_model(), tmp_path / "tiny.safetensors")
    with pytest.raises(ValueError, match=r"ResNet; .*bn1\.bias is \(4,\) there and \(16,\) here"):
        checkpoints.load_weights(resnet20(), tmp_path / "tiny.safetensors")


def test_a_file_cut_short_is_damaged_and_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "tiny.safetensors"
    checkpoints.save_weights(tiny_model(), path)
    good = path.read_bytes()

    def fail_half_way():
        with replacing(path) as part:
            part.write_bytes(b"half")
            raise TypeError

    with pytest.raises(TypeError):
        fail_half_way()
    assert path.read_bytes() == good
    assert list(tmp_path.iterdir()) == [path]
    with open(path, "rb") as reader:  # a reader of the old file is not disturbed by a new one taking its place
        checkpoints.save_weights(tiny_model(seed=1), path)
        assert reader.read() == good
    cut_short(path, 10)
    with pytest.raises(DamagedData, match=r"tiny\.safetensors"):
        checkpoints.load_weights(tiny_model(), path)


def test_a_training_state_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, ("raise SystemExit('code ran')",))

    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(DamagedData, match=r"evil\.pt"):
        checkpoints.load_state(tmp_path / "evil.pt")


@pytest.fixture
def tiny_recipe(monkeypatch):
    """Let pretraining mean three epochs of the tiny network."""
    recipe = {**pretrain.RECIPES["resnet20_fashion_mnist"], "epochs": 3, "batch_size": 32, "padding": 1}
    monkeypatch.setitem(pretrain.RECIPES, "resnet20_fashion_mnist", recipe)
    monkeypatch.setattr(data, "load", lambda name: tiny_dataset())
    monkeypatch.setattr(pretrain, "resnet20", lambda in_channels, num_classes: tiny_model())
    return recipe


def test_pretrain_resumes_and_writes_weights_with_their_record(tmp_path, tiny_recipe, monkeypatch):
    folders = {"out_folder": tmp_path / "out", "state_folder": tmp_path / "state", "precision": "fp32"}
    straight = pretrain.pretrain("resnet20_fashion_mnist", progress=False, **folders)
    expected = straight.read_bytes()

    save = pretrain.training.training_state.save

    def save_and_stop(*arguments):
        save(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrain.training.training_state, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain("resnet20_fashion_mnist", progress=False, **folders)
    monkeypatch.setattr(pretrain.training.training_state, "save", save)
    path = pretrain.pretrain("resnet20_fashion_mnist", progress=False, **folders)
    assert path.read_bytes() == expected
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["recipe"] == tiny_recipe
    assert record["sha256"] == data_files.file_sha256(path)
    model = checkpoints.load_weights(tiny_model(seed=3), path)
    assert record["test_accuracy"] == evaluate(model, tiny_dataset(), on=FP32)
    assert len(record["history"]["train_loss"]) == 3
    assert "fp32" in record["trained_on"]
    lines = (tmp_path / "state" / "resnet20_fashion_mnist.log").read_text().splitlines()
    assert len(lines) == 6  # three epochs of the first run; one and two of the interrupted one


def test_a_restart_goes_on_from_another_checkpoint(tmp_path, tiny_recipe, copied_checkpoints, monkeypatch):
    start = tiny_model(seed=9)
    checkpoints.save_weights(start, copied_checkpoints / "start.safetensors")
    monkeypatch.setitem(pretrain.RECIPES, "resnet20_fashion_mnist", {**tiny_recipe, "epochs": 0, "starts_from": "start"})
    folders = {"out_folder": tmp_path / "out", "state_folder": tmp_path / "state", "precision": "fp32"}
    path = pretrain.pretrain("resnet20_fashion_mnist", progress=False, **folders)
    assert state_equal(checkpoints.load_weights(tiny_model(), path), start)
    assert json.loads(path.with_suffix(".json").read_text())["recipe"]["starts_from"] == "start"


def test_pretrain_refuses_an_unknown_name():
    with pytest.raises(ValueError, match="resnet50"):
        pretrain.pretrain("resnet50")
