"""The `sf-jax` command."""

import argparse
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sf_jax.cli.arguments import Parser, UsageError, number, whole
from sf_jax.media import files

if TYPE_CHECKING:  # jax takes seconds to import, which `sf-jax --help` need not wait for
    from sf_jax.reader.estimator import Model

DEMO_SEED = 1_000_007  # a made-up person whom training never met


def _predict_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("paths", nargs="*", type=Path, metavar="IMAGE|VIDEO|FOLDER")
    add("--out", type=Path, help="folder for JSON, CSV and previews")
    add("--model", type=Path, help="model directory (default: the built-in model)")
    add("--adapter", type=Path, help="directory of a LoRA adapter in PEFT's layout")
    add(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="of the weights (default: float32 on a CPU, bfloat16 elsewhere)",
    )
    add(
        "--prompt",
        type=Path,
        metavar="FILE",
        help='{"messages": …} as in a request, asked of a model that is not built in',
    )
    add(
        "--max-words",
        type=whole(1, 4096),
        metavar="TOKENS",
        help="cap on the rationale (default: 120 built-in, 512 other models)",
    )
    add("--crop", action="store_true", help="find the face and read a square around it")
    add(
        "--values",
        choices=("mean", "answer"),
        default="mean",
        help="slot means (finer) or the values spoken (one decimal); default mean",
    )
    add("--smooth", action="store_true", help="one-euro filter over the frames of a video")
    add("--neutral", type=Path, metavar="IMAGE", help="this person at rest, to be subtracted")
    add(
        "--fps",
        type=number(0, True, "a positive number"),
        help="frame rate, instead of the video's own (pictures: 30)",
    )
    add("--drop-frame", action="store_true", help="drop-frame timecode at 29.97 and 59.94")
    add("--no-words", dest="words", action="store_false", help="numbers only, about twice as fast")
    add("--no-preview", dest="previews", action="store_false", help="write no preview sheets")
    add(
        "--temperature",
        type=number(0, False, "0 or more"),
        default=0.0,
        help="0 takes the likeliest answer (default)",
    )
    add("--seed", type=whole(0, 2**32 - 1), default=0, help="of sampling at a temperature above 0")
    _request_arguments(parser.add_argument_group("instead of pictures: MS-SWIFT requests"))


def _request_arguments(group: Any) -> None:
    add = group.add_argument
    add(
        "--requests",
        type=Path,
        metavar="FILE.jsonl",
        help="a request a line, with one picture each; paths are relative to this file. The "
        "built-in model answers its own question: it keeps the messages, unread",
    )
    add(
        "--results",
        type=Path,
        metavar="OUT.jsonl",
        help='a result line for every request, in order; one that failed has an "error" and no '
        "response, and the exit code is 2. OUT.jsonl.partial until it is whole",
    )
    add(
        "--csv",
        type=Path,
        metavar="OUT.csv",
        help="the numbers (see --values) as Live Link Face CSV, a row a request, in order. The "
        "row of one that failed has empty values and a BlendShapeCount of 0",
    )


