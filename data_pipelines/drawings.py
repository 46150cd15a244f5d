"""Drawings as a source: the cartoonist's faces, each family of styles equally often."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines import held_out
from data_pipelines.faceless import background
from data_pipelines.figures import Figure, cut_out
from data_pipelines.held_out import Split
from data_pipelines.rigged import expression, posed
from data_pipelines.sources import WIDE, Framing, SourceError, drawn_record, identity_of
from sf_jax.render import drawn
from sf_jax.render.draw import Drawing
from sf_jax.render.drawn import Style, draw_drawn, draw_layer, random_style

STYLES = 20_000  # seeds of styles that training draws from
IN_VIEW = 0.96  # most reach of landmarks from the middle of the image, in half sides
OWN_BACKDROP = 0.7  # share of drawings before their style's own backdrop


def extent(drawing: Drawing) -> float:
    """How far the landmarks reach from the middle of the image, in half sides; 1 is the edge."""
    middle = np.array(drawing.image.shape[1::-1]) / 2
    return float(np.nanmax(np.abs(drawing.landmarks - middle) / middle))


@dataclass(frozen=True)
class DrawnSource:
    """Drawings in styles of the split's families.

    Attributes:
      backgrounds: folder of photographs without faces, before which some faces are drawn, or None.
    """

    backgrounds: Path | None = None
    name: str = "drawn"

    def check(self, split: Split) -> None:
        """Raises SourceError where no family is of the split."""
        if not self.families(split):
            raise SourceError(f"no family of drawings is of split {split}")

    def families(self, split: Split) -> list[str]:
        """The families of a split, in their order."""
        return held_out.in_split(drawn.FAMILIES, split, held_out.STYLES)

    def style(self, number: int, split: Split) -> Style:
        """The style of a number."""
        g = np.random.default_rng([18, number])
        families = self.families(split)
        family = families[int(g.integers(len(families)))]
        return random_style(int(g.integers(STYLES)), family)

    def record(self, number: int, split: Split, framing: Framing = WIDE) -> dict[str, Any]:
        """One record; what the style can show is known."""
        style = self.style(number, split)
        coefficients = expression(number, split, style.known)
        g = np.random.default_rng([19, number])
        side = framing.side
        framed = drawn.Framing(
            centre=tuple(g.uniform(-framing.shift, framing.shift, 2).tolist()),
            face_share=float(g.uniform(*framing.share)),
        )
        if g.random() >= OWN_BACKDROP:
            image = background(number, split, side, side, self.backgrounds)
            framed = replace(framed, background=image)
        drawing = draw_drawn(coefficients, style, side, side, framed)
        if (reach := extent(drawing)) > IN_VIEW:  # a head much wider than it is high
            framed = replace(framed, face_share=framed.face_share * IN_VIEW / reach)
            drawing = draw_drawn(coefficients, style, side, side, framed)
        return drawn_record(drawing, coefficients, style.known, number) | {
            "source": self.name,
            "style": style.family,
            "identity": identity_of(self.name, style.family, style.seed),
        }

    def figure(self, number: int, split: Split, side: int) -> Figure:
        """See `sources.Source`."""
        style = self.style(number, split)
        coefficients = posed(expression(number, split, style.known), number)
        layer = draw_layer(coefficients, style, side, side, drawn.Framing(face_share=0.42))
        who = identity_of(self.name, style.family, style.seed)
        return cut_out(layer, side, self.name, style.family, who)
