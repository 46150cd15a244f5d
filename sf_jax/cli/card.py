"""The model card and the per-channel reliability of a model directory.

    sf-jax evaluate --model DIR --records sets/own sets/skins --out results
    sf-jax card DIR --evaluation results/evaluation.json --data data.md

Writes MODEL_CARD.md (data and licences, figures, channels, limits) and reliability.json, by which
`sf-jax predict` marks channels that the model cannot read. Both are replaced where they exist.
"""

import argparse
from pathlib import Path

from sf_jax.cli.arguments import Parser, UsageError


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="sf-jax card", description=__doc__)
    add = parser.add_argument
    add("model", type=Path, metavar="DIR", help="model directory")
    add("--evaluation", type=Path, required=True, metavar="FILE", help="what evaluate --out wrote")
    add("--data", type=Path, metavar="FILE", help="Markdown on training data and licences")
    add("--limits", type=Path, metavar="FILE", help="Markdown on further limits")
    return parser


def main(argv: list[str]) -> None:
    options = build_parser().parse_args(argv)
    if not (options.model / "config.json").is_file():
        raise UsageError("no model directory: it has no config.json", path=options.model)
    from sf_jax.media import small_files
    from sf_jax.reader import provenance
    from sf_jax.systems.semanticface import model_card

    evaluation = model_card.read_evaluation(options.evaluation)
    weights = provenance.verified(options.model, None).weights
    given = {"data": options.data, "limits": options.limits}
    texts = {
        name: None if path is None else small_files.read_text(path) for name, path in given.items()
    }
    for path in model_card.write(options.model, evaluation, weights, texts):
        print(path)
