"""Rigs, and how 61 coefficients deform them.

A rig is a mesh in centimetres with one displacement field a blendshape and one an identity
direction. Axes are those of the channel table: +x the subject's left, +y up, +z out of the face.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float

from sf_jax.face.channels import BLENDSHAPES, INDEX, NAMES
from sf_jax.media.errors import DataError
from sf_jax.render.shape_style import random_style
from sf_jax.render.variation import character_warp, random_character
from sf_jax.render.warp import Warp

MATERIALS = (
    "skin",
    "lips",
    "brow",
    "lash",
    "sclera",
    "iris",
    "pupil",
    "teeth",
    "gum",
    "tongue",
    "mouth",
    "hair",
    "cloth",
    "object",
)
PAINTS = ("lips", "brow", "blush", "lid", "beard")
FEW = 16  # displacement fields; more are summed as a product, which also reads those of weight 0
LOOK_RADIANS = 0.6  # how far the eyeball turns at a look coefficient of 1, as on ARKit's face


class RigShapeError(DataError):
    """Coefficients or identity whose length is not the rig's."""


@dataclass(frozen=True)
class Eye:
    """One eyeball.

    Attributes:
      vertices: the eyeball's vertices in the rig: a slice or indices; empty where a rig has none.
      centre: [3], its pivot in the neutral face, cm.
    """

    vertices: slice | np.ndarray
    centre: np.ndarray


@dataclass(frozen=True)
class Surface:
    """A rig's own colours, which replace those of its materials.

    The colour of a pixel is that of the texture, where its triangle has one, times the vertices'.

    Attributes:
      colours: float32 [V, 3], RGB in [0, 1].
      uv: float32 [V, 2], texture coordinates: u to the right, v down, both repeated beyond [0, 1];
        None where there are no images.
      images: textures, uint8 [h, w, 4] RGBA each.
      image: int16 [T], the texture of each triangle, -1 for none; None where there are no images.
    """

    colours: np.ndarray
    uv: np.ndarray | None = None
    images: tuple[np.ndarray, ...] = ()
    image: np.ndarray | None = None


