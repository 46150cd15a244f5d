"""Which number should be taken of a slot's distribution: mean, median or the most probable?

    sf-jax train ablation_readout --out runs/ablations

One model, read in four ways: nothing is trained for this beside "rationale, then coefficients".
"Generated" are the values of the text itself, in which each depends on those before it.
"""

from experiments.ablations import RESULTS, STUDY, tiny
from sf_jax.cli.ablations import Command, run
from sf_jax.systems.semanticface.ablation import MEAN, READ_OUTS, Ablation, Arm

WORDS = {"words": 1.0, "foreign_words": 0.0}
ABLATION = Ablation(
    name="ablation_readout",
    question="Mean, median or arg-max of the slots?",
    arms=tuple(Arm(name, WORDS, read_out=name) for name in READ_OUTS),
    reference=MEAN,
    notes=("All rows are of the same models: their differences hold no chance of training.",),
)


def main(argv: list[str] | None = None) -> None:
    run(Command(ABLATION.name, __doc__ or "", (ABLATION,), STUDY, tiny), argv, RESULTS)


if __name__ == "__main__":
    main()
