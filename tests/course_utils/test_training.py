"""The training loop: it learns, it resumes bit for bit, its hooks act where they say, and its parts agree with torch."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import time

import pytest
import torch
import torch.nn.functional as F

from course_utils import augment, schedules, training
from course_utils.ema import WeightAverage
from course_utils.resnet import weighted_layers
from course_utils.training import evaluate, fit, predict
from tests.course_utils.tiny import FP32, state_equal, tiny_dataset, tiny_model


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors this small are slower on several threads, much slower when the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


QUIET = {"progress": False, "on": FP32, "padding": 1, "flip": False, "batch_size": 32, "lr": 0.05}


class Interrupted(Exception):
    """Stands for a power cut."""


def interrupt_after(n_epochs: int):
    def hook(state):
        if state.epoch == n_epochs:
            raise Interrupted

    return hook


def test_it_learns():
    model, dataset = tiny_model(), tiny_dataset()
    before = evaluate(model, dataset, on=FP32)
    history = fit(model, dataset, epochs=4, **QUIET)
    assert before < 0.6
    assert history.test_accuracy[-1] > 0.95
    assert history.test_accuracy[-1] == evaluate(model, dataset, on=FP32)
    assert history.train_loss[-1] < history.train_loss[0]
    assert len(history) == len(history.seconds) == len(history.learning_rate) == 4
    assert "fp32" in history.runtime


@pytest.mark.parametrize("ema_decay", [None, 0.9])
@pytest.mark.parametrize("interrupted_at", [1, 3])
def test_an_interrupted_and_resumed_run_is_bit_identical(tmp_path, ema_decay, interrupted_at):
    options = {**QUIET, "epochs": 4, "ema_decay": ema_decay, "flip": True, "label_smoothing": 0.1}
    straight, resumed, resume_file = tiny_model(), tiny_model(), tmp_path / "run.pt"
    expected = fit(straight, tiny_dataset(), **options)
    with pytest.raises(Interrupted):
        fit(resumed, tiny_dataset(), resume_file=resume_file, before_epoch=interrupt_after(interrupted_at), **options)
    torch.rand(5)  # whatever happens in between
    resumed = tiny_model(seed=99)  # everything must come from the file
    found = fit(resumed, tiny_dataset(), resume_file=resume_file, **options)
    assert state_equal(straight, resumed)
    assert found.train_loss == expected.train_loss
    assert found.test_accuracy == expected.test_accuracy


def test_resuming_covers_the_models_own_randomness(tmp_path):
    def dropout_model(seed: int):
        model = tiny_model(seed)
        model.fc = torch.nn.Sequential(torch.nn.Dropout(0.5), model.fc)
        return model

    straight, resumed, resume_file = dropout_model(0), dropout_model(0), tmp_path / "run.pt"
    fit(straight, tiny_dataset(), epochs=2, **QUIET)
    with pytest.raises(Interrupted):
        fit(resumed, tiny_dataset(), epochs=2, resume_file=resume_file, before_epoch=interrupt_after(1), **QUIET)
    torch.manual_seed(1234)
    fit(resumed := dropout_model(5), tiny_dataset(), epochs=2, resume_file=resume_file, **QUIET)
    assert state_equal(straight, resumed)


def test_a_finished_run_is_not_run_again(tmp_path):
    model, resume_file = tiny_model(), tmp_path / "run.pt"
    fit(model, tiny_dataset(), epochs=1, resume_file=resume_file, **QUIET)
    again = tiny_model(seed=1)
    history = fit(again, tiny_dataset(), epochs=1, resume_file=resume_file, after_step=interrupt_after(0), **QUIET)
    assert len(history) == 1
    assert state_equal(model, again)


@pytest.mark.parametrize("change", [{"lr": 0.01}, {"seed": 1}, {"weight_decay": 0.0}, {"schedule": "constant"}])
def test_a_resume_file_of_other_settings_is_refused(tmp_path, change):
    resume_file = tmp_path / "run.pt"
    fit(tiny_model(), tiny_dataset(), epochs=1, resume_file=resume_file, **QUIET)
    with pytest.raises(ValueError, match=next(iter(change))):
        fit(tiny_model(), tiny_dataset(), epochs=1, resume_file=resume_file, **{**QUIET, **change})


def test_a_resume_file_of_another_optimizer_data_set_or_nameless_schedule_is_refused(tmp_path):
    resume_file = tmp_path / "run.pt"

    def run(lr=0.1, dataset=None, **options):
        model = tiny_model()
        optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, foreach=options.pop("foreach", None))
        options = {**QUIET, "optimizer": optimizer, "resume_file": resume_file, **options}
        return fit(model, dataset or tiny_dataset(), epochs=1, **options)

    run()
    assert len(run(foreach=False)) == 1  # how a step is computed may change
    with pytest.raises(ValueError, match=r"optimizer.*lr=0\.1.*lr=0\.2"):
        run(lr=0.2)
    with pytest.raises(ValueError, match="dataset.*tiny.*other"):
        run(dataset=dataclasses.replace(tiny_dataset(), name="other"))
    with pytest.raises(ValueError, match="schedule must have a name"):
        run(schedule=lambda progress: 1.0)


def test_a_run_that_goes_on_elsewhere_names_both_machines(tmp_path):
    resume_file, elsewhere = tmp_path / "run.pt", dataclasses.replace(FP32, threads=77)
    with pytest.raises(Interrupted):
        fit(tiny_model(), tiny_dataset(), epochs=2, resume_file=resume_file, before_epoch=interrupt_after(1),
            **{**QUIET, "on": elsewhere})  # fmt: skip
    history = fit(tiny_model(), tiny_dataset(), epochs=2, resume_file=resume_file, **QUIET)
    assert history.runtime == f"{elsewhere.describe()}; then {FP32.describe()}"


def test_the_bar_shows_loss_and_accuracy_within_the_first_epoch(capsys):
    fit(tiny_model(), tiny_dataset(n_train=640), epochs=1, evaluate_every=0, after_step=lambda state: time.sleep(0.06),
        **{**QUIET, "progress": True})  # fmt: skip
    shown = capsys.readouterr().out.split("\r")
    assert any("training accuracy" in line and "20/20" not in line for line in shown)
    assert "nan" not in "".join(shown)


def test_the_seed_decides_and_the_global_generator_is_left_alone():
    models = [tiny_model() for _ in range(3)]
    for model, seed in zip(models, (0, 0, 1), strict=True):
        torch.manual_seed(11)
        fit(model, tiny_dataset(), epochs=1, seed=seed, **QUIET)
        after = torch.rand(())
        torch.manual_seed(11)
        assert after == torch.rand(())
    assert state_equal(models[0], models[1])
    assert not state_equal(models[0], models[2])


def test_one_epoch_is_the_textbook_loop():
    """The same epoch written out with torch's plain parts gives the same weights, up to float32 rounding."""
    model, dataset = tiny_model(), tiny_dataset()
    peer = copy.deepcopy(model).train()
    fit(model, dataset, epochs=1, schedule="one_cycle", label_smoothing=0.1, **{**QUIET, "padding": 0})
    optimizer = torch.optim.SGD(peer.parameters(), lr=1.0, momentum=0.9, weight_decay=5e-4, nesterov=True, fused=False)
    generator = torch.Generator().manual_seed(training.training_state.derived_seed(0, 0))
    order = torch.randperm(192, generator=generator)
    for step, chosen in enumerate(order.split(32)):
        optimizer.param_groups[0]["lr"] = 0.05 * schedules.one_cycle((step + 0.5) / 6)
        images = (dataset.train_images[chosen] / 255 - 0.33) / 0.2
        loss = F.cross_entropy(peer(images), dataset.train_labels[chosen], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for (name, mine), theirs in zip(model.named_parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4, msg=name)  # six steps of fp32 rounding


def test_each_epoch_sees_each_image_once_in_its_own_order():
    model, seen = tiny_model(), []
    model.register_forward_pre_hook(lambda module, inputs: seen.extend(inputs[0]) if module.training else None)
    dataset = tiny_dataset(n_train=64)
    fit(model, dataset, epochs=2, **{**QUIET, "padding": 0})
    images = augment.normalise(dataset.train_images, dataset.mean, dataset.std)
    places = [next(place for place, image in enumerate(images) if torch.equal(image, one)) for one in seen]
    first, second = places[:64], places[64:]
    assert sorted(first) == sorted(second) == list(range(64))
    assert first != second
    assert first != sorted(first)


@pytest.mark.parametrize(("padding", "flip"), [(2, True), (0, True), (2, False)])
def test_an_epochs_images_are_augmented_batch_by_batch_from_the_epochs_seed(padding, flip):
    model, seen = tiny_model(), []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]) if module.training else None)
    dataset = tiny_dataset(n_train=100)
    fit(model, dataset, epochs=1, seed=3, **{**QUIET, "padding": padding, "flip": flip})
    generator = torch.Generator().manual_seed(training.training_state.derived_seed(3, 0))
    order = torch.randperm(100, generator=generator)
    assert len(seen) == 3
    for images, chosen in zip(seen, order.split(QUIET["batch_size"]), strict=False):
        expected = augment.random_crop(dataset.train_images[chosen], padding, generator)
        expected = augment.random_flip(expected, generator) if flip else expected
        assert torch.equal(images, augment.normalise(expected, dataset.mean, dataset.std))


