"""Takes with known faults: each is found and named, and the frames that remain are exact."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines import records, takes
from data_pipelines.take_frames import Image as Picture
from data_pipelines.take_frames import Seen, TakeError
from data_pipelines.takes import Import, Imported
from sf_jax import cli
from sf_jax.cli import loading
from sf_jax.face import labels as label_files
from sf_jax.face import livelink
from sf_jax.face.channels import INDEX, NAMES
from sf_jax.face.landmarks import Square
from sf_jax.reader.session import remove_neutral
from tests.data_pipelines.synthetic_takes import (
    COUNT,
    FPS,
    NoisyReader,
    frame,
    imported,
    performance,
    write_csv,
    write_frames,
)

PERIOD = 1 / FPS
ALL = list(range(COUNT))
SHORT = list(range(240))  # 8 seconds


def nothing(image: Picture, seconds: float) -> Seen:
    """A reader that reads nothing: of frames whose labels name them."""
    return Seen(np.full(len(NAMES), np.nan))


def offset_of(done: Imported) -> float:
    assert done.pairing.offset is not None
    return done.pairing.offset.seconds


def faults(done: Imported) -> dict[str, int]:
    return {fault.kind: fault.count for fault in done.pairing.faults}


@pytest.mark.parametrize("shift", [60, -60, 11])
def test_the_offset_is_found_to_the_frame(tmp_path: Path, shift: int) -> None:
    rows, shown = ALL[max(0, shift) :][:300], ALL[max(0, -shift) :][:300]
    table = write_csv(tmp_path / "a.csv", rows)
    done, numbers = imported(table, write_frames(tmp_path / "a.mp4", shown))
    assert done.pairing.how == "curves" and not done.pairing.faults
    assert abs(offset_of(done) - shift * PERIOD) < PERIOD / 4
    assert numbers.tolist() == sorted(set(rows) & set(shown))
    assert done.pairing.left_out == {
        "rows without a frame": abs(shift),
        "frames without a row": abs(shift),
    }


def test_frames_missing_in_the_times_are_named(tmp_path: Path) -> None:
    dropped = {100, 200, 201, 202, 220}
    shown = [n for n in SHORT if n not in dropped]
    times = [Fraction(n, FPS) for n in shown]
    table = write_csv(tmp_path / "a.csv", SHORT)
    done, numbers = imported(table, write_frames(tmp_path / "a.mp4", shown, times=times))
    assert faults(done) == {"frames-missing": 5}
    (fault,) = done.pairing.faults
    assert fault.at == pytest.approx([99 / 30, 199 / 30, 219 / 30], abs=0.01)
    assert numbers.tolist() == shown


def test_frames_dropped_without_a_gap_are_found(tmp_path: Path) -> None:
    shown = [n for n in ALL if n not in (230, 231)]
    table = write_csv(tmp_path / "a.csv", ALL)
    done, numbers = imported(table, write_frames(tmp_path / "a.mp4", shown))
    assert faults(done) == {"frames-dropped": 2}
    assert abs(done.pairing.faults[0].at[0] - 230 / 30) < 0.7
    assert len(numbers) > len(shown) - 60 and abs(offset_of(done)) < PERIOD / 2


def test_frames_that_repeat_in_place_of_others_are_left_out(tmp_path: Path) -> None:
    again = [50, 120, 121, 200]
    shown = [n - 1 if n in again else n for n in SHORT]
    shown[121] = 119
    table = write_csv(tmp_path / "a.csv", SHORT)
    done, numbers = imported(table, write_frames(tmp_path / "a.mp4", shown))
    assert faults(done) == {"frames-doubled": 4}
    assert numbers.tolist() == [n for n in SHORT if n not in again]


def test_inserted_frames_are_found(tmp_path: Path) -> None:
    shown = [*ALL[:240], 239, *ALL[240:]]  # x264 has a key frame at 250
    table = write_csv(tmp_path / "a.csv", ALL)
    done, numbers = imported(table, write_frames(tmp_path / "a.mp4", shown))
    assert faults(done) == {"frames-doubled": 1, "frames-inserted": 1}
    assert len(numbers) > COUNT - 60


def test_missing_and_doubled_rows_are_named(tmp_path: Path) -> None:
    """Rows missing from the labels' times; one written twice; one that repeats stale values."""
    positions = [n for n in SHORT if n not in (80, 81, 150)]
    positions.insert(170, positions[169])
    values = list(positions)
    values[210] = values[209]
    table = write_csv(tmp_path / "a.csv", values, positions=positions)
    done, numbers = imported(table, write_frames(tmp_path / "a.mp4", SHORT))
    assert faults(done) == {"rows-doubled": 2, "rows-missing": 3}
    stale = positions[210]
    assert numbers.tolist() == [n for n in SHORT if n not in (80, 81, 150, stale)]


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), 30])
def test_a_file_at_30_and_a_video_at_29_97(tmp_path: Path, rate: Fraction | int) -> None:
    """As also at the same rate, frames pair one to one."""
    table = write_csv(tmp_path / "a.csv", ALL)
    done, numbers = imported(table, write_frames(tmp_path / "a.mp4", ALL, rate))
    assert faults(done) == ({} if rate == 30 else {"rate": 1})
    assert numbers.tolist() == ALL and abs(offset_of(done)) < PERIOD / 4
    if rate != 30:
        assert "30 rows a second and the video shows 29.97" in done.pairing.faults[0].text


