"""Renders coefficients in a scene: an image, a material map and landmark positions."""

from dataclasses import dataclass

import cv2
import numpy as np

from sf_jax.render import occlusion
from sf_jax.render.effects import develop
from sf_jax.render.layers import Layer, flatten
from sf_jax.render.looks import skin_noise
from sf_jax.render.raster import NEAR, NO_CUTOUTS, Cutouts, rasterise, vertex_normals
from sf_jax.render.rig import MATERIALS, PAINTS, Rig, pose, rotation
from sf_jax.render.scene import Scene
from sf_jax.render.shading import (
    ALBEDO,
    BACKGROUND,
    COLUMNS,
    NO_SHADOW,
    NOISE,
    NORMAL,
    OCCLUSION,
    REST,
    SAMPLES,
    UV,
    WORLD,
    Shading,
    Shadow,
    Surface,
    edges,
    shade,
    triangle_materials,
)
from sf_jax.render.textures import LEVELS, NO_ATLAS, packed

__all__ = ["BACKGROUND", "Drawing", "draw", "render"]

SHADOW_SIDE, SHADOW_REACH = 192, 17.0  # samples, cm about the face
DEEP = 1.2  # cm from one surface to the next that an outline separates
SKIN = [MATERIALS.index(name) for name in ("skin", "lips")]
GLOSS = {  # strength of highlights, that of the skin times and plus, and log2 of their exponent
    "skin": (1.0, 0.0, 4), "lips": (1.5, 0.03, 5), "sclera": (0.5, 0.35, 6), "iris": (0.5, 0.6, 6),
    "pupil": (0.5, 0.8, 6), "teeth": (1.0, 0.15, 5), "gum": (1.0, 0.1, 5),
    "tongue": (1.0, 0.1, 4), "hair": (0.8, 0.0, 3), "object": (1.5, 0.05, 5),
}  # fmt: skip


@dataclass(frozen=True)
class Drawing:
    """A rendered image with its annotations.

    Attributes:
      image: uint8 [H, W, 3].
      material: uint8 [H, W], indices into MATERIALS, 255 for background.
      landmarks: float32 [70, 2], x and y in pixels, in the order of `face.landmarks`; may be
        outside the image, NaN where not known.
    """

    image: np.ndarray
    material: np.ndarray
    landmarks: np.ndarray


@dataclass(frozen=True)
class _View:
    """Where the camera sees the vertices.

    Attributes:
      points: float32 [V, 2], pixels; depths: float32 [V], cm.
      direction: [3], from the face to the camera; distance: of the face, cm; size: of the face
        (brows to chin), pixels.
    """

    points: np.ndarray
    depths: np.ndarray
    direction: np.ndarray
    distance: float
    size: float


def _project(rig: Rig, vertices: np.ndarray, scene: Scene, height: int, width: int) -> _View:
    """The camera is framed on the landmarks, as a face detector would frame a photograph; the scale
    is that of the rig's neutral face, so that identities differ in size.
    """
    middle = np.nanmean(rig.marks(vertices), 0)
    size = rig.height()
    side = min(height, width)
    distance = scene.focal * size / scene.face_share
    camera = rotation(scene.camera_yaw, -scene.camera_pitch, 0.0)
    camera = camera @ rotation(0.0, 0.0, -scene.roll)
    seen = (vertices - middle) @ camera
    depths = np.float32(distance) - seen[:, 2]
    scale = np.float32(scene.focal * side) / np.maximum(depths, np.float32(1e-3))
    points = np.empty((len(vertices), 2), np.float32)
    points[:, 0] = width / 2 + scene.centre[0] * side + seen[:, 0] * scale
    points[:, 1] = height / 2 + scene.centre[1] * side - seen[:, 1] * scale
    return _View(points, depths, camera[:, 2], distance, scene.face_share * side)


