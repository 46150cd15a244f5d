"""Decoding images in processes that can be killed.

An image file decides how long its decoder runs and how much memory it takes, and no decoder can be
interrupted from within. Each image is therefore decoded by a process (`sf_jax.serve.decoder`) that
is killed when its time is over, and replaced. One that takes long is interrupted while others wait,
and decoded when none does: a few such images do not stop the service. Each process has a connection
of its own and shares nothing with the others: whenever one of them dies, one image is lost and no
other.

Process pools of libraries were no choice: their processes share locks and queues, so that one that
is killed while it receives an image stops the others (pebble), or the pool is then broken
(concurrent.futures, loky).
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import numpy as np

from sf_jax.convert.processor import FittedImage
from sf_jax.media.images import ImageError, TooLargeError
from sf_jax.serve.decoder import BEGUN, Settings

TICK = 0.05  # seconds between looks at the clocks
CLOCK_PER_PROCESSOR = 10  # seconds of the clock for one of a processor, which others use too
KNOWN = sys.platform == "linux"  # where each process has a clock of its own, numbered by its pid
STARTING = 60.0  # seconds that a process may take to import its libraries
TRIES = 3  # times that a slow image is interrupted and begun anew
RETRY = 1.0  # seconds before another is started after one that did not start


# Signals by which a process ends through what it does itself, not through others.
CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)


class DecoderError(RuntimeError):
    """An image that was not decoded through no fault of its own, as far as is known."""


@dataclass
class _Job:
    """An image that is to be decoded.

    Attributes:
      since: when it came, in seconds of the clock.
      begun: whether a process has received it, which may then have ended because of it.
      tries: how many processes it was given to before.
      slow: whether it has taken so long that images that have not go first.
    """

    body: bytes
    max_pixels: int
    whole: bool
    future: Future = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)
    begun: bool = False
    tries: int = 0
    slow: bool = False

    def done(self, result: FittedImage | np.ndarray | Exception) -> None:
        """Hands out what became of it, unless nobody waits for it any longer."""
        if not self.future.set_running_or_notify_cancel():
            return
        if isinstance(result, Exception):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class _Worker:
    """A process that decodes, and our end of the connection to it.

    Attributes:
      job: what it is decoding.
      victim: the image that we killed it for.
      error: of that image, None if it may be tried again.
    """

    def __init__(self, settings: Settings):
        """
        Raises:
          DecoderError: the process did not start; says why as far as is known.
        """
        self.job: _Job | None = None
        self.victim: _Job | None = None
        self.error: Exception | None = None
        self._began = 0.0, 0.0
        self.connection, other = Pipe()
        with other:
            self.process = _start(other)
        timer = threading.Timer(STARTING, self.process.kill)
        timer.start()
        try:
            self.connection.send(settings)
            self.connection.recv_bytes()
        except (EOFError, OSError) as error:
            self.close()
            raise DecoderError(f"a decoder does not start: {self.end()}") from error
        finally:
            timer.cancel()

    def alive(self) -> bool:
        return self.process.poll() is None

    def begin(self, job: _Job) -> None:
        """Notes when a job begins."""
        self._began = time.monotonic(), self._processor()
        self.job = job

    def taken(self) -> float:
        """Seconds of a processor that the present job has taken, or a share of the clock's, which
        pass for a process that is stopped too."""
        clock, processor = time.monotonic() - self._began[0], self._processor() - self._began[1]
        return max(processor, clock / CLOCK_PER_PROCESSOR if KNOWN else clock)

    def _processor(self) -> float:
        """Seconds of a processor that the process has taken; 0 where that cannot be known."""
        try:
            return time.clock_gettime((~self.process.pid << 3) | 2) if KNOWN else 0.0
        except OSError:  # it has ended
            return 0.0

    def kill(self, job: _Job, error: Exception | None) -> None:
        """Ends the process because of an image, which it may have finished in this moment.

        Args:
          error: what becomes of the image, None if it may be tried again.
        """
        self.victim, self.error = job, error
        self.process.kill()

    def close(self) -> None:
        """Ends the process, however busy."""
        self.connection.close()
        self.process.kill()
        self.process.wait()

    def end(self) -> str:
        """How the process ended."""
        code = self.process.wait()
        return signal.strsignal(-code) or f"signal {-code}" if code < 0 else f"exit code {code}"


def _start(connection: Connection) -> subprocess.Popen:
    """Not by `multiprocessing`, which would import this process's own main module anew, and jax."""
    ours = connection.fileno(), os.getpid()
    # Each thread takes address space, and libraries would start one for each core.
    single = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MALLOC_ARENA_MAX"), "1")
    single["OPENCV_FOR_THREADS_NUM"] = "1"
    path = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-c", f"from sf_jax.serve.decoder import main; main{ours}"],
        env=os.environ | single | path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[connection.fileno()],
    )


