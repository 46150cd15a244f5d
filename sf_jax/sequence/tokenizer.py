"""Tokenizers: the built-in model's, and those that Qwen checkpoints bring.

The built-in model has SentencePiece with symbols that are never split. Control tokens, answer keys
and answer values are user-defined symbols, so that a key with its punctuation, and a value, are one
token each. The tokenizer does not know what they mean: they reach it as data.

Qwen checkpoints bring a `tokenizer.json`, read by `JsonTokenizer`. Both satisfy `Tokenizer`.
"""

import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import sentencepiece as spm
import tokenizers

from sf_jax.media import files, small_files
from sf_jax.media.errors import DataError

IM_START, IM_END = "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END = "<|vision_start|>", "<|vision_end|>"
IMAGE = "<|image_pad|>"
CONTROL = (IM_START, IM_END, VISION_START, VISION_END, IMAGE)
MOST_BYTES = 128 * 2**20  # of a tokenizer's file; the largest released ones have some 30 MB
SLOW_FILES = ("vocab.json", "merges.txt")  # what older savers wrote in place of tokenizer.json
LINE, BLANK_LINE = "\n", "\n\n"


class TokenizerError(DataError):
    """A tokenizer file that cannot be read, or a symbol that it lacks."""


class Tokenizer(Protocol):
    """Text ↔ token ids, of whichever file a model's directory holds.

    Whether a model was tuned on conversations is a property of its directory, not of this.

    Attributes:
      file: the name of its file in a model's directory.
      sentencepiece: the SentencePiece model it rests on, None for another kind.
    """

    @property
    def file(self) -> str: ...
    @property
    def sentencepiece(self) -> bytes | None: ...

    def save(self, directory: str | os.PathLike) -> None:
        """Writes its file into a directory."""

    def __len__(self) -> int:
        """One more than the largest id; a model's vocabulary may be padded beyond."""

    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...

    def token_texts(self) -> list[str]:
        """The text of each token on its own, by id."""

    def reserved(self) -> list[int]:
        """Ids that never stand for text: padding, unknown and control tokens."""

    def symbol(self, text: str) -> int:
        """The id of the one token that stands for exactly `text`.

        Raises:
          TokenizerError: the text takes several tokens.
        """


def load(directory: str | os.PathLike) -> Tokenizer:
    """The tokenizer of a model's directory: `tokenizer.model`, else `tokenizer.json`.

    Raises:
      TokenizerError: both are missing, or the file cannot be read.
    """
    folder = Path(directory)
    model, other = folder / SentencePieceTokenizer.file, folder / JsonTokenizer.file
    if model.exists():
        return SentencePieceTokenizer.load(model)
    if other.exists():
        return JsonTokenizer.load(other)
    parts = [name for name in SLOW_FILES if (folder / name).exists()]
    if parts:
        raise TokenizerError(
            f"no such file; {' and '.join(parts)} alone are not read. Write it with transformers: "
            f"AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)",
            path=other,
        )
    raise TokenizerError(f"no such file, and no {other.name} either", path=model)


def _symbol(tokenizer: Tokenizer, text: str) -> int:
    ids = tokenizer.encode(text)
    if len(ids) != 1:
        raise TokenizerError(f"{text!r} takes {len(ids)} tokens, expected one symbol")
    return ids[0]


