"""A folder of pairs to judge: what `sf-jax data pairs` writes and `sf-jax annotate` shows.

    pairs.jsonl             a header line, then a pair a line
    images/IMAGE.png        the images, named by `pairs.image_hash`
    renders/RENDER.png      both candidates of each pair, named by `pairs.render_name`
    judgements.sqlite       made by the annotation page

`pairs.jsonl` is written last and as a whole, so that every pair in it has its images.
"""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import UInt8
from pydantic import Field, StringConstraints

from sf_jax.face.regions import Region
from sf_jax.media import files, images, locks, small_files
from sf_jax.media.errors import DataError
from sf_jax.systems.superface.pairs import (
    SIDES,
    Candidate,
    Pair,
    Side,
    image_hash,
    key_of,
    shortest,
)

PAIRS, IMAGES, RENDERS, JUDGEMENTS = "pairs.jsonl", "images", "renders", "judgements.sqlite"
FORMAT, VERSION = "sf_jax pairs", 1
LOCK = ".pairs.lock"
SAVED_EVERY = 500  # pairs: writing the list takes about as long as rendering a few

Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]


def owns(name: PurePath) -> bool:
    """Whether a path within a folder of pairs is one of its own files, or of its database's."""
    first = name.parts[0] if name.parts else ""
    return first in (PAIRS, IMAGES, RENDERS) or first.startswith((JUDGEMENTS, "."))


class FolderError(DataError):
    """A folder of pairs that is damaged or cannot be used."""


@dataclass(frozen=True)
class Header:
    """What all pairs of a folder have in common, for people.

    Attributes:
      model: name of the model that answered first.
      rig: name of the rig.
      size: of a side of the renders, pixels.
    """

    model: str
    rig: str
    size: int


class _Header(small_files.Settings):
    format: str
    version: int
    model: str
    rig: str
    size: Annotated[int, Field(ge=1)]
    pairs: int


class _Candidate(small_files.Settings):
    coefficients: list[float]
    origin: str
    render: Hash


class _Pair(small_files.Settings):
    key: Hash
    image: Hash
    region: Region
    first: _Candidate
    second: _Candidate
    difference: float
    rig: Hash
    weights: str
    pose: Annotated[list[float], Field(min_length=3, max_length=3)]
    gold: Literal["first", "second"] | None = None


@dataclass(frozen=True)
class PairFolder:
    """A folder that was read; images are read when asked for."""

    path: Path
    header: Header
    pairs: tuple[Pair, ...]

    @property
    def judgements(self) -> Path:
        """The database of the annotation page, which may not exist yet."""
        return self.path / JUDGEMENTS

    def image_path(self, pair: Pair) -> Path:
        """The image of a pair."""
        return self.path / IMAGES / f"{pair.image}.png"

    def render_path(self, pair: Pair, side: Side) -> Path:
        """The render of a pair's first or second candidate, its region outlined."""
        return self.path / RENDERS / f"{pair.side(side).render}.png"

    def image(self, pair: Pair) -> UInt8[np.ndarray, "H W 3"]:
        """The image of a pair.

        Raises:
          FolderError: it is missing, damaged, or another than the pair's.
        """
        path = self.image_path(pair)
        found = _read(path)
        if image_hash(found) != pair.image:
            raise FolderError("is another image than the pairs name; its pixels differ", path=path)
        return found

    def render(self, pair: Pair, side: Side) -> UInt8[np.ndarray, "S S 3"]:
        """The render of a pair's first or second candidate.

        Raises:
          FolderError: it is missing or damaged.
        """
        return _read(self.render_path(pair, side))

    def check_files(self) -> None:
        """Raises FolderError where an image or render of a pair is missing."""
        for pair in self.pairs:
            paths = [self.image_path(pair), *(self.render_path(pair, side) for side in SIDES)]
            for path in paths:
                if not path.is_file():
                    raise FolderError(f"is missing; pair {pair.key} shows it", path=path)


