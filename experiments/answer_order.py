"""Rationale first, values first, or both: which order reads faces better, and agrees with itself?

    sf-jax train answer_order --out runs/builtin
    sf-jax train answer_order --out runs/order --start sf_jax/builtin     goes on from a whole model

All arms start from the same model, that of the reading stage of the run in --out (made there if it
is missing) or the one in --start, and see the same images in the same order, for equal steps. The
arm that learns both orders is measured in both. Draft heads are learnt from each arm's own answers.
Writes a table to --results.
"""

import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from data_pipelines import synthetic
from sf_jax.cli import recipes
from sf_jax.cli.arguments import Parser, UsageError, whole
from sf_jax.convert import checksums, hf
from sf_jax.decode.schema import RATIONALE_FIRST, VALUES_FIRST
from sf_jax.face import agreement, metrics
from sf_jax.media import files
from sf_jax.reader import estimator, loading
from sf_jax.reader import readout as readout_file
from sf_jax.sequence.tokenizer import SentencePieceTokenizer
from sf_jax.systems.semanticface import evaluate, pretraining
from sf_jax.systems.semanticface.answer_states import learn_draft_heads
from sf_jax.systems.semanticface.dense_targets import initial_readout
from sf_jax.systems.semanticface.held_out_views import evaluation_views
from sf_jax.systems.semanticface.pretraining import JointTask
from sf_jax.systems.semanticface.recipe import Recipe, make_tokenizer
from sf_jax.train import mesh as meshes
from sf_jax.train.losses.joint import JointWeights
from sf_jax.train.step import TrainState

ARMS: dict[str, dict[str, Any]] = {
    "rationale first": {"values_first": 0.0, "words": 0.7},
    "values first": {"values_first": 1.0, "words": 1.0},
    "both": {"values_first": 0.5, "words": 0.7},
}  # changes to the recipe's sequences
MEASURED: dict[str, tuple[str, str]] = {
    "rationale first": ("rationale first", RATIONALE_FIRST),
    "values first": ("values first", VALUES_FIRST),
    "both, rationale first": ("both", RATIONALE_FIRST),
    "both, values first": ("both", VALUES_FIRST),
}  # row of the table → arm and order
RESULTS = Path(__file__).parent / "results"
COLUMNS = {
    "r (52)": "r_52",
    "MAE (52)": "mae_52",
    "active MAE": "active_mae",
    "levels exact": "exact",
    "within one": "within_one",
    "not mentioned": "missing",
    "emotion": "emotion",
    "rationales read": "read",
    "passes": "passes",
    "seconds": "seconds",
}
TIMED = 10  # answers


@dataclass(frozen=True)
class Run:
    """What all arms share.

    Attributes:
      out: folder of the run; folder: of this comparison in it.
    """

    recipe: Recipe
    out: Path
    folder: Path
    mesh: Mesh

    @property
    def data(self) -> Path:
        return self.out / "data" / "train"


def start_of(recipe: Recipe, out: Path, mesh: Mesh, start: Path | None) -> tuple[Recipe, Any]:
    """The recipe and the weights that all arms start from.

    A read-out of other landmarks than the recipe's cannot be trained on: the dense loss is left out
    then.
    """
    if start is None:
        tokenizer = make_tokenizer(recipe, out)
        state = pretraining.last_state(JointTask(recipe, tokenizer, True), mesh, out / "reading")
        return recipe, state.weights
    checksums.verify(start)
    out.mkdir(parents=True, exist_ok=True)
    SentencePieceTokenizer.load(start / SentencePieceTokenizer.file).save(out)
    _, weights = hf.load(start)
    objective = recipe.objective
    readout = initial_readout(recipe.vision, objective.readout, recipe.rare, recipe.seed)
    found = readout_file.load(start / readout_file.FILE)
    if jax.tree.map(np.shape, found) == jax.tree.map(np.shape, readout):
        readout = found
    else:
        print("the read-out in --start has other landmarks: training without the dense loss")
        recipe = replace(recipe, objective=replace(objective, dense=0.0))
    return recipe, JointWeights(weights, readout)


def train_arm(name: str, run: Run, weights: JointWeights, steps: int) -> TrainState:
    """Trains one arm for `steps`."""
    recipe = run.recipe
    stage = replace(recipe.language, optimizer=replace(recipe.language.optimizer, steps=steps))
    arm = replace(recipe, language=stage, sequences=replace(recipe.sequences, **ARMS[name]))
    folder = run.folder / name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(recipe, run.out)
    task = JointTask(arm, tokenizer)
    return pretraining.train_stage(task, weights, run.data, run.mesh, folder, name)


def model_of(row: str, run: Run, state: TrainState, draft_answers: int) -> estimator.Model:
    """The model of a row of the table, exported and loaded again."""
    recipe = replace(run.recipe, order=MEASURED[row][1])
    export = run.folder / "models" / row.replace(", ", "-").replace(" ", "-")
    JointTask(recipe, make_tokenizer(recipe, run.out)).export(state, export)
    if draft_answers:
        learn_draft_heads(run.data, draft_answers, recipe.views, recipe.draft_heads, export)
    return loading.load(export)


