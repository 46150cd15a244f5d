"""A folder of pairs: what is written is read again, and damage is refused by name."""

import errno
import json

import numpy as np
import pytest

from sf_jax.media import locks
from sf_jax.systems.superface import folder
from tests.systems.superface.folders import HEADER, SIZE, fill, pair


def test_pairs_are_read_as_they_were_written(tmp_path):
    found = fill(tmp_path, 6)
    assert found.header == HEADER and len(found.pairs) == 6
    for number, read in enumerate(found.pairs):
        made, image = pair(number)
        assert read.key == made.key and read.gold == made.gold and read.pose == made.pose
        for side in ("first", "second"):
            one, other = read.side(side), made.side(side)
            assert np.array_equal(one.coefficients, other.coefficients)
            assert (one.origin, one.render) == (other.origin, other.render)
            assert found.render(read, side).shape == (SIZE, SIZE, 3)
        assert np.array_equal(found.image(read), image)
    found.check_files()


def test_pairs_are_added_once_and_judgements_stay(tmp_path):
    fill(tmp_path, 3)
    (tmp_path / folder.JUDGEMENTS).write_bytes(b"judged")
    found = fill(tmp_path, 3, start=2)
    assert [one.key for one in found.pairs] == [pair(n)[0].key for n in range(5)]
    assert found.judgements.read_bytes() == b"judged"


def test_an_interruption_keeps_the_pairs_that_are_complete(tmp_path):
    before = fill(tmp_path, 2)
    one, image = pair(7)
    with pytest.raises(KeyboardInterrupt), folder.filling(tmp_path, HEADER) as adding:
        adding.add(one, image, *np.zeros((2, SIZE, SIZE, 3), np.uint8))
        raise KeyboardInterrupt
    found = folder.read(tmp_path)
    assert [p.key for p in found.pairs] == [*(p.key for p in before.pairs), one.key]
    found.check_files()


def test_a_failure_before_the_first_pair_makes_no_list(tmp_path):
    with pytest.raises(KeyError), folder.filling(tmp_path, HEADER):
        raise KeyError
    assert not (tmp_path / folder.PAIRS).exists()


