"""Stage I: coefficients → words in four fields, and the words back to channels and levels.

Levels: a blendshape is mentioned from 0.15 on: slight up to 0.35, moderate up to 0.65, strong
above. Head angles count from 0.15 rad on: slight up to 0.25, moderate up to 0.45, strong above;
the angles of the eyes are spoken of through the EyeLook channels only. Every bound is halfway
between two tenths, so that a value and the tenth nearest to it have the same level. The rules for
naming an emotion are the table `phrases.EMOTIONS`; asymmetry is named where the sides differ by
0.15 or more.
Source of the four fields: the released SemanticFace answers; wording and rules are this project's.
"""

import contextlib
import re
from dataclasses import dataclass, replace

import numpy as np

from sf_jax.face.channels import BLENDSHAPES, INDEX, NAMES
from sf_jax.face.phrases import (
    ACTIONS,
    EMOTIONS,
    EXPRESSIONS,
    HEAD,
    LEVEL_WORDS,
    NEUTRAL,
    NO_EMOTION,
    REGIONS,
    SYMMETRIC,
    EmotionRule,
    Need,
)
from sf_jax.media import small_files
from sf_jax.media.errors import DataError

_BOUNDS = (0.15, 0.35, 0.65)
_HEAD_BOUNDS = (0.15, 0.25, 0.45)
_DIGITS = 6  # beyond these, float32 and float64 differ about the same decimal
ASYMMETRY = 0.15
HEAD_ANGLES = ("HeadYaw", "HeadPitch", "HeadRoll")
_NOT_COMPARED = ("EyeLookIn", "EyeLookOut")  # looking aside is no asymmetry


class DescriptionError(DataError):
    """Words that are not the describer's."""


@dataclass(frozen=True)
class Description:
    """The four fields of a rationale."""

    expression: str
    movements: str
    emotion: str
    symmetry: str

    @property
    def text(self) -> str:
        fields = (self.expression, self.movements, self.emotion, self.symmetry)
        numbered = enumerate(zip(_FIELDS, fields, strict=True), 1)
        return "\n".join(f"{i}. {name}: {words}." for i, (name, words) in numbered)

    @classmethod
    def parse(cls, text: str) -> "Description":
        """Splits a text into its fields; a field that is not there is empty, and words before the
        first heading count as the expression."""
        # Other models write "Facial Expression Category", "Emotional Implication" and the like, in
        # numbered headings, in lines of their own or as the keys of an object. Under numbered
        # headings a line such as "Jaw movement: …" is part of a field.
        if text.lstrip().startswith("{"):
            text = _as_lines(text)
        found = list(_NUMBERED.finditer(text))
        if len({_field(match) for match in found}) < 2:
            found = list(_HEADING.finditer(text))
        fields: dict[str, str] = {}
        ends = [*(match.start() for match in found), len(text)][1:]
        for match, end in zip(found, ends, strict=True):
            name, words = _field(match), text[match.end() : end].strip()
            if name in fields:  # "Jaw movement" after "Movements": no word of it is lost
                words = f"{fields[name]}\n{text[match.start() : end].strip()}".strip()
            fields[name] = words
        fields = {name: fields.get(name, "").removesuffix(".") for name in _FIELDS}
        before = text[: found[0].start()] if found else text
        fields["Expression"] = fields["Expression"] or before.strip()
        return cls(*fields.values())


_WORD = r"[^:*\n.\d]{0,24}?"
_NAMED = r"\b(expression|movements?|emotion|symmetry)[^:*\n.]{0,24}\**\s*:\**\s*"
_IN_NUMBER, _IN_LINE = rf"(?:^|\s)\d\.\s*\**{_WORD}", rf"(?:^|\n)[\s*#-]*{_WORD}"
_NUMBERED = re.compile(f"(?i){_IN_NUMBER}{_NAMED}")
_HEADING = re.compile(f"(?i)(?:{_IN_NUMBER}|{_IN_LINE}){_NAMED}")


def _field(heading: re.Match[str]) -> str:
    """The field that a heading names."""
    name = heading[1].capitalize()
    return "Movements" if name == "Movement" else name


def _as_lines(text: str) -> str:
    """A JSON object of the four fields as lines with headings; other text as it is."""
    with contextlib.suppress(DataError):
        found = small_files.parse_json(text)
        inner = found.get("analysis")
        if inner is not None and not isinstance(inner, dict) and len(found) == 1:
            return _in_words(inner, "\n")
        fields = inner if isinstance(inner, dict) else found
        lines = [(key.replace("_", " ").title(), _in_words(fields[key])) for key in fields]
        return "\n".join(f"{heading}: {words}" for heading, words in lines)
    return text


def _in_words(value: object, between: str = "; ") -> str:
    """A JSON value as text: members with their names, what has no words left out."""
    if isinstance(value, dict):
        named = [(key, _in_words(inner)) for key, inner in value.items()]
        return between.join(f"{key}: {words}" for key, words in named if words)
    if isinstance(value, list):
        return between.join(filter(None, map(_in_words, value)))
    return "" if value is None else str(value)


