"""The HTTP server: warms the model up, answers until a signal comes, then drains."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from types import FrameType
from typing import TYPE_CHECKING

import numpy as np
import uvicorn
from tqdm import tqdm

from sf_jax.reader.framing import Framed
from sf_jax.serve.batching import Options, answer_batch, is_long, sizes
from sf_jax.serve.listening import address, allow_connections, configured
from sf_jax.serve.service import Service, build_app

if TYPE_CHECKING:
    from sf_jax.reader.estimator import Model

ENDING = 3  # seconds of those left after a signal that are kept for what follows the last reply


def warm_up(
    model: "Model",
    batch: int,
    caps: Sequence[int],
    pictures: Sequence[tuple[int, int]],
    stopped: Callable[[], bool] = lambda: False,
    compiled: Callable[[Options, int], None] = lambda options, size: None,
) -> None:
    """Compiles every program that requests will need, by answering noise.

    Those for single images come first, and of these the one for a request without options.

    Args:
      caps: values of max_rationale on offer, beside the model's own.
      pictures: widths and heights in pixels.
      stopped: asked before each program whether to leave it.
      compiled: is given options and the size of a batch once there is a program for them; for a
        size above 1, once there is one for each of the pictures, as a batch may hold any of them.
    """
    noise = np.random.default_rng(0)
    shown = [noise.integers(0, 256, (h, w, 3)).astype(np.uint8) for w, h in pictures]
    fitted = [Framed(model.processor.fit(picture)) for picture in shown]
    if model.frames():
        model.framer.compile()
    asked = [Options(), Options(rationale=False), *(Options(max_rationale=cap) for cap in caps)]
    jobs = list(product(sizes(batch), fitted, asked))
    longest = Framed(model.processor.fit(np.zeros((*model.processor.longest, 3), np.uint8)))
    if is_long(model, longest):  # such images are answered one by one
        jobs += product([1], [longest], asked)
    for size, picture, options in tqdm(jobs, desc="compiling", unit="program"):
        if stopped():
            return
        found = answer_batch(model, [picture] * size, [options] * size)
        there = size == 1 or picture is fitted[-1]
        if there:
            compiled(options, size)
        if not model.drafts_rationale:
            # Frames of sessions have a rationale to draft from: another width, another program.
            drafted = [replace(options, previous=action) for action in found]
            answer_batch(model, [picture] * size, drafted)
            if there:
                compiled(drafted[0], size)


class Server(uvicorn.Server):
    """Tells the service that it is ending, and leaves with 0 after a signal.

    Whatever hangs, the process has ended `Limits.ends_within` seconds after the first signal, and
    at once after a second Ctrl-C.
    """

    def __init__(self, service: Service):
        within = service.limits.ends_within
        config = configured(build_app(service), max(1, int(within - ENDING)))
        super().__init__(config)
        self.service = service
        self.end = threading.Timer(within, leave, (f"it has not ended within {within:g} s",))
        self.end.daemon = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals to the handlers of `run`, which are there before and after: uvicorn's
        own would raise each signal once more after draining, a second Ctrl-C to `handle_exit`."""
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.service.status != "draining":
            self.service.status = "draining"
            self.end.start()
        elif sig == signal.SIGINT:
            leave("interrupted again")
        super().handle_exit(sig, frame)


def leave(reason: str) -> None:
    """Ends the process whatever its threads are doing; its decoders end with it."""
    with contextlib.suppress(OSError, ValueError):
        print(f"sf-jax: error: {reason}; leaving", file=sys.stderr, flush=True)
    os._exit(1)


def run(service: Service, listening: socket.socket, warm: Callable[[], None]) -> None:
    """Serves until a signal comes, while `warm` compiles in a thread.

    Raises:
      whatever `warm` raised.
    """
    allow_connections()
    server, where = Server(service), address(listening)
    failures: list[Exception] = []

    def prepare() -> None:
        try:
            warm()
        except Exception as error:  # raised by the main thread, which ends
            failures.append(error)
            server.should_exit = True
        if service.status != "draining" and not failures:
            service.all_compiled()
            print(f"ready: {where}, see {where}/docs", flush=True)

    # From here on, so that one that comes before uvicorn runs, or once it has ended, is not lost.
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, server.handle_exit)
    preparing = threading.Thread(target=prepare, name="warm-up", daemon=True)
    preparing.start()
    server.run(sockets=[listening])
    service.status = "draining"
    preparing.join()
    service.close()
    server.end.cancel()
    if failures:
        raise failures[0]
