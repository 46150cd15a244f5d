"""Attention sharded over a mesh of devices.

The partitioner cannot see into a Pallas call, so the call is made under `shard_map`: rows of the
batch are sharded over the mesh axes `data` and `fsdp`, heads over `tensor`, sequence positions over
`sequence`. Only keys and values are communicated, and only along `sequence`: all-gathered, or
permuted round a ring (Liu et al., Ring Attention, arXiv:2310.01889), where no device holds more
than two shards at a time.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from sf_jax.kernels.visible import Visible

ROWS, HEADS, POSITIONS = ("data", "fsdp"), "tensor", "sequence"

Attend = Callable[[Array, Array, Array, Visible], tuple[Array, Array]]  # → output, log-sum-exp


def ambient_mesh() -> AbstractMesh | None:
    """The mesh of `jax.set_mesh` if it has several devices; None inside `shard_map`."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty or mesh.size == 1 or mesh.manual_axes else mesh


def constrain(x: Array, *axes: Any) -> Array:
    """Constrains x to be sharded over these axes of the ambient mesh, one entry a dimension.

    Axes that the mesh lacks, or whose size does not divide the dimension, are left out.
    """
    mesh = ambient_mesh()
    if mesh is None:
        return x
    fitting: list[Any] = []
    for size, wanted in zip(x.shape, axes, strict=False):
        names = wanted if isinstance(wanted, tuple) else (wanted,)
        held = tuple(name for name in names if name in mesh.shape)
        parts = math.prod(mesh.shape[name] for name in held)
        fitting.append(held if held and size % parts == 0 else None)
    return jax.lax.with_sharding_constraint(x, P(*fitting))


def constrain_activations(x: Float[Array, "B T *rest"]) -> Float[Array, "B T *rest"]:
    """Constrains activations between layers to the sharding that `over_mesh` uses.

    Without it the partitioner may move activations where it should gather weights.
    """
    return constrain(x, ROWS, POSITIONS)


def over_mesh(
    mesh: Mesh | AbstractMesh,
    attend: Attend,
    q_BTNH: Float[Array, "B T N H"],
    k_BSKH: Float[Array, "B S K H"],
    v_BSKH: Float[Array, "B S K H"],
    visible: Visible,
    ring: bool,
) -> tuple[Float[Array, "B T N H"], Float[Array, "B T N"]]:
    """The result of `attend`, each device computing its own rows, heads and positions.

    Key heads are sharded over `tensor` too, or replicated where it has more devices than there are
    key heads. Attention over a cache whose rows or positions the axes do not divide is replicated
    along those axes.

    Args:
      attend: attention on one device, which returns output and log-sum-exp.
      ring: permute keys and values round a ring along `sequence` instead of gathering them.

    Returns:
      The output in the type of q, and the log-sum-exp.

    Raises:
      ValueError: a size that its mesh axes do not divide.
    """
    sizes = {axis: mesh.shape.get(axis, 1) for axis in (*ROWS, HEADS, POSITIONS)}
    if visible.q_offset is not None:  # a cache
        if len(q_BTNH) % (sizes["data"] * sizes["fsdp"]):
            sizes |= {"data": 1, "fsdp": 1}
        if q_BTNH.shape[1] % sizes[POSITIONS] or k_BSKH.shape[1] % sizes[POSITIONS]:
            sizes[POSITIONS] = 1
    split_heads = _check(q_BTNH, k_BSKH, sizes)
    rows = tuple(axis for axis in ROWS if sizes[axis] > 1) or None
    heads = HEADS if sizes[HEADS] > 1 else None
    positions = POSITIONS if sizes[POSITIONS] > 1 else None
    q_spec = P(rows, positions, heads, None)
    kv_spec = P(rows, positions, heads if split_heads else None, None)
    of_visible = {
        "q_segments": P(rows, positions),
        "kv_segments": P(rows, positions),
        "q_offset": P(rows),
        "kv_length": P(rows),
        "mask": P(rows, positions, None),
    }
    narrowed = {
        name: spec for name, spec in of_visible.items() if getattr(visible, name) is not None
    }
    visible_spec = Visible(visible.causal, **narrowed)  # type: ignore[arg-type]

    def local(q: Array, k: Array, v: Array, visible: Visible) -> tuple[Array, Array]:
        if not split_heads:
            k, v = (_own_head(x, sizes[HEADS]) for x in (k, v))
        if sizes[POSITIONS] == 1:
            return attend(q, k, v, visible)
        return (_ring if ring else _gathered)(attend, q, k, v, visible, sizes[POSITIONS])

    return jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(q_spec, kv_spec, kv_spec, visible_spec),
        out_specs=(q_spec, P(rows, positions, heads)),
        check_vma=False,  # Pallas calls do not declare how their results vary
    )(q_BTNH, k_BSKH, v_BSKH, visible)


