"""Photo skins from a folder of portraits: one file of them, a contact sheet, reasons of refusal."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from tqdm import tqdm

from data_pipelines import held_out
from data_pipelines.portraits import LIST, read_portraits
from sf_jax.face.channels import INDEX
from sf_jax.face.landmarks import framing_square
from sf_jax.media import files, kinds, npz_files, small_files
from sf_jax.media.crop import cut_square
from sf_jax.media.images import ImageError, read_image
from sf_jax.reader.framing import Framer
from sf_jax.render.draw import draw
from sf_jax.render.rig import Rig, Surface
from sf_jax.render.scene import plain_scene
from sf_jax.render.skin_maker import Made, PortraitRefused, SkinMaker
from sf_jax.render.skins import Skins, SkinsError, write

CELL = 128  # pixels, of a picture on the contact sheet
ACROSS = 4  # portraits in a row of it
SHARE = 0.55  # brows to chin over the side of a cell
POSES: tuple[dict[str, float], ...] = (
    {},
    {"HeadYaw": 0.5},
    {"MouthSmileLeft": 0.8, "MouthSmileRight": 0.8},
)

# Landmarks of the largest face of an image [70, 2] in pixels; None where there is no face.
FindLandmarks = Callable[[UInt8[np.ndarray, "H W 3"]], Float[np.ndarray, "70 2"] | None]


@dataclass(frozen=True)
class Candidate:
    """A portrait that a skin may be made from.

    Attributes:
      path: of the image.
      landmarks: shares of width and height, [70, 2]; None where they have to be found.
    """

    path: Path
    landmarks: Float[np.ndarray, "70 2"] | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of the portraits.

    Attributes:
      accepted: names in the order of the file; refused: name → reason.
    """

    accepted: tuple[str, ...]
    refused: dict[str, str]


def candidates(folder: Path, only: Collection[str] | None = None) -> list[Candidate]:
    """The portraits of a folder: those that its `portraits.jsonl` lists, or else all its images.

    Args:
      only: names of those to take, with or without their endings; None for all.

    Raises:
      DataError: there is no such folder, its list is damaged, or no portrait is left.
    """
    if not folder.is_dir():
        raise SkinsError("there is no such folder", path=folder)
    if (folder / LIST).is_file():
        found = [Candidate(one.path, one.landmarks) for one in read_portraits(folder)]
    else:
        paths = sorted(path for path in folder.iterdir() if kinds.kind_of(path) == "picture")
        found = [Candidate(path) for path in paths]
    if only is not None:
        wanted = {held_out.stem(name) for name in only}
        found = [one for one in found if held_out.stem(one.path.name) in wanted]
    if not found:
        asked = "" if only is None else f" that is one of the {len(only)} asked for"
        raise SkinsError(f"holds no portrait{asked}", path=folder)
    return found


def read_names(path: Path) -> list[str]:
    """Names of portraits: lines of a text file, or the people of a file of skins.

    Raises:
      DataError: the file is missing, or is neither.
    """
    if path.suffix.lower() == ".npz":
        declared = {"portrait": npz_files.Declared("text", ("skins",))}
        return [str(name) for name in npz_files.read_arrays(path, declared)["portrait"]]
    names = [line.strip() for line in small_files.read_text(path).splitlines()]
    return [name for name in names if name]


def landmarks_by(framer: Framer) -> FindLandmarks:
    """Landmarks of the largest face, as a model's own tower reads them.

    Raises:
      SkinsError: the model reads no landmarks.
    """
    read = framer.landmarks
    if read is None:
        problem = f"the model reads no landmarks; list those of the portraits in {LIST}, or name "
        raise SkinsError(f"{problem}a model that has a finder and a read-out of landmarks")

    def find(image: np.ndarray) -> np.ndarray | None:
        face = framer.face(image)
        return None if face is None else read(image, face.box)

    return find


