"""Imports point one way, a room only to rooms below it; only upper rooms read command lines."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from sf_jax.face.channels import NAMES

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sf_jax"
LEVELS = (
    {"media", "kernels"},
    {"face"},
    {"render", "model"},
    {"sequence"},
    {"decode"},
    {"convert", "train"},
    {"reader"},
    {"data_pipelines"},
    {"systems"},
    {"serve"},
    {"cli"},
    {"bench", "experiments"},
)  # from the ground up; rooms of one level do not import each other
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
TOP = {"__init__": {"reader"}, "__main__": {"cli"}, "client": {"serve"}}  # stable names, no rooms
NUMERICAL = ("kernels", "model", "sequence", "decode", "train")  # know no channel and no prompt
COMMANDS = ("cli", "bench", "experiments")  # read command lines
NOT_YET: set[tuple[str, str]] = set()  # (file, room it still imports); shrinks only
PROMPTS_YET: set[str] = set()  # shrinks only


def room_of(module: str) -> str | None:
    """The room of a module, None if it is not ours; for modules at the top their own name."""
    top, _, rest = module.partition(".")
    if top in ("data_pipelines", "experiments"):
        return top
    return rest.partition(".")[0] if top == "sf_jax" and rest else None


def imported(path: Path) -> Iterator[str]:
    """All modules a file imports, inside functions too; `from a import b` gives a and a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{path}: a relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files() -> list[Path]:
    folders = [PACKAGE, ROOT / "data_pipelines", ROOT / "experiments"]
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


def short(path: Path) -> str:
    """The path within the package, or within the repository."""
    return str(path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else ROOT))


def own_room(path: Path) -> str:
    first = Path(short(path)).parts[0]
    return first.removesuffix(".py")


def test_every_folder_is_a_room_and_nothing_is_loose() -> None:
    loose = {path.stem for path in PACKAGE.glob("*.py")}
    assert loose == {"__init__", "__main__"}
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert rooms | {"data_pipelines", "experiments"} == set(LEVEL) | {"client"}


def upward(path: Path) -> Iterator[tuple[str, str]]:
    """(file, room) for each room that the file must not import."""
    own = own_room(path)
    for module in imported(path):
        room = room_of(module)
        if room is None or room == own:
            continue
        if own in TOP:
            if room not in TOP[own]:
                yield short(path), room
        elif room not in LEVEL or LEVEL[room] >= LEVEL[own]:  # sf_jax.load is for users
            yield short(path), room


def test_rooms_import_only_rooms_below_them() -> None:
    found = {pair for path in files() for pair in upward(path)}
    assert not found - NOT_YET, "these imports point up or across"
    assert not NOT_YET - found, "met now: take these out of NOT_YET"


def test_numerical_rooms_know_no_face() -> None:
    """Although `face` and `render` are below most of them."""
    found = {
        (short(path), room)
        for path in files()
        if own_room(path) in NUMERICAL
        for room in map(room_of, imported(path))
        if room in ("face", "render")
    }
    assert not found


def test_imports_by_name_are_the_command_lines_alone() -> None:
    """cli loads benchmarks and recipes by name, and `python -m data_pipelines` is one of cli's."""
    others = {
        "data_pipelines/__main__.py",
        "kernels/dispatch.py",  # its own modules, so that no platform imports another's
    }
    found = {
        short(path)
        for path in files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute | ast.Name)
        and getattr(node, "attr", getattr(node, "id", "")) in ("import_module", "__import__")
    }
    assert {name for name in found if not name.startswith(("cli/", "bench/"))} <= others


def test_systems_do_not_import_each_other() -> None:
    for path in (PACKAGE / "systems").rglob("*.py"):
        own = Path(short(path)).parts[1]
        for module in imported(path):
            parts = module.split(".")
            if parts[:2] == ["sf_jax", "systems"] and len(parts) > 2:
                assert parts[2] == own, f"{short(path)} imports {module}"


def test_benchmarks_are_imported_by_their_own_tests_alone() -> None:
    found = {
        str(path.relative_to(ROOT))
        for folder in ("tests", "experiments")
        for path in (ROOT / folder).rglob("*.py")
        if not path.is_relative_to(ROOT / "tests" / "bench")
        for module in imported(path)
        if room_of(module) == "bench"
    }
    assert not found


def test_command_lines_are_read_above_only() -> None:
    for path in files():
        if own_room(path) in (*COMMANDS, "__main__") or short(path) == "data_pipelines/__main__.py":
            continue
        assert "argparse" not in imported(path), short(path)
        for node in ast.walk(ast.parse(path.read_text())):
            read = isinstance(node, ast.Attribute) and node.attr == "argv"
            assert not read, f"{short(path)} reads sys.argv"


@pytest.mark.parametrize("room", ["media", "face", "render"])
def test_faces_and_rendering_do_without_jax(room: str) -> None:
    for path in (PACKAGE / room).rglob("*.py"):
        for module in imported(path):
            assert module.split(".")[0] not in ("jax", "flax"), f"{short(path)} imports {module}"


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of the string constants of a file that are no docstrings."""
    tree = ast.parse(path.read_text())
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        constant = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if constant and id(node) not in docstrings:
            yield node.lineno, node.value


@pytest.mark.parametrize("room", NUMERICAL)
def test_numerical_rooms_name_no_channel_and_hold_no_prompt(room: str) -> None:
    """A prompt would speak of faces or of what moves in them, or address the model in sentences."""
    channels = {name.lower() for name in NAMES}
    subjects = {"face", "faces", "facial", "arkit", "blendshape", "blendshapes"}
    for path in (PACKAGE / room).rglob("*.py"):
        if short(path) in PROMPTS_YET:
            continue
        for line, text in strings(path):
            assert text.lower() not in channels, f"{short(path)}:{line} names channel {text}"
            found = subjects & {word.strip(".,:;!?()'\"").lower() for word in text.split()}
            assert not found, f"{short(path)}:{line} speaks of {found}: {text!r}"
