"""A tiny course repository in a temporary folder, for tests of the builder and of grading."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from course_admin.build.lab import build_lab
from course_admin.paths import Repository

ROOT = Path(__file__).parents[2]

TINY_LAB = """\
# %% [markdown]
# # Tiny lab
#
# Keep the largest entries, $|w_j|$ first.

# %%
import numpy as np

from course_utils.checks import Checks
from course_utils.validate import check_count, check_vector

# %% exercise
concept_1 = True
# because the secret explanation says so

# %% check points=1
check = Checks("concepts")
check.equal("question 1 is answered", lambda: type(concept_1).__name__, "bool")
### BEGIN HIDDEN TESTS
check.equal("question 1", lambda: concept_1, True)
### END HIDDEN TESTS
check.score(points=1)

# %% exercise
from course_utils.sparse_linear import keep_largest

# %% check points=3
check = Checks("keep_largest")
check.equal("visible", lambda: keep_largest(np.array([1.0, -3.0, 2.0]), 2), [0, -3, 2])
### BEGIN HIDDEN TESTS
check.equal("hidden inputs", lambda: keep_largest(np.array([1.0, -3.0, 7.0]), 1), [0, 0, 7])
### END HIDDEN TESTS
check.score(points=3)

# %% [markdown]
# Why do we keep the largest?

# %% [markdown] answer name=why points=2
# Because the projection onto the sparse vectors does. Mark scheme: one point for each half.
"""

TINY_WRONG_ANSWERS = """\
import numpy as np
from course_admin.answers import correct, wrong, wrong_value

@wrong("keeps everything")
def keep_largest(w, n_nonzero):
    return w

wrong_value("concept_1", False)
"""


def _write_tiny(folder: Path) -> Repository:
    (folder / "solutions").mkdir(parents=True)
    (folder / "labs").mkdir()
    (folder / "solutions" / "lab1_tiny.py").write_text(TINY_LAB, encoding="utf-8")
    answers = folder / "tests" / "wrong_answers"
    answers.mkdir(parents=True)
    (answers / "lab1_tiny.py").write_text(TINY_WRONG_ANSWERS, encoding="utf-8")
    shutil.copy(ROOT / "nbgrader_config.py", folder)
    return Repository(folder)


@pytest.fixture
def tiny(tmp_path: Path) -> Repository:
    """A repository with one unbuilt lab, lab1_tiny."""
    return _write_tiny(tmp_path / "repository")


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    repository = _write_tiny(tmp_path_factory.mktemp("built") / "repository")
    build_lab(repository.lab("lab1"), repository)
    return repository.root


@pytest.fixture
def built(built_once: Path, tmp_path: Path) -> Repository:
    """A repository with one built lab, lab1_tiny."""
    return Repository(Path(shutil.copytree(built_once, tmp_path / "built")))
