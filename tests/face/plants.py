"""Contradictions planted into rationales and coefficients that agree.

Five kinds: a channel (a movement that is not there is claimed), a level two or more off, a side, an
emotion, an omission. What makes a plant a contradiction is decided here, without the checker.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from sf_jax.face.channels import INDEX, mirror
from sf_jax.face.describe import channels_of
from sf_jax.face.phrases import ACTIONS

# Actions that one phrase can mean together: "raised brows".
ALIKE = (
    ("BrowInnerUp", "BrowOuterUp"),
    ("MouthPucker", "MouthFunnel"),
    ("MouthShrugLower", "MouthShrugUpper", "MouthUpperUp"),
    ("MouthRollLower", "MouthRollUpper", "MouthClose", "MouthPress"),
)

# A movement in free words → the actions of which at least one is then there.
SENTENCES = (
    ("The cheeks are puffed out.", ("CheekPuff",)),
    ("Both cheeks are noticeably blown up with air.", ("CheekPuff",)),
    ("The tongue sticks out.", ("TongueOut",)),
    ("The tip of the tongue is clearly visible.", ("TongueOut",)),
    ("The jaw is thrust forward.", ("JawForward",)),
    ("The jaw drops wide open.", ("JawOpen",)),
    ("The mouth hangs moderately open.", ("JawOpen",)),
    ("The lips are puckered strongly.", ("MouthPucker",)),
    ("The lips are rounded into a funnel.", ("MouthFunnel",)),
    ("Both mouth corners are pulled down strongly.", ("MouthFrown",)),
    ("The corners of the mouth turn up in a clear smile.", ("MouthSmile",)),
    ("She smiles broadly.", ("MouthSmile",)),
    ("The eyebrows are drawn together and lowered.", ("BrowDown",)),
    ("The inner brows are raised strongly.", ("BrowInnerUp",)),
    ("The outer ends of the eyebrows are lifted.", ("BrowOuterUp",)),
    ("The eyes are opened wide.", ("EyeWide",)),
    ("The eyelids are tightly closed.", ("EyeBlink",)),
    ("The eyes are strongly squinted.", ("EyeSquint",)),
    ("The gaze is directed up.", ("EyeLookUp",)),
    ("The nose is wrinkled strongly.", ("NoseSneer",)),
    ("The upper lip is raised on both sides.", ("MouthUpperUp", "MouthShrugUpper")),
    ("The lower lip is pulled down, baring the lower teeth.", ("MouthLowerDown",)),
    ("The lower lip is rolled inward.", ("MouthRollLower",)),
    ("The lips are pressed together firmly.", ("MouthPress",)),
    ("The mouth is stretched sideways.", ("MouthStretch",)),
    ("Deep dimples form as the mouth corners are tucked in.", ("MouthDimple",)),
    ("The chin is bunched up.", ("MouthShrugLower",)),
    ("The cheeks are raised strongly.", ("CheekSquint",)),
    ("The mouth is shifted to the left.", ("MouthLeft",)),
    ("The jaw slides to the right.", ("JawRight",)),
)

# An emotion in free words → the actions of which none may be there for it to be unsupported.
EMOTIONS = (
    ("Happiness.", ("MouthSmile",)),
    ("She looks genuinely happy.", ("MouthSmile",)),
    ("Joy, and a lot of it.", ("MouthSmile",)),
    ("Amusement.", ("MouthSmile",)),
    ("Sadness.", ("MouthFrown", "BrowInnerUp")),
    ("Deep sorrow can be read from the face.", ("MouthFrown", "BrowInnerUp")),
    ("The face suggests grief.", ("MouthFrown", "BrowInnerUp")),
    ("Anger.", ("BrowDown",)),
    ("This is a furious face.", ("BrowDown",)),
    ("Irritation, perhaps.", ("BrowDown",)),
    ("Fear.", ("EyeWide",)),
    ("He seems frightened.", ("EyeWide",)),
    ("Surprise.", ("BrowInnerUp", "BrowOuterUp", "EyeWide", "JawOpen")),
    ("Utter astonishment.", ("BrowInnerUp", "BrowOuterUp", "EyeWide", "JawOpen")),
    ("Disgust.", ("NoseSneer", "MouthUpperUp")),
    ("Revulsion is clearly visible.", ("NoseSneer", "MouthUpperUp")),
    ("Contempt.", ("MouthSmile", "MouthDimple")),
    ("A trace of disdain.", ("MouthSmile", "MouthDimple")),
)
STRONGER = {
    "slightly": "very strongly",
    "a little": "very strongly",
    "faintly": "very strongly",
    "slight": "very strong",
    "a bit": "very strongly",
    "small": "very strong",
}
WEAKER = {
    "strongly": "slightly",
    "strong": "slight",
    "fully": "slightly",
    "completely": "slightly",
    "big force": "small force",
    "to the maximum": "slightly",
    "high": "slightly",
    "maxed out": "slight",
    "hard": "slightly",
}
LEVEL_WORD = re.compile(
    r"(?<!to )(?<!a )\b(" + "|".join([*STRONGER, *WEAKER]) + r")\b(?! little| light)(?!er)"
)


class Plant(NamedTuple):
    kind: str
    text: str
    coefficients: np.ndarray
    what: str


def strength(values: np.ndarray, stem: str) -> float:
    return max(values[INDEX[name]] for name in channels_of(stem))


def alike(stem: str) -> tuple[str, ...]:
    return next((group for group in ALIKE if stem in group), (stem,))


def with_values(values: np.ndarray, stems: tuple[str, ...], value: float) -> np.ndarray:
    out = values.copy()
    for stem in stems:
        for name in channels_of(stem):
            out[INDEX[name]] = value
    return out


def movements_field(text: str) -> re.Match[str]:
    """The text between the headings of movements and emotion."""
    found = re.search(r"(?is)movements?[^:\n]{0,24}:\W*(.*?)(?=\s*[^\n:]{0,20}\bemotion)", text)
    assert found, text
    return found


def emotion_field(text: str) -> re.Match[str]:
    found = re.search(
        r"(?is)emotion[^:\n]{0,16}:[ *\"]*(.*?)(?=\"?,? *\n?[^\n:,]{0,8}\bsymmetry[^:\n]{0,4}:)",
        text,
    )
    assert found, text
    return found


def replaced(text: str, match: re.Match[str], new: str) -> str:
    return text[: match.start(1)] + new + text[match.end(1) :]


def channel(text: str, values: np.ndarray, pick: np.random.Generator) -> Iterator[Plant]:
    """A described action that is not there, and an added sentence about one that is not."""
    clear = [stem for stem in ACTIONS if strength(values, stem) > 0.36]
    if clear:
        stem = clear[pick.integers(len(clear))]
        absent = with_values(values, alike(stem), 0.0)
        yield Plant("channel", text, absent, f"{stem} to 0")
    free = [one for one in SENTENCES if all(strength(values, s) == 0 for s in one[1])]
    if not free:
        return
    sentence, _ = free[pick.integers(len(free))]
    found = movements_field(text)
    new = found[1].rstrip() + ("" if found[1].rstrip().endswith(".") else ".") + " " + sentence
    yield Plant("channel", replaced(text, found, new), values, sentence)


def level(text: str, values: np.ndarray, pick: np.random.Generator) -> Iterator[Plant]:
    """One word of a level replaced by its opposite."""
    found = movements_field(text)
    words = list(LEVEL_WORD.finditer(found[1]))
    if words:
        word = words[pick.integers(len(words))]
        new = ({**STRONGER, **WEAKER})[word[1]]
        changed = found[1][: word.start()] + new + found[1][word.end() :]
        around = found[1][max(0, word.start() - 30) : word.end() + 30]
        yield Plant(
            "level", replaced(text, found, changed), values, f"{word[1]} to {new}: {around!r}"
        )


def side(text: str, values: np.ndarray, pick: np.random.Generator) -> Iterator[Plant]:
    """Left for right, or one side of a symmetric action at rest."""
    turned = mirror(values)
    if np.abs(turned - values).max() >= 0.3:
        yield Plant("side", text, turned, "mirrored")
        return
    clear = [s for s in ACTIONS if len(channels_of(s)) == 2 and strength(values, s) > 0.36]
    clear = [s for s in clear if not s.startswith("EyeLook")]
    if clear:
        stem = clear[pick.integers(len(clear))]
        out = values.copy()
        out[INDEX[channels_of(stem)[pick.integers(2)]]] = 0.0
        yield Plant("side", text, out, f"one side of {stem} to 0")


def emotion(text: str, values: np.ndarray, pick: np.random.Generator) -> Iterator[Plant]:
    free = [one for one in EMOTIONS if all(strength(values, s) == 0 for s in one[1])]
    if not free:
        return
    words, _ = free[pick.integers(len(free))]
    yield Plant("emotion", replaced(text, emotion_field(text), words), values, words)


def omission(text: str, values: np.ndarray, pick: np.random.Generator) -> Iterator[Plant]:
    """An action that no one described, made clear."""
    free = [s for s in ACTIONS if all(strength(values, other) == 0 for other in alike(s))]
    if not free:
        return
    stem = free[pick.integers(len(free))]
    yield Plant("omission", text, with_values(values, (stem,), 0.6), f"{stem} to 0.6")


KINDS = (channel, level, side, emotion, omission)


def plants(text: str, values: np.ndarray, seed: int) -> list[Plant]:
    """One or two contradictions of each kind that a rationale allows."""
    pick = np.random.default_rng(seed)
    return [plant for kind in KINDS for plant in kind(text, values, pick)]
