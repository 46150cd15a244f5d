"""Constrained generation against a plain, uncached pass over the finished answer."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines.sampler import sample
from data_pipelines.sequences import vocabulary_texts
from sf_jax.decode import prompt, tokenizer
from sf_jax.decode.generate import generate
from sf_jax.decode.schema import Schema, compile_program
from sf_jax.decode.tokenizer import TokenizerError
from sf_jax.estimator import SCHEMA
from sf_jax.face import answers
from sf_jax.model import text, vision, vlm
from sf_jax.model.weights import initialise, unstack_layers

MAX_WORDS = 12
PATCHES = 36


@pytest.fixture(scope="module")
def words() -> tokenizer.Tokenizer:
    faces = np.stack([sample(i) for i in range(300)])
    return tokenizer.train(vocabulary_texts(faces), SCHEMA.symbols(), 700)


@pytest.fixture(scope="module")
def config(tiny_config, words):
    ids = [words.symbol(s) for s in (tokenizer.IMAGE, tokenizer.VISION_START, tokenizer.VISION_END)]
    language = dataclasses.replace(tiny_config.text, vocab_size=len(words))
    return dataclasses.replace(
        tiny_config, text=language, image_token_id=ids[0], vision_start_token_id=ids[1],
        vision_end_token_id=ids[2],
    )  # fmt: skip


@pytest.fixture(scope="module")
def weights(config):
    # Large enough that answers differ from slot to slot and picture to picture.
    return jax.tree.map(lambda x: x * 2 if x.ndim > 1 else x, initialise(config, 3))


@pytest.fixture(scope="module")
def program(words):
    return compile_program(SCHEMA, words)


def inputs(config, words, pictures, speak):
    grids = [(picture.shape[0] // 32, picture.shape[1] // 32) for picture in pictures]
    prompts = [prompt.prompt_ids(words, h * w, speak) for h, w in grids]
    longest = len(prompt.prompt_ids(words, PATCHES // 4, speak))
    empty = [[] for _ in prompts]
    rows = prompt.rows(prompts, empty, empty, grids, config, longest, PATCHES // 4, left=True)
    return rows, vision.collate(pictures, config.vision, PATCHES), prompts, grids


def run(config, weights, words, program, pictures, *, speak=True, temperature=0.0, seed=0):
    rows, patches, prompts, grids = inputs(config, words, pictures, speak)
    out = generate(
        unstack_layers(weights), rows, patches, program, jax.random.key(seed), config,
        MAX_WORDS, temperature, speak,
    )  # fmt: skip
    return jax.device_get(out), prompts, grids


def whole_answer(out, row, program, prompt_tokens, speak):
    """Token ids of the answer and, for each slot, the place whose scores decide it."""
    ids = [*out.words[row, : out.words_length[row]], int(program.end_of_words)]
    ids = ids if speak else []
    places = []
    for slot, choice in enumerate(out.choices[row]):
        ids += program.forced[slot][program.forced_real[slot] == 1].tolist()
        places.append(len(prompt_tokens) + len(ids) - 1)
        ids.append(int(program.allowed[slot, choice]))
    return ids, places


def teacher_forced(config, weights, words, program, picture, prompt_tokens, ids, places, grid):
    """Slot distributions [C, A] from one uncached pass with stacked layers."""
    rows = prompt.rows(
        [prompt_tokens], [ids], [[1.0] * len(ids)], [grid], config,
        len(prompt_tokens) + len(ids), PATCHES // 4,
    )  # fmt: skip
    patches = vision.collate([picture], config.vision, PATCHES)
    states = vlm.forward(
        weights, rows.input_ids, rows.positions, rows.segments, patches, rows.image_places, config
    )
    scores = text.logits(weights.text, states)[0]
    return np.stack(
        [
            jax.nn.softmax(jnp.where(real, scores[place][allowed], -jnp.inf))
            for place, allowed, real in zip(
                places, program.allowed, program.allowed_real, strict=True
            )
        ]
    )


@pytest.mark.parametrize("speak", [True, False])
def test_equal_to_one_uncached_pass(config, weights, words, program, pictures, speak) -> None:
    out, prompts, grids = run(config, weights, words, program, pictures, speak=speak)
    for row, picture in enumerate(pictures):
        ids, places = whole_answer(out, row, program, prompts[row], speak)
        expected = teacher_forced(
            config, weights, words, program, picture, prompts[row], ids, places, grids[row]
        )
        np.testing.assert_allclose(out.probabilities[row], expected, atol=2e-5)
        assert (out.choices[row] == expected.argmax(-1)).all()
        # The mechanism matters: shifted by one slot the distributions are others.
        assert np.abs(out.probabilities[row][:-1] - expected[1:]).max() > 1e-2


def test_a_batch_changes_nothing(config, weights, words, program, pictures) -> None:
    together, _, _ = run(config, weights, words, program, pictures)
    for row, picture in enumerate(pictures):
        alone, _, _ = run(config, weights, words, program, [picture])
        assert (alone.words[0] == together.words[row]).all()
        assert (alone.choices[0] == together.choices[row]).all()
        np.testing.assert_allclose(alone.probabilities[0], together.probabilities[row], atol=2e-5)
    assert len({tuple(choices) for choices in together.choices}) > 1


def test_sampled_answers_never_leave_the_grammar(config, weights, words, program, pictures) -> None:
    batch = pictures * 10
    seen = set()
    for seed in range(7):
        out, prompts, _ = run(config, weights, words, program, batch, temperature=1.0, seed=seed)
        for row in range(len(batch)):
            ids, _ = whole_answer(out, row, program, prompts[row], True)
            spoken = words.decode(ids) + "}"
            answer = answers.parse(spoken)
            values = program.values[np.arange(61), out.choices[row]]
            np.testing.assert_allclose(answer.coefficients, values, atol=1e-6)
            assert not program.banned[out.words[row, : out.words_length[row]]].any()
            seen.add(spoken)
    assert len(seen) == 7 * len(batch)


def test_the_same_seed_gives_the_same_answer(config, weights, words, program, pictures) -> None:
    first, second = (
        run(config, weights, words, program, pictures, temperature=1.0, seed=5)[0] for _ in range(2)
    )
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_words_stop_at_the_cap(config, weights, words, program, pictures) -> None:
    out, _, _ = run(config, weights, words, program, pictures)
    assert out.words.shape == (3, MAX_WORDS)
    assert (out.words_length <= MAX_WORDS).all() and out.word_passes <= MAX_WORDS


def test_values_of_a_schema() -> None:
    schema = Schema(("a", "b"), (0.0, -0.2), (0.3, 0.2))
    assert schema.values(0) == ["0.0", "0.1", "0.2", "0.3"]
    assert schema.values(1) == ["-0.2", "-0.1", "0.0", "0.1", "0.2"]
    assert schema.format(np.array([0.26, -0.04])) == '{"a": 0.3, "b": 0.0}'


def test_a_tokenizer_without_the_symbols_is_refused(words) -> None:
    with pytest.raises(TokenizerError, match="expected one symbol"):
        compile_program(Schema(("EyeBlinkLeft",), (0.0,), (1.0,), decimals=3), words)


def test_program_fits_the_canonical_tokens(words, program) -> None:
    face = np.clip(sample(11), -1, 1)
    ids = words.encode(SCHEMA.format(face))
    forced = [
        row[real == 1].tolist()
        for row, real in zip(program.forced, program.forced_real, strict=True)
    ]
    expected = [int(i) for i in program.closing[:-1]]
    for slot in reversed(range(61)):
        value = words.symbol(SCHEMA.values(slot)[round((face[slot] - SCHEMA.low[slot]) * 10)])
        expected = [*forced[slot], value, *expected]
    assert ids == expected
