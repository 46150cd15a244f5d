"""What a run needs, by arithmetic alone: memory, floating-point operations, a bound for its step.

Beside these stands what the compiler says of the same step (`sf-jax compile`).
"""

import math
import re
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sf_jax.kernels.sharded import HEADS, PLACES, ROWS
from sf_jax.model import lora
from sf_jax.model.config import Config
from sf_jax.model.declared import Weight
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
      ValueError: it is of no known version, or does not name its sides.
    """
    name, _, sides = topology.partition(":")
    if name not in CHIPS:
        raise ValueError(f"topology {topology!r} is of none of {', '.join(CHIPS)}")
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sides):
        raise ValueError(f"topology {topology!r} names no sides, expected such as v5p:4x4x4")
    return CHIPS[name]


# What JAX calls the chips.
KINDS = {
    "TPU v4": "v4", "TPU v5 lite": "v5e", "TPU v5e": "v5e", "TPU v5": "v5p", "TPU v5p": "v5p",
    "TPU v6 lite": "v6e", "TPU v6e": "v6e",
}  # fmt: skip


def peak_of(mesh: Mesh) -> float:
    """Operations a second of all devices of a mesh together, 0 where their kind is not known."""
    kinds = [device.device_kind for device in mesh.devices.flat]
    return sum(CHIPS[KINDS[kind]].flops if kind in KINDS else 0.0 for kind in kinds)


def sent_share(kind: str, devices: int) -> float:
    """Bytes that each of so many devices sends in a ring, for a byte of a collective's payload.

    The payload is the result of an all-gather, and the operand of anything else.
    """
    if kind == "all-reduce":
        return 2 * (devices - 1) / devices
    return 1.0 if kind == "collective-permute" else (devices - 1) / devices


LAST = ("down_proj.weight", "linear_fc2.weight")  # in a layer: nothing's gradient needs its result
PICTURES = 4  # in a row, alike, where attention among patches is counted


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of one step by all devices together, 2 for a product and a sum.

    `text`, `vision` and `attention` are what the mathematics asks for, with every row full:
    forward, gradients of activations where something before them is trained, gradients of weights
    that are trained. `again` is what rematerialisation adds to that.
    """

    text: float
    vision: float
    attention: float
    again: float

    @property
    def model(self) -> float:
        return self.text + self.vision + self.attention


def operations(sft: Sft) -> Operations:
    """Of one step of a run.

    A weight that is trained counts six times its size for each token, a frozen one behind trained
    ones four times, one with nothing trained before it twice.
    """
    config = sft.config
    tokens, patches = sft.rows * sft.length, sft.rows * sft.patches
    trained = _trained_names(sft)
    vision_trained = _trains_vision(sft)
    totals, again = {"text": 0.0, "vision": 0.0}, 0.0
    for weight in _matrices(config):
        part = "vision" if weight.name.startswith("model.visual") else "text"
        times = tokens
        if part == "vision":
            merged = {"merged", "merged_hidden"} & set(weight.axes)
            times = patches // config.vision.spatial_merge_size**2 if merged else patches
        products = 2 * math.prod(weight.shape) * times
        behind = part == "text" or vision_trained
        totals[part] += products * (1 + behind + (weight.name in trained))
        remat = config.text_remat if part == "text" else config.vision_remat
        in_layer = weight.axes[0] == "layer" and "merged_hidden" not in weight.axes
        if "vocab" in weight.axes:
            again += products * (sft.chunks > 1)
        elif in_layer and behind and remat == "full" and not weight.name.endswith(LAST):
            again += products
    text, vision = config.text, config.vision
    # Causal: half of the pairs. Pictures see themselves alone.
    inner = text.num_hidden_layers * text.num_attention_heads * text.head_dim
    of_text = 4 * sft.rows * sft.length**2 / 2 * inner
    of_vision = 4 * sft.rows * sft.patches**2 / PICTURES * vision.depth * vision.hidden_size
    again += of_text * (config.text_remat == "full")
    again += of_vision * (vision_trained and config.vision_remat == "full")
    again += 0.5 * (of_text + of_vision * vision_trained)  # scores, which no pass keeps
    attention = of_text * 3 + of_vision * (3 if vision_trained else 1)
    return Operations(totals["text"], totals["vision"], attention, again)


