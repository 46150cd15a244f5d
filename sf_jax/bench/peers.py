"""`sf-jax bench peers`: MediaPipe Face Landmarker, which a user would pick instead, beside ours.

    sf-jax bench peers --mediapipe-python PYTHON --task face_landmarker.task sets/own sets/skins
    sf-jax bench peers … --portraits FOLDER --out peers.json

PYTHON is of an environment with `mediapipe` 0.10.21, which needs NumPy below 2, libGL and libEGL.
Sets are folders of face records. Both are given the same images, whole; ours finds and frames the
face where the model does. A face that is not found counts as zeros, for both. Blendshapes alone are
compared: of these 52, MediaPipe has 51. Its TongueOut counts as 0 in "r (52)" and has no part in
"r (51)". Channels whose labels are not known have no part in anything.

"offsets subtracted": of each channel, MediaPipe's median score over the faces of the same set whose
label of this channel is below 0.05, where there are at least ten; then limited to 0 and more. It
knows the labels of the set, to MediaPipe's favour.

Time: images of 640 x 480 pixels in memory, one at a time, in turn; MediaPipe's without the transfer
to its process. Jitter: the mean |second difference| of a blendshape over frames of a still face,
each encoded as JPEG with another quality from 60 to 95; ours in a video's session, with and without
smoothing.
"""

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from pydantic import Field
from tqdm import tqdm

from data_pipelines import held_out, records
from data_pipelines.portraits import LIST, read_portraits
from data_pipelines.sampler import sample
from data_pipelines.sources import SourceError
from sf_jax.bench.mediapipe import HAS, MediaPipe, as_channels
from sf_jax.cli import loading
from sf_jax.cli.arguments import Parser, UsageError, named_sets, whole
from sf_jax.face import bootstrap, metrics
from sf_jax.face.channels import BLENDSHAPES, NAMES
from sf_jax.media import files, small_files
from sf_jax.media.images import read_image
from sf_jax.reader.estimator import Model
from sf_jax.reader.session import Session, SessionOptions
from sf_jax.render.effects import compressed
from sf_jax.systems.semanticface.evaluate import TRAINING_FACES, model_answers, zeros_where_missed

Image = UInt8[np.ndarray, "H W 3"]
AT_REST, LEAST = 0.05, 10  # labels of a channel at rest, and how many of them make an offset
OURS, THEIRS, CORRECTED = "ours, mean", "MediaPipe", "MediaPipe, offsets subtracted"
FRAME = (480, 640)
STILL_FRAMES = 100
QUALITIES = (60, 95)
SMILES = ("MouthSmileLeft", "MouthSmileRight")
GAZE = ("EyeLookInLeft", "EyeLookInRight", "EyeLookOutLeft", "EyeLookOutRight")
# Where MediaPipe's scores are fair, measured on renders with known truth.
TRUSTED = ("EyeBlinkLeft", "EyeBlinkRight", "JawOpen", *SMILES, *GAZE, "MouthLeft", "MouthRight")


@dataclass(frozen=True)
class Row:
    """One predictor on one set.

    Attributes:
      found: faces found; None of what finds none.
      r_52, r_51: mean r over all blendshapes, and over those that MediaPipe has.
      interval: of r_52, over people.
    """

    found: int | None
    r_52: float
    r_51: float
    interval: bootstrap.Interval | None
    mae_52: float
    active_mae: float

    def cells(self) -> list[str]:
        """As a table shows them."""
        return [
            "–" if self.found is None else str(self.found),
            f"{self.r_52:.3f}",
            "–" if self.interval is None else str(self.interval),
            f"{self.r_51:.3f}",
            f"{self.mae_52:.3f}",
            f"{self.active_mae:.3f}",
        ]


HEADINGS = ["found", "r (52)", "95% interval", "r (51)", "MAE (52)", "active MAE"]


