"""sf_jax: facial action estimation a person can read.

`load()` gives the built-in model, `model.predict(image)` a `FaceAction`: a rationale and 61
coefficients.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["FaceAction", "Model", "load"]


def __getattr__(name: str) -> Any:
    """Imports what is asked for, and with it jax, only then."""
    if name in __all__:
        from sf_jax.reader import action, estimator, loading

        return {"FaceAction": action.FaceAction, "Model": estimator.Model, "load": loading.load}[
            name
        ]
    raise AttributeError(f"module 'sf_jax' has no attribute {name!r}")
