"""`sf-jax bench decode`: seconds an answer, ours beside every way that transformers has.

Both sides, each in a process of its own, answer the same rendered faces of people who are in no
training image: the same checkpoint, prompts and pixels, the same two cores, as many tokens an
answer. Both generate in the order of the model's schema: the rationale and then the values, or the
values and then the rationale. Where the schema takes medians, our side takes the likeliest values
here, as greedy decoding does. A model that reads framed faces is given the square of each face, and
neither side finds it. Ours starts from the image and includes fitting it; theirs starts from the
patches. transformers generates greedily with sdpa attention:

    plain         no constraint at all, the least it can take (static or dynamic cache)
    dfa           `prefix_allowed_tokens_fn` that follows our grammar token by token: our answer
    llguidance, xgrammar    our grammar by token ids, in a logits processor of that engine
    … bytes       our grammar by its text: other tokens may spell it, so as many as our answer has
                  do not suffice and "to its end" needs more, up to 1500; a model trained under our
                  tokens alone, as the built-in one is, then gives another answer, and may not end
    block …       the values alone: the rationale before them is given; where they come first,
                  they follow the prompt, and no rationale is generated
    prefill       all that precedes the values read, one token generated

An image's seconds are the least of some rounds, in which modes take turns; the table has medians
over images. Other work on the two cores slows torch by far more than it slows us, so compare only
what an idle machine has measured: how many cores others had is printed, and a mode whose median is
far from its least is named.

    sf-jax bench decode --torch-python PYTHON     # one with torch, transformers and both engines
    sf-jax bench decode --torch-python PYTHON --size 2B --images 1    # random weights
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sf_jax.cli.arguments import Parser, former
from sf_jax.media import files

if TYPE_CHECKING:
    import jax

    from sf_jax.decode.program import SlotProgram
    from sf_jax.decode.schema import Schema
    from sf_jax.model.weights import Weights
    from sf_jax.reader.estimator import Model
    from sf_jax.sequence.batch import Batch

THREADS = 2
SEED = 0
DISTURBED = 1.5  # answers differ in length by less

# Our ways to decode: name → arguments of `Model.predict`.
OURS: dict[str, dict[str, Any]] = {
    "drafted": {"decoding": "drafted"}, "sequential": {"decoding": "sequential"},
}  # fmt: skip
OUR_MODES = ["prefill", *OURS, *(f"block {name}" for name in OURS)]

# Theirs. "plain, compiled" is left out: on a CPU it has been slower than the same uncompiled.
FULL = ["plain", "plain, dynamic", "dfa"]
BLOCK = ["block plain", "block plain, dynamic", "block dfa", "prefill"]
ENGINES = [  # for a model that ends its rationale itself, and has the blank line as one token
    "llguidance", "xgrammar", "llguidance bytes", "xgrammar bytes",
    "llguidance bytes, to its end", "xgrammar bytes, to its end",
]  # fmt: skip


def faces(count: int) -> list[np.ndarray]:
    """Rendered faces of people who are in no training image."""
    from data_pipelines.synthetic import face_record

    return [face_record(i, SEED, "evaluation")["image"] for i in range(count)]


def slot_tokens(program: "SlotProgram") -> tuple[list[list[int]], list[list[list[int]]]]:
    """The tokens before each slot, and those of each value that may stand in it."""
    slots = range(len(program.kind))
    return [program.before(i) for i in slots], [program.spelling(i) for i in slots]


def grammar(schema: "Schema", program: "SlotProgram") -> dict[str, Any]:
    """A schema as tokens and as text."""
    forced, values = slot_tokens(program)
    slots = range(len(forced))
    return {
        "forced": forced,
        "values": values,
        "keys": [schema.key(i) for i in slots],
        "value_texts": [schema.values(i) for i in slots],
        "banned": np.flatnonzero(program.banned).tolist(),
        "ends": np.flatnonzero(program.ends).tolist(),
        "rationale_end": int(program.rationale_end),
        "block_ends_rationale": program.block_ends_rationale,
        "values_first": program.values_first,
        "closing": program.closing.tolist() if program.values_first else [],
        "paragraphs": schema.paragraphs,
    }


def shown(model: "Model", image: np.ndarray) -> np.ndarray:
    """What both sides are given of an image: the square of its face, where the model was trained on
    these and one is found; else all of it."""
    if not model.frames():
        return image
    picture = model.framed(image, force=True).picture
    assert picture is not None  # by `force`
    return picture.pixels


def answer(model: "Model", image: np.ndarray, cap: int) -> dict[str, list[int]]:
    """Token ids of our answer: its block of values, and its rationale.

    The latter with the blank line that ends it; where the values come first, with what closes the
    block before it and, unless the cap cut it, with the end of the answer.
    """
    import jax

    made = jax.device_get(model.generate(*model.inputs([image]), max_rationale=cap))
    program, truncated = model.program, bool(made.truncated[0])
    rationale = made.rationale_ids[0, : made.rationale_length[0]].tolist()
    if program.values_first:
        end = [] if truncated else [int(program.ends.argmax())]
        rationale = program.closing.tolist() + rationale + end
    elif truncated or not program.block_ends_rationale:
        rationale.append(int(program.rationale_end))
    return {"rationale": rationale, "block": program.answer(made.choices[0])}


def write_job(
    folder: Path,
    model: "Model",
    checkpoint: Path,
    images: list[np.ndarray],
    answers: list[dict[str, list[int]]],
    cap: int,
    modes: list[str],
) -> None:
    """What the other side needs: `job.json` and `job.npz`."""
    arrays: dict[str, Any] = {}
    for i, image in enumerate(images):
        batch, _ = model.inputs([image])
        patches = batch.inputs["vision"]
        fitted = model.processor.fit(image).pixels
        side = model.processor.patch_size
        arrays[f"input_ids_{i}"] = np.asarray(batch.input_ids[0][batch.segments[0] == 1])
        arrays[f"pixel_values_{i}"] = np.asarray(patches.pixels[0][patches.segments[0] == 1])
        grid = [1, fitted.shape[0] // side, fitted.shape[1] // side]
        arrays[f"image_grid_thw_{i}"] = np.array([grid])
    job = grammar(model.schema, model.program) | {
        "checkpoint": str(checkpoint.resolve()),
        "dtype": model.config.product_dtype,
        "threads": THREADS,
        "cap": cap,
        "answers": answers,
        "modes": modes,
    }
    np.savez(folder / "job.npz", **arrays)
    (folder / "job.json").write_text(json.dumps(job))


def before_blocks(model: "Model", images: list[np.ndarray], answers: list[dict]) -> list[tuple]:
    """Batches of one with all that precedes the block, padded to one length: the prompt, and the
    rationale and its blank line where they come first."""
    from sf_jax.sequence.example import Example, assemble
    from sf_jax.sequence.images import capacity, image_inserts

    plain = [model.inputs([image])[0] for image in images]
    prompts = [
        made.input_ids[0][made.segments[0] == 1].tolist()
        + ([] if model.schema.values_first else answer["rationale"])
        for made, answer in zip(plain, answers, strict=True)
    ]
    longest = max(map(len, prompts))
    out = []
    for image, prompt, made in zip(images, prompts, plain, strict=True):
        inserts = image_inserts(prompt, [model.processor.fit(image).pixels], model.config)
        room = capacity(model.config, longest, made.inputs["vision"].segments.shape[1])
        out.append((assemble([[Example.of(prompt, inserts)]], room, left=True),))
    return out


def block_call(model: "Model", **how: Any) -> Callable[[Any], Any]:
    """The block alone: without a rationale `generate` begins with the slots."""
    return partial(model.generate, rationale=False, **how)


def prefill_call(model: "Model") -> Callable[[Any], Any]:
    """All that precedes the block read, and the likeliest next token."""
    import jax

    from sf_jax.decode.state import prefill
    from sf_jax.model import text

    @jax.jit
    def call(weights: "Weights", batch: "Batch") -> "jax.Array":
        state = prefill(weights, batch, batch.input_ids.shape[1], model.config)
        scores = text.logits(weights.text, state.last, dtype=model.config.product_dtype)
        return scores.argmax(-1)

    return lambda batch: call(model.weights, batch)


def our_calls(model: "Model", cap: int) -> dict[str, Callable]:
    """What each of our modes does with an image as it is shown, or with a batch of
    `before_blocks`."""
    every: dict[str, Callable] = {"prefill": prefill_call(model)}
    for name, how in OURS.items():
        every[name] = partial(model.predict, whole=True, max_rationale=cap, **how)
        every[f"block {name}"] = block_call(model, **how)
    return every


def seconds(calls: dict[str, Callable], inputs: dict[str, list[tuple]], repeats: int) -> dict:
    """The least seconds of every call on every image, of rounds in which calls take turns.

    Every shape is met once before, so that nothing is compiled meanwhile.
    """
    import jax

    found = {name: [np.inf] * len(inputs[name]) for name in calls}
    count = min(map(len, inputs.values()))
    for again, image, name in itertools.product(range(repeats + 1), range(count), calls):
        begin = time.perf_counter()
        jax.block_until_ready(calls[name](*inputs[name][image]))
        taken = time.perf_counter() - begin
        if again:
            found[name][image] = min(taken, found[name][image])
    return found


def ours(folder: Path, checkpoint: Path, options: argparse.Namespace, engines: bool) -> dict:
    """Our side; also writes down the job for the other one."""
    from sf_jax.cli import loading
    from sf_jax.decode.schema import MODE

    model, cap = loading.load_model(checkpoint, dtype=options.dtype), options.rationale_tokens
    model.decoder.schema = dataclasses.replace(model.schema, estimate=MODE)
    images = [shown(model, image) for image in faces(options.images)]
    answers = [answer(model, image, cap) for image in images]
    modes = FULL + (ENGINES if engines else []) + BLOCK
    write_job(folder, model, checkpoint, images, answers, cap, modes)
    given = before_blocks(model, images, answers)
    check_block(model, given, answers)
    calls = {name: call for name, call in our_calls(model, cap).items() if name in options.ours}
    whole = [(image,) for image in images]
    inputs = {name: whole if kind(name) == "answer" else given for name in calls}
    tokens = {
        "answer": [len(a["rationale"] + a["block"]) for a in answers],
        "block": [len(a["block"]) for a in answers],
        "prefill": [1] * len(answers),
    }
    found = {
        name: {"seconds": taken, "tokens": tokens[kind(name)]}
        for name, taken in seconds(calls, inputs, options.repeats).items()
    }
    return {"modes": found, "versions": versions()}


def check_block(model: "Model", given: list[tuple], answers: list[dict]) -> None:
    """The block alone must be that of the whole answer, or the two would not do the same work."""
    import jax

    call, program = block_call(model), model.program
    for (batch,), known in zip(given, answers, strict=True):
        choices = jax.device_get(call(batch)).choices[0]
        if program.answer(choices) != known["block"]:
            print("a block on its own differs from that of the whole answer", file=sys.stderr)


def versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("jax", "jaxlib")}


def run(command: list[str]) -> dict[str, Any]:
    """Runs one side in a fresh process, held to two cores, and returns what it measured."""
    limits = {
        "OMP_NUM_THREADS": str(THREADS),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    before, begin = others_seconds(), time.perf_counter()
    with cores_held():
        done = subprocess.run(command, env=os.environ | limits, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise ValueError(f"{' '.join(command)} failed, see above")
    share = (others_seconds() - before) / (time.perf_counter() - begin)
    return json.loads(done.stdout.splitlines()[-1]) | {"others": share}


@contextlib.contextmanager
def cores_held() -> Iterator[None]:
    """No process begun meanwhile sees more cores than threads, where the system can say so."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:THREADS])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def others_seconds() -> float:
    """Core seconds since the machine's start that neither we nor those we ran have used.

    0 where there is no /proc/stat.
    """
    try:
        first = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return 0.0
    user, nice, system, _, _, *interrupts = map(int, first[1:9])  # without idle and waiting
    busy = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
    used = os.times()
    return busy - used.user - used.system - used.children_user - used.children_system


