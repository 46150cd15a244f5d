"""Both sides of the benchmark train on the same examples, and come to the same losses."""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from data_pipelines import records
from data_pipelines.synthetic import face_record
from sf_jax.bench import train as bench_train
from sf_jax.cli.arguments import UsageError
from sf_jax.convert import hf
from sf_jax.reader import loading
from tests.convert.torch_python import torch_python

# Answers as a side does: losses 1, 2, …; seconds 10, 20, …
FAKE = """
import json, sys
print(json.dumps({"modes": sys.argv[1:], "versions": {"fake": "1"}}), flush=True)
for number, line in enumerate(sys.stdin, 1):
    print(json.dumps([number, 10.0 * number, 0.0]), flush=True)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    records.write(
        folder / "train-00000.array_record", (face_record(i, 0, "train") for i in range(8))
    )
    return folder


@pytest.fixture(scope="module")
def made(data: Path) -> bench_train.Work:
    return bench_train.prepared(data, rows=1)


def test_both_batches_hold_the_same_examples(made: bench_train.Work) -> None:
    size = made.size
    assert size["padded rows"] == size["examples"] > 1 == size["packed rows"]
    assert size["tokens"] <= size["packed capacity"] < size["padded capacity"]
    weights = [np.sort(made.batches[mode].loss_weights, None) for mode in bench_train.OURS]
    counted = [one[one > 0] for one in weights]
    np.testing.assert_array_equal(*counted)


def test_packed_and_padded_rows_have_one_loss(made: bench_train.Work) -> None:
    _, weights = hf.load(loading.BUILTIN)
    found = []
    for mode in bench_train.OURS:
        total, metrics = jax.jit(made.runs[mode].loss)(weights, made.batches[mode])
        found.append(float(total / metrics["weight"]))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_the_job_holds_the_padded_batch(made: bench_train.Work, tmp_path: Path) -> None:
    bench_train.write_job(tmp_path, made, 5, ["padded"])
    job = json.loads((tmp_path / "job.json").read_text())
    assert len(job["rates"]) == 5 and job["rates"][0] == pytest.approx(bench_train.LEARNING_RATE)
    with np.load(tmp_path / "job.npz") as found:
        arrays = dict(found)
    assert len(arrays["pixel_values"]) == arrays["image_grid_thw"].prod(1).sum()
    merged = arrays["image_grid_thw"].prod(1) // 4
    config = made.runs["padded"].config
    image = (arrays["input_ids"] == config.image_token_id).sum(1)
    np.testing.assert_array_equal(image, merged)
    assert (arrays["attention_mask"].sum() == made.size["tokens"]) and arrays["targets"].any()


def test_modes_take_turns_after_the_first_steps() -> None:
    command = [sys.executable, "-c", FAKE]
    commands = {"sf_jax": [*command, "padded", "packed"], "transformers": [*command, "padded"]}
    found = bench_train.measure(commands, steps=2, repeats=2, environment={})
    ours, theirs = found["sf_jax"]["modes"], found["transformers"]["modes"]
    assert ours["padded"] == {"losses": [1, 2, 5, 7], "seconds": [50, 70]}
    assert ours["packed"] == {"losses": [3, 4, 6, 8], "seconds": [60, 80]}
    assert theirs["padded"] == {"losses": [1, 2, 3, 4], "seconds": [30, 40]}
    assert found["sf_jax"]["versions"] == {"fake": "1"}


def test_a_side_that_fails_is_named() -> None:
    command = [sys.executable, "-c", "raise SystemExit(1)"]
    with pytest.raises(ValueError, match="SystemExit.* failed"):
        bench_train.measure({"sf_jax": command}, 1, 1, {})


def test_the_table_compares_alike_with_alike() -> None:
    def side(**seconds: float) -> dict[str, Any]:
        modes = {name: {"seconds": [s] * 3, "losses": [2.0, 1.0]} for name, s in seconds.items()}
        return {"modes": modes, "others": 0.0, "versions": {}}

    results = {"sf_jax": side(padded=2.0, packed=1.0), "transformers": side(padded=3.0)}
    results["transformers"]["modes"]["padded"]["losses"] = [2.0, 1.001]
    head, padded, packed, theirs = bench_train.table(
        results, {"examples": 6, "tokens": 900}
    ).splitlines()
    assert head.split()[-4:] == ["/", "padded", "/", "packed"]
    assert padded.split()[-4:] == ["3.0", "450", "1.00", "2.00"]
    assert packed.split()[-4:] == ["6.0", "900", "0.50", "1.00"]
    assert theirs.split()[-4:] == ["2.0", "300", "1.50", "3.00"]
    lines = bench_train.losses(results, 2).splitlines()
    assert lines[-1].split()[-4:] == ["2.000000", "0.0e+00", "1.001000", "1.0e-03"]
    gain, against = bench_train.verdict(results)
    assert "2.00 times as many" in gain and "1.50 times as long" in against
    assert bench_train.verdict({"sf_jax": results["sf_jax"]}) == [gain]
    results["transformers"]["others"] = 0.5
    assert "measure again" in bench_train.verdict(results)[-1]


@pytest.mark.parametrize("wrong", [["--rows", "0"], ["--steps", "0"], ["--repeats", "x"]])
def test_bad_arguments_are_reported(wrong: list[str]) -> None:
    with pytest.raises(UsageError, match=wrong[0]):
        bench_train.build_parser().parse_args(wrong)


def test_transformers_takes_the_same_steps(data: Path, tmp_path: Path) -> None:
    python = torch_python()
    if python is None:
        pytest.skip("needs torch and transformers: the extra 'porting', or SF_JAX_TORCH_PYTHON")
    bench_train.main([
        "--data", str(data), "--out", str(tmp_path), "--torch-python", python,
        "--rows", "1", "--steps", "3", "--repeats", "1",
    ])  # fmt: skip
    results = json.loads((tmp_path / "results.json").read_text())
    losses = {name: row["losses"] for name, row in bench_train.rows_of(results).items()}
    assert set(losses) == {"sf_jax, padded", "sf_jax, packed", "transformers, padded"}
    ours = losses["sf_jax, padded"]
    assert ours[2] < ours[1] < ours[0]
    for found in losses.values():
        assert found[0] == pytest.approx(ours[0], rel=1e-5)
        np.testing.assert_allclose(found[:3], ours[:3], rtol=1e-4)
