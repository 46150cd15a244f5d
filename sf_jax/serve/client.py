"""Asking a running `sf-jax serve`, with nothing but the standard library on the way.

from sf_jax.client import ask
action = ask("http://127.0.0.1:8000", "photo.jpg")   # the FaceAction that predict would give

`Session` reads the frames of a camera, one after another, as `sf-jax predict` reads a video.
"""

import base64
import contextlib
import http.client
import io
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, urlencode, urlsplit

import numpy as np
from PIL import Image

from sf_jax.face.channels import NAMES
from sf_jax.face.describe import Description
from sf_jax.media import small_files
from sf_jax.reader.action import FaceAction, Values
from sf_jax.reader.output import from_json, unnamed


class ServiceError(ValueError):
    """An image that was not answered.

    Attributes:
      status: the HTTP status, None where there was no answer at all.
    """

    def __init__(self, message: str, status: int | None = None):
        super().__init__(message)
        self.status = status


Picture = str | os.PathLike | bytes | Image.Image | np.ndarray
Messages = Sequence[Mapping[str, Any]]


def ask(
    url: str,
    image: Picture,
    *,
    whole: bool | None = None,
    face: str | int = "largest",
    force: bool = False,
    rationale: bool = True,
    temperature: float = 0.0,
    seed: int = 0,
    max_rationale: int | None = None,
    messages: Messages | None = None,
    session: str | None = None,
    timeout: float = 60.0,
) -> FaceAction:
    """Reads one face over HTTP; the options are those of `Model.predict`.

    Args:
      url: of the service, such as http://127.0.0.1:8000.
      image: a path, the bytes of an image file, a PIL image or uint8 [H, W, 3].
      messages: the conversation to answer, for a model that is instructed.
      session: the image is the next frame of the session of this name, and drafted from the frame
        before; see `Session`, which hands out more than the answer.
      timeout: seconds to wait whenever the service is silent.

    Raises:
      ServiceError: the service refused, with its reason, or cannot be reached.
      OSError: the image file cannot be opened.
    """
    if face == "all":
        raise ServiceError("face: ask reads one face; ask_all reads all that are found")
    options: dict[str, Any] = {"rationale": rationale, "temperature": float(temperature)}
    options |= {"seed": seed, "max_rationale": max_rationale, "session": session}
    options |= _face_options(whole, face, force)
    return _answer(url, _predict(url, image, options, messages, timeout))


def ask_all(
    url: str,
    image: Picture,
    *,
    messages: Messages | None = None,
    timeout: float = 60.0,
    **asked: object,
) -> list[FaceAction]:
    """Reads all faces of an image, from left to right; an empty list if there are none.

    Args:
      messages, asked: options of `ask`, but for those of one face, the same for all.

    Raises:
      ServiceError, OSError: as `ask`.
    """
    content = _predict(url, image, asked | {"face": "all"}, messages, timeout)
    if not isinstance(content.get("faces"), list):
        raise ServiceError(f"{url}: the answer holds no faces", 200)
    return [_answer(url, one) for one in content["faces"]]


def _face_options(whole: bool | None, face: str | int, force: bool) -> dict[str, Any]:
    """What is asked of the face, as parameters; nothing where it is the default."""
    given = {"whole": whole, "face": None if face == "largest" else face, "force": force or None}
    return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class RemoteFrame:
    """What one frame of a session shows; see `sf_jax.reader.session.Frame`.

    Attributes:
      action: the model's answer.
      values: of each channel as the session's options ask; rationale: of these values.
      found: whether a face was found; True where none was searched for.
      number: how many frames of the session came before it. 0 anew: the service closed the session
        in between.
      change: "cut" or "another face", what has changed with this frame.
    """

    action: FaceAction
    values: Values
    rationale: Description
    found: bool
    number: int
    change: str | None = None