def offsets(
    scores: Float[np.ndarray, "N 61"],
    labels: Float[np.ndarray, "N 61"],
    known: Bool[np.ndarray, "N 61"],
    found: Bool[np.ndarray, " N"],
) -> Float[np.ndarray, "61"]:
    """MediaPipe's score of each channel at rest: see the module."""
    rest = known & found[:, None] & (labels < AT_REST)
    out = np.zeros(len(NAMES))
    for i in HAS:
        if rest[:, i].sum() >= LEAST:
            out[i] = np.median(scores[rest[:, i], i])
    return out


def corrected(
    scores: Float[np.ndarray, "N 61"], offset: Float[np.ndarray, "61"]
) -> Float[np.ndarray, "N 61"]:
    """Scores with the offsets at rest subtracted, not below 0."""
    return np.clip(scores - offset, 0.0, 1.0)


def measured(
    values: np.ndarray, labels: np.ndarray, known: np.ndarray, person: np.ndarray, found: int | None
) -> Row:
    """The figures of one predictor."""
    score = metrics.evaluate(values, labels, known)
    all_52, has = score.summary(), score.correlation[HAS]
    varies = bool(np.ptp(values, axis=0).any())
    interval = bootstrap.intervals(values, labels, known, person) if varies else {}
    return Row(
        found,
        all_52["r_52"],
        float(np.nanmean(has)) if np.isfinite(has).any() else float("nan"),
        interval.get("r_52"),
        all_52["mae_52"],
        all_52["active_mae"],
    )


def blendshapes_known(found: Sequence[Mapping[str, Any]]) -> Bool[np.ndarray, "N 61"]:
    """Which labels of records are known and compared."""
    known = np.stack([one["known"] for one in found]).copy()
    known[:, BLENDSHAPES.stop :] = False
    return known


def measurable(folder: Path, count: int) -> list[dict[str, Any]]:
    """The first records of a set.

    Raises:
      RecordError: they are damaged, or no blendshape is known in them.
    """
    found = records.first(folder, count)
    if not blendshapes_known(found).any():
        problem = "no blendshape is known in these records, so there is nothing to compare"
        raise records.RecordError(problem, path=folder)
    return found


def compared(model: Model, peer: MediaPipe, found: list[dict[str, Any]], batch: int) -> dict:
    """The rows of one set, by predictor.

    Args:
      found: face records.
    """
    labels, known = np.stack([one["coefficients"] for one in found]), blendshapes_known(found)
    images = [np.ascontiguousarray(one["image"]) for one in found]
    person = bootstrap.people([one.get("identity") for one in found])
    training = np.stack([sample(90_000_000 + i) for i in range(TRAINING_FACES)])
    guesses = metrics.baselines(training, len(labels))
    rows = {
        name: measured(guesses[name], labels, known, person, None) for name in ("zeros", "median")
    }
    actions = model_answers(model, images, batch, rationale=False)
    ours = zeros_where_missed([action.coefficients for action in actions])
    seen = sum(action.found for action in actions) if model.frames() else None
    rows[OURS] = measured(ours, labels, known, person, seen)
    answers = [peer(image) for image in tqdm(images, desc="MediaPipe", unit="image")]
    there = np.array([one.scores is not None for one in answers])
    nothing = np.zeros(len(NAMES), np.float32)
    scores = np.stack([nothing if one.scores is None else one.scores for one in answers])
    rows[THEIRS] = measured(scores, labels, known, person, int(there.sum()))
    offset = offsets(scores, labels, known, there)
    better = corrected(scores, offset)
    rows[CORRECTED] = measured(better, labels, known, person, int(there.sum()))
    return rows


def on_canvas(image: Image) -> Image:
    """An image as one of 640 x 480 pixels: as high, in the middle, its edges mirrored outwards."""
    height, width = FRAME
    scale = min(height / image.shape[0], width / image.shape[1])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    inner = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    borders = top, height - size[1] - top, left, width - size[0] - left
    return np.asarray(cv2.copyMakeBorder(inner, *borders, cv2.BORDER_REFLECT))