class SentencePieceTokenizer:
    """A `tokenizer.model`. Id 0 is padding and is never produced from text.

    Attributes:
      sentencepiece: the content of its file.
    """

    file = "tokenizer.model"

    def __init__(self, model: bytes):
        self.sentencepiece = model
        self._processor = spm.SentencePieceProcessor(model_proto=model)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "SentencePieceTokenizer":
        """Reads a `tokenizer.model` file.

        Raises:
          TokenizerError: the file is missing or is no SentencePiece model.
        """
        content = small_files.read_bytes(path, TokenizerError, MOST_BYTES)
        try:
            loaded = cls(content)
        except RuntimeError as error:
            what = small_files.recognised(content) or error
            raise TokenizerError(
                f"not a readable SentencePiece model: {what}", path=path
            ) from error
        if not len(loaded):
            raise TokenizerError("not a readable SentencePiece model: it is empty", path=path)
        return loaded

    def save(self, directory: str | os.PathLike) -> None:
        files.write_bytes(Path(directory) / self.file, self.sentencepiece)

    def __len__(self) -> int:
        return self._processor.get_piece_size()

    def encode(self, text: str) -> list[int]:
        try:
            return self._processor.encode(text)
        except RuntimeError as error:  # of surrogates, which are half a character
            raise TokenizerError(f"not a text in Unicode: {text!r:.60}") from error

    def decode(self, ids: Sequence[int]) -> str:
        return self._processor.decode([int(i) for i in ids])

    def token_texts(self) -> list[str]:
        return [self.decode([i]) for i in range(len(self))]

    def reserved(self) -> list[int]:
        return [0, 1, *map(self.symbol, CONTROL)]

    def symbol(self, text: str) -> int:
        return _symbol(self, text)


class JsonTokenizer:
    """A `tokenizer.json` with its special tokens, which text may name and decoding keeps."""

    file = "tokenizer.json"
    sentencepiece = None

    def __init__(self, content: str):
        self.content = content
        self._inner = tokenizers.Tokenizer.from_str(content)
        # Files may carry the padding and cutting of whoever saved them, which would alter prompts.
        self._inner.no_truncation()
        self._inner.no_padding()

    @classmethod
    def load(cls, path: str | os.PathLike) -> "JsonTokenizer":
        """Reads a `tokenizer.json` file.

        Raises:
          TokenizerError: the file is missing or is no tokenizer.
        """
        content = small_files.read_text(path, TokenizerError, MOST_BYTES)
        try:
            loaded = cls(content)
        except Exception as error:  # the library raises bare Exceptions
            what = small_files.recognised(content[:64].encode()) or error
            raise TokenizerError(f"not a readable tokenizer.json: {what}", path=path) from error
        if not loaded.vocabulary():
            raise TokenizerError("the vocabulary is empty", path=path, field="model.vocab")
        return loaded

    def save(self, directory: str | os.PathLike) -> None:
        files.write_text(Path(directory) / self.file, self.content)

    def __len__(self) -> int:
        return max(self.vocabulary().values()) + 1

    def vocabulary(self) -> dict[str, int]:
        """Every token and its id."""
        return self._inner.get_vocab(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        try:
            return self._inner.encode(text, add_special_tokens=False).ids
        except TypeError as error:  # of surrogates, which are half a character
            raise TokenizerError(f"not a text in Unicode: {text!r:.60}") from error

    def decode(self, ids: Sequence[int]) -> str:
        return self._inner.decode([int(i) for i in ids], skip_special_tokens=False)

    def token_texts(self) -> list[str]:
        return self._inner.decode_batch([[i] for i in range(len(self))], skip_special_tokens=False)

    def reserved(self) -> list[int]:
        return sorted(self._inner.get_added_tokens_decoder())

    def symbol(self, text: str) -> int:
        return _symbol(self, text)


def train(texts: Iterable[str], symbols: Sequence[str], vocab_size: int) -> SentencePieceTokenizer:
    """Trains a tokenizer on `texts`; `symbols` become single tokens beside the control tokens.

    Pieces may span spaces: descriptions are formulaic, and a phrase a token makes them short.
    """
    out = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=out,
        model_type="bpe",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_by_whitespace=False,
        split_digits=True,
        byte_fallback=True,
        character_coverage=1.0,
        max_sentencepiece_length=24,
        pad_id=0,
        unk_id=1,
        bos_id=-1,
        eos_id=-1,
        # SentencePiece matches symbols after it has written spaces as U+2581.
        user_defined_symbols=[
            symbol.replace(" ", "\u2581") for symbol in (*CONTROL, BLANK_LINE, LINE, *symbols)
        ],
        minloglevel=2,
        num_threads=1,
    )
    return SentencePieceTokenizer(out.getvalue())
