"""`sf-jax bench framing`: how far answers depend on how a face is framed.

    sf-jax bench framing sets/framing            # 300 faces with room around them
    sf-jax bench framing sets/framing --model DIR --out framing.json

Each face is cut out of its image 12 times, as a person might who holds the camera: a square of 0.9
to 2.5 times the ideal side (brows to chin 0.8 of it), moved and turned by up to 30 degrees at
random with all landmarks inside, then encoded as JPEG of quality 30 to 95. The model reads each
such image as it reads any; the ideal square it reads whole. A face that is not found counts as
zeros.

Measured over the blendshapes: the mean standard deviation of a coefficient over the framings of a
face, and the mean r over faces at the ideal framing less that at the others.
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from data_pipelines import records
from sf_jax.cli import loading
from sf_jax.cli.arguments import Parser, UsageError, whole
from sf_jax.face import metrics
from sf_jax.face.channels import BLENDSHAPES, NAMES
from sf_jax.face.landmarks import Square, framing_square
from sf_jax.media import files
from sf_jax.media.crop import cut_square, to_square
from sf_jax.reader.estimator import Model
from sf_jax.render.effects import compressed
from sf_jax.systems.semanticface.evaluate import model_answers, zeros_where_missed

Image = UInt8[np.ndarray, "H W 3"]
Marks = Float[np.ndarray, "70 2"]
FRAMINGS = 12
SCALES = (0.9, 2.5)
ROLL = np.radians(30)
QUALITIES = (30, 95)
TRIES = 1000
BINS = (0.9, 1.25, 1.75, 2.5)  # of the scale, between which r is given


@dataclass(frozen=True)
class View:
    """A framing of a face: the square in its image, its side over the ideal one, JPEG's quality."""

    square: Square
    scale: float
    quality: int


def views(landmarks: Marks, number: int, count: int = FRAMINGS) -> list[View]:
    """Framings of a face at random, with all known landmarks inside; `number` seeds them.

    Args:
      landmarks: in pixels.
    """
    g = np.random.default_rng([19, number])
    ideal = framing_square(landmarks)
    known = landmarks[np.isfinite(landmarks).all(1)]
    return [_view(g, ideal, known) for _ in range(count)]


def _view(g: np.random.Generator, ideal: Square, known: Float[np.ndarray, "M 2"]) -> View:
    for _ in range(TRIES):
        scale = float(np.exp(g.uniform(*np.log(SCALES))))
        side, roll = ideal.side * scale, ideal.roll + g.uniform(-ROLL, ROLL)
        turn = to_square(0, 0, side, roll, 1)[:, :2]  # image → axes of the square, in sides
        inside = known @ turn.T
        low, high = inside.max(0) - 0.5, inside.min(0) + 0.5  # of the centre, on these axes
        if (low <= high).all():
            x, y = np.linalg.solve(turn, g.uniform(low, high))
            quality = int(g.integers(QUALITIES[0], QUALITIES[1] + 1))
            return View(Square(float(x), float(y), side, roll), scale, quality)
    raise RuntimeError("no framing holds all landmarks")  # one of 2.5 sides always does


def cut(image: Image, square: Square) -> Image:
    """A square of an image, at the image's resolution."""
    size = max(16, round(square.side))
    return cut_square(image, square.x, square.y, square.side, square.roll, size)


@dataclass(frozen=True)
class Figures:
    """What framing does to the answers.

    Attributes:
      deviation: [61] mean standard deviation of a coefficient over the framings of a face; NaN for
        the angles, which turn with the image, and where no label is known.
      r_ideal: mean r at the ideal framing; r: the mean of those of the framings.
      by_scale: mean r of framings by their scale, between neighbours of `BINS`.
      found: how many of the images had a face found; None where whole images are read.
      images: how many there are.
    """

    deviation: Float[np.ndarray, "61"]
    r_ideal: float
    r: float
    by_scale: list[float]
    found: int | None
    images: int

    @property
    def mean_deviation(self) -> float:
        """Over the blendshapes."""
        return float(np.nanmean(self.deviation))


