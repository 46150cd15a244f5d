"""Matrix products with rounded operands."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sf_jax.model.declared import Linear
from sf_jax.model.linear import OutputMajorLinear, apply, linear


def test_gradients_of_low_precision_products_are_close_to_exact_ones() -> None:
    generator = np.random.default_rng(0)
    x = jnp.asarray(generator.normal(size=(3, 5, 24)), jnp.float32)
    weight = jnp.asarray(generator.normal(size=(24, 17)), jnp.float32)
    bias = jnp.asarray(generator.normal(size=17), jnp.float32)

    def loss(dtype):
        return lambda x, w, b: jnp.square(linear(x, w, b, dtype)).sum()

    exact = jax.grad(loss("float32"), (0, 1, 2))(x, weight, bias)
    rounded = jax.grad(loss("bfloat16"), (0, 1, 2))(x, weight, bias)
    for a, b in zip(exact, rounded, strict=True):
        assert a.dtype == b.dtype == jnp.float32
        assert 0 < np.linalg.norm(a - b) / np.linalg.norm(a) < 1e-2


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rows", [1, 5])
def test_output_major_weights_give_the_same(dtype, rows) -> None:
    generator = np.random.default_rng(2)
    x = generator.normal(size=(1, rows, 24)).astype(np.float32)
    weight, bias = (generator.normal(size=shape).astype(np.float32) for shape in ((24, 40), (40,)))
    usual = apply(Linear(jnp.asarray(weight), bias), x, dtype)
    turned = apply(OutputMajorLinear(jnp.asarray(weight.T), bias), x, dtype)
    assert turned.shape == usual.shape == (1, rows, 40)
    np.testing.assert_allclose(turned, usual, atol=1e-5)


@pytest.mark.parametrize(("platform", "operand"), [("tpu", "bf16"), ("cpu", "f32")])
def test_the_platform_compiled_for_decides_the_precision_of_gradients(
    platform, operand, monkeypatch
) -> None:
    """Not the backend of the machine that compiles."""
    x, weight = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((6, 24), (24, 17)))

    def lowered() -> str:
        def loss(weight: jax.Array, x: jax.Array) -> jax.Array:
            return jnp.square(linear(x, weight, None, "bfloat16")).sum()

        traced = jax.jit(jax.grad(loss)).trace(weight, x)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    text = lowered()
    for backend in ("cpu", "tpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        assert lowered() == text
    products = [line for line in text.splitlines() if "dot_general" in line]
    of_weight = [line for line in products if "-> tensor<24x17xf32>" in line]
    assert len(of_weight) == 1
    assert f"(tensor<6x24x{operand}>, tensor<6x17x{operand}>)" in of_weight[0]
