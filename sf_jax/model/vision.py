"""The vision tower: patches in, text-width features out, plus one feature set a DeepStack level.

Images of a batch are rows of patches padded to one count; a segment id a patch (0 for padding)
keeps images, and padding, from attending to each other. Positions and interpolation weights are
data, so a new image size needs no new compilation as long as its patch count fits.
Source: the Qwen3-VL release (`Qwen3VLVisionModel` in transformers) for every formula here.
"""

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import struct
from jaxtyping import Array, Float, Int

from sf_jax.kernels import attention
from sf_jax.model import axes
from sf_jax.model.layers import run_layers
from sf_jax.model.linear import apply, linear
from sf_jax.model.norms import layer_norm
from sf_jax.model.towers import VisionConfig
from sf_jax.model.weights import Merger, VisionBlock, VisionWeights

ROPE_THETA = 10_000.0


@struct.dataclass
class Patches:
    """Patches of B rows of images, in merge-block order (the four patches of a token adjoin).

    Attributes:
      pixels: [B, P, patch_width], normalised to mean 0.5, deviation 0.5.
      segments: [B, P], 0 for padding, else the image's number within its row.
      rows, columns: [B, P], of the patch in its image's grid.
      position_ids: [B, P, 4], the four learned positions that surround the patch.
      position_weights: [B, P, 4], their bilinear weights.
      at: [B, M], the position in the row of tokens that each merged feature takes.
    """

    pixels: Float[Array, "B P W"] = axes.array("batch", "patch", "patch_width", dtype=np.float32)
    segments: Int[Array, "B P"] = axes.array("batch", "patch")
    rows: Int[Array, "B P"] = axes.array("batch", "patch")
    columns: Int[Array, "B P"] = axes.array("batch", "patch")
    position_ids: Int[Array, "B P 4"] = axes.array("batch", "patch", "corner")
    position_weights: Float[Array, "B P 4"] = axes.array(
        "batch", "patch", "corner", dtype=np.float32
    )
    at: Int[Array, "B M"] = axes.array("batch", "feature")


@lru_cache(64)
def grid_positions(height: int, width: int, config: VisionConfig) -> dict[str, np.ndarray]:
    """Positions of an image of height × width patches, as fields of `Patches` (no batch axis)."""
    merge, side = config.spatial_merge_size, config.position_side
    if height % merge or width % merge:
        raise ValueError(f"a grid of {height} x {width} patches is not a multiple of {merge}")

    def blocks(grid: np.ndarray) -> np.ndarray:
        return rearrange(grid, "(h a) (w b) -> (h w a b)", a=merge, b=merge)

    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    y, x = (np.linspace(0, side - 1, n, dtype=np.float32) for n in (height, width))
    y, x = np.meshgrid(y, x, indexing="ij")
    y0, x0 = y.astype(np.int32), x.astype(np.int32)
    y1, x1 = np.minimum(y0 + 1, side - 1), np.minimum(x0 + 1, side - 1)
    dy, dx = y - y0, x - x0
    ids = [y0 * side + x0, y0 * side + x1, y1 * side + x0, y1 * side + x1]
    weights = [(1 - dy) * (1 - dx), (1 - dy) * dx, dy * (1 - dx), dy * dx]
    return {
        "rows": blocks(rows).astype(np.int32),
        "columns": blocks(columns).astype(np.int32),
        "position_ids": np.stack([blocks(a) for a in ids], -1).astype(np.int32),
        "position_weights": np.stack([blocks(a) for a in weights], -1).astype(np.float32),
    }


def patchify(
    image: np.ndarray, patch_size: int = 16, merge_size: int = 2, temporal_patch_size: int = 2
) -> np.ndarray:
    """uint8 [H, W, 3] → float32 [P, patch_width] in merge-block order, values in [-1, 1].

    H and W must be multiples of patch_size × merge_size; within a patch the order is channel, time,
    row, column.
    """
    # In this order of operations the values equal the released processor's to the last bit.
    normalised = (image.astype(np.float32) - np.float32(127.5)) / np.float32(127.5)
    patches = rearrange(
        normalised,
        "(h a p) (w b q) c -> (h w a b) c 1 p q",
        a=merge_size,
        b=merge_size,
        p=patch_size,
        q=patch_size,
    )
    return np.repeat(patches, temporal_patch_size, axis=2).reshape(len(patches), -1)


def _rope(patches: Patches, head_dim: int) -> tuple[Array, Array]:
    """Cosine and sine [B, P, 1, head_dim]: first half of the frequencies rows, second columns."""
    quarter = head_dim // 4
    frequencies = ROPE_THETA ** (-jnp.arange(quarter, dtype=jnp.float32) / quarter)
    rows = patches.rows[..., None] * frequencies
    columns = patches.columns[..., None] * frequencies
    angles = jnp.concatenate([rows, columns], -1)[:, :, None]
    cos, sin = jnp.cos(angles), jnp.sin(angles)  # doubled last, as in `text`
    return jnp.concatenate([cos, cos], -1), jnp.concatenate([sin, sin], -1)


def rotate_half(x: Float[Array, "*rows H"]) -> Float[Array, "*rows H"]:
    """The halves of the last axis exchanged, and the one that comes first negated.

    A TPU is slow to move half a row of lanes, and fast to multiply: there it is a product with a
    permutation, in whose sums one addend alone is not zero, so that nothing is rounded.
    """
    return jax.lax.platform_dependent(x, tpu=_rotated_by_product, default=_rotated)


