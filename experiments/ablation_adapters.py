"""Where should a model be adapted to another rig: in text layers, vision tower or merger?

    sf-jax train ablation_adapters --out runs/ablations --rigs RIGS

The base has learnt "rationale, then coefficients" on the built-in head alone. Arms adapt it to the
training rigs of --rigs by low-rank adapters (rank 8) in one part of it, in all three, or train all
weights. The set "unseen rig" shows what is gained, the others what is kept or lost.
"""

from experiments.ablations import RESULTS, STUDY, tiny
from sf_jax.cli.ablations import Command, run
from sf_jax.systems.semanticface.ablation import Ablation, Arm

WORDS = {"words": 1.0, "foreign_words": 0.0}
BASE = Arm("rationale, then coefficients", WORDS)
TEXT = r"model\.language_model\.layers\.\d+\..*_proj"
VISION = r"model\.visual\.blocks\.\d+\.(attn|mlp)\..*"
MERGER = r"model\.visual\.(merger|deepstack_merger_list\.\d+)\.linear_fc\d"


def adapted(name: str, modules: str | None, trained: bool = True) -> Arm:
    """The base, adapted in these modules."""
    return Arm(name, WORDS, data="rigs", base=BASE, adapter=modules, trained=trained)


ABLATION = Ablation(
    name="ablation_adapters",
    question="Which part should be adapted to another rig?",
    arms=(
        adapted("not adapted", None, trained=False),
        adapted("adapter in text layers", TEXT),
        adapted("adapter in vision tower", VISION),
        adapted("adapter in mergers", MERGER),
        adapted("adapters in all three", f"{TEXT}|{VISION}|{MERGER}"),
        adapted("all weights", None),
    ),
    reference="not adapted",
    needs=("rigs",),
)


def main(argv: list[str] | None = None) -> None:
    run(Command(ABLATION.name, __doc__ or "", (ABLATION,), STUDY, tiny), argv, RESULTS)


if __name__ == "__main__":
    main()
