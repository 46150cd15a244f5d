"""A skin from a portrait: fitted, coloured and painted, or refused with the reason."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from sf_jax.face import landmarks as table
from sf_jax.face.channels import INDEX
from sf_jax.render.rig import Rig
from sf_jax.render.skin_colours import Mesh, Sampled, sample, skin_colours
from sf_jax.render.skin_fit import Fit, fit
from sf_jax.render.skin_paint import IRIS, Eyes, Mouth, paint_eyes, paint_lids, paint_mouth
from sf_jax.render.skin_regions import Regions, regions

LEAST_HEIGHT = 50.0  # pixels from brows to chin
MOST_OUTSIDE = 4  # landmarks
MOST_TURN = np.radians(18.0)  # of yaw and of pitch
MOST_GAP = 0.13  # between the lips, over the width of the mouth
LEAST_OPENING = 0.12  # between the lids, over the width of the eye
MOST_SMILE = 0.55  # fitted coefficient, of the mean of both sides
MOST_ERROR_CM = 0.26
# Share of the core of the face that is no skin. Portraits have at most 0.12, sunlight on dark
# skin up to 0.26; most with half of the face under one colour, or under dark glasses, have more.
MOST_OCCLUDED = 0.27
DARKEST, BRIGHTEST = 0.1, 0.93  # median of the skin, sRGB


class PortraitRefused(ValueError):
    """A portrait that no skin is made from; the text is the reason."""


@dataclass(frozen=True)
class Made:
    """A skin and how it was made.

    Attributes:
      identity: float32 [I]; colours: uint8 [V, 3], sRGB.
      fit: the rig as the portrait shows it.
      occluded: share of the core of the face that is no skin by its colour.
    """

    identity: Float[np.ndarray, " I"]
    colours: UInt8[np.ndarray, "V 3"]
    fit: Fit
    occluded: float


class SkinMaker:
    """Makes skins for a rig, which is prepared once.

    Raises:
      RigShapeError: the rig lacks one of the 68 iBUG landmarks.
    """

    def __init__(self, rig: Rig):
        self.rig = rig
        self.regions: Regions = regions(rig)
        self._mesh = Mesh(rig)

    def make(self, image: UInt8[np.ndarray, "H W 3"], landmarks: Float[np.ndarray, "N 2"]) -> Made:
        """The skin of a portrait.

        Args:
          landmarks: 68 or 70, in pixels.

        Raises:
          PortraitRefused: a landmark is not known, or the portrait does not do as a skin.
        """
        marks = np.asarray(landmarks[:68], np.float64)
        if marks.shape != (68, 2) or not np.isfinite(marks).all():
            raise PortraitRefused("its landmarks are not all known")
        outside = ((marks < 0) | (marks > image.shape[1::-1])).any(1).sum()
        if outside > MOST_OUTSIDE:
            problem = f"{outside} of its 68 landmarks are outside of it"
            raise PortraitRefused(f"{problem}; they are to be shares of its width and height")
        check_landmarks(marks)
        found = fit(self.rig, marks)
        check_fit(found)
        sampled = sample(image, marks, self.rig, found, self._mesh.spacing)
        colours, occluded = skin_colours(sampled, self.regions, self._mesh)
        if occluded > MOST_OCCLUDED:
            raise PortraitRefused(f"the face is covered: {occluded:.0%} of its middle is no skin")
        face = self.regions.face_vertices
        tone = float(np.median(colours[face]))
        if not DARKEST < tone < BRIGHTEST:
            raise PortraitRefused(f"its skin is too {'dark' if tone < 0.5 else 'bright'}")
        self._paint(colours, sampled)
        rounded = np.rint(np.clip(colours, 0, 1) * 255).astype(np.uint8)
        return Made(found.identity, rounded, found, occluded)

    def _paint(self, colours: np.ndarray, sampled: Sampled) -> None:
        paint_lids(colours, self.regions)
        eyes = Eyes(iris=_iris(self.rig, self.regions, sampled))
        paint_eyes(colours, self.rig, self.regions, eyes)
        paint_mouth(colours, self.regions, Mouth())


def _iris(rig: Rig, masks: Regions, sampled: Sampled) -> np.ndarray:
    """The colour of the known irises that is nearest to the portrait's: it shows few pixels."""
    seen = []
    for eye in rig.eyes:
        ball = (rig.neutral[eye.vertices] - eye.centre) / masks.unit
        off = np.hypot(ball[:, 0], ball[:, 1])
        ring = (ball[:, 2] > 0) & (off > 0.3) & (off < 0.5) & (sampled.seen[eye.vertices] > 0.5)
        seen.append(sampled.colours[eye.vertices][ring])
    found = np.concatenate(seen)
    if not len(found):
        return IRIS[1]
    return IRIS[int(np.abs(IRIS - np.median(found, axis=0)).sum(1).argmin())]


def check_landmarks(marks: Float[np.ndarray, "68 2"]) -> None:
    """Raises PortraitRefused where the face is too small, its mouth open or its eyes shut."""
    height = float(np.ptp(marks[:, 1]))
    if height < LEAST_HEIGHT:
        problem = f"the face is {height:.0f} pixels high, brows to chin"
        raise PortraitRefused(f"{problem}; at least {LEAST_HEIGHT:.0f} are needed")
    with np.errstate(all="ignore"):  # corners may coincide, which is neither open nor shut
        _check_openings(marks)


def _check_openings(marks: np.ndarray) -> None:
    """Openings that are NaN are refused too."""
    inner = np.linalg.norm(marks[[61, 62, 63]] - marks[[67, 66, 65]], axis=1).max()
    gap = inner / np.linalg.norm(marks[table.MOUTH_LEFT] - marks[table.MOUTH_RIGHT])
    if not gap <= MOST_GAP:
        raise PortraitRefused(f"the mouth is open: {gap:.2f} of its width, at most {MOST_GAP}")
    for side, eye in (("right", table.RIGHT_EYE), ("left", table.LEFT_EYE)):
        lids = marks[eye]
        opening = np.linalg.norm(lids[[1, 2]] - lids[[5, 4]], axis=1).mean()
        share = opening / np.linalg.norm(lids[0] - lids[3])
        if not share >= LEAST_OPENING:
            problem = f"the {side} eye is shut: open by {share:.2f} of its width"
            raise PortraitRefused(f"{problem}, at least {LEAST_OPENING}")


def check_fit(found: Fit) -> None:
    """Raises PortraitRefused where the head is turned, smiles broadly, or was fitted badly."""
    for name, turn in (("yaw", found.yaw), ("pitch", found.pitch)):
        if abs(turn) > MOST_TURN:
            problem = f"the head is turned: {name} {np.degrees(turn):.0f}°"
            raise PortraitRefused(f"{problem}, at most {np.degrees(MOST_TURN):.0f}°")
    smile = 0.5 * sum(found.expression[INDEX[f"MouthSmile{side}"]] for side in ("Left", "Right"))
    if smile > MOST_SMILE:
        raise PortraitRefused(f"it smiles broadly: {smile:.2f}, at most {MOST_SMILE}")
    if found.error_cm > MOST_ERROR_CM:
        problem = f"the rig fits badly: landmarks are {found.error_cm:.2f} cm off"
        raise PortraitRefused(f"{problem}, at most {MOST_ERROR_CM}")
