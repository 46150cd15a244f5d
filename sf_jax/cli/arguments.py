"""Command lines whose bad arguments are reported in one line, as every other error of `sf-jax`."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from sf_jax.media.errors import DataError

Adds = argparse._ActionsContainer  # a parser, or a group of its arguments


class UsageError(DataError):
    """Arguments that do not make a command."""


class Parser(argparse.ArgumentParser):
    """Raises `UsageError` in place of printing the usage and leaving."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def former(parser: Adds, flag: str, **how: Any) -> None:
    """Accepts the name that a flag had before; `--help` does not show it."""
    parser.add_argument(flag, help=argparse.SUPPRESS, default=argparse.SUPPRESS, **how)


def model_arguments(parser: Adds, dtype: bool = True) -> None:
    """--model, --adapter and --dtype, for `loading.load_model`."""
    add = parser.add_argument
    add("--model", type=Path, help="model directory (default: the built-in model)")
    add("--adapter", type=Path, help="directory of a LoRA adapter in PEFT's layout")
    if dtype:
        add(
            "--dtype",
            choices=("float32", "bfloat16"),
            help="of the weights (default: float32 on a CPU, bfloat16 elsewhere)",
        )


def accept_changed_data(parser: Adds) -> None:
    """--accept-changed-data, of commands that train."""
    parser.add_argument(
        "--accept-changed-data",
        action="store_true",
        help="resume although data, its order or --model are not those of the checkpoint: some "
        "examples are then repeated and others left out (default: refused)",
    )


def number(low: float, above: bool, what: str, high: float = math.inf) -> Callable[[str], float]:
    """An argparse type: a finite float from `low` on, or above it, and up to `high`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (value > low if above else value >= low) or math.isinf(value) or value > high:
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return value

    return parse


def whole(low: int, high: int) -> Callable[[str], int]:
    """An argparse type: a whole number from `low` to `high`."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {low} to {high}")
        return int(text)

    return parse
