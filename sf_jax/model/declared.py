"""Weights declared once, and what is made of a tree of declarations.

A `Weight` gives an array's shape, logical axes, initialiser and name in checkpoints. A model of any
architecture declares a tree with a `Weight` in the position of each array; initial values, abstract
shapes and the number of parameters are made of that tree here, shardings, adapters and checkpoint
maps in `train.mesh`, `model.lora` and `convert.weight_files`.

Linear weights are stored [in, out]. Layers that are alike are stacked on a leading axis "layer", so
that they can be scanned; their names hold "{}" for the layer number.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

T = TypeVar("T")  # a tree of weights: of declarations, arrays, shapes or shardings
LAYER = "layer"  # the logical axis on which layers are stacked


@dataclass(frozen=True)
class Weight:
    """Declaration of one array.

    Attributes:
      shape: with the leading layer axis where stacked.
      axes: a logical name for each axis, for sharding: "layer" of a stack, "vocab", "heads", "mlp"
        and so on where devices share a side (`train.mesh.RULES`), "position" of a learned table of
        positions, which is replicated; any other name is the model's own.
      name: the tensor's name in a Hugging Face checkpoint; "{}" is replaced by the layer number.
      init: "normal" (deviation `scale`), "zeros" or "ones".
      transposed: the checkpoint stores [out, in].
      source_shape: the checkpoint's shape where it is more than a transposition: a convolution's
        kernel, whose first axis is the output.
      copies: names of further tensors by which a checkpoint may hold the same values again, such as
        an output projection tied to the embedding. They are not needed to load it.
    """

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    name: str
    init: str = "normal"
    scale: float = 0.02
    transposed: bool = False
    source_shape: tuple[int, ...] | None = None
    copies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.shape) != len(self.axes):
            raise ValueError(f"{self.name!r}: shape {self.shape} has other axes than {self.axes}")

    @property
    def stacked(self) -> bool:
        """Whether it holds that weight of several layers, on a leading axis."""
        return self.axes[:1] == (LAYER,)

    @property
    def names(self) -> list[str]:
        """The checkpoint's tensors that it is made of: one, or one a layer."""
        if not self.stacked:
            return [self.name]
        return [self.name.format(layer) for layer in range(self.shape[0])]


@struct.dataclass
class Norm:
    """Scale and, of a LayerNorm, bias of a normalisation, [*layers, D]."""

    scale: Float[Array, "*layers D"]
    bias: Float[Array, "*layers D"] | None = None


@struct.dataclass
class Linear:
    """A matrix stored [in, out] and its bias."""

    weight: Float[Array, "*layers I O"]
    bias: Float[Array, "*layers O"] | None = None


class Declarer:
    """Declares the weights of one part of a model: a common prefix, and stacking where asked for.

    What it returns are `Linear`, `Norm` and so on with declarations in the position of arrays.
    """

    def __init__(self, prefix: str, layers: int | None = None):
        """`prefix` of the names, with "{}" for the layer number where `layers` are stacked."""
        self.prefix, self.layers = prefix, layers

    def weight(
        self, name: str, shape: tuple[int, ...], axes: tuple[str, ...], **options: Any
    ) -> Any:
        """One array, with the further fields of `Weight` as `options`."""
        if self.layers is not None:
            shape, axes = (self.layers, *shape), (LAYER, *axes)
        return Weight(shape, axes, f"{self.prefix}.{name}", **options)

    def linear(
        self, name: str, axes: tuple[str, str], shape: tuple[int, int], bias: bool = True
    ) -> Linear:
        """A linear of this shape [in, out]; the deviation falls with the number of inputs."""
        scale = min(0.02, 0.6 * shape[0] ** -0.5) if shape[0] > 900 else shape[0] ** -0.5 * 0.6
        weight = self.weight(f"{name}.weight", shape, axes, scale=scale, transposed=True)
        if not bias:
            return Linear(weight)
        return Linear(weight, self.weight(f"{name}.bias", shape[1:], axes[1:], init="zeros"))

    def convolution(
        self, name: str, axes: tuple[str, str], inputs: tuple[int, ...], outputs: int
    ) -> Linear:
        """A convolution as a linear over flattened windows of `inputs` (channels, then sizes)."""
        width = math.prod(inputs)
        weight = self.weight(
            f"{name}.weight",
            (width, outputs),
            axes,
            scale=width**-0.5,
            transposed=True,
            source_shape=(outputs, *inputs),
        )
        return Linear(weight, self.weight(f"{name}.bias", (outputs,), axes[1:], init="zeros"))

    def norm(self, name: str, width: int, axis: str, bias: bool = False) -> Norm:
        """A normalisation's scale, of ones, and bias, of zeros."""
        scale = self.weight(f"{name}.weight", (width,), (axis,), init="ones")
        if not bias:
            return Norm(scale)
        return Norm(scale, self.weight(f"{name}.bias", (width,), (axis,), init="zeros"))


def is_weight(node: object) -> bool:
    """Whether a node of a tree is a declaration; for `is_leaf`."""
    return isinstance(node, Weight)


def leaves(declared: PyTree[Weight]) -> list[Weight]:
    """The declarations of a tree, in the order of its leaves."""
    return jax.tree.leaves(declared, is_leaf=is_weight)


def map_declared(function: Callable[..., Any], declared: T, *trees: PyTree) -> T:
    """The tree of `function(weight, *values)`; values are those that other trees hold there."""
    return jax.tree.map(function, declared, *trees, is_leaf=is_weight)


def abstract(declared: T, dtype: DTypeLike = jnp.float32) -> T:
    """The tree as `jax.ShapeDtypeStruct`s: shapes at any size, no memory."""
    return map_declared(lambda weight: jax.ShapeDtypeStruct(weight.shape, dtype), declared)


def count(declared: PyTree[Weight]) -> int:
    """Number of parameters; a tied output projection is not counted twice."""
    return sum(math.prod(weight.shape) for weight in leaves(declared))


def initialise(declared: T, seed: int, dtype: DTypeLike = jnp.float32) -> T:
    """Fresh weights, drawn on the host; the same seed gives the same weights anywhere."""
    generator = np.random.default_rng(seed)

    def draw(weight: Weight) -> jax.Array:
        if weight.init == "zeros":
            return jnp.zeros(weight.shape, dtype)
        if weight.init == "ones":
            return jnp.ones(weight.shape, dtype)
        return jnp.asarray(generator.normal(0.0, weight.scale, weight.shape), dtype)

    return map_declared(draw, declared)


def initialise_on(declared: T, seed: int, shardings: PyTree, dtype: DTypeLike = jnp.float32) -> T:
    """Fresh weights, drawn where they are sharded to: nothing ever holds more than its part.

    The same seed gives the same weights on any mesh.
    """
    weights, tree = jax.tree.flatten(declared, is_leaf=is_weight)

    def draw(key: jax.Array) -> list[jax.Array]:
        drawn = []
        for number, weight in enumerate(weights):
            if weight.init == "normal":
                noise = jax.random.normal(jax.random.fold_in(key, number), weight.shape, dtype)
                drawn.append(noise * jnp.asarray(weight.scale, dtype))
            else:
                drawn.append(jnp.full(weight.shape, float(weight.init == "ones"), dtype))
        return drawn

    compiled = jax.jit(draw, out_shardings=jax.tree.leaves(shardings))
    return jax.tree.unflatten(tree, compiled(jax.random.key(seed)))
