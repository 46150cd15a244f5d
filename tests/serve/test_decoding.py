"""Images are decoded in processes: whatever becomes of one, its image alone is lost."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sf_jax.convert.processor import FittedImage, ImageProcessor
from sf_jax.media.images import ImageError, TooLargeError, read_bytes
from sf_jax.serve import decoder, decoding
from sf_jax.serve.decoder import Settings
from sf_jax.serve.decoding import DecoderError, Decoders
from tests.media.test_images import progressive

PATIENCE = 60.0  # seconds after which a test gives up
PROCESSOR = ImageProcessor(4608, 9216)
PIXELS = 50_000_000
ROOT = Path(__file__).parents[2]


@contextmanager
def decoders(
    count: int = 1, memory: int = 2**31, seconds: float = PATIENCE, patience: float = PATIENCE
) -> Iterator[Decoders]:
    made = Decoders(Settings(PROCESSOR, memory, seconds), count, patience)
    try:
        yield made
    finally:
        made.close()


def noise(level: int = 7, width: int = 300, height: int = 200) -> bytes:
    pixels = np.random.default_rng(level).integers(0, 256, (height, width, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


@cache
def slow() -> bytes:
    """About a second of decoding, within all that can be counted beforehand."""
    return progressive(100, 5000)


def pids(made: Decoders) -> list[int]:
    return [worker.process.pid for worker in made._workers if worker]


def until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.01)


def busy(made: Decoders) -> bool:
    return all(worker and worker.job and worker.job.begun for worker in made._workers)


@pytest.fixture(scope="module")
def shared() -> Iterator[Decoders]:
    with decoders() as made:
        yield made


def test_an_image_is_decoded_and_fitted_as_elsewhere(shared: Decoders) -> None:
    whole = read_bytes(noise(), PIXELS)
    np.testing.assert_array_equal(shared.whole(noise(), PIXELS).result(PATIENCE), whole)
    fitted = shared.fitted(noise(), PIXELS).result(PATIENCE)
    np.testing.assert_array_equal(fitted.pixels, PROCESSOR.fit(whole).pixels)


@pytest.mark.parametrize(
    "body, pixels, kind, reason",
    [
        (b"no image", PIXELS, ImageError, "image: not an image in a known format"),
        (b"", PIXELS, ImageError, "image: the file is empty"),
        (noise()[:5000], PIXELS, ImageError, "image: damaged or truncated"),
        (noise(), 59_999, TooLargeError, "image: 300 x 200 pixels, at most 59,999 are read"),
        (noise(width=9000, height=1), PIXELS, ImageError, "more than 200 times the other"),
        (progressive(101), PIXELS, ImageError, "image: a JPEG of more than 100 scans"),
    ],
)
def test_a_bad_image_gets_its_reason_and_the_next_one_is_decoded(
    shared: Decoders, body: bytes, pixels: int, kind: type[Exception], reason: str
) -> None:
    before = pids(shared)
    with pytest.raises(kind, match=reason) as caught:
        shared.fitted(body, pixels).result(PATIENCE)
    assert type(caught.value) is kind
    assert shared.whole(noise(3), PIXELS).result(PATIENCE).shape == (200, 300, 3)
    assert pids(shared) == before


def test_decoders_start_without_jax(shared: Decoders) -> None:
    shared.fitted(noise(), PIXELS).result(PATIENCE)
    maps = Path(f"/proc/{pids(shared)[0]}/maps").read_text()
    assert "PIL" in maps and "jaxlib" not in maps


def test_an_image_that_takes_too_long_is_given_up_and_the_next_one_is_decoded() -> None:
    with decoders(seconds=0.3) as made:
        with pytest.raises(ImageError, match=r"image: decoding takes more than 0\.3 s of a"):
            made.fitted(slow(), PIXELS).result(PATIENCE)
        assert made.killed == 1
        assert made.whole(noise(), PIXELS).result(PATIENCE).shape == (200, 300, 3)


def test_a_process_that_is_stopped_is_replaced() -> None:
    with decoders(seconds=0.15) as made:
        made.fitted(noise(), PIXELS).result(PATIENCE)
        os.kill(pids(made)[0], signal.SIGSTOP)
        with pytest.raises(ImageError, match="takes more than"):
            made.fitted(noise(), PIXELS).result(PATIENCE)
        made.fitted(noise(), PIXELS).result(PATIENCE)


def test_an_image_that_needs_too_much_memory_is_refused() -> None:
    file = io.BytesIO()
    Image.new("L", (7000, 7000)).save(file, "PNG")
    with decoders(memory=100 * 2**20) as made:
        with pytest.raises(TooLargeError, match="image: too large for the memory"):
            made.fitted(file.getvalue(), PIXELS).result(PATIENCE)
        assert made.whole(noise(), PIXELS).result(PATIENCE).shape == (200, 300, 3)


def test_a_process_that_is_killed_loses_its_image_alone() -> None:
    with decoders() as made:
        lost, waiting = made.fitted(slow(), PIXELS), made.fitted(noise(), PIXELS)
        until(lambda: busy(made))
        os.kill(pids(made)[0], signal.SIGKILL)
        with pytest.raises(DecoderError, match="the decoder of the image ended: Killed"):
            lost.result(PATIENCE)
        waiting.result(PATIENCE)
        os.kill(pids(made)[0], signal.SIGKILL)  # while it does nothing
        until(lambda: not made.alive)
        made.fitted(noise(), PIXELS).result(PATIENCE)


def test_a_process_that_is_killed_for_an_image_it_has_finished_loses_no_other() -> None:
    somewhat = progressive(40, 2500)  # about a tenth of a second
    with decoders() as made:
        for level, begin in ((1, False), (2, True)):  # the next image has begun, or has not
            made.fitted(noise(level), PIXELS).result(PATIENCE)
            worker = made._workers[0]
            assert worker
            following = made.fitted(somewhat, PIXELS) if begin else None
            if begin:
                until(lambda: busy(made))
            worker.kill(decoding._Job(b"", 1, False), ImageError("takes too long"))
            following = following or made.fitted(somewhat, PIXELS)
            assert following.result(PATIENCE).pixels.ndim == 3


def test_whatever_an_image_raises_is_its_own_fault() -> None:
    class Deep(ImageProcessor):
        def fit(self, image: np.ndarray) -> FittedImage:
            raise RecursionError("deep")

    ours, other = Pipe()
    with ours, other:
        decoder.answer(other, Settings(Deep(4608, 9216), 2**31, PATIENCE), noise(), False, PIXELS)
        reply = json.loads(ours.recv_bytes())
    assert reply == {"error": "image: cannot be decoded: RecursionError", "too_large": False}


@pytest.mark.slow
def test_a_crash_is_the_fault_of_the_image() -> None:
    with decoders() as made:
        lost = made.fitted(slow(), PIXELS)
        until(lambda: busy(made))
        os.kill(pids(made)[0], signal.SIGSEGV)
        with pytest.raises(ImageError, match="image: its decoder crashed: Segmentation fault"):
            lost.result(PATIENCE)


def test_slow_images_make_room_for_those_that_wait_and_are_decoded_afterwards() -> None:
    with decoders(count=2, patience=0.05) as made:
        until(lambda: made.alive == 2)
        dear = [made.fitted(slow(), PIXELS) for _ in range(2)]
        until(lambda: busy(made))
        cheap = [made.fitted(noise(level), PIXELS) for level in range(9)]
        for future in cheap:
            future.result(PATIENCE)
        for future in dear:
            future.result(PATIENCE)


@pytest.mark.slow
def test_a_slow_image_is_interrupted_a_few_times_at_most() -> None:
    with decoders(patience=0.2) as made:
        dear = made.fitted(slow(), PIXELS)
        while not dear.done():
            until(lambda: dear.done() or busy(made))
            made.fitted(noise(), PIXELS).result(PATIENCE)
        with pytest.raises(DecoderError, match=r"busy: the image takes more than 0\.\d s"):
            dear.result()
        assert made.killed == decoding.TRIES + 1


def test_an_image_that_nobody_waits_for_is_not_decoded() -> None:
    with decoders() as made:
        first = made.fitted(slow(), PIXELS)
        until(lambda: busy(made))
        second = made.fitted(noise(), PIXELS)
        assert made.waited() > 0 and second.cancel() and made.waited() == 0
        made._workers[0].process.kill()  # type: ignore[union-attr]
        assert first.exception(PATIENCE)
        made.fitted(noise(), PIXELS).result(PATIENCE)


def test_decoders_that_do_not_start_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding.sys, "executable", "/bin/false")
    with decoders() as made:
        with pytest.raises(DecoderError, match="a decoder does not start: exit code 1"):
            made.fitted(noise(), PIXELS).result(PATIENCE)
        assert made.alive == 0 and "does not start" in made.problem()
        monkeypatch.undo()
        until(lambda: not made.problem())
        made.fitted(noise(), PIXELS).result(PATIENCE)


def test_after_closing_nothing_is_taken_and_nothing_is_left() -> None:
    with decoders() as made:
        made.fitted(noise(), PIXELS).result(PATIENCE)
        (pid,) = pids(made)
        held = [made.fitted(slow(), PIXELS) for _ in range(2)]
        until(lambda: busy(made))
        made.close()
        for future in held:
            assert isinstance(future.exception(PATIENCE), DecoderError)
        with pytest.raises(DecoderError, match="no more images are taken"):
            made.fitted(noise(), PIXELS)
    assert not Path(f"/proc/{pid}").exists()
    assert not any(thread.name.startswith("decoder") for thread in made_threads(made))


def made_threads(made: Decoders) -> list[threading.Thread]:
    return [thread for thread in made._threads if thread.is_alive()]


OWNER = """
import sys, time
from tests.serve.test_decoding import PIXELS, busy, decoders, noise, pids, slow, until
with decoders(count=2) as made:
    until(lambda: made.alive == 2)  # else one of them might decode both images
    for _ in range(2):
        made.fitted(slow(), PIXELS)
    until(lambda: busy(made))
    print(*pids(made), flush=True)
    time.sleep(60)
"""


def test_processes_end_with_their_owner_in_the_middle_of_an_image() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert owner.stdout is not None
    own = [int(pid) for pid in owner.stdout.readline().split()]
    assert len(own) == 2
    owner.kill()
    owner.communicate()
    until(lambda: not any(running(pid) for pid in own))


def running(pid: int) -> bool:
    """Whether a process is there, and not only its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
