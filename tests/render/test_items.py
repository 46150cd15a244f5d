"""Hair, glasses, hats, hands: fitted to any head, in front of it or on it, seldom in the way."""

from dataclasses import replace

import numpy as np
import pytest

from sf_jax.face.channels import INDEX
from sf_jax.render import hair
from sf_jax.render.bodies import head_map
from sf_jax.render.draw import draw
from sf_jax.render.head import builtin
from sf_jax.render.head_map import HeadMap
from sf_jax.render.outfits import HELD, WORN, Item, made, random_items
from sf_jax.render.rig import MATERIALS, Rig, pose
from sf_jax.render.scene import NATURAL, plain_scene, random_scene
from tests.render.shared_rigs import ict_facekit

RIG = builtin()
REST = np.zeros(61, np.float32)
WIDE = replace(plain_scene(), face_share=0.45)
HAIR, OBJECT = MATERIALS.index("hair"), MATERIALS.index("object")
ALL = [
    *(Item("hair", 1, name) for name in hair.SHAPES),
    *(Item("glasses", 3, lens) for lens in ("clear", "glare", "tinted", "dark")),
    *(Item(kind, 0) for kind in (*WORN, *HELD)),
]


@pytest.fixture(scope="module", params=["built-in", "ICT-FaceKit"])
def rig(request: pytest.FixtureRequest) -> Rig:
    return RIG if request.param == "built-in" else ict_facekit()


def head_of(rig: Rig) -> HeadMap:
    return head_map(rig, pose(rig, REST), np.eye(3))


def test_every_item_is_made_on_every_head(rig: Rig):
    head = head_of(rig)
    assert head.complete and 0.7 < head.unit < 1.3
    for item in ALL:
        pieces = made(item, head, NATURAL)
        for piece in pieces:
            assert piece.triangles.min() >= 0 and piece.triangles.max() < len(piece.points)
            assert np.isfinite(piece.points).all()
            assert np.abs(piece.points - head.centre).max() < 70
            assert piece.colours.min() >= 0 and piece.colours.max() <= 1
        assert pieces or item.style == "clear", item


def test_items_are_the_same_for_a_seed_and_leave_landmarks_alone():
    bare = draw(RIG, REST, WIDE, 96, 96)
    scene = replace(WIDE, items=(Item("hair", 4, "bob"), Item("hand", 5)))
    one, two = (draw(RIG, REST, scene, 96, 96) for _ in range(2))
    np.testing.assert_array_equal(one.image, two.image)
    np.testing.assert_array_equal(one.landmarks, bare.landmarks)
    assert (one.image != bare.image).any(-1).sum() > 500
    other = draw(RIG, REST, replace(scene, items=(Item("hand", 6),)), 96, 96)
    assert (other.image != one.image).any(-1).sum() > 300


def test_hair_hangs_beside_the_face_and_a_fringe_over_the_brows(rig: Rig):
    def hairy(name: str) -> np.ndarray:
        return draw(rig, REST, replace(WIDE, items=(Item("hair", 1, name),)), 128, 128).material

    landmarks = draw(rig, REST, WIDE, 128, 128).landmarks
    brow, chin = int(landmarks[19:25, 1].mean()), int(landmarks[8, 1])
    left, right = (landmarks[[0, 16], 0] + [-6, 6]).astype(int)
    below = slice(brow + 10, chin)
    for side in (slice(left - 4, left + 8), slice(right - 8, right + 4)):
        longer = (hairy("long")[below, side] == HAIR).mean()
        assert longer > 0.3 > (hairy("crop")[below, side] == HAIR).mean()
    middle = slice(int(landmarks[21, 0]), int(landmarks[22, 0]) + 1)
    forehead = slice(brow - 8, brow - 3)
    fringe, crop = (hairy(name)[forehead, middle] == HAIR for name in ("heavy", "crop"))
    assert fringe.mean() > 0.8 > 0.2 > crop.mean()


def test_glasses_are_around_eyes_that_stay_visible(rig: Rig):
    scene = replace(WIDE, face_share=0.7)
    bare = draw(rig, REST, scene, 160, 160)
    for seed in range(5):
        worn = draw(rig, REST, replace(scene, items=(Item("glasses", seed),)), 160, 160)
        rows, columns = np.nonzero(worn.material == OBJECT)
        eyes = bare.landmarks[36:48]
        assert abs(rows.mean() - eyes[:, 1].mean()) < 9 and len(rows) > 40
        assert columns.min() < eyes[:, 0].min() and columns.max() > eyes[:, 0].max()
        eye = np.isin(bare.material, [MATERIALS.index(name) for name in ("iris", "pupil")])
        assert (worn.material[eye] == bare.material[eye]).mean() > 0.8


