"""Rematerialisation: what a layer keeps for its gradient, and what is computed anew."""

from collections.abc import Callable

import jax

POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # keep products with weights
    "full": jax.checkpoint_policies.nothing_saveable,  # keep a layer's input alone
}


def rematerialised(layer: Callable, policy: str) -> Callable:
    """A layer that keeps only what `policy` says; "none" keeps everything.

    Raises:
      ValueError: there is no such policy.
    """
    if policy == "none":
        return layer
    if policy not in POLICIES:
        raise ValueError(f"remat policy {policy!r} is none of {['none', *POLICIES]}")
    # Layers are scanned: nothing moves between a layer's two computations.
    return jax.checkpoint(layer, policy=POLICIES[policy], prevent_cse=False)
