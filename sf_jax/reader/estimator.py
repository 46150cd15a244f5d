"""Load a model, show it a picture, read a face: the few calls most users need."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sf_jax.convert import hf, tokenizer_json
from sf_jax.convert.processor import FILE as PROCESSOR_FILE
from sf_jax.convert.processor import ImageProcessor, ProcessorError
from sf_jax.decode.drafts import Draft, DraftHeads, load_heads
from sf_jax.decode.generate import SEQUENTIAL, DraftPlan, Generated, generate
from sf_jax.decode.noise import Sampling
from sf_jax.decode.program import SlotProgram, compile_program
from sf_jax.decode.schema import Schema
from sf_jax.decode.schema_file import write_schema
from sf_jax.decode.score import score
from sf_jax.decode.state import prompt_prefix
from sf_jax.face import channels
from sf_jax.face.describe import Description
from sf_jax.media import files
from sf_jax.media.images import ImageError, read_image
from sf_jax.media.resize import coarse_bucket
from sf_jax.model.config import Config
from sf_jax.model.text import Cache
from sf_jax.model.weights import Weights, draft_weights, unstack_layers
from sf_jax.reader.action import FaceAction, Likelihood
from sf_jax.reader.question import Messages, prompt_ids
from sf_jax.reader.schema import channel_indices, channel_schema, read_channel_schema
from sf_jax.sequence import images as image_inputs
from sf_jax.sequence import tokenizer as tokenizers
from sf_jax.sequence.batch import Batch
from sf_jax.sequence.example import Example, assemble
from sf_jax.sequence.tokenizer import BLANK_LINE, IMAGE, Tokenizer

BUILTIN = Path(__file__).parents[1] / "builtin" / "semanticface"
MAX_WORDS = 120  # tokens; twice a usual description of the built-in model
MAX_WORDS_OF_OTHERS = 512  # the released SemanticFace says up to 410
MAX_IMAGE_TOKENS = 1024  # as the released SemanticFace is run
DRAFT_HEADS_FILE = "draft_heads.safetensors"
SHORTEST_PREFIX = 16  # tokens before the picture, from which on they are kept between calls
MOST_PREFIXES = 8
# By what passes cost: on a CPU more tokens take longer (`sf-jax bench plans` measures there),
# elsewhere a pass over the block costs little more than one token.
PLANS = {
    "cpu": DraftPlan(
        rationale_width=10, block_widths=(32, 64, 96), growth=64, low_precision_passes=2
    ),
    "cpu, large": DraftPlan(
        rationale_width=10, block_widths=(16, 48), growth=2
    ),  # a copy to guess with is too large
    "accelerator": DraftPlan(rationale_width=10, block_widths=(), growth=4),
}
LARGE = 2**26  # numbers in the text layers
DECODINGS = ("drafted", "sequential")


class Model:
    """A vision-language model with its tokenizer and the slot program of its channels.

    Attributes:
      schema: the channels it reads, their ranges and how an answer is spelt.
      instructed: whether it reads instructions, as Qwen's models do; the built-in one was trained
        on its own two prompts alone.
      plan: how wide to draft on this device; changes the time an answer takes, never the answer.
      draft_heads: guess at words, or None.
    """

    def __init__(
        self,
        config: Config,
        weights: Weights,
        tokenizer: Tokenizer,
        processor: ImageProcessor,
        draft_heads: DraftHeads | None = None,
        schema: Schema | None = None,
        *,
        instructed: bool = False,
    ):
        self.config = config
        self.tokenizer = tokenizer
        self.processor = processor
        self.draft_heads = draft_heads
        self.instructed = instructed
        self.schema = schema or channel_schema(paragraphs=instructed)
        self._channels = channel_indices(self.schema)
        # Accelerators scan stacked layers; short passes on a CPU loop over separate arrays.
        on_cpu = jax.default_backend() == "cpu"
        self.weights = unstack_layers(weights) if on_cpu else weights
        large = sum(leaf.size for leaf in jax.tree.leaves(weights.text.layers)) >= LARGE
        cpu = "cpu, large" if large else "cpu"
        self.plan = PLANS[cpu if on_cpu else "accelerator"]
        self._prefixes: dict[tuple[int, ...], Cache] = {}

    @cached_property
    def program(self) -> SlotProgram:
        """The slot program, in the host's memory."""
        return compile_program(self.schema, self.tokenizer, self.config.text.vocab_size)

    @cached_property
    def _on_device(self) -> tuple[SlotProgram, DraftHeads | None]:
        return jax.device_put((self.program, self.draft_heads))

    @cached_property
    def _rough(self) -> Weights | None:
        """What guesses, where that is cheaper than the model itself."""
        exact = jax.default_backend() == "cpu" and self.config.product_dtype == "float32"
        return draft_weights(self.weights) if exact and self.plan.low_precision_passes else None

    def predict(
        self,
        image: Any,
        *,
        words: bool = True,
        temperature: float = 0.0,
        seed: int = 0,
        messages: Messages | None = None,
        max_words: int | None = None,
        decoding: str = "drafted",
        previous: FaceAction | None = None,
    ) -> FaceAction:
        """Reads one face.

        Args:
          image: a path, a PIL image or uint8 [H, W, 3].
          words: speak the rationale first (slower, and what the coefficients then rest on).
          temperature: 0 is greedy; otherwise words and answer are sampled with `seed`.
          messages: the conversation to answer, in MS-SWIFT's form with one `<image>`; only for a
            model that is instructed. None asks in our own words.
          max_words: cap on the tokens of the rationale; None means 120 for the built-in model, 512
            for others.
          decoding: "drafted", or the plain and slower "sequential", which gives the same answer.
          previous: what a similar picture showed, as the frame before: makes the answer faster to
            find, and no other.

        Raises:
          sf_jax.media.images.ImageError: the picture cannot be read.
          sf_jax.sequence.chat.ChatError: the messages are no conversation about one picture.
        """
        return self.predict_batch(
            [image],
            words=words,
            temperature=temperature,
            seed=seed,
            messages=messages,
            max_words=max_words,
            decoding=decoding,
            previous=[previous] if previous else None,
        )[0]

    def predict_batch(
        self,
        images: Sequence[Any],
        *,
        words: bool = True,
        temperature: float | Sequence[float] = 0.0,
        seed: int | Sequence[int] = 0,
        messages: Messages | None = None,
        max_words: int | None = None,
        decoding: str = "drafted",
        previous: Sequence[FaceAction | None] | None = None,
    ) -> list[FaceAction]:
        """Reads one face in each picture; sizes may differ, `messages` are the same for all.

        An answer does not depend on its neighbours: temperature and seed belong to each picture,
        and one number stands for all of them.
        """
        if not images:
            return []
        inputs = self.inputs([read_image(image) for image in images], words, messages)
        generated = self.generate(
            *inputs,
            words=words,
            temperature=temperature,
            seed=seed,
            max_words=max_words,
            decoding=decoding,
            previous=previous,
        )
        return list(self.actions(jax.device_get(generated), words))

    def generate(
        self,
        prompt: Batch,
        prefix: Cache | None = None,
        *,
        words: bool = True,
        temperature: float | Sequence[float] = 0.0,
        seed: int | Sequence[int] = 0,
        max_words: int | None = None,
        decoding: str = "drafted",
        previous: Sequence[FaceAction | None] | None = None,
    ) -> Generated:
        """What `predict_batch` does with what `inputs` made: one compiled call, left running.

        Raises:
          ValueError: an argument is out of range.
        """
        if decoding not in DECODINGS:
            raise ValueError(f"decoding is {decoding!r}, expected one of {DECODINGS}")
        if max_words is not None and max_words < 1:
            raise ValueError(f"max_words is {max_words}, expected 1 or more")
        cap, count = max_words or self.max_words, len(prompt.input_ids)
        program, heads = self._on_device
        plan = SEQUENTIAL if decoding == "sequential" else self.plan
        if heads is None and previous is None:
            plan = replace(plan, rationale_width=1)
        draft = replace(self._draft(previous or [None] * count, cap), heads=heads)
        return generate(
            self.weights,
            prompt,
            program,
            draft,
            sampling_of(temperature, seed, count),
            self.config,
            plan,
            cap,
            words,
            prefix,
            None if plan.sequential else self._rough,
        )

    def score(
        self,
        image: Any,
        answer: np.ndarray,
        rationale: str | None = None,
        *,
        messages: Messages | None = None,
    ) -> Likelihood:
        """How likely an answer is, by one pass over it.

        Args:
          answer: float [61], taken as the nearest values that can be spoken; of channels that the
            model does not read, nothing is.
          rationale: the words before it; None where it was asked for without words.
          messages: as for `predict`.

        Raises:
          ValueError: the rationale holds text that no answer's words can.
        """
        program = self.program
        inputs = self.inputs([read_image(image)], rationale is not None, messages)
        said: list[int] = []
        free = 0
        if rationale is not None:
            said = self.tokenizer.encode(rationale)
            for token in said:
                if program.banned[token] or program.ends[token]:
                    text = self.tokenizer.decode([token])
                    raise ValueError(
                        f"the words hold {text!r}, which ends words or belongs to none"
                    )
            said += [] if program.block_ends_rationale else [int(program.rationale_end)]
            free = len(said) + program.block_ends_rationale
        words = np.zeros((1, -(-max(len(said), 1) // 32) * 32), np.int32)
        words[0, : len(said)] = said
        prompt, prefix = inputs
        scored = jax.device_get(
            score(
                self.weights,
                prompt,
                self._on_device[0],
                words,
                np.array([len(said)]),
                np.array([free]),
                program.nearest(np.asarray(answer)[self._channels])[None],
                sampling_of(0.0, 0, 1),
                self.config,
                prefix,
            )
        )
        return Likelihood(float(scored.rationale[0].sum()), self._all_channels(scored.slots[0]))

    @property
    def max_words(self) -> int:
        """The cap on the tokens of the rationale where none is asked for."""
        return MAX_WORDS_OF_OTHERS if self.instructed else MAX_WORDS

    def _draft(self, previous: Sequence[FaceAction | None], cap: int) -> Draft:
        """Answers like those before; at rest where there are none."""
        words = np.zeros((len(previous), cap + 1), np.int32)
        numbers = np.zeros((len(previous), len(self.schema.names)), np.float32)
        for row, action in enumerate(previous):
            if action is not None:
                said = [*action.words.tolist(), int(self.program.ends.argmax())][: cap + 1]
                words[row, : len(said)] = said
                numbers[row] = action.answer[self._channels]
        # The frame before is a better draft than guesses are.
        guesses = 0 if all(previous) else self.plan.low_precision_passes
        return Draft(words, self.program.nearest(numbers), None, np.int32(guesses))

    def inputs(
        self,
        images: list[np.ndarray],
        words: bool = True,
        messages: Messages | None = None,
    ) -> tuple[Batch, Cache | None]:
        """Prompts about resized images, padded on the left to a bucket's length; and the cache of a
        long beginning that the prompts share, which is left out of them.

        Raises:
          sf_jax.media.images.ImageError: a picture is too long for its width.
        """
        if messages is not None and not self.instructed:
            raise ValueError("the built-in model was trained on its own prompt; give no messages")
        try:
            fitted = [self.processor.fit(image) for image in images]
        except ProcessorError as error:
            raise ImageError(str(error)) from error
        grids = [image_inputs.token_grid(image, self.config.vision) for image in fitted]
        merged = self._bucket(max(height * width for height, width in grids))
        prompts = [prompt_ids(self.tokenizer, h * w, words, messages) for h, w in grids]
        prefix = self._prefix(prompts[0])
        skip = 0 if prefix is None else prefix.segments.shape[1]
        longest = len(prompt_ids(self.tokenizer, merged, words, messages)) - skip
        examples = [
            Example.of(prompt, image_inputs.image_inserts(prompt, [image], self.config))
            for prompt, image in zip(prompts, fitted, strict=True)
        ]
        patches = merged * self.processor.merge_size**2
        capacity = image_inputs.capacity(self.config, longest, patches)
        return assemble([[one] for one in examples], capacity, left=True, skip=skip), prefix

    def _prefix(self, prompt: list[int]) -> Cache | None:
        """The cache of what stands before the picture, if it is long, as a system message is."""
        ids = tuple(prompt[: prompt.index(self.config.image_token_id)])
        if len(ids) < SHORTEST_PREFIX:
            return None
        if ids not in self._prefixes:
            if len(self._prefixes) == MOST_PREFIXES:
                del self._prefixes[next(iter(self._prefixes))]
            made = prompt_prefix(self.weights, np.array(ids, np.int32), self.config)
            self._prefixes[ids] = made
        return self._prefixes[ids]

    def _bucket(self, tokens: int) -> int:
        """How many image tokens a picture of so many is padded to."""
        side = self.processor.patch_size * self.processor.merge_size
        return coarse_bucket(tokens, self.processor.max_pixels // side**2)

    def actions(self, generated: Generated, spoke: bool) -> Iterator[FaceAction]:
        """What a batch said; `spoke` tells whether words were asked for."""
        program = self.program
        read = tuple(channels.NAMES[i] for i in sorted(self._channels))
        slots, whole = np.arange(len(self.schema.names)), self._all_channels
        values = program.values[program.kind]
        for row, choices in enumerate(generated.choices):
            logs = generated.log_probabilities[row]
            probabilities = np.exp(logs)
            mean = (probabilities * values).sum(-1)
            square = (probabilities * np.square(values)).sum(-1)
            ids = generated.rationale_ids[row, : generated.rationale_length[row]]
            words = self.tokenizer.decode(ids.tolist())
            # Words that ran into the block on their own hold the blank line already.
            parted = spoke and program.block_ends_rationale and not generated.truncated[row]
            spoken = values[slots, choices]
            yield FaceAction(
                coefficients=whole(np.clip(mean, self.schema.low, self.schema.high)),
                spread=whole(np.sqrt(np.maximum(square - mean**2, 0))),
                answer=whole(spoken),
                rationale=Description.parse(words),
                text=words + ("" if parted else BLANK_LINE) + self.schema.format(spoken),
                passes={
                    "rationale": int(generated.rationale_passes[row]),
                    "coefficients": int(generated.block_passes[row]),
                },
                entropy=whole(-(probabilities * np.where(probabilities > 0, logs, 0)).sum(-1)),
                log_likelihood=whole(logs[slots, choices]),
                words=ids,
                channels=read,
            )

    def _all_channels(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers [C] of the slots as float32 [61] of the channels, NaN for those not read."""
        out = np.full(len(channels.NAMES), np.nan, np.float32)
        out[self._channels] = numbers
        return out


def sampling_of(
    temperature: float | Sequence[float], seed: int | Sequence[int], rows: int
) -> Sampling:
    """Temperature and seed of each row: one of each for all, or one for each."""
    temperatures = np.broadcast_to(np.asarray(temperature, np.float32), (rows,))
    if not (np.isfinite(temperatures) & (temperatures >= 0)).all():
        raise ValueError(f"temperature is {temperature}, expected 0 or more")
    return Sampling(temperatures, np.broadcast_to(np.asarray(seed).astype(np.uint32), (rows,)))


def load(
    directory: str | os.PathLike | None = None,
    adapter: str | os.PathLike | None = None,
    *,
    dtype: Any = None,
    max_image_tokens: int = MAX_IMAGE_TOKENS,
) -> Model:
    """Loads a model directory, by default the built-in one.

    A directory holds `config.json`, the weights, `preprocessor_config.json`, `tokenizer.model`
    (built-in kind) or `tokenizer.json` (Qwen's), and `schema.json`, without which the model reads
    all 61 channels.

    Args:
      adapter: directory of a LoRA adapter in PEFT's layout, kept beside the weights.
      dtype: of the weights, and of the operands of products; None means float32 on a CPU, bfloat16
        elsewhere.
      max_image_tokens: larger pictures are shrunk to so many.

    Raises:
      CheckpointError, TokenizerError, ProcessorError: a file is missing or cannot be read.
      SchemaFileError: `schema.json` holds what is no schema of channels; names the field.
      ValueError: draft heads do not fit the model.
    """
    folder = BUILTIN if directory is None else Path(directory)
    if dtype is None:
        dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    config, weights = hf.load(folder, adapter, dtype=dtype)
    if config.vision is None:
        raise hf.CheckpointError(f"{folder / 'config.json'}: the model reads text alone")
    config = replace(config, product_dtype=jnp.dtype(dtype).name)
    if jax.default_backend() == "cpu":
        weights = unstack_layers(weights, consume=True)
    tokenizer, processor = load_inputs(folder, config, max_image_tokens)
    path = folder / DRAFT_HEADS_FILE
    text = config.text
    heads = load_heads(path, text.hidden_size, text.vocab_size) if path.is_file() else None
    schema, instructed = load_schema(folder), is_instructed(folder)
    return Model(config, weights, tokenizer, processor, heads, schema, instructed=instructed)


def load_schema(directory: str | os.PathLike | None = None) -> Schema:
    """The schema of a model directory, by default the built-in one; loads nothing else.

    Raises:
      SchemaFileError: `schema.json` holds what is no schema of channels; names the field.
    """
    folder = BUILTIN if directory is None else Path(directory)
    return read_channel_schema(folder, paragraphs=is_instructed(folder))


def is_instructed(folder: Path) -> bool:
    """Whether the model of a directory was tuned on conversations, as Qwen's are.

    One that brings a SentencePiece tokenizer was trained on its own two prompts alone.
    """
    return not (folder / tokenizers.SentencePieceTokenizer.file).is_file()


def load_inputs(
    folder: Path, config: Config, max_image_tokens: int = MAX_IMAGE_TOKENS
) -> tuple[Tokenizer, ImageProcessor]:
    """What makes a model's inputs: the tokenizer and the picture processor of its directory.

    Raises:
      CheckpointError, TokenizerError, ProcessorError: a file is missing, cannot be read, or is of
        another model.
    """
    tokenizer = tokenizers.load(folder)
    if len(tokenizer) > config.text.vocab_size:
        raise hf.CheckpointError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, vocab_size in config.json is "
            f"{config.text.vocab_size}"
        )
    image = tokenizer.symbol(IMAGE)
    if image != config.image_token_id:
        raise hf.CheckpointError(
            f"{folder}: the tokenizer has {IMAGE} as {image}, image_token_id in config.json is "
            f"{config.image_token_id}"
        )
    side = config.vision.patch_size * config.vision.spatial_merge_size
    processor = ImageProcessor.load(folder, max_pixels=max_image_tokens * side**2)
    processor.check(config.vision, folder)
    return tokenizer, processor


def save(
    directory: str | os.PathLike,
    config: Config,
    weights: Weights,
    tokenizer: Tokenizer,
    processor: ImageProcessor,
    dtype: Any = np.float32,
    schema: Schema | None = None,
) -> None:
    """Writes a model directory that `load` reads, and transformers too.

    Args:
      schema: None means all 61 channels.
    """
    folder = Path(directory)
    hf.save(folder, config, weights, dtype)
    tokenizer.save(folder)
    if tokenizer.sentencepiece is not None:
        tokenizer_json.export(tokenizer.sentencepiece, folder)
    files.write_json(folder / PROCESSOR_FILE, processor.as_dict())
    write_schema(folder, schema or channel_schema(paragraphs=is_instructed(folder)))