def milliseconds(
    model: Model, peer: MediaPipe, images: Sequence[Image], repeats: int
) -> dict[str, float]:
    """Median milliseconds an image, of ours and of MediaPipe, asked in turn."""
    taken: dict[str, list[float]] = {"coefficients": [], "with rationale": [], THEIRS: []}
    for i in range(repeats + 3):
        image = images[i % len(images)]
        for name, rationale in (("coefficients", False), ("with rationale", True)):
            start = time.perf_counter()
            model.predict(image, rationale=rationale)
            taken[name].append((time.perf_counter() - start) * 1e3)
        taken[THEIRS].append(peer(image).milliseconds)
    return {name: float(np.median(each[3:])) for name, each in taken.items()}


def reencoded(image: Image, count: int, seed: int = 0) -> list[Image]:
    """Frames of a still face: the image encoded as JPEG, each with a quality drawn at random."""
    drawn = np.random.default_rng(seed).integers(QUALITIES[0], QUALITIES[1] + 1, count)
    return [compressed(image, quality) for quality in drawn.tolist()]


def jitter(values: Float[np.ndarray, "T 61"], channels: Sequence[int]) -> float:
    """The mean |second difference| of some channels over frames; NaN where a frame has none."""
    return float(np.abs(np.diff(values[:, channels].astype(np.float64), 2, axis=0)).mean())


def video_values(model: Model, frames: Sequence[Image], smooth: bool) -> np.ndarray:
    """Ours in a video's session, [T, 61]."""
    session = Session(model, SessionOptions(smooth=smooth), rationale=False)
    return np.stack([session.frame(frame).values for frame in frames])


def jitters(
    model: Model, python: str, task: Path, images: Sequence[Image], frames: int
) -> dict[str, float]:
    """The jitter of ours and of MediaPipe's video mode on still faces, over the 51 channels."""
    found: dict[str, list[float]] = {}
    for number, image in enumerate(images):
        still = reencoded(image, frames, number)
        for name, smooth in (("ours", False), ("ours, smoothed", True)):
            found.setdefault(name, []).append(jitter(video_values(model, still, smooth), HAS))
        with MediaPipe(python, task, "video") as peer:
            scores = [peer(frame).scores for frame in still]
        values = np.stack([np.full(61, np.nan) if one is None else one for one in scores])
        found.setdefault("MediaPipe, video mode", []).append(jitter(values, HAS))
    return {name: float(np.nanmean(each)) for name, each in found.items()}


class _Line(small_files.Settings):
    image: str
    mediapipe: Annotated[dict[str, float], Field(min_length=1)]


def portrait_scores(folder: Path) -> dict[str, np.ndarray]:
    """MediaPipe's scores [61] of each portrait by name, from the field "mediapipe" of the list.

    Raises:
      SourceError: a line is damaged; names file, line and field.
    """
    path, out = folder / LIST, {}
    for number, text in small_files.lines(path, SourceError):
        try:
            parsed = small_files.parse_json(text, SourceError)
            line = small_files.checked(_Line, parsed, SourceError)
        except SourceError as error:
            raise error.at(path=path, line=number) from None
        out[held_out.stem(line.image)] = as_channels(line.mediapipe)
    return out


def portraits(model: Model, folder: Path, batch: int) -> dict[str, float]:
    """r between ours and MediaPipe's scores over the portraits for tests, by trusted channel."""
    listed = [one for one in read_portraits(folder) if held_out.portrait_split(one.name) == "tests"]
    if len(listed) < 2:
        raise SourceError("lists fewer than two portraits for tests", path=folder / LIST)
    scores = portrait_scores(folder)
    theirs = np.stack([scores[one.name] for one in listed])
    images = [read_image(one.path) for one in listed]
    actions = model_answers(model, images, batch, rationale=False)
    ours = zeros_where_missed([action.coefficients for action in actions])
    r = metrics.correlation(ours, theirs)
    figures = {name: float(r[NAMES.index(name)]) for name in TRUSTED}
    mean = float(np.mean([figures[name] for name in (*SMILES, *GAZE)]))
    found = sum(action.found for action in actions)
    return {
        "portraits": len(listed),
        "found": found,
        "smiles and eyeLookIn/Out": mean,
        **figures,
    }


def _time_lines(found: Mapping[str, float]) -> list[str]:
    peer = found[THEIRS]
    return [
        "Time: 640 x 480 in memory, one image at a time, median ms (times MediaPipe's)",
        *(f"  {name:<16}{each:8.1f}  ({each / peer:.2f} x)" for name, each in found.items()),
    ]


