"""Errors that carry where they are as data: file, line, record and field. Text is made once.

Rooms derive their own classes, so that callers catch those of one kind. A reader that knows a
part of the location raises with that part, and `at` adds what its caller knows.
"""

import os
import re
import unicodedata
from typing import Self

PARTS = ("path", "line", "record", "field")  # of a location


def printable(text: str | os.PathLike) -> str:
    r"""A path or other foreign text as text that every terminal, CSV and JSON file takes.

    Control characters, lone surrogates, and bytes of a file name that are no UTF-8 become escapes:
    `\x1b`, `\ud83d`, `\xff`.
    """
    found = os.fspath(text)
    pieces = []
    for character in found:
        if "\udc80" <= character <= "\udcff":  # how Python holds such a byte
            pieces.append(f"\\x{ord(character) - 0xDC00:02x}")
        elif unicodedata.category(character) in ("Cc", "Cs"):
            pieces.append(character.encode("unicode_escape").decode("ascii"))
        else:
            pieces.append(character)
    return "".join(pieces)


class DataError(ValueError):
    """Input that cannot be used.

    Attributes:
      problem: what was found and what was expected, without the location.
      path: the file or folder, as its user named it.
      line, record: the number of a text line (from 1) or of a record (from 0) in the file.
      field: a field, column, tensor or key; the text names it once, there or in the problem.
    """

    FIELD = "field {!r}"  # how the location names a field

    def __init__(
        self,
        problem: str,
        *,
        path: str | os.PathLike | None = None,
        line: int | None = None,
        record: int | None = None,
        field: str | None = None,
    ):
        super().__init__(problem)
        self.problem, self.field = problem, field
        self.path = None if path is None else os.fspath(path)
        self.line, self.record = line, record

    @classmethod
    def of(cls, error: Exception, **location: str | os.PathLike | int | None) -> Self:
        """An error of this class with another's problem and location, and more of the location.

        For a file named within a file, as an image in a line of JSONL, make a new error of the
        other's text instead.
        """
        if not isinstance(error, DataError):
            return cls(str(error)).at(**location)
        own = {part: getattr(error, part) for part in PARTS}
        return cls(error.problem, **own).at(**location)

    def at(self, **location: str | os.PathLike | int | None) -> Self:
        """This error with those parts of the location filled in that it lacks."""
        for part, value in location.items():
            if part not in PARTS:
                raise TypeError(f"an error has no {part!r}")
            if getattr(self, part) is None and value is not None:
                setattr(self, part, value if isinstance(value, int) else os.fspath(value))
        return self

    @property
    def location(self) -> str:
        """Such as `faces.jsonl, line 3, field 'images'`; empty where nothing is known."""
        parts = [
            None if self.path is None else printable(self.path),
            None if self.line is None else f"line {self.line}",
            None if self.record is None else f"record {self.record}",
            self._field(),
        ]
        return ", ".join(part for part in parts if part is not None)

    def _field(self) -> str | None:
        found = self.problem.partition(", expected")[0]  # a type, as "text", may be a name too
        if self.field is None or re.search(rf"(?<!\w){re.escape(self.field)}(?!\w)", found):
            return None
        return self.FIELD.format(self.field)

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.location, self.problem)))

    def __reduce__(self) -> tuple:
        """Workers of a pool hand their errors over pickled."""
        return _again, (type(self), self.problem, self.path, self.line, self.record, self.field)


def _again(
    kind: type[DataError],
    problem: str,
    path: str | None,
    line: int | None,
    record: int | None,
    field: str | None,
) -> DataError:
    return kind(problem, path=path, line=line, record=record, field=field)
