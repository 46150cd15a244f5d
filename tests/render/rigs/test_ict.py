"""ICT-FaceKit as a rig: both forms of its files, its sides, its channels, its landmarks."""

from pathlib import Path

import numpy as np
import pytest

from sf_jax.face import landmarks
from sf_jax.face.channels import INDEX, NAMES
from sf_jax.render import rigs
from sf_jax.render.rigs import RigError, ict, obj
from tests.render.shared_rigs import ict_facekit


def test_everything_is_known_but_the_tongue() -> None:
    rig = ict_facekit()
    assert [NAMES[i] for i in np.flatnonzero(~rig.known)] == ["TongueOut"]


def test_landmarks_run_from_the_subjects_right() -> None:
    rig = ict_facekit()
    marks = rig.marks(rig.neutral)
    assert (marks[landmarks.RIGHT_EYE, 0] < 0).all() and (marks[landmarks.LEFT_EYE, 0] > 0).all()
    mirrored = marks[landmarks.MIRROR] * [-1, 1, 1]
    assert np.linalg.norm(marks - mirrored, axis=1).max() < 0.3
    for pupil, eye in ((68, 1), (69, 0)):
        ahead = marks[pupil] - rig.eyes[eye].centre
        assert ahead[2] > 0.9 and np.abs(ahead[:2]).max() < 0.1


def test_both_parts_of_a_shape_are_summed() -> None:
    rig = ict_facekit()
    for name in ("BrowInnerUp", "CheekPuff"):
        moved = np.linalg.norm(rig.blendshapes[INDEX[name]], axis=1)
        left, right = moved[rig.neutral[:, 0] > 1].max(), moved[rig.neutral[:, 0] < -1].max()
        assert min(left, right) > 0.8 * max(left, right) > 0.1


def save(path: Path, **changes: np.ndarray | None) -> Path:
    """A file with the model's fields, too small to be it."""
    fields = {
        "vertices": np.zeros((4, 3), np.float32),
        "triangles": np.zeros((1, 3), np.int32),
        "expression_names": np.array(["jawOpen"]),
        "expression_deltas": np.zeros((1, 4, 3), np.float16),
        "identity_deltas": np.zeros((1, 4, 3), np.float16),
    } | changes
    np.savez(path, **{name: array for name, array in fields.items() if array is not None})
    path.with_name(ict.FILE_LANDMARKS).write_text("0 " * 68)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "4 vertices, expected the model's 26719"),
        ({"triangles": None}, "'triangles' is missing"),
        ({"vertices": np.full((4, 3), np.nan)}, "'vertices' holds values that are not finite"),
        ({"vertices": np.zeros(4)}, r"'vertices' has the shape \[4\], expected \[vertices, 3\]"),
        (
            {"expression_names": np.array(["a", "b"])},
            r"has the shape \[1, 4, 3\], expected \[2",
        ),
    ],
)
def test_files_that_are_not_the_model(tmp_path: Path, changes: dict, message: str) -> None:
    path = save(tmp_path / "face.npz", **changes)
    with pytest.raises(RigError, match=message) as caught:
        rigs.load(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "face.npz"
    path.write_text("version https://git-lfs")
    with pytest.raises(RigError, match="Git LFS pointer"):
        rigs.load(path)
    with pytest.raises(RigError, match="no such file"):
        rigs.load(tmp_path / "other.npz")


def test_an_archive_of_objects_runs_nothing(tmp_path: Path) -> None:
    path = save(tmp_path / "face.npz", vertices=np.array([[{}]], object))
    with pytest.raises(RigError, match="'vertices' holds object"):
        rigs.load(path)


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(RigError, match="no rig, expected .* or a folder FaceXModel"):
        rigs.load(tmp_path)
    np.savez(tmp_path / "skins.npz", colours=np.zeros(3))
    with pytest.raises(RigError, match="no rig in this folder"):
        rigs.load_folder(tmp_path)
    save(tmp_path / "face.npz")
    with pytest.raises(RigError, match="4 vertices"):
        rigs.load_folder(tmp_path)


def test_a_folder_without_all_shapes(tmp_path: Path) -> None:
    (tmp_path / f"{ict.NEUTRAL}.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.raises(RigError, match=r"eyeBlink_L\.obj: cannot be read"):
        rigs.load(tmp_path)


def test_obj_polygons_become_triangles(tmp_path: Path) -> None:
    path = tmp_path / "a.obj"
    path.write_text("# cm\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0.5\nvt 0 0\nf 1/1 2/1 3/1 4/1\n")
    vertices, triangles = obj.read(path)
    assert triangles.tolist() == [[0, 1, 2], [0, 2, 3]] and vertices[3].tolist() == [0, 1, 0.5]
    with pytest.raises(RigError, match="4 vertices, expected 5"):
        obj.positions(path, 5)
    path.write_text("v 0 0 0\nf 1 2 3\n")
    with pytest.raises(RigError, match="names a vertex that does not exist"):
        obj.read(path)
