"""What holds for every test: nothing comes from the test before it, or from the shell that the tests are started in."""

import os
import sys

import pytest
from hypothesis import settings

COURSE_VARIABLES = ("COURSE_PROFILE", "COURSE_CHECKS", "COURSE_DEVICE", "NBGRADER_EXECUTION")

for variable in COURSE_VARIABLES:  # what the person who runs the tests has set for a lab must not decide a test
    os.environ.pop(variable, None)
os.environ["COURSE_DEVICE"] = os.environ.get("COURSE_TEST_DEVICE", "cpu")  # nor the accelerator that a machine happens to have
# machines differ, and other work runs beside the tests; the same examples every time: a failure is there again
settings.register_profile("course", deadline=None, derandomize=True)
settings.load_profile("course")


def pytest_sessionstart(session):
    """Where COURSE_REQUIRE_SANDBOX is set, the tests of the sandbox must run: without a sandbox there are no tests."""
    if os.environ.get("COURSE_REQUIRE_SANDBOX"):
        from course_admin.grading.bubblewrap import bubblewrap_problem

        if problem := bubblewrap_problem():
            pytest.exit(f"COURSE_REQUIRE_SANDBOX is set, but {problem}", returncode=1)


@pytest.fixture(autouse=True)
def own_pictures():
    """matplotlib's state belongs to the process: a style set or a figure left open must not decide a later test."""
    forget_pictures()
    yield
    forget_pictures()


def forget_pictures() -> None:
    """Close every figure and go back to matplotlib's defaults; costs nothing where nobody has imported it."""
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
    if "matplotlib" in sys.modules:
        sys.modules["matplotlib"].rcdefaults()
