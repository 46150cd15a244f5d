"""`sf-jax schema`: the JSON Schema of the coefficients of an answer."""

import json

from sf_jax.cli.arguments import Parser


def main(argv: list[str]) -> None:
    parser = Parser(prog="sf-jax schema", description="The JSON Schema of an answer's numbers.")
    parser.parse_args(argv)
    from sf_jax.reader.estimator import SCHEMA

    print(json.dumps(SCHEMA.json_schema(), indent=2))
