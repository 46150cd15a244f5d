"""Run by a Python that has torch and transformers: times their ways of giving our answers.

    python sf_jax/bench/torch_side/decode_torch.py FOLDER [--modes MODE ...]

FOLDER holds `job.json` and `job.npz` as `bench_decode.write_job` makes them: the checkpoint, the
grammar as tokens and as text, and for each image the prompt, the pixels and our own answer.
Prints a line of JSON: for each mode its seconds an answer, and how its answers compare with ours.

A mode is a task, a constraint and a kind of cache. Tasks: `answer`, from prompt to end; `block`,
the rationale being given; `prefill`, the rationale being given and one token generated. Each
generates as many tokens as our answer has, and stops at nothing else; only `whole` goes on until
the grammar ends. Constraints: none; our automaton; the engines with our grammar by token ids, or by
its text, where other tokens than ours may spell it. Imports neither jax nor this package.
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable
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


def block_states(forced: list[list[int]], values: list[list[list[int]]]) -> Trie:
    """The block as an automaton that starts in state 0; its last state allows nothing.

    Args:
      forced: the tokens before each slot.
      values: the tokens of each value that may stand in it.
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
    lines, the block's first token; at the cap a blank line ends it.
    """
    cap, ends = job["cap"], job["ends"]
    end = next((i for i, token in enumerate(generated[:cap]) if token in ends), None)
    if end is None and len(generated) <= cap:
        return None if len(generated) < cap else [job["rationale_end"]]
    opened = end is not None and job["block_ends_rationale"]
    begun = (cap if end is None else end) + (not opened)
    return _block_tokens(generated[begun:], states)


def _block_tokens(generated: list[int], states: Trie) -> list[int]:
    at = 0
    for token in generated:
        at = states[at][token]
    return list(states[at])


def token_grammar(job: dict[str, Any], free: Any, spell: Callable[[str], str]) -> tuple[str, str]:
    """The rules `word` and whole answer, for engines that know tokens by their ids.

    Args:
      free: tokens that may stand in the rationale, or end it.
      spell: how the engine writes one of some tokens, given "7,8".
    """

    def one_of(tokens: list[int]) -> str:
        return spell(",".join(map(str, tokens)))

    slots = [one_of([job["rationale_end"]])]
    for before, spelt in zip(job["forced"], job["values"], strict=True):
        slots += [one_of([token]) for token in before]
        spellings = [" ".join(one_of([token]) for token in value) for value in spelt]
        single = all(len(value) == 1 for value in spelt)
        slots.append(one_of([v[0] for v in spelt]) if single else "(" + " | ".join(spellings) + ")")
    word = one_of([token for token in free.tolist() if token not in job["ends"]])
    return word, f"word{{0,{job['cap']}}} " + " ".join(slots)


def answer_regex(job: dict[str, Any]) -> str:
    """Words up to their blank line, and the block, as a regular expression of plain syntax."""
    slots = (
        _escaped(key) + "(" + "|".join(map(_escaped, spelt)) + ")"
        for key, spelt in zip(job["keys"], job["value_texts"], strict=True)
    )
    return r"([^{\n]|\n[^{\n])+\n\n" + "".join(slots) + r"\}"


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if c in "{}.-" else c for c in text)


def numbers(text: str, keys: list[str], values: list[list[str]]) -> dict[str, float]:
    """The numbers in the block of an answer whose closing brace may be missing.

    Raises:
      ValueError: it is no rationale and JSON of exactly these keys and values, in order.
    """
    _, brace, rest = text.partition("{")  # which no rationale holds
    block = (brace + rest).removesuffix("}") + "}"
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
        # Nothing stops an answer but its length, nor is there a stop token.
        self.model.generation_config.eos_token_id = None
        self.states = block_states(self.job["forced"], self.job["values"])
        banned, ends = set(self.job["banned"]), set(self.job["ends"])
        self.vocabulary = self.model.config.text_config.vocab_size
        self.free = torch.tensor(
            [t for t in range(self.vocabulary) if t in ends or t not in banned]
        )
        self.tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_file=f"{checkpoint}/tokenizer.json", eos_token="<|im_end|>"
        )
        with np.load(folder / "job.npz") as arrays:
            self.arrays = dict(arrays)

    def given(self, image: int, rationale: bool) -> dict[str, Any]:
        """Inputs of `generate`; with `rationale` it and its blank line are in the prompt."""
        torch, answer = self.torch, self.job["answers"][image]
        ids = self.arrays[f"input_ids_{image}"].tolist() + (
            answer["rationale"] if rationale else []
        )
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
        answer = self.job["answers"][image]
        if task == "prefill":
            return answer["block"][:1]
        return (answer["rationale"] if task in ("answer", "whole") else []) + answer["block"]

    def generate(self, image: int, mode: str, **more: Any) -> tuple[float, list[int], Any]:
        """Seconds, tokens and what `generate` returned, of one answer in one mode."""
        task, constraint, cache = MODES[mode]
        given = self.given(image, rationale=task in ("block", "prefill"))
        prompt, length = given["input_ids"].shape[1], len(self.ours(image, task))
        options = CACHES[cache]() | more
        if task == "whole":
            length, options["eos_token_id"] = MOST_TOKENS, self.tokenizer.eos_token_id
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
    for position, (theirs, ours) in enumerate(zip(generated, side.ours(image, task), strict=True)):
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
    """Whether an answer reads as rationale, blank line and JSON of the schema's keys and values."""
    rationale = side.job["answers"][image]["rationale"] if task == "block" else []
    try:
        numbers(side.text(rationale + generated), side.job["keys"], side.job["value_texts"])
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
