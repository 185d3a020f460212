"""The `course` command. Heavy imports happen inside the commands, so that `course --help` answers at once."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from course_admin import cli_class, cli_experiments
from course_admin.paths import CourseError, Lab, Repository

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Build, check and grade the labs of this course.")
console = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

data_app = typer.Typer(no_args_is_help=True, help="Check the data sets that come with the course, fetch the others.")
app.add_typer(data_app, name="data")
app.command()(cli_experiments.experiment)
app.command()(cli_experiments.results)
for name, command in cli_class.COMMANDS.items():
    app.command(name)(command)

Labs = Annotated[list[str] | None, typer.Argument(metavar="[LAB]...", help="Labs by name or number; default: all.")]
OneLab = Annotated[str, typer.Argument(metavar="LAB", help="A lab by name or number, for example lab1.")]


@app.command()
def build(
    labs: Labs = None,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; fail if a notebook is stale or leaks.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Execute labs again that are up to date.")] = False,
) -> None:
    """Build the instructor's and the students' notebook of each lab from its text source."""
    repository = Repository.find()
    selected = repository.select(labs or [])
    if check:
        _check(selected, repository)
    else:
        _build(selected, repository, force)


def _build(labs: list[Lab], repository: Repository, force: bool) -> None:
    from course_admin.build.lab import build_lab

    for lab in labs:
        start = time.perf_counter()
        done = build_lab(lab, repository, force=force)
        console.print(f"{lab.name}: {done}{f' in {time.perf_counter() - start:.0f} s' if done == 'executed' else ''}")


def _check(labs: list[Lab], repository: Repository) -> None:
    from course_admin.build.verify import check_lab, orphans

    found = {lab.name: check_lab(lab, repository) for lab in labs}
    if extra := orphans(repository):
        found["labs/"] = extra
    for name, problems in found.items():
        for problem in problems:
            errors.print(str(problem), markup=False)
        console.print(f"{name}: {f'{len(problems)} problem(s)' if problems else 'ok'}")
    if any(found.values()):
        raise typer.Exit(1)


@app.command()
def grade(
    lab: OneLab,
    folder: Annotated[Path | None, typer.Option(help="Course folder with submitted/; default: the repository.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Grade again what has been graded already.")] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Run again what crashed or met a limit, for example with a higher one.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; default: one for each core.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Use the Dask cluster at this address, tcp://host:8786.")
    ] = None,
    isolation: Annotated[
        str, typer.Option(help="bubblewrap, or none: submissions run with your rights.")
    ] = "bubblewrap",
    gradebook: Annotated[
        str | None, typer.Option(help="SQLAlchemy address; default: gradebook.db in the folder.")
    ] = None,
    cell_time: Annotated[float, typer.Option(min=1, help="Seconds that one cell may take.")] = 600.0,
    notebook_time: Annotated[float, typer.Option(min=1, help="Seconds that one notebook may take.")] = 1800.0,
    memory: Annotated[float, typer.Option(min=0.25, help="GiB of memory that one submission may use.")] = 4.0,
) -> None:
    """Grade every submission of a lab in parallel, each in a sandbox of its own; write feedback/ and grades/.

    Killed and started again, it grades only what is missing. Exit code 1 unless every submission was graded.
    """
    from course_admin.grading.bubblewrap import Limits
    from course_admin.grading.progress import ConsoleWatch
    from course_admin.grading.run import Options, grade_lab
    from course_admin.nbgrader_course import NbgraderCourse
    from course_admin.report import results_table, write_csv

    repository = Repository.find()
    chosen = repository.lab(lab)
    course = NbgraderCourse(repository, folder, db_url=gradebook)
    limits = Limits(cell_s=cell_time, notebook_s=notebook_time, memory_bytes=int(memory * 2**30))
    options = Options(force, workers, scheduler, isolation, limits, retry)
    with ConsoleWatch(console).shown() as watch:
        results = grade_lab(chosen, course, options, watch)
    path = course.folder / "grades" / f"{chosen.name}.csv"
    write_csv(results, path)
    console.print(results_table(results, chosen.name))
    for result in results:
        for line in filter(None, (result.reason, *result.repairs, *result.flags)):
            errors.print(f"{result.student}: {line}", markup=False)
    console.print(f"{watch.summary()}\ngrades: {path} and {course.folder / 'grades' / chosen.name}/<student>.json")
    console.print(f"feedback: {course.folder / 'feedback'}/<student>/{chosen.name}/{chosen.name}.html")
    if watch.done != watch.outcomes["graded"] + watch.outcomes["tampered"]:
        raise typer.Exit(1)


@app.command()
def demo(
    lab: OneLab = "lab1",
    folder: Annotated[Path, typer.Option(help="Where to write; an earlier demo there is replaced.")] = Path("demo"),
) -> None:
    """Build, release, submit, grade and report one lab with three invented students."""
    from course_admin.demo import run_demo
    from course_admin.report import results_table

    repository = Repository.find()
    chosen = repository.lab(lab)
    results = run_demo(chosen, repository, folder.resolve(), say=console.print)
    console.print(results_table(results, f"{chosen.name}: three students"))
    if any(result.outcome != "graded" for result in results):
        raise CourseError("\n".join(f"{result.student}: {result.reason}" for result in results if result.reason))
    console.print(
        f"\nOpen next:\n"
        f"  {folder}/feedback/ben/{chosen.name}/{chosen.name}.html   what ben gets back, in any browser\n"
        f"  make lab                                    JupyterLab on the students' notebooks\n"
        f"  solutions/{chosen.name}.py    the one file an author edits"
    )


@app.command()
def pretrain(
    name: Annotated[str, typer.Argument(help="For example resnet20_fashion_mnist; see data/checkpoints/.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the weights and their record.")] = None,
    state: Annotated[Path | None, typer.Option(help="Folder for the unfinished run; it goes on from there.")] = None,
    compile: Annotated[bool, typer.Option("--compile", help="Fuse operations; on a CPU with a C++ compiler.")] = False,
) -> None:
    """Train one of the checkpoints of data/checkpoints/, from scratch or from where it was interrupted."""
    from course_admin.pretrain import pretrain as train

    console.print(str(_or_course_error(train, name, out_folder=out, state_folder=state, compile=compile)))


@data_app.command("verify")
def verify_data() -> None:
    """Check every data file against its known content; exit code 1 if one is damaged or missing (CIFAR-10 may be)."""
    from course_utils.data import verify

    states = verify()
    for name, state in states.items():
        console.print(f"{name}: {state}", markup=False)
    optional = {name for name in states if name.endswith("cifar10.npz") and not Path(name).exists()}
    if any(state != "ok" for name, state in states.items() if name not in optional):
        raise typer.Exit(1)


@data_app.command("fetch")
def fetch_data(name: Annotated[str, typer.Argument(help="cifar10.")]) -> None:
    """Download a data set into the cache folder ($COURSE_DATA, else data/cache/)."""
    from course_utils.data import fetch_cifar10

    if name != "cifar10":
        raise CourseError(f"no data set is called {name!r}; this command fetches: cifar10")
    console.print(str(_or_course_error(fetch_cifar10)))


def _or_course_error(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call the function; errors whose message tells the person what to do are shown without a traceback."""
    try:
        return function(*arguments, **options)
    except (ValueError, OSError) as error:
        raise CourseError(str(error)) from error


@app.command()
def picture(
    lab: OneLab,
    text: Annotated[str, typer.Option(help="The picture begins at the first cell that holds this text.")],
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
) -> None:
    """Take a picture of a lab in JupyterLab, for the README. Needs Chromium."""
    from course_admin.browser import picture as take_picture

    repository = Repository.find()
    take_picture(repository.lab(lab), repository, text, out)
    console.print(str(out))


def main() -> None:
    """Entry point. A CourseError or a file that cannot be used is shown without a traceback, with exit code 1."""
    try:
        app()
    except CourseError as error:
        errors.print(f"course: {error}", markup=False, style="red")
        sys.exit(1)
    except OSError as error:
        if error.filename is None:
            raise
        errors.print(f"course: {error.filename}: {error.strerror}", markup=False, style="red")
        sys.exit(1)
