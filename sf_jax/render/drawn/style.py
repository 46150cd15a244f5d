"""What a drawing looks like: one typed record a part. Lengths are in half head heights.

A style is drawn from a seed by `families.random_style`; the parts' defaults are a plain cartoon.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from sf_jax.face.channels import NAMES
from sf_jax.render.drawn.canvas import Colour
from sf_jax.render.drawn.head import HeadShape

EyeKind = Literal["open", "ball", "dot"]
BrowKind = Literal["ribbon", "line", "block", "none"]
NoseKind = Literal["none", "dot", "line", "wedge", "shade", "button", "ball", "nostrils", "snout"]
FringeKind = Literal[
    "none", "cap", "straight", "spiky", "swept", "parted", "peak", "curly", "bangs"
]
BackKind = Literal["none", "short", "bob", "long", "tails", "spiky", "afro", "bun", "pony"]
BeardKind = Literal["none", "stubble", "full", "goatee", "moustache"]
HatKind = Literal["none", "cap", "beanie", "brim", "band"]
EarKind = Literal["human", "pointed", "none", "cat", "bear", "dog", "fox", "mouse"]
MouthFill = Literal["dark", "red", "black", "white"]
BackdropKind = Literal["flat", "gradient", "burst", "stripes", "dots", "shapes", "scribble"]
FinishKind = Literal[
    "none", "screentone", "halftone", "pencil", "watercolour", "crayon", "paper", "pixels"
]


@dataclass(frozen=True)
class Eyes:
    """Eyes.

    Attributes:
      kind: "open", an outline that lids move; "ball", a round eyeball under caps of skin; "dot".
      x, y: centre of an eye; width, up, down: half width, heights above and below the corners.
      tilt: how much higher the outer corner is; skew: below 1 the upper lid peaks at the inner
        corner; square: exponent of the lids' curves, 2 for an ellipse, above for a boxy eye.
      iris, tall: the iris's half width over the eye's half width, and its height over its width.
      ring, pupil, highlights, gradient: parts of the iris; pupil over iris, 0 for none.
      white: whether the white is filled; else it is skin-coloured.
      lash, lower: thickness of the upper and lower lid's line over the ink's; lashes: how many
        at the outer corner, below_lashes at the lower lid; crease: a line over the lid.
      lid_shadow: darkness of the shadow on the white.
      closed: curve of a closed eye, positive sags, negative arches up.
      travel: how far a gaze moves the iris, over what stays free of it.
      pie: a wedge cut out of the pupil; slit: the pupil's width over that of a round one.
      heavy: how far the lid is down at rest, 0 to 0.4.
    """

    kind: EyeKind = "open"
    x: float = 0.36
    y: float = 0.15
    width: float = 0.18
    up: float = 0.14
    down: float = 0.10
    tilt: float = 0.0
    skew: float = 1.0
    square: float = 2.2
    iris: float = 0.62
    tall: float = 1.15
    ring: bool = True
    pupil: float = 0.5
    highlights: int = 1
    gradient: bool = False
    white: bool = True
    lash: float = 1.6
    lower: float = 0.7
    lashes: int = 0
    below_lashes: int = 0
    crease: float = 0.0
    lid_shadow: float = 0.15
    closed: float = 0.5
    travel: float = 0.8
    pie: bool = False
    slit: float = 1.0
    heavy: float = 0.0


@dataclass(frozen=True)
class Brows:
    """Brows: `gap` above the open eye, half `width`, `thick`ness, `tilt`, `arch`; `taper` at ends.

    `move` scales their motion; `over_hair` draws them over a fringe, `halo` with a light border.
    """

    kind: BrowKind = "ribbon"
    gap: float = 0.13
    width: float = 0.2
    thick: float = 0.05
    tilt: float = 0.02
    arch: float = 0.05
    taper: float = 0.3
    move: float = 1.0
    over_hair: bool = True
    halo: bool = False


@dataclass(frozen=True)
class Nose:
    """A nose at height `y`, `size` wide and `long`; `lift` is its height over the face."""

    kind: NoseKind = "line"
    y: float = 0.45
    size: float = 0.1
    long: float = 0.2
    lift: float = 0.12
    nostrils: bool = False


@dataclass(frozen=True)
class Mouth:
    """A mouth at height `y`.

    Attributes:
      width: half width; open: how far it opens at a JawOpen of 1; drop: how far the chin follows.
      rest: curve at rest, positive smiles; curl: exponent of the lip line from middle to corner.
      square: exponent of the opening's outline, 2 for an ellipse.
      upper, lower: thickness of the lips, 0 for a mouth that is a line.
      fill: colour of the opening; teeth, tongue: drawn in it; tooth_lines between teeth.
      move: how far smile, frown and the like move it.
      under: a short line under the lower lip.
    """

    y: float = 0.66
    width: float = 0.26
    open: float = 0.34
    drop: float = 0.2
    rest: float = 0.0
    curl: float = 1.7
    square: float = 2.2
    upper: float = 0.0
    lower: float = 0.0
    fill: MouthFill = "dark"
    teeth: bool = True
    tongue: bool = True
    tooth_lines: bool = False
    move: float = 1.0
    under: bool = False


@dataclass(frozen=True)
class Hair:
    """Hair: a fringe before the face, a back beyond it.

    Attributes:
      line: height of the hairline; low: how far below it the tips of a fringe reach.
      volume: thickness on the skull; strands: tips of the fringe; sides: length of side locks.
      seed: of the tips' irregularity; part: where it is parted, -1 to 1; shine: a band of light.
    """

    fringe: FringeKind = "swept"
    back: BackKind = "short"
    line: float = -0.5
    low: float = 0.25
    volume: float = 0.08
    strands: int = 7
    sides: float = 0.0
    part: float = 0.3
    shine: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Extras:
    """Ears, beard, glasses, hat, marks on the skin.

    `folds` is how strongly folds of the skin are drawn, `fold_shade` how far from ink to shade.
    """

    ears: EarKind = "human"
    ear_size: float = 0.16
    beard: BeardKind = "none"
    glasses: Literal["none", "round", "square", "half"] = "none"
    hat: HatKind = "none"
    blush: float = 0.0
    blush_lines: bool = False
    freckles: int = 0
    folds: float = 0.6
    fold_shade: float = 0.0
    neck: float = 0.3
    shoulders: float = 0.9
    body: bool = True
    earrings: bool = False


@dataclass(frozen=True)
class Palette:
    """Colours, red, green and blue from 0 to 255."""

    skin: Colour = (245, 208, 180)
    shade: Colour = (226, 170, 150)
    hair: Colour = (80, 50, 40)
    brow: Colour = (70, 45, 35)
    iris: Colour = (90, 130, 190)
    white: Colour = (255, 255, 255)
    lips: Colour = (220, 130, 120)
    blush: Colour = (250, 150, 140)
    mouth: Colour = (120, 40, 45)
    tongue: Colour = (235, 130, 130)
    nose: Colour = (240, 180, 150)
    muzzle: Colour = (250, 235, 215)
    cloth: Colour = (90, 110, 160)
    hat: Colour = (180, 60, 60)
    ink: Colour = (40, 30, 35)
    ground: Colour = (200, 215, 230)
    second: Colour = (170, 190, 215)


@dataclass(frozen=True)
class Ink:
    """Lines: width, contour's width over it, wobble, and whether fills give lines their colour."""

    width: float = 0.03
    contour: float = 1.3
    wobble: float = 0.0
    coloured: float = 0.0
    none: bool = False


