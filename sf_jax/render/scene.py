"""Everything about a rendered image but the facial action, drawn from one seed."""

from dataclasses import dataclass, field, replace

import numpy as np

from sf_jax.render.effects import Effects, random_effects
from sf_jax.render.looks import Light, Look, random_lights, random_look
from sf_jax.render.outfits import Item, random_items


def _grey() -> np.ndarray:
    return np.full((4, 4, 3), 0.72, np.float32)


@dataclass(frozen=True)
class Scene:
    """Camera, light, colours, background, look and camera effects.

    Attributes:
      identity: float32 [I], standard deviations; None for the rig's own face.
      focal: focal length in shorter sides; face_share: face height (brows to chin) over that side.
      centre: the face's centre relative to the image centre, in shorter sides (x right, y down).
      camera_yaw, camera_pitch: radians the camera circles the head; roll: radians the face is
        turned in the image, with the sign of HeadRoll.
      light: [3] direction towards the key light; ambient, key, fill, shine: strengths.
      light_colour: RGB of the key light; sky, ground: RGB of ambient light from above and below.
      lights: further lights.
      colours: material name → linear-ish RGB in [0, 1]; paint: make-up strengths by paint name.
      background: an image, uint8 [h, w, 3], that is resized to the picture; float32 [h, w, 3],
        colours interpolated over it; or the seed of a drawn one.
      items: what is worn or held in front of the face.
      look: the manner of drawing.
      effects: what the camera does to the picture.
    """

    identity: np.ndarray | None = None
    focal: float = 2.5
    face_share: float = 0.6
    centre: tuple[float, float] = (0.0, 0.0)
    camera_yaw: float = 0.0
    camera_pitch: float = 0.0
    roll: float = 0.0
    light: tuple[float, float, float] = (0.3, 0.5, 0.8)
    ambient: float = 0.45
    key: float = 0.6
    fill: float = 0.15
    shine: float = 0.1
    light_colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    sky: tuple[float, float, float] = (1.0, 1.0, 1.0)
    ground: tuple[float, float, float] = (1.0, 1.0, 1.0)
    lights: tuple[Light, ...] = ()
    colours: dict = field(default_factory=lambda: dict(NATURAL))
    paint: dict = field(default_factory=lambda: {"lips": 1.0, "brow": 1.0, "lid": 0.2})
    background: np.ndarray | int = field(default_factory=_grey)
    items: tuple[Item, ...] = ()
    look: Look = field(default_factory=Look)
    effects: Effects = field(default_factory=Effects)


NATURAL: dict[str, tuple[float, float, float]] = {
    "skin": (0.86, 0.66, 0.55), "lips": (0.75, 0.40, 0.38), "brow": (0.25, 0.17, 0.12),
    "lash": (0.10, 0.08, 0.08), "sclera": (0.95, 0.95, 0.94), "iris": (0.33, 0.45, 0.55),
    "pupil": (0.03, 0.03, 0.03), "teeth": (0.95, 0.93, 0.88), "gum": (0.72, 0.38, 0.38),
    "tongue": (0.78, 0.42, 0.42), "mouth": (0.22, 0.07, 0.07), "hair": (0.22, 0.15, 0.10),
    "cloth": (0.30, 0.35, 0.50), "object": (0.20, 0.20, 0.22),
}  # fmt: skip
_SKIN = np.array(
    [
        [0.98, 0.83, 0.74],
        [0.90, 0.70, 0.58],
        [0.78, 0.57, 0.43],
        [0.58, 0.38, 0.26],
        [0.36, 0.22, 0.15],
    ]
)
_HAIR = np.array(
    [
        [0.10, 0.08, 0.07],
        [0.28, 0.18, 0.11],
        [0.55, 0.38, 0.20],
        [0.80, 0.68, 0.45],
        [0.62, 0.62, 0.62],
        [0.50, 0.20, 0.10],
    ]
)
_IRIS = np.array([[0.25, 0.15, 0.08], [0.35, 0.48, 0.62], [0.35, 0.45, 0.28], [0.42, 0.30, 0.15]])


