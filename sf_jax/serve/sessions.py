"""The sessions that a service holds: bounded in number, closed by the client or by time."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from sf_jax.reader.session import Session, SessionOptions

if TYPE_CHECKING:
    from sf_jax.reader.estimator import Model


class SessionsFullError(RuntimeError):
    """As many sessions as the service holds are open."""


class SessionMismatchError(ValueError):
    """A frame asks for other options than its session began with."""


@dataclass
class _Held:
    """An open session.

    Attributes:
      lock: held while one of its frames is read, so that they follow one another.
      users: frames that hold or wait for the lock.
      used: when the last of them ended, in seconds of the clock.
    """

    session: Session
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    users: int = 0
    used: float = 0.0


class Sessions:
    """Sessions by the names that clients gave them.

    Args:
      model: finds the faces.
      most: open at once.
      idle: seconds without a frame after which a session is closed.
      clock: the time in seconds.
    """

    def __init__(
        self,
        model: "Model",
        most: int,
        idle: float,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._model, self._most, self._idle, self._clock = model, most, idle, clock
        self._held: dict[str, _Held] = {}

    def __len__(self) -> int:
        """How many are open."""
        self._expire()
        return len(self._held)

    @asynccontextmanager
    async def use(self, name: str, options: SessionOptions | None) -> AsyncIterator[Session]:
        """The session of a name, to read one frame; a new name opens a session.

        Args:
          options: None takes those that the session began with, or for a new one the usual.

        Raises:
          SessionsFullError: the name is new, and there is no room.
          SessionMismatchError: the session began with other options; names them.
        """
        held = self._open(name, options)
        held.users += 1
        try:
            async with held.lock:
                yield held.session
        finally:
            held.users -= 1
            held.used = self._clock()
            if not held.users and not held.session.number and self._held.get(name) is held:
                del self._held[name]  # it begins with its first frame that is answered

    def close(self, name: str) -> bool:
        """Forgets a session; whether it was open. A frame being read is still answered."""
        self._expire()
        return self._held.pop(name, None) is not None

    def _open(self, name: str, options: SessionOptions | None) -> _Held:
        self._expire()
        held = self._held.get(name)
        if held is None:
            if len(self._held) >= self._most:
                raise SessionsFullError(f"{len(self._held)} sessions are open already")
            held = self._held[name] = _Held(Session(self._model, options), used=self._clock())
        begun = held.session.options
        if options is not None and options != begun:
            differing = [
                f"{one.name}={getattr(begun, one.name)}"
                for one in fields(begun)
                if getattr(begun, one.name) != getattr(options, one.name)
            ]
            raise SessionMismatchError(
                f"session {name!r} began with {', '.join(differing)}; close it to begin another"
            )
        return held

    def _expire(self) -> None:
        ends = self._clock() - self._idle
        expired = [name for name, one in self._held.items() if not one.users and one.used <= ends]
        for name in expired:
            del self._held[name]