def measure(model: estimator.Model, found: list[dict]) -> dict[str, float]:
    """Accuracy of means, agreement of the rationales, passes and time of an answer."""
    labels = np.stack([record["coefficients"] for record in found])
    known = np.stack([record["known"] for record in found])
    images = [record["image"] for record in found]
    pictures = [model.framed(image, whole=True) for image in images]
    actions = evaluate.model_answers(model, pictures, min(50, len(images)), True)
    means = np.stack([action.coefficients for action in actions])
    agreed = agreement.total([action.agreement for action in actions])
    shares = {} if agreed is None else agreed.summary()
    seconds = []
    model.predict(images[0], whole=True)
    for image in images[:TIMED]:
        before = time.perf_counter()
        model.predict(image, whole=True)
        seconds.append(time.perf_counter() - before)
    return {
        **metrics.evaluate(means, labels, known).summary(),
        **shares,
        "read": 0.0 if agreed is None else agreed.rationales / len(found),
        "passes": float(np.mean([sum(action.passes.values()) for action in actions])),
        "seconds": statistics.median(seconds),
    }


def table(results: dict[str, dict[str, float]]) -> str:
    rows = [f"| arm | {' | '.join(COLUMNS)} |", "|---" * (1 + len(COLUMNS)) + "|"]
    for name, score in results.items():
        values = (score.get(key, float("nan")) for key in COLUMNS.values())
        rows.append(f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} |")
    return "\n".join(rows)


def main(argv: list[str] | None = None) -> None:
    parser = Parser(prog="sf-jax train answer_order", description=__doc__)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/builtin"), help="folder of the built-in model's run")
    add("--start", type=Path, help="exported model to go on from (default: the run's reading)")
    add("--tiny", action="store_true", help="a small model and few steps, in two minutes")
    add("--arms", nargs="+", choices=[*ARMS], default=[*ARMS], help="to train (default: all)")
    add("--results", type=Path, help="for the table (default: results/; with --tiny, OUT)")
    add("--steps", type=whole(1, 10**6), help="of each arm (default 600)")
    add("--batch", type=whole(2, 10**4), help="images of a step, twins included")
    add("--faces", type=whole(1, 10**6), help="evaluation faces (default 300)")
    add("--images", type=whole(1, 10**7), help="rendered faces (default: the recipe's)")
    add("--draft-answers", type=whole(0, 10**6), help="for draft heads (default 2,000; 0: none)")
    add("--records", type=Path, help="evaluation faces (default: the run's held-out ones)")
    options = parser.parse_args(argv)
    small = {"steps": 4, "faces": 4, "draft_answers": 4}
    usual = small if options.tiny else {"steps": 600, "faces": 300, "draft_answers": 2000}
    asked = {key: getattr(options, key) for key in usual}
    asked = {key: usual[key] if asked[key] is None else asked[key] for key in usual}
    builtin_model = recipes.load("builtin_model")
    recipe: Recipe = builtin_model.RECIPE
    recipe = builtin_model.tiny(recipe) if options.tiny else recipe
    recipe = replace(recipe, images=options.images or recipe.images)
    if options.batch:
        recipe = replace(recipe, language=replace(recipe.language, batch=options.batch))
    mesh, out = meshes.make(recipe.mesh), options.out
    if options.records is not None and not options.records.is_dir():
        raise UsageError("--records is a folder of face records", path=options.records)
    if options.start is not None:
        synthetic.render(out / "data" / "train", recipe.images)
    elif not (out / "reading" / "checkpoints").is_dir():
        stages = ("render", "warm-up", "reading")
        pretraining.run(recipe, out, stages, out / "model", mesh)
    recipe, weights = start_of(recipe, out, mesh, options.start)
    folder = options.records or out / "data" / "evaluation"
    found = evaluation_views(folder, asked["faces"], recipe.views)
    run = Run(recipe, out, out / f"answer_order-{asked['steps']}", mesh)
    scores = {}
    for name in options.arms:
        state = train_arm(name, run, weights, asked["steps"])
        for row in [row for row, (arm, _) in MEASURED.items() if arm == name]:
            scores[row] = measure(model_of(row, run, state, asked["draft_answers"]), found)
            print(table(scores))
    folder = options.results or (out if options.tiny else RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    command = f"sf-jax train answer_order --steps {asked['steps']} --faces {len(found)}"
    command += f" --batch {recipe.language.batch}" + (" --start MODEL" if options.start else "")
    content = {"command": command, "arms": ARMS, "results": scores}
    files.write_json(folder / "answer_order.json", files.finite(content))
    files.write_text(folder / "answer_order.md", f"`{command}`\n\n{table(scores)}\n")


if __name__ == "__main__":
    main()
