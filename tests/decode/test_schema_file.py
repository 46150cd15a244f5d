"""`schema.json`: written and read again, and refused by file and field."""

import json
from pathlib import Path
from typing import Any

import pytest

from sf_jax.decode.schema import MEDIAN, VALUES_FIRST, Repeat, Schema
from sf_jax.decode.schema_file import FILE, SchemaFileError, from_dict, read_schema, write_schema

FLAT = Schema(("a", "b"), (0.0, -1.0), (1.0, 1.0), decimals=2)
NESTED = Schema(("a", "b", "c"), (0.0,) * 3, (1.0, 0.5, 1.0), 1, ("", "in", "in"), True)


REPEATED = Schema(("a",), (0.0,), (1.0,), repeat=Repeat(most=5, window=2, separator=",\n"))
VALUES = Schema(("a",), (0.0,), (1.0,), order=VALUES_FIRST)
MEDIANS = Schema(("a",), (0.0,), (1.0,), estimate=MEDIAN)
ENDLESS = Schema(("a",), (0.0,), (1.0,), repeat=Repeat(window=8))


@pytest.mark.parametrize("schema", [FLAT, NESTED, REPEATED, ENDLESS, VALUES, MEDIANS])
def test_a_schema_is_read_as_it_was_written(schema: Schema, tmp_path: Path) -> None:
    assert read_schema(tmp_path) is None
    write_schema(tmp_path, schema)
    assert read_schema(tmp_path) == schema
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def content(**changes: Any) -> dict:
    slots = [{"name": "a", "low": 0, "high": 1}, {"name": "b", "low": -1, "high": 1}]
    return {"decimals": 1, "slots": slots} | changes


def slot(**changes: Any) -> dict:
    return content(slots=[{"name": "a", "low": 0, "high": 1} | changes])


def test_what_is_left_out_is_as_usual() -> None:
    schema = from_dict(content())
    assert schema == Schema(("a", "b"), (0.0, -1.0), (1.0, 1.0))


@pytest.mark.parametrize(
    "found, field, problem",
    [
        ([], None, "expected an object"),
        ({}, "slots", "expected a list of one slot or more"),
        (content(slots=[]), "slots", "expected a list of one slot or more"),
        (content(slots=["a"]), "slots[0]", "found 'a', expected an object"),
        (content(extra=1), "extra", "no field of a schema; there are decimals"),
        (slot(unit="m"), "slots[0].unit", "no field of a schema; there are name"),
        (slot(name=""), "slots[0].name", "found '', expected a text"),
        (slot(name=3), "slots[0].name", "found 3, expected a text"),
        (slot(group=3), "slots[0].group", "found 3, expected a text"),
        (slot(low="0"), "slots[0].low", "found '0', expected a number"),
        (slot(high=None), "slots[0].high", "found None, expected a number"),
        (slot(high=float("nan")), "slots[0].high", "expected a finite number"),
        (slot(high=0), "slots[0].high", "found 0, expected more than low, 0"),
        (content(decimals=1.5), "decimals", "found 1.5, expected a whole number from 0 to 6"),
        (content(decimals=7), "decimals", "found 7, expected a whole number from 0 to 6"),
        (content(order="first"), "order", "found 'first', expected rationale_first"),
        (content(estimate="mean"), "estimate", "found 'mean', expected mode or median"),
        (content(order=["values_first"]), "order", "expected rationale_first or values_first"),
        (
            content(order="values_first", repeat={"most": 3}),
            "slots",
            "an array of objects can only follow the rationale",
        ),
        (content(repeat=3), "repeat", "found 3, expected an object"),
        (content(repeat={"most": 0}), "repeat.most", "found 0, expected a whole number from 1"),
        (content(repeat={"opening": 3}), "repeat.opening", "found 3, expected a text"),
        (content(repeat={}), "repeat", "needs a window"),
        (content(repeat={"often": 3}), "repeat.often", "no field of a schema; there are most"),
        (content(paragraphs="no"), "paragraphs", "found 'no', expected true or false"),
        (content(slots=content()["slots"] * 2), "slots", "twice"),
    ],
)  # fmt: skip
def test_a_bad_file_names_file_and_field(
    found: Any, field: str | None, problem: str, tmp_path: Path
) -> None:
    (tmp_path / FILE).write_text(json.dumps(found))
    with pytest.raises(SchemaFileError) as error:
        read_schema(tmp_path)
    assert error.value.path == str(tmp_path / FILE) and error.value.field == field
    assert problem in error.value.problem and str(tmp_path / FILE) in str(error.value)


def test_a_file_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    with pytest.raises(SchemaFileError, match=r"schema\.json: not JSON"):
        read_schema(tmp_path)
