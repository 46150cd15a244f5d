"""The grammar as the other side of the benchmark follows it, against the slot program."""

import json
import re
import shutil
from argparse import Namespace
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from pytest import TempPathFactory

from sf_jax.bench import decode as bench_decode
from sf_jax.bench.torch_side import decode_torch as _decode_torch
from sf_jax.decode import decoder
from sf_jax.decode.program import SlotProgram, compile_program
from sf_jax.decode.reference import Automaton
from sf_jax.decode.schema import ORDERS, RATIONALE_FIRST, VALUES_FIRST
from sf_jax.model.config import Config
from sf_jax.reader import loading
from sf_jax.reader.estimator import Model
from sf_jax.reader.schema import channel_schema
from sf_jax.sequence.tokenizer import IM_END, JsonTokenizer, SentencePieceTokenizer
from sf_jax.systems.semanticface.qwen_like import make_tokenizer
from tests.convert.torch_python import run_torch
from tests.small import write_random_model

TIE = 1e-5  # of the largest logit, by which rounding may decide between two tokens
SCHEMA = channel_schema()

CAP = 6


@pytest.fixture(scope="module", params=ORDERS)
def order(request: pytest.FixtureRequest) -> str:
    """What an answer begins with."""
    return request.param


@pytest.fixture(scope="module", params=["symbols", "digits"])
def job(request: pytest.FixtureRequest, order: str, tmp_path_factory: TempPathFactory) -> dict:
    """Values of one token as the built-in model has them, or spelt digit by digit as Qwen does."""
    schema = replace(SCHEMA, order=order)
    if request.param == "symbols":
        tokenizer = SentencePieceTokenizer.load(loading.BUILTIN / "tokenizer.model")
    else:
        folder = tmp_path_factory.mktemp("digits")
        make_tokenizer(folder)
        tokenizer = JsonTokenizer.load(folder / "tokenizer.json")
        schema = replace(schema, paragraphs=True)
    program = compile_program(schema, tokenizer)
    return bench_decode.grammar(schema, program) | {
        "cap": CAP,
        "program": program,
        "tokenizer": tokenizer,
    }


def blocks(job: dict, count: int) -> list[list[int]]:
    """Random whole blocks."""
    generator = np.random.default_rng(0)
    program = job["program"]
    counts = program.valid.sum(1)[program.kind]
    return [program.answer(generator.integers(0, counts)) for _ in range(count)]


def expected(job: dict, made: list[int]) -> set[int]:
    """By the definition: tokens after which some spelling of the slots goes on."""
    for before, values in zip(job["forced"], job["values"], strict=True):
        if len(made) < len(before):
            assert made == before[: len(made)]
            return {before[len(made)]}
        made = made[len(before) :]
        if not any(made[: len(value)] == value for value in values):
            return {value[len(made)] for value in values if value[: len(made)] == made}
        made = made[next(len(value) for value in values if made[: len(value)] == value) :]
    return set()


def whole_answers(job: dict, block: list[int]) -> list[tuple[list[int], list[int], list[int]]]:
    """Answers of a block with rationales of three lengths, the last one cut by the cap: the tokens
    before the block, its own, and those after it."""
    free = np.flatnonzero(~job["program"].banned).tolist()
    words = [token for token in free if token not in job["ends"]][:CAP]
    found: list[tuple[list[int], list[int], list[int]]] = []
    for length in (0, 2, CAP):
        cut = length == CAP
        if job["values_first"]:
            after = job["closing"] + words[:length] + ([] if cut else job["ends"])
            found.append(([], block, after))
        else:
            blank = [] if job["block_ends_rationale"] and not cut else [job["rationale_end"]]
            found.append((words[:length] + blank, block, []))
    return found


def test_every_prefix_of_an_answer_goes_on_as_the_program_says(job: dict) -> None:
    states = _decode_torch.block_states(job["forced"], job["values"], job["closing"])
    for block in blocks(job, 4):
        for before, _, after in whole_answers(job, block):
            answer, automaton = before + block + after, Automaton(job["program"], CAP)
            for at in range(len(answer) + 1):
                found = _decode_torch.next_tokens(answer[:at], job, states)
                begun, own = at - len(before), automaton.allowed()
                if job["values_first"] and at == len(block + job["closing"]) + CAP:
                    assert found == job["ends"] and own == []  # the answer is complete without it
                else:
                    assert own == found if found is None else own == sorted(found)
                if 0 <= begun < len(block) and (begun or not job["block_ends_rationale"]):
                    assert found is not None and len(set(found)) == len(found)
                    assert set(found) == expected(job, block[:begun])
                if at < len(answer):
                    automaton.take(answer[at])


