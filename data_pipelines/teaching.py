"""Stage I: records → records whose rationales a teacher wrote and the checker accepted.

Every text is checked against the record's coefficients. One that contradicts them is sent back
once with what is wrong, and rejected where that does not help; a rejected record is left out and
listed with its reasons. Each file of records becomes one file, complete or not at all, beside a
report; texts of an unfinished file are kept, so that a run that is stopped asks for none twice.
"""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_pipelines import records, teacher_prompt
from data_pipelines.teachers import Task, Teacher
from sf_jax.face.checking import Contradiction, check
from sf_jax.media import files, locks, small_files
from sf_jax.media.errors import DataError

SETTINGS = "teacher.settings.json"


@dataclass
class Written:
    """The texts of one record, first and repaired, with what is wrong with the last."""

    number: int
    coefficients: np.ndarray
    known: np.ndarray
    texts: list[str] = field(default_factory=list)
    problems: tuple[Contradiction, ...] = ()

    @property
    def accepted(self) -> bool:
        return bool(self.texts) and not self.problems

    def check(self) -> None:
        """Judges the last text."""
        self.problems = check(self.texts[-1], self.coefficients, self.known)

    def task(self) -> Task:
        messages = teacher_prompt.conversation(self.coefficients)
        if self.texts:
            messages = teacher_prompt.repair(messages, self.texts[-1], self.problems)
        return Task(self.number, self.coefficients, messages)


class Journal:
    """Texts of a file that is not finished, a JSON line each, on the disk once they are added."""

    def __init__(self, path: Path):
        self.path = path
        self._known: dict[tuple[int, int], str] = {}
        if path.exists():
            for _, line in small_files.lines(path):
                with contextlib.suppress(
                    DataError, KeyError, TypeError
                ):  # cut off as it was killed
                    entry = small_files.parse_json(line)
                    self._known[entry["record"], entry["attempt"]] = str(entry["text"])

    def get(self, number: int, attempt: int) -> str | None:
        return self._known.get((number, attempt))

    def add(self, number: int, attempt: int, text: str) -> None:
        self._known[number, attempt] = text
        entry = json.dumps({"record": number, "attempt": attempt, "text": text})
        with self.path.open("a", encoding="utf-8") as file:
            file.write("\n" + entry + "\n")  # a line that was cut off ends here
            file.flush()
            os.fsync(file.fileno())


def teach(source: str | Path, out: str | Path, teacher: Teacher) -> Counter[str]:
    """Writes rationales for all record files of a folder into another; resumes where it stopped.

    Returns:
      counts: records, accepted, repaired (of those), rejected, contradictions by kind in first
      texts, and the teacher's own, such as requests; files that were finished before included.

    Raises:
      DataError: the folders are the same, records cannot be read, `out` holds records of another
        teacher or source, or the teacher cannot go on.
      BusyError: another process writes there.
    """
    source, out = Path(source), Path(out)
    if source.resolve() == out.resolve():
        raise DataError("the records would replace themselves; name another folder", path=out)
    paths = [Path(path) for path in records.files(source)]
    total = sum(records.count(path) for path in paths)
    counts = Counter[str]()
    with locks.held(out) as lock, tqdm(total=total, desc="describe", unit="record") as bar:
        _check_settings(out, {**teacher.settings(), "source": _names(paths)})
        for path in paths:
            counts += _teach_file(path, out / path.name, teacher, bar)
            lock.check()
    if not counts["accepted"]:
        problem = f"none of {counts['records']} texts was accepted; *.teacher.json there says why"
        raise DataError(problem, path=out)
    return counts + Counter(teacher.counts)


def _names(paths: Sequence[Path]) -> dict[str, int]:
    return {path.name: records.count(path) for path in paths}


