"""The 61 channels of facial action as one table.

A face is 52 ARKit blendshape coefficients in [0, 1] followed by 9 angles of the head and the eyes
in radians, limited to [-1, 1]. The order is that of a Live Link Face CSV file ("canonical order").
Everything else in the package addresses channels by name through this table.

Left and right are the *subject's*; left is +x, up is +y, out of the face is +z. Angles turn
right-handed about these axes: a positive yaw (about y) turns towards the subject's left, a positive
pitch (about x) turns down, a positive roll (about z) tilts the head towards the subject's right
shoulder. This is what a recorded Live Link take does: there EyeLookDown goes with a positive eye
pitch, EyeLookIn of the left eye with a negative eye yaw.
"""

import re
from dataclasses import dataclass

import numpy as np


class UnknownChannel(ValueError):
    """A name that is no channel in any convention of the table."""


@dataclass(frozen=True)
class Channel:
    """One row of the table.

    Attributes:
      index: position in canonical order, 0–60.
      name: the canonical PascalCase name, as in a Live Link Face CSV header.
      region: "eyes", "jaw", "mouth", "brows", "cheeks", "nose", "tongue", "head" or "gaze".
      side: "left", "right" or "both" (the subject's).
      low, high: the range of the value, inclusive.
      unit: "coefficient" (0 rest, 1 full action) or "radian".
      mirror: canonical name of the channel that takes this one's value in a mirrored picture.
      mirror_sign: -1 where the mirrored value changes its sign (yaw and roll), else 1.
    """

    index: int
    name: str
    region: str
    side: str
    low: float
    high: float
    unit: str
    mirror: str
    mirror_sign: int

    @property
    def arkit(self) -> str | None:
        """Apple's and MediaPipe's camelCase name; None for the nine angles, which neither has."""
        return self.name[0].lower() + self.name[1:] if self.unit == "coefficient" else None

    @property
    def short(self) -> str | None:
        """The `mouthSmile_L` spelling of iFacialMocap and most rigs; None for the nine angles."""
        if self.arkit is None or self.side == "both" or self.name in _UNSIDED:
            return self.arkit
        return re.sub(r"(Left|Right)$", lambda m: "_" + m.group()[0], self.arkit)


_UNSIDED = ("JawLeft", "JawRight", "MouthLeft", "MouthRight")  # a direction, not a side

_EYE = "EyeBlink EyeLookDown EyeLookIn EyeLookOut EyeLookUp EyeSquint EyeWide".split()
_CANONICAL = (
    [f"{stem}{side}" for side in ("Left", "Right") for stem in _EYE]
    + "JawForward JawRight JawLeft JawOpen MouthClose MouthFunnel MouthPucker MouthRight".split()
    + "MouthLeft MouthSmileLeft MouthSmileRight MouthFrownLeft MouthFrownRight".split()
    + "MouthDimpleLeft MouthDimpleRight MouthStretchLeft MouthStretchRight".split()
    + "MouthRollLower MouthRollUpper MouthShrugLower MouthShrugUpper".split()
    + "MouthPressLeft MouthPressRight MouthLowerDownLeft MouthLowerDownRight".split()
    + "MouthUpperUpLeft MouthUpperUpRight BrowDownLeft BrowDownRight BrowInnerUp".split()
    + "BrowOuterUpLeft BrowOuterUpRight CheekPuff CheekSquintLeft CheekSquintRight".split()
    + "NoseSneerLeft NoseSneerRight TongueOut".split()
    + "HeadYaw HeadPitch HeadRoll LeftEyeYaw LeftEyePitch LeftEyeRoll".split()
    + "RightEyeYaw RightEyePitch RightEyeRoll".split()
)
_REGIONS = {
    "Eye": "eyes",
    "Jaw": "jaw",
    "Mouth": "mouth",
    "Brow": "brows",
    "Cheek": "cheeks",
    "Nose": "nose",
    "Tongue": "tongue",
    "Head": "head",
    "Left": "gaze",
    "Right": "gaze",
}


def _row(index: int, name: str) -> Channel:
    angle = name.endswith(("Yaw", "Pitch", "Roll"))
    side = "both"
    if name not in _UNSIDED:
        side = "left" if "Left" in name else "right" if "Right" in name else "both"
    stem = re.findall("[A-Z][a-z]+", name)[0]
    mirror = re.sub("Left|Right", lambda m: "Right" if m.group() == "Left" else "Left", name)
    return Channel(
        index=index,
        name=name,
        region=_REGIONS[stem],
        side=side,
        low=-1.0 if angle else 0.0,
        high=1.0,
        unit="radian" if angle else "coefficient",
        mirror=mirror,
        mirror_sign=-1 if name.endswith(("Yaw", "Roll")) else 1,
    )


