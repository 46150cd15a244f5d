"""What commands and benchmarks share: compiled programs kept on disk, and the model to run."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # jax takes seconds to import, which `sf-jax --help` need not wait for
    from sf_jax.reader.estimator import Model


def compilation_cache() -> None:
    """Keeps compiled programs between runs, so that a second run starts at once.

    They are in the folder of JAX_COMPILATION_CACHE_DIR, else in the user's cache.
    """
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        home = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
        jax.config.update("jax_compilation_cache_dir", os.path.join(home, "sf_jax", "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def load_model(
    directory: Path | None, adapter: Path | None = None, dtype: str | None = None
) -> "Model":
    """The model of a directory, by default the built-in one, compiled once a machine."""
    compilation_cache()
    from sf_jax.reader import estimator

    return estimator.load(directory, adapter, dtype=dtype)
