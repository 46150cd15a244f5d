"""A process that decodes images for the service, and may be killed at any moment.

`sf_jax.serve.decoding` starts it and owns the other end of the connection. What comes back over
it is JSON and pixels, never a pickle, as a stranger's file may have taken this process over.
"""

import contextlib
import json
import resource
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from sf_jax.media.child_processes import die_with

if TYPE_CHECKING:
    from sf_jax.convert.processor import ImageProcessor

READY, BEGUN = b"ready", b"begun"
ALARM_FACTOR = 20.0  # times `Settings.seconds` on the clock, when the kernel ends the process


@dataclass(frozen=True)
class Settings:
    """What a decoder is given at its start.

    Attributes:
      processor: fits the images.
      memory: bytes of address space beyond what the process has after its imports.
      seconds: of a processor that an image may take. Much later by the clock, the kernel ends the
        process, whatever became of the one that watches it.
    """

    processor: "ImageProcessor"
    memory: int
    seconds: float


def limit_memory(more: int) -> None:
    """Allows `more` bytes of address space beyond those in use; no dump of memory on a crash."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    statistics = Path("/proc/self/statm")
    if statistics.exists():
        used = int(statistics.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + more,) * 2)


def warm_up() -> None:
    """Imports Pillow's formats, as it does itself for the first image; none starts threads."""
    from PIL import AvifImagePlugin

    from sf_jax.media.images import ImageError, read_bytes

    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    with contextlib.suppress(ImageError):
        read_bytes(b"no image", 1)


def answer(
    connection: Connection, settings: Settings, body: bytes, whole: bool, max_pixels: int
) -> None:
    """Decodes an image, and fits it unless it is asked for whole.

    Sends what became of it, as JSON, and the pixels if it could be read.
    """
    import numpy as np  # late: see `main`

    from sf_jax.convert.processor import ProcessorError
    from sf_jax.media.images import ImageError, TooLargeError, read_bytes

    def refuse(error: Exception | str, too_large: bool) -> None:
        reply = {"error": str(error), "too_large": too_large}
        connection.send_bytes(json.dumps(reply).encode())

    try:
        pixels = read_bytes(body, max_pixels)
        if not whole:
            pixels = settings.processor.fit(pixels).pixels
    except TooLargeError as error:
        refuse(error, True)
    except MemoryError:
        refuse("image: too large for the memory of a decoder", True)
    except (ImageError, ProcessorError) as error:
        refuse(error, False)
    except Exception as error:  # else this process would end, and the image be sent again for ever
        refuse(f"image: cannot be decoded: {type(error).__name__}", False)
    else:
        connection.send_bytes(json.dumps({"shape": pixels.shape}).encode())
        connection.send_bytes(np.ascontiguousarray(pixels).data.cast("B"))


def main(descriptor: int, parent: int) -> None:
    """Answers until the connection ends.

    Args:
      descriptor: the open file that is this end of the connection.
      parent: the number of the process that owns this one.
    """
    connection = Connection(descriptor)
    die_with(parent)  # before the imports, which take longest
    # They are sent to all processes of a terminal or a control group: the service may still need
    # this one for what it has accepted.
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    with contextlib.suppress(EOFError, OSError):
        settings: Settings = connection.recv()  # imports the processor
        warm_up()
        limit_memory(settings.memory)
        connection.send_bytes(READY)
        while True:
            asked = json.loads(connection.recv_bytes())
            body = connection.recv_bytes()
            connection.send_bytes(BEGUN)
            signal.setitimer(signal.ITIMER_REAL, ALARM_FACTOR * settings.seconds)
            answer(connection, settings, body, **asked)
            signal.setitimer(signal.ITIMER_REAL, 0)
