"""Train state and the jitted step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh, NamedSharding, PartitionSpec


@struct.dataclass
class TrainState:
    """Step number, the trained tree and the optimiser's state."""

    step: Any
    weights: Any
    optimizer_state: Any


def create(weights: Any, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
    """A fresh state, whole on every device of the mesh."""
    state = TrainState(jnp.int32(0), weights, optimizer.init(weights))
    return jax.device_put(state, NamedSharding(mesh, PartitionSpec()))


def data_mesh() -> Mesh:
    """All devices along one axis "data"."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def build_step(
    loss: Callable[[Any, Any], tuple[jax.Array, dict]],
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
) -> Callable[[TrainState, Any], tuple[TrainState, dict]]:
    """A sharded step `(state, batch) -> (state, metrics)`; the old state's memory is reused.

    Batches arrive split over the mesh's "data" axis by `shard`; the state is on every device. A
    step whose gradient is not finite leaves the weights alone and reports `skipped` = 1.
    """
    whole = NamedSharding(mesh, PartitionSpec())

    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # attention shares its rows
            (_, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(state.weights, batch)
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(norm)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.weights)
        weights = optax.apply_updates(state.weights, updates)
        kept = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            (weights, optimizer_state), (state.weights, state.optimizer_state),
        )  # fmt: skip
        metrics = {**metrics, "gradient_norm": norm, "skipped": 1.0 - finite}
        return TrainState(state.step + 1, *kept), metrics

    return jax.jit(step, donate_argnums=0, out_shardings=whole)


def batch_spec(path: tuple) -> PartitionSpec:
    """How the array at a path of a batch lies on the mesh."""
    leading = 1 if "positions" in jax.tree_util.keystr(path)[-12:] else 0
    return PartitionSpec(*([None] * leading), "data")


def shard(batch: Any, mesh: Mesh) -> Any:
    """Puts a host batch on the mesh: leading axis split over "data", positions on their second."""

    def put(path: tuple, x: Any) -> jax.Array:
        return jax.device_put(x, NamedSharding(mesh, batch_spec(path)))

    return jax.tree_util.tree_map_with_path(put, batch)
