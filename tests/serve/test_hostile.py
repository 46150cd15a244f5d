"""Requests that mean harm, and parts of the service that hang: the others are answered, /health
reports it, and a SIGTERM ends the process."""

import asyncio
import http.client
import os
import re
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sf_jax.serve import bodies, listening, server
from sf_jax.serve.batching import Batcher, Options
from sf_jax.serve.client import ServiceError, ask
from sf_jax.serve.service import Limits
from tests.media.test_images import paged, progressive
from tests.serve.test_decoding import running, slow
from tests.serve.test_service import (
    PATIENCE,
    PREDICT,
    FakeModel,
    Reply,
    call,
    health,
    on_loopback,
    png,
    process,
    reply_to,
    serving,
    until,
    wait_for,
)

HANGING = """
import sys, threading, time
from sf_jax.cli import loading, serve
from sf_jax.serve import server
from tests.serve.test_service import FakeModel

model = FakeModel(threading.Event() if "hang" in sys.argv else None)
server.warm_up = lambda *_: time.sleep(600) if "warm" in sys.argv else None
loading.load_model = lambda *_: model
serve.main(["--port", "0", "--batch", "2", "--timeout", "2", "--grace", "4"])
"""


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in found for child in path.read_text().split()]


def bombs() -> list[bytes]:
    """A JPEG of 370,000 scans and a TIFF of 80,000 pages."""
    return [progressive(370_000), paged(80_000)]


def test_bombs_leave_honest_requests_their_answers() -> None:
    sent = [png(level % 10) for level in range(100)]
    sent[5:95:9] = bombs() * 5

    async def ask_all() -> tuple[list[Reply], Reply]:
        replies = await asyncio.gather(*(call(app, PREDICT, body) for body in sent))
        return replies, await call(app, "/health")

    with serving(limits=Limits(queue=100)) as (app, service):
        replies, state = asyncio.run(ask_all())
        assert service.held == 0
    assert state.status == 200 and state.content["status"] == "ready"
    scans = {reply.content["error"] for reply in replies if reply.status != 200}
    assert len(scans) == 1 and "a JPEG of more than 100 scans" in scans.pop()
    assert [reply.status for reply in replies].count(200) == 95  # a TIFF's first page is read


@pytest.mark.slow
def test_bombs_that_nothing_gives_away_leave_honest_requests_their_answers() -> None:
    """Ten, each of which takes a second or more and passes every count, beside a hundred."""
    with (
        process("-c", HANGING.replace('"2", "--g', '"300", "--g')) as (started, url),
        ThreadPoolExecutor(42) as pool,
    ):
        wait_for(url, status="ready")
        dear = [pool.submit(ask, url, slow()) for _ in range(10)]
        honest = [pool.submit(ask, url, png(level % 10)) for level in range(100)]
        states: list[str] = []
        while not all(future.done() for future in honest):
            states.append(health(url)["status"])
            time.sleep(0.2)
        for future in honest:
            future.result()
        assert set(states) <= {"ready", "busy"}
        reasons = [future.exception(PATIENCE) for future in dear]
        assert all(re.search("None|decod|no answer within", str(reason)) for reason in reasons)
        again = [pool.submit(ask, url, slow()) for _ in range(4)]
        wait_for(url, held=4)
        own = children(started.pid)
        started.send_signal(signal.SIGTERM)
        started.wait(PATIENCE)
        assert all(future.exception(PATIENCE) for future in again)
        assert own and not any(map(running, own))


@pytest.mark.parametrize(
    "what", ["hang", *(pytest.param(w, marks=pytest.mark.slow) for w in ("warm", "decoders"))]
)
def test_a_sigterm_ends_within_its_grace_whatever_hangs(what: str) -> None:
    """The model, a compilation, or the processes that decode."""
    with process("-c", HANGING, what) as (started, url), ThreadPoolExecutor(1) as pool:
        wait_for(url, status="starting" if what == "warm" else "ready", decoders=2)
        own = children(started.pid)
        if what == "decoders":
            for pid in own:
                os.kill(pid, signal.SIGSTOP)
        if what != "warm":
            asked = pool.submit(ask, url, png())
            wait_for(url, held=1)
        started.send_signal(signal.SIGTERM)
        assert started.wait(PATIENCE) == (0 if what == "decoders" else 1)
        if what != "warm":
            assert "503, draining: the service is ending" in str(asked.exception(PATIENCE))
        ends = time.monotonic() + PATIENCE
        while any(map(running, own)):
            assert time.monotonic() < ends
        assert len(own) == 2 and started.stderr is not None
        logged = started.stderr.read()
        assert "Traceback" not in logged
        assert ("it has not ended within 4 s; leaving" in logged) == (what != "decoders")


