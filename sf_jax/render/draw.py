"""Renders coefficients in a scene: an image, a material map and landmark positions."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from sf_jax.render.raster import rasterise, vertex_normals
from sf_jax.render.rig import MATERIALS, PAINTS, Rig, pose, rotation
from sf_jax.render.scene import Scene

BACKGROUND = 255  # in the material map
SAMPLES = 2  # per pixel and axis


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


def _project(
    rig: Rig, vertices: np.ndarray, scene: Scene, height: int, width: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixel positions [V, 2], depths [V] in cm and the direction to the camera [3].

    The camera is framed on the landmarks, as a face detector would frame a photograph; the scale
    is that of the rig's neutral face, so that identities differ in size.
    """
    middle = np.nanmean(rig.marks(vertices), 0)
    heights = rig.marks(rig.neutral)[:, 1]
    size = np.nanmax(heights) - np.nanmin(heights)
    side = min(height, width)
    distance = scene.focal * size / scene.face_share
    camera = rotation(scene.camera_yaw, -scene.camera_pitch, 0.0)
    seen = (vertices - middle) @ camera
    depths = distance - seen[:, 2]
    scale = scene.focal * side / np.maximum(depths, 1e-3)
    x = width / 2 + scene.centre[0] * side + seen[:, 0] * scale
    y = height / 2 + scene.centre[1] * side - seen[:, 1] * scale
    return np.stack([x, y], 1).astype(np.float32), depths.astype(np.float32), camera[:, 2]


def _albedo(rig: Rig, scene: Scene) -> np.ndarray:
    """Colour of each vertex, float32 [V, 3]: its own, or its material's with paint on the skin."""
    if rig.surface is not None:
        return rig.surface.colours
    base = np.array([scene.colours[name] for name in MATERIALS], np.float32)
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
        amount = rig.paint[:, i : i + 1] * scene.paint.get(name, 0.0)
        colours = colours + amount * (np.asarray(over[name], np.float32) - colours)
    return colours


def _light(
    normals: np.ndarray, scene: Scene, to_camera: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Diffuse light and specular highlight of each vertex, float32 [V] each."""
    key = np.array(scene.light, np.float32)
    key = key / np.linalg.norm(key)
    fill = np.array([-key[0], 0.1, abs(key[2])], np.float32)
    diffuse = scene.ambient + scene.key * np.maximum(normals @ key, 0)
    diffuse = diffuse + scene.fill * np.maximum(normals @ fill, 0)
    halfway = key + to_camera
    halfway = halfway / np.linalg.norm(halfway)
    return diffuse, scene.shine * np.maximum(normals @ halfway, 0) ** 24


def _backdrop(scene: Scene, height: int, width: int) -> np.ndarray:
    picture = cv2.resize(scene.background, (width, height), interpolation=cv2.INTER_CUBIC)
    for x0, y0, x1, y1, *colour in scene.clutter:
        corners = (int(x0 * width), int(y0 * height)), (int(x1 * width), int(y1 * height))
        cv2.rectangle(picture, *corners, colour, -1)
    return np.clip(picture, 0, 1)


def _toon_outline(depth: np.ndarray, material: np.ndarray) -> np.ndarray:
    """Where a neighbour is much farther away, or of another material: bool [H, W].

    A line is on the nearer side, or on that of the higher material, never on one fixed side: the
    background would hide half of the silhouette, and a mirrored face would be drawn differently.
    """
    edge = np.zeros(depth.shape, bool)
    step = 0.04 * depth.max()  # inverse depths
    for axis in (0, 1):
        upper = tuple(slice(1, None) if a == axis else slice(None) for a in (0, 1))
        lower = tuple(slice(None, -1) if a == axis else slice(None) for a in (0, 1))
        for here, there in ((upper, lower), (lower, upper)):
            edge[here] |= depth[here] - depth[there] > step
            edge[here] |= (material[here] > material[there]) & (depth[here] > 0)
    return edge


def _develop(picture: np.ndarray, scene: Scene, height: int, width: int) -> np.ndarray:
    """Converts a float image to uint8: colour, blur, noise, compression."""
    picture = (picture * np.array(scene.tint, np.float32) - 0.5) * scene.gain + 0.5 + scene.bias
    if scene.blur:
        sigma = scene.blur * min(height, width) / 96
        picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    if scene.noise:
        noise = np.random.default_rng(scene.noise_seed).normal(0, scene.noise, picture.shape)
        picture = picture + noise
    image = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    if scene.jpeg is not None:
        encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, scene.jpeg])[1]
        decoded: Any = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
        image = decoded[..., ::-1]
    return image


def draw(rig: Rig, coefficients: np.ndarray, scene: Scene, height: int, width: int) -> Drawing:
    """Renders a face.

    Args:
      coefficients: float [61] in canonical order; angles in radians.
      height, width: of the image in pixels.

    Raises:
      RigShapeError: coefficients or identity of another length than the rig's.
    """
    vertices = pose(rig, coefficients, scene.identity)
    tall, wide = height * SAMPLES, width * SAMPLES
    points, depths, to_camera = _project(rig, vertices, scene, tall, wide)
    diffuse, shine = _light(vertex_normals(vertices, rig.triangles), scene, to_camera)
    attributes = np.column_stack([_albedo(rig, scene), diffuse, shine]).astype(np.float32)
    pixels, index, depth = rasterise(points, depths, attributes, rig.triangles, tall, wide)
    drawn = index >= 0
    corner_materials = np.sort(rig.material[rig.triangles], axis=1)[:, 1]  # the majority's
    material = np.where(drawn, corner_materials[np.maximum(index, 0)], BACKGROUND).astype(np.uint8)
    light = pixels[..., 3]
    if scene.toon:
        light = np.where(light > scene.ambient + 0.35 * scene.key, 1.05, 0.75).astype(np.float32)
    colour = pixels[..., :3] * light[..., None]
    if not scene.toon:
        colour = colour + pixels[..., 4:5]
    if scene.toon:
        colour[_toon_outline(depth, material)] *= 0.25
    picture = np.where(drawn[..., None], colour, _backdrop(scene, tall, wide))
    picture = cv2.resize(
        np.clip(picture, 0, 1.2).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA
    )
    image = _develop(picture, scene, height, width)
    return Drawing(image, material[::SAMPLES, ::SAMPLES], rig.marks(points) / SAMPLES)
