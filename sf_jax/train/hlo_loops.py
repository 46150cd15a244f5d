"""How often the loops of a compiled XLA program run."""

import re
from dataclasses import dataclass
from typing import NamedTuple

from sf_jax.train.hlo_text import Instruction, Module

SAME_VALUE = frozenset("copy copy-start copy-done bitcast reshape convert opt-barrier".split())
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


@dataclass(frozen=True)
class Loop:
    """A while loop; `trips` is None, and the body counted once, where they could not be found."""

    name: str
    trips: int | None
    source: str  # "stated" by the compiler, "derived" from the loop's counter, or "unknown"
    op_name: str


def loop_of(module: Module, loop: Instruction) -> Loop:
    """How often a while loop of a program runs, stated by the compiler or derived."""
    if stated := _TRIPS.search(loop.line, loop.start):
        return Loop(loop.name, int(stated[1]), "stated", loop.op_name)
    trips = _Counters(module).trips(loop)
    return Loop(loop.name, trips, "unknown" if trips is None else "derived", loop.op_name)


class _Linear(NamedTuple):
    """`offset`, added to an element of the state of the innermost loop where one is named."""

    element: int | None
    offset: int


def _steps(first: int, last: int, step: int, direction: str) -> int | None:
    """How often `step` is added to `first` while it compares to `last` in this direction."""
    if direction in ("GT", "GE"):
        first, last, step = -first, -last, -step
    if direction in ("LE", "GE"):
        last += 1
    if direction == "NE":
        passes, rest = divmod(last - first, step) if step else (-1, 0)
        return passes if passes >= 0 and not rest else None
    if direction == "EQ" or step <= 0:
        return None
    return max(0, -((first - last) // step))


class _Counters:
    """Derives trip counts from the counters of loops."""

    def __init__(self, module: Module) -> None:
        self.computations, self.roots = module.computations, module.roots
        self.callers = module.callers

    def trips(self, loop: Instruction) -> int | None:
        """From a counter that a constant is added to until it passes another."""
        within = loop.called("condition")[0]
        test = self.roots.get(within)
        while test and test.opcode == "fusion":
            within = test.called("calls")[0]
            test = self.roots.get(within)
        if not test or test.opcode != "compare":
            return None
        sides = [self._linear(within, name) for name in test.operands()]
        direction = test.attribute("direction")
        if sides[0] and self._fixed(loop, sides[0]) is not None:
            sides.reverse()
            direction = {"LT": "GT", "GT": "LT", "LE": "GE", "GE": "LE"}.get(direction, direction)
        counter, limit = sides
        if not counter or not limit or counter.element is None:
            return None
        last = self._fixed(loop, limit)
        first = self._initial(loop, counter.element)
        step = self._next(loop, counter.element)
        if last is None or first is None or not step or step.element != counter.element:
            return None
        return _steps(first + counter.offset, last, step.offset, direction)

    def _linear(self, computation: str, name: str) -> _Linear | None:
        """A whole number: a constant, or one of the loop's state that a constant is added to."""
        it = self.computations[computation][name]
        operands = it.operands()
        if it.opcode == "constant":
            value = it.argument()
            return _Linear(None, int(value)) if re.fullmatch(r"-?\d+", value) else None
        if it.opcode == "parameter":
            outside, caller = self.callers.get(computation, ("", it))
            if caller.opcode == "fusion":
                return self._linear(outside, caller.operands()[int(it.argument())])
        elif it.opcode in SAME_VALUE:
            return self._linear(computation, operands[0])
        elif it.opcode == "get-tuple-element":
            return self._element(computation, operands[0], int(it.attribute("index")))
        elif it.opcode in ("add", "subtract"):
            a, b = (self._linear(computation, operand) for operand in operands)
            if a and b and it.opcode == "subtract":
                return _Linear(a.element, a.offset - b.offset) if b.element is None else None
            if a and b and (a.element is None or b.element is None):
                return _Linear(b.element if a.element is None else a.element, a.offset + b.offset)
        elif it.opcode == "fusion":
            called = it.called("calls")[0]
            return self._linear(called, self.roots[called].name)
        return None

    def _element(self, computation: str, name: str, index: int) -> _Linear | None:
        """Of a tuple."""
        it = self.computations[computation][name]
        if it.opcode == "tuple":
            return self._linear(computation, it.operands()[index])
        if it.opcode in SAME_VALUE:
            return self._element(computation, it.operands()[0], index)
        if it.opcode == "parameter":
            outside, caller = self.callers.get(computation, ("", it))
            if caller.opcode == "while":
                return _Linear(index, 0)
            if caller.opcode == "fusion":
                return self._element(outside, caller.operands()[int(it.argument())], index)
        elif it.opcode == "fusion":
            called = it.called("calls")[0]
            return self._element(called, self.roots[called].name, index)
        elif it.opcode == "while" and self._next(it, index) == _Linear(index, 0):
            return self._element(computation, it.operands()[0], index)
        return None

    def _next(self, loop: Instruction, index: int) -> _Linear | None:
        """An element of the state after a pass, from what it was before."""
        body = loop.called("body")[0]
        return self._element(body, self.roots[body].name, index)

    def _initial(self, loop: Instruction, index: int) -> int | None:
        """An element of the state before the first pass."""
        body = loop.called("body")[0]
        if body not in self.callers:
            return None
        outside = self.callers[body][0]
        found = self._element(outside, loop.operands()[0], index)
        if found and found.element is not None:
            return self._fixed(self.callers[outside][1], found)
        return found.offset if found else None

    def _fixed(self, loop: Instruction, value: _Linear) -> int | None:
        """A value that stays what it is while the loop runs."""
        if value.element is None:
            return value.offset
        if self._next(loop, value.element) != _Linear(value.element, 0):
            return None
        first = self._initial(loop, value.element)
        return None if first is None else first + value.offset
