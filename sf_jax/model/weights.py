"""Every weight of the model, declared once.

A `Weight` says shape, logical axes, initialiser and the tensor's name in Hugging Face checkpoints.
`declare` builds the tree of them; from that tree come initial values (`initialise`), abstract
shapes (`abstract`), the parameter count and the checkpoint map. Linear weights are stored [in,
out]; layers are stacked on a leading axis "layer" so that they can be scanned.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from sf_jax.model.towers import TextConfig, VisionConfig


@dataclass(frozen=True)
class Weight:
    """Declaration of one array.

    Attributes:
      shape: with the leading layer axis where stacked.
      axes: a logical name for each axis, for sharding rules.
      name: the tensor's name in a Hugging Face checkpoint; "{}" stands for the layer number.
      init: "normal" (deviation `scale`), "zeros" or "ones".
      transposed: the checkpoint stores [out, in].
      source_shape: the checkpoint's shape where it is more than a transposition.
    """

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    name: str
    init: str = "normal"
    scale: float = 0.02
    transposed: bool = False
    source_shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        assert len(self.shape) == len(self.axes), self


@struct.dataclass
class Norm:
    scale: Any
    bias: Any = None


@struct.dataclass
class Linear:
    weight: Any
    bias: Any = None


SMALL = 2**20  # values of a weight matrix, from which on it is large
LOW = "bfloat16"  # the precision of passes that only guess


@struct.dataclass
class OutputMajorLinear:
    """A linear whose weight lies [O, I], as a CPU multiplies few rows fastest by."""

    weight: Any
    bias: Any = None


@struct.dataclass
class VisionBlock:
    norm1: Norm
    qkv: Linear
    proj: Linear
    norm2: Norm
    fc1: Linear
    fc2: Linear


@struct.dataclass
class Merger:
    norm: Norm
    fc1: Linear
    fc2: Linear


@struct.dataclass
class VisionWeights:
    patch_embed: Linear
    pos_embed: Any
    blocks: Any  # a VisionBlock stacked [L, ...], or a tuple of them (see `unstack_layers`)
    merger: Merger
    deepstack: Any  # a Merger stacked, one for each DeepStack level, or a tuple of them; or None


@struct.dataclass
class TextLayer:
    input_norm: Norm
    q: Linear
    k: Linear
    v: Linear
    q_norm: Norm
    k_norm: Norm
    o: Linear
    post_norm: Norm
    gate: Linear
    up: Linear
    down: Linear


@struct.dataclass
class JoinedLayer:
    """A `TextLayer` whose products over the same input are one: fewer and larger products."""

    input_norm: Norm
    qkv: Linear
    q_norm: Norm
    k_norm: Norm
    o: Linear
    post_norm: Norm
    gate_up: Linear
    down: Linear


@struct.dataclass
class TextWeights:
    embed: Any
    layers: Any  # a TextLayer stacked [L, ...], or a tuple of TextLayers (see `unstack_layers`)
    norm: Norm
    head: Any = None  # [D, V]; None where tied to the embedding


@struct.dataclass
class Weights:
    vision: VisionWeights | Any  # None for a model that reads text alone
    text: TextWeights


class _Declarer:
    """Prefix and optional stacking shared by the declarations of one part."""

    def __init__(self, prefix: str, layers: int | None = None):
        self.prefix, self.layers = prefix, layers

    def weight(self, name: str, shape: tuple, axes: tuple, **options: Any) -> Weight:
        if self.layers is not None:
            shape, axes = (self.layers, *shape), ("layer", *axes)
        return Weight(shape, axes, f"{self.prefix}.{name}", **options)

    def linear(self, name: str, axes: tuple, shape: tuple[int, int], bias: bool = True) -> Linear:
        scale = min(0.02, 0.6 * shape[0] ** -0.5) if shape[0] > 900 else shape[0] ** -0.5 * 0.6
        weight = self.weight(f"{name}.weight", shape, axes, scale=scale, transposed=True)
        if not bias:
            return Linear(weight)
        return Linear(weight, self.weight(f"{name}.bias", shape[1:], axes[1:], init="zeros"))

    def norm(self, name: str, width: int, axis: str, bias: bool = False) -> Norm:
        scale = self.weight(f"{name}.weight", (width,), (axis,), init="ones")
        if not bias:
            return Norm(scale)
        return Norm(scale, self.weight(f"{name}.bias", (width,), (axis,), init="zeros"))


def _merger(declarer: _Declarer, c: VisionConfig, norm_width: int) -> Merger:
    width = c.hidden_size * c.spatial_merge_size**2
    return Merger(
        norm=declarer.norm("norm", norm_width, "vision", bias=True),
        fc1=declarer.linear("linear_fc1", ("merged", "merged_hidden"), (width, width)),
        fc2=declarer.linear("linear_fc2", ("merged_hidden", "embed"), (width, c.out_hidden_size)),
    )


def _vision(c: VisionConfig, prefix: str) -> VisionWeights:
    d, f = c.hidden_size, c.intermediate_size
    top, block = _Declarer(prefix), _Declarer(f"{prefix}.blocks.{{}}", c.depth)
    levels = len(c.deepstack_visual_indexes)
    deepstack = _Declarer(f"{prefix}.deepstack_merger_list.{{}}", levels)
    kernel = (d, c.in_channels, c.temporal_patch_size, c.patch_size, c.patch_size)
    patch = top.weight(
        "patch_embed.proj.weight",
        (c.patch_width, d),
        ("patch", "vision"),
        scale=c.patch_width**-0.5,
        transposed=True,
        source_shape=kernel,
    )
    return VisionWeights(
        patch_embed=Linear(
            patch, top.weight("patch_embed.proj.bias", (d,), ("vision",), init="zeros")
        ),
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
        merger=_merger(_Declarer(f"{prefix}.merger"), c, d),
        deepstack=_merger(deepstack, c, d * c.spatial_merge_size**2) if levels else None,
    )


def _text(c: TextConfig, prefix: str) -> TextWeights:
    d, f, h = c.hidden_size, c.intermediate_size, c.head_dim
    n, k = c.num_attention_heads * h, c.num_key_value_heads * h
    top, layer = _Declarer(prefix), _Declarer(f"{prefix}.layers.{{}}", c.num_hidden_layers)
    head = None
    if not c.tie_word_embeddings:
        head = Weight((d, c.vocab_size), ("embed", "vocab"), "lm_head.weight", transposed=True)
    return TextWeights(
        embed=top.weight("embed_tokens.weight", (c.vocab_size, d), ("vocab", "embed")),
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
        head=head,
    )


def declare(vision: VisionConfig | None, text: TextConfig) -> Weights:
    """The tree of `Weight` declarations of a Qwen3-VL model, or of Qwen3 without a vision tower."""
    if vision is None:
        return Weights(vision=None, text=_text(text, "model"))
    return Weights(
        vision=_vision(vision, "model.visual"),
        text=_text(text, "model.language_model"),
    )


def _map(function: Callable[[Weight], Any], config: Any) -> Weights:
    return jax.tree.map(function, config.declare(), is_leaf=lambda leaf: isinstance(leaf, Weight))


def abstract(config: Any, dtype: Any = jnp.float32) -> Weights:
    """The tree as `jax.ShapeDtypeStruct`s: shapes at any size, no memory."""
    return _map(lambda weight: jax.ShapeDtypeStruct(weight.shape, dtype), config)


def count(config: Any) -> int:
    """How many numbers the weights hold; a tied output projection is not counted twice."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract(config)))


