"""Random heads out of a rig: people of every age, cartoon, anime and sculpted characters.

A character is a set of named amounts, drawn about the mean of a kind of character; `character_warp`
makes the warp of them from the landmarks of a rig. Lengths are in heights of the face (brows to
chin), factors as their logarithms, so that 0 changes nothing.
"""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from sf_jax.face import landmarks
from sf_jax.render.warp import Column, Warp, profile_of

# Deviations of a person from the rig's own head.
PERSON = {
    "eye_size": 0.10,
    "eye_height": 0.10,
    "eye_apart": 0.010,
    "eye_y": 0.012,
    "eye_tilt": 0.06,
    "brow_y": 0.014,
    "brow_tilt": 0.10,
    "nose_width": 0.14,
    "nose_length": 0.10,
    "nose_depth": 0.16,
    "nose_tip": 0.010,
    "mouth_width": 0.12,
    "mouth_height": 0.14,
    "mouth_y": 0.012,
    "mouth_corner": 0.007,
    "cheek": 0.013,
    "jaw": 0.011,
    "chin": 0.014,
    "ear": 0.12,
    "forehead_long": 0.08,
    "nose_long": 0.08,
    "lip_long": 0.10,
    "chin_long": 0.12,
    "crown_wide": 0.035,
    "brow_wide": 0.03,
    "cheek_wide": 0.06,
    "mouth_wide": 0.05,
    "chin_wide": 0.09,
    "head_wide": 0.06,
    "head_deep": 0.08,
    "forehead_out": 0.015,
    "middle_out": 0.012,
    "chin_out": 0.015,
    "iris": 0.06,
    "bumps": 0.004,
}
NAMES = tuple(PERSON)


@dataclass(frozen=True)
class Kind:
    """A kind of character.

    Attributes:
      share: how often it is drawn.
      spread: factor of the deviations in PERSON.
      mean: amounts that differ from 0; own: deviations that differ from PERSON's.
    """

    share: float
    spread: float = 1.0
    mean: dict[str, float] = field(default_factory=dict)
    own: dict[str, float] = field(default_factory=dict)


KINDS = {
    "person": Kind(0.30),
    "caricature": Kind(0.15, 1.8),
    "child": Kind(
        0.10,
        0.9,
        {
            "eye_size": 0.22,
            "nose_length": -0.2,
            "nose_depth": -0.35,
            "nose_width": -0.15,
            "mouth_width": -0.15,
            "chin_long": -0.25,
            "forehead_long": 0.15,
            "cheek": 0.03,
            "chin_wide": -0.1,
            "crown_wide": 0.04,
            "eye_y": -0.02,
            "iris": 0.1,
            "nose_tip": 0.012,
        },
    ),
    "elderly": Kind(
        0.08,
        1.1,
        {
            "eye_size": -0.1,
            "nose_length": 0.15,
            "nose_depth": 0.15,
            "ear": 0.25,
            "jaw": 0.02,
            "mouth_height": -0.2,
            "cheek": -0.02,
            "lip_long": 0.12,
            "bumps": 0.01,
            "brow_y": -0.01,
        },
    ),
    "cartoon": Kind(
        0.17,
        1.6,
        {"eye_size": 0.35, "eye_height": 0.1, "nose_depth": -0.1, "iris": 0.1, "crown_wide": 0.04},
        {
            "nose_depth": 0.5,
            "nose_width": 0.4,
            "nose_length": 0.3,
            "mouth_width": 0.25,
            "iris": 0.25,
            "chin_wide": 0.25,
            "brow_y": 0.03,
            "eye_size": 0.25,
            "ear": 0.35,
        },
    ),
    "anime": Kind(
        0.12,
        0.9,
        {
            "eye_size": 0.48,
            "eye_height": 0.2,
            "eye_apart": 0.02,
            "eye_y": -0.025,
            "nose_width": -0.7,
            "nose_length": -0.45,
            "nose_depth": -0.8,
            "mouth_width": -0.35,
            "mouth_height": -0.15,
            "chin_wide": -0.35,
            "mouth_wide": -0.12,
            "chin_long": -0.1,
            "forehead_long": 0.15,
            "crown_wide": 0.05,
            "brow_wide": 0.05,
            "iris": 0.35,
            "brow_y": 0.03,
            "cheek": 0.01,
        },
    ),
    "sculpted": Kind(0.08, 1.3, {"bumps": 0.02, "brow_y": -0.01}, {"jaw": 0.025, "cheek": 0.025}),
}
LARGEST = 3.0  # deviations