def test_engines_are_given_the_same_grammar(job: dict) -> None:
    """Its rules by token ids, read as a regular expression over these."""

    def spell(ids: str) -> str:
        return "(" + "|".join(f"<{token}>" for token in ids.split(",")) + ")"

    free = np.flatnonzero(job["program"].ends | ~job["program"].banned)
    word, rule = _decode_torch.token_grammar(job, free, spell)
    pattern = re.compile(rule.replace("word", word).replace(" ", ""))

    def matches(*parts: list[int]) -> bool:
        return bool(pattern.fullmatch("".join(f"<{token}>" for part in parts for token in part)))

    for block in blocks(job, 3):
        for before, _, after in whole_answers(job, block):
            if job["block_ends_rationale"] and job["rationale_end"] not in before:
                before = [*before, job["rationale_end"]]  # engines are given this form alone
            if job["values_first"] and after[-1:] == job["ends"]:
                after = after[:-1]  # engines add it where a grammar may end
            assert matches(before, block, after)
            assert not matches(before, block[:1], block[2:], after)
            assert not matches(after, block, before)
    one = [next(token for token in free.tolist() if token not in job["ends"])]
    for count in (CAP, CAP + 1):
        parts = one * count, [job["rationale_end"]], block
        parts = (block, job["closing"], one * count) if job["values_first"] else parts
        assert matches(*parts) == (count == CAP)


def test_the_grammar_by_its_text_is_that_of_answers(job: dict) -> None:
    pattern = re.compile(_decode_torch.answer_regex(job))
    text = job["tokenizer"].decode(blocks(job, 1)[0]) + "}"
    words = "a line\nand another"
    first, last = f"{text}\n\n{words}", f"{words}\n\n{text}"
    right, wrong = (first, last) if job["values_first"] else (last, first)
    assert pattern.fullmatch(right)
    for other in (wrong, text, words, right.replace("0.", "0.0", 1), right.replace("line", "{")):
        assert not pattern.fullmatch(other)
    if job["values_first"]:
        assert pattern.fullmatch(f"{text}\n\n")  # a rationale may be empty
        assert bool(pattern.fullmatch(f"{right}\n\nmore")) == job["paragraphs"]


def test_the_automaton_is_no_larger_than_the_spellings(job: dict) -> None:
    states = _decode_torch.block_states(job["forced"], job["values"], job["closing"])
    tokens = sum(map(len, job["forced"])) + len(job["closing"])
    tokens += sum(len(value) for values in job["values"] for value in values)
    assert len(states) <= 1 + tokens + len(job["forced"])
    assert sum(not state for state in states) == 1  # the end alone


@pytest.mark.parametrize("values_first", [False, True])
def test_answers_are_judged(values_first: bool) -> None:
    keys, values = ['{"A": ', ', "B": '], [["0.0", "0.1"], ["-0.1", "0.0"]]

    def read(block: str) -> dict:
        text = f"{block}\n\nwords" if values_first else f"words\n\n{block}"
        return _decode_torch.numbers(text, keys, values, values_first)

    assert read('{"A": 0.1, "B": -0.1}') == {"A": 0.1, "B": -0.1}
    for wrong in (
        "",
        '{"A": 0.1',
        '{"B": 0.0, "A": 0.1}',
        '{"A": 0.10, "B": 0.0}',
        '{"A": 0.2, "B": 0.0}',
        '{"A": 0.1, "B": 0.0, "C": 0.0}',
        '{"A": 0.1, "B": 0.0}{',
    ):
        with pytest.raises(ValueError):
            read(wrong)


def test_what_an_answer_lacks_at_its_end_is_its_brace() -> None:
    keys, values, block = ['{"A": '], [["0.0", "0.1"]], '{"A": 0.1'
    assert _decode_torch.numbers(f"words\n\n{block}", keys, values) == {"A": 0.1}
    for wrong in (block, block + "}", block + "}\nwords", f"words\n\n{block}}}"):
        with pytest.raises(ValueError):
            _decode_torch.numbers(wrong, keys, values, True)


