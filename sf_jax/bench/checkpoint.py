"""`sf-jax bench checkpoint`: a released size, loaded and answered with, beside transformers.

A random bfloat16 checkpoint of the whole shape is written in shards. Then each side, in a process
of its own, loads it and answers one picture with words and a constrained block of numbers: the same
checkpoint, prompt, pixels and grammar, two threads. Ours feeds what the grammar forces in chunks;
transformers goes token by token under `prefix_allowed_tokens_fn`. Random weights never stop, so the
words are cut at the same number of tokens.

    sf-jax bench checkpoint --torch-python PYTHON    # one with torch and transformers
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sf_jax.cli.arguments import Parser
from sf_jax.media import files

SEED = 0
SIDE = 256  # pixels of the picture, 64 image tokens
THREADS = 2


class PeakMemory:
    """The most anonymous memory of this process, in bytes, sampled while it works."""

    def __init__(self) -> None:
        self.peak = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.peak = max(self.peak, self.now())
            time.sleep(0.02)

    @staticmethod
    def now() -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1]) * 1024
        raise OSError("/proc/self/status names no RssAnon; this needs Linux")


def make_tokenizer(folder: Path) -> None:
    """A byte-level `tokenizer.json` of single digits, as Qwen's, trained on descriptions."""
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    from data_pipelines.sampler import sample
    from sf_jax.face.describe import describe
    from sf_jax.reader.estimator import SCHEMA
    from sf_jax.sequence.tokenizer import CONTROL

    pieces = r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(pieces), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    faces = [np.clip(sample(i), -1, 1) for i in range(200)]
    texts = [f"{describe(face, i).text}\n\n{SCHEMA.format(face)}" for i, face in enumerate(faces)]
    made.train_from_iterator([*texts, *["words\n\nwords"] * 50], trainer)
    made.add_special_tokens(list(CONTROL))
    made.save(str(folder / "tokenizer.json"))


def make_checkpoint(folder: Path, size: str) -> None:
    """A random checkpoint of a released shape, one tensor at a time."""
    import dataclasses

    import ml_dtypes

    from sf_jax.convert import hf
    from sf_jax.convert.processor import FILE, ImageProcessor
    from sf_jax.model.sizes import QWEN3_VL
    from sf_jax.sequence.tokenizer import IMAGE, VISION_END, VISION_START, JsonTokenizer

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    make_tokenizer(folder)
    tokenizer = JsonTokenizer.load(folder / "tokenizer.json")
    config = dataclasses.replace(
        QWEN3_VL[size],
        image_token_id=tokenizer.symbol(IMAGE),
        vision_start_token_id=tokenizer.symbol(VISION_START),
        vision_end_token_id=tokenizer.symbol(VISION_END),
    )
    hf.save_random(folder, config, SEED, ml_dtypes.bfloat16)
    (folder / FILE).write_text(json.dumps(ImageProcessor(65_536, SIDE * SIDE).as_dict()))


