"""How far predicted coefficients lie from labels, beside the predictors that look at no picture.

Labels are sparse: most values are zero, so predicting zeros everywhere beats the mean in absolute
error. No single number tells; `table` prints correlation, absolute error, absolute error on active
channels and the head's error together, for several predictors side by side.

Predictions and labels are `[N, 61]` in canonical order. All sums are in float64. Labels that are
not known, by a mask of the same shape, have no part in any measure: each channel is measured on the
faces where its label is known, and a channel that is known nowhere is NaN and in no mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sf_jax.face.channels import BLENDSHAPES, CHANNELS, MIRROR, NAMES, PAIRS
from sf_jax.face.head_angles import HEAD, rotation_of
from sf_jax.media.errors import DataError

ACTIVE = 0.2  # a blendshape is active where its label is above this
CONSTANT = 1e-6  # a channel that varies by less than this does not vary
LEFT_OF_PAIRS = np.array([left for left, _ in PAIRS])
REGIONS: tuple[str, ...] = tuple(dict.fromkeys(channel.region for channel in CHANNELS))


class MetricsError(DataError):
    """Predictions and labels that cannot be compared."""


@dataclass(frozen=True)
class Scores:
    """The measures of one predictor on N faces.

    Attributes:
      count: N.
      correlation: [61] Pearson's r per channel over the N faces; 0 where a side is constant.
      constant_labels, constant_predictions: names of the channels that do not vary, whose r
        counts as 0.
      known_count: [61] how many faces a channel is measured on.
      absolute_error: [61] mean |prediction - label| per channel.
      active_error: [61] the same over the faces where the label is above 0.2; NaN where there are
        none, and for the nine angles.
      active_count: [61] how many such faces there are.
      active_f1: F1 of "is this blendshape above 0.2" over all known values; NaN where neither side
        has one that is.
      left_right_error: mean |difference between the left and the right channel of a pair, predicted
        less true| over the blendshapes that come in pairs: 0 where asymmetry is exact.
      head_degrees: mean |prediction - label| of head yaw, pitch and roll, in degrees.
      head_geodesic_degrees: mean angle of the rotation between predicted and true head.
    """

    count: int
    correlation: np.ndarray
    constant_labels: tuple[str, ...]
    constant_predictions: tuple[str, ...]
    known_count: np.ndarray
    absolute_error: np.ndarray
    active_error: np.ndarray
    active_count: np.ndarray
    active_f1: float
    left_right_error: float
    head_degrees: float
    head_geodesic_degrees: float

    def summary(self) -> dict[str, float]:
        """The measures over all channels that `table` prints."""
        return {
            "r_52": _mean(self.correlation[BLENDSHAPES]),
            "r_61": _mean(self.correlation),
            "mae_52": _mean(self.absolute_error[BLENDSHAPES]),
            "active_mae": self._active(range(52)),
            "active_f1": self.active_f1,
            "left_right": self.left_right_error,
            "head_degrees": self.head_degrees,
            "head_geodesic_degrees": self.head_geodesic_degrees,
        }

    def by_region(self) -> dict[str, dict[str, float]]:
        """Per region the mean r, the mean absolute error and the active error of its channels."""
        regions = {}
        for region in REGIONS:
            members = [channel.index for channel in CHANNELS if channel.region == region]
            regions[region] = {
                "r": _mean(self.correlation[members]),
                "mae": _mean(self.absolute_error[members]),
                "active_mae": self._active(members),
            }
        return regions

    def by_channel(self) -> dict[str, dict[str, float]]:
        """The same for each of the 61 channels by name."""
        return {
            name: {
                "r": float(self.correlation[i]),
                "mae": float(self.absolute_error[i]),
                "active_mae": float(self.active_error[i]),
            }
            for i, name in enumerate(NAMES)
        }

    def _active(self, members: Sequence[int]) -> float:
        """Over all active values of some channels, each value counting the same."""
        members = list(members)
        count = self.active_count[members].sum()
        total = np.nansum(self.active_error[members] * self.active_count[members])
        return float(total / count) if count else float("nan")


def _mean(values: np.ndarray) -> float:
    """The mean of what is not NaN; NaN where all is."""
    real = values[~np.isnan(values)]
    return float(real.mean()) if len(real) else float("nan")


def evaluate(
    predictions: np.ndarray, labels: np.ndarray, known: np.ndarray | None = None
) -> Scores:
    """Compares `[N, 61]` predictions with labels.

    Args:
      known: bool `[N, 61]`, which labels are known; None is all.

    Raises:
      MetricsError: the shapes are not the same [N, 61], or a value is not finite.
    """
    predicted, true = _checked("predictions", predictions), _checked("labels", labels)
    if predicted.shape != true.shape:
        raise MetricsError(f"{len(predicted)} predictions for {len(true)} labels")
    known = np.ones(true.shape, bool) if known is None else np.asarray(known, bool)
    if known.shape != true.shape:
        raise MetricsError(f"a mask of shape {known.shape} for labels of {true.shape}")
    error = np.abs(predicted - true)
    blendshape = np.arange(len(NAMES)) < BLENDSHAPES.stop
    active = known & blendshape & (true > ACTIVE)
    heads = known[:, HEAD].all(axis=1)
    return Scores(
        count=len(true),
        correlation=correlation(predicted, true, known),
        constant_labels=_constant_names(true, known),
        constant_predictions=_constant_names(predicted, known),
        known_count=known.sum(axis=0),
        absolute_error=_column_means(error, known),
        active_error=_column_means(error, active),
        active_count=active.sum(axis=0),
        active_f1=_f1(predicted > ACTIVE, true > ACTIVE, known & blendshape),
        left_right_error=_left_right(predicted - true, known),
        head_degrees=_mean(np.degrees(error[:, HEAD])[known[:, HEAD]]),
        head_geodesic_degrees=_mean(np.degrees(_head_angle(predicted, true)[heads])),
    )


def _f1(predicted: np.ndarray, true: np.ndarray, counted: np.ndarray) -> float:
    """2 TP / (2 TP + FP + FN) over the counted values."""
    hits = np.count_nonzero(predicted & true & counted)
    wrong = np.count_nonzero((predicted != true) & counted)
    return 2 * hits / (2 * hits + wrong) if hits + wrong else float("nan")


def _left_right(error: np.ndarray, known: np.ndarray) -> float:
    """The mean |error of the left channel less that of the right one| over known pairs."""
    left, right = LEFT_OF_PAIRS, MIRROR[LEFT_OF_PAIRS]
    both = known[:, left] & known[:, right]
    difference = np.abs(error[:, left] - error[:, right])
    return float(difference[both].mean()) if both.any() else float("nan")


def _column_means(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The mean of the chosen values of each column, NaN where none is."""
    count = chosen.sum(axis=0)
    total = np.where(chosen, values, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _checked(what: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 2 or values.shape[1] != len(NAMES) or not len(values):
        raise MetricsError(f"{what} of shape {values.shape}, expected [N, 61]")
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise MetricsError(f"{what}: {NAMES[column]} of face {row} is {values[row, column]}")
    return values


def _constant(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Which columns vary by nothing where they are known; false where they are known nowhere."""
    low = np.where(known, values, np.inf).min(axis=0)
    high = np.where(known, values, -np.inf).max(axis=0)
    return (high - low < CONSTANT) & known.any(axis=0)


def _constant_names(values: np.ndarray, known: np.ndarray) -> tuple[str, ...]:
    return tuple(NAMES[i] for i in np.flatnonzero(_constant(values, known)))


def correlation(
    predictions: np.ndarray, labels: np.ndarray, known: np.ndarray | None = None
) -> np.ndarray:
    """Pearson's r of each column of two `[N, C]` arrays, over the rows where `known` is true.

    0 where either column is constant, NaN where no row is known.
    """
    x, y = (np.asarray(values, np.float64) for values in (predictions, labels))
    known = np.ones(y.shape, bool) if known is None else known
    varies = ~(_constant(x, known) | _constant(y, known))
    x, y = (np.where(known, z - _column_means(z, known), 0.0) for z in (x, y))
    scale = np.sqrt((x * x).sum(axis=0) * (y * y).sum(axis=0))
    r = (x * y).sum(axis=0) / np.where(scale > 0, scale, 1.0)
    return np.where(known.any(axis=0), np.where(varies, np.clip(r, -1.0, 1.0), 0.0), np.nan)


def _head_angle(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    """The angle [N], in radians, of the rotation from the true to the predicted head."""
    difference = rotation_of(predicted[:, HEAD]) - rotation_of(true[:, HEAD])
    # |A - B| = 2 sqrt(2) sin(angle / 2), which unlike the arc cosine is exact near zero.
    chord = np.sqrt((difference**2).sum(axis=(1, 2))) / np.sqrt(8.0)
    return 2.0 * np.arcsin(np.minimum(chord, 1.0))


def baselines(training_labels: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """What one may predict for `count` faces without looking: zeros, the mean, the median.

    Mean and median are per channel over the training labels `[M, 61]`; each baseline is
    `[count, 61]`.
    """
    labels = _checked("training labels", training_labels)
    constants = {
        "zeros": np.zeros(len(NAMES)),
        "mean": labels.mean(axis=0),
        "median": np.median(labels, axis=0),
    }
    return {name: np.tile(values, (count, 1)) for name, values in constants.items()}


_HEADINGS = {
    "r_52": "r (52)", "r_61": "r (61)", "mae_52": "MAE (52)", "active_mae": "active MAE",
    "active_f1": "active F1", "left_right": "left–right",
    "head_degrees": "head °", "head_geodesic_degrees": "head geodesic °",
}  # fmt: skip


def table(scores: Mapping[str, Scores]) -> str:
    """One line a predictor: correlation, errors and head error over all channels.

    Lines below it name the channels whose labels do not vary and so count as r = 0.
    """
    rows = [["", *_HEADINGS.values()]]
    for name, score in scores.items():
        rows.append([name, *(_number(key, x) for key, x in score.summary().items())])
    lines = [aligned(rows)]
    for names in dict.fromkeys(score.constant_labels for score in scores.values()):
        if names:
            lines.append(f"constant in the labels, counted as r = 0: {', '.join(names)}")
    for name, score in scores.items():
        still = [x for x in score.constant_predictions if x not in score.constant_labels]
        if len(still) == np.count_nonzero(score.known_count) - len(score.constant_labels):
            still = ["every channel"]
        if still:
            lines.append(f"constant in {name}, counted as r = 0: {', '.join(still)}")
    return "\n".join(lines)


def region_table(scores: Mapping[str, Scores], measure: str = "r") -> str:
    """One line a region, one column a predictor; `measure` is "r", "mae" or "active_mae"."""
    return _columns({name: score.by_region() for name, score in scores.items()}, measure)


def channel_table(scores: Mapping[str, Scores], measure: str = "r") -> str:
    """One line a channel, one column a predictor; `measure` is "r", "mae" or "active_mae"."""
    return _columns({name: score.by_channel() for name, score in scores.items()}, measure)


def _columns(parts: Mapping[str, dict[str, dict[str, float]]], measure: str) -> str:
    lines = next(iter(parts.values()), {})
    rows = [[measure, *parts]]
    rows += [
        [line, *(_number(measure, p[line][measure]) for p in parts.values())] for line in lines
    ]
    return aligned(rows)


def _number(measure: str, value: float) -> str:
    if np.isnan(value):
        return "–"
    return f"{value:.2f}" if "degrees" in measure else f"{value:.3f}"


def aligned(rows: list[list[str]]) -> str:
    """Rows of cells as a table: the first column to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)
