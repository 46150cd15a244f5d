"""Optimisers: AdamW, or Muon for matrices and AdamW for the rest; warm-up and cosine decay."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers, muon


@dataclass(frozen=True)
class OptimizerConfig:
    """Attributes:
    learning_rate: peak; Muon's updates are scaled to Adam's size, so one rate serves both.
    steps: length of the schedule; warmup_steps: linear rise from 0 at its start, half of
      a shorter schedule at most.
    final_fraction: the rate at the end, as a fraction of the peak.
    clip: global gradient norm.
    kind: "muon" or "adamw".
    largest_side: matrices whose smaller side exceeds it go to Adam: the cost of Muon's iterations
      grows with the cube of that side.
    """

    learning_rate: float
    steps: int
    warmup_steps: int = 100
    final_fraction: float = 0.02
    weight_decay: float = 0.01
    clip: float = 1.0
    kind: str = "muon"
    largest_side: int = 512


def schedule(config: OptimizerConfig) -> optax.Schedule:
    return optax.warmup_cosine_decay_schedule(
        0.0,
        config.learning_rate,
        min(config.warmup_steps, config.steps // 2),
        config.steps,
        config.learning_rate * config.final_fraction,
    )


def _matrix_axes(path: tuple, leaf: Any, largest_side: int) -> MuonDimensionNumbers | None:
    """Muon takes linear weights, stacked on a layer axis or not; tables and vectors go to Adam."""
    is_linear = jax.tree_util.keystr(path).endswith(".weight") and leaf.ndim in (2, 3)
    if not is_linear or min(leaf.shape[-2:]) > largest_side:
        return None
    return MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1)


def _is_matrix(tree: Any) -> Any:
    """What decays: matrices and tables, not norms and biases."""

    def one(path: tuple, leaf: Any) -> bool:
        name = jax.tree_util.keystr(path)
        return leaf.ndim > 1 and not name.endswith((".bias", ".scale"))

    return jax.tree_util.tree_map_with_path(one, tree)


def build(config: OptimizerConfig) -> optax.GradientTransformation:
    """The optimiser's rule.

    Raises:
      ValueError: its kind is unknown.
    """
    rate, decay = schedule(config), config.weight_decay
    if config.kind == "adamw":
        return optax.chain(
            optax.clip_by_global_norm(config.clip),
            optax.adamw(rate, b2=0.98, weight_decay=decay, mask=_is_matrix),
        )
    if config.kind != "muon":
        raise ValueError(f"optimiser {config.kind!r} is neither 'adamw' nor 'muon'")
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        muon(
            rate,
            weight_decay=decay,
            adam_b2=0.98,
            adam_weight_decay=decay,
            consistent_rms=0.2,
            muon_weight_dimension_numbers=lambda tree: jax.tree_util.tree_map_with_path(
                partial(_matrix_axes, largest_side=config.largest_side), tree
            ),
        ),
    )
