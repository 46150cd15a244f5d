"""Packed rows: several examples share a row, and each batch is the same on any number of processes.

Each row of the global batch has a stream of its own. With R rows, stream r runs through examples
r, r + R, r + 2R, … without end. It keeps a pool of pending examples and makes one row a step: the
oldest of them, and those others that fill the row best. A row thus depends on its stream alone,
whichever process makes it, and the state of a stream is a few example numbers.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import grain.python as grain
import numpy as np

from data_pipelines import records
from data_pipelines.loader import RecordSource
from sf_jax.convert.processor import ImageProcessor
from sf_jax.face import answers
from sf_jax.model import vision
from sf_jax.model.config import Config, VisionConfig
from sf_jax.model.vlm import mrope_positions
from sf_jax.sequence.chat import chat_text
from sf_jax.sequence.rows import Rows, prompt_ids
from sf_jax.sequence.tokenizer import BLANK_LINE, CONTROL, IM_END, Tokenizer
from sf_jax.systems.semanticface.sequences import Sequences


@dataclass(frozen=True, eq=False)
class Example:
    """One conversation about pictures, as tokens.

    Attributes:
      number: which example this is; it alone determines the rest.
      where: the file and record it was made from, for messages.
      tokens: int32 [T]; targets: int32 [T], the tokens to predict, those of `tokens` unless the
        inputs were corrupted on purpose.
      loss_weights: float32 [T], weight of predicting the token at each place; 0 over the prompt.
      pictures: uint8 [H, W, 3] each, in the order of their image tokens.
    """

    number: int
    where: str
    tokens: np.ndarray
    targets: np.ndarray
    loss_weights: np.ndarray
    pictures: list[np.ndarray]

    def __post_init__(self) -> None:
        if not 0 < len(self.tokens) == len(self.targets) == len(self.loss_weights):
            raise ValueError(
                f"{self.where}: {len(self.tokens)} tokens, {len(self.targets)} targets and "
                f"{len(self.loss_weights)} loss weights, expected as many of each"
            )
        if self.loss_weights[0]:  # in a packed row another example stands before it
            raise ValueError(f"{self.where}: the first token follows nothing; its weight must be 0")


def choose(sizes: Sequence[tuple[int, int]], length: int, patch_count: int) -> list[int]:
    """Which examples make a row: the first, and those others that fill it best.

    Best are the most tokens, then the most patches, then the older examples: the first that can be
    in such a row is in it, then the next, and so on. The search is exact.

    Args:
      sizes: (tokens, patches) of each example, oldest first. The first one fits a row.

    Returns:
      Their indices, ascending.
    """
    first_tokens, first_patches = sizes[0]
    room, patch_room = length - first_tokens, patch_count - first_patches
    within = (1 << (room + 1)) - 1
    # Item i: sums of the last i examples. For each number of patches an integer, whose bit t tells
    # whether t tokens go with it.
    sums: list[dict[int, int]] = [{0: 1}]
    for tokens, patches in reversed(sizes[1:]):
        grown = dict(sums[-1])
        for patch_sum, token_sums in sums[-1].items():
            moved = token_sums << tokens & within
            if moved and patch_sum + patches <= patch_room:
                grown[patch_sum + patches] = grown.get(patch_sum + patches, 0) | moved
        sums.append(grown)
    room, patch_room = max((bits.bit_length() - 1, at) for at, bits in sums[-1].items())
    chosen = [0]
    for index, (tokens, patches) in enumerate(sizes[1:], 1):
        behind = sums[len(sizes) - 1 - index].get(patch_room - patches, 0)
        if tokens <= room and behind >> (room - tokens) & 1:
            chosen.append(index)
            room, patch_room = room - tokens, patch_room - patches
    return chosen


def example_size(
    example: Example, config: VisionConfig, length: int, patch_count: int
) -> tuple[int, int]:
    """Tokens and patches of an example.

    Raises:
      ValueError: it is larger than a row, or the sides of a picture do not fit the patch grid.
    """
    side = config.patch_size * config.spatial_merge_size
    for picture in example.pictures:
        if picture.shape[0] % side or picture.shape[1] % side:
            raise ValueError(
                f"{example.where}: a picture of {picture.shape[0]} x {picture.shape[1]} pixels, "
                f"expected multiples of {side}"
            )
    pixels = sum(picture.shape[0] * picture.shape[1] for picture in example.pictures)
    tokens, patches = len(example.tokens), pixels // config.patch_size**2
    if tokens > length or patches > patch_count:
        raise ValueError(
            f"{example.where}: an example of {tokens} tokens and {patches} patches exceeds rows of "
            f"{length} tokens and {patch_count} patches"
        )
    return tokens, patches


def assemble(
    examples: Sequence[Sequence[Example]], config: Config, length: int, patch_count: int
) -> dict[str, Any]:
    """Rows of examples that fit them → {"patches", "rows", "targets"}.

    The tokens of a row carry the number of their example within it, from 1, and its patches that of
    their picture. Positions are those of each example by itself.

    Raises:
      ValueError: the image tokens of an example do not fit its pictures.
    """
    batch, merge = len(examples), config.vision.spatial_merge_size
    side = config.vision.patch_size * merge
    rows = Rows(
        input_ids=np.zeros((batch, length), np.int32),
        positions=np.zeros((3, batch, length), np.int32),
        segments=np.zeros((batch, length), np.int32),
        image_places=np.full((batch, patch_count // merge**2), length, np.int32),
        loss_weights=np.zeros((batch, length), np.float32),
    )
    targets = np.zeros((batch, length), np.int32)
    for row, packed in enumerate(examples):
        end = 0
        for segment, example in enumerate(packed, 1):
            at = slice(end, end := end + len(example.tokens))
            grids = [(p.shape[0] // side, p.shape[1] // side) for p in example.pictures]
            try:
                rows.positions[:, row, at] = mrope_positions(example.tokens, grids, config)
            except ValueError as error:
                raise ValueError(f"{example.where}: {error}") from error
            rows.input_ids[row, at], targets[row, at] = example.tokens, example.targets
            rows.loss_weights[row, at], rows.segments[row, at] = example.loss_weights, segment
        image = np.flatnonzero(rows.input_ids[row, :end] == config.image_token_id)
        rows.image_places[row, : len(image)] = image
    pictures = [[picture for one in packed for picture in one.pictures] for packed in examples]
    return {
        "patches": _patches(pictures, config.vision, patch_count),
        "rows": rows,
        "targets": targets,
    }


def _patches(
    pictures: list[list[np.ndarray]], config: VisionConfig, patch_count: int
) -> vision.Patches:
    """The patches of each row's pictures, one picture after another."""
    shape = (len(pictures), patch_count)
    patches = vision.Patches(
        pixels=np.zeros((*shape, config.patch_width), np.float32),
        segments=np.zeros(shape, np.int32),
        rows=np.zeros(shape, np.int32),
        columns=np.zeros(shape, np.int32),
        position_ids=np.zeros((*shape, 4), np.int32),
        position_weights=np.zeros((*shape, 4), np.float32),
    )
    side = config.patch_size
    for row, shown in enumerate(pictures):
        end = 0
        for number, picture in enumerate(shown, 1):
            height, width = picture.shape[0] // side, picture.shape[1] // side
            at = row, slice(end, end := end + height * width)
            for name, values in _grid_positions(height, width, config).items():
                getattr(patches, name)[at] = values
            patches.pixels[at] = vision.patchify(
                picture, side, config.spatial_merge_size, config.temporal_patch_size
            )
            patches.segments[at] = number
    return patches


