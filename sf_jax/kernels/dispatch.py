"""One `attention` for the whole package."""

from typing import Any

from jaxtyping import Array, Bool, Float, Int

from sf_jax.kernels import cpu, reference

_IMPLEMENTATIONS = {"reference": reference.attend, "cpu": cpu.attend}


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
) -> Any:
    """Scaled dot-product attention with grouped key/value heads.

    Args:
      causal: query t sees keys up to t + `q_offset`.
      q_segments, kv_segments: queries see keys of their own segment only; keys of segment 0 are
        padding and seen by nobody.
      q_offset: keys before the first query, a number or one a row.
      kv_length: keys in use, a number or one a row; later ones are not seen.
      mask: further keys that queries may not see, where False: for trees of drafts.
      scale: of the products; H ** -0.5 by default.
      return_lse: also return the log-sum-exp, float32 [B, T, N].
      implementation: "reference" or "cpu"; None chooses by platform.

    Returns:
      [B, T, N, H] in the type of q. A query that sees no key gets zeros.

    Raises:
      ValueError: unknown implementation, or shapes that do not fit.
    """
    batch, length, heads, width = q_BTNH.shape
    if k_BSKH.shape != v_BSKH.shape or k_BSKH.shape[3] != width or heads % k_BSKH.shape[2]:
        raise ValueError(
            f"q {q_BTNH.shape}, k {k_BSKH.shape} and v {v_BSKH.shape} do not fit: "
            "k and v must agree, widths must be equal, query heads a multiple of key heads"
        )
    name = implementation or "cpu"
    if name not in _IMPLEMENTATIONS:
        raise ValueError(f"implementation {name!r} is none of {sorted(_IMPLEMENTATIONS)}")
    allowed = reference.mask(
        (batch, length), k_BSKH.shape[1], causal, q_segments, kv_segments, q_offset, kv_length
    )
    if mask is not None:
        allowed &= mask
    out, lse = _IMPLEMENTATIONS[name](
        q_BTNH, k_BSKH, v_BSKH, allowed, width**-0.5 if scale is None else scale
    )
    return (out, lse) if return_lse else out
