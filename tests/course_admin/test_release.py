"""The students' bundle: complete enough to work in, and without a line of a solution."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest

from course_admin.build.lab import Targets, build_lab, expand_lab, write_notebook
from course_admin.build.verify import secret_lines
from course_admin.paths import CourseError, Repository
from course_admin.release.bundle import release_bundle
from course_admin.release.environment import dependencies_for, project_of
from course_admin.release.needs import hidden_from, needs_of
from course_admin.submissions import filled, reference_answers

REPOSITORY = Repository.find()
PARTS = {"labs", "course_utils", "data", "pyproject.toml", "environment.yml", "constraints.txt", "README.md", "LICENSE", "LICENSE-text"}
USER_LAB = """\
# %% [markdown]
# # A lab that builds on another

# %%
import numpy as np

from course_utils import sparse_linear
from course_utils.checks import Checks
from course_utils.validate import check_nonnegative, check_vector

sparse_linear.keep_largest(np.array([1.0, 2.0]), 1)

# %% exercise
from course_utils.sparse_linear import soft_threshold

# %% check points=3
check = Checks("soft_threshold")
check.close("visible", lambda: soft_threshold(np.array([1.0, -3.0, 2.0]), 1.0), [0, -2, 1], atol=1e-12)
### BEGIN HIDDEN TESTS
check.close("hidden", lambda: soft_threshold(np.array([1.0, -3.0, 7.0]), 2.0), [0, -1, 5], atol=1e-12)
### END HIDDEN TESTS
check.score(points=3)
"""


def run_check(bundle: Path, notebook: str) -> subprocess.CompletedProcess:
    """What a student does in the bundle: nothing is installed, course_utils is the bundle's."""
    command = [sys.executable, "-m", "course_utils.check", notebook]
    env = {**os.environ, "PYTHONPATH": str(bundle), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=bundle, env=env, capture_output=True, text=True)


def texts_of(bundle: Path) -> dict[str, str]:
    """Every text file of a bundle but its data."""
    paths = (path for path in bundle.rglob("*") if path.is_file() and "data" not in path.relative_to(bundle).parts)
    return {path.relative_to(bundle).as_posix(): path.read_text(encoding="utf-8") for path in paths}


