"""Command lines whose bad arguments are reported in one line, as every other error of `sf-jax`."""

import argparse
import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, NoReturn

from sf_jax.media.errors import DataError

if TYPE_CHECKING:
    from data_pipelines.mixtures import Inputs

Adds = argparse._ActionsContainer  # a parser, or a group of its arguments


class UsageError(DataError):
    """Arguments that do not make a command."""


class Help(argparse.HelpFormatter):
    """Paragraphs of a description stay apart, indented lines stay as they are, and every option
    ends with its default."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        first, _, rest = text.strip("\n").partition("\n")  # a docstring indents all but its first
        text = first + "\n" + textwrap.dedent(rest)
        paragraphs = re.split(r"\n(?:[ \t]*\n)+", text.strip("\n"))
        return "\n\n".join(self._paragraph(one, width, indent) for one in paragraphs)

    def _paragraph(self, text: str, width: int, indent: str) -> str:
        lines = text.splitlines()
        if any(line.startswith(" ") for line in lines):
            return "\n".join(indent + line.rstrip() for line in lines)
        return textwrap.fill(
            " ".join(text.split()), width, initial_indent=indent, subsequent_indent=indent
        )

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text, default = action.help, action.default
        if not text or not action.option_strings or "default" in text or default == "==SUPPRESS==":
            return text
        if action.required:
            return f"{text} (required)"
        if action.nargs == 0:  # --flag, or --no-flag
            return f"{text} (default: off)" if not default or action.const is False else text
        if isinstance(default, list | tuple):
            default = " ".join(map(str, default))
        stated = "none" if default in (None, "") else str(default).replace("%", "%%")
        return f"{text} (default: {stated})"


class Parser(argparse.ArgumentParser):
    """Raises `UsageError` in place of printing the usage and leaving; see `Help`."""

    def __init__(self, **how: Any):
        super().__init__(**{"formatter_class": Help} | how)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        """As argparse does, but a reader of this project states what is wrong itself."""
        try:
            return super()._get_value(action, arg_string)  # type: ignore[misc]
        except argparse.ArgumentError as error:
            cause = error.__context__
            if isinstance(action.type, FunctionType) and isinstance(cause, ValueError):
                raise argparse.ArgumentError(action, str(cause)) from cause
            raise

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


def source_arguments(parser: Adds) -> None:
    """--rigs, --skins, --backgrounds and --portraits, for `given_sources`."""
    add = parser.add_argument
    add("--rigs", type=Path, help="folder of rigs to render, such as ICT-FaceKit's")
    add("--skins", type=Path, help="file of photo skins, which sf-jax data skins writes")
    add(
        "--backgrounds",
        type=Path,
        help="folder of photographs without faces; its train and test are the splits' (default: "
        "procedural backgrounds)",
    )
    add("--portraits", type=Path, help="folder of portraits with a portraits.jsonl of landmarks")


def given_sources(options: argparse.Namespace) -> "Inputs":
    """The files that sources of faces are made of.

    Raises:
      UsageError: one is not there, or skins are given without rigs to put them on.
    """
    from data_pipelines.mixtures import Inputs

    names = ("rigs", "skins", "backgrounds", "portraits")
    given = {name: getattr(options, name) for name in names}
    check_sources(given)
    return Inputs(**given)


def check_sources(given: Mapping[str, Path | None]) -> None:
    """Raises UsageError where skins, a file, or another input, a folder, is not there, or skins are
    given without rigs.

    Args:
      given: by the name of the option.
    """
    for name, path in given.items():
        if path is not None and name == "skins" and not path.is_file():
            raise UsageError("--skins: no such file", path=path)
        if path is not None and name != "skins" and not path.is_dir():
            raise UsageError(f"--{name}: no such folder", path=path)
    if given.get("skins") is not None and given.get("rigs") is None:
        raise UsageError("--skins needs --rigs, which photo skins are put on")


def named_sets(folders: Sequence[Path]) -> dict[str, Path]:
    """Sets by the names of their folders.

    Raises:
      UsageError: two have the same.
    """
    sets: dict[str, Path] = {}
    for folder in folders:
        name = folder.resolve().name
        if name in sets:
            raise UsageError("a set of this name is given already", path=folder)
        sets[name] = folder
    return sets


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