def make(
    portraits: list[Candidate], rig: Rig, out: Path, find_landmarks: FindLandmarks | None = None
) -> Outcome:
    """Makes skins of portraits into a file, and a contact sheet beside it under the ending .png.

    Args:
      find_landmarks: for portraits without; None refuses those.

    Raises:
      DataError: a file of either name exists, or every portrait is refused. Nothing is written.
      RigShapeError: the rig lacks one of the 68 iBUG landmarks.
      OSError: a file cannot be written.
    """
    for path in (out, sheet_path(out)):
        if path.exists():
            raise SkinsError("exists already; remove it, or name another file", path=path)
    if not out.parent.is_dir():
        raise SkinsError("there is no such folder to write to", path=out.parent)
    maker, refused, rows = SkinMaker(rig), {}, []
    made: dict[str, Made] = {}
    for portrait in tqdm(portraits, desc="skins", unit="portrait"):
        name = portrait.path.name
        try:
            image, landmarks = _read(portrait, find_landmarks)
            skin = maker.make(image, landmarks)
        except PortraitRefused as refusal:
            refused[name] = str(refusal)
            continue
        except ImageError as error:
            refused[name] = error.problem
            continue
        made[name] = skin
        rows.append(_row(image, landmarks, rig, skin, name))
    if not made:
        name, reason = next(iter(refused.items()))
        problem = f"all {len(refused)} portraits are refused, {name} because {reason}"
        raise SkinsError(f"nothing to write: {problem}", path=out)
    skins = Skins(
        portrait=tuple(made),
        identity=np.stack([skin.identity for skin in made.values()]),
        colours=np.stack([skin.colours for skin in made.values()]),
        fit_error_cm=np.array([skin.fit.error_cm for skin in made.values()], np.float32),
        rig=rig,
    )
    write(out, skins)
    files.write_bytes(sheet_path(out), _sheet(rows))
    return Outcome(tuple(made), refused)


def sheet_path(out: Path) -> Path:
    """The contact sheet's: of `skins.npz`, `skins.png`."""
    return out.with_suffix(".png")


def _read(
    portrait: Candidate, find_landmarks: FindLandmarks | None
) -> tuple[np.ndarray, np.ndarray]:
    """The image and its landmarks [70, 2] in pixels."""
    image = read_image(portrait.path)
    if portrait.landmarks is not None:
        return image, portrait.landmarks * np.array(image.shape[1::-1])
    if find_landmarks is None:
        raise PortraitRefused(f"no landmarks of it are known: {LIST} does not list it")
    found = find_landmarks(image)
    if found is None:
        raise PortraitRefused("no face is found in it")
    return image, found


def _row(image: np.ndarray, landmarks: np.ndarray, rig: Rig, skin: Made, name: str) -> np.ndarray:
    """The portrait and its skin in POSES, side by side, with the name below: [H, W, 3]."""
    square = framing_square(landmarks, SHARE, turned=False)
    shown = cut_square(image, square.x, square.y, square.side, 0.0, CELL)
    pictures = [shown] + [_shown(rig, skin, pose) for pose in POSES]
    strip = np.concatenate(pictures, 1)
    label = np.full((16, strip.shape[1], 3), 255, np.uint8)
    text = f"{held_out.stem(name)[:40]}  {skin.fit.error_cm:.2f} cm"
    cv2.putText(label, text, (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (40, 40, 40), 1, cv2.LINE_AA)
    return np.concatenate([strip, label])


def _shown(rig: Rig, skin: Made, values: dict[str, float]) -> np.ndarray:
    coefficients = np.zeros(len(INDEX), np.float32)
    for name, value in values.items():
        coefficients[INDEX[name]] = value
    coloured = replace(rig, surface=Surface(skin.colours.astype(np.float32) / 255))
    even = replace(plain_scene(skin.identity), ambient=0.95, key=0.08, fill=0.0, face_share=SHARE)
    return draw(coloured, coefficients, even, CELL, CELL).image


def _sheet(rows: list[np.ndarray]) -> bytes:
    """PNG of all rows, several beside each other."""
    height, width = rows[0].shape[:2]
    lines = -(-len(rows) // ACROSS)
    across = min(ACROSS, len(rows))
    sheet = np.full((lines * height, across * width, 3), 255, np.uint8)
    for number, row in enumerate(rows):
        line, column = divmod(number, ACROSS)
        sheet[line * height : (line + 1) * height, column * width : (column + 1) * width] = row
    return cv2.imencode(".png", sheet[..., ::-1])[1].tobytes()


def summary(outcome: Outcome) -> Iterator[str]:
    """Lines for the user: how many are in the file, and each refusal with its reason."""
    total = len(outcome.accepted) + len(outcome.refused)
    yield f"{len(outcome.accepted)} of {total} portraits became skins"
    for name, reason in outcome.refused.items():
        yield f"{name}: {reason}"
