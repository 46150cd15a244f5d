"""Judgements as JSON lines, out and in, and as a preference dataset in TRL's format.

A line of judgements has the fields of `Judgement` and the hashes of all that was seen: the image,
both renders, the rig, and the weights of the model that answered. Importing checks them against the
folder, so that a judgement never becomes one of other pictures.

TRL's preference format, conversational and with images, has `prompt`, `chosen`, `rejected` and
`images`; paths of images are relative to the folder. The fields of the judgement are beside them,
so that such a file can be imported too, and `region`, since TRL compares whole answers.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import xxhash
from pydantic import Field, StringConstraints, field_validator

from sf_jax.face.channels import NAMES
from sf_jax.media import files, small_files
from sf_jax.media.errors import DataError
from sf_jax.reader.question import NUMBERS_ONLY
from sf_jax.systems.superface.database import MOST_SECONDS, StoreError
from sf_jax.systems.superface.folder import IMAGES, Hash, PairFolder, owns
from sf_jax.systems.superface.pairs import Candidate, Choice, Judgement, Pair, Side, shortest
from sf_jax.systems.superface.store import (
    JudgementStore,
    annotator_name,
)

TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$"


class ExchangeError(StoreError):
    """A file of judgements that cannot be imported."""


class _Line(small_files.Settings):
    pair: Hash
    annotator: str
    choice: Choice
    seconds: Annotated[float, Field(ge=0, le=MOST_SECONDS)]
    left: Side
    repeat: bool
    gold: bool
    at: Annotated[str, StringConstraints(pattern=TIME)]
    image: Hash
    first: Hash
    second: Hash
    rig: str
    weights: str
    chosen: Any = None  # of a line in TRL's format, as is the next
    rejected: Any = None

    @field_validator("annotator")
    @classmethod
    def _named(cls, text: str) -> str:
        try:
            return annotator_name(text)
        except StoreError as error:
            raise ValueError(error.problem) from None

    @field_validator("at")
    @classmethod
    def _a_time(cls, text: str) -> str:
        datetime.fromisoformat(text)  # its ValueError says what is wrong
        return text


@dataclass(frozen=True)
class Imported:
    """What an import did: how many judgements were added, and how many were there already."""

    added: int
    there: int


def hashes_of(pair: Pair) -> dict[str, str]:
    """The hashes of what a judgement of a pair saw: image, renders, rig and weights."""
    return {
        "image": pair.image,
        "first": pair.first.render,
        "second": pair.second.render,
        "rig": pair.rig,
        "weights": pair.weights,
    }


def export_judgements(store: JudgementStore, path: str | os.PathLike) -> int:
    """Writes all judgements that count as JSON lines, complete or not at all.

    Returns:
      How many.

    Raises:
      ExchangeError: the file is one of the folder's own, or no earlier export.
      StoreError: the database is damaged.
      OSError: the file cannot be written.
    """
    found = store.judgements()
    lines = (asdict(one) | hashes_of(store.pairs[one.pair]) for one in found)
    _write(store.folder, path, lines)
    return len(found)


def import_judgements(store: JudgementStore, path: str | os.PathLike) -> Imported:
    """Adds the judgements of a file of JSON lines, all of them or none.

    Judgements that the database has already are left alone, so that importing again is harmless.

    Raises:
      ExchangeError: a line is damaged, of an unknown pair or of other pictures, or contradicts a
        judgement that is there; names file, line and field.
      DiskError: the disk is full.
      OSError: the file cannot be read.
    """
    added = there = 0
    with store.together():
        for line, text in small_files.lines(path, ExchangeError):
            try:
                judgement = _judgement(store, small_files.parse_json(text, ExchangeError))
                if store.add(_id(judgement), judgement):
                    added += 1
                else:
                    there += 1
            except DataError as error:
                if error.path is not None and os.fspath(error.path) == os.fspath(
                    store.folder.judgements
                ):
                    raise  # of the database, not of the line
                raise ExchangeError.of(error, path=path, line=line) from error
    return Imported(added, there)


def export_trl(store: JudgementStore, path: str | os.PathLike) -> int:
    """Writes a line for each judgement that prefers a candidate, in TRL's preference format.

    Ties, pairs that were unclear, repeats and gold pairs are left out.

    Returns:
      How many lines.

    Raises:
      ExchangeError: the file is one of the folder's own, or no earlier export.
      StoreError: the database is damaged.
      OSError: the file cannot be written.
    """
    lines = [
        _preference(store.folder, store.pairs[one.pair], one)
        for one in store.judgements()
        if one.choice in ("first", "second") and not (one.repeat or one.gold)
    ]
    _write(store.folder, path, iter(lines))
    return len(lines)


def _judgement(store: JudgementStore, content: object) -> Judgement:
    """The judgement of a line.

    Raises:
      DataError: a field is damaged, the pair unknown, or its pictures others.
    """
    line = small_files.checked(_Line, content, ExchangeError)
    pair = store.pairs.get(line.pair)
    if pair is None:
        problem = f"{line.pair} is not among the pairs of {store.folder.path}"
        raise ExchangeError(problem, field="pair")
    for field, digest in hashes_of(pair).items():
        found = getattr(line, field)
        if found != digest:
            problem = f"found {found}, expected {digest}: something else was judged there"
            raise ExchangeError(problem, field=field)
    if line.gold != (pair.gold is not None):
        raise ExchangeError("is not as in the list of pairs", field="gold")
    judgement = Judgement(**line.model_dump(include=set(Judgement.__dataclass_fields__)))
    if line.chosen is not None or line.rejected is not None:
        _check_answers(line, pair, judgement)
    return judgement


def _check_answers(line: _Line, pair: Pair, judgement: Judgement) -> None:
    """Raises where a line in TRL's format prefers another answer than its judgement."""
    if judgement.choice not in ("first", "second"):
        problem = f"{judgement.choice!r} prefers none, but there are chosen and rejected"
        raise ExchangeError(problem, field="choice")
    for name, answer in _answers(pair, judgement).items():
        if getattr(line, name) != answer:
            raise ExchangeError("is not the answer that the judgement means", field=name)