def picture() -> np.ndarray:
    """uint8 [SIDE, SIDE, 3], smooth colours."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    waves = np.stack([np.sin(rows / 20 + k) + np.cos(columns / (25 + k)) for k in range(3)], -1)
    return np.clip(128 + 50 * waves, 0, 255).astype(np.uint8)


def ours(folder: Path, dtype: str, words: int) -> dict[str, Any]:
    """Our side; also writes down the job for the other one."""
    memory, start = PeakMemory(), time.perf_counter()
    import jax

    imported = time.perf_counter()
    before = memory.now()
    from sf_jax.cli import loading
    from sf_jax.convert import hf
    from sf_jax.reader import estimator

    _, weights = hf.load(folder, dtype=np.dtype(jax.numpy.dtype(dtype)), progress=False)
    loaded = time.perf_counter()
    alone = memory.peak - before
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(weights))
    del weights
    loading.compilation_cache()
    model = estimator.load(folder, dtype=dtype)
    ready = time.perf_counter()
    rows, _ = model.inputs([picture()])
    patches = rows.inputs["vision"]
    model.predict(picture(), max_words=words)
    compiled = time.perf_counter()
    answer = model.predict(picture(), max_words=words)
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
        "blank_line": int(program.end_of_words),
        "banned": np.flatnonzero(program.banned).tolist(),
        "words": words,
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


def theirs(folder: Path, dtype: str) -> dict[str, Any]:
    """The same in transformers, without jax, so that any Python with torch serves."""
    memory, start = PeakMemory(), time.perf_counter()
    import torch
    import transformers

    kind = transformers.Qwen3VLForConditionalGeneration  # loads lazily, so it is named here
    torch.set_num_threads(THREADS)
    imported = time.perf_counter()
    before = memory.now()
    model = kind.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="sdpa")
    loaded = time.perf_counter()
    alone = memory.peak - before
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    job = json.loads((folder / "job.json").read_text())
    with np.load(folder / "job.npz") as arrays:
        given = {
            name: torch.tensor(arrays[name]).long() for name in ("input_ids", "image_grid_thw")
        }
        given["pixel_values"] = torch.tensor(arrays["pixel_values"])
    given["attention_mask"] = torch.ones_like(given["input_ids"])
    given["mm_token_type_ids"] = (given["input_ids"] == model.config.image_token_id).int()
    prompt = given["input_ids"].shape[1]
    vocabulary = model.config.text_config.vocab_size
    free = sorted(set(range(vocabulary)) - set(job["banned"]))

    def allowed(_: int, ids: Any) -> list[int]:
        said = ids[prompt:].tolist()
        if len(said) < job["words"]:
            return free
        if len(said) == job["words"]:
            return [job["blank_line"]]
        return _next(said[job["words"] + 1 :], job["forced"], job["values"])

    longest = (
        job["words"]
        + 1
        + sum(map(len, job["forced"]))
        + sum(max(map(len, values)) for values in job["values"])
    )
    begin = time.perf_counter()
    with torch.no_grad():
        out = model.generate(
            **given,
            max_new_tokens=longest,
            do_sample=False,
            prefix_allowed_tokens_fn=allowed,
            pad_token_id=0,
        )
    done = time.perf_counter()
    return {
        "import s": imported - start,
        "load s": loaded - imported,
        "load peak / weights": alone / size,
        "answer s": done - begin,
        "passes": out.shape[1] - prompt,
        "peak GB": memory.peak / 1e9,
    }


def _next(said: list[int], forced: list[list[int]], values: list[list[list[int]]]) -> list[int]:
    """The tokens that may follow those of a block begun."""
    at = 0
    for before, spelt in zip(forced, values, strict=True):
        if len(said) < at + len(before):
            return [before[len(said) - at]]
        at += len(before)
        rest = said[at:]
        whole = [value for value in spelt if rest[: len(value)] == value]
        if not whole:
            return sorted({v[len(rest)] for v in spelt if v[: len(rest)] == rest})
        at += len(whole[0])
    return [0]  # the block is whole; what follows is not looked at


def run(arguments: list[str], python: str) -> dict[str, Any]:
    """Runs one side in a fresh process and returns what it measured."""
    limits = {"OMP_NUM_THREADS": str(THREADS), "HF_HUB_OFFLINE": "1"}
    limits["PYTHONPATH"] = str(Path(__file__).parents[2])
    done = subprocess.run(
        [python, str(Path(__file__)), *arguments],
        env=os.environ | limits,
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise ValueError(f"{' '.join(arguments)} failed, see above")
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


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(
        prog="sf-jax bench checkpoint",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=Path("runs/bench_checkpoint"))
    parser.add_argument("--size", default="2B", choices=("2B", "4B", "8B", "32B"))
    parser.add_argument("--words", type=int, default=64, help="tokens of the rationale")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--torch-python", help="compare with transformers, run by this Python")
    parser.add_argument("--side", choices=("ours", "theirs"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    folder = options.out / options.size
    if options.side:
        dtype = options.dtypes[0]
        done = (
            ours(folder, dtype, options.words) if options.side == "ours" else theirs(folder, dtype)
        )
        print(json.dumps(done))
        return
    if not folder.exists():
        with files.folder(folder) as inside:
            make_checkpoint(inside, options.size)
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for dtype in options.dtypes:
        common = [
            "--out",
            str(options.out),
            "--size",
            options.size,
            "--words",
            str(options.words),
            "--dtypes",
            dtype,
        ]
        results[dtype] = {"sf_jax": run([*common, "--side", "ours"], sys.executable)}
        if options.torch_python:
            found = run([*common, "--side", "theirs"], options.torch_python)
            results[dtype]["transformers"] = found
    print(table(results))


if __name__ == "__main__":
    main()
