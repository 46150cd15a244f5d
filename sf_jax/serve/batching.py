"""Dynamic batching: images that arrive one by one are answered several at a time.

One thread runs the model. Images that arrive while it is busy wait for the next batch; where it is
idle, the first waits a few milliseconds for others. A batch is padded to one of a few sizes by
repeating its last image, so that the number of compiled programs is bounded. Images of different
sizes share a batch, padded to the largest: generating takes longer than encoding images. A few long
images exceed the largest size; each is a batch of its own.
"""

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sf_jax.reader.framing import Framed

if TYPE_CHECKING:
    from sf_jax.reader.action import FaceAction
    from sf_jax.reader.estimator import Model
    from sf_jax.reader.question import Messages


@dataclass(frozen=True)
class Options:
    """What is asked of one image; see `Model.predict`."""

    rationale: bool = True
    temperature: float = 0.0
    seed: int = 0
    max_rationale: int | None = None
    messages: "Messages | None" = None
    previous: "FaceAction | None" = field(default=None, compare=False)


def group(options: Options) -> Hashable:
    """What the images of one batch must agree in: the rest belongs to each of them.

    Frames that are drafted from the one before share no batch with images that are not, whose
    answers are then computed as if there were no sessions.
    """
    messages = None if options.messages is None else json.dumps(options.messages, sort_keys=True)
    return options.rationale, options.max_rationale, messages, options.previous is not None


def is_long(model: "Model", image: Framed) -> bool:
    """Whether an image has more tokens than `max_pixels` allow; it is answered alone, since others
    would be padded to as many beside it."""
    assert image.picture is not None  # what holds no face is not answered by the model
    return model.processor.tokens(image.picture) > model.processor.max_tokens


def answer_batch(
    model: "Model", images: list[Framed], options: list[Options]
) -> list["FaceAction"]:
    """The answers to images of one `group`, each as if it were alone."""
    first = options[0]
    return model.predict_batch(
        images,
        rationale=first.rationale,
        max_rationale=first.max_rationale,
        temperature=[asked.temperature for asked in options],
        seed=[asked.seed for asked in options],
        messages=first.messages,
        previous=None if first.previous is None else [asked.previous for asked in options],
    )


def sizes(batch: int) -> list[int]:
    """The sizes that batches are padded to: powers of two below `batch`, and `batch`."""
    return [2**i for i in range((batch - 1).bit_length())] + [batch]


class ClosedError(RuntimeError):
    """An image handed to a batcher that takes no more."""


@dataclass
class _Job:
    """A waiting image; `since` is the time of its arrival, in seconds of the monotonic clock."""

    image: Framed
    options: Options
    alone: bool
    future: Future = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class Batcher:
    """Answers images in batches, in a thread of its own, in the order of their arrival.

    Attributes:
      batches, answered: batches run, and images answered or failed in them, so far.
    """

    def __init__(
        self,
        answer: Callable[[list[Framed], list[Options]], list[Any]],
        batch: int = 16,
        wait: float = 0.005,
        alone: Callable[[Framed], bool] = lambda image: False,
        most: Callable[[Options], int] = lambda options: sys.maxsize,
    ):
        """
        Args:
          answer: images and options of one `group` → one answer each, in order.
          batch: the most images answered at once.
          wait: seconds that an image waits for others when nothing else is being answered.
          alone: whether an image shares no batch with others.
          most: how many images of such options may share a batch at present.
        """
        self.batches = self.answered = 0
        self._answer, self._batch, self._wait = answer, batch, wait
        self._alone, self._most = alone, most
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._began: float | None = None  # when the batch in work was begun
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Images that are in no batch yet."""
        return len(self._jobs)

    def submit(self, image: Framed, options: Options) -> "Future[FaceAction]":
        """Takes one image; a future that is cancelled in time costs nothing.

        Raises:
          ClosedError: `close` was called.
        """
        with self._changed:
            if self._closing:
                raise ClosedError("no more images are taken")
            job = _Job(image, options, self._alone(image))
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Takes no more images; returns once those taken are answered."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def problem(self, limit: float) -> str:
        """Why no image can be answered, "" if all is well.

        Args:
          limit: seconds after which a batch that is being answered counts as stuck.
        """
        if not self._thread.is_alive() and not self._closing:
            return "the thread that runs the model has ended"
        began = self._began
        taken = 0.0 if began is None else time.monotonic() - began
        return f"the model has been answering a batch for {taken:.0f} s" if taken > limit else ""

    def _work(self) -> None:
        while (jobs := self._next()) is not None:
            if jobs:
                self._began = time.monotonic()
                self._run(jobs)
                self._began = None
            del jobs  # images are not kept while there is nothing to do

    def _next(self) -> list[_Job] | None:
        """The next batch, empty if all of it were cancelled; None when closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._closing)
            if not self._jobs:
                return None
            ends = self._jobs[0].since + self._wait
            while not (self._closing or self._full(self._chosen())):
                left = ends - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            jobs = self._chosen()
            taken = set(map(id, jobs))
            self._jobs = deque(job for job in self._jobs if id(job) not in taken)
        return [job for job in jobs if job.future.set_running_or_notify_cancel()]

    def _chosen(self) -> list[_Job]:
        """The longest waiting job, and those after it that may share its batch."""
        first = self._jobs[0]
        if first.alone:
            return [first]
        key = group(first.options)
        alike = [job for job in self._jobs if not job.alone and group(job.options) == key]
        return alike[: self._room(first)]

    def _room(self, first: _Job) -> int:
        """How many images the batch of the longest waiting one may have."""
        return 1 if first.alone else min(self._batch, self._most(first.options))

    def _full(self, jobs: list[_Job]) -> bool:
        return len(jobs) >= self._room(jobs[0])

    def _run(self, jobs: list[_Job]) -> None:
        """Answers a batch. If it fails, each goes alone, so that one failure harms no other."""
        try:
            found = self._padded(jobs)
        except BaseException as error:  # whatever the model raises goes to its request
            if len(jobs) > 1:
                for job in jobs:
                    self._run([job])
                return
            self.batches, self.answered = self.batches + 1, self.answered + 1
            harmless = error if isinstance(error, Exception) else RuntimeError(repr(error))
            jobs[0].future.set_exception(harmless)
            return
        self.batches, self.answered = self.batches + 1, self.answered + len(jobs)
        for job, answer in zip(jobs, found, strict=True):
            job.future.set_result(answer)

    def _padded(self, jobs: list[_Job]) -> list[Any]:
        size = next(size for size in sizes(self._batch) if size >= len(jobs))
        full = jobs + [jobs[-1]] * (size - len(jobs))
        found = self._answer([job.image for job in full], [job.options for job in full])
        if len(found) != size:
            raise RuntimeError(f"{len(found)} answers to {size} images")
        return found[: len(jobs)]
