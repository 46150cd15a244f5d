"""Blocks that repeat: lossless, whatever the way to decode them, and however many there are."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jsonschema
import numpy as np
import pytest

from sf_jax.decode import block, drafted, repeats, window
from sf_jax.decode import stream as stream_module
from sf_jax.decode.drafts import Draft
from sf_jax.decode.generate import SEQUENTIAL, DraftPlan, Generated, generate
from sf_jax.decode.program import STOP, SlotProgram
from sf_jax.decode.rationale import Rationale
from sf_jax.decode.schema import Repeat, Schema, SchemaError
from sf_jax.decode.stream import stream
from sf_jax.sequence import tokenizer as tokenizers
from sf_jax.systems.semanticface.qwen_like import make_tokenizer
from tests.decode.lossless import SMALL, NotEqualError, Tiny, answer_ids, count_ties, sampling

CAP = 5  # tokens of the rationale
PLAN = DraftPlan(rationale_width=2)
NARROW = DraftPlan(rationale_width=2, block_widths=(10,), growth=1, low_precision_passes=1)
KEYFRAMES = Schema(
    ("time", "a", "b"),
    (0.0, -0.1, 0.0),
    (0.3, 0.1, 1.0),
    paragraphs=True,
    repeat=Repeat(most=5),
)
FRAMES = Schema(("a", "b", "c"), (0.0, -0.3, 0.0), (0.5, 0.3, 1.0), repeat=Repeat(window=8))


def shown(count: int) -> list[np.ndarray]:
    """Images of 32 x 64 pixels."""
    generator = np.random.default_rng(5)
    return list(generator.integers(0, 256, (count, 32, 64, 3)).astype(np.uint8))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: Any) -> tokenizers.JsonTokenizer:
    folder: Path = tmp_path_factory.mktemp("digits")
    make_tokenizer(folder)
    return tokenizers.JsonTokenizer.load(folder / "tokenizer.json")


def made_for(schema: Schema) -> tokenizers.Tokenizer:
    """A tokenizer with a symbol for each text of the schema."""
    texts = ["some words here\n\n", "and other words there\n\n"] * 50
    return tokenizers.train(texts, schema.symbols(), 400)


def toy(tokenizer: tokenizers.Tokenizer, schema: Schema, seed: int) -> Tiny:
    """A tiny model that often ends its rationale itself, before the cap does."""
    tiny = Tiny.make(SMALL, tokenizer, schema, seed, scale=3.0)
    text, end = tiny.weights.text, int(np.argmax(tiny.program.ends))
    head = None if text.head is None else text.head.at[:, end].multiply(4)
    text = dataclasses.replace(text, embed=text.embed.at[end].multiply(4), head=head)
    weights = dataclasses.replace(tiny.weights, text=text)
    return dataclasses.replace(tiny, weights=weights, patches=8)


@pytest.fixture(scope="module")
def keyframes(digits: tokenizers.JsonTokenizer) -> Tiny:
    """Up to five blocks of values of several tokens, after a rationale."""
    return toy(digits, KEYFRAMES, 109)


@pytest.fixture(scope="module")
def windowed(digits: tokenizers.JsonTokenizer) -> Tiny:
    """The same in a window of two."""
    bounded = Repeat(most=5, window=2)
    return toy(digits, dataclasses.replace(KEYFRAMES, repeat=bounded), 43)


@pytest.fixture(scope="module")
def frames() -> Tiny:
    """Blocks without end of values of one token, in a window of eight."""
    return toy(made_for(FRAMES), FRAMES, 6)


def ids_of(tiny: Tiny, made: Generated, with_rationale: bool = True) -> list[list[int]]:
    return [answer_ids(tiny.program, made, row, with_rationale) for row in range(len(made.choices))]


def check_lossless(
    tiny: Tiny, count: int, temperature: float, plans: tuple[DraftPlan, ...], **repeated: Any
) -> tuple[Generated, int]:
    """Every plan's answers beside the reference's, and their score; the last and all ties."""
    images, drawn, ties = shown(count), sampling(count, temperature), 0
    reference, gaps = tiny.reference(images, drawn, max_words=CAP, **repeated)
    for plan in plans:
        made = tiny.answer(images, drawn, plan, max_words=CAP, **repeated)
        ties += count_ties(ids_of(tiny, made), reference, gaps)
        check_score(tiny, images, made, drawn, **repeated)
    return made, ties


def check_score(
    tiny: Tiny, images: list[np.ndarray], made: Generated, drawn: Any, **repeated: Any
) -> None:
    """Scoring certifies the answers, with the log-probabilities that generation reports."""
    scored = tiny.certificate(images, made, drawn, **repeated)
    assert (scored.least_margin > -1e-5).all()
    real = np.arange(made.choices.shape[1]) < made.repeats[:, None]
    taken = np.take_along_axis(made.log_probabilities, made.choices[..., None], -1)[..., 0]
    np.testing.assert_allclose(scored.slots, np.where(real[..., None], taken, 0), atol=2e-5)
    last = np.arange(made.choices.shape[1]) == made.repeats[:, None] - 1
    stops = np.where(last, made.stop_log_probabilities[..., 1], made.stop_log_probabilities[..., 0])
    np.testing.assert_allclose(scored.stops, np.where(real, stops, 0), atol=2e-5)
    spoken = made.rationale_log_probabilities
    # Large weights: of 1,800 log-probabilities of a sweep one differs by 1.4e-5.
    atol = 1e-5 if len(images) <= 12 else 2e-5
    np.testing.assert_allclose(scored.rationale[:, : spoken.shape[1]], spoken, atol=atol)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_up_to_a_bound(keyframes: Tiny, temperature: float) -> None:
    made, ties = check_lossless(keyframes, 12, temperature, (SEQUENTIAL, PLAN))
    assert ties == 0 and 0 < made.truncated.sum() < 12
    assert {1, 5} <= set(made.repeats.tolist())  # the model ends the array, or the bound does
    slots = made.repeats * len(keyframes.program.kind)
    assert made.block_passes.sum() < slots.sum()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_up_to_a_bound_in_a_window(windowed: Tiny, temperature: float) -> None:
    made, ties = check_lossless(windowed, 12, temperature, (NARROW,))
    assert ties == 0 and (made.repeats > 3).any()  # some had to leave the window


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", ["keyframes", "windowed"])
def test_300_answers(request: pytest.FixtureRequest, name: str, temperature: float) -> None:
    tiny = request.getfixturevalue(name)
    _, ties = check_lossless(tiny, 300, temperature, (PLAN,))
    print(f"{name}, temperature {temperature}: {ties} of 300 answers differ from a tie on")
    assert ties <= 3


def test_without_end(frames: Tiny) -> None:
    for temperature in (0.0, 1.0):
        made, ties = check_lossless(frames, 3, temperature, (PLAN,), most=25)
        assert ties == 0 and (made.repeats == 25).all()
        assert (made.stop_log_probabilities[:, :-1, 0] == 0).all()  # nothing to choose


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_1000_repeats(frames: Tiny, temperature: float) -> None:
    made, ties = check_lossless(frames, 3, temperature, (PLAN,), most=1000)
    print(f"temperature {temperature}: {ties} of 3 answers of 1,000 blocks differ from a tie on")
    assert ties <= 1 and (made.repeats == 1000).all()


def conditions(tiny: Tiny, rows: int, count: int) -> np.ndarray:
    """Two features before each of `count` blocks."""
    shape = (rows, count, 2, tiny.config.text.hidden_size)
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def test_blocks_conditioned_on_features(frames: Tiny) -> None:
    features = conditions(frames, 3, 12)
    given = {"most": 12, "features": features}
    made, ties = check_lossless(frames, 3, 1.0, (SEQUENTIAL, NARROW), **given)
    other = np.array(features)
    other[:, 6:] *= -1
    changed = frames.answer(
        shown(3), sampling(3, 1.0), NARROW, max_words=CAP, most=12, features=other
    )
    assert ties == 0 and (changed.choices[:, :6] == made.choices[:, :6]).all()
    assert (changed.choices[:, 6:] != made.choices[:, 6:]).any((1, 2)).all()
    with pytest.raises(ValueError, match="features for 12 blocks, expected 13"):
        frames.answer(shown(3), sampling(3, 1.0), NARROW, max_words=CAP, most=13, features=features)


def streamed(tiny: Tiny, count: int, plan: DraftPlan, **repeated: Any) -> list[Any]:
    batch = tiny.inputs(shown(count), True)
    at_rest = tiny.program.nearest(np.zeros((count, tiny.program.named), np.float32))
    draft = Draft(np.zeros((count, 2), np.int32), at_rest, None, plan.low_precision_passes)
    parts = stream(
        tiny.weights,
        batch,
        jax.device_put(tiny.program),
        draft,
        sampling(count, 1.0),
        tiny.config,
        plan,
        CAP,
        low_precision=tiny.drafting(plan),
        **repeated,
    )
    return list(parts)


def check_streamed(parts: list[Any], made: Generated) -> None:
    """The parts beside the answer made in a single call."""
    rationale, *filled = parts
    assert isinstance(rationale, Rationale)
    assert (rationale.ids == made.rationale_ids).all()
    assert len(filled) == made.repeats.max()
    for number, each in enumerate(filled):
        assert (each.active == (made.repeats > number)).all()
        real = np.asarray(each.active)
        assert (each.choices[real, :-1] == made.choices[real, number]).all()
        np.testing.assert_allclose(
            each.log_probabilities[real, :-1], made.log_probabilities[real, number], atol=2e-5
        )


def test_an_answer_in_parts(keyframes: Tiny) -> None:
    made = keyframes.answer(shown(12), sampling(12, 1.0), PLAN, max_words=CAP)
    check_streamed(streamed(keyframes, 12, PLAN), made)


def test_parts_without_end_take_two_programs(frames: Tiny) -> None:
    features = conditions(frames, 3, 12)
    made = frames.answer(
        shown(3), sampling(3, 1.0), NARROW, max_words=CAP, most=12, features=features
    )
    before = stream_module._next._cache_size()
    check_streamed(streamed(frames, 3, NARROW, features=features.swapaxes(0, 1)), made)
    assert stream_module._next._cache_size() == before + 1


def small(repeat: Repeat) -> Tiny:
    """Values of one token and no rationale: programs that compile soon."""
    schema = dataclasses.replace(KEYFRAMES, paragraphs=False, repeat=repeat)
    return toy(made_for(schema), schema, 8)


Mutation = Callable[[pytest.MonkeyPatch], None]


def never_stop(patch: pytest.MonkeyPatch) -> None:
    real = SlotProgram.at_repeat
    patch.setattr(SlotProgram, "at_repeat", lambda self, last: without_stop(real(self, last), last))


def without_stop(program: SlotProgram, last: Any) -> SlotProgram:
    """The end symbol is allowed at the last block alone."""
    kind, stop = program.kind[-1], program.step_symbol[program.kind[-1], STOP, 0]
    allowed = program.allowed.at[kind, 0, stop].set(last)
    return program.replace(allowed=allowed, valid=program.valid.at[kind, STOP].set(last))


def evict_the_newest(patch: pytest.MonkeyPatch) -> None:
    real = repeats.evicted
    patch.setattr(
        repeats, "evicted", lambda state, at, count, c: real(state, state.fed - count, count, c)
    )


def leave_keys_unrotated(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(window.text, "rotated", lambda keys, by, config: keys)


def count_from_the_window(patch: pytest.MonkeyPatch) -> None:
    """Noise numbered by what is in the cache, as if nothing had left it."""
    real = block.noise_after

    def mutant(pending: block.Pending, *rest: Any) -> Any:
        return real(dataclasses.replace(pending, ordinal=pending.first), *rest)

    patch.setattr(drafted, "noise_after", mutant)


def keep_the_last_draft(patch: pytest.MonkeyPatch) -> None:
    """The stop slot's draft stays in the cache, and what was chosen follows it."""
    real = repeats.layout

    def mutant(*arguments: Any) -> Any:
        laid = real(*arguments)
        return laid.replace(root=laid.root.at[:, -1].add(1))

    patch.setattr(repeats, "layout", mutant)


