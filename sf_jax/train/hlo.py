"""Reads a compiled XLA program: what one device does in one run, loops multiplied out.

XLA's own `cost_analysis` counts the body of a loop once. `analyse(compiled.as_text())` takes the
text of a scheduled and partitioned program, for a CPU or a TPU, and counts each body as often as it
runs.
"""

import math
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from functools import cache
from typing import NamedTuple

import numpy as np

COLLECTIVES = frozenset(
    "all-gather all-reduce reduce-scatter all-to-all ragged-all-to-all collective-permute"
    " collective-broadcast".split()
)
# Custom calls of a TPU's compiler that name memory or mark places, and compute nothing.
MARKERS = frozenset(
    "AllocateBuffer AssumeGatherIndicesInBound AsyncCollectiveStart AsyncCollectiveDone"
    " ConcatBitcast GatherScatterIndicesBitpacked PrepareAsyncCallStart PrepareAsyncCallDone"
    " Sharding".split()
)
SAME_VALUE = frozenset("copy copy-start copy-done bitcast reshape convert opt-barrier".split())

_INSTRUCTION = re.compile(r"\s+(ROOT )?%?(\S+) = (\(.*?\)|\S+) ([a-z][a-z0-9-]*)\(")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.-]+) ")
_SHAPE = re.compile(r"(\w+)\[([\d,<=]*)\]")
_NAME = re.compile(r"%([\w.-]+)")
_OP_NAME = re.compile(r'op_name="((?:[^"\\]|\\.)*)"')
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_CHAIN = re.compile(r'chain_id="(\w+)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_COPY = re.compile(r"(\.(\d+|clone|remat\d*|sunk))+$")  # endings of names the compiler adds


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


@dataclass(frozen=True)
class Collective:
    """Collective operations that are alike.

    `payload_bytes` are those of one execution on one device: of the result of an all-gather, of the
    operands of any other kind. Over a ring of n devices each sends (n - 1) / n of it in an
    all-gather or reduce-scatter, twice that in an all-reduce, all of it in a collective-permute.
    """

    kind: str
    payload_bytes: int
    group: tuple[int, ...]  # partition numbers of the first of the groups that take part
    asynchronous: bool  # may overlap with computation
    op_name: str  # which line of the model it comes from, as JAX names it
    count: int = 1  # executions in one run of the program

    @property
    def group_size(self) -> int:
        return len(self.group)

    @property
    def total_bytes(self) -> int:
        """Payload of all executions."""
        return self.count * self.payload_bytes


@dataclass(frozen=True)
class Kernel:
    """Custom calls that are alike; what they compute cannot be seen, so no products are counted."""

    name: str  # of the instruction, without the number behind it; a Pallas kernel's own name
    target: str  # "tpu_custom_call" for a Pallas kernel
    operands: tuple[Shape, ...]
    results: tuple[Shape, ...]
    op_name: str
    count: int = 1  # executions in one run of the program


@dataclass(frozen=True)
class Loop:
    """A while loop; `trips` is None, and the body counted once, where they could not be found."""

    name: str
    trips: int | None
    source: str  # "stated" by the compiler, "derived" from the loop's counter, or "unknown"
    op_name: str


@dataclass(frozen=True)
class Program:
    """What one device does in one run of a program; of a conditional's branches the largest.

    Only dot products and convolutions count as floating-point operations, 2 for a product and the
    addition behind it; elementwise work and custom calls do not.
    """

    floating_point_operations: int
    collectives: tuple[Collective, ...]  # those that move most first
    kernels: tuple[Kernel, ...]
    loops: tuple[Loop, ...]
    host_transfers: int  # infeed, outfeed, send to and recv from the host, callbacks
    instructions: int  # lines of the program, whatever they run

    @property
    def unknown_loops(self) -> tuple[str, ...]:
        """Loops counted as if they ran once."""
        return tuple(loop.name for loop in self.loops if loop.trips is None)


def analyse(text: str) -> Program:
    """Reads `compiled.as_text()`."""
    module = _Module(text)
    work = module.work(module.entry)
    if lost := [chain for chain, started in module.chains.items() if not started]:
        raise ValueError(f"no start of the asynchronous collectives {', '.join(lost)}")
    collectives = [replace(each, count=count) for each, count in work.collectives.items()]
    kernels = [replace(each, count=count) for each, count in work.kernels.items()]
    return Program(
        work.floating_point_operations,
        tuple(sorted(collectives, key=lambda x: (-x.total_bytes, x.kind, x.op_name))),
        tuple(sorted(kernels, key=lambda x: (x.name, x.op_name))),
        tuple(module.loops.values()),
        work.host_transfers,
        sum(map(len, module.computations.values())),
    )


@dataclass(slots=True)
class _Work:
    """What a computation does, as `Program` has it."""

    floating_point_operations: int = 0
    collectives: Counter[Collective] = field(default_factory=Counter)
    kernels: Counter[Kernel] = field(default_factory=Counter)
    host_transfers: int = 0

    def add(self, other: "_Work", times: int, op_name: str, asynchronous: bool) -> None:
        """Adds what is called `times`; it gets the caller's name where it has none."""
        self.floating_point_operations += times * other.floating_point_operations
        self.host_transfers += times * other.host_transfers
        for collective, count in other.collectives.items():
            named = replace(
                collective,
                op_name=collective.op_name or op_name,
                asynchronous=collective.asynchronous or asynchronous,
            )
            self.collectives[named] += times * count
        for kernel, count in other.kernels.items():
            self.kernels[replace(kernel, op_name=kernel.op_name or op_name)] += times * count

    def parts(self) -> bool:
        """Whether anything in it has a name of its own."""
        return bool(self.collectives or self.kernels)

    def size(self) -> tuple[int, int, int, int]:
        moved = sum(x.payload_bytes * count for x, count in self.collectives.items())
        kernels = sum(self.kernels.values())
        return self.floating_point_operations, moved, kernels, self.host_transfers


@dataclass(slots=True, frozen=True)
class _Instruction:
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
        """What stands between the brackets: the value of a constant, the number of a parameter."""
        return self.line[self.start : self._end()]

    def attribute(self, key: str) -> str:
        """What stands behind `key=`, up to the next comma or within braces, or ""."""
        found = re.compile(rf"[ ,]{key}=(\{{[^}}]*\}}|[^,\s]*)").search(self.line, self.start)
        return found[1].strip("{}") if found else ""

    def called(self, *keys: str) -> list[str]:
        """Names of the computations behind these attributes."""
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


class _Module:
    """The computations of a program by name, each its instructions by name."""

    def __init__(self, text: str) -> None:
        self.computations: dict[str, dict[str, _Instruction]] = {}
        self.roots: dict[str, _Instruction] = {}
        self.entry = ""
        self.loops: dict[str, Loop] = {}
        self.chains: defaultdict[str, bool] = defaultdict(bool)  # whether its start was found
        self._done: dict[str, _Work] = {}
        within: dict[str, _Instruction] = {}
        name = ""
        for line in text.splitlines():
            if line.startswith(" "):
                if found := _INSTRUCTION.match(line):
                    root, own, type_, opcode = found.groups()
                    within[own] = _Instruction(own, type_, opcode, line, found.end())
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

    def work(self, computation: str) -> _Work:
        """What one run of this computation does, with all that it calls."""
        if computation in self._done:
            return self._done[computation]
        total = _Work()
        instructions = self.computations[computation]
        started = {
            name
            for each in instructions.values()
            if each.opcode == "custom-call" and each.target == "AsyncCollectiveStart"
            for name in each.operands()
        }
        for each in instructions.values():
            opcode = each.opcode.removesuffix("-start")
            if opcode in ("dot", "convolution"):
                left, right = (self._shapes(computation, name)[0] for name in each.operands()[:2])
                product = _dot if opcode == "dot" else _convolution
                total.floating_point_operations += product(each, left, right)
            elif opcode in COLLECTIVES:
                # A TPU spreads a collective over the fusions beside it, and all of them name it.
                chain = _CHAIN.search(each.line, each.start)
                if chain:
                    self.chains[chain[1]] |= each.name in started
                if not chain or each.name in started:
                    found = self._collective(computation, each, each.name in started)
                    total.collectives[found] += 1
            elif opcode == "custom-call":
                self._custom_call(computation, each, total)
            elif opcode in ("infeed", "outfeed"):
                total.host_transfers += 1
            elif opcode in ("send", "recv"):
                total.host_transfers += "is_host_transfer=true" in each.line
            elif opcode == "while":
                trips = self._loop(computation, each).trips
                for called in each.called("body", "condition"):
                    total.add(self.work(called), 1 if trips is None else trips, "", False)
            elif opcode == "conditional":
                branches = each.called(
                    "branch_computations", "true_computation", "false_computation"
                )
                largest = max((self.work(name) for name in branches), key=_Work.size)
                total.add(largest, 1, each.op_name, False)
            elif opcode in ("fusion", "async", "call"):
                for called in each.called("calls", "to_apply"):
                    name = self._origin(computation, each) if self.work(called).parts() else ""
                    total.add(self.work(called), 1, name, each.opcode.endswith("-start"))
        self._done[computation] = total
        return total

    def _shapes(self, computation: str, name: str) -> list[Shape]:
        return _shapes(self.computations[computation][name].type)

    def _collective(self, computation: str, it: _Instruction, started: bool) -> Collective:
        kind = it.opcode.removesuffix("-start")
        payload = sum(
            shape.bytes for name in it.operands() for shape in self._shapes(computation, name)
        )
        group = _group(it, self.devices)
        if kind == "all-gather":
            payload *= len(group)
        elif computation.startswith("all-reduce-scatter"):  # a TPU's, with the slice it keeps
            kind = "reduce-scatter"
        return Collective(
            kind,
            payload,
            group,
            started or it.opcode.endswith("-start"),
            self._origin(computation, it),
        )

    def _origin(self, computation: str, it: _Instruction) -> str:
        """Its op_name, or that of the nearest instruction behind its operands that has one."""
        instructions = self.computations[computation]
        seen = {it.name: it}
        for name in (queue := [it.name]):
            if found := instructions[name].op_name:
                return found
            for operand in instructions[name].operands():
                if operand not in seen:
                    seen[operand] = instructions[operand]
                    queue.append(operand)
        return ""

    def _custom_call(self, computation: str, it: _Instruction, total: _Work) -> None:
        if "callback" in it.target:
            total.host_transfers += 1
        elif it.target not in MARKERS:
            name = _COPY.sub("", it.name)
            name = it.target if name.startswith("custom-call") else name
            operands = (self._shapes(computation, operand) for operand in it.operands())
            shapes = tuple(shape for given in operands for shape in given)
            kernel = Kernel(name, it.target, shapes, tuple(_shapes(it.type)), it.op_name)
            total.kernels[kernel] += 1

    def _loop(self, computation: str, loop: _Instruction) -> Loop:
        if stated := _TRIPS.search(loop.line, loop.start):
            found = Loop(loop.name, int(stated[1]), "stated", loop.op_name)
        else:
            trips = self._trips(loop)
            source = "unknown" if trips is None else "derived"
            found = Loop(loop.name, trips, source, loop.op_name)
        self.loops[f"{computation} {loop.name}"] = found
        return found

    def _trips(self, loop: _Instruction) -> int | None:
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

    def _linear(self, computation: str, name: str) -> "_Linear | None":
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

    def _element(self, computation: str, name: str, index: int) -> "_Linear | None":
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

    def _next(self, loop: _Instruction, index: int) -> "_Linear | None":
        """An element of the state after a pass, from what it was before."""
        body = loop.called("body")[0]
        return self._element(body, self.roots[body].name, index)

    def _initial(self, loop: _Instruction, index: int) -> int | None:
        """An element of the state before the first pass."""
        body = loop.called("body")[0]
        if body not in self.callers:
            return None
        outside = self.callers[body][0]
        found = self._element(outside, loop.operands()[0], index)
        if found and found.element is not None:
            return self._fixed(self.callers[outside][1], found)
        return found.offset if found else None

    def _fixed(self, loop: _Instruction, value: "_Linear") -> int | None:
        """A value that stays what it is while the loop runs."""
        if value.element is None:
            return value.offset
        if self._next(loop, value.element) != _Linear(value.element, 0):
            return None
        first = self._initial(loop, value.element)
        return None if first is None else first + value.offset


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


def _shapes(type_: str) -> list[Shape]:
    return [
        Shape(dtype, tuple(int(size.lstrip("<=")) for size in sizes.split(",") if size))
        for dtype, sizes in _SHAPE.findall(type_)
    ]


def _dot(it: _Instruction, left: Shape, right: Shape) -> int:
    summed = [int(axis) for axis in it.attribute("lhs_contracting_dims").split(",") if axis]
    result = math.prod(_shapes(it.type)[0].dimensions)
    return 2 * result * math.prod(left.dimensions[axis] for axis in summed)


def _convolution(it: _Instruction, left: Shape, right: Shape) -> int:
    """Products with padding do not count: a TPU pads to write a product of batches as a window."""
    labels = re.split(r"_|->", it.attribute("dim_labels"))
    sizes = [
        dict(zip(axes, shape.dimensions, strict=True))
        for axes, shape in zip(labels, (left, right, _shapes(it.type)[0]), strict=True)
    ]
    products = sizes[2]["b"] * sizes[2]["f"] * sizes[1]["i"]
    window = dict(part.split("=") for part in it.attribute("window").split())

    def each(key: str, default: str) -> list[str]:
        axes = len(labels[0]) - 2
        return window[key].split("x") if key in window else [default] * axes

    strides, spread, kernel_spread = (
        [int(x) for x in each(key, "1")] for key in ("stride", "lhs_dilate", "rhs_dilate")
    )
    for axis, padding in enumerate(each("pad", "0_0")):
        left_size, right_size, result_size = (size[str(axis)] for size in sizes)
        products *= _pairs(
            left_size,
            right_size,
            result_size,
            strides[axis],
            int(padding.split("_")[0]),
            spread[axis],
            kernel_spread[axis],
        )
    return 2 * products


@cache
def _pairs(
    size: int, window: int, results: int, stride: int, padding: int, spread: int, window_spread: int
) -> int:
    """Pairs of a result's and a window's place that meet an input which is not padding."""
    places = np.arange(results) * stride - padding
    count = 0
    for offset in range(0, window * window_spread, window_spread):
        at = places + offset
        count += int(((at >= 0) & (at <= (size - 1) * spread) & (at % spread == 0)).sum())
    return count


def _numbers(text: str) -> list[int]:
    return [int(x) for x in re.findall(r"\d+", text)]


def _counted(text: str) -> np.ndarray:
    """Device numbers written as `[4,2]T(1,0)`, the places of a mesh in another order."""
    found = re.search(r"\[([\d,]*)\](?:T\(([\d,]*)\))?$", text)
    if not found:
        return np.array(_numbers(text))
    sizes = _numbers(found[1])
    order = _numbers(found[2]) if found[2] else range(len(sizes))
    return np.arange(math.prod(sizes)).reshape(sizes).transpose(order).reshape(-1)


def _group(it: _Instruction, devices: int) -> tuple[int, ...]:
    """The devices of the first group, from any of the ways in which groups are written."""
    if it.opcode.startswith("collective-permute"):
        found = re.search(r"source_target_pairs=\{(\{[\d,{}\s]*\})?\}", it.line)
        pairs = re.findall(r"(\d+),\s*(\d+)", found[1] or "") if found else []
        return _connected([(int(source), int(target)) for source, target in pairs])
    mesh = re.search(
        r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\((.*?\)?)\))? \{([^}]*)\}", it.line
    )
    if mesh:
        axes = {name: int(size) for name, size in re.findall(r"'([^']*)'=(\d+)", mesh[1])}
        places = _counted(mesh[2]) if mesh[2] else np.arange(math.prod(axes.values()))
        return _along(axes, places, mesh[3])
    counted = re.search(r"replica_groups=\[([\d,]*)\](<=\S*?\](?:T\([\d,]*\))?)", it.line)
    if counted:
        return tuple(_counted(counted[2])[: _numbers(counted[1])[-1]].tolist())
    listed = re.search(r"replica_groups=\{\{([\d,\s]*)\}", it.line)
    return tuple(_numbers(listed[1])) if listed else tuple(range(devices))


def _along(axes: dict[str, int], places: np.ndarray, named: str) -> tuple[int, ...]:
    """The devices along the named axes of a mesh, or along parts of them such as 'x':(2)4."""
    chosen = {name: [0] for name in axes}
    for name, before, size in re.findall(r"'([^']*)'(?::\((\d+)\)(\d+))?", named):
        count = int(size or axes[name])
        behind = axes[name] // (int(before or 1) * count)
        chosen[name] = [at + i * behind for at in chosen[name] for i in range(count)]
    grid = places.reshape(tuple(axes.values()))
    return tuple(grid[np.ix_(*chosen.values())].reshape(-1).tolist())


def _connected(pairs: list[tuple[int, int]]) -> tuple[int, ...]:
    """All devices between which something gets about, beginning with the first pair."""
    group = dict.fromkeys(pairs[0] if pairs else ())
    size = -1
    while len(group) > size:
        size = len(group)
        for pair in pairs:
            if pair[0] in group or pair[1] in group:
                group |= dict.fromkeys(pair)
    return tuple(group)
