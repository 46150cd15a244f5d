"""`sf-jax data pipeline`, `verify` and `build`: whole datasets."""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sf_jax.cli.arguments import Parser, UsageError, given_sources, source_arguments, whole

if TYPE_CHECKING:
    from data_pipelines.checked_faces import CheckedFaces
    from data_pipelines.dataset import Plan
    from data_pipelines.manifest import Manifest

LOCAL = "local"


def pipeline(argv: list[str]) -> None:
    """A whole dataset in one command: rendered, described, checked, with a manifest.

    Writes record files of both splits, a manifest with their checksums and a dataset card. The same
    seed gives the same files whatever the runner and the number of workers. Files that are complete
    are kept, so a run that was killed is continued by the same command. How much disk the dataset
    takes is estimated first.

    By default processes of this machine make it. With --runner it runs on Apache Beam:
    DirectRunner is Beam on this machine, others are clusters, whose workers must all see --out.
    What follows after -- are options of Beam.

        sf-jax data pipeline --out faces --train 100000 --evaluation 2000
        sf-jax data pipeline --out faces --runner DirectRunner -- --direct_num_workers=2
    """
    parser = Parser(prog="sf-jax data pipeline", description=pipeline.__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for the dataset")
    add("--train", type=whole(0, 1_000_000), default=10_000, help="faces to train on")
    add("--evaluation", type=whole(0, 1_000_000), default=1000, help="faces of other people")
    add("--seed", type=whole(0, 10**9), default=0, help="of people, expressions and scenes")
    add("--workers", type=whole(1, 1024), default=2, help="processes of the local runner")
    add("--shard", type=whole(1, 1_000_000), default=2000, help="records a file")
    add("--mixture", help="NAME=WEIGHT,… of sources (default: all that the given files allow)")
    add("--side", type=whole(32, 1024), default=160, help="of the images in pixels")
    add("--runner", default=LOCAL, help="local, or a runner of Apache Beam")
    add("--estimate", action="store_true", help="print the disk it takes, and make nothing")
    source_arguments(parser)
    add("beam", nargs="*", metavar="-- BEAM", help="options of Beam, with --runner")
    options = parser.parse_args(argv)
    if options.beam and options.runner == LOCAL:
        parser.error(f"unrecognized arguments: {' '.join(options.beam)}")
    _pipeline(options)


def _pipeline(options: argparse.Namespace) -> None:
    from data_pipelines import dataset

    plan, maker = _planned(options)
    found = dataset.estimate(plan, maker)
    total = sum(plan.counts.values())
    print(
        f"{total:,} records in {len(plan.jobs()):,} files, about {found.record / 1e3:.1f} kB each: "
        f"{dataset.gigabytes(found.total)} to write, {dataset.gigabytes(found.free)} free",
        flush=True,
    )
    if options.estimate:
        return
    found.check(plan.out)
    if options.runner == LOCAL:
        _local(plan, maker, options.workers)
        return
    from data_pipelines import beam_runner

    start = time.monotonic()
    made, kept = beam_runner.make(plan, maker, options.runner, options.beam)
    _summary(plan, made, time.monotonic() - start, kept)


def _planned(options: argparse.Namespace) -> "tuple[Plan, CheckedFaces]":
    """What to make and of what, with its sources loaded once.

    Raises:
      DataError: an input is missing or damaged.
    """
    from data_pipelines import dataset, mixtures
    from data_pipelines.checked_faces import CheckedFaces
    from data_pipelines.sources import Framing, parse_weights

    counts = {"train": options.train, "evaluation": options.evaluation}
    counts = {split: count for split, count in counts.items() if count}
    if not counts:
        raise UsageError("--train and --evaluation are 0: nothing to make")
    inputs = given_sources(options)
    weights = mixtures.default_weights(inputs)
    if options.mixture is not None:
        weights = parse_weights(options.mixture)
    mixture = mixtures.build(weights, inputs, seed=options.seed, framing=Framing(options.side))
    for split in counts:
        mixture.check(split)
    print("sources: " + ", ".join(f"{name} {weight:g}" for name, weight in weights.items()))
    return dataset.Plan(options.out, counts, options.shard), CheckedFaces(mixture)


def _local(plan: "Plan", maker: "CheckedFaces", workers: int) -> None:
    from tqdm import tqdm

    from data_pipelines import dataset
    from data_pipelines.dataset import Made

    start, kept = time.monotonic(), 0
    with tqdm(total=sum(plan.counts.values()), desc="records", unit="record") as bar:

        def progress(made: Made) -> None:
            nonlocal kept
            kept += made.summary.shard.records if made.kept else 0
            bar.update(made.summary.shard.records)

        made = dataset.make(plan, maker, workers, progress)
    _summary(plan, made, time.monotonic() - start, kept)


def _summary(plan: "Plan", made: "Manifest", seconds: float, kept: int | None) -> None:
    """Prints what was made.

    Args:
      kept: records that were there before; None where that is not known, and no speed is.
    """
    total = sum(split.records for split in made.header.splits.values())
    rationales = sum(shard.rationales for shard in made.shards)
    rejected = sum(shard.rejected for shard in made.shards)
    new = total - (kept or 0)
    speed = "" if kept is None else f", {new / seconds:.0f} records/s"
    before = f" ({kept:,} were there)" if kept else ""
    print(
        f"{new:,} records made{before} in {seconds:.0f} s{speed}; "
        f"{rationales:,} rationales checked and stored, {rejected:,} rejected"
    )
    for name, split in made.header.splits.items():
        print(f"{name}: {split.records:,} records, {split.files} files, {split.people or 0} people")
    print(f"no person is in two splits; manifest and card in {plan.out}")


def verify(argv: list[str]) -> None:
    """Compares a folder of records with its manifest; names every file and record that differs.

    Found are flipped bytes, truncated and missing files, files and lines of the manifest that are
    too many or too few, records that are missing or there twice, and people who are in two splits.
    A folder without a manifest is read whole and compared with itself. Exit code 2 where anything
    is found.
    """
    parser = Parser(prog="sf-jax data verify", description=verify.__doc__)
    parser.add_argument("folder", type=Path, help="with *.array_record files")
    parser.add_argument("--images", action="store_true", help="decode every image too")
    options = parser.parse_args(argv)
    from tqdm import tqdm

    from data_pipelines import verifying

    with tqdm(desc="verify", unit="file", disable=None) as bar:
        found = verifying.verify(
            options.folder, images=options.images, progress=lambda name: bar.update() and None
        )
    for problem in found.problems:
        print(problem, file=sys.stderr)
    if found.problems:
        count = len(found.problems)
        raise UsageError(
            f"{count} problem{'s' if count > 1 else ''} found, listed above", path=options.folder
        )
    compared = "as its manifest has them" if found.sealed else "readable; no manifest to compare"
    print(
        f"{options.folder}: {found.records:,} records of {found.people:,} people in {found.files} "
        f"files, {compared}"
    )


def build(argv: list[str]) -> None:
    """A TensorFlow Datasets dataset that needs no TensorFlow.

    Of faces of the built-in head that are rendered for it, or, with --records, of folders of face
    records: rendered, imported or described ones.
    """
    parser = Parser(prog="sf-jax data build", description=build.__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="TFDS data directory")
    add("--train", type=int, default=10_000, help="faces to render and train on")
    add("--evaluation", type=int, default=1000, help="held-out faces to render")
    add("--records", type=Path, nargs="+", metavar="DIR", help="folders of records to build from")
    add("--name", default="faces", help="of the configuration of --records")
    options = parser.parse_args(argv)
    from data_pipelines import faces_builder, records_builder

    if options.records:
        built = records_builder.build(options.out, options.records, options.name)
    else:
        built = faces_builder.build(options.out, options.train, options.evaluation)
    print(built.info)
