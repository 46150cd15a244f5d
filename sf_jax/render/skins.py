"""Photo skins: people as a rig's identity coefficients and a colour for each of its vertices.

A file of them is a NumPy archive: `portrait`, text [N]; `identity`, [N, I] standard deviations
along the rig's identity directions; `colours`, uint8 [N, V, 3] sRGB by vertex; optionally
`fit_error_cm` [N]. `sf-jax data skins` makes one from portraits; `skin_looks.py` draws random
people from one.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, UInt8

from sf_jax.media import files
from sf_jax.media.errors import DataError
from sf_jax.media.npz_files import Declared, read_arrays
from sf_jax.render.rig import Rig
from sf_jax.render.skin_regions import Regions, regions

MOST_DEVIATIONS = 30.0  # of an identity coefficient; a fit's are within 5


class SkinsError(DataError):
    """A file of skins that cannot be used, or that another rig was used for."""


@dataclass(frozen=True)
class Skins:
    """The people of a file, for one rig.

    Attributes:
      portrait: names of the pictures that they were made from.
      identity: float32 [N, I], standard deviations.
      colours: uint8 [N, V, 3], sRGB.
      fit_error_cm: float32 [N], of the landmarks; NaN where not known.
      rig: whose vertices and identity directions they refer to.
    """

    portrait: tuple[str, ...]
    identity: Float[np.ndarray, "N I"]
    colours: UInt8[np.ndarray, "N V 3"]
    fit_error_cm: Float[np.ndarray, " N"]
    rig: Rig

    def __len__(self) -> int:
        return len(self.portrait)

    @cached_property
    def regions(self) -> Regions:
        """Masks of the rig, made at their first use (half a second)."""
        return regions(self.rig)

    def only(self, portraits: Collection[str]) -> "Skins":
        """Those made from the named portraits, in the order of the file.

        Raises:
          SkinsError: none of the names is here.
        """
        return self._some([name in portraits for name in self.portrait], portraits)

    def without(self, portraits: Collection[str]) -> "Skins":
        """All but those made from the named portraits.

        Raises:
          SkinsError: none is left.
        """
        return self._some([name not in portraits for name in self.portrait], portraits)

    def _some(self, keep: list[bool], portraits: Collection[str]) -> "Skins":
        if not any(keep):
            found, asked = ", ".join(self.portrait[:3]), ", ".join(sorted(portraits)[:3])
            raise SkinsError(f"no skin is left: there are {found}, …, asked for were {asked}, …")
        rows = np.flatnonzero(keep)
        some = replace(
            self,
            portrait=tuple(self.portrait[i] for i in rows),
            identity=self.identity[rows],
            colours=self.colours[rows],
            fit_error_cm=self.fit_error_cm[rows],
        )
        if "regions" in self.__dict__:  # masks are the rig's, and take a while
            some.__dict__["regions"] = self.regions
        return some


def read(path: str | os.PathLike, rig: Rig) -> Skins:
    """Reads a file of skins that were made for a rig.

    Raises:
      SkinsError: the file is missing, damaged or no such archive; there is no skin in it; or its
        numbers of vertices or identity directions are not the rig's. Names file and array.
    """
    arrays = read_arrays(
        path,
        {
            "portrait": Declared("text", ("skins",)),
            "identity": Declared("float", ("skins", "directions")),
            "colours": Declared("uint8", ("skins", "vertices", 3)),
            "fit_error_cm": Declared("float", ("skins",), optional=True),
        },
        SkinsError,
    )
    colours, identity = arrays["colours"], arrays["identity"].astype(np.float32)
    if not len(colours):
        raise SkinsError("there is no skin in it", path=path, field="portrait")
    for field, found, wanted in (
        ("colours", colours.shape[1], len(rig.neutral)),
        ("identity", identity.shape[1], len(rig.identity)),
    ):
        if found != wanted:
            what = "vertices" if field == "colours" else "identity directions"
            problem = f"{field} are of {found} {what}, the rig {rig.name} has {wanted}"
            raise SkinsError(f"{problem}; give the rig that the skins were made for", path=path)
    if np.abs(identity).max(initial=0) > MOST_DEVIATIONS:
        problem = f"expected at most {MOST_DEVIATIONS:g} standard deviations"
        raise SkinsError(
            f"holds {np.abs(identity).max():.3g}, {problem}", path=path, field="identity"
        )
    portrait = tuple(str(name) for name in arrays["portrait"])
    unknown = np.full(len(portrait), np.nan, np.float32)
    fit_error = arrays.get("fit_error_cm", unknown).astype(np.float32)
    return Skins(portrait, identity, colours, fit_error, rig)


def write(path: str | os.PathLike, skins: Skins) -> None:
    """Writes a file of skins, complete or not at all."""
    with files.replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            portrait=np.array(skins.portrait),
            identity=skins.identity.astype(np.float16),
            colours=skins.colours,
            fit_error_cm=skins.fit_error_cm.astype(np.float16),
        )