def test_hooks_are_called_in_order():
    calls = []
    hooks = {name: lambda state, name=name: calls.append((name, state.epoch, state.step, len(state.history)))
             for name in ("before_epoch", "after_step", "after_epoch")}  # fmt: skip
    fit(tiny_model(), tiny_dataset(n_train=64), epochs=2, **QUIET, **hooks)
    assert calls == [
        ("before_epoch", 0, 0, 0), ("after_step", 0, 1, 0), ("after_step", 0, 2, 0), ("after_epoch", 0, 2, 1),
        ("before_epoch", 1, 2, 1), ("after_step", 1, 3, 1), ("after_step", 1, 4, 1), ("after_epoch", 1, 4, 2),
    ]  # fmt: skip


def test_a_mask_reapplied_after_each_step_keeps_weights_at_zero():
    model = tiny_model()
    masks = {layer: torch.rand_like(layer.weight) > 0.5 for _, layer in weighted_layers(model)}

    @torch.no_grad()
    def apply(state):
        for layer, mask in masks.items():
            layer.weight.mul_(mask)

    fit(model, tiny_dataset(), epochs=2, after_step=apply, before_epoch=apply, **QUIET)
    assert all((layer.weight[~mask] == 0).all() for layer, mask in masks.items())
    assert all((layer.weight[mask] != 0).any() for layer, mask in masks.items())


