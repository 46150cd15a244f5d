"""Faults over HTTP, against one service: each gets an answer or a refusal in JSON, and after each
the service is well and answers a sound image."""

import http.client
import io
import json
import socket
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sf_jax.serve.client import ask
from tests.faults.harness import Fault, check_all, memory
from tests.media.test_images import paged, progressive
from tests.serve.test_service import PATIENCE, action_of, health, png, process, same, wait_for

SERVING = """
from sf_jax.cli import loading, serve
from sf_jax.serve import server
from tests.serve.test_service import FakeModel
server.warm_up = lambda *_: None
loading.load_model = lambda *_: FakeModel()
serve.main(["--port", "0", "--batch", "2", "--max-bytes", "12000000"])
"""
URL = ""  # of the service, in the process that draws the faults
SEND = "tests.faults.test_service:send"
REFUSALS = (400, 404, 405, 408, 413, 415, 422, 503, 504)
CACHE = {"sound": b""}


def send(url: str, headers: str, query: str, chunked: bool = False) -> None:
    """Sends `body` of this folder as an image; leaves with 0 if it is answered, 2 if refused."""
    host = url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=PATIENCE)
    content = Path("body").read_bytes()
    body = (content[i : i + 65536] for i in range(0, len(content), 65536)) if chunked else content
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.request(
            "POST", f"/v1/predict{query}", body, json.loads(headers), encode_chunked=chunked
        )
    reply = connection.getresponse()
    finish(url, reply.status, reply.read())


def raw(url: str) -> None:
    """Sends `body` of this folder as it is, and nothing more; no reply at all is a refusal too."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), PATIENCE) as connection:
        with suppress(OSError):  # closed by the service before it was all sent
            connection.sendall(Path("body").read_bytes())
            connection.shutdown(socket.SHUT_WR)
        received = b""
        with suppress(ConnectionResetError):
            while part := connection.recv(65536):
                received += part
    status = int(received.split()[1]) if received.startswith(b"HTTP/1.1 ") else 400
    finish(url, status, b'{"error": "the connection was closed"}')


def finish(url: str, status: int, content: bytes) -> None:
    """Checks that the service goes on, and leaves as the request ended."""
    state = health(url)
    if state["status"] != "ready" or state["problems"]:
        raise AssertionError(f"the service is {state}")
    if not same(ask(url, png(7)), action_of(np.full(1, 7))):
        raise AssertionError("the answer to a sound image is another")
    found = json.loads(content)
    if status == 200:
        raise SystemExit(0)
    if status not in REFUSALS or set(found) != {"error"} or "Traceback" in found["error"]:
        raise AssertionError(f"{status}: {content[:500]!r}")
    print(f"sf-jax: error: {status} {found['error']}", file=sys.stderr)
    raise SystemExit(2)


def posted(
    folder: Path,
    name: str,
    body: bytes,
    names: str = "image: ",
    codes: tuple[int, ...] = (2,),
    query: str = "",
    chunked: bool = False,
    **headers: str,
) -> Fault:
    (folder / "body").write_bytes(body)
    given = {key.replace("_", "-"): value for key, value in headers.items()}
    if chunked:
        given["Transfer-Encoding"] = "chunked"
    argv = (URL, json.dumps(given), query, chunked)
    return Fault(name, argv, SEND, codes, names)


def encoded(kind: str, mode: str = "RGB", size: tuple[int, int] = (64, 48), **how: object) -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(noise).convert(mode).save(file, kind, **how)
    return file.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    checked = kind + content
    return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))


def png_of(
    more: bytes = b"", width: int = 8, height: int = 8, pixels: bytes | None = None
) -> bytes:
    """A grey PNG with further chunks before its pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    given = zlib.compress(bytes((width + 1) * height)) if pixels is None else pixels
    return b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", given) + chunk(b"IEND", b"")


def directory(draw: np.random.Generator) -> bytes:
    """A TIFF whose many tags all claim the same megabytes."""
    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 8, 279: 64}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()]
    size, count = int(draw.integers(1, 9)) * 10**6, int(draw.integers(1000, 60_000))
    entries += [struct.pack("<HHII", 1000 + i, 7, size, 8) for i in range(count)]
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    return (head + b"".join(entries) + bytes(4)).ljust(size + 8, b"\0")


def scans(draw: np.random.Generator, folder: Path) -> Fault:
    count = int(10 ** draw.uniform(2.1, 5.5))
    side = int(draw.choice([8, 64, 700]))
    return posted(folder, f"{count} scans", progressive(count, side), "more than 100 scans")


