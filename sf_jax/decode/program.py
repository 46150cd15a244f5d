"""A schema compiled with a tokenizer: the grammar of an answer as a few arrays on the device.

For each slot, the forced tokens before it and the values that may stand in it. A value may take
several tokens; the values of a slot then form a tree, whose nodes are the places where they part.
Slots whose values are spelt alike share one tree, here called their kind. A model driven by the
program cannot leave the grammar.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from flax import struct

from sf_jax.decode.schema import Schema
from sf_jax.sequence.tokenizer import BLANK_LINE, CONTROL, IM_END, Tokenizer, TokenizerError

MOST_BRANCHES = 1024  # tokens that one tree-masked pass looks at


@struct.dataclass
class Branches:
    """The tokens that lead to every node of every slot, for passes over all of them (`tree.py`).

    G passes of E tokens each. The first token of a slot is its root: the last forced one.

    Attributes:
      tokens: int32 [G, E]; slot: int32 [G, E], whose tree a token belongs to, C for padding.
      depth: int32 [G, E], tokens between it and its root.
      above: int32 [G, E, A], itself and the tokens between it and its root; -1 for padding.
      place: int32 [C, N], where in [G * E] each node's last token stands.
    """

    tokens: Any
    slot: Any
    depth: Any
    above: Any
    place: Any


@struct.dataclass
class SlotProgram:
    """A compiled schema, of C slots of K kinds.

    A slot has up to V values of up to W tokens. Up to N nodes, the first of them the slot's root,
    are the prefixes that some values share and then go on from in different ways. U tokens in all
    are allowed at nodes. Lists of different lengths are padded behind with zeros.

    Attributes:
      forced: int32 [C, F], tokens before each slot; forced_length: int32 [C].
      kind: int32 [C].
      values: float32 [K, V], ascending; valid: bool [K, V].
      value_tokens: int32 [K, V, W]; value_length: int32 [K, V].
      symbols: int32 [U], ascending.
      allowed: bool [K, N, U], which of them may follow a node.
      path: int32 [K, N, D], tokens from the root to each node; path_length: int32 [K, N].
      step_node, step_symbol: int32 [K, V, S], the nodes a value passes, and what it takes there;
        step_real: bool [K, V, S].
      branches: for values of several tokens, else None.
      banned: bool [vocabulary], tokens that may not appear in the words before the block.
      ends: bool [vocabulary], tokens that end the words.
      end_of_words: int32 [], the blank line.
      closing: int32 [E], tokens after the last slot.
      block_ends_words: whether the tokens in `ends` begin the block, instead of standing before it.
      longest: tokens of the longest block, without what closes it.
    """

    forced: Any
    forced_length: Any
    kind: Any
    values: Any
    valid: Any
    value_tokens: Any
    value_length: Any
    symbols: Any
    allowed: Any
    path: Any
    path_length: Any
    step_node: Any
    step_symbol: Any
    step_real: Any
    branches: Branches | None
    banned: Any
    ends: Any
    end_of_words: Any
    closing: Any
    block_ends_words: bool = struct.field(pytree_node=False)
    longest: int = struct.field(pytree_node=False)

    @property
    def value_symbols(self) -> np.ndarray:
        """int32 [C, V], the token of each value; where a slot has fewer values, 0.

        Raises:
          TokenizerError: a value takes several tokens.
        """
        if self.value_tokens.shape[-1] != 1:
            raise TokenizerError("values take several tokens; training needs a symbol for each")
        return self.value_tokens[self.kind][..., 0]

    def spelling(self, slot: int) -> list[list[int]]:
        """The tokens of each value of a slot."""
        kind = self.kind[slot]
        return [
            tokens[:length].tolist()
            for tokens, length, ok in zip(
                self.value_tokens[kind], self.value_length[kind], self.valid[kind], strict=True
            )
            if ok
        ]

    def before(self, slot: int) -> list[int]:
        """The forced tokens before a slot."""
        return self.forced[slot, : self.forced_length[slot]].tolist()

    def answer(self, choices: np.ndarray) -> list[int]:
        """Token ids of the block with the given values [≤ C], without what closes it."""
        ids: list[int] = []
        for slot, choice in enumerate(choices):
            kind = self.kind[slot]
            value = self.value_tokens[kind, choice, : self.value_length[kind, choice]]
            ids += self.before(slot) + value.tolist()
        return ids

    def nearest(self, numbers: np.ndarray) -> np.ndarray:
        """int32 [..., C], the value of each slot that lies nearest to a number [..., C]."""
        distance = np.abs(self.values[self.kind] - np.asarray(numbers)[..., None])
        return np.where(self.valid[self.kind], distance, np.inf).argmin(-1).astype(np.int32)


@dataclass(frozen=True)
class _Slot:
    """One slot before padding: `paths` are the values' tokens."""

    forced: list[int]
    paths: tuple[tuple[int, ...], ...]
    numbers: tuple[float, ...]
    behind: list[int]

    def nodes(self) -> dict[tuple[int, ...], list[int]]:
        """The nodes, root first, and the tokens allowed at each."""
        found: dict[tuple[int, ...], dict[int, None]] = {(): {}}
        for path in self.paths:
            for i, token in enumerate(path):
                found.setdefault(path[:i], {})[token] = None
        return {
            path: list(found[path])
            for path in sorted(found, key=len)
            if len(found[path]) > 1 or not path
        }

    def steps(self) -> list[list[tuple[int, int]]]:
        """For each value, the nodes it passes and the tokens it takes there."""
        nodes = list(self.nodes())
        return [
            [
                (n, path[len(node)])
                for n, node in enumerate(nodes)
                if path[: len(node)] == node and len(node) < len(path)
            ]
            for path in self.paths
        ]


