"""The batcher: who shares a batch, who gets which answer, and what one failure does to others."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from sf_jax.serve.batching import Batcher, ClosedError, Options, answer_batch, sizes

FOREVER = 30.0  # seconds: a wait that no test may end by


class Gated:
    """Stands for a model: answers a picture with its first value, once the gate is open."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[int], list[Options]]] = []
        self.gate, self.begun = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, pictures: list[np.ndarray], options: list[Options]) -> list[int]:
        numbers = [int(picture.flat[0]) for picture in pictures]
        self.batches.append((numbers, options))
        self.begun.release()
        self.gate.acquire()
        if 13 in numbers:
            raise ValueError("thirteen")
        return [10 * number for number in numbers]

    def open(self) -> None:
        self.gate.release(1000)

    def shown(self) -> list[list[int]]:
        return [numbers for numbers, _ in self.batches]


def picture(number: int) -> np.ndarray:
    return np.full((2, 2, 3), number, np.uint8)


@pytest.fixture
def model() -> Gated:
    return Gated()


@pytest.fixture
def batcher(model: Gated) -> Iterator[Batcher]:
    made = Batcher(model, batch=4, wait=0.0)
    yield made
    model.open()
    made.close()


def occupied(model: Gated, batcher: Batcher) -> None:
    """Gives the model one picture to be busy with, so that those after it gather."""
    batcher.submit(picture(0), Options())
    assert model.begun.acquire(timeout=FOREVER)


def test_a_long_image_shares_no_batch(model: Gated) -> None:
    batcher = Batcher(model, batch=4, wait=0.0, alone=lambda image: image.flat[0] in (3, 5))  # type: ignore[attr-defined]
    occupied(model, batcher)
    found = [batcher.submit(picture(number), Options()) for number in (1, 2, 3, 4, 5)]
    model.open()
    assert [future.result(FOREVER) for future in found] == [10, 20, 30, 40, 50]
    batcher.close()
    assert sorted(set(map(tuple, model.shown()))) == [(0,), (1, 2, 4, 4), (3,), (5,)]


@pytest.mark.parametrize(
    "batch, expected", [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (16, [1, 2, 4, 8, 16])]
)
def test_sizes_are_few_and_end_with_the_largest(batch: int, expected: list[int]) -> None:
    assert sizes(batch) == expected


def test_pictures_that_wait_go_together_and_each_gets_its_own_answer(
    model: Gated, batcher: Batcher
) -> None:
    occupied(model, batcher)
    futures = [batcher.submit(picture(i), Options()) for i in range(1, 8)]
    assert batcher.waiting == 7
    model.open()
    assert [future.result(FOREVER) for future in futures] == [10 * i for i in range(1, 8)]
    # Four at once at most; three are padded to four with the last of them.
    assert model.shown() == [[0], [1, 2, 3, 4], [5, 6, 7, 7]]
    assert (batcher.batches, batcher.answered, batcher.waiting) == (3, 8, 0)


def test_only_what_agrees_in_words_and_cap_goes_together(model: Gated, batcher: Batcher) -> None:
    occupied(model, batcher)
    short, mute = Options(max_rationale=5), Options(rationale=False)
    asked = [Options(), mute, Options(), short, mute]
    futures = [batcher.submit(picture(i), options) for i, options in enumerate(asked, 1)]
    model.open()
    assert [future.result(FOREVER) for future in futures] == [10, 20, 30, 40, 50]
    assert model.shown() == [[0], [1, 3], [2, 5], [4]]
    assert [set(options) for _, options in model.batches[1:]] == [{Options()}, {mute}, {short}]


def test_sampled_answers_share_a_batch(model: Gated, batcher: Batcher) -> None:
    occupied(model, batcher)
    asked = [Options(temperature=1.0, seed=3), Options(), Options(temperature=1.0, seed=3)]
    futures = [batcher.submit(picture(i), options) for i, options in enumerate(asked, 1)]
    model.open()
    assert [future.result(FOREVER) for future in futures] == [10, 20, 30]
    assert model.shown() == [[0], [1, 2, 3, 3]]


def test_a_picture_that_fails_fails_alone(model: Gated, batcher: Batcher) -> None:
    occupied(model, batcher)
    futures = [batcher.submit(picture(i), Options()) for i in (1, 13, 3)]
    model.open()
    assert futures[0].result(FOREVER) == 10 and futures[2].result(FOREVER) == 30
    with pytest.raises(ValueError, match="thirteen"):
        futures[1].result(FOREVER)


def test_who_gave_up_is_not_answered(model: Gated, batcher: Batcher) -> None:
    occupied(model, batcher)
    futures = [batcher.submit(picture(i), Options()) for i in (1, 2, 3)]
    assert futures[1].cancel()
    lonely = batcher.submit(picture(4), Options(rationale=False))
    assert lonely.cancel()  # a batch of nobody is none
    model.open()
    assert futures[2].result(FOREVER) == 30
    batcher.close()
    assert model.shown() == [[0], [1, 3]]


def test_an_idle_model_waits_for_company(model: Gated) -> None:
    batcher = Batcher(model, batch=2, wait=FOREVER)
    model.open()
    futures = [batcher.submit(picture(i), Options()) for i in (1, 2)]
    assert [future.result(FOREVER) for future in futures] == [10, 20]
    batcher.close()
    assert model.shown() == [[1, 2]]


def test_an_idle_model_does_not_wait_for_ever(model: Gated) -> None:
    batcher = Batcher(model, batch=2, wait=0.01)
    model.open()
    assert batcher.submit(picture(1), Options()).result(FOREVER) == 10
    batcher.close()


def test_closing_answers_all_that_was_taken(model: Gated) -> None:
    batcher = Batcher(model, batch=2, wait=FOREVER)  # the last one would wait for company
    futures = [batcher.submit(picture(i), Options()) for i in (1, 2, 3)]
    model.open()
    batcher.close()
    assert [future.result(0) for future in futures] == [10, 20, 30]
    with pytest.raises(ClosedError):
        batcher.submit(picture(4), Options())


def test_too_few_answers_are_an_error_and_no_hang() -> None:
    batcher = Batcher(lambda pictures, options: [], batch=2, wait=0.0)
    with pytest.raises(RuntimeError, match="0 answers to 1 images"):
        batcher.submit(picture(1), Options()).result(FOREVER)
    batcher.close()


def test_options_reach_the_model() -> None:
    class Model:
        def predict_batch(self, pictures: list, **called: object) -> list:
            return [called] * len(pictures)

    options = Options(rationale=False, temperature=0.5, seed=7, max_rationale=9)
    (called,) = answer_batch(Model(), [picture(1)], [options])  # type: ignore[arg-type]
    asked = {"rationale": False, "temperature": [0.5], "seed": [7], "max_rationale": 9}
    assert called == asked | {"messages": None, "previous": None}
