"""Faults of imported directories and runs: damaged or missing files, changed data, two writers."""

import functools
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from data_pipelines import records
from data_pipelines.loader import RecordSource
from sf_jax.cli import main
from sf_jax.convert import checksums, directories, hf, tensor_files
from sf_jax.media import locks
from sf_jax.model.config import Config, TextConfig
from sf_jax.model.declared import initialise
from sf_jax.train import loop, step
from sf_jax.train import mesh as meshes
from sf_jax.train.checkpoint import CheckpointError
from tests.faults.harness import Fault, Outcome, check_all, hashes
from tests.train.test_loop import Counted, taken

TRAIN = "tests.faults.test_runs:train"
STEPS = 4  # of the run before; each adds one to its weights
LOCK = ".checkpoints.lock"
HELD: list[locks.Lock] = []  # by this process, for the fault that runs now


def train(steps: int, seed: int = 0, accept: bool = False) -> str:
    """A run in the folder `run` on the records in `data`; the step and the weights it reaches."""
    mesh = meshes.make({}, jax.devices()[:1])
    data = RecordSource(records.files("data")).fingerprint(seed=seed)
    config = loop.LoopConfig(steps, save_every=2, keep=9, accept_changed_data=accept)

    def add(state: step.TrainState, batch: object) -> tuple[step.TrainState, dict]:
        state, metrics = taken(state, batch)
        return state.replace(weights={"a": state.weights["a"] + 1}), metrics

    state = step.create({"a": jnp.zeros(300)}, optax.sgd(1.0), mesh)
    try:
        state = loop.run(state, add, Counted(), mesh, config, "run", fingerprint=data)
    except (CheckpointError, loop.TrainingError) as error:  # as `sf-jax train` reports them
        raise ValueError(str(error)) from error
    return f"{int(state.step)} {set(np.asarray(state.weights['a']).tolist())}"


def record(number: int) -> dict:
    g = np.random.default_rng(number)
    coefficients = g.random(61).astype(np.float32)
    image = g.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    return {"image": image, "coefficients": coefficients, "rationale": f"face {number}"}


@functools.cache
def sources() -> Path:
    """A folder with a sound imported directory, its export, data, and a run of 4 steps."""
    folder = Path(tempfile.mkdtemp(prefix="sf_jax-sound-"))
    text = TextConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        mrope_section=(2, 1, 1),
    )
    config = Config(None, text, 7, 8, 9)
    hf.save(folder / "model", config, initialise(config.declare(), 0))
    (folder / "model" / "tokenizer.json").write_text('{"of": "a model"}')
    directories.import_checkpoint(folder / "model", folder / "in")
    directories.export_checkpoint(folder / "in", folder / "out")
    (folder / "data").mkdir()
    for name, numbers in (("a", range(4)), ("b", range(4, 9)), ("c", range(9, 11))):
        records.write(folder / "data" / f"{name}.array_record", map(record, numbers))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train(STEPS)
    return folder


@pytest.fixture(scope="module", autouse=True)
def cleared() -> None:
    yield
    shutil.rmtree(sources())
    release()


def release() -> None:
    while HELD:
        HELD.pop().release()


def copied(folder: Path, *names: str) -> None:
    release()
    for name in names:
        shutil.copytree(sources() / name, folder / name)


def pick(draw: np.random.Generator, files: list[Path]) -> Path:
    return sorted(files)[draw.integers(len(files))]


def inside(folder: Path) -> list[Path]:
    """The files that are not empty."""
    return [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size]


