"""Stage I: rationales by the describer, a local model, an endpoint; checked, repaired, counted."""

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipelines import records, teacher_prompt, teachers, teaching
from data_pipelines.sampler import sample
from sf_jax import cli
from sf_jax.convert import hf
from sf_jax.face.channels import INDEX
from sf_jax.face.checking import check
from sf_jax.face.describe import describe
from sf_jax.media.errors import DataError
from sf_jax.model.config import Config
from sf_jax.reader.loading import BUILTIN
from sf_jax.sequence.tokenizer import JsonTokenizer
from sf_jax.systems.semanticface.qwen_like import make_tokenizer
from tests.data_pipelines.scripted_endpoint import CUT, Answer, serving
from tests.small import small_config

KEY = "a-secret-key"


def write_records(folder: Path, count: int = 4, name: str = "train-00000") -> np.ndarray:
    """Faces [count, 61] as records without rationales; every second lacks the tongue."""
    folder.mkdir(exist_ok=True)
    known = np.ones((count, 61), bool)
    known[1::2, INDEX["TongueOut"]] = False
    faces = np.array([sample(index) for index in range(count)], np.float32) * known
    image = np.zeros((8, 8, 3), np.uint8)
    made = [
        {"image": image, "coefficients": face, "known": given, "rationale": "", "seed": index}
        for index, (face, given) in enumerate(zip(faces, known, strict=True))
    ]
    records.write(folder / f"{name}.array_record", made)
    return faces


def listed(body: dict[str, Any], faces: np.ndarray) -> int:
    """Which face a request is about."""
    asked = body["messages"][len(teacher_prompt.examples())]["content"]
    return [teacher_prompt.listing(face) for face in faces].index(asked)


def endpoint(url: str, **how: Any) -> teachers.Endpoint:
    return teachers.Endpoint(
        url, "scripted", **{"most": 100, "parallel": 1, "wait": lambda seconds: None} | how
    )


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def test_the_examples_of_the_prompt_pass_the_checker() -> None:
    messages = teacher_prompt.examples()
    for (values, answer), asked in zip(teacher_prompt._EXAMPLES, messages[1::2], strict=True):
        face = np.zeros(61)
        for name, value in values.items():
            face[INDEX[name]] = value
        assert check(answer, face) == () and asked["content"] == teacher_prompt.listing(face)


