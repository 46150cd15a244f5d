"""What an answer is as text: a rationale, a blank line, then JSON; or JSON, then the rationale.

The JSON is an object of named numbers, or an array of such objects where the block repeats.
"""

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

RATIONALE_FIRST, VALUES_FIRST = ORDERS = ("rationale_first", "values_first")
MODE, MEDIAN = ESTIMATES = ("mode", "median")


class SchemaError(ValueError):
    """A schema that describes no object of numbers."""


@dataclass(frozen=True)
class Repeat:
    """How a block repeats: one or more objects in an array.

    Attributes:
      most: the bound; the model ends the array itself, after any object up to that many. None: it
        never does, and whoever generates says how many objects there are, as of the frames of a
        sound.
      window: how many of the objects before it an object may depend on, besides prompt and
        rationale; None: all of them. Memory is bounded by it.
      opening, separator, ending: the text around and between objects.

    Raises:
      SchemaError: the bound is below 2, the window below 1, or neither is given.
    """

    most: int | None = None
    window: int | None = None
    opening: str = "["
    separator: str = ", "
    ending: str = "]"

    def __post_init__(self) -> None:
        if self.most is None and self.window is None:
            raise SchemaError("a block that repeats without end needs a window")
        if self.most is not None and self.most < 2:
            raise SchemaError(f"most is {self.most}, expected 2 or more")
        if self.window is not None and self.window < 1:
            raise SchemaError(f"window is {self.window}, expected 1 or more")
        if not self.opening or not self.ending or self.separator == self.ending:
            raise SchemaError("opening and ending must be texts, and the separator another")


@dataclass(frozen=True)
class Schema:
    """Named numbers in order.

    Attributes:
      names: the keys of the JSON object.
      low, high: the range of each, inclusive. A sign is allowed where `low` is negative.
      decimals: digits after the point.
      groups: for a nested object, the key of the inner object that holds each number, and "" for
        one in the outer object; the numbers of a group follow each other. Empty: all flat.
      paragraphs: whether the rationale may hold blank lines. Before the block, it then ends where
        that begins, else at its first blank line; after the block, it ends with the answer.
      repeat: an array of such objects; None for a single object.
      order: what an answer begins with, one of `ORDERS`: the rationale, on which the values then
        depend, or the values, which the rationale then follows.
      estimate: which value a slot takes of its distribution where nothing is sampled, one of
        `ESTIMATES`: the likeliest, or the median, for which each value must be one token.

    Raises:
      SchemaError: lengths differ, a range is empty, a key is repeated, a group is split, values
        that repeat come first, or order or estimate is none of those known.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    decimals: int = 1
    groups: tuple[str, ...] = ()
    paragraphs: bool = False
    repeat: Repeat | None = None
    order: str = RATIONALE_FIRST
    estimate: str = MODE

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise SchemaError(f"order is {self.order!r}, expected one of {', '.join(ORDERS)}")
        if self.estimate not in ESTIMATES:
            found, known = self.estimate, ", ".join(ESTIMATES)
            raise SchemaError(f"estimate is {found!r}, expected one of {known}")
        if self.values_first and self.repeat is not None:
            raise SchemaError("an array of objects can only follow the rationale, not precede it")
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
            raise SchemaError("a key occurs twice in the same object")
        runs = [g for i, g in enumerate(self.groups) if g and (not i or self.groups[i - 1] != g)]
        if len(set(runs)) < len(runs):
            raise SchemaError("the numbers of a group must follow each other")

    @property
    def values_first(self) -> bool:
        """Whether an answer begins with its values."""
        return self.order == VALUES_FIRST

    def group(self, slot: int) -> str:
        """The key of the inner object that holds a slot, or ""."""
        return self.groups[slot] if self.groups else ""

    def values(self, slot: int) -> list[str]:
        """Every value that a slot may take, as text, ascending. "-0.0" is not among them."""
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
        """The text after the last slot of an object."""
        return "}}" if self.group(len(self.names) - 1) else "}"

    def symbols(self) -> list[str]:
        """Texts that a tokenizer made for this schema encodes as one token each."""
        values = {value for slot in range(len(self.names)) for value in self.values(slot)}
        keys = [self.key(i) for i in range(len(self.names))]
        if self.repeat is None:
            return keys + sorted(values) + [self.closing]
        around = [self.closing + self.repeat.separator, self.closing + self.repeat.ending]
        return [self.repeat.opening, *keys, *sorted(values), *around]

    def format(self, numbers: np.ndarray) -> str:
        """The JSON text of numbers [C], or [R, C] of a block that repeats, rounded."""
        if self.repeat is None:
            return self._object(numbers)
        objects = self.repeat.separator.join(map(self._object, numbers))
        return self.repeat.opening + objects + self.repeat.ending

    def _object(self, numbers: np.ndarray) -> str:
        texts = [f"{round(float(x), self.decimals) + 0.0:.{self.decimals}f}" for x in numbers]
        return "".join(self.key(i) + text for i, text in enumerate(texts)) + self.closing

    def json_schema(self) -> dict[str, Any]:
        """The answer as a JSON Schema, draft 2020-12.

        Values are listed, since `multipleOf` is at odds with binary fractions: 0.3 / 0.1 is not 3.
        The order of keys and the digits written are beyond that language.
        """
        objects, kinds = {"": _empty_object()}, {}
        for slot, name in enumerate(self.names):
            group, kind = self.group(slot), f"{self.low[slot]:g} to {self.high[slot]:g}"
            if group not in objects:
                objects[group] = _empty_object()
                objects[""]["properties"][group] = objects[group]
                objects[""]["required"].append(group)
            kinds[kind] = {"enum": [float(value) for value in self.values(slot)]}
            objects[group]["properties"][name] = {"$ref": f"#/$defs/{kind.replace(' ', '%20')}"}
            objects[group]["required"].append(name)
        whole = objects[""]
        if self.repeat is not None:
            whole = {"type": "array", "items": whole, "minItems": 1}
            whole |= {} if self.repeat.most is None else {"maxItems": self.repeat.most}
        root = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
        return root | whole | {"$defs": kinds}


def _empty_object() -> dict[str, Any]:
    return {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
