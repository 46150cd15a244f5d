"""Do the nine angles help or harm the 52 blendshapes?

    sf-jax train ablation_channels --out runs/ablations

The second arm reads the 52 blendshapes of ARKit alone; rationales describe the head in both.
"""

from experiments.ablations import WORDS, main_of
from sf_jax.face.channels import BLENDSHAPES, NAMES
from sf_jax.systems.semanticface.ablation import Ablation, Arm

ABLATION = Ablation(
    name="ablation_channels",
    question="52 blendshapes alone, or 61 channels?",
    arms=(
        Arm("61 channels", WORDS),
        Arm("52 blendshapes", WORDS, {"channels": NAMES[BLENDSHAPES]}),
    ),
    reference="61 channels",
)

main = main_of(ABLATION, __doc__)


if __name__ == "__main__":
    main()
