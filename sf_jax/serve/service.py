"""The service that `sf-jax serve` runs: an ASGI app that answers images over HTTP.

    POST   /v1/predict         the bytes of an image file → rationale and coefficients, as JSON
    DELETE /v1/sessions/NAME   closes a session
    GET    /health             200 when ready, else 503; what is being done
    GET    /docs               the OpenAPI page (/openapi.json)

With `?session=NAME` an image is the next frame of that session: see `sf_jax.reader.session`. A
JSON body carries messages beside the image, for models that are instructed.

A request that is not answered gets `{"error": reason}`. Bodies, pixels, time, sessions and the
number of requests held at once are limited; see `Limits`.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import sf_jax
from sf_jax.convert.processor import FittedImage, ProcessorError
from sf_jax.face.one_euro import TimeOrderError
from sf_jax.media.images import ImageError, TooLargeError, read_bytes
from sf_jax.reader.output import exact_json
from sf_jax.reader.session import Frame, Framed, Session
from sf_jax.sequence.chat import ChatError, chat_text
from sf_jax.serve.batching import Batcher, ClosedError, Options, answer_batch, is_long
from sf_jax.serve.sessions import SessionMismatchError, Sessions, SessionsFullError
from sf_jax.serve.wire import (
    BODY,
    REFUSALS,
    RENAMED,
    Answer,
    Asked,
    Error,
    FrameAnswer,
    Health,
    WireError,
    frame_json,
    read_json_body,
)

if TYPE_CHECKING:
    from sf_jax.reader.action import FaceAction
    from sf_jax.reader.estimator import Model
    from sf_jax.reader.question import Messages

T = TypeVar("T")

DECODERS = 2  # threads that decode images beside the one that answers
LINGER = 1.0  # seconds for which the rest of a refused body is read and dropped
RETRY_AFTER = {"Retry-After": "1"}
CLOSE = {"Connection": "close"}


@dataclass(frozen=True)
class Limits:
    """What one request may cost.

    Attributes:
      max_bytes: of a body.
      max_pixels: of an image, checked before it is decoded.
      timeout: seconds from the first byte of the body to the answer.
      queue: the most requests held at once, being read, waiting or being answered.
      max_rationale: caps that a request may ask for; each is a program of its own, so the number of
        them is the server's to say.
      sessions: open at a time; session_idle: seconds after which an unused one is closed.
      messages: bytes of a request's messages as JSON.
    """

    max_bytes: int = 10 * 2**20
    max_pixels: int = 50_000_000
    timeout: float = 30.0
    queue: int = 64
    max_rationale: tuple[int, ...] = ()
    sessions: int = 64
    session_idle: float = 60.0
    messages: int = 32_768


class Refusal(Exception):
    """A request that is not answered: an HTTP status and the reason."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None):
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers


