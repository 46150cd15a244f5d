"""How well a model reads faces, beside every baseline.

    sf-jax evaluate                     1,000 renders of people who are in no training image
    sf-jax evaluate --records DIR       any directory of face records

Compared: zeros, the training mean, the per-channel training median, a direct-regression head on the
same vision features (trained on the same data), and the model's slot means and generated values.
"""

import argparse
import tempfile
from pathlib import Path

from sf_jax.cli import loading
from sf_jax.cli.arguments import Parser, former, model_arguments, whole


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="sf-jax evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--count", type=whole(1, 10**6), default=1000, help="faces (default 1000)")
    add("--records", type=Path, help="directory of face records")
    model_arguments(parser, dtype=False)
    add("--no-rationale", dest="rationale", action="store_false", help="coefficients only")
    former(parser, "--no-words", dest="rationale", action="store_false")
    add("--batch", type=whole(1, 10**4), default=50, help="images read together (default 50)")
    return parser


def main(argv: list[str]) -> None:
    options = build_parser().parse_args(argv)
    from data_pipelines import records, synthetic
    from sf_jax.face import metrics
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
    readout = folder / "readout.safetensors"
    scores = evaluate.compare(model, found, readout, options.rationale, options.batch)
    print(f"{len(found)} faces; r and MAE over the 52 blendshapes (r_61: all channels)")
    print(metrics.table(scores))
    print("\nCorrelation by region")
    print(metrics.region_table(scores))
    print("\nBy channel: slot means")
    print(metrics.channel_table(scores))
