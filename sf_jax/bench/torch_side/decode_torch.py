"""Run by a Python that has torch and transformers: times their ways of giving our answers.

    python sf_jax/bench/torch_side/decode_torch.py FOLDER [--modes MODE ...]

FOLDER holds `job.json` and `job.npz` as `bench_decode.write_job` makes them: the checkpoint, the
grammar as tokens and as text, and for each image the prompt, the pixels and our own answer.
Prints a line of JSON: for each mode its seconds an answer, and how its answers compare with ours.

A mode is a task, a constraint and a kind of cache. Tasks: `answer`, from prompt to end; `block`,
the values alone, after the rationale where that comes first; `prefill`, one token after what
precedes the block. Each generates as many tokens as our answer has, and stops at nothing else, but
where a grammar ends with the token that ends an answer, as it does where the values come first;
only `whole` goes on until the grammar ends. Constraints: none; our automaton; the engines with our
grammar by token ids, or by its text, where other tokens than ours may spell it. Imports neither jax
nor this package.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

Trie = list[dict[int, int]]  # of each state: token → next state
MOST_TOKENS = 1500  # of an answer in other tokens than ours

MODES = {
    "plain": ("answer", "plain", "static"),
    "plain, dynamic": ("answer", "plain", "dynamic"),
    "plain, compiled": ("answer", "plain", "compiled"),
    "dfa": ("answer", "dfa", "static"),
    "llguidance": ("answer", "llguidance", "static"),
    "xgrammar": ("answer", "xgrammar", "static"),
    "llguidance bytes": ("answer", "llguidance_bytes", "static"),
    "xgrammar bytes": ("answer", "xgrammar_bytes", "static"),
    "llguidance bytes, to its end": ("whole", "llguidance_bytes", "dynamic"),
    "xgrammar bytes, to its end": ("whole", "xgrammar_bytes", "dynamic"),
    "block plain": ("block", "plain", "static"),
    "block plain, dynamic": ("block", "plain", "dynamic"),
    "block plain, compiled": ("block", "plain", "compiled"),
    "block dfa": ("block", "dfa", "static"),
    "prefill": ("prefill", "plain", "dynamic"),
}


def block_states(
    forced: list[list[int]], values: list[list[list[int]]], closing: Sequence[int] = ()
) -> Trie:
    """The block as an automaton that starts in state 0; its last state allows nothing.

    Args:
      forced: the tokens before each slot.
      values: the tokens of each value that may stand in it.
      closing: tokens after the last value, up to a rationale that follows.
    """
    states: Trie = [{}]
    at = 0
    for before, spelt in zip(forced, values, strict=True):
        for token in before:
            at = _go(states, at, token)
        ends = set()
        for value in spelt:
            here = at
            for token in value[:-1]:
                here = _go(states, here, token)
            ends.add((here, value[-1]))
        states.append({})
        at = len(states) - 1
        for here, token in ends:
            states[here][token] = at  # all values meet again
    for token in closing:
        at = _go(states, at, token)
    return states


def _go(states: Trie, at: int, token: int) -> int:
    """The state after a token, made if it is missing."""
    if token not in states[at]:
        states.append({})
        states[at][token] = len(states) - 1
    return states[at][token]


def next_tokens(generated: list[int], job: dict[str, Any], states: Trie) -> list[int] | None:
    """The tokens that may follow; None stands for any free token or an end of the rationale.

    A rationale ends at a token of `ends`, which is the blank line or, where it may hold blank
    lines, the block's first token; at the cap a blank line ends it. After the values, it ends at
    the token that ends the answer, which is all that may follow at the cap.
    """
    cap, ends = job["cap"], job["ends"]
    if job["values_first"]:
        return _values_first_tokens(generated, job, states)
    end = next((i for i, token in enumerate(generated[:cap]) if token in ends), None)
    if end is None and len(generated) <= cap:
        return None if len(generated) < cap else [job["rationale_end"]]
    opened = end is not None and job["block_ends_rationale"]
    begun = (cap if end is None else end) + (not opened)
    return _block_tokens(generated[begun:], states)


def _values_first_tokens(
    generated: list[int], job: dict[str, Any], states: Trie
) -> list[int] | None:
    at = begun = 0
    while begun < len(generated) and states[at]:
        at, begun = states[at][generated[begun]], begun + 1
    if states[at]:
        return list(states[at])
    rationale = generated[begun:]
    if any(token in job["ends"] for token in rationale):
        return []
    return None if len(rationale) < job["cap"] else job["ends"]


def _block_tokens(generated: list[int], states: Trie) -> list[int]:
    at = 0
    for token in generated:
        at = states[at][token]
    return list(states[at])


def token_grammar(job: dict[str, Any], free: Any, spell: Callable[[str], str]) -> tuple[str, str]:
    """The rules `word` and whole answer, for engines that know tokens by their ids.

    Where the values come first, the token that ends the answer is in neither: engines allow it
    wherever their grammar may end.

    Args:
      free: tokens that may stand in the rationale, or end it.
      spell: how the engine writes one of some tokens, given "7,8".
    """

    def one_of(tokens: list[int]) -> str:
        return spell(",".join(map(str, tokens)))

    slots = []
    for before, spelt in zip(job["forced"], job["values"], strict=True):
        slots += [one_of([token]) for token in before]
        spellings = [" ".join(one_of([token]) for token in value) for value in spelt]
        single = all(len(value) == 1 for value in spelt)
        slots.append(one_of([v[0] for v in spelt]) if single else "(" + " | ".join(spellings) + ")")
    word = one_of([token for token in free.tolist() if token not in job["ends"]])
    words = f"word{{0,{job['cap']}}}"
    if job["values_first"]:
        return word, " ".join([*slots, *(one_of([token]) for token in job["closing"]), words])
    return word, " ".join([words, one_of([job["rationale_end"]]), *slots])


def answer_regex(job: dict[str, Any]) -> str:
    """A whole answer as a regular expression of plain syntax: words up to their blank line, and the
    block; or the block, a blank line and words up to the end."""
    slots = (
        _escaped(key) + "(" + "|".join(map(_escaped, spelt)) + ")"
        for key, spelt in zip(job["keys"], job["value_texts"], strict=True)
    )
    block = "".join(slots) + r"\}"
    if job["values_first"]:
        words = r"[^{]*" if job["paragraphs"] else r"([^{\n]|\n[^{\n])*\n?"
        return block + r"\n\n" + words
    return r"([^{\n]|\n[^{\n])+\n\n" + block


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in "{}.-" else c for c in text)


def numbers(
    text: str, keys: list[str], values: list[list[str]], values_first: bool = False
) -> dict[str, float]:
    """The numbers in the block of an answer, whose closing brace may be missing at the end.

    Raises:
      ValueError: it is no rationale and JSON of exactly these keys and values, in order; or, with
        `values_first`, no such JSON, blank line and rationale.
    """
    if values_first:
        block, closed, rationale = text.partition("}\n\n")
        if not closed or "{" in rationale:
            raise ValueError("no block of values, blank line and rationale without braces")
    else:
        _, brace, rest = text.partition("{")  # which no rationale holds
        block = (brace + rest).removesuffix("}")
    block += "}"
    found = json.loads(block)
    spelt = json.loads(block, parse_float=str)
    names = [json.loads("{" + key.lstrip("{, ") + "0}") for key in keys]
    if list(found) != [name for entry in names for name in entry]:
        raise ValueError("other keys than the schema's")
    if any(v not in allowed for v, allowed in zip(spelt.values(), values, strict=True)):
        raise ValueError("a value that the schema lacks")
    return found


class Side:
    """A checkpoint in transformers and the job it is asked to do."""

    def __init__(self, folder: Path, threads: int | None = None):
        import torch
        from any_torchvision import import_torchvision

        import_torchvision()
        import transformers

        self.torch = torch
        self.job = json.loads((folder / "job.json").read_text())
        torch.set_num_threads(threads or self.job["threads"])
        kind = transformers.Qwen3VLForConditionalGeneration  # loads lazily, so it is named here
        checkpoint = self.job["checkpoint"]
        self.model = kind.from_pretrained(
            checkpoint, dtype=getattr(torch, self.job["dtype"]), attn_implementation="sdpa"
        ).eval()
        # Nothing stops an answer but its length, unless `generate` names a stop token.
        self.model.generation_config.eos_token_id = None
        self.values_first = self.job["values_first"]
        self.states = block_states(*(self.job[name] for name in ("forced", "values", "closing")))
        banned, ends = set(self.job["banned"]), set(self.job["ends"])
        self.vocabulary = self.model.config.text_config.vocab_size
        self.free = torch.tensor(
            [t for t in range(self.vocabulary) if t in ends or t not in banned]
        )
        self.tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_file=f"{checkpoint}/tokenizer.json", eos_token="<|im_end|>"
        )
        end = self.tokenizer.eos_token_id
        if self.values_first and ends != {end}:
            raise ValueError(f"{folder}/job.json: ends is {sorted(ends)}, expected {[end]}")
        with np.load(folder / "job.npz") as arrays:
            self.arrays = dict(arrays)

    def before(self, image: int, task: str) -> list[int]:
        """The tokens of our answer that a task is given: where it comes first, the rationale."""
        if self.values_first or task in ("answer", "whole"):
            return []
        return self.job["answers"][image]["rationale"]

    def given(self, image: int, task: str) -> dict[str, Any]:
        """Inputs of `generate`: the image, the prompt and what the task is given of our answer."""
        torch = self.torch
        ids = self.arrays[f"input_ids_{image}"].tolist() + self.before(image, task)
        input_ids = torch.tensor([ids])
        return {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "mm_token_type_ids": (input_ids == self.model.config.image_token_id).int(),
            "pixel_values": torch.tensor(self.arrays[f"pixel_values_{image}"]),
            "image_grid_thw": torch.tensor(self.arrays[f"image_grid_thw_{image}"]).long(),
        }

    def ours(self, image: int, task: str) -> list[int]:
        """The tokens of our answer that a task asks for."""
        rationale, block = (self.job["answers"][image][name] for name in ("rationale", "block"))
        if task == "prefill":
            return block[:1]
        if task == "block":
            return block
        return block + rationale if self.values_first else rationale + block

    def generate(self, image: int, mode: str, **more: Any) -> tuple[float, list[int], Any]:
        """Seconds, tokens and what `generate` returned, of one answer in one mode."""
        task, constraint, cache = MODES[mode]
        given = self.given(image, task)
        prompt, length = given["input_ids"].shape[1], len(self.ours(image, task))
        options = CACHES[cache]() | more
        if task == "whole":
            length = MOST_TOKENS
        if task == "whole" or (task == "answer" and constraint != "plain" and self.values_first):
            options["eos_token_id"] = self.tokenizer.eos_token_id
        begin = time.perf_counter()
        options |= getattr(self, f"_{constraint}")(prompt, task)
        with self.torch.inference_mode():
            out = self.model.generate(
                **given, **options, do_sample=False, max_new_tokens=length, pad_token_id=0
            )
        seconds = time.perf_counter() - begin
        sequences = out if isinstance(out, self.torch.Tensor) else out.sequences
        return seconds, sequences[0, prompt:].tolist(), out

    def _plain(self, prompt: int, task: str) -> dict[str, Any]:
        return {}

    def _dfa(self, prompt: int, task: str) -> dict[str, Any]:
        def allowed(_: int, ids: Any) -> Any:
            generated = ids[prompt:].tolist()
            if task == "block":
                return _block_tokens(generated, self.states)
            found = next_tokens(generated, self.job, self.states)
            return self.free if found is None else found  # a tensor, made once: a list is slow

        return {"prefix_allowed_tokens_fn": allowed}

    def _llguidance(self, prompt: int, task: str) -> dict[str, Any]:
        return {"logits_processor": [self._llguidance_processor(prompt, "tokens")]}

    def _llguidance_bytes(self, prompt: int, task: str) -> dict[str, Any]:
        return {"logits_processor": [self._llguidance_processor(prompt, "bytes")]}

    def _llguidance_processor(self, prompt: int, kind: str) -> Callable[[Any, Any], Any]:
        import llguidance

        tokenizer, grammars = self._llguidance_grammars
        matcher = llguidance.LLMatcher(tokenizer, grammars[kind])
        mask = np.zeros((1, -(-self.vocabulary // 32)), np.int32)

        def process(ids: Any, scores: Any) -> Any:
            if ids.shape[1] > prompt and not matcher.consume_token(int(ids[0, -1])):
                raise ValueError(f"llguidance: {matcher.get_error()}")
            matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
            bits = np.unpackbits(mask.view(np.uint8), bitorder="little")[: self.vocabulary]
            return scores.masked_fill(self.torch.from_numpy(bits == 0), -np.inf)

        return process

    @cached_property
    def _llguidance_grammars(self) -> tuple[Any, dict[str, str]]:
        import llguidance
        import llguidance.hf

        tokenizer = llguidance.hf.from_tokenizer(self.tokenizer, n_vocab=self.vocabulary)
        word, block = token_grammar(self.job, self.free, "<[{}]>".format)
        made = llguidance.LLMatcher
        grammars = {
            "tokens": made.grammar_from_lark(f"start: {block}\nword: {word}\n"),
            "bytes": made.grammar_from_regex(answer_regex(self.job)),
        }
        for grammar in grammars.values():
            wrong = made.validate_grammar(grammar, tokenizer)
            if wrong:
                raise ValueError(f"llguidance: {wrong}")
        return tokenizer, grammars

    def _xgrammar(self, prompt: int, task: str) -> dict[str, Any]:
        from xgrammar.contrib.hf import LogitsProcessor

        return {"logits_processor": [LogitsProcessor(self._xgrammar_grammars["tokens"])]}

    def _xgrammar_bytes(self, prompt: int, task: str) -> dict[str, Any]:
        from xgrammar.contrib.hf import LogitsProcessor

        return {"logits_processor": [LogitsProcessor(self._xgrammar_grammars["bytes"])]}

    @cached_property
    def _xgrammar_grammars(self) -> dict[str, Any]:
        import xgrammar

        info = xgrammar.TokenizerInfo.from_huggingface(self.tokenizer, vocab_size=self.vocabulary)
        compiler = xgrammar.GrammarCompiler(info)
        word, block = token_grammar(self.job, self.free, "Token({})".format)
        return {
            "tokens": compiler.compile_grammar(f"root ::= {block}\nword ::= {word}\n"),
            "bytes": compiler.compile_regex(answer_regex(self.job)),
        }

    def text(self, ids: list[int]) -> str:
        if ids and ids[-1] == self.tokenizer.eos_token_id:
            ids = ids[:-1]
        return self.tokenizer.decode(
            ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )


def _compiled() -> dict[str, Any]:
    """A static cache and a compiled pass, which `generate` else leaves to accelerators."""
    from transformers.generation import CompileConfig

    config = CompileConfig(fullgraph=False, mode="default")
    config._compile_all_devices = True
    return {"cache_implementation": "static", "compile_config": config}


CACHES: dict[str, Callable[[], dict[str, Any]]] = {
    "static": lambda: {"cache_implementation": "static", "disable_compile": True},
    "dynamic": lambda: {},
    "compiled": _compiled,
}


def difference(side: Side, image: int, mode: str) -> dict[str, Any] | None:
    """Where an answer first leaves ours, and how near the two tokens were; None where it is ours.

    `gap` is the lead of their token over ours as a share of the largest logit: what rounding alone
    may decide is about 1e-6 in float32.
    """
    task = MODES[mode][0]
    more = {"return_dict_in_generate": True, "output_logits": True}
    _, generated, out = side.generate(image, mode, **more)
    # Theirs may be shorter; it then ends with the stop token, where ours has another.
    pairs = zip(generated, side.ours(image, task), strict=False)
    for position, (theirs, ours) in enumerate(pairs):
        if theirs != ours:
            logits = out.logits[position][0].float()
            gap = (logits[theirs] - logits[ours]) / logits.abs().max()
            return {
                "image": image,
                "position": position,
                "theirs": theirs,
                "ours": ours,
                "gap": float(gap),
            }
    return None


def is_valid(side: Side, image: int, generated: list[int], task: str) -> bool:
    """Whether an answer reads as rationale, blank line and JSON of the schema's keys and values, or
    as these in the other order; a block with what precedes or closes it."""
    ids = side.before(image, task) + generated + (side.job["closing"] if task == "block" else [])
    end = side.tokenizer.eos_token_id
    if end in ids[:-1] or (task == "whole" and ids[-1] != end):  # it goes on after its end, or on
        return False
    keys, values = side.job["keys"], side.job["value_texts"]
    try:
        numbers(side.text(ids), keys, values, side.values_first)
    except ValueError:
        return False
    return True


def measure(side: Side, modes: list[str], repeats: int) -> dict[str, Any]:
    """The least seconds of every mode on every image, of some rounds in which modes take turns.

    A round before them is not measured: the first and the longest answer, which needs the largest
    cache. What goes to its own end is recognised by its tokens, and measured once.
    """
    lengths = [len(side.ours(i, "answer")) for i in range(len(side.job["answers"]))]
    for image, mode in itertools.product(sorted({0, int(np.argmax(lengths))}), modes):
        side.generate(image, mode)
    found: dict[str, dict[str, Any]] = {
        mode: {"seconds": [np.inf] * len(lengths)} for mode in modes
    }
    generated: dict[str, list[list[int]]] = {mode: [[] for _ in lengths] for mode in modes}
    for again, image, mode in itertools.product(range(repeats), range(len(lengths)), modes):
        if again and MODES[mode][0] == "whole":
            continue
        seconds, generated[mode][image], _ = side.generate(image, mode)
        found[mode]["seconds"][image] = min(seconds, found[mode]["seconds"][image])
    for mode in modes:
        found[mode] |= {"tokens": list(map(len, generated[mode]))} | judge(
            side, mode, generated[mode]
        )
    return found


def judge(side: Side, mode: str, generated: list[list[int]]) -> dict[str, Any]:
    """How the answers of a mode compare with ours."""
    task, constraint, _ = MODES[mode]
    if task == "prefill":
        return {}
    ours = [side.ours(image, task) for image in range(len(generated))]
    same = [a == b for a, b in zip(generated, ours, strict=True)]
    found: dict[str, Any] = {
        "same ids": sum(same),
        "same text": sum(
            side.text(a) == side.text(b) for a, b in zip(generated, ours, strict=True)
        ),
        "valid": sum(is_valid(side, i, ids, task) for i, ids in enumerate(generated)),
        "of": len(generated),
    }
    if constraint == "dfa":
        found["differences"] = [difference(side, i, mode) for i, ok in enumerate(same) if not ok]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--modes", nargs="+", choices=MODES, help="default: those of the job")
    parser.add_argument("--repeats", type=int, default=3, help="of which the least counts")
    parser.add_argument("--threads", type=int, help="default: as the job says")
    options = parser.parse_args()
    side = Side(options.folder, options.threads)
    modes = options.modes or side.job["modes"]
    found = measure(side, modes, options.repeats)
    names = ("torch", "transformers", "llguidance", "xgrammar")
    installed = {d.metadata["Name"] for d in metadata.distributions()}
    versions = {name: metadata.version(name) for name in names if name in installed}
    print(json.dumps({"modes": found, "versions": versions}))


if __name__ == "__main__":
    main()
