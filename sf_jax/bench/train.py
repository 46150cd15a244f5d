"""`sf-jax bench train`: seconds a training step, ours beside that of transformers.

The built-in model is trained whole, in float32, on one batch of face records, from the same weights
and by the same AdamW after the same clipping; each side in a process of its own, on the same two
cores.

    padded      an example a row, all padded to the longest: what transformers trains on
    packed      the same examples in rows of the recipe's length, several a row
    in parts    padded, gradients of transformers summed over as many parts as ours
    compiled    padded, the model under torch.compile

The recipe has our side take a batch in parts, one after another.

Steps of all modes take turns; tokens are those of examples, without padding. The losses of the
first steps, side by side, show that all modes take the same steps. Other work on the two cores
slows torch by far more than it slows us, so compare only what an idle machine has measured: how
many cores others had is printed, and a mode whose median is far from its least is named.

    sf-jax bench train --torch-python PYTHON             # one with torch and transformers
    sf-jax bench train --torch-python PYTHON --rows 1    # a small batch
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sf_jax.bench.decode import THREADS, cores_held, disturbances, others_seconds, versions
from sf_jax.cli import recipes
from sf_jax.cli.arguments import Parser, former, whole
from sf_jax.media import files

if TYPE_CHECKING:
    from sf_jax.sequence.batch import Batch
    from sf_jax.systems.semanticface.fine_tuning import FaceSft

RECIPE = "builtin"
LEARNING_RATE = 3e-4
ADAM = {"betas": [0.9, 0.98], "eps": 1e-8}  # as `sf_jax.train.optimizer.build` has them
SEED = 0
BUSY = 0.2  # cores that others may have: beyond it a ratio says nothing
OURS = ["padded", "packed"]
# Of glibc: nothing freed goes back to the system, which would else clear it anew at every step.
KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Work:
    """The same examples twice.

    Attributes:
      runs, batches: by mode, "padded" and "packed": what trains on a batch, and the batch.
      grids: int [N, 3], time, rows and columns of patches of each example's image.
    """

    runs: dict[str, Any]
    batches: dict[str, Any]
    grids: np.ndarray

    @property
    def size(self) -> dict[str, int]:
        """What the batch holds, and the token capacity of its rows."""
        found = {"examples": len(self.grids)}
        for mode, batch in self.batches.items():
            segments = batch.segments
            found |= {
                "tokens": int(np.count_nonzero(segments)),
                f"{mode} rows": len(segments),
                f"{mode} capacity": segments.size,
            }
        return found


def prepared(data: Path, rows: int, seed: int = SEED) -> Work:
    """The examples that fill the recipe's first packed rows, packed and an example a row."""
    from sf_jax.sequence.example import assemble
    from sf_jax.sequence.images import ImageInsert, capacity
    from sf_jax.systems.semanticface import fine_tuning
    from sf_jax.train import mesh as meshes
    from sf_jax.train.optimizer import OptimizerConfig

    recipe = recipes.load("sft").RECIPES[RECIPE]
    # Without a warm-up, so that the first steps move the weights.
    rule = OptimizerConfig(LEARNING_RATE, 10_000, 0, kind="adamw")
    mesh = meshes.make(recipe.mesh)
    recipe = replace(recipe, rows=rows, optimizer=rule)
    run = recipe.sft(fine_tuning.config_of("builtin"), mesh)  # all tokens over the vocabulary
    source, _ = fine_tuning.feed_of(run, recipe, data, mesh, seed)
    packed = next(source)
    examples = [source.source(number) for row in source.examples for number in row]
    length, patches = np.max([one.size for one in examples], 0).tolist()
    padded = assemble([[one] for one in examples], capacity(run.config, length, patches))
    alone = replace(
        run,
        rows=len(examples),
        length=length,
        patches=patches,
        accumulate=math.gcd(len(examples), run.accumulate),
    )
    return Work(
        {"padded": alone, "packed": run},
        {"padded": padded, "packed": packed},
        np.array(
            [
                [1, *insert.grid]
                for one in examples
                for insert in one.inserts
                if isinstance(insert, ImageInsert)
            ]
        ),
    )


def write_job(folder: Path, made: Work, steps: int, modes: list[str]) -> None:
    """What the other side needs: `job.json`, and the padded batch in `job.npz`."""
    from sf_jax.reader.loading import BUILTIN
    from sf_jax.train import optimizer

    run, batch = made.runs["padded"], made.batches["padded"]
    patches = batch.inputs["vision"]
    np.savez(
        folder / "job.npz",
        input_ids=batch.input_ids,
        attention_mask=batch.segments,
        targets=batch.targets,
        loss_weights=batch.loss_weights,
        image_grid_thw=made.grids,
        pixel_values=patches.pixels[patches.segments > 0],
    )
    schedule = optimizer.schedule(run.optimizer)
    job = ADAM | {
        "checkpoint": str(BUILTIN.resolve()),
        "threads": THREADS,
        "modes": modes,
        "rates": [float(schedule(step)) for step in range(steps)],
        "weight_decay": run.optimizer.weight_decay,
        "clip": run.optimizer.clip,
        "parts": run.accumulate,
    }
    (folder / "job.json").write_text(json.dumps(job))


