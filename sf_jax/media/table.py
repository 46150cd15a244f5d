"""Delimited text of anybody's making: encodings, delimiters, decimal marks, blank lines.

Spreadsheets save a CSV file as their locale has it: `;` or tab between fields where the comma is
the decimal mark, UTF-16 where "Unicode text" was chosen, a first line `sep=;`, further empty
fields at the ends of lines. All of these are read. Files are read line by line, in little memory.
"""

import csv
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from sf_jax.media.errors import DataError

DELIMITERS = (",", ";", "\t", "|")
LONGEST_LINE = 2**18  # characters; a line of 63 fields has about 800
_BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_DECLARED = re.compile(r'\s*"?sep=(.)"?[,;|\s]*', re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?", re.ASCII)


@dataclass
class Table:
    """An opened table.

    Attributes:
      path: its file. delimiter: what is between two fields.
      header: the column names of the first line, without spaces around them.
      header_line: the number of that line.
      rows: (line number, fields) of each row, to be read once; blank lines are no rows.
      blank: numbers of the blank lines between rows, complete once the rows are read.
    """

    path: Path
    delimiter: str
    header: list[str]
    header_line: int
    rows: Iterator[tuple[int, list[str]]] = field(repr=False)
    blank: list[int] = field(default_factory=list)


@contextmanager
def reading(
    path: Path, known: Callable[[str], bool], error: type[DataError] = DataError
) -> Iterator[Table]:
    """Opens a table, whose delimiter is the one that makes most column names of the header known.

    Raises:
      DataError: the file is empty or no delimited text; names file and line. Reading rows raises
        it too. It is of the class `error`.
      OSError: the file cannot be opened.
    """
    with path.open("rb") as start:
        encoding = _encoding(start.read(64))
    # Bytes that are no UTF-8 are kept: they matter only in a field that is used.
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    with path.open(encoding=encoding, errors=errors, newline="") as file:
        lines = _lines(path, file, error)
        yield _opened(path, lines, known, error)


def number(text: str) -> float:
    """A decimal number in digits, with a point or a comma; NaN for anything else."""
    return float(text.replace(",", ".")) if _NUMBER.fullmatch(text) else float("nan")


def _encoding(start: bytes) -> str:
    """By the byte order mark; without one, UTF-16 shows itself by zeros for ASCII letters."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if start.startswith(mark):
            return encoding
    even, odd = start[::2], start[1::2]
    if len(start) >= 8 and not any(odd) and all(even):
        return "utf-16-le"
    if len(start) >= 8 and not any(even) and all(odd):
        return "utf-16-be"
    return "utf-8"


def _lines(path: Path, file: TextIO, error: type[DataError]) -> Iterator[tuple[int, str]]:
    number = 0
    while True:
        number += 1
        try:
            line = file.readline(LONGEST_LINE)
        except UnicodeError as cause:
            raise error(f"not a CSV text file: {cause}", path=path, line=number) from cause
        if not line:
            return
        if len(line) == LONGEST_LINE and line[-1] not in "\r\n":
            problem = f"not a CSV text file: a line of more than {LONGEST_LINE} characters"
            raise error(problem, path=path, line=number)
        yield number, line


def _opened(
    path: Path,
    lines: Iterator[tuple[int, str]],
    known: Callable[[str], bool],
    error: type[DataError],
) -> Table:
    declared = None
    for number, line in lines:
        if not line.strip():
            continue
        match = _DECLARED.fullmatch(line)
        if match and declared is None:
            declared = match[1]
            continue
        if "\0" in line or any("\ud800" <= character <= "\udfff" for character in line):
            raise error("not a CSV text file: its header is no text", path=path, line=number)
        delimiter, header = _header(line, known, declared)
        table = Table(path, delimiter, header, number, iter(()))
        table.rows = _rows(table, lines, error)
        return table
    raise error("is empty; expected a header line and one line a row", path=path)


def _header(line: str, known: Callable[[str], bool], declared: str | None) -> tuple[str, list[str]]:
    def split(delimiter: str) -> list[str]:
        try:
            return [name.strip() for name in next(csv.reader([line], delimiter=delimiter))]
        except (csv.Error, TypeError, ValueError):  # a delimiter may be declared that cannot be one
            return [line.strip()]

    def count(delimiter: str) -> int:
        return sum(map(known, split(delimiter)))

    if declared and count(declared) > 0:
        return declared, split(declared)
    delimiter = max(DELIMITERS, key=count)
    return delimiter, split(delimiter)


def _rows(
    table: Table, lines: Iterator[tuple[int, str]], error: type[DataError]
) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader((line for _, line in lines), delimiter=table.delimiter, strict=True)
    blank: list[int] = []
    while True:
        line = table.header_line + reader.line_num + 1  # where the row starts; it may have several
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as cause:
            raise error(f"not a CSV text file: {cause}", path=table.path, line=line) from cause
        if not any(map(str.strip, row)):
            blank.append(line)
            continue
        table.blank += blank
        blank = []
        yield line, row
