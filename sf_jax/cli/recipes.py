"""The recipes of a checkout: `experiments/NAME.py`, which no wheel installs.

They are found beside the package, as in a checkout, or in the working directory.
"""

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import sf_jax
from sf_jax.cli.arguments import UsageError

PACKAGE = "experiments"
MARK = "sft.py"  # by which the folder is known


def folder() -> Path:
    """The folder of recipes.

    Raises:
      UsageError: neither the package nor the working directory is in a checkout.
    """
    beside = Path(str(sf_jax.__file__)).resolve().parents[1]
    for parent in (beside, Path.cwd()):
        if (parent / PACKAGE / MARK).is_file():
            return parent / PACKAGE
    raise UsageError(
        f"experiments are part of the repository: run this in a checkout (no {PACKAGE}/{MARK} in "
        f"{Path.cwd()})"
    )


def names() -> list[str]:
    """The recipes there are, in order.

    Raises:
      UsageError: see `folder`.
    """
    return sorted(path.stem for path in folder().glob("[a-z]*.py"))


def load(name: str) -> ModuleType:
    """The module of a recipe.

    Raises:
      UsageError: there is none of that name, another package is in the way, or see `folder`.
    """
    where = folder()
    if name not in names():
        raise UsageError(f"no experiment {name!r}; there are {', '.join(names())}")
    root = str(where.parent)
    if root not in map(os.path.abspath, sys.path):  # new processes inherit the path
        sys.path.append(root)
    module = importlib.import_module(f"{PACKAGE}.{name}")
    found = Path(str(module.__file__)).resolve()
    if found != (where / f"{name}.py").resolve():
        raise UsageError(f"another package named {PACKAGE} is in the way: {found}")
    return module
