"""Bad model directories: what stands in a file's position, JSON of other types, damaged bytes.

Most start from the built-in model, whose sound files are links, so that nothing large is copied;
what has to be converted starts from a model of a few thousand weights.
"""

import copy
import functools
import json
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from sf_jax import cli
from sf_jax.cli import loading as commands
from sf_jax.convert import checksums, hf, peft
from sf_jax.decode.schema_file import to_dict
from sf_jax.model import lora
from sf_jax.model.declared import initialise
from sf_jax.reader import loading
from sf_jax.reader.schema import channel_schema
from sf_jax.sequence import tokenizer
from tests.cli.test_cli import FakeModel
from tests.faults.harness import Fault
from tests.small import small_config

HERE = "tests.faults.checkpoints"
Draw = np.random.Generator

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
INSTEAD = (
    POINTER,
    b"<!DOCTYPE html><html><body>404: Not Found</body></html>",
    b"<html>",
    b"PK\x03\x04" + bytes(60),
    b"\x1f\x8b\x08" + bytes(60),
    b"",
    b"\n",
    b"\xff\xfe\x00",
    bytes(4096),
    b"[" * 200_000,
    b"[" * 5000 + b"]" * 5000,
    b'{"a":' * 3000 + b"1" + b"}" * 3000,
    b"[]",
    b"null",
    b"3",
    b'"text"',
    b"NaN",
    b"{}",
    b'{"a": 1, "a": 2}',
    b" " * (5 * 2**20),
    b"[" + b"0," * 3_000_000 + b"0]",
    b"9" * 6000,
)  # in the position of a file
VALUES = (
    10**9,
    10**30,
    2**31,
    2**63,
    10**4000,
    -1,
    0,
    1,
    2.5,
    1e300,
    1e39,
    -0.0,
    float("nan"),
    float("inf"),
    True,
    False,
    "3",
    "",
    "x" * 5000,
    "\ud800",
    None,
    [],
    [1],
    [[[]]] * 3,
    {},
    {"a": 1},
)


def one(draw: Draw, of: Any) -> Any:
    """One of several, as it is."""
    return of[int(draw.integers(len(of)))]


def linked(folder: Path, *without: str) -> Path:
    """A directory of links to the built-in model's files, but for some."""
    made = folder / "m"
    made.mkdir()
    for file in loading.BUILTIN.iterdir():
        if file.name not in (*without, checksums.FILE):
            (made / file.name).symlink_to(file)
    return made


def builtin(name: str) -> Any:
    return json.loads((loading.BUILTIN / name).read_text())


def paths(content: Any, inside: tuple = ()) -> list[tuple]:
    """Where each value of a JSON text is."""
    members: list[tuple] = []
    if isinstance(content, dict):
        members = list(content.items())
    elif isinstance(content, list):
        members = list(enumerate(content))
    found = [(*inside, key) for key, _ in members]
    for key, value in members:
        found += paths(value, (*inside, key))
    return found


def mutated(draw: Draw, content: Any) -> tuple[str, str]:
    """A JSON text with one change, and what it is."""
    content = copy.deepcopy(content)
    where = one(draw, paths(content))
    parent = functools.reduce(lambda inside, key: inside[key], where[:-1], content)
    kind = one(draw, ("value", "value", "value", "remove", "rename", "twice", "cut"))
    name = ".".join(map(str, where))
    if kind == "value":
        parent[where[-1]] = one(draw, VALUES)
        return f"{name} is {str(parent[where[-1]])[:40]!r}", json.dumps(content)
    if kind == "remove":
        del parent[where[-1]]
    elif kind == "rename" and isinstance(parent, dict):
        parent[f"{where[-1]}_"] = parent.pop(where[-1])
    text = json.dumps(content)
    if kind == "twice" and text.startswith("{"):
        text = text[:-1] + ", " + text[1:]
    if kind == "cut":
        text = text[: int(draw.integers(len(text)))]
    return f"{name}, {kind}", text


