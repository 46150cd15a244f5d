"""Drafted answers are the sequential ones, and both are the reference's."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.stats import chi2

from data_pipelines.sampler import sample
from sf_jax.decode import drafted
from sf_jax.decode.drafts import Draft, load_heads, save_heads
from sf_jax.decode.generate import SEQUENTIAL, DraftPlan, generate
from sf_jax.decode.program import SlotProgram, compile_program
from sf_jax.decode.schema import MEDIAN, VALUES_FIRST, Schema
from sf_jax.face import channels
from sf_jax.reader.schema import channel_schema
from sf_jax.sequence import tokenizer as tokenizers
from sf_jax.systems.semanticface.qwen_like import make_tokenizer
from sf_jax.systems.semanticface.sequences import vocabulary_texts
from sf_jax.train import draft_heads
from sf_jax.train.draft_heads import DraftHeadsConfig
from tests.decode.lossless import PLAN, SMALL, NotEqualError, Tiny, answer_ids, count_ties, sampling

SCHEMA = channel_schema()

BLENDSHAPES = channels.NAMES[:52]
NESTED = Schema(
    tuple(name[0].lower() + name[1:] for name in (*BLENDSHAPES[:6], "HeadYaw", "HeadPitch")),
    (0.0,) * 6 + (-1.0, -0.05), (1.0,) * 7 + (0.05,), decimals=2,
    groups=("",) + ("eyes",) * 5 + ("head",) * 2, paragraphs=True,
)  # fmt: skip
FINE = Schema(("JawOpen", "HeadRoll"), (0.0, -1.0), (1.0, 1.0), decimals=3, paragraphs=True)


def values_first(schema: Schema) -> Schema:
    """The same with the rationale after the block."""
    return dataclasses.replace(schema, order=VALUES_FIRST)


def median(schema: Schema) -> Schema:
    """The same whose values are the medians of their distributions."""
    return dataclasses.replace(schema, estimate=MEDIAN)


def whole_schema() -> Schema:
    """All 61 channels, for a model whose rationale may hold blank lines."""
    return dataclasses.replace(SCHEMA, paragraphs=True)


def digit_tokenizer(folder: Path) -> tokenizers.JsonTokenizer:
    """A byte-level tokenizer of single digits, as Qwen's."""
    make_tokenizer(folder)
    return tokenizers.JsonTokenizer.load(folder / "tokenizer.json")


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> tokenizers.JsonTokenizer:
    return digit_tokenizer(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def models(digits) -> dict[str, Tiny]:
    faces = np.stack([sample(i) for i in range(300)])
    symbols = tokenizers.train(vocabulary_texts(faces), SCHEMA.symbols(), 700)
    return {
        "symbols": Tiny.make(SMALL, symbols, SCHEMA, 3),
        "digits": Tiny.make(SMALL, digits, whole_schema(), 4),
        "nested": Tiny.make(SMALL, digits, NESTED, 5),
        "fine": Tiny.make(SMALL, digits, FINE, 6),
        "symbols, values first": Tiny.make(SMALL, symbols, values_first(SCHEMA), 3),
        "symbols, median": Tiny.make(SMALL, symbols, median(SCHEMA), 3),
        "symbols, values first, median": Tiny.make(SMALL, symbols, median(values_first(SCHEMA)), 3),
        "nested, values first": Tiny.make(SMALL, digits, values_first(NESTED), 5),
    }


def differing(tiny: Tiny, made, reference, gaps, with_rationale: bool = True) -> int:
    answers = [
        answer_ids(tiny.program, made, row, with_rationale) for row in range(len(made.choices))
    ]
    return count_ties(answers, reference, gaps)


@pytest.mark.parametrize(
    ("name", "with_rationale"),
    [
        ("symbols", True),
        ("symbols", False),
        ("digits", True),
        ("nested", True),
        ("fine", False),
        ("nested, values first", True),
        ("symbols, values first, median", True),
        pytest.param("symbols, median", True, marks=pytest.mark.slow),
        pytest.param("symbols, values first", True, marks=pytest.mark.slow),
        pytest.param("symbols, values first", False, marks=pytest.mark.slow),
    ],
)
def test_drafted_is_sequential_is_the_reference(models, pictures, name, with_rationale) -> None:
    tiny, batch = models[name], pictures * 2
    seen = set()
    for temperature in (0.0, 1.0):
        drawn = sampling(len(batch), temperature)
        reference, gaps = tiny.reference(batch, drawn, with_rationale)
        for plan in (PLAN, SEQUENTIAL):
            made = tiny.answer(batch, drawn, plan, with_rationale)
            assert differing(tiny, made, reference, gaps, with_rationale) == 0
            certificate = tiny.certificate(batch, made, drawn, with_rationale)
            assert (certificate.least_margin > -1e-5).all()
            spoken = made.rationale_log_probabilities
            found = certificate.rationale[:, : spoken.shape[1]]
            np.testing.assert_allclose(found, spoken, atol=1e-5)
            assert (spoken[:, 0] < 0).all() == with_rationale and (certificate.stops is None)
            np.testing.assert_allclose(
                certificate.slots,
                np.take_along_axis(made.log_probabilities, made.choices[..., None], 2)[..., 0],
                atol=2e-5,
            )
        seen |= {tuple(choices) for choices in made.choices}
        assert (made.block_passes >= len(tiny.program.kind)).all()  # the sequential
    assert len(seen) > 6  # sampling says other things than greed


def test_a_median_is_that_of_its_slots_distribution(models, pictures) -> None:
    likeliest = models["symbols, values first"].answer(pictures, sampling(3))
    made = models["symbols, values first, median"].answer(pictures, sampling(3))
    shares = np.exp(made.log_probabilities)
    below = (shares.cumsum(-1) < 0.5).sum(-1)
    certain = np.abs(shares.cumsum(-1) - 0.5).min(-1) > 1e-5
    assert certain.mean() > 0.9 and (made.choices == below)[certain].all()
    assert (made.choices != shares.argmax(-1)).any()
    assert (likeliest.choices == np.exp(likeliest.log_probabilities).argmax(-1)).mean() > 0.99


def test_a_median_needs_values_of_one_token(digits) -> None:
    with pytest.raises(tokenizers.TokenizerError, match="a median needs values of one token"):
        compile_program(median(NESTED), digits)


def test_passes_are_saved(models, pictures) -> None:
    tiny, drawn = models["symbols"], sampling(3)
    drafted = tiny.answer(pictures, drawn)
    assert (drafted.block_passes < 61).all() and (drafted.block_passes >= 2).all()
    known = Draft(drafted.rationale_ids, drafted.choices, None)
    trusting = dataclasses.replace(PLAN, low_precision_passes=0)
    again = tiny.answer(pictures, drawn, trusting, draft=known)
    assert (again.block_passes == 1).all() and (again.choices == drafted.choices).all()
    assert (again.rationale_ids == drafted.rationale_ids).all()
    assert (again.rationale_passes < drafted.rationale_passes).all()
    misleading = Draft(drafted.rationale_ids[::-1], (drafted.choices + 1) % 11, None)
    misled = tiny.answer(pictures, drawn, draft=misleading)
    assert (misled.choices == drafted.choices).all() and (
        misled.rationale_ids == drafted.rationale_ids
    ).all()


def test_low_precision_passes_save_others_and_change_nothing(models, pictures) -> None:
    tiny, drawn = models["symbols"], sampling(3)
    alone = tiny.answer(pictures, drawn, dataclasses.replace(PLAN, low_precision_passes=0))
    improved = tiny.answer(pictures, drawn, dataclasses.replace(PLAN, low_precision_passes=1))
    assert (improved.choices == alone.choices).all() and (
        improved.rationale_ids == alone.rationale_ids
    ).all()
    assert (improved.block_passes - 1).sum() < alone.block_passes.sum()
    other = Tiny.make(SMALL, tiny.tokenizer, SCHEMA, 77).weights
    misled = dataclasses.replace(tiny, low_precision=other).answer(pictures, drawn)
    assert (misled.choices == alone.choices).all() and (
        misled.rationale_ids == alone.rationale_ids
    ).all()
    assert (misled.block_passes > improved.block_passes).any()  # it has drafted


def test_stacked_layers_give_the_same(models, pictures) -> None:
    tiny = models["digits"]
    stacked = Tiny.make(SMALL, tiny.tokenizer, whole_schema(), 4, stacked=True)
    for plan in (DraftPlan(rationale_width=2, block_widths=(40,)), SEQUENTIAL):
        drawn = sampling(3, 0.5)
        made, other = tiny.answer(pictures, drawn, plan), stacked.answer(pictures, drawn, plan)
        assert (made.rationale_ids == other.rationale_ids).all() and (
            made.choices == other.choices
        ).all()


def test_draft_heads_change_passes_alone(models, pictures, tmp_path) -> None:
    tiny, drawn = models["symbols"], sampling(3)
    plain = tiny.answer(pictures, drawn)
    states, ids = tiny.rationale_states(pictures, plain)
    save_heads(tmp_path / "heads", draft_heads.learn(states, ids, DraftHeadsConfig(2, 8, 60)))
    text = tiny.config.text
    heads = load_heads(tmp_path / "heads", text.hidden_size, text.vocab_size)
    rest = np.zeros_like(plain.choices)
    draft = Draft(np.zeros((3, 2), np.int32), rest, heads)
    improved = tiny.answer(pictures, drawn, draft=draft)
    assert (improved.rationale_ids == plain.rationale_ids).all() and (
        improved.choices == plain.choices
    ).all()
    assert improved.rationale_passes.sum() < plain.rationale_passes.sum()


def test_draft_heads_that_do_not_fit_are_refused(tmp_path) -> None:
    heads = draft_heads.learn(
        [np.ones((3, 4), np.float32)], [np.array([5, 6, 7])], DraftHeadsConfig(2, 8, 1)
    )
    path = tmp_path / "heads"
    save_heads(path, heads)
    assert load_heads(path, 4, 8).tokens.tolist() == [5, 6, 7]
    for width, vocabulary, reason in ((5, 8, "enter has shape"), (4, 7, "outside a vocabulary")):
        with pytest.raises(ValueError, match=f"heads: {reason}|heads: .*{reason}"):
            load_heads(path, width, vocabulary)
    save_heads(path, heads.replace(leave=heads.leave[:, :1]))
    with pytest.raises(ValueError, match="leave has shape"):
        load_heads(path, 4, 8)
    save_heads(path, heads.replace(enter_bias=heads.enter_bias * np.nan))
    with pytest.raises(ValueError, match="enter_bias holds numbers that are not finite"):
        load_heads(path, 4, 8)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match="heads: not a readable safetensors file"):
        load_heads(path, 4, 8)
    with pytest.raises(ValueError, match="no tokens to learn"):
        draft_heads.learn([], [], DraftHeadsConfig(2, 8, 1))


