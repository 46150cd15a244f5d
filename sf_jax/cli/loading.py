"""The model that a command or benchmark runs."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # jax takes seconds to import, which `sf-jax --help` need not wait for
    from sf_jax.reader.estimator import Model


def load_model(
    directory: Path | None, adapter: Path | None = None, dtype: str | None = None
) -> "Model":
    """The model of a directory, by default the built-in one, compiled once a machine."""
    from sf_jax.reader import loading

    loading.compilation_cache()
    return loading.load(directory, adapter, dtype=dtype)