class Filling:
    """A folder that pairs are added to; see `filling`."""

    def __init__(self, path: Path, header: Header, pairs: Iterable[Pair]):
        self._path, self._header = path, header
        self._pairs = {pair.key: pair for pair in pairs}
        self._saved: int | None = None

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Those that were there and those that were added."""
        return tuple(self._pairs.values())

    def add(
        self,
        pair: Pair,
        image: UInt8[np.ndarray, "H W 3"],
        first: UInt8[np.ndarray, "S S 3"],
        second: UInt8[np.ndarray, "S S 3"],
    ) -> bool:
        """Adds a pair with its image and the renders of both candidates.

        Returns:
          False where the folder has the pair already.

        Raises:
          OSError: a file cannot be written.
        """
        if pair.key in self._pairs:
            return False
        self._save(self._path / IMAGES / f"{pair.image}.png", image)
        for candidate, render in ((pair.first, first), (pair.second, second)):
            self._save(self._path / RENDERS / f"{candidate.render}.png", render)
        self._pairs[pair.key] = pair
        if len(self._pairs) - (self._saved or 0) >= SAVED_EVERY:
            self.save()
        return True

    def save(self) -> None:
        """Replaces the list of pairs by one with those that were added.

        Raises:
          OSError: it cannot be written.
        """
        if self._saved != len(self._pairs):
            _write(self._path / PAIRS, self._header, self.pairs)
            self._saved = len(self._pairs)

    def _save(self, path: Path, image: np.ndarray) -> None:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_bytes(path, images.encode_png(image))


@contextmanager
def filling(path: str | os.PathLike, header: Header) -> Iterator[Filling]:
    """Adds pairs to a folder, which is made where there is none.

    The list of pairs is replaced now and then and at the end of the block, also where that fails or
    is interrupted: pairs whose images are complete are kept. Judgements are left alone.

    Raises:
      FolderError: the folder has pairs of another rig or size, or is damaged.
      BusyError: another process adds to it.
      OSError: a file cannot be written.
    """
    path = Path(path)
    with locks.held(path, LOCK):
        found = read(path) if (path / PAIRS).exists() else None
        if found is not None and (found.header.rig, found.header.size) != (header.rig, header.size):
            there = f"rig {found.header.rig!r} at {found.header.size} pixels"
            problem = f"the folder has pairs of {there}; name another folder"
            raise FolderError(problem, path=path / PAIRS)
        if found is not None:
            header = found.header
        adding = Filling(path, header, () if found is None else found.pairs)
        before = len(adding.pairs)
        try:
            yield adding
        except BaseException:
            if len(adding.pairs) > before:
                with suppress(OSError):  # the error of the block is the one to report
                    adding.save()
            raise
        adding.save()


def read(path: str | os.PathLike) -> PairFolder:
    """The pairs of a folder; see `PairFolder.check_files` about its images.

    Raises:
      FolderError: there are none, or a line is damaged; names file, line and field.
    """
    folder = Path(path)
    file = folder / PAIRS
    if not file.is_file():
        problem = "no such file; `sf-jax data pairs` makes a folder with one"
        raise FolderError(problem, path=file)
    header: _Header | None = None
    found: dict[str, Pair] = {}
    for line, text in small_files.lines(file, FolderError):
        try:
            content = small_files.parse_json(text, FolderError)
            if header is None:
                header = _header(content)
                continue
            pair = _pair(content)
            if pair.key in found:
                raise FolderError("a pair is given twice", field="key")
            found[pair.key] = pair
        except DataError as fault:
            raise fault.at(path=file, line=line) from None
    if header is None:
        raise FolderError("is empty", path=file)
    if header.pairs != len(found):
        problem = f"holds {len(found)} pairs, expected {header.pairs}: the file is cut off"
        raise FolderError(problem, path=file)
    return PairFolder(folder, Header(header.model, header.rig, header.size), tuple(found.values()))


def _header(content: object) -> _Header:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FolderError(f"is no list of pairs: expected a first line of format {FORMAT!r}")
    header = small_files.checked(_Header, content, FolderError)
    if header.version != VERSION:
        problem = (
            f"found {header.version}, expected {VERSION}: written by another version of sf_jax"
        )
        raise FolderError(problem, field="version")
    return header


def _pair(content: object) -> Pair:
    stored = small_files.checked(_Pair, content, FolderError)
    yaw, pitch, roll = stored.pose
    pair = Pair(
        image=stored.image,
        region=stored.region,
        first=_candidate(stored.first, "first"),
        second=_candidate(stored.second, "second"),
        difference=stored.difference,
        rig=stored.rig,
        weights=stored.weights,
        pose=(yaw, pitch, roll),
        gold=stored.gold,
        key=stored.key,
    )
    if key_of(pair) != pair.key:
        raise FolderError("does not belong to the pair: the line was changed", field="key")
    return pair


def _candidate(stored: _Candidate, field: str) -> Candidate:
    try:
        return Candidate(np.array(stored.coefficients), stored.origin, stored.render)
    except ValueError as fault:
        raise FolderError(str(fault), field=field) from None


def _write(path: Path, header: Header, pairs: tuple[Pair, ...]) -> None:
    first = {"format": FORMAT, "version": VERSION, **vars(header), "pairs": len(pairs)}
    lines = [first, *map(_stored, pairs)]
    files.write_text(path, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))


def _stored(pair: Pair) -> dict[str, Any]:
    fields = {**vars(pair), "pose": shortest(pair.pose)}
    for side in SIDES:
        candidate = pair.side(side)
        fields[side] = {**vars(candidate), "coefficients": shortest(candidate.coefficients)}
    return fields


def _read(path: Path) -> np.ndarray:
    try:
        return images.read_image(path)
    except images.ImageError as fault:
        raise FolderError.of(fault, path=path) from None