def test_any_plan_gives_the_same(models, pictures) -> None:
    tiny, drawn = models["digits"], sampling(3, 0.7)
    first = tiny.answer(pictures, drawn)
    for plan in (
        DraftPlan(),
        DraftPlan(rationale_width=5, block_widths=(8,), growth=1),
        DraftPlan(low_precision_passes=3),
    ):
        made = tiny.answer(pictures, drawn, plan)
        assert (made.rationale_ids == first.rationale_ids).all() and (
            made.choices == first.choices
        ).all()


def test_a_batch_changes_nothing(models, pictures) -> None:
    """Neighbours differ in image size, in rationale and in how soon they are done."""
    tiny = models["digits"]
    for temperature in (0.0, 1.0):
        together = tiny.answer(pictures, sampling(3, temperature))
        for row, picture in enumerate(pictures):
            alone = tiny.answer([picture], sampling(1, temperature, first_seed=row))
            assert (alone.rationale_ids[0] == together.rationale_ids[row]).all()
            assert (alone.choices[0] == together.choices[row]).all()


def test_a_verifier_that_lets_one_wrong_draft_pass_is_caught(models, pictures, monkeypatch) -> None:
    """The check itself must be able to fail."""
    tiny, drawn = models["symbols"], sampling(3)
    reference, gaps = tiny.reference(pictures, drawn)
    real = drafted._repaired

    def lenient(choices, *rest):  # type: ignore[no-untyped-def]
        repaired, decided = real(choices, *rest)
        first = (repaired != choices).cumsum(1) == 1
        return jax.numpy.where(first, choices, repaired), decided

    monkeypatch.setattr(drafted, "_repaired", lenient)
    # A function of its own: jax would find the sound one's trace again.
    broken = jax.jit(
        lambda *args, **more: generate.__wrapped__(*args, **more), static_argnums=(5, 6, 7, 8)
    )
    monkeypatch.setattr("tests.decode.lossless.generate", broken)
    made = tiny.answer(pictures, drawn)
    with pytest.raises(NotEqualError):
        differing(tiny, made, reference, gaps)


