"""Copies are found however they are disguised; who solved a short exercise as everybody does is left in peace."""

from __future__ import annotations

import random
from datetime import datetime

import nbformat
import pytest

from course_admin.paths import CourseError
from course_admin.similarity.fingerprints import WINDOW, Answers, K, fingerprint, k_grams, template_of, winnow
from course_admin.similarity.page import similarity_page
from course_admin.similarity.pairs import COMMON, MIN_EVIDENCE, THRESHOLD, similar_pairs, weight
from course_admin.similarity.submissions import answers_of
from course_admin.similarity.tokens import code_tokens, text_tokens

GIVEN = '''\
def soft_threshold(w, threshold):
    """Formula first: sign(w) max(|w| - t, 0).

    Args:
        w: vector.
    """
    w = np.asarray(w, dtype=float)
    if w.ndim != 1 or threshold < 0:
        raise ValueError("w must be a vector and threshold not negative")
'''
OBVIOUS = GIVEN + "    return np.sign(w) * np.maximum(np.abs(w) - threshold, 0)\n"

ORIGINAL = """\
def descend(A, y, rate, steps):
    w = np.zeros(A.shape[1])
    losses = []
    scale = 1.0 / len(y)
    for step in range(steps):
        residual = A @ w - y
        losses.append(0.5 * scale * float(residual @ residual))
        w = w - rate * scale * (A.T @ residual)
        if step % 7 == 3 and len(losses) > 2 and losses[-1] > 1.02 * losses[-3]:
            rate *= 0.83
    history = np.array(losses, dtype=np.float64)
    return w, history[: steps + 1]
"""
DISGUISED = '''\
# my own work
def minimise(matrix, target, eta, n):
    """Gradient descent, written by me."""
    factor = 1.0 / len(target)   # one over n
    values = []
    x = np.zeros(matrix.shape[1])

    for k in range(n):
        # the residual
        r = (matrix @ x
             - target)
        values.append(0.5 * factor * float(r @ r))
        x = x - eta * factor * (matrix.T @ r)
        if k % 7 == 3 and len(values) > 2 and values[-1] > 1.02 * values[-3]:
            eta *= 0.83
    trace = np.array(values, dtype=np.float64)
    return x, trace[: n + 1]
'''
INDEPENDENT = """\
def descend(A, y, rate, steps):
    n, d = A.shape
    weights, trace = np.full(d, 0.0), np.empty(steps)
    gram, moment = A.T.dot(A) / n, A.T.dot(y) / n
    k = 0
    while k < steps:
        gradient = gram.dot(weights) - moment
        trace[k] = ((A.dot(weights) - y) ** 2).mean() / 2
        weights -= rate * gradient
        k += 1
    return weights, trace
"""


def own_work(seed: int) -> str:
    """A long answer that shares structure with nobody: random arithmetic."""
    rng = random.Random(seed)
    terms = (
        "np.{f}(a) {o} {n}",
        "b[{n}:] {o} a.{f}()",
        "({n} {o} a) ** {m}",
        "max({n}, b.{f}({m}))",
        "a[{n}] if b {o} {m} else a",
    )
    lines = []
    for k in range(12):
        text = rng.choice(terms).format(
            f=rng.choice(["sin", "cos", "exp", "sum", "mean", "std", "var", "abs", "sqrt", "log"]),
            o=rng.choice(["+", "-", "*", "/", "@", "//", "%"]),
            n=rng.randint(2, 99),
            m=rng.randint(2, 99),
        )
        lines.append(f"    v{k} = {text}")
    return "def descend(a, b):\n" + "\n".join(lines) + "\n    return v11\n"


def answers(student: str, template: dict[str, str] | None = None, **cells: str) -> Answers:
    given = template_of({name: ("code", source) for name, source in (template or {}).items()})
    return fingerprint(student, {name: ("code", source) for name, source in cells.items()}, given)


def class_with(*more: Answers, n: int = 20) -> list[Answers]:
    return [answers(f"s{k:02}", descend=own_work(k)) for k in range(n)] + list(more)


def names(pairs) -> list[tuple[str, str]]:
    return [(pair.first.student, pair.second.student) for pair in pairs]


