"""Where two fields or two files disagree, ours are those that transformers takes."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sf_jax.convert.hf_config import config_from_dict, config_to_dict
from sf_jax.convert.processor import ImageProcessor, ProcessorError
from sf_jax.convert.tensor_files import CheckpointError
from sf_jax.model.config import Source
from sf_jax.reader import loading
from tests.convert.torch_python import run_torch

DEFAULT = {"rope_type": "default", "mrope_interleaved": True, "mrope_section": [12, 10, 10]}
YARN = DEFAULT | {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
NEW = DEFAULT | {"rope_theta": 7e3}

# name: fields of text_config, the theta that is used (None: refused)
ROPES: dict[str, tuple[dict[str, Any], float | None]] = {
    "old fields": ({"rope_theta": 5e6, "rope_scaling": DEFAULT}, 5e6),
    "new fields": ({"rope_parameters": NEW}, 7e3),
    "theta beside and inside": ({"rope_theta": 5e6, "rope_parameters": NEW}, 7e3),
    "theta inside the old one": ({"rope_theta": 5e6, "rope_scaling": NEW}, 7e3),
    "both, theta inside the new": (
        {"rope_scaling": DEFAULT, "rope_theta": 9e3, "rope_parameters": NEW},
        9e3,
    ),
    "old one is yarn": ({"rope_scaling": YARN, "rope_theta": 9e3, "rope_parameters": NEW}, None),
    "new one is yarn": ({"rope_scaling": DEFAULT, "rope_theta": 9e3, "rope_parameters": YARN}, 9e3),
    "old one is null": ({"rope_scaling": None, "rope_parameters": NEW}, 7e3),
    "old one is empty": ({"rope_scaling": {}, "rope_parameters": NEW}, 7e3),
    "sections differ": (
        {
            "rope_scaling": DEFAULT | {"mrope_section": [16, 8, 8]},
            "rope_theta": 9e3,
            "rope_parameters": NEW,
        },
        9e3,
    ),
    "type and rope_type": ({"rope_scaling": DEFAULT | {"type": "yarn"}, "rope_theta": 9e3}, 9e3),
    "theta beside is null": ({"rope_theta": None, "rope_parameters": NEW}, 7e3),
    "theta inside is null": ({"rope_theta": 9e3, "rope_scaling": NEW | {"rope_theta": None}}, None),
}

# name: fields of the file, of text_config, whether embeddings are tied
TIES: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "tied in the file": ({"tie_word_embeddings": True}, {"tie_word_embeddings": False}, True),
    "untied in the file": ({"tie_word_embeddings": False}, {"tie_word_embeddings": True}, False),
    "tied in text_config alone": ({}, {"tie_word_embeddings": True}, False),
}

OLD = json.loads((loading.BUILTIN / "preprocessor_config.json").read_text())
WIDE = OLD | {"min_pixels": None, "size": {"shortest_edge": 65536, "longest_edge": 262144}}
WIDE |= {"max_pixels": None}
TWO, ONE = "processor_config.json", "preprocessor_config.json"
BUILT_IN = OLD["min_pixels"], OLD["max_pixels"]
PROCESSORS: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "both": ({ONE: OLD, TWO: {"image_processor": WIDE}}, (65536, 262144)),
    "the newer alone": ({TWO: {"image_processor": WIDE}}, (65536, 262144)),
    "the newer without an image processor": ({ONE: OLD, TWO: {"num_tokens": 3}}, BUILT_IN),
    "null in the newer": ({ONE: OLD, TWO: {"image_processor": None}}, BUILT_IN),
    "min_pixels and size": ({ONE: WIDE | {"min_pixels": 9999}}, (9999, 262144)),
}


def built_in(change: Callable[[dict[str, Any], dict[str, Any]], object]) -> dict[str, Any]:
    content = json.loads((loading.BUILTIN / "config.json").read_text())
    for name in ("rope_theta", "rope_scaling", "rope_parameters", "tie_word_embeddings"):
        content["text_config"].pop(name, None)
    change(content, content["text_config"])
    return content


def with_rope(fields: dict[str, Any]) -> dict[str, Any]:
    return built_in(lambda _, text: text.update(copy.deepcopy(fields)))


def with_ties(top: dict[str, Any], inside: dict[str, Any]) -> dict[str, Any]:
    def change(content: dict[str, Any], text: dict[str, Any]) -> None:
        content.pop("tie_word_embeddings", None)
        content.update(top)
        text.update(inside, rope_parameters=NEW)

    return built_in(change)


@pytest.fixture(scope="module")
def theirs() -> dict[str, Any]:
    cases: dict[str, dict[str, Any]] = {
        **{name: {"config.json": with_rope(fields)} for name, (fields, _) in ROPES.items()},
        **{name: {"config.json": with_ties(*fields)} for name, (*fields, _) in TIES.items()},
        **{name: files for name, (files, _) in PROCESSORS.items()},
    }
    return json.loads(run_torch("reference_precedence.py", stdin=json.dumps(cases)))


@pytest.mark.parametrize("name", ROPES)
def test_the_rotary_fields_are_taken_by_precedence(name: str) -> None:
    fields, theta = ROPES[name]
    if theta is None:
        with pytest.raises(CheckpointError, match="config.json, field 'text_config.rope_scaling"):
            config_from_dict(with_rope(fields), Path("config.json"))
        return
    text = config_from_dict(with_rope(fields), Path("config.json")).text
    assert text.rope_theta == theta
    section = (16, 8, 8) if name == "sections differ" else (12, 10, 10)
    assert text.mrope_section == section


@pytest.mark.parametrize("name", TIES)
def test_embeddings_are_tied_by_the_field_outside(name: str) -> None:
    *fields, tied = TIES[name]
    config = config_from_dict(with_ties(*fields), Path("config.json"))
    assert config.text.tie_word_embeddings == tied


@pytest.mark.parametrize("name", PROCESSORS)
def test_the_processor_file_is_taken_by_precedence(name: str, tmp_path: Path) -> None:
    files, bounds = PROCESSORS[name]
    for file, content in files.items():
        (tmp_path / file).write_text(json.dumps(content))
    found = ImageProcessor.load(tmp_path)
    assert (found.min_pixels, found.max_pixels) == bounds


def test_transformers_agrees(theirs: dict[str, Any]) -> None:
    for name, (fields, theta) in ROPES.items():
        if theta is not None:
            found = theirs[name]["rope"]
            assert (found["rope_type"], found["rope_theta"]) == ("default", theta), name
            text = config_from_dict(with_rope(fields), Path("config.json")).text
            assert tuple(found["mrope_section"]) == text.mrope_section, name
    assert theirs["old one is yarn"]["rope"]["rope_type"] == "yarn"
    for name, (*_, tied) in TIES.items():
        assert theirs[name]["tied"] == tied, name
    for name, (_, bounds) in PROCESSORS.items():
        assert tuple(theirs[name]["bounds"]) == bounds, name


def test_a_change_is_written_where_it_is_read() -> None:
    for fields, theta in ROPES.values():
        if theta is not None:
            content = with_rope(fields)
            found = config_from_dict(content, Path("config.json"))
            source = Source(json.dumps(content), ())
            text = replace(found.text, rope_theta=3e3)
            changed = config_to_dict(replace(found, text=text, source=source))
            assert config_from_dict(changed, Path("config.json")).text.rope_theta == 3e3


@pytest.mark.parametrize("content", ["[]", '{"image_processor": 3}', '{"image_processor": []}', ""])
def test_a_broken_newer_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / ONE).write_text(json.dumps(OLD))
    (tmp_path / TWO).write_text(content)
    with pytest.raises(ProcessorError, match=TWO):
        ImageProcessor.load(tmp_path)


@pytest.mark.parametrize(
    ("section", "fields", "named"),
    [
        ("text_config", {"rope_scaling": 3}, "text_config.rope_scaling"),
        ("text_config", {"rope_scaling": DEFAULT | {"rope_theta": 0.5}}, "rope_scaling.rope_theta"),
        ("text_config", {"rope_scaling": {"full_attention": DEFAULT}}, "full_attention"),
        ("text_config", {"rope_scaling": NEW | {"mrope_section": [9]}}, "mrope_section"),
        ("text_config", {"rope_scaling": DEFAULT}, "text_config.rope_theta"),
        ("vision_config", {"rope_theta": 5e5}, "vision_config.rope_theta"),
        ("vision_config", {"rope_parameters": {"rope_theta": 5e5}}, "rope_parameters.rope_theta"),
        ("vision_config", {"rope_scaling": {"rope_type": "linear"}}, "rope_scaling.rope_type"),
    ],
)
def test_other_rotations_are_refused_by_name(
    section: str, fields: dict[str, Any], named: str
) -> None:
    content = with_rope({} if section == "text_config" else {"rope_parameters": NEW})
    content[section].update(fields)
    with pytest.raises(CheckpointError, match=f"field '(.*\\.)?{named}"):
        config_from_dict(content, Path("config.json"))
