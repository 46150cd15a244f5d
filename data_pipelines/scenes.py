"""Composed scenes: several heads of all looks over clutter, labelled for what finds faces."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from data_pipelines import records
from data_pipelines.faceless import background
from data_pipelines.figures import LARGEST, Figure, paste, resized
from data_pipelines.held_out import Split
from data_pipelines.records import RecordError
from data_pipelines.sources import Mixture, number_of
from sf_jax.face.landmarks import COUNT, Square, bounding_square
from sf_jax.render.effects import compressed

SIZES = ((480, 640), (480, 640), (480, 640), (640, 480), (360, 640), (512, 512), (240, 320))
SMALLEST, LARGEST_FACE = 40, 400  # sides of a face's bounding square in pixels
FACES = (0.1, 0.36, 0.24, 0.18, 0.12)  # how often there are 0 to 4 faces
CROWDING = 0.4  # by how much each further face makes the largest smaller
TRIES = 16  # positions that are tried for a face before it is left out
HIDDEN = 0.15  # share of a face's landmarks that later figures may hide
MOST_FACES = 1000  # of a record; more is damage


@dataclass(frozen=True)
class SceneFace:
    """A labelled face.

    Attributes:
      landmarks: in pixels, NaN where not known.
      square: the bounding square of the landmarks, upright, in pixels.
      source, style, identity: as in face records.
    """

    landmarks: Float[np.ndarray, "70 2"]
    square: Square
    source: str
    style: str
    identity: int


@dataclass(frozen=True)
class SceneRecord:
    """An image with all of its faces; `number` is what it was drawn from."""

    image: UInt8[np.ndarray, "H W 3"]
    faces: tuple[SceneFace, ...]
    number: int


def encode(scene: SceneRecord, exact: bool = False) -> bytes:
    """Packs a scene; see `records.encode` about `exact`."""
    faces = [
        {
            "landmarks": face.landmarks.astype(np.float32),
            "source": face.source,
            "style": face.style,
            "identity": face.identity,
        }
        for face in scene.faces
    ]
    image = records.encode_image(scene.image, exact)
    return records.packed({"image": image, "faces": faces, "seed": scene.number})


def decode(data: bytes) -> SceneRecord:
    """Unpacks a scene.

    Raises:
      RecordError: it is damaged or no scene; names the field.
    """
    record = records.unpacked(data, ("image", "faces", "seed"))
    faces = record["faces"]
    if not isinstance(faces, list) or len(faces) > MOST_FACES:
        raise RecordError("field 'faces' is not a list", field="faces")
    image = records.decode_image(record["image"])
    return SceneRecord(image, tuple(map(_face, faces)), int(record["seed"]))


def _face(stored: Any) -> SceneFace:
    landmarks = stored.get("landmarks") if isinstance(stored, dict) else None
    if not isinstance(landmarks, np.ndarray) or landmarks.shape != (COUNT, 2):
        raise RecordError("field 'faces' lacks 70 landmarks", field="faces")
    if landmarks.dtype != np.float32 or not np.isfinite(landmarks).all(1).any():
        raise RecordError("field 'faces' has a face without landmarks", field="faces")
    source, style = (records.text(stored, name) for name in ("source", "style"))
    identity = int(stored.get("identity", -1))
    return SceneFace(landmarks, bounding_square(landmarks), source, style, identity)


def read(path: str | Path) -> Iterator[SceneRecord]:
    """The scenes of a file, in order.

    Raises:
      RecordError: the file or a record is damaged; the message names file and record.
    """
    return records.read_as(path, decode)


@dataclass(frozen=True)
class Scenes:
    """Makes scenes; a `rendering.Maker`.

    Attributes:
      mixture: of the heads, whose seed is that of the scenes.
      backgrounds: folder of photographs without faces, or None.
      size: height and width; None for several.
      least, most: sides of a face's bounding square in pixels.
      empty: whether some scenes have no face.
    """

    mixture: Mixture
    backgrounds: Path | None = None
    size: tuple[int, int] | None = None
    least: int = SMALLEST
    most: int = LARGEST_FACE
    empty: bool = True

    @property
    def seed(self) -> int:
        return self.mixture.seed

    def check(self, split: Split) -> None:
        """Loads what is needed.

        Raises:
          DataError: a file is missing or damaged.
        """
        self.mixture.check(split)

    def settings(self) -> dict[str, Any]:
        return self.mixture.settings() | {
            "scenes": [self.size, self.least, self.most, self.empty],
            "backgrounds": None if self.backgrounds is None else self.backgrounds.name,
        }

    def packed(self, index: int, split: Split) -> bytes:
        """Scene `index` of a split as it is stored."""
        return encode(self.scene(index, split))

    def scene(self, index: int, split: Split) -> SceneRecord:
        """Scene `index` of a split.

        Raises:
          ValueError: there is no such split or index.
        """
        number = number_of(index, self.seed, split)
        g = np.random.default_rng([11, number])
        height, width = self.size or SIZES[int(g.integers(len(SIZES)))]
        canvas = np.ascontiguousarray(background(number, split, height, width, self.backgrounds))
        shares = np.array(FACES) * (np.arange(len(FACES)) > 0 if not self.empty else 1)
        count = int(g.choice(len(FACES), p=shares / shares.sum()))
        # Several large faces would find no room, and be left out.
        most = min(self.most, 0.85 * min(height, width)) / (1 + CROWDING * max(count - 1, 0))
        most = max(most, self.least)
        sizes = np.sort(np.exp(g.uniform(np.log(self.least), np.log(most), count)))
        faces: list[SceneFace] = []
        for i, size in enumerate(sizes):  # the nearer heads are the larger ones, drawn later
            figure = self._figure(number, i, split, float(size))
            placed = place(canvas, figure, faces, g)
            if placed is not None:
                canvas, face = placed
                faces.append(face)
        return SceneRecord(photographed(canvas, g), tuple(faces), number)

    def _figure(self, number: int, which: int, split: Split, size: float) -> Figure:
        """Head `which` of a scene, its face's bounding square `size` pixels wide."""
        own = number * len(FACES) + which
        source = self.mixture.source_of(own)
        side = min(LARGEST, round(size / 0.45))
        return resized(source.figure(own, split, side), size)


