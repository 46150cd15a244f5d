"""Data that changed between a run and its resumption is refused, and what changed is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest

from sf_jax.train import loop, step
from sf_jax.train import mesh as meshes
from sf_jax.train.fingerprint import FileFingerprint, Fingerprint, changes
from sf_jax.train.loop import TrainingError
from tests.train.test_loop import Counted, taken

DATA = Fingerprint(
    {"a": FileFingerprint(100, 4, "00"), "b": FileFingerprint(200, 5, "11")}, {"seed": 3, "rows": 8}
)


def with_file(name: str, file: FileFingerprint | None) -> Fingerprint:
    files = {key: each for key, each in {**DATA.files, name: file}.items() if each}
    return Fingerprint(files, DATA.order)


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (DATA, ""),
        (with_file("a", None), "a is missing"),
        (with_file("c", FileFingerprint(1, 1, "22")), "c is new"),
        (with_file("a", FileFingerprint(90, 3, "22")), "a has 3 records, had 4"),
        (with_file("b", FileFingerprint(20_000, 5, "22")), "b has 20,000 bytes, had 200"),
        (with_file("b", FileFingerprint(200, 5, "22")), "b has other content"),
        (Fingerprint(DATA.files, {"seed": 4, "rows": 8}), "seed is 4, was 3"),
        (
            Fingerprint({}, {}),
            "a is missing; b is missing; rows is None, was 8 and 1 more",
        ),
    ],
)
def test_what_changed_is_named(now: Fingerprint, text: str) -> None:
    assert changes(DATA, now) == text
    assert Fingerprint.from_json(json.loads(json.dumps(now.as_json()))) == now


@pytest.fixture
def resume(tmp_path: Path) -> Callable[..., int]:
    """Runs to a step with some data, and returns the step that is reached."""

    def resumed(data: Fingerprint | None, steps: int, accept: bool = False) -> int:
        mesh = meshes.make({}, jax.devices()[:1])
        config = loop.LoopConfig(steps, save_every=2, accept_changed_data=accept)
        state = step.create({"a": jnp.ones(2)}, optax.sgd(1.0), mesh)
        state = loop.run(state, taken, Counted(), mesh, config, tmp_path, fingerprint=data)
        return int(state.step)

    return resumed


def test_other_data_is_refused_unless_it_is_accepted(resume, capsys) -> None:
    assert resume(DATA, 2) == 2
    other = with_file("a", None)
    assert resume(other, 2) == 2  # no step is left, and nothing is read
    for _ in range(2):
        message = "not those of checkpoint 2: a is missing. Give the same ones, or --accept-changed"
        with pytest.raises(TrainingError, match=message):
            resume(other, 4)
    assert resume(DATA, 4) == 4
    assert resume(other, 6, accept=True) == 6
    assert "not those of checkpoint 4, which is accepted: a is missing" in capsys.readouterr().err
    assert resume(other, 8) == 8  # the data of the newest checkpoint counts


def test_checkpoints_of_before_have_no_fingerprint_and_resume(
    resume, tmp_path: Path, monkeypatch, capsys
) -> None:
    with monkeypatch.context() as patch:
        save = loop.Checkpoints.save

        def save_as_before(self: Any, state: Any, data_state: Any) -> None:
            save(self, state, data_state[loop.POSITION])

        patch.setattr(loop.Checkpoints, "save", save_as_before)
        assert resume(DATA, 2) == 2
    (saved,) = (tmp_path / "checkpoints" / "2" / "data").glob("metadata*")
    assert json.loads(saved.read_text()) == {"at": 2}
    assert resume(DATA, 4) == 4
    assert "checkpoint 2 has no fingerprint of its data" in capsys.readouterr().err


def test_the_files_of_a_model_are_compared_too(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "notes.json").write_text("{}")
    names = ("config.json", "schema.json")
    before = DATA.with_model(tmp_path, names)
    assert changes(before, DATA.with_model(tmp_path, names)) == ""
    (tmp_path / "config.json").write_text("[]")
    assert (
        changes(before, DATA.with_model(tmp_path, names)) == "model/config.json has other content"
    )
    (tmp_path / "schema.json").write_text("{}")
    assert changes(before, DATA.with_model(tmp_path, names)).endswith("; model/schema.json is new")
