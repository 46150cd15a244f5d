"""Scenes for training the finder, composed anew for every batch from stored figures.

Scenes have the resolution at which the finder searches. A few thousand figures give any number of
scenes: each is turned, scaled, mirrored, coloured and composed over another background by chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from data_pipelines.faceless import background
from data_pipelines.figure_files import FigureFiles
from data_pipelines.figures import Figure
from sf_jax.face.landmarks import MIRROR, bounding_square
from sf_jax.media.crop import between_centres
from sf_jax.media.images import read_rgba
from sf_jax.model.detector import PADDING
from sf_jax.reader.finder import POINTS, points_of
from sf_jax.render.effects import compressed
from sf_jax.train.losses.detection import DetectionBatch

MOST = 6  # faces of a scene that are labelled
FOUND, IGNORED = 1.0, -1.0


@dataclass(frozen=True)
class SceneConfig:
    """How scenes are composed; sizes are sides of faces' bounding squares in pixels.

    Attributes:
      height, width: of the canvas.
      counts: how often there are 0, 1, … faces. Scenes of one face may be filled by it.
      least, most: sizes of faces; smaller ones than `certain` are neither learnt nor counted false.
      enlarged: figures are drawn up to so many times their own size.
      filling: share of the scenes of one face in which it fills most of the image.
      photographs: share of large photographs of a face that become the background.
      roll, wide_roll: deviations of turns in radians; one in five is wide.
      objects: the most objects without faces in a scene.
      seen: share of a face's landmarks within the image from which it counts as a face; a face of
        which less than `hidden` is seen is none, and one between them is ignored.
    """

    height: int = 256
    width: int = 320
    counts: tuple[float, ...] = (0.18, 0.37, 0.19, 0.15, 0.11)
    least: float = 14.0
    certain: float = 17.0
    most: float = 300.0
    enlarged: float = 2.2
    filling: float = 0.3
    photographs: float = 0.6
    roll: float = 0.15
    wide_roll: float = 0.45
    objects: int = 4
    seen: float = 0.75
    hidden: float = 0.25


@dataclass(frozen=True)
class Materials:
    """What scenes are composed of.

    Attributes:
      figures: faces. photographs: a folder of images without faces, or None.
      objects: image files with an alpha channel and without faces, to be scattered about.
    """

    figures: FigureFiles
    photographs: Path | None
    objects: Sequence[Path] = ()


@dataclass
class _Scene:
    """A scene in the making: the image's own area of the canvas, and the faces so far."""

    picture: UInt8[np.ndarray, "H W 3"]
    faces: list[Float[np.ndarray, "70 2"]]
    kinds: list[float]


def compose(
    g: np.random.Generator, materials: Materials, config: SceneConfig
) -> tuple[UInt8[np.ndarray, "H W 3"], list[Float[np.ndarray, "70 2"]], list[float]]:
    """A canvas, the landmarks of its faces in pixels, and whether each is found or ignored."""
    height, width = _size(g, config)
    scene = _Scene(np.ascontiguousarray(_backdrop(g, materials, height, width)), [], [])
    count = int(g.choice(len(config.counts), p=config.counts))
    for _ in range(int(g.integers(config.objects + 1)) if g.random() < 0.6 else 0):
        _scatter(scene, g, materials, config)
    filling = count == 1 and g.random() < config.filling
    least, most = config.least, min(config.most, 0.9 * min(height, width))
    if filling:
        least, most = 0.45 * min(height, width), min(1.1 * min(height, width), config.most)
    sizes = np.sort(np.exp(g.uniform(np.log(least), np.log(most), count)))
    for size in sizes:
        _add(scene, g, materials, float(size), config)
    if count and g.random() < 0.15:
        _scatter(scene, g, materials, config, small=True)
    canvas = np.full((config.height, config.width, 3), PADDING, np.uint8)
    canvas[:height, :width] = developed(scene.picture, g)
    return canvas, scene.faces, scene.kinds


