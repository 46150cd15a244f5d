"""The preview sheet shows the image, the face, the bars and the rationale, whatever they are."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from sf_jax.face.agreement import agreement
from sf_jax.face.channels import INDEX
from sf_jax.face.describe import describe
from sf_jax.render import preview as sheet
from sf_jax.render.preview import preview


def action_of(**values: float) -> SimpleNamespace:
    coefficients = np.zeros(61, np.float32)
    for name, value in values.items():
        coefficients[INDEX[name]] = value
    return SimpleNamespace(
        coefficients=coefficients,
        spread=np.full(61, 0.06, np.float32),
        rationale=describe(coefficients),
        agreement=agreement(describe(coefficients), coefficients),
        weak=(),
    )


def drawn(tmp_path: Path, image: np.ndarray, action: SimpleNamespace) -> np.ndarray:
    preview(image, action, tmp_path / "sheet.png")
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    with Image.open(tmp_path / "sheet.png") as opened:
        assert opened.size == (1300, 660)
        return np.array(opened.convert("RGB")).astype(int)


def near(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (np.abs(pixels - colour).max(axis=2) < 12).sum()


BLUE, ORANGE = (59, 125, 216), (217, 138, 59)


def test_the_sheet_shows_the_input_and_the_bars(tmp_path: Path) -> None:
    green = np.full((120, 90, 3), (10, 200, 30), np.uint8)
    rest = drawn(tmp_path, green, action_of())
    assert near(rest, (10, 200, 30)) > 60_000
    assert near(rest[:, 960:], BLUE) == near(rest[:, 960:], ORANGE) == 0
    smile = action_of(MouthSmileLeft=0.8, MouthSmileRight=0.4, HeadYaw=-0.3)
    active = drawn(tmp_path, green, smile)
    left, right = near(active[:, 960:], BLUE), near(active[:, 960:], ORANGE)
    assert left > 3 * right > 500


def test_the_face_is_drawn_from_the_coefficients(tmp_path: Path) -> None:
    picture = np.zeros((96, 96, 3), np.uint8)
    rest = drawn(tmp_path, picture, action_of())[40:400, 440:820]
    turned = drawn(tmp_path, picture, action_of(HeadYaw=0.7, JawOpen=0.9))[40:400, 440:820]
    assert (np.abs(rest - turned).max(axis=2) > 40).mean() > 0.1


@pytest.mark.parametrize("shape", [(1, 1), (3000, 4000), (2000, 3), (5, 3000)])
def test_pictures_of_any_size(tmp_path: Path, shape: tuple[int, int]) -> None:
    drawn(tmp_path, np.full((*shape, 3), 80, np.uint8), action_of(JawOpen=1))


def test_all_channels_at_once_and_any_words(tmp_path: Path) -> None:
    everything = action_of()
    everything.coefficients[:] = np.linspace(-1, 1, 61)
    everything.rationale = SimpleNamespace(
        expression="$x^ {$", movements="word " * 900, emotion="", symmetry=r"\alpha"
    )
    drawn(tmp_path, np.zeros((9, 9, 3), np.uint8), everything)


def test_bars_are_the_strongest_in_order() -> None:
    values = np.zeros(61, np.float32)
    values[[3, 10, 52, 60]] = 0.2, 0.9, -0.5, 0.05
    assert sheet.strongest(values, 20, 0.1) == [10, 52, 3]
    assert sheet.strongest(values, 2, 0.1) == [10, 52]


def test_error_bars_reach_as_far_as_the_spread() -> None:
    figure = Figure()
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    sheet._bars(axes, action_of(JawOpen=0.5, HeadPitch=-0.25))
    (segments,) = (c.get_segments() for c in axes.collections if len(c.get_segments()) == 2)
    ends = sorted(sorted(round(float(x), 3) for x, _ in segment) for segment in segments)
    assert ends == [[-0.31, -0.19], [0.44, 0.56]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["JawOpen", "HeadPitch"]


def test_a_long_rationale_is_truncated_visibly_and_every_field_stays() -> None:
    rationale = SimpleNamespace(
        expression="smile", movements="lips " * 400, emotion="joy", symmetry="even"
    )
    lines = sheet.wrap_rationale(rationale)
    assert len(lines) == sheet.LINES and max(map(len, lines)) <= sheet.LINE
    assert lines[0] == "Expression: smile" and lines[-2:] == ["Emotion: joy", "Symmetry: even"]
    assert lines[-3].endswith(" …")
    rationale.movements = "lips part"
    assert sheet.wrap_rationale(rationale)[1] == "Movements: lips part"


def test_nothing_half_written_is_left(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        preview(np.zeros((9, 9, 3), np.uint8), action_of(), tmp_path / "none" / "sheet.png")
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(OSError):
        preview(np.zeros((9, 9, 3), np.uint8), action_of(), tmp_path / "taken.png")
    assert [path.name for path in tmp_path.iterdir()] == ["taken.png"]


def test_a_channel_that_cannot_be_read_is_marked(tmp_path: Path) -> None:
    """Its name is greyed, and a legend explains the mark; one without a bar changes nothing."""
    image, action = np.zeros((32, 32, 3), np.uint8), action_of(JawOpen=0.8, BrowInnerUp=0.6)
    plain = drawn(tmp_path, image, action)
    action.weak = ("TongueOut",)
    assert (drawn(tmp_path, image, action) == plain).all()
    action.weak = ("JawOpen", "TongueOut")
    assert (drawn(tmp_path, image, action) != plain).any()
