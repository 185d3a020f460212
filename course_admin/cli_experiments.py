"""`course experiment` and `course results`: the published tables at the published setting."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from course_admin.paths import CourseError, Repository

console = Console(highlight=False, soft_wrap=True)


def experiment(
    name: Annotated[str | None, typer.Argument(help="An experiment; without it, the list of all.")] = None,
    profile: Annotated[str, typer.Option(help="full: the published setting; quick: tries it out.")] = "full",
    seed: Annotated[int | None, typer.Option(help="One seed; default: all of the experiment's seeds.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the records; default: results/.")] = None,
    compile: Annotated[bool, typer.Option("--compile", help="Fuse operations; on a CPU with a C++ compiler.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Run again what has a record already.")] = False,
) -> None:
    """Run one of the published experiments; started again, it goes on after its last complete epoch."""
    from course_admin.experiments import catalogue, runner
    from course_utils.profiles import PROFILES

    folder = (out or Repository.find().root / "results").resolve()
    if name is None:
        for known in catalogue.catalogue().values():
            stems = [catalogue.record_name(known.name, number, profile) for number in known.seeds]
            n_run = sum((folder / f"{stem}.json").is_file() for stem in stems)
            console.print(f"{n_run}/{len(stems)} run  {known.name:38s}  {known.title}", markup=False)
        return
    if profile not in PROFILES:
        raise CourseError(f"--profile must be one of {sorted(PROFILES)}, got {profile!r}")
    try:
        chosen = catalogue.find(name)
        if seed is not None and seed not in chosen.seeds:
            console.print(f"seed {seed} is none of {chosen.seeds}: docs/results.md will not show it", markup=False)
        for number in chosen.seeds if seed is None else (seed,):
            path = folder / f"{catalogue.record_name(chosen.name, number, profile)}.json"
            if path.is_file() and not force:
                console.print(f"{path}: there already (--force runs it again)", markup=False)
                continue
            runner.run(chosen, PROFILES[profile], folder, seed=number, compile=compile)
            console.print(str(path), markup=False)
    except (ValueError, OSError) as error:
        raise CourseError(str(error)) from error


def results(
    verify: Annotated[bool, typer.Option("--verify", help="Evaluate the packed networks again and compare.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Folder of the records; default: results/.")] = None,
) -> None:
    """Build docs/results.md from the records of the experiments, or check the packed networks against them.

    Of records in another folder the page is built there.
    """
    from course_admin.experiments import page
    from course_admin.experiments import results as module

    root = Repository.find().root
    records = folder or root / "results"
    target = root / "docs" / "results.md" if folder is None else folder / "results.md"
    if not any(records.glob("*.json")):
        raise CourseError(f"{records} holds no record of an experiment; run one with: course experiment NAME")
    try:
        if verify:
            problems = module.verify(records, progress=True)
            for problem in problems:
                console.print(problem, markup=False)
            if problems:
                raise typer.Exit(1)
            console.print("all packed networks have their recorded accuracy")
            return
        n_run = page.build_page(records, target)
    except (ValueError, OSError) as error:
        raise CourseError(str(error)) from error
    console.print(f"{target}: {n_run} experiments have a record", markup=False)
