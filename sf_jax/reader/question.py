"""The question that is asked about an image where a caller brings no messages of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

from sf_jax.sequence.chat import chat_text
from sf_jax.sequence.tokenizer import BLANK_LINE, Tokenizer

WITH_RATIONALE = "Read the face in words, then in numbers."
NUMBERS_ONLY = "Read the face in numbers."

Messages = Sequence[Mapping[str, Any]]  # in the form of `sequence.chat.chat_text`


def prompt_ids(
    tokenizer: Tokenizer, image_tokens: int, rationale: bool, messages: Messages | None = None
) -> list[int]:
    """The Qwen chat form of one image and one instruction, up to where the answer starts.

    Args:
      rationale: whether one comes first.
      messages: about one image; None asks our own question.

    Raises:
      ChatError: the messages are no conversation about one image.
    """
    instruction = WITH_RATIONALE if rationale else NUMBERS_ONLY
    asked = [{"role": "user", "content": "<image>" + instruction}] if messages is None else messages
    text = chat_text(asked, [image_tokens])
    # Without a rationale the answer starts with the token that ends one, as if there had been one.
    return tokenizer.encode(text) + ([] if rationale else tokenizer.encode(BLANK_LINE))
