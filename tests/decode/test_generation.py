"""Constrained generation against a plain, uncached pass over the finished answer."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.sampler import sample
from sf_jax.decode.drafts import Draft
from sf_jax.decode.generate import DraftPlan, generate
from sf_jax.decode.noise import Sampling
from sf_jax.decode.program import compile_program
from sf_jax.face import answers, channels
from sf_jax.model import text
from sf_jax.model.declared import initialise
from sf_jax.model.weights import unstack_layers
from sf_jax.reader.schema import channel_schema
from sf_jax.sequence import images
from sf_jax.sequence import tokenizer as tokenizers
from sf_jax.sequence.example import Example, assemble
from sf_jax.sequence.forward import forward
from sf_jax.systems.semanticface.qwen_like import make_tokenizer
from sf_jax.systems.semanticface.sequences import vocabulary_texts
from tests.decode import lossless

SCHEMA = channel_schema()

MAX_WORDS = 12
PATCHES = 36
PLAN = DraftPlan(rationale_width=3, block_widths=(16, 40))


@pytest.fixture(scope="module")
def tokenizer() -> tokenizers.Tokenizer:
    faces = np.stack([sample(i) for i in range(300)])
    return tokenizers.train(vocabulary_texts(faces), SCHEMA.symbols(), 700)


@pytest.fixture(scope="module")
def config(tiny_config, tokenizer):
    ids = [
        tokenizer.symbol(s)
        for s in (tokenizers.IMAGE, tokenizers.VISION_START, tokenizers.VISION_END)
    ]
    language = dataclasses.replace(tiny_config.text, vocab_size=len(tokenizer))
    return dataclasses.replace(
        tiny_config,
        text=language,
        image_token_id=ids[0],
        vision_start_token_id=ids[1],
        vision_end_token_id=ids[2],
    )


@pytest.fixture(scope="module")
def weights(config):
    # Large enough that answers differ from slot to slot and picture to picture.
    return jax.tree.map(lambda x: x * 2 if x.ndim > 1 else x, initialise(config.declare(), 3))


@pytest.fixture(scope="module")
def program(tokenizer):
    return compile_program(SCHEMA, tokenizer)


def inputs(config, tokenizer, pictures, with_rationale):
    batch = lossless.prompts_about(pictures, config, tokenizer, PATCHES, with_rationale)
    prompts = [
        ids[real == 1].tolist() for ids, real in zip(batch.input_ids, batch.segments, strict=True)
    ]
    return batch, prompts


def run(
    config,
    weights,
    tokenizer,
    program,
    pictures,
    *,
    with_rationale=True,
    temperature=0.0,
    seed=0,
    plan=PLAN,
):
    batch, prompts = inputs(config, tokenizer, pictures, with_rationale)
    count = len(pictures)
    draft = Draft(
        np.zeros((count, 2), np.int32), program.nearest(np.zeros((count, 61), np.float32)), None
    )
    sampling = Sampling(
        np.full(count, temperature, np.float32), np.arange(count, dtype=np.uint32) + 100 * seed
    )
    out = generate(
        unstack_layers(weights),
        batch,
        program,
        draft,
        sampling,
        config,
        plan,
        MAX_WORDS,
        with_rationale,
    )
    return jax.device_get(out), prompts


def whole_answer(out, row, program, prompt_tokens, with_rationale):
    """Token ids of the answer and, for each slot, the index whose scores decide its first token."""
    ids = out.rationale_ids[row, : out.rationale_length[row]].tolist() if with_rationale else []
    if with_rationale and (out.truncated[row] or not program.block_ends_rationale):
        ids.append(int(program.rationale_end))
    indices = []
    for slot in range(len(out.choices[row])):
        before = len(program.answer(out.choices[row][:slot]))
        indices.append(len(prompt_tokens) + len(ids) + before + program.forced_length[slot] - 1)
    return ids + program.answer(out.choices[row]), indices


def answered(config, picture, prompt_tokens, answers):
    """A row for each answer to a prompt about the picture."""
    inserts = images.image_inserts(prompt_tokens, [picture], config)
    examples = [Example.of(prompt_tokens, inserts, answer) for answer in answers]
    longest = max(len(example.tokens) for example in examples)
    capacity = images.capacity(config, longest, PATCHES)
    return assemble([[example] for example in examples], capacity)


def teacher_forced(config, weights, tokenizer, program, picture, prompt_tokens, ids, indices):
    """Slot distributions [C, A] from one uncached pass with stacked layers."""
    states, _ = forward(weights, answered(config, picture, prompt_tokens, [ids]), config)
    scores = text.logits(weights.text, states)[0]
    return np.stack(
        [
            jax.nn.softmax(jnp.where(real, scores[index][allowed], -jnp.inf))
            for index, allowed, real in zip(
                indices, program.value_symbols, program.valid[program.kind], strict=True
            )
        ]
    )


@pytest.mark.parametrize("with_rationale", [True, False])
def test_equal_to_one_uncached_pass(
    config, weights, tokenizer, program, pictures, with_rationale
) -> None:
    out, prompts = run(config, weights, tokenizer, program, pictures, with_rationale=with_rationale)
    for row, picture in enumerate(pictures):
        ids, indices = whole_answer(out, row, program, prompts[row], with_rationale)
        expected = teacher_forced(
            config, weights, tokenizer, program, picture, prompts[row], ids, indices
        )
        np.testing.assert_allclose(np.exp(out.log_probabilities)[row], expected, atol=2e-5)
        assert (out.choices[row] == expected.argmax(-1)).all()
        # The mechanism matters: shifted by one slot the distributions are others.
        assert np.abs(np.exp(out.log_probabilities)[row][:-1] - expected[1:]).max() > 1e-2


def test_a_batch_changes_nothing(config, weights, tokenizer, program, pictures) -> None:
    together, _ = run(config, weights, tokenizer, program, pictures)
    for row, picture in enumerate(pictures):
        alone, _ = run(config, weights, tokenizer, program, [picture])
        assert (alone.rationale_ids[0] == together.rationale_ids[row]).all()
        assert (alone.choices[0] == together.choices[row]).all()
        np.testing.assert_allclose(
            np.exp(alone.log_probabilities)[0], np.exp(together.log_probabilities)[row], atol=2e-5
        )
    assert len({tuple(choices) for choices in together.choices}) > 1


def test_sampled_answers_never_leave_the_grammar(
    config, weights, tokenizer, program, pictures
) -> None:
    batch = pictures * 10
    seen = set()
    for seed in range(7):
        out, prompts = run(config, weights, tokenizer, program, batch, temperature=1.0, seed=seed)
        for row in range(len(batch)):
            ids, _ = whole_answer(out, row, program, prompts[row], True)
            spoken = tokenizer.decode(ids) + "}"
            answer = answers.parse(spoken)
            values = program.values[program.kind, out.choices[row]]
            np.testing.assert_allclose(answer.coefficients, values, atol=1e-6)
            assert not program.banned[out.rationale_ids[row, : out.rationale_length[row]]].any()
            seen.add(spoken)
    assert len(seen) == 7 * len(batch)


def test_the_same_seed_gives_the_same_answer(config, weights, tokenizer, program, pictures) -> None:
    first, second = (
        run(config, weights, tokenizer, program, pictures, temperature=1.0, seed=5)[0]
        for _ in range(2)
    )
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_a_rationale_stops_at_the_cap(config, weights, tokenizer, program, pictures) -> None:
    out, _ = run(config, weights, tokenizer, program, pictures)
    assert out.rationale_ids.shape == (3, MAX_WORDS)
    assert (out.rationale_length <= MAX_WORDS).all() and (out.rationale_passes < MAX_WORDS).all()


def test_program_fits_the_canonical_tokens(tokenizer, program) -> None:
    face = np.clip(sample(11), -1, 1)
    choices = np.rint((face - SCHEMA.low) * 10).astype(int)
    expected = program.answer(choices) + program.closing[:-1].tolist()
    assert tokenizer.encode(SCHEMA.format(face)) == expected


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> tokenizers.JsonTokenizer:
    """A byte-level tokenizer of single digits, as Qwen's."""
    folder = tmp_path_factory.mktemp("digits")
    make_tokenizer(folder)
    return tokenizers.JsonTokenizer.load(folder / "tokenizer.json")


