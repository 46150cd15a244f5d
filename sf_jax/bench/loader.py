"""`sf-jax bench loader`: examples a second of the loader, beside PyTorch's DataLoader.

Both read the same face records in shuffled order and make batches of images, coefficients and their
masks, in a process of its own each, on the same two cores:

    sf_jax          `data_pipelines/loader.py`, threads of one process
    torch, N        torch.utils.data.DataLoader with N worker processes, 0 to 2

The first table has the same decoder on both sides: OpenCV, and the checks of our records. In the
second the DataLoader decodes images by Pillow, as datasets of torchvision do by default, and checks
nothing. Rounds take turns, and the best number of workers counts. Other work on the cores changes
the figures: measure on an idle machine.

    sf-jax bench loader --records faces                          # needs the extra "porting"
    sf-jax bench loader --records faces --torch-python PYTHON    # one with torch and this package
"""

import argparse
import importlib.util
import io
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines import loader, records
from sf_jax.bench.decode import cores_held, run
from sf_jax.cli.arguments import Parser, UsageError, whole
from sf_jax.media import files

FIELDS = ("image", "coefficients", "known")
DECODERS = ("same", "own")
OURS = "sf_jax"
WORKERS = (0, 1, 2)
WARM_UP = 4  # batches
THREADS = 2


def ours(folder: Path, size: int) -> Iterator[Any]:
    """Batches of our loader, without end."""
    batches, _ = loader.faces(folder, size, stacked, seed=1, threads=THREADS)
    return iter(batches)


def stacked(rows: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """The fields that are compared, rows together."""
    return {name: np.stack([row[name] for row in rows]) for name in FIELDS}


def by_pillow(data: bytes) -> dict[str, Any]:
    """A record whose image Pillow decodes, unchecked."""
    record = records.unpacked(data, ())
    image = np.array(Image.open(io.BytesIO(record["image"])).convert("RGB"))
    known = record.get("known", np.ones(61, bool))
    return {"image": image, "coefficients": record["coefficients"], "known": known}


class Dataset:
    """A map-style dataset of PyTorch: record number → fields; opens files where it is used."""

    def __init__(self, folder: Path, decode: Callable[[bytes], dict[str, Any]]):
        self._paths, self._decode = records.files(folder), decode
        self._count = sum(map(records.count, self._paths))
        self._source: loader.RecordSource | None = None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self._source is None:  # in each worker its own, not one from before a fork
            self._source = loader.RecordSource(self._paths, self._decode)
        record = self._source[index]
        return {name: record[name] for name in FIELDS}


def torchs(folder: Path, size: int, decoder: str, workers: int) -> Iterator[Any]:
    """Batches of PyTorch's DataLoader, without end."""
    import torch

    torch.set_num_threads(THREADS)
    # Decoded arrays may be read-only; the DataLoader copies them into its batches.
    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
    decode = records.decode if decoder == "same" else by_pillow
    data = torch.utils.data.DataLoader(
        Dataset(folder, decode),  # type: ignore[arg-type]
        batch_size=size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(1),
    )
    while True:
        yield from data


def measure(batches: Iterator[Any], size: int, count: int) -> dict[str, float]:
    """Examples a second of `count` batches after a warm-up, and what a batch held."""
    for _ in range(WARM_UP):
        found = next(batches)
    start = time.perf_counter()
    for _ in range(count):
        found = next(batches)
    seconds = time.perf_counter() - start
    return {
        "rate": size * count / seconds,
        "bytes": sum(np.asarray(x).nbytes for x in found.values()),
    }


def side(options: argparse.Namespace) -> dict[str, float]:
    """One measurement, in this process."""
    workers = options.side.removeprefix("torch-")
    if options.side == OURS:
        batches = ours(options.records, options.batch)
    else:
        batches = torchs(options.records, options.batch, options.decoder, int(workers))
    return measure(batches, options.batch, options.batches)


def compare(options: argparse.Namespace, python: str) -> dict[str, dict[str, list[float]]]:
    """Examples a second by decoder and side, a figure a round."""
    names = [OURS, *(f"torch-{n}" for n in WORKERS)]
    found: dict[str, dict[str, list[float]]] = {}
    with cores_held():
        for _ in range(options.rounds):
            for decoder in DECODERS:
                rates = found.setdefault(decoder, {name: [] for name in names})
                for name in names:
                    command = [sys.executable if name == OURS else python]
                    command += ["-m", "sf_jax.bench.loader", "--side", name, "--decoder", decoder]
                    command += ["--records", str(options.records), "--batch", str(options.batch)]
                    command += ["--batches", str(options.batches)]
                    measured = run(command)
                    rates[name].append(measured["rate"])
                    print(
                        f"{decoder} decoder, {name}: {measured['rate']:.0f} examples/s, others had "
                        f"{measured['others']:.2f} cores",
                        file=sys.stderr,
                    )
    return found


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Medians, and our ratio to the best number of workers."""
    lines = ["| decoder | side | examples/s, median | least and most |", "|---|---|---|---|"]
    ratios = []
    for decoder, rates in found.items():
        medians = {name: statistics.median(each) for name, each in rates.items()}
        for name, each in rates.items():
            spread = f"{min(each):.0f} to {max(each):.0f}"
            lines.append(f"| {decoder} | {name} | {medians[name]:.0f} | {spread} |")
        best = max((name for name in rates if name != OURS), key=lambda name: medians[name])
        ratio = medians[OURS] / medians[best]
        ratios.append(f"{decoder} decoder: {ratio:.2f} x the DataLoader's best ({best})")
    return "\n".join([*lines, "", *ratios])


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="sf-jax bench loader", description=__doc__)
    add = parser.add_argument
    add("--records", type=Path, required=True, help="folder of face records of one image size")
    add("--torch-python", metavar="PYTHON", help="one with torch and this package (default: this)")
    add("--batch", type=whole(1, 4096), default=64, help="examples a batch")
    add("--batches", type=whole(1, 100_000), default=60, help="batches of a measurement")
    add("--rounds", type=whole(1, 100), default=3, help="measurements of each side")
    add("--out", type=Path, help="folder for loader.md (default: printed)")
    add("--side", help=argparse.SUPPRESS)
    add("--decoder", choices=DECODERS, default="same", help=argparse.SUPPRESS)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    options = build_parser().parse_args(argv)
    if options.side:
        print(json.dumps(side(options)))
        return
    shapes = {record["image"].shape for record in records.first(options.records, 64)}
    if len(shapes) > 1:
        raise UsageError(
            "images are of several sizes, which no batch can hold", path=options.records
        )
    if options.torch_python is None and importlib.util.find_spec("torch") is None:
        raise UsageError("no torch here: install the extra 'porting', or give --torch-python")
    text = table(compare(options, options.torch_python or sys.executable))
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        command = f"sf-jax bench loader --records DIR --batch {options.batch}"
        command += f" --batches {options.batches} --rounds {options.rounds}"
        files.write_text(options.out / "loader.md", f"# Loader\n\n`{command}`\n\n{text}\n")


if __name__ == "__main__":
    main()