def _split(windows: list[list[int]], values: list[str], name: str) -> _Slot:
    """Tokens before, in and behind a slot, given its surroundings with each value in turn."""
    shortest = min(map(len, windows))
    first = next((i for i in range(shortest) if len({w[i] for w in windows}) > 1), shortest)
    last = next((i for i in range(1, shortest - first + 1) if len({w[-i] for w in windows}) > 1), 0)
    if len(windows) == 1:  # nothing parts: the whole is forced up to the value's last token
        raise TokenizerError(f"{name} can only be {values[0]}; leave it out")
    if first == shortest or last < 2:
        raise TokenizerError(f"the tokenizer merges values of {name} with the text around them")
    paths = tuple(tuple(w[first : len(w) + 1 - last]) for w in windows)
    numbers = tuple(map(float, values))
    slot = _Slot(windows[0][:first], paths, numbers, windows[0][len(windows[0]) + 1 - last :])
    if any(a != b and a == b[: len(a)] for a in paths for b in paths) or len(set(paths)) < len(
        paths
    ):
        raise TokenizerError(f"the tokens of one value of {name} begin those of another")
    return slot


def _padded(rows: list, depth: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Lists nested `depth` deep around token lists → int32 array, and the lists' lengths."""

    def shape(level: list, remaining: int) -> tuple[int, ...]:
        if remaining < 0:
            return ()
        inner = [shape(item, remaining - 1) for item in level] or [(0,) * remaining]
        return (len(level), *map(max, zip(*inner, strict=True)))

    out = np.zeros(shape(rows, depth), np.int32)
    lengths = np.zeros(out.shape[:-1], np.int32)
    for index in np.ndindex(out.shape[:-1]):
        row: Any = rows
        for i in index:
            row = row[i] if i < len(row) else []
        out[index][: len(row)], lengths[index] = row, len(row)
    return out, lengths


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


def _slots(schema: Schema, tokenizer: Tokenizer) -> list[_Slot]:
    """Every slot's tokens, by tokenising it with each value, between the keys around it."""
    count = len(schema.names)
    slots = []
    for i, name in enumerate(schema.names):
        behind = schema.key(i + 1) if i + 1 < count else schema.closing + IM_END
        values = schema.values(i)
        windows = [tokenizer.encode(schema.key(i) + value + behind) for value in values]
        slots.append(_split(windows, values, name))
    return slots


def compile_program(
    schema: Schema, tokenizer: Tokenizer, vocabulary: int | None = None
) -> SlotProgram:
    """Compiles a schema for a tokenizer.

    Args:
      vocabulary: rows of the model's embedding; None means as many as the tokenizer has tokens.

    Raises:
      TokenizerError: the answer's canonical tokenisation does not split at the slots.
    """
    slots = _slots(schema, tokenizer)
    alike = {(slot.paths, slot.numbers): slot for slot in slots}
    kinds = list(alike.values())
    kind = [list(alike).index((slot.paths, slot.numbers)) for slot in slots]
    trees = [slot.nodes() for slot in kinds]
    steps = [slot.steps() for slot in kinds]
    symbols = sorted({token for tree in trees for tokens in tree.values() for token in tokens})
    forced, forced_length = _padded([slot.forced for slot in slots])
    value_tokens, value_length = _padded([list(slot.paths) for slot in kinds], 2)
    path, path_length = _padded([list(tree) for tree in trees], 2)
    step_node, step_count = _padded([[[n for n, _ in v] for v in slot] for slot in steps], 2)
    step_symbol, _ = _padded([[[symbols.index(t) for _, t in v] for v in s] for s in steps], 2)
    allowed = np.zeros((*path_length.shape, len(symbols)), bool)
    for k, tree in enumerate(trees):
        for n, tokens in enumerate(tree.values()):
            allowed[k, n, [symbols.index(token) for token in tokens]] = True
    valid = np.arange(value_length.shape[1]) < np.array([[len(k.paths)] for k in kinds])
    numbers = np.zeros(valid.shape, np.float32)
    numbers[valid] = [number for slot in kinds for number in slot.numbers]
    banned, ends = _word_tokens(schema, tokenizer, slots[0].forced[0], vocabulary or len(tokenizer))
    program = SlotProgram(
        forced=forced,
        forced_length=forced_length,
        kind=np.array(kind, np.int32),
        values=numbers,
        valid=valid,
        value_tokens=value_tokens,
        value_length=value_length,
        symbols=np.array(symbols, np.int32),
        allowed=allowed,
        path=path,
        path_length=path_length,
        step_node=step_node,
        step_symbol=step_symbol,
        step_real=np.arange(step_node.shape[-1]) < step_count[..., None],
        branches=_branches(slots) if value_tokens.shape[-1] > 1 else None,
        banned=banned,
        ends=ends,
        end_of_words=np.int32(tokenizer.symbol(BLANK_LINE)),
        closing=np.array(slots[-1].behind, np.int32),
        block_ends_words=schema.paragraphs,
        longest=int(sum(len(s.forced) + max(map(len, s.paths)) for s in slots)),
    )
    _check_canonical(schema, tokenizer, program)
    return program


def _branches(slots: list[_Slot]) -> Branches:
    """Whole slots in order, as many in each pass as fit; what does not fit one has it alone."""
    passes: list[list[tuple[int, int, int, list[int]]]] = [[]]  # token, slot, depth, above
    places: list[list[tuple[int, int]]] = []  # pass and token of each node
    for number, slot in enumerate(slots):
        paths = sorted({node[:i] for node in slot.nodes() for i in range(len(node) + 1)}, key=len)
        if passes[-1] and len(passes[-1]) + len(paths) > MOST_BRANCHES:
            passes.append([])
        at = {path: len(passes[-1]) + i for i, path in enumerate(paths)}
        for path in paths:
            token = path[-1] if path else slot.forced[-1]
            above = [at[path[:i]] for i in range(len(path) + 1)]
            passes[-1].append((token, number, len(path), above))
        places.append([(len(passes) - 1, at[node]) for node in slot.nodes()])
    longest, deepest = max(map(len, passes)), max(len(e[3]) for p in passes for e in p)
    tokens = np.zeros((len(passes), longest), np.int32)
    slot_of, depth = np.full_like(tokens, len(slots)), np.zeros_like(tokens)
    above_of = np.full((*tokens.shape, deepest), -1, np.int32)
    for g, entries in enumerate(passes):
        for e, (token, number, deep, above) in enumerate(entries):
            tokens[g, e], slot_of[g, e], depth[g, e] = token, number, deep
            above_of[g, e, : len(above)] = above
    place, _ = _padded([[g * longest + e for g, e in slot] for slot in places])
    return Branches(tokens, slot_of, depth, above_of, place)


def _check_canonical(schema: Schema, tokenizer: Tokenizer, program: SlotProgram) -> None:
    """Re-tokenises whole answers and compares with the program's pieces."""
    generator = np.random.default_rng(0)
    counts = program.valid.sum(1)[program.kind]
    extremes = np.array([[0] * len(counts), [n - 1 for n in counts]])
    for choices in np.concatenate([extremes, generator.integers(0, counts, (8, len(counts)))]):
        texts = [schema.key(i) + schema.values(i)[c] for i, c in enumerate(choices)]
        ids = tokenizer.encode("".join(texts) + schema.closing + IM_END)
        if ids != program.answer(choices) + program.closing.tolist():
            raise TokenizerError("the tokenizer merges answer keys with values")
