"""A posed head with what it wears and what is in front of it, as one mesh."""

from dataclasses import dataclass, replace

import numpy as np

from sf_jax.face.channels import INDEX
from sf_jax.render.head_map import HeadMap
from sf_jax.render.meshes import OPAQUE, Piece
from sf_jax.render.outfits import made
from sf_jax.render.rig import MATERIALS, PAINTS, Rig, rotation
from sf_jax.render.scene import Scene
from sf_jax.render.textures import NO_ATLAS, Atlas, packed

SKIN = [MATERIALS.index(name) for name in ("skin", "lips")]
TURNING = 0.98  # weight from which a vertex counts as the head's


@dataclass(frozen=True)
class Body:
    """What is drawn: V vertices, those of the rig first, and T triangles.

    Attributes:
      vertices: float32 [V, 3], world cm; triangles: int32 [T, 3], of which those from `one_sided`
        on have two sides.
      material: uint8 [V]; colours: float32 [V, 3]; rest: float32 [V, 3], where the skin's noise is.
      occlusion, noise: float32 [V], see `shading`.
      uv: float32 [V, 2]; image: int16 [T], textures in `atlas`, -1 for none.
      samples: uint8 [T], bits of the samples of a pixel that a triangle may cover.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    one_sided: int
    material: np.ndarray
    colours: np.ndarray
    rest: np.ndarray
    occlusion: np.ndarray
    noise: np.ndarray
    uv: np.ndarray
    image: np.ndarray
    atlas: Atlas
    samples: np.ndarray


def albedo(rig: Rig, scene: Scene) -> np.ndarray:
    """Colour of each vertex, float32 [V, 3]: its own, or its material's with paint on the skin."""
    if rig.surface is not None:
        return rig.surface.colours.astype(np.float32)
    base = np.array([scene.colours[name] for name in MATERIALS], np.float32)
    colours = base[rig.material]
    skin = np.array(scene.colours["skin"], np.float32)
    over = {
        "lips": base[MATERIALS.index("lips")],
        "brow": base[MATERIALS.index("brow")],
        "blush": skin * [1.0, 0.62, 0.62],
        "lid": skin * 0.55,
        "beard": base[MATERIALS.index("hair")],
    }
    for i, name in enumerate(PAINTS):
        if strength := scene.paint.get(name, 0.0):
            amount = rig.paint[:, i : i + 1] * np.float32(strength)
            colours = colours + amount * (np.asarray(over[name], np.float32) - colours)
    return colours


def _clay(colours: np.ndarray, scene: Scene) -> np.ndarray:
    """Colours of one clay, of which features keep a part of their darkness."""
    grey = colours.mean(1, keepdims=True)
    relief = 1 + np.float32(scene.look.detail) * (grey / max(float(np.median(grey)), 0.1) - 1)
    return np.clip(relief, 0.15, 1.5) * np.array(scene.look.clay, np.float32)


def _turn(coefficients: np.ndarray) -> np.ndarray:
    yaw, pitch, roll = (
        float(coefficients[INDEX[f"Head{axis}"]]) for axis in ("Yaw", "Pitch", "Roll")
    )
    return rotation(yaw, pitch, roll)


def head_map(rig: Rig, vertices: np.ndarray, turn: np.ndarray) -> HeadMap:
    """The map of a posed head, turned back to face ahead.

    Args:
      turn: [3, 3], the head's rotation.
    """
    straight = (vertices - rig.head_pivot) @ turn + rig.head_pivot
    return HeadMap(rig.marks(straight).astype(np.float64), straight[rig.head_weight > TURNING])


def _turned(points: np.ndarray, pivot: np.ndarray, turn: np.ndarray) -> np.ndarray:
    return ((points - pivot) @ turn.T + pivot).astype(np.float32)


def _at_rest(p: Piece) -> np.ndarray:
    """Where the noise of a piece's colour is, float32 [n, 3]."""
    if p.strands is None:
        return p.points
    return np.column_stack([p.strands, np.zeros(len(p.points), np.float32)])


def _pieces(rig: Rig, vertices: np.ndarray, coefficients: np.ndarray, scene: Scene) -> list[Piece]:
    """Meshes of the scene's items, world cm; none where the rig lacks the landmarks they need."""
    if not scene.items:
        return []
    turn = _turn(coefficients)
    head = head_map(rig, vertices, turn)
    if not head.complete:
        return []
    hat = any(item.kind == "hat" for item in scene.items)
    found = [piece for item in scene.items for piece in made(item, head, scene.colours, hat)]
    return [replace(p, points=_turned(p.points, rig.head_pivot, turn)) for p in found]


def body(rig: Rig, vertices: np.ndarray, coefficients: np.ndarray, scene: Scene) -> Body:
    """The mesh of a posed rig and the items of a scene.

    Args:
      vertices: float32 [V, 3], of the posed rig.
    """
    count, surface = len(vertices), rig.surface
    uv, image, atlas = np.zeros((count, 2), np.float32), np.full(len(rig.triangles), -1), NO_ATLAS
    if surface is not None and surface.uv is not None and surface.image is not None:
        uv, image, atlas = surface.uv, surface.image, packed(surface.images)
    pieces = _pieces(rig, vertices, coefficients, scene)
    starts = count + np.cumsum([0, *(len(p.points) for p in pieces)])
    extra = int(starts[-1]) - count
    indices = [MATERIALS.index(p.material) for p in pieces]
    sizes = [len(p.points) for p in pieces]
    covers = [np.full(len(p.triangles), p.samples, np.uint8) for p in pieces]
    colours = np.concatenate([albedo(rig, scene), *(p.colours for p in pieces)])
    if scene.look.clay is not None:
        colours = _clay(colours, scene)
    triangles = [p.triangles + start for p, start in zip(pieces, starts, strict=False)]
    open_ = np.ones(count, np.float32) if rig.occlusion is None else rig.occlusion
    blank = np.zeros(extra, np.float32)
    streaks = -0.4 if scene.look.tones else -1.0
    grain = [np.full(len(p.points), 0.0 if p.strands is None else streaks) for p in pieces]
    return Body(
        vertices=np.concatenate([vertices, *(p.points for p in pieces)]),
        triangles=np.concatenate([rig.triangles, *triangles]).astype(np.int32, copy=False),
        one_sided=len(rig.triangles),
        material=np.concatenate([rig.material, np.repeat(indices, sizes).astype(np.uint8)]),
        colours=colours,
        rest=np.concatenate([rig.neutral, *(_at_rest(p) for p in pieces)]),
        occlusion=np.concatenate([open_, blank + 1]),
        noise=np.concatenate([np.isin(rig.material, SKIN), *grain]).astype(np.float32),
        uv=np.concatenate([uv, np.zeros((extra, 2), np.float32)]).astype(np.float32, copy=False),
        image=np.concatenate([image, *(np.full(len(t), -1) for t in triangles)]).astype(np.int16),
        atlas=atlas,
        samples=np.concatenate([np.full(len(rig.triangles), OPAQUE, np.uint8), *covers]),
    )
