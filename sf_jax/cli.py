"""The `sf-jax` command."""

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import Any

DEMO_SEED = 1_000_003  # a made-up person whom training never met


def _predict_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("paths", nargs="+", type=Path, metavar="IMAGE|VIDEO|FOLDER")
    add("--out", type=Path, required=True, help="folder for JSON, CSV and previews")
    add("--model", type=Path, help="model directory (default: the built-in model)")
    add("--crop", action="store_true", help="find the face and read a square around it")
    add("--values", choices=("mean", "answer"), default="mean",
        help="slot means (finer) or the values spoken (one decimal); default mean")  # fmt: skip
    add("--smooth", action="store_true", help="one-euro filter over the frames of a video")
    add("--neutral", type=Path, metavar="IMAGE", help="this person at rest, to be subtracted")
    add("--fps", type=float, help="frame rate, instead of the video's own (pictures: 30)")
    add("--drop-frame", action="store_true", help="drop-frame timecode at 29.97 and 59.94")
    add("--no-words", dest="words", action="store_false", help="numbers only, about twice as fast")
    add("--no-preview", dest="previews", action="store_false", help="write no preview sheets")
    add("--temperature", type=float, default=0.0, help="0 takes the likeliest answer (default)")
    add("--seed", type=int, default=0, help="of sampling at a temperature above 0")


def _compilation_cache() -> None:
    """Keeps compiled programs between runs, so that a second run starts at once."""
    import jax

    home = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
    jax.config.update("jax_compilation_cache_dir", os.path.join(home, "sf_jax", "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def _predict(options: argparse.Namespace) -> int:
    _compilation_cache()
    from sf_jax import estimator
    from sf_jax.predict import PredictOptions, predict_files

    chosen = vars(options)
    names = PredictOptions.__dataclass_fields__
    model = estimator.load(options.model)
    failures = predict_files(
        model, options.paths, PredictOptions(**{name: chosen[name] for name in names})
    )
    for failure in failures:
        print(f"sf-jax: error: {failure}", file=sys.stderr)
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
    Image.fromarray(face.image).save(options.out / "face.png")
    return main(["predict", str(options.out / "face.png"), "--out", str(options.out)])


def _experiment(name: str, arguments: list[str]) -> int:
    """Runs `experiments/NAME.py`."""
    folder = Path(str(importlib.import_module("experiments").__file__)).parent
    known = sorted(path.stem for path in folder.glob("[a-z]*.py"))
    if name not in known:
        raise ValueError(f"no experiment {name!r}; there are {', '.join(known)}")
    importlib.import_module(f"experiments.{name}").main(arguments)
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sf-jax", description="Facial action estimation.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    predict = commands.add_parser("predict", help="pictures and videos → words and coefficients")
    _predict_arguments(predict)
    demo = commands.add_parser("demo", help="render a made-up face and read it")
    demo.add_argument("--out", type=Path, default=Path("demo"))
    demo.add_argument("--seed", type=int, default=DEMO_SEED)
    for name, text in (
        ("train", "run an experiment: sf-jax train builtin_model"),
        ("evaluate", "measure a model on rendered faces, beside all baselines"),
        ("data", "render faces, import other people's data, build the dataset"),
    ):
        commands.add_parser(name, help=text, add_help=False)
    return parser


def _dispatch(argv: list[str]) -> int:
    parser = build_parser()
    command = argv[0] if argv else None
    if command in ("train", "evaluate", "data"):
        rest = argv[1:]
        if command == "train":
            if not rest or rest[0].startswith("-"):
                raise ValueError("train needs the name of an experiment, such as builtin_model")
            return _experiment(rest[0], rest[1:])
        if command == "evaluate":
            return _experiment("evaluate", rest)
        importlib.import_module("data_pipelines.__main__").main(rest)
        return 0
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
        print(f"sf-jax: error: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sf-jax: stopped", file=sys.stderr)
        return 130


def _one_line(error: Any) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