def compilation_cache() -> None:
    """Keeps compiled programs between runs, so that a second run starts at once."""
    import jax

    home = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    jax.config.update("jax_compilation_cache_dir", os.path.join(home, "sf_jax", "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def load_model(
    directory: Path | None, adapter: Path | None = None, dtype: str | None = None
) -> "Model":
    """The model of a directory, by default the built-in one, compiled once a machine."""
    compilation_cache()
    from sf_jax.reader import estimator

    return estimator.load(directory, adapter, dtype=dtype)


def _prompt(path: Path | None) -> Any:
    """The messages in a file of one request, or None."""
    if path is None:
        return None
    from sf_jax.face import answers
    from sf_jax.sequence.chat import chat_text

    try:
        messages = answers.read_line(str(path), 1, path.read_text(encoding="utf-8-sig")).messages
        chat_text(messages, [1])
    except ValueError as error:
        raise UsageError(f"{path}: {error}".replace(f"{path}: {path}", str(path))) from error
    return messages


def _predict(options: argparse.Namespace) -> int:
    if options.requests or options.results or options.csv:
        return _predict_requests(options)
    if not options.paths or options.out is None:
        lacking = "--out" if options.paths else "IMAGE|VIDEO|FOLDER or --requests"
        raise UsageError(f"{lacking} is required (see sf-jax predict --help)")
    if options.prompt and options.model is None:
        raise UsageError("--prompt is for another --model; the built-in one has its own question")
    missing = [f"{path}: no such file or folder" for path in options.paths if not path.exists()]
    if len(missing) == len(options.paths):  # said before the model is loaded
        return _failed(missing)
    from sf_jax.reader.files import PredictOptions, predict_files

    chosen = vars(options) | {"prompt": _prompt(options.prompt)}
    names = PredictOptions.__dataclass_fields__
    model = load_model(options.model, options.adapter, options.dtype)
    return _failed(
        predict_files(
            model, options.paths, PredictOptions(**{name: chosen[name] for name in names})
        )
    )


def _predict_requests(options: argparse.Namespace) -> int:
    """Reads all requests before the model is loaded, so that a broken line costs no time."""
    if options.requests is None or options.results is None:
        lacking = "--results" if options.requests else "--requests"
        raise UsageError(f"{lacking} is required (see sf-jax predict --help)")
    for name in ("paths", "out", "smooth", "prompt"):
        if getattr(options, name):
            said = "a picture, video or folder" if name == "paths" else f"--{name}"
            raise UsageError(f"--requests does not go with {said} (see sf-jax predict --help)")
    files = [path.resolve() for path in (options.requests, options.results, options.csv) if path]
    if len(set(files)) < len(files):
        raise UsageError("--requests, --results and --csv must be different files")
    for path in files:
        if path.is_dir():  # else told after the work, when the results take their name
            raise UsageError(f"{path}: a folder, expected a file")
    from sf_jax.reader import requests
    from sf_jax.reader.files import PredictOptions, Reader

    read = requests.read_requests(options.requests)
    chosen = vars(options) | {"out": options.results.parent}
    names = PredictOptions.__dataclass_fields__
    model = load_model(options.model, options.adapter, options.dtype)
    reader = Reader(model, PredictOptions(**{name: chosen[name] for name in names}))
    failures = requests.predict_requests(reader, read, options.results, options.csv)
    print(f"{len(read)} results in {options.results}")
    return _failed(failures)


def _failed(failures: list[str]) -> int:
    """Prints failures, a line each, and gives the exit code."""
    for failure in failures:
        print(f"sf-jax: error: {_one_line(failure)}", file=sys.stderr)
    return 2 if failures else 0


def _demo(options: argparse.Namespace) -> int:
    """Renders one made-up face and reads it."""
    from PIL import Image

    from sf_jax.render.draw import draw
    from sf_jax.render.head import builtin
    from sf_jax.render.scene import random_scene

    sample = importlib.import_module("data_pipelines.sampler").sample
    options.out.mkdir(parents=True, exist_ok=True)
    scene = random_scene(options.seed, options.seed, len(builtin().identity))
    face = draw(builtin(), sample(options.seed), scene, 192, 192)
    with files.replacing(options.out / "face.png") as file:
        Image.fromarray(face.image).save(file, "PNG")
    return main(["predict", str(options.out / "face.png"), "--out", str(options.out)])


BENCHMARKS = ("attention", "checkpoint", "decode", "passes", "plans", "serve", "train")


def _experiments() -> list[str]:
    folder = Path(str(importlib.import_module("experiments").__file__)).parent
    return sorted(path.stem for path in folder.glob("[a-z]*.py"))


def _train(arguments: list[str]) -> int:
    """Runs `experiments/NAME.py`, or lists the names; 143 where it was told to stop."""
    known = ", ".join(_experiments())
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: sf-jax train EXPERIMENT …\n\nexperiments: {known}")
        return 0
    if arguments[0] not in _experiments():
        raise UsageError(f"no experiment {arguments[0]!r}; there are {known}")
    from sf_jax.train.checkpoint import CheckpointError
    from sf_jax.train.loop import Stopped, TrainingError

    compilation_cache()
    try:
        importlib.import_module(f"experiments.{arguments[0]}").main(arguments[1:])
    except Stopped as stopped:
        print(f"sf-jax: {stopped}", file=sys.stderr)
        return 143  # as a process that SIGTERM ended
    except (CheckpointError, TrainingError) as error:
        return _failed([str(error)])
    return 0


def _evaluate(arguments: list[str]) -> None:
    compilation_cache()
    importlib.import_module("sf_jax.systems.semanticface.evaluate").main(arguments)


def _data(arguments: list[str]) -> None:
    importlib.import_module("data_pipelines.__main__").main(arguments)


def _bench(arguments: list[str]) -> None:
    """Runs `sf_jax/bench/NAME.py`, or lists the names."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(f"usage: sf-jax bench NAME …\n\nbenchmarks: {', '.join(BENCHMARKS)}")
    elif arguments[0] not in BENCHMARKS:
        raise UsageError(f"no benchmark {arguments[0]!r}; there are {', '.join(BENCHMARKS)}")
    else:
        importlib.import_module(f"sf_jax.bench.{arguments[0]}").main(arguments[1:])


def _compile(arguments: list[str]) -> None:
    # Asked before jax starts: the compiler then looks for no TPU on this machine.
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "JAX_PLATFORMS": "cpu"}
    importlib.import_module("sf_jax.cli.compile").main(arguments)


def _convert(arguments: list[str]) -> int:
    from sf_jax.convert import directories as conversion

    return conversion.main(arguments)


def _serve(arguments: list[str]) -> int:
    try:
        from sf_jax.serve import server as serve
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("fastapi", "pydantic", "starlette", "uvicorn"):
            raise
        raise UsageError(
            f"serve needs {error.name}, which is not installed: pip install 'sf_jax[serve]'"
        ) from error
    serve.main(arguments, load_model)
    return 0


def _schema(arguments: list[str]) -> None:
    """Prints the JSON Schema of the numbers of an answer."""
    import json

    parser = Parser(prog="sf-jax schema", description="The JSON Schema of an answer's numbers.")
    parser.parse_args(arguments)
    from sf_jax.reader.estimator import SCHEMA

    print(json.dumps(SCHEMA.json_schema(), indent=2))


# Commands whose arguments are read by the module that they start, imported only then.
HANDED_ON: dict[str, tuple[Callable[[list[str]], int | None], str]] = {
    "train": (_train, "run an experiment: sf-jax train builtin_model"),
    "evaluate": (_evaluate, "measure a model on rendered faces, beside all baselines"),
    "convert": (_convert, "checkpoints in and out, adapters merged, logits verified"),
    "serve": (_serve, "answer pictures over HTTP, several at a time"),
    "compile": (_compile, "compile a train step for a slice of TPUs, and say whether it fits"),
    "bench": (_bench, "time one thing beside another, in one run"),
    "schema": (_schema, "print the JSON Schema of the numbers of an answer"),
    "data": (_data, "render faces, import other people's data, build the dataset"),
}


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="sf-jax", description="Facial action estimation.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    predict = commands.add_parser("predict", help="pictures and videos → words and coefficients")
    _predict_arguments(predict)
    demo = commands.add_parser("demo", help="render a made-up face and read it")
    demo.add_argument("--out", type=Path, default=Path("demo"))
    demo.add_argument("--seed", type=int, default=DEMO_SEED)
    for name, (_, text) in HANDED_ON.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser


def _dispatch(argv: list[str]) -> int:
    if argv and argv[0] in HANDED_ON:
        return HANDED_ON[argv[0]][0](argv[1:]) or 0
    parser = build_parser()
    options = parser.parse_args(argv)
    if options.command is None:
        parser.print_help()
        return 0
    return {"predict": _predict, "demo": _demo}[options.command](options)


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; the exit code is 2 for bad input, with one line that says why."""
    try:
        return _dispatch(sys.argv[1:] if argv is None else argv)
    except (ValueError, OSError) as error:
        return _failed([str(error)])
    except KeyboardInterrupt:
        print("sf-jax: stopped", file=sys.stderr)
        return 130


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
