"""Supervised fine-tuning, and pretraining from scratch, of whole models on packed rows.

    sf-jax train sft 4b-lora --model Qwen3-VL-4B-Instruct/ --data DIR --out runs/4b
    sf-jax train sft builtin --steps 100        small enough for a desk

A recipe says what is trained and how, and for which slice of TPUs it is sized (`sf-jax compile`
shows whether it fits). A run that was stopped goes on from its newest sound checkpoint, on any mesh
and any number of processes.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from data_pipelines import records, synthetic
from data_pipelines.loader import ShuffledRecords
from sf_jax.cli.arguments import Parser, whole
from sf_jax.convert import hf, peft
from sf_jax.convert.hf_config import config_from_dict
from sf_jax.convert.tensor_files import read_json
from sf_jax.face import metrics
from sf_jax.kernels.sharded import ROWS
from sf_jax.model.config import Config
from sf_jax.model.declared import initialise_on
from sf_jax.model.lora import LoraConfig
from sf_jax.model.sizes import QWEN3_VL
from sf_jax.reader import estimator
from sf_jax.sequence import images
from sf_jax.sequence.batch import Batch
from sf_jax.sequence.packing import PackedBatches
from sf_jax.systems.semanticface.examples import ChatExamples, FaceExamples
from sf_jax.systems.semanticface.sequences import SequenceConfig, Sequences
from sf_jax.train import chips, footprint, hooks, loop
from sf_jax.train import mesh as meshes
from sf_jax.train import trainable as parts
from sf_jax.train.losses.supervised import in_product_dtype
from sf_jax.train.optimizer import OptimizerConfig
from sf_jax.train.sft import Sft
from sf_jax.train.step import TrainState
from sf_jax.train.trainable import Trainable

LORA = Trainable(None, LoraConfig(r".*language_model\.layers\..*_proj", rank=16, alpha=32.0))


@dataclass(frozen=True)
class Recipe:
    """One experiment.

    Attributes:
      size: of the model: a key of `model.sizes.QWEN3_VL`, or "builtin".
      topology: the slice of TPUs that it is sized for; mesh: how these chips are shared out.
      rows: of a global batch; length: tokens a row; patches: picture patches a row.
      accumulate: parts of a batch taken one after another; 0: as many as leave a device two rows.
      unrolled: see `Config`.
      scratch: starts from fresh weights.
    """

    size: str
    topology: str
    mesh: dict[str, int]
    rows: int
    trainable: Trainable = field(default_factory=Trainable)
    optimizer: OptimizerConfig = OptimizerConfig(1e-5, 2000, 100, kind="adamw")
    length: int = 2048
    patches: int = 4096
    accumulate: int = 1
    chunks: int = 8
    z_loss: float = 0.0
    remat: str = "full"
    product_dtype: str = "bfloat16"
    unrolled: bool = False
    scratch: bool = False

    def sft(self, config: Config, mesh: Mesh) -> Sft:
        """The run of this recipe on a mesh, for a model of this configuration."""
        config = replace(
            config,
            product_dtype=self.product_dtype,
            vision_remat=self.remat,
            text_remat=self.remat,
            unrolled=self.unrolled,
        )
        accumulate = self.accumulate
        if not accumulate:
            each = self.rows // math.prod(mesh.shape[axis] for axis in ROWS)
            accumulate = next(n for n in range(max(each // 2, 1), 0, -1) if each % n == 0)
        return Sft(
            config,
            self.rows,
            self.length,
            self.patches,
            self.trainable,
            self.optimizer,
            accumulate,
            self.chunks,
            self.z_loss,
        )


ADAPTERS = OptimizerConfig(1e-4, 2000, 100, kind="adamw")
SCRATCH = OptimizerConfig(3e-4, 100_000, 2000, weight_decay=0.1, kind="adamw")
DESK = OptimizerConfig(3e-4, 200, 10, kind="adamw")
SMALL: dict[str, Any] = {
    "length": 1136, "patches": 216, "accumulate": 0, "chunks": 1, "remat": "none",
    "product_dtype": "float32", "unrolled": True,
}  # fmt: skip
RECIPES = {
    "2b-lora": Recipe("2B", "v5e:4x4", {"fsdp": 16}, 16, LORA, ADAPTERS),
    "2b-full": Recipe("2B", "v5e:4x8", {"fsdp": 32}, 32),
    "4b-lora": Recipe("4B", "v5e:4x4", {"fsdp": 16}, 16, LORA, ADAPTERS),
    "4b-full": Recipe("4B", "v5p:4x4x4", {"data": 2, "fsdp": 32}, 64),
    "8b-lora": Recipe("8B", "v5e:8x8", {"fsdp": 64}, 64, LORA, ADAPTERS),
    "8b-full": Recipe("8B", "v5p:4x4x4", {"fsdp": 64}, 64),
    "2b-scratch": Recipe(
        "2B", "v6e:16x16", {"data": 4, "fsdp": 64}, 256, optimizer=SCRATCH, z_loss=1e-4,
        scratch=True,
    ),
    "4b-scratch": Recipe(
        "4B", "v6e:16x16", {"data": 8, "fsdp": 32}, 256, optimizer=SCRATCH, z_loss=1e-4,
        scratch=True,
    ),
    "8b-scratch": Recipe(
        "8B", "v5p:8x8x8", {"data": 4, "fsdp": 128}, 512, optimizer=SCRATCH, z_loss=1e-4,
        scratch=True,
    ),
    "builtin": Recipe("builtin", "desk", {"fsdp": -1}, 8, optimizer=DESK, **SMALL),
    "builtin-lora": Recipe("builtin", "desk", {"fsdp": -1}, 8, LORA, DESK, **SMALL),
    "builtin-scratch": Recipe(
        "builtin", "desk", {"fsdp": -1}, 8, optimizer=DESK, scratch=True, **SMALL
    ),
}  # fmt: skip


def config_of(size: str) -> Config:
    """The configuration of a size by name, without a checkpoint."""
    if size != "builtin":
        return QWEN3_VL[size]
    file = estimator.BUILTIN / "config.json"
    return config_from_dict(read_json(file), file)


def batches_of(
    sft: Sft, folder: Path, data: Path, mesh: Mesh, seed: int
) -> tuple[PackedBatches, list[int], ShuffledRecords]:
    """Packed rows for a model's directory, which of them this process makes, and the records."""
    tokenizer, processor = estimator.load_inputs(folder, sft.config)
    found = ShuffledRecords(data, seed)
    source: Callable[[int], Any]
    if estimator.is_instructed(folder):
        source = ChatExamples(found, sft.config, tokenizer, processor)
    else:
        limit = processor.max_pixels // processor.patch_size**2
        sequences = Sequences(
            sft.config, tokenizer, estimator.load_schema(folder), SequenceConfig(), limit
        )
        source = FaceExamples(found, sequences, seed)
    rows = meshes.own_rows(sft.rows, mesh)
    packed = PackedBatches(
        source,
        images.capacity(sft.config, sft.length, sft.patches),
        row_count=sft.rows,
        rows=rows,
    )
    return packed, rows, found


