"""Recipes, and evaluation inside a run."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from jax.sharding import AbstractMesh, AxisType

from experiments import sft
from sf_jax.train import mesh as meshes


def mesh_of(devices: int) -> AbstractMesh:
    return AbstractMesh((1, devices, 1, 1), meshes.AXES, axis_types=(AxisType.Auto,) * 4)


@pytest.mark.parametrize(
    ("rows", "devices", "parts"),
    [(8, 1, 4), (8, 4, 1), (8, 8, 1), (9, 1, 3), (5, 1, 1), (24, 2, 6)],
)
def test_a_desk_trains_two_rows_at_a_time(rows: int, devices: int, parts: int) -> None:
    recipe = replace(sft.RECIPES["builtin"], rows=rows)
    assert recipe.sft(sft.config_of("builtin"), mesh_of(devices)).accumulate == parts


def test_a_slice_takes_its_batch_at_once() -> None:
    made = sft.RECIPES["4b-full"].sft(sft.config_of("4B"), mesh_of(64))
    assert made.accumulate == 1 and not made.config.unrolled


def test_eight_devices_read_held_out_faces_as_one_does() -> None:
    """Weights lie in eight parts; the last batch of faces is not full."""
    flags = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-m", "tests.experiments.evaluated"], capture_output=True, text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    one, many = map(json.loads, done.stdout.splitlines())
    assert one["mae_52"] < 0.1
    assert many == pytest.approx(one, rel=1e-5)
