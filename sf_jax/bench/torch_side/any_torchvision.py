"""Imports torchvision where there is one, also one built for another torch."""

import importlib
import sys

MODULE = "torchvision.transforms.v2"


def import_torchvision() -> str | None:
    """To be called before transformers is imported, which looks for torchvision.

    A torchvision built for another torch lacks its compiled operators, which are looked up at
    import but not needed here.

    Returns:
      its version, None if there is none.
    """
    import torch

    try:
        importlib.import_module(MODULE)
    except ImportError:
        return None
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")
        importlib.import_module(MODULE)
    return str(sys.modules["torchvision"].__version__)
