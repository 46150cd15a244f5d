"""Do words help the numbers? Numbers only against words first, equal steps, data and start.

    sf-jax train words_before_numbers --out runs/builtin

All arms start from the same model, that of the reading stage of the run in --out (made there if it
is missing), which has read numbers off pictures and never met a word, and see the same pictures in
the same order. Writes the table and the plot to experiments/results/.
"""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from data_pipelines import records, synthetic
from experiments import builtin_model
from sf_jax.cli.arguments import Parser
from sf_jax.face import metrics
from sf_jax.media import files
from sf_jax.reader import estimator
from sf_jax.systems.semanticface import evaluate
from sf_jax.systems.semanticface.sequences import SequenceConfig
from sf_jax.train import optimizer

ARMS = {
    "numbers only": SequenceConfig(words=0.0),
    "words, then numbers": SequenceConfig(words=1.0, foreign_words=0.0),
    "words mixed in": SequenceConfig(),
}
RESULTS = Path(__file__).parent / "results"


def train_arm(name: str, recipe: builtin_model.Recipe, steps: int, out: Path) -> estimator.Model:
    """Trains one arm for `steps` and returns its model."""
    rate = dataclasses.replace(recipe.language, steps=steps)
    arm = dataclasses.replace(recipe, language=rate, sequences=ARMS[name])
    tokenizer = builtin_model.make_tokenizer(recipe, out)
    config = builtin_model.make_config(tokenizer)
    start = builtin_model.last_weights(
        builtin_model.initial_joint(config), optimizer.build(recipe.reading), out / "reading"
    )
    folder = out / f"words_before_numbers-{steps}" / name.replace(", ", "-").replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    weights = builtin_model.train_model(
        arm, "language", tokenizer, start, out / "data" / "train", folder
    )
    return estimator.Model(
        config, jax.device_get(weights.model), tokenizer, builtin_model.PROCESSOR
    )


def measure(model: estimator.Model, found: list[dict], words: bool) -> dict[str, float]:
    """Free-running scores of slot means."""
    labels = np.stack([record["coefficients"] for record in found])
    images = [record["image"] for record in found]
    actions = evaluate.model_answers(model, images, 50, words)
    means = np.stack([action.coefficients for action in actions])
    return dict(metrics.evaluate(means, labels).summary())


def table(results: dict[str, dict[str, float]]) -> str:
    rows = [
        "| arm | r (52) | r (61) | MAE (52) | active MAE | head ° |",
        "|---|---|---|---|---|---|",
    ]
    for name, score in results.items():
        keys = ("r_52", "r_61", "mae_52", "active_mae", "head_degrees")
        rows.append(f"| {name} | " + " | ".join(f"{score[key]:.3f}" for key in keys) + " |")
    return "\n".join(rows)


def plot(results: dict[str, dict[str, float]], path: Path) -> None:
    figure = Figure(figsize=(9, 3.6), facecolor="white", layout="constrained")
    for place, (key, title) in enumerate(
        (("r_52", "mean correlation, 52 blendshapes"), ("active_mae", "active MAE"))
    ):
        axes = figure.add_subplot(1, 2, place + 1)
        values = [score[key] for score in results.values()]
        bars = axes.barh(list(results), values, color=["#3b7dd8", "#d98a3b", "#6aa84f"], height=0.6)
        axes.bar_label(bars, fmt="%.3f", padding=3)
        axes.set_title(title, loc="left", fontsize=10)
        axes.invert_yaxis()
        axes.margins(x=0.18)
        axes.spines[["top", "right"]].set_visible(False)
        if place:
            axes.set_yticklabels([])
    with files.replacing(path) as file:
        FigureCanvasAgg(figure).print_figure(file, format="png", dpi=90)


def main(argv: list[str] | None = None) -> None:
    parser = Parser(prog="sf-jax train words_before_numbers", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/builtin"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--faces", type=int, default=300, help="evaluation faces")
    options = parser.parse_args(argv)
    recipe = builtin_model.Recipe()
    if not (options.out / "reading" / "checkpoints").is_dir():
        builtin_model.run(recipe, options.out, ("render", "warm-up", "reading"), estimator.BUILTIN)
    synthetic.render(options.out / "data" / "evaluation", options.faces, split="evaluation")
    found = records.first(options.out / "data" / "evaluation", options.faces)
    results = {}
    for name, sequences in ARMS.items():
        model = train_arm(name, recipe, options.steps, options.out)
        results[name] = measure(model, found, words=sequences.words > 0)
    RESULTS.mkdir(exist_ok=True)
    command = f"sf-jax train words_before_numbers --steps {options.steps} --faces {options.faces}"
    content = {"command": command, "results": results}
    files.write_json(RESULTS / "words_before_numbers.json", content)
    files.write_text(RESULTS / "words_before_numbers.md", f"`{command}`\n\n{table(results)}\n")
    plot(results, RESULTS / "words_before_numbers.png")
    print(table(results))


if __name__ == "__main__":
    main()
