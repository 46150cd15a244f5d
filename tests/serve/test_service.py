"""The service, called in process, and as `sf-jax serve` on loopback with a SIGTERM."""

import asyncio
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sf_jax import cli
from sf_jax.cli import loading
from sf_jax.cli import serve as command
from sf_jax.convert.processor import ImageProcessor
from sf_jax.face.channels import NAMES
from sf_jax.face.describe import describe
from sf_jax.media.images import ImageError
from sf_jax.reader import estimator
from sf_jax.reader.action import Provenance
from sf_jax.reader.framing import Framed, Framer
from sf_jax.reader.output import from_json
from sf_jax.serve import server as serve
from sf_jax.serve.client import ask
from sf_jax.serve.decoder import Settings
from sf_jax.serve.decoding import Decoders
from sf_jax.serve.listening import address, listen
from sf_jax.serve.service import Answer, Limits, Service, build_app
from tests.plain_model import PlainModel

PATIENCE = 60.0  # seconds after which a test gives up
ROOT = Path(__file__).parents[2]
PREDICT = "/v1/predict"
ALONE = {"messages": None, "previous": None}  # arguments of images without session and messages


def action_of(picture: np.ndarray) -> estimator.FaceAction:
    """An answer that tells which picture it is of, with numbers that rounding would change."""
    numbers = np.random.default_rng(picture.flat[0]).random((5, 61), np.float32)
    return estimator.FaceAction(
        *numbers[:3],
        describe(numbers[0]),
        "“ünsaid”",
        {"rationale": 3},
        entropy=numbers[3],
        log_likelihood=numbers[4],
        rationale_ids=np.array([5, 7], np.int32),
        provenance=Provenance(weights="xxh128:0"),
    )


class FakeModel(PlainModel):
    """Answers at once, or, with a gate, when it is opened."""

    instructed = False
    drafts_rationale = True
    provenance = Provenance(weights="xxh128:0")

    def __init__(self, gate: threading.Event | None = None, framer: Framer | None = None):
        super().__init__(framer)
        self.processor = ImageProcessor(4608, 9216)
        self.gate, self.called = gate, []  # type: ignore[var-annotated]

    def predict_batch(self, images: list[Framed], **called: Any) -> list:  # type: ignore[override]
        pictures = [image.picture.pixels for image in images if image.picture is not None]
        self.called.append((len(pictures), called))
        if self.gate:
            self.gate.wait()
        if any(picture.flat[0] == 13 for picture in pictures):
            raise ImageError("unlucky")
        if any(picture.flat[0] == 14 for picture in pictures):
            raise MemoryError("enormous")
        return [
            replace(action_of(picture), face=image.face)
            for picture, image in zip(pictures, images, strict=True)
        ]


def png(level: int = 100, width: int = 96, height: int = 96) -> bytes:
    """A picture whose first value is `level`, of a size that is not resized."""
    pixels = np.random.default_rng(level).integers(0, 256, (height, width, 3)).astype(np.uint8)
    pixels[0, 0] = level
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


