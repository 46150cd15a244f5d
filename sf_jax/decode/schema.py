"""What an answer looks like as text: words, a blank line, then a JSON object of named numbers."""

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np


class SchemaError(ValueError):
    """A schema that describes no object of numbers."""


@dataclass(frozen=True)
class Schema:
    """Named numbers in order.

    Attributes:
      names: the keys of the JSON object.
      low, high: the range of each, inclusive. A sign is allowed where `low` is negative.
      decimals: digits after the point.
      groups: for a nested object, the key of the inner object that each number stands in, and ""
        for one in the outer object; the numbers of a group follow each other. Empty: all flat.
      paragraphs: whether the words may hold blank lines. They then end where the block begins, and
        else at their first blank line.

    Raises:
      SchemaError: lengths differ, a range is empty, a key is repeated or a group is torn apart.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    decimals: int = 1
    groups: tuple[str, ...] = ()
    paragraphs: bool = False

    def __post_init__(self) -> None:
        count = len(self.names)
        if not count or {len(self.low), len(self.high), len(self.groups) or count} != {count}:
            raise SchemaError("names, low, high and groups must be equally long, and not empty")
        if self.decimals < 0:
            raise SchemaError(f"decimals is {self.decimals}, expected 0 or more")
        for slot, name in enumerate(self.names):
            if self.high[slot] < self.low[slot]:
                raise SchemaError(f"{name}: the range ends at {self.high[slot]} before it begins")
        keys = [(self.group(slot), name) for slot, name in enumerate(self.names)]
        outer = {key for group, key in keys if not group}
        if len(set(keys)) < count or outer & set(self.groups):
            raise SchemaError("a key stands twice in the same object")
        runs = [g for i, g in enumerate(self.groups) if g and (not i or self.groups[i - 1] != g)]
        if len(set(runs)) < len(runs):
            raise SchemaError("the numbers of a group must follow each other")

    def group(self, slot: int) -> str:
        """The key of the inner object that a slot stands in, or ""."""
        return self.groups[slot] if self.groups else ""

    def values(self, slot: int) -> list[str]:
        """Every value that may stand in a slot, as text, ascending. "-0.0" is not among them."""
        step = Decimal(1).scaleb(-self.decimals)
        first = int((Decimal(str(self.low[slot])) / step).to_integral_value())
        last = int((Decimal(str(self.high[slot])) / step).to_integral_value())
        return [f"{i * step:.{self.decimals}f}" for i in range(first, last + 1)]

    def key(self, slot: int) -> str:
        """The fixed text between the slot before, or the beginning, and this one."""
        before, group = self.group(slot - 1) if slot else "", self.group(slot)
        text = "{" if slot == 0 else ("}" if before and before != group else "") + ", "
        opening = f"{json.dumps(group)}: {{" if group and group != before else ""
        return f"{text}{opening}{json.dumps(self.names[slot])}: "

    @property
    def closing(self) -> str:
        """The text after the last slot."""
        return "}}" if self.group(len(self.names) - 1) else "}"

    def symbols(self) -> list[str]:
        """Texts that a tokenizer made for this schema keeps whole."""
        values = {value for slot in range(len(self.names)) for value in self.values(slot)}
        return [self.key(i) for i in range(len(self.names))] + sorted(values) + [self.closing]

    def format(self, numbers: np.ndarray) -> str:
        """The JSON text of numbers [C], rounded to the schema's decimals."""
        texts = [f"{round(float(x), self.decimals) + 0.0:.{self.decimals}f}" for x in numbers]
        return "".join(self.key(i) + text for i, text in enumerate(texts)) + self.closing

    def json_schema(self) -> dict[str, Any]:
        """The object as a JSON Schema, draft 2020-12.

        Values are listed, since `multipleOf` is at odds with binary fractions: 0.3 / 0.1 is not 3.
        The order of keys and the digits written are beyond that language.
        """
        root: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
        root |= _empty_object() | {"$defs": {}}
        objects = {"": root}
        for slot, name in enumerate(self.names):
            group, kind = self.group(slot), f"{self.low[slot]:g} to {self.high[slot]:g}"
            if group not in objects:
                objects[group] = _empty_object()
                root["properties"][group] = objects[group]
                root["required"].append(group)
            root["$defs"][kind] = {"enum": [float(value) for value in self.values(slot)]}
            objects[group]["properties"][name] = {"$ref": f"#/$defs/{kind.replace(' ', '%20')}"}
            objects[group]["required"].append(name)
        return root


def _empty_object() -> dict[str, Any]:
    return {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