def place(
    canvas: UInt8[np.ndarray, "H W 3"],
    figure: Figure,
    faces: list[SceneFace],
    g: np.random.Generator,
) -> tuple[UInt8[np.ndarray, "H W 3"], SceneFace] | None:
    """The image with a figure at a chance position, and its label; None where there is no room.

    The whole bounding square is within the image, and other faces stay visible.
    """
    height, width = canvas.shape[:2]
    square = bounding_square(figure.landmarks)
    corner = np.array([square.x, square.y]) - square.side / 2
    for _ in range(TRIES):
        room = np.array([width, height]) - square.side
        if room.min() < 0:
            return None
        shift = np.rint(g.uniform(0, 1, 2) * room - corner).astype(int)
        face = _labelled(figure, figure.landmarks + shift.astype(np.float32))
        if any(_overlap(face.square, other.square) > 0.1 for other in faces):
            continue
        drawn = canvas.copy()
        cover = paste(drawn, figure, *shift.tolist())
        if all(_hidden(other.landmarks, cover) <= HIDDEN for other in faces):
            return drawn, face
    return None


def _labelled(figure: Figure, landmarks: np.ndarray) -> SceneFace:
    square = bounding_square(landmarks)
    return SceneFace(landmarks, square, figure.source, figure.style, figure.identity)


def _overlap(one: Square, other: Square) -> float:
    """The area that two upright squares share over that of the smaller one."""
    reach = (one.side + other.side) / 2
    wide = min(reach - abs(one.x - other.x), one.side, other.side)
    tall = min(reach - abs(one.y - other.y), one.side, other.side)
    return max(wide, 0) * max(tall, 0) / min(one.side, other.side) ** 2


def _hidden(landmarks: Float[np.ndarray, "70 2"], cover: Float[np.ndarray, "H W"]) -> float:
    """The share of the known landmarks that are covered."""
    known = landmarks[np.isfinite(landmarks).all(1)]
    most = np.array(cover.shape[::-1]) - 1
    x, y = np.clip(known.astype(int), 0, most).T
    return float((cover[y, x] > 0.5).mean())


def photographed(image: UInt8[np.ndarray, "H W 3"], g: np.random.Generator) -> np.ndarray:
    """The image as a camera may show it: contrast, tint, blur, noise, compression."""
    picture: np.ndarray = image.astype(np.float32)
    if g.random() < 0.7:
        tint = g.normal(1, 0.05, 3).astype(np.float32) * np.float32(g.uniform(0.75, 1.2))
        picture = (picture - 128) * tint + np.float32(128 + g.uniform(-25, 25))
    if g.random() < 0.08:
        picture = np.repeat(picture.mean(-1, keepdims=True), 3, -1)
    if g.random() < 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), float(g.uniform(0.4, 1.4)))
    if g.random() < 0.3:
        noise = g.standard_normal(picture.shape, np.float32)
        picture += noise * np.float32(g.uniform(1, 10))
    image = np.clip(picture, 0, 255).astype(np.uint8)
    if g.random() < 0.5:
        return compressed(image, int(g.integers(30, 96)))
    return image
