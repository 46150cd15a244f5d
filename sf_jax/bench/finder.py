"""`sf-jax bench finder`: what the finder of faces finds on sets with known faces, and its time.

Sets are folders of scene records (`sf-jax data scenes`, `sf-jax data sets`) or of face records with
landmarks, of which the bounding square of the landmarks is the face. A face is found where the two
squares' intersection over union is 0.5 or more.

    sf-jax bench finder sets/scenes sets/faceless sets/portraits
    sf-jax bench finder sets/scenes --model runs/finder/model --out roc.json
"""

import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from data_pipelines import records, scenes
from sf_jax.cli.arguments import Parser, whole
from sf_jax.face.landmarks import Square, bounding_square
from sf_jax.media import files
from sf_jax.media.images import read_image
from sf_jax.reader import finder
from sf_jax.reader.finder import Finder
from sf_jax.systems.semanticface.finder_scores import Matches, matches

THRESHOLDS = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
SIZES = (0, 60, 100, 200, 10_000)  # sides of faces in pixels, between which recall is given
TIMED = 60  # images


def labelled(folder: Path) -> Iterator[tuple[np.ndarray, Sequence[Square]]]:
    """The images of a set with the squares of their faces.

    Raises:
      RecordError: the folder has no records, or a damaged one.
    """
    for path in records.files(folder):
        yield from records.read_as(path, _labelled)


def _labelled(data: bytes) -> tuple[np.ndarray, Sequence[Square]]:
    if "faces" in records.unpacked(data, ("image",)):
        scene = scenes.decode(data)
        return scene.image, [face.square for face in scene.faces]
    record = records.decode(data)
    landmarks = record["landmarks"] * record["image"].shape[1::-1]
    known = np.isfinite(landmarks).all(1).any()
    return record["image"], [bounding_square(landmarks)] if known else []


def milliseconds(found: Finder, repeats: int = TIMED) -> tuple[float, float]:
    """Median and least time of one image of 640 × 480 pixels in memory."""
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    taken = []
    for _ in range(repeats + 5):
        start = time.perf_counter()
        found(image)
        taken.append((time.perf_counter() - start) * 1e3)
    return float(np.median(taken[5:])), float(np.min(taken[5:]))


def cat_score(found: Finder) -> float:
    """The highest score in scikit-image's photograph of a cat."""
    from skimage import data  # slow to import

    return max((each.score for each in found.candidates(data.chelsea(), 0.0)), default=0.0)


def table(found: Matches, threshold: float) -> list[str]:
    """Recall and false faces at the threshold, by size, and over all thresholds."""
    lines = [
        f"  {found.images:,} images, {found.faces:,} faces; at {threshold:.2f}: "
        f"recall {found.recall(threshold):.3f}, false faces an image "
        f"{found.false_rate(threshold):.4f}"
    ]
    for low, high in itertools.pairwise(SIZES):
        within = (found.sides >= low) & (found.sides < high)
        if within.any():
            share = float((found.best[within] >= threshold).mean())
            lines.append(f"    {low:>4} to {high:<5} px: recall {share:.3f} of {within.sum():,}")
    lines.append("    threshold  recall  false/image")
    for each in THRESHOLDS:
        lines.append(f"    {each:9.2f}  {found.recall(each):6.3f}  {found.false_rate(each):11.4f}")
    return lines


def main(argv: list[str]) -> None:
    """Prints what is found in each set, the time of an image and the score of a cat."""
    parser = Parser(prog="sf-jax bench finder", description=__doc__)
    add = parser.add_argument
    add("sets", nargs="*", type=Path, help="folders of records")
    add("--model", type=Path, help="directory with a finder.safetensors (default: the built-in)")
    add("--images", nargs="*", type=Path, default=[], help="image files to score one by one")
    add("--most", type=whole(1, 10**6), default=10**6, help="images of each set (default: all)")
    add("--out", type=Path, help="a JSON file for the figures")
    options = parser.parse_args(argv)
    found = finder.load(finder.OWN if options.model is None else options.model / finder.FILE)
    threshold, figures = found.config.threshold, {}
    for folder in options.sets:
        result = matches(found, itertools.islice(labelled(folder), options.most))
        print(f"{folder}:", *table(result, threshold), sep="\n")
        figures[str(folder)] = {
            "images": result.images,
            "faces": result.faces,
            "roc": [
                [x, result.recall(x) if result.faces else None, result.false_rate(x)]
                for x in (threshold, *THRESHOLDS)
            ],
        }
    for path in options.images:
        best = max((each.score for each in found.candidates(read_image(path), 0.0)), default=0.0)
        print(f"{path}: highest score {best:.3f}")
    median, least = milliseconds(found)
    cat = cat_score(found)
    print(f"640 x 480 in memory, one at a time: median {median:.1f} ms, least {least:.1f} ms")
    print(f"a cat (scikit-image's chelsea) scores {cat:.3f}; the threshold is {threshold:.2f}")
    if options.out is not None:
        content = {"threshold": threshold, "sets": figures, "milliseconds": median, "cat": cat}
        files.write_json(options.out, files.finite(content))
