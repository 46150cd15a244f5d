"""Our own model directory in transformers, and the released sizes there."""

import json
from pathlib import Path

import numpy as np
import pytest

from sf_jax.convert import hf
from sf_jax.model import sizes
from sf_jax.model.declared import count
from sf_jax.reader import loading
from sf_jax.reader.question import NUMBERS_FIRST
from tests.convert.torch_python import run_torch

SIZES = [(96, 96), (64, 128), (300, 500), (37, 29), (640, 200), (1000, 997)]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.mktemp("builtin")
    pictures = {f"picture_{i}": picture for i, picture in enumerate(textured())}
    np.savez(folder / "pictures.npz", **pictures)
    files = folder / "pictures.npz", folder / "out.npz"
    run_torch(
        "reference_builtin.py", "model", str(loading.BUILTIN), *map(str, files), NUMBERS_FIRST
    )
    return dict(np.load(folder / "out.npz"))


def textured() -> list[np.ndarray]:
    """Smooth colours with noise on them, of many shapes."""
    generator = np.random.default_rng(7)
    pictures = []
    for height, width in SIZES:
        rows, columns = np.mgrid[:height, :width]
        waves = np.stack([np.sin(rows / 9 + k) + np.cos(columns / (7 + k)) for k in range(3)], -1)
        noise = generator.normal(0, 20, (height, width, 3))
        pictures.append(np.clip(128 + 50 * waves + noise, 0, 255).astype(np.uint8))
    return pictures


@pytest.mark.parametrize("number", range(len(SIZES)))
def test_the_built_in_model_is_the_same_there(theirs: dict, number: int) -> None:
    """Ids, pixels, and logits at every place of the prompt."""
    model = loading.load()
    rows, _ = model.inputs([textured()[number]])
    patches = rows.inputs["vision"]
    found = {name: theirs[f"picture_{number}/{name}"] for name in
             ("input_ids", "pixel_values", "image_grid_thw", "logits")}  # fmt: skip
    assert rows.input_ids[0][rows.segments[0] == 1].tolist() == found["input_ids"][0].tolist()
    pixels = patches.pixels[0][patches.segments[0] == 1]
    np.testing.assert_array_equal(pixels, found["pixel_values"])
    config, weights = hf.load(loading.BUILTIN)
    given = {name: found[name] for name in ("input_ids", "pixel_values", "image_grid_thw")}
    logits = hf.forward(config, weights, **given)
    share = np.abs(logits - found["logits"]).max() / np.abs(found["logits"]).max()
    print(f"{SIZES[number]}: {share:.1e} of the largest logit")
    assert share <= 1e-4


def test_the_released_sizes_count_the_same_there() -> None:
    configs = {name: hf.config_to_dict(config) for name, config in sizes.QWEN3_VL.items()}
    found = json.loads(run_torch("reference_builtin.py", "counts", stdin=json.dumps(configs)))
    assert found == {name: count(config.declare()) for name, config in sizes.QWEN3_VL.items()}


def test_the_directory_is_complete() -> None:
    names = {path.name for path in Path(loading.BUILTIN).iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
    } <= names