def _rotated(x: Array) -> Array:
    first, second = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([-second, first], -1)


def _rotated_by_product(x: Array) -> Array:
    first, second = np.split(np.eye(x.shape[-1]), 2, axis=-1)
    permutation = jnp.asarray(np.concatenate([-second, first], -1), x.dtype)
    return jnp.matmul(x, permutation, precision=jax.lax.Precision.HIGHEST)


def _block(
    x_BPD: Array, block: VisionBlock, rope: tuple, segments: Array, heads: int, dtype: str
) -> Array:
    cos, sin = rope
    qkv = apply(block.qkv, layer_norm(x_BPD, block.norm1), dtype)
    q, k, v = rearrange(qkv, "b p (three n h) -> three b p n h", three=3, n=heads)
    q = (q * cos + rotate_half(q) * sin).astype(x_BPD.dtype)
    k = (k * cos + rotate_half(k) * sin).astype(x_BPD.dtype)
    mixed = attention(
        q, k, v, causal=False, q_segments=segments, kv_segments=segments, heads_first=True
    )
    mixed = rearrange(mixed, "b p n h -> b p (n h)")
    x_BPD = x_BPD + apply(block.proj, mixed, dtype)
    hidden = apply(block.fc1, layer_norm(x_BPD, block.norm2), dtype)
    hidden = jax.nn.gelu(hidden, approximate=True)
    return x_BPD + apply(block.fc2, hidden, dtype)


def _merge(x_BPD: Array, merger: Merger, merge: int, norm_first: bool, dtype: str) -> Array:
    """Joins merge² patches to one token [B, M, text width]; the GELU here is the exact one."""
    if norm_first:
        x_BPD = layer_norm(x_BPD, merger.norm)
    x = rearrange(x_BPD, "b (m s) d -> b m (s d)", s=merge * merge)
    if not norm_first:
        x = layer_norm(x, merger.norm)
    hidden = jax.nn.gelu(apply(merger.fc1, x, dtype), approximate=False)
    return apply(merger.fc2, hidden, dtype)


def embed_patches(
    weights: VisionWeights, patches: Patches, config: VisionConfig, dtype: str
) -> Float[Array, "B P D"]:
    """Patch embedding plus the learned positions, interpolated to the image's grid."""
    x = linear(patches.pixels, weights.patch_embed.weight, weights.patch_embed.bias, dtype)
    positions = jnp.einsum(
        "bpkd,bpk->bpd", weights.pos_embed[patches.position_ids], patches.position_weights
    )
    return x.astype(weights.pos_embed.dtype) + positions.astype(weights.pos_embed.dtype)


def hidden_states(
    weights: VisionWeights,
    patches: Patches,
    config: VisionConfig,
    dtype: str = "float32",
    remat: str = "none",
    unrolled: bool = False,
) -> Float[Array, "L B P D"] | tuple[Float[Array, "B P D"], ...]:
    """The output of every block, in the layout of the blocks.

    `remat` is what stacked blocks keep for their gradients, see `model.remat`; `unrolled` writes
    them out one by one.
    """
    with jax.named_scope("vision"):
        rope = _rope(patches, config.head_dim)
        step = partial(
            _block, rope=rope, segments=patches.segments, heads=config.num_heads, dtype=dtype
        )

        def kept(x: Array, block: VisionBlock, *_: Any) -> tuple[Array, tuple[Array]]:
            x = step(x, block)
            return x, (x,)

        x = embed_patches(weights, patches, config, dtype)
        _, (states,) = run_layers(
            kept, x, weights.blocks, weights.layout, remat=remat, unrolled=unrolled
        )
        return states


def tokens(
    weights: VisionWeights,
    states: Float[Array, "L B P D"] | tuple[Float[Array, "B P D"], ...],
    config: VisionConfig,
    dtype: str,
) -> tuple[Float[Array, "B M D"], Float[Array, "levels B M D"]]:
    """Block outputs → features for the text model, and for each DeepStack level for one layer.

    Args:
      states: as `hidden_states` gives them.
    """
    merge = config.spatial_merge_size
    features = _merge(states[-1], weights.merger, merge, norm_first=True, dtype=dtype)
    mergers: Any = weights.deepstack
    if mergers is None:
        return features, jnp.zeros((0, *features.shape), features.dtype)
    level = partial(_merge, merge=merge, norm_first=False, dtype=dtype)
    indexes = config.deepstack_visual_indexes
    if weights.layout == "separate":
        return features, jnp.stack([*map(level, [states[i] for i in indexes], mergers)])
    return features, jax.vmap(level)(states[jnp.array(indexes)], mergers)


def forward(
    weights: VisionWeights,
    patches: Patches,
    config: VisionConfig,
    dtype: str = "float32",
    remat: str = "none",
    unrolled: bool = False,
) -> tuple[Float[Array, "B M D"], Float[Array, "levels B M D"]]:
    """Features for the text model and, for each DeepStack level, features for one text layer.

    M is P divided by spatial_merge_size²; D is `out_hidden_size`.
    """
    states = hidden_states(weights, patches, config, dtype, remat, unrolled)
    return tokens(weights, states, config, dtype)


def merged_segments(segments: Int[Array, "B P"], config: VisionConfig) -> Int[Array, "B M"]:
    """Segment ids of the merged tokens."""
    return segments[:, :: config.spatial_merge_size**2]