def _size(g: np.random.Generator, config: SceneConfig) -> tuple[int, int]:
    """Height and width of an image of a usual shape that fills the canvas in one direction."""
    shape = float(g.choice([4 / 3, 4 / 3, 4 / 3, 5 / 4, 1, 1, 16 / 9, 3 / 4, g.uniform(0.6, 2.2)]))
    height = min(config.height, config.width / shape)
    return max(32, round(height)), max(32, round(height * shape))


def _backdrop(g: np.random.Generator, materials: Materials, height: int, width: int) -> np.ndarray:
    number = int(g.integers(1 << 40))
    return background(number, "train", height, width, materials.photographs)


def _scatter(
    scene: _Scene,
    g: np.random.Generator,
    materials: Materials,
    config: SceneConfig,
    small: bool = False,
) -> None:
    """Draws an object without a face; `small` ones go over faces."""
    if not materials.objects:
        return
    pixels = _object(materials.objects[int(g.integers(len(materials.objects)))])
    height, width = scene.picture.shape[:2]
    size = float(np.exp(g.uniform(np.log(12), np.log(40 if small else 1.2 * height))))
    scale = size / max(pixels.shape[:2])
    matrix = _similarity(g, pixels.shape[1::-1], scale, 0.5, g.uniform(0, 1, 2) * [width, height])
    covered = _draw(scene.picture, pixels[..., :3], pixels[..., 3] / np.float32(255), matrix)
    _hide(scene, covered, config)


@lru_cache(600)
def _object(path: Path) -> UInt8[np.ndarray, "H W 4"]:
    return read_rgba(path)


def _similarity(
    g: np.random.Generator,
    middle: Sequence[float] | np.ndarray,
    scale: float,
    roll: float,
    to: np.ndarray,
    whole: bool = False,
) -> np.ndarray:
    """Turned by chance, stretched a little, mirrored at times: [2, 3], the middle goes to `to`."""
    angle = float(g.normal(0, roll))
    stretch = float(np.exp(g.normal(0, 0.06)))
    side = -1.0 if g.random() < 0.5 else 1.0
    cos, sin = np.cos(angle), np.sin(angle)
    turn = scale * np.array([[cos, -sin], [sin, cos]]) @ np.diag([side * stretch, 1 / stretch])
    centre = np.asarray(middle, float) * (1.0 if whole else 0.5)
    return np.column_stack([turn, np.asarray(to) - turn @ centre])


def _averaged(
    images: Sequence[np.ndarray], matrix: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray]:
    """Images of one size that an affine map shrinks, shrunk before it, since it takes single
    pixels; and the map of these."""
    shrink = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    size = images[0].shape[1::-1]
    if shrink >= 0.7:
        return [*images], matrix
    sides = tuple(max(1, round(side * shrink)) for side in size)
    smaller = [cv2.resize(image, sides, interpolation=cv2.INTER_AREA) for image in images]
    return smaller, np.column_stack([matrix[:, :2] * (np.array(size) / sides), matrix[:, 2]])


def _draw(
    picture: np.ndarray, image: np.ndarray, cover: np.ndarray, matrix: np.ndarray
) -> np.ndarray:
    """Draws a window into a picture by an affine map; returns what it covers."""
    (image, cover), matrix = _averaged([image, cover], matrix)
    covered = np.zeros(picture.shape[:2], np.float32)
    rows, columns = _reach(image, matrix, picture)
    part = picture[rows, columns]
    if not part.size:
        return covered
    size = part.shape[1::-1]
    matrix = between_centres(matrix - np.array([[0, 0, columns.start], [0, 0, rows.start]]))
    colours = cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    covered[rows, columns] = cv2.warpAffine(cover.astype(np.float32), matrix, size)
    mixed = part + covered[rows, columns, None] * (colours.astype(np.float32) - part)
    part[:] = np.clip(np.rint(mixed), 0, 255).astype(np.uint8)
    return covered


