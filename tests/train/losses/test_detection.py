"""The objective of detectors: what raises it, what is ignored, and how objects are weighed."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sf_jax.model.detector import STRIDE, TYPICAL_SIDE, Detections
from sf_jax.train.losses.detection import DetectionBatch, DetectionConfig, detection_loss

ROWS, COLUMNS, POINTS = 12, 16, 2
CONFIG = DetectionConfig()


def batch(boxes: list[tuple[float, float, float]], kinds: list[float]) -> DetectionBatch:
    """One image; the two points of each object are at a quarter of the side from its centre."""
    box = np.array([boxes], np.float32)
    points = box[:, :, None, :2] + box[:, :, None, 2:] * np.array([[-0.25, -0.1], [0.25, -0.1]])
    images = np.zeros((1, ROWS * STRIDE, COLUMNS * STRIDE, 3), np.uint8)
    return DetectionBatch(images, box, points.astype(np.float32), np.array([kinds], np.float32))  # type: ignore[arg-type]


def perfect(wanted: DetectionBatch) -> Detections:
    """What a perfect detector answers; the cell of each object has a high score."""
    y, x = np.meshgrid(np.arange(ROWS), np.arange(COLUMNS), indexing="ij")
    cells = (np.stack([x, y], -1) + 0.5) * STRIDE
    score = np.full((1, ROWS, COLUMNS), -12.0, np.float32)
    side = np.zeros((1, ROWS, COLUMNS), np.float32)
    points = np.zeros((1, ROWS, COLUMNS, 1 + POINTS, 2), np.float32)
    boxes = np.asarray(wanted.boxes[0])[np.asarray(wanted.kinds[0]) > 0]
    rest = np.asarray(wanted.points[0])[np.asarray(wanted.kinds[0]) > 0]
    away = np.square(cells[:, :, None] - boxes[:, :2]).sum(-1)
    nearest = away.argmin(-1) if len(boxes) else away.sum(-1)
    for i, (box, own) in enumerate(zip(boxes, rest, strict=True)):
        mine = nearest == i
        column, row = (box[:2] // STRIDE).astype(int)
        score[0, row, column] = 12.0
        side[0][mine] = np.log(box[2] / TYPICAL_SIDE)
        all_points = np.concatenate([box[None, :2], own])
        points[0][mine] = ((all_points - cells[:, :, None]) / box[2])[mine]
    points = np.nan_to_num(points)
    return Detections(jnp.asarray(score), jnp.asarray(side), jnp.asarray(points))


@jax.jit
def objective(found: Detections, wanted: DetectionBatch) -> tuple[jax.Array, dict]:
    return detection_loss(found, wanted, CONFIG)


def loss(found: Detections, wanted: DetectionBatch) -> float:
    total, parts = objective(found, wanted)
    return float(total / parts["weight"])


TWO = batch([(30.0, 40.0, 30.0), (90.0, 50.0, 44.0)], [1.0, 1.0])


def test_a_perfect_answer_costs_almost_nothing() -> None:
    assert loss(perfect(TWO), TWO) < 0.02


@pytest.mark.parametrize("change", ["missed", "false", "side", "centre", "points", "exchanged"])
def test_each_error_costs(change: str) -> None:
    found = perfect(TWO)
    score, side, points = (np.array(x) for x in (found.score, found.side, found.points))
    if change == "missed":
        score[0, 5, 3] = -5.0
    elif change == "false":
        score[0, 10, 1] = 5.0
    elif change == "side":
        side += 0.3
    elif change == "centre":
        points[..., 0, 1] += 0.2
    elif change == "points":
        points[..., 1, 0] += 0.2
    else:
        points = points[..., ::-1]
    assert loss(Detections(score, side, points), TWO) > loss(found, TWO) + 0.1  # type: ignore[arg-type]


def test_what_may_be_found_or_not_costs_nothing_either_way() -> None:
    wanted = replace(TWO, kinds=np.array([[1.0, -1.0]], np.float32))  # type: ignore[arg-type]
    found = perfect(wanted)
    score = np.array(found.score)
    score[0, 6, 11] = 6.0
    other = Detections(jnp.asarray(score), found.side + 0.0, found.points)
    assert loss(other, wanted) == pytest.approx(loss(found, wanted), abs=1e-4)
    score[0, 1, 1] = 6.0  # far from it
    far = Detections(jnp.asarray(score), found.side, found.points)
    assert loss(far, wanted) > loss(other, wanted) + 1


def test_padding_and_unknown_points_have_no_loss_and_finite_gradients() -> None:
    points = np.array(TWO.points)
    points[0, 0, 1] = np.nan
    wanted = replace(TWO, points=points, kinds=np.array([[1.0, 0.0]], np.float32))  # type: ignore[arg-type]
    found = perfect(wanted)
    moved = np.array(found.points)
    moved[0, :, :, 2] += 9.0  # the point that is not known
    other = Detections(found.score, found.side, jnp.asarray(moved))
    assert loss(other, wanted) == pytest.approx(loss(found, wanted))
    gradient = jax.grad(lambda x: objective(x, wanted)[0])(other)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))


def test_a_large_object_counts_as_much_as_a_small_one() -> None:
    small, large = (batch([(64.0, 48.0, side)], [1.0]) for side in (20.0, 90.0))

    def cost(wanted: DetectionBatch) -> float:
        found = perfect(wanted)
        _, parts = objective(Detections(found.score, found.side + 0.3, found.points), wanted)
        return float(parts["side"])

    assert cost(small) == pytest.approx(cost(large), rel=1e-3)


def test_images_without_objects_count_as_one() -> None:
    empty = replace(TWO, kinds=np.zeros((1, 2), np.float32))  # type: ignore[arg-type]
    _, parts = objective(perfect(empty), empty)
    assert float(parts["weight"]) == 1.0 and float(parts["side"]) == 0.0