def damaged(draw: Draw, content: bytes, head: int = 0) -> tuple[str, bytes]:
    """Bytes cut, flipped, overwritten or lengthened; flips hit the first `head` bytes."""
    kind = one(draw, ("cut", "flip", "zeros", "longer", "pointer"))
    at = int(draw.integers(min(head or len(content), len(content))))
    if kind == "cut":
        return f"cut at {at}", content[:at]
    if kind == "flip":
        changed = content[at] ^ 1 << int(draw.integers(8))
        return f"bit of byte {at}", content[:at] + bytes([changed]) + content[at + 1 :]
    if kind == "zeros":
        return f"zeros from {at}", content[:at] + bytes(16) + content[at + 16 :]
    return (kind, POINTER) if kind == "pointer" else (kind, content + bytes(7))


# What is run.


def load(model: str, adapter: str | None = None) -> str:
    """Loads a model and makes a prompt, as the commands do before anything is compiled."""
    made = loading.load(model, adapter)
    batch, _ = made.inputs([np.zeros((40, 50, 3), np.uint8)])
    assert made.program.named
    return f"{batch.input_ids.shape}"


def read_tokenizer(folder: str) -> str:
    found = tokenizer.load(folder)
    return f"{len(found)} {found.encode('A smile.')}"


@functools.cache
def _kept() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="sf_jax-faults-")


@functools.cache
def small_model(shards: bool = False) -> Path:
    """A directory of a small model, in one file or in shards."""
    made = Path(_kept().name) / ("shards" if shards else "single")
    hf.save(
        made,
        small_config(),
        initialise(small_config().declare(), 0),
        max_shard_bytes=30_000 if shards else 2**30,
    )
    return made


@functools.cache
def small_adapter() -> Path:
    made = Path(_kept().name) / "adapter"
    config = lora.LoraConfig(targets=("q_proj", "v_proj"), rank=2)
    adapter = lora.initialise(config, small_config().declare(), 0)
    peft.save(made, adapter, small_config().declare())
    return made


@functools.cache
def small_import() -> Path:
    made = Path(_kept().name) / "imported"
    assert cli.main(["convert", "import", str(small_model()), str(made)]) == 0
    (made / checksums.FILE).unlink()
    return made


def copied(source: Path, folder: Path) -> Path:
    """A copy of a small directory."""
    for file in source.rglob("*"):
        if file.is_file():
            target = folder / "m" / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return folder / "m"


