"""What a rationale claims of a face: movements at levels on sides, an emotion, a symmetry.

The describer's own sentences and freely worded ones are read into the same claims, which
`face/checking.py` compares with coefficients.

An *action* is what one phrase can name. Most are a stem of channels (`describe.channels_of`). A
head angle has two actions, one for each direction, and a gaze to one side moves both eyes.
"""

from dataclasses import dataclass

from sf_jax.face.channels import INDEX, NAMES
from sf_jax.face.describe import HEAD_ANGLES, Reading, channels_of
from sf_jax.face.phrases import ACTIONS

SIDES = ("left", "right")
GAZES = {
    "GazeLeft": {"left": "EyeLookOutLeft", "right": "EyeLookInRight"},
    "GazeRight": {"left": "EyeLookInLeft", "right": "EyeLookOutRight"},
}
HEAD_ACTIONS = tuple(f"{name}{sign}" for name in HEAD_ANGLES for sign in "+-")
ANY_LEVEL = (1, 3)


def action_channels(action: str) -> dict[str | None, tuple[str, int]]:
    """The channels of an action by side (None: the action has no sides), and their signs.

    The sign is -1 where a negative value is the movement, as for head angles.
    """
    if action in GAZES:
        return {side: (name, 1) for side, name in GAZES[action].items()}
    if action[-1] in "+-":
        return {None: (action[:-1], 1 if action[-1] == "+" else -1)}
    names = channels_of(action)
    if len(names) == 1:
        return {None: (names[0], 1)}
    return {side: (name, 1) for side, name in zip(SIDES, names, strict=True)}


@dataclass(frozen=True)
class Claim:
    """One statement that something moves.

    Attributes:
      actions: what the words can mean; at least one of these has to be there.
      side: "left", "right", "both", or None where the words name none.
      levels: the lowest and the highest level that the words allow.
      words: the phrase, for messages.
      vague: a headline or a figure of speech, which mentions its actions but proves nothing.
    """

    actions: tuple[str, ...]
    side: str | None
    levels: tuple[int, int]
    words: str
    vague: bool = False


@dataclass(frozen=True)
class EmotionClaim:
    """A claim that the face shows an emotion of `phrases.EMOTIONS`."""

    emotion: str
    words: str


@dataclass(frozen=True)
class SymmetryClaim:
    """A claim about left and right.

    Attributes:
      side: the stronger side; "even" where both are claimed to be alike.
      actions: of which actions; empty: of the whole face.
    """

    side: str
    actions: tuple[str, ...]
    words: str


@dataclass(frozen=True)
class Claims:
    """All that a rationale claims."""

    movements: tuple[Claim, ...]
    emotions: tuple[EmotionClaim, ...]
    symmetry: tuple[SymmetryClaim, ...]


def claims_of_reading(reading: Reading) -> Claims:
    """The claims of a rationale in the describer's language."""
    movements = []
    for name, number in reading.levels.items():
        action, side = action_of(name, number)
        level = abs(number)
        movements.append(Claim((action,), side, (level, level), name))
    emotions = [EmotionClaim(reading.emotion, reading.emotion)] if reading.emotion else []
    symmetry = [SymmetryClaim(side, (stem,), stem) for stem, side in reading.asymmetric.items()]
    if not symmetry:
        symmetry = [SymmetryClaim("even", (), "mostly symmetric")]
    return Claims(tuple(movements), tuple(emotions), tuple(symmetry))


def action_of(channel: str, sign: int = 1) -> tuple[str, str | None]:
    """The action and the side that one channel belongs to."""
    if channel in HEAD_ANGLES:
        return channel + ("+" if sign > 0 else "-"), None
    for side in SIDES:
        stem = channel.removesuffix(side.capitalize())
        if stem != channel and stem in ACTIONS and stem not in INDEX:
            return stem, side
    return channel, None


SPOKEN = tuple(NAMES[:52]) + HEAD_ANGLES  # channels that a rationale speaks of
