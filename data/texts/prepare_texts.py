"""Make austen.txt and bierce.txt from two Debian packages: python prepare_texts.py FOLDER

FOLDER holds the unpacked packages (apt-get download r-cran-janeaustenr dict-devil; dpkg-deb -x FILE FOLDER). Both
texts are put into one form: ASCII; a paragraph of prose is one line; paragraphs are separated by an empty line; lines
of verse stay lines, indented by four spaces. Four entries of the dictionary are left out.
"""

from __future__ import annotations

import gzip
import itertools
import re
import struct
import sys
import zlib
from pathlib import Path

ASCII = str.maketrans("\u2018\u2019\u201c\u201d\u2013\u00e9\u00e8\u00ea\u00e0\u00ef\u00a3", "''\"\"-eeeaiL", "\ufeff")
ASCII[0x2014] = "--"

LEFT_OUT = ("AFRICAN,", "HEBREW,", "MINSTREL,", "NEGRO,")  # entries that are, or consist of, racial slurs


def austen_novel(folder: Path, first_line: str) -> list[str]:
    """Return the lines of the novel that begins with first_line, from the R package's serialized character vectors."""
    content = (folder / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb").read_bytes()
    for start in (match.start() for match in re.finditer(rb"x\x9c|x\xda", content)):
        try:
            data = zlib.decompressobj().decompress(content[start:])
        except zlib.error:
            continue
        lines = _character_vector(data)
        if lines and lines[0] == first_line:
            return lines
    raise SystemExit(f"no novel begins with {first_line!r}")


def _character_vector(data: bytes) -> list[str]:
    """Read a serialized R object that is one character vector: its length, then flags, size, bytes of each string."""
    start = data.find(b"\0\0\0\x10")  # type 16, a character vector
    if start < 0:
        return []
    (count,), position, lines = struct.unpack_from(">i", data, start + 4), start + 8, []
    for _ in range(count):
        flags, size = struct.unpack_from(">ii", data, position)
        if flags & 255 != 9:  # type 9, a string
            return []
        lines.append(data[position + 8 : position + 8 + max(size, 0)].decode("utf-8"))
        position += 8 + max(size, 0)
    return lines


def joined(lines: list[str]) -> str:
    """Join the lines of each prose paragraph; indent lines of verse by four spaces."""
    text, paragraph = [], []
    lines = [*(line.rstrip().translate(ASCII) for line in lines), "", ""]
    for line, following in itertools.pairwise(lines):
        indented = line.startswith("    ")
        verse = indented and (not following or following.startswith("    "))  # else: a paragraph's indented first line
        if paragraph and (indented or not line):
            text.append(" ".join(" ".join(paragraph).split()))
            paragraph = []
        if line and not verse:
            paragraph.append(line.strip())
        else:
            text.append("    " + line.strip() if verse else "")
    clean = re.sub(r"\n{3,}", "\n\n", "\n".join(text)).strip() + "\n"
    return clean.encode("ascii").decode("ascii")


def main() -> None:
    """Write both texts beside this file."""
    folder, here = Path(sys.argv[1]), Path(__file__).parent
    novel = austen_novel(folder, "PRIDE AND PREJUDICE")
    (here / "austen.txt").write_text(joined(novel), encoding="ascii")
    dictionary = gzip.decompress((folder / "usr/share/dictd/devil.dict.dz").read_bytes()).decode("ascii").split("\n")
    first, last = dictionary.index("ABASEMENT, n.  A decent and customary mental attitude in the presence"), -3
    entries = re.split(r"\n\n(?=[A-Z][A-Z' -]+[,.])", joined(dictionary[first:last]))
    kept = [entry for entry in entries if not entry.startswith(LEFT_OUT)]
    (here / "bierce.txt").write_text("\n\n".join(kept), encoding="ascii")


if __name__ == "__main__":
    main()