def segments(draw: np.random.Generator, folder: Path) -> Fault:
    count, marker = int(10 ** draw.uniform(5, 6)), bytes([0xFF, draw.choice([0xFE, 0xED, 0xE1])])
    whole = encoded("JPEG")
    segment = marker + (b"\0\4ab", b"\0\2", b"\0\2ab")[draw.integers(3)]
    body = whole[:2] + segment * count + whole[2:]
    return posted(folder, f"{count} segments", body, "more than 10,000 segments")


def pages(draw: np.random.Generator, folder: Path) -> Fault:
    count = int(10 ** draw.uniform(3, 4.9))
    return posted(folder, f"{count} pages", paged(count, str(draw.choice([*"<>"]))), codes=(0,))


def tags(draw: np.random.Generator, folder: Path) -> Fault:
    return posted(folder, "tags that claim gigabytes", directory(draw), codes=(0, 2))


def exif(draw: np.random.Generator, folder: Path) -> Fault:
    body = png_of(chunk(b"eXIf", directory(draw)))
    return posted(folder, "an EXIF block that claims gigabytes", body, codes=(0, 2))


def vast(draw: np.random.Generator, folder: Path) -> Fault:
    width, height = (int(10 ** draw.uniform(4.2, 9.3)) for _ in range(2))
    body = png_of(width=width, height=height, pixels=zlib.compress(bytes(1000)))
    return posted(folder, f"{width} x {height}", body)


