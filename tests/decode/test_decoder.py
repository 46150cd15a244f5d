"""Decoding by a schema that names no channel: text alone, one block or several."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from sf_jax.decode.decoder import Decoded, Decoder, Previous
from sf_jax.decode.limits import MOST_TEMPERATURE
from sf_jax.decode.policy import LARGE, PLANS, cpu_instructions, multiplies_bfloat16, policy_of
from sf_jax.decode.schema import VALUES_FIRST, Repeat, Schema
from sf_jax.model.config import Config
from sf_jax.model.declared import initialise
from sf_jax.sequence import tokenizer
from sf_jax.sequence.batch import Batch, Capacity
from sf_jax.sequence.example import Example, assemble

SHAPES = Schema(("width", "height", "tilt"), (0.0, 0.0, -0.5), (1.0, 1.0, 0.5))
STEPS = replace(SHAPES, repeat=Repeat(most=4))
CAP = 5


def decoder_of(schema: Schema, config: Config, seed: int) -> Decoder:
    words = tokenizer.train(["some words here\n\n", "a shape\n\n"] * 40, schema.symbols(), 400)
    text = replace(config.text, vocab_size=len(words))
    made = replace(config, text=text)
    weights = initialise(made.declare(), seed)
    weights = jax.tree.map(lambda x: x * 3 if x.ndim > 1 else x, weights)
    return Decoder(made, weights, words, schema)


def prompts(decoder: Decoder, *texts: str) -> Batch:
    made = [Example.of(decoder.tokenizer.encode(text)) for text in texts]
    length = max(len(example.tokens) for example in made)
    return assemble([[example] for example in made], Capacity(length), left=True)


def answers(decoder: Decoder, batch: Batch, **asked: object) -> list[Decoded]:
    made = decoder.generate(batch, max_rationale=CAP, **asked)  # type: ignore[arg-type]
    return list(decoder.decoded(jax.device_get(made), bool(asked.get("rationale", True))))


@pytest.fixture(scope="module")
def single(tiny_config: Config) -> Decoder:
    return decoder_of(SHAPES, tiny_config, 3)


def test_an_answer_is_of_the_schema_and_the_same_any_way(single: Decoder) -> None:
    batch = prompts(single, "a shape here", "some words")
    made = answers(single, batch)
    plain = answers(single, batch, decoding="sequential")
    before = [Previous(one.rationale_ids, one.values) for one in made]
    again = answers(single, batch, previous=before)
    for one, other, third in zip(made, plain, again, strict=True):
        assert one.text == other.text == third.text
        block = json.loads(one.text[one.text.rindex("{") :])
        assert list(block) == list(SHAPES.names)
        np.testing.assert_allclose([*block.values()], one.values, atol=1e-6)
        assert third.passes["coefficients"] == 1
        assert (one.mean >= SHAPES.low).all() and (one.mean <= SHAPES.high).all()
        np.testing.assert_allclose(one.mean, other.mean, atol=1e-4)


def test_scoring_agrees_with_generation(single: Decoder) -> None:
    mute = prompts(single, "a shape here\n\n")  # ends as if there had been a rationale
    (made,) = answers(single, mute, rationale=False)
    text, slots = single.score(mute, None, made.values, None)
    np.testing.assert_allclose(slots, made.log_likelihood, atol=1e-4)
    assert not len(text) and not made.rationale
    batch = prompts(single, "a shape here")
    text, slots = single.score(batch, None, made.values, "some words here")
    assert len(text) == len(single.tokenizer.encode("some words here")) + 1  # and its end
    assert (text < 0).all() and (slots < 0).all()
    with pytest.raises(ValueError, match="the rationale holds '{'"):
        single.score(batch, None, made.values, "a {")
    for value in (np.nan, np.inf, -np.inf):
        given = made.values.copy()
        given[1] = value
        with pytest.raises(ValueError, match=f"{SHAPES.names[1]} is {value}, expected a finite"):
            single.score(batch, None, given, None)


@pytest.fixture(scope="module")
def values_first(tiny_config: Config) -> Decoder:
    return decoder_of(replace(SHAPES, order=VALUES_FIRST), tiny_config, 3)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_values_may_come_first(values_first: Decoder, temperature: float) -> None:
    decoder, asked = values_first, {"temperature": temperature, "seed": 7}
    batch = prompts(decoder, "a shape here", "some words", "a shape")
    made = answers(decoder, batch, **asked)
    mute = answers(decoder, batch, rationale=False, **asked)
    plain = answers(decoder, batch, decoding="sequential", **asked)
    for one, other, alone in zip(made, plain, mute, strict=True):
        assert one.text == other.text
        block, blank, rationale = one.text.partition("\n\n")
        assert blank and rationale == one.rationale and len(one.rationale_ids)
        np.testing.assert_allclose([*json.loads(block).values()], one.values, atol=1e-6)
        # The values depend on nothing that follows, and cost no pass of it.
        assert alone.text == block and alone.passes["rationale"] == 0
        np.testing.assert_array_equal(alone.mean, one.mean)
        np.testing.assert_allclose(one.mean, other.mean, atol=1e-4)
    filled, rationale = decoder.stream(batch, max_rationale=CAP, **asked)  # type: ignore[arg-type]
    for row, one in enumerate(made):
        found = rationale.ids[row, : len(one.rationale_ids)]
        np.testing.assert_array_equal(found, one.rationale_ids)
    choices = decoder.program.nearest(np.stack([one.values for one in made]))
    np.testing.assert_array_equal(filled.choices, choices)


def test_a_rationale_depends_on_the_values_before_it(values_first: Decoder) -> None:
    decoder, batch = values_first, prompts(values_first, "a shape here")
    made = answers(decoder, prompts(decoder, "a shape here", "some words", "a shape"))[0]
    words = "some words here"
    text, slots = decoder.score(batch, None, made.values, words)
    np.testing.assert_allclose(slots, made.log_likelihood, atol=1e-4)
    assert len(text) == len(decoder.tokenizer.encode(words)) + 1  # and its end
    assert (text < 0).all()
    none, alone = decoder.score(batch, None, made.values, None)
    assert not len(none)
    np.testing.assert_allclose(alone, slots, atol=1e-5)
    other, _ = decoder.score(batch, None, 1 - made.values, words)
    assert np.abs(other - text).max() > 1e-2


def test_a_degenerate_rationale_leaves_the_values(values_first: Decoder) -> None:
    made = answers(values_first, prompts(values_first, "a shape here", "some words", "a"))[0]
    kept = values_first.sound(replace(made, degenerate=True))
    assert (kept.rationale, len(kept.rationale_ids), kept.degenerate) == ("", 0, False)
    np.testing.assert_array_equal(kept.values, made.values)
    assert [*json.loads(kept.text)] == list(SHAPES.names)
    assert values_first.sound(replace(made, degenerate=False)).text == made.text


def test_what_is_out_of_range_is_refused(single: Decoder) -> None:
    batch = prompts(single, "a shape")
    for asked, problem in (
        ({"decoding": "other"}, "decoding is 'other'"),
        ({"max_rationale": 0}, "max_rationale is 0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": np.nan}, "temperature is nan"),
        ({"temperature": 1e38}, r"temperature is 1e\+38, expected 0 to 1e\+06"),
        ({"temperature": 1e39}, r"temperature is 1e\+39, expected 0 to 1e\+06"),
        ({"temperature": [np.inf]}, "temperature is "),
        ({"seed": -1}, "seed is -1, expected a whole number from 0 to 4294967295"),
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"seed": 10**39}, "seed is 1000"),
        ({"seed": 1.0}, "seed is 1.0"),
    ):
        with pytest.raises(ValueError, match=problem):
            single.generate(batch, **({"max_rationale": CAP} | asked))  # type: ignore[arg-type]


def test_no_banned_token_is_drawn_at_the_highest_temperature(single: Decoder) -> None:
    for seed in range(3):
        asked = {"max_rationale": CAP, "temperature": MOST_TEMPERATURE, "seed": seed}
        made = single.generate(prompts(single, "a shape here"), **asked)  # type: ignore[arg-type]
        (row,) = single.decoded(jax.device_get(made), rationale=True)
        assert len(row.rationale_ids) and not single.program.banned[row.rationale_ids].any()


def test_prefixes_are_few_lengths_and_few(single: Decoder) -> None:
    assert single.prefix(range(15)) is None
    lengths = {single.prefix(range(1, n + 1)).segments.shape[1] for n in (16, 31, 32)}  # type: ignore[union-attr]
    assert lengths == {16, 32}
    assert single.prefix(range(1, 20)) is single.prefix(range(1, 25))


def test_a_prefix_may_be_asked_for_while_another_is_made(
    single: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another thread does; they stay few."""

    def made(weights: object, ids: np.ndarray, config: Config) -> int:
        first = int(ids[0])
        if first < 5:
            assert single.prefix(range(first + 1, first + 17)) == first + 1
        return first

    monkeypatch.setattr(single, "_prefixes", {})
    monkeypatch.setattr("sf_jax.decode.decoder.prompt_prefix", made)
    monkeypatch.setattr("sf_jax.decode.decoder.MOST_PREFIXES", 2)
    assert single.prefix(range(1, 17)) == 1
    assert len(single._prefixes) == 2


