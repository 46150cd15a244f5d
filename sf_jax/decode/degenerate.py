"""Telling text from what a model generates where it has lost its way.

Far from what it was trained on, or at a high temperature, a model may repeat itself up to the cap,
write separators with nothing between them, or bytes that are no characters. The rules hold for any
language and any model: of 600 rationales of the built-in model about rendered faces none breaks
them (`tests/decode/test_degenerate.py` has examples of both kinds).
"""

import re
import unicodedata

import numpy as np
from jaxtyping import Int

REPEATS = 4  # of the same tokens in a row, together at least LOOP tokens
LOOP = 12
_SEPARATORS = re.compile(r"[,;:，；：、]\s*[,;:，；：、]")
_REPLACEMENT = "\ufffd"  # stands for bytes that are no character


def is_degenerate(text: str, ids: Int[np.ndarray, " T"]) -> bool:
    """Whether a generated text is none: a separator directly after another, a loop, control or
    undecodable characters, or no letter at all. An empty text is no text, and not degenerate.

    Args:
      text: what `ids` decode to; a character that the cap has cut at the end is allowed.
    """
    if not text.strip():
        return False
    return (
        not any(map(str.isalpha, text))
        or _REPLACEMENT in text.rstrip(_REPLACEMENT)
        or any(unicodedata.category(one) == "Cc" and one not in "\n\r\t" for one in text)
        or _SEPARATORS.search(text) is not None
        or _loops(ids)
    )


def _loops(ids: Int[np.ndarray, " T"]) -> bool:
    """Whether the same tokens, one or more, follow themselves `REPEATS` times or more."""
    for period in range(1, len(ids) // REPEATS + 1):
        least = max(REPEATS * period, LOOP) - period  # equal to the token one period before
        equal = np.concatenate([[0], ids[period:] == ids[:-period], [0]])
        edges = np.flatnonzero(np.diff(equal))
        if len(edges) and (edges[1::2] - edges[::2]).max() >= least:
            return True
    return False
