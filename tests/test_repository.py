"""Promises that the repository's own documents make: dependencies, README's tree and table, docstrings, licences."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest

from course_admin.paths import Repository

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA_NAMES = {"torch": "pytorch"}


def requirement(text: str) -> tuple[str, str]:
    """('numpy', '>=1.26') of 'numpy>=1.26'."""
    name, bound = re.fullmatch(r"([A-Za-z0-9_.-]+?)(>=[\w.]+)?", text.strip()).groups()
    return name.lower().replace("_", "-"), bound or ""


def tracked_files() -> list[str]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return done.stdout.splitlines()


def test_environment_yml_lists_the_packages_of_pyproject():
    dependencies = (ROOT / "environment.yml").read_text().split("dependencies:")[1]
    lines = re.findall(r"^  - ([a-z].*[^:])$", dependencies, re.MULTILINE)
    conda = dict(requirement(line) for line in lines)
    assert conda.pop("python") == PROJECT["requires-python"]
    conda.pop("pip")
    ours = dict(requirement(line) for line in PROJECT["dependencies"])
    assert conda == {CONDA_NAMES.get(name, name): bound for name, bound in ours.items()}


def test_constraints_pin_every_dependency_by_plain_version():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!-]+", line) for line in lines)
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    wanted = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]
    assert {requirement(text)[0] for text in wanted} <= pinned


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_tree_matches_the_files():
    tree = re.search(r"## The tree\n+```text\n(.*?)```", readme(), re.DOTALL).group(1)
    entries = [line.split()[0] for line in tree.splitlines() if line.strip() and not line.startswith(" ")]
    missing = [entry for entry in entries if not (ROOT / entry).exists()]
    assert missing == []
    top = {path.split("/")[0] for path in tracked_files()}
    shown = {entry.split("/")[0] for entry in entries}
    assert {name for name in top if not name.startswith(".")} <= shown


def test_readme_table_matches_the_labs():
    rows = dict(re.findall(r"^\| \[Lab (\d+)\][^|]*\|[^|]*\| *(\d+) *\|", readme(), re.MULTILINE))
    points = {}
    for lab in Repository(ROOT).all_labs():
        notebook = nbformat.read(ROOT / "labs" / lab.name / f"{lab.name}.ipynb", as_version=4)
        graded = (cell.metadata.get("nbgrader", {}) for cell in notebook.cells)
        points[lab.title.split()[1]] = f"{sum(data['points'] for data in graded if data.get('grade')):g}"
    assert rows == points


def test_readme_links_and_pictures_exist():
    targets = re.findall(r"\]\(([^)#:]+)\)", readme())
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_readme_names_only_make_targets_that_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)`", readme())) <= targets


def test_no_tracked_file_is_large_or_names_a_machine():
    for name in tracked_files():
        path = ROOT / name
        assert path.stat().st_size < 30 * 2**20, name
        if path.suffix in {".py", ".md", ".toml", ".yml", ".txt", ".ipynb", ".json"}:
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"/(home|Users|root)/\w+/", text), name


def test_docstring_arguments_equal_signatures():
    command = [sys.executable, "-m", "pydoclint.main", "--config=pyproject.toml", "course_utils", "course_admin"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
