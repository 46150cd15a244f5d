"""Clauses on the head in a rationale of the describer, for a head whose angles change."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from sf_jax.face.describe import HEAD_ANGLES, Description, DescriptionError, head_level, read
from sf_jax.face.phrases import HEAD, LEVEL_WORDS, NO_EMOTION, SYMMETRIC

NOTHING = Description("", "", "", "")
AT_REST, REGION = "at rest", "Head: "


def with_head(
    description: Description, before: Float[np.ndarray, "3"], after: Float[np.ndarray, "3"]
) -> Description:
    """A description whose clauses on the head are those of other angles.

    A clause stays as it is where the level of its angle does. Everything is empty where a level
    changes and the description is not in the describer's language: no rule can decide which of its
    sentences still hold.

    Args:
      before, after: yaw, pitch and roll in radians, as described and as they are to be.
    """
    levels = {name: head_level(angle) for name, angle in zip(HEAD_ANGLES, after, strict=True)}
    if list(levels.values()) == [head_level(angle) for angle in before]:
        return description
    try:
        read(description.text)
    except DescriptionError:
        return NOTHING
    parts = [] if description.movements == AT_REST else description.movements.split("; ")
    others = [part for part in parts if not part.startswith(REGION)]
    own = _clauses_on_head([part for part in parts if part.startswith(REGION)])
    for name, angle in zip(HEAD_ANGLES, before, strict=True):
        if levels[name] != head_level(angle):
            own[name] = _clause(name, levels[name])
    clauses = [own[name] for name in HEAD_ANGLES if own.get(name)]
    if clauses:
        others.append(REGION + ", ".join(clauses))
    movements = "; ".join(others) or AT_REST
    return Description(description.expression, movements, description.emotion, description.symmetry)


def _clause(name: str, level: int) -> str:
    """The clause of a head angle at a signed level, "" at 0."""
    if not level:
        return ""
    return f"head {LEVEL_WORDS[abs(level)][0]} {HEAD[name, 1 if level > 0 else -1][0]}"


def _clauses_on_head(parts: Sequence[str]) -> dict[str, str]:
    """Head angle → its clause in the parts of the movements that are of the head."""
    found: dict[str, str] = {}
    for clause in (clause for part in parts for clause in part.removeprefix(REGION).split(", ")):
        alone = Description("", REGION + clause, NO_EMOTION, SYMMETRIC)
        found |= dict.fromkeys(read(alone.text).levels, clause)
    return found
