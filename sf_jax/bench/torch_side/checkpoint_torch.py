"""Run by a Python that has torch and transformers: loads a checkpoint and answers one image.

    python sf_jax/bench/torch_side/checkpoint_torch.py FOLDER DTYPE THREADS

FOLDER holds the checkpoint, and `job.json` and `job.npz` as `sf-jax bench checkpoint` writes them.
Prints a line of JSON of what it measured. Imports neither jax nor this package.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def measure(folder: Path, dtype: str, threads: int) -> dict[str, Any]:
    """Seconds and memory of loading and of one greedy answer under the job's grammar."""
    from any_torchvision import import_torchvision
    from peak_memory import PeakMemory

    memory, start = PeakMemory(), time.perf_counter()
    import torch

    import_torchvision()
    import transformers

    kind = transformers.Qwen3VLForConditionalGeneration  # loads lazily, so it is named here
    torch.set_num_threads(threads)
    imported = time.perf_counter()
    before = memory.now()
    model = kind.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="sdpa")
    loaded = time.perf_counter()
    alone = memory.peak - before
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    job = json.loads((folder / "job.json").read_text())
    given = _given(folder, model.config.image_token_id)
    prompt = given["input_ids"].shape[1]
    vocabulary = model.config.text_config.vocab_size
    free = sorted(set(range(vocabulary)) - set(job["banned"]))

    def allowed(_: int, ids: "torch.Tensor") -> list[int]:
        return next_tokens(ids[prompt:].tolist(), job, free)

    begin = time.perf_counter()
    with torch.no_grad():
        out = model.generate(
            **given,
            max_new_tokens=_longest(job),
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


def _given(folder: Path, image_token: int) -> dict[str, Any]:
    """Inputs of `generate`."""
    import torch

    with np.load(folder / "job.npz") as arrays:
        given = {
            name: torch.tensor(arrays[name]).long() for name in ("input_ids", "image_grid_thw")
        }
        given["pixel_values"] = torch.tensor(arrays["pixel_values"])
    given["attention_mask"] = torch.ones_like(given["input_ids"])
    given["mm_token_type_ids"] = (given["input_ids"] == image_token).int()
    return given


def _longest(job: dict[str, Any]) -> int:
    forced = sum(map(len, job["forced"]))
    return job["rationale"] + 1 + forced + sum(max(map(len, values)) for values in job["values"])


def next_tokens(generated: list[int], job: dict[str, Any], free: list[int]) -> list[int]:
    """The tokens that may follow: `job["rationale"]` free ones, a blank line, then the block."""
    count = job["rationale"]
    if len(generated) < count:
        return free
    if len(generated) == count:
        return [job["blank_line"]]
    return _block_tokens(generated[count + 1 :], job["forced"], job["values"])


def _block_tokens(
    generated: list[int], forced: list[list[int]], values: list[list[list[int]]]
) -> list[int]:
    at = 0
    for before, spelt in zip(forced, values, strict=True):
        if len(generated) < at + len(before):
            return [before[len(generated) - at]]
        at += len(before)
        rest = generated[at:]
        complete = [value for value in spelt if rest[: len(value)] == value]
        if not complete:
            return sorted({v[len(rest)] for v in spelt if v[: len(rest)] == rest})
        at += len(complete[0])
    return [0]  # the block is complete; what follows is ignored


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
