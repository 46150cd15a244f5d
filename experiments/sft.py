"""Supervised fine-tuning, and pretraining from scratch, of whole models on packed rows.

    sf-jax train sft 4b-lora --model Qwen3-VL-4B-Instruct/ --data DIR --out runs/4b
    sf-jax train sft builtin --steps 200        small enough for a workstation
    sf-jax train sft 4b-lora --tiny             the same path with a tiny model, in two minutes

A recipe says what is trained and how, and for which slice of TPUs it is sized (`sf-jax compile`
shows whether it fits). A run that was stopped resumes from its newest sound checkpoint, on any mesh
and any number of processes.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from data_pipelines import records, synthetic
from data_pipelines.mixed_records import MixtureError, parse_folders
from sf_jax.cli.arguments import Parser, accept_changed_data, former, whole
from sf_jax.model.lora import LoraConfig
from sf_jax.reader import loading, training
from sf_jax.systems.semanticface import fine_tuning
from sf_jax.systems.semanticface.fine_tuning import Recipe, config_of
from sf_jax.systems.semanticface.held_out import HeldOut
from sf_jax.train import checkpoint, chips, footprint, hooks, processes, task
from sf_jax.train import mesh as meshes
from sf_jax.train.losses.supervised import SupervisedConfig
from sf_jax.train.optimizer import OptimizerConfig
from sf_jax.train.trainable import Trainable

__all__ = ["RECIPES", "Recipe", "config_of", "main"]

LORA = Trainable(None, LoraConfig(r".*language_model\.layers\..*_proj", rank=16, alpha=32.0))
ADAPTERS = OptimizerConfig(1e-4, 2000, 100, kind="adamw")
SCRATCH: dict[str, Any] = {
    "optimizer": OptimizerConfig(3e-4, 100_000, 2000, weight_decay=0.1, kind="adamw"),
    "objective": SupervisedConfig(chunks=8, z_loss=1e-4),
    "scratch": True,
}
WORKSTATION: dict[str, Any] = {
    "optimizer": OptimizerConfig(1e-5, 200, 20, kind="adamw"),
    "length": 1136,
    "patches": 216,
    "accumulate": 0,
    "objective": SupervisedConfig(),
    "remat": "none",
    "product_dtype": "float32",
    "unrolled": True,
}
# Adapters start at zero and fresh weights at nothing: both take larger steps than trained weights.
QUICK_LORA = OptimizerConfig(1e-4, 200, 10, kind="adamw")
QUICK_SCRATCH: dict[str, Any] = {
    "optimizer": OptimizerConfig(3e-4, 200, 10, kind="adamw"),
    "scratch": True,
}
RECIPES = {
    "2b-lora": Recipe("2B", "v5e:4x4", {"fsdp": 16}, 16, LORA, ADAPTERS),
    "2b-full": Recipe("2B", "v5e:4x8", {"fsdp": 32}, 32),
    "4b-lora": Recipe("4B", "v5e:4x4", {"fsdp": 16}, 16, LORA, ADAPTERS),
    "4b-full": Recipe("4B", "v5p:4x4x4", {"data": 2, "fsdp": 32}, 64),
    "8b-lora": Recipe("8B", "v5e:8x8", {"fsdp": 64}, 64, LORA, ADAPTERS),
    "8b-full": Recipe("8B", "v5p:4x4x4", {"fsdp": 64}, 64),
    "2b-scratch": Recipe("2B", "v6e:16x16", {"data": 4, "fsdp": 64}, 256, **SCRATCH),
    "4b-scratch": Recipe("4B", "v6e:16x16", {"data": 8, "fsdp": 32}, 256, **SCRATCH),
    "8b-scratch": Recipe("8B", "v5p:8x8x8", {"data": 4, "fsdp": 128}, 512, **SCRATCH),
    "builtin": Recipe("builtin", "workstation", {"fsdp": -1}, 8, **WORKSTATION),
    "builtin-lora": Recipe(
        "builtin", "workstation", {"fsdp": -1}, 8, LORA, **WORKSTATION | {"optimizer": QUICK_LORA}
    ),
    "builtin-scratch": Recipe(
        "builtin", "workstation", {"fsdp": -1}, 8, **WORKSTATION | QUICK_SCRATCH
    ),
}


def tiny(recipe: Recipe) -> Recipe:
    """The recipe's path with the built-in model and few steps; learns nothing."""
    return replace(
        recipe,
        size="builtin",
        mesh={"fsdp": -1},
        rows=2,
        length=568,
        patches=108,
        pool=4,
        optimizer=replace(recipe.optimizer, steps=4),
    )


