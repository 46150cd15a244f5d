"""Which parts of a model are trained: whole weights, adapters beside frozen ones, or both."""

import re
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import PyTree

from sf_jax.model import declared as declarations
from sf_jax.model import lora
from sf_jax.model.declared import T, Weight, leaves, map_declared
from sf_jax.train import mesh as meshes


@dataclass(frozen=True)
class Trainable:
    """What is trained.

    Attributes:
      whole: a regular expression, found in the names of weights that are trained themselves; names
        are those of Hugging Face checkpoints with "{}" for the layer number. None: none are.
      adapter: linears that are trained by low-rank additions beside them.

    The default is full fine-tuning; `Trainable(None, LoraConfig(…))` is LoRA; a pattern of "merger"
    beside a LoraConfig for the language model trains the mergers and adapts the text layers.
    """

    whole: str | None = ""
    adapter: lora.LoraConfig | None = None


@struct.dataclass
class Trained:
    """The trained tree, as differentiated and saved.

    Attributes:
      weights: the model's tree, with None in the position of each frozen weight.
      adapter: factors beside frozen weights, None without LoRA.
    """

    weights: PyTree
    adapter: lora.Adapter | None = None


def _keep(weights: T, declared: PyTree[Weight], pattern: str | None, matching: bool) -> T:
    def one(weight: Weight, x: PyTree) -> PyTree | None:
        found = pattern is not None and re.search(pattern, weight.name) is not None
        return x if found == matching else None

    return map_declared(one, declared, weights)


def trained_names(declared: PyTree[Weight], trainable: Trainable) -> set[str]:
    """Names of the weights that are trained themselves; factors beside others are not listed."""
    pattern = trainable.whole
    names = (weight.name for weight in leaves(declared))
    return {name for name in names if pattern is not None and re.search(pattern, name)}


def split(
    weights: T, adapter: lora.Adapter | None, declared: PyTree[Weight], trainable: Trainable
) -> tuple[Trained, T]:
    """The trained tree and the frozen weights, each with None where the other has a weight.

    Raises:
      ValueError: nothing would be trained, or a weight that is trained itself is adapted too.
    """
    trained = _keep(weights, declared, trainable.whole, matching=True)
    frozen = _keep(weights, declared, trainable.whole, matching=False)
    if adapter is None and not jax.tree.leaves(trained):
        raise ValueError(f"no weight's name has {trainable.whole!r} in it: nothing is trained")
    if trainable.adapter is not None and trainable.whole is not None:
        for family in lora.families(trainable.adapter, declared):
            if re.search(trainable.whole, f"{family}.weight"):
                raise ValueError(f"{family!r} is to be trained itself and by an adapter too")
    return Trained(trained, adapter), frozen


def join(trained: Trained, frozen: T, declared: PyTree[Weight]) -> T:
    """All weights, with the adapter beside those it adds to."""
    weights = jax.tree.map(
        lambda ours, theirs: theirs if ours is None else ours,
        trained.weights,
        frozen,
        is_leaf=lambda node: node is None,
    )
    return weights if trained.adapter is None else lora.attach(weights, trained.adapter, declared)


def shardings(trainable: Trainable, declared: T, mesh: Mesh) -> tuple[Trained, T]:
    """The shardings of `split`'s two trees on a mesh."""
    chosen = trainable.adapter
    adapter = None if chosen is None else meshes.of_adapter(chosen, declared, mesh)
    return split(meshes.of_weights(declared, mesh), adapter, declared, trainable)


def abstract(
    trainable: Trainable, declared: T, frozen_dtype: DTypeLike = jnp.bfloat16
) -> tuple[Trained, T]:
    """`split`'s two trees as `jax.ShapeDtypeStruct`s; what is trained is float32."""
    chosen = trainable.adapter
    adapter = None if chosen is None else lora.abstract(chosen, declared)
    trained, frozen = split(declarations.abstract(declared), adapter, declared, trainable)
    narrow = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, frozen_dtype), frozen)
    return trained, narrow