def inflating(draw: np.random.Generator, folder: Path) -> Fault:
    bomb = CACHE.setdefault("bomb", zlib.compress(bytes(10**9), 9))
    kind, head = [(b"zTXt", b"a\0\0"), (b"iCCP", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0")][
        draw.integers(3)
    ]
    return posted(folder, f"{kind!r} of a gigabyte", png_of(chunk(kind, head + bomb)))


def chunks(draw: np.random.Generator, folder: Path) -> Fault:
    count = int(10 ** draw.uniform(5, 5.9))
    kind = [b"tEXt", b"abCd", b"IDAT"][draw.integers(3)]
    more = chunk(kind, b"a\0b" if kind == b"tEXt" else b"") * count
    return posted(folder, f"{count} chunks {kind!r}", png_of(more)[:12_000_000], codes=(0, 2))


def dear(draw: np.random.Generator, folder: Path) -> Fault:
    """As many pixels as are read, in a few kilobytes."""
    kind, mode = [("PNG", "RGBA"), ("TIFF", "CMYK"), ("PNG", "I;16"), ("WEBP", "RGB")][
        draw.integers(4)
    ]
    file = io.BytesIO()
    image = Image.new(mode, (7000, 7000))
    image.save(file, kind, **({"compression": "tiff_deflate"} if kind == "TIFF" else {}))
    return posted(folder, f"{kind} {mode}", file.getvalue(), codes=(0, 2))


def frames(draw: np.random.Generator, folder: Path) -> Fault:
    count = int(10 ** draw.uniform(3, 5))
    whole = encoded("GIF", "P", (8, 8))
    start = 13 + 3 * 2 ** ((whole[10] & 7) + 1)  # after the head and its palette
    body = whole[:start] + whole[start:-1] * count + b";"
    return posted(folder, f"{count} frames", body[:12_000_000], codes=(0, 2))


def unread(draw: np.random.Generator, folder: Path) -> Fault:
    kind = str(draw.choice(["ICO", "ICNS", "JPEG2000", "DDS", "PCX", "SGI", "TGA", "PDF", "EPS"]))
    return posted(folder, kind, encoded(kind, size=(64, 64)), "image: not an image in a known")


def flipped(draw: np.random.Generator, folder: Path) -> Fault:
    kind = str(draw.choice(["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "AVIF", "MPO"]))
    body = np.frombuffer(encoded(kind), np.uint8).copy()
    positions = draw.integers(0, min(len(body), 600), draw.integers(1, 9))
    body[positions] = draw.integers(0, 256, len(positions))
    return posted(folder, f"flipped {kind}", body.tobytes(), codes=(0, 2))


def cut(draw: np.random.Generator, folder: Path) -> Fault:
    kind = str(draw.choice(["PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "PPM", "AVIF"]))
    body = encoded(kind)[: draw.integers(1, 3000)]
    return posted(folder, f"cut {kind}", body, codes=(0, 2))


def form(draw: np.random.Generator, folder: Path) -> Fault:
    kind = str(
        draw.choice(["multipart/form-data; boundary=x", "application/x-www-form-urlencoded"])
    )
    upper = draw.random(len(kind)) < 0.5
    kind = "".join(c.upper() if up else c for c, up in zip(kind, upper, strict=True))
    return posted(folder, kind, b"image=" + png(), r"415 a form \(", Content_Type=kind)


def json_body(draw: np.random.Generator, folder: Path) -> Fault:
    bodies = [
        b"[" * 100_000, b'{"image": ' * 5000, b'{"image": NaN}', b'{"image": 1e999}', b"\xff\xfe{}",
        b'{"image": "http://example.org/a.png"}', b'{"image": "data:image/png;base64,AAAA"}',
        b'{"image": "AAAA", "image": "AAAA"}', b'{"image": "AAAA", "messages": 3}', b"null", b"",
        b'{"image": "AAAA", "extra": 1}', b'{"image": ["AAAA"]}', b'{"image": "%%%"}',
    ]  # fmt: skip
    body = bodies[draw.integers(len(bodies))]
    names = "body|image|messages|extra"
    return posted(folder, repr(body[:40]), body, names, Content_Type="application/JSON")


def flat_json(draw: np.random.Generator, folder: Path) -> Fault:
    value = (b"{}", b"[]", b"0", b'{"a":0}', b'""')[draw.integers(5)]
    size = int(10 ** draw.uniform(5.5, 7))
    body = b'{"image":"","messages":[' + (value + b",") * (size // (len(value) + 1)) + value + b"]}"
    names = "too many values for messages"
    return posted(folder, f"many {value!r}", body, names, Content_Type="application/json")


def asked(draw: np.random.Generator, folder: Path) -> Fault:
    queries = [
        "?temperature=1e39", "?temperature=nan", "?temperature=-1", "?seed=1e3", "?seed=-1",
        "?seed=99999999999999999999", "?rationale=perhaps", "?max_rationale=5", "?x=1", "?fps=0",
        "?session=a/b", "?session=" + "a" * 65, "?session=a&fps=1e999", "?crop=maybe", "?seconds=1",
        "?session=a&values=none", "?seed=1&seed=x", "?%00=1", "?temperature=%F0%28",
    ]  # fmt: skip
    query = queries[draw.integers(len(queries))]
    return posted(folder, query, png(), ": ", query=query)


def long(draw: np.random.Generator, folder: Path) -> Fault:
    body = bytes(int(draw.integers(12_000_001, 40_000_000)))
    chunked = bool(draw.integers(2))
    return posted(folder, "a long body", body, "413 the body is", chunked=chunked)


def garbage(draw: np.random.Generator, folder: Path) -> Fault:
    post = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\n"
    chunks = post + b"Transfer-Encoding: chunked\r\n\r\n"
    path = b"GET /static-offline-docs/../../../etc/passwd"
    sent = [
        draw.bytes(2000), b"GET / HTTP/9.9\r\n\r\n", b"\0" * 5000, post + b"X: " + b"a" * 10**6,
        post + b"Content-Length: 10\r\nContent-Length: 20\r\n\r\n" + bytes(20),
        post + b"Content-Length: -5\r\n\r\n", post + b"Content-Length: 1e9\r\n\r\n",
        post + b"Content-Length: 100000\r\n\r\nabc", chunks + b"ZZ\r\n",
        chunks + b"FFFFFFFFFFFFFFFF\r\nabc",
        post + b"Transfer-Encoding: gzip\r\n\r\nabc", post + b"Content-Length: 0\r\n\r\n",
        path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ]  # fmt: skip
    number = int(draw.integers(len(sent)))
    (folder / "body").write_bytes(sent[number])
    call = "tests.faults.test_service:raw"
    return Fault(f"garbage {number}", (URL,), call, (2,), "closed")


def sound(draw: np.random.Generator, folder: Path) -> Fault:
    return posted(folder, "a sound image", png(), codes=(0,))


KINDS: list[Callable[[np.random.Generator, Path], Fault]] = [
    scans, segments, pages, tags, exif, vast, inflating, chunks, dear, frames, unread, flipped, cut,
    form, json_body, flat_json, asked, long, garbage,
]  # fmt: skip


@pytest.fixture
def service() -> Iterator[None]:
    """The service that all faults meet; at the end it has taken no memory to speak of, and a
    SIGTERM ends it."""
    with process("-c", SERVING) as (started, url):
        wait_for(url, status="ready", decoders=2)
        globals()["URL"] = url
        ask(url, png())
        before = memory(started.pid, "VmRSS")
        yield
        assert memory(started.pid, "VmHWM") - before < 1024
        started.terminate()
        assert started.wait(PATIENCE) == 0
        assert started.stderr is not None and "Traceback" not in started.stderr.read()


@pytest.mark.usefixtures("service")
def test_a_few_faults() -> None:
    check_all("service", KINDS, few=6, honest=sound)


@pytest.mark.slow
@pytest.mark.usefixtures("service")
def test_faults() -> None:
    check_all("service", KINDS, count=72, honest=sound)
