"""Does a rationale agree with the values generated beside it?

Compared are levels: a rationale in the describer's language mentions channels at a level, and the
generated value of each has a level too. A rationale in other words cannot be compared: that is
None, and not zero.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from sf_jax.face.channels import INDEX
from sf_jax.face.describe import Description, DescriptionError, emotion_of, levels_of, read

NOTABLE = 2  # values of this level or more ought to be mentioned


@dataclass(frozen=True)
class Agreement:
    """How far one rationale, or several together, agree with the generated values.

    Attributes:
      rationales: how many were compared.
      mentions: channels mentioned at a level, of those whose values are known.
      exact, within_one: mentions whose value has that level, and has it or the next. Head angles
        count with their direction.
      notable: values of level 2 or 3; missing: those of them that are not mentioned.
      emotions: rationales whose emotion, or lack of one, is what the levels of the values support.
    """

    rationales: int
    mentions: int
    exact: int
    within_one: int
    notable: int
    missing: int
    emotions: int

    def summary(self) -> dict[str, float]:
        """Shares of mentions, of notable values and of rationales; NaN where there are none."""
        return {
            "exact": _share(self.exact, self.mentions),
            "within_one": _share(self.within_one, self.mentions),
            "missing": _share(self.missing, self.notable),
            "emotion": _share(self.emotions, self.rationales),
        }

    def as_json(self) -> dict[str, Any]:
        """Of one rationale: counts, and whether the emotion agrees."""
        return {
            "mentions": self.mentions,
            "exact": self.exact,
            "within_one": self.within_one,
            "missing": self.missing,
            "emotion": bool(self.emotions),
        }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def agreement(rationale: Description, answer: Float[np.ndarray, "61"]) -> Agreement | None:
    """Compares a rationale with the values generated beside it.

    Args:
      answer: generated values in canonical order, NaN where a channel is not read. Such channels
        count nowhere, and as at rest in the rules for emotions.

    Returns:
      None where there is no rationale, or one that is not in the describer's language.
    """
    try:
        reading = read(rationale.text)
    except DescriptionError:
        return None
    levels = levels_of(np.nan_to_num(answer))
    known = {name: n for name, n in levels.items() if not np.isnan(answer[INDEX[name]])}
    gaps = [abs(known[name] - n) for name, n in reading.levels.items() if name in known]
    notable = [name for name, number in known.items() if abs(number) >= NOTABLE]
    return Agreement(
        rationales=1,
        mentions=len(gaps),
        exact=gaps.count(0),
        within_one=sum(gap <= 1 for gap in gaps),
        notable=len(notable),
        missing=sum(name not in reading.levels for name in notable),
        emotions=int(reading.emotion == emotion_of(levels)),
    )


def total(found: Sequence[Agreement | None]) -> Agreement | None:
    """Of all rationales that could be compared, each mention counting the same; None of none."""
    compared = [one for one in found if one is not None]
    if not compared:
        return None
    names = Agreement.__dataclass_fields__
    return Agreement(**{name: sum(getattr(one, name) for one in compared) for name in names})


def sentence(found: Agreement | None) -> str:
    """One line about one rationale, for people; empty where nothing could be compared."""
    if found is None:
        return ""
    parts = [
        f"Levels of {found.exact} of {found.mentions} mentions agree with the generated values, "
        f"{found.within_one} within one level"
        if found.mentions
        else "No level mentioned"
    ]
    if found.missing:
        parts.append(f"{found.missing} of {found.notable} clear values not mentioned")
    if not found.emotions:
        parts.append("the values support another emotion")
    return "; ".join(parts)
