"""MS-SWIFT request lines in, result lines out: `sf-jax predict --requests` for `swift infer`.

Every request has its line in the results, in order. One that could not be answered has
`"response": null` and an `"error"` that says why, and is reported again at the end. A model that is
instructed answers the messages; the built-in one answers its own question, and the messages are
kept.
"""

import json
import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sf_jax.face import answers
from sf_jax.media import files, images, small_files
from sf_jax.media.errors import DataError, printable
from sf_jax.media.interrupts import Stopped, uninterrupted
from sf_jax.reader import stills
from sf_jax.reader.action import Provenance
from sf_jax.reader.framing import NoFaceError
from sf_jax.reader.inputs import folded, node
from sf_jax.reader.progress import note, tracked
from sf_jax.reader.reader import Reader, read_whole
from sf_jax.reader.session import Frame
from sf_jax.sequence.chat import ChatError, chat_text

OURS = ("labels", "logprobs", "error", "sf_jax")  # written anew, as are the fields of a line
NOT_READ = ("videos", "audios", "tools", "objects")  # fields that would change the answer
# How the base64 of a JPEG, PNG, GIF, WebP or TIFF file begins.
BASE64 = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "SUkq", "TU0A")


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
        for name in NOT_READ:
            if self.others.get(name):
                raise RequestError(f'the request has "{name}"; only images and texts are read')
        if len(self.line.images) != 1:
            raise RequestError(f"the request has {len(self.line.images)} pictures, expected one")
        try:
            chat_text(self.line.messages, [1])
        except ChatError as error:
            raise RequestError.of(error) from error
        _check_path(self.line.images[0])
        return self.paths()[0]

    def paths(self) -> list[Path]:
        """The paths of all its pictures."""
        return [self.path.parent / name for name in self.line.images]

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


def _check_path(name: str) -> None:
    """Refuses what is no path: addresses are not fetched, and content has no place in a path."""
    what = None
    if name[:5].lower() == "data:" or (len(name) > 200 and name.startswith(BASE64)):
        what = "the content of an image"
    elif re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name):
        what = "an address"
    if what is not None:
        problem = f'"images" holds {what}, {small_files.shown(name)}; expected the path of a file'
        raise RequestError(problem, field="images")


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
    others = {name: value for name, value in line.others.items() if name not in OURS}
    return Request(path, line, others)


def check_outputs(requests: list[Request], outputs: Sequence[Path], inputs: list[Path]) -> None:
    """Makes the folders of the outputs, and refuses what would replace an input.

    Args:
      outputs: files of results, which are replaced where they exist.
      inputs: files that the run reads beside the images of the requests.

    Raises:
      RequestError: an output is an input or another output, or is or meets a folder.
    """
    names = [folded(os.path.realpath(path)) for path in (*outputs, *inputs)]
    if any(names.count(folded(os.path.realpath(path))) > 1 for path in outputs):
        raise RequestError("--requests, --results, --csv and its index must be different files")
    images_read = [path for request in requests for path in request.paths()]
    read = {node(path) for path in (*inputs, *images_read)}
    for path in outputs:
        if path.is_dir():  # else found after the work, when the results are renamed
            raise RequestError("a folder, expected a file", path=path)
        if path.exists() and node(path) in read:
            raise RequestError("would be replaced by results, but is read by this run", path=path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise RequestError("a file, expected a folder", path=path.parent) from error


def predict_requests(
    reader: Reader, requests: list[Request], results: Path, csv: Path | None = None
) -> list[DataError | OSError]:
    """Answers requests one after another, each written out at once.

    Args:
      results: the file of result lines; under a name of `files.partials` until it is complete,
        which an interruption leaves there with the lines written so far.
      csv: a Live Link file of the numbers asked for, one row a request, with an index beside it,
        see `stills`. The row of a request that failed holds no numbers and a BlendShapeCount of 0.
        An interruption leaves the rows so far under a name of `files.partials`.

    Returns:
      what failed; a CSV that cannot be written is part of that, and costs no results.

    Raises:
      TimecodeError: the frame rate has no timecode of the kind asked for.
      Stopped: the process was asked to stop; the text says what was kept.
    """
    stills.check_rate(reader)  # before the work
    answered = Answered()
    with ExitStack() as saving:
        try:
            with files.stream(results, keep=True) as file:
                answered.partial = file.name
                for request in tracked(requests, "request", hidden=len(requests) < 2):
                    file.write(_line(reader, request, answered) + "\n")
                    file.flush()
                saving.enter_context(uninterrupted())  # only the CSV is to be written
        except KeyboardInterrupt as stop:
            saving.enter_context(uninterrupted())
            raise _stopped(reader, requests, answered, csv) from stop
        if csv is not None:
            _write_csv(reader, answered, csv)
    return answered.failures


@dataclass
class Answered:
    """What has come of the requests so far: a row of each."""

    rows: list[stills.Still] = field(default_factory=list)
    failures: list[DataError | OSError] = field(default_factory=list)
    partial: str = ""


def _write_csv(reader: Reader, answered: Answered, csv: Path) -> None:
    index = stills.index_path(csv)
    try:
        stills.write(reader, csv, index, answered.rows)
    except OSError as error:
        answered.failures.append(error)
    else:
        print(stills.summary(reader, printable(csv), printable(index), len(answered.rows)))


def _line(reader: Reader, request: Request, answered: Answered) -> str:
    """The result line of a request."""
    made_with = reader.model.provenance
    try:
        frame = _answer(reader, request)
    except DataError as error:
        failed = RequestError(str(error), path=request.path, line=request.line.number)
        answered.failures.append(failed)
        answered.rows.append(stills.Still(_shown(request), None))
        return request.result(made_with, None, str(error))
    if not frame.found:
        missed = NoFaceError("no face found", path=request.path, line=request.line.number)
        answered.failures.append(missed)
        answered.rows.append(stills.Still(_shown(request), None, False))
        return request.result(made_with, None, missed.problem)
    answered.rows.append(stills.Still.of(_shown(request), frame))
    return request.result(made_with, frame.action.text)


def _shown(request: Request) -> str:
    return printable(", ".join(request.line.images))


def _stopped(
    reader: Reader, requests: list[Request], answered: Answered, csv: Path | None
) -> Stopped:
    """Writes the rows so far beside the lines so far, and says where they are."""
    count = len(answered.rows)
    where = printable(answered.partial)
    if csv is not None and count:
        pairs = ((path, stills.index_path(path)) for path in files.partials(csv))
        path, index = next(pair for pair in pairs if not any(map(os.path.lexists, pair)))
        stills.write(reader, path, index, answered.rows)
        where += f" and {printable(path)}"
    return Stopped(f"kept are {count} of {len(requests)} results in {where}")


def _answer(reader: Reader, request: Request) -> Frame:
    """What the image of a request shows."""
    path = request.picture()
    picture, notes = images.read_noted(path)
    messages = request.line.messages if reader.model.instructed else None
    frame = reader.read(picture, messages)
    if read_whole(reader, frame):
        notes = [*notes, f"{printable(path)}: no face found, the whole picture was read"]
    for text in notes:
        note(text)
    return frame
