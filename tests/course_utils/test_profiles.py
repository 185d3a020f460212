"""Profiles and the run-time choices: seed, threads, device, precision."""

from __future__ import annotations

import dataclasses
import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from course_utils import profiles, runtime


def test_quick_is_the_default_and_needs_no_download(monkeypatch):
    for value in (None, "", "quick"):
        if value is None:
            monkeypatch.delenv("COURSE_PROFILE", raising=False)
        else:
            monkeypatch.setenv("COURSE_PROFILE", value)
        assert profiles.current().name == "quick"
    assert profiles.current().dataset == "fashion_mnist"


def test_full_is_the_published_setting(monkeypatch):
    monkeypatch.setenv("COURSE_PROFILE", "full")
    full = profiles.current()
    assert (full.name, full.dataset, full.n_train, full.batch_size) == ("full", "cifar10", None, 128)


@pytest.mark.parametrize("value", ["Quick", "fast", "full,quick"])
def test_another_value_is_refused_by_name(monkeypatch, value):
    monkeypatch.setenv("COURSE_PROFILE", value)
    with pytest.raises(ValueError, match=rf"COURSE_PROFILE must be one of \['full', 'quick'\].*'{value}'"):
        profiles.current()


def test_a_profile_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        profiles.PROFILES["quick"].n_train = 1


def test_a_profile_loads_its_numbers_of_images():
    dataset = profiles.PROFILES["quick"].load_dataset()
    assert (len(dataset.train_labels), len(dataset.test_labels)) == (10_000, 5_000)


def test_importing_the_package_and_a_profile_does_not_import_torch():
    code = "import course_utils, course_utils.profiles, sys; assert 'torch' not in sys.modules, 'torch imported'"
    subprocess.run([sys.executable, "-c", code], check=True)


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), torch.rand(()).item()  # noqa: NPY002 - the global generator


def test_seeding_covers_all_three_generators():
    runtime.seed_everything(7)
    first = draws()
    assert first != draws()
    runtime.seed_everything(7)
    assert draws() == pytest.approx(first, abs=0)


@pytest.mark.parametrize(
    ("maker", "capabilities", "fast"),
    [
        ("AuthenticAMD", {"avx512_bf16": True}, True),
        ("GenuineIntel", {"avx512_bf16": True}, False),
        ("GenuineIntel", {"avx512_bf16": True, "amx_bf16": True}, True),
        ("GenuineIntel", {"avx2": True, "avx512_f": True}, False),
        ("", {"bf16": True}, True),
        ("", {}, False),
    ],
)
def test_bf16_is_chosen_exactly_where_the_processor_is_fast_at_it(monkeypatch, maker, capabilities, fast):
    monkeypatch.setattr(runtime, "cpu_capabilities", lambda: capabilities)
    monkeypatch.setattr(runtime, "processor_maker", lambda: maker)
    chosen = runtime.detect(device="cpu")
    assert chosen.precision == ("bf16" if fast else "fp32")
    assert chosen.precision in chosen.describe()


def test_the_maker_is_read_from_either_kind_of_text(monkeypatch):
    for told, maker in (("GenuineIntel", "GenuineIntel"), ("", "AuthenticAMD")):
        monkeypatch.setattr(runtime, "cpuinfo", lambda entry, told=told: told)
        monkeypatch.setattr(runtime.platform, "processor", lambda: "AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD")
        assert runtime.processor_maker() == maker


def test_precision_can_be_forced_and_is_checked():
    assert runtime.detect("cpu", precision="fp32").precision == "fp32"
    assert runtime.detect("cpu", precision="bf16").precision == "bf16"
    with pytest.raises(ValueError, match="'fp16'"):
        runtime.detect("cpu", precision="fp16")


def test_autocast_computes_in_the_chosen_precision():
    a = torch.randn(4, 4)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        with runtime.Runtime(torch.device("cpu"), precision, 1).autocast():
            assert (a @ a).dtype == dtype


def test_threads_are_set_and_checked():
    before = torch.get_num_threads()
    try:
        assert runtime.detect("cpu", threads=1).threads == 1
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ValueError, match="threads"):
        runtime.detect("cpu", threads=0)


def test_a_variable_chooses_the_device_and_one_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("COURSE_DEVICE")
    assert runtime.best_device() == torch.device("mps")
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    assert runtime.detect().device == torch.device("cpu")
    monkeypatch.setenv("COURSE_DEVICE", "cuda")
    with pytest.raises(ValueError, match=r"devices of this machine, \['mps', 'cpu'\], or unset, got 'cuda'"):
        runtime.detect()


def test_a_model_comes_back_from_the_device_even_after_an_error():
    moves = []

    class Recorded(torch.nn.Linear):
        def to(self, device):
            moves.append(str(device))
            return self

    model = Recorded(1, 1)

    def use():
        with runtime.on_device(model, torch.device("cuda")):
            raise KeyError(moves[-1])

    with pytest.raises(KeyError, match="cuda"):
        use()
    assert moves == ["cuda", "cpu"]
