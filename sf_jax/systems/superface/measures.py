"""How far coefficients that were read are from the true ones: as faces, as numbers, as actions."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from sf_jax.face import metrics
from sf_jax.face.channels import BLENDSHAPES, NAMES
from sf_jax.render import face_error
from sf_jax.render.head import builtin
from sf_jax.render.rig import Rig
from sf_jax.systems.superface.corruption import FACE

PRESENT = 0.3  # a true coefficient of so much is an action; half of it must be read
REST = 0.05  # a true coefficient below is at rest
MEASURES = {
    "upper_mm": "upper, mm",
    "lower_mm": "lower, mm",
    "second_upper_mm": "second rig, upper",
    "second_lower_mm": "second rig, lower",
    "mae": "MAE (52)",
    "r": "r (52)",
    "recall": "recall",
    "dropped": "recall of dropped",
    "false": "false actions",
}  # name → heading
FACE_CHANNELS = np.zeros(len(NAMES), bool)  # all but gaze and angles
FACE_CHANNELS[BLENDSHAPES] = FACE
VERTICES = ("upper_mm", "lower_mm", "second_upper_mm", "second_lower_mm")


def measures(
    read: Float[np.ndarray, "N 61"], true: Float[np.ndarray, "N 61"], second: Rig | None
) -> dict[str, float]:
    """Measures of coefficients [N, 61] that were read, against the true ones.

    "upper_mm" and "lower_mm" are mean errors of vertices in millimetres, of lids and brows and of
    the lips, on the built-in head; "second_…" the same on a second rig. "recall": the share of true
    actions, coefficients of `PRESENT` and more, that are read at least half as strong; "false": the
    share of coefficients at rest that are read as half of `PRESENT` or more; both without gaze.
    """
    known = np.ones(true.shape, bool)
    found: dict[str, float] = {}
    for name, rig in (("", builtin()), ("second_", second)):
        if rig is not None:
            errors = face_error.vertex_error(rig, read, true, known)
            upper = (errors["lids"].mean() + errors["brows"].mean()) / 2
            found |= {f"{name}upper_mm": float(upper), f"{name}lower_mm": errors["lips"].mean()}
    summary = metrics.evaluate(read, true, known).summary()
    found |= {"mae": summary["mae_52"], "r": summary["r_52"]}
    face, shown = true[:, BLENDSHAPES][:, FACE], read[:, BLENDSHAPES][:, FACE]
    rest = face < REST
    found["recall"] = recall(read, true, np.broadcast_to(FACE_CHANNELS, true.shape))
    found["false"] = (shown >= PRESENT / 2)[rest].mean()
    return {name: float(value) for name, value in found.items()}


def recall(
    read: Float[np.ndarray, "N 61"],
    true: Float[np.ndarray, "N 61"],
    among: Bool[np.ndarray, "N 61"],
) -> float:
    """The share of true actions among coefficients that are read at least half as strong; NaN where
    there are none."""
    active = among & (true >= PRESENT)
    return float((read >= true / 2)[active].mean()) if active.any() else float("nan")


def gap_closed(low: Sequence[float], high: Sequence[float], own: Sequence[float]) -> float:
    """The share of the distance from the mean of `low` to that of `high` that `own` is on."""
    start, end, found = map(np.mean, (low, high, own))
    return float((found - start) / (end - start)) if end != start else float("nan")


def clear(low: Sequence[float], high: Sequence[float]) -> bool:
    """Whether two arms differ by more than two standard deviations over seeds, the larger one."""
    if min(len(low), len(high)) < 2:
        return False
    spread = max(np.std(low, ddof=1), np.std(high, ddof=1))
    return bool(abs(np.mean(high) - np.mean(low)) > 2 * spread)