def _data(text: str) -> Path | dict[Path, float]:
    """A directory, or several with their shares."""
    if Path(text).is_dir() or not set(text) & {"=", ","}:
        return Path(text)
    try:
        return parse_folders(text)
    except MixtureError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="sf-jax train sft",
        description=__doc__,
    )
    add = parser.add_argument
    add("recipe", choices=RECIPES, metavar="RECIPE", help=", ".join(RECIPES))
    add("--model", type=Path, help="Hugging Face directory (default: the built-in model's)")
    add(
        "--data",
        type=_data,
        help="directory of face records, or DIR=WEIGHT,DIR=WEIGHT,… (default: some are rendered)",
    )
    add("--held-out", type=Path, help="records to evaluate on (default: some are rendered)")
    add("--out", default="runs/sft", help="directory of the run, local or gs://")
    add(
        "--logs",
        type=Path,
        help="local folder for metrics and the result (default: --out, or runs/RECIPE)",
    )
    add("--tiny", action="store_true", help="the built-in model and few steps, in two minutes")
    add("--mesh", type=meshes.parse, help="as fsdp=8,tensor=2 (default: the recipe's)")
    add("--steps", type=whole(1, 10**9), help="of training (default: the recipe's)")
    add("--rows", type=whole(1, 10**6), help="of a global batch (default: the recipe's)")
    add(
        "--accumulate",
        type=whole(1, 10**4),
        help="parts of a batch taken one after another (default: the recipe's)",
    )
    add("--save-every", type=whole(1, 10**9), default=100, help="steps between checkpoints")
    add("--log-every", type=whole(1, 10**9), help="steps (default 10)")
    add(
        "--evaluate-every",
        type=whole(0, 10**9),
        default=0,
        help="steps between evaluations (default 0: at the end alone)",
    )
    add("--faces", type=whole(0, 10**6), help="held-out faces (default 64); 0 evaluates nothing")
    add("--images", type=whole(1, 10**6), help="to render where there is no --data (default 2000)")
    former(parser, "--pictures", dest="images", type=whole(1, 10**6))
    add("--seed", type=whole(0, 2**32 - 1), default=0, help="of order, noise and adapters")
    accept_changed_data(parser)
    group = parser.add_argument_group("several processes")
    group.add_argument("--distributed", action="store_true", help="on a pod: all of its hosts")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="elsewhere, with the next two")
    group.add_argument("--processes", type=whole(1, 10**5), help="how many there are")
    group.add_argument("--process", type=whole(0, 10**5), help="which of them this is, from 0")
    return parser


def _start_processes(options: argparse.Namespace) -> None:
    if options.coordinator:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(options.coordinator, options.processes, options.process)
    elif options.distributed:
        jax.distributed.initialize()


def _chosen(options: argparse.Namespace) -> Recipe:
    """The recipe with what the options change."""
    recipe = RECIPES[options.recipe]
    if options.tiny:
        recipe = tiny(recipe)
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


def main(argv: list[str] | None = None) -> None:
    options = build_parser().parse_args(argv)
    _start_processes(options)
    recipe = _chosen(options)
    source = options.model or loading.BUILTIN
    if options.model is None and recipe.size != "builtin":
        raise ValueError(f"{options.recipe} needs --model: its tokenizer, and its weights")
    config = training.config_in(source)
    fine_tuning.check_size(recipe, config, source)
    mesh = meshes.make(recipe.mesh)
    recipe.sft(config, mesh).check(mesh)  # before anything is rendered
    local = Path("runs", options.recipe) if "://" in options.out else Path(options.out)
    local = options.logs or local
    with processes.held(local):
        _run(options, recipe, source, mesh, local)


def _run(
    options: argparse.Namespace, recipe: Recipe, source: Path, mesh: Mesh, local: Path
) -> None:
    """Prepares the data and trains; `local` is the folder of logs and results."""
    held_out = None
    faces = options.faces if options.faces is not None else 2 if options.tiny else 64
    if faces:
        where = options.held_out or _rendered(local / "data" / "held-out", faces, "evaluation")
        held_out = HeldOut(records.first(where, faces))
    count = options.images or (24 if options.tiny else 2000)
    train = local / "data" / "train"
    if options.data is None and checkpoint.begun(options.out) and not options.accept_changed_data:
        synthetic.check_unchanged(train, count)
    data = options.data or _rendered(train, count, "train")
    sft = fine_tuning.task_of(recipe, source, mesh, held_out)
    batches, feed = fine_tuning.feed_of(sft, recipe, data, mesh, options.seed)
    log_every = options.log_every or (1 if options.tiny else 10)
    beside = hooks.HookConfig(log_every, options.evaluate_every, label=options.recipe)
    task.run(
        sft,
        training.initial_state(sft, sft.source, mesh, recipe.scratch, options.seed),
        feed,
        mesh,
        options.out,
        task.RunConfig(
            options.save_every, beside=beside, accept_changed_data=options.accept_changed_data
        ),
        logs=local,
        export=local,
        cost=hooks.StepCost(footprint.operations_of(sft).model, chips.peak_of(mesh)),
    )
    tokens, patches = batches.waste
    print(
        f"padding: {tokens:.2%} of the tokens, {patches:.2%} of the patches of this process's rows"
    )


if __name__ == "__main__":
    main()
