"""Face records: what one holds, how it is written to ArrayRecord files and read back."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from flax import serialization

from sf_jax.media.errors import DataError
from sf_jax.media.files import replacing


class RecordError(DataError):
    """A record or file that cannot be read; the message names file, record and field."""


FIELDS = ("image", "coefficients", "rationale")


def encode(record: dict[str, Any]) -> bytes:
    """Packs a record. `image` uint8 [H, W, 3] is stored as PNG; other fields as they are."""
    image = cv2.cvtColor(record["image"], cv2.COLOR_RGB2BGR)
    stored = cv2.imencode(".png", image)[1].tobytes()
    return serialization.msgpack_serialize({**record, "image": stored})


def decode(data: bytes) -> dict[str, Any]:
    """Unpacks a record.

    Raises:
      RecordError: it is damaged or lacks a field; names the field.
    """
    try:
        record = serialization.msgpack_restore(data)
    except Exception as error:  # msgpack raises many kinds
        raise RecordError(f"not a face record: {error}") from error
    if not isinstance(record, dict) or any(name not in record for name in FIELDS):
        missing = [name for name in FIELDS if not isinstance(record, dict) or name not in record]
        raise RecordError(f"field {missing[0]!r} is missing", field=missing[0])
    return {
        **record,
        "image": _image(record["image"]),
        "coefficients": _coefficients(record["coefficients"]),
    }


def _image(stored: bytes) -> np.ndarray:
    try:
        image: Any = cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_COLOR)
    except (TypeError, ValueError, cv2.error):  # no bytes, or none in them
        image = None
    if image is None:
        raise RecordError("field 'image' is not a readable image", field="image")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _coefficients(stored: np.ndarray) -> np.ndarray:
    numeric = isinstance(stored, np.ndarray) and np.issubdtype(stored.dtype, np.number)
    if not numeric or stored.shape != (61,) or not np.isfinite(stored).all():
        raise RecordError("field 'coefficients' is not 61 finite numbers", field="coefficients")
    return stored


def write(path: str | os.PathLike, records: Iterable[dict[str, Any]]) -> int:
    """Writes a file of records, complete or not at all; returns their number."""
    count = 0
    with replacing(path) as temporary:
        writer = ArrayRecordWriter(str(temporary), "group_size:1")
        try:
            for record in records:
                writer.write(encode(record))
                count += 1
        finally:
            writer.close()
    return count


def read(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
    """The records of one file, in order.

    Raises:
      RecordError: the file or a record is damaged; the message names file and record.
    """
    reader = _open(path)
    for number in range(reader.num_records()):
        with located(path, number):
            record = decode(reader.read([number])[0])
        yield record


@contextmanager
def located(path: str | os.PathLike, number: int) -> Iterator[None]:
    """Errors of reading and decoding a record become a `RecordError` that names file and record."""
    try:
        yield
    except RecordError as error:
        error.at(path=path, record=number)
        raise
    except Exception as error:  # the reader's errors have no common class
        raise RecordError("damaged", path=path, record=number) from error


def count(path: str | os.PathLike) -> int:
    """The number of records in a file.

    Raises:
      RecordError: the file is truncated or none of records.
    """
    return _open(path).num_records()


def _open(path: str | os.PathLike) -> Any:
    """A reader of a sound file; closed when it is dropped."""
    reader = ArrayRecordReader(str(path))
    if not reader.ok():  # opening never raises, and a broken file would pass for an empty one
        raise RecordError("missing, truncated or not an ArrayRecord file", path=path)
    return reader


def files(directory: str | os.PathLike) -> list[str]:
    """The record files of a directory in order.

    Raises:
      RecordError: there are none, or one is unreadable.
    """
    paths = sorted(str(path) for path in Path(directory).glob("*.array_record"))
    if not paths:
        raise RecordError("holds no *.array_record file", path=directory)
    for path in paths:
        _open(path)
    return paths


def first(directory: str | os.PathLike, count: int) -> list[dict[str, Any]]:
    """The first `count` records of a directory's files, in order."""
    return list(islice(chain.from_iterable(map(read, files(directory))), count))
