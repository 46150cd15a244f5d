"""A schema compiled with a tokenizer: the grammar of an answer as a few arrays on the device.

For each slot, the forced tokens before it and the values that it may take. A value may take several
tokens; the values of a slot then form a tree, whose nodes are the prefixes after which they differ.
Slots whose values are spelt alike share one tree, here called their kind. A model driven by the
program cannot leave the grammar.

A block that repeats is one block of slots, used again and again. A further slot after its last,
the stop slot, holds the token that begins another block or the one that ends the array. What
precedes a block, and is fed with it, are the tokens from there on: a separator, or the opening.

Where the values come first, the block follows the prompt, and the rationale what closes the block.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from sf_jax.decode.arrays import HostOrDevice
from sf_jax.decode.schema import MEDIAN, MODE, Repeat, Schema
from sf_jax.sequence.tokenizer import BLANK_LINE, CONTROL, IM_END, Tokenizer, TokenizerError

MOST_BRANCHES = 1024  # tokens of one tree-masked pass
GO_ON, STOP = 0, 1  # the values of the stop slot
RATIONALE_PENDING = 2  # tokens of a rationale and its end that may have to be fed with a block


@struct.dataclass
class Branches:
    """The tokens that lead to every node of every slot, for passes over all of them (`tree.py`).

    G passes of E tokens each. The first token of a slot is its root: the last forced one.

    Attributes:
      tokens: token ids; slot: whose tree a token belongs to, C for padding.
      depth: tokens between it and its root.
      ancestors: itself and the tokens between it and its root, as indices; -1 for padding.
      node_at: the index in [G * E] of each node's last token.
    """

    tokens: Int[HostOrDevice, "G E"]
    slot: Int[HostOrDevice, "G E"]
    depth: Int[HostOrDevice, "G E"]
    ancestors: Int[HostOrDevice, "G E A"]
    node_at: Int[HostOrDevice, "C N"]


@struct.dataclass
class SlotProgram:
    """A compiled schema, of C slots of K kinds; where it repeats, the last is the stop slot.

    A slot has up to V values of up to W tokens. Up to N nodes, the first of them the slot's root,
    are the prefixes that some values share before they differ. U tokens in all are allowed at
    nodes. Lists of different lengths are padded with zeros.

    Attributes:
      forced: tokens before each slot; forced_length: how many.
      kind: of each slot.
      values: the numbers, ascending; valid: which of them exist.
      value_tokens: token ids of each value; value_length: how many.
      symbols: token ids, ascending.
      allowed: which of the symbols may follow a node.
      path: tokens from the root to each node; path_length: how many.
      step_node, step_symbol: the nodes a value passes, and the symbol it takes there; step_real.
      branches: for values of several tokens, else None.
      banned: tokens that may not appear in the rationale.
      ends: tokens that end the rationale.
      rationale_end: the blank line.
      opening: tokens before the first repeat, beyond what is forced in every repeat.
      separator: tokens after the one that goes on, before what is forced in every repeat.
      closing: tokens after the last slot: up to the end of the answer, or up to the rationale
        where that follows.
      block_ends_rationale: whether the tokens in `ends` begin the block, instead of preceding it.
      longest: tokens of the longest block, without what closes it.
      repeat: of the schema.
      values_first: whether the block precedes the rationale.
      estimate: of the schema.
    """

    forced: Int[HostOrDevice, "C F"]
    forced_length: Int[HostOrDevice, " C"]
    kind: Int[HostOrDevice, " C"]
    values: Float[HostOrDevice, "K V"]
    valid: Bool[HostOrDevice, "K V"]
    value_tokens: Int[HostOrDevice, "K V W"]
    value_length: Int[HostOrDevice, "K V"]
    symbols: Int[HostOrDevice, " U"]
    allowed: Bool[HostOrDevice, "K N U"]
    path: Int[HostOrDevice, "K N D"]
    path_length: Int[HostOrDevice, "K N"]
    step_node: Int[HostOrDevice, "K V S"]
    step_symbol: Int[HostOrDevice, "K V S"]
    step_real: Bool[HostOrDevice, "K V S"]
    branches: Branches | None
    banned: Bool[HostOrDevice, " A"]
    ends: Bool[HostOrDevice, " A"]
    rationale_end: Int[HostOrDevice, ""]
    opening: Int[HostOrDevice, " O"]
    separator: Int[HostOrDevice, " J"]
    closing: Int[HostOrDevice, " E"]
    block_ends_rationale: bool = struct.field(pytree_node=False)
    longest: int = struct.field(pytree_node=False)
    repeat: Repeat | None = struct.field(pytree_node=False, default=None)
    values_first: bool = struct.field(pytree_node=False, default=False)
    estimate: str = struct.field(pytree_node=False, default=MODE)

    @property
    def named(self) -> int:
        """How many slots hold numbers: those of the schema's names."""
        return len(self.kind) - (self.repeat is not None)

    @property
    def pending_size(self) -> int:
        """The most tokens that may have to be fed with a block although they precede it."""
        return max(RATIONALE_PENDING + len(self.opening), 1 + len(self.separator))

    @property
    def value_symbols(self) -> np.ndarray:
        """int32 [C, V], the token of each value; where a slot has fewer values, 0.

        Raises:
          TokenizerError: a value takes several tokens.
        """
        if self.value_tokens.shape[-1] != 1:
            raise TokenizerError("values take several tokens; training needs a symbol for each")
        return np.asarray(self.value_tokens)[self.kind][..., 0]

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
        """Token ids of the block with the given values [≤ C], without what closes it.

        Of a block that repeats, values [R, C] of the named slots give all its repeats and the
        token that ends them; values [≤ C] give as much of the first.
        """
        choices = np.asarray(choices)
        if choices.ndim == 1:
            return self.opening.tolist() + self._block(choices)
        ids = self.opening.tolist()
        for number, row in enumerate(choices):
            last = number == len(choices) - 1
            ids += self._block(np.append(row, STOP if last else GO_ON))
            ids += [] if last else self.separator.tolist()
        return ids

    def _block(self, choices: np.ndarray) -> list[int]:
        ids: list[int] = []
        for slot, choice in enumerate(choices):
            kind = self.kind[slot]
            value = self.value_tokens[kind, choice, : self.value_length[kind, choice]]
            ids += self.before(slot) + value.tolist()
        return ids

    def at_repeat(self, last: Bool[Array, ""]) -> "SlotProgram":
        """The program of one repeat, with what its stop slot allows; a single block is as it is.

        Below a bound the model goes on or stops, at the bound it stops; without a bound it goes
        on, and stops at the `last` repeat asked for.
        """
        if self.repeat is None:
            return self
        kind, without_end = self.kind[-1], self.repeat.most is None
        both = jnp.stack([~last, last | (not without_end)])
        allowed = jnp.asarray(self.allowed)
        symbols = self.step_symbol[kind, : len(both), 0]
        allowed = allowed.at[kind, 0, symbols].set(both)
        valid = jnp.asarray(self.valid).at[kind, : len(both)].set(both)
        return replace(self, allowed=allowed, valid=valid)

    def allowed_drafts(self, choices: Int[Array, "B C"]) -> Int[Array, "B C"]:
        """Drafts with what the stop slot allows: the only value that it has, else going on."""
        if self.repeat is None:
            return choices
        return choices.at[:, -1].set(jnp.argmax(self.valid[self.kind[-1]]))

    def nearest(self, numbers: np.ndarray) -> np.ndarray:
        """int32 [..., C], the value of each named slot that is nearest to a number [..., C]."""
        kind = np.asarray(self.kind)[: self.named]
        distance = np.abs(np.asarray(self.values)[kind] - np.asarray(numbers)[..., None])
        return np.where(np.asarray(self.valid)[kind], distance, np.inf).argmin(-1).astype(np.int32)