def test_the_list_is_saved_now_and_then(tmp_path, monkeypatch):
    """A process that is killed loses the last few pairs alone."""
    monkeypatch.setattr(folder, "SAVED_EVERY", 3)
    renders = np.zeros((2, SIZE, SIZE, 3), np.uint8)
    with folder.filling(tmp_path, HEADER) as adding:
        for number in range(8):
            one, image = pair(number)
            adding.add(one, image, *renders)
            found = folder.read(tmp_path).pairs if number >= 2 else ()
            assert len(found) == 3 * ((number + 1) // 3)
    assert len(folder.read(tmp_path).pairs) == 8


@pytest.mark.parametrize("writes", range(5))  # four images, then the list
def test_a_full_disk_is_reported_and_loses_nothing(tmp_path, monkeypatch, writes):
    """Whichever file does not fit any more: the list holds the pairs whose files are all there."""
    before = fill(tmp_path, 2)
    left = [writes]
    whole = folder.files.write_bytes

    def full(path, content):
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        left[0] -= 1
        whole(path, content)

    monkeypatch.setattr(folder.files, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        fill(tmp_path, 4, start=2)
    assert str(tmp_path) in str(caught.value.filename)
    monkeypatch.undo()
    found = folder.read(tmp_path)
    found.check_files()
    assert [p.key for p in found.pairs[:2]] == [p.key for p in before.pairs]
    assert len(fill(tmp_path, 4, start=2).pairs) == 6


def test_two_processes_do_not_fill_one_folder(tmp_path):
    with (
        folder.filling(tmp_path, HEADER),
        pytest.raises(locks.BusyError, match="writes here"),
        folder.filling(tmp_path, HEADER),
    ):
        pass


def test_pairs_of_another_rig_are_not_mixed_in(tmp_path):
    fill(tmp_path, 1)
    other = folder.Header("tiny", "ict", SIZE)
    with (
        pytest.raises(folder.FolderError, match="the folder has pairs of rig 'made up'"),
        folder.filling(tmp_path, other),
    ):
        pass


def changed(tmp_path, line, change):
    """Rewrites a line, from 1, of the list of pairs."""
    path = tmp_path / folder.PAIRS
    lines = path.read_text().splitlines()
    content = json.loads(lines[line - 1])
    change(content)
    lines[line - 1] = json.dumps(content)
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda c: c.update(format="other"), "line 1: is no list of pairs"),
        (lambda c: c.update(version=2), "line 1, field 'version': found 2, expected 1"),
        (lambda c: c.update(pairs=5), "holds 3 pairs, expected 5: the file is cut off"),
        (lambda c: c.pop("rig"), "line 1, field 'rig': is missing"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path, change, problem):
    fill(tmp_path, 3)
    changed(tmp_path, 1, change)
    with pytest.raises(folder.FolderError, match=problem) as caught:
        folder.read(tmp_path)
    assert str(tmp_path / folder.PAIRS) in str(caught.value)


@pytest.mark.parametrize(
    "change, problem",
    [
        (lambda c: c["first"]["coefficients"].pop(), r"field 'first'.* \[60\], expected \[61\]"),
        (lambda c: c["first"]["coefficients"].__setitem__(3, 2.0), "EyeLookOutLeft is 2"),
        (lambda c: c["second"]["coefficients"].__setitem__(3, 0.4), "'key': does not belong"),
        (lambda c: c.update(region="nose"), "region"),
        (lambda c: c.update(image="../../etc/passwd"), "image"),
        (lambda c: c["first"].update(render="../x"), "first.render"),
        (lambda c: c.update(difference="large"), "difference"),
        (lambda c: c.update(gold="left"), "gold"),
        (lambda c: c.update(pose=[0.0]), "pose"),
    ],
)
def test_a_damaged_pair_is_refused(tmp_path, change, problem):
    fill(tmp_path, 3)
    changed(tmp_path, 3, change)
    with pytest.raises(folder.FolderError, match=f"line 3.*{problem}"):
        folder.read(tmp_path)


def test_a_file_that_is_cut_off_is_refused(tmp_path):
    fill(tmp_path, 3)
    path = tmp_path / folder.PAIRS
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(folder.FolderError, match="line 4: not JSON"):
        folder.read(tmp_path)
    path.write_bytes(b"".join(content.splitlines(True)[:-1]))
    with pytest.raises(folder.FolderError, match="holds 2 pairs, expected 3"):
        folder.read(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(folder.FolderError, match="is empty"):
        folder.read(tmp_path)
    path.unlink()
    with pytest.raises(folder.FolderError, match="no such file; `sf-jax data pairs` makes"):
        folder.read(tmp_path)


def test_a_pair_given_twice_is_refused(tmp_path):
    fill(tmp_path, 2)
    path = tmp_path / folder.PAIRS
    lines = path.read_text().splitlines(True)
    path.write_text("".join([*lines, lines[-1]]))
    with pytest.raises(folder.FolderError, match="line 4, field 'key': a pair is given twice"):
        folder.read(tmp_path)


def test_images_that_are_gone_or_changed_are_named(tmp_path):
    found = fill(tmp_path, 3)
    one, other = found.pairs[:2]
    found.image_path(other).replace(found.image_path(one))
    with pytest.raises(folder.FolderError, match=f"{one.image}.png: is another image"):
        found.image(one)
    with pytest.raises(folder.FolderError, match=f"{other.image}.png: no such file"):
        found.image(other)
    with pytest.raises(folder.FolderError, match=f"is missing; pair {other.key} shows it"):
        found.check_files()
    path = found.render_path(one, "second")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(folder.FolderError, match=one.second.render):
        found.render(one, "second")
