"""The service behind `sf-jax serve`: an ASGI app that answers pictures over HTTP.

    POST /v1/predict   the bytes of a picture file → words and coefficients, as JSON
    GET  /health       200 when ready, else 503; what is being done
    GET  /docs         the OpenAPI page (/openapi.json)

A request that is not answered gets `{"error": reason}`. Bodies, pixels, time and the number of
requests held at once are limited; see `Limits`.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import sf_jax
from sf_jax.convert.processor import ProcessorError
from sf_jax.media.images import ImageError, TooLargeError, read_bytes
from sf_jax.reader.output import exact_json
from sf_jax.serve.batching import Batcher, ClosedError, Options, answer_batch

if TYPE_CHECKING:
    from sf_jax.reader.estimator import FaceAction, Model

DECODERS = 2  # threads that read pictures beside the one that answers
LINGER = 1.0  # seconds for which the rest of a refused body is read and dropped
RETRY_AFTER = {"Retry-After": "1"}
CLOSE = {"Connection": "close"}


@dataclass(frozen=True)
class Limits:
    """What one request may cost.

    Attributes:
      max_bytes: of a body.
      max_pixels: of a picture, looked at before it is decoded.
      timeout: seconds from the first byte of the body to the answer.
      queue: the most requests held at once, being read, waiting or being answered.
      max_words: caps that a request may ask for; each is a program of its own, so the number of
        them is the server's to say.
    """

    max_bytes: int = 10 * 2**20
    max_pixels: int = 50_000_000
    timeout: float = 30.0
    queue: int = 64
    max_words: tuple[int, ...] = ()


class Refusal(Exception):
    """A request that is not answered: an HTTP status and the reason."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None):
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers


