"""Equality with transformers on tiny random checkpoints, and mutants that must break it.

The references come from `reference.py`; see `torch_python.py` for what runs it.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sf_jax.convert import hf, hf_forward, tensor_files
from sf_jax.model import text, vision
from sf_jax.sequence import images
from tests.convert.torch_python import run_torch

VARIANTS = ["gqa_tied_16", "mha_untied_64", "gqa_untied_72", "text_tied", "text_untied"]
LIMITS = {"logits": 1e-4, "vision": 2e-5, "deepstack": 2e-5, "positions": 0.0}
MUTANT_FACTOR = 5.0  # a mutant must miss a limit by this much


@pytest.fixture(scope="session")
def references(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("references")
    run_torch("reference.py", str(out))
    return out


def cases(directory: Path) -> dict[str, dict[str, np.ndarray]]:
    """The reference arrays by case and name."""
    found: dict[str, dict[str, np.ndarray]] = {}
    with np.load(directory / "cases.npz") as arrays:
        for key in arrays.files:
            case, name = key.split("/")
            found.setdefault(case, {})[name] = arrays[key]
    return found


def given(case: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = ("input_ids", "pixel_values", "image_grid_thw", "attention_mask")
    return {name: case[name] for name in names if name in case}


def distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference relative to the reference's maximum."""
    assert ours.shape == theirs.shape
    assert np.isfinite(ours).all()
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def text_distances(config, weights, case: dict[str, np.ndarray]) -> dict[str, float]:
    """How far positions and logits are from the reference; tokens of padding do not count."""
    real = case["attention_mask"] != 0
    logits = hf.forward(config, weights, **given(case))
    batch, _ = hf_forward.prepare(config, **given(case))
    positions = np.zeros((3, *real.shape), np.int32)
    positions[:, real] = batch.positions[:, batch.segments > 0]
    return {
        "logits": distance(logits[real], case["logits"][real]),
        "positions": float(np.abs(positions[:, real] - case["positions"][:, real]).max()),
    }


@partial(jax.jit, static_argnums=2)
def see(weights, patches, config):
    return vision.forward(weights, patches, config)


