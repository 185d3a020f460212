"""From the bytes that a student handed in to a notebook that can be graded, with a sentence for each thing repaired."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import re
import warnings
from dataclasses import dataclass, field
from typing import Any

from course_admin.grading.kit import Kit, PlanCell

LARGEST = 200 * 2**20
MOST_CELLS = 20_000
PICTURES = ("image/png", "image/jpeg", "image/gif")
BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


class Unreadable(ValueError):
    """The file is no notebook; the message says why."""


@dataclass(eq=False)
class Cell:
    """One cell. Plain data instead of nbformat's objects, whose import takes longer than many a notebook."""

    cell_type: str
    source: str
    id: str = ""
    metadata: dict = field(default_factory=dict)
    outputs: list[dict] = field(default_factory=list)
    attachments: dict[str, dict[str, str]] = field(default_factory=dict)  # pictures pasted into a text cell

    def as_json(self) -> dict:
        """As it stands in a notebook file."""
        data = {"cell_type": self.cell_type, "id": self.id, "metadata": self.metadata, "source": self.source}
        if self.cell_type == "code":
            return {**data, "execution_count": None, "outputs": self.outputs}
        return {**data, "attachments": self.attachments} if self.attachments else data


@dataclass
class Repaired:
    """The notebook's cells, outputs cleared; `named` maps the lab's names to the cells that hold them.

    `handed_in` maps them to all that stood under that name before one of several cells was chosen.
    """

    cells: list[Cell]
    repairs: list[str] = field(default_factory=list)
    named: dict[str, Cell] = field(default_factory=dict)
    handed_in: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict:
        """The whole notebook."""
        metadata = {"kernelspec": KERNELSPEC, "language_info": {"name": "python"}}
        cells = [cell.as_json() for cell in self.cells]
        return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}

    def say(self, sentence: str) -> None:
        """Add a sentence to the report, once."""
        if sentence not in self.repairs:
            self.repairs.append(sentence)


def repair(content: bytes, kit: Kit) -> Repaired:
    """Read and repair a submission.

    Args:
        content: the file.
        kit: the lab.

    Returns:
        The notebook with every cell of the lab in it that is graded.

    Raises:
        Unreadable: if no notebook can be made of it.
    """
    repairs: list[str] = []
    data = _parse(_decode(content, repairs), repairs)
    found = Repaired(_cells(data, repairs), repairs)
    metadata = data.get("metadata")
    kernel = metadata.get("kernelspec") if isinstance(metadata, dict) else None
    if isinstance(kernel, dict) and kernel.get("name") != KERNELSPEC["name"]:
        found.say(f"the kernel {str(kernel.get('name'))[:60]!r} was replaced by the course's Python")
    _match(found, kit)
    _restore_sources(found, kit)
    _restore_missing(found, kit)
    _unique_ids(found.cells)
    return found


def _decode(content: bytes, repairs: list[str]) -> str:
    if len(content) > LARGEST:
        raise Unreadable(f"the file has {len(content) / 2**20:.0f} MiB; at most {LARGEST // 2**20} are read")
    for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if content.startswith(mark):
            repairs.append("a byte-order mark at the beginning of the file was removed")
            try:
                return content.decode(encoding)
            except UnicodeDecodeError:
                break
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        repairs.append("the file was not in UTF-8; it was read as Latin-1")
        return content.decode("latin-1")


def _parse(text: str, repairs: list[str]) -> dict:
    if not text.strip():
        raise Unreadable("the file is empty")
    try:
        data = json.loads(text)
    except RecursionError:
        raise Unreadable("the file is nested too deeply for a notebook") from None
    except ValueError as error:
        raise Unreadable(f"the file is not JSON, so it is no notebook ({error})") from None
    if not isinstance(data, dict) or not isinstance(data.get("cells", data.get("worksheets")), list):
        raise Unreadable("the file is JSON but no notebook: it has no list of cells")
    if "worksheets" in data or data.get("nbformat") in (2, 3):
        data = _upgrade(data)
        repairs.append("the notebook was in an old format (before version 4) and was converted")
    return data


def _upgrade(data: dict) -> dict:
    import nbformat  # for the few that need it

    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            logging.getLogger("traitlets").setLevel(logging.CRITICAL)
            old = nbformat.reads(json.dumps({"nbformat": 3, "nbformat_minor": 0, "metadata": {}, **data}), as_version=4)
            return json.loads(nbformat.writes(old))
    except Exception as error:  # whatever is in such a file
        raise Unreadable(f"the notebook's old format cannot be converted ({type(error).__name__})") from None


def _cells(data: dict, repairs: list[str]) -> list[Cell]:
    """The cells that can be read, without outputs."""
    if len(data["cells"]) > MOST_CELLS:
        raise Unreadable(f"the notebook has {len(data['cells'])} cells; at most {MOST_CELLS} are graded")
    made = [_cell(cell) for cell in data["cells"]]
    cells = [cell for cell in made if cell is not None]
    if len(cells) < len(made):
        repairs.append(f"{len(made) - len(cells)} damaged cell(s) that hold no text were left out")
    return cells


