"""Names of results, all chosen before the work: none meets an input, another result, or a file that
`sf-jax` did not write.

An input's results get its stem: `a.jpg` becomes `a.json`, `a.preview.png` and so on. Where one of
these names is taken, or several inputs share the stem, they get the whole name, `a.jpg.json`, and
where that is taken too, a number, `a.jpg-2.json`. Where each face of an image has results, these
are `a.face-1.json` and so on: as their number is not known before the work, an image gets a stem
for which all such names are free. Results of an earlier run are replaced, by those
of the same input.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from sf_jax.media.errors import printable
from sf_jax.media.files import cut
from sf_jax.reader.inputs import Input, folded, node
from sf_jax.reader.results import (
    ANY_FACE,
    PARTIAL,
    RECORD,
    SUFFIXES,
    Names,
    Results,
    ResultsError,
    face_suffix,
    of_any_face,
)

TABLE = "pictures"  # stem of the table of several images
MOST_FACES = 9999  # of an image, for the length of names
NAME_BYTES = 255  # where the file system does not state its own limit


@dataclass
class Plan:
    """Names of the results of each input, of the table of all images; and inputs without a name."""

    names: dict[Input, Names] = field(default_factory=dict)
    table: Names | None = None
    failures: list[ResultsError] = field(default_factory=list)


def plan(files: Sequence[Input], results: Results, table: str, faces: bool = False) -> Plan:
    """Names the results of all files.

    Args:
      faces: whether each face of an image has results of its own.
      table: what identifies the table of all images among those of other runs; see `Entry.source`.
    """
    chosen = Plan()
    claims = _Claims(results, files, faces)
    pictures = [file for file in files if file.kind == "picture"]
    if len(pictures) > 1:
        chosen.table = claims.names(Path(), [TABLE], table)
    stems = Counter((folded(file.folder), folded(file.path.stem)) for file in files)
    for file in files:
        source = results.relative(file.path)
        alone = stems[folded(file.folder), folded(file.path.stem)] == 1
        try:
            bases = [file.path.stem, file.path.name] if alone else [file.path.name]
            chosen.names[file] = claims.names(file.folder, bases, source)
        except ResultsError as error:
            chosen.failures.append(error)
    if len(pictures) == 1:
        chosen.table = chosen.names.get(pictures[0])
    return chosen


class _Claims:
    """Which names are taken, by files on the disk and by results to be written.

    Attributes:
      taken: folder and name, folded; names of results of faces stand for those of all numbers.
      numbered: the names of single files, with `ANY_FACE` in place of the number of a face.
      existing: folder → name with `ANY_FACE` in place of a number → the names of files there.
    """

    def __init__(self, results: Results, files: Sequence[Input], faces: bool):
        self.results, self.faces = results, faces
        self.taken: set[tuple[str, str]] = set()
        self.numbered: set[tuple[str, str]] = set()
        self.existing: dict[Path, dict[str, list[str]]] = {}
        self.inputs = {node(file.path) for file in files}
        self.numbers: Counter[tuple[Path, str]] = Counter()
        self.most = _longest_name(results.folder) - max(map(len, SUFFIXES)) - len(PARTIAL)
        self.most -= len(face_suffix(MOST_FACES)) if faces else 0
        # Names of before stay with their inputs where these are read again.
        sources = {results.relative(file.path) for file in files}
        self.reserved = {
            folded(entry.stem): source
            for source, entry in results.entries.items()
            if source in sources
        }

    def names(self, folder: Path, bases: Sequence[str], source: str) -> Names:
        """The first names that are free, of those that the source had before, the bases, and the
        last base with a number.

        Raises:
          ResultsError: a file is in the way of the folder.
        """
        inside = self.results.out / folder
        self._check_folder(inside)
        for stem in self._stems(folder, bases, source):
            names = Names(inside, stem)
            if self._free(names, source):
                where = folded(inside)
                claimed = [folded(name) for name in names.files(self.faces)]
                self.taken.update((where, name) for name in claimed)
                self.numbered.update((where, of_any_face(name)) for name in claimed)
                return names
        raise AssertionError("numbers do not end")

    def _stems(self, folder: Path, bases: Sequence[str], source: str) -> Iterator[str]:
        earlier = self.results.entries.get(source)
        if earlier and Path(earlier.stem).parent == folder:
            yield Path(earlier.stem).name
        for base in bases:
            yield cut(base, self.most)
        last = bases[-1]
        for number in count(self.numbers[folder, last] + 2):
            self.numbers[folder, last] += 1
            yield f"{cut(last, self.most - len(str(number)) - 1)}-{number}"

    def _free(self, names: Names, source: str) -> bool:
        owner = self.reserved.get(folded(self.results.relative(names.folder / names.stem)))
        if owner not in (None, source):
            return False
        where, there = folded(names.folder), self._in_folder(names.folder)
        for name in names.files(self.faces):
            text = folded(name)
            every = of_any_face(text)
            if {(where, text), (where, every)} & self.taken or name == RECORD:
                return False
            if ANY_FACE in text and (where, text) in self.numbered:
                return False
            met = there.get(every, [])
            if ANY_FACE not in text:  # one file
                met = [name] if text in map(folded, met) else []
            if not all(self._replaceable(names.folder / other, source) for other in met):
                return False
        return True

    def _replaceable(self, path: Path, source: str) -> bool:
        """Whether a name is free, or has a result of the same source that is no input of now."""
        if not os.path.lexists(path):
            return True
        return node(path) not in self.inputs and self.results.owns(path, source)

    def _in_folder(self, folder: Path) -> dict[str, list[str]]:
        """What is in a folder of results, see `existing`."""
        if folder not in self.existing:
            there = self.existing[folder] = {}
            for name in os.listdir(folder) if folder.is_dir() else []:
                there.setdefault(of_any_face(folded(name)), []).append(name)
        return self.existing[folder]

    def _check_folder(self, folder: Path) -> None:
        for above in (folder, *folder.parents):
            if above == self.results.out:
                return
            if os.path.lexists(above) and not above.is_dir():
                raise ResultsError(
                    f"a file, expected a folder for results of {printable(folder)}", path=above
                )


def _longest_name(folder: Path) -> int:
    """Bytes that a file name may take."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError):
        return NAME_BYTES
