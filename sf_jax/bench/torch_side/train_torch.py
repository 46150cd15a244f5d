"""Run by a Python that has torch and transformers: takes training steps when it is asked to.

    python sf_jax/bench/torch_side/train_torch.py FOLDER

FOLDER holds `job.json` and `job.npz` as `bench_train.write_job` makes them: the checkpoint, the
optimiser's settings, and padded rows of examples with their pictures. Prints a line of JSON that
tells its modes; then, for each line it reads, takes a step in the mode of that name and prints the
loss, the seconds, and those of all threads together.

Modes: `padded`, the whole batch at once; `in parts`, gradients summed over as many parts of it as
our side takes; `compiled`, at once, the model under torch.compile. Imports neither jax nor this
package.
"""

import argparse
import json
import logging
import sys
import time
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np


class Training:
    """A model that is trained on one batch again and again."""

    def __init__(self, job: dict[str, Any], arrays: dict[str, np.ndarray], mode: str):
        import torch
        from any_torchvision import import_torchvision

        import_torchvision()
        import transformers

        self.torch, self.job, self.steps = torch, job, 0
        torch.set_num_threads(job["threads"])
        kind = transformers.Qwen3VLForConditionalGeneration  # loads lazily, so it is named here
        self.model = kind.from_pretrained(
            job["checkpoint"], dtype=torch.float32, attn_implementation="sdpa"
        ).train()
        self.call = torch.compile(self.model) if mode == "compiled" else self.model
        parameters = list(self.model.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": job["weight_decay"]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=job["rates"][0], betas=tuple(job["betas"]), eps=job["eps"], fused=True
        )
        given = {name: torch.from_numpy(array) for name, array in arrays.items()}
        self.weights = given.pop("loss_weights")[:, 1:]
        self.whole = self.weights.sum()
        self.targets = given.pop("targets").long()[:, 1:]
        for name in ("input_ids", "attention_mask", "image_grid_thw"):
            given[name] = given[name].long()
        image = given["input_ids"] == self.model.config.image_token_id
        given["mm_token_type_ids"] = image.int()
        patches = given["image_grid_thw"].prod(1).tolist()
        each = len(patches) // (job["parts"] if mode == "in parts" else 1)
        starts = range(0, len(patches), each)
        pixels = given.pop("pixel_values").split([sum(patches[i : i + each]) for i in starts])
        self.parts = [
            (
                slice(i, i + each),
                {name: x[i : i + each] for name, x in given.items()} | {"pixel_values": part},
            )
            for i, part in zip(starts, pixels, strict=True)
        ]

    def __call__(self) -> float:
        """Takes a step; the loss before it."""
        torch = self.torch
        for group in self.optimizer.param_groups:
            group["lr"] = self.job["rates"][self.steps]
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for rows, given in self.parts:
            logits = self.call(**given, use_cache=False).logits[:, :-1]
            losses = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), self.targets[rows].flatten(), reduction="none"
            )
            loss = (losses * self.weights[rows].flatten()).sum() / self.whole
            loss.backward()
            total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.job["clip"])
        self.optimizer.step()
        self.steps += 1
        return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    job = json.loads((folder / "job.json").read_text())
    if "compiled" in job["modes"]:  # of which torch tells every part that it leaves uncompiled
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
    with np.load(folder / "job.npz") as found:
        arrays = dict(found)
    modes = {mode: Training(job, arrays, mode) for mode in job["modes"]}
    versions = {name: metadata.version(name) for name in ("torch", "transformers")}
    print(json.dumps({"modes": job["modes"], "versions": versions}), flush=True)
    for line in sys.stdin:
        begin, used = time.perf_counter(), time.process_time()
        loss = modes[line.strip()]()
        taken = time.perf_counter() - begin, time.process_time() - used
        print(json.dumps([loss, *taken]), flush=True)


if __name__ == "__main__":
    main()
