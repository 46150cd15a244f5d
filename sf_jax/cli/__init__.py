"""The `sf-jax` command: one file a command, imported when it is asked for.

Each file has `main(argv) -> exit code or None`. Nothing here imports jax, so that `sf-jax --help`
answers at once.
"""

import argparse
import gc
import importlib
import io
import os
import select
import sys
from contextlib import suppress

from sf_jax.cli.allocator import keep_freed_memory
from sf_jax.cli.arguments import Parser
from sf_jax.cli.report import failed

COMMANDS = {
    "predict": "images and videos → rationale and coefficients",
    "demo": "render a made-up face and read it",
    "train": "run an experiment: sf-jax train builtin_model",
    "evaluate": "measure a model on rendered faces, beside all baselines",
    "calibrate": "find how wide a model's distributions should be, on labelled faces",
    "card": "write the model card and per-channel reliability of a model directory",
    "convert": "checkpoints in and out, adapters merged, logits verified",
    "serve": "answer images over HTTP, several at a time",
    "annotate": "judge pairs of rendered faces on a web page",
    "compile": "compile a train step for a slice of TPUs; report whether it fits",
    "bench": "time one thing beside another, in one run",
    "schema": "print the JSON Schema of the coefficients of an answer",
    "data": "render faces, import other people's data, build the dataset",
}

# New objects between two searches for garbage. Python's 700 cost a tenth of the start of a command:
# importing and tracing make a million objects, and hardly any garbage.
OBJECTS = 50_000


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="sf-jax", description="Facial action estimation.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, text in COMMANDS.items():
        commands.add_parser(name, help=text, add_help=False)
    return parser


def _dispatch(argv: list[str]) -> int:
    if argv and argv[0] in COMMANDS:
        return importlib.import_module(f"sf_jax.cli.{argv[0]}").main(argv[1:]) or 0
    parser = build_parser()
    parser.parse_args(argv)
    parser.print_help()
    return 0


def _unread() -> list[int]:
    """Standard output and error as descriptors, if nobody reads them any more, as of `| head`."""
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        with suppress(io.UnsupportedOperation):  # a stand-in without a descriptor
            poll.register(stream.fileno(), select.POLLOUT)
    return [found for found, event in poll.poll(0) if event & (select.POLLERR | select.POLLHUP)]


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; the exit code is 2 for bad input, with one line that says why."""
    if argv is None and sys.argv[1:2] == ["train"]:
        keep_freed_memory()
    gc.set_threshold(OBJECTS, *gc.get_threshold()[1:])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack a character of a name
            stream.reconfigure(errors="backslashreplace")
    try:
        return _dispatch(sys.argv[1:] if argv is None else argv)
    except BrokenPipeError as error:
        unread = _unread()
        for descriptor in unread:  # Python flushes them once more at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        return 141 if unread else failed([error])
    except (ValueError, OSError) as error:
        return failed([error])
    except KeyboardInterrupt as stop:
        print(f"sf-jax: stopped{f': {stop}' if str(stop) else ''}", file=sys.stderr)
        return 130
