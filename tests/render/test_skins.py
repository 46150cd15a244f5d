"""Photo skins: files read and refused, random people, folds that follow the expression."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sf_jax.face.channels import INDEX
from sf_jax.media.errors import DataError
from sf_jax.media.npz_files import Declared, read_arrays
from sf_jax.render import skins
from sf_jax.render.head import builtin
from sf_jax.render.rig import RigShapeError
from sf_jax.render.skin_looks import FOLDS, Skin, change_tone, random_skin, tone
from sf_jax.render.skin_regions import regions
from sf_jax.render.skin_transfer import transferred
from sf_jax.render.skins import Skins, SkinsError
from tests.render import shared_rigs

PHOTO_SKINS = Path(__file__).parents[2] / "../shared/rigs/photo_skins/skins.npz"


@pytest.fixture(scope="module")
def photographed() -> Skins:
    for path in (shared_rigs.FOLDER / "ict_facekit.npz", PHOTO_SKINS):
        if not path.exists():
            pytest.skip(f"photo skins are not here: {path} is missing")
    return skins.read(PHOTO_SKINS, shared_rigs.ict_facekit())


def made(count: int = 3) -> Skins:
    """Skins of the built-in head in even colours, which have no photograph in them."""
    rig = builtin()
    rig = replace(rig, landmarks=np.resize(rig.landmarks, 68))
    colours = np.full((count, len(rig.neutral), 3), 150, np.uint8)
    colours += (np.arange(count) * 20).astype(np.uint8)[:, None, None]
    names = tuple(f"{letter}.jpg" for letter in "abcdefgh"[:count])
    identity = np.eye(count, len(rig.identity), dtype=np.float32)
    return Skins(names, identity, colours, np.full(count, 0.2, np.float32), rig)


# ---- files ------------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path: Path):
    some = made()
    skins.write(tmp_path / "skins.npz", some)
    back = skins.read(tmp_path / "skins.npz", some.rig)
    assert back.portrait == some.portrait
    np.testing.assert_array_equal(back.colours, some.colours)
    np.testing.assert_array_equal(back.identity, some.identity)
    assert [path.name for path in tmp_path.iterdir()] == ["skins.npz"]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"colours": None}, "colours"),
        ({"colours": np.zeros((3, 5, 3), np.uint8)}, "5 vertices"),
        ({"colours": np.zeros((2, 5, 3), np.uint8)}, "expected [3, vertices, 3]"),
        ({"colours": np.zeros((3, 5, 3), np.float32)}, "expected uint8"),
        ({"identity": np.zeros((3, 2), np.float32)}, "2 identity directions"),
        ({"identity": np.full((3, 4), np.nan, np.float32)}, "not finite"),
        ({"portrait": np.array(["a", None, 3], object)}, "portrait"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, change: dict, message: str):
    some = made()
    arrays = {
        "portrait": np.array(some.portrait),
        "identity": some.identity,
        "colours": some.colours,
    } | change
    path = tmp_path / "bad.npz"
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(SkinsError) as caught:
        skins.read(path, some.rig)
    assert message in str(caught.value) and "bad.npz" in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs.github.com", b"PK\x03\x04", b"x"]
)
def test_no_archive_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.npz: not a"):
        read_arrays(path, {"a": Declared("float", (3,))})
    with pytest.raises(DataError, match="no such file"):
        read_arrays(tmp_path / "none.npz", {"a": Declared("float", (3,))})


def test_a_truncated_file_is_refused(tmp_path: Path):
    path = tmp_path / "bad.npz"
    np.savez(path, a=np.arange(999.0))
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes(40) + whole[middle + 40 :])
    with pytest.raises(DataError, match=r"bad\.npz"):
        read_arrays(path, {"a": Declared("float", ("n",))})


@pytest.mark.parametrize("count", [10**13, 10**30])
def test_no_room_is_made_for_what_a_header_announces(tmp_path: Path, count: int):
    path = tmp_path / "bad.npz"
    content = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": (count, 3)}
    np.lib.format.write_array_header_2_0(content, header)
    content.write(bytes(64))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", content.getvalue())
    with pytest.raises(DataError, match=r"bad\.npz.*'a' is damaged: too few bytes for the shape"):
        read_arrays(path, {"a": Declared("float", ("n", 3))})


def test_people_are_left_out_by_name():
    some = made()
    assert some.without({"b.jpg", "z.jpg"}).portrait == ("a.jpg", "c.jpg")
    assert some.only({"b.jpg"}).portrait == ("b.jpg",)
    with pytest.raises(SkinsError, match="no skin is left"):
        some.only({"z.jpg"})


def test_a_rig_without_landmarks_is_refused():
    with pytest.raises(RigShapeError, match="68 iBUG landmarks"):
        regions(replace(builtin(), landmarks=np.arange(5, dtype=np.int32)))


# ---- random people ----------------------------------------------------------------------------


def person(seed: int, photographed: Skins) -> Skin:
    return random_skin(np.random.default_rng(seed), photographed)


def test_a_seed_is_a_person(photographed: Skins):
    one, again, other = (person(seed, photographed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(one.colours, again.colours)
    np.testing.assert_array_equal(one.identity, again.identity)
    assert one.people == again.people and one.hair.shape == (3,)
    assert np.abs(one.colours - other.colours).mean() > 0.02
    assert one.colours.dtype == np.float32 and one.colours.shape == (26719, 3)
    assert one.colours.min() >= 0 and one.colours.max() <= 1


def test_tones_reach_from_dark_to_light(photographed: Skins):
    masks = photographed.regions
    tones = np.array([tone(person(seed, photographed).colours, masks).mean() for seed in range(24)])
    assert tones.min() < 0.38 and tones.max() > 0.62
    colours = photographed.colours[0].astype(np.float32) / 255
    wanted = np.array([0.5, 0.36, 0.3])
    change_tone(colours, wanted, masks)
    np.testing.assert_allclose(tone(colours, masks), wanted, atol=0.06)


def test_sides_are_alike(photographed: Skins):
    mirror = photographed.regions.mirror
    for seed in range(6):
        colours = person(seed, photographed).colours
        face = photographed.regions.mask["face"] > 0.5
        assert np.abs(colours - colours[mirror])[face].mean() < 0.16


def coefficients(**values: float) -> np.ndarray:
    out = np.zeros(61, np.float32)
    for name, value in values.items():
        out[INDEX[name]] = value
    return out


def test_folds_follow_the_expression_on_its_own_side(photographed: Skins):
    skin = person(1, photographed)
    rest = skin.colours_at(coefficients())
    smile = skin.colours_at(coefficients(MouthSmileLeft=1))
    darker = (rest - smile).sum(1)
    left = photographed.rig.neutral[:, 0] > 0
    line = photographed.regions.line["nasolabial Left"]
    assert darker[line > 0.8].mean() > 0.1 and darker.min() > -1e-5
    assert not darker[~left].any()
    np.testing.assert_array_equal(skin.colours_at(coefficients(JawOpen=1)), rest)
    for name in ("BrowInnerUp", "BrowDownLeft", "NoseSneerRight", "MouthPucker", "MouthFrownLeft"):
        assert np.abs(skin.colours_at(coefficients(**{name: 1})) - rest).max() > 0.03, name


def test_each_fold_is_on_the_face(photographed: Skins):
    masks = photographed.regions
    face = masks.mask["face"] > 0
    for name in FOLDS:
        for side in ("Left", "Right"):
            line = masks.line[f"{name} {side}"]
            assert 10 < (line > 0.3).sum() < 800, name
            assert face[line > 0.3].mean() > 0.9, name


def test_lids_are_not_the_photograph_of_an_eye(photographed: Skins):
    """In a photograph the skin that a blink shows is folded away, and its colours are lashes'."""
    masks = photographed.regions.mask
    lid = (masks["lid"] > 0.9) & (masks["liner"] < 0.1)
    donor = masks["lid donor"] > 0.5
    for seed in range(8):
        skin = person(seed, photographed)
        assert skin.colours[lid].mean() > 0.5 * skin.colours[donor].mean()


