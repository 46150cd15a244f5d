"""The two layouts of layers that are alike, and the one function that runs them.

"stacked": one tree whose arrays have a leading axis [L, ...]. A scan runs it, in training, in
prefill and on accelerators; checkpoints hold it.
"separate": a tuple of L trees. A loop runs it: a scan copies each layer's weights out of the stack
at every pass, which for passes of a few tokens on a CPU costs more than the pass.

A tree of weights that holds layers names their layout in a static field `layout`, which is part of
the tree's structure; the fields that hold layers carry the metadata `LAYERS`.
"""

import math
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from sf_jax.kernels.sharded import constrain_activations
from sf_jax.model.declared import Linear, T
from sf_jax.model.linear import OutputMajorLinear
from sf_jax.model.remat import rematerialised

Layout = Literal["stacked", "separate"]
LAYERS = {"layers": True}  # metadata of a field of a `struct.dataclass` that holds layers, or None
SMALL = 2**20  # values of a weight matrix, from which on it is large


def _layer_fields(node: PyTree) -> list[str]:
    return [field.name for field in fields(node) if LAYERS.items() <= field.metadata.items()]


def has_layers(node: PyTree) -> bool:
    """Whether a node of a tree of weights holds layers; for `is_leaf`."""
    return is_dataclass(node) and bool(_layer_fields(node))


def with_layers(weights: PyTree) -> list[Any]:
    """All nodes of a tree of weights that hold layers."""
    nodes = jax.tree.leaves(weights, is_leaf=has_layers)
    return [found for found in nodes if has_layers(found)]


def require_stacked(weights: PyTree, remedy: str) -> None:
    """Checks a tree of weights.

    Raises:
      ValueError: some of its layers are separate; the message ends in `remedy`.
    """
    for node in with_layers(weights):
        if node.layout != "stacked":
            raise ValueError(f"layers of {type(node).__name__} are {node.layout}; {remedy}")


def run_layers(
    layer: Callable[[Any, Any, tuple, Any], tuple[Any, tuple]],
    x: Array,
    layers: PyTree,
    layout: Layout,
    beside: tuple = (),
    remat: str = "none",
    unrolled: bool = False,
) -> tuple[Array, tuple]:
    """Runs x through all layers in turn, in either layout.

    Args:
      layer: (x, weights of the layer, what it has of `beside`, its number) → (x, tuple of outputs).
        The number is an int where layers are separate, else an int32 [].
      beside: what there is for each layer beside its weights, such as parts of a cache, each in the
        layout of the layers.
      remat: what stacked layers keep for their gradients; see `model.remat`.
      unrolled: stacked layers are written out one by one.

    Returns:
      x after the last layer, and each output of all layers, in the layout of the layers.
    """
    if layout == "separate":
        outputs = []
        for number, weights in enumerate(layers):
            x, output = layer(x, weights, tuple(part[number] for part in beside), number)
            outputs.append(output)
        return x, tuple(zip(*outputs, strict=True))

    def step(x: Array, inputs: tuple) -> tuple[Array, tuple]:
        return layer(constrain_activations(x), *inputs)

    numbers = jnp.arange(len(jax.tree.leaves(layers)[0]))
    return jax.lax.scan(rematerialised(step, remat), x, (layers, beside, numbers), unroll=unrolled)


def _on_cpu(array: Array) -> bool:
    """Whether NumPy can read it without a copy."""
    return (
        isinstance(array, jax.Array)
        and not isinstance(array, jax.core.Tracer)
        and {device.platform for device in array.devices()} == {"cpu"}
        and len(array.devices()) == 1
    )


def separate_layers(node: T, consume: bool = False) -> T:
    """A node that holds stacked layers with separate ones, as a CPU multiplies few rows fastest.

    Large matrices, and those in low precision, become output-major; small ones stay as they are.

    Args:
      consume: free each stack once it is split, so that never more than one exists twice; the node
        given cannot be used afterwards.
    """

    def split_stack(stack: Array, turned: bool) -> list[Array]:
        # On a CPU by NumPy: JAX would compile a program for every shape and index, for a second.
        held = np.asarray(stack) if _on_cpu(stack) else stack
        parts = [held[i].T if turned else held[i] for i in range(len(stack))]
        if held is not stack:
            parts = [jax.device_put(np.array(part, order="C")) for part in parts]
        del held
        if consume:
            jax.block_until_ready(parts)
            stack.delete()
        return parts

    def unstack(part: Linear | Array) -> list[Any]:
        if not isinstance(part, Linear):
            return split_stack(part, turned=False)
        small = math.prod(part.weight.shape[1:]) < SMALL and part.weight.dtype == jnp.float32
        matrices = split_stack(part.weight, turned=not small)
        count = len(matrices)
        biases = [None] * count if part.bias is None else split_stack(part.bias, turned=False)
        kind = Linear if small else OutputMajorLinear
        return [kind(*pair) for pair in zip(matrices, biases, strict=True)]

    def separate(stacked: PyTree) -> tuple:
        parts, tree = jax.tree.flatten(stacked, is_leaf=lambda part: isinstance(part, Linear))
        layers = zip(*map(unstack, parts), strict=True)
        return tuple(jax.tree.unflatten(tree, layer) for layer in layers)

    held = {name: getattr(node, name) for name in _layer_fields(node)}
    separated = {name: separate(value) for name, value in held.items() if value is not None}
    changed: Any = replace(node, layout="separate", **separated)  # type: ignore[type-var]
    return changed
