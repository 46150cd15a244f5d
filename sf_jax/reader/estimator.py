"""Show a model an image, read a face: the few calls most users need."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import jax
import numpy as np
from jaxtyping import Float, Float32

from sf_jax.convert.processor import FittedImage, ImageProcessor
from sf_jax.decode.decoder import Decoded, Decoder, Previous, check_asked
from sf_jax.decode.drafts import DraftHeads
from sf_jax.decode.generate import Generated
from sf_jax.decode.program import SlotProgram
from sf_jax.decode.schema import Schema
from sf_jax.face import channels
from sf_jax.face.describe import Description
from sf_jax.media.images import ImageSource, read_image
from sf_jax.model.config import Config
from sf_jax.model.text import Cache
from sf_jax.model.weights import Weights
from sf_jax.reader import turning
from sf_jax.reader.action import FaceAction, Likelihood, Provenance, no_face
from sf_jax.reader.calibration import Calibration, moments
from sf_jax.reader.framing import Framed, Framer, Framing, NoFaceError, Which
from sf_jax.reader.question import Messages, prompt_ids
from sf_jax.reader.reliability import Reliability
from sf_jax.reader.schema import channel_indices, channel_schema
from sf_jax.sequence import images as image_inputs
from sf_jax.sequence.batch import Batch
from sf_jax.sequence.example import Example, assemble
from sf_jax.sequence.tokenizer import Tokenizer

MAX_RATIONALE = 120  # tokens; twice a usual description of the built-in model
MAX_RATIONALE_INSTRUCTED = 512  # the released SemanticFace generates up to 410
PROMPT_STEP = 64  # prompts with messages are padded to a multiple of so many tokens


class Model(Framing):
    """A vision-language model that reads the channels of its schema off images.

    Args:
      draft_heads: propose tokens of the rationale, or None.
      schema: of channels; None has all 61.
      instructed: whether it reads instructions, as Qwen's models do; the built-in one was trained
        on its own two prompts alone.
      framer: makes what finds the faces that are read; None can only read whole images.
      framed: whether faces are found and framed where a call does not say.
      reliability: how well it was measured to read each channel, or None.
      calibration: how much wider its distributions should be, or None; may be replaced.

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
        framer: Callable[[], Framer] | None = None,
        framed: bool = False,
        reliability: Reliability | None = None,
        calibration: Calibration | None = None,
    ):
        schema = schema or channel_schema(paragraphs=instructed)
        self._channels = channel_indices(schema)
        self._channel_names = tuple(channels.NAMES[i] for i in sorted(self._channels))
        self.config = config
        self.decoder = Decoder(
            config, weights, tokenizer, schema, draft_heads, free_form=instructed
        )
        super().__init__(processor, framer, framed)
        self.instructed = instructed
        self.provenance = provenance or Provenance()
        self.reliability = reliability
        self.calibration = calibration

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
    def values(self) -> Float32[np.ndarray, "61 V"]:
        """The values that each channel can have, in rising order; NaN where there are no more."""
        kind = self.program.kind[: self.program.named]
        grid = np.where(self.program.valid[kind], self.program.values[kind], np.nan)
        return self._all_channels(grid.astype(np.float32))

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
        whole: bool | None = None,
        face: Which = "largest",
        force: bool = False,
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
          whole: read the whole image; False finds the face and reads the square around it. None
            does what the model was trained for, see `loading.load`, and finds a face that is asked
            for by its number.
          face: which one, "largest" or its number from the left, from 1.
          force: read the whole image where that face is not found. Else the answer's `found` is
            False there, and its values are NaN.
          rationale: generate the rationale too, before the coefficients, which then rest on it, or
            after them, as the model's schema says (slower). Where what is generated is degenerate,
            no text but loops or bare punctuation, the answer is that of `rationale=False`: the
            image is read again, or the rationale is left out where the coefficients came first.
            What an instructed model ends by itself is kept, unless it has control or undecodable
            characters.
          temperature: 0 samples nothing; above, rationale and answer are sampled with `seed`.
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
            whole=whole,
            face=face,
            force=force,
            rationale=rationale,
            temperature=temperature,
            seed=seed,
            messages=messages,
            max_rationale=max_rationale,
            decoding=decoding,
            previous=[previous] if previous else None,
        )[0]

    def predict_faces(self, image: ImageSource, **asked: Any) -> list[FaceAction]:
        """Reads all faces of an image, from left to right; an empty list if there are none.

        Args:
          asked: as for `predict_batch`, but for `whole`, `face` and `force`; a seed stands for all
            faces.

        Raises:
          ValueError: the model has nothing to find a face with, or an option is of one face; and as
            `predict`.
        """
        for name in ("whole", "face", "force"):
            if name in asked:
                raise ValueError(f"{name} is an option of one face; all that are found are read")
        self.frames(whole=False)
        return self.predict_batch(self.framed_faces(read_image(image)), **asked)

    def predict_batch(
        self,
        images: Sequence[ImageSource | FittedImage | Framed],
        *,
        whole: bool | None = None,
        face: Which = "largest",
        force: bool = False,
        rationale: bool = True,
        messages: Messages | None = None,
        **asked: Any,
    ) -> list[FaceAction]:
        """Reads one face in each image; sizes may differ, `messages` are the same for all.

        An answer does not depend on its neighbours. An image that `processor.fit` or `framed` has
        made is read as it is.

        Args:
          asked: `temperature`, `seed`, `max_rationale`, `decoding` and `previous`, as for
            `predict`. Temperature and seed belong to each image, and one number stands for all of
            them; `previous` is a list.
        """
        self._check_messages(messages)
        check_asked(len(images), **{name: x for name, x in asked.items() if x is not None})
        given = []
        for one in images:
            if isinstance(one, FittedImage):
                one = Framed(one)
            elif not isinstance(one, Framed):
                one = self.framed(read_image(one), whole=whole, face=face, force=force)
            given.append(one)
        read = [row for row, one in enumerate(given) if one.picture is not None]
        pictures = [one.picture for one in given if one.picture is not None]
        own = asked if len(read) == len(given) else _of_rows(asked, read)
        found = dict(zip(read, self._answers(pictures, rationale, messages, own), strict=True))
        return [
            self._of_face(found[row], one) if row in found else self.no_face()
            for row, one in enumerate(given)
        ]

    def no_face(self) -> FaceAction:
        """The answer to an image in which no face was found."""
        return no_face(self._channel_names, self.provenance)

    def _of_face(self, action: FaceAction, framed: Framed) -> FaceAction:
        if framed.face is None:
            return action
        return turning.of_face(action, framed.face, self.schema, self._channels)

    def _answers(
        self,
        images: Sequence[FittedImage],
        rationale: bool,
        messages: Messages | None,
        asked: dict[str, Any],
    ) -> list[FaceAction]:
        """The answers to images as they are."""
        if not images:
            return []
        inputs = self.inputs(images, rationale, messages)
        generated = jax.device_get(self.generate(*inputs, rationale=rationale, **asked))
        decoded = list(self.decoder.decoded(generated, rationale))
        if self.schema.values_first:
            decoded = [self.decoder.sound(one) for one in decoded]
        return [
            self._without_rationale(image, row, messages, asked)
            if rationale and one.degenerate
            else self._action(one)
            for row, (image, one) in enumerate(zip(images, decoded, strict=True))
        ]

    def _without_rationale(
        self,
        image: FittedImage,
        row: int,
        messages: Messages | None,
        asked: dict[str, Any],
    ) -> FaceAction:
        """The answer to one image of a batch whose rationale is degenerate: read anew without one,
        since the coefficients would rest on it."""
        own = {name: value for name, value in asked.items() if name != "max_rationale"}
        own = _of_rows(own, [row])
        if own.get("previous") == [None]:
            del own["previous"]
        return self._answers([image], False, messages, own)[0]

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
        if action is None or not action.found:
            return None
        generated = action.uncorrected or action  # of the square that the model saw
        return Previous(action.rationale_ids, generated.answer[self._channels])

    def score(
        self,
        image: ImageSource,
        answer: Float[np.ndarray, "61"],
        rationale: str | None = None,
        *,
        messages: Messages | None = None,
        whole: bool | None = None,
        face: Which = "largest",
        force: bool = False,
    ) -> Likelihood:
        """How likely an answer is, by one pass over it.

        Where the face is framed, the answer's head angles, and the clauses on them, are turned into
        its square, as nearly as they can be spelt. What the model generated there is in
        `FaceAction.uncorrected`.

        Args:
          answer: taken as the nearest values that can be generated; of channels that the model does
            not read, nothing is.
          rationale: what precedes the answer; None where it was asked for without a rationale.
          messages, whole, face, force: as for `predict`.

        Raises:
          sf_jax.reader.framing.NoFaceError: no face was found.
          ValueError: the rationale holds text that no generated rationale can, or cannot be turned
            into the square; or the answer has not 61 values, or one that is read is not finite.
        """
        given = np.asarray(answer, np.float32)
        if given.shape != (len(channels.NAMES),):
            raise ValueError(f"an answer of shape {given.shape}, expected [{len(channels.NAMES)}]")
        seen = self.framed(read_image(image), whole=whole, face=face, force=force)
        if seen.picture is None:
            raise NoFaceError("no face found; whole=True scores the whole image")
        if seen.face is not None:
            given, rationale = turning.in_square(given, rationale, seen.face.box.roll)
        values = given[self._channels]
        prompt, prefix = self.inputs([seen.picture], rationale is not None, messages)
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
          ValueError: there are messages, and the model is not instructed.
        """
        self._check_messages(messages)
        fitted = [self.fitted(image).pixels for image in images]
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

    def _check_messages(self, messages: Messages | None) -> None:
        if messages is not None and not self.instructed:
            raise ValueError("the built-in model was trained on its own prompt; give no messages")

    def actions(self, generated: Generated, rationale: bool) -> Iterator[FaceAction]:
        """The answers of a batch in the host's memory; `rationale` as it was asked for."""
        for decoded in self.decoder.decoded(generated, rationale):
            yield self._action(decoded)

    def _action(self, decoded: Decoded) -> FaceAction:
        whole = self._all_channels
        spread, entropy = whole(decoded.spread), whole(decoded.entropy)
        probabilities = whole(decoded.probabilities)
        if self.calibration is not None:
            probabilities = self.calibration.apply(probabilities, self.values)
            spread, entropy = moments(probabilities, self.values, whole(decoded.mean))
        return FaceAction(
            coefficients=whole(decoded.mean),
            spread=spread,
            answer=whole(decoded.values),
            rationale=Description.parse(decoded.rationale),
            text=decoded.text,
            passes=decoded.passes,
            entropy=entropy,
            log_likelihood=whole(decoded.log_likelihood),
            rationale_ids=decoded.rationale_ids,
            rationale_log_probabilities=decoded.rationale_log_probabilities,
            channels=self._channel_names,
            provenance=self.provenance,
            probabilities=probabilities,
            reliability=self.reliability,
        )

    def _all_channels(self, slots: Float32[np.ndarray, "C ..."]) -> Float32[np.ndarray, "61 ..."]:
        """Numbers of the slots as those of the channels, NaN for channels not read."""
        out = np.full((len(channels.NAMES), *slots.shape[1:]), np.nan, np.float32)
        out[self._channels] = slots
        return out


def _of_rows(asked: dict[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """The arguments of `Model.generate` for some rows of a batch."""
    own = dict(asked)
    for name in ("temperature", "seed"):
        if np.ndim(own.get(name, 0)):
            own[name] = [own[name][row] for row in rows]
    if own.get("previous"):
        own["previous"] = [own["previous"][row] for row in rows]
    return own
