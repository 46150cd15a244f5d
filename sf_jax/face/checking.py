"""The one checker of rationales: does a text claim what the coefficients hold, and all of it?

It reads the describer's language exactly (`describe.read`) and any other English wording through
`free_text.read_free`, and compares the claims with coefficients:

  lacking   a movement is claimed whose coefficient is below `ABSENT`
  level     a movement is claimed two levels or more off
  side      a movement or the stronger side is claimed on the wrong side, or evenness wrongly
  missing   a coefficient of level `NOTABLE` or more is not mentioned
  emotion   an emotion is claimed that the coefficients do not support within a level
  field     one of the four fields is missing

Levels are those of `face/describe.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from sf_jax.face.channels import INDEX
from sf_jax.face.claims import (
    SIDES,
    SPOKEN,
    Claim,
    Claims,
    EmotionClaim,
    SymmetryClaim,
    action_channels,
    claims_of_reading,
)
from sf_jax.face.describe import (
    HEAD_ANGLES,
    Description,
    DescriptionError,
    channels_of,
    head_level,
    level,
    levels_of,
    read,
    supports,
)
from sf_jax.face.free_text import read_free
from sf_jax.face.phrases import ACTIONS, EMOTIONS, Need

ABSENT = 0.05  # below it, a value rounds to 0.0 in answers of one decimal
NOTABLE = 2  # values of this level or more ought to be mentioned
UNEVEN = 0.3  # a difference of the sides from which on "symmetric" is wrong
KINDS = ("lacking", "level", "side", "missing", "emotion", "field")


@dataclass(frozen=True)
class Contradiction:
    """One difference between a rationale and coefficients.

    Attributes:
      kind: one of `KINDS`.
      name: the channel, action, emotion or field it is about.
      text: a sentence for people, and for a model that is to repair the rationale.
    """

    kind: str
    name: str
    text: str


class _Face:
    """Coefficients with what is known of them."""

    def __init__(self, values: np.ndarray, known: np.ndarray):
        self.values = np.where(known, np.nan_to_num(values), 0.0)
        self.known = known & ~np.isnan(values)

    def value(self, channel: str) -> float:
        return float(self.values[INDEX[channel]])

    def knows(self, channel: str) -> bool:
        return bool(self.known[INDEX[channel]])

    def level(self, channel: str, sign: int = 1) -> int:
        """The level of a movement: 0 where the value is of the other sign."""
        value = self.value(channel)
        if channel in HEAD_ANGLES:
            return max(0, sign * head_level(value))
        return level(value)

    def strength(self, channel: str, sign: int = 1) -> float:
        return sign * self.value(channel)

    def within(self, channel: str, sign: int, levels: tuple[int, int]) -> bool:
        """Whether a movement is there within one of the given levels."""
        if self.strength(channel, sign) < ABSENT:
            return False
        return levels[0] - 1 <= self.level(channel, sign) <= levels[1] + 1


def claims(text: str) -> Claims:
    """What a rationale claims, in the describer's language or in other English words."""
    try:
        return claims_of_reading(read(text))
    except DescriptionError:
        return read_free(text)


def check(
    text: str, coefficients: Float[np.ndarray, "61"], known: Bool[np.ndarray, "61"] | None = None
) -> tuple[Contradiction, ...]:
    """Contradictions between a rationale and coefficients; none where they agree.

    Args:
      coefficients: in canonical order; NaN where a channel is not known.
      known: channels that are known; None means those that are not NaN. Claims of other channels
        are not judged, and nor are emotions that rest on them.
    """
    face = _Face(coefficients, np.ones(61, bool) if known is None else known)
    claimed = claims(text)
    out = list(_fields(text))
    for claim in claimed.movements:
        if not claim.vague:
            out += _movement(claim, face)
    out += _missing(claimed.movements, face)
    for emotion in claimed.emotions:
        out += _emotion(emotion, face)
    for symmetry in claimed.symmetry:
        out += _symmetry(symmetry, face)
    return tuple({(found.kind, found.name): found for found in reversed(out)}.values())[::-1]


def _fields(text: str) -> Iterator[Contradiction]:
    fields = Description.parse(text)
    for name in ("expression", "movements", "emotion", "symmetry"):
        if not getattr(fields, name).strip():
            yield Contradiction("field", name, f"the field {name} is missing")


def _targets(action: str, side: str | None) -> list[tuple[str, int]]:
    """The channels, with signs, that an action on a side is about."""
    channels = action_channels(action)
    if side in SIDES and side in channels:
        return [channels[side]]
    return list(channels.values())


def _agrees(action: str, claim: Claim, face: _Face) -> bool:
    """Whether an action that a claim can mean is there, on its side, within one level."""
    targets = _targets(action, claim.side)
    if any(not face.knows(channel) for channel, _ in targets):
        return True
    found = [face.within(channel, sign, claim.levels) for channel, sign in targets]
    if claim.side is None:  # the words name no side: the stronger one counts
        stronger = max(targets, key=lambda target: face.strength(*target))
        return face.within(*stronger, claim.levels)
    return all(found)


