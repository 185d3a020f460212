"""Distillation: the loss is the paper's formula, its gradient too, and a network learns from a teacher alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.special import log_softmax, softmax

from course_utils.distillation import Distillation
from course_utils.training import evaluate, fit
from tests.course_utils.tiny import FP32, state_equal, tiny_dataset, tiny_model

QUIET = {"progress": False, "on": FP32, "padding": 1, "flip": False, "batch_size": 32, "lr": 0.05}
IMAGES, LABELS = torch.randn(6, 3), torch.tensor([0, 1, 2, 3, 0, 1])
TEACHER = torch.nn.Linear(3, 4)


def by_hand(logits: np.ndarray, temperature: float, weight: float) -> float:
    taught = TEACHER(IMAGES).detach().double().numpy()
    hard = -log_softmax(logits, 1)[np.arange(6), LABELS.numpy()].mean()
    goal = softmax(taught / temperature, 1)
    soft = (goal * (np.log(goal) - log_softmax(logits / temperature, 1))).sum(1).mean()
    return (1 - weight) * hard + weight * temperature**2 * soft


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20])
@pytest.mark.parametrize("weight", [0, 0.3, 0.9, 1])
def test_it_is_the_formula(temperature, weight):
    logits = torch.randn(6, 4)
    found = Distillation(TEACHER, temperature, weight)(IMAGES, logits, LABELS)
    assert found.shape == ()
    assert found.item() == pytest.approx(by_hand(logits.double().numpy(), temperature, weight), rel=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_gradient_is_temperature_times_the_difference_of_the_probabilities(temperature):
    logits = torch.randn(6, 4, requires_grad=True)
    Distillation(TEACHER, temperature, 1.0)(IMAGES, logits, LABELS).backward()
    taught = TEACHER(IMAGES).detach()
    expected = temperature * (F.softmax(logits.detach() / temperature, 1) - F.softmax(taught / temperature, 1)) / 6
    assert torch.allclose(logits.grad, expected, atol=1e-6)
    assert TEACHER.weight.grad is None


def test_whoever_answers_like_the_teacher_has_nothing_to_learn_from_it():
    assert Distillation(TEACHER, 4.0, 1.0)(IMAGES, TEACHER(IMAGES), LABELS).item() == pytest.approx(0, abs=1e-6)


def test_a_network_learns_from_a_teacher_without_a_label_and_the_teacher_stays_as_it_is():
    dataset, teacher, student = tiny_dataset(), tiny_model(), tiny_model(seed=1)
    fit(teacher, dataset, epochs=4, **QUIET)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    shuffled = dataset.__class__(**{**vars(dataset), "train_labels": dataset.train_labels.flip(0).roll(1)})
    fit(student, shuffled, epochs=8, loss=Distillation(teacher, weight=1.0), **QUIET)
    assert evaluate(student, dataset, on=FP32) > 0.9
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert not teacher.training


def test_weight_0_is_ordinary_training():
    plain, taught = tiny_model(), tiny_model()
    fit(plain, tiny_dataset(), epochs=2, **QUIET)
    fit(taught, tiny_dataset(), epochs=2, loss=Distillation(tiny_model(seed=5), weight=0), **QUIET)
    assert state_equal(plain, taught)


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0}, {"temperature": -1.0}, {"temperature": float("nan")}, {"weight": 1.5}, {"weight": 90}],
)
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        Distillation(TEACHER, **options)


def test_label_smoothing_beside_a_loss_is_refused():
    with pytest.raises(ValueError, match="label_smoothing belongs to the cross-entropy"):
        fit(tiny_model(), tiny_dataset(), epochs=1, loss=Distillation(tiny_model()), label_smoothing=0.1, **QUIET)
