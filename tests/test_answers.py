"""The graded cells accept every correct variant and reject every wrong answer, for every exercise of every lab."""

from __future__ import annotations

import functools

import pytest

from course_admin.answers import Answer, answers_to
from course_admin.paths import Repository
from tests.lab_runner import LabRunner

REPOSITORY = Repository.find()
LABS = [lab.name for lab in REPOSITORY.all_labs()]
MIN_WRONG, MIN_CORRECT = 5, 2


@functools.cache
def runner(lab: str) -> LabRunner:
    return LabRunner(REPOSITORY.solutions / lab / f"{lab}.ipynb")


def answers(lab: str) -> list[Answer]:
    return answers_to(REPOSITORY.lab(lab), REPOSITORY)


ALL = [pytest.param(lab, answer, id=f"{lab.split('_')[0]}-{answer}") for lab in LABS for answer in answers(lab)]


MISTAKES_OF_THE_TEST = {f"{name} was raised" for name in ("NameError", "UnboundLocalError", "ImportError")}


def full(score) -> bool:
    return all(outcome.passed for outcome in score.outcomes)


@pytest.mark.parametrize(("lab", "answer"), ALL)
def test_answer(lab, answer):
    scores = runner(lab).scores(answer.exercise, answer.value)
    assert scores, f"no check cell reads {answer.exercise}"
    if answer.is_correct:
        failed = [outcome for score in scores.values() for outcome in score.outcomes if not outcome.passed]
        assert not failed, f"a correct answer was rejected: {failed}"
    else:
        problems = [
            outcome.problem.kind for score in scores.values() for outcome in score.outcomes if not outcome.passed
        ]
        assert problems, "a wrong answer got full points"
        assert not MISTAKES_OF_THE_TEST & set(problems), f"the answer itself is broken, not what it says: {problems}"


@pytest.mark.parametrize("lab", LABS)
def test_the_reference_itself_is_accepted(lab):
    run = runner(lab)
    for exercise in run.exercises:
        for name, score in run.scores(exercise, run.namespace[exercise]).items():
            assert full(score), f"{name}: {[outcome for outcome in score.outcomes if not outcome.passed]}"


@pytest.mark.parametrize("lab", LABS)
def test_every_exercise_has_enough_wrong_and_correct_answers(lab):
    run, given = runner(lab), answers(lab)
    for exercise in run.exercises:
        wrong = [answer for answer in given if answer.exercise == exercise and not answer.is_correct]
        right = [answer for answer in given if answer.exercise == exercise and answer.is_correct]
        literal = not callable(run.namespace[exercise])
        assert len(wrong) >= (1 if literal else MIN_WRONG), f"{exercise}: {len(wrong)} wrong answers"
        assert len(right) >= (0 if literal else MIN_CORRECT), f"{exercise}: {len(right)} correct variants"


@pytest.mark.parametrize("lab", LABS)
def test_every_registered_answer_names_an_exercise(lab):
    assert {answer.exercise for answer in answers(lab)} <= set(runner(lab).exercises)
