"""Asking a running `sf-jax serve`, with nothing but the standard library on the way.

from sf_jax.client import ask
action = ask("http://127.0.0.1:8000", "photo.jpg")   # the FaceAction that predict would give
"""

import contextlib
import http.client
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlencode, urlsplit

import numpy as np
from PIL import Image

from sf_jax.reader.output import from_json

if TYPE_CHECKING:
    from sf_jax.reader.estimator import FaceAction


class ServiceError(ValueError):
    """A picture that was not answered.

    Attributes:
      status: the HTTP status, None where there was no answer at all.
    """

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


def ask(
    url: str,
    image: str | os.PathLike | bytes | Image.Image | np.ndarray,
    *,
    words: bool = True,
    temperature: float = 0.0,
    seed: int = 0,
    max_words: int | None = None,
    timeout: float = 60.0,
) -> "FaceAction":
    """Reads one face over HTTP; the options are those of `Model.predict`.

    Args:
      url: of the service, such as http://127.0.0.1:8000.
      image: a path, the bytes of a picture file, a PIL image or uint8 [H, W, 3].
      timeout: seconds to wait whenever the service is silent.

    Raises:
      ServiceError: the service refused, with its reason, or cannot be reached.
      OSError: the picture file cannot be opened.
    """
    options = {"words": str(words).lower(), "temperature": float(temperature), "seed": seed}
    if max_words is not None:
        options["max_words"] = max_words
    status, content = _post(_parts(url), options, encoded(image), timeout)
    try:
        found = json.loads(content)
        if status == 200:
            return from_json(found)
        reason = found["error"]
    except (ValueError, KeyError, TypeError) as error:
        said = content[:80].decode("utf-8", "replace")
        raise ServiceError(f"{url}: {status}, not an answer of sf-jax: {said!r}", status) from error
    raise ServiceError(f"{url}: {status}, {reason}", status)


def encoded(image: str | os.PathLike | bytes | Image.Image | np.ndarray) -> bytes:
    """The bytes of a picture file; arrays and PIL images become PNG, which loses nothing."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            found = f"{image.dtype} {list(image.shape)}"
            raise ServiceError(f"array: {found}, expected uint8 [height, width, 3] RGB")
        image = Image.fromarray(image)
    if isinstance(image, Image.Image):
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=1)
        return file.getvalue()
    return Path(image).read_bytes()


def _parts(url: str) -> SplitResult:
    """The parts of a service's address."""
    reason = "expected http://host:port"
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and parts.port != 0:
            return parts
    except ValueError as error:
        reason = str(error)
    raise ServiceError(f"{url!r} is no address of a service: {reason}")


def _post(
    parts: SplitResult, options: dict[str, Any], body: bytes, timeout: float
) -> tuple[int, bytes]:
    """Sends the request; its status and the body of the reply."""
    secure = parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(str(parts.hostname), parts.port, timeout=timeout)
    path = f"{parts.path.rstrip('/')}/v1/predict?{urlencode(options)}"
    try:
        connection.connect()
        # A service may refuse before it has read everything: its reason is then there to be read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request("POST", path, body, {"Content-Type": "application/octet-stream"})
        reply = connection.getresponse()
        return reply.status, reply.read()
    except (OSError, http.client.HTTPException) as error:
        where = f"{parts.scheme}://{parts.netloc}"
        raise ServiceError(f"{where}: no answer: {error or type(error).__name__}") from error
    finally:
        connection.close()
