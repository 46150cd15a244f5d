"""The few-shot prompt of the Stage I teacher: coefficients → a rationale of four fields.

The method, a frozen language model that describes coefficients, is SemanticFace's; this prompt is
our own. What it asks for is what `sf_jax/face/checking.py` checks.
"""

from collections.abc import Sequence

import numpy as np

from sf_jax.face.channels import INDEX, NAMES
from sf_jax.face.checking import LEVEL_NAMES, Contradiction
from sf_jax.face.describe import HEAD_ANGLES, emotion_of, head_level, level, levels_of
from sf_jax.face.phrases import HEAD

Messages = list[dict[str, str]]

SYSTEM = """You describe facial expressions from ARKit blendshape coefficients. \
Write four numbered fields and nothing else:
1. Expression: the kind of expression, in a few words.
2. Movements: what the muscles do, by region (Brows, Eyes, Cheeks, Mouth, Jaw, Head), each with \
its intensity and, where the sides differ, its side.
3. Emotion: an emotion only if it is listed as supported, otherwise "not clearly observable".
4. Symmetry: which side is stronger where they differ clearly, otherwise "mostly symmetric".

Rules:
- Describe every movement that is listed, and no other.
- Use the given intensity: slight, moderate or strong.
- Left and right are the person's own.
- Do not write channel names or numbers."""

# Three faces and what is to be written of them.
_EXAMPLES: tuple[tuple[dict[str, float], str], ...] = (
    (
        {
            "MouthSmileLeft": 0.62,
            "MouthSmileRight": 0.6,
            "CheekSquintLeft": 0.4,
            "CheekSquintRight": 0.41,
            "EyeSquintLeft": 0.2,
            "EyeSquintRight": 0.22,
            "JawOpen": 0.3,
        },
        "1. Expression: an open, friendly smile.\n"
        "2. Movements: Eyes: both eyes slightly squinted; Cheeks: both cheeks moderately raised; "
        "Mouth: both mouth corners moderately pulled up; Jaw: slightly open.\n"
        "3. Emotion: happiness.\n4. Symmetry: mostly symmetric.",
    ),
    (
        {"BrowOuterUpLeft": 0.7, "MouthPressLeft": 0.4, "MouthPressRight": 0.42, "HeadYaw": -0.3},
        "1. Expression: one raised eyebrow over pressed lips.\n"
        "2. Movements: Brows: the left outer brow strongly raised; Mouth: lips moderately "
        "pressed together; Head: moderately turned to the right.\n"
        "3. Emotion: not clearly observable.\n4. Symmetry: the left outer brow is higher.",
    ),
    (
        {"BrowDownLeft": 0.8, "BrowDownRight": 0.75, "NoseSneerLeft": 0.5, "NoseSneerRight": 0.5},
        "1. Expression: a scowl.\n"
        "2. Movements: Brows: both brows strongly lowered; Cheeks: both sides of the nose "
        "moderately wrinkled.\n"
        "3. Emotion: anger.\n4. Symmetry: mostly symmetric.",
    ),
)


def listing(coefficients: np.ndarray) -> str:
    """The user's message: channels of level 1 or more with values and levels.

    Args:
      coefficients: [61] in canonical order, 0 where not known.
    """
    lines = []
    for name in NAMES[:52]:
        value = float(coefficients[INDEX[name]])
        if level(value):
            lines.append(f"{name} {value:.2f} ({LEVEL_NAMES[level(value)]})")
    for name in HEAD_ANGLES:
        number = head_level(float(coefficients[INDEX[name]]))
        if number:
            how = HEAD[name, 1 if number > 0 else -1][0]
            lines.append(f"head {how} ({LEVEL_NAMES[abs(number)]})")
    supported = emotion_of(levels_of(coefficients)) or "none"
    return "\n".join([*(lines or ["all at rest"]), f"Supported emotion: {supported}"])


def examples() -> Messages:
    """The system message and the examples, with which every conversation begins."""
    out = [{"role": "system", "content": SYSTEM}]
    for values, answer in _EXAMPLES:
        face = np.zeros(61)
        for name, value in values.items():
            face[INDEX[name]] = value
        out += [
            {"role": "user", "content": listing(face)},
            {"role": "assistant", "content": answer},
        ]
    return out


def conversation(coefficients: np.ndarray) -> Messages:
    """The messages that ask for a rationale of coefficients [61]."""
    return [*examples(), {"role": "user", "content": listing(coefficients)}]


def repair(messages: Messages, text: str, problems: Sequence[Contradiction]) -> Messages:
    """The messages that ask for a better rationale in place of `text`."""
    listed = "\n".join(f"- {problem.text}" for problem in problems)
    asked = f"This does not agree with the coefficients:\n{listed}\nWrite all four fields again."
    return [
        *messages,
        {"role": "assistant", "content": text},
        {"role": "user", "content": asked},
    ]
