"""The weights of Qwen3-VL: text model and vision tower, each declared once.

`declare` gives the tree of declarations, see `model.declared`; `unstack_layers` turns its layers
from one layout into the other, see `model.layers`.
"""

from dataclasses import fields, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, PyTree

from sf_jax.model.declared import Declarer, Linear, Norm, T, Weight
from sf_jax.model.layers import (
    LAYERS,
    SMALL,
    Layout,
    has_layers,
    separate_layers,
)
from sf_jax.model.linear import AnyLinear
from sf_jax.model.towers import TextConfig, VisionConfig

HEAD = "lm_head.weight"
LOW = "bfloat16"  # the precision of passes that only draft


@struct.dataclass
class VisionBlock:
    """One block of the vision tower; `qkv` gives queries, keys and values in turn."""

    norm1: Norm
    qkv: AnyLinear
    proj: AnyLinear
    norm2: Norm
    fc1: AnyLinear
    fc2: AnyLinear


@struct.dataclass
class Merger:
    """Joins adjoining patches to one token of the text model's width."""

    norm: Norm
    fc1: AnyLinear
    fc2: AnyLinear


@struct.dataclass
class VisionWeights:
    """The vision tower.

    Attributes:
      blocks: in the tower's layout, see `model.layers`.
      deepstack: one merger for each DeepStack level, in the tower's layout; None without levels.
    """

    patch_embed: Linear
    pos_embed: Float[Array, "positions D"]
    blocks: VisionBlock | tuple[VisionBlock, ...] = struct.field(metadata=LAYERS)
    merger: Merger
    deepstack: Merger | tuple[Merger, ...] | None = struct.field(metadata=LAYERS)
    layout: Layout = struct.field(pytree_node=False, default="stacked")


@struct.dataclass
class TextLayer:
    """One layer of the text model."""

    input_norm: Norm
    q: AnyLinear
    k: AnyLinear
    v: AnyLinear
    q_norm: Norm
    k_norm: Norm
    o: AnyLinear
    post_norm: Norm
    gate: AnyLinear
    up: AnyLinear
    down: AnyLinear


@struct.dataclass
class JoinedLayer:
    """A `TextLayer` whose products over the same input are one: fewer and larger products."""

    input_norm: Norm
    qkv: AnyLinear
    q_norm: Norm
    k_norm: Norm
    o: AnyLinear
    post_norm: Norm
    gate_up: AnyLinear
    down: AnyLinear


@struct.dataclass
class TextWeights:
    """The text model.

    Attributes:
      layers: in the layout named, see `model.layers`; None where the tables alone are passed on.
      head: the output projection; None where tied to the embedding. Beside separate layers a small
        tied embedding is held here too, transposed.
    """

    embed: Float[Array, "V D"]
    layers: TextLayer | tuple[TextLayer | JoinedLayer, ...] | None = struct.field(metadata=LAYERS)
    norm: Norm
    head: Float[Array, "D V"] | None = None
    layout: Layout = struct.field(pytree_node=False, default="stacked")


@struct.dataclass
class Weights:
    """A whole model."""

    vision: VisionWeights | Any  # None for a model that reads text alone
    text: TextWeights


def _merger(declarer: Declarer, c: VisionConfig, norm_width: int) -> Merger:
    width = c.hidden_size * c.spatial_merge_size**2
    return Merger(
        norm=declarer.norm("norm", norm_width, "vision", bias=True),
        fc1=declarer.linear("linear_fc1", ("merged", "merged_hidden"), (width, width)),
        fc2=declarer.linear("linear_fc2", ("merged_hidden", "embed"), (width, c.out_hidden_size)),
    )


def _vision(c: VisionConfig, prefix: str) -> VisionWeights:
    d, f = c.hidden_size, c.intermediate_size
    top, block = Declarer(prefix), Declarer(f"{prefix}.blocks.{{}}", c.depth)
    levels = len(c.deepstack_visual_indexes)
    deepstack = Declarer(f"{prefix}.deepstack_merger_list.{{}}", levels)
    window = (c.in_channels, c.temporal_patch_size, c.patch_size, c.patch_size)
    return VisionWeights(
        patch_embed=top.convolution("patch_embed.proj", ("patch", "vision"), window, d),
        pos_embed=top.weight(
            "pos_embed.weight", (c.num_position_embeddings, d), ("position", "vision")
        ),
        blocks=VisionBlock(
            norm1=block.norm("norm1", d, "vision", bias=True),
            qkv=block.linear("attn.qkv", ("vision", "vision_heads"), (d, 3 * d)),
            proj=block.linear("attn.proj", ("vision_heads", "vision"), (d, d)),
            norm2=block.norm("norm2", d, "vision", bias=True),
            fc1=block.linear("mlp.linear_fc1", ("vision", "vision_mlp"), (d, f)),
            fc2=block.linear("mlp.linear_fc2", ("vision_mlp", "vision"), (f, d)),
        ),
        merger=_merger(Declarer(f"{prefix}.merger"), c, d),
        deepstack=_merger(deepstack, c, d * c.spatial_merge_size**2) if levels else None,
    )