def test_blocks_that_repeat_are_handed_out_whole_or_one_by_one(tiny_config: Config) -> None:
    decoder = decoder_of(STEPS, tiny_config, 5)
    batch = prompts(decoder, "a shape here")
    (made,) = answers(decoder, batch)
    count = len(made.values)
    assert made.values.shape == made.mean.shape == (count, 3) and 1 <= count <= 4
    blocks = json.loads(made.text[made.text.rindex("[") :])
    found = np.array([[*block.values()] for block in blocks])
    np.testing.assert_allclose(found, made.values, atol=1e-6)
    rationale, *filled = decoder.stream(batch, max_rationale=CAP)
    assert len(filled) == count
    np.testing.assert_array_equal(rationale.ids[0, : len(made.rationale_ids)], made.rationale_ids)


def test_one_place_decides_what_suits_a_device(tmp_path: Path) -> None:
    small, large = np.zeros(8, np.float32), np.broadcast_to(np.float32(0), (LARGE,))
    on_cpu = policy_of("cpu", [small], "float32", bfloat16=True)
    assert (on_cpu.layers, on_cpu.plan) == ("separate", PLANS["cpu"])
    assert on_cpu.low_precision_drafts
    assert not policy_of("cpu", [small], "bfloat16", bfloat16=True).low_precision_drafts
    without = policy_of("cpu", [small], "float32", bfloat16=False)
    assert without.plan == PLANS["cpu, no bfloat16"] and not without.low_precision_drafts
    assert policy_of("cpu", [small], "float32").plan in (on_cpu.plan, without.plan)
    for flags, fast in (("fma avx512_bf16", True), ("avx2 avx512f", False)):
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
        assert multiplies_bfloat16(cpu_instructions(tmp_path / "cpuinfo")) == fast
    assert not multiplies_bfloat16(cpu_instructions(tmp_path / "missing"))
    big = policy_of("cpu", [large], "float32")
    assert big.plan == PLANS["cpu, large"] and not big.low_precision_drafts
    for platform in ("tpu", "gpu"):
        policy = policy_of(platform, [small], "float32")
        assert (policy.layers, policy.plan) == ("stacked", PLANS["accelerator"])
        assert not policy.low_precision_drafts
