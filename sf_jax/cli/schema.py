"""`sf-jax schema`: the JSON Schema of the coefficients of an answer."""

import json
from pathlib import Path

from sf_jax.cli.arguments import Parser


def main(argv: list[str]) -> None:
    parser = Parser(prog="sf-jax schema", description=__doc__)
    parser.add_argument("--model", type=Path, help="model directory (default: the built-in model)")
    options = parser.parse_args(argv)
    from sf_jax.reader import loading

    print(json.dumps(loading.load_schema(options.model).json_schema(), indent=2))
