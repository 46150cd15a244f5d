"""`sf-jax bench render`: images a second of the renderer, beside a software OpenGL renderer.

Faces are drawn with four samples a pixel by two processes at once:

    bare          posed, lit by two lights, before a plain background
    randomised    everything `random_scene` draws: looks, lights, shadows, hair and other items,
                  backgrounds, camera effects
    pyrender      the bare scene by pyrender, on Mesa's software renderer through EGL, one thread a
                  process: vertices and normals, which are given, are uploaded, the image is read
    moderngl      the same with the fewest calls of OpenGL, which do nothing else

OpenGL is not charged for posing and normals, which are a part of ours. Processes share the machine
with other work, so rates are given by wall clock and by CPU second, the latter for two cores.

    sf-jax bench render                                  # ours alone
    sf-jax bench render --opengl-python PYTHON           # one with moderngl, pyrender and NumPy
    sf-jax bench render --rig ict_facekit.npz --sides 224
"""

import json
import multiprocessing
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.sampler import sample
from sf_jax.bench import opengl_side
from sf_jax.cli.arguments import Parser, UsageError, whole
from sf_jax.media import files
from sf_jax.render import rigs
from sf_jax.render.bodies import albedo
from sf_jax.render.draw import draw
from sf_jax.render.head import builtin
from sf_jax.render.raster import vertex_normals
from sf_jax.render.rig import Rig, pose
from sf_jax.render.scene import Scene, plain_scene, random_scene

PROCESSES = 2
WAYS = ("pyrender", "moderngl")
HEADS = 24  # different faces, drawn in turn
CAMERA = 60.0  # cm from OpenGL's camera to the face


@dataclass(frozen=True)
class Rate:
    """Images of all processes together.

    Attributes:
      wall: images a second; cpu: images a second of two cores that do nothing else.
    """

    wall: float
    cpu: float


def rate(found: Sequence[dict[str, Any]]) -> Rate:
    """The rate of processes that ran at once, each with its images, seconds and CPU seconds."""
    images = sum(one["images"] for one in found)
    wall = images / max(one["seconds"] for one in found)
    return Rate(wall, PROCESSES * images / sum(one["cpu"] for one in found))


def _rig(path: str | None) -> Rig:
    return builtin() if path is None else rigs.load(path)


def _scene(rig: Rig, number: int, bare: bool) -> Scene:
    return plain_scene() if bare else random_scene(number, None, len(rig.identity))


def _ours(job: tuple[str | None, bool, int, float]) -> dict[str, Any]:
    """Draws for some seconds, in a process of its own."""
    path, bare, side, seconds = job
    rig = _rig(path)
    faces = [sample(i) for i in range(HEADS)]
    for i in range(8):  # compiles, or loads what was compiled
        draw(rig, faces[i], _scene(rig, i, bare), side, side)
    images, begin, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begin < seconds:
        draw(rig, faces[images % HEADS], _scene(rig, images, bare), side, side)
        images += 1
    taken, used = time.perf_counter() - begin, time.process_time() - cpu
    return {"images": images, "seconds": taken, "cpu": used}


def ours(path: str | None, bare: bool, side: int, seconds: float) -> Rate:
    """The renderer's rate with two processes."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, spawn) as pool:
        return rate(list(pool.map(_ours, [(path, bare, side, seconds)] * PROCESSES)))


def clip_matrix(face: float, middle: np.ndarray) -> np.ndarray:
    """World to clip space, [4, 4], for a face of `face` cm that takes 0.6 of the image's height."""
    near, far = 1.0, 2 * CAMERA
    focal = 2 * 0.6 * CAMERA / face
    view = np.eye(4)
    view[:3, 3] = -middle - [0, 0, CAMERA]
    depth = np.array([-(far + near), -2 * far * near]) / (far - near)
    projection = np.zeros((4, 4))
    projection[0, 0] = projection[1, 1] = focal
    projection[2, 2:] = depth
    projection[3, 2] = -1
    return (projection @ view).astype(np.float32)