def random_character(
    generator: np.random.Generator, kind: str | None = None
) -> tuple[str, dict[str, float]]:
    """A kind of character, drawn by its share if None, and the amounts of one of that kind."""
    if kind is None:
        shares = np.array([each.share for each in KINDS.values()])
        kind = str(generator.choice(list(KINDS), p=shares / shares.sum()))
    chosen = KINDS[kind]
    intensity = generator.uniform(0.5, 1.2)  # of what the kind has in common
    drawn = np.clip(generator.normal(0, 1, len(NAMES)), -LARGEST, LARGEST)
    amounts = {}
    for name, value in zip(NAMES, drawn, strict=True):
        deviation = chosen.own.get(name, PERSON[name] * chosen.spread)
        amounts[name] = intensity * chosen.mean.get(name, 0.0) + float(value) * deviation
    return kind, amounts


class _Local:
    """Local changes, collected stage by stage."""

    def __init__(self, height: float) -> None:
        self.height, self.rows, self.stage = height, [], 0  # type: ignore[var-annotated]

    def next_stage(self) -> None:
        self.stage += 1

    def add(
        self,
        centre: np.ndarray,
        radius: tuple[float, float, float],
        scale: tuple[float, float, float] = (0, 0, 0),
        turn: float = 0.0,
        shift: tuple[float, float, float] = (0, 0, 0),
    ) -> None:
        """A change about `centre`, cm.

        Args:
          radius, shift: in heights of the face; scale: logarithms of factors.
          turn: radians about z, counter-clockwise as the face is seen.
        """
        cos, sin = np.cos(turn), np.sin(turn)
        rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        matrix = rotation @ np.diag(np.exp(scale)) - np.eye(3)
        self.rows.append(
            (
                self.stage,
                centre,
                np.multiply(radius, self.height),
                matrix,
                np.multiply(shift, self.height),
            )
        )

    def add_both(
        self,
        centre: np.ndarray,
        radius: tuple[float, float, float],
        scale: tuple[float, float, float] = (0, 0, 0),
        turn: float = 0.0,
        shift: tuple[float, float, float] = (0, 0, 0),
    ) -> None:
        """The change about a centre on the left and its mirror image."""
        self.add(centre, radius, scale, turn, shift)
        self.add(centre * [-1, 1, 1], radius, scale, -turn, (-shift[0], *shift[1:]))

    def arrays(self) -> tuple[np.ndarray, ...]:
        """stage, centre, radius, matrix, shift, as a Warp holds them."""
        stage, *others = zip(*self.rows, strict=True)
        return np.array(stage, np.int32), *(np.array(each, np.float32) for each in others)


class Anchors:
    """Points of a neutral head that the changes refer to, symmetric, the left ones; cm.

    Raises:
      ValueError: a landmark of the eyes, the brows, the nose, the mouth or the chin is not known.
    """

    def __init__(self, marks: Float[np.ndarray, "70 3"]) -> None:
        needed = np.delete(marks, np.r_[landmarks.JAW], 0)[:-2]
        if not np.isfinite(needed).all() or not np.isfinite(marks[landmarks.CHIN]).all():
            raise ValueError("landmarks of the face are not known")
        symmetric = 0.5 * (marks + marks[landmarks.MIRROR] * [-1, 1, 1])
        self.eye = symmetric[landmarks.LEFT_EYE].mean(0)
        self.brow = symmetric[22:27].mean(0)
        self.tip, self.base = symmetric[landmarks.NOSE_TIP], symmetric[33]
        self.bridge = symmetric[27]
        self.mouth = symmetric[landmarks.LIPS].mean(0)
        self.corner, self.chin = symmetric[landmarks.MOUTH_LEFT], symmetric[landmarks.CHIN]
        self.top = symmetric[landmarks.BROWS, 1].max()
        self.height = float(self.top - self.chin[1])
        ear, jaw = symmetric[16], symmetric[12]
        self.ear = (
            ear if np.isfinite(ear).all() else self.eye + self.height * np.array([0.35, 0, -0.6])
        )
        self.jaw = (
            jaw if np.isfinite(jaw).all() else np.array([self.ear[0], self.mouth[1], self.ear[2]])
        )


