"""Learns to foresee a model's words from its states; see `decode.drafts.DraftHeads`."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int
from tqdm import tqdm

from sf_jax.decode.drafts import DraftHeads, head_scores


def learn(
    states: Sequence[Float[np.ndarray, "N D"]],
    words: Sequence[Int[np.ndarray, " N"]],
    heads: int,
    width: int,
    steps: int,
    batch: int = 2048,
    rate: float = 3e-3,
) -> DraftHeads:
    """Heads learnt from answers.

    Args:
      states: of each answer, the state that yielded each of its tokens.
      words: the tokens, the one that ended the words included.
      heads: how many tokens behind the next to guess.
      width: of the hidden layer.

    Raises:
      ValueError: there is nothing to learn from, or states and words are not as many.
    """
    for state, said in zip(states, words, strict=True):
        if len(state) != len(said):
            raise ValueError(f"{len(state)} states for {len(said)} words")
    tokens = np.unique(np.concatenate([np.zeros(0, np.int32), *words])).astype(np.int32)
    if not len(tokens):
        raise ValueError("no words to learn draft heads from")
    count = len(tokens)
    # Token classes of each place's two before, itself and those behind; -1 is no token.
    windows = np.concatenate([_windows(np.searchsorted(tokens, said), heads) for said in words])
    flat = np.concatenate(states).astype(np.float32)
    inputs = flat.shape[1]
    generator = np.random.default_rng(0)
    drawn = generator.normal(0, inputs**-0.5, (inputs, width)).astype(np.float32)
    learnt = {
        "enter": drawn,
        "enter_bias": np.zeros(width, np.float32),
        "leave": np.zeros((width, heads, count), np.float32),
        "leave_bias": np.zeros((heads, count), np.float32),
        "after_one": np.zeros((count + 1, count), np.float32),
        "after_two": np.zeros((count + 1, count), np.float32),
    }
    rule = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def loss(learnt: dict, states: Array, windows: Array) -> Array:
        made = DraftHeads(**learnt, tokens=jnp.asarray(tokens))
        before, behind = windows[:, :-1], windows[:, 2:]
        scores = head_scores(made, states)
        scores += made.after_one[before[:, 1:]] + made.after_two[before[:, :-1]]
        scores = jax.nn.log_softmax(scores)
        right = jnp.take_along_axis(scores, jnp.maximum(behind, 0)[..., None], -1)[..., 0]
        real = behind >= 0
        return -(right * real).sum() / jnp.maximum(real.sum(), 1)

    @jax.jit
    def step(learnt: dict, memory: optax.OptState, states: Array, windows: Array) -> tuple:
        value, gradient = jax.value_and_grad(loss)(learnt, states, windows)
        change, memory = rule.update(gradient, memory)
        return optax.apply_updates(learnt, change), memory, value

    memory = rule.init(learnt)
    bar = tqdm(range(steps), desc="draft heads", unit="step")
    for number in bar:
        chosen = generator.integers(0, len(flat), batch)
        learnt, memory, value = step(learnt, memory, flat[chosen], windows[chosen])
        if number % 50 == 0:
            bar.set_postfix(loss=f"{float(value):.3f}")
    return DraftHeads(**jax.device_get(learnt), tokens=tokens)


def _windows(classes: Int[np.ndarray, " N"], heads: int) -> Int[np.ndarray, "N heads+2"]:
    """For each place: the token before it, itself, and as many behind it as there are heads."""
    padded = np.concatenate([[-1], classes, np.full(heads, -1)]).astype(np.int32)
    return np.lib.stride_tricks.sliding_window_view(padded, heads + 2)