def flip(draw: np.random.Generator, path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[draw.integers(len(content))] ^= 1 << int(draw.integers(8))
    path.write_bytes(content)


def cut(draw: np.random.Generator, path: Path) -> None:
    path.write_bytes(path.read_bytes()[: draw.integers(path.stat().st_size)])


def garble(draw: np.random.Generator, path: Path) -> None:
    path.write_bytes(draw.bytes(int(draw.integers(1, 400))))


def remove(draw: np.random.Generator, path: Path) -> None:
    path.unlink()


DAMAGES: tuple[Callable, ...] = (flip, cut, garble, remove)


def stored(directory: Path) -> dict[str, bytes]:
    tensors = tensor_files.open_directory(directory)[1]
    return {name: tensor.array().tobytes() for name, tensor in tensors.items()}


def sound_export(outcome: Outcome) -> str:
    """What is wrong with an export: it must be that of the undamaged directory, or none."""
    out = outcome.folder / "out"
    if outcome.code == 2:
        return "a refused export is there" if out.exists() else ""
    same = stored(out) == stored(sources() / "out")
    return "" if same else "other weights were exported without an error"


# Imported directories.


def sound_import(draw: np.random.Generator, folder: Path) -> Fault:
    copied(folder, "in")
    return Fault("a sound directory", ("convert", "export", "in", "out"), check=sound_export)


def damaged_import(draw: np.random.Generator, folder: Path) -> Fault:
    """Any file, in any way."""
    copied(folder, "in")
    path, damage = pick(draw, inside(folder / "in")), DAMAGES[draw.integers(len(DAMAGES))]
    damage(draw, path)
    own = path.name == checksums.FILE  # its white space and its absence change nothing
    return Fault(
        f"{damage.__name__} {path.relative_to(folder)}",
        ("convert", "export", "in", "out"),
        codes=(0, 2) if own else (2,),
        names="in/" if own else re.escape(path.name),
        check=sound_export,
    )


def flipped_weights(draw: np.random.Generator, folder: Path) -> Fault:
    """A bit of the largest file, as disks and memory flip them."""
    copied(folder, "in")
    path = max(inside(folder / "in" / "weights"), key=lambda path: path.stat().st_size)
    flip(draw, path)
    command = ("convert", "export", "in", "out")
    return Fault("a bit of a weight", command, codes=(2,), names=path.name, check=sound_export)


def exchanged_files(draw: np.random.Generator, folder: Path) -> Fault:
    copied(folder, "in")
    one, other = draw.permutation(sorted(inside(folder / "in")))[:2]
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    name = f"{one.name} and {other.name} exchanged"
    return Fault(name, ("convert", "export", "in", "out"), names="in/", check=sound_export)


def damaged_import_of_before(draw: np.random.Generator, folder: Path) -> Fault:
    """Without checksums nothing finds a flipped bit, but a missing file is still refused."""
    copied(folder, "in")
    (folder / "in" / checksums.FILE).unlink()
    path = pick(draw, inside(folder / "in"))
    damage = (cut, garble, remove)[draw.integers(3)]
    damage(draw, path)
    name = f"{damage.__name__} {path.relative_to(folder)}, no checksums"
    return Fault(name, ("convert", "export", "in", "out"), names="in/")


def damaged_model(draw: np.random.Generator, folder: Path) -> Fault:
    """A directory in the Hugging Face layout that was exported here."""
    copied(folder, "out")
    (folder / "out").rename(folder / "model")
    names = [path for path in inside(folder / "model") if path.name != checksums.FILE]
    path, damage = pick(draw, names), DAMAGES[draw.integers(len(DAMAGES))]
    damage(draw, path)
    name = f"{damage.__name__} {path.name}"
    return Fault(name, ("convert", "import", "model", "in"), codes=(2,), names=path.name)


# Runs.


def all_kept(outcome: Outcome) -> str:
    """What is wrong with a run: the weights must be those of its steps, and no file is lost."""
    lost = set(outcome.before.values()) - set(outcome.after.values())
    steps = outcome.stdout.strip().strip("'")
    if outcome.code == 0 and steps != f"6 {{{6.0}}}":
        return f"other weights than those of six steps: {steps}"
    return f"{len(lost)} files are lost" if lost else ""


def run_fault(name: str, folder: Path, **how: object) -> Fault:
    """A resumption to step 6. Checkpoints may be renamed; the contents are compared."""
    names = tuple(hashes(folder))
    options = {"argv": (6,), "call": TRAIN, "replaced": names, "check": all_kept} | how
    return Fault(name, **options)  # type: ignore[arg-type]


def sound_run(draw: np.random.Generator, folder: Path) -> Fault:
    copied(folder, "run", "data")
    return run_fault("a sound run", folder)


def damaged_checkpoint(draw: np.random.Generator, folder: Path) -> Fault:
    """The newest one: the one before it is resumed."""
    copied(folder, "run", "data")
    path = pick(draw, inside(folder / "run" / "checkpoints" / str(STEPS)))
    damage = DAMAGES[draw.integers(len(DAMAGES))]
    damage(draw, path)
    return run_fault(f"{damage.__name__} {path.relative_to(folder)}", folder, codes=(0,))


def damaged_checkpoints(draw: np.random.Generator, folder: Path) -> Fault:
    """All of them: what the run has trained is lost, which must not pass in silence."""
    copied(folder, "run", "data")
    for number in (2, STEPS):
        part = folder / "run" / "checkpoints" / str(number)
        flip(draw, pick(draw, [path for path in inside(part) if "checksums" not in path.parts]))
    return run_fault("all checkpoints", folder, codes=(2,), names="checksums-failed")


def stray_files(draw: np.random.Generator, folder: Path) -> Fault:
    """Files and folders that a crash or a person leaves between the checkpoints."""
    copied(folder, "run", "data")
    where = folder / "run" / "checkpoints"
    kind = int(draw.integers(4))
    if kind == 0:
        (where / "6.orbax-checkpoint-tmp").mkdir()
    elif kind == 1:
        (where / ".DS_Store").write_bytes(draw.bytes(30))
    elif kind == 2:
        (folder / "run" / LOCK).write_bytes(draw.bytes(30))  # of a process that was killed
    else:
        (where / "notes").mkdir()
    return run_fault(f"stray file {kind}", folder, codes=(0,), check=all_but_lock)


def all_but_lock(outcome: Outcome) -> str:
    before = {name: each for name, each in outcome.before.items() if LOCK not in name}
    return all_kept(Outcome(**{**vars(outcome), "before": before}))


def changed_data(draw: np.random.Generator, folder: Path) -> Fault:
    copied(folder, "run", "data")
    path = pick(draw, inside(folder / "data"))
    kind = int(draw.integers(6))
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.rename(path.with_name("z.array_record"))
    elif kind == 2:
        records.write(folder / "data" / "d.array_record", [record(20)])
    elif kind == 3:
        records.write(path, [record(20 + n) for n in range(records.count(path))])
    elif kind == 4:
        flip(draw, path)
    else:
        cut(draw, path)
    name = ("removed", "renamed", "added", "other records", "flipped", "truncated")[kind]
    changed = "d.array_record" if kind == 2 else path.name
    return run_fault(f"{changed} {name}", folder, codes=(2,), names=changed)


def changed_seed(draw: np.random.Generator, folder: Path) -> Fault:
    copied(folder, "run", "data")
    seed = int(draw.integers(1, 2**31))
    return run_fault("another seed", folder, argv=(6, seed), codes=(2,), names=f"seed is {seed}")


def accepted_data(draw: np.random.Generator, folder: Path) -> Fault:
    copied(folder, "run", "data")
    (folder / "data" / "c.array_record").unlink()
    return run_fault("changed data, accepted", folder, argv=(6, 0, True), codes=(0,))


# Two writers.


def hold(path: Path) -> None:
    HELD.append(locks.acquire(path))


def two_runs(draw: np.random.Generator, folder: Path) -> Fault:
    copied(folder, "run", "data")
    hold(folder / "run" / LOCK)
    return run_fault("two runs", folder, codes=(2,), names=r"run: process \d+ on .* writes here")


def two_commands(draw: np.random.Generator, folder: Path) -> Fault:
    copied(folder, "in", "data")
    command, lock = (
        (("convert", "export", "in", "new"), ".new.lock"),
        (("convert", "import", "in", "new"), ".new.lock"),
        (("data", "render", "--out", "new", "--count", "1"), "new/.lock"),
        (("train", "sft", "builtin", "--tiny", "--out", "new"), "new/.lock"),
        (("train", "builtin_model", "--tiny", "--out", "new"), "new/.lock"),
    )[draw.integers(5)]
    hold(folder / lock)
    return Fault(
        f"two of {' '.join(command)}", command, codes=(2,), names=r"process \d+ on .* writes here"
    )


KINDS: list[Callable] = [
    damaged_import,
    flipped_weights,
    exchanged_files,
    damaged_import_of_before,
    damaged_model,
    damaged_checkpoint,
    damaged_checkpoints,
    stray_files,
    changed_data,
    changed_seed,
    accepted_data,
    two_runs,
    two_commands,
]


def test_a_few() -> None:
    check_all("runs", KINDS, count=130, few=5)


@pytest.mark.slow
def test_many() -> None:
    check_all("runs", KINDS, count=390)


@pytest.mark.slow
@pytest.mark.parametrize("honest", [sound_import, sound_run])
def test_sound_inputs_end_well(honest: Callable) -> None:
    check_all("sound", [honest], count=2, honest=honest)


def test_a_sound_import_is_exported(tmp_path: Path, monkeypatch) -> None:
    sound_import(np.random.default_rng(0), tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["convert", "export", "in", "out"]) == 0
    assert stored(tmp_path / "out") == stored(sources() / "out")
    assert json.loads((tmp_path / "out" / checksums.FILE).read_text())["files"]