def test_hair_stays_under_a_hat_and_out_of_a_head_cloth(rig: Rig):
    def drawn(*items: Item) -> np.ndarray:
        return draw(rig, REST, replace(WIDE, items=items), 128, 128).material

    for seed in range(6):
        hat, both = drawn(Item("hat", seed)), drawn(Item("hat", seed), Item("hair", 1, "afro"))
        assert (both[hat == OBJECT] == HAIR).mean() < 0.1
    cloth = drawn(Item("head cloth", 1))
    assert (cloth == HAIR).mean() < 0.02 and (cloth == OBJECT).sum() > 1500
    bare = drawn()
    face_parts = [MATERIALS.index(n) for n in ("lips", "sclera", "iris", "pupil")]
    seen = np.isin(bare, face_parts)
    assert (cloth[seen] == bare[seen]).mean() > 0.95


@pytest.mark.slow
def test_scenes_are_drawn_on_every_rig(rig: Rig):
    """Without errors, with a face that is not hidden."""
    eyes_and_lips = [MATERIALS.index(n) for n in ("lips", "sclera", "iris", "pupil")]
    hidden = 0
    for seed in range(150):
        scene = replace(random_scene(seed, None, len(rig.identity)), face_share=0.55)
        drawing = draw(rig, REST, scene, 96, 96)
        assert np.isfinite(drawing.landmarks).all()
        bare = draw(rig, REST, replace(scene, items=()), 96, 96)
        part = np.isin(bare.material, eyes_and_lips)
        hidden += (drawing.material[part] == bare.material[part]).mean() < 0.6
    assert hidden < 15


def test_lenses_darken_what_is_seen_through_them():
    scene = replace(WIDE, face_share=0.7)
    light, dark = (
        draw(RIG, REST, replace(scene, items=(Item("glasses", 3, lens),)), 160, 160)
        for lens in ("clear", "dark")
    )
    x, y = light.landmarks[36:48].mean(0).astype(int)
    x, y = light.landmarks[68].astype(int)
    patch = slice(y - 4, y + 5), slice(x - 6, x + 7)
    assert dark.image[patch].mean() < 0.75 * light.image[patch].mean()


def test_items_turn_with_the_head():
    turned = REST.copy()
    turned[INDEX["HeadRoll"]] = 0.5
    rows, columns = np.nonzero(
        draw(RIG, turned, replace(WIDE, items=(Item("glasses", 1),)), 160, 160).material == OBJECT
    )
    slope = np.polyfit(columns, rows, 1)[0]
    assert slope < -0.3  # the subject's right, at the left, is lower


def test_heads_without_the_landmarks_are_drawn_without_items():
    blind = RIG.landmarks.copy()
    blind[36:48] = -1
    rig = replace(RIG, landmarks=blind)
    with_items = draw(rig, REST, replace(WIDE, items=(Item("glasses", 1),)), 64, 64)
    np.testing.assert_array_equal(with_items.image, draw(rig, REST, WIDE, 64, 64).image)


def test_people_keep_hair_and_glasses_and_faces_are_seldom_covered():
    def items(person: int, seed: int) -> tuple[Item, ...]:
        return random_items(np.random.default_rng(person), np.random.default_rng(seed))

    hair_of = {i for seed in range(40) for i in items(3, seed) if i.kind == "hair"}
    assert len(hair_of) == 1
    kinds = [{i.kind for i in random_scene(seed).items} for seed in range(600)]
    shares = {kind: np.mean([kind in k for k in kinds]) for kind in ("hair", "glasses", "hand")}
    assert shares["hair"] > 0.6 and 0.1 < shares["glasses"] < 0.35 and 0 < shares["hand"] < 0.1
    assert 0.05 < np.mean([bool(k & set(HELD)) for k in kinds]) < 0.2


def test_unknown_items_are_refused():
    with pytest.raises(KeyError, match="crown"):
        made(Item("crown", 0), head_of(RIG), NATURAL)
