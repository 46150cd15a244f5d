"""What serves a device best: the layout of its weights, how wide to draft, drafts in low precision.

All that depends on the device is decided here, once, when a model is set up. It changes the time
that an answer takes, never the answer.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar, cast

import jax
from jaxtyping import PyTree

from sf_jax.decode.generate import DraftPlan
from sf_jax.model.architecture import ModelWeights
from sf_jax.model.weights import Weights, draft_weights, unstack_layers

T = TypeVar("T", bound=ModelWeights)

LARGE = 2**26  # numbers in the text layers, of which a second copy is too large
# By what passes cost: on a CPU more tokens take longer (`sf-jax bench plans` measures there),
# elsewhere a pass over the block costs little more than one token.
PLANS = {
    "cpu": DraftPlan(
        rationale_width=10, block_widths=(32, 64, 96), growth=64, low_precision_passes=2
    ),
    "cpu, no bfloat16": DraftPlan(rationale_width=10, block_widths=(32, 64, 96), growth=64),
    "cpu, large": DraftPlan(rationale_width=10, block_widths=(16, 48), growth=2),
    "accelerator": DraftPlan(rationale_width=10, block_widths=(), growth=4),
}


@dataclass(frozen=True)
class DevicePolicy:
    """How a model is run on a device.

    Attributes:
      layers: "stacked" layers are scanned, as accelerators do; short passes on a CPU loop over
        "separate" arrays, since a scan copies each layer out of its stack.
      plan: how wide to draft.
      low_precision_drafts: whether the plan's passes in low precision are cheaper than others.
    """

    layers: Literal["stacked", "separate"]
    plan: DraftPlan
    low_precision_drafts: bool

    def laid_out(self, weights: T, consume: bool = False) -> T:
        """Weights in the layout asked for; those with separate layers already stay as they are.

        Args:
          consume: free what is copied; the weights given cannot be used afterwards.
        """
        return unstack_layers(weights, consume) if self.layers == "separate" else weights

    def for_drafts(self, weights: T) -> T | None:
        """Weights for the plan's passes in low precision; None where there are none."""
        if not self.low_precision_drafts:
            return None
        return cast(T, draft_weights(cast(Weights, weights)))  # of any tree with a text model


def cpu_instructions(listed: Path = Path("/proc/cpuinfo")) -> str:
    """The line that names the instructions of this CPU; empty where the system has none."""
    with contextlib.suppress(OSError):
        lines = listed.read_text(errors="replace").splitlines()
        return next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return ""


def multiplies_bfloat16(instructions: str | None = None) -> bool:
    """Whether a CPU has instructions for products of bfloat16, without which such a pass takes
    longer than one in float32.

    Args:
      instructions: as `cpu_instructions` gives them; None: this CPU's.
    """
    named = cpu_instructions() if instructions is None else instructions
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(named.split())


def policy_of(
    platform: str, text_layers: PyTree, product_dtype: str, bfloat16: bool | None = None
) -> DevicePolicy:
    """The policy of a platform.

    Args:
      platform: of the devices, as `jax.default_backend()` names it.
      text_layers: the weights of the text layers, of which the sizes count.
      product_dtype: type of the operands of products.
      bfloat16: whether a CPU multiplies it; None looks at this one.
    """
    size = sum(leaf.size for leaf in jax.tree.leaves(text_layers))
    if platform != "cpu":
        kind = "accelerator"
    elif size >= LARGE:
        kind = "cpu, large"
    else:
        fast = multiplies_bfloat16() if bfloat16 is None else bfloat16
        kind = "cpu" if fast else "cpu, no bfloat16"
    plan = PLANS[kind]
    exact = product_dtype == "float32" and plan.low_precision_passes > 0
    return DevicePolicy("separate" if platform == "cpu" else "stacked", plan, exact)
