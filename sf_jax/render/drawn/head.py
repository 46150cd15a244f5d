"""A head of elliptical cross-sections, turned in space and projected: what 2.5-D drawing needs.

Coordinates of the face, in units of half the head's height: x to the subject's left, y down,
z out of the face; crown at y = -1, chin at y = 1. A point of the face is given by its frontal
position (x, y) and is put on the surface, so that features shift and narrow as the head turns,
and stop at the contour of the side that turns away.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float

from sf_jax.render.drawn.curves import Points, smoothstep, spline
from sf_jax.render.rig import rotation

PIVOT = np.array([0.0, 0.75, -0.25])  # where the head turns on the neck


@dataclass(frozen=True)
class HeadShape:
    """Proportions of a head, in units of half its height.

    Attributes:
      cranium, cheek, jaw, chin: half widths at the temples, the cheek bones, the jaw's corners
        and the chin; cheek_y, jaw_y: where the last two are widest.
      crown: half width near the crown; above 0.6 of `cranium` the skull is flat on top.
      depth: half depth of the skull over its half width; front: how far the face is before the
        neck's axis, which sets how much features shift when the head turns.
      soft: 0 for straight lines between these widths, 1 for round ones.
    """

    cranium: float = 0.72
    cheek: float = 0.68
    jaw: float = 0.46
    chin: float = 0.16
    cheek_y: float = 0.35
    jaw_y: float = 0.72
    crown: float = 0.5
    depth: float = 1.0
    front: float = 0.66
    soft: float = 1.0


@dataclass(frozen=True)
class Head:
    """A posed head: cross-sections at L heights, the turn and the way to pixels.

    Attributes:
      y, width, depth, x0, z0: [L] each section's height, half width, half depth, centre.
      turn: (yaw, pitch, roll) in the order that a projection wants: yaw first, roll last.
      origin, scale, basis: pixels = origin + scale * (turned point @ basis).
    """

    y: np.ndarray
    width: np.ndarray
    depth: np.ndarray
    x0: np.ndarray
    z0: np.ndarray
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)
    origin: tuple[float, float] = (0.0, 0.0)
    scale: float = 1.0
    basis: np.ndarray = field(default_factory=lambda: np.eye(2))

    def solid(self, points: Float[np.ndarray, "N 3"]) -> Points:
        """Pixels of points of the head in space."""
        matrix, offset = self._projection
        return np.asarray(points, np.float64) @ matrix + offset

    @cached_property
    def _projection(self) -> tuple[np.ndarray, np.ndarray]:
        """Pixels = points @ [3, 2] + [2]."""
        (sin_y, sin_p, sin_r), (cos_y, cos_p, cos_r) = np.sin(self.turn), np.cos(self.turn)
        yaw = np.array([[cos_y, 0, -sin_y], [0, 1, 0], [sin_y, 0, cos_y]])
        pitch = np.array([[1, 0], [0, cos_p], [0, sin_p]])
        roll = np.array([[cos_r, -sin_r], [sin_r, cos_r]])
        matrix = yaw @ pitch @ roll @ self.basis * self.scale
        return matrix, self.still(PIVOT[None, :2])[0] - PIVOT @ matrix

    def still(self, points: Points) -> Points:
        """Pixels of points that do not turn with the head: neck, shoulders."""
        return np.asarray(points) @ self.basis * self.scale + self.origin

    def on(self, points: np.ndarray, lift: float = 0.0) -> Float[np.ndarray, "N 3"]:
        """Points [N, 2] of the frontal face on its surface, `lift` before it.

        A point on the side that has turned away is moved to the contour.
        """
        p = np.asarray(points, np.float64)
        width, depth, x0, z0 = (
            np.interp(p[:, 1], self.y, values)
            for values in (self.width, self.depth, self.x0, self.z0)
        )
        share = (p[:, 0] - x0) / np.maximum(width, 1e-3)
        angle = np.arcsin(np.minimum(np.maximum(share, -1), 1))
        yaw = self.turn[0]
        limb = np.arctan2(width * np.cos(yaw), depth * abs(np.sin(yaw)) + 1e-9)
        angle = np.minimum(angle, limb) if yaw > 0 else np.maximum(angle, -limb)
        beyond = np.sign(p[:, 0] - x0) * np.maximum(np.abs(p[:, 0] - x0) - width, 0)
        return np.stack(
            [x0 + width * np.sin(angle) + beyond, p[:, 1], z0 + depth * np.cos(angle) + lift], 1
        )

    def place(self, points: np.ndarray, lift: float = 0.0) -> Points:
        """Pixels of points [N, 2] of the frontal face."""
        return self.solid(self.on(points, lift))

    def contour(self, low: float = -9.0, high: float = 9.0) -> tuple[Points, Points]:
        """Pixels of the right and the left contour between two heights, from top to bottom."""
        use = (self.y >= low) & (self.y <= high)
        yaw = self.turn[0]
        sides = []
        for side in (-1, 1):
            angle = np.arctan2(
                side * (self.width[use] + 1e-6) * np.cos(yaw), self.depth[use] * side * np.sin(yaw)
            )
            points = np.stack(
                [
                    self.x0[use] + self.width[use] * np.sin(angle),
                    self.y[use],
                    self.z0[use] + self.depth[use] * np.cos(angle),
                ],
                1,
            )
            sides.append(self.solid(points))
        return sides[0], sides[1]

    def silhouette(self, low: float = -9.0, high: float = 9.0) -> Points:
        """The closed outline between two heights, in pixels."""
        right, left = self.contour(low, high)
        return np.concatenate([right, left[::-1]])

    def inflated(self, sides: float, top: float, back: float = 0.0) -> "Head":
        """The head under a layer of hair or a hat, thicker by these amounts."""
        return replace(
            self,
            y=np.where(self.y < 0, self.y * (1 + top), self.y),
            width=self.width + sides,
            depth=self.depth + (sides + back) / 2,
            z0=self.z0 - back / 2,
        )


def sections(shape: HeadShape, levels: int = 7) -> Head:
    """The cross-sections of a head that looks ahead, at rest."""
    top = shape.crown
    half = [
        (0.0, -1.0),
        (top * 0.62, -0.965),
        (0.5 * (top + shape.cranium), -0.74),
        (shape.cranium, -0.25),
        (0.52 * (shape.cranium + shape.cheek), 0.08),
        (shape.cheek, shape.cheek_y),
        (shape.jaw, shape.jaw_y),
        (shape.chin, 0.97),
        (0.0, 1.0),
    ]
    outline = spline(half, per=levels if shape.soft > 0.5 else 2)
    width, y = np.maximum(outline[:, 0], 0), np.maximum.accumulate(outline[:, 1])
    y = np.clip(y, -1, 1) + np.arange(len(y)) * 1e-6
    round_top = np.sqrt(np.clip(1 - (np.minimum(y, 0.0) / 1.0) ** 2, 0, 1))
    fore = shape.front * (0.35 + 0.65 * round_top) - 0.1 * smoothstep(y, 0.7, 1.0)
    aft = -shape.depth * shape.cranium * (0.1 + 0.9 * round_top)
    aft = aft + (shape.depth * shape.cranium + 0.25) * smoothstep(y, 0.2, 0.95)
    depth = np.minimum((fore - aft) / 2, 1.3 * width + 0.02)
    return Head(y, width, depth, np.zeros(len(y)), (fore + aft) / 2)


def moved(head: Head, drop: float, aside: float, puff: float, mouth_y: float) -> Head:
    """The head with its jaw lowered by `drop`, shifted by `aside`, its cheeks puffed."""
    lower = smoothstep(head.y, mouth_y - 0.25, 0.98)
    cheeks = np.exp(-(((head.y - mouth_y + 0.08) / 0.2) ** 2))
    return replace(
        head,
        y=head.y + drop * lower,
        x0=head.x0 + aside * lower,
        width=head.width + puff * cheeks - 0.12 * drop * lower * (head.width > 0.1),
        depth=head.depth + 0.4 * puff * cheeks,
    )


def turned(head: Head, yaw: float, pitch: float, roll: float) -> Head:
    """The head turned by angles in the channel table's order, which differs from a projection's."""
    matrix = rotation(yaw, pitch, roll)
    first = float(np.arctan2(-matrix[2, 0], matrix[2, 2]))
    then = float(np.arcsin(np.clip(matrix[2, 1], -1, 1)))
    last = float(np.arctan2(-matrix[0, 1], matrix[1, 1]))
    return replace(head, turn=(first, then, last))
