"""`sf-jax data COMMAND`: makes and imports face records."""

import argparse
from collections.abc import Callable
from pathlib import Path

from sf_jax.cli import data_flawed, data_pairs, data_takes, datasets
from sf_jax.cli.arguments import Parser, UsageError, given_sources, source_arguments, whole


def _render(argv: list[str]) -> None:
    """Rendered faces with exact coefficients, deterministic from a seed.

    Faces come from several sources, chosen for each image by weight. Rigs and skins are a user's to
    supply; without them the built-in head and drawings are rendered. Some people, skins, rigs and
    drawing styles are in the evaluation split alone.
    """
    parser = Parser(prog="sf-jax data render", description=_render.__doc__)
    add = parser.add_argument
    add("--out", required=True, help="folder for the record files")
    add("--count", type=whole(1, 1_000_000), default=10_000, help="faces (default 10,000)")
    add("--split", choices=("train", "evaluation"), default="train", help="whose people")
    add("--seed", type=whole(0, 10**9), default=0, help="of people, expressions and scenes")
    add("--workers", type=whole(1, 1024), default=2, help="processes (default 2)")
    add("--mixture", help="NAME=WEIGHT,… of sources (default: all that the given files allow)")
    add("--side", type=whole(32, 1024), default=160, help="of the images in pixels (default 160)")
    source_arguments(parser)
    options = parser.parse_args(argv)
    from data_pipelines import mixtures, rendering
    from data_pipelines.sources import Framing, parse_weights

    inputs = given_sources(options)
    weights = mixtures.default_weights(inputs)
    if options.mixture is not None:
        weights = parse_weights(options.mixture)
    mixture = mixtures.build(weights, inputs, seed=options.seed, framing=Framing(options.side))
    mixture.check(options.split)
    print("sources: " + ", ".join(f"{name} {weight:g}" for name, weight in weights.items()))
    if options.mixture is None and None in (inputs.rigs, inputs.skins):
        print("rigs and skins make a model read more kinds of faces; see --rigs and --skins")
    how = {"split": options.split, "workers": options.workers}
    rendering.render(options.out, options.count, mixture, **how)


def _scenes(argv: list[str]) -> None:
    """Composed scenes: up to four heads of all looks over clutter, with landmarks and squares.

    They are what a finder of faces is trained on and measured with. One in ten has no face.
    """
    parser = Parser(prog="sf-jax data scenes", description=_scenes.__doc__)
    add = parser.add_argument
    add("--out", required=True, help="folder for the record files")
    add("--count", type=whole(1, 190_000), default=10_000, help="scenes (default 10,000)")
    add("--split", choices=("train", "evaluation"), default="train", help="whose people")
    add("--seed", type=whole(0, 10**9), default=0, help="of everything")
    add("--workers", type=whole(1, 1024), default=2, help="processes (default 2)")
    add("--mixture", help="NAME=WEIGHT,… of sources (default: all that the given files allow)")
    add("--size", type=_size, help="HEIGHTxWIDTH of all scenes (default: several)")
    source_arguments(parser)
    options = parser.parse_args(argv)
    from data_pipelines import mixtures, rendering, scenes
    from data_pipelines.sources import parse_weights

    inputs = given_sources(options)
    weights = mixtures.default_weights(inputs, scenes=True)
    if options.mixture is not None:
        weights = parse_weights(options.mixture)
    mixture = mixtures.build(weights, inputs, seed=options.seed)
    maker = scenes.Scenes(mixture, inputs.backgrounds, options.size)
    maker.check(options.split)
    print("sources: " + ", ".join(f"{name} {weight:g}" for name, weight in weights.items()))
    how = {"split": options.split, "workers": options.workers}
    rendering.render(options.out, options.count, maker, **how)


