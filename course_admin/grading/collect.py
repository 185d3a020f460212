"""Which submissions there are: submitted/<student>/<lab>/, and in it the one file that counts."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from course_admin.grading.gradebook import timestamp_of
from course_admin.grading.repair import LARGEST


@dataclass(frozen=True)
class Submission:
    """One student's folder. path is None when it holds no notebook that could be meant; problem says why."""

    student: str
    folder: Path
    path: Path | None
    problem: str = ""
    outcome: str = ""
    repairs: tuple[str, ...] = ()
    timestamp: str | None = None

    def read(self) -> bytes:
        """The file's bytes, at most a little more than is accepted."""
        if self.path is None:
            return b""
        with self.path.open("rb") as file:
            return file.read(LARGEST + 1)


def collect(folder: Path, lab: str) -> list[Submission]:
    """All submissions of a lab, by student.

    Args:
        folder: the course's folder with submitted/ in it.
        lab: name of the lab.

    Returns:
        One for each student's folder that has one of the lab's name.
    """
    found = sorted(path for path in (folder / "submitted").glob(f"*/{lab}") if path.is_dir())
    return [_submission(path, lab) for path in found if not path.parent.name.startswith(".")]


def _submission(folder: Path, lab: str) -> Submission:
    student, timestamp = folder.parent.name, timestamp_of(folder)
    if student != shown(student):
        problem = f"the folder's name is not UTF-8 text; rename it: {shown(student)}"
        return Submission(shown(student), folder, None, problem, "unreadable")
    if folder.is_symlink() or folder.parent.is_symlink():
        return Submission(student, folder, None, "the folder is a symbolic link", "unreadable")
    exact = folder / f"{lab}.ipynb"
    others = [path for path in folder.iterdir() if _is_meant(path, lab)]
    others.sort(key=lambda path: (path.lstat().st_mtime, path.name))
    path = exact if exact.is_symlink() or exact.exists() else others[-1] if others else None
    if path is None:
        names = ", ".join(sorted(path.name for path in folder.glob("*.ipynb"))[:3])
        hint = f" (there is {names})" if names else ""
        return Submission(student, folder, None, f"no notebook {lab}.ipynb was handed in{hint}", "missing")
    if path.is_symlink():
        return Submission(student, folder, None, f"{path.name} is a symbolic link, not a file", "unreadable")
    if not path.is_file():
        return Submission(student, folder, None, f"{path.name} is not a file", "unreadable")
    repairs = () if path == exact else (f"the file was called {path.name!r}; it was taken for {lab}.ipynb",)
    return Submission(student, folder, path, "", "", repairs, timestamp)


def shown(name: str) -> str:
    """A file's name as text that can be printed and stored: bytes that are not UTF-8 are written as \\xfc."""
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def _is_meant(path: Path, lab: str) -> bool:
    """Whether a file is called as browsers and learning platforms rename downloads: 'lab (1).ipynb', for example."""
    if path.is_symlink() or path.suffix.lower() not in (".ipynb", ".json", ".txt"):
        return False
    plain = re.sub(
        r"[^a-z0-9]", "", path.name.lower().removesuffix(".txt").removesuffix(".json").removesuffix(".ipynb")
    )
    wanted = re.sub(r"[^a-z0-9]", "", lab.lower())
    return wanted in plain and (path.suffix.lower() == ".ipynb" or ".ipynb" in path.name.lower())
