"""Reads images, folders, videos or a file of requests; writes JSON, CSV and preview sheets."""

import argparse
import re
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sf_jax.cli import loading, show
from sf_jax.cli.arguments import Adds, Parser, UsageError, former, model_arguments, number, whole
from sf_jax.cli.report import failed
from sf_jax.decode.limits import MOST_TEMPERATURE, SEEDS
from sf_jax.media.errors import printable
from sf_jax.media.interrupts import Stopped, stoppable
from sf_jax.media.video_times import MAX_FPS, MIN_FPS

if TYPE_CHECKING:  # they bring jax, which `--help` need not wait for
    from sf_jax.reader.estimator import Model
    from sf_jax.reader.job import Job
    from sf_jax.reader.reader import PredictOptions

HELP = "see sf-jax predict --help"


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="sf-jax predict", description=__doc__)
    add = parser.add_argument
    add("paths", nargs="*", type=Path, metavar="IMAGE|VIDEO|FOLDER", help="to be read")
    add(
        "--out",
        type=Path,
        help="folder for JSON, CSV and previews; without it readings are printed",
    )
    _folder_arguments(parser)
    model_arguments(parser)
    add(
        "--prompt",
        type=Path,
        metavar="FILE",
        help='{"messages": …} as in a request, asked of a model that is not built in',
    )
    _face_arguments(parser.add_argument_group("faces"))
    _rationale_arguments(parser)
    add(
        "--values",
        choices=("mean", "answer"),
        default="mean",
        help="slot means (finer) or the generated values (one decimal); default mean",
    )
    add("--smooth", action="store_true", help="one-euro filter over the frames of a video")
    add("--neutral", type=Path, metavar="IMAGE", help="this person at rest, to be subtracted")
    add(
        "--fps",
        type=number(MIN_FPS, False, f"a positive number from {MIN_FPS:g} to {MAX_FPS:g}", MAX_FPS),
        help="frames of a video are evenly spaced at this rate, whatever times the file has "
        "(default: the times in the file); images become frames of a take at this rate (default: "
        "unrelated images, one row a second)",
    )
    add("--drop-frame", action="store_true", help="drop-frame timecode at 29.97 and 59.94")
    add(
        "--source-column",
        action="store_true",
        help="name the image of each row in a last column of the CSV, which Unreal's importer "
        "takes for a channel; NAME.index.csv names it in any case",
    )
    add("--no-preview", dest="previews", action="store_false", help="write no preview sheets")
    _request_arguments(parser.add_argument_group("instead of images: MS-SWIFT requests"))
    return parser


def _face_arguments(group: Adds) -> None:
    add = group.add_argument
    add(
        "--whole",
        action="store_true",
        help="read whole images (default of models that were not trained on framed faces)",
    )
    add(
        "--crop",
        action="store_true",
        help="find the face and read the square around it (default of models that were trained on "
        "framed faces, as their folder's finder.safetensors shows)",
    )
    add(
        "--face",
        type=_face,
        default="largest",
        metavar="largest|all|N",
        help="which face to read: the largest (default); all, each with a result and a row of its "
        "own; or the Nth from the left. A video keeps to the person that it begins with",
    )
    add(
        "--force",
        action="store_true",
        help="read the whole image where no face is found; else its row is empty, and the exit "
        "code is 2 if it is the only image",
    )


def _face(text: str) -> str | int:
    """Which face."""
    if text in ("largest", "all"):
        return text
    if re.fullmatch(r"[1-9]\d{0,3}", text):
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is none of largest, all and a number from 1")


def _folder_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--recursive", action="store_true", help="search the folders in a folder too")
    add(
        "--skip-existing",
        action="store_true",
        help="leave out files whose complete results are in --out, made of the same file with the "
        "same model and options",
    )
    add("--show", action="store_true", help="open the preview sheet of the one file given")


def _rationale_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    off: dict[str, Any] = {"dest": "rationale", "action": "store_false"}
    cap: dict[str, Any] = {"dest": "max_rationale", "type": whole(1, 4096), "metavar": "TOKENS"}
    add("--no-rationale", help="coefficients only, about twice as fast", **off)
    add(
        "--max-rationale-tokens",
        help="cap on the tokens of the rationale (default: 120 built-in, 512 other models)",
        **cap,
    )
    former(parser, "--no-words", **off)
    former(parser, "--max-words", **cap)
    add(
        "--temperature",
        type=number(0, False, f"a number from 0 to {MOST_TEMPERATURE:g}", MOST_TEMPERATURE),
        default=0.0,
        help="0 samples nothing (default)",
    )
    add("--seed", type=whole(0, SEEDS - 1), default=0, help="of sampling at a temperature above 0")


def _request_arguments(group: Adds) -> None:
    add = group.add_argument
    add(
        "--requests",
        type=Path,
        metavar="FILE.jsonl",
        help="a request a line, with one image each; paths are relative to this file. The "
        "built-in model answers its own question: it keeps the messages, unread",
    )
    add(
        "--results",
        type=Path,
        metavar="OUT.jsonl",
        help='a result line for every request, in order; one that failed has an "error" and no '
        "response, and the exit code is 2. OUT.partial.jsonl until it is complete",
    )
    add(
        "--csv",
        type=Path,
        metavar="OUT.csv",
        help="the coefficients (see --values) as Live Link Face CSV, a row a request, in order, "
        "with OUT.index.csv. One that failed has a row of empty values and a BlendShapeCount of 0",
    )