_FIELDS = ("Expression", "Movements", "Emotion", "Symmetry")


@dataclass(frozen=True)
class Reading:
    """What a description says.

    Attributes:
      levels: channel name → 1, 2 or 3; head angles carry the sign of their direction.
      emotion: the rule's name, or None.
      asymmetric: stem → "left" or "right", the stronger side.
    """

    levels: dict[str, int]
    emotion: str | None
    asymmetric: dict[str, str]


def level(value: float, bounds: tuple[float, float, float] = _BOUNDS) -> int:
    """0 for not mentioned, 1 slight, 2 moderate, 3 strong."""
    value = round(value, _DIGITS)
    if value < bounds[0]:
        return 0
    return 1 if value <= bounds[1] else 2 if value <= bounds[2] else 3


def head_level(radians: float) -> int:
    """The level of a head angle with the sign of its direction."""
    return level(abs(radians), _HEAD_BOUNDS) * (1 if radians > 0 else -1)


def channels_of(stem: str) -> tuple[str, ...]:
    """("MouthSmileLeft", "MouthSmileRight") of "MouthSmile", ("JawOpen",) of "JawOpen"."""
    return (stem,) if stem in INDEX else (f"{stem}Left", f"{stem}Right")


def levels_of(coefficients: np.ndarray) -> dict[str, int]:
    """Levels of all blendshapes and signed levels of the head angles."""
    levels = {name: level(float(coefficients[INDEX[name]])) for name in NAMES[BLENDSHAPES]}
    for name in HEAD_ANGLES:
        levels[name] = head_level(float(coefficients[INDEX[name]]))
    return levels


def _holds(need: Need, levels: dict[str, int]) -> bool:
    found = [levels.get(name, 0) for name in channels_of(need.stem)]
    if need.sides == "one":
        return max(found) >= need.level and min(found) == 0
    return (max if need.sides == "either" else min)(found) >= need.level


def supports(levels: dict[str, int], rule: EmotionRule, within: int = 0) -> bool:
    """Whether levels support an emotion.

    Args:
      within: by how many levels each may be off: what is needed may be so much weaker, though not
        absent, and what is forbidden so much stronger.
    """

    def needed(need: Need) -> Need:
        return replace(need, level=max(1, need.level - within))

    if any(_holds(replace(need, level=need.level + within), levels) for need in rule.forbidden):
        return False
    return all(any(_holds(needed(need), levels) for need in group) for group in rule.groups)


def emotion_of(levels: dict[str, int]) -> str | None:
    """The emotion that levels support by the table `phrases.EMOTIONS`, or None."""
    return next((rule.name for rule in EMOTIONS if supports(levels, rule)), None)


def _clauses(stem: str, levels: dict[str, int], generator: np.random.Generator) -> list[str]:
    """The clauses of one action: none, one, or one a side where the sides differ in level."""
    one, both, participle = ACTIONS[stem][generator.integers(len(ACTIONS[stem]))]
    adverbs = {n: words[generator.integers(len(words))] for n, words in LEVEL_WORDS.items()}
    found = [levels[name] for name in channels_of(stem)]
    if len(found) == 1:
        return [f"{both} {adverbs[found[0]]} {participle}"] if found[0] else []
    left, right = found
    if left and left == right:
        return [f"both {both} {adverbs[left]} {participle}"]
    sides = (("left", left), ("right", right))
    return [f"{side} {one} {adverbs[n]} {participle}" for side, n in sides if n]


def _movements(levels: dict[str, int], generator: np.random.Generator) -> str:
    parts = []
    for region, prefixes in REGIONS.items():
        stems = [stem for stem in ACTIONS if stem.startswith(prefixes)]
        clauses = [clause for stem in stems for clause in _clauses(stem, levels, generator)]
        if clauses:
            parts.append(f"{region}: {', '.join(clauses)}")
    clauses = []
    for name in HEAD_ANGLES:
        words = HEAD[name, 1 if levels[name] > 0 else -1]
        adverb = LEVEL_WORDS[abs(levels[name]) or 1]
        if levels[name]:
            chosen = adverb[generator.integers(len(adverb))], words[generator.integers(len(words))]
            clauses.append(f"head {chosen[0]} {chosen[1]}")
    if clauses:
        parts.append(f"Head: {', '.join(clauses)}")
    return "; ".join(parts) or "at rest"


def _expression(coefficients: np.ndarray, levels: dict[str, int]) -> str:
    """The strongest action's name, and the second's where it is moderate or more."""
    strength = {
        stem: max(float(coefficients[INDEX[name]]) for name in channels_of(stem))
        for stem in ACTIONS
        if any(levels[name] for name in channels_of(stem))
    }
    ranked = sorted(strength, key=lambda stem: -strength[stem])
    names = list(dict.fromkeys(EXPRESSIONS[stem] for stem in ranked))
    if not names:
        return NEUTRAL
    second = [
        stem for stem in ranked if level(strength[stem]) >= 2 and EXPRESSIONS[stem] != names[0]
    ]
    return names[0] + (f" with {EXPRESSIONS[second[0]]}" if second else "")


