"""Images that are no take: their CSV, and the index of which row is which image."""

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sf_jax.face import livelink
from sf_jax.face.channels import NAMES
from sf_jax.face.timecode import TimecodeError
from sf_jax.media.errors import DataError
from sf_jax.reader import stills
from sf_jax.reader.reader import PredictOptions
from sf_jax.reader.stills import Still

IMAGES = ["a.png", "=1+1.png", "b, c.png", "@x", "-y.jpg", "'z.png", "w;=2.png", 'q".png']


def reader(**options):
    frames = options.get("whole") is False
    return SimpleNamespace(channels=NAMES, options=PredictOptions(**options), frames=frames)


def written(tmp_path, rows, **options):
    path = tmp_path / "faces.csv"
    index = stills.index_path(path)
    stills.write(reader(**options), path, index, rows)
    with index.open(newline="") as file:
        return path, list(csv.DictReader(file))


def some(images=IMAGES):
    return [Still(image, np.full(61, 0.1 * i, np.float32), True) for i, image in enumerate(images)]


def test_unrelated_images_are_a_second_apart_in_63_plain_columns(tmp_path):
    path, rows = written(tmp_path, some())
    assert path.read_text().splitlines()[0].split(",") == ["Timecode", "BlendShapeCount", *NAMES]
    take = livelink.read(path)
    assert take.fps == 1 and take.sources is None
    assert take.timecodes == [f"00:00:0{i}:00.000" for i in range(8)]
    assert [(row["row"], row["line"]) for row in rows] == [
        (f"{i}", f"{i + 1}") for i in range(1, 9)
    ]
    assert [row["timecode"] for row in rows] == take.timecodes
    assert [livelink.plain(row["image"]) for row in rows] == IMAGES
    assert {row["kind"] for row in rows} == {"still"}
    assert {row["found"] for row in rows} == {""}  # none was searched for


def test_a_given_rate_makes_a_take(tmp_path):
    path, rows = written(tmp_path, some(), fps=29.97, drop_frame=True, whole=False)
    assert livelink.read(path).timecodes[1] == "00:00:00;01.000"
    assert {row["kind"] for row in rows} == {"frame"} and {row["found"] for row in rows} == {"true"}
    with pytest.raises(TimecodeError, match="29.97 and 59.94 only"):
        stills.check_rate(reader(fps=24, drop_frame=True))
    stills.check_rate(reader(drop_frame=True))  # which is meant for videos of the same command


def test_the_source_column_is_harmless_and_read_back(tmp_path):
    path, _ = written(tmp_path, some(), source_column=True)
    assert livelink.read(path).sources == IMAGES
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            assert row["Source"][0] not in "=+-@"


def test_an_image_without_an_answer_has_an_empty_row(tmp_path):
    rows = [*some(["a"]), Still("b", None), *some(["c"])]
    path, index = written(tmp_path, rows)
    assert [row["answered"] for row in index] == ["true", "false", "true"]
    take = livelink.read(path, keep_empty=True)
    assert take.empty_lines == [3] == [int(index[1]["line"])]


def test_an_index_replaces_nothing_but_an_index(tmp_path):
    assert stills.index_path(Path("a/x.CSV")) == Path("a/x.index.csv")
    assert stills.index_path(Path("x.partial.csv")) == Path("x.partial.index.csv")
    assert len(stills.index_path(Path("ü" * 125 + ".csv")).name.encode()) < 240
    path, _ = written(tmp_path, some())
    stills.check_index(stills.index_path(path))
    other = tmp_path / "my.index.csv"
    stills.check_index(other)
    other.write_text("name,stock\n")
    with pytest.raises(DataError, match=r"my\.index\.csv: would be replaced by the index"):
        stills.check_index(other)


def test_people_learn_that_it_is_no_take():
    text = stills.summary(reader(), "p.csv", "p.index.csv", 3)
    assert text.startswith("p.csv: 3 unrelated images") and "no take" in text
    assert "at 24 a second" in stills.summary(reader(fps=24), "p.csv", "p.index.csv", 3)