@lru_cache(64)
def _grid_positions(height: int, width: int, config: VisionConfig) -> dict[str, np.ndarray]:
    return vision.grid_positions(height, width, config)


@dataclass(frozen=True, eq=False)
class _Stream:
    """Where a stream stands: the number of the next example to draw, and those not yet in a row."""

    following: int
    pending: tuple[Example, ...] = ()


class PackedBatches:
    """An endless iterator over batches of packed rows, with `get_state` and `set_state`.

    A batch is {"patches": Patches, "rows": Rows, "targets": int32 [B, T]} of numpy arrays, the rows
    in the order of `rows`. The next one is made in a thread while a batch is in use; `get_state`,
    `examples` and `waste` are about those handed out. An error in making a batch is raised by the
    call that would hand it out, and again by each call after it.

    Attributes:
      source: example number → example. The same number always gives the same example, and it is
        made anew where a state is restored.
      examples: numbers of the examples in each row of the batch handed out last, in order;
        `source(number).where` names one.
    """

    def __init__(
        self,
        source: Callable[[int], Example],
        config: Config,
        *,
        row_count: int,
        length: int,
        patch_count: int,
        rows: Sequence[int] | None = None,
        pool: int = 32,
        pack: bool = True,
    ):
        """Starts at the first examples.

        Args:
          row_count: rows of the global batch.
          length: tokens a row; patch_count: patches a row.
          rows: those rows of the global batch that this process makes; None means all.
          pool: examples of each row's stream to choose from, held with their pictures; a row fills
            up where there are about twice as many as fit it.
          pack: whether examples share rows; else each has a row to itself.

        Raises:
          ValueError: a row is not one of the global batch, or given twice; the patches of a row do
            not make whole tokens; the pool is empty.
        """
        self.rows = list(range(row_count) if rows is None else rows)
        if len(set(self.rows)) < len(self.rows) or not set(self.rows) <= set(range(row_count)):
            raise ValueError(f"rows are {self.rows}, expected different ones below {row_count}")
        if patch_count % config.vision.spatial_merge_size**2:
            raise ValueError(f"{patch_count} patches do not make whole tokens")
        if pool < 1:
            raise ValueError(f"pool is {pool}, expected 1 or more")
        self.source, self.config, self.row_count = source, config, row_count
        self.length, self.patch_count = length, patch_count
        self.pool, self.pack = pool if pack else 1, pack
        self.examples: list[list[int]] = []
        self._streams = [_Stream(row) for row in self.rows]
        self._worker = ThreadPoolExecutor(1, "packing")
        self._ahead: Future | None = None
        self._filled, self._places = np.zeros(2, np.int64), np.zeros(2, np.int64)

    def __iter__(self) -> "PackedBatches":
        return self

    def __next__(self) -> dict[str, Any]:
        ahead = self._ahead or self._worker.submit(self._made, self._streams)
        self._ahead = None
        batch, self.examples, self._streams = ahead.result()
        self._ahead = self._worker.submit(self._made, self._streams)
        for i, segments in enumerate((batch["rows"].segments, batch["patches"].segments)):
            self._filled[i] += np.count_nonzero(segments)
            self._places[i] += segments.size
        return batch

    @property
    def waste(self) -> tuple[float, float]:
        """Share of padding among the token places, and among the patch places, of this process."""
        tokens, patches = 1 - self._filled / np.maximum(self._places, 1)
        return (float(tokens), float(patches)) if self._places.all() else (0.0, 0.0)

    def get_state(self) -> dict[str, Any]:
        """Where the batch handed out last has left this process's streams, as JSON can hold it.

        {"row_count": R, "streams": {"r": {"next": number, "pending": [numbers]}}}. The streams of
        several processes may be put together into one state, for any other split of the rows.
        """
        streams = {
            str(row): {"next": stream.following, "pending": [e.number for e in stream.pending]}
            for row, stream in zip(self.rows, self._streams, strict=True)
        }
        return {"row_count": self.row_count, "streams": streams}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on from a state, which may hold more streams than this process has.

        Raises:
          ValueError: the state is of another number of rows, or lacks some of this process's.
        """
        if state["row_count"] != self.row_count:
            raise ValueError(
                f"the state is of {state['row_count']} rows a global batch, here are "
                f"{self.row_count}: give as many, or begin in another directory"
            )
        missing = [row for row in self.rows if str(row) not in state["streams"]]
        if missing:
            raise ValueError(f"the state lacks the streams of rows {missing}")
        if self._ahead is not None:
            wait([self._ahead])
            self._ahead = None
        found = [state["streams"][str(row)] for row in self.rows]
        self._streams = [
            _Stream(stream["next"], tuple(map(self.source, stream["pending"]))) for stream in found
        ]

    def _made(
        self, streams: list[_Stream]
    ) -> tuple[dict[str, Any], list[list[int]], list[_Stream]]:
        """The batch behind `streams`, its example numbers, and the streams behind it."""
        made = [self._row(stream) for stream in streams]
        batch = assemble([row for row, _ in made], self.config, self.length, self.patch_count)
        numbers = [[example.number for example in row] for row, _ in made]
        return batch, numbers, [stream for _, stream in made]

    def _row(self, stream: _Stream) -> tuple[list[Example], _Stream]:
        """A stream's next row, and the stream behind it."""
        pending, following = list(stream.pending), stream.following
        while len(pending) < self.pool:
            pending.append(self.source(following))
            following += self.row_count
        limits = self.length, self.patch_count
        sizes = [example_size(example, self.config.vision, *limits) for example in pending]
        chosen = choose(sizes, *limits) if self.pack else [0]
        left = [example for i, example in enumerate(pending) if i not in chosen]
        return [pending[i] for i in chosen], _Stream(following, tuple(left))


