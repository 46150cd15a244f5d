"""How well a model reads faces, beside every baseline.

    sf-jax evaluate                        the built-in head and drawings, of what is held out
    sf-jax evaluate --records sets/own sets/rigs    any directories of face records, each a set
    sf-jax evaluate --out results          writes evaluation.json and evaluation.md too
    sf-jax evaluate --records sets/own --predictions own.jsonl      answers of another system

Compared: zeros, the training mean, the per-channel training median, a direct-regression head on the
same vision features (trained on the same data), and the model's slot means and generated values.
Beside them: intervals by bootstrap over people, errors of vertices in millimetres and SSIM of
renders on the built-in head, how far the rationales agree with the generated values, how many faces
were found where the model frames them (a missed one counts as zeros), how many labels are in the
central 80 % of the model's distributions, and how far answers to an image and to JPEG copies of it
differ. Channels whose labels are not known have no part in any figure.

Files of predictions hold an answer for each record in order: a Live Link Face CSV (an empty row for
a face that was not found), JSON lines with the field "coefficients" (an object of channels and
numbers, or null), or the result lines of `swift infer`. A channel without a value counts as zero.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sf_jax.cli import loading
from sf_jax.cli.arguments import Parser, UsageError, former, model_arguments, named_sets, whole

if TYPE_CHECKING:  # it brings jax
    from sf_jax.reader.estimator import Model

BUILT = ("own", "drawings")  # sets that need no files


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="sf-jax evaluate",
        description=__doc__,
    )
    add = parser.add_argument
    add("--count", type=whole(1, 10**6), default=1000, help="faces of each set (default 1000)")
    add(
        "--records",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="directories of face records, each a set of its folder's name",
    )
    add(
        "--predictions",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="answers of another system in place of a model: a .csv or .jsonl file for each of "
        "--records",
    )
    add("--whole", action="store_true", help="read whole images, do not find and frame the face")
    model_arguments(parser, dtype=False)
    add("--no-rationale", dest="rationale", action="store_false", help="coefficients only")
    former(parser, "--no-words", dest="rationale", action="store_false")
    add(
        "--out",
        type=Path,
        help="folder for evaluation.json and evaluation.md, or a .json file: all figures and "
        "baselines, versions, and hashes of weights and records; neither may exist (default: "
        "printed only)",
    )
    add("--batch", type=whole(1, 10**4), default=50, help="images read together (default 50)")
    return parser


def _files(out: Path) -> tuple[Path, Path]:
    """The JSON and the Markdown file to write.

    Raises:
      UsageError: one of them exists, or `out` is another kind of file.
    """
    if out.suffix.lower() != ".json":
        if out.exists() and not out.is_dir():
            raise UsageError("--out is a folder or a .json file", path=out)
        out = out / "evaluation.json"
    files = out, out.with_suffix(".md")
    for file in files:
        if os.path.lexists(file):
            raise UsageError("exists already; name another folder or file with --out", path=file)
    out.parent.mkdir(parents=True, exist_ok=True)
    return files


def _made(folder: Path, count: int) -> dict[str, Path]:
    """The sets that need no files, rendered below a folder."""
    from data_pipelines import evaluation_sets
    from data_pipelines.mixtures import Inputs

    for _ in evaluation_sets.write(folder, Inputs(), list(BUILT), count):
        pass
    return {name: folder / name for name in BUILT}


def _read(directory: Path, count: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The records of a set, and the hashes of its files.

    Raises:
      RecordError: they are damaged, or nothing in them can be measured.
    """
    from data_pipelines import records
    from data_pipelines.loader import RecordSource

    found = records.first(directory, count)
    if not any(record["known"].any() for record in found):
        problem = "no coefficient is known in these records, so there is nothing to measure"
        raise records.RecordError(problem, path=directory)
    return found, RecordSource(records.files(directory)).fingerprint().as_json()["files"]


def main(argv: list[str]) -> None:
    options = build_parser().parse_args(argv)
    predictions = options.predictions or []
    sets = named_sets(options.records or [])
    if predictions:
        _check_predictions(options, len(sets))
    written = None if options.out is None else _files(options.out)  # before the work
    from sf_jax.reader import readout
    from sf_jax.systems.semanticface import evaluate, evaluation_report

    model = None if predictions else _model(options)
    with tempfile.TemporaryDirectory() as scratch:
        sets = sets or _made(Path(scratch), options.count)
        given = {name: _read(directory, options.count) for name, directory in sets.items()}
    compared: dict[str, evaluate.Comparison] = {}
    found: dict[str, dict[str, Any]] = {}
    if model is None:
        answers = _predicted(predictions, [len(records) for records, _ in given.values()])
    for number, (name, (records, hashes)) in enumerate(given.items()):
        data: dict[str, Any] = {"record_files": hashes}
        data["records"] = str(sets[name]) if options.records else None
        if model is None:
            data["predictions"] = str(predictions[number])
            compared[name] = evaluate.compare_predictions(answers[number], records)
        else:
            how = options.rationale, options.batch, options.whole or None
            compared[name] = evaluate.compare(model, records, _folder(options) / readout.FILE, *how)
        found[name] = evaluation_report.set_json(compared[name], data)
    text = "\n\n".join(
        [
            *(evaluation_report.set_tables(each, name) for name, each in compared.items()),
            evaluation_report.overview(compared),
        ]
    )
    print(text)
    if written is not None:
        from sf_jax.media import files

        made_with = {"faces": sum(each.count for each in compared.values())}
        made_with |= {} if model is None else _made_with(options, model)
        files.write_json(written[0], evaluation_report.as_json(found, model, made_with))
        files.write_text(written[1], markdown(text))
        print(f"\nresults in {written[0]} and {written[1].name}")


def _check_predictions(options: argparse.Namespace, sets: int) -> None:
    """Raises UsageError where predictions are not all that is measured."""
    if len(options.predictions) != sets:
        count = len(options.predictions)
        raise UsageError(f"--predictions has {count} files for {sets} of --records")
    for name in ("model", "adapter", "whole"):
        if getattr(options, name):
            raise UsageError(f"--{name} does not go with --predictions")


def _predicted(paths: list[Path], counts: list[int]) -> list[Any]:
    from sf_jax.systems.semanticface import predictions

    return [predictions.read(path, count) for path, count in zip(paths, counts, strict=True)]


def _folder(options: argparse.Namespace) -> Path:
    from sf_jax.reader.loading import BUILTIN

    return options.model or BUILTIN


def _model(options: argparse.Namespace) -> "Model":
    """The model to measure.

    Raises:
      CheckpointError: it cannot be read.
      SchemaError: it does not give all channels.
    """
    from sf_jax.reader.schema import require_all_channels

    model = loading.load_model(_folder(options), options.adapter)
    require_all_channels(model.schema, _folder(options), "evaluation")
    return model


def _made_with(options: argparse.Namespace, model: "Model") -> dict[str, Any]:
    """How the answers of a model were made."""
    return {
        "model": None if options.model is None else str(options.model),
        "adapter": None if options.adapter is None else str(options.adapter),
        "rationale": options.rationale,
        "framed": model.frames(options.whole or None),
    }


def markdown(text: str) -> str:
    """Tables of a terminal as Markdown: as they are, in a block of code."""
    return f"# Evaluation\n\n```text\n{text}\n```\n"
