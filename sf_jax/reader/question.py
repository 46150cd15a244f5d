"""The question that is asked about an image where a caller brings no messages of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

from sf_jax.sequence.chat import chat_text
from sf_jax.sequence.tokenizer import BLANK_LINE, Tokenizer

WITH_RATIONALE = "Read the face in words, then in numbers."
NUMBERS_ONLY = "Read the face in numbers."
NUMBERS_FIRST = "Read the face in numbers, then in words."

Messages = Sequence[Mapping[str, Any]]  # in the form of `sequence.chat.chat_text`


def prompt_ids(
    tokenizer: Tokenizer,
    image_tokens: int,
    rationale: bool,
    messages: Messages | None = None,
    values_first: bool = False,
) -> list[int]:
    """The Qwen chat form of one image and one instruction, up to where the answer starts.

    Args:
      rationale: whether one comes first.
      messages: about one image; None asks our own question.
      values_first: whether the answer starts with its values. Then the prompt is the same with and
        without a rationale, and so are the values.

    Raises:
      ChatError: the messages are no conversation about one image.
    """
    instruction = WITH_RATIONALE if rationale else NUMBERS_ONLY
    instruction = NUMBERS_FIRST if values_first else instruction
    asked = [{"role": "user", "content": "<image>" + instruction}] if messages is None else messages
    text = chat_text(asked, [image_tokens])
    if rationale or values_first:
        return tokenizer.encode(text)
    # Without a rationale the answer starts with the token that ends one, as if there had been one.
    return tokenizer.encode(text) + tokenizer.encode(BLANK_LINE)
