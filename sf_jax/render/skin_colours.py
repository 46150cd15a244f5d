"""Colours of a rig's vertices from a portrait that a rig was fitted to.

A vertex that the portrait shows has its colour there; the others get that of the opposite vertex,
or that of the skin around. What is on the face but no skin (hair, cloth, background at its border)
is found by its colour and counts as hidden. Light that the portrait has is estimated from the
skin's brightness by its normals, and most of it divided out. Eyes, teeth and shut lids, which no
portrait shows as a rig needs them, are painted.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.interpolate import RBFInterpolator
from scipy.sparse import csr_matrix, diags, identity
from scipy.sparse.linalg import splu

from sf_jax.face import landmarks as table
from sf_jax.render.rig import Rig, pose
from sf_jax.render.skin_fit import Fit
from sf_jax.render.skin_regions import Regions, edges, normals, smooth

CELL = 0.12  # cm, of the grid on which it is decided what hides what
NEARER = 0.35  # cm by which a surface must be nearer to hide a vertex
JAW_PULL = 0.5  # how far the jaw line is moved to its landmarks; it is a silhouette
EVEN_LIGHT = 0.75  # share of the estimated light that is divided out
EVEN_SIDES = 0.8  # share of the smooth difference between the sides that is removed
MOST_LIGHT = 0.7  # largest change of the logarithm of a colour by that
FLAT_LIGHT = 3.0  # pull of the estimate towards even light
LIGHTNESS, CHROMA = 28.0, 18.0  # differences from the skin in CIELAB that are no skin
AT_BORDER = 0.7  # of these, from where hair and cloth often cover the face
DARKEST = 0.004  # linear


@dataclass(frozen=True)
class Sampled:
    """What a portrait shows of a rig.

    Attributes:
      colours: float64 [V, 3], sRGB in [0, 1], as photographed.
      seen: float64 [V] in [0, 1]: 0 for vertices that are hidden or face away.
      normals: float64 [V, 3] in the camera's axes.
    """

    colours: Float[np.ndarray, "V 3"]
    seen: Float[np.ndarray, " V"]
    normals: Float[np.ndarray, "V 3"]


def linear(srgb: np.ndarray) -> np.ndarray:
    """sRGB in [0, 1] → linear light."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def encoded(light: np.ndarray) -> np.ndarray:
    """Linear light → sRGB in [0, 1]."""
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def _hidden(projected: np.ndarray, triangles: np.ndarray, cell: float) -> Bool[np.ndarray, " V"]:
    """Vertices that a surface is in front of, by painting triangles from far to near."""
    flat = projected[:, :2] / cell
    low = flat.min(0) - 1
    width, height = (np.ceil(flat.max(0) - low) + 2).astype(int)
    nearest = np.full((height, width), -1e3, np.float32)
    depth = projected[triangles, 2].mean(1)
    corners = np.rint((flat - low)[triangles] * 16).astype(np.int32)
    a, b, c = (corners[:, i].astype(np.int64) for i in range(3))
    turn = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    for t in np.argsort(depth, kind="stable"):
        if turn[t] < 0:  # faces the camera: y is down
            cv2.fillConvexPoly(nearest, corners[t], float(depth[t]), shift=4)
    column, row = np.floor(flat - low).astype(int).T
    return nearest[row, column] > projected[:, 2] + NEARER