def initial(sft: Sft, folder: Path, mesh: Mesh, scratch: bool, seed: int) -> TrainState:
    """The state to start from; every device reads or draws its own part only."""
    if scratch:
        weights = initialise_on(
            sft.config.declare(), seed, meshes.of_weights(sft.config.declare(), mesh)
        )
    else:

        def lies(weight: Any) -> NamedSharding:
            return NamedSharding(mesh, meshes.spec(weight.axes, weight.shape, mesh))

        _, weights = hf.load(folder, dtype=jnp.float32, sharding=lies)
    return sft.create(weights, mesh, seed)


class Evaluation:
    """Reads held-out faces by constrained decoding, words first.

    The weights stay as they lie, in the precision of products; rows are shared as in training.
    """

    def __init__(self, sft: Sft, folder: Path, held_out: list[dict], mesh: Mesh, batch: int = 16):
        shared = math.prod(mesh.shape[axis] for axis in ROWS)
        self.sft, self.mesh, self.batch = sft, mesh, -(-batch // shared) * shared
        self.inputs = estimator.load_inputs(folder, sft.config)
        self.instructed = estimator.is_instructed(folder)
        self.images = [np.asarray(record["image"]) for record in held_out]
        self.labels = np.stack([record["coefficients"] for record in held_out])

    def __call__(self, state: TrainState) -> dict[str, float]:
        """Mean absolute error and correlation of slot means over the 52 blendshapes."""
        config = self.sft.config
        joined = parts.join(state.weights, state.frozen, config)
        joined = jax.jit(partial(in_product_dtype, dtype=config.product_dtype))(joined)
        means = []
        with jax.set_mesh(self.mesh):
            model = estimator.Model(config, joined, *self.inputs, instructed=self.instructed)
            for start in range(0, len(self.images), self.batch):
                part = self.images[start : start + self.batch]
                filled = part + part[-1:] * (self.batch - len(part))
                found = _on_host(model.generate(*model.inputs(filled)))
                means += [a.coefficients for a in model.actions(found, True)][: len(part)]
        scores = metrics.evaluate(np.stack(means), self.labels).summary()
        return {name: float(scores[name]) for name in ("mae_52", "r_52")}


def _on_host(tree: Any) -> Any:
    """The whole arrays of a tree, in every process's memory."""
    if jax.process_count() > 1:
        return multihost_utils.process_allgather(tree, tiled=True)
    return jax.device_get(tree)


def export(sft: Sft, state: TrainState, folder: Path, out: Path) -> None:
    """Writes what was trained: an adapter in PEFT's layout, or a model directory."""
    writes = jax.process_index() == 0

    def kept(x: jax.Array) -> Any:
        """Array by array: no process but the one that writes ever holds more than one of them."""
        found = _on_host(x)
        return found if writes else None

    whole_model = bool(jax.tree.leaves(state.weights.weights))
    trained = jax.tree.map(kept, state.weights)
    frozen = jax.tree.map(kept, state.frozen) if whole_model else None
    if writes:
        _write(sft, trained, frozen, folder, out)
    if jax.process_count() > 1:  # the others stay as long as it takes
        multihost_utils.sync_global_devices("exported")


def _write(sft: Sft, trained: Any, frozen: Any, folder: Path, out: Path) -> None:
    made = []
    if trained.adapter is not None:
        made.append("adapter")
        peft.save(out / "adapter", trained.adapter, sft.config.declare())
    if jax.tree.leaves(trained.weights):
        made.append("model")
        weights = parts.join(replace(trained, adapter=None), frozen, sft.config)
        source = config_from_dict(read_json(folder / "config.json"), folder / "config.json")
        inputs = estimator.load_inputs(folder, sft.config)
        schema = estimator.load_schema(folder)
        estimator.save(out / "model", source, jax.device_get(weights), *inputs, schema=schema)
    print(f"the trained {' and '.join(made)} in {out}")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="sf-jax train sft",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("recipe", choices=RECIPES, metavar="RECIPE", help=", ".join(RECIPES))
    add("--model", type=Path, help="Hugging Face directory (default: the built-in model's)")
    add("--data", type=Path, help="directory of face records (default: some are rendered)")
    add("--held-out", type=Path, help="records to evaluate on (default: some are rendered)")
    add("--out", default="runs/sft", help="directory of the run, local or gs://")
    add(
        "--logs",
        type=Path,
        help="local folder for metrics and the result (default: --out, or runs/RECIPE)",
    )
    add("--mesh", type=meshes.parse, help="as fsdp=8,tensor=2 (default: the recipe's)")
    add("--steps", type=whole(1, 10**9))
    add("--rows", type=whole(1, 10**6), help="of a global batch")
    add("--accumulate", type=whole(1, 10**4), help="parts of a batch taken one after another")
    add("--save-every", type=whole(1, 10**9), default=100)
    add("--log-every", type=whole(1, 10**9), default=10)
    add("--evaluate-every", type=whole(0, 10**9), default=0)
    add("--faces", type=whole(0, 10**6), default=64, help="held-out faces; 0 evaluates nothing")
    add("--pictures", type=whole(1, 10**6), default=2000, help="to render where there is no --data")
    add("--seed", type=whole(0, 2**32 - 1), default=0)
    group = parser.add_argument_group("several processes")
    group.add_argument("--distributed", action="store_true", help="on a pod: all of its hosts")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="elsewhere, with the next two")
    group.add_argument("--processes", type=whole(1, 10**5))
    group.add_argument("--process", type=whole(0, 10**5))
    return parser


