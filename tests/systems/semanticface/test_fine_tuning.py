"""Recipes, and evaluation inside a run."""

import json
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType

from sf_jax.cli import recipes
from sf_jax.convert import hf
from sf_jax.decode.schema_file import SchemaFileError, write_schema
from sf_jax.face.channels import NAMES
from sf_jax.reader import loading
from sf_jax.reader.schema import channel_schema
from sf_jax.systems.semanticface.fine_tuning import config_of, task_of
from sf_jax.train import mesh as meshes
from tests import compiling

RECIPES = recipes.load("sft").RECIPES


def mesh_of(devices: int) -> AbstractMesh:
    return AbstractMesh((1, devices, 1, 1), meshes.AXES, axis_types=(AxisType.Auto,) * 4)


@pytest.mark.parametrize(
    ("rows", "devices", "parts"),
    [(8, 1, 4), (8, 4, 1), (8, 8, 1), (9, 1, 3), (5, 1, 1), (24, 2, 6)],
)
def test_a_workstation_trains_two_rows_at_a_time(rows: int, devices: int, parts: int) -> None:
    recipe = replace(RECIPES["builtin"], rows=rows)
    assert recipe.sft(config_of("builtin"), mesh_of(devices)).accumulate == parts


def test_a_slice_takes_its_batch_at_once() -> None:
    made = RECIPES["4b-full"].sft(config_of("4B"), mesh_of(64))
    assert made.accumulate == 1 and not made.config.unrolled


def test_a_model_of_other_channels_is_refused_by_its_schema(tmp_path: Path) -> None:
    """Records are labelled in canonical order; a slot must not learn another channel's label."""
    shutil.copy(loading.BUILTIN / "config.json", tmp_path)
    write_schema(tmp_path, channel_schema(tuple(reversed(NAMES))))
    with pytest.raises(SchemaFileError, match="training on face records"):
        task_of(RECIPES["builtin"], tmp_path, mesh_of(1))


def start(devices: int, *options: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.systems.semanticface.evaluated", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=compiling.environment(devices),
    )


def scores(process: subprocess.Popen) -> list[dict[str, float]]:
    out, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-3000:]
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def test_eight_devices_in_one_or_two_processes_read_held_out_faces_as_one_does(
    tmp_path: Path,
) -> None:
    """Weights lie in parts; the last batch of faces is not full. And they write the whole model."""
    one, many = scores(start(8, str(tmp_path / "one")))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = str(tmp_path / "two"), "--processes", "2", "--port", str(port)
    both = [start(4, *common, "--process", str(number)) for number in range(2)]
    (first,), (second,) = map(scores, both)
    assert one["mae_52"] < 0.1
    for found in (many, first, second):
        assert found == pytest.approx(one, rel=1e-5)
    _, wanted = hf.load(loading.BUILTIN)
    for name in ("one", "two"):
        _, written = hf.load(tmp_path / name / "model")
        jax.tree.map(np.testing.assert_array_equal, written, wanted)
