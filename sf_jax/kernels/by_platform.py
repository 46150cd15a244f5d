"""One operation whose implementation is chosen at lowering, by the platform compiled for.

`jax.lax.platform_dependent` would trace the kernels of every platform at every call, and asking for
the default backend would be wrong for a program compiled ahead of time for another platform.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir


def by_platform(
    name: str, results: Callable, default: Callable, platforms: dict[str, Callable]
) -> Callable:
    """Returns a function that lowers to `platforms[p]` for platform p, else to `default`.

    It takes operands, pytrees of arrays whose leading axis is the batch, and hashable options by
    keyword, and returns a tuple of arrays with the same leading axis. Under `jax.vmap` the mapped
    axis is merged into the batch. It defines no gradient.

    Args:
      name: of the operation, in lowered programs and profiles.
      results: maps operands to the shapes and dtypes of the results.
      default: the implementation for all other platforms.
      platforms: implementations by JAX platform name, such as "tpu" or "cuda".
    """
    primitive = Primitive(name)
    primitive.multiple_results = True

    def flat(function: Callable) -> Callable:
        def call(*leaves: Any, tree: Any, **options: Any) -> list:
            with jax.named_scope(name):
                return list(function(*jax.tree.unflatten(tree, leaves), **options))

        return call

    def abstract(*leaves: Any, tree: Any, **_: Any) -> list:
        return [
            jax.core.ShapedArray(x.shape, x.dtype)
            for x in results(*jax.tree.unflatten(tree, leaves))
        ]

    def batched(leaves: Any, axes: Any, **parameters: Any) -> tuple[list, list]:
        count = next(x.shape[at] for x, at in zip(leaves, axes, strict=True) if at is not None)
        fronts = [batching.bdim_at_front(x, at, count) for x, at in zip(leaves, axes, strict=True)]
        made = primitive.bind(*(x.reshape(-1, *x.shape[2:]) for x in fronts), **parameters)
        return [x.reshape(count, -1, *x.shape[1:]) for x in made], [0] * len(made)

    @lru_cache
    def compiled(parameters: tuple) -> Callable:
        return jax.jit(lambda *leaves: primitive.bind(*leaves, **dict(parameters)))

    primitive.def_impl(lambda *leaves, **of: compiled(tuple(sorted(of.items())))(*leaves))
    primitive.def_abstract_eval(abstract)
    mlir.register_lowering(primitive, mlir.lower_fun(flat(default), multiple_results=True))
    for platform, function in platforms.items():
        rule = mlir.lower_fun(flat(function), multiple_results=True)
        mlir.register_lowering(primitive, rule, platform=platform)
    batching.primitive_batchers[primitive] = batched

    def call(*operands: Any, **options: Any) -> tuple:
        leaves, tree = jax.tree.flatten(operands)
        return tuple(primitive.bind(*leaves, tree=tree, **options))

    return call