def _cell(cell: Any) -> Cell | None:
    if not isinstance(cell, dict):
        return None
    source = cell.get("source", "")
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    if not isinstance(source, str):
        return None
    source = source.replace("\r\n", "\n").replace("\r", "\n").encode("utf-8", "replace").decode("utf-8")
    kind = cell.get("cell_type")
    metadata = cell.get("metadata") if isinstance(cell.get("metadata"), dict) else {}
    nbgrader = metadata.get("nbgrader")
    kept = {"nbgrader": nbgrader} if isinstance(nbgrader, dict) else {}
    kind = kind if kind in ("code", "markdown") else "raw"
    return Cell(kind, source, str(cell.get("id", ""))[:64], kept, attachments=_attachments(cell.get("attachments")))


def _attachments(found: Any) -> dict[str, dict[str, str]]:
    """The pictures among a cell's attachments: name -> type -> base64."""
    kept: dict[str, dict[str, str]] = {}
    for name, data in found.items() if isinstance(found, dict) else ():
        pictures = {
            mime: value
            for mime, value in (data.items() if isinstance(data, dict) else ())
            if mime in PICTURES and isinstance(value, str) and BASE64.fullmatch(value)
        }
        if pictures:
            kept[name] = pictures
    return kept


def _match(found: Repaired, kit: Kit) -> None:
    """Find the lab's named cells in the notebook: by nbgrader's metadata, else by the cell's id, else by its text."""
    plan, cells = kit.named(), found.cells
    holders: dict[str, list[Cell]] = {}
    for cell in cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if isinstance(name, str) and name in plan:
            holders.setdefault(name, []).append(cell)
        cell.metadata.pop("nbgrader", None)
    taken = {id(cell) for group in holders.values() for cell in group}
    for name, planned in plan.items():
        if name not in holders:
            lost = [
                c for c in cells if id(c) not in taken and (c.id == planned.id or same_text(c.source, planned.source))
            ]
            if lost:
                holders[name] = lost[:1]
                taken.add(id(lost[0]))
                found.say(f"the cell {name} had lost its grading metadata, which was restored")
    for name, group in holders.items():
        found.handed_in[name] = "\n".join(cell.source for cell in group)
        found.named[name] = _choose(found, plan[name], group)


def _choose(found: Repaired, planned: PlanCell, group: list[Cell]) -> Cell:
    """Of several cells with the same name the one that counts; the others go, or become ordinary cells."""
    if len(group) == 1:
        return group[0]
    if planned.is_check:
        chosen = group[0]
        _remove(found, group[1:])
        found.say(f"the graded cell {planned.name} was there {len(group)} times; one was kept")
        return chosen
    changed = [cell for cell in group if not same_text(cell.source, planned.source)] or group
    chosen = changed[-1]
    if planned.cell_type == "markdown":
        _remove(found, [cell for cell in group if cell is not chosen])
    found.say(f"the cell {planned.name} was there {len(group)} times; the last one with an answer counts")
    return chosen


def _remove(found: Repaired, cells: list[Cell]) -> None:
    gone = {id(cell) for cell in cells}
    found.cells = [cell for cell in found.cells if id(cell) not in gone]


def _restore_sources(found: Repaired, kit: Kit) -> None:
    """Graded code cells are the instructor's again; every named cell has its own type and metadata again."""
    for name, cell in found.named.items():
        planned = kit.named()[name]
        if planned.is_check and not same_text(cell.source, planned.source):
            found.say(f"the graded cell {name} had been edited; the original was run")
        if planned.is_check:
            cell.source = planned.source
        if cell.cell_type != planned.cell_type:
            found.say(f"the cell {name} had been turned into a {cell.cell_type} cell, which was undone")
        _become(cell, planned)


def _become(cell: Cell, planned: PlanCell) -> None:
    cell.cell_type, cell.metadata, cell.id = planned.cell_type, copy.deepcopy(planned.metadata), planned.id


def _restore_missing(found: Repaired, kit: Kit) -> None:
    """Put deleted graded cells back, behind the nearest cell before them that is still there."""
    before: Cell | None = None
    for planned in (cell for cell in kit.cells if cell.name):
        if planned.name in found.named:
            before = found.named[planned.name]
            continue
        if not planned.grade:
            found.say(f"the cell {planned.name} had been deleted; its answer is taken from wherever else it stands")
            continue
        cell = Cell(planned.cell_type, planned.source)
        _become(cell, planned)
        place = 0 if before is None else 1 + next(i for i, c in enumerate(found.cells) if c is before)
        found.cells.insert(place, cell)
        found.named[planned.name] = before = cell
        found.say(f"the graded cell {planned.name} had been deleted; it was restored")


def _unique_ids(cells: list[Cell]) -> None:
    seen: set[str] = set()
    named = {cell.id for cell in cells if "nbgrader" in cell.metadata}
    for number, cell in enumerate(cells):
        valid = cell.id and all(char.isalnum() or char in "-_" for char in cell.id) and cell.id.isascii()
        if not valid or cell.id in seen or (cell.id in named and "nbgrader" not in cell.metadata):
            cell.id = f"cell-{number}"
        seen.add(cell.id)


def same_text(left: str, right: str) -> bool:
    """Equal but for white space at line ends and around."""
    return [x.rstrip() for x in left.strip().splitlines()] == [x.rstrip() for x in right.strip().splitlines()]