class Training:
    """A state that is trained on one batch again and again."""

    def __init__(self, run: "FaceSft", batch: "Batch"):
        from sf_jax.reader import training
        from sf_jax.train import mesh as meshes

        mesh = meshes.make(recipes.load("sft").RECIPES[RECIPE].mesh)
        self.state = training.initial_state(run, run.source, mesh, scratch=False, seed=SEED)
        self.batch, self.step = meshes.put(batch, mesh), run.build_step(mesh)

    def __call__(self) -> float:
        """Takes a step; the loss before it."""
        import jax

        self.state, metrics = jax.block_until_ready(self.step(self.state, self.batch))
        return float(metrics["loss"])


def answer(modes: dict[str, Callable[[], float]], first: dict[str, Any]) -> None:
    """Prints `first`, then takes a step in each mode whose name is read, and prints what it took.

    That is the loss, the seconds, and those of all the process's threads together.
    """
    print(json.dumps(first), flush=True)
    for line in sys.stdin:
        begin, used = time.perf_counter(), time.process_time()
        loss = modes[line.strip()]()
        taken = time.perf_counter() - begin, time.process_time() - used
        print(json.dumps([loss, *taken]), flush=True)


def ours(options: argparse.Namespace) -> None:
    """Our side; also writes down the job for the other one."""
    from data_pipelines import synthetic
    from sf_jax.reader import loading

    loading.compilation_cache()
    with tempfile.TemporaryDirectory() as scratch:
        data = options.data or Path(scratch)
        if options.data is None:
            synthetic.render(data, options.images)
        made = prepared(data, options.rows)
    theirs = ["padded"]
    theirs += ["in parts"] if made.runs["padded"].accumulate > 1 else []
    theirs += ["compiled"] if options.compile else []
    write_job(options.out, made, options.steps + options.repeats, theirs)
    modes = {mode: Training(made.runs[mode], made.batches[mode]) for mode in OURS}
    answer(dict(modes), {"modes": OURS, "versions": versions(), "size": made.size})


