"""The regions of the face that are judged apart: upper and lower face.

Wrinkles beside the eyes and the lower lids belong to the upper face, so CheekSquint does too; what
moves the nostrils and the upper lip, NoseSneer, belongs to the lower face, as does CheekPuff.
The angles of the head move both, and are of the whole face alone.
"""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool

from sf_jax.face.channels import CHANNELS

Region = Literal["upper", "lower", "whole"]
REGIONS: tuple[Region, ...] = get_args(Region)
PARTS: tuple[Region, ...] = ("upper", "lower")  # that share no channel
_OF_PART: dict[str, Region] = {
    "brows": "upper",
    "eyes": "upper",
    "gaze": "upper",
    "jaw": "lower",
    "mouth": "lower",
    "tongue": "lower",
    "nose": "lower",
}  # by the region of the table of channels
_OF_CHEEK: dict[str, Region] = {
    "CheekSquintLeft": "upper",
    "CheekSquintRight": "upper",
    "CheekPuff": "lower",
}


def channels(region: Region) -> Bool[np.ndarray, "61"]:
    """Which channels, in canonical order, move a region of the face; all for "whole".

    Raises:
      ValueError: there is no such region.
    """
    if region not in REGIONS:
        raise ValueError(f"region is {region!r}, expected one of {', '.join(REGIONS)}")
    if region == "whole":
        return np.ones(len(CHANNELS), bool)
    return np.array([_OF_PART.get(c.region, _OF_CHEEK.get(c.name)) == region for c in CHANNELS])