def _portrait_lines(found: Mapping[str, float]) -> list[str]:
    count, seen = int(found["portraits"]), int(found["found"])
    rest = {name: each for name, each in found.items() if name not in ("portraits", "found")}
    return [
        f"Portraits: r with MediaPipe's scores over {count} (ours found {seen}); generated images "
        "that look like photographs",
        *(f"  {name:<26}{each:7.3f}" for name, each in rest.items()),
    ]


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="sf-jax bench peers", description=__doc__)
    add = parser.add_argument
    add("sets", nargs="*", type=Path, help="folders of face records")
    add("--mediapipe-python", required=True, metavar="PYTHON", help="one with mediapipe")
    add("--task", type=Path, required=True, metavar="FILE", help="face_landmarker.task")
    add("--model", type=Path, help="model directory (default: the built-in one)")
    add("--count", type=whole(1, 10**6), default=1000, help="faces of each set (default 1000)")
    add("--batch", type=whole(1, 10**4), default=50, help="images read together (default 50)")
    add("--portraits", type=Path, help="folder of portraits with MediaPipe's scores in its list")
    add("--repeats", type=whole(0, 10**4), default=30, help="timed images (default 30; 0: none)")
    add("--stills", type=whole(0, 100), default=3, help="still faces (default 3; 0: no jitter)")
    add("--out", type=Path, help="a JSON file for the figures")
    return parser


def examples(model: Model, peer: MediaPipe, images: Sequence[Image], count: int) -> list[Image]:
    """The first images of 640 x 480 pixels in which both find a face."""
    chosen: list[Image] = []
    for image in images:
        if len(chosen) == count:
            break
        canvas = on_canvas(image)
        if model.predict(canvas, rationale=False).found and peer(canvas).scores is not None:
            chosen.append(canvas)
    return chosen


def main(argv: list[str]) -> None:
    """Prints the tables of every set, times, jitter and portraits."""
    options = build_parser().parse_args(argv)
    if options.out is not None and options.out.exists():
        raise UsageError("exists already; name another file with --out", path=options.out)
    named = named_sets(options.sets)
    given = {name: measurable(folder, options.count) for name, folder in named.items()}
    model = loading.load_model(options.model)
    python, task = options.mediapipe_python, options.task
    figures: dict[str, Any] = {"sf_jax": model.provenance.as_json(), "sets": {}}
    images: list[Image] = []
    with MediaPipe(python, task) as peer:
        figures["mediapipe"] = peer.version
        for name, found in given.items():
            rows = compared(model, peer, found, options.batch)
            print(f"\n{name}: {len(found)} faces, blendshapes")
            lines = [[who, *row.cells()] for who, row in rows.items()]
            print(metrics.aligned([["", *HEADINGS], *lines]))
            figures["sets"][name] = {who: row_json(row) for who, row in rows.items()}
            images += [np.ascontiguousarray(one["image"]) for one in found[:8]]
        if options.portraits is not None:
            figures["portraits"] = portraits(model, options.portraits, options.batch)
            print("", *_portrait_lines(figures["portraits"]), sep="\n")
            listed = read_portraits(options.portraits)[:8]
            images = [read_image(one.path) for one in listed] + images
        shown = examples(model, peer, images, 8)
        if options.repeats and shown:
            figures["milliseconds"] = milliseconds(model, peer, shown, options.repeats)
            print("", *_time_lines(figures["milliseconds"]), sep="\n")
    if options.stills and shown:
        stills = shown[: options.stills]
        figures["jitter"] = jitters(model, python, task, stills, STILL_FRAMES)
        print(f"\nJitter on {len(stills)} still faces: mean |second difference|")
        for name, value in figures["jitter"].items():
            print(f"  {name:<24}{value:8.4f}")
    if options.out is not None:
        files.write_json(options.out, files.finite(figures))


def row_json(row: Row) -> dict[str, Any]:
    """A row for a file."""
    return vars(row) | {"interval": None if row.interval is None else vars(row.interval)}
