"""Clauses on the head, when the image of a face is turned."""

import numpy as np
import pytest

from sf_jax.face.channels import INDEX
from sf_jax.face.checking import check
from sf_jax.face.describe import Description, describe, read
from sf_jax.face.head_angles import HEAD, turn_image, turn_spread
from sf_jax.face.head_clauses import with_head


def face(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0, jaw: float = 0.0) -> np.ndarray:
    out = np.zeros(61, np.float32)
    out[HEAD], out[INDEX["JawOpen"]] = (yaw, pitch, roll), jaw
    return out


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("roll", [0.0, 0.15, -0.3, 0.6])
def test_the_description_agrees_with_the_turned_face(seed: int, roll: float) -> None:
    """Whatever the wording, and whether or not anything else moves."""
    generator = np.random.default_rng(seed)
    before = face(*generator.uniform(-0.5, 0.5, 3), jaw=float(generator.integers(2)))
    if seed == 0:
        before = face()  # at rest
    described = describe(before, seed)
    after = turn_image(before, roll)
    found = with_head(described, before[HEAD], after[HEAD])
    assert check(found.text, after) == () and read(found.text) == read(describe(after).text)
    assert (found == described) == (read(described.text) == read(found.text))
    back = with_head(found, after[HEAD], before[HEAD])
    assert read(back.text) == read(described.text) and back.expression == described.expression


def test_other_clauses_stay_as_they_are() -> None:
    before = face(yaw=0.3, roll=0.2, jaw=0.8)
    described = describe(before, 3)
    jaw, head = described.movements.split("; ")
    turned, tilted = head.split(", ")
    found = with_head(described, before[HEAD], [0.3, 0.0, -0.2])
    assert found.movements == f"{jaw}; {turned}, head slightly tilted left"
    assert tilted not in found.movements
    upright = with_head(described, before[HEAD], [0.3, 0.0, 0.0])
    assert upright.movements == f"{jaw}; {turned}"
    assert with_head(describe(face(roll=0.2)), [0, 0, 0.2], [0, 0, 0]).movements == "at rest"


def test_words_of_others_are_left_out_only_where_a_level_changes() -> None:
    others = Description.parse("A broad grin, the head held straight.")
    assert with_head(others, [0, 0, 0], [0, 0, 0.05]) == others
    assert with_head(others, [0, 0, 0], [0, 0, 0.3]) == Description("", "", "", "")


def test_a_spread_turns_with_its_angles() -> None:
    """As samples of the angles do; a roll alone moves that of a frontal head nowhere."""
    spread = np.full(61, 0.3, np.float32)
    spread[HEAD] = 0.02, 0.05, 0.1
    assert turn_spread(face(), spread, 0.0) is spread
    quarter = turn_spread(face(), spread, np.pi / 2)
    assert quarter[HEAD] == pytest.approx([0.05, 0.02, 0.1], rel=1e-3)
    assert quarter[INDEX["JawOpen"]] == np.float32(0.3)
    centre = face(0.3, -0.2, 0.1)
    samples = np.tile(centre, (4000, 1))
    samples[:, HEAD] += 0.3 * spread[HEAD] * np.random.default_rng(0).normal(size=(4000, 3))
    turned = np.stack([turn_image(sample, 0.7)[HEAD] for sample in samples])
    assert turn_spread(centre, 0.3 * spread, 0.7)[HEAD] == pytest.approx(turned.std(0), rel=0.05)
