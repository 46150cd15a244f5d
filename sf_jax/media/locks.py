"""One writer at a time: locks of folders that a command fills over a long time.

A local lock is the operating system's (`flock` on a hidden file). The kernel releases it when its
process ends, however it ends, so that one left by `kill -9` never blocks anyone. It holds between
the hosts that share an NFS folder, and on one host where a bucket is mounted with gcsfuse.

Buckets (`gs://`) and file systems without locks get a lease instead: a small file that its holder
renews. Whoever finds one waits for up to a minute; where nobody renews it, its holder is gone and
the lease is taken over. A holder that finds its lease taken over must stop: see `Lock.check`.
"""

import contextlib
import datetime
import errno
import fcntl
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

from sf_jax.media.errors import DataError

if TYPE_CHECKING:
    from etils import epath

NAME = ".lock"  # within the folder
RENEWAL, EXPIRY = 15.0, 60.0  # seconds: a lease is renewed, and is expired where it was not
WAIT = 0.5  # seconds between two tries of `waited`
UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}


class BusyError(DataError):
    """Another process writes there; the message names it."""


class Lock(Protocol):
    """A lock that this process holds."""

    def check(self) -> None:
        """Raises BusyError where another process has taken the lock over."""

    def release(self) -> None:
        """Ends it; its file is removed."""


def acquire(path: str | os.PathLike) -> Lock:
    """Takes the lock of a file, whose folder is made; see `held` for whole folders.

    Args:
      path: of the lock's own file, local or gs://.

    Raises:
      BusyError: another process holds it; names the file's folder.
      OSError: the file cannot be written.
    """
    if "://" in os.fspath(path):
        from etils import epath  # late: few need it

        return Lease(epath.Path(path))
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    return _flocked(target) or Lease(target)


@contextmanager
def held(folder: str | os.PathLike, name: str = NAME) -> Iterator[Lock]:
    """Holds the lock of a folder, local (it is made) or gs://, for the block.

    Raises:
      BusyError: another process holds it, or has taken it over by the end of the block.
    """
    with _released(acquire(f"{os.fspath(folder)}/{name}")) as lock:
        yield lock


@contextmanager
def waited(folder: str | os.PathLike, name: str = NAME) -> Iterator[Lock]:
    """`held`, once whoever holds the lock has released it."""
    while True:
        try:
            lock = acquire(f"{os.fspath(folder)}/{name}")
        except BusyError:
            time.sleep(WAIT)
            continue
        break
    with _released(lock):
        yield lock


@contextmanager
def _released(lock: Lock) -> Iterator[Lock]:
    try:
        yield lock
        lock.check()
    finally:
        lock.release()


class _Flocked:
    """An open file with the kernel's lock on it."""

    def __init__(self, path: Path, file: IO[str]):
        self._path, self._file = path, file

    def check(self) -> None:
        """The kernel gives it to nobody else."""

    def release(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # the folder may be gone
            self._path.unlink()
        self._file.close()


def _flocked(path: Path) -> _Flocked | None:
    """The kernel's lock on a file; None where the file system has no locks."""
    while True:
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A holder before may have removed the file between these two calls.
            if os.path.exists(path) and os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                file.truncate(0)
                file.write(_holder())
                file.flush()
                return _Flocked(path, file)
            file.close()
        except BlockingIOError as error:
            file.seek(0)
            found = file.read(300)
            file.close()
            raise _busy(path, found) from error
        except OSError as error:
            file.close()
            if error.errno not in UNSUPPORTED:
                raise
            return None


class Lease:
    """A file that a thread renews, for storage without locks."""

    def __init__(
        self,
        path: "Path | epath.Path",
        renewal: float = RENEWAL,
        expiry: float = EXPIRY,
    ):
        """Waits for up to `expiry` seconds where the file is there.

        Raises:
          BusyError: its holder renews it, or another process has taken it at the same time.
        """
        self._path, self._token, self._beats = path, uuid.uuid4().hex, 0
        pause = min(1.0, renewal / 4)
        found, until = self._read(), time.monotonic() + expiry
        while found is not None and time.monotonic() < until:
            time.sleep(pause)
            now = self._read()
            if now is not None and now != found:
                raise _busy(path, now.partition("\n")[0])
            found = now
        self._write()
        time.sleep(pause)  # of those that found none a moment ago, the last to write has it
        now = self._read()
        if now is not None and self._token not in now:
            raise _busy(path, now.partition("\n")[0])
        self._lost = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=self._renew, args=(renewal,), name="lease", daemon=True
        )
        self._thread.start()

    def check(self) -> None:
        if self._lost:
            raise BusyError(f"was taken over by {self._lost}", path=self._path.parent)

    def release(self) -> None:
        self._ended.set()
        self._thread.join()
        if not self._lost:
            with contextlib.suppress(OSError):  # it expires by itself
                self._path.unlink()

    def _renew(self, seconds: float) -> None:
        while not self._ended.wait(seconds):
            with contextlib.suppress(Exception):  # of whatever storage holds it; it may pass
                found = self._read()
                if found is not None and self._token not in found:
                    self._lost = found.partition("\n")[0]
                    return
                self._write()

    def _read(self) -> str | None:
        """The content; None where there is none, as where only the try at a lock made the file."""
        try:
            return self._path.read_text() or None
        except FileNotFoundError:
            return None

    def _write(self) -> None:
        self._beats += 1
        self._path.write_text(f"{_holder()}\n{self._token} {self._beats}\n")


def _holder() -> str:
    now = datetime.datetime.now().astimezone().isoformat(" ", "seconds")
    return f"process {os.getpid()} on {socket.gethostname()} since {now}"


def _busy(path: "Path | epath.Path", holder: str) -> BusyError:
    holder = " ".join(holder.split()) or "another process"
    return BusyError(f"{holder} writes here; let it end, or name another folder", path=path.parent)