@dataclass(frozen=True)
class Shading:
    """Light: `tones` 1 for flat, 2 or 3; its side, -1 to 1; hatching instead of a darker tone."""

    tones: int = 2
    side: float = 0.4
    strength: float = 1.0
    hatch: bool = False
    fringe_shadow: bool = True
    soft: float = 0.0


@dataclass(frozen=True)
class Finish:
    """What is done to the finished picture: a technique, its cell or grain, grey scale, grain."""

    kind: FinishKind = "none"
    cell: float = 0.03
    amount: float = 0.5
    grey: bool = False
    warmth: float = 0.0
    grain: float = 0.0
    blur: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Style:
    """One way to draw, and one person drawn.

    Attributes:
      family: its name in `families.FAMILIES`; seed: the number it was drawn from.
      known: bool [61], the channels that it shows; the others do not move the drawing.
      strength, gamma: exaggeration, see `action.read`.
      muzzle: size of an animal's muzzle, 0 for none.
    """

    family: str = "plain"
    seed: int = 0
    known: np.ndarray = field(default_factory=lambda: np.ones(len(NAMES), bool))
    head: HeadShape = field(default_factory=HeadShape)
    eyes: Eyes = field(default_factory=Eyes)
    brows: Brows = field(default_factory=Brows)
    nose: Nose = field(default_factory=Nose)
    mouth: Mouth = field(default_factory=Mouth)
    hair: Hair = field(default_factory=Hair)
    extras: Extras = field(default_factory=Extras)
    palette: Palette = field(default_factory=Palette)
    ink: Ink = field(default_factory=Ink)
    shading: Shading = field(default_factory=Shading)
    finish: Finish = field(default_factory=Finish)
    backdrop: BackdropKind = "flat"
    strength: float = 1.0
    gamma: float = 1.0
    muzzle: float = 0.0
