"""A checkpoint of Qwen's kind, tokenizer and all, from its directory to answers."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import sf_jax
from sf_jax import cli
from sf_jax.convert import hf, peft
from sf_jax.convert.processor import FILE, ImageProcessor
from sf_jax.decode import decoder
from sf_jax.face import answers, channels, livelink
from sf_jax.model import lora
from sf_jax.model.config import Config, TextConfig, VisionConfig
from sf_jax.reader import estimator
from sf_jax.sequence import tokenizer
from sf_jax.systems.semanticface.qwen_like import make_tokenizer

QUESTION = [
    {"role": "system", "content": "Be exact."},
    {"role": "user", "content": "<image>What is this face doing?"},
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a tiny shape with patches of 16 pixels."""
    folder = tmp_path_factory.mktemp("qwen")
    make_tokenizer(folder)
    words = tokenizer.JsonTokenizer.load(folder / "tokenizer.json")
    vision = VisionConfig(
        depth=2,
        hidden_size=32,
        intermediate_size=48,
        num_heads=2,
        out_hidden_size=48,
        num_position_embeddings=49,
        deepstack_visual_indexes=(0,),
    )
    text = TextConfig(
        vocab_size=len(words) + 27,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        mrope_section=(4, 2, 2),
        tie_word_embeddings=False,
    )
    symbols = (tokenizer.IMAGE, tokenizer.VISION_START, tokenizer.VISION_END)
    config = Config(vision, text, *map(words.symbol, symbols))
    hf.save_random(folder, config, 3)
    (folder / FILE).write_text(json.dumps(ImageProcessor(65_536, 1_048_576).as_dict()))
    return folder


