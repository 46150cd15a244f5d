"""All ablations of SemanticFace, one after another in one folder, which shares what they share.

    sf-jax train ablations --rigs RIGS --skins FILE --out runs/ablations
    sf-jax train ablations --tiny --out runs/ablations-tiny     everything at its smallest

Each of them is a recipe of its own, `ablation_NAME`, that takes the same options; an arm that is
done is never trained again, whichever recipe asks for it. Here is the study that they share: its
model, data, budgets and seeds. See docs/ablations.md.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from experiments import builtin_model
from sf_jax.cli import recipes
from sf_jax.cli.ablations import Command, run
from sf_jax.decode.schema import MODE, RATIONALE_FIRST
from sf_jax.systems.semanticface.ablation import Ablation, Arm, FixedSteps, Study

RESULTS = Path(__file__).parent / "results"
WORDS = {"words": 1.0, "foreign_words": 0.0}  # of the face's own rationale, always
SEMANTIC = Arm("rationale, then coefficients", WORDS)
# Smaller than the built-in model, with smaller images: more is learnt in the same minutes.
VISION = replace(
    builtin_model.RECIPE.vision, depth=4, out_hidden_size=192, deepstack_visual_indexes=(1,)
)
TEXT = replace(
    builtin_model.RECIPE.text,
    hidden_size=192,
    intermediate_size=384,
    num_hidden_layers=2,
    num_attention_heads=3,
    num_key_value_heads=1,
)
STUDY = Study(
    recipe=replace(
        builtin_model.at_side(builtin_model.RECIPE, 96),
        vision=VISION,
        text=TEXT,
        product_dtype="float32",  # many CPUs have no instructions for bfloat16
        images=30_000,
        held_out=0,
        evaluate_every=0,
        order=RATIONALE_FIRST,
        estimate=MODE,
        sequences=replace(builtin_model.RECIPE.sequences, values_first=0.0),
    ),
    reference=SEMANTIC,
    budget=8.0,
    tower_budget=40.0,
    reading_budget=2.0,
    seeds=3,
    faces=200,
    mixture={"builtin": 1.0},  # every rig but the built-in head is unseen, and every photo skin
)
ORDER = ("rationale", "content", "fields", "decimals", "readout", "channels", "adapters", "teacher")


def tiny(study: Study) -> Study:
    """A small model, few images and steps."""
    recipe = builtin_model.tiny(study.recipe)
    text = replace(
        recipe.text,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        mrope_section=(4, 2, 2),
    )
    vision = replace(
        recipe.vision,
        depth=1,
        hidden_size=48,
        intermediate_size=64,
        num_heads=3,
        out_hidden_size=32,
        deepstack_visual_indexes=(0,),
    )
    recipe = replace(recipe, images=8, held_out=0, text=text, vision=vision, vocabulary_faces=200)
    return replace(study, recipe=recipe, seeds=1, faces=3, steps=FixedSteps(1, 1, 2))


def main_of(ablation: Ablation, about: str | None) -> Callable[..., None]:
    """The `main` of a recipe of one ablation.

    Args:
      about: its docstring.
    """

    def main(argv: list[str] | None = None) -> None:
        run(Command(ablation.name, about or "", (ablation,), STUDY, tiny), argv, RESULTS)

    return main


def main(argv: list[str] | None = None) -> None:
    found = [recipes.load(f"ablation_{name}").ABLATION for name in ORDER]
    run(Command("ablations", __doc__ or "", found, STUDY, tiny), argv, RESULTS)


if __name__ == "__main__":
    main()
