"""`schema.json`: the schema that a model's directory carries.

    {
      "decimals": 1,
      "paragraphs": false,
      "order": "rationale_first",
      "estimate": "mode",
      "slots": [{"name": "height", "low": 0, "high": 1, "group": "size"}, …],
      "repeat": {"most": 5, "window": null, "opening": "[", "separator": ", ", "ending": "]"}
    }

`group` is left out where the object is flat, `repeat` where it occurs once, `order` where the
rationale comes first, not "values_first", and `estimate` where the likeliest value is taken, not
the "median"; the fields are explained at `sf_jax.decode.schema.Schema`.
"""

import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from sf_jax.decode.schema import (
    ESTIMATES,
    MODE,
    ORDERS,
    RATIONALE_FIRST,
    Repeat,
    Schema,
    SchemaError,
)
from sf_jax.media import small_files
from sf_jax.media.errors import DataError
from sf_jax.media.files import write_json

FILE = "schema.json"
KNOWN = ("decimals", "paragraphs", "order", "estimate", "slots", "repeat")
OF_A_SLOT = ("name", "low", "high", "group")
MOST_DECIMALS = 6
MOST_VALUES = 2001  # of a slot: three decimals from -1 to 1, which take half a minute to compile


class SchemaFileError(DataError):
    """A `schema.json` that describes no schema; names the file and the field."""


def write_schema(folder: Path, schema: Schema) -> None:
    """Writes `schema.json` into a model's directory."""
    write_json(folder / FILE, to_dict(schema))


def read_schema(folder: Path) -> Schema | None:
    """The schema of a model's directory, None where it carries none.

    Raises:
      SchemaFileError: the file cannot be read, or a field is missing, unknown or out of range.
    """
    path = folder / FILE
    if not path.exists():
        return None
    content = small_files.read_json(path, SchemaFileError)
    try:
        return from_dict(content)
    except SchemaFileError as error:
        raise error.at(path=path) from error


def to_dict(schema: Schema) -> dict[str, Any]:
    """A schema as `schema.json` holds it."""
    slots = []
    for slot, name in enumerate(schema.names):
        entry: dict[str, Any] = {"name": name, "low": schema.low[slot], "high": schema.high[slot]}
        slots.append(entry | ({"group": schema.group(slot)} if schema.group(slot) else {}))
    content: dict[str, Any] = {"decimals": schema.decimals, "paragraphs": schema.paragraphs}
    content |= {"order": schema.order} if schema.values_first else {}
    content |= {"estimate": schema.estimate} if schema.estimate != MODE else {}
    content |= {"slots": slots}
    return content if schema.repeat is None else content | {"repeat": asdict(schema.repeat)}


def from_dict(content: Any) -> Schema:
    """The schema that `to_dict` wrote.

    Raises:
      SchemaFileError: names the field.
    """
    found = _object(content, "", KNOWN)
    entries = found.get("slots")
    if not isinstance(entries, list) or not entries:
        raise SchemaFileError("expected a list of one slot or more", field="slots")
    decimals = _whole(found.get("decimals", 1), "decimals", 0, MOST_DECIMALS)
    slots = [_slot(entry, f"slots[{number}]", decimals) for number, entry in enumerate(entries)]
    groups = tuple(slot["group"] for slot in slots)
    repeat = found.get("repeat")
    order = _one_of(ORDERS, found.get("order", RATIONALE_FIRST), "order")
    estimate = _one_of(ESTIMATES, found.get("estimate", MODE), "estimate")
    try:
        return Schema(
            names=tuple(slot["name"] for slot in slots),
            low=tuple(slot["low"] for slot in slots),
            high=tuple(slot["high"] for slot in slots),
            decimals=decimals,
            groups=groups if any(groups) else (),
            paragraphs=_boolean(found.get("paragraphs", False), "paragraphs"),
            repeat=None if repeat is None else _repeat(repeat),
            order=order,
            estimate=estimate,
        )
    except SchemaError as error:
        raise SchemaFileError(str(error), field="slots") from error


def _slot(entry: Any, where: str, decimals: int) -> dict[str, Any]:
    found = _object(entry, where, OF_A_SLOT)
    name, group = found.get("name"), found.get("group", "")
    for key, text in (("name", name), ("group", group)):
        if not isinstance(text, str) or (key == "name" and not text):
            raise SchemaFileError(f"found {text!r}, expected a text", field=f"{where}.{key}")
    low, high = (_number(found.get(key), f"{where}.{key}") for key in ("low", "high"))
    if high <= low:
        raise SchemaFileError(
            f"found {high:g}, expected more than low, {low:g}", field=f"{where}.high"
        )
    if (high - low) * 10**decimals >= MOST_VALUES:
        raise SchemaFileError(
            f"found {high:g}; from {low:g} on with {decimals} decimals there are more than the "
            f"{MOST_VALUES} values that a slot may have",
            field=f"{where}.high",
        )
    return {"name": name, "low": low, "high": high, "group": group}


def _repeat(content: Any) -> Repeat:
    known = tuple(one.name for one in fields(Repeat))
    found = _object(content, "repeat", known)
    for key in ("opening", "separator", "ending"):
        if key in found and not isinstance(found[key], str):
            raise SchemaFileError(f"found {found[key]!r}, expected a text", field=f"repeat.{key}")
    for key in ("most", "window"):
        if found.get(key) is not None:
            _whole(found[key], f"repeat.{key}", 1, 10**6)
    try:
        return Repeat(**found)
    except SchemaError as error:
        raise SchemaFileError(str(error), field="repeat") from error


def _object(content: Any, where: str, known: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise SchemaFileError(f"found {content!r:.60}, expected an object", field=where or None)
    for key in content:
        if key not in known:
            problem = f"no field of a schema; there are {', '.join(known)}"
            raise SchemaFileError(problem, field=f"{where}.{key}" if where else key)
    return content


def _number(value: Any, where: str) -> float:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    if not known or not math.isfinite(value):
        raise SchemaFileError(f"found {value!r:.60}, expected a number", field=where)
    return float(value)


def _whole(value: Any, where: str, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        problem = f"found {value!r:.60}, expected a whole number from {low} to {high}"
        raise SchemaFileError(problem, field=where)
    return value


def _one_of(known: tuple[str, ...], value: Any, where: str) -> str:
    if value not in known:
        raise SchemaFileError(f"found {value!r:.60}, expected {' or '.join(known)}", field=where)
    return value


def _boolean(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise SchemaFileError(f"found {value!r:.60}, expected true or false", field=where)
    return value
