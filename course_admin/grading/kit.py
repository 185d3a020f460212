"""The kit of a lab: all that executing submissions needs, as one folder, and nothing that knows an answer.

    course/course_utils/   copy of course_utils without the bodies of the lab's exercises
    kit.json               released cells, sealed graded cells, names of checks, modules to import beforehand

The driver makes it once for a grading run (prepare.py). Workers on this machine read it where it is; to others it
travels as a zip.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path


@dataclass(frozen=True)
class PlanCell:
    """One cell of the released notebook. name is nbgrader's grade_id, '' for an ordinary cell."""

    id: str
    cell_type: str
    source: str
    metadata: dict
    name: str = ""
    grade: bool = False
    solution: bool = False
    points: float = 0.0

    @property
    def is_check(self) -> bool:
        """A graded code cell, whose source is not the student's."""
        return self.grade and not self.solution and self.cell_type == "code"


@dataclass(frozen=True)
class Kit:
    """What is in kit.json.

    Attributes:
        lab: Name of the lab.
        cells: The released notebook.
        sealed: What is executed of each graded code cell, by name.
        checks: (name, kind) of the checks of each graded code cell, by name; empty before the instructor's run.
        measures: How the checks are measured that need it: "module:function" by name of cell and of check.
        preload: Modules to import before the first kernel.
        data: Folders to show to kernels: path on this machine -> path in the sandbox.
        environment: Variables of every kernel.
        metadata: Of the released notebook.
        digest: Of everything that execution depends on.
    """

    lab: str
    cells: tuple[PlanCell, ...]
    sealed: dict[str, str]
    checks: dict[str, list[list[str]]]
    measures: dict[str, dict[str, str]]
    preload: list[str]
    data: dict[str, str]
    environment: dict[str, str]
    metadata: dict
    digest: str = ""
    folder: Path = field(default=Path(), compare=False)

    def named(self) -> dict[str, PlanCell]:
        """Cells with a name, by name, in order."""
        return {cell.name: cell for cell in self.cells if cell.name}

    @classmethod
    def of_cells(cls, lab: str, cells: tuple[PlanCell, ...]) -> Kit:
        """A kit that knows the lab's cells, so that a submission's can be found, and can execute nothing."""
        return cls(lab, cells, {}, {}, {}, [], {}, {}, {})

    def save(self) -> None:
        """Write kit.json."""
        data = {**asdict(self), "folder": ""}
        (self.folder / "kit.json").write_text(json.dumps(data), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Kit:
        """Read a kit."""
        data = json.loads((folder / "kit.json").read_text(encoding="utf-8"))
        cells = tuple(PlanCell(**cell) for cell in data.pop("cells"))
        return cls(**{**data, "cells": cells, "folder": folder})


def pack(kit: Kit) -> bytes:
    """The kit with its data as a zip, for other machines; what was fetched travels as the cache, if at all."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(kit.folder.rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(kit.folder))
        for outside, inside in kit.data.items():
            for path in sorted(Path(outside).rglob("*")):
                if path.is_file() and not path.is_relative_to(Path(outside) / "cache"):
                    archive.write(path, Path("outside") / inside.lstrip("/") / path.relative_to(outside))
    return content.getvalue()


def unpack(content: bytes, folder: Path) -> Kit:
    """The inverse of pack; the zip comes from the driver and is trusted."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(folder)
    for name in ("data", "cache"):
        (folder / "course" / name).mkdir(parents=True, exist_ok=True)
    kit = Kit.load(folder)
    data = {str(folder / "outside" / inside.lstrip("/")): inside for inside in kit.data.values()}
    kit = replace(kit, data=data)
    kit.save()
    return kit
