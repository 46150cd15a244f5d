"""Command lines whose bad arguments are told in one line, as every other error of `sf-jax`."""

import argparse
import math
from collections.abc import Callable
from typing import NoReturn


class UsageError(ValueError):
    """Arguments that do not make a command."""


class Parser(argparse.ArgumentParser):
    """Raises `UsageError` in place of printing the usage and leaving."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def number(low: float, above: bool, what: str) -> Callable[[str], float]:
    """An argparse type: a finite float from `low` on, or above it."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (value > low if above else value >= low) or math.isinf(value):
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