def _albedo(rig: Rig, scene: Scene) -> np.ndarray:
    """Colour of each vertex, float32 [V, 3]: its own, or its material's with paint on the skin."""
    base = np.array([scene.colours[name] for name in MATERIALS], np.float32)
    if rig.surface is not None:
        colours = rig.surface.colours.astype(np.float32)
    else:
        colours = base[rig.material]
        skin = np.array(scene.colours["skin"], np.float32)
        over = {
            "lips": base[MATERIALS.index("lips")],
            "brow": base[MATERIALS.index("brow")],
            "blush": skin * [1.0, 0.62, 0.62],
            "lid": skin * 0.55,
            "beard": base[MATERIALS.index("hair")],
        }
        for i, name in enumerate(PAINTS):
            if strength := scene.paint.get(name, 0.0):
                amount = rig.paint[:, i : i + 1] * np.float32(strength)
                colours = colours + amount * (np.asarray(over[name], np.float32) - colours)
    if scene.look.clay is not None:
        grey = colours.mean(1, keepdims=True)
        relief = 1 + np.float32(scene.look.detail) * (grey / max(float(grey.max()), 0.1) - 1)
        colours = relief * np.array(scene.look.clay, np.float32)
    return colours


def _shadow(scene: Scene, world: np.ndarray, triangles: np.ndarray, middle: np.ndarray) -> Shadow:
    """What the first light sees of a head."""
    if not scene.look.shadow:
        return NO_SHADOW
    direction = np.array(scene.light) / np.linalg.norm(scene.light)
    transform = occlusion.along(direction, middle, SHADOW_REACH, SHADOW_SIDE)
    depth, _ = occlusion.depth_map(world, triangles, transform, SHADOW_SIDE, 0)
    return Shadow(depth, transform, np.float32(scene.look.shadow))


def _shading(scene: Scene, view: np.ndarray, shadow: Shadow) -> Shading:
    key = np.array(scene.light, np.float64) / np.linalg.norm(scene.light)
    lights = [key, np.array([-key[0], 0.1, abs(key[2])])]
    light = np.array(scene.light_colour)
    colours = [scene.key * light, np.full(3, scene.fill)]
    for other in scene.lights:
        lights.append(np.array(other.direction) / np.linalg.norm(other.direction))
        colours.append(np.array(other.colour))
    gloss = np.zeros((len(MATERIALS), 2), np.float32)
    for name, (times, plus, sharpness) in GLOSS.items():
        plus *= scene.look.clay is None
        gloss[MATERIALS.index(name)] = [times * scene.shine + plus * scene.key, sharpness]
    look = scene.look

    def row(*values: float) -> np.ndarray:
        return np.array(values, np.float32)

    return Shading(
        lights=np.array(lights, np.float32),
        colours=np.array(colours, np.float32),
        above=row(*scene.sky) * np.float32(scene.ambient),
        below=row(*scene.ground) * np.float32(scene.ambient),
        viewer=view.astype(np.float32),
        rim=row(*look.rim),
        gloss=gloss,
        wrap=row(1.0, 0.55, 0.4) * np.float32(look.wrap),
        tones=row(*look.tones),
        limits=row(*look.limits),
        softness=np.float32(max(look.softness, 1e-3)),
        shade=row(*look.shade),
        flat=look.flat,
        noise=skin_noise(look),
        outline=row(*look.ink),
        shadow=shadow,
    )


def _attributes(rig: Rig, vertices: np.ndarray, scene: Scene) -> np.ndarray:
    """The vertices' attributes, float32 [V, COLUMNS], for `shading`."""
    out = np.zeros((len(vertices), COLUMNS), np.float32)
    out[:, NORMAL : NORMAL + 3] = vertex_normals(vertices, rig.triangles)
    out[:, ALBEDO : ALBEDO + 3] = _albedo(rig, scene)
    if rig.surface is not None and rig.surface.uv is not None:
        out[:, UV : UV + 2] = rig.surface.uv
    out[:, OCCLUSION] = 1.0 if rig.occlusion is None else rig.occlusion
    out[:, NOISE] = np.isin(rig.material, SKIN)
    out[:, REST : REST + 3] = rig.neutral
    out[:, WORLD : WORLD + 3] = vertices
    return out