def initialise(config: Any, seed: int, dtype: Any = jnp.float32) -> Weights:
    """Fresh weights, drawn on the host; the same seed gives the same weights anywhere."""
    generator = np.random.default_rng(seed)

    def draw(weight: Weight) -> jax.Array:
        if weight.init == "zeros":
            return jnp.zeros(weight.shape, dtype)
        if weight.init == "ones":
            return jnp.ones(weight.shape, dtype)
        return jnp.asarray(generator.normal(0.0, weight.scale, weight.shape), dtype)

    return _map(draw, config)


def initialise_on(config: Any, seed: int, shardings: Weights, dtype: Any = jnp.float32) -> Weights:
    """Fresh weights, drawn where they lie: no device or host ever holds more than its part.

    The same seed gives the same weights on any mesh.
    """
    declared, tree = jax.tree.flatten(
        config.declare(), is_leaf=lambda leaf: isinstance(leaf, Weight)
    )

    def draw(key: jax.Array) -> list[jax.Array]:
        drawn = []
        for number, weight in enumerate(declared):
            if weight.init == "normal":
                noise = jax.random.normal(jax.random.fold_in(key, number), weight.shape, dtype)
                drawn.append(noise * jnp.asarray(weight.scale, dtype))
            else:
                drawn.append(jnp.full(weight.shape, float(weight.init == "ones"), dtype))
        return drawn

    lies = jax.tree.leaves(shardings)
    return jax.tree.unflatten(tree, jax.jit(draw, out_shardings=lies)(jax.random.key(seed)))


