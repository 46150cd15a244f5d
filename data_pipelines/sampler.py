"""Plausible faces: prototype expressions, mouth shapes of speech, gaze, blinks, asymmetry."""

import numpy as np

from sf_jax.face.channels import INDEX, NAMES
from sf_jax.face.channels import mirror as mirrored

GAZE_RADIANS = 0.6  # eye angle per unit of a look coefficient, as recorded takes show

# Channel stems without a side mean both sides.
EXPRESSIONS: dict[str, dict[str, float]] = {
    "joy": {"MouthSmile": 0.8, "CheekSquint": 0.6, "EyeSquint": 0.4, "MouthUpperUp": 0.3,
            "MouthDimple": 0.2, "JawOpen": 0.2},
    "sadness": {"BrowInnerUp": 0.8, "MouthFrown": 0.7, "MouthShrugLower": 0.4,
                "EyeLookDown": 0.3, "MouthStretch": 0.1},
    "anger": {"BrowDown": 0.9, "EyeSquint": 0.5, "NoseSneer": 0.4, "MouthPress": 0.5,
              "MouthFrown": 0.3, "JawForward": 0.3},
    "surprise": {"BrowInnerUp": 0.7, "BrowOuterUp": 0.8, "EyeWide": 0.8, "JawOpen": 0.6},
    "fear": {"BrowInnerUp": 0.8, "BrowOuterUp": 0.3, "EyeWide": 0.7, "MouthStretch": 0.6,
             "JawOpen": 0.3},
    "disgust": {"NoseSneer": 0.9, "MouthUpperUp": 0.6, "BrowDown": 0.4, "CheekSquint": 0.4,
                "MouthShrugLower": 0.3},
    "contempt": {"MouthSmileLeft": 0.5, "MouthDimpleLeft": 0.6, "CheekSquintLeft": 0.2,
                 "EyeSquint": 0.2},
    "pain": {"BrowDown": 0.6, "EyeSquint": 0.8, "CheekSquint": 0.6, "NoseSneer": 0.5,
             "MouthStretch": 0.5, "JawOpen": 0.3, "MouthUpperUp": 0.4},
    "thought": {"BrowDown": 0.4, "MouthPress": 0.4, "MouthLeft": 0.4, "EyeSquint": 0.3},
    "doubt": {"BrowOuterUpLeft": 0.8, "BrowDownRight": 0.4, "MouthFrown": 0.2},
    "kiss": {"MouthPucker": 0.9, "EyeSquint": 0.2},
    "shrug": {"MouthShrugLower": 0.7, "MouthShrugUpper": 0.6, "BrowInnerUp": 0.4,
              "MouthFrown": 0.3},
    "puff": {"CheekPuff": 0.9, "MouthPress": 0.3},
    "neutral": {},
}  # fmt: skip
VISEMES: dict[str, dict[str, float]] = {
    "A": {"JawOpen": 0.7, "MouthLowerDown": 0.3, "MouthUpperUp": 0.2},
    "E": {"JawOpen": 0.3, "MouthStretch": 0.5, "MouthSmile": 0.3, "MouthLowerDown": 0.4},
    "I": {"JawOpen": 0.15, "MouthSmile": 0.4, "MouthStretch": 0.3, "MouthLowerDown": 0.4},
    "O": {"JawOpen": 0.45, "MouthFunnel": 0.7},
    "U": {"JawOpen": 0.2, "MouthPucker": 0.7, "MouthFunnel": 0.3},
    "M": {"JawOpen": 0.3, "MouthClose": 0.28, "MouthRollLower": 0.3, "MouthRollUpper": 0.3,
          "MouthPress": 0.3},
    "F": {"JawOpen": 0.15, "MouthRollLower": 0.6, "MouthUpperUp": 0.3},
    "T": {"JawOpen": 0.25, "TongueOut": 0.4, "MouthLowerDown": 0.2},
}  # fmt: skip
_EXCLUSIVE = (("JawLeft", "JawRight"), ("MouthLeft", "MouthRight"))
_GAZE = ("EyeLookDown", "EyeLookIn", "EyeLookOut", "EyeLookUp")
_RARE = [name for name in NAMES[:52] if not name.startswith(_GAZE)]


def _add(face: np.ndarray, action: dict[str, float], strength: float, g: np.random.Generator):
    """Adds an action, each channel randomly scaled or dropped."""
    for stem, amount in action.items():
        if g.random() < 0.15:
            continue
        value = amount * strength * g.uniform(0.5, 1.3)
        names = [stem] if stem in INDEX else [stem + "Left", stem + "Right"]
        for name in names:
            face[INDEX[name]] += value * g.uniform(0.85, 1.15)


