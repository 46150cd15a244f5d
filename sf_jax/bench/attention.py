"""`sf-jax bench attention`: the attention kernels beside others', by the evidence at hand.

    values    every implementation that runs here against the float64 reference
    times     plain JAX for a CPU beside `jax.nn.dot_product_attention`, taking turns
    model     the built-in model's prefill and train step with one and with the other
    cycles    the TPU compiler's own estimates, for chips that need not be there (needs libtpu)

    sf-jax bench attention values times model
    sf-jax bench attention cycles --topologies v5e:2x2 --lengths 1024 2048 --widths 128
    sf-jax bench attention cycles --contenders ours --tune      # tries block sizes

Cycles are counted where the estimator can count: bidirectional, unmasked, static trip counts,
whole programs, bfloat16 arrays [1, T, 8, H] in and out for all. In `default` layouts kernels that
need a head's positions together copy, where H is 128. A model has no such copies: the compiler lets
projections write what the kernel wants. So `own` layouts are counted too, where it lays out
arguments and results as suits each contender. `floor` is what the products alone take
in whole tiles of the chip's matrix unit, two of them forward, five backward. `layer` is attention
with a model's projections, norms and rotary positions around it.

The estimator's blind spots: it takes every branch, so that nothing shows of what a mask skips; it
guesses the rounds of loops whose number is not fixed; it sees memory-bound kernels about twice as
fast as they are; and it gives each of several copies under way the whole bandwidth.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from sf_jax.cli import recipes
from sf_jax.cli.arguments import Parser, whole
from sf_jax.media import files

if TYPE_CHECKING:
    import jax

    from sf_jax.systems.semanticface.pretraining import Recipe

# Multiplications a cycle, and the side of a matrix unit's tile.
CHIPS = {
    "v4": (4 * 128 * 128, 128),
    "v5e": (4 * 128 * 128, 128),
    "v5p": (4 * 128 * 128, 128),
    "v6e": (2 * 256 * 256, 256),
}
HEADS = 8
PRODUCTS = {"forward": 2, "backward": 5}  # of matrices of T x T
WAYS = (*PRODUCTS, "layer")
LAYOUTS = ("own", "default")
DEFAULT = (0, 0, 0)  # our own table
BLOCKS: dict[str, list[tuple[int, int, int]]] = {
    "ours": [DEFAULT],
    "flash": [(512, 512, 512), (512, 1024, 512), (512, 2048, 512), (1024, 1024, 1024)],
    "splash": [(512, 512, 512), (512, 1024, 512), (1024, 1024, 1024)],
    "xla": [DEFAULT],
}  # queries, keys in memory, keys of one product
TUNED = [
    (256, 1024, 512), (512, 512, 512), (512, 1024, 512), (512, 1024, 1024), (512, 2048, 512),
    (1024, 1024, 256), (1024, 1024, 512), (1024, 1024, 1024), (1024, 2048, 512),
    (1024, 2048, 1024),
]  # fmt: skip
SHAPES = {"(4, 512, 8, 64)": (4, 512, 8, 64), "(1, 2048, 8, 64)": (1, 2048, 8, 64)}


def floor(chip: str, length: int, width: int, products: int) -> int:
    """Cycles of the products in whole tiles."""
    rate, tile = CHIPS[chip]
    return products * HEADS * length * length * (-(-width // tile) * tile) // rate


def estimate(layout: str, way: str, topology: str, contender: str, *numbers: int) -> dict[str, Any]:
    """Cycles of one contender for a length, a width and block sizes, or an error."""
    script = str(Path(__file__).with_name("attention_cycles.py"))
    command = [sys.executable, script, layout, way, topology, contender, *map(str, numbers)]
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {"error": "the profiler ended the process"}


def best(
    ways: list[str], layout: str, topology: str, contender: str, shape: tuple, blocks: list
) -> dict:
    """The least of each way over block sizes; backward is what the gradient adds, or takes alone
    where the profiler cannot count both."""
    needed = {"forward": ["forward"], "backward": ["forward", "both"], "layer": ["layer"]}
    tried = {
        (way, sizes): estimate(layout, way, topology, contender, *shape, *sizes)
        for way in dict.fromkeys(program for way in ways for program in needed[way])
        for sizes in blocks
    }
    found: dict[str, Any] = {"tried": {f"{way} {sizes}": x for (way, sizes), x in tried.items()}}
    least = {}
    for way in ("forward", "both", "layer"):
        known = [x["cycles"] for (of, _), x in tried.items() if of == way and "cycles" in x]
        least[way] = min(known, default=None)
    forward, both = least["forward"], least["both"]
    backward = both and forward and both - forward
    if "backward" in ways and not backward:
        alone = [estimate(layout, "backward", topology, contender, *shape, *x) for x in blocks]
        found["tried"] |= {f"backward {x}": y for x, y in zip(blocks, alone, strict=True)}
        backward = min((x["cycles"] for x in alone if "cycles" in x), default=None)
    return found | least | {"backward": backward}


def cycles(options: argparse.Namespace) -> str:
    """A table: cycles of each contender, ours to the best other, ours to the floor."""
    cells = [
        (layout, topology, length, width)
        for layout in options.layouts
        for topology in options.topologies
        for width in options.widths
        for length in options.lengths
    ]
    names = options.contenders
    columns = ["layouts", "chip", "T", "H", "way", "floor", *names, "ours / other", "ours / floor"]
    header = "| " + " | ".join(columns) + " |"
    lines = [header, "|" + "---|" * len(columns)]
    everything = {}
    for layout, topology, length, width in tqdm(cells, unit="cell"):
        found = {
            name: best(
                options.ways,
                layout,
                topology,
                name,
                (length, width),
                TUNED if name == "ours" and options.tune else BLOCKS[name],
            )
            for name in names
        }
        everything[f"{layout} {topology} {length} {width}"] = found
        chip = topology.partition(":")[0]
        for way in options.ways:
            least = floor(chip, length, width, PRODUCTS[way]) if way in PRODUCTS else None
            row = [f"{found[n][way]:,}" if found[n][way] else "-" for n in names]
            own = found["ours"][way] if "ours" in names else None
            others = [found[n][way] for n in names if n != "ours" and found[n][way]]
            row.append(f"{own / min(others):.2f}" if own and others else "-")
            row.append(f"{own / least:.2f}" if own and least else "-")
            shown = f"{least:,}" if least else "-"
            lines.append(
                f"| {layout} | {chip} | {length} | {width} | {way} | {shown} | "
                + " | ".join(row)
                + " |"
            )
        options.out.mkdir(parents=True, exist_ok=True)
        files.write_json(options.out / "cycles.json", everything, indent=1)
    if options.tune and "ours" in names:
        tried = [found["ours"]["tried"] for found in everything.values()]
        lines += ["", *(f"{way}: {tuned(tried, way)}" for way in options.ways if way in PRODUCTS)]
    return "\n".join(lines)


def tuned(tried: list[dict[str, dict]], way: str) -> str:
    """The block sizes that take the fewest cycles, as a share of each cell's least, on average."""

    def needed(cell: dict[str, dict], sizes: tuple) -> float:
        forward, both = (cell.get(f"{of} {sizes}", {}) for of in ("forward", "both"))
        if way == "forward":
            return forward.get("cycles", np.inf)
        return both.get("cycles", np.inf) - forward.get("cycles", 0)

    table = np.array([[needed(cell, sizes) for sizes in TUNED] for cell in tried])
    shares = (table / table.min(1, keepdims=True)).mean(0)
    at = int(np.argmin(shares))
    return f"Blocks{TUNED[at]} are best, {shares[at]:.3f} of each cell's least on average"


