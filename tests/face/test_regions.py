"""Upper and lower face against independent lists of channels."""

import numpy as np
import pytest

from sf_jax.face import regions
from sf_jax.face.channels import MIRROR, NAMES


def names(region: regions.Region) -> set[str]:
    return {NAMES[i] for i in np.flatnonzero(regions.channels(region))}


def test_upper_face_is_brows_eyes_gaze_and_squinted_cheeks():
    upper = names("upper")
    assert len(upper) == 14 + 5 + 2 + 6
    assert {"BrowInnerUp", "EyeBlinkLeft", "LeftEyeRoll", "CheekSquintRight"} <= upper
    assert not any(name.startswith(("Jaw", "Mouth", "Nose", "Tongue", "Head")) for name in upper)


def test_lower_face_is_jaw_mouth_tongue_nose_and_puffed_cheeks():
    expected = {n for n in NAMES if n.startswith(("Jaw", "Mouth", "NoseSneer", "TongueOut"))}
    assert names("lower") == expected | {"CheekPuff"}


def test_parts_share_nothing_and_leave_the_head_angles():
    assert not names("upper") & names("lower")
    assert names("whole") == set(NAMES)
    assert names("whole") - names("upper") - names("lower") == {"HeadYaw", "HeadPitch", "HeadRoll"}


@pytest.mark.parametrize("region", regions.REGIONS)
def test_a_mirrored_face_has_the_same_regions(region):
    found = regions.channels(region)
    assert found.shape == (61,) and found.dtype == bool
    assert np.array_equal(found, found[MIRROR])


def test_an_unknown_region_is_refused():
    with pytest.raises(ValueError, match="'middle', expected one of upper, lower, whole"):
        regions.channels("middle")
