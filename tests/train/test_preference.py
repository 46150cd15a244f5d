"""Preference training of a tiny model on packed groups of answers."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sf_jax.model import text
from sf_jax.model.config import Config
from sf_jax.model.lora import LoraConfig
from sf_jax.model.weights import Weights
from sf_jax.sequence import images
from sf_jax.sequence.batch import Batch
from sf_jax.sequence.example import Example, assemble
from sf_jax.sequence.forward import forward
from sf_jax.sequence.packing import PackedBatches
from sf_jax.train import groups
from sf_jax.train import mesh as meshes
from sf_jax.train.groups import Group, GroupBatch, GroupError
from sf_jax.train.hooks import HookConfig
from sf_jax.train.losses.supervised import SlotValues
from sf_jax.train.optimizer import OptimizerConfig
from sf_jax.train.preference import (
    REFERENCE,
    Compared,
    Dpo,
    Grpo,
    Ipo,
    Kto,
    Objective,
    Predictions,
    PreferenceTask,
    answer_log_probabilities,
    with_old,
)
from sf_jax.train.task import Feed, RunConfig, run
from sf_jax.train.trainable import Trainable
from tests import compiling

IMAGE, START, END, PAD = 7, 8, 9, 0
END_OF_ANSWER = PAD  # the hard case: the token that ends an answer is that of padding
VALUES = SlotValues(
    np.arange(30, 34), np.linspace(0, 1, 4, dtype=np.float32), np.ones((2, 4)) > 0, 1 / 3
)


def conversation(
    config: Config, image: np.ndarray, answer: Sequence[int], counted: Sequence[float] | None = None
) -> Example:
    """An image and an answer of tokens, and of the one that ends it."""
    tokens = np.prod(images.token_grid(image, config.vision))
    prompt = [1, START, *[IMAGE] * int(tokens), END, 5]
    inserts = images.image_inserts(prompt, [image], config)
    return Example.of(prompt, inserts, [*answer, END_OF_ANSWER], weights=counted, where="pair ab12")


def with_slots(config: Config, image: np.ndarray, numbers: Sequence[float]) -> Example:
    """An image and two slots, of which the second does not count."""
    example = conversation(config, image, [40, 30, 41, 31])
    at = len(example.tokens) - 4  # the states before the values
    slots, (exact, weights) = np.zeros(len(example.tokens), np.int32), np.zeros((2, at + 4))
    slots[[at, at + 2]], exact[[at, at + 2]], weights[at] = [1, 2], numbers, 1.0
    zeros = np.zeros_like(example.loss_weights)
    return replace(
        example,
        loss_weights=zeros,
        slots=slots,
        numbers=exact.astype(np.float32),
        slot_weights=weights.astype(np.float32),
    )


@pytest.fixture(scope="module")
def host_weights(tiny_weights: Weights) -> Weights:
    """Copies, since a step gives away the memory of what it has trained."""
    return jax.tree.map(np.array, tiny_weights)


@pytest.fixture(scope="module")
def pairs(tiny_config: Config, pictures: list[np.ndarray]) -> list[Group]:
    """Pairs with answers of different lengths about different images."""
    g = np.random.default_rng(3)
    made = []
    for number in range(5):
        image = pictures[number % 3]
        answers = [g.integers(20, 200, int(g.integers(2, 7))).tolist() for _ in range(2)]
        both = tuple(conversation(tiny_config, image, answer) for answer in answers)
        made.append(Group(number, f"pair {number}", both))
    return made


def task_of(config: Config, **options: Any) -> PreferenceTask:
    made = {"rows": 2, "length": 96, "patches": 144, "group_count": 3} | options
    return PreferenceTask(config, **made)


@pytest.fixture(scope="module")
def task(tiny_config: Config) -> PreferenceTask:
    return task_of(tiny_config, trainable=None)


@pytest.fixture(scope="module")
def known(task: PreferenceTask, tiny_weights: Weights, pairs: list[Group]) -> np.ndarray:
    return answer_log_probabilities(task, tiny_weights, pairs)


@pytest.fixture(scope="module")
def token_logs(tiny_config: Config, tiny_weights: Weights) -> Callable[[Example], np.ndarray]:
    """Example → log-probability of each token by the whole softmax, in a row of its own."""
    capacity = images.capacity(tiny_config, 24, 24)

    @jax.jit
    def of_row(batch: Batch) -> jax.Array:
        states, _ = forward(tiny_weights, batch, tiny_config)
        logs = jax.nn.log_softmax(text.logits(tiny_weights.text, states))[0]
        return jnp.take_along_axis(logs[:-1], batch.targets[0, 1:, None], 1)[:, 0]

    def of_example(example: Example) -> np.ndarray:
        found = np.asarray(of_row(assemble([[example]], capacity)))
        return np.concatenate([[0], found])[: len(example.tokens)]

    return of_example


def test_packed_answers_are_as_likely_as_alone(
    token_logs: Callable[[Example], np.ndarray], pairs: list[Group], known: np.ndarray
) -> None:
    """The token that ends them counts, and no padding does, although both are the same token."""
    assert known.shape == (5, 2)
    for group, found in zip(pairs, known, strict=True):
        for answer, summed in zip(group.answers, found, strict=True):
            logs = token_logs(answer)
            start = int(np.argmax(answer.loss_weights > 0))
            assert answer.tokens[-1] == PAD and logs[-1] < -0.1
            assert summed == pytest.approx(logs[start:].sum(), rel=1e-4)


@pytest.fixture(scope="module")
def both(
    tiny_config: Config, tiny_weights: Weights, pairs: list[Group], known: np.ndarray
) -> tuple[PreferenceTask, PreferenceTask, GroupBatch, GroupBatch]:
    """Tasks whose reference is known, and a companion; the same pairs as batches of both."""
    cached, companion = (task_of(tiny_config, companion=there) for there in (False, True))
    given = [replace(pair, reference=logs) for pair, logs in zip(pairs, known, strict=True)]
    rows = [given[:3], given[3:]]
    return cached, companion, cached.build(rows), companion.build(rows)


def test_a_policy_that_is_its_own_reference_has_a_loss_of_ln_2(
    tiny_weights: Weights, both: tuple[PreferenceTask, PreferenceTask, GroupBatch, GroupBatch]
) -> None:
    """Whether the reference is asked anew or its answers were kept."""
    cached, companion, batch, bare = both
    assert batch.reference is not None and bare.reference is None
    asked = {REFERENCE: tiny_weights}
    for task, weights, given in (
        (cached, tiny_weights, batch),
        (companion, (tiny_weights, asked), bare),
    ):
        value, metrics = jax.jit(task.loss)(weights, given)
        assert float(metrics["weight"]) == 5
        assert float(value) == pytest.approx(5 * np.log(2), rel=1e-4)
        assert abs(float(metrics["margin"])) < 1e-2
    moved = jax.tree.map(lambda x: x * 1.01, tiny_weights)
    for task, weights, given in (
        (cached, moved, batch),
        (companion, (moved, asked), bare),
        (companion, (tiny_weights, {REFERENCE: moved}), bare),
    ):
        value, metrics = jax.jit(task.loss)(weights, given)
        assert abs(float(metrics["margin"])) > 1e-2 and float(value) != 5 * np.log(2)


def test_another_image_changes_policy_and_reference(
    task: PreferenceTask,
    tiny_weights: Weights,
    pairs: list[Group],
    known: np.ndarray,
    tiny_config: Config,
    pictures: list[np.ndarray],
) -> None:
    """Both are asked by one function, with weights of their own."""
    changed = []
    for number, pair in enumerate(pairs):
        darker = (pictures[number % 3] // 3).astype(np.uint8)
        inserts = images.image_inserts(pair.answers[0].tokens, [darker], tiny_config)
        changed.append(
            replace(pair, answers=tuple(replace(a, inserts=inserts) for a in pair.answers))
        )
    found = answer_log_probabilities(task, tiny_weights, changed)
    assert (np.abs(found - known) > 1e-3).all()


def predictions_of(batch: GroupBatch, seed: int, slots: bool = False) -> Predictions:
    rows = batch.rows
    weights = rows.slot_weights if slots else rows.loss_weights
    assert weights is not None
    logs = -np.random.default_rng(seed).gamma(1, 1, weights.shape).astype(np.float32)
    return Predictions(jnp.asarray(logs), jnp.asarray(weights), jnp.asarray(rows.segments))


@pytest.mark.parametrize("objective", [Dpo(supervised=0.5), Ipo(), Kto(), Grpo(2)])
def test_what_does_not_count_has_no_gradient(
    tiny_config: Config, pictures: list[np.ndarray], objective: Objective
) -> None:
    """Exactly none, in every objective, and the losses of groups are summed by their weights."""
    pair = [with_slots(tiny_config, pictures[2], numbers) for numbers in ([0, 1], [1, 0])]
    answers = (*pair, *[pair[0]] * (objective.answers - 2))
    made = [
        Group(
            i,
            "pair",
            answers,
            weight,
            reference=np.full(objective.answers, -2.0),
            advantages=np.array([1.0, -1.0]) if objective.needs_advantages else None,
        )
        for i, weight in enumerate((1.0, 0.5))
    ]
    task = task_of(tiny_config, values=VALUES, objective=objective)
    batch = task.build([made, []])
    predictions = predictions_of(batch, 1, slots=True)

    def loss(logs: jax.Array) -> tuple[jax.Array, Any]:
        return task.loss_of(replace(predictions, log_probabilities=logs), None, batch)

    (_, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(predictions.log_probabilities)
    counted = batch.rows.slot_weights > 0
    assert counted.sum() == 2 * objective.answers and float(metrics["weight"]) == 1.5
    np.testing.assert_array_equal(np.asarray(gradient)[~counted], 0)
    moved = np.abs(np.asarray(gradient)[counted]) > 1e-4
    assert moved.sum() == 4  # but for the answers to another prompt, which KTO asks of alone


@pytest.mark.parametrize("objective", [Dpo(supervised=0.5), Ipo(), Kto(undesirable_weight=1.7)])
def test_a_judgement_in_doubt_is_in_part_the_other_one(objective: Objective) -> None:
    """A share for the other answer is what is left of 1 with both exchanged; a tie favours none."""
    g = np.random.default_rng(0)
    sums, frozen = -g.gamma(2, 2, (2, 1, 5, 3))
    lengths = g.integers(1, 9, (1, 5, 3)).astype(float)
    doubt = np.array([[0.0, 0.1, 0.25, 0.5, 1.0]])

    def losses(chosen: int, doubt: np.ndarray) -> np.ndarray:
        order = [chosen, 1 - chosen, 2]
        of = [jnp.asarray(each[..., order]) for each in (sums, frozen, lengths)]
        batch = GroupBatch(None, jnp.ones((1, 5)), jnp.asarray(doubt))  # type: ignore[arg-type]
        return np.asarray(objective.losses(Compared(None, None, *of), batch))  # type: ignore[arg-type]

    given, sure = losses(0, doubt), losses(0, np.zeros((1, 5)))
    np.testing.assert_allclose(losses(1, 1 - doubt), given, rtol=1e-4)
    np.testing.assert_allclose(losses(1, doubt)[0, 3], given[0, 3], rtol=1e-4)
    assert (np.abs(given - sure)[0, 1:] > 1e-3).all() and given[0, 0] == sure[0, 0]


def refused(config: Config, example: Example, **room: int) -> str:
    group = Group(0, "pair ab12", (example, example))
    with pytest.raises(GroupError) as caught:
        task_of(config, **room).room.size(group)
    return str(caught.value)


def test_what_would_be_cut_off_or_is_missing_is_refused_by_name(
    tiny_config: Config, pictures: list[np.ndarray]
) -> None:
    """Each of these was trained on in silence by some public trainer."""
    sound = conversation(tiny_config, pictures[0], [30, 31])
    assert task_of(tiny_config).room.size(Group(0, "pair ab12", (sound, sound))) == (26, 48)
    text = refused(tiny_config, sound, length=25)
    assert text.startswith("pair ab12: its answers take 26 tokens together") and "25" in text
    text = refused(tiny_config, sound, patches=44)
    assert "its images take 48 patches together, and a row has room for 44" in text
    cut = {
        name: getattr(sound, name)[:6] for name in ("tokens", "targets", "loss_weights")
    }  # a text cut to 6 tokens
    text = refused(tiny_config, replace(sound, **cut))
    assert text.startswith("pair ab12: 2 of the 6 tokens of an image are cut off")
    text = refused(tiny_config, replace(sound, inserts=()))
    assert text == "pair ab12: 6 image tokens for images of 0: an image or its grid is missing"
    blank = np.zeros_like(sound.loss_weights)
    assert "no token or slot" in refused(tiny_config, replace(sound, loss_weights=blank))
    with pytest.raises(GroupError, match=r"pair ab12: reference is .*, expected 2 numbers"):
        Group(0, "pair ab12", (sound, sound), reference=np.array([np.nan, 0]))
    with pytest.raises(GroupError, match="pair ab12: it has 1 answers, and the objective needs 2"):
        task_of(tiny_config).room.size(Group(0, "pair ab12", (sound,)))
    with pytest.raises(GroupError, match="pair ab12: it has no reference"):
        task_of(tiny_config).build([[Group(0, "pair ab12", (sound, sound))]])
    many = [Group(i, "pair", (sound, sound), reference=np.zeros(2)) for i in range(4)]
    with pytest.raises(GroupError, match="4 groups in a row, which has room for 3"):
        task_of(tiny_config).build([many])


def test_groups_fill_rows_in_their_order(tiny_config: Config, pictures: list[np.ndarray]) -> None:
    small = conversation(tiny_config, pictures[2], [30, 31])  # 9 tokens, 8 patches
    pairs = [Group(i, "pair", (small, small)) for i in range(7)]
    room = task_of(tiny_config, length=60).room
    assert [[g.number for g in row] for row in groups.in_rows(pairs, room)] == [
        [0, 1, 2],
        [3, 4, 5],
        [6],
    ]
    tight = task_of(tiny_config, length=40).room
    assert [len(row) for row in groups.in_rows(pairs, tight)] == [2, 2, 2, 1]


ADAPTED = Trainable(None, LoraConfig(rank=4, alpha=8.0, targets=r".*language_model.*_proj"))


@pytest.mark.parametrize(
    ("objective", "trained"),
    [
        pytest.param(Dpo(), Trainable(), marks=pytest.mark.slow),  # the system's test takes it too
        pytest.param(Kto(beta=1.0), ADAPTED, marks=pytest.mark.slow),
        pytest.param(Ipo(beta=0.5), Trainable(), marks=pytest.mark.slow),
    ],
)
def test_training_raises_what_was_chosen(
    tiny_config: Config,
    host_weights: Weights,
    pairs: list[Group],
    tmp_path: Path,
    objective: Objective,
    trained: Trainable,
) -> None:
    """Of packed rows, full or by adapters, in microbatches, over the loop that every task takes."""
    task = task_of(
        tiny_config,
        objective=objective,
        trainable=trained,
        accumulate=2,
        optimizer=OptimizerConfig(3e-3, 8, 0, kind="adamw"),
    )
    unlike = [pairs[(i + 3) % len(pairs)].answers[0] for i in range(len(pairs))]
    answers = [(*p.answers, u)[: objective.answers] for p, u in zip(pairs, unlike, strict=True)]
    given = [replace(pair, answers=each) for pair, each in zip(pairs, answers, strict=True)]
    known = answer_log_probabilities(task, host_weights, given)
    frozen = [replace(pair, reference=logs) for pair, logs in zip(given, known, strict=True)]

    def source(number: int) -> Group:
        return replace(frozen[number % len(frozen)], number=number)

    batches = PackedBatches(
        source, task.capacity(), row_count=2, pool=4, build=task.build, size=task.room.size
    )
    mesh = meshes.make({}, jax.devices()[:1])
    config = RunConfig(save_every=8, beside=HookConfig(log_every=1))
    state = task.create(host_weights, mesh)
    state = run(task, state, Feed(batches), mesh, tmp_path, config)
    weights = jax.jit(task.join)(state.weights, state.frozen)
    moved = answer_log_probabilities(task, weights, given) - known
    margins = moved[:, 0] - moved[:, 1]
    print(f"\n{type(objective).__name__}: margins {np.round(margins, 2)}")
    assert margins.min() > 0 and margins.mean() > 0.5
    logged = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert '"margin"' in logged[-1] and '"groups/s"' in logged[-1]


@pytest.mark.slow
def test_groups_raise_what_earns_more(
    tiny_config: Config, host_weights: Weights, pairs: list[Group]
) -> None:
    """By batches used twice, held to a reference that is a companion."""
    task = task_of(
        tiny_config,
        objective=Grpo(2, beta=0.01, needs_old=True),
        companion=True,
        optimizer=OptimizerConfig(3e-3, 8, 0, kind="adamw"),
    )
    given = [replace(pair, advantages=np.array([-1.0, 1.0])) for pair in pairs]
    room = replace(task.room, optional=("advantages",))
    batches = [groups.build([row, []], room) for row in groups.in_rows(given, room)]
    batches = with_old(task, host_weights, batches)
    mesh = meshes.make({}, jax.devices()[:1])
    state = task.create(host_weights, mesh, companions={REFERENCE: host_weights})
    step, losses = task.build_step(mesh), []
    before = answer_log_probabilities(task, host_weights, given)
    for _ in range(4):
        for batch in batches:
            state, metrics = step(state, meshes.put(batch, mesh))
            losses.append(float(metrics["loss"]))
    assert losses[0] == pytest.approx(0, abs=1e-4) and losses[-1] < -0.05
    moved = answer_log_probabilities(task, task.join(state.weights, state.frozen), given) - before
    assert (moved[:, 1] - moved[:, 0] > 0).all()


@pytest.mark.slow
def test_eight_devices_take_the_step_of_one() -> None:
    """In float64; rows, weights and heads shared in two ways."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.groups_on_meshes"],
        env=compiling.environment(8),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 4
    for name, each in found.items():
        print(f"{name}: losses {each['loss']}, gradients {each['gradients']:.1e}")
        assert each["loss"][0] == pytest.approx(each["loss"][1], rel=1e-10), name
        assert each["loss"][0] > 0 and each["gradients"] < 1e-8, name
