"""Temperatures of distributions: what they keep, what they mend, and their file."""

import json
from pathlib import Path

import numpy as np
import pytest

from sf_jax.face.channels import NAMES
from sf_jax.media import files
from sf_jax.reader import calibration
from sf_jax.reader.calibration import Calibration, CalibrationError, tempered

TENTHS = np.arange(11) / 10
GRID = np.tile(TENTHS, (61, 1))


def distributions(count: int, width: float, seed: int = 0) -> np.ndarray:
    """Bells over tenths around random centres, as wide as `width`."""
    centres = np.random.default_rng(seed).uniform(-0.05, 1.05, (count, 1))
    p = np.exp(-0.5 * ((TENTHS - centres) / width) ** 2)
    return p / p.sum(-1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7, 4.0])
def test_the_mean_stays_and_the_width_follows_the_temperature(temperature: float) -> None:
    before = np.concatenate([distributions(40, 0.15), np.eye(11)])
    after = tempered(before, np.broadcast_to(TENTHS, before.shape), temperature)
    np.testing.assert_allclose(after.sum(-1), 1, atol=1e-9)
    np.testing.assert_allclose(after @ TENTHS, before @ TENTHS, atol=1e-5)
    variance = [each @ TENTHS**2 - (each @ TENTHS) ** 2 for each in (before, after)]
    change = variance[1] - variance[0]
    assert (change * np.sign(temperature - 1) >= -1e-9).all()


def test_values_that_are_not_there_stay_impossible() -> None:
    values = np.concatenate([TENTHS, np.full(10, np.nan)])[None]
    p = np.concatenate([distributions(1, 0.1)[0], np.zeros(10)])[None]
    found = tempered(p, values, 2.0)
    assert not found[0, 11:].any() and found[0, :11].all()


def test_the_temperature_of_labels_wider_than_the_distributions_is_found() -> None:
    """Labels are drawn from distributions of temperature 2.25: those generated are too narrow."""
    count, generator = 3000, np.random.default_rng(1)
    true = distributions(count, 0.15)
    drawn = np.array([generator.choice(TENTHS, p=p) for p in true])
    narrow = tempered(true, np.broadcast_to(TENTHS, true.shape), 1 / 2.0)
    probabilities = np.repeat(narrow[:, None], 61, 1)
    labels = np.repeat(drawn[:, None], 61, 1)
    known = np.ones(labels.shape, bool)
    known[:, 5] = False  # too few labels
    known[:, 6] = drawn == 0  # none active
    probabilities[:, 7] = np.nan  # not read
    few = slice(0, 10)
    only = np.isin(np.arange(61), [5, 6, 7, few.start])
    found = calibration.fit(probabilities, GRID, labels, known & only)
    assert found[0] == pytest.approx(2.0, rel=0.1)
    assert (found[[5, 6, 7, 20]] == 1).all()


def test_channels_of_temperature_one_and_those_not_read_are_left_alone() -> None:
    probabilities = distributions(61, 0.15).astype(np.float32)
    probabilities[3] = np.nan
    temperature = np.ones(61, np.float32)
    temperature[[1, 3]] = 2.0
    found = Calibration(temperature).apply(probabilities, GRID)
    same = np.arange(61) != 1
    np.testing.assert_array_equal(found[same], probabilities[same])
    spread, entropy = calibration.moments(found, GRID)
    narrow, surer = calibration.moments(probabilities, GRID)
    assert spread[1] > narrow[1] and entropy[1] > surer[1] and np.isnan(spread[3])


def write(folder: Path, weights: str | None = "xxh128:0", **changes: object) -> Path:
    content = calibration.stored(np.full(61, 1.5, np.float32), weights, 300).model_dump()
    files.write_json(folder / calibration.FILE, content | changes)
    return folder


def test_the_file_holds_for_the_weights_that_were_measured(tmp_path: Path) -> None:
    assert calibration.load(tmp_path, lambda: pytest.fail("hashed for nothing")) is None
    found = calibration.load(write(tmp_path), lambda: "xxh128:0")
    assert found is not None and (found.temperature == 1.5).all()
    assert calibration.load(tmp_path, lambda: "xxh128:1") is None
    assert calibration.load(write(tmp_path, None), lambda: "xxh128:1") is not None


@pytest.mark.parametrize(
    ("temperatures", "named"),
    [
        ({"JawWide": 1.2}, "JawWide"),
        ({"JawOpen": 0.0}, "temperatures.JawOpen"),
        ({"JawOpen": "high"}, "temperatures.JawOpen"),
        ({"JawOpen": 99.0}, "not from 0.5 to 4"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, temperatures: dict, named: str) -> None:
    write(tmp_path, temperatures=temperatures)
    with pytest.raises(CalibrationError, match=named) as found:
        calibration.load(tmp_path)
    assert str(tmp_path / calibration.FILE) in str(found.value)
    (tmp_path / calibration.FILE).write_text(json.dumps({"weights": None})[:-1])
    with pytest.raises(CalibrationError, match="calibration"):
        calibration.load(tmp_path)


def test_names_are_all_channels(tmp_path: Path) -> None:
    write(tmp_path)
    content = json.loads((tmp_path / calibration.FILE).read_text())
    assert tuple(content["temperatures"]) == NAMES
