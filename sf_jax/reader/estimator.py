"""Show a model an image, read a face: the few calls most users need."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import jax
import numpy as np
from jaxtyping import Float, Float32

from sf_jax.convert.processor import FittedImage, ImageProcessor, ProcessorError
from sf_jax.decode.decoder import Decoded, Decoder, Previous
from sf_jax.decode.drafts import DraftHeads
from sf_jax.decode.generate import Generated
from sf_jax.decode.program import SlotProgram
from sf_jax.decode.schema import Schema
from sf_jax.face import channels
from sf_jax.face.describe import Description
from sf_jax.media.images import ImageError, ImageSource, read_image
from sf_jax.model.config import Config
from sf_jax.model.text import Cache
from sf_jax.model.weights import Weights
from sf_jax.reader.action import FaceAction, Likelihood, Provenance, Values
from sf_jax.reader.question import Messages, prompt_ids
from sf_jax.reader.schema import channel_indices, channel_schema
from sf_jax.sequence import images as image_inputs
from sf_jax.sequence.batch import Batch
from sf_jax.sequence.example import Example, assemble
from sf_jax.sequence.tokenizer import Tokenizer

MAX_RATIONALE = 120  # tokens; twice a usual description of the built-in model
MAX_RATIONALE_INSTRUCTED = 512  # the released SemanticFace generates up to 410
PROMPT_STEP = 64  # prompts with messages are padded to a multiple of so many tokens


class Model:
    """A vision-language model that reads the channels of its schema off images.

    Args:
      draft_heads: propose tokens of the rationale, or None.
      schema: of channels; None has all 61.
      instructed: whether it reads instructions, as Qwen's models do; the built-in one was trained
        on its own two prompts alone.

    Attributes:
      config: the architecture.
      decoder: the model without its images and channels; holds weights, tokenizer and program.
      processor: makes images as large as the model reads them.
      provenance: version and hashes of the weights, named in results.
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
        instructed: bool,
        provenance: Provenance | None = None,
    ):
        schema = schema or channel_schema(paragraphs=instructed)
        self._channels = channel_indices(schema)
        self.config = config
        self.decoder = Decoder(
            config, weights, tokenizer, schema, draft_heads, free_form=instructed
        )
        self.processor, self.instructed = processor, instructed
        self.provenance = provenance or Provenance()

    @property
    def weights(self) -> Weights:
        """As the device runs them."""
        return cast(Weights, self.decoder.weights)

    @property
    def tokenizer(self) -> Tokenizer:
        """Of prompts and answers."""
        return self.decoder.tokenizer

    @property
    def schema(self) -> Schema:
        """The channels it reads, their ranges and how an answer is spelt."""
        return self.decoder.schema

    @property
    def program(self) -> SlotProgram:
        """The schema compiled with the tokenizer."""
        return self.decoder.program

    @property
    def drafts_rationale(self) -> bool:
        """Whether tokens of a rationale are drafted without a previous answer to draft from."""
        return self.decoder.draft_heads is not None

    @property
    def max_rationale(self) -> int:
        """The cap on the tokens of the rationale where none is asked for."""
        return MAX_RATIONALE_INSTRUCTED if self.instructed else MAX_RATIONALE

    def predict(
        self,
        image: ImageSource,
        *,
        rationale: bool = True,
        temperature: float = 0.0,
        seed: int = 0,
        messages: Messages | None = None,
        max_rationale: int | None = None,
        decoding: str = "drafted",
        previous: FaceAction | None = None,
    ) -> FaceAction:
        """Reads one face.

        Args:
          image: a path, a PIL image or uint8 [H, W, 3].
          rationale: generate the rationale too, before the coefficients, which then rest on it, or
            after them, as the model's schema says (slower). Where what is generated is degenerate,
            no text but loops or bare punctuation, the answer is that of `rationale=False`: the
            image is read again, or the rationale is left out where the coefficients came first.
            What an instructed model ends by itself is kept, unless it has control or undecodable
            characters.
          temperature: 0 is greedy; otherwise rationale and answer are sampled with `seed`.
          messages: the conversation to answer, in MS-SWIFT's form with one `<image>`; only for a
            model that is instructed. None asks our own question.
          max_rationale: cap on the tokens of the rationale; None means 120 for the built-in model,
            512 for others.
          decoding: "drafted", or the plain and slower "sequential", which gives the same answer.
          previous: what a similar image showed, as the frame before: makes the answer faster to
            find, and no other.

        Raises:
          sf_jax.media.images.ImageError: the image cannot be read.
          sf_jax.sequence.chat.ChatError: the messages are no conversation about one image.
        """
        return self.predict_batch(
            [image],
            rationale=rationale,
            temperature=temperature,
            seed=seed,
            messages=messages,
            max_rationale=max_rationale,
            decoding=decoding,
            previous=[previous] if previous else None,
        )[0]

    def predict_batch(
        self,
        images: Sequence[ImageSource | FittedImage],
        *,
        rationale: bool = True,
        messages: Messages | None = None,
        **asked: Any,
    ) -> list[FaceAction]:
        """Reads one face in each image; sizes may differ, `messages` are the same for all.

        An answer does not depend on its neighbours. An image that `processor.fit` has made is read
        as it is.

        Args:
          asked: `temperature`, `seed`, `max_rationale`, `decoding` and `previous`, as for
            `predict`. Temperature and seed belong to each image, and one number stands for all of
            them; `previous` is a list.
        """
        if not images:
            return []
        read = [one if isinstance(one, FittedImage) else read_image(one) for one in images]
        inputs = self.inputs(read, rationale, messages)
        generated = jax.device_get(self.generate(*inputs, rationale=rationale, **asked))
        decoded = list(self.decoder.decoded(generated, rationale))
        if self.schema.values_first:
            decoded = [self.decoder.sound(one) for one in decoded]
        return [
            self._without_rationale(image, row, messages, asked)
            if rationale and one.degenerate
            else self._action(one)
            for row, (image, one) in enumerate(zip(read, decoded, strict=True))
        ]

    def _without_rationale(
        self,
        image: np.ndarray | FittedImage,
        row: int,
        messages: Messages | None,
        asked: dict[str, Any],
    ) -> FaceAction:
        """The answer to one image of a batch whose rationale is degenerate: read anew without one,
        since the coefficients would rest on it."""
        own = {name: value for name, value in asked.items() if name != "max_rationale"}
        for name in ("temperature", "seed"):
            if np.ndim(own.get(name, 0)):
                own[name] = own[name][row]
        if (previous := own.pop("previous", None)) and previous[row] is not None:
            own["previous"] = [previous[row]]
        return self.predict_batch([image], rationale=False, messages=messages, **own)[0]

    def generate(
        self,
        prompt: Batch,
        prefix: Cache | None = None,
        *,
        rationale: bool = True,
        max_rationale: int | None = None,
        previous: Sequence[FaceAction | None] | None = None,
        **asked: Any,
    ) -> Generated:
        """What `predict_batch` does with what `inputs` made: one compiled call, left running.

        Raises:
          ValueError: an argument is out of range.
        """
        return self.decoder.generate(
            prompt,
            prefix,
            rationale=rationale,
            max_rationale=self.max_rationale if max_rationale is None else max_rationale,
            previous=None if previous is None else [self._as_draft(one) for one in previous],
            **asked,
        )

    def _as_draft(self, action: FaceAction | None) -> Previous | None:
        if action is None:
            return None
        return Previous(action.rationale_ids, action.answer[self._channels])

    def score(
        self,
        image: ImageSource,
        answer: Float[np.ndarray, "61"],
        rationale: str | None = None,
        *,
        messages: Messages | None = None,
    ) -> Likelihood:
        """How likely an answer is, by one pass over it.

        Args:
          answer: taken as the nearest values that can be generated; of channels that the model does
            not read, nothing is.
          rationale: what precedes the answer; None where it was asked for without a rationale.
          messages: as for `predict`.

        Raises:
          ValueError: the rationale holds text that no generated rationale can, or the answer has
            not 61 values, or one that is read is not finite.
        """
        given = np.asarray(answer, np.float32)
        if given.shape != (len(channels.NAMES),):
            raise ValueError(f"an answer of shape {given.shape}, expected [{len(channels.NAMES)}]")
        values = given[self._channels]
        prompt, prefix = self.inputs([read_image(image)], rationale is not None, messages)
        text, slots = self.decoder.score(prompt, prefix, values, rationale)
        return Likelihood(float(text.sum()), self._all_channels(slots))

    def inputs(
        self,
        images: Sequence[np.ndarray | FittedImage],
        rationale: bool = True,
        messages: Messages | None = None,
    ) -> tuple[Batch, Cache | None]:
        """Prompts about images, padded on the left to a bucket's length; and the cache of a
        long beginning that the prompts share, which is left out of them.

        Raises:
          sf_jax.media.images.ImageError: an image is too long for its width.
        """
        if messages is not None and not self.instructed:
            raise ValueError("the built-in model was trained on its own prompt; give no messages")
        try:
            fitted = [self.processor.fit(image).pixels for image in images]
        except ProcessorError as error:
            raise ImageError(str(error)) from error
        grids = [image_inputs.token_grid(image, self.config.vision) for image in fitted]
        merged = self.processor.padded(max(height * width for height, width in grids))
        first_values = self.schema.values_first

        def asked(merged: int) -> list[int]:
            return prompt_ids(self.tokenizer, merged, rationale, messages, first_values)

        prompts = [asked(height * width) for height, width in grids]
        first = prompts[0]
        prefix = self.decoder.prefix(first[: first.index(self.config.image_token_id)])
        skip = 0 if prefix is None else prefix.segments.shape[1]
        longest = len(asked(merged)) - skip
        if messages is not None:  # of any length, where every length is a program of its own
            longest = -(-longest // PROMPT_STEP) * PROMPT_STEP
        examples = [
            Example.of(prompt, image_inputs.image_inserts(prompt, [image], self.config))
            for prompt, image in zip(prompts, fitted, strict=True)
        ]
        patches = merged * self.processor.merge_size**2
        capacity = image_inputs.capacity(self.config, longest, patches)
        return assemble([[one] for one in examples], capacity, left=True, skip=skip), prefix

    def actions(self, generated: Generated, rationale: bool) -> Iterator[FaceAction]:
        """The answers of a batch in the host's memory; `rationale` as it was asked for."""
        for decoded in self.decoder.decoded(generated, rationale):
            yield self._action(decoded)

    def _action(self, decoded: Decoded) -> FaceAction:
        whole = self._all_channels
        return FaceAction(
            coefficients=whole(decoded.mean),
            spread=whole(decoded.spread),
            answer=whole(decoded.values),
            rationale=Description.parse(decoded.rationale),
            text=decoded.text,
            passes=decoded.passes,
            entropy=whole(decoded.entropy),
            log_likelihood=whole(decoded.log_likelihood),
            rationale_ids=decoded.rationale_ids,
            rationale_log_probabilities=decoded.rationale_log_probabilities,
            channels=tuple(channels.NAMES[i] for i in sorted(self._channels)),
            provenance=self.provenance,
        )

    def _all_channels(self, slots: Float32[np.ndarray, " C"]) -> Values:
        """Numbers of the slots as those of the channels, NaN for channels not read."""
        out = np.full(len(channels.NAMES), np.nan, np.float32)
        out[self._channels] = slots
        return out