def test_the_describer_writes_records_with_provenance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faces = write_records(tmp_path / "in")
    assert cli.main(["data", "describe", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 0
    assert (
        "4 records: 4 accepted, 0 of them after one repair, 0 rejected" in capsys.readouterr().out
    )
    found = records.first(tmp_path / "out", 9)
    assert [record["seed"] for record in found] == [0, 1, 2, 3]
    for number, record in enumerate(found):
        assert record["rationale"] == describe(faces[number], number).text
        assert record["teacher"] == {"teacher": "describer", "attempts": 1}
        assert np.array_equal(record["coefficients"], faces[number])


def test_an_endpoint_that_errs_is_retried_repaired_and_rejected(tmp_path: Path) -> None:
    faces = write_records(tmp_path / "in")
    wrong = describe(np.where(np.arange(61) == INDEX["CheekPuff"], 0.9, 0.0)).text

    def script(number: int, body: dict[str, Any]) -> str | int:
        if number == 0:
            return 500
        face = listed(body, faces)
        repairing = len(body["messages"]) > len(teacher_prompt.examples()) + 1
        if face == 2 or (face == 1 and not repairing):  # 1 is repaired, 2 is not
            return wrong
        return describe(faces[face]).text

    with serving(script) as (url, requests):
        counts = teaching.teach(tmp_path / "in", tmp_path / "out", endpoint(url))
    assert {name: counts[name] for name in ("records", "accepted", "repaired", "rejected")} == {
        "records": 4,
        "accepted": 3,
        "repaired": 1,
        "rejected": 1,
    }
    assert (counts["requests"], counts["retries"]) == (7, 1) and counts["first texts: lacking"] == 2
    assert requests.keys == {f"Bearer {KEY}"}
    repair = next(body["messages"] for body in requests if len(body["messages"]) > 8)
    assert repair[-2]["content"] == wrong and "CheekPuff is 0.00" in repair[-1]["content"]
    found = records.first(tmp_path / "out", 9)
    assert [(one["seed"], one["teacher"]["attempts"]) for one in found] == [(0, 1), (1, 2), (3, 1)]
    assert found[0]["teacher"]["prompt"] == teachers.prompt_hash()
    (report,) = (tmp_path / "out").glob("*.teacher.json")
    (rejected,) = json.loads(report.read_text())["rejected"]
    assert rejected["record"] == 2 and rejected["texts"] == [wrong, wrong]
    assert any("CheekPuff" in problem for problem in rejected["contradictions"])
    whole = "".join(path.read_text(errors="replace") for path in (tmp_path / "out").iterdir())
    assert KEY not in whole and not list((tmp_path / "out").glob("*.answers.jsonl"))


def test_a_capped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    faces = write_records(tmp_path / "in", 6)

    def script(number: int, body: dict[str, Any]) -> str:
        return describe(faces[listed(body, faces)]).text

    with serving(script) as (url, requests):
        with pytest.raises(DataError, match="stopped after 4 requests, the most allowed"):
            teaching.teach(tmp_path / "in", tmp_path / "out", endpoint(url, most=4))
        assert not list((tmp_path / "out").glob("*.array_record"))
        (journal,) = (tmp_path / "out").glob("*.answers.jsonl")
        journal.write_text(journal.read_text() + '{"record": 4, "att')  # killed as it wrote
        counts = teaching.teach(tmp_path / "in", tmp_path / "out", endpoint(url))
        again = teaching.teach(tmp_path / "in", tmp_path / "out", endpoint(url))
    assert len(requests) == 6 and counts["accepted"] == again["accepted"] == 6
    assert again["requests"] == 0
    assert [one["seed"] for one in records.first(tmp_path / "out", 9)] == list(range(6))


def test_a_text_that_was_cut_off_is_repaired_or_rejected(tmp_path: Path) -> None:
    """However true what is there of it: also after a run that was stopped."""
    faces = write_records(tmp_path / "in", 3)

    def script(number: int, body: dict[str, Any]) -> str:
        face = listed(body, faces)
        repairing = len(body["messages"]) > len(teacher_prompt.examples()) + 1
        cut = face == 2 or (face == 1 and not repairing)
        return describe(faces[face]).text + CUT * cut

    with serving(script) as (url, requests):
        with pytest.raises(DataError, match="stopped after 4 requests"):
            teaching.teach(tmp_path / "in", tmp_path / "out", endpoint(url, most=4))
        counts = teaching.teach(tmp_path / "in", tmp_path / "out", endpoint(url))
    assert len(requests) == 5
    assert (counts["accepted"], counts["repaired"], counts["rejected"]) == (2, 1, 1)
    assert counts["first texts: cut"] == 2
    assert "cut off" in requests[3]["messages"][-1]["content"]


def test_answers_that_came_beside_an_error_are_kept(tmp_path: Path) -> None:
    """Four requests at once: the first fails while others are answered before and after it."""
    faces = write_records(tmp_path / "in", 4)
    others = threading.Barrier(2, timeout=30)

    def script(number: int, body: dict[str, Any]) -> str | int:
        face = listed(body, faces)
        if face == 0 and number < 4:
            others.wait()  # until face 1 is there
            return 401
        if face == 1:
            others.wait()
        return describe(faces[face]).text

    with serving(script) as (url, requests):
        with pytest.raises(DataError, match="HTTP 401"):
            teaching.teach(tmp_path / "in", tmp_path / "out", endpoint(url, parallel=4))
        counts = teaching.teach(tmp_path / "in", tmp_path / "out", endpoint(url, parallel=4))
    assert len(requests) == 5 and counts["accepted"] == 4
    assert [one["seed"] for one in records.first(tmp_path / "out", 9)] == [0, 1, 2, 3]


class Batches(teachers.Describer):
    """Writes of a smiling face at first, and of the true one when asked again."""

    def write(self, tasks: Sequence[teachers.Task]) -> Iterator[teachers.Answer]:
        self.counts[f"batch {len(self.counts)}"] = len(tasks)
        for answer in super().write(tasks):
            repairing = len(tasks[answer.task].messages) > len(teacher_prompt.examples()) + 1
            yield answer if repairing else replace(answer, text="")


def test_repairs_fill_whole_batches(tmp_path: Path) -> None:
    write_records(tmp_path / "in", 6)
    teacher = Batches(rows=4)
    counts = teaching.teach(tmp_path / "in", tmp_path / "out", teacher)
    assert counts["repaired"] == 6 and list(teacher.counts.values()) == [4, 2, 4, 2]


def test_an_endpoint_that_refuses_is_named_without_the_key(tmp_path: Path) -> None:
    write_records(tmp_path / "in")
    garbled = "5 answers were not JSON in the format of OpenAI's interface"
    scripts: list[tuple[Answer, str, int]] = [
        (401, "HTTP 401", 1),
        (503, "5 attempts: HTTP 503", 5),
        (b"<<<not json", garbled, 5),
        (b'{"answer": "yes"}', garbled, 5),
    ]
    for number, (answer, expected, requests_made) in enumerate(scripts):
        out = tmp_path / f"out{number}"
        with (
            serving(lambda number, body, answer=answer: answer) as (url, requests),
            pytest.raises(DataError, match=expected) as caught,
        ):
            teaching.teach(tmp_path / "in", out, endpoint(url))
        assert KEY not in str(caught.value) and url in str(caught.value)
        assert len(requests) == requests_made


def test_a_missing_key_or_cap_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_records(tmp_path / "in")
    command = ["data", "describe", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    asked = ["--endpoint", "http://localhost:1/v1", "--name", "m"]
    assert cli.main([*command, *asked]) == 2
    assert "--requests" in capsys.readouterr().err
    monkeypatch.delenv("OPENAI_API_KEY")
    assert cli.main([*command, *asked, "--requests", "5"]) == 2
    assert "OPENAI_API_KEY" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_records_of_another_teacher_are_not_mixed(tmp_path: Path) -> None:
    write_records(tmp_path / "in")
    teaching.teach(tmp_path / "in", tmp_path / "out", teachers.Describer())
    with (
        serving(lambda number, body: "") as (url, _),
        pytest.raises(DataError, match="made with another teacher"),
    ):
        teaching.teach(tmp_path / "in", tmp_path / "out", endpoint(url))
    file = tmp_path / "out" / teaching.SETTINGS
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prompt": "x"}))
    with pytest.raises(DataError, match="made with another prompt;"):
        teaching.teach(tmp_path / "in", tmp_path / "out", teachers.Describer())
    with pytest.raises(DataError, match="replace themselves"):
        teaching.teach(tmp_path / "in", tmp_path / "in", teachers.Describer())


def test_changed_records_of_the_same_number_are_not_resumed(tmp_path: Path) -> None:
    write_records(tmp_path / "in")
    teaching.teach(tmp_path / "in", tmp_path / "out", teachers.Describer())
    (tmp_path / "in" / "train-00000.array_record").unlink()
    write_records(tmp_path / "more", 8)
    found = records.first(tmp_path / "more", 8)[4:]
    records.write(tmp_path / "in" / "train-00000.array_record", found)
    with pytest.raises(DataError, match="made with another source;"):
        teaching.teach(tmp_path / "in", tmp_path / "out", teachers.Describer())


def test_the_hash_of_the_prompt_covers_the_wording_of_a_repair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, old = teachers.prompt_hash(), teacher_prompt.repair
    assert before.startswith("xxh128:")
    monkeypatch.setattr(teacher_prompt, "repair", lambda *args: [*old(*args), {"role": "x"}])
    assert teachers.prompt_hash() != before


def write_qwen(folder: Path, shape: Config) -> Path:
    """A random Qwen checkpoint with a tokenizer of its kind."""
    folder.mkdir()
    make_tokenizer(folder)
    tokenizer = JsonTokenizer.load(folder / "tokenizer.json")
    text = replace(shape.text, vocab_size=len(tokenizer) + 3)
    hf.save_random(folder, replace(shape, text=text), 0, np.float32)
    return folder


def test_a_qwen_directory_writes_and_is_judged(tmp_path: Path) -> None:
    """Random weights write no rationale: all are rejected, with their texts and reasons."""
    folder = write_qwen(tmp_path / "qwen", small_config())
    write_records(tmp_path / "in", 3)
    model = teachers.LocalModel(folder, rows=2, cap=6)
    with pytest.raises(DataError, match="none of 3 texts was accepted"):
        teaching.teach(tmp_path / "in", tmp_path / "out", model)
    (report,) = (tmp_path / "out").glob("*.teacher.json")
    found = json.loads(report.read_text())
    assert found["counts"]["rejected"] == 3
    assert all(len(one["texts"]) == 2 for one in found["rejected"])
    assert found["counts"]["first texts: cut"] > 0
    settings = json.loads((tmp_path / "out" / teaching.SETTINGS).read_text())
    assert settings["model"] == "qwen" and settings["weights"].startswith("xxh128:")


def test_texts_are_those_of_the_model_alone(tmp_path: Path) -> None:
    """Whatever shares the batch or the cached beginning, and as the plain forward pass has them."""
    folder = write_qwen(tmp_path / "model", replace(small_config(), vision=None))
    model = teachers.LocalModel(folder, rows=2, cap=5)
    tasks = [
        teachers.Task(i, face, teacher_prompt.conversation(face))
        for i, face in enumerate(np.array([sample(i) for i in range(3)]))
    ]
    answers = list(model.write(tasks))
    assert [one.task for one in answers] == [0, 1, 2] and answers[0].cut
    together = [one.text for one in answers]
    assert together == [one.text for task in tasks for one in model.write([task])]
    config, weights = hf.load(folder)
    tokenizer = model._writer.tokenizer
    ids = tokenizer.encode(model._text(tasks[0].messages))
    start = len(ids)
    banned = np.asarray(model._writer._end.banned & ~model._writer._end.ends)
    end = int(np.flatnonzero(np.asarray(model._writer._end.ends))[0])
    for _ in range(5):
        padded = np.array([[*ids, *[0] * (start + 5 - len(ids))]])  # what follows is not seen
        logits = np.array(hf.forward(config, weights, padded))[0, len(ids) - 1]
        logits[banned] = -np.inf
        ids.append(int(logits.argmax()))
        if ids[-1] == end:
            ids.pop()
            break
    assert tokenizer.decode(ids[start:]).strip() == together[0]


def test_a_directory_of_the_built_in_kind_is_refused() -> None:
    with pytest.raises(DataError, match="instruction-tuned"):
        teachers.LocalModel(BUILTIN)
