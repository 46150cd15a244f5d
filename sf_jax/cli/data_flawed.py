"""`sf-jax data flawed`: records with faulty labels whose truth is known."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sf_jax.cli.arguments import Parser, number, whole

if TYPE_CHECKING:
    from sf_jax.systems.superface.corruption import Corruption

FAULTS = ("tied", "floors", "gains", "crosstalk", "dropped")


def main(argv: list[str]) -> None:
    """Face records with faulty labels, whose truth is kept apart.

    The labels of a folder of records are replaced by such as capture software gives: left and right
    forced together, floors, gain, crosstalk between neighbours, and channels dropped for a whole
    take; or, with --labels, by those of a file, such as MediaPipe's of the same images, which
    sf-jax bench mediapipe_labels writes. The true coefficients go to a file that must be outside
    the new folder, so that nothing that trains on it can read them.

        sf-jax data flawed faces --out flawed --truth truth.npz --seed 1
        sf-jax data flawed faces --out read --truth read.npz --labels mediapipe.csv
    """
    parser = Parser(prog="sf-jax data flawed", description=main.__doc__)
    add = parser.add_argument
    add("records", type=Path, help="folder of record files with exact coefficients")
    add("--out", type=Path, required=True, help="folder to make, for the record files")
    add("--truth", type=Path, required=True, metavar="FILE", help=".npz file to make")
    add("--labels", type=Path, metavar="FILE", help="labels by image, in place of corrupted ones")
    add("--tracker", help="name of what made --labels (default: as the file shows)")
    add("--seed", type=whole(0, 10**9), default=0, help="of the faults")
    add("--take", type=whole(1, 10**6), default=40, help="records that lack the same channels")
    share = number(0, False, "a share from 0 to 1", 1)
    add("--dropped", type=share, default=0.5, help="share of channels that a take lacks")
    add("--without", nargs="+", choices=FAULTS, default=(), help="faults to leave out")
    options = parser.parse_args(argv)
    from sf_jax.face import labels
    from sf_jax.systems.superface import flawed

    where = options.records, options.out, options.truth
    if options.labels is not None:
        written = flawed.labelled(
            *where, labels.read(options.labels, tracker=options.tracker, pseudo=True)
        )
    else:
        how = _corruption(options.dropped, options.without)
        written = flawed.corrupted(*where, options.seed, how, options.take)
    print(f"{written.records:,} records in {options.out}; their truth in {options.truth}")
    if written.without:
        print(f"{len(written.without):,} records left out: their images have no label")


def _corruption(dropped: float, without: tuple[str, ...]) -> "Corruption":
    from sf_jax.systems.superface.corruption import Corruption

    none: dict[str, dict[str, Any]] = {
        "tied": {"tied": False},
        "floors": {"floored": 0.0, "floors": (0.0, 0.0)},
        "gains": {"gains": (1.0, 1.0)},
        "crosstalk": {"crosstalk": 0.0},
        "dropped": {"dropped": 0.0},
    }
    how = Corruption(dropped=dropped)
    for fault in without:
        how = replace(how, **none[fault])
    return how