def _sets(argv: list[str]) -> None:
    """The sets that a model is measured on, of what is held out of training.

    Each becomes a folder of records, for sf-jax evaluate and for measuring the finder. Faces are
    framed widely, so that finding and framing them is measured too. Sets whose rigs, skins or
    portraits are not given are left out.
    """
    parser = Parser(prog="sf-jax data sets", description=_sets.__doc__)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for a folder of each set")
    add("--sets", nargs="+", metavar="NAME", help="which (default: all)")
    add("--count", type=whole(1, 100_000), help="records a set (default: 1,000; framing 300)")
    add("--workers", type=whole(1, 1024), default=2, help="processes (default 2)")
    source_arguments(parser)
    options = parser.parse_args(argv)
    from data_pipelines import evaluation_sets

    names = options.sets or list(evaluation_sets.SETS)
    inputs = given_sources(options)
    for line in evaluation_sets.write(options.out, inputs, names, options.count, options.workers):
        print(line)


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    side = whole(64, 4096)
    return int(side(height)), int(side(width))


def _skins(argv: list[str]) -> None:
    """Skins from portraits: people to render, each a shape and a colour for every vertex of a rig.

    Portraits are frontal photographs of shut mouths and open eyes. Those that do not do are refused
    with the reason. A contact sheet is written beside FILE, under the ending .png.
    """
    parser = Parser(prog="sf-jax data skins", description=_skins.__doc__)
    add = parser.add_argument
    add("portraits", type=Path, help="folder of images; landmarks68 in its portraits.jsonl is used")
    add("--rig", type=Path, required=True, help="rig with identity directions, as ICT-FaceKit")
    add("--out", type=Path, required=True, metavar="FILE", help=".npz to write")
    add("--only", type=Path, help="names of portraits to take: a text file, or a file of skins")
    add("--model", type=Path, help="reads landmarks that are not listed (default: the built-in)")
    options = parser.parse_args(argv)
    from data_pipelines import skins
    from sf_jax.render import rigs

    if options.out.suffix.lower() != ".npz":
        raise UsageError("a file of skins ends in .npz", path=options.out)
    only = None if options.only is None else skins.read_names(options.only)
    portraits = skins.candidates(options.portraits, only)
    rig, find = rigs.load(options.rig), None
    if any(portrait.landmarks is None for portrait in portraits):
        from sf_jax.cli.loading import load_model

        find = skins.landmarks_by(load_model(options.model).framer)
    for line in skins.summary(skins.make(portraits, rig, options.out, find)):
        print(line)


def _import_swift(argv: list[str]) -> None:
    """MS-SWIFT training lines (messages with the answer, images) → face records."""
    parser = Parser(prog="sf-jax data import-swift", description=_import_swift.__doc__)
    add = parser.add_argument
    add("file", type=Path, help="JSONL with messages and images")
    add("--out", type=Path, required=True, help="folder for the record file")
    add("--skip-bad", action="store_true", help="list bad lines and go on")
    add(
        "--eye-pitch",
        choices=("down", "up"),
        default="down",
        help="what a positive eye pitch means in the file (KeyframeFace: up)",
    )
    options = parser.parse_args(argv)
    from data_pipelines import records, swift
    from sf_jax.media import locks

    target = options.out / f"{options.file.stem}.array_record"
    with locks.held(options.out, f".{target.name}.lock"):
        if target.exists():  # of this file, or of another of its name
            raise UsageError("exists already; remove it, or name another folder", path=target)
        lines = swift.convert(options.file, options.skip_bad, options.eye_pitch)
        print(f"{records.write(target, lines)} records in {target}")


def _compare_take(argv: list[str]) -> None:
    """The sampler beside a recorded take: marginals and pairwise correlations in one plot."""
    parser = Parser(prog="sf-jax data compare-take", description=_compare_take.__doc__)
    parser.add_argument("take", type=Path, help="a Live Link Face CSV")
    parser.add_argument("--out", type=Path, required=True, help="PNG to write")
    options = parser.parse_args(argv)
    from data_pipelines import compare_take

    notes, agreement = compare_take.compare(options.take, options.out)
    for note in notes:
        print(f"{options.take}: {note}")
    print(f"pairwise correlations agree at r = {agreement:.2f}; plot in {options.out}")


