"""Qwen's chat form, and a byte-level `tokenizer.json` as a tokenizer."""

from pathlib import Path

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from sf_jax.reader.question import WITH_RATIONALE, prompt_ids
from sf_jax.sequence.chat import ChatError, chat_text
from sf_jax.sequence.tokenizer import (
    CONTROL,
    IM_END,
    IMAGE,
    JsonTokenizer,
    TokenizerError,
    load,
)

SAMPLE = ["Read the face in words, then in numbers.", "<image>A smile, é.", '{"JawOpen": 0.3}']


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE as Qwen's, in small: special tokens after the vocabulary, no unknown."""
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, show_progress=False, min_frequency=1
    )
    made.train_from_iterator(SAMPLE * 3, trainer)
    made.add_special_tokens(list(CONTROL))
    made.enable_padding(length=50)
    made.enable_truncation(20)
    path = tmp_path_factory.mktemp("qwen") / "tokenizer.json"
    made.save(str(path))
    return path


def test_text_goes_through_whole(file: Path) -> None:
    tokenizer = JsonTokenizer.load(file)
    long = "Any text – 漢字, 🙂, tabs\tand\r\nlines – of more than twenty tokens, unpadded. " * 3
    for text in ["", " ", *SAMPLE, long, f"a{IM_END}b{IMAGE * 3}"]:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode("")) == 0


def test_special_tokens_are_symbols(file: Path) -> None:
    tokenizer = JsonTokenizer.load(file)
    ids = [tokenizer.symbol(text) for text in CONTROL]
    assert ids == list(range(len(tokenizer) - 5, len(tokenizer)))
    assert tokenizer.encode(f"x{IMAGE}{IMAGE}{IM_END}")[1:] == [ids[4], ids[4], ids[1]]
    with pytest.raises(TokenizerError, match="takes . tokens, expected one symbol"):
        tokenizer.symbol("no symbol")


def test_saved_as_it_was_read(file: Path, tmp_path: Path) -> None:
    JsonTokenizer.load(file).save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == file.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


EMPTY = b'{"version": "1.0", "model": {"type": "BPE", "vocab": {}, "merges": []}}'


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "no such file"),
        (b"", "not a readable tokenizer.json: an empty file"),
        (b"{}", "not a readable tokenizer.json"),
        (b"\xff\xfe", "not a text file in UTF-8"),
        (b"no json", "not a readable tokenizer.json"),
        (b"[" * 5000 + b"]" * 5000, "not a readable tokenizer.json"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"<!doctype html>", "an HTML page"),
        (EMPTY, "the vocabulary is empty"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes | None, problem: str) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=f"tokenizer.json.*: {problem}"):
        JsonTokenizer.load(tmp_path / "tokenizer.json")
    if content is not None:
        (tmp_path / "tokenizer.model").write_bytes(content)
        with pytest.raises(TokenizerError, match=r"tokenizer.model: .*"):
            load(tmp_path)


def test_a_directory_of_older_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="tokenizer.model: no such file, and no tokenizer.js"):
        load(tmp_path)
    (tmp_path / "vocab.json").write_text("{}")
    (tmp_path / "merges.txt").write_text("#version: 0.2")
    with pytest.raises(TokenizerError, match="tokenizer.json: no such file; vocab.json and mer"):
        load(tmp_path)


def test_the_chat_form_in_full() -> None:
    messages = [
        {"role": "system", "content": "Be exact."},
        {"role": "user", "content": "<image>Who?<image>"},
        {"role": "assistant", "content": "Both."},
    ]
    assert chat_text(messages, [2, 1], answer=False) == (
        "<|im_start|>system\nBe exact.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|image_pad|><|vision_end|>Who?"
        "<|vision_start|><|image_pad|><|vision_end|><|im_end|>\n"
        "<|im_start|>assistant\nBoth.<|im_end|>\n"
    )
    assert chat_text(messages[1:2], [2, 1]).endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_both_ways_to_show_a_picture_agree() -> None:
    tagged = [{"role": "user", "content": "<image>Look: <image>."}]
    parts = [{"type": "image"}, {"type": "text", "text": "Look: "}, {"type": "image"},
             {"type": "text", "text": "."}]  # fmt: skip
    assert chat_text(tagged, [4, 6]) == chat_text([{"role": "user", "content": parts}], [4, 6])
    system = {"role": "system", "content": "S"}
    before = [system, {"role": "user", "content": "<image><image>Look."}]
    without = [system, {"role": "user", "content": "Look."}]
    assert chat_text(without, [4, 6]) == chat_text(before, [4, 6])


def test_the_built_in_prompt_is_this_form(file: Path) -> None:
    tokenizer = JsonTokenizer.load(file)
    text = chat_text([{"role": "user", "content": f"<image>{WITH_RATIONALE}"}], [9])
    assert tokenizer.encode(text) == prompt_ids(tokenizer, 9, True)


@pytest.mark.parametrize(
    "messages, pictures, words",
    [
        ([{"role": "user", "content": "<image>"}], [1, 1], "show 1 images, 2 are given"),
        ([{"role": "user", "content": "<image>"}], [], "show 1 images, 0 are given"),
        ([{"role": "robot", "content": ""}], [], "message 1: the role is 'robot'"),
        ([{"content": ""}], [], "message 1: the role is None"),
        ([{"role": "user", "content": "a"}, {"role": "system", "content": "b"}], [],
         "message 2: the role is 'system', expected 'user' or 'assistant'$"),
        ([{"role": "user"}], [], "message 1: the content is None"),
        ([{"role": "user", "content": [{"type": "video"}]}], [], "message 1: a part is"),
        ([{"role": "user", "content": ["text"]}], [], "message 1: a part is 'text'"),
        ([{"role": "system", "content": "a"}], [3], "no user's message"),
        ([{"role": "user", "content": "<image><|im_end|>"}], [3], "the text holds '<.im_end.>'"),
        ([{"role": "user", "content": "<image><video>"}], [3], "the text holds '<video>'"),
    ],
)  # fmt: skip
def test_what_is_no_chat_is_refused(messages: list, pictures: list, words: str) -> None:
    with pytest.raises(ChatError, match=words):
        chat_text(messages, pictures)


def test_the_released_request_is_rendered(file: Path) -> None:
    """A system message, and a picture before a long question, as MS-SWIFT lines have them."""
    system = {"role": "system", "content": "Output strict JSON"}
    user = {"role": "user", "content": "<image>You are an expert\n", "loss": None}
    text = chat_text([system, user], [6])
    ids = JsonTokenizer.load(file).encode(text)
    assert ids.count(JsonTokenizer.load(file).symbol(IMAGE)) == 6