def _matrices(config: Config) -> list[Weight]:
    """What tokens are multiplied with; a table that is only looked up in is not."""
    leaves = jax.tree.leaves(config.declare(), is_leaf=lambda x: isinstance(x, Weight))
    lookup = not config.text.tie_word_embeddings

    def multiplied(weight: Weight) -> bool:
        inner = [axis for axis in weight.axes if axis != "layer"]
        looked_up = "position" in inner or (lookup and inner == ["vocab", "embed"])
        return len(inner) == 2 and not looked_up

    return [weight for weight in leaves if multiplied(weight)]


def _trained_names(sft: Sft) -> set[str]:
    """Names of the weights that are trained themselves; factors beside others are not counted."""
    pattern = sft.trainable.whole
    leaves = jax.tree.leaves(sft.config.declare(), is_leaf=lambda x: isinstance(x, Weight))
    return {w.name for w in leaves if pattern is not None and re.search(pattern, w.name)}


def _trains_vision(sft: Sft) -> bool:
    """Whether gradients reach into the vision tower."""
    adapter = sft.trainable.adapter
    adapted = set() if adapter is None else set(lora.families(adapter, sft.config.declare()))
    return any(name.startswith("model.visual") for name in _trained_names(sft) | adapted)


def bytes_a_device(tree: Any) -> int:
    """Of arrays or shapes that say how they lie, in the tiles of 8 x 128 that a TPU has."""
    return sum(
        _tiled(x.sharding.shard_shape(x.shape)) * jnp.dtype(x.dtype).itemsize
        for x in jax.tree.leaves(tree)
    )


def _tiled(shape: tuple[int, ...]) -> int:
    """Numbers with their padding, the last two axes in the better order."""
    if len(shape) < 2:
        return math.prod(shape)
    *outer, rows, columns = shape
    either = (_up(rows, 8) * _up(columns, 128), _up(columns, 8) * _up(rows, 128))
    return math.prod(outer) * min(either)


def _up(size: int, to: int) -> int:
    return -(-size // to) * to


def expected(sft: Sft, mesh: Mesh) -> dict[str, float]:
    """Bytes on each device, and operations of all devices together.

    "state" are weights and optimiser, "batch" is what a step is given, "peak" the most that is held
    at a time, or nan where layers keep more than their inputs.
    """
    state, batch = sft.abstract_state(mesh), sft.abstract_batch(mesh)
    held, given = bytes_a_device(state), bytes_a_device(batch)
    found = operations(sft)
    return {
        "state": held,
        "batch": given,
        "peak": held + given + _passing(sft, mesh),
        "model": found.model,
        "again": found.again,
    }


def _passing(sft: Sft, mesh: Mesh) -> float:
    """Bytes of what a step makes, at the moment of most.

    When the loss of a part of each row is differentiated, every layer's input is kept; table and
    output layer lie whole, or one table in both layouts, and their gradient if they are trained.
    """
    config = sft.config
    if config.text_remat != "full" or config.vision_remat != "full":
        return math.nan
    text, vision = config.text, config.vision
    size = jnp.dtype(config.product_dtype).itemsize
    rows = sft.rows / math.prod(mesh.shape[axis] for axis in (*ROWS, PLACES)) / sft.accumulate
    tokens, patches = rows * sft.length, rows * sft.patches
    inputs = (text.num_hidden_layers + 2) * tokens * text.hidden_size * size
    trained = _trained_names(sft)
    if _trains_vision(sft):
        inputs += 2 * vision.depth * patches * vision.hidden_size * size
    scores = tokens / sft.chunks * text.vocab_size / mesh.shape[HEADS] * 4
    table = text.vocab_size / mesh.shape[HEADS] * text.hidden_size * size
    of_table = any("embed_tokens" in name or "lm_head" in name for name in trained)
    return inputs + scores + table * (3 if of_table else 2)
