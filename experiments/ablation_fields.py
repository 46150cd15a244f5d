"""Which of the four fields of the rationale matter? Each of them left out in turn.

    sf-jax train ablation_fields --out runs/ablations

The text of the other three stays as it is, with the numbers of its headings.
"""

from experiments.ablations import WORDS, main_of
from sf_jax.systems.semanticface.ablation import Ablation, Arm
from sf_jax.systems.semanticface.sequences import FIELDS


def without(left_out: str) -> Arm:
    """The arm that has all fields but one."""
    kept = tuple(name for name in FIELDS if name != left_out)
    return Arm(f"without {left_out.lower()}", WORDS | {"fields": kept})


ABLATION = Ablation(
    name="ablation_fields",
    question="Which fields of the rationale matter?",
    arms=(Arm("all four fields", WORDS), *map(without, FIELDS)),
    reference="all four fields",
    notes=("Without movements no level is named, so that none can be compared with the values.",),
)

main = main_of(ABLATION, __doc__)


if __name__ == "__main__":
    main()