def _check_settings(out: Path, wanted: dict[str, Any]) -> None:
    path = out / SETTINGS
    if not path.exists():
        files.write_json(path, wanted)
        return
    found = small_files.read_json(path)
    both = found if isinstance(found, dict) else {}
    differing = [name for name in wanted if both.get(name) != wanted[name]]
    if differing:
        problem = f"the records here were made with another {', '.join(differing)}; "
        raise DataError(f"{problem}name another folder", path=path)


def _teach_file(path: Path, target: Path, teacher: Teacher, bar: tqdm) -> Counter[str]:
    """One file; finished ones are counted from their report."""
    report = target.with_suffix(".teacher.json")
    if report.exists():  # written last
        bar.update(records.count(path))
        return Counter(small_files.read_json(report)["counts"])
    journal = Journal(target.with_suffix(".answers.jsonl"))
    written = [
        Written(number, np.where(record["known"], record["coefficients"], 0.0), record["known"])
        for number, record in enumerate(records.read(path))
    ]
    kinds = Counter[str]()
    for start in range(0, len(written), teacher.rows):
        rows = written[start : start + teacher.rows]
        _answer(rows, 0, teacher, journal)
        wrong = [one for one in rows if not one.accepted]
        kinds += Counter(problem.kind for one in wrong for problem in one.problems)
        _answer(wrong, 1, teacher, journal)
        bar.update(len(rows))
    counts = _counts(written, kinds)
    rejected = [_rejection(one) for one in written if not one.accepted]
    if counts["accepted"]:
        _write(path, target, written, teacher.settings())
    files.write_json(report, {"counts": dict(counts), "rejected": rejected})
    journal.path.unlink(missing_ok=True)
    return counts


def _answer(rows: Sequence[Written], attempt: int, teacher: Teacher, journal: Journal) -> None:
    """Adds the next text of each record: from the journal, or from the teacher."""
    asked = [one for one in rows if journal.get(one.number, attempt) is None]
    texts = teacher.write([one.task() for one in asked])
    for one, text in zip(asked, texts, strict=True):
        journal.add(one.number, attempt, text)
    for one in rows:
        one.texts.append(journal.get(one.number, attempt) or "")
        one.check()


def _counts(written: Sequence[Written], kinds: Counter[str]) -> Counter[str]:
    accepted = [one for one in written if one.accepted]
    counts = Counter(
        {
            "records": len(written),
            "accepted": len(accepted),
            "repaired": sum(len(one.texts) > 1 for one in accepted),
            "rejected": len(written) - len(accepted),
        }
    )
    return counts + Counter({f"first texts: {kind}": number for kind, number in kinds.items()})


def _rejection(one: Written) -> dict[str, Any]:
    problems = [problem.text for problem in one.problems]
    return {"record": one.number, "contradictions": problems, "texts": one.texts}


def _write(path: Path, target: Path, written: Sequence[Written], origin: dict[str, Any]) -> None:
    """The accepted records with their new rationales, images as they are stored."""
    packed = records.read_as(path, lambda data: records.unpacked(data, records.FIELDS))
    records.write_encoded(
        target,
        (
            records.packed(
                {
                    **record,
                    "rationale": one.texts[-1],
                    "teacher": {**origin, "attempts": len(one.texts)},
                }
            )
            for one, record in zip(written, packed, strict=True)
            if one.accepted
        ),
    )


def summary(counts: Counter[str]) -> list[str]:
    """Lines for people."""
    total = counts["records"]
    lines = [
        f"{total} records: {counts['accepted']} accepted, {counts['repaired']} of them after one "
        f"repair, {counts['rejected']} rejected (listed in *.teacher.json)"
    ]
    kinds = [
        f"{name.removeprefix('first texts: ')} {number}"
        for name, number in sorted(counts.items())
        if name.startswith("first texts: ")
    ]
    if kinds:
        lines.append("contradictions in first texts: " + ", ".join(kinds))
    if "requests" in counts:
        lines.append(f"{counts['requests']} requests, {counts['retries']} of them retries")
    return lines