@pytest.mark.slow
def test_a_second_interrupt_ends_at_once() -> None:
    with process("-c", HANGING.replace('"4"', '"600"'), "hang") as (started, url):
        wait_for(url, status="ready")
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(ask, url, png())
            wait_for(url, held=1)
            started.send_signal(signal.SIGINT)
            ends = time.monotonic() + PATIENCE
            while started.poll() is None:
                assert time.monotonic() < ends
                started.send_signal(signal.SIGINT)
                time.sleep(0.05)
            assert started.returncode == 1 and asked.exception(PATIENCE)


def test_single_images_are_answered_as_soon_as_their_program_is_there() -> None:
    model = FakeModel(threading.Event())

    async def ask_all() -> None:
        assert (await call(app, PREDICT, png())).status == 503
        service.compiled(Options(), 1)
        state = await call(app, "/health")
        assert (state.status, state.content["status"]) == (200, "warming up")
        other = await call(app, PREDICT, png(), "rationale=false")
        assert other.status == 503 and "warming up: the program for these" in other.content["error"]
        first = asyncio.ensure_future(call(app, PREDICT, png(1)))
        await until(lambda: model.called)
        others = [asyncio.ensure_future(call(app, PREDICT, png(i))) for i in range(2, 6)]
        await until(lambda: service.batcher.waiting == 4)
        model.gate.set()  # type: ignore[union-attr]
        assert {reply.status for reply in await asyncio.gather(first, *others)} == {200}
        assert [size for size, _ in model.called] == [1] * 5
        model.gate.clear()  # type: ignore[union-attr]
        service.compiled(Options(), 2)
        first = asyncio.ensure_future(call(app, PREDICT, png(1)))
        await until(lambda: len(model.called) == 6)
        others = [asyncio.ensure_future(call(app, PREDICT, png(i))) for i in range(2, 6)]
        await until(lambda: service.batcher.waiting == 4)
        model.gate.set()  # type: ignore[union-attr]
        await asyncio.gather(first, *others)
        assert [size for size, _ in model.called[5:]] == [1, 2, 2]
        service.compiled(Options(), 1)  # the program of an image that is answered alone
        assert service._most_together(Options()) == 2
        service.status = "draining"  # no larger program is compiled in the time that is left
        assert service._most_together(Options()) == 2

    with serving(model) as (app, service):
        service.status, service._warming = "starting", True
        asyncio.run(ask_all())
        service.all_compiled()
        assert service.status == "ready" and service._most_together(Options()) > 2


def test_the_program_of_a_request_without_options_comes_first() -> None:
    model, met = FakeModel(), []
    server.warm_up(
        model,  # type: ignore[arg-type]
        2,
        [40],
        [(64, 64), (96, 64)],
        compiled=lambda options, size: met.append((options.rationale, size, len(model.called))),
    )
    assert met[0] == (True, 1, 1)
    singles = [size for _, size, _ in met[:6]]
    assert singles == [1] * 6
    # Batches of two hold any of the pictures, and are announced after the last of these.
    assert met[6] == (True, 2, 6 + 3 + 1) and [size for _, size, _ in met].count(2) == 3


def test_health_reports_what_is_wrong() -> None:
    model = FakeModel(threading.Event())

    async def state() -> tuple[int, str, str]:
        reply = await call(app, "/health")
        return reply.status, reply.content["status"], "; ".join(reply.content["problems"])

    async def ask_all() -> None:
        held = asyncio.ensure_future(call(app, PREDICT, png()))
        await until(lambda: model.called)
        assert await state() == (503, "busy", "")
        reply = await held
        assert reply.status == 504
        await until(service.problems)
        code, status, problems = await state()
        assert (code, status) == (503, "failing") and "answering a batch for" in problems
        reply = await call(app, PREDICT, png())
        assert reply.status == 503 and "failing: the model has been" in reply.content["error"]
        model.gate.set()  # type: ignore[union-attr]
        await until(lambda: not service.problems())
        assert (await state())[:2] == (200, "ready")

    with serving(model, Limits(queue=1, timeout=1)) as (app, service):
        asyncio.run(ask_all())


def test_a_thread_that_has_ended_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Batcher, "_next", lambda self: None)
    with serving() as (app, service):
        service.batcher._thread.join()
        reply = asyncio.run(call(app, "/health"))
        assert reply.status == 503
        assert reply.content["problems"] == ["the thread that runs the model has ended"]
        assert asyncio.run(call(app, PREDICT, png())).status == 503


