"""Reads freely worded rationales: English sentences → claims.

A sentence is cut into segments at commas and conjunctions. In a segment, a part of the face and a
kind of movement make a claim where `lexicon.MOVEMENTS` knows the two together: "raised" beside
"cheeks" is one movement and beside "upper lip" another. What a segment leaves out it takes from its
neighbours, as readers do: "the right corner is lifted moderately, the left only a little". What is
negated or at rest makes no claim; an omission is found from the coefficients.

Nothing is understood beyond that: a movement in words that the lexicon does not have is unread.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from sf_jax.face import lexicon
from sf_jax.face.claims import (
    ANY_LEVEL,
    SIDES,
    Claim,
    Claims,
    EmotionClaim,
    SymmetryClaim,
)
from sf_jax.face.describe import Description, level
from sf_jax.face.phrases import ACTIONS


def _joined(patterns: dict[str, str]) -> re.Pattern[str]:
    """One pattern whose group names are the keys; earlier keys win at the same position."""
    return re.compile("|".join(rf"(?P<{name}>\b(?:{found})\b)" for name, found in patterns.items()))


def _numbered(
    patterns: dict[str, tuple[str, ...]],
) -> list[tuple[re.Pattern[str], tuple[str, ...]]]:
    return [
        (re.compile(rf"(?<!\w)(?:{found})(?!\w)"), actions) for found, actions in patterns.items()
    ]


_PARTS = _joined(lexicon.PARTS)
_KINDS = {name: re.compile(rf"\b(?:{found})(?!\w)") for name, found in lexicon.KINDS.items()}
_IDIOMS, _VAGUE = _numbered(lexicon.IDIOMS), _numbered(lexicon.VAGUE)
_SMILING = re.compile(lexicon.SMILING)
_LEVELS = [(re.compile(rf"\b(?:{found})(?!\w)"), span) for found, span in lexicon.LEVELS.items()]
_NEGATIONS, _RESTING = re.compile(lexicon.NEGATIONS), re.compile(rf"\b(?:{lexicon.RESTING})\b")
# These are kinds of movement only where nothing else in their segment is: "lips tight", but
# "tightly pressed"; "eyes wide", but "a wide smile".
_AMBIGUOUS = re.compile(
    r"(?:tight(?:ly)?|high|wide(?:ly)?|low|apart|together|seen|visible|appear\w*|shown?|showing|heavy|"
    r"mov(?:ed|es)|goes?|out|sideways|directed|staring|slack|tens\w+)"
)
_NUMBER = re.compile(
    r"(?<![\w.])(?:(?P<share>[01]?\.\d+|[01])(?![\w.%]*%)|(?P<percent>\d{1,3}) ?%)(?!\w)"
)
_BOTH = re.compile(r"\bboth\b|\bbilateral\w*|\beach\b|\bl/r\b|\beither side\b|\bper side\b")
_DIRECTION = re.compile(r"\b(left|right)(?:ward)?s?\b")
_TOWARDS = re.compile(
    r"(?:\bto|towards?|into|off to|over to|further|hard|drawn|shifted|moved|off)"
    r"(?: (?:the|her|his|their|its|own|the (?:subject|person)'s))* (?:left|right)\b"
)
_CUT = re.compile(
    r",(?!\d)|[()]|\s(?:and|while|but|with|whereas|although|though|plus|versus|vs\.?|against|because|"
    r"so that|where|which|as(?= (?:the|are|is|well|if)\b)|than on|then)\s"
    r"|^(?:although|while|with)\s"
)
_SENTENCES = re.compile(r"[;\n!?]+|\.(?!\d)(?:\s|$)")
_LABEL = re.compile(r"^[\s\-*•\d.]*([a-z][a-z /&]{1,24}?)\s*:\s*")
# The parts that a region's heading stands for, where a sentence below it names none.
_REGION_PARTS = {
    "brow": ("brow",),
    "eye": ("eye", "gaze", "lid"),
    "cheek": ("cheek", "nose"),
    "mouth": ("mouth", "lips", "corner"),
    "lips": ("lips", "mouth", "corner"),
    "jaw": ("jaw",),
    "nose": ("nose",),
    "tongue": ("tongue",),
    "head": ("head",),
    "gaze": ("gaze",),
    "chin": ("chin",),
    "lid": ("lid",),
}


_BESIDE = ("teeth", "upper_teeth", "lower_teeth", "corner")  # named beside what moves


_WHERE = re.compile(
    r"\b(?:over|above|below|beneath|under|off|from|between|around)(?: the| her| his| their)?\s*$"
)


@dataclass
class _Segment:
    """A stretch of a sentence.

    Attributes:
      parts: (position, part); kinds: (position, kind, ambiguous); levels: (position, span).
      side: "left", "right", "both" or None.
    """

    text: str
    parts: list[tuple[int, str]]
    kinds: list[tuple[int, str, bool]]
    levels: list[tuple[int, tuple[int, int]]]
    side: str | None
    negated: int  # where a negation begins, or the length
    resting: bool
    claims: list[Claim] = field(default_factory=list)


@dataclass
class _Context:
    """What later segments may leave out."""

    label: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()  # of the sentence so far, latest first
    part_side: str | None = None
    kind: str | None = None
    claim: Claim | None = None  # the latest
    side: str | None = None  # the last that any sentence named
    leading: str | None = None  # "On the left, …"


def read_free(text: str) -> Claims:
    """The claims of a rationale in any English words; see `Description.parse` for its fields."""
    fields = Description.parse(text)
    headline = _movements(fields.expression, vague=True)
    movements = _movements(fields.movements)
    emotions = [
        *_emotions(fields.emotion, lexicon.NAMED),
        *_emotions(fields.emotion, lexicon.SUGGESTED),
        *_emotions(fields.expression, lexicon.NAMED),
    ]
    unique = {claim.emotion: claim for claim in reversed(emotions)}
    return Claims((*movements, *headline), tuple(unique.values()), _symmetry(fields.symmetry))


def _normalised(text: str) -> str:
    """Lower case; names of channels as words; shared nouns repeated."""
    text = re.sub(r"[*_`\"“”]", "", text.replace("’", "'"))
    text = re.sub(r"\b([A-Za-z]+?)(Left|Right)?\b", _channel_name, text)
    text = text.lower()
    text = re.sub(r"\bright (?=(?:up|down|out|back|across|over)\b)", "strongly ", text)
    pair = (
        r"\b(inner|outer|upper|lower|left|right) (?:and|or|&) (inner|outer|upper|lower|left|right) "
    )
    return re.sub(pair + r"((?:eye|mouth|lip)?\s?\w+)", r"\1 \3 and \2 \3", text)


def _channel_name(match: re.Match[str]) -> str:
    stem = match[1][:1].upper() + match[1][1:]
    if stem not in ACTIONS and stem + (match[2] or "") in ACTIONS:  # JawLeft has no sides
        return f"channel{(stem + match[2]).lower()}"
    if stem not in ACTIONS or not any(letter.isupper() for letter in match[1][1:]):
        return match[0]
    return f"channel{stem.lower()} {(match[2] or '').lower()}"


_STEMS = {f"channel{stem.lower()}": stem for stem in ACTIONS}


def _movements(text: str, vague: bool = False) -> list[Claim]:
    context, claims = _Context(), []
    for sentence in _SENTENCES.split(_normalised(text)):
        label = _LABEL.match(sentence)
        if label:
            found = [part for _, part in _parts_in(label[1])]
            context = replace(context, label=_REGION_PARTS.get(found[0], ()) if found else ())
            sentence = sentence[label.end() :]
        made = _sentence(sentence, context)
        if vague:
            made = [claim if _is_smile(claim) else replace(claim, vague=True) for claim in made]
        claims += [*made, *_vague(sentence)]
    return claims


def _is_smile(claim: Claim) -> bool:
    return _SMILING.fullmatch(claim.words) is not None


def _vague(sentence: str) -> Iterator[Claim]:
    for pattern, actions in _VAGUE:
        for match in pattern.finditer(sentence):
            yield Claim(actions, None, ANY_LEVEL, match[0], vague=True)


def _parts_in(text: str) -> list[tuple[int, str]]:
    return [(match.start(), str(match.lastgroup)) for match in _PARTS.finditer(text)]


def _sentence(sentence: str, context: _Context) -> list[Claim]:
    """The claims of one sentence."""
    context.leading, context.parts = None, ()
    segments = [_segment(text, context) for text in _CUT.split(sentence) if text.strip()]
    waiting: list[tuple[int, str]] = []  # parts whose movement follows: "the nose and cheeks …"
    for index, segment in enumerate(segments):
        segment.claims = _segment_claims(segment, context, waiting)
        silent = not segment.claims and not segment.kinds and not segment.levels
        waiting = [*waiting, *segment.parts] if silent and not segment.resting else []
        if not segment.claims and not segment.parts and not segment.kinds:
            _modify(segments[:index], segment, context)
        context.side = segment.side if segment.side in SIDES else context.side
    return [claim for segment in segments for claim in segment.claims]


def _segment(text: str, context: _Context) -> _Segment:
    masked = text
    parts = [(at, part) for at, part in _parts_in(text) if not _WHERE.search(text[:at])]
    for match in _PARTS.finditer(text):
        masked = masked[: match.start()] + " " * len(match[0]) + masked[match.end() :]
    matches = [(m, name) for name, found in _KINDS.items() for m in found.finditer(masked)]
    kinds = [
        (match.start(), name, bool(_AMBIGUOUS.fullmatch(match[0])))
        for match, name in matches
        if not any(_within(match, other) for other, _ in matches)
    ]
    negation = _NEGATIONS.search(text)
    end = negation.start() if negation else len(text)
    return _Segment(
        text=text,
        parts=parts,
        kinds=sorted(kind for kind in kinds if kind[0] < end),
        levels=_levels(masked),
        side=_side(text, context),
        negated=end,
        resting=bool(_RESTING.search(text)),
    )


def _within(match: re.Match[str], other: re.Match[str]) -> bool:
    """Whether a match is a part of another: the "up" of "pushed up"."""
    inside = other.start() <= match.start() and match.end() <= other.end()
    return inside and len(match[0]) < len(other[0])


def _levels(text: str) -> list[tuple[int, tuple[int, int]]]:
    """Positions and spans of level words; numbers come first, as they are exact."""
    found = []
    for match in _NUMBER.finditer(text):
        value = float(match["share"]) if match["share"] else float(match["percent"]) / 100
        found.append((match.start(), (level(value), level(value))))
    if found:
        return found
    for pattern, span in _LEVELS:
        for match in pattern.finditer(text):
            found.append((match.start(), span))
            text = text[: match.start()] + " " * len(match[0]) + text[match.end() :]
    return found


def _side(text: str, context: _Context) -> str | None:
    """The side that a segment speaks of; "to the left" is a direction, not a side."""
    if _BOTH.search(text):
        return "both"
    if re.search(r"\b(?:that|same)\b (?:same )?(?:side|corner)", text):
        return context.side
    found = set(_DIRECTION.findall(_TOWARDS.sub(" ", text)))
    if len(found) == 1:
        return found.pop()
    return "both" if found else None


def _segment_claims(
    segment: _Segment, context: _Context, waiting: list[tuple[int, str]]
) -> list[Claim]:
    claims = _idioms(segment)
    for uncertain in (False, True):
        if uncertain and claims:
            break
        for position, kind, _ in (found for found in segment.kinds if found[2] is uncertain):
            for part, own in _partners(segment, kind, position, context, waiting):
                claim = _claim(segment, part, kind, position, context, own)
                if claim is not None:
                    claims.append(claim)
                    context.kind = kind
    if re.search(r"\b(?:stay|remain|keep)s?\b", segment.text):
        claims = []
    likewise = re.match(
        r"\s*(?:are|is|so are|so is|do|does)\b|.*\b(?:likewise|too|as well|also)\b", segment.text
    )
    quiet = segment.resting or segment.negated < len(segment.text)
    if not claims and not segment.kinds and (segment.levels or likewise) and not quiet:
        claims = _elliptical(segment, context)
    context.claim = claims[-1] if claims else context.claim
    if segment.parts:
        context.parts = (*(part for _, part in reversed(segment.parts)), *context.parts)
        context.part_side = segment.side or context.part_side
    return [claim for claim in claims if claim.levels[1] > 0]


def _partners(
    segment: _Segment, kind: str, position: int, context: _Context, waiting: list[tuple[int, str]]
) -> list[tuple[str, bool]]:
    """The parts that a kind of movement belongs to, and whether they are in its own segment."""
    fitting = [(abs(at - position), part) for at, part in segment.parts if _fits(part, kind)]
    if fitting:
        earlier = [(part, True) for _, part in waiting if _fits(part, kind)]
        return [(min(fitting)[1], True), *earlier]
    if any(part not in _BESIDE for _, part in segment.parts):
        return []
    for part in (*context.parts, *context.label):
        if _fits(part, kind):
            return [(part, False)]
    return []


def _fits(part: str, kind: str) -> bool:
    return (part, kind) in lexicon.MOVEMENTS


def _claim(
    segment: _Segment, part: str, kind: str, position: int, context: _Context, own: bool
) -> Claim | None:
    actions = lexicon.MOVEMENTS[part, kind]
    side = segment.side or (context.leading if own else context.leading or context.part_side)
    if actions[0] in ("Gaze", "Mouth", "Jaw", "Head"):
        actions = _directed(actions[0], segment.text, position)
        side = "both" if actions and actions[0].startswith("Gaze") else None
        if not actions:
            return None
    return Claim(actions, side, _nearest(segment, position), segment.text.strip())


def _directed(action: str, text: str, position: int) -> tuple[str, ...]:
    """The action of a movement to one side, or none where no direction is named."""
    found = _DIRECTION.findall(text[position:])
    if not found:
        if action == "Head" and re.search(r"\bback(?:wards?)?\b", text):
            return ("HeadPitch-",)
        return ()
    left = found[-1] == "left"
    if action != "Head":
        return (action + ("Left" if left else "Right"),)
    if re.search(r"\b(?:tilt|lean|cock|inclin|tipp|loll)", text):
        return ("HeadRoll-" if left else "HeadRoll+",)
    return ("HeadYaw+" if left else "HeadYaw-",)


def _nearest(segment: _Segment, position: int) -> tuple[int, int]:
    """The level word nearest to a movement, or any level."""
    levels = [found for found in segment.levels if found[0] != position]
    if not levels:
        return ANY_LEVEL
    return min(levels, key=lambda found: abs(found[0] - position))[1]


def _idioms(segment: _Segment) -> list[Claim]:
    claims = []
    for match in re.finditer(r"\bchannel\w+", segment.text):
        if match[0] in _STEMS:
            found = _nearest(segment, match.end())
            claims.append(Claim((_STEMS[match[0]],), segment.side, found, segment.text.strip()))
    for pattern, actions in _IDIOMS:
        for match in pattern.finditer(segment.text):
            paired = any(
                at <= match.start() < at + 2 and any(_fits(part, kind) for _, part in segment.parts)
                for at, kind, _ in segment.kinds
            )
            if match.start() < segment.negated and not paired:
                found = _nearest(segment, match.start())
                claims.append(Claim(actions, segment.side, found, match[0]))
    return claims


def _elliptical(segment: _Segment, context: _Context) -> list[Claim]:
    """ "…, the left only a little": the movement before, of another side or part."""
    if not segment.parts and not segment.kinds and segment.side in SIDES and context.claim:
        levels = _nearest(segment, len(segment.text))
        return [replace(context.claim, side=segment.side, levels=levels)]
    if context.kind is None:
        return []
    parts = [part for _, part in segment.parts if _fits(part, context.kind)]
    claims = [
        _claim(segment, part, context.kind, len(segment.text), context, bool(segment.parts))
        for part in parts
    ]
    return [claim for claim in claims if claim is not None]


def _modify(before: list[_Segment], segment: _Segment, context: _Context) -> None:
    """A segment of levels and sides alone belongs to the claims before it, else to those after."""
    claimed = [other for other in before if other.claims]
    if not claimed:
        context.leading = segment.side or context.leading
        return
    shared = re.search(r"\b(?:all|both|each|every)\b", segment.text)
    for other in claimed if shared else claimed[-1:]:
        for index, claim in enumerate(other.claims):
            levels, side = claim.levels, claim.side
            if levels == ANY_LEVEL and segment.levels:
                levels = segment.levels[0][1]
            if side is None and segment.side == "both":
                side = "both"
            other.claims[index] = replace(claim, levels=levels, side=side)


def _emotions(text: str, patterns: dict[str, str]) -> Iterator[EmotionClaim]:
    for clause in re.split(r"[.;:\n]|\bbut\b|\bthough\b", _normalised(text)):
        negation = _NEGATIONS.search(clause)
        end = negation.start() if negation else len(clause)
        for emotion, pattern in patterns.items():
            match = re.search(rf"\b(?:{pattern})(?!\w)", clause)
            if match and match.start() < end:
                yield EmotionClaim(emotion, match[0])


_EVEN = re.compile(
    r"\b(?:symmetr\w*|even|balanced|same|match|alike|equal\w*|identical|correspond\w*|"
    r"agree|act together|in step|in unison|neither side|mirror\w*)\b"
)
_NO_DIFFERENCE = re.compile(r"\bno (?:\w+ ){0,2}(?:asymmetr\w*|difference\w*)")
_UNEVEN = re.compile(
    r"\basymmetr\w*|\bnot the same|\bstronger|\bhigher|\blower\b(?! (?:face|half|lip))|\bmore\b|"
    r"\bone-sided|\bunilateral|"
    r"\blopsided|\bonly\b|\bheav(?:y|ier)|\bdominant|\bleans|\braised|\blowered|\bclosed|\bgreater|"
    r"\bpronounced|\bon the (?:left|right)|\bdoes most|\bfavou?r\w*|\bleads?|\bstrongest"
    r"|\bbiased|\buneven"
)
_SYMMETRY_PARTS = {
    "brow": ("BrowDown", "BrowOuterUp"),
    "outer_brow": ("BrowOuterUp",),
    "lid": ("EyeBlink",),
    "eye": ("EyeBlink", "EyeSquint", "EyeWide"),
    "cheek": ("CheekSquint",),
    "nose": ("NoseSneer",),
    "corner": ("MouthSmile", "MouthFrown", "MouthStretch", "MouthDimple"),
    "upper_lip": ("MouthUpperUp",),
    "lower_lip": ("MouthLowerDown",),
}


def _symmetry(text: str) -> tuple[SymmetryClaim, ...]:
    """Claims of evenness, or of a stronger side, of the whole face."""
    text = _normalised(text)
    uneven, sides = _UNEVEN.search(text), set(_DIRECTION.findall(text))
    if _NO_DIFFERENCE.search(text) or (_EVEN.search(text) and not uneven):
        return (SymmetryClaim("even", (), text),)
    if not uneven or not sides:
        return ()
    claims = []
    text = _TOWARDS.sub(" ", text)
    for clause in re.split(r"[;,.:]|\bbut\b|\bwhile\b", text):
        found = _DIRECTION.findall(clause)
        if (
            not found
            or not _UNEVEN.search(clause)
            or re.search(r"\bthan\b|\bnot\b|\bmost\w*", clause)
        ):
            continue
        parts = [part for _, part in _parts_in(clause)]
        actions = [action for part in parts for action in _SYMMETRY_PARTS.get(part, ())] + [
            action for pattern, names in _IDIOMS if pattern.search(clause) for action in names
        ]
        if parts and not actions:
            continue
        claims.append(SymmetryClaim(found[0], tuple(dict.fromkeys(actions)), clause.strip()))
    return tuple(claims)
