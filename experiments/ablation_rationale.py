"""Does a rationale help? Regression, coefficients alone, and a rationale before or after them.

    sf-jax train ablation_rationale --out runs/ablations

The claim of the paper is that the third arm beats the first two, on unseen people and beyond. The
fourth writes the same text after the coefficients: training has it, reading does not rest on it.
"""

from experiments.ablations import SEMANTIC, WORDS, main_of
from sf_jax.decode.schema import VALUES_FIRST
from sf_jax.systems.semanticface.ablation import Ablation, Arm

ABLATION = Ablation(
    name="ablation_rationale",
    question="Does a rationale help the coefficients?",
    arms=(
        Arm("direct regression", regression=True),
        Arm("coefficients alone", {"words": 0.0}, rationale=False),
        SEMANTIC,
        Arm(
            "coefficients, then rationale",
            WORDS | {"values_first": 1.0},
            {"order": VALUES_FIRST},
        ),
    ),
    reference="coefficients alone",
    notes=(
        "Direct regression reads the tokens of the tower by queries (the read-out of the warm-up, "
        "begun anew) and has no language model. Rows of coefficients alone are shorter, so that "
        "equal compute gives that arm more steps.",
    ),
)

main = main_of(ABLATION, __doc__)


if __name__ == "__main__":
    main()
