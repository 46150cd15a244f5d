"""How well a model reads faces, beside every baseline.

    sf-jax evaluate                     1,000 renders of people who are in no training image
    sf-jax evaluate --records DIR       any directory of face records
    sf-jax evaluate --out results       writes evaluation.json and evaluation.md too

Compared: zeros, the training mean, the per-channel training median, a direct-regression head on the
same vision features (trained on the same data), and the model's slot means and generated values.
Beside them: how far the rationales agree with the generated values.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sf_jax.cli import loading
from sf_jax.cli.arguments import Parser, UsageError, former, model_arguments, whole

if TYPE_CHECKING:
    from sf_jax.systems.semanticface.evaluate import Comparison


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="sf-jax evaluate",
        description=__doc__,
    )
    add = parser.add_argument
    add("--count", type=whole(1, 10**6), default=1000, help="faces (default 1000)")
    add("--records", type=Path, help="directory of face records")
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


def _tables(compared: "Comparison", count: int) -> str:
    from sf_jax.face import metrics
    from sf_jax.systems.semanticface.evaluate import agreement_line

    scores = compared.scores
    return "\n".join(
        [
            f"{count} faces; r and MAE over the 52 blendshapes (r_61: all channels)",
            metrics.table(scores),
            "",
            agreement_line(compared.agreement, count),
            "\nCorrelation by region",
            metrics.region_table(scores),
            "\nBy channel: slot means",
            metrics.channel_table(scores),
        ]
    )


def main(argv: list[str]) -> None:
    options = build_parser().parse_args(argv)
    written = None if options.out is None else _files(options.out)  # before the work
    from data_pipelines import records, synthetic
    from data_pipelines.loader import RecordSource
    from sf_jax.media import files
    from sf_jax.reader.loading import BUILTIN
    from sf_jax.reader.schema import require_all_channels
    from sf_jax.systems.semanticface import evaluate

    folder = options.model or BUILTIN
    model = loading.load_model(folder, options.adapter)
    require_all_channels(model.schema, folder, "evaluation")
    with tempfile.TemporaryDirectory() as scratch:
        directory = options.records
        if directory is None:
            directory = Path(scratch)
            synthetic.render(directory, options.count, split="evaluation")
        found = records.first(directory, options.count)
        fingerprint = RecordSource(records.files(directory)).fingerprint()
    readout = folder / "readout.safetensors"
    compared = evaluate.compare(model, found, readout, options.rationale, options.batch)
    text = _tables(compared, len(found))
    print(text)
    if written is None:
        return
    data = {
        "model": None if options.model is None else str(options.model),
        "adapter": None if options.adapter is None else str(options.adapter),
        "records": None if options.records is None else str(options.records),
        "record_files": fingerprint.as_json()["files"],
        "faces": len(found),
        "rationale": options.rationale,
    }
    files.write_json(written[0], evaluate.as_json(compared, model, data))
    files.write_text(written[1], text + "\n")
    print(f"\nresults in {written[0]} and {written[1].name}")
