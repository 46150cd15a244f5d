"""`sf-jax serve`: the model over HTTP, until a SIGTERM or Ctrl-C.

    sf-jax serve --port 8000
    curl --data-binary @photo.jpg http://127.0.0.1:8000/v1/predict

It listens at once, compiles its programs (/health reports when it is ready), and at the end answers
every request it has accepted before it exits.
"""

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any

from sf_jax.cli import loading
from sf_jax.cli.arguments import Parser, UsageError, former, model_arguments, number, whole

if TYPE_CHECKING:
    from sf_jax.serve.service import Limits

FRAMEWORK = ("fastapi", "pydantic", "starlette", "uvicorn")


def build_parser(limits: "Limits") -> argparse.ArgumentParser:
    """`limits` are the defaults."""
    parser = Parser(
        prog="sf-jax serve",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    add("--port", type=whole(0, 65535), default=8000, help="0 takes a free one (default 8000)")
    model_arguments(parser)
    _batch_arguments(parser)
    _limit_arguments(parser, limits)
    return parser


def _batch_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
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
    caps: dict[str, Any] = {
        "dest": "max_rationale",
        "type": whole(1, 4096),
        "nargs": "+",
        "metavar": "TOKENS",
    }
    add(
        "--max-rationale-tokens",
        default=[],
        help="caps on the rationale that requests may ask for, compiled at the start",
        **caps,
    )
    former(parser, "--max-words", **caps)
    add(
        "--warm",
        type=_size,
        nargs="+",
        default=[(512, 512)],
        metavar="WIDTHxHEIGHT",
        help="image sizes to compile for at the start (default 512x512; the built-in model has "
        "one program for all sizes, others about one for each number of patches)",
    )


def _limit_arguments(parser: argparse.ArgumentParser, limits: "Limits") -> None:
    add = parser.add_argument
    add(
        "--max-bytes",
        type=whole(1, 2**31),
        default=limits.max_bytes,
        metavar="N",
        help=f"of a request's body (default {limits.max_bytes:,})",
    )
    add(
        "--max-pixels",
        type=whole(1, 200_000_000),
        default=limits.max_pixels,
        metavar="N",
        help=f"of an image (default {limits.max_pixels:,})",
    )
    add(
        "--timeout",
        type=number(0, True, "a positive number"),
        default=limits.timeout,
        metavar="SECONDS",
        help=f"from a request's head to its answer (default {limits.timeout:g})",
    )
    add(
        "--queue",
        type=whole(1, 100_000),
        default=limits.queue,
        metavar="N",
        help=f"the most requests held at once (default {limits.queue})",
    )
    add(
        "--sessions",
        type=whole(0, 100_000),
        default=limits.sessions,
        metavar="N",
        help=f"the most sessions open at once (default {limits.sessions})",
    )
    add(
        "--session-idle",
        type=number(0, True, "a positive number"),
        default=limits.session_idle,
        metavar="SECONDS",
        help=f"without a frame, after which a session is closed (default {limits.session_idle:g})",
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
        from sf_jax.serve import server
        from sf_jax.serve.service import Limits, Service
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in FRAMEWORK:
            raise
        raise UsageError(
            f"serve needs {error.name}, which is not installed: pip install 'sf_jax[serve]'"
        ) from error
    options = build_parser(Limits()).parse_args(argv)
    caps = tuple(sorted(set(options.max_rationale)))
    limits = Limits(
        options.max_bytes,
        options.max_pixels,
        options.timeout,
        options.queue,
        caps,
        options.sessions,
        options.session_idle,
    )
    listening = server.listen(options.host, options.port)  # before a model is loaded
    print(f"starting: {server.address(listening)}", flush=True)
    with listening:
        model = loading.load_model(options.model, options.adapter, options.dtype)
        service = Service(model, limits, options.batch, options.wait_ms / 1000)

        def warm() -> None:
            server.warm_up(
                model, options.batch, caps, options.warm, lambda: service.status == "draining"
            )

        server.run(service, listening, warm)
    print(f"stopped: {service.batcher.answered} images answered", file=sys.stderr)
