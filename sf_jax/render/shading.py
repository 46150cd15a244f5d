"""Light on rasterised surfaces: from triangle indices to colours, a few times faster than NumPy.

Every pixel has SAMPLES x SAMPLES samples. Those of one material are averaged to a fragment before
the light is computed, so that a pixel inside a surface is lit once. Fragments are columns of
arrays [rows, F], over which loops run as vector instructions.
"""

from typing import NamedTuple

import numba
import numpy as np

from sf_jax.render.textures import Atlas, texel

SAMPLES = 2  # per pixel and axis
BACKGROUND = 255  # in the material map
OFFSET, BIAS = np.float32(0.45), np.float32(0.12)  # cm, of a shadow's test
TILE_CM = 14.0  # extent of the skin's noise, which repeats
# Columns of the vertex attributes.
NORMAL, ALBEDO, UV, OCCLUSION, NOISE, REST, WORLD, COLUMNS = 0, 3, 6, 8, 9, 10, 13, 16


class Shadow(NamedTuple):
    """What a light sees.

    Attributes:
      depth: float32 [S, S], inverse depths along the light.
      transform: float32 [3, 4], world cm to x and y in `depth` and the distance along the light.
      strength: 0 none to 1 black, of the first light.
    """

    depth: np.ndarray
    transform: np.ndarray
    strength: np.float32


NO_SHADOW = Shadow(np.zeros((1, 1), np.float32), np.zeros((3, 4), np.float32), np.float32(0))


class Shading(NamedTuple):
    """How surfaces are lit. All arrays float32.

    Attributes:
      lights: [L, 3], unit directions towards them; colours: [L, 3].
      above, below: [3], ambient light from either side.
      viewer: [3], unit direction to the camera.
      rim: [3], light along the silhouette.
      gloss: [M, 2], a material's highlights: strength, and sharpness: the exponent is 2 ** of it.
      wrap: [3], by how much light reaches around a surface, a channel (0 not at all).
      tones: [n], brightness of the flat tones from dark to light; empty for smooth light.
      limits: [n - 1], relative light from which each next tone begins; softness: of the steps.
      shade: [3], colour of the darkest tone.
      flat: one normal a triangle.
      noise: [N, N, 3], relative change of the skin's colour, repeated over TILE_CM; strands:
        [N, N], of hair's, columns across it.
      outline: [3], its colour relative to the surface's.
      shadow: of the first light.
    """

    lights: np.ndarray
    colours: np.ndarray
    above: np.ndarray
    below: np.ndarray
    viewer: np.ndarray
    rim: np.ndarray
    gloss: np.ndarray
    wrap: np.ndarray
    tones: np.ndarray
    limits: np.ndarray
    softness: np.float32
    shade: np.ndarray
    flat: bool
    noise: np.ndarray
    strands: np.ndarray
    outline: np.ndarray
    shadow: Shadow


class Surface(NamedTuple):
    """What is lit.

    Attributes:
      points: float32 [V, 2] in samples.
      triangles: int32 [T, 3]; materials: uint8 [T]; one_sided: those from here on have two sides.
      attributes: float32 [V, COLUMNS]: normal, colour, u, v, occlusion (1 open), share of the
        skin's noise (or of hair's, negative), position at rest (of hair: across and along it, 0)
        and in the world.
      atlas: textures; image: int16 [T], the texture of each triangle that its colour is multiplied
        by, -1 for none; level: int64 [images], of the mipmap to draw from.
    """

    points: np.ndarray
    triangles: np.ndarray
    materials: np.ndarray
    one_sided: int
    attributes: np.ndarray
    atlas: Atlas
    image: np.ndarray
    level: np.ndarray


