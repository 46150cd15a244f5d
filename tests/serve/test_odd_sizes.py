"""The service and `predict` read an image of any size alike, and compile nothing in between."""

import asyncio
import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from data_pipelines.synthetic import face_record
from sf_jax.cli import loading
from sf_jax.convert.processor import ImageProcessor
from sf_jax.decode import decoder
from sf_jax.face.describe import Description
from sf_jax.media.images import read_image
from sf_jax.reader import estimator
from sf_jax.reader.action import FaceAction
from sf_jax.reader.framing import Framed
from sf_jax.serve.batching import Options, answer_batch
from sf_jax.serve.server import warm_up
from sf_jax.serve.service import Limits, Service
from sf_jax.serve.wire import Asked
from tests.plain_model import PlainModel
from tests.serve.test_service import same

CASES = Path(__file__).parents[3] / "shared" / "cases" / "service_differs"
COMPILED = "/jax/core/compile/backend_compile_duration"
SMALL = ImageProcessor(4608, 9216)


@pytest.fixture(scope="module")
def model() -> estimator.Model:
    return loading.load_model(None)


@cache
def sizes(count: int) -> list[tuple[int, int]]:
    """Heights and widths: aspect ratios from 1 to 20 evenly, tall and wide by turns."""
    generator = np.random.default_rng(18)
    found = [(862, 370), (370, 862)]
    for number, ratio in enumerate(np.linspace(1, 20, count - len(found))):
        short = int(generator.integers(3, 400))
        size = (short, round(short * ratio))
        found.append(size if number % 2 else size[::-1])
    return found


def png(number: int, size: tuple[int, int]) -> bytes:
    """A rendered face, stretched to height and width."""
    height, width = size
    image = Image.fromarray(face_record(number % 8, 5, "evaluation")["image"])
    file = io.BytesIO()
    image.resize((width, height), Image.Resampling.BICUBIC).save(file, "PNG", compress_level=1)
    return file.getvalue()


@contextmanager
def compilations() -> Iterator[list[str]]:
    """Collects the programs that are compiled, or read from the cache on disk."""
    met: list[str] = []

    def listener(event: str, seconds: float, **_: object) -> None:
        if event == COMPILED:
            met.append(event)

    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        yield met
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)


def answered(
    service: Service, files: list[bytes], options: Options
) -> tuple[list[FaceAction], list[FaceAction]]:
    """The answers to each file alone, and to all at once."""

    async def ask_all() -> tuple[list[FaceAction], list[FaceAction]]:
        asked = Asked(whole=True)
        alone = [await service.answer(file, options, asked) for file in files]
        together = [service.answer(file, options, asked) for file in files]
        return alone, await asyncio.gather(*together)

    return asyncio.run(ask_all())


def check(model: estimator.Model, files: list[bytes], batch: int, rationale: bool) -> None:
    service = Service(model, Limits(), batch=batch)
    service.all_compiled()
    try:
        with compilations() as met:
            alone, together = answered(service, files, Options(rationale=rationale))
        assert not met
    finally:
        service.close()
    assert service.batcher.batches < 2 * len(files)  # some did share a batch
    for file, own, shared in zip(files, alone, together, strict=True):
        image = read_image(Image.open(io.BytesIO(file)))
        expected = model.predict(image, whole=True, rationale=rationale)
        assert same(own, expected)
        assert shared.text == expected.text
        np.testing.assert_allclose(shared.coefficients, expected.coefficients, atol=1e-5, rtol=0)


def test_a_dozen_sizes(model: estimator.Model) -> None:
    """Without rationales, whose programs take longer to compile."""
    usual = Framed(model.processor.fit(np.zeros((512, 512, 3), np.uint8)))
    long = Framed(model.processor.fit(np.zeros((32, 1344, 3), np.uint8)))
    for images in ([usual], [usual] * 2, [long]):
        answer_batch(model, images, [Options(rationale=False)] * len(images))
    check(model, [png(number, size) for number, size in enumerate(sizes(12))], 2, False)


@pytest.mark.slow
def test_two_hundred_sizes(model: estimator.Model) -> None:
    warm_up(model, 4, [], [(512, 512)])
    shown = [*sizes(198), (15, 3000), (1500, 25)]
    check(model, [png(number, size) for number, size in enumerate(shown)], 4, True)


def test_an_image_that_makes_no_text_is_read_without_a_rationale(
    model: estimator.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = face_record(0, 5, "evaluation")["image"]
    monkeypatch.setattr(decoder, "is_degenerate", lambda *_, **__: True)
    read = partial(model.predict, image, whole=True)
    found = read()
    assert found.text == read(rationale=False).text and not len(found.rationale_ids)
    assert found.rationale == Description("", "", "", "")
    both = model.predict_batch([image] * 2, whole=True, temperature=np.zeros(2), seed=np.arange(2))
    assert [one.text for one in both] == [found.text] * 2


@pytest.mark.slow
def test_a_degenerate_rationale_is_left_out_of_its_row_alone(
    model: estimator.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [face_record(number, 5, "evaluation")["image"] for number in range(2)]
    plain = model.predict_batch(images, whole=True, temperature=[0.0, 0.4], seed=[1, 2])
    monkeypatch.setattr(
        decoder, "is_degenerate", lambda text, *_, **__: text == plain[1].rationale.text
    )
    mended = model.predict_batch(images, whole=True, temperature=[0.0, 0.4], seed=[1, 2])
    alone = model.predict(images[1], whole=True, temperature=0.4, seed=2, rationale=False)
    assert same(mended[0], plain[0]) and mended[1].text == alone.text
    assert mended[1].text != plain[1].text


class Recorder(PlainModel):
    """Stands for a model: records how many images of how many tokens it is asked about."""

    drafts_rationale = True

    def __init__(self) -> None:
        super().__init__()
        self.processor = SMALL
        self.met: set[tuple[int, int]] = set()

    def predict_batch(self, images: list[Framed], **_: object) -> list:  # type: ignore[override]
        (tokens,) = {SMALL.tokens(one.picture) for one in images if one.picture is not None}
        self.met.add((len(images), SMALL.padded(tokens)))
        return [None] * len(images)


def test_warming_up_meets_long_images() -> None:
    model = Recorder()
    warm_up(model, 2, [], [(512, 512)])  # type: ignore[arg-type]
    assert model.met == {(1, 9), (2, 9), (1, 42)}


def test_stored_cases(model: estimator.Model) -> None:
    files = sorted(CASES.glob("*.png"))
    if not files:
        pytest.skip(f"no images in {CASES}")
    for file in files:
        fitted = Framed(model.processor.fit(read_image(file)))
        (found,) = answer_batch(model, [fitted], [Options()])
        assert same(found, model.predict(file, whole=True))


def test_a_fitted_image_is_not_resized_again() -> None:
    once = SMALL.fit(np.zeros((370, 862, 3), np.uint8))
    assert SMALL.size(*once.pixels.shape[:2]) != once.pixels.shape[:2]  # it would be
    assert SMALL.fit(once) is once


def test_no_image_has_more_tokens_than_the_longest() -> None:
    assert SMALL.max_tokens == 9 and SMALL.longest in ((1344, 32), (32, 1344))
    for ratio in np.linspace(1, 200, 3000):
        for height, width in ((40, int(40 * ratio)), (int(900 * ratio), 900)):
            rows, columns = SMALL.size(height, width)
            assert SMALL.padded(rows * columns // 32**2) in (9, 42)
    wide = ImageProcessor(65_536, 1_048_576)  # bounds far apart, as the released model's
    assert wide.longest[0] * wide.longest[1] <= wide.max_pixels