class Side:
    """A process that takes a step whenever it is asked to, held to two cores.

    Attributes:
      first: what it reported of itself.
      losses, seconds, others: of each mode's steps; `others` is how many cores other processes had.
    """

    def __init__(self, command: list[str], environment: dict[str, str]):
        limits = {
            "OMP_NUM_THREADS": str(THREADS),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        self.command = command
        with cores_held():
            self.process = subprocess.Popen(
                command,
                env=os.environ | limits | environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        self.first = self._heard()
        self.losses: dict[str, list[float]] = {mode: [] for mode in self.first["modes"]}
        self.seconds: dict[str, list[float]] = {mode: [] for mode in self.losses}
        self.others: list[float] = []

    def step(self, mode: str) -> None:
        assert self.process.stdin is not None
        before = others_seconds()
        with suppress(BrokenPipeError):  # of one that failed, which is reported where it is read
            self.process.stdin.write(f"{mode}\n")
            self.process.stdin.flush()
        loss, seconds, used = self._heard()
        self.losses[mode].append(loss)
        self.seconds[mode].append(seconds)
        self.others.append(max(others_seconds() - before - used, 0.0) / seconds)

    def found(self, warm: int) -> dict[str, Any]:
        """What was measured, without the seconds of the first `warm` steps of each mode."""
        modes = {
            mode: {"losses": self.losses[mode], "seconds": self.seconds[mode][warm:]}
            for mode in self.losses
        }
        others = statistics.mean(self.others[warm * len(modes) :])
        about = {name: value for name, value in self.first.items() if name != "modes"}
        return about | {"modes": modes, "others": others}

    def close(self) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()

    def _heard(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise ValueError(f"{' '.join(self.command)} failed, see above")
        return json.loads(line)


def measure(
    commands: dict[str, list[str]], steps: int, repeats: int, environment: dict[str, str]
) -> dict[str, Any]:
    """Results by side, of processes that have some more variables in their environment.

    The first `steps` of each mode, by which it warms up, are not timed. Afterwards modes take
    turns, those of one side with those of the other.
    """
    sides: dict[str, Side] = {}
    try:
        for name, command in commands.items():
            side = sides[name] = Side(command, environment)
            for mode in side.losses:
                for _ in range(steps):
                    side.step(mode)
        for _ in range(repeats):
            for side in sides.values():
                for mode in side.losses:
                    side.step(mode)
    finally:
        for side in sides.values():
            side.close()
    return {name: side.found(steps) for name, side in sides.items()}


def rows_of(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What was measured by the name of its row."""
    return {
        f"{side}, {mode}": row
        for side, found in results.items()
        for mode, row in found["modes"].items()
    }


def table(results: dict[str, Any], size: dict[str, int]) -> str:
    """A row a mode, with the ratio of its median to that of each of ours."""
    rows = rows_of(results)
    own = results["sf_jax"]["modes"]
    columns = "".join(f"{'/ ' + name:>10}" for name in own)
    head = f"{'':<24}{'median s':>9}{'least':>9}{'most':>9}{'examples/s':>12}{'tokens/s':>10}"
    lines = [head + columns]
    for name, row in rows.items():
        median = statistics.median(row["seconds"])
        line = f"{name:<24}{median:9.4f}{min(row['seconds']):9.4f}{max(row['seconds']):9.4f}"
        line += f"{size['examples'] / median:12.1f}{size['tokens'] / median:10.0f}"
        line += "".join(f"{median / statistics.median(m['seconds']):10.2f}" for m in own.values())
        lines.append(line)
    return "\n".join(lines)


def losses(results: dict[str, Any], steps: int) -> str:
    """The losses of the first steps, and how far each is from that of our first mode."""
    rows = {name: row["losses"][:steps] for name, row in rows_of(results).items()}
    against = next(iter(rows.values()))
    lines = [f"{'loss of step':<24}" + "".join(f"{1 + i:>20}" for i in range(steps))]
    for name, row in rows.items():
        cells = (
            f"{loss:10.6f} {abs(loss - ours) / abs(ours):9.1e}"
            for loss, ours in zip(row, against, strict=True)
        )
        lines.append(f"{name:<24}" + "".join(cells))
    return "\n".join(lines)


def verdict(results: dict[str, Any]) -> list[str]:
    """What is to be compared, in words: alike with alike, and what packing gains."""

    def median(side: str, mode: str) -> float:
        return statistics.median(results[side]["modes"][mode]["seconds"])

    padded, packed = (median("sf_jax", mode) for mode in OURS)
    lines = [f"packing: {padded / packed:.2f} times as many examples and tokens a second"]
    for mode in results.get("transformers", {}).get("modes", {}):
        theirs = median("transformers", mode)
        lines.append(
            f"transformers, {mode}: a step takes {theirs / padded:.2f} times as long as ours on "
            f"the same rows, {theirs / packed:.2f} times as long as ours packed"
        )
    if any(found["others"] > BUSY for found in results.values()):
        lines.append("these ratios say nothing: other processes were busy, measure again")
    return lines


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="sf-jax bench train",
        description=__doc__,
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/bench_train"), help="folder of the run")
    add("--data", type=Path, help="directory of face records (default: some are rendered)")
    add("--images", type=whole(1, 10**6), default=64, help="to render where there is no --data")
    former(parser, "--pictures", dest="images", type=whole(1, 10**6))
    add("--rows", type=whole(1, 10**4), default=8, help="packed rows a batch, of six faces or so")
    add("--steps", type=whole(1, 1000), default=4, help="first steps, whose losses are compared")
    add("--repeats", type=whole(1, 10**6), default=7, help="timed steps of each mode after these")
    add("--torch-python", help="compare with transformers, run by this Python")
    add("--compile", action="store_true", help="transformers under torch.compile too")
    add("--keep-memory", action="store_true", help="neither side gives memory back meanwhile")
    add("--side", choices=("ours",), help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if argv is None else argv)
    options = build_parser().parse_args(given)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.side:
        ours(options)
        return
    commands = {"sf_jax": [sys.executable, "-m", "sf_jax.bench.train", *given, "--side", "ours"]}
    if options.torch_python:
        script = str(Path(__file__).parent / "torch_side" / "train_torch.py")
        commands["transformers"] = [options.torch_python, script, str(options.out)]
    kept = KEEP_MEMORY if options.keep_memory else {}
    results = measure(commands, options.steps, options.repeats, kept)
    size = results["sf_jax"]["size"]
    files.write_json(options.out / "results.json", results, indent=1)
    print("; ".join(f"{k} {v}" for side in results.values() for k, v in side["versions"].items()))
    print("; ".join(f"{name} {count}" for name, count in size.items()), end="\n\n")
    print(table(results, size), losses(results, options.steps), sep="\n\n", end="\n\n")
    print("\n".join([*verdict(results), *disturbances(results)]))


if __name__ == "__main__":
    main()