class Decoders:
    """Processes that decode images, each killed and replaced when an image takes too long.

    Attributes:
      killed: how often that was so.
    """

    def __init__(self, settings: Settings, count: int, patience: float):
        """
        Args:
          settings: of each process; `seconds` are the most for an image.
          count: of processes.
          patience: seconds of a processor after which an image is slow. It is interrupted where
            others have waited as long, and begun anew when none waits.
        """
        self.killed = 0
        self._settings, self._patience = settings, patience
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closing, self._failure = False, ""
        self._workers: list[_Worker | None] = [None] * count
        # They do not keep the interpreter from ending.
        self._threads = [
            threading.Thread(target=self._work, args=(i,), name=f"decoder-{i}", daemon=True)
            for i in range(count)
        ]
        self._threads.append(threading.Thread(target=self._watch, name="decoders", daemon=True))
        for thread in self._threads:
            thread.start()

    def fitted(self, body: bytes, max_pixels: int) -> "Future[FittedImage]":
        """An image file's bytes as the model will see them.

        Raises:
          DecoderError: `close` was called.

        The future raises:
          TooLargeError: too many pixels, or too much memory.
          ImageError: no image, one that takes too long, or of an absurd shape.
          DecoderError: no decoder is there, it ended, or others had to go first too often.
        """
        return self._submit(_Job(body, max_pixels, whole=False))

    def whole(self, body: bytes, max_pixels: int) -> "Future[np.ndarray]":
        """An image file's bytes as `read_image` reads them; raises as `fitted` does."""
        return self._submit(_Job(body, max_pixels, whole=True))

    def _submit(self, job: _Job) -> Future:
        with self._changed:
            if self._closing:
                raise DecoderError("no more images are taken")
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    @property
    def alive(self) -> int:
        """Processes that are there."""
        return sum(worker is not None and worker.alive() for worker in self._workers)

    def waited(self) -> float:
        """Seconds that the first of the waiting images has waited, of those that are not slow."""
        with self._changed:
            fresh = (job for job in self._jobs if not job.slow)
            waiting = (job.since for job in fresh if not job.future.cancelled())
            since = next(waiting, None)
        return 0.0 if since is None else time.monotonic() - since

    def problem(self) -> str:
        """Why no image can be decoded, "" if all is well."""
        if not all(thread.is_alive() for thread in self._threads) and not self._closing:
            return "a thread of the decoders has ended"
        return "" if self.alive else self._failure

    def close(self) -> None:
        """Takes no more images and kills the processes; images not decoded fail."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            for worker in filter(None, self._workers):
                worker.process.kill()
        for thread in self._threads:
            thread.join()
        self._fail_all("no more images are taken")

    def _work(self, number: int) -> None:
        """Decodes one image after another with a process of its own."""
        while not self._closing:
            try:
                worker = self._workers[number] = _Worker(self._settings)
            except (DecoderError, OSError) as error:
                self._failed(str(error))
                continue
            self._failure = ""
            while worker.alive() and not worker.victim and not self._closing:
                if job := self._next():
                    self._decode(worker, job)
            worker.close()

    def _failed(self, reason: str) -> None:
        """No process could be started. Unless another is there, nobody waits in vain."""
        self._failure = reason
        if not self.alive:
            self._fail_all(reason)
        with self._changed:
            self._changed.wait_for(lambda: self._closing, RETRY)

    def _fail_all(self, reason: str) -> None:
        """Fails the images that wait."""
        while job := self._first():
            job.done(DecoderError(reason))

    def _first(self) -> _Job | None:
        """Takes the first image that somebody waits for, slow ones last."""
        with self._changed:
            waiting = [job for job in self._jobs if not job.future.cancelled()]
            first = min(waiting, key=lambda job: job.slow, default=None)
            self._jobs = deque(job for job in waiting if job is not first)
        return first

    def _next(self) -> _Job | None:
        """The next image; None from time to time, or when closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closing, RETRY)
        return None if self._closing else self._first()

    def _decode(self, worker: _Worker, job: _Job) -> None:
        worker.begin(job)
        try:
            asked = {"whole": job.whole, "max_pixels": job.max_pixels}
            worker.connection.send_bytes(json.dumps(asked).encode())
            worker.connection.send_bytes(job.body)
            job.begun = worker.connection.recv_bytes() == BEGUN
            reply = json.loads(worker.connection.recv_bytes())
            if "error" in reply:
                kind = TooLargeError if reply["too_large"] else ImageError
                job.done(kind(reply["error"]))
                return
            pixels = np.empty(reply["shape"], np.uint8)
            worker.connection.recv_bytes_into(pixels.data.cast("B"))
            job.done(pixels if job.whole else FittedImage(pixels))
        except (EOFError, OSError):
            worker.close()
            if worker.victim is None:
                again = not (job.begun or job.tries)
            else:  # not this image's fault if it was killed for the one before
                again = worker.victim is not job or worker.error is None
            if again:
                self._give_back(job)
            else:
                job.done(self._lost(worker))
        except Exception as error:  # whatever a process sends that a file has taken over
            worker.close()
            job.done(DecoderError(f"the decoder's answer is none: {error!r}"))
        finally:
            worker.job = None

    def _give_back(self, job: _Job) -> None:
        """Lets another process have an image: the last one was interrupted, or had ended before."""
        job.slow, job.begun, job.tries = job.begun, False, job.tries + 1
        with self._changed:
            self._jobs.appendleft(job)
            self._changed.notify()

    def _lost(self, worker: _Worker) -> Exception:
        """Why a process is gone that was decoding an image."""
        if worker.error:
            return worker.error
        if -worker.process.returncode in CRASHES:
            return ImageError(f"image: its decoder crashed: {worker.end()}")
        return DecoderError(f"the decoder of the image ended: {worker.end()}")

    def _watch(self) -> None:
        """Kills the processes that take too long."""
        while not self._closing:
            time.sleep(TICK)
            late = self.waited() > self._patience
            for worker in filter(None, self._workers):
                if self._in_time(worker, late):
                    continue
                self.killed += 1
                break  # the next one only if that did not help

    def _in_time(self, worker: _Worker, late: bool) -> bool:
        """Whether a process may go on; if not, it is killed.

        Args:
          late: whether other images have waited for long.
        """
        job = worker.job
        if job is None or worker.victim:
            return True
        taken, most = worker.taken(), self._settings.seconds
        if taken > most:
            reason = f"image: decoding takes more than {most:g} s of a processor"
            worker.kill(job, ImageError(reason))
        elif late and taken > self._patience:
            reason = f"busy: the image takes more than {taken:.1f} s to decode, and others wait"
            worker.kill(job, DecoderError(reason) if job.tries >= TRIES else None)
        else:
            return True
        return False