def unstack_layers(weights: Weights, consume: bool = False) -> Weights:
    """Turns stacked layers into tuples of layers, laid out as a CPU multiplies fastest.

    A scan copies each layer's weights out of the stack at every pass; for passes of a few tokens
    on a CPU that costs more than the pass, so decoding there loops over a tuple instead. Large
    weights, and those in low precision, become output-major. Small ones stay as they are and are
    joined: of a small product most is overhead. A small embedding that is also the output layer is
    kept in both layouts.

    Args:
      consume: free each stack once it is split, so that never more than one exists twice; the
        weights given cannot be used afterwards.
    """

    def split(stack: Any, matrix: bool) -> list[Any]:
        parts = [stack[i].T if matrix else stack[i] for i in range(len(stack))]
        if consume:
            jax.block_until_ready(parts)
            stack.delete()
        return parts

    def unstack(node: Any) -> list[Any]:
        if not isinstance(node, Linear):
            return split(node, matrix=False)
        small = node.weight[0].size < SMALL and node.weight.dtype == jnp.float32
        matrices = split(node.weight, matrix=not small)
        biases = [None] * len(matrices) if node.bias is None else split(node.bias, matrix=False)
        kind = Linear if small else OutputMajorLinear
        return [kind(*pair) for pair in zip(matrices, biases, strict=True)]

    def apart(stacked: Any) -> tuple:
        nodes, tree = jax.tree.flatten(stacked, is_leaf=lambda n: isinstance(n, Linear))
        layers = zip(*map(unstack, nodes), strict=True)
        return tuple(jax.tree.unflatten(tree, layer) for layer in layers)

    text = weights.text
    head = text.head
    if head is None and text.embed.size < SMALL and text.embed.dtype == jnp.float32:
        head = text.embed.T
    layers = tuple(_joined(layer) for layer in apart(text.layers))
    vision = weights.vision
    if vision is not None:
        levels = None if vision.deepstack is None else apart(vision.deepstack)
        vision = replace(vision, blocks=apart(vision.blocks), deepstack=levels)
    return replace(weights, vision=vision, text=replace(text, layers=layers, head=head))


def rough(weights: Weights) -> Weights:
    """The text layers with matrices in low precision, all else shared: for passes that guess."""

    def low(leaf: Any) -> Any:
        return leaf.astype(LOW) if leaf.ndim > 1 else leaf

    layers = jax.tree.map(low, weights.text.layers)
    return replace(weights, vision=None, text=replace(weights.text, layers=layers))


def _joined(layer: TextLayer) -> TextLayer | JoinedLayer:
    """A layer of plain linears with those over the same input joined; others as they are."""
    attention, feed_forward = (layer.q, layer.k, layer.v), (layer.gate, layer.up)
    if not all(isinstance(linear, Linear) for linear in attention + feed_forward):
        return layer

    def join(linears: tuple[Linear, ...]) -> Linear:
        biases = [linear.bias for linear in linears]
        bias = None if biases[0] is None else jnp.concatenate(biases)
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
