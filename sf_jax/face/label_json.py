"""Labels in JSON, whose layouts differ from script to script: rows with names, scores and times.

Understood are a list of rows, an object with a list of them under `frames` or `results`, and JSON
lines. A row has its blendshapes under `faceBlendshapes`, `face_blendshapes`, `blendshapes` or
`coefficients`, or under channel names at the top: as MediaPipe's categories, perhaps a list a face,
or as an object from name to value.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

from sf_jax.face.channels import NAMES, UnknownChannel, lookup
from sf_jax.media import small_files
from sf_jax.media.errors import DataError
from sf_jax.media.small_files import Errors

MOST_BYTES = 512 * 2**20  # of a JSON file: landmarks beside the scores take 60 kB a frame
LISTS = ("frames", "results", "data", "rows", "faces")
SHAPES = ("faceBlendshapes", "face_blendshapes", "blendshapes", "blendShapes", "coefficients")
SECONDS = ("seconds", "time_seconds", "elapsed_seconds")
MILLISECONDS = ("timestampMs", "timestamp_ms", "timestampMS", "time_ms", "elapsedMs")
TIMES = ("timestamp", "time", "timeStamp", "t")  # of a unit that the steps show
NUMBERS = ("frame", "frameIndex", "frame_index", "frame_number", "frameNumber", "index")
MOST_NUMBER = 2**31  # of a frame
IMAGES = ("image", "file", "filename", "file_name", "path", "image_path", "source", "picture")
NAMED = ("categoryName", "category_name", "name", "label")
SCORED = ("score", "value")


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
      line: of the file, or the number of the row from 1.
      values: [61]; NaN where not known.
      time: as the file has it, and its unit in seconds, 0 where the unit is not stated.
      number: of the video's frame. image: its name.
    """

    line: int
    values: Float[np.ndarray, "61"]
    time: float | None = None
    unit: float = 0.0
    number: int | None = None
    image: str | None = None


@dataclass(frozen=True)
class Rows:
    """The rows of a file, what made them, and what is odd."""

    rows: list[Row]
    tracker: str
    notes: list[str] = field(default_factory=list)


def read(path: Path, error: Errors) -> Rows:
    """The rows of a JSON file or of JSON lines.

    Raises:
      DataError, of the class asked for: names file, line and field.
    """
    if path.suffix.lower() == ".json":
        items = list(enumerate(_listed(small_files.read_json(path, error, MOST_BYTES)), 1))
    else:
        items = []
        for line, text in small_files.lines(path, error):
            try:
                items.append((line, small_files.parse_json(text, error)))
            except DataError as fault:
                raise fault.at(path=path, line=line) from None
    rows: list[Row] = []
    others: set[str] = set()
    trackers: set[str] = set()
    for line, item in items:
        try:
            rows.append(_row(line, item, error, others, trackers))
        except DataError as fault:
            raise fault.at(path=path, line=line) from None
    unread = sorted(others - {"_neutral"})
    notes = [f"not read, as no channel has the name: {', '.join(unread[:8])}"] if unread else []
    faceless = sum(not np.isfinite(one.values).any() for one in rows)
    notes += [f"{faceless} rows without a face"] if faceless else []
    return Rows(rows, min(trackers, default="labels"), notes)


def _listed(content: object) -> list[object]:
    """The rows of a file's content."""
    if isinstance(content, list):
        return content
    if isinstance(content, dict):
        for name in LISTS:
            if isinstance(content.get(name), list):
                return list(content[name])
    return [content]