class Reply:
    """Status, headers and content of one reply; `taken` is how many body chunks were read."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes, taken: int):
        self.status, self.headers, self.taken = status, headers, taken
        self.content = json.loads(body) if body else None


async def chunks_of(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def call(
    app: Any,
    path: str,
    body: Any = None,
    query: str = "",
    headers: dict[str, str] | None = None,
    method: str | None = None,
) -> Reply:
    """One request to an ASGI app, POST where there is a body: bytes, or chunks as they come."""
    method = method or ("GET" if body is None else "POST")
    parts = chunks_of([body]) if isinstance(body, bytes) else body
    sent: list[dict] = []
    taken = 0

    async def receive() -> dict:
        nonlocal taken
        try:
            part = await anext(parts)
        except StopAsyncIteration:
            return {"type": "http.request", "body": b"", "more_body": False}
        taken += 1
        return {"type": "http.request", "body": part, "more_body": True}

    async def send(message: dict) -> None:
        sent.append(message)

    given = [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http",
        "method": method, "path": path, "raw_path": path.encode(),
        "query_string": query.encode(), "root_path": "", "headers": given,
        "client": ("test", 1), "server": ("test", 80),
    }  # fmt: skip
    await app(scope, receive, send)
    found = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return Reply(sent[0]["status"], found, content, taken)


class SharedDecoders(Decoders):
    """Those of all tests that do not kill them: each process takes half a second to start."""

    def close(self) -> None:
        pass


@cache
def decoders(processor: ImageProcessor) -> Decoders:
    return SharedDecoders(Settings(processor, 2**31, 60.0), 2, 60.0)


@contextmanager
def serving(
    model: Any = None, limits: Limits | None = None, batch: int = 4, wait: float = 0.0
) -> Iterator[tuple[Any, Service]]:
    """The app of a service that is ready, and the service."""
    model = model or FakeModel()
    shared = decoders(model.processor)
    service = Service(model, limits or Limits(), batch, wait, shared)
    service.all_compiled()
    try:
        yield build_app(service), service
    finally:
        if getattr(model, "gate", None):
            model.gate.set()
        service.close()


@contextmanager
def on_loopback(model: Any, limits: Limits, batch: int = 2) -> Iterator[str]:
    """The address of a service that is ready, in a thread of this process."""
    with serving(model, limits, batch) as (_, service):
        server, listening = serve.Server(service), listen("127.0.0.1", 0)
        thread = threading.Thread(target=lambda: server.run(sockets=[listening]))
        thread.start()
        try:
            yield address(listening)
        finally:
            server.should_exit = True
            thread.join()


def reply_to(*arguments: Any, limits: Limits | None = None, **named: Any) -> Reply:
    with serving(limits=limits) as (app, _):
        return asyncio.run(call(app, *arguments, **named))


def same(one: estimator.FaceAction, other: estimator.FaceAction) -> bool:
    arrays = ("coefficients", "spread", "answer")
    for name in arrays:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        assert getattr(one, name).dtype == getattr(other, name).dtype == np.float32
    rest = [(a.rationale, a.text, a.passes) for a in (one, other)]
    return rest[0] == rest[1]


def test_an_answer_arrives_to_the_last_bit() -> None:
    reply = reply_to(PREDICT, png(7))
    assert reply.status == 200 and list(reply.content["spread"]) == list(NAMES)
    assert same(from_json(reply.content), action_of(np.full(1, 7)))
    assert not same(from_json(reply.content | {"text": "other"}), action_of(np.full(1, 7)))


def test_the_answer_is_as_the_openapi_page_says() -> None:
    reply = reply_to(PREDICT, png())
    assert set(Answer.model_validate(reply.content).model_dump()) == set(reply.content)
    schema = reply_to("/openapi.json").content
    described = schema["paths"][PREDICT]["post"]
    assert described["requestBody"]["content"]["image/*"]["schema"]["format"] == "binary"
    assert {p["name"] for p in described["parameters"]} == {
        "rationale", "temperature", "seed", "max_rationale",
        "whole", "crop", "face", "force",
        "session", "values", "smooth", "fps", "seconds", "neutral",
    }  # fmt: skip
    assert {"200", "408", "413", "415", "422", "503", "504"} <= set(described["responses"])
    refusal = described["responses"]["422"]["content"]["application/json"]["schema"]
    assert refusal == {"$ref": "#/components/schemas/Error"}


def test_options_reach_the_model() -> None:
    model = FakeModel()
    with serving(model, Limits(max_rationale=(40,))) as (app, _):
        for query in (
            "temperature=0.5&seed=7&max_rationale=40",
            "",
            "rationale=false&max_rationale=40",
        ):
            assert asyncio.run(call(app, PREDICT, png(), query)).status == 200
    usual = {"rationale": True, "temperature": [0.0], "seed": [0], "max_rationale": None} | ALONE
    given = {"rationale": True, "temperature": [0.5], "seed": [7], "max_rationale": 40} | ALONE
    assert model.called == [(1, given), (1, usual), (1, usual | {"rationale": False})]


SMALL = Limits(max_bytes=100_000, max_pixels=96 * 96, max_rationale=(40, 60))


@pytest.mark.parametrize(
    "body, query, status, reason",
    [
        (b"x" * 100_001, "", 413, "the body is more than 100,000 bytes, at most 100,000 are read"),
        (png(width=97), "", 413, "image: 97 x 96 pixels, at most 9,216 are read"),
        (b"", "", 422, "the body is empty"),
        (b"no picture", "", 422, "image: not an image in a known format"),
        (png()[:5000], "", 422, "image: damaged or truncated"),
        (png(width=9000, height=1), "", 422, "200"),
        (png(), "temperature=warm", 422, "temperature: "),
        (png(), "temperature=-1", 422, "temperature: "),
        (png(), "temperature=inf", 422, "temperature: "),
        (png(), "temperature=1e38", 422, "temperature: "),
        (png(), "temperature=1e39", 422, "temperature: "),
        (png(), "seed=1e3", 422, "seed: "),
        (png(), "seed=-1", 422, "seed: "),
        (png(), "seed=4294967296", 422, "seed: "),
        (png(), "rationale=perhaps", 422, "rationale: "),
        (png(), "max_rationale=50", 422, "max_rationale: 50 is not offered; there are 40, 60"),
        (png(), "rationael=false", 422, "rationael: "),
        (png(), "words=false", 422, "words: renamed, use rationale"),
        (png(), "max_words=40", 422, "max_words: renamed, use max_rationale"),
    ],
)
def test_what_is_refused_gets_a_reason(body: bytes, query: str, status: int, reason: str) -> None:
    reply = reply_to(PREDICT, body, query, limits=SMALL)
    assert reply.status == status and set(reply.content) == {"error"}
    assert reason in reply.content["error"]


def test_what_is_within_the_limits_is_answered() -> None:
    assert reply_to(PREDICT, png(), "max_rationale=60", limits=SMALL).status == 200
    exact = Limits(max_bytes=len(png()))
    declared = {"Content-Length": str(len(png()))}
    assert reply_to(PREDICT, png(), limits=exact, headers=declared).status == 200


def test_forms_and_unknown_paths_are_refused() -> None:
    form = reply_to(PREDICT, png(), headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert form.status == 415 and "--data-binary" in form.content["error"]
    assert reply_to("/predict", png()).status == 404
    assert "GET /v1/predict" in reply_to(PREDICT).content["error"]


async def endless(part: bytes) -> AsyncIterator[bytes]:
    while True:
        yield part


def test_a_body_of_no_declared_length_is_cut_off() -> None:
    reply = reply_to(PREDICT, endless(b"x" * 1000), limits=Limits(max_bytes=10_000))
    assert reply.status == 413 and reply.headers["connection"] == "close"
    assert 20 <= reply.taken <= 23  # the limit, and as much again so that the sender can listen


@pytest.mark.parametrize("waits, taken", [({}, 11), ({"Expect": "100-continue"}, 0)])
def test_a_declared_length_is_believed(waits: dict[str, str], taken: int) -> None:
    """Of what is sent nevertheless some is read and dropped, unless the client waits for leave."""
    headers = {"Content-Length": "20000"} | waits
    body = endless(b"x" * 1000)
    reply = reply_to(PREDICT, body, headers=headers, limits=Limits(max_bytes=10_000))
    assert reply.status == 413 and reply.taken == taken
    assert "the body is 20,000 bytes" in reply.content["error"]


async def stalled() -> AsyncIterator[bytes]:
    yield b"x"
    await asyncio.Event().wait()


def test_a_body_that_stalls_is_given_up() -> None:
    reply = reply_to(PREDICT, stalled(), limits=Limits(timeout=0.05))
    assert reply.status == 408 and "the body was not there within 0.05 s" in reply.content["error"]


def test_an_answer_that_takes_too_long_is_given_up_and_its_place_is_free_again() -> None:
    with serving(FakeModel(threading.Event()), Limits(timeout=0.2)) as (app, service):
        reply = asyncio.run(call(app, PREDICT, png()))
        assert reply.status == 504 and "no answer within 0.2 s" in reply.content["error"]
        assert service.held == 0


async def until(true: Any) -> None:
    """Waits for something to become so."""
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.001)


def test_what_waits_shares_batches_and_each_gets_its_own() -> None:
    model = FakeModel(threading.Event())

    async def ask_all() -> list[Reply]:
        first = asyncio.ensure_future(call(app, PREDICT, png(1)))
        await until(lambda: model.called)
        others = [asyncio.ensure_future(call(app, PREDICT, png(i))) for i in range(2, 6)]
        await until(lambda: service.batcher.waiting == 4)
        health = (await call(app, "/health")).content
        assert (health["held"], health["waiting"], health["answered"]) == (5, 4, 0)
        model.gate.set()  # type: ignore[union-attr]
        return await asyncio.gather(first, *others)

    with serving(model) as (app, service):
        replies = asyncio.run(ask_all())
        assert (service.batcher.batches, service.batcher.answered, service.held) == (2, 5, 0)
    assert [size for size, _ in model.called] == [1, 4]
    for level, reply in enumerate(replies, 1):
        assert same(from_json(reply.content), action_of(np.full(1, level)))


def test_one_that_fails_harms_no_other(capsys: pytest.CaptureFixture) -> None:
    async def ask_all() -> list[Reply]:
        return await asyncio.gather(*(call(app, PREDICT, png(i)) for i in (12, 13, 14, 15)))

    with serving(batch=4, wait=PATIENCE) as (app, _):
        replies = asyncio.run(ask_all())
    assert [reply.status for reply in replies] == [200, 422, 500, 200]
    assert replies[1].content == {"error": "unlucky"}
    assert replies[2].content == {"error": "the model failed: MemoryError"}
    assert "MemoryError: enormous" in capsys.readouterr().err


def test_a_full_house_says_so() -> None:
    model = FakeModel(threading.Event())

    async def ask_all() -> tuple[Reply, list[Reply]]:
        held = [asyncio.ensure_future(call(app, PREDICT, png(i))) for i in (1, 2)]
        await until(lambda: service.held == 2)
        refused = await call(app, PREDICT, png(3))
        model.gate.set()  # type: ignore[union-attr]
        return refused, await asyncio.gather(*held)

    with serving(model, Limits(queue=2)) as (app, service):
        refused, answered = asyncio.run(ask_all())
        assert asyncio.run(call(app, PREDICT, png(3))).status == 200  # there is room again
    assert refused.status == 503 and refused.headers["retry-after"] == "1"
    assert [reply.status for reply in answered] == [200, 200]


def test_health_follows_the_service() -> None:
    with serving() as (app, service):
        for status, code in (("starting", 503), ("ready", 200), ("draining", 503)):
            service.status = status  # type: ignore[assignment]
            reply = asyncio.run(call(app, "/health"))
            assert (reply.status, reply.content["status"]) == (code, status)
            assert reply.content["sf_jax"]["weights"] == "xxh128:0"
        service.status = "starting"
        assert asyncio.run(call(app, PREDICT, png())).status == 503


def test_after_closing_nothing_is_taken() -> None:
    with serving() as (app, service):
        service.batcher.close()
        reply = asyncio.run(call(app, PREDICT, png()))
    assert reply.status == 503 and "draining" in reply.content["error"]


@pytest.fixture(scope="module")
def model() -> estimator.Model:
    return loading.load_model(None)


def test_draining_leaves_every_request_its_time() -> None:
    with serving(limits=Limits(timeout=7.5)) as (_, service):
        assert serve.Server(service).config.timeout_graceful_shutdown > 7.5  # type: ignore[operator]


def test_warming_up_meets_every_program() -> None:
    model = FakeModel()
    model.processor = ImageProcessor(65_536, 1_048_576)  # no image is too long for these bounds
    serve.warm_up(model, 3, [40], [(64, 64)])  # type: ignore[arg-type]
    met = {(size, called["rationale"], called["max_rationale"]) for size, called in model.called}
    asked = [(True, None), (False, None), (True, 40)]
    assert met == {(size, *options) for size in (1, 2, 3) for options in asked}
    model.drafts_rationale, model.called = (
        False,
        [],
    )  # frames of sessions have programs of their own
    serve.warm_up(model, 1, [], [(64, 64)])  # type: ignore[arg-type]
    found = [(called["rationale"], called["previous"] is None) for _, called in model.called]
    assert found == [(True, True), (True, False), (False, True), (False, False)]
    model.called = []
    serve.warm_up(model, 3, [40], [(64, 64)], lambda: True)  # type: ignore[arg-type]
    assert not model.called


@contextmanager
def process(*command: str) -> Iterator[tuple[subprocess.Popen, str]]:
    """A service in a process of its own, and its address."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert started.stdout is not None
        word, url = started.stdout.readline().split()
        assert word == "starting:"
        yield started, url
    finally:
        started.kill()
        started.communicate()


