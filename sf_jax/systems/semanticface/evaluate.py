"""How well a model reads faces, beside every baseline.

    sf-jax evaluate                     1,000 renders of people never trained on
    sf-jax evaluate --records DIR       any directory of face records

Compared: zeros, the training mean, the per-channel training median, a direct-regression head on the
same vision features (trained on the same data), and the model's slot means and spoken values.
"""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from data_pipelines import records, synthetic
from data_pipelines.sampler import sample
from experiments import builtin_model
from sf_jax.cli.arguments import Parser, whole
from sf_jax.face import channels, metrics
from sf_jax.reader import estimator
from sf_jax.train.losses import readout as warmup

TRAINING_FACES = 20_000  # from which mean and median are taken


def model_answers(
    model: estimator.Model, images: list[np.ndarray], batch: int, words: bool
) -> list[estimator.FaceAction]:
    """Actions of all pictures, in batches of one size (the last one filled up)."""
    actions: list[estimator.FaceAction] = []
    for start in tqdm(range(0, len(images), batch), desc="read", unit="batch"):
        part = images[start : start + batch]
        filled = part + part[-1:] * (batch - len(part))
        actions += model.predict_batch(filled, words=words)[: len(part)]
    return actions


def regression(model: estimator.Model, images: list[np.ndarray], file: Path) -> np.ndarray | None:
    """The direct-regression head on the model's own tower; None where it was not exported."""
    if not file.is_file():
        return None
    weights = warmup.WarmupWeights(
        model.weights.vision, builtin_model.load_readout(file, model.config)
    )

    @jax.jit
    def predict(patches):  # type: ignore[no-untyped-def]
        low = jnp.asarray(channels.LOW)
        return warmup.predict(weights, patches, low, model.config.vision, "float32")

    out = []
    for start in range(0, len(images), 50):
        part = images[start : start + 50]
        patches = model.inputs(part + part[-1:] * (50 - len(part)), words=False)[1]
        out.append(np.asarray(predict(patches))[: len(part)])
    return np.concatenate(out)


def compare(model: estimator.Model, found: list[dict], readout: Path, words: bool, batch: int):
    """Scores by name, and labels [N, 61]."""
    images = [record["image"] for record in found]
    labels = np.stack([record["coefficients"] for record in found])
    training = np.stack([sample(90_000_000 + i) for i in range(TRAINING_FACES)])
    guesses = metrics.baselines(training, len(labels))
    head = regression(model, images, readout)
    if head is not None:
        guesses["regression head"] = head
    actions = model_answers(model, images, batch, words)
    guesses["model, mean"] = np.stack([action.coefficients for action in actions])
    guesses["model, spoken"] = np.stack([action.answer for action in actions])
    return {name: metrics.evaluate(values, labels) for name, values in guesses.items()}


def main(argv: list[str] | None = None) -> None:
    parser = Parser(prog="sf-jax evaluate", description=__doc__)
    parser.add_argument("--count", type=whole(1, 10**6), default=1000)
    parser.add_argument("--records", type=Path, help="directory of face records")
    parser.add_argument("--model", type=Path, help="model directory (default: the built-in model)")
    parser.add_argument("--adapter", type=Path, help="directory of a LoRA adapter in PEFT's layout")
    parser.add_argument("--no-words", dest="words", action="store_false", help="numbers only")
    parser.add_argument("--batch", type=whole(1, 10**4), default=50)
    options = parser.parse_args(argv)
    folder = options.model or estimator.BUILTIN
    model = estimator.load(folder, options.adapter)
    with tempfile.TemporaryDirectory() as scratch:
        directory = options.records
        if directory is None:
            directory = Path(scratch)
            synthetic.render(directory, options.count, split="evaluation")
        found = records.first(directory, options.count)
    scores = compare(model, found, folder / "readout.safetensors", options.words, options.batch)
    print(f"{len(found)} faces; r and MAE over the 52 blendshapes (r_61: all channels)")
    print(metrics.table(scores))
    print("\nCorrelation by region")
    print(metrics.region_table(scores))
    print("\nBy channel: slot means")
    print(metrics.channel_table(scores))


if __name__ == "__main__":
    main()
