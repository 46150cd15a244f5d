"""How far pictures differ as they are seen: all that is known here are pixels."""

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

BLUR = 1 / 128  # sigma in sides: finer detail than an eye resolves on a small picture
NOTICEABLE = 2.3  # CIE 1976 difference of two patches side by side (Mahy et al. 1994)

Image = UInt8[np.ndarray, "H W 3"]
Mask = Bool[np.ndarray, "H W"]


def colour_difference(one: Image, other: Image) -> Float32[np.ndarray, "H W"]:
    """CIE 1976 colour difference of each pixel of two images of one size, 0 where equal."""
    return np.linalg.norm(_lab(one) - _lab(other), axis=-1)


def _lab(image: Image) -> Float32[np.ndarray, "H W 3"]:
    """CIE Lab (D65) of an image, blurred by what an eye does not resolve."""
    sigma = BLUR * min(image.shape[:2])
    soft = cv2.GaussianBlur(image.astype(np.float32) / np.float32(255), (0, 0), sigma)
    return cv2.cvtColor(soft, cv2.COLOR_RGB2LAB)


def visible_difference(one: Image, other: Image, region: Mask) -> float:
    """How far two renders differ in a region: the root mean square of the colour difference.

    Images are of one size, without outlines. 0 where equal, about 10 for a smile beside a frown.
    """
    return float(np.sqrt(np.mean(colour_difference(one, other)[region] ** 2)))


def distance(image: Image, render: Image, region: Mask) -> float:
    """How far a render is from the image in a region: the mean of the colour difference.

    On 500 pairs of faulty answers for 250 held-out faces, the render of the smaller distance is the
    one of the smaller vertex error in 87 % of the pairs of the upper face and in 81 % of the lower;
    in 96 and 90 % of the half whose vertex errors differ most (`sf-jax bench judging --faces 250`).
    Edges beside colours, other blurs, squares, roots and bounds of the difference gave no more.
    """
    return float(np.mean(colour_difference(image, render)[region]))
