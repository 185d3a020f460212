"""All visible checks of one notebook, run in a fresh kernel: python -m course_utils.check NOTEBOOK

Exit code 0 when every check passes, 1 when some fail or a cell shows no score, 2 when the notebook cannot be run to its
end. The notebook's file is left as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import course_utils

PASSED, FAILED, NOT_RUN = 0, 1, 2
CELL_TIMEOUT_S = 900
MIME_TYPE = "application/x-course-check-table+json"
REVEAL = "from course_utils.check import _show_table; _show_table(Out.get(len(In) - 2), {name!r}, {points!r})"


@dataclass(frozen=True)
class Exercise:
    """What one cell with checks showed: a table as text, and whether everything in it passed."""

    name: str
    text: str
    passed: bool


@dataclass(frozen=True)
class Report:
    """What running a notebook showed. problem says why it could not be run to its end; empty when it was."""

    exercises: tuple[Exercise, ...] = ()
    errors: tuple[str, ...] = ()  # of other cells, one line each
    n_waiting: int = 0  # other cells that stopped at an exercise that is still a stub
    problem: str = ""

    @property
    def exit_code(self) -> int:
        if self.problem:
            return NOT_RUN
        return PASSED if self.exercises and all(item.passed for item in self.exercises) else FAILED

    def __str__(self) -> str:
        lines = [item.text for item in self.exercises]
        if self.n_waiting:
            lines.append(f"Other cells that wait for what is not written yet: {self.n_waiting}")
        if self.errors:
            lines.append("\n".join(["Other cells that raised an error:", *(f"  {error}" for error in self.errors)]))
        if self.problem:
            lines.append(f"The notebook could not be run: {self.problem}")
        else:
            n_passed = sum(item.passed for item in self.exercises)
            lines.append(f"{n_passed} of {len(self.exercises)} exercises pass all of their checks.")
        return "\n\n".join(lines)


def check_notebook(path: Path | str, timeout_s: float = CELL_TIMEOUT_S) -> Report:
    """Run a lab's notebook in a fresh kernel, in its own folder, and read its checks.

    Args:
        path: The notebook; it is not changed.
        timeout_s: Seconds that one cell may take.

    Returns:
        A Report; nothing in a notebook makes this function raise.
    """
    try:
        notebook = _read(Path(path))
    except ValueError as error:
        return Report(problem=str(error))
    tables = [(cell, _table_cell(cell)) for cell in notebook.cells if _is_check(cell)]
    if not tables:
        return Report(problem=f"{path} holds no cell with checks; is it the notebook of a lab?")
    problem = _run(_with_tables(notebook, tables), Path(path).resolve().parent, timeout_s)
    exercises = tuple(_exercise(cell, table) for cell, table in tables)
    others = [(n, cell) for n, cell in enumerate(notebook.cells, 1) if cell.cell_type == "code" and not _is_check(cell)]
    errors = [error for number, cell in others if (error := _error(number, cell))]
    real = [error for error in errors if ": NotImplementedError: Lab " not in error]
    return Report(exercises, tuple(real), len(errors) - len(real), problem)


def _read(path: Path) -> Any:
    import nbformat

    try:
        notebook = nbformat.reads(path.read_text(encoding="utf-8-sig"), as_version=4)
        _ = [(cell.source, cell.metadata, cell.cell_type) for cell in notebook.cells]
    except OSError as error:
        raise ValueError(f"{path} cannot be opened ({error.strerror})") from None
    except Exception as error:  # whatever nbformat makes of a file that is no notebook
        raise ValueError(f"{path} is not a notebook ({type(error).__name__}: {str(error)[:200]})") from None
    return notebook


def _is_check(cell: Any) -> bool:
    """A graded code cell: one that ends with check.score(points=...)."""
    marks = cell.metadata.get("nbgrader", {})
    return cell.cell_type == "code" and bool(marks.get("grade")) and not marks.get("solution")


def _run(notebook: Any, folder: Path, timeout_s: float) -> str:
    """Execute in place. Returns why it stopped, or ''."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    client = NotebookClient(
        notebook,
        timeout=timeout_s,
        kernel_name="python3",
        allow_errors=True,
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        client.execute(env=_environment())
    except CellTimeoutError:
        return f"a cell took longer than {timeout_s:g} seconds; run them one by one to see which, or set --timeout"
    except DeadKernelError:
        return "its kernel died; run the cells one by one to see where"
    except Exception as error:
        return f"the kernel could not be started or failed ({type(error).__name__}: {str(error)[:300]})"
    return ""


def _environment() -> dict[str, str]:
    """This process's environment, with open checks and with the course_utils that this module belongs to."""
    home = str(Path(course_utils.__file__).resolve().parents[1])
    paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = {"COURSE_CHECKS": "open", "PYTHONPATH": os.pathsep.join(paths)}
    return {**{name: value for name, value in os.environ.items() if name != "NBGRADER_EXECUTION"}, **settings}


def _name(check: Any) -> str:
    return str(check.metadata["nbgrader"].get("grade_id", "")).removeprefix("check_")


def _table_cell(check: Any) -> Any:
    """A cell to run after a check: it shows the table as text."""
    from nbformat.v4 import new_code_cell

    return new_code_cell(REVEAL.format(name=_name(check), points=check.metadata["nbgrader"].get("points", 0)))


def _with_tables(notebook: Any, tables: list[tuple[Any, Any]]) -> Any:
    """A notebook of the same cells (not copies), without their old outputs, each check followed by its table."""
    from nbformat.v4 import new_notebook

    after = {id(check): table for check, table in tables}
    shown = new_notebook(metadata=notebook.metadata)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        shown.cells += [cell, *filter(None, [after.get(id(cell))])]
    return shown


def _show_table(score: Any, name: str, points: float) -> None:
    """Called in the kernel, in the cell after a check: display the table of the Score that the check showed."""
    from IPython.display import display

    from course_utils.checks import Score, table

    if isinstance(score, Score):
        text = table.as_text(name, score.outcomes, float(score), points)
        data = {"text": text, "passed": all(outcome.passed for outcome in score.outcomes)}
        display({MIME_TYPE: json.dumps(data), "text/plain": ""}, raw=True)


def _exercise(check: Any, table: Any) -> Exercise:
    for output in table.outputs:
        if MIME_TYPE in output.get("data", {}):
            data = json.loads(output["data"][MIME_TYPE])
            return Exercise(_name(check), data["text"], data["passed"])
    without = "the cell showed no score" if check.execution_count else "the cell was not reached"
    reason = _error(0, check).partition(": ")[2] or without
    return Exercise(_name(check), f"{_name(check)}: no checks were made\n  [FAIL] {reason}", False)


def _error(number: int, cell: Any) -> str:
    """'cell 12: NameError: ...' of a cell that raised, else ''."""
    found = [output for output in cell.get("outputs", []) if output["output_type"] == "error"]
    return f"cell {number}: {found[-1]['ename']}: {found[-1]['evalue'][:300]}" if found else ""


def main(arguments: list[str] | None = None, say: Callable[[str], Any] = print) -> int:
    """The command: print the report, return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m course_utils.check", description=__doc__.splitlines()[0])
    parser.add_argument("notebook", help="a lab's notebook (.ipynb)")
    parser.add_argument("--timeout", type=float, default=CELL_TIMEOUT_S, help="seconds that one cell may take")
    options = parser.parse_args(arguments)
    say(f"Running {options.notebook} in a fresh kernel ...\n")
    report = check_notebook(options.notebook, options.timeout)
    say(str(report))
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
