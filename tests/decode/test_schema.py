"""Schemas: their text, what they refuse, and what they say in JSON Schema."""

import json

import jsonschema
import numpy as np
import pytest

import sf_jax
from sf_jax.cli import main
from sf_jax.decode.program import compile_program
from sf_jax.decode.schema import Schema, SchemaError
from sf_jax.reader.schema import channel_schema
from sf_jax.sequence.tokenizer import TokenizerError

SCHEMA = channel_schema()

NESTED = Schema(
    ("x", "jawOpen", "yaw", "pitch", "end"), (0.0, 0.0, -0.2, -1.0, 0.0), (0.3, 1.0, 0.2, 1.0, 1.0),
    decimals=2, groups=("", "mouth", "head", "head", ""),
)  # fmt: skip


def test_values() -> None:
    schema = Schema(("a", "b"), (0.0, -0.2), (0.3, 0.2))
    assert schema.values(0) == ["0.0", "0.1", "0.2", "0.3"]
    assert schema.values(1) == ["-0.2", "-0.1", "0.0", "0.1", "0.2"]
    assert schema.format(np.array([0.26, -0.04])) == '{"a": 0.3, "b": 0.0}'
    assert len(Schema(("a",), (-1.0,), (1.0,), decimals=3).values(0)) == 2001


def test_nested_text() -> None:
    text = NESTED.format(np.array([0.1, 1, -0.2, 0.456, 0]))
    assert text == (
        '{"x": 0.10, "mouth": {"jawOpen": 1.00}, "head": {"yaw": -0.20, "pitch": 0.46}, '
        '"end": 0.00}'
    )
    inner = Schema(("a",), (0.0,), (1.0,), groups=("g",))
    assert inner.format(np.array([0.5])) == '{"g": {"a": 0.5}}'


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"low": (0.0,)}, "equally long"),
        ({"names": ("a", "a")}, "twice"),
        ({"high": (-1.0, 1.0)}, "a: the range ends at -1.0"),
        ({"decimals": -1}, "decimals is -1"),
        ({"groups": ("g", "b")}, "twice|follow"),
    ],
)
def test_bad_schemas_are_refused(arguments: dict, reason: str) -> None:
    good = {"names": ("a", "b"), "low": (0.0, 0.0), "high": (1.0, 1.0)}
    if "groups" in arguments:
        Schema(**good | arguments)  # type: ignore[arg-type]
        torn = {"names": ("a", "b", "c"), "low": (0.0,) * 3, "high": (1.0,) * 3}
        with pytest.raises(SchemaError, match=reason):
            Schema(**torn, groups=("g", "", "g"))  # type: ignore[arg-type]
    else:
        with pytest.raises(SchemaError, match=reason):
            Schema(**good | arguments)  # type: ignore[arg-type]


def test_a_slot_with_one_value_is_refused() -> None:
    tokenizer = sf_jax.load().tokenizer
    with pytest.raises(TokenizerError, match="b can only be 0.5; leave it out"):
        compile_program(Schema(("a", "b"), (0.0, 0.5), (1.0, 0.5)), tokenizer)


def test_json_schema_takes_what_the_grammar_gives_and_nothing_else() -> None:
    generator = np.random.default_rng(0)
    for schema in (SCHEMA, NESTED):
        described = schema.json_schema()
        jsonschema.Draft202012Validator.check_schema(described)
        validator = jsonschema.Draft202012Validator(described)
        for _ in range(50):
            numbers = generator.uniform(schema.low, schema.high)
            validator.validate(json.loads(schema.format(numbers)))
        good = json.loads(schema.format(np.array(schema.low)))
        first = schema.names[0]
        lacking = {key: value for key, value in good.items() if key != first}
        wrong = (good | {first: 0.123}, good | {first: 7.0}, good | {first: "0.1"}, lacking)
        for bad in (*wrong, good | {"more": 0.0}):
            assert not validator.is_valid(bad)


def test_the_command_prints_it(capsys: pytest.CaptureFixture) -> None:
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA.json_schema()


def test_noise_for_scores_stays_within_the_schema() -> None:
    """At a temperature of 10,000 nothing but noise decides."""
    model = sf_jax.load()
    validator = jsonschema.Draft202012Validator(SCHEMA.json_schema())
    picture = np.random.default_rng(0).integers(0, 256, (96, 96, 3)).astype(np.uint8)
    seen = set()
    for first in (0, 50):
        inputs = model.inputs([picture] * 50)
        made = model.generate(
            *inputs, temperature=1e4, seed=list(range(first, first + 50)), decoding="sequential"
        )
        for action in model.actions(made, True):
            text = action.text[: action.text.index("}") + 1]
            validator.validate(json.loads(text))
            assert SCHEMA.format(action.answer) == text
            seen.add(text)
    assert len(seen) == 100
