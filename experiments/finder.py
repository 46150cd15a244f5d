"""The finder of faces, from nothing: figures, training, calibration, export.

    sf-jax train finder --rigs DIR --skins FILE --portraits DIR --backgrounds DIR --out runs/finder
    sf-jax train finder --tiny --out runs/tiny-finder      every stage, in a minute

Each stage resumes where it stopped; `sf_jax/systems/semanticface/finding.py` says what they do.
Without rigs, skins and portraits it learns the built-in head and drawings alone, and is no finder
for photographs.
"""

from dataclasses import replace
from pathlib import Path

from data_pipelines import mixtures
from data_pipelines.sources import parse_weights
from sf_jax.cli.arguments import Parser, UsageError, given_sources, source_arguments, whole
from sf_jax.model.detector import DetectorConfig
from sf_jax.systems.semanticface import finding
from sf_jax.systems.semanticface.finder_scenes import SceneConfig
from sf_jax.systems.semanticface.finding import STAGES, FinderRecipe
from sf_jax.train import mesh as meshes

RECIPE = FinderRecipe()


def tiny(recipe: FinderRecipe) -> FinderRecipe:
    """A smaller network and a few steps, to see that everything runs."""
    return replace(
        recipe,
        figures=8,
        batch=2,
        optimizer=replace(recipe.optimizer, steps=4, kind="adamw"),
        detector=DetectorConfig((4, 4, 8, 8), (1, 1, 1, 1), neck=8, head=8),
        scenes=SceneConfig(height=96, width=128, most=80.0),
        calibration=6,
    )


def main(argv: list[str] | None = None) -> None:
    parser = Parser(prog="sf-jax train finder", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/finder"), help="folder of the run")
    add("--tiny", action="store_true", help="a small network and few steps, in a minute")
    add("--stages", nargs="+", choices=STAGES, default=STAGES, help="to run, in this order")
    add("--export", type=Path, help="folder for finder.safetensors (default: OUT/model)")
    add("--start", type=Path, help="finder.safetensors to start from")
    source_arguments(parser)
    add("--objects", type=Path, help="folder of images with transparency and without faces")
    add("--mixture", help="NAME=WEIGHT,… of sources (default: all that the given files allow)")
    add("--figures", type=whole(1, 10**6), help="heads to draw (default: the recipe's)")
    add("--steps", type=whole(1, 10**9), help="of training (default: the recipe's)")
    add("--batch", type=whole(1, 4096), help="scenes of a step (default: the recipe's)")
    add("--mesh", type=meshes.parse, help="as data=4 (default: the recipe's)")
    options = parser.parse_args(argv)
    recipe = tiny(RECIPE) if options.tiny else RECIPE
    if options.figures:
        recipe = replace(recipe, figures=options.figures)
    if options.batch:
        recipe = replace(recipe, batch=options.batch)
    if options.steps:
        recipe = replace(recipe, optimizer=replace(recipe.optimizer, steps=options.steps))
    inputs = given_sources(options)
    weights = mixtures.default_weights(inputs, scenes=True)
    if options.mixture is not None:
        weights = parse_weights(options.mixture)
    if options.objects is not None and not options.objects.is_dir():
        raise UsageError(f"--objects {options.objects}: no such folder")
    print("sources: " + ", ".join(f"{name} {weight:g}" for name, weight in weights.items()))
    finding.run(
        recipe,
        options.out,
        options.stages,
        options.export or options.out / "model",
        meshes.make(options.mesh or recipe.mesh),
        mixtures.build(weights, inputs, seed=recipe.seed),
        inputs.backgrounds,
        options.objects,
        options.start,
    )


if __name__ == "__main__":
    main()
