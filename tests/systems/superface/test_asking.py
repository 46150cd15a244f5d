"""Pairs that are asked differ visibly, in one region; a folder holds all that they show."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sf_jax import cli
from sf_jax.cli import data_pairs, loading
from sf_jax.face import regions
from sf_jax.face.landmarks import Square
from sf_jax.media.images import encode_png
from sf_jax.reader.action import Face
from sf_jax.render.head import builtin
from sf_jax.systems.superface import asking, folder
from sf_jax.systems.superface.asking import Asking
from sf_jax.systems.superface.pairs import image_hash
from sf_jax.systems.superface.renders import Renderer
from sf_jax.systems.superface.seen import visible_difference
from tests.systems.superface.answering import GRID, Answering

IMAGES = [np.random.default_rng(n).integers(0, 256, (24, 20, 3)).astype(np.uint8) for n in range(4)]
RENDERER = Renderer(builtin(), 64, 64)
DEFAULT = Asking()
HEADER = folder.Header("stand-in", RENDERER.rig.name, 64)


def filled(path: Path, count: int = 12, how: Asking = DEFAULT, other=None, per_image: int = 4):
    with folder.filling(path, HEADER) as adding:
        arguments = (Answering(), RENDERER, how, count, per_image, other)
        summary = asking.fill(adding, iter(IMAGES), *arguments)
    return summary, folder.read(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return filled(tmp_path_factory.mktemp("pairs"))


def test_a_folder_is_filled_with_the_pairs_that_were_asked_for(made):
    summary, found = made
    assert summary.pairs == len(found.pairs) == 12 and summary.images == 3
    found.check_files()
    hashes = [image_hash(image) for image in IMAGES]
    assert [hashes.index(pair.image) for pair in found.pairs] == [0] * 4 + [1] * 4 + [2] * 4
    assert {pair.region for pair in found.pairs} == {"upper", "lower"}
    assert {pair.weights for pair in found.pairs} == {"xxh128:" + "d" * 32}


def test_candidates_of_a_pair_differ_in_the_region_alone_and_visibly(made):
    _, found = made
    for pair in found.pairs:
        outside = ~regions.channels(pair.region)
        first, second = pair.first.coefficients, pair.second.coefficients
        assert np.array_equal(first[outside], second[outside])
        assert pair.difference >= asking.VISIBLE
        assert pair.pose == pytest.approx(first[52:55])
        mask = RENDERER.region(pair.region, pair.pose)
        drawn = (RENDERER(one, pair.pose) for one in (first, second))
        assert visible_difference(*drawn, mask) == pytest.approx(pair.difference, abs=1e-3)


def test_stored_renders_are_the_candidates_with_the_region_outlined(made):
    _, found = made
    for pair in found.pairs[:3]:
        for side in ("first", "second"):
            plain = RENDERER(pair.side(side).coefficients, pair.pose)
            shown = found.render(pair, side)
            changed = (plain != shown).any(-1)
            assert 0 < changed.mean() < 0.15


def test_the_same_seed_gives_the_same_pairs_and_another_seed_others(made, tmp_path):
    _, found = made
    keys = [pair.key for pair in found.pairs]
    assert [pair.key for pair in filled(tmp_path / "again")[1].pairs] == keys
    others = {pair.key for pair in filled(tmp_path / "other", how=Asking(seed=1))[1].pairs}
    assert others != set(keys)


def test_a_second_run_of_the_same_images_and_seed_adds_to_them(tmp_path):
    first, there = filled(tmp_path)
    second, both = filled(tmp_path)
    assert first.pairs == second.pairs == 12 and len(both.pairs) == 24
    assert both.pairs[12:] and second.images == 3
    assert [pair.key for pair in both.pairs[:12]] == [pair.key for pair in there.pairs]


def test_each_region_of_an_image_has_one_gold_pair_at_most(tmp_path):
    summary, found = filled(tmp_path, 16, Asking(gold=1.0))
    assert summary.pairs == 16 == len(found.pairs)
    assert summary.gold == sum(pair.gold is not None for pair in found.pairs) <= 6


def test_neither_side_is_the_better_one_by_its_origin(tmp_path):
    _, found = filled(tmp_path, 40, Asking(least=0.0, gold=0.0), per_image=20)
    first = [pair.first.origin == "means" for pair in found.pairs]
    second = [pair.second.origin == "means" for pair in found.pairs]
    assert sum(first) > 1 and sum(second) > 1
    origins = {one.origin for pair in found.pairs for one in (pair.first, pair.second)}
    kinds = {origin.split()[0] for origin in origins}
    assert kinds == {"means", "swapped", "perturbed", "revived"}


def test_pairs_that_are_alike_are_counted_and_left_out(tmp_path):
    summary, found = filled(tmp_path, how=Asking(least=60.0))
    assert not found.pairs and summary.pairs == 0 and summary.alike > 20
    assert "their renders look the same: " in summary.lines()[1]


def test_gold_pairs_name_the_better_one(tmp_path):
    summary, found = filled(tmp_path, 12, Asking(gold=1.0))
    gold = [pair for pair in found.pairs if pair.gold]
    assert summary.gold == len(gold) > 1
    for pair in gold:
        better = pair.side(pair.gold)
        worse = pair.second if pair.gold == "first" else pair.first
        assert better.origin == "means" and worse.origin == "of another image"
        assert pair.difference >= asking.GOLD_FACTOR * asking.VISIBLE


def test_answers_of_another_checkpoint_are_candidates(tmp_path):
    how = Asking(temperatures=(), proposals=0)
    _, found = filled(tmp_path, 6, how, ("round 1", Answering(shift=7)))
    origins = {one.origin for pair in found.pairs for one in (pair.first, pair.second)}
    assert origins <= {
        "means",
        "swapped upper: checkpoint round 1",
        "swapped lower: checkpoint round 1",
    }
    assert len(origins) == 3


def test_images_without_a_face_are_left_out(tmp_path):
    class Blind(Answering):
        class framer:
            @staticmethod
            def face(image):
                return None

    with folder.filling(tmp_path, HEADER) as adding:
        summary = asking.fill(adding, iter(IMAGES), Blind(), RENDERER, Asking(whole=False), 5, 2)
    assert (summary.faceless, summary.pairs) == (4, 0)
    assert "images without a face, left out: 4" in summary.lines()[-1]


def test_the_head_of_a_pair_is_that_of_the_models_answer():
    answers = asking.answers_of(Answering(), IMAGES[:1], Asking(), [0])[0]
    maker = asking.Maker(RENDERER, GRID, "w", Asking(least=0.0))
    turned = [replace(answers[0], coefficients=np.where(np.arange(61) == 52, 0.5, 0))]
    poses = {one.pair.pose for one in maker.pairs(IMAGES[0], turned + answers[1:], "upper", 0)}
    assert poses == {(0.5, 0.0, 0.0)}


def test_a_face_is_cut_out_in_pixels_enough_for_people():
    class Finding(Answering):
        class framer:
            @staticmethod
            def face(image):
                return Face(Square(30, 20, 16, 0.3), 1.0)

    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3)).astype(np.uint8)
    assert asking.face_of(Finding(), image, whole=False).shape == (96, 96, 3)
    assert asking.face_of(Finding(), image) is image


@pytest.fixture
def stand_in(monkeypatch):
    monkeypatch.setattr(loading, "load_model", lambda directory: Answering(5 if directory else 0))


def images(path: Path) -> Path:
    path.mkdir()
    for number, image in enumerate(IMAGES):
        (path / f"{number}.png").write_bytes(encode_png(image))
    return path


def test_the_command_fills_a_folder_and_adds_to_it(stand_in, tmp_path, capsys):
    given = ["data", "pairs", str(images(tmp_path / "in")), "--out", str(tmp_path / "out")]
    given += ["--size", "64"]
    assert cli.main([*given, "--count", "6"]) == 0
    first = folder.read(tmp_path / "out")
    assert first.header == folder.Header("built-in", "built-in head", 64)
    assert len(first.pairs) == 6
    assert "pairs: 6, of images: 1" in capsys.readouterr().out
    assert cli.main([*given, "--count", "5", "--seed", "1"]) == 0
    both = folder.read(tmp_path / "out")
    assert [pair.key for pair in both.pairs[:6]] == [pair.key for pair in first.pairs]
    assert len(both.pairs) == 11
    assert f"11 pairs in {tmp_path / 'out'}" in capsys.readouterr().out


def test_the_command_adds_until_all_candidates_are_compared(stand_in, tmp_path, capsys):
    given = ["data", "pairs", str(images(tmp_path / "in")), "--out", str(tmp_path / "out")]
    given += ["--size", "64", "--regions", "upper", "--temperatures", "0.5", "--count", "999"]
    hint = "nothing was added; another --seed draws other answers to the same images"
    assert cli.main(given) == 0 and hint not in capsys.readouterr().out
    count = len(folder.read(tmp_path / "out").pairs)
    assert cli.main(given) == 0 and hint in capsys.readouterr().out
    assert len(folder.read(tmp_path / "out").pairs) == count
    assert cli.main([*given, "--seed", "1"]) == 0 and hint not in capsys.readouterr().out


def test_an_image_that_cannot_be_read_is_listed_and_the_others_are_used(stand_in, tmp_path, capsys):
    inside = images(tmp_path / "in")
    (inside / "1.png").write_bytes((inside / "1.png").read_bytes()[:60])
    given = ["data", "pairs", str(inside), "--out", str(tmp_path / "out"), "--size", "64"]
    assert cli.main([*given, "--count", "20", "--per-image", "3"]) == 2
    assert "1.png: damaged or truncated\n" in capsys.readouterr().err
    assert len({pair.image for pair in folder.read(tmp_path / "out").pairs}) == 3


@pytest.mark.parametrize(
    "change, problem",
    [
        (["--rig", "nowhere.glb"], "nowhere.glb: no such file"),
        (["--least", "90"], "no two candidates differ visibly"),
        (["--gold", "2"], "'2' is not a share from 0 to 1"),
        (["--count", "0"], "'0' is no whole number from 1"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing(
    stand_in, tmp_path, capsys, change, problem
):
    out = tmp_path / "out"
    given = ["data", "pairs", str(images(tmp_path / "in")), "--out", str(out), "--size", "64"]
    assert cli.main([*given, *change]) == 2
    error = capsys.readouterr().err
    assert problem in error and error.count("\n") == 1
    assert not (out / folder.PAIRS).exists()


def test_the_command_takes_another_models_answers(stand_in, tmp_path):
    given = ["data", "pairs", str(images(tmp_path / "in")), "--out", str(tmp_path / "out")]
    given += ["--size", "64", "--count", "24", "--other", str(tmp_path / "round 1")]
    assert cli.main([*given, "--regions", "lower", "--temperatures", "0.7"]) == 0
    pairs = folder.read(tmp_path / "out").pairs
    origins = {one.origin for pair in pairs for one in (pair.first, pair.second)}
    assert "swapped lower: checkpoint round 1" in origins
    assert "swapped lower: sampled, temperature 0.7" in origins
    assert {pair.region for pair in pairs} == {"lower"}


def test_a_damaged_folder_is_refused_and_left_as_it_is(stand_in, tmp_path, capsys):
    given = ["data", "pairs", str(images(tmp_path / "in")), "--out", str(tmp_path / "out")]
    given += ["--size", "64", "--count", "3"]
    assert cli.main(given) == 0
    listed = tmp_path / "out" / folder.PAIRS
    listed.write_bytes(listed.read_bytes()[:-20])
    before = listed.read_bytes()
    capsys.readouterr()
    assert cli.main([*given, "--seed", "1"]) == 2
    error = capsys.readouterr().err
    assert "pairs.jsonl, line 4: not JSON" in error and error.count("\n") == 1
    assert listed.read_bytes() == before


def test_a_folder_without_images_is_refused(stand_in, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    given = ["data", "pairs", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert cli.main(given) == 2
    assert str(tmp_path / "in") in capsys.readouterr().err
    assert data_pairs.PER_IMAGE == 8
