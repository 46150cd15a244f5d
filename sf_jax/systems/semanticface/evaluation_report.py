"""The figures of `sf-jax evaluate` as tables and as JSON."""

import math
import platform
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import jax
import jaxlib
import numpy as np

from sf_jax.face import metrics
from sf_jax.face.agreement import Agreement
from sf_jax.face.bootstrap import LEVEL, Interval
from sf_jax.face.channels import NAMES
from sf_jax.face.coverage import Coverage
from sf_jax.media import files
from sf_jax.reader import estimator
from sf_jax.reader.action import Provenance
from sf_jax.systems.semanticface.evaluate import MEANS, OTHERS, Comparison

NONE = "–"


def number(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """A number for people; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"


def agreement_line(found: Agreement | None, count: int) -> str:
    """The agreement of the rationales of `count` faces, in words."""
    if found is None:
        return "No rationale in the describer's language, so no agreement with the values."
    share = {name: f"{value:.3f}" for name, value in found.summary().items()}
    return (
        f"Rationale and generated values of {found.rationales} of {count} faces: levels of "
        f"{found.mentions} mentions agree exactly {share['exact']}, within one level "
        f"{share['within_one']}; clear values not mentioned {share['missing']}; emotions agree "
        f"{share['emotion']}"
    )


def _lines_of(compared: Comparison) -> list[str]:
    """The lines below the table of a set."""
    lines = []
    for name, found in compared.intervals.items():
        if name == compared.read_out and found:
            each = "; ".join(f"{what} {interval}" for what, interval in found.items())
            lines.append(f"{LEVEL:.0%} intervals of {name}, over {compared.people} people: {each}")
    if compared.found is not None:
        missed = compared.count - compared.found
        lines.append(f"Faces found: {compared.found}; {missed} missed ones count as zeros")
    if compared.coverage is not None:
        lines.append(
            "The central 80 % of the distributions hold "
            f"{number(compared.coverage.all)} of all labels, "
            f"{number(compared.coverage.active)} of active ones (randomised PIT)"
        )
    if compared.repeatability is not None:
        lines.append(
            "Answers to an image and to JPEG copies of it differ by "
            f"{number(compared.repeatability, 4)} (mean standard deviation of a blendshape)"
        )
    return lines


def face_table(compared: Comparison) -> str:
    """One line a predictor: vertex errors on the built-in head, and similarity of renders."""
    columns = {"lips_mm": "lips", "lids_mm": "lids", "brows_mm": "brows", "ssim": "SSIM"}
    rows = [["vertex error, mm", *columns.values()]]
    rows += [
        [name, *(number(found.get(key)) for key in columns)]
        for name, found in compared.faces.items()
    ]
    return metrics.aligned(rows)


def set_tables(compared: Comparison, name: str) -> str:
    """All tables of one set."""
    return "\n".join(
        [
            f"{name}: {compared.count} faces; r and MAE over the 52 blendshapes (r_61: all "
            "channels)",
            metrics.table(compared.scores),
            "",
            *([face_table(compared), ""] if compared.faces else []),
            *_lines_of(compared),
            *(
                [agreement_line(compared.agreement, compared.count)]
                if compared.read_out == MEANS
                else []
            ),
            "\nCorrelation by region",
            metrics.region_table(compared.scores),
            "\nBy channel",
            metrics.channel_table(compared.scores),
        ]
    )


def overview(compared: Mapping[str, Comparison]) -> str:
    """One line a set: the slot means beside zeros, mean and median."""
    rows = [
        ["set", "faces", "found", "r (52)", f"{LEVEL:.0%} interval", "MAE (52)", "zeros", "mean",
         "median", "active MAE", "head °", "levels agree", "coverage", "active"]
    ]  # fmt: skip
    for name, one in compared.items():
        own = one.scores[one.read_out].summary()
        others = [
            one.scores[each].summary()["mae_52"] if each in one.scores else None
            for each in ("zeros", "mean", "median")
        ]
        interval = one.intervals.get(one.read_out, {}).get("r_52")
        agree = None if one.agreement is None else one.agreement.summary()["exact"]
        spread = one.coverage
        rows.append(
            [
                name,
                str(one.count),
                NONE if one.found is None else str(one.found),
                number(own.get("r_52")),
                NONE if interval is None else str(interval),
                number(own.get("mae_52")),
                *map(number, others),
                number(own.get("active_mae")),
                number(own.get("head_degrees"), 2),
                number(agree),
                number(None if spread is None else spread.all),
                number(None if spread is None else spread.active),
            ]
        )
    read_out = next(iter(compared.values())).read_out
    about = f"Read-out: {read_out}; MAE of zeros, training mean and median beside it"
    return f"{about}\n{metrics.aligned(rows)}"


def _scores_json(score: metrics.Scores, found: Mapping[str, Interval]) -> dict[str, Any]:
    return {
        "all": files.finite(score.summary()),
        "intervals": {name: files.finite(asdict(each)) for name, each in found.items()},
        "regions": {name: files.finite(each) for name, each in score.by_region().items()},
        "channels": {
            name: files.finite(each) | {"faces": int(score.known_count[i])}
            for i, (name, each) in enumerate(score.by_channel().items())
        },
        "constant_labels": list(score.constant_labels),
        "constant_predictions": list(score.constant_predictions),
    }


def _coverage_json(found: Coverage | None) -> dict[str, Any] | None:
    if found is None:
        return None
    each = dict(zip(NAMES, map(float, found.by_channel), strict=True))
    return files.finite({"all": found.all, "active": found.active}) | {
        "channels": files.finite(each)
    }


def set_json(compared: Comparison, data: Mapping[str, Any]) -> dict[str, Any]:
    """Everything found on one set; what is not a number is null.

    Args:
      data: where its records are, kept as it is.
    """
    found = compared.agreement
    return {
        **data,
        "faces": compared.count,
        "people": compared.people,
        "found": compared.found,
        "scores": {
            name: _scores_json(score, compared.intervals.get(name, {}))
            for name, score in compared.scores.items()
        },
        "agreement": None if found is None else asdict(found) | files.finite(found.summary()),
        "coverage": _coverage_json(compared.coverage),
        "vertex_errors": {name: files.finite(each) for name, each in compared.faces.items()},
        **files.finite({"repeatability": compared.repeatability}),
    }


def as_json(
    sets: Mapping[str, Mapping[str, Any]],
    model: estimator.Model | None,
    data: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that `sf-jax evaluate` finds, for a file.

    Args:
      sets: of `set_json`, by name.
      model: None for predictions of another system.
      data: how the answers were made, kept as it is.
    """
    made_by = Provenance() if model is None else model.provenance
    return {
        "sf_jax": made_by.as_json(),
        "versions": {
            "python": platform.python_version(),
            "jax": jax.__version__,
            "jaxlib": jaxlib.__version__,
            "numpy": np.__version__,
        },
        "device": jax.devices()[0].device_kind,
        "product_dtype": None if model is None else model.config.product_dtype,
        **data,
        "read_out": OTHERS if model is None else MEANS,
        "sets": dict(sets),
    }
