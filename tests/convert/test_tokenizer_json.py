"""The built-in tokenizer as a `tokenizer.json`: the same ids, here and in transformers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from sf_jax.convert.tokenizer_json import export
from sf_jax.face import channels
from sf_jax.face.describe import describe
from sf_jax.reader.loading import BUILTIN
from sf_jax.reader.question import prompt_ids
from sf_jax.reader.schema import channel_schema
from sf_jax.sequence.chat import chat_text
from sf_jax.sequence.tokenizer import (
    IM_END,
    JsonTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    TokenizerError,
    train,
)
from tests.convert.torch_python import run_torch

SCHEMA = channel_schema()


def ask_transformers(directory: Path, texts: list[str], chats: list) -> dict:
    questions = json.dumps({"texts": texts, "chats": chats})
    return json.loads(run_torch("reference_tokenizer.py", str(directory), stdin=questions))


def test_half_a_character_is_refused(builtin: Tokenizer) -> None:
    """JSON may spell one; the libraries raise a TypeError and a RuntimeError."""
    for tokenizer in (builtin, JsonTokenizer.load(BUILTIN / "tokenizer.json")):
        with pytest.raises(TokenizerError, match="not a text in Unicode: 'Read .*ud83d'"):
            tokenizer.encode("Read \ud83d")


@pytest.fixture(scope="module")
def builtin() -> Tokenizer:
    return SentencePieceTokenizer.load(BUILTIN / "tokenizer.model")


@pytest.fixture(scope="module")
def directory(builtin: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory without weights, where transformers finds all it looks for."""
    folder = tmp_path_factory.mktemp("model")
    export(builtin.sentencepiece, folder)
    for name in ("config.json", "tokenizer.model", "preprocessor_config.json"):
        shutil.copy(BUILTIN / name, folder)
    return folder


def answers(count: int) -> list[str]:
    """Descriptions and numbers of made-up faces, from calm to every channel at once."""
    generator = np.random.default_rng(0)
    texts = []
    for _ in range(count):
        active = generator.random(61) < generator.random()
        values = np.clip(generator.normal(0, 0.5, 61) * active, channels.LOW, channels.HIGH)
        texts.append(f"{describe(values).text}\n\n{SCHEMA.format(values)}{IM_END}")
    return texts


def odd_texts(count: int) -> list[str]:
    """Runs of letters, symbols cut short and signs that the vocabulary lacks."""
    generator = np.random.default_rng(1)
    signs = [*map(chr, range(32, 127)), *"éß…“漢🙂\t\r\n", "\n\n", "0.1", "-1.0", "<|im_", IM_END,
             "0.0.5", ', "JawOpen": ', ', "JawOpen":', " the left brow", "   "]  # fmt: skip
    return ["".join(generator.choice(signs, generator.integers(1, 60))) for _ in range(count)]


CHATS: list = [
    [{"role": "user", "content": "Read the face."}],
    [{"role": "system", "content": "Be exact."}, {"role": "user", "content": [
        {"type": "image"}, {"type": "text", "text": " One face.\n"}]}],
    [{"role": "user", "content": [
        {"type": "image"}, {"type": "text", "text": "and"}, {"type": "image"},
        {"type": "image"}, {"type": "text", "text": "which smiles?"}]},
     {"role": "assistant", "content": "The second."},
     {"role": "user", "content": "  Sure?  "}],
]  # fmt: skip


def test_six_hundred_answers_have_the_same_ids(builtin: Tokenizer, directory: Path) -> None:
    exported = JsonTokenizer.load(directory / "tokenizer.json")
    assert len(exported) == len(builtin)
    for text in answers(600):
        ids = builtin.encode(text)
        assert exported.encode(text) == ids and exported.decode(ids) == text
    for text in SCHEMA.symbols():
        assert exported.symbol(text) == builtin.symbol(text)


def test_so_have_odd_texts(builtin: Tokenizer, directory: Path) -> None:
    exported = JsonTokenizer.load(directory / "tokenizer.json")
    for text in odd_texts(2_000):
        ids = builtin.encode(text)
        assert exported.encode(text) == ids, text
        assert exported.decode(ids) == builtin.decode(ids), text


def test_transformers_reads_the_export_alike(builtin: Tokenizer, directory: Path) -> None:
    texts = [*answers(600), *odd_texts(500)]
    found = ask_transformers(directory, texts, [[chat, True] for chat in CHATS])
    for text, ids, decoded in zip(texts, found["ids"], found["decoded"], strict=True):
        assert ids == builtin.encode(text), text
        assert decoded == builtin.decode(ids), text
    assert (found["pad"], found["eos"]) == (0, builtin.symbol(IM_END))


@pytest.mark.parametrize("answer", [True, False])
def test_transformers_renders_chats_alike(
    builtin: Tokenizer, directory: Path, answer: bool
) -> None:
    found = ask_transformers(directory, [], [[chat, answer] for chat in CHATS])
    for chat, text, ids in zip(CHATS, found["chats"], found["chat_ids"], strict=True):
        parts = [part for message in chat for part in message["content"]]
        pictures = sum(isinstance(part, dict) and part["type"] == "image" for part in parts)
        assert chat_text(chat, [1] * pictures, answer) == text
        assert builtin.encode(text) == ids


def test_the_built_in_prompt_is_a_chat(builtin: Tokenizer, directory: Path) -> None:
    from sf_jax.reader.question import WITH_RATIONALE

    chat = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": WITH_RATIONALE}]}
    ]
    found = ask_transformers(directory, [], [[chat, True]])
    assert found["chat_ids"] == [prompt_ids(builtin, 1, True)]


def test_other_kinds_of_tokenizers_are_refused(tmp_path: Path) -> None:
    import io

    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a few words", "and a few more words"]),
        model_writer=out,
        model_type="unigram",
        vocab_size=20,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    with pytest.raises(TokenizerError, match="only SentencePiece BPE"):
        export(out.getvalue(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_freshly_trained_tokenizer_is_exported_too(tmp_path: Path) -> None:
    texts = answers(40)
    fresh = train(texts, SCHEMA.symbols(), 500)
    export(fresh.sentencepiece, tmp_path)
    exported = JsonTokenizer.load(tmp_path / "tokenizer.json")
    for text in [*texts, *odd_texts(100)]:
        assert exported.encode(text) == fresh.encode(text)
