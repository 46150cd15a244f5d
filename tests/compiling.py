"""How the programs of tests are compiled: with little effort, and once for all processes of a run.

Optimising CPU programs that run once takes most of a test's time, so by default XLA and LLVM
optimise as little as they can: the programs are the same, and compile in a third of the time.
`SF_JAX_TEST_OPTIMISE=1` compiles as users do; `make test-all` sets it. Workers of a run and the
processes that tests start share compiled programs through JAX's persistent cache, in a temporary
folder unless JAX_COMPILATION_CACHE_DIR names one.
"""

import os
import shutil
import tempfile
from collections.abc import Callable

import jax

OPTIMISE = os.environ.get("SF_JAX_TEST_OPTIMISE", "0") not in ("", "0")
LITTLE_EFFORT = (
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",
)
if jax.__version_info__ < (0, 11):  # XLA ends a process that names a flag it no longer has
    LITTLE_EFFORT += ("--xla_cpu_use_fusion_emitters=false",)
GIVEN = "SF_JAX_TEST_XLA_FLAGS"  # XLA_FLAGS as they were, for processes that need full effort


def flags(devices: int | None = None, optimise: bool = OPTIMISE) -> str:
    """XLA_FLAGS of a test process, of `devices` virtual devices where that is given."""
    chosen = [os.environ.get(GIVEN, "")] + ([] if optimise else list(LITTLE_EFFORT))
    if devices is not None:
        chosen.append(f"--xla_force_host_platform_device_count={devices}")
    return " ".join(filter(None, chosen))


def environment(devices: int | None = None, optimise: bool = OPTIMISE) -> dict[str, str]:
    """The environment of a process on a CPU that a test starts."""
    return os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags(devices, optimise)}


def share_programs() -> Callable[[], None]:
    """Shares compiled programs with other processes; returns what removes them again."""
    folder = None
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # else the user's or the parent process's
        folder = tempfile.mkdtemp(prefix="sf_jax-programs-")
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
    return lambda: shutil.rmtree(folder, ignore_errors=True) if folder else None


def set_flags() -> None:
    """For this process, whose backend has not started yet, and those that it starts."""
    os.environ.setdefault(GIVEN, os.environ.get("XLA_FLAGS", ""))
    os.environ["XLA_FLAGS"] = flags()