def test_a_renamed_reordered_commented_copy_is_found_and_nobody_else():
    pairs = similar_pairs(class_with(answers("ada", descend=ORIGINAL), answers("bob", descend=DISGUISED)))
    assert names(pairs) == [("ada", "bob")]
    assert pairs[0].similarity > 0.7
    assert pairs[0].evidence > 2 * MIN_EVIDENCE


def test_two_independent_solutions_are_not_a_pair():
    one, other = answers("ada", descend=ORIGINAL), answers("bob", descend=INDEPENDENT)
    assert similar_pairs(class_with(one, other)) == []
    shared = one.fingerprints.keys() & other.fingerprints.keys()
    assert len(shared) < THRESHOLD * min(len(one.fingerprints), len(other.fingerprints)) / 2


def test_what_the_released_notebook_holds_is_no_evidence():
    template = {"soft": GIVEN + ORIGINAL}
    given = [answers(f"t{k}", template, soft=GIVEN + ORIGINAL + own_work(90 + k)) for k in range(2)]
    assert similar_pairs(class_with(*given)) == []
    assert not answers("idle", template, soft=GIVEN + ORIGINAL).fingerprints
    without = [answers(f"t{k}", soft=GIVEN + ORIGINAL + own_work(90 + k)) for k in range(2)]
    assert names(similar_pairs(class_with(*without), threshold=0.2)) == [("t0", "t1")]


def test_what_most_of_the_class_wrote_is_no_evidence():
    obvious = [answers(f"s{k}", soft=OBVIOUS, descend=own_work(k)) for k in range(20)]
    assert similar_pairs(obvious) == []
    assert all("soft" not in pair.cells for pair in similar_pairs(obvious, threshold=0.0, min_evidence=0.1))
    alone = class_with(answers("ada", soft=OBVIOUS), answers("bob", soft=OBVIOUS))
    assert names(similar_pairs(alone)) == [("ada", "bob")]  # the very same text, where nobody else has it


def test_exercises_are_compared_with_the_same_exercise_only():
    pairs = similar_pairs(class_with(answers("ada", descend=ORIGINAL), answers("bob", other=DISGUISED)))
    assert pairs == []


def test_weights_against_the_formula():
    assert [weight(df, 40) for df in (1, 2, 11, 40)] == [1.0, 1.0, 0.0, 0.0]
    assert weight(10, 40) == pytest.approx(0.462757, abs=1e-6)  # log 4 / log 20
    assert weight(11, 40) == 0 < weight(10, 40) < weight(3, 40) < 1
    assert COMMON * 40 == 10


def test_evidence_and_similarity_against_sums_by_hand():
    def made(student: str, *hashes: int) -> Answers:
        return Answers(student, {"c": ""}, {("c", value): {0} for value in hashes})

    others = [made(f"s{k}", 1000 + k) for k in range(38)]
    pair = similar_pairs([made("a", 1, 2, 3, 4), made("b", 1, 2, 3, 5, 6, 7), *others], 0.0, 0.0)[0]
    assert (pair.evidence, pair.similarity) == (3.0, 3.0 / 4)  # all weights are 1; the shorter one has four
    assert pair.cells == {"c": 3}


def test_winnowing_finds_every_shared_stretch_of_k_plus_window_minus_one_tokens():
    rng = random.Random(0)
    for _ in range(200):
        shared = " ".join(f"w{rng.randrange(1000)}" for _ in range(K + WINDOW - 1))
        texts = [" ".join(f"{side}{rng.randrange(1000)}" for _ in range(rng.randrange(9))) for side in "abcd"]
        one, other = (
            {value for value, _ in winnow(k_grams(text_tokens(f"{before} {shared} {after}")))}
            for before, after in (texts[:2], texts[2:])
        )
        assert one & other
    grams = k_grams(text_tokens(" ".join(f"w{k}" for k in range(3000))))
    assert len(winnow(grams)) / len(grams) == pytest.approx(2 / (WINDOW + 1), rel=0.1)  # density of the paper


def test_tokens_keep_what_a_program_does():
    def texts(source: str) -> list[str]:
        return [item.text for item in code_tokens(source)]

    assert texts('def f(x):\n    """Doc."""\n    return x  # why\n') == texts("def g(name):\n\n  return name\n")
    assert texts("a = np.sign(b)") == texts("x=m . sign( y )")
    assert texts("a = np.sign(b)") != texts("a = np.abs(b)")
    assert texts("a = 1") != texts("a = 2")
    assert texts("len(a)") != texts("sum(a)")


