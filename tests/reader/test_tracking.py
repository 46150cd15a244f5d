"""One person over the frames of a video."""

from collections.abc import Iterable

import numpy as np
import pytest

from sf_jax.face.landmarks import Square, framing_square
from sf_jax.reader.finder import Found
from sf_jax.reader.framing import Framer, distance
from sf_jax.reader.tracking import (
    HOLD_ROLL,
    HOLD_SCALE,
    HOLD_SHIFT,
    PATIENCE,
    SEARCH_EVERY,
    Track,
    followed,
    held,
)
from tests.reader.test_framing import face_landmarks

Faces = list[tuple[float, float, float]]  # x, y and height of each face


class Stage:
    """Frames of faces that a finder finds and whose landmarks are read exactly."""

    def __init__(self) -> None:
        self.faces: Faces = []
        self.hidden = False  # from the finder
        self.searches = self.reads = self.frame = 0
        self.images = [np.full((90, 160, 3), 60, np.uint8), np.zeros((90, 160, 3), np.uint8)]
        self.images[1][:, 80:] = 250

    def find(self, image: np.ndarray) -> list[Found]:
        self.searches += 1
        return [] if self.hidden else [Found(Square(*place), 0.9) for place in self.faces]

    def landmarks(self, image: np.ndarray, square: Square) -> np.ndarray:
        self.reads += 1
        nearest = min(self.faces, key=lambda at: np.hypot(at[0] - square.x, at[1] - square.y))
        return face_landmarks(*nearest)

    def play(self, frames: Iterable[Faces], scene: int = 0, track: Track | None = None) -> list:
        """The face and the change at each frame, and at the end the track."""
        framer, track, found = Framer(self.find, self.landmarks), track or Track(), []
        for self.faces in frames:
            track, change = followed(framer, self.images[scene], track)
            found.append((track.face, change))
        return [*found, track]


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_the_finder_searches_rarely_and_a_still_face_is_held(stage: Stage) -> None:
    generator = np.random.default_rng(1)
    frames: list[Faces] = [
        [(60 + generator.normal(0, 0.3), 40.0, 40 + generator.normal(0, 0.2))] for _ in range(46)
    ]
    *found, _ = stage.play(frames)
    boxes = {face.box for face, _ in found}
    assert len(boxes) <= 3 and {change for _, change in found} == {None}
    assert stage.searches == 1 + 45 // SEARCH_EVERY
    assert stage.reads <= 48  # one a frame


def test_a_face_that_moves_is_followed_within_the_zone(stage: Stage) -> None:
    frames: list[Faces] = [[(40.0 + 2 * i, 40.0 + i, 40.0 * 1.01**i)] for i in range(30)]
    *found, _ = stage.play(frames)
    for (face, change), (place,) in zip(found, frames, strict=True):
        shift, scale, _ = distance(face.box, framing_square(face_landmarks(*place)))
        assert change is None and shift < HOLD_SHIFT + 1e-6 and scale < HOLD_SCALE + 1e-6
    steps = np.diff([face.box.x for face, _ in found])
    assert steps[2:] == pytest.approx(2, abs=0.3)  # no jumps


def test_a_square_moves_to_the_edge_of_its_zone() -> None:
    square = Square(100, 100, 50, 3.1)
    assert held(square, Square(100.9, 100, 51, 3.12)) == square
    moved = held(square, Square(90, 100, 100, -3.1))
    assert moved.x == pytest.approx(90 + HOLD_SHIFT * 50) and moved.y == 100
    assert moved.side == pytest.approx(100 / HOLD_SCALE)
    assert moved.roll == pytest.approx(2 * np.pi - 3.1 - HOLD_ROLL)


def test_the_first_person_is_kept_among_others(stage: Stage) -> None:
    left, right = (40.0, 40.0, 40.0), (110.0, 40.0, 30.0)
    *found, _ = stage.play([[right, left]] * 3 + [[left, (110.0, 40.0, 70.0)]] * 40)
    assert {round(face.box.x, 1) for face, _ in found} == {
        round(framing_square(face_landmarks(*left)).x, 1)
    }
    assert found[0][0].count == 2 and {change for _, change in found} == {None}


def test_a_face_that_the_finder_misses_is_followed_for_a_while(stage: Stage) -> None:
    place: Faces = [(60.0, 40.0, 40.0)]
    *_, track = stage.play([place] * SEARCH_EVERY)
    stage.hidden = True
    *found, track = stage.play([place] * (PATIENCE + 3), track=track)
    there = [face is not None for face, _ in found]
    assert there == [True] * PATIENCE + [False] * 3
    stage.hidden = False
    (back, change), track = stage.play([place], track=track)
    assert back is not None and change is None  # the same one, where it was
    stage.hidden = True
    *_, track = stage.play([place] * (SEARCH_EVERY + PATIENCE + 2), track=track)
    stage.hidden = False
    (other, change), _ = stage.play([[(120.0, 40.0, 40.0)]], track=track)
    assert other is not None and change == "another face"


def test_landmarks_that_jump_are_confirmed_by_the_finder(stage: Stage) -> None:
    place, other = (60.0, 40.0, 40.0), (63.0, 40.0, 90.0)
    *_, track = stage.play([[place]] * 3)
    before = stage.searches
    (face, _), _ = stage.play([[other]], track=track)
    assert stage.searches == before + 1
    shift, scale, _ = distance(face.box, framing_square(face_landmarks(*other)))
    assert shift < HOLD_SHIFT + 1e-6 and scale < HOLD_SCALE + 1e-6


def test_a_followed_face_has_its_number_among_those_found(stage: Stage) -> None:
    """Also when others come and go to the left of it."""
    left, person, right = (20.0, 30.0, 16.0), (70.0, 40.0, 40.0), (130.0, 40.0, 30.0)
    frames: list[Faces] = [[left, person, right]] + [[person, right]] * (2 * SEARCH_EVERY)
    frames += [[right, left, person]] * (2 * SEARCH_EVERY)
    *found, _ = stage.play(frames)
    numbers = [(face.number, face.count) for face, _ in found]
    assert numbers[0] == numbers[-1] == (2, 3) and numbers[2 * SEARCH_EVERY] == (1, 2)


def test_frames_of_another_size_begin_anew(stage: Stage) -> None:
    """As a phone that is turned: the square of before would be of another part of the image."""
    *_, track = stage.play([[(110.0, 40.0, 40.0)]] * 3)
    stage.images.append(np.full((160, 90, 3), 60, np.uint8))
    place = (45.0, 110.0, 40.0)
    (face, change), track = stage.play([[place]], scene=2, track=track)
    assert change == "cut" and face.image == (90, 160)
    shift, _, _ = distance(face.box, framing_square(face_landmarks(*place)))
    assert shift < HOLD_SHIFT
    (face, change), _ = stage.play([[place]], scene=2, track=track)
    assert change is None


def test_a_cut_begins_anew(stage: Stage) -> None:
    place, larger = (60.0, 40.0, 40.0), (110.0, 40.0, 60.0)
    *_, track = stage.play([[place, larger]] * 2)
    (face, change), track = stage.play([[place]], scene=1, track=track)
    assert change == "cut" and face.box.x == pytest.approx(60, abs=4)
    (face, change), track = stage.play([[place]], scene=1, track=track)
    assert change is None
    (face, change), track = stage.play([[]], scene=0, track=track)
    assert (face, change) == (None, "cut")
    (face, change), track = stage.play([[larger]], scene=0, track=track)
    assert face is not None and change is None  # nobody was there
