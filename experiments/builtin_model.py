"""The built-in model, from nothing: render, warm the tower up, read, speak, export, draft heads.

    sf-jax train builtin_model --rigs DIR --skins FILE --backgrounds DIR --out runs/builtin
    sf-jax train builtin_model --tiny --out runs/tiny      every stage, in two minutes

Without --rigs and --skins it learns the built-in head and drawings alone, and reads other faces
badly. Each stage resumes where it stopped; see `sf_jax/systems/semanticface/pretraining.py`.
"""

from dataclasses import replace
from pathlib import Path

from data_pipelines.sources import parse_weights
from data_pipelines.views import Views
from sf_jax.cli.arguments import (
    Parser,
    UsageError,
    accept_changed_data,
    former,
    given_sources,
    source_arguments,
    whole,
)
from sf_jax.decode.schema import MEDIAN, VALUES_FIRST
from sf_jax.model.config import TextConfig, VisionConfig
from sf_jax.reader import loading
from sf_jax.systems.semanticface import pretraining
from sf_jax.systems.semanticface.dense_targets import CELLS, readout_config
from sf_jax.systems.semanticface.recipe import Recipe, Stage
from sf_jax.systems.semanticface.sequences import SequenceConfig
from sf_jax.train import mesh as meshes
from sf_jax.train.draft_heads import DraftHeadsConfig
from sf_jax.train.losses.joint import JointConfig
from sf_jax.train.losses.supervised import SupervisedConfig
from sf_jax.train.optimizer import OptimizerConfig

RECIPE = Recipe(
    images=160_000,
    vision=VisionConfig(
        depth=6,
        hidden_size=192,
        intermediate_size=576,
        num_heads=3,
        out_hidden_size=256,
        num_position_embeddings=144,
        deepstack_visual_indexes=(1, 3),
    ),
    text=TextConfig(
        vocab_size=0,  # the tokenizer's
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        mrope_section=(12, 10, 10),
        rope_theta=10_000.0,
    ),
    vocabulary=1600,
    vocabulary_faces=8000,
    value_frequencies=(0.0, 0.5, 1.0, 2.0, 4.0),
    value_scale=0.02,
    rare=-2.0,
    patches=64,  # 128 x 128 pixels, or 96 x 160
    warmup=Stage(128, OptimizerConfig(2e-3, 16_000, 200)),
    views=Views(size=128, cells=32),
    reading=Stage(64, OptimizerConfig(1.5e-3, 2000, 100)),
    language=Stage(32, OptimizerConfig(1e-3, 1200, 40)),
    objective=JointConfig(
        readout=readout_config(
            heads=4, landmark_scale=0.01, offset_scale=0.06, bounded=4.0, signed=20.0,
            positions=0.5, parts=0.3, patch=0.2, offsets=0.1,
        ),
        supervised=SupervisedConfig(squares=8.0),
        twins=16.0,
        dense=0.5,
    ),
    sequences=SequenceConfig(
        length=240, words=1.0, foreign_words=0.5, foreign_values=0.3, words_weight=3.0, gap=120,
        values_first=1.0,
    ),
    order=VALUES_FIRST,  # `answer_order` compares
    estimate=MEDIAN,
    draft_answers=4_000,
    draft_heads=DraftHeadsConfig(heads=9, width=128, steps=3_000, batch=2048, learning_rate=3e-3),
    mesh={"data": -1},
    product_dtype="bfloat16",
    held_out=2000,
    evaluate_every=1000,
)  # fmt: skip


def tiny(recipe: Recipe) -> Recipe:
    """A smaller model and a few steps of each stage, to see that everything runs."""

    def few(stage: Stage, kind: str = "adamw") -> Stage:  # Muon takes long to compile
        return replace(stage, batch=4, optimizer=replace(stage.optimizer, steps=4, kind=kind))

    return replace(
        recipe,
        images=16,
        held_out=8,
        vision=replace(recipe.vision, depth=2, deepstack_visual_indexes=(0,)),
        text=replace(recipe.text, num_hidden_layers=2),
        vocabulary=800,
        vocabulary_faces=300,
        warmup=few(recipe.warmup, "muon"),
        reading=few(recipe.reading),
        language=few(recipe.language),
        sequences=replace(recipe.sequences, length=300),
        draft_answers=4,
        draft_heads=replace(recipe.draft_heads, heads=2, steps=10, batch=64),
        product_dtype="float32",
    )


def at_side(recipe: Recipe, side: int) -> Recipe:
    """The recipe for images of another size, pixels.

    Raises:
      UsageError: it is no multiple of what an image token covers.
    """
    token = recipe.vision.patch_size * recipe.vision.spatial_merge_size
    if side % token:
        raise UsageError(f"--side {side} is not a multiple of {token}")
    cells = side // recipe.vision.patch_size * CELLS
    patches = (side // recipe.vision.patch_size) ** 2
    return replace(recipe, patches=patches, views=replace(recipe.views, size=side, cells=cells))


def main(argv: list[str] | None = None) -> None:
    stages = pretraining.STAGES
    parser = Parser(prog="sf-jax train builtin_model", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/builtin"), help="folder of the run")
    add("--tiny", action="store_true", help="a small model and few steps, in two minutes")
    add("--stages", nargs="+", choices=stages, default=stages, help="to run, in this order")
    add("--export", type=Path, help="model directory to write (default: OUT/model)")
    add("--start", type=Path, help="exported model whose tower to start from")
    add("--mesh", type=meshes.parse, help="as data=4,fsdp=2 (default: the recipe's)")
    add("--images", type=whole(1, 10**7), help="rendered faces (default: the recipe's)")
    add("--mixture", type=parse_weights, help="NAME=WEIGHT,… of sources (default: all that can be)")
    source_arguments(parser)
    add(
        "--side",
        type=whole(32, 512),
        help="of an image that is read, pixels (default: the recipe's)",
    )
    former(parser, "--pictures", dest="images", type=whole(1, 10**7))
    accept_changed_data(parser)
    for stage in ("warmup", "reading", "language"):
        help = f"of the {stage} stage (default: the recipe's)"
        add(f"--{stage}-steps", type=whole(1, 10**9), help=help)
    options = parser.parse_args(argv)
    recipe = tiny(RECIPE) if options.tiny else RECIPE
    recipe = replace(recipe, accept_changed_data=options.accept_changed_data)
    inputs = given_sources(options)
    recipe = replace(recipe, inputs=inputs, mixture=options.mixture)
    if None in (inputs.rigs, inputs.skins):
        print("without --rigs and --skins the built-in head and drawings are all that is learnt")
    if options.images:
        recipe = replace(recipe, images=options.images)
    if options.side:
        recipe = at_side(recipe, options.side)
    for name in ("warmup", "reading", "language"):
        if steps := getattr(options, f"{name}_steps"):
            stage = getattr(recipe, name)
            changed = replace(stage, optimizer=replace(stage.optimizer, steps=steps))
            recipe = replace(recipe, **{name: changed})
    mesh = meshes.make(options.mesh or recipe.mesh)
    export = options.export or options.out / "model"
    pretraining.run(recipe, options.out, options.stages, export, mesh, options.start)
    if "export" in options.stages:
        print(f"the model is in {export}; the shipped one is in {loading.BUILTIN}")


if __name__ == "__main__":
    main()
