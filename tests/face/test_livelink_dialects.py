"""Live Link CSV as spreadsheets and other writers leave it: read, or refused by line and column."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_jax.face import livelink
from sf_jax.face.channels import NAMES
from sf_jax.face.livelink import LiveLinkError

VALUES = np.random.default_rng(0).integers(0, 10001, (40, 61)) / 10000
LABELS = livelink.labels(40, 30)


def table():
    """Header and rows of a sound file."""
    texts = [[f"{value:.4f}" for value in row] for row in VALUES]
    rows = [[label, "61", *row] for label, row in zip(LABELS, texts, strict=True)]
    return [["Timecode", "BlendShapeCount", *NAMES], *rows]


def text(rows, delimiter=",", end="\n"):
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, lineterminator=end).writerows(rows)
    return file.getvalue()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "take.csv"


def check(path, content, note=None, **options):
    """The content is read, with every value as it was."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    take = livelink.read(path, **options)
    assert np.array_equal(take.coefficients, VALUES)
    assert take.fps == 30 and take.seconds == pytest.approx(np.arange(40) / 30)
    if note:
        assert any(note in text for text in take.notes), take.notes
    return take


# --- what stands in the count column


@pytest.mark.parametrize("count", ["51", "63", "61.0", "0", "", "all", "6.1e1", " 61 "])
def test_the_count_decides_nothing(path, count):
    rows = table()
    for row in rows[1:]:
        row[1] = count
    take = check(path, text(rows))
    noted = any("BlendShapeCount differs" in note for note in take.notes)
    assert noted == (count in ("51", "63", "0", "", "all"))


def test_the_count_column_may_be_missing_or_spelled_otherwise(path):
    rows = table()
    for spelling in ("BlendshapeCount", "blendshapecount", "Blendshape Count"):
        rows[0][1] = spelling
        assert not any("not known" in note for note in check(path, text(rows)).notes)
    check(path, text([row[:1] + row[2:] for row in rows]))


# --- dialects


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_encodings_and_line_ends(path, encoding, end):
    check(path, text(table(), end=end).encode(encoding))


@pytest.mark.parametrize("declared", ["", "sep={}\n", "SEP={}\r\n", '"sep={}"\n'])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters(path, delimiter, declared):
    check(path, declared.format(delimiter) + text(table(), delimiter))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_decimal_commas(path, delimiter):
    """With `,` between fields they are quoted."""
    rows = [[field.replace(".", ",") for field in row] for row in table()]
    check(path, text(rows, delimiter), "40 rows have decimal commas")


def test_a_declared_delimiter_that_is_not_used_is_not_believed(path):
    check(path, "sep=;\n" + text(table()))


def test_blank_lines_trailing_delimiters_and_quotes(path):
    rows = table()
    check(path, "\n" + text(rows[:5]) + "\n\n" + text(rows[5:]) + "\n,,,\n", "2 blank lines")
    check(path, "\n".join(line + ",,," for line in text(rows).splitlines()))
    check(path, text(rows[:1]) + "\n".join(line + "," for line in text(rows[1:]).splitlines()))
    check(path, text([[*row, ""] for row in rows]))
    quoted = io.StringIO()
    csv.writer(quoted, quoting=csv.QUOTE_ALL).writerows(rows)
    check(path, quoted.getvalue())


def test_columns_in_another_order_with_others_between(path):
    rows = [[*reversed(row), "x"] for row in table()]
    rows[0][-1] = "Frame"
    check(path, text(rows), "column 64, 'Frame'")


# --- what is refused, by line and column