def _local_changes(a: dict[str, float], at: Anchors, generator: np.random.Generator) -> _Local:
    local = _Local(at.height)
    eye_radius = (0.5 * at.eye[0] / at.height + 0.03, 0.17, 0.32)
    local.add_both(
        at.eye,
        eye_radius,
        scale=(a["eye_size"], a["eye_size"] + a["eye_height"], a["eye_size"]),
        turn=a["eye_tilt"],
        shift=(a["eye_apart"], a["eye_y"], 0),
    )
    local.next_stage()
    local.add_both(at.brow, (0.2, 0.09, 0.3), turn=a["brow_tilt"], shift=(0, a["brow_y"], 0))
    local.next_stage()
    nose = np.array([0, 0.5 * (at.tip[1] + at.base[1]), at.base[2] - 0.05 * at.height])
    local.add(
        nose,
        (0.2, 0.2, 0.24),
        scale=(a["nose_width"], a["nose_length"], a["nose_depth"]),
    )
    local.add(at.tip, (0.09, 0.1, 0.15), shift=(0, a["nose_tip"], 0))
    local.next_stage()
    local.add(
        at.mouth,
        (0.26, 0.15, 0.35),
        scale=(a["mouth_width"], a["mouth_height"], 0),
        shift=(0, a["mouth_y"], 0),
    )
    local.next_stage()
    local.add_both(at.corner, (0.08, 0.08, 0.2), shift=(0, a["mouth_corner"], 0))
    local.next_stage()
    cheek = np.array([at.eye[0] * 1.15, 0.45 * at.eye[1] + 0.55 * at.mouth[1], at.eye[2]])
    local.add_both(cheek, (0.18, 0.2, 0.3), shift=(a["cheek"], 0, a["cheek"]))
    local.add_both(at.jaw, (0.2, 0.2, 0.3), shift=(a["jaw"], 0, 0))
    local.add(at.chin, (0.16, 0.13, 0.25), shift=(0, 0, a["chin"]))
    back_of_ear = at.ear - at.height * np.array([0, 0.1, 0.1])
    local.add_both(back_of_ear, (0.12, 0.3, 0.2), scale=(a["ear"], a["ear"], a["ear"]))
    local.next_stage()
    _add_bumps(local, a, at, generator)
    return local


def _add_bumps(
    local: _Local, a: dict[str, float], at: Anchors, generator: np.random.Generator
) -> None:
    """Irregular bumps: some on both sides, a few on one, which makes a head a little asymmetric."""
    size = abs(a["bumps"])
    low = np.array([0.1 * at.eye[0], at.chin[1], at.ear[2]])
    high = np.array([1.6 * at.eye[0], at.top + 0.3 * at.height, at.tip[2]])
    for _ in range(5):
        radius = tuple(generator.uniform(0.1, 0.25, 3).tolist())
        shift = generator.normal(0, size, 3).tolist()
        local.add_both(generator.uniform(low, high), radius, shift=tuple(shift))
    for _ in range(3):
        radius = tuple(generator.uniform(0.15, 0.35, 3).tolist())
        shift = generator.normal(0, 0.4 * size + 0.003, 3).tolist()
        centre = generator.uniform(low, high) * [generator.choice([-1, 1]), 1, 1]
        local.add(centre, radius, shift=tuple(shift))


def _profile(a: dict[str, float], at: Anchors) -> tuple[float, float, np.ndarray]:
    """Proportions by height: from the neck over chin, mouth, nose, eyes and brows to the crown."""
    height = at.height
    chin, mouth, nose, eye, brow = (
        at.chin[1],
        at.mouth[1],
        at.base[1],
        at.eye[1],
        at.top,
    )
    knots = [
        chin - 0.6 * height,
        chin - 0.25 * height,
        chin,
        mouth,
        nose,
        eye,
        brow,
        brow + 0.45 * height,
        brow + 0.8 * height,
    ]
    long = [
        0,
        0,
        a["chin_long"],
        a["lip_long"],
        a["nose_long"],
        0,
        a["forehead_long"],
        a["forehead_long"],
    ]
    new = np.cumsum([0, *(np.diff(knots) * np.exp(long))])
    new += eye - new[knots.index(eye)]
    mouth_wide = a["cheek_wide"] + a["mouth_wide"]  # each goes with its neighbour
    brow_wide = a["cheek_wide"] + a["brow_wide"]
    crown_wide = brow_wide + a["crown_wide"]
    chin_wide = mouth_wide + a["chin_wide"]
    wide = [0, 0, chin_wide, mouth_wide, *[a["cheek_wide"]] * 2, brow_wide, *[crown_wide] * 2]
    out = [
        0,
        0,
        a["chin_out"],
        0.5 * a["chin_out"],
        a["middle_out"],
        a["middle_out"],
        a["forehead_out"],
        a["forehead_out"],
        0,
    ]
    columns = np.zeros((len(knots), len(Column)))
    columns[:, Column.HEIGHT] = new
    columns[:, Column.WIDTH] = np.exp(np.add(wide, a["head_wide"]))
    columns[:, Column.DEPTH] = np.exp(a["head_deep"])
    columns[:, Column.FORWARD] = np.multiply(out, height)
    return profile_of(np.array(knots), columns)


def character_warp(
    marks: Float[np.ndarray, "70 3"], amounts: dict[str, float], generator: np.random.Generator
) -> Warp:
    """The warp of a character on a head with these landmarks, cm.

    Raises:
      ValueError: landmarks that it refers to are not known.
    """
    at = Anchors(marks)
    lowest, step, profile = _profile(amounts, at)
    stage, centre, radius, matrix, shift = _local_changes(amounts, at, generator).arrays()
    return Warp(
        stage=stage,
        centre=centre,
        radius=radius,
        matrix=matrix,
        shift=shift,
        lowest=lowest,
        step=step,
        profile=profile,
        middle=float(at.ear[2]),
        front=float(at.eye[2]),
        iris=float(np.exp(amounts["iris"])),
    )
