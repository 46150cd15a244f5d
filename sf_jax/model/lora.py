"""LoRA: low-rank additions to chosen linears of any declared model, trained beside a frozen base.

Linears that are stacked on a layer axis form a family, named like the module with "{}" for the
layer number. An adapter holds one `Pair` a family, stacked as the family is; where layers differ
in rank, or some are not chosen, the missing columns of a and rows of b are zeros. Those stay zero
in training: the gradient of either factor is a product with the other.

Every function takes the model's tree of declarations (`model.declared`), which names its linears.
`attach` adds an adapter to the weights for a forward pass, `merge` sums it into them. Only the
adapter is differentiated, so that neither gradient nor optimiser state exist for the base:

    jax.grad(lambda adapter: loss(attach(weights, adapter, declared), batch))(adapter)

Source: Hu et al., LoRA, 2021; Kalajdzievski, rank-stabilised LoRA, 2023. Modules, ranks and
alphas are chosen by the rules of PEFT, so that its configurations mean the same here.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.typing import DTypeLike
from jaxtyping import Array, Float, PyTree

from sf_jax.model.declared import Linear, T, Weight
from sf_jax.model.layers import require_stacked
from sf_jax.model.linear import AdaptedLinear, AnyLinear

ALL_LINEAR = "all-linear"
RANK = "rank"  # the logical axis that both factors share
V = TypeVar("V")
Chooser = str | tuple[str, ...]  # a regular expression for the whole name, or endings of names


def _chosen(chooser: Chooser, module: str) -> bool:
    if isinstance(chooser, str):
        return re.fullmatch(chooser, module) is not None
    return any(f".{module}".endswith(f".{ending}") for ending in chooser)


@dataclass(frozen=True)
class LoraConfig:
    """Which linears are adapted, and how. Modules are named as in Hugging Face checkpoints.

    Attributes:
      targets: "all-linear", a regular expression that fits a whole module name, or endings.
      rank: width of the bottleneck; alpha: the addition's factor is alpha / rank.
      rank_pattern, alpha_pattern: (regular expression for a name's ending, value) pairs; the first
        that fits overrides rank or alpha.
      rank_stabilised: the factor is alpha / sqrt(rank).
      exclude: modules left out although targeted.
      layers: numbers of the layers adapted, of modules chosen by endings; None means all.
      layers_pattern: names of the lists that `layers` counts in, such as "blocks"; empty means any.
    """

    targets: Chooser = ALL_LINEAR
    rank: int = 8
    alpha: float = 16.0
    rank_pattern: tuple[tuple[str, int], ...] = ()
    alpha_pattern: tuple[tuple[str, float], ...] = ()
    rank_stabilised: bool = False
    exclude: Chooser = ()
    layers: tuple[int, ...] | None = None
    layers_pattern: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for rank in (self.rank, *(rank for _, rank in self.rank_pattern)):
            if not isinstance(rank, int) or rank < 1:
                raise ValueError(f"rank is {rank!r}, expected a whole number of 1 or more")
        for alpha in (self.alpha, *(alpha for _, alpha in self.alpha_pattern)):
            if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not isfinite(alpha):
                raise ValueError(f"alpha is {alpha!r}, expected a number")
        patterns = [pattern for pattern, _ in (*self.rank_pattern, *self.alpha_pattern)]
        for pattern in (*self.layers_pattern, self.targets, self.exclude):
            if isinstance(pattern, str):
                _check_expression(pattern, pattern)
        for pattern in patterns:
            _check_expression(pattern, _ending(pattern))
        _check_expression(" and ".join(self.layers_pattern), self._layer_number())
        if isinstance(self.targets, str) and self.layers is not None:
            raise ValueError("layers go with a list of targets; a regular expression holds them")

    def rank_of(self, module: str) -> int:
        """The rank of a module's adapter, 0 where it has none."""
        return _fitting(self.rank_pattern, module, self.rank) if self.chooses(module) else 0

    def scale_of(self, module: str) -> float:
        """The factor of a module's addition, 0 where it has none."""
        rank = self.rank_of(module)
        alpha = _fitting(self.alpha_pattern, module, self.alpha)
        return alpha / (rank**0.5 if self.rank_stabilised else rank) if rank else 0.0

    def chooses(self, module: str) -> bool:
        if self.exclude and _chosen(self.exclude, module):
            return False
        if self.targets == ALL_LINEAR:
            return True
        if isinstance(self.targets, tuple) and module in self.targets:
            return True  # a whole name chooses its layer too
        return _chosen(self.targets, module) and self._has_layer(module)

    def _has_layer(self, module: str) -> bool:
        if self.layers is None:
            return True
        number = re.search(self._layer_number(), module)
        return number is not None and int(number["layer_number"]) in self.layers

    def _layer_number(self) -> str:
        lists = "|".join(self.layers_pattern) or "[^.]+"
        return rf"(?:^|\.)(?:{lists})\.(?P<layer_number>\d+)\."


def _check_expression(pattern: str, expression: str) -> None:
    """Checks the expression that is made of a pattern."""
    try:
        re.compile(expression)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{pattern!r:.200} is not a regular expression: {error}") from error


def _ending(pattern: str) -> str:
    """An expression for modules whose name ends, at a dot, in what fits a pattern."""
    return rf"(.*\.)?({pattern})$"


def _fitting(patterns: tuple[tuple[str, V], ...], module: str, default: V) -> V:
    """The value of the first pattern that fits the end of a module's name, at a dot."""
    for pattern, value in patterns:
        if re.match(_ending(pattern), module):
            return value
    return default


@struct.dataclass
class Pair:
    """Two factors, with a leading layer axis where the linear is stacked."""

    a: Float[Array, "*layers I R"]
    b: Float[Array, "*layers R O"]


@struct.dataclass
class Adapter:
    """The factors, by family, and the configuration that gives them their meaning."""

    pairs: dict[str, Pair]
    config: LoraConfig = struct.field(pytree_node=False)


def _name(weight: Weight) -> str:
    return weight.name.removesuffix(".weight")


def _modules(weight: Weight) -> list[str]:
    """Names of the modules of a family, one a layer, or the one it is."""
    return [name.removesuffix(".weight") for name in weight.names]


def _is_declared(node: object) -> bool:
    return isinstance(node, Linear | Weight)


def _adaptable(node: PyTree) -> Weight | None:
    """The declared matrix of a linear; None of a convolution and of whatever else is declared."""
    if not isinstance(node, Linear):
        return None
    weight = cast(Weight, node.weight)
    return weight if weight.source_shape is None else None


def _fixed_modules(declared: PyTree[Weight]) -> list[str]:
    """Names of modules that cannot be adapted: convolutions, tables and tied projections."""
    nodes = jax.tree.leaves(declared, is_leaf=_is_declared)
    fixed = [node for node in nodes if _adaptable(node) is None]
    weights: list[Any] = [node.weight if isinstance(node, Linear) else node for node in fixed]
    copies = [copy.removesuffix(".weight") for weight in weights for copy in weight.copies]
    return [module for weight in weights for module in _modules(weight)] + copies


def chosen(lora: LoraConfig, declared: PyTree[Weight]) -> dict[str, Weight]:
    """Declared weights of the families of which at least one module is adapted; may be empty."""
    nodes = jax.tree.leaves(declared, is_leaf=_is_declared)
    weights = [weight for weight in map(_adaptable, nodes) if weight is not None]
    return {_name(w): w for w in weights if any(map(lora.chooses, _modules(w)))}


def families(lora: LoraConfig, declared: PyTree[Weight]) -> dict[str, Weight]:
    """As `chosen`, checked.

    Raises:
      ValueError: nothing is targeted, or something that cannot be adapted.
    """
    if lora.targets != ALL_LINEAR:
        for module in _fixed_modules(declared):
            if lora.chooses(module):
                raise ValueError(
                    f"targets choose {module!r}, which is no linear to be adapted here"
                )
    found = chosen(lora, declared)
    if not found:
        raise ValueError(f"targets {lora.targets!r} choose no linear of this model")
    return found


def layout(lora: LoraConfig, declared: PyTree[Weight]) -> Iterator[tuple[str, int, int, int]]:
    """Name, inputs, rank and outputs of every module that is adapted."""
    for weight in families(lora, declared).values():
        inputs, outputs = weight.shape[-2:]
        for module in _modules(weight):
            rank = lora.rank_of(module)
            if rank:
                yield module, inputs, rank, outputs


def build(
    lora: LoraConfig,
    declared: PyTree[Weight],
    make: Callable[[str, int, int, int], tuple[np.ndarray, np.ndarray]],
    dtype: DTypeLike = jnp.float32,
) -> Adapter:
    """An adapter of what `make(module, inputs, rank, outputs)` gives: a [I, R] and b [R, O]."""
    pairs = {}
    for family, weight in families(lora, declared).items():
        inputs, outputs = weight.shape[-2:]
        modules = _modules(weight)
        ranks = [lora.rank_of(module) for module in modules]
        a = np.zeros((len(modules), inputs, max(ranks)), np.float32)
        b = np.zeros((len(modules), max(ranks), outputs), np.float32)
        for i, (module, rank) in enumerate(zip(modules, ranks, strict=True)):
            if rank:
                a[i, :, :rank], b[i, :rank] = make(module, inputs, rank, outputs)
        pairs[family] = Pair(*(jnp.asarray(x if weight.stacked else x[0], dtype) for x in (a, b)))
    return Adapter(pairs, lora)


def abstract(lora: LoraConfig, declared: PyTree[Weight], dtype: DTypeLike = jnp.float32) -> Adapter:
    """The adapter as `jax.ShapeDtypeStruct`s."""

    def shape(weight: Weight) -> Any:
        return jax.ShapeDtypeStruct(weight.shape, dtype)

    factors = declare_factors(lora, declared)
    return Adapter({family: Pair(shape(a), shape(b)) for family, (a, b) in factors.items()}, lora)


def declare_factors(lora: LoraConfig, declared: PyTree[Weight]) -> dict[str, tuple[Weight, Weight]]:
    """Declarations of both factors of each family, whose common axis is "rank"."""
    factors = {}
    for family, weight in families(lora, declared).items():
        *outer, inputs, outputs = weight.shape
        *outer_axes, of_inputs, of_outputs = weight.axes
        rank = max(map(lora.rank_of, _modules(weight)))
        factors[family] = (
            Weight((*outer, inputs, rank), (*outer_axes, of_inputs, RANK), f"{family}.lora_A"),
            Weight((*outer, rank, outputs), (*outer_axes, RANK, of_outputs), f"{family}.lora_B"),
        )
    return factors


def initialise(
    lora: LoraConfig, declared: PyTree[Weight], seed: int, dtype: DTypeLike = jnp.float32
) -> Adapter:
    """A fresh adapter: a random, b zero, so that it changes nothing yet."""
    generator = np.random.default_rng(seed)

    def make(module: str, inputs: int, rank: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
        return generator.normal(0.0, inputs**-0.5, (inputs, rank)), np.zeros((rank, outputs))

    return build(lora, declared, make, dtype)


def modules(
    adapter: Adapter, declared: PyTree[Weight]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Every adapted module's name, a [I, R] and b [R, O], without padding."""
    for family, weight in families(adapter.config, declared).items():
        pair = adapter.pairs[family]
        for i, module in enumerate(_modules(weight)):
            rank = adapter.config.rank_of(module)
            a, b = (np.asarray(x[i] if weight.stacked else x) for x in (pair.a, pair.b))
            if rank:
                yield module, a[:, :rank], b[:rank]


def _check_fit(adapter: Adapter, expected: dict[str, Weight]) -> None:
    for family in expected.keys() ^ adapter.pairs.keys():
        raise ValueError(f"adapter and model do not both have linears {family!r}")
    for family, weight in expected.items():
        *outer, outputs = weight.shape
        pair = adapter.pairs[family]
        if pair.a.shape[:-1] != tuple(outer) or pair.b.shape[-1] != outputs:
            raise ValueError(
                f"adapter of {family!r} has factors {pair.a.shape} and {pair.b.shape}, expected "
                f"{(*outer, 'R')} and {(*outer[:-1], 'R', outputs)}"
            )


def _map_adapted(
    function: Callable[[Any, Pair, jax.Array], Any],
    weights: T,
    adapter: Adapter,
    declared: PyTree[Weight],
) -> T:
    """Replaces each adapted linear by `function(linear, pair, scale)`."""
    require_stacked(weights, "an adapter is applied before `unstack_layers`")
    expected = families(adapter.config, declared)
    _check_fit(adapter, expected)

    def change(node: PyTree, value: PyTree) -> PyTree:
        weight = _adaptable(node)
        if weight is None or _name(weight) not in expected:
            return value
        scales = [adapter.config.scale_of(module) for module in _modules(weight)]
        scale = jnp.asarray(scales if weight.stacked else scales[0], jnp.float32)
        return function(value, adapter.pairs[_name(weight)], scale)

    return jax.tree.map(change, declared, weights, is_leaf=_is_declared)


def attach(weights: T, adapter: Adapter, declared: PyTree[Weight]) -> T:
    """The weights with the adapter beside them; nothing is copied.

    Raises:
      ValueError: the adapter was made for other shapes, or layers are unstacked.
    """
    return _map_adapted(
        lambda linear, pair, scale: AdaptedLinear(linear, pair.a, pair.b, scale),
        weights,
        adapter,
        declared,
    )


def merge(weights: T, adapter: Adapter, declared: PyTree[Weight], sign: float = 1.0) -> T:
    """The weights with the adapter added in: as fast as the base, and saved as one checkpoint."""

    def add(linear: AnyLinear, pair: Pair, scale: jax.Array) -> Linear:
        if not isinstance(linear, Linear):
            raise ValueError("merge into weights without an adapter beside them")

        def one(inputs: tuple) -> jax.Array:
            weight, a, b, scale = inputs
            b = sign * scale * b.astype(jnp.float32)
            change = jnp.matmul(a.astype(jnp.float32), b, precision=jax.lax.Precision.HIGHEST)
            return (weight + change).astype(weight.dtype)

        inputs = (jnp.asarray(linear.weight), pair.a, pair.b, scale)
        # A layer at a time: float32 sums of a whole stack would take twice its memory.
        weight = jax.lax.map(one, inputs) if linear.weight.ndim == 3 else one(inputs)
        return Linear(weight, linear.bias)

    return _map_adapted(add, weights, adapter, declared)


def unmerge(weights: T, adapter: Adapter, declared: PyTree[Weight]) -> T:
    """Takes a merged adapter out again, up to rounding; keep the base where that matters."""
    return merge(weights, adapter, declared, sign=-1.0)
