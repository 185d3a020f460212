"""Writing files whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary name beside a file; at the end of the block, what was written there becomes the file.

    Whoever reads the file meanwhile sees the old one or the new one, never half of it. After an exception the old file
    is still there, and nothing else is left.

    Args:
        path: The file, in a folder that exists.

    Yields:
        The path to write to; it ends in `.part`.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
