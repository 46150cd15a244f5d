"""The built-in SentencePiece tokenizer as a `tokenizer.json` that transformers reads.

Both merge neighbouring pieces, the best first. SentencePiece ranks the pieces and joins any two
that make one; a `tokenizer.json` ranks pairs, so every pair that makes a piece is listed at its
piece's rank. User-defined symbols become added tokens, which both take out of the text first, the
longest first. Two texts differ, neither of which our prompts and answers hold: transformers reads
"<pad>" as padding, and SentencePiece takes U+2581 for a space, within symbols too.
"""

import json
import os
from pathlib import Path

import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, decoders, models, normalizers

from sf_jax.media import files
from sf_jax.sequence.chat import TEMPLATE
from sf_jax.sequence.tokenizer import CONTROL, IM_END, TokenizerError

SPACE = "\u2581"  # what SentencePiece writes for a space
NORMAL, UNKNOWN, PAD, SYMBOL, BYTE = 1, 2, 3, 4, 6  # SentencePiece's types of pieces


def export(model: bytes, directory: str | os.PathLike) -> None:
    """Writes `tokenizer.json`, `tokenizer_config.json` and `chat_template.jinja`.

    Args:
      model: a SentencePiece model, the content of a `tokenizer.model`.

    Raises:
      TokenizerError: it is no BPE model of the built-in kind.
    """
    folder = Path(directory)
    pieces = _pieces(model)
    names = {kind: [text for text, k in pieces if k == kind] for kind in (UNKNOWN, PAD)}
    unknown, pad = names[UNKNOWN][0], names[PAD][0]
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": pad,
        "eos_token": IM_END,
        "unk_token": unknown,
        "additional_special_tokens": [text for text in CONTROL if text != IM_END],
        "clean_up_tokenization_spaces": False,
    }
    files.write_text(
        folder / "tokenizer.json", _converted(pieces, unknown).to_str(pretty=True) + "\n"
    )
    files.write_text(folder / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")
    files.write_text(folder / "chat_template.jinja", TEMPLATE)  # for tokenizer and processor alike


def _pieces(content: bytes) -> list[tuple[str, int]]:
    """Text and type of every piece by id; symbols with plain spaces, as in text."""
    model = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]  # made at import
    model.ParseFromString(content)
    spec, normal = model.trainer_spec, model.normalizer_spec
    if (
        spec.model_type != spec.BPE
        or not spec.byte_fallback
        or normal.name != "identity"
        or normal.add_dummy_prefix
        or normal.remove_extra_whitespaces
    ):
        raise TokenizerError(
            "only SentencePiece BPE models with byte fallback and untouched text are exported"
        )
    pieces = [
        (piece.piece.replace(SPACE, " ") if piece.type == SYMBOL else piece.piece, piece.type)
        for piece in model.pieces
    ]
    kinds = [kind for _, kind in pieces]
    if kinds.count(UNKNOWN) != 1 or kinds.count(PAD) != 1 or not set(kinds) <= {1, 2, 3, 4, 6}:
        raise TokenizerError("expected one unknown piece and one for padding, and no other control")
    return pieces


def _converted(pieces: list[tuple[str, int]], unknown: str) -> tokenizers.Tokenizer:
    vocabulary = {text: i for i, (text, _) in enumerate(pieces)}
    normal = {text for text, kind in pieces if kind == NORMAL}
    merges = [
        (text[:cut], text[cut:])
        for text, kind in pieces  # in order of rank
        if kind == NORMAL
        for cut in range(1, len(text))
        if text[:cut] in normal and text[cut:] in normal
    ]
    made = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, unk_token=unknown, byte_fallback=True)
    )
    made.normalizer = normalizers.Replace(" ", SPACE)
    made.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = [text for text, kind in pieces if kind == PAD] + list(CONTROL)
    made.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    symbols = [text for text, kind in pieces if kind == SYMBOL and text not in CONTROL]
    made.add_tokens([AddedToken(text, normalized=False) for text in symbols])
    return made
