"""`sf-jax bench checkpoint`: a released size, loaded and answered with, beside transformers.

A random bfloat16 checkpoint of the whole shape is written in shards. Then each side, in a process
of its own, loads it and answers one image with a rationale and a constrained block of slots: the
same checkpoint, prompt, pixels and grammar, two threads. Ours feeds what the grammar forces in
chunks; transformers goes token by token under `prefix_allowed_tokens_fn`. Random weights never
stop, so the rationale is cut at the same number of tokens.

    sf-jax bench checkpoint --torch-python PYTHON    # one with torch and transformers
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sf_jax.bench.torch_side.peak_memory import PeakMemory
from sf_jax.cli.arguments import Parser, former
from sf_jax.media import files

SIDE = 256  # pixels of the image, 64 image tokens
THREADS = 2


def image() -> np.ndarray:
    """uint8 [SIDE, SIDE, 3], smooth colours."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    waves = np.stack([np.sin(rows / 20 + k) + np.cos(columns / (25 + k)) for k in range(3)], -1)
    return np.clip(128 + 50 * waves, 0, 255).astype(np.uint8)


def ours(folder: Path, dtype: str, tokens: int) -> dict[str, Any]:
    """Our side; also writes down the job for the other one."""
    memory, start = PeakMemory(), time.perf_counter()
    import jax

    imported = time.perf_counter()
    before = memory.now()
    from sf_jax.convert import hf
    from sf_jax.reader import loading
    from sf_jax.reader.loading import load

    _, weights = hf.load(folder, dtype=np.dtype(jax.numpy.dtype(dtype)), progress=False)
    loaded = time.perf_counter()
    alone = memory.peak - before
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(weights))
    del weights
    loading.compilation_cache()
    model = load(folder, dtype=dtype)
    ready = time.perf_counter()
    rows, _ = model.inputs([image()])
    patches = rows.inputs["vision"]
    model.predict(image(), max_rationale=tokens)
    compiled = time.perf_counter()
    answer = model.predict(image(), max_rationale=tokens)
    done = time.perf_counter()
    program = model.program
    slots = range(len(program.kind))
    forced, values = [program.before(i) for i in slots], [program.spelling(i) for i in slots]
    kept = patches.segments[0] == 1
    np.savez(
        folder / "job.npz",
        input_ids=rows.input_ids[:, rows.segments[0] == 1],
        pixel_values=patches.pixels[0][kept],
        image_grid_thw=[[1, SIDE // 16, SIDE // 16]],
    )
    job = {
        "forced": forced,
        "values": values,
        "blank_line": int(program.rationale_end),
        "banned": np.flatnonzero(program.banned).tolist(),
        "rationale": tokens,
    }
    (folder / "job.json").write_text(json.dumps(job))
    return {
        "import s": imported - start,
        "load s": loaded - imported,
        "load peak / weights": alone / size,
        "to ready s": ready - loaded,
        "first answer s": compiled - ready,
        "answer s": done - compiled,
        "passes": 1 + sum(answer.passes.values()),
        "peak GB": memory.peak / 1e9,
    }


def run(command: list[str]) -> dict[str, Any]:
    """Runs one side in a fresh process and returns what it measured.

    Raises:
      ValueError: it failed; its standard error has been shown.
    """
    limits = {"OMP_NUM_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=os.environ | limits, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise ValueError(f"{' '.join(command)} failed, see above")
    return json.loads(done.stdout.splitlines()[-1])


def table(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """A row a figure, and the ratio of theirs to ours where both have it."""
    lines = []
    for dtype, sides in results.items():
        lines.append(f"{dtype:<22}" + "".join(f"{name:>14}" for name in sides) + f"{'ratio':>8}")
        mine, other = sides["sf_jax"], sides.get("transformers", {})
        for name, value in mine.items():
            row = f"  {name:<20}{value:14.2f}"
            if name in other:
                row += f"{other[name]:14.2f}{other[name] / value:8.2f}"
            lines.append(row)
    return "\n".join(lines)


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="sf-jax bench checkpoint",
        description=__doc__,
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/bench_checkpoint"), help="folder of the run"
    )
    parser.add_argument(
        "--size",
        default="2B",
        choices=("2B", "4B", "8B", "32B"),
        help="shape of the Qwen3-VL model",
    )
    parser.add_argument("--rationale-tokens", type=int, default=64, help="length of the rationale")
    former(parser, "--words", dest="rationale_tokens", type=int)
    parser.add_argument(
        "--dtypes", nargs="+", default=["float32", "bfloat16"], help="of the weights, one run each"
    )
    parser.add_argument("--torch-python", help="compare with transformers, run by this Python")
    parser.add_argument("--side", choices=("ours",), help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    options = build_parser().parse_args(argv)
    folder = options.out / options.size
    if options.side:
        print(json.dumps(ours(folder, options.dtypes[0], options.rationale_tokens)))
        return
    if not folder.exists():
        from sf_jax.systems.semanticface.qwen_like import make_checkpoint

        with files.folder(folder) as inside:
            make_checkpoint(inside, options.size, SIDE * SIDE)
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for dtype in options.dtypes:
        command = [sys.executable, "-m", "sf_jax.bench.checkpoint", "--side", "ours"]
        command += ["--out", str(options.out), "--size", options.size]
        command += ["--rationale-tokens", str(options.rationale_tokens), "--dtypes", dtype]
        results[dtype] = {"sf_jax": run(command)}
        if options.torch_python:
            script = str(Path(__file__).parent / "torch_side" / "checkpoint_torch.py")
            found = run([options.torch_python, script, str(folder), dtype, str(THREADS)])
            results[dtype]["transformers"] = found
    print(table(results))


if __name__ == "__main__":
    main()