@pytest.fixture(scope="module")
def adapter(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(1)
    config, _ = hf.load(directory)

    def make(module, inputs, rank, outputs):
        return generator.normal(size=(inputs, rank)), generator.normal(size=(rank, outputs))

    folder = tmp_path_factory.mktemp("adapter")
    chosen = lora.LoraConfig(r".*language_model.*(q_proj|down_proj)", rank=2, alpha=0.5)
    peft.save(folder, lora.build(chosen, config.declare(), make), config.declare())
    return folder


@pytest.fixture(scope="module")
def model(directory: Path) -> estimator.Model:
    return sf_jax.load(directory, max_image_tokens=96)


@pytest.fixture(autouse=True)
def any_rationale(monkeypatch: pytest.MonkeyPatch) -> None:
    """What random weights generate is no text, and would be left out."""
    monkeypatch.setattr(decoder, "is_degenerate", lambda *_, **__: False)


def picture(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    waves = np.stack([np.sin(rows / 9 + k) + np.cos(columns / (7 + k)) for k in range(3)], -1)
    return np.clip(128 + 50 * waves, 0, 255).astype(np.uint8)


def test_an_answer_is_whole_and_in_range(model) -> None:
    action = model.predict(picture(300, 260), max_rationale=20)
    parsed = answers.parse(action.text)
    np.testing.assert_allclose(parsed.coefficients, action.answer, atol=1e-6)
    for values in (action.coefficients, action.answer):
        assert (values >= channels.LOW).all() and (values <= channels.HIGH).all()
    assert action.spread.max() > 0
    plain = model.predict(picture(300, 260), max_rationale=20, decoding="sequential")
    assert plain.text == action.text
    # Values from 0 to 1 take a pass or two, signed ones up to three; one more sees all branches.
    assert 61 < plain.passes["coefficients"] <= 52 * 2 + 9 * 3 + 1
    assert 2 < action.passes["coefficients"] < plain.passes["coefficients"]
    assert 0 < action.passes["rationale"] < 20
    repeated = model.predict(picture(300, 260), max_rationale=20)
    assert repeated.text == action.text


def test_the_cap_ends_the_words_with_a_blank_line(model, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, bool]] = []
    monkeypatch.setattr(decoder, "is_degenerate", lambda *_, **how: asked.append(how))
    action = model.predict(picture(300, 260), max_rationale=3)
    assert asked == [{"truncated": True, "free_form": True}]
    words, _, block = action.text.rpartition("\n\n{")
    assert block.startswith('"') and "{" not in words
    assert action.passes["rationale"] == 2  # the first word comes of the pass over the prompt


def test_pictures_of_any_size_are_read(model) -> None:
    pictures = [picture(300, 260), picture(200, 600), picture(90, 70)]
    together = model.predict_batch(pictures, max_rationale=6)
    for action, single in zip(together, pictures, strict=True):
        alone = model.predict(single, max_rationale=6)
        np.testing.assert_allclose(action.coefficients, alone.coefficients, atol=2e-4)


def test_messages_are_read_by_models_that_are_instructed(model) -> None:
    usual = model.predict(picture(300, 260), max_rationale=6)
    asked = model.predict(picture(300, 260), max_rationale=6, messages=QUESTION)
    assert np.abs(asked.coefficients - usual.coefficients).max() > 1e-3
    with pytest.raises(ValueError, match="trained on its own prompt"):
        sf_jax.load().predict(picture(96, 96), messages=QUESTION)


def test_an_adapter_changes_the_answer(model, directory, adapter) -> None:
    adapted = sf_jax.load(directory, adapter, max_image_tokens=96)
    first, second = (
        m.predict(picture(300, 260), max_rationale=6, rationale=False) for m in (model, adapted)
    )
    assert np.abs(first.coefficients - second.coefficients).max() > 1e-3


def test_half_precision_answers_too(directory) -> None:
    model = sf_jax.load(directory, dtype="bfloat16", max_image_tokens=96)
    assert model.weights.text.embed.dtype == jnp.bfloat16
    answers.parse(model.predict(picture(300, 260), max_rationale=6).text)


def test_requests_at_the_shell(directory, adapter, tmp_path, capsys) -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(picture(120, 100 + 40 * (name == "b.png"))).save(tmp_path / name)
    lines = [{"messages": QUESTION, "images": [name]} for name in ("a.png", "b.png", "c.png")]
    requests, results = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    requests.write_text("".join(json.dumps(line) + "\n" for line in lines[:2]))
    command = ["predict", "--model", directory, "--adapter", adapter, "--max-words", 5]
    called = [*command, "--requests", requests, "--results", results, "--csv", tmp_path / "out.csv"]
    assert cli.main([*map(str, called)]) == 0
    found = [json.loads(line) for line in results.read_text().splitlines()]
    assert len(found) == 2 and all(answers.parse(line["response"]) for line in found)
    assert len(livelink.read(tmp_path / "out.csv").coefficients) == 2
    requests.write_text("".join(json.dumps(line) + "\n" for line in lines))
    capsys.readouterr()
    assert cli.main([*map(str, called)]) == 2
    assert "in.jsonl, line 3" in capsys.readouterr().err
    found = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line["response"] is None for line in found] == [False, False, True]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("preprocessor_config.json", {"patch_size": 14}, "patch_size is 14, expected 16"),
        ("config.json", {"model_type": "qwen2_5_vl"}, 'found "qwen2_5_vl", expected'),
    ],
)
def test_a_directory_that_does_not_fit_is_reported_in_one_line(
    directory, tmp_path, capsys, name, change, message
) -> None:
    for file in directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = json.loads((tmp_path / name).read_text())
    (tmp_path / name).write_text(json.dumps(content | change))
    Image.fromarray(picture(96, 96)).save(tmp_path / "face.png")
    out = tmp_path / "out"
    called = ["predict", tmp_path / "face.png", "--model", tmp_path, "--out", out]
    assert cli.main([*map(str, called)]) == 2
    error = capsys.readouterr().err
    assert message in error and name in error and error.count("\n") == 1


def test_a_model_without_pictures_is_refused(directory, tmp_path) -> None:
    config, _ = hf.load(directory)
    text = dataclasses.replace(config, vision=None, source=None)
    hf.save_random(tmp_path, text, 0)
    with pytest.raises(hf.CheckpointError, match=r"config.json: the model reads text alone"):
        sf_jax.load(tmp_path)


def test_a_kept_system_message_changes_nothing(model, monkeypatch) -> None:
    system = {"role": "system", "content": "Look at the face. " * 8}
    messages = [system, *[m for m in QUESTION if m["role"] != "system"]]
    shown = picture(300, 260)
    assert model.inputs([shown], messages=messages)[1] is not None
    kept = model.predict(shown, max_rationale=2, rationale=False, messages=messages)
    monkeypatch.setattr("sf_jax.decode.decoder.SHORTEST_PREFIX", 10_000)
    assert model.inputs([shown], messages=messages)[1] is None
    whole = model.predict(shown, max_rationale=2, rationale=False, messages=messages)
    np.testing.assert_allclose(kept.coefficients, whole.coefficients, atol=2e-4)
