"""Adapters in PEFT's layout: round trip, refusals, and equality with PEFT where installed."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file, save_file

from sf_jax.convert import hf, peft
from sf_jax.convert.hf import CheckpointError
from sf_jax.model import lora, text, vision
from sf_jax.model.lora import LoraConfig
from sf_jax.sequence import images
from sf_jax.sequence.example import Example, assemble
from sf_jax.sequence.forward import forward as sequence_forward
from tests.convert.torch_python import run_torch

CONFIG = LoraConfig(
    ("q_proj", "mlp.linear_fc1", "merger.linear_fc2"), rank=4, alpha=6.0, layers=(1, 2),
    rank_pattern=(("q_proj", 3),), alpha_pattern=((r"layers\.1\..*", 2.5),), rank_stabilised=True,
    layers_pattern=("layers", "blocks", "deepstack_merger_list"),
    exclude=("blocks.2.mlp.linear_fc1",),
)  # fmt: skip
LIMIT = 1e-4  # of the reference's largest logit
NAME = "base_model.model.model.language_model.layers.1.self_attn.q_proj.lora_A.weight"


def filled(config, tiny_config):
    generator = np.random.default_rng(5)

    def make(module, inputs, rank, outputs):
        return generator.normal(size=(inputs, rank)), generator.normal(size=(rank, outputs))

    return lora.build(config, tiny_config.declare(), make)


@pytest.fixture
def directory(tmp_path, tiny_config):
    peft.save(tmp_path, filled(CONFIG, tiny_config), tiny_config.declare(), base="some/base")
    return tmp_path


def test_round_trip(directory, tiny_config) -> None:
    adapter, again = filled(CONFIG, tiny_config), peft.load(directory, tiny_config.declare())
    assert again.config == adapter.config
    jax.tree.map(np.testing.assert_array_equal, again, adapter)
    tensors = load_file(directory / "adapter_model.safetensors")
    assert tensors[NAME].shape == (3, 48)
    assert tensors[NAME.replace("lora_A", "lora_B")].shape == (64, 3)
    assert not any("layers.0" in name or "blocks.2" in name for name in tensors)


def test_half_precision_files(directory, tiny_config) -> None:
    peft.save(
        directory, filled(CONFIG, tiny_config), tiny_config.declare(), dtype=ml_dtypes.bfloat16
    )
    pair = peft.load(directory, tiny_config.declare()).pairs[
        "model.language_model.layers.{}.self_attn.q_proj"
    ]
    assert pair.a.dtype == jnp.float32
    exact = filled(CONFIG, tiny_config).pairs["model.language_model.layers.{}.self_attn.q_proj"]
    np.testing.assert_allclose(pair.a, exact.a, rtol=2**-8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(NAME), r"q_proj.lora_A.weight' is missing, expected shape \(3, 48\)"),
        (lambda t: t.update({NAME: np.ones((3, 64), np.float32)}),
         r"layers.1.self_attn.q_proj.lora_A.weight' has shape \(3, 64\), expected \(3, 48\)"),
        (lambda t: t.update({NAME.replace("layers.1", "layers.9"): t[NAME]}),
         "unexpected tensor .*layers.9.self_attn.q_proj.lora_A.weight': this base has no such"),
        (lambda t: t.update({NAME: np.full((3, 48), np.nan, np.float32)}), "lora_A.weight' holds"),
    ],
)  # fmt: skip
def test_tensors_of_another_base_are_named(directory, tiny_config, change, message) -> None:
    file = directory / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=message) as caught:
        peft.load(directory, tiny_config.declare())
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("peft_type", "LOHA", "peft_type is 'LOHA', expected 'LORA'"),
        ("use_dora", True, "field 'use_dora' is True; only plain LoRA"),
        ("bias", "lora_only", "bias is 'lora_only', expected 'none'"),
        ("lora_bias", True, "field 'lora_bias'"),
        ("modules_to_save", ["lm_head"], r"field 'modules_to_save' is \['lm_head'\]"),
        ("loftq_config", {"loftq_bits": 4}, "field 'loftq_config'"),
        ("init_lora_weights", "pissa", "init_lora_weights is 'pissa', which changes the base"),
        ("layer_replication", [[0, 2]], "field 'layer_replication'"),
        ("trainable_token_indices", [3], "field 'trainable_token_indices'"),
        ("not_yet_invented", 1, "field 'not_yet_invented'"),
        ("fan_in_fan_out", True, "field 'fan_in_fan_out'"),
        ("r", None, "field 'r': found null, expected a whole number"),
        ("r", 0, "field 'r': found 0, expected 1 or more"),
        ("r", 10**9, "field 'r': found 1000000000, expected 65536 or less"),
        ("r", True, "field 'r': found true"),
        ("lora_alpha", 1e300, "field 'lora_alpha': found 1e"),
        ("rank_pattern", [], "field 'rank_pattern': found .*, expected an object"),
        ("rank_pattern", {"(?i)q": 4}, "is not a regular expression"),
        ("target_modules", "(" * 5000, "is not a regular expression"),
        ("layers_to_transform", ["1"], "field 'layers_to_transform': found .*whole number"),
        ("target_modules", [1], r"field 'target_modules': found \[1\], expected text"),
        ("target_modules", "(", "'\\(' is not a regular expression"),
        ("target_modules", ["q_proj", "lm_head"], "target_modules: targets choose 'lm_head'"),
        ("target_modules", ["c_attn"], "choose no linear of this model"),
        ("lora_alpha", "much", "field 'lora_alpha': found .much., expected a number"),
        ("lora_alpha", float("nan"), "field 'lora_alpha': found NaN"),
        (
            "alpha_pattern",
            {"q_proj": "8"},
            "'alpha_pattern.q_proj': found .8., expected a number",
        ),
    ],
)
def test_what_is_not_plain_lora_is_refused_by_name(
    directory, tiny_config, field, value, message
) -> None:
    file = directory / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with pytest.raises(CheckpointError, match=message) as caught:
        peft.load(directory, tiny_config.declare())
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_and_broken_files(directory, tiny_config) -> None:
    tensors = directory / "adapter_model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="not a readable safetensors"):
        peft.load(directory, tiny_config.declare())
    tensors.unlink()
    with pytest.raises(CheckpointError, match="adapter_model.safetensors: no such file"):
        peft.load(directory, tiny_config.declare())
    (directory / "adapter_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not JSON"):
        peft.load(directory, tiny_config.declare())
    with pytest.raises(CheckpointError, match="adapter_config.json: no such file"):
        peft.load(directory / "nowhere", tiny_config.declare())


# Equality with PEFT itself, in a Python that has it.

IDS = np.array([[1, 2, 8] + [7] * 6 + [9, 11, 12, 13, 14]] * 2)


def run_reference(mode: str, directory: Path) -> dict[str, np.ndarray]:
    run_torch("peft_reference.py", mode, str(directory))
    return dict(np.load(directory / {"make": "logits.npz", "read": "read.npz"}[mode]))


@pytest.fixture(scope="module")
def reference(tmp_path_factory, tiny_config, pictures):
    """A directory with a base and adapters written by PEFT, and their logits."""
    directory = tmp_path_factory.mktemp("reference")
    pixels = np.concatenate([vision.patchify(p) for p in pictures[:2]])
    grids = np.array([[1, 4, 6], [1, 6, 4]])
    np.savez(directory / "inputs.npz", input_ids=IDS, pixel_values=pixels, grids=grids)
    return directory, run_reference("make", directory)


@pytest.fixture(scope="module")
def forward(tiny_config, pictures):
    rows = [
        [Example.of(ids, images.image_inserts(ids, [picture], tiny_config))]
        for ids, picture in zip(IDS, pictures[:2], strict=True)
    ]
    batch = assemble(rows, images.capacity(tiny_config, IDS.shape[1], 32))

    @jax.jit
    def run(weights):
        states, _ = sequence_forward(weights, batch, tiny_config)
        return text.logits(weights.text, states)

    return run


def relative(ours, theirs) -> float:
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("name", ["expression", "endings", "all"])
def test_equal_to_peft(reference, forward, tiny_config, name, record_property) -> None:
    directory, theirs = reference
    config, weights = hf.load(directory / "base")
    assert (config.vision, config.text) == (tiny_config.vision, tiny_config.text)
    adapter = peft.load(directory / name, config.declare())
    beside = relative(forward(lora.attach(weights, adapter, config.declare())), theirs[name])
    merged = relative(forward(lora.merge(weights, adapter, config.declare())), theirs[name])
    record_property("beside", beside)
    record_property("merged", merged)
    print(f"{name}: beside {beside:.1e}, merged {merged:.1e}")
    assert max(beside, merged) <= LIMIT
    mutant = adapter.replace(config=replace(adapter.config, alpha=1.0))
    mutants = {
        "LoRA left out": weights,
        "LoRA alpha ignored": lora.merge(weights, mutant, config.declare()),
    }
    for what, wrong in mutants.items():
        found = relative(forward(wrong), theirs[name])
        print(f"{name}, {what}: {found / LIMIT:.0f} x its limit")
        assert found >= 5 * LIMIT


def test_peft_reads_what_was_trained_here(reference, forward, record_property) -> None:
    directory, _ = reference
    config, weights = hf.load(directory / "base")
    chosen = LoraConfig(
        r".*\.(qkv|linear_fc[12]|q_proj|down_proj)",
        rank=3,
        alpha=5.0,
        rank_pattern=((r"blocks\.0\..*", 2),),
        alpha_pattern=((r"layers\.1\..*", 9.0),),
    )
    adapter = lora.initialise(chosen, config.declare(), seed=4)
    optimizer = optax.adam(0.05)
    state = optimizer.init(adapter)

    @jax.jit
    def gradient(adapter):
        def loss(adapter):
            scores = forward(lora.attach(weights, adapter, config.declare()))
            return -jax.nn.log_softmax(scores)[..., 5].mean()

        return jax.grad(loss)(adapter)

    for _ in range(3):
        updates, state = optimizer.update(gradient(adapter), state)
        adapter = optax.apply_updates(adapter, updates)
    peft.save(directory / "exported", adapter, config.declare())
    ours = forward(lora.attach(weights, adapter, config.declare()))
    assert relative(forward(weights), np.asarray(ours)) > 1e-2
    for name, theirs in run_reference("read", directory).items():
        record_property(name, relative(ours, theirs))
        print(f"trained here, {name} there: {relative(ours, theirs):.1e}")
        assert relative(ours, theirs) <= LIMIT
