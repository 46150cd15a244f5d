"""The benchmarks of `sf-jax bench`: one thing timed beside another in one run."""
