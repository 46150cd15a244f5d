"""What the shipped model must hold, as functions that tests and people can run.

`python -m tests.systems.semanticface.builtin_model_checks` prints every figure (five minutes).
"""

from functools import cache
from typing import Any

import numpy as np

from data_pipelines import mixtures
from data_pipelines.mixtures import Inputs
from sf_jax.face import answers, channels, metrics
from sf_jax.face.landmarks import framing_square
from sf_jax.media.crop import cut_square
from sf_jax.reader import estimator, loading
from sf_jax.systems.semanticface.evaluate import model_answers, zeros_where_missed
from tests.render import shared_rigs

BATCH = 40


@cache
def held_out(count: int, source: str = "builtin") -> list[dict[str, Any]]:
    """Faces of people, rigs and styles never trained on, with room around them.

    Args:
      source: as in a mixture; "rigs" are those of `shared_rigs`.
    """
    made = mixtures.build({source: 1}, Inputs(rigs=shared_rigs.FOLDER))
    made.check("evaluation")
    return [made.record(i, "evaluation") for i in range(count)]


def images_of(found: list[dict[str, Any]]) -> list[np.ndarray]:
    return [np.ascontiguousarray(record["image"]) for record in found]


def framed(count: int) -> list[np.ndarray]:
    """The same faces of the built-in head, framed as the reader frames a face."""
    images = []
    for record in held_out(count):
        height, width = record["image"].shape[:2]
        square = framing_square(record["landmarks"] * [width, height])
        place = square.x, square.y, square.side, square.roll
        images.append(cut_square(record["image"], *place, size=128))
    return images


def scores(model: estimator.Model, found: list[dict[str, Any]]) -> metrics.Scores:
    """Of faces found and framed by the model; one that is missed counts as zeros."""
    actions = model_answers(model, images_of(found), BATCH, rationale=False)
    labels, known = (np.stack([one[name] for one in found]) for name in ("coefficients", "known"))
    values = zeros_where_missed([action.coefficients for action in actions])
    return metrics.evaluate(values, labels, known)


def mirror_agreement(model: estimator.Model, count: int = 200) -> tuple[float, float]:
    """Correlation between the answers to pictures and the mirrored answers to mirrored pictures:
    over all values of the 52 blendshapes at once, and the mean over channels."""
    images = images_of(held_out(count))
    flipped = [np.ascontiguousarray(image[:, ::-1]) for image in images]
    both = [
        zeros_where_missed(
            [action.coefficients for action in model_answers(model, part, BATCH, False)]
        )
        for part in (images, flipped)
    ]
    first, second = both[0][:, :52], channels.mirror(both[1])[:, :52]
    pooled = float(np.corrcoef(first.ravel(), second.ravel())[0, 1])
    return pooled, float(metrics.correlation(first, second).mean())


def violations(model: estimator.Model, count: int = 2000) -> int:
    """Sampled answers (temperature 1) that the strict parser refuses."""
    images = framed(BATCH)
    refused = 0
    for seed in range(count // BATCH):
        for action in model.predict_batch(images, whole=True, temperature=1.0, seed=seed):
            try:
                answers.parse(action.text)
            except answers.AnswerError:
                refused += 1
    return refused


def main() -> None:
    model = loading.load()
    print("mirror: pooled r, mean channel r:", mirror_agreement(model))
    print("grammar violations in 2,000 sampled answers:", violations(model))
    sources = ["builtin", "drawn"]
    if shared_rigs.FOLDER.is_dir():
        sources.append("rigs")
    else:
        print(f"rigs: skipped, {shared_rigs.FOLDER} is not there")
    print(metrics.table({f"{name}, 240": scores(model, held_out(240, name)) for name in sources}))


if __name__ == "__main__":
    main()
