"""Orbax checkpoints that hold the train state and the data iterator's position."""

import os
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from sf_jax.train.step import TrainState


class Checkpoints:
    """Checkpoints of one run in one directory, the newest few kept."""

    def __init__(self, directory: str | os.PathLike, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(Path(directory).absolute(), options=options)

    def latest(self) -> int | None:
        """The newest step saved, None where there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, data_state: Any) -> None:
        """Saves in the background. `data_state` must be representable as JSON."""
        content = ocp.args.Composite(
            state=ocp.args.StandardSave(state), data=ocp.args.JsonSave(data_state)
        )
        self._manager.save(int(state.step), args=content)

    def restore(self, like: TrainState) -> tuple[TrainState, Any]:
        """The newest checkpoint, shaped and placed as `like`."""
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        content = self._manager.restore(
            self._manager.latest_step(),
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(target), data=ocp.args.JsonRestore()
            ),
        )
        return content["state"], content["data"]

    def close(self) -> None:
        self._manager.wait_until_finished()
        self._manager.close()


def save_weights(directory: str | os.PathLike, weights: Any) -> None:
    """Writes a tree of weights by itself, as `restore_weights` reads it on any mesh."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(Path(directory).absolute(), weights)


def restore_weights(directory: str | os.PathLike, like: Any) -> Any:
    """Reads a tree of weights.

    Args:
      like: the tree as arrays or `jax.ShapeDtypeStruct`s; a struct's sharding says where a weight
        goes, and its dtype what it becomes.
    """
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(Path(directory).absolute(), like)
