"""What is held out of training, by name: the measured sets are made of it alone.

Rigs, skins, drawing styles and portraits are known by the names that their files give them. A name
that is in no list may be trained on.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

Split = str  # "train" or "evaluation"; `sources.number_of` refuses others

# Skins, by the portrait each was made from: six women and six men, young to old, light to dark.
SKINS = frozenset(
    "female_15 female_16 female_51 female_60 female_88 female_90 "
    "male_10 male_23 male_32 male_37 male_61 male_97".split()
)
RIGS = frozenset(["Male_Adult_08"])
STYLES = frozenset("ink rubber_hose watercolour paper retro crayon".split())  # families of drawings

# Portraits that a skin was made from: those of `SKINS` are in no training, the others may be in the
# finder's.
SKIN_PORTRAITS = SKINS | frozenset(
    "female_04 female_09 female_13 female_34 female_41 female_43 female_67 female_68 female_75 "
    "female_83 female_94 male_07 male_09 male_12 male_15 male_16 male_19 male_21 male_27 male_30 "
    "male_31 male_36 male_42 male_43 male_45 male_46 male_48 male_51 male_57 male_58 male_62 "
    "male_63 male_70 male_71 male_72 male_74 male_81 male_82 male_83 male_84 male_87 male_88 "
    "male_91 male_92 male_95 male_98".split()
)
# Portraits without skins that the shipped finder is trained on, drawn by chance.
FINDER_PORTRAITS = frozenset(
    "female_02 female_05 female_21 female_23 female_27 female_29 female_30 female_31 female_36 "
    "female_39 female_44 female_49 female_62 female_70 female_71 female_72 female_79 female_84 "
    "female_87 female_89 female_93 female_95 male_01 male_03 male_08 male_33 male_34 male_38 "
    "male_39 male_41 male_44 male_47 male_54 male_60 male_75 male_85 male_86 male_89 male_94 "
    "male_96".split()
)

# Portraits that no model is trained on, as skins or otherwise.
TEST_PORTRAITS = frozenset(
    "female_00 female_01 female_03 female_06 female_07 female_08 female_10 female_11 "
    "female_12 female_14 female_17 female_18 female_19 female_20 female_22 female_24 "
    "female_25 female_26 female_28 female_32 female_33 female_35 female_37 female_38 "
    "female_40 female_42 female_45 female_46 female_47 female_48 female_50 female_52 "
    "female_53 female_54 female_55 female_56 female_57 female_58 female_59 female_61 "
    "female_63 female_64 female_65 female_66 female_69 female_73 female_74 female_76 "
    "female_77 female_78 female_80 female_81 female_82 female_85 female_86 female_91 "
    "female_92 female_96 female_97 female_98 female_99 male_00 male_02 male_04 male_05 "
    "male_06 male_11 male_13 male_14 male_17 male_18 male_20 male_22 male_24 male_25 male_26 "
    "male_28 male_29 male_35 male_40 male_49 male_50 male_52 male_53 male_55 male_56 male_59 "
    "male_64 male_65 male_66 male_67 male_68 male_69 male_73 male_76 male_77 male_78 male_79 "
    "male_80 male_90 male_93 male_99".split()
)


def stem(name: str) -> str:
    """A name as the lists have it: without folders and the ending of a file."""
    return Path(name).name.split(".")[0]


def split_of(name: str, held_out: Iterable[str]) -> Split:
    """The split that a skin, rig or style of this name belongs to."""
    return "evaluation" if stem(name) in held_out else "train"


def in_split(names: Iterable[str], split: str, held_out: Iterable[str]) -> list[str]:
    """The names of a split in their order."""
    return [name for name in names if split_of(name, held_out) == split]


def portrait_split(name: str) -> Literal["skins", "finder", "tests"]:
    """What a portrait is for: skins are made of it, the finder is trained on it, or neither."""
    found = stem(name)
    if found in TEST_PORTRAITS:
        return "tests"
    return "skins" if found in SKIN_PORTRAITS else "finder"


def portrait_trainable(name: str) -> bool:
    """Whether a portrait may be trained on: those of held-out skins and those for tests may not."""
    return stem(name) not in TEST_PORTRAITS | SKINS