BOUNDED, ENDLESS = Repeat(most=5), Repeat(window=2)


@pytest.mark.parametrize(
    ("repeat", "mutate"),
    [
        (BOUNDED, None),
        (BOUNDED, never_stop),
        (ENDLESS, None),
        (ENDLESS, evict_the_newest),
        (ENDLESS, leave_keys_unrotated),
        (ENDLESS, count_from_the_window),
        (ENDLESS, keep_the_last_draft),
    ],
)
def test_mutants_are_caught(
    repeat: Repeat, mutate: Mutation | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny, drawn, most = small(repeat), sampling(12, 1.0), repeat.most or 8
    reference, gaps = tiny.reference(shown(12), drawn, False, most=most)
    # A function of its own: jax would find the sound one's trace again.
    fresh = jax.jit(
        lambda *args, **more: generate.__wrapped__(*args, **more, most=most),
        static_argnums=(5, 6, 7, 8),
    )
    monkeypatch.setattr("tests.decode.lossless.generate", fresh)
    if mutate is not None:
        mutate(monkeypatch)
    made = tiny.answer(shown(12), drawn, DraftPlan(), False)
    if mutate is None:
        assert count_ties(ids_of(tiny, made, False), reference, gaps) == 0
        return
    with pytest.raises(NotEqualError):
        count_ties(ids_of(tiny, made, False), reference, gaps)


def test_a_shorter_answer_is_scored_as_the_same_longer_one() -> None:
    """Stopping below the bound is a choice, however many blocks the arrays have room for."""
    tiny, drawn = small(BOUNDED), sampling(12, 1.0)
    made = tiny.answer(shown(12), drawn, DraftPlan(), False)
    whole = tiny.certificate(shown(12), made, drawn, False)
    rows = made.repeats <= 2
    assert rows.sum() > 2
    fewer = dataclasses.replace(
        made, choices=made.choices[:, :2], repeats=np.minimum(made.repeats, 2)
    )
    short = tiny.certificate(shown(12), fewer, drawn, False)
    np.testing.assert_allclose(short.slots[rows], whole.slots[rows, :2], atol=1e-5)
    np.testing.assert_allclose(short.stops[rows], whole.stops[rows, :2], atol=1e-5)
    assert (short.stops[rows, 0] < 0).all()


def test_what_a_schema_refuses() -> None:
    for arguments, reason in (
        ({}, "needs a window"),
        ({"most": 1}, "most is 1"),
        ({"window": 0}, "window is 0"),
        ({"most": 3, "separator": "]"}, "the separator another"),
    ):
        with pytest.raises(SchemaError, match=reason):
            Repeat(**arguments)  # type: ignore[arg-type]


def test_the_text_and_its_json_schema() -> None:
    numbers = np.array([[0.1, -0.1, 1.0], [0.3, 0.0, 0.5]])
    text = KEYFRAMES.format(numbers)
    assert text == '[{"time": 0.1, "a": -0.1, "b": 1.0}, {"time": 0.3, "a": 0.0, "b": 0.5}]'
    validator = jsonschema.Draft202012Validator(KEYFRAMES.json_schema())
    one = json.loads(text)[:1]
    validator.validate(json.loads(text))
    for wrong in ([], one * 6, one[0], [one[0] | {"b": 2.0}]):
        assert not validator.is_valid(wrong)
    assert "maxItems" not in FRAMES.json_schema()


def test_the_program_fits_the_canonical_tokens(keyframes: Tiny, frames: Tiny) -> None:
    generator = np.random.default_rng(0)
    for tiny, schema in ((keyframes, KEYFRAMES), (frames, FRAMES)):
        program, tokenizer = tiny.program, tiny.tokenizer
        for count in (1, 2, 5):
            numbers = generator.uniform(schema.low, schema.high, (count, 3))
            choices = program.nearest(numbers)
            values = program.values[program.kind[:3], choices]
            ids = tokenizer.encode(schema.format(values) + tokenizers.IM_END)
            assert ids == program.answer(choices) + program.closing.tolist()


def test_bounds_are_checked(keyframes: Tiny, frames: Tiny) -> None:
    for tiny, most in ((keyframes, 6), (keyframes, 0), (frames, None), (frames, 0)):
        with pytest.raises(ValueError, match="most is"):
            repeats.most_repeats(tiny.program, most)
    assert repeats.most_repeats(frames.program, 10**6) == 10**6
