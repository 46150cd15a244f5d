"""The service that `sf-jax serve` runs: an ASGI app that answers images over HTTP.

    POST   /v1/predict         the bytes of an image file → rationale and coefficients, as JSON
    DELETE /v1/sessions/NAME   closes a session
    GET    /health             200 when ready, else 503; what is being done
    GET    /docs               the OpenAPI page (/openapi.json)

Faces are found and framed as `sf-jax predict` does it. An image without a face is answered too,
with a status of its own in the answer: `"status": "no face"`, and null for every value.

With `?session=NAME` an image is the next frame of that session: see `sf_jax.reader.session`. A
JSON body carries messages beside the image, for models that are instructed.

A request that is not answered gets `{"error": reason}`. Bodies, pixels, time, sessions and the
number of requests held at once are limited; see `Limits`.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import sf_jax
from sf_jax.convert.processor import FittedImage, ProcessorError
from sf_jax.face.one_euro import TimeOrderError
from sf_jax.media.images import ImageError, TooLargeError
from sf_jax.reader.framing import Framed, Which
from sf_jax.reader.output import exact_json
from sf_jax.reader.session import Frame
from sf_jax.sequence.chat import ChatError, chat_text
from sf_jax.serve.batching import Batcher, ClosedError, Options, answer_batch, is_long
from sf_jax.serve.bodies import CLOSE, image_and_messages, is_json, read_body
from sf_jax.serve.decoder import Settings
from sf_jax.serve.decoding import DecoderError, Decoders
from sf_jax.serve.limits import Limits
from sf_jax.serve.sessions import SessionMismatchError, Sessions, SessionsFullError
from sf_jax.serve.wire import (
    BODY,
    REFUSALS,
    RENAMED,
    Answer,
    Asked,
    Error,
    FaceAnswers,
    FrameAnswer,
    Health,
    Refusal,
    State,
    WireError,
    faces_json,
    frame_json,
)

if TYPE_CHECKING:
    from sf_jax.reader.action import FaceAction
    from sf_jax.reader.estimator import Model
    from sf_jax.reader.question import Messages

WORKERS = 2  # threads that find and frame faces, and read large bodies
LARGE = 2**16  # bytes of a JSON body that is read in a thread, as the event loop would wait
PATIENCE = 0.25  # seconds of a processor after which an image is slow, and others go first
WHOLE = 8  # images held whole at a time, in which faces are found: each may take 150 MB
MOST_FACES = 32  # of one image that are read
Seen = TypeVar("Seen")
RETRY_AFTER = {"Retry-After": "1"}


class Service:
    """A model, its batcher, its decoders, its sessions, and their state.

    Attributes:
      status: "starting" until a program is compiled, "warming up" until all are, then "ready";
        "draining" at the end.
      held: requests being read, waiting or being answered.
      sessions: those that are open.
    """

    def __init__(
        self,
        model: "Model",
        limits: Limits,
        batch: int = 16,
        wait: float = 0.005,
        decoders: Decoders | None = None,
    ):
        """
        Args:
          batch, wait: see `Batcher`.
          decoders: in place of new ones.
        """
        self.model, self.limits = model, limits
        self.status: Literal["starting", "warming up", "ready", "draining"] = "starting"
        self.held = 0
        self._faceless = 0  # images answered without a reading: no face was found
        self.sessions = Sessions(model, limits.sessions, limits.session_idle)
        # Weights without checksums are hashed here, before there are requests that would wait.
        self._made_with = model.provenance.as_json()
        answer, alone = partial(answer_batch, model), partial(is_long, model)
        self.batcher = Batcher(answer, batch, wait, alone, self._most_together)
        self.decoders = decoders or Decoders(
            Settings(model.processor, limits.decode_memory, limits.decode_seconds),
            limits.decoders,
            PATIENCE,
        )
        self._workers = ThreadPoolExecutor(WORKERS, "worker")
        self._whole = asyncio.Semaphore(WHOLE)
        self._compiled: dict[Hashable, int] = {}
        self._warming = True

    def close(self) -> None:
        """Takes nothing more; returns once everything is answered."""
        self.batcher.close()
        self._workers.shutdown()
        self.decoders.close()

    def compiled(self, options: Options, size: int) -> None:
        """Takes note that batches of such options may now have so many images."""
        program = self._program(options)
        self._compiled[program] = max(size, self._compiled.get(program, 1))
        if self.status == "starting":
            self.status = "warming up"

    def all_compiled(self) -> None:
        """Takes note that every program is there. A service that drains before compiles no larger
        ones: its time is for answers."""
        self._warming, self.status = False, "ready"

    def _program(self, options: Options) -> Hashable:
        """What programs differ in, beside the size of a batch and the length of messages."""
        drafted = options.previous is not None and not self.model.drafts_rationale
        return options.rationale, options.max_rationale, drafted

    def _most_together(self, options: Options) -> int:
        """How many images may share a batch without a program being compiled for them."""
        return self._compiled.get(self._program(options), 1) if self._warming else sys.maxsize

    def problems(self) -> list[str]:
        """What keeps requests from being answered."""
        found = [self.batcher.problem(self.limits.timeout), self.decoders.problem()]
        if (waited := self.decoders.waited()) > self.limits.timeout / 2:
            found.append(f"an image has waited {waited:.0f} s for a decoder")
        return [problem for problem in found if problem]

    @property
    def answered(self) -> int:
        """Images answered or failed so far, those without a face included."""
        return self.batcher.answered + self._faceless

    def health(self) -> Health:
        """What it is doing, and how well."""
        problems, status = self.problems(), self.status
        shown: State = status
        if status in ("warming up", "ready"):
            shown = "failing" if problems else "busy" if self._full() else status
        return Health(
            status=shown,
            problems=problems,
            held=self.held,
            waiting=self.batcher.waiting,
            answered=self.answered,
            batches=self.batcher.batches,
            sessions=len(self.sessions),
            decoders=self.decoders.alive,
            killed=self.decoders.killed,
            sf_jax=self._made_with,
        )

    def _full(self) -> bool:
        return self.held >= self.limits.queue

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Counts one request among those held.

        Raises:
          Refusal: not ready yet, there is no room, or no request can be answered.
        """
        if self.status == "starting":
            raise Refusal(503, "starting: the model is being compiled", RETRY_AFTER)
        if self._full():
            raise Refusal(503, f"busy: {self.held} requests are held already", RETRY_AFTER)
        if problems := self.problems():
            raise Refusal(503, f"failing: {'; '.join(problems)}", RETRY_AFTER)
        self.held += 1
        try:
            yield
        finally:
            self.held -= 1

    async def answer(self, body: bytes, options: Options, asked: Asked) -> "FaceAction":
        """The answer to an image file's bytes.

        Raises:
          Refusal: no image, one that is too large, too long for its width or takes too long to
            decode, or the model failed.
        """
        given = asked.face_options()
        frames = self._frames(given["whole"], given["face"])
        framed = partial(self.model.framed, **given)
        return await self._predicted(await self._seen(body, frames, framed, Framed), options)

    async def faces(self, body: bytes, options: Options) -> "list[FaceAction]":
        """The answers to all faces of an image file's bytes, from left to right; the largest ones
        where there are more than `MOST_FACES`. Raises as `answer` does."""
        self._frames(False, "largest")
        found = await self._searched(body, self._all_framed)
        return await asyncio.gather(*[self._predicted(one, options) for one in found])

    def _all_framed(self, image: np.ndarray) -> list[Framed]:
        found = self.model.framed_faces(image)
        sides = sorted((one.face.box.side for one in found if one.face), reverse=True)
        least = 0.0 if len(found) <= MOST_FACES else sides[MOST_FACES - 1]
        return [one for one in found if one.face and one.face.box.side >= least]

    async def frame(self, body: bytes, options: Options, asked: Asked) -> Frame:
        """The answer to an image file's bytes as the next frame of the session asked for.

        Raises:
          Refusal: there is no room for the session, it began with other options, time runs
            backwards, the neutral frame has no face; and as `answer`.
        """
        assert asked.session is not None
        try:
            async with self.sessions.use(asked.session, asked.session_options()) as session:
                frames = self._frames(session.options.whole, session.options.face)
                step = await self._seen(body, frames, session.framed, session.framed)
                previous = replace(options, previous=session.previous)
                action = await self._predicted(step.framed, previous)
                if asked.neutral:
                    if not action.found:
                        raise Refusal(422, "neutral: no face was found")
                    session.set_neutral(action)
                return session.answered(step, action, asked.seconds)
        except SessionsFullError as error:
            raise Refusal(503, f"busy: {error}", RETRY_AFTER) from error
        except SessionMismatchError as error:
            raise Refusal(409, str(error)) from error
        except TimeOrderError as error:
            raise Refusal(422, f"seconds: {error}") from error

    def _frames(self, whole: bool | None, face: Which) -> bool:
        """Whether faces are found and framed.

        Raises:
          Refusal: it is asked for, and the model has no finder.
        """
        try:
            return self.model.frames(whole, face)
        except ValueError as error:
            raise Refusal(422, f"whole: {error}") from error

    async def _seen(
        self,
        body: bytes,
        frames: bool,
        framed: Callable[[np.ndarray], Seen],
        fitted: Callable[[FittedImage], Seen],
    ) -> Seen:
        """What is to be read of an image file's bytes.

        Args:
          frames: whether a face is found and framed.
          framed, fitted: what is to be read of a whole image, and of one as large as the model
            reads it.
        """
        if frames:
            return await self._searched(body, framed)
        with _refusals():
            picture = self.decoders.fitted(body, self.limits.max_pixels)
            return fitted(await asyncio.wrap_future(picture))

    async def _searched(self, body: bytes, framed: Callable[[np.ndarray], Seen]) -> Seen:
        """What is to be read of an image file's bytes in which faces are found.

        They are found here, in a thread beside that of the model: a decoder's process has no JAX,
        and would need the model's tower. It hands over the whole image.
        """
        with _refusals():
            async with self._whole:
                decoded = self.decoders.whole(body, self.limits.max_pixels)
                whole = await asyncio.wrap_future(decoded)
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._workers, framed, whole)

    async def _predicted(self, framed: Framed, options: Options) -> "FaceAction":
        if framed.picture is None:
            self._faceless += 1
            return self.model.no_face()
        if self._warming and self._program(options) not in self._compiled:
            reason = "warming up: the program for these options is being compiled"
            raise Refusal(503, reason, RETRY_AFTER)
        with _refusals():
            return await asyncio.wrap_future(self.batcher.submit(framed, options))

    async def image_and_messages(
        self, request: Request, body: bytes
    ) -> "tuple[bytes, Messages | None]":
        """The image file's bytes and the messages of a body.

        Raises:
          Refusal: the body holds none, or the model cannot answer the messages.
        """
        if len(body) < LARGE or not is_json(request):
            return self._read(request, body)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._workers, self._read, request, body)

    def _read(self, request: Request, body: bytes) -> "tuple[bytes, Messages | None]":
        picture, messages = image_and_messages(request, body, self.limits.messages)
        if messages is not None:
            self._check_messages(messages)
        return picture, messages

    def _check_messages(self, messages: "Messages") -> None:
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


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """Turns what goes wrong with an image into the refusal of its request."""
    try:
        yield
    except ClosedError as error:
        raise Refusal(503, f"draining: {error}", RETRY_AFTER) from error
    except DecoderError as error:
        raise Refusal(503, str(error), RETRY_AFTER) from error
    except TooLargeError as error:
        raise Refusal(413, str(error)) from error
    except (ImageError, ProcessorError) as error:
        raise Refusal(422, str(error)) from error
    except Exception as error:
        raise _failed(error) from error


