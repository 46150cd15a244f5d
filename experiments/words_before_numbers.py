"""Does the rationale help the coefficients? Coefficients alone against the rationale first.

    sf-jax train words_before_numbers --out runs/builtin

All arms start from the same model, that of the reading stage of the run in --out (made there if it
is missing), which has read coefficients off images and never met a word, and see the same images in
the same order, for equal steps. Writes the table and the plot to --results.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sf_jax.cli import recipes
from sf_jax.cli.arguments import Parser, whole
from sf_jax.face import metrics
from sf_jax.media import files
from sf_jax.reader import estimator
from sf_jax.systems.semanticface import evaluate, pretraining
from sf_jax.systems.semanticface.held_out_views import evaluation_views
from sf_jax.systems.semanticface.pretraining import JointTask, Recipe
from sf_jax.train import mesh as meshes

ARMS: dict[str, dict[str, Any]] = {
    "numbers only": {"words": 0.0},
    "words, then numbers": {"words": 1.0, "foreign_words": 0.0},
    "words mixed in": {},
}  # changes to the recipe's sequences
RESULTS = Path(__file__).parent / "results"
COLUMNS = {
    "r (52)": "r_52",
    "r (61)": "r_61",
    "MAE (52)": "mae_52",
    "active MAE": "active_mae",
    "head °": "head_degrees",
}


def train_arm(name: str, recipe: Recipe, steps: int, out: Path, mesh: Mesh) -> estimator.Model:
    """Trains one arm for `steps` and returns its model."""
    stage = replace(recipe.language, optimizer=replace(recipe.language.optimizer, steps=steps))
    arm = replace(recipe, language=stage, sequences=replace(recipe.sequences, **ARMS[name]))
    tokenizer = pretraining.make_tokenizer(recipe, out)
    start = pretraining.last_state(JointTask(recipe, tokenizer, True), mesh, out / "reading")
    folder = out / f"words_before_numbers-{steps}" / name.replace(", ", "-").replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    trained = pretraining.train_stage(
        JointTask(arm, tokenizer), start.weights, out / "data" / "train", mesh, folder, name
    )
    weights = jax.device_get(trained.weights.model)
    return estimator.Model(
        recipe.config(tokenizer), weights, tokenizer, recipe.processor, instructed=False
    )


def measure(model: estimator.Model, found: list[dict], words: bool) -> dict[str, float]:
    """Free-running scores of slot means."""
    labels = np.stack([record["coefficients"] for record in found])
    known = np.stack([record["known"] for record in found])
    pictures = [model.framed(record["image"], whole=True) for record in found]
    actions = evaluate.model_answers(model, pictures, 50, words)
    means = np.stack([action.coefficients for action in actions])
    return dict(metrics.evaluate(means, labels, known).summary())


def table(results: dict[str, dict[str, float]]) -> str:
    rows = [f"| arm | {' | '.join(COLUMNS)} |", "|---" * (1 + len(COLUMNS)) + "|"]
    for name, score in results.items():
        values = " | ".join(f"{score[key]:.3f}" for key in COLUMNS.values())
        rows.append(f"| {name} | {values} |")
    return "\n".join(rows)


def plot(results: dict[str, dict[str, float]], path: Path) -> None:
    figure = Figure(figsize=(9, 3.6), facecolor="white", layout="constrained")
    titles = {"r_52": "mean correlation, 52 blendshapes", "active_mae": "active MAE"}
    for number, (key, title) in enumerate(titles.items()):
        axes = figure.add_subplot(1, 2, number + 1)
        values = [score[key] for score in results.values()]
        bars = axes.barh(list(results), values, color=["#3b7dd8", "#d98a3b", "#6aa84f"], height=0.6)
        axes.bar_label(bars, fmt="%.3f", padding=3)
        axes.set_title(title, loc="left", fontsize=10)
        axes.invert_yaxis()
        axes.margins(x=0.18)
        axes.spines[["top", "right"]].set_visible(False)
        if number:
            axes.set_yticklabels([])
    with files.replacing(path) as file:
        FigureCanvasAgg(figure).print_figure(file, format="png", dpi=90)


def main(argv: list[str] | None = None) -> None:
    parser = Parser(prog="sf-jax train words_before_numbers", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/builtin"), help="folder of the built-in model's run")
    add("--tiny", action="store_true", help="a small model and few steps, in two minutes")
    add("--results", type=Path, help="for table and plot (default: results/; with --tiny, OUT)")
    add("--steps", type=whole(1, 10**6), help="of each arm (default 300)")
    add("--faces", type=whole(1, 10**6), help="evaluation faces (default 300)")
    options = parser.parse_args(argv)
    steps, faces = (options.steps or 4, options.faces or 4) if options.tiny else (
        options.steps or 300, options.faces or 300
    )  # fmt: skip
    builtin_model = recipes.load("builtin_model")
    recipe: Recipe = builtin_model.RECIPE
    recipe = builtin_model.tiny(recipe) if options.tiny else recipe
    mesh, out = meshes.make(recipe.mesh), options.out
    if not (out / "reading" / "checkpoints").is_dir():
        stages = ("render", "warm-up", "reading")
        pretraining.run(recipe, out, stages, out / "model", mesh)
    found = evaluation_views(out / "data" / "evaluation", faces, recipe.views)
    scores = {}
    for name, changes in ARMS.items():
        model = train_arm(name, recipe, steps, out, mesh)
        scores[name] = measure(model, found, words=changes.get("words", 1.0) > 0)
    folder = options.results or (out if options.tiny else RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    command = f"sf-jax train words_before_numbers --steps {steps} --faces {faces}"
    content = {"command": command, "results": scores}
    files.write_json(folder / "words_before_numbers.json", files.finite(content))
    files.write_text(folder / "words_before_numbers.md", f"`{command}`\n\n{table(scores)}\n")
    plot(scores, folder / "words_before_numbers.png")
    print(table(scores))


if __name__ == "__main__":
    main()
