"""The one way to read a small file, such as a model's settings: bounded, typed and finite.

Such files come from anywhere: a download that broke off, a pointer that Git LFS left in place of a
file, a hand that edited. Reading one takes no more than its bound of memory, and what is no JSON,
nests too deeply, gives a field twice or holds NaN is refused with the file and the field.

Types are declared as pydantic models (`Settings`) and checked by `checked`. pydantic is what the
service declares its requests in already; importing it takes a tenth of a second.
"""

import codecs
import json
import math
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sf_jax.media.errors import DataError

MOST_BYTES = 4 * 2**20  # of a file of settings; the largest honest ones have some 100 kB
MOST_LINE_BYTES = 64 * 2**20  # of a line of JSON lines, which may hold an image in base64
MOST_DEPTH = 64  # objects and lists within one another
SHOWN = 60  # characters of a value in a message

Errors = Callable[..., DataError]  # the class of the errors to raise
Kind = TypeVar("Kind", bound="Settings")

BEGINNINGS = {
    b"version https://git-lfs": "a Git LFS pointer in place of the file; fetch it (git lfs pull)",
    b"<!doctype html": "an HTML page in place of the file; download the file itself",
    b"<html": "an HTML page in place of the file; download the file itself",
    b"<?xml": "an XML page in place of the file; download the file itself",
    b"PK\x03\x04": "a ZIP archive",
    b"PK\x05\x06": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x80\x02": "a Python pickle",
    b"\x89PNG": "a PNG image",
}


class Settings(BaseModel):
    """Declared fields of a JSON object: no conversions between types, no NaN or infinity.

    Fields that are not declared are left alone, unless a subclass forbids them.
    """

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False, extra="ignore")


def recognised(beginning: bytes) -> str | None:
    """What a file is, by its first bytes, where it is one of the kinds met in place of others."""
    if not beginning:
        return "an empty file"
    text = beginning.removeprefix(codecs.BOM_UTF8).lstrip()
    for start, what in BEGINNINGS.items():
        if text[: len(start)].lower() == start.lower():
            return what
    return None


def read_bytes(
    path: str | os.PathLike,
    error: Errors = DataError,
    most_bytes: int = MOST_BYTES,
    pipes: bool = False,
) -> bytes:
    """The content of a file.

    Args:
      error: the class of what is raised.
      most_bytes: a larger file is refused, unread.
      pipes: whether the file may be a pipe, which would wait for a writer.

    Raises:
      DataError, of the class asked for: the file is missing, no regular file, or too large.
    """
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not (pipes and not stat.S_ISDIR(mode)):
            raise error("a folder, expected a file" if stat.S_ISDIR(mode) else "no file", path=path)
        with Path(path).open("rb") as file:
            content = file.read(most_bytes + 1)
    except FileNotFoundError as fault:
        raise error("no such file", path=path) from fault
    except (OSError, ValueError) as fault:
        if isinstance(fault, DataError):
            raise
        raise error(f"cannot be read: {_strerror(fault)}", path=path) from fault
    if len(content) > most_bytes:
        raise error(f"larger than {_size(most_bytes)}, the most such a file may have", path=path)
    return content


def read_text(
    path: str | os.PathLike,
    error: Errors = DataError,
    most_bytes: int = MOST_BYTES,
    pipes: bool = False,
) -> str:
    """The content of a UTF-8 text file, see `read_bytes`; line ends stay as they are."""
    content = read_bytes(path, error, most_bytes, pipes)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as fault:
        what = recognised(content) or f"not a text file in UTF-8: {fault}"
        raise error(what, path=path) from fault


def read_json(
    path: str | os.PathLike, error: Errors = DataError, most_bytes: int = MOST_BYTES
) -> Any:
    """The content of a JSON file, see `read_bytes` and `parse_json`."""
    content = read_bytes(path, error, most_bytes)
    what = recognised(content)
    if what is not None:
        raise error(f"not JSON: {what}", path=path)
    try:
        return parse_json(content, error)
    except DataError as fault:
        fault.at(path=path)
        raise


def lines(
    path: str | os.PathLike,
    error: Errors = DataError,
    most_bytes: int = MOST_LINE_BYTES,
    left_out: Callable[[DataError], None] | None = None,
) -> Iterator[tuple[int, bytes]]:
    """Number, from 1, and content of each line that is not empty, for `parse_json`.

    Args:
      left_out: is called with the error of a line that is too long, and the next line is read;
        None raises it.

    Raises:
      DataError, of the class asked for: a line is too long.
      OSError: the file cannot be opened.
    """
    with Path(path).open("rb") as file:
        for number, line in enumerate(_bounded(file, most_bytes), 1):
            if len(line) > most_bytes:
                problem = f"longer than {_size(most_bytes)}, the most a line may have"
                fault = error(problem, path=path, line=number)
                if left_out is None:
                    raise fault
                left_out(fault)
            elif line.removeprefix(codecs.BOM_UTF8).strip():
                yield number, line


