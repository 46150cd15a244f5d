"""`sf-jax data pairs`: a folder of pairs of answers for people to judge."""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sf_jax.cli.arguments import Parser, UsageError, number, whole
from sf_jax.cli.report import failed

if TYPE_CHECKING:
    import numpy as np

    from sf_jax.media.errors import DataError
    from sf_jax.reader.inputs import Input
    from sf_jax.systems.superface.asking import Asking, Summary

PER_IMAGE = 8  # pairs of an image, where neither --per-image nor the count asks for more


def main(argv: list[str]) -> int:
    """Pairs of answers for images, for sf-jax annotate.

    For each image candidates are sampled from the model, taken from another model (--other), and
    proposed by changing the model's own answer. Two of them that differ in the upper or the lower
    face alone make a pair: both are rendered on one rig in the pose of the image, with the region
    outlined. Pairs that look the same are left out. A folder that has pairs already
    is added to; its judgements stay.

        sf-jax data pairs photographs --out judge --count 200
        sf-jax annotate judge
    """
    parser = Parser(prog="sf-jax data pairs", description=main.__doc__)
    add = parser.add_argument
    add("images", nargs="+", type=Path, metavar="IMAGE", help="images, and folders of images")
    add("--out", type=Path, required=True, help="folder of the pairs, made or added to")
    add("--model", type=Path, help="model directory (default: the built-in model)")
    add("--other", type=Path, help="directory of another model, whose answers are candidates too")
    add("--rig", type=Path, help="rig file to render (default: the built-in head)")
    add("--whole", action="store_true", help="read whole images, also where the model finds faces")
    add(
        "--crop", action="store_true", help="find the face, also where the model reads whole images"
    )
    add("--count", type=whole(1, 1_000_000), default=200, help="pairs to add")
    add(
        "--per-image",
        type=whole(1, 1000),
        help=f"pairs an image (default: {PER_IMAGE}, or what --count needs)",
    )
    add("--size", type=whole(64, 1024), default=256, help="of a render in pixels")
    add(
        "--regions",
        nargs="+",
        choices=("upper", "lower", "whole"),
        default=("upper", "lower"),
        help="parts of the face that are judged, each by itself",
    )
    add(
        "--temperatures",
        nargs="+",
        type=number(0, True, "a temperature above 0", 10),
        default=(0.5, 0.8, 1.2),
        metavar="T",
        help="one answer is sampled at each",
    )
    add(
        "--least",
        type=number(0, False, "a difference of 0 or more", 100),
        help="visible difference of a pair at least, see docs/preferences.md (default: 1)",
    )
    share = number(0, False, "a share from 0 to 1", 1)
    gold = "share of pairs whose better one is known, which measure annotators"
    add("--gold", type=share, default=0.04, metavar="SHARE", help=gold)
    add("--seed", type=whole(0, 10**9), default=0, help="of all that is drawn")
    options = parser.parse_args(argv)
    if options.whole and options.crop:
        raise UsageError("--whole reads whole images, --crop reads faces; give one of them")
    return _fill(options)


def _fill(options: argparse.Namespace) -> int:
    """Adds pairs; the exit code, 2 where an image could not be read."""
    from tqdm import tqdm

    from sf_jax.cli.loading import load_model
    from sf_jax.reader.inputs import collect
    from sf_jax.render import rigs
    from sf_jax.render.head import builtin
    from sf_jax.systems.superface import asking, folder
    from sf_jax.systems.superface.renders import Renderer

    found = collect(options.images)
    pictures = found.pictures
    failures = list(found.failures)
    if not pictures:
        raise failures[0] if failures else UsageError("no image in it", path=options.images[0])
    rig = builtin() if options.rig is None else rigs.load(options.rig)
    renderer = Renderer(rig, options.size, options.size)
    name = "built-in" if options.model is None else options.model.resolve().name
    header = folder.Header(name, rig.name, options.size)
    per_image = options.per_image or max(PER_IMAGE, -(-options.count // len(pictures)))
    with folder.filling(options.out, header) as adding:
        before = len(adding.pairs)
        model = load_model(options.model)
        other = None
        if options.other is not None:
            other = (options.other.resolve().name, load_model(options.other))
        with tqdm(total=len(pictures), desc="pairs", unit="image", disable=None) as bar:
            summary = asking.fill(
                adding,
                _read(pictures, failures),
                model,
                renderer,
                _how(options),
                options.count,
                per_image,
                other,
                lambda: bar.update() and None,
            )
        if not summary.pairs and not before:
            raise UsageError(_nothing(summary, failures), path=options.images[0])
    for line in summary.lines():
        print(line)
    if not summary.pairs:
        print("nothing was added; another --seed draws other answers to the same images")
    print(f"{len(adding.pairs):,} pairs in {options.out}; sf-jax annotate {options.out} shows them")
    return failed(failures)


def _how(options: argparse.Namespace) -> "Asking":
    from sf_jax.systems.superface.asking import VISIBLE, Asking

    return Asking(
        regions=tuple(dict.fromkeys(options.regions)),
        temperatures=tuple(options.temperatures),
        least=VISIBLE if options.least is None else options.least,
        gold=options.gold,
        whole=False if options.crop else (options.whole or None),
        seed=options.seed,
    )


def _nothing(summary: "Summary", failures: Sequence["DataError"]) -> str:
    """Why a folder would have no pairs at all."""
    if summary.faceless:
        return "no face was found in the images, so there is nothing to judge"
    if failures:
        return f"no image could be read: {failures[0]}"
    return "no two candidates differ visibly; a smaller --least asks for finer differences"


def _read(pictures: Sequence["Input"], failures: list["DataError"]) -> "Iterator[np.ndarray]":
    """The images that can be read; errors of the others are added to the list."""
    from sf_jax.media.images import ImageError, read_image

    for picture in pictures:
        try:
            yield read_image(picture.path)
        except ImageError as error:
            failures.append(error)
