"""Runs the annotation page until a signal comes."""

import contextlib
import ipaddress
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from sf_jax.serve.annotation import Annotation, build_app
from sf_jax.serve.listening import allow_connections, configured

GRACE = 5  # seconds for requests that are being answered when a signal comes


class Server(uvicorn.Server):
    """Ends on a signal with exit code 0, and calls `ready` once it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]):
        super().__init__(config)
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals to the handlers of `run`; uvicorn's own would raise them again."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()


def run(annotation: Annotation, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Serves the page until a SIGTERM or Ctrl-C.

    Args:
      ready: is called once requests are answered.
    """
    allow_connections()
    loopback = ipaddress.ip_address(listening.getsockname()[0]).is_loopback
    server = Server(configured(build_app(annotation, loopback), GRACE), ready)
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, server.handle_exit)
    server.run(sockets=[listening])