@numba.njit(cache=True, nogil=True)
def triangle_materials(material: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """The material of each triangle's majority of corners, else the middle one: uint8 [T]."""
    out = np.empty(len(triangles), np.uint8)
    for t in range(len(triangles)):
        a, b, c = material[triangles[t, 0]], material[triangles[t, 1]], material[triangles[t, 2]]
        out[t] = max(min(a, b), min(max(a, b), c))
    return out


@numba.njit(cache=True, nogil=True)
def edges(index, depth, materials, step):  # type: ignore[no-untyped-def]
    """Samples with a neighbour `step` cm farther away, or of a lower material: uint8 [H, W].

    A line is on the nearer side, or on that of the higher material, never on one fixed side: the
    background would hide half of the silhouette, and a mirrored face would be drawn differently.
    """
    height, width = index.shape
    out = np.zeros((height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            if index[y, x] < 0:
                continue
            here, m = depth[y, x], materials[index[y, x]]
            limit = here - step * here * here
            for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
                v, u = y + dy, x + dx
                if v < 0 or u < 0 or v >= height or u >= width:
                    continue
                if depth[v, u] < limit or (index[v, u] >= 0 and m > materials[index[v, u]]):
                    out[y, x] = 1
    return out


class Fragments(NamedTuple):
    """Averaged samples of pixels, each of one material.

    Attributes:
      mean: float32 [COLUMNS, F], attributes.
      pixel: int32 [F], row by row; triangle: int32 [F], of the first sample.
      share: float32 [F], of the pixel's samples; ink: float32 [F], share that an outline covers.
    """

    mean: np.ndarray
    pixel: np.ndarray
    triangle: np.ndarray
    share: np.ndarray
    ink: np.ndarray


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy", inline="always")
def _add(x, y, t, count, points, triangles, attributes, f, means):  # type: ignore[no-untyped-def]
    """Adds `count` times a triangle's attributes at a point, in samples, to a fragment."""
    a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
    cx, cy = points[c, 0], points[c, 1]
    ax, ay, bx, by = points[a, 0] - cx, points[a, 1] - cy, points[b, 0] - cx, points[b, 1] - cy
    px, py = x - cx, y - cy
    scale = count / (ax * by - ay * bx)
    wa = (px * by - py * bx) * scale
    wb = (ax * py - ay * px) * scale
    wc = count - wa - wb
    for k in range(COLUMNS):
        means[f, k] += wa * attributes[a, k] + wb * attributes[b, k] + wc * attributes[c, k]


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _average(  # type: ignore[no-untyped-def]
    y, x, first, number, kind, points, triangles, attributes, f, means
):
    """Averages a pixel's samples of one material, which are struck off; returns bits of them.

    Samples of one triangle are interpolated once, at their mean position.
    """
    half, one, zero = np.float32(0.5), np.float32(1), np.float32(0)
    m, found, total, u0, v0 = kind[first], 0, zero, zero, zero
    for r in range(first, SAMPLES * SAMPLES):
        if kind[r] != m:
            continue
        t, count, u, v = number[r], zero, zero, zero
        for q in range(r, SAMPLES * SAMPLES):
            if kind[q] == m and number[q] == t:
                count += one
                u += q % SAMPLES
                v += q // SAMPLES
                kind[q] = -1
                found |= 1 << q
        px, py = x * SAMPLES + half + u / count, y * SAMPLES + half + v / count
        _add(px, py, t, count, points, triangles, attributes, f, means)
        if r == first:  # a mean over a seam of the texture would be elsewhere in it
            u0, v0 = means[f, UV] / count, means[f, UV + 1] / count
        total += count
    for k in range(COLUMNS):
        means[f, k] /= total
    means[f, UV], means[f, UV + 1] = u0, v0
    return found


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _gather(  # type: ignore[no-untyped-def]
    index, edge, points, triangles, materials, attributes, cover, material, fragments
):
    """Fills fragments, their means as rows, and cover and material; the number of fragments."""
    found, samples, one = 0, SAMPLES * SAMPLES, np.float32(1)
    number, kind = np.empty(samples, np.int32), np.empty(samples, np.int32)
    means, pixels, firsts, shares, inks = fragments
    for y in range(cover.shape[0]):
        for x in range(cover.shape[1]):
            t, whole, covered = index[y * SAMPLES, x * SAMPLES], True, 0
            for r in range(samples):
                number[r] = index[y * SAMPLES + r // SAMPLES, x * SAMPLES + r % SAMPLES]
                whole &= number[r] == t
                covered += number[r] >= 0
            cover[y, x] = np.float32(covered) / samples
            material[y, x] = materials[t] if t >= 0 else BACKGROUND
            if covered == 0:
                continue
            if not whole:
                for r in range(samples):
                    kind[r] = materials[number[r]] if number[r] >= 0 else -1
            for first in range(samples):
                bits = (1 << samples) - 1
                if not whole and kind[first] < 0:
                    continue
                for k in range(COLUMNS):
                    means[found, k] = 0
                if whole:  # within one triangle, as most pixels are
                    u, v = one * x * SAMPLES + 1, one * y * SAMPLES + 1
                    _add(u, v, t, one, points, triangles, attributes, found, means)
                else:
                    bits = _average(
                        y, x, first, number, kind, points, triangles, attributes, found, means
                    )
                count, inked = 0, 0
                for r in range(samples):
                    if (bits >> r) & 1:
                        count += 1
                        if edge.shape[0] > 1:
                            inked += edge[y * SAMPLES + r // SAMPLES, x * SAMPLES + r % SAMPLES]
                firsts[found] = number[first]
                pixels[found] = y * cover.shape[1] + x
                shares[found] = np.float32(count) / samples
                inks[found] = np.float32(inked) / count
                found += 1
                if whole:
                    break
    return found


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _facets(mean, first, triangles, attributes):  # type: ignore[no-untyped-def]
    """Replaces normals by those of the triangles."""
    for f in range(mean.shape[1]):
        a, b, c = triangles[first[f], 0], triangles[first[f], 1], triangles[first[f], 2]
        ux = attributes[b, WORLD] - attributes[a, WORLD]
        uy = attributes[b, WORLD + 1] - attributes[a, WORLD + 1]
        uz = attributes[b, WORLD + 2] - attributes[a, WORLD + 2]
        vx = attributes[c, WORLD] - attributes[a, WORLD]
        vy = attributes[c, WORLD + 1] - attributes[a, WORLD + 1]
        vz = attributes[c, WORLD + 2] - attributes[a, WORLD + 2]
        mean[0, f] = uy * vz - uz * vy
        mean[1, f] = uz * vx - ux * vz
        mean[2, f] = ux * vy - uy * vx


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _face_viewer(mean, first, one_sided, viewer):  # type: ignore[no-untyped-def]
    """Makes normals unit vectors; those of surfaces with two sides face the viewer.

    Returns:
      [F]: 1 at the silhouette, 0 where a surface faces the viewer.
    """
    around = np.empty(mean.shape[1], np.float32)
    vx, vy, vz = viewer[0], viewer[1], viewer[2]
    for f in range(mean.shape[1]):
        x, y, z = mean[0, f], mean[1, f], mean[2, f]
        size = np.float32(1) / (np.sqrt(x * x + y * y + z * z) + np.float32(1e-9))
        towards = (x * vx + y * vy + z * vz) * size
        flip = np.float32(-1) if (towards < 0 and first[f] >= one_sided) else np.float32(1)
        size *= flip
        mean[0, f], mean[1, f], mean[2, f] = x * size, y * size, z * size
        rest = np.float32(1) - max(towards * flip, np.float32(0))
        around[f] = rest * rest * rest
    return around


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _unshadowed(mean, light, depth, m, strength):  # type: ignore[no-untyped-def]
    """Share of a light that reaches each fragment, [F]: nine samples of what the light sees."""
    size, one = depth.shape[0], np.float32(1)
    out = np.empty(mean.shape[1], np.float32)
    for f in range(mean.shape[1]):
        out[f] = one
        facing = mean[0, f] * light[0] + mean[1, f] * light[1] + mean[2, f] * light[2]
        if facing <= 0:
            continue
        # A point a little above the surface, farther where the light grazes it.
        away = OFFSET * (np.float32(1.4) - facing)
        px = mean[WORLD, f] + away * mean[0, f]
        py = mean[WORLD + 1, f] + away * mean[1, f]
        pz = mean[WORLD + 2, f] + away * mean[2, f]
        x = int(m[0, 0] * px + m[0, 1] * py + m[0, 2] * pz + m[0, 3])
        y = int(m[1, 0] * px + m[1, 1] * py + m[1, 2] * pz + m[1, 3])
        if x < 1 or y < 1 or x >= size - 1 or y >= size - 1:
            continue
        limit = one / (m[2, 0] * px + m[2, 1] * py + m[2, 2] * pz + m[2, 3] - BIAS)
        count = 0
        for v in range(y - 1, y + 2):
            for u in range(x - 1, x + 2):
                count += depth[v, u] > limit
        out[f] = one - strength * np.float32(count) / np.float32(9)
    return out


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _ambient(mean, above, below, lit):  # type: ignore[no-untyped-def]
    """Sets `lit` [3, F] to the ambient light."""
    half = np.float32(0.5)
    for k in range(3):
        middle, slope = half * (above[k] + below[k]), half * (above[k] - below[k])
        for f in range(mean.shape[1]):
            lit[k, f] = (middle + slope * mean[1, f]) * mean[OCCLUSION, f]


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _add_light(mean, light, colour, wrap, reaching, lit, tone):  # type: ignore[no-untyped-def]
    """Adds a light to `lit` [3, F], and to `tone` [F] what cel shading counts."""
    zero, one = np.float32(0), np.float32(1)
    lx, ly, lz = light[0], light[1], light[2]
    wx, wy, wz = wrap[0], wrap[1], wrap[2]
    red, green, blue = colour[0] / (one + wx), colour[1] / (one + wy), colour[2] / (one + wz)
    for f in range(mean.shape[1]):
        facing = mean[0, f] * lx + mean[1, f] * ly + mean[2, f] * lz
        share = (np.float32(0.4) + np.float32(0.6) * mean[OCCLUSION, f]) * reaching[f]
        lit[0, f] += red * share * max(facing + wx, zero)
        lit[1, f] += green * share * max(facing + wy, zero)
        lit[2, f] += blue * share * max(facing + wz, zero)
        tone[f] += colour[1] * share * max(facing, zero)


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _add_highlight(  # type: ignore[no-untyped-def]
    mean, kinds, gloss, light, strength, viewer, reaching, shine
):
    """Adds a light's highlight to `shine` [F]."""
    hx, hy, hz = light[0] + viewer[0], light[1] + viewer[1], light[2] + viewer[2]
    size = np.float32(1) / (np.sqrt(hx * hx + hy * hy + hz * hz) + np.float32(1e-6))
    hx, hy, hz = hx * size, hy * size, hz * size
    for f in range(mean.shape[1]):
        half = max(mean[0, f] * hx + mean[1, f] * hy + mean[2, f] * hz, np.float32(0))
        half *= half
        half *= half
        half *= half
        m = kinds[f]
        if gloss[m, 1] > 3:
            half *= half
        if gloss[m, 1] > 4:
            half *= half
        if gloss[m, 1] > 5:
            half *= half
        shine[f] += half * gloss[m, 0] * strength * reaching[f] * mean[OCCLUSION, f]


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _flat_tones(tone, full, tones, limits, softness, shade, lit):  # type: ignore[no-untyped-def]
    """Replaces `lit` [3, F] by flat tones of the light [F] relative to full light."""
    zero, one = np.float32(0), np.float32(1)
    for f in range(tone.shape[0]):
        value, share = tones[0], zero
        for i in range(limits.shape[0]):
            t = (tone[f] / full - limits[i]) / softness + np.float32(0.5)
            t = min(max(t, zero), one)
            value += t * (tones[i + 1] - tones[i])
            share += t / limits.shape[0]
        for k in range(3):
            lit[k, f] = value * (shade[k] + share * (one - shade[k]))


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _paint(mean, first, image, level, atlas, noise, strands):  # type: ignore[no-untyped-def]
    """Multiplies the fragments' colours by their textures and by the skin's noise."""
    tile, out = noise.shape[0], np.empty(4, np.float32)
    extent, strand_extent = np.float32(tile / TILE_CM), np.float32(strands.shape[0] / TILE_CM)
    for f in range(mean.shape[1]):
        number = image[first[f]]
        if number >= 0:
            texel(atlas, number, level[number], mean[UV, f], mean[UV + 1, f], out)
            for k in range(3):
                mean[ALBEDO + k, f] *= out[k]
        if tile > 1 and mean[NOISE, f] > 0:
            z = mean[REST + 2, f]
            u = int(np.floor((mean[REST, f] + np.float32(0.35) * z) * extent)) % tile
            v = int(np.floor((mean[REST + 1, f] + np.float32(0.2) * z) * extent)) % tile
            for k in range(3):
                mean[ALBEDO + k, f] *= np.float32(1) + mean[NOISE, f] * noise[v, u, k]
        elif mean[NOISE, f] < 0:
            u = int(np.floor(mean[REST, f] * strand_extent)) % strands.shape[1]
            v = int(np.floor(mean[REST + 1, f] * strand_extent)) % strands.shape[0]
            for k in range(3):
                mean[ALBEDO + k, f] *= np.float32(1) - mean[NOISE, f] * strands[v, u]


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _resolve(  # type: ignore[no-untyped-def]
    mean, lit, shine, around, rim, outline, pixel, share, ink, colour
):
    """Adds the fragments' colours to the pixels of `colour` [H * W, 3]."""
    for f in range(mean.shape[1]):
        for k in range(3):
            base = mean[ALBEDO + k, f]
            value = base * lit[k, f] + shine[f] + around[f] * rim[k]
            value += ink[f] * (outline[k] * base - value)
            colour[pixel[f], k] += share[f] * value


def _fragments(
    index: np.ndarray,
    edge: np.ndarray,
    surface: Surface,
    cover: np.ndarray,
    material: np.ndarray,
) -> Fragments:
    most = int(np.count_nonzero(index >= 0))
    out = Fragments(
        np.empty((most, COLUMNS), np.float32),
        np.empty(most, np.int32),
        np.empty(most, np.int32),
        np.empty(most, np.float32),
        np.empty(most, np.float32),
    )
    s = surface
    count = _gather(
        index, edge, s.points, s.triangles, s.materials, s.attributes, cover, material, out
    )
    mean = np.ascontiguousarray(out.mean[:count].T)
    return Fragments(mean, *(row[:count] for row in out[1:]))


def _light(fragments: Fragments, kinds: np.ndarray, s: Shading) -> tuple[np.ndarray, np.ndarray]:
    """Light [3, F] that reaches fragments of these materials, and their highlights [F]."""
    mean = fragments.mean
    count = mean.shape[1]
    lit, shine = np.empty((3, count), np.float32), np.zeros(count, np.float32)
    _ambient(mean, s.above, s.below, lit)
    tone, everywhere = lit[1].copy(), np.ones(count, np.float32)
    for i, (light, colour) in enumerate(zip(s.lights, s.colours, strict=True)):
        if not colour.any():
            continue
        reaching = everywhere
        if i == 0 and s.shadow.strength > 0:
            reaching = _unshadowed(mean, light, *s.shadow)
        _add_light(mean, light, colour, s.wrap, reaching, lit, tone)
        _add_highlight(mean, kinds, s.gloss, light, colour[1], s.viewer, reaching, shine)
    if len(s.tones):
        most, rest = s.colours[:, 1].max(), s.colours[:, 1].sum()  # no point sees all lights
        full = np.float32((s.above[1] + s.below[1]) / 2 + 0.7 * most + 0.3 * rest)
        _flat_tones(tone, full, s.tones, s.limits, s.softness, s.shade, lit)
        shine = np.where(shine > 0.2, np.float32(0.35), np.float32(0))
    return lit, shine


def shade(
    index: np.ndarray, edge: np.ndarray, surface: Surface, shading: Shading
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours of the pixels of a window.

    Args:
      index: int32 [H * SAMPLES, W * SAMPLES], triangles, -1 for none.
      edge: uint8 of the same shape, 1 where an outline is drawn; [1, 1] for no outlines.

    Returns:
      Colour float32 [H, W, 3] times cover, cover float32 [H, W], material uint8 [H, W].
    """
    height, width = index.shape[0] // SAMPLES, index.shape[1] // SAMPLES
    cover, material = np.empty((height, width), np.float32), np.empty((height, width), np.uint8)
    colour = np.zeros((height, width, 3), np.float32)
    fragments = _fragments(index, edge, surface, cover, material)
    mean, first = fragments.mean, fragments.triangle
    if shading.flat:
        _facets(mean, first, surface.triangles, surface.attributes)
    around = _face_viewer(mean, first, surface.one_sided, shading.viewer)
    _paint(mean, first, surface.image, surface.level, surface.atlas, shading.noise, shading.strands)
    lit, shine = _light(fragments, surface.materials[first], shading)
    pixels = colour.reshape(-1, 3)
    where = fragments.pixel, fragments.share, fragments.ink
    _resolve(mean, lit, shine, around, shading.rim, shading.outline, *where, pixels)
    return colour, cover, material
