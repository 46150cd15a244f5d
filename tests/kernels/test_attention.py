"""The CPU implementation against the reference, and the reference against its contract."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sf_jax.kernels import attention


def inputs(batch=2, length=5, size=9, heads=4, kv_heads=2, width=8):
    generator = np.random.default_rng(0)
    shapes = [(batch, length, heads, width), *[(batch, size, kv_heads, width)] * 2]
    return [jnp.asarray(generator.normal(size=shape), jnp.float32) for shape in shapes]


CASES = {
    "bidirectional": {"causal": False},
    "causal with offset": {"causal": True, "q_offset": 4},
    "offset a row": {"causal": True, "q_offset": jnp.array([0, 4])},
    "lengths": {"causal": False, "kv_length": jnp.array([3, 9])},
    "segments": {
        "causal": False,
        "q_segments": jnp.array([[1, 1, 2, 2, 0]] * 2),
        "kv_segments": jnp.array([[1, 2, 1, 2, 0, 0, 1, 2, 2]] * 2),
    },
}


@pytest.mark.parametrize("name", CASES)
def test_cpu_equals_reference_in_value_and_gradient(name) -> None:
    q, k, v = inputs()

    def run(implementation):
        def loss(q, k, v):
            out, lse = attention(
                q, k, v, implementation=implementation, return_lse=True, **CASES[name]
            )
            return jnp.sin(out).sum(), (out, lse)

        return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(q, k, v)

    for a, b in zip(jax.tree.leaves(run("reference")), jax.tree.leaves(run("cpu")), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", CASES)
def test_low_precision_on_a_cpu_is_near_the_reference(name) -> None:
    rounded = [x.astype(jnp.bfloat16) for x in inputs()]
    found = attention(*rounded, implementation="cpu", **CASES[name])
    wanted = attention(
        *[x.astype(jnp.float32) for x in rounded], implementation="reference", **CASES[name]
    )
    assert found.dtype == jnp.bfloat16
    error = jnp.linalg.norm(found.astype(jnp.float32) - wanted) / jnp.linalg.norm(wanted)
    assert 0 < error <= 8e-3


def test_reference_by_hand() -> None:
    q, k, v = inputs(batch=1, length=1, size=2, heads=1, kv_heads=1, width=4)
    out = attention(q, k, v, causal=False, implementation="reference")
    scores = np.array([np.dot(q[0, 0, 0], k[0, i, 0]) / 2 for i in range(2)])
    weights = np.exp(scores) / np.exp(scores).sum()
    np.testing.assert_allclose(out[0, 0, 0], weights @ np.asarray(v[0, :, 0]), rtol=1e-5)


def test_nothing_to_see_gives_zeros() -> None:
    q, k, v = inputs()
    out, lse = attention(q, k, v, causal=False, kv_length=0, return_lse=True)
    assert (out == 0).all() and (lse == -jnp.inf).all()


def test_wrong_shapes_and_names_are_refused() -> None:
    q, k, v = inputs()
    with pytest.raises(ValueError, match="do not match"):
        attention(q, k[..., :4], v)
    with pytest.raises(ValueError, match="not positive"):
        attention(q, k, v, scale=0.0)
    with pytest.raises(ValueError, match="go together"):
        attention(q, k, v, q_segments=jnp.ones((2, 5), jnp.int32))
    with pytest.raises(ValueError, match="'tpu' has no kernel for float32"):
        attention(q, k, v, mask=jnp.ones((2, 5, 9), bool), implementation="tpu")
    with pytest.raises(ValueError, match="none of"):
        attention(q, k, v, implementation="magic")
