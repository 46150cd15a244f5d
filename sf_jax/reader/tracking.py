"""One person over the frames of a video: where the face is, and when it is another one's.

The landmarks of each frame give the square of the next, so that the finder searches rarely: at the
start, every few frames to confirm the face, and where the image or the landmarks jump. A square
moves only as far as the face leaves a small zone around it: on a still face it stands still.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np
from jaxtyping import Float

from sf_jax.face.landmarks import Square, overlap
from sf_jax.reader.action import Face
from sf_jax.reader.framing import (
    Framer,
    Picture,
    Which,
    distance,
    first_square,
    in_order,
    number_of,
)

if TYPE_CHECKING:  # it brings jax, which a client does not need
    from sf_jax.reader.finder import Found

SEARCH_EVERY = 15  # frames between searches for a face that is followed
PATIENCE = 8  # frames for which a face is followed that the finder misses, as one turned aside
SAME = 0.3  # intersection over union with the square of before, from which a face is the same one
# A square stays while the face's own is within these of it.
HOLD_SHIFT = 0.02  # sides
HOLD_SCALE = 1.03
HOLD_ROLL = np.radians(1.5)
# A face moves by less than these from one frame to the next.
JUMP_SHIFT, JUMP_SCALE, JUMP_ROLL = 0.4, 1.35, np.radians(35)
# A cut leaves little of the pattern of an image, and other shades of grey (of 0 to 1) than motion
# does: 98 % of 1,770 pairs of portraits differ by these, and none of 30 that moved by a tenth.
CUT_CORRELATION, CUT_SHADES = 0.6, 0.03
THUMBNAIL = 32  # pixels a side, that are compared to detect cuts

Change = Literal["cut", "another face"]


@dataclass(frozen=True)
class Track:
    """What is known of a person after some frames.

    Attributes:
      face: where it was read; None where it is not there.
      last: the same, kept where the face is lost.
      searched: frames since the finder last searched.
      missed: frames since it last found the face.
      thumbnail: of the last image, grey.
    """

    face: Face | None = None
    last: Face | None = None
    searched: int = 0
    missed: int = 0
    thumbnail: Float[np.ndarray, "side side"] | None = field(default=None, repr=False)


def followed(
    framer: Framer, image: Picture, track: Track, which: Which = "largest"
) -> tuple[Track, Change | None]:
    """The track after a further image, and what has changed with it: an image of another size is
    a cut, since positions in it are others.

    Args:
      which: the face to begin with, where there are several; and after a cut, or once the person
        has not been there for a while.
    """
    thumbnail = _thumbnail(image)
    size = image.shape[1], image.shape[0]
    resized = track.last is not None and track.last.image != size
    cut = resized or (track.thumbnail is not None and _is_cut(track.thumbnail, thumbnail))
    track = replace(track, thumbnail=thumbnail, searched=track.searched + 1)
    before = track.face
    if before is None or cut:
        return _begun(framer, image, track, which, cut)
    square = _next_square(framer, image, before.box)
    if square is not None and not track.missed and track.searched < SEARCH_EVERY:
        return _moved(track, square), None
    found = framer.find(image)
    track = replace(track, searched=0)
    same = _same(found, before.box)
    if same is not None:
        if square is None or framer.landmarks is None:
            square = framer.face_of(image, same, 1, 1).box
        number = in_order(found).index(same) + 1
        face = replace(before, score=same.score, number=number, count=len(found))
        return _moved(replace(track, face=face, missed=0), square), None
    track = replace(track, missed=track.missed + 1)
    if square is not None and track.missed <= PATIENCE:
        return _moved(track, square), None
    return _begun(framer, image, track, which, False, found)


def _begun(
    framer: Framer,
    image: Picture,
    track: Track,
    which: Which,
    cut: bool,
    found: "list[Found] | None" = None,
) -> tuple[Track, Change | None]:
    """The track with a face that was not followed: the person of before, if it is where it was and
    there was no cut, else the one asked for."""
    found = in_order(framer.find(image) if found is None else found)
    same = None if track.last is None or cut else _same(found, track.last.box)
    number = number_of(found, which) if same is None else found.index(same) + 1
    change: Change | None = "cut" if cut and track.last is not None else None
    if number is None:
        lost = replace(track, face=None, searched=0, missed=0)
        return (replace(lost, last=None) if cut else lost), change
    face = framer.face_of(image, found[number - 1], number, len(found))
    if same is None and track.last is not None and not cut:
        change = "another face"
    return replace(track, face=face, last=face, searched=0, missed=0), change


def _next_square(framer: Framer, image: Picture, square: Square) -> Square | None:
    """The square of a face by its landmarks in the square of before; None where it is not there,
    and the same square where landmarks cannot be read."""
    if framer.landmarks is None:
        return square
    target = framer.settled(image, square)
    if target is None:
        return None
    shift, scale, roll = distance(square, target)
    jumped = shift > JUMP_SHIFT or scale > JUMP_SCALE or roll > JUMP_ROLL
    return None if jumped else target


def _moved(track: Track, target: Square) -> Track:
    assert track.face is not None
    face = replace(track.face, box=held(track.face.box, target))
    return replace(track, face=face, last=face)


def held(square: Square, target: Square) -> Square:
    """A square moved towards a target until that is within the zone in which it is held."""
    shift = np.array([target.x - square.x, target.y - square.y])
    x, y = np.array([square.x, square.y]) + shift * _beyond(
        float(np.hypot(*shift)), HOLD_SHIFT * square.side
    )
    scale = float(np.log(target.side / square.side))
    side = square.side * np.exp(scale * _beyond(abs(scale), float(np.log(HOLD_SCALE))))
    roll = (target.roll - square.roll + np.pi) % (2 * np.pi) - np.pi
    roll = square.roll + roll * _beyond(abs(roll), HOLD_ROLL)
    return Square(float(x), float(y), float(side), float(roll))


def _beyond(distance: float, zone: float) -> float:
    """The share of a distance that is beyond a zone."""
    return max(0.0, 1 - zone / distance) if distance else 0.0


def _same(found: "list[Found]", square: Square) -> "Found | None":
    """The face that is where one was before; None if none is."""
    overlaps = [overlap(first_square(one), square) for one in found]
    best = int(np.argmax(overlaps)) if found else 0
    return found[best] if found and overlaps[best] > SAME else None


def _thumbnail(image: Picture) -> Float[np.ndarray, "side side"]:
    """A grey image, tiny, from 0 to 1."""
    small = cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32).mean(2) / 255


def _is_cut(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether an image has little in common with the one before, which moved, or more light,
    still has."""
    shades = np.abs(np.sort(before, None) - np.sort(after, None)).mean()
    if shades < CUT_SHADES:
        return False
    one, other = before - before.mean(), after - after.mean()
    scale = float(np.sqrt((one**2).sum() * (other**2).sum()))
    return float((one * other).sum()) <= CUT_CORRELATION * scale