def test_answers_that_are_no_python_are_compared_all_the_same():
    broken = "def f(:\n" + ORIGINAL.replace("np.zeros", "(np.zeros")
    pairs = similar_pairs(class_with(answers("ada", descend=broken), answers("bob", descend=broken)))
    assert names(pairs) == [("ada", "bob")]
    assert answers("nul", descend="x = '\0' \ud800 '''").student == "nul"


def test_submissions_are_read_from_the_course_folder(built):
    lab = built.lab("lab1")
    released = nbformat.read(built.labs / lab.name / f"{lab.name}.ipynb", as_version=4)
    for student in ("ada", "bob"):
        folder = built.root / "submitted" / student / lab.name
        folder.mkdir(parents=True)
        for cell in released.cells:
            if cell.metadata.get("nbgrader", {}).get("grade_id") == "keep_largest":
                cell.source = ORIGINAL
        nbformat.write(released, folder / f"{lab.name}.ipynb")
    folder = built.root / "submitted" / "<eve>" / lab.name
    folder.mkdir(parents=True)
    (folder / f"{lab.name}.ipynb").write_text("no <notebook>")
    found, unreadable = answers_of(lab, built, built.root)
    assert [item.student for item in found] == ["ada", "bob"]
    assert [student for student, _ in unreadable] == ["<eve>"]
    assert names(similar_pairs(found)) == [("ada", "bob")]


@pytest.mark.parametrize("disguise", ["renamed", "without metadata", "pasted twice"])
def test_a_copy_that_grading_repairs_is_found_here_too(built, disguise):
    lab = built.lab("lab1")
    released = nbformat.read(built.labs / lab.name / f"{lab.name}.ipynb", as_version=4)
    answer = next(c for c in released.cells if c.metadata.get("nbgrader", {}).get("grade_id") == "keep_largest")
    answer.source = ORIGINAL
    for student, file in (("ada", lab.name), ("bob", f"{lab.name} (1)" if disguise == "renamed" else lab.name)):
        folder = built.root / "submitted" / student / lab.name
        folder.mkdir(parents=True)
        if student == "bob" and disguise == "without metadata":
            for cell in released.cells:
                cell.metadata.pop("nbgrader", None)
        if student == "bob" and disguise == "pasted twice":
            copy = nbformat.from_dict({**answer, "id": "another", "source": "pass"})
            released.cells.append(copy)
        nbformat.write(released, folder / f"{file}.ipynb")
    (built.root / "submitted" / "eve" / lab.name).mkdir(parents=True)
    empty = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(1)")])
    nbformat.write(empty, built.root / "submitted" / "eve" / lab.name / f"{lab.name}.ipynb")
    found, left_out = answers_of(lab, built, built.root)
    assert names(similar_pairs(found)) == [("ada", "bob")]
    assert left_out == [("eve", "none of the lab's cells was found in it")]


def test_without_submissions_the_message_says_where_they_are_expected(built):
    with pytest.raises(CourseError, match="submitted"):
        answers_of(built.lab("lab1"), built, built.root)


def test_the_page_shows_the_pair_and_runs_nothing():
    evil = ORIGINAL + '    "<script>alert(1)</script>"\n'
    one, other = answers("<img src=x>", descend=evil), answers("bob & co", descend=evil)
    everybody = class_with(one, other)
    page = similarity_page(
        "Lab 1", similar_pairs(everybody), len(everybody), [("<eve>", "no <b>")], datetime(2026, 11, 1)
    )
    assert (
        "<script" not in page
    )
    assert (
        "<img" not in page
    )
    assert (
        "<eve>" not in page
    )
    assert (
        "<b>" not in page.replace("<b>Evidence</b>", "").replace("<b>similarity</b>", "")
    )
    assert "bob &amp; co" in page
    assert "class=hit" in page
    assert "residual @ residual" in page
    empty = similarity_page("Lab 1", [], 3, [], datetime(2026, 11, 1))
    assert "share more than chance" in empty
    assert "only 3 submissions" in empty