def _text(c: TextConfig, prefix: str) -> TextWeights:
    d, f, h = c.hidden_size, c.intermediate_size, c.head_dim
    n, k = c.num_attention_heads * h, c.num_key_value_heads * h
    top, layer = Declarer(prefix), Declarer(f"{prefix}.layers.{{}}", c.num_hidden_layers)
    return TextWeights(
        embed=top.weight(
            "embed_tokens.weight",
            (c.vocab_size, d),
            ("vocab", "embed"),
            copies=(HEAD,) if c.tie_word_embeddings else (),
        ),
        layers=TextLayer(
            input_norm=layer.norm("input_layernorm", d, "embed"),
            q=layer.linear("self_attn.q_proj", ("embed", "heads"), (d, n), bias=False),
            k=layer.linear("self_attn.k_proj", ("embed", "kv_heads"), (d, k), bias=False),
            v=layer.linear("self_attn.v_proj", ("embed", "kv_heads"), (d, k), bias=False),
            q_norm=layer.norm("self_attn.q_norm", h, "head"),
            k_norm=layer.norm("self_attn.k_norm", h, "head"),
            o=layer.linear("self_attn.o_proj", ("heads", "embed"), (n, d), bias=False),
            post_norm=layer.norm("post_attention_layernorm", d, "embed"),
            gate=layer.linear("mlp.gate_proj", ("embed", "mlp"), (d, f), bias=False),
            up=layer.linear("mlp.up_proj", ("embed", "mlp"), (d, f), bias=False),
            down=layer.linear("mlp.down_proj", ("mlp", "embed"), (f, d), bias=False),
        ),
        norm=top.norm("norm", d, "embed"),
        head=None if c.tie_word_embeddings else _head(c),
    )


def _head(c: TextConfig) -> Any:
    shape = (c.hidden_size, c.vocab_size)
    return Weight(shape, ("embed", "vocab"), HEAD, transposed=True)


def declare(vision: VisionConfig | None, text: TextConfig) -> Weights:
    """The tree of `Weight` declarations of a Qwen3-VL model, or of Qwen3 without a vision tower."""
    if vision is None:
        return Weights(vision=None, text=_text(text, "model"))
    return Weights(
        vision=_vision(vision, "model.visual"),
        text=_text(text, "model.language_model"),
    )


def unstack_layers(weights: T, consume: bool = False) -> T:
    """Turns all stacked layers of a tree into separate ones, laid out as a CPU multiplies fastest.

    See `layers.separate_layers`. In text layers small matrices over the same input are joined: of a
    small product most is overhead. A small embedding that is also the output layer is held in
    both layouts. Nodes whose layers are separate already stay as they are.

    Args:
      consume: free each stack once it is split, so that never more than one exists twice; the
        weights given cannot be used afterwards.
    """

    def unstack(node: PyTree) -> PyTree:
        if not has_layers(node) or node.layout == "separate":
            return node
        separated = separate_layers(node, consume)
        return _with_joined_layers(separated) if isinstance(node, TextWeights) else separated

    return jax.tree.map(unstack, weights, is_leaf=has_layers)


def _with_joined_layers(text: TextWeights) -> TextWeights:
    head, layers = text.head, text.layers
    assert isinstance(layers, tuple)
    if head is None and text.embed.size < SMALL and text.embed.dtype == jnp.float32:
        head = text.embed.T
    return replace(text, layers=tuple(_joined(layer) for layer in layers), head=head)


def draft_weights(weights: Weights) -> Weights:
    """For passes that only draft: the text model alone, matrices of its layers in low precision.

    All but these matrices is shared with `weights`, the tree of any model with a field `text`.
    """

    def low(leaf: jax.Array) -> jax.Array:
        return leaf.astype(LOW) if leaf.ndim > 1 else leaf

    layers = jax.tree.map(low, weights.text.layers)
    others: dict[str, Any] = {field.name: None for field in fields(weights) if field.name != "text"}
    return replace(weights, **others, text=replace(weights.text, layers=layers))


def _joined(layer: TextLayer | JoinedLayer) -> TextLayer | JoinedLayer:
    """A layer of plain linears with those over the same input joined; others as they are."""
    if isinstance(layer, JoinedLayer):
        return layer
    attention = [linear for linear in (layer.q, layer.k, layer.v) if isinstance(linear, Linear)]
    feed_forward = [linear for linear in (layer.gate, layer.up) if isinstance(linear, Linear)]
    if len(attention) < 3 or len(feed_forward) < 2:
        return layer

    def join(linears: list[Linear]) -> Linear:
        biases = [linear.bias for linear in linears if linear.bias is not None]
        bias = jnp.concatenate(biases) if biases else None
        return Linear(jnp.concatenate([linear.weight for linear in linears], 1), bias)

    return JoinedLayer(
        layer.input_norm,
        join(attention),
        layer.q_norm,
        layer.k_norm,
        layer.o,
        layer.post_norm,
        join(feed_forward),
        layer.down,
    )
