"""A z-buffer rasteriser: triangles and vertex attributes to images of attributes."""

import numba
import numpy as np

NEAR = 1.0  # cm in front of the camera; nearer triangles are not drawn


@numba.njit(cache=True, nogil=True, fastmath=True)
def _fill(points, depths, attributes, triangles, depth, index, out):  # type: ignore[no-untyped-def]
    height, width = depth.shape
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        if depths[a] < NEAR or depths[b] < NEAR or depths[c] < NEAR:
            continue
        ax, ay, bx, by = points[a, 0], points[a, 1], points[b, 0], points[b, 1]
        cx, cy = points[c, 0], points[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area >= 0.0:  # images have y down, so front faces are clockwise
            continue
        left = max(0, int(np.ceil(min(ax, bx, cx) - 0.5)))
        right = min(width - 1, int(np.floor(max(ax, bx, cx) - 0.5)))
        top = max(0, int(np.ceil(min(ay, by, cy) - 0.5)))
        bottom = min(height - 1, int(np.floor(max(ay, by, cy) - 0.5)))
        ia, ib, ic = 1.0 / depths[a], 1.0 / depths[b], 1.0 / depths[c]
        for y in range(top, bottom + 1):
            py = y + 0.5
            for x in range(left, right + 1):
                px = x + 0.5
                wa = ((bx - px) * (cy - py) - (by - py) * (cx - px)) / area
                wb = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) / area
                wc = 1.0 - wa - wb
                if wa < 0.0 or wb < 0.0 or wc < 0.0:
                    continue
                inverse = wa * ia + wb * ib + wc * ic
                if inverse <= depth[y, x]:
                    continue
                depth[y, x] = inverse
                index[y, x] = t
                for k in range(attributes.shape[1]):
                    mixed = wa * attributes[a, k] + wb * attributes[b, k] + wc * attributes[c, k]
                    out[y, x, k] = mixed


def rasterise(
    points: np.ndarray,
    depths: np.ndarray,
    attributes: np.ndarray,
    triangles: np.ndarray,
    height: int,
    width: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws front faces.

    Args:
      points: float32 [V, 2], x and y in pixels; depths: float32 [V], cm from the camera.
      attributes: float32 [V, K], interpolated over triangles.
      triangles: int32 [T, 3], counter-clockwise seen from the front.

    Returns:
      Attributes [H, W, K], triangle indices int32 [H, W] (-1 for none), inverse depths [H, W].
    """
    depth = np.zeros((height, width), np.float32)
    index = np.full((height, width), -1, np.int32)
    out = np.zeros((height, width, attributes.shape[1]), np.float32)
    _fill(points, depths, attributes, triangles, depth, index, out)
    return out, index, depth


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
        size = np.sqrt(normals[v, 0] ** 2 + normals[v, 1] ** 2 + normals[v, 2] ** 2) + 1e-12
        normals[v] /= size
    return normals
