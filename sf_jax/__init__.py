"""sf_jax: facial action estimation a person can read.

`load()` gives the built-in model, `model.predict(image)` a `FaceAction`: words and 61 coefficients.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["FaceAction", "Model", "load"]


def __getattr__(name: str) -> Any:
    """Imports the estimator, and with it jax, only when it is asked for."""
    if name in __all__:
        from sf_jax.reader import estimator

        return getattr(estimator, name)
    raise AttributeError(f"module 'sf_jax' has no attribute {name!r}")