def opengl_job(rig: Rig, path: Path) -> None:
    """Writes the heads that OpenGL draws."""
    posed = [pose(rig, sample(i)) for i in range(HEADS)]
    middles = [np.nanmean(rig.marks(vertices), 0) for vertices in posed]
    np.savez(
        path,
        vertices=np.stack(posed).astype(np.float32),
        normals=np.stack([vertex_normals(vertices, rig.triangles) for vertices in posed]),
        colours=albedo(rig, plain_scene()).astype(np.float32),
        triangles=rig.triangles,
        clip=np.stack([clip_matrix(rig.height(), middle) for middle in middles]),
        middles=np.stack(middles),
        camera=CAMERA,
    )


def opengl(python: str, way: str, rig: Rig, side: int, seconds: float) -> tuple[Rate, str]:
    """OpenGL's rate with two processes, and the renderer's name.

    Args:
      way: "pyrender" or "moderngl".

    Raises:
      UsageError: that Python cannot draw with OpenGL.
    """
    script = Path(str(opengl_side.__file__)).with_name("faces_opengl.py")
    limits = os.environ | {"LP_NUM_THREADS": "1", "LIBGL_ALWAYS_SOFTWARE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        job = Path(folder) / "heads.npz"
        opengl_job(rig, job)
        command = [python, str(script), way, str(job), str(side), str(seconds)]
        try:
            running = [
                subprocess.Popen(command, env=limits, stdout=subprocess.PIPE, text=True)
                for _ in range(PROCESSES)
            ]
        except OSError as error:
            raise UsageError(f"--opengl-python {python}: {error.strerror}") from error
        outputs = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise UsageError(f"--opengl-python {python}: {way} cannot draw there, see above")
    found = [json.loads(output.splitlines()[-1]) for output in outputs]
    return rate(found), str(found[0]["renderer"])


def row(name: str, side: int, found: Rate, theirs: Mapping[str, Rate]) -> str:
    """A line of the table."""
    ratios = [f"{found.cpu / theirs[way].cpu:.1f}" if way in theirs else "" for way in WAYS]
    return f"| {name} | {side} | {found.wall:.0f} | {found.cpu:.0f} | {' | '.join(ratios)} |"


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(prog="sf-jax bench render", description=__doc__)
    sides = "of the images in pixels (default 128 and 224)"
    parser.add_argument("--sides", type=whole(8, 4096), nargs="+", default=[128, 224], help=sides)
    seconds = "for each measurement (default 10)"
    parser.add_argument("--seconds", type=whole(1, 600), default=10, help=seconds)
    parser.add_argument("--rig", help="a rig's file, in place of the built-in head")
    parser.add_argument(
        "--opengl-python", metavar="PYTHON", help="one with moderngl and pyrender (default: none)"
    )
    parser.add_argument("--out", type=Path, help="folder for render.md (default: printed)")
    options = parser.parse_args(argv)
    rig = _rig(options.rig)
    lines = [
        f"{rig.name}, {len(rig.triangles):,} triangles, {PROCESSES} processes",
        "",
        "| | side | images/s | images/s by CPU time of two cores | x pyrender | x moderngl |",
        "|---|---|---|---|---|---|",
    ]
    for side in options.sides:
        theirs: dict[str, Rate] = {}
        for way in WAYS if options.opengl_python else ():
            theirs[way], name = opengl(options.opengl_python, way, rig, side, options.seconds)
            lines.append(row(f"{way}, {name}", side, theirs[way], theirs))
        for kind, bare in (("bare", True), ("randomised", False)):
            found = ours(options.rig, bare, side, options.seconds)
            lines.append(row(kind, side, found, theirs))
    text = "\n".join(lines)
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        command = f"sf-jax bench render --sides {' '.join(map(str, options.sides))}"
        command += f" --seconds {options.seconds}"
        command += " --opengl-python PYTHON" if options.opengl_python else ""
        files.write_text(options.out / "render.md", f"# Rendering\n\n`{command}`\n\n{text}\n")


if __name__ == "__main__":
    main()
