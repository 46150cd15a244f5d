"""Two small models of other architectures than Qwen3-VL, as trees of declarations and functions.

Run as a program it draws both on eight devices and prints whether they equal one device's.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float

from sf_jax.kernels import attention
from sf_jax.model.declared import Declarer, Linear, Norm, initialise_on
from sf_jax.model.layers import LAYERS, Layout, run_layers
from sf_jax.model.linear import apply
from sf_jax.model.norms import layer_norm
from sf_jax.train import mesh as meshes

WIDTH, HEADS, HIDDEN, LAYER_COUNT = 32, 4, 64, 3


@struct.dataclass
class Block:
    """Attention and feed-forward; `modulation` gives shifts and scales by a condition."""

    norm1: Norm | None
    q: Linear
    k: Linear
    v: Linear
    out: Linear
    norm2: Norm | None
    fc1: Linear
    fc2: Linear
    modulation: Linear | None = None


@struct.dataclass
class AudioWeights:
    """A sound encoder: a convolution over windows of a mel spectrogram, then blocks."""

    conv: Linear
    position: Float[Array, "T D"]
    blocks: Block | tuple[Block, ...] = struct.field(metadata=LAYERS)
    norm: Norm
    layout: Layout = struct.field(pytree_node=False, default="stacked")


@struct.dataclass
class DiffusionWeights:
    """A diffusion transformer: noisy vectors and a time in, the noise's direction out."""

    embed: Linear
    time: Linear
    transformer_blocks: Block | tuple[Block, ...] = struct.field(metadata=LAYERS)
    out: Linear
    layout: Layout = struct.field(pytree_node=False, default="stacked")


def declare_audio() -> AudioWeights:
    top, block = Declarer("encoder"), Declarer("encoder.layers.{}", LAYER_COUNT)
    shapes = {"q_proj": "heads", "k_proj": "heads", "v_proj": "heads"}
    q, k, v = (
        block.linear(f"self_attn.{name}", ("audio", axis), (WIDTH, WIDTH), bias=name != "k_proj")
        for name, axis in shapes.items()
    )
    return AudioWeights(
        conv=top.convolution("conv1", ("patch", "audio"), (8, 3), WIDTH),
        position=top.weight("embed_positions.weight", (12, WIDTH), ("position", "audio")),
        blocks=Block(
            block.norm("self_attn_layer_norm", WIDTH, "audio", bias=True),
            q,
            k,
            v,
            block.linear("self_attn.out_proj", ("heads", "audio"), (WIDTH, WIDTH)),
            block.norm("final_layer_norm", WIDTH, "audio", bias=True),
            block.linear("fc1", ("audio", "mlp"), (WIDTH, HIDDEN)),
            block.linear("fc2", ("mlp", "audio"), (HIDDEN, WIDTH)),
        ),
        norm=top.norm("layer_norm", WIDTH, "audio", bias=True),
    )


def declare_diffusion() -> DiffusionWeights:
    top, block = Declarer("transformer"), Declarer("transformer.blocks.{}", LAYER_COUNT)
    q, k, v = (
        block.linear(f"attn.to_{name}", ("embed", "heads"), (WIDTH, WIDTH)) for name in "qkv"
    )
    return DiffusionWeights(
        embed=top.linear("proj_in", ("patch", "embed"), (6, WIDTH)),
        time=top.linear("time_embed", ("patch", "embed"), (8, WIDTH)),
        transformer_blocks=Block(
            None,
            q,
            k,
            v,
            block.linear("attn.to_out.0", ("heads", "embed"), (WIDTH, WIDTH)),
            None,
            block.linear("ff.net.0", ("embed", "mlp"), (WIDTH, HIDDEN)),
            block.linear("ff.net.2", ("mlp", "embed"), (HIDDEN, WIDTH)),
            block.linear("norm1.linear", ("embed", "mlp"), (WIDTH, 4 * WIDTH)),
        ),
        out=top.linear("proj_out", ("embed", "patch"), (WIDTH, 6)),
    )


def _block(x: Array, block: Block, condition: Array | None) -> Array:
    def normed(norm: Norm | None, at: int) -> Array:
        if norm is not None:
            return layer_norm(x, norm)
        shift, scale = jnp.split(apply(block.modulation, condition), 4, -1)[2 * at : 2 * at + 2]
        plain = Norm(jnp.ones(WIDTH, x.dtype), jnp.zeros(WIDTH, x.dtype))
        return layer_norm(x, plain) * (1 + scale[:, None]) + shift[:, None]

    inputs = normed(block.norm1, 0)
    heads = (*x.shape[:2], HEADS, -1)
    q, k, v = (apply(layer, inputs).reshape(heads) for layer in (block.q, block.k, block.v))
    x = x + apply(block.out, attention(q, k, v, causal=False).reshape(x.shape))
    return x + apply(block.fc2, jax.nn.gelu(apply(block.fc1, normed(block.norm2, 1))))


def audio(weights: AudioWeights, mel: Float[Array, "B T 24"]) -> Float[Array, "B T D"]:
    """Windows of three frames of eight mel bands, channels first, in."""
    x = apply(weights.conv, mel) + weights.position

    def layer(x: Array, block: Block, *_: object) -> tuple[Array, tuple]:
        return _block(x, block, None), ()

    x, _ = run_layers(layer, x, weights.blocks, weights.layout)
    return layer_norm(x, weights.norm)


def diffusion(weights: DiffusionWeights, noisy: Float[Array, "B T 6"]) -> Float[Array, "B T 6"]:
    """The time is the first vector's first number."""
    time = jnp.cos(noisy[:, 0, :1] * jnp.arange(8))
    condition = jax.nn.silu(apply(weights.time, time))

    def layer(x: Array, block: Block, *_: object) -> tuple[Array, tuple]:
        return _block(x, block, condition), ()

    x = apply(weights.embed, noisy)
    x, _ = run_layers(layer, x, weights.transformer_blocks, weights.layout)
    return apply(weights.out, x)


MODELS = {
    "audio encoder": (declare_audio(), audio, (2, 12, 24)),
    "diffusion transformer": (declare_diffusion(), diffusion, (2, 12, 6)),
}


def main() -> None:
    one, many = (
        meshes.make(sizes, jax.devices()[:count])
        for sizes, count in (({"data": 1}, 1), ({"fsdp": 4, "tensor": 2}, 8))
    )
    found = {}
    for name, (declared, _, _) in MODELS.items():
        alone, shared = (
            initialise_on(declared, 3, meshes.of_weights(declared, mesh)) for mesh in (one, many)
        )
        pairs = zip(jax.tree.leaves(alone), jax.tree.leaves(shared), strict=True)
        equal = all(np.array_equal(a, b) for a, b in pairs)
        leaves = jax.tree.leaves(shared)
        local = sum(x.addressable_shards[0].data.size for x in leaves)
        found[name] = {"equal": equal, "share": local / sum(x.size for x in leaves)}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
