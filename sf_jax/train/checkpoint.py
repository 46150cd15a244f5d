"""Orbax checkpoints that hold the train state and the data iterator's position, with checksums.

Orbax restores a file with a flipped bit without a message. So once a checkpoint is committed, every
process writes checksums of its share of the files beside them. A checkpoint without all checksums
is incomplete, one whose files differ from them is corrupt. Restoring takes the newest sound one.
Directories may be local or `gs://`.
"""

import contextlib
import enum
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from sf_jax.media import files, locks, small_files
from sf_jax.train import processes
from sf_jax.train.step import TrainState

CHECKSUMS = "checksums"  # a folder in each checkpoint, of one file a process
# Quarantined checkpoints are renamed to one of these and their step.
CORRUPT, INCOMPLETE = "checksums-failed", "unfinished"


class CheckpointError(RuntimeError):
    """A checkpoint cannot be saved, or none can be restored; the message says which and why."""


class Checkpoints:
    """The newest few checkpoints of one run, in one directory."""

    def __init__(
        self, directory: str | os.PathLike, keep: int = 3, report: Callable[[str], None] = print
    ):
        """Takes the directory's lock, and holds it until `close`.

        Args:
          keep: 2 or more; report: is called with a line for each checkpoint quarantined.

        Raises:
          BusyError: another process writes there.
        """
        self.directory = _absolute(directory)
        self._report = report
        options = ocp.CheckpointManagerOptions(
            max_to_keep=max(keep, 2), create=True, cleanup_tmp_directories=True
        )
        # Beside the directory, in which Orbax expects its own files alone.
        self._lock = processes.acquire(self.directory.parent / f".{self.directory.name}.lock")
        try:
            self._manager = ocp.CheckpointManager(self.directory, options=options)
        except BaseException:
            self._release()
            raise
        self._sealing: threading.Thread | None = None
        self._failed: Exception | None = None

    def latest(self) -> int | None:
        """The newest step committed, None where there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, data_state: Any) -> None:
        """Saves in the background, all but what is frozen. `data_state` is what JSON can hold.

        Raises:
          CheckpointError: the save before this one failed.
          BusyError: another run has taken this one's lock over, which only a lease allows.
        """
        self.wait()
        if problem := processes.shared_problem(self._taken_over()):
            raise locks.BusyError(problem)
        step = int(state.step)
        content = ocp.args.Composite(
            state=ocp.args.StandardSave(replace(state, frozen=None)),
            data=ocp.args.JsonSave(data_state),
        )
        try:
            self._manager.save(step, args=content)
        except Exception as error:  # a full disk has many names
            raise self._unsaved(step, error) from error
        self._sealing = threading.Thread(target=self._seal, args=(step,), name="checksums")
        self._sealing.start()

    def wait(self) -> None:
        """Until what is being saved is on disk with its checksums.

        Raises:
          CheckpointError: it could not be saved.
        """
        if self._sealing is not None:
            self._sealing.join()
            self._sealing = None
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed

    def restore(self, like: TrainState) -> tuple[TrainState, Any] | None:
        """The newest sound checkpoint, shaped and placed as `like`; None where there is none yet.

        What is frozen is taken from `like`.

        An incomplete or corrupt one is renamed, never deleted.

        Raises:
          CheckpointError: some are corrupt and none is sound, one could not be read, or it is of
            another model.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            state, problem = self._verified(step)
            if state is _State.SOUND:
                return self._restored(step, like)
            if state is _State.UNREADABLE:
                raise CheckpointError(f"{self.directory}/{step} could not be read: {problem}")
            name = f"{INCOMPLETE if state is _State.INCOMPLETE else CORRUPT}-{step}"
            self._report(f"checkpoint {step}: {problem}; renamed to {name}")
            self._quarantine(step, name)
        corrupt = sorted(path.name for path in self.directory.glob(f"{CORRUPT}-*"))
        if corrupt:
            raise CheckpointError(
                f"{self.directory}: no checkpoint is sound, {', '.join(corrupt)} "
                "failed their checksums; take them away to begin anew"
            )
        return None

    def close(self) -> None:
        """Waits for what is being saved; raises as `wait` does."""
        try:
            self.wait()
        finally:
            with contextlib.suppress(Exception):  # the same error that `wait` raises
                self._manager.close()
            self._release()

    def _taken_over(self) -> str:
        """What is wrong with this process's lock; "" where it is held."""
        try:
            if self._lock is not None:
                self._lock.check()
        except locks.BusyError as error:
            return str(error)
        return ""

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _restored(self, step: int, like: TrainState) -> tuple[TrainState, Any]:
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, replace(like, frozen=None))
        try:
            content = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(target), data=ocp.args.JsonRestore()
                ),
            )
        except ValueError as error:  # Orbax lists all shapes and trees
            raise CheckpointError(
                f"{self.directory}/{step} is of another model, recipe or adapter: give the same "
                f"ones, or begin in another directory ({_first_line(error)})"
            ) from error
        return replace(content["state"], frozen=like.frozen), content["data"]

    def _seal(self, step: int) -> None:
        """Writes checksums of this process's share of the files, once they are committed."""
        try:
            self._manager.wait_until_finished()
            folder = self.directory / str(step)
            mine, of = jax.process_index(), jax.process_count()
            sums = {name: _digest(folder / name) for name in _files(folder)[mine::of]}
            (folder / CHECKSUMS).mkdir(exist_ok=True)
            written = folder / CHECKSUMS / f"{mine:05d}-of-{of:05d}.json"
            files.write_json(written, sums, indent=1)
        except Exception as error:  # it is raised where the next save or the end waits for it
            self._failed = self._unsaved(step, error)

    def _unsaved(self, step: int, error: Exception) -> CheckpointError:
        sound = [found for found in self._manager.all_steps() if self._sealed(found)]
        newest = max(sound, default=None)
        return CheckpointError(
            f"checkpoint {step} could not be saved in {self.directory}: {_first_line(error)}; "
            + ("there is none before it" if newest is None else f"{newest} is whole")
        )

    def _sealed(self, step: int) -> list[epath.Path]:
        """The files of checksums, where all are there."""
        found = sorted((self.directory / str(step) / CHECKSUMS).glob("*.json"))
        return found if found and len(found) == int(found[0].stem.split("-of-")[1]) else []

    def _verified(self, step: int) -> tuple["_State", str]:
        """How a checkpoint is; each process verifies its share, and all agree on the worst."""
        try:
            state, problem = self._found(step)
        except (FileNotFoundError, ValueError, TypeError) as error:  # in the checksums themselves
            state, problem = _State.CORRUPT, _first_line(error)
        except Exception as error:  # of whatever storage holds it; it may pass
            state, problem = _State.UNREADABLE, _first_line(error)
        if jax.process_count() > 1:
            states = multihost_utils.process_allgather(np.int32(state))
            worst = int(np.argmax(states))
            if state and jax.process_index():  # process 0 reports for all
                line = f"sf-jax: process {jax.process_index()}: checkpoint {step}: {problem}"
                print(line, file=sys.stderr, flush=True)
            if states[worst] > state:
                state, problem = _State(int(states[worst])), f"process {worst} reports so"
        return state, problem

    def _found(self, step: int) -> tuple["_State", str]:
        folder = self.directory / str(step)
        sealed = self._sealed(step)
        if not sealed:
            return _State.INCOMPLETE, "it was not finished: checksums are missing"
        sums: dict[str, str] = {}
        for path in sealed:
            sums |= small_files.parse_json(path.read_text())
        for name in sorted(sums)[jax.process_index() :: jax.process_count()]:
            if not (folder / name).exists():
                return _State.CORRUPT, f"{name} is missing"
            if _digest(folder / name) != sums[name]:
                return _State.CORRUPT, f"{name} differs from its checksum"
        return _State.SOUND, ""

    def _quarantine(self, step: int, name: str) -> None:
        """Out of the way of the steps to come, but not deleted."""
        if jax.process_index() == 0:
            renamed = self.directory / name
            if renamed.exists():
                renamed.rmtree()
            (self.directory / str(step)).rename(renamed)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"quarantine {step}")
        self._manager.reload()


class _State(enum.IntEnum):
    """How a checkpoint is, from good to bad."""

    SOUND = 0
    INCOMPLETE = 1
    CORRUPT = 2
    UNREADABLE = 3


def begun(run: str | os.PathLike) -> bool:
    """Whether the folder of a run, local or gs://, has checkpoints."""
    return any(path.name.isdigit() for path in _absolute(f"{os.fspath(run)}/checkpoints").glob("*"))


def _absolute(directory: str | os.PathLike) -> epath.Path:
    """A local path from the root, or a path like gs://bucket/folder as it is."""
    text = os.fspath(directory)
    return epath.Path(text if "://" in text else os.path.abspath(text))


def _files(folder: epath.Path) -> list[str]:
    """All files of a committed checkpoint, by their paths within it."""

    def walk(inside: epath.Path) -> Iterator[str]:
        for path in inside.iterdir():
            if path.is_dir():
                yield from walk(path)
            else:
                yield str(path.relative_to(folder))

    return sorted(name for name in walk(folder) if not name.startswith(f"{CHECKSUMS}/"))


def _digest(path: epath.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