class Service:
    """A model, its batcher, its sessions, and their state.

    Attributes:
      status: "starting" until the programs are compiled, then "ready"; "draining" at the end.
      held: requests being read, waiting or being answered.
      sessions: those that are open.
    """

    def __init__(self, model: "Model", limits: Limits, batch: int = 16, wait: float = 0.005):
        self.model, self.limits = model, limits
        self.status: Literal["starting", "ready", "draining"] = "starting"
        self.held = 0
        self.sessions = Sessions(limits.sessions, limits.session_idle)
        self.batcher = Batcher(partial(answer_batch, model), batch, wait, partial(is_long, model))
        self._decoders = ThreadPoolExecutor(DECODERS, "decoder")

    def close(self) -> None:
        """Takes nothing more; returns once everything is answered."""
        self._decoders.shutdown()
        self.batcher.close()

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Counts one request among those held.

        Raises:
          Refusal: not ready yet, or there is no room.
        """
        if self.status == "starting":
            raise Refusal(503, "starting: the model is being compiled", RETRY_AFTER)
        if self.held >= self.limits.queue:
            raise Refusal(503, f"busy: {self.held} requests are held already", RETRY_AFTER)
        self.held += 1
        try:
            yield
        finally:
            self.held -= 1

    def read(self, body: bytes, session: Session) -> tuple[FittedImage, Framed]:
        """An image file's bytes as the model will see them, framed by their session.

        Both are resized, so that what waits is small.

        Raises:
          Refusal: no image, or one that is too large or too long for its width.
        """
        try:
            framed = session.framed(read_bytes(body, self.limits.max_pixels))
            fitted = self.model.processor.fit(framed.image)
            return fitted, replace(framed, image=fitted.pixels)
        except TooLargeError as error:
            raise Refusal(413, str(error)) from error
        except (ImageError, ProcessorError) as error:
            raise Refusal(422, str(error)) from error

    async def answer(self, body: bytes, options: Options) -> "FaceAction":
        """The answer to an image file's bytes.

        Raises:
          Refusal: what `read` refuses, or the model failed.
        """
        picture, _ = await self._in_decoder(self.read, body, Session())
        return await self._predicted(picture, options)

    async def frame(self, body: bytes, options: Options, asked: Asked) -> Frame:
        """The answer to an image file's bytes as the next frame of the session asked for.

        Raises:
          Refusal: there is no room for the session, it began with other options, time runs
            backwards; and as `answer`.
        """
        assert asked.session is not None
        try:
            async with self.sessions.use(asked.session, asked.session_options()) as session:
                picture, framed = await self._in_decoder(self.read, body, session)
                previous = replace(options, previous=session.previous)
                action = await self._predicted(picture, previous)
                if asked.neutral:
                    session.set_neutral(action)
                return session.answered(framed, action, asked.seconds)
        except SessionsFullError as error:
            raise Refusal(503, f"busy: {error}", RETRY_AFTER) from error
        except SessionMismatchError as error:
            raise Refusal(409, str(error)) from error
        except TimeOrderError as error:
            raise Refusal(422, f"seconds: {error}") from error

    async def _in_decoder(self, work: Callable[..., T], *arguments: Any) -> T:
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._decoders, work, *arguments)
        except (Refusal, asyncio.CancelledError):
            raise
        except Exception as error:
            raise _failed(error) from error

    async def _predicted(self, picture: FittedImage, options: Options) -> "FaceAction":
        try:
            return await asyncio.wrap_future(self.batcher.submit(picture, options))
        except ClosedError as error:
            raise Refusal(503, f"draining: {error}", RETRY_AFTER) from error
        except ImageError as error:
            raise Refusal(422, str(error)) from error
        except asyncio.CancelledError:
            raise
        except Exception as error:
            raise _failed(error) from error

    def check_messages(self, messages: "Messages") -> None:
        """Whether the model can answer them.

        Raises:
          Refusal: the model is not instructed, or they are no conversation about one image, or
            too long.
        """
        if not self.model.instructed:
            reason = "messages: this model was trained on its own prompt and reads no other"
            raise Refusal(422, reason)
        try:
            size = len(json.dumps(messages, ensure_ascii=False).encode())
        except UnicodeEncodeError as error:  # half of a surrogate pair, which JSON may spell
            raise Refusal(422, f"messages: no Unicode text: {error.reason}") from error
        if size > self.limits.messages:
            reason = f"messages: {size:,} bytes, at most {self.limits.messages:,} are read"
            raise Refusal(422, reason)
        try:
            chat_text(messages, [1])
        except ChatError as error:
            raise Refusal(422, f"messages: {error}") from error


def _failed(error: Exception) -> Refusal:
    """What a client learns of an error that is no fault of its request; the log gets the rest."""
    print(f"sf-jax: error: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    return Refusal(500, f"the model failed: {type(error).__name__}")


def build_app(service: Service) -> FastAPI:
    """The ASGI app of a service."""
    app = FastAPI(
        title="sf_jax",
        version=sf_jax.__version__,
        description="Facial action estimation: an image → rationale and ARKit coefficients.",
    )
    _reply_with_reasons(app)

    @app.post(
        "/v1/predict",
        response_model=Answer | FrameAnswer,
        responses=REFUSALS,
        openapi_extra={"requestBody": BODY},
        summary="Reads one face",
    )
    async def predict(request: Request, asked: Annotated[Asked, Query()]) -> JSONResponse:
        options = _options(asked, service.limits)
        with service.hold():
            return JSONResponse(await _in_time(service, request, options, asked))

    @app.delete(
        "/v1/sessions/{name}", responses={404: {"model": Error}}, summary="Closes a session"
    )
    async def close(name: str) -> JSONResponse:
        if not service.sessions.close(name):
            raise Refusal(404, f"no session {name!r} is open")
        return JSONResponse({"closed": name})

    @app.get(
        "/health", response_model=Health, responses={503: {"model": Health}}, summary="Is it ready?"
    )
    async def health() -> JSONResponse:
        batcher = service.batcher
        content = Health(
            status=service.status,
            held=service.held,
            waiting=batcher.waiting,
            answered=batcher.answered,
            batches=batcher.batches,
            sessions=len(service.sessions),
            sf_jax=service.model.provenance.as_json(),
        )
        return JSONResponse(content.model_dump(), 200 if service.status == "ready" else 503)

    return app


def _options(asked: Asked, limits: Limits) -> Options:
    cap = asked.max_rationale
    if cap is not None and cap not in limits.max_rationale:
        offered = ", ".join(map(str, limits.max_rationale)) or "none but the model's own"
        raise Refusal(422, f"max_rationale: {cap} is not offered; there are {offered}")
    try:
        asked.session_options()
    except WireError as error:
        raise Refusal(422, str(error)) from error
    return Options(
        rationale=asked.rationale,
        temperature=asked.temperature,
        seed=asked.seed,
        # Without a rationale its cap means nothing, and would only ask for another program.
        max_rationale=cap if asked.rationale else None,
    )


async def _in_time(
    service: Service, request: Request, options: Options, asked: Asked
) -> dict[str, Any]:
    """Reads the body and answers, both within the time limit."""
    body, limits = None, service.limits
    try:
        async with asyncio.timeout(limits.timeout):
            body = await _read_body(request, limits.max_bytes)
            picture, messages = _parts(request, body)
            if messages is not None:
                service.check_messages(messages)
                options = replace(options, messages=messages)
            if asked.session is None:
                return exact_json(await service.answer(picture, options))
            return frame_json(asked.session, await service.frame(picture, options, asked))
    except TimeoutError:
        if body is None:
            reason = f"the body was not there within {limits.timeout:g} s"
            raise Refusal(408, reason, CLOSE) from None
        reason = f"no answer within {limits.timeout:g} s"
        raise Refusal(504, reason, RETRY_AFTER) from None
    except ClientDisconnect:
        raise Refusal(400, "the connection ended before the body did") from None


def _parts(request: Request, body: bytes) -> "tuple[bytes, Messages | None]":
    """The image file's bytes and the messages of a body."""
    if not request.headers.get("content-type", "").startswith("application/json"):
        return body, None
    try:
        return read_json_body(body)
    except WireError as error:
        raise Refusal(422, str(error)) from error


