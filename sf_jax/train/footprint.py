"""What a run needs, by arithmetic alone: memory, floating-point operations, a bound for its step.

Beside these stands what the compiler says of the same step (`sf-jax compile`).
"""

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sf_jax.kernels.sharded import HEADS, PLACES, ROWS
from sf_jax.model.weights import Weight, declare
from sf_jax.train.sft import Sft


@dataclass(frozen=True)
class Chip:
    """One TPU chip, as Google Cloud's pages on each version give it.

    Attributes:
      flops: dense bfloat16 operations a second; memory: bytes of HBM; bandwidth: of it, bytes a
        second; links: bytes a second between chips, all links of a chip together.
    """

    flops: float
    memory: float
    bandwidth: float
    links: float


CHIPS = {
    "v4": Chip(275e12, 32e9, 1228e9, 300e9),
    "v5e": Chip(197e12, 16e9, 819e9, 200e9),
    "v5p": Chip(459e12, 95e9, 2765e9, 600e9),
    "v6e": Chip(918e12, 32e9, 1640e9, 448e9),
}


def chip_of(topology: str) -> Chip:
    """The chip of a topology such as "v5p:4x4x4".

    Raises:
      ValueError: it is of no known version.
    """
    name = topology.partition(":")[0]
    if name not in CHIPS:
        raise ValueError(f"topology {topology!r} is of none of {', '.join(CHIPS)}")
    return CHIPS[name]


def sent_share(kind: str, devices: int) -> float:
    """Bytes that each of so many devices sends in a ring, for a byte of a collective's payload.

    The payload is the result of an all-gather, and the operand of anything else.
    """
    if kind == "all-reduce":
        return 2 * (devices - 1) / devices
    return 1.0 if kind == "collective-permute" else (devices - 1) / devices


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of one step by all devices together, 2 for a product and a sum.

    `model` is what the mathematics asks for, with every row full: forward, gradients of activations
    where something before them is trained, gradients of weights that are trained. `again` is what
    rematerialisation adds to that.
    """

    text: float
    vision: float
    attention: float
    again: float

    @property
    def model(self) -> float:
        return self.text + self.vision + self.attention


def operations(sft: Sft) -> Operations:
    """Of one step of a run. A weight that is trained counts six times its products a token, a
    frozen one behind trained ones four times, one before them twice."""
    config = sft.config
    tokens, patches = sft.rows * sft.length, sft.rows * sft.patches
    merged = patches // config.vision.spatial_merge_size**2
    state = _trained_names(sft)
    vision_trained = any(name.startswith("model.visual") for name in state)
    totals = {"text": 0.0, "vision": 0.0}
    again = 0.0
    for weight in jax.tree.leaves(declare(config), is_leaf=lambda x: isinstance(x, Weight)):
        if len(weight.shape) < 2 or weight.axes[-1] == "position" or "position" in weight.axes:
            continue
        if len(weight.shape) == 2 and weight.axes[0] == "layer":
            continue
        part = "vision" if weight.name.startswith("model.visual") else "text"
        times = merged if "merged" in weight.axes or "merged_hidden" in weight.axes else patches
        count = math.prod(weight.shape) * (times if part == "vision" else tokens)
        if "vocab" in weight.axes and not _is_head(weight, config.text.tie_word_embeddings):
            continue
        trained = weight.name in state
        behind = part == "text" or vision_trained  # something is trained before or at it
        totals[part] += 2 * count * (1 + behind + trained)
        remat = config.text_remat if part == "text" else config.vision_remat
        in_layers = weight.axes[0] == "layer" and "merged" not in weight.axes
        if behind and (
            ("vocab" in weight.axes and sft.chunks > 1) or (in_layers and remat != "none")
        ):
            again += 2 * count
    text, vision = config.text, config.vision
    # Causal: half of the pairs. Pictures see themselves alone; a row's are taken as four alike.
    pairs = sft.rows * sft.length**2 / 2
    of_text = 4 * pairs * text.num_hidden_layers * text.num_attention_heads * text.head_dim
    of_vision = 4 * sft.rows * sft.patches**2 / PICTURES * vision.depth * vision.hidden_size
    attention = of_text * 3.5 + of_vision * (3.5 if vision_trained else 1)
    again += of_text * (config.text_remat == "full")
    again += of_vision * (vision_trained and config.vision_remat == "full")
    return Operations(totals["text"], totals["vision"], attention, again)


PICTURES = 4  # a row


def _is_head(weight: Weight, tied: bool) -> bool:
    """Whether a table yields scores; a lookup multiplies nothing."""
    return tied or weight.axes[-1] == "vocab"


def _trained_names(sft: Sft) -> set[str]:
    """Names of the weights that are trained themselves; of those adapted, nothing is added."""
    import re

    pattern = sft.trainable.whole
    if pattern is None:
        return set()
    leaves = jax.tree.leaves(declare(sft.config), is_leaf=lambda x: isinstance(x, Weight))
    return {weight.name for weight in leaves if re.search(pattern, weight.name)}


def bytes_a_device(tree: Any) -> int:
    """Of arrays or shapes that say how they lie, without padding to tiles."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * jnp.dtype(x.dtype).itemsize
        for x in jax.tree.leaves(tree)
    )


def expected(sft: Sft, mesh: Mesh) -> dict[str, float]:
    """Bytes on each device, and operations of all devices together.

    "state" are weights and optimiser, "batch" what a step is given, "peak" the most that is held at
    a time: state and batch, the layers' inputs kept for their gradients, and what the moment adds
    at which most is needed, which is the loss or the gradient of one layer.
    """
    state, batch = sft.abstract_state(mesh), sft.abstract_batch(mesh)
    held = {"state": bytes_a_device(state), "batch": bytes_a_device(batch)}
    found = operations(sft)
    return {
        **held, "weights": bytes_a_device((state.weights, state.frozen)),
        "optimizer": bytes_a_device(state.optimizer_state),
        "peak": held["state"] + held["batch"] + _passing(sft, mesh),
        "model": found.model, "again": found.again,
    }  # fmt: skip


def _passing(sft: Sft, mesh: Mesh) -> float:
    return 0.0
