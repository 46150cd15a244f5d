"""Face records: what one holds, how it is written to ArrayRecord files and read back.

Fields of a record:

  image         uint8 [H, W, 3]
  coefficients  float32 [61] in canonical order, 0 where not known
  known         bool [61]: the channels that the image can show; losses and metrics mask the others
  rationale     the description of the known coefficients; empty where there is none
  landmarks     float32 [70, 2] of `face/landmarks.py`, shares of width and height; NaN: not known
  source        what made the image, such as "builtin", "skins" or "drawn"; "" where not noted
  style         the rig, skin or drawing style within the source, or ""
  identity      a number of the person, for bootstrap over people
  parts, dense  optional: a coarse map of materials [C, C], and whether it is there

Records written before `known`, `source` and `style` existed are read as wholly known. Records that
an import or a test makes may lack the optional fields.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from flax import serialization

from sf_jax.face.landmarks import COUNT
from sf_jax.media.errors import DataError
from sf_jax.media.files import replacing
from sf_jax.media.images import encode_png


class RecordError(DataError):
    """A record or file that cannot be read; the message names file, record and field."""


FIELDS = ("image", "coefficients", "rationale")
Kind = TypeVar("Kind")
JPEG_QUALITY = 95  # of images that need not be exact, with colour at full resolution


def encode(record: dict[str, Any], exact: bool = True) -> bytes:
    """Packs a record.

    Args:
      exact: store `image` uint8 [H, W, 3] as PNG; else as JPEG of `JPEG_QUALITY`, which takes a
        third of the space and of the time to decode. Other fields are stored as they are.
    """
    return packed({**record, "image": encode_image(record["image"], exact)})


def packed(fields: dict[str, Any]) -> bytes:
    """Fields of numbers, text, arrays, lists and maps as the bytes of a record of any kind."""
    return serialization.msgpack_serialize(fields)


def encode_image(image: np.ndarray, exact: bool = True) -> bytes:
    """An image uint8 [H, W, 3] as the bytes of a PNG or, not `exact`, of a JPEG."""
    if exact:
        return encode_png(image)
    full_colour = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    how = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, full_colour]
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, how)[1].tobytes()


def decode(data: bytes) -> dict[str, Any]:
    """Unpacks a record.

    Raises:
      RecordError: it is damaged or lacks a field; names the field.
    """
    record = unpacked(data, FIELDS)
    coefficients = _coefficients(record["coefficients"])
    known = _known(record.get("known", np.ones(61, bool)))
    if coefficients[~known].any():
        problem = "field 'coefficients' is not 0 where 'known' is false"
        raise RecordError(problem, field="coefficients")
    return {
        **record,
        "image": decode_image(record["image"]),
        "coefficients": coefficients,
        "known": known,
        "landmarks": _landmarks(record.get("landmarks", np.full((COUNT, 2), np.nan, np.float32))),
        "source": text(record, "source"),
        "style": text(record, "style"),
    }


def unpacked(data: bytes, fields: Iterable[str]) -> dict[str, Any]:
    """A stored record's fields as they are stored.

    Raises:
      RecordError: it is damaged or lacks one of `fields`; names the field.
    """
    try:
        record = serialization.msgpack_restore(data)
    except Exception as error:  # msgpack raises many kinds
        raise RecordError(f"not a face record: {error}") from error
    missing = [name for name in fields if not isinstance(record, dict) or name not in record]
    if missing:
        raise RecordError(f"field {missing[0]!r} is missing", field=missing[0])
    return record


def decode_image(stored: bytes) -> np.ndarray:
    """The image uint8 [H, W, 3] of a stored record.

    Raises:
      RecordError: it is not a readable image.
    """
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


def _known(stored: np.ndarray) -> np.ndarray:
    if not isinstance(stored, np.ndarray) or stored.shape != (61,) or stored.dtype != bool:
        raise RecordError("field 'known' is not 61 truth values", field="known")
    return stored


def text(record: dict[str, Any], name: str) -> str:
    """A field that is text, or "" where it is missing.

    Raises:
      RecordError: it is something else.
    """
    if not isinstance(record.get(name, ""), str):
        raise RecordError(f"field {name!r} is not text", field=name)
    return record.get(name, "")


def _landmarks(stored: np.ndarray) -> np.ndarray:
    numeric = isinstance(stored, np.ndarray) and np.issubdtype(stored.dtype, np.floating)
    if not numeric or stored.ndim != 2 or stored.shape[1] != 2 or np.isinf(stored).any():
        raise RecordError("field 'landmarks' is not rows of x and y", field="landmarks")
    return stored


def write(path: str | os.PathLike, records: Iterable[dict[str, Any]], *, exact: bool = True) -> int:
    """Writes a file of records, complete or not at all; see `encode`. Returns their number."""
    return write_encoded(path, (encode(record, exact) for record in records))


def write_encoded(path: str | os.PathLike, records: Iterable[bytes]) -> int:
    """Writes a file of packed records of any kind, complete or not at all; returns their number."""
    count = 0
    with replacing(path) as temporary:
        writer = ArrayRecordWriter(str(temporary), "group_size:1")
        try:
            for record in records:
                writer.write(record)
                count += 1
        finally:
            writer.close()
    return count


def read(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
    """The face records of one file, in order.

    Raises:
      RecordError: the file or a record is damaged; the message names file and record.
    """
    return read_as(path, decode)


def read_as(path: str | os.PathLike, decode: Callable[[bytes], Kind]) -> Iterator[Kind]:
    """The records of one file, in order, each as `decode` makes it of its bytes.

    Raises:
      RecordError: the file or a record is damaged; the message names file and record.
    """
    reader = _open(path)
    for number in range(reader.num_records()):
        with located(path, number):
            record = decode(reader.read([number])[0])
        yield record


def faults(path: str | os.PathLike, decode: Callable[[bytes], object]) -> Iterator[RecordError]:
    """An error for each record of a file that `decode` refuses or that cannot be read.

    Raises:
      RecordError: the file is truncated or none of records.
    """
    reader = _open(path)
    for number in range(reader.num_records()):
        try:
            with located(path, number):
                decode(reader.read([number])[0])
        except RecordError as error:
            yield error
            reader = _open(path)  # one that failed reads no further


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
      RecordError: there are none, one is unreadable, or the folder's manifest lists one that is not
        there.
    """
    from data_pipelines import manifest  # late: it reads records

    paths = sorted(str(path) for path in Path(directory).glob("*.array_record"))
    if not paths:
        raise RecordError("holds no *.array_record file", path=directory)
    for missing in manifest.absent(Path(directory)):
        raise RecordError(f"no such file, but {manifest.NAME} lists it", path=missing)
    for path in paths:
        _open(path)
    return paths


def first(directory: str | os.PathLike, count: int) -> list[dict[str, Any]]:
    """The first `count` records of a directory's files, in order."""
    return list(islice(chain.from_iterable(map(read, files(directory))), count))
