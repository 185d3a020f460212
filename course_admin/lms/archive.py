"""Reading zip files that nobody can trust.

Nothing is ever extracted by the name that a member carries: members are read into memory, within limits, and whoever
calls decides under which name of ours a content is written. So no name can leave the folder; names that try are
refused all the same, with links, devices, encrypted members, and members that grow beyond the limits.
"""

from __future__ import annotations

import re
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from course_admin.paths import CourseError

UTF8_NAME = 0x800  # flag: the name is UTF-8; otherwise the format says code page 437
ENCRYPTED = 0x1
CHUNK = 1 << 16


@dataclass(frozen=True)
class Limits:
    """What one archive may hold. Bytes are those after decompression, counted while reading, not as declared."""

    members: int = 20_000
    member_bytes: int = 100 * 2**20
    total_bytes: int = 4 * 2**30
    ratio: float = 200.0  # decompressed / compressed, of members above small_bytes; notebooks reach about 20
    small_bytes: int = 2**20


@dataclass(frozen=True)
class Member:
    """One file of an archive. path is its name in the archive with '/' and in Unicode's composed form; time is that of
    the archive, without a zone, None when it is not a date. refused says why it may not be read; empty when it may."""

    path: str
    time: datetime | None
    refused: str
    info: zipfile.ZipInfo

    @property
    def parts(self) -> tuple[str, ...]:
        return PurePosixPath(self.path).parts


class Archive:
    """An opened zip file.

    Args:
        path: the file.
        limits: what it may hold.

    Raises:
        CourseError: if it is no zip file, is damaged, or holds too many members.
    """

    def __init__(self, path: Path, limits: Limits | None = None):
        self.limits = limits or Limits()
        self._total = 0
        try:
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError:
            raise CourseError(f"{path} does not exist") from None
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise CourseError(f"{path} is not a zip file that can be read ({error})") from None
        n_members = len(self._zip.infolist())
        if n_members > self.limits.members:
            raise CourseError(f"{path} holds {n_members} files, more than the {self.limits.members} allowed")

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *error: object) -> None:
        self._zip.close()

    def members(self) -> Iterator[Member]:
        """Every file of the archive, refused ones included; folders are left out."""
        for info in self._zip.infolist():
            if not info.orig_filename.replace("\\", "/").endswith("/"):
                name = _decoded(info)
                path = unicodedata.normalize("NFC", name.replace("\\", "/"))
                yield Member(path, _time(info), _refusal(info, path, self.limits), info)

    def read(self, member: Member) -> bytes:
        """The content of a member. Raises ValueError saying why it cannot be had."""
        if member.refused:
            raise ValueError(member.refused)
        allowed = min(self.limits.member_bytes, self.limits.total_bytes - self._total)
        content = bytearray()
        try:
            with self._zip.open(member.info) as file:
                while chunk := file.read(CHUNK):
                    content += chunk
                    self._total += len(chunk)
                    self._stop_if_too_large(len(content), allowed, member)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise ValueError(f"is damaged or packed in a way that is not supported ({error})") from None
        return bytes(content)

    def _stop_if_too_large(self, size: int, allowed: int, member: Member) -> None:
        if size > allowed:
            what = "this file" if allowed == self.limits.member_bytes else "the whole archive"
            raise ValueError(f"{what} holds more bytes than allowed")
        if size > self.limits.small_bytes and size > self.limits.ratio * max(member.info.compress_size, 1):
            raise ValueError(f"unpacks to more than {self.limits.ratio:g} times its size, as a zip bomb does")


def _decoded(info: zipfile.ZipInfo) -> str:
    """The member's name. Names without the UTF-8 flag are often UTF-8 all the same; else they are code page 437."""
    name = info.orig_filename
    if info.flag_bits & UTF8_NAME:
        return name
    try:
        return name.encode("cp437").decode("utf-8")
    except UnicodeError:
        return name


def _time(info: zipfile.ZipInfo) -> datetime | None:
    try:
        return datetime(*info.date_time)
    except ValueError:
        return None


def _refusal(info: zipfile.ZipInfo, path: str, limits: Limits) -> str:
    mode = info.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "is a link" if stat.S_ISLNK(mode) else "is not an ordinary file"
    if path.startswith("/") or re.match(r"[A-Za-z]:", path):
        return "has an absolute path"
    if ".." in path.split("/"):
        return "has '..' in its path"
    if not path or any(unicodedata.category(sign) in ("Cc", "Cf", "Cs") for sign in path):
        return "has a name with control characters"
    if info.flag_bits & ENCRYPTED:
        return "is encrypted"
    if info.file_size > limits.member_bytes:
        return f"is larger than {limits.member_bytes / 2**20:g} MB"
    return ""
