"""`python -m sf_jax` is `sf-jax`."""

import sys

from sf_jax.cli import main

sys.exit(main())
