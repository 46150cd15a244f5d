"""The words of the describer: levels, actions and emotions, as tables.

Every clause reads "[side] noun adverb participle" and stands for one action at one level, so that a
reader with the same tables recovers exactly what a writer meant.
"""

from dataclasses import dataclass

LEVEL_WORDS = {1: ("slightly", "faintly"), 2: ("clearly", "moderately"), 3: ("strongly", "fully")}

# stem: wordings of (noun for one side, noun for both sides, participle). A stem is a channel name
# without its side; unsided channels have one noun only. No two stems share a wording.
ACTIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "BrowDown": (("brow", "brows", "lowered"), ("eyebrow", "eyebrows", "drawn down")),
    "BrowInnerUp": (("", "inner brows", "raised"), ("", "brow centre", "lifted")),
    "BrowOuterUp": (("outer brow", "outer brows", "raised"), ("brow tail", "brow tails", "lifted")),
    "EyeBlink": (("lid", "lids", "closed"), ("eyelid", "eyelids", "shut")),
    "EyeLookDown": (("eye", "eyes", "turned down"), ("pupil", "pupils", "lowered")),
    "EyeLookIn": (("eye", "eyes", "turned inward"), ("pupil", "pupils", "drawn inward")),
    "EyeLookOut": (("eye", "eyes", "turned outward"), ("pupil", "pupils", "drawn outward")),
    "EyeLookUp": (("eye", "eyes", "turned up"), ("pupil", "pupils", "raised")),
    "EyeSquint": (("eye", "eyes", "squinted"), ("lower lid", "lower lids", "tightened")),
    "EyeWide": (("eye", "eyes", "widened"), ("upper lid", "upper lids", "raised")),
    "CheekPuff": (("", "cheeks", "puffed"), ("", "cheeks", "blown out")),
    "CheekSquint": (("cheek", "cheeks", "raised"), ("cheek", "cheeks", "lifted")),
    "NoseSneer": (("nostril", "nostrils", "raised"), ("nose side", "nose sides", "wrinkled")),
    "MouthClose": (("", "lips", "closed over the jaw"), ("", "lips", "kept together")),
    "MouthFunnel": (("", "lips", "funnelled"), ("", "lips", "rounded open")),
    "MouthPucker": (("", "lips", "puckered"), ("", "lips", "pursed")),
    "MouthRight": (("", "mouth", "drawn right"), ("", "mouth", "shifted right")),
    "MouthLeft": (("", "mouth", "drawn left"), ("", "mouth", "shifted left")),
    "MouthSmile": (
        ("mouth corner", "mouth corners", "raised"),
        ("lip corner", "lip corners", "pulled up"),
    ),
    "MouthFrown": (
        ("mouth corner", "mouth corners", "lowered"),
        ("lip corner", "lip corners", "pulled down"),
    ),
    "MouthDimple": (("mouth corner", "mouth corners", "tucked in"), ("cheek", "cheeks", "dimpled")),
    "MouthStretch": (
        ("mouth corner", "mouth corners", "stretched"),
        ("lip corner", "lip corners", "drawn back"),
    ),
    "MouthRollLower": (("", "lower lip", "rolled in"), ("", "lower lip", "sucked in")),
    "MouthRollUpper": (("", "upper lip", "rolled in"), ("", "upper lip", "sucked in")),
    "MouthShrugLower": (("", "lower lip", "pushed up"), ("", "chin", "bunched up")),
    "MouthShrugUpper": (("", "upper lip", "pushed up"), ("", "upper lip", "bunched up")),
    "MouthPress": (("lip side", "lips", "pressed"), ("lip side", "lips", "tightened")),
    "MouthLowerDown": (
        ("lower lip side", "lower lip sides", "pulled down"),
        ("lower lip side", "lower lip sides", "lowered"),
    ),
    "MouthUpperUp": (
        ("upper lip side", "upper lip sides", "raised"),
        ("upper lip side", "upper lip sides", "pulled up"),
    ),
    "TongueOut": (("", "tongue", "out"), ("", "tongue", "shown")),
    "JawForward": (("", "jaw", "thrust forward"), ("", "jaw", "pushed forward")),
    "JawRight": (("", "jaw", "shifted right"), ("", "jaw", "moved right")),
    "JawLeft": (("", "jaw", "shifted left"), ("", "jaw", "moved left")),
    "JawOpen": (("", "jaw", "dropped"), ("", "mouth", "open")),
}  # fmt: skip

# Head angles: (channel, sign) → participles of "head".
HEAD: dict[tuple[str, int], tuple[str, str]] = {
    ("HeadYaw", 1): ("turned left", "rotated left"),
    ("HeadYaw", -1): ("turned right", "rotated right"),
    ("HeadPitch", 1): ("lowered", "bowed"),
    ("HeadPitch", -1): ("raised", "thrown back"),
    ("HeadRoll", 1): ("tilted right", "leaning right"),
    ("HeadRoll", -1): ("tilted left", "leaning left"),
}