def _reach(image: np.ndarray, matrix: np.ndarray, picture: np.ndarray) -> tuple[slice, slice]:
    """The rows and columns of a picture that an image reaches by an affine map."""
    height, width = image.shape[:2]
    corners = np.array([[0, 0, 1], [width, 0, 1], [0, height, 1], [width, height, 1]])
    most = picture.shape[1::-1]
    low = np.clip(np.floor((corners @ matrix.T).min(0)) - 1, 0, most).astype(int).tolist()
    high = np.clip(np.ceil((corners @ matrix.T).max(0)) + 1, 0, most).astype(int).tolist()
    return slice(low[1], high[1]), slice(low[0], high[0])


def _add(
    scene: _Scene,
    g: np.random.Generator,
    materials: Materials,
    size: float,
    config: SceneConfig,
) -> None:
    """Adds a face of about this size, where there is room for it."""
    for _ in range(4):
        figure = materials.figures.random(g)
        square = bounding_square(figure.landmarks)
        if size <= config.enlarged * square.side:
            break
    size = min(size, config.enlarged * square.side)
    roll = config.wide_roll if g.random() < 0.2 else config.roll
    height, width = scene.picture.shape[:2]
    loose = 0.0 if g.random() < 0.8 else 0.3  # how far the face may reach beyond the image
    edge = np.minimum(size * (0.5 - loose), 0.45 * np.array([width, height]))
    at = edge + g.uniform(0, 1, 2) * (np.array([width, height]) - 2 * edge)
    matrix = _similarity(g, [square.x, square.y], size / square.side, roll, at, whole=True)
    landmarks = (figure.landmarks @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
    if matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0] < 0:
        landmarks = landmarks[MIRROR]
    new = bounding_square(landmarks)
    for other in map(bounding_square, scene.faces):
        apart = max(abs(new.x - other.x), abs(new.y - other.y))
        if apart < 0.45 * (new.side + other.side):
            return
    image, cover = tinted(figure.image, g), figure.cover
    covered = None
    window = size / square.side * figure.image.shape[0]
    large = _is_photograph(figure) and window > 0.8 * min(height, width)
    if large and not scene.faces and g.random() < config.photographs:
        _spread(scene.picture, image, matrix)
    elif figure.stands:
        image, cover = (np.concatenate([x, np.repeat(x[-1:], len(x), 0)]) for x in (image, cover))
        covered = _draw(scene.picture, image, cover, matrix)
    else:
        covered = _draw(scene.picture, image, cover, matrix)
    if covered is not None:
        _hide(scene, covered, config)
    _label(scene, landmarks, new.side, config)


def _is_photograph(figure: Figure) -> bool:
    """Whether a figure covers a rectangle, as a photograph with its own background does."""
    covered = figure.cover > 0.5
    return not figure.stands and bool(
        covered.sum() == covered.any(0).sum() * covered.any(1).sum() > 0
    )


def _spread(picture: np.ndarray, image: np.ndarray, matrix: np.ndarray) -> None:
    """A photograph becomes the whole background; beyond its edge the edge is repeated."""
    height, width = picture.shape[:2]
    (image,), matrix = _averaged([image], matrix)
    matrix = between_centres(matrix)
    picture[:] = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)


def _hide(scene: _Scene, covered: np.ndarray, config: SceneConfig) -> None:
    """Faces that something new covers in part are ignored, and those it covers are none."""
    faces, kinds = [], []
    most = np.array(covered.shape[::-1]) - 1
    for landmarks, kind in zip(scene.faces, scene.kinds, strict=True):
        known = landmarks[np.isfinite(landmarks).all(1)]
        x, y = np.clip(known.astype(int), 0, most).T
        seen = float((covered[y, x] < 0.5).mean())
        if seen >= config.hidden:
            faces.append(landmarks)
            kinds.append(kind if seen >= config.seen else IGNORED)
    scene.faces, scene.kinds = faces, kinds


