"""How much effort XLA spends on the programs of tests.

Optimising CPU programs that run once takes most of a test's time, so by default XLA and LLVM
optimise as little as they can: the programs are the same, and compile in a third of the time.
`SF_JAX_TEST_OPTIMISE=1` compiles as users do; `make test-all` sets it.
"""

import os

OPTIMISE = os.environ.get("SF_JAX_TEST_OPTIMISE", "0") not in ("", "0")
LITTLE_EFFORT = (
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
)
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


def set_flags() -> None:
    """For this process, whose backend has not started yet, and those that it starts."""
    os.environ.setdefault(GIVEN, os.environ.get("XLA_FLAGS", ""))
    os.environ["XLA_FLAGS"] = flags()
