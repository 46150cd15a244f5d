"""`sf-jax data import-take`: recorded performances → face records."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sf_jax.cli.arguments import Parser, UsageError, number, whole
from sf_jax.media.errors import DataError

if TYPE_CHECKING:
    from data_pipelines.takes import Import


def main(argv: list[str]) -> None:
    """A recorded performance, or labelled images, as face records.

    LABELS is a Live Link Face CSV; the JSON of MediaPipe's Face Landmarker; iFacialMocap's packets,
    one a line; a CSV with a column of image names; or JSON lines. FRAMES is the video, or a folder
    of images. LABELS may also be a folder: of takes as Live Link Face makes them, or of Express4D;
    FRAMES is then the folder of their videos.

    The clocks of file and video are related by cross-correlation of blinks and jaw, which a model
    reads off the video, or by timecode. Dropped, doubled and inserted frames and rows, and other
    rates, are found and named; what is in doubt is left out. Channels without labels are masked.
    The result is a new folder of records with import.json, quality.png and contact.png; of several
    takes a folder each, and those that are there already are left as they are.
    """
    options = _parser().parse_args(argv)
    from data_pipelines import take_frames, takes
    from sf_jax.cli.loading import load_model

    found = takes.takes_of(options.labels, options.frames)
    named, many = found.takes, len(found.takes) > 1
    if not many and options.out.exists():
        raise UsageError("exists already; name a folder that does not", path=options.out)
    how, model, failed = _how(options), load_model(options.model), len(found.lacking)
    for line in (*found.notes, *(f"not imported: {error}" for error in found.lacking)):
        print(line)
    for take in named:
        target = options.out / take.name if many else options.out
        if target.exists():
            print(f"{target}: imported already")
            continue
        reader = take_frames.model_reader(model)
        try:
            done = takes.import_take(take.labels, take.shown, target, reader, how)
        except DataError as error:
            if not many:
                raise
            failed += 1
            print(f"not imported: {error}")
        else:
            print("\n".join(done.lines()))
    if failed:
        count = len(named) + len(found.lacking)
        raise UsageError(f"{failed} of {count} takes were not imported", path=options.labels)


def _parser() -> Parser:
    parser = Parser(prog="sf-jax data import-take", description=main.__doc__)
    add = parser.add_argument
    add("labels", type=Path, metavar="LABELS", help="file of labels, or folder of takes")
    add("frames", type=Path, nargs="?", metavar="FRAMES", help="video, or folder")
    add("--out", type=Path, required=True, help="folder to make, for the records")
    add(
        "--offset",
        type=_offset,
        default="auto",
        metavar="auto|timecode|SECONDS",
        help="of the video's clock at the first row of labels",
    )
    add(
        "--first-frame",
        type=int,
        choices=(0, 1),
        help="the first frame's number in LABELS (default: as the numbers show)",
    )
    rate = number(0, True, "a rate above 0", 1000)
    add("--fps", type=rate, help="rows a second of the labels (default: as their times have it)")
    add("--video-fps", type=rate, help="frames a second (default: the times in the video)")
    add("--person", help="name of the person, for all of their takes (default: the file's name)")
    add("--split", choices=("train", "evaluation"), default="train", help="of the person")
    add(
        "--neutral",
        type=_neutral,
        metavar="auto|START-END",
        help="subtract the face at rest: the stillest half second, or seconds of the labels",
    )
    add("--mask", type=_channels, default=(), metavar="NAME,…", help="channels to leave unknown")
    add("--tracker", help="name of what made the labels (default: as the file shows)")
    add("--pseudo", action="store_true", help="another model made the labels, none measured them")
    add("--eye-pitch", choices=("down", "up"), default="down", help="what a positive one means")
    add("--every", type=whole(1, 10_000), default=1, help="keep one of so many pairs")
    add("--side", type=whole(32, 1024), default=160, help="of the images in pixels")
    add("--model", type=Path, help="reads the frames (default: the built-in model)")
    return parser


def _how(options: argparse.Namespace) -> "Import":
    from data_pipelines.takes import Import

    return Import(
        split=options.split,
        person=options.person,
        offset=options.offset,
        first_frame=options.first_frame,
        fps=options.fps,
        video_fps=options.video_fps,
        eye_pitch=options.eye_pitch,
        tracker=options.tracker,
        pseudo=options.pseudo,
        neutral=options.neutral,
        masked=options.mask,
        every=options.every,
        side=options.side,
    )


def _offset(text: str) -> str | float:
    if text in ("auto", "timecode"):
        return text
    return number(-86400, False, "auto, timecode or a number of seconds", 86400)(text)


def _neutral(text: str) -> str | tuple[float, float]:
    if text == "auto":
        return text
    start, _, end = text.partition("-")
    second = number(0, False, "auto or START-END in seconds")
    found = second(start), second(end)
    if found[0] > found[1]:
        raise argparse.ArgumentTypeError(f"{text!r} ends before it starts")
    return found


def _channels(text: str) -> tuple[str, ...]:
    from sf_jax.face.channels import UnknownChannel, lookup

    try:
        return tuple(lookup(name).name for name in text.split(",") if name.strip())
    except UnknownChannel as error:
        raise argparse.ArgumentTypeError(str(error)) from error
