"""Files of a model directory that hold what was measured of its weights, and of no others."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sf_jax.media import small_files
from sf_jax.media.errors import DataError


class Measured(small_files.Settings):
    """The fields that all of them have.

    Attributes:
      weights: hash of the weights that were measured; None where it was not known.
    """

    weights: str | None


Kind = TypeVar("Kind", bound=Measured)


def read(
    path: Path, kind: type[Kind], error: type[DataError], weights: Callable[[], str | None]
) -> Kind | None:
    """The content of a file.

    Args:
      weights: gives the hash of the weights that were loaded, where it is known; it may take long,
        so it is asked for only where there is a file.

    Returns:
      None where there is no such file, or one of other weights.

    Raises:
      DataError: of the class `error`: the file is damaged; names the field.
    """
    if not path.is_file():
        return None
    content = small_files.read_json(path, error)
    try:
        stored = small_files.checked(kind, content, error)
    except DataError as fault:
        raise fault.at(path=path) from None
    if stored.weights is not None and weights() not in (None, stored.weights):
        return None
    return stored