@dataclass(frozen=True)
class Rig:
    """A head deformed by 52 blendshapes and 9 angles.

    Attributes:
      name: for messages and file names.
      neutral: float32 [V, 3], cm.
      blendshapes: float32 [52, V, 3], cm at coefficient 1, in canonical order. EyeLook* hold the
        lids' motion only; `pose` turns the eyeballs.
      identity: float32 [I, V, 3], cm per standard deviation.
      triangles: int32 [T, 3], counter-clockwise seen from outside.
      material: uint8 [V], indices into MATERIALS.
      paint: float32 [V, len(PAINTS)], soft masks in [0, 1].
      eyes: left, right.
      head_weight: float32 [V], 1 turns with the head, 0 stays with the shoulders.
      head_pivot: [3], the pivot of the head, cm.
      landmarks: int32 [70], the vertices of the landmarks of `face.landmarks`; -1 where not known.
      mirror: int32 [V], the vertex opposite each one; empty where a rig is not symmetric.
      known: bool [61], the channels that the rig can show. Those without are at rest in every
        picture, whatever the coefficients are.
      surface: the rig's own colours and textures; None to be coloured by material and paint.
      occlusion: float32 [V], ambient occlusion (`render.occlusion.baked`), 1 where open; None for
        all open.
      warp: of posed vertices, before the head turns; see `vary`.
      style: float32 [52, 52], mixes coefficients before they move vertices; see `vary`.
      notes: what its loader corrected, for people.
    """

    name: str
    neutral: np.ndarray
    blendshapes: np.ndarray
    identity: np.ndarray
    triangles: np.ndarray
    material: np.ndarray
    paint: np.ndarray
    eyes: tuple[Eye, Eye]
    head_weight: np.ndarray
    head_pivot: np.ndarray
    landmarks: np.ndarray
    mirror: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    known: np.ndarray = field(default_factory=lambda: np.ones(len(NAMES), bool))
    surface: Surface | None = None
    occlusion: np.ndarray | None = None
    warp: Warp | None = None
    style: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def vary(
        self, generator: np.random.Generator, kind: str | None = None, style: float = 1.0
    ) -> "Rig":
        """This rig as a random other head, far beyond its own identities; the arrays are shared.

        Args:
          kind: of character, a key of `variation.KINDS`; None for any.
          style: how much its shapes differ as those of other makers do (`shape_style`), 0 to 1.
        """
        _, amounts = random_character(generator, kind)
        warp = character_warp(self.marks(self.neutral), amounts, generator)
        return replace(self, warp=warp, style=random_style(generator, style) if style else None)

    def height(self) -> float:
        """Brows to chin of the neutral face, cm."""
        marks = self.marks(self.neutral)
        heights = (marks if self.warp is None else self.warp(marks))[:, 1]
        return float(np.nanmax(heights) - np.nanmin(heights))

    def marks(self, vertices: Float[np.ndarray, "V D"]) -> Float[np.ndarray, "70 D"]:
        """The landmarks' rows of an array with one row a vertex, float32; NaN where not known."""
        found = vertices[self.landmarks].astype(np.float32)
        found[self.landmarks < 0] = np.nan
        return found


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation matrix [3, 3]: first roll about z, then pitch about x, then yaw about y; radians."""
    cos_y, sin_y = np.cos(yaw), np.sin(yaw)
    cos_p, sin_p = np.cos(pitch), np.sin(pitch)
    cos_r, sin_r = np.cos(roll), np.sin(roll)
    about_y = np.array([[cos_y, 0, sin_y], [0, 1, 0], [-sin_y, 0, cos_y]], np.float32)
    about_x = np.array([[1, 0, 0], [0, cos_p, -sin_p], [0, sin_p, cos_p]], np.float32)
    about_z = np.array([[cos_r, -sin_r, 0], [sin_r, cos_r, 0], [0, 0, 1]], np.float32)
    return about_y @ about_x @ about_z


def eye_angles(coefficients: np.ndarray) -> np.ndarray:
    """Yaw, pitch, roll of the left and the right eyeball, [2, 3] radians.

    Half from the angle channels and half from the look coefficients, so that a consistent pair of
    both gives its full angle and either alone still shows.
    """

    def value(name: str) -> float:
        return float(coefficients[INDEX[name]])

    angles = np.empty((2, 3), np.float32)
    for row, side, outward in ((0, "Left", 1), (1, "Right", -1)):
        yaw = outward * (value(f"EyeLookOut{side}") - value(f"EyeLookIn{side}"))
        pitch = value(f"EyeLookDown{side}") - value(f"EyeLookUp{side}")
        angles[row] = [
            0.5 * value(f"{side}EyeYaw") + 0.5 * LOOK_RADIANS * yaw,
            0.5 * value(f"{side}EyePitch") + 0.5 * LOOK_RADIANS * pitch,
            value(f"{side}EyeRoll"),
        ]
    return angles


def _weighted_sum(weights: np.ndarray, fields: np.ndarray) -> np.ndarray:
    """Sum of fields [N, V, 3] by weights [N], skipping the zeros: most coefficients are 0."""
    used = np.flatnonzero(weights)
    if not len(used):  # a rig may have no fields at all
        return np.zeros(fields.shape[1:], np.float32)
    flat = fields.reshape(len(fields), -1)
    if len(used) > FEW:
        return (weights.astype(np.float32) @ flat).reshape(fields.shape[1:])
    total = np.zeros(flat.shape[1], np.float32)
    for i in used:
        total += np.float32(weights[i]) * flat[i]
    return total.reshape(fields.shape[1:])


def _turn_eyes(rig: Rig, vertices: np.ndarray, shift: np.ndarray, angles: np.ndarray) -> None:
    for eye, (yaw, pitch, roll) in zip(rig.eyes, angles, strict=True):
        ball = vertices[eye.vertices]
        if not len(ball):
            continue
        centre = eye.centre + shift[eye.vertices].mean(axis=0)
        if rig.warp is not None:
            ball = rig.warp.scale_iris(ball, centre)
        turn = rotation(yaw, pitch, roll)
        vertices[eye.vertices] = (ball - centre) @ turn.T + centre


def pose(rig: Rig, coefficients: np.ndarray, identity: np.ndarray | None = None) -> np.ndarray:
    """Vertices of the posed rig, float32 [V, 3] in world cm.

    Args:
      coefficients: [61] in canonical order.
      identity: [I] standard deviations; None for the rig's own face.

    Raises:
      RigShapeError: either has another length.
    """
    coefficients = np.asarray(coefficients, np.float32)
    if coefficients.shape != (len(INDEX),):
        raise RigShapeError(f"{rig.name}: coefficients are {coefficients.shape}, expected (61,)")
    shift = np.zeros_like(rig.neutral)
    if identity is not None:
        identity = np.asarray(identity, np.float32)
        if identity.shape != (len(rig.identity),):
            expected = (len(rig.identity),)
            raise RigShapeError(f"{rig.name}: identity is {identity.shape}, expected {expected}")
        shift = _weighted_sum(identity, rig.identity)
    weights = coefficients[BLENDSHAPES]
    if rig.style is not None:
        weights = rig.style @ weights
    vertices = rig.neutral + shift + _weighted_sum(weights, rig.blendshapes)
    _turn_eyes(rig, vertices, shift, eye_angles(coefficients))
    if rig.warp is not None:
        vertices = rig.warp(vertices)
    yaw, pitch, roll = (coefficients[INDEX[f"Head{axis}"]] for axis in ("Yaw", "Pitch", "Roll"))
    from_pivot = vertices - rig.head_pivot.astype(np.float32)
    turned = from_pivot @ (rotation(yaw, pitch, roll) - np.eye(3, dtype=np.float32)).T
    return vertices + rig.head_weight[:, None] * turned
