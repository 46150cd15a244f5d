"""Learns to predict the next tokens of a rationale from its states; see `decode.drafts`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from tqdm import tqdm

from sf_jax.decode.drafts import DraftHeads, head_scores

Parameters = dict[str, Any]  # the fields of `DraftHeads` that are learnt


@dataclass(frozen=True)
class DraftHeadsConfig:
    """Attributes:
    heads: how many tokens after the next one to predict; width: of the hidden layer.
    steps, batch, learning_rate: of Adam with cosine decay; batch in tokens.
    seed: of the first weights and of the order of tokens.
    """

    heads: int
    width: int
    steps: int
    batch: int = 2048
    learning_rate: float = 3e-3
    seed: int = 0


def learn(
    states: Sequence[Float[np.ndarray, "N D"]],
    rationales: Sequence[Int[np.ndarray, " N"]],
    config: DraftHeadsConfig,
) -> DraftHeads:
    """Heads learnt from answers.

    Args:
      states: of each answer, the state that yielded each token of its rationale.
      rationales: the tokens, the one that ended the rationale included.

    Raises:
      ValueError: there is nothing to learn from, or states and tokens are not as many.
    """
    for state, rationale in zip(states, rationales, strict=True):
        if len(state) != len(rationale):
            raise ValueError(f"{len(state)} states for {len(rationale)} tokens")
    tokens = np.unique(np.concatenate([np.zeros(0, np.int32), *rationales])).astype(np.int32)
    if not len(tokens):
        raise ValueError("no tokens to learn draft heads from")
    # Token classes: the two before each position, its own, and those that follow; -1 is no token.
    classes = [np.searchsorted(tokens, rationale) for rationale in rationales]
    windows = np.concatenate([_windows(each, config.heads) for each in classes])
    flat = np.concatenate(states).astype(np.float32)
    generator = np.random.default_rng(config.seed)
    learnt = _initial(flat.shape[1], len(tokens), config, generator)
    rule = optax.adam(optax.cosine_decay_schedule(config.learning_rate, config.steps))

    @jax.jit
    def step(learnt: Parameters, memory: optax.OptState, states: Array, windows: Array) -> tuple:
        value, gradient = jax.value_and_grad(_loss)(learnt, states, windows, tokens)
        change, memory = rule.update(gradient, memory)
        return optax.apply_updates(learnt, change), memory, value

    memory = rule.init(learnt)
    bar = tqdm(range(config.steps), desc="draft heads", unit="step")
    for number in bar:
        chosen = generator.integers(0, len(flat), config.batch)
        learnt, memory, value = step(learnt, memory, flat[chosen], windows[chosen])
        if number % 50 == 0:
            bar.set_postfix(loss=f"{float(value):.3f}")
    return DraftHeads(**jax.device_get(learnt), tokens=tokens)


def _initial(
    inputs: int, count: int, config: DraftHeadsConfig, generator: np.random.Generator
) -> Parameters:
    heads, width = config.heads, config.width
    drawn = generator.normal(0, inputs**-0.5, (inputs, width)).astype(np.float32)
    return {
        "enter": drawn,
        "enter_bias": np.zeros(width, np.float32),
        "leave": np.zeros((width, heads, count), np.float32),
        "leave_bias": np.zeros((heads, count), np.float32),
        "after_one": np.zeros((count + 1, count), np.float32),
        "after_two": np.zeros((count + 1, count), np.float32),
    }


def _loss(
    learnt: Parameters,
    states: Float[Array, "N D"],
    windows: Int[Array, "N heads+2"],
    tokens: Int[np.ndarray, " classes"],
) -> Float[Array, ""]:
    """Mean cross-entropy of the tokens that follow, over those that there are."""
    made = DraftHeads(**learnt, tokens=jnp.asarray(tokens))
    before, following = windows[:, :-1], windows[:, 2:]
    scores = head_scores(made, states)
    scores += made.after_one[before[:, 1:]] + made.after_two[before[:, :-1]]
    scores = jax.nn.log_softmax(scores)
    wanted = jnp.take_along_axis(scores, jnp.maximum(following, 0)[..., None], -1)[..., 0]
    real = following >= 0
    return -(wanted * real).sum() / jnp.maximum(real.sum(), 1)


def _windows(classes: Int[np.ndarray, " N"], heads: int) -> Int[np.ndarray, "N heads+2"]:
    """For each position: the token before it, itself, and those that follow, one a head."""
    padded = np.concatenate([[-1], classes, np.full(heads, -1)]).astype(np.int32)
    return np.lib.stride_tricks.sliding_window_view(padded, heads + 2)