@pytest.mark.parametrize(
    ("ids", "task", "valid"),
    [
        ([1, 2, 3, 0], "answer", True),
        ([1, 2, 3, 0], "whole", True),
        ([1, 2, 3], "answer", True),  # cut by the cap
        ([1, 2, 3], "whole", False),  # at the most tokens, without its end
        ([1, 2, 0, 3], "answer", False),  # on after its end
        ([1, 3], "answer", False),
        ([3, 2, 1], "answer", False),
        ([1], "block", True),
        ([3], "block", False),
    ],
)
def test_an_answer_whose_values_come_first_is_valid_to_its_end(
    ids: list[int], task: str, valid: bool
) -> None:
    texts = ["", '{"A": 0.1', "}\n\n", "word"]  # the first is the stop token
    side: Any = SimpleNamespace(
        job={"keys": ['{"A": '], "value_texts": [["0.0", "0.1"]], "closing": [2]},
        values_first=True,
        tokenizer=SimpleNamespace(eos_token_id=0),
        before=lambda image, task: [],
        text=lambda ids: "".join(texts[i] for i in ids),
    )
    assert _decode_torch.is_valid(side, 0, ids, task) == valid


def test_the_job_holds_what_the_model_reads_and_says(tmp_path: Path, order: str) -> None:
    model = loading.load()  # which reads framed faces
    if order == RATIONALE_FIRST:  # and one that reads whole images
        schema = replace(model.schema, order=order)
        inputs = model.config, model.weights, model.tokenizer, model.processor
        model = Model(*inputs, None, schema, instructed=False)
    given = bench_decode.faces(2)[1]  # the finder finds none in the first
    images = [bench_decode.shown(model, given)]
    assert (images[0] is given) == (order == RATIONALE_FIRST)
    answers = [bench_decode.answer(model, images[0], 120)]
    bench_decode.write_job(tmp_path, model, loading.BUILTIN, images, answers, 120, ["plain"])
    job = json.loads((tmp_path / "job.json").read_text())
    ids = np.load(tmp_path / "job.npz")["input_ids_0"]
    rows, _ = model.inputs(images)
    assert ids.tolist() == rows.input_ids[0][rows.segments[0] == 1].tolist()
    rationale, block = (job["answers"][0][name] for name in ("rationale", "block"))
    whole = block + rationale if job["values_first"] else rationale + block
    text = model.tokenizer.decode(whole)
    if order == RATIONALE_FIRST:  # where `predict` leaves out what is degenerate
        (made,) = model.actions(jax.device_get(model.generate(rows, max_rationale=120)), True)
        assert text + "}" == made.text
    else:
        read = model.predict(given)
        assert read.face and text == (read.uncorrected or read).text + IM_END
        timed = bench_decode.our_calls(model, 120)["drafted"](images[0])
        assert timed.face is None and text == timed.text + IM_END  # the face is not found once more
    states = _decode_torch.block_states(job["forced"], job["values"], job["closing"])
    assert _decode_torch.next_tokens(whole, job, states) == []


# The other side on some jobs, with the engines that its Python has.
MEASURED = """
import importlib.util, json, pathlib, sys
import decode_torch
modes = ["plain", "dfa", "block dfa", "block plain, dynamic", "prefill"]
for engine in ("llguidance", "xgrammar"):
    modes += [engine, f"{engine} bytes"] if importlib.util.find_spec(engine) else []
sides = [decode_torch.Side(pathlib.Path(folder), 1) for folder in sys.argv[1:]]
print(json.dumps([decode_torch.measure(side, modes, 1) for side in sides]))
"""
READ = ("JawOpen", "MouthSmileLeft", "MouthSmileRight", "HeadYaw")
IMAGES = 4


def few_words(*arguments: Any) -> SlotProgram:
    """A program with three tokens for rationales, so that random weights end some of them."""
    program = compile_program(*arguments)
    free = np.flatnonzero(~program.banned & ~program.ends)
    banned = program.banned.copy()
    banned[free[3:]] = True
    return replace(program, banned=banned)