def _prompt(path: Path | None) -> Any:
    """The messages in a file of one request, or None."""
    if path is None:
        return None
    from sf_jax.face import answers
    from sf_jax.media import small_files
    from sf_jax.sequence.chat import chat_text

    try:
        messages = answers.read_line(1, small_files.read_bytes(path, pipes=True)).messages
        chat_text(messages, [1])
    except ValueError as error:
        raise UsageError.of(error, path=path) from error
    return messages


def _chosen(options: argparse.Namespace, **changed: Any) -> "PredictOptions":
    from sf_jax.reader.reader import PredictOptions

    given = vars(options) | changed
    return PredictOptions(**{name: given[name] for name in PredictOptions.__dataclass_fields__})


def _predict(options: argparse.Namespace) -> int:
    """Chooses all names before the model is loaded, so that what cannot be costs no time."""
    _check_paths(options)
    viewer = show.viewer() if options.show else None
    if options.show and options.out is None:
        options.out = Path(tempfile.mkdtemp(prefix="sf-jax-"))
    from sf_jax.reader.job import prepare

    chosen = _chosen(options, prompt=_prompt(options.prompt))
    with closing(prepare(options.paths, chosen)) as job:
        _check_found(options, job)
        return _read(options, job, viewer)


def _read(options: argparse.Namespace, job: "Job", viewer: str | None) -> int:
    if not (job.pictures or job.videos):
        return failed(job.failures)
    from sf_jax.reader.files import run

    model = _load(options)
    try:
        failures = run(model, job)
    except Stopped:
        failed(job.failures)
        raise
    if viewer and not failures:
        (names,) = job.plan.names.values()
        show.opened(viewer, names.path(".preview.png"))
    return failed(failures)


def _check_paths(options: argparse.Namespace) -> None:
    if not options.paths:
        raise UsageError(f"IMAGE|VIDEO|FOLDER or --requests is required ({HELP})")
    if options.prompt and options.model is None:
        raise UsageError("--prompt is for another --model; the built-in one has its own question")
    if options.skip_existing and options.out is None:
        raise UsageError("--skip-existing skips what is in --out, which is required then")
    if options.show and not options.previews:
        raise UsageError("--show opens the preview sheet, which --no-preview leaves out")
    if options.show and (len(options.paths) > 1 or options.paths[0].is_dir()):
        raise UsageError("--show opens the sheet of one image or video; name one")
    if options.show and options.face == "all":
        raise UsageError("--show opens one sheet; --face all draws one for each face")
    if options.face == "all" and (options.fps is not None or options.drop_frame):
        flag = "--drop-frame" if options.fps is None else "--fps"
        raise UsageError(f"{flag} makes images the frames of a take, of one face each, not all")
    _check_faces(options)


def _check_faces(options: argparse.Namespace) -> None:
    """Sets `whole` to what is asked for: None where neither flag is given."""
    if options.whole and options.crop:
        raise UsageError("--whole reads whole images, --crop reads faces; give one of them")
    for name, given in (("--face", options.face != "largest"), ("--force", options.force)):
        if options.whole and given:
            raise UsageError(f"{name} is for faces that are found; --whole reads whole images")
    options.whole = False if options.crop else (options.whole or None)


def _check_found(options: argparse.Namespace, job: "Job") -> None:
    if options.out is None and job.videos:
        raise UsageError("--out is required for the frames of a video", path=job.videos[0].path)
    if options.face == "all" and job.videos:
        problem = "a video is read for one person; --face is largest or a number"
        raise UsageError(problem, path=job.videos[0].path)
    if options.drop_frame and options.fps is None and job.pictures and not job.videos:
        raise UsageError(f"--drop-frame needs --fps 29.97 or 59.94 with images ({HELP})")


def _load(options: argparse.Namespace) -> "Model":
    from sf_jax.reader.progress import waiting

    with waiting("loading the model"):
        return loading.load_model(options.model, options.adapter, options.dtype)


def _predict_requests(options: argparse.Namespace) -> int:
    """Reads all requests before the model is loaded, so that a broken line costs no time."""
    _check_requests(options)
    from sf_jax.reader import requests, stills
    from sf_jax.reader.reader import Reader

    read = requests.read_requests(options.requests)
    tables = [options.csv, stills.index_path(options.csv)] if options.csv else []
    outputs = [options.results, *tables]
    inputs = [options.requests, *([options.neutral] if options.neutral else [])]
    requests.check_outputs(read, outputs, inputs)
    for index in tables[1:]:
        stills.check_index(index)
    reader = Reader(_load(options), _chosen(options))
    failures = requests.predict_requests(reader, read, options.results, options.csv)
    print(f"{len(read)} results in {printable(options.results)}")
    return failed(failures)


def _check_requests(options: argparse.Namespace) -> None:
    if options.requests is None or options.results is None:
        lacking = "--results" if options.requests else "--requests"
        raise UsageError(f"{lacking} is required ({HELP})")
    _check_faces(options)
    if options.face == "all":
        raise UsageError("a request has one answer; --face is largest or a number")
    if options.drop_frame and options.fps is None:
        raise UsageError(f"--drop-frame needs --fps 29.97 or 59.94 with --requests ({HELP})")
    for name in ("paths", "out", "smooth", "prompt", "recursive", "skip_existing", "show"):
        if getattr(options, name):
            flag = f"--{name.replace('_', '-')}" if name != "paths" else "an image, video or folder"
            raise UsageError(f"--requests does not go with {flag} ({HELP})")


def main(argv: list[str]) -> int:
    options = build_parser().parse_args(argv)
    with stoppable():
        if options.requests or options.results or options.csv:
            return _predict_requests(options)
        return _predict(options)
