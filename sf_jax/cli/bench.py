"""`sf-jax bench NAME …`: runs `sf_jax/bench/NAME.py`, which reads its own arguments."""

import importlib

from sf_jax.cli.arguments import UsageError

BENCHMARKS = (
    "annotate",
    "attention",
    "checkpoint",
    "decode",
    "finder",
    "flaws",
    "framing",
    "judging",
    "loader",
    "mediapipe_labels",
    "passes",
    "peers",
    "plans",
    "render",
    "serve",
    "train",
)


def main(argv: list[str]) -> None:
    """Runs a benchmark, or lists them.

    Raises:
      UsageError: there is none of that name.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: sf-jax bench NAME …\n\nbenchmarks: {', '.join(BENCHMARKS)}")
    elif argv[0] not in BENCHMARKS:
        raise UsageError(f"no benchmark {argv[0]!r}; there are {', '.join(BENCHMARKS)}")
    else:
        importlib.import_module(f"sf_jax.bench.{argv[0]}").main(argv[1:])
