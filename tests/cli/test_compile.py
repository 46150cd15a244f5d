"""What `sf-jax compile` says of what a compiler found; the compiler itself is asked elsewhere."""

import math
import sys
from dataclasses import replace
from typing import Any

import jax
import pytest
from jax.sharding import AbstractMesh, AxisType

from sf_jax.cli import compile as _compile
from sf_jax.cli import compile_report, main, recipes
from sf_jax.train import footprint
from sf_jax.train import mesh as meshes
from sf_jax.train.hlo import analyse
from sf_jax.train.losses.supervised import SupervisedConfig
from sf_jax.train.sft import Sft
from tests.train.on_meshes import tiny

sft = recipes.load("sft")
Recipe, RECIPES, config_of = sft.Recipe, sft.RECIPES, sft.config_of


def mesh_of(**sizes: int) -> Any:
    shape = tuple(sizes.get(axis, 1) for axis in meshes.AXES)
    return AbstractMesh(shape, meshes.AXES, axis_types=(AxisType.Auto,) * 4)


def test_a_mesh_leaves_whole_tiles_to_every_chip() -> None:
    def default(recipe: Recipe, topology: str) -> dict[str, int]:
        width = config_of(recipe.size).text.hidden_size
        return _compile.default_mesh(recipe, width, topology)

    assert default(RECIPES["4b-full"], "v6e:16x16") == {"data": 8, "fsdp": 32}
    assert default(RECIPES["2b-full"], "v6e:16x16") == {"data": 2, "fsdp": 128}
    assert default(RECIPES["4b-lora"], "v5e:4x4") == RECIPES["4b-lora"].mesh


def found(needed: float) -> dict[str, Any]:
    memory = {
        "peak": 0.8 * needed, "argument": 2e9, "output": 1.9e9, "alias": 1.9e9,
        "generated_code": 1e8, "temp": needed - 2.1e9,
    }  # fmt: skip
    program = {"moved": {"all-gather": 5e9}, "sent": {"all-gather": 4e9}}
    expected = {"state": 1.9e9, "batch": 1e8, "peak": 9e9, "model": 197e12, "again": 0.0}
    return {
        "chips": 1, "memory": memory, "program": program, "expected": expected, "seconds": 60.0,
    }  # fmt: skip


def test_the_bound_is_the_longest_of_products_memory_and_links() -> None:
    line = compile_report.row("4b-lora", "v5e:4x4", 1, "fsdp=16", found(9e9))
    named = dict(zip(compile_report.COLUMNS, line, strict=True))
    assert named["verdict"].startswith("fits") and named["step bound, s"] == "1.000"
    assert named["products, s"] == "1.000" and named["links, s"] == "0.020"
    assert named["MFU bound"] == "100%" and named["all-gather, GB"] == "5.0"


def test_what_does_not_fit_is_reported_with_what_to_change() -> None:
    found_out = compile_report.verdict(found(17e9), "v5e:4x4")
    assert found_out.startswith("does not fit: 17.0 of 16 GB; fewer rows a chip")
    refused = {**found(0), "error": "RESOURCE_EXHAUSTED: … Used 31.20G of 15.75G hbm. …"}
    del refused["memory"], refused["program"]
    line = compile_report.row("4b-full", "v5e:4x4", 1, "fsdp=16", refused)
    assert "does not fit: 31.20G of 15.75G" in line[4] and line[5:] == ["-"] * (len(line) - 5)


@pytest.mark.parametrize(
    "arguments", [["4b-lora", "--topology", "v9:4x4"], ["5b"], ["4b-lora", "--mesh", "rows=4"]]
)
def test_bad_arguments_are_reported_in_a_line(arguments, capsys, monkeypatch) -> None:
    monkeypatch.setattr(_compile, "find_spec", lambda name: True)
    assert main(["compile", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sf-jax: error:") and error.count("\n") == 1


def test_without_the_compiler_it_says_what_to_install(capsys, monkeypatch) -> None:
    monkeypatch.setattr(_compile, "find_spec", lambda name: None)
    assert main(["compile", "4b-lora"]) == 2
    assert "pip install 'sf_jax[tpu]'" in capsys.readouterr().err


def test_a_compiler_that_dies_is_one_line_of_the_table(monkeypatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert _compile.compiled("4b-lora", "v5e:4x4", 1, "")["error"].startswith("the compiler failed")


@pytest.mark.parametrize("remat", ["none", "full"])
def test_operations_are_those_of_the_program(remat: str) -> None:
    """Of a tiny model's step on this machine, attention, which it cuts in other ways, set apart."""
    config = replace(tiny(), text_remat=remat, vision_remat=remat)
    sft = Sft(config, rows=2, length=64, patches=64, objective=SupervisedConfig(chunks=2))
    mesh = meshes.make(devices=jax.devices()[:1])
    lowered = sft.build_step(mesh).lower(sft.abstract_state(mesh), sft.abstract_batch(mesh))
    counted = analyse(lowered.compile().as_text() or "").floating_point_operations
    ours = footprint.operations_of(sft)
    assert counted == pytest.approx(ours.model + ours.again, rel=0.1)


def test_a_deeper_model_is_no_longer_a_program() -> None:
    """Layers are scanned; on TPUs `tests/train/test_training.py` looks at the same."""

    def instructions(layers: int) -> int:
        config = tiny()
        vision, text = config.vision, config.text
        config = replace(
            config,
            vision=replace(vision, depth=layers),
            text=replace(text, num_hidden_layers=layers),
        )
        sft = Sft(config, rows=2, length=32, patches=32)
        mesh = meshes.make(devices=jax.devices()[:1])
        lowered = sft.build_step(mesh).lower(sft.abstract_state(mesh), sft.abstract_batch(mesh))
        return analyse(lowered.compile().as_text() or "").instructions

    few, many = instructions(3), instructions(9)
    assert abs(many - few) < 0.02 * few


def test_four_bytes_of_weight_take_twelve_with_their_moments() -> None:
    recipe = RECIPES["4b-full"]
    mesh = mesh_of(data=2, fsdp=32)
    expected = footprint.expected(recipe.sft(config_of("4B"), mesh), mesh)
    assert expected["state"] == pytest.approx(
        12 * 4_437_815_808 / 32, rel=0.03
    )  # positions lie whole
    assert not math.isnan(expected["peak"]) and expected["peak"] > expected["state"]
