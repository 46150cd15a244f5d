"""`ask`: what it sends, and what it says when things go wrong."""

import http.client
import io
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sf_jax.reader.output import from_json
from sf_jax.serve import listening
from sf_jax.serve.client import ServiceError, ask, encoded
from sf_jax.serve.listening import listen
from sf_jax.serve.service import Limits
from tests.serve.test_service import ALONE, FakeModel, action_of, on_loopback, png, same


@pytest.fixture(scope="module")
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture(scope="module")
def url(model: FakeModel) -> Iterator[str]:
    with on_loopback(model, Limits(max_bytes=1_000_000, max_rationale=(40,))) as found:
        yield found


def test_any_kind_of_picture_may_be_asked_about(url: str, tmp_path: Path) -> None:
    (tmp_path / "face.png").write_bytes(png(7))
    picture = Image.open(tmp_path / "face.png")
    for image in (
        tmp_path / "face.png",
        str(tmp_path / "face.png"),
        png(7),
        picture,
        np.asarray(picture),
    ):
        assert same(ask(url, image), action_of(np.full(1, 7)))
    assert same(ask(url + "/", png(8)), action_of(np.full(1, 8)))


def test_options_arrive(url: str, model: FakeModel) -> None:
    ask(url, png(), temperature=0.25, seed=2**32 - 1, max_rationale=40)
    given = {"rationale": True, "temperature": [0.25], "seed": [2**32 - 1], "max_rationale": 40}
    assert model.called[-1] == (1, given | ALONE)
    ask(url, png(), rationale=False)
    usual = {"rationale": False, "temperature": [0.0], "seed": [0], "max_rationale": None}
    assert model.called[-1] == (1, usual | ALONE)


def test_a_refusal_comes_with_its_status_and_reason(url: str) -> None:
    with pytest.raises(ServiceError, match="422, image: not an image") as found:
        ask(url, b"no picture")
    assert found.value.status == 422
    with pytest.raises(ServiceError, match="max_rationale: 3 is not offered"):
        ask(url, png(), max_rationale=3)


@pytest.mark.parametrize("size", [1_000_001, 1_900_000, 50_000_000])
def test_a_body_that_is_too_long_is_refused_with_a_reason(url: str, size: int) -> None:
    with pytest.raises(ServiceError) as found:
        ask(url, b"x" * size)
    assert found.value.status == 413 and f"{size:,} bytes" in str(found.value)


@pytest.mark.parametrize("first", [b"", b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_a_head_that_never_ends_is_given_up(
    url: str, first: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "HEAD", 0.05)
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(first + b"POST /v1/predict HTTP/1.1\r\nHost: x\r\n")
        answer = b""
        while part := connection.recv(1000):  # until the service closes it
            answer += part
    assert answer.startswith(b"HTTP/1.1 200") if first else answer == b""


def test_a_connection_may_ask_again(url: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    for level in (3, 4):
        connection.request("POST", "/v1/predict", png(level))
        assert same(from_json(json.load(connection.getresponse())), action_of(np.full(1, level)))
    connection.close()


def test_arrays_lose_nothing_on_the_way() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (31, 57, 3)).astype(np.uint8)
    for image in (pixels, Image.fromarray(pixels)):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded(image)))), pixels)
    with pytest.raises(ServiceError, match=r"float32 \[3, 3\], expected uint8"):
        encoded(np.zeros((3, 3), np.float32))
    with pytest.raises(OSError):
        encoded("no such file.png")


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8000", "ftp://there", "http://", "http://there:port", "http://there:0"]
)
def test_what_is_no_address_is_reported(address: str) -> None:
    with pytest.raises(ServiceError, match="is no address of a service"):
        ask(address, png())


def test_nobody_there() -> None:
    with listen("127.0.0.1", 0) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(ServiceError, match=f"http://127.0.0.1:{port}: no answer") as found:
        ask(f"http://127.0.0.1:{port}", png())
    assert found.value.status is None


@pytest.mark.parametrize(
    "reply, words",
    [
        (b"<html>hello", "200, not an answer of sf-jax: '<html>hello'"),
        (b'{"text": "half"}', "not an answer of sf-jax"),
        (b"[]", "not an answer of sf-jax"),
    ],
)
def test_another_service_is_not_believed(reply: bytes, words: str) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        thread = threading.Thread(target=other.handle_request)
        thread.start()
        with pytest.raises(ServiceError, match=words):
            ask(f"http://127.0.0.1:{other.server_port}", png())
        thread.join()