def kind(mode: str) -> str:
    """Which rows of the table are compared: "answer", "block" or "prefill"."""
    first = mode.split()[0]
    return first if first in ("block", "prefill") else "answer"


def table(mine: dict[str, dict], theirs: dict[str, dict]) -> str:
    """A row a mode, and for each of our modes of its kind the ratio of medians to that mode."""
    lines = []
    for group in ("answer", "block", "prefill"):
        own = {name: row for name, row in mine.items() if kind(name) == group}
        rows = {f"sf_jax, {name}": row for name, row in own.items()} | {
            f"transformers, {name}": row for name, row in theirs.items() if kind(name) == group
        }
        columns = "".join(f"{'/ ' + name.removeprefix('block '):>14}" for name in own)
        lines += [
            "",
            f"{group:<42}{'median s':>9}{'least':>9}{'most':>9}{'tokens':>8}{columns}"
            f"{'same ids':>10}{'same text':>11}{'valid':>8}",
        ]
        lines += [_row(name, row, list(own.values())) for name, row in rows.items()]
    return "\n".join(lines[1:])


def _row(name: str, row: dict[str, Any], own: list[dict]) -> str:
    taken, tokens = row["seconds"], statistics.mean(row["tokens"])
    median = statistics.median(taken)
    line = f"{name:<42}{median:9.4f}{min(taken):9.4f}{max(taken):9.4f}{tokens:8.1f}"
    line += "".join(f"{median / statistics.median(mode['seconds']):14.2f}" for mode in own)
    if "valid" in row:
        for column, width in (("same ids", 10), ("same text", 11), ("valid", 8)):
            line += f"{row[column]}/{row['of']}".rjust(width)
    return line