def test_a_penalty_is_added_to_the_loss():
    def l1(model):
        return 0.05 * sum(layer.weight.abs().sum() for _, layer in weighted_layers(model))

    plain, penalised = tiny_model(), tiny_model()
    start = l1(plain).item()
    history = fit(plain, tiny_dataset(n_train=32), epochs=1, **QUIET)
    with_penalty = fit(penalised, tiny_dataset(n_train=32), epochs=1, penalty=l1, **QUIET)
    assert with_penalty.train_loss[0] == pytest.approx(history.train_loss[0] + start, rel=1e-4)
    assert l1(penalised) < l1(plain)


def test_an_optimizer_of_ones_own_is_used_with_its_own_rates():
    model, rates = tiny_model(), []
    groups = [{"params": [model.fc.weight], "lr": 0.3}, {"params": [model.fc.bias], "lr": 0.1}]
    before = model.conv1.weight.clone()
    fit(
        model, tiny_dataset(), epochs=1, optimizer=torch.optim.Adam(groups), schedule="cosine",
        after_step=lambda state: rates.append([group["lr"] for group in state.optimizer.param_groups]), **QUIET,
    )  # fmt: skip
    assert rates[0] == pytest.approx([0.3 * schedules.cosine(0.5 / 6), 0.1 * schedules.cosine(0.5 / 6)])
    assert torch.equal(model.conv1.weight, before)


def test_averaged_weights_are_those_evaluated_and_kept():
    model, dataset = tiny_model(), tiny_dataset()
    reference, states = {}, []

    def record(state):
        decay = min(0.9, (1 + len(states)) / (10 + len(states)))
        for name, tensor in state.model.state_dict().items():
            reference[name] = decay * reference[name] + (1 - decay) * tensor
        states.append(state.step)

    reference.update({name: tensor.clone().double() for name, tensor in model.state_dict().items()})
    history = fit(model, dataset, epochs=1, ema_decay=0.9, after_step=record, **QUIET)
    torch.testing.assert_close(model.fc.weight.double(), reference["fc.weight"], rtol=0, atol=1e-6)
    torch.testing.assert_close(model.bn1.running_var.double(), reference["bn1.running_var"], rtol=0, atol=1e-6)
    assert history.test_accuracy[-1] == evaluate(model, dataset, on=FP32)


