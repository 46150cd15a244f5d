"""Sessions: what is kept from one frame to the next, and nothing else."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sf_jax.face import channels
from sf_jax.face.describe import Description, describe
from sf_jax.face.landmarks import Square
from sf_jax.face.one_euro import TimeOrderError, smooth
from sf_jax.reader.action import FaceAction
from sf_jax.reader.framing import Framer
from sf_jax.reader.session import Session, SessionOptions, remove_neutral
from sf_jax.reader.tracking import SEARCH_EVERY
from tests.cli.test_cli import action_of
from tests.plain_model import PlainModel, find_marks, marked, marks_framer

JAW, YAW = channels.INDEX["JawOpen"], channels.INDEX["HeadYaw"]


class Model(PlainModel):
    """Opens a jaw as far as the image is green; keeps what it was called with."""

    def __init__(self, framer: Framer | None = None) -> None:
        super().__init__(framer)
        self.called: list[dict] = []

    def predict(self, image: np.ndarray, **called: Any) -> FaceAction:
        self.called.append(called | {"image": image})
        return action_of(image)


def shade(green: int, red: int = 128) -> np.ndarray:
    image = np.zeros((30, 40, 3), np.uint8)
    image[..., 0], image[..., 1] = red, green
    return image


def begin(model: Model, neutral: np.ndarray | None = None, **options: Any) -> Session:
    asked = {"temperature": 0.5}
    return Session(model, SessionOptions(**options), neutral, **asked)  # type: ignore[arg-type]


def test_each_frame_is_drafted_from_the_one_before() -> None:
    model = Model()
    session = begin(model)
    frames = [session.frame(shade(green)) for green in (0, 51, 102)]
    assert [frame.number for frame in frames] == [0, 1, 2]
    previous = [called["previous"] for called in model.called]
    assert previous[0] is None
    assert previous[1] is frames[0].action and previous[2] is frames[1].action
    assert all(called["temperature"] == 0.5 for called in model.called)
    assert [frame.values[JAW] for frame in frames] == pytest.approx([0, 0.2, 0.4])
    assert all(frame.found for frame in frames)


def test_spoken_values_or_means() -> None:
    frame = begin(Model(), values="answer").frame(shade(140))
    assert frame.values[JAW] == pytest.approx(0.5)
    assert begin(Model()).frame(shade(140)).values[JAW] == pytest.approx(140 / 255)


def test_values_are_smoothed_as_the_filter_does_it() -> None:
    greens = [0, 200, 10, 190, 20]
    session = begin(Model(), smooth=True, fps=24.0)
    found = np.stack([session.frame(shade(green)).values for green in greens])
    plain = begin(Model())
    raw = np.stack([plain.frame(shade(green)).values for green in greens])
    assert np.abs(found - raw).max() > 0.01
    np.testing.assert_allclose(found, smooth(raw, 24.0), atol=1e-6)
    session = begin(Model(), smooth=True)
    times = [0.0, 0.1, 0.15, 0.3, 0.31]
    found = [session.frame(shade(g), seconds=t).values for g, t in zip(greens, times, strict=True)]
    np.testing.assert_allclose(np.stack(found), smooth(raw, 30.0, times), atol=1e-6)


def test_a_frame_out_of_time_changes_nothing() -> None:
    session = begin(Model(), smooth=True)
    first = session.frame(shade(10), seconds=1.0)
    with pytest.raises(TimeOrderError, match="time runs backwards"):
        session.frame(shade(200), seconds=0.5)
    with pytest.raises(TimeOrderError, match="every frame or of none"):
        session.frame(shade(200))
    assert session.previous is first.action and session.number == 1


def test_the_neutral_face_is_subtracted() -> None:
    rest = np.zeros(61, np.float32)
    rest[JAW], rest[YAW] = 0.2, -0.25
    raw = begin(Model()).frame(shade(102, red=0)).values
    frame = begin(Model(), rest).frame(shade(102, red=0))
    np.testing.assert_array_equal(frame.values, remove_neutral(raw, rest))
    assert frame.values[JAW] == pytest.approx((0.4 - 0.2) / 0.8)
    assert frame.values[YAW] == pytest.approx(-0.25)
    session = begin(Model(), smooth=True)
    session.set_neutral(session.frame(shade(51)).action)
    assert session.frame(shade(102)).values[JAW] == pytest.approx(0.25)  # nothing to smooth yet
    assert session.frame(shade(0)).values[JAW] >= 0  # stays in its range


def test_the_rationale_follows_the_neutral_face() -> None:
    session = begin(Model(), values="answer")
    first = session.frame(shade(200))
    assert first.rationale == first.action.rationale and first.shown is first.action
    session.set_neutral(first.action)
    frame = session.frame(shade(200))
    assert not frame.values.any() and frame.rationale == describe(np.zeros(61))
    assert frame.rationale != frame.action.rationale  # the model's own is kept as it was
    assert frame.shown.rationale == frame.rationale and not frame.shown.coefficients.any()
    closer = session.frame(shade(220))  # an open mouth, and little beyond the neutral one
    assert closer.rationale == describe(closer.values) != closer.action.rationale


@pytest.mark.parametrize("unread", ["rationale", "channel", "words"])
def test_a_rationale_that_cannot_follow_is_left_out(unread: str) -> None:
    """No rationale asked for, a channel not read, or words that are not the describer's."""
    session = begin(Model())
    session.set_neutral(session.frame(shade(200)).action)
    step = session.framed(shade(200))
    action = action_of(step.image)
    if unread == "channel":
        for values in (action.coefficients, action.answer):
            values[channels.INDEX["BrowInnerUp"]] = np.nan
        rationale = action.rationale
    else:
        rationale = Description.parse("" if unread == "rationale" else "A broad grin of joy.")
    frame = session.answered(step, replace(action, rationale=rationale))
    assert frame.rationale == Description("", "", "", "")


