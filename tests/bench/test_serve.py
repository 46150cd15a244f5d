"""The bench of the service counts what is wrong, and what it must see refused is refused."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from sf_jax.bench import serve as bench_serve
from sf_jax.serve.client import ServiceError
from sf_jax.serve.listening import address, listen
from sf_jax.serve.service import Limits
from tests.serve.test_service import FakeModel, action_of, on_loopback, png


@pytest.fixture
def url() -> Iterator[str]:
    limits = Limits(max_bytes=bench_serve.MAX_BYTES, max_pixels=bench_serve.MAX_PIXELS)
    with on_loopback(FakeModel(), limits) as found:
        yield found


def test_lost_and_wrong_answers_are_counted(url: str) -> None:
    files = [png(level) for level in (1, 2, 13, 4)]  # the third fails
    expected = [action_of(np.full(1, level)) for level in (1, 2, 13, 4)]
    expected[1] = replace(expected[1], text="another")
    expected[3] = replace(expected[3], coefficients=expected[3].coefficients + 2e-4)
    tally = bench_serve.load_test(url, files, expected, requests=10, concurrent=3)
    assert (tally.sent, len(tally.lost), tally.texts, tally.numbers) == (10, 2, 3, 2)
    assert tally.parted == pytest.approx(2e-4, rel=1e-2) and "unlucky" in tally.lost[0]
    assert len(tally.seconds) == 8 and 4 <= tally.batches <= 10
    assert len(tally.row()) == len(bench_serve.HEAD) - 1


def test_all_that_must_be_refused_is(url: str) -> None:
    found = bench_serve.refusals(url, png())
    assert [status for _, status, _ in found] == [413] * 3 + [422] * 6
    assert all(reason for _, _, reason in found)
    assert bench_serve.raw(url, png()) == (200, "answered")


def test_nobody_there_is_lost() -> None:
    with listen("127.0.0.1", 0) as listening:
        nowhere = address(listening)
    found, _ = bench_serve.put(nowhere, png())
    assert isinstance(found, ServiceError)


def test_files_are_distinct_and_of_several_sizes() -> None:
    files = bench_serve.encoded_faces(7)
    assert len(set(files)) == 7
    shapes = [bench_serve.read_bytes(file, bench_serve.MAX_PIXELS).shape[:2] for file in files]
    assert shapes == [*bench_serve.SIZES, bench_serve.SIZES[0]]