def test_the_average_brings_no_pruned_weight_back():
    model, pruned = tiny_model(), {}

    def prune_late(state):
        if state.step == 4:
            pruned["mask"] = state.model.conv1.weight.detach().abs() > 0.1
        if pruned:
            with torch.no_grad():
                state.model.conv1.weight.mul_(pruned["mask"])

    fit(model, tiny_dataset(), epochs=2, ema_decay=0.9, after_step=prune_late, **QUIET)
    assert 0 < int((~pruned["mask"]).sum()) == int((model.conv1.weight == 0).sum())


def test_applied_average_gives_the_models_own_weights_back():
    model = tiny_model()
    average = WeightAverage(model, 0.5)
    own = copy.deepcopy(model)
    average.average = {name: torch.zeros_like(tensor) for name, tensor in average.average.items()}
    with average.applied(model):
        assert (model.fc.weight == 0).all()
    assert state_equal(model, own)


def test_evaluate_counts_right_answers_and_keeps_the_mode():
    model, dataset = tiny_model(), tiny_dataset(n_test=50)
    model.train()
    logits = predict(model, dataset, batch_size=7, on=FP32)
    assert model.training
    assert logits.shape == (50, 4)
    images = augment.normalise(dataset.test_images, dataset.mean, dataset.std)
    expected = model.eval()(images)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)  # batches of 7 sum in another order
    right = sum(int(row.argmax()) == int(label) for row, label in zip(expected, dataset.test_labels, strict=True))
    assert evaluate(model, dataset, on=FP32) == right / 50


def test_evaluation_can_be_rare_or_left_out():
    def evaluated(**options):
        history = fit(tiny_model(), tiny_dataset(n_train=32), epochs=5, **options, **QUIET)
        return [not math.isnan(accuracy) for accuracy in history.test_accuracy]

    assert evaluated(evaluate_every=2) == [False, True, False, True, True]
    assert evaluated(evaluate_every=0) == [False] * 5


@pytest.mark.parametrize(
    ("option", "value"),
    [("epochs", -1), ("batch_size", 0), ("lr", 0.0), ("label_smoothing", 1.0), ("padding", -1), ("ema_decay", 1.0),
     ("schedule", "linear")],
)  # fmt: skip
def test_bad_arguments_are_refused_by_name(option, value):
    with pytest.raises(ValueError, match=option):
        fit(tiny_model(), tiny_dataset(), **{"epochs": 1, **QUIET, option: value})


def test_a_data_set_smaller_than_a_batch_is_one_batch():
    steps = []
    fit(tiny_model(), tiny_dataset(n_train=12), epochs=1, after_step=lambda s: steps.append(s.step), **QUIET)
    assert steps == [1]


def test_a_schedule_in_words_tells_fixed_arguments():
    assert schedules.describe("cosine") == schedules.describe(schedules.cosine) == "cosine"
    fixed = functools.partial(schedules.multi_step, (0.25, 0.5), gamma=0.2)
    assert schedules.describe(fixed) == "multi_step((0.25, 0.5), gamma=0.2)"


def test_schedules_agree_with_torch_and_with_their_ends():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    peer = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=10)
    for step in range(10):
        assert schedules.cosine(step / 10) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        peer.step()
    for n_steps, t_max in ((30, 10), (10, 40)):  # too short: it rises again; too long: it hardly falls
        peer = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=t_max)
        optimizer.param_groups[0]["lr"] = 1.0
        for step in range(n_steps):
            factor = schedules.cosine(step / n_steps, t_max=t_max / n_steps)
            assert factor == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)  # torch's is a recursion
            optimizer.step()
            peer.step()
    rise = [schedules.exponential_rise(p, 1e-4) for p in (0, 0.5, 1)]
    assert rise == pytest.approx([1e-4, 1e-2, 1], rel=1e-12)
    for schedule in (schedules.warmup_cosine, schedules.one_cycle):
        values = [schedule(step / 1000) for step in range(1001)]
        assert (values[0], max(values)) == (0, pytest.approx(1, abs=1e-12))
        assert values[-1] == pytest.approx(0, abs=1e-12)
        peak = values.index(max(values))
        assert values == sorted(values[: peak + 1]) + sorted(values[peak + 1 :], reverse=True)
    assert [schedules.multi_step(p) for p in (0, 0.49, 0.5, 0.75, 1)] == pytest.approx([1, 1, 0.1, 0.01, 0.01])
