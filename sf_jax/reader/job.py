"""What `sf-jax predict` decides before a model is loaded: inputs and names of results."""

import errno
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from sf_jax.media.errors import DataError
from sf_jax.reader.action import Provenance
from sf_jax.reader.inputs import Input, Inputs, collect
from sf_jax.reader.naming import Plan, plan
from sf_jax.reader.reader import PredictOptions
from sf_jax.reader.results import SHEET, Results, Writing

NO_MORE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}  # nothing else can be written either


@dataclass
class Job:
    """Inputs and names of results, and what has come of them.

    Attributes:
      inputs: the files to read.
      results: the folder of results; None where readings are printed alone.
      plan: the names of all results.
      table_source: identifies the table of these images among those of other runs.
      provenance: of the model that reads the files.
      framer: `Framer.source` of what finds the faces, where it is another model's.
      failures: what could not be read or written.
      kept: a sentence on each thing that an interruption left.
      complete: number of videos that were read to their end.
      skipped: number of files whose results are there already.
      ended: nothing more can be written.
    """

    inputs: Inputs
    options: PredictOptions
    results: Results | None
    plan: Plan
    table_source: str = ""
    provenance: Provenance = field(default_factory=Provenance)
    framer: str = ""
    failures: list[DataError | OSError] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    complete: int = 0
    skipped: int = 0
    ended: bool = False

    @cached_property
    def pictures(self) -> list[Input]:
        """The images to read: those whose results have names, or all where none are written."""
        return [file for file in self.inputs.pictures if self._named(file)]

    @cached_property
    def videos(self) -> list[Input]:
        """The videos to read, likewise."""
        return [file for file in self.inputs.videos if self._named(file)]

    def _named(self, file: Input) -> bool:
        return self.results is None or file in self.plan.names

    @contextmanager
    def failing(self, file: Input) -> Iterator[None]:
        """What goes wrong with one file in the block is listed, and costs no other file.

        An OSError is from writing: what cannot be read is a DataError.
        """
        try:
            yield
        except DataError as error:
            self.failures.append(error.at(path=file.path))
        except OSError as error:
            self.failures.append(error)
            self.ended = error.errno in NO_MORE

    @contextmanager
    def writing(self, file: Input, stamp: list[int]) -> Iterator[Writing]:
        """Where to write the results of one input; see `Results.writing`.

        Args:
          stamp: of the input before it was read, see `stamp_of`: it may have been replaced since.
        """
        assert self.results is not None
        source, made = self.results.relative(file.path), self._made_with(file)
        with self.results.writing(self.plan.names[file], source, stamp, made) as writing:
            yield writing

    @contextmanager
    def writing_table(self) -> Iterator[Writing]:
        """Where to write the table of several images."""
        assert self.results is not None and self.plan.table is not None
        with self.results.writing(self.plan.table, self.table_source) as writing:
            yield writing

    def done(self, file: Input, suffixes: Sequence[str]) -> bool:
        """Whether an earlier run wrote these results of the same file in the same way.

        Where previews are asked for, with a sheet of each face that it found.
        """
        if self.results is None or not self.options.skip_existing:
            return False
        entry = self.results.entries.get(self.results.relative(file.path))
        if entry is None or entry.made != self._made_with(file):
            return False
        paths = [self.plan.names[file].path(suffix) for suffix in suffixes]
        if self.options.previews:
            if not entry.sheets:
                return False
            sheets = [name for name in entry.files if name.endswith(SHEET)]
            paths += [self.results.folder / name for name in sheets]
        stamp = stamp_of(file.path)
        done = bool(stamp) and entry.stamp == stamp and self.results.holds(entry, paths)
        self.skipped += done
        return done

    def faces_of_before(self, file: Input) -> list[str]:
        """What comes before the suffixes of the results of an earlier run, as the record has them:
        "" of one result, or ".face-1" and so on; empty where there are none."""
        if self.results is None or not self.options.skip_existing:
            return []
        entry = self.results.entries.get(self.results.relative(file.path))
        stem = self.plan.names[file].stem
        names = [] if entry is None else [Path(name).name for name in entry.files]
        faces = [
            name.removeprefix(stem)[: -len(".json")] for name in names if name.endswith(".json")
        ]
        return sorted(faces, key=lambda face: (len(face), face))

    def _made_with(self, file: Input) -> str:
        """The model and the options that the results of one file depend on, as text."""
        options = self.options
        names = ["whole", "face", "force", "values", "rationale", "temperature", "seed"]
        names += ["max_rationale", "prompt"]
        names += ["smooth", "fps", "drop_frame"] if file.kind == "video" else []
        names += ["source_column"] if [file] == self.pictures else []  # it has a CSV of its own
        chosen = {name: getattr(options, name) for name in names}
        neutral = options.neutral and [str(options.neutral.resolve()), *stamp_of(options.neutral)]
        files = {"settings": self.provenance.settings, "framer": self.framer}
        model = self.provenance.as_json() | files
        return json.dumps(chosen | {"neutral": neutral, "model": model}, sort_keys=True)

    def close(self) -> None:
        """Unlocks the folder of results."""
        if self.results is not None:
            self.results.close()


def prepare(paths: Sequence[Path], options: PredictOptions) -> Job:
    """Finds all inputs and names all results.

    Raises:
      ResultsError, OSError: results cannot be written to the folder.
    """
    inputs = collect(paths, options.recursive)
    if options.out is None or not inputs.files:
        return Job(inputs, options, None, Plan(), failures=[*inputs.failures])
    results = Results.open(options.out)
    try:
        table = json.dumps(sorted(results.relative(path) for path in paths))
        chosen = plan(inputs.files, results, table, faces=options.face == "all")
    except BaseException:
        results.close()
        raise
    failures: list[DataError | OSError] = [*inputs.failures, *chosen.failures]
    return Job(inputs, options, results, chosen, table, failures=failures)


def stamp_of(path: Path) -> list[int]:
    """Size and time of the last change; empty where they cannot be had, as reading then reports."""
    try:
        status = path.stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]