@pytest.fixture(scope="module")
def digit_program(digits):
    return compile_program(dataclasses.replace(SCHEMA, paragraphs=True), digits, len(digits) + 40)


def test_values_of_several_tokens(digits, digit_program) -> None:
    """A sign stands with its space; then come 0 or 1, the point, a digit if any is left."""
    texts = digits.token_texts()
    smile, yaw = (channels.NAMES.index(name) for name in ("MouthSmileLeft", "HeadYaw"))
    smile_kind, yaw_kind = digit_program.kind[[smile, yaw]]
    assert digit_program.allowed[[smile_kind, yaw_kind]].any(-1).sum(1).tolist() == [2, 5]
    allowed = digit_program.symbols[digit_program.allowed[yaw_kind, 0]]
    assert sorted(texts[i] for i in allowed) == [" ", " -"]
    assert digit_program.banned[len(digits) :].all() and digit_program.ends.sum() == 1
    assert texts[int(np.argmax(digit_program.ends))].startswith("{")
    face = np.clip(sample(11), -1, 1)
    choices = np.rint((face - SCHEMA.low) * 10).astype(int)
    spoken = digits.decode(digit_program.answer(choices)) + "}"
    assert spoken == SCHEMA.format(face)
    assert digits.encode(spoken) == digit_program.answer(choices) + [
        int(i) for i in digit_program.closing[:-1]
    ]


