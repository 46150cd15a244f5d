"""What a run reads beside its checkpoints, saved with them and compared when it resumes.

A position in the data means the same examples only where files, seed and batch are the same, and
a checkpoint without the weights that are not trained continues only beside those it began with.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sf_jax.media import hashes

SHOWN = 3  # changes that are listed
SAMPLED = 64 << 20  # bytes hashed of a model's files


@dataclass(frozen=True)
class FileFingerprint:
    """Of one file of records, or of a model.

    Attributes:
      bytes: its size; records: how many it holds, 0 for a model's.
      hash: of its content, or of samples of it.
    """

    bytes: int
    records: int
    hash: str


@dataclass(frozen=True)
class Fingerprint:
    """Attributes:
    files: by name, in the order in which they are read.
    order: settings that the order depends on, such as the seed, and others that a run may not
      change on its way.
    """

    files: Mapping[str, FileFingerprint]
    order: Mapping[str, float | str]

    def with_model(self, folder: Path, names: Iterable[str]) -> "Fingerprint":
        """This fingerprint with files of a model, as `model/NAME`; names of no file are left out.

        Raises:
          OSError: a file cannot be read.
        """
        paths = {f"model/{name}": folder / name for name in names if (folder / name).is_file()}
        budget = SAMPLED // max(1, len(paths))
        found = {
            name: FileFingerprint(path.stat().st_size, 0, hashes.of_samples(path, budget))
            for name, path in paths.items()
        }
        return replace(self, files={**self.files, **found})

    def as_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        files = {name: asdict(file) for name, file in self.files.items()}
        return {"files": files, "order": dict(self.order)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Fingerprint":
        """The fingerprint that `as_json` gave."""
        files = {name: FileFingerprint(**file) for name, file in content["files"].items()}
        return cls(files, content["order"])


def changes(saved: Fingerprint, now: Fingerprint) -> str:
    """What changed, as text: the first few files and settings by name; "" where nothing did."""
    found = [*_files(saved.files, now.files), *_settings(saved.order, now.order)]
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return "; ".join(found[:SHOWN]) + more


def _files(
    saved: Mapping[str, FileFingerprint], now: Mapping[str, FileFingerprint]
) -> Iterator[str]:
    for name in sorted(saved.keys() | now.keys()):
        old, new = saved.get(name), now.get(name)
        if new is None:
            yield f"{name} is missing"
        elif old is None:
            yield f"{name} is new"
        elif new.records != old.records:
            yield f"{name} has {new.records:,} records, had {old.records:,}"
        elif new.bytes != old.bytes:
            yield f"{name} has {new.bytes:,} bytes, had {old.bytes:,}"
        elif new.hash != old.hash:
            yield f"{name} has other content"


def _settings(saved: Mapping[str, float | str], now: Mapping[str, float | str]) -> Iterator[str]:
    for name in sorted(saved.keys() | now.keys()):
        if saved.get(name) != now.get(name):
            yield f"{name} is {now.get(name)}, was {saved.get(name)}"
