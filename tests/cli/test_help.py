"""Every option of every command has a help text that ends with its default."""

import argparse
from collections.abc import Iterator

import pytest

from sf_jax import cli
from sf_jax.cli import bench, data, recipes
from sf_jax.cli.arguments import Help, Parser

PARTS = {"bench": bench.BENCHMARKS, "train": recipes.names(), "data": tuple(data.COMMANDS)}
LINES = [[name, part] for name, parts in PARTS.items() for part in parts]
LINES += [[name] for name in cli.COMMANDS if name not in PARTS]


class Met(Exception):
    """Holds the parser that a command made."""


def parsers(line: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[argparse.ArgumentParser]:
    """The parser of a command, and those of its parts."""

    def met(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise Met(parser)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", met)
    with pytest.raises(Met) as found:
        cli.main([*line, "--help"])
    pending = [found.value.args[0]]
    while pending:
        yield (parser := pending.pop())
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                pending += action.choices.values()


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_every_option_has_a_help_text_with_its_default(
    line: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for parser in parsers(line, monkeypatch):
        assert parser.description and isinstance(parser._get_formatter(), Help)
        for action in parser._actions:
            if isinstance(action, argparse._HelpAction | argparse._SubParsersAction):
                continue
            name = f"{parser.prog} {action.option_strings or action.dest}"
            assert action.help, name
            if action.option_strings and action.help != argparse.SUPPRESS:
                shown = parser._get_formatter()._get_help_string(action)
                assert "default" in shown or "required" in shown, name
        parser.format_help()  # no stray % in a text or a default


def test_paragraphs_and_examples_keep_their_lines() -> None:
    """One paragraph
    over two lines.

        an example
        of two lines

    Another.
    """
    doc = test_paragraphs_and_examples_keep_their_lines.__doc__
    shown = Parser(prog="x", description=doc).format_help()
    assert (
        "\n\nOne paragraph over two lines.\n\n    an example\n    of two lines\n\nAnother.\n\n"
        in shown
    )


def test_defaults_of_every_kind() -> None:
    parser = Parser(prog="x")
    parser.add_argument("--rate", default=0.5, help="a rate")
    parser.add_argument("--sizes", nargs="+", default=[1, 2], help="some")
    parser.add_argument("--share", default="50 %", help="of 100 %%")
    parser.add_argument("--file", help="a file")
    parser.add_argument("--must", required=True, help="given")
    parser.add_argument("--flag", action="store_true", help="more")
    parser.add_argument("--no-flag", dest="flag", action="store_false", help="less")
    parser.add_argument("--own", default=3, help="three by default")
    shown = " ".join(parser.format_help().split())
    for text in (
        "a rate (default: 0.5)", "some (default: 1 2)", "of 100 % (default: 50 %)",
        "a file (default: none)", "given (required)", "more (default: off)", "less (default: off)",
        "three by default",
    ):  # fmt: skip
        assert text in shown
    assert "three by default (" not in shown