def _symmetry(coefficients: np.ndarray) -> str:
    uneven = []
    for stem in ACTIONS:
        names = channels_of(stem)
        if len(names) == 1 or stem in _NOT_COMPARED:
            continue
        left, right = (float(coefficients[INDEX[name]]) for name in names)
        if round(abs(left - right), _DIGITS) >= ASYMMETRY:
            uneven.append(f"{EXPRESSIONS[stem]} {'left' if left > right else 'right'}")
    return "stronger " + ", ".join(uneven) if uneven else SYMMETRIC


def describe(coefficients: np.ndarray, seed: int = 0) -> Description:
    """Describes a face; the seed chooses among equivalent wordings.

    Args:
      coefficients: [61] in canonical order, in range.
    """
    generator = np.random.default_rng(seed)
    levels = levels_of(coefficients)
    name = emotion_of(levels)
    emotion = NO_EMOTION
    if name is not None:
        words = next(rule.words for rule in EMOTIONS if rule.name == name)
        emotion = words[generator.integers(len(words))]
    return Description(
        expression=_expression(coefficients, levels),
        movements=_movements(levels, generator),
        emotion=emotion,
        symmetry=_symmetry(coefficients),
    )


def redescribed(description: Description, coefficients: np.ndarray) -> Description:
    """A description of other coefficients in place of a given one.

    Empty where the given one is not in the describer's language, as other models' rationales are,
    and where a channel that the describer speaks of is not known: no words rather than wrong ones.

    Args:
      coefficients: [61] in canonical order, NaN where a channel is not known.
    """
    try:
        read(description.text)
    except DescriptionError:
        return Description("", "", "", "")
    spoken = [*range(len(NAMES))[BLENDSHAPES], *map(INDEX.get, HEAD_ANGLES)]
    if np.isnan(coefficients[spoken]).any():
        return Description("", "", "", "")
    return describe(coefficients)


def _wordings() -> dict[tuple[bool, str, str], str]:
    """(spoken of one side, noun, participle) → stem."""
    table: dict[tuple[bool, str, str], str] = {}
    for stem, wordings in ACTIONS.items():
        for one, both, participle in wordings:
            for key in ((True, one, participle), (False, both, participle)):
                if key[1] and table.setdefault(key, stem) != stem:
                    raise AssertionError(f"{stem} and {table[key]} share the wording {key}")
    return table


_STEM_OF = _wordings()
_LEVEL_OF = {word: n for n, words in LEVEL_WORDS.items() for word in words}
_HEAD_OF = {word: key for key, words in HEAD.items() for word in words}
_EMOTION_OF = {word: rule.name for rule in EMOTIONS for word in rule.words}
_CLAUSE = re.compile(rf"(?:(left|right|both) )?(.+?) ({'|'.join(_LEVEL_OF)}) (.+)")


def _read_clause(clause: str) -> dict[str, int]:
    match = _CLAUSE.fullmatch(clause)
    if match is None:
        raise DescriptionError(f"cannot read the movement {clause!r}")
    side, noun, adverb, participle = match.groups()
    number = _LEVEL_OF[adverb]
    if noun == "head" and side is None and participle in _HEAD_OF:
        name, sign = _HEAD_OF[participle]
        return {name: sign * number}
    stem = _STEM_OF.get((side in ("left", "right"), noun, participle))
    if stem is None or (side is None) != (len(channels_of(stem)) == 1):
        raise DescriptionError(f"cannot read the movement {clause!r}")
    names = channels_of(stem)
    if side in ("left", "right"):
        names = (names[side == "right"],)
    return dict.fromkeys(names, number)


def read(text: str) -> Reading:
    """Text → which channels, at which level.

    Raises:
      DescriptionError: a phrase is not one that `describe` writes; the message holds it.
    """
    description = Description.parse(text)
    levels: dict[str, int] = {}
    if description.movements != "at rest":
        for part in description.movements.split("; "):
            for clause in part.partition(": ")[2].split(", "):
                levels |= _read_clause(clause)
    emotion = description.emotion
    if emotion != NO_EMOTION and emotion not in _EMOTION_OF:
        raise DescriptionError(f"cannot read the emotion {emotion!r}")
    return Reading(levels, _EMOTION_OF.get(emotion), _read_symmetry(description.symmetry))


def _read_symmetry(words: str) -> dict[str, str]:
    if words == SYMMETRIC:
        return {}
    stems = {name: stem for stem, name in EXPRESSIONS.items()}
    found = {}
    for phrase in words.removeprefix("stronger ").split(", "):
        name, _, side = phrase.rpartition(" ")
        if name not in stems or side not in ("left", "right"):
            raise DescriptionError(f"cannot read the asymmetry {phrase!r}")
        found[stems[name]] = side
    return found
