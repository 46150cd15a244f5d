"""Which parts of a model are trained: whole weights, adapters beside frozen ones, or both."""

import re
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh

from sf_jax.model import lora
from sf_jax.model.config import Config
from sf_jax.model.weights import Weight, Weights
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
    """The trained tree. `weights` holds None in the place of each frozen weight."""

    weights: Any
    adapter: Any = None


def _is_weight(node: Any) -> bool:
    return isinstance(node, Weight)


def _keep(weights: Weights, config: Config, pattern: str | None, matching: bool) -> Weights:
    def one(weight: Weight, x: Any) -> Any:
        found = pattern is not None and re.search(pattern, weight.name) is not None
        return x if found == matching else None

    return jax.tree.map(one, config.declare(), weights, is_leaf=_is_weight)


def split(
    weights: Weights, adapter: lora.Adapter | None, config: Config, trainable: Trainable
) -> tuple[Trained, Weights]:
    """The trained tree and the frozen weights, each with None where the other has a weight.

    Raises:
      ValueError: nothing would be trained, or a weight that is trained itself is adapted too.
    """
    trained = _keep(weights, config, trainable.whole, matching=True)
    frozen = _keep(weights, config, trainable.whole, matching=False)
    if adapter is None and not jax.tree.leaves(trained):
        raise ValueError(f"no weight's name has {trainable.whole!r} in it: nothing is trained")
    if trainable.adapter is not None and trainable.whole is not None:
        for family in lora.families(trainable.adapter, config):
            if re.search(trainable.whole, f"{family}.weight"):
                raise ValueError(f"{family!r} is to be trained itself and by an adapter too")
    return Trained(trained, adapter), frozen


def join(trained: Trained, frozen: Weights, config: Config) -> Weights:
    """All weights, with the adapter beside those it adds to."""
    weights = jax.tree.map(
        lambda ours, theirs: theirs if ours is None else ours,
        trained.weights,
        frozen,
        is_leaf=lambda node: node is None,
    )
    return weights if trained.adapter is None else lora.attach(weights, trained.adapter, config)


def shardings(trainable: Trainable, config: Config, mesh: Mesh) -> tuple[Trained, Weights]:
    """How `split`'s two trees lie on a mesh."""
    chosen = trainable.adapter
    adapter = None if chosen is None else meshes.of_adapter(chosen, config, mesh)
    return split(meshes.of_weights(config, mesh), adapter, config, trainable)


def abstract(
    trainable: Trainable, config: Config, frozen_dtype: Any = jnp.bfloat16
) -> tuple[Trained, Weights]:
    """`split`'s two trees as `jax.ShapeDtypeStruct`s; what is trained is float32."""

    def shape(weight: Weight) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(weight.shape, jnp.float32)

    weights = jax.tree.map(shape, config.declare(), is_leaf=_is_weight)
    chosen = trainable.adapter
    adapter = None if chosen is None else lora.abstract(chosen, config)
    trained, frozen = split(weights, adapter, config, trainable)
    narrow = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, frozen_dtype), frozen)
    return trained, narrow
