"""The embedded texts, their alphabet, and the models that count."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

import pytest
import torch

from course_utils import data_files
from course_utils.data_files import DamagedData, MissingData
from course_utils.text import ALPHABET, TITLES, decode, encode, load_text
from course_utils.transformer.ngrams import NgramModel


@pytest.mark.parametrize("name", sorted(TITLES))
def test_texts_are_complete_and_in_the_alphabet(name):
    text = load_text(name)
    whole = decode(torch.cat([text.train, text.held_out]))
    assert len(whole) >= 300_000
    assert whole == (data_files.texts_folder() / f"{name}.txt").read_text(encoding="ascii")
    assert len(text.train) == len(whole) * 9 // 10
    assert "PROJECT GUTENBERG" not in whole.upper()
    assert "00-database" not in whole
    assert not any(line != line.rstrip() for line in whole.split("\n"))
    assert "\n\n\n" not in whole


def test_the_alphabet_has_every_printable_character_once():
    assert len(ALPHABET) == len(set(ALPHABET)) == 96
    assert decode(torch.arange(96)) == ALPHABET
    assert encode(ALPHABET).tolist() == list(range(96))


def test_other_characters_and_texts_are_refused():
    with pytest.raises(ValueError, match="printable ASCII characters"):
        encode("na\u00efve")
    with pytest.raises(ValueError, match="text must be one of"):
        load_text("shakespeare")


def test_a_damaged_or_missing_text_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(data_files, "texts_folder", lambda: tmp_path)
    with pytest.raises(MissingData, match="austen.txt is missing"):
        load_text("austen")
    (tmp_path / "austen.txt").write_text("It is a truth")
    with pytest.raises(DamagedData, match="is damaged"):
        load_text("austen")


def slow_probability(text: str, context: str | None, character: str) -> float:
    """Witten-Bell by counting strings, one context at a time."""
    if context is None:
        return 1 / len(ALPHABET)
    shorter = slow_probability(text, context[1:] if context else None, character)
    n = len(context) + 1
    grams = Counter(text[i : i + n] for i in range(len(text) - n + 1))
    followers, total = defaultdict(set), Counter()
    for gram, count in grams.items():
        followers[gram[:-1]].add(gram[-1])
        total[gram[:-1]] += count
    if not total[context]:
        return shorter
    kinds = len(followers[context])
    return (grams[context + character] + kinds * shorter) / (total[context] + kinds)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_ngrams_equal_counting_by_hand(order):
    train, test = "the cat sat on the mat. the hat", "the rat ate that oat"
    found = NgramModel(encode(train), order).probabilities(encode(test))
    expected = [slow_probability(train, test[i - order + 1 : i], test[i]) for i in range(order - 1, len(test))]
    assert found == pytest.approx(expected, rel=1e-12)


def test_ngram_probabilities_sum_to_one():
    text = load_text("bierce")
    model, context = NgramModel(text.train[:50_000], 4), text.held_out[:3]
    total = sum(model.probabilities(torch.cat([context, torch.tensor([token])]))[0] for token in range(96))
    assert total == pytest.approx(1, abs=1e-12)


def test_longer_contexts_help_up_to_five():
    text = load_text("austen")
    bits = [NgramModel(text.train, n).nats_per_character(text.held_out) / math.log(2) for n in (1, 2, 3, 4, 5)]
    assert bits == sorted(bits, reverse=True)
    assert bits[1] == pytest.approx(3.4395, abs=1e-4)
    assert bits[4] == pytest.approx(1.7930, abs=1e-4)
