"""The `course` command: exit codes, and messages without tracebacks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from course_admin.build.lab import Targets
from course_admin.cli import app
from course_utils import data_files


def course(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run the command in a folder as a person would."""
    code = "from course_admin.cli import main; main()"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)


def test_check_passes_on_a_built_lab_and_fails_with_file_cell_and_line(built):
    done = course("build", "--check", cwd=built.root)
    assert (done.returncode, done.stdout) == (0, "lab1_tiny: ok\n")
    source = built.lab("1").source
    source.write_text(source.read_text().replace("BEGIN HIDDEN TESTS", "BEGIN HIDEN TESTS", 1))
    done = course("build", "--check", cwd=built.root)
    assert done.returncode == 1
    assert "solutions/lab1_tiny.py, cell 4, line 19: '### BEGIN HIDEN TESTS' is shaped like a marker" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_changes_nothing(built):
    path = Targets.of(built).student(built.lab("1"))
    path.write_text(path.read_text().replace("Tiny lab", "Tiny lap"))
    before = {file: file.stat().st_mtime_ns for file in built.root.rglob("*") if file.is_file()}
    assert course("build", "--check", cwd=built.root).returncode == 1
    assert {file: file.stat().st_mtime_ns for file in built.root.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("build", "lab7"), "no lab is called 'lab7'; the labs in"),
        (("grade", "lab1"), "no submissions: put each one at"),
        (("pretrain", "alexnet"), "got 'alexnet'"),
        (("data", "fetch", "imagenet"), "this command fetches: cifar10"),
        (("report", "lab1"), "run course grade lab1_tiny first"),
        (("report", "lab1", "--folder", "nowhere"), "--folder must be a course folder that is there"),
        (("similarity", "lab1"), "no submissions of lab1_tiny"),
        (("results", "--folder", "labs"), "holds no record of an experiment"),
        (("release", "lab1", "--out", "nbgrader_config.py/x"), "nbgrader_config.py"),
    ],
)
def test_mistakes_end_with_one_clear_message(built, arguments, words):
    done = course(*arguments, cwd=built.root)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_outside_the_repository(tmp_path):
    done = course("build", cwd=tmp_path)
    assert done.returncode == 1
    assert "not inside a course repository" in done.stderr


def test_help_does_not_import_torch_or_nbgrader():
    code = "import sys, course_admin.cli; sys.exit(bool({'torch', 'nbgrader', 'nbformat'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_verifying_the_data_fails_only_on_what_must_be_there(tmp_path, monkeypatch):
    shutil.copytree(data_files.DATA_FOLDER, tmp_path / "data", ignore=shutil.ignore_patterns("cache"))
    monkeypatch.setattr(data_files, "DATA_FOLDER", tmp_path / "data")
    monkeypatch.setenv("COURSE_DATA", str(tmp_path / "nothing"))
    done = CliRunner().invoke(app, ["data", "verify"])
    assert (done.exit_code, "CIFAR-10 is not at" in done.output) == (0, True)
    (tmp_path / "data" / "texts" / "austen.txt").write_text("It is a truth")
    done = CliRunner().invoke(app, ["data", "verify"])
    assert (done.exit_code, "austen.txt (13 bytes) is damaged" in done.output) == (1, True)
