"""The frozen reference is asked once: log-probabilities of judged answers, kept in a file.

The file is named by a hash of the reference's weights and of all that it is asked, so that it is
found again by the same run and by every run like it, and by no other.
"""

import io
import json
from pathlib import Path

import jax
import numpy as np
import xxhash
from jaxtyping import Float, PyTree

from sf_jax.media import files, hashes, npz_files
from sf_jax.media.errors import DataError
from sf_jax.media.npz_files import Declared
from sf_jax.systems.superface.examples import PairGroups
from sf_jax.train.preference import PreferenceTask, answer_log_probabilities

VERSION = 1  # of what is computed; another one asks anew


class ReferenceError(DataError):
    """A file of log-probabilities that is damaged."""


def hash_of(weights: PyTree) -> str:
    """One hash of a tree of arrays: names, types, shapes and values."""
    found = xxhash.xxh3_128()
    for path, leaf in jax.tree_util.tree_leaves_with_path(weights):
        found.update(jax.tree_util.keystr(path).encode())
        found.update(hashes.of_arrays(np.asarray(leaf)).encode())  # an array at a time on the host
    return found.hexdigest()


def file_of(task: PreferenceTask, weights: PyTree, groups: PairGroups, folder: Path) -> Path:
    """The file that holds, or will hold, what the reference answers."""
    _, asked = groups.measured
    parts = [VERSION, hash_of(weights), asked, task.config.product_dtype]
    return folder / f"reference-{xxhash.xxh3_128_hexdigest(json.dumps(parts).encode())}.npz"


def log_probabilities(
    task: PreferenceTask, weights: PyTree, groups: PairGroups, folder: Path
) -> Float[np.ndarray, "N S"]:
    """The log-probability of each pair's answers under the reference, in nats.

    Args:
      weights: of the reference, a whole model.
      folder: of the files.

    Raises:
      ReferenceError: the file is damaged; names it.
      GroupError, ExampleError: a pair cannot be trained on; names it.
      OSError: the file cannot be written.
    """
    path = file_of(task, weights, groups, folder)
    if path.exists():
        shape = {"log_probabilities": Declared("float", (len(groups), task.objective.answers))}
        try:
            return npz_files.read_arrays(path, shape, ReferenceError)["log_probabilities"]
        except ReferenceError as error:
            problem = f"{error.problem}; delete the file, and it is computed anew"
            raise ReferenceError(problem, path=path) from error
    found = answer_log_probabilities(task, weights, map(groups.group, range(len(groups))))
    content = io.BytesIO()
    np.savez(content, log_probabilities=found)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(path, content.getvalue())
    return found


def with_reference(
    task: PreferenceTask, weights: PyTree, groups: PairGroups, folder: Path
) -> PairGroups:
    """The groups, with what the reference answers; see `log_probabilities`."""
    return groups.with_reference(log_probabilities(task, weights, groups, folder))