class ShuffledRecords:
    """Face records by number, without end: every epoch holds each of them once, in a new order."""

    def __init__(self, directory: str | os.PathLike, seed: int = 0):
        """Raises RecordError where there are no record files, or a damaged one."""
        self._source = RecordSource(records.files(directory))
        self._order = grain.MapDataset.range(len(self._source)).seed(seed).shuffle().repeat()

    def __call__(self, number: int) -> tuple[str, dict[str, Any]]:
        """The file and record in it, and the record.

        Raises:
          RecordError: it is damaged.
        """
        index = int(self._order[number])
        return "{}, record {}".format(*self._source.place(index)), self._source[index]

    def places(self, numbers: Iterable[int]) -> str:
        """Where the records of these numbers lie, in words."""
        by_file: dict[str, list[int]] = {}
        for number in numbers:
            file, record = self._source.place(int(self._order[number]))
            by_file.setdefault(file, []).append(record)
        return "; ".join(f"{file}, records {sorted(found)}" for file, found in by_file.items())


@dataclass(frozen=True)
class FaceExamples:
    """The built-in model's examples; where another face is borrowed from, it is the next record's.

    Attributes:
      records: number → name of a record, and the record. Pictures must fit the patch grid.
    """

    records: Callable[[int], tuple[str, dict[str, Any]]]
    sequences: Sequences
    seed: int = 0

    def __call__(self, number: int) -> Example:
        where, record = self.records(number)
        other = self.records(number + 1)[1]
        schema, config = self.sequences.schema, self.sequences.config.vision
        numbers, foreign = (
            np.clip(one["coefficients"], schema.low, schema.high) for one in (record, other)
        )
        side = config.patch_size * config.spatial_merge_size
        height, width = record["image"].shape[:2]
        prompt, shown, wanted, weights = self.sequences.example(
            numbers,
            foreign,
            (height // side, width // side),
            np.random.default_rng([self.seed, number]),
        )
        return _example(number, where, prompt, shown, wanted, weights, record["image"])


@dataclass(frozen=True)
class ChatExamples:
    """Fine-tuning examples for models that are instructed: question, and the record's own answer.

    The answer is the record's rationale, a blank line and a flat JSON object, or one nested JSON
    object that holds both. Where a flat answer has no rationale, the blank line belongs to the
    question, as when the estimator asks for numbers alone.

    Attributes:
      records: number → name of a record, and the record.
      messages: the question, in the form of `chat_text`; None asks in our own words.
      layout: "flat" or "nested".
      decimals: of every value.
    """

    records: Callable[[int], tuple[str, dict[str, Any]]]
    tokenizer: Tokenizer
    processor: ImageProcessor
    messages: Sequence[Mapping[str, Any]] | None = None
    layout: str = "flat"
    decimals: int = 1

    def __call__(self, number: int) -> Example:
        """Raises ValueError, which names the record, where it makes no conversation."""
        where, record = self.records(number)
        try:
            answer = self.tokenizer.encode(self._answer(record) + IM_END)
            image = self.processor.fit(record["image"])
            prompt = self._prompt(image, bool(record["rationale"]) or self.layout == "nested")
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        return _example(number, where, prompt, answer, answer, [1.0] * len(answer), image)

    def _answer(self, record: dict[str, Any]) -> str:
        words = record["rationale"]
        for name in CONTROL:
            if name in words:
                raise ValueError(f"the rationale holds {name!r}")
        block = answers.to_json(record["coefficients"], self.layout, self.decimals, analysis=words)
        return words + BLANK_LINE + block if words and self.layout == "flat" else block

    def _prompt(self, image: np.ndarray, words: bool) -> list[int]:
        side = self.processor.patch_size * self.processor.merge_size
        image_tokens = (image.shape[0] // side) * (image.shape[1] // side)
        if self.messages is None:
            return prompt_ids(self.tokenizer, image_tokens, words)
        ids = self.tokenizer.encode(chat_text(self.messages, [image_tokens]))
        return ids + ([] if words else self.tokenizer.encode(BLANK_LINE))


def _example(
    number: int,
    where: str,
    prompt: list[int],
    shown: list[int],
    wanted: list[int],
    weights: list[float],
    image: np.ndarray,
) -> Example:
    """An example of one picture from its prompt, the answer as shown and the one to be learnt."""
    return Example(
        number,
        where,
        np.array(prompt + shown, np.int32),
        np.array(prompt + wanted, np.int32),
        np.array([0.0] * len(prompt) + weights, np.float32),
        [image],
    )
