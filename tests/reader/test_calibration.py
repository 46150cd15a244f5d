"""Uniform shares of distributions: what they keep, what they mend, and their file."""

import json
from pathlib import Path

import numpy as np
import pytest

from sf_jax.face.channels import NAMES
from sf_jax.face.coverage import coverage, pit
from sf_jax.media import files
from sf_jax.reader import calibration
from sf_jax.reader.calibration import Calibration, CalibrationError

TENTHS = np.arange(11) / 10
GRID = np.tile(TENTHS, (61, 1))


def distributions(count: int, width: float, seed: int = 0) -> np.ndarray:
    """Bells over tenths around random centres, as wide as `width`."""
    centres = np.random.default_rng(seed).uniform(-0.05, 1.05, (count, 1))
    p = np.exp(-0.5 * ((TENTHS - centres) / width) ** 2)
    return p / p.sum(-1, keepdims=True)


def test_a_share_of_all_values_that_there_are() -> None:
    values = np.full((61, 21), np.nan)
    values[:, :11] = TENTHS
    before = np.zeros((61, 21), np.float32)
    before[:, :11] = distributions(61, 0.15)
    before[3] = np.nan  # not read
    share = np.zeros(61, np.float32)
    share[[1, 3]] = 0.5
    found = Calibration(share).apply(before, values)
    np.testing.assert_allclose(found[1, :11], before[1, :11] / 2 + 0.5 / 11, rtol=1e-6)
    assert not found[1, 11:].any() and np.isnan(found[3]).all()
    same = ~np.isin(np.arange(61), [1, 3])
    np.testing.assert_array_equal(found[same], before[same])
    several = Calibration(share).apply(np.stack([before, before]), values)
    np.testing.assert_array_equal(several[1], found)


def test_the_spread_is_around_the_coefficient() -> None:
    certain = np.tile(np.eye(11)[2], (61, 1))
    mean = np.full(61, 0.2)
    spread, entropy = calibration.moments(certain, GRID, mean)
    assert not spread.any() and not entropy.any()
    wider = Calibration(np.full(61, 0.11, np.float32)).apply(certain, GRID)
    spread, entropy = calibration.moments(wider, GRID, mean)
    assert spread[0] == pytest.approx(np.sqrt(0.01 * ((TENTHS - 0.2) ** 2).sum()), rel=1e-5)
    assert entropy[0] == pytest.approx(-0.9 * np.log(0.9) - 0.1 * np.log(0.01), rel=1e-5)
    certain[5] = np.nan
    assert np.isnan(np.stack(calibration.moments(certain, GRID, mean))[:, 5]).all()


def test_shares_cover_labels_that_the_model_takes_for_rest() -> None:
    """Of four labels that it calls 0 for certain, one is active and may have any value."""
    count, generator = 4000, np.random.default_rng(1)
    rest = np.zeros(11)
    rest[:2] = 0.85, 0.15
    probabilities = np.tile(rest, (count, 61, 1))
    labels = np.where(
        generator.random((count, 61)) < 0.25, generator.uniform(0.25, 1, (count, 61)), 0.0
    )
    known = np.ones(labels.shape, bool)
    known[150:, 5] = False  # too few labels
    labels[:, 6] = 0  # none active
    probabilities[:, 7] = np.nan  # not read
    share = calibration.fit(probabilities, GRID, labels, known)
    assert (share[[5, 7]] == 0).all() and share[6] < 0.05
    assert np.delete(share, [5, 6, 7])[:49].min() > 0.1 and not share[52:].any()
    before, after = (
        coverage(pit(each, GRID, labels), labels, known)
        for each in (probabilities, Calibration(share).apply(probabilities, GRID))
    )
    assert before.active == 0 and 0.6 < after.active < 1 and 0.7 < after.all < 0.9


def test_distributions_that_are_right_are_left_alone() -> None:
    p = distributions(3000, 0.2)
    generator = np.random.default_rng(2)
    drawn = np.array([generator.choice(TENTHS, p=each) for each in p])
    probabilities, labels = np.repeat(p[:, None], 61, 1), np.repeat(drawn[:, None], 61, 1)
    share = calibration.fit(probabilities, GRID, labels, np.ones(labels.shape, bool))
    assert share.max() < 0.08


def write(folder: Path, weights: str | None = "xxh128:0", **changes: object) -> Path:
    content = calibration.stored(np.full(61, 0.15, np.float32), weights, 300).model_dump()
    files.write_json(folder / calibration.FILE, content | changes)
    return folder


def test_the_file_holds_for_the_weights_that_were_measured(tmp_path: Path) -> None:
    assert calibration.load(tmp_path, lambda: pytest.fail("hashed for nothing")) is None
    found = calibration.load(write(tmp_path), lambda: "xxh128:0")
    assert found is not None
    np.testing.assert_allclose(found.share, 0.15, rtol=1e-6)
    assert calibration.load(tmp_path, lambda: "xxh128:1") is None
    assert calibration.load(write(tmp_path, None), lambda: "xxh128:1") is not None


@pytest.mark.parametrize(
    ("shares", "named"),
    [
        ({"JawWide": 0.2}, "JawWide"),
        ({"JawOpen": -0.1}, "shares.JawOpen"),
        ({"JawOpen": "high"}, "shares.JawOpen"),
        ({"JawOpen": 0.7}, "not from 0 to 0.5"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, shares: dict, named: str) -> None:
    write(tmp_path, shares=shares)
    with pytest.raises(CalibrationError, match=named) as found:
        calibration.load(tmp_path)
    assert str(tmp_path / calibration.FILE) in str(found.value)
    (tmp_path / calibration.FILE).write_text(json.dumps({"weights": None})[:-1])
    with pytest.raises(CalibrationError, match="calibration"):
        calibration.load(tmp_path)


def test_names_are_all_channels(tmp_path: Path) -> None:
    write(tmp_path)
    content = json.loads((tmp_path / calibration.FILE).read_text())
    assert tuple(content["shares"]) == NAMES
