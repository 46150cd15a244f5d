"""`sf-jax train NAME …`: runs `experiments/NAME.py`."""

import sys

from sf_jax.cli import recipes
from sf_jax.cli.report import failed


def main(argv: list[str]) -> int:
    """Runs a recipe, or lists them; 143 if the run was stopped by a signal."""
    if not argv or argv[0] in ("-h", "--help"):
        print(f"usage: sf-jax train EXPERIMENT …\n\nexperiments: {', '.join(recipes.names())}")
        return 0
    recipe = recipes.load(argv[0])
    from sf_jax.reader.loading import compilation_cache
    from sf_jax.train.checkpoint import CheckpointError
    from sf_jax.train.loop import Stopped, TrainingError

    compilation_cache()
    try:
        recipe.main(argv[1:])
    except Stopped as stopped:
        print(f"sf-jax: {stopped}", file=sys.stderr)
        return 143  # as a process that SIGTERM ended
    except (CheckpointError, TrainingError) as error:
        return failed([error])
    return 0
