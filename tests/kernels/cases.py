"""Inputs, and the float64 reference with its gradients, for the tests of every implementation."""

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sf_jax.kernels import attention

# ‖x - ref‖₂ / ‖ref‖₂ per tensor, for unit-normal inputs.
FORWARD = {"float32": 2e-6, "bfloat16": 8e-3}
GRADIENT = {"float32": 5e-6, "bfloat16": 8e-3}

# Examples of each property test; `SF_JAX_KERNEL_CASES=100 pytest tests/kernels` draws more.
EXAMPLES = int(os.environ.get("SF_JAX_KERNEL_CASES", "3"))

Tensors = dict[str, np.ndarray]  # q, k, v, and d_out and d_lse: what gradients are pulled with


def inputs(
    batch: int = 1,
    length: int = 256,
    size: int | None = None,
    heads: int = 4,
    kv_heads: int | None = None,
    width: int = 64,
    dtype: str = "float32",
    seed: int = 0,
) -> Tensors:
    """Unit-normal operands, already rounded to `dtype`, kept in float32."""
    generator = np.random.default_rng(seed)
    size, kv_heads = size or length, kv_heads or heads
    shapes = {
        "q": (batch, length, heads, width), "k": (batch, size, kv_heads, width),
        "v": (batch, size, kv_heads, width), "d_out": (batch, length, heads, width),
        "d_lse": (batch, length, heads),
    }  # fmt: skip
    given = {name: generator.normal(size=shape) for name, shape in shapes.items()}
    return {name: _rounded(x, "float32" if name == "d_lse" else dtype) for name, x in given.items()}


def _rounded(x: np.ndarray, dtype: str) -> np.ndarray:
    return np.asarray(jnp.asarray(x, jnp.float32).astype(dtype).astype(jnp.float32))


def run(
    given: Tensors, dtype: str, call: Callable | None = None, gradients: bool = True, **how: Any
) -> Tensors:
    """Output, log-sum-exp and gradients of `attention` (or `call`) with arguments `how`."""
    return run_each([given], dtype, call, gradients, **how)[0]


def run_each(
    several: list[Tensors],
    dtype: str,
    call: Callable | None = None,
    gradients: bool = True,
    **how: Any,
) -> list[Tensors]:
    """`run` with several operands of the same shapes, compiled once."""
    call = call or attention
    exact = jnp.promote_types(dtype, jnp.float32)

    def both(q: Any, k: Any, v: Any) -> Any:
        return call(q, k, v, return_lse=True, **how)

    @jax.jit
    def everything(q: Any, k: Any, v: Any, d_out: Any, d_lse: Any) -> Any:
        if not gradients:
            return both(q, k, v)
        (out, lse), pull = jax.vjp(both, q, k, v)
        # A query that sees nothing has no log-sum-exp to differentiate.
        return out, lse, *pull((d_out, jnp.where(jnp.isfinite(lse), d_lse, 0.0).astype(exact)))

    results = []
    for given in several:
        operands = (jnp.asarray(given[n], dtype) for n in ("q", "k", "v", "d_out", "d_lse"))
        names = ("out", "lse", "d_q", "d_k", "d_v")[: 5 if gradients else 2]
        found = zip(names, everything(*operands), strict=True)
        results.append({n: np.asarray(x, np.float64) for n, x in found})
    return results


def forward_only(tensors: Tensors) -> Tensors:
    """Output and log-sum-exp, to compare with a run without gradients."""
    return {name: tensors[name] for name in ("out", "lse")}


def wanted(given: Tensors, gradients: bool = True, **how: Any) -> Tensors:
    """The results of the reference in float64."""
    with jax.enable_x64(True):
        return run(given, "float64", None, gradients, implementation="reference", **how)


def errors(found: Tensors, right: Tensors) -> dict[str, float]:
    """The relative error of each tensor; where the reference is not finite, they must be equal."""
    out = {}
    for name, x in right.items():
        finite = np.isfinite(x)
        np.testing.assert_array_equal(found[name][~finite], x[~finite], err_msg=name)
        norm = np.linalg.norm(x[finite])
        out[name] = float(np.linalg.norm(found[name][finite] - x[finite]) / (norm or 1.0))
    return out


def assert_close(found: Tensors, right: Tensors, dtype: str) -> None:
    """Every tensor within the limits above."""
    limits = {name: GRADIENT if name.startswith("d_") else FORWARD for name in right}
    wrong = {
        name: error for name, error in errors(found, right).items()
        if not error <= limits[name][dtype]
    }  # fmt: skip
    assert not wrong, f"off by {wrong}"
