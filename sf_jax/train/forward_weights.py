"""Weights as a training step takes them: in the precision of products, tables gathered once."""

from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import jax
from jaxtyping import Array

from sf_jax.kernels.sharded import HEADS, constrain
from sf_jax.model.declared import Linear, Norm
from sf_jax.model.linear import AdaptedLinear

T = TypeVar("T")


def in_product_dtype(weights: T, dtype: str) -> T:
    """Matrices and tables in the precision of products: what is gathered is then half as large.

    Norms and biases stay as they are.
    """

    def narrowed(node: Any) -> Any:
        if isinstance(node, Norm):
            return node
        if isinstance(node, Linear):
            return Linear(node.weight.astype(dtype), node.bias)
        if isinstance(node, AdaptedLinear):
            factors = node.a.astype(dtype), node.b.astype(dtype)
            return AdaptedLinear(narrowed(node.base), *factors, node.scale)
        return node.astype(dtype)

    def is_node(node: Any) -> bool:
        return isinstance(node, Norm | Linear | AdaptedLinear)

    if dtype == "float32":
        return weights
    return jax.tree.map(narrowed, weights, is_leaf=is_node)


def shared_tables(weights: Any) -> Any:
    """Embedding and output layer gathered once, for all tokens and all parts of a row."""
    head = None if weights.text.head is None else _gathered(weights.text.head, (None, HEADS))
    embed = _gathered(weights.text.embed, (HEADS, None))
    return replace(weights, text=replace(weights.text, embed=embed, head=head))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gathered(table: Array, axes: tuple) -> Array:
    """Shared along `tensor` alone; of its gradient each device gets the part it is to keep."""
    return constrain(table, *axes)


def _gathered_forward(table: Array, axes: tuple) -> tuple[Array, None]:
    return constrain(table, *axes), None


def _gathered_backward(axes: tuple, _: None, gradient: Array) -> tuple[Array]:
    rows, columns = axes
    return (constrain(gradient, (rows, "fsdp") if rows else "fsdp", columns),)


_gathered.defvjp(_gathered_forward, _gathered_backward)
