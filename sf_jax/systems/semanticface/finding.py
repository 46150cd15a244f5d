"""The finder's training: figures drawn once, scenes composed of them, calibration, export.

figures    heads of all sources, each in a window of its own (data_pipelines/figure_files.py)
train      the detector on scenes composed anew for every step (finder_scenes.py)
export     `finder.safetensors`, its scores calibrated and its threshold chosen on further scenes
"""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from data_pipelines import rendering
from data_pipelines.figure_files import FigureFiles, Figures
from data_pipelines.sources import Mixture, SourceError
from sf_jax.convert import checksums
from sf_jax.face.landmarks import Square, bounding_square
from sf_jax.media import locks
from sf_jax.model import detector
from sf_jax.model.declared import initialise
from sf_jax.model.detector import DetectorConfig, DetectorWeights
from sf_jax.reader import finder
from sf_jax.reader.finder import POINTS, Finder
from sf_jax.systems.semanticface import finder_scenes, finder_scores
from sf_jax.systems.semanticface.finder_scenes import FOUND, MOST, Materials, SceneConfig
from sf_jax.train import hooks, task
from sf_jax.train.losses.detection import DetectionBatch, DetectionConfig, detection_loss
from sf_jax.train.optimizer import OptimizerConfig
from sf_jax.train.step import TrainState

STAGES = ("figures", "train", "export")
LATER = 10**9  # steps from here on are never trained on: the scenes that scores are calibrated on


@dataclass(frozen=True)
class FinderRecipe:
    """Everything about a run.

    Attributes:
      figures: heads to draw; batch: scenes of a step; calibration: scenes from which the scores
        are calibrated, and false_rate: how many false faces one of them may have on average.
      mesh: how the devices are shared out.
    """

    figures: int = 12_000
    batch: int = 24
    calibration: int = 600
    false_rate: float = 0.01
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(1.5e-3, 6000, 200))
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    objective: DetectionConfig = field(default_factory=DetectionConfig)
    scenes: SceneConfig = field(default_factory=SceneConfig)
    mesh: dict[str, int] = field(default_factory=lambda: {"data": -1})
    seed: int = 0


@dataclass(frozen=True, eq=False)
class FinderTask(task.Task):
    """The detector on composed scenes."""

    recipe: FinderRecipe

    @property
    def rows(self) -> int:  # type: ignore[override]
        return self.recipe.batch

    @property
    def optimizer(self) -> OptimizerConfig:  # type: ignore[override]
        return self.recipe.optimizer

    def declare(self) -> DetectorWeights:
        return detector.declare(self.recipe.detector)

    def batch_shapes(self) -> DetectionBatch:
        scenes, rows = self.recipe.scenes, self.rows
        return jax.eval_shape(
            lambda: DetectionBatch(
                np.zeros((rows, scenes.height, scenes.width, 3), np.uint8),  # type: ignore[arg-type]
                np.zeros((rows, MOST, 3), np.float32),  # type: ignore[arg-type]
                np.zeros((rows, MOST, len(POINTS), 2), np.float32),  # type: ignore[arg-type]
                np.zeros((rows, MOST), np.float32),  # type: ignore[arg-type]
            )
        )

    def loss(self, weights: DetectorWeights, batch: DetectionBatch) -> tuple[jax.Array, dict]:
        found = detector.forward(weights, batch.images, self.recipe.detector)
        return detection_loss(found, batch, self.recipe.objective)

    def count(self, batch: DetectionBatch) -> dict[str, int]:
        return {"images": len(batch.kinds), "faces": int((np.asarray(batch.kinds) > 0).sum())}

    def finder(self, weights: DetectorWeights) -> Finder:
        """A finder of these weights, its scores as the network gives them."""
        return Finder(weights, finder.settings(self.recipe.detector))

    def initial(self) -> DetectorWeights:
        """Fresh weights; scores start low, as faces are rare among cells."""
        weights = initialise(self.declare(), self.recipe.seed)
        bias = weights.out.bias
        assert bias is not None
        return replace(weights, out=replace(weights.out, bias=bias.at[0].set(-4.0)))

    def export(self, state: TrainState, directory: Path) -> None:
        """A finder whose scores are not calibrated yet."""
        directory.mkdir(parents=True, exist_ok=True)
        found = self.finder(jax.device_get(state.weights))
        finder.save(directory / finder.FILE, found.weights, found.config)


