"""The HTTP server: listens, warms the model up, answers until a signal comes, then drains."""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import uvicorn
from tqdm import tqdm
from uvicorn.protocols.http.h11_impl import H11Protocol

from sf_jax.serve.batching import Options, answer_batch, is_long, sizes
from sf_jax.serve.service import Service, build_app

if TYPE_CHECKING:
    from sf_jax.reader.estimator import Model

HEAD = 10.0  # seconds for a request's head; also longer than a connection may idle between two
GRACE = 5  # seconds beyond the time limit of a request, for the reply to leave


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
      OSError: there is no such address here, or the port is taken; says which.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        reason = str(error.strerror or error).split(" (")[0]
        raise OSError(f"cannot listen on {host} port {port}: {reason}") from error


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
      caps: values of max_rationale on offer, beside the model's own.
      pictures: widths and heights in pixels.
      stopped: asked before each program whether to leave it.
    """
    noise = np.random.default_rng(0)
    shown = [noise.integers(0, 256, (h, w, 3)).astype(np.uint8) for w, h in pictures]
    fitted = [model.processor.fit(picture) for picture in shown]
    asked = [Options(rationale=False), Options(), *(Options(max_rationale=cap) for cap in caps)]
    jobs = list(product(fitted, sizes(batch), asked))
    longest = model.processor.fit(np.zeros((*model.processor.longest, 3), np.uint8))
    if is_long(model, longest):  # such images are answered one by one
        jobs += product([longest], [1], asked)
    for picture, size, options in tqdm(jobs, desc="compiling", unit="program"):
        if stopped():
            return
        found = answer_batch(model, [picture] * size, [options] * size)
        if not model.drafts_rationale:
            # Frames of sessions have a rationale to draft from: another width, another program.
            drafted = [replace(options, previous=action) for action in found]
            answer_batch(model, [picture] * size, drafted)


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
        except Exception as error:  # raised by the main thread, which ends
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
