"""The Live Link CSV of images that are no take, and the index of which row is which image.

Unrelated images have no time. Their rows are one second apart, so that no software takes them for
a performance; a given frame rate makes them a take. The CSV has the plain 63 columns. Its index, a
second CSV file, has a line for each row:

| column | content |
|---|---|
| `row` | number of the row, from 1 |
| `line` | its line in the CSV, from 2 |
| `timecode` | its timecode |
| `kind` | `still`, or `frame` where a frame rate was given |
| `image` | the path as it was given; apostrophes as in `livelink.harmless` |
| `found` | whether a face was found; empty where none was searched for, or not known |
| `answered` | `false` where the row is empty: no face was found, or the image could not be read |
| `face` | number of the face in the image, from the left, from 1; empty where it was read whole |
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sf_jax.face import channels, livelink, timecode
from sf_jax.media import files
from sf_jax.media.errors import DataError
from sf_jax.reader.reader import Reader
from sf_jax.reader.session import Frame, Values

INDEX_SUFFIX = ".index.csv"
LONGEST_STEM = 220  # bytes, so that temporary names fit a file system too
COLUMNS = ("row", "line", "timecode", "kind", "image", "found", "answered", "face")


@dataclass(frozen=True)
class Still:
    """One row.

    Attributes:
      image: its image, as printable text.
      values: float [61]; None of one that could not be read, and where no face was found.
      found: whether a face was found; None where that is not known.
      face: the number of the face among those of the image, None where it was read whole.
    """

    image: str
    values: Values | None
    found: bool | None = None
    face: int | None = None

    @classmethod
    def of(cls, image: str, frame: Frame) -> "Still":
        """The row of what an image shows."""
        face = frame.action.face
        found = frame.found and face is not None
        number = None if face is None else face.number
        return cls(image, frame.values if frame.found else None, found, number)


def index_path(csv: Path) -> Path:
    """Where the index of a CSV goes: `faces.index.csv` beside `faces.csv`."""
    stem = csv.stem if csv.suffix.lower() == ".csv" else csv.name
    return csv.with_name(files.cut(stem, LONGEST_STEM) + INDEX_SUFFIX)


def check_index(path: Path) -> None:
    """Before any work is done.

    Raises:
      DataError: a file of this name is there that is no index.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        found = file.readline(100)
    if found.rstrip() not in (",".join(COLUMNS).encode(), ",".join(COLUMNS[:-1]).encode()):
        raise DataError("would be replaced by the index of a CSV, and is none itself", path=path)


def check_rate(reader: Reader) -> None:
    """Before any work is done.

    Raises:
      TimecodeError: the given rate has no timecode of the kind asked for.
    """
    labels(reader, 1)


def labels(reader: Reader, count: int) -> list[str]:
    """Timecodes of the rows."""
    options = reader.options
    if options.fps is None:
        return timecode.labels_at(range(count), 30)
    return livelink.labels(count, options.fps, drop_frame=options.drop_frame)


def write(reader: Reader, csv: Path, index: Path, stills: list[Still]) -> None:
    """Writes a CSV with a row for each image, and its index.

    Raises:
      OSError: one of them cannot be written.
    """
    nothing = np.zeros(len(channels.NAMES), np.float32)
    timecodes = labels(reader, len(stills))
    with files.stream(index, newline="") as file:
        file.write(",".join(COLUMNS) + "\n")
        for number, (still, label) in enumerate(zip(stills, timecodes, strict=True), 1):
            file.write(",".join(_line(reader, number, still, label)) + "\n")
        livelink.write(  # here, so that a failure leaves no index either
            csv,
            np.stack([nothing if still.values is None else still.values for still in stills]),
            timecodes=timecodes,
            sources=[still.image for still in stills] if reader.options.source_column else None,
            failed=[still.values is None for still in stills],
            channels=reader.channels,
        )


def _line(reader: Reader, number: int, still: Still, label: str) -> list[str]:
    searched = reader.frames and still.found is not None
    return [
        str(number),
        str(number + 1),
        label,
        "still" if reader.options.fps is None else "frame",
        livelink.cell(still.image),
        str(still.found).lower() if searched else "",
        str(still.values is not None).lower(),
        "" if still.face is None else str(still.face),
    ]


def summary(reader: Reader, csv: str, index: str, count: int) -> str:
    """A sentence for people."""
    fps = reader.options.fps
    if reader.options.face == "all":
        kind = "faces of unrelated images, one second apart and no take"
    elif fps is None:
        kind = "unrelated images, one second apart and no take (--fps makes them one)"
    else:
        kind = f"images as frames of a take at {fps:g} a second"
    return f"{csv}: {count} {kind}; {index} lists the image of each row"
