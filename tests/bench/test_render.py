"""The benchmark of the renderer: its rates, its job for OpenGL, and both sides' pictures."""

import subprocess
from pathlib import Path

import numpy as np
import pytest

from sf_jax.bench import opengl_side
from sf_jax.bench import render as bench_render
from sf_jax.cli.arguments import UsageError
from sf_jax.render.head import builtin


def test_rates_are_of_all_processes_together() -> None:
    found = bench_render.rate(
        [{"images": 30, "seconds": 2.0, "cpu": 1.0}, {"images": 10, "seconds": 1.0, "cpu": 1.0}]
    )
    assert (found.wall, found.cpu) == (20.0, 40.0)
    line = bench_render.row("bare", 96, found, {"pyrender": bench_render.Rate(5.0, 10.0)})
    assert line == "| bare | 96 | 20 | 40 | 4.0 |  |"


def test_the_job_shows_each_face_in_the_middle(tmp_path: Path) -> None:
    rig = builtin()
    bench_render.opengl_job(rig, tmp_path / "heads.npz")
    job = np.load(tmp_path / "heads.npz")
    assert job["vertices"].shape == (bench_render.HEADS, len(rig.neutral), 3)
    assert job["normals"].shape == job["vertices"].shape
    used = np.unique(rig.triangles)
    np.testing.assert_allclose(np.linalg.norm(job["normals"][:, used], axis=-1), 1, atol=1e-3)
    for vertices, clip in zip(job["vertices"], job["clip"], strict=True):
        marks = rig.marks(vertices)
        there = np.column_stack([marks, np.ones(70)]) @ clip.T
        seen = there[:, :2] / there[:, 3:]
        assert np.abs(seen.mean(0)).max() < 0.2 and 0.7 < np.ptp(seen[:, 1]) < 2.0
        assert (np.abs(there[:, 2] / there[:, 3]) < 1).all()


def test_a_python_that_is_not_there_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="--opengl-python /nowhere/python"):
        bench_render.opengl("/nowhere/python", "moderngl", builtin(), 32, 0.1)


def test_the_other_side_imports_nothing_of_the_package() -> None:
    script = Path(str(opengl_side.__file__)).with_name("faces_opengl.py")
    assert "sf_jax" not in script.read_text()
    done = subprocess.run(
        ["python3", "-m", "py_compile", str(script)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
