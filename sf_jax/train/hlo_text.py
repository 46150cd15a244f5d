"""The text of a compiled XLA program: computations, instructions, and shapes."""

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

_INSTRUCTION = re.compile(r"\s+(ROOT )?%?(\S+) = (\(.*?\)|\S+) ([a-z][a-z0-9-]*)\(")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) ")
_SHAPE = re.compile(r"(\w+)\[([\d,<=]*)\]")
_NAME = re.compile(r"%([\w.-]+)")
_OP_NAME = re.compile(r'op_name="((?:[^"\\]|\\.)*)"')
_TARGET = re.compile(r'custom_call_target="([^"]*)"')


class Shape(NamedTuple):
    """Type and dimensions of an array, such as ("bf16", (8, 128))."""

    dtype: str
    dimensions: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Without padding to tiles."""
        width = re.match(r"[a-z]+(\d+)", self.dtype)
        bits = int(width[1]) if width else 8 if self.dtype == "pred" else 0
        return -(-math.prod(self.dimensions) * bits // 8)


def shapes_of(type_: str) -> list[Shape]:
    """The arrays of a type, several where it is a tuple."""
    return [
        Shape(dtype, tuple(int(size.lstrip("<=")) for size in sizes.split(",") if size))
        for dtype, sizes in _SHAPE.findall(type_)
    ]


@dataclass(slots=True, frozen=True)
class Instruction:
    """One line: `type` of its result, and `start`, where its operands begin."""

    name: str
    type: str
    opcode: str
    line: str
    start: int  # where its operands begin in the line

    def _end(self) -> int:
        depth = 1
        for bracket in re.compile(r"[()]").finditer(self.line, self.start):
            depth += 1 if bracket[0] == "(" else -1
            if depth == 0:
                return bracket.start()
        return len(self.line)

    def operands(self) -> list[str]:
        return _NAME.findall(self.line, self.start, self._end())

    def argument(self) -> str:
        """The text in brackets: the value of a constant, the number of a parameter."""
        return self.line[self.start : self._end()]

    def attribute(self, key: str) -> str:
        """The text after `key=`, up to the next comma or within braces, or ""."""
        found = re.compile(rf"[ ,]{key}=(\{{[^}}]*\}}|[^,\s]*)").search(self.line, self.start)
        return found[1].strip("{}") if found else ""

    def called(self, *keys: str) -> list[str]:
        """Names of the computations that these attributes give."""
        names = (re.split(r"[,\s]+", self.attribute(key)) for key in keys)
        return [name.lstrip("%") for group in names for name in group if name]

    @property
    def op_name(self) -> str:
        found = _OP_NAME.search(self.line, self.start)
        return found[1] if found else ""

    @property
    def target(self) -> str:
        found = _TARGET.search(self.line, self.start)
        return found[1] if found else ""


class Module:
    """The computations of a program by name, each its instructions by name."""

    def __init__(self, text: str) -> None:
        self.computations: dict[str, dict[str, Instruction]] = {}
        self.roots: dict[str, Instruction] = {}
        self.entry = ""
        within: dict[str, Instruction] = {}
        name = ""
        for line in text.splitlines():
            if line.startswith(" "):
                if found := _INSTRUCTION.match(line):
                    root, own, type_, opcode = found.groups()
                    within[own] = Instruction(own, type_, opcode, line, found.end())
                    if root:
                        self.roots[name] = within[own]
            elif line.endswith("{") and (header := _COMPUTATION.match(line)):
                name = header[2]
                within = self.computations[name] = {}
                if header[1]:
                    self.entry = name
        if not self.entry:
            raise ValueError("no ENTRY computation: this is not the text of a compiled program")
        header_line = text[: text.index("\n")]
        counts = re.findall(r"(?:num_partitions|replica_count)=(\d+)", header_line)
        self.devices = math.prod(map(int, counts))
        calls = [
            (called, (name, each))
            for name, instructions in self.computations.items()
            for each in instructions.values()
            if each.opcode in ("fusion", "while")
            for called in each.called("calls", "condition", "body")
        ]
        often = Counter(called for called, _ in calls)
        self.callers = {called: by for called, by in calls if often[called] == 1}

    def shapes(self, computation: str, name: str) -> list[Shape]:
        """Of the result of an instruction."""
        return shapes_of(self.computations[computation][name].type)
