"""What a model says, read strictly: free text and 61 numbers, or an error that names the channel.

Three layouts are understood, with channel names in any convention of the table and in any order:

- "flat": the rationale as plain text or markdown, then `{"EyeBlinkLeft": 0.0, …}`; or the object
  first, and the rationale after it;
- "nested": `{"analysis": …, "arkit": {"EyeBlinkLeft": 0.0, …}}`;
- "keyframe": `{"Keyframe_one": {"EyeBlinkLeft": 0.0, …}}`.

A channel that is missing, unknown, given twice, out of range or no number is an error, and so is a
text that breaks off within its JSON. Nothing is ever filled in.

KeyframeFace's released example counts looking *up* as positive eye pitch, all else here counts
down: read such answers with `eye_pitch="up"`, which converts them.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sf_jax.face.channels import (
    CHANNELS,
    INDEX,
    NAMES,
    UnknownChannel,
    eye_pitch_disagrees,
    eye_pitch_downward,
    lookup,
)
from sf_jax.media import small_files
from sf_jax.media.errors import DataError

SYSTEM = ("system", "system_prompt")  # fields of a line that hold a system text; the first wins
READ = ("messages", "images", "response", *SYSTEM)


class AnswerError(DataError):
    """An answer that does not hold every channel exactly once and in range."""


@dataclass(frozen=True)
class Answer:
    """A complete answer.

    Attributes:
      coefficients: float32 [61] in canonical order, or [52], or of the names asked for, in their
        order.
      rationale: the text before or beside the coefficients, or after them where none comes before;
        "" where there is none.
      layout: "flat", "nested" or "keyframe".
      keyframe: the name of the keyframe, as in "Keyframe_one"; else None.
      notes: what is odd yet no error, one sentence each.
    """

    coefficients: np.ndarray
    rationale: str
    layout: str
    keyframe: str | None
    notes: list[str]


class _Pairs(list):
    """The members of a JSON object in order, names given twice included."""


def parse(
    answer: str | Mapping[str, Any],
    *,
    channels: int | Sequence[str] = 61,
    eye_pitch: str = "down",
) -> Answer:
    """Reads one answer.

    Args:
      answer: the text of a model, or the JSON object already decoded.
      channels: 61, or 52 for answers that hold the blendshapes without the nine angles, or the
        names of the channels that the model's schema has.
      eye_pitch: which way of looking the model counts as positive eye pitch, "down" or "up".

    Raises:
      AnswerError: names the channel at fault, what was found and what was expected.
    """
    asked = _asked(channels)
    if isinstance(answer, str):
        before, found, after = _only_object(answer)
    else:
        before, found, after = "", _pairs(answer), ""
        if not isinstance(found, _Pairs):
            raise AnswerError(f"the answer is {_start(str(answer))}, expected text or an object")
    layout, keyframe, members, analysis = _layout(found)
    coefficients = eye_pitch_downward(_coefficients(members, asked), eye_pitch)
    if not before:  # the answer of a model that generates its values first
        before, after = after, ""
    notes = ["text after the JSON was not read"] if after else []
    if eye_pitch_disagrees(coefficients):  # false where one of the channels is not known
        notes.append("eye pitch runs against EyeLookDown and EyeLookUp: of the other sign?")
    coefficients = coefficients[[INDEX[name] for name in asked]]
    rationale = "\n".join(part for part in (before, _text(analysis)) if part)
    return Answer(coefficients, rationale, layout, keyframe, notes)


def _asked(channels: int | Sequence[str]) -> tuple[str, ...]:
    """The canonical names of the channels that an answer is to hold."""
    if not isinstance(channels, int):
        return tuple(lookup(name).name for name in channels)
    if channels not in (52, 61):
        raise ValueError(f"an answer holds 61 or 52 channels, not {channels}")
    return NAMES[:channels]


_OPENING = re.compile(r'\{(?=\s*")')  # other braces are the prose's


def _only_object(text: str) -> tuple[str, _Pairs, str]:
    """The text before the one JSON object that holds channels, the object, the text after it."""
    decoder = json.JSONDecoder(object_pairs_hook=_Pairs)
    found = []
    opening = _OPENING.search(text)
    while opening:
        pairs, end = _decode(decoder, text, opening.start())
        if _holds_channels(pairs):
            found.append((opening.start(), pairs, end))
        opening = _OPENING.search(text, end)
    if len(found) != 1:
        count = "no JSON object" if not found else f"{len(found)} JSON objects"
        raise AnswerError(f"the answer holds {count} with channels, expected one: {_start(text)}")
    at, pairs, end = found[0]
    return _unfenced(text[:at]), pairs, _unfenced(text[end:])


def _decode(decoder: json.JSONDecoder, text: str, at: int) -> tuple[_Pairs, int]:
    try:
        found, end = decoder.raw_decode(text, at)
    except json.JSONDecodeError as error:
        near = text[max(at, error.pos - 40) : error.pos]
        raise AnswerError(
            f"the JSON of the answer breaks off or is malformed after {near!r}: {error.msg}"
        ) from error
    except (ValueError, RecursionError) as error:  # numbers and nesting beyond Python's limits
        raise AnswerError(f"the JSON of the answer cannot be read: {error}") from error
    if small_files.too_deep(found, 2 * small_files.MOST_DEPTH):  # a pair is a level of its own
        raise AnswerError("the JSON of the answer is nested too deeply")
    return found, end


def _unfenced(text: str) -> str:
    """Prose without the markdown fence that models put around JSON."""
    return text.strip().removesuffix("```json").removesuffix("```").removeprefix("```").strip()


def _start(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "…")


def _pairs(value: Any) -> Any:
    """Decoded JSON in the form in which text is decoded here."""
    if isinstance(value, Mapping):
        return _Pairs((str(name), _pairs(member)) for name, member in value.items())
    return value


def _is_keyframe(name: str) -> bool:
    return name.lower().startswith("keyframe")


def _is_channel(name: str) -> bool:
    try:
        lookup(name)
    except UnknownChannel:
        return False
    return True


def _holds_channels(pairs: _Pairs) -> bool:
    names = [name for name, _ in pairs]
    return any(x.lower() == "arkit" or _is_keyframe(x) or _is_channel(x) for x in names)


def _layout(pairs: _Pairs) -> tuple[str, str | None, _Pairs, Any]:
    """Layout, name of the keyframe, the members that hold channels, the analysis."""
    names = [name for name, _ in pairs]
    keyframes = [name for name in names if _is_keyframe(name)]
    if keyframes:
        if len(names) > 1:
            raise AnswerError(f"expected one keyframe and nothing else, found {', '.join(names)}")
        return "keyframe", names[0], _members(*pairs[0]), None
    if "arkit" not in [name.lower() for name in names]:
        return "flat", None, pairs, None
    parts = {name.lower(): value for name, value in pairs}
    if len(parts) < len(pairs) or not parts.keys() <= {"analysis", "arkit"}:
        raise AnswerError(f'expected "analysis" and "arkit" once, found {", ".join(names)}')
    return "nested", None, _members("arkit", parts["arkit"]), parts.get("analysis")


def _members(name: str, value: object) -> _Pairs:
    if not isinstance(value, _Pairs):
        raise AnswerError(f"{name!r} holds {_start(json.dumps(value))}, expected the channels")
    return value


def _coefficients(members: _Pairs, asked: Sequence[str]) -> np.ndarray:
    """float32 [61], NaN for channels that are not asked for."""
    values: dict[str, float] = {}
    for spelling, value in members:
        try:
            channel = lookup(spelling)
        except UnknownChannel as error:
            raise AnswerError(f"the answer holds an unknown channel: {error}") from error
        if channel.name not in asked:
            raise AnswerError(
                f"{channel.name} is given, but only the {len(asked)} were asked for",
                field=channel.name,
            )
        if channel.name in values:
            raise AnswerError(f"{channel.name} is given twice", field=channel.name)
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            raise AnswerError(f"{channel.name} is {_start(str(value))}, expected a number")
        if not channel.low <= value <= channel.high:  # NaN is in no range
            raise AnswerError(
                f"{channel.name} is {_start(str(value))}, expected {channel.low:g} to "
                f"{channel.high:g}"
            )
        values[channel.name] = float(value)
    missing = [name for name in asked if name not in values]
    if missing:
        named = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise AnswerError(f"{len(missing)} of {len(asked)} channels are missing: {named}")
    array = np.array([values.get(name, np.nan) for name in NAMES], np.float32)
    return array + np.float32(0)  # models write -0.0


def _text(analysis: object) -> str:
    """The analysis of a nested answer as lines of text, `field: words`."""
    if isinstance(analysis, _Pairs):
        return "\n".join(f"{name}: {_text(value)}" for name, value in analysis)
    if isinstance(analysis, list):
        return "; ".join(_text(value) for value in analysis)
    return "" if analysis is None else str(analysis)


def to_json(
    coefficients: np.ndarray,
    layout: str = "flat",
    decimals: int = 3,
    *,
    analysis: str | Mapping[str, Any] | None = None,
    keyframe: str = "Keyframe_one",
) -> str:
    """Writes [61] or [52] coefficients as one line of JSON that `parse` reads.

    Args:
      coefficients: in canonical order, each within its channel's range.
      layout: "flat", "nested" or "keyframe".
      decimals: of every value; SemanticFace writes one and asks for three.
      analysis: the words of the nested layout.
      keyframe: the name in the keyframe layout.

    Raises:
      AnswerError: the shape is another, or a value is NaN or out of range; names the channel.
    """
    values = np.asarray(coefficients, np.float64)
    if values.shape not in ((61,), (52,)):
        raise AnswerError(f"coefficients of shape {values.shape}, expected [61] or [52]")
    members = []
    for channel, value in zip(CHANNELS, values.tolist(), strict=False):
        if not channel.low <= value <= channel.high:
            raise AnswerError(
                f"{channel.name} is {value:g}, expected {channel.low:g} to {channel.high:g}"
            )
        members.append(f'"{channel.name}": {value:z.{decimals}f}')  # "z": no negative zero
    flat = "{" + ", ".join(members) + "}"
    if layout == "flat":
        return flat
    if layout == "nested":
        words = json.dumps("" if analysis is None else analysis, ensure_ascii=False)
        return f'{{"analysis": {words}, "arkit": {flat}}}'
    if layout == "keyframe":
        return f"{{{json.dumps(keyframe)}: {flat}}}"
    raise ValueError(f"the layout is 'flat', 'nested' or 'keyframe', not {layout!r}")


@dataclass(frozen=True)
class Line:
    """One line of an MS-SWIFT file, a request, a training example or a result.

    Attributes:
      number: of the line in its file, from 1.
      messages: each with "role" and "content", without the assistant's answer; a system text that
        the line has beside its messages is the first of them.
      images: paths as written.
      response: the text answered, by the model or as the example to learn; None for a request.
      others: all fields but those that the above are read from.
    """

    number: int
    messages: list[dict[str, Any]]
    images: list[str]
    response: str | None
    others: dict[str, Any]


def read_lines(path: str | Path) -> Iterator[Line]:
    """Reads MS-SWIFT JSONL line by line; empty lines are skipped.

    Raises:
      AnswerError: a line is no such record; names file and line.
      OSError: the file cannot be opened.
    """
    try:
        for number, text in small_files.lines(path, AnswerError):
            yield read_line(number, text)
    except AnswerError as error:
        error.at(path=path)
        raise


def read_line(number: int, text: str | bytes) -> Line:
    """Reads one line of MS-SWIFT JSONL.

    Raises:
      AnswerError: it is no such record; names the line by `number`, and the field.
    """
    try:
        record = small_files.parse_json(text, AnswerError)
    except AnswerError as error:
        error.at(line=number)
        raise
    if not isinstance(record, dict) or not record.keys() & {"messages", "response"}:
        raise AnswerError('expected an object with "messages" or "response"', line=number)
    messages = record.get("messages") or []
    if not isinstance(messages, list) or not all(isinstance(x, dict) for x in messages):
        raise AnswerError('"messages" is no list of objects', line=number, field="messages")
    response = record.get("response")
    if messages and messages[-1].get("role") == "assistant":
        *messages, last = messages
        response = last.get("content") if response is None else response
    if response is not None and not isinstance(response, str):
        problem = f'"response" is {_start(str(response))}, expected text'
        raise AnswerError(problem, line=number, field="response")
    messages = _with_system(number, messages, record)
    images = _images(number, record.get("images") or [])
    others = {name: value for name, value in record.items() if name not in READ}
    return Line(number, messages, images, response, others)


def _with_system(
    number: int, messages: list[dict[str, Any]], record: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The messages after the line's own system text, if there is one and they do not begin so.

    As MS-SWIFT's `MessagesPreprocessor.to_std_messages` has it: a system message among the messages
    comes before the field.
    """
    field = next((name for name in SYSTEM if name in record), None)
    system = None if field is None else record[field]
    if system is not None and not isinstance(system, str):
        problem = f'"{field}" is {small_files.shown(system)}, expected text'
        raise AnswerError(problem, line=number, field=field)
    if not messages or not system or messages[0].get("role") == "system":
        return messages
    return [{"role": "system", "content": system}, *messages]


