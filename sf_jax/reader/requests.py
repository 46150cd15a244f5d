"""MS-SWIFT request lines in, result lines out: `sf-jax predict --requests` for `swift infer`.

Every request has its line in the results, in order. One that could not be answered has
`"response": null` and an `"error"` that says why, and is reported again at the end. A model that is
instructed answers the messages; the built-in one answers its own question, and the messages are
kept.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from sf_jax.face import answers, channels, livelink
from sf_jax.media import files, images, small_files
from sf_jax.media.errors import DataError
from sf_jax.reader.action import Provenance
from sf_jax.reader.files import PICTURE_FPS, Reader
from sf_jax.sequence.chat import ChatError, chat_text

OURS = ("response", "labels", "logprobs", "messages", "images", "error", "sf_jax")  # written anew


class RequestError(DataError):
    """A file of requests, or one request, that cannot be answered; names file and line."""


@dataclass(frozen=True)
class Request:
    """One line of a request file.

    Attributes:
      path: its file, from whose folder relative image paths start.
      line: its messages, pictures and, where it is a training example, the example's answer.
      others: fields beside these, such as an id, which the result keeps.
    """

    path: Path
    line: answers.Line
    others: dict[str, Any]

    def picture(self) -> Path:
        """The path of its one picture.

        Raises:
          RequestError: it has none or several, or its messages show another number of them.
        """
        for name in ("videos", "audios"):
            if self.others.get(name):
                raise RequestError(f'the request has "{name}"; only images are read')
        if len(self.line.images) != 1:
            raise RequestError(f"the request has {len(self.line.images)} pictures, expected one")
        try:
            chat_text(self.line.messages, [1])
        except ChatError as error:
            raise RequestError.of(error) from error
        return self.path.parent / self.line.images[0]

    def result(self, made_with: Provenance, response: str | None, error: str | None = None) -> str:
        """The result line, in the form that MS-SWIFT writes; "sf_jax" names what made it."""
        messages = [{**message, "loss": message.get("loss")} for message in self.line.messages]
        if response is not None:
            messages.append({"role": "assistant", "content": response})
        record = {
            "response": response,
            "labels": self.line.response,
            "logprobs": None,
            **self.others,
            "messages": messages,
            "images": [{"bytes": None, "path": path} for path in self.line.images],
            "sf_jax": made_with.as_json(),
        }
        return json.dumps(record if error is None else record | {"error": error})


def read_requests(path: Path) -> list[Request]:
    """Reads a whole file of requests; empty lines are skipped.

    Raises:
      RequestError: a line is no request, or there is none; names file and line.
      OSError: the file cannot be opened.
    """
    lines = small_files.lines(path, RequestError)
    requests = [_request(path, number, text) for number, text in lines]
    if not requests:
        raise RequestError("holds no requests", path=path)
    return requests


def _request(path: Path, number: int, text: bytes) -> Request:
    try:
        line = answers.read_line(number, text)
    except answers.AnswerError as error:
        raise RequestError.of(error, path=path) from error
    if not line.messages:
        problem = '"messages" holds no question'
        raise RequestError(problem, path=path, line=number, field="messages")
    record = small_files.parse_json(text)
    others = {name: value for name, value in record.items() if name not in OURS}
    return Request(path, line, others)


def predict_requests(
    reader: Reader, requests: list[Request], results: Path, csv: Path | None = None
) -> list[DataError]:
    """Answers requests one after another, each written out at once.

    Args:
      results: the file of result lines; `results.partial` until it is complete, which an
        interruption leaves there with the lines written so far.
      csv: a Live Link file of the numbers asked for, one row a request, named in its last column.
        The row of a request that failed holds no numbers and a BlendShapeCount of 0.

    Returns:
      what failed.

    Raises:
      TimecodeError: the frame rate has no timecode of the kind asked for.
    """
    options, made_with = reader.options, reader.model.provenance
    fps = options.fps or PICTURE_FPS
    livelink.labels(1, fps, drop_frame=options.drop_frame)  # refused before the work
    failures: list[DataError] = []
    rows: list[np.ndarray | None] = []
    results.parent.mkdir(parents=True, exist_ok=True)
    with files.stream(results, keep=True) as file:
        for request in tqdm(requests, unit="request", disable=len(requests) < 2):
            try:
                text, numbers = _answer(reader, request)
            except (RequestError, images.ImageError) as error:
                failed = RequestError(str(error), path=request.path, line=request.line.number)
                failures.append(failed)
                rows.append(None)
                file.write(request.result(made_with, None, str(error)) + "\n")
            else:
                rows.append(numbers)
                file.write(request.result(made_with, text) + "\n")
            file.flush()
    if csv is not None:
        csv.parent.mkdir(parents=True, exist_ok=True)
        nothing = np.zeros(len(channels.NAMES), np.float32)
        livelink.write(
            csv,
            np.stack([nothing if row is None else row for row in rows]),
            fps=fps,
            sources=[", ".join(request.line.images) for request in requests],
            failed=[row is None for row in rows],
            drop_frame=options.drop_frame,
            channels=reader.channels,
        )
    return failures


def _answer(reader: Reader, request: Request) -> tuple[str, np.ndarray]:
    """The text spoken and the numbers [61] asked for."""
    path = request.picture()
    picture, notes = images.read_noted(path)
    messages = request.line.messages if reader.model.instructed else None
    frame = reader.read(picture, messages)
    if not frame.found:
        notes = [*notes, f"{path}: no face found, the whole picture was read"]
    for note in notes:
        tqdm.write(note)
    return frame.action.text, frame.values