def _texels(rig: Rig, points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Mipmap level of each texture of a rig, int64 [images], for samples at `points`."""
    surface = rig.surface
    if surface is None or surface.image is None or surface.uv is None:
        return np.zeros(0, np.int64)

    def areas(at: np.ndarray) -> np.ndarray:
        a, b, c = (at[corners[:, i]] for i in range(3))
        return np.abs(np.linalg.det(np.stack([b - a, c - a], 1)))

    levels = np.zeros(len(surface.images), np.int64)
    for i, image in enumerate(surface.images):
        corners = triangles[surface.image == i]
        if not len(corners):
            continue
        texels = areas(surface.uv.astype(np.float64)) * image.shape[0] * image.shape[1]
        samples = float(areas(points.astype(np.float64)).sum())
        size = np.sqrt(max(float(texels.sum()), 1.0) / max(samples, 1e-6))
        levels[i] = int(np.clip(np.round(np.log2(max(size, 1.0))), 0, LEVELS - 1))
    return levels


def _window(points: np.ndarray, depths: np.ndarray, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the pixels that the vertices may cover, one at least."""
    near = points[depths >= NEAR]
    if not len(near):
        return slice(0, 1), slice(0, 1)
    low = np.clip(np.floor(near.min(0)) - 1, 0, [width - 1, height - 1]).astype(int)
    high = np.clip(np.ceil(near.max(0)) + 1, low + 1, [width, height]).astype(int)
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def _outline(
    scene: Scene, view: _View, index: np.ndarray, depth: np.ndarray, materials: np.ndarray
) -> np.ndarray:
    """Samples that an outline covers, uint8; [1, 1] where a look has none."""
    samples = scene.look.outline * view.size * SAMPLES
    if samples <= 0:
        return np.zeros((1, 1), np.uint8)
    found = edges(index, depth, materials, DEEP)
    radius = round((samples - 1) / 2)
    if radius > 0:
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        found = cv2.dilate(found, disc)
        found[index < 0] = 0
    return found


def render(rig: Rig, coefficients: np.ndarray, scene: Scene, height: int, width: int) -> Layer:
    """Renders a head without background; its cost follows the head's size, not the image's.

    Args:
      coefficients: float [61] in canonical order; angles in radians.
      height, width: of the image in pixels.

    Raises:
      RigShapeError: coefficients or identity of another length than the rig's.
    """
    vertices = pose(rig, coefficients, scene.identity)
    view = _project(rig, vertices, scene, height, width)
    rows, columns = _window(view.points, view.depths, height, width)
    points = (view.points - np.array([columns.start, rows.start], np.float32)) * SAMPLES
    tall, wide = (rows.stop - rows.start) * SAMPLES, (columns.stop - columns.start) * SAMPLES
    triangles = rig.triangles
    materials = triangle_materials(rig.material, triangles)
    atlas, image, cutouts = NO_ATLAS, np.full(len(triangles), -1, np.int16), NO_CUTOUTS
    if rig.surface is not None and rig.surface.image is not None and rig.surface.uv is not None:
        atlas, image = packed(rig.surface.images), rig.surface.image.astype(np.int16)
        cutouts = Cutouts(rig.surface.uv.astype(np.float32), atlas, image)
    index, depth = rasterise(points, view.depths, triangles, tall, wide, None, cutouts)
    surface = Surface(
        points=points,
        triangles=triangles,
        materials=materials,
        one_sided=len(triangles),
        attributes=_attributes(rig, vertices, scene),
        atlas=atlas,
        image=image,
        level=_texels(rig, points, triangles),
    )
    shadow = _shadow(scene, vertices, triangles, np.nanmean(rig.marks(vertices), 0))
    shading = _shading(scene, view.direction, shadow)
    edge = _outline(scene, view, index, depth, materials)
    colour, cover, material = shade(index, edge, surface, shading)
    marks = rig.marks(view.points)
    return Layer(columns.start, rows.start, colour, cover, material, marks, view.distance)


def backdrop(scene: Scene, height: int, width: int) -> np.ndarray:
    """The background of a scene, float32 [height, width, 3] in [0, 1]."""
    picture = scene.background
    if picture.dtype == np.uint8:
        return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA) / np.float32(255)
    picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)
    for x0, y0, x1, y1, *colour in scene.clutter:
        corners = (int(x0 * width), int(y0 * height)), (int(x1 * width), int(y1 * height))
        cv2.rectangle(picture, *corners, colour, -1)
    return np.clip(picture, 0, 1)


def draw(rig: Rig, coefficients: np.ndarray, scene: Scene, height: int, width: int) -> Drawing:
    """Renders a face before its background.

    Args:
      coefficients: float [61] in canonical order; angles in radians.
      height, width: of the image in pixels.

    Raises:
      RigShapeError: coefficients or identity of another length than the rig's.
    """
    layer = render(rig, coefficients, scene, height, width)
    picture, material = flatten(backdrop(scene, height, width), [layer])
    return Drawing(develop(picture, scene.effects), material, layer.landmarks)