def _failed(error: Exception) -> Refusal:
    """What a client learns of an error that is no fault of its request; the log gets the rest."""
    print(f"sf-jax: error: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    return Refusal(500, f"the model failed: {type(error).__name__}")


def build_app(service: Service) -> FastAPI:
    """The ASGI app of a service."""
    app = FastAPIOffline(  # as FastAPI, but /docs needs nothing from the internet
        title="sf_jax",
        version=sf_jax.__version__,
        description="Facial action estimation: an image → rationale and ARKit coefficients.",
        redoc_url=None,
    )
    _reply_with_reasons(app)

    @app.post(
        "/v1/predict",
        response_model=Answer | FrameAnswer | FaceAnswers,
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
        content = service.health()
        well = content.status in ("warming up", "ready")
        return JSONResponse(content.model_dump(), 200 if well else 503)

    return app


def _options(asked: Asked, limits: Limits) -> Options:
    cap = asked.max_rationale
    if cap is not None and cap not in limits.max_rationale:
        offered = ", ".join(map(str, limits.max_rationale)) or "none but the model's own"
        raise Refusal(422, f"max_rationale: {cap} is not offered; there are {offered}")
    try:
        asked.session_options()
        asked.face_options()
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
            body = await read_body(request, limits.max_bytes)
            picture, messages = await service.image_and_messages(request, body)
            options = replace(options, messages=messages)
            if asked.every:
                return faces_json(await service.faces(picture, options))
            if asked.session is None:
                return exact_json(await service.answer(picture, options, asked))
            return frame_json(asked.session, await service.frame(picture, options, asked))
    except TimeoutError:
        if body is None:
            reason = f"the body was not there within {limits.timeout:g} s"
            raise Refusal(408, reason, CLOSE) from None
        reason = f"no answer within {limits.timeout:g} s"
        raise Refusal(504, reason, RETRY_AFTER) from None
    except ClientDisconnect:
        raise Refusal(400, "the connection ended before the body did") from None
    except asyncio.CancelledError:
        if service.status != "draining":
            raise
        # The server cancels what it cannot wait for any longer; the client is to know.
        raise Refusal(503, "draining: the service is ending", CLOSE) from None


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
