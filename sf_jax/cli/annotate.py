"""Judge pairs of rendered faces on a web page, and get the judgements out and in.

    sf-jax data pairs photos/*.jpg --out pairs
    sf-jax annotate pairs
    sf-jax annotate pairs --agreement
    sf-jax annotate pairs --export judgements.jsonl

DIR is a folder of pairs. The page shows the image and two renders, and asks which is nearer in the
upper or the lower face: by arrow keys, or by buttons on a telephone. Judgements are in
judgements.sqlite in DIR, each on the disk before the next pair is shown. Several people may judge
at once, each under a name of their own.

A share of the pairs is shown to everybody, a share is shown again later with the sides exchanged,
and pairs whose better candidate is known are among the others. --agreement makes a table of these.

To reach the page from another machine: ssh -L 8010:127.0.0.1:8010 HOST.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sf_jax.cli.arguments import Parser, UsageError, number, whole

if TYPE_CHECKING:
    from sf_jax.systems.superface.folder import PairFolder

FRAMEWORK = ("fastapi", "starlette", "uvicorn")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="sf-jax annotate", description=__doc__)
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="folder of pairs, from sf-jax data pairs")
    add("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    add("--port", type=whole(0, 65535), default=8010, help="0 takes a free one")
    add("--annotator", metavar="NAME", help="take judgements of this name alone (default: ask)")
    part = number(0, False, "a share from 0 to 1", 1)
    shares: dict[str, Any] = {"type": part, "metavar": "SHARE"}
    add("--overlap", default=0.1, help="of the pairs, which every annotator judges", **shares)
    add("--repeats", default=0.05, help="of the tasks, which are hidden repeats", **shares)
    instead = parser.add_argument_group("in place of the page").add_mutually_exclusive_group()
    instead.add_argument(
        "--agreement",
        action="store_true",
        help="print how far annotators agree, and how reliable each is",
    )
    instead.add_argument(
        "--export", type=Path, metavar="FILE", help="write the judgements as JSON lines"
    )
    instead.add_argument(
        "--import",
        dest="added",
        type=Path,
        metavar="FILE",
        help="add judgements that --export wrote, from here or from a copy of DIR",
    )
    add(
        "--format",
        choices=("judgements", "trl"),
        default="judgements",
        help="of --export: every judgement, or TRL's preference dataset",
    )
    return parser


def main(argv: list[str]) -> None:
    """Serves the page until a signal comes, or exports, imports or measures.

    Raises:
      UsageError: the arguments are wrong, or the web framework is not installed.
      DataError: the folder, its database or a file is damaged.
      OSError: a file cannot be written, or the address cannot be listened on.
    """
    options = build_parser().parse_args(argv)
    from sf_jax.systems.superface import exchange, folder, reliability, store

    pairs = folder.read(options.folder)
    if options.export is not None:
        with store.reading(pairs) as judgements:
            count = exchange.EXPORTS[options.format](judgements, options.export)
        print(f"{options.export}: lines written: {count:,}")
    elif options.added is not None:
        with store.writing(pairs) as judgements:
            done = exchange.import_judgements(judgements, options.added)
        print(f"judgements added: {done.added:,}; there already: {done.there:,}")
    elif options.agreement:
        with store.reading(pairs) as judgements:
            found = reliability.report(judgements.judgements(), judgements.pairs)
        print("\n".join(found.lines()))
    else:
        _serve(pairs, options)


def _serve(pairs: "PairFolder", options: argparse.Namespace) -> None:
    try:
        from sf_jax.serve import annotating, listening
        from sf_jax.serve.annotation import Annotation
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in FRAMEWORK:
            raise
        raise UsageError(
            f"annotate needs {error.name}, which is not installed: pip install 'sf_jax[annotate]'"
        ) from error
    from sf_jax.systems.superface import queues, store

    pairs.check_files()
    with listening.listen(options.host, options.port) as socket, store.writing(pairs) as judgements:
        chosen = queues.QueueOptions(overlap=options.overlap, repeats=options.repeats)
        given = queues.Queues(judgements, chosen)
        annotation = Annotation(judgements, given, options.annotator)
        where = listening.address(socket)
        print(f"{len(pairs.pairs)} pairs; judgements are in {pairs.judgements}", flush=True)
        annotating.run(annotation, socket, lambda: print(f"open {where}", flush=True))
        count = len(judgements.judgements())
    print(f"stopped: {count} judgements are in {pairs.judgements}", file=sys.stderr)
