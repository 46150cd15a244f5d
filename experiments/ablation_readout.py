"""Which number should be taken of a slot's distribution: mean, median or the most probable?

    sf-jax train ablation_readout --out runs/ablations

One model, read in four ways: nothing is trained for this beside "rationale, then coefficients".
"Generated" are the values of the text itself, in which each depends on those before it.
"""

from experiments.ablations import WORDS, main_of
from sf_jax.systems.semanticface.ablation import MEAN, READ_OUTS, Ablation, Arm

ABLATION = Ablation(
    name="ablation_readout",
    question="Mean, median or arg-max of the slots?",
    arms=tuple(Arm(name, WORDS, read_out=name) for name in READ_OUTS),
    reference=MEAN,
    notes=("All rows are of the same models: their differences hold no chance of training.",),
)

main = main_of(ABLATION, __doc__)


if __name__ == "__main__":
    main()
