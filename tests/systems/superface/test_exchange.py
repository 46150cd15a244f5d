"""Judgements out and in again, and as a preference dataset that TRL reads."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sf_jax.face import answers
from sf_jax.face.channels import NAMES
from sf_jax.systems.superface import exchange, store
from sf_jax.systems.superface.exchange import ExchangeError, Imported
from sf_jax.systems.superface.folder import PairFolder
from sf_jax.systems.superface.pairs import Judgement
from tests.convert.torch_python import run_torch
from tests.systems.superface.folders import fill

CHOICES = ("first", "second", "tie", "unclear")


@pytest.fixture
def folder(tmp_path: Path) -> PairFolder:
    """Five pairs, of which the last is gold; six judgements, of which the last is a repeat."""
    made = fill(tmp_path / "pairs", 5)
    with store.writing(made) as judgements:
        for number, choice in enumerate((*CHOICES, "first")):
            judgements.assign("Zoë", made.pairs[number].key, False, "second")
            judgements.judge(f"judgement-{number}", "Zoë", number, choice, 1.25)
        judgements.assign("Zoë", made.pairs[0].key, True, "first")
        judgements.judge("judgement-5", "Zoë", 5, "second", 0.1)
    return made


def export(folder: PairFolder, name: str = "out.jsonl", kind: str = "judgements") -> Path:
    path = folder.path.parent / name
    with store.reading(folder) as judgements:
        exchange.EXPORTS[kind](judgements, path)
    return path


def exported(folder: PairFolder, path: Path) -> None:
    with store.reading(folder) as judgements:
        exchange.export_judgements(judgements, path)


def judgements_of(folder: PairFolder) -> list[Judgement]:
    with store.reading(folder) as judgements:
        return judgements.judgements()


def a_copy(folder: PairFolder) -> PairFolder:
    """The same pairs, without judgements."""
    target = folder.path.with_name(f"copy of {folder.path.name}")
    shutil.copytree(folder.path, target, ignore=shutil.ignore_patterns("judgements*"))
    return fill(target, 0)


def imported(folder: PairFolder, path: Path) -> Imported:
    with store.writing(folder) as judgements:
        return exchange.import_judgements(judgements, path)


def test_what_is_exported_is_imported_once(folder: PairFolder) -> None:
    path, copy = export(folder), a_copy(folder)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    pair = folder.pairs[1]
    assert len(lines) == 6 and lines[1]["annotator"] == "Zoë" and lines[1]["choice"] == "second"
    for name, digest in exchange.hashes_of(pair).items():
        assert lines[1][name] == digest
    assert imported(copy, path) == Imported(6, 0)
    assert judgements_of(copy) == judgements_of(folder)
    assert imported(copy, path) == Imported(0, 6)
    assert imported(folder, path) == Imported(0, 6)
    assert export(copy, "again.jsonl").read_bytes() == path.read_bytes()


def test_an_import_fills_a_task_that_is_open(folder: PairFolder) -> None:
    path, copy = export(folder), a_copy(folder)
    with store.writing(copy) as judgements:
        judgements.assign("Zoë", copy.pairs[0].key, False, "first")
    assert imported(copy, path) == Imported(6, 0)
    assert judgements_of(copy) == judgements_of(folder)


OTHER = "0" * 32
FAULTS = [
    ({"pair": OTHER}, f"'pair': {OTHER} is not among the pairs of"),
    ({"image": OTHER}, f"'image': found {OTHER}, expected .*: something else was judged"),
    ({"second": OTHER}, "'second': found"),
    ({"rig": OTHER}, "'rig': found"),
    ({"weights": OTHER}, "'weights': found"),
    ({"choice": "left"}, "choice.* expected 'first', 'second', 'tie' or 'unclear'"),
    ({"annotator": "\n"}, "annotator.* is empty"),
    ({"seconds": -1}, "seconds.*expected 0.0 or more"),
    ({"gold": True}, "'gold': is not as in the list of pairs"),
    ({"at": "yesterday"}, "'?at"),
    ({"at": "2026-99-01T99:00:00Z"}, "'?at"),
    ({"choice": "tie"}, "'choice': found 'tie' of Zoë, whose judgement of pair .* is 'first'"),
]


@pytest.mark.parametrize("change, problem", FAULTS, ids=lambda one: str(one)[:20])
def test_a_line_that_cannot_be_imported_adds_nothing(
    folder: PairFolder, change: dict[str, object], problem: str
) -> None:
    path, copy = export(folder), a_copy(folder)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    if "of Zoë" in problem:
        imported(copy, path)
        lines = [lines[0], dict(lines[0])]
    lines[1] |= change
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = judgements_of(copy) if copy.judgements.exists() else []
    with pytest.raises(ExchangeError, match=problem) as found:
        imported(copy, path)
    assert str(found.value).startswith(f"{path}, line 2")
    assert judgements_of(copy) == before


@pytest.mark.parametrize(
    "name", ["pairs.jsonl", "judgements.sqlite", "judgements.sqlite-wal", "images/a", ".pairs.lock"]
)
def test_no_export_replaces_a_file_of_the_folder(folder: PairFolder, name: str) -> None:
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    for path in (folder.path / name, folder.path.parent / "x" / ".." / folder.path.name / name):
        with pytest.raises(ExchangeError, match="belongs to the folder of pairs; name another"):
            exported(folder, path)
    assert {path: path.read_bytes() for path in before} == before


def test_an_export_replaces_an_earlier_one_and_nothing_else(
    folder: PairFolder, tmp_path: Path
) -> None:
    path = tmp_path / "out"
    for content in (b"dear diary\n", b'{"images": []}\n', b"\xff\x00"):
        path.write_bytes(content)
        with pytest.raises(ExchangeError, match="is there, and no earlier export"):
            exported(folder, path)
        assert path.read_bytes() == content
    with pytest.raises(ExchangeError, match="is a folder; name a file in it"):
        exported(folder, tmp_path)
    path.unlink()
    exported(folder, path)
    lines = path.read_bytes()
    exported(folder, path)
    assert path.read_bytes() == lines


def test_trl_reads_the_preferences(folder: PairFolder) -> None:
    path = export(folder, "trl.jsonl", "trl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["pair"] for line in lines] == [pair.key for pair in folder.pairs[:2]]
    for line, pair, better in zip(lines, folder.pairs, ("first", "second"), strict=False):
        assert (folder.path / line["images"][0]).is_file()
        assert line["region"] == pair.region
        assert [part["type"] for part in line["prompt"][0]["content"]] == ["image", "text"]
        worse = "second" if better == "first" else "first"
        for name, side in (("chosen", better), ("rejected", worse)):
            (message,) = line[name]
            read = answers.parse(message["content"][0]["text"])
            assert message["role"] == "assistant"
            assert np.array_equal(read.coefficients, pair.side(side).coefficients)
            assert list(json.loads(message["content"][0]["text"])) == list(NAMES)


def test_preferences_are_imported_from_trl_s_format_too(folder: PairFolder) -> None:
    path, copy = export(folder, "trl.jsonl", "trl"), a_copy(folder)
    assert imported(copy, path) == Imported(2, 0)
    assert judgements_of(copy) == judgements_of(folder)[:2]
    assert imported(folder, path) == Imported(0, 2)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["chosen"], lines[1]["rejected"] = lines[1]["rejected"], lines[1]["chosen"]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    problem = "line 2, field 'chosen': is not the answer that the judgement means"
    with pytest.raises(ExchangeError, match=problem):
        imported(a_copy(copy), path)


@pytest.mark.slow
def test_trl_takes_the_lines_for_a_conversation_about_an_image(folder: PairFolder) -> None:
    line, _ = export(folder, "trl.jsonl", "trl").read_text().splitlines()
    found = json.loads(run_torch(Path(__file__).with_name("trl_reads.py"), stdin=line))
    if found is None:
        pytest.skip("needs TRL: the extra 'porting'")
    assert found["conversational"]
    for name in ("chosen", "rejected"):
        asked, answered = found[name]
        assert asked["content"][0] == {"type": "image", "image": "the image"}
        assert answered == json.loads(line)[name][0]
