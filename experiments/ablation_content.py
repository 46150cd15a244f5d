"""Does the content of a rationale matter? One's own against that of another face.

    sf-jax train ablation_content --out runs/ablations

Both arms learn to write a rationale and then read coefficients after it; in the second, the text in
training describes some other face. What is left of its effect is that of more text.
"""

from experiments.ablations import SEMANTIC, WORDS, main_of
from sf_jax.systems.semanticface.ablation import Ablation, Arm

ABLATION = Ablation(
    name="ablation_content",
    question="Does the content of the rationale matter?",
    arms=(
        Arm("coefficients alone", {"words": 0.0}, rationale=False),
        SEMANTIC,
        Arm(
            "another face's rationale",
            WORDS | {"foreign_words": 1.0, "foreign_learnt": True},
        ),
    ),
    reference="rationale, then coefficients",
)

main = main_of(ABLATION, __doc__)


if __name__ == "__main__":
    main()
