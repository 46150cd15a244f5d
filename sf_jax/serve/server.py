"""`sf-jax serve`: the model behind HTTP, until a SIGTERM or Ctrl-C.

    sf-jax serve --port 8000
    curl --data-binary @photo.jpg http://127.0.0.1:8000/v1/predict

It listens at once, compiles its programs (/health says when it is ready), and at the end answers
whatever it has taken before it leaves.
"""

import argparse
import asyncio
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import uvicorn
from tqdm import tqdm
from uvicorn.protocols.http.h11_impl import H11Protocol

from sf_jax.cli.arguments import Parser, UsageError, number, whole
from sf_jax.serve.batching import Options, answer_batch, sizes
from sf_jax.serve.service import Limits, Service, build_app

if TYPE_CHECKING:
    from sf_jax.reader.estimator import Model

HEAD = 10.0  # seconds for a request's head; also longer than a connection may idle between two
GRACE = 5  # seconds beyond the time limit of a request, for the reply to leave


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="sf-jax serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, limits = made.add_argument, Limits()
    add("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    add("--port", type=whole(0, 65535), default=8000, help="0 takes a free one (default 8000)")
    add("--model", type=Path, help="model directory (default: the built-in model)")
    add("--adapter", type=Path, help="directory of a LoRA adapter in PEFT's layout")
    add(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="of the weights (default: float32 on a CPU, bfloat16 elsewhere)",
    )
    add(
        "--batch",
        type=whole(1, 1024),
        default=16,
        metavar="N",
        help="the most pictures answered at once (default 16)",
    )
    add(
        "--wait-ms",
        type=number(0, False, "0 or more"),
        default=5.0,
        metavar="MS",
        help="how long an idle model waits for a second picture (default 5)",
    )
    add(
        "--max-bytes",
        type=whole(1, 2**31),
        default=limits.max_bytes,
        metavar="N",
        help=f"of a request's body (default {limits.max_bytes:,})",
    )
    add(
        "--max-pixels",
        type=whole(1, 200_000_000),
        default=limits.max_pixels,
        metavar="N",
        help=f"of a picture (default {limits.max_pixels:,})",
    )
    add(
        "--timeout",
        type=number(0, True, "a positive number"),
        default=limits.timeout,
        metavar="SECONDS",
        help=f"from a request's head to its answer (default {limits.timeout:g})",
    )
    add(
        "--queue",
        type=whole(1, 100_000),
        default=limits.queue,
        metavar="N",
        help=f"the most requests held at once (default {limits.queue})",
    )
    add(
        "--max-words",
        type=whole(1, 4096),
        nargs="+",
        default=[],
        metavar="TOKENS",
        help="caps on the rationale that requests may ask for, compiled at the start",
    )
    add(
        "--warm",
        type=_size,
        nargs="+",
        default=[(512, 512)],
        metavar="WIDTHxHEIGHT",
        help="picture sizes to compile for at the start (default 512x512; the built-in model has "
        "one program for all sizes, others one for each number of patches, roughly)",
    )
    return made


def _size(text: str) -> tuple[int, int]:
    """Width and height in pixels."""
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no WIDTHxHEIGHT in pixels")
    return int(found[1]), int(found[2])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
      UsageError: there is no such address here, or the port is taken.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        reason = str(error.strerror or error).split(" (")[0]
        raise UsageError(f"cannot listen on {host} port {port}: {reason}") from error


def address(listening: socket.socket) -> str:
    """The http:// address of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def warm_up(
    model: "Model",
    batch: int,
    caps: Sequence[int],
    pictures: Sequence[tuple[int, int]],
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Compiles every program that requests will need, by answering noise.

    Args:
      caps: values of max_words on offer, beside the model's own.
      pictures: widths and heights in pixels.
      stopped: asked before each program whether to leave it.
    """
    noise = np.random.default_rng(0)
    shown = [noise.integers(0, 256, (h, w, 3)).astype(np.uint8) for w, h in pictures]
    asked = [Options(words=False), Options(), *(Options(max_words=cap) for cap in caps)]
    jobs = list(product(shown, sizes(batch), asked))
    for picture, size, options in tqdm(jobs, desc="compiling", unit="program"):
        if stopped():
            return
        fitted = model.processor.fit(picture)
        answer_batch(model, [fitted] * size, [options] * size)


class Protocol(H11Protocol):
    """Closes a connection on which no request's head has come for `HEAD` seconds; uvicorn limits
    the time between requests alone, and a head that never ends would keep its place for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.loop.call_later(HEAD, self._look, None)

    def _look(self, before: object) -> None:
        """`before` is the last request, if it was answered at the last look already."""
        if self.transport.is_closing():
            return
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self.cycle is before:
            self.transport.close()
        else:
            self.loop.call_later(HEAD, self._look, self.cycle if idle else self)


class Server(uvicorn.Server):
    """Says to the service that it is ending, and leaves with 0 after a signal."""

    def __init__(self, service: Service):
        # Loop and parser are named, so that what else is installed changes nothing; configuring
        # the logging would close other people's handlers.
        config = uvicorn.Config(
            build_app(service),
            loop="asyncio",
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(service.limits.timeout) + GRACE,
        )
        super().__init__(config)
        self.service = service

    def handle_exit(self, *args) -> None:  # type: ignore[no-untyped-def]
        self.service.status = "draining"
        super().handle_exit(*args)


def run(service: Service, listening: socket.socket, warm: Callable[[], None]) -> None:
    """Serves until a signal comes, while `warm` compiles in a thread.

    Raises:
      whatever `warm` raised.
    """
    server, where = Server(service), address(listening)
    failures: list[Exception] = []

    def prepare() -> None:
        try:
            warm()
        except Exception as error:  # told by the main thread, which ends
            failures.append(error)
            server.should_exit = True
        if service.status == "starting" and not failures:
            service.status = "ready"
            print(f"ready: {where}, see {where}/docs", flush=True)

    # Once drained, uvicorn raises the signal again for whoever had it before; and one that comes
    # before uvicorn listens to signals must not be lost.
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, server.handle_exit)
    preparing = threading.Thread(target=prepare, name="warm-up")
    preparing.start()
    server.run(sockets=[listening])
    service.status = "draining"
    preparing.join()
    service.close()
    if failures:
        raise failures[0]


def main(
    argv: Sequence[str] | None,
    load_model: Callable[[Path | None, Path | None, str | None], "Model"],
) -> None:
    options = parser().parse_args(argv)
    caps = tuple(sorted(set(options.max_words)))
    limits = Limits(options.max_bytes, options.max_pixels, options.timeout, options.queue, caps)
    listening = listen(options.host, options.port)  # before the work, so that it is not in vain
    print(f"starting: {address(listening)}", flush=True)
    with listening:
        model = load_model(options.model, options.adapter, options.dtype)
        service = Service(model, limits, options.batch, options.wait_ms / 1000)
        run(
            service,
            listening,
            lambda: warm_up(
                model, options.batch, caps, options.warm, lambda: service.status == "draining"
            ),
        )
    print(f"stopped: {service.batcher.answered} pictures answered", file=sys.stderr)
