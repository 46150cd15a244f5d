"""The grammar of an answer as data: what text is fixed, and which values may stand in each slot.

A `Schema` describes the text: words, a blank line, then a flat JSON object of named numbers.
Compiled with a tokenizer it becomes a `SlotProgram`: for each slot the forced tokens before it and
the values that may stand in it. A value may take several tokens; the values of a slot then form a
tree, whose nodes are the places where they part. A model driven by the program cannot leave the
grammar.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
from flax import struct

from sf_jax.decode.tokenizer import BLANK_LINE, CONTROL, IM_END, Tokenizer, TokenizerError

MOST_NODES = 8  # of a slot: one pass each; a sign and one decimal take five where digits are tokens


@dataclass(frozen=True)
class Schema:
    """Named numbers in order.

    Attributes:
      names: the keys of the JSON object.
      low, high: the range of each, inclusive.
      decimals: digits after the point.
      paragraphs: whether the words may hold blank lines. They then end where the block begins, and
        else at their first blank line.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    decimals: int = 1
    paragraphs: bool = False

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
    """A compiled schema, of C slots.

    A slot has up to V values of up to W tokens. Up to N nodes, the first of them the slot's root,
    are the prefixes that some values share and then go on from in up to A different ways.

    Attributes:
      forced: int32 [C, F], tokens before the slot, right-aligned: padding comes first.
      forced_real: int32 [C, F], 1 for a real token, 0 for padding; so for all `_real` below.
      values: float32 [C, V], ascending; valid: bool [C, V].
      value_tokens, value_real: int32 [C, V, W], right-aligned.
      nodes: int32 [C], nodes in use.
      path, path_real: int32 [C, N, D], tokens from the root to each node, right-aligned.
      allowed: int32 [C, N, A], tokens allowed at a node; unused places repeat the first.
      allowed_real: bool [C, N, A].
      step_node, step_branch: int32 [C, V, S], the nodes a value passes and the places in `allowed`
        that it takes there; step_real: bool [C, V, S].
      banned: bool [vocabulary], tokens that may not appear in the words before the block.
      ends: bool [vocabulary], tokens that end the words.
      end_of_words: int32 [], the blank line.
      closing: int32 [E], tokens after the last slot.
      block_ends_words: whether the tokens in `ends` begin the block, instead of standing before it.
    """

    forced: Any
    forced_real: Any
    values: Any
    valid: Any
    value_tokens: Any
    value_real: Any
    nodes: Any
    path: Any
    path_real: Any
    allowed: Any
    allowed_real: Any
    step_node: Any
    step_branch: Any
    step_real: Any
    banned: Any
    ends: Any
    end_of_words: Any
    closing: Any
    block_ends_words: bool = struct.field(pytree_node=False)

    @property
    def value_symbols(self) -> np.ndarray:
        """int32 [C, V], the token of each value.

        Raises:
          TokenizerError: a value takes several tokens.
        """
        if self.value_tokens.shape[-1] != 1:
            raise TokenizerError("values take several tokens; training needs a symbol for each")
        return self.value_tokens[..., 0]

    def answer(self, choices: np.ndarray) -> list[int]:
        """Token ids of the block with the given values [C], without what closes it."""
        ids: list[int] = []
        for slot, choice in enumerate(choices):
            ids += self.forced[slot][self.forced_real[slot] == 1].tolist()
            ids += self.value_tokens[slot, choice][self.value_real[slot, choice] == 1].tolist()
        return ids


@dataclass(frozen=True)
class _Slot:
    """One slot before padding: `paths` are the values' tokens."""

    forced: list[int]
    paths: list[tuple[int, ...]]
    behind: list[int]

    def branches(self) -> dict[tuple[int, ...], list[int]]:
        """The nodes, root first, and the tokens allowed at each."""
        found: dict[tuple[int, ...], dict[int, None]] = {}
        for path in self.paths:
            for i, token in enumerate(path):
                found.setdefault(path[:i], {})[token] = None
        return {path: list(found[path]) for path in sorted(found, key=len) if len(found[path]) > 1}


def _split(windows: list[list[int]], name: str) -> _Slot:
    """Tokens before, in and behind a slot, given its surroundings with each value in turn."""
    shortest = min(map(len, windows))
    first = next((i for i in range(shortest) if len({w[i] for w in windows}) > 1), shortest)
    last = next((i for i in range(1, shortest - first + 1) if len({w[-i] for w in windows}) > 1), 0)
    if first == shortest or last < 2:
        raise TokenizerError(f"the tokenizer merges values of {name} with the text around them")
    paths = [tuple(w[first : len(w) + 1 - last]) for w in windows]
    slot = _Slot(windows[0][:first], paths, windows[0][len(windows[0]) + 1 - last :])
    if any(a != b and a == b[: len(a)] for a in paths for b in paths) or len(set(paths)) < len(
        paths
    ):
        raise TokenizerError(f"the tokens of one value of {name} begin those of another")
    return slot


def _padded(rows: list, shape: tuple[int, ...], right: bool = False) -> tuple[Any, Any]:
    """Nested lists of token lists → int32 array and its 0/1 mask of real tokens."""
    out, real = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for index in np.ndindex(shape[:-1]):
        row: Any = rows
        for i in index:
            row = row[i] if i < len(row) else []
        at = slice(shape[-1] - len(row), None) if right else slice(len(row))
        out[index][at], real[index][at] = row, 1
    return out, real


