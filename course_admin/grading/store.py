"""What executing a submission gave, kept beside the grading records: grades/<lab>/.executed/<student>.json.gz.

With it a grading run that was killed goes on where it was, and a change of expected values, tolerances or hints alone
is judged anew without running anybody's code again.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path

from course_admin.grading.kit import Kit
from course_utils.files import replacing


def execution_digest(kit: Kit, content: bytes) -> str:
    """Of everything that executing a submission depends on."""
    parts = [kit.digest, sorted(kit.checks.items()), sorted(kit.measures.items()), hashlib.sha256(content).hexdigest()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class Store:
    """The executions of one lab.

    Args:
        folder: grades/<lab>.
    """

    def __init__(self, folder: Path):
        self._folder = folder / ".executed"

    def load(self, student: str, digest: str) -> dict | None:
        """The execution with this digest, if it is there."""
        try:
            with gzip.open(self._path(student), "rt", encoding="utf-8") as file:
                data = json.load(file)
        except (OSError, EOFError, ValueError):
            return None
        return data if data.get("digest") == digest else None

    def save(self, student: str, digest: str, execution: dict) -> None:
        """Keep an execution, whole or not at all."""
        path = self._path(student)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part, gzip.open(part, "wt", compresslevel=1, encoding="utf-8") as file:
            json.dump({**execution, "digest": digest}, file)

    def _path(self, student: str) -> Path:
        return self._folder / f"{student}.json.gz"
