"""Reads images, folders, videos or a file of requests; writes JSON, CSV and preview sheets."""

import argparse
from pathlib import Path
from typing import Any

from sf_jax.cli import loading
from sf_jax.cli.arguments import Adds, Parser, UsageError, former, model_arguments, number, whole
from sf_jax.cli.report import failed

HELP = "see sf-jax predict --help"


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="sf-jax predict", description=__doc__)
    add = parser.add_argument
    add("paths", nargs="*", type=Path, metavar="IMAGE|VIDEO|FOLDER")
    add("--out", type=Path, help="folder for JSON, CSV and previews")
    model_arguments(parser)
    add(
        "--prompt",
        type=Path,
        metavar="FILE",
        help='{"messages": …} as in a request, asked of a model that is not built in',
    )
    add("--crop", action="store_true", help="find the face and read a square around it")
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
        type=number(0, True, "a positive number"),
        help="frame rate, instead of the video's own (images: 30)",
    )
    add("--drop-frame", action="store_true", help="drop-frame timecode at 29.97 and 59.94")
    add("--no-preview", dest="previews", action="store_false", help="write no preview sheets")
    _request_arguments(parser.add_argument_group("instead of images: MS-SWIFT requests"))
    return parser


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
        type=number(0, False, "0 or more"),
        default=0.0,
        help="0 takes the likeliest answer (default)",
    )
    add("--seed", type=whole(0, 2**32 - 1), default=0, help="of sampling at a temperature above 0")


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
        "response, and the exit code is 2. OUT.jsonl.partial until it is complete",
    )
    add(
        "--csv",
        type=Path,
        metavar="OUT.csv",
        help="the coefficients (see --values) as Live Link Face CSV, a row a request, in order. "
        "The row of one that failed has empty values and a BlendShapeCount of 0",
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


def _predict(options: argparse.Namespace) -> int:
    if not options.paths or options.out is None:
        lacking = "--out" if options.paths else "IMAGE|VIDEO|FOLDER or --requests"
        raise UsageError(f"{lacking} is required ({HELP})")
    if options.prompt and options.model is None:
        raise UsageError("--prompt is for another --model; the built-in one has its own question")
    problem = "no such file or folder"
    missing = [UsageError(problem, path=path) for path in options.paths if not path.exists()]
    if len(missing) == len(options.paths):  # before a model is loaded
        return failed(missing)
    from sf_jax.reader.files import PredictOptions, predict_files

    chosen = vars(options) | {"prompt": _prompt(options.prompt)}
    names = PredictOptions.__dataclass_fields__
    model = loading.load_model(options.model, options.adapter, options.dtype)
    return failed(
        predict_files(
            model, options.paths, PredictOptions(**{name: chosen[name] for name in names})
        )
    )


def _predict_requests(options: argparse.Namespace) -> int:
    """Reads all requests before the model is loaded, so that a broken line costs no time."""
    _check_requests(options)
    from sf_jax.reader import requests
    from sf_jax.reader.files import PredictOptions, Reader

    read = requests.read_requests(options.requests)
    chosen = vars(options) | {"out": options.results.parent}
    names = PredictOptions.__dataclass_fields__
    model = loading.load_model(options.model, options.adapter, options.dtype)
    reader = Reader(model, PredictOptions(**{name: chosen[name] for name in names}))
    failures = requests.predict_requests(reader, read, options.results, options.csv)
    print(f"{len(read)} results in {options.results}")
    return failed(failures)


def _check_requests(options: argparse.Namespace) -> None:
    if options.requests is None or options.results is None:
        lacking = "--results" if options.requests else "--requests"
        raise UsageError(f"{lacking} is required ({HELP})")
    for name in ("paths", "out", "smooth", "prompt"):
        if getattr(options, name):
            flag = "an image, video or folder" if name == "paths" else f"--{name}"
            raise UsageError(f"--requests does not go with {flag} ({HELP})")
    files = [path.resolve() for path in (options.requests, options.results, options.csv) if path]
    if len(set(files)) < len(files):
        raise UsageError("--requests, --results and --csv must be different files")
    for path in files:
        if path.is_dir():  # else found after the work, when the results are renamed
            raise UsageError("a folder, expected a file", path=path)


def main(argv: list[str]) -> int:
    options = build_parser().parse_args(argv)
    if options.requests or options.results or options.csv:
        return _predict_requests(options)
    return _predict(options)
