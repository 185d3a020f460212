"""What holds for every test: no figure and no plotting style comes from the test before it."""

import sys

import pytest


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
