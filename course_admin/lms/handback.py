"""Feedback pages in one archive that a learning management system reads back, each where its submission came from.

Moodle (assignment > Upload multiple feedback files in a zip) and Canvas (assignment > Upload Submissions, which adds
files as comments) find the student by the name of the file that they handed out. `course import` has kept these names
in submitted/<lab>.import.csv; a page goes to the same place under the same name, ending in .html. Whoever is not in
that list gets `<student>/<lab>.html`.

Sources: instructure/canvas-lms, app/models/assignment.rb (infer_comment_context_from_filename); moodle/moodle,
mod/assign/feedback/file/importziplib.php.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from course_admin.grading.collect import collect
from course_admin.lms.collect import taken_last
from course_admin.paths import CourseError, Lab


@dataclass
class Handback:
    """The archive's bytes, (student, path in it) of every page, and the students whose page is missing."""

    content: bytes
    pages: list[tuple[str, str]]
    missing: list[str]


def hand_back(lab: Lab, folder: Path) -> Handback:
    """Pack the feedback pages of a lab.

    Args:
        lab: the lab.
        folder: the course folder with feedback/ and submitted/.

    Returns:
        The archive and what is in it.

    Raises:
        CourseError: if there is no page at all.
    """
    taken = taken_last(lab, folder)
    pages = {path.parents[1].name: path for path in (folder / "feedback").glob(f"*/{lab.name}/{lab.name}.html")}
    if not pages:
        raise CourseError(f"no pages of {lab.name} in {folder / 'feedback'}; run course grade {lab.name} first")
    content, packed = io.BytesIO(), []
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for student in sorted(pages):
            origin = taken[student]["file"] if student in taken else f"{student}/{lab.name}.ipynb"
            packed.append((student, str(PurePosixPath(origin).with_suffix(".html"))))
            archive.write(pages[student], packed[-1][1])
    missing = [submission.student for submission in collect(folder, lab.name) if submission.student not in pages]
    return Handback(content.getvalue(), packed, missing)
