"""The grammar of an answer as data: what text is fixed, and which values may stand in each slot.

A `Schema` describes the text: words, a blank line, then a flat JSON object of named numbers.
Compiled with a tokenizer it becomes a `SlotProgram`: for each slot the forced tokens before it and
the few token ids allowed in it. A model driven by it cannot leave the grammar.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from flax import struct

from sf_jax.decode.tokenizer import BLANK_LINE, CONTROL, IM_END, Tokenizer, TokenizerError


@dataclass(frozen=True)
class Schema:
    """Named numbers in order.

    Attributes:
      names: the keys of the JSON object.
      low, high: the range of each, inclusive.
      decimals: digits after the point.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    decimals: int = 1

    def values(self, slot: int) -> list[str]:
        """Every value that may stand in a slot, as text, ascending. "-0.0" is not among them."""
        step = Decimal(1).scaleb(-self.decimals)
        first = int((Decimal(str(self.low[slot])) / step).to_integral_value())
        last = int((Decimal(str(self.high[slot])) / step).to_integral_value())
        return [f"{i * step:.{self.decimals}f}" for i in range(first, last + 1)]

    def key(self, slot: int) -> str:
        """The fixed text before a slot."""
        return ("{" if slot == 0 else ", ") + f'"{self.names[slot]}": '

    def symbols(self) -> list[str]:
        """Texts that a tokenizer made for this schema keeps whole."""
        values = {value for slot in range(len(self.names)) for value in self.values(slot)}
        return [self.key(i) for i in range(len(self.names))] + sorted(values) + ["}"]

    def format(self, numbers: np.ndarray) -> str:
        """The JSON text of numbers [C], rounded to the schema's decimals."""
        texts = [f"{round(float(x), self.decimals) + 0.0:.{self.decimals}f}" for x in numbers]
        return "".join(self.key(i) + text for i, text in enumerate(texts)) + "}"


@struct.dataclass
class SlotProgram:
    """A compiled schema. C slots, F forced tokens at most before a slot, A allowed tokens at most.

    Attributes:
      forced: int32 [C, F], right-aligned: padding comes first, so the last token is always real.
      forced_real: int32 [C, F], 1 for a real token, 0 for padding.
      allowed: int32 [C, A], ids allowed in the slot; unused places repeat the first.
      allowed_real: bool [C, A].
      values: float32 [C, A], the number each allowed token stands for.
      banned: bool [V], tokens that may not appear in the words before the block.
      end_of_words: int32 [], the token that ends the words (the blank line).
      closing: int32 [E], tokens after the last slot.
    """

    forced: Any
    forced_real: Any
    allowed: Any
    allowed_real: Any
    values: Any
    banned: Any
    end_of_words: Any
    closing: Any


def compile_program(schema: Schema, tokenizer: Tokenizer) -> SlotProgram:
    """Compiles a schema for a tokenizer.

    Raises:
      TokenizerError: a value takes several tokens, or the answer's canonical tokenisation does not
        split at the slots.
    """
    slots = len(schema.names)
    forced = [tokenizer.encode(schema.key(i)) for i in range(slots)]
    allowed = [[tokenizer.symbol(value) for value in schema.values(i)] for i in range(slots)]
    closing = [*tokenizer.encode("}"), tokenizer.symbol(IM_END)]
    _check_canonical(schema, tokenizer, forced, closing)
    width, choices = max(map(len, forced)), max(map(len, allowed))
    numbers = [[float(value) for value in schema.values(i)] for i in range(slots)]
    banned = np.zeros(len(tokenizer), bool)
    banned[[0, 1]] = True
    for text in (*CONTROL, *schema.symbols()):
        banned[tokenizer.symbol(text)] = True
    banned |= np.array(["{" in tokenizer.decode([i]) for i in range(len(tokenizer))])
    return SlotProgram(
        forced=np.array([[0] * (width - len(f)) + f for f in forced], np.int32),
        forced_real=np.array([[0] * (width - len(f)) + [1] * len(f) for f in forced], np.int32),
        allowed=np.array([a + [a[0]] * (choices - len(a)) for a in allowed], np.int32),
        allowed_real=np.array([[i < len(a) for i in range(choices)] for a in allowed]),
        values=np.array([n + [0.0] * (choices - len(n)) for n in numbers], np.float32),
        banned=banned,
        end_of_words=np.int32(tokenizer.symbol(BLANK_LINE)),
        closing=np.array(closing, np.int32),
    )


def _check_canonical(
    schema: Schema, tokenizer: Tokenizer, forced: list[list[int]], closing: list[int]
) -> None:
    """Re-tokenises whole answers and compares with the program's pieces."""
    for pick in (0, -1):
        text, expected = "", []
        for i in range(len(schema.names)):
            value = schema.values(i)[pick]
            text += schema.key(i) + value
            expected += [*forced[i], tokenizer.symbol(value)]
        if tokenizer.encode(text + "}" + IM_END) != expected + closing:
            raise TokenizerError("the tokenizer merges answer keys with values")