class Service:
    """A model, its batcher, and what is going on.

    Attributes:
      status: "starting" until the programs are compiled, then "ready"; "draining" at the end.
      held: requests being read, waiting or being answered.
    """

    def __init__(self, model: "Model", limits: Limits, batch: int = 16, wait: float = 0.005):
        self.model, self.limits = model, limits
        self.status: Literal["starting", "ready", "draining"] = "starting"
        self.held = 0
        self.batcher = Batcher(partial(answer_batch, model), batch, wait)
        self._decoders = ThreadPoolExecutor(DECODERS, "decoder")

    def close(self) -> None:
        """Takes nothing more; returns once everything is answered."""
        self._decoders.shutdown()
        self.batcher.close()

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """One request's place among those held.

        Raises:
          Refusal: not ready yet, or there is no place.
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

    def read(self, body: bytes) -> np.ndarray:
        """uint8 [H, W, 3], resized as the model will see it, so that what waits is small.

        Raises:
          Refusal: no picture, or one that is too large or too long for its width.
        """
        try:
            # Resizing what has been resized changes nothing: the answer is that of `predict`.
            return self.model.processor.fit(read_bytes(body, self.limits.max_pixels))
        except TooLargeError as error:
            raise Refusal(413, str(error)) from error
        except (ImageError, ProcessorError) as error:
            raise Refusal(422, str(error)) from error

    async def answer(self, body: bytes, options: Options) -> "FaceAction":
        """The answer to a picture file's bytes.

        Raises:
          Refusal: what `read` refuses, or the model failed.
        """
        loop = asyncio.get_running_loop()
        try:
            picture = await loop.run_in_executor(self._decoders, self.read, body)
            return await asyncio.wrap_future(self.batcher.submit(picture, options))
        except ClosedError as error:
            raise Refusal(503, f"draining: {error}", RETRY_AFTER) from error
        except ImageError as error:
            raise Refusal(422, str(error)) from error
        except (Refusal, asyncio.CancelledError):
            raise
        except Exception as error:
            print(f"sf-jax: error: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            raise Refusal(500, f"the model failed: {type(error).__name__}") from error


class Asked(BaseModel):
    """Query parameters of a request."""

    model_config = ConfigDict(extra="forbid")  # a misspelt one is refused, not passed over
    words: bool = Field(True, description="speak the rationale first")
    temperature: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="0 takes the likeliest answer"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="of sampling at a temperature above 0")
    max_words: int | None = Field(
        None, description="cap on the rationale in tokens, one of those that the server offers"
    )


class Rationale(BaseModel):
    """The words, in four fields."""

    expression: str
    movements: str
    emotion: str
    symmetry: str


class Answer(BaseModel):
    """What one picture shows: channel name → number, all 61. The floats are float32, unrounded."""

    rationale: Rationale
    text: str = Field(description="the answer as spoken, words and JSON")
    coefficients: dict[str, float] = Field(description="the mean of each channel's distribution")
    answer: dict[str, float] = Field(description="the value spoken")
    spread: dict[str, float] = Field(description="the distribution's standard deviation")
    entropy: dict[str, float] = Field(description="the distribution's entropy in nats")
    log_likelihood: dict[str, float] = Field(description="of the value spoken")
    passes: dict[str, int] = Field(description="model passes spent")
    words: list[int] = Field(description="the words as the model's tokens")


class Error(BaseModel):
    """Why a request was not answered."""

    error: str


class Health(BaseModel):
    """What the service is doing."""

    status: Literal["starting", "ready", "draining"]
    held: int = Field(description="requests being read, waiting or being answered")
    waiting: int = Field(description="of these, pictures that wait for a batch")
    answered: int = Field(description="pictures answered since the start")
    batches: int = Field(description="batches they were answered in")


REFUSALS: dict[int | str, dict[str, Any]] = {
    408: {"model": Error, "description": "the body came too slowly"},
    413: {"model": Error, "description": "too many bytes or pixels"},
    415: {"model": Error, "description": "a form in place of a picture"},
    422: {"model": Error, "description": "no readable picture, or an option that is not offered"},
    503: {"model": Error, "description": "busy, starting or ending; see Retry-After"},
    504: {"model": Error, "description": "no answer within the time limit"},
}
BODY = {
    "required": True,
    "description": "the bytes of a picture file: JPEG, PNG, WebP, TIFF and others",
    "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
}


def build_app(service: Service) -> FastAPI:
    """The ASGI app of a service."""
    app = FastAPI(
        title="sf_jax",
        version=sf_jax.__version__,
        description="Facial action estimation: a picture → words and 61 ARKit coefficients.",
    )
    _tell_reasons(app)

    @app.post(
        "/v1/predict",
        response_model=Answer,
        responses=REFUSALS,
        openapi_extra={"requestBody": BODY},
        summary="Reads one face",
    )
    async def predict(request: Request, asked: Annotated[Asked, Query()]) -> JSONResponse:
        options = _options(asked, service.limits)
        with service.hold():
            return JSONResponse(exact_json(await _in_time(service, request, options)))

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
        )
        return JSONResponse(content.model_dump(), 200 if service.status == "ready" else 503)

    return app


def _options(asked: Asked, limits: Limits) -> Options:
    if asked.max_words is not None and asked.max_words not in limits.max_words:
        offered = ", ".join(map(str, limits.max_words)) or "none but the model's own"
        raise Refusal(422, f"max_words: {asked.max_words} is not offered; there are {offered}")
    # Without words their cap means nothing, and would only ask for another program.
    return Options(**asked.model_dump() | ({} if asked.words else {"max_words": None}))


async def _in_time(service: Service, request: Request, options: Options) -> "FaceAction":
    """Reads the body and answers, both within the time limit."""
    body, limits = None, service.limits
    try:
        async with asyncio.timeout(limits.timeout):
            body = await _read_body(request, limits.max_bytes)
            return await service.answer(body, options)
    except TimeoutError:
        if body is None:
            reason = f"the body was not there within {limits.timeout:g} s"
            raise Refusal(408, reason, CLOSE) from None
        reason = f"no answer within {limits.timeout:g} s"
        raise Refusal(504, reason, RETRY_AFTER) from None
    except ClientDisconnect:
        raise Refusal(400, "the connection ended before the body did") from None


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
        raise Refusal(415, "a form; send the picture's bytes as the body (curl --data-binary)")
    if not body:
        raise Refusal(422, "the body is empty; send the bytes of a picture file")


async def _drop(stream: AsyncIterator[bytes], most: int) -> None:
    """Reads on for a while: closing on a client that still sends would lose it the reason."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            async for chunk in stream:
                most -= len(chunk)
                if most < 0:
                    return


def _tell_reasons(app: FastAPI) -> None:
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
        said = [f"{found['loc'][-1]}: {found['msg']}" for found in error.errors()]
        return JSONResponse({"error": "; ".join(said)}, 422)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": f"the service failed: {type(error).__name__}"}, 500)