# ---- other rigs -------------------------------------------------------------------------------


def test_skins_are_carried_over_by_landmarks(photographed: Skins):
    masks = photographed.regions.mask
    painted = np.full((2, len(masks["lips"]), 3), 150, np.uint8)
    painted[:, masks["lips"] > 0.4] = [200, 60, 60]
    painted[:, masks["brow"] > 0.4] = 30
    painted[:, masks["nostrils"] > 0.9] = 10
    few = replace(photographed.only(photographed.portrait[:2]), colours=painted)
    moved = transferred(few, builtin())
    assert moved.portrait == few.portrait and moved.colours.shape[1] == len(builtin().neutral)
    theirs = moved.regions.mask
    lips = np.median(moved.colours[0][theirs["lips"] > 0.9], axis=0)
    brow = np.median(moved.colours[0][theirs["brow"] > 0.9], axis=0)
    assert lips[0] - lips[1] > 70 and brow.mean() < 90, (lips, brow)
    assert moved.colours[0][theirs["nostrils"] > 0.9].mean() > 120  # each rig shades its own
    mean = [np.median(one.colours[1][one.regions.plain_vertices], axis=0) for one in (few, moved)]
    np.testing.assert_allclose(mean[0], mean[1], atol=12)
    skin = random_skin(np.random.default_rng(3), moved)
    assert 0.5 < skin.identity.std() < 1.1
    rig = skin.on(builtin(), coefficients(MouthSmileLeft=1))
    assert rig.surface is not None and rig.surface.colours.shape == rig.neutral.shape


def test_a_rig_keeps_its_own_skins(photographed: Skins):
    few = photographed.only(photographed.portrait[:1])
    moved = transferred(few, photographed.rig)
    masks = photographed.regions.mask
    skin = (masks["face"] > 0.5) & (masks["nostrils"] < 0.05)
    away = np.abs(moved.colours[0].astype(int) - few.colours[0])[skin]
    assert away.mean() < 4
    lost = replace(builtin(), landmarks=np.full(70, -1, np.int32))
    with pytest.raises(RigShapeError, match="68 iBUG landmarks"):
        transferred(few, lost)