def _word_tokens(
    schema: Schema, tokenizer: Tokenizer, opening: int, vocabulary: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens may not stand in the words, and which end them."""
    texts = tokenizer.token_texts()
    banned = np.ones(vocabulary, bool)  # models may have more rows than the tokenizer has tokens
    banned[: len(texts)] = ["{" in text for text in texts]
    banned[tokenizer.reserved()] = True
    for text in (*CONTROL, *schema.symbols()):
        ids = tokenizer.encode(text)
        if len(ids) == 1:
            banned[ids] = True
    ends = np.zeros(vocabulary, bool)
    ends[opening if schema.paragraphs else tokenizer.symbol(BLANK_LINE)] = True
    return banned, ends


def compile_program(
    schema: Schema, tokenizer: Tokenizer, vocabulary: int | None = None
) -> SlotProgram:
    """Compiles a schema for a tokenizer.

    Args:
      vocabulary: rows of the model's embedding; None means as many as the tokenizer has tokens.

    Raises:
      TokenizerError: the answer's canonical tokenisation does not split at the slots, or values
        part at more places than a slot may have passes.
    """
    count = len(schema.names)
    slots = []
    for i, name in enumerate(schema.names):
        behind = schema.key(i + 1) if i + 1 < count else "}" + IM_END
        texts = [schema.key(i) + value + behind for value in schema.values(i)]
        slots.append(_split([tokenizer.encode(text) for text in texts], name))
    trees = [slot.branches() for slot in slots]
    for name, tree in zip(schema.names, trees, strict=True):
        if len(tree) > MOST_NODES:
            raise TokenizerError(
                f"values of {name} part at {len(tree)} places in this tokenizer, at most "
                f"{MOST_NODES} are possible; take fewer decimals"
            )
    steps = [
        [[(n, tree[p].index(path[len(p)])) for n, p in enumerate(tree) if path[: len(p)] == p
          and len(p) < len(path)] for path in slot.paths]
        for slot, tree in zip(slots, trees, strict=True)
    ]  # fmt: skip
    values = max(len(slot.paths) for slot in slots)
    nodes = max(map(len, trees))

    def widest(lists: Any) -> int:
        return max(map(len, lists))

    forced, forced_real = _padded(
        [slot.forced for slot in slots], (count, widest(s.forced for s in slots)), right=True
    )
    value_tokens, value_real = _padded(
        [slot.paths for slot in slots],
        (count, values, widest(path for slot in slots for path in slot.paths)), right=True,
    )  # fmt: skip
    path, path_real = _padded(
        [list(tree) for tree in trees],
        (count, nodes, widest(path for tree in trees for path in tree)), right=True,
    )  # fmt: skip
    choices = widest(tokens for tree in trees for tokens in tree.values())
    allowed, allowed_real = _padded([list(t.values()) for t in trees], (count, nodes, choices))
    allowed = np.where(allowed_real == 1, allowed, allowed[:, :, :1])
    shape = count, values, widest(step for slot in steps for step in slot)
    step_node, step_real = _padded([[[n for n, _ in v] for v in slot] for slot in steps], shape)
    step_branch, _ = _padded([[[b for _, b in v] for v in slot] for slot in steps], shape)
    numbers = [[float(value) for value in schema.values(i)] for i in range(count)]
    vocabulary = vocabulary or len(tokenizer)
    banned, ends = _word_tokens(schema, tokenizer, slots[0].forced[0], vocabulary)
    program = SlotProgram(
        forced=forced,
        forced_real=forced_real,
        values=np.array([n + [0.0] * (values - len(n)) for n in numbers], np.float32),
        valid=np.array([[i < len(n) for i in range(values)] for n in numbers]),
        value_tokens=value_tokens,
        value_real=value_real,
        nodes=np.array(list(map(len, trees)), np.int32),
        path=path,
        path_real=path_real,
        allowed=allowed,
        allowed_real=allowed_real == 1,
        step_node=step_node,
        step_branch=step_branch,
        step_real=step_real == 1,
        banned=banned,
        ends=ends,
        end_of_words=np.int32(tokenizer.symbol(BLANK_LINE)),
        closing=np.array(slots[-1].behind, np.int32),
        block_ends_words=schema.paragraphs,
    )
    _check_canonical(schema, tokenizer, program)
    return program


def _check_canonical(schema: Schema, tokenizer: Tokenizer, program: SlotProgram) -> None:
    """Re-tokenises whole answers and compares with the program's pieces."""
    generator = np.random.default_rng(0)
    counts = [len(schema.values(i)) for i in range(len(schema.names))]
    extremes = np.array([[0] * len(counts), [n - 1 for n in counts]])
    for choices in np.concatenate([extremes, generator.integers(0, counts, (8, len(counts)))]):
        texts = [schema.key(i) + schema.values(i)[c] for i, c in enumerate(choices)]
        ids = tokenizer.encode("".join(texts) + "}" + IM_END)
        if ids != program.answer(choices) + program.closing.tolist():
            raise TokenizerError("the tokenizer merges answer keys with values")
