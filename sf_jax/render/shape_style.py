"""How makers of rigs understand the shapes: their strengths, and what moves along with what.

One maker's smile lifts the cheeks, another's draws the corners alone; one jaw drops twice as far.
A style is a matrix that mixes coefficients before they move vertices, so that one head shows the
same coefficients as many rigs would. Coefficients themselves, which are the labels, are unchanged.
"""

import numpy as np
from jaxtyping import Float

from sf_jax.face.channels import BLENDSHAPES, INDEX, MIRROR, NAMES

Style = Float[np.ndarray, "52 52"]
STRENGTH = 0.13  # deviation of the logarithm of a shape's strength
SHARE, MOST = 0.3, 0.25  # of the companions that move along, and how far at most
EXACT = ("EyeBlink", "EyeLook", "MouthClose")  # a lid shuts and lips meet at 1, neither beyond
# What moves along with a shape in some rigs. Sides are those of the shape.
COMPANIONS = {
    "EyeSquint": ("CheekSquint",),
    "EyeWide": ("BrowOuterUp", "BrowInnerUp"),
    "BrowDown": ("NoseSneer", "EyeSquint"),
    "BrowOuterUp": ("BrowInnerUp", "EyeWide"),
    "BrowInnerUp": ("BrowOuterUp",),
    "CheekSquint": ("EyeSquint", "MouthSmile"),
    "NoseSneer": ("MouthUpperUp", "CheekSquint", "BrowDown"),
    "MouthSmile": ("CheekSquint", "MouthDimple", "MouthUpperUp", "MouthStretch"),
    "MouthFrown": ("MouthStretch", "MouthShrugLower", "MouthLowerDown"),
    "MouthDimple": ("MouthStretch", "MouthPress", "MouthSmile"),
    "MouthStretch": ("MouthFrown", "MouthLowerDown", "MouthDimple"),
    "MouthPress": ("MouthRollLower", "MouthDimple"),
    "MouthUpperUp": ("NoseSneer", "MouthShrugUpper"),
    "MouthLowerDown": ("MouthStretch",),
    "MouthFunnel": ("MouthPucker", "JawOpen"),
    "MouthPucker": ("MouthFunnel",),
    "MouthRollLower": ("MouthRollUpper", "MouthPress"),
    "MouthRollUpper": ("MouthRollLower", "MouthPress"),
    "MouthShrugLower": ("MouthShrugUpper", "MouthFrown"),
    "MouthShrugUpper": ("MouthShrugLower",),
    "MouthLeft": ("JawLeft",),
    "JawLeft": ("MouthLeft",),
    "JawForward": ("MouthShrugLower",),
    "CheekPuff": ("MouthPress",),
}


def _sided(stem: str) -> list[str]:
    """The channels of a stem: itself, or its left and right."""
    return [name for name in (stem, f"{stem}Left", f"{stem}Right") if name in INDEX]


def _pairs() -> list[tuple[int, int]]:
    """(companion, shape) by index, of one side each or of both."""
    return [
        (INDEX[name], INDEX[shape])
        for stem, companions in COMPANIONS.items()
        for shape in _sided(stem)
        for companion in companions
        for name in _sided(companion)
        if _same_side(name, shape)
    ]


def _same_side(one: str, other: str) -> bool:
    sides = [next((s for s in ("Left", "Right") if name.endswith(s)), "") for name in (one, other)]
    return sides[0] == sides[1] or "" in sides


PAIRS = _pairs()


def random_style(generator: np.random.Generator, strength: float = 1.0) -> Style:
    """A random style, the same on both sides: coefficients c [52] move as `style @ c` would.

    Args:
      strength: of what differs from a rig's own shapes; 0 leaves them alone.
    """
    count = len(NAMES[BLENDSHAPES])
    style = np.diag(np.exp(strength * STRENGTH * generator.normal(0, 1, count)))
    for name, index in INDEX.items():
        if name.startswith(EXACT) and index < count:
            style[index, index] = 1.0
    amounts = strength * generator.uniform(-0.2 * MOST, MOST, len(PAIRS))
    amounts *= generator.random(len(PAIRS)) < SHARE
    for (companion, shape), amount in zip(PAIRS, amounts, strict=True):
        style[companion, shape] = amount
    opposite = MIRROR[:count]
    for shape in range(count):  # the right side does as the left
        if NAMES[shape].endswith("Right"):
            style[:, shape] = style[opposite, opposite[shape]]
        elif opposite[shape] == shape:
            style[:, shape] = 0.5 * (style[:, shape] + style[opposite, shape])
    return style.astype(np.float32)
