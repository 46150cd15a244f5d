"""The `attention` function, and which implementation a call gets."""

from functools import partial
from importlib import import_module
from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from sf_jax.kernels import cpu, reference
from sf_jax.kernels.by_platform import by_platform
from sf_jax.kernels.precision import wide
from sf_jax.kernels.sharded import ambient_mesh, over_mesh
from sf_jax.kernels.visible import Visible, per_row


def attention(
    q_BTNH: Float[Array, "B T N H"],
    k_BSKH: Float[Array, "B S K H"],
    v_BSKH: Float[Array, "B S K H"],
    *,
    causal: bool = True,
    q_segments: Int[Array, "B T"] | None = None,
    kv_segments: Int[Array, "B S"] | None = None,
    q_offset: Int[Array, " B"] | int = 0,
    kv_length: Int[Array, " B"] | int | None = None,
    mask: Bool[Array, "B T S"] | None = None,
    scale: float | None = None,
    return_lse: bool = False,
    implementation: str | None = None,
    mesh: Mesh | None = None,
    ring: bool = True,
    heads_first: bool = False,
) -> Any:
    """Scaled dot-product attention with grouped key/value heads.

    Softmax and accumulation are in float32, or in float64 for float64 operands.

    Args:
      causal: query t sees keys up to t + `q_offset`.
      q_segments, kv_segments: queries see keys of their own segment only; keys of segment 0 are
        padding, which no query sees.
      q_offset: number of keys before the first query, one for all rows or per row.
      kv_length: number of keys in use, one for all rows or per row; later ones are not visible.
      mask: False where a key is not visible; for trees of drafts.
      scale: of the products, above 0; H ** -0.5 by default.
      return_lse: also return the log-sum-exp, float32 [B, T, N].
      implementation: "tpu", "gpu", "cpu" (plain JAX, runs anywhere) or "reference"; None: the TPU
        kernels where the call is compiled for a TPU and they support it, plain JAX elsewhere.
      mesh: devices to shard the work over, by the axes `data`, `fsdp`, `tensor` and `sequence`;
        None: the mesh of `jax.set_mesh`, if any.
      ring: permute keys and values round a ring along `sequence` instead of gathering them.
      heads_first: on a TPU, use the kernels of the heads-first layout, and let the compiler choose
        that layout for the arrays. Values are the same. It comes at no cost where operations
        around the call produce the arrays, as a layer's projections do; an array already in memory
        in the order of its shape is copied.

    Returns:
      [B, T, N, H] in the type of q, with `return_lse` also the log-sum-exp [B, T, N]. A query that
      sees no key yields zeros and a log-sum-exp of -inf.

    Raises:
      ValueError: unknown implementation, one that does not support the call, a scale that is not
        positive, or shapes that do not match each other or the mesh.
    """
    batch = q_BTNH.shape[0]
    scale = float(q_BTNH.shape[3] ** -0.5 if scale is None else scale)
    _check(q_BTNH, k_BSKH, v_BSKH, scale, implementation)
    if (q_segments is None) != (kv_segments is None):
        raise ValueError("segments of queries and of keys go together: one of them is missing")
    offset = None if isinstance(q_offset, int) and q_offset == 0 else per_row(q_offset, batch)
    visible = Visible(causal, q_segments, kv_segments, offset, per_row(kv_length, batch), mask)
    operands = q_BTNH, k_BSKH, v_BSKH, visible
    if implementation == "reference":
        out, lse = reference.attend(*operands, scale)
    else:
        names = MODULES[implementation] if implementation else ()
        if names and not _supporting(names, *operands):
            raise ValueError(
                f"implementation {implementation!r} has no kernel for {q_BTNH.dtype} "
                f"{q_BTNH.shape} {'without' if mask is None else 'with'} a mask"
            )

        def attend(q: Array, k: Array, v: Array, visible: Visible) -> tuple[Array, Array]:
            return _attend(q, k, v, visible, scale, implementation, heads_first)

        devices = mesh or ambient_mesh()
        if devices is None:
            out, lse = attend(*operands)
        else:
            out, lse = over_mesh(devices, attend, *operands, ring=ring)
    return (out, lse) if return_lse else out


