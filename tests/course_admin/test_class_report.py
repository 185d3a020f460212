"""The report on a class: its numbers by hand, classes of any size, and a page that shows nothing it should not."""

from __future__ import annotations

import csv
import io
import math
import re
from datetime import datetime
from html.parser import HTMLParser

import pytest
from typer.testing import CliRunner

from course_admin.class_report.page import duration, report_page
from course_admin.class_report.statistics import (
    MIN_FOR_DISCRIMINATION,
    MIN_FOR_PERCENT,
    MIN_FOR_SPREAD,
    class_statistics,
    point_biserial,
    quartiles,
)
from course_admin.class_report.tables import report_tables
from course_admin.cli import app
from course_admin.grading.results import CellResult, CheckResult, Result, save_result
from tests.course_admin.records import LAB, cell, made_up_class, result, unlucky

NOW = datetime(2026, 11, 24, 12, 0)
VOID = {"meta", "br", "img", "link", "input", "hr"}


def page_of(results) -> str:
    return report_page(class_statistics(results, LAB), "Lab 1: tiny", NOW)


def words(page: str) -> str:
    """The page without pictures and tags."""
    return re.sub(r"<[^>]*>", " ", re.sub(r"<(svg|style)\b.*?</\1>", "", page, flags=re.DOTALL))


