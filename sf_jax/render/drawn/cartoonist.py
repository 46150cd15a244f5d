"""Draws a face in a style: the second renderer beside the rasteriser of rigs."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from sf_jax.face.channels import NAMES
from sf_jax.face.landmarks import COUNT
from sf_jax.media.errors import DataError
from sf_jax.render.draw import Drawing
from sf_jax.render.drawn import (
    accessories,
    action,
    backdrop,
    body,
    brows,
    eyes,
    finish,
    hair,
    head,
    lips,
    mouth,
    muzzle,
    nose,
    shading,
)
from sf_jax.render.drawn.canvas import Canvas
from sf_jax.render.drawn.curves import Points
from sf_jax.render.drawn.sheet import SKIN, Sheet
from sf_jax.render.drawn.style import Style
from sf_jax.render.layers import Layer
from sf_jax.render.shading import BACKGROUND

DISTANCE = 100.0  # cm from the camera, of the layer of a drawing
_JAW_LEVELS = 9


class CoefficientsError(DataError):
    """Coefficients of another shape than [61], or not finite."""


@dataclass(frozen=True)
class Framing:
    """Where the face is in the image.

    Attributes:
      centre: of the face relative to the image's, in shorter sides, x right and y down.
      face_share: height from brows to chin at rest over the shorter side.
      roll: radians by which everything is turned, counter-clockwise; not part of HeadRoll.
      background: an image that replaces the style's backdrop, stretched to the drawing's size.
    """

    centre: tuple[float, float] = (0.0, 0.0)
    face_share: float = 0.55
    roll: float = 0.0
    background: UInt8[np.ndarray, "h w 3"] | None = None


def draw_drawn(
    coefficients: Float[np.ndarray, "61"],
    style: Style,
    height: int,
    width: int,
    framing: Framing | None = None,
) -> Drawing:
    """Draws a face.

    Args:
      coefficients: in canonical order, angles in radians; channels that are not in `style.known`
        count as 0.
      height, width: of the image in pixels.

    Returns:
      The image, its map of materials and the 70 landmarks in pixels; landmarks of parts that the
      style does not draw are NaN.

    Raises:
      CoefficientsError: the coefficients are not 61 finite numbers.
    """
    framing = framing or Framing()
    sheet = _sheet(coefficients, style, height, width, framing)
    if framing.background is None:
        backdrop.draw(sheet.canvas, style)
    else:
        backdrop.paste(sheet.canvas, framing.background)
    landmarks = _draw(sheet)
    image, material = sheet.canvas.reduced()
    return Drawing(finish.finished(image, style.finish), material, landmarks)


def _samples(height: int, width: int) -> int:
    return int(np.clip(512 // max(1, min(height, width)), 2, 4))


def draw_layer(
    coefficients: Float[np.ndarray, "61"],
    style: Style,
    height: int,
    width: int,
    framing: Framing | None = None,
) -> Layer:
    """Draws a face without a backdrop, to be composed with others.

    Returns:
      A layer of the whole image.

    Raises:
      CoefficientsError: the coefficients are not 61 finite numbers.
    """
    sheet = _sheet(coefficients, style, height, width, framing or Framing())
    sheet.canvas.paper(style.palette.ground)
    landmarks = _draw(sheet)
    figure = (sheet.canvas.pixels[..., 3] != BACKGROUND).astype(np.float32)
    cover = cv2.resize(figure, (width, height), interpolation=cv2.INTER_AREA)
    image, material = sheet.canvas.reduced()
    colour = finish.finished(image, style.finish) * (cover[..., None] / np.float32(255))
    return Layer(0, 0, colour, cover, material, landmarks, DISTANCE)


def _sheet(
    coefficients: Float[np.ndarray, "61"], style: Style, height: int, width: int, framing: Framing
) -> Sheet:
    """Poses the head and sets the scale."""
    if np.shape(coefficients) != (len(NAMES),) or not np.isfinite(coefficients).all():
        raise CoefficientsError(f"{len(NAMES)} finite coefficients are needed to draw a face")
    done = action.read(coefficients, style.known, style.strength, style.gamma)
    top = style.eyes.y - style.eyes.up - style.brows.gap
    side = min(height, width)
    unit = framing.face_share * side / (1.0 - top)
    cos, sin = np.cos(framing.roll), np.sin(framing.roll)
    rest = head.turned(head.sections(style.head), done.yaw, done.pitch, done.roll)
    rest = replace(rest, scale=unit, basis=np.array([[cos, -sin], [sin, cos]]))
    # between the face's surface and the head's axis: a turned face keeps its side in the image
    middle = rest.place(np.array([[0.0, (top + 1.0) / 2]]), lift=-0.3)[0]
    goal = np.array([width / 2, height / 2]) + np.array(framing.centre) * side
    rest = replace(rest, origin=(float(goal[0] - middle[0]), float(goal[1] - middle[1])))
    posed = head.moved(
        rest,
        drop=style.mouth.drop * done.one("JawOpen"),
        aside=0.13 * (done.one("JawLeft") - done.one("JawRight")),
        puff=0.13 * done.one("CheekPuff"),
        mouth_y=style.mouth.y,
    )
    waves = (style.ink.wobble * unit, 0.07 * 64 / side, float(style.seed % 100))
    canvas = Canvas(height, width, _samples(height, width), waves)
    return Sheet(canvas, posed, rest, style, done, unit)


def _draw(sheet: Sheet) -> Float[np.ndarray, "70 2"]:
    """Draws everything from back to front and returns the landmarks."""
    pair, arcs = eyes.eyes(sheet), brows.brows(sheet)
    curves = lips.lips(sheet.style, sheet.action)
    face = sheet.head.silhouette()
    hair.draw_back(sheet)
    body.draw(sheet)
    body.draw_ears(sheet)
    sheet.shape(face, sheet.style.palette.skin, SKIN)
    shading.draw(sheet, face)
    accessories.draw_marks(sheet)
    hair.draw_fringe_shadow(sheet, face)
    muzzle.spot(sheet)
    muzzle.draw(sheet)
    accessories.draw_beard(sheet, curves)
    mouth.draw(sheet, curves)
    nose.draw(sheet)
    muzzle.draw_whiskers(sheet)
    for one in pair:
        index = (one.side + 1) // 2
        squint = sheet.action.pair("EyeSquint")[index]
        eyes.cheek_line(sheet, one, max(sheet.action.pair("CheekSquint")[index], 0.6 * squint))
    eyes.draw(sheet, pair)
    brows.folds(sheet)
    if not sheet.style.brows.over_hair:
        brows.draw(sheet, arcs)
    accessories.draw_glasses(sheet)
    hair.draw_fringe(sheet)
    if sheet.style.brows.over_hair:
        brows.draw(sheet, arcs)
    accessories.draw_hat(sheet)
    return _landmarks(sheet, pair, arcs, curves)


def _landmarks(
    sheet: Sheet, pair: tuple[eyes.Eye, eyes.Eye], arcs: tuple[Points, Points], curves: lips.Lips
) -> Float[np.ndarray, "70 2"]:
    lids, pupils = eyes.landmarks(sheet, pair)
    over = brows.landmarks(sheet, arcs)
    if sheet.style.brows.kind == "none":
        over = np.full_like(over, np.nan)
    points = np.concatenate(
        [
            _jaw_line(sheet),
            over,
            nose.landmarks(sheet),
            lids,
            mouth.landmarks(sheet, curves),
            pupils,
        ]
    )
    assert points.shape == (COUNT, 2)
    return sheet.canvas.displaced(points).astype(np.float32)


def _jaw_line(sheet: Sheet) -> Points:
    """17 points of the contour from the right ear over the chin to the left ear, in pixels."""
    rest, posed = sheet.rest, sheet.head
    levels = np.linspace(sheet.style.eyes.y, 1.0, _JAW_LEVELS)
    right, left = posed.contour(low=float(np.interp(levels[0], rest.y, posed.y)))
    heights = rest.y[-len(right) :]
    sides = [
        np.stack([np.interp(levels, heights, points[:, axis]) for axis in (0, 1)], 1)
        for points in (right, left)
    ]
    chin = (sides[0][-1:] + sides[1][-1:]) / 2
    return np.concatenate([sides[0][:-1], chin, sides[1][-2::-1]])