def enumerated(config, weights, program, picture, prompt_tokens, prefix, slot) -> np.ndarray:
    """Probabilities [V] of a slot's values, each spelt out in an uncached row of its own."""
    spelt = program.spelling(slot)
    count = len(spelt)
    answers = [prefix + spelt[v] for v in range(count)]
    states, _ = forward(weights, answered(config, picture, prompt_tokens, answers), config)
    scores = np.asarray(text.logits(weights.text, states))
    start = len(prompt_tokens) + len(prefix) - 1
    out = np.ones(count)
    for v in range(count):
        for i, token in enumerate(spelt[v]):
            others = {s[i] for s in spelt[:count] if s[:i] == spelt[v][:i]}
            row = scores[v, start + i]
            out[v] *= np.exp(row[token]) / sum(np.exp(row[o]) for o in others)
    return out


def test_probabilities_equal_enumeration(config, weights, digits, digit_program, pictures) -> None:
    """Also of values whose branch was not taken; and greedy is greedy token by token."""
    ids = [
        digits.symbol(s) for s in (tokenizers.IMAGE, tokenizers.VISION_START, tokenizers.VISION_END)
    ]
    language = dataclasses.replace(config.text, vocab_size=len(digits) + 40)
    config = dataclasses.replace(
        config,
        text=language,
        image_token_id=ids[0],
        vision_start_token_id=ids[1],
        vision_end_token_id=ids[2],
    )
    weights = jax.tree.map(lambda x: x * 2 if x.ndim > 1 else x, initialise(config.declare(), 5))
    out, prompts = run(config, weights, digits, digit_program, pictures[:2])
    np.testing.assert_allclose(np.exp(out.log_probabilities).sum(-1), 1, atol=1e-5)
    for row, picture in enumerate(pictures[:2]):
        answer, indices = whole_answer(out, row, digit_program, prompts[row], True)
        for slot in (0, 17, 52, 60):
            prefix = answer[: indices[slot] + 1 - len(prompts[row])]
            expected = enumerated(
                config, weights, digit_program, picture, prompts[row], prefix, slot
            )
            found = np.exp(out.log_probabilities)[row, slot]
            np.testing.assert_allclose(found[: len(expected)], expected, atol=2e-5)
            assert (found[len(expected) :] == 0).all()
            assert out.choices[row, slot] == greedy(digit_program, slot, expected)


def greedy(program, slot: int, probabilities: np.ndarray) -> int:
    """The value reached by taking the likeliest token at each step."""
    spelt = program.spelling(slot)
    alive = list(range(len(probabilities)))
    for i in range(program.value_tokens.shape[-1]):
        totals: dict[int, float] = {}
        for v in alive:
            if i < len(spelt[v]):
                totals[spelt[v][i]] = totals.get(spelt[v][i], 0.0) + probabilities[v]
        if totals:
            best = max(totals, key=lambda token: totals[token])
            alive = [v for v in alive if spelt[v][i : i + 1] == [best]]
    return alive[0]
