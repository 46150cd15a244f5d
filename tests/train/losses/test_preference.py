"""Objectives over preferences: equal to TRL's, and what each of them must do by itself."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sf_jax.model.config import Config
from sf_jax.sequence.example import Example
from sf_jax.train.groups import Group
from sf_jax.train.losses import preference
from sf_jax.train.preference import Dpo, Grpo, Ipo, Kto, Objective, Predictions, PreferenceTask
from tests.convert.torch_python import run_torch

N, T = 6, 5  # pairs, tokens of an answer


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def log_probabilities(seed: int, *shape: int) -> np.ndarray:
    """Of few digits, so that sums of them are exact in float32, as batches have them."""
    return -np.round(1024 * np.random.default_rng(seed).gamma(1.0, 1.5, shape)) / 1024


def lengths(seed: int, count: int) -> np.ndarray:
    """A mask [count, T] of answers of different lengths."""
    return (np.arange(T) < np.random.default_rng(seed).integers(1, T + 1, count)[:, None]) * 1


def pair_case(kind: str, beta: float, smoothing: float) -> tuple[str, dict[str, Any]]:
    """For a single pair, TRL's "aot" with label smoothing is cDPO, which it has no name for."""
    count = 1 if kind == "aot" else N
    policy, mask = log_probabilities(1, 2 * count, T), lengths(2, 2 * count)
    reference = (log_probabilities(3, 2 * count, T) * mask).sum(1)
    arrays = {"policy": policy, "reference": reference, "mask": mask}
    return "pairs", {**arrays, "kind": kind, "beta": beta, "smoothing": smoothing}