@dataclass(frozen=True)
class _Slot:
    """One slot before padding: `paths` are the values' tokens."""

    forced: list[int]
    paths: tuple[tuple[int, ...], ...]
    numbers: tuple[float, ...]
    following: list[int]

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
    """Tokens before, in and after a slot, given its surroundings with each value in turn."""
    shortest = min(map(len, windows))
    first = next((i for i in range(shortest) if len({w[i] for w in windows}) > 1), shortest)
    last = next((i for i in range(1, shortest - first + 1) if len({w[-i] for w in windows}) > 1), 0)
    if len(windows) == 1:  # nothing differs: the whole is forced up to the value's last token
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


def _rationale_tokens(
    schema: Schema, tokenizer: Tokenizer, opening: int, vocabulary: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which tokens may not be in the rationale, and which end it; `opening` begins the block."""
    texts = tokenizer.token_texts()
    banned = np.ones(vocabulary, bool)  # models may have more rows than the tokenizer has tokens
    banned[: len(texts)] = ["{" in text for text in texts]
    banned[tokenizer.reserved()] = True
    for text in (*CONTROL, *schema.symbols()):
        ids = tokenizer.encode(text)
        if len(ids) == 1:
            banned[ids] = True
    ends = np.zeros(vocabulary, bool)
    if schema.values_first:
        ends[tokenizer.symbol(IM_END)] = True
        banned[tokenizer.symbol(BLANK_LINE)] |= not schema.paragraphs
    else:
        ends[opening if schema.paragraphs else tokenizer.symbol(BLANK_LINE)] = True
    return banned, ends


def _after_values(schema: Schema) -> str:
    """The text after the last value, up to the end of the answer or to the rationale."""
    if schema.values_first:
        return schema.closing + BLANK_LINE
    return schema.closing + (schema.repeat.ending if schema.repeat else "") + IM_END


@dataclass(frozen=True)
class _Grammar:
    """The slots of a block, and the tokens around it; see `SlotProgram`."""

    slots: list[_Slot]
    closing: list[int]
    opening: list[int]
    separator: list[int]


def _grammar(schema: Schema, tokenizer: Tokenizer) -> _Grammar:
    """Tokenises every slot with each value, between the keys around it."""
    count = len(schema.names)
    opening = schema.repeat.opening if schema.repeat else ""
    ending = _after_values(schema)
    slots = []
    for i, name in enumerate(schema.names):
        key = schema.key(i) if i else opening + schema.key(0)
        following = schema.key(i + 1) if i + 1 < count else ending
        values = schema.values(i)
        windows = [tokenizer.encode(key + value + following) for value in values]
        slots.append(_split(windows, values, name))
    if schema.repeat is None:
        return _Grammar(slots, slots[-1].following, [], [])
    return _repeated(schema, tokenizer, slots)


def _repeated(schema: Schema, tokenizer: Tokenizer, slots: list[_Slot]) -> _Grammar:
    """Finds the tokens between two repeats, and what separates going on from stopping.

    The forced tokens of the first slot become those that its first and its later occurrences
    share; what precedes these is the opening or the separator.
    """
    between, ending = _between(schema, tokenizer, slots), slots[-1].following
    both = zip(between, ending, strict=False)
    at = next((i for i, (a, b) in enumerate(both) if a != b), -1)
    if at < 0:
        raise TokenizerError("a separator between repeats begins with their ending")
    paths = ((between[at],), (ending[at],))
    stop = _Slot(between[:at], paths, (float(GO_ON), float(STOP)), ending[at + 1 :])
    between = between[at + 1 :]
    first, shared = slots[0].forced, 0
    while shared < min(len(first), len(between)) and first[-1 - shared] == between[-1 - shared]:
        shared += 1
    if not shared:
        raise TokenizerError("the tokenizer merges the separator with the first key")
    begin = replace(slots[0], forced=first[-shared:])
    return _Grammar([begin, *slots[1:], stop], stop.following, first[:-shared], between[:-shared])


def _between(schema: Schema, tokenizer: Tokenizer, slots: list[_Slot]) -> list[int]:
    """The tokens after the last value of a repeat and before the first value of the next."""
    assert schema.repeat is not None
    last = len(schema.names) - 1
    values, first_values = schema.values(last), schema.values(0)
    between = schema.closing + schema.repeat.separator + schema.key(0)
    after = schema.key(1) if last else schema.closing + schema.repeat.ending + IM_END

    def encoded(value: str, first: str) -> list[int]:
        return tokenizer.encode(schema.key(last) + value + between + first + after)

    ends = _split([encoded(v, first_values[0]) for v in values], values, schema.names[last])
    begins = _split([encoded(values[0], v) for v in first_values], first_values, schema.names[0])
    if ends.paths != slots[last].paths or begins.paths != slots[0].paths:
        raise TokenizerError("the tokenizer merges values with the text between repeats")
    return begins.forced[len(ends.forced) + len(ends.paths[0]) :]


def compile_program(
    schema: Schema, tokenizer: Tokenizer, vocabulary: int | None = None
) -> SlotProgram:
    """Compiles a schema for a tokenizer.

    Args:
      vocabulary: rows of the model's embedding; None means as many as the tokenizer has tokens.

    Raises:
      TokenizerError: the answer's canonical tokenisation does not split at the slots, or a median
        is to be taken of values of several tokens.
    """
    grammar = _grammar(schema, tokenizer)
    slots = grammar.slots
    alike = {(slot.paths, slot.numbers): slot for slot in slots}
    kind = [list(alike).index((slot.paths, slot.numbers)) for slot in slots]
    kinds = _kinds(list(alike.values()))
    if schema.estimate == MEDIAN and kinds["value_tokens"].shape[-1] > 1:
        raise TokenizerError("a median needs values of one token each; this tokenizer splits them")
    forced, forced_length = _padded([slot.forced for slot in slots])
    first = (grammar.opening or slots[0].forced)[0]
    banned, ends = _rationale_tokens(schema, tokenizer, first, vocabulary or len(tokenizer))
    program = SlotProgram(
        forced=forced,
        forced_length=forced_length,
        kind=np.array(kind, np.int32),
        **kinds,
        branches=_branches(slots) if kinds["value_tokens"].shape[-1] > 1 else None,
        banned=banned,
        ends=ends,
        rationale_end=np.int32(tokenizer.symbol(BLANK_LINE)),
        opening=np.array(grammar.opening, np.int32),
        separator=np.array(grammar.separator, np.int32),
        closing=np.array(grammar.closing, np.int32),
        block_ends_rationale=schema.paragraphs and not schema.values_first,
        longest=int(sum(len(s.forced) + max(map(len, s.paths)) for s in slots)),
        repeat=schema.repeat,
        values_first=schema.values_first,
        estimate=schema.estimate,
    )
    _check_canonical(schema, tokenizer, program)
    return program


def _kinds(kinds: list[_Slot]) -> dict[str, np.ndarray]:
    """The fields of `SlotProgram` that hold the values and trees of every kind."""
    trees = [slot.nodes() for slot in kinds]
    steps = [slot.steps() for slot in kinds]
    symbols = sorted({token for tree in trees for tokens in tree.values() for token in tokens})
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
    return {
        "values": numbers,
        "valid": valid,
        "value_tokens": value_tokens,
        "value_length": value_length,
        "symbols": np.array(symbols, np.int32),
        "allowed": allowed,
        "path": path,
        "path_length": path_length,
        "step_node": step_node,
        "step_symbol": step_symbol,
        "step_real": np.arange(step_node.shape[-1]) < step_count[..., None],
    }


def _branches(slots: list[_Slot]) -> Branches:
    """Whole slots in order, as many in each pass as fit; what does not fit one has it alone.

    Before the stop slot nothing may be forced; the scores of its root are known otherwise.
    """
    passes: list[list[tuple[int, int, int, list[int]]]] = [[]]  # token, slot, depth, ancestors
    node_at: list[list[tuple[int, int]]] = []  # pass and token of each node
    for number, slot in enumerate(slots):
        paths = sorted({node[:i] for node in slot.nodes() for i in range(len(node) + 1)}, key=len)
        if passes[-1] and len(passes[-1]) + len(paths) > MOST_BRANCHES:
            passes.append([])
        at = {path: len(passes[-1]) + i for i, path in enumerate(paths)}
        for path in paths:
            token = (path or slot.forced or [0])[-1]
            ancestors = [at[path[:i]] for i in range(len(path) + 1)]
            passes[-1].append((token, number, len(path), ancestors))
        node_at.append([(len(passes) - 1, at[node]) for node in slot.nodes()])
    longest, deepest = max(map(len, passes)), max(len(e[3]) for p in passes for e in p)
    tokens = np.zeros((len(passes), longest), np.int32)
    slot_of, depth = np.full_like(tokens, len(slots)), np.zeros_like(tokens)
    ancestors_of = np.full((*tokens.shape, deepest), -1, np.int32)
    for g, entries in enumerate(passes):
        for e, (token, number, deep, ancestors) in enumerate(entries):
            tokens[g, e], slot_of[g, e], depth[g, e] = token, number, deep
            ancestors_of[g, e, : len(ancestors)] = ancestors
    indices, _ = _padded([[g * longest + e for g, e in slot] for slot in node_at])
    return Branches(tokens, slot_of, depth, ancestors_of, indices)


def _check_canonical(schema: Schema, tokenizer: Tokenizer, program: SlotProgram) -> None:
    """Tokenises whole answers and compares with the program's pieces."""
    generator = np.random.default_rng(0)
    counts = program.valid.sum(1)[program.kind][: program.named]
    extremes = np.array([[0] * len(counts), [n - 1 for n in counts]])
    drawn = np.concatenate([extremes, generator.integers(0, counts, (8, len(counts)))])
    whole = [*drawn] if schema.repeat is None else [drawn[:1], drawn[:2], drawn[2:5], drawn[5:]]
    for choices in whole:
        numbers = np.asarray(program.values)[program.kind[: program.named], choices]
        after = BLANK_LINE if schema.values_first else IM_END
        ids = tokenizer.encode(schema.format(numbers) + after)
        if ids != program.answer(choices) + program.closing.tolist():
            raise TokenizerError("the tokenizer merges answer keys with values")
