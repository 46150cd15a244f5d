"""`sf-jax predict` on videos: the rows of the CSV are at the times of the frames."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from sf_jax.cli import loading
from sf_jax.face import livelink
from sf_jax.face.channels import INDEX
from sf_jax.face.one_euro import smooth
from tests.cli.test_cli import BarModel, errors, run
from tests.media.videos import counting, write_video

JAW = INDEX["JawOpen"]
SLOWING = [*(Fraction(i, 30) for i in range(30)), *(1 + Fraction(i, 10) for i in range(20))]


@pytest.fixture(autouse=True)
def bar_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "load_model", lambda *_: BarModel())


def slowing(path: Path, **how) -> Path:
    return write_video(path, 30, [counting(i) for i in range(50)], times=SLOWING, **how)


def taken(path: Path, *flags: object) -> livelink.Take:
    out = path.parent / "out"
    assert run("predict", path, "--out", out, "--no-preview", *flags) == 0
    return livelink.read(out / f"{path.stem}.csv")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_rows_are_at_the_times_of_the_frames(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture
) -> None:
    take = taken(slowing(tmp_path / name))
    np.testing.assert_allclose(take.seconds, np.array(SLOWING, float), atol=1e-6)
    assert take.timecodes[29:32] == ["00:00:00:29.000", "00:00:01:00.000", "00:00:01:03.000"]
    assert "50 frames at uneven times, the last at 2.900 s" in capsys.readouterr().out


def test_a_given_rate_spaces_the_rows_evenly(tmp_path: Path) -> None:
    take = taken(slowing(tmp_path / "a.mp4"), "--fps", 24)
    assert take.timecodes[-1] == "00:00:02:01.000"


def test_the_filter_goes_by_the_times_of_the_frames(tmp_path: Path) -> None:
    path = slowing(tmp_path / "a.mp4")
    raw = taken(path).coefficients
    filtered = taken(path, "--smooth").coefficients
    expected = smooth(raw, 30, np.array(SLOWING, float))
    np.testing.assert_allclose(filtered, expected, atol=1e-5)
    assert np.abs(filtered - smooth(raw, 30)).max() > 1e-3


def test_labels_begin_at_the_timecode_of_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    frames = [counting(i) for i in range(5)]
    tag = {"timecode": "01:00:59;28"}
    take = taken(write_video(tmp_path / "a.mov", 30000 / 1001, frames, metadata=tag))
    assert take.timecodes[:3] == ["01:00:59;28.000", "01:00:59;29.000", "01:01:00;02.000"]
    take = taken(write_video(tmp_path / "b.mkv", 25, frames, metadata={"timecode": "10:00:00:99"}))
    assert take.timecodes[0] == "00:00:00:00.000"
    assert "b.mkv: its start timecode was not used" in capsys.readouterr().out


@pytest.mark.parametrize("fps", ["1e-300", "nan", "-5", "0", "1e9", "inf"])
def test_absurd_rates_are_refused(tmp_path: Path, fps: str, capsys: pytest.CaptureFixture) -> None:
    path = write_video(tmp_path / "a.mp4", 24, [counting(0)])
    assert run("predict", path, "--out", tmp_path / "out", f"--fps={fps}") == 2
    (error,) = errors(capsys)
    assert "--fps" in error and "0.01 to 1000" in error and not (tmp_path / "out").exists()
