"""A z-buffer rasteriser: which triangle each sample of an image shows, and how far away it is."""

from typing import NamedTuple

import numba
import numpy as np

from sf_jax.render.textures import NO_ATLAS, Atlas

NEAR = 1.0  # cm in front of the camera; nearer triangles are not drawn


class Cutouts(NamedTuple):
    """Where triangles have holes: transparent texels, and samples that glass leaves free.

    Attributes:
      uv: float32 [V, 2]; atlas: the textures; image: int16 [T], -1 for none.
      samples: uint8 [T], bits of the samples of each 2 x 2 that a triangle may cover, row by row.
    """

    uv: np.ndarray
    atlas: Atlas
    image: np.ndarray
    samples: np.ndarray


NO_CUTOUTS = Cutouts(
    np.zeros((0, 2), np.float32), NO_ATLAS, np.zeros(0, np.int16), np.zeros(0, np.uint8)
)


@numba.njit(cache=True, nogil=True, fastmath=True)
def _hole(a, b, c, wa, wb, image, cutouts):  # type: ignore[no-untyped-def]
    """Whether the texture is transparent where the corners have the weights wa, wb and the rest."""
    uv, table = cutouts.uv, cutouts.atlas.table
    wc = 1 - wa - wb
    u = uv[a, 0] * wa + uv[b, 0] * wb + uv[c, 0] * wc
    v = uv[a, 1] * wa + uv[b, 1] * wb + uv[c, 1] * wc
    height, width = table[image, 0, 1], table[image, 0, 2]
    x = min(int((u - np.floor(u)) * width), width - 1)
    y = min(int((v - np.floor(v)) * height), height - 1)
    return cutouts.atlas.texels[table[image, 0, 0] + y * width + x, 3] < 128


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _span(row_a, row_b, a_x, b_x, most):  # type: ignore[no-untyped-def]
    """First and last of the columns 0 to `most` at which no corner's weight is negative.

    Args:
      row_a, row_b: weights of corners a and b in column 0; a_x, b_x: their change a column.
    """
    low, high = np.float32(0), np.float32(most)
    for weight, slope in (
        (row_a, a_x),
        (row_b, b_x),
        (np.float32(1) - row_a - row_b, -a_x - b_x),
    ):
        if slope > 0:
            low = max(low, -weight / slope)
        elif slope < 0:
            high = min(high, -weight / slope)
        elif weight < 0:
            return 0, -1
    if high < low:
        return 0, -1
    return int(low + np.float32(0.9999)), int(high + np.float32(0.0001))


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _fill(points, depths, triangles, one_sided, cutouts, depth, index):  # type: ignore[no-untyped-def]
    height, width = depth.shape
    half, one, zero = np.float32(0.5), np.float32(1), np.float32(0)
    upward = np.float32(0.999999)
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, bx, by = points[a, 0], points[a, 1], points[b, 0], points[b, 1]
        cx, cy = points[c, 0], points[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area >= 0:  # images have y down, so front faces are clockwise
            if t < one_sided or area == 0:
                continue
            b, c, bx, by, cx, cy, area = c, b, cx, cy, bx, by, -area
        if depths[a] < NEAR or depths[b] < NEAR or depths[c] < NEAR:
            continue
        x_low, x_high = min(ax, bx, cx) - half, max(ax, bx, cx) - half
        y_low, y_high = min(ay, by, cy) - half, max(ay, by, cy) - half
        if x_high < 0 or y_high < 0 or x_low > width - 1 or y_low > height - 1:
            continue
        left, right = int(max(x_low, zero) + upward), min(width - 1, int(x_high))
        top, bottom = int(max(y_low, zero) + upward), min(height - 1, int(y_high))
        if right < left or bottom < top:
            continue
        # Weights of corners a and b and the inverse depth are linear over the image.
        scale = one / area
        a_x, a_y = (by - cy) * scale, (cx - bx) * scale
        b_x, b_y = (cy - ay) * scale, (ax - cx) * scale
        ic = one / depths[c]
        d_a, d_b = one / depths[a] - ic, one / depths[b] - ic
        x0, y0 = left + half - cx, top + half - cy
        row_a, row_b = a_x * x0 + a_y * y0, b_x * x0 + b_y * y0
        step = a_x * d_a + b_x * d_b
        image = cutouts.image[t] if t < len(cutouts.image) else -1
        holes = image >= 0 and cutouts.atlas.cutout[image]
        samples = cutouts.samples[t] if t < len(cutouts.samples) else np.uint8(15)
        solid = samples == 15 and not holes
        for y in range(top, bottom + 1):
            first, last = _span(row_a, row_b, a_x, b_x, right - left)
            inverse = ic + row_a * d_a + row_b * d_b + step * np.float32(first)
            for i in range(first, last + 1):
                x = left + i
                seen = inverse > depth[y, x]
                if seen and not solid:
                    seen = (samples >> (2 * (y & 1) + (x & 1))) & 1 == 1
                    if seen and holes:
                        wa, wb = row_a + i * a_x, row_b + i * b_x
                        seen = not _hole(a, b, c, wa, wb, image, cutouts)
                if seen:
                    depth[y, x] = inverse
                    index[y, x] = t
                inverse += step
            row_a += a_y
            row_b += b_y


def rasterise(
    points: np.ndarray,
    depths: np.ndarray,
    triangles: np.ndarray,
    height: int,
    width: int,
    one_sided: int | None = None,
    cutouts: Cutouts = NO_CUTOUTS,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the nearest triangle at the centre of each sample.

    Args:
      points: float32 [V, 2], x and y in samples; depths: float32 [V], cm from the camera.
      triangles: int32 [T, 3], counter-clockwise seen from the front.
      one_sided: the first triangles, of which back faces are not drawn; None for all.
      cutouts: holes in triangles.

    Returns:
      Triangle indices int32 [H, W] (-1 for none), inverse depths float32 [H, W] (0 for none).
    """
    depth = np.zeros((height, width), np.float32)
    index = np.full((height, width), -1, np.int32)
    count = len(triangles) if one_sided is None else one_sided
    _fill(points, depths, triangles, count, cutouts, depth, index)
    return index, depth


@numba.njit(cache=True, nogil=True, fastmath=True)
def extent(points: np.ndarray, depths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest x and y [2] of points that are not too near; reversed for none."""
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for i in range(points.shape[0]):
        if depths[i] < NEAR:
            continue
        for k in range(2):
            low[k] = min(low[k], points[i, k])
            high[k] = max(high[k], points[i, k])
    return low, high


@numba.njit(cache=True, nogil=True, fastmath=True)
def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Smooth unit normals float32 [V, 3]."""
    normals = np.zeros_like(vertices)
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ux, uy, uz = (
            vertices[b, 0] - vertices[a, 0],
            vertices[b, 1] - vertices[a, 1],
            vertices[b, 2] - vertices[a, 2],
        )
        vx, vy, vz = (
            vertices[c, 0] - vertices[a, 0],
            vertices[c, 1] - vertices[a, 1],
            vertices[c, 2] - vertices[a, 2],
        )
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for v in (a, b, c):
            normals[v, 0] += nx
            normals[v, 1] += ny
            normals[v, 2] += nz
    for v in range(vertices.shape[0]):
        x, y, z = normals[v, 0], normals[v, 1], normals[v, 2]
        scale = 1 / (np.sqrt(x * x + y * y + z * z) + np.float32(1e-12))
        normals[v, 0], normals[v, 1], normals[v, 2] = x * scale, y * scale, z * scale
    return normals
