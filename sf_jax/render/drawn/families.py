"""Families of drawing styles, and one style of a family from a seed."""

import zlib
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from sf_jax.media.errors import DataError
from sf_jax.render.drawn import animals, eastern, illustrated, simple, western
from sf_jax.render.drawn.fitted import fitted
from sf_jax.render.drawn.style import Style
from sf_jax.render.drawn.visible import known_channels

FAMILIES: dict[str, Callable[[np.random.Generator], Style]] = {
    "anime": eastern.anime,
    "manga": eastern.manga,
    "flat": western.flat,
    "western": western.western,
    "pencil": illustrated.pencil,
    "ink": illustrated.ink,
    "chibi": eastern.chibi,
    "rubber_hose": simple.rubber_hose,
    "comic": illustrated.comic,
    "emoji": simple.emoji,
    "animal": animals.animal,
    "watercolour": illustrated.watercolour,
    "crayon": simple.crayon,
    "paper": illustrated.paper,
    "pixel": simple.pixel,
    "retro": eastern.retro,
    "storybook": illustrated.storybook,
    "line": illustrated.line,
}


class FamilyError(DataError):
    """A family of drawing styles that does not exist."""


def random_style(seed: int, family: str) -> Style:
    """A style of a family; the same for the same seed.

    Raises:
      FamilyError: there is no such family.
    """
    make = FAMILIES.get(family)
    if make is None:
        raise FamilyError(
            f"no family of drawings is called {family!r}; there are {', '.join(FAMILIES)}"
        )
    generator = np.random.default_rng([zlib.crc32(family.encode()), seed])
    style = fitted(replace(make(generator), family=family, seed=seed))
    return replace(style, known=known_channels(style))
