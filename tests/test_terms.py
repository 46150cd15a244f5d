"""The field's standard terms: words of a private vocabulary stay out of names, texts and documents.

What each of them is called in papers and libraries:

  lies, lying       layout, sharded, sharding
  places            positions, capacity, cache slots
  behind            after, following, before
  told, said        logged, reported, generated
  rough             low-precision, draft
  looked            draft state; checked, looked up
  set aside         quarantined, renamed; allocated
  put right         repaired, corrected
"""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BANNED = ("lies", "lying", "told", "said", "behind", "places", "rough", "looked")
PHRASES = ("set aside", "put right", "sets aside", "puts right", "setting aside", "putting right")
PATTERN = re.compile(
    r"(?<![a-z])(?:" + "|".join((*BANNED, *PHRASES)).replace(" ", r"\s+") + r")(?![a-z])"
)
ALLOWED = {
    r"decimal places": "digits after the point, not positions of a sequence",
    r"looked up": "found in a table",
}
THIS = "tests/test_terms.py"


def split(name: str) -> str:
    """The words of an identifier: snake_case and CamelCase taken apart."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", " ", name).lower()


def python_texts(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of identifiers, comments and strings, docstrings and f-strings included.

    Lines of comments that follow each other, and pieces of a string, are one text.
    """
    comment: tuple[int, str] | None = None
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        kind, line = tokenize.tok_name[token.type], token.start[0]
        if kind == "COMMENT":
            text = token.string.lstrip("#")
            comment = (comment[0], comment[1] + text) if comment else (line, text)
            continue
        if kind in ("NL", "INDENT", "DEDENT"):
            continue
        if comment:
            yield comment
            comment = None
        if kind == "NAME":
            yield line, split(token.string)
        elif kind in ("STRING", "FSTRING_MIDDLE"):
            yield line, token.string.lower()


def found_in(path: Path) -> list[str]:
    """Each banned word with its place, as `file:line: word`."""
    texts = python_texts(path) if path.suffix == ".py" else [(1, path.read_text().lower())]
    name = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
    lines = []
    for line, text in texts:
        for allowed in ALLOWED:
            text = re.sub(allowed, "", text)
        for match in PATTERN.finditer(text):
            at = line + text.count("\n", 0, match.start())
            lines.append(f"{name}:{at}: {match[0]}")
    return lines


def files() -> list[Path]:
    folders = ("sf_jax", "data_pipelines", "experiments", "tests")
    code = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    documents = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    return sorted(path for path in (*code, *documents) if str(path.relative_to(ROOT)) != THIS)


def test_no_word_of_a_private_vocabulary() -> None:
    found = [line for path in files() for line in found_in(path)]
    assert not found, "use the field's term:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "code, count",
    [
        ("where_it_lies = 1", 1),
        ("class ToldOnce: ...", 1),
        ("# set\n# aside\n", 1),
        ('x = f"said {1}"', 1),
        ('"""Rows\n   lying about."""', 1),
        ("belies = unsaid = 'roughly 3 decimal places'", 0),
    ],
)
def test_the_words_are_seen(tmp_path: Path, code: str, count: int) -> None:
    path = tmp_path / "made_up.py"
    path.write_text(code + "\n")
    assert len(found_in(path)) == count
