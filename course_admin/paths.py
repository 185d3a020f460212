"""Where things are: the repository, its labs, and the folders of one nbgrader course."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

LAB_NAME = re.compile(r"^lab(?P<number>\d+)_[a-z0-9_]+$")


class CourseError(Exception):
    """A mistake that the person at the keyboard can mend; the message says how. Shown without a traceback."""


@dataclass(frozen=True)
class Lab:
    """One lab: its text source, its name (the nbgrader assignment id) and its number."""

    source: Path

    @property
    def name(self) -> str:
        return self.source.stem

    @property
    def title(self) -> str:
        """'Lab 1': how stubs and messages call it."""
        match = LAB_NAME.match(self.name)
        if match is None:
            raise CourseError(
                f"{self.source}: a lab's file is named like lab1_topic.py (lower case, digits, underscores)"
            )
        return f"Lab {match['number']}"


@dataclass(frozen=True)
class Repository:
    """The folders of the course repository."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Repository:
        """The repository that holds the folder start (default: the working folder)."""
        start = (start or Path.cwd()).resolve()
        for folder in (start, *start.parents):
            if (folder / "nbgrader_config.py").is_file() and (folder / "solutions").is_dir():
                return cls(folder)
        raise CourseError(
            f"{start} is not inside a course repository (a folder with nbgrader_config.py and solutions/); "
            "change into the cloned repository and try again"
        )

    @property
    def solutions(self) -> Path:
        return self.root / "solutions"

    @property
    def labs(self) -> Path:
        return self.root / "labs"

    def all_labs(self) -> list[Lab]:
        """Every lab with a text source, by number."""
        labs = [Lab(path) for path in self.solutions.glob("*.py") if LAB_NAME.match(path.stem)]
        return sorted(labs, key=lambda lab: int(LAB_NAME.match(lab.name)["number"]))

    def lab(self, name: str) -> Lab:
        """The lab called name; 'lab1' or '1' will do when it is unambiguous."""
        wanted = f"lab{name}" if name.isdigit() else Path(name).stem
        found = [lab for lab in self.all_labs() if lab.name == wanted or lab.name.split("_")[0] == wanted]
        if len(found) != 1:
            known = ", ".join(lab.name for lab in self.all_labs()) or "none"
            raise CourseError(f"no lab is called {name!r}; the labs in {self.solutions} are: {known}")
        return found[0]

    def select(self, names: list[str]) -> list[Lab]:
        """The labs with these names, or all of them when no name is given."""
        return [self.lab(name) for name in names] if names else self.all_labs()
