"""Both candidates of a pair as pictures: one rig, one head pose, one camera; the region outlined.

The camera is framed on the face at rest in that pose, so that nothing but what the coefficients
move differs between two renders, and one can be flickered against the other. The outline and the
mask of a region follow from the face at rest too, and so tell nothing of the candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import cv2
import numpy as np
import xxhash
from jaxtyping import Float, Float32

from sf_jax.face import landmarks
from sf_jax.face.channels import INDEX
from sf_jax.face.regions import Region
from sf_jax.media import hashes
from sf_jax.render.draw import Drawing, draw
from sf_jax.render.rig import Rig, RigShapeError, pose
from sf_jax.render.rig import rotation as turned
from sf_jax.render.scene import Scene
from sf_jax.systems.superface.pairs import Pose
from sf_jax.systems.superface.seen import Image, Mask

SIZE = 128  # of a side of a render in pixels, where no other is asked for
HEAD = [INDEX["HeadYaw"], INDEX["HeadPitch"], INDEX["HeadRoll"]]
SHARE = 0.66  # brows to chin over the side: the whole face, with room for an open jaw
OUTLINE = (64, 132, 214)  # RGB, a blue that no skin has
WIDTH = 1 / 128  # of the outline, in sides
MARGIN = 1.15  # of a region over the hull of its landmarks
# Landmarks that span a region, how far they move, in distances from the eyes to the chin, and the
# hull is of both: brows rise, lids and cheeks below them tighten, the chin falls as the jaw opens.
SPAN = {
    "upper": ((landmarks.BROWS, -0.15), (landmarks.EYELIDS, 0.18)),
    "lower": ((slice(31, 36), -0.14), (landmarks.LIPS, 0.0), (slice(3, 14), 0.12)),
}

Values = Float32[np.ndarray, "61"]


def rig_hash(rig: Rig) -> str:
    """The hash of a rig's name and of all that shapes and colours its render."""
    arrays = [rig.neutral, rig.blendshapes, rig.triangles, rig.material, rig.paint]
    if rig.surface is not None:
        arrays += [rig.surface.colours, *rig.surface.images]
    return xxhash.xxh3_128_hexdigest(f"{rig.name} {hashes.of_arrays(*arrays)}".encode())


@dataclass(frozen=True, eq=False)
class Renderer:
    """Draws faces with one camera.

    Attributes:
      rig: with landmarks.
      height, width: of a picture in pixels.
      scene: light, colours and identity.
      aim: the point of the rig's space that the camera is aimed at, see `aim_at`; None for that of
        the face at rest in the pose that is drawn.
    """

    rig: Rig
    height: int = SIZE
    width: int = SIZE
    scene: Scene = field(default_factory=lambda: Scene(face_share=SHARE))
    aim: Float[np.ndarray, "3"] | None = None

    @cached_property
    def hash(self) -> str:
        """The rig's, see `rig_hash`."""
        return rig_hash(self.rig)

    def __call__(self, coefficients: Values, head: Pose) -> Image:
        """The picture of coefficients in a head pose: HeadYaw, HeadPitch, HeadRoll in radians.

        The candidate's own angles of the head are replaced, since both of a pair are drawn in the
        pose of the image.

        Raises:
          RigShapeError: the rig has no landmarks.
        """
        return self.drawing(coefficients, head).image

    def drawing(self, coefficients: Values, head: Pose) -> Drawing:
        """The picture with its landmarks; see `__call__`."""
        posed = in_pose(coefficients, head)
        return draw(self.rig, posed, self._framed(posed, head), self.height, self.width)

    def region(self, region: Region, head: Pose) -> Mask:
        """The pixels of a region in that pose."""
        return self.regions((region,), head)[region]

    def regions(self, wanted: Sequence[Region], head: Pose) -> dict[Region, Mask]:
        """The pixels of several regions, from one drawing."""
        marks = self.drawing(at_rest(head), head).landmarks
        return {region: region_mask(marks, region, self.height, self.width) for region in wanted}

    def _framed(self, posed: Values, head: Pose) -> Scene:
        """The scene with a camera that does not follow the expression, as `draw`'s does."""
        scene = self.scene
        aim = self.aim_at(at_rest(head)) if self.aim is None else self.aim
        camera = turned(scene.camera_yaw, -scene.camera_pitch, 0.0)
        camera = camera @ turned(0.0, 0.0, -scene.roll)
        across, up, forward = (self.aim_at(posed) - aim) @ camera
        distance = scene.focal * self.rig.height() / scene.face_share
        x, y = scene.centre
        return replace(
            scene,
            centre=(x + scene.focal * across / distance, y - scene.focal * up / distance),
            face_share=scene.face_share * distance / (distance - forward),
        )

    def aim_at(self, posed: Values) -> Float[np.ndarray, "3"]:
        """The point that `draw` aims at where it frames a face: the mean of the landmarks.

        Raises:
          RigShapeError: the rig has no landmarks.
        """
        marks = self.rig.marks(pose(self.rig, posed, self.scene.identity))
        if not np.isfinite(marks).any():
            raise RigShapeError(f"{self.rig.name}: has no landmarks, which regions are found by")
        return np.nanmean(marks, 0)


def head_of(coefficients: Values) -> Pose:
    """The angles of the head in coefficients, radians."""
    yaw, pitch, roll = (float(coefficients[i]) for i in HEAD)
    return yaw, pitch, roll


def in_pose(coefficients: Values, head: Pose) -> Values:
    """Coefficients with other angles of the head."""
    out = np.array(coefficients, np.float32)
    out[HEAD] = head
    return out


def at_rest(head: Pose) -> Values:
    """The face at rest in a head pose."""
    return in_pose(np.zeros(len(INDEX), np.float32), head)


def region_polygon(marks: Float[np.ndarray, "70 2"], region: Region) -> Float32[np.ndarray, "N 2"]:
    """The outline of a region, in the unit of the landmarks: the hull of all that they reach.

    Raises:
      ValueError: the region's landmarks are not known.
    """
    if region == "whole":
        parts = [region_polygon(marks, "upper"), region_polygon(marks, "lower")]
        return cv2.convexHull(np.concatenate(parts))[:, 0]
    lids = marks[landmarks.EYELIDS]
    lids = lids[np.isfinite(lids).all(1)]
    down = np.nan_to_num(marks[landmarks.CHIN] - lids.mean(0)) if len(lids) else np.zeros(2)
    spans = [np.concatenate([marks[part], marks[part] + far * down]) for part, far in SPAN[region]]
    known = np.concatenate(spans).astype(np.float32)
    known = known[np.isfinite(known).all(1)]
    if len(known) < 3:
        raise ValueError(f"the landmarks of the {region} face are not known")
    hull = cv2.convexHull(known)[:, 0]
    middle = (hull.min(0) + hull.max(0)) / 2
    return (middle + MARGIN * (hull - middle)).astype(np.float32)


def region_mask(marks: Float[np.ndarray, "70 2"], region: Region, height: int, width: int) -> Mask:
    """The pixels within the outline of a region; see `region_polygon`."""
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.round(region_polygon(marks, region)).astype(np.int32)], 1)
    return mask.astype(bool)


def outlined(image: Image, mask: Mask) -> Image:
    """An image with the edge of a mask drawn in; a mask of the whole face stays unseen."""
    out = image.copy()
    edges, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(out, edges, -1, OUTLINE, max(1, round(WIDTH * min(mask.shape))), cv2.LINE_AA)
    return out
