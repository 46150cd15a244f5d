"""Listening sockets, and what every server here limits of its connections."""

import asyncio
import resource
import socket

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD = 10.0  # seconds for a request's head; also longer than a connection may idle between two
CONNECTIONS = 1000  # open at a time


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


class Protocol(H11Protocol):
    """Closes a connection on which no request's head has come for `HEAD` seconds, and those beyond
    `CONNECTIONS`; uvicorn limits the time between requests alone, and a head that never ends would
    keep its place for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
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


def configured(app: FastAPI, grace: int) -> uvicorn.Config:
    """How an ASGI app is served.

    Args:
      grace: seconds for which the requests that are being answered are waited for at the end.
    """
    # Loop and parser are named, so that what else is installed changes nothing; configuring
    # the logging would close other people's handlers.
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=grace,
    )


def allow_connections() -> None:
    """Each connection takes a file descriptor, of which many systems allow 1,024 at first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
