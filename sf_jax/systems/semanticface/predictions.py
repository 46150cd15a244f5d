"""Answers of other systems, from files, to be measured as a model's are.

Two kinds of file, with an answer for each record of a set in its order:

- `.csv`: a Live Link Face CSV. A row of empty fields is a face that was not found.
- `.jsonl`: JSON lines with the field "coefficients", an object of channel names (in any convention
  of `face.channels.lookup`) and numbers, or null for a face that was not found; or the result lines
  that `swift infer` writes, whose field "response" is the text of an answer. Other fields are left
  alone, so `sf-jax predict`'s own lines are read too.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from sf_jax.face import answers, livelink
from sf_jax.face.channels import HIGH, LOW, NAMES, UnknownChannel, lookup
from sf_jax.media import small_files
from sf_jax.media.errors import DataError

SUFFIXES = (".csv", ".jsonl")


class PredictionsError(DataError):
    """A file of answers that cannot be read, or of another number of faces."""


class _Line(small_files.Settings):
    coefficients: dict[str, float | int | None] | None


def read(path: Path, count: int) -> Float[np.ndarray, "N 61"]:
    """The first `count` answers of a file: NaN where it has no value, a whole row for no face.

    Raises:
      PredictionsError: the file cannot be read or has fewer answers; names line and field.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise PredictionsError(f"is neither of {' and '.join(SUFFIXES)}", path=path)
    try:
        found = _csv(path) if suffix == ".csv" else _lines(path, count)
    except OSError as error:
        raise PredictionsError(error.strerror or str(error), path=path) from error
    if len(found) < count:
        problem = f"holds {len(found)} answers for {count} faces"
        raise PredictionsError(problem, path=path)
    return found[:count]


def _csv(path: Path) -> Float[np.ndarray, "N 61"]:
    try:
        return livelink.read(path, subset=True, keep_empty=True).coefficients
    except livelink.LiveLinkError as error:
        raise PredictionsError.of(error) from error


def _lines(path: Path, count: int) -> Float[np.ndarray, "N 61"]:
    rows: list[np.ndarray] = []
    for number, text in small_files.lines(path, PredictionsError):
        if len(rows) == count:
            break
        try:
            rows.append(_row(small_files.parse_json(text, PredictionsError)))
        except PredictionsError as error:
            raise error.at(path=path, line=number) from None
    return np.array(rows).reshape(-1, len(NAMES))


def _row(line: object) -> Float[np.ndarray, "61"]:
    row = np.full(len(NAMES), np.nan)
    if isinstance(line, dict) and "coefficients" not in line and "response" in line:
        return _response(line["response"])
    given = small_files.checked(_Line, line, PredictionsError).coefficients
    for name, value in (given or {}).items():
        try:
            index = lookup(name).index
        except UnknownChannel as error:
            raise PredictionsError(str(error), field="coefficients") from None
        if not np.isnan(row[index]):
            problem = f"gives {NAMES[index]} twice"
            raise PredictionsError(problem, field="coefficients")
        if value is not None:
            if not LOW[index] <= value <= HIGH[index]:
                problem = f"{value:g} is not from {LOW[index]:g} to {HIGH[index]:g}"
                raise PredictionsError(problem, field=f"coefficients.{name}")
            row[index] = value
    return row


def _response(text: object) -> Float[np.ndarray, "61"]:
    if not isinstance(text, str):
        raise PredictionsError("is no text", field="response")
    try:
        return answers.parse(text).coefficients.astype(np.float64)
    except answers.AnswerError as error:
        raise PredictionsError(str(error), field="response") from error