def figures(
    values: Float[np.ndarray, "N K 61"],
    ideal: Float[np.ndarray, "N 61"],
    labels: Float[np.ndarray, "N 61"],
    known: Bool[np.ndarray, "N 61"],
    scales: Float[np.ndarray, "N K"],
    found: int | None = None,
) -> Figures:
    """The figures of answers to K framings of N faces, and to the ideal one of each."""
    known = known.copy()
    known[:, BLENDSHAPES.stop :] = False
    spread = np.where(known, values.std(1), 0.0).sum(0)
    count = known.sum(0)

    def r(predicted: np.ndarray, true: np.ndarray, of: np.ndarray) -> float:
        found = metrics.correlation(predicted, true, of)
        return float(np.nanmean(found)) if np.isfinite(found).any() else float("nan")

    framings = range(values.shape[1])
    by_scale = []
    for low, high in itertools.pairwise(BINS):
        face, framing = np.nonzero((scales >= low) & (scales <= high))
        by_scale.append(
            r(values[face, framing], labels[face], known[face]) if len(face) else float("nan")
        )
    return Figures(
        np.where(count > 0, spread / np.maximum(count, 1), np.nan),
        r(ideal, labels, known),
        float(np.mean([r(values[:, k], labels, known) for k in framings])),
        by_scale,
        found,
        values.shape[0] * values.shape[1],
    )


def usable(folder: Path, count: int) -> Iterator[dict[str, Any]]:
    """Records with labels and landmarks.

    Raises:
      RecordError: a record has none.
    """
    for number, record in enumerate(records.first(folder, count)):
        if not record["known"].any() or not np.isfinite(record["landmarks"]).all(1).any():
            problem = "has no landmarks, or no known coefficient"
            raise records.RecordError(problem, path=folder, record=number)
        yield record


def measure(model: Model, faces: Sequence[dict[str, Any]], batch: int) -> Figures:
    """Reads every framing of every face; see the module."""
    images, ideals, scales = [], [], []
    for number, face in enumerate(faces):
        image = np.ascontiguousarray(face["image"])
        landmarks = face["landmarks"] * np.array(image.shape[1::-1])
        square = framing_square(landmarks)
        ideals.append(model.framed(cut(image, square), whole=True))
        for view in views(landmarks, number):
            images.append(model.framed(compressed(cut(image, view.square), view.quality)))
            scales.append(view.scale)
    read, best = (model_answers(model, seen, batch, rationale=False) for seen in (images, ideals))
    values = zeros_where_missed([action.coefficients for action in read])
    return figures(
        values.reshape(len(faces), -1, len(NAMES)),
        zeros_where_missed([action.coefficients for action in best]),
        np.stack([face["coefficients"] for face in faces]),
        np.stack([face["known"] for face in faces]),
        np.array(scales).reshape(len(faces), -1),
        sum(action.found for action in read) if model.frames() else None,
    )


def lines(found: Figures, name: str, faces: int) -> list[str]:
    """The figures in words."""
    worst = np.argsort(np.nan_to_num(found.deviation, nan=-1.0))[::-1][:5]
    seen = "whole images are read" if found.found is None else f"found in {found.found}"
    return [
        f"{name}: {faces} faces in {FRAMINGS} framings each, {found.images} images; {seen}",
        f"  mean standard deviation over framings  {found.mean_deviation:.4f}",
        f"  mean r, ideal framing                  {found.r_ideal:.4f}",
        f"  mean r, framings                       {found.r:.4f}",
        f"  difference                             {found.r_ideal - found.r:.4f}",
        *(
            f"  r of {low:.2f} to {high:.2f} times the ideal side   {each:.4f}"
            for (low, high), each in zip(itertools.pairwise(BINS), found.by_scale, strict=True)
        ),
        "  most spread: " + ", ".join(f"{NAMES[i]} {found.deviation[i]:.3f}" for i in worst),
    ]


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="sf-jax bench framing", description=__doc__)
    add = parser.add_argument
    add("set", type=Path, help="folder of face records with landmarks and room around the faces")
    add("--model", type=Path, help="model directory (default: the built-in one)")
    add("--count", type=whole(2, 10**6), default=300, help="faces (default 300)")
    add("--batch", type=whole(1, 10**4), default=50, help="images read together (default 50)")
    add("--out", type=Path, help="a JSON file for the figures")
    return parser


def main(argv: list[str]) -> None:
    """Prints the figures of a set."""
    options = build_parser().parse_args(argv)
    if options.out is not None and options.out.exists():
        raise UsageError("exists already; name another file with --out", path=options.out)
    model = loading.load_model(options.model)
    faces = list(usable(options.set, options.count))
    found = measure(model, faces, options.batch)
    print(*lines(found, options.set.resolve().name, len(faces)), sep="\n")
    if options.out is not None:
        each = zip(NAMES[BLENDSHAPES], found.deviation[BLENDSHAPES].tolist(), strict=True)
        content = {
            "sf_jax": model.provenance.as_json(),
            "faces": len(faces),
            "framings": FRAMINGS,
            "found": found.found,
            "mean_deviation": found.mean_deviation,
            "r_ideal": found.r_ideal,
            "r": found.r,
            "by_scale": dict(zip(map(str, BINS[1:]), found.by_scale, strict=True)),
            "deviation": dict(each),
        }
        files.write_json(options.out, files.finite(content))