@pytest.fixture(scope="module")
def bundle(built_once, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("release") / "bundle"
    repository = Repository(built_once)
    release_bundle(repository, repository.all_labs(), out)
    return out


def test_a_bundle_has_what_students_need_and_nothing_else(bundle):
    assert {path.name for path in bundle.iterdir()} == PARTS
    files = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert "labs/lab1_tiny/lab1_tiny.ipynb" in files
    assert not [name for name in files if "solutions" in name or "course_admin" in name or "__pycache__" in name]
    assert not [name for name in files if name.startswith("data/cache")]
    assert {name for name in files if name.startswith("data/checkpoints/")}


def test_the_bundle_shows_no_line_of_a_solution_hidden_test_or_model_answer(bundle, built_once):
    repository = Repository(built_once)
    secrets = secret_lines(expand_lab(repository.lab("1"), repository))
    assert len(secrets) > 5
    shown = {line.strip() for text in texts_of(bundle).values() for line in text.replace("\\n", "\n").splitlines()}
    assert secrets & shown == set()
    solvers = ast.parse((bundle / "course_utils/sparse_linear/solvers.py").read_text())
    stub = next(node for node in solvers.body if getattr(node, "name", "") == "keep_largest")
    assert isinstance(stub.body[-1], ast.Raise)


def test_a_released_notebook_runs_in_the_bundle_and_scores_when_it_is_solved(bundle, built_once):
    name = "labs/lab1_tiny/lab1_tiny.ipynb"
    done = run_check(bundle, name)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "not implemented yet (Lab 1, keep_largest: replace this line" in done.stdout
    repository = Repository(built_once)
    targets = Targets.of(repository)
    answers = reference_answers(nbformat.read(targets.instructor(repository.lab("1")), as_version=4))
    released = nbformat.read(bundle / name, as_version=4)
    write_notebook(bundle / "labs" / "solved.ipynb", filled(released, answers))
    done = run_check(bundle, "labs/solved.ipynb")
    (bundle / "labs" / "solved.ipynb").unlink()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "keep_largest: 1 of 1 checks passed" in done.stdout


def test_the_bundle_can_be_installed_and_has_no_course_command(bundle):
    project = tomllib.loads((bundle / "pyproject.toml").read_text())["project"]
    assert "scripts" not in project
    imported = {line.split(">")[0] for line in project["dependencies"]}
    assert {"numpy", "matplotlib", "torch", "jupyterlab", "nbclient"} <= imported
    assert {"nbgrader", "dask", "distributed", "typer", "rich"} & imported == set()
    environment = (bundle / "environment.yml").read_text()
    assert "  - pytorch>=" in environment
    assert "python -m course_utils.check labs/lab1_tiny/lab1_tiny.ipynb" in (bundle / "README.md").read_text()


def test_dependencies_are_those_that_the_sources_import():
    project = project_of(REPOSITORY.root)
    assert "tqdm>=4.66" in dependencies_for(project, ["from tqdm.auto import tqdm"])
    assert "tqdm>=4.66" not in dependencies_for(project, ["from . import tqdm", "x = 1"])


def test_a_folder_with_files_is_left_alone(bundle, built_once):
    before = sorted(bundle.rglob("*"))
    repository = Repository(built_once)
    with pytest.raises(CourseError, match="exists and is not empty"):
        release_bundle(repository, repository.all_labs(), bundle)
    assert sorted(bundle.rglob("*")) == before


def test_a_stale_lab_is_not_released(built, tmp_path):
    source = built.lab("1").source
    source.write_text(source.read_text().replace("Tiny lab", "Another title"))
    with pytest.raises(CourseError, match="is out of date"):
        release_bundle(built, built.all_labs(), tmp_path / "out" / "bundle")
    assert not (tmp_path / "out" / "bundle").exists()


@pytest.fixture(scope="module")
def two_labs(built_once, tmp_path_factory) -> Repository:
    """A second lab whose given code calls the first lab's exercise."""
    repository = Repository(Path(shutil.copytree(built_once, tmp_path_factory.mktemp("two") / "repository")))
    (repository.solutions / "lab2_user.py").write_text(USER_LAB)
    build_lab(repository.lab("2"), repository)
    return repository


def test_a_lab_that_needs_another_ones_solution_is_refused_until_that_may_be_seen(two_labs, tmp_path):
    first, second = two_labs.all_labs()
    message = "Lab 2 uses Lab 1's solution keep_largest in solutions/lab2_user.py"
    with pytest.raises(CourseError, match=message) as caught:
        release_bundle(two_labs, [first, second], tmp_path / "all")
    assert "add --reveal lab1" in str(caught.value)
    assert not (tmp_path / "all").exists()

    release_bundle(two_labs, [first], tmp_path / "one")
    assert {path.name for path in (tmp_path / "one" / "labs").iterdir()} == {"lab1_tiny"}

    release_bundle(two_labs, [second], tmp_path / "two", reveal=[first])
    solvers = (tmp_path / "two/course_utils/sparse_linear/solvers.py").read_text()
    assert "Lab 2, soft_threshold: its solution is not part of this copy" in solvers
    assert "Lab 1, keep_largest" not in solvers


def test_needs_are_found_through_course_utils_too(two_labs):
    text = two_labs.lab("2").source.read_text()
    package = two_labs.root / "course_utils"
    shutil.copytree(REPOSITORY.root / "course_utils", package, ignore=shutil.ignore_patterns("__pycache__"))
    try:
        given = package / "sparse_linear" / "given.py"
        given.write_text(given.read_text() + "\n\ndef helper(w):\n    from .solvers import keep_largest\n    return keep_largest(w, 1)\n")
        labs = two_labs.all_labs()
        source = text.replace("from course_utils import sparse_linear\n", "from course_utils.sparse_linear import given\n")
        two_labs.lab("2").source.write_text(source.replace("sparse_linear.keep_largest(", "given.helper("))
        found = [str(need) for need in needs_of(labs[1:], labs[:1], two_labs)]
        assert found == ["Lab 2 uses Lab 1's solution keep_largest in course_utils/sparse_linear/given.py"]
    finally:
        shutil.rmtree(package)
        two_labs.lab("2").source.write_text(text)


def test_a_function_beside_an_exercise_that_calls_it_counts_too(two_labs):
    labs = two_labs.all_labs()
    text = labs[1].source.read_text()
    caller = "sparse_linear.projected_gradient_descent(np.eye(2), np.ones(2), 1, 0.1, 3)"
    try:
        labs[1].source.write_text(text.replace("sparse_linear.keep_largest(np.array([1.0, 2.0]), 1)", caller))
        found = [str(need) for need in needs_of(labs[1:], labs[:1], two_labs)]
        assert found == ["Lab 2 uses Lab 1's solution keep_largest in solutions/lab2_user.py"]
    finally:
        labs[1].source.write_text(text)


def test_a_name_that_a_notebook_only_imports_for_its_readers_counts():
    labs = REPOSITORY.all_labs()
    found = [str(need) for need in needs_of([labs[3]], [labs[1]], REPOSITORY)]
    assert found == ["Lab 4 uses Lab 2's solution magnitude_mask in solutions/lab4_structured_pruning.py"]


def test_the_readme_says_which_labs_a_bundle_must_reveal():
    labs = REPOSITORY.all_labs()
    others = {lab: {need.exercise.lab for need in needs_of([lab], labs, REPOSITORY)} - {lab} for lab in labs}
    short = lambda lab: lab.name.split("_")[0]  # noqa: E731
    text = " ".join((REPOSITORY.root / "README.md").read_text().split())
    told = re.findall(r"(lab\d)(?: --out bundle| with `)((?: ?--reveal lab\d)+)", text)
    assert {lab: set(re.findall(r"lab\d", reveal)) for lab, reveal in told} == {
        short(lab): {short(other) for other in needed} for lab, needed in others.items() if needed
    }


def test_every_lab_can_be_released_once_the_labs_that_it_builds_on_are_revealed():
    """Lab 5 adapts Lab 6's language model, so that it needs a later lab's solution; nothing else looks ahead."""
    labs = REPOSITORY.all_labs()
    ahead = {
        need.lab.title + " <- " + need.exercise.lab.title
        for number, lab in enumerate(labs)
        for need in needs_of([lab], labs[number + 1 :], REPOSITORY)
    }
    assert ahead == {"Lab 5 <- Lab 6"}


def test_labs_that_build_on_nothing_are_released_with_every_solution_hidden():
    labs = REPOSITORY.all_labs()
    for lab in labs[:2]:
        assert [str(need) for need in needs_of([lab], labs, REPOSITORY)] == []


def test_what_grading_a_lab_executes_holds_no_other_labs_solutions():
    labs = {lab.title: lab for lab in REPOSITORY.all_labs()}
    shown = {title: set(labs.values()) - set(hidden_from(lab, REPOSITORY)) for title, lab in labs.items()}
    assert shown == {
        "Lab 1": set(), "Lab 2": set(), "Lab 3": {labs["Lab 2"]}, "Lab 4": {labs["Lab 2"]},
        "Lab 5": {labs["Lab 3"], labs["Lab 6"]}, "Lab 6": {labs["Lab 2"], labs["Lab 3"]},
    }  # fmt: skip
    calls = "from course_utils.lora import best_low_rank\nbest_low_rank"  # a sealed check that calls another lab's
    assert labs["Lab 5"] not in hidden_from(labs["Lab 1"], REPOSITORY, [calls])


@pytest.mark.notebook
def test_lab1_can_be_solved_with_the_bundle_alone(tmp_path):
    lab = REPOSITORY.lab("1")
    release_bundle(REPOSITORY, [lab], tmp_path / "bundle")
    answers = reference_answers(nbformat.read(Targets.of(REPOSITORY).instructor(lab), as_version=4))
    path = tmp_path / "bundle" / "labs" / lab.name / f"{lab.name}.ipynb"
    write_notebook(path, filled(nbformat.read(path, as_version=4), answers))
    done = run_check(tmp_path / "bundle", str(path))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "11 of 11 exercises pass" in done.stdout
    assert "raised an error" not in done.stdout