def test_whatever_the_model_raises_goes_to_its_request() -> None:
    class Leaving(FakeModel):
        def predict_batch(self, images: list, **called: Any) -> list:
            if images[0].picture.pixels.flat[0] == 1:
                raise SystemExit("out of here")
            return super().predict_batch(images, **called)

    with serving(Leaving()) as (app, _):
        assert asyncio.run(call(app, PREDICT, png(1))).status == 500
        assert asyncio.run(call(app, PREDICT, png(2))).status == 200


FORM = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'


@pytest.mark.parametrize(
    "kind, body",
    [
        ("multipart/form-data; boundary=x", FORM + png()),
        ("Multipart/Form-Data; boundary=x", FORM + png()),
        ("MULTIPART/MIXED", png()),
        ("application/octet-stream", FORM.replace(b"Content-D", b"content-d") + png()),
        ("application/x-www-form-urlencoded", b"image=iVBORw0KGgo%3D"),
        ("Application/X-WWW-Form-URLEncoded; charset=utf-8", b"photo[0]=a&b=c"),
    ],
)
def test_forms_are_named_in_any_case_of_letters(kind: str, body: bytes) -> None:
    reply = reply_to(PREDICT, body, headers={"Content-Type": kind})
    assert reply.status == 415
    assert re.search(
        r"a form \((multipart/\S+|application/x-www-form-urlencoded)\)", reply.content["error"]
    )
    assert "curl --data-binary" in reply.content["error"]


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "IMAGE/PNG", "text/plain"])
def test_images_are_read_whatever_they_are_called(kind: str) -> None:
    """curl --data-binary calls everything a form."""
    assert reply_to(PREDICT, png(), headers={"Content-Type": kind}).status == 200


def test_json_is_known_in_any_case_of_letters() -> None:
    reply = reply_to(PREDICT, b"[]", headers={"Content-Type": "Application/JSON"})
    assert reply.status == 422 and '"image"' in reply.content["error"]


def test_the_docs_need_no_internet() -> None:
    """The page, and everything that it loads, comes from the service."""
    with on_loopback(FakeModel(), Limits()) as url:
        host = url.removeprefix("http://")

        def get(path: str) -> tuple[int, str]:
            connection = http.client.HTTPConnection(host, timeout=PATIENCE)
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode("utf-8", "replace")

        status, page = get("/docs")
        loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert status == 200 and len(loaded) >= 2
        assert [get(path)[0] for path in loaded] == [200] * len(loaded)
        assert not re.search(r"https?://", page)
        assert get("/redoc")[0] == 404


async def dripping() -> Any:
    while True:
        yield b"x"
        await asyncio.sleep(0.01)


def test_a_body_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "HESITATION", 0.1)
    reply = reply_to(PREDICT, dripping())
    assert reply.status == 408 and "the body came too slowly" in reply.content["error"]
    assert reply.headers["connection"] == "close"


def test_connections_are_bounded_and_there_is_room_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "CONNECTIONS", 5)
    with on_loopback(FakeModel(), Limits()) as url:
        host, port = url.removeprefix("http://").split(":")
        opened = [socket.create_connection((host, int(port)), PATIENCE) for _ in range(5)]
        with pytest.raises(ServiceError, match="no answer"):
            ask(url, png())
        for one in opened:
            one.close()
        ends = time.monotonic() + PATIENCE
        while True:
            try:
                ask(url, png())
                break
            except ServiceError:
                assert time.monotonic() < ends


def test_a_connection_is_of_use_after_errors() -> None:
    with on_loopback(FakeModel(), Limits()) as url:
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=PATIENCE)
        for body, query, status in (
            (b"no image", "", 422),
            (png() * 20, "?unknown=1", 422),
            (progressive(101), "", 422),
            (png(), "", 200),
        ):
            connection.request("POST", PREDICT + query, body)
            reply = connection.getresponse()
            reply.read()
            assert reply.status == status


def test_a_client_that_leaves_costs_no_other() -> None:
    """In the middle of its body, and while its image is being answered."""
    model = FakeModel(threading.Event())
    with on_loopback(model, Limits()) as url:
        host, port = url.removeprefix("http://").split(":")
        head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(png())
        for body in (png()[:50], png()):
            with socket.create_connection((host, int(port)), PATIENCE) as leaving:
                leaving.sendall(head + body)
                if len(body) > 50:
                    wait_for(url, held=1)
        model.gate.set()  # type: ignore[union-attr]
        ask(url, png())
        wait_for(url, held=0)
