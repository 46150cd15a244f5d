"""Labels of several trackers as one type: what is known, times, names, and errors that name."""

import json
from pathlib import Path

import numpy as np
import pytest

from sf_jax.face import label_json, labels, livelink
from sf_jax.face.channels import ANGLES, INDEX
from sf_jax.media.errors import DataError


def categories(jaw: float) -> list[dict[str, object]]:
    """MediaPipe's scores, with its neutral one."""
    return [
        {"index": 0, "score": 0.01, "categoryName": "_neutral", "displayName": ""},
        {"index": 25, "score": jaw, "categoryName": "jawOpen", "displayName": ""},
        {"index": 44, "score": 0.5, "categoryName": "mouthSmileLeft", "displayName": ""},
    ]


def value(found: labels.Labels, row: int, name: str) -> float:
    return float(found.coefficients[row, INDEX[name]])


@pytest.mark.parametrize(
    "layout",
    [
        lambda jaw: {"faceBlendshapes": [{"categories": categories(jaw)}]},
        lambda jaw: {"faceBlendshapes": [categories(jaw)]},
        lambda jaw: {"results": {"faceBlendshapes": [categories(jaw)]}},
        lambda jaw: {
            "face_blendshapes": [
                [
                    {"category_name": "jawOpen", "score": jaw},
                    {"category_name": "mouthSmileLeft", "score": 0.5},
                ]
            ]
        },
        lambda jaw: {"blendshapes": {"jawOpen": jaw, "mouthSmileLeft": 0.5, "_neutral": 0}},
        lambda jaw: {"jawOpen": jaw, "mouthSmile_L": 0.5},
    ],
)
def test_layouts_of_json(tmp_path: Path, layout) -> None:  # type: ignore[no-untyped-def]
    rows = [{**layout(0.1 * i), "timestampMs": 100 + 33 * i} for i in range(4)]
    (tmp_path / "a.json").write_text(json.dumps({"frames": rows}))
    (tmp_path / "b.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    for name in ("a.json", "b.jsonl"):
        found = labels.read(tmp_path / name)
        assert [value(found, i, "JawOpen") for i in range(4)] == pytest.approx([0, 0.1, 0.2, 0.3])
        assert value(found, 3, "MouthSmileLeft") == 0.5
        assert found.known.sum() == 8 and not found.known[:, ANGLES].any()
        np.testing.assert_allclose(found.seconds, np.arange(4) * 0.033)
        assert any("TongueOut" in note for note in found.notes)


def test_mediapipe_is_named_and_its_labels_are_pseudo_labels(tmp_path: Path) -> None:
    rows = [{"faceBlendshapes": [{"categories": categories(0.2)}], "frame": i} for i in range(3)]
    rows[1] = {"faceBlendshapes": [], "frame": 1}
    (tmp_path / "a.json").write_text(json.dumps(rows))
    found = labels.read(tmp_path / "a.json")
    assert found.tracker == "mediapipe" and found.pseudo and found.numbers == [0, 1, 2]
    assert not found.known[1].any() and found.seconds is None
    assert any("1 rows without a face" in note for note in found.notes)
    assert labels.read(tmp_path / "a.json", tracker="mine").tracker == "mine"


@pytest.mark.parametrize("unit, step", [(1.0, 0.04), (1e-3, 40), (1e-6, 40_000)])
def test_the_unit_of_time_stamps_shows_in_their_steps(
    tmp_path: Path, unit: float, step: float
) -> None:
    rows = [{"jawOpen": 0.1 * i, "timestamp": 7 * step + i * step} for i in range(5)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    found = labels.read(tmp_path / "a.json")
    np.testing.assert_allclose(found.seconds, np.arange(5) * 0.04)
    assert found.rate == pytest.approx(25)


def test_a_given_rate_times_rows_without_times(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"jawOpen": 0.1 * i} for i in range(5)]))
    assert labels.read(tmp_path / "a.json").seconds is None
    found = labels.read(tmp_path / "a.json", fps=25)
    np.testing.assert_allclose(found.seconds, np.arange(5) / 25)
    assert found.rate == 25


@pytest.mark.parametrize("name", label_json.IMAGES)
def test_names_of_images_are_read_from_json_as_from_tables(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"jawOpen": 0.5, name: "x/1.png"}) + "\n")
    (tmp_path / "a.csv").write_text(f"{name},jawOpen\nx/1.png,0.5\n")
    for file in ("a.jsonl", "a.csv"):
        assert labels.read(tmp_path / file).images == ["x/1.png"]


