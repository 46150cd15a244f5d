"""What all parts of a drawing share: the canvas, the head, the style, the action, the ink."""

from dataclasses import dataclass

from sf_jax.render.drawn.action import Action
from sf_jax.render.drawn.canvas import Canvas, Colour, mix, scaled
from sf_jax.render.drawn.curves import Points
from sf_jax.render.drawn.head import Head
from sf_jax.render.drawn.style import Style
from sf_jax.render.rig import MATERIALS

SKIN, LIPS, BROW, LASH, SCLERA, IRIS, PUPIL, TEETH, TONGUE, MOUTH, HAIR, CLOTH = (
    MATERIALS.index(name)
    for name in "skin lips brow lash sclera iris pupil teeth tongue mouth hair cloth".split()
)


@dataclass(frozen=True)
class Sheet:
    """A drawing in progress.

    Attributes:
      rest: the head without the action, in the same pose: where things that do not move are.
      unit: pixels of one half head height.
    """

    canvas: Canvas
    head: Head
    rest: Head
    style: Style
    action: Action
    unit: float

    def width(self, factor: float = 1.0) -> float:
        """Pixels of a line `factor` times as wide as the style's ink."""
        return factor * self.style.ink.width * self.unit

    def ink(self, fill: Colour | None = None) -> Colour:
        """The colour of a line at the edge of a fill."""
        ink, coloured = self.style.palette.ink, self.style.ink.coloured
        if fill is None or not coloured:
            return ink
        return mix(ink, scaled(fill, 0.55), coloured)

    def shape(
        self, points: Points, colour: Colour, material: int, contour: float | None = None
    ) -> None:
        """Fills a polygon and, where the style draws lines, its outline."""
        width = 0.0 if self.style.ink.none else self.width(contour or self.style.ink.contour)
        self.canvas.outlined(points, colour, material, width, self.ink(colour))

    def mark(
        self,
        points: Points,
        factor: float,
        material: int = SKIN,
        colour: Colour | None = None,
        ends: tuple[float, float] = (0.2, 0.2),
    ) -> None:
        """A pen stroke on the face."""
        colour = colour or self.ink(self.style.palette.skin)
        self.canvas.stroke(points, self.width(factor), colour, material, ends)

    def fold(self, points: Points, factor: float) -> None:
        """A fold of the skin."""
        palette, shade = self.style.palette, self.style.extras.fold_shade
        colour = mix(self.ink(palette.skin), scaled(palette.shade, 0.82), shade)
        self.mark(points, factor * (1 + 0.5 * shade), SKIN, colour)
