"""Does the content of a rationale matter? One's own against that of another face.

    sf-jax train ablation_content --out runs/ablations

Both arms learn to write a rationale and then read coefficients after it; in the second, the text in
training describes some other face. What is left of its effect is that of more text.
"""

from experiments.ablations import RESULTS, STUDY, tiny
from sf_jax.cli.ablations import Command, run
from sf_jax.systems.semanticface.ablation import Ablation, Arm

ABLATION = Ablation(
    name="ablation_content",
    question="Does the content of the rationale matter?",
    arms=(
        Arm("coefficients alone", {"words": 0.0}, rationale=False),
        Arm("rationale, then coefficients", {"words": 1.0, "foreign_words": 0.0}),
        Arm(
            "another face's rationale",
            {"words": 1.0, "foreign_words": 1.0, "foreign_learnt": True},
        ),
    ),
    reference="rationale, then coefficients",
)


def main(argv: list[str] | None = None) -> None:
    run(Command(ABLATION.name, __doc__ or "", (ABLATION,), STUDY, tiny), argv, RESULTS)


if __name__ == "__main__":
    main()
