"""TPU chips as Google Cloud's pages on each version give them."""

import re
from dataclasses import dataclass

from jax.sharding import Mesh


@dataclass(frozen=True)
class Chip:
    """One chip.

    Attributes:
      flops: dense bfloat16 operations per second.
      memory: bytes of HBM; bandwidth: of it, bytes per second.
      links: bytes per second between chips, all links of a chip together.
    """

    flops: float
    memory: float
    bandwidth: float
    links: float


CHIPS = {
    "v4": Chip(275e12, 32e9, 1228e9, 300e9),
    "v5e": Chip(197e12, 16e9, 819e9, 200e9),
    "v5p": Chip(459e12, 95e9, 2765e9, 600e9),
    "v6e": Chip(918e12, 32e9, 1640e9, 448e9),
}
# `device_kind`, the name that JAX reports, → the version.
KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
}


def chip_of(topology: str) -> Chip:
    """The chip of a topology such as "v5p:4x4x4".

    Raises:
      ValueError: it is of no known version, or does not name its sides.
    """
    name, _, sides = topology.partition(":")
    if name not in CHIPS:
        raise ValueError(f"topology {topology!r} is of none of {', '.join(CHIPS)}")
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sides):
        raise ValueError(f"topology {topology!r} names no sides, expected such as v5p:4x4x4")
    return CHIPS[name]


def peak_of(mesh: Mesh) -> float:
    """Operations per second of all devices of a mesh together, 0 where their kind is not known."""
    kinds = [device.device_kind for device in mesh.devices.flat]
    return sum(CHIPS[KINDS[kind]].flops if kind in KINDS else 0.0 for kind in kinds)


def sent_share(kind: str, devices: int) -> float:
    """Bytes that each of so many devices sends in a ring, for a byte of a collective's payload.

    The payload is the result of an all-gather, and the operand of anything else.
    """
    if kind == "all-reduce":
        return 2 * (devices - 1) / devices
    return 1.0 if kind == "collective-permute" else (devices - 1) / devices
