"""What a service gives to one request, and how much of everything it holds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one request may cost.

    Attributes:
      max_bytes: of a body.
      max_pixels: of an image, checked before it is decoded.
      timeout: seconds from the first byte of the body to the answer.
      queue: the most requests held at once, being read, waiting or being answered.
      max_rationale: caps that a request may ask for; each is a program of its own, so the number of
        them is the server's to say.
      sessions: open at a time; session_idle: seconds after which an unused one is closed.
      messages: bytes of a request's messages as JSON.
      decoders: processes that decode images; decode_seconds: of a processor, the
        most that an image may take there.
      grace: seconds after a SIGTERM by which the process has ended, whatever hangs; by default the
        time limit of a request and 10 more.
    """

    max_bytes: int = 10 * 2**20
    max_pixels: int = 50_000_000
    timeout: float = 30.0
    queue: int = 64
    max_rationale: tuple[int, ...] = ()
    sessions: int = 64
    session_idle: float = 60.0
    messages: int = 32_768
    decoders: int = 2
    decode_seconds: float = 5.0
    grace: float | None = None

    @property
    def ends_within(self) -> float:
        """Seconds from a SIGTERM to the end."""
        return self.timeout + 10 if self.grace is None else self.grace

    @property
    def decode_memory(self) -> int:
        """Bytes that a decoder may take: of the formats that are read none needs more."""
        return 2**28 + 24 * self.max_pixels + 2 * self.max_bytes