def test_packets_of_ifacialmocap(tmp_path: Path) -> None:
    first = (
        "mouthSmile_L-12|jawOpen-50|jawLeft-3|trackingStatus-1|=head#1.5,2,3,0,0,0|rightEye#1,2,3|"
    )
    path = tmp_path / "a.txt"
    path.write_text(f"{first}\n{first.replace('-50', '&75')}\n")
    found = labels.read(path)
    assert value(found, 0, "MouthSmileLeft") == 0.12 and value(found, 0, "JawLeft") == 0.03
    assert [value(found, i, "JawOpen") for i in (0, 1)] == [0.5, 0.75]
    assert not found.known[:, ANGLES].any() and found.pseudo
    np.testing.assert_allclose(found.seconds, [0, 1 / 60])
    assert any("trackingStatus" in note for note in found.notes)
    path.write_text(f"10.25 {first}\n10.5 {first}\n")
    np.testing.assert_allclose(labels.read(path).seconds, [0, 0.25])


def test_live_link_csv(tmp_path: Path) -> None:
    values = np.random.default_rng(0).uniform(0, 0.9, (10, 61)).round(6)
    times = livelink.labels(10, 30, "10:00:01:00.000")
    livelink.write(tmp_path / "a.csv", values, timecodes=times)
    found = labels.read(tmp_path / "a.csv")
    np.testing.assert_array_equal(found.coefficients, values)
    assert found.tracker == "livelink" and not found.pseudo and found.clock == 36001.0
    assert found.rate == pytest.approx(30)


def test_what_predict_wrote_is_known(tmp_path: Path) -> None:
    """By the column of images, or by the JSON lines beside the CSV of a video."""
    values, path = np.full((3, 61), 0.25), tmp_path / "a.csv"
    times = livelink.labels(3, 30)
    livelink.write(path, values, timecodes=times, sources=["a.png", "b.png", "c.png"])
    found = labels.read(path)
    assert found.pseudo and found.tracker == "sf_jax"
    livelink.write(path, values, timecodes=times)
    (tmp_path / "a.jsonl").write_text('{"frame": 0}\n')
    assert not labels.read(path).pseudo and not labels.read(path, tracker="rig").pseudo
    (tmp_path / "a.jsonl").write_text('{"frame": 0, "sf_jax": {}}\n')
    assert labels.read(path).pseudo and labels.read(path, tracker="mine").tracker == "mine"


def test_a_table_of_images(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("file;jawOpen;mouthSmile_L\nx/1.png;0,5;\nx/2.png;0,25;1,01\n")
    found = labels.read(path)
    assert found.images == ["x/1.png", "x/2.png"] and found.tracker == "labels"
    assert value(found, 0, "JawOpen") == 0.5 and value(found, 1, "MouthSmileLeft") == 1
    assert not found.known[0, INDEX["MouthSmileLeft"]]
    assert any("clamped" in note for note in found.notes)


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("a.json", '[{"blendshapes": [0.1, 0.2]}]', "line 1.*bare numbers have no order"),
        ("a.json", "[3]", "line 1.*expected an object for a frame"),
        ("a.jsonl", '{"jawOpen": 0.1}\n{"jawOpen": "x"}', "line 2.*JawOpen.*expected a number"),
        ("a.jsonl", '{"jawOpen": 0.1}\n{"jawOpen": 40}', "line 2.*JawOpen.*found 40, expected"),
        ("a.jsonl", '{"jawOpen": 0.1}\n{"x": 1}', "line 2.*no blendshapes"),
        ("a.jsonl", "{", "line 1.*not JSON"),
        ("a.json", '[{"jawOpen": 1' + "0" * 400 + "}]", "line 1.*JawOpen.*too many digits"),
        ("a.json", '[{"jawOpen": 0, "frame": 1' + "0" * 400 + "}]", "line 1.*frame.*beyond"),
        ("a.json", "[]", "holds no labels"),
        ("a.txt", "jawOpen-10|mouthSmile_L\n", "line 1.*'mouthSmile_L', expected a blendshape"),
        ("a.csv", "file,nose\na.png,1\n", "names none of the 61 channels"),
        ("a.csv", "file,jawOpen\na.png,much\n", "line 2.*JawOpen.*'much'"),
        ("a.csv", "a,b\n1,2\n", "a Timecode column"),
        ("a.json", '[{"jawOpen": 0, "time": 2}, {"jawOpen": 0, "time": 1}]', "line 2.*earlier"),
    ],
)
def test_errors_name_file_line_and_field(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=f"(?s){name}.*{message}"):
        labels.read(tmp_path / name)
