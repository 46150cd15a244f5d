"""How many decimals should the values of an answer have: one, two or three?

    sf-jax train ablation_decimals --out runs/ablations

The values of a slot are 11, 101 or 1,001 tokens (21, 201 or 2,001 of an angle), each a token of its
own, learnt over all of them from exact labels. A mean over coarse values may be as fine as one over
many.
"""

from experiments.ablations import RESULTS, STUDY, tiny
from sf_jax.cli.ablations import Command, run
from sf_jax.systems.semanticface.ablation import Ablation, Arm

WORDS = {"words": 1.0, "foreign_words": 0.0}
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


def main(argv: list[str] | None = None) -> None:
    run(Command(ABLATION.name, __doc__ or "", (ABLATION,), STUDY, tiny), argv, RESULTS)


if __name__ == "__main__":
    main()
