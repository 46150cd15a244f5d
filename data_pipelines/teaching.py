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

from data_pipelines import records, rendering, teacher_prompt
from data_pipelines.loader import RecordSource
from data_pipelines.teachers import Answer, Task, Teacher
from sf_jax.face.checking import Contradiction, check
from sf_jax.media import files, locks, small_files
from sf_jax.media.errors import DataError

SETTINGS = "teacher.settings.json"
# Of a kind beside those of `checking.KINDS`.
CUT = Contradiction("cut", "length", "the text is too long and was cut off: write less")


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

    def judge(self, answer: Answer) -> None:
        """Adds a text and what is wrong with it; one that was cut off is never accepted."""
        self.texts.append(answer.text)
        self.problems = check(answer.text, self.coefficients, self.known)
        if answer.cut:
            self.problems = (CUT, *self.problems)

    def task(self) -> Task:
        messages = teacher_prompt.conversation(self.coefficients)
        if self.texts:
            messages = teacher_prompt.repair(messages, self.texts[-1], self.problems)
        return Task(self.number, self.coefficients, messages)


class Journal:
    """Answers of a file that is not finished, a JSON line each, on the disk once they are added."""

    def __init__(self, path: Path):
        self.path = path
        self._known: dict[tuple[int, int], Answer] = {}
        if path.exists():
            for _, line in small_files.lines(path):
                with contextlib.suppress(
                    DataError, KeyError, TypeError
                ):  # cut off as it was killed
                    entry = small_files.parse_json(line)
                    number, cut = entry["record"], bool(entry.get("cut", False))
                    self._known[number, entry["attempt"]] = Answer(number, str(entry["text"]), cut)

    def get(self, number: int, attempt: int) -> Answer | None:
        return self._known.get((number, attempt))

    def add(self, number: int, attempt: int, answer: Answer) -> None:
        self._known[number, attempt] = answer
        fields = {"record": number, "attempt": attempt, "text": answer.text, "cut": answer.cut}
        entry = json.dumps(fields)
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
        of = RecordSource([str(path) for path in paths]).fingerprint().as_json()["files"]
        rendering.note_settings(out / SETTINGS, {**teacher.settings(), "source": of})
        for path in paths:
            counts += _teach_file(path, out / path.name, teacher, bar)
            lock.check()
    if not counts["accepted"]:
        problem = f"none of {counts['records']} texts was accepted; *.teacher.json there says why"
        raise DataError(problem, path=out)
    return counts + Counter(teacher.counts)


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
    _answer(written, 0, teacher, journal, bar)
    wrong = [one for one in written if not one.accepted]
    kinds = Counter(problem.kind for one in wrong for problem in one.problems)
    _answer(wrong, 1, teacher, journal)
    counts = _counts(written, kinds)
    rejected = [_rejection(one) for one in written if not one.accepted]
    if counts["accepted"]:
        _write(path, target, written, teacher.settings())
    files.write_json(report, {"counts": dict(counts), "rejected": rejected})
    journal.path.unlink(missing_ok=True)
    return counts


def _answer(
    rows: Sequence[Written],
    attempt: int,
    teacher: Teacher,
    journal: Journal,
    bar: tqdm | None = None,
) -> None:
    """Adds the next text of each record: from the journal, or from the teacher, in batches."""
    asked = [one for one in rows if journal.get(one.number, attempt) is None]
    for start in range(0, len(asked), teacher.rows):
        batch = asked[start : start + teacher.rows]
        for answer in teacher.write([one.task() for one in batch]):
            journal.add(batch[answer.task].number, attempt, answer)
            if bar is not None:
                bar.update()
    if bar is not None:
        bar.update(len(rows) - len(asked))
    for one in rows:
        found = journal.get(one.number, attempt)
        assert found is not None, "a teacher answers every task or raises"
        one.judge(found)


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