CHANNELS: tuple[Channel, ...] = tuple(_row(i, name) for i, name in enumerate(_CANONICAL))
NAMES: tuple[str, ...] = tuple(channel.name for channel in CHANNELS)
INDEX: dict[str, int] = {name: i for i, name in enumerate(NAMES)}
BLENDSHAPES = slice(0, 52)
ANGLES = slice(52, 61)
LOW = np.array([channel.low for channel in CHANNELS], np.float32)
HIGH = np.array([channel.high for channel in CHANNELS], np.float32)
MIRROR = np.array([INDEX[channel.mirror] for channel in CHANNELS])
# Blendshapes that a mirrored picture exchanges, in canonical order: left, right, but of JawRight
# and MouthRight, which come before their left ones.
PAIRS = tuple((i, int(MIRROR[i])) for i in range(BLENDSHAPES.stop) if MIRROR[i] > i)
MIRROR_SIGN = np.array([channel.mirror_sign for channel in CHANNELS], np.float32)

# Unreal's Live Link UDP packets hold the same 61 values with left before right for jaw and mouth.
_SWAPPED = {
    "JawRight": "JawLeft",
    "JawLeft": "JawRight",
    "MouthRight": "MouthLeft",
    "MouthLeft": "MouthRight",
}
UDP_ORDER: tuple[str, ...] = tuple(_SWAPPED.get(name, name) for name in NAMES)


def _key(name: str) -> str:
    name = name.strip().rsplit(".", 1)[-1]  # "blendShape1.jawOpen", as exported from Maya
    name = re.sub(r"_L$", "Left", name, flags=re.IGNORECASE)
    name = re.sub(r"_R$", "Right", name, flags=re.IGNORECASE)
    return re.sub(r"[\s_-]", "", name).lower()


_BY_KEY = {_key(name): channel for name, channel in zip(NAMES, CHANNELS, strict=True)}


def lookup(name: str) -> Channel:
    """Finds a channel by its name in any convention of the table, ignoring case.

    Understood: `MouthSmileLeft`, `mouthSmileLeft`, `mouthSmile_L`, `mouth_smile_left` and a
    `node.` before the name.

    Raises:
      UnknownChannel: the name is none of these.
    """
    channel = _BY_KEY.get(_key(name))
    if channel is None:
        raise UnknownChannel(f"{name!r} is not one of the 61 channels")
    return channel


def mirror(coefficients: np.ndarray) -> np.ndarray:
    """Coefficients of the mirrored face: `[..., 61]` in canonical order, in and out."""
    return coefficients[..., MIRROR] * MIRROR_SIGN


EYE_PITCH = [INDEX["LeftEyePitch"], INDEX["RightEyePitch"]]


def eye_pitch_downward(coefficients: np.ndarray, positive: str) -> np.ndarray:
    """Brings `[..., 61]` from a source to this table's sign, a positive eye pitch looking down.

    Sources differ: Live Link takes and SemanticFace count down as positive, KeyframeFace's released
    example counts up. `positive` says which the source has, "down" or "up"; "up" negates the two
    eye pitches. No other channel is known to differ, and head pitch is left as it is.

    Raises:
      ValueError: `positive` is neither.
    """
    if positive not in ("down", "up"):
        raise ValueError(f"eye pitch is positive 'down' or 'up', not {positive!r}")
    if positive == "down":
        return coefficients
    converted = np.array(coefficients)
    converted[..., EYE_PITCH] *= -1
    return converted + 0.0  # no negative zeros


def eye_pitch_disagrees(coefficients: np.ndarray) -> bool:
    """Whether in `[..., 61]` the eye pitches run against EyeLookDown and EyeLookUp on the whole."""
    rows = np.asarray(coefficients, np.float64).reshape(-1, len(NAMES))
    agreement = 0.0
    for side in ("Left", "Right"):
        down = rows[:, INDEX[f"EyeLookDown{side}"]] - rows[:, INDEX[f"EyeLookUp{side}"]]
        agreement += float(np.sum(down * rows[:, INDEX[f"{side}EyePitch"]]))
    return agreement < -0.01 * len(rows)  # below this it is rounding, not a convention
