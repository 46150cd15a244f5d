"""`python -m data_pipelines COMMAND` is `sf-jax data COMMAND`."""

import importlib
import sys

if __name__ == "__main__":
    sys.exit(importlib.import_module("sf_jax.cli").main(["data", *sys.argv[1:]]))
