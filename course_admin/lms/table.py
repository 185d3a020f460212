"""A CSV file in which single fields are changed and everything else stays byte for byte as it was.

Python's csv module reads values; it does not say how they were quoted, so that reading and writing a file changes it.
Here each field keeps its raw text. Also: fields that a spreadsheet would take for a formula.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

from course_admin.paths import CourseError

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\0", "＝", "＋", "－", "＠")
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?")


@dataclass
class Table:
    """Records of raw fields, with what is needed to write the same bytes again.

    raw[i][j] is field j of record i as it stands in the file, quotes included; ends[i] is what ends the record.
    """

    raw: list[list[str]]
    ends: list[str]
    delimiter: str
    encoding: str
    mark: bytes

    @classmethod
    def read(cls, path: Path) -> Table:
        """Read a file in UTF-8, UTF-16 with a byte-order mark, or (when it is not UTF-8) Windows-1252.

        Args:
            path: the file.

        Returns:
            The table.

        Raises:
            CourseError: if the file cannot be opened, is empty, or a quote is not closed.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CourseError(f"{path} cannot be opened: {error.strerror}") from None
        mark, encoding = next(((m, name) for m, name in BYTE_ORDER_MARKS if content.startswith(m)), (b"", "utf-8"))
        try:
            text = content[len(mark) :].decode(encoding)
        except UnicodeDecodeError:
            encoding = "windows-1252"
            text = content.decode(encoding, errors="replace")
        if "\0" in text or "�" in text or not text.strip():
            raise CourseError(f"{path} is not a CSV file (empty, or not text in UTF-8, UTF-16 or Windows-1252)")
        delimiter = _delimiter(text)
        raw, ends = _split(text, delimiter, path)
        return cls(raw, ends, delimiter, encoding, mark)

    def value(self, record: int, column: int) -> str:
        """The value of a field, without quotes; '' where the record is too short."""
        fields = self.raw[record]
        return unquoted(fields[column]) if column < len(fields) else ""

    def values(self, record: int) -> list[str]:
        """All values of a record."""
        return [unquoted(field) for field in self.raw[record]]

    def set(self, record: int, column: int, value: str) -> None:
        """Change one field; a field that has this value already keeps its bytes."""
        fields = self.raw[record]
        fields += [""] * (column + 1 - len(fields))
        if unquoted(fields[column]) != value:
            fields[column] = quoted(value, self.delimiter)

    def __bytes__(self) -> bytes:
        text = "".join(self.delimiter.join(fields) + end for fields, end in zip(self.raw, self.ends, strict=True))
        return self.mark + text.encode(self.encoding, errors="xmlcharrefreplace")


def unquoted(field: str) -> str:
    """The value of a raw field."""
    if len(field) >= 2 and field.startswith('"') and field.endswith('"'):
        return field[1:-1].replace('""', '"')
    return field


def quoted(value: str, delimiter: str = ",") -> str:
    """The raw field of a value, quoted only where RFC 4180 asks for it."""
    if any(sign in value for sign in (delimiter, '"', "\n", "\r")) or value != value.strip():
        return '"' + value.replace('"', '""') + '"'
    return value


def harmless(value: str) -> str:
    """The value with an apostrophe before it if a spreadsheet would take it for a formula; numbers stay as they are.

    Excel, LibreOffice and Google Sheets evaluate a field that begins with = + - @ (or with white space before them),
    quoted or not. Only texts that this course writes go through here; a roster's own fields keep their bytes.

    Source: OWASP, "CSV Injection"; ASVS 5.0, requirement 1.2.10.
    """
    if value.lstrip(" ").startswith(FORMULA_STARTS) and not NUMBER.fullmatch(value):
        return "'" + value
    return value


def as_written(value: str) -> str:
    """What `harmless` was given."""
    return value[1:] if value.startswith("'") and harmless(value[1:]) == value else value


def _delimiter(text: str) -> str:
    """The separator that occurs most often in the first line, outside quotes; a comma when there is none."""
    first = re.sub(r'"[^"]*"', "", text.split("\n", 1)[0])
    return max(",;\t", key=first.count)


def _split(text: str, delimiter: str, path: Path) -> tuple[list[list[str]], list[str]]:
    """(raw fields, line end) of each record. A quote counts only where a field begins, as in Python's csv module."""
    d = re.escape(delimiter)
    quoted_field, plain = rf'"(?:[^"]|"")*"[^{d}\r\n]*', rf'[^"{d}\r\n][^{d}\r\n]*'
    token = re.compile(rf"({quoted_field}|{plain}|)({d}|\r\n|\r|\n|\Z)")
    raw, ends, fields, position = [], [], [], 0
    while position < len(text):
        match = token.match(text, position)
        if match is None:
            line = text.count("\n", 0, position) + 1
            raise CourseError(f"{path}, line {line}: a quoted field does not end as it should")
        fields.append(match[1])
        position = match.end()
        if match[2] != delimiter:
            raw.append(fields)
            ends.append(match[2])
            fields = []
    if fields:  # the file ends with a delimiter
        raw.append([*fields, ""])
        ends.append("")
    return raw, ends
