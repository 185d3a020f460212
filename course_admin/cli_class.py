"""Commands around a class: check, release, import, report, similarity, export, handback. cli.py registers them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from course_admin.paths import CourseError, Lab, Repository
from course_utils.files import replacing

console = Console(highlight=False, soft_wrap=True, markup=False)
errors = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)

OneLab = Annotated[str, typer.Argument(metavar="LAB", help="A lab by name or number, for example lab1.")]
Folder = Annotated[
    Path | None, typer.Option(help="Course folder with submitted/ and grades/; default: the repository.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")]


def _lab_and_folder(lab: str, folder: Path | None) -> tuple[Lab, Path]:
    repository = Repository.find()
    if folder is not None and not folder.is_dir():
        raise CourseError(f"--folder must be a course folder that is there; {folder} is not a folder")
    return repository.lab(lab), (folder or repository.root).resolve()


def _write(path: Path, content: bytes, force: bool) -> None:
    """Write a file whole or not at all."""
    if path.is_dir():
        raise CourseError(f"--out must be a file; {path} is a folder")
    if path.exists() and not force:
        raise CourseError(f"{path} exists; choose another --out, or replace it with --force")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_bytes(content)


def _fail_if(failed: object) -> None:
    if failed:
        raise typer.Exit(1)


def check(
    notebook: Annotated[Path, typer.Argument(help="A lab's notebook.")],
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that one cell may take.")] = 900,
) -> None:
    """Run the visible checks of a notebook. Exit code 0: all pass, 1: some fail, 2: it cannot be run.

    Students have the same as: python -m course_utils.check NOTEBOOK
    """
    from course_utils.check import main

    raise typer.Exit(main([str(notebook), "--timeout", str(timeout)]))


def release(
    out: Annotated[Path, typer.Option(help="Folder to write; it must not exist or be empty.")],
    labs: Annotated[list[str] | None, typer.Argument(metavar="[LAB]...", help="Labs to release; default: all.")] = None,
    more: Annotated[list[str] | None, typer.Option("--labs", help="One more lab to release, repeatable.")] = None,
    reveal: Annotated[
        list[str] | None, typer.Option("--reveal", help="A closed lab whose solutions may be seen, repeatable.")
    ] = None,
) -> None:
    """Write the students' bundle: labs, course_utils without solutions, data, environment, README."""
    from course_admin.release.bundle import release_bundle

    repository = Repository.find()
    chosen = list(dict.fromkeys(repository.select([*(labs or []), *(more or [])])))
    release_bundle(repository, chosen, out.resolve(), [repository.lab(name) for name in reveal or []])
    console.print(f"{out}: {', '.join(lab.name for lab in chosen)}")


def import_(
    lab: OneLab,
    archive: Annotated[Path, typer.Argument(metavar="FILE.zip", help="The archive of submissions.")],
    format: Annotated[str | None, typer.Option(help="canvas, moodle or plain; default: judged by the names.")] = None,
    folder: Folder = None,
) -> None:
    """Put submissions from an archive into submitted/. Exit code 1 if a notebook was left out."""
    from course_admin.lms.collect import collect
    from course_admin.lms.names import FORMATS

    _one_of("format", format, FORMATS)
    chosen, course = _lab_and_folder(lab, folder)
    found = collect(chosen, archive, course, format)
    for taken in found.taken:
        remarks = [*(["LATE"] * taken.late), *filter(None, [taken.note])]
        console.print(f"{taken.student}: {taken.path}" + (f" ({'; '.join(remarks)})" if remarks else ""))
    for path, reason in found.refused:
        errors.print(f"not taken: {path!r} {reason}")
    what = f"{len(found.taken)} submissions taken, {len(found.refused)} files not"
    console.print(f"{found.format}: {what}; {course / 'submitted' / chosen.name}.import.csv lists them all")
    if found.holds_nothing:
        errors.print(f"nothing taken: {archive} holds no notebook of {chosen.name}")
    _fail_if(found.incomplete or found.holds_nothing)


def _one_of(name: str, value: str | None, allowed: tuple[str, ...]) -> None:
    if value is not None and value not in allowed:
        raise CourseError(f"--{name} must be one of {', '.join(allowed)}; got {value!r}")