def _movement(claim: Claim, face: _Face) -> Iterator[Contradiction]:
    if any(_agrees(action, claim, face) for action in claim.actions):
        return
    action = max(claim.actions, key=lambda one: _strongest(one, None, face))
    there, anywhere = _strongest(action, claim.side, face), _strongest(action, None, face)
    name, quoted = "/".join(claim.actions), f"{claim.words!r}"
    if anywhere < ABSENT:
        yield Contradiction("lacking", name, f"{quoted}: {_valued(claim.actions, face)}")
    elif claim.side is not None and any(
        _agrees(one, replace(claim, side=None), face) for one in claim.actions
    ):
        problem = f"{quoted} ({claim.side}): {_valued(claim.actions, face)}"
        yield Contradiction("side", name, problem)
    elif there < ABSENT:
        yield Contradiction("lacking", name, f"{quoted}: {_valued(claim.actions, face)}")
    else:
        yield Contradiction("level", name, f"{quoted}: {_valued(claim.actions, face)}")


def _strongest(action: str, side: str | None, face: _Face) -> float:
    return max(face.strength(*target) for target in _targets(action, side))


def _valued(actions: Sequence[str], face: _Face) -> str:
    """ "MouthSmileLeft is 0.00, MouthSmileRight is 0.52 (moderate)" of the channels meant."""
    names = dict.fromkeys(channel for one in actions for channel, _ in _targets(one, None))
    return ", ".join(_amount(name, face) for name in names)


def _amount(channel: str, face: _Face) -> str:
    value = face.value(channel)
    number = abs(head_level(value)) if channel in HEAD_ANGLES else level(value)
    how = LEVEL_NAMES[number]
    return f"{channel} is {value:.2f}" + (f" ({how})" if how else "")


LEVEL_NAMES = {0: "", 1: "slight", 2: "moderate", 3: "strong"}


def _missing(movements: Sequence[Claim], face: _Face) -> Iterator[Contradiction]:
    for channel in SPOKEN:
        sign = -1 if channel in HEAD_ANGLES and face.value(channel) < 0 else 1
        number = face.level(channel, sign)
        if number < NOTABLE or not face.knows(channel):
            continue
        if not any(_covers(claim, channel, sign, number) for claim in movements):
            text = f"{_amount(channel, face)} and is not described at that level"
            yield Contradiction("missing", channel, text)


def _covers(claim: Claim, channel: str, sign: int, number: int) -> bool:
    """Whether a claim mentions a channel, and not at a level two or more off."""
    if number > claim.levels[1] + 1:
        return False
    return any((channel, sign) in _targets(action, claim.side) for action in claim.actions)


def _emotion(claim: EmotionClaim, face: _Face) -> Iterator[Contradiction]:
    rule = next(rule for rule in EMOTIONS if rule.name == claim.emotion)
    needs = [need for group in rule.groups for need in group]
    if any(not face.knows(name) for need in needs for name in channels_of(need.stem)):
        return
    levels = levels_of(face.values)
    if not supports(levels, rule, within=1):
        wanted = " and ".join(" or ".join(map(_needed, group)) for group in rule.groups)
        text = f"{claim.words!r} is not supported: {claim.emotion} takes {wanted}"
        yield Contradiction("emotion", claim.emotion, text)


def _needed(need: Need) -> str:
    side = " on one side" if need.sides == "one" else ""
    return f"{LEVEL_NAMES[need.level]} {need.stem}{side}"


def _differences(face: _Face, actions: Sequence[str]) -> dict[str, float]:
    """Left minus right of each action that has sides and is compared."""
    out = {}
    for action in actions:
        channels = action_channels(action)
        if set(channels) != set(SIDES) or action.startswith(("EyeLook", "Gaze")):
            continue
        (left, _), (right, _) = channels["left"], channels["right"]
        if face.knows(left) and face.knows(right):
            out[action] = face.value(left) - face.value(right)
    return out


def _symmetry(claim: SymmetryClaim, face: _Face) -> Iterator[Contradiction]:
    differences = _differences(face, claim.actions or tuple(ACTIONS))
    if not differences:
        return
    if claim.side == "even":
        for action, difference in differences.items():
            if round(abs(difference), 6) >= UNEVEN:
                problem = f"{claim.words!r}: {_valued((action,), face)}"
                yield Contradiction("side", action, problem)
        return
    sign = 1 if claim.side == "left" else -1
    stronger = max(sign * difference for difference in differences.values())
    weaker = max(-sign * difference for difference in differences.values())
    if stronger < ABSENT / 2 or (weaker > stronger + ABSENT and not claim.actions):
        problem = f"{claim.words!r}: the {claim.side} side is not the stronger one"
        yield Contradiction("side", "/".join(claim.actions) or "symmetry", problem)
