"""The outputs of one cell, from protocol messages to notebook outputs, cut by bytes."""

from __future__ import annotations

from typing import Any

from course_utils.checks.sealed import MIME_TYPE

MOST_RECORDS = 3  # one is right; the second is the proof that something is wrong
FLOOD = 20  # times the limit: the cell is not waited for any longer
KEPT_TYPES = ("text/", "image/")
LARGEST_RECORD = 64 * 2**20  # bytes of one message with a record; the challenge of a lab hands in a file
DEEPEST_RECORD = 50  # levels of lists and objects
CUT_NOTE = "\n[the output was cut here: it is larger than the limit]\n"


class Outputs:
    """Collects what a cell shows.

    Args:
        limit: bytes that are kept.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self.n_bytes = 0
        self.cut = False
        self.records: list[Any] = []
        self._found: list[dict] = []
        self._by_display: dict[str, dict] = {}
        self._clear_at_next = False

    @property
    def flooded(self) -> bool:
        return self.n_bytes > FLOOD * self.limit

    def count(self, size: int) -> None:
        """Count bytes that are not kept."""
        self.n_bytes += size

    def add(self, kind: str, content: dict, size: int) -> None:
        """Take one message of the channel that outputs come on; anything at all may be in it."""
        if kind not in ("stream", "display_data", "execute_result", "error", "clear_output", "update_display_data"):
            self.n_bytes += size
            return
        data = content.get("data")
        if isinstance(data, dict) and MIME_TYPE in data:
            if len(self.records) < MOST_RECORDS:
                usable = size <= LARGEST_RECORD and not deeper_than(data[MIME_TYPE], DEEPEST_RECORD)
                self.records.append(data[MIME_TYPE] if usable else None)
            else:
                self.n_bytes += size
            return
        self.n_bytes += size
        if kind == "clear_output":
            self._clear_at_next = True
            return
        if self._clear_at_next:
            self._found, self._clear_at_next = [], False
        if self.n_bytes > self.limit:
            self._cut(kind, content)
            return
        self._keep(kind, content)

    def _cut(self, kind: str, content: dict) -> None:
        if self.cut:
            return
        self.cut = True
        text = str(content.get("text", ""))[:1000] if kind == "stream" else ""
        self._stream("stdout", text + CUT_NOTE)

    def _keep(self, kind: str, content: dict) -> None:
        if kind == "stream":
            self._stream("stderr" if content.get("name") == "stderr" else "stdout", str(content.get("text", "")))
        elif kind == "error":
            lines = content.get("traceback")
            lines = [str(line) for line in lines] if isinstance(lines, list) else []
            name, value = str(content.get("ename", "Error")), str(content.get("evalue", ""))
            self._found.append({"output_type": "error", "ename": name, "evalue": value, "traceback": lines})
        else:
            self._display(kind, content)

    def _display(self, kind: str, content: dict) -> None:
        data = content.get("data")
        data = {
            str(mime): value
            for mime, value in (data.items() if isinstance(data, dict) else ())
            if str(mime).startswith(KEPT_TYPES) and isinstance(value, str)
        }
        transient = content.get("transient")
        name = transient.get("display_id") if isinstance(transient, dict) else None
        if kind == "update_display_data":
            if isinstance(name, str) and name in self._by_display:
                self._by_display[name]["data"] = data
            return
        output: dict[str, Any] = {"output_type": kind, "data": data, "metadata": {}}
        if kind == "execute_result":
            output["execution_count"] = None
        self._found.append(output)
        if isinstance(name, str):
            self._by_display[name] = output

    def _stream(self, name: str, text: str) -> None:
        last = self._found[-1] if self._found else None
        if last is not None and last["output_type"] == "stream" and last["name"] == name:
            last["text"] += text
        else:
            self._found.append({"output_type": "stream", "name": name, "text": text})

    def as_notebook(self) -> list[dict]:
        """The outputs for a notebook; of a progress bar, which overwrites its line, only the last state."""
        for output in self._found:
            if output["output_type"] == "stream" and "\r" in output["text"]:
                output["text"] = "\n".join(_last_state(line) for line in output["text"].split("\n"))
        return self._found


def deeper_than(value: Any, levels: int) -> bool:
    """Whether lists and objects lie in one another more than so many levels deep."""
    layer = [value]
    for _ in range(levels):
        layer = [
            item
            for outer in layer
            if isinstance(outer, (dict, list))
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not layer:
            return False
    return True


def _last_state(line: str) -> str:
    pieces = [piece for piece in line.split("\r") if piece]
    return pieces[-1] if pieces else ""
