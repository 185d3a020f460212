"""Labs in a real browser: JupyterLab opens a lab, runs every cell, the slider moves, nbgrader's Validate answers."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from course_admin.browser import PAGE_TIMEOUT_MS, jupyterlab, new_page, open_notebook
from course_admin.paths import Repository

pytestmark = pytest.mark.browser

REPOSITORY = Repository.find()


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> str:
    """Address of a JupyterLab that serves a copy of the course."""
    root: Path = tmp_path_factory.mktemp("course")
    for name in ("nbgrader_config.py", "solutions", "labs"):
        source = REPOSITORY.root / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, root / name)
    subprocess.run([sys.executable, "-c", "import matplotlib.pyplot"], check=True)  # its font cache: slow once, and it says so
    with jupyterlab(root) as url:
        yield url


@pytest.fixture
def page():
    with new_page() as page:
        yield page


def run_all(page) -> None:
    """Run > Run All Cells, and wait until the last code cell has run."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).click()
    page.wait_for_function(
        """() => {
            const model = window.jupyterapp.shell.currentWidget.content.model;
            const code = [...model.cells].filter(cell => cell.type === 'code' && cell.sharedModel.source.trim());
            return code.length > 0 && code.every(cell => cell.executionCount !== null && cell.executionState !== 'running');
        }""",
        timeout=3 * PAGE_TIMEOUT_MS,
    )


def outputs(page) -> list[dict]:
    """All outputs of the open notebook, as nbformat JSON."""
    return page.evaluate(
        """() => [...window.jupyterapp.shell.currentWidget.content.model.cells]
            .filter(cell => cell.type === 'code').flatMap(cell => cell.outputs.toJSON())"""
    )


def clear_outputs(page) -> None:
    page.get_by_role("menuitem", name="Edit", exact=True).click()
    page.get_by_text("Clear Outputs of All Cells", exact=True).click()
    page.wait_for_function(
        "() => [...window.jupyterapp.shell.currentWidget.content.model.cells].every(c => c.type !== 'code' || !c.executionCount)"
    )


def slider_figure(page) -> tuple:
    """(slider handle, function giving the source of the picture below it) of the first slider in the notebook."""
    widget = page.locator(".jupyter-widgets.widget-slider, .jupyter-widgets.widget-hslider").first
    widget.scroll_into_view_if_needed()
    picture = page.locator(
        ".jp-Cell-outputArea:has(.widget-slider), .jp-Cell-outputArea:has(.widget-hslider)"
    ).first.locator("img")
    picture.first.wait_for()
    return widget.locator("[role=slider], .noUi-handle").first, lambda: picture.last.get_attribute("src")


def test_lab1_runs_and_its_slider_redraws_the_figure(page, server):
    lab = REPOSITORY.lab("lab1").name
    open_notebook(page, server, f"solutions/{lab}/{lab}.ipynb")
    clear_outputs(page)
    run_all(page)
    found = outputs(page)
    assert [output for output in found if output["output_type"] == "error"] == []
    assert [output for output in found if output.get("name") == "stderr"] == []
    assert sum("image/png" in output.get("data", {}) for output in found) >= 5
    handle, source = slider_figure(page)
    before = source()
    handle.focus()
    for _ in range(5):
        handle.press("ArrowRight")
    deadline = time.time() + 30
    while source() == before and time.time() < deadline:
        page.wait_for_timeout(200)
    assert source() != before, "the figure did not change"


def validate(page) -> str:
    """Press nbgrader's Validate button and return what its dialog says."""
    page.get_by_role("button", name=re.compile("^Validate")).first.click()
    dialog = page.locator(".jp-Dialog")
    dialog.wait_for(timeout=3 * PAGE_TIMEOUT_MS)
    text = dialog.inner_text()
    dialog.get_by_role("button").last.click()
    return text


def test_validate_says_what_passes_and_what_fails(page, server):
    lab = REPOSITORY.lab("lab1").name
    open_notebook(page, server, f"solutions/{lab}/{lab}.ipynb")
    assert "Success" in validate(page)
    open_notebook(page, server, f"labs/{lab}/{lab}.ipynb")
    assert re.search(r"fail", validate(page), re.IGNORECASE)


def test_formgrader_lists_the_lab(page, server):
    lab = REPOSITORY.lab("lab1").name
    page.goto(f"{server}/formgrader")
    page.wait_for_selector(f"text={lab}")