def answer_case(apart: float, weight: float) -> tuple[str, dict[str, Any]]:
    """Single answers, and answers to other prompts that show a divergence `apart`, each for two."""
    unlike = log_probabilities(6, N // 2, T).repeat(2, 0)
    return "kto", {
        "policy": log_probabilities(4, N, T),
        "reference": log_probabilities(5, N, T).sum(1),
        "unlike": unlike,
        "unlike_reference": unlike.sum(1) - apart,
        "desirable": np.array([True, False, False, True, True, False]),
        "beta": 0.3,
        "weights": np.array([1.0, weight]),
    }


REWARDS = np.random.default_rng(10).normal(size=(2, 3))


def group_case(beta: float, clip: tuple[float, float]) -> tuple[str, dict[str, Any]]:
    policy = log_probabilities(7, N, T)
    old, reference = policy + np.random.default_rng(9).normal(0, 0.3, (2, N, T))
    return "grpo", {
        "policy": policy,
        "old": old,
        "reference": reference,
        "advantages": np.asarray(preference.group_advantages(jnp.asarray(REWARDS))).reshape(N),
        "mask": lengths(8, N),
        "beta": beta,
        "clip": np.array(clip),
    }


PAIRS = [
    (kind, beta, smoothing)
    for kind, smoothing in (("sigmoid", 0.0), ("ipo", 0.0), ("aot", 0.1), ("aot", 0.4))
    for beta in (0.1, 2.0)
]
ANSWERS = [(apart, weight) for apart in (0.5, -0.5) for weight in (1.0, 1.7)]  # -0.5 is cut off
GROUPS = [(beta, clip) for beta in (0.0, 0.2) for clip in ((0.2, 0.2), (0.1, 0.4))]


@pytest.fixture(scope="module")
def trl() -> dict[str, Any]:
    """TRL's losses and gradients of all cases."""
    with jax.enable_x64(True):
        cases: dict[str, Any] = {"spread": ("spread", {"rewards": REWARDS})}
        cases |= {str(case): pair_case(*case) for case in PAIRS}
        cases |= {str(case): answer_case(*case) for case in ANSWERS}
        cases |= {str(case): group_case(*case) for case in GROUPS}
    script = Path(__file__).with_name("trl_losses.py")
    given = json.dumps(cases, default=lambda array: array.tolist())
    found = json.loads(run_torch(script, stdin=given).splitlines()[-1])
    if found is None:
        pytest.skip("needs TRL: the extra 'porting'")
    return found


def compare(found: tuple[float, list], loss: Callable, policy: np.ndarray) -> None:
    """A loss of ours equals another's, and so does its gradient by the log-probabilities."""
    value, gradient = jax.value_and_grad(loss)(jnp.asarray(policy))
    assert value.dtype == np.float64 and np.abs(found[1]).max() > 1e-4
    assert float(value) == pytest.approx(found[0], abs=1e-6)
    np.testing.assert_allclose(gradient, found[1], atol=1e-6)


def by_task(
    config: Config,
    objective: Objective,
    rows: list[list[list[int]]],
    mask: np.ndarray,
    frozen: np.ndarray | None = None,
    wrong: float = 0.0,
    advantages: np.ndarray | None = None,
    old: np.ndarray | None = None,
    reference: np.ndarray | None = None,
) -> Callable[[jax.Array], jax.Array]:
    """The loss of a training task, from log-probabilities of the tokens of answers [M, T].

    Args:
      rows: the answers of each group of each row; mask: [M, T], the tokens that an answer has.
      frozen: log-probability of each answer under the reference [M]; reference: of their tokens.
      wrong: the probability that a judgement is.
    """
    companion = reference is not None
    task = PreferenceTask(
        config, len(rows), 96, 16, None, group_count=4, objective=objective, companion=companion
    )
    sizes = mask.sum(1)

    def group(answers: list[int]) -> Group:
        of = [None if each is None else each[answers] for each in (frozen, advantages)]
        made = [Example.of([1] * (1 + i % 3), (), [2] * int(sizes[i])) for i in answers]
        return Group(0, "group", tuple(made), 1.0, wrong, *of)

    batch = task.build([[group(answers) for answers in row] for row in rows])
    weights = np.asarray(batch.rows.loss_weights)
    order = [i for row in rows for answers in row for i in answers]
    packed = np.concatenate([i * T + np.flatnonzero(mask[i]) for i in order])

    def predicted(tokens: jax.Array | np.ndarray) -> Predictions:
        """With something else where no token of an answer is."""
        blank = jnp.full(weights.shape, -9.0, float)
        logs = blank.at[np.nonzero(weights)].set(jnp.asarray(tokens).reshape(-1)[packed])
        return Predictions(logs, jnp.asarray(weights), jnp.asarray(batch.rows.segments))

    asked = None if reference is None else predicted(reference)
    if old is not None:
        batch = replace(batch, old=predicted(old).log_probabilities)

    def loss(tokens: jax.Array) -> jax.Array:
        value, metrics = task.loss_of(predicted(tokens), asked, batch)
        return value / metrics["weight"]

    return loss


@pytest.mark.parametrize("case", PAIRS)
def test_tasks_of_pairs_have_the_losses_of_trl(
    trl: dict[str, Any], tiny_config: Config, case: tuple[str, float, float]
) -> None:
    """Packed in rows, whether all judgements are in doubt or each has a doubt of its own."""
    kind, beta, smoothing = case
    _, given = pair_case(*case)
    count = len(given["mask"]) // 2
    pairs = [[i, count + i] for i in range(count)]
    rows = [pairs[:2], pairs[2:]]
    policy, mask, frozen = given["policy"], given["mask"], given["reference"]
    objective = Ipo(beta) if kind == "ipo" else Dpo(beta)
    compare(trl[str(case)], by_task(tiny_config, objective, rows, mask, frozen, smoothing), policy)
    smoothed = replace(objective, label_smoothing=smoothing)
    compare(trl[str(case)], by_task(tiny_config, smoothed, rows, mask, frozen), policy)


@pytest.mark.parametrize("case", ANSWERS)
def test_a_task_of_single_answers_has_the_loss_of_trl(
    trl: dict[str, Any], tiny_config: Config, case: tuple[float, float]
) -> None:
    """A good and a bad one to a group, and one to another prompt."""
    _, given = answer_case(*case)
    good, bad = (np.flatnonzero(given["desirable"] == kind) for kind in (True, False))
    groups = [[int(i), int(j), N + k] for k, (i, j) in enumerate(zip(good, bad, strict=True))]
    frozen = np.concatenate([given["reference"], given["unlike_reference"][::2]])
    unlike, mask = given["unlike"][::2], np.ones((N + N // 2, T), int)
    objective = Kto(0.3, undesirable_weight=case[1])
    loss = by_task(tiny_config, objective, [groups[:2], groups[2:]], mask, frozen)
    compare(trl[str(case)], lambda tokens: loss(jnp.concatenate([tokens, unlike])), given["policy"])


@pytest.mark.parametrize("case", GROUPS)
def test_a_task_of_rewards_has_the_loss_of_trl(
    trl: dict[str, Any], tiny_config: Config, case: tuple[float, tuple[float, float]]
) -> None:
    beta, clip = case
    _, given = group_case(*case)
    loss = by_task(
        tiny_config,
        Grpo(3, clip, beta, needs_old=True),
        [[[0, 1, 2]], [[3, 4, 5]]],
        given["mask"],
        advantages=given["advantages"],
        old=given["old"],
        reference=given["reference"] if beta else None,
    )
    compare(trl[str(case)], loss, given["policy"])


@pytest.mark.parametrize("case", PAIRS)
def test_pairs_have_the_losses_of_trl(trl: dict[str, Any], case: tuple[str, float, float]) -> None:
    kind, beta, smoothing = case
    _, given = pair_case(*case)
    frozen = jnp.split(jnp.asarray(given["reference"]), 2)
    sizes = jnp.split(jnp.asarray(given["mask"].sum(1)), 2)

    def loss(tokens: jax.Array) -> jax.Array:
        sums = jnp.split((tokens * given["mask"]).sum(1), 2)
        if kind == "ipo":
            return preference.ipo(*sums, *frozen, *sizes, beta=beta).mean()
        return preference.dpo(*sums, *frozen, beta=beta, label_smoothing=smoothing).mean()

    compare(trl[str(case)], loss, given["policy"])


@pytest.mark.parametrize("case", ANSWERS)
def test_single_answers_have_the_loss_of_trl(
    trl: dict[str, Any], case: tuple[float, float]
) -> None:
    _, given = answer_case(*case)
    unlike = jnp.asarray(given["unlike"].sum(1)), jnp.asarray(given["unlike_reference"])
    away = preference.kto_divergence(*unlike)
    assert float(away) == pytest.approx(max(case[0], 0))

    def loss(tokens: jax.Array) -> jax.Array:
        return preference.kto(
            tokens.sum(1),
            given["reference"],
            given["desirable"],
            away,
            beta=0.3,
            undesirable_weight=case[1],
        ).mean()

    compare(trl[str(case)], loss, given["policy"])


@pytest.mark.parametrize("case", GROUPS)
def test_groups_have_the_loss_of_trl(
    trl: dict[str, Any], case: tuple[float, tuple[float, float]]
) -> None:
    beta, clip = case
    _, given = group_case(*case)
    centred = REWARDS - REWARDS.mean(1, keepdims=True)
    scaled = centred / (np.array(trl["spread"])[:, None] + 1e-4)
    np.testing.assert_allclose(given["advantages"], scaled.reshape(N), rtol=1e-9)
    ratio, mask = np.exp(given["policy"] - given["old"]), given["mask"]
    assert ((ratio < 1 - clip[0]) | (ratio > 1 + clip[1])).any(), "nothing is clipped"

    def loss(tokens: jax.Array) -> jax.Array:
        each = jnp.broadcast_to(given["advantages"][:, None], tokens.shape)
        losses = preference.grpo(
            tokens, given["old"], each, given["reference"], clip=clip, beta=beta
        )
        return ((losses * mask).sum(1) / mask.sum(1)).mean()

    compare(trl[str(case)], loss, given["policy"])


def test_equal_answers_give_ln_2() -> None:
    same = jnp.asarray(log_probabilities(1, N))
    frozen = jnp.asarray(log_probabilities(2, N))
    for smoothing in (0.0, 0.3):
        losses = preference.dpo(same, same, frozen, frozen, label_smoothing=smoothing)
        np.testing.assert_allclose(losses, np.log(2), rtol=1e-12)


def test_a_tie_pulls_answers_together_and_a_choice_apart() -> None:
    """By label smoothing a pair, in DPO and IPO alike."""
    smoothing = jnp.array([0.0, 0.5, 1.0])
    zeros = jnp.zeros(3)

    def chosen_gradient(loss: Callable, away: float) -> np.ndarray:
        return np.asarray(jax.grad(lambda x: loss(x).sum())(zeros + away))

    def by_dpo(x: jax.Array) -> jax.Array:
        return preference.dpo(x, zeros, zeros, zeros, label_smoothing=smoothing)

    def by_ipo(x: jax.Array) -> jax.Array:
        ones = jnp.ones(3)
        return preference.ipo(x, zeros, zeros, zeros, ones, ones, label_smoothing=smoothing)

    for loss in (by_dpo, by_ipo):
        at_rest = chosen_gradient(loss, 0.0)
        assert at_rest[0] < 0 == at_rest[1] < at_rest[2]
        assert chosen_gradient(loss, 1.0)[1] > 0 > chosen_gradient(loss, -1.0)[1]


def test_an_answer_without_a_reward_counts_for_nothing() -> None:
    rewards = jnp.array([[1.0, np.nan, 3.0], [np.nan] * 3, [2.0, 2.0, 2.0], [5.0, np.nan, np.nan]])
    found = np.asarray(preference.group_advantages(rewards))
    alone = np.asarray(preference.group_advantages(jnp.array([[1.0, 3.0]])))
    np.testing.assert_allclose(found[0], [alone[0, 0], 0, alone[0, 1]])
    np.testing.assert_array_equal(found[1:], 0)
    plain = np.asarray(preference.group_advantages(rewards, scale="none"))
    np.testing.assert_allclose(plain[0], [-1, 0, 1])
    batch = np.asarray(preference.group_advantages(rewards, scale="batch"))
    values = np.array([1.0, 3, 2, 2, 2, 5])
    np.testing.assert_allclose(batch[0], [-1, 0, 1] / (values.std(ddof=1) + 1e-4))
    with pytest.raises(ValueError, match="scale is 'row', expected one of group, batch, none"):
        preference.group_advantages(rewards, scale="row")
