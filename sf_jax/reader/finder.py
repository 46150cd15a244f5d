"""Finding faces in an image, by a small convolutional network (`model/detector.py`).

An image is fitted into one of two canvases, one wide and one tall, so that two compiled programs
serve all sizes. Without a trained network, scikit-image's cascade finds the largest frontal face.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8
from pydantic import Field
from safetensors.numpy import save_file

from sf_jax.convert.tensor_files import CheckpointError
from sf_jax.face.landmarks import (
    COUNT,
    LEFT_EYE,
    MOUTH_LEFT,
    MOUTH_RIGHT,
    NOSE_TIP,
    PUPILS,
    RIGHT_EYE,
    Square,
    overlap,
)
from sf_jax.media import files, safetensors_files, small_files
from sf_jax.media.crop import LOWER, Box
from sf_jax.model import declared, detector
from sf_jax.model.detector import PADDING, STRIDE, TYPICAL_SIDE, DetectorConfig, DetectorWeights

FILE = "finder.safetensors"  # in a model directory
OWN = Path(__file__).parents[1] / "builtin" / "semanticface" / FILE
WIDE = (256, 320)  # height and width of the canvas of images that are at least as wide as high
MOST_ENLARGED = 4.0
POINTS = (PUPILS.start, PUPILS.start + 1, NOSE_TIP, MOUTH_RIGHT, MOUTH_LEFT)
MOST_FOUND = 100
SHARED = 0.4  # intersection over union from which two boxes are of one face
NEAR = 0.3  # distance of centres, in sides of the larger box, below which they are too

SEARCH_SIDE = 320  # the cascade searches images of this size
LEAST_SIDE = 24  # of a face, in pixels there; the size the cascade was trained at


@dataclass(frozen=True)
class Found:
    """A face in an image.

    Attributes:
      box: in pixels, about the bounding square of its landmarks (`landmarks.bounding_square`); its
        roll is the head's where that is known, else 0.
      score: from 0 to 1, the estimated probability that it is a face.
      landmarks: of `face.landmarks`, in pixels, NaN where not known; None if none are.
    """

    box: Square
    score: float
    landmarks: Float[np.ndarray, "70 2"] | None = None


class FinderConfig(small_files.Settings):
    """Settings in the metadata of a finder's file.

    Attributes:
      widths, depths, neck, head, points: see `DetectorConfig`.
      slope, offset: a score is the logistic function of `slope` × logit + `offset`.
      threshold: the score from which something is a face.
    """

    widths: tuple[int, int, int, int] = Field(strict=False)
    depths: tuple[int, int, int, int] = Field(strict=False)
    neck: int = Field(gt=0, le=1024)
    head: int = Field(gt=0, le=1024)
    points: int = Field(ge=len(POINTS), le=len(POINTS))
    slope: float = Field(1.0, gt=0)
    offset: float = 0.0
    threshold: float = Field(0.5, ge=0, le=1)

    @property
    def detector(self) -> DetectorConfig:
        return DetectorConfig(self.widths, self.depths, self.neck, self.head, self.points)


@dataclass(frozen=True, eq=False)
class Finder:
    """A trained finder; call it with an image uint8 [H, W, 3] for the faces in it."""

    weights: DetectorWeights
    config: FinderConfig

    def __call__(self, image: UInt8[np.ndarray, "H W 3"]) -> list[Found]:
        """The faces, the highest score first; an empty list if there are none."""
        return self.candidates(image, self.config.threshold)

    def candidates(self, image: UInt8[np.ndarray, "H W 3"], least: float) -> list[Found]:
        """What scores at least `least`, however low the score for a face is."""
        canvas, scale = fitted(image)
        out = jax.device_get(_run(self.weights, canvas[None], self.config.detector))
        logits = self.config.slope * out.score[0] + self.config.offset
        scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
        height, width = (side * scale for side in image.shape[:2])
        rows, columns = _peaks(scores, least)
        inside = ((columns + 0.5) * STRIDE < width + 1) & ((rows + 0.5) * STRIDE < height + 1)
        rows, columns = rows[inside], columns[inside]
        cells = np.stack([columns + 0.5, rows + 0.5], -1) * STRIDE
        sides = np.exp(np.clip(out.side[0][rows, columns], -6, 4)) * TYPICAL_SIDE
        points = cells[:, None] + out.points[0][rows, columns] * sides[:, None, None]
        found = [
            _found(one / scale, float(side / scale), float(score))
            for one, side, score in zip(points, sides, scores[rows, columns], strict=True)
        ]
        return without_duplicates(found)


def find(image: UInt8[np.ndarray, "H W 3"]) -> list[Found]:
    """The faces in an image, the highest score first; an empty list if there are none.

    Uses the built-in model's finder.
    """
    return own()(image)


@cache
def own() -> Callable[[np.ndarray], list[Found]]:
    """The built-in model's finder, or the cascade where the package has none."""
    return load(OWN) if OWN.exists() else cascade