def our_side(folder: Path, shape: Config, order: str) -> dict[str, Any]:
    """Writes a tiny model and its job to a folder, and returns what our side measured."""
    model, job = folder / "model", folder / "job"
    model.mkdir()
    job.mkdir()
    write_random_model(model, shape, replace(channel_schema(READ), order=order))
    options = Namespace(rationale_tokens=CAP, dtype="float32", images=IMAGES, repeats=1)
    options.ours = ["prefill", "drafted", "block drafted"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder, "compile_program", few_words)
        patch.setattr(decoder, "is_degenerate", lambda *_, **__: False)  # else read once more
        return bench_decode.ours(job, model, options, engines=False)["modes"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: TempPathFactory, tiny_config: Config) -> dict[str, dict[str, Any]]:
    """Of each order the job, what either side measured, and theirs where an answer is not ours."""
    found: dict[str, dict[str, Any]] = {}
    folders: list[str] = []
    for order in ORDERS:
        folder = tmp_path_factory.mktemp(order)
        mine = our_side(folder, tiny_config, order)
        job = json.loads((folder / "job" / "job.json").read_text())
        found[order] = {"job": job, "ours": mine}
        other = folder / "other"
        shutil.copytree(folder / "job", other)
        changed = deepcopy(job)
        first, slot = len(job["forced"][0]), changed["answers"][0]["block"]
        slot[first] = next(v[0] for v in job["values"][0] if v[0] != slot[first])
        (other / "job.json").write_text(json.dumps(changed))
        folders += [str(folder / "job"), str(other)]
    script = tmp_path_factory.mktemp("script") / "measured.py"
    script.write_text(MEASURED)
    measured = json.loads(run_torch(script, *folders).splitlines()[-1])
    for order, theirs, other in zip(ORDERS, measured[::2], measured[1::2], strict=True):
        found[order] |= {"theirs": theirs, "other": other}
    return found


def test_the_other_side_gives_our_answers_under_our_grammar(compared: dict, order: str) -> None:
    job, mine, theirs = (compared[order][name] for name in ("job", "ours", "theirs"))
    assert job["values_first"] == (order == VALUES_FIRST)
    last = [answer["rationale"][-1] for answer in job["answers"]]
    ended = [token in job["ends"] for token in last] if job["values_first"] else [
        len(answer["rationale"]) <= CAP for answer in job["answers"]
    ]  # fmt: skip
    assert any(ended) and not all(ended)
    lengths = [len(answer["rationale"] + answer["block"]) for answer in job["answers"]]
    blocks = [len(answer["block"]) for answer in job["answers"]]
    assert mine["drafted"]["tokens"] == theirs["plain"]["tokens"] == lengths
    assert mine["block drafted"]["tokens"] == theirs["block dfa"]["tokens"] == blocks
    assert theirs["prefill"]["tokens"] == [1] * IMAGES
    for mode in ("dfa", "block dfa"):
        row = theirs[mode]
        assert row["same ids"] + sum(d["gap"] <= TIE for d in row["differences"]) == IMAGES
        assert row["valid"] == IMAGES
    assert theirs["plain"]["valid"] == theirs["block plain, dynamic"]["valid"] == 0  # random


@pytest.mark.parametrize("mode", ["llguidance", "xgrammar"])
def test_engines_give_our_answers(compared: dict, order: str, mode: str) -> None:
    theirs = compared[order]["theirs"]
    if mode not in theirs:
        pytest.skip(f"needs {mode} in the Python of SF_JAX_TORCH_PYTHON")
    ties = sum(d["gap"] <= TIE for d in theirs["dfa"]["differences"])
    assert theirs[mode]["same ids"] >= IMAGES - ties and theirs[mode]["valid"] == IMAGES


def test_another_answer_than_ours_is_reported(compared: dict, order: str) -> None:
    """Ours with another first value: what is no tie is named, where it begins."""
    job, other = compared[order]["job"], compared[order]["other"]
    before = [] if job["values_first"] else job["answers"][0]["rationale"]
    for mode, start in (("dfa", len(before)), ("block dfa", 0)):
        assert other[mode]["same ids"] == compared[order]["theirs"][mode]["same ids"] - 1
        found = next(d for d in other[mode]["differences"] if d["image"] == 0)
        assert found["position"] == start + len(job["forced"][0]) and found["gap"] > TIE
    assert other["dfa"]["valid"] == IMAGES
