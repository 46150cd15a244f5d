"""Files and functions short enough to be seen whole, fields with types, few lines set by hand."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("sf_jax", "data_pipelines", "experiments")
FILE_LINES, FUNCTION_LINES, ANY_LINES, FORMAT_SKIPS = 500, 80, 100, 100


def files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_files_are_short() -> None:
    """But for kernels, whose forward and backward passes belong together."""
    long = [
        name_of(path)
        for path in files(*PACKAGES)
        if len(path.read_text().splitlines()) > FILE_LINES
        and not path.is_relative_to(ROOT / "sf_jax" / "kernels")
    ]
    assert not long, f"more than {FILE_LINES} lines"


def test_functions_are_short() -> None:
    long = [
        f"{name_of(path)}::{node.name}"
        for path in files(*PACKAGES)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > FUNCTION_LINES
    ]
    assert not long, f"more than {FUNCTION_LINES} lines"


def count(pattern: str, *folders: str) -> int:
    """Lines that match."""
    lines = (line for path in files(*folders) for line in path.read_text().splitlines())
    return sum(bool(re.search(pattern, line)) for line in lines)


def test_types_say_more_than_any() -> None:
    """`HostOrDevice` stands for NumPy and JAX arrays alike, and is checked no more than `Any`."""
    assert count(r":\s*Any\b", *PACKAGES) < ANY_LINES


def test_few_lines_are_formatted_by_hand() -> None:
    assert count(r"# fmt: skip", *PACKAGES, "tests") < FORMAT_SKIPS