def _label(scene: _Scene, landmarks: np.ndarray, side: float, config: SceneConfig) -> None:
    height, width = scene.picture.shape[:2]
    known = landmarks[np.isfinite(landmarks).all(1)]
    inside = float(((known >= 0) & (known < [width, height])).all(1).mean())
    square = bounding_square(landmarks)
    central = 0 <= square.x < width and 0 <= square.y < height
    if inside < config.hidden:
        return
    certain = inside >= config.seen and side >= config.certain and central
    scene.faces.append(landmarks)
    scene.kinds.append(FOUND if certain else IGNORED)


def tinted(image: UInt8[np.ndarray, "H W 3"], g: np.random.Generator) -> np.ndarray:
    """A figure in other light: brightness, contrast, tint, grey, exchanged colours."""
    chance = g.random()
    if chance < 0.4:
        return image
    picture: np.ndarray = image.astype(np.float32)
    if chance > 0.94:
        picture = picture[..., g.permutation(3)]
    elif chance > 0.88:
        picture = np.repeat(picture.mean(-1, keepdims=True), 3, -1)
    gain = g.normal(1, 0.08, 3) * np.exp(g.normal(-0.1, 0.3))
    picture = picture * gain.astype(np.float32) + np.float32(g.normal(0, 12))
    if g.random() < 0.4:  # light from one side
        slope = np.linspace(-1, 1, image.shape[1], dtype=np.float32) * np.float32(g.normal(0, 0.3))
        picture = picture * np.exp(slope)[None, :, None]
    return np.clip(picture, 0, 255).astype(np.uint8)


def developed(image: UInt8[np.ndarray, "H W 3"], g: np.random.Generator) -> np.ndarray:
    """The scene as it may arrive: contrast, grey, small sizes, sharpening, noise, compression."""
    picture: np.ndarray = image.astype(np.float32)
    if g.random() < 0.6:
        gain = g.normal(1, 0.04, 3) * np.exp(g.normal(0, 0.2))
        picture = (picture - 128) * gain.astype(np.float32) + np.float32(128 + g.normal(0, 18))
    if g.random() < 0.12:
        picture = np.repeat(picture.mean(-1, keepdims=True), 3, -1)
    height, width = image.shape[:2]
    if g.random() < 0.2:
        shrink = float(g.uniform(0.35, 0.9))
        small = (max(8, round(width * shrink)), max(8, round(height * shrink)))
        picture = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
    if g.random() < 0.15:
        picture += 0.8 * (picture - cv2.GaussianBlur(picture, (0, 0), 1.2))
    if g.random() < 0.25:
        picture += g.standard_normal(picture.shape, np.float32) * np.float32(g.uniform(1, 14))
    out = np.clip(picture, 0, 255).astype(np.uint8)
    if g.random() < 0.4:
        return compressed(out, int(g.integers(25, 95)))
    return out


def batch(
    step: int, rows: int, seed: int, materials: Materials, config: SceneConfig
) -> DetectionBatch:
    """The batch of a step, the same whenever it is asked for."""
    images = np.zeros((rows, config.height, config.width, 3), np.uint8)
    boxes = np.zeros((rows, MOST, 3), np.float32)
    points = np.full((rows, MOST, len(POINTS), 2), np.nan, np.float32)
    kinds = np.zeros((rows, MOST), np.float32)
    for row in range(rows):
        g = np.random.default_rng([21, seed, step, row])
        images[row], faces, found = compose(g, materials, config)
        for i, (landmarks, kind) in enumerate(zip(faces, found, strict=True)):
            square = bounding_square(landmarks)
            boxes[row, i] = square.x, square.y, square.side
            points[row, i] = points_of(landmarks)
            kinds[row, i] = kind
    return DetectionBatch(images, boxes, points, kinds)  # type: ignore[arg-type]