def vision_distances(config, weights, case: dict[str, np.ndarray]) -> dict[str, float]:
    """How far the tower's output and its worst DeepStack level are from the reference."""
    patches = hf_forward.prepare(config, **given(case))[0].inputs["vision"]
    features, deepstack = see(weights.vision, patches, config.vision)
    kept = np.asarray(vision.merged_segments(patches.segments, config.vision)) != 0
    levels = zip(np.asarray(deepstack), case["deepstack"], strict=True)
    return {
        "vision": distance(np.asarray(features)[kept], case["vision"]),
        "deepstack": max(distance(level[kept], theirs) for level, theirs in levels),
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_equal_to_transformers(references, variant) -> None:
    config, weights = hf.load(references / variant)
    worst = dict.fromkeys(LIMITS, 0.0)
    before = hf_forward.compiled._cache_size()
    for name, case in cases(references / variant).items():
        distances = text_distances(config, weights, case)
        if "vision" in case:
            distances |= vision_distances(config, weights, case)
        for output, found in distances.items():
            assert found <= LIMITS[output], (name, output, found)
            worst[output] = max(worst[output], found)
    # Prompts of other lengths and pictures of other sizes share one function, text alone another.
    assert hf_forward.compiled._cache_size() - before == (1 if config.vision is None else 2)
    print(f"{variant}: " + ", ".join(f"{output} {found:.1e}" for output, found in worst.items()))


@pytest.mark.parametrize("variant", VARIANTS)
def test_half_precision_is_no_worse_than_theirs(references, variant) -> None:
    """Mean square and largest error in bfloat16, against float32, over all cases at once."""
    config, weights = hf.load(references / variant, dtype=jnp.bfloat16)
    config = replace(config, product_dtype="bfloat16")
    ours, theirs = [], []
    for case in cases(references / variant).values():
        real = case["attention_mask"] != 0
        largest = np.abs(case["logits"][real]).max()
        logits = hf.forward(config, weights, **given(case))
        ours.append((logits[real] - case["logits"][real]) / largest)
        theirs.append((case["half_logits"][real] - case["logits"][real]) / largest)
    errors = [np.concatenate([e.ravel() for e in side]) for side in (ours, theirs)]
    mean = np.divide(*(np.sqrt(np.square(e).mean()) for e in errors))
    largest = np.divide(*(np.abs(e).max() for e in errors))
    print(f"{variant}: bfloat16 error {mean:.2f} of theirs, largest {largest:.2f}")
    assert mean <= 1.5 and largest <= 1.5


@pytest.mark.parametrize("variant", VARIANTS)
def test_greedy_continuations_are_equal(references, variant) -> None:
    config, weights = hf.load(references / variant)
    compared = 0
    for name, case in cases(references / variant).items():
        if "greedy" not in case:
            continue
        expected = case["greedy"]
        found = hf.generate(config, weights, **given(case), max_new_tokens=expected.shape[1])
        for row, differs in enumerate(found != expected):
            if differs.any():
                assert case["gaps"][row, np.argmax(differs)] < 1e-5, (name, row)
        compared += len(expected)
    assert compared >= 6 and len(np.unique(found)) > 5


def test_bytes_names_and_fields_return(references, tmp_path) -> None:
    for variant in VARIANTS:
        source, copy = references / variant, tmp_path / variant
        hf.save(copy, *hf.load(source))
        assert (copy / "config.json").read_bytes() == (source / "config.json").read_bytes()
        ours, theirs = (tensor_files.open_directory(folder)[1] for folder in (copy, source))
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            assert ours[name].tag == tensor.tag
            assert ours[name].array().tobytes() == tensor.array().tobytes()


def drop_deepstack(patch, config):
    real = vision.forward

    def without(*args):
        features, deepstack = real(*args)
        return features, deepstack * 0

    patch.setattr(vision, "forward", without)
    return config


def deepstack_one_layer_late(patch, config):
    real = text.forward

    def late(*args, levels, **kwargs):
        levels = jnp.concatenate([jnp.zeros_like(levels[:1]), levels])
        return real(*args, levels=levels, **kwargs)

    patch.setattr(text, "forward", late)
    return config


def ignore_sections(patch, config):
    half = config.text.head_dim // 2
    return replace(config, text=replace(config.text, mrope_section=(half, 0, 0)))


def contiguous_sections(patch, config):
    def contiguous(positions, c):
        half = c.head_dim // 2
        axis = np.repeat(np.arange(3), c.mrope_section)
        frequencies = c.rope_theta ** (-np.arange(half, dtype=np.float32) / half)
        angles = jnp.moveaxis(positions, 0, -1)[..., axis] * frequencies
        angles = jnp.concatenate([angles, angles], -1)[:, :, None]
        return jnp.cos(angles), jnp.sin(angles)

    patch.setattr(text, "_rope", contiguous)
    return config


def tanh_gelu_in_mergers(patch, config):
    real = jax.nn.gelu
    patch.setattr(jax.nn, "gelu", lambda x, approximate=True: real(x, approximate=True))
    return config


def wrong_theta(patch, config):
    return replace(config, text=replace(config.text, rope_theta=config.text.rope_theta * 2))


def skip_qk_norm(patch, config):
    real = text.rms_norm

    def skipping(x, norm, eps):
        # Heads are the only states of four axes.
        return x if x.ndim == 4 else real(x, norm, eps)

    patch.setattr(text, "rms_norm", skipping)
    return config


def swap_text_axes(patch, config):
    real = images.position_ids
    patch.setattr(images, "position_ids", lambda *args: real(*args)[[0, 2, 1]])
    return config


def swap_patch_axes(patch, config):
    real = vision.grid_positions

    def swapped(height, width, c):
        row = real(height, width, c)
        return row | {"rows": row["columns"], "columns": row["rows"]}

    patch.setattr(vision, "grid_positions", swapped)
    return config


# What is changed, and the output that must show it. The first two change arrays made on the host.
MUTANTS = {
    "height and width swapped in the text": (swap_text_axes, "logits"),
    "height and width swapped in the tower": (swap_patch_axes, "vision"),
    "DeepStack dropped": (drop_deepstack, "logits"),
    "DeepStack one layer late": (deepstack_one_layer_late, "logits"),
    "M-RoPE sections ignored": (ignore_sections, "logits"),
    "M-RoPE sections contiguous": (contiguous_sections, "logits"),
    "tanh GELU in the mergers": (tanh_gelu_in_mergers, "vision"),
    "RoPE theta doubled": (wrong_theta, "logits"),
    "QK-norm skipped": (skip_qk_norm, "logits"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_fail(references, monkeypatch, name) -> None:
    mutate, output = MUTANTS[name]
    config, weights = hf.load(references / "gqa_tied_16")
    case = cases(references / "gqa_tied_16")["several"]
    jitted, measure = (
        (see, vision_distances) if output == "vision" else (hf_forward.compiled, text_distances)
    )
    on_host = mutate in (swap_text_axes, swap_patch_axes)
    if not on_host:
        jitted.clear_cache()
    try:
        found = measure(mutate(monkeypatch, config), weights, case)
    finally:
        if not on_host:
            jitted.clear_cache()
    factor = found[output] / LIMITS[output]
    print(f"{name}: {output} {factor:.0f} x its limit")
    assert factor >= MUTANT_FACTOR