def repacked(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the header of a safetensors file."""
    content = file.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    replaced = change(header)
    text = replaced if isinstance(replaced, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


# Kinds of faults.


def honest(draw: Draw, folder: Path) -> Fault:
    return Fault("a sound model", (str(linked(folder)),), call=f"{HERE}:load")


def config_field(draw: Draw, folder: Path) -> Fault:
    made = linked(folder, "config.json")
    name, text = mutated(draw, builtin("config.json"))
    (made / "config.json").write_text(text)
    return Fault(name, ("m",), call=f"{HERE}:load", names=r"config\.json|safetensors|^m|/m:")


def instead_of_a_file(draw: Draw, folder: Path) -> Fault:
    name = one(draw, [f.name for f in loading.BUILTIN.iterdir() if f.name != checksums.FILE])
    made = linked(folder, name)
    content = one(draw, INSTEAD)
    (made / name).write_bytes(content)
    return Fault(f"{content[:30]!r} as {name}", ("m",), call=f"{HERE}:load", names="m/|m:")


def settings(draw: Draw, folder: Path) -> Fault:
    """Other values in the processor's or the schema's file."""
    name = one(draw, ("preprocessor_config.json", "schema.json"))
    made = linked(folder, name)
    content = to_dict(channel_schema()) if name == "schema.json" else builtin(name)
    what, text = mutated(draw, content)
    (made / name).write_text(text)
    return Fault(f"{name}: {what}", ("m",), call=f"{HERE}:load", names=name)


def weights(draw: Draw, folder: Path) -> Fault:
    made = copied(small_model(), folder)
    file = made / "model.safetensors"
    if draw.random() < 0.4:
        name, content = damaged(draw, file.read_bytes(), head=3000)
        file.write_bytes(content)
    else:
        name = one(draw, sorted(HEADERS))
        repacked(file, functools.partial(HEADERS[name], draw))
    return Fault(name, ("convert", "import", "m", "out"), names="model.safetensors")


def _entry(draw: Draw, header: dict[str, Any]) -> dict[str, Any]:
    return header[one(draw, sorted(header.keys() - {"__metadata__"}))]


HEADERS: dict[str, Callable[[Draw, dict[str, Any]], object]] = {
    "another type": lambda draw, h: _entry(draw, h).update(
        dtype=one(draw, ("F99", "I64", "F8_E4M3", 3))
    ),
    "another shape": lambda draw, h: _entry(draw, h).update(
        shape=one(draw, ([], [2**40], [-1], "a", [1.5]))
    ),
    "other offsets": lambda draw, h: _entry(draw, h).update(
        data_offsets=one(draw, ([0, 4], [4, 0], [0], [2**60, 2**61], [None, 1]))
    ),
    "all at the beginning": lambda draw, h: [
        e.update(data_offsets=[0, 64]) for n, e in h.items() if n[:2] != "__"
    ],
    "a tensor less": lambda draw, h: h.pop(one(draw, sorted(h.keys() - {"__metadata__"}))),
    "a tensor more": lambda draw, h: h.update(
        more={"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    ),
    "metadata": lambda draw, h: h.update(__metadata__=one(draw, ({"a": 1}, [], None, "x"))),
    "twice": lambda draw, h: json.dumps(h).encode()[:-1] + b", " + json.dumps(h).encode()[1:],
    "nested": lambda draw, h: b"[" * 4000 + b"]" * 4000,
    "no entry": lambda draw, h: h.update({one(draw, sorted(h)): one(draw, VALUES[:10])}),
}


def shards(draw: Draw, folder: Path) -> Fault:
    made = copied(small_model(shards=True), folder)
    index = made / "model.safetensors.index.json"
    kind = one(draw, ("index", "pointer", "missing", "outside", "instead"))
    shard = one(draw, sorted(made.glob("model-*")))
    name = kind
    if kind == "index":
        name, text = mutated(draw, json.loads(index.read_text()))
        index.write_text(text)
    elif kind == "pointer":
        shard.write_bytes(one(draw, INSTEAD))
    elif kind == "missing":
        shard.unlink()
    elif kind == "instead":
        index.write_bytes(one(draw, INSTEAD))
    else:
        content = json.loads(index.read_text())
        outside = one(draw, ("../x", "/etc/passwd", ".", "..", "", "a\0b", "a/b", "x" * 400))
        content["weight_map"][one(draw, sorted(content["weight_map"]))] = outside
        index.write_text(json.dumps(content))
    return Fault(name, ("convert", "import", "m", "out"), names="model")


def adapter(draw: Draw, folder: Path) -> Fault:
    made = copied(small_adapter(), folder).rename(folder / "a")
    copied(small_model(), folder)
    config, tensors = made / "adapter_config.json", made / "adapter_model.safetensors"
    kind = one(draw, ("field", "field", "field", "pattern", "instead", "tensors", "arrays"))
    name = kind
    if kind == "field":
        name, text = mutated(draw, json.loads(config.read_text()))
        config.write_text(text)
    elif kind == "pattern":
        content = json.loads(config.read_text())
        name = one(
            draw, ("(", "(?i)x", "[", "(" * 5000, "\\", "(?P<layer_number>x)", "*", "x{9999999999}")
        )
        content[one(draw, ("rank_pattern", "alpha_pattern"))] = {name: 4}
        content["layers_to_transform"] = one(draw, (None, [0], 1, [10**30], -1))
        content["layers_pattern"] = one(draw, (None, name, [name, "(a)?"]))
        config.write_text(json.dumps(content))
    elif kind == "instead":
        one(draw, (config, tensors)).write_bytes(one(draw, INSTEAD))
    elif kind == "tensors":
        name, content = damaged(draw, tensors.read_bytes(), head=1500)
        tensors.write_bytes(content)
    else:
        arrays = load_file(tensors)
        chosen = one(draw, sorted(arrays))
        arrays[chosen] = one(
            draw,
            (
                arrays[chosen] * np.nan,
                arrays[chosen].astype(np.int8),
                arrays[chosen].T.copy(),
                np.zeros((0, 4), np.float32),
                arrays[chosen].astype(np.float64),
            ),
        )
        save_file(arrays, tensors)
    return Fault(name, ("convert", "merge", "m", "a", "out"), names="adapter_|a:")


def tokenizers(draw: Draw, folder: Path) -> Fault:
    made = folder / "m"
    made.mkdir()
    file = one(draw, ("tokenizer.json", "tokenizer.model"))
    kind = one(draw, ("instead", "bytes", "json", "slow"))
    name = kind
    if kind == "slow":
        for other in ("vocab.json", "merges.txt"):
            if draw.random() < 0.7:
                (made / other).write_text("{}")
    elif kind == "json":
        file = "tokenizer.json"
        content = builtin(file)
        content["model"]["vocab"] = {k: v for k, v in content["model"]["vocab"].items() if v < 30}
        content["model"]["merges"] = content["model"]["merges"][:3]
        name, text = mutated(draw, content)
        (made / file).write_text(text, encoding="utf-8", errors="replace")
    elif kind == "instead":
        (made / file).write_bytes(one(draw, INSTEAD))
    else:
        name, found = damaged(draw, (loading.BUILTIN / file).read_bytes(), head=4000)
        (made / file).write_bytes(found)
    return Fault(name, ("m",), call=f"{HERE}:read_tokenizer", names="tokenizer")


def stored(draw: Draw, folder: Path) -> Fault:
    """An imported directory whose stored.json or Orbax files are damaged."""
    made = copied(small_import(), folder)
    kind = one(draw, ("stored", "stored", "instead", "orbax", "orbax", "orbax", "config"))
    name = kind
    if kind == "stored":
        name, text = mutated(draw, json.loads((made / "stored.json").read_text()))
        (made / "stored.json").write_text(text)
    elif kind == "instead":
        one(draw, (made / "stored.json", made / "config.json")).write_bytes(one(draw, INSTEAD))
    elif kind == "config":
        name, text = mutated(draw, json.loads((made / "config.json").read_text()))
        (made / "config.json").write_text(text)
    else:
        file = one(draw, sorted(p for p in (made / "weights").rglob("*") if p.is_file()))
        if draw.random() < 0.4:
            file.unlink()
            name = f"no {file.relative_to(made)}"
        else:
            name, content = damaged(draw, file.read_bytes() or b"\0")
            name = f"{file.relative_to(made)}: {name}"
            file.write_bytes(content)
    return Fault(name, ("convert", "export", "m", "out"), names="m/")


def reference(draw: Draw, folder: Path) -> Fault:
    """An archive of reference logits for `convert verify`."""
    copied(small_model(), folder)
    file = folder / "r.npz"
    arrays = {"input_ids": np.array([[1, 2, 3]]), "logits": np.zeros((1, 3, 50), np.float32)}
    kind = one(draw, ("instead", "bytes", "array", "array", "header"))
    name = kind
    if kind == "array":
        chosen = one(draw, (*arrays, "attention_mask", "pixel_values", "image_grid_thw"))
        arrays[chosen] = one(
            draw,
            (
                np.zeros(0),
                np.array([[10**9, -1, 3]]),
                np.array(["a"]),
                np.ones((1, 3)),
                np.full((1, 3, 50), np.nan, np.float32),
                np.array(3),
                np.zeros((1, 3), bool),
                np.array([{}], object),
                np.zeros((2, 2, 2), np.uint8),
                np.array([[7, 7, 7]]),
            ),
        )
        name = f"{chosen} of {arrays[chosen].dtype} {arrays[chosen].shape}"
    np.savez(file, **arrays)
    if kind == "instead":
        file.write_bytes(one(draw, INSTEAD))
    elif kind == "bytes":
        name, content = damaged(draw, file.read_bytes())
        file.write_bytes(content)
    elif kind == "header":
        file.write_bytes(file.read_bytes().replace(b"(1, 3, 50)", b"(9**9, 50)"))
    return Fault(
        name, ("convert", "verify", "m", "--reference", "r.npz"), codes=(0, 1, 2), names=r"r\.npz"
    )


# Of point 7: fields and files that disagree, and requests.


def precedence(draw: Draw, folder: Path) -> Fault:
    """Rotary fields, tie flags and both processor files at random."""
    made = linked(folder, "config.json", "preprocessor_config.json")
    content, old = builtin("config.json"), builtin("preprocessor_config.json")
    text = content["text_config"]
    ropes = [text.pop("rope_scaling", None) or text.pop("rope_parameters"), None, {}, 3, []]
    ropes += [ropes[0] | {"rope_theta": theta} for theta in (1e4, None, "1e4", 0, 1e300)]
    ropes += [ropes[0] | {"rope_type": kind} for kind in ("yarn", "linear", None, 3)]
    for field in ("rope_scaling", "rope_parameters"):
        if draw.random() < 0.7:
            text[field] = one(draw, ropes)
    text["rope_theta"] = one(draw, (1e4, 5e6, None, "x", 1e-300))
    content["tie_word_embeddings"] = one(draw, (True, False, None, "yes", 1))
    (made / "config.json").write_text(json.dumps(content))
    if draw.random() < 0.7:
        old["rescale_factor"] = one(draw, (1 / 255, 1 / 127.5, None, "x", 0, 255))
        (made / "preprocessor_config.json").write_text(json.dumps(old))
    if draw.random() < 0.7:
        inside = one(draw, (old, None, [], old | {"max_pixels": 10**12}, old | {"size": 3}, "x"))
        whole = one(
            draw, ({"image_processor": inside}, {}, [], {"image_processor": inside, "x": 1})
        )
        (made / "processor_config.json").write_text(json.dumps(whole))
    return Fault(
        "rope, tie and processor", ("m",), call=f"{HERE}:load", names=r"config\.json|safet"
    )


def requests(draw: Draw, folder: Path) -> Fault:
    """A file of requests with one bad line among good ones, for a model that is never asked."""
    good = {
        "id": 7,
        "system": "Be exact.",
        "messages": [{"role": "user", "content": "<image>Read."}],
        "images": ["a.png"],
    }
    lines = [json.dumps(good)] * 3
    kind = one(draw, ("field", "image", "system", "instead"))
    name = kind
    if kind == "field":
        name, lines[1] = mutated(draw, good)
    elif kind == "instead":
        lines[1] = one(draw, INSTEAD[:-5]).decode("latin-1")
    else:
        field = {"image": "images", "system": one(draw, ("system", "system_prompt"))}[kind]
        images = (
            "https://a/b.png",
            "data:image/png;base64,xx",
            "/9j/" + "A" * 9000,
            "file:///a.png",
        )
        value = [one(draw, images)] if kind == "image" else one(draw, VALUES)
        lines[1] = json.dumps(good | {field: value})
        name = f"{field} is {str(value)[:40]!r}"
    (folder / "r.jsonl").write_text(
        "\n".join(lines) + "\n", encoding="utf-8", errors="surrogatepass"
    )
    return Fault(name, ("r.jsonl", "out.jsonl"), call=f"{HERE}:answered", names=r"r\.jsonl|line 2")


def answered(path: str, out: str) -> None:
    """`predict --requests` with a model without weights, on images that are not there."""
    commands.load_model = lambda *_: FakeModel()  # type: ignore[assignment, return-value]
    raise SystemExit(cli.main(["predict", "--requests", path, "--results", out]))


POINT_7 = [precedence, requests]
POINT_10 = [
    config_field,
    instead_of_a_file,
    settings,
    weights,
    shards,
    adapter,
    tokenizers,
    stored,
    reference,
]