def _extras(face: np.ndarray, g: np.random.Generator) -> None:
    """Adds a few independent channels, so that every channel is sampled, alone and combined."""
    for _ in range(int(g.poisson(2.5))):
        name = _RARE[g.integers(len(_RARE))]
        value = g.beta(1.3, 1.3)
        face[INDEX[name]] += value
        partner = INDEX[mirror_name(name)]
        if partner != INDEX[name] and (name, mirror_name(name)) not in _EXCLUSIVE:
            face[partner] += value * (g.uniform(0.8, 1.1) if g.random() < 0.65 else 0.0)


def mirror_name(name: str) -> str:
    """The channel on the other side, or the channel itself."""
    if "Left" in name:
        return name.replace("Left", "Right")
    return name.replace("Right", "Left")


def _exclude(face: np.ndarray) -> None:
    """Makes opposite channels exclusive; MouthClose is at most JawOpen."""
    pairs = _EXCLUSIVE
    for left, right in pairs:
        i, j = INDEX[left], INDEX[right]
        difference = face[i] - face[j]
        face[i], face[j] = max(difference, 0), max(-difference, 0)
    close, jaw = INDEX["MouthClose"], INDEX["JawOpen"]
    if face[close] > face[jaw]:
        face[jaw] = face[close]


def _gaze(face: np.ndarray, g: np.random.Generator) -> None:
    """Samples a gaze, nearly the same for both eyes; look coefficients and eye angles agree."""
    yaw, pitch = (g.normal(0, [0.22, 0.16])) * (g.random() < 0.75)
    vergence = abs(g.normal(0, 0.03))
    for side, sign in (("Left", 1), ("Right", -1)):
        turn = float(np.clip(yaw - sign * vergence, -0.6, 0.6))
        drop = float(np.clip(pitch + g.normal(0, 0.01), -0.5, 0.6))
        outward = sign * turn / GAZE_RADIANS
        face[INDEX[f"EyeLookOut{side}"]] = max(outward, 0)
        face[INDEX[f"EyeLookIn{side}"]] = max(-outward, 0)
        face[INDEX[f"EyeLookDown{side}"]] = max(drop / GAZE_RADIANS, 0)
        face[INDEX[f"EyeLookUp{side}"]] = max(-drop / GAZE_RADIANS, 0)
        face[INDEX[f"{side}EyeYaw"]] = turn
        face[INDEX[f"{side}EyePitch"]] = drop
        face[INDEX[f"{side}EyeRoll"]] = -0.5 * turn * drop


def _lids(face: np.ndarray, g: np.random.Generator) -> None:
    """Samples blinks and winks; lids follow a lowered gaze; a closing eye is not wide open."""
    left, right = INDEX["EyeBlinkLeft"], INDEX["EyeBlinkRight"]
    kind = g.random()
    if kind < 0.18:
        face[[left, right]] = np.clip(g.beta(2, 1.2) + g.normal(0, 0.03, 2), 0, 1)
    elif kind < 0.24:
        face[left if g.random() < 0.5 else right] = g.beta(3, 1.2)
    for side in ("Left", "Right"):
        blink = INDEX[f"EyeBlink{side}"]
        face[blink] += 0.25 * face[INDEX[f"EyeLookDown{side}"]]
        face[INDEX[f"EyeWide{side}"]] *= max(0.0, 1 - 1.5 * face[blink])


def sample(seed: int) -> np.ndarray:
    """One sampled face, float32 [61] in canonical order, angles in radians; the same for a seed."""
    g = np.random.default_rng([61, seed])
    face = np.zeros(len(NAMES))
    names = list(EXPRESSIONS)
    _add(face, EXPRESSIONS[names[g.integers(len(names))]], g.beta(1.5, 1.2), g)
    if g.random() < 0.25:
        _add(face, EXPRESSIONS[names[g.integers(len(names))]], 0.6 * g.beta(1.5, 1.5), g)
    if g.random() < 0.45:
        _add(face, VISEMES[list(VISEMES)[g.integers(len(VISEMES))]], g.uniform(0.4, 1.2), g)
    _extras(face, g)
    if g.random() < 0.25:  # one side moves less
        side = "Left" if g.random() < 0.5 else "Right"
        for name in NAMES[:52]:
            if name.endswith(side):
                face[INDEX[name]] *= g.uniform(0.4, 1.0)
    face[:52] *= face[:52] > 0.04
    _exclude(face)
    _gaze(face, g)
    _lids(face, g)
    face[52:55] = np.clip(g.normal(0, [0.28, 0.18, 0.13]), [-0.7, -0.5, -0.4], [0.7, 0.5, 0.4])
    face[:52] = np.clip(face[:52], 0, 1)
    face = face.astype(np.float32)
    return mirrored(face) if g.random() < 0.5 else face