def least_ms(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The least milliseconds of calls that take turns, once each is compiled."""
    import jax

    least = dict.fromkeys(calls, np.inf)
    for again in range(rounds + 1):
        for name, call in calls.items():
            begun = time.perf_counter()
            jax.block_until_ready(call())
            if again:
                least[name] = min(least[name], 1e3 * (time.perf_counter() - begun))
    return least


def compared(label: str, way: str, least: dict[str, float]) -> str:
    """A line of the tables of times."""
    own, other = least["ours"], least["jax.nn"]
    return f"| {label} | {way} | {own:.2f} | {other:.2f} | {other / own:.2f} |"


def times(rounds: int) -> str:
    """Milliseconds on this machine, causal float32, forward and with the gradient."""
    import jax
    import jax.numpy as jnp

    from sf_jax.kernels import attention

    lines = ["| shape | way | ours, ms | jax.nn, ms | ratio |", "|---|---|---|---|---|"]
    for label, shape in SHAPES.items():
        generator = np.random.default_rng(0)
        q, k, v = (jnp.asarray(generator.normal(size=shape), jnp.float32) for _ in range(3))
        attends = {
            "ours": lambda q, k, v: attention(q, k, v, causal=True),
            "jax.nn": lambda q, k, v: jax.nn.dot_product_attention(q, k, v, is_causal=True),
        }
        for way in ("forward", "gradient"):
            calls = {
                name: jax.jit(
                    f
                    if way == "forward"
                    else jax.grad(lambda q, k, v, f=f: (f(q, k, v) ** 2).sum(), (0, 1, 2))
                )
                for name, f in attends.items()
            }
            bound = {name: partial(call, q, k, v) for name, call in calls.items()}
            lines.append(compared(label, way, least_ms(bound, rounds)))
    return "\n".join(lines)


def library_attention(
    q: "jax.Array",
    k: "jax.Array",
    v: "jax.Array",
    *,
    causal: bool = True,
    q_segments: "jax.Array | None" = None,
    kv_segments: "jax.Array | None" = None,
    q_offset: "jax.Array | int" = 0,
    mask: "jax.Array | None" = None,
    heads_first: bool = False,
) -> "jax.Array":
    """As `sf_jax.kernels.attention`, by `jax.nn.dot_product_attention`.

    Args:
      heads_first: chooses among our own kernels, and is ignored here.
    """
    import jax
    import jax.numpy as jnp

    from sf_jax.kernels.visible import Visible, per_row

    visible = Visible(causal, q_segments, kv_segments, per_row(q_offset, len(q)), None, mask)
    allowed = visible.allowed(len(q), q.shape[1], k.shape[1])
    return jax.nn.dot_product_attention(
        q, k, v, mask=jnp.broadcast_to(allowed[:, None], (len(q), 1, q.shape[1], k.shape[1]))
    )


@contextlib.contextmanager
def attending(attend: Callable) -> Iterator[None]:
    """The model traced meanwhile attends so."""
    from sf_jax.model import text, vision

    before = text.attention
    text.attention = vision.attention = attend  # type: ignore[assignment]
    try:
        yield
    finally:
        text.attention = vision.attention = before


def in_model(rounds: int, recipe: "Recipe | None" = None) -> str:
    """Milliseconds of the built-in model's prefill of an image, and of a step of its training.

    The step is of fresh weights of the recipe's sizes, which may differ from the shipped model's.

    Args:
      recipe: of the training; None: the built-in model's.
    """
    import jax
    import jax.numpy as jnp

    from sf_jax.bench import decode as bench_decode
    from sf_jax.kernels import attention
    from sf_jax.reader import loading
    from sf_jax.systems.semanticface.pretraining import JointTask, WarmupTask
    from sf_jax.train import mesh

    recipe = recipe or recipes.load("builtin_model").RECIPE
    model = loading.load()
    task, devices = JointTask(recipe, model.tokenizer), mesh.make(recipe.mesh)
    record = recipe.example_view()
    row, _ = model.inputs([record["image"]])
    batch = task.batch([record] * (task.rows // 2))
    weights = task.initial(WarmupTask(recipe, model.tokenizer).initial())

    def train_call() -> Callable[[], Any]:
        held = [task.create(jax.tree.map(jnp.array, weights), devices)]
        take, given = task.build_step(devices), mesh.put(batch, devices)

        def call() -> Any:
            held[0], metrics = take(held[0], given)
            return metrics

        return call

    made: dict[str, dict[str, Callable[[], Any]]] = {"prefill": {}, "train step": {}}
    for name, attend in (("ours", attention), ("jax.nn", library_attention)):
        with attending(attend):
            made["prefill"][name] = partial(bench_decode.prefill_call(model), row)
            made["train step"][name] = train_call()
            for calls in made.values():
                jax.block_until_ready(calls[name]())  # compiled while it attends so
    lines = ["| built-in model | way | ours, ms | jax.nn, ms | ratio |", "|---|---|---|---|---|"]
    for label, calls in made.items():
        what = "1 image" if label == "prefill" else f"{task.rows} rows"
        lines.append(compared(label, what, least_ms(calls, rounds)))
    return "\n".join(lines)


def values() -> str:
    """Relative L2 errors of output and gradients against the float64 reference."""
    import jax
    import jax.numpy as jnp

    from sf_jax.kernels import attention

    def everything(implementation: str, dtype: str) -> list[np.ndarray]:
        generator = np.random.default_rng(0)
        shapes = [(2, 300, 4, 64), (2, 300, 2, 64), (2, 300, 2, 64), (2, 300, 4, 64)]
        rounded = [jnp.asarray(generator.normal(size=s), jnp.float32) for s in shapes]
        if dtype == "bfloat16":
            rounded = [x.astype(dtype) for x in rounded]
        q, k, v, d_out = (
            x.astype("float64" if implementation == "reference" else dtype) for x in rounded
        )
        out, pull = jax.vjp(lambda *x: attention(*x, implementation=implementation), q, k, v)
        return [np.asarray(x, np.float64) for x in (out, *pull(d_out))]

    lines = ["| implementation | operands | out | d_q | d_k | d_v |", "|---|---|---|---|---|---|"]
    platform = {"tpu": "tpu", "gpu": "gpu"}.get(jax.default_backend())
    for dtype in ("float32", "bfloat16"):
        with jax.enable_x64(True):
            right = everything("reference", dtype)
        for name in filter(None, ("cpu", platform)):
            errors = [
                np.linalg.norm(a - b) / np.linalg.norm(b)
                for a, b in zip(everything(name, dtype), right, strict=True)
            ]
            lines.append(f"| {name} | {dtype} | " + " | ".join(f"{e:.1e}" for e in errors) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(prog="sf-jax bench attention", description=__doc__)
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help="values, times, model, cycles",
        default=["values", "times"],
    )
    parser.add_argument(
        "--rounds", type=whole(1, 1000), default=20, help="of times; the least counts"
    )
    parser.add_argument(
        "--topologies", nargs="+", default=["v5e:2x2", "v6e:2x2"], help="TPUs to compile for"
    )
    parser.add_argument(
        "--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS), help="of the arrays given"
    )
    parser.add_argument(
        "--lengths",
        nargs="+",
        type=int,
        default=[1024, 2048, 8192],
        help="of a sequence, in tokens",
    )
    parser.add_argument("--widths", nargs="+", type=int, default=[64, 128], help="of a head")
    parser.add_argument(
        "--contenders", nargs="+", choices=BLOCKS, default=list(BLOCKS), help="kernels compared"
    )
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=list(PRODUCTS), help="passes timed"
    )
    parser.add_argument("--tune", action="store_true", help="try block sizes of ours, too")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bench_attention"), help="folder of the run"
    )
    options = parser.parse_args(argv)
    for part in options.parts:
        if part == "values":
            print(values())
        elif part == "times":
            print(times(options.rounds))
        elif part == "model":
            print(in_model(options.rounds))
        elif part == "cycles":
            print(cycles(options))
        else:
            parser.error(f"no part {part!r}; there are values, times, model and cycles")
        print()


if __name__ == "__main__":
    main()
