"""Running a notebook from a fresh kernel, and finding the cells whose points are not full."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbgrader.utils import determine_grade, is_grade, is_solution

CELL_TIMEOUT_S = 900


def execute(notebook: nbformat.NotebookNode, folder: Path, *, allow_errors: bool = False, **hooks: Callable) -> None:
    """Run every cell in place, with the folder as working folder.

    Args:
        notebook: changed in place; keeps its kernelspec and language metadata, whatever the kernel reports.
        folder: the kernel's working folder.
        allow_errors: go on after a cell that raised.
        **hooks: nbclient's, for example on_cell_executed.

    Raises:
        CellExecutionError: at the first cell that raised, unless allow_errors.
    """
    metadata = {key: notebook.metadata.get(key) for key in ("kernelspec", "language_info")}
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_S,
        kernel_name="python3",
        allow_errors=allow_errors,
        record_timing=False,
        coalesce_streams=True,  # a progress bar is stored as its last line
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
        resources={"metadata": {"path": str(folder)}},
        **hooks,
    )
    client.execute()
    notebook.metadata.update(metadata)


def failed_cell(notebook: nbformat.NotebookNode) -> int:
    """Index of the cell that raised: the last one with an error output (0 if none has)."""
    for index in reversed(range(len(notebook.cells))):
        outputs = notebook.cells[index].get("outputs", [])
        if any(output.output_type == "error" for output in outputs):
            return index
    return 0


def scores(notebook: nbformat.NotebookNode) -> dict[str, tuple[float, float]]:
    """(points, maximum) of every autograded cell of an executed notebook, as nbgrader reads them, by grade id."""
    graded = [cell for cell in notebook.cells if is_grade(cell) and not is_solution(cell)]
    return {cell.metadata.nbgrader.grade_id: determine_grade(cell) for cell in graded}
