"""How much of a drawn face a channel moves."""

import cv2
import numpy as np

from sf_jax.face.channels import INDEX
from sf_jax.render.drawn import Style, draw_drawn

CHANGED = 10  # of 255, in any colour


def face(**values: float) -> np.ndarray:
    coefficients = np.zeros(61, np.float32)
    for name, value in values.items():
        coefficients[INDEX[name]] = value
    return coefficients


def moved(style: Style, name: str, size: int = 128) -> float:
    """The share of the face's pixels that change between 0 and 1 of a channel.

    The face is the hull of the landmarks. MouthClose closes a mouth, so its jaw is open.
    """
    rest = face(JawOpen=1) if name == "MouthClose" else face()
    full = rest.copy()
    full[INDEX[name]] = 1
    before, after = (draw_drawn(c, style, size, size) for c in (rest, full))
    known = before.landmarks[np.isfinite(before.landmarks).all(1)]
    hull = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(known).astype(np.int32), 1)
    change = np.abs(before.image.astype(int) - after.image).max(2) > CHANGED
    return float(change.sum() / hull.sum())