def fitted(image: UInt8[np.ndarray, "H W 3"]) -> tuple[UInt8[np.ndarray, "h w 3"], float]:
    """The image in the top left corner of a canvas, and its scale there."""
    height, width = image.shape[:2]
    tall, wide = WIDE if width >= height else WIDE[::-1]
    scale = min(tall / height, wide / width, MOST_ENLARGED)
    size = max(1, min(wide, round(width * scale))), max(1, min(tall, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas = np.full((tall, wide, 3), PADDING, np.uint8)
    canvas[: size[1], : size[0]] = cv2.resize(image, size, interpolation=how)
    return canvas, scale


@partial(jax.jit, static_argnums=2)
def _run(
    weights: DetectorWeights, images: jax.Array, config: DetectorConfig
) -> detector.Detections:
    return detector.forward(weights, images, config)


def _peaks(scores: Float[np.ndarray, "H W"], least: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the highest cells among their neighbours, the highest first."""
    highest = cv2.dilate(scores, np.ones((3, 3), np.uint8))
    rows, columns = np.nonzero((scores >= least) & (scores >= highest))
    order = np.argsort(-scores[rows, columns], kind="stable")[:MOST_FOUND]
    return rows[order], columns[order]


def _found(points: Float[np.ndarray, "P 2"], side: float, score: float) -> Found:
    """A face from its centre and `POINTS`, in pixels of the image."""
    (x, y), rest = points[0].tolist(), points[1:]
    landmarks = np.full((COUNT, 2), np.nan, np.float32)
    landmarks[list(POINTS)] = rest
    across = rest[1] - rest[0]  # from the subject's right eye to the left
    roll = float(np.arctan2(-across[1], across[0])) if across.any() else 0.0
    return Found(Square(x, y, side, roll), score, landmarks)


def points_of(landmarks: Float[np.ndarray, "70 2"]) -> Float[np.ndarray, "P 2"]:
    """The `POINTS` of landmarks; an unknown pupil is the middle of its eyelids."""
    points: np.ndarray = landmarks[list(POINTS)].copy()
    for i, eye in enumerate((RIGHT_EYE, LEFT_EYE)):
        if not np.isfinite(points[i]).all():
            points[i] = landmarks[eye].mean(0)
    return points


def without_duplicates(found: list[Found]) -> list[Found]:
    """Those of which no one with a higher score is the same face; `found` is in order of score."""
    kept: list[Found] = []
    for each in found:
        if not any(_same(each.box, other.box) for other in kept):
            kept.append(each)
    return kept


def _same(one: Square, other: Square) -> bool:
    apart = float(np.hypot(one.x - other.x, one.y - other.y))
    return overlap(one, other) > SHARED or apart < NEAR * max(one.side, other.side)


def save(
    path: Path, weights: DetectorWeights, config: FinderConfig, notes: dict[str, str] | None = None
) -> None:
    """Writes a finder in half precision, complete or not at all.

    Args:
      notes: further metadata, such as what it was trained on.
    """
    tree = detector.declare(config.detector)
    tensors: dict[str, np.ndarray] = {}

    def add(weight: declared.Weight, value: jax.Array) -> None:
        tensors[weight.name] = np.asarray(value, np.float16)

    declared.map_declared(add, tree, weights)
    metadata = {"config": json.dumps(config.model_dump()), **(notes or {})}
    with files.replacing(path) as file:
        save_file(tensors, file, metadata)


def load(path: Path) -> Finder:
    """Reads what `save` wrote, as float32.

    Raises:
      CheckpointError: the file cannot be read, or its settings or a tensor are not as expected.
    """
    opened = safetensors_files.open_tensors(path, CheckpointError)
    text = (opened.metadata() or {}).get("config")
    if text is None:
        raise CheckpointError("the metadata has no config", path=path, field="config")
    try:
        stored = small_files.parse_json(text, CheckpointError)
        config = small_files.checked(FinderConfig, stored, CheckpointError)
    except CheckpointError as error:
        raise error.at(path=path) from None
    tensors = safetensors_files.read_tensors(path, CheckpointError)

    def read(weight: declared.Weight) -> jax.Array:
        value = tensors.get(weight.name)
        if value is None:
            raise CheckpointError(
                f"tensor {weight.name!r} is missing", path=path, field=weight.name
            )
        if value.shape != weight.shape:
            problem = f"tensor {weight.name!r} is {value.shape}, expected {weight.shape}"
            raise CheckpointError(problem, path=path, field=weight.name)
        return jnp.asarray(value, jnp.float32)

    return Finder(declared.map_declared(read, detector.declare(config.detector)), config)


def settings(config: DetectorConfig) -> FinderConfig:
    """The settings of a finder whose scores are not calibrated yet."""
    return FinderConfig(**asdict(config))


def calibrated(finder: Finder, slope: float, offset: float, threshold: float) -> Finder:
    """The finder with other scores for the same logits."""
    changed = finder.config.model_copy(
        update={"slope": slope, "offset": offset, "threshold": threshold}
    )
    return replace(finder, config=changed)


def cascade(image: UInt8[np.ndarray, "H W 3"]) -> list[Found]:
    """The largest frontal face that scikit-image's cascade finds, if any."""
    box = face_box(image)
    if box is None:
        return []
    row, column, height, width = box
    side = float(max(height, width))
    centre = column + width / 2, row + height / 2 + LOWER * height
    return [Found(Square(*centre, side), 1.0)]


if TYPE_CHECKING:
    from skimage.feature import Cascade


@cache
def _cascade() -> "Cascade":
    from skimage import data  # slow to import, and needed for --crop alone
    from skimage.feature import Cascade

    return Cascade(data.lbp_frontal_face_cascade_filename())


def face_box(image: np.ndarray) -> Box | None:
    """The largest frontal face of uint8 [H, W, 3] as (row, column, height, width), or None.

    Uses the local-binary-pattern cascade that comes with scikit-image: brows to chin, no hair.
    """
    shrink = min(1.0, SEARCH_SIDE / max(image.shape[:2]))
    size = [max(1, round(side * shrink)) for side in image.shape[:2]]
    if min(size) < LEAST_SIDE:
        return None
    small = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    found = _cascade().detect_multi_scale(
        img=small,
        scale_factor=1.15,
        step_ratio=1,
        min_size=(LEAST_SIDE, LEAST_SIDE),
        max_size=(min(size), min(size)),
    )
    if not found:
        return None
    best = max(found, key=lambda box: box["width"] * box["height"])
    row, column, height, width = (best[name] / shrink for name in ("r", "c", "height", "width"))
    return round(row), round(column), round(height), round(width)
