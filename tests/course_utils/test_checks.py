"""The checks: right answers pass, and each kind of wrong answer fails with a message a student can act on."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from course_utils.checks import Checks, judge
from course_utils.checks.compare import Tolerance, compare
from course_utils.checks.sealed import record
from course_utils.checks.values import NotPlain, from_json, plain, to_json


def outcome(method: str, *arguments, **options):
    """The single Outcome of a cell with one check."""
    check = Checks("exercise")
    getattr(check, method)("the check", *arguments, **options)
    return check.score(points=1).outcomes[0]


class Liar(np.ndarray):
    """An array that claims to equal everything."""

    def __eq__(self, other):
        return np.ones(self.shape, dtype=bool)

    __hash__ = None


PASSING = [
    ("close", np.array([1.0, 2.0]), [1.0, 2.0 + 1e-12], {"atol": 1e-9}),
    ("close", lambda: 3, 3.0, {"rtol": 1e-9}),
    ("close", [np.inf, np.nan], np.array([np.inf, np.nan]), {"atol": 1e-9}),
    ("close", np.float32(0.5), 0.5, {"atol": 1e-9}),
    ("equal", np.array([True, False]), [1, 0], {}),
    ("equal", np.array([1.0, 0.0], dtype=np.float32), [1, 0], {}),
    ("equal", {"a": [1, "x", None]}, lambda: {"a": [1, "x", None]}, {}),
    ("equal", (1, 2), [1, 2], {}),
    ("equal", True, True, {}),
    ("at_least", np.float32(0.9), 0.8, {}),
    ("at_most", np.array([3]), 3, {}),
    ("raises", lambda: np.zeros(3).reshape(4), ValueError, {}),
    ("raises", lambda: {}["x"], LookupError, {}),
    ("equal", np.array(True), True, {}),
    ("equal", np.array([]), [], {}),
    ("equal", 2**70, 2**70, {}),
]


@pytest.mark.parametrize(("method", "actual", "expected", "options"), PASSING)
def test_accepts(method, actual, expected, options):
    assert outcome(method, actual, expected, **options).problem is None


def unfinished():
    raise NotImplementedError("Lab 1, exercise: replace this line with your code")


class Odd(Exception):
    """An exception that cannot say what happened."""

    def __str__(self):
        raise ValueError


class BrokenList(list):
    """A list that breaks when it is measured."""

    def __len__(self):
        raise OSError


def broken():
    raise Odd


def stop():
    raise GeneratorExit


FAILING = [
    ("close", lambda: missing_function(1), 1.0, "missing", "not defined"),  # noqa: F821
    ("close", unfinished, 1.0, "not implemented yet", "Lab 1, exercise"),
    ("close", lambda: 1 / 0, 1.0, "ZeroDivisionError was raised", "division by zero"),
    ("close", lambda: sys.exit(0), 1.0, "SystemExit was raised", "SystemExit"),
    ("close", lambda: None, [1.0], "None was returned", "return"),
    ("close", "text", [1.0], "wrong type", "a string"),
    ("close", len, [1.0], "TypeError was raised", "argument"),
    ("close", lambda: len, [1.0], "wrong type", "parentheses"),
    ("close", lambda: (i for i in [1.0]), [1.0], "wrong type", "list or array"),
    ("close", ..., 1.0, "wrong type", "ellipsis"),
    ("close", np.array(["a", "b"]), [1.0, 2.0], "wrong type", "dtype <U1"),
    ("close", np.array([1.0, 2.0]), [1.0, 2.0, 3.0], "wrong shape", "(2,), expected (3,)"),
    ("close", np.array([[1.0, 2.0]]), [1.0, 2.0], "wrong shape", "(1, 2), expected (2,)"),
    ("close", [[1.0, 2.0], [3.0]], np.ones((2, 2)), "wrong shape", "rectangular"),
    ("close", np.array([1.0, np.nan]), [1.0, 2.0], "NaN in the result", "index (1,)"),
    ("close", np.array([1.0, np.inf]), [1.0, 2.0], "infinity in the result", "index (1,)"),
    ("close", np.array([1.0, 2.5]), [1.0, 2.0], "wrong value", "1 of 2 values differ, most at index (1,): got 2.5"),
    ("close", np.array([2.0]).view(Liar), [1.0], "wrong value", "got 2"),
    ("equal", 1, True, "wrong type", "True or False"),
    ("equal", np.array([2, 0]), [True, False], "wrong type", "zeros and ones"),
    ("equal", [1, "a"], [1, 2], "wrong type", "[1]: got a string ('a'), expected a number"),
    ("equal", ["a"], ["a", "b"], "wrong length", "1 items, expected 2"),
    ("equal", {"a": 1}, {"b": 1}, "wrong keys", "missing ['b'], unexpected ['a']"),
    ("equal", {"a": [1.0, {"b": "x"}]}, {"a": [1.0, {"b": "y"}]}, "wrong value", "['a']: [1]: ['b']: got 'x'"),
    ("equal", 2**63 + 1, 2**63, "wrong value", "expected"),
    ("at_least", 0.79, 0.8, "out of bounds", "at least 0.8"),
    ("at_least", float("nan"), 0.8, "NaN in the result", "NaN"),
    ("at_least", True, 0.8, "wrong type", "one number"),
    ("at_most", np.array([1.0, 2.0]), 3, "wrong type", "one number"),
    ("raises", lambda: 3, ValueError, "nothing was raised", "expected ValueError"),
    ("raises", lambda: 1 / 0, ValueError, "ZeroDivisionError was raised", "division"),
    ("close", 5.0, np.inf, "wrong value", "expected inf"),
    ("close", np.array([-1.7e308, 1.0]), [1.7e308, 1.0], "wrong value", "1 of 2"),
    ("close", 2**70, 1.0, "wrong value", "expected 1"),
    ("equal", lambda: 10**5000, 1, "wrong value", "more than 60 digits"),
    ("close", lambda: broken(), 1.0, "Odd was raised", "no readable message"),
    ("close", lambda: stop(), 1.0, "GeneratorExit was raised", ""),
    ("equal", lambda: BrokenList([1]), [1], "wrong type", "cannot be read"),
    ("raises", lambda: missing_function(1), Exception, "missing", "not defined"),  # noqa: F821
    ("raises", unfinished, RuntimeError, "not implemented yet", "Lab 1"),
]


@pytest.mark.parametrize(("method", "actual", "expected", "kind", "words"), FAILING)
def test_rejects_and_says_why(method, actual, expected, kind, words):
    options = {"atol": 1e-9} if method == "close" else {}
    problem = outcome(method, actual, expected, **options).problem
    assert problem is not None
    assert problem.kind == kind
    assert words in problem.text


def test_dtype_matters_only_when_asked():
    value = np.zeros(2, dtype=np.float32)
    assert outcome("equal", value, np.zeros(2)).problem is None
    assert outcome("equal", value, np.zeros(2), dtype=True).problem.kind == "wrong dtype"


def test_torch_tensors_are_data():
    tensor = torch.tensor([1.0, 2.0], requires_grad=True)
    assert outcome("close", lambda: tensor, [1.0, 2.0], atol=1e-7).problem is None
    assert outcome("close", lambda: tensor.to(torch.bfloat16), [1.0, 2.0], atol=1e-7).problem is None
    assert outcome("equal", lambda: tensor.detach().to_sparse(), torch.tensor([1.0, 2.0])).problem is None
    assert outcome("equal", lambda: tensor > 1, [False, True]).problem is None


def test_unusual_tensors_fail_or_pass_but_never_raise():
    quantized = torch.quantize_per_tensor(torch.tensor([1.0, 2.0]), 0.5, 0, torch.qint8)
    assert outcome("close", lambda: quantized, [1.0, 2.0], atol=1e-9).problem is None
    assert outcome("close", lambda: torch.tensor([1.0]).to(torch.float8_e4m3fn), [1.0], atol=1e-9).problem is None
    assert outcome("equal", lambda: torch.tensor([1j]).conj(), np.array([-1j])).problem is None
    assert outcome("close", lambda: torch.empty(2, device="meta"), [1.0, 2.0], atol=1e-9).problem.kind == "wrong type"


def test_comparing_writes_nothing_to_stderr_and_ignores_what_students_set(capsys):
    with np.errstate(all="raise"):
        assert outcome("close", np.array([-1.7e308]), [1.7e308], atol=1e-9).problem.kind == "wrong value"
    assert capsys.readouterr().err == ""


def test_sealed_mode_is_refused_while_nbgrader_grades(monkeypatch):
    monkeypatch.setenv("COURSE_CHECKS", "sealed")
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    with pytest.raises(ValueError, match="unset it"):
        Checks("x")


def test_partial_credit_is_the_fraction_of_passed_checks_rounded_down():
    check = Checks("exercise")
    for i in range(3):
        check.equal(f"check {i}", i, min(i, 1))
    assert check.score(points=2) == 1.33
    check.equal("check 3", 0, 0)
    assert check.score(points=2) == 1.5


def test_given_argument_checks_earn_nothing_while_the_stub_is_there():
    def given_then_stub(x):
        if x > 1:
            raise ValueError("given code")
        return unfinished()

    check = Checks("exercise")
    check.equal("value", lambda: given_then_stub(1), 2)
    check.raises("refuses 80", lambda: given_then_stub(80), ValueError)
    assert check.score(points=2) == 0.0


def test_full_points_need_every_check():
    check = Checks("exercise")
    for i in range(1000):
        check.equal(str(i), i, max(i, 1))
    assert check.score(points=1) == 0.99


def test_score_prints_as_a_number_that_nbgrader_reads():
    check = Checks("exercise")
    check.equal("one", 1, 1)
    assert repr(check.score(points=3)) == "3.0"


def test_output_on_stderr_does_not_leave_the_check(capsys):
    check = Checks("exercise")
    check.equal("warns", lambda: print("progress", file=sys.stderr) or 1, 1)
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "progress" in captured.out


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Checks(""), "non-empty"),
        (lambda: Checks("x").score(points=1), "before any check"),
        (lambda: Checks("x").close("a", 1.0, 1.0), "rtol > 0 or atol > 0"),
        (lambda: [check := Checks("x"), check.equal("a", 1, 1), check.equal("a", 1, 1)], "unique"),
        (lambda: [check := Checks("x"), check.equal("a", 1, 1), check.score(points=0)], "number > 0"),
    ],
)
def test_misuse_by_an_author_is_an_error(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_unknown_mode_is_an_error(monkeypatch):
    monkeypatch.setenv("COURSE_CHECKS", "secret")
    with pytest.raises(ValueError, match="'secret'"):
        Checks("x")


def test_html_escapes_what_students_and_checks_wrote():
    check = Checks("exercise")
    check.equal("a <b> check", "<script>alert(1)</script>", "safe", hint="<i>")
    html = check.score(points=1)._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "<i>" not in html


@pytest.mark.parametrize(("method", "options"), [("close", {"atol": 1e-9}), ("equal", {})])
def test_what_is_compared_with_may_fail_too_and_costs_one_check_only(method, options):
    def expected():
        raise TypeError("cannot assign 'Tensor' as parameter 'weight'")

    check = Checks("merge")
    getattr(check, method)("computed by another exercise", lambda: 1.0, expected, **options)
    check.equal("another", lambda: 1, 1)
    failed, passed = check.score(points=2).outcomes
    assert passed.passed
    assert not failed.passed
    assert "cannot assign 'Tensor'" in failed.problem.text


def test_expected_values_stay_out_of_the_table_while_nbgrader_grades(monkeypatch, capsys):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    check = Checks("exercise")
    check.equal("secret", 41, 42, hint="count from zero")
    score = check.score(points=1)
    shown = score._repr_html_() + capsys.readouterr().out
    assert "42" not in shown
    assert "count from zero" in shown


plain_leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | hnp.arrays(
        st.sampled_from([np.float64, np.float32, np.int16, np.bool_, np.uint8]),
        hnp.array_shapes(min_dims=0, min_side=0),
    )
)
plain_data = st.recursive(
    plain_leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@given(plain_data)
def test_json_form_is_exact(data):
    again = from_json(json.loads(json.dumps(to_json(plain(data)))))
    assert compare(again, plain(data), Tolerance(dtype=True)) is None


@pytest.mark.parametrize("bad", [object(), {1.5: "x"}, np.array([object()]), b"bytes"])
def test_only_plain_data_is_taken(bad):
    with pytest.raises(NotPlain):
        plain(bad)


def test_self_containing_and_huge_data_are_refused():
    endless: list = []
    endless.append(endless)
    with pytest.raises(NotPlain, match="nested"):
        plain(endless)
    with pytest.raises(NotPlain, match="items"):
        plain([0] * 20_000)
    with pytest.raises(NotPlain, match="MiB"):
        plain(np.zeros(2**23))


def sealed_record(monkeypatch, answer, expected=None):
    """The record of a sealed cell with one check of each kind."""
    monkeypatch.setenv("COURSE_CHECKS", "sealed")
    check = Checks("exercise")
    check.close("values", lambda: answer() * 2, expected, atol=1e-9, hint="double it")
    check.equal("same", lambda: int(answer()), expected)
    check.at_least("large", answer, 1.0)
    check.raises("refuses", lambda: answer().nothing, AttributeError)
    return json.loads(json.dumps(record(check.name, 4, check._observations)))


def forbidden():
    raise AssertionError("sealed mode must not evaluate what is expected")


def test_sealed_mode_records_and_the_judge_compares(monkeypatch):
    instructor = sealed_record(monkeypatch, lambda: 2.0, forbidden)
    same = sealed_record(monkeypatch, lambda: 2.0 + 1e-12)
    assert all(outcome.passed for outcome in judge(same, instructor))
    assert [outcome.passed for outcome in judge(sealed_record(monkeypatch, lambda: 0.5), instructor)] == [
        False,
        False,
        False,
        True,
    ]
    assert [outcome.passed for outcome in judge(sealed_record(monkeypatch, unfinished), instructor)] == [False] * 4


def nested(depth: int) -> list:
    data: list = []
    for _ in range(depth):
        data = [data]
    return data


@pytest.mark.parametrize(
    "forged",
    [
        None,
        [],
        {"checks": 3},
        {"checks": [None, {"name": 3}, {"name": "values"}]},
        {"checks": [{"name": "values", "actual": {"value": {"array": "!!", "dtype": "O", "shape": [1]}}}]},
        {"checks": [{"name": "values", "actual": {"value": {"array": "AAAA", "dtype": "<f8", "shape": [-1]}}}]},
        {"checks": [{"name": "values", "actual": {"value": {"float": "nonsense"}}}]},
        {"checks": [{"name": "values", "actual": {"passed": True}}]},
        {"checks": [{"name": "values", "actual": {"raised": []}}]},
        {"checks": [{"name": "values", "actual": {"value": {"array": "AAAA", "dtype": ",", "shape": [1]}}}]},
        {
            "checks": [
                {"name": "values", "actual": {"value": {"array": "AAAA", "dtype": "<f8", "shape": [float("inf")]}}}
            ]
        },
        {"checks": [{"name": "values", "actual": {"value": 10**5000}}]},
        {"checks": [{"name": "large", "actual": {"value": {"float": "0x1p99999"}}}]},
        {"checks": [{"name": "same", "actual": {"value": nested(5000)}}]},
    ],
)
def test_a_forged_record_fails_every_check_and_never_raises(monkeypatch, forged):
    instructor = sealed_record(monkeypatch, lambda: 2.0)
    assert not any(outcome.passed for outcome in judge(forged, instructor))


def test_the_judge_takes_tolerances_and_bounds_from_the_instructor(monkeypatch):
    instructor = sealed_record(monkeypatch, lambda: 2.0)
    student = sealed_record(monkeypatch, lambda: 0.5)
    for check in student["checks"]:
        check["tolerance"], check["bound"] = {"rtol": 1e9, "atol": 1e9, "dtype": False}, -1e9
    assert [outcome.passed for outcome in judge(student, instructor)] == [False, False, False, True]


def test_importing_the_package_does_not_import_torch():
    code = "import sys, course_utils, course_utils.checks, course_utils.plots, course_utils.validate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_numbers_that_differ_in_a_late_digit_are_shown_to_that_digit():
    problem = compare(0.9 * 9 / 9, 0.9)
    assert problem.text.startswith("got 0.89999999999999991, expected 0.90000000000000002")


@pytest.mark.parametrize("bounds", [{}, {"at_least": 0.0, "at_most": 1.0}])
def test_a_measured_check_has_exactly_one_bound(bounds):
    with pytest.raises(ValueError, match="give at_least or at_most, one of them"):
        Checks("cell").measured("two bounds", np.ones(3), np.linalg.norm, **bounds)
