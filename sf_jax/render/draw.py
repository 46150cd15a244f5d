"""Renders coefficients in a scene: an image, a material map and landmark positions."""

from dataclasses import dataclass

import cv2
import numpy as np

from sf_jax.render import occlusion
from sf_jax.render.backdrops import procedural
from sf_jax.render.bodies import Body, body
from sf_jax.render.effects import develop
from sf_jax.render.layers import Layer, flatten
from sf_jax.render.looks import hair_noise, skin_noise
from sf_jax.render.raster import Cutouts, extent, rasterise, vertex_normals
from sf_jax.render.rig import MATERIALS, Rig, pose, rotation
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
from sf_jax.render.textures import LEVELS

__all__ = ["BACKGROUND", "Drawing", "draw", "render"]

SHADOW_SIDE, SHADOW_REACH = 192, 17.0  # samples, cm about the face
DARKEST, BRIGHTEST = 0.72, 1.25  # light on a face, to which the exposure is set
DEEP = 1.2  # cm from one surface to the next that an outline separates
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


def _project(
    vertices: np.ndarray,
    marks: np.ndarray,
    size: float,
    scene: Scene,
    height: int,
    width: int,
) -> _View:
    """The camera is framed on the landmarks, as a face detector would frame a photograph.

    Args:
      marks: [70, 3], landmarks in the world; size: of the rig's neutral face, cm, so that
        identities differ in size.
    """
    middle = np.nanmean(marks, 0)
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


def _shadow(scene: Scene, body: Body, middle: np.ndarray) -> Shadow:
    """What the first light sees of a head."""
    if not scene.look.shadow:
        return NO_SHADOW
    direction = np.array(scene.light) / np.linalg.norm(scene.light)
    transform = occlusion.along(direction, middle, SHADOW_REACH, SHADOW_SIDE)
    depth, _ = occlusion.depth_map(body.vertices, body.triangles, transform, SHADOW_SIDE, 0)
    return Shadow(depth, transform, np.float32(scene.look.shadow))


def _exposure(ambient: float, lights: list[np.ndarray], colours: list[np.ndarray]) -> float:
    """Factor of all light, as of a camera that sees a face turned towards it."""
    reaching = [0.12 + 0.88 * max(float(light[2]), 0.0) for light in lights]
    seen = ambient + sum(
        share * float(colour.mean()) for share, colour in zip(reaching, colours, strict=True)
    )
    return float(np.clip(seen, DARKEST, BRIGHTEST)) / max(seen, 1e-6)


def _shading(scene: Scene, painted: bool, view: np.ndarray, shadow: Shadow) -> Shading:
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
    exposure = _exposure(scene.ambient, lights, colours)
    if painted:  # dark skin is exposed longer
        brightness = max(float(np.mean(scene.colours["skin"])), 0.05)
        exposure *= float(np.clip((0.5 / brightness) ** 0.3, 0.95, 1.3))

    def row(*values: float) -> np.ndarray:
        return np.array(values, np.float32)

    return Shading(
        lights=np.array(lights, np.float32),
        colours=np.array(colours, np.float32) * np.float32(exposure),
        above=row(*scene.sky) * np.float32(exposure * scene.ambient),
        below=row(*scene.ground) * np.float32(exposure * scene.ambient),
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
        strands=hair_noise(),
        outline=row(*look.ink),
        shadow=shadow,
    )


def _attributes(body: Body) -> np.ndarray:
    """The vertices' attributes, float32 [V, COLUMNS], for `shading`."""
    out = np.empty((len(body.vertices), COLUMNS), np.float32)
    out[:, NORMAL : NORMAL + 3] = vertex_normals(body.vertices, body.triangles)
    out[:, ALBEDO : ALBEDO + 3] = body.colours
    out[:, UV : UV + 2] = body.uv
    out[:, OCCLUSION] = body.occlusion
    out[:, NOISE] = body.noise
    out[:, REST : REST + 3] = body.rest
    out[:, WORLD : WORLD + 3] = body.vertices
    return out


def _levels(body: Body, images: tuple[np.ndarray, ...], points: np.ndarray) -> np.ndarray:
    """Mipmap level of each texture, int64 [images], for samples at `points`."""

    def area(at: np.ndarray, corners: np.ndarray) -> float:
        a, b, c = (at[corners[:, i]].astype(np.float64) for i in range(3))
        u, v = b - a, c - a
        return float(np.abs(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]).sum())

    levels = np.zeros(len(images), np.int64)
    for i, image in enumerate(images):
        corners = body.triangles[body.image == i]
        if len(corners):
            texels = area(body.uv, corners) * image.shape[0] * image.shape[1]
            size = np.sqrt(max(texels, 1.0) / max(area(points, corners), 1e-6))
            levels[i] = int(np.clip(np.round(np.log2(max(size, 1.0))), 0, LEVELS - 1))
    return levels


def _window(points: np.ndarray, depths: np.ndarray, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of the pixels that the vertices may cover, one at least."""
    low, high = extent(points, depths)
    if high[0] < low[0]:
        return slice(0, 1), slice(0, 1)
    size = np.array([width, height])
    low = np.clip(np.floor(low) - 1, 0, size - 1).astype(int)
    high = np.clip(np.ceil(high) + 1, low + 1, size).astype(int)
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
    whole = body(rig, vertices, coefficients, scene)
    marks = rig.marks(vertices)
    view = _project(whole.vertices, marks, rig.height(), scene, height, width)
    rows, columns = _window(view.points, view.depths, height, width)
    points = (view.points - np.array([columns.start, rows.start], np.float32)) * SAMPLES
    tall, wide = (rows.stop - rows.start) * SAMPLES, (columns.stop - columns.start) * SAMPLES
    cutouts = Cutouts(whole.uv, whole.atlas, whole.image, whole.samples)
    index, depth = rasterise(
        points, view.depths, whole.triangles, tall, wide, whole.one_sided, cutouts
    )
    surface = Surface(
        points=points,
        triangles=whole.triangles,
        materials=triangle_materials(whole.material, whole.triangles),
        one_sided=whole.one_sided,
        attributes=_attributes(whole),
        atlas=whole.atlas,
        image=whole.image,
        level=_levels(whole, () if rig.surface is None else rig.surface.images, points),
    )
    shadow = _shadow(scene, whole, np.nanmean(marks, 0))
    shading = _shading(scene, rig.surface is None, view.direction, shadow)
    edge = _outline(scene, view, index, depth, surface.materials)
    colour, cover, material = shade(index, edge, surface, shading)
    seen = rig.marks(view.points[: len(vertices)])
    return Layer(columns.start, rows.start, colour, cover, material, seen, view.distance)


def backdrop(scene: Scene, height: int, width: int) -> np.ndarray:
    """The background of a scene, float32 [height, width, 3] in [0, 1]."""
    picture = scene.background
    if not isinstance(picture, np.ndarray):
        picture = procedural(np.random.default_rng([6, picture]), height, width)
    if picture.dtype == np.uint8:
        if picture.shape[:2] != (height, width):
            picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        return picture.astype(np.float32) * np.float32(1 / 255)
    picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(picture.astype(np.float32), 0, 1)


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