def _between(table: np.ndarray, g: np.random.Generator) -> np.ndarray:
    """A colour between two neighbours of a table."""
    at = g.uniform(0, len(table) - 1)
    low = int(at)
    high = min(low + 1, len(table) - 1)
    return table[low] + (at - low) * (table[high] - table[low])


def _colours(g: np.random.Generator, toon: bool) -> dict[str, tuple[float, ...]]:
    """The colours of an identity: material name → RGB in [0, 1]."""

    def jitter(colour: np.ndarray, size: float = 0.05) -> tuple[float, ...]:
        return tuple(np.clip(np.asarray(colour) + g.normal(0, size, 3), 0.02, 1.0).tolist())

    skin = _between(_SKIN, g)
    hair = _HAIR[g.integers(len(_HAIR))]
    if toon and g.random() < 0.3:
        skin = g.uniform(0.35, 1.0, 3)
    if g.random() < (0.5 if toon else 0.1):
        hair = g.uniform(0.1, 0.95, 3)
    lips = skin * np.array([0.92, 0.62, 0.64])
    if g.random() < 0.3:
        lips = 0.5 * lips + 0.5 * g.uniform([0.4, 0.05, 0.1], [0.9, 0.4, 0.5])
    out = {name: jitter(np.array(colour), 0.03) for name, colour in NATURAL.items()}
    out |= {
        "skin": jitter(skin, 0.02),
        "lips": jitter(lips, 0.03),
        "hair": jitter(hair),
        "brow": jitter(hair * g.uniform(0.4, 0.9), 0.03),
        "iris": jitter(_IRIS[g.integers(4)]),
        "cloth": tuple(g.uniform(0.05, 0.95, 3).tolist()),
    }
    return out


def random_scene(seed: int, identity_seed: int | None = None, identities: int = 0) -> Scene:
    """A scene from one seed; the person (shape and colours) from `identity_seed` if given.

    Args:
      identities: identity directions of the rig.
    """
    person = np.random.default_rng([1, seed if identity_seed is None else identity_seed])
    g = np.random.default_rng([2, seed])
    look = random_look(g)
    colours = _colours(person, bool(look.tones))
    identity = np.clip(person.normal(0, 0.8, identities), -2, 2).astype(np.float32)
    paint = {
        "lips": float(person.uniform(0.3, 1.0)),
        "brow": float(person.uniform(0.5, 1.0)),
        "blush": float(person.uniform(0, 0.5)),
        "lid": float(person.uniform(0, 0.6)),
        "beard": float(person.uniform(0.2, 0.9)) if person.random() < 0.2 else 0.0,
    }
    bald = bool(person.random() < 0.18)
    if bald and person.random() < 0.6:  # else hair is a part of the rig, or cut short
        scalp = 0.9 * np.array(colours["skin"]) + 0.05 * np.array(colours["hair"])
        colours["hair"] = tuple(scalp.tolist())
    items = random_items(person, g, bald)
    return Scene(
        identity=identity,
        focal=float(np.exp(g.uniform(np.log(1.3), np.log(6.0)))),
        face_share=float(g.uniform(0.68, 0.92)),
        centre=tuple(g.uniform(-0.05, 0.05, 2).tolist()),
        camera_yaw=float(g.uniform(-0.05, 0.05)),
        camera_pitch=float(g.uniform(-0.05, 0.05)),
        **random_lights(g),
        colours=colours,
        paint=paint,
        background=int(g.integers(1 << 31)),
        items=items,
        look=look,
        effects=random_effects(g),
    )


def plain_scene(identity: np.ndarray | None = None) -> Scene:
    """Frontal, evenly lit, on a grey background: for previews.

    Args:
      identity: float32 [I], standard deviations; None for the rig's neutral face.
    """
    return replace(Scene(), identity=identity)
