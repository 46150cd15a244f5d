"""Faces to train on: those of the sampler, and others whose channels are distributed otherwise.

Measured sets are made of `sampler.sample` alone. Training meets denser faces with noise on every
channel, as recorded takes have it, single channels, channels drawn each by itself, and mouths
without the rest: faces that other people label are of such kinds too.
"""

import numpy as np

from data_pipelines.sampler import GAZE_RADIANS, VISEMES, mirror_name, sample
from sf_jax.face.channels import INDEX, NAMES
from sf_jax.face.head_angles import HEAD

TRIES = 20  # single channels that are drawn until a known one is met
PAIRS = [
    (INDEX[name], INDEX[mirror_name(name)])
    for name in NAMES[:52]
    if "Left" in name and name not in ("JawLeft", "MouthLeft")
]
OPPOSITE = [(INDEX[f"{part}Left"], INDEX[f"{part}Right"]) for part in ("Jaw", "Mouth")]
MOUTH = [i for i, name in enumerate(NAMES[:52]) if name.startswith(("Mouth", "Jaw", "Tongue"))]


def varied(seed: int, known: np.ndarray | None = None) -> np.ndarray:
    """A face to train on, float32 [61] in canonical order; the same for a seed.

    Args:
      known: bool [61]; the others are 0. None: all.
    """
    g = np.random.default_rng([62, seed])
    makers, shares = zip(*SHARES.items(), strict=True)
    make = makers[int(g.choice(len(makers), p=shares))]
    face = make(seed, g)
    if known is not None:
        tries = TRIES if make is _single else 0  # of channels that are not known nothing is seen
        while tries and not face[:52][known[:52]].any():
            face, tries = make(seed, g), tries - 1
        face = np.where(known, face, 0)
    return face.astype(np.float32)


def _sampled(seed: int, g: np.random.Generator) -> np.ndarray:
    return sample(seed)


def _dense(seed: int, g: np.random.Generator) -> np.ndarray:
    """A sampled face with a little of every channel, nearly alike on both sides."""
    face = sample(seed).astype(float)
    own = g.beta(0.7, g.uniform(3, 9), 52) * g.uniform(0.3, 1)
    for left, right in PAIRS:
        own[right] = own[left] * g.uniform(0.6, 1.4)
    face[:52] = np.maximum(face[:52] * g.uniform(0.6, 1), own)
    face[[i for i, name in enumerate(NAMES) if name.startswith("EyeLook")]] = 0
    return _consistent(_with_gaze(face, g), g)


def _single(seed: int, g: np.random.Generator) -> np.ndarray:
    """One channel, or one on both sides, at any strength; a third of them at full strength."""
    face = np.zeros(len(NAMES))
    i = int(g.integers(52))
    value = 1.0 if g.random() < 0.33 else g.uniform(0.1, 1)
    face[i] = value
    for pair in PAIRS:
        if i in pair and g.random() < 0.5:
            face[list(pair)] = value
    if NAMES[i] == "MouthClose":  # nothing of it is seen in a closed mouth
        face[INDEX["JawOpen"]] = value
    return _consistent(face, g, turned=0.4)


def _uniform(seed: int, g: np.random.Generator) -> np.ndarray:
    """Each channel drawn by itself, some of them alike on both sides."""
    face = np.zeros(len(NAMES))
    active = g.random(52) < g.uniform(0.08, 0.5)
    face[:52] = active * g.uniform(0, 1, 52)
    for left, right in PAIRS:
        if g.random() < 0.5:
            face[right] = face[left]
    return _consistent(face, g)


def _mouth(seed: int, g: np.random.Generator) -> np.ndarray:
    """A mouth of speech with other channels of the mouth, the rest of the face nearly at rest."""
    face = np.zeros(len(NAMES))
    for stem, amount in list(VISEMES.values())[g.integers(len(VISEMES))].items():
        for name in [stem] if stem in INDEX else [stem + "Left", stem + "Right"]:
            face[INDEX[name]] = amount * g.uniform(0.3, 1.4)
    for i in g.choice(MOUTH, int(g.integers(0, 5)), replace=False):
        face[i] = g.beta(1.1, 1.1)
        for pair in PAIRS:
            if i in pair and g.random() < 0.7:
                face[list(pair)] = face[i]
    if g.random() < 0.3:
        face[[INDEX["EyeBlinkLeft"], INDEX["EyeBlinkRight"]]] = g.beta(1, 2)
    return _consistent(_with_gaze(face, g), g)


def _with_gaze(face: np.ndarray, g: np.random.Generator) -> np.ndarray:
    """The face with both eyes turned alike."""
    across, down = g.normal(0, [0.35, 0.25]) * (g.random() < 0.7)
    for side, sign in (("Left", 1), ("Right", -1)):
        face[INDEX[f"EyeLookOut{side}"]] = max(sign * across, 0)
        face[INDEX[f"EyeLookIn{side}"]] = max(-sign * across, 0)
        face[INDEX[f"EyeLookDown{side}"]] = max(down, 0)
        face[INDEX[f"EyeLookUp{side}"]] = max(-down, 0)
    return face


def _consistent(face: np.ndarray, g: np.random.Generator, turned: float = 1.0) -> np.ndarray:
    """The face with opposite channels exclusive, eye angles of its gaze and a turned head.

    Args:
      turned: scales how far the head turns.
    """
    face[:52] = np.clip(face[:52], 0, 1)
    opposite = [*OPPOSITE]
    for side in ("Left", "Right"):
        opposite.append((INDEX[f"EyeLookIn{side}"], INDEX[f"EyeLookOut{side}"]))
        opposite.append((INDEX[f"EyeLookUp{side}"], INDEX[f"EyeLookDown{side}"]))
    for one, other in opposite:
        difference = face[one] - face[other]
        face[one], face[other] = max(difference, 0), max(-difference, 0)
    jaw, close = INDEX["JawOpen"], INDEX["MouthClose"]
    face[jaw] = max(face[jaw], face[close])
    for side, sign in (("Left", 1), ("Right", -1)):
        across = face[INDEX[f"EyeLookOut{side}"]] - face[INDEX[f"EyeLookIn{side}"]]
        down = face[INDEX[f"EyeLookDown{side}"]] - face[INDEX[f"EyeLookUp{side}"]]
        face[INDEX[f"{side}EyeYaw"]] = sign * across * GAZE_RADIANS
        face[INDEX[f"{side}EyePitch"]] = down * GAZE_RADIANS
    most = np.array([0.7, 0.5, 0.4])
    face[HEAD] = np.clip(turned * g.normal(0, [0.28, 0.18, 0.13]), -most, most)
    return face


SHARES = {_sampled: 0.55, _dense: 0.14, _single: 0.1, _uniform: 0.09, _mouth: 0.12}
