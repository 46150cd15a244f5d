"""Reads a compiled XLA program: what one device does in one run, loops multiplied out.

XLA's own `cost_analysis` counts the body of a loop once. `analyse(compiled.as_text())` takes the
text of a scheduled and partitioned program, for a CPU or a TPU, and counts each body as often as it
runs.
"""

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace

from sf_jax.train.hlo_groups import group_of
from sf_jax.train.hlo_loops import Loop, loop_of
from sf_jax.train.hlo_products import convolution_operations, dot_operations
from sf_jax.train.hlo_text import Instruction, Module, Shape, shapes_of

__all__ = ["Collective", "Kernel", "Loop", "Program", "Shape", "analyse"]

COLLECTIVES = frozenset(
    "all-gather all-reduce reduce-scatter all-to-all ragged-all-to-all collective-permute"
    " collective-broadcast".split()
)
# Custom calls of a TPU's compiler that name or mark memory and compute nothing.
MARKERS = frozenset(
    "AllocateBuffer AssumeGatherIndicesInBound AsyncCollectiveStart AsyncCollectiveDone"
    " ConcatBitcast GatherScatterIndicesBitpacked PrepareAsyncCallStart PrepareAsyncCallDone"
    " Sharding".split()
)
_CHAIN = re.compile(r'chain_id="(\w+)"')
_COPY = re.compile(r"(\.(\d+|clone|remat\d*|sunk))+$")  # endings of names the compiler adds


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
    """Custom calls that are alike; the text does not hold what they compute: no products count."""

    name: str  # of the instruction, without the number after it; a Pallas kernel's own name
    target: str  # "tpu_custom_call" for a Pallas kernel
    operands: tuple[Shape, ...]
    results: tuple[Shape, ...]
    op_name: str
    count: int = 1  # executions in one run of the program


@dataclass(frozen=True)
class Program:
    """What one device does in one run of a program; of a conditional's branches the largest.

    Only dot products and convolutions count as floating-point operations, 2 for a product and the
    addition after it; elementwise work and custom calls do not.
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
    module = Module(text)
    analysis = _Analysis(module)
    work = analysis.work(module.entry)
    if lost := [chain for chain, started in analysis.chains.items() if not started]:
        raise ValueError(f"no start of the asynchronous collectives {', '.join(lost)}")
    collectives = [replace(each, count=count) for each, count in work.collectives.items()]
    kernels = [replace(each, count=count) for each, count in work.kernels.items()]
    return Program(
        work.floating_point_operations,
        tuple(sorted(collectives, key=lambda x: (-x.total_bytes, x.kind, x.op_name))),
        tuple(sorted(kernels, key=lambda x: (x.name, x.op_name))),
        tuple(analysis.loops.values()),
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


class _Analysis:
    """The work of a program's computations, each read once."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.loops: dict[str, Loop] = {}
        self.chains: defaultdict[str, bool] = defaultdict(bool)  # whether its start was found
        self._done: dict[str, _Work] = {}

    def work(self, computation: str) -> _Work:
        """What one run of this computation does, with all that it calls."""
        if computation in self._done:
            return self._done[computation]
        total = _Work()
        instructions = self.module.computations[computation]
        started = {
            name
            for each in instructions.values()
            if each.opcode == "custom-call" and each.target == "AsyncCollectiveStart"
            for name in each.operands()
        }
        for each in instructions.values():
            self._add(computation, each, each.name in started, total)
        self._done[computation] = total
        return total

    def _add(self, computation: str, it: Instruction, started: bool, total: _Work) -> None:
        """Adds one instruction's work; `started`: it starts an asynchronous collective of a TPU."""
        opcode = it.opcode.removesuffix("-start")
        if opcode in ("dot", "convolution"):
            left, right = (self.module.shapes(computation, name)[0] for name in it.operands()[:2])
            product = dot_operations if opcode == "dot" else convolution_operations
            total.floating_point_operations += product(it, left, right)
        elif opcode in COLLECTIVES:
            # A TPU spreads a collective over the fusions beside it, and all of them name it.
            chain = _CHAIN.search(it.line, it.start)
            if chain:
                self.chains[chain[1]] |= started
            if not chain or started:
                total.collectives[self._collective(computation, it, started)] += 1
        elif opcode == "custom-call":
            self._custom_call(computation, it, total)
        elif opcode in ("infeed", "outfeed"):
            total.host_transfers += 1
        elif opcode in ("send", "recv"):
            total.host_transfers += "is_host_transfer=true" in it.line
        else:
            self._add_called(computation, it, opcode, total)

    def _add_called(self, computation: str, it: Instruction, opcode: str, total: _Work) -> None:
        """Adds the work of the computations that an instruction calls."""
        if opcode == "while":
            loop = self.loops[f"{computation} {it.name}"] = loop_of(self.module, it)
            for called in it.called("body", "condition"):
                total.add(self.work(called), 1 if loop.trips is None else loop.trips, "", False)
        elif opcode == "conditional":
            branches = it.called("branch_computations", "true_computation", "false_computation")
            largest = max((self.work(name) for name in branches), key=_Work.size)
            total.add(largest, 1, it.op_name, False)
        elif opcode in ("fusion", "async", "call"):
            for called in it.called("calls", "to_apply"):
                name = self._origin(computation, it) if self.work(called).parts() else ""
                total.add(self.work(called), 1, name, it.opcode.endswith("-start"))

    def _collective(self, computation: str, it: Instruction, started: bool) -> Collective:
        kind = it.opcode.removesuffix("-start")
        payload = sum(
            shape.bytes for name in it.operands() for shape in self.module.shapes(computation, name)
        )
        group = group_of(it, self.module.devices)
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

    def _origin(self, computation: str, it: Instruction) -> str:
        """Its op_name, or that of the nearest instruction before it that has one."""
        instructions = self.module.computations[computation]
        visited = {it.name: it}
        for name in (queue := [it.name]):
            if found := instructions[name].op_name:
                return found
            for operand in instructions[name].operands():
                if operand not in visited:
                    visited[operand] = instructions[operand]
                    queue.append(operand)
        return ""

    def _custom_call(self, computation: str, it: Instruction, total: _Work) -> None:
        if "callback" in it.target:
            total.host_transfers += 1
        elif it.target not in MARKERS:
            name = _COPY.sub("", it.name)
            name = it.target if name.startswith("custom-call") else name
            operands = (self.module.shapes(computation, operand) for operand in it.operands())
            shapes = tuple(shape for given in operands for shape in given)
            kernel = Kernel(name, it.target, shapes, tuple(shapes_of(it.type)), it.op_name)
            total.kernels[kernel] += 1
