"""Do the nine angles help or harm the 52 blendshapes?

    sf-jax train ablation_channels --out runs/ablations

The second arm reads the 52 blendshapes of ARKit alone; rationales describe the head in both.
"""

from experiments.ablations import RESULTS, STUDY, tiny
from sf_jax.cli.ablations import Command, run
from sf_jax.face.channels import BLENDSHAPES, NAMES
from sf_jax.systems.semanticface.ablation import Ablation, Arm

WORDS = {"words": 1.0, "foreign_words": 0.0}
ABLATION = Ablation(
    name="ablation_channels",
    question="52 blendshapes alone, or 61 channels?",
    arms=(
        Arm("61 channels", WORDS),
        Arm("52 blendshapes", WORDS, {"channels": NAMES[BLENDSHAPES]}),
    ),
    reference="61 channels",
)


def main(argv: list[str] | None = None) -> None:
    run(Command(ABLATION.name, __doc__ or "", (ABLATION,), STUDY, tiny), argv, RESULTS)


if __name__ == "__main__":
    main()