def report(
    lab: OneLab,
    folder: Folder = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write; default: reports/LAB in the course folder.")
    ] = None,
) -> None:
    """Write the instructor's report on a graded lab: one HTML page and three CSV files."""
    from course_admin.class_report.page import report_page
    from course_admin.class_report.statistics import class_statistics
    from course_admin.class_report.tables import report_tables
    from course_admin.lms.collect import taken_last

    chosen, course = _lab_and_folder(lab, folder)
    target = out or course / "reports" / chosen.name
    found = class_statistics(_records(course, chosen), chosen.name)
    marked_late = [student for student, row in taken_last(chosen, course).items() if row["late"]]
    page = report_page(found, f"{chosen.title}: {chosen.name}", datetime.now(), marked_late)
    _write(target / "report.html", page.encode(), force=True)
    for name, text in report_tables(found).items():
        _write(target / name, text.encode("utf-8-sig"), force=True)
    console.print(f"{len(found.results)} submissions: {target / 'report.html'}")


def _records(course: Path, lab: Lab) -> list:
    """The grading records of a lab; there must be some."""
    from course_admin.grading.results import load_results

    try:
        results = load_results(course, lab.name)
    except ValueError as error:  # its message says what to do
        raise CourseError(str(error)) from error
    if not results:
        raise CourseError(f"no records in {course / 'grades' / lab.name}; run course grade {lab.name} first")
    return results


def export(
    lab: OneLab,
    format: Annotated[str, typer.Option(help="canvas, moodle or gradescope.")],
    roster: Annotated[Path, typer.Option(help="The file that the system exported.")],
    out: Annotated[Path, typer.Option(help="The file to write, for the system to import.")],
    column: Annotated[str | None, typer.Option(help="The grade's column, when it is not the obvious one.")] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Export points although answers are not marked yet.")
    ] = False,
    scale: Annotated[bool, typer.Option("--scale", help="Convert to the points that the roster expects.")] = False,
    force: Force = False,
    folder: Folder = None,
) -> None:
    """Write the grades of a lab into the roster of Canvas, Moodle or Gradescope. Exit code 1 if one fits no row."""
    from course_admin.lms.export import FORMATS, export_grades

    _one_of("format", format, FORMATS)
    chosen, course = _lab_and_folder(lab, folder)
    results = _records(course, chosen)
    done = export_grades(results, chosen, roster, format, column=column, partial=partial, scale=scale)
    _write(out, done.content, force)
    console.print(f"{out}: {len(done.written)} grades")
    for title, pairs in (("blank", done.blank), ("left as it was", done.kept)):
        for student, reason in pairs:
            console.print(f"{title}: {student}: {reason}")
    for label in done.without_record:
        console.print(f"no record: {label}; left as it was")
    for student, reason in done.unmatched:
        errors.print(f"not exported: {student}: {reason}")
    _fail_if(done.unmatched)


def handback(
    lab: OneLab,
    out: Annotated[Path, typer.Option(help="Zip file to write.")],
    folder: Folder = None,
    force: Force = False,
) -> None:
    """Pack the feedback pages for Canvas or Moodle, named like the imported files. Exit code 1 if one is missing."""
    from course_admin.lms.handback import hand_back

    chosen, course = _lab_and_folder(lab, folder)
    done = hand_back(chosen, course)
    _write(out, done.content, force)
    console.print(f"{out}: {len(done.pages)} pages")
    for student in done.missing:
        errors.print(f"no page: {student}; run course grade {chosen.name}")
    _fail_if(done.missing)


def similarity(
    lab: OneLab,
    folder: Folder = None,
    out: Annotated[Path | None, typer.Option(help="HTML file; default: reports/LAB/similarity.html.")] = None,
    threshold: Annotated[float, typer.Option(min=0.0, max=1.0, help="Smallest similarity that is shown.")] = 0.4,
) -> None:
    """Which submissions share what hardly anybody else has? Pairs side by side, for a person to look at."""
    from course_admin.similarity.page import similarity_page
    from course_admin.similarity.pairs import similar_pairs
    from course_admin.similarity.submissions import answers_of

    chosen, course = _lab_and_folder(lab, folder)
    answers, unreadable = answers_of(chosen, Repository.find(), course)
    pairs = similar_pairs(answers, threshold)
    target = out or course / "reports" / chosen.name / "similarity.html"
    page = similarity_page(f"{chosen.title}: {chosen.name}", pairs, len(answers), unreadable, datetime.now())
    _write(target, page.encode(), force=True)
    for student, reason in unreadable:
        errors.print(f"not compared: {student}: {reason}")
    console.print(f"{len(answers)} submissions, {len(pairs)} pairs to look at: {target}")


COMMANDS = {
    "check": check,
    "release": release,
    "import": import_,
    "report": report,
    "similarity": similarity,
    "export": export,
    "handback": handback,
}
