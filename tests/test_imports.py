"""Imports point one way."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
ORDER = {
    "face": set(),
    "kernels": set(),
    "render": {"face"},
    "model": {"kernels"},
    "decode": {"model", "kernels"},
    "train": {"decode", "model", "kernels"},
    "convert": {"decode", "model", "kernels"},
}  # what each room may import, beside itself; the files above the rooms may import all of them


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_rooms_import_only_what_lies_below_them() -> None:
    wrong = []
    for room, allowed in ORDER.items():
        for path in (ROOT / "sf_jax" / room).glob("*.py"):
            for name in imported(path):
                parts = name.split(".")
                if parts[0] in ("data_pipelines", "experiments"):
                    wrong.append(f"{path.name} imports {name}")
                if parts[0] == "sf_jax" and len(parts) > 1 and parts[1] not in allowed | {room}:
                    wrong.append(f"{room}/{path.name} imports {name}")
    assert not wrong


def test_the_model_knows_nothing_of_faces() -> None:
    for room in ("model", "decode", "train"):
        for path in (ROOT / "sf_jax" / room).glob("*.py"):
            assert not any(name.startswith("sf_jax.face") for name in imported(path)), path


def test_only_the_shell_imports_pipelines_and_experiments() -> None:
    for path in (ROOT / "sf_jax").glob("*.py"):
        if path.name == "cli.py":
            continue
        for name in imported(path):
            assert name.split(".")[0] not in ("data_pipelines", "experiments"), path


def test_faces_and_rendering_do_without_jax() -> None:
    for room in ("face", "render"):
        for path in (ROOT / "sf_jax" / room).glob("*.py"):
            assert not any(name.split(".")[0] in ("jax", "flax") for name in imported(path)), path
