"""How many decimals should the values of an answer have: one, two or three?

    sf-jax train ablation_decimals --out runs/ablations

The values of a slot are 11, 101 or 1,001 tokens (21, 201 or 2,001 of an angle), each a token of its
own, learnt over all of them from exact labels. A mean over coarse values may be as fine as one over
many.
"""

from experiments.ablations import WORDS, main_of
from sf_jax.systems.semanticface.ablation import Ablation, Arm

ABLATION = Ablation(
    name="ablation_decimals",
    question="How many decimals should values have?",
    arms=(
        Arm("1 decimal", WORDS, {"decimals": 1}),
        Arm("2 decimals", WORDS, {"decimals": 2}),
        Arm("3 decimals", WORDS, {"decimals": 3}),
    ),
    reference="1 decimal",
    notes=("The vocabulary grows by the values; the tokens of a row stay as many.",),
)

main = main_of(ABLATION, __doc__)


if __name__ == "__main__":
    main()
