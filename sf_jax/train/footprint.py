"""What a run needs, by arithmetic alone: memory and floating-point operations of a step.

A model is given as the stages of its forward pass, each with the tree of weights that it declares.
`sf-jax compile` reports the compiler's own figures of the same step beside these.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import PyTree

from sf_jax.kernels.sharded import HEADS, POSITIONS, ROWS
from sf_jax.model import lora
from sf_jax.model.config import Config
from sf_jax.model.declared import Weight, leaves
from sf_jax.train.sft import Sft
from sf_jax.train.trainable import Trainable, trained_names

IMAGES_PER_ROW = 4  # of equal size, where attention among patches is counted


@dataclass(frozen=True)
class Part:
    """Weights that are applied to vectors of one kind.

    Attributes:
      declared: the tree of declarations.
      vectors: how many each matrix multiplies in one step, over the global batch.
      remat: what its layers keep for their gradients, see `model.remat`.
      last: endings of the names of each layer's last matrix, whose result no gradient needs, so
        that rematerialisation does not compute it again.
    """

    declared: PyTree[Weight]
    vectors: int
    remat: str = "none"
    last: tuple[str, ...] = ()


@dataclass(frozen=True)
class ForwardStage:
    """One stage of a forward pass, such as a tower; gradients reach it from the stages after it.

    Attributes:
      parts: its weights.
      attention: floating-point operations of its attention in a forward pass.
      kept: numbers that its layers keep for their gradients, over the global batch, where each
        keeps its inputs alone.
    """

    parts: tuple[Part, ...]
    attention: float = 0.0
    kept: float = 0.0

    @property
    def weights(self) -> list[Weight]:
        return [weight for part in self.parts for weight in leaves(part.declared)]

    @property
    def remat(self) -> str:
        """Of its layers."""
        return next((part.remat for part in self.parts if part.remat != "none"), "none")


@dataclass(frozen=True)
class Operations:
    """Floating-point operations of one step by all devices together, 2 for a product and a sum.

    Attributes:
      products: with weights, and attention: what the mathematics asks for, with every row full:
        forward, gradients of activations where something before them is trained, gradients of
        weights that are trained.
      again: what rematerialisation adds to that.
    """

    products: float
    attention: float
    again: float

    @property
    def model(self) -> float:
        """Without rematerialisation."""
        return self.products + self.attention


def operations(stages: Sequence[ForwardStage], trainable: Trainable, chunks: int = 1) -> Operations:
    """Of one step.

    A weight that is trained counts six times its size for each vector, a frozen one after trained
    ones four times, one with nothing trained before it twice.

    Args:
      stages: in the order of the forward pass.
      chunks: parts of a row whose vocabulary scores are computed one after another.
    """
    products = attention = again = 0.0
    reached = False
    for stage in stages:
        reached |= is_trained(stage, trainable)
        for part in stage.parts:
            names = trained_names(part.declared, trainable)
            for weight in filter(_multiplies, leaves(part.declared)):
                once = 2.0 * math.prod(weight.shape) * part.vectors
                products += once * (1 + reached + (weight.name in names))
                again += once * _again(weight, part, reached, chunks)
        attention += stage.attention * (3 if reached else 1)
        again += stage.attention * (reached and stage.remat == "full")
        again += 0.5 * stage.attention * reached  # scores, which no pass keeps
    return Operations(products, attention, again)


def _multiplies(weight: Weight) -> bool:
    """Whether vectors are multiplied with it; a table that is only indexed is not."""
    inner = [axis for axis in weight.axes if axis != "layer"]
    indexed = "position" in inner or (inner == ["vocab", "embed"] and not weight.copies)
    return len(inner) == 2 and not indexed


def _again(weight: Weight, part: Part, reached: bool, chunks: int) -> bool:
    """Whether a gradient computes its product a second time."""
    if "vocab" in weight.axes:
        return chunks > 1
    full = weight.stacked and reached and part.remat == "full"
    return full and not weight.name.endswith(part.last)


def is_trained(stage: ForwardStage, trainable: Trainable) -> bool:
    """Whether any of its weights is trained, itself or by an adapter."""
    declared = [part.declared for part in stage.parts]
    if trained_names(declared, trainable):
        return True
    return trainable.adapter is not None and bool(lora.chosen(trainable.adapter, declared))


def bytes_per_device(tree: PyTree) -> int:
    """Of arrays or shapes with shardings, in the tiles of 8 x 128 that a TPU has."""
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


def qwen3_vl_stages(
    config: Config, rows: int, length: int, patches: int
) -> tuple[ForwardStage, ...]:
    """The stages of Qwen3-VL: the vision tower over patches, the text model over tokens.

    Args:
      rows: of a global batch, each of `length` tokens and `patches` patches.
    """
    vision, text, declared = config.vision, config.text, config.declare()
    tower = declared.vision
    inner = text.num_hidden_layers * text.num_attention_heads * text.head_dim
    last = ("down_proj.weight", "linear_fc2.weight")
    blocks = [tower.patch_embed, tower.pos_embed, tower.blocks]
    mergers = [tower.merger, tower.deepstack]
    merged = rows * patches // vision.spatial_merge_size**2
    return (
        ForwardStage(
            (Part(blocks, rows * patches, config.vision_remat, last), Part(mergers, merged)),
            # Images attend to themselves alone.
            4.0 * rows * patches**2 / IMAGES_PER_ROW * vision.depth * vision.hidden_size,
            2.0 * vision.depth * rows * patches * vision.hidden_size,  # every output is used too
        ),
        ForwardStage(
            (Part(declared.text, rows * length, config.text_remat, last),),
            4.0 * rows * length**2 / 2 * inner,  # causal: half of the pairs
            float((text.num_hidden_layers + 2) * rows * length * text.hidden_size),
        ),
    )


def stages_of(sft: Sft) -> tuple[ForwardStage, ...]:
    """The stages of a fine-tuning run."""
    return qwen3_vl_stages(sft.config, sft.rows, sft.length, sft.patches)


def operations_of(sft: Sft) -> Operations:
    """Of one step of a fine-tuning run."""
    return operations(stages_of(sft), sft.trainable, sft.chunks)


def expected(sft: Sft, mesh: Mesh) -> dict[str, float]:
    """Bytes on each device, and operations of all devices together.

    "state" are weights and optimiser, "batch" is what a step is given, "peak" the most that is held
    at a time, or nan where layers keep more than their inputs.
    """
    state = bytes_per_device(sft.abstract_state(mesh))
    batch = bytes_per_device(sft.abstract_batch(mesh))
    found = operations_of(sft)
    return {
        "state": state,
        "batch": batch,
        "peak": state + batch + _transient(sft, mesh),
        "model": found.model,
        "again": found.again,
    }


def _transient(sft: Sft, mesh: Mesh) -> float:
    """Bytes of what a step makes, at the moment of most.

    When the loss of a part of each row is differentiated, every layer's input is kept; table and
    output layer are whole, or one table in both layouts, and their gradient if they are trained.
    """
    config, text, stages = sft.config, sft.config.text, stages_of(sft)
    if config.text_remat != "full" or config.vision_remat != "full":
        return math.nan
    size = jnp.dtype(config.product_dtype).itemsize
    shards = math.prod(mesh.shape[axis] for axis in (*ROWS, POSITIONS)) * sft.accumulate
    *earlier, last = stages
    kept = last.kept + sum(s.kept for s in earlier if is_trained(s, sft.trainable))
    scores = sft.rows * sft.length / shards / sft.chunks * text.vocab_size / mesh.shape[HEADS] * 4
    table = text.vocab_size / mesh.shape[HEADS] * text.hidden_size * size
    tables = [weight for weight in last.weights if "vocab" in weight.axes]
    of_table = bool(trained_names(tables, sft.trainable))
    return kept / shards * size + scores + table * (3 if of_table else 2)
