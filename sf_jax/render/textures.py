"""Images on the surface of a mesh, with the smaller copies that distant surfaces are drawn from."""

from functools import lru_cache
from typing import NamedTuple

import cv2
import numba
import numpy as np

LEVELS = 12  # of halved copies, more than any image needs


class Atlas(NamedTuple):
    """Textures and their halvings (mipmaps) in one array.

    Attributes:
      texels: uint8 [N, 4], RGBA, rows of one image after another.
      table: int64 [images, LEVELS, 3], first texel, height and width of each level.
      cutout: bool [images], some of it is transparent.
    """

    texels: np.ndarray
    table: np.ndarray
    cutout: np.ndarray


def _levels(image: np.ndarray) -> list[np.ndarray]:
    """An image uint8 [h, w, 4] and its halvings; the smallest is repeated."""
    level = np.ascontiguousarray(image, np.uint8)
    levels = [level]
    while len(levels) < LEVELS:
        height, width = level.shape[:2]
        if min(height, width) > 3:
            half = (width // 2, height // 2)
            level = cv2.resize(level, half, interpolation=cv2.INTER_AREA).astype(np.uint8)
        levels.append(level)
    return levels


def packed(images: tuple[np.ndarray, ...]) -> Atlas:
    """The atlas of textures, uint8 [h, w, 4] each; kept for the last few sets of images."""
    return _packed(tuple(_Held(image) for image in images))


class _Held:
    """An image as a key: by identity, and alive as long as it is one."""

    def __init__(self, image: np.ndarray) -> None:
        self.image = image

    def __hash__(self) -> int:
        return id(self.image)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and other.image is self.image


@lru_cache(maxsize=8)
def _packed(images: tuple[_Held, ...]) -> Atlas:
    table = np.zeros((len(images), LEVELS, 3), np.int64)
    pieces, start = [np.zeros((0, 4), np.uint8)], 0
    for i, held in enumerate(images):
        for j, level in enumerate(_levels(held.image)):
            table[i, j] = [start, *level.shape[:2]]
            pieces.append(level.reshape(-1, 4))
            start += level.shape[0] * level.shape[1]
    cutout = np.array([held.image[..., 3].min() < 128 for held in images], bool)
    return Atlas(np.concatenate(pieces), table, cutout)


NO_ATLAS = _packed(())


@numba.njit(cache=True, nogil=True, fastmath=True)
def texel(atlas, image, level, u, v, out):  # type: ignore[no-untyped-def]
    """Bilinear sample [4] of a texture repeated beyond its borders: RGBA in [0, 1]."""
    start = atlas.table[image, level, 0]
    height, width = atlas.table[image, level, 1], atlas.table[image, level, 2]
    x, y = (u - np.floor(u)) * width - 0.5, (v - np.floor(v)) * height - 0.5
    x0, y0 = int(np.floor(x)), int(np.floor(y))
    fx, fy = np.float32(x - x0), np.float32(y - y0)
    x1, y1 = (x0 + 1) % width, (y0 + 1) % height
    x0, y0 = x0 % width, y0 % height
    top, low = start + y0 * width, start + y1 * width
    for k in range(4):
        upper = atlas.texels[top + x0, k] * (1 - fx) + atlas.texels[top + x1, k] * fx
        lower = atlas.texels[low + x0, k] * (1 - fx) + atlas.texels[low + x1, k] * fx
        out[k] = (upper * (1 - fy) + lower * fy) * np.float32(1 / 255)
