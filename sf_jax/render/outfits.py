"""What a person wears and what is in front of the face, drawn at random and made for a head."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sf_jax.render import hair, held, worn
from sf_jax.render.head_map import HeadMap
from sf_jax.render.meshes import Piece


@dataclass(frozen=True)
class Item:
    """One thing worn or held.

    Attributes:
      kind: "hair", "glasses", "hat", "head cloth", "headphones", "face mask", "earrings", "hand",
        "microphone", "cup", "telephone" or "foreground".
      seed: of all that is drawn at random about it.
      style: of hair, a name of `hair.SHAPES`; of glasses their lenses, see `worn.glasses`.
    """

    kind: str
    seed: int
    style: str = ""


WORN = {
    "hat": worn.hat,
    "head cloth": worn.head_cloth,
    "headphones": worn.headphones,
    "face mask": worn.face_mask,
    "earrings": worn.earrings,
}
HELD = {
    "hand": held.hands,
    "microphone": held.microphone,
    "cup": held.cup,
    "telephone": held.telephone,
    "foreground": held.foreground,
}


def made(
    item: Item, head: HeadMap, colours: Mapping[str, tuple[float, ...]], hat: bool = False
) -> list[Piece]:
    """The meshes of an item on a head.

    Args:
      colours: RGB of "hair" and "skin"; hat: one is worn, so that hair is flat.

    Raises:
      KeyError: there is no such kind or style.
    """
    g = np.random.default_rng([5, item.seed])
    if item.kind == "hair":
        return hair.grow(head, g, item.style, np.array(colours["hair"]), hat)
    if item.kind == "glasses":
        return worn.glasses(head, g, item.style or "clear")
    if item.kind in WORN:
        return WORN[item.kind](head, g)
    return HELD[item.kind](head, g, np.array(colours["skin"]))


# How often a thing is in front of the face, in 1,000 images.
SHARES = {"hand": 45, "microphone": 25, "cup": 12, "telephone": 10, "foreground": 35}


def random_items(
    person: np.random.Generator, g: np.random.Generator, bald: bool = False
) -> tuple[Item, ...]:
    """Hair and glasses of a person, and what an image adds.

    Args:
      person: draws what stays with a person; g: draws the rest; bald: no hair is drawn.
    """
    items = []
    style = str(person.choice(list(hair.SHAPES)))
    seeds = person.integers(1 << 31, size=4)
    glasses, ring = person.random(), person.random()
    lens = str(person.choice(["clear", "glare", "tinted"], p=[0.72, 0.18, 0.1]))
    cover = g.random()
    if cover < 0.06:
        items.append(Item("head cloth", int(g.integers(1 << 31))))
    else:
        if not bald:
            items.append(Item("hair", int(seeds[0]), style))
        if cover < 0.18:
            items.append(Item("hat", int(g.integers(1 << 31))))
        elif cover < 0.22:
            items.append(Item("headphones", int(g.integers(1 << 31))))
        elif ring < 0.1:
            items.append(Item("earrings", int(seeds[1])))
    if glasses < 0.22:
        items.append(Item("glasses", int(seeds[2]), "dark" if g.random() < 0.04 else lens))
    chosen, extra = g.random() * 1000, int(g.integers(1 << 31))
    for kind, share in SHARES.items():
        if 0 <= chosen < share:
            items.append(Item(kind, extra))
        chosen -= share
    if g.random() < 0.003:
        items.append(Item("face mask", extra))
    return tuple(items)
