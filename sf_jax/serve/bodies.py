"""Reading the bodies of requests: bounded in size and time, and no forms."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from starlette.requests import Request

from sf_jax.serve.wire import Refusal, WireError, read_json_body

if TYPE_CHECKING:
    from sf_jax.reader.question import Messages

CLOSE = {"Connection": "close"}
LINGER = 1.0  # seconds for which the rest of a refused body is read and dropped
HESITATION = 5.0  # seconds that a body may take whatever its length, and
LEAST_RATE = 20_000  # bytes a second that it then has to come at
URLENCODED = re.compile(rb"[\w.%+*\[\]-]{1,100}=")  # no image file begins like that
MULTIPART = re.compile(rb"--[^\r\n]{1,100}\r?\ncontent-disposition:\s*form-data", re.IGNORECASE)


def kind_of(request: Request) -> str:
    """The media type of a body, in small letters and without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_json(request: Request) -> bool:
    """Whether a body claims to be JSON."""
    kind = kind_of(request)
    return kind == "application/json" or kind.endswith("+json")


def image_and_messages(request: Request, body: bytes, most: int) -> "tuple[bytes, Messages | None]":
    """The image file's bytes and the messages of a body.

    Args:
      most: bytes of messages.

    Raises:
      Refusal: a form, nothing, or JSON of another content.
    """
    if form := form_of(kind_of(request), body):
        raise Refusal(
            415,
            f"a form ({form}); send the bytes of the image file as the body, as "
            "curl --data-binary @photo.jpg does",
        )
    if not body:
        raise Refusal(422, "the body is empty; send the bytes of an image file")
    if not is_json(request):
        return body, None
    try:
        return read_json_body(body, most)
    except WireError as error:
        raise Refusal(422, str(error)) from error


def form_of(kind: str, body: bytes) -> str:
    """The media type of a form, "" if a body is none.

    curl calls the bytes of an image a urlencoded form too, unless it is given another type.
    """
    if kind.startswith("multipart/") or MULTIPART.match(body):
        return kind if kind.startswith("multipart/") else "multipart/form-data"
    urlencoded = "application/x-www-form-urlencoded"
    return urlencoded if kind == urlencoded and URLENCODED.match(body) else ""


async def read_body(request: Request, most: int) -> bytes:
    """The body, cut off where it passes `most` bytes, whether or not its length was declared.

    Raises:
      Refusal: it is too long, or comes too slowly.
    """
    declared = request.headers.get("content-length", "")
    stream = request.stream()
    body = bytearray()
    known = declared.isdecimal()
    if (not known or int(declared) <= most) and await _read(stream, body, most):
        return bytes(body)
    if "expect" not in request.headers:  # such a client sends nothing before it is asked to
        await _drop(stream, most)
    size = f"{int(declared):,} bytes" if known else f"more than {most:,} bytes"
    raise Refusal(413, f"the body is {size}, at most {most:,} are read", CLOSE)


async def _read(stream: AsyncIterator[bytes], body: bytearray, most: int) -> bool:
    """Appends to `body` what comes; whether it ended within `most` bytes."""
    start = asyncio.get_running_loop().time()
    late = asyncio.timeout_at(start + HESITATION)
    try:
        async with late:
            async for chunk in stream:
                body += chunk
                if len(body) > most:
                    return False
                late.reschedule(start + HESITATION + len(body) / LEAST_RATE)
    except TimeoutError:
        if not late.expired():
            raise
        reason = f"the body came too slowly, {len(body):,} bytes in {HESITATION:g} s and more"
        raise Refusal(408, reason, CLOSE) from None
    return True


async def _drop(stream: AsyncIterator[bytes], most: int) -> None:
    """Reads on for a while: closing on a client that still sends would lose it the reason."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            async for chunk in stream:
                most -= len(chunk)
                if most < 0:
                    return