class Balanced(HTMLParser):
    """Fails at a tag that closes what is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open[-1:] == [tag], f"</{tag}> closes nothing"
        self.open.pop()


def check_html(page: str) -> set[str]:
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    return parser.seen


def two_by_two(both: int, only_check: int, only_rest: int, neither: int) -> list[Result]:
    """A class by (passed the check or not) and (4 points in the other cell or 0)."""
    groups = ((both, True, 4), (only_check, True, 0), (only_rest, False, 4), (neither, False, 0))
    kinds = [(ok, rest) for count, ok, rest in groups for _ in range(count)]
    return [
        result(f"s{k:02}", cell("check_a", 2.0 * ok, 2.0, ok), cell("check_b", float(rest), 4.0, bool(rest)))
        for k, (ok, rest) in enumerate(kinds)
    ]


# ----------------------------------------------------------------------------------------------------------- the numbers
def test_difficulty_and_discrimination_by_hand():
    """4 both, 1 the check only, 3 the rest only, 12 neither: p = 5/20 and, as both are yes or no, r is phi:
    (4 * 12 - 1 * 3) / sqrt(5 * 15 * 7 * 13) = 45 / sqrt(6825) = 0.544705."""
    first = class_statistics(two_by_two(4, 1, 3, 12), LAB).checks[0]
    assert (first.n, first.n_passed, first.fraction) == (20, 5, 0.25)
    assert first.r == pytest.approx(0.544705, abs=1e-6)


@pytest.mark.parametrize(("counts", "r"), [((10, 0, 0, 10), 1.0), ((0, 10, 10, 0), -1.0), ((5, 5, 5, 5), 0.0)])
def test_discrimination_reaches_from_minus_one_to_one(counts, r):
    assert class_statistics(two_by_two(*counts), LAB).checks[0].r == pytest.approx(r, abs=1e-12)


def test_a_checks_own_cell_does_not_count_for_it():
    alone = [result(f"s{k:02}", cell("check_a", 2.0 * (k % 2), 2.0, bool(k % 2))) for k in range(30)]
    assert class_statistics(alone, LAB).checks[0].r is None  # no other cell, so nothing to be correlated with


def test_written_answers_and_uncounted_submissions_are_not_in_the_checks_numbers():
    everybody = two_by_two(4, 1, 3, 12)
    died = [result("x", cell("check_a", 2, 2, True), outcome="crashed", reason="died")]
    assert class_statistics(everybody + died, LAB).checks[0].n == 20
    marked = [
        Result(r.student, r.lab, r.outcome, cells=(*r.cells, cell("answer_c", float(k % 5), 4)))
        for k, r in enumerate(everybody)
    ]
    assert class_statistics(marked, LAB).checks[0].r == pytest.approx(0.544705, abs=1e-6)


def test_failed_checks_are_wrong_or_not_written_and_problems_are_counted():
    def one(student: str, problem: str) -> Result:
        check = CheckResult("value", not problem, problem, "see section 2")
        return result(student, CellResult("check_a", float(not problem), 1.0, (check,)))

    problems = ["", "wrong value", "wrong value", "wrong shape", "not implemented yet", "missing"]
    check = class_statistics([one(f"s{k}", text) for k, text in enumerate(problems)], LAB).checks[0]
    assert (check.n_passed, check.n_wrong, check.n_unfinished) == (1, 3, 2)
    assert check.problems == (("wrong value", 2), ("wrong shape", 1))


def test_quartiles_and_durations():
    assert quartiles([0, 1, 2, 3, 4, 5, 6, 7, 8]) == (2, 4, 6)
    shown = [duration(seconds) for seconds in (12, 45 * 60, 3 * 3600 + 60, 2 * 86400 + 3 * 3600)]
    assert shown == ["12 s", "45 min", "3 h 1 min", "2 d 3 h"]


# ---------------------------------------------------------------------------------------------- small and strange classes
@pytest.mark.parametrize("n", [0, 1, 2, MIN_FOR_PERCENT - 1, MIN_FOR_SPREAD - 1])
def test_small_classes_get_no_number_that_means_nothing(n):
    results = made_up_class(n)
    found, page = class_statistics(results, LAB), page_of(results)
    check_html(page)
    assert all(check.r is None for check in found.checks)
    assert quartiles(found.points) is None
    assert "nan" not in words(page).lower()
    assert "median of" not in page
    if n < MIN_FOR_PERCENT:
        assert not re.search(r"\(\d+ %\)", words(page))
    if n == 0:
        assert "no record of this lab yet" in page
    else:
        assert f"{results[0].points:g}" in words(page)


def test_numbers_appear_from_the_stated_sizes_on():
    assert "median of" in page_of(made_up_class(MIN_FOR_SPREAD))
    assert re.search(r"\(\d+ %\)", words(page_of(made_up_class(MIN_FOR_PERCENT))))
    few, enough = (
        class_statistics(made_up_class(n), LAB) for n in (MIN_FOR_DISCRIMINATION - 1, MIN_FOR_DISCRIMINATION)
    )
    assert all(check.r is None for check in few.checks)
    assert any(check.r is not None for check in enough.checks)
    passed = [True] * 10 + [False] * (MIN_FOR_DISCRIMINATION - 11)
    assert point_biserial(passed, list(range(len(passed)))) is None


def test_a_class_of_equals():
    results = [result(f"s{k:02}", cell("check_a", 2, 2, True), cell("check_b", 3, 3, True)) for k in range(25)]
    found, page = class_statistics(results, LAB), page_of(results)
    check_html(page)
    assert all(check.r is None and check.fraction == 1.0 for check in found.checks)
    assert "passed by everybody" in page
    assert "nan" not in words(page).lower()
    nobody = [result(f"s{k:02}", cell("check_a", 0, 2, False), cell("check_b", 0, 3, False)) for k in range(25)]
    assert "More than half of the class got these checks wrong" in page_of(nobody)


def test_only_outcomes_without_a_grade():
    results = [result(f"s{k}", outcome="missing", reason="no notebook was handed in") for k in range(10)]
    page = page_of(results)
    check_html(page)
    assert "No submission has a grade" in page
    assert "No grade yet for 10 of 10 (100 %)" in page


def test_names_cannot_break_the_page_or_a_spreadsheet():
    names = ["<script>alert(1)</script>", 'a" onmouseover="x', "Doe, Jr", "=1+1", "Zoë 李 🎓", "$x^", "a\nb"]
    results = made_up_class(25) + unlucky() + [result(name, cell("check_a$b^", 1, 2, True, False)) for name in names]
    found, page = class_statistics(results, LAB), page_of(results)
    assert "script" not in check_html(page)
    assert "Zoë 李 🎓" in page
    assert "&lt;script&gt;" in page
    for text in report_tables(found).values():
        rows = list(csv.reader(io.StringIO(text, newline="")))
        assert len({len(row) for row in rows}) == 1
        assert not any(re.match(r"[=+@]|-(?!\d)", value) for row in rows for value in row)


def test_check_names_are_no_formulas_for_the_pictures():
    name, results = "costs $\\frac$ more", []
    for k in range(24):  # r = -1 for both checks, so that both names stand in the picture
        ok = k % 2 == 1
        cells = ("check_a", ok), ("check_b", not ok)
        results.append(
            result(f"s{k:02}", *(CellResult(c, 2.0 * passed, 2.0, (CheckResult(name, passed),)) for c, passed in cells))
        )
    assert [check.r for check in class_statistics(results, LAB).checks] == pytest.approx([-1.0, -1.0])
    assert name in page_of(results)


def test_tables_hold_what_the_records_say():
    results = [*made_up_class(30), *unlucky()]
    found = class_statistics(results, LAB)
    tables = {name: list(csv.DictReader(io.StringIO(text, newline=""))) for name, text in report_tables(found).items()}
    by_name = {row["student"].removeprefix("'"): row for row in tables["students.csv"]}
    assert set(by_name) == {r.student for r in results}
    for r in results:
        assert by_name[r.student]["points"] == (f"{r.points:.6g}" if r.counts else "")
        assert by_name[r.student]["outcome"] == r.outcome
    assert len(tables["checks.csv"]) == len(found.checks)
    assert len(tables["cells.csv"]) == len(found.cells)
    for row, check in zip(tables["checks.csv"], found.checks, strict=True):
        r = float(row["discrimination_r"]) if row["discrimination_r"] else None
        assert r == (None if check.r is None else pytest.approx(check.r, rel=1e-5))
        assert math.isclose(float(row["fraction_passed"]), check.n_passed / check.n, rel_tol=1e-5)


def test_the_page_names_flags_outcomes_and_late_work():
    page = words(page_of([*made_up_class(30), *unlucky()]))
    for text in (
        "replaced the checks module",
        "cell 9 took longer than 60 s",
        "1 d 2 h",
        "21 November 2026, 02:03 UTC",
        "a deleted graded cell was put back",
    ):
        assert text in page


# ---------------------------------------------------------------------------------------------------- what stays inside
def test_the_same_records_give_the_same_page_and_it_needs_no_network():
    results = [*made_up_class(30), *unlucky()]
    page = page_of(results)
    assert page == page_of(results)
    assert not re.search(r'(src|href)="(?!#)', re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL))
    assert "@import" not in page
    assert "url(http" not in page


def test_no_hidden_source_and_no_expected_value_from_a_real_grading(built, monkeypatch):
    """A class is graded by the command itself; the hidden cell's text and its numbers are in no file of the report."""
    released = built.labs / "lab1_tiny" / "lab1_tiny.ipynb"
    folder = built.root / "submitted" / "ada" / "lab1_tiny"
    folder.mkdir(parents=True)
    (folder / "lab1_tiny.ipynb").write_bytes(released.read_bytes())
    monkeypatch.chdir(built.root)
    graded = CliRunner().invoke(app, ["grade", "lab1", "--isolation", "none", "--workers", "1"])
    assert (built.root / "grades" / "lab1_tiny" / "ada.json").exists(), graded.output
    done = CliRunner().invoke(app, ["report", "lab1"])
    assert done.exit_code == 0, done.output
    written = {path.name: path.read_text("utf-8-sig") for path in (built.root / "reports" / "lab1_tiny").iterdir()}
    assert set(written) == {"report.html", "checks.csv", "cells.csv", "students.csv"}
    assert "hidden inputs" in written["checks.csv"]
    assert "ada" in written["students.csv"]
    for name, text in written.items():
        for secret in ("check.equal", "HIDDEN TESTS", "secret explanation", "[0, 0, 7]", "np.array", "-3.0"):
            assert secret not in text, (name, secret)


def test_the_command_says_what_to_do_about_a_damaged_record(built, monkeypatch):
    monkeypatch.chdir(built.root)
    save_result(result("ada", cell("check_a", 1, 2, True)), built.root)
    (built.root / "grades" / LAB / "bob.json").write_text("{")
    done = CliRunner().invoke(app, ["report", "lab1"])
    assert done.exit_code != 0
    assert "bob.json" in str(done.exception) + done.output
