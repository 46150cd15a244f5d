"""`sf-jax serve`: the model over HTTP, until a SIGTERM or Ctrl-C.

    sf-jax serve --port 8000
    curl --data-binary @photo.jpg http://127.0.0.1:8000/v1/predict

It listens at once and compiles its programs: single images are answered after the first of them,
batches as their programs are there (/health reports "warming up", then "ready"). At the end it
answers every request that it has accepted before it exits.
"""

import argparse
import re
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from sf_jax.cli import loading
from sf_jax.cli.arguments import Parser, UsageError, former, model_arguments, number, whole

if TYPE_CHECKING:
    from sf_jax.serve.service import Limits

FRAMEWORK = ("fastapi", "fastapi_offline", "pydantic", "starlette", "uvicorn")


def build_parser(limits: "Limits") -> argparse.ArgumentParser:
    """`limits` are the defaults."""
    parser = Parser(
        prog="sf-jax serve",
        description=__doc__,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    add("--port", type=whole(0, 65535), default=8000, help="0 takes a free one (default 8000)")
    model_arguments(parser)
    add(
        "--batch",
        type=whole(1, 1024),
        default=16,
        metavar="N",
        help="the most images answered at once (default 16)",
    )
    add(
        "--wait-ms",
        type=number(0, False, "0 or more"),
        default=5.0,
        metavar="MS",
        help="how long an idle model waits for a second image (default 5)",
    )
    add(
        "--warm",
        type=_size,
        nargs="+",
        default=[(512, 512)],
        metavar="WIDTHxHEIGHT",
        help="image sizes to compile for at the start (default 512x512; the built-in model has "
        "one program for all sizes, others about one for each number of patches)",
    )
    _rationale_caps(parser)
    _limit_arguments(parser, limits)
    return parser


def _rationale_caps(parser: argparse.ArgumentParser) -> None:
    how: dict[str, Any] = {"type": whole(1, 4096), "nargs": "+", "metavar": "TOKENS"}
    parser.add_argument(
        "--max-rationale-tokens",
        dest="max_rationale",
        default=[],
        help="caps on the rationale that requests may ask for, compiled at the start "
        "(default: none but the model's own)",
        **how,
    )
    former(parser, "--max-words", dest="max_rationale", **how)


def _limit_arguments(parser: argparse.ArgumentParser, limits: "Limits") -> None:
    """A flag for each field of `Limits` that is a number."""
    positive = number(0, True, "a positive number")
    for flag, kind, metavar, what in (
        ("max-bytes", whole(1, 2**31), "N", "of a request's body"),
        ("max-pixels", whole(1, 200_000_000), "N", "of an image"),
        ("timeout", positive, "SECONDS", "from a request's head to its answer"),
        ("queue", whole(1, 100_000), "N", "the most requests held at once"),
        ("sessions", whole(0, 100_000), "N", "the most sessions open at once"),
        ("session-idle", positive, "SECONDS", "without a frame, after which a session is closed"),
        ("decoders", whole(1, 1024), "N", "processes that decode images"),
        ("decode-seconds", positive, "SECONDS", "of a processor, the most to decode an image"),
    ):
        default = getattr(limits, flag.replace("-", "_"))
        shown = f"{default:,}" if isinstance(default, int) else f"{default:g}"
        parser.add_argument(
            f"--{flag}",
            type=kind,
            default=default,
            metavar=metavar,
            help=f"{what} (default {shown})",
        )
    parser.add_argument(
        "--grace",
        type=number(4, False, "4 or more"),
        metavar="SECONDS",
        help="from a SIGTERM to the end of the process, whatever hangs; 4 or more "
        "(default: 10 more than --timeout)",
    )


def _size(text: str) -> tuple[int, int]:
    """Width and height in pixels."""
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no WIDTHxHEIGHT in pixels")
    return int(found[1]), int(found[2])


def main(argv: list[str]) -> None:
    """Serves until a signal comes.

    Raises:
      UsageError: the web framework is not installed, or the arguments are wrong.
      OSError: the address cannot be listened on.
    """
    try:
        from sf_jax.serve import listening as sockets
        from sf_jax.serve import server
        from sf_jax.serve.service import Limits, Service
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in FRAMEWORK:
            raise
        raise UsageError(
            f"serve needs {error.name}, which is not installed: pip install 'sf_jax[serve]'"
        ) from error
    options = build_parser(Limits()).parse_args(argv)
    options.max_rationale = tuple(sorted(set(options.max_rationale)))
    given: dict[str, Any] = vars(options)
    limits = Limits(**{one.name: given[one.name] for one in fields(Limits) if one.name in given})
    listening = sockets.listen(options.host, options.port)  # before a model is loaded
    print(f"starting: {sockets.address(listening)}", flush=True)
    with listening:
        model = loading.load_model(options.model, options.adapter, options.dtype)
        service = Service(model, limits, options.batch, options.wait_ms / 1000)

        def warm() -> None:
            server.warm_up(
                model,
                options.batch,
                limits.max_rationale,
                options.warm,
                lambda: service.status == "draining",
                service.compiled,
            )

        server.run(service, listening, warm)
    print(f"stopped: {service.answered} images answered", file=sys.stderr)
