"""A synthetic performance: rendered frames that carry their number, and a reader of that number.

Frame n shows the coefficients at n / 30 s. Its number is drawn as blocks over the image's upper
edge, so that a test knows of each record which frame it is, whatever was dropped or doubled.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_pipelines import records, takes
from data_pipelines.take_frames import Seen
from data_pipelines.takes import Import, Imported
from sf_jax.face import livelink
from sf_jax.face.channels import HIGH, INDEX, LOW, NAMES
from sf_jax.render.draw import draw
from sf_jax.render.head import builtin
from sf_jax.render.scene import plain_scene
from tests.media.videos import write_video

FPS, COUNT = 30, 480  # 16 seconds
SIDE, BLOCK, BITS = 96, 8, 12


@lru_cache
def performance(step: float = 1 / FPS, count: int = COUNT) -> np.ndarray:
    """float64 [count, 61] at multiples of `step` seconds: blinks, speech, slow expressions."""
    t = np.arange(count) * step
    g = np.random.default_rng(5)
    values = np.zeros((count, len(NAMES)))
    for channel in range(len(NAMES)):
        low, high = (0.02, 0.35) if channel < 52 else (-0.2, 0.2)
        phase, speed = g.uniform(0, 6.28), g.uniform(0.4, 1.5)
        values[:, channel] = low + (high - low) * (0.5 + 0.5 * np.sin(speed * t + phase))
    blink, jaw = np.zeros(count), np.zeros(count)
    for at in np.cumsum(g.uniform(0.8, 2.5, 60)):
        blink = np.maximum(blink, np.exp(-(((t - at) / 0.08) ** 2)))
    for at in np.cumsum(g.uniform(0.3, 0.9, 120)):
        jaw += g.uniform(0, 0.7) * np.exp(-(((t - at) / 0.12) ** 2))
    for name in ("EyeBlinkLeft", "EyeBlinkRight"):
        values[:, INDEX[name]] = 0.9 * blink
    values[:, INDEX["JawOpen"]] = jaw
    return np.clip(values, LOW, HIGH).round(9)


@lru_cache(None)
def frame(number: int) -> np.ndarray:
    """Frame `number` of the performance."""
    image = draw(builtin(), performance()[number], plain_scene(), SIDE, SIDE).image.copy()
    bits = [(number >> bit) & 1 for bit in range(BITS)]
    image[:BLOCK] = np.repeat(np.array(bits, np.uint8) * 255, BLOCK)[None, :, None]
    return image


def number_of(image: np.ndarray) -> int:
    """The number that an image carries."""
    width = image.shape[1] / BITS
    middle = ((np.arange(BITS) + 0.5) * width).astype(int)
    bits = image[max(1, round(BLOCK * width / BLOCK / 2)), middle].mean(-1) > 128
    return int(sum(int(bit) << i for i, bit in enumerate(bits)))


class NoisyReader:
    """Reads what a frame shows as a weak model does: too low, and with noise."""

    def __init__(self, gain: float = 0.7, noise: float = 0.03, seed: int = 0):
        self.gain, self.noise, self.g = gain, noise, np.random.default_rng(seed)

    def __call__(self, image: np.ndarray, seconds: float) -> Seen:
        values = performance()[number_of(image)] * self.gain
        return Seen(values + self.noise * self.g.normal(size=len(NAMES)))


def write_csv(
    path: Path, numbers: Sequence[int], fps: float = FPS, positions: Iterable[int] | None = None
) -> Path:
    """A file with a row of each frame number, at positions of its timecode."""
    positions = range(len(numbers)) if positions is None else positions
    positions = list(positions)
    labels = livelink.labels(max(positions) + 1, fps, "12:00:00:00.000")
    livelink.write(path, performance()[list(numbers)], timecodes=[labels[i] for i in positions])
    return path


def write_frames(
    path: Path,
    numbers: Sequence[int],
    fps: float | Fraction = FPS,
    times: Sequence[float | Fraction] | None = None,
    **how: dict[str, str],
) -> Path:
    """A video of frames of these numbers."""
    images = [frame(number) for number in numbers]
    options = {"preset": "ultrafast", "crf": "20"}
    return write_video(
        path,
        fps,
        images,
        times=times,
        codec="libx264",
        options=options,
        **how,  # type: ignore[arg-type]
    )


def imported(
    csv: Path, video: Path, how: Import | None = None, reader: NoisyReader | None = None
) -> tuple[Imported, np.ndarray]:
    """The import without sheets, and the numbers of the frames in its records.

    Fails unless each record has exactly the coefficients of its frame.
    """
    out = csv.parent / "out"
    done = takes.import_take(csv, video, out, reader or NoisyReader(), how, sheets=False)
    found = [one for file in records.files(out) for one in records.read(file)]
    numbers = np.array([number_of(one["image"]) for one in found])
    true = performance()[numbers].astype(np.float32)
    labels = np.stack([one["coefficients"] for one in found])
    known = np.stack([one["known"] for one in found])
    np.testing.assert_allclose(labels[known], true[known], atol=1e-7)
    assert not labels[~known].any() and len(found) == done.records
    return done, numbers
