"""Matrix products with rounded operands."""

import jax
import jax.numpy as jnp
import numpy as np

from sf_jax.model.linear import linear


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