def _describe(argv: list[str]) -> None:
    """Rationales for records, each checked against the record's coefficients.

    The teacher is the rule-based describer; or with --model a Qwen3 or Qwen3-VL directory; or with
    --endpoint a server with OpenAI's interface, which is sent coefficients and never images. A text
    that contradicts the coefficients is sent back once and otherwise rejected: the record is left
    out and listed with the reasons. A run that was stopped goes on where it was.
    """
    parser = Parser(prog="sf-jax data describe", description=_describe.__doc__)
    add = parser.add_argument
    add("records", type=Path, help="folder of record files")
    add("--out", type=Path, required=True, help="folder for the record files with rationales")
    add("--model", type=Path, help="model directory of an instruction-tuned Qwen3 or Qwen3-VL")
    add("--dtype", choices=("float32", "bfloat16"), help="of --model (default: by the device)")
    add("--rows", type=whole(1, 1024), default=8, help="records at once, for --model")
    add("--tokens", type=whole(1, 4096), default=512, help="of a rationale at most, for --model")
    add("--endpoint", metavar="URL", help="of the interface, as http://localhost:8000/v1")
    add("--name", help="of the model at the endpoint")
    add("--requests", type=whole(1, 10**9), help="to the endpoint at most, retries included")
    add("--parallel", type=whole(1, 256), default=4, help="requests at once")
    add("--key-variable", default="OPENAI_API_KEY", help="environment variable of the key")
    options = parser.parse_args(argv)
    if options.endpoint and options.model:
        raise UsageError("--model and --endpoint are two teachers; name one")
    if options.endpoint and (options.name is None or options.requests is None):
        raise UsageError("--endpoint needs --name, the model there, and --requests, a cap")
    from data_pipelines import records, teachers, teaching

    records.files(options.records)  # what cannot be read is reported before a model is loaded
    teacher: teachers.Teacher = teachers.Describer()
    if options.endpoint:
        how = {"most": options.requests, "parallel": options.parallel}
        key = options.key_variable
        teacher = teachers.Endpoint(options.endpoint, options.name, **how, key_variable=key)
    elif options.model:
        from sf_jax.reader import loading

        loading.compilation_cache()
        rows, cap = options.rows, options.tokens
        teacher = teachers.LocalModel(options.model, rows, cap, options.dtype)
    for line in teaching.summary(teaching.teach(options.records, options.out, teacher)):
        print(line)


COMMANDS: dict[str, tuple[Callable[[list[str]], int | None], str]] = {
    "render": (_render, "render faces into record files"),
    "scenes": (_scenes, "compose scenes of several heads, for finding faces"),
    "pipeline": (datasets.pipeline, "a whole dataset with manifest, on one machine or many"),
    "verify": (datasets.verify, "compare a folder of records with its manifest"),
    "sets": (_sets, "the sets that a model is measured on"),
    "skins": (_skins, "skins of people to render, from portraits and a rig"),
    "describe": (_describe, "rationales for records by a teacher, checked against coefficients"),
    "import-swift": (_import_swift, "MS-SWIFT training lines and their images → record files"),
    "import-take": (data_takes.main, "recorded takes and labelled images → record files"),
    "flawed": (data_flawed.main, "records with faulty labels, and their truth in another file"),
    "pairs": (data_pairs.main, "pairs of answers for people to judge"),
    "build": (datasets.build, "a TFDS dataset of rendered faces or of record files"),
    "compare-take": (_compare_take, "plot the sampler beside a recorded take"),
}


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="sf-jax data", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (_, text) in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser


def main(argv: list[str]) -> int:
    """Runs a command, or lists them; the exit code.

    Raises:
      UsageError: there is none of that name.
    """
    if not argv or argv[0] in ("-h", "--help"):
        build_parser().print_help()
        return 0
    if argv[0] not in COMMANDS:
        raise UsageError(f"no data command {argv[0]!r}; there are {', '.join(COMMANDS)}")
    return COMMANDS[argv[0]][0](argv[1:]) or 0
