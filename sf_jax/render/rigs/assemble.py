"""A `Rig` out of a mesh with ARKit shapes: upright, to scale, left is left, and eyes turn.

File readers hand over a `Mesh` as they find it. What its file does not hold is found here from the
geometry and the motion of the shapes: which way it faces, which side is the left, where the face,
the eyeballs and the landmarks are, and which channels it can show.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from sf_jax.face import landmarks
from sf_jax.face.channels import BLENDSHAPES, CHANNELS, INDEX, MIRROR, NAMES
from sf_jax.render.head_surface import smoothstep
from sf_jax.render.raster import vertex_normals
from sf_jax.render.rig import MATERIALS, PAINTS, Eye, Rig, Surface
from sf_jax.render.rigs import eyeballs, landmarking, painting
from sf_jax.render.rigs.arrays import RigError
from sf_jax.render.rigs.front import moved_box, view
from sf_jax.render.rigs.motion import known_channels

HEIGHT = 13.0  # cm, brows to chin, of every rig
BELOW, BESIDE = 1.1, 1.1  # of that height, which are kept below the chin and beside the face
LEAST_SHAPES = 8  # that move something, fewer are no ARKit rig
IRIS, PUPIL = 0.42, 0.18  # radians off the axis of an eyeball, where the file has no materials
SKIN = MATERIALS.index("skin")
IN_MOUTH = [MATERIALS.index(name) for name in ("teeth", "tongue", "mouth")]


@dataclass(frozen=True)
class Mesh:
    """A mesh as its file has it.

    Attributes:
      name: of the rig; path: of the file, for messages.
      vertices: float32 [V, 3]; triangles: int32 [T, 3]; shapes: float32 [52, V, 3], zeros where
        the file has no such shape.
      material: uint8 [V], indices into MATERIALS; skin where it is not known.
      eyes: bool [2, V], vertices of eyeballs that the file names, in either row; none to find them.
      pivots: the points [2, 3] about which those eyes turn, in any order; None to find them.
      covering: bool [T], triangles of hair and the like, which cover the face.
      surface: colours and textures; None to be coloured by material.
    """

    name: str
    path: str
    vertices: Float[np.ndarray, "V 3"]
    triangles: Int[np.ndarray, "T 3"]
    shapes: Float[np.ndarray, "52 V 3"]
    material: np.ndarray
    eyes: Bool[np.ndarray, "2 V"]
    covering: Bool[np.ndarray, " T"]
    pivots: np.ndarray | None = None
    surface: Surface | None = None


def _moved(shapes: np.ndarray) -> np.ndarray:
    return np.abs(shapes).max((1, 2)) > 0


def _centre_of_motion(mesh: Mesh, *names: str) -> np.ndarray | None:
    """The middle of what shapes move most, None where they move nothing."""
    size = sum(np.linalg.norm(mesh.shapes[INDEX[name]], axis=1) for name in names)
    assert isinstance(size, np.ndarray)
    if size.max() <= 0:
        return None
    weight = np.maximum(size - 0.5 * size.max(), 0)
    return (weight[:, None] * mesh.vertices).sum(0) / weight.sum()


def _turn(mesh: Mesh) -> np.ndarray:
    """The rotation [3, 3] by quarter turns that brings a head to +y up and +z out of the face."""
    brows = [f"Brow{part}{side}" for part in ("Down", "OuterUp") for side in ("Left", "Right")]
    top = _centre_of_motion(mesh, *brows, "BrowInnerUp", "EyeBlinkLeft", "EyeBlinkRight")
    bottom = _centre_of_motion(mesh, "JawOpen", "MouthLowerDownLeft", "MouthLowerDownRight")
    if top is None or bottom is None:
        raise RigError("shapes of the eyes or of the jaw move nothing", path=mesh.path)
    up = np.zeros(3)
    axis = int(np.abs(top - bottom).argmax())
    up[axis] = np.sign((top - bottom)[axis])
    weight = np.linalg.norm(mesh.shapes, axis=2).sum(0)
    normals = vertex_normals(mesh.vertices, mesh.triangles)
    out = (weight[:, None] * normals).sum(0)
    out[axis] = 0
    facing = int(np.abs(out).argmax())
    forward = np.zeros(3)
    forward[facing] = np.sign(out[facing])
    return np.stack([np.cross(up, forward), up, forward]).astype(np.float32)


def _turned(mesh: Mesh, turn: np.ndarray) -> Mesh:
    return replace(
        mesh,
        vertices=mesh.vertices @ turn.T,
        shapes=mesh.shapes @ turn.T,
        pivots=None if mesh.pivots is None else mesh.pivots @ turn.T,
    )


def _sides_swapped(mesh: Mesh) -> bool:
    """Whether shapes that are named left move the right: the majority of pairs decides."""
    votes = 0
    for channel in CHANNELS[BLENDSHAPES]:
        if channel.side == "left":
            left = _centre_of_motion(mesh, channel.name)
            right = _centre_of_motion(mesh, channel.mirror)
            if left is not None and right is not None:
                votes += 1 if left[0] > right[0] else -1
    return votes < 0


def _left_on_the_left(mesh: Mesh) -> tuple[Mesh, list[str]]:
    """Shapes renamed where left and right are swapped, and what was changed."""
    shapes, notes = mesh.shapes.copy(), []
    if _sides_swapped(mesh):
        sided = [c.index for c in CHANNELS[BLENDSHAPES] if c.side != "both"]
        shapes[sided] = mesh.shapes[MIRROR[sided]]
        notes.append("shapes named left move the right side: left and right are exchanged")
    for stem in ("Jaw", "Mouth"):
        left, right = INDEX[f"{stem}Left"], INDEX[f"{stem}Right"]
        sideways = shapes[left, :, 0] - shapes[right, :, 0]
        if sideways.sum() < -0.3 * np.abs(sideways).sum():
            shapes[[left, right]] = shapes[[right, left]]
            notes.append(f"{stem}Left and {stem}Right move the other way: they are exchanged")
    return replace(mesh, shapes=shapes), notes


def _kept(mesh: Mesh, triangles: Bool[np.ndarray, " T"]) -> Mesh:
    """The mesh of some of the triangles, without vertices that none of them uses."""
    used = np.zeros(len(mesh.vertices), bool)
    used[mesh.triangles[triangles]] = True
    number = np.cumsum(used) - 1
    surface = mesh.surface
    if surface is not None:
        surface = Surface(
            surface.colours[used],
            None if surface.uv is None else surface.uv[used],
            surface.images,
            None if surface.image is None else surface.image[triangles],
        )
    return replace(
        mesh,
        vertices=mesh.vertices[used],
        triangles=number[mesh.triangles[triangles]].astype(np.int32),
        shapes=np.ascontiguousarray(mesh.shapes[:, used]),
        material=mesh.material[used],
        eyes=mesh.eyes[:, used],
        covering=mesh.covering[triangles],
        surface=surface,
    )


def _cropped(mesh: Mesh) -> Mesh:
    """The head and the shoulders of a body, by the part that the shapes move."""
    low, high = moved_box(mesh.vertices, mesh.shapes[_moved(mesh.shapes)])
    height, middle = float((high - low)[1]), 0.5 * (low + high)
    corners = mesh.vertices[mesh.triangles]
    keep = corners[..., 1].min(1) > low[1] - BELOW * height
    keep &= np.abs(corners[..., 0] - middle[0]).max(1) < (0.5 + BESIDE) * height
    return _kept(mesh, keep)


def _sided_eyes(mesh: Mesh) -> Mesh:
    """The eyeballs that the file names, the left one first, without what shuts with the lids."""
    either = mesh.eyes[0] | mesh.eyes[1]
    blinks = np.abs(mesh.shapes[[INDEX["EyeBlinkLeft"], INDEX["EyeBlinkRight"]]]).max((0, 2))
    either &= blinks < 0.1 * max(float(blinks.max()), 1e-9)
    pivots = mesh.pivots
    lids = eyeballs.lid_middles(mesh.vertices, mesh.shapes)
    if lids is None or not either.any():
        return replace(mesh, eyes=np.zeros_like(mesh.eyes), pivots=None)
    left = mesh.vertices[:, 0] > lids[:, 0].mean()
    if pivots is not None:
        pivots = pivots[np.argsort(-pivots[:, 0])]
    return replace(mesh, eyes=np.stack([either & left, either & ~left]), pivots=pivots)


def _with_eyes(mesh: Mesh) -> Mesh:
    """Eyeballs found where the file names none; their shapes at rest, since they are turned."""
    mesh = _sided_eyes(mesh)
    if not mesh.eyes.any(1).all():
        found = eyeballs.find(mesh.vertices, mesh.triangles, mesh.shapes)
        mesh = replace(mesh, eyes=found, pivots=None)
    if not mesh.eyes.any(1).all():
        return replace(mesh, eyes=np.zeros_like(mesh.eyes), pivots=None)
    if mesh.pivots is None:
        balls = [eyeballs.centre_of(mesh.vertices[eye]) for eye in mesh.eyes]
        mesh = replace(mesh, pivots=np.stack(balls))
    shapes = mesh.shapes.copy()
    shapes[:, mesh.eyes.any(0)] = 0
    return replace(mesh, shapes=shapes)


def _between_lids(mesh: Mesh) -> Bool[np.ndarray, "2 V"]:
    """The eyeballs, with whites that are meshes of their own and do not turn."""
    white = (mesh.material == MATERIALS.index("sclera")) & mesh.eyes.any()
    left = mesh.vertices[:, 0] > np.median(mesh.vertices[:, 0])
    return mesh.eyes | np.stack([white & left, white & ~left])


def _painted_eyes(mesh: Mesh) -> np.ndarray:
    """The materials [V], those of eyeballs by the angle from their axes."""
    material = mesh.material.copy()
    if mesh.pivots is None:
        return material
    for eye, pivot in zip(mesh.eyes, mesh.pivots, strict=True):
        away = mesh.vertices[eye] - pivot
        angle = np.arctan2(np.hypot(away[:, 0], away[:, 1]), away[:, 2])
        ring = np.digitize(angle, [PUPIL, IRIS])
        names = [MATERIALS.index(name) for name in ("pupil", "iris", "sclera")]
        material[eye] = np.array(names, np.uint8)[ring]
    return material


def _painted_mouth(mesh: Mesh, marks: np.ndarray, material: np.ndarray) -> np.ndarray:
    """The materials [V], with those of what is in the mouth in place of skin."""
    out = np.linalg.norm(mesh.shapes[INDEX["TongueOut"]], axis=1)
    piece = eyeballs.pieces(mesh.vertices, mesh.triangles)
    inside = painting.in_mouth(mesh.vertices, marks, piece, out)
    seen = view(mesh.vertices, mesh.triangles, mesh.shapes, ~mesh.covering)
    hidden = np.ones(len(material), bool)
    hidden[seen.corners] = False
    chosen = (inside >= 0) & (material == SKIN) & hidden
    return np.where(chosen, inside, material).astype(np.uint8)


def _to_scale(mesh: Mesh, marks: np.ndarray) -> tuple[Mesh, np.ndarray]:
    """The mesh and its landmarks with the face HEIGHT cm high and in the middle at x = 0."""
    scale = HEIGHT / float(np.ptp(marks[:68, 1]))
    middle = 0.5 * (marks + marks[landmarks.MIRROR])[:68].mean(0)

    def moved(points: np.ndarray) -> np.ndarray:
        return ((points - middle) * scale).astype(np.float32)

    mesh = replace(
        mesh,
        vertices=moved(mesh.vertices),
        shapes=(mesh.shapes * scale).astype(np.float32),
        pivots=None if mesh.pivots is None else moved(mesh.pivots),
    )
    return mesh, moved(marks)


def _plausible(marks: Int[np.ndarray, " 70"], at: Float[np.ndarray, "70 3"]) -> bool:
    """Whether landmarks are those of a face: mostly different, and in order from brows to chin."""
    brow, eye, mouth = (
        at[part, 1].mean() for part in (landmarks.BROWS, landmarks.EYELIDS, landmarks.LIPS)
    )
    across = at[landmarks.LEFT_EYE, 0].min() > at[landmarks.RIGHT_EYE, 0].max()
    ordered = brow > eye > at[landmarks.NOSE_TIP, 1] > mouth > at[landmarks.CHIN, 1]
    return bool(across and ordered and len(np.unique(marks[:68])) > 40)


def _eyes(mesh: Mesh) -> tuple[Eye, Eye]:
    if mesh.pivots is None:
        nothing = Eye(np.zeros(0, np.int64), np.zeros(3, np.float32))
        return nothing, nothing
    left, right = (
        Eye(np.flatnonzero(eye), pivot) for eye, pivot in zip(mesh.eyes, mesh.pivots, strict=True)
    )
    return left, right


def subdivided(mesh: Mesh, chosen: Bool[np.ndarray, " T"]) -> Mesh:
    """The mesh with each chosen triangle divided into four, its shape unchanged.

    Colours by vertex are finer then. Vertices are added in the middles of edges.
    """
    triangles = mesh.triangles[chosen]
    edges = np.sort(
        np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1
    )
    pairs, inverse = np.unique(edges, axis=0, return_inverse=True)
    middle = (inverse.ravel() + len(mesh.vertices)).reshape(3, -1)
    (a, b, c), (ab, bc, ca) = triangles.T, middle
    four = [[a, ab, ca], [ab, b, bc], [ca, bc, c], [ab, bc, ca]]
    new = np.concatenate([np.stack(each, 1) for each in four]).astype(np.int32)

    def with_middles(values: np.ndarray) -> np.ndarray:
        added = 0.5 * (values[pairs[:, 0]] + values[pairs[:, 1]])
        return np.concatenate([values, added]).astype(np.float32)

    if mesh.surface is not None:
        raise ValueError("a mesh with colours of its own is not divided")
    return replace(
        mesh,
        vertices=with_middles(mesh.vertices),
        triangles=np.concatenate([mesh.triangles[~chosen], new]),
        shapes=np.stack([with_middles(shape) for shape in mesh.shapes]),
        material=np.concatenate([mesh.material, mesh.material[pairs[:, 0]]]),
        eyes=np.concatenate([mesh.eyes, mesh.eyes[:, pairs].all(-1)], 1),
        covering=np.concatenate([mesh.covering[~chosen], np.tile(mesh.covering[chosen], 4)]),
    )


def assemble(mesh: Mesh) -> Rig:
    """The rig of a mesh.

    Raises:
      RigError: too few shapes move something, or the face is not found.
    """
    if _moved(mesh.shapes).sum() < LEAST_SHAPES:
        found = [NAMES[i] for i in np.flatnonzero(_moved(mesh.shapes))]
        problem = f"{len(found)} ARKit shapes move something ({', '.join(found) or 'none'})"
        raise RigError(f"{problem}, expected at least {LEAST_SHAPES}", path=mesh.path)
    mesh = _cropped(_turned(mesh, _turn(mesh)))
    mesh, notes = _left_on_the_left(mesh)
    mesh = _with_eyes(mesh)
    brows = mesh.material == MATERIALS.index("brow")
    head = landmarking.Head(
        mesh.vertices, mesh.triangles, mesh.shapes, _between_lids(mesh), ~mesh.covering, brows
    )
    marks = landmarking.find(head)
    positions = mesh.vertices[marks]
    if (marks[:68] < 0).any() or not _plausible(marks, positions):
        raise RigError("its face is not found: too few shapes move parts of it", path=mesh.path)
    mesh, positions = _to_scale(mesh, positions)
    material = _painted_eyes(mesh)
    if mesh.surface is None and not np.isin(material, IN_MOUTH).any():
        material = _painted_mouth(mesh, positions, material)
    skin = material == SKIN
    paint = np.zeros((len(material), len(PAINTS)), np.float32)
    if skin.any():
        paint = painting.paint(mesh.vertices, positions, skin)
        material[skin & (paint[:, PAINTS.index("lips")] > 0.5)] = MATERIALS.index("lips")
        if mesh.surface is None:
            hair = skin & painting.scalp(mesh.vertices, positions)
            material[hair] = MATERIALS.index("hair")
            paint[hair] = 0
    chin, eye = positions[landmarks.CHIN], positions[landmarks.EYELIDS].mean(0)
    above_neck = (mesh.vertices - chin) @ [0, 1, 0.18]
    drawn = np.ones(len(mesh.vertices), bool)
    return Rig(
        name=mesh.name,
        neutral=mesh.vertices,
        blendshapes=mesh.shapes,
        identity=np.zeros((0, *mesh.vertices.shape), np.float32),
        triangles=mesh.triangles,
        material=material,
        paint=paint,
        eyes=_eyes(mesh),
        head_weight=smoothstep(-0.42 * HEIGHT, 0.0, above_neck).astype(np.float32),
        head_pivot=np.array([0, chin[1] + 0.37 * HEIGHT, eye[2] - 0.75 * HEIGHT], np.float32),
        landmarks=marks,
        known=known_channels(mesh.shapes, drawn, HEIGHT, eyeballs=mesh.pivots is not None),
        surface=mesh.surface,
        notes=tuple(notes),
    )
