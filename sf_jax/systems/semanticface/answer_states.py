"""The states from which a model speaks its rationales, and draft heads learnt from them."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from tqdm import tqdm

from data_pipelines import records
from data_pipelines.views import Views, random_view
from sf_jax.convert import checksums
from sf_jax.decode import drafts
from sf_jax.decode.state import feed_tokens, prefill
from sf_jax.model.config import Config
from sf_jax.model.weights import Weights
from sf_jax.reader import estimator, loading
from sf_jax.reader.action import FaceAction
from sf_jax.reader.schema import channel_indices
from sf_jax.sequence.batch import Batch
from sf_jax.train import draft_heads

BATCH = 50  # images answered at a time


def rationale_states(
    model: estimator.Model, images: list[np.ndarray]
) -> Iterator[tuple[Float[np.ndarray, "N D"], Int[np.ndarray, " N"]]]:
    """For each image, the states that yielded the tokens of its rationale, and the tokens."""
    end = int(model.program.ends.argmax())
    actions = model.predict_batch(images, whole=True)
    befores = [_before_rationale(model, action) for action in actions]
    rationales = [[*action.rationale_ids.tolist(), end] for action in actions]
    longest = max(map(len, befores)) + model.max_rationale + 1
    tokens = np.zeros((len(rationales), longest), np.int32)
    for row, (before, rationale) in enumerate(zip(befores, rationales, strict=True)):
        tokens[row, : len(before) + len(rationale)] = before + rationale
    prompts, _ = model.inputs(images)
    states = np.asarray(_states_of(model.weights, prompts, tokens, model.config))
    for row, (before, rationale) in enumerate(zip(befores, rationales, strict=True)):
        own = slice(len(before), len(before) + len(rationale))
        yield states[row, own], tokens[row, own]


def _before_rationale(model: estimator.Model, action: FaceAction) -> list[int]:
    """The tokens of an answer before its rationale: none, or the values and what follows them."""
    if not model.schema.values_first:
        return []
    values = action.answer[channel_indices(model.schema)]
    return model.program.answer(model.program.nearest(values)) + model.program.closing.tolist()


@partial(jax.jit, static_argnames="config")
def _states_of(
    weights: Weights, prompts: Batch, tokens: Int[Array, "B N"], config: Config
) -> Float[Array, "B N D"]:
    """The state before each token of an answer."""
    lengths = jnp.full(len(tokens), tokens.shape[1])
    capacity = prompts.input_ids.shape[1] + tokens.shape[1]
    state = prefill(weights, prompts, capacity, config)
    _, states = feed_tokens(weights, state, tokens, lengths, config)
    return jnp.concatenate([state.last[:, None], states[:, :-1]], 1)


def learn_draft_heads(
    directory: Path,
    answers: int,
    views: Views,
    config: draft_heads.DraftHeadsConfig,
    export: Path,
) -> None:
    """Draft heads from a model's own answers to training images, written beside the model.

    Args:
      views: how images are cut out of the records; here each is framed as the reader frames a face.
    """
    model = loading.load(export)
    views = replace(views, framed_share=1.0, mirrored=0.0)
    g = np.random.default_rng(config.seed)
    images = [random_view(face, views, g)["image"] for face in records.first(directory, answers)]
    states, rationales = [], []
    for start in tqdm(range(0, len(images), BATCH), desc="answers", unit="batch"):
        for state, rationale in rationale_states(model, images[start : start + BATCH]):
            states.append(state.astype(np.float16))
            rationales.append(rationale)
    heads = draft_heads.learn(states, rationales, config)
    checksums.unseal(export)
    drafts.save_heads(export / loading.DRAFT_HEADS_FILE, heads)
    checksums.seal(export)