def _row(line: int, item: object, error: Errors, others: set[str], trackers: set[str]) -> Row:
    if not isinstance(item, dict):
        raise error(f"found {small_files.shown(item)}, expected an object for a frame")
    nested = item.get("results", item.get("result"))
    fields: dict[str, object] = {**item, **(nested if isinstance(nested, dict) else {})}
    key = next((name for name in SHAPES if name in fields), None)
    shapes = _first_face(fields if key is None else fields[key])
    values = np.full(len(NAMES), np.nan)
    for name, score in _pairs(shapes, key, error):
        try:
            index = lookup(name).index
        except UnknownChannel:
            others.update([] if key is None else [name])
            continue
        values[index] = _number(score, NAMES[index], error)
    if key is None and not np.isfinite(values).any():
        raise error(f"no blendshapes: expected one of {', '.join(SHAPES)}, or channel names")
    if key is not None and isinstance(shapes, list) and key != "coefficients":
        trackers.add("mediapipe")
    elif "sf_jax" in fields:
        trackers.add("sf_jax")
    time, unit = _time(fields, error)
    number, image = _first(fields, NUMBERS), _first(fields, IMAGES)
    if number is not None and (isinstance(number, bool) or not isinstance(number, int)):
        raise error(f"found {small_files.shown(number)}, expected a whole number", field="frame")
    if number is not None and abs(number) > MOST_NUMBER:
        raise error(f"a number beyond {MOST_NUMBER}", field="frame")
    if image is not None and not isinstance(image, str):
        raise error(f"found {small_files.shown(image)}, expected a name", field="image")
    return Row(line, values, time, unit, number, image)


def _first_face(shapes: object) -> object:
    """The scores of the first face: MediaPipe has a list a face, or an object with one."""
    if isinstance(shapes, list) and shapes and isinstance(shapes[0], list):
        return shapes[0]
    if isinstance(shapes, list) and shapes and isinstance(shapes[0], dict):
        inner = shapes[0].get("categories")
        return inner if isinstance(inner, list) else shapes
    if isinstance(shapes, dict) and isinstance(shapes.get("categories"), list):
        return shapes["categories"]
    return shapes


def _pairs(shapes: object, key: str | None, error: Errors) -> list[tuple[str, object]]:
    """Name and score of each; none where there is no face."""
    if shapes is None:
        return []
    if isinstance(shapes, dict):
        return list(shapes.items())
    if not isinstance(shapes, list):
        raise error(f"found {small_files.shown(shapes)}, expected scores by name", field=key)
    pairs = []
    for one in shapes:
        if not isinstance(one, dict):
            problem = f"found {small_files.shown(one)}, expected an object with name and score"
            raise error(f"{problem}; bare numbers have no order that is known", field=key)
        name, score = _first(one, NAMED), _first(one, SCORED)
        if not isinstance(name, str):
            raise error("a score without a name", field=key)
        pairs.append((name, score))
    return pairs


def _number(score: object, name: str, error: Errors) -> float:
    if score is None:
        return float("nan")
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise error(f"found {json.dumps(score)[:40]}, expected a number", field=name)
    try:
        return float(score)
    except OverflowError:
        raise error("a number of too many digits", field=name) from None


def _first(fields: Mapping[str, object], names: tuple[str, ...]) -> object:
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _time(fields: Mapping[str, object], error: Errors) -> tuple[float | None, float]:
    for names, unit in ((SECONDS, 1.0), (MILLISECONDS, 1e-3), (TIMES, 0.0)):
        found = _first(fields, names)
        if found is not None:
            return _number(found, names[0], error), unit
    return None, 0.0


def times(rows: list[Row], path: Path, error: Errors) -> Float[np.ndarray, " N"] | None:
    """Seconds from the first row; None where a row has no time.

    A time stamp whose unit is not stated is in seconds, milliseconds or microseconds by its steps.

    Raises:
      DataError, of the class asked for: a row comes before the one above.
    """
    found = [one.time for one in rows]
    if not rows or None in found:
        return None
    stamps = np.array(found, float)
    unit = rows[0].unit
    if not unit:
        step = float(np.median(np.diff(stamps))) if len(stamps) > 1 else 0.0
        unit = 1.0 if step < 2 else 1e-3 if step < 2000 else 1e-6
    seconds = (stamps - stamps[0]) * unit
    if np.any(np.diff(seconds) < 0):
        row = int(np.flatnonzero(np.diff(seconds) < 0)[0]) + 1
        raise error("is earlier than the row above", path=path, line=rows[row].line, field="time")
    return np.asarray(seconds)
