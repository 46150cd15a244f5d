"""The grammar as the other side of the benchmark follows it, against the slot program."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from sf_jax.bench import decode as bench_decode
from sf_jax.bench.torch_side import decode_torch as _decode_torch
from sf_jax.decode.program import compile_program
from sf_jax.decode.schema import RATIONALE_FIRST, Schema
from sf_jax.reader import loading
from sf_jax.reader.estimator import Model
from sf_jax.reader.schema import channel_schema
from sf_jax.sequence.tokenizer import JsonTokenizer, SentencePieceTokenizer
from sf_jax.systems.semanticface.qwen_like import make_tokenizer

SCHEMA = channel_schema()

CAP = 6


@pytest.fixture(scope="module", params=["symbols", "digits"])
def job(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Values of one token as the built-in model has them, or spelt digit by digit as Qwen does."""
    schema = SCHEMA
    if request.param == "symbols":
        tokenizer = SentencePieceTokenizer.load(loading.BUILTIN / "tokenizer.model")
    else:
        folder = tmp_path_factory.mktemp("digits")
        make_tokenizer(folder)
        tokenizer = JsonTokenizer.load(folder / "tokenizer.json")
        schema = Schema(SCHEMA.names, SCHEMA.low, SCHEMA.high, paragraphs=True)
    program = compile_program(schema, tokenizer)
    return bench_decode.grammar(schema, program) | {"cap": CAP, "program": program}


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


def test_every_prefix_of_an_answer_goes_on_as_the_program_says(job: dict) -> None:
    states = _decode_torch.block_states(job["forced"], job["values"])
    free = np.flatnonzero(~job["program"].banned).tolist()
    words = [token for token in free if token not in job["ends"]][:CAP]
    for block in blocks(job, 20):
        for length in (2, CAP):
            cut = length == CAP
            opening = [] if job["block_ends_rationale"] and not cut else [job["rationale_end"]]
            answer = words[:length] + opening + block
            for at in range(len(answer) + 1):
                found = _decode_torch.next_tokens(answer[:at], job, states)
                begun = at - length - len(opening)
                if at < CAP and at <= length:
                    assert found is None
                elif begun < 0:
                    assert found == [job["rationale_end"]]
                else:
                    assert found is not None and len(set(found)) == len(found)
                    assert set(found) == expected(job, answer[length + len(opening) : at])


def test_the_automaton_is_no_larger_than_the_spellings(job: dict) -> None:
    states = _decode_torch.block_states(job["forced"], job["values"])
    tokens = sum(map(len, job["forced"]))
    tokens += sum(len(value) for values in job["values"] for value in values)
    assert len(states) <= 1 + tokens + len(job["forced"])
    assert sum(not state for state in states) == 1  # the end alone


def test_answers_are_judged() -> None:
    keys, values = ['{"A": ', ', "B": '], [["0.0", "0.1"], ["-0.1", "0.0"]]

    def read(block: str) -> dict:
        return _decode_torch.numbers(f"words\n\n{block}", keys, values)

    assert read('{"A": 0.1, "B": -0.1}') == read('{"A": 0.1, "B": -0.1') == {"A": 0.1, "B": -0.1}
    for wrong in (
        "",
        '{"A": 0.1',
        '{"B": 0.0, "A": 0.1}',
        '{"A": 0.10, "B": 0.0}',
        '{"A": 0.2, "B": 0.0}',
        '{"A": 0.1, "B": 0.0, "C": 0.0}',
    ):
        with pytest.raises(ValueError):
            read(wrong)


def test_the_job_holds_what_the_model_reads_and_says(tmp_path: Path) -> None:
    own = loading.load()
    schema = replace(own.schema, order=RATIONALE_FIRST)
    model = Model(
        own.config, own.weights, own.tokenizer, own.processor, None, schema, instructed=False
    )
    images = bench_decode.faces(1)
    answers = [bench_decode.answer(model, images[0], 120)]
    bench_decode.write_job(tmp_path, model, loading.BUILTIN, images, answers, 120, ["plain"])
    job = json.loads((tmp_path / "job.json").read_text())
    ids = np.load(tmp_path / "job.npz")["input_ids_0"]
    rows, _ = model.inputs(images)
    assert ids.tolist() == rows.input_ids[0][rows.segments[0] == 1].tolist()
    answer = job["answers"][0]
    text = model.tokenizer.decode(answer["rationale"] + answer["block"]) + "}"
    made = jax.device_get(model.generate(*model.inputs(images), max_rationale=120))
    (action,) = model.actions(made, True)
    assert text == action.text
    states = _decode_torch.block_states(job["forced"], job["values"])
    whole = answer["rationale"] + answer["block"]
    assert _decode_torch.next_tokens(whole, job, states) == []
