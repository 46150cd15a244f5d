"""The curves of a mouth under an action: the upper and lower lips, inner and outer contours."""

from dataclasses import dataclass

import numpy as np

from sf_jax.render.drawn.action import Action, Pair
from sf_jax.render.drawn.curves import Points, smoothstep
from sf_jax.render.drawn.style import Style

COUNT = 25
T = np.linspace(-1, 1, COUNT)  # along a lip, from the subject's right corner to the left one
_LEFT = smoothstep(T, -0.5, 0.5)
_BUMP = np.exp(-(((np.abs(T) - 0.48) / 0.36) ** 2))  # half way to a corner


@dataclass(frozen=True)
class Lips:
    """A mouth's curves on the frontal face, [25, 2] each, from the right corner to the left one.

    Attributes:
      upper, lower: the inner contours, equal where the mouth is closed.
      upper_edge, lower_edge: the outer contours of the lips.
      gap: height of the opening in the middle, 0 for a closed mouth.
      round: 0 to 1, how far the lips are pursed or funnelled.
      teeth_up, teeth_down: how far the upper and lower rows of teeth are bared.
    """

    upper: Points
    lower: Points
    upper_edge: Points
    lower_edge: Points
    gap: float
    round: float
    teeth_up: float
    teeth_down: float


def _sides(pair: Pair) -> np.ndarray:
    """A pair's values along the mouth."""
    return pair[0] + (pair[1] - pair[0]) * _LEFT


def _own(pair: Pair) -> np.ndarray:
    """A pair's values along the mouth, each on its own half."""
    return np.where(T < 0, pair[0], np.where(T > 0, pair[1], (pair[0] + pair[1]) / 2))


def _line(style: Style, action: Action) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the line between the lips, relative to the mouth's position."""
    m = style.mouth
    smile, frown, stretch, dimple, press = (
        _own(action.pair("Mouth" + name))
        for name in ("Smile", "Frown", "Stretch", "Dimple", "Press")
    )
    pucker, funnel = action.one("MouthPucker"), action.one("MouthFunnel")
    reach = max(m.width, 0.29) * m.move  # a small mouth moves as far as others
    aside = 0.66 * (action.one("MouthLeft") - action.one("MouthRight"))
    jaw = action.one("JawLeft") - action.one("JawRight")
    wider = 0.26 * smile + 0.46 * stretch + 0.4 * dimple - 0.06 * frown + 0.12 * press
    narrow = (1 - 0.62 * min(pucker, 1.2)) * (1 - 0.42 * min(funnel, 1.2))
    half = m.width * np.maximum((1 + reach / m.width * wider) * narrow, 0.18)
    x = half * T + reach * aside + jaw * 0.09
    corner = -0.68 * smile + 0.62 * frown + 0.26 * stretch - 0.16 * dimple
    shrug = action.one("MouthShrugLower")
    height = reach * corner - 0.5 * m.width * m.rest + 0.3 * reach * shrug
    y = height * np.abs(T) ** m.curl - 0.3 * height.mean()
    y = y - reach * 0.4 * shrug - 0.26 * reach * action.one("MouthShrugUpper")
    y = y * (1 - 0.5 * min(1.0, pucker))
    tilt = aside * reach * 0.4
    return x, y - tilt * T


def lips(style: Style, action: Action) -> Lips:
    """The curves of the style's mouth under an action."""
    m = style.mouth
    x, y = _line(style, action)
    funnel, pucker, tongue = (
        action.one(name) for name in ("MouthFunnel", "MouthPucker", "TongueOut")
    )
    up, down = _sides(action.pair("MouthUpperUp")), _sides(action.pair("MouthLowerDown"))
    sneer, press = _sides(action.pair("NoseSneer")), _sides(action.pair("MouthPress"))
    roll_up, roll_down = action.one("MouthRollUpper"), action.one("MouthRollLower")
    jaw = max(0.0, action.one("JawOpen") - 0.95 * action.one("MouthClose"))
    bell = (1 - np.abs(T) ** m.square) ** (1 / m.square)
    edge = np.minimum(1.0, 3.0 * bell)
    w = max(m.width, 0.28) * m.move
    rise = bell * (0.16 * m.open * jaw + 0.28 * w * min(funnel, 1.2))
    rise = rise + w * (edge * _BUMP * (0.27 * up + 0.1 * sneer) + 0.28 * up * bell)
    fall = bell * (0.84 * m.open * jaw + 0.36 * w * min(funnel, 1.2) + 0.3 * w * tongue)
    fall = fall + w * down * (0.28 * edge * _BUMP + 0.3 * bell)
    upper = np.stack([x, m.y + y - rise], 1)
    lower = np.stack([x, m.y + y + fall], 1)
    purse = float(np.clip(max(pucker, 0.8 * funnel), 0, 1.2))
    thin = 1 - 0.55 * np.clip(press, 0, 1.2)
    bow = (1 - np.abs(T) ** 2.2) ** 0.8
    cupid = bow * (1 - 0.22 * np.exp(-((T / 0.16) ** 2)))
    grown = max(m.upper, 0.14 * w) if purse > 0.02 else 0.0
    thick = max(0.0, m.upper * (1 - 0.85 * min(roll_up, 1.1))) + 1.7 * purse * grown
    upper_edge = upper - np.stack([0 * T, thick * cupid * thin], 1)
    grown = max(m.lower, 0.18 * w) if purse > 0.02 else 0.0
    thick = max(0.0, m.lower * (1 - 0.85 * min(roll_down, 1.1))) + 1.8 * purse * grown
    lower_edge = lower + np.stack([0 * T, thick * bow * thin], 1)
    spread = 0.12 * w * min(1.0, purse) * np.sign(T) * (np.abs(T) > 0.93)
    upper_edge[:, 0] += spread
    lower_edge[:, 0] += spread
    return Lips(
        upper,
        lower,
        upper_edge,
        lower_edge,
        gap=float((rise + fall)[COUNT // 2]),
        round=purse,
        teeth_up=float(max(up.max(), 0.0)),
        teeth_down=float(max(down.max(), 0.0)),
    )
