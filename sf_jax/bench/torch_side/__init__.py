"""Scripts for a Python with torch and transformers: the other side of benchmarks and parity tests.

Such a Python runs them by path, so this folder is the first of its import path: no module here may
have the name of a library, and none imports jax or this package.
"""
