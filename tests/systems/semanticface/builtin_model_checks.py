"""What the shipped model must hold, as functions that tests and people can run.

`python -m tests.systems.semanticface.builtin_model_checks` prints every figure (five minutes).
"""

import numpy as np

from data_pipelines import synthetic
from data_pipelines.sampler import sample
from sf_jax.face import answers, channels, metrics
from sf_jax.reader import estimator, loading
from sf_jax.render import rigs
from sf_jax.render.draw import draw
from sf_jax.render.rig import Rig
from sf_jax.render.scene import random_scene
from sf_jax.systems.semanticface.evaluate import model_answers
from tests.render import shared_rigs

BATCH = 40


def held_out(count: int) -> list[dict]:
    """Faces of people never trained on."""
    return [synthetic.face_record(i, 0, "evaluation") for i in range(count)]


def scores(model: estimator.Model, images: list[np.ndarray], labels: np.ndarray) -> metrics.Scores:
    actions = model_answers(model, images, BATCH, rationale=True)
    return metrics.evaluate(np.stack([action.coefficients for action in actions]), labels)


def ict_scores(model: estimator.Model, rig: Rig, count: int = 240) -> metrics.Scores:
    """Scores on renders of ICT-FaceKit, a head the model never saw. It has no tongue."""
    images, labels = [], []
    for i in range(count):
        seed = 7_000_000 + i
        face = sample(seed)
        face[channels.INDEX["TongueOut"]] = 0
        images.append(draw(rig, face, random_scene(seed, seed, len(rig.identity)), 96, 96).image)
        labels.append(face)
    return scores(model, images, np.stack(labels))


def mirror_agreement(model: estimator.Model, count: int = 200) -> tuple[float, float]:
    """Correlation between the answers to pictures and the mirrored answers to mirrored pictures:
    over all values of the 52 blendshapes at once, and the mean over channels."""
    images = [np.ascontiguousarray(record["image"]) for record in held_out(count)]
    flipped = [np.ascontiguousarray(image[:, ::-1]) for image in images]
    both = [
        np.stack([action.coefficients for action in model_answers(model, part, BATCH, True)])
        for part in (images, flipped)
    ]
    first, second = both[0][:, :52], channels.mirror(both[1])[:, :52]
    pooled = float(np.corrcoef(first.ravel(), second.ravel())[0, 1])
    return pooled, float(metrics.correlation(first, second).mean())


def violations(model: estimator.Model, count: int = 2000) -> int:
    """Sampled answers (temperature 1) that the strict parser refuses."""
    images = [record["image"] for record in held_out(BATCH)]
    refused = 0
    for seed in range(count // BATCH):
        for action in model.predict_batch(images, temperature=1.0, seed=seed):
            try:
                answers.parse(action.text)
            except answers.AnswerError:
                refused += 1
    return refused


def main() -> None:
    model = loading.load()
    print("mirror: pooled r, mean channel r:", mirror_agreement(model))
    print("grammar violations in 2,000 sampled answers:", violations(model))
    if (file := shared_rigs.FOLDER / "ict_facekit.npz").is_file():
        print(metrics.table({"ICT-FaceKit, 240 renders": ict_scores(model, rigs.load(file))}))
    else:
        print(f"ICT-FaceKit: skipped, {file} is not there")


if __name__ == "__main__":
    main()
