"""A model directory as training begins with it and ends: settings, first state, what is written."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree

from sf_jax.convert import checksums, hf, peft
from sf_jax.convert.hf_config import config_from_dict
from sf_jax.convert.processor import FILE as PROCESSOR_FILE
from sf_jax.convert.tensor_files import read_json
from sf_jax.decode.program import compile_program
from sf_jax.decode.schema_file import FILE as SCHEMA_FILE
from sf_jax.model import lora
from sf_jax.model.config import Config
from sf_jax.model.declared import initialise_on
from sf_jax.reader import loading
from sf_jax.sequence.tokenizer import JsonTokenizer, SentencePieceTokenizer
from sf_jax.train import mesh as meshes
from sf_jax.train.losses.supervised import SlotValues
from sf_jax.train.step import TrainState
from sf_jax.train.task import Frozen, Task
from sf_jax.train.trainable import Trained

TOKENIZER_FILES = (SentencePieceTokenizer.file, JsonTokenizer.file)
MODEL, ADAPTER = "model", "adapter"  # folders of what is exported


class ModelTask(Protocol):
    """A task that trains the model of a directory, whole weights or adapters or both.

    Attributes:
      source: the model directory that it starts from; config: of the model.
    """

    @property
    def source(self) -> Path: ...
    @property
    def config(self) -> Config: ...

    def declare(self) -> PyTree: ...
    def join(self, trained: PyTree, frozen: Frozen) -> PyTree: ...


def config_in(directory: Path) -> Config:
    """The configuration in a model directory.

    Raises:
      CheckpointError: it is missing, cannot be read, or is of another kind of model.
    """
    file = directory / "config.json"
    return config_from_dict(read_json(file), file)


def model_files(directory: Path, weights: bool) -> list[str]:
    """Names of the files of a model that training depends on, with those of its weights or not."""
    found = checksums.weight_files(directory) if weights else ()
    return [*found, "config.json", PROCESSOR_FILE, SCHEMA_FILE, *TOKENIZER_FILES]


def values_of(directory: Path, config: Config) -> SlotValues | None:
    """The values of the slots for the loss; None where some take several tokens."""
    if loading.is_instructed(directory):
        return None
    tokenizer, _ = loading.load_inputs(directory, config)
    schema = loading.load_schema(directory)
    return SlotValues.of(compile_program(schema, tokenizer), schema.decimals)


def initial_state(
    task: Task,
    source: Path,
    mesh: Mesh,
    scratch: bool,
    seed: int,
    companions: Callable[[PyTree], dict[str, PyTree]] = lambda weights: {},
) -> TrainState:
    """The state to start from; every device reads or draws its own part only.

    Args:
      scratch: starts from fresh weights, else from those in the directory `source`.
      companions: the model's weights → those of the task's companions.

    Raises:
      CheckpointError: a file of the model is missing, cannot be read or differs from its checksum.
    """
    declared = task.declare()
    if scratch:
        weights = initialise_on(declared, seed, meshes.of_weights(declared, mesh))
        return task.create(weights, mesh, seed, companions=companions(weights))
    if jax.process_count() == 1:  # several hosts read a share of the weights each, and no more
        checksums.verify(source)
    _, weights = hf.load(
        source,
        dtype=jnp.float32,
        sharding=lambda weight: NamedSharding(mesh, meshes.spec(weight.axes, weight.shape, mesh)),
    )
    return task.create(weights, mesh, seed, companions=companions(weights))


def on_host(tree: PyTree) -> PyTree:
    """The whole arrays of a tree, in every process's memory."""
    if jax.process_count() > 1:
        return multihost_utils.process_allgather(tree, tiled=True)
    return jax.device_get(tree)


def export(task: ModelTask, state: TrainState, directory: Path, merged: bool = False) -> None:
    """Writes what was trained: an adapter in PEFT's layout into the folder "adapter", or a model
    directory into the folder "model", or both.

    Args:
      merged: write a model directory also where only an adapter was trained, summed into it.
    """
    writes = jax.process_index() == 0

    def fetched(x: jax.Array) -> PyTree:
        """Array by array: only the process that writes holds more than one of them."""
        found = on_host(x)
        return found if writes else None

    whole_model = merged or bool(jax.tree.leaves(state.weights.weights))
    trained = jax.tree.map(fetched, state.weights)
    frozen = Frozen(jax.tree.map(fetched, state.frozen.weights)) if whole_model else Frozen()
    if writes:
        _write(task, trained, frozen, directory, merged)
    if jax.process_count() > 1:  # the others wait for it
        multihost_utils.sync_global_devices("exported")


def _write(
    task: ModelTask, trained: Trained, frozen: Frozen, directory: Path, merged: bool
) -> None:
    made, declared = [], task.declare()
    if trained.adapter is not None:
        made.append(ADAPTER)
        peft.save(directory / ADAPTER, trained.adapter, declared)
    if merged or jax.tree.leaves(trained.weights):
        made.append(MODEL)
        weights = task.join(replace(trained, adapter=None), frozen)
        if merged and trained.adapter is not None:
            weights = lora.merge(weights, trained.adapter, declared)
        source = config_in(task.source)
        inputs = loading.load_inputs(task.source, task.config)
        schema = loading.load_schema(task.source)
        host = jax.device_get(weights)
        loading.save(directory / MODEL, source, host, *inputs, schema=schema)
    print(f"the trained {' and '.join(made)} in {directory}")
