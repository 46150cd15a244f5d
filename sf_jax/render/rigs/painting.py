"""Materials and soft masks of a head without a texture, from the landmarks of its face."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int

from sf_jax.face import landmarks
from sf_jax.render.head_surface import smoothstep
from sf_jax.render.rig import MATERIALS, PAINTS


def _to_line(points: np.ndarray, line: np.ndarray) -> np.ndarray:
    """Distance from each point [n, 2] to a polyline [m, 2]."""
    t = np.linspace(0, len(line) - 1, 60)
    dense = np.stack([np.interp(t, np.arange(len(line)), line[:, i]) for i in (0, 1)], 1)
    return np.linalg.norm(points[:, None] - dense, axis=-1).min(1)


def scalp(
    vertices: Float[np.ndarray, "V 3"], marks: Float[np.ndarray, "70 3"]
) -> Bool[np.ndarray, " V"]:
    """Which vertices are above the hairline: over the forehead, the temples, the ears, the nape."""
    height = float(np.ptp(marks[:68, 1]))
    eye = marks[landmarks.EYELIDS].mean(0)
    x, y, z = ((vertices - eye) / height).T
    ears = np.abs(x) > 1.1 * np.abs(marks[[0, 16], 0] - eye[0]).mean() / height
    depth = [-1.22, -1.0, -0.83, -0.65, -0.44, -0.37, -0.26, -0.085, 0.06]
    line = [-0.53, -0.46, -0.18, 0.18, 0.18, -0.04, 0.32, 0.45, 0.48]
    return (y > np.interp(z, depth, line)) & ~ears


def in_mouth(
    vertices: Float[np.ndarray, "V 3"],
    marks: Float[np.ndarray, "70 3"],
    piece: Int[np.ndarray, " V"],
    tongue: Float[np.ndarray, " V"],
) -> Int[np.ndarray, " V"]:
    """Materials of what is in the mouth of a head without names for it, -1 elsewhere.

    Args:
      piece: the number of the connected piece of the mesh of each vertex.
      tongue: how far each vertex moves when the tongue is put out.
    """
    height = float(np.ptp(marks[:68, 1]))
    mouth, corners = marks[landmarks.LIPS].mean(0), marks[[48, 54]]
    x, y, z = ((vertices - [mouth[0], mouth[1], corners[:, 2].min()]) / height).T
    wide = 1.1 * np.ptp(corners[:, 0]) / 2 / height
    inside = (np.abs(x) < wide) & (np.abs(y) < 0.15) & (z < -0.03) & (z > -0.5)
    near = inside | ((np.abs(x) < wide) & (np.abs(y) < 0.2) & (z < 0.12))
    out = np.where(inside, MATERIALS.index("mouth"), -1)
    main = np.bincount(piece).argmax()
    for number in np.unique(piece[inside]):
        mine = piece == number
        if number != main and near[mine].all():
            moved = tongue[mine].max() > 0.5 * max(float(tongue.max()), 1e-9)
            out[mine] = MATERIALS.index("tongue" if moved else "teeth")
    return out


def paint(
    vertices: Float[np.ndarray, "V 3"],
    marks: Float[np.ndarray, "70 3"],
    skin: Bool[np.ndarray, " V"],
) -> Float[np.ndarray, "V P"]:
    """Soft masks of PAINTS, in [0, 1], on the vertices of the skin.

    Args:
      marks: landmarks of the neutral head, all known but for pupils.
    """
    height = float(np.ptp(marks[:68, 1]))
    flat, z = vertices[skin, :2] / height, vertices[skin, 2] / height
    at = marks / height
    outline = np.ascontiguousarray(at[48:60, :2], np.float32)
    inside = [cv2.pointPolygonTest(outline, (float(x), float(y)), True) for x, y in flat]
    corner = at[[landmarks.MOUTH_RIGHT, landmarks.MOUTH_LEFT], 2].min()
    lips = np.clip(0.5 + np.array(inside) / 0.012, 0, 1) * (z > corner - 0.06)
    mouth, eye = at[landmarks.LIPS].mean(0), at[landmarks.EYELIDS].mean(0)
    front = smoothstep(eye[2] - 0.25, eye[2] - 0.1, z)
    brow, lid = np.zeros(len(flat)), np.zeros(len(flat))
    for line in (at[17:22, :2], at[22:27, :2]):
        brow += np.exp(-0.5 * (_to_line(flat, line) / 0.021) ** 2) * front
    for line in (at[36:40, :2], at[42:46, :2]):
        over = smoothstep(0, 0.01, flat[:, 1] - np.interp(flat[:, 0], line[:, 0], line[:, 1]))
        lid += (1 - smoothstep(0.007, 0.05, _to_line(flat, line))) * over * front
    x, y = np.abs(flat[:, 0]), flat[:, 1]
    blush = np.exp(-0.5 * (((x - 0.33) / 0.1) ** 2 + ((y - eye[1] + 0.24) / 0.085) ** 2)) * front
    below = y - mouth[1] + 0.35 * np.clip(x - 0.28, 0, 0.14)
    beard = smoothstep(0.035, -0.07, below) * smoothstep(eye[2] - 0.44, eye[2] - 0.3, z)
    beard *= smoothstep(at[landmarks.CHIN, 1] - 0.2, at[landmarks.CHIN, 1] - 0.08, y)
    above = np.exp(-0.5 * ((y - mouth[1] - 0.11) / 0.028) ** 2) * smoothstep(0.21, 0.14, x)
    beard = np.maximum(beard, above * (z > corner - 0.05)) * (1 - lips)
    masks = {"lips": lips, "brow": brow, "blush": blush, "lid": lid, "beard": beard}
    out = np.zeros((len(vertices), len(PAINTS)), np.float32)
    out[skin] = np.stack([masks[name] for name in PAINTS], axis=1).clip(0, 1)
    return out
