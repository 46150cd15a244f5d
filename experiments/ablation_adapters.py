"""Where should a model be adapted to another rig: in text layers, vision tower or merger?

    sf-jax train ablation_adapters --out runs/ablations --rigs RIGS

The base has learnt "rationale, then coefficients" on the built-in head alone. Arms adapt it to the
training rigs of --rigs by low-rank adapters (rank 8) in one part of it, in all three, or train all
weights. The set "unseen rig" shows what is gained, the others what is kept or lost.
"""

from experiments.ablations import SEMANTIC, WORDS, main_of
from sf_jax.systems.semanticface.ablation import Ablation, Arm

TEXT = r"model\.language_model\.layers\.\d+\..*_proj"
VISION = r"model\.visual\.blocks\.\d+\.(attn|mlp)\..*"
MERGER = r"model\.visual\.(merger|deepstack_merger_list\.\d+)\.linear_fc\d"


def adapted(name: str, modules: str | None, trained: bool = True) -> Arm:
    """The base, adapted in these modules."""
    return Arm(name, WORDS, data="rigs", base=SEMANTIC, adapter=modules, trained=trained)


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

main = main_of(ABLATION, __doc__)


if __name__ == "__main__":
    main()