class SceneBatches:
    """Batches by their number, made in threads some steps ahead; see `train.prefetch.Batches`."""

    def __init__(
        self, recipe: FinderRecipe, materials: Materials, threads: int = 2, ahead: int = 4
    ):
        self._recipe, self._materials, self._ahead = recipe, materials, ahead
        self._pool = ThreadPoolExecutor(threads)
        self._next = 0
        self._pending: dict = {}
        self._lock = threading.Lock()

    def __next__(self) -> DetectionBatch:
        with self._lock:
            for step in range(self._next, self._next + self._ahead):
                if step not in self._pending:
                    self._pending[step] = self._pool.submit(self._make, step)
            future = self._pending.pop(self._next)
            self._next += 1
        return future.result()

    def _make(self, step: int) -> DetectionBatch:
        recipe = self._recipe
        return finder_scenes.batch(step, recipe.batch, recipe.seed, self._materials, recipe.scenes)

    def get_state(self) -> dict[str, int]:
        return {"step": self._next}

    def set_state(self, state: dict[str, int]) -> None:
        with self._lock:
            self._next = int(state["step"])
            self._pending.clear()

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def train(
    each: FinderTask,
    materials: Materials,
    mesh: Mesh,
    out: Path,
    start: DetectorWeights | None = None,
    config: task.RunConfig | None = None,
) -> TrainState:
    """Trains in the run's folder `out`, from its newest checkpoint if it has one.

    Args:
      start: weights to start from; fresh ones by default.
    """
    each.check(mesh)
    beside = hooks.HookConfig(bad_steps=10, label="finder")
    config = config or task.RunConfig(save_every=200, beside=beside)
    state = each.create(each.initial() if start is None else start, mesh)
    with contextlib.closing(SceneBatches(each.recipe, materials)) as batches:
        return task.run(each, state, task.Feed(batches), mesh, out, config, export=out / "model")


def composed(
    recipe: FinderRecipe, materials: Materials, count: int
) -> Iterator[tuple[np.ndarray, list[Square]]]:
    """Scenes that no step trains on, with the squares of their faces.

    Scenes with a face that may be found or not are left out.
    """
    for number in range(count):
        g = np.random.default_rng([21, recipe.seed, LATER, number])
        image, faces, kinds = finder_scenes.compose(g, materials, recipe.scenes)
        if all(kind == FOUND for kind in kinds):
            yield image, [bounding_square(landmarks) for landmarks in faces]


def calibrate(found: Finder, recipe: FinderRecipe, materials: Materials) -> Finder:
    """The finder with scores that are chances, and the threshold of the recipe's `false_rate`."""
    before = finder_scores.matches(found, composed(recipe, materials, recipe.calibration))
    slope, offset = finder_scores.calibration(found, before)
    after = finder_scores.rescored(found, before, slope, offset)
    threshold = finder_scores.threshold_for(after, recipe.false_rate)
    return finder.calibrated(found, slope, offset, threshold)


def run(
    recipe: FinderRecipe,
    out: Path,
    stages: Sequence[str],
    export: Path,
    mesh: Mesh,
    mixture: Mixture,
    photographs: Path | None = None,
    objects: Path | None = None,
    start: Path | None = None,
) -> None:
    """Runs stages in the run's folder `out`, and exports to the folder `export`.

    Args:
      mixture: of the heads. photographs, objects: see `Materials`; folders.
      start: a finder to start from.

    Raises:
      BusyError: another run writes to `out`.
      CheckpointError: `start` is no finder, or the run has no finder to export yet.
      DataError: a file is missing or damaged.
    """
    with locks.held(out):
        weights = None if start is None else finder.load(start).weights
        pictures = () if objects is None else tuple(sorted(objects.rglob("*.png")))
        if objects is not None and not pictures:
            raise SourceError("no image file (*.png)", path=objects)
        figures = Figures(mixture)
        figures.check("train")
        if "figures" in stages:
            rendering.render(out / "figures", recipe.figures, figures)
        materials = Materials(FigureFiles([out / "figures"]), photographs, pictures)
        if "train" in stages:
            train(FinderTask(recipe), materials, mesh, out, weights)
        if "export" in stages:
            found = calibrate(finder.load(out / "model" / finder.FILE), recipe, materials)
            export.mkdir(parents=True, exist_ok=True)
            sealed = (export / checksums.FILE).exists()  # a model directory
            checksums.unseal(export)
            notes = {"sources": ", ".join(f"{k} {v:g}" for k, v in mixture.weights.items())}
            finder.save(export / finder.FILE, found.weights, found.config, notes)
            if sealed:
                checksums.seal(export)
            print(f"{export / finder.FILE}: threshold {found.config.threshold:.2f}")