def columns(left: int, green: int = 0) -> np.ndarray:
    """An image with a face, in which what is cut out shows where."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(60), green
    return marked(image, (left, 10, 16))


def test_a_face_is_framed_and_followed() -> None:
    searched: list[int] = []

    def find(image: np.ndarray) -> list:
        searched.append(int(image[0, 0, 1]))
        return find_marks(image)

    session = begin(Model(Framer(find, turned=False)))
    blank = np.zeros((40, 60, 3), np.uint8)
    frames = [session.frame(blank), *(session.frame(columns(20, i)) for i in range(1, 18))]
    assert [frame.found for frame in frames] == [False] + [True] * 17
    assert np.isnan(frames[0].values).all() and frames[0].rationale == Description("", "", "", "")
    assert frames[0].seen is blank and frames[1].seen.shape == (20, 20, 3)
    assert frames[1].box == Square(28.0, 18.0, 20.0) and frames[1].image is not None
    # Searched until one is found, then now and then.
    assert searched == [0, 1, 1 + SEARCH_EVERY]
    assert frames[2].action.face == frames[1].action.face  # the first is not of a face: no draft
    assert session._model.called[0]["previous"] is None  # type: ignore[attr-defined]


def test_a_frame_without_a_face_leaves_the_rest_as_it_was() -> None:
    session = begin(Model(marks_framer()), smooth=True)
    first = session.frame(columns(20))
    missing = session.frame(np.full((40, 60, 3), 240, np.uint8))
    assert missing.change == "cut" and not missing.found and missing.number == 1
    with pytest.raises(ValueError, match="no face was found"):
        session.set_neutral(missing.action)
    again = session.frame(columns(20))
    assert again.found and session.previous is again.action
    assert session._model.called[1]["previous"] is first.action  # type: ignore[attr-defined]
    assert begin(Model(marks_framer()), force=True).frame(shade(9)).found
    whole = begin(Model(marks_framer()), whole=True).frame(columns(20))
    assert whole.action.face is None and whole.seen.shape == (40, 60, 3)


def test_a_frame_that_is_never_answered_moves_nothing() -> None:
    """Given up after its framing, as by a time limit: the next frames are as without it."""
    plain, disturbed = begin(Model(marks_framer())), begin(Model(marks_framer()))
    for left in (3, 17, 4, 9, 12, 1, 19):
        disturbed.framed(columns(40 - left))
        np.testing.assert_array_equal(
            disturbed.frame(columns(left)).seen, plain.frame(columns(left)).seen
        )


def test_two_sessions_share_nothing() -> None:
    """Frames of two faces in turn give what each gives alone."""

    def read(make: Callable[[], Session], lefts: list[int]) -> list[np.ndarray]:
        session = make()
        return [session.frame(columns(left, 5 * left)).values for left in lefts]

    def make() -> Session:
        return begin(Model(marks_framer()), smooth=True)

    ones, others = [0, 5, 10, 15], [40, 30, 3, 9]
    first, second = make(), make()
    together = [
        (first.frame(columns(a, 5 * a)).values, second.frame(columns(b, 5 * b)).values)
        for a, b in zip(ones, others, strict=True)
    ]
    np.testing.assert_array_equal([a for a, _ in together], read(make, ones))
    np.testing.assert_array_equal([b for _, b in together], read(make, others))


@pytest.mark.parametrize(
    "options, reason",
    [({"values": "best"}, "values is 'best'"), ({"fps": 0.0}, "fps is 0.0"),
     ({"fps": float("nan")}, "fps is nan"), ({"face": 0}, "face is 0"),
     ({"face": "all"}, "face is 'all'")],
)  # fmt: skip
def test_options_that_mean_nothing(options: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        SessionOptions(**options)
