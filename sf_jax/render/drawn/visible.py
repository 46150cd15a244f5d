"""Which channels a style shows: those that move at least 2 % of the face's pixels.

Rules by the parts of a style; `tests/render/drawn` measures them over many styles. Measuring each
new style would cost more than a hundred drawings.
"""

import numpy as np

from sf_jax.face.channels import INDEX, NAMES
from sf_jax.render.drawn.style import Style

_GAZE = (
    "EyeLookDownLeft EyeLookInLeft EyeLookOutLeft EyeLookUpLeft EyeLookDownRight EyeLookInRight "
    "EyeLookOutRight EyeLookUpRight LeftEyeYaw LeftEyePitch RightEyeYaw RightEyePitch"
).split()
_NEVER = ("JawForward", "LeftEyeRoll", "RightEyeRoll")
_FAINT = 0.08  # lips thinner than this do not show whether they are rolled


def hidden(style: Style) -> list[str]:
    """Names of the channels that a style does not show."""
    names = [*_NEVER]
    if style.eyes.kind == "dot":
        names += _GAZE
    if style.mouth.upper < _FAINT:
        names += ["MouthRollUpper"]
    if style.mouth.lower < _FAINT:
        names += ["MouthRollLower"]
    if style.extras.folds < 0.3:
        names += ["CheekSquintLeft", "CheekSquintRight", "MouthShrugUpper"]
        names += [
            f"Mouth{stem}{side}" for stem in ("Dimple", "Press") for side in ("Left", "Right")
        ]
    if style.nose.kind == "none":
        names += ["NoseSneerLeft", "NoseSneerRight"]
    if style.brows.kind == "none":
        names += ["BrowInnerUp"]
        names += [f"Brow{stem}{side}" for stem in ("Down", "OuterUp") for side in ("Left", "Right")]
    return names


def known_channels(style: Style) -> np.ndarray:
    """bool [61]: the channels that move the drawing enough to be read off it."""
    known = np.ones(len(NAMES), bool)
    known[[INDEX[name] for name in hidden(style)]] = False
    return known
