"""A share of a mixture as text."""

import math


def share_of(text: str) -> float | None:
    """A weight above 0; None where the text is no such number."""
    try:
        weight = float(text)
    except ValueError:
        return None
    return weight if 0 < weight < math.inf else None
