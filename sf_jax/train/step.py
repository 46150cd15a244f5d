"""Train state and the jitted step."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh
from jaxtyping import PyTree

from sf_jax.model import axes
from sf_jax.train import mesh as meshes


@struct.dataclass
class TrainState:
    """What a step changes, and what it reads beside that; also trees of shapes and shardings of it.

    Attributes:
      step: int32 scalar, steps taken.
      weights: the trained tree; optimizer_state: of it.
      frozen: without gradient and optimiser state; checkpoints leave it out.
    """

    step: PyTree
    weights: PyTree
    optimizer_state: optax.OptState
    frozen: PyTree = None


class Step(Protocol):
    """A jitted step; it can be lowered for shapes as `jax.jit` functions can."""

    def __call__(self, state: TrainState, batch: PyTree) -> tuple[TrainState, dict]: ...
    def lower(self, state: TrainState, batch: PyTree) -> jax.stages.Lowered: ...


def shardings(
    weights: PyTree,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    of_weights: PyTree = None,
    frozen: PyTree = None,
    of_frozen: PyTree = None,
) -> TrainState:
    """The shardings of a state: optimiser state is sharded like its parameter.

    Args:
      weights, frozen: trees of arrays or shapes; of_weights, of_frozen: their shardings, by default
        whole on every device.
    """

    def all_whole(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda _: meshes.whole(mesh), tree)

    if of_weights is None:
        of_optimizer = all_whole(jax.eval_shape(optimizer.init, weights))
        of_weights = all_whole(weights)
    else:
        of_optimizer = meshes.of_optimizer(optimizer, weights, of_weights)
    of_frozen = all_whole(frozen) if of_frozen is None else of_frozen
    return TrainState(meshes.whole(mesh), of_weights, of_optimizer, of_frozen)


def create(
    weights: PyTree,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    sharding: TrainState | None = None,
    frozen: PyTree = None,
) -> TrainState:
    """A fresh state on a mesh.

    Args:
      sharding: of the state; None: whole on every device.
    """
    sharding = sharding or shardings(weights, optimizer, mesh, frozen=frozen)
    weights = jax.device_put(weights, sharding.weights)
    started = jax.jit(optimizer.init, out_shardings=sharding.optimizer_state)(weights)
    frozen = jax.device_put(frozen, sharding.frozen)
    return TrainState(jax.device_put(jnp.int32(0), sharding.step), weights, started, frozen)


def build_step(
    loss: Callable[[PyTree, PyTree], tuple[jax.Array, dict]],
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    sharding: TrainState | None = None,
    *,
    accumulate: int = 1,
    assemble: Callable[[PyTree, PyTree], PyTree] = lambda weights, frozen: weights,
) -> Step:
    """A jitted, sharded step `(state, batch) -> (state, metrics)`.

    The old state's memory is reused. Batches arrive as `mesh.put` lays them. A step whose gradient
    is not finite leaves weights and optimiser alone and reports `skipped` = 1.

    Args:
      loss: (weights, batch) → a number and metrics. Where these have a "weight", number and metrics
        are sums over the batch and the step divides them by it, so that every token counts the same
        in any row, microbatch or shard.
      sharding: of the state; None: whole on every device.
      accumulate: microbatches of a batch, whose gradients are summed.
      assemble: trained and frozen parts → the weights that `loss` takes.
    """

    def of_part(trained: PyTree, frozen: PyTree, batch: PyTree) -> tuple[PyTree, dict[str, PyTree]]:
        def summed(trained: PyTree) -> tuple[jax.Array, dict]:
            return loss(assemble(trained, frozen), batch)

        (value, metrics), gradient = jax.value_and_grad(summed, has_aux=True)(trained)
        if sharding is not None:  # each device receives the sum of its own part alone
            gradient = jax.lax.with_sharding_constraint(gradient, sharding.weights)
        return gradient, {"weight": jnp.float32(1), "loss": value, **metrics}

    def step(state: TrainState, batch: PyTree) -> tuple[TrainState, dict]:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # attention shares its rows
            gradient, sums = _summed(
                partial(of_part, state.weights, state.frozen), batch, accumulate
            )
        weight = jnp.maximum(sums.pop("weight"), 1e-6)
        gradient, metrics = jax.tree.map(lambda x: x / weight, (gradient, sums))
        norm = optax.tree.norm(gradient)
        finite = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"])
        updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.weights)
        weights = optax.apply_updates(state.weights, updates)
        accepted = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            (weights, optimizer_state),
            (state.weights, state.optimizer_state),
        )
        metrics = {**metrics, "weight": weight, "gradient_norm": norm, "skipped": 1.0 - finite}
        weights, optimizer_state = accepted
        return TrainState(state.step + 1, weights, optimizer_state, state.frozen), metrics

    whole = meshes.whole(mesh)
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(whole if sharding is None else sharding, None),
        out_shardings=(whole if sharding is None else sharding, whole),
    )


def _summed(of_part: Callable[[PyTree], PyTree], batch: PyTree, parts: int) -> PyTree:
    """The sum of `of_part` over a batch's parts."""
    if parts == 1:
        return of_part(batch)

    def split(x: jax.Array, declared: tuple[str, ...]) -> jax.Array:
        # Part i takes rows i, i + parts, …: every device then has its share of every part.
        axis = declared.index(axes.BATCH)
        if x.shape[axis] % parts:
            raise ValueError(f"{x.shape[axis]} rows cannot be taken in {parts} equal parts")
        x = x.reshape(*x.shape[:axis], -1, parts, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis + 1, 0)

    batch = axes.map_arrays(split, batch)
    first = jax.eval_shape(of_part, jax.tree.map(lambda x: x[0], batch))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)

    def add(total: PyTree, part: PyTree) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, of_part(part)), None

    return jax.lax.scan(add, zeros, batch)[0]