def _check(q_BTNH: Array, k_BSKH: Array, sizes: dict[str, int]) -> bool:
    """Whether key heads are sharded; checks that all else divides."""
    batch, length, heads, _ = q_BTNH.shape
    size, kv_heads = k_BSKH.shape[1:3]
    for name, count, parts in (
        ("rows", batch, sizes["data"] * sizes["fsdp"]),
        ("query heads", heads, sizes[HEADS]),
        ("queries", length, sizes[POSITIONS]),
        ("keys", size, sizes[POSITIONS]),
    ):
        if count % parts:
            raise ValueError(f"{count} {name} cannot be split among {parts} devices")
    if kv_heads % sizes[HEADS] and sizes[HEADS] % kv_heads:
        raise ValueError(
            f"{kv_heads} key heads and {sizes[HEADS]} devices: neither divides the other"
        )
    return kv_heads % sizes[HEADS] == 0


def _own_head(x_BSKH: Array, devices: int) -> Array:
    """The one key head that this device's query heads share: [B, S, 1, H]."""
    head = jax.lax.axis_index(HEADS) * x_BSKH.shape[2] // devices
    return jax.lax.dynamic_slice_in_dim(x_BSKH, head, 1, 2)


def _offset(visible: Visible, q: Array) -> Array:
    """Number of keys before this device's first query: [B]."""
    before = jnp.zeros(len(q), jnp.int32) if visible.q_offset is None else visible.q_offset
    return before + jax.lax.axis_index(POSITIONS) * q.shape[1]


def _gathered(
    attend: Attend, q: Array, k: Array, v: Array, visible: Visible, devices: int
) -> tuple[Array, Array]:
    """Attention to the keys and values of all devices, all-gathered."""
    gather = partial(jax.lax.all_gather, axis_name=POSITIONS, axis=1, tiled=True)
    segments = visible.kv_segments
    visible = replace(
        visible,
        q_offset=_offset(visible, q),
        kv_segments=None if segments is None else gather(segments),
    )
    return attend(q, gather(k), gather(v), visible)


def _ring(
    attend: Attend, q: Array, k: Array, v: Array, visible: Visible, devices: int
) -> tuple[Array, Array]:
    """Attention to one shard of keys and values after another, merged by log-sum-exp."""
    here, size, offset = jax.lax.axis_index(POSITIONS), k.shape[1], _offset(visible, q)
    permutation = [(i, (i + 1) % devices) for i in range(devices)]

    def shard(moving: tuple, owner: Array) -> tuple[Array, Array]:
        k, v, segments = moving
        used, mask = visible.kv_length, visible.mask
        seen = replace(
            visible,
            kv_segments=segments,
            q_offset=offset - owner * size,
            kv_length=None if used is None else jnp.clip(used - owner * size, 0, size),
            mask=None
            if mask is None
            else jax.lax.dynamic_slice_in_dim(mask, owner * size, size, 2),
        )
        return attend(q, k, v, seen)

    def turn(carry: tuple, step: Array) -> tuple[tuple, None]:
        moving, out, lse = carry
        moving = jax.tree.map(lambda x: jax.lax.ppermute(x, POSITIONS, permutation), moving)
        return (moving, *_joined(out, lse, *shard(moving, (here - step) % devices))), None

    moving: Any = k, v, visible.kv_segments
    out, lse = shard(moving, here)
    carry = moving, out.astype(lse.dtype), lse
    (_, out, lse), _ = jax.lax.scan(turn, carry, jnp.arange(1, devices))
    return out.astype(q.dtype), lse


def _joined(out: Array, lse: Array, more: Array, more_lse: Array) -> tuple[Array, Array]:
    """Attention to the union of two sets of keys, in the precision of the log-sum-exp."""
    top = jnp.maximum(lse, more_lse)
    top = jax.lax.stop_gradient(
        jnp.where(jnp.isfinite(top), top, 0.0)
    )  # -inf: no key visible in either
    weight, more_weight = jnp.exp(lse - top), jnp.exp(more_lse - top)
    total = weight + more_weight
    safe = jnp.where(total == 0, 1.0, total)
    out = (out * weight[..., None] + more * more_weight[..., None]) / safe[..., None]
    return out, jnp.where(total == 0, -jnp.inf, top + jnp.log(safe))