def _start_processes(options: argparse.Namespace) -> None:
    if options.coordinator:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(options.coordinator, options.processes, options.process)
    elif options.distributed:
        jax.distributed.initialize()


def _changed(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    for name in ("rows", "accumulate", "mesh"):
        if getattr(options, name) is not None:
            recipe = replace(recipe, **{name: getattr(options, name)})
    if options.steps:
        recipe = replace(recipe, optimizer=replace(recipe.optimizer, steps=options.steps))
    return recipe


def _rendered(directory: Path, count: int, split: str) -> Path:
    """Records of the built-in head."""
    if jax.process_count() > 1:
        raise ValueError("several processes need --data and --held-out, which all of them can read")
    synthetic.render(directory, count, split=split)
    return directory


def _sides(config: Config) -> tuple[int, ...]:
    """What tells sizes apart."""
    text = config.text
    return text.hidden_size, text.num_hidden_layers, text.intermediate_size, text.vocab_size


def count(batch: Batch) -> dict[str, int]:
    """Images and tokens of a host batch."""
    return {
        "images": int(batch.inputs["vision"].segments.max(1).sum()),
        "tokens": int(np.count_nonzero(batch.segments)),
    }


def main(argv: list[str] | None = None) -> None:
    options = build_parser().parse_args(argv)
    _start_processes(options)
    recipe = _changed(RECIPES[options.recipe], options)
    folder = options.model or estimator.BUILTIN
    if options.model is None and recipe.size != "builtin":
        raise ValueError(f"{options.recipe} needs --model: its tokenizer, and its weights")
    file = folder / "config.json"
    config = config_from_dict(read_json(file), file)
    if _sides(config) != _sides(config_of(recipe.size)):
        raise ValueError(f"{file}: the model is not of the recipe's size, {recipe.size}")
    mesh = meshes.make(recipe.mesh)
    sft = recipe.sft(config, mesh)
    sft.check(mesh)
    here = Path("runs", options.recipe) if "://" in options.out else Path(options.out)
    local = options.logs or here
    data = options.data or _rendered(local / "data" / "train", options.pictures, "train")
    batches, rows, found = batches_of(sft, folder, data, mesh, options.seed)
    evaluation = None
    if options.faces:
        held_out = options.held_out or _rendered(
            local / "data" / "held-out", options.faces, "evaluation"
        )
        evaluation = Evaluation(sft, folder, records.first(held_out, options.faces), mesh)
    chosen = hooks.HookConfig(options.log_every, options.evaluate_every, label=options.recipe)
    beside = hooks.standard(
        chosen,
        count,
        share=sft.rows / len(rows),
        cost=hooks.StepCost(footprint.operations_of(sft).model, chips.peak_of(mesh)),
        examples=lambda: batches.examples,
        locate=found.locations,
        evaluate=evaluation,
        export=partial(export, sft, folder=folder, out=local),
    )
    loop.run(
        initial(sft, folder, mesh, recipe.scratch, options.seed),
        sft.build_step(mesh),
        batches,
        mesh,
        loop.LoopConfig(recipe.optimizer.steps, options.save_every),
        options.out,
        hooks=beside,
        rows=rows,
        row_count=sft.rows,
        logs=local,
    )
    tokens, patches = batches.waste
    print(
        f"padding: {tokens:.2%} of the tokens, {patches:.2%} of the patches of this process's rows"
    )


if __name__ == "__main__":
    main()