async def _read_body(request: Request, most: int) -> bytes:
    """The body, cut off where it passes `most` bytes, whether or not its length was declared.

    Raises:
      Refusal: too long, empty, or a form.
    """
    declared = request.headers.get("content-length", "")
    stream = request.stream()
    body = bytearray()
    if not declared.isdigit() or int(declared) <= most:
        async for chunk in stream:
            body += chunk
            if len(body) > most:
                break
        else:
            _check_kind(request, body)
            return bytes(body)
    if "expect" not in request.headers:  # such a client sends nothing before it is asked to
        await _drop(stream, most)
    size = f"{int(declared):,} bytes" if declared.isdigit() else f"more than {most:,} bytes"
    raise Refusal(413, f"the body is {size}, at most {most:,} are read", CLOSE)


def _check_kind(request: Request, body: bytearray) -> None:
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise Refusal(415, "a form; send the image's bytes as the body (curl --data-binary)")
    if not body:
        raise Refusal(422, "the body is empty; send the bytes of an image file")


async def _drop(stream: AsyncIterator[bytes], most: int) -> None:
    """Reads on for a while: closing on a client that still sends would lose it the reason."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            async for chunk in stream:
                most -= len(chunk)
                if most < 0:
                    return


def _reason(name: str, problem: str) -> str:
    """Why a parameter was refused."""
    return f"{name}: renamed, use {RENAMED[name]}" if name in RENAMED else f"{name}: {problem}"


def _reply_with_reasons(app: FastAPI) -> None:
    """Every refusal, the framework's own too, as `{"error": reason}`."""

    @app.exception_handler(Refusal)
    async def refused(_: Request, refusal: Refusal) -> JSONResponse:
        return JSONResponse({"error": refusal.reason}, refusal.status, refusal.headers)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        reason = f"{request.method} {request.url.path}: {error.detail}; see /docs"
        return JSONResponse({"error": reason}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        reasons = [_reason(str(found["loc"][-1]), found["msg"]) for found in error.errors()]
        return JSONResponse({"error": "; ".join(reasons)}, 422)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": f"the service failed: {type(error).__name__}"}, 500)
