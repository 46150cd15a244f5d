"""Matrix products with low-precision operands and float32 sums, in both directions."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from sf_jax.kernels.precision import wide
from sf_jax.model.declared import Linear


@struct.dataclass
class OutputMajorLinear:
    """A linear whose weight is stored [out, in], by which a CPU multiplies few rows fastest."""

    weight: Float[Array, "O I"]
    bias: Float[Array, " O"] | None = None


@struct.dataclass
class AdaptedLinear:
    """A linear with a low-rank addition; may be used wherever a `Linear` may.

    Attributes:
      base: the linear itself, or one already adapted.
      a, b: the factors, with the leading layer axis where the base is stacked.
      scale: float32, the factor of the addition, one a layer where stacked.
    """

    base: "AnyLinear"
    a: Float[Array, "*layers I R"]
    b: Float[Array, "*layers R O"]
    scale: Float[Array, "*layers"]


AnyLinear = Linear | OutputMajorLinear | AdaptedLinear


def apply(
    layer: AnyLinear,
    x: Float[Array, "*rows I"],
    product_dtype: str = "float32",
) -> Float[Array, "*rows O"]:
    """The output of any kind of linear of the model, low-rank additions included."""
    if isinstance(layer, Linear):
        return linear(x, layer.weight, layer.bias, product_dtype)
    if isinstance(layer, OutputMajorLinear):
        return output_major(x, layer.weight, layer.bias, product_dtype)
    low = linear(x, layer.a, None, product_dtype)
    change = layer.scale * linear(low, layer.b, None, product_dtype)
    return apply(layer.base, x, product_dtype) + change.astype(x.dtype)


def linear(
    x: Float[Array, "*rows I"],
    weight: Float[Array, "I O"],
    bias: Float[Array, " O"] | None = None,
    product_dtype: str = "float32",
) -> Float[Array, "*rows O"]:
    """`x @ weight + bias`, operands rounded to `product_dtype`, result in the type of x.

    The leading axes are flattened first: one large two-dimensional product is what every backend
    runs best.
    """
    rows = x.reshape(-1, x.shape[-1])
    if x.dtype == product_dtype == wide(x.dtype):
        out = jnp.matmul(rows, weight.astype(x.dtype), precision=jax.lax.Precision.HIGHEST)
    else:
        out = _low_precision_product(rows, weight, product_dtype)
    out = out.reshape(*x.shape[:-1], weight.shape[-1]).astype(x.dtype)
    return out if bias is None else out + bias.astype(x.dtype)


def output_major(
    x: Float[Array, "*rows I"],
    weight: Float[Array, "O I"],
    bias: Float[Array, " O"] | None = None,
    dtype: str = "float32",
) -> Float[Array, "*rows O"]:
    """As `linear` for a weight stored [out, in]; not to be differentiated in low precision.

    The product contracts last axes: written with a transpose it is ten times slower on a CPU.
    """
    rows = x.reshape(-1, x.shape[-1])
    single = len(rows) == 1 and dtype != "float32"
    if single:  # one row in low precision takes a CPU nine times as long as two
        rows = jnp.pad(rows, [(0, 1), (0, 0)])
    out = _product(rows, weight, dtype, (1, 1))
    out = out[:1] if single else out
    out = out.reshape(*x.shape[:-1], -1).astype(x.dtype)
    return out if bias is None else out + bias.astype(x.dtype)


def _product(a: Array, b: Array, dtype: str, contract: tuple[int, int]) -> Array:
    dimensions = (((contract[0],), (contract[1],)), ((), ()))
    return jax.lax.dot_general(
        a.astype(dtype),
        b.astype(dtype),
        dimensions,
        preferred_element_type=jnp.float32,
        precision=jax.lax.Precision.HIGHEST if dtype == "float32" else None,
    )


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _low_precision_product(x: Array, weight: Array, dtype: str) -> Array:
    return _product(x, weight, dtype, (1, 0))


def _forward(x: Array, weight: Array, dtype: str) -> tuple[Array, tuple[Array, Array]]:
    return _product(x, weight, dtype, (1, 0)), (x, weight)


def _backward(dtype: str, saved: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    # The derivative rule of dot_general would multiply a float32 gradient with a rounded operand,
    # which no backend does fast; here the gradient is rounded too.
    x, weight = saved
    dx = _product(gradient, weight, dtype, (1, 1)).astype(x.dtype)
    of_weight = partial(_product, dtype=dtype, contract=(0, 0))
    if x.dtype != jnp.float32:
        return dx, of_weight(x, gradient).astype(weight.dtype)
    # CPUs have no fast low-precision product over the leading axis; rounding would gain nothing.
    # The platform that is compiled for decides, which need not be this machine's.
    exact = partial(_product, dtype="float32", contract=(0, 0))
    dw = jax.lax.platform_dependent(x, gradient, cpu=exact, default=of_weight)
    return dx, dw.astype(weight.dtype)


_low_precision_product.defvjp(_forward, _backward)
