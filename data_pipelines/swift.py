"""MS-SWIFT training JSONL (messages with the answer, images) → face records."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_pipelines.records import RecordError
from sf_jax.face import answers
from sf_jax.media import small_files
from sf_jax.media.errors import DataError
from sf_jax.media.images import ImageError, read_image


def line_record(line: answers.Line, path: Path, eye_pitch: str) -> dict[str, Any]:
    """One training line as a record; the path of its image is relative to the file.

    Raises:
      RecordError: no answer, not one image, or either cannot be read; names file and line.
    """
    where: dict[str, Any] = {"path": path, "line": line.number}
    if line.response is None:
        problem = "no answer; training lines end with an assistant message"
        raise RecordError(problem, **where)
    if len(line.images) != 1:
        raise RecordError(f"{len(line.images)} images, expected 1", field="images", **where)
    try:
        answer = answers.parse(line.response, eye_pitch=eye_pitch)
        image = read_image(path.parent / line.images[0])
    except (answers.AnswerError, ImageError) as error:
        raise RecordError(str(error), **where) from error
    return {
        "image": image,
        "coefficients": answer.coefficients,
        "rationale": answer.rationale,
        "source": "imported",
        "origin": f"{path.name}:{line.number}",
    }


def convert(
    path: Path, skip_bad: bool = False, eye_pitch: str = "down"
) -> Iterator[dict[str, Any]]:
    """Records of a file, in order. With `skip_bad` each bad line is printed and left out.

    Raises:
      RecordError: a line is bad and not to be skipped, or none is left.
    """

    def left_out(error: DataError) -> None:
        tqdm.write(f"left out: {error}")

    count = 0
    lines = small_files.lines(path, RecordError, left_out=left_out if skip_bad else None)
    for number, text in tqdm(lines, desc="import", unit="line"):
        try:
            record = line_record(_line(path, number, text), path, eye_pitch)
        except RecordError as error:
            if not skip_bad:
                raise
            left_out(error)
        else:
            count += 1
            yield record
    if count == 0:
        raise RecordError("no line could be used", path=path)


def _line(path: Path, number: int, text: bytes) -> answers.Line:
    try:
        return answers.read_line(number, text)
    except answers.AnswerError as error:
        raise RecordError.of(error, path=path) from error