def health(url: str) -> dict[str, Any]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE)
    connection.request("GET", "/health")
    return json.loads(connection.getresponse().read())


def wait_for(url: str, **state: Any) -> None:
    ends = time.monotonic() + PATIENCE
    while not state.items() <= health(url).items():
        assert time.monotonic() < ends, health(url)
        time.sleep(0.01)


GATED = """
import sys, threading, time
from pathlib import Path
from sf_jax.cli import loading, serve
from sf_jax.serve import server
from tests.serve.test_service import FakeModel

model, gate = FakeModel(threading.Event()), Path(sys.argv[1])

def wait():
    while not gate.exists():
        time.sleep(0.01)
    model.gate.set()

def load(*_):
    threading.Thread(target=wait, daemon=True).start()
    return model

server.warm_up = lambda *_: None
loading.load_model = load
serve.main(["--port", "0", "--batch", "2"])
"""


def test_a_sigterm_drains(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with process("-c", GATED, str(gate)) as (started, url), ThreadPoolExecutor(5) as pool:
        wait_for(url, status="ready")
        asked = [pool.submit(ask, url, png(level), timeout=PATIENCE) for level in range(5)]
        wait_for(url, held=5)
        started.send_signal(signal.SIGTERM)
        host, port = url.removeprefix("http://").split(":")
        ends = time.monotonic() + PATIENCE
        with pytest.raises(ConnectionRefusedError):  # while five are still unanswered
            while time.monotonic() < ends:
                with suppress(ConnectionResetError):  # accepted while the socket was closing
                    socket.create_connection((host, int(port))).close()
        assert started.poll() is None and not any(future.done() for future in asked)
        gate.touch()
        for level, future in enumerate(asked):
            assert same(future.result(PATIENCE), action_of(np.full(1, level)))
        assert started.wait(PATIENCE) == 0


def test_the_command_serves_the_built_in_model(model: estimator.Model) -> None:
    with process("-m", "sf_jax", "serve", "--port", "0", "--batch", "1") as (started, url):
        assert health(url)["status"] == "starting"
        wait_for(url, status="ready")
        shown = np.asarray(Image.open(io.BytesIO(png())))
        assert same(ask(url, shown, whole=True), model.predict(shown, whole=True))
        assert not ask(url, shown).found  # noise
        started.send_signal(signal.SIGINT)  # one ends the service as a SIGTERM does
        assert started.wait(PATIENCE) == 0
        assert started.stdout is not None and started.stderr is not None
        assert started.stdout.read() == f"ready: {url}, see {url}/docs\n"
        logged = started.stderr.read()
        assert "Traceback" not in logged and logged.endswith("stopped: 2 images answered\n")


def test_a_warm_up_that_fails_ends_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(FakeModel):
        def predict_batch(self, images: list, **called: Any) -> list:
            raise ValueError("no memory\nfor this")

    monkeypatch.setattr(loading, "load_model", lambda *_: Broken())
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        with pytest.raises(ValueError, match="no memory"):
            command.main(["--port", "0"])
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), before, strict=True):
            signal.signal(number, handler)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--port", "70000"], "'70000' is no whole number from 0 to 65535"),
        (["--batch", "0"], "--batch"),
        (["--timeout", "0"], "'0' is not a positive number"),
        (["--grace", "3"], "'3' is not 4 or more"),
        (["--warm", "512"], "'512' is no WIDTHxHEIGHT in pixels"),
        (["--host", "256.0.0.1"], "cannot listen on 256.0.0.1 port 8000"),
        (["--port", "0", "--model", "nowhere"], "nowhere"),
    ],
)
def test_bad_arguments_are_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture
) -> None:
    assert cli.main(["serve", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("sf-jax: error: ") and err.count("\n") == 1 and words in err


def test_a_port_that_is_taken_is_reported_before_a_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(loading, "load_model", lambda *_: pytest.fail("loaded"))
    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        assert cli.main(["serve", "--port", port]) == 2
    assert f"port {port}: Address already in use" in capsys.readouterr().err


def test_without_the_framework_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name in ("server", "service"):
        monkeypatch.delitem(sys.modules, f"sf_jax.serve.{name}")
        monkeypatch.delattr(f"sf_jax.serve.{name}")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.main(["serve"]) == 2
    err = capsys.readouterr().err
    assert "pip install 'sf_jax[serve]'" in err and err.count("\n") == 1


def test_limits_have_their_defaults() -> None:
    options = vars(command.build_parser(Limits()).parse_args([]))
    given = {one.name: options[one.name] for one in fields(Limits) if one.name != "messages"}
    given["max_rationale"] = tuple(given["max_rationale"])
    assert Limits(**given) == Limits()
    assert (Limits(timeout=7).ends_within, Limits(grace=3).ends_within) == (17, 3)