def _bounded(file: IO[bytes], most_bytes: int) -> Iterator[bytes]:
    """Lines; of one beyond the bound, one byte more than it, and the rest is skipped."""
    while line := file.readline(most_bytes + 1):
        yield line
        while len(line) > most_bytes and not line.endswith(b"\n"):
            line = file.readline(most_bytes + 1) or b"\n"


def parse_json(text: str | bytes, error: Errors = DataError) -> Any:
    """What a JSON text holds.

    Raises:
      DataError, of the class asked for: the text is no JSON, nests more than `MOST_DEPTH` deep,
        gives a field twice, or holds a number that is not finite; without a path.
    """

    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(members)
        if len(found) < len(members):
            raise error("given twice", field=_twice(members)[:SHOWN])
        return found

    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        found = json.loads(
            text.removeprefix("\ufeff"),
            object_pairs_hook=pairs,
        )
        field = _not_finite(found)
    except DataError:
        raise
    except RecursionError as fault:
        raise error(f"nested more than {MOST_DEPTH} deep") from fault
    except UnicodeDecodeError as fault:
        raise error(f"not a text file in UTF-8: {fault}") from fault
    except ValueError as fault:
        what = fault.msg if isinstance(fault, json.JSONDecodeError) else str(fault)
        where = f" at character {fault.pos + 1}" if isinstance(fault, json.JSONDecodeError) else ""
        raise error(f"not JSON: {what.removesuffix(' at')}{where}") from fault
    if field is not None:
        raise error("found NaN or infinity, expected a finite number", field=field or None)
    return found


def _twice(members: list[tuple[str, Any]]) -> str:
    """The first name that has been given before."""
    met: set[str] = set()
    for name, _ in members:
        if name in met:
            return name
        met.add(name)
    raise AssertionError("unreachable")


def _not_finite(content: Any, most: int = MOST_DEPTH) -> str | None:
    """Where the first number that is not finite is, such as `slots[2].low`; else None.

    Raises:
      RecursionError: objects and lists nest more than `most` deep.
    """
    if not isinstance(content, dict | list):
        return "" if isinstance(content, float) and not math.isfinite(content) else None
    if content and not most:
        raise RecursionError
    members = content.items() if isinstance(content, dict) else enumerate(content)
    for name, value in members:
        if isinstance(value, dict | list | float):
            found = _not_finite(value, most - 1)
            if found is not None:
                return _joined("", (name,)) + (f".{found}" if found[:1] not in ("", "[") else found)
    return None


def too_deep(content: Any, most: int = MOST_DEPTH) -> bool:
    """Whether the lists, tuples and mappings of a value nest more than `most` deep."""
    level = [content]
    for _ in range(most + 1):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, Mapping):
                inner += value.values()
            elif isinstance(value, list | tuple):
                inner += value
        if not inner:
            return False
        level = inner
    return True


def checked(kind: type[Kind], content: Any, error: Errors = DataError, within: str = "") -> Kind:
    """An object's declared fields.

    Args:
      content: of an object as `parse_json` gives it.
      within: the field that holds the object, for messages.

    Raises:
      DataError, of the class asked for: a field is missing, or of another type or range than
        declared; names the first such field, without a path.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as fault:
        first = fault.errors(include_url=False)[0]
        field = _joined(within, first["loc"])
        raise error(_problem(first), field=field or None) from fault


def _joined(within: str, parts: tuple[int | str, ...]) -> str:
    """Such as `slots[2].low`."""
    for part in parts:
        if isinstance(part, int):
            within += f"[{part}]"
        else:
            within += f".{part}" if within else part
    return within


EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "string_too_short": "some text",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "literal_error": "{expected}",
    "too_short": "{min_length} or more, found {actual_length}",
    "too_long": "{max_length} or fewer",
}  # by the type of pydantic's error


def _problem(fault: Any) -> str:
    kind = fault["type"]
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return "no such field is known"
    if kind == "value_error":  # from a check of our own
        return str(fault["ctx"]["error"])
    wanted = EXPECTED.get(kind)
    if wanted is None:
        return f"found {shown(fault['input'])}: {fault['msg']}"
    return f"found {shown(fault['input'])}, expected {wanted.format(**fault.get('ctx', {}))}"


def shown(value: Any) -> str:
    """A value of a file as a message shows it, in one short line."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _strerror(fault: OSError | ValueError) -> str:
    return getattr(fault, "strerror", None) or str(fault)


def _size(count: int) -> str:
    return f"{count / 2**20:g} MiB" if count >= 2**20 else f"{count} bytes"