def disturbances(results: dict[str, dict]) -> list[str]:
    """What else the machine did, and which modes that shows in."""
    lines = []
    for side, found in results.items():
        lines.append(f"{side}: other processes had {found['others']:.2f} cores on average")
        for mode, row in found["modes"].items():
            least, median = min(row["seconds"]), statistics.median(row["seconds"])
            if median > DISTURBED * least:
                lines.append(
                    f"{side}, {mode}: the median is {median / least:.1f} times the least;"
                    " measure again on an idle machine"
                )
    return lines


def differences(theirs: dict[str, dict]) -> list[str]:
    """A line for every answer that the same grammar ended differently there."""
    return [
        f"{mode}: image {d['image']} leaves ours at token {d['position']}, by "
        f"{d['gap']:.1e} of the largest logit"
        for mode, row in theirs.items()
        for d in row.get("differences", [])
        if d
    ]


def checkpoint_folder(options: argparse.Namespace) -> Path:
    """The model's directory; a released size is written with random weights, once."""
    from sf_jax.reader.loading import BUILTIN

    if options.size is None:
        return options.model or BUILTIN
    from sf_jax.bench.checkpoint import SIDE
    from sf_jax.systems.semanticface.qwen_like import make_checkpoint

    folder = options.out / options.size
    if not folder.exists():
        with files.folder(folder) as inside:
            make_checkpoint(inside, options.size, SIDE * SIDE)
    return folder


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(
        prog="sf-jax bench decode",
        description=__doc__,
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bench_decode"), help="folder of the run"
    )
    parser.add_argument("--images", type=int, default=20, help="rendered faces (default 20)")
    former(parser, "--pictures", dest="images", type=int)
    parser.add_argument("--repeats", type=int, default=3, help="of which the least counts")
    parser.add_argument("--model", type=Path, help="model directory (default: the built-in model)")
    parser.add_argument("--size", choices=("2B", "4B", "8B", "32B"), help="random weights instead")
    parser.add_argument(
        "--rationale-tokens", type=int, help="cap on the rationale (default: 120, others 64)"
    )
    former(parser, "--words", dest="rationale_tokens", type=int)
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16"), help="of the weights"
    )
    parser.add_argument("--torch-python", help="compare with transformers, run by this Python")
    parser.add_argument(
        "--ours", nargs="+", choices=OUR_MODES, default=OUR_MODES, help="our modes (default: all)"
    )
    parser.add_argument("--modes", nargs="+", help="of transformers (default: all that apply)")
    parser.add_argument("--side", choices=("ours",), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    builtin = options.size is None and options.model is None
    options.rationale_tokens = options.rationale_tokens or (120 if builtin else 64)
    options.out.mkdir(parents=True, exist_ok=True)
    folder = checkpoint_folder(options)
    if options.side:
        print(json.dumps(ours(options.out, folder, options, engines=builtin)))
        return
    given = list(sys.argv[1:] if argv is None else argv)
    results = {
        "sf_jax": run([sys.executable, "-m", "sf_jax.bench.decode", *given, "--side", "ours"])
    }
    theirs: dict[str, dict] = {}
    if options.torch_python:
        script = str(Path(__file__).parent / "torch_side" / "decode_torch.py")
        chosen = ["--repeats", str(options.repeats)]
        chosen += ["--modes", *options.modes] if options.modes else []
        results["transformers"] = run([options.torch_python, script, str(options.out), *chosen])
        theirs = results["transformers"]["modes"]
    files.write_json(options.out / "results.json", results, indent=1)
    print("; ".join(f"{k} {v}" for side in results.values() for k, v in side["versions"].items()))
    print(table(results["sf_jax"]["modes"], theirs))
    print("\n".join(["", *differences(theirs), *disturbances(results)]))


if __name__ == "__main__":
    main()
