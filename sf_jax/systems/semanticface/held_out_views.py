"""Held-out faces framed as the reader frames them, for measuring a vision tower while it learns."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from data_pipelines import records, synthetic
from data_pipelines.views import Views, view
from sf_jax.face import landmarks, metrics


class HeldOutViews:
    """Views of face records in the square of their true landmarks."""

    def __init__(self, faces: Sequence[dict[str, Any]], views: Views):
        seen = [framed_view(face, views) for face in faces if face["known"].any()]
        self.images = [record["image"] for record in seen]
        self.sources = np.array([record["source"] for record in seen])
        self.labels = np.array([record["coefficients"] for record in seen])
        self.known = np.array([record["known"] for record in seen])

    def scores(
        self, predict: Callable[[list[np.ndarray]], Float[np.ndarray, "B 61"]]
    ) -> dict[str, float]:
        """Mean r over the 52 blendshapes, of each source by its name and of all of them."""
        predicted = predict(self.images)
        groups = {name: self.sources == name for name in sorted(set(self.sources.tolist()))}
        groups["all"] = np.ones(len(self.images), bool)
        return {
            f"r_52/{name}": metrics.evaluate(
                predicted[of], self.labels[of], self.known[of]
            ).summary()["r_52"]
            for name, of in groups.items()
            if of.any()
        }


def framed_view(record: dict[str, Any], views: Views) -> dict[str, Any]:
    """The view of a record in the square of its true landmarks."""
    height, width = record["image"].shape[:2]
    square = landmarks.framing_square(record["landmarks"] * [width, height])
    return view(record, square, views)


def evaluation_views(folder: Path, count: int, views: Views) -> list[dict[str, Any]]:
    """Views of a folder's first records that have known channels, as `framed_view` gives them.

    Where there is no folder, the built-in head is rendered into it: people of the evaluation split.
    """
    if not folder.is_dir():
        synthetic.render(folder, count, split="evaluation")
    found = records.first(folder, count)
    return [framed_view(record, views) for record in found if record["known"].any()]