TOY = Schema(("a", "b", "c"), (0.0, -0.1, 0.9), (0.3, 0.1, 1.1), paragraphs=True)


def test_samples_follow_the_joint_distribution(digits, pictures) -> None:
    check_joint(toy(digits), pictures[2], draws=10_000, batch=500)


def toy(tokenizer: tokenizers.Tokenizer) -> Tiny:
    """Slots that depend on each other strongly; for pictures of 32 x 64 pixels."""
    return dataclasses.replace(Tiny.make(SMALL, tokenizer, TOY, 9, scale=3.0), patches=8)


def check_joint(tiny: Tiny, picture: np.ndarray, draws: int, batch: int) -> float:
    """Chi-squared over all 36 answers of three slots, tree-shaped values among them."""
    counts = tiny.program.valid.sum(1)[tiny.program.kind]
    found = np.zeros(counts, int)
    for start in range(0, draws, batch):
        drawn = sampling(batch, 1.0, start)
        made = tiny.answer([picture] * batch, drawn, DraftPlan(), with_rationale=False)
        np.add.at(found, tuple(made.choices.T), 1)
    expected = draws * np.exp(joint(tiny, picture, counts))
    np.testing.assert_allclose(expected.sum(), draws, rtol=1e-4)
    probability = chi2.sf((np.square(found - expected) / expected).sum(), found.size - 1)
    assert probability > 0.001
    # A sampler that drew each slot from its own marginal would be caught.
    marginals = [found.sum(tuple({0, 1, 2} - {axis})) / draws for axis in range(3)]
    independent = draws * np.einsum("a,b,c->abc", *marginals)
    assert chi2.sf((np.square(independent - expected) / expected).sum(), found.size - 1) < 1e-6
    return float(probability)


def joint(tiny: Tiny, picture: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Log-likelihood of every answer, each scored on its own."""
    every = np.array(list(np.ndindex(*counts)), np.int32)
    drawn = sampling(len(every))
    made = tiny.answer([picture] * len(every), drawn, SEQUENTIAL, with_rationale=False)
    made = dataclasses.replace(made, choices=every)
    scored = tiny.certificate([picture] * len(every), made, drawn, with_rationale=False)
    return scored.slots.sum(1).reshape(counts)


def test_the_program_is_small(models: dict[str, Tiny]) -> None:
    """A few kilobytes on the device, beside one flag for each token of the vocabulary."""

    def size(program: SlotProgram) -> int:
        flags = dataclasses.replace(program, banned=None, ends=None)
        return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(flags))

    assert size(models["symbols"].program) < 16_000
