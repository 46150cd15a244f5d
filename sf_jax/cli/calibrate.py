"""Finds how much wider the distributions of a model should be, on labelled faces.

    sf-jax data render --out faces --split train --seed 9 --count 4000 --rigs DIR --skins FILE
    sf-jax calibrate DIR --records faces

Writes calibration.json into the model directory: for each channel the share of a uniform
distribution that is mixed in, so that the central 80 % of a distribution hold about 80 % of the
labels. Coefficients stay what they are; spread, entropy and the coverage of `sf-jax evaluate`
change. Take faces that no figure is reported on.
"""

import argparse
from pathlib import Path

from sf_jax.cli import loading
from sf_jax.cli.arguments import Parser, UsageError, whole


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="sf-jax calibrate", description=__doc__)
    add = parser.add_argument
    add("model", type=Path, metavar="DIR", help="model directory")
    add("--records", type=Path, nargs="+", required=True, metavar="DIR", help="of face records")
    add("--count", type=whole(1, 10**6), default=4000, help="faces of each (default 4000)")
    add("--batch", type=whole(1, 10**4), default=50, help="images read together (default 50)")
    return parser


def main(argv: list[str]) -> None:
    options = build_parser().parse_args(argv)
    if not (options.model / "config.json").is_file():
        raise UsageError("no model directory: it has no config.json", path=options.model)
    from data_pipelines import records
    from sf_jax.reader import calibration
    from sf_jax.reader.schema import require_all_channels
    from sf_jax.systems.semanticface.calibrating import calibrate

    found = [one for each in options.records for one in records.first(each, options.count)]
    model = loading.load_model(options.model)
    require_all_channels(model.schema, options.model, "calibration")
    before, after = calibrate(model, found, options.model, options.batch)
    print("labels in the central 80 %   all    active")
    for name, one in (("as generated", before), ("calibrated", after)):
        print(f"{name:<27} {one.all:.3f}  {one.active:.3f}")
    print(options.model / calibration.FILE)
