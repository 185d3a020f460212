"""The executed notebook as nbgrader keeps it: autograded/<student>/<lab>/<lab>.ipynb, for formgrader and by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nbformat
from nbgrader.utils import compute_checksum

from course_admin.grading.results import CellResult
from course_utils.checks.judging import Outcome
from course_utils.checks.table import as_html, as_text
from course_utils.files import replacing

# What a student's code shows is looked at in the instructor's browser: pictures and text may pass, scripts may not.
SAFE_TYPES = {"text/plain", "text/latex", "image/png", "image/jpeg"}


def autograded_notebook(
    executed: dict, instructor: nbformat.NotebookNode, cells: dict[str, CellResult], outcomes: dict[str, list[Outcome]]
) -> dict:
    """The notebook with the instructor's graded cells in it and each one's checks as its output.

    Args:
        executed: the repaired and executed notebook, as JSON data.
        instructor: the notebook with hidden tests, as nbgrader's generate_assignment has it in the gradebook.
        cells: results by grade id.
        outcomes: judged checks by grade id.

    Returns:
        JSON data of a notebook.
    """
    sources = {c.metadata["nbgrader"]["grade_id"]: c.source for c in instructor.cells if "nbgrader" in c.metadata}
    for number, cell in enumerate(executed["cells"], 1):
        name = cell["metadata"].get("nbgrader", {}).get("grade_id")
        if cell["cell_type"] == "code":
            cell["execution_count"] = number
            cell["outputs"] = [_safe(output) for output in cell["outputs"]]
        if name in outcomes:
            cell["source"] = sources[name]
            cell["metadata"]["nbgrader"]["checksum"] = compute_checksum(nbformat.from_dict(cell))
            cell["outputs"] = _score(name, cells[name], tuple(outcomes[name]), number)
    return executed


def _safe(output: dict) -> dict:
    if "data" in output:
        output["data"] = {mime: value for mime, value in output["data"].items() if mime in SAFE_TYPES}
    return output


def _score(name: str, cell: CellResult, outcomes: tuple[Outcome, ...], number: int) -> list[dict]:
    """The output that the cell would have had in open mode, without expected values."""
    title, points = name.partition("_")[2], cell.points
    html = as_html(title, outcomes, points or 0.0, cell.maximum, reveal=False)
    if points is None:
        text = as_text(title, outcomes, 0.0, cell.maximum, reveal=False)
        return [{"output_type": "error", "ename": "NotGraded", "evalue": outcomes[0].problem.text, "traceback": [text]}]
    data = {"text/plain": repr(float(points)), "text/html": html}
    return [{"output_type": "execute_result", "data": data, "metadata": {}, "execution_count": number}]


def write_autograded(notebook: dict, folder: Path, name: str, submitted: Path) -> None:
    """Write the notebook and copy the submission's timestamp; whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / f"{name}.ipynb") as part:
        part.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", errors="replace")
    stamp = submitted / "timestamp.txt"
    if stamp.is_file() and not stamp.is_symlink():
        shutil.copyfile(stamp, folder / "timestamp.txt")
