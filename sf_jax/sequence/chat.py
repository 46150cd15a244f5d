"""The Qwen chat form: messages and images → the text that a tokenizer encodes.

Each message stands between its control tokens. An image is a run of placeholder tokens, one for
each merged patch, between two marks. There is no default system message.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sf_jax.media.errors import DataError
from sf_jax.sequence.tokenizer import CONTROL, IM_END, IM_START, IMAGE, VISION_END, VISION_START

TAG = "<image>"  # where MS-SWIFT messages show an image
REFUSED = (*CONTROL, "<video>", "<audio>")  # in a text: they would be taken for what they name
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # as JSON may spell, and no tokenizer takes
ROLES = ("system", "user", "assistant")

# The same for transformers, with one placeholder an image, which its processor multiplies.
TEMPLATE = (
    "{%- for message in messages -%}"
    f"{{{{ '{IM_START}' + message.role + '\\n' }}}}"
    "{%- if message.content is string -%}"
    "{{ message.content }}"
    "{%- else -%}"
    "{%- for part in message.content -%}"
    f"{{{{ '{VISION_START}{IMAGE}{VISION_END}' if part.type == 'image' else part.text }}}}"
    "{%- endfor -%}"
    "{%- endif -%}"
    f"{{{{ '{IM_END}\\n' }}}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}"
    f"{{{{ '{IM_START}assistant\\n' }}}}"
    "{%- endif -%}"
)


class ChatError(DataError):
    """Messages that are no conversation, or images that do not fit them."""


def placeholders(image_tokens: int) -> str:
    """The placeholders of an image of so many merged patches, between their marks."""
    return f"{VISION_START}{IMAGE * image_tokens}{VISION_END}"


def chat_text(
    messages: Sequence[Mapping[str, Any]], image_tokens: Sequence[int] = (), answer: bool = True
) -> str:
    """Messages in Qwen's chat form.

    Args:
      messages: each with "role" and "content": text in which `<image>` shows an image, or a list
        of `{"type": "image"}` and `{"type": "text", "text": …}`. A system message comes first.
      image_tokens: merged patches of each image, in order. Where no message shows an image, all
        stand before the first user's text.
      answer: end where the assistant's answer begins.

    Raises:
      ChatError: a role or a content is of another kind, or the images shown are not as many as
        those given; names the message.
    """
    contents = [_parts(number, message) for number, message in enumerate(messages, 1)]
    shown = sum(part is None for parts in contents for part in parts)
    if not shown and image_tokens:
        contents[_first_user(messages)][:0] = [None] * len(image_tokens)
    elif shown != len(image_tokens):
        raise ChatError(f"the messages show {shown} images, {len(image_tokens)} are given")
    remaining = iter(image_tokens)
    text = ""
    for message, parts in zip(messages, contents, strict=True):
        inside = "".join(placeholders(next(remaining)) if part is None else part for part in parts)
        text += f"{IM_START}{message['role']}\n{inside}{IM_END}\n"
    return text + (f"{IM_START}assistant\n" if answer else "")


def _first_user(messages: Sequence[Mapping[str, Any]]) -> int:
    for index, message in enumerate(messages):
        if message["role"] == "user":
            return index
    raise ChatError("images are given, but there is no user's message to show them in")


def _parts(number: int, message: Mapping[str, Any]) -> list[str | None]:
    """A message's content as texts, and None for each image."""
    role, content = message.get("role"), message.get("content")
    if role not in ROLES or (role == "system" and number > 1):
        raise ChatError(
            f"message {number}: the role is {role!r}, expected 'user' or 'assistant'"
            + (" or 'system'" if number == 1 else "")
        )
    parts: list[str | None]
    if isinstance(content, str):
        first, *rest = content.split(TAG)
        parts = [first, *(part for text in rest for part in (None, text))]
    elif isinstance(content, list):
        parts = [_part(number, part) for part in content]
    else:
        raise ChatError(f"message {number}: the content is {content!r}, expected text or a list")
    for part in parts:
        if part is not None and (lone := _LONE_SURROGATE.search(part)):
            raise ChatError(
                f"message {number}: the text holds U+{ord(lone[0]):04X} alone, which is half a "
                "character"
            )
        for name in REFUSED:
            if part is not None and name in part:
                raise ChatError(f"message {number}: the text holds {name!r}; show images as {TAG}")
    return parts


def _part(number: int, part: object) -> str | None:
    found = part if isinstance(part, dict) else {}
    if found.get("type") == "image":
        for key, value in found.items():
            if key != "type" and value is not None:
                raise ChatError(
                    f"message {number}: an image is given under {key!r} in the message, expected "
                    "among the request's images"
                )
        return None
    if found.get("type") == "text" and isinstance(found.get("text"), str):
        return found["text"]
    raise ChatError(f"message {number}: a part is {part!r:.60}, expected an image or a text")