def _images(number: int, images: object) -> list[str]:
    """Paths, given as such or as `{"bytes": null, "path": …}`."""
    images = images if isinstance(images, list) else [images]
    paths: list[Any] = [image.get("path") if isinstance(image, dict) else image for image in images]
    if not all(isinstance(path, str) for path in paths):
        problem = f'"images" holds {_start(str(images))}, expected paths'
        raise AnswerError(problem, line=number, field="images")
    return paths


@dataclass(frozen=True)
class Result:
    """A line and its answer, or the error that says why there is none."""

    line: Line
    answer: Answer | None
    error: AnswerError | None


def read_results(
    path: str | Path, *, channels: int = 61, eye_pitch: str = "down", strict: bool = True
) -> list[Result]:
    """Reads the answers of an MS-SWIFT result or training file, one result a line and in order.

    With `strict=False` a line whose answer is at fault stays in the list with its error, so that no
    later line takes its place.

    Raises:
      AnswerError: a line is no record, or an answer is at fault; names file, line and channel.
    """
    results = []
    for line in read_lines(path):
        try:
            if line.response is None:
                raise AnswerError("no response and no assistant's message: a request?")
            answer = parse(line.response, channels=channels, eye_pitch=eye_pitch)
            results.append(Result(line, answer, None))
        except AnswerError as fault:
            fault.at(path=path, line=line.number)
            if strict:
                raise
            results.append(Result(line, None, fault))
    return results