def test_rows_at_twice_the_rate_of_frames(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    fine = performance(1 / 60, 2 * len(SHORT))
    livelink.write(path, fine, timecodes=livelink.labels(len(fine), 60))
    done, numbers = imported(path, write_frames(tmp_path / "a.mp4", SHORT))
    assert not done.pairing.faults and numbers.tolist() == SHORT


def test_a_varying_frame_rate(tmp_path: Path) -> None:
    """30 frames a second, then 10, then 30, in a container of milliseconds."""
    shown = [*range(150), *range(150, 270, 3), *range(270, 400)]
    times = [Fraction(n, FPS) for n in shown]
    table = write_csv(tmp_path / "a.csv", ALL[30:400])
    video = write_frames(tmp_path / "a.mkv", shown, times=times)
    done, numbers = imported(table, video)
    assert set(faults(done)) == {"variable-rate"}
    assert numbers.tolist() == [n for n in shown if n >= 30]
    assert abs(offset_of(done) - 1) < PERIOD / 4


def rewritten(path: Path, columns: Callable[[list[str]], list[str]]) -> Path:
    """The file with its columns reordered or left out."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns(list(rows[0])), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_shuffled_columns_are_read_by_name(tmp_path: Path) -> None:
    def shuffled(names: list[str]) -> list[str]:
        return [str(name) for name in np.random.default_rng(1).permutation(names)]

    table = rewritten(write_csv(tmp_path / "a.csv", SHORT), shuffled)
    done, numbers = imported(table, write_frames(tmp_path / "a.mp4", SHORT))
    assert numbers.tolist() == SHORT
    assert any("another order" in note for note in done.labels.notes)


def test_missing_columns_are_masked(tmp_path: Path) -> None:
    lacking = ["TongueOut", "CheekPuff", "HeadYaw"]
    table = write_csv(tmp_path / "a.csv", SHORT)
    rewritten(table, lambda names: [name for name in names if name not in lacking])
    video = write_frames(tmp_path / "a.mp4", SHORT)
    done, numbers = imported(table, video, Import(masked=("JawForward",)))
    assert numbers.tolist() == SHORT
    assert any("CheekPuff, TongueOut, HeadYaw" in note for note in done.labels.notes)
    record = records.first(tmp_path / "out", 1)[0]
    unknown = {name for name in NAMES if not record["known"][INDEX[name]]}
    assert unknown == {*lacking, "JawForward"}


def test_timecode_relates_what_cannot_be_read(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "a.csv", ALL[60:300])
    video = write_frames(tmp_path / "a.mov", ALL[:300], metadata={"timecode": "11:59:58:00"})
    done, numbers = imported(table, video, reader=lambda *_: Seen(np.full(61, np.nan)))
    assert done.pairing.how == "timecode" and numbers.tolist() == ALL[60:300]
    assert any("timecode is used" in note for note in done.pairing.notes)


def test_curves_overrule_a_wrong_timecode(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "a.csv", ALL[60:300])
    video = write_frames(tmp_path / "a.mov", ALL[:300], metadata={"timecode": "11:59:59:00"})
    done, numbers = imported(table, video)
    assert done.pairing.how == "curves" and numbers.tolist() == ALL[60:300]
    assert any("timecode puts" in note and "+1.000" in note for note in done.pairing.notes)


def test_an_offset_that_is_given(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "a.csv", SHORT[60:])
    video = write_frames(tmp_path / "a.mp4", SHORT)
    how = Import(offset=2.0, every=3)
    done, numbers = imported(table, video, how, reader=nothing)
    assert done.pairing.how == "given" and numbers.tolist() == SHORT[60::3]


@pytest.mark.parametrize("offset", [1.0, 1])
def test_a_given_offset_stays_where_frames_were_dropped(tmp_path: Path, offset: float) -> None:
    """Three frames early in the video: most of it is shifted against its first frame."""
    shown = [n for n in ALL if n not in (130, 131, 132)]
    table = write_csv(tmp_path / "a.csv", ALL[30:])
    video = write_frames(tmp_path / "a.mp4", shown)
    done, numbers = imported(table, video, Import(offset=offset))
    assert done.pairing.how == "given" and offset_of(done) == 1.0
    assert faults(done) == {"frames-dropped": 3} and len(numbers) > COUNT - 100


def write_rows(path: Path, numbers: list[int], named: list[object] | None = None) -> Path:
    """JSON of frames' labels, each with a number where `named` has some."""
    rows = []
    for i, number in enumerate(numbers):
        values = {NAMES[k]: float(performance()[number, k]) for k in range(51)}
        rows.append({"blendshapes": values} | ({} if named is None else {"frame": named[i]}))
    path.write_text(json.dumps(rows))
    return path


def write_images(folder: Path, named: dict[str, int]) -> Path:
    folder.mkdir()
    for name, number in named.items():
        Image.fromarray(frame(number)).save(folder / f"{name}.png")
    return folder


def test_numbers_that_begin_at_1(tmp_path: Path) -> None:
    """They are seen to where they reach the last frame; else the user is asked."""
    video = write_frames(tmp_path / "a.mp4", SHORT[:30])
    table = write_rows(tmp_path / "a.json", SHORT[:30], [n + 1 for n in SHORT[:30]])
    done, numbers = imported(table, video, reader=nothing)
    assert numbers.tolist() == SHORT[:30] and "frames are numbered from 1" in done.notes
    write_rows(tmp_path / "a.json", SHORT[:20], [n + 1 for n in SHORT[:20]])
    (tmp_path / "out").rename(tmp_path / "before")
    with pytest.raises(TakeError, match="from 1 to 20 of 30: .* --first-frame 0 or --first-frame"):
        imported(table, video, reader=nothing)
    done, numbers = imported(table, video, Import(first_frame=1), reader=nothing)
    assert numbers.tolist() == SHORT[:20] and done.pairing.left_out == {"frames without a row": 10}


@pytest.mark.parametrize(
    "named, given",
    [
        ({"a": 4, "b": 5, "c": 6, "d": 7}, [(7, 3), (4, 0), (6, 2)]),  # in the order of their names
        ({"f1": 4, "f10": 13, "f2": 5, "f8": 11}, [(13, 10), (5, 2), (11, 8)]),  # in their names
        ({f"{n}": 3 + n for n in range(1, 12)}, [(14, 10), (4, 0), (5, 1)]),  # from 0, in order
    ],
)
def test_numbers_of_images_in_a_folder(
    tmp_path: Path, named: dict[str, int], given: list[tuple[int, int]]
) -> None:
    table = write_rows(tmp_path / "a.json", [n for n, _ in given], [number for _, number in given])
    done, numbers = imported(table, write_images(tmp_path / "images", named), reader=nothing)
    assert done.pairing.how == "numbers"
    assert sorted(numbers.tolist()) == sorted(n for n, _ in given)


def test_rows_and_images_in_order(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", {"a": 3, "b": 5, "c": 8})
    done, numbers = imported(write_rows(tmp_path / "a.json", [3, 5, 8]), images, reader=nothing)
    assert done.pairing.how == "order" and numbers.tolist() == [3, 5, 8]
    assert any("order alone" in note for note in done.notes)
    write_rows(tmp_path / "a.json", [3, 5])
    with pytest.raises(TakeError, match="2 rows for 3 frames"):
        takes.import_take(tmp_path / "a.json", images, tmp_path / "o2", nothing)


@pytest.mark.parametrize(
    "how, message",
    [
        (Import(offset=0.0), "has no times; leave out --offset"),
        (Import(offset="timecode"), "has no times; leave out --offset"),
    ],
)
def test_an_offset_that_cannot_be_used_is_refused(
    tmp_path: Path, how: Import, message: str
) -> None:
    table = write_rows(tmp_path / "a.json", SHORT[:5], list(SHORT[:5]))
    video = write_frames(tmp_path / "a.mp4", SHORT[:5])
    with pytest.raises(TakeError, match=message):
        takes.import_take(table, video, tmp_path / "out", nothing, how)
    csv_file = write_csv(tmp_path / "a.csv", SHORT[:5])
    with pytest.raises(TakeError, match="leave out --"):
        images = write_images(tmp_path / "images", {f"x{n}": n for n in range(5)})
        takes.import_take(csv_file, images, tmp_path / "out", nothing, how)
    with pytest.raises(TakeError, match="leave out --first-frame"):
        how = Import(offset=0.0, first_frame=0)
        takes.import_take(csv_file, video, tmp_path / "out", nothing, how)
    assert not (tmp_path / "out").exists()


def emptied(path: Path, rows: range) -> Path:
    """The Live Link file without values in some rows, as where no face was found."""
    with path.open(newline="") as file:
        lines = list(csv.reader(file))
    for row in rows:
        lines[1 + row][2:] = [""] * (len(lines[0]) - 2)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return path


def test_rows_without_values(tmp_path: Path) -> None:
    """They count as empty alone, and are no face at rest."""
    table = emptied(write_csv(tmp_path / "a.csv", SHORT), range(60, 90))
    video = write_frames(tmp_path / "a.mp4", SHORT)
    done, numbers = imported(table, video)
    assert faults(done) == {"rows-empty": 30}
    assert numbers.tolist() == [n for n in SHORT if n not in range(60, 90)]
    labels = label_files.read(table)
    values = performance()[SHORT, :52]
    cost = values.sum(1) + 5 * np.r_[0, np.abs(np.diff(values, axis=0)).sum(1)]
    starts = [n for n in SHORT[:-15] if not set(range(n, n + 16)) & set(range(60, 90))]
    best = min(starts, key=lambda n: float(cost[n : n + 15].mean()))
    assert takes._stillest(labels) == pytest.approx(best * PERIOD)
    with pytest.raises(TakeError, match="no 0.5 s of values without a gap"):
        takes._neutral(replace(labels, coefficients=np.full((240, 61), np.nan)), "auto")
    emptied(table, range(240))
    with pytest.raises(TakeError, match="a.csv: holds no values"):
        how = Import(offset=0.0)
        takes.import_take(table, video, tmp_path / "o2", nothing, how)


def test_recordings_of_two_performances_are_refused(tmp_path: Path) -> None:
    """Nothing is written."""
    table = write_csv(tmp_path / "a.csv", SHORT)
    video = write_frames(tmp_path / "a.mp4", ALL[240:])
    with pytest.raises(TakeError, match="no clear offset.*--offset SECONDS"):
        imported(table, video)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*partial"))


def test_a_neutral_face_is_subtracted(tmp_path: Path) -> None:
    table = write_csv(tmp_path / "a.csv", SHORT)
    video = write_frames(tmp_path / "a.mp4", SHORT)
    out = tmp_path / "out"
    how = Import(neutral=(2.0, 2.5))
    done = takes.import_take(table, video, out, NoisyReader(), how, sheets=False)
    rest = np.median(performance()[60:76], axis=0).astype(np.float32)
    np.testing.assert_allclose(done.neutral, rest, atol=1e-6)
    record = records.first(out, 5)[4]
    wanted = remove_neutral(performance()[4].astype(np.float32), rest)
    np.testing.assert_allclose(record["coefficients"], wanted, atol=1e-6)
    with pytest.raises(TakeError, match="no row from 50 to 51 s"):
        far = Import(neutral=(50, 51))
        takes.import_take(table, video, tmp_path / "o2", NoisyReader(), far, sheets=False)


def test_report_and_sheets(tmp_path: Path) -> None:
    """The command, with its files; a dead and a saturated channel are named."""
    rows = performance()[SHORT].copy()
    rows[:, INDEX["CheekPuff"]] = 0
    rows[:, INDEX["MouthPucker"]] = 1
    labels = livelink.labels(len(rows), FPS)
    livelink.write(tmp_path / "anna.csv", rows, timecodes=labels)
    video = write_frames(tmp_path / "a.mp4", SHORT)
    how = Import(split="evaluation", person="anna", neutral="auto")
    done = takes.import_take(tmp_path / "anna.csv", video, tmp_path / "out", NoisyReader(), how)
    found = json.loads((tmp_path / "out" / "import.json").read_text())
    assert found["counts"] == {"rows": 240, "frames": 240, "pairs": 240, "records": 240}
    assert "CheekPuff" in found["quality"]["dead"] and found["related_by"] == "curves"
    assert found["person"] == "anna" and not found["pseudo"] and found["neutral"]
    assert any("never move" in line for line in done.lines())
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"quality.png", "contact.png", "evaluation-00000.array_record"} <= names
    assert all((tmp_path / "out" / name).stat().st_size > 10_000 for name in names if "png" in name)


def test_a_folder_of_images_with_a_table(tmp_path: Path) -> None:
    """One image has no row, one row no image; channels without a column are not known."""
    (tmp_path / "images" / "x").mkdir(parents=True)
    for number in (3, 5, 8):
        Image.fromarray(frame(number)).save(tmp_path / "images" / "x" / f"{number}.png")
    jaw = {number: performance()[number, INDEX["JawOpen"]] for number in (3, 5, 9)}
    lines = [f"x/{number}.png,{value:.9f}" for number, value in jaw.items()]
    (tmp_path / "a.csv").write_text("\n".join(["image,jawOpen", *lines]) + "\n")
    done, numbers = imported(tmp_path / "a.csv", tmp_path / "images")
    assert numbers.tolist() == [3, 5] and done.pairing.how == "names"
    assert done.pairing.left_out == {"rows without a frame": 1, "frames without a row": 1}
    assert faults(done) == {"frames-missing": 1}
    record = records.first(tmp_path / "out", 1)[0]
    assert record["known"].sum() == 1 and record["source"] == "take"


def test_pseudo_labels_by_frame_number(tmp_path: Path) -> None:
    """As MediaPipe's, made of the video itself: no offset is needed, and faceless rows fall out."""
    video = write_frames(tmp_path / "a.mp4", SHORT[:60])
    rows = []
    for number in SHORT[:60]:
        named = {NAMES[i]: float(performance()[number, i]) for i in range(51)}
        scores = [{"categoryName": name, "score": value} for name, value in named.items()]
        rows.append({"frame": number, "faceBlendshapes": [{"categories": scores}]})
    rows[7]["faceBlendshapes"] = []
    (tmp_path / "a.json").write_text(json.dumps(rows))
    done, numbers = imported(tmp_path / "a.json", video, reader=nothing)
    assert done.pairing.how == "numbers" and numbers.tolist() == [n for n in SHORT[:60] if n != 7]
    record = records.first(tmp_path / "out", 1)[0]
    assert (record["source"], record["style"]) == ("pseudo", "mediapipe")
    assert not record["known"][51:].any() and record["known"][:51].all()
    assert "pseudo-labels" in done.lines()[0]


class Loaded:
    """In place of a model: the command's reader is made of it."""


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    from data_pipelines import take_frames

    monkeypatch.setattr(loading, "load_model", lambda *_: Loaded())
    monkeypatch.setattr(take_frames, "model_reader", lambda model: NoisyReader())
    return cli.main(["data", "import-take", *map(str, arguments)])


def test_a_folder_of_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each video becomes a folder of its own, with the calibrated CSV of Live Link Face.

    What is left out and what cannot be imported is named, and a second call leaves the others as
    they are.
    """
    folder = tmp_path / "takes"
    folder.mkdir()
    write_csv(folder / "one.csv", ALL[300:420])
    write_csv(folder / "one_neutral.csv", ALL[300:420])
    write_csv(folder / "one_cal.csv", SHORT[:120])
    write_csv(folder / "two.csv", ALL[300:420])
    write_csv(folder / "lost.csv", SHORT[:20])
    for name in ("one", "two"):
        write_frames(folder / f"{name}.mov", SHORT[:120])
    out = tmp_path / "out"
    assert command(monkeypatch, folder, "--out", out) == 2
    printed = capsys.readouterr()
    assert "2 of 3 takes" in printed.err and printed.out.count("not imported") == 2
    assert "lost.csv: no video lost.mp4" in printed.out
    assert "one.mov: labels of one_cal.csv; left out: one.csv, one_neutral.csv" in printed.out
    assert [path.name for path in out.iterdir() if path.is_dir()] == ["one"]
    assert records.count(out / "one/train-00000.array_record") == 120
    write_csv(folder / "two.csv", SHORT[:120])
    (folder / "lost.csv").unlink()
    assert command(monkeypatch, folder, "--out", out, "--offset", 0) == 0
    assert "imported already" in capsys.readouterr().out
    assert records.count(out / "two/train-00000.array_record") == 120


def test_labels_are_pseudo_labels_on_request_alone_or_by_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name of the tracker makes measured labels no others."""
    table, video = tmp_path / "a.csv", write_frames(tmp_path / "a.mov", SHORT[:20])
    write_csv(table, SHORT[:20])
    for name, options in {"m": [], "p": ["--pseudo"]}.items():
        how = ["--out", tmp_path / name, "--offset", 0, "--tracker", "rig", *options]
        assert command(monkeypatch, table, video, *how) == 0
    found = [records.first(tmp_path / name, 1)[0] for name in ("m", "p")]
    assert [(one["source"], one["style"]) for one in found] == [("take", "rig"), ("pseudo", "rig")]


@pytest.mark.parametrize(
    "make, arguments, message",
    [
        (lambda f: None, ["no.csv", "a.mp4"], "no.csv: no such file"),
        (lambda f: write_csv(f / "a.csv", [1, 2]), ["a.csv"], "needs its video"),
        (lambda f: write_csv(f / "a.csv", [1, 2]), ["a.csv", "b.mp4"], "b.mp4: no such file"),
        (lambda f: (f / "a.csv").write_text("x,y\n1,2\n"), ["a.csv", "."], "column of image names"),
        (lambda f: write_csv(f / "a.csv", [1, 2]), [".", "--mask", "Nose"], "'Nose' is not one"),
        (lambda f: write_csv(f / "a.csv", [1, 2]), ["."], "no video a.mp4"),
        (lambda f: None, ["a.csv", "b", "--offset", "soon"], "auto, timecode or a number"),
    ],
)
def test_bad_input_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], object],
    arguments: list[str],
    message: str,
) -> None:
    make(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, *arguments, "--out", "out") == 2
    printed = capsys.readouterr().err
    assert message in printed and "Traceback" not in printed
    assert not (tmp_path / "out").exists()


def test_a_framed_face_is_cut_out_with_its_landmarks() -> None:
    """Upright, with room, and the landmarks stay on what they mark."""
    image = np.zeros((200, 300, 3), np.uint8)
    image[96:104, 176:184] = 255  # around the point 180, 100
    points = np.full((70, 2), np.nan)
    points[30] = 180, 100
    seen = Seen(np.zeros(61), Square(170, 90, 100, 0.3), points)
    picture, found = takes.picture_of(image, seen, 80)
    assert picture.shape == (80, 80, 3)
    x, y = (found[30] * 80).round().astype(int)
    assert picture[y, x].min() > 200 and np.isnan(found[0]).all()
    rows, columns = np.nonzero(picture[..., 0] > 128)
    assert abs(rows.mean() + 0.5 - found[30, 1] * 80) < 0.6
    assert abs(columns.mean() + 0.5 - found[30, 0] * 80) < 0.6
