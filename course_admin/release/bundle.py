"""Putting the students' bundle together: labs, course_utils without answers, data, and what installs them.

    DIR/labs/<lab>/<lab>.ipynb    the released notebooks, just as `course build` wrote them
    DIR/course_utils/             every exercise's body is a stub, of all labs, whether they are in the bundle or not
    DIR/data/                     what the labs run on; nothing that was downloaded
    DIR/pyproject.toml, environment.yml, constraints.txt, README.md, LICENSE, LICENSE-text

Neither solutions nor tests nor course_admin. Solutions of closed labs may be revealed: those of an earlier lab are
needed when a later one builds on them, and the release refuses to write a bundle in which a lab could not run.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import nbformat

from course_admin.build.lab import expand_lab
from course_admin.build.verify import check_lab, secret_lines
from course_admin.paths import CourseError, Lab, Repository
from course_admin.release import environment
from course_admin.release.needs import needs_of
from course_admin.stubs import PACKAGE, SKIPPED, package_folder, stubbed_package, write_package

COPIED = ("constraints.txt", "LICENSE", "LICENSE-text")


def release_bundle(repository: Repository, labs: list[Lab], out: Path, reveal: list[Lab] | None = None) -> None:
    """Write the students' bundle of some labs.

    Args:
        repository: the course.
        labs: the labs to hand out.
        out: folder to write; it must not exist or be empty.
        reveal: labs whose solutions students may see, because they are closed; default: none.

    Raises:
        CourseError: if a lab is out of date, leaks, or could not run without a solution that stays hidden; or if out
            holds files. Nothing is written then.
    """
    revealed = reveal or []
    hidden = [lab for lab in repository.all_labs() if lab not in revealed]
    _refuse_unready(repository, labs, hidden, out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".release-") as scratch:
        folder = Path(scratch) / "bundle"
        _copy_labs(repository, labs, folder)
        write_package(repository, hidden, folder)
        _copy_rest(package_folder(repository).parent, folder)
        _write_environment(package_folder(repository).parent, labs, folder)
        _refuse_leaks(repository, hidden, folder)
        if out.exists():
            out.rmdir()
        shutil.move(folder, out)


def _refuse_unready(repository: Repository, labs: list[Lab], hidden: list[Lab], out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CourseError(f"{out} exists and is not empty; choose another --out, or remove it first")
    problems = [str(problem) for lab in labs for problem in check_lab(lab, repository)]
    if problems:
        raise CourseError("\n".join([*problems, "nothing was released"]))
    # A lab's own exercises: given code takes them as defaults that the notebook replaces by the student's functions.
    needs = [need for need in needs_of(labs, hidden, repository) if need.exercise.lab != need.lab]
    if needs:
        owners = sorted({need.exercise.lab.name.split("_")[0] for need in needs})
        advice = (
            "nothing was released: in this bundle those are stubs, and the labs that use them could not run. Leave "
            f"such labs out with --labs, or, when solutions may be known, add --reveal {' --reveal '.join(owners)}"
        )
        raise CourseError("\n".join([*map(str, needs), advice]))


def _copy_labs(repository: Repository, labs: list[Lab], folder: Path) -> None:
    for lab in labs:
        target = folder / "labs" / lab.name
        shutil.copytree(repository.labs / lab.name, target, ignore=shutil.ignore_patterns(*SKIPPED))


def _copy_rest(home: Path, folder: Path) -> None:
    shutil.copytree(home / "data", folder / "data", ignore=shutil.ignore_patterns(*SKIPPED))
    for name in COPIED:
        shutil.copy(home / name, folder / name)


def _write_environment(home: Path, labs: list[Lab], folder: Path) -> None:
    paths = {lab.name: folder / "labs" / lab.name / f"{lab.name}.ipynb" for lab in labs}
    notebooks = {name: nbformat.read(path, as_version=4) for name, path in paths.items()}
    project = environment.project_of(home)
    sources = [path.read_text(encoding="utf-8") for path in sorted((folder / PACKAGE).rglob("*.py"))]
    sources += [cell.source for notebook in notebooks.values() for cell in notebook.cells if cell.cell_type == "code"]
    dependencies = environment.dependencies_for(project, sources)
    titles = {name: _title(notebook) for name, notebook in notebooks.items()}
    texts = {
        "pyproject.toml": environment.pyproject(project, dependencies),
        "environment.yml": environment.environment(project, dependencies),
        "README.md": environment.readme(project, titles),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _title(notebook: nbformat.NotebookNode) -> str:
    """The notebook's first heading."""
    lines = (line for cell in notebook.cells if cell.cell_type == "markdown" for line in cell.source.splitlines())
    return next((line.lstrip("# ") for line in lines if line.startswith("# ")), "Lab")


def _refuse_leaks(repository: Repository, hidden: list[Lab], folder: Path) -> None:
    """Search the files that lost their solutions once more; a helper that holds a solution's line would show here."""
    original = stubbed_package(repository, [])
    for lab in hidden:
        secrets = secret_lines(expand_lab(lab, repository))
        for name, text in stubbed_package(repository, [lab]).items():
            lines = (folder / name).read_text(encoding="utf-8").splitlines() if text != original[name] else []
            for number, line in enumerate(lines, 1):
                if line.strip() in secrets:
                    what = f"still shows a line of {lab.title}'s solution: {line.strip()!r}"
                    raise CourseError(f"{name}, line {number} {what}; nothing was released")