def replaced(line, column, value):
    def change(rows):
        rows[line - 1][rows[0].index(column)] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replaced(7, "JawOpen", "1_0"), "line 7, JawOpen: found '1_0'"),
        (replaced(7, "JawOpen", "0_1"), "line 7, JawOpen: found '0_1'"),
        (replaced(7, "JawOpen", "٠.٥"), "line 7, JawOpen: found '٠.٥'"),
        (replaced(7, "JawOpen", "0.1.2"), "line 7, JawOpen: found '0.1.2'"),
        (replaced(7, "JawOpen", "1e400"), "line 7, JawOpen: found '1e400'"),
        (replaced(7, "JawOpen", ""), "line 7, JawOpen: found ''.*; 60 of 61 channels hold"),
        (replaced(7, "Timecode", "00:00:00:" + "9" * 5000), "line 7, Timecode"),
        (replaced(7, "Timecode", "Timecode"), "line 7: 'Timecode' is no timecode"),
        (replaced(1, "JawOpen", "JawLeft"), "line 1: .* JawLeft twice, in columns 19 and 20"),
        (replaced(1, "TongueOut", "Tongue"), "line 1: the header lacks TongueOut"),
        (lambda rows: rows[6].pop(), "line 7: 62 fields, .*RightEyeRoll is the first that is"),
        (lambda rows: rows[6].append("5"), "line 7: 64 fields, .*decimal commas?"),
        (lambda rows: rows[6].__setitem__(slice(1, None), ["0"] + [""] * 61), "line 7: holds no"),
        (lambda rows: rows.__setitem__(0, ["a", "b"]), "line 1: no header of a .*; found 'a, b'"),
        (lambda rows: [row.pop(0) for row in rows], "line 1: the header lacks Timecode"),
        (
            lambda rows: rows.__setitem__(0, ["Timecode", *[f"x{i}" for i in range(62)]]),
            "line 1: the header lacks EyeBlinkLeft, .* and 51 more",
        ),
    ],
)
def test_faults_are_named(path, change, message):
    rows = table()
    change(rows)
    path.write_text(text(rows), encoding="utf-8")
    with pytest.raises(LiveLinkError, match=rf"take\.csv, {message}"):
        livelink.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "line 1: not a CSV text file"),
        (b"PK\x03\x04" + bytes(range(256)), "line 1: not a CSV text file"),
        (b"Timecode," * 200_000, "line 1: .*more than 262144 characters"),
        (text(table()).encode("utf-16")[:-1], "not a CSV text file"),
        (text(table()).replace(",0.", ',"0.', 1).encode(), "line 2: not a CSV text file"),
        (text(table()).encode().replace(b",0.", b",\xe9.", 1), "line 2, EyeBlinkLeft: found"),
    ],
)
def test_what_is_no_table_is_refused(path, content, message):
    path.write_bytes(content)
    with pytest.raises(LiveLinkError, match=rf"take\.csv.*{message}"):
        livelink.read(path)


# --- rows of frames without an answer


def test_empty_rows_are_kept_on_request(path):
    failed = [i in (3, 4, 39) for i in range(40)]
    livelink.write(path, VALUES, timecodes=LABELS, failed=failed, decimals=4)
    with pytest.raises(LiveLinkError, match="line 5: holds no values"):
        livelink.read(path)
    take = livelink.read(path, keep_empty=True)
    assert take.empty_lines == [5, 6, 41] and take.empty.tolist() == failed
    assert np.isnan(take.coefficients[failed]).all()
    assert np.array_equal(take.coefficients[~take.empty], VALUES[~take.empty])
    assert take.seconds == pytest.approx(np.arange(40) / 30)
    assert "3 rows hold no values, the first on line 5" in take.notes
    with pytest.raises(LiveLinkError, match="line 5: holds no values"):
        livelink.read(path, subset=True)


def test_a_row_with_a_gap_is_no_empty_row(path):
    rows = table()
    replaced(7, "JawOpen", "")(rows)
    path.write_text(text(rows))
    with pytest.raises(LiveLinkError, match="line 7, JawOpen"):
        livelink.read(path, keep_empty=True)
    assert np.isnan(livelink.read(path, subset=True).coefficients).sum() == 1


# --- cells that a spreadsheet would run


@given(st.text(st.sampled_from("=+-@\t\r\n';,| a\"＝\ud83d"), max_size=8))
def test_harmless_cells_come_back(name):
    cell = livelink.harmless(name)
    assert livelink.plain(cell) == name
    for piece in cell.replace(",", ";").replace("\t", ";").replace("|", ";").split(";"):
        assert piece.strip(" ")[:1] not in tuple("=+-@＝")


def test_sources_with_odd_names_come_back(path):
    names = ["=cmd|' /C calc'!A0", "+1", "-1", "@sum", "\tx", "a\rb", "a\nb", "'=x", "'a", " =1"]
    livelink.write(path, VALUES[:10], timecodes=LABELS[:10], sources=names)
    assert livelink.read(path).sources == names
    livelink.write(path, VALUES[:2], timecodes=LABELS[:2], sources=["\udcff.png", "\ud83d"])
    assert livelink.read(path).sources == ["\\udcff.png", "\\ud83d"]


# --- files that were once refused, or read with a rate and gaps that they do not have


@pytest.mark.parametrize(
    "name",
    [
        "count-not-61/count51.csv",
        "count-not-61/count61.0.csv",
        "semicolon-csv/semicolon.csv",
        "semicolon-csv/sep-line.csv",
        "timecode-61/jitter30.csv",
    ],
)
def test_cases(name):
    path = Path(__file__).parents[2] / "../shared/cases" / name
    if not path.exists():
        pytest.skip(f"needs {name} in ../shared/cases, which is not there")
    take = livelink.read(path)
    assert take.fps == take.timecode_rate == 30
    assert take.seconds == pytest.approx(np.arange(len(take.lines)) / 30, abs=1e-3)
    assert not any("missing" in note for note in take.notes)
