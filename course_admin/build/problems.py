"""A mistake in a lab, with the place where an author mends it."""

from __future__ import annotations

from dataclasses import dataclass

from course_admin.paths import CourseError


@dataclass(frozen=True)
class Problem:
    """One mistake: file, cell (counted from 1; 0 for the whole file), line in that file and what to do."""

    file: str
    cell: int
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}, cell {self.cell}, line {self.line}: {self.message}"


class BuildError(CourseError):
    """One or more Problems that make a lab impossible to build."""

    def __init__(self, problems: list[Problem]):
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))
