"""Are a language model's rationales better teachers than the rule-based describer's?

    sf-jax train ablation_teacher --out runs/ablations --teacher RECORDS

Both arms are trained on the records of --teacher: one on the rationales in them, the other on those
that the describer gives the same faces. The tokenizer is trained on both kinds of text and has room
for freer wording, and rows are longer; mirrored images have left and right exchanged in the text.
"""

from experiments.ablations import WORDS, main_of
from sf_jax.systems.semanticface.ablation import Ablation, Arm

RECORDED = WORDS | {"recorded": True, "length": 480}
ROOM = {"vocabulary": 3200}
ABLATION = Ablation(
    name="ablation_teacher",
    question="Rationales of the describer, or of a language model?",
    arms=(
        Arm("describer", RECORDED, ROOM, data="describer"),
        Arm("language model", RECORDED, ROOM, data="teacher"),
    ),
    reference="describer",
    needs=("teacher",),
    notes=(
        "Rationales are those of the records as they are, one a face, where other ablations word "
        "them anew each time; training sees other faces than there.",
    ),
)

main = main_of(ABLATION, __doc__)


if __name__ == "__main__":
    main()