def _id(judgement: Judgement) -> str:
    """The id of an imported judgement, the same whenever it is imported."""
    return xxhash.xxh3_128_hexdigest(json.dumps(asdict(judgement), sort_keys=True).encode())


def _preference(folder: PairFolder, pair: Pair, judgement: Judgement) -> dict[str, Any]:
    question = [{"type": "image"}, {"type": "text", "text": NUMBERS_ONLY}]
    return {
        "images": [f"{IMAGES}/{pair.image}.png"],
        "prompt": [{"role": "user", "content": question}],
        **_answers(pair, judgement),
        "region": pair.region,
        **asdict(judgement),
        **hashes_of(pair),
    }


def _answers(pair: Pair, judgement: Judgement) -> dict[str, list[dict[str, Any]]]:
    """Both answers of a judgement that prefers one, as conversations."""
    chosen, rejected = pair.first, pair.second
    if judgement.choice == "second":
        chosen, rejected = rejected, chosen
    return {"chosen": _answer(chosen), "rejected": _answer(rejected)}


def _answer(candidate: Candidate) -> list[dict[str, Any]]:
    values = dict(zip(NAMES, shortest(candidate.coefficients), strict=True))
    return [{"role": "assistant", "content": [{"type": "text", "text": json.dumps(values)}]}]


def _write(folder: PairFolder, path: str | os.PathLike, lines: Iterator[dict[str, Any]]) -> None:
    _check_replaceable(folder, Path(path))
    with files.stream(path) as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")


def _check_replaceable(folder: PairFolder, path: Path) -> None:
    """Raises where an export would replace anything but an earlier one."""
    if path.is_dir():
        raise ExchangeError("is a folder; name a file in it", path=path)
    inside, own = path.resolve(), folder.path.resolve()
    if inside.is_relative_to(own) and owns(inside.relative_to(own)):
        raise ExchangeError("belongs to the folder of pairs; name another file", path=path)
    if not path.exists():
        return
    try:
        number, first = next(small_files.lines(path, ExchangeError), (0, b"{}"))
        found = small_files.parse_json(first, ExchangeError)
        earlier = not number or (isinstance(found, dict) and found.keys() >= {"pair", "choice"})
    except ExchangeError:
        earlier = False
    if not earlier:
        problem = "is there, and no earlier export; name another file, or remove it"
        raise ExchangeError(problem, path=path)


EXPORTS = {"judgements": export_judgements, "trl": export_trl}