class Session:
    """Frames of one face, the state between them held by the service.

        with Session(url, smooth=True, fps=30) as session:
            frame = session.frame(image)

    Args:
      name: 1 to 64 letters, digits, dots, underscores or hyphens; by default a random one.
      whole, face, force, values, smooth, fps: see `sf_jax.reader.session.SessionOptions`.
      timeout: seconds to wait whenever the service is silent.
      asked: further options of `ask`, the same for every frame.
    """

    def __init__(
        self,
        url: str,
        name: str | None = None,
        *,
        whole: bool | None = None,
        face: str | int = "largest",
        force: bool = False,
        values: str = "mean",
        smooth: bool = False,
        fps: float = 30.0,
        timeout: float = 60.0,
        messages: Messages | None = None,
        **asked: Any,
    ):
        self.url, self.name = url, name or secrets.token_hex(8)
        self._messages, self._timeout = messages, timeout
        self._options = asked | {"session": self.name, "values": values}
        self._options |= _face_options(whole, face, force)
        self._options |= {"smooth": smooth, "fps": fps}

    def frame(
        self, image: Picture, seconds: float | None = None, neutral: bool = False
    ) -> RemoteFrame:
        """Reads the next frame.

        Args:
          seconds: the frame's time, for the smoothing; given for every frame or for none.
          neutral: this frame shows the person at rest, to be subtracted from now on.

        Raises:
          ServiceError: the service refused, with its reason, or cannot be reached.
        """
        options = self._options | {"seconds": seconds, "neutral": neutral}
        content = _predict(self.url, image, options, self._messages, self._timeout)
        action = _answer(self.url, content)
        try:
            own = content["frame"]
            values = unnamed(own["values"], content.get("channels", NAMES))
            rationale = Description(**own["rationale"])
            found, number = bool(own["found"]), int(own["number"])
            return RemoteFrame(action, values, rationale, found, number, own.get("change"))
        except (KeyError, TypeError, ValueError) as error:
            raise ServiceError(f"{self.url}: the answer holds no frame: {error!r}") from error

    def close(self) -> None:
        """Closes the session; one that the service has closed by time already is no error."""
        path = f"/v1/sessions/{quote(self.name, safe='')}"
        status, content = _request(_parts(self.url), "DELETE", path, None, "", self._timeout)
        if status != 404:
            _content(self.url, status, content)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.nullcontext() if kind is None else contextlib.suppress(ServiceError):
            self.close()


def _predict(
    url: str, image: Picture, options: dict[str, Any], messages: Messages | None, timeout: float
) -> dict[str, Any]:
    """The service's answer as JSON."""
    given = {name: value for name, value in options.items() if value is not None}
    query = urlencode({k: str(v).lower() if isinstance(v, bool) else v for k, v in given.items()})
    body, kind = encoded(image), "application/octet-stream"
    if messages is not None:
        fields = {"image": base64.b64encode(body).decode(), "messages": list(messages)}
        body, kind = json.dumps(fields).encode(), "application/json"
    path = f"/v1/predict?{query}"
    status, content = _request(_parts(url), "POST", path, body, kind, timeout)
    return _content(url, status, content)


def _content(url: str, status: int, content: bytes) -> dict[str, Any]:
    """The object that a reply holds.

    Raises:
      ServiceError: it is a refusal, or no reply of this service.
    """
    try:
        found = small_files.parse_json(content)
        if status == 200:
            return dict(found)
        reason = found["error"]
    except (ValueError, KeyError, TypeError) as error:
        start = content[:80].decode("utf-8", "replace")
        message = f"{url}: {status}, not an answer of sf-jax: {start!r}"
        raise ServiceError(message, status) from error
    raise ServiceError(f"{url}: {status}, {reason}", status)


def _answer(url: str, content: dict[str, Any]) -> FaceAction:
    try:
        return from_json(content)
    except ValueError as error:
        start = json.dumps(content)[:80]
        message = f"{url}: not an answer of sf-jax: {start!r}: {error}"
        raise ServiceError(message, 200) from error


def encoded(image: Picture) -> bytes:
    """The bytes of an image file; arrays and PIL images become PNG, which loses nothing."""
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


def _request(
    parts: SplitResult, method: str, path: str, body: bytes | None, kind: str, timeout: float
) -> tuple[int, bytes]:
    """Sends a request; its status and the body of the reply."""
    secure = parts.scheme == "https"
    connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = connect(str(parts.hostname), parts.port, timeout=timeout)
    headers = {} if body is None else {"Content-Type": kind}
    try:
        connection.connect()
        # A service may refuse before it has read everything: its reason is then there to be read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, parts.path.rstrip("/") + path, body, headers)
        reply = connection.getresponse()
        return reply.status, reply.read()
    except (OSError, http.client.HTTPException) as error:
        where = f"{parts.scheme}://{parts.netloc}"
        raise ServiceError(f"{where}: no answer: {error or type(error).__name__}") from error
    finally:
        connection.close()
