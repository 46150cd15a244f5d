"""Which ARKit channel a shape, a bone or a material of somebody's file is named after."""

import re

from sf_jax.face.channels import BLENDSHAPES, CHANNELS, Channel
from sf_jax.render.rig import MATERIALS

_SIDES = {"l": "left", "lt": "left", "left": "left", "r": "right", "rt": "right", "right": "right"}
# Names of faceshift and its followers that differ from ARKit's.
_OTHER_NAMES = {
    "jawfwd": "jawforward",
    "jawfront": "jawforward",
    "lipsfunnel": "mouthfunnel",
    "lipspucker": "mouthpucker",
    "mouthkiss": "mouthpucker",
    "puff": "cheekpuff",
    "browsucenter": "browinnerup",
    "browsuc": "browinnerup",
    "tongue": "tongueout",
    "jawdrop": "jawopen",
    "mouthlipstogether": "mouthclose",
}
_OTHER_STEMS = {
    "browsd": "browdown",
    "browsu": "browouterup",
    "eyedown": "eyelookdown",
    "eyeup": "eyelookup",
    "eyein": "eyelookin",
    "eyeout": "eyelookout",
    "eyeopen": "eyewide",
    "sneer": "nosesneer",
    "eyeclose": "eyeblink",
    "blink": "eyeblink",
    "smile": "mouthsmile",
    "frown": "mouthfrown",
}
_BY_KEY = {channel.name.lower(): channel for channel in CHANNELS[BLENDSHAPES]}
_STEMS = {
    channel.name.lower().removesuffix("left").removesuffix("right")
    for channel in CHANNELS[BLENDSHAPES]
    if channel.side != "both"
}
_TOKENS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
# In this order: "FaceEyelash" is a lash, "EyeWhite" an eye, "FaceMouth" a mouth.
_MATERIAL_WORDS = (
    ("lash", r"lash|eyeline"),
    ("brow", r"brow"),
    ("hair", r"hair|beard|mustache"),
    ("teeth", r"teeth|tooth|dent"),
    ("tongue", r"tongue"),
    ("gum", r"gum"),
    ("sclera", r"sclera|eyewhite|white.?of.?eye"),
    ("pupil", r"pupil"),
    ("iris", r"iris|cornea|eyeball|eye(?!.?(lid|shadow|liner|wet|occl|blend|socket))"),
    ("mouth", r"mouth|oral"),
    ("cloth", r"cloth|outfit|shirt|tops?\b|dress|shoe|pants|bottom|footwear|suit|hat|cap\b|glass"),
)


def channel_of(name: str) -> tuple[Channel, bool] | None:
    """The channel that a shape is named after, and whether the shape is one half of it.

    Understood are Left and Right, L and R, before or after the name, in any case, with or without
    separators, after prefixes such as `blendShape1.` or `head_`, and the names of faceshift. Of
    a channel of both sides there may be two halves, as `browInnerUp_L`.
    """
    tokens = [token.lower() for token in _TOKENS.findall(name.strip())]
    for start in range(len(tokens)):
        found = _named(tokens[start:])
        if found is not None:
            return found
    return None


def _named(tokens: list[str]) -> tuple[Channel, bool] | None:
    plain = "".join(tokens)
    if plain in _BY_KEY:
        return _BY_KEY[plain], False
    sides = [_SIDES[token] for token in tokens if token in _SIDES]
    stem = "".join(token for token in tokens if token not in _SIDES)
    if not sides and len(plain) > 5 and plain[:-1] in _STEMS and plain[-1] in "lr":
        sides, stem = [_SIDES[plain[-1]]], plain[:-1]
    stem = _OTHER_NAMES.get(stem, _OTHER_STEMS.get(stem, stem))
    if not sides:
        return (_BY_KEY[stem], False) if stem in _BY_KEY else None
    if stem + sides[0] in _BY_KEY:
        return _BY_KEY[stem + sides[0]], False
    return (_BY_KEY[stem], True) if stem in _BY_KEY else None


def eye_side(name: str | None) -> bool:
    """Whether a bone or a mesh is named as one eyeball: `LeftEye`, `eye_r`, `J_Adj_L_FaceEye`."""
    tokens = {token.lower() for token in _TOKENS.findall(name or "")}
    rest = (
        tokens - set(_SIDES) - {"j", "adj", "face", "mesh", "ball", "geo", "bone", "joint", "def"}
    )
    sided = bool(tokens & set(_SIDES))
    joined = re.fullmatch(r"(left|right)?eye(ball)?s?(left|right)?", "".join(sorted(rest)) or "-")
    return (sided and rest in ({"eye"}, {"eyeball"})) or (
        joined is not None and joined[0] not in ("eye", "eyes", "eyeball")
    )


def material_of(*names: str | None) -> int | None:
    """The index into MATERIALS that names suggest, the first that suggests one; None for none."""
    for name in names:
        for material, words in _MATERIAL_WORDS:
            if name and re.search(words, name, re.IGNORECASE):
                return MATERIALS.index(material)
    return None