# Order of the movements. Nose and tongue are described with their neighbours.
REGIONS: dict[str, tuple[str, ...]] = {
    "Brows": ("Brow",), "Eyes": ("Eye",), "Cheeks": ("Cheek", "Nose"),
    "Mouth": ("Mouth", "Tongue"), "Jaw": ("Jaw",),
}  # fmt: skip

# What a face whose strongest action is this is called.
EXPRESSIONS: dict[str, str] = {
    "BrowDown": "lowered brows", "BrowInnerUp": "raised inner brows",
    "BrowOuterUp": "raised outer brows", "EyeBlink": "closed eyes", "EyeLookDown": "lowered gaze",
    "EyeLookIn": "averted gaze", "EyeLookOut": "averted gaze", "EyeLookUp": "raised gaze",
    "EyeSquint": "squint", "EyeWide": "wide eyes", "CheekPuff": "puffed cheeks",
    "CheekSquint": "raised cheeks", "NoseSneer": "sneer", "MouthClose": "closed lips",
    "MouthFunnel": "funnelled lips", "MouthPucker": "pucker", "MouthRight": "mouth to the right",
    "MouthLeft": "mouth to the left", "MouthSmile": "smile", "MouthFrown": "frown",
    "MouthDimple": "dimples", "MouthStretch": "stretched mouth",
    "MouthRollLower": "rolled lower lip", "MouthRollUpper": "rolled upper lip",
    "MouthShrugLower": "raised chin", "MouthShrugUpper": "raised upper lip",
    "MouthPress": "pressed lips", "MouthLowerDown": "bared lower teeth",
    "MouthUpperUp": "bared upper teeth", "TongueOut": "tongue out", "JawForward": "forward jaw",
    "JawRight": "jaw to the right", "JawLeft": "jaw to the left", "JawOpen": "open mouth",
}  # fmt: skip
NEUTRAL = "neutral face"


@dataclass(frozen=True)
class Need:
    """A stem at a least level: on both sides, on either, or on one only (the other below 1)."""

    stem: str
    level: int
    sides: str = "both"


@dataclass(frozen=True)
class EmotionRule:
    """An emotion is named if one need of every group holds and nothing forbidden does."""

    name: str
    words: tuple[str, ...]
    groups: tuple[tuple[Need, ...], ...]
    forbidden: tuple[Need, ...]


def _any(stem: str, level: int) -> Need:
    return Need(stem, level, "either")


# Tried in this order; the first that holds is named.
EMOTIONS: tuple[EmotionRule, ...] = (
    EmotionRule(
        "happiness",
        ("happiness", "joy"),
        ((Need("MouthSmile", 2),), (Need("CheekSquint", 1), Need("MouthSmile", 3))),
        (_any("BrowDown", 2), _any("NoseSneer", 2), _any("MouthFrown", 2)),
    ),
    EmotionRule(
        "fear",
        ("fear", "fright"),
        ((Need("BrowInnerUp", 2),), (Need("EyeWide", 2),), (Need("MouthStretch", 2),)),
        (_any("MouthSmile", 2),),
    ),
    EmotionRule(
        "surprise",
        ("surprise", "astonishment"),
        (
            (Need("BrowInnerUp", 2), Need("BrowOuterUp", 2)),
            (Need("EyeWide", 2), Need("JawOpen", 2)),
        ),
        (
            _any("MouthSmile", 2),
            _any("MouthFrown", 2),
            _any("MouthStretch", 2),
            _any("BrowDown", 1),
        ),
    ),
    EmotionRule(
        "disgust",
        ("disgust", "revulsion"),
        ((Need("NoseSneer", 2),), (Need("MouthUpperUp", 2),)),
        (_any("MouthSmile", 2),),
    ),
    EmotionRule(
        "anger",
        ("anger", "irritation"),
        (
            (Need("BrowDown", 2),),
            (
                Need("MouthPress", 2),
                Need("NoseSneer", 2),
                Need("MouthFrown", 2),
                Need("EyeSquint", 2),
            ),
        ),
        (_any("MouthSmile", 1), _any("BrowInnerUp", 2)),
    ),
    EmotionRule(
        "sadness",
        ("sadness", "sorrow"),
        ((Need("BrowInnerUp", 2),), (Need("MouthFrown", 2),)),
        (_any("MouthSmile", 1), _any("NoseSneer", 2)),
    ),
    EmotionRule(
        "contempt",
        ("contempt", "disdain"),
        ((Need("MouthSmile", 2, "one"), Need("MouthDimple", 2, "one")),),
        (_any("MouthFrown", 2), _any("BrowInnerUp", 2)),
    ),
)
NO_EMOTION = "not clearly observable"
SYMMETRIC = "mostly symmetric"