def _check(
    q_BTNH: Array, k_BSKH: Array, v_BSKH: Array, scale: float, implementation: str | None
) -> None:
    """Raises ValueError for shapes that do not match, a scale or an implementation out of range."""
    _, _, heads, width = q_BTNH.shape
    if k_BSKH.shape != v_BSKH.shape or k_BSKH.shape[3] != width or heads % k_BSKH.shape[2]:
        raise ValueError(
            f"q {q_BTNH.shape}, k {k_BSKH.shape} and v {v_BSKH.shape} do not match: "
            "k and v must agree, widths must be equal, query heads a multiple of key heads"
        )
    if scale <= 0:
        raise ValueError(f"scale {scale} is not positive")
    if implementation not in (None, "reference", *MODULES):
        raise ValueError(f"implementation {implementation!r} is none of {['reference', *MODULES]}")


# The kernel modules of each implementation, the most specialised first; not all have a backward
# pass. What none of them supports runs in plain JAX.
MODULES: dict[str, tuple[str, ...]] = {
    "tpu": ("tpu_decode", "tpu_interleaved", "tpu"), "gpu": ("gpu",), "cpu": (),
}  # fmt: skip
# The default implementation of a platform. The GPU's must be requested until they have run on one.
PLATFORMS = {"tpu": "tpu"}


def _supporting(names: tuple[str, ...], *operands: Any) -> list[Any]:
    """The modules that support a call; imported here, since other platforms need none of them."""
    modules = (import_module(f"sf_jax.kernels.{name}") for name in names)
    return [module for module in modules if module.supports(*operands)]


def _forward(
    q: Array,
    k: Array,
    v: Array,
    visible: Visible,
    *,
    scale: float,
    heads_first: bool,
    names: tuple[str, ...],
) -> tuple[Array, Array]:
    modules = _supporting(_of_layout(names, heads_first), q, k, v, visible)
    return (*modules, cpu)[0].forward(q, k, v, visible, scale)


def _backward(
    q: Array,
    k: Array,
    v: Array,
    visible: Visible,
    *cotangents: Array,
    scale: float,
    heads_first: bool,
    names: tuple[str, ...],
) -> tuple[Array, Array, Array]:
    modules = _supporting(_of_layout(names, heads_first), q, k, v, visible)
    supporting = [module for module in (*modules, cpu) if hasattr(module, "backward")]
    return supporting[0].backward(q, k, v, visible, *cotangents, scale)


def _of_layout(names: tuple[str, ...], heads_first: bool) -> tuple[str, ...]:
    """The modules that support the requested layout."""
    return tuple(name for name in names if not (heads_first and name == "tpu_interleaved"))


def _each(function: Any) -> tuple[Any, dict[str, Any]]:
    """The plain JAX version, and one for each platform that has kernels."""
    of = {name: partial(function, names=names) for name, names in MODULES.items()}
    return of["cpu"], {platform: of[name] for platform, name in PLATFORMS.items()}


_forward_anywhere = by_platform(
    "attention",
    lambda q, k, v, visible: (q, jax.ShapeDtypeStruct(q.shape[:3], wide(q.dtype))),
    *_each(_forward),
)
_backward_anywhere = by_platform(
    "attention_gradients", lambda q, k, v, *_: (q, k, v), *_each(_backward)
)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def _attend(
    q: Array,
    k: Array,
    v: Array,
    visible: Visible,
    scale: float,
    implementation: str | None,
    heads_first: bool,
) -> tuple[Array, Array]:
    """Output and log-sum-exp, with a custom gradient by each implementation."""
    how: dict[str, Any] = {"scale": scale, "heads_first": heads_first}
    if implementation is None:
        out, lse = _forward_anywhere(q, k, v, visible, **how)
        return out, lse
    with jax.named_scope("attention"):
        return _forward(q, k, v, visible, **how, names=MODULES[implementation])


def _attend_forward(
    q: Array,
    k: Array,
    v: Array,
    visible: Visible,
    scale: float,
    implementation: str | None,
    heads_first: bool,
) -> tuple[tuple[Array, Array], tuple]:
    out, lse = _attend(q, k, v, visible, scale, implementation, heads_first)
    return (out, lse), (q, k, v, visible, out, lse)


def _attend_backward(
    scale: float,
    implementation: str | None,
    heads_first: bool,
    residuals: tuple,
    cotangents: tuple[Array, Array],
) -> tuple[Array, Array, Array, None]:
    how: dict[str, Any] = {"scale": scale, "heads_first": heads_first}
    if implementation is None:
        d_q, d_k, d_v = _backward_anywhere(*residuals, *cotangents, **how)
    else:
        with jax.named_scope("attention_gradients"):
            d_q, d_k, d_v = _backward(*residuals, *cotangents, **how, names=MODULES[implementation])
    return d_q, d_k, d_v, None


_attend.defvjp(_attend_forward, _attend_backward)
