"""Telling text from what a model generates where it has lost its way.

Far from what it was trained on, or at a high temperature, a model may repeat itself up to the cap,
write separators with nothing between them, or bytes that are no characters.

Two sets of rules, both for any language. A model that was trained on plain sentences alone, as the
built-in one, writes nothing else while it is sound: of 600 rationales of it about rendered faces
none breaks the strict rules. A free-form model may be asked for a table, a list of zeros or a
ruler, and what it ends by itself is an answer; a loop of it never ends but by the cap
(`tests/decode/test_degenerate.py` has examples of both kinds).
"""

import re
import unicodedata

import numpy as np
from jaxtyping import Int

REPEATS = 4  # of the same tokens in a row, together at least LOOP tokens
LOOP = 12
_SEPARATORS = re.compile(r"[,;:，；：、]\s*[,;:，；：、]")
_REPLACEMENT = "\ufffd"  # stands for bytes that are no character


def is_degenerate(
    text: str, ids: Int[np.ndarray, " T"], *, truncated: bool, free_form: bool
) -> bool:
    """Whether a generated text is none. An empty text is no text, and not degenerate.

    Control and undecodable characters make it so. Of a model of plain sentences, a separator
    directly after another, a loop, or no letter at all do too; of a free-form one, no letter up to
    the cap, or a loop that the cap has cut.

    Args:
      text: what `ids` decode to; a character that the cap has cut at the end is allowed.
      truncated: whether the cap ended it.
      free_form: whether the model may write anything, and not plain sentences alone.
    """
    if not text.strip():
        return False
    if _REPLACEMENT in text.rstrip(_REPLACEMENT):
        return True
    if any(unicodedata.category(one) == "Cc" and one not in "\n\r\t" for one in text):
        return True
    no_letter = not any(map(str.isalpha, text))
    if free_form:
        return truncated and (no_letter or _loops(ids, at_end=True))
    return no_letter or _SEPARATORS.search(text) is not None or _loops(ids)


def _loops(ids: Int[np.ndarray, " T"], at_end: bool = False) -> bool:
    """Whether the same tokens, one or more, follow themselves `REPEATS` times or more.

    Args:
      at_end: whether only a loop that the last token is part of counts.
    """
    for period in range(1, len(ids) // REPEATS + 1):
        least = max(REPEATS * period, LOOP) - period  # equal to the token one period before
        equal = np.concatenate([[0], ids[period:] == ids[:-period], [0]])
        edges = np.flatnonzero(np.diff(equal))
        begins, ends = edges[::2], edges[1::2]
        counted = ends == len(ids) - period if at_end else np.True_
        if (counted & (ends - begins >= least)).any():
            return True
    return False