def _warped(fit: Fit, rig: Rig, projected: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Image positions [V, 2], moved so that the rig's landmarks are at those of the portrait."""
    own = projected[rig.landmarks[:68], :2]
    away = landmarks[:68] - own
    away[table.JAW] *= JAW_PULL
    unit = fit.scale
    move = RBFInterpolator(own / unit, away, kernel="linear", degree=0, smoothing=0.05)
    return projected[:, :2] + move(projected[:, :2] / unit)


def sample(
    image: UInt8[np.ndarray, "H W 3"],
    landmarks: Float[np.ndarray, "68 2"],
    rig: Rig,
    fit: Fit,
    spacing: Float[np.ndarray, " V"],
) -> Sampled:
    """The colours that a portrait shows.

    Args:
      landmarks: in pixels.
      spacing: [V], distance of each vertex to its neighbours, cm: colours are averaged as widely.
    """
    points = pose(rig, fit.expression, fit.identity)
    projected = fit.project(points.astype(np.float64))
    facing = normals(points, rig.triangles) @ fit.rotation.T
    hidden = _hidden(projected, rig.triangles, CELL * fit.scale)
    at = _warped(fit, rig, projected, landmarks).astype(np.float32)
    at -= np.float32(0.5)  # OpenCV counts from centres of pixels
    inside = ((at >= 0) & (at <= np.array(image.shape[1::-1]) - 1)).all(1)
    blur = 0.25 * spacing * fit.scale  # pixels
    levels = np.array([0.0, 0.8, 1.6, 3.2])
    level = np.interp(blur, levels, np.arange(4))
    colours = np.zeros((len(points), 3))
    for i, sigma in enumerate(levels):
        soft = cv2.GaussianBlur(image, (0, 0), sigma) if sigma else image
        found = cv2.remap(soft, at[:, None, :1], at[:, None, 1:], cv2.INTER_LINEAR)[:, 0]
        colours += np.clip(1 - np.abs(level - i), 0, 1)[:, None] * found
    seen = smooth(0.2, 0.45, facing[:, 2]) * ~hidden * inside
    return Sampled(colours / 255, seen, facing)


# ---- light ------------------------------------------------------------------------------------


def _harmonics(directions: np.ndarray) -> np.ndarray:
    """Spherical harmonics of the first three bands but for their factors, [V, 9]."""
    x, y, z = directions.T
    ones = np.ones_like(x)
    return np.stack([ones, x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1], 1)


def light(sampled: Sampled, plain: np.ndarray) -> Float[np.ndarray, "V 3"]:
    """The logarithm of the light on each vertex, relative to that on the skin's median.

    Fitted to `plain`, the weights [V] of vertices of bare skin, whose own colour varies little;
    vertices far from the fit (moles, highlights, cast shadows) count less and less.
    """
    rows = np.flatnonzero(plain > 0.3)
    basis = _harmonics(sampled.normals)
    target = np.log(np.maximum(linear(sampled.colours[rows]), DARKEST))
    centre = np.median(target, axis=0)
    pull = FLAT_LIGHT * np.diag([0.0, 1, 1, 1, 4, 4, 4, 4, 4])
    weights = plain[rows]
    values = np.zeros((9, 3))
    for _ in range(6):
        weighted = basis[rows] * weights[:, None]
        normal = weighted.T @ basis[rows] + pull
        values = np.linalg.solve(normal, weighted.T @ (target - centre))
        off = np.abs((target - centre - basis[rows] @ values).mean(1))
        weights = plain[rows] / (1 + (off / 0.15) ** 2)
    total = basis @ values
    return total - np.median(total[rows], axis=0)


def unlike_skin(
    sampled: Sampled, plain: Float[np.ndarray, " V"], shading: Float[np.ndarray, "V 3"]
) -> Float[np.ndarray, " V"]:
    """How far the colour of each vertex, less the light on it, is from that of the bare skin
    `plain`; 1 at the limits LIGHTNESS and CHROMA.

    Colours are compared in CIELAB, where dark and light skin are equally uneven.
    """
    even = encoded(linear(sampled.colours) / np.exp(shading)).astype(np.float32)
    lab = cv2.cvtColor(even[None], cv2.COLOR_RGB2LAB)[0]
    off = lab - np.median(lab[plain > 0.5], axis=0)
    return np.maximum(np.abs(off[:, 0]) / LIGHTNESS, np.hypot(off[:, 1], off[:, 2]) / CHROMA)


# ---- filling ----------------------------------------------------------------------------------


class Mesh:
    """The neighbours of a rig's vertices, for smoothing and filling over the surface."""

    def __init__(self, rig: Rig):
        pairs = edges(rig.triangles)
        count = len(rig.neutral)
        both = np.concatenate([pairs, pairs[:, ::-1]])
        length = np.linalg.norm(rig.neutral[both[:, 0]] - rig.neutral[both[:, 1]], axis=1)
        near = 1 / np.maximum(length, 0.02)
        matrix = csr_matrix((near, (both[:, 0], both[:, 1])), (count, count))
        sums = np.asarray(matrix.sum(1)).ravel()
        self.spacing = np.bincount(both[:, 0], length, count) / np.maximum(
            np.bincount(both[:, 0], minlength=count), 1
        )
        self._average = diags(1 / np.maximum(sums, 1e-9)) @ matrix
        self._roughness = (identity(count) - self._average).tocsc()

    def filled(
        self,
        values: Float[np.ndarray, "V k"],
        weights: Float[np.ndarray, " V"],
        tightness: float,
        else_: Float[np.ndarray, "V k"] | None = None,
    ) -> Float[np.ndarray, "V k"]:
        """Values that are those given where weights are 1, and smooth elsewhere.

        Args:
          tightness: how much more the given values count than smoothness.
          else_: what values without weight tend to; None for the mean of those with weight.
        """
        known = tightness * weights
        loose = np.full(len(weights), 1e-6) if else_ is None else 0.3 * (1 - weights)
        target = np.average(values, 0, weights) if else_ is None else else_
        system = (diags(known + loose) + self._roughness).tocsc()
        return splu(system).solve(known[:, None] * values + loose[:, None] * target)

    def grown(self, mask: Bool[np.ndarray, " V"], rings: int) -> Bool[np.ndarray, " V"]:
        """A set of vertices and their neighbours, so many times."""
        for _ in range(rings):
            mask = (self._average @ mask.astype(np.float64)) > 0.25
        return mask


def plain_skin(regions: Regions) -> Float[np.ndarray, " V"]:
    """Weights of the vertices that are bare skin in every portrait: cheeks, nose, forehead."""
    mask = regions.mask
    plain = mask["face"].astype(np.float64)
    for name in ("lips", "brow", "lid", "liner", "shut lid", "beard", "moustache", "goatee"):
        plain = plain * (1 - np.clip(2 * mask[name], 0, 1))
    return plain


def core(regions: Regions) -> Bool[np.ndarray, " V"]:
    """The vertices from brows to mouth and between the outer corners of the eyes, which hair and
    cloth seldom cover."""
    x, y = np.abs(regions.points[:, 0]), regions.points[:, 1]
    top, bottom, side = regions.core
    return (y < top) & (y > bottom) & (x < side)


def _beard(regions: Regions) -> Bool[np.ndarray, " V"]:
    """Lips and chin, where what is darker than skin is a beard: all of it is kept, or it would be
    patchy. Towards the ears hair and cloth hang as often."""
    mask = regions.mask
    chin = np.maximum(np.maximum(mask["beard"], mask["moustache"]), mask["goatee"])
    return ((chin > 0.2) | (mask["lips"] > 0.1)) & (np.abs(regions.points[:, 0]) < 3.2)


def skin_colours(
    sampled: Sampled, regions: Regions, mesh: Mesh
) -> tuple[Float[np.ndarray, "V 3"], float]:
    """Colours [V, 3] of all vertices, sRGB in [0, 1], before anything is painted; and the share of
    the core of the face that is no skin."""
    sure = core(regions)
    plain = plain_skin(regions) * sampled.seen
    shading = light(sampled, plain * sure)
    unlike = unlike_skin(sampled, plain * sure, shading)
    inner = (plain > 0.5) & sure
    occluded = float((unlike[inner] > 1).mean()) if inner.any() else 1.0
    border = mesh.grown((unlike > AT_BORDER) & ~sure & ~_beard(regions), 2)
    seen = sampled.seen * regions.mask["face"] * ~border
    log = np.log(np.maximum(linear(sampled.colours), DARKEST))
    log = log - EVEN_LIGHT * np.clip(shading, -MOST_LIGHT, MOST_LIGHT)
    log = _without_side_light(log, seen, regions, mesh)
    opposite = regions.mirror
    spare = (1 - seen) * seen[opposite]
    total = np.maximum(seen + spare, 1e-9)[:, None]
    both = (seen[:, None] * log + spare[:, None] * log[opposite]) / total
    weights = np.clip(seen + 0.7 * spare, 0, 1)
    bare = mesh.filled(both, weights * plain_skin(regions), 1.0)  # hidden skin has no brows
    filled = mesh.filled(both, weights, 40.0, bare)
    return encoded(np.exp(filled)), occluded


def _without_side_light(
    log: np.ndarray, seen: np.ndarray, regions: Regions, mesh: Mesh
) -> np.ndarray:
    """Log colours whose smooth difference between the sides is removed: what is left of a light
    from one side, and the shadows that it casts."""
    both = seen * seen[regions.mirror]
    difference = log - log[regions.mirror]
    side = mesh.filled(difference, both, 0.02)
    return log - 0.5 * EVEN_SIDES * side
