"""Notebooks in a real JupyterLab and a real browser: for the picture in the README and for tests.

Needs Chromium on the machine and the Python package playwright (part of the development dependencies).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from course_admin.paths import CourseError, Lab, Repository

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]
NEWS = "@jupyterlab/apputils-extension:announcements"  # asks whether to show news, on top of the notebook
START_TIMEOUT_S = 90
PAGE_TIMEOUT_MS = 60_000


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def jupyterlab(folder: Path) -> Iterator[str]:
    """Serve the folder with JupyterLab, under no one's settings, and yield the address."""
    tools = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as settings:
        page_config = Path(settings) / "labconfig" / "page_config.json"
        page_config.parent.mkdir()
        page_config.write_text(json.dumps({"disabledExtensions": {NEWS: True}}))
        env = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "JUPYTER_CONFIG_DIR": settings}
        port = _free_port()
        options = ["--no-browser", f"--port={port}", "--ServerApp.token=", "--allow-root", "--expose-app-in-browser"]
        command = [str(tools / "jupyter"), "lab", *options, f"--LabApp.workspaces_dir={settings}"]
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_for(f"http://127.0.0.1:{port}/api/status", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            _stop(process)


def _stop(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for(url: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine
    while time.monotonic() < deadline and process.poll() is None:
        try:
            direct.open(url, timeout=5)
            return
        except OSError:
            time.sleep(0.3)
    raise CourseError("JupyterLab did not start; try: jupyter lab")


@contextmanager
def new_page(width: int = 1300, height: int = 1000) -> Iterator[Any]:
    """A page of a headless Chromium (a playwright Page)."""
    chromium = next((path for path in map(shutil.which, NAMES) if path), None)
    if chromium is None:
        raise CourseError("Chromium is not installed. On Debian or Ubuntu: sudo apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_context(viewport={"width": width, "height": height}).new_page()
        page.set_default_timeout(PAGE_TIMEOUT_MS)
        yield page
        browser.close()


def open_notebook(page: Any, url: str, path: str) -> None:
    """Open a notebook (path relative to the served folder) and wait until its kernel is idle."""
    page.goto(f"{url}/lab/tree/{path}?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
    page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.content?.model?.cells?.length > 1")


def picture(lab: Lab, repository: Repository, text: str, path: Path) -> None:
    """Write a PNG of the instructor's notebook in JupyterLab, with the first cell that holds the text at the top."""
    with jupyterlab(repository.root) as url, new_page(height=960) as page:
        open_notebook(page, url, f"solutions/{lab.name}/{lab.name}.ipynb")
        index = page.evaluate(
            """text => {
                const notebook = window.jupyterapp.shell.currentWidget.content;
                const index = [...notebook.model.cells].findIndex(cell => cell.sharedModel.source.includes(text));
                if (index >= 0) { notebook.activeCellIndex = index; notebook.scrollToItem(index, 'start'); }
                return index;
            }""",
            text,
        )
        if index < 0:
            raise CourseError(f"{lab.name} has no cell with the text {text!r}")
        page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")
        page.wait_for_timeout(4000)  # formulas are typeset and pictures drawn as they scroll into view
        path.parent.mkdir(parents=True, exist_ok=True)
        page.locator(".jp-NotebookPanel:visible").first.screenshot(path=str(path))
